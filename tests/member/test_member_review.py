"""Executions found by reading the member against PROTOCOL: each was wrong once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wiring import Disk, Token, Wiring

from raftfast.cluster.entries import MAX_TERMLESS_BYTES, DelVoter, NodeForget, NodeJoin, SetReplicaOf, SlotChange
from raftfast.cluster.sessions import Sessions
from raftfast.cluster.snapshot import session_part
from raftfast.consensus import Standing
from raftfast.errors import Busy, ClusterReset, Expired, NodeClosed, Rejected, UnknownOutcome
from raftfast.member import Identity, Origin
from raftfast.messages import (
    AddMe,
    AppendEntries,
    AppendEntriesAck,
    Hello,
    Hi,
    InstallSnapshot,
    Meet,
    Propose,
    ReadIndex,
    ReadIndexOk,
    Reject,
    Role,
    SnapshotAck,
    SnapshotPiece,
    TimeoutNow,
    TransferLeader,
    Welcome,
)
from raftfast.records import Address


def test_three_members_form_a_cluster_and_apply_the_same() -> None:
    world = Wiring("abc")
    world.form("abc")
    token = world["b"].propose(b"x")
    world.done(token)
    assert token.result == b"1"
    world.run(0.5)
    assert [host.machine.applied for host in world.hosts.values()] == [[b"x"]] * 3


def test_a_step_down_is_not_overwritten_by_a_rewrite_of_the_same_turn() -> None:
    """PROTOCOL 8: `joining 1` is durable before ADD_ME leaves, whatever else the singleton stored in that turn."""
    world = Wiring("ab")
    world.settle()
    a, b = world["a"], world["b"]
    world.held = lambda sender, to, message: isinstance(message, Meet)
    a.meet(b)
    world.settle()
    slots = b.entry(SlotChange(None, 0, b.id, 0, ((0, 9),)))
    (link, meet), *_ = world.kept
    b.member.link_messages(world.ends[link].other, [meet], world.now)
    assert b.member.standing is Standing.JOINER
    while b.turn():
        b.do_jobs()
    assert b.disk.image.joining
    assert slots.ok
    assert Origin.of_file(b.disk.conf(), b.address).claimed_slots == ((0, 9),)


def test_slots_that_are_taken_in_the_turn_of_a_reset_are_stored_with_it() -> None:
    """Seed 1047 of four nodes without a state machine: the new node's lines came before the old node's log."""
    world = Wiring("abc")
    world.form("abc")
    b = world["b"]
    assert b.disk.lines
    done = Token()
    b.member.reset(Identity(b.id, "5" * 40, b.address), done, world.now)
    slots = b.entry(SlotChange(None, 0, b.id, 0, ((0, 9),)))
    b.turn()
    b.do_job()
    assert not b.disk.lines
    b.turn()
    assert done.ok
    assert slots.ok
    origin = Origin.of_file(b.disk.conf(), b.address)
    assert origin.identity.shard_id == "5" * 40
    assert origin.state.slots_of(b.id) == ((0, 9),)


@pytest.mark.parametrize("how", ["reset", "gives-up"])
def test_a_crash_within_the_job_that_founds_a_cluster_in_the_turn_of_a_reset_leaves_a_singleton(how: str) -> None:
    """Its rewrite is done and its append is not: the file names a cluster that nobody is in, and MEET was refused."""
    world = Wiring("abc")
    world.form("ab")
    a, c = world["a"], world["c"]
    if how == "reset":
        c.member.reset(Identity(c.id, "5" * 40, c.address), Token(), world.now)
        c.propose(b"x")
    else:
        kinds = (AppendEntries, InstallSnapshot, SnapshotPiece)
        world.held = lambda sender, to, message: to is c and isinstance(message, kinds)
        c.meet(a)
        world.until(lambda: c.member.standing is Standing.JOINER)
        world.isolate("c")
        world.run(1.5)
        c.propose(b"x")
        while c.member.standing is Standing.JOINER:
            world.settle()
            world.now += 0.02
            c.member.tick(world.now)
    job = c.member.take(world.now).store
    assert job is not None
    assert job.lines
    c.disk.store(job._replace(lines=[]))
    c.crash()
    c.start()
    world.heal()
    world.release()
    met = c.meet(a)
    world.done(met)


def test_a_new_leader_keeps_the_voter_change_that_it_wanted_itself() -> None:
    """PROTOCOL 6.2 and 8: who becomes leader appends its own proposals; voter changes are queued, not lost."""
    world = Wiring("abc")
    world.form("abc")
    world.isolate("a")
    b, c = world["b"], world["c"]
    change = b.entry(DelVoter(world["a"].id))
    world.until(lambda: b.up and (b.member.raft.is_leader or c.member.raft.is_leader))
    if not b.member.raft.is_leader:
        c.member.transfer(b.id, world.now)
    world.until(lambda: change.answered, 2.5)
    assert change.ok
    assert b.member.raft.voters == {b.id, c.id}


def test_commands_behind_the_removal_of_the_leader_itself_are_held_not_raised() -> None:
    """PROTOCOL 4, 8: a leader that is to be removed hands over; what it is given meanwhile it holds."""
    world = Wiring("abc")
    world.form("abc")
    a = world["a"]
    removal = a.entry(DelVoter(a.id))
    command = a.propose(b"x")
    world.until(lambda: removal.answered and command.answered, 3.0)
    assert removal.ok
    assert command.ok
    assert not a.member.raft.is_leader


def test_what_was_held_while_handing_over_may_order_another_hand_over() -> None:
    """A late transfer lets go what was held: the removal of the leader and what is behind it, without end or error."""
    world = Wiring("abc")
    world.form("abc")
    a, b = world["a"], world["b"]
    world.held = lambda sender, to, message: isinstance(message, TimeoutNow)
    a.member.transfer(None, world.now)
    world.settle()
    forget, change, command = b.entry(NodeForget(a.id, 0)), b.entry(DelVoter(world["c"].id)), b.propose(b"x")
    world.run(2.5)
    assert not command.answered
    world.release()
    world.until(lambda: command.answered and change.answered and forget.answered, 5.0)
    assert command.ok
    assert change.ok
    assert forget.ok


def test_a_voter_that_can_not_be_forgotten_is_not_demoted_on_the_way() -> None:
    """PROTOCOL 8: NODE_FORGET never takes a primary with slots; refused, it has changed nothing."""
    world = Wiring("abc")
    world.form("abc")
    a, c = world["a"], world["c"]
    slots = c.entry(SlotChange(None, 0, c.id, 0, ((5, 9),)))
    world.until(lambda: slots.answered)
    forget = a.entry(NodeForget(c.id, a.member.state.shard_epoch(c.shard)))
    world.until(lambda: forget.answered)
    assert isinstance(forget.error, Rejected)
    assert "slots" in str(forget.error)
    assert a.member.is_voter(c.id)
    assert c.id in a.member.raft.voters


def test_a_founders_join_sent_again_while_a_voter_change_waits_is_refused() -> None:
    """A forwarded entry never stops the leader, whatever it is (PROTOCOL 6.4)."""
    world = Wiring("abc")
    world.form("abc")
    a, b = world["a"], world["b"]
    world.held = lambda sender, to, message: isinstance(message, AppendEntriesAck)
    a.entry(DelVoter(world["c"].id))
    world.settle()
    assert a.member.raft.voter_change_pending
    joined = b.entry(NodeJoin(a.id, a.member.identity.text, True))
    world.until(lambda: joined.answered, 0.4)
    assert isinstance(joined.error, Rejected)


def test_a_member_that_moved_is_found_by_a_leader_that_it_does_not_know() -> None:
    """It knows members that know the leader: they say where it is, since neither finds the other."""
    world = Wiring("abcd")
    world.form("abc")
    a, c, d = world["a"], world["c"], world["d"]
    c.crash()
    met = d.meet(a)
    world.until(lambda: met.answered and a.member.is_voter(d.id) and d.member.standing is Standing.MEMBER)
    world.run(1.0)
    a.member.transfer(d.id, world.now)
    world.until(lambda: d.member.raft.is_leader)
    c.address = Address("10.0.9.9", 7000, 17000, "", {"tls-port": "0"})
    c.start()
    assert d.id not in c.member.state.nodes
    world.until(lambda: c.member.raft.leader_id == d.id)
    done = c.propose(b"x")
    world.done(done)
    world.run(3.0)
    assert all(host.member.state.nodes[c.id].address.ip == "10.0.9.9" for host in world.hosts.values())
    assert not any(host.member.neighbours._told_elsewhere for host in world.hosts.values())


def test_a_member_that_comes_back_at_another_address_is_dialled_there() -> None:
    """PROTOCOL 9: HELLO's address says where to dial; else the leader never reaches it, and NODE_INFO never leaves."""
    world = Wiring("abc")
    world.form("abc")
    a, c = world["a"], world["c"]
    c.crash()
    world.run(5.0)
    c.address = Address("10.0.9.9", 7000, 17000, "", {"tls-port": "0"})
    c.start()
    world.until(lambda: a.member.state.nodes[c.id].address.ip == "10.0.9.9")
    token = a.propose(b"x")
    world.until(lambda: token.answered and c.machine.applied == [b"x"])


