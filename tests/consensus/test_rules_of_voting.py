"""Small rules of terms, votes and elections that no story tells: one test each, and the proof that it counts."""

from __future__ import annotations

import pytest
from mutants import given, mutant
from raft_steps import acks, follower, pre_candidate
from raft_world import World

from raftfast.consensus import Raft, Standing
from raftfast.messages import (
    AppendEntries,
    AppendEntriesAck,
    Message,
    PreVote,
    PreVoteRequest,
    Role,
    Vote,
    VoteRequest,
)
from raftfast.records import HardState

# ---------------------------------------------------------------------- who stands


def test_who_is_taken_out_by_a_committed_entry_does_not_stand_though_it_has_not_applied_it(log_class: type) -> None:
    """PROTOCOL 4: outside the voters in force it stands while the entry that takes it out is uncommitted, no longer."""
    log = log_class(0, 0)
    log.extend([1, 1], [b"1 NOOP", b"1 DEL_VOTER 1"])
    raft = follower(log_class, log=log)
    assert raft.may_stand
    raft.receive("2", AppendEntries("2", 1, 2, 1, 2, (), (), 1), 0.1, 7)
    assert (raft.commit_index, raft.last_applied) == (2, 0)
    assert not raft.may_stand


def test_a_pre_candidate_that_a_snapshot_takes_out_of_the_voters_stands_no_more(log_class: type) -> None:
    """Its install outlived the election timeout, and the grants came after it."""
    raft = pre_candidate(log_class)
    raft.install(9, 1, "23", 2.0, "2", 7)
    for voter in "23":
        raft.receive(voter, PreVote(2, True), 2.0, 7)
    assert raft.role is Role.PRE_CANDIDATE
    assert raft.hard_state == HardState(1, None)


# ---------------------------------------------------------------------- asking


def test_a_candidate_has_an_election_timeout_of_its_own(log_class: type) -> None:
    """PROTOCOL 3: drawn at each start of a wait. Late grants leave the election its whole time all the same."""
    raft = pre_candidate(log_class)  # since 1.6 s, until 3.1 s
    for now in (2.3, 2.7):
        raft.tick(now)
    raft.receive("2", PreVote(2, True), 3.0, 7)
    assert raft.role is Role.CANDIDATE
    raft.stored(raft.take().ticket, 3.0)
    raft.tick(3.4)
    assert raft.role is Role.CANDIDATE


def candidate_of_five(log_class: type) -> Raft:
    """A candidate since 1.65 s that knows its own vote as durable, and has 2's."""
    raft = follower(log_class, voters="12345", members="12345")
    for now in (0.4, 0.8, 1.2, 1.6):
        raft.tick(now)
    for voter in "23":
        raft.receive(voter, PreVote(2, True), 1.65, 7)
    assert raft.role is Role.CANDIDATE
    raft.stored(raft.take().ticket, 1.65)
    raft.receive("2", Vote(2, True), 1.65, 7)
    raft.take()
    return raft


def test_a_candidate_asks_again_one_heartbeat_interval_after_it_asked(log_class: type) -> None:
    """PROTOCOL 4. It counts from the election, not from the pre-vote before it."""
    raft = candidate_of_five(log_class)
    raft.tick(1.72)
    assert raft.take().send == []
    raft.tick(1.76)
    assert raft.take().send != []


def test_a_candidate_asks_none_again_who_has_granted(log_class: type) -> None:
    raft = candidate_of_five(log_class)
    raft.tick(1.8)
    assert [send.to for send in raft.take().send] == ["3", "4", "5"]


# ---------------------------------------------------------------------- granting


@pytest.mark.parametrize("kind", [PreVoteRequest, VoteRequest])
def test_a_request_for_votes_is_the_senders_or_nothing(log_class: type, kind: type) -> None:
    """PROTOCOL 4: the asker is the node that the link is bound to; else the link is closed and no term moves."""
    raft = follower(log_class)
    raft.receive("2", kind("3", 5, 9, 9), 0.1, 7)
    update = raft.take()
    assert [link for link, _ in update.close] == [7]
    assert update.send == []
    assert raft.hard_state == HardState(1, None)


