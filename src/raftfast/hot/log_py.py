"""The log in memory: `RaftLog`, the pure twin of `log_c`.

Floor 1; imports floor 0 only. Never in it: what an entry means beyond its type's name, a clock, a file, the network.
The twins have one surface, one text of every docstring and one text of every error: tests/hot/test_twins_log.py.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn, final

from ..errors import Compacted, InvariantViolation, Unavailable

__all__ = ["RaftLog"]

_MAX = (1 << 64) - 1
_MEMBERSHIP = frozenset((b"NODE_JOIN", b"NODE_FORGET", b"ADD_VOTER", b"DEL_VOTER"))
_LONGEST_MEMBERSHIP = max(map(len, _MEMBERSHIP))
_DEAD_SLOTS = 64
"""Dropped slots in front that are never worth closing up."""


@final
class RaftLog:
    """The entries behind the boundary, in memory: a term and an AE line each.

    A line is `<term> <TYPE>` or `<term> <TYPE> <data>`, exactly `bytes`; its content is trusted. Indexes, terms and
    sizes are exactly `int`, from 0 to 2**64 - 1. Every verb that is refused has changed nothing.

    Raises: TypeError for a wrong type (a bool too), OverflowError for a number outside its range, ValueError for a
    term that falls, `Compacted` at or below the boundary, `Unavailable` past the end.

    Invariants, which `check()` verifies:

    1. The entries are those of the indexes `boundary_index + 1` to `last_index`, without a gap; `last_index` is at
       most 2**64 - 1.
    2. Terms never fall, from `boundary_term` on; `last_term` is that of the last entry, of an empty log
       `boundary_term`.
    3. `nbytes` is the sum of the lengths of the lines.
    4. The slots kept beyond the entries are at most as many as the entries, and a constant.

    Source: PROTOCOL 5.1, 5.3 and 7.
    """

    __slots__ = ("_boundary_index", "_boundary_term", "_dead", "_lines", "_nbytes", "_terms")

    # Entry i stands at position `_dead + i - boundary_index - 1` of both. The `_dead` slots in front are dropped
    # entries whose lines are let go already: closing them up one trim at a time would move all that is kept.
    _lines: list[bytes]
    _terms: array[int]
    _dead: int
    _boundary_index: int
    _boundary_term: int
    _nbytes: int

    def __init__(self, boundary_index: int = 0, boundary_term: int = 0) -> None:
        self.reset(boundary_index, boundary_term)

    def __len__(self) -> int:
        return len(self._lines) - self._dead

    def __repr__(self) -> str:
        return (
            f"<RaftLog of {len(self)} entries: boundary {self._boundary_index} (term {self._boundary_term}), "
            f"last {self.last_index} (term {self.last_term}), {self._nbytes} bytes>"
        )

    def __sizeof__(self) -> int:
        """Bytes of memory that the log itself takes: the lines are objects of their own."""
        return object.__sizeof__(self) + self._lines.__sizeof__() + self._terms.__sizeof__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RaftLog can't be pickled or copied")

    @property
    def boundary_index(self) -> int:
        """The index of the last entry that was dropped from the front; 0 if none was."""
        return self._boundary_index

    @property
    def boundary_term(self) -> int:
        """The term of the last entry that was dropped from the front; 0 if none was."""
        return self._boundary_term

    @property
    def first_index(self) -> int:
        """The index of the first entry, or of the next one where the log is empty: `boundary_index + 1`."""
        return self._boundary_index + 1

    @property
    def last_index(self) -> int:
        """The index of the last entry; of an empty log `boundary_index`."""
        return self._boundary_index + len(self._lines) - self._dead

    @property
    def last_term(self) -> int:
        """The term of the last entry; of an empty log `boundary_term`."""
        return self._terms[-1] if self._terms else self._boundary_term

    @property
    def nbytes(self) -> int:
        """The sum of the lengths of the lines held, in bytes."""
        return self._nbytes

    def append(self, term: int, line: bytes) -> int:
        """The index of the entry that it appends.

        Raises: ValueError where `term` is below `last_term`, OverflowError where the index would exceed 2**64 - 1.
        Cost: O(1).
        """
        _number(term, "term")
        if type(line) is not bytes:
            raise _not_bytes(line, "line")
        if term < self.last_term:
            raise _falling(term, self.last_term)
        self._room_for(1)
        self._lines.append(line)
        self._terms.append(term)
        self._nbytes += len(line)
        return self.last_index

    def extend(self, terms: Sequence[int], lines: Sequence[bytes]) -> int:
        """The last index, after the entries `(terms[i], lines[i])` were appended: all of them or none.

        Raises: as `append`; ValueError where there are not as many terms as lines.
        Cost: O(entries given).
        """
        terms, lines = _pair(terms, lines)
        _check_entries(terms, lines, self.last_term)
        self._room_for(len(terms))
        self._take(terms, lines)
        return self.last_index

    def line(self, index: int) -> bytes:
        """The line of the entry at `index`. Cost: O(1)."""
        _number(index, "index")
        if not self._boundary_index < index <= self.last_index:
            raise self._outside(index)
        return self._lines[self._dead + index - self._boundary_index - 1]

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`; `boundary_term` at the boundary. Cost: O(1)."""
        _number(index, "index")
        if index == self._boundary_index:
            return self._boundary_term
        if not self._boundary_index < index <= self.last_index:
            raise self._outside(index)
        return self._terms[self._dead + index - self._boundary_index - 1]

    def lines(self, lo: int, hi: int, max_bytes: int | None = None) -> list[bytes]:
        """The lines of the indexes from `lo` up to, without, `hi`.

        `max_bytes` bounds the sum of their lengths: as many as fit from `lo` on, but at least one where `lo < hi`.

        Raises: ValueError where `lo > hi`; `Compacted` where `lo` is at or below the boundary; `Unavailable` where
        `hi` is above `last_index + 1`. An empty range is held to the same.
        Cost: O(lines given).
        """
        start, stop = self._span(lo, hi, max_bytes)
        return self._lines[start:stop]

    def entries(self, lo: int, hi: int, max_bytes: int | None = None) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """The terms and the lines of a range: `(terms, lines)`. Bounds, errors and cost as those of `lines`."""
        start, stop = self._span(lo, hi, max_bytes)
        return tuple(self._terms[start:stop]), tuple(self._lines[start:stop])

    def membership_lines(self, lo: int, hi: int) -> list[tuple[int, bytes]]:
        """The `(index, line)` of a range's NODE_JOIN, NODE_FORGET, ADD_VOTER and DEL_VOTER entries.

        Bounds and errors as those of `lines`.
        Cost: O(entries in the range), a glance at the type for each.
        """
        start, stop = self._span(lo, hi, None)
        return [(lo + i, line) for i, line in enumerate(self._lines[start:stop]) if _type_of(line) in _MEMBERSHIP]

    def truncate_from(self, index: int) -> int:
        """How many entries it dropped: the one at `index` and all after it; 0 where `index` is past the end.

        Raises: `Compacted` where `index` is at or below the boundary.
        Cost: O(entries dropped).
        """
        _number(index, "index")
        if index <= self._boundary_index:
            raise self._outside(index)
        dropped = self.last_index - index + 1
        if dropped <= 0:
            return 0
        position = len(self._lines) - dropped
        self._nbytes -= sum(map(len, self._lines[position:]))
        del self._lines[position:]
        del self._terms[position:]
        self._close_up()
        return dropped

    def trim_to(self, index: int) -> int:
        """How many entries it dropped: all up to and with `index`, which becomes the boundary.

        0 where `index` is at or below the boundary already, which then stays.

        Raises: `Unavailable` where `index` is past the end.
        Cost: O(entries dropped), amortised.
        """
        _number(index, "index")
        if index > self.last_index:
            raise self._outside(index)
        dropped = index - self._boundary_index
        if dropped <= 0:
            return 0
        start, stop = self._dead, self._dead + dropped
        self._nbytes -= sum(map(len, self._lines[start:stop]))
        self._lines[start:stop] = [b""] * dropped
        self._boundary_index, self._boundary_term, self._dead = index, self._terms[stop - 1], stop
        self._close_up()
        return dropped

    def reset(self, boundary_index: int, boundary_term: int) -> None:
        """Drops every entry and sets the boundary. Cost: O(entries dropped)."""
        _number(boundary_index, "boundary_index")
        _number(boundary_term, "boundary_term")
        self._boundary_index, self._boundary_term = boundary_index, boundary_term
        self._lines, self._terms, self._dead, self._nbytes = [], array("Q"), 0, 0

    def matches(self, index: int, term: int) -> bool:
        """Whether `index` is the boundary, or an entry held, and has that term. False for any other index.

        Source: AppendEntries' consistency check, PROTOCOL 5.1.
        """
        _number(index, "index")
        _number(term, "term")
        if index == self._boundary_index:
            return term == self._boundary_term
        if not self._boundary_index < index <= self.last_index:
            return False
        return self._terms[self._dead + index - self._boundary_index - 1] == term

    def merge(
        self, prev_index: int, terms: Sequence[int], lines: Sequence[bytes], commit_index: int
    ) -> tuple[int, int]:
        """Takes the entries of an AppendEntries whose `prev_index` matched, or lies below the boundary.

        The entries are those of `prev_index + 1` on. What is held is skipped, and so is what lies at or below the
        boundary; from the first entry of another term on, what was held is dropped; then the rest is appended. So a
        message that is a prefix of what is held changes nothing.

        Returns `(first, dropped)`: the index of the first entry appended, `last_index + 1` where none was, and how
        many were dropped.

        Raises: `InvariantViolation` where an entry at the boundary, or at or below `commit_index`, has another term
        than ours, or one of the same index and term has other bytes; `Unavailable` where `prev_index` is past the
        end; otherwise as `extend`.
        Cost: O(entries given + entries dropped).
        Source: AppendEntries, receiver's steps 3 and 4; PROTOCOL 5.1.
        """
        _number(prev_index, "prev_index")
        terms, lines = _pair(terms, lines)
        _number(commit_index, "commit_index")
        if prev_index > self.last_index:
            raise self._outside(prev_index)
        _check_entries(terms, lines, 0 if prev_index < self._boundary_index else self.term_at(prev_index))
        if len(terms) > _MAX - prev_index:
            raise _full()
        held = self._agreement(prev_index, terms, lines, commit_index)
        if held == len(terms):
            return self.last_index + 1, 0
        first = prev_index + 1 + held
        dropped = self.truncate_from(first)
        self._take(terms[held:], lines[held:])
        return first, dropped

    def hint(self, prev_index: int, prev_term: int) -> int:
        """The highest index at which the logs can still agree, after one that did not match at `prev_index`.

        At most `prev_index - 1` and `last_index`, at least `boundary_index`; entries of a term above `prev_term` are
        stepped over.

        Cost: O(log entries).
        Source: PROTOCOL 5.3.
        """
        _number(prev_index, "prev_index")
        _number(prev_term, "prev_term")
        highest = min(prev_index - 1, self.last_index)
        if highest <= self._boundary_index:
            return self._boundary_index
        stop = self._dead + highest - self._boundary_index
        return self._boundary_index + bisect_right(self._terms, prev_term, self._dead, stop) - self._dead

    def check(self) -> None:
        """Verifies the numbered invariants of the class; InvariantViolation names the one that is broken.

        Cost: O(entries). For tests.
        """
        held = self._lines[self._dead :]
        terms = [self._boundary_term, *self._terms[self._dead :]]
        if len(self._terms) != len(self._lines) or not 0 <= self._dead <= len(self._lines) or self.last_index > _MAX:
            raise InvariantViolation("RaftLog 1: entries and indexes disagree")
        if self._dead and not held:
            raise InvariantViolation("RaftLog 4: an empty log keeps slots")
        if any(after < before for before, after in pairwise(terms)) or terms[-1] != self.last_term:
            raise InvariantViolation("RaftLog 2: a term falls")
        if any(type(line) is not bytes for line in held) or self._nbytes != sum(map(len, held)):
            raise InvariantViolation("RaftLog 3: nbytes is not the sum of the lines")
        if self._dead > len(held) + _DEAD_SLOTS or any(self._lines[: self._dead]):
            raise InvariantViolation("RaftLog 4: slots or lines are kept for nothing")

    def _outside(self, index: int) -> IndexError:
        if index <= self._boundary_index:
            return Compacted(f"index {index} is at or below the boundary, {self._boundary_index}")
        return Unavailable(f"index {index} is past the end, {self.last_index}")

    def _span(self, lo: int, hi: int, max_bytes: int | None) -> tuple[int, int]:
        """The positions from and up to which the range lies, cut to `max_bytes`."""
        _number(lo, "lo")
        _number(hi, "hi")
        if max_bytes is not None:
            _number(max_bytes, "max_bytes")
        if lo > hi:
            raise ValueError(f"the range from {lo} to {hi} is backwards")
        if lo <= self._boundary_index:
            raise self._outside(lo)
        if hi - 1 > self.last_index:
            raise self._outside(hi - 1)
        before_first = self._dead - self._boundary_index - 1
        start, stop = before_first + lo, before_first + hi
        if max_bytes is not None:
            used = 0
            for position in range(start, stop):
                used += len(self._lines[position])
                if used > max_bytes and position > start:
                    return start, position
        return start, stop

    def _room_for(self, count: int) -> None:
        if count > _MAX - self.last_index:
            raise _full()

    def _take(self, terms: Sequence[int], lines: Sequence[bytes]) -> None:
        self._lines.extend(lines)
        self._terms.extend(terms)
        self._nbytes += sum(map(len, lines))

    def _agreement(self, prev_index: int, terms: Sequence[int], lines: Sequence[bytes], commit_index: int) -> int:
        """How many of the entries, from the first on, are held already or lie at or below the boundary."""
        start = 0
        if prev_index < self._boundary_index:
            start = self._boundary_index - prev_index
            if start > len(terms):
                return len(terms)
            if terms[start - 1] != self._boundary_term:
                raise InvariantViolation(
                    f"entry {self._boundary_index} is the boundary with term {self._boundary_term}, "
                    f"but is sent with term {terms[start - 1]}"
                )
        stop = min(len(terms), self.last_index - prev_index)
        before = self._dead + prev_index - self._boundary_index
        for i in range(start, stop):
            index, term, ours = prev_index + 1 + i, terms[i], self._terms[before + i]
            if term != ours:
                if index <= commit_index:
                    raise InvariantViolation(
                        f"entry {index} is committed with term {ours}, but is sent with term {term}"
                    )
                return i
            if self._lines[before + i] != lines[i]:
                raise InvariantViolation(f"entry {index} of term {term} is held with other bytes than those sent")
        return stop

    def _close_up(self) -> None:
        """Gives the slots in front back, once they are more than those held: each was paid for when it was dropped."""
        if self._dead == len(self._lines) or self._dead > len(self) + _DEAD_SLOTS:
            del self._lines[: self._dead]
            del self._terms[: self._dead]
            self._dead = 0


