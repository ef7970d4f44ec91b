"""Each rule of PROTOCOL 3 to 5 marked **(stricter)** that the core keeps: its test, and the proof that it counts.

Kept elsewhere: numbers, frames and batches of malformed entries (the codec, PROTOCOL 1 and 5.1), identities of
proposals (6.3), a voter that names no cluster (9), and storage (11).
"""

from __future__ import annotations

import pytest
from mutants import Mutant, expect_failure, mutant
from raft_disk import Broken
from raft_steps import append, ask, led
from raft_world import World

from raftfast.consensus import Standing
from raftfast.messages import AppendEntriesAck, PreVote, PreVoteRequest, Role, Vote, VoteRequest

# ---------------------------------------------------------------------- PROTOCOL 3


def test_3_the_lease_is_t_exactly_never_the_randomised_timeout(log_class: type) -> None:
    world = led(log_class)
    world.nodes["2"].rng.share = 0.99  # 2 itself would wait for almost 2 T
    ask(world, "1", "2", append((1, 1), 1))
    world.crash("1")
    world.pass_time(990, ["2", "3"])
    assert ask(world, "3", "2", PreVoteRequest("3", 2, 1, 1)) == [PreVote(1, False)]
    world.pass_time(20, ["2", "3"])
    assert world["2"].role is Role.FOLLOWER
    assert ask(world, "3", "2", PreVoteRequest("3", 2, 1, 1)) == [PreVote(2, True)]


def test_3_a_term_far_above_ours_is_never_adopted(log_class: type) -> None:
    far = 2 + (1 << 32)
    for message in (append((0, 0), 0, term=far, sender="3"), AppendEntriesAck(far, False, 0), Vote(far, False)):
        world = led(log_class)
        world.trace.clear()
        ask(world, "3", "1", message)
        assert world["1"].current_term == 1
        assert [text for text in world.trace if "closes a link" in text] != []
        world.mend("1", "3")
        assert ask(world, "3", "1", append((0, 0), 0, term=far - 1, sender="3")) != []
        assert world["1"].current_term == far - 1


def test_3_after_a_pause_timers_and_leases_start_anew(log_class: type) -> None:
    world = led(log_class)
    world.ms += 5000
    world.tick("2")
    assert world["2"].role is Role.FOLLOWER
    assert ask(world, "3", "2", PreVoteRequest("3", 2, 9, 9)) == [PreVote(1, False)]


# ---------------------------------------------------------------------- PROTOCOL 4


def test_4_who_knows_whom_as_a_voter_is_no_condition_for_granting(log_class: type) -> None:
    world = World(log_class, 3)
    for asker in "45":  # unknown to all, as one promoted by entries that they lack
        world.put(asker, voters=asker, standing=Standing.MEMBER, terms=[1])
        world.boot(asker)
    assert ask(world, "4", "2", PreVoteRequest("4", 3, 1, 1)) == [PreVote(3, True)]
    assert ask(world, "4", "2", VoteRequest("4", 3, 1, 1)) == [Vote(3, True)]
    world = World(log_class, 3)
    world.put("4", voters="123", members="1234")
    world.boot("4")
    assert ask(world, "1", "4", PreVoteRequest("1", 1, 0, 0)) == [PreVote(1, True)]
    assert ask(world, "1", "4", VoteRequest("1", 1, 0, 0)) == [Vote(1, True)]


def candidate(log_class: type, count: int) -> World:
    """Node 1 is a candidate of term 1 that knows its own vote as durable."""
    world = World(log_class, count)
    world.campaign("1")
    for voter in "23":
        world.deliver("1", voter)
        world.deliver(voter, "1")
    assert world["1"].role is Role.CANDIDATE
    return world


def test_4_grants_are_counted_by_node_id_each_once(log_class: type) -> None:
    world = candidate(log_class, 5)
    for _ in range(9):
        ask(world, "2", "1", Vote(1, True))
    assert world["1"].role is Role.CANDIDATE
    world = World(log_class, 5)
    world.campaign("1")
    for _ in range(9):
        ask(world, "2", "1", PreVote(1, True))
    assert world["1"].role is Role.PRE_CANDIDATE


