"""What a review of the core against PROTOCOL.md found: one test for each bug, named after what went wrong."""

from __future__ import annotations

import pytest
from raft_steps import acks, follower, led, pre_candidate
from raft_world import World

from raftfast.consensus import Installed, Pending, Proposal, Standing
from raftfast.errors import InvariantViolation
from raftfast.messages import AppendEntries, AppendEntriesAck, PreVoteRequest, Role, TimeoutNow, Vote, VoteRequest
from raftfast.records import HardState


def _votes_asked(world: World, sender: str) -> list[VoteRequest]:
    return [f.message for f in world.bag if f.sender == sender and isinstance(f.message, VoteRequest)]


def test_a_link_that_comes_up_brings_no_vote_request_before_the_own_vote_is_durable(log_class: type) -> None:
    """PROTOCOL 4: persist both, *then* send VOTE_REQ; a HI in between must not let it out."""
    world = World(log_class, 3)
    world.cut("1", "3")
    world.nodes["1"].disk.slow = True
    world.campaign("1")
    world.stabilize()
    assert world["1"].role is Role.CANDIDATE
    world.mend("1", "3")  # the world itself raises Broken where the request leaves too early
    assert _votes_asked(world, "1") == []
    world.nodes["1"].disk.slow = False
    world.store("1")
    assert {f.to for f in world.bag if isinstance(f.message, VoteRequest)} == {"2", "3"}


def test_an_acknowledgement_owed_in_an_earlier_term_is_not_sent_in_a_new_one(log_class: type) -> None:
    """PROTOCOL 5.3: an answer whose term has passed is dropped. The same leader, elected again, must not get it."""
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,), (b"1 NOOP",), 1), 0.1, 7)
    first = raft.take()
    raft.receive("2", AppendEntries("2", 2, 1, 1, 0, (), (), 2), 0.2, 7)
    second = raft.take()
    assert second.hard_state == HardState(2, None)
    raft.stored(first.ticket, 0.3)
    assert acks(raft.take()) == []  # term 2 is not durable: nothing may speak of it
    raft.stored(second.ticket, 0.4)
    assert acks(raft.take()) == [AppendEntriesAck(2, True, 1, 0, 2)]


def lost_log_world(log_class: type) -> World:
    """Node 1 leads 1, 2 and 3 with a disk that hangs; 3 is cut off; 2 acknowledged entry 2 and then lost its disk.

    A read was asked for, and its round is answered by nobody but by 2 as it comes back, 800 ms later.
    """
    world = World(log_class, 3)
    world.elect("1")
    world.isolate("3")
    world.nodes["1"].disk.slow = True
    assert world.propose("1", "a") == 2
    world.stabilize()
    world.crash("2")
    world.put("2", voters=["1", "2", "3"])
    world["1"].barrier("token", world.now)
    world.turn(world.nodes["1"])
    world.pass_time(800, only=["1"])
    world.boot("2")
    world.stabilize()
    assert world["1"].leadership is not None
    assert world["1"].leadership.peers["2"].lost_log
    return world


def test_the_copy_of_a_member_that_lost_its_log_counts_for_no_commit(log_class: type) -> None:
    """PROTOCOL 5.3: it is not served; what it once acknowledged is not on its disk any more."""
    world = lost_log_world(log_class)
    world.store("1")
    assert world["1"].durable_index == 2
    assert world["1"].commit_index == 1  # the leader has the only copy


def test_the_answer_of_a_member_that_lost_its_log_confirms_no_read(log_class: type) -> None:
    """What it answered in this term is as lost as its log."""
    world = lost_log_world(log_class)
    assert not [line for line in world.trace if "token may be served" in line]


def test_the_answer_of_a_member_that_lost_its_log_keeps_no_leader(log_class: type) -> None:
    """A leader without answers of a majority that it can count on steps down after T."""
    world = lost_log_world(log_class)
    world.store("1")  # its own disk is no reason
    world.pass_time(300, only=["1"])
    assert not world["1"].is_leader


