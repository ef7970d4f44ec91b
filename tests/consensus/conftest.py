"""`--rewrite` for the stories, and the log in both its forms for whatever drives a core."""

from __future__ import annotations

import importlib
import os

import pytest

IMPLEMENTATIONS = ("py",) if os.environ.get("RAFTFAST_PURE_TESTS", "") not in ("", "0") else ("c", "py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what the stories give into their files")


@pytest.fixture(params=IMPLEMENTATIONS)
def log_class(request: pytest.FixtureRequest) -> type:
    """`RaftLog`, compiled (id `c`) and pure (id `py`). A compiled one that is absent fails, it is never skipped."""
    found = importlib.import_module(f"raftfast.hot.log_{request.param}").RaftLog
    assert isinstance(found, type)
    return found
