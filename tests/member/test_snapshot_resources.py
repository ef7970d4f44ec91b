"""What snapshots take of memory, disk and network, where they wait, are overtaken, or follow each other."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from wiring import Host, Wiring

from raftfast.consensus import Standing
from raftfast.member import Capture, Orders, PieceRead
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


# ---------------------------------------------------------------------- snapshots that follow each other


class Handles:
    """The snapshots that a host wrote to send, and which of them it let go; each only once, and none that is read."""

    def __init__(self, host: Host) -> None:
        self.written: list[Any] = []
        self.kept: list[Any] = []
        snapshots, carry_out, built = host.member.snapshots, host.carry_out, host.member.snapshots.built

        def carrying_out(orders: Orders) -> bool:
            for read in orders.piece_reads:
                assert any(read.source is handle for handle in self.kept)
            busy = carry_out(orders)
            self.let_go(orders.release)
            return busy

        def building(capture: Capture, total: int, data: bytes) -> list[Any]:
            handle = memoryview(data)  # equal bytes are the same object no more
            self.written.append(handle)
            self.kept.append(handle)
            free = built(capture, total, handle)
            self.let_go(free)
            return free

        host.carry_out = carrying_out  # type: ignore[method-assign]
        snapshots.built = building  # type: ignore[method-assign]

    def let_go(self, handles: list[Any]) -> None:
        for handle in handles:
            (position,) = (at for at, kept in enumerate(self.kept) if kept is handle)
            del self.kept[position]


def test_who_joins_ends_no_transfer_of_another() -> None:
    """Each joiner needs a snapshot that names it. Members that take long began anew with it, and never caught up."""
    world = Wiring("abcdef", **LIMITS)
    a, handles = world["a"], Handles(world["a"])
    c = left_behind(world)
    before = c.member.counters["snapshots_installed"]
    handles.written.clear()
    orders, taken = held_writes(c), 0
    world.heal()
    world.until(lambda: bool(orders))
    name = orders[0].name
    for joiner in "def":
        world.done(a.meet(world[joiner]))
        world.until(lambda: world[joiner].member.standing is Standing.MEMBER)  # noqa: B023
        assert orders[0].name == name
        taken += len(orders[0].data)
        write_one(c, orders)
    assert len(handles.written) == 4
    assert taken < name[4] / 2
    while c.member.counters["snapshots_installed"] == before:
        world.until(lambda: bool(orders))
        assert orders[0].name == name
        write_one(c, orders)
        world.settle()
    del c.write_piece
    world.until(lambda: c.member.raft.last_applied == a.member.raft.last_applied)
    world.run(1.0)
    assert len(handles.kept) <= 1
    assert world.leader is a
    world.isolate("a")
    world.until(lambda: not a.member.raft.is_leader)
    assert handles.kept == []


def test_a_transfer_whose_snapshot_was_replaced_begins_anew_after_a_lost_link() -> None:
    world = Wiring("abcd", **LIMITS)
    a, handles = world["a"], Handles(world["a"])
    c = left_behind(world)
    orders = held_writes(c)
    world.heal()
    world.until(lambda: bool(orders))
    name = orders[0].name
    world.done(a.meet(world["d"]))
    world.until(lambda: world["d"].member.standing is Standing.MEMBER)
    assert len(handles.kept) == 2
    world.cut_all(a, c)
    world.until(lambda: any(order.begin and order.name != name for order in orders))
    assert len(handles.kept) == 1
    while orders:
        write_one(c, orders)
        world.settle()
    world.until(lambda: c.member.raft.last_applied == a.member.raft.last_applied)


def test_a_snapshot_that_no_transfer_can_use_is_let_go_while_its_node_leads() -> None:
    """Its file, as large as the whole state, stayed for as long as nobody needed another one."""
    world = Wiring("abc", **LIMITS)
    a, handles = world["a"], Handles(world["a"])
    c = left_behind(world)
    world.heal()
    world.until(lambda: c.member.raft.last_applied == a.member.raft.last_applied)
    assert handles.written
    tokens = [a.propose(b"x" * 20) for _ in range(40)]
    world.until(lambda: all(token.ok for token in tokens))
    world.run(5.0)
    assert world.leader is a
    assert handles.kept == []


def test_a_snapshot_that_can_not_be_read_is_let_go_with_its_transfers() -> None:
    world = Wiring("abc", **LIMITS)
    a, handles = world["a"], Handles(world["a"])
    c = left_behind(world)
    handles.written.clear()
    orders = held_writes(c)
    world.heal()
    world.until(lambda: bool(orders))
    (broken,) = handles.kept
    a.member.snapshots.piece_failed(PieceRead(c.id, broken, 0, PIECE))
    world.settle()
    assert handles.kept == []
    world.until(lambda: len(handles.written) == 2)
    while orders:
        write_one(c, orders)
        world.settle()
    del c.write_piece
    world.until(lambda: c.member.raft.last_applied == a.member.raft.last_applied)
