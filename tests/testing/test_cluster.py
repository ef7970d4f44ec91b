"""Real clusters for users' tests: formed, killed, restarted, grown, and gone at the end; on asyncio and for threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftfast import Config, NodeClosed
from raftfast.testing import BlockingCluster, Cluster
from real_nodes import Sum, no_thread_left

CONFIG = Config(node_timeout=2.0, trim_keep_time=0.0, trim_keep=4)
"""So long that a busy machine does not elect by itself, but where the election is the test."""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_thread_left():
        yield


def test_a_leader_is_killed_and_comes_back(tmp_path: Path) -> None:
    with BlockingCluster(3, state_machine=Sum, directory=tmp_path, config=CONFIG) as cluster:
        assert {path.name for path in tmp_path.iterdir()} == {"node-0", "node-1", "node-2"}
        old = cluster.leader()
        with old.session() as session:
            assert session.propose(b"5") == b"5"
        cluster.kill(old)
        assert old not in cluster.live
        with pytest.raises(NodeClosed):
            old.propose(b"1")
        new = cluster.leader()
        assert new is not old
        with new.session() as session:
            assert session.propose(b"2") == b"7"
        again = cluster.restart(old)
        assert again is not old
        assert again in cluster.nodes
        cluster.wait_until(lambda: len(cluster.live) == 3 and cluster.converged())
        assert [machine.value for machine in cluster.machines] == [7, 7, 7]  # type: ignore[attr-defined]
        assert cluster.machine(again) is cluster.machines[cluster.nodes.index(again)]


def test_the_same_on_asyncio() -> None:
    async def main() -> Path:
        async with Cluster(3, state_machine=Sum, config=CONFIG) as cluster:
            old = await cluster.leader()
            folder = Path(old.directory).parent
            async with old.session() as session:
                await session.propose(b"5")
            await cluster.kill(old)
            new = await cluster.leader()
            assert new is not old
            async with new.session() as session:
                await session.propose(b"2")
            await cluster.restart(old)
            await cluster.wait_until(lambda: len(cluster.live) == 3 and cluster.converged())
            assert [machine.value for machine in cluster.machines] == [7, 7, 7]  # type: ignore[attr-defined]
            return folder

    folder = asyncio.run(main())
    assert not folder.exists()


def test_a_node_is_added_and_restarted_gracefully() -> None:
    with BlockingCluster(1, state_machine=Sum, config=CONFIG) as cluster:
        alone = cluster.leader()
        assert alone.propose_many([b"1"] * 20)[-1] == b"20"
        added = cluster.add_node()
        assert added is cluster.nodes[1]
        cluster.wait_until(cluster.converged)
        assert cluster.machine(added).value == 20  # type: ignore[attr-defined]
        again = cluster.restart(added)
        cluster.wait_until(cluster.converged)
        assert cluster.machine(again).value == 20  # type: ignore[attr-defined]


def test_the_followers_are_all_but_the_leader() -> None:
    with BlockingCluster(3, state_machine=Sum, config=CONFIG) as cluster:
        followers = cluster.followers()
        assert len(followers) == 2
        assert set(followers) < set(cluster.nodes)
        assert cluster.config is CONFIG


def test_more_nodes_than_voters() -> None:
    with BlockingCluster(3, state_machine=Sum, config=Config(node_timeout=2.0, max_voters=1)) as cluster:
        assert [node.cluster.size for node in cluster.nodes] == [1, 1, 1]


def test_a_bus_port_that_is_taken_meanwhile_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with Cluster(3, state_machine=Sum, directory=tmp_path, config=CONFIG) as cluster:
            follower = (await cluster.followers())[0]
            await follower.close()
            async with contextlib.AsyncExitStack() as stack:
                with contextlib.suppress(OSError):  # then another process was quicker, which is as good
                    taken = asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", follower.bus_port)
                    await stack.enter_async_context(await taken)
                again = await cluster.restart(follower)
                assert again.bus_port not in (0, follower.bus_port)
                async with again.session() as session:
                    await session.propose(b"1")
                await cluster.wait_until(cluster.converged)

    asyncio.run(main())


def test_what_can_not_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="a cluster of 0 nodes"):
        BlockingCluster(0, state_machine=Sum)
    with BlockingCluster(1, state_machine=Sum, config=CONFIG) as cluster:
        with pytest.raises(TimeoutError, match=r"within 0 seconds\nnodes\[0\]: [0-9a-f]{8} singleton"):
            cluster.wait_until(lambda: False, 0)
        old = cluster.nodes[0]
        cluster.restart(old)
        with pytest.raises(ValueError, match="no longer"):
            cluster.kill(old)
        with pytest.raises(NodeClosed):
            cluster.nodes[0].start()
        cluster.nodes[0].close()
        assert "nodes[0]: has ended" in cluster.describe()
        assert cluster.live == []


def test_a_start_that_fails_leaves_nothing() -> None:
    class Broken(Sum):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Broken.made += 1
            if Broken.made == 2:
                raise LookupError("no second one")

    cluster = BlockingCluster(3, state_machine=Broken, config=CONFIG)
    with pytest.raises(LookupError):
        cluster.start()
    cluster.close()
