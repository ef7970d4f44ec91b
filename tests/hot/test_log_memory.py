"""RaftLog's memory: bytes an entry, what is given back, and that no number from outside asks for any."""

from __future__ import annotations

import gc
import sys
import tracemalloc

import pytest

from raftfast.errors import Unavailable
from twins import IMPLEMENTATIONS, leaf

PURE_ONLY = "c" not in IMPLEMENTATIONS
TOP = (1 << 64) - 1
MANY = 100_000
SMALL = 8_000
"""Bytes within which a log of 64 entries is small."""

LINE = b"1 APP - the same object in every slot, so that the log alone is counted"


def filled(log, terms):
    made = log.RaftLog()
    made.extend(terms, [LINE] * len(terms))
    return made


@pytest.mark.skipif(PURE_ONLY, reason="RAFTFAST_PURE_TESTS=1: the bound is the compiled twin's")
@pytest.mark.parametrize("step", [0, 1, 1 << 20], ids=["one term", "each its own", "far apart"])
def test_at_most_16_bytes_an_entry(step):
    log_c = leaf("c", "log")
    terms = [i * step for i in range(MANY)]
    made = filled(log_c, terms)
    assert sys.getsizeof(made) <= 16 * MANY
    one_by_one = log_c.RaftLog()
    worst = 0.0
    for i, term in enumerate(terms[:20_000], 1):
        one_by_one.append(term, LINE)
        if i >= 2_000:
            worst = max(worst, sys.getsizeof(one_by_one) / i) if i % 37 == 0 else worst
    assert 8 < worst <= 16