def test_an_address_that_found_no_leader_in_time_is_proposed_again() -> None:
    """A NODE_INFO given up while nobody led is not the end of it."""
    world = Wiring("abc")
    world.form("abc")
    b, c = world["b"], world["c"]
    for host in world.hosts.values():
        host.crash()
    c.address = Address("10.0.9.9", 7000, 17000, "", {"tls-port": "0"})
    c.start()
    world.run(4.0)
    b.start()
    world.until(lambda: c.id in b.member.state.nodes and b.member.state.nodes[c.id].address.ip == "10.0.9.9")


def test_a_joiner_that_follows_one_cluster_takes_nothing_of_another() -> None:
    """PROTOCOL 9: two ids that differ: the link is closed, also where the joiner had none yet when it was made."""
    world = Wiring("abc")
    world.settle()
    a, b, c = world["a"], world["b"], world["c"]
    for host in (a, b):
        host.propose(b"of " + host.name.encode())
        world.until(lambda: host.machine.applied != [])  # noqa: B023
    world.held = lambda sender, to, message: isinstance(message, AppendEntries) and to is c
    a.meet(c)
    world.until(lambda: c.member.standing is Standing.JOINER)
    # The other cluster has invited the same node once, before it gave up waiting for it.
    b.member.lifecycle.invite(NodeJoin(c.id, c.member.address_text, False), world.now)
    world.settle()
    assert {a.id, b.id} <= c.member.links.inbound.keys()
    world.release()
    world.settle()
    (other,) = {a.id, b.id} - c.member.links.inbound.keys()
    assert c.member.cluster_id not in (None, (a if other == a.id else b).member.cluster_id)
    world.until(lambda: c.member.standing is Standing.MEMBER)
    world.run(1.0)
    assert c.machine.applied == (b if other == a.id else a).machine.applied


