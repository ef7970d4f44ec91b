"""What snapshots take of memory, disk and network, where they wait, are overtaken, or follow each other."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from wiring import Host, Wiring

from raftfast.consensus import Standing
from raftfast.member import Capture, Orders, PieceRead
from raftfast.messages import AppendEntries, Message, SnapshotPiece

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


# ---------------------------------------------------------------------- what arrives, and is overtaken


def half_taken(world: Wiring) -> tuple[Host, list[bool]]:
    """`c` has a part of a snapshot of `a`, and nothing more of it comes; `b` kept its log. When its `c` gave it up."""
    world["b"].member.raft._trim = lambda: None  # type: ignore[method-assign]
    c = left_behind(world)
    gave_up: list[bool] = []
    carry_out = c.carry_out

    def carrying_out(orders: Orders) -> bool:
        if orders.abandon_incoming:
            gave_up.append(True)
        return carry_out(orders)

    c.carry_out = carrying_out  # type: ignore[method-assign]
    pieces = 0

    def after_some(sender: Host, to: Host, message: Message) -> bool:
        nonlocal pieces
        pieces += isinstance(message, SnapshotPiece) and bool(message.data)
        return isinstance(message, SnapshotPiece) and pieces > 5

    world.held = after_some
    world.heal()
    world.until(lambda: pieces > 5)
    incoming = c.member.snapshots._in
    assert 0 < incoming.written < incoming.total
    assert not gave_up
    return c, gave_up


def test_a_part_of_a_snapshot_goes_when_the_term_of_its_leader_is_over() -> None:
    """It would be of use to nobody: a snapshot of the next leader has another name."""
    world = Wiring("abc", **LIMITS)
    c, gave_up = half_taken(world)
    world["a"].crash()
    world.until(lambda: world["b"].member.raft.is_leader)
    world.done(world["b"].propose(b"y"))
    world.until(lambda: c.member.raft.last_applied == world["b"].member.raft.last_applied)
    world.until(lambda: gave_up == [True])
    assert c.member.snapshots._in.name is None


def test_a_part_of_a_snapshot_goes_when_entries_brought_what_it_holds() -> None:
    """In the same term: its leader still has them, since it sends them again."""
    world = Wiring("abc", **LIMITS)
    c, gave_up = half_taken(world)
    raft, name = c.member.raft, c.member.snapshots._in.name
    assert name is not None
    log = world["b"].member.raft.log
    terms, lines = log.entries(raft.log.last_index + 1, log.last_index + 1, 1 << 20)
    commit, prev = world["b"].member.raft.commit_index, raft.log.last_index
    message = AppendEntries(name[0], name[1], prev, raft.log.term_at(prev), commit, terms, lines)
    info = c.member.links.inbound[name[0]]
    c.member.link_messages(info.link, [message], world.now)
    c.member.tick(world.now)
    world.settle()
    assert raft.commit_index >= name[2]
    assert raft.current_term == name[1]
    assert gave_up == [True]
    assert c.member.snapshots._in.name is None


@pytest.mark.parametrize("wait", ["its last write", "its install"])
def test_a_snapshot_that_is_all_here_is_not_given_up_for_a_new_term(wait: str) -> None:
    world = Wiring("abc", **LIMITS)
    c = left_behind(world)
    before = c.member.counters["snapshots_installed"]
    orders = held_writes(c)
    c.install_held = True
    world.heal()
    world.until(lambda: bool(orders))
    while not orders[0].last:
        write_one(c, orders)
        world.until(lambda: bool(orders))
    if wait == "its install":
        write_one(c, orders)
        assert c.member.snapshots.installing
    world["a"].crash()
    world.held = lambda sender, to, message: isinstance(message, SnapshotPiece)  # that of the next leader
    world.until(lambda: world["b"].member.raft.is_leader and c.member.raft.leader_id == world["b"].id)
    world.run(0.1)
    name = c.member.snapshots._in.name
    assert name is not None
    assert name[1] < c.member.raft.current_term
    while orders:
        write_one(c, orders)
    c.install_held = False
    world.until(lambda: c.member.counters["snapshots_installed"] > before)
    assert c.member.raft.last_applied >= name[2]
    world.release()
    del c.write_piece
    world.until(lambda: c.member.raft.last_applied == world["b"].member.raft.last_applied)


def test_a_piece_that_came_in_the_turn_in_which_its_snapshot_is_given_up_is_not_written_after_it() -> None:
    """A new file would be begun for it, which nobody would end."""
    world = Wiring("abc", **LIMITS)
    c = left_behind(world)
    world.held = lambda sender, to, message: isinstance(message, SnapshotPiece) and to is c
    world.heal()
    world.until(lambda: bool(world.kept))
    asked = world.kept[0][1]
    assert isinstance(asked, SnapshotPiece)
    info = c.member.links.inbound[asked.leader_id]
    raft = c.member.raft
    c.member.link_messages(info.link, [replace(asked, data=b"x" * PIECE)], world.now)
    assert len(c.member.orders.piece_writes) == 1
    raft.current_term += 1
    c.member.tick(world.now)
    assert c.member.orders.abandon_incoming
    assert c.member.orders.piece_writes == []
