"""Each call of the disk fails once under a running node: it acknowledges nothing more and ends, and nothing is lost.

A node alone is taken through appends, compactions and its close, once for each call that these make; a leader of three
loses its disk at sampled calls while the others go on.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from failing_disk import CALLS, FAULTS, HARMLESS, FailingDisk, failing_disks  # noqa: F401 (a fixture)
from node_cluster import CONFIG, ELECTIONS, PATIENCE, Journal, cluster_of, error_of, running

from raftfast import Config, Node, NodeClosed, StorageError
from raftfast.storage import Storage
from raftfast.storage.snapshots import SnapshotFile
from tally import Tally

ROUNDS = 3


def settings(**more: object) -> Config:
    return replace(CONFIG, rewrite_min_bytes=400, rewrite_factor=0.1, **more)


async def life(path: Path, fault: str, fail_at: int) -> tuple[list[bytes], BaseException | None]:
    """A node that stores until its disk fails, or its rounds are over: what it acknowledged, and what ended it."""
    node = Node(path, bus_port=0, state_machine=Journal(), config=settings())
    await node.start()
    answered = [b"before"]
    await node.propose(answered[0])
    FailingDisk.arm(path, fault, fail_at)
    for number in range(ROUNDS):
        command = b"%d " % number + b"x" * 60
        error = await error_of(node.propose(command))
        if error is not None:
            assert isinstance(error, NodeClosed), error
            break
        answered.append(command)
        await node._engine.settle()
        if not running(node):
            break
    await node.close()
    FailingDisk.disarm()
    return answered, node.failure


async def found(path: Path) -> list[bytes]:
    """What the folder gives to a node that is started in it."""
    journal = Journal()
    async with Node(path, bus_port=0, state_machine=journal, config=settings()) as node:
        await node.barrier()
        await node.propose(b"it goes on")
    assert journal.commands.pop() == b"it goes on"
    left = sorted(name for name in os.listdir(path) if name.startswith(("app-", "nodes.conf.")))
    assert len(left) == 1, f"strays: {left}"
    return journal.commands


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_of_a_running_node_fails_once(run, tmp_path: Path, caplog, tally: Tally, fault: str) -> None:
    tried: Counter[str] = Counter()

    async def main() -> None:
        for fail_at in itertools.count():
            path = tmp_path / str(fail_at)
            caplog.clear()
            answered, failure = await life(path, fault, fail_at)
            call = FailingDisk.failed
            if not call:
                assert failure is None
                break
            tried[call] += 1
            lines = [record for record in caplog.records if "the node stops" in record.getMessage()]
            if failure is None:
                assert call in HARMLESS, f"{call} failed, and the node went on"
                assert not lines
            else:
                assert isinstance(failure, StorageError)
                assert len(lines) == 1
                assert str(path) in str(failure)
                assert "\n" not in lines[0].getMessage()
            commands = await found(path)
            assert commands[: len(answered)] == answered, f"{call} failed"
            assert len(commands) <= len(answered) + 1
        tally.add(f"errors of a node, {fault}", {"calls failed, one a life": tried.total()}, tried)
        wanted = {"pwrite"} if fault == "short write" else set(CALLS) - {"pread", "ftruncate"}
        assert wanted <= set(tried)

    run(main())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_leader_of_three_fails_at_a_sampled_call(run, tmp_path: Path, rng: random.Random, fault: str) -> None:
    fail_at = rng.randrange(12)

    async def main() -> None:
        limits = {"node_timeout": ELECTIONS, "rewrite_min_bytes": 400, "rewrite_factor": 0.1}
        async with cluster_of(tmp_path, 3, **limits) as cluster:
            leader = await cluster.leader()
            await leader.propose(b"before")
            answered, number = [b"before"], cluster.number_of(leader)
            FailingDisk.arm(Path(leader.directory), fault, fail_at)
            while running(leader):
                command = b"%d" % len(answered)
                error = await error_of(leader.propose(command))
                if error is None:
                    answered.append(command)
                elif FailingDisk.failed in HARMLESS:
                    break
                if len(answered) > 400:
                    break
            if FailingDisk.failed in HARMLESS and running(leader):
                return
            assert isinstance(leader.failure, StorageError), FailingDisk.failed
            other = await cluster.leader()
            assert other is not leader
            await other.propose(b"after")
            FailingDisk.disarm()
            await leader.close()
            await cluster.start(number)
            await cluster.converge()
            for journal in cluster.journals.values():
                assert [each for each in journal.commands if each in set(answered)] == answered
                assert journal.commands[-1] == b"after"

    run(main())


def test_a_compaction_without_room_for_the_app_state_loses_nothing(run, tmp_path: Path, monkeypatch) -> None:
    """The app file alone can't be written; what was acknowledged meanwhile is in the log, which stays as it is."""
    working = FailingDisk.pwrite

    def full(self, fd, data, offset):
        if "/app-" in os.readlink(f"/proc/self/fd/{fd}") and offset + len(data) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return working(self, fd, data, offset)

    async def main() -> None:
        async with cluster_of(tmp_path, 1, rewrite_min_bytes=400, rewrite_factor=0.1) as cluster:
            node = cluster[0]
            monkeypatch.setattr(FailingDisk, "pwrite", full)
            answered: list[bytes] = []
            while running(node):
                command = b"%d" % len(answered)
                error = await error_of(node.propose(command))
                if error is None:
                    answered.append(command)
                await node._engine.settle()
            assert len(answered) > 1
            assert isinstance(node.failure, StorageError)
            assert "No space left" in str(node.failure)
            await node.close()
            conf = Path(node.directory, "nodes.conf").read_bytes()
            assert all(each.name.encode() in conf for each in Path(node.directory).glob("app-*"))
            monkeypatch.setattr(FailingDisk, "pwrite", working)
            await cluster.start(0)
            await cluster[0].barrier()
            assert cluster.journals[0].commands[: len(answered)] == answered

    run(main())