def lagging(world: Wiring) -> None:
    """`c` is away while the log behind it is trimmed, on every other member; back it needs a snapshot."""
    world.form("abc")
    world.isolate("c")
    for number in range(20):
        entry = world["a"].entry(SlotChange(None, 0, world["a"].id, 0, ((number, number),)))
        world.until(lambda: entry.answered)  # noqa: B023
        world.run(0.1)
    world.run(1.2)
    behind = world["c"].member.raft.log.last_index
    assert min(world[name].member.raft.log.boundary_index for name in "ab") > behind


def test_a_new_leaders_whole_snapshot_that_comes_during_an_install_is_answered() -> None:
    """PROTOCOL 7: a transfer always ends; here the first leader dies while its snapshot is being installed."""
    world = Wiring("abc", machine=lambda: None, trim_keep=0, trim_keep_time=0.0)
    lagging(world)
    _a, b, c = world["a"], world["b"], world["c"]
    c.install_held = True
    world.heal()
    world.until(lambda: c.member.snapshots.installing)
    world.isolate("a")
    world.until(lambda: b.member.raft.is_leader)
    # The new leader trims too: for it, too, nothing but a snapshot reaches c.
    b.member.raft.log.trim_to(b.member.raft.last_applied)
    world.run(0.2)
    assert any(x == "b" and y == "c" and isinstance(m, InstallSnapshot) for x, y, m in world.passed)
    c.install_held = False
    # With a away the new leader commits nothing without c.
    world.until(lambda: c.member.raft.last_applied == b.member.raft.log.last_index, 2.0)


def test_a_joiner_does_not_give_up_while_a_snapshot_is_being_installed() -> None:
    """PROTOCOL 3: what it took is dropped whole or not at all; the state machine is not left with half of it."""
    world = Wiring("ab", trim_keep=0, trim_keep_time=0.0)
    a, b = world["a"], world["b"]
    world.settle()
    for _ in range(5):
        a.propose(b"x")
        world.run(0.1)
    a.member.raft.log.trim_to(a.member.raft.last_applied)
    b.install_held = True
    a.meet(b)
    world.until(lambda: b.member.snapshots.installing)
    a.crash()
    world.run(6.0)
    b.install_held = False
    world.settle()
    assert b.member.standing is Standing.MEMBER
    assert b.machine.applied == [b"x"] * 5
    assert b.member.raft.last_applied > 0


def test_a_malformed_join_in_the_log_stops_nobody_not_even_at_a_restart() -> None:
    """Apply makes such an entry a no-op on every member alike; reading the log's tail must not be stricter."""
    world = Wiring("ab")
    world.form("ab")
    a, b = world["a"], world["b"]
    a.member.raft.propose([b"NODE_JOIN somebody somewhere"], world.now)
    b.crash()
    world.run(0.1)
    b.start()
    token = a.propose(b"x")
    world.until(lambda: token.answered and b.machine.applied == [b"x"])
    assert any("malformed" in text for text in b.said)


