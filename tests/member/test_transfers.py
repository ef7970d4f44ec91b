"""Snapshots in pieces, where answers come twice or not at all (PROTOCOL 7)."""

from __future__ import annotations

from collections import deque

import pytest
from wiring import Wiring

from raftfast.config import Config
from raftfast.member.orders import Capture
from raftfast.member.outgoing import Source, Transfer
from raftfast.messages import Message, SnapshotAck, SnapshotPiece


@pytest.mark.parametrize("inflight", [1, 3])
def test_copies_of_answers_beget_no_copies_of_pieces(inflight: int) -> None:
    """Seed 2000161 of seven nodes: each piece went out ten times, since each answer sent one and each piece got one."""
    config = Config(snapshot_piece_bytes=10, snapshot_inflight=inflight)
    transfer = Transfer(Source(Capture(5, 1, b"", (), None, frozenset()), 400, None), 0.0)  # type: ignore[arg-type]
    ordered, pieces = 0, 0
    answers = deque([0] * 8)  # the first question was doubled three times on its way
    while answers:
        transfer.answered(answers.popleft(), 0.0)
        for read in transfer.next_reads("b", config):
            pieces += 1
            ordered += read.size if read.offset == ordered else 0
            answers += [ordered, ordered]  # and so is every answer
    assert ordered == 400
    assert pieces == 40


def test_a_transfer_of_which_something_was_lost_asks_and_goes_on_from_the_answer() -> None:
    config = Config(snapshot_piece_bytes=10, snapshot_inflight=3)
    transfer = Transfer(Source(Capture(5, 1, b"", (), None, frozenset()), 100, None), 0.0)  # type: ignore[arg-type]
    transfer.answered(0, 0.0)
    assert [read.offset for read in transfer.next_reads("b", config)] == [0, 10, 20]
    transfer.answered(10, 1.0)  # of 10 and 20 nothing is ever heard
    assert [read.offset for read in transfer.next_reads("b", config)] == [30]
    assert not transfer.must_ask(2.0, 1.0)
    assert transfer.must_ask(2.1, 1.0)
    assert not transfer.must_ask(2.2, 1.0)
    assert transfer.next_reads("b", config) == []
    assert transfer.must_ask(3.2, 1.0)  # the question was lost too
    transfer.answered(10, 3.3)
    assert [read.offset for read in transfer.next_reads("b", config)] == [10, 20, 30]
    transfer.answered(100, 4.0)  # the receiver had them all
    assert transfer.next_reads("b", config) == []
    assert not transfer.must_ask(99.0, 1.0)


@pytest.mark.parametrize("lost", [SnapshotPiece, SnapshotAck])
def test_a_transfer_outlives_the_loss_of_any_message(lost: type[Message]) -> None:
    """On one link: nothing is closed, nothing begins anew."""
    world = Wiring(
        "abc", snapshot_piece_bytes=50, snapshot_inflight=2, trim_keep=0, trim_keep_time=0.0, max_log_bytes=500
    )
    world.form("abc")
    world.isolate("c")
    tokens = [world["a"].propose(b"x" * 20) for _ in range(40)]
    world.until(lambda: all(token.ok for token in tokens))
    seen = 0

    def every_fifth(sender: object, to: object, message: Message) -> bool:
        nonlocal seen
        seen += isinstance(message, lost)
        return isinstance(message, lost) and seen % 5 == 0

    a, c = world["a"].member.counters, world["c"].member.counters
    before = a.get("links_silent", 0), a.get("snapshots_sent", 0), c.get("snapshots_installed", 0)
    world.held = every_fifth
    world.heal()
    world.until(lambda: world["c"].member.raft.last_applied == world["a"].member.raft.last_applied)
    assert (a.get("links_silent", 0), a["snapshots_sent"] - 1, c["snapshots_installed"] - 1) == before
    assert seen > 20


def test_a_snapshot_that_is_refused_is_not_sent_again_at_once_and_for_ever() -> None:
    world = Wiring("abc", snapshot_piece_bytes=50, trim_keep=0, trim_keep_time=0.0, max_log_bytes=500)
    world.form("abc")
    c = world["c"]
    world.isolate("c")
    tokens = [world["a"].propose(b"x" * 20) for _ in range(40)]
    world.until(lambda: all(token.ok for token in tokens))
    c.do_install = lambda order: c.member.snapshots.refused(order.name, "its disk is full")  # type: ignore[method-assign]
    before = c.member.counters.get("snapshots_refused", 0)
    world.heal()
    world.run(10.0)
    assert 5 <= c.member.counters["snapshots_refused"] - before <= 41
    del c.do_install
    world.until(lambda: c.member.raft.last_applied == world["a"].member.raft.last_applied)
