"""How long a node holds up its event loop: busy, while its disk hangs, a large state is written, sent, installed.

Run: pytest benchmarks/bench_loop_delay.py (once each with a small state: that it runs; no time is judged), or

    python benchmarks/bench_loop_delay.py --state-mb 100 --value-bytes 1000 [--loop uvloop] [--dir FOLDER]

A probe on the node's loop wants to be woken each millisecond. Two figures a case: how much later than asked it was
woken at the worst (that is what callers and other members feel; other programs on the machine are in it), and how much
processor time the loop's own thread used at most between two wake-ups (nobody else is in it). `busy` is what the others
are compared with: the same node under the same load with nothing else to do. Whoever is at the other end of a transfer
runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import raftfast
from raftfast import Config, Node
from raftfast.kv import KeyValueStore, encode_command
from raftfast.records import HardState, NodeRecord
from raftfast.storage import Disk, Storage, StoredState

PROBE_SECONDS = 0.001
CLIENTS = 16
HANG_MOST = 60.0
PATIENCE = 120.0

# The file is rewritten when a case says so; the log is trimmed at once, so that whoever joins gets a snapshot.
CONFIG = Config(node_timeout=5.0, rewrite_min_bytes=1 << 40, trim_keep=1, trim_keep_time=0.0)


@dataclass
class Sizes:
    """How large the state is, in bytes, and how long the cases last that have no end of their own."""

    state_bytes: int
    value_bytes: int
    seconds: float


@dataclass
class Held:
    """The worst that a probe met, in seconds."""

    late: float = 0.0
    worked: float = 0.0
    wakes: int = 0


async def probe(until: Awaitable[object]) -> Held:
    """Wakes on the running loop each millisecond until `until` is done; its error is raised."""
    task, held, loop = asyncio.ensure_future(until), Held(), asyncio.get_running_loop()
    worked = time.thread_time()
    while not task.done():
        asked = loop.time() + PROBE_SECONDS
        await asyncio.sleep(PROBE_SECONDS)
        before, worked = worked, time.thread_time()
        held.late = max(held.late, loop.time() - asked)
        held.worked = max(held.worked, worked - before)
        held.wakes += 1
    await task
    return held


def filled(sizes: Sizes) -> KeyValueStore:
    """A store that has grown before its node is started."""
    store = KeyValueStore()
    for first in range(0, sizes.state_bytes // sizes.value_bytes, 1000):
        last = min(first + 1000, sizes.state_bytes // sizes.value_bytes)
        pairs = [each for number in range(first, last) for each in (b"key:%d" % number, os.urandom(sizes.value_bytes))]
        store.apply(0, encode_command("MSET", *pairs))
    return store


@contextlib.asynccontextmanager
async def under_load(node: Node) -> AsyncIterator[None]:
    """Clients that write, one after the other's answer."""

    async def client(number: int) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await node.propose(encode_command("SET", f"key:{number}", "x" * 100))

    clients = [asyncio.ensure_future(client(number)) for number in range(CLIENTS)]
    try:
        yield
    finally:
        for each in clients:
            each.cancel()
        await asyncio.wait(clients)


@contextlib.contextmanager
def hanging_disk() -> Iterator[None]:
    """`fdatasync` returns when this is left."""
    working, released = Disk.fdatasync, threading.Event()

    def hang(disk: Disk, fd: int) -> None:
        released.wait(HANG_MOST)
        working(disk, fd)

    Disk.fdatasync = hang  # type: ignore[method-assign]
    try:
        yield
    finally:
        Disk.fdatasync = working  # type: ignore[method-assign]
        released.set()


