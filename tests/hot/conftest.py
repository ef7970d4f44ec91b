"""Fixtures `log`, `wire`, `nodesconf`: each leaf twice, compiled (id `c`) and pure (id `py`).

A compiled twin that can't be imported fails the tests; it never skips them. RAFTFAST_PURE_TESTS=1 selects `py` alone,
for the leg of CI that has no compiler. Nothing is chosen by what happens to be built.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

IMPLEMENTATIONS = ("py",) if os.environ.get("RAFTFAST_PURE_TESTS", "") not in ("", "0") else ("c", "py")


def leaf(impl: str, name: str) -> ModuleType:
    """The twin `impl` (`c` or `py`) of the leaf `name` (`log`, `wire`, `nodesconf`)."""
    return importlib.import_module(f"raftfast.hot.{name}_{impl}")


@pytest.fixture(params=IMPLEMENTATIONS)
def impl(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def log(impl: str) -> ModuleType:
    return leaf(impl, "log")


@pytest.fixture
def wire(impl: str) -> ModuleType:
    return leaf(impl, "wire")


@pytest.fixture
def nodesconf(impl: str) -> ModuleType:
    return leaf(impl, "nodesconf")
