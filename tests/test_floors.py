"""Holds the tree to the floors of docs/architecture.md: a file imports only from floors below its own.

Imports are read by `ast` (by pattern in `.pyx` files), never executed, wherever they stand: lazy ones count like any
other. Those under `if TYPE_CHECKING:` keep to the floors too, but bring in no clock and close no circle. The checker
itself is tested on small sources that break each rule.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "raftfast"

FLOORS = {
    "errors": 0,
    "messages": 0,
    "records": 0,
    "config": 0,
    "status": 0,
    "statemachine": 0,
    "version": 0,
    "hot": 1,
    "consensus": 2,
    "cluster": 2,
    "storage": 3,
    "net": 3,
    "policy": 3,
    "member": 3,
    "node": 4,
    "blocking": 5,
    "server": 5,
    "kv": 5,
    "testing": 6,
    "cli": 6,
    "__main__": 6,
}
"""The floor of each folder and file at the top of the package."""

ROOT = "raftfast"
ROOT_FLOOR = 5.5
"""The package itself holds public names: it may import all that a service may, and only the command line imports it."""

PARTS = dict.fromkeys(
    (
        "arguments",
        "backup",
        "engine",
        "observe",
        "opening",
        "reserve",
        "restore",
        "session",
        "signals",
        "subscribers",
        "unbroken",
    ),
    "node",
)
"""Files that are a part of another unit: what a node is called with, its loop, folder, status, room, sessions …"""

APART = {
    "storage": {"consensus", "cluster", "member"},
    "net": {"consensus", "cluster", "member"},
}
"""What a unit must not import although it lies below."""

PURE = {"consensus", "cluster", "member", "policy"}
IMPURE = {
    "asyncio",
    "concurrent",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
}
"""Modules by which a clock, a file, a socket, a thread, a log or chance gets in."""

THIRD_PARTY = {"click", "rich", "uvloop", "pytest"}
THIRD_PARTY_OF = {"cli": {"click", "rich", "uvloop"}, "__main__": {"click"}}
"""Packages that are not Python's own, and the units that may use them: the core has no dependency."""


@dataclass(frozen=True)
class Import:
    """One import: the line it stands on, the dotted name it asks for, whether it is for type checkers alone."""

    line: int
    name: str
    types_only: bool = False


def imports_of(source: str, module: str, *, is_package: bool, cython: bool = False) -> Iterator[Import]:
    """Every import in `source`, relative ones resolved against `module` (dotted, without the name `raftfast`)."""
    base = [ROOT, *module.split(".")] if module else [ROOT]
    if not is_package:
        base = base[:-1]
    if cython:
        yield from _cython_imports(source, base)
        return
    tree = ast.parse(source)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for branch in node.body
        for inner in ast.walk(branch)
    }
    for node in ast.walk(tree):
        for item in _imports_in(node, base):
            yield Import(item.line, item.name, id(node) in guarded)


def _imports_in(node: ast.AST, base: list[str]) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        yield from _from_imports(base, node.level, node.module or "", [a.name for a in node.names], node.lineno)
    elif isinstance(node, ast.Call) and _is_dynamic_import(node):
        argument = node.args[0] if node.args else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield Import(node.lineno, argument.value)


def _from_imports(base: list[str], level: int, module: str, names: list[str], line: int) -> Iterator[Import]:
    start = base[: len(base) - level + 1] if level else []
    prefix = ".".join([*start, *([module] if module else [])])
    for name in names:
        yield Import(line, f"{prefix}.{name}" if prefix.split(".")[0] == ROOT else prefix)


def _is_dynamic_import(node: ast.Call) -> bool:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _cython_imports(source: str, base: list[str]) -> Iterator[Import]:
    joined = re.sub(r"\(([^)]*)\)", lambda found: found[1].replace("\n", " "), source)
    for number, text in enumerate(joined.splitlines(), 1):
        if found := re.match(r"\s*from\s+(\.*)([\w.]*)\s+c?import\s+(.+)", text):
            names = [part.split()[0] for part in found[3].split("#")[0].split(",") if part.strip()]
            yield from _from_imports(base, len(found[1]), found[2], names, number)
        elif found := re.match(r"\s*c?import\s+([\w., ]+)", text):
            for part in found[1].split(","):
                yield Import(number, part.split()[0])


def unit_of(dotted: str) -> str:
    """The top-level unit that a dotted name below `raftfast` lies in; the package itself for its public names."""
    parts = dotted.split(".")
    unit = PARTS.get(parts[1], parts[1]) if len(parts) > 1 else ROOT
    return unit if unit in FLOORS else ROOT