def test_a_snapshot_that_keeps_a_tail_taken_in_one_turn_with_a_cut_below_it(log_class: type) -> None:
    """The file still holds other lines behind the snapshot: they must go, and a cut below S is no cut at all."""
    log = log_class(0, 0)
    log.extend([1] * 6, [b"1 APP - old"] * 6)
    raft = follower(log_class, log=log)
    lines = (b"2 APP - new",) * 4
    raft.receive("2", AppendEntries("2", 2, 2, 1, 0, (2,) * 4, lines, 1), 0.1, 7)
    raft.install(4, 2, "123", 0.1, "2", 7)
    update = raft.take()
    assert update.snapshot == Installed(4, 2, None)
    assert update.truncate_from is None
    assert (update.store_from, update.store_to) == (5, 7)
    raft.stored(update.ticket, 0.2)
    assert raft.durable_index == 6
    assert acks(raft.take()) == [AppendEntriesAck(2, True, 6, 0, 1)]


@pytest.mark.parametrize("prev", [3, 5])
def test_another_term_at_the_boundary_stops_the_node_also_where_entries_end_there(log_class: type, prev: int) -> None:
    """PROTOCOL 5.1: a mismatch at or below the commit index, at the boundary or in an entry, is a violation."""
    raft = follower(log_class, log=log_class(5, 2), hard_state=HardState(4, None))
    count = 5 - prev
    message = AppendEntries("2", 4, prev, 1 if count else 3, 0, (3,) * count, (b"3 APP - x",) * count, 1)
    with pytest.raises(InvariantViolation, match="boundary 5"):
        raft.receive("2", message, 0.1, 7)


def test_entries_that_end_at_the_boundary_with_its_term_are_a_success(log_class: type) -> None:
    raft = follower(log_class, log=log_class(5, 2), hard_state=HardState(4, None))
    raft.receive("2", AppendEntries("2", 4, 3, 1, 0, (2, 2), (b"2 APP - x",) * 2, 1), 0.1, 7)
    assert acks(raft.take()) == [AppendEntriesAck(4, True, 5, 0, 1)]


def test_asking_for_a_transfer_again_and_again_does_not_hold_back_proposals_for_ever(log_class: type) -> None:
    """PROTOCOL 4: the leader goes on if no new leader appears within one election timeout."""
    world = World(log_class, 3)
    world.elect("1")
    assert world["1"].transfer_to("2", world.now) == "2"
    asked = 0
    while not world["1"].accepts_proposals and asked < 20:  # 100 ms each; no election timeout is longer than 2 s
        world.pass_time(100)
        world.bag = [flight for flight in world.bag if not isinstance(flight.message, TimeoutNow)]
        world.stabilize()
        assert world["1"].is_leader
        if not world["1"].accepts_proposals:
            assert world["1"].transfer_to(None, world.now) == "2"
            asked += 1
    assert 0 < asked < 20


def pending_of(*wanted: tuple[bytes, float]) -> tuple[Pending, list[Proposal]]:
    pending = Pending()
    proposals = [Proposal(key, key, None, deadline) for key, deadline in wanted]
    for proposal in proposals:
        pending.add(proposal)
    return pending, proposals


def test_a_younger_proposal_of_the_same_entry_does_not_keep_others_from_expiring() -> None:
    """PROTOCOL 6.1: expired after 3T; no waiter is ever left hanging."""
    pending, made = pending_of((b"same", 1.0), (b"other", 2.0), (b"same", 3.0))
    assert pending.pop(b"same") is made[0]
    assert pending.expired(2.5) == [made[1]]
    assert pending.expired(3.5) == [made[2]]
    assert len(pending) == pending.nbytes == 0


def test_discarding_the_oldest_of_an_entry_leaves_the_order_right_too() -> None:
    pending, made = pending_of((b"same", 1.0), (b"other", 2.0), (b"same", 3.0))
    assert pending.discard(made[0])
    assert pending.expired(2.5) == [made[1]]


def test_proposals_are_sent_again_in_the_order_in_which_they_were_made() -> None:
    """PROTOCOL 6.2: "in their order", also where two have the same entry: add, take away, add again."""
    pending, made = pending_of((b"add", 1.0), (b"take away", 1.0), (b"add", 1.0))
    assert list(pending) == made
    assert pending.drain() == made
    assert list(pending) == []


