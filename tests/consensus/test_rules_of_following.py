"""Small rules of a follower's log, its snapshots and its answers that no story tells: one test each, and the proof."""

from __future__ import annotations

import pytest
from mutants import given, mutant
from raft_steps import acks, follower

from raftfast.consensus import Installed, Raft, Standing
from raftfast.errors import InvariantViolation
from raftfast.messages import AppendEntries, AppendEntriesAck
from raftfast.records import HardState

LAST = (1 << 64) - 1


def follower_with(log_class: type, count: int) -> Raft:
    """A follower whose log has so many entries of term 1, all durable."""
    log = log_class(0, 0)
    log.extend([1] * count, [b"1 APP - old"] * count)
    return follower(log_class, log=log)


# ---------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("prev", [(0, 1), (LAST, 1)])
def test_entries_at_an_impossible_place_close_the_link(log_class: type, prev: tuple[int, int]) -> None:
    """PROTOCOL 5.1: nothing stands at index 0, and an index has 64 bits."""
    raft = follower(log_class, log=log_class(5, 2), hard_state=HardState(4, None))
    raft.receive("2", AppendEntries("2", 4, *prev, 0, (4,), (b"4 NOOP",), 1), 0.1, 7)
    update = raft.take()
    assert [link for link, _ in update.close] == [7]
    assert (update.ticket, update.send, raft.leader_id) == (0, [], None)


def test_another_term_at_the_boundary_stops_the_node_also_before_new_entries(log_class: type) -> None:
    """PROTOCOL 5.1: what is up to there is committed."""
    raft = follower(log_class, log=log_class(5, 2), hard_state=HardState(4, None))
    with pytest.raises(InvariantViolation):
        raft.receive("2", AppendEntries("2", 4, 5, 3, 0, (4,), (b"4 NOOP",), 1), 0.1, 7)
    assert raft.log.last_index == 5


def test_a_mismatch_at_the_commit_index_itself_stops_the_node(log_class: type) -> None:
    """PROTOCOL 5.1."""
    raft = follower_with(log_class, 3)
    raft.receive("2", AppendEntries("2", 1, 3, 1, 2, (), (), 1), 0.1, 7)
    assert raft.commit_index == 2
    with pytest.raises(InvariantViolation, match="committed here"):
        raft.receive("3", AppendEntries("3", 3, 2, 2, 0, (), (), 1), 0.2, 8)


def test_of_two_cuts_in_one_turn_the_file_gets_the_lower_one(log_class: type) -> None:
    """Else lines that are gone stay in the file, below those that came instead."""
    raft = follower_with(log_class, 6)
    raft.receive("2", AppendEntries("2", 2, 4, 1, 0, (2,), (b"2 NOOP",), 1), 0.1, 7)
    raft.receive("3", AppendEntries("3", 3, 2, 1, 0, (3,), (b"3 NOOP",), 1), 0.1, 8)
    update = raft.take()
    assert (update.truncate_from, update.store_from, update.store_to) == (3, 3, 4)
    raft.stored(update.ticket, 0.2)
    assert raft.durable_index == 3


def test_history_is_what_was_committed_when_a_joiner_first_heard_a_leader(log_class: type) -> None:
    """PROTOCOL 4: if it grew with each message a joiner of a busy cluster would never be past it."""
    raft = follower(log_class)
    raft.reset(Standing.JOINER, 0, 0.1)
    lines = (b"1 NOOP", b"1 APP - a", b"1 APP - b")
    raft.receive("2", AppendEntries("2", 1, 0, 0, 2, (1,) * 2, lines[:2], 1), 0.2, 7)
    raft.receive("2", AppendEntries("2", 1, 2, 1, 3, (1,), lines[2:], 2), 0.3, 7)
    assert (raft.commit_index, raft.commit_to_reach) == (3, 2)


# ---------------------------------------------------------------------- snapshots


