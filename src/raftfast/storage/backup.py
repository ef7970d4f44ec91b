"""A backup file: a head that says what is in it, a snapshot as it is sent (PROTOCOL 7), and a checksum over all of it.

Floor 3. Blocking, bounded in memory but for the node lines. What the node lines mean, and what becomes of a backup, is
for those above.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import SnapshotError, StorageError
from ..hot import nodesconf
from .disk import PIECE_BYTES, Disk, error_at, read_exactly, write_all
from .snapshots import SnapshotHead

__all__ = ["BackupFile", "BackupHead", "BackupWriter", "is_backup"]

_START = b"raftfast-backup "
_HEAD = re.compile(
    _START + rb"1 (0|[1-9][0-9]{0,19}) (0|[1-9][0-9]{0,19}) (0|[1-9][0-9]{0,19}) "
    rb"([0-9a-z]{40}|-) (0|[1-9][0-9]{0,19})\n"
)
_LONGEST_HEAD = 200
_TAIL = re.compile(rb"crc ([0-9a-f]{16})\n")
_TAIL_BYTES = len("crc 0123456789abcdef\n")
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""What `link` answers on file systems that have none: vfat, exFAT, SMB, many of FUSE."""


@dataclass(frozen=True, slots=True)
class BackupHead:
    """What a backup says of itself: the state is of entry `index` of `term`; `total` are the snapshot's bytes.

    `current_term` is the node's term when it was made, `cluster_id` None where the node was in no cluster.
    """

    index: int
    term: int
    current_term: int
    cluster_id: str | None
    total: int

    def encode(self) -> bytes:
        """The head as the file's first line."""
        cluster_id = self.cluster_id or "-"
        return f"raftfast-backup 1 {self.index} {self.term} {self.current_term} {cluster_id} {self.total}\n".encode()

    @classmethod
    def decode(cls, line: bytes) -> BackupHead:
        """The head of a line, its end included. Raises SnapshotError where it is none."""
        found = _HEAD.fullmatch(line)
        if found is None:
            raise SnapshotError("this is no backup of raftfast, or of another version")
        numbers = [int(found[group]) for group in (1, 2, 3, 5)]
        if max(numbers) >= 1 << 64:
            raise SnapshotError("a number in the backup's first line is too large")
        cluster_id = None if found[4] == b"-" else found[4].decode()
        return cls(numbers[0], numbers[1], numbers[2], cluster_id, numbers[3])


def is_backup(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a backup does, of whatever version. False where it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_START)) == _START
    except OSError:
        return False


