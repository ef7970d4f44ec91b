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

    A shortage begins below `least_bytes` and ends an eighth above: it must not begin and end with each write.
    """

    def __init__(self, storage: Storage, least_bytes: int) -> None:
        self._storage = storage
        self._least_bytes = least_bytes
        self.shortage = ""
        """What is wrong, for people; empty where there is room."""

    def look(self) -> None:
        """Asks the file system. What it can't tell changes nothing. Blocking."""
        if not self._least_bytes:
            return
        try:
            free = self._storage.free_bytes()
        except StorageError:
            return
        needed = self._least_bytes + (self._least_bytes // 8 if self.shortage else 0)
        if free >= needed:
            self.shortage = ""
        elif not self.shortage:
            self.shortage = (
                f"{self._storage.path}: less than {self._least_bytes} bytes (disk_reserve_bytes) are left on the disk: "
                "commands are refused"
            )