@pytest.mark.parametrize(("index", "term", "kept"), [(3, 2, True), (4, 3, False), (9, 3, False)])
def test_an_install_takes_back_a_cut_of_the_same_turn(log_class: type, index: int, term: int, kept: bool) -> None:
    """The rewrite leaves nothing to cut: what is kept of the log above the snapshot is written with it."""
    raft = follower_with(log_class, 6)
    raft.receive("2", AppendEntries("2", 2, 2, 1, 0, (2,) * 4, (b"2 APP - new",) * 4, 1), 0.1, 7)
    raft.install(index, term, "123", 0.1, "2", 7)
    update = raft.take()
    assert (update.snapshot, update.truncate_from) == (Installed(index, term, None), None)
    assert (update.store_from, update.store_to) == (index + 1, 7 if kept else index + 1)


@pytest.mark.parametrize("stale", [True, False])
def test_a_snapshot_of_an_earlier_terms_leader_is_not_acknowledged_in_this_one(log_class: type, stale: bool) -> None:
    """PROTOCOL 5.3: an answer whose term has passed is dropped. Its install may last longer than the term."""
    raft = follower_with(log_class, 1)
    raft.receive("2", AppendEntries("2", 1, 1, 1, 1, (), (), 1), 0.1, 7)
    raft.receive("3", AppendEntries("3", 2, 0, 0, 0, (), (), 1), 0.2, 8)
    raft.stored(raft.take().ticket, 0.2)
    assert acks(raft.take()) == [AppendEntriesAck(2, True, 0, 0, 1)]
    if stale:
        raft.answer_snapshot("2", 1, 0.3, 7)
    else:
        raft.install(9, 1, "123", 0.3, "2", 7)
    update = raft.take()
    raft.stored(update.ticket, 0.3)
    assert acks(update) + acks(raft.take()) == []
    assert raft.verified_index == 0


# ---------------------------------------------------------------------- answers


def test_the_greatest_round_comes_back(log_class: type) -> None:
    """PROTOCOL 2: also where an older AppendEntries comes late."""
    raft = follower(log_class)
    for number in (5, 3):
        raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), number), 0.1, 7)
    assert acks(raft.take()) == [AppendEntriesAck(1, True, 0, 0, 5)]


def test_every_answer_has_the_replication_offset(log_class: type) -> None:
    """PROTOCOL 2: by it a leader knows the best replica."""
    raft = follower(log_class)
    raft.repl_offset = 77
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), 1), 0.1, 7)
    assert acks(raft.take()) == [AppendEntriesAck(1, True, 0, 77, 1)]
    raft.receive("2", AppendEntries("2", 1, 5, 1, 0, (), (), 2), 0.1, 7)
    assert acks(raft.take()) == [AppendEntriesAck(1, False, 0, 77, 2)]
    raft.receive("3", AppendEntries("3", 0, 0, 0, 0, (), (), 3), 0.1, 8)
    assert acks(raft.take()) == [AppendEntriesAck(1, False, 0, 77)]


# ---------------------------------------------------------------------- beginning anew


def test_after_a_reset_nothing_is_answered_that_was_owed_before_it(log_class: type) -> None:
    """PROTOCOL 8: what the node acknowledged in its earlier life is gone."""
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (1,), (b"1 NOOP",), 1), 0.1, 7)
    first = raft.take()
    raft.reset(Standing.JOINER, 0, 0.2)
    second = raft.take()
    for update in (first, second):
        raft.stored(update.ticket, 0.3)
        assert raft.take().send == []


def test_after_a_reset_no_round_comes_back_that_was_heard_before_it(log_class: type) -> None:
    """The same term may follow, of another leader, whose rounds begin anew: it would be taken for fresh."""
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), 5), 0.1, 7)
    raft.reset(Standing.JOINER, 1, 0.2)
    raft.stored(raft.take().ticket, 0.2)
    raft.receive("3", AppendEntries("3", 1, 0, 0, 0, (), (), 2), 0.3, 8)
    assert acks(raft.take()) == [AppendEntriesAck(1, True, 0, 0, 2)]


