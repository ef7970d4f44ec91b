"""The rules of the dissertation's figures 3.1 (Raft) and 5.3 (InstallSnapshot), one named test each, in our words.

Where PROTOCOL.md orders something stricter than a figure the test holds the stricter form, and says so. The pieces of
a snapshot (figure 5.3, rules 2 to 4) are put together outside the core. That each test fails without its rule is shown
in `test_sentences_taken_out.py`.
"""

from __future__ import annotations

import pytest
from raft_steps import append, ask, behind, led, lines, messages
from raft_world import World

from raftfast.consensus import ProgressState
from raftfast.messages import (
    AppendEntries,
    AppendEntriesAck,
    InstallSnapshot,
    PreVoteRequest,
    Role,
    TimeoutNow,
    Vote,
    VoteRequest,
)

# ---------------------------------------------------------------------- figure 3.1, State


def test_term_and_vote_are_stable_before_a_vote_is_answered(log_class: type) -> None:
    world = World(log_class, 3)
    world.nodes["2"].disk.slow = True
    assert ask(world, "1", "2", VoteRequest("1", 1, 0, 0)) == []
    assert world["2"].voted_for == "1"
    world.crash("2")  # the write was lost, and nothing was promised
    world.boot("2")
    assert world["2"].hard_state == (0, None)
    assert ask(world, "3", "2", VoteRequest("3", 1, 0, 0)) == []
    world.store("2")
    assert messages(world, "2", "3")[-1:] == [Vote(1, True)]


def test_entries_are_stable_before_they_are_acknowledged(log_class: type) -> None:
    world = led(log_class, 2)
    world.nodes["2"].disk.slow = True
    world.propose("1", "x")
    world.deliver("1", "2")
    assert messages(world, "2", "1") == []
    assert world["1"].commit_index == 1
    world.store("2")
    assert [m.index for m in messages(world, "2", "1") if isinstance(m, AppendEntriesAck)] == [2]


def test_the_commit_index_begins_at_what_is_known_applied_and_only_grows(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "x", "y")
    world.stabilize()
    assert world["2"].commit_index == 3
    ask(world, "1", "2", append((1, 1), 1))  # an older message, with an older commit index
    assert world["2"].commit_index == 3
    world.crash("2")
    world.boot("2")
    assert (world["2"].commit_index, world["2"].last_applied, world["2"].log.last_index) == (0, 0, 3)


def test_a_new_leader_has_next_index_behind_its_last_and_match_index_zero(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "x")
    world.stabilize()
    world.crash("1")
    world.pass_time(1050, deliver=True)
    for voter in "23":
        world[voter]._deadline = world.now + 9
    world.campaign("2")
    world.deliver("2", "3")
    world.deliver("3", "2")
    world.deliver("2", "3")
    world.deliver("3", "2")
    assert world["2"].role is Role.LEADER
    progress = world["2"].leadership.peers["3"]  # type: ignore[union-attr]
    assert (progress.next_index, progress.match_index, progress.state) == (3, 0, ProgressState.PROBE)


# ---------------------------------------------------------------------- figure 3.1, AppendEntries


def test_append_1_a_lower_term_is_refused_with_ours(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1], term=5)
    world.boot("2")
    answers = ask(world, "1", "2", append((1, 1), 1, b"4 APP - x", term=4))
    assert answers == [AppendEntriesAck(5, False, 0)]
    assert (world["2"].log.last_index, world["2"].commit_index, world["2"].leader_id) == (1, 0, None)


def test_append_2_without_the_previous_entry_it_is_refused(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 2])
    world.boot("2")
    for prev in ((4, 2), (3, 1), (9, 9)):
        answers = ask(world, "1", "2", append(prev, 9, b"9 APP - x", term=9))
        assert [type(m) for m in answers] == [AppendEntriesAck]
        assert not answers[0].success  # type: ignore[attr-defined]
    assert (world["2"].log.last_index, world["2"].commit_index) == (3, 0)


def test_append_3_a_conflicting_entry_goes_with_all_that_follow(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 2, 2])
    world.boot("2")
    ask(world, "1", "2", append((1, 1), 0, b"1 APP - e2", b"3 APP - x", term=3))
    assert lines(world, "2") == [b"1 APP - e1", b"1 APP - e2", b"3 APP - x"]
    assert world.nodes["2"].disk.lines == lines(world, "2")


def test_append_3_only_a_conflict_truncates(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 1, 1])
    world.boot("2")
    ask(world, "1", "2", append((1, 1), 0, b"1 APP - e2", term=2))
    assert world["2"].log.last_index == 4
    ask(world, "1", "2", append((1, 1), 0, term=2))
    assert world["2"].log.last_index == 4


