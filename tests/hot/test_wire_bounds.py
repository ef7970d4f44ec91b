"""The compiled codec never reads past its payload: each ends where the next page of memory can't be read.

A read of one byte too many ends the process, so this runs in a child process and its exit is what is checked.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import IMPLEMENTATIONS

_CHILD = """
import ctypes, mmap, random, sys
from wire_cases import INVALID, VALID
from raftfast.errors import ProtocolError
from raftfast.hot import wire_c as wire

PAGE = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE), 0) == 0
view = memoryview(memory)
if sys.argv[1] == "past":
    view[PAGE]
source = random.Random(int(sys.argv[1]))
frames = [bytes.fromhex(vector["frame"]) for vector in VALID + INVALID]


def at_the_edge(data):
    view[PAGE - len(data) : PAGE] = data
    return view[PAGE - len(data) : PAGE]


done = 0
for frame in frames:
    for end in range(len(frame) + 1):
        for changed in (False, True):
            data = bytearray(frame[:end])
            if changed and data:
                data[source.randrange(len(data))] = source.choice(b" \\n-09aA\\x00")
            for call in (wire.FrameDecoder().feed, wire.decode):
                try:
                    call(at_the_edge(data if call is not wire.decode else data[8:]))
                except ProtocolError:
                    pass
                done += 1
print(done)
"""


def _run(argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CHILD, argument],
        cwd=Path(__file__).parent,
        env={"PYTHONPATH": ":".join(["", *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif("c" not in IMPLEMENTATIONS, reason="RAFTFAST_PURE_TESTS: there is no compiled codec to test")
def test_no_byte_behind_the_payload_is_read() -> None:
    seed = 20_240_607
    print(f"seed {seed}")
    done = _run(str(seed))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000


@pytest.mark.skipif("c" not in IMPLEMENTATIONS, reason="RAFTFAST_PURE_TESTS: there is no compiled codec to test")
def test_the_guard_page_works() -> None:
    assert _run("past").returncode < 0  # ended by a signal