# ---------------------------------------------------------------------- each rule, taken out by test_rules_taken_out

CUT = "if self._update.truncate_from is None or index < self._update.truncate_from:"
PLACE = "if count > _MAX_INDEX - prev or (prev == 0 and message.prev_log_term != 0):"

CASES = [
    mutant(
        "index 0 has any term",
        given(test_entries_at_an_impossible_place_close_the_link, type, (0, 1)),
        ("following", PLACE, "if count > _MAX_INDEX - prev:"),
        source="PROTOCOL 5.1",
    ),
    mutant(
        "entries beyond the last index are taken",
        given(test_entries_at_an_impossible_place_close_the_link, type, (LAST, 1)),
        ("following", PLACE, "if prev == 0 and message.prev_log_term != 0:"),
        source="PROTOCOL 5.1",
    ),
    mutant(
        "prev at the boundary has any term",
        test_another_term_at_the_boundary_stops_the_node_also_before_new_entries,
        ("following", "if prev >= self.log.boundary_index and not", "if prev > self.log.boundary_index and not"),
        source="PROTOCOL 5.1",
    ),
    mutant(
        "a mismatch at the commit index is a refusal",
        test_a_mismatch_at_the_commit_index_itself_stops_the_node,
        ("following", "        if prev <= self.commit_index:\n", "        if prev < self.commit_index:\n"),
        source="PROTOCOL 5.1",
    ),
    mutant(
        "of two cuts in a turn the first one counts",
        test_of_two_cuts_in_one_turn_the_file_gets_the_lower_one,
        ("following", CUT, "if self._update.truncate_from is None:"),
        source="PROTOCOL 11",
    ),
    mutant(
        "history grows with each message",
        test_history_is_what_was_committed_when_a_joiner_first_heard_a_leader,
        ("following", "if self.standing is Standing.JOINER and not self.commit_to_reach:", "if True:"),
        source="PROTOCOL 4",
    ),
    mutant(
        "a cut at the snapshot's own entry stays",
        given(test_an_install_takes_back_a_cut_of_the_same_turn, type, 3, 2, True),
        ("following", "if cut is not None and cut <= index:", "if cut is not None and cut < index:"),
        source="PROTOCOL 7",
    ),
    mutant(
        "a log that is dropped is cut too",
        given(test_an_install_takes_back_a_cut_of_the_same_turn, type, 4, 3, False),
        (
            "following",
            "        self._handed = index\n        self._update.truncate_from = None\n",
            "        self._handed = index\n",
        ),
        source="PROTOCOL 7",
    ),
    mutant(
        "a stale snapshot of an earlier term is answered",
        given(test_a_snapshot_of_an_earlier_terms_leader_is_not_acknowledged_in_this_one, type, True),
        ("following", "        if sender == self._term_leader:\n", "        if True:\n"),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "an install of an earlier term is answered",
        given(test_a_snapshot_of_an_earlier_terms_leader_is_not_acknowledged_in_this_one, type, False),
        ("following", "if sender == self._term_leader and link is not None:", "if link is not None:"),
        source="PROTOCOL 5.3",
    ),
    mutant(
        "the newest round comes back",
        test_the_greatest_round_comes_back,
        ("following", "max(message.round, self._leader_round or 0)", "message.round"),
        source="PROTOCOL 2",
    ),
    mutant(
        "a success has no replication offset",
        test_every_answer_has_the_replication_offset,
        ("following", "True, index, self.repl_offset, self._leader_round)", "True, index, 0, self._leader_round)"),
        source="PROTOCOL 2",
    ),
    mutant(
        "what was owed is answered after a reset",
        test_after_a_reset_nothing_is_answered_that_was_owed_before_it,
        ("raft", "        self._promises.drop_all()\n", ""),
        source="PROTOCOL 8",
    ),
    mutant(
        "rounds outlive a reset",
        test_after_a_reset_no_round_comes_back_that_was_heard_before_it,
        ("raft", "        self._leader_round = None\n", ""),
        source="PROTOCOL 8",
    ),
]
