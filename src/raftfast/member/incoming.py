"""A snapshot that this node takes: pieces in order, then one install (PROTOCOL 7, "At the follower").

Floor 3. Writing pieces and restoring the state machine are the node's affair; this file knows what is wanted next and
whom to answer.
"""

from __future__ import annotations

from ..messages import SnapshotPiece
from .orders import PieceWrite

__all__ = ["Incoming"]


class Incoming:
    """The one snapshot that is arriving or being installed.

    `name` is (leader, term, last included index, its term, total), None while there is none. Invariants:
    `written <= ordered <= total`; nothing of another name is taken while `installing`.
    """

    __slots__ = ("installing", "link", "name", "ordered", "sender", "written")

    def __init__(self) -> None:
        self.name: tuple[str, int, int, int, int] | None = None
        self.sender = ""
        self.link = 0
        self.ordered = 0
        self.written = 0
        self.installing = False

    @property
    def total(self) -> int:
        """The bytes that the snapshot has."""
        return self.name[4] if self.name is not None else 0

    def begin(self, name: tuple[str, int, int, int, int], sender: str, link: int) -> None:
        """A snapshot of another name: what was there is given up."""
        self.name, self.sender, self.link = name, sender, link
        self.ordered = self.written = 0
        self.installing = False

    def clear(self) -> None:
        """It is installed, refused, or given up."""
        self.name = None
        self.ordered = self.written = 0
        self.installing = False

    def take(self, piece: SnapshotPiece, begin: bool) -> PieceWrite | None:
        """The write that the piece orders; None where it repeats, leaves a gap, or only asks: nothing changes then."""
        if self.name is None or piece.offset != self.ordered or not piece.data:
            return None
        self.ordered += len(piece.data)
        last = self.ordered == self.total
        return PieceWrite(self.name, begin, last, piece.offset, self.total, piece.data)
