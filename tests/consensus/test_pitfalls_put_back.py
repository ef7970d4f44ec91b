"""The bugs of `test_pitfalls.py` put back, one at a time: the test named for each fails."""

from __future__ import annotations

import inspect

import pytest
import test_pitfalls as pitfalls
from mutants import Mutant, expect_failure, mutant

COMMIT = "self.commit_index = max(self.commit_index, min(message.leader_commit, end))"
MERGE = "first, dropped = self.log.merge(prev, message.terms, message.lines, self.commit_index)"
WITHIN = '"""Within the term: the vote stays. **(stricter, PROTOCOL 4)**"""\n'
TERM_OF_ENTRY = "if index <= self.commit_index or self.log.term_at(index) != self.current_term:"

CASES = [
    mutant(
        "etcd 2461",
        pitfalls.test_etcd_2461_vote_kept_on_step_down_within_a_term,
        ("elections", WITHIN, "self.voted_for = None\n"),
    ),
    mutant(
        "etcd 2461, candidate",
        pitfalls.test_etcd_2461_vote_kept_when_a_candidate_hears_its_terms_leader,
        (
            "following",
            "        if term > self.current_term:\n            self._adopt_term(term)\n        if self.st",
            "        if term >= self.current_term:\n            self._adopt_term(term)\n        if self.st",
        ),
    ),
    mutant(
        "openraft, late grants",
        pitfalls.test_openraft_2026_grants_are_a_set_of_voters_and_late_ones_change_nothing,
        ("elections", "elif self.role is Role.CANDIDATE and message.granted", "elif message.granted"),
        (
            "elections",
            "(self.voters, self._granted):\n            self._lead()",
            "({'5'}, self._granted):\n            self._lead()",
        ),
    ),
    mutant(
        "valkey 3887",
        pitfalls.test_valkey_3887_term_and_self_vote_are_durable_before_the_request_leaves,
        (
            "elections",
            "            return self._durability.hard_state == self.hard_state\n",
            "            return True\n",
        ),
    ),
    mutant(
        "canonical raft 279",
        pitfalls.test_canonical_raft_279_a_denied_pre_vote_tells_the_higher_term,
        (
            "elections",
            "PreVote(message.term if granted else self.current_term, granted)",
            "PreVote(message.term, granted)",
        ),
    ),
    mutant(
        "valkey 4015, lease",
        pitfalls.test_valkey_4015_the_lease_is_not_the_randomised_timeout,
        ("core", "now - self._contact < self.config.node_timeout", "now < self._deadline"),
    ),
    mutant(
        "valkey 4015, term first",
        pitfalls.test_valkey_4015_the_lease_is_looked_at_before_the_term,
        ("elections", "refused = self.lease_is_live(self._now) and not message.transfer", "refused = False"),
    ),
    mutant(
        "hashicorp 476",
        pitfalls.test_hashicorp_476_a_removed_node_deposes_nobody,
        ("elections", "return (last_term, last_index) < (self.log.last_term, self.log.last_index)", "return False"),
        ("elections", " and message.term > self.current_term and not self.lease_is_live(self._now)", ""),
        ("elections", "refused = self.lease_is_live(self._now) and not message.transfer", "refused = False"),
    ),
    mutant(
        "hashicorp 476, removed",
        pitfalls.test_hashicorp_476_who_applied_its_removal_stands_no_more,
        ("core", "if self.standing is not Standing.MEMBER or self.disk_stalled:", "if self.disk_stalled:"),
        ("core", "if self.node_id in self._voters or", "if True or"),
    ),
    mutant(
        "valkey 4008",
        pitfalls.test_valkey_4008_an_empty_log_ends_at_its_boundary,
        ("elections", "< (self.log.last_term,", "< (self.log.last_term if len(self.log) else 0,"),
    ),
    mutant(
        "stale tail, commit",
        pitfalls.test_a_stale_tail_is_neither_acknowledged_nor_committed,
        ("following", COMMIT, COMMIT.replace("end)", "self.log.last_index)")),
    ),
    mutant(
        "stale tail, answer",
        pitfalls.test_a_stale_tail_is_neither_acknowledged_nor_committed,
        ("following", "index = min(self.verified_index, self._durability.index)", "index = self._durability.index"),
    ),
    mutant(
        "yugabyte 32875",
        pitfalls.test_yugabyte_32875_a_heartbeats_answer_is_not_ahead_of_the_disk,
        ("following", "index = min(self.verified_index, self._durability.index)", "index = self.verified_index"),
    ),
    mutant(
        "rabbitmq ra 637",
        pitfalls.test_rabbitmq_ra_637_what_is_verified_falls_with_a_truncation,
        ("durability", "        self.index = min(self.index, index)\n", ""),
    ),
    mutant(
        "openraft 511",
        pitfalls.test_openraft_511_an_overlapping_append_deletes_nothing_that_matches,
        ("following", MERGE, f"self.log.truncate_from(prev + 1); self._truncated_from(prev + 1); {MERGE}"),
    ),
    mutant(
        "redislabs raft 49",
        pitfalls.test_redislabs_raft_49_prev_zero_on_a_compacted_log_appends_nothing_twice,
        ("following", MERGE, f"prev = prev or self.log.boundary_index; {MERGE}"),
    ),
    mutant(
        "logcabin 44",
        pitfalls.test_logcabin_44_an_older_terms_entry_is_not_committed_by_counting,
        ("raft", TERM_OF_ENTRY, "if index <= self.commit_index:"),
    ),
    mutant(
        "no NOOP",
        pitfalls.test_a_new_leader_commits_what_it_found_without_waiting_for_a_writer,
        ("elections", '            self._append([b"NOOP"])\n', "            pass\n"),
    ),
    mutant(
        "pysyncobj 166",
        pitfalls.test_pysyncobj_166_match_and_commit_never_move_back,
        ("progress", "        moved = index > self.match_index\n", "        moved = True\n"),
    ),
    mutant(
        "etcd ABA",
        pitfalls.test_etcd_aba_a_write_overtaken_by_a_truncation_vouches_for_nothing,
        ("durability", "            job.last_index = min(job.last_index, index)\n", "            pass\n"),
    ),
    mutant(
        "one index a refusal",
        pitfalls.test_a_long_divergence_takes_few_round_trips,
        ("following", "hint = self.log.hint(prev, message.prev_log_term)", "hint = prev - 1"),
        ("leading", "1 << min(progress.refusals, 62)", "1"),
    ),
    mutant(
        "one index a refusal, over older terms",
        pitfalls.test_a_long_tail_of_older_terms_takes_few_round_trips,
        ("leading", "1 << min(progress.refusals, 62)", "1"),
    ),
    mutant(
        "the whole suffix each time",
        pitfalls.test_only_new_entries_go_out_at_each_broadcast,
        ("progress", "            self.next_index = prev_index + count + 1\n", "            pass\n"),
    ),
    mutant(
        "hashicorp 541, count",
        pitfalls.test_hashicorp_541_the_pipeline_is_no_deeper_than_configured,
        ("progress", "return len(self._inflight) < max_inflight and self", "return self"),
    ),
    mutant(
        "hashicorp 541, bytes",
        pitfalls.test_hashicorp_541_the_pipeline_is_no_deeper_than_configured,
        ("progress", " and self.inflight_bytes < max_inflight_bytes", ""),
    ),
    mutant(
        "braft 528",
        pitfalls.test_braft_528_who_stands_at_the_boundary_needs_no_snapshot,
        (
            "leading",
            "if progress.next_index <= boundary:",
            "if progress.next_index <= raft.log.first_index:",
        ),
    ),
    mutant(
        "openraft 531",
        pitfalls.test_openraft_531_an_older_snapshot_takes_nothing_back,
        ("following", "return last_included_index <= self.commit_index", "return False"),
        (
            "following",
            "        if index <= self.last_applied:\n            raise",
            "        if False:\n            raise",
        ),
    ),
    mutant(
        "hashicorp 704",
        pitfalls.test_hashicorp_704_a_conflict_at_the_last_included_entry_takes_the_tail_too,
        ("following", "        if self.log.matches(index, term):\n", "        if index <= self.log.last_index:\n"),
    ),
    mutant(
        "consul 9609",
        pitfalls.test_consul_9609_what_follows_a_snapshot_under_way_is_not_trimmed,
        (
            "leading",
            "            progress.snapshot_index = progress.hold_index = last_included_index\n",
            "            pass\n",
        ),
    ),
    mutant(
        "willemt 118",
        pitfalls.test_willemt_118_an_install_drops_writes_under_way,
        ("following", "        self._durability.fall_to(min(self.commit_index, index))\n", ""),
    ),
    mutant(
        "voters lost on install",
        pitfalls.test_voters_are_not_lost_on_install,
        ("following", "        self._voters = VoterHistory(voters)\n        for tail_index", "        for tail_index"),
    ),
    mutant(
        "a lost snapshot",
        pitfalls.test_a_snapshot_that_was_lost_is_asked_for_again,
        ("leading", "        if not progress.snapshot_index:\n", "        if False:\n"),
    ),
    mutant(
        "valkey 3926",
        pitfalls.test_valkey_3926_no_second_voter_change_in_flight,
        ("core", "return self._voters.newest_change() > self.commit_index or", "return"),
    ),
    mutant(
        "a found voter change forgotten",
        pitfalls.test_a_new_leader_does_not_forget_a_voter_change_that_it_found,
        (
            "core",
            "self._voters.appended(index, line)\n        self._enter_standing",
            "pass\n        self._enter_standing",
        ),
    ),
    mutant(
        "etcd 21178",
        pitfalls.test_etcd_21178_a_wiped_member_is_reported_and_never_told_to_commit_what_it_lacks,
        ("leading", "if first_on_link and ack.index < progress.match_index:", "if False:"),
    ),
    mutant(
        "a singleton takes orders",
        pitfalls.test_a_singleton_that_restarts_takes_no_orders_and_counts_by_itself_alone,
        (
            "following",
            'if self.alone:\n            self._close(link, "a leader',
            'if False:\n            self._close(link, "a leader',
        ),
    ),
    mutant(
        "hashicorp 503",
        pitfalls.test_hashicorp_503_a_leader_with_a_hanging_disk_does_not_keep_its_office,
        ("leading", "return now - self._disk_at > limit and now - self._commit_at > limit", "return False"),
    ),
    mutant(
        "etcd 20418",
        pitfalls.test_etcd_20418_a_round_from_before_a_read_does_not_confirm_it,
        ("leading", "progress.acked_round >= number", "progress.acked_round >= number - 1"),
    ),
    mutant(
        "openraft 1747",
        pitfalls.test_openraft_1747_no_read_during_a_transfer,
        ("raft", "if self.leadership is None or self.leadership.transferring:", "if self.leadership is None:"),
    ),
    mutant(
        "openraft 1747, reads that wait",
        pitfalls.test_openraft_1747_no_read_during_a_transfer,
        (
            "raft",
            "self._update.reads_failed.extend(leadership.reads.fail_all())\n        return target",
            "return target",
        ),
    ),
    mutant(
        "restate 3135",
        pitfalls.test_restate_3135_what_was_not_appended_is_dropped_and_nothing_else_is,
        ("raft", "        if not self.accepts_proposals:\n", "        if False:\n"),
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_with_its_bug_a_test_fails(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_failure(case, monkeypatch)


def test_every_pitfall_has_a_mutant_or_a_reason() -> None:
    covered = {case.values[0].test.__name__ for case in CASES}  # type: ignore[attr-defined]
    elsewhere = {
        "test_hashicorp_86_a_log_without_trailing_entries_goes_on_at_its_boundary",  # `RaftLog.term_at`: tests/hot
        "test_openraft_2026_an_answer_of_an_old_link_counts_for_nothing",  # whoever sends drops it: the world, the node
    }
    named = {
        name
        for name, value in vars(pitfalls).items()
        if name.startswith("test_") and "log_class" in inspect.signature(value).parameters
    }
    assert named - covered == elsewhere
