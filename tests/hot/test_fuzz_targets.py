"""The fuzzer's targets (fuzz/targets.py), on what a corpus begins with and on changes of it that a seed brings back."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from twins import IMPLEMENTATIONS

pytestmark = pytest.mark.skipif(IMPLEMENTATIONS != ("c", "py"), reason="RAFTFAST_PURE_TESTS: there is one twin")
LEAVES = ("wire", "log", "nodesconf")
SEED = 20_261_124


@pytest.fixture(scope="module")
def targets() -> Any:
    folder = str(Path(__file__).resolve().parents[2] / "fuzz")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("targets")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_seeds_show_no_difference(targets: Any, leaf: str) -> None:
    seeds = list(targets.seeds(leaf))
    assert len(seeds) >= 12
    for data in seeds:
        targets.TARGETS[leaf](data)


@pytest.mark.parametrize("leaf", LEAVES)
def test_changed_seeds_show_no_difference(targets: Any, leaf: str) -> None:
    print(f"seed {SEED}")
    source, seeds = random.Random(SEED), list(targets.seeds(leaf))
    for _ in range(300):
        data = bytearray(source.choice(seeds))
        for _ in range(source.randint(1, 5)):
            at = source.randrange(len(data) + 1)
            data[at : at + source.randint(0, 2)] = source.randbytes(source.randint(0, 2))
        targets.TARGETS[leaf](bytes(data))


@pytest.mark.parametrize(
    ("leaf", "verb", "data"),
    [
        ("wire", "decode", b"dWELCOME"),
        ("wire", "encode", b"dWELCOME"),
        ("nodesconf", "parse", b"p"),
        ("nodesconf", "crc64", b"lx"),
        ("nodesconf", "parse_node_line", b"nx"),
    ],
)
def test_a_difference_is_seen(targets: Any, monkeypatch: pytest.MonkeyPatch, leaf: str, verb: str, data: bytes) -> None:
    name = "WIRE" if leaf == "wire" else "CONF"
    compiled, pure = getattr(targets, name)
    changed = SimpleNamespace(**vars(pure))
    setattr(changed, verb, lambda *_: "another")
    targets.TARGETS[leaf](data)
    monkeypatch.setattr(targets, name, (compiled, changed))
    with pytest.raises(targets.Difference):
        targets.TARGETS[leaf](data)


def test_a_difference_between_logs_is_seen(targets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(targets.log_py.RaftLog):  # type: ignore[misc]
        def trim_to(self, index: int) -> int:
            return int(super().trim_to(index + 1))

    monkeypatch.setattr(targets, "log_py", SimpleNamespace(**{**vars(targets.log_py), "RaftLog": Other}))
    trimming = bytes([0, *(1, 9, 2, 2), *(6, 4, 0, 0)])
    with pytest.raises(targets.Difference):
        targets.log(trimming)
