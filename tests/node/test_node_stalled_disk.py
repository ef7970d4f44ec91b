"""A disk hangs: the loop turns on, a leader that can't commit steps down, all goes on when the disk moves again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from hanging_disk import Hang, hanging
from node_cluster import PATIENCE, Cluster, cluster_of

from raftfast import Node
from raftfast.messages import Role

TURNS = 4
"""Turns and heartbeats that are waited for while the disk hangs: fewer than a leader makes before it steps down."""


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hang]:
    yield from hanging(monkeypatch, 2 * PATIENCE)


def heard(node: Node, kind: str) -> int:
    return node.status().counters[f"messages_in_{kind}"]


async def turns_on(cluster: Cluster, node: Node, leader: Node, follower: Node) -> None:
    """The node's loop makes turns, and heartbeats are sent and answered, while its disk hangs."""
    turned = 0
    sent, answered = heard(follower, "AppendEntries"), heard(leader, "AppendEntriesAck")
    async with asyncio.timeout(PATIENCE):
        while turned < TURNS:
            await node._engine.turned.wait()
            turned += 1
            await asyncio.sleep(0)
    await cluster.until(lambda: heard(follower, "AppendEntries") >= sent + TURNS, "heartbeats are sent")
    await cluster.until(lambda: heard(leader, "AppendEntriesAck") >= answered + TURNS, "heartbeats are answered")


def test_a_leader_that_commits_nothing_for_its_hanging_disk_steps_down_and_recovers(
    run, tmp_path, hang: Hang, caplog
) -> None:
    """PROTOCOL 10. The disks of two of three voters hang, so nothing commits, though all answer."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=2.0) as cluster, AsyncExitStack() as closing:
            leader, (follower, _) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            closing.callback(hang.release)
            hang.begin([leader, follower], "fdatasync", "nodes.conf")
            waiting = leader.submit(b"hangs")
            await cluster.until(lambda: hang.began, "the disk hangs")
            await turns_on(cluster, leader, leader, follower)
            assert not waiting.done()
            await cluster.until(lambda: leader.status().role is not Role.LEADER, "the leader steps down")
            assert "the disk does not move: stepping down" in caplog.text
            assert leader._engine._job_running, "the disk still hangs"
            assert leader.status().durable_index < leader.status().last_index
            hang.release()
            again = await cluster.leader()
            await again.propose(b"after")
            await cluster.converge()
            await asyncio.wait([waiting])
            for journal in cluster.journals.values():
                assert journal.commands[0] == b"before"
                assert b"after" in journal.commands
                assert len(journal.commands) == len(set(journal.commands))
            error = waiting.exception()
            assert error is not None or b"hangs" in cluster.journals[0].commands
            assert leader.failure is None

    run(main())


def test_a_follower_whose_disk_hangs_answers_heartbeats_and_acknowledges_nothing(run, tmp_path, hang: Hang) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster, AsyncExitStack() as closing:
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            closing.callback(hang.release)
            hang.begin([follower], "fdatasync", "nodes.conf")
            waiting = leader.submit(b"needs both")
            await cluster.until(lambda: hang.began, "the disk hangs")
            durable = follower.status().durable_index
            await turns_on(cluster, follower, leader, follower)
            assert not waiting.done()
            assert follower.status().durable_index == durable
            hang.release()
            assert await waiting == b"2"

    run(main())


@pytest.mark.parametrize(("call", "part"), [("fsync", "/app-"), ("fsync", ".tmp-"), ("rename", ".tmp-")])
def test_a_compaction_that_hangs_blocks_no_turn(run, tmp_path, hang: Hang, call: str, part: str) -> None:
    """While the app file is written appends go on too; behind a rewrite of nodes.conf they wait (PROTOCOL 11)."""

    async def main() -> None:
        async with (
            cluster_of(tmp_path, 2, rewrite_min_bytes=1) as cluster,
            AsyncExitStack() as closing,
        ):
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            await leader._engine.settle()
            closing.callback(hang.release)
            hang.begin([leader], call, part)
            leader._engine.compact(moves=False)
            await cluster.until(lambda: hang.began, "the disk hangs")
            if part == "/app-":
                for number in range(5):
                    await leader.propose(b"%d" % number)
            await turns_on(cluster, leader, leader, follower)
            hang.release()
            await leader.propose(b"after")
            await cluster.converge()

    run(main())
