# cython: language_level=3, binding=True, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic, annotation_typing=False
"""The log in memory: `RaftLog`, compiled; the twin of `log_py`.

Floor 1; imports floor 0 only. Never in it: what an entry means beyond its type's name, a clock, a file, the network.
The twins have one surface, one text of every docstring and one text of every error: tests/hot/test_twins_log.py.
"""

# How the entries stand in memory, and who owns what of it: log_blocks.pxi. The class holds no Python object but exact
# `bytes`, behind pointers that Cython does not see: it takes no part in the cyclic collector, and needs none.
#
# Foreign code. Making a list or tuple may run it (before Python 3.12 an allocation can start the cyclic collector, and
# so any finalizer): verbs that give lists look at `changes` after it, and start anew where entries were dropped.
#
# Sums. Numbers from outside are compared with the difference of two that are known to be in order, and nothing is added
# to them before they are known to be indexes held; none of them is ever a size to allocate.

cimport cython
from cpython.bytes cimport PyBytes_CheckExact
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport UINT64_MAX
from libc.string cimport memchr, memcmp

from ..errors import Compacted, InvariantViolation, Unavailable

include "log_blocks.pxi"

__all__ = ["RaftLog"]

cdef extern from "Python.h":
    # Declared here without Cython's own checks: whoever calls them looks at the error, or owns the count.
    unsigned long long PyLong_AsUnsignedLongLong(object value) noexcept
    PyObject *PyErr_Occurred() noexcept
    void PyErr_Clear() noexcept
    PyObject **PySequence_Fast_ITEMS(object value) noexcept
    Py_ssize_t PySequence_Fast_GET_SIZE(object value) noexcept
    char *bytes_data "PyBytes_AS_STRING"(PyObject *value) noexcept
    bint is_bytes "PyBytes_CheckExact"(PyObject *value) noexcept
    list PyList_New(Py_ssize_t size)
    tuple PyTuple_New(Py_ssize_t size)
    # Steals the reference to the value.
    void PyTuple_SET_ITEM(tuple target, Py_ssize_t at, PyObject *value) noexcept


