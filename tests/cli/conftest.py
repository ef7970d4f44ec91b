"""Fixtures of the command line's tests: a fake node in place of `raftfast serve`, and processes that never stay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftfast.cli import node_process
from raftfast.cli.node_process import NodeProcess

FAKE = Path(__file__).with_name("fake_node.py")


@pytest.fixture(autouse=True)
def own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a console is, is the test's to say: by these variables the machine says it too, and rich follows them."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def habit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets how the fake nodes that are made from now on behave."""

    def choose(name: str) -> None:
        def command(directory: Path, port: int, bus_port: int, extra: object) -> list[str]:
            return [sys.executable, str(FAKE), name, str(port)]

        monkeypatch.setattr(node_process, "serve_command", command)

    choose("well")
    return choose


@pytest.fixture
def make(tmp_path: Path, habit: Callable[[str], None]) -> Iterator[Callable[[str], NodeProcess]]:
    """Makes a started fake node with a habit; kills all of them at the end."""
    made: list[NodeProcess] = []

    def start(name: str = "well") -> NodeProcess:
        habit(name)
        node = NodeProcess(tmp_path / f"node-{len(made) + 1}")
        made.append(node)
        node.start()
        return node

    yield start
    for node in made:
        node.kill()