def test_nodes_of_a_log_that_a_snapshot_dropped_are_known_no_more() -> None:
    """PROTOCOL 2, 7: known are the nodes of the state and of the log's tail; what was dropped is neither."""
    world = Wiring("abcd", trim_keep=0, trim_keep_time=0.0)
    world.form("abc")
    a, c, d = world["a"], world["c"], world["d"]
    world.isolate("a")
    # Never committed: the rest elects another leader.
    a.member.raft.propose([b"NOOP"] * 40 + [NodeJoin(d.id, d.member.address_text, False).encode()], world.now)
    world.settle()
    shared = a.member.raft.commit_index
    assert a.member.knows(d.id)
    world.until(lambda: c.member.raft.is_leader or world["b"].member.raft.is_leader)
    for number in range(8):
        token = world.leader.propose(b"%d" % number)
        world.until(lambda: token.answered)  # noqa: B023
    world.run(1.5)
    assert shared < world.leader.member.raft.log.boundary_index < a.member.raft.log.last_index - 20
    world.heal()
    world.until(lambda: a.member.caught_up_by == "snapshot")
    assert not a.member.knows(d.id)


def test_a_command_that_was_sent_twice_and_then_refused_is_not_said_to_have_no_effect() -> None:
    """PROTOCOL 6.4: the first copy may be in the log; `Rejected` would say that it certainly is not."""
    world = Wiring("abc")
    world.form("abc")
    b = world["b"]
    first = b.propose(b"first")
    world.until(lambda: first.answered)
    world.held = lambda sender, to, message: isinstance(message, (Propose, AppendEntriesAck))
    token = b.propose(b"x")
    world.settle()
    ((_, message),) = [item for item in world.kept if isinstance(item[1], Propose)]
    for _ in range(2):
        b.member.proposals.send_all_again()
        world.settle()
    b.member.inbox.refused(message.entry, Rejected("no"))
    world.settle()
    assert isinstance(token.error, UnknownOutcome)
    assert token.error.may_take_effect


