"""For all tests: hypothesis judges no time. A machine that is busy for a moment is no failure.

And at the end of a run: how many cut points and errors the matrices tried, and from which seeds what was sampled.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, settings

from tally import TALLY, Tally

settings.register_profile("patient", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def tally() -> Tally:
    """Where a matrix says what it tried."""
    return TALLY


@pytest.fixture
def shown_seed(request: pytest.FixtureRequest) -> int:
    """A new seed each run, shown at its end also where the test passes; RAFTFAST_SEED=N repeats one."""
    seed = int(os.environ.get("RAFTFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    TALLY.note(f"RAFTFAST_SEED={seed}: {request.node.name}")
    return seed


@pytest.fixture
def rng(shown_seed: int) -> random.Random:
    """Chance that RAFTFAST_SEED=N repeats."""
    return random.Random(shown_seed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = TALLY.lines()
    if lines:
        terminalreporter.section("what was tried")
        for line in lines:
            terminalreporter.write_line(line)
