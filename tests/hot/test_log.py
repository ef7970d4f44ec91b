"""RaftLog, verb by verb, each test over both twins: what API.md and PROTOCOL 5.1, 5.3 and 7 promise."""

from __future__ import annotations

import copy
import pickle
import sys
from array import array
from collections import deque

import pytest

from raftfast.errors import Compacted, InvariantViolation, Unavailable
from raftfast.hot import log_py

TOP = (1 << 64) - 1


def line(term: int, word: str = "x") -> bytes:
    return b"%d APP - %s" % (term, word.encode())


def make(log, terms=(), boundary=(0, 0), words=None):
    """A log behind `boundary` whose entry i has terms[i] and its index (or words[i]) as data."""
    made = log.RaftLog(*boundary)
    for i, term in enumerate(terms):
        made.append(term, line(term, words[i] if words else str(boundary[0] + 1 + i)))
    return made


def content(made):
    """Everything that can be seen of a log."""
    made.check()
    indexes = range(made.first_index, made.last_index + 1)
    terms, lines = tuple(map(made.term_at, indexes)), tuple(map(made.line, indexes))
    return (
        made.boundary_index,
        made.boundary_term,
        made.last_index,
        made.last_term,
        made.nbytes,
        len(made),
        terms,
        lines,
    )


class TestEmpty:
    def test_a_new_log_ends_at_its_boundary(self, log):
        assert content(log.RaftLog()) == (0, 0, 0, 0, 0, 0, (), ())
        assert content(log.RaftLog(17, 3)) == (17, 3, 17, 3, 0, 0, (), ())
        assert content(log.RaftLog(boundary_term=3, boundary_index=17)) == (17, 3, 17, 3, 0, 0, (), ())
        assert log.RaftLog(17, 3).first_index == 18

    def test_the_last_index_of_all_can_be_the_boundary(self, log):
        made = log.RaftLog(TOP, TOP)
        assert (made.first_index, made.last_index, made.last_term) == (TOP + 1, TOP, TOP)
        with pytest.raises(OverflowError):
            made.append(TOP, b"x")
        with pytest.raises(OverflowError):
            made.extend([TOP], [b"x"])
        with pytest.raises(OverflowError):
            made.merge(TOP, [TOP], [b"x"], 0)
        assert made.extend([], []) == TOP
        assert made.merge(TOP, [], [], 0) == (TOP + 1, 0)
        assert content(made)[5:] == (0, (), ())

    def test_repr_names_boundary_and_end(self, log):
        shown = repr(make(log, [5, 6], (17, 3)))
        assert shown == "<RaftLog of 2 entries: boundary 17 (term 3), last 19 (term 6), 20 bytes>"


class TestAppend:
    def test_gives_the_index_and_keeps_the_very_object(self, log):
        made = log.RaftLog(4, 2)
        kept = line(2)
        assert made.append(2, kept) == 5
        assert made.line(5) is kept
        assert made.term_at(5) == 2
        assert (made.last_index, made.last_term, made.nbytes, len(made)) == (5, 2, len(kept), 1)

    @pytest.mark.parametrize("boundary_term", [0, 2])
    def test_a_term_below_the_last_is_refused(self, log, boundary_term):
        made = log.RaftLog(4, boundary_term)
        if boundary_term:
            with pytest.raises(ValueError, match="term 1 is below the term before it, 2"):
                made.append(1, b"x")
        made.append(5, b"x")
        before = content(made)
        with pytest.raises(ValueError, match="term 4 is below the term before it, 5"):
            made.append(4, b"x")
        assert content(made) == before

    def test_up_to_the_greatest_index_and_term(self, log):
        made = log.RaftLog(TOP - 2, 0)
        assert made.append(0, b"a") == TOP - 1
        assert made.append(TOP, b"b") == TOP
        with pytest.raises(OverflowError):
            made.append(TOP, b"c")
        assert (made.line(TOP), made.term_at(TOP), made.first_index) == (b"b", TOP, TOP - 1)
        assert made.trim_to(TOP) == 2
        assert (made.boundary_index, made.boundary_term) == (TOP, TOP)

    def test_an_empty_line_is_bytes_too(self, log):
        made = log.RaftLog()
        made.append(1, b"")
        assert content(made) == (0, 0, 1, 1, 0, 1, (1,), (b"",))


