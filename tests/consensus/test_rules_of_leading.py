"""Small rules of what a leader counts, sends and hands over that no story tells: one test each, and the proof."""

from __future__ import annotations

import pytest
from mutants import mutant
from raft_steps import ask, behind, led
from raft_world import Same, World

from raftfast.config import Config
from raftfast.consensus import Raft, Standing
from raftfast.consensus.leading import Leadership
from raftfast.consensus.progress import Progress
from raftfast.errors import Dropped
from raftfast.messages import AppendEntries, AppendEntriesAck
from raftfast.records import HardState


def leadership_of(world: World, node: str = "1") -> Leadership:
    leadership = world[node].leadership
    assert leadership is not None
    return leadership


# ---------------------------------------------------------------------- learners that have caught up


def learner_led(log_class: type) -> World:
    """Node 1 leads 2, 3 and the learner 4, which has caught up: it answered the heartbeat of just now."""
    world = World(log_class)
    for number in "1234":
        world.put(number, voters="123", members="1234")
    for number in "1234":
        world.boot(number)
    world.elect("1")
    world.pass_time(400, deliver=True)
    for _ in range(20):
        if leadership_of(world).peers["4"].heard_at == world.now:
            break
        world.pass_time(10, deliver=True)
    assert world["1"].is_caught_up("4")
    return world


def test_a_learner_not_heard_for_two_heartbeats_is_not_caught_up(log_class: type) -> None:
    """PROTOCOL 8: it has answered within two heartbeats."""
    world = learner_led(log_class)
    world.held = {("4", "1")}
    world.pass_time(150, deliver=True)
    assert world["1"].is_caught_up("4")
    world.pass_time(250, deliver=True)
    assert not world["1"].is_caught_up("4")


def test_a_learner_without_a_link_is_not_caught_up(log_class: type) -> None:
    world = learner_led(log_class)
    world.unlink("1", "4")
    assert not world["1"].is_caught_up("4")


def test_a_learner_that_lost_its_log_is_not_caught_up(log_class: type) -> None:
    """PROTOCOL 5.3 and 8: what it once acknowledged makes no voter of it."""
    world = learner_led(log_class)
    world.crash("4")
    world.put("4", voters="123", members="1234")
    world.boot("4")
    world.stabilize()
    assert leadership_of(world).peers["4"].lost_log
    assert not world["1"].is_caught_up("4")


def test_a_learner_need_not_have_what_was_committed_since_the_last_heartbeat_but_one(log_class: type) -> None:
    """PROTOCOL 8: where entries come all the time it would never be caught up."""
    world = learner_led(log_class)
    world.held = {("4", "1")}
    world.propose("1", "a")
    world.stabilize()
    world.pass_time(150, deliver=True)  # one more heartbeat
    assert leadership_of(world).peers["4"].match_index < world["1"].commit_index
    assert world["1"].is_caught_up("4")


# ---------------------------------------------------------------------- what counts


def test_voters_that_are_no_members_yet_are_sent_the_log(log_class: type) -> None:
    """PROTOCOL 8: the voters in force are those of the log, committed or not; without them nothing could be."""
    world = World(log_class)
    for number in "123":
        world.put(number, voters="123", members="12")
    for number in "123":
        world.boot(number)
    world.elect("1")
    assert world["3"].log.last_index == 1


def test_the_copy_of_a_leader_outside_the_voters_counts_for_nothing(log_class: type) -> None:
    """PROTOCOL 4 and 5.4: two of the two voters, not one of them and the leader."""
    world = taken_out(log_class)
    world.held = {("3", "1")}
    world.stabilize()  # 2 has all, and says so
    assert leadership_of(world).peers["2"].match_index == world["1"].durable_index == 3
    assert world["1"].commit_index == 0


def taken_out(log_class: type) -> World:
    """Node 1 was just elected by 2 and 3. Its log, and theirs, has an entry that takes it out; it is not committed."""
    world = World(log_class)
    for number in "123":
        world.put(number, voters="123", members="123", lines=[b"1 APP - a", b"1 DEL_VOTER 1"])
    for number in "123":
        world.boot(number)
    world.campaign("1")
    for _ in range(2):
        for number in "23":
            world.deliver("1", number)
            world.deliver(number, "1")
    assert world["1"].is_leader
    return world


def test_a_leader_whose_voters_have_all_lost_their_logs_has_its_time_from_its_election_on(log_class: type) -> None:
    """PROTOCOL 3: the moment of an election is the oldest from which a leader can miss answers."""
    world = World(log_class, 2)
    world.ms += 5000
    world["1"].lost_log("2", world.now)
    world.elect("1")
    world.pass_time(900, deliver=True)
    assert world["1"].is_leader
    world.pass_time(200, deliver=True)
    assert not world["1"].is_leader


# ---------------------------------------------------------------------- rounds


def read_asked(log_class: type, count: int) -> tuple[World, int]:
    """A read waits at node 1 for its round: no answer reaches it but by the test. And that round."""
    world = led(log_class, count)
    for number in range(2, count + 1):
        world.held.add((str(number), "1"))
    world["1"].barrier("token", world.now)
    world.turn(world.nodes["1"])
    return world, leadership_of(world).reads.round