@cython.final
cdef class RaftLog:
    """RaftLog(boundary_index=0, boundary_term=0)\n--\n\n\
The entries behind the boundary, in memory: a term and an AE line each.

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

    cdef uint64_t _boundary_index
    cdef uint64_t _boundary_term
    cdef Entries _entries

    # All fields are 0 and NULL before __init__: the allocator's promise to every object.

    def __init__(self, boundary_index: int = 0, boundary_term: int = 0) -> None:
        self.reset(boundary_index, boundary_term)

    def __dealloc__(self):
        free_all(&self._entries)

    def __len__(self) -> int:
        return <Py_ssize_t>self._entries.count

    def __repr__(self) -> str:
        return (
            f"<RaftLog of {self._entries.count} entries: boundary {self._boundary_index} (term {self._boundary_term}), "
            f"last {self._last_index()} (term {self._last_term()}), {self._entries.nbytes} bytes>"
        )

    def __sizeof__(self) -> int:
        """Bytes of memory that the log itself takes: the lines are objects of their own."""
        return object.__sizeof__(self) + size_of(&self._entries)

    def __reduce__(self):
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
        return _next(self._boundary_index)

    @property
    def last_index(self) -> int:
        """The index of the last entry; of an empty log `boundary_index`."""
        return self._last_index()

    @property
    def last_term(self) -> int:
        """The term of the last entry; of an empty log `boundary_term`."""
        return self._last_term()

    @property
    def nbytes(self) -> int:
        """The sum of the lengths of the lines held, in bytes."""
        return self._entries.nbytes

    def append(self, term: int, line: bytes) -> int:
        """The index of the entry that it appends.

        Raises: ValueError where `term` is below `last_term`, OverflowError where the index would exceed 2**64 - 1.
        Cost: O(1).
        """
        cdef uint64_t value
        cdef PyObject *item = <PyObject *>line
        _number(term, "term", &value)
        if not PyBytes_CheckExact(line):
            raise _not_bytes(line, "line")
        if value < self._last_term():
            raise _falling(value, self._last_term())
        if self._last_index() == UINT64_MAX:
            raise _full()
        if not reserve(&self._entries, self._entries.count, &value, 1):
            raise MemoryError()
        put(&self._entries, &value, &item, 1)
        return self._last_index()

    def extend(self, terms: Sequence[int], lines: Sequence[bytes]) -> int:
        """The last index, after the entries `(terms[i], lines[i])` were appended: all of them or none.

        Raises: as `append`; ValueError where there are not as many terms as lines.
        Cost: O(entries given).
        """
        cdef object given_terms = _fast(terms)
        cdef object given_lines = _fast(lines)
        cdef size_t n = _pair(given_terms, given_lines)
        cdef uint64_t *values = _check_entries(given_terms, given_lines, n, self._last_term())
        try:
            if n > UINT64_MAX - self._last_index():
                raise _full()
            if not reserve(&self._entries, self._entries.count, values, n):
                raise MemoryError()
            put(&self._entries, values, PySequence_Fast_ITEMS(given_lines), n)
        finally:
            PyMem_Free(values)
        return self._last_index()

    def line(self, index: int) -> bytes:
        """The line of the entry at `index`. Cost: O(1)."""
        cdef uint64_t at
        _number(index, "index", &at)
        if not self._holds(at):
            raise self._outside(at)
        return <bytes>line_of(&self._entries, self._at(at))

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`; `boundary_term` at the boundary. Cost: O(1)."""
        cdef uint64_t at
        _number(index, "index", &at)
        if at == self._boundary_index:
            return self._boundary_term
        if not self._holds(at):
            raise self._outside(at)
        return term_of(&self._entries, self._at(at))

    def lines(self, lo: int, hi: int, max_bytes: int | None = None) -> list[bytes]:
        """The lines of the indexes from `lo` up to, without, `hi`.

        `max_bytes` bounds the sum of their lengths: as many as fit from `lo` on, but at least one where `lo < hi`.

        Raises: ValueError where `lo > hi`; `Compacted` where `lo` is at or below the boundary; `Unavailable` where
        `hi` is above `last_index + 1`. An empty range is held to the same.
        Cost: O(lines given).
        """
        cdef size_t start, n
        cdef uint64_t changes
        cdef list found
        n = self._span(lo, hi, max_bytes, &start)
        changes = self._entries.changes
        found = PyList_New(n)
        if changes != self._entries.changes:
            return self.lines(lo, hi, max_bytes)
        refer(&self._entries, start, n, PySequence_Fast_ITEMS(found))
        return found

    def entries(self, lo: int, hi: int, max_bytes: int | None = None) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """The terms and the lines of a range: `(terms, lines)`. Bounds, errors and cost as those of `lines`."""
        cdef size_t start, i, n
        cdef uint64_t changes, value, before = 0
        cdef tuple terms, lines
        cdef object term = 0
        n = self._span(lo, hi, max_bytes, &start)
        changes = self._entries.changes
        terms = PyTuple_New(n)
        lines = PyTuple_New(n)
        if changes != self._entries.changes:
            return self.entries(lo, hi, max_bytes)
        for i in range(n):
            value = term_of(&self._entries, start + i)
            if value != before:
                term = value
                before = value
            Py_INCREF(<PyObject *>term)
            PyTuple_SET_ITEM(terms, i, <PyObject *>term)
        refer(&self._entries, start, n, PySequence_Fast_ITEMS(lines))
        return terms, lines

    def membership_lines(self, lo: int, hi: int) -> list[tuple[int, bytes]]:
        """The `(index, line)` of a range's NODE_JOIN, NODE_FORGET, ADD_VOTER and DEL_VOTER entries.

        Bounds and errors as those of `lines`.
        Cost: O(entries in the range), a glance at the type for each.
        """
        cdef size_t start, i, n
        cdef uint64_t changes, first
        cdef list found = []
        cdef bytes line
        n = self._span(lo, hi, None, &start)
        changes = self._entries.changes
        first = self._boundary_index + 1 + start
        for i in range(n):
            if _is_membership(line_of(&self._entries, start + i)):
                # A reference of our own first: making the pair may run foreign code.
                line = <bytes>line_of(&self._entries, start + i)
                found.append((first + i, line))
                if changes != self._entries.changes:
                    return self.membership_lines(lo, hi)
        return found

    def truncate_from(self, index: int) -> int:
        """How many entries it dropped: the one at `index` and all after it; 0 where `index` is past the end.

        Raises: `Compacted` where `index` is at or below the boundary.
        Cost: O(entries dropped).
        """
        cdef uint64_t at
        cdef size_t dropped
        _number(index, "index", &at)
        if at <= self._boundary_index:
            raise self._outside(at)
        if at > self._last_index():
            return 0
        dropped = self._last_index() - at + 1
        drop_last(&self._entries, dropped)
        give_back(&self._entries)
        return dropped

    def trim_to(self, index: int) -> int:
        """How many entries it dropped: all up to and with `index`, which becomes the boundary.

        0 where `index` is at or below the boundary already, which then stays.

        Raises: `Unavailable` where `index` is past the end.
        Cost: O(entries dropped), amortised.
        """
        cdef uint64_t at
        cdef size_t dropped
        _number(index, "index", &at)
        if at > self._last_index():
            raise self._outside(at)
        if at <= self._boundary_index:
            return 0
        dropped = at - self._boundary_index
        self._boundary_term = term_of(&self._entries, dropped - 1)
        self._boundary_index = at
        drop_first(&self._entries, dropped)
        give_back(&self._entries)
        return dropped

    def reset(self, boundary_index: int, boundary_term: int) -> None:
        """Drops every entry and sets the boundary. Cost: O(entries dropped)."""
        cdef uint64_t index, term
        _number(boundary_index, "boundary_index", &index)
        _number(boundary_term, "boundary_term", &term)
        drop_last(&self._entries, self._entries.count)
        give_back(&self._entries)
        self._boundary_index = index
        self._boundary_term = term

    def matches(self, index: int, term: int) -> bool:
        """Whether `index` is the boundary, or an entry held, and has that term. False for any other index.

        Source: AppendEntries' consistency check, PROTOCOL 5.1.
        """
        cdef uint64_t at, value
        _number(index, "index", &at)
        _number(term, "term", &value)
        if at == self._boundary_index:
            return value == self._boundary_term
        return self._holds(at) and term_of(&self._entries, self._at(at)) == value

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
        cdef uint64_t prev, commit, first
        cdef uint64_t *values
        cdef size_t n, held, kept, dropped
        cdef object given_terms, given_lines
        _number(prev_index, "prev_index", &prev)
        given_terms = _fast(terms)
        given_lines = _fast(lines)
        n = _pair(given_terms, given_lines)
        _number(commit_index, "commit_index", &commit)
        if prev > self._last_index():
            raise self._outside(prev)
        values = _check_entries(given_terms, given_lines, n, self._term_before(prev))
        try:
            if n > UINT64_MAX - prev:
                raise _full()
            held = self._agreement(prev, values, PySequence_Fast_ITEMS(given_lines), n, commit)
            if held == n:
                return _next(self._last_index()), 0
            # prev + n is an index, so this is no more than one; and it lies above the boundary.
            first = prev + 1 + held
            kept = self._at(first)
            dropped = self._entries.count - kept
            if not reserve(&self._entries, kept, values + held, n - held):
                raise MemoryError()
            drop_last(&self._entries, dropped)
            put(&self._entries, values + held, PySequence_Fast_ITEMS(given_lines) + held, n - held)
            give_back(&self._entries)
        finally:
            PyMem_Free(values)
        return first, dropped

    def hint(self, prev_index: int, prev_term: int) -> int:
        """The highest index at which the logs can still agree, after one that did not match at `prev_index`.

        At most `prev_index - 1` and `last_index`, at least `boundary_index`; entries of a term above `prev_term` are
        stepped over.

        Cost: O(log entries).
        Source: PROTOCOL 5.3.
        """
        cdef uint64_t prev, term
        cdef size_t lo = 0
        cdef size_t hi, middle
        _number(prev_index, "prev_index", &prev)
        _number(prev_term, "prev_term", &term)
        # prev - 1 would wrap at 0: the first comparison keeps it away.
        if prev <= self._boundary_index:
            return self._boundary_index
        hi = min(prev - 1 - self._boundary_index, <uint64_t>self._entries.count)
        # Entries below lo have a term that is low enough, those from hi on have not, or are not asked for.
        while lo < hi:
            middle = lo + (hi - lo) // 2
            if term_of(&self._entries, middle) <= term:
                lo = middle + 1
            else:
                hi = middle
        return self._boundary_index + lo

    def check(self) -> None:
        """Verifies the numbered invariants of the class; InvariantViolation names the one that is broken.

        Cost: O(entries). For tests.
        """
        cdef Entries *entries = &self._entries
        cdef size_t i
        cdef uint64_t before = self._boundary_term
        cdef uint64_t total = 0
        if entries.count > UINT64_MAX - self._boundary_index:
            raise InvariantViolation("RaftLog 1: entries and indexes disagree")
        if entries.offset >= <size_t>(BLOCK if entries.count else 1):
            raise InvariantViolation("RaftLog 1: entries and indexes disagree")
        if entries.blocks != blocks_needed(entries) or entries.ring_size > max(<size_t>LEAST_RING, entries.blocks * 4):
            raise InvariantViolation("RaftLog 4: slots or lines are kept for nothing")
        for i in range(entries.count):
            if term_of(entries, i) < before:
                raise InvariantViolation("RaftLog 2: a term falls")
            before = term_of(entries, i)
            if not is_bytes(line_of(entries, i)):
                raise InvariantViolation("RaftLog 3: nbytes is not the sum of the lines")
            total += bytes_size(line_of(entries, i))
        if total != entries.nbytes:
            raise InvariantViolation("RaftLog 3: nbytes is not the sum of the lines")

    cdef inline uint64_t _last_index(self) noexcept:
        return self._boundary_index + self._entries.count

    cdef inline uint64_t _last_term(self) noexcept:
        return term_of(&self._entries, self._entries.count - 1) if self._entries.count else self._boundary_term

    cdef inline bint _holds(self, uint64_t index) noexcept:
        # At or below the boundary the difference wraps, to a number that is greater than any count.
        return index - self._boundary_index - 1 < self._entries.count

    cdef inline size_t _at(self, uint64_t index) noexcept:
        """Where in the entries an index stands that is held, or is the next one."""
        return index - self._boundary_index - 1

    cdef uint64_t _term_before(self, uint64_t prev) noexcept:
        """The least term that an entry after `prev`, which is not past the end, may have."""
        if prev < self._boundary_index:
            return 0
        return self._boundary_term if prev == self._boundary_index else term_of(&self._entries, self._at(prev))

    cdef object _outside(self, uint64_t index):
        if index <= self._boundary_index:
            return Compacted(f"index {index} is at or below the boundary, {self._boundary_index}")
        return Unavailable(f"index {index} is past the end, {self._last_index()}")

    cdef Py_ssize_t _span(self, object lo, object hi, object max_bytes, size_t *start) except -1:
        """How many entries the range has within `max_bytes`; `start` becomes the first one's position."""
        cdef uint64_t first, end, bound = UINT64_MAX
        cdef uint64_t used = 0
        cdef uint64_t size
        cdef size_t i, n
        _number(lo, "lo", &first)
        _number(hi, "hi", &end)
        if max_bytes is not None:
            _number(max_bytes, "max_bytes", &bound)
        if first > end:
            raise ValueError(f"the range from {first} to {end} is backwards")
        if first <= self._boundary_index:
            raise self._outside(first)
        # first is at least 1 here, and end no less: end - 1 can't wrap.
        if end - 1 > self._last_index():
            raise self._outside(end - 1)
        start[0] = self._at(first)
        n = end - first
        if bound >= self._entries.nbytes:
            return n
        for i in range(n):
            size = bytes_size(line_of(&self._entries, start[0] + i))
            if size > bound - used and i > 0:
                return i
            used += min(size, bound - used)
        return n

    cdef Py_ssize_t _agreement(
        self, uint64_t prev, uint64_t *values, PyObject **lines, size_t n, uint64_t commit
    ) except -1:
        """How many of the entries, from the first on, are held already or lie at or below the boundary."""
        cdef size_t i
        cdef size_t start = 0
        # prev is not past the end: the difference can't wrap. Nor can the sums below, which are held indexes.
        cdef size_t stop = min(<uint64_t>n, self._last_index() - prev)
        cdef uint64_t index, ours
        if prev < self._boundary_index:
            if self._boundary_index - prev > n:
                return n
            start = self._boundary_index - prev
            if values[start - 1] != self._boundary_term:
                raise InvariantViolation(
                    f"entry {self._boundary_index} is the boundary with term {self._boundary_term}, "
                    f"but is sent with term {values[start - 1]}"
                )
        for i in range(start, stop):
            index = prev + 1 + i
            ours = term_of(&self._entries, self._at(index))
            if values[i] != ours:
                if index <= commit:
                    raise InvariantViolation(
                        f"entry {index} is committed with term {ours}, but is sent with term {values[i]}"
                    )
                return i
            if not _same_bytes(line_of(&self._entries, self._at(index)), lines[i]):
                raise InvariantViolation(f"entry {index} of term {ours} is held with other bytes than those sent")
        return stop


