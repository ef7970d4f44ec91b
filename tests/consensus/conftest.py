"""`--rewrite` for the stories, and the log in both its forms for whatever drives a core."""

from __future__ import annotations

import pytest

from twins import IMPLEMENTATIONS, leaf


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what the stories give into their files")


@pytest.fixture(params=IMPLEMENTATIONS)
def log_class(request: pytest.FixtureRequest) -> type:
    """`RaftLog`, compiled (id `c`) and pure (id `py`). A compiled one that is absent fails, it is never skipped."""
    found = leaf(request.param, "log").RaftLog
    assert isinstance(found, type)
    return found
