"""Rules that stories tell and that reviews found, taken out of the core one at a time: story or test sees each gone."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import test_lost_and_tail as lost
import test_review as review
import test_rules_of_following as following
import test_rules_of_leading as leading
import test_rules_of_voting as voting
import test_tables as tables
from mutants import Mutant, expect_failure, given, mutant
from scenario import Scenario

TESTDATA = Path(__file__).parent / "testdata"


def untold(rule: str, story: str, *changes: tuple[str, str, str], source: str) -> Any:
    """A mutant that the story of that name kills."""

    def told(log_class: type) -> None:
        text = (TESTDATA / f"{story}.txt").read_text(encoding="utf-8")
        for happens, line in zip_longest(Scenario(log_class).run(text).split("\n"), text.split("\n")):
            if happens != line:  # the whole text in one assertion costs pytest seconds to explain
                pytest.fail(f"{line!r} is told, {happens!r} happens")

    told.__name__ = f"story {story}"
    return mutant(rule, told, *changes, source=source)


GRANTS = "return self.node_id in self.members and not self.reads_history"
REFUSES = "self._promise(sender, AppendEntriesAck(self.current_term, False, 0, self.repl_offset), link)"
LEASE = "refused = self.lease_is_live(self._now) and not message.transfer"
TRIM = "target = min(last_applied - config.trim_keep, least_needed(now), self._applied_long_ago(boundary, now))"

CASES = [
    # PROTOCOL 3 and 4: timers and elections
    untold(
        "no pre-vote",
        "prevote_isolated_node",
        (
            "elections",
            "            return\n        self._begin_pre_vote()",
            "            return\n        self._begin_election(transfer=False)",
        ),
        source="PROTOCOL 4",
    ),
    untold(
        "no lease against pre-votes",
        "prevote_denied_by_lease",
        ("elections", " and message.term > self.current_term and not self.lease_is_live(self._now)", ""),
        source="PROTOCOL 4",
    ),
    untold(
        "the leader has no lease of its own",
        "disruptive_server",
        (
            "core",
            "        if self.leadership is not None:\n            return True\n        return self.leader_id",
            "        return self.leader_id",
        ),
        source="PROTOCOL 4",
    ),
    untold(
        "a pre-candidate that learns a term waits anew",
        "prevote_learns_higher_term",
        ("elections", "keeps_asking = self.role is Role.PRE_CANDIDATE", "keeps_asking = False"),
        source="PROTOCOL 4",
    ),
    untold(
        "its own vote counts before it is durable",
        "election_own_vote_durable",
        (
            "elections",
            "        self._transfer_election = transfer\n",
            "        self._transfer_election = transfer\n        self._granted = {self.node_id}\n",
        ),
        source="PROTOCOL 4",
    ),
    untold(
        "who has not granted is not asked again",
        "votes_asked_again",
        ("raft", "elif self.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and now >= self._ask_at:", "elif False:"),
        source="PROTOCOL 4",
    ),
    untold(
        "a leader that nobody answers goes on",
        "quorum_freshness",
        ("raft", "if now - leadership.quorum_fresh_since(self.voters, now) > self.config.node_timeout:", "if False:"),
        source="PROTOCOL 3",
    ),
    untold(
        "freshness counts from the arrival of the answer",
        "quorum_freshness",
        ("leading", "progress.fresh_at = max(progress.fresh_at, self._began(ack.round))", "progress.fresh_at = now"),
        source="PROTOCOL 3",
    ),
    untold(
        "a joiner grants nothing, whatever its log says",
        "joiner_votes_by_its_log",
        (
            "core",
            GRANTS,
            "return False",
        ),
        source="PROTOCOL 4",
    ),
    untold(
        "a joiner grants, whatever its log says",
        "joiner_votes_by_its_log",
        (
            "core",
            GRANTS,
            "return True",
        ),
        source="PROTOCOL 4",
    ),
    # PROTOCOL 4: transfer
    untold(
        "TIMEOUT_NOW of anybody is obeyed",
        "timeout_now_once",
        ("elections", "            and sender == self.leader_id\n", ""),
        source="PROTOCOL 4",
    ),
    untold(
        "TIMEOUT_NOW of any term is obeyed",
        "timeout_now_once",
        (
            "elections",
            "            self._learn_term(message.term, link)\n        elif (",
            "            self.current_term = message.term\n        if (",
        ),
        source="PROTOCOL 4",
    ),
    untold(
        "the transfer's token passes no lease",
        "transfer_happy",
        ("elections", LEASE, "refused = self.lease_is_live(self._now)"),
        source="PROTOCOL 4",
    ),
    untold(
        "the transfer's election has no token",
        "transfer_happy",
        ("elections", "last_index, last_term, self._transfer_election)", "last_index, last_term, False)"),
        source="PROTOCOL 4",
    ),
    untold(
        "any election passes the leases",
        "transfer_needs_token",
        ("elections", LEASE, "refused = False"),
        source="PROTOCOL 4",
    ),
    untold(
        "later elections carry the token too",
        "transfer_token_once",
        ("elections", "self._transfer_election = transfer\n", "self._transfer_election |= transfer\n"),
        source="PROTOCOL 4",
    ),
    untold(
        "the target is told before it has the whole log",
        "transfer_target_behind",
        ("leading", " and progress.match_index == raft.log.last_index:", ":"),
        source="PROTOCOL 4",
    ),
    untold(
        "a transfer never ends",
        "transfer_timeout",
        ("leading", "if self._transfer is not None and now >= self._transfer[1]:", "if False:"),
        source="PROTOCOL 4",
    ),
    untold(
        "leadership goes to who is dead",
        "transfer_dead_target",
        (
            "raft",
            "if peer not in self._voters or not leadership.is_live(peer, self._now):",
            "if peer not in self._voters:",
        ),
        source="PROTOCOL 4",
    ),
    # PROTOCOL 5: replication
    untold(
        "a lower term is not answered",
        "step_down_answers",
        (
            "following",
            REFUSES,
            "pass",
        ),
        source="PROTOCOL 5",
    ),
    untold(
        "prev below the boundary is a mismatch",
        "prev_below_boundary",
        ("following", "if prev >= self.log.boundary_index and not self.log", "if not self.log"),
        source="PROTOCOL 5",
    ),
    untold(
        "a mismatch at what is committed is a refusal",
        "mismatch_below_commit",
        ("following", "        if prev <= self.commit_index:\n", "        if False:\n"),
        source="PROTOCOL 5",
    ),
    untold(
        "the boundary's term is not looked at",
        "mismatch_below_commit",
        ("following", "        if sent_term != self.log.boundary_term:\n", "        if False:\n"),
        source="PROTOCOL 5",
    ),
    untold(
        "who echoes no rounds is sent a window",
        "no_window_without_rounds",
        (
            "progress",
            "if self.state is ProgressState.PROBE or not self.echoes_rounds:",
            "if self.state is ProgressState.PROBE:",
        ),
        source="PROTOCOL 5",
    ),
    untold(
        "who echoes no rounds is sent heartbeats on top",
        "no_window_without_rounds",
        ("progress", " and (bool(self.echoes_rounds) or not self.unanswered)", ""),
        source="PROTOCOL 5",
    ),
    untold(
        "the steps back do not double",
        "conflict_doubling_steps",
        ("leading", "1 << min(progress.refusals, 62)", "1"),
        source="PROTOCOL 5",
    ),
    untold(
        "a moved commit index waits for the heartbeat",
        "noop",
        ("leading", "behind = (commit if commit < prev else prev) > progress.sent_commit", "behind = False"),
        source="PROTOCOL 5",
    ),
    untold(
        "learners count",
        "learner_not_counted",
        ("leading", "majority_value(voters, values, 0)", "majority_value(set(values), values, 0)"),
        source="PROTOCOL 5",
    ),
    untold(
        "who lost its log is served",
        "lost_log",
        (
            "leading",
            "if not progress.linked or progress.lost_log:\n                continue",
            "if not progress.linked:\n                continue",
        ),
        ("progress", "if not self.linked or self.lost_log or self.state", "if not self.linked or self.state"),
        source="PROTOCOL 5",
    ),
    # PROTOCOL 5.6: reads
    untold(
        "reads before the NOOP is committed",
        "read_index",
        (
            "raft",
            "if leadership.reads.wants_round and self.commit_index >= leadership.first_index:",
            "if leadership.reads.wants_round:",
        ),
        source="PROTOCOL 5.6",
    ),
    untold(
        "who echoes no rounds confirms",
        "read_index_after_pause",
        (
            "leading",
            "            progress.echoes_rounds = False\n",
            "            progress.echoes_rounds = False\n            progress.acked_round = self._round\n",
        ),
        source="PROTOCOL 5.6",
    ),
    untold(
        "reads are not failed by a lost leadership",
        "read_index_lost_leadership",
        (
            "core",
            "        self._update.reads_failed.extend(self.leadership.reads.fail_all())\n        self.leadership",
            "        self.leadership",
        ),
        source="PROTOCOL 5.6",
    ),
    untold(
        "reads during a transfer",
        "read_index_transfer",
        ("raft", "if self.leadership is None or self.leadership.transferring:", "if self.leadership is None:"),
        source="PROTOCOL 5.6",
    ),
    # PROTOCOL 7: compaction
    untold(
        "what a live member lacks is trimmed",
        "trim_live_member",
        ("trimming", TRIM, TRIM.replace("least_needed(now), ", "")),
        source="PROTOCOL 7",
    ),
    untold(
        "what was just applied is trimmed",
        "trim_live_member",
        ("trimming", TRIM, TRIM.replace(", self._applied_long_ago(boundary, now)", "")),
        source="PROTOCOL 7",
    ),
    untold(
        "trimmed as soon as there is more than trim_keep",
        "trim_rule",
        (
            "trimming",
            "if last_applied - boundary > 2 * config.trim_keep:",
            "if last_applied - boundary > config.trim_keep:",
        ),
        source="PROTOCOL 7",
    ),
    untold(
        "a log grows beyond max_log_bytes",
        "trim_max_log_bytes",
        ("trimming", "        if log.nbytes > self.most_bytes:\n", "        if False:\n"),
        source="PROTOCOL 7",
    ),
    untold(
        "what is not applied is trimmed",
        "trim_max_log_bytes",
        ("trimming", "while excess > 0 and index < last_applied:", "while excess > 0 and index < log.last_index:"),
        source="PROTOCOL 7",
    ),
    untold(
        "no heartbeats to who needs a snapshot",
        "snapshot_lost",
        ("leading", "        if due and progress.may_heartbeat():\n", "        if False:\n"),
        source="PROTOCOL 7",
    ),
    untold(
        "a heartbeat at prev below the boundary to who needs a snapshot",
        "front_no_snapshot_storm",
        (
            "leading",
            "if progress.next_index <= boundary:",
            "if progress.next_index <= boundary + 1:",
        ),
        source="PROTOCOL 7",
    ),
    untold(
        "an empty log ends in term 0",
        "front_empty_log_votes",
        ("elections", "< (self.log.last_term,", "< (self.log.last_term if len(self.log) else 0,"),
        source="PROTOCOL 7",
    ),
    untold(
        "an install keeps a tail that follows another entry",
        "front_retained_tail",
        ("following", "        if self.log.matches(index, term):\n", "        if index <= self.log.last_index:\n"),
        source="PROTOCOL 7",
    ),
    untold(
        "an install forgets the voters of the tail that it keeps",
        "install_voters",
        (
            "following",
            "            self._voters.appended(tail_index, line)\n        self.commit_index",
            "            pass\n        self.commit_index",
        ),
        source="PROTOCOL 7",
    ),
    untold(
        "what is only committed is installed over",
        "install_races_apply",
        (
            "following",
            "return last_included_index <= self.commit_index",
            "return last_included_index <= self.last_applied",
        ),
        source="PROTOCOL 7",
    ),
    untold(
        "an install is acknowledged while it is being stored",
        "install_crash",
        ("following", "index = min(self.verified_index, self._durability.index)\n", "index = self.verified_index\n"),
        ("promises", "            if ticket:\n", "            if False:\n"),
        source="PROTOCOL 7",
    ),
    untold(
        "the tail of a snapshot under way is trimmed",
        "snapshot_keeps_its_tail",
        (
            "leading",
            "            progress.snapshot_index or progress.hold_index or progress.match_index\n",
            "            progress.match_index\n",
        ),
        (
            "leading",
            "if not progress.lost_log and (progress.snapshot_index or self.is_live(peer, now))",
            "if self.is_live(peer, now) and not progress.snapshot_index",
        ),
        source="PROTOCOL 7",
    ),
    # PROTOCOL 8: membership
    untold(
        "who was taken out by an uncommitted entry may not stand",
        "voter_change_removes_leader",
        ("core", " or self._voters.taken_out_since(self.commit_index, self.node_id)", ""),
        source="PROTOCOL 8",
    ),
    untold(
        "a leader that was taken out goes on",
        "voter_change_removes_leader",
        ("raft", "            self._hand_over_as_removed(leadership)\n", "            pass\n"),
        source="PROTOCOL 8",
    ),
    untold(
        "a removed node grants votes",
        "removed_node_returns",
        ("elections", "        if not self.may_grant:\n            refused = True\n", ""),
        source="PROTOCOL 8",
    ),
    # what the simulator found
    mutant(
        "what a joiner acknowledged counts after it gave up",
        lost.test_what_a_joiner_acknowledged_before_it_gave_up_counts_no_more,
        (
            "raft",
            "if self.leadership is not None and self.leadership.counts_on(peer):",
            "if self.leadership is None:",
        ),
        source="PROTOCOL 3",
    ),
    mutant(
        "who lost its log is served because it joins",
        lost.test_who_lost_its_log_is_not_served_because_it_joins,
        (
            "leading",
            "return progress is not None and progress.match_index > 0 and not progress.lost_log",
            "return progress is not None and progress.match_index > 0",
        ),
        source="PROTOCOL 9",
    ),
    # what reviews found
    mutant(
        "who lost its log counts for commits",
        review.test_the_copy_of_a_member_that_lost_its_log_counts_for_no_commit,
        (
            "leading",
            "in self.peers.items() if not progress.lost_log\n        }\n        values[self._node_id] = own_durable",
            "in self.peers.items()\n        }\n        values[self._node_id] = own_durable",
        ),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "who lost its log confirms reads",
        review.test_the_answer_of_a_member_that_lost_its_log_confirms_no_read,
        ("leading", "if progress.acked_round >= number and not progress.lost_log", "if progress.acked_round >= number"),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "who lost its log keeps a leader in office",
        review.test_the_answer_of_a_member_that_lost_its_log_keeps_no_leader,
        (
            "leading",
            "progress.fresh_at for peer, progress in self.peers.items() if not progress.lost_log}",
            "progress.fresh_at for peer, progress in self.peers.items()}",
        ),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "a cut below a snapshot keeps the file's old lines behind it",
        review.test_a_snapshot_that_keeps_a_tail_taken_in_one_turn_with_a_cut_below_it,
        (
            "following",
            "            self._update.truncate_from = None\n            return None\n",
            "            return index\n",
        ),
        source="PROTOCOL 7",
    ),
    mutant(
        "entries that end at the boundary are not checked",
        given(review.test_another_term_at_the_boundary_stops_the_node_also_where_entries_end_there, type, 3),
        ("following", "elif end == self.log.boundary_index and end:", "elif False:"),
        source="PROTOCOL 5.1",
    ),
    mutant(
        "a transfer that is asked for again begins again",
        review.test_asking_for_a_transfer_again_and_again_does_not_hold_back_proposals_for_ever,
        (
            "raft",
            "if leadership.transfer_target is not None and peer in (None, leadership.transfer_target):",
            "if False:",
        ),
        source="PROTOCOL 4",
    ),
    mutant(
        "a stalled disk deposes where nobody else could lead",
        review.test_a_slow_disk_deposes_nobody_where_the_others_could_elect_nobody,
        ("raft", "if stalled and is_majority(self.voters, leadership.live(now)):", "if stalled:"),
        source="PROTOCOL 10",
    ),
    mutant(
        "reads that wait outlive the leader's own removal",
        review.test_a_leader_that_was_taken_out_fails_the_reads_that_wait,
        (
            "raft",
            "            self._update.reads_failed.extend(leadership.reads.fail_all())\n            target",
            "            target",
        ),
        source="PROTOCOL 5.6",
    ),
    mutant(
        "the old leader is silent since the election only",
        review.test_the_old_leader_that_joins_again_is_not_taken_for_silent_since_the_election,
        ("leading", "progress.silent_since = self._old_leader[1]", "pass"),
        source="PROTOCOL 4",
    ),
    mutant(
        "a joiner grants votes in history",
        review.test_a_joiner_grants_no_vote_before_its_log_reaches_what_was_committed_when_it_came,
        ("core", " and not self.reads_history", ""),
        source="PROTOCOL 4",
    ),
    mutant(
        "a learner that a voter needs does not stand",
        review.test_a_learner_that_a_voter_needs_stands_where_nobody_else_can_win,
        ("core", "return self._now < self._needed_until", "return False"),
        source="PROTOCOL 4",
    ),
    mutant(
        "a learner that a voter needed stands for ever",
        review.test_a_learner_that_nobody_needs_does_not_stand_for_long,
        ("core", "return self._now < self._needed_until", "return self._needed_until > 0"),
        source="PROTOCOL 4",
    ),
    mutant(
        "who is asked for a vote stands",
        review.test_a_learner_that_nobody_needs_does_not_stand_for_long,
        ("elections", "if is_free and is_behind:", "if True:"),
        source="PROTOCOL 4",
    ),
    mutant(
        "who led before is silent since then, whoever led meanwhile",
        review.test_who_led_before_our_own_last_term_is_not_silent_since_then,
        ("elections", "        self._old_leader = None  #", "        #"),
        source="PROTOCOL 4",
    ),
    mutant(
        "a stale snapshot is answered by what was verified",
        review.test_a_stale_snapshot_is_answered_with_what_is_committed_and_durable,
        ("following", "self.verified_index = max(self.verified_index, self.commit_index)  # which", "pass  # which"),
        source="PROTOCOL 7",
    ),
    mutant(
        "a slow disk answers nothing",
        review.test_while_a_write_takes_long_further_entries_are_answered_with_what_is_durable_so_far,
        ("raft", "slow = self._durability.is_slow(self._now, self.config.node_timeout / 4)", "slow = False"),
        source="PROTOCOL 5.2",
    ),
    mutant(
        "a slow disk lets a term out that is not durable",
        review.test_a_slow_disk_lets_nothing_out_of_a_term_that_is_not_durable,
        ("promises", "(disk_is_slow and not promised)", "disk_is_slow"),
        source="PROTOCOL 5.5",
    ),
    mutant(
        "the tail is trimmed while the snapshot is being written",
        review.test_the_tail_of_a_snapshot_is_kept_while_it_is_being_written,
        ("leading", "if progress.hold_index < raft.log.boundary_index:", "if True:"),
        source="PROTOCOL 7",
    ),
    mutant(
        "two leaders in a term are obeyed",
        review.test_two_leaders_in_one_term_are_seen_also_where_we_look_for_another,
        ("following", "if term == self.current_term and self._term_leader not in (None, sender):", "if False:"),
        source="PROTOCOL 5.1",
    ),
    mutant(
        "promises outlive their term",
        given(tables.test_promises_of_a_term_that_has_passed_are_dropped),
        ("promises", "            if term == current_term:\n                yield send", "            yield send"),
        source="PROTOCOL 5.3",
    ),
    *voting.CASES,
    *following.CASES,
    *leading.CASES,
]


@pytest.mark.parametrize("case", CASES)
def test_without_its_rule_a_test_fails(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_failure(case, monkeypatch)
