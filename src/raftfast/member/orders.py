"""What a member wants done: the values that its `take()` gives to whoever does the I/O.

Floor 3. Values only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..messages import Message
from ..records import HardState, NodeRecord

__all__ = ["Capture", "Event", "Image", "InstallOrder", "Orders", "PieceRead", "PieceWrite", "Rewrite", "StoreJob"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the node, for `Node.events()`.

    `kind` is one of `leader`, `role`, `member-joined`, `member-forgotten`, `voter-added`, `voter-removed`,
    `node-failed`, `node-recovered`, `snapshot-sent`, `snapshot-installed`, `joined`, `removed`. `role`: this node's
    role is another one now; `Node.status()` tells which.
    """

    kind: str
    term: int
    index: int
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A stored state as it goes into the file: all as of entry `last_applied` (PROTOCOL 7).

    `app` is the handle of the app state file, opaque here. `reset`: term and vote begin anew with it.
    """

    nodes: tuple[NodeRecord, ...]
    last_applied: int
    snapshot_term: int
    cluster_id: str | None
    joining: bool
    removed: bool
    raft_leader: str | None
    app: Any = None
    reset: bool = False


class StoreJob(NamedTuple):
    """One job for storage; `ticket` goes back to `Member.stored` when it is durable.

    First the rewrite where `image` is set (log lines of the file above `keep_above` stay; None: none), then the cut
    at `truncate_from`, term and vote, and `lines` from `first_index` on.
    """

    ticket: int
    image: Image | None
    keep_above: int | None
    hard_state: HardState | None
    truncate_from: int | None
    first_index: int
    lines: list[bytes]


class Rewrite(NamedTuple):
    """A rewrite of the file that moves no log: `token` goes back to `Member.rewritten`."""

    token: int
    image: Image
    keep_above: int | None


@dataclass(frozen=True, slots=True)
class Capture:
    """The whole state as of `index`: for a snapshot to send, or for the file.

    `node_lines` is a snapshot's head. `app_pieces`: the session table and what the state machine gave, to be iterated
    in another thread; None where there is neither. `image` lacks its app file. `members` are the nodes that it names.
    """

    index: int
    term: int
    node_lines: bytes
    app_pieces: Iterable[bytes] | None
    image: Image
    members: frozenset[str]


class PieceRead(NamedTuple):
    """`size` bytes of the snapshot `source` at `offset`, for `peer`; goes back to `Member.piece_read`."""

    peer: str
    source: Any
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PieceWrite:
    """A piece that arrived: to be written, in order, to the incoming snapshot `name`; then `Member.piece_written`.

    `begin` says that the snapshot is a new one (`total` bytes, last included `index`), whatever came before is to be
    abandoned; `last` that it is whole with this piece, and is to be checked and handed to `Member.snapshot_whole`.
    """

    name: tuple[str, int, int, int, int]
    begin: bool
    last: bool
    offset: int
    total: int
    data: bytes

    @property
    def index(self) -> int:
        """The snapshot's last included index."""
        return self.name[2]


class InstallOrder(NamedTuple):
    """A whole snapshot was parsed: restore sessions and state machine from `app` (None: empty), then
    `Member.installed`. Nothing is applied meanwhile."""

    name: tuple[str, int, int, int, int]
    app: Any


@dataclass(slots=True, init=False)
class Orders:
    """One turn's orders, to be carried out in the order of the fields.

    `answers` are (token, result, error) for who waits. `dial` are the outbound links wanted from now on, node id →
    (host, bus port); None: as before. `release` are snapshots that are not
    sent any more. `identified` are links whose peer said who it is. `log` are (severity, text),
    severities as in `logging`. `busy`: `take` has more to give at once.
    """

    rewrites: list[Rewrite]
    store: StoreJob | None
    sends: list[tuple[int, Message]]
    closes: list[tuple[int, str]]
    identified: list[int]
    dial: dict[str, tuple[str, int]] | None
    build_snapshot: bool
    piece_reads: list[PieceRead]
    piece_writes: list[PieceWrite]
    abandon_incoming: bool
    release: list[Any]
    install: InstallOrder | None
    answers: list[tuple[Any, Any, Exception | None]]
    events: list[Event]
    log: list[tuple[int, str]]
    wants_rewrite: bool
    busy: bool
    wake_at: float

    def __init__(self) -> None:  # written out: one is made each turn, and a generated one takes twice as long
        self.store = self.dial = self.install = None
        self.rewrites = []
        self.sends = []
        self.closes = []
        self.identified = []
        self.piece_reads = []
        self.piece_writes = []
        self.release = []
        self.answers = []
        self.events = []
        self.log = []
        self.build_snapshot = self.abandon_incoming = self.wants_rewrite = self.busy = False
        self.wake_at = 0.0
