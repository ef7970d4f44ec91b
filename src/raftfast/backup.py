"""A backup of a running node: its state at one moment, as a snapshot that is read in pieces.

Floor 4, a part of the node. How a backup is carried elsewhere, and what its file looks like, is not its affair.
"""

from __future__ import annotations

from typing import Self

from .engine import Engine
from .storage import BackupHead, SnapshotFile

__all__ = ["Backup"]


class Backup:
    """A snapshot of a node at `head.index`, `head.total` bytes long. Close it: its file stays in the folder till then.

    The end of the node closes it too.
    """

    def __init__(self, engine: Engine, file: SnapshotFile, head: BackupHead) -> None:
        self._engine = engine
        self._file = file
        self.head = head

    @classmethod
    async def of(cls, engine: Engine) -> Self:
        """What the node has applied now."""
        capture, file = await engine.lend_snapshot()
        current_term = engine.member.raft.current_term
        head = BackupHead(capture.index, capture.term, current_term, capture.image.cluster_id, file.total)
        return cls(engine, file, head)

    async def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on, `size` of them or as many as there are. Raises StorageError, NodeClosed."""
        return await self._engine.read_lent(self._file, offset, size)

    def close(self) -> None:
        """It is read no more. Idempotent."""
        self._engine.take_back(self._file)
