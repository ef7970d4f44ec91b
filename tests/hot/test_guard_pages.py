"""The compiled leaves never read past what they are given: it ends where the next page of memory can't be read.

A read of one byte too many ends the process, so the cases (guard_pages.py) run in a child process; what is checked is
how that ended, and what is told is the case at which it did.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from twins import IMPLEMENTATIONS

pytestmark = pytest.mark.skipif("c" not in IMPLEMENTATIONS, reason="RAFTFAST_PURE_TESTS: there is no compiled leaf")
SEED = 20_261_124
FAULTS = (-signal.SIGSEGV, -signal.SIGBUS)


def _run(name: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("guard_pages.py")), name, str(SEED), str(where)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])},
        capture_output=True,
        text=True,
        timeout=400,
    )


def _case(where: Path) -> str:
    """The case that the child had begun."""
    noted = where.read_bytes()
    return noted[4 : 4 + struct.unpack("i", noted[:4])[0]].decode()


@pytest.mark.parametrize(("leaf", "least"), [("wire", 50_000), ("log", 2_000), ("nodesconf", 20_000)])
def test_no_byte_behind_the_end_is_read(leaf: str, least: int, tmp_path: Path) -> None:
    where = tmp_path / "case"
    done = _run(leaf, where)
    assert done.returncode == 0, f"seed {SEED}: ended with {done.returncode} at {_case(where)}\n{done.stderr}"
    assert int(done.stdout) > least


@pytest.mark.parametrize("name", ["past", "ahead"])
def test_a_read_past_the_end_is_seen(name: str, tmp_path: Path) -> None:
    assert _run(name, tmp_path / "case").returncode in FAULTS