def is_confirmed(world: World) -> bool:
    return any("read token may be served" in line for line in world.trace)


def test_a_round_that_never_began_confirms_nothing(log_class: type) -> None:
    """PROTOCOL 5.6."""
    world, number = read_asked(log_class, 3)
    ask(world, "2", "1", AppendEntriesAck(1, True, 1, 0, number + 1))
    assert not is_confirmed(world)
    ask(world, "2", "1", AppendEntriesAck(1, True, 1, 0, number))
    assert is_confirmed(world)


def test_what_a_member_answered_once_is_not_taken_back_by_an_older_answer(log_class: type) -> None:
    world, number = read_asked(log_class, 5)
    for sender, answered in (("2", number), ("2", number - 1), ("3", number)):
        assert not is_confirmed(world)
        ask(world, sender, "1", AppendEntriesAck(1, True, 1, 0, answered))
    assert is_confirmed(world)


# ---------------------------------------------------------------------- correcting a member's next index


def refusing() -> tuple[Leadership, Progress]:
    """A leader whose log is 11 to 20 tells "2" what follows 20, and is refused."""
    leadership = Leadership("1", 21, Config(node_timeout=1.0), 0.0, 20, None)
    leadership.follow({"2"}, 21, 0.0, {"2"})
    leadership.begin_round(1, 0.0)
    return leadership, leadership.peers["2"]


def refuse(leadership: Leadership, hint: int) -> int:
    """Where the leader goes on."""
    leadership.on_ack("2", AppendEntriesAck(1, False, hint, 0, 1), 0.0, 10)
    return leadership.peers["2"].next_index


def test_steps_back_end_at_the_boundary(log_class: type) -> None:
    """PROTOCOL 5.3: who has what stands there needs no snapshot. Only its own hint leads further back."""
    leadership, progress = refusing()
    assert [refuse(leadership, progress.next_index - 2) for _ in range(4)] == [20, 18, 14, 11]
    assert refuse(leadership, 3) == 4


def test_steps_back_are_short_again_after_a_success(log_class: type) -> None:
    """PROTOCOL 5.3: they double from refusal to refusal in a row."""
    leadership, progress = refusing()
    assert [refuse(leadership, progress.next_index - 2) for _ in range(2)] == [20, 18]
    leadership.on_ack("2", AppendEntriesAck(1, True, 0, 0, 1), 0.0, 10)
    assert refuse(leadership, progress.next_index - 2) == 17


# ---------------------------------------------------------------------- links


def test_who_is_linked_anew_is_probed_one_message_at_a_time_until_it_echoes_a_round(log_class: type) -> None:
    """PROTOCOL 5.2: behind the link there may be another server now, of a make that echoes none."""
    progress = Progress(5, 0.0)
    progress.link_up()
    progress.echoes_rounds, progress.refusals = True, 3
    assert progress.may_heartbeat()
    progress.link_down()
    progress.link_up()
    assert progress.echoes_rounds is None
    assert progress.refusals == 0
    progress.sent(4, 0, 0, 0)
    assert not progress.may_heartbeat()


def test_a_transfer_ends_with_its_link_and_holds_the_log_for_a_dead_member_no_more(log_class: type) -> None:
    """PROTOCOL 7: else its tail would grow for as long as the member is away."""
    world = behind(log_class)
    leadership = leadership_of(world)
    leadership.snapshot_began("3", 9)
    world.crash("3")
    world.propose("1", "x")
    world.pass_time(500, ["1", "2"], deliver=True)
    assert leadership.least_needed(world.now) == 9
    world.pass_time(600, ["1", "2"], deliver=True)
    assert leadership.least_needed(world.now) == leadership.peers["2"].match_index > 9


def test_a_founder_sends_nothing_of_a_term_that_is_not_durable(log_class: type) -> None:
    """PROTOCOL 5.5: it leads before its first job is done, and somebody may have joined by then."""
    raft = Raft(
        "1",
        log_class(0, 0),
        Config(node_timeout=1.0),
        Same(0.5),
        standing=Standing.SINGLETON,
        hard_state=HardState(0, None),
        now=0.0,
    )
    raft.found([b"NODE_JOIN 1 10.0.0.1:7001@17001 voter", b"NODE_JOIN 2 10.0.0.2:7002@17002 learner"], 0.1)
    raft.set_members("12", 0.1)
    raft.link_up("2", 0.1)
    update = raft.take()
    assert (update.hard_state, update.send) == (HardState(1, "1"), [])
    raft.stored(update.ticket, 0.2)
    assert [type(send.message) for send in raft.take().send] == [AppendEntries]


# ---------------------------------------------------------------------- handing over