def test_capturing_the_state_encodes_no_session_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop never serialises a snapshot (PROTOCOL 7, "Taking it does not stop proposals"); it is as it was then."""
    world = Wiring("a")
    a = world["a"]
    a.propose(b"x")
    world.settle()
    encode, expected = Sessions.encode, session_part(a.member.sessions) + b"x\n"
    monkeypatch.setattr(Sessions, "encode", lambda self: pytest.fail("encoded while it was captured"))
    capture = a.member.capture()
    a.propose(b"y")
    world.settle()
    assert a.machine.applied == [b"x", b"y"]
    monkeypatch.setattr(Sessions, "encode", encode)
    assert capture.app_pieces is not None
    assert b"".join(capture.app_pieces) == expected


def test_a_refused_read_is_not_asked_again_at_once_and_for_ever() -> None:
    """PROTOCOL 5.6: a leader that hands over answers READ_INDEX_NO; asking it in a circle would only keep both busy."""
    world = Wiring("abc")
    world.form("abc")
    a, b = world["a"], world["b"]
    world.held = lambda sender, to, message: isinstance(message, TimeoutNow)
    a.member.transfer(None, world.now)
    world.settle()
    read = b.barrier()
    world.run(0.5)
    asked = sum(isinstance(message, ReadIndex) for _, _, message in world.passed)
    assert 1 <= asked <= 6
    assert not read.answered
    world.release()
    world.done(read)


def test_no_read_is_answered_while_the_state_machine_is_being_replaced() -> None:
    """Another thread does that: the caller would see half of a state."""
    world = Wiring("abc", trim_keep=0, trim_keep_time=0.0)
    world.form("abc")
    a, b = world["a"], world["b"]
    world.held = lambda sender, to, message: (
        isinstance(message, ReadIndexOk) or (to is b and isinstance(message, AppendEntries) and bool(message.lines))
    )
    read = b.barrier()
    world.until(lambda: any(isinstance(message, ReadIndexOk) for _, message in world.kept))
    link, confirmation = next(each for each in world.kept if isinstance(each[1], ReadIndexOk))
    b.install_held = True
    done = a.propose(b"x")
    world.until(lambda: done.answered)
    world.kept.clear()
    for number, end in list(world.ends.items()):  # b's own link to a, on which the answer comes, lives on
        if number in world.ends and end.host is a and end.target == b.id:
            world.cut(number)
    a.member.raft.log.trim_to(a.member.raft.last_applied)
    world.until(lambda: b.member.snapshots.installing)
    b.member.link_messages(world.ends[link].other, [confirmation], world.now)
    b.turn()
    assert not read.answered
    b.install_held = False
    world.release()
    world.done(read)


def test_a_read_that_is_confirmed_in_the_turn_of_a_reset_fails_with_it() -> None:
    """PROTOCOL 5.6: whoever is told that it may read does so at once, and then there is nothing left to read."""
    world = Wiring("abc")
    world.form("abc")
    b = world["b"]
    world.held = lambda sender, to, message: isinstance(message, ReadIndexOk)
    read = b.barrier()
    world.until(lambda: bool(world.kept))
    (link, confirmation), *_ = world.kept
    b.member.link_messages(world.ends[link].other, [confirmation], world.now)
    b.member.reset(Identity(b.id, "5" * 40, b.address), Token(), world.now)
    b.turn()
    assert isinstance(read.error, ClusterReset)


def test_a_node_that_is_alone_closes_the_link_of_whoever_leads_it() -> None:
    """PROTOCOL 8: a singleton takes no AppendEntries; it closes the link, and its term does not move."""
    world = Wiring("ac")
    a, c = world["a"], world["c"]
    world.settle()
    a.propose(b"x")
    world.settle()
    a.disk_held = True  # so that the join stays in the log's tail, and says nothing of a lost log
    a.member.lifecycle.invite(NodeJoin(c.id, c.member.address_text, False), world.now)
    world.settle()
    assert any(isinstance(message, AppendEntries) for _, _, message in world.passed)
    assert a.id not in c.member.links.inbound
    assert c.member.standing is Standing.SINGLETON
    assert c.member.raft.current_term == 0


def test_a_member_that_is_closed_takes_nobody_in_who_would_never_be_answered() -> None:
    world = Wiring("a")
    a = world["a"]
    world.settle()
    a.member.close(lambda sent: NodeClosed("closed"))
    for call in (a.barrier, lambda: a.meet(a), lambda: a.propose(b"x"), lambda: a.entry(DelVoter(a.id))):
        with pytest.raises(NodeClosed):
            call()


def test_a_voter_that_lost_its_log_is_served_again_once_it_is_a_learner_and_joined_anew() -> None:
    """PROTOCOL 9: demoted by DEL_VOTER and met, it is a learner like any other, on links that were made before too."""
    world = Wiring("abc")
    world.form("abc")
    a, c = world["a"], world["c"]
    c.crash()
    c.disk, c.machine = Disk(), world.machine()
    c.start()
    world.run(1.0)
    assert a.member.links.outbound[c.id].lost
    demoted = a.entry(DelVoter(c.id))
    world.done(demoted)
    met = c.meet(a)
    world.done(met)
    world.until(lambda: a.member.is_voter(c.id) and c.member.standing is Standing.MEMBER, 3.0)


def test_a_joiner_keeps_one_meet_a_link_however_often_it_is_said() -> None:
    world = Wiring("ab")
    world.settle()
    a, b = world["a"], world["b"]
    b.meet(a)
    world.held = lambda sender, to, message: isinstance(message, AppendEntries)
    world.settle()
    joiner = next(host for host in (a, b) if host.member.standing is Standing.JOINER)
    link = next(iter(joiner.member.links.inbound.values()))
    joiner.member.link_messages(link.link, [Meet("singleton")] * 1000, world.now)
    assert len(joiner.member.meetings.kept) == 1


def test_a_leader_that_nobody_can_follow_refuses_its_removal_at_once() -> None:
    """One clear error in place of a wait for the proposal's end."""
    world = Wiring("ab")
    world.form("ab")
    a = world["a"]
    world.cut_all(a, world["b"])
    world.isolate("a")
    removal = a.entry(DelVoter(a.id))
    world.settle()
    assert isinstance(removal.error, Rejected)
    assert a.member.raft.is_leader


def test_a_snapshot_begun_before_a_reset_is_not_sent_by_the_leader_of_a_new_cluster() -> None:
    """PROTOCOL 7, 8: what was captured in one cluster never reaches another."""
    world = Wiring("a")
    a = world["a"]
    a.propose(b"x")
    world.settle()
    capture, old = a.member.capture(), a.member.cluster_id
    token = Token()
    a.member.reset(Identity(a.id, "f" * 40, a.address), token, world.now)
    world.settle()
    a.propose(b"y")
    world.settle()
    assert token.ok
    assert a.member.raft.is_leader
    assert a.member.cluster_id not in (None, old)
    assert a.member.snapshots.built(capture, 100, "old") == ["old"]
    assert a.member.snapshots.built(a.member.capture(), 100, "new") == []