def test_append_4_entries_not_held_are_appended_once(log_class: type) -> None:
    world = World(log_class, 3)
    message = append((0, 0), 0, b"1 APP - a", b"1 APP - b")
    for _ in range(2):
        ask(world, "1", "2", message)
    assert lines(world, "2") == [b"1 APP - a", b"1 APP - b"]


def test_append_5_the_commit_index_is_the_leaders_up_to_the_last_entry_of_the_message(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 1, 1])
    world.boot("2")
    ask(world, "1", "2", append((1, 1), 9, b"1 APP - e2", term=2))
    assert world["2"].commit_index == 2  # not 4: what follows may be a stale tail
    ask(world, "1", "2", append((3, 1), 3, b"1 APP - e4", term=2))
    assert world["2"].commit_index == 3


# ---------------------------------------------------------------------- figure 3.1, RequestVote


def test_vote_1_a_lower_term_is_refused_with_ours(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", term=5)
    world.boot("2")
    assert ask(world, "1", "2", VoteRequest("1", 4, 9, 4)) == [Vote(5, False)]
    assert world["2"].voted_for is None


def test_vote_2_one_vote_a_term(log_class: type) -> None:
    world = World(log_class, 3)
    assert ask(world, "1", "2", VoteRequest("1", 1, 0, 0)) == [Vote(1, True)]
    assert ask(world, "1", "2", VoteRequest("1", 1, 0, 0)) == [Vote(1, True)]  # asked again by the same
    assert ask(world, "3", "2", VoteRequest("3", 1, 9, 9)) == [Vote(1, False)]
    world.crash("2")
    world.boot("2")
    assert ask(world, "3", "2", VoteRequest("3", 1, 9, 9)) == [Vote(1, False)]


@pytest.mark.parametrize(
    ("last", "granted"),
    [((2, 2), True), ((1, 3), True), ((3, 2), True), ((1, 2), False), ((9, 1), False), ((0, 0), False)],
)
def test_vote_2_only_for_a_log_as_up_to_date_as_ours(log_class: type, last: tuple[int, int], granted: bool) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 2])
    world.boot("2")
    assert ask(world, "1", "2", VoteRequest("1", 5, *last)) == [Vote(5, granted)]


def test_vote_2_only_for_an_up_to_date_log(log_class: type) -> None:
    test_vote_2_only_for_a_log_as_up_to_date_as_ours(log_class, (1, 2), False)
    test_vote_2_only_for_a_log_as_up_to_date_as_ours(log_class, (9, 1), False)


# ---------------------------------------------------------------------- figure 3.1, Rules for Servers


def test_all_servers_what_is_committed_is_applied_in_order(log_class: type) -> None:
    world = led(log_class)
    world.nodes["2"].applies = False
    world.propose("1", "a", "b", "c")
    world.stabilize()
    assert (world["2"].commit_index, world["2"].last_applied) == (4, 1)
    world.nodes["2"].applies = True
    world.turn(world.nodes["2"])
    assert world["2"].last_applied == 4
    assert list(world.nodes["2"].state.lines) == [1, 2, 3, 4]


def test_all_servers_a_higher_term_makes_a_follower_of_it(log_class: type) -> None:
    for message in (
        AppendEntriesAck(7, False, 0),
        append((0, 0), 0, term=7, sender="2"),
        Vote(7, False),
        TimeoutNow(7),
    ):
        world = led(log_class)
        ask(world, "2", "1", message)
        assert (world["1"].role, world["1"].current_term) == (Role.FOLLOWER, 7)
        assert world["1"].voted_for is None
        assert world.nodes["1"].disk.hard_state == (7, None)


def test_followers_who_hears_no_leader_for_an_election_timeout_stands(log_class: type) -> None:
    world = World(log_class, 3)  # node 1's timeout is 1.1 s, and a pre-vote goes ahead of it (dissertation 9.6)
    world.pass_time(1090, ["1"])
    assert world["1"].role is Role.FOLLOWER
    world.pass_time(20, ["1"])
    assert world["1"].role is Role.PRE_CANDIDATE  # type: ignore[comparison-overlap]
    assert world["1"].current_term == 0
    assert messages(world, "1", "2") == [PreVoteRequest("1", 1, 0, 0)]