def test_the_size_that_it_tells_is_what_it_takes(log):
    """`__sizeof__` against the allocator's own count, at every stage."""
    terms = [i // 3 << 31 for i in range(MANY)]
    lines = [LINE] * MANY
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = log.RaftLog()
        for verb, arguments in [
            (made.extend, (terms, lines)),
            (made.trim_to, (MANY // 3,)),
            (made.truncate_from, (MANY // 2,)),
            (made.trim_to, (MANY // 2 - 40,)),
            (made.reset, (0, 0)),
        ]:
            verb(*arguments)
            taken = tracemalloc.get_traced_memory()[0] - before
            assert abs(taken - sys.getsizeof(made)) < 2_000, (verb, taken, sys.getsizeof(made))
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("how", ["trim", "truncate", "both", "one by one", "merge", "reset"])
def test_memory_is_given_back(log, how):
    count = 1_000_000 if how != "one by one" else 20_000
    made = filled(log, [1] * count)
    assert sys.getsizeof(made) > 8 * count
    if how == "trim":
        made.trim_to(count - 64)
    elif how == "truncate":
        made.truncate_from(65)
    elif how == "both":
        made.truncate_from(count // 2 + 1)
        made.trim_to(count // 2 - 64)
    elif how == "one by one":
        for index in range(1, count - 63):
            made.trim_to(index)
    elif how == "merge":
        assert made.merge(63, [2], [LINE], 0) == (64, count - 63)
    else:
        made.reset(0, 0)
        made.extend([1] * 64, [LINE] * 64)
    assert len(made) == 64
    assert sys.getsizeof(made) < SMALL
    assert made.lines(made.first_index, made.last_index + 1) == [LINE] * 64
    made.check()


def test_an_empty_log_is_small(log):
    made = filled(log, [1] * MANY)
    made.trim_to(MANY)
    assert sys.getsizeof(made) < 1_000
    made.append(1, LINE)
    assert made.line(MANY + 1) is LINE


def test_a_window_that_moves_keeps_its_size(log):
    """Appending and trimming for long is no growth: the ring goes round."""
    made = filled(log, [1] * 128)
    for last in range(128, 30_000, 64):
        made.extend([1] * 64, [LINE] * 64)
        made.trim_to(last - 64)
        assert sys.getsizeof(made) < SMALL
    made.check()


def test_no_number_from_outside_allocates(log):
    made = filled(log, [1] * 10)
    tracemalloc.start()
    try:
        for ask in (
            lambda: made.lines(1, TOP),
            lambda: made.entries(1, TOP, TOP),
            lambda: made.membership_lines(1, TOP),
            lambda: made.line(TOP),
            lambda: made.trim_to(TOP),
            lambda: made.merge(TOP, [1], [LINE], TOP),
        ):
            with pytest.raises(Unavailable):
                ask()
        made.lines(1, 11, TOP)
        made.truncate_from(TOP)
        made.hint(TOP, TOP)
        made.matches(TOP, TOP)
        made.reset(TOP, TOP)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_log_is_no_business_of_the_collector(log):
    """The compiled twin holds bytes only; it can't be in a cycle. (The pure one's list is tracked, as lists are.)"""
    if log.__name__.endswith("_c"):
        assert not gc.is_tracked(log.RaftLog())


class Trimmer:
    """Garbage in a cycle of its own: trims a log when the collector comes, wherever that is, `left` times again."""

    def __init__(self, made, left):
        self.made, self.left, self.cycle = made, left, self

    def __del__(self):
        self.made.trim_to(self.made.boundary_index + 7)
        if self.left:
            Trimmer(self.made, self.left - 1)


@pytest.mark.parametrize("verb", ["lines", "entries", "membership_lines"])
def test_a_finalizer_may_trim_while_a_list_is_made(log, verb):
    """Making a list can start the collector: what it gives are still the lines of the indexes asked for."""
    terms = [1 + i // 5 for i in range(300)]
    lines = [b"%d ADD_VOTER %d" % (term, i) for i, term in enumerate(terms, 1)]
    expected = {
        "lines": lines[49:250],
        "entries": (tuple(terms[49:250]), tuple(lines[49:250])),
        "membership_lines": list(zip(range(50, 251), lines[49:250], strict=True)),
    }[verb]
    thresholds = gc.get_threshold()
    gc.collect()
    gc.disable()
    trimmed = 0
    try:
        for _ in range(6):
            made = log.RaftLog()
            made.extend(terms, lines)
            ask = getattr(made, verb)
            Trimmer(made, 5)
            gc.set_threshold(1)
            gc.enable()
            given = ask(50, 251)
            gc.disable()
            trimmed += made.boundary_index
            assert given == expected
            made.check()
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    # From 3.12 on the collector waits for the next instruction of Python: a call that runs none is not interrupted.
    assert trimmed or sys.version_info >= (3, 12)


@pytest.mark.skipif(PURE_ONLY, reason="RAFTFAST_PURE_TESTS=1: the compiled twin's own allocations")
@pytest.mark.parametrize("verb", ["append", "extend", "merge", "trim_to", "truncate_from", "reset", "lines", "entries"])
def test_whatever_allocation_fails_a_verb_is_done_or_not_done(verb):
    """Fails the first, second, third … allocation of a call; the log is as before, or as after, and sound."""
    log_c = leaf("c", "log")
    faults = pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    terms = [1] * 100 + [2] * 156
    lines = [b"%d NOOP" % term for term in terms]
    call = {
        "append": (1 << 40, b"x"),
        "extend": ([1 << 40] * 300, [b"x"] * 300),
        "merge": (50, [1 << 40] * 300, [b"x"] * 300, 0),
        "trim_to": (250,),
        "truncate_from": (3,),
        "reset": (1, 1),
        "lines": (1, 257),
        "entries": (1, 257),
    }[verb]

    def begun():
        made = log_c.RaftLog()
        made.extend(terms, lines)
        return made

    def state(made):
        made.check()
        return made.boundary_index, made.last_index, made.entries(made.first_index, made.last_index + 1)

    done = begun()
    getattr(done, verb)(*call)
    allowed = state(begun()), state(done)
    failed = 0
    for nth in range(40):
        made = begun()
        ask = getattr(made, verb)
        faults.set_nomemory(nth, nth + 1)
        try:
            ask(*call)
        except MemoryError:
            failed += 1
        finally:
            faults.remove_mem_hooks()
        assert state(made) in allowed
    assert failed or verb in ("trim_to", "truncate_from", "reset")
