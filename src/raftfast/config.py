"""Every knob of a node: its unit, its default, its check.

Floor 0. A value outside what a knob takes raises `ConfigError` when the `Config` is made, never later.
Times are seconds as floats; sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from .errors import ConfigError

__all__ = ["BUS_PORT_OFFSET", "Config"]

BUS_PORT_OFFSET = 10000
"""A node's bus port is its client port plus this, unless it says otherwise."""

_LEAST_MAX_FRAME = 9 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A node's settings.

    The settings marked *shared* take part in what every member computes from the log: give every node of a cluster
    the same value.
    """

    node_timeout: float = 15.0
    """T, in seconds: the lease, and the least election timeout. At least 0.1. All other times follow from it."""

    max_append_bytes: int = 1 << 20
    """Entry bytes that one AppendEntries carries at most (one entry goes out even if it is longer)."""

    max_inflight: int = 8
    """AppendEntries with entries that may be unanswered a member."""

    max_inflight_bytes: int = 8 << 20
    """Entry bytes that may be unanswered a member."""

    trim_keep: int = 64
    """Applied entries that stay in memory when the log is trimmed; it is trimmed at more than twice as many."""

    trim_keep_time: float = 1.0
    """Seconds for which an applied entry stays in memory."""

    max_log_bytes: int = 256 << 20
    """Entry bytes in memory beyond which the log is trimmed whoever may still need it."""

    max_frame: int = 16 << 20
    """The longest frame taken or sent, in bytes, header included. At least 9 MiB."""

    max_link_buffer: int = 64 << 20
    """Bytes that may wait to be sent on one link; beyond it the link is closed."""

    max_unknown_links: int = 64
    """Inbound links of nodes that the state does not know, and of those that have not said who they are."""

    max_pending: int = 100_000
    """Proposals of this node that may be outstanding; times the members, entries of a leader that are not committed."""

    max_pending_bytes: int = 32 << 20
    """Entry bytes of this node's proposals that may be outstanding; times the members, those of a leader that are not
    committed."""

    session_window: int = 1024
    """*Shared.* Sequence numbers below a session's greatest that are remembered, and its outstanding proposals."""

    session_result_bytes: int = 1 << 20
    """*Shared.* Bytes of results that one session keeps for repeated commands."""

    max_sessions: int = 10_000
    """*Shared.* Sessions open at once; the one unused for longest is closed first."""

    max_voters: int = 7
    """Voters up to which learners are promoted by themselves."""

    replace_after: float | None = None
    """Seconds after which a failed voter is replaced; None is 10 T."""

    snapshot_piece_bytes: int = 1 << 20
    """Bytes in one piece of a snapshot. At most 8 MiB."""

    snapshot_inflight: int = 4
    """Pieces of a snapshot that may be unanswered."""

    rewrite_factor: float = 2.0
    """The file is rewritten when its log lines outgrow this many times its stored state."""

    rewrite_min_bytes: int = 1 << 20
    """The file is not rewritten for growth before its log lines hold this many bytes."""

    disk_reserve_bytes: int = 64 << 20
    """Commands are refused while the folder's file system has less room than this beside what the next rewrite takes;
    0: never."""

    require_full_coverage: bool = True
    """Whether the cluster's state is `fail` while a slot has no live owner."""

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between heartbeats: T / 10, at least 10 ms, at most 1 s (PROTOCOL 3)."""
        return min(1.0, max(0.010, self.node_timeout / 10))

    @property
    def proposal_timeout(self) -> float:
        """Seconds after which a pending proposal's outcome is given up as unknown: 3 T (PROTOCOL 3)."""
        return 3 * self.node_timeout

    @property
    def joiner_timeout(self) -> float:
        """Seconds without a leader's word after which a joiner gives up: 4 T (PROTOCOL 3)."""
        return 4 * self.node_timeout

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, str(field.type), getattr(self, field.name))
        for name, least, most in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{name} must be from {least} to {most}, not {value}")


def _check_type(name: str, kind: str, value: object) -> None:
    if kind == "bool":
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be a bool, not {value!r}")
    elif kind == "int":
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{name} must be an int, not {value!r}")
    elif value is None:
        if "None" not in kind:
            raise ConfigError(f"{name} must be a number, not None")
    elif not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
        raise ConfigError(f"{name} must be a number, not {value!r}")


_MANY = 1 << 40
_LONG = 86400.0 * 365

_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("node_timeout", 0.1, _LONG),
    ("max_append_bytes", 1, 8 << 20),
    ("max_inflight", 1, 1024),
    ("max_inflight_bytes", 1, _MANY),
    ("trim_keep", 0, _MANY),
    ("trim_keep_time", 0.0, _LONG),
    ("max_log_bytes", 1, _MANY),
    ("max_frame", _LEAST_MAX_FRAME, (1 << 32) - 1),
    ("max_link_buffer", 1 << 20, _MANY),
    ("max_unknown_links", 1, 1 << 20),
    ("max_pending", 1, _MANY),
    ("max_pending_bytes", 1, _MANY),
    ("session_window", 1, 1 << 20),
    ("session_result_bytes", 0, _MANY),
    ("max_sessions", 1, 1 << 24),
    ("max_voters", 1, 1024),
    ("replace_after", 0.1, _LONG),
    ("snapshot_piece_bytes", 1, 8 << 20),
    ("snapshot_inflight", 1, 1024),
    ("rewrite_factor", 0.1, 1e6),
    ("rewrite_min_bytes", 0, _MANY),
    ("disk_reserve_bytes", 0, _MANY),
)
