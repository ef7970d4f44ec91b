"""For tests of nodes that really run: a state machine that adds up, and the check that no thread of theirs is left."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from raftfast import StateMachine

__all__ = ["Sum", "no_thread_left"]


class Sum(StateMachine):
    """Adds up the numbers that it is told, and answers the sum."""

    def __init__(self) -> None:
        self.value = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.value += int(command)
        return b"%d" % self.value

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % self.value]

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.value = int(b"".join(pieces) or b"0")


@contextmanager
def no_thread_left() -> Iterator[None]:
    """A thread of ours that was begun within and still runs at the end is a failure."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("raftfast")]
    assert not left, f"threads left behind: {left}"