def test_a_new_leader_does_not_refuse_a_change_for_voters_that_had_no_time_to_answer() -> None:
    """PROTOCOL 8: requests are queued, not failed; after a hand-over the next leader has heard one voter, not all."""
    world = Wiring("abc")
    world.form("abc")
    a, b, c = world["a"], world["b"], world["c"]
    forget = c.entry(NodeForget(a.id, 0))
    world.held = lambda sender, to, message: isinstance(message, AppendEntriesAck) and sender is not a and to is not a
    world.until(lambda: not a.member.raft.is_leader)
    world.run(0.3)
    assert {a.member.raft.leader_id} < {b.id, c.id}
    assert not forget.answered
    world.release()
    world.done(forget)
    # A voter that stays silent is none that the change could be committed with: that is said once it is known.
    other = c if b.member.raft.is_leader else b
    world.isolate(other.name)
    world.leader.member.raft.leadership.peers[other.id].heard_at = None
    change = world.leader.entry(DelVoter(world.leader.id))
    world.until(lambda: change.answered)
    assert isinstance(change.error, Rejected)


def test_a_forwarded_command_that_no_line_can_carry_with_any_term_is_refused() -> None:
    world = Wiring("abc")
    world.form("abc")
    leader = next(host for host in world.hosts.values() if host.member.raft.is_leader)
    other = next(host for host in world.hosts.values() if host is not leader)
    info = leader.member.links.inbound[other.member.node_id]
    head = b"APP " + b"a" * 40 + b":1 "
    last = leader.member.raft.log.last_index
    longest = head + b"x" * (MAX_TERMLESS_BYTES - len(head))
    leader.member.leader.on_propose(info.link, longest + b"x", world.now)
    assert leader.member.raft.log.last_index == last
    assert [type(message) for _, message in leader.member.orders.sends] == [Reject]
    leader.member.leader.on_propose(info.link, longest, world.now)
    assert leader.member.raft.log.last_index == last + 1


@pytest.mark.parametrize("by", ["count", "bytes"])
def test_a_log_that_is_not_committed_does_not_grow_without_end(by: str) -> None:
    """PROTOCOL 6.6: proposers forget what expired and propose anew, while the only voter's disk hangs."""
    limits = {"max_pending": 5} if by == "count" else {"max_pending_bytes": 5 * 80}
    world = Wiring("ab", max_voters=1, max_log_bytes=1000, **limits)
    leader, other = world["a"], world["b"]
    asked = leader.meet(other)
    world.until(lambda: asked.ok and other.member.standing is Standing.MEMBER)
    assert leader.member.raft.voters == {leader.id}
    leader.disk_held = True
    refused = 0
    for _ in range(40):
        waiting = []
        for host in (leader, other):
            for _ in range(5):
                try:
                    waiting.append(host.propose(b"x" * 30))
                except Busy:
                    refused += 1
        world.run(world.config.proposal_timeout + 1.0)
        assert all(isinstance(token.error, Expired) for token in waiting)
    assert refused > 20
    assert leader.member.counters["proposals_over_limit"] > 20
    assert leader.member.raft.uncommitted < 100
    leader.disk_held = False
    world.until(lambda: leader.member.raft.uncommitted == 0)
    done = other.propose(b"again")
    world.done(done)


@pytest.mark.parametrize("message", [SnapshotAck(7, 1, 0), TransferLeader(7)], ids=["snapshot-ack", "transfer-leader"])
def test_a_higher_term_in_a_message_beside_rafts_makes_a_follower_of_it(message: SnapshotAck | TransferLeader) -> None:
    """PROTOCOL 4: in any message."""
    world = Wiring("abc")
    world.form("abc")
    a, b = world["a"].member, world["b"].member
    assert (a.raft.role, a.raft.current_term) == (Role.LEADER, 1)
    links = a.links.outbound if isinstance(message, SnapshotAck) else a.links.inbound
    a.inbox.deliver(links[b.node_id], message)
    assert (a.raft.role, a.raft.current_term) == (Role.FOLLOWER, 7)
    world.settle()
    assert world["a"].disk.hard.current_term == 7
    world.until(lambda: any(host.member.raft.is_leader for host in world.hosts.values()))
    assert world.leader.member.raft.current_term > 7


@pytest.mark.parametrize("leads", ["a", "b"])
def test_a_singleton_that_was_invited_and_has_not_heard_of_it_yet_has_lost_nothing(leads: str) -> None:
    """Seed 2000169 of seven nodes: it was never served again by those that had dialled it too early."""
    world = Wiring("abc")
    world.form("ab")
    world.held = lambda sender, to, message: isinstance(message, Welcome)
    world["c"].meet(world["a"])
    world.until(lambda: all(world[name].member.knows(world["c"].id) for name in "ab"))
    world.run(0.5)
    assert any(isinstance(message, Hi) and message.cluster == "-" for _, _, message in world.passed)
    world.release()
    world.until(lambda: all(host.member.is_voter(world["c"].id) for host in world.hosts.values()))
    if leads == "b":
        world["a"].member.transfer(world["b"].id, world.now)
        world.until(lambda: world["b"].member.raft.is_leader)
    done = world["c"].propose(b"x")
    world.done(done)
    assert not any(host.member.neighbours.lost_learners for host in world.hosts.values())


