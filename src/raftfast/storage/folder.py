"""A node's folder: its lock, and the app state files in it: which there are, which are needed, how one is written.

Floor 3. Blocking; usable from any thread. No knowledge of what the state in the files means nor of `nodes.conf`, no
system call but through `Disk`, no asyncio.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ..errors import InvariantViolation, SnapshotError, StorageError
from ..hot import nodesconf
from .disk import PIECE_BYTES, Disk, error_at, read_exactly, write_all

__all__ = ["CONF_NAME", "LOCK_NAME", "AppFile", "AppWriter", "Folder", "check_app"]

CONF_NAME = "nodes.conf"
LOCK_NAME = "raftfast.lock"

_APP_NAME = re.compile(r"app-[0-9]{1,20}-[0-9a-f]{16}")


class AppFile(NamedTuple):
    """An app state file as `vars` names it: its name in the folder, its length in bytes, its CRC64.

    A checksum of 0 is a checksum like any other.
    """

    name: str
    length: int
    crc: int


def check_app(directory: str, app: AppFile, disk: Disk | None = None) -> None:
    """Read an app state file through; raise StorageError where it is missing, or not what `app` says."""
    disk = disk or Disk()
    path = os.path.join(directory, app.name)
    try:
        fd = disk.open(path, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"{path}: the app state file that nodes.conf names: {error.strerror}") from error
    try:
        size = disk.size(fd)
        if size != app.length:
            raise StorageError(f"{path}: the app state file has {size} bytes, nodes.conf says {app.length}")
        crc = 0
        for offset in range(0, size, PIECE_BYTES):
            crc = nodesconf.crc64(read_exactly(disk, fd, min(PIECE_BYTES, size - offset), offset), crc)
        if crc != app.crc:
            raise StorageError(
                f"{path}: the app state file has the checksum {crc:016x}, nodes.conf says {app.crc:016x}"
            )
    except OSError as error:
        raise error_at(path, error) from error
    finally:
        disk.close(fd)


class Folder:
    """A folder that this process has locked, and which of its app state files are still needed.

    Invariants:
    1. The lock is held from the constructor to `close`; the lock file is never renamed or removed.
    2. An app file that is *held* (being written, or written and not yet stored or given up), *pinned* (being sent or
       read) or *current* (named by the durable `nodes.conf`) is not removed.
    3. A name that is none of these can't become one again: only new names are held, and only needed ones pinned.

    The app file methods may be called from any thread.
    """

    def __init__(self, directory: str | os.PathLike[str], disk: Disk | None = None) -> None:
        self.path = os.fspath(directory)
        self.disk = disk or Disk()
        self.current: AppFile | None = None
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._pins: Counter[str] = Counter()
        self._make()
        self._lock_fd = self._take_lock()

    def close(self) -> None:
        """Give up the lock. Idempotent."""
        if self._lock_fd >= 0:
            fd, self._lock_fd = self._lock_fd, -1
            with contextlib.suppress(OSError):  # the descriptor, and the lock with it, is gone all the same
                self.disk.close(fd)

    def file(self, name: str) -> str:
        """The path of a file in the folder."""
        return os.path.join(self.path, name)

    def _make(self) -> None:
        """Make the folder where it is absent: its last level only, so that a mistyped path is noticed."""
        try:
            if not self.disk.is_folder(self.path):
                raise StorageError(f"{self.path} is not a folder")
            return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise error_at(self.path, error) from error
        try:
            with contextlib.suppress(FileExistsError):  # another process made it just now: the lock decides
                self.disk.mkdir(self.path)
            self.disk.fsync_folder(os.path.dirname(os.path.abspath(self.path)))
        except FileNotFoundError as error:
            raise StorageError(f"{self.path}: the folder above it does not exist") from error
        except OSError as error:
            raise error_at(self.path, error) from error

    def _take_lock(self) -> int:
        path = self.file(LOCK_NAME)
        try:
            fd = self.disk.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise error_at(path, error) from error
        try:
            if not self.disk.lock(fd):
                pid = self.disk.pread(fd, 32, 0).strip()
                who = f" (pid {pid.decode()})" if pid.isdigit() else ""
                raise StorageError(f"{self.path} is in use by another process{who}")
            self.disk.ftruncate(fd, 0)
            write_all(self.disk, fd, b"%d\n" % os.getpid(), 0)
        except BaseException as error:
            self.disk.close(fd)
            if isinstance(error, OSError):
                raise error_at(path, error) from error
            raise
        return fd

    # App state files.

    def write_app(self, index: int, pieces: Iterable[bytes], cancelled: Callable[[], bool]) -> AppFile:
        """Write an app state file of a new name, durably; it is held until it is stored or discarded.

        **Raises** StorageError where the disk fails, SnapshotError where `cancelled()` became true; what `pieces`
        raises passes through. In each case the file is gone.
        """
        writer = AppWriter(self, index)
        try:
            for piece in pieces:
                if cancelled():
                    raise SnapshotError("writing the app state was cancelled")
                writer.write(piece)
            return writer.finish()
        except BaseException:
            writer.abandon()
            raise

    def read_app(self, app: AppFile) -> Iterator[bytes]:
        """The bytes of a needed app state file in pieces of at most 1 MiB; it is pinned while they are read."""
        self.pin(app)
        try:
            path = self.file(app.name)
            fd = -1
            try:
                fd = self.disk.open(path, os.O_RDONLY)
                for offset in range(0, app.length, PIECE_BYTES):
                    yield read_exactly(self.disk, fd, min(PIECE_BYTES, app.length - offset), offset)
            except OSError as error:
                raise error_at(path, error) from error
            finally:
                if fd >= 0:
                    self.disk.close(fd)
        finally:
            self.unpin(app)

    def hold_new(self, index: int) -> str:
        """A name for an app state file that was never used before, held from now on."""
        name = f"app-{index}-{secrets.token_hex(8)}"
        with self._guard:
            self._held.add(name)
        return name

    def is_needed(self, name: str) -> bool:
        """Whether an app file is held, pinned or current."""
        with self._guard:
            return self._is_needed(name)

    def _is_needed(self, name: str) -> bool:
        return name in self._held or name in self._pins or (self.current is not None and self.current.name == name)

    def hold(self, app: AppFile) -> None:
        """Keep an app file that is about to be stored. Raises InvariantViolation where it may be gone."""
        with self._guard:
            if not self._is_needed(app.name):
                raise InvariantViolation(f"{app.name} was given up, or never written here: it can't be stored")
            self._held.add(app.name)

    def pin(self, app: AppFile) -> None:
        """Keep an app file on disk until `unpin`; nests. Raises StorageError where it may be gone."""
        with self._guard:
            if not self._is_needed(app.name):
                raise StorageError(f"{self.file(app.name)} is no longer kept")
            self._pins[app.name] += 1

    def unpin(self, app: AppFile) -> None:
        """Undo one `pin`; the file is removed where nothing else needs it. May block on a big file."""
        with self._guard:
            if app.name not in self._pins:
                raise InvariantViolation(f"{app.name} is not pinned")
            if self._pins[app.name] == 1:
                del self._pins[app.name]
            else:
                self._pins[app.name] -= 1
            unneeded = not self._is_needed(app.name)
        if unneeded:
            self.remove(app.name)

    def discard(self, app: AppFile) -> None:
        """Say that a written app file won't be stored: removed at once, or at its last `unpin`. Harmless otherwise."""
        self.let_go(app.name)

    def let_go(self, name: str) -> None:
        """End the holding of a name; the file is removed where nothing else needs it."""
        with self._guard:
            self._held.discard(name)
            unneeded = not self._is_needed(name)
        if unneeded:
            self.remove(name)

    def adopt(self, app: AppFile | None) -> None:
        """Take note that the durable `nodes.conf` now names `app`. The one before is removed by `sweep`."""
        with self._guard:
            self.current = app
            if app is not None:
                self._held.discard(app.name)

    def sweep(self, temporary: re.Pattern[str]) -> None:
        """Remove the app files that nothing needs and the files whose names match `temporary`.

        Only to be called when `nodes.conf` is durable: until then what it named before is needed (PROTOCOL 11).
        Errors are passed over: a stray that stays is met again at the next sweep.
        """
        with contextlib.suppress(OSError):
            for name in sorted(self.disk.names(self.path)):
                if temporary.fullmatch(name) or (_APP_NAME.fullmatch(name) and not self.is_needed(name)):
                    self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file that nothing needs; what fails is left for the next sweep."""
        with contextlib.suppress(OSError):
            self.disk.unlink(self.file(name))


class AppWriter:
    """An app state file being written: `write` pieces, then `finish` or `abandon`. For one thread at a time."""

    def __init__(self, folder: Folder, index: int) -> None:
        self._folder = folder
        self._name = folder.hold_new(index)
        self._buffer = bytearray()
        self._written = 0
        self.crc = 0
        self._fd = -1
        try:
            self._fd = folder.disk.open(folder.file(self._name), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            self.abandon()
            raise error_at(folder.file(self._name), error) from error

    @property
    def length(self) -> int:
        """Bytes taken so far."""
        return self._written + len(self._buffer)

    def write(self, piece: bytes) -> None:
        """Take a piece; small ones are gathered, so that a piece a key does not become a system call a key.

        A large one is taken in parts: while its bytes are copied and summed up no other thread gets its turn.
        """
        if len(piece) <= PIECE_BYTES:
            self._take(piece)
            return
        view = memoryview(piece)
        for start in range(0, len(piece), PIECE_BYTES):
            self._take(view[start : start + PIECE_BYTES])

    def _take(self, part: bytes | memoryview) -> None:
        self._buffer += part
        if len(self._buffer) >= PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        data = bytes(self._buffer)
        self._buffer.clear()
        try:
            write_all(self._folder.disk, self._fd, data, self._written)
        except OSError as error:
            raise error_at(self._folder.file(self._name), error) from error
        self._written += len(data)
        self.crc = nodesconf.crc64(data, self.crc)

    def settle(self) -> None:
        """Write what was gathered, so that `crc` covers all that was taken."""
        self._flush()

    def finish(self) -> AppFile:
        """Make the file and its name durable. Raises StorageError; then `abandon` remains to be called."""
        self._flush()
        disk = self._folder.disk
        try:
            disk.fsync(self._fd)
            fd, self._fd = self._fd, -1
            disk.close(fd)
            disk.fsync_folder(self._folder.path)
        except OSError as error:
            raise error_at(self._folder.file(self._name), error) from error
        return AppFile(self._name, self._written, self.crc)

    def abandon(self) -> None:
        """Close and remove the file, unless it is stored or pinned by now. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                self._folder.disk.close(fd)
        self._folder.let_go(self._name)