def test_4_grants_count_for_the_current_term_and_round_only(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("1", voters="123", term=4, vote="2")
    world.boot("1")
    world.campaign("1")
    ask(world, "2", "1", PreVote(4, True))  # it asks for 5
    ask(world, "2", "1", PreVote(6, True))
    assert world["1"].role is Role.PRE_CANDIDATE
    ask(world, "2", "1", PreVote(5, True))
    assert world["1"].role is Role.CANDIDATE  # type: ignore[comparison-overlap]
    ask(world, "2", "1", Vote(4, True))
    assert world["1"].role is Role.CANDIDATE


def test_4_stepping_down_within_a_term_keeps_the_vote(log_class: type) -> None:
    world = led(log_class)
    world.isolate("1")
    world.pass_time(1200, ["1"])
    assert (world["1"].role, world["1"].hard_state) == (Role.FOLLOWER, (1, "1"))
    world.heal()
    assert ask(world, "2", "1", VoteRequest("2", 1, 99, 1)) == [Vote(1, False)]


def test_4_a_vote_request_that_a_lease_refuses_moves_no_term(log_class: type) -> None:
    world = led(log_class)
    for node in "12":
        assert ask(world, "3", node, VoteRequest("3", 9, 99, 9)) == [Vote(1, False)]
        assert world[node].current_term == 1
    assert world["1"].role is Role.LEADER


def test_4_terms_of_pre_votes_are_speculative(log_class: type) -> None:
    world = World(log_class, 5)
    assert ask(world, "3", "2", PreVoteRequest("3", 9, 99, 9)) == [PreVote(9, True)]
    assert world["2"].current_term == 0
    world.campaign("1")
    ask(world, "2", "1", PreVote(1, True))
    assert (world["1"].role, world["1"].current_term) == (Role.PRE_CANDIDATE, 0)


def test_4_a_denied_pre_vote_brings_its_term(log_class: type) -> None:
    world = World(log_class, 3)
    world.campaign("1")
    assert ask(world, "2", "1", PreVote(6, False)) == [PreVoteRequest("1", 7, 0, 0)]
    assert (world["1"].role, world["1"].current_term) == (Role.PRE_CANDIDATE, 6)


# ---------------------------------------------------------------------- PROTOCOL 5


def test_5_1_a_leaders_message_is_the_senders_or_nothing(log_class: type) -> None:
    world = World(log_class, 3)
    assert ask(world, "1", "2", append((0, 0), 9, b"4 APP - x", term=4, sender="3")) == []
    assert (world["2"].current_term, world["2"].log.last_index, world["2"].leader_id) == (0, 0, None)
    assert ("1", "2") not in world.links


def test_5_1_the_commit_index_stays_within_the_message(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 1, 1, 1])
    world.boot("2")
    ask(world, "1", "2", append((2, 1), 5, term=2))
    assert world["2"].commit_index == 2


