"""`user`: a user's pytest, with raftfast installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from user_pytest import UserPytest


@pytest.fixture
def user(tmp_path: Path) -> UserPytest:
    return UserPytest(tmp_path)
