"""How bad a run's world is: what may go wrong, how often, how long.

Floor 6. Values only, and how they are drawn. What a fault does is written in `storm`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random

from ..config import Config

__all__ = ["CALM", "Faults", "draw_config", "draw_faults"]


@dataclass(frozen=True, slots=True)
class Faults:
    """Rates are faults a node timeout, over the whole cluster; times are node timeouts, delays seconds.

    `message_chaos`: the chance that a single message is lost, doubled or moved, which no TCP does. `clock_drift`: how
    much faster or slower than time a node's clock may be. Safety asks nothing of clocks, since no lease serves a read;
    only for the end, where the cluster must be live again in time, is it at most a fifth.

    The rates, in the order of the fields: a node's process is killed, or the power fails; it does not run for a while;
    the nodes are parted; one hears another, which does not hear it; a link breaks; a link swallows all; a disk is slow;
    it does not come back for a while; a write or a sync fails, and the node ends; it has hardly any room; a leader is
    asked to hand over; a voter is added or taken out; a node is forgotten; a new one comes; a node's file is compacted;
    its log in memory is cut off at once at what is applied; it stops gracefully; some other entry is proposed;
    CLUSTER RESET; a folder is lost, and its node comes back, often under its old id.
    """

    delay: float = 0.002
    long_delay: float = 0.3
    long_delay_chance: float = 0.0
    message_chaos: float = 0.0
    clock_drift: float = 0.0
    disk_delay: float = 0.001
    crash: float = 0.0
    pause: float = 0.0
    partition: float = 0.0
    one_way: float = 0.0
    cut: float = 0.0
    half_open: float = 0.0
    slow_disk: float = 0.0
    stalled_disk: float = 0.0
    failing_disk: float = 0.0
    full_disk: float = 0.0
    transfer: float = 0.0
    voter_change: float = 0.0
    forget: float = 0.0
    join: float = 0.0
    compact: float = 0.0
    trim: float = 0.0
    stop: float = 0.0
    entry: float = 0.0
    reset: float = 0.0
    wipe: float = 0.0

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """The names of the rates."""
        names = tuple(field.name for field in fields(cls))
        return names[names.index("crash") :]


CALM = Faults()
"""A good day."""


def draw_faults(rng: Random) -> Faults:
    """Some of the faults, at some rates: runs differ more when not all goes wrong in each."""
    chosen = {name: rng.choice((0.02, 0.05, 0.1, 0.3)) for name in Faults.kinds() if rng.random() < 0.45}
    faults = replace(CALM, **chosen)
    return replace(
        faults,
        delay=rng.choice((0.0005, 0.002, 0.01, 0.03)),
        long_delay_chance=rng.choice((0.0, 0.0, 0.01, 0.05)),
        long_delay=rng.choice((0.1, 0.5, 2.0)),
        message_chaos=rng.choice((0.0, 0.0, 0.0, 0.02, 0.1)),
        clock_drift=rng.choice((0.0, 0.0, 0.05, 0.2)),
        disk_delay=rng.choice((0.0002, 0.001, 0.005, 0.02)),
    )


def draw_config(rng: Random) -> Config:
    """Settings at which everything happens often: small windows, small pieces, a log that is trimmed at once."""
    return Config(
        node_timeout=1.0,
        max_append_bytes=rng.choice((1, 100, 500, 1 << 20)),
        max_inflight=rng.choice((1, 2, 8)),
        max_inflight_bytes=rng.choice((100, 8 << 20)),
        trim_keep=rng.choice((0, 2, 8, 64)),
        trim_keep_time=rng.choice((0.0, 0.0, 0.05, 0.5)),
        max_log_bytes=rng.choice((500, 5000, 256 << 20, 256 << 20)),
        max_pending=rng.choice((5, 50, 100_000)),
        session_window=rng.choice((4, 16, 1024)),
        session_result_bytes=rng.choice((0, 60, 2000)),
        max_sessions=rng.choice((3, 30, 10_000, 10_000)),
        disk_reserve_bytes=rng.choice((0, 2000, 10_000)),
        max_voters=rng.choice((3, 5, 7, 7)),
        replace_after=rng.choice((None, 3.0)),
        snapshot_piece_bytes=rng.choice((200, 1000, 1 << 20)),
        snapshot_inflight=rng.choice((1, 2, 4)),
        rewrite_factor=rng.choice((0.1, 0.5, 2.0)),
        rewrite_min_bytes=rng.choice((0, 1000, 1 << 20)),
    )
