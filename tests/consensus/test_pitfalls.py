"""Bugs that real Raft systems shipped and that a core can have: one test each, named for where the bug is on record.

Each is proved by its mutant: the bug, put back. The rest of the list concerns storage, the codec, the network and
whole nodes, and is tested there.
"""

from __future__ import annotations

import pytest
from raft_steps import append, ask, behind, led, lines, messages
from raft_world import World

from raftfast.consensus import ProgressState
from raftfast.errors import Dropped, Rejected
from raftfast.messages import AppendEntries, AppendEntriesAck, PreVote, PreVoteRequest, Role, Vote, VoteRequest

# ---------------------------------------------------------------------- votes and elections


def test_etcd_2461_vote_kept_on_step_down_within_a_term(log_class: type) -> None:
    """Also hazelcast#16643, redpanda#19, nats-server#7698, CCF#8094."""
    world = led(log_class)
    world.isolate("1")
    world.pass_time(1100, ["1"])
    assert (world["1"].role, world["1"].voted_for) == (Role.FOLLOWER, "1")
    world.heal()
    assert ask(world, "2", "1", VoteRequest("2", 1, 9, 9)) == [Vote(1, False)]
    assert world.nodes["1"].disk.hard_state == (1, "1")


def test_etcd_2461_vote_kept_when_a_candidate_hears_its_terms_leader(log_class: type) -> None:
    world = World(log_class, 3)
    world.campaign("1")
    world.deliver("1", "2")
    world.deliver("2", "1")
    ask(world, "3", "1", append((0, 0), 0, sender="3"))
    assert world["1"].voted_for == "1"


def test_openraft_2026_grants_are_a_set_of_voters_and_late_ones_change_nothing(log_class: type) -> None:
    world = World(log_class, 5)
    world.campaign("1")
    for voter in "23":
        world.deliver("1", voter)
        world.deliver(voter, "1")
    for _ in range(5):
        assert ask(world, "2", "1", Vote(1, True)) == []
    assert world["1"].role is Role.CANDIDATE
    world.stabilize()
    assert world["1"].role is Role.LEADER  # type: ignore[comparison-overlap]
    last = world["1"].log.last_index
    ask(world, "5", "1", Vote(1, True))
    assert (world["1"].role, world["1"].log.last_index) == (Role.LEADER, last)  # no second NOOP


def test_valkey_3887_term_and_self_vote_are_durable_before_the_request_leaves(log_class: type) -> None:
    """Also PySyncObj#84, PySyncObj#202, robustmq#2039. And not by asking again, nor as a link comes up."""
    world = World(log_class, 3)
    world.campaign("1")
    world.deliver("1", "2")
    world.nodes["1"].disk.slow = True
    world.deliver("2", "1")
    assert world["1"].role is Role.CANDIDATE
    world.pass_time(300, ["1"])
    world.mend("1", "3")
    assert not any(isinstance(flight.message, VoteRequest) for flight in world.bag)
    world.store("1")
    assert [type(m) for m in messages(world, "1", "2")][-1:] == [VoteRequest]


def test_canonical_raft_279_a_denied_pre_vote_tells_the_higher_term(log_class: type) -> None:
    """Also openraft#1796, hashicorp/raft#605: the reply's term is the voter's own, and the asker goes on in it."""
    world = World(log_class, 2)
    world.put("2", voters="12", term=8)
    world.boot("2")
    world.campaign("1")
    world.deliver("1", "2")
    assert messages(world, "2", "1") == [PreVote(8, False)]
    world.stabilize()
    assert (world["1"].role, world["1"].current_term) == (Role.LEADER, 9)


def test_valkey_4015_the_lease_is_not_the_randomised_timeout(log_class: type) -> None:
    world = led(log_class)
    world.nodes["2"].rng.share = 0.99
    ask(world, "1", "2", append((1, 1), 1))
    world.crash("1")
    world.pass_time(1020, ["2"])
    assert ask(world, "3", "2", VoteRequest("3", 2, 1, 1)) == [Vote(2, True)]


def test_valkey_4015_the_lease_is_looked_at_before_the_term(log_class: type) -> None:
    world = led(log_class)
    for node in "12":
        ask(world, "3", node, VoteRequest("3", 50, 9, 9))
    assert [world[node].current_term for node in "12"] == [1, 1]
    assert world["1"].is_leader


def test_hashicorp_476_a_removed_node_deposes_nobody(log_class: type) -> None:
    world = led(log_class, 4)
    world.isolate("4")
    world.enter("1", "DEL_VOTER 4")
    world.stabilize()
    world.enter("1", "NODE_FORGET 4 0")  # so that nobody tells it
    world.pass_time(3000, deliver=True)
    assert world["4"].role is not Role.LEADER
    world.heal()
    world.pass_time(3000, deliver=True)
    assert (world.leader(), world["1"].current_term) == ("1", 1)