@pytest.mark.parametrize(("voters", "members"), [("12", "1"), ("1", "12")])
def test_who_has_other_members_or_other_voters_is_not_alone(log_class: type, voters: str, members: str) -> None:
    """PROTOCOL 8: only a cluster of one has no Raft with anybody. A log may name voters that the state does not yet."""
    raft = follower(log_class, voters=voters, members=members)
    raft.receive("2", VoteRequest("2", 5, 9, 9), 0.1, 7)
    update = raft.take()
    assert update.close == []
    raft.stored(update.ticket, 0.1)
    assert [send.message for send in raft.take().send] == [Vote(5, True)]


def test_who_grants_its_vote_follows_no_leader_any_more(log_class: type) -> None:
    """Also in the leader's own term, in which it had not voted."""
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), 1), 0.1, 7)
    for now in (0.5, 0.9, 1.2):
        raft.tick(now)
    assert raft.leader_id == "2"
    raft.receive("3", VoteRequest("3", 1, 0, 0), 1.2, 8)
    assert raft.voted_for == "3"
    assert raft.leader_id is None


# ---------------------------------------------------------------------- who is no member


def no_member(log_class: type, standing: Standing) -> Raft:
    raft = follower(log_class)
    raft.reset(Standing.JOINER if standing is Standing.REMOVED else standing, 0, 0.1)
    if standing is Standing.REMOVED:
        raft.remove(0.1)
    raft.stored(raft.take().ticket, 0.1)
    return raft


@pytest.mark.parametrize("standing", [Standing.JOINER, Standing.REMOVED])
def test_the_transfers_token_makes_no_voter_of_who_is_no_member(log_class: type, standing: Standing) -> None:
    """PROTOCOL 4: it passes leases, and nothing else."""
    raft = no_member(log_class, standing)
    raft.receive("2", VoteRequest("2", 5, 9, 9, True), 0.2, 7)
    assert [send.message for send in raft.take().send] == [Vote(0, False)]
    assert raft.hard_state == HardState(0, None)


@pytest.mark.parametrize("standing", [Standing.SINGLETON, Standing.JOINER, Standing.REMOVED])
@pytest.mark.parametrize("message", [Vote(5, False), PreVote(5, False), AppendEntriesAck(5, False, 0), None])
def test_only_a_member_learns_a_term_from_an_answer(
    log_class: type, standing: Standing, message: Message | None
) -> None:
    """PROTOCOL 4: others take their term from a leader that they follow. None: a message beside Raft's."""
    raft = no_member(log_class, standing)
    if message is not None:
        raft.receive("2", message, 0.2, 7)
    else:
        raft.see_term(5, 0.2, 7)
    assert raft.hard_state == HardState(0, None)


def test_a_joiner_that_becomes_a_member_has_an_election_timeout_to_hear_its_leader(log_class: type) -> None:
    """PROTOCOL 3: what it took, a snapshot, may have taken longer than that to be installed."""
    raft = no_member(log_class, Standing.JOINER)
    lines = tuple(b"1 ADD_VOTER %d" % number for number in (1, 2, 3))
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,) * 3, lines, 1), 0.2, 7)  # until 1.7 s
    for now in (0.6, 1.0, 1.4, 1.8):
        raft.tick(now)
    raft.join(1.8)
    raft.tick(1.9)
    assert raft.role is Role.FOLLOWER


def test_who_was_removed_follows_nobody(log_class: type) -> None:
    """PROTOCOL 8: it waits for CLUSTER RESET; what it would acknowledge would count as a copy."""
    raft = no_member(log_class, Standing.REMOVED)
    raft.receive("2", AppendEntries("2", 5, 0, 0, 0, (5,), (b"5 NOOP",), 1), 0.2, 7)
    update = raft.take()
    assert (update.ticket, acks(update)) == (0, [])
    assert (raft.hard_state, raft.leader_id) == (HardState(0, None), None)


# ---------------------------------------------------------------------- leading


def test_a_leader_refuses_another_leader_of_its_term(log_class: type) -> None:
    """PROTOCOL 5.1: an invariant violation, logged as critical and refused; also where one of the two is this node."""
    world = World(log_class, 3)
    world.elect("1")
    raft = world["1"]
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), 1), world.now, 99)
    update = raft.take()
    assert update.critical == ["two leaders in term 1: 1 and 2"]
    assert acks(update) == []
    assert (raft.is_leader, raft.role, raft.leader_id) == (True, Role.LEADER, "1")


# ---------------------------------------------------------------------- each rule, taken out by test_rules_taken_out

