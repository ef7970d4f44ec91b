"""The storage: a folder with `nodes.conf`, its lock, and the app state files beside it.

Floor 3. Names only: `store` is the way in, `conffile` and `folder` are what it stands on, `snapshots` what is sent and
taken, `backup` and `repair` the tools' part, `disk` the system calls.
"""

from __future__ import annotations

from .backup import BackupFile, BackupHead, BackupWriter, is_backup
from .conffile import StoredState, app_of, inspect, refusal_of
from .disk import Disk
from .folder import CONF_NAME, LOCK_NAME, AppFile, check_app
from .repair import Repair, copy_aside, repair_tail
from .snapshots import IncomingSnapshot, SnapshotFile
from .store import Loaded, Storage

__all__ = [
    "CONF_NAME",
    "LOCK_NAME",
    "AppFile",
    "BackupFile",
    "BackupHead",
    "BackupWriter",
    "Disk",
    "IncomingSnapshot",
    "Loaded",
    "Repair",
    "SnapshotFile",
    "Storage",
    "StoredState",
    "app_of",
    "check_app",
    "copy_aside",
    "inspect",
    "is_backup",
    "refusal_of",
    "repair_tail",
]
