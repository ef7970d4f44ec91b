"""A disk that hangs: the loop turns on, a leader that can't commit steps down, all goes on when the disk moves again.

The disk hangs on an event, not for a time: were the loop to wait for it, nothing would ever release it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from node_cluster import PATIENCE, Cluster, cluster_of

from raftfast import Node
from raftfast.messages import Role
from raftfast.storage import Disk

TURNS = 4
"""Turns and heartbeats that are waited for while the disk hangs: fewer than a leader makes before it steps down."""


class Stall:
    """Hangs one call of the disk for the files of some nodes, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._released = threading.Event()
        self.began = threading.Event()

    def begin(self, nodes: list[Node], call: str, part: str = "nodes.conf") -> None:
        working = getattr(Disk, call)
        folders = tuple(str(node.directory) for node in nodes)

        def hang(disk: Disk, target, *args):
            path = target if isinstance(target, str) else os.readlink(f"/proc/self/fd/{target}")
            if path.startswith(folders) and part in path:
                self.began.set()
                self._released.wait(2 * PATIENCE)
            return working(disk, target, *args)

        self._monkeypatch.setattr(Disk, call, hang)

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def stall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stall]:
    made = Stall(monkeypatch)
    yield made
    made.release()


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
    run, tmp_path, stall: Stall, caplog
) -> None:
    """PROTOCOL 10. The disks of two of three voters hang, so nothing commits, though all answer."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=2.0) as cluster, AsyncExitStack() as closing:
            leader, (follower, _) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            closing.callback(stall.release)
            stall.begin([leader, follower], "fdatasync")
            waiting = leader.submit(b"hangs")
            await cluster.until(stall.began.is_set, "the disk hangs")
            await turns_on(cluster, leader, leader, follower)
            assert not waiting.done()
            await cluster.until(lambda: leader.status().role is not Role.LEADER, "the leader steps down")
            assert "the disk does not move: stepping down" in caplog.text
            assert leader._engine._job_running, "the disk still hangs"
            assert leader.status().durable_index < leader.status().last_index
            stall.release()
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


def test_a_follower_whose_disk_hangs_answers_heartbeats_and_acknowledges_nothing(run, tmp_path, stall: Stall) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster, AsyncExitStack() as closing:
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            closing.callback(stall.release)
            stall.begin([follower], "fdatasync")
            waiting = leader.submit(b"needs both")
            await cluster.until(stall.began.is_set, "the disk hangs")
            durable = follower.status().durable_index
            await turns_on(cluster, follower, leader, follower)
            assert not waiting.done()
            assert follower.status().durable_index == durable
            stall.release()
            assert await waiting == b"2"

    run(main())


@pytest.mark.parametrize(("call", "part"), [("fsync", "/app-"), ("fsync", ".tmp-"), ("rename", ".tmp-")])
def test_a_compaction_that_hangs_blocks_no_turn(run, tmp_path, stall: Stall, call: str, part: str) -> None:
    """While the app file is written appends go on too; behind a rewrite of nodes.conf they wait (PROTOCOL 11)."""

    async def main() -> None:
        async with (
            cluster_of(tmp_path, 2, rewrite_min_bytes=1) as cluster,
            AsyncExitStack() as closing,
        ):
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            await leader._engine.settle()
            closing.callback(stall.release)
            stall.begin([leader], call, part)
            leader._engine.compact(moves=False)
            await cluster.until(stall.began.is_set, "the disk hangs")
            if part == "/app-":
                for number in range(5):
                    await leader.propose(b"%d" % number)
            await turns_on(cluster, leader, leader, follower)
            stall.release()
            await leader.propose(b"after")
            await cluster.converge()

    run(main())