def test_hashicorp_476_who_applied_its_removal_stands_no_more(log_class: type) -> None:
    world = led(log_class, 4)
    world.enter("1", "DEL_VOTER 4")
    world.stabilize()
    world.enter("1", "NODE_FORGET 4 0")
    world.pass_time(200, deliver=True)
    world.isolate("4")
    for _ in range(50):
        world.pass_time(100, ["4"])
        assert world["4"].role is Role.FOLLOWER


def test_valkey_4008_an_empty_log_ends_at_its_boundary(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", boundary=(9, 4))
    world.boot("2")
    assert ask(world, "1", "2", PreVoteRequest("1", 9, 8, 4)) == [PreVote(4, False)]
    assert ask(world, "3", "2", PreVoteRequest("3", 9, 9, 4)) == [PreVote(9, True)]
    world.campaign("2")
    assert messages(world, "2", "1") == [PreVoteRequest("2", 5, 9, 4)]


# ---------------------------------------------------------------------- replication and commit


def test_a_stale_tail_is_neither_acknowledged_nor_committed(log_class: type) -> None:
    """Nebula#5352, copycat#265: the last index stood for the last verified entry, in the answer and in the commit."""
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 1, 1, 1])
    world.boot("2")
    assert ask(world, "1", "2", append((2, 1), 5, term=2)) == [AppendEntriesAck(2, True, 2, 0, 1)]
    assert world["2"].commit_index == 2


def test_yugabyte_32875_a_heartbeats_answer_is_not_ahead_of_the_disk(log_class: type) -> None:
    world = led(log_class, 2)
    world.nodes["2"].disk.slow = True
    world.propose("1", "x")
    world.deliver("1", "2")
    answers = ask(world, "1", "2", append((2, 1), 1))  # a heartbeat behind the entry that is being written
    assert [m.index for m in answers if isinstance(m, AppendEntriesAck)] == [1]


def test_rabbitmq_ra_637_what_is_verified_falls_with_a_truncation(log_class: type) -> None:
    world = World(log_class, 3)
    ask(world, "1", "2", append((0, 0), 0, b"1 APP - a", b"1 APP - b", b"1 APP - c"))
    answers = ask(world, "3", "2", append((1, 1), 0, b"2 APP - x", term=2, sender="3"))
    assert answers == [AppendEntriesAck(2, True, 2, 0, 1)]
    assert world["2"].durable_index == 2


def test_openraft_511_an_overlapping_append_deletes_nothing_that_matches(log_class: type) -> None:
    """Seen in PySyncObj too: what follows `prev` was cut at each message, applied entries among it."""
    world = led(log_class)
    world.propose("1", "a", "b", "c")
    world.stabilize()
    ask(world, "1", "2", append((1, 1), 4, b"1 APP - a"))
    ask(world, "1", "2", append((1, 1), 4))
    assert world["2"].log.last_index == 4
    assert not any("cuts" in text for text in world.trace)


def test_redislabs_raft_49_prev_zero_on_a_compacted_log_appends_nothing_twice(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "a", "b", "c")
    world.stabilize()
    world["2"].log.trim_to(3)
    message = append((0, 0), 4, b"1 NOOP", b"1 APP - a", b"1 APP - b", b"1 APP - c")
    ask(world, "1", "2", message)
    assert lines(world, "2") == [b"1 APP - c"]
    assert (world["2"].log.boundary_index, world["2"].log.last_index) == (3, 4)


def test_logcabin_44_an_older_terms_entry_is_not_committed_by_counting(log_class: type) -> None:
    world = World(log_class, 3, max_append_bytes=1)
    world.put("1", voters="123", terms=[1], term=2)
    world.boot("1")
    world.campaign("1")
    for _ in range(3):
        world.deliver("1", "2")
        world.deliver("2", "1")
    world.deliver("1", "2", 1)
    world.deliver("2", "1", 1)
    assert world["1"].leadership.peers["2"].match_index == 1  # type: ignore[union-attr]
    assert world["1"].commit_index == 0


def test_a_new_leader_commits_what_it_found_without_waiting_for_a_writer(log_class: type) -> None:
    world = World(log_class, 3)
    for node in "123":
        world.put(node, voters="123", terms=[1, 1])
        world.boot(node)
    world.elect("1")
    assert [world[node].commit_index for node in "123"] == [3, 3, 3]