CASES = [
    mutant(
        "who was taken out stands until it has applied that",
        test_who_is_taken_out_by_a_committed_entry_does_not_stand_though_it_has_not_applied_it,
        (
            "core",
            "taken_out_since(self.commit_index, self.node_id)",
            "taken_out_since(self.last_applied, self.node_id)",
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "a pre-candidate that is no voter any more is elected",
        test_a_pre_candidate_that_a_snapshot_takes_out_of_the_voters_stands_no_more,
        (
            "elections",
            "message.term == self.current_term + 1 and self.may_stand:",
            "message.term == self.current_term + 1:",
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "an election has what is left of the pre-vote's time",
        test_a_candidate_has_an_election_timeout_of_its_own,
        (
            "elections",
            " = transfer\n        self._deadline = self._now + self._election_timeout()\n",
            " = transfer\n",
        ),
        source="PROTOCOL 3",
    ),
    mutant(
        "a candidate asks again as the pre-candidate would have",
        test_a_candidate_asks_again_one_heartbeat_interval_after_it_asked,
        (
            "elections",
            "self._vote_request(), None)\n        self._ask_at = self._now + self.config.heartbeat_interval\n",
            "self._vote_request(), None)\n",
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "who has granted is asked again",
        test_a_candidate_asks_none_again_who_has_granted,
        ("elections", "self._voters.others(self.node_id) - self._granted", "self._voters.others(self.node_id)"),
        source="PROTOCOL 4",
    ),
    mutant(
        "a pre-vote request is anybody's",
        given(test_a_request_for_votes_is_the_senders_or_nothing, type, PreVoteRequest),
        (
            "elections",
            'if sender != message.candidate_id or self.alone:\n            self._close(link, "a pre-vote',
            'if self.alone:\n            self._close(link, "a pre-vote',
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "a vote request is anybody's",
        given(test_a_request_for_votes_is_the_senders_or_nothing, type, VoteRequest),
        (
            "elections",
            'if sender != message.candidate_id or self.alone:\n            self._close(link, "a vote',
            'if self.alone:\n            self._close(link, "a vote',
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "who has no other members is alone",
        given(test_who_has_other_members_or_other_voters_is_not_alone, type, "12", "1"),
        ("core", "self.members <= {self.node_id} and self.voters <= {self.node_id}", "self.members <= {self.node_id}"),
        source="PROTOCOL 8",
    ),
    mutant(
        "who has no other voters is alone",
        given(test_who_has_other_members_or_other_voters_is_not_alone, type, "1", "12"),
        ("core", "self.members <= {self.node_id} and self.voters <= {self.node_id}", "self.voters <= {self.node_id}"),
        source="PROTOCOL 8",
    ),
    mutant(
        "who grants its vote goes on following",
        test_who_grants_its_vote_follows_no_leader_any_more,
        (
            "elections",
            "                self.role = Role.FOLLOWER\n            self.leader_id = None\n",
            "                self.role = Role.FOLLOWER\n",
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "the transfer's token makes a voter of anybody",
        given(test_the_transfers_token_makes_no_voter_of_who_is_no_member, type, Standing.REMOVED),
        ("elections", "        if not self.may_grant:\n", "        if not self.may_grant and not message.transfer:\n"),
        source="PROTOCOL 4",
    ),
    mutant(
        "who is no member learns terms from answers",
        given(test_only_a_member_learns_a_term_from_an_answer, type, Standing.JOINER, Vote(5, False)),
        ("elections", "self.standing is not Standing.MEMBER or not self._term_is_sane", "not self._term_is_sane"),
        source="PROTOCOL 4",
    ),
    mutant(
        "who becomes a member stands at once",
        test_a_joiner_that_becomes_a_member_has_an_election_timeout_to_hear_its_leader,
        (
            "raft",
            "        self.role = Role.FOLLOWER\n        self._deadline = now + self._election_timeout()\n",
            "        self.role = Role.FOLLOWER\n",
        ),
        source="PROTOCOL 3",
    ),
    mutant(
        "a removed node follows",
        test_who_was_removed_follows_nobody,
        ("following", "        if self.standing is Standing.REMOVED:\n            return False\n", ""),
        source="PROTOCOL 8",
    ),
    mutant(
        "a leader obeys another leader of its term",
        test_a_leader_refuses_another_leader_of_its_term,
        ("elections", "self.leader_id = self._term_leader = self.node_id", "self.leader_id = self.node_id"),
        source="PROTOCOL 5.1",
    ),
]
