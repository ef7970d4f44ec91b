"""A disk that hangs: one call of it, for the files of some nodes, until it is released.

It hangs on an event that the test sets, not for a time: were the loop to wait for it, nothing would release it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from raftfast import Node
from raftfast.storage import Disk

__all__ = ["Hang", "hanging", "path_of"]


def path_of(target: str | int) -> str:
    """Of which file a call of the disk is: it is given a path or a descriptor."""
    return target if isinstance(target, str) else os.readlink(f"/proc/self/fd/{target}")


class Hang:
    """Hangs a call of the disk, for the files of some nodes whose path below the folder has a certain part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, longest: float) -> None:
        self._monkeypatch = monkeypatch
        self._longest = longest
        self._released = threading.Event()
        self._began = threading.Event()
        self.timed_out = False

    def begin(self, nodes: list[Node], call: str, part: str) -> None:
        working = getattr(Disk, call)
        folders = [str(node.directory) for node in nodes]

        def hang(disk: Disk, target, *args):
            path = path_of(target)
            meant = any(path.startswith(folder) and part in path[len(folder) :] for folder in folders)
            if meant and not self._released.is_set():
                self._began.set()
                if not self._released.wait(self._longest):
                    self.timed_out = True
            return working(disk, target, *args)

        self._monkeypatch.setattr(Disk, call, hang)

    @property
    def began(self) -> bool:
        return self._began.is_set()

    def release(self) -> None:
        self._released.set()


def hanging(monkeypatch: pytest.MonkeyPatch, longest: float) -> Iterator[Hang]:
    """The body of a fixture: what hangs for `longest` seconds is a failure."""
    made = Hang(monkeypatch, longest)
    yield made
    made.release()
    assert not made.timed_out, "the loop waited for the disk"
