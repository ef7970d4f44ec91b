"""The store of a node: one stored state, the log lines above it, term and vote, all in `nodes.conf`; app state beside.

Floor 3. Blocking: one worker thread makes the calls of `Storage` one after another; only what has to do with app state
files and snapshots may run in other threads meanwhile. Never in here: asyncio, what an entry means, what to store when.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import InvariantViolation, ParseError, StorageError
from ..hot import nodesconf
from ..records import HardState, NodesConf
from .conffile import ConfFile, StoredState, batches, head_of, refusal_of, stored_in
from .disk import Disk, error_at, read_exactly, write_all
from .folder import CONF_NAME, LOCK_NAME, AppFile, Folder, check_app
from .snapshots import IncomingSnapshot, SnapshotFile

__all__ = ["Loaded", "Storage"]

_NO_STATE = HardState(0, None)
_ID = re.compile("[0-9a-z]{40}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was in the folder. `conf` and `stored` are None where it is fresh; `warnings` are whole sentences."""

    conf: NodesConf | None
    stored: StoredState | None
    hard_state: HardState
    app: AppFile | None
    warnings: tuple[str, ...] = ()


def _log_texts(conf: NodesConf) -> Iterator[bytes]:
    """The log lines of a parsed file as text, in parts that one write can take."""
    index = conf.entries[0][0] if conf.entries else 0
    for batch in batches(line for _, _, line in conf.entries):
        yield nodesconf.log_lines(index, batch)
        index += len(batch)


