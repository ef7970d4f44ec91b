"""A disk that is short of room: the file is rewritten early, and nothing is begun for which there is no room.

How much room there is is what the test says; how commands are refused is in `test_node_disk_errors.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from node_cluster import cluster_of, error_of, meet, running

from raftfast import Node, StorageError
from raftfast.storage import Disk, Storage

PLENTY = 1 << 30
RESERVE = 1 << 20


class Room:
    """How much room the disk says that it has, by folder."""

    def __init__(self) -> None:
        self._free: dict[str, int] = {}
        self.looks = 0

    def set(self, node: Node, free: int) -> None:
        self._free[str(node.directory)] = free

    def free(self, path: str) -> int:
        self.looks += 1
        return self._free.get(path, PLENTY)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    made = Room()
    monkeypatch.setattr("raftfast.engine.LOOK_INTERVAL", 0.005)
    monkeypatch.setattr(Disk, "free_bytes", lambda disk, path: made.free(path))
    return made


def short(node: Node) -> bool:
    return bool(node._engine.member.no_room)


def stored(node: Node) -> int:
    return node._engine.storage.stored_index


def test_a_shortage_begins_while_the_next_rewrite_still_has_room(run, tmp_path: Path, room: Room) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, disk_reserve_bytes=RESERVE) as cluster:
            (node,) = cluster.live
            await node.propose_many([b"x" * 1000] * 50)
            storage = node._engine.storage
            needed = storage.rewrite_bytes
            assert needed >= storage.state_bytes + 50_000
            room.set(node, RESERVE + needed - 1)
            await cluster.until(lambda: short(node), "the shortage is noticed")
            error = await error_of(node.propose(b"no"))
            assert isinstance(error, StorageError)
            assert f"{RESERVE} (disk_reserve_bytes) and {needed} for the next rewrite" in str(error)

    run(main())


def test_a_shortage_has_the_file_rewritten_early(run, tmp_path: Path, room: Room) -> None:
    """The log lines are what can be given back; otherwise nobody would rewrite them now."""
    settings = {"disk_reserve_bytes": RESERVE, "rewrite_min_bytes": 400, "rewrite_factor": 1.5}

    async def main() -> None:
        async with cluster_of(tmp_path, 1, **settings) as cluster:
            (node,) = cluster.live
            engine, storage = node._engine, node._engine.storage
            await node.propose_many([b"x" * 100] * 100)
            await engine.settle()
            while not storage.state_bytes / 2 < storage.log_bytes < storage.state_bytes:
                await node.propose(b"y" * 100)
                await engine.settle()
            before = stored(node)
            assert before < node.status().last_applied
            assert not engine._file_has_grown()
            free = RESERVE + storage.rewrite_bytes - 1
            room.set(node, free)
            await cluster.until(lambda: stored(node) > before, "the file is rewritten")
            await engine.settle()
            assert stored(node) == node.status().last_applied
            assert storage.log_bytes < 400
            commands = list(cluster.journals[0].commands)
            await node.close()
            await cluster.start(0)
            await cluster[0].barrier()
            assert cluster.journals[0].commands == commands

    run(main())


def test_a_rewrite_without_room_is_not_begun_and_the_node_goes_on(run, tmp_path: Path, room: Room) -> None:
    """Also at a graceful stop: what it would have stored is in the log."""

    async def main() -> None:
        async with cluster_of(tmp_path, 1, disk_reserve_bytes=RESERVE, rewrite_min_bytes=400) as cluster:
            (node,) = cluster.live
            engine = node._engine
            await node.propose_many([b"%d" % number for number in range(20)])
            await engine.settle()
            before = stored(node)
            room.set(node, 100)
            await cluster.until(lambda: short(node), "the shortage is noticed")
            for slot in range(20):  # what an operator does is appended still, and lets the log grow
                await node.add_slots([slot])
            await engine.settle()
            assert engine._file_has_grown()
            assert not engine.compact()
            assert not engine.compact(moves=False)
            assert stored(node) == before
            names = sorted(os.listdir(node.directory))
            await node.close()
            assert node.failure is None
            assert sorted(os.listdir(node.directory)) == names
            with_room = Storage.open(node.directory)[0]
            assert with_room.stored_index == before
            with_room.close()
            await cluster.start(0)
            await cluster[0].barrier()
            assert len(cluster.journals[0].commands) == 20
            assert cluster[0].cluster.slots_of(cluster[0].node_id) == ((0, 19),)

    run(main())


def test_a_follower_without_room_goes_on_storing_what_its_leader_sends(run, tmp_path: Path, room: Room) -> None:
    """The leader refuses by its own disk. As long as a follower can write it is a copy that counts."""

    async def main() -> None:
        async with cluster_of(tmp_path, 2, disk_reserve_bytes=RESERVE, rewrite_min_bytes=400) as cluster:
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            room.set(follower, 0)
            await cluster.until(lambda: short(follower), "the shortage is noticed")
            for number in range(30):
                await leader.propose(b"%d " % number + b"x" * 50)  # needs both
            assert running(follower)
            assert isinstance(await error_of(follower.propose(b"no")), StorageError)
            await follower._engine.settle()
            before = stored(follower)
            assert before < follower.status().last_applied
            room.set(follower, PLENTY)
            await cluster.until(lambda: not short(follower), "the end of the shortage is noticed")
            await leader.propose(b"after")
            await cluster.until(lambda: stored(follower) > before, "the file is rewritten when there is room")
            await cluster.converge()

    run(main())


def test_a_snapshot_waits_for_room_and_its_sender_for_its_taker(run, tmp_path: Path, room: Room, caplog) -> None:
    """Refused it would come again and again. Heartbeats are answered meanwhile, so nobody takes the node for dead."""
    # By its size the log is trimmed past a member that is down, however long that one counts as live.
    more = {"trim_keep": 1, "max_log_bytes": 1000, "snapshot_piece_bytes": 200, "snapshot_inflight": 3}

    async def main() -> None:
        async with cluster_of(tmp_path, 3, disk_reserve_bytes=RESERVE, **more) as cluster:
            leader, (follower, _) = await cluster.leader(), await cluster.followers()
            number = cluster.number_of(follower)
            await cluster.kill(number)
            await leader.propose_many([b"%d " % number + b"x" * 50 for number in range(40)])
            await cluster.until(lambda: leader.status().boundary_index > 30, "the log is trimmed")
            follower = cluster.make(number)
            room.set(follower, 10)
            names = set(Path(follower.directory).glob("app-*"))
            await follower.start()
            await cluster.until(lambda: bool(follower._engine._held), "the snapshot waits")
            answered = leader.status().counters["messages_in_AppendEntriesAck"]
            await cluster.until(
                lambda: leader.status().counters["messages_in_AppendEntriesAck"] > answered + 4,
                "heartbeats are answered",
            )
            assert len(follower._engine._held) <= 3
            assert set(Path(follower.directory).glob("app-*")) <= names
            assert caplog.text.count("waits for room on the disk") == 1
            room.set(follower, PLENTY)
            await cluster.converge()
            assert follower.status().caught_up_by == "snapshot"
            assert follower.status().counters.get("snapshots_refused", 0) == 0

    run(main())


def test_a_leader_without_room_writes_no_snapshot_and_goes_on(run, tmp_path: Path, room: Room, monkeypatch) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0, disk_reserve_bytes=RESERVE, trim_keep=1, node_timeout=2.0) as cluster:
            (leader,) = await cluster.start(0)
            await leader.propose_many([b"%d" % number for number in range(20)])
            await cluster.until(lambda: leader.status().boundary_index > 2, "the log is trimmed")
            room.set(leader, 10)
            await cluster.until(lambda: short(leader), "the shortage is noticed")
            asked = []
            failed = leader._engine.member.snapshots.build_failed
            monkeypatch.setattr(leader._engine.member.snapshots, "build_failed", lambda: (asked.append(1), failed()))
            (newcomer,) = await cluster.start(1)
            await meet(leader, newcomer)
            await cluster.until(lambda: bool(asked), "a snapshot is wanted")
            assert running(leader)
            room.set(leader, PLENTY)
            await cluster.until(lambda: newcomer.status().standing == "member", "the newcomer joins")
            await cluster.converge()

    run(main())
