"""Disks for tests of the storage: quick ones, ones that fail at the n-th call, ones that record what a crash leaves.

`RecordingDisk` notes each change; `crash_images` turns a prefix of the notes into the folders that may be found after a
crash: what was not synced is lost, kept, torn at any byte with nothing or NULs behind, or kept without what came before
it; names that were not synced changed or did not, each by itself.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memory_disk import MemoryDisk

from raftfast.records import HardState, NodeRecord
from raftfast.storage import Disk, Storage, StoredState

LOCK = "raftfast.lock"
MY_ID, OTHER_ID, THIRD_ID = "a" * 40, "b" * 40, "c" * 40


def node(node_id: str, *flags: str, port: int = 7000) -> NodeRecord:
    aux = {"tls-port": "0", "shard-id": node_id[::-1]}
    return NodeRecord(node_id, "127.0.0.1", port, port + 10000, aux=aux, flags=flags)


NODES = (node(MY_ID, "myself", "master"), node(OTHER_ID, "master", port=7001))


def state_of(index: int, term: int = 0, **more: object) -> StoredState:
    return StoredState(NODES, index, term, **more)  # type: ignore[arg-type]


def line(term: int, text: str = "x") -> bytes:
    return f"{term} APP - {text}".encode()


class QuickDisk(Disk):
    """A disk that does not wait for the device: what tests look at is which calls were made, not the platter."""

    def fsync(self, fd: int) -> None:
        pass

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync_folder(self, path: str) -> None:
        pass


CALLS = (
    "open", "close", "size", "pread", "pwrite", "ftruncate", "fsync", "fdatasync", "rename", "unlink", "names",
    "fsync_folder", "lock", "is_folder", "is_regular", "mkdir",
)  # fmt: skip

SYNCS = ("fsync", "fdatasync")


class CountingDisk(QuickDisk):
    """Keeps the names of the calls made, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []


class FaultyDisk(QuickDisk):
    """Fails the call of number `fail_at` (from 0) since `arm` with the error `number`, in the way `how`.

    `before`: an error, nothing done. `after`: done, and an error. `short`: half of a write, its length told; an error
    of another call.
    `retried` are the syncs that were tried again on a descriptor whose sync had failed.
    """

    def __init__(self, how: str = "before", number: int = errno.EIO) -> None:
        self.how = how
        self.number = number
        self.count = 0
        self.fail_at = -1
        self.failed_call = ""
        self.retried: list[int] = []
        self._failed_fd = -1

    def arm(self, fail_at: int) -> None:
        self.count, self.fail_at, self.failed_call = 0, fail_at, ""

    def _is_due(self, call: str) -> bool:
        self.count += 1
        if self.count - 1 != self.fail_at:
            return False
        self.failed_call = call
        return True

    def error(self) -> OSError:
        return OSError(self.number, os.strerror(self.number))


def _counting(call: str):
    def method(self, *args):
        self.calls.append(call)
        return getattr(QuickDisk, call)(self, *args)

    return method


