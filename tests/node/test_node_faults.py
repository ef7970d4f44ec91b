"""A disk that fails and a state machine that raises: the node ends with a clear error and leaves nobody waiting."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
from hanging_disk import path_of
from node_cluster import CONFIG, ELECTIONS, PATIENCE, Journal, cluster_of, error_of, running

from raftfast import Node, NodeClosed, StorageError
from raftfast.messages import Role
from raftfast.storage import Disk


class Breaker:
    """Breaks one call of the disk for files below one folder, from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def break_call(self, call: str, number: int, folder: Path, *, short: bool = False) -> None:
        working = getattr(Disk, call)

        def broken(disk: Disk, target, *args):
            if not path_of(target).startswith(str(folder)):
                return working(disk, target, *args)
            if short:
                data, offset = args
                return working(disk, target, data[: len(data) // 2], offset)
            raise OSError(number, os.strerror(number))

        self._monkeypatch.setattr(Disk, call, broken)

    def mend(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def breaker(monkeypatch: pytest.MonkeyPatch) -> Breaker:
    return Breaker(monkeypatch)


FAULTS = [
    ("pwrite", errno.ENOSPC, False),
    ("pwrite", errno.EIO, False),
    ("pwrite", 0, True),
    ("fdatasync", errno.EIO, False),
]


@pytest.mark.parametrize(("call", "number", "short"), FAULTS, ids=["full", "write", "short write", "sync"])
def test_a_leader_whose_disk_fails_ends_and_the_others_go_on(
    run, tmp_path: Path, breaker: Breaker, caplog, call: str, number: int, short: bool
) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS) as cluster:
            leader = await cluster.leader()
            await leader.propose(b"before")
            folder = Path(leader.directory)
            watch = asyncio.ensure_future(error_of(leader.wait_failed()))
            async with leader.session() as session:
                breaker.break_call(call, number, folder, short=short)
                # Does it still lead? Then this is in its log: no time passes before its next turn.
                led, sent = leader.status().role is Role.LEADER, leader.submit(b"lost?")
                waiting = [
                    asyncio.ensure_future(error_of(wait))
                    for wait in (
                        sent,
                        leader.propose_many([b"lost 1?", b"lost 2?"]),
                        session.propose(b"lost 3?"),
                        leader.add_slots([1]),
                        leader.barrier(),
                    )
                ]
                error = await watch
                assert isinstance(error, StorageError)
                assert str(folder) in str(error)
                for result in await asyncio.gather(*waiting):
                    assert result is None or isinstance(result, NodeClosed)
                assert not led or sent.exception() is None or sent.exception().may_take_effect
                for late in (leader.propose(b"late"), leader.barrier(), session.propose(b"late")):
                    error = await error_of(late)
                    assert isinstance(error, NodeClosed)
                    assert not error.may_take_effect
                    assert "stopped" in str(error)
            assert not running(leader)
            assert "the node stops" in caplog.text
            other = await cluster.leader()
            assert other is not leader
            await other.propose(b"after")
            breaker.mend()
            number_of = cluster.number_of(leader)
            await leader.close()
            await cluster.start(number_of)
            await cluster.converge()
            commands = cluster.journals[number_of].commands
            assert commands[0] == b"before"
            assert commands[-1] == b"after"
            assert len(commands) == len(set(commands))

    run(main())


def test_the_events_of_a_node_that_fails_come_to_their_end(run, tmp_path: Path, breaker: Breaker) -> None:
    async def main() -> None:
        async with Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG) as node:
            await node.propose(b"x")
            listening = asyncio.ensure_future(_all(node.events()))
            await asyncio.sleep(0)
            breaker.break_call("fdatasync", errno.EIO, tmp_path)
            assert isinstance(await error_of(node.propose(b"y")), NodeClosed)
            await asyncio.wait_for(listening, PATIENCE)
            breaker.mend()

    run(main())


async def _all(stream) -> list:
    return [each async for each in stream]


def test_what_a_failed_disk_did_not_store_was_not_acknowledged(run, tmp_path: Path, breaker: Breaker) -> None:
    """A node alone: what was answered is there when the folder is opened again, what was not may be or not."""

    async def main() -> None:
        journal = Journal()
        node = Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG)
        await node.start()
        answered = [b"%d" % n for n in range(20)]
        await node.propose_many(answered)
        breaker.break_call("pwrite", errno.ENOSPC, tmp_path, short=True)
        futures = [node.submit(b"%d" % n) for n in range(20, 40)]
        await asyncio.wait(futures)
        for future in futures:
            error = future.exception()
            assert isinstance(error, NodeClosed)
            assert error.may_take_effect
        breaker.mend()
        await node.close()
        journal = Journal()
        async with Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG) as again:
            await again.barrier()
            assert journal.commands[:20] == answered

    run(main())


