"""Small rules of snapshots that are sent and taken: who may send one, and what goes on meanwhile (PROTOCOL 7)."""

from __future__ import annotations

from typing import Any

from wiring import Wiring

from raftfast.cluster.snapshot import node_lines
from raftfast.messages import AppendEntries, AppendEntriesAck, InstallSnapshot, SnapshotAck, SnapshotPiece


def formed(**knobs: Any) -> Wiring:
    world = Wiring("abc", **knobs)
    world.form("abc")
    return world


def snapshot_for_b(world: Wiring, leader: str, term: int, ahead: int) -> InstallSnapshot:
    """A whole snapshot of so many entries more than `b` has applied."""
    a, b = world["a"].member, world["b"].member
    index = b.raft.last_applied + ahead
    return InstallSnapshot(world[leader].id, term, index, a.raft.current_term, node_lines(a.state))


def append_for_b(world: Wiring, count: int) -> AppendEntries:
    """So many entries of the leader `a` behind those that `b` has, all committed."""
    raft = world["b"].member.raft
    index, term = raft.log.last_index, raft.current_term
    lines = (b"%d NOOP" % term,) * count
    return AppendEntries(world["a"].id, term, index, raft.log.last_term, index + count, (term,) * count, lines, 1)


# ---------------------------------------------------------------------- taken


def test_a_snapshot_of_a_term_that_has_passed_is_refused_with_ours() -> None:
    """Term and identity rules are those of AppendEntries."""
    world = formed()
    a, b = world["a"], world["b"]
    raft, link = b.member.raft, b.member.links.inbound[a.id].link
    term = raft.current_term
    raft.see_term(term + 1, world.now, None)
    b.turn()
    b.do_jobs()
    b.member.link_messages(link, [snapshot_for_b(world, "a", term, 5)], world.now)
    orders = b.member.take(world.now)
    assert (orders.install, orders.closes) == (None, [])
    assert [message for _, message in orders.sends if isinstance(message, AppendEntriesAck)] == [
        AppendEntriesAck(term + 1, False, 0, 0)
    ]


def test_a_snapshot_is_its_senders_or_nothing() -> None:
    world = formed()
    a, b = world["a"], world["b"]
    link = b.member.links.inbound[a.id].link
    b.member.link_messages(link, [snapshot_for_b(world, "c", b.member.raft.current_term, 5)], world.now)
    orders = b.member.take(world.now)
    assert orders.install is None
    assert [closed for closed, _ in orders.closes] == [link]
    assert not any(isinstance(message, AppendEntriesAck) for _, message in orders.sends)


def test_nothing_is_applied_while_a_snapshot_is_being_installed() -> None:
    """PITFALLS, an install racing with apply: the state machine is being replaced, in another thread."""
    world = formed()
    a, b = world["a"], world["b"]
    raft, link = b.member.raft, b.member.links.inbound[a.id].link
    applied, append = raft.last_applied, append_for_b(world, 2)
    b.install_held = True
    b.member.link_messages(link, [snapshot_for_b(world, "a", raft.current_term, 2)], world.now)
    b.turn()
    assert b.member.snapshots.installing
    b.member.link_messages(link, [append], world.now)
    b.turn()
    assert (raft.commit_index, raft.last_applied) == (applied + 2, applied)
    b.install_held = False
    b.do_jobs()
    assert raft.last_applied == applied + 2


def test_a_snapshot_that_became_stale_while_it_came_is_not_installed() -> None:
    """Once it is whole it is looked at again: what it would replace may be newer by then."""
    world = formed(snapshot_piece_bytes=50)
    a, b = world["a"], world["b"]
    raft, link = b.member.raft, b.member.links.inbound[a.id].link
    head = node_lines(a.member.state)
    piece = SnapshotPiece(a.id, raft.current_term, raft.last_applied + 1, raft.current_term, 0, len(head), head)
    b.member.link_messages(link, [piece], world.now)
    (write,) = b.member.take(world.now).piece_writes
    b.member.link_messages(link, [append_for_b(world, 1)], world.now)
    assert not b.member.snapshots.whole(write.name, head, None, world.now)
    assert not b.member.snapshots.installing
    assert b.member.take(world.now).install is None


def test_what_is_written_of_a_snapshot_that_is_resumed_on_another_link_is_answered_there() -> None:
    """Else its sender would hear nothing till it asks."""
    world = formed(snapshot_piece_bytes=50)
    a, b = world["a"], world["b"]
    raft, snapshots = b.member.raft, b.member.snapshots
    index, term, head = raft.last_applied + 5, raft.current_term, node_lines(a.member.state)
    links = []
    for offset in (0, 50):
        link = b.member.links.inbound[a.id].link
        data = head[offset : offset + 50]
        b.member.link_messages(link, [SnapshotPiece(a.id, term, index, term, offset, len(head), data)], world.now)
        (write,) = b.member.take(world.now).piece_writes
        snapshots.piece_written(write.name, offset + 50, world.now)
        sends = b.member.take(world.now).sends
        links.append((link, [to for to, message in sends if isinstance(message, SnapshotAck)]))
        world.cut(link)
        world.settle()
    (first, answered), (second, answered_again) = links
    assert first != second
    assert (answered, answered_again) == ([first], [second])


# ---------------------------------------------------------------------- sent


def test_an_answer_to_another_snapshot_moves_no_transfer() -> None:
    """An answer to the one before this may come late; the bytes that it asks for are others in this one."""
    world = formed(snapshot_piece_bytes=50, trim_keep=0, max_log_bytes=500)
    a, c = world["a"], world["c"]
    world.isolate("c")
    tokens = [a.propose(b"x" * 20) for _ in range(40)]
    world.until(lambda: all(token.ok for token in tokens))
    world.held = lambda sender, to, message: isinstance(message, SnapshotAck)
    world.passed.clear()
    world.heal()
    world.until(lambda: bool(world.kept))
    answer = world.kept[-1][1]
    assert isinstance(answer, SnapshotAck)
    a.member.snapshots.on_ack(c.id, SnapshotAck(answer.term, answer.last_included_index - 1, 50))
    assert a.member.orders.piece_reads == []
    a.member.snapshots.on_ack(c.id, answer)
    assert [read.offset for read in a.member.orders.piece_reads][:2] == [0, 50]
