"""Times calls side by side: every candidate in turn, many times over, so that all meet the same moments of one machine.

For the benchmarks only. What counts is the ratio of two candidates' least times (and of their medians) in one run; the
collector stays on, as it is for whoever uses the package.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

__all__ = ["Case", "Times", "measure", "ratio", "shown"]

SAMPLE_SECONDS = 0.002
LEAST_ROUNDS = 7


@dataclass(frozen=True)
class Case:
    """One call to be timed. `setup`, outside of the clock, makes the call's one argument, anew for each of `batch`."""

    call: Callable[..., Any]
    setup: Callable[[], Any] | None = None
    batch: int = 0
    per: int = 1  # how many times the call does the work
    clocked: bool = False  # the call takes a number, does the work so many times and gives the seconds that it took


@dataclass(frozen=True)
class Times:
    """Seconds for one piece of work: the least and the median of all samples."""

    least: float
    median: float


def _sample(case: Case, number: int) -> float:
    if case.clocked:
        return float(case.call(number)) / number
    if case.setup is None:
        call, turns = case.call, repeat(None, number)
        start = time.perf_counter()
        for _ in turns:
            call()
        return (time.perf_counter() - start) / number
    made = [case.setup() for _ in range(number)]
    call = case.call
    start = time.perf_counter()
    for each in made:
        call(each)
    return (time.perf_counter() - start) / number


def _number(case: Case) -> int:
    if case.setup is not None:
        return case.batch or 1
    number = 1
    while (took := _sample(case, number) * number) < SAMPLE_SECONDS and number < 1 << 20:
        number = max(number * 2, int(number * SAMPLE_SECONDS / max(took, 1e-9)))
    return number


def measure(cases: Mapping[str, Case], seconds: float = 1.0) -> dict[str, Times]:
    """The times of every case, sampled in turn for about `seconds` a case, at least a few rounds."""
    numbers = {name: _number(case) for name, case in cases.items()}
    samples: dict[str, list[float]] = {name: [] for name in cases}
    end = time.monotonic() + seconds * len(cases)
    rounds = 0
    while rounds < LEAST_ROUNDS or time.monotonic() < end:
        rounds += 1
        for name, case in cases.items():
            samples[name].append(_sample(case, numbers[name]) / case.per)
    return {name: Times(min(taken), statistics.median(taken)) for name, taken in samples.items()}


def ratio(slower: Times, faster: Times) -> str:
    """How many times as long `slower` takes: by the least times, and by the medians."""
    return f"{slower.least / faster.least:.2f} ({slower.median / faster.median:.2f})"


def shown(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