def test_a_slow_disk_deposes_nobody_where_the_others_could_elect_nobody(log_class: type) -> None:
    """PROTOCOL 10: "though enough other voters answer"; alone, or two of two, a leader can only wait for its disk."""
    for count in (1, 2):
        world = World(log_class, count)
        world.campaign("1")
        world.stabilize()
        world.nodes["1"].disk.slow = True
        world.propose("1", "a")
        world.pass_time(2500, deliver=True)
        assert world["1"].is_leader, count
        assert world["1"].commit_index == 1
        world.store("1")
        assert world["1"].commit_index == 2


def test_a_leader_that_was_taken_out_fails_the_reads_that_wait(log_class: type) -> None:
    """PROTOCOL 5.6: who is handing over answers READ_INDEX_NO."""
    world = World(log_class)
    lines = [b"1 APP - a", b"1 DEL_VOTER 1"]
    world.put("1", voters="123", members="123", lines=lines)
    world.put("2", voters="123", members="123", lines=lines)
    world.put("3", voters="123", members="123", lines=lines)
    for number in world.nodes:
        world.boot(number)
    world.campaign("1")
    for _ in range(2):
        for number in ("2", "3"):
            world.deliver("1", number)
            world.deliver(number, "1")
    assert world["1"].is_leader
    assert world["1"].commit_index == 0
    world["1"].barrier("token", world.now)
    world.deliver("1", "2")
    world.deliver("1", "3")
    world.deliver("2", "1")
    world.deliver("3", "1")
    assert world["1"].commit_index == 3
    assert [line for line in world.trace if "token" in line] == ["1: read token fails"]


def test_the_old_leader_that_joins_again_is_not_taken_for_silent_since_the_election(log_class: type) -> None:
    """PROTOCOL 4 and 5.3: its last-ack time counts at the election; a NODE_JOIN that is applied begins anew."""
    world = World(log_class, 3)
    world.elect("1")
    world.pass_time(200, deliver=True)
    world.crash("1")
    world.pass_time(1050)
    world.elect("2")
    peers = world["2"].leadership.peers  # type: ignore[union-attr]
    assert world.now - peers["1"].silent_since >= 1.0
    world["2"].restart_progress("1", world.now)
    assert peers["1"].silent_since == world.now


def test_after_a_reset_timeout_now_is_obeyed_in_a_term_in_which_it_was_before(log_class: type) -> None:
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), 1), 0.1, 7)
    raft.receive("2", TimeoutNow(1), 0.1, 7)
    assert raft.role is Role.CANDIDATE
    raft.reset(Standing.JOINER, 0, 0.2)
    lines = tuple(b"1 ADD_VOTER %d" % number for number in (1, 2, 3))
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,) * 3, lines, 1), 0.3, 8)
    raft.join(0.3)
    raft.set_members("123", 0.3)
    raft.receive("2", TimeoutNow(1), 0.4, 8)
    assert raft.role is Role.CANDIDATE
    assert raft.current_term == 2


def test_a_stale_snapshot_is_answered_with_what_is_committed_and_durable(log_class: type) -> None:
    """PROTOCOL 7: success with min(commit index, durable index), and not with the snapshot's index."""
    log = log_class(0, 0)
    log.extend([1] * 6, [b"1 APP - x"] * 6)
    raft = follower(log_class, log=log)
    raft.receive("2", AppendEntries("2", 1, 5, 1, 5, (), (), 1), 0.1, 7)
    raft.receive("3", AppendEntries("3", 2, 0, 0, 0, (), (), 1), 0.2, 8)
    raft.stored(raft.take().ticket, 0.2)
    raft.take()
    assert raft.verified_index == 0
    assert raft.hears_leader("3", "3", 2, 0.3, 8)
    assert raft.snapshot_is_stale(3)
    raft.answer_snapshot("3", 3, 0.3, 8)
    assert acks(raft.take()) == [AppendEntriesAck(2, True, 5, 0, 1)]