def test_5_3_what_is_acknowledged_is_verified_not_the_last_index(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("2", voters="123", terms=[1, 1, 1, 1, 1])
    world.boot("2")
    assert ask(world, "1", "2", append((2, 1), 0, term=2)) == [AppendEntriesAck(2, True, 2, 0, 1)]
    assert ask(world, "3", "2", append((0, 0), 0, term=3, sender="3")) == [AppendEntriesAck(3, True, 0, 0, 1)]


def test_5_3_a_success_vouches_for_what_was_sent_on_the_link_at_most(log_class: type) -> None:
    world = led(log_class, max_append_bytes=1)  # one entry goes out, and then its answer is waited for
    world.cut("1", "2")
    world.propose("1", "x", "y", "z")
    world.mend("1", "2")
    world.bag = []
    world.liars.add("2")
    ask(world, "2", "1", AppendEntriesAck(1, True, 4, 0, 1))
    assert world["1"].leadership.peers["2"].match_index == 2  # type: ignore[union-attr]
    assert world["1"].commit_index == 2


def test_5_3_a_refusal_from_before_the_last_correction_is_ignored(log_class: type) -> None:
    world = World(log_class, 3)
    world.put("1", voters="123", terms=[1] * 20)
    world.boot("1")
    world.campaign("1")
    for _ in range(2):
        world.deliver("1", "2")
        world.deliver("2", "1")
    world.deliver("1", "2", 1)
    refusal = world.under_way("2", "1")[-1].message
    world.deliver("2", "1")
    progress = world["1"].leadership.peers["2"]  # type: ignore[union-attr]
    assert progress.next_index == 1
    assert ask(world, "2", "1", refusal) == []  # nothing is sent a second time
    assert progress.next_index == 1


def test_5_3_a_member_that_lost_what_it_acknowledged_is_not_served(log_class: type) -> None:
    world = led(log_class)
    world.propose("1", "x")
    world.stabilize()
    world.put("3", voters="123")
    world.boot("3")
    world.stabilize()
    assert world["1"].leadership.peers["3"].lost_log  # type: ignore[union-attr]
    assert world["3"].log.last_index == 0
    assert any("3 lost entries" in text for text in world.trace)


# ---------------------------------------------------------------------- each rule, taken out

CASES = [
    mutant(
        "the lease is the election timeout",
        test_3_the_lease_is_t_exactly_never_the_randomised_timeout,
        ("core", "now - self._contact < self.config.node_timeout", "now < self._deadline"),
    ),
    mutant(
        "any term is adopted",
        test_3_a_term_far_above_ours_is_never_adopted,
        ("elections", "if term - self.current_term <= MAX_TERM_JUMP:", "if True:"),
    ),
    mutant(
        "a pause is not noticed",
        test_3_after_a_pause_timers_and_leases_start_anew,
        ("core", "if now - self._now > self.config.node_timeout / 2:", "if False:"),
    ),
    mutant(
        "only known voters get a vote",
        test_4_who_knows_whom_as_a_voter_is_no_condition_for_granting,
        (
            "elections",
            "and self.voted_for in (None, sender)",
            "and self.voted_for in (None, sender) and sender in self._voters",
        ),
    ),
    mutant(
        "only known voters get a pre-vote",
        test_4_who_knows_whom_as_a_voter_is_no_condition_for_granting,
        (
            "elections",
            "is_free = self.may_grant and",
            "is_free = self.may_grant and sender in self._voters and",
        ),
    ),
    mutant(
        "a learner grants nothing",
        test_4_who_knows_whom_as_a_voter_is_no_condition_for_granting,
        (
            "elections",
            "and self.voted_for in (None, sender)",
            "and self.voted_for in (None, sender) and self.node_id in self._voters",
        ),
    ),
    mutant(
        "grants are counted by message",
        test_4_grants_are_counted_by_node_id_each_once,
        (
            "elections",
            "self._granted.add(sender)  # by id, each once **(stricter)**\n            self._count_votes()",
            "self._granted.add(min(self.voters - self._granted))\n            self._count_votes()",
        ),
    ),
    mutant(
        "pre-vote grants are counted by message",
        test_4_grants_are_counted_by_node_id_each_once,
        (
            "elections",
            "            self._granted.add(sender)  # by id, each once **(stricter)**\n            if is_majority",
            "            self._granted.add(min(self.voters - self._granted))\n            if is_majority",
        ),
    ),
    mutant(
        "grants of another term count",
        test_4_grants_count_for_the_current_term_and_round_only,
        ("elections", "message.granted and message.term == self.current_term:", "message.granted:"),
    ),
    mutant(
        "pre-vote grants of another term count",
        test_4_grants_count_for_the_current_term_and_round_only,
        ("elections", "message.term == self.current_term + 1 and self.may_stand", "self.may_stand"),
    ),
    mutant(
        "stepping down clears the vote",
        test_4_stepping_down_within_a_term_keeps_the_vote,
        (
            "elections",
            '"""Within the term: the vote stays. **(stricter, PROTOCOL 4)**"""\n',
            "self.voted_for = None\n",
        ),
    ),
    mutant(
        "the term is looked at before the lease",
        test_4_a_vote_request_that_a_lease_refuses_moves_no_term,
        ("elections", "refused = self.lease_is_live(self._now) and not message.transfer", "refused = False"),
    ),
    mutant(
        "a pre-vote request brings its term",
        test_4_terms_of_pre_votes_are_speculative,
        (
            "elections",
            "        self._promise(sender, PreVote(",
            "        self._learn_term(message.term, link)\n        self._promise(sender, PreVote(",
        ),
    ),
    mutant(
        "a granted pre-vote brings its term",
        test_4_terms_of_pre_votes_are_speculative,
        ("elections", "        if not message.granted:\n", "        if True:\n"),
    ),
    mutant(
        "a denied pre-vote brings no term",
        test_4_a_denied_pre_vote_brings_its_term,
        (
            "elections",
            "        if not message.granted:\n            self._learn_term(message.term, link)",
            "        if not message.granted:\n            pass",
        ),
    ),
    mutant(
        "a leader's message is anybody's",
        test_5_1_a_leaders_message_is_the_senders_or_nothing,
        ("following", "        if sender != leader_id:\n", "        if False:\n"),
    ),
    mutant(
        "the commit index may be our last",
        test_5_1_the_commit_index_stays_within_the_message,
        ("following", "min(message.leader_commit, end)", "min(message.leader_commit, self.log.last_index)"),
    ),
    mutant(
        "the last index is acknowledged",
        test_5_3_what_is_acknowledged_is_verified_not_the_last_index,
        ("following", "index = min(self.verified_index, self._durability.index)", "index = self._durability.index"),
    ),
    mutant(
        "what was verified outlives its term",
        test_5_3_what_is_acknowledged_is_verified_not_the_last_index,
        (
            "elections",
            "        self.verified_index = 0\n        self._leader_round = None\n        self._promises",
            "        self._leader_round = None\n        self._promises",
        ),
    ),
    mutant(
        "a success may vouch for what was not sent",
        test_5_3_a_success_vouches_for_what_was_sent_on_the_link_at_most,
        ("leading", "min(ack.index, progress.sent_index)", "ack.index"),
    ),
    mutant(
        "each refusal is a correction",
        test_5_3_a_refusal_from_before_the_last_correction_is_ignored,
        ("leading", "        if hint + 1 < progress.next_index:\n", "        if True:\n"),
    ),
    mutant(
        "a lost log is filled again",
        test_5_3_a_member_that_lost_what_it_acknowledged_is_not_served,
        ("leading", "if first_on_link and ack.index < progress.match_index:", "if False:"),
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_without_its_rule_a_test_fails(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_failure(case, monkeypatch)


def test_the_world_itself_sees_a_broken_core(log_class: type) -> None:
    """The invariants that every test here leans on are looked at, and fail."""
    world = led(log_class)
    world["2"].commit_index = 0
    with pytest.raises(Broken):
        world.check()