def test_a_learner_that_lost_its_log_is_not_served_before_its_next_join() -> None:
    """PROTOCOL 9."""
    world = Wiring("abc", max_voters=2)
    world.form("ab")
    a, c = world["a"], world["c"]
    asked = c.meet(a)
    world.until(lambda: asked.answered and c.member.standing is Standing.MEMBER)
    world.run(1.0)
    c.crash()
    c.disk = Disk()
    c.start()
    world.until(lambda: c.id in a.member.neighbours.lost_learners)
    assert not a.member.is_served(a.member.links.outbound[c.id])
    world.passed.clear()
    world.run(2.0)
    assert not any(to == "c" and isinstance(message, AppendEntries) for _, to, message in world.passed)
    asked = c.meet(a)
    world.until(lambda: asked.answered and c.member.standing is Standing.MEMBER)
    assert asked.ok
    done = c.propose(b"x")
    world.done(done)


def test_a_silent_voter_is_replaced_also_where_there_is_room_for_more() -> None:
    """PROTOCOL 8: first the learner is promoted, then the silent voter is taken out; when it is back it votes again."""
    world = Wiring("abcd", replace_after=3.0)
    world.form("abc")
    a, c, d = world["a"], world["c"], world["d"]
    world.isolate("c")
    world.run(4.0)
    assert c.id in a.member.raft.voters  # there is nobody to take its place
    asked = d.meet(a)
    world.until(lambda: asked.answered)
    world.until(lambda: a.member.state.voters() == {a.id, world["b"].id, d.id})
    assert a.member.is_voter(d.id)
    world.heal()
    world.until(lambda: a.member.state.voters() == {host.id for host in world.hosts.values()})


def test_a_leader_that_has_applied_nothing_yet_takes_the_proposals_of_members() -> None:
    """It is sent once in a term: dropped, its caller would wait in vain (PROTOCOL 6.2)."""
    world = Wiring("abc")
    world.form("abc")
    for host in world.hosts.values():
        host.crash()
    for host in world.hosts.values():
        host.start()
    world.held = lambda sender, to, message: isinstance(message, AppendEntriesAck)
    world.until(lambda: any(host.member.raft.is_leader for host in world.hosts.values()))
    leader = world.leader
    assert leader.member.raft.last_applied == 0
    other = next(host for host in world.hosts.values() if host is not leader)
    done = other.propose(b"x")
    world.until(lambda: any(isinstance(message, Propose) for _, to, message in world.passed if to == leader.name))
    world.release()
    world.done(done)


def test_a_joiner_that_gave_up_and_joins_again_has_lost_nothing() -> None:
    """PROTOCOL 3, seed 7000181 of three nodes: it drops what it took, and the leader took that for a lost log."""
    world = Wiring("abcd")
    world.form("abc")
    a, b, c, d = (world[name] for name in "abcd")
    leadership = a.member.raft.leadership
    assert leadership is not None
    b.disk_held = c.disk_held = True  # no NODE_JOIN is committed meanwhile
    d.meet(a)
    world.until(lambda: d.id in leadership.peers and leadership.peers[d.id].match_index > 0)
    world.part("a", "d")
    world.until(lambda: d.member.standing is Standing.SINGLETON)
    d.meet(b)
    world.until(lambda: d.member.standing is Standing.JOINER)
    world.heal()
    world.until(lambda: leadership.peers[d.id].linked)
    world.run(0.5)
    assert not any("lost entries" in text for text in a.said)
    assert leadership.peers[d.id].match_index > 0
    b.disk_held = c.disk_held = False
    done = d.propose(b"x")
    world.done(done)


def test_a_primary_that_was_told_that_it_is_forgotten_can_be_started_again() -> None:
    """PROTOCOL 8, seed 8000455 of seven nodes: its own state, as far as it got, still has it as others' primary."""
    world = Wiring("abc")
    world.form("abc")
    a, b, c = world["a"], world["b"], world["c"]

    def done_by_a(entry: object) -> None:
        token = a.entry(entry)
        world.done(token)

    done_by_a(SetReplicaOf(b.id, b.shard, 0, c.id, c.shard, 0))
    world.run(0.5)
    world.isolate("c")
    done_by_a(SetReplicaOf(b.id, c.shard, a.member.state.shard_epoch(c.shard), None, b.shard, 0))
    done_by_a(NodeForget(c.id, a.member.state.shard_epoch(c.shard)))
    world.heal()
    world.until(lambda: c.member.standing is Standing.REMOVED)
    world.settle()
    c.crash()
    c.start()
    assert c.member.standing is Standing.REMOVED
    assert c.member.state.nodes[b.id].primary_id == c.id
    c.member.reset(Identity(c.id, "5" * 40, c.address), Token(), world.now)
    world.settle()
    asked = c.meet(a)
    world.done(asked)


