"""No verb of a compiled leaf keeps what it used: each is called by the 100,000 in a child, whose memory must stay flat.

Nothing is timed, all is counted, after a warm-up: blocks of Python's allocator, which tell of every small object; the
resident set, which also tells of large ones and of what a leaf takes from malloc past Python; and the references to
what the calls share (None, numbers, the arguments), since a count that only rises takes no memory. A case goes
through its inputs at least 500 times, so that whatever one of them leaks is leaked at least 500 times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twins import IMPLEMENTATIONS

pytestmark = pytest.mark.skipif("c" not in IMPLEMENTATIONS, reason="RAFTFAST_PURE_TESTS: there is no compiled leaf")

MOST_BLOCKS = 200
MOST_REFERENCES = 200
MOST_KIB = 6 << 10


def _measured(leaf: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("leak_cases.py")), leaf],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path]), "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _leaks(found: dict[str, Any]) -> bool:
    return bool(found["blocks"] > MOST_BLOCKS or abs(found["references"]) > MOST_REFERENCES or found["kib"] > MOST_KIB)


@pytest.mark.parametrize(("leaf", "least"), [("wire", 14), ("log", 20), ("nodesconf", 15)])
def test_memory_is_flat(leaf: str, least: int) -> None:
    measured = _measured(leaf)
    assert len(measured) >= least
    assert all(found["rounds"] >= 500 for found in measured)
    assert [found for found in measured if _leaks(found)] == []


def test_a_leak_is_seen() -> None:
    measured = _measured("leaks")
    assert len(measured) == 4
    if sys.version_info >= (3, 12):  # None is immortal there: its count stays what it is
        measured = [found for found in measured if found["case"] != "a count of None"]
    assert [found for found in measured if not _leaks(found)] == []
