"""A disk that is a dict: what the folders of a crash matrix are opened from, since there are thousands of them."""

from __future__ import annotations

import errno
import os

from raftfast.storage import Disk

__all__ = ["MemoryDisk"]


class MemoryDisk(Disk):
    """One folder, `path`, and its files by name. Descriptors are numbers of its own; a rename keeps them open."""

    path = "/in-memory"

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = {name: bytearray(data) for name, data in files.items()}
        self._open: dict[int, bytearray] = {}
        self._next = 1000

    @property
    def files(self) -> dict[str, bytes]:
        return {name: bytes(data) for name, data in self._files.items()}

    def _name(self, path: str) -> str:
        folder, name = os.path.split(path)
        assert folder == self.path, path
        return name

    def open(self, path: str, flags: int) -> int:
        name = self._name(path)
        if name not in self._files:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._files[name] = bytearray()
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._next += 1
        self._open[self._next] = self._files[name]
        return self._next

    def close(self, fd: int) -> None:
        del self._open[fd]

    def is_folder(self, path: str) -> bool:
        assert path == self.path
        return True

    def is_regular(self, fd: int) -> bool:
        return True

    def size(self, fd: int) -> int:
        return len(self._open[fd])

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._open[fd][offset : offset + size])

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        file = self._open[fd]
        assert offset <= len(file), "a hole"
        file[offset : offset + len(data)] = data
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        file = self._open[fd]
        assert size <= len(file)
        del file[size:]

    def fsync(self, fd: int) -> None:
        assert fd in self._open

    def fdatasync(self, fd: int) -> None:
        assert fd in self._open

    def rename(self, source: str, target: str) -> None:
        self._files[self._name(target)] = self._files.pop(self._name(source))

    def unlink(self, path: str) -> None:
        if self._files.pop(self._name(path), None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def mkdir(self, path: str) -> None:
        raise AssertionError(f"{path} is there")

    def names(self, path: str) -> list[str]:
        assert path == self.path
        return list(self._files)

    def fsync_folder(self, path: str) -> None:
        assert path == self.path

    def free_bytes(self, path: str) -> int:
        return 1 << 40

    def lock(self, fd: int) -> bool:
        assert fd in self._open
        return True
