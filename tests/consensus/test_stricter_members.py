"""Each rule of PROTOCOL 7, 8 and 10 marked **(stricter)** that the core keeps: its test, and the proof that it counts.

Storage keeps its own (11), the layer above the core those of joiners and of REMOVED (8).
"""

from __future__ import annotations

import pytest
from mutants import Mutant, expect_failure, mutant
from raft_steps import append, ask, led, lines
from raft_world import World

from raftfast.consensus import Standing
from raftfast.errors import Rejected
from raftfast.messages import Role

JOIN_4 = "NODE_JOIN 4 10.0.0.4:7004@17004 learner"

# ---------------------------------------------------------------------- PROTOCOL 7


def test_7_a_restart_begins_at_the_stored_state(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("1", voters="123", boundary=(17, 3), terms=[3, 4, 4])
    world.boot("1")
    raft = world["1"]
    assert (raft.log.boundary_index, raft.log.boundary_term, raft.log.last_index) == (17, 3, 20)
    assert (raft.commit_index, raft.last_applied, raft.durable_index) == (17, 17, 20)


# ---------------------------------------------------------------------- PROTOCOL 8


def test_8_a_founder_leads_again_in_a_new_term_only(log_class: type) -> None:
    world = World(log_class)
    world.put("1", standing=Standing.SINGLETON)
    world.boot("1")
    world["1"].found([b"NODE_JOIN 1 10.0.0.1:7001@17001 voter", b"APP - x"], world.now)
    world.turn(world.nodes["1"])
    disk = world.nodes["1"].disk
    assert (disk.hard_state, disk.lines) == (
        (1, "1"),
        [b"1 NODE_JOIN 1 10.0.0.1:7001@17001 voter", b"1 APP - x"],
    )
    assert world["1"].commit_index == 2
    world.crash("1")
    world.nodes["1"].standing = Standing.MEMBER  # what its file now says
    world.boot("1")
    world.tick("1")
    assert (world["1"].role, disk.hard_state) == (Role.LEADER, (2, "1"))
    assert lines(world, "1")[2:] == [b"2 NOOP"]


def test_8_the_voters_in_force_change_on_append(log_class: type) -> None:
    world = learner_4(log_class)
    world.enter("1", "ADD_VOTER 4")
    assert world["1"].voters == frozenset("1234")
    world.deliver("1", "2")
    assert (world["2"].voters, world["2"].commit_index) == (frozenset("1234"), 2)
    world.deliver("2", "1")
    assert world["1"].commit_index == 2  # two of three would do, two of four don't


def test_8_the_voters_in_force_roll_back_on_truncation(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", lines=[b"1 NOOP", b"1 DEL_VOTER 3", b"1 ADD_VOTER 5"])
    world.boot("2")
    assert world["2"].voters == frozenset("125")
    ask(world, "1", "2", append((2, 1), 0, b"2 NOOP", term=2))
    assert world["2"].voters == frozenset("12")
    ask(world, "3", "2", append((1, 1), 0, b"3 NOOP", term=3, sender="3"))
    assert world["2"].voters == frozenset("123")


def test_8_only_three_kinds_of_entries_change_the_voters(log_class: type) -> None:
    entries = [b"1 NODE_JOIN 4 10.0.0.4:7004@17004 learner", b"1 NODE_FORGET 3 0", b"1 NODE_FAIL 2", b"1 APP - voter"]
    world = World(log_class, 3)
    ask(world, "1", "2", append((0, 0), 0, *entries))
    assert world["2"].voters == frozenset("123")
    ask(world, "1", "2", append((4, 1), 0, b"1 NODE_JOIN 5 10.0.0.5:7005@17005 voter"))
    assert world["2"].voters == frozenset("123")  # only a founder's join is a voter's, and it comes before all others


def learner_4(log_class: type) -> World:
    """Node 1 leads 2 and 3; 4 is a learner that has caught up."""
    world = World(log_class, 3)
    world.put("4", standing=Standing.JOINER, voters="123", members="123")
    world.boot("4")
    world.elect("1")
    world.enter("1", JOIN_4)
    world.pass_time(400, deliver=True)
    assert world["4"].standing is Standing.MEMBER
    return world


def refused(world: World, entry: str) -> None:
    with pytest.raises(Rejected):
        world.enter("1", entry)


def test_8_one_voter_change_at_a_time(log_class: type) -> None:
    world = learner_4(log_class)
    world.enter("1", "ADD_VOTER 4")
    refused(world, "DEL_VOTER 3")
    world.stabilize()
    world.enter("1", "DEL_VOTER 3")


def test_8_no_voter_change_before_an_entry_of_the_own_term_is_committed(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("1", voters="123", terms=[1, 1])
    world.boot("1")
    world.held |= {("1", "2"), ("1", "3")}
    world.campaign("1")
    for _ in range(3):
        world.deliver("1", "2")
        world.deliver("2", "1")
    assert world["1"].live_members() == {"2"}  # it refused the NOOP, and was heard
    assert world["1"].commit_index == 0
    refused(world, "DEL_VOTER 3")
    world.held.clear()
    world.stabilize()
    world.enter("1", "DEL_VOTER 3")


def test_8_no_voter_change_that_could_not_be_committed_now(log_class: type) -> None:
    world = led(log_class)
    world.crash("2")
    world.pass_time(1100, deliver=True)
    refused(world, "DEL_VOTER 3")  # of 1 and 2 only 1 is heard
    world.enter("1", "DEL_VOTER 2")


def test_8_a_leader_removes_neither_itself_nor_the_last_voter(log_class: type) -> None:
    world = led(log_class)
    refused(world, "DEL_VOTER 1")
    world = World(log_class, 1)
    world.tick("1")
    refused(world, "DEL_VOTER 1")


def test_8_only_a_learner_that_has_caught_up_is_promoted(log_class: type) -> None:
    world = learner_4(log_class)
    world.cut("1", "4")
    world.propose("1", "x")
    world.pass_time(300, deliver=True)
    refused(world, "ADD_VOTER 4")
    world.mend("1", "4")
    world.pass_time(300, deliver=True)
    world.enter("1", "ADD_VOTER 4")


def test_8_a_learner_that_answers_and_is_behind_is_not_promoted(log_class: type) -> None:
    world = learner_4(log_class)
    world.nodes["4"].disk.slow = True  # heartbeats are answered with what is durable
    world.propose("1", "x")
    world.pass_time(300, deliver=True)
    assert "4" in world["1"].live_members()
    refused(world, "ADD_VOTER 4")
    world.nodes["4"].disk.slow = False
    world.store("4")
    world.pass_time(100, deliver=True)
    world.enter("1", "ADD_VOTER 4")


def test_8_a_learner_that_lacks_its_own_join_is_not_promoted(log_class: type) -> None:
    """All that was committed a heartbeat ago is not enough: it would be a voter that greets as a joiner."""
    world = World(log_class, 3, max_append_bytes=1)  # one entry a message
    world.put("4", standing=Standing.JOINER, voters="123", members="123")
    world.boot("4")
    world.elect("1")
    world.held |= {("1", "4"), ("4", "1")}
    world.enter("1", JOIN_4)
    world.stabilize()
    assert world["1"].commit_index == 2
    progress = world["1"].leadership.peers["4"]  # type: ignore[union-attr]
    world.pass_time(100)  # what it answers was sent since
    while progress.match_index < 1:
        assert world.deliver("1", "4", 1)
        assert world.deliver("4", "1", 1)
    assert progress.match_index == 1
    assert progress.acked_round > progress.begun_round
    refused(world, "ADD_VOTER 4")
    world.held.clear()
    world.pass_time(100, deliver=True)
    world.enter("1", "ADD_VOTER 4")


def test_8_a_learner_that_answers_what_was_sent_before_its_join_was_applied_is_not_promoted(log_class: type) -> None:
    """It may have the whole log, and not know that its NODE_JOIN is committed: a joiner, which may give up."""
    world = World(log_class, 3)
    world.put("4", standing=Standing.JOINER, voters="123", members="123")
    world.boot("4")
    world.elect("1")
    world.held |= {("1", "4"), ("4", "1")}
    world.enter("1", JOIN_4)
    world.stabilize()
    raft = world["1"]
    while world["4"].log.last_index < raft.log.last_index:
        world.deliver("4", "1", 1)
        assert world.deliver("1", "4", 1)
    raft.restart_progress("4", world.now)  # its NODE_JOIN is applied; then the answer comes
    world.turn(world.nodes["1"])
    assert world.deliver("4", "1", 1)
    progress = raft.leadership.peers["4"]  # type: ignore[union-attr]
    assert progress.match_index == raft.log.last_index
    refused(world, "ADD_VOTER 4")
    world.held.clear()
    world.pass_time(100, deliver=True)
    world.enter("1", "ADD_VOTER 4")


# ---------------------------------------------------------------------- PROTOCOL 10


def test_10_a_leader_whose_disk_stalls_steps_down_unless_commits_go_on(log_class: type) -> None:
    world = led(log_class)
    world.nodes["1"].disk.slow = True
    for _ in range(3):
        assert world["1"].role is Role.LEADER  # 2 and 3 commit without it
        world.propose("1", "x")
        world.pass_time(900, deliver=True)
    world.propose("1", "x")
    world.stabilize()
    world.nodes["2"].disk.slow = world.nodes["3"].disk.slow = True
    world.propose("1", "y")
    world.pass_time(900, deliver=True)
    assert world["1"].role is Role.LEADER
    world.pass_time(200, deliver=True)
    assert world["1"].role is Role.FOLLOWER  # type: ignore[comparison-overlap]


def stalled_once(log_class: type) -> World:
    """All disks hang for more than T while an entry waits: 1 has stepped down, and no commit has followed."""
    world = led(log_class)
    for node in world.nodes.values():
        node.disk.slow = True
    world.propose("1", "x")
    world.pass_time(1100, deliver=True)
    assert (world["1"].role, world["1"].disk_stalled) == (Role.FOLLOWER, True)
    return world


def test_10_it_does_not_win_an_election_until_its_disk_moves(log_class: type) -> None:
    world = stalled_once(log_class)
    for node in "23":
        world.crash(node)
    world.trace.clear()
    world.pass_time(3000, ["1"])
    assert not any("candidate" in text for text in world.trace)
    world.store("1")
    world.pass_time(3000, ["1"])
    assert any("candidate" in text for text in world.trace)


def test_10_each_such_step_down_doubles_the_limit(log_class: type) -> None:
    world = stalled_once(log_class)
    for node in "123":
        world.nodes[node].disk.slow = False
        world.store(node)
    world["2"]._deadline = world["3"]._deadline = world.now + 60
    world.bag = []
    world.pass_time(1150, ["1", "2", "3"])
    world.campaign("1")
    world.deliver("1", "2")
    world.deliver("2", "1")
    world.deliver("1", "2")
    world.deliver("1", "3")
    for node in world.nodes.values():
        node.disk.slow = True
    world.deliver("2", "1")
    world.stabilize()
    for peer in "23":  # on a new link each answers what it has durable so far
        world.mend("1", peer)
    world.pass_time(1900, deliver=True)
    assert (world["1"].role, world["1"].commit_index) == (Role.LEADER, 1)
    world.pass_time(300, deliver=True)
    assert world["1"].role is Role.FOLLOWER  # type: ignore[comparison-overlap]


# ---------------------------------------------------------------------- each rule, taken out

CASES = [
    mutant(
        "a restart takes its log as committed",
        test_7_a_restart_begins_at_the_stored_state,
        ("core", "self.commit_index = log.boundary_index", "self.commit_index = log.last_index"),
    ),
    mutant(
        "a founder leads term 0",
        test_8_a_founder_leads_again_in_a_new_term_only,
        ("raft", "        self.current_term += 1\n", ""),
    ),
    mutant(
        "a single voter goes on in its term",
        test_8_a_founder_leads_again_in_a_new_term_only,
        ("elections", "self._adopt_term(self.current_term + 1)", "self._adopt_term(self.current_term)"),
    ),
    mutant(
        "the leader's voters don't change on append",
        test_8_the_voters_in_force_change_on_append,
        (
            "core",
            "            self._voters.appended(index, line)\n        self._follow_membership()",
            "            pass\n        self._follow_membership()",
        ),
    ),
    mutant(
        "a follower's voters don't change on append",
        test_8_the_voters_in_force_change_on_append,
        (
            "following",
            "                self._voters.appended(index, line)\n            return True",
            "                pass\n            return True",
        ),
    ),
    mutant(
        "voters don't roll back",
        test_8_the_voters_in_force_roll_back_on_truncation,
        ("following", "        self._voters.truncated_from(index)\n", ""),
    ),
    mutant(
        "voters don't come from the log's tail at start",
        test_8_the_voters_in_force_roll_back_on_truncation,
        (
            "core",
            "            self._voters.appended(index, line)\n        self._enter_standing",
            "            pass\n        self._enter_standing",
        ),
    ),
    mutant(
        "a NODE_JOIN makes a voter beside others",
        test_8_only_three_kinds_of_entries_change_the_voters,
        ("voters", ' and parts[-1] == b"voter" and not voters:', ' and parts[-1] == b"voter":'),
    ),
    mutant(
        "several voter changes at a time",
        test_8_one_voter_change_at_a_time,
        ("core", "return self._voters.newest_change() > self.commit_index or", "return"),
    ),
    mutant(
        "voter changes before the NOOP",
        test_8_no_voter_change_before_an_entry_of_the_own_term_is_committed,
        ("core", " or self.commit_index < self.leadership.first_index", ""),
    ),
    mutant(
        "any voter change",
        test_8_no_voter_change_that_could_not_be_committed_now,
        ("raft", "if not is_majority(voters, leadership.live(self._now) | {self.node_id}):", "if False:"),
    ),
    mutant(
        "a leader removes itself",
        test_8_a_leader_removes_neither_itself_nor_the_last_voter,
        ("raft", "if not added and node_id == self.node_id:", "if False:"),
    ),
    mutant(
        "a learner is promoted whatever it has",
        test_8_only_a_learner_that_has_caught_up_is_promoted,
        ("raft", "if added and not leadership.is_caught_up(node_id, self._now):", "if False:"),
    ),
    mutant(
        "a learner that answers is caught up",
        test_8_a_learner_that_answers_and_is_behind_is_not_promoted,
        ("leading", "            and progress.match_index >= max(self._commit_mark, progress.begun_after)\n", ""),
    ),
    mutant(
        "a learner needs no NODE_JOIN of its own",
        test_8_a_learner_that_lacks_its_own_join_is_not_promoted,
        ("leading", "max(self._commit_mark, progress.begun_after)", "self._commit_mark"),
    ),
    mutant(
        "a learner is promoted by an answer from before its NODE_JOIN was applied",
        test_8_a_learner_that_answers_what_was_sent_before_its_join_was_applied_is_not_promoted,
        ("leading", "            and progress.acked_round > progress.begun_round\n", ""),
    ),
    mutant(
        "a stalled disk is not noticed",
        test_10_a_leader_whose_disk_stalls_steps_down_unless_commits_go_on,
        ("leading", "return now - self._disk_at > limit and now - self._commit_at > limit", "return False"),
    ),
    mutant(
        "a stalled disk behind commits that go on deposes",
        test_10_a_leader_whose_disk_stalls_steps_down_unless_commits_go_on,
        (
            "leading",
            "return now - self._disk_at > limit and now - self._commit_at > limit",
            "return now - self._disk_at > limit",
        ),
    ),
    mutant(
        "a stalled node stands",
        test_10_it_does_not_win_an_election_until_its_disk_moves,
        (
            "core",
            "if self.standing is not Standing.MEMBER or self.disk_stalled:",
            "if self.standing is not Standing.MEMBER:",
        ),
    ),
    mutant(
        "the limit does not double",
        test_10_each_such_step_down_doubles_the_limit,
        ("raft", "self._stall_doublings = min(self._stall_doublings + 1, 4)", "pass"),
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_without_its_rule_a_test_fails(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_failure(case, monkeypatch)
