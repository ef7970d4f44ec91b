"""How much is written for what is stored: rewrites cost a constant factor, not more with each entry (PROTOCOL 11)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hanging_disk import path_of
from node_cluster import CONFIG, PATIENCE, Journal, cluster_of

from raftfast import Node, StateMachine
from raftfast.storage import Disk, folder

MOST = 3.0
"""Bytes written for each byte of the entries, everything counted."""

COUNT, BATCH = 12_000, 500


class One(StateMachine):
    """A state that stays small."""

    def __init__(self) -> None:
        self.commands = 0

    def apply(self, index: int, command: bytes) -> bytes | None:
        self.commands += 1
        return None

    def snapshot(self):
        return iter([b"%d" % self.commands])

    def restore(self, pieces) -> None:
        self.commands = int(b"".join(pieces) or b"0")


class CountingDisk(Disk):
    """Counts what is written, and does not wait for the device."""

    written = rewrites = syncs = 0

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        CountingDisk.written += len(data)
        return super().pwrite(fd, data, offset)

    def rename(self, source: str, target: str) -> None:
        CountingDisk.rewrites += 1
        super().rename(source, target)

    def fdatasync(self, fd: int) -> None:
        CountingDisk.syncs += 1

    def fsync(self, fd: int) -> None:
        pass


@pytest.mark.parametrize("make", [Journal, One], ids=["a state that grows with each entry", "a state that stays small"])
def test_all_that_is_written_is_at_most_three_times_the_entries(run, tmp_path: Path, monkeypatch, make) -> None:
    monkeypatch.setattr(folder, "Disk", CountingDisk)
    CountingDisk.written = CountingDisk.rewrites = CountingDisk.syncs = 0

    async def main() -> None:
        entry_bytes = 0
        config = replace(CONFIG, rewrite_min_bytes=20_000)
        async with Node(tmp_path / "n", bus_port=0, state_machine=make(), config=config) as node:
            for start in range(0, COUNT, BATCH):
                commands = [b"%d " % number + b"x" * 64 for number in range(start, start + BATCH)]
                entry_bytes += sum(len(command) + len("1 APP ") + 40 + len(":12345 ") for command in commands)
                await node.propose_many(commands)
                await node._engine.settle()
        factor = CountingDisk.written / entry_bytes
        print(f"{factor:.2f} bytes written a byte of {COUNT} entries, {CountingDisk.rewrites} rewrites")
        assert CountingDisk.rewrites > 4, "no rewrite, no measure"
        assert factor <= MOST

    run(main())


class GatedDisk(CountingDisk):
    """The log of one folder is synced as often as it was let, of another one it is counted what is written to it."""

    let, gated, counted, over = threading.Semaphore(0), "", "", False

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if GatedDisk.counted and path_of(fd).startswith(GatedDisk.counted):
            return super().pwrite(fd, data, offset)
        return Disk.pwrite(self, fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        waits = GatedDisk.gated and not GatedDisk.over and path_of(fd).startswith(GatedDisk.gated)
        if waits and not GatedDisk.let.acquire(timeout=PATIENCE):
            GatedDisk.over = True


def test_entries_that_are_not_committed_are_not_copied_with_each_one_that_is(run, tmp_path: Path, monkeypatch) -> None:
    """A leader's log is long behind what is applied: each of these rewrites would copy nearly all of it."""
    monkeypatch.setattr(folder, "Disk", GatedDisk)
    monkeypatch.setattr(GatedDisk, "let", threading.Semaphore(0))
    monkeypatch.setattr(GatedDisk, "over", False)

    async def main() -> None:
        async with cluster_of(tmp_path, 2, max_append_bytes=1, max_inflight=1, rewrite_min_bytes=1000) as cluster:
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            engine, raft = leader._engine, leader._engine.member.raft
            CountingDisk.written = 0
            monkeypatch.setattr(GatedDisk, "counted", f"{leader.directory}/nodes.conf")
            monkeypatch.setattr(GatedDisk, "gated", f"{follower.directory}/nodes.conf")
            try:
                tasks = [asyncio.ensure_future(leader.propose(b"x" * 1000)) for _ in range(200)]
                entry_bytes = 200 * 1100
                await cluster.until(lambda: raft.log.nbytes > 200 * 1000, "the log is long")
                for _ in range(50):
                    applied = raft.last_applied
                    GatedDisk.let.release()
                    await cluster.until(lambda: raft.last_applied > applied, "one more is committed")  # noqa: B023
                    tasks.append(asyncio.ensure_future(leader.propose(b"y")))
                    entry_bytes += 100
                    last = raft.log.last_index
                    await cluster.until(lambda: engine.storage.last_index > last, "one more is stored")  # noqa: B023
                    await engine.settle()
                assert raft.log.last_index - raft.last_applied > 100
            finally:
                GatedDisk.over = True
                GatedDisk.let.release(1000)
            await asyncio.gather(*tasks)
            await engine.settle()
        factor = CountingDisk.written / entry_bytes
        print(f"{factor:.2f} bytes written a byte")
        assert factor <= MOST

    run(main())


def test_entries_a_sync_grow_with_the_load(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder, "Disk", CountingDisk)

    async def main() -> None:
        found = []
        async with Node(tmp_path / "n", bus_port=0, state_machine=One(), config=CONFIG) as node:
            await node.propose(b"first")
            for outstanding in (1, 8, 64, 512):
                CountingDisk.syncs = 0
                for _ in range(4):
                    await node.propose_many([b"x"] * outstanding)
                found.append(4 * outstanding / CountingDisk.syncs)
        assert found[0] == 1, "one outstanding proposal is one sync"
        assert found == sorted(found)
        assert found[-1] > 100

    run(main())