def test_a_follower_whose_disk_fails_acknowledges_nothing(run, tmp_path: Path, breaker: Breaker) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            leader, (follower,) = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            breaker.break_call("fdatasync", errno.EIO, Path(follower.directory))
            future = leader.submit(b"needs both")
            error = await error_of(follower.wait_failed())
            assert isinstance(error, StorageError)
            assert not future.done()
            await follower.close()
            breaker.mend()
            await cluster.start(cluster.number_of(follower))
            assert await future == b"2"

    run(main())


@pytest.mark.parametrize("call", ["rename", "fsync", "open"])
def test_a_compaction_that_fails_ends_the_node_and_leaves_the_old_file(
    run, tmp_path: Path, breaker: Breaker, call: str
) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, rewrite_min_bytes=1500) as cluster:
            node = cluster[0]
            await node.propose(b"before")
            breaker.break_call(call, errno.EIO, Path(node.directory))
            answered = [b"before"]
            error = None
            while error is None:
                command = b"%d" % len(answered)
                error = await error_of(node.propose(command))
                if error is None:
                    answered.append(command)
            assert isinstance(error, NodeClosed)
            assert isinstance(await error_of(node.wait_failed()), (StorageError, NodeClosed))
            breaker.mend()
            await node.close()
            await cluster.start(0)
            await cluster[0].barrier()
            assert cluster.journals[0].commands[: len(answered)] == answered

    run(main())


def test_a_close_whose_last_write_fails_still_closes(run, tmp_path: Path, breaker: Breaker) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        await node.start()
        await node.propose(b"x")
        breaker.break_call("rename", errno.EIO, tmp_path)
        await node.close()
        breaker.mend()
        journal = Journal()
        async with Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG) as again:
            await again.barrier()
            assert journal.commands == [b"x"]

    run(main())


def test_a_singleton_whose_disk_fails_answers_who_waits(run, tmp_path: Path, breaker: Breaker) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, config=CONFIG)
        await node.start()
        breaker.break_call("rename", errno.ENOSPC, tmp_path)
        assert isinstance(await error_of(node.add_slots([1])), NodeClosed)
        breaker.mend()
        await node.close()
        async with Node(tmp_path / "n", bus_port=0, config=CONFIG) as again:
            assert again.cluster.slots_of(again.node_id) == ()

    run(main())


@pytest.mark.parametrize("call", ["pwrite", "rename", "fsync"])
def test_a_start_whose_first_write_fails_is_a_clear_error(run, tmp_path: Path, breaker: Breaker, call: str) -> None:
    async def main() -> None:
        breaker.break_call(call, errno.ENOSPC, tmp_path)
        error = await error_of(Node(tmp_path / "n", bus_port=0, config=CONFIG).start())
        assert isinstance(error, StorageError), error
        assert "No space left" in str(error)
        breaker.mend()
        async with Node(tmp_path / "n", bus_port=0, config=CONFIG) as again:
            assert again.status().standing == "singleton"

    run(main())


# ---------------------------------------------------------------------- the state machine


def test_a_state_machine_that_raises_stops_each_node_and_loses_nothing(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            node = cluster[0]
            await node.propose(b"before")
            watches = [asyncio.ensure_future(error_of(each.wait_failed())) for each in cluster.live]
            error = await error_of(node.propose(b"fault"))
            assert isinstance(error, NodeClosed)
            assert error.may_take_effect
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            assert "a fault of the state machine" in "".join(caught(task) for task in done)
            for watch in watches:
                watch.cancel()
            await asyncio.wait(watches)

    def caught(task: asyncio.Task) -> str:
        try:
            return repr(task.result())
        except RuntimeError as error:
            return repr(error)

    run(main())


def test_a_state_machine_whose_snapshot_raises_ends_the_close_with_a_log_that_is_whole(run, tmp_path: Path) -> None:
    class Broken(Journal):
        def snapshot(self):
            raise RuntimeError("no snapshot today")

    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Broken(), config=CONFIG)
        await node.start()
        await node.propose(b"x")
        await node.close()
        journal = Journal()
        async with Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG) as again:
            await again.barrier()
            assert journal.commands == [b"x"]

    run(main())


def test_a_leader_whose_disk_hangs_commits_by_the_others(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own copy does not count before it is durable, and nobody waits for it (PROTOCOL 5.2, 5.4)."""
    release = threading.Event()
    working = Disk.fdatasync

    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            folder = leader.directory

            def hang(disk: Disk, fd: int) -> None:
                if os.readlink(f"/proc/self/fd/{fd}").startswith(folder):
                    release.wait(2 * PATIENCE)
                working(disk, fd)

            await leader.propose(b"before")
            monkeypatch.setattr(Disk, "fdatasync", hang)
            try:
                assert await leader.propose(b"the others store it") == b"2"
                assert leader.status().role is Role.LEADER
                assert leader.status().durable_index < leader.status().commit_index
            finally:
                release.set()
            await cluster.converge()

    run(main())
