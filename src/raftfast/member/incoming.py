"""A snapshot that this node takes: pieces in order, then one install (PROTOCOL 7, "At the follower").

Floor 3. Writing pieces and restoring the state machine are the node's affair; this file knows what is wanted next and
whom to answer.
"""

from __future__ import annotations

from ..config import Config
from ..messages import SnapshotPiece
from .orders import PieceWrite

__all__ = ["Incoming"]


class Incoming:
    """The one snapshot that is arriving or being installed.

    `name` is (leader, term, last included index, its term, total), None while there is none. Invariants:
    `written <= ordered <= total`; nothing of another name is taken while `installing`; what waits to be written,
    `ordered - written`, is one piece, or no more than two windows of pieces.
    """

    __slots__ = ("_most_waiting", "installing", "is_full", "link", "name", "ordered", "sender", "written")

    def __init__(self, config: Config) -> None:
        self._most_waiting = 2 * config.snapshot_inflight * config.snapshot_piece_bytes
        self.name: tuple[str, int, int, int, int] | None = None
        self.sender = ""
        self.link = 0
        self.ordered = 0
        self.written = 0
        self.installing = False
        self.is_full = False
        """A piece was refused since too much waits to be written, and nothing was written since."""

    @property
    def total(self) -> int:
        """The bytes that the snapshot has."""
        return self.name[4] if self.name is not None else 0

    def begin(self, name: tuple[str, int, int, int, int], sender: str, link: int) -> None:
        """A snapshot of another name: what was there is given up."""
        self.clear()
        self.name, self.sender, self.link = name, sender, link

    def clear(self) -> None:
        """It is installed, refused, or given up."""
        self.name = None
        self.ordered = self.written = 0
        self.installing = self.is_full = False

    def take(self, piece: SnapshotPiece, begin: bool) -> PieceWrite | None:
        """The write that the piece orders; None where it repeats, leaves a gap, only asks, or finds too much that waits
        to be written (`is_full`): nothing else changes then."""
        if self.name is None or piece.offset != self.ordered or not piece.data:
            return None
        waiting = self.ordered - self.written
        if waiting and waiting + len(piece.data) > self._most_waiting:
            self.is_full = True
            return None
        self.ordered += len(piece.data)
        last = self.ordered == self.total
        return PieceWrite(self.name, begin, last, piece.offset, self.total, piece.data)

    def wrote(self, next_offset: int) -> None:
        """A piece that ends at `next_offset` is written."""
        self.written = next_offset
        self.is_full = False
