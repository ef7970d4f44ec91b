"""The system calls that storage makes, behind one replaceable object.

Floor 3. A test replaces `Disk` to record calls or to fail each of them. Nothing here knows what
the files say or what they are called; nothing retries: what to do about an error is decided in `store.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from ..errors import StorageError

__all__ = ["PIECE_BYTES", "Disk", "error_at", "read_exactly", "write_all"]

PIECE_BYTES = 1 << 20
"""Bytes that are read or copied at a time."""


class Disk:
    """The system calls that storage makes, one method each; every path and descriptor is the caller's.

    A test replaces this object. Each method raises OSError, and `pwrite` may write less than it was given.
    """

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def close(self, fd: int) -> None:
        os.close(fd)

    def is_folder(self, path: str) -> bool:
        return stat.S_ISDIR(os.stat(path).st_mode)

    def is_regular(self, fd: int) -> bool:
        return stat.S_ISREG(os.fstat(fd).st_mode)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def names(self, path: str) -> list[str]:
        return os.listdir(path)

    def fsync_folder(self, path: str) -> None:
        """Make the names in a folder durable: what was created, renamed and removed there."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        """Bytes that this process may still write to the file system of a folder."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def lock(self, fd: int) -> bool:
        """Whether the exclusive lock on an open file was got; never waits. It goes with the descriptor."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def write_all(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` in one call, or raise OSError.

    A short write is an error and never continued: the disk has said that it can't hold what was asked of it.
    """
    written = disk.pwrite(fd, data, offset)
    if written != len(data):
        raise OSError(errno.EIO, f"short write ({written} of {len(data)} bytes): full, or a limit")


def read_exactly(disk: Disk, fd: int, size: int, offset: int) -> bytes:
    """The `size` bytes at `offset`, or OSError where the file ends before."""
    data = disk.pread(fd, size, offset)
    if len(data) == size:
        return data
    parts = [data]
    left = size - len(data)
    while data and left:
        data = disk.pread(fd, left, offset + size - left)
        parts.append(data)
        left -= len(data)
    if left:
        raise OSError(errno.EIO, f"the file ends {left} bytes too early")
    return b"".join(parts)


def error_at(path: str, error: OSError) -> StorageError:
    """The clear error for a failed system call on `path`."""
    return StorageError(f"{path}: {error.strerror or error}")
