"""The reserve: whether the disk has room enough for more commands, so that it is never met full.

Floor 4, a part of the node's loop. `look` runs in the storage's worker thread, `shortage` is read anywhere.
"""

from __future__ import annotations

from .errors import StorageError
from .storage import Storage

__all__ = ["LOOK_INTERVAL", "Reserve"]

LOOK_INTERVAL = 1.0
"""Seconds between two looks at a disk to which nothing is written."""


class Reserve:
    """Watches the room that a folder's file system has left.

    A shortage begins when less than `least_bytes` are left beside what the next rewrite takes, so that the rewrite that
    makes room always has room itself. It ends an eighth above: it must not begin and end with each write.
    """

    def __init__(self, storage: Storage, least_bytes: int) -> None:
        self._storage = storage
        self._least_bytes = least_bytes
        self._free: int | None = None
        self.shortage = ""
        """What is wrong, for people; empty where there is room."""

    def look(self) -> None:
        """Asks the file system. What it can't tell changes nothing. Blocking; for any worker thread."""
        if not self._least_bytes:
            return
        try:
            free = self._free = self._storage.free_bytes()
        except StorageError:
            return
        rewrite = self._storage.rewrite_bytes
        least = self._least_bytes + rewrite
        if free >= least + (least // 8 if self.shortage else 0):
            self.shortage = ""
        elif not self.shortage:
            self.shortage = (
                f"{self._storage.path}: {free} bytes are left on the disk, less than {self._least_bytes} "
                f"(disk_reserve_bytes) and {rewrite} for the next rewrite: commands are refused"
            )

    def has_room_for(self, size: int) -> bool:
        """Whether `size` bytes fit, by the last look. True where nobody looks: a reserve of 0."""
        return self._free is None or self._free >= size

    def has_room_to_rewrite(self) -> bool:
        """Whether the file, written anew with its app state, fits beside the present one."""
        return self.has_room_for(self._storage.rewrite_bytes)