class TestExtend:
    @pytest.mark.parametrize("kind", [list, tuple, deque, iter])
    def test_takes_any_sequence(self, log, kind):
        made = make(log, [1])
        assert made.extend(kind([1, 3, 3]), kind([b"a", b"b", b"c"])) == 4
        assert made.entries(2, 5) == ((1, 3, 3), (b"a", b"b", b"c"))
        made.check()

    def test_nothing_is_nothing(self, log):
        made = make(log, [1, 2])
        assert made.extend([], ()) == 2

    @pytest.mark.parametrize(
        ("terms", "lines", "error"),
        [
            ([2, 2], [b"a"], ValueError),
            ([2], [b"a", b"b"], ValueError),
            ([2, 1], [b"a", b"b"], ValueError),
            ([1, 2], [b"a", b"b"], ValueError),
            ([2, True], [b"a", b"b"], TypeError),
            ([2, 3.0], [b"a", b"b"], TypeError),
            ([2, -1], [b"a", b"b"], OverflowError),
            ([2, TOP + 1], [b"a", b"b"], OverflowError),
            ([2, 2], [b"a", "b"], TypeError),
            ([2, 2], [b"a", bytearray(b"b")], TypeError),
            (7, [b"a"], TypeError),
        ],
    )
    def test_all_or_nothing(self, log, terms, lines, error):
        made = make(log, [1, 2])
        before = content(made)
        with pytest.raises(error):
            made.extend(terms, lines)
        with pytest.raises(error):
            made.merge(2, terms, lines, 0)
        assert content(made) == before

    def test_past_the_greatest_index_all_or_nothing(self, log):
        made = log.RaftLog(TOP - 2, 0)
        with pytest.raises(OverflowError):
            made.extend([1, 1, 1], [b"a", b"b", b"c"])
        assert made.last_index == TOP - 2
        assert made.extend([1, 1], [b"a", b"b"]) == TOP

    def test_a_sequence_whose_reading_fails_changes_nothing(self, log):
        def failing():
            yield 1
            raise KeyError("read")

        made = make(log, [1])
        with pytest.raises(KeyError):
            made.extend(failing(), [b"a", b"b"])
        assert content(made)[2] == 1