def test_while_a_write_takes_long_further_entries_are_answered_with_what_is_durable_so_far(log_class: type) -> None:
    """PROTOCOL 5.2: after T/4 a slow disk is seen as lag and not as a dead link."""
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,), (b"1 NOOP",), 1), 0.1, 7)
    raft.stored(raft.take().ticket, 0.1)
    assert [ack.index for ack in acks(raft.take())] == [1]
    raft.receive("2", AppendEntries("2", 1, 1, 1, 0, (1,), (b"1 APP - a",), 1), 0.2, 7)
    first = raft.take()
    assert acks(first) == []
    raft.receive("2", AppendEntries("2", 1, 2, 1, 0, (1,), (b"1 APP - b",), 1), 0.4, 7)
    assert acks(raft.take()) == []  # not that long yet
    raft.receive("2", AppendEntries("2", 1, 3, 1, 0, (1,), (b"1 APP - c",), 2), 0.5, 7)
    third = raft.take()
    assert acks(third) == [AppendEntriesAck(1, True, 1, 0, 2)]
    raft.stored(third.ticket, 0.6)
    assert acks(raft.take()) == [AppendEntriesAck(1, True, 4, 0, 2)]


def test_a_slow_disk_lets_nothing_out_of_a_term_that_is_not_durable(log_class: type) -> None:
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 2, 0, 0, 0, (1,), (b"1 NOOP",), 1), 0.1, 7)
    raft.take()
    raft.receive("2", AppendEntries("2", 2, 1, 1, 0, (1,), (b"1 APP - a",), 1), 0.5, 7)
    raft.receive("2", AppendEntries("2", 2, 2, 1, 0, (), (), 1), 0.5, 7)
    assert raft.take().send == []


def test_the_tail_of_a_snapshot_is_kept_while_it_is_being_written(log_class: type) -> None:
    """PROTOCOL 7, and consul#9609: else a state that takes longer to write than the tail covers is sent for ever."""
    world = World(log_class, 3, trim_keep=2, trim_keep_time=0.0)
    world.messages_shown = False
    world.elect("1")
    world.isolate("3")
    for i in range(20):
        world.propose("1", f"a{i}")
        world.pass_time(10, ["1", "2"], deliver=True)
    world.pass_time(1100, ["1", "2"], deliver=True)  # 3 is not live any more: nothing is kept for it
    assert world["1"].log.boundary_index > 10
    world.mend("1", "3")
    world.pass_time(300, deliver=True)
    assert any("3 needs a snapshot" in line for line in world.trace)
    written = world["1"].last_applied
    for i in range(20):  # meanwhile
        world.propose("1", f"b{i}")
        world.pass_time(100, deliver=True)
    assert world["1"].log.boundary_index <= written
    world.unlink("1", "3")  # the link breaks, and comes back
    world.link("1", "3")
    world.propose("1", "c")
    world.pass_time(100, deliver=True)
    assert world["1"].log.boundary_index <= written
    world.snapshot("1", "3")
    world.pass_time(300, deliver=True)
    assert world["3"].commit_index == world["1"].commit_index
    for i in range(20):
        world.propose("1", f"d{i}")
        world.pass_time(100, deliver=True)
    assert world["1"].log.boundary_index > written  # and then no longer


def test_a_pre_candidate_still_owes_its_answer_to_the_leader_of_its_term(log_class: type) -> None:
    """PROTOCOL 5.3: only an answer whose term has passed or whose link is gone is dropped.

    Found by the simulator too: a leader that waits for its first answer on a link sends nothing more until it comes.
    """
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,), (b"1 NOOP",), 1), 0.1, 7)
    ticket = raft.take().ticket
    for tenth in range(2, 20):
        raft.tick(tenth / 10)
    assert raft.role is Role.PRE_CANDIDATE
    raft.take()
    raft.stored(ticket, 2.0)
    assert acks(raft.take()) == [AppendEntriesAck(1, True, 1, 0, 1)]


def test_an_install_that_outlives_the_election_timeout_is_answered_in_its_term(log_class: type) -> None:
    """Else the leader waits for ever: it sends nothing but what the snapshot's answer lets it send."""
    raft = pre_candidate(log_class)
    raft.install(9, 1, "123", 2.0, "2", 7)
    update = raft.take()
    raft.stored(update.ticket, 2.0)
    assert acks(raft.take()) == [AppendEntriesAck(1, True, 9, 0, 1)]


