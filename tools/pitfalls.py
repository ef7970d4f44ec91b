"""Which tests hold each bug on record in other Raft systems, and each rule that is stricter than the public form.

Data for `tools/mutations.py`: `folder/module::test` under tests/, a whole module `folder/module`, a story
`consensus/testdata/name.txt`. No tests means that none is known: the document then says MISSING.
"""

from __future__ import annotations

BUGS = "consensus/test_pitfalls::test_"
STORY = "consensus/testdata/"
STRICT = "consensus/test_stricter::test_"
MEMBERS = "consensus/test_stricter_members::test_"
FOUND = "testing/test_found::test_"
REVIEW = "consensus/test_review::test_"
STORE = "storage/test_storage_store::test_"

PITFALLS: dict[str, dict[str, tuple[str, ...]]] = {
    "Votes and elections": {
        "a step-down within a term clears the vote": (
            BUGS + "etcd_2461_vote_kept_on_step_down_within_a_term",
            BUGS + "etcd_2461_vote_kept_when_a_candidate_hears_its_terms_leader",
            STORY + "vote_kept_on_step_down.txt",
        ),
        "grants counted as messages; late grants counted after a win": (
            BUGS + "openraft_2026_grants_are_a_set_of_voters_and_late_ones_change_nothing",
            STRICT + "4_grants_are_counted_by_node_id_each_once",
            STORY + "election_split_vote.txt",
        ),
        "term and vote not durable before the request or the vote leaves": (
            BUGS + "valkey_3887_term_and_self_vote_are_durable_before_the_request_leaves",
            "consensus/test_sentences::test_term_and_vote_are_stable_before_a_vote_is_answered",
            STORY + "election_own_vote_durable.txt",
        ),
        "a pre-vote deadlock: the wrong term in the answer, a higher one never learned": (
            BUGS + "canonical_raft_279_a_denied_pre_vote_tells_the_higher_term",
            STRICT + "4_a_denied_pre_vote_brings_its_term",
            STORY + "prevote_learns_higher_term.txt",
        ),
        "the lease uses the randomised timeout; a higher term deposes before the lease is looked at": (
            BUGS + "valkey_4015_the_lease_is_not_the_randomised_timeout",
            BUGS + "valkey_4015_the_lease_is_looked_at_before_the_term",
            STORY + "prevote_denied_by_lease.txt",
        ),
        "a removed node keeps campaigning": (
            BUGS + "hashicorp_476_a_removed_node_deposes_nobody",
            BUGS + "hashicorp_476_who_applied_its_removal_stands_no_more",
            STORY + "disruptive_server.txt",
            STORY + "removed_node_returns.txt",
        ),
        "an empty log after compaction answers last term 0": (
            BUGS + "valkey_4008_an_empty_log_ends_at_its_boundary",
            STORY + "front_empty_log_votes.txt",
        ),
    },
    "Replication and commit": {
        "the last index is acknowledged, not the verified one": (
            BUGS + "a_stale_tail_is_neither_acknowledged_nor_committed",
            STRICT + "5_3_what_is_acknowledged_is_verified_not_the_last_index",
            STORY + "stale_tail_not_counted.txt",
        ),
        "an acknowledgement, of a heartbeat too, ahead of the disk; stale after a truncation": (
            BUGS + "yugabyte_32875_a_heartbeats_answer_is_not_ahead_of_the_disk",
            BUGS + "rabbitmq_ra_637_what_is_verified_falls_with_a_truncation",
        ),
        "the commit index taken from the own last index": (
            STRICT + "5_1_the_commit_index_stays_within_the_message",
            "consensus/test_sentences::test_append_5_the_commit_index_is_the_leaders_up_to_the_last_entry_of_the_message",
        ),
        "everything after prev deleted though it matches": (
            BUGS + "openraft_511_an_overlapping_append_deletes_nothing_that_matches",
            STORY + "duplicated_append.txt",
        ),
        "prev 0 on a compacted log appends twice": (
            BUGS + "redislabs_raft_49_prev_zero_on_a_compacted_log_appends_nothing_twice",
            STORY + "prev_below_boundary.txt",
        ),
        "an earlier term's entry committed by counting; nothing commits until somebody writes": (
            BUGS + "logcabin_44_an_older_terms_entry_is_not_committed_by_counting",
            BUGS + "a_new_leader_commits_what_it_found_without_waiting_for_a_writer",
            STORY + "figure_8.txt",
            STORY + "noop.txt",
        ),
        "a malformed or unknown entry skipped while the index moves on": (
            "hot/test_wire::test_a_batch_with_one_bad_entry_is_refused_whole",
            "cluster/test_cluster_review::test_a_malformed_entry_that_came_is_a_no_op_and_nothing_else",
        ),
        "an acknowledgement of an old link counted; match or commit moving back": (
            BUGS + "openraft_2026_an_answer_of_an_old_link_counts_for_nothing",
            BUGS + "pysyncobj_166_match_and_commit_never_move_back",
            STRICT + "5_3_a_success_vouches_for_what_was_sent_on_the_link_at_most",
        ),
        "a write overtaken by a truncation reported as stored": (
            BUGS + "etcd_aba_a_write_overtaken_by_a_truncation_vouches_for_nothing",
            STORY + "ticket_aba.txt",
        ),
        "one index back a refusal; the whole suffix at each broadcast": (
            BUGS + "a_long_divergence_takes_few_round_trips",
            BUGS + "a_long_tail_of_older_terms_takes_few_round_trips",
            BUGS + "only_new_entries_go_out_at_each_broadcast",
            STORY + "conflict_doubling_steps.txt",
        ),
        "deep pipelines that raise latency": (
            BUGS + "hashicorp_541_the_pipeline_is_no_deeper_than_configured",
            STORY + "pipeline.txt",
        ),
    },
    "Compaction and snapshots": {
        "term_at the boundary; a log without trailing entries": (
            BUGS + "hashicorp_86_a_log_without_trailing_entries_goes_on_at_its_boundary",
            "hot/test_log::test_everything_keeps_the_last_term",
            STORY + "front_no_trailing_entries.txt",
            STORY + "heartbeat_at_boundary.txt",
        ),
        "the wrong front checked: snapshot storms": (
            BUGS + "braft_528_who_stands_at_the_boundary_needs_no_snapshot",
            STORY + "front_no_snapshot_storm.txt",
        ),
        "retained entries that match nothing": (STORY + "front_retained_tail.txt",),
        "a snapshot labelled with another index or an inflated term": (
            "testing/test_mutations::a_snapshot_has_the_label_of_the_commit_index",
            "cluster/test_cluster_snapshot::test_a_snapshot_and_its_parts",
        ),
        "an older snapshot over newer state": (
            BUGS + "openraft_531_an_older_snapshot_takes_nothing_back",
            STORY + "install_stale.txt",
        ),
        "a conflict at the last included entry, the tail behind it kept": (
            BUGS + "hashicorp_704_a_conflict_at_the_last_included_entry_takes_the_tail_too",
            STORY + "install_conflict_drops_tail.txt",
        ),
        "endless snapshots: the tail does not cover the transfer": (
            BUGS + "consul_9609_what_follows_a_snapshot_under_way_is_not_trimmed",
            REVIEW + "the_tail_of_a_snapshot_is_kept_while_it_is_being_written",
            STORY + "snapshot_keeps_its_tail.txt",
        ),
        "an install racing with apply or append": (
            BUGS + "willemt_118_an_install_drops_writes_under_way",
            STORY + "install_races_apply.txt",
            STORY + "install_overtaken.txt",
            STORY + "install_tickets_in_flight.txt",
        ),
        "voters lost on install": (BUGS + "voters_are_not_lost_on_install", STORY + "install_voters.txt"),
        "clients left hanging when their entry is in a snapshot": (
            "node/test_node_snapshots::test_commands_of_a_node_that_installs_a_snapshot_are_answered",
        ),
        "the next index moved past a snapshot that was lost": (
            BUGS + "a_snapshot_that_was_lost_is_asked_for_again",
            STORY + "snapshot_lost.txt",
        ),
        "parsing into live state: flags only added, half a state, a process killed": (
            "cluster/test_cluster_snapshot::test_flags_come_from_the_lines_alone",
            "cluster/test_cluster_snapshot::test_bad_node_lines_refuse_the_whole",
        ),
        "state and applied index not saved in one step": (
            "storage/test_storage_crash::test_a_crash_at_every_call",
            STORY + "install_crash.txt",
        ),
        "a snapshot serialised on the loop": (
            "node/test_node_snapshots::test_a_big_state_moves_in_pieces_while_commands_go_on",
            "member/test_member_review::test_capturing_the_state_encodes_no_session_table",
        ),
    },
    "Membership": {
        "several voter changes in flight, quorum on apply": (
            BUGS + "valkey_3926_no_second_voter_change_in_flight",
            STORY + "voter_change_joint_majorities.txt",
        ),
        "learners that refuse, voters that refuse those they know as learners": (
            STRICT + "4_who_knows_whom_as_a_voter_is_no_condition_for_granting",
            STORY + "learner_votes.txt",
            STORY + "joiner_votes_by_its_log.txt",
        ),
        "a new leader forgets an unapplied change; a change before an entry of the own term": (
            BUGS + "a_new_leader_does_not_forget_a_voter_change_that_it_found",
            MEMBERS + "8_no_voter_change_before_an_entry_of_the_own_term_is_committed",
        ),
        "nodes not yet joined saved as members": (
            "hot/test_nodesconf_dump::test_nodes_that_have_not_joined_are_not_written_but_myself_is",
        ),
        "a singleton that restarts and commits alone": (
            BUGS + "a_singleton_that_restarts_takes_no_orders_and_counts_by_itself_alone",
        ),
        "a wiped member under its old id": (
            BUGS + "etcd_21178_a_wiped_member_is_reported_and_never_told_to_commit_what_it_lacks",
            "node/test_node_restart::test_a_follower_that_lost_what_it_acknowledged_is_not_served",
            STORY + "lost_log.txt",
        ),
        "FORGET sent to every node by tools": (
            "cluster/test_cluster_state::test_forgetting_every_node_twice_is_a_success_as_tools_send_it_to_every_node",
            "node/test_node_members::test_forgetting_everywhere_is_a_success_everywhere",
        ),
        "NODE_FAIL after a FAILOVER marks the new primary": (
            "cluster/test_cluster_state::test_fail_after_failover_marks_the_old_primary",
        ),
    },
    "Storage": {
        "a failed or short append is acknowledged; the next lands behind the fragment": (
            "storage/test_storage_faults::test_every_call_fails_once",
            "node/test_node_faults::test_a_follower_whose_disk_fails_acknowledges_nothing",
            "node/test_node_faults::test_what_a_failed_disk_did_not_store_was_not_acknowledged",
        ),
        "carrying on after a failed fsync": (
            "storage/test_storage_faults::test_every_call_fails_once",
            "node/test_node_disk_errors::test_every_call_of_a_running_node_fails_once",
        ),
        "a full disk noticed too late": (
            "node/test_node_disk_errors::test_commands_are_refused_before_the_disk_is_full_and_taken_when_there_is_room",
            "processes/test_full_disk::test_a_node_with_a_reserve_refuses_before_the_disk_is_full",
        ),
        "a leader with a hanging disk keeps its heartbeats going": (
            BUGS + "hashicorp_503_a_leader_with_a_hanging_disk_does_not_keep_its_office",
            "node/test_node_stalled_disk::test_a_leader_that_commits_nothing_for_its_hanging_disk_steps_down_and_recovers",
        ),
        "a lock on a file that is renamed": (
            STORE + "two_processes_can_not_share_a_folder",
            STORE + "the_lock_outlives_rewrites_and_goes_with_close",
        ),
        "a rename without syncing the folder; a sync after it only": (
            "storage/test_storage_crash::test_a_sync_that_is_left_out_is_noticed",
            "storage/test_storage_crash::test_a_crash_at_every_call",
        ),
    },
    "Network": {
        "half-open links that swallow messages": (
            FOUND + "a_late_vote_does_not_hide_that_an_append_is_not_answered",
            "testing/test_simulation::test_new_seeds",
        ),
        "retried proposals flooding the leader": (
            "member/test_member_review::test_a_refused_read_is_not_asked_again_at_once_and_for_ever",
            FOUND + "what_is_decided_while_it_waits_to_be_sent_again_is_not_sent_again",
        ),
        "lengths added before they are compared": ("hot/test_wire::test_no_sum_of_lengths_is_compared",),
        "allocating what a header announces": (
            "hot/test_wire::test_nothing_is_allocated_by_a_number_from_the_wire",
            "storage/test_storage_snapshots::test_an_announced_length_allocates_nothing",
        ),
        "numbers truncated to 32 bits; atoi on anything": (
            "hot/test_wire::test_number_range",
            "hot/test_wire::test_strict_numbers",
        ),
        "a slow peer whose buffer grows without bound": (
            "net/test_link::test_a_slow_reader_is_closed_at_the_limit",
            "net/test_link::test_the_limit_is_exact",
        ),
        "heartbeats on a path of their own, so that a stuck peer looks healthy": (
            STORY + "member_without_rounds.txt",
            "node/test_node_stalled_disk::test_a_follower_whose_disk_hangs_answers_heartbeats_and_acknowledges_nothing",
        ),
    },
    "Clients and reads": {
        "proposals matched by content: two equal commands, one answer": (
            REVIEW + "discarding_the_oldest_of_an_entry_leaves_the_order_right_too",
            REVIEW + "proposals_are_sent_again_in_the_order_in_which_they_were_made",
        ),
        "no answer at all after a leader change": (
            "node/test_node_sessions::test_a_leader_that_is_killed_loses_and_doubles_nothing",
            "node/test_node_leaders::test_proposals_and_reads_go_on_through_transfers",
        ),
        "retries applied twice": (
            "cluster/test_sessions::test_a_command_is_applied_once_and_its_answer_given_again",
            "node/test_node_sessions::test_plain_commands_too_are_applied_once_through_a_leader_change",
        ),
        "dropped reported as unknown, or the reverse": (
            BUGS + "restate_3135_what_was_not_appended_is_dropped_and_nothing_else_is",
            "member/test_engine_review::test_an_error_after_a_copy_was_sent_says_that_the_command_may_take_effect",
            "member/test_engine_review::test_busy_is_only_said_of_a_command_that_was_never_sent",
        ),
        "ReadIndex retried with the same id after a pause": (
            BUGS + "etcd_20418_a_round_from_before_a_read_does_not_confirm_it",
            "testing/test_simulation::test_a_read_at_a_deposed_leader_that_was_paused_is_not_stale",
            STORY + "read_index_after_pause.txt",
        ),
        "reads during a transfer": (
            BUGS + "openraft_1747_no_read_during_a_transfer",
            STORY + "read_index_transfer.txt",
        ),
    },
    "C and Python twins": {
        "an unsigned index below zero when a wrapped ring is truncated": (
            "hot/test_log_machine",
            "hot/test_log::test_appends_and_trims_for_ever_stay_right",
        ),
        "compiled tests skipped unseen; an old binary shipped": (
            "twins",
            "test_packaging",
        ),
        "twins that drift": (
            "hot/test_twins_log::test_the_class_has_the_same_surface",
            "hot/test_twins_wire::test_mutated_streams",
            "hot/test_twins_nodesconf::test_damaged_files",
        ),
    },
}