def floor_of(unit: str) -> float:
    return ROOT_FLOOR if unit == ROOT else FLOORS[unit]


def faults(files: Mapping[str, str]) -> list[str]:
    """What is wrong with the sources in `files` (path inside the package → text), one sentence each."""
    found: list[str] = []
    edges: dict[str, set[str]] = {}
    modules = {_module_name(path) for path in files}
    for path, source in sorted(files.items()):
        module, top = _module_name(path), path.split("/")[0].split(".")[0]
        unit = ROOT if path == "__init__.py" else PARTS.get(top, top)
        if unit != ROOT and unit not in FLOORS:
            found.append(f"{path}: has no floor; give it one in docs/architecture.md and here")
            continue
        is_package = path.endswith("__init__.py")
        for item in imports_of(source, module, is_package=is_package, cython=path.endswith(".pyx")):
            found += [f"{path}:{item.line}: {reason}" for reason in _import_faults(unit, item)]
            if item.name.split(".")[0] == ROOT and not item.types_only:
                edges.setdefault(module, set()).update(_modules_asked(item.name, modules) - {module})
    return found + _cycles(edges)


def _module_name(path: str) -> str:
    return re.sub(r"(/?__init__)?\.pyi?x?$", "", path).replace("/", ".")


def _modules_asked(name: str, modules: set[str]) -> set[str]:
    """The module that a dotted name means: the longest known one (its folder is not asked for by that)."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in modules:
            return {".".join(parts[:length])}
    return set()


def _import_faults(unit: str, item: Import) -> Iterator[str]:
    outside = item.name.split(".")[0]
    if outside == ROOT:
        yield from _inner_faults(unit, item.name)
        return
    if unit in PURE and outside in IMPURE and not item.types_only:
        yield f"{unit} is pure and imports {outside}"
    if outside in THIRD_PARTY - THIRD_PARTY_OF.get(unit, set()):
        yield f"{unit} imports {outside}, which is no dependency of it"


def _inner_faults(unit: str, name: str) -> Iterator[str]:
    target = unit_of(name)
    if target == unit:
        return
    if re.search(r"\.hot\.(log|wire|nodesconf)_(c|py)\b", name):
        yield f"imports {name}: only hot/__init__.py chooses a twin"
    if target in APART.get(unit, set()):
        yield f"{unit} must never import {target}"
    elif floor_of(target) > floor_of(unit):
        yield f"floor {floor_of(unit)} ({unit}) imports from floor {floor_of(target)} ({target}): upwards"
    elif floor_of(target) == floor_of(unit) and floor_of(unit) != 0 and (unit, target) != ("__main__", "cli"):
        yield f"{unit} imports {target}, which is on its own floor"


def _cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """The first import cycle among the modules, if any, as a sentence."""
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> str | None:
        if module in trail:
            return " -> ".join((*trail[trail.index(module) :], module))
        if module in done:
            return None
        for target in sorted(edges.get(module, ())):
            if cycle := walk(target, (*trail, module)):
                return cycle
        done.add(module)
        return None

    for module in sorted(edges):
        if cycle := walk(module, ()):
            return [f"imports go round in a circle: {cycle}"]
    return []


def tree() -> dict[str, str]:
    """The package's sources, Python's and Cython's."""
    paths = [path for kind in ("*.py", "*.pyx") for path in PACKAGE.rglob(kind)]
    return {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_the_tree_keeps_to_its_floors():
    sources = tree()
    assert "errors.py" in sources
    assert "hot/__init__.py" in sources
    assert faults(sources) == []


def test_the_rules_are_about_what_has_a_floor():
    assert set(APART) <= set(FLOORS)
    assert set(PARTS.values()) <= set(FLOORS)
    assert not set(PARTS) & set(FLOORS)
    assert set(FLOORS) >= PURE


GOOD = {
    "errors.py": "import enum",
    "config.py": "from .errors import ConfigError",
    "hot/__init__.py": "import os\nfrom . import log_py as log",
    "hot/log_py.py": "from ..errors import Compacted",
    "hot/log_c.pyx": "from libc.string cimport memcpy\nfrom ..errors import (\n    Compacted,\n    Unavailable\n)",
    "consensus/raft.py": "from ..hot import log\nfrom .quorum import majority",
    "consensus/quorum.py": (
        "from ..messages import Vote\nif TYPE_CHECKING:\n    from random import Random\n    from .raft import Raft"
    ),
    "messages.py": "",
    "member/core.py": "from ..cluster import state\nfrom ..consensus.raft import Raft",
    "cluster/state.py": "from ..hot import nodesconf",
    "cluster/__init__.py": "from .state import ClusterState",
    "storage/__init__.py": "from .store import Storage",
    "storage/store.py": "import os\nfrom . import folder",
    "storage/folder.py": "import fcntl",
    "net/link.py": "import asyncio\nfrom ..hot import wire",
    "node.py": "import asyncio\nfrom .member.core import Member\nfrom .engine import Engine\nfrom . import storage",
    "engine.py": "from .net import link",
    "server/__init__.py": "from ..node import Node",
    "__init__.py": "from .node import Node\nfrom .hot import COMPILED",
    "cli/serve.py": "import raftfast\nimport click\nfrom raftfast import server",
    "__main__.py": "from .cli import main",
    "cli/__init__.py": "import click",
}


def test_a_tree_that_keeps_the_rules_has_no_faults():
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("errors.py", "from .hot import wire", "floor 0 (errors) imports from floor 1 (hot): upwards"),
        ("errors.py", "from .config import Config", "circle"),
        ("hot/log_py.py", "from ..consensus import raft", "upwards"),
        ("hot/log_c.pyx", "from ..consensus cimport raft", "upwards"),
        ("hot/log_c.pyx", "from raftfast.cluster import (\n  state,\n)", "upwards"),
        ("hot/log_c.pyx", "import raftfast.node", "upwards"),
        ("consensus/raft.py", "from ..cluster.state import ClusterState", "consensus imports cluster"),
        ("cluster/state.py", "import raftfast.consensus.raft", "cluster imports consensus"),
        ("consensus/raft.py", "import asyncio", "consensus is pure and imports asyncio"),
        ("consensus/raft.py", "def f():\n    import time", "raft.py:2: consensus is pure and imports time"),
        ("consensus/raft.py", "from random import Random", "consensus is pure and imports random"),
        ("consensus/raft.py", "if not TYPE_CHECKING:\n    import time", "consensus is pure and imports time"),
        ("consensus/raft.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import time", "is pure and imports time"),
        ("consensus/raft.py", "if TYPE_CHECKING:\n    from ..cluster import state", "consensus imports cluster"),
        ("cluster/state.py", "import os.path", "cluster is pure and imports os"),
        ("member/core.py", "import logging", "member is pure and imports logging"),
        ("policy.py", "import time", "policy is pure and imports time"),
        ("storage/store.py", "from ..net import link", "storage imports net"),
        ("net/link.py", "from ..storage import Storage", "net imports storage"),
        ("net/link.py", "from .. import storage", "net imports storage"),
        ("net/link.py", "from ..consensus import raft", "net must never import consensus"),
        ("net/link.py", "from ..member.core import Member", "net must never import member"),
        ("storage/store.py", "from ..cluster import state", "storage must never import cluster"),
        ("storage/folder.py", "from ..consensus import raft", "storage must never import consensus"),
        ("storage/store.py", "from ..member import core", "storage must never import member"),
        ("member/core.py", "from ..node import Node", "upwards"),
        ("node.py", "from .server import serve", "upwards"),
        ("engine.py", "from .server import serve", "upwards"),
        ("engine.py", "from .node import Node", "circle"),
        ("net/link.py", "from ..engine import Engine", "upwards"),
        ("node.py", "from raftfast import Node", "upwards"),
        ("node.py", "import importlib\nimportlib.import_module('raftfast.cli')", "upwards"),
        ("server/__init__.py", "from ..kv import KeyValueStore", "server imports kv, which is on its own floor"),
        ("server/__init__.py", "import click", "server imports click"),
        ("__init__.py", "from .cli import main", "upwards"),
        ("node.py", "from .hot.log_py import RaftLog", "only hot/__init__.py chooses a twin"),
        ("node.py", "from raftfast.hot import wire_c", "only hot/__init__.py chooses a twin"),
        ("consensus/quorum.py", "from . import raft", "circle: consensus.raft -> consensus.quorum -> consensus.raft"),
        ("cluster/state.py", "from . import ClusterState", "circle: cluster.state -> cluster -> cluster.state"),
        ("storage/folder.py", "from . import Storage", "circle"),
        ("helpers.py", "", "helpers.py: has no floor"),
        ("helpers/things.py", "", "helpers/things.py: has no floor"),
    ],
)
def test_each_rule_can_fail(path, source, fault):
    found = faults({**GOOD, path: source})
    assert any(fault in sentence for sentence in found), found