def test_openraft_2026_an_answer_of_an_old_link_counts_for_nothing(log_class: type) -> None:
    world = led(log_class)
    world.nodes["2"].disk.slow = True
    world.propose("1", "x")
    world.deliver("1", "2")
    world.mend("1", "2")  # the connection is another one now
    world.bag = []
    world.store("2")
    assert messages(world, "2", "1") == []  # dropped, never sent elsewhere


def test_pysyncobj_166_match_and_commit_never_move_back(log_class: type) -> None:
    """Also PySyncObj#167."""
    world = led(log_class)
    world.propose("1", "x", "y")
    world.stabilize()
    progress = world["1"].leadership.peers["2"]  # type: ignore[union-attr]
    for answer in (AppendEntriesAck(1, True, 1, 0, 1), AppendEntriesAck(1, False, 0, 0, 1)):
        ask(world, "2", "1", answer)
        assert (progress.match_index, world["1"].commit_index) == (3, 3)


def test_etcd_aba_a_write_overtaken_by_a_truncation_vouches_for_nothing(log_class: type) -> None:
    world = World(log_class, 3)
    world.nodes["2"].disk.slow = True
    ask(world, "1", "2", append((0, 0), 0, b"1 APP - a", b"1 APP - b", b"1 APP - c"))
    ask(world, "3", "2", append((0, 0), 0, b"2 APP - x", b"2 APP - y", b"2 APP - z", term=2, sender="3"))
    world.store("2", 1)  # the first write is done, of entries that are gone
    assert (world["2"].durable_index, world["2"].log.last_index) == (0, 3)
    assert messages(world, "2", "3") == []
    world.store("2")
    assert world["2"].durable_index == 3


def trips_until_2_agrees(log_class: type, leader_terms: list[int], terms_of_2: list[int], most: int) -> int:
    """How many round trips a new leader, 1, needs to find where the log of 2 agrees with its own, and mend it."""
    world = World(log_class, 3)
    for node, terms in (("1", leader_terms), ("2", terms_of_2), ("3", leader_terms)):
        world.put(node, voters="123", terms=terms, term=9)
    for node in "123":
        world.boot(node)
    world.held.add(("1", "2"))
    world.elect("1")
    trips = 0
    while world["2"].log.last_term != world["1"].current_term:
        world.deliver("1", "2")
        world.deliver("2", "1")
        trips += 1
        assert trips < most
    assert lines(world, "2") == lines(world, "1")
    return trips


def test_a_long_divergence_takes_few_round_trips(log_class: type) -> None:
    trips_until_2_agrees(log_class, [1] * 10 + [2] * 50, [1] * 10 + [3] * 3000, 10)


def test_a_long_tail_of_older_terms_takes_few_round_trips(log_class: type) -> None:
    # No hint can step over it: the terms of 2 are not above those of the leader's entries in their place.
    trips_until_2_agrees(log_class, [1] * 10 + [3] * 3000, [1] * 10 + [2] * 2900, 20)


def test_only_new_entries_go_out_at_each_broadcast(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "a")
    world.propose("1", "b")
    sent = [m.lines for m in messages(world, "1", "2") if isinstance(m, AppendEntries) and m.lines]
    assert sent == [(b"1 APP - a",), (b"1 APP - b",)]


def test_hashicorp_541_the_pipeline_is_no_deeper_than_configured(log_class: type) -> None:
    world = led(log_class, max_inflight=3)
    for i in range(9):
        world.propose("1", f"x{i}")
    out = [m for m in messages(world, "1", "2") if isinstance(m, AppendEntries) and m.lines]
    assert len(out) == 3
    world.stabilize()
    assert world["2"].log.last_index == 10
    world = led(log_class, max_inflight_bytes=1)
    for i in range(9):
        world.propose("1", f"x{i}")
    assert len([m for m in messages(world, "1", "2") if isinstance(m, AppendEntries) and m.lines]) == 1


# ---------------------------------------------------------------------- compaction and snapshots


def test_hashicorp_86_a_log_without_trailing_entries_goes_on_at_its_boundary(log_class: type) -> None:
    world = led(log_class, trim_keep=0, trim_keep_time=0.2)
    world.propose("1", "a", "b")
    world.stabilize()
    world.pass_time(400, deliver=True)
    assert [len(world[node].log) for node in "123"] == [0, 0, 0]
    world.propose("1", "c")
    world.stabilize()
    assert [world[node].commit_index for node in "123"] == [4, 4, 4]
    assert not any("snapshot" in text for text in world.trace)


