"""The leaves' public names can be imported as modules too, with the compiled twins and with the pure ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from twins import IMPLEMENTATIONS

PROGRAM = """
import raftfast.nodesconf
import raftfast.wire as wire
from raftfast.nodesconf import crc64
from raftfast.wire import FrameDecoder, Hello

import raftfast
from twins import IMPLEMENTATIONS, leaf

assert raftfast.COMPILED is (IMPL == "c")
assert wire is raftfast.wire is leaf(IMPL, "wire")
assert raftfast.nodesconf is leaf(IMPL, "nodesconf")
assert FrameDecoder is wire.FrameDecoder
assert crc64 is raftfast.nodesconf.crc64
assert all(leaf(impl, "wire").Hello is Hello for impl in IMPLEMENTATIONS)
"""


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_the_leaves_are_modules_of_the_package(impl: str) -> None:
    environment = {
        **os.environ,
        "RAFTFAST_NO_EXTENSIONS": "" if impl == "c" else "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    program = f"IMPL = {impl!r}\n{PROGRAM}"
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