cdef inline bint _same_bytes(PyObject *a, PyObject *b) noexcept:
    return a == b or (bytes_size(a) == bytes_size(b) and memcmp(bytes_data(a), bytes_data(b), bytes_size(a)) == 0)


cdef inline bint _is_membership(PyObject *line) noexcept:
    """Whether the line's second word, behind its first blank, is one of the four types."""
    cdef char *data = bytes_data(line)
    cdef char *word = <char *>memchr(data, c' ', bytes_size(line))
    cdef Py_ssize_t left
    if word == NULL:
        return False
    word += 1
    left = bytes_size(line) - (word - data)
    if left < 9:
        return False
    if word[0] == c'N':
        return _is_word(word, left, "NODE_JOIN", 9) or _is_word(word, left, "NODE_FORGET", 11)
    if word[0] == c'A':
        return _is_word(word, left, "ADD_VOTER", 9)
    return word[0] == c'D' and _is_word(word, left, "DEL_VOTER", 9)


cdef inline bint _is_word(char *word, Py_ssize_t left, const char *name, Py_ssize_t size) noexcept:
    return size <= left and memcmp(word, name, size) == 0 and (size == left or word[size] == c' ')


cdef inline int _number(object value, str name, uint64_t *result) except -1:
    if not PyLong_CheckExact(value):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    result[0] = PyLong_AsUnsignedLongLong(value)
    if result[0] == UINT64_MAX and PyErr_Occurred() != NULL:
        PyErr_Clear()
        # Not with the value: writing out an int of thousands of digits is refused by Python itself.
        raise OverflowError(f"{name} must be from 0 to 2**64 - 1")
    return 0


