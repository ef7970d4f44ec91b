"""RaftLog's twins and a naive list, driven side by side by hypothesis: every verb, every size around a block's.

A failure prints the calls that led to it and the seed that brings them back.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raftfast.errors import Compacted, InvariantViolation, Unavailable
from twins import IMPLEMENTATIONS, leaf

TOP = (1 << 64) - 1
MEMBERSHIP = ("NODE_JOIN", "NODE_FORGET", "ADD_VOTER", "DEL_VOTER")


class NaiveLog:
    """The contract in the fewest words: a list of (term, line), searched and copied without a thought for cost."""

    def __init__(self, boundary_index, boundary_term):
        self.reset(boundary_index, boundary_term)

    def reset(self, boundary_index, boundary_term):
        number(boundary_index, boundary_term)
        self.boundary_index, self.boundary_term, self.held = boundary_index, boundary_term, []

    first_index = property(lambda self: self.boundary_index + 1)
    last_index = property(lambda self: self.boundary_index + len(self.held))
    last_term = property(lambda self: self.held[-1][0] if self.held else self.boundary_term)
    nbytes = property(lambda self: sum(len(line) for _, line in self.held))

    def __len__(self):
        return len(self.held)

    def get(self, index):
        number(index)
        if index <= self.boundary_index:
            raise Compacted
        if index > self.last_index:
            raise Unavailable
        return self.held[index - self.boundary_index - 1]

    def line(self, index):
        return self.get(index)[1]

    def term_at(self, index):
        return self.boundary_term if index == self.boundary_index else self.get(index)[0]

    def append(self, term, line):
        return self.extend([term], [line])

    def extend(self, terms, lines):
        self.accept(terms, lines, self.last_term, self.last_index)
        self.held += zip(terms, lines, strict=True)
        return self.last_index

    def accept(self, terms, lines, least, before):
        if len(terms) != len(lines):
            raise ValueError
        for term in terms:
            number(term)
            if term < least:
                raise ValueError
            least = term
        if before + len(terms) > TOP:
            raise OverflowError

    def range(self, lo, hi):
        number(lo, hi)
        if lo > hi:
            raise ValueError
        if lo <= self.boundary_index:
            raise Compacted
        if hi > self.last_index + 1:
            raise Unavailable
        return [(index, *self.get(index)) for index in range(lo, hi)]

    def lines(self, lo, hi, max_bytes=None):
        number(lo, hi, max_bytes or 0)
        found = [line for _, _, line in self.range(lo, hi)]
        while max_bytes is not None and len(found) > 1 and sum(map(len, found)) > max_bytes:
            found.pop()
        return found

    def entries(self, lo, hi, max_bytes=None):
        lines = self.lines(lo, hi, max_bytes)
        return tuple(self.get(lo + i)[0] for i in range(len(lines))), tuple(lines)

    def membership_lines(self, lo, hi):
        words = [(index, line, line.decode().split(" ")) for index, _, line in self.range(lo, hi)]
        return [(index, line) for index, line, said in words if len(said) > 1 and said[1] in MEMBERSHIP]

    def truncate_from(self, index):
        number(index)
        if index <= self.boundary_index:
            raise Compacted
        before = len(self.held)
        self.held = self.held[: index - self.boundary_index - 1]
        return before - len(self.held)

    def trim_to(self, index):
        number(index)
        if index > self.last_index:
            raise Unavailable
        dropped = max(0, index - self.boundary_index)
        if dropped:
            self.boundary_term, self.boundary_index = self.term_at(index), index
            self.held = self.held[dropped:]
        return dropped

    def matches(self, index, term):
        number(index, term)
        return self.boundary_index <= index <= self.last_index and self.term_at(index) == term

    def hint(self, prev_index, prev_term):
        number(prev_index, prev_term)
        index = min(prev_index - 1, self.last_index)
        while index > self.boundary_index and self.term_at(index) > prev_term:
            index -= 1
        return max(index, self.boundary_index)

    def merge(self, prev_index, terms, lines, commit_index):
        number(prev_index)
        if len(terms) != len(lines):
            raise ValueError
        number(commit_index)
        if prev_index > self.last_index:
            raise Unavailable
        self.accept(terms, lines, self.term_at(prev_index) if prev_index >= self.boundary_index else 0, prev_index)
        for index, term, line in zip(range(prev_index + 1, TOP + 1), terms, lines, strict=False):
            if index == self.boundary_index and term != self.boundary_term:
                raise InvariantViolation
            if self.boundary_index < index <= self.last_index:
                if self.term_at(index) != term:
                    if index <= commit_index:
                        raise InvariantViolation
                elif self.line(index) == line:
                    continue
                else:
                    raise InvariantViolation
            if index > self.boundary_index:
                dropped = self.truncate_from(index)
                self.extend(terms[index - prev_index - 1 :], lines[index - prev_index - 1 :])
                return index, dropped
        return self.last_index + 1, 0


def number(*values):
    if any(not 0 <= value <= TOP for value in values):
        raise OverflowError


def outcome(call, *arguments):
    """What a call gave, or the error's type and text."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), str(error)


