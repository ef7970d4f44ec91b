"""The one repair of a damaged `nodes.conf`: a last log line that can't be read is dropped, after a copy was made.

Floor 3. Blocking, for a folder that no node uses. Nothing in the middle of a file is ever touched, nor a term or vote.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ..errors import ParseError, StorageError
from ..hot import nodesconf
from .disk import Disk, error_at, read_exactly, write_all
from .folder import CONF_NAME, Folder

__all__ = ["Repair", "copy_aside", "repair_tail"]


class Repair(NamedTuple):
    """What was done: why the file was refused, the bytes that are gone, and where the file as it was is kept."""

    reason: str
    dropped: bytes
    copy: str


def repair_tail(directory: str, name: str = CONF_NAME, disk: Disk | None = None) -> Repair | None:
    """Drop the last record of the file, if it is a log line and the only damage; None where the file is sound.

    **Raises** StorageError, and nothing was changed, where the folder is in use, or this repair is none: the damage is
    elsewhere, or what is damaged is a term and vote.
    """
    disk = disk or Disk()
    path = os.path.join(directory, name)
    if not os.path.isfile(path):
        raise StorageError(f"{path}: no such file")
    folder = Folder(directory, disk)
    try:
        fd = disk.open(path, os.O_RDWR)
        try:
            if not disk.lock(fd):
                raise StorageError(f"{path} is in use by another process")
            data = read_exactly(disk, fd, disk.size(fd), 0)
            found = _last_record(path, data)
            if found is None:
                return None
            start, end, reason = found
            copy = copy_aside(disk, path, data)
            if end:
                write_all(disk, fd, end, start)
            disk.ftruncate(fd, start + len(end))
            disk.fsync(fd)
            return Repair(reason, data[start:], copy)
        finally:
            disk.close(fd)
    except OSError as error:
        raise error_at(path, error) from error
    finally:
        folder.close()


def copy_aside(disk: Disk, path: str, data: bytes) -> str:
    """A durable copy of a file's bytes beside it, under a name that is free; the name. Raises StorageError."""
    try:
        copy, fd = _new_copy(disk, path)
        try:
            write_all(disk, fd, data, 0)
            disk.fsync(fd)
        except OSError:
            os.unlink(copy)
            raise
        finally:
            disk.close(fd)
        disk.fsync_folder(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise error_at(path, error) from error
    return copy


def _new_copy(disk: Disk, path: str) -> tuple[str, int]:
    stamp = time.time_ns() // 1_000_000
    while True:
        copy = f"{path}.copy-{stamp}"
        try:
            return copy, disk.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            stamp += 1


def _last_record(path: str, data: bytes) -> tuple[int, bytes, str] | None:
    """From where on the file is to be dropped, what belongs there, and what is wrong; None for a sound file.

    A last line that is whole but for its line end is not dropped: it gets its line end.
    """
    try:
        nodesconf.parse(data)
        return None
    except ParseError as error:
        fault = error
    text = data.rstrip(b"\n\0")
    start = text.rfind(b"\n") + 1
    lineno = data.count(b"\n", 0, start) + 1
    refusal = ""
    if fault.lineno != lineno:
        refusal = f"the damage is not in the last line, {lineno}"
    elif data[start : start + 4] != b"log ":
        refusal = "the last line is no log line, and a term or vote is never dropped"
    else:
        try:
            rest = nodesconf.parse(data[:start])
        except ParseError as error:
            refusal = f"without it the file is not sound either: {error}"
        else:
            if rest.torn_tail or "currentTerm" not in rest.vars:
                refusal = "what stands before it is not whole"
    if refusal:
        raise StorageError(f"{path}: {fault}; no repair is safe here: {refusal}; the file was left as it is")
    try:
        nodesconf.parse(data[:-1] + b"\n")
        return len(data) - 1, b"\n", str(fault)
    except ParseError:
        return start, b"", str(fault)