class TestReading:
    def test_at_and_around_the_bounds(self, log):
        made = make(log, [4, 4, 6], (10, 3))
        assert [made.term_at(i) for i in range(10, 14)] == [3, 4, 4, 6]
        assert made.line(11) == line(4, "11")
        with pytest.raises(Compacted):
            made.term_at(9)
        with pytest.raises(Compacted):
            made.line(10)
        for verb in (made.term_at, made.line):
            with pytest.raises(Unavailable):
                verb(14)
            with pytest.raises(Unavailable):
                verb(TOP)
            with pytest.raises(Compacted):
                verb(0)

    def test_both_errors_are_index_errors(self, log):
        made = make(log, [1], (1, 1))
        with pytest.raises(IndexError, match="index 1 is at or below the boundary, 1"):
            made.line(1)
        with pytest.raises(IndexError, match="index 3 is past the end, 2"):
            made.line(3)

    def test_lines_is_half_open(self, log):
        made = make(log, [1, 1, 2, 3], (5, 1))
        assert made.lines(6, 10) == [line(1, "6"), line(1, "7"), line(2, "8"), line(3, "9")]
        assert made.lines(7, 8) == [line(1, "7")]
        assert made.entries(7, 10) == ((1, 2, 3), (line(1, "7"), line(2, "8"), line(3, "9")))

    @pytest.mark.parametrize("verb", ["lines", "entries", "membership_lines"])
    def test_a_range_outside_is_refused_also_where_it_is_empty(self, log, verb):
        made = make(log, [1, 1], (5, 1))
        ask = getattr(made, verb)
        for lo, hi, error in [
            (7, 6, ValueError),
            (2, 1, ValueError),
            (5, 6, Compacted),
            (5, 5, Compacted),
            (0, 0, Compacted),
            (0, TOP, Compacted),
            (6, 9, Unavailable),
            (9, 9, Unavailable),
            (8, TOP, Unavailable),
        ]:
            with pytest.raises(error):
                ask(lo, hi)
        for at in (6, 7, 8):
            assert list(ask(at, at)) in ([], [(), ()])

    @pytest.mark.parametrize(
        ("max_bytes", "count"),
        [(None, 4), (TOP, 4), (10, 4), (9, 3), (6, 3), (5, 2), (3, 2), (2, 1), (1, 1), (0, 1)],
    )
    def test_max_bytes_is_as_many_as_fit_but_one(self, log, max_bytes, count):
        made = log.RaftLog()
        made.extend([1, 1, 2, 2, 9], [b"1", b"22", b"333", b"4444", b"x" * 50])
        assert made.lines(1, 5, max_bytes) == [b"1", b"22", b"333", b"4444"][:count]
        assert made.entries(1, 5, max_bytes)[0] == (1, 1, 2, 2)[:count]
        assert made.lines(1, 5, max_bytes=max_bytes) == made.lines(1, 1 + count)

    def test_max_bytes_of_an_empty_range(self, log):
        assert make(log, [1]).lines(1, 1, 0) == []

    def test_empty_lines_all_fit(self, log):
        made = log.RaftLog()
        made.extend([1] * 3, [b"", b"x", b""])
        assert made.lines(1, 2, 0) == [b""]
        assert made.lines(1, 4, 0) == [b""]
        assert made.lines(2, 4, 1) == [b"x", b""]

    def test_across_many_blocks(self, log):
        made = log.RaftLog(3, 0)
        terms = [i // 50 for i in range(1000)]
        lines = [line(t, str(i)) for i, t in enumerate(terms)]
        made.extend(terms, lines)
        made.trim_to(103)
        assert made.lines(104, 1004) == lines[100:]
        assert made.entries(200, 900) == (tuple(terms[196:896]), tuple(lines[196:896]))


class TestTruncate:
    def test_drops_from_the_index_on(self, log):
        made = make(log, [1, 1, 2, 3], (5, 1))
        assert made.truncate_from(8) == 2
        assert content(made)[:4] == (5, 1, 7, 1)
        assert made.nbytes == len(line(1, "6")) * 2
        assert made.append(2, b"x") == 8

    def test_everything(self, log):
        made = make(log, [4, 4], (5, 1))
        assert made.truncate_from(6) == 2
        assert content(made) == (5, 1, 5, 1, 0, 0, (), ())
        assert made.append(1, b"x") == 6

    def test_past_the_end_there_is_nothing_to_drop(self, log):
        made = make(log, [1, 1], (5, 1))
        assert made.truncate_from(8) == 0
        assert made.truncate_from(TOP) == 0
        assert len(made) == 2

    @pytest.mark.parametrize("index", [5, 4, 0])
    def test_at_or_below_the_boundary_is_compacted(self, log, index):
        made = make(log, [1, 1], (5, 1))
        with pytest.raises(Compacted):
            made.truncate_from(index)
        assert len(made) == 2


class TestTrim:
    def test_the_index_becomes_the_boundary(self, log):
        made = make(log, [1, 1, 2, 3], (5, 1))
        assert made.trim_to(8) == 3
        assert content(made) == (8, 2, 9, 3, len(line(3, "9")), 1, (3,), (line(3, "9"),))
        assert made.term_at(8) == 2
        with pytest.raises(Compacted):
            made.line(8)

    def test_everything_keeps_the_last_term(self, log):
        made = make(log, [1, 7], (5, 1))
        assert made.trim_to(7) == 2
        assert content(made) == (7, 7, 7, 7, 0, 0, (), ())
        with pytest.raises(ValueError, match="below"):
            made.append(6, b"x")
        assert made.append(7, b"x") == 8

    @pytest.mark.parametrize("index", [5, 4, 0])
    def test_at_or_below_the_boundary_there_is_nothing_to_drop(self, log, index):
        made = make(log, [1, 1], (5, 1))
        assert made.trim_to(index) == 0
        assert made.boundary_index == 5

    @pytest.mark.parametrize("index", [8, TOP])
    def test_past_the_end_is_unavailable(self, log, index):
        made = make(log, [1, 1], (5, 1))
        with pytest.raises(Unavailable):
            made.trim_to(index)
        assert content(made)[0] == 5

    def test_appends_and_trims_for_ever_stay_right(self, log):
        """The window moves over every slot of many blocks, at every size around a block's."""
        made = log.RaftLog()
        for i in range(1, 2000):
            assert made.append(i // 7, b"%d" % i) == i
            if i % 3 == 0:
                made.trim_to(max(made.boundary_index, i - 125 - i % 11))
            assert made.line(made.first_index) == b"%d" % made.first_index
            assert made.line(i) == b"%d" % i
            assert made.term_at(made.first_index) == made.first_index // 7
        made.check()


class TestReset:
    def test_drops_all_and_moves_the_boundary(self, log):
        made = make(log, [1, 1, 2], (5, 1))
        made.reset(100, 9)
        assert content(made) == (100, 9, 100, 9, 0, 0, (), ())
        assert made.append(9, b"x") == 101

    def test_a_refused_reset_changes_nothing(self, log):
        made = make(log, [1, 1, 2], (5, 1))
        before = content(made)
        with pytest.raises(OverflowError):
            made.reset(5, TOP + 1)
        with pytest.raises(TypeError):
            made.reset(None, 1)
        assert content(made) == before

    def test_a_second_init_is_a_reset(self, log):
        made = make(log, [1, 1, 2], (5, 1))
        made.__init__(3, 2)
        assert content(made) == (3, 2, 3, 2, 0, 0, (), ())


class TestMatches:
    def test_boundary_entries_and_nothing_else(self, log):
        made = make(log, [4, 4, 6], (10, 3))
        right = {10: 3, 11: 4, 12: 4, 13: 6}
        for index in (0, 1, 9, 10, 11, 12, 13, 14, TOP):
            for term in (0, 3, 4, 6, TOP):
                assert made.matches(index, term) is (right.get(index) == term)

    def test_the_start_of_a_fresh_log(self, log):
        assert log.RaftLog().matches(0, 0) is True
        assert log.RaftLog().matches(0, 1) is False
        assert log.RaftLog().matches(1, 0) is False


class TestMerge:
    def test_appends_what_is_absent(self, log):
        made = make(log, [1, 1])
        assert made.merge(2, [1, 2], [b"a", b"b"], 0) == (3, 0)
        assert made.entries(3, 5) == ((1, 2), (b"a", b"b"))

    def test_a_heartbeat_changes_nothing(self, log):
        made = make(log, [1, 1, 2], (5, 1))
        before = content(made)
        for prev in (0, 4, 5, 7, 8):
            assert made.merge(prev, (), (), 8) == (9, 0)
        assert content(made) == before

    def test_a_prefix_or_a_repetition_never_shrinks_the_log(self, log):
        """PROTOCOL 5.1: a duplicated, delayed, reordered or shorter AE."""
        made = make(log, [1, 1, 2, 3])
        before = content(made)
        terms, lines = made.entries(1, 5)
        for start in range(4):
            for end in range(start, 5):
                assert made.merge(start, terms[start:end], lines[start:end], 0) == (5, 0)
        assert content(made) == before

    def test_an_overlap_is_skipped_and_the_rest_appended(self, log):
        made = make(log, [1, 1, 2])
        kept = made.line(3)
        assert made.merge(1, [1, 2, 2], [line(1, "2"), line(2, "3"), b"new"], 3) == (4, 0)
        assert made.line(3) is kept
        assert made.line(4) == b"new"

    def test_a_conflict_drops_from_there_on(self, log):
        made = make(log, [1, 1, 2, 2, 2])
        assert made.merge(1, [1, 3], [line(1, "2"), b"new"], 2) == (3, 3)
        assert made.entries(1, 4) == ((1, 1, 3), (line(1, "1"), line(1, "2"), b"new"))
        assert made.nbytes == len(line(1, "1")) * 2 + 3
        made.check()

    def test_a_conflict_with_a_lower_term_than_ours_drops_too(self, log):
        made = make(log, [1, 5, 5])
        assert made.merge(1, [2], [b"new"], 1) == (2, 2)
        assert made.entries(1, 3) == ((1, 2), (line(1, "1"), b"new"))

    def test_a_conflict_at_the_first_entry(self, log):
        made = make(log, [4, 4], (10, 3))
        made.trim_to(11)
        assert made.merge(11, [5, 5, 6], [b"a", b"b", b"c"], 11) == (12, 1)
        assert content(made)[:4] == (11, 4, 14, 6)

    @pytest.mark.parametrize("commit", [2, 3, TOP])
    def test_a_conflict_with_what_is_committed_is_a_broken_invariant(self, log, commit):
        made = make(log, [1, 1, 2])
        before = content(made)
        with pytest.raises(InvariantViolation, match="entry 2 is committed with term 1, but is sent with term 2"):
            made.merge(1, [2, 2], [b"a", b"b"], commit)
        assert content(made) == before

    @pytest.mark.parametrize("commit", [0, 3])
    def test_other_bytes_of_one_index_and_term_are_a_broken_invariant(self, log, commit):
        made = make(log, [1, 1, 2])
        before = content(made)
        with pytest.raises(InvariantViolation, match="entry 2 of term 1 is held with other bytes"):
            made.merge(0, [1, 1, 9], [line(1, "1"), line(1, "3"), b"x"], commit)
        with pytest.raises(InvariantViolation, match="entry 2 of term 1 is held with other bytes"):
            made.merge(1, [1], [line(1, "2") + b"2"], commit)
        assert content(made) == before

    def test_what_lies_behind_a_conflict_is_not_compared(self, log):
        made = make(log, [1, 1, 1])
        assert made.merge(0, [1, 2, 2], [line(1, "1"), b"a", b"b"], 1) == (2, 2)

    def test_entries_at_or_below_the_boundary_are_skipped(self, log):
        made = make(log, [4, 4], (10, 3))
        assert made.merge(7, [1, 1, 3, 4], [b"?", b"?", b"?", line(4, "11")], 0) == (13, 0)
        assert made.merge(8, [1, 3, 4, 4, 5], [b"?", b"?", line(4, "11"), line(4, "12"), b"new"], 0) == (13, 0)
        assert made.line(13) == b"new"

    def test_a_message_that_ends_at_or_below_the_boundary_changes_nothing(self, log):
        made = make(log, [4, 4], (10, 3))
        before = content(made)
        assert made.merge(0, [9, 9], [b"?", b"?"], TOP) == (13, 0)
        assert made.merge(8, [9], [b"?"], 0) == (13, 0)
        assert made.merge(8, [1, 3], [b"?", b"?"], 0) == (13, 0)
        assert content(made) == before

    def test_the_boundary_has_its_term_or_an_invariant_is_broken(self, log):
        made = make(log, [4, 4], (10, 3))
        before = content(made)
        for terms in ([2, 2], [2, 4], [2, 2, 4]):
            with pytest.raises(InvariantViolation, match="entry 10 is the boundary with term 3, but is sent with term"):
                made.merge(8, terms, [b"?"] * len(terms), 0)
        assert content(made) == before

    def test_the_boundary_at_the_end_of_an_empty_log(self, log):
        made = log.RaftLog(10, 3)
        assert made.merge(8, [1, 3, 3], [b"?", b"?", b"new"], 10) == (11, 0)
        assert made.lines(11, 12) == [b"new"]

    def test_past_the_end_is_unavailable(self, log):
        made = make(log, [1, 1])
        for prev in (3, TOP):
            with pytest.raises(Unavailable):
                made.merge(prev, [1], [b"a"], 0)
        assert len(made) == 2

    def test_a_term_below_that_of_prev_is_refused(self, log):
        made = make(log, [4, 4], (10, 3))
        for prev, term in ((12, 3), (11, 3), (10, 2)):
            with pytest.raises(ValueError, match="below the term before it"):
                made.merge(prev, [term], [b"a"], 0)
        assert len(made) == 2

    def test_a_long_batch_over_a_long_tail(self, log):
        made = make(log, [1] * 700)
        terms, lines = (
            [1] * 150 + [2] * 500,
            [line(1, str(i)) for i in range(101, 251)] + [b"n%d" % i for i in range(500)],
        )
        assert made.merge(100, terms, lines, 250) == (251, 450)
        assert made.entries(101, 751) == (tuple(terms), tuple(lines))
        made.check()

    def test_up_to_the_greatest_index(self, log):
        made = log.RaftLog(TOP - 1, 0)
        assert made.merge(TOP - 1, [1], [b"a"], 0) == (TOP, 0)
        assert made.merge(TOP - 1, [1], [b"a"], TOP) == (TOP + 1, 0)
        with pytest.raises(OverflowError):
            made.merge(TOP - 1, [1, 1], [b"a", b"b"], 0)
        assert len(made) == 1


class TestHint:
    @pytest.mark.parametrize(
        ("prev_index", "prev_term", "hint"),
        [
            # terms: boundary 10 (3); 11: 4, 12: 4, 13: 6, 14: 6
            (20, 6, 14),  # ours is shorter
            (20, 5, 12),  # and our end is of a later term
            (20, 4, 12),
            (20, 3, 10),
            (20, 0, 10),
            (14, 6, 13),  # never prev itself
            (14, 5, 12),
            (13, 4, 12),
            (12, 9, 11),
            (11, 9, 10),
            (10, 9, 10),  # never below the boundary
            (9, 9, 10),
            (1, 0, 10),
            (0, 0, 10),
            (TOP, TOP, 14),
        ],
    )
    def test_the_highest_index_that_can_agree(self, log, prev_index, prev_term, hint):
        assert make(log, [4, 4, 6, 6], (10, 3)).hint(prev_index, prev_term) == hint

    def test_of_an_empty_log(self, log):
        assert log.RaftLog().hint(5, 1) == 0
        assert log.RaftLog(7, 2).hint(9, 1) == 7


class TestMembershipLines:
    def test_the_four_types_and_no_others(self, log):
        taken = [
            b"1 NODE_JOIN aa 10.0.0.1:1@2 voter",
            b"1 NODE_FORGET aa 3",
            b"1 ADD_VOTER aa",
            b"18446744073709551615 DEL_VOTER aa",
            b"1 ADD_VOTER",
        ]
        passed = [
            b"1 NOOP",
            b"1 NODE_INFO aa NODE_JOIN",
            b"1 NODE_JOINS aa",
            b"1 NODE_JOI",
            b"1 ADD_VOTE aa",
            b"1 ADD_VOTERS",
            b"1 DEL_VOTER2 aa",
            b"1 NODE_FAIL aa",
            b"1 NODE_FORGET_ aa",
            b"1 APP - NODE_JOIN x ADD_VOTER",
            b"1  ADD_VOTER aa",
            b"1 add_voter aa",
            b"ADD_VOTER",
            b"1",
            b"1 ",
            b"",
            b"1 APP - " + b"x" * 100_000,
        ]
        made = log.RaftLog(4, 0)
        mixed = [*passed, *taken, *passed, *reversed(taken), b"1 ADD_VOTER"]
        made.extend([1] * len(mixed), mixed)
        expected = [(5 + i, each) for i, each in enumerate(mixed) if each in taken]
        assert made.membership_lines(5, made.last_index + 1) == expected
        assert made.membership_lines(6, 7) == []
        at = expected[0][0]
        assert made.membership_lines(at, at + 1) == expected[:1]


class TestOwnership:
    def test_lines_that_a_caller_holds_stay_valid(self, log):
        made = log.RaftLog()
        lines = [b"%d held by the caller" % i for i in range(1000)]
        made.extend([1] * 1000, [bytes(bytearray(each)) for each in lines])
        held = made.lines(1, 1001)
        made.trim_to(400)
        made.truncate_from(700)
        made.extend([2] * 5000, [b"other"] * 5000)
        made.reset(0, 0)
        del made
        assert held == lines

    def test_each_reference_is_given_back(self, log):
        kept = b"1 APP - counted"
        start = sys.getrefcount(kept)
        made = log.RaftLog()

        def held():
            return sys.getrefcount(kept) - start

        made.append(1, kept)
        made.extend([1] * 500, [kept] * 500)
        made.merge(501, [1] * 99, [kept] * 99, 0)
        assert held() == 600
        assert made.merge(501, [1] * 99, [kept] * 99, 0) == (601, 0)
        assert made.merge(0, [1] * 10 + [2] * 10, [kept] * 20, 0) == (11, 590)
        assert held() == 20
        for bad in ([3, 1], [3, None]):
            with pytest.raises((ValueError, TypeError)):
                made.extend(bad, [kept, kept])
        with pytest.raises(InvariantViolation):
            made.merge(0, [1, 1, 9], [kept, b"other", kept], 0)
        assert held() == 20
        lines, (terms, more) = made.lines(1, 6), made.entries(1, 6)
        assert (held(), terms) == (30, (1,) * 5)
        del lines, more
        made.trim_to(4)
        assert held() == 16
        made.truncate_from(11)
        assert held() == 6
        made.reset(7, 7)
        assert held() == 0
        made.extend([7] * 300, [kept] * 300)
        del made
        assert held() == 0

    def test_a_log_can_not_be_copied(self, log):
        made = make(log, [1])
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="can't be pickled or copied"):
                attempt(made)


class TestCheck:
    """What `check()` is for: a log whose inside is broken says which invariant is. Only the pure one can be broken."""

    @pytest.mark.parametrize(
        ("invariant", "broken"),
        [
            ("1", {"_terms": array("Q", [1, 1])}),
            ("1", {"_dead": 4}),
            ("1", {"_boundary_index": TOP - 1}),
            ("2", {"_terms": array("Q", [1, 3, 2])}),
            ("2", {"_boundary_term": 2}),
            ("3", {"_nbytes": 1}),
            ("3", {"_lines": [b"1 NOOP", bytearray(b"1 NOOP"), b"2 NOOP"]}),
            ("4", {"_dead": 3}),
            ("4", {"_dead": 1, "_nbytes": 12}),
        ],
    )
    def test_names_the_broken_invariant(self, invariant, broken):
        made = log_py.RaftLog()
        made.extend([1, 1, 2], [b"1 NOOP", b"1 NOOP", b"2 NOOP"])
        made.check()
        for name, value in broken.items():
            setattr(made, name, value)
        with pytest.raises(InvariantViolation, match=f"RaftLog {invariant}:"):
            made.check()