class Twins(RuleBasedStateMachine):
    @initialize(
        index=st.sampled_from([0, 0, 5, 126, 1 << 32, TOP - 300, TOP]), term=st.sampled_from([0, 3, 1 << 40, TOP - 1])
    )
    def begin(self, index, term):
        self.twins = [leaf(impl, "log").RaftLog(index, term) for impl in IMPLEMENTATIONS]
        self.naive = NaiveLog(index, term)
        self.serial = 0

    def both(self, verb, *arguments):
        expected = outcome(getattr(self.naive, verb), *arguments)
        given = [outcome(getattr(twin, verb), *arguments) for twin in self.twins]
        if isinstance(expected, tuple) and expected and isinstance(expected[0], type):
            assert [each[0] for each in given] == [expected[0]] * len(given), (verb, arguments, expected, given)
            assert given[1:] == given[:-1], "the twins say it in other words"
            return
        for each in given:
            assert each == expected, (verb, arguments, expected, given)
            assert type(each) is type(expected), (verb, type(each))

    @invariant()
    def equal(self):
        if not hasattr(self, "naive"):
            return
        for twin in self.twins:
            twin.check()
            for name in ("boundary_index", "boundary_term", "first_index", "last_index", "last_term", "nbytes"):
                assert getattr(twin, name) == getattr(self.naive, name), name
            assert len(twin) == len(self.naive)
            if self.naive.last_index < TOP:
                assert twin.entries(twin.first_index, twin.last_index + 1) == (
                    tuple(term for term, _ in self.naive.held),
                    tuple(line for _, line in self.naive.held),
                )
        assert len({repr(twin) for twin in self.twins}) == 1

    # Arguments: near what is there, and now and then anything.

    def index(self, data):
        first, last = self.naive.boundary_index, self.naive.last_index
        near = [first - 1, first, first + 1, first + 2, last - 1, last, last + 1, last + 2]
        return data.draw(
            st.one_of(
                st.integers(first, max(first, last)), st.sampled_from(near), st.sampled_from([0, 1, TOP, TOP + 1, -1])
            )
        )

    def batch(self, data, least):
        """Rising terms and fresh lines; sometimes a fall, a leap of more than 32 bits, a length that differs."""
        count = data.draw(st.one_of(st.integers(0, 4), st.sampled_from([60, 127, 128, 129, 300])))
        terms, term = [], least
        leaps = data.draw(st.dictionaries(st.integers(0, max(0, count - 1)), st.sampled_from(LEAPS), max_size=3))
        for i in range(count):
            term += leaps.get(i, 0)
            terms.append(term)
        self.serial += 1
        words = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
        lines = [f"{t} {words[i % len(words)]} {self.serial}.{i}".encode() for i, t in enumerate(terms)]
        return terms, lines[: count - data.draw(st.sampled_from([0] * 9 + [1]))] if count else lines

    @rule(data=st.data())
    def append(self, data):
        term = self.naive.last_term + data.draw(st.sampled_from([0, 0, 0, 1, 5, -1, 1 << 32]))
        self.serial += 1
        self.both("append", term, b"%d APP %d" % (term, self.serial) if data.draw(st.booleans()) else b"")

    @rule(data=st.data())
    def extend(self, data):
        self.both("extend", *self.batch(data, self.naive.last_term))

    @rule(data=st.data())
    def merge_new(self, data):
        prev = self.index(data)
        known = self.naive.boundary_index <= prev <= self.naive.last_index
        terms, lines = self.batch(data, self.naive.term_at(prev) if known else 1)
        self.both("merge", prev, terms, lines, data.draw(st.sampled_from([0, prev, self.naive.last_index])))

    @rule(data=st.data(), tail=st.sampled_from([0, 1, 3, 200]))
    def merge_known(self, data, tail):
        """A part of what is held, perhaps from below the boundary, perhaps with one entry changed, and a tail."""
        if not len(self.naive) or self.naive.last_index > TOP - 3:
            return
        lo = data.draw(st.integers(self.naive.first_index, self.naive.last_index))
        hi = data.draw(st.integers(lo, min(lo + 300, self.naive.last_index + 1)))
        terms, lines = map(list, self.naive.entries(lo, hi))
        below = data.draw(st.integers(0, min(3, self.naive.boundary_index))) if lo == self.naive.first_index else 0
        if below:
            terms = [self.naive.boundary_term - data.draw(st.sampled_from([0, 0, 0, 1]))] * below + terms
            lines = [b"?"] * below + lines
        if terms and data.draw(st.booleans()):
            at = data.draw(st.integers(below, max(below, len(terms) - 1)))
            lines[at:] = [line + b"'" for line in lines[at:]]
            terms[at:] = [term + data.draw(st.sampled_from([0, 1, -1])) for term in terms[at:]]
        if hi == self.naive.last_index + 1 or data.draw(st.booleans()):
            terms += [max([self.naive.last_term, *terms])] * tail
            lines += [b"tail %d" % i for i in range(tail)]
        self.both("merge", lo - 1 - below, terms, lines, data.draw(st.sampled_from([0, lo, lo + 5])))

    @rule(data=st.data())
    def truncate(self, data):
        self.both("truncate_from", self.index(data))

    @rule(data=st.data())
    def trim(self, data):
        self.both("trim_to", self.index(data))

    @rule(index=st.sampled_from([0, 9, TOP - 200, TOP + 1]), term=st.integers(0, 3))
    def reset(self, index, term):
        self.both("reset", index, term)

    @rule(data=st.data(), max_bytes=st.one_of(st.none(), st.integers(-1, 3000)))
    def read(self, data, max_bytes):
        lo, hi = self.index(data), self.index(data)
        self.both("lines", lo, hi, max_bytes)
        self.both("entries", lo, hi, max_bytes)
        self.both("membership_lines", lo, hi)
        self.both("line", lo)
        self.both("term_at", hi)

    @rule(data=st.data())
    def compare(self, data):
        index = self.index(data)
        known = self.naive.boundary_index <= index <= self.naive.last_index
        term = (self.naive.term_at(index) if known else 3) + data.draw(st.sampled_from([0, 0, 1, -1]))
        self.both("matches", index, term)
        self.both("hint", index, term)


LEAPS = [1, 1, 2, -1, (1 << 32) - 1, 1 << 32, 1 << 50]
WORDS = ["APP -", "NOOP", *MEMBERSHIP, "ADD_VOTERS"]

TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=120, stateful_step_count=30, deadline=None, print_blob=True)