def test_braft_528_who_stands_at_the_boundary_needs_no_snapshot(log_class: type) -> None:
    """The entry *before* the next index counts: at the boundary its term is known."""
    world = led(log_class)
    world.crash("3")
    world.propose("1", "a", "b")
    world.stabilize()
    world["1"].log.trim_to(1)  # 3 has exactly this
    world.trace.clear()
    world.boot("3")
    world.stabilize()
    assert world["3"].log.last_index == 3
    assert not any("snapshot" in text for text in world.trace)
    world.crash("3")
    world.propose("1", "c", "d")
    world.stabilize()
    world["1"].log.trim_to(4)
    world.boot("3")
    world.stabilize()
    assert any("3 needs a snapshot" in text for text in world.trace)


def test_openraft_531_an_older_snapshot_takes_nothing_back(log_class: type) -> None:
    """Also openraft#543 and openraft#560."""
    world = behind(log_class)
    world.snapshot("1", "3")
    stale = world.under_way("1", "3")[-1].message
    world.stabilize()
    world.propose("1", "x", "y")
    world.stabilize()
    assert world["3"].last_applied == 11
    answers = ask(world, "1", "3", stale)
    assert (world["3"].last_applied, world["3"].log.last_index) == (11, 11)
    assert [m.index for m in answers if isinstance(m, AppendEntriesAck)] == [11]


def test_hashicorp_704_a_conflict_at_the_last_included_entry_takes_the_tail_too(log_class: type) -> None:
    """The tail was kept: refused, snapshot, refused, for ever. Figure 5.3, rule 7."""
    world = behind(log_class, terms=[0] * 30)
    world.snapshot("1", "3")
    world.stabilize()
    assert (world["3"].log.boundary_index, world["3"].log.last_index) == (9, 9)
    world.trace.clear()
    world.propose("1", "x")
    world.stabilize()
    assert world["3"].commit_index == 10
    assert not any("snapshot" in text for text in world.trace)


def test_consul_9609_what_follows_a_snapshot_under_way_is_not_trimmed(log_class: type) -> None:
    """Endless snapshots: the tail was gone before the state had been sent."""
    world = led(log_class, trim_keep=2, trim_keep_time=0.0)
    world.crash("3")
    world.propose("1", *"abcdefgh")
    world.pass_time(1500, deliver=True)
    world.boot("3")
    world.stabilize()
    assert any("3 needs a snapshot" in text for text in world.trace)
    world.held.add(("1", "3"))
    world.snapshot("1", "3")
    world.propose("1", *"ijklmnop")
    world.pass_time(1500, deliver=True)
    world.held.clear()
    world.stabilize()
    assert world["3"].commit_index == world["1"].commit_index == 17
    assert sum("InstallSnapshot" in text for text in world.trace) == 1


def test_willemt_118_an_install_drops_writes_under_way(log_class: type) -> None:
    """Also redisraft#48, redisraft#52, redisraft#645."""
    world = World(log_class, 3)
    for node in "12":
        world.put(node, voters="123", boundary=(20, 1), terms=[1, 1, 2, 2, 2])
        world.boot(node)
    world.nodes["3"].disk.slow = True
    ask(world, "2", "3", append((0, 0), 0, b"1 APP - p", b"1 APP - q", b"1 APP - r", sender="2"))
    world.held.add(("1", "3"))
    world.elect("1")
    world["1"].log.trim_to(25)
    world.held.clear()
    world.stabilize()
    world.snapshot("1", "3")
    world.stabilize()
    assert world["3"].log.boundary_index == 26
    world.store("3", 1)  # the three are on disk, and gone from the log
    assert world["3"].durable_index == 0
    world.store("3")
    assert (world["3"].durable_index, world["3"].log.last_index) == (26, 26)


def test_voters_are_not_lost_on_install(log_class: type) -> None:
    world = led(log_class, 4)
    world.crash("3")
    world.enter("1", "DEL_VOTER 4")
    world.stabilize()
    world["1"].log.trim_to(2)
    world.boot("3")
    world.stabilize()
    world.snapshot("1", "3")
    world.stabilize()
    assert world["3"].voters == frozenset("123")
    world.crash("3")
    world.boot("3")
    assert world["3"].voters == frozenset("123")


def test_a_snapshot_that_was_lost_is_asked_for_again(log_class: type) -> None:
    """The next index had moved past it, and nobody sent it again."""
    world = behind(log_class)
    world.snapshot("1", "3")
    progress = world["1"].leadership.peers["3"]  # type: ignore[union-attr]
    assert progress.state is ProgressState.SNAPSHOT
    world.cut("1", "3")  # it is lost with the connection
    world.mend("1", "3")
    assert world["1"].take().needs_snapshot == ["3"]
    world.stabilize()
    world.snapshot("1", "3")
    world.stabilize()
    assert world["3"].commit_index == world["1"].commit_index