def _faulty(call: str):
    working = getattr(QuickDisk, call)

    def method(self, *args):
        if args[0] == self._failed_fd:
            if call in SYNCS:
                self.retried.append(args[0])
            elif call == "close":
                self._failed_fd = -1
        if not self._is_due(call):
            return working(self, *args)
        if self.how == "short" and call == "pwrite":
            fd, data, offset = args
            return working(self, fd, data[: len(data) // 2], offset)
        if call in SYNCS:
            self._failed_fd = args[0]
        if call == "close" or (self.how == "after" and call not in ("open", "lock", "pread", "is_folder")):
            working(self, *args)  # a descriptor is gone whatever close says
        raise self.error()

    return method


for _name in CALLS:
    setattr(CountingDisk, _name, _counting(_name))
    setattr(FaultyDisk, _name, _faulty(_name))


@dataclass
class RecordingDisk(QuickDisk):
    """Notes each change as a tuple, files by number: (create number name), (write number offset data),
    (truncate number size), (sync number), (rename name name), (unlink name), (syncdir).

    The calls named in `deaf` are made but not noted: what a storage that forgets them would leave behind.
    """

    deaf: frozenset[str] = frozenset()
    notes: list[tuple] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    open_files: dict[int, int] = field(default_factory=dict)
    next_number: int = 1

    def _note(self, call: str, *note: object) -> None:
        if call not in self.deaf:
            self.notes.append(note)

    def open(self, path: str, flags: int) -> int:
        name = os.path.basename(path)
        fresh = not os.path.exists(path)
        fd = super().open(path, flags)
        if name != LOCK:
            if fresh:
                self.numbers[name] = self.next_number
                self.next_number += 1
                self._note("open", "create", self.numbers[name], name)
            self.open_files[fd] = self.numbers[name]
        return fd

    def close(self, fd: int) -> None:
        self.open_files.pop(fd, None)
        super().close(fd)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if fd in self.open_files:
            self._note("pwrite", "write", self.open_files[fd], offset, data)
        return super().pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        if fd in self.open_files:
            self._note("ftruncate", "truncate", self.open_files[fd], size)
        super().ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        self._note("fsync", "sync", self.open_files[fd])

    def fdatasync(self, fd: int) -> None:
        self._note("fdatasync", "sync", self.open_files[fd])

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        old, new = os.path.basename(source), os.path.basename(target)
        self.numbers[new] = self.numbers.pop(old)
        self._note("rename", "rename", old, new)

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self._note("unlink", "unlink", os.path.basename(path))

    def fsync_folder(self, path: str) -> None:
        self._note("fsync_folder", "syncdir")


Image = dict[str, bytes]


@dataclass
class _Kept:
    """What is certainly on disk, and what may be, after some notes."""

    names: dict[str, int] = field(default_factory=dict)
    name_changes: list[tuple] = field(default_factory=list)
    data: dict[int, bytes] = field(default_factory=dict)
    data_changes: dict[int, list[tuple]] = field(default_factory=dict)

    def take(self, note: tuple) -> None:
        kind = note[0]
        if kind == "syncdir":
            for change in self.name_changes:
                _change_names(self.names, change)
            self.name_changes = []
        elif kind == "sync":
            for change in self.data_changes.pop(note[1], []):
                self.data[note[1]] = _changed(self.data.get(note[1], b""), change)
        elif kind in ("write", "truncate"):
            self.data_changes.setdefault(note[1], []).append(note)
        else:
            self.name_changes.append(note)


def _change_names(names: dict[str, int], change: tuple) -> None:
    if change[0] == "create":
        names[change[2]] = change[1]
    elif change[0] == "rename":
        if change[1] in names:
            names[change[2]] = names.pop(change[1])
    else:
        names.pop(change[1], None)


def _changed(data: bytes, change: tuple) -> bytes:
    if change[0] == "truncate":
        return data[: change[2]].ljust(change[2], b"\0")
    offset, piece = change[2], change[3]
    return data[:offset].ljust(offset, b"\0") + piece + data[offset + len(piece) :]


def _contents(data: bytes, changes: list[tuple], coarse: bool) -> Iterator[bytes]:
    """What a file may hold whose last changes were not synced."""
    yield data
    whole = data
    for change in changes:
        if change[0] == "write":
            yield from _torn(whole, change, coarse)
        whole = _changed(whole, change)
        yield whole
    if len(changes) > 1:
        for change in changes:
            yield _changed(data, change)


EVERY_BYTE = 2000
"""A write of at most so many bytes is torn at each of them; a longer one at line ends and some bytes between."""


def _torn(data: bytes, change: tuple, coarse: bool) -> Iterator[bytes]:
    """A write of which a part arrived; behind it nothing, or NULs where the size was changed but not the data."""
    _, number, offset, piece = change
    if coarse or len(piece) > EVERY_BYTE:
        line_ends = [found + 1 for found in range(len(piece)) if piece[found : found + 1] == b"\n"]
        more = {0, 1, len(piece) // 3, len(piece) // 2, len(piece) - 1}
        ends = sorted({*more, *line_ends, *(end - 1 for end in line_ends)})
    else:
        ends = list(range(len(piece)))
    for end in ends:
        if 0 <= end < len(piece):
            part = _changed(data, ("write", number, offset, piece[:end]))
            yield part
            if offset + end >= len(data):
                yield part.ljust(offset + len(piece), b"\0")


MOST_NAME_CHANGES = 5


def _fates_of_names(changes: list[tuple]) -> Iterator[list[tuple]]:
    """Which changes of names arrived: each by itself, in their order; of many, those before some moment."""
    if len(changes) > MOST_NAME_CHANGES:
        yield from (changes[:count] for count in range(len(changes) + 1))
        return
    for arrived in itertools.product((False, True), repeat=len(changes)):
        yield [change for change, is_there in zip(changes, arrived, strict=True) if is_there]


def crash_images(notes: list[tuple], *, coarse: bool = False) -> Iterator[Image]:
    """Every folder that may be found after a crash once `notes` were made, as name → bytes.

    `coarse`: writes are torn at line ends and a few bytes only. So are files that have no name by which they are read.
    """
    kept = _Kept()
    for note in notes:
        kept.take(note)
    seen: set[tuple[tuple[str, int], ...]] = set()
    for arrived in _fates_of_names(kept.name_changes):
        names = dict(kept.names)
        for change in arrived:
            _change_names(names, change)
        key = tuple(sorted(names.items()))
        if key in seen:
            continue
        seen.add(key)
        choices = []
        for name, number in names.items():
            data, changes = kept.data.get(number, b""), kept.data_changes.get(number, [])
            unread = coarse or ".tmp-" in name
            choices.append([(name, content) for content in dict.fromkeys(_contents(data, changes, unread))])
        for combination in itertools.product(*choices):
            yield dict(combination)


Facts = tuple[HardState, int, int, bytes | None, tuple[bytes, ...]] | None
"""Term and vote, S, its term, the app state, the entries above S; None: nothing was ever stored."""


def facts_of_image(image: Image) -> Facts:
    """As `facts_of`, of a folder that is in memory."""
    return facts_of(MemoryDisk.path, MemoryDisk(image))


def facts_of(folder: Path | str, disk: Disk | None = None) -> Facts:
    """What a folder gives when it is opened. Appends once to see that it can go on."""
    storage, loaded = Storage.open(folder, disk=disk or QuickDisk())
    try:
        if loaded.conf is None:
            return None
        storage.check()
        app = None if loaded.app is None else b"".join(storage.read_app(loaded.app))
        entries = tuple(entry for _, _, entry in loaded.conf.entries)
        stored = loaded.stored
        assert stored is not None
        storage.append(None, None, storage.last_index + 1, [line(loaded.hard_state.current_term, "goes on")])
        storage.check()
        return loaded.hard_state, stored.last_applied, stored.snapshot_term, app, entries
    finally:
        storage.close()
