"""What a node says of itself: typed snapshots, taken at one moment, that nothing changes afterwards.

Floor 0. Plain values; how they are gathered is the node's affair.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .messages import Role

__all__ = ["LinkStatus", "PeerStatus", "Status"]


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One bus link to or from a node. `created_ms` is wall-clock milliseconds; sizes are bytes."""

    node_id: str
    outbound: bool
    created_ms: int
    writable: bool
    buffered_bytes: int
    buffer_limit_bytes: int


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What this node knows of another member.

    `match_index`, `next_index` and `progress` (`probe`, `replicate`, `snapshot`) are None on nodes that do not lead.
    `silent_for` is the time in seconds since it was last heard, None if never. `connected`: our outbound link is up.
    """

    node_id: str
    voter: bool
    connected: bool
    silent_for: float | None = None
    match_index: int | None = None
    next_index: int | None = None
    progress: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A node at one moment.

    `standing` is `singleton`, `joiner`, `member` or `removed`. `learner` is by the applied state. The log in memory
    holds `boundary_index + 1` to `last_index`. `caught_up_by` is how this node last got entries that it lacked: `none`,
    `log` or `snapshot`. `counters` are totals since the start, by name.
    """

    node_id: str
    shard_id: str
    cluster_id: str | None
    standing: str
    role: Role
    learner: bool
    term: int
    leader_id: str | None
    commit_index: int
    last_applied: int
    boundary_index: int
    boundary_term: int
    last_index: int
    durable_index: int
    log_entries: int
    log_bytes: int
    voters: frozenset[str]
    pending: int
    caught_up_by: str
    peers: tuple[PeerStatus, ...] = ()
    links: tuple[LinkStatus, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
