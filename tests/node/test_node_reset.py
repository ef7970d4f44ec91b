"""CLUSTER RESET as a user meets it, and SIGTERM to a process that embeds a node."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from node_cluster import CONFIG, HOST, PATIENCE, Journal, cluster_of, error_of, meet

from raftfast import ClusterReset, MeetError, Node, Rejected

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

            async def read_and_reset() -> None:
                await node.barrier()
                await node.reset()

            outcomes = await asyncio.gather(read_and_reset(), node.barrier(), return_exceptions=True)
            assert outcomes[0] is None
            assert isinstance(outcomes[1], ClusterReset)  # both were answered in one turn, and the first one reset it
            await node.barrier()

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