def test_a_lost_log_is_no_longer_held_against_who_was_forgotten_and_joined_below_snapshots() -> None:
    """Seed 7000005 of five nodes: neither entry was ever applied there, and as the leader it never served the node."""
    world = Wiring("abcd", trim_keep=0, trim_keep_time=0.0)
    world.form("abcd")
    a, b, c = world["a"], world["b"], world["c"]
    c.crash()
    c.disk, c.machine = Disk(), world.machine()
    c.start()
    world.until(lambda: c.id in b.member.raft.without_log)

    def unseen_by_b(what: Callable[[], Token]) -> None:
        """What b gets as a snapshot, whole."""
        b.member.caught_up_by = ""
        world.isolate("b")
        done = what()
        world.done(done)
        world.run(1.5)
        a.member.raft.log.trim_to(a.member.raft.last_applied)
        world.heal()
        world.until(lambda: b.member.caught_up_by == "snapshot")

    unseen_by_b(lambda: a.entry(NodeForget(c.id, 0)))
    assert c.id not in b.member.state.nodes
    unseen_by_b(lambda: c.meet(a))
    assert c.id in b.member.state.nodes
    world.until(lambda: b.member.is_voter(c.id))
    a.member.transfer(b.id, world.now)
    world.until(lambda: b.member.raft.is_leader)
    done = c.propose(b"x")
    world.done(done)


def test_raft_hears_of_a_voter_that_lost_its_log() -> None:
    """PROTOCOL 9 **(stricter)**: what it acknowledged before is on no disk any more, and counts no more."""
    world = Wiring("abc")
    world.form("abc")
    a, c = world["a"], world["c"]
    leadership = a.member.raft.leadership
    assert leadership is not None
    assert leadership.peers[c.id].match_index > 0
    c.crash()
    c.disk = Disk()
    c.start()
    world.until(lambda: leadership.peers[c.id].lost_log)
    assert f"the voter {c.id} has lost its log and its votes: forget it" in a.said
    world.isolate("b")  # with a voter that lost its log a leader has no majority
    world.until(lambda: not a.member.raft.is_leader)


@pytest.mark.parametrize("before", ["rewrite", "reset"])
def test_a_joiner_says_so_only_once_that_is_durable(before: str) -> None:
    """PROTOCOL 8: also where an earlier job of its disk ends in between."""
    world = Wiring("ab")
    world.settle()
    a, b = world["a"], world["b"]
    if before == "rewrite":
        b.disk_held = True
        earlier = b.entry(SlotChange(None, 0, b.id, 0, ((0, 9),)))
    else:
        founded, earlier = b.propose(b"x"), Token()
        world.until(lambda: founded.answered)
        b.disk_held = True
        b.member.reset(Identity(b.id, "f" * 40, b.address), earlier, world.now)
        world.settle()
    a.meet(b)
    world.until(lambda: b.member.standing is Standing.JOINER)
    world.settle()
    assert len(b.jobs) == 2
    b.do_job()
    world.settle()
    assert earlier.ok
    assert not any(isinstance(message, AddMe) for _, _, message in world.passed)
    b.do_job()
    assert b.disk.image.joining
    world.settle()
    assert any(isinstance(message, AddMe) for _, _, message in world.passed)


def test_a_node_of_another_cluster_is_not_linked_also_where_its_id_is_a_members() -> None:
    """PROTOCOL 9 **(stricter)**: where two ids differ the link is closed and reported, and nothing on it handled."""
    world = Wiring("ab")
    world.form("ab")
    a, b = world["a"], world["b"]
    b.crash()
    b.disk = Disk()
    world.isolate("b")
    b.start()
    alone = b.propose(b"its own")
    world.done(alone)
    assert a.member.cluster_id != b.member.cluster_id
    world.passed.clear()
    world.heal()
    world.run(3.0)
    assert any("it is of another cluster" in text for text in b.said)
    assert world.passed
    assert {type(message) for _, _, message in world.passed} <= {Hello, Hi}
    assert (b.member.raft.current_term, b.machine.applied) == (1, [b"its own"])
    # And where the other one does not close it.
    a.member.link_opened(999, b.id, b.address.ip, a.address.ip, world.now)
    a.member.link_messages(999, [Hi(b.id, b.member.address_text, b.member.cluster_id)], world.now)
    assert 999 in dict(a.member.orders.closes)
    assert b.id not in a.member.links.outbound
    assert any("it is of another cluster" in text for _, text in a.member.orders.log)
