"""The bus messages as values: one immutable class for each verb, the entry types, and the roles.

Floor 0. Defined once and shared by both twins of the codec. No bytes are read or made here (that is `hot.wire`), no
meaning is given to an entry's data (that is `cluster.entries`). Field names are PROTOCOL.md section 2's in snake case.

Text fields hold the bytes of the wire as UTF-8 with surrogate escapes, so any bytes survive a round trip.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

__all__ = [
    "ENTRY_TYPES",
    "MAX_ENTRY_BYTES",
    "AddMe",
    "AppendEntries",
    "AppendEntriesAck",
    "FailoverPrepare",
    "Hello",
    "Hi",
    "InstallSnapshot",
    "Meet",
    "MeetRejected",
    "Message",
    "Module",
    "PreVote",
    "PreVoteRequest",
    "Propose",
    "Publish",
    "ReadIndex",
    "ReadIndexNo",
    "ReadIndexOk",
    "Reject",
    "Removed",
    "ReplOffsets",
    "Role",
    "SnapshotAck",
    "SnapshotPiece",
    "TimeoutNow",
    "TransferLeader",
    "Unknown",
    "Vote",
    "VoteRequest",
    "Welcome",
    "describe",
]

MAX_ENTRY_BYTES = 8 << 20
"""The longest entry line, term and type included, in bytes (PROTOCOL 1)."""

ENTRY_TYPES: frozenset[bytes] = frozenset(
    {
        b"NOOP",
        b"NODE_JOIN",
        b"NODE_FORGET",
        b"ADD_VOTER",
        b"DEL_VOTER",
        b"SLOT_CHANGE",
        b"SET_REPLICA_OF",
        b"FAILOVER",
        b"NODE_INFO",
        b"NODE_FAIL",
        b"NODE_RECOVER",
        b"APP",
    }
)
"""The types of PROTOCOL 2's second table. A line of any other type is refused."""


class Role(enum.Enum):
    """What a node is to Raft (PROTOCOL 3). A learner is a follower outside the voter set, not a role."""

    JOINER = "joiner"
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Message:
    """The base of all messages. Equal only to a message of the same class with equal fields."""


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First message on every outbound link. `cluster` is a cluster id, `joining`, `-`, or None where absent."""

    node_id: str
    address: str
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Hi(Message):
    """The answer to `Hello`; completes identification. Fields as there."""

    node_id: str
    address: str
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Meet(Message):
    """Asks to be in one cluster; `status` is what the asker is: `singleton` or `cluster`."""

    status: str


@dataclass(frozen=True, slots=True)
class AddMe(Message):
    """Answer to `Meet`: I stepped down, add me."""


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """Answer to `Meet`: I am in a cluster and add you."""


@dataclass(frozen=True, slots=True)
class MeetRejected(Message):
    """Answer to `Meet`: it can't be."""


@dataclass(frozen=True, slots=True)
class Removed(Message):
    """To a forgotten id: the NODE_FORGET that took it out stands at `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class AppendEntries(Message):
    """AppendEntries; a heartbeat where `lines` is empty.

    `terms[i]` is the term of `lines[i]`, an AE line. `leader_commit` is the leader's commit index. `round` is the
    confirmation round of PROTOCOL 5.6, None where absent. Sequences are kept as tuples.
    """

    leader_id: str
    term: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    terms: tuple[int, ...] = ()
    lines: tuple[bytes, ...] = ()
    round: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        object.__setattr__(self, "lines", tuple(self.lines))


@dataclass(frozen=True, slots=True)
class AppendEntriesAck(Message):
    """Answer to `AppendEntries`, `InstallSnapshot` and the last `SnapshotPiece` (PROTOCOL 5.3).

    On success `index` is verified and durable; on failure it is a hint. `repl_offset` is signed.
    """

    term: int
    success: bool
    index: int
    repl_offset: int = 0
    round: int | None = None


@dataclass(frozen=True, slots=True)
class PreVoteRequest(Message):
    """Would you vote for me in `term`? Speculative: nobody's term moves."""

    candidate_id: str
    term: int
    last_log_index: int
    last_log_term: int


