"""Linearizable reads at the leader: confirmation rounds (dissertation 6.4, PROTOCOL 5.6).

Floor 2. One round is out at a time; reads that come meanwhile share the next one, so that no read ever uses a round
that began before it came.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ReadRounds"]


class ReadRounds:
    """Reads that wait for a round, and those whose round is out."""

    __slots__ = ("_out", "_waiting", "index", "round")

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._out: list[Any] = []
        self.round = 0
        """The round that is out; meaningful while `is_out`."""
        self.index = 0
        """The commit index noted as that round began."""

    def ask(self, token: Any) -> None:
        """A read came."""
        self._waiting.append(token)

    @property
    def is_out(self) -> bool:
        """Whether a round waits for its confirmation."""
        return bool(self._out)

    @property
    def wants_round(self) -> bool:
        """Whether reads wait and a round may begin for them."""
        return bool(self._waiting) and not self._out

    def begin(self, number: int, commit_index: int) -> None:
        """Round `number` begins now for all reads that came before it."""
        self._out, self._waiting = self._waiting, []
        self.round = number
        self.index = commit_index

    def confirm(self) -> list[tuple[Any, int]]:
        """The round is confirmed: its reads with the index that they wait for."""
        confirmed = [(token, self.index) for token in self._out]
        self._out = []
        return confirmed

    def fail_all(self) -> list[Any]:
        """Leadership is gone: the tokens of all reads."""
        failed = self._out + self._waiting
        self._out, self._waiting = [], []
        return failed