def test_followers_appends_of_the_leader_and_granted_votes_restart_the_timeout(log_class: type) -> None:
    world = World(log_class, 3)
    world.pass_time(800, ["1"])
    ask(world, "2", "1", append((0, 0), 0, sender="2"))
    world.pass_time(800, ["1"])
    assert world["1"].role is Role.FOLLOWER
    world = World(log_class, 3)
    world.pass_time(800, ["1"])
    assert ask(world, "2", "1", VoteRequest("2", 1, 0, 0)) == [Vote(1, True)]
    world.pass_time(800, ["1"])
    assert world["1"].role is Role.FOLLOWER


def test_followers_a_refused_vote_does_not_restart_the_timeout(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("1", voters="123", terms=[5])
    world.boot("1")
    world.pass_time(800, ["1"])
    assert ask(world, "2", "1", VoteRequest("2", 5, 0, 0)) == [Vote(5, False)]
    world.pass_time(400, ["1"])
    assert world["1"].role is Role.PRE_CANDIDATE


def test_candidates_a_new_term_a_vote_for_itself_and_requests_to_all(log_class: type) -> None:
    world = World(log_class, 3)
    world.campaign("1")
    world.deliver("1", "2")
    world.deliver("2", "1")
    assert (world["1"].role, world["1"].hard_state) == (Role.CANDIDATE, (1, "1"))
    assert world.nodes["1"].disk.hard_state == (1, "1")
    for voter in "23":
        assert messages(world, "1", voter)[-1] == VoteRequest("1", 1, 0, 0)


def test_candidates_a_majority_makes_a_leader(log_class: type) -> None:
    world = World(log_class, 5)
    world.campaign("1")
    for voter in "23":
        world.deliver("1", voter)
        world.deliver(voter, "1")
    assert world["1"].role is Role.CANDIDATE
    world.deliver("1", "2")
    world.deliver("2", "1")
    assert world["1"].role is Role.CANDIDATE  # two of five
    world.deliver("1", "3")
    world.deliver("3", "1")
    assert world["1"].role is Role.LEADER  # type: ignore[comparison-overlap]


def test_candidates_an_append_of_the_terms_leader_makes_a_follower(log_class: type) -> None:
    world = World(log_class, 3)
    world.campaign("1")
    world.deliver("1", "2")
    world.deliver("2", "1")
    assert world["1"].role is Role.CANDIDATE
    ask(world, "3", "1", append((0, 0), 0, sender="3"))
    assert (world["1"].role, world["1"].leader_id, world["1"].voted_for) == (Role.FOLLOWER, "3", "1")


def test_candidates_a_timeout_begins_a_new_election(log_class: type) -> None:
    world = World(log_class, 3)
    world.campaign("1")
    world.deliver("1", "2")
    world.deliver("2", "1")
    world.isolate("1")
    world.pass_time(1200, ["1"])
    assert (world["1"].role, world["1"].current_term) == (Role.PRE_CANDIDATE, 1)  # pre-vote first (PROTOCOL 4)
    world.heal()
    world.stabilize()
    assert (world["1"].role, world["1"].current_term) == (Role.LEADER, 2)


def test_leaders_assert_themselves_at_once_and_in_every_idle_period(log_class: type) -> None:
    world = World(log_class, 3)
    world.campaign("1")
    for _ in range(2):
        world.deliver("1", "2")
        world.deliver("2", "1")
    assert isinstance(messages(world, "1", "3")[-1], AppendEntries)
    assert messages(world, "1", "3")[-1].lines == (b"1 NOOP",)  # type: ignore[attr-defined]
    world.stabilize()
    world.pass_time(120)
    beats = [m for m in messages(world, "1", "3") if isinstance(m, AppendEntries)]
    assert [beat.lines for beat in beats] == [()]


def test_leaders_append_commands_and_report_them_when_committed(log_class: type) -> None:
    world = led(log_class)
    assert world.propose("1", "a", "b") == 2
    assert world["1"].log.last_index == 3
    assert world["1"].commit_index == 1
    world.stabilize()
    assert [world[node].commit_index for node in "123"] == [3, 3, 3]


def test_leaders_send_what_stands_at_next_index_and_after(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "a", "b")
    sent = messages(world, "1", "2")
    assert sent == [AppendEntries("1", 1, 1, 1, 1, (1, 1), (b"1 APP - a", b"1 APP - b"), 3)]


def test_leaders_a_success_moves_match_and_next(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "a", "b")
    world.deliver("1", "2")
    world.deliver("2", "1")
    progress = world["1"].leadership.peers["2"]  # type: ignore[union-attr]
    assert (progress.match_index, progress.next_index) == (3, 4)


def test_leaders_a_mismatch_moves_next_back_and_is_tried_again(log_class: type) -> None:
    world = World(log_class, 3)
    for node in "13":
        world.put(node, voters="123", terms=[1, 1, 2, 2])
        world.boot(node)
    world.elect("1")
    assert lines(world, "2") == lines(world, "1")
    assert world["2"].log.last_index == 5


def test_leaders_commit_what_a_majority_has(log_class: type) -> None:
    world = led(log_class, 5)
    world.propose("1", "x")
    world.deliver("1", "2")
    world.deliver("2", "1")
    assert world["1"].commit_index == 1  # two of five
    world.deliver("1", "3")
    world.deliver("3", "1")
    assert world["1"].commit_index == 2


def test_leaders_commit_by_counting_entries_of_their_own_term_only(log_class: type) -> None:
    world = World(log_class, 3, max_append_bytes=1)
    world.put("1", voters="123", terms=[1, 2], term=3)
    world.boot("1")
    world.campaign("1")
    for _ in range(2):
        world.deliver("1", "2")
        world.deliver("2", "1")
    world.deliver("1", "2")  # the NOOP is refused: 2 has nothing
    world.deliver("2", "1")
    for _ in range(2):
        assert world["1"].commit_index == 0
        world.deliver("1", "2", 1)
        world.deliver("2", "1", 1)
    assert world["1"].leadership.peers["2"].match_index == 2  # type: ignore[union-attr]
    assert world["1"].commit_index == 0  # two entries on a majority, none of term 4
    world.stabilize()
    assert world["1"].commit_index == 3


# ---------------------------------------------------------------------- figure 5.3, InstallSnapshot


def test_install_1_a_lower_term_is_refused(log_class: type) -> None:
    world = behind(log_class)
    world.snapshot("1", "3")
    ask(world, "2", "3", append((0, 0), 0, term=5, sender="2"))
    world.deliver("1", "3")
    assert messages(world, "3", "1")[-1] == AppendEntriesAck(5, False, 0)
    assert world["3"].log.boundary_index == 0


def test_install_5_an_older_one_than_ours_changes_nothing(log_class: type) -> None:
    world = behind(log_class)
    world.snapshot("1", "3")
    stale = world.under_way("1", "3")[-1]
    world.deliver("1", "3")
    world.stabilize()
    world.propose("1", "i", "j")
    world.stabilize()
    world.send("1", "3", stale.message)
    world.deliver("1", "3", last=True)
    assert (world["3"].log.boundary_index, world["3"].log.last_index, world["3"].last_applied) == (9, 11, 11)
    assert messages(world, "3", "1")[-1].index == 11  # type: ignore[attr-defined]


def test_install_6_what_follows_the_last_included_entry_stays(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "a", "b")
    world.propose("1", "c")
    world.deliver("1", "3")
    world.deliver("1", "2", 1)
    world.deliver("2", "1")
    assert world["1"].last_applied == 3
    world.bag = []
    world.snapshot("1", "3")
    world.deliver("1", "3")
    log = world["3"].log
    assert (log.boundary_index, log.boundary_term, log.last_index) == (3, 1, 4)
    assert world.nodes["3"].disk.lines == [b"1 APP - c"]


def test_install_7_otherwise_the_whole_log_goes(log_class: type) -> None:
    world = behind(log_class, terms=[0] * 15)
    world.snapshot("1", "3")
    world.deliver("1", "3")
    log = world["3"].log
    assert (log.boundary_index, log.boundary_term, log.last_index) == (9, 1, 9)
    assert world.nodes["3"].disk.lines == []


def test_install_8_state_and_configuration_are_the_snapshots(log_class: type) -> None:
    world = led(log_class, 4)
    world.crash("3")
    world.enter("1", "DEL_VOTER 4")
    world.stabilize()
    world["1"].log.trim_to(2)
    world.boot("3")
    world.stabilize()
    assert world["3"].voters == frozenset("1234")
    world.snapshot("1", "3")
    world.deliver("1", "3")
    raft = world["3"]
    assert raft.voters == frozenset("123")
    assert (raft.last_applied, raft.commit_index, raft.log.last_index) == (2, 2, 2)
    assert world.nodes["3"].state.lines == world.nodes["1"].state.lines
    assert world.nodes["3"].disk.state.voters == frozenset("123")


def test_install_answers_only_when_all_of_it_is_stable(log_class: type) -> None:
    world = behind(log_class)
    world.bag = []
    world.nodes["3"].disk.slow = True
    world.snapshot("1", "3")
    assert isinstance(messages(world, "1", "3")[-1], InstallSnapshot)
    world.deliver("1", "3")
    assert messages(world, "3", "1") == []
    world.store("3")
    assert messages(world, "3", "1")[-1].index == 9  # type: ignore[attr-defined]