@dataclass(frozen=True, slots=True)
class PreVote(Message):
    """Answer to `PreVoteRequest`: granted with the asked term, denied with the voter's own."""

    term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class VoteRequest(Message):
    """RequestVote. `transfer` marks an election that the old leader asked for (PROTOCOL 4)."""

    candidate_id: str
    term: int
    last_log_index: int
    last_log_term: int
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class Vote(Message):
    """Answer to `VoteRequest`, with the voter's term after it was handled."""

    term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class InstallSnapshot(Message):
    """A whole snapshot in one message: `data` holds the node lines."""

    leader_id: str
    term: int
    last_included_index: int
    last_included_term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotPiece(Message):
    """Bytes `offset` to `offset + len(data)` of a snapshot of `total` bytes; an empty piece only asks."""

    leader_id: str
    term: int
    last_included_index: int
    last_included_term: int
    offset: int
    total: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotAck(Message):
    """Answer to a piece that is not the last: the next offset wanted."""

    term: int
    last_included_index: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Propose(Message):
    """Forwards a proposal to the leader. `entry` is `<TYPE>` or `<TYPE> <data>`: a line without its term."""

    entry: bytes


@dataclass(frozen=True, slots=True)
class Reject(Message):
    """The leader's refusal of `entry`. `reason` is `conflict` (may be retried) or `rejected` (final)."""

    reason: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class ReadIndex(Message):
    """Asks the leader for a confirmed commit index (PROTOCOL 5.6). `number` is never used twice in a process."""

    number: int


@dataclass(frozen=True, slots=True)
class ReadIndexOk(Message):
    """The read `number` may be served once `index` is applied."""

    number: int
    index: int


@dataclass(frozen=True, slots=True)
class ReadIndexNo(Message):
    """The read `number` can't be confirmed here."""

    number: int


@dataclass(frozen=True, slots=True)
class TransferLeader(Message):
    """Asks the leader of `term` to hand over."""

    term: int


@dataclass(frozen=True, slots=True)
class TimeoutNow(Message):
    """The leader of `term` asks one voter to stand for election at once."""

    term: int


@dataclass(frozen=True, slots=True)
class ReplOffsets(Message):
    """Replication offsets: pairs of node id and signed offset."""

    offsets: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple((node_id, offset) for node_id, offset in self.offsets))


@dataclass(frozen=True, slots=True)
class FailoverPrepare(Message):
    """A replica asks its primary to pause writes."""


@dataclass(frozen=True, slots=True)
class Publish(Message):
    """Pub/Sub: `message` on `channel`, to the shard only where `sharded`."""

    sharded: bool
    channel: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class Module(Message):
    """Opaque bytes for an extension: `type` is 0 to 255."""

    module_id: int
    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Unknown(Message):
    """A well-framed message whose verb is not known: to be counted and ignored. Never sent."""

    verb: str


def describe(message: Message) -> str:
    """One line for people: `AppendEntries(leader_id=a1a1a1a1…, term=3, …, lines=2)`.

    Ids are cut to eight characters, payloads shown by their size: a trace stays readable, and no user data gets
    into logs.
    """
    parts = []
    for field in fields(message):
        value = getattr(message, field.name)
        if field.name == "terms" or value is None:
            continue
        if field.name in ("lines", "offsets"):
            parts.append(f"{field.name}={len(value)}")
        elif isinstance(value, bytes):
            parts.append(f"{field.name}={len(value)} bytes")
        elif isinstance(value, str) and len(value) == 40:
            parts.append(f"{field.name}={value[:8]}…")
        else:
            parts.append(f"{field.name}={value}")
    return f"{type(message).__name__}({', '.join(parts)})"
