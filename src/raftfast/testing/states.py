"""The states of a machine under test, as they were first seen: after the same commands every node's must be the same.

Floor 6. What it says is read by whoever wrote the machine: it tells what the machine did, not what Raft did.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import NamedTuple

__all__ = ["KnownStates", "MachineFault", "Where", "other_answer", "shown"]

_BYTES_A_COMMAND = 256
"""So many bytes of state are looked at for each command: each state while they are small, else one now and then."""

_WHOLE_STATES = 256
_SHOWN = 60

_ON_APPLY = (
    "apply() must depend on the state and the commands alone: no clock, no randomness, no hash() or id(), no order of "
    "a set, nothing of the node."
)
_ON_RESTORE = "Is all of the state in what snapshot() gives, and does restore() take all of it back?"


class MachineFault(Exception):
    """The state machine under test did what no replicated one may do. The cause is what it raised, if that."""


class Where(NamedTuple):
    """A node's machine: of which node, and of which snapshot's index this life of it was restored; None: of none."""

    node: int
    restored_at: int | None

    def __str__(self) -> str:
        restored = "" if self.restored_at is None else f" (restored from a snapshot of index {self.restored_at})"
        return f"node {self.node}{restored}"


class _Known(NamedTuple):
    hashed: bytes
    where: Where


class KnownStates:
    """The states that were looked at, by the index of the last command in them."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._whole: OrderedDict[int, bytes] = OrderedDict()
        self._newest = self._commands = self._size = 0

    def is_due(self, index: int) -> bool:
        """Whether to look at the state after the command of `index`: where it is known, and now and then."""
        if index <= self._newest:
            return index in self._known
        self._newest = index
        self._commands += 1
        return self._commands * _BYTES_A_COMMAND >= self._size

    def see(self, index: int, state: bytes, where: Where) -> None:
        """A node holds `state` after the command at `index`. Raises MachineFault where another was seen before."""
        hashed = blake2b(state, digest_size=16).digest()
        known = self._known.get(index)
        if known is None:
            self._known[index] = _Known(hashed, where)
            self._commands, self._size = 0, len(state)
            self._whole[index] = state
            if len(self._whole) > _WHOLE_STATES:
                self._whole.popitem(last=False)
        elif known.hashed != hashed:
            raise MachineFault(self._difference(index, state, where, known.where))

    def _difference(self, index: int, state: bytes, where: Where, there: Where) -> str:
        whole = self._whole.get(index)
        first = 0 if whole is None else _first_difference(state, whole)
        restored = where.restored_at == index
        after = "restore() of the snapshot" if restored else "the command"
        return (
            f"after {after} of index {index} the state is not the same on {where} as on {there}\n"
            f"here:  {shown(state, first)}\nthere: {'?' if whole is None else shown(whole, first)}\n"
            f"{_ON_RESTORE if restored else _hints(where, there)}"
        )


def other_answer(index: int, command: bytes, here: bytes, where: Where, answer: bytes, there: Where) -> MachineFault:
    """What is raised where two nodes answer the same command differently."""
    return MachineFault(
        f"{where} answers the command {shown(command)} of index {index} with {shown(here)}, and {there} with "
        f"{shown(answer)}\n{_hints(where, there)}"
    )


def _hints(where: Where, there: Where) -> str:
    """What to look at: a state that came out of a snapshot may lack something."""
    restored = where.restored_at is not None or there.restored_at is not None
    return f"{_ON_RESTORE}\n{_ON_APPLY}" if restored else _ON_APPLY


def _first_difference(one: bytes, other: bytes) -> int:
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return max(at - _SHOWN // 2, 0)


def shown(data: bytes, first: int = 0) -> str:
    """Bytes for people: a part, from `first` on, where they are many."""
    part = data[first : first + _SHOWN]
    before, after = "..." if first else "", "..." if len(data) > first + len(part) else ""
    return f"{before}{part!r}{after}" + (f" ({len(data)} bytes)" if before or after else "")
