"""The storage, small, as benchmarks; and a report with the sizes that matter, as a command of its own.

Run: pytest benchmarks/bench_storage.py (small sizes; ratios within one run count), or for the report

    python benchmarks/bench_storage.py --lines 1000000 --state-mb 100 [--dir FOLDER] [--seconds 3]

which tells: entries per fsync, bytes written and syncs as the load grows; the time to load a folder with many log lines
and one with a large state; and what a sync costs over a growing file and over one that was filled with NULs before. How
long the event loop is held meanwhile is told by `bench_loop_delay.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import raftfast
from raftfast import Config, Node, StateMachine
from raftfast.records import HardState, NodeRecord
from raftfast.storage import Disk, Storage, StoredState, folder

ME = "a" * 40
NODES = (NodeRecord(ME, "127.0.0.1", 7000, 17000, aux={"shard-id": "b" * 40}, flags=("myself", "master")),)
LINE = b"1 APP 0123456789012345678901234567890123456789:12345 " + b"x" * 64


class Kept(StateMachine):
    """A state of chosen size, and a count."""

    def __init__(self, state_bytes: int = 0) -> None:
        self.count = 0
        self.pieces = [bytes(1 << 20)] * (state_bytes >> 20)

    def apply(self, index: int, command: bytes) -> bytes | None:
        self.count += 1
        return None

    def snapshot(self) -> Iterable[bytes]:
        return iter([b"%020d" % self.count, *self.pieces])

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.count = int(b"".join(pieces)[:20] or b"0")


class CountingDisk(Disk):
    """Counts over all disks that were made since `begin`."""

    written = syncs = 0

    @classmethod
    def begin(cls) -> None:
        cls.written = cls.syncs = 0

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        CountingDisk.written += len(data)
        return super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        CountingDisk.syncs += 1
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        CountingDisk.syncs += 1
        super().fsync(fd)


def opened(path: Path) -> Storage:
    storage, _ = Storage.open(path)
    storage.rewrite(StoredState(NODES), None, hard_state=HardState(1, ME))
    return storage


def with_lines(path: Path, count: int) -> None:
    storage = opened(path)
    for start in range(1, count + 1, 10_000):
        storage.append(None, None, start, [LINE] * min(10_000, count + 1 - start))
    storage.close()


def with_state(path: Path, megabytes: int) -> None:
    storage = opened(path)
    app = storage.write_app(0, (os.urandom(1 << 20) for _ in range(megabytes)))
    storage.rewrite(StoredState(NODES, app=app), None)
    storage.close()


def load(path: Path) -> None:
    storage, _ = Storage.open(path)
    storage.close()


# ---------------------------------------------------------------------- small, for pytest


@pytest.mark.benchmark(group="storage: load")
@pytest.mark.parametrize("count", [1_000, 20_000])
def test_load_lines(benchmark, tmp_path, count):
    with_lines(tmp_path / "d", count)
    benchmark.pedantic(load, (tmp_path / "d",), rounds=3)


@pytest.mark.benchmark(group="storage: load")
def test_load_state(benchmark, tmp_path):
    with_state(tmp_path / "d", 4)
    benchmark.pedantic(load, (tmp_path / "d",), rounds=3)


@pytest.mark.benchmark(group="storage: append and sync")
@pytest.mark.parametrize("count", [1, 64, 4096])
def test_append(benchmark, tmp_path, count):
    storage = opened(tmp_path / "d")
    lines = [LINE] * count
    benchmark.pedantic(lambda: storage.append(None, None, storage.last_index + 1, lines), rounds=20)
    storage.close()


def test_the_report_runs(tmp_path, capsys):
    report(tmp_path, lines=2_000, state_mb=2, seconds=0.2, loads=(1, 64))
    assert "entries per sync" in capsys.readouterr().out


# ---------------------------------------------------------------------- the report


def report(where: Path, lines: int, state_mb: int, seconds: float, loads: Iterable[int]) -> None:
    print(f"raftfast {'compiled' if raftfast.COMPILED else 'pure'}, {os.cpu_count()} cores, {where}")
    working, folder.Disk = folder.Disk, CountingDisk
    try:
        for outstanding in loads:
            asyncio.run(under_load(where / f"load-{outstanding}", outstanding, seconds))
    finally:
        folder.Disk = working
    print_time(f"load {lines} log lines", lambda: with_lines(where / "lines", lines), lambda: load(where / "lines"))
    print_time(f"load a state of {state_mb} MB", lambda: with_state(where / "s", state_mb), lambda: load(where / "s"))
    overwriting(where, 200)


def print_time(what: str, prepare: Callable[[], None], work: Callable[[], None]) -> None:
    prepare()
    began = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - began:.2f} s")


async def under_load(path: Path, outstanding: int, seconds: float) -> None:
    """One node alone, `outstanding` commands of 64 bytes at any time."""
    async with Node(path, bus_port=0, state_machine=Kept(), config=Config(node_timeout=5)) as node:
        await node.propose(b"first")
        CountingDisk.begin()
        loop, done, waits = asyncio.get_running_loop(), 0, 0.0
        began = loop.time()

        async def one() -> None:
            nonlocal done, waits
            while loop.time() - began < seconds:
                sent = loop.time()
                await node.submit(b"x" * 64)
                waits += loop.time() - sent
                done += 1

        await asyncio.gather(*(one() for _ in range(outstanding)))
        rate, syncs = done / (loop.time() - began), max(1, CountingDisk.syncs)
        print(
            f"{outstanding} outstanding: {rate:.0f} a second, mean wait {waits / done * 1e3:.2f} ms, "
            f"{done / syncs:.1f} entries per sync, {CountingDisk.written / done:.0f} bytes an entry"
        )


def overwriting(where: Path, rounds: int) -> None:
    """Appends of 4 KiB with a sync each: to a file that grows, to one with its room reserved, and over written NULs."""
    piece = b"x" * 4096
    total = rounds * len(piece)
    kinds: dict[str, Callable[[int], object]] = {
        "a growing file": lambda fd: None,
        "a file with its room reserved (posix_fallocate)": lambda fd: os.posix_fallocate(fd, 0, total),
        "a file filled with NULs": lambda fd: os.pwrite(fd, bytes(total), 0),
    }
    for number, (what, prepare) in enumerate(kinds.items()):
        fd = os.open(where / f"tail-{number}", os.O_RDWR | os.O_CREAT, 0o644)
        prepare(fd)
        os.fsync(fd)
        took = sorted(synced(fd, piece, rounds))
        os.close(fd)
        print(f"sync of 4 KiB at the end of {what}: median {took[len(took) // 2] * 1e6:.0f} us")


def synced(fd: int, piece: bytes, rounds: int) -> Iterator[float]:
    for number in range(rounds):
        began = time.perf_counter()
        os.pwrite(fd, piece, number * len(piece))
        os.fdatasync(fd)
        yield time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--state-mb", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--dir", help="on the file system to be measured; a folder is made in it, and removed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as where:
        report(Path(where), given.lines, given.state_mb, given.seconds, (1, 16, 256, 1024, 4096))


if __name__ == "__main__":
    main()