STRICTER: dict[str, tuple[str, ...]] = {
    "PROTOCOL 1: lengths that are not allowed are refused as soon as they show": (
        "hot/test_wire::test_the_length_is_checked_from_the_header_alone",
    ),
    "PROTOCOL 1: numbers have one form": ("hot/test_wire::test_strict_numbers",),
    "PROTOCOL 3: the lease is T exactly": (STRICT + "3_the_lease_is_t_exactly_never_the_randomised_timeout",),
    "PROTOCOL 4: who knows whom as a voter is no condition": (
        STRICT + "4_who_knows_whom_as_a_voter_is_no_condition_for_granting",
    ),
    "PROTOCOL 4: grants are counted by node id": (STRICT + "4_grants_are_counted_by_node_id_each_once",),
    "PROTOCOL 4: a step-down within a term keeps the vote": (STRICT + "4_stepping_down_within_a_term_keeps_the_vote",),
    "PROTOCOL 4: terms that are speculative, or refused by a lease, move nothing": (
        STRICT + "4_a_vote_request_that_a_lease_refuses_moves_no_term",
        STRICT + "4_terms_of_pre_votes_are_speculative",
    ),
    "PROTOCOL 5.1: a leader's message is the sender's": (STRICT + "5_1_a_leaders_message_is_the_senders_or_nothing",),
    "PROTOCOL 5.1: a batch with one bad entry is refused whole": (
        "hot/test_wire::test_a_batch_with_one_bad_entry_is_refused_whole",
    ),
    "PROTOCOL 5.1: the commit index stays within the message": (
        STRICT + "5_1_the_commit_index_stays_within_the_message",
    ),
    "PROTOCOL 5.3: refusals from before the last correction are ignored": (
        STRICT + "5_3_a_refusal_from_before_the_last_correction_is_ignored",
    ),
    "PROTOCOL 6.3: a proposal has an identity; without one it is sent once": (
        "cluster/test_sessions::test_below_the_window_nothing_is_applied_again_applied_or_not",
        "member/test_member_review::test_a_command_that_was_sent_twice_and_then_refused_is_not_said_to_have_no_effect",
    ),
    "PROTOCOL 7: the stored state is of one index": (
        MEMBERS + "7_a_restart_begins_at_the_stored_state",
        STORE + "a_rewrite_keeps_the_lines_above_s_and_those_appended_since",
    ),
    "PROTOCOL 8: a founder's join is in its log before all else": (
        MEMBERS + "8_a_founder_leads_again_in_a_new_term_only",
        "node/test_node_meet::test_a_cluster_of_one_that_took_commands_is_a_cluster",
    ),
    "PROTOCOL 8: the voters in force are those of the newest change in the log": (
        MEMBERS + "8_the_voters_in_force_change_on_append",
        MEMBERS + "8_the_voters_in_force_roll_back_on_truncation",
    ),
    "PROTOCOL 8: one voter change at a time, that could be committed with now": (
        MEMBERS + "8_one_voter_change_at_a_time",
        MEMBERS + "8_no_voter_change_that_could_not_be_committed_now",
    ),
    "PROTOCOL 8: only who has caught up, its own NODE_JOIN included, is promoted": (
        MEMBERS + "8_a_learner_that_answers_and_is_behind_is_not_promoted",
        MEMBERS + "8_a_learner_that_lacks_its_own_join_is_not_promoted",
    ),
    "PROTOCOL 9: a voter that names no cluster has lost its log": (
        FOUND + "a_voter_that_was_dialled_as_one_and_says_that_it_joins_has_lost_its_log",
        "member/test_member_review::test_a_voter_that_lost_its_log_is_served_again_once_it_is_a_learner_and_joined_anew",
    ),
    "PROTOCOL 10: a stalled disk behind healthy heartbeats": (
        MEMBERS + "10_a_leader_whose_disk_stalls_steps_down_unless_commits_go_on",
    ),
    "PROTOCOL 11: a failed write or fsync ends the node": (
        "storage/test_storage_faults::test_every_call_fails_once",
        "node/test_node_faults::test_a_leader_whose_disk_fails_ends_and_the_others_go_on",
    ),
}
