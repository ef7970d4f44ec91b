"""Each rule of `test_sentences.py` taken out of the core: the test named for it fails."""

from __future__ import annotations

import inspect

import pytest
import test_sentences as figures
from mutants import Mutant, expect_failure, mutant

MERGE = "first, dropped = self.log.merge(prev, message.terms, message.lines, self.commit_index)"

CASES = [
    mutant(
        "a vote leaves before it is durable",
        figures.test_term_and_vote_are_stable_before_a_vote_is_answered,
        (
            "promises",
            "            if promised:\n                self._held",
            "            if False:\n                self._held",
        ),
    ),
    mutant(
        "an acknowledgement leaves before the entries are durable",
        figures.test_entries_are_stable_before_they_are_acknowledged,
        (
            "following",
            "index = min(self.verified_index, self._durability.index)\n",
            "index = self.verified_index\n",
        ),
        ("promises", "            if ticket:\n", "            if False:\n"),
    ),
    mutant(
        "the commit index is the last index at start",
        figures.test_the_commit_index_begins_at_what_is_known_applied_and_only_grows,
        ("core", "self.commit_index = log.boundary_index", "self.commit_index = log.last_index"),
    ),
    mutant(
        "the commit index follows the leader's back",
        figures.test_the_commit_index_begins_at_what_is_known_applied_and_only_grows,
        ("following", "max(self.commit_index, min(message.leader_commit, end))", "min(message.leader_commit, end)"),
    ),
    mutant(
        "a new leader begins at the first index",
        figures.test_a_new_leader_has_next_index_behind_its_last_and_match_index_zero,
        ("core", "self.leadership.follow(others, self.log.last_index + 1,", "self.leadership.follow(others, 1,"),
    ),
    mutant(
        "an older term's entries are taken",
        figures.test_append_1_a_lower_term_is_refused_with_ours,
        ("following", "        if term < self.current_term:\n", "        if False:\n"),
    ),
    mutant(
        "the previous entry is not looked at",
        figures.test_append_2_without_the_previous_entry_it_is_refused,
        (
            "following",
            "not self.log.matches(prev, message.prev_log_term)",
            "prev > self.log.last_index",
        ),
    ),
    mutant(
        "the file is not cut where the log is",
        figures.test_append_3_a_conflicting_entry_goes_with_all_that_follow,
        ("following", "self._update.truncate_from = index\n", "pass\n"),
    ),
    mutant(
        "all behind prev is dropped",
        figures.test_append_3_only_a_conflict_truncates,
        ("following", MERGE, f"self.log.truncate_from(prev + 1); self._truncated_from(prev + 1); {MERGE}"),
    ),
    mutant(
        "the commit index may be our last",
        figures.test_append_5_the_commit_index_is_the_leaders_up_to_the_last_entry_of_the_message,
        ("following", "min(message.leader_commit, end)", "min(message.leader_commit, self.log.last_index)"),
    ),
    mutant(
        "an older term's candidate gets a vote",
        figures.test_vote_1_a_lower_term_is_refused_with_ours,
        (
            "elections",
            "            not refused\n            and message.term == self.current_term",
            "            not refused",
        ),
    ),
    mutant(
        "everybody gets a vote in a term",
        figures.test_vote_2_one_vote_a_term,
        ("elections", "self.voted_for in (None, sender)", "True"),
    ),
    mutant(
        "the longer log is the better one",
        figures.test_vote_2_only_for_an_up_to_date_log,
        (
            "elections",
            "return (last_term, last_index) < (self.log.last_term, self.log.last_index)",
            "return last_index < self.log.last_index",
        ),
    ),
    mutant(
        "a log of our last term is up to date",
        figures.test_vote_2_only_for_an_up_to_date_log,
        (
            "elections",
            "return (last_term, last_index) < (self.log.last_term, self.log.last_index)",
            "return last_term < self.log.last_term - 1",
        ),
    ),
    mutant(
        "a higher term in an answer is not taken",
        figures.test_all_servers_a_higher_term_makes_a_follower_of_it,
        (
            "elections",
            "if term <= self.current_term or self.standing is not",
            "if True or self.standing is not",
        ),
    ),
    mutant(
        "nobody stands",
        figures.test_followers_who_hears_no_leader_for_an_election_timeout_stands,
        ("raft", "elif now >= self._deadline and self.may_stand:", "elif False:"),
    ),
    mutant(
        "an append does not restart the election timeout",
        figures.test_followers_appends_of_the_leader_and_granted_votes_restart_the_timeout,
        (
            "following",
            "        self._deadline = self._now + self._election_timeout()\n        return True",
            "        return True",
        ),
    ),
    mutant(
        "a granted vote does not restart the election timeout",
        figures.test_followers_appends_of_the_leader_and_granted_votes_restart_the_timeout,
        (
            "elections",
            "            self._deadline = self._now + self._election_timeout()\n        self._promise",
            "        self._promise",
        ),
    ),
    mutant(
        "a refused vote restarts the election timeout",
        figures.test_followers_a_refused_vote_does_not_restart_the_timeout,
        (
            "elections",
            "        self._promise(sender, Vote(self.current_term, granted), link)",
            "        self._deadline = self._now + self._election_timeout()\n"
            "        self._promise(sender, Vote(self.current_term, granted), link)",
        ),
    ),
    mutant(
        "a candidate does not vote for itself",
        figures.test_candidates_a_new_term_a_vote_for_itself_and_requests_to_all,
        (
            "elections",
            "        self.role = Role.CANDIDATE\n        self.voted_for = self.node_id\n",
            "        self.role = Role.CANDIDATE\n",
        ),
    ),
    mutant(
        "half is a majority",
        figures.test_candidates_a_majority_makes_a_leader,
        ("quorum", "return 2 * len(voters & yes) > len(voters)", "return 2 * len(voters & yes) + 1 >= len(voters)"),
    ),
    mutant(
        "a candidate does not yield to its term's leader",
        figures.test_candidates_an_append_of_the_terms_leader_makes_a_follower,
        (
            "following",
            "        if self.standing is Standing.MEMBER:\n            self.role = Role.FOLLOWER\n",
            "",
        ),
    ),
    mutant(
        "no heartbeats",
        figures.test_leaders_assert_themselves_at_once_and_in_every_idle_period,
        ("raft", "        if now >= leadership.heartbeat_at:\n", "        if False:\n"),
    ),
    mutant(
        "no NOOP",
        figures.test_leaders_assert_themselves_at_once_and_in_every_idle_period,
        ("elections", '            self._append([b"NOOP"])\n', "            pass\n"),
    ),
    mutant(
        "a command is committed as it is appended",
        figures.test_leaders_append_commands_and_report_them_when_committed,
        (
            "leading",
            "return int(majority_value(voters, values, 0))",
            "return own_durable",
        ),
    ),
    mutant(
        "match does not move",
        figures.test_leaders_a_success_moves_match_and_next,
        ("progress", "            self.match_index = index\n", "            pass\n"),
    ),
    mutant(
        "a refusal does not move next back",
        figures.test_leaders_a_mismatch_moves_next_back_and_is_tried_again,
        ("leading", "        if hint + 1 < progress.next_index:\n", "        if False:\n"),
    ),
    mutant(
        "half of the copies commit",
        figures.test_leaders_commit_what_a_majority_has,
        ("quorum", "return reached[len(reached) // 2]", "return reached[(len(reached) - 1) // 2 - 1]"),
    ),
    mutant(
        "entries of older terms are committed by counting",
        figures.test_leaders_commit_by_counting_entries_of_their_own_term_only,
        (
            "raft",
            "if index <= self.commit_index or self.log.term_at(index) != self.current_term:",
            "if index <= self.commit_index:",
        ),
    ),
    mutant(
        "a stale snapshot is installed",
        figures.test_install_5_an_older_one_than_ours_changes_nothing,
        ("following", "return last_included_index <= self.commit_index", "return False"),
        (
            "following",
            "        if index <= self.last_applied:\n            raise",
            "        if False:\n            raise",
        ),
    ),
    mutant(
        "an install drops what follows",
        figures.test_install_6_what_follows_the_last_included_entry_stays,
        ("following", "        if self.log.matches(index, term):\n", "        if False:\n"),
    ),
    mutant(
        "an install keeps a tail that conflicts",
        figures.test_install_7_otherwise_the_whole_log_goes,
        ("following", "        if self.log.matches(index, term):\n", "        if index <= self.log.last_index:\n"),
    ),
    mutant(
        "an install keeps the old voters",
        figures.test_install_8_state_and_configuration_are_the_snapshots,
        ("following", "        self._voters = VoterHistory(voters)\n        for tail_index", "        for tail_index"),
    ),
    mutant(
        "an install is answered before it is durable",
        figures.test_install_answers_only_when_all_of_it_is_stable,
        ("promises", "            if ticket:\n", "            if False:\n"),
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_without_its_rule_a_test_fails(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_failure(case, monkeypatch)


def test_every_sentence_has_a_mutant_or_a_reason() -> None:
    """A rule that no mutant takes out is named here with the rule whose mutant covers it."""
    covered = {case.values[0].test.__name__ for case in CASES}  # type: ignore[attr-defined]
    elsewhere = {
        "test_append_4_entries_not_held_are_appended_once",  # `RaftLog.merge`: tests/hot
        "test_vote_2_only_for_a_log_as_up_to_date_as_ours",  # the table of the one below it
        "test_all_servers_what_is_committed_is_applied_in_order",  # who applies is not the core
        "test_candidates_a_timeout_begins_a_new_election",  # "nobody stands"
        "test_leaders_send_what_stands_at_next_index_and_after",  # "a refusal does not move next back"
        "test_install_1_a_lower_term_is_refused",  # one piece of code with append 1
    }
    named = {
        name
        for name, value in vars(figures).items()
        if name.startswith("test_") and "log_class" in inspect.signature(value).parameters
    }
    assert named - covered == elsewhere
