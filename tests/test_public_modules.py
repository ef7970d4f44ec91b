"""The leaves' public names can be imported as modules too, with the compiled twins and with the pure ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import raftfast.nodesconf
import raftfast.wire as wire
from raftfast.nodesconf import crc64
from raftfast.wire import FrameDecoder, Hello

import raftfast
from raftfast.hot import nodesconf_c, nodesconf_py, wire_c, wire_py

assert raftfast.COMPILED is COMPILED
assert wire is raftfast.wire is (wire_c if COMPILED else wire_py)
assert raftfast.nodesconf is (nodesconf_c if COMPILED else nodesconf_py)
assert FrameDecoder is wire.FrameDecoder
assert crc64 is raftfast.nodesconf.crc64
assert wire_c.Hello is wire_py.Hello is Hello
"""


@pytest.mark.parametrize("compiled", [True, False])
def test_the_leaves_are_modules_of_the_package(compiled: bool) -> None:
    environment = {
        **os.environ,
        "RAFTFAST_NO_EXTENSIONS": "" if compiled else "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    program = f"COMPILED = {compiled}\n{PROGRAM}"
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