cdef inline object _fast(object sequence):
    """The sequence as a list or a tuple, read once: what a foreign one says may change between two looks."""
    return sequence if type(sequence) is list or type(sequence) is tuple else tuple(sequence)


cdef Py_ssize_t _pair(object terms, object lines) except -1:
    if PySequence_Fast_GET_SIZE(terms) != PySequence_Fast_GET_SIZE(lines):
        raise ValueError(f"{len(terms)} terms for {len(lines)} lines")
    return PySequence_Fast_GET_SIZE(terms)


cdef uint64_t *_check_entries(object terms, object lines, size_t n, uint64_t least) except NULL:
    """The terms as numbers, in memory that the caller frees. It runs no foreign code unless it raises."""
    cdef PyObject **items = PySequence_Fast_ITEMS(terms)
    cdef size_t i
    # n is the length of a list that is in memory, and one more: NULL is an error only.
    cdef uint64_t *values = <uint64_t *>PyMem_Malloc((n + 1) * sizeof(uint64_t))
    if values == NULL:
        raise MemoryError()
    try:
        for i in range(n):
            _term_item(<object>items[i], i, &values[i])
            if values[i] < least:
                raise _falling(values[i], least)
            least = values[i]
        items = PySequence_Fast_ITEMS(lines)
        for i in range(n):
            if not is_bytes(items[i]):
                raise _not_bytes(<object>items[i], f"lines[{i}]")
    except BaseException:
        PyMem_Free(values)
        raise
    return values


cdef inline int _term_item(object term, size_t i, uint64_t *result) except -1:
    if PyLong_CheckExact(term):
        result[0] = PyLong_AsUnsignedLongLong(term)
        if result[0] != UINT64_MAX or PyErr_Occurred() == NULL:
            return 0
        PyErr_Clear()
    # Says what is wrong; the name is not made while all is well.
    return _number(term, f"terms[{i}]", result)


cdef object _next(uint64_t index):
    """index + 1, as an int of Python's: it may be 2**64."""
    return <object>index + 1


cdef object _not_bytes(object value, str name):
    return TypeError(f"{name} must be bytes, not {type(value).__name__}")


cdef object _falling(uint64_t term, uint64_t least):
    return ValueError(f"term {term} is below the term before it, {least}")


cdef object _full():
    return OverflowError("the last index would exceed 2**64 - 1")
