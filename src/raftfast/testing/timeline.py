"""Virtual time: what is due, in order, and a record of what happened.

Floor 6. Nothing of nodes, links or disks may be known here, and no real clock may be looked at.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from ..messages import Message, describe

__all__ = ["Timeline", "Trace"]


class Timeline:
    """Calls that are due at a moment of virtual time. Two of one moment are made in the order in which they came."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._count = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Makes the call at `when`, or now where that has passed."""
        self._count += 1
        heappush(self._due, (when if when > self.now else self.now, self._count, call, args))

    def soon(self, call: Callable[..., None], *args: Any) -> None:
        """Makes the call now, behind all that is due now."""
        self._soon.append((call, args))

    def step(self, until: float) -> bool:
        """Makes the next call that is due by `until`. False where there is none: then it is `until`."""
        due, soon = self._due, self._soon
        if soon and not (due and due[0][0] <= self.now):
            call, args = soon.popleft()
        elif due and due[0][0] <= until:
            self.now, _, call, args = heappop(due)
        else:
            self.now = max(self.now, until)
            return False
        call(*args)
        return True


class Trace:
    """The last things that happened, for people, and a checksum over all that ever did."""

    def __init__(self, keep: int) -> None:
        self.checksum = 0
        self._codes: dict[str, int] = {}
        self._lines: deque[tuple[float, int, str, Any]] = deque(maxlen=keep)

    def note(self, now: float, node: int, what: str, detail: Any = "") -> None:
        """`what` happened at node `node`; 0: at none in particular. `detail` is formatted only when it is asked for."""
        code = self._codes.get(what)
        if code is None:
            code = self._codes[what] = zlib.crc32(what.encode())  # no hash of a text: it is another in each process
        self.checksum = hash((self.checksum, now, node, code))
        self._lines.append((now, node, what, detail))

    def text(self) -> str:
        """The record, one thing a line."""
        return "\n".join(
            f"{now:10.4f}  {f'n{node}' if node else '  ':<4} {what:<9} {_shown(detail)}".rstrip()
            for now, node, what, detail in self._lines
        )


def _shown(detail: Any) -> str:
    if isinstance(detail, Message):
        return describe(detail)
    if isinstance(detail, tuple):
        return " ".join(_shown(part) for part in detail)
    return str(detail)
