"""Linearizable reads as any member asks for them: READ_INDEX to the leader, then wait until that index is applied.

Floor 3. The leader's rounds are `consensus.reads`. A number is never used twice in the life of a process, and what was
asked of one leader is never answered by another (PROTOCOL 5.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import NotLinearizable

__all__ = ["Barriers", "LocalRead", "RemoteRead"]


class LocalRead(NamedTuple):
    """Reads of this node, which leads, by the number of their batch."""

    number: int


class RemoteRead(NamedTuple):
    """A READ_INDEX of another member, and the link to answer on."""

    peer: str
    number: int
    link: int


class _Waiting(NamedTuple):
    token: Any
    deadline: float


class Barriers:
    """This node's reads: waiting to be asked, asked, waiting to be applied.

    Invariant: a read is in one of the three, and is answered once.
    """

    def __init__(self, answer: Callable[[Any, Any, Any], None]) -> None:
        self._answer = answer
        self.waiting: list[_Waiting] = []
        self._asked: dict[int, list[_Waiting]] = {}
        self._confirmed: list[tuple[int, list[_Waiting]]] = []
        self._number = 0
        self._not_before = 0.0

    def add(self, token: Any, deadline: float) -> None:
        """A read came."""
        self.waiting.append(_Waiting(token, deadline))

    def may_ask(self, now: float) -> bool:
        """Whether reads wait and none are out: those that come while some are out share the next asking."""
        return bool(self.waiting) and not self._asked and now >= self._not_before

    @property
    def nothing_open(self) -> bool:
        """Whether there is no read at all."""
        return not (self.waiting or self._asked or self._confirmed)

    def ask(self) -> int:
        """The number under which all that wait are asked now."""
        self._number += 1
        self._asked[self._number] = self.waiting
        self.waiting = []
        return self._number

    def confirmed(self, number: int, index: int) -> None:
        """The reads of `number` may be served once `index` is applied, and not before this turn's end: the node may be
        reset in it."""
        batch = self._asked.pop(number, None)
        if batch is not None:
            self._confirmed.append((index, batch))

    def serve(self, last_applied: int) -> None:
        """Answers those that may be served with this state. No input may come before the answers are given out."""
        if not self._confirmed:
            return
        still = []
        for index, batch in self._confirmed:
            if index > last_applied:
                still.append((index, batch))
                continue
            for read in batch:
                self._answer(read.token, None, None)
        self._confirmed = still

    def refused(self, number: int, not_before: float = 0.0) -> None:
        """The reads of `number` must be asked anew, under another number; who was refused just now waits a little."""
        if number in self._asked:
            self.waiting = self._asked.pop(number) + self.waiting
            self._not_before = not_before

    def ask_again(self) -> None:
        """The link to the leader is gone, or there is a new leader: whatever is out must be asked anew."""
        for number in list(self._asked):
            self.refused(number)
        self._not_before = 0.0

    def expire(self, now: float) -> None:
        """Gives up what is too old."""
        if self.nothing_open:
            return
        self.waiting = self._live(self.waiting, now)
        asked = {number: self._live(batch, now) for number, batch in self._asked.items()}
        self._asked = {number: batch for number, batch in asked.items() if batch}
        self._confirmed = [(index, self._live(batch, now)) for index, batch in self._confirmed]

    def _live(self, batch: list[_Waiting], now: float) -> list[_Waiting]:
        live = []
        for read in batch:
            if read.deadline > now:
                live.append(read)
            else:
                self._answer(read.token, None, NotLinearizable("no leader confirmed the read in time"))
        return live

    def fail_all(self, error: Exception) -> None:
        """The node closes or is reset."""
        everything = self.waiting + [read for batch in self._asked.values() for read in batch]
        everything += [read for _, batch in self._confirmed for read in batch]
        self.waiting, self._asked, self._confirmed = [], {}, []
        for read in everything:
            self._answer(read.token, None, error)
