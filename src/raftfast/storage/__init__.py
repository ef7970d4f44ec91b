"""The storage: a folder with `nodes.conf`, its lock, and the app state files beside it.

Floor 3. Names only: `store` is the way in, `conffile` and `folder` are what it stands on, `snapshots` what is sent and
taken, `disk` the system calls.
"""

from __future__ import annotations

from .conffile import StoredState, app_of, inspect
from .disk import Disk
from .folder import AppFile, check_app
from .snapshots import IncomingSnapshot, SnapshotFile
from .store import Loaded, Storage

__all__ = [
    "AppFile",
    "Disk",
    "IncomingSnapshot",
    "Loaded",
    "SnapshotFile",
    "Storage",
    "StoredState",
    "app_of",
    "check_app",
    "inspect",
]
