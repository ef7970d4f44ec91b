"""What an embedding service gives to a node: the interface that its state machine implements.

Floor 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

__all__ = ["StateMachine"]


class StateMachine(ABC):
    """Replicated state: every member applies the same commands in the same order.

    The three methods never run at the same time as each other, with one exception: what `snapshot()` returned is
    iterated in another thread while `apply` goes on being called.

    **Cost**: what `apply` and the beginning of `snapshot` take, the event loop stands still. The rest of a snapshot and
    `restore` run beside it, but in one process: a single step of the interpreter over all of a large state (a sort, a
    join, a copy) stops every thread for as long as it takes. Many small steps don't.
    """

    @abstractmethod
    def apply(self, index: int, command: bytes) -> bytes | None:
        """Applies one committed command and returns what its proposer gets.

        Must be deterministic: no clock, no randomness, nothing of the node's own identity. Called on the event loop,
        in index order; `index` is the command's log index. An exception is a fault of the state machine: the node
        stops, since going on would let the members' states differ.
        """

    @abstractmethod
    def snapshot(self) -> Iterable[bytes]:
        """The state as of the last applied command, in pieces of any size.

        Must begin cheaply (it is called on the event loop) and must not see commands applied later. The iterable is
        consumed once, in another thread. Equal states should give equal bytes.
        """

    @abstractmethod
    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replaces the whole state by the one that `pieces` hold.

        The pieces, joined, are the bytes that some `snapshot()` gave; where they are cut may differ. No pieces at all
        stand for the state of a new state machine (a node that is reset). Called while nothing else is, in another
        thread but for a reset; an exception must leave the old state, and refuses the snapshot.
        """
