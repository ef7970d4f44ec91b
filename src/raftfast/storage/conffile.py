"""`nodes.conf` between its text and the store: what a stored state is, its head as text, where the file's lines are.

Floor 3. Blocking. What is written when, in which order and what is synced is decided in `store.py`; the text itself is
`hot.nodesconf`'s. No locks, no asyncio.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ..errors import InvariantViolation, ParseError
from ..hot import nodesconf
from ..records import HardState, NodeRecord, NodesConf
from .disk import PIECE_BYTES, Disk, error_at, read_exactly, write_all
from .folder import AppFile

__all__ = ["ConfFile", "StoredState", "app_of", "batches", "head_of", "inspect", "refusal_of", "stored_in"]

_OWN_VARS = frozenset(
    {
        "currentTerm", "lastApplied", "snapshotTerm", "votedFor", "raftLeader",
        "clusterId", "joining", "appSnapshot", "appLength", "appCrc",
    }
)  # fmt: skip

_MOST_INDEX = (1 << 63) - 1
"""What S may be at most when a node starts: half of what an index can be is left for the log behind it."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """The one stored state, as of index S = `last_applied` (PROTOCOL 7).

    `snapshot_term` is the term of entry S. `nodes` are the node lines, with `myself` among the flags of our own.
    `extra` are the names in `vars` that are not ours (a newer server's), kept and written back.
    """

    nodes: Sequence[NodeRecord]
    last_applied: int = 0
    snapshot_term: int = 0
    cluster_id: str | None = None
    joining: bool = False
    raft_leader: str | None = None
    app: AppFile | None = None
    extra: dict[str, int | str] = field(default_factory=dict)


def inspect(path: str | os.PathLike[str]) -> NodesConf:
    """What a `nodes.conf` says; no lock is taken and nothing is changed.

    **Raises** StorageError where the file can't be read, ParseError (with `lineno`) where it is not sound. The app
    state file that it names, if any (`app_of`, `check_app`), is not looked at.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise error_at(os.fspath(path), error) from error
    return nodesconf.parse(data)


def app_of(conf: NodesConf) -> AppFile | None:
    """The app state file that a parsed `nodes.conf` names, if any."""
    if "appSnapshot" not in conf.vars:
        return None
    return AppFile(str(conf.vars["appSnapshot"]), int(conf.vars["appLength"]), int(str(conf.vars["appCrc"]), 16))


def refusal_of(conf: NodesConf) -> str:
    """Why no node can start on a file that parses; empty where one can, as far as the text alone tells.

    It says too little, or what a rewrite would drop. Asked before anything is written.
    """
    if "currentTerm" not in conf.vars:
        if "currentEpoch" in conf.vars:
            return (
                "it is the file of a gossip cluster, which can't be taken over: start in an empty folder (or move the "
                "file away) and MEET the new node into the Raft cluster"
            )
        return "no currentTerm: term and vote are not known"
    last_applied = int(conf.vars.get("lastApplied", 0))
    if last_applied > 0 and "snapshotTerm" not in conf.vars:
        return "lastApplied without snapshotTerm: the term of the stored state is not known"
    if last_applied > _MOST_INDEX:
        return f"lastApplied {last_applied} leaves no room for a log: no cluster gets there"
    for node in conf.nodes:
        if "handshake" in node.flags and "myself" not in node.flags:
            return f"node {node.id} is in handshake, no member"
    return ""


def stored_in(conf: NodesConf) -> StoredState:
    """The stored state that a parsed raft file holds."""
    cluster_id, raft_leader = conf.vars.get("clusterId"), conf.vars.get("raftLeader")
    return StoredState(
        nodes=conf.nodes,
        last_applied=int(conf.vars.get("lastApplied", 0)),
        snapshot_term=int(conf.vars.get("snapshotTerm", 0)),
        cluster_id=None if cluster_id is None else str(cluster_id),
        joining=bool(conf.vars.get("joining", 0)),
        raft_leader=None if raft_leader is None else str(raft_leader),
        app=app_of(conf),
        extra={name: value for name, value in conf.vars.items() if name not in _OWN_VARS},
    )


def head_of(stored: StoredState, hard: HardState) -> bytes:
    """Node lines, `vars` and `crc` as text. Raises InvariantViolation where they could not be read back."""
    if clash := sorted(_OWN_VARS & stored.extra.keys()):
        raise InvariantViolation(f"the extra names in vars hold {clash[0]}, which is the storage's own")
    pairs: dict[str, int | str] = {
        "currentTerm": hard.current_term,
        "lastApplied": stored.last_applied,
        "snapshotTerm": stored.snapshot_term,
    }
    for name, value in (
        ("votedFor", hard.voted_for),
        ("raftLeader", stored.raft_leader),
        ("clusterId", stored.cluster_id),
        ("joining", 1 if stored.joining else None),
    ):
        if value is not None:
            pairs[name] = value
    if stored.app is not None:
        pairs.update(appSnapshot=stored.app.name, appLength=stored.app.length, appCrc=f"{stored.app.crc:016x}")
    try:
        return nodesconf.dump(NodesConf(nodes=tuple(stored.nodes), vars={**pairs, **stored.extra}))
    except ParseError as error:
        raise InvariantViolation(f"the state can't be stored: {error.reason}") from error


def batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The AE lines in groups that one write can take: each ends with the line that fills a piece."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class ConfFile:
    """`nodes.conf` as it stands on disk: an open descriptor, and where each line is.

    Invariants:
    1. `size` is the file's size and `crc` the checksum over all its bytes, as far as no call has failed.
    2. `starts[i]` is where the log line of index `first_index + i` begins; between log lines there is nothing but the
       `pairs`: appended `vars` and `crc` lines, as (start, end), ascending.
    3. `marks` and `mark_crcs` give the checksum at some offsets, ascending, the head's end first.
    """

    __slots__ = ("crc", "disk", "fd", "first_index", "head_bytes", "mark_crcs", "marks", "pairs", "size", "starts")

    def __init__(self, disk: Disk, fd: int, head: bytes, first_index: int) -> None:
        self.disk = disk
        self.fd = fd
        self.first_index = first_index
        self.head_bytes = self.size = len(head)
        self.crc = nodesconf.crc64(head)
        self.starts = array("Q")
        self.pairs: list[tuple[int, int]] = []
        self.marks = array("Q", [self.size])
        self.mark_crcs = array("Q", [self.crc])

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.starts) - 1

    @property
    def sealed(self) -> int:
        """Where the newest term and vote end: a cut below loses them."""
        return self.pairs[-1][1] if self.pairs else self.head_bytes

    def start_of(self, index: int) -> int:
        """Where the line of an index begins; the file's size for the one after the last."""
        position = index - self.first_index
        return self.starts[position] if position < len(self.starts) else self.size

    def add(self, hard: HardState | None, text: bytes) -> None:
        """Write a term and vote, if given, and the text of log lines behind them, in one write. Not synced."""
        pair = b"" if hard is None else nodesconf.appended_vars(hard.current_term, hard.voted_for, self.crc)
        data = pair + text
        write_all(self.disk, self.fd, data, self.size)
        if pair:
            self.pairs.append((self.size, self.size + len(pair)))
        lengths = (len(line) + 1 for line in text.split(b"\n")[:-1])
        ends = array("Q", accumulate(lengths, initial=self.size + len(pair)))
        self.size = ends.pop()
        self.starts.extend(ends)
        self.crc = nodesconf.crc64(data, self.crc)
        self._mark()

    def cut(self, index: int) -> None:
        """Cut the file at the line of `index`, durably."""
        offset = self.start_of(index)
        crc = self._crc_at(offset)
        self.disk.ftruncate(self.fd, offset)
        self.disk.fdatasync(self.fd)
        del self.starts[index - self.first_index :]
        keep = bisect_right(self.marks, offset)
        del self.marks[keep:], self.mark_crcs[keep:]
        self.size, self.crc = offset, crc

    def _crc_at(self, offset: int) -> int:
        """The checksum over what stands before `offset`: from the mark before it, at most one append away."""
        position = bisect_right(self.marks, offset) - 1
        crc = self.mark_crcs[position]
        for piece in self._read(self.marks[position], offset):
            crc = nodesconf.crc64(piece, crc)
        return crc

    def copy_from(self, other: ConfFile, indexes: range) -> None:
        """Write the raw log lines of `indexes` of another file; what was appended between them is left out."""
        for start, stop in other._segments(indexes):
            first, end = bisect_left(other.starts, start), bisect_left(other.starts, stop)
            self.starts.extend(self.size + line - start for line in other.starts[first:end])
            for piece in other._read(start, stop):
                write_all(self.disk, self.fd, piece, self.size)
                self.size += len(piece)
                self.crc = nodesconf.crc64(piece, self.crc)
        self._mark()

    def _segments(self, indexes: range) -> Iterator[tuple[int, int]]:
        """Where the log lines of `indexes` stand, as (start, stop) with no `pairs` inside; some may be empty."""
        start, stop = self.start_of(indexes.start), self.start_of(indexes.stop)
        for pair_start, pair_end in self.pairs:
            if start < pair_end <= stop:
                yield start, pair_start
                start = pair_end
        yield start, stop

    def _mark(self) -> None:
        self.marks.append(self.size)
        self.mark_crcs.append(self.crc)

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        for offset in range(start, stop, PIECE_BYTES):
            yield read_exactly(self.disk, self.fd, min(PIECE_BYTES, stop - offset), offset)
