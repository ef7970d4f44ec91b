"""A disk that fails one call of a running node, counted from when it was armed; the fixture that puts it in place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hanging_disk import path_of

from raftfast.storage import Disk, folder

__all__ = ["CALLS", "FAULTS", "HARMLESS", "FailingDisk", "failing_disks"]

CALLS = ("open", "close", "pread", "pwrite", "ftruncate", "fsync", "fdatasync", "rename", "unlink", "fsync_folder")
HARMLESS = {"unlink", "close"}
"""What fails here leaves a stray file or descriptor, and nothing else."""

FAULTS = {"full": errno.ENOSPC, "broken": errno.EIO, "quota": errno.EDQUOT, "short write": 0}


class FailingDisk(Disk):
    """Fails one call, counted from when it was armed, for the files of one folder.

    Tests share the class's plan, since a node makes its own disk.
    """

    folder = ""
    number = 0
    fail_at = -1
    count = 0
    failed = ""

    @classmethod
    def arm(cls, folder: Path, fault: str, fail_at: int) -> None:
        cls.folder, cls.number, cls.fail_at, cls.count, cls.failed = str(folder), FAULTS[fault], fail_at, 0, ""

    @classmethod
    def disarm(cls) -> None:
        cls.fail_at = -1


def _failing(call: str):
    working = getattr(Disk, call)

    def method(self, target, *args):
        plan = FailingDisk
        if plan.fail_at < 0 or not path_of(target).startswith(plan.folder):
            return working(self, target, *args)
        if plan.number == 0 and call != "pwrite":
            return working(self, target, *args)
        plan.count += 1
        if plan.count - 1 != plan.fail_at:
            return working(self, target, *args)
        plan.failed = call
        if plan.number == 0:
            data, offset = args
            return working(self, target, data[: len(data) // 2], offset)
        if call == "close":
            working(self, target, *args)  # a descriptor is gone whatever close says
        raise OSError(plan.number, os.strerror(plan.number))

    return method


for _name in CALLS:
    setattr(FailingDisk, _name, _failing(_name))


@pytest.fixture(autouse=True)
def failing_disks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(folder, "Disk", FailingDisk)
    yield
    FailingDisk.disarm()
