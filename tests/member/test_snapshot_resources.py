"""What snapshots take of memory, disk and network, where they wait, are overtaken, or follow each other."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from wiring import Host, Wiring

from raftfast.messages import SnapshotPiece

PIECE = 50
LIMITS: dict[str, Any] = {
    "snapshot_piece_bytes": PIECE,
    "snapshot_inflight": 2,
    "trim_keep": 0,
    "trim_keep_time": 0.0,
    "max_log_bytes": 500,
}


def left_behind(world: Wiring, count: int = 40) -> Host:
    """`c` of a cluster needs a snapshot, and can have none before `heal`."""
    world.form("abc")
    world.isolate("c")
    tokens = [world["a"].propose(b"x" * 20) for _ in range(count)]
    world.until(lambda: all(token.ok for token in tokens))
    return world["c"]


def held_writes(host: Host) -> deque[Any]:
    """The pieces that the host is to write: its disk hangs."""
    orders: deque[Any] = deque()
    host.write_piece = orders.append  # type: ignore[method-assign]
    return orders


def write_one(host: Host, orders: deque[Any]) -> None:
    Host.write_piece(host, orders.popleft())


# ---------------------------------------------------------------------- a disk that does not take what comes


@pytest.mark.parametrize("log_hangs", [False, True])
def test_a_receiver_that_can_not_write_holds_two_windows_and_not_the_whole_snapshot(log_hangs: bool) -> None:
    """Every T/4 its answer to a question had the next window sent, until the whole snapshot was in memory."""
    world = Wiring("abc", **LIMITS)
    c = left_behind(world)
    before = c.member.counters["snapshots_installed"]
    orders = held_writes(c)
    c.disk_held = log_hangs
    world.heal()
    world.until(lambda: len(orders) == 4)
    assert orders[0].total > 20 * PIECE
    world.passed.clear()
    world.run(20.0)
    assert len(orders) == 4
    # One window was refused; from then on only questions are sent, and no link is closed meanwhile.
    assert sum(isinstance(message, SnapshotPiece) and bool(message.data) for _, _, message in world.passed) <= 4
    assert world["a"].member.counters.get("links_silent", 0) == 0
    c.disk_held = False
    while orders:
        write_one(c, orders)
        world.run(0.1)
        assert len(orders) <= 4
    assert c.member.counters["snapshots_installed"] == before + 1
    world.until(lambda: c.member.raft.last_applied == world["a"].member.raft.last_applied)
    assert c.member.counters.get("snapshots_refused", 0) == 0


def test_a_piece_that_is_larger_than_both_windows_is_taken_where_nothing_waits() -> None:
    """Its sender may have been told other sizes."""
    world = Wiring("abc", **LIMITS)
    c = left_behind(world)
    before = c.member.counters["snapshots_installed"]
    c.member.snapshots._in._most_waiting = PIECE // 2
    world.heal()
    world.until(lambda: c.member.counters["snapshots_installed"] > before)
