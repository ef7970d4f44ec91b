"""Fixtures `log`, `wire`, `nodesconf`: each leaf twice, compiled (id `c`) and pure (id `py`), as `twins` selects."""

from __future__ import annotations

from types import ModuleType

import pytest

from twins import IMPLEMENTATIONS, leaf


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