def _number(value: object, name: str) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= _MAX:
        # Not with the value: writing out an int of thousands of digits is refused by Python itself.
        raise OverflowError(f"{name} must be from 0 to 2**64 - 1")


def _pair(terms: Sequence[int], lines: Sequence[bytes]) -> tuple[Sequence[int], Sequence[bytes]]:
    """Both as lists or tuples of one length, read once: what a foreign sequence says may change between two looks."""
    terms = terms if type(terms) in (list, tuple) else tuple(terms)
    lines = lines if type(lines) in (list, tuple) else tuple(lines)
    if len(terms) != len(lines):
        raise ValueError(f"{len(terms)} terms for {len(lines)} lines")
    return terms, lines


def _check_entries(terms: Sequence[int], lines: Sequence[bytes], least: int) -> None:
    for i, term in enumerate(terms):
        if type(term) is not int or not 0 <= term <= _MAX:
            _number(term, f"terms[{i}]")
        if term < least:
            raise _falling(term, least)
        least = term
    for i, line in enumerate(lines):
        if type(line) is not bytes:
            raise _not_bytes(line, f"lines[{i}]")


def _type_of(line: bytes) -> bytes:
    """The type's name, cut where it is longer than any that is asked for: a line may hold megabytes."""
    blank = line.find(b" ")
    return line[blank + 1 : blank + 2 + _LONGEST_MEMBERSHIP].partition(b" ")[0] if blank >= 0 else b""


def _not_bytes(value: object, name: str) -> TypeError:
    return TypeError(f"{name} must be bytes, not {type(value).__name__}")


def _falling(term: int, least: int) -> ValueError:
    return ValueError(f"term {term} is below the term before it, {least}")


def _full() -> OverflowError:
    return OverflowError("the last index would exceed 2**64 - 1")