def test_a_leader_that_was_taken_out_takes_nothing_more_though_nobody_can_take_over(log_class: type) -> None:
    """PROTOCOL 4: it appends nothing and serves no read until it steps down, one election timeout later."""
    world = taken_out(log_class)
    raft = world["1"]
    for number in "23":
        world.deliver("1", number)
        raft.link_down(number)
    for number in "23":  # their last answers on links that are gone
        world.deliver(number, "1")
    assert raft.commit_index == 3
    assert (raft.is_leader, leadership_of(world).transfer_target) == (True, None)
    with pytest.raises(Dropped):
        world.propose("1", "x")
    raft.barrier("token", world.now)
    assert raft.take().reads_failed == ["token"]
    world.pass_time(1200, ["1"])
    assert not raft.is_leader


# ---------------------------------------------------------------------- each rule, taken out by test_rules_taken_out

LEAP = "leap = max(progress.next_index - (1 << min(progress.refusals, 62)), boundary_index + 1)"
ROUNDS = "if progress.acked_round < ack.round <= self._round:"

CASES = [
    mutant(
        "a learner is caught up for good",
        test_a_learner_not_heard_for_two_heartbeats_is_not_caught_up,
        ("leading", "<= 2 * self._config.heartbeat_interval", "<= 20 * self._config.heartbeat_interval"),
        source="PROTOCOL 8",
    ),
    mutant(
        "a learner without a link is caught up",
        test_a_learner_without_a_link_is_not_caught_up,
        ("leading", "            and progress.linked\n", ""),
        source="PROTOCOL 8",
    ),
    mutant(
        "a learner that lost its log is caught up",
        test_a_learner_that_lost_its_log_is_not_caught_up,
        (
            "leading",
            "            and progress.linked\n            and not progress.lost_log\n",
            "            and progress.linked\n",
        ),
        source="PROTOCOL 8",
    ),
    mutant(
        "a learner must have all that is committed at the heartbeat",
        test_a_learner_need_not_have_what_was_committed_since_the_last_heartbeat_but_one,
        (
            "leading",
            "self._commit_mark, self._commit_at_beat = self._commit_at_beat, max(",
            "self._commit_mark = self._commit_at_beat = max(",
        ),
        source="PROTOCOL 8",
    ),
    mutant(
        "only members are sent the log",
        test_voters_that_are_no_members_yet_are_sent_the_log,
        ("core", "others = (self.members | self.voters) - {self.node_id}", "others = self.members - {self.node_id}"),
        source="PROTOCOL 8",
    ),
    mutant(
        "the copy of a leader that is no voter counts",
        test_the_copy_of_a_leader_outside_the_voters_counts_for_nothing,
        (
            "raft",
            "leadership.majority_match(self.voters, self._durability.index)",
            "leadership.majority_match(self.voters | {self.node_id}, self._durability.index)",
        ),
        source="PROTOCOL 5.4",
    ),
    mutant(
        "a voter that never answered has not answered since the beginning of time",
        test_a_leader_whose_voters_have_all_lost_their_logs_has_its_time_from_its_election_on,
        (
            "leading",
            "return majority_value(voters, values, self._elected_at)",
            "return majority_value(voters, values, 0.0)",
        ),
        source="PROTOCOL 3",
    ),
    mutant(
        "rounds that never began confirm reads",
        test_a_round_that_never_began_confirms_nothing,
        ("leading", ROUNDS, "if progress.acked_round < ack.round:"),
        source="PROTOCOL 5.6",
    ),
    mutant(
        "an older answer takes a newer one back",
        test_what_a_member_answered_once_is_not_taken_back_by_an_older_answer,
        ("leading", ROUNDS, "if ack.round <= self._round:"),
        source="PROTOCOL 5.6",
    ),
    mutant(
        "a step back leads below the boundary",
        test_steps_back_end_at_the_boundary,
        ("leading", LEAP, LEAP.replace("boundary_index + 1", "1")),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "steps back stay long after a success",
        test_steps_back_are_short_again_after_a_success,
        ("leading", "            progress.refusals = 0\n", ""),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "who echoed rounds does so on every link",
        test_who_is_linked_anew_is_probed_one_message_at_a_time_until_it_echoes_a_round,
        ("progress", "        self.echoes_rounds = None\n        self.refusals", "        self.refusals"),
        source="PROTOCOL 5.2",
    ),
    mutant(
        "a transfer outlives its link",
        test_a_transfer_ends_with_its_link_and_holds_the_log_for_a_dead_member_no_more,
        (
            "progress",
            "        self._clear_inflight()\n        self.snapshot_index = 0\n\n    def probe",
            "        self._clear_inflight()\n\n    def probe",
        ),
        source="PROTOCOL 7",
    ),
    mutant(
        "a founder leads a term that is not durable",
        test_a_founder_sends_nothing_of_a_term_that_is_not_durable,
        ("raft", "if self._durability.hard_state.current_term == self.current_term:", "if True:"),
        source="PROTOCOL 5.5",
    ),
    mutant(
        "a leader that was taken out goes on where nobody can take over",
        test_a_leader_that_was_taken_out_takes_nothing_more_though_nobody_can_take_over,
        (
            "leading",
            "return self._transfer is not None or self.resign_at is not None",
            "return self._transfer is not None",
        ),
        source="PROTOCOL 4",
    ),
]
