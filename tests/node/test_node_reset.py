"""CLUSTER RESET as a user meets it, and SIGTERM to a process that embeds a node."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from node_cluster import CONFIG, HOST, PATIENCE, Journal, cluster_of, error_of, meet

from raftfast import ClusterReset, MeetError, Node, NodeClosed, Rejected, StorageError
from raftfast.member import Identity

SERVICE = """
import asyncio, sys
import raftfast
from node_cluster import CONFIG, Journal

async def main():
    async with raftfast.Node(sys.argv[1], bus_port=0, state_machine=Journal(), config=CONFIG) as node:
        await node.propose(b"kept")
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("hard", [False, True])
def test_a_reset_node_is_fresh_also_after_a_restart(run, tmp_path: Path, hard: bool) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            follower = (await cluster.followers())[0]
            await follower.propose(b"one")
            before = follower.status()
            await follower.reset(hard=hard)
            after = follower.status()
            assert after.standing == "singleton"
            assert (after.node_id != before.node_id) is hard
            assert after.shard_id != before.shard_id
            assert (after.term, after.last_index, after.last_applied, after.cluster_id) == (0, 0, 0, None)
            assert list(follower.cluster.nodes) == [after.node_id]
            assert cluster.journal(follower).commands == []
            number = next(n for n, node in cluster.nodes.items() if node is follower)
            await cluster.kill(number)
            (again,) = await cluster.start(number)
            assert again.status().standing == "singleton"
            assert (again.status().node_id, again.status().shard_id) == (after.node_id, after.shard_id)

    run(main())


def test_a_soft_reset_id_is_welcome_again_only_once_it_was_forgotten(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, (follower, _) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"kept")
            await follower.reset()
            assert isinstance(await error_of(meet(leader, follower)), MeetError)
            await leader.forget(follower.node_id)
            await meet(leader, follower)
            await cluster.until(lambda: follower.status().standing == "member", "it is a member again")
            await follower.barrier()
            assert cluster.journal(follower).commands == [b"kept"]

    run(main())


def test_a_read_that_wakes_up_behind_a_reset_is_told_so(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            (node,) = cluster.nodes.values()
            await node.propose(b"one")

            loop, member = asyncio.get_running_loop(), node._engine.member
            read = asyncio.ensure_future(node.barrier())
            await asyncio.sleep(0)  # it is asked now, and a turn is due, which will answer it
            identity = Identity(member.node_id, "5" * 40, member.identity.address)
            stored = loop.create_future()
            loop.call_soon(member.reset, identity, stored, loop.time())
            assert isinstance(await error_of(read), ClusterReset)
            node._engine.schedule()
            await stored

    run(main())


def test_what_waits_is_told_of_a_reset(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            follower = (await cluster.followers())[0]
            for number, node in cluster.nodes.items():
                if node is not follower:
                    await cluster.kill(number)
            waiting = follower.submit(b"nobody takes it")
            await follower.reset()
            assert isinstance(await error_of(waiting), ClusterReset)

    run(main())


def test_a_leader_hands_over_before_it_is_reset(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            term = leader.status().term
            await leader.propose(b"kept")
            await leader.reset()
            others = [node for node in cluster.live if node is not leader]
            await cluster.until(lambda: any(node.status().leader_id for node in others), "a leader")
            await others[0].barrier()
            assert others[0].status().term > term
            assert cluster.journal(others[0]).commands == [b"kept"]

    run(main())


@pytest.mark.parametrize("how", ["fails", "is aborted"])
def test_a_leader_that_ends_while_it_hands_over_is_not_reset(run, tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            await leader.propose(b"kept")
            reset = asyncio.ensure_future(leader.reset())
            await asyncio.sleep(0)
            if how == "fails":
                leader._engine.fail(StorageError("the disk is gone"))
            else:
                await leader.abort()
            assert isinstance(await error_of(reset), NodeClosed)
            assert cluster.journal(leader).commands == [b"kept"]

    run(main())


class Read(Journal):
    """Its state is read by another thread for as long as a test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.being_read = self.replaced_meanwhile = False

    def snapshot(self) -> Iterator[bytes]:
        return self._read(list(super().snapshot()))

    def _read(self, pieces: list[bytes]) -> Iterator[bytes]:
        self.being_read = True
        self.began.release()
        self.go_on.acquire(timeout=PATIENCE)
        yield from pieces
        self.being_read = False

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.replaced_meanwhile |= self.being_read
        super().restore(pieces)


def test_a_reset_waits_until_nobody_reads_the_state_machine(run, tmp_path: Path) -> None:
    """A state machine's methods never run at the same time as each other, but for apply beside the reading."""

    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            machine = Read()
            (node,) = await cluster.start(0, state_machine=machine)
            try:
                await node.propose(b"one")
                assert node._engine.compact()
                assert await asyncio.to_thread(machine.began.acquire, timeout=PATIENCE)
                reset = asyncio.ensure_future(node.reset())
                await asyncio.sleep(0)
                backup = asyncio.ensure_future(node.backup())  # reads it too, behind what the reset waits for
                for _ in range(3):
                    await node._engine.next_turn()
                machine.go_on.release()
                assert await asyncio.to_thread(machine.began.acquire, timeout=PATIENCE)
                for _ in range(3):
                    await node._engine.next_turn()
                assert not reset.done()
            finally:
                machine.go_on.release(2)
            await reset
            (await backup).close()
            assert not machine.replaced_meanwhile
            assert machine.commands == []
            assert node.failure is None

    run(main())


def test_a_forgotten_node_waits_for_its_reset(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, (follower, _) = await cluster.leader(), await cluster.followers()
            await leader.forget(follower.node_id)
            await cluster.until(lambda: follower.status().standing == "removed", "it knows that it was forgotten")
            with pytest.raises(Rejected, match="RESET"):
                follower.submit(b"no")
            await follower.reset()
            assert await follower.propose(b"alone") == b"1"

    run(main())


def test_sigterm_closes_the_node_gracefully_and_then_ends_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    # A graceful stop stores the state: nothing is left in the log, all of it is in the state file.
    lines = (folder / "nodes.conf").read_bytes().splitlines()
    assert not [line for line in lines if line.startswith(b"log ")]

    async def restarted() -> None:
        journal = Journal()
        async with Node(folder, host=HOST, bus_port=0, state_machine=journal, config=CONFIG) as node:
            await node.barrier()
            assert journal.commands == [b"kept"]

    asyncio.run(restarted())
