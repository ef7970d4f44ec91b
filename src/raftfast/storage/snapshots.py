"""Snapshots as bytes: one to send, read where it lies; one that arrives, written piece by piece (PROTOCOL 7).

Floor 3. Blocking; each object for one thread at a time, but `SnapshotFile.read` for any. Node lines are bytes here:
what they say, and whether they are sound, is for those who install them. No messages, no asyncio.
"""

from __future__ import annotations

import contextlib
import os
import re

from ..errors import SnapshotError, StorageError
from .disk import error_at, read_exactly
from .folder import AppFile, AppWriter, Folder

__all__ = ["IncomingSnapshot", "SnapshotFile", "SnapshotHead"]

_APP_LINE = re.compile(rb"app (0|[1-9][0-9]{0,19}) ([0-9a-f]{16})\n")
_APP_LINE_BYTES = len("app 18446744073709551615 0123456789abcdef\n")


class SnapshotFile:
    """A snapshot as it is sent: node lines, then, with an app state file, `app <length> <crc64>` and its bytes.

    The app part is served from the file itself, which is pinned until `close`; nothing is copied. `read` may be called
    from any thread.
    """

    def __init__(self, folder: Folder, head: bytes, app: AppFile | None) -> None:
        self.app = app
        self.head = head if app is None else head + b"app %d %016x\n" % (app.length, app.crc)
        self.total = len(self.head) + (0 if app is None else app.length)
        self._folder = folder
        self._fd = -1
        self._closed = False
        if app is None:
            return
        folder.pin(app)
        path = folder.file(app.name)
        try:
            self._fd = folder.disk.open(path, os.O_RDONLY)
            if folder.disk.size(self._fd) != app.length:
                raise StorageError(f"{path} does not have the {app.length} bytes that were written")
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise error_at(path, error) from error
            raise

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on: `size` of them, or as many as there are. Raises StorageError."""
        if self._closed:
            raise StorageError("the snapshot file is closed")
        part = self.head[offset : offset + size]
        start = max(0, offset - len(self.head))
        length = min(size - len(part), self.total - len(self.head) - start)
        if length <= 0:
            return part
        try:
            rest = read_exactly(self._folder.disk, self._fd, length, start)
        except OSError as error:
            raise StorageError(f"reading a snapshot's app state: {error.strerror or error}") from error
        return part + rest if part else rest

    def close(self) -> None:
        """Let the app state file go. Idempotent; removing a big file may block."""
        if self._closed:
            return
        self._closed = True
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):  # it was only read
                self._folder.disk.close(fd)
        if self.app is not None:
            self._folder.unpin(self.app)


class SnapshotHead:
    """A snapshot of `total` bytes taken apart as its bytes come, cut anywhere: node lines, the app line, the app state.

    `nodes` are the node lines; `app_length` and `app_crc` are the app line's, None and 0 until it is whole, and where
    there is none. Nothing is allocated by what is announced.
    """

    MAX_BYTES = 64 << 20
    """Node lines beyond this refuse the snapshot."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.nodes = bytearray()
        self.app_length: int | None = None
        self.app_crc = 0
        self._searched = 0

    def take(self, data: bytes) -> bytes:
        """The app state's bytes among the next bytes. Raises SnapshotError for a bad app line, and for no end."""
        if self.app_length is not None:
            return data
        nodes = self.nodes
        nodes += data
        start = self._app_line_start()
        if start < 0:
            if len(nodes) > self.MAX_BYTES:
                raise SnapshotError(f"more than {self.MAX_BYTES} bytes of node lines")
            return b""
        end = nodes.find(b"\n", start) + 1
        if end == 0 and len(nodes) - start < _APP_LINE_BYTES:
            return b""
        found = _APP_LINE.fullmatch(nodes[start:end])
        if found is None:
            raise SnapshotError(f"a bad app line: {bytes(nodes[start : start + _APP_LINE_BYTES])!r}")
        length = int(found[1])
        if length != self.total - end:
            raise SnapshotError(f"an app state of {length} bytes does not fill a snapshot of {self.total} bytes")
        self.app_length, self.app_crc = length, int(found[2], 16)
        rest = bytes(nodes[end:])
        del nodes[start:]
        return rest

    def _app_line_start(self) -> int:
        """Where the app line begins, -1 if not seen yet. No node line begins so: an id is longer than `app`.

        **Cost:** linear over all pieces together: what was searched once is not searched again.
        """
        if self.nodes.startswith(b"app "):
            return 0
        found = self.nodes.find(b"\napp ", self._searched)
        self._searched = found if found >= 0 else max(0, len(self.nodes) - len(b"\napp"))
        return found + 1 if found >= 0 else -1

    def check(self, crc: int) -> None:
        """All bytes came, the app state's with the checksum `crc`. Raises SnapshotError where they are not right."""
        if self.app_length is None and not self.nodes.endswith(b"\n"):
            raise SnapshotError("the snapshot ends within a line")
        if self.app_length is not None and crc != self.app_crc:
            raise SnapshotError(f"the app state has the checksum {crc:016x}, not {self.app_crc:016x}")


class IncomingSnapshot:
    """A snapshot that arrives in pieces: node lines are kept in memory, app bytes go straight into an app state file.

    Invariants: `next_offset` bytes were taken, in order; `next_offset <= total`; once refused or abandoned, its file is
    gone and it takes nothing more.
    """

    def __init__(self, folder: Folder, index: int, total: int) -> None:
        self.index = index
        self.total = total
        self.next_offset = 0
        self._folder = folder
        self._head = SnapshotHead(total)
        self._writer: AppWriter | None = None
        self._app: AppFile | None = None
        self._over = False

    def write(self, offset: int, data: bytes) -> int:
        """Take a piece at exactly `next_offset`; the offset wanted next.

        **Raises** SnapshotError for an offset or length that does not fit (nothing was taken, it may go on) and for a
        bad head (abandoned); StorageError where the disk fails (abandoned).
        """
        if self._over:
            raise SnapshotError("this snapshot was finished, refused or abandoned")
        if offset != self.next_offset:
            raise SnapshotError(f"a piece at {offset}, where {self.next_offset} is next")
        if len(data) > self.total - self.next_offset:
            raise SnapshotError(f"a piece of {len(data)} bytes, where {self.total - self.next_offset} are to come")
        self.next_offset += len(data)
        try:
            app = self._head.take(data)
            if self._writer is None and self._head.app_length is not None:
                self._writer = AppWriter(self._folder, self.index)
            if self._writer is not None:
                self._writer.write(app)
        except BaseException:
            self.abandon()
            raise
        return self.next_offset

    def finish(self) -> tuple[bytes, AppFile | None]:
        """The node lines, and the app state file, by now durable and held until it is stored or discarded.

        **Raises** SnapshotError where bytes are missing or the checksum is wrong, StorageError where the disk fails;
        it is abandoned then. Only to be called once.
        """
        if self._over:
            raise SnapshotError("this snapshot was finished, refused or abandoned")
        try:
            if self.next_offset != self.total:
                raise SnapshotError(f"a snapshot of {self.next_offset} bytes, where {self.total} were announced")
            if self._writer is None:
                self._head.check(0)
            else:
                self._writer.settle()
                self._head.check(self._writer.crc)
                self._app = self._writer.finish()
        except BaseException:
            self.abandon()
            raise
        self._over = True
        return bytes(self._head.nodes), self._app

    def abandon(self) -> None:
        """Give it up: the app state file is removed, unless it was stored or pinned meanwhile. Idempotent."""
        self._over = True
        if self._writer is not None:
            self._writer.abandon()