class Storage:
    """A node's folder, locked, open for appends and rewrites.

    Invariants:
    1. What a call that returned has stored survives any crash; a call that raised has stored all, a part or nothing
       (never a part of a rewrite), and after it the storage only raises (`failed`).
    2. Terms never go back, a vote never changes within its term, S never goes back; but for `reset=True`.
    3. The log lines in the file are those of `stored_index + 1` to `last_index`, without a gap.
    4. The app state file named by the durable file is there, with the length and checksum that it says.

    **Source:** PROTOCOL 7, 11.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.failed: StorageError | None = None
        self.path = folder.file(name)
        self._folder = folder
        self._name = name
        self._disk = folder.disk
        self._temporary = re.compile(re.escape(name) + r"\.tmp-[0-9]+-[0-9]+")
        self._fresh_fd = -1
        self._made_here = False
        self._conf: ConfFile | None = None
        self._stored = StoredState(())
        self._hard = _NO_STATE
        self._closed = False

    # Opening and closing.

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        name: str = CONF_NAME,
        disk: Disk | None = None,
        check: Callable[[NodesConf], object] = lambda conf: None,
    ) -> tuple[Storage, Loaded]:
        """Lock and load a folder, made where it is absent; then the file is rewritten whole, once, if there was one.

        `check` gets what the file says before it is rewritten, and may refuse it: what it raises passes through.

        **Raises** StorageError: the folder is in use, can't be written, or is damaged (file, line and reason are
        named), or no node starts on its file (`refusal_of`). Nothing is changed then, nor where `check` raises, but
        that folder and lock file were made.
        """
        if not name or "/" in name or name in (".", "..", LOCK_NAME) or name.startswith("app-"):
            raise StorageError(f"{name!r} can't be the name of the node's file")
        storage = cls(Folder(directory, disk), name)
        try:
            return storage, storage._load(check)
        except OSError as error:
            storage.close()
            raise error_at(storage.path, error) from error
        except BaseException:
            storage.close()
            raise

    def close(self) -> None:
        """Close the files and give up the lock; later calls raise. Idempotent; nothing is stored here.

        Where nothing was ever stored, the empty file that `open` made is removed again.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._made_here and self._conf is None:
                with contextlib.suppress(OSError):
                    self._remove_if_empty()
            for fd in (self._fresh_fd, self._conf.fd if self._conf is not None else -1):
                if fd >= 0:
                    with contextlib.suppress(OSError):
                        self._disk.close(fd)
        finally:
            self._folder.close()

    def _load(self, check: Callable[[NodesConf], object]) -> Loaded:
        """Read, check, and fold the file. It is locked too, for a server that knows no `raftfast.lock`."""
        fd = self._fresh_fd = self._open_or_make()
        if not self._disk.is_regular(fd):
            raise StorageError(f"{self.path} is not a regular file")
        if not self._disk.lock(fd):
            raise StorageError(f"{self.path} is in use by another process")
        data = read_exactly(self._disk, fd, self._disk.size(fd), 0)
        if not data:
            return Loaded(None, None, _NO_STATE, None)
        conf, stored = self._parse(data)
        if stored.app is not None:
            check_app(self._folder.path, stored.app, self._disk)
        check(conf)
        self._stored = stored
        voted_for = conf.vars.get("votedFor")
        self._hard = HardState(int(conf.vars["currentTerm"]), None if voted_for is None else str(voted_for))
        self._folder.adopt(stored.app)
        self._replace(stored, self._hard, range(0), _log_texts(conf))
        return Loaded(conf, stored, self._hard, stored.app, conf.warnings)

    def _open_or_make(self) -> int:
        try:
            return self._disk.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            fd = self._disk.open(self.path, os.O_RDWR | os.O_CREAT)
            self._made_here = True
            return fd

    def _remove_if_empty(self) -> None:
        """Looked at anew: a rename that reported an error may have put another file there."""
        fd = self._disk.open(self.path, os.O_RDONLY)
        try:
            is_empty = self._disk.size(fd) == 0
        finally:
            self._disk.close(fd)
        if is_empty:
            self._disk.unlink(self.path)

    def _parse(self, data: bytes) -> tuple[NodesConf, StoredState]:
        try:
            conf = nodesconf.parse(data)
        except ParseError as error:
            raise StorageError(f"{self.path}: {error}; the file was left as it is") from error
        if refusal := refusal_of(conf):
            raise StorageError(f"{self.path}: {refusal}; the file was left as it is")
        return conf, stored_in(conf)

    # What there is.

    @property
    def stored_index(self) -> int:
        """S: the index of the stored state."""
        return self._stored.last_applied

    @property
    def last_index(self) -> int:
        """The last index that is durable: of the last log line, or S."""
        return 0 if self._conf is None else self._conf.last_index

    @property
    def hard_state(self) -> HardState:
        """Term and vote as last stored."""
        return self._hard

    @property
    def log_bytes(self) -> int:
        """Bytes in the file behind the stored state: log lines, and terms and votes among them."""
        return 0 if self._conf is None else self._conf.size - self._conf.head_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes of the stored state: the file's head and the app state file."""
        if self._conf is None:
            return 0
        return self._conf.head_bytes + (0 if self._stored.app is None else self._stored.app.length)

    def bytes_up_to(self, index: int) -> tuple[int, int]:
        """What of the log moving S to `index` gives back, and what it copies. For any thread: a guess while another one
        appends or cuts."""
        conf = self._conf
        if conf is None or index < conf.first_index:
            return 0, 0
        try:
            end = conf.starts[index + 1 - conf.first_index]
        except IndexError:  # nothing follows it; the disk thread may have cut it off just now
            end = conf.size
        return max(0, end - conf.head_bytes), max(0, conf.size - end)

    @property
    def rewrite_bytes(self) -> int:
        """Bytes that moving S may take before it gives any back: a state that grew by all that the log says."""
        return self.state_bytes + self.log_bytes

    def free_bytes(self) -> int:
        """Bytes that may still be written to the folder's file system. Raises StorageError."""
        try:
            return self._disk.free_bytes(self._folder.path)
        except OSError as error:
            raise error_at(self._folder.path, error) from error

    # Storing.

    def append(
        self, hard_state: HardState | None, truncate_from: int | None, first_index: int, lines: Sequence[bytes]
    ) -> None:
        """Store a term and vote (None: unchanged), cut the log, and append entry lines: durable on return.

        `truncate_from`: drop that index and all after it first; past the end it cuts nothing. `lines` are AE lines from
        `first_index` on; those at or below S are passed over, since the stored state covers them.

        **Raises** InvariantViolation (nothing was done) for a term that goes back, a changed vote, an entry of a term
        above it, a gap, or a cut of what is applied; StorageError where the disk fails.

        **Cost:** one write and one fdatasync. A cut makes one more fdatasync, or a full rewrite: see `_cut`.
        """
        conf = self._ready()
        hard = self._checked(hard_state)
        cut_index = self._checked_cut(conf, truncate_from)
        covered = max(0, conf.first_index - first_index)
        lines, first_index = lines[covered:], first_index + covered
        wanted = (conf.last_index if cut_index is None else cut_index - 1) + 1
        if lines and first_index != wanted:
            raise InvariantViolation(f"an append at {first_index}, where {wanted} is next")
        text = nodesconf.log_lines(first_index, lines) if lines else b""
        if lines and int(lines[-1].partition(b" ")[0]) > hard.current_term:
            raise InvariantViolation(f"an entry of a term above {hard.current_term}: its term must be stored no later")
        changed = None if hard == self._hard else hard
        if cut_index is None and changed is None and not text:
            return
        with self._or_fail("append"):
            if cut_index is not None and self._cut(conf, cut_index, hard, text):
                return
            if changed is not None or text:
                conf.add(changed, text)
                self._disk.fdatasync(conf.fd)
            self._hard = hard

    def _cut(self, conf: ConfFile, index: int, hard: HardState, text: bytes) -> bool:
        """Drop `index` and all after it; True where `hard` and the new lines were stored in the same go.

        A crash between cut and append must lose no vote. Where the newest term and vote stand before the cut, the file
        is cut and synced, and appended to: each state in between is sound. (Without that sync a disk may keep new bytes
        in front of old ones.) Where they stand behind it, a cut would take them along, and nothing can be appended
        first that would not be cut too: then the whole file is rewritten.
        """
        if conf.start_of(index) >= conf.sealed:
            conf.cut(index)
            return False
        self._replace(self._stored, hard, range(conf.first_index, index), (text,))
        return True

    def rewrite(
        self,
        stored: StoredState,
        keep_above: int | None,
        *,
        hard_state: HardState | None = None,
        reset: bool = False,
    ) -> None:
        """Store a whole new state in one atomic step, durable on return; files that it no longer needs are removed.

        `keep_above` is S of the new state to keep the log lines behind it, or None to drop all lines. `hard_state`
        None: as it is. `reset` lets term, vote and S go back: a joiner's step-down and CLUSTER RESET, which keep no
        lines.

        **Raises** InvariantViolation (nothing was done) for what goes back, for a `keep_above` that is not S, for an
        app state file that is not kept, or a state that could not be read back; StorageError where the disk fails.
        """
        self._usable()
        hard = self._checked(hard_state, reset=reset)
        if not reset and stored.last_applied < self.stored_index:
            raise InvariantViolation(f"S would go back from {self.stored_index} to {stored.last_applied}")
        if keep_above is not None and (reset or keep_above != stored.last_applied):
            raise InvariantViolation(f"lines above {keep_above} can't follow a state of {stored.last_applied}")
        if stored.snapshot_term > hard.current_term:
            raise InvariantViolation(f"a state of term {stored.snapshot_term} in term {hard.current_term}")
        head = head_of(stored, hard)
        if stored.app is not None:
            self._folder.hold(stored.app)
        kept = range(0)
        if keep_above is not None and self._conf is not None and keep_above < self._conf.last_index:
            kept = range(keep_above + 1, self._conf.last_index + 1)
        with self._or_fail("rewrite"):
            self._replace(stored, hard, kept, (), head)

    def _replace(
        self, stored: StoredState, hard: HardState, kept: range, texts: Iterable[bytes], head: bytes | None = None
    ) -> None:
        """Write a new file: head, the lines `kept` of the old one, texts of new ones; put it in the old one's place.

        The new file is locked before it gets its name, so that the name is never without a lock.
        """
        head = head_of(stored, hard) if head is None else head
        disk, old = self._disk, self._conf
        path, fd = self._new_file()
        try:
            if not disk.lock(fd):
                raise StorageError(f"{path} is in use by another process")
            write_all(disk, fd, head, 0)
            new = ConfFile(disk, fd, head, stored.last_applied + 1)
            if kept and old is not None:
                new.copy_from(old, kept)
            for text in filter(None, texts):
                new.add(None, text)
            disk.fsync(fd)
            disk.rename(path, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                disk.close(fd)
            with contextlib.suppress(OSError):
                disk.unlink(path)
            raise
        self._swap(new)
        disk.fsync_folder(self._folder.path)
        self._stored, self._hard = stored, hard
        self._folder.adopt(stored.app)
        self._folder.sweep(self._temporary)

    def _new_file(self) -> tuple[str, int]:
        """An empty temporary file in the folder, under a name that is free."""
        stamp = time.time_ns() // 1_000_000
        while True:
            path = f"{self.path}.tmp-{os.getpid()}-{stamp}"
            try:
                return path, self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                stamp += 1

    def _swap(self, new: ConfFile) -> None:
        """From now on the file is `new`; the old one's descriptor, and its lock with it, is given up."""
        old_fd = self._fresh_fd if self._conf is None else self._conf.fd
        self._conf, self._fresh_fd = new, -1
        if old_fd >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(old_fd)

    # App state files and snapshots: from any thread.

    def app_path(self, app: AppFile) -> str:
        """The path of an app state file."""
        return self._folder.file(app.name)

    def read_app(self, app: AppFile) -> Iterator[bytes]:
        """The bytes of an app state file in pieces of at most 1 MiB; it stays on disk while they are read."""
        return self._folder.read_app(app)

    def write_app(self, index: int, pieces: Iterable[bytes], cancelled: Callable[[], bool] = lambda: False) -> AppFile:
        """Write an app state file of a name never used before, durably. For a thread of its own.

        It is kept until a `rewrite` names it and a later one does not, or until it is given up by `discard_app`.

        **Raises** StorageError where the disk fails, SnapshotError where `cancelled()` became true; what `pieces`
        raises passes through. In each case nothing is left. None of them makes the storage fail.
        """
        self._usable()
        return self._folder.write_app(index, pieces, cancelled)

    def discard_app(self, app: AppFile) -> None:
        """Say that a written app file won't be stored: removed at once, or at its last `unpin`. Harmless otherwise."""
        self._folder.discard(app)

    def pin(self, app: AppFile) -> None:
        """Keep an app file on disk until `unpin`; nests. Raises StorageError where it may be gone."""
        self._folder.pin(app)

    def unpin(self, app: AppFile) -> None:
        """Undo one `pin`; the file is removed where nothing else needs it."""
        self._folder.unpin(app)

    def write_outgoing(
        self,
        head: bytes,
        app: AppFile | None = None,
        pieces: Iterable[bytes] | None = None,
        *,
        index: int = 0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> SnapshotFile:
        """A snapshot to send: node lines, and an app state that is in a file, or is written to one from `pieces`.

        `index` names the file that is written; it goes when the snapshot is closed. Raises as `write_app` does.
        """
        self._usable()
        if pieces is None:
            return SnapshotFile(self._folder, head, app)
        if app is not None:
            raise InvariantViolation("an app state comes from a file or from pieces, not from both")
        written = self.write_app(index, pieces, cancelled)
        try:
            return SnapshotFile(self._folder, head, written)
        finally:
            self.discard_app(written)

    def incoming(self, index: int, total: int) -> IncomingSnapshot:
        """A snapshot of `total` bytes, of last included index `index`, that is about to arrive in pieces."""
        self._usable()
        return IncomingSnapshot(self._folder, index, total)

    # Checks.

    def _usable(self) -> None:
        if self.failed is not None:
            raise StorageError(str(self.failed)) from self.failed
        if self._closed:
            raise StorageError(f"{self.path} is closed")

    def _ready(self) -> ConfFile:
        self._usable()
        if self._conf is None:
            raise InvariantViolation("an append before the first rewrite: there is no state that entries could follow")
        return self._conf

    def _checked(self, hard: HardState | None, *, reset: bool = False) -> HardState:
        """The term and vote to store. Raises InvariantViolation where they would take back what was promised."""
        if hard is None:
            return self._hard
        if not 0 <= hard.current_term < 1 << 64 or not (hard.voted_for is None or _ID.fullmatch(hard.voted_for)):
            raise InvariantViolation(f"{hard!r} is no term and vote")
        if not reset and hard.current_term < self._hard.current_term:
            raise InvariantViolation(f"the term would go back from {self._hard.current_term} to {hard.current_term}")
        changed = self._hard.voted_for is not None and hard.voted_for != self._hard.voted_for
        if not reset and hard.current_term == self._hard.current_term and changed:
            raise InvariantViolation(f"the vote of term {hard.current_term} would change")
        return hard

    def _checked_cut(self, conf: ConfFile, truncate_from: int | None) -> int | None:
        """The first index to drop, None where nothing is to be dropped."""
        if truncate_from is None or truncate_from > conf.last_index:
            return None
        if truncate_from < conf.first_index:
            if not conf.starts:
                return None
            raise InvariantViolation(f"a cut at {truncate_from}, where {self.stored_index} is stored as applied")
        return truncate_from

    @contextlib.contextmanager
    def _or_fail(self, what: str) -> Iterator[None]:
        """After any error in the block the storage only raises: what the file holds is no longer known for sure.

        A descriptor whose fsync failed may say that all is well at the next one; it is never used again.
        """
        try:
            yield
        except BaseException as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else (str(error) or repr(error))
            self.failed = StorageError(f"{self.path}: {what} failed: {reason}")
            if isinstance(error, OSError):
                raise self.failed from error
            raise

    def check(self) -> None:
        """Compare the file on disk with what is known of it; for tests. Raises InvariantViolation."""
        conf = self._ready()
        data = read_exactly(self._disk, conf.fd, self._disk.size(conf.fd), 0)
        parsed = nodesconf.parse(data)
        indexes = [index for index, _, _ in parsed.entries]
        facts = {
            "size": (conf.size, len(data)),
            "crc": (conf.crc, nodesconf.crc64(data)),
            "stored": (self._stored, replace(stored_in(parsed), nodes=self._stored.nodes)),
            "term": (self._hard.current_term, parsed.vars.get("currentTerm")),
            "vote": (self._hard.voted_for, parsed.vars.get("votedFor")),
            "indexes": (list(range(conf.first_index, conf.last_index + 1)), indexes),
            "starts": ({data[start : start + 4] for start in conf.starts} - {b"log "}, set()),
            "torn": (b"", parsed.torn_tail),
        }
        for what, (known, found) in facts.items():
            if known != found:
                raise InvariantViolation(f"{self.path}: {what}: {known!r} is known, {found!r} is there")