# ---------------------------------------------------------------------- the reserve


class Room:
    """How much room the disk says that it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1 << 30
        self.looks = 0
        monkeypatch.setattr(FailingDisk, "free_bytes", self._free)

    def _free(self, path: str) -> int:
        self.looks += 1
        return self.free


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr("raftfast.engine.LOOK_INTERVAL", 0.005)
    return Room(monkeypatch)


def test_commands_are_refused_before_the_disk_is_full_and_taken_when_there_is_room(
    run, tmp_path: Path, room: Room, caplog
) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, disk_reserve_bytes=1 << 20) as cluster:
            node = cluster[0]
            member = node._engine.member
            await node.propose(b"before")
            room.free = (1 << 20) - 1
            await cluster.until(lambda: bool(member.no_room), "the shortage is noticed")
            async with asyncio.timeout(PATIENCE):
                for refused in (node.propose(b"no"), node.propose(b"no", wait=True), node.propose_many([b"no"])):
                    error = await error_of(refused)
                    assert isinstance(error, StorageError)
                    assert not error.may_take_effect
                    assert "disk_reserve_bytes" in str(error)
            assert running(node)
            await node.add_slots([7])  # what an operator does still works
            await node.barrier()
            room.free = 1 << 20  # not yet: it must not begin and end with each write
            before = room.looks
            await cluster.until(lambda: room.looks > before + 2, "it was looked at again")
            assert member.no_room
            room.free = 2 << 20
            await cluster.until(lambda: not member.no_room, "the end of the shortage is noticed")
            await node.propose(b"after")
            assert cluster.journals[0].commands == [b"before", b"after"]
            assert sum("commands are refused" in record.getMessage() for record in caplog.records) == 1
            assert node.status().counters["commands_without_room"] == 3

    run(main())


def test_a_leader_without_room_refuses_what_others_forward(run, tmp_path: Path, room: Room) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, disk_reserve_bytes=1 << 20) as cluster:
            leader, (follower, other) = await cluster.leader(), await cluster.followers()
            leader._engine.member.no_room = leader._engine._room.shortage = "no room"
            leader._engine._room._least_bytes = 1 << 40
            error = await error_of(follower.propose(b"no"))
            assert type(error).__name__ == "Rejected"
            assert not error.may_take_effect
            for node in (follower, other):  # theirs have room: they refuse nothing by themselves
                assert not node._engine.member.no_room
            assert all(journal.commands == [] for journal in cluster.journals.values())

    run(main())


def test_without_a_reserve_nothing_is_asked_or_refused(run, tmp_path: Path, room: Room) -> None:
    async def main() -> None:
        room.free = 0
        async with cluster_of(tmp_path, 1, disk_reserve_bytes=0) as cluster:
            assert await cluster[0].propose(b"taken") == b"1"
        assert room.looks == 0

    run(main())


# ---------------------------------------------------------------------- snapshots that can't be read


def test_a_snapshot_that_can_not_be_read_is_begun_anew(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first read of a piece fails; the receiver gets another snapshot, and the leader goes on."""
    working, failures = SnapshotFile.read, []

    def unreadable(self, offset, size):
        if not failures:
            failures.append(self)
            raise StorageError("a bad block")
        assert self is not failures[0]
        return working(self, offset, size)

    async def main() -> None:
        async with cluster_of(tmp_path, 1, trim_keep=1, node_timeout=ELECTIONS) as cluster:  # it is begun anew after T
            (leader,) = cluster.live
            for number in range(20):
                await leader.propose(b"%d" % number)
            await cluster.until(lambda: leader.status().boundary_index > 2, "the log is trimmed")
            monkeypatch.setattr(SnapshotFile, "read", unreadable)
            await cluster.join(1)
            await cluster.converge()
            assert failures
            assert running(leader)
            assert cluster[1].status().caught_up_by == "snapshot"
            assert len(list(Path(leader.directory).glob("app-*"))) <= 2

    run(main())


# ---------------------------------------------------------------------- a start that fails


def test_a_fresh_folder_is_left_as_it_was_where_the_port_is_in_use(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(OSError, match=str(port)):
                await Node(tmp_path, bus_port=port, config=CONFIG).start()
        assert set(os.listdir(tmp_path)) <= {"raftfast.lock"}
        Storage.open(tmp_path)[0].close()
        assert not (tmp_path / "nodes.conf").exists(), "nothing was stored"
        (tmp_path / "nodes.conf").touch()
        storage, loaded = Storage.open(tmp_path)
        storage.close()
        assert loaded.conf is None
        assert (tmp_path / "nodes.conf").exists(), "it was there before"

    run(main())
