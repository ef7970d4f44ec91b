"""The public names of the leaves' twins: the same inside both, of all three."""

from __future__ import annotations

from types import ModuleType

import pytest

from twins import IMPLEMENTATIONS, leaf

LEAVES = ("log", "wire", "nodesconf")

# What the pure twins import from the standard library by these names; no part of anybody's surface.
STANDARD = {"Any", "Callable", "Final", "Iterable", "NamedTuple", "NoReturn", "Sequence", "annotations", "array"} | {
    "bisect_right",
    "final",
    "pairwise",
    "re",
}


def public(module: ModuleType) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_")} - STANDARD


@pytest.mark.skipif(IMPLEMENTATIONS != ("c", "py"), reason="RAFTFAST_PURE_TESTS: there is one twin")
@pytest.mark.parametrize("name", LEAVES)
def test_the_twins_have_the_same_names_inside(name):
    c, py = leaf("c", name), leaf("py", name)
    assert public(c) == public(py)
    assert set(c.__all__) <= public(c)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_what_the_file_leaf_gives_and_takes_can_be_named(impl):
    nodesconf = leaf(impl, "nodesconf")
    record = nodesconf.NodeRecord("a" * 40, flags=("myself", "master"))
    conf = nodesconf.parse(nodesconf.dump(nodesconf.NodesConf(nodes=(record,))))
    assert isinstance(conf, nodesconf.NodesConf)
    assert isinstance(conf.nodes[0], nodesconf.NodeRecord)
    assert isinstance(nodesconf.parse_address("127.0.0.1:1"), nodesconf.Address)
    assert {"Address", "NodeRecord", "NodesConf", "ParseError"} <= set(nodesconf.__all__)