# ---------------------------------------------------------------------- membership


def test_valkey_3926_no_second_voter_change_in_flight(log_class: type) -> None:
    world = led(log_class, 5)
    world.enter("1", "DEL_VOTER 5")
    with pytest.raises(Rejected):
        world.enter("1", "DEL_VOTER 4")
    with pytest.raises(Rejected):
        world["1"].propose([b"APP - x", b"DEL_VOTER 4"], world.now)
    assert world["1"].log.last_index == 2


def test_a_new_leader_does_not_forget_a_voter_change_that_it_found(log_class: type) -> None:
    """Neither its own set, nor that it must be committed before the next one."""
    world = World(log_class, 5)
    for node in "123":
        world.put(node, voters="12345", lines=[b"1 NOOP", b"1 DEL_VOTER 5"])
        world.boot(node)
    world.held |= {("1", "2"), ("1", "3"), ("1", "4")}
    world.campaign("1")
    for _ in range(2):
        for voter in "23":
            world.deliver("1", voter)
            world.deliver(voter, "1")
    assert (world["1"].role, world["1"].voters) == (Role.LEADER, frozenset("1234"))
    with pytest.raises(Rejected):
        world.enter("1", "DEL_VOTER 4")


def test_etcd_21178_a_wiped_member_is_reported_and_never_told_to_commit_what_it_lacks(log_class: type) -> None:
    """There the process panicked: "tocommit out of range"."""
    world = led(log_class)
    world.propose("1", "a", "b")
    world.stabilize()
    world.put("3", voters="123")
    world.boot("3")
    world.pass_time(300, deliver=True)
    assert (world["3"].log.last_index, world["3"].commit_index) == (0, 0)
    assert any("3 lost entries" in text for text in world.trace)
    world.propose("1", "c")
    world.deliver("1", "3")
    assert world["1"].commit_index == 3  # what it had acknowledged counts no more either


def test_a_singleton_that_restarts_takes_no_orders_and_counts_by_itself_alone(log_class: type) -> None:
    world = World(log_class, 1)
    world.tick("1")
    world.propose("1", "x")
    world.put("2", voters="2")
    world.boot("2")
    assert ask(world, "2", "1", append((0, 0), 9, b"9 APP - y", term=9, sender="2")) == []
    assert (world["1"].current_term, world["1"].log.last_index) == (1, 2)
    assert ("2", "1") not in world.links


# ---------------------------------------------------------------------- storage, clients and reads


def test_hashicorp_503_a_leader_with_a_hanging_disk_does_not_keep_its_office(log_class: type) -> None:
    """Also hashicorp/raft#612: its heartbeats went on, nobody was elected, nothing was committed."""
    world = led(log_class)
    for node in world.nodes.values():
        node.disk.slow = True
    world.propose("1", "x")
    world.pass_time(1200, deliver=True)
    assert world["1"].role is Role.FOLLOWER
    assert any("disk does not move" in text for text in world.trace)


def test_etcd_20418_a_round_from_before_a_read_does_not_confirm_it(log_class: type) -> None:
    world = led(log_class)
    world.held |= {("2", "1"), ("3", "1")}
    world.pass_time(300, deliver=True)  # answers to older rounds are under way
    world["1"].barrier("r", world.now)
    world.turn(world.nodes["1"])
    world.bag = [flight for flight in world.bag if flight.to == "1"]
    world.held.clear()
    world.stabilize()
    assert not any("read r" in text for text in world.trace)
    world.pass_time(150, deliver=True)
    assert any("read r may be served at 1" in text for text in world.trace)


def test_openraft_1747_no_read_during_a_transfer(log_class: type) -> None:
    world = led(log_class)
    world.held |= {("2", "1"), ("3", "1")}
    world["1"].barrier("before", world.now)
    world.turn(world.nodes["1"])
    world["1"].transfer_to("2", world.now)
    world["1"].barrier("meanwhile", world.now)
    world.turn(world.nodes["1"])
    world.held.clear()
    world.stabilize()
    assert not any("may be served" in text for text in world.trace)
    assert sum("fails" in text for text in world.trace) == 2


def test_restate_3135_what_was_not_appended_is_dropped_and_nothing_else_is(log_class: type) -> None:
    world = led(log_class)
    with pytest.raises(Dropped) as caught:
        world.propose("2", "x")
    assert not caught.value.may_take_effect
    world["1"].transfer_to("2", world.now)
    with pytest.raises(Dropped):
        world.propose("1", "x")
    assert [world[node].log.last_index for node in "123"] == [1, 1, 1]
