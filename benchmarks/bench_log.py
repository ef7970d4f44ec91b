"""RaftLog, verb by verb: the compiled twin, the pure one, and what a plain list needs where it does the same.

Run: pytest benchmarks/bench_log.py. Ratios within one group of one run count; absolute times depend on the machine.
"""

from __future__ import annotations

import importlib

import pytest

LINE = b"7 APP 0123456789012345678901234567890123456789:12345 " + b"x" * 64
BATCH = 64
HELD = 10_000


@pytest.fixture(params=["c", "py"])
def log(request):
    return importlib.import_module(f"raftfast.hot.log_{request.param}")


def filled(log, count):
    made = log.RaftLog()
    made.extend([7] * count, [LINE] * count)
    return made


def batch(count=BATCH, term=7):
    """What a decoder hands over: tuples, each line an object of its own."""
    return (term,) * count, tuple(bytes(bytearray(LINE)) for _ in range(count))


@pytest.mark.benchmark(group="merge: 64 new entries, one AppendEntries")
def test_merge_new(benchmark, log):
    terms, lines = batch()

    def one(made):
        made.merge(HELD, terms, lines, HELD)

    benchmark.pedantic(one, setup=lambda: ((filled(log, HELD),), {}), rounds=300)


@pytest.mark.benchmark(group="merge: 64 entries held already")
def test_merge_held(benchmark, log):
    made = filled(log, HELD)
    terms, lines = batch()
    benchmark(made.merge, 5_000, terms, lines, 0)


@pytest.mark.benchmark(group="merge: 64 entries of another term, over a tail of 64")
def test_merge_conflict(benchmark, log):
    terms, lines = batch(term=8)

    def one(made):
        made.merge(HELD - BATCH, terms, lines, 0)

    benchmark.pedantic(one, setup=lambda: ((filled(log, HELD),), {}), rounds=300)


@pytest.mark.benchmark(group="extend: 64 entries")
def test_extend(benchmark, log):
    terms, lines = batch()
    benchmark.pedantic(lambda made: made.extend(terms, lines), setup=lambda: ((filled(log, HELD),), {}), rounds=300)


@pytest.mark.benchmark(group="entries: 64, at most 1 MiB (what one AppendEntries is made of)")
def test_entries(benchmark, log):
    benchmark(filled(log, HELD).entries, 5_000, 5_000 + BATCH, 1 << 20)


@pytest.mark.benchmark(group="lines: 64, at most 1 MiB")
def test_lines_bounded(benchmark, log):
    benchmark(filled(log, HELD).lines, 5_000, 5_000 + BATCH, 1 << 20)


@pytest.mark.benchmark(group="lines: 64, no bound")
def test_lines(benchmark, log):
    benchmark(filled(log, HELD).lines, 5_000, 5_000 + BATCH)


@pytest.mark.benchmark(group="membership_lines: 64, none of them one")
def test_membership_lines(benchmark, log):
    benchmark(filled(log, HELD).membership_lines, 5_000, 5_000 + BATCH)


@pytest.mark.benchmark(group="hint: over a divergence of 10,000 entries")
def test_hint(benchmark, log):
    made = filled(log, HELD)
    benchmark(made.hint, HELD, 6)


@pytest.mark.benchmark(group="append: 200 entries")
def test_append(benchmark, log):
    made = log.RaftLog()

    def loop():
        for _ in range(200):
            made.append(7, LINE)

    benchmark.pedantic(loop, setup=lambda: made.reset(0, 0), rounds=500)


@pytest.mark.benchmark(group="append: 200 entries")
def test_append_to_a_list(benchmark):
    made = []

    def loop():
        for _ in range(200):
            made.append(LINE)

    benchmark.pedantic(loop, setup=made.clear, rounds=500)


@pytest.mark.benchmark(group="term_at: 200 times")
def test_term_at(benchmark, log):
    made = filled(log, HELD)

    def loop():
        for _ in range(200):
            made.term_at(5_000)

    benchmark(loop)


@pytest.mark.benchmark(group="term_at: 200 times")
def test_term_at_of_a_list(benchmark):
    made = [7] * HELD

    def loop():
        for _ in range(200):
            made[5_000]

    benchmark(loop)


@pytest.mark.benchmark(group="term_at: 200 times")
def test_term_at_of_a_list_by_a_call(benchmark):
    made = [7] * HELD

    def loop():
        for _ in range(200):
            made.__getitem__(5_000)

    benchmark(loop)


@pytest.mark.benchmark(group="trim: 64 entries off the front")
@pytest.mark.parametrize("count", [200, 1_000_000])
def test_trim(benchmark, log, count):
    """The same whatever is kept. The log is filled up again in between, outside of the clock."""
    terms, lines = (7,) * BATCH, (LINE,) * BATCH
    made = filled(log, count)

    def refill():
        made.extend(terms, lines)
        return (made.boundary_index + BATCH,), {}

    benchmark.pedantic(made.trim_to, setup=refill, rounds=300)


@pytest.mark.benchmark(group="truncate: 64 entries off the end")
@pytest.mark.parametrize("count", [200, 1_000_000])
def test_truncate(benchmark, log, count):
    terms, lines = (7,) * BATCH, (LINE,) * BATCH
    made = filled(log, count)

    def refill():
        made.extend(terms, lines)
        return (made.last_index - BATCH + 1,), {}

    benchmark.pedantic(made.truncate_from, setup=refill, rounds=300)