class BackupWriter:
    """A backup being written: the pieces of the snapshot in order, then `finish`, or `abandon`.

    It is written under a name of its own beside `path`, and gets that name when it is whole and durable.
    """

    def __init__(self, path: str, head: BackupHead, disk: Disk | None = None) -> None:
        """Raises StorageError, also where `path` is there already."""
        self._disk = disk or Disk()
        self._path = path
        self._part = ""
        """The name that it is written under; empty where there is no such file of ours."""
        self._missing = head.total
        self._fd = -1
        if os.path.lexists(path):
            raise StorageError(f"{path} is there already; it was left as it is")
        text = head.encode()
        part = f"{path}.part-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._fd = self._disk.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            self._part = part
            write_all(self._disk, self._fd, text, 0)
        except OSError as error:
            self.abandon()
            raise error_at(path, error) from error
        self._size, self._crc = len(text), nodesconf.crc64(text)

    def write(self, piece: bytes) -> None:
        """Take the next piece. Raises StorageError, SnapshotError where there are too many bytes."""
        if len(piece) > self._missing:
            raise SnapshotError("the node sends more than it announced")
        self._append(piece)
        self._missing -= len(piece)
        self._crc = nodesconf.crc64(piece, self._crc)

    def _append(self, data: bytes) -> None:
        try:
            write_all(self._disk, self._fd, data, self._size)
        except OSError as error:
            raise error_at(self._path, error) from error
        self._size += len(data)

    def finish(self) -> int:
        """Make it durable under its name; its size in bytes. Raises StorageError, SnapshotError."""
        if self._missing:
            raise SnapshotError(f"{self._missing} bytes of the snapshot are missing")
        self._append(b"crc %016x\n" % self._crc)
        try:
            self._disk.fsync(self._fd)
            fd, self._fd = self._fd, -1
            self._disk.close(fd)
            BackupFile(self._part, self._disk).close()  # what was written reads right
            self._take_name()
            self._disk.fsync_folder(os.path.dirname(os.path.abspath(self._path)))
        except OSError as error:
            raise error_at(self._path, error) from error
        return self._size

    def _take_name(self) -> None:
        """The part gets its name. What came there meanwhile is never replaced, as it would be by a mere rename."""
        try:
            os.link(self._part, self._path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._reserve_and_rename()
        else:
            os.unlink(self._part)
        self._part = ""

    def _reserve_and_rename(self) -> None:
        """Where there are no hard links: an empty file of ours takes the name first, and only that is replaced."""
        fd = self._disk.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self._disk.close(fd)
            self._disk.rename(self._part, self._path)
        except OSError:
            if os.path.lexists(self._part):  # otherwise it was renamed all the same
                os.unlink(self._path)
            raise

    def abandon(self) -> None:
        """Close and remove what was written of it. Idempotent; nothing happens after `finish`."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.close(fd)
        if self._part and os.path.lexists(self._part):
            os.unlink(self._part)


class BackupFile:
    """A backup that was read through and is right: its head, its node lines, and where its app state lies."""

    def __init__(self, path: str, disk: Disk | None = None) -> None:
        """Raises StorageError, with the file and the reason, where it can't be read or is not what was written."""
        self._path = path
        self._disk = disk or Disk()
        self.nodes = b""
        self._app_offset = self.app_length = 0
        self.has_app = False
        try:
            self._fd = self._disk.open(path, os.O_RDONLY)
        except OSError as error:
            raise error_at(path, error) from error
        try:
            self._read_through()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise error_at(path, error) from error
            if isinstance(error, SnapshotError):
                raise StorageError(f"{path}: {error}") from error
            raise

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.close(fd)

    def _read_through(self) -> None:
        size = self._disk.size(self._fd)
        start = self._disk.pread(self._fd, _LONGEST_HEAD, 0)
        first = start[: start.find(b"\n") + 1]
        self.head = BackupHead.decode(first)
        end = len(first) + self.head.total
        if size != end + _TAIL_BYTES:
            raise SnapshotError(f"it has {size} bytes, where {end + _TAIL_BYTES} are announced")
        snapshot = SnapshotHead(self.head.total)
        crc, app_crc = nodesconf.crc64(first), 0
        for piece in self._pieces(len(first), end):
            crc = nodesconf.crc64(piece, crc)
            app_crc = nodesconf.crc64(snapshot.take(piece), app_crc)
        tail = _TAIL.fullmatch(read_exactly(self._disk, self._fd, _TAIL_BYTES, end))
        if tail is None or int(tail[1], 16) != crc:
            raise SnapshotError(f"its checksum is {crc:016x}, and its last line says another: it is damaged")
        snapshot.check(app_crc)
        self.nodes = bytes(snapshot.nodes)
        self.has_app, self.app_length = snapshot.app_length is not None, snapshot.app_length or 0
        self._app_offset = end - self.app_length

    def app_pieces(self) -> Iterator[bytes]:
        """The app state's bytes, in pieces of at most 1 MiB. Raises StorageError."""
        try:
            yield from self._pieces(self._app_offset, self._app_offset + self.app_length)
        except OSError as error:
            raise error_at(self._path, error) from error

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        for offset in range(start, end, PIECE_BYTES):
            yield read_exactly(self._disk, self._fd, min(PIECE_BYTES, end - offset), offset)