@contextlib.asynccontextmanager
async def other_process(path: Path, sizes: Sizes) -> AsyncIterator[int]:
    """A node alone in a process of its own, led by itself, with a state of this size; its bus port."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", "--dir", str(path), "--state-bytes", str(sizes.state_bytes),
        "--value-bytes", str(sizes.value_bytes), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield int(await child.stdout.readline())
    finally:
        child.stdin.close()
        await child.wait()


async def serve(path: Path, sizes: Sizes) -> None:
    """What `other_process` runs: until its standard input ends."""
    async with Node(path, bus_port=0, state_machine=filled(sizes), config=CONFIG) as node:
        for _ in range(8 if sizes.state_bytes else 0):  # they found a cluster; without one it can join another
            await node.propose(encode_command("SET", "warm", "up"))
        print(node.bus_port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def until(node: Node, condition: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # type: ignore[operator]
            await node._engine.turned.wait()  # type: ignore[union-attr]


# ---------------------------------------------------------------------- the cases


async def busy(where: Path, sizes: Sizes) -> Held:
    """Nothing but the load."""
    async with Node(where / "n", bus_port=0, state_machine=filled(sizes), config=CONFIG) as node, under_load(node):
        return await probe(asyncio.sleep(sizes.seconds))


async def disk_hangs(where: Path, sizes: Sizes) -> Held:
    """`fdatasync` hangs from the first write on."""
    async with Node(where / "n", bus_port=0, state_machine=filled(sizes), config=CONFIG) as node, under_load(node):
        await node.propose(encode_command("SET", "warm", "up"))
        with hanging_disk():
            return await probe(asyncio.sleep(sizes.seconds))


async def state_written(where: Path, sizes: Sizes) -> Held:
    """The state is written to its file, and nodes.conf anew."""
    async with Node(where / "n", bus_port=0, state_machine=filled(sizes), config=CONFIG) as node, under_load(node):
        engine = node._engine
        assert engine is not None
        await node.propose(encode_command("SET", "warm", "up"))
        stored = engine.storage.stored_index

        async def write() -> None:
            engine.compact(moves=False)
            await until(node, lambda: engine.storage.stored_index > stored and not engine._compacting)

        return await probe(write())


async def snapshot_sent(where: Path, sizes: Sizes) -> Held:
    """A newcomer gets the state in pieces."""
    small = Sizes(0, sizes.value_bytes, 0)
    async with other_process(where / "other", small) as port:
        node = Node(where / "n", bus_port=0, state_machine=filled(sizes), config=CONFIG)
        async with node, under_load(node):
            await until(node, lambda: node.status().boundary_index > 2)

            async def send() -> None:
                await node.meet("127.0.0.1", 7000, port)
                await until(node, lambda: node.status().counters.get("snapshots_sent", 0) > 0)

            return await probe(send())


async def snapshot_installed(where: Path, sizes: Sizes) -> Held:
    """A newcomer takes and installs the state that it gets in pieces."""
    async with other_process(where / "other", sizes) as port:
        node = Node(where / "n", bus_port=0, state_machine=KeyValueStore(), config=CONFIG)
        async with node:

            async def install() -> None:
                await node.meet("127.0.0.1", 7000, port)
                await until(node, lambda: node.status().counters.get("snapshots_installed", 0) > 0)
                await node._engine.settle()  # type: ignore[union-attr]

            held = await probe(install())
            assert node._state_machine.size >= sizes.state_bytes // sizes.value_bytes  # type: ignore[union-attr]
            return held


async def started(where: Path, sizes: Sizes) -> Held:
    """A node starts in a folder with a log line for each 100 bytes of the state, before anybody is served."""
    storage, _ = Storage.open(where / "n")
    record = NodeRecord("a" * 40, "127.0.0.1", 7000, 17000, aux={"shard-id": "b" * 40}, flags=("myself", "master"))
    storage.rewrite(StoredState((record,)), None, hard_state=HardState(1, record.id))
    count = sizes.state_bytes // 100
    for first in range(1, count + 1, 10_000):
        storage.append(None, None, first, [b"1 APP - " + b"x" * 100] * min(10_000, count + 1 - first))
    storage.close()
    node = Node(where / "n", bus_port=0, state_machine=KeyValueStore(), config=CONFIG)
    try:
        return await probe(node.start())
    finally:
        await node.close()


CASES = (busy, disk_hangs, state_written, snapshot_sent, snapshot_installed, started)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_each_case_runs(tmp_path: Path, case) -> None:
    held = asyncio.run(case(tmp_path, Sizes(2 << 20, 1000, 0.1)))
    assert held.wakes > 0


# ---------------------------------------------------------------------- the report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state-mb", type=int, default=100)
    parser.add_argument("--value-bytes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--switch-ms", type=float, default=5.0, help="sys.setswitchinterval, Python's own default is 5")
    parser.add_argument("--cases", nargs="*", default=[case.__name__ for case in CASES])
    parser.add_argument("--dir", help="on the file system to be measured; a folder is made in it, and removed")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--state-bytes", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(Path(given.dir), Sizes(given.state_bytes, given.value_bytes, 0.0)))
        return
    sizes = Sizes(given.state_mb << 20, given.value_bytes, given.seconds)
    leaves = "compiled" if raftfast.COMPILED else "pure"
    print(f"raftfast {leaves}, {given.loop}, {os.cpu_count()} cores, a state of {given.state_mb} MB in values of "
          f"{given.value_bytes} bytes, {CLIENTS} clients")  # fmt: skip
    sys.setswitchinterval(given.switch_ms / 1e3)
    for case in CASES:
        if case.__name__ not in given.cases:
            continue
        runner = asyncio.Runner(loop_factory=factory(given.loop))
        with tempfile.TemporaryDirectory(dir=given.dir) as where, runner:
            held = runner.run(case(Path(where), sizes))
        print(
            f"{case.__name__}: woken {held.late * 1e3:.1f} ms late at most, {held.worked * 1e3:.1f} ms of work between "
            f"two wake-ups ({held.wakes} wake-ups)",
            flush=True,
        )


def factory(name: str):
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
