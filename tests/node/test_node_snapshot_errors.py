"""Each call of the disk fails once while a snapshot is built, sent, taken and installed: nothing is lost."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from failing_disk import HARMLESS, FailingDisk, failing_disks  # noqa: F401 (a fixture)
from node_cluster import Cluster, cluster_of, error_of, meet, running

from raftfast import Node, StorageError
from tally import Tally

COMMANDS = [b"%d" % number for number in range(20)]


async def trimmed_leader(cluster: Cluster) -> Node:
    """A node alone whose log was trimmed: who joins it gets a snapshot."""
    (leader,) = await cluster.start(0)
    await leader.propose_many(COMMANDS)
    await cluster.until(lambda: leader.status().boundary_index > 2, "the log is trimmed")
    await leader._engine.settle()
    return leader


async def joined(cluster: Cluster, leader: Node, newcomer: Node) -> None:
    """Brings a node in, whatever it is by now; returns when it is a member, or one of the two has ended.

    A joiner that heard nothing for a while, for its leader has died or the machine is slow, is alone again; it is met
    anew.
    """

    def live() -> bool:
        return running(leader) and running(newcomer)

    while live() and newcomer.status().standing != "member":
        if newcomer.status().standing == "singleton":
            await error_of(meet(leader, newcomer))
        await cluster.until(
            lambda: not live() or newcomer.status().standing != "joiner", "the newcomer joins, or gives up"
        )
    for node in (leader, newcomer):
        await settled(node)


async def settled(node: Node) -> None:
    """Waits until all is done that its threads were asked for, and what failed in it has ended the node."""
    engine = node._engine
    for worker in (engine._disk, engine._state_worker, engine._piece_worker):
        if running(node):
            await engine.loop.run_in_executor(worker, lambda: None)
    await engine.settle()


@pytest.mark.parametrize("fault", ["full", "short write"])
def test_every_call_of_who_takes_a_snapshot_fails_once(run, tmp_path: Path, tally: Tally, fault: str) -> None:
    tried: Counter[str] = Counter()

    async def one(folder: Path, fail_at: int) -> bool:
        """Whether the call was made at all."""
        folder.mkdir()
        async with cluster_of(folder, 0, trim_keep=1, node_timeout=0.6) as cluster:
            leader = await trimmed_leader(cluster)
            (newcomer,) = await cluster.start(1)
            FailingDisk.arm(Path(newcomer.directory), fault, fail_at)
            await joined(cluster, leader, newcomer)
            call = FailingDisk.failed
            if not call:
                return False
            tried[call] += 1
            FailingDisk.disarm()
            assert not running(newcomer) or call in HARMLESS, f"{call} failed, and the node went on"
            if not running(newcomer):
                assert isinstance(newcomer.failure, StorageError)
                await newcomer.close()
                (newcomer,) = await cluster.start(1)
                await joined(cluster, leader, newcomer)
            await leader.propose(b"after")
            await cluster.converge()
            assert cluster.journals[1].commands == [*COMMANDS, b"after"]
            return True

    async def main() -> None:
        for fail_at in itertools.count():
            if not await one(tmp_path / str(fail_at), fail_at):
                break
        tally.add(f"errors of who takes a snapshot, {fault}", {"calls failed": tried.total()}, tried)
        assert tried["pwrite"] >= 3

    run(main())


def test_every_call_of_who_sends_a_snapshot_fails_once(run, tmp_path: Path, tally: Tally) -> None:
    """Alone, it ends where its disk fails; started again it has all, and the newcomer gets all."""
    tried: Counter[str] = Counter()

    async def one(folder: Path, fail_at: int) -> bool:
        folder.mkdir()
        async with cluster_of(folder, 0, trim_keep=1, node_timeout=0.6) as cluster:
            leader = await trimmed_leader(cluster)
            (newcomer,) = await cluster.start(1)
            FailingDisk.arm(Path(leader.directory), "broken", fail_at)
            await joined(cluster, leader, newcomer)
            call = FailingDisk.failed
            FailingDisk.disarm()
            if not call:
                return False
            tried[call] += 1
            if not running(leader):
                assert isinstance(leader.failure, StorageError)
                await leader.close()
                (leader,) = await cluster.start(0)
                await cluster.until(lambda: leader.status().leader_id == leader.node_id, "it leads again")
            await joined(cluster, leader, newcomer)
            await leader.propose(b"after")
            await cluster.converge()
            for journal in cluster.journals.values():
                assert journal.commands == [*COMMANDS, b"after"]
            return True

    async def main() -> None:
        for fail_at in range(30):
            if not await one(tmp_path / str(fail_at), fail_at):
                break
        tally.add("errors of who sends a snapshot", {"calls failed": tried.total()}, tried)
        assert {"pwrite", "pread"} <= set(tried)

    run(main())