def test_two_leaders_in_one_term_are_seen_also_where_we_look_for_another(log_class: type) -> None:
    """PROTOCOL 5.1: an invariant violation: logged as critical and refused."""
    raft = pre_candidate(log_class)
    raft.receive("3", AppendEntries("3", 1, 0, 0, 0, (), (), 1), 2.0, 8)
    update = raft.take()
    assert update.critical == ["two leaders in term 1: 2 and 3"]
    assert acks(update) == []
    assert raft.leader_id is None


def test_who_led_before_our_own_last_term_is_not_silent_since_then(log_class: type) -> None:
    """A new leader took the time at which it had heard an earlier leader last, though it had led itself since then: a
    voter that was down for a moment was reported as failed, and replaced."""
    world = led(log_class)
    world["1"].transfer_to("2", world.now)
    world.turn(world.nodes["1"])
    world.stabilize()
    assert world.leader() == "2"
    world.pass_time(5000, deliver=True)
    world.isolate("2")
    world.cut("1", "3")
    world.pass_time(1100)
    assert world.leader() is None
    world.mend("2", "3")
    world.elect("2")
    leadership = world["2"].leadership
    assert leadership is not None
    assert world.now - leadership.peers["1"].silent_since < 2.0


def test_a_joiner_grants_no_vote_before_its_log_reaches_what_was_committed_when_it_came(log_class: type) -> None:
    """PROTOCOL 4: up to there it reads history, and may be a voter by an earlier life whose entries it has lost."""
    raft = follower(log_class)
    raft.reset(Standing.JOINER, 0, 0.1)
    raft.stored(raft.take().ticket, 0.1)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 3, (1, 1), (b"1 NODE_JOIN 1 x", b"1 NOOP"), 1), 0.2, 7)
    raft.set_members("123", 0.2)
    raft.stored(raft.take().ticket, 0.2)
    raft.receive("3", VoteRequest("3", 2, 9, 1, True), 0.3, 8)
    assert Vote(1, False) in [send.message for send in raft.take().send]
    raft.receive("2", AppendEntries("2", 1, 2, 1, 3, (1,), (b"1 NOOP",), 1), 0.4, 7)
    raft.stored(raft.take().ticket, 0.4)
    raft.take()
    raft.receive("3", VoteRequest("3", 2, 9, 1, True), 0.5, 8)
    update = raft.take()
    raft.stored(update.ticket, 0.5)
    assert Vote(2, True) in [send.message for send in raft.take().send]


def test_a_learner_that_a_voter_needs_stands_where_nobody_else_can_win(log_class: type) -> None:
    """Node 1 was deposed with an ADD_VOTER of 4 that no other has; 2, elected, lost its NOOP in a crash, but 4 has it;
    3 is gone for good. 1 needs 4, which refuses it, 2 needs 1, which refuses it; 4 did not stand (seed 21000057)."""
    world = World(log_class)
    world.put("1", voters="123", members="1234", terms=(1, 1), lines=[b"1 APP - a", b"1 ADD_VOTER 4"])
    world.put("2", voters="123", members="1234", lines=[b"1 APP - a"])
    world.put("4", voters="123", members="1234", lines=[b"1 APP - a", b"2 NOOP"])
    for node_id in "124":
        world.boot(node_id)
    world.pass_time(10_000, deliver=True)
    assert world.leader() in ("1", "2"), "4 is no voter: it hands over"
    assert world["4"].commit_index == world["1"].commit_index > 2
    assert world["4"].leadership is None


def test_a_learner_that_nobody_needs_does_not_stand_for_long(log_class: type) -> None:
    raft = follower(log_class, voters="23")
    raft.receive("2", PreVoteRequest("2", 2, 0, 0), 0.1, 7)
    assert not raft.may_stand, "its log is as good as ours"
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,), (b"1 NOOP",), 1), 0.2, 7)
    raft.receive("3", PreVoteRequest("3", 2, 0, 0), 0.3, 8)
    assert not raft.may_stand, "there is a leader"
    for now in (0.6, 1.0, 1.3):
        raft.tick(now)
    raft.receive("3", PreVoteRequest("3", 2, 0, 0), 1.3, 8)
    assert raft.may_stand
    raft.tick(1.4)
    assert raft.role is Role.FOLLOWER, "after an election timeout"
    for step in range(40):
        raft.tick(1.4 + 0.1 * step)
    assert not raft.may_stand
