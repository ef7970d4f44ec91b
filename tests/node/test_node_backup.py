"""`Node.backup`: a consistent snapshot while commands go on, that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from node_cluster import PATIENCE, Cluster, Journal, cluster_of, error_of, kill, running

from raftfast import NodeClosed, StorageError
from raftfast.backup import Backup
from raftfast.cluster.snapshot import split_sessions
from raftfast.errors import SnapshotError
from raftfast.restore import restore
from raftfast.storage import BackupFile, BackupHead, BackupWriter


async def written(node, path: Path) -> Path:
    backup = await node.backup()
    writer = BackupWriter(str(path), backup.head)
    offset = 0
    while offset < backup.head.total:
        piece = await backup.read(offset, 1000)
        writer.write(piece)
        offset += len(piece)
    assert await backup.read(offset, 1000) == b""
    writer.finish()
    backup.close()
    backup.close()
    return path


def commands_in(path: Path) -> list[bytes]:
    file = BackupFile(str(path))
    journal = Journal()
    journal.restore(split_sessions(file.app_pieces())[1])
    file.close()
    return journal.commands


def test_a_backup_is_a_prefix_that_holds_all_that_was_acknowledged_before(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, (follower, _) = await cluster.leader(), await cluster.followers()
            before = [b"%d" % number for number in range(50)]
            await leader.propose_many(before)
            going_on = asyncio.ensure_future(leader.propose_many([b"later %d" % number for number in range(300)]))
            path = await written(follower, tmp_path / "backup")
            await going_on
            await cluster.converge()
            found = commands_in(path)
            assert found[:50] == before
            assert found == cluster.journal(leader).commands[: len(found)]
            await follower._engine.settle()
            restore(str(path), str(tmp_path / "node-7"))
            (restored,) = await cluster.start(7)
            await restored.barrier()
            assert cluster.journals[7].commands == found
            assert await restored.propose(b"more") == b"%d" % (len(found) + 1)
            assert restored.status().voters == {restored.node_id}

    run(main())


def test_a_backup_of_a_node_that_is_in_no_cluster_is_restored_as_such(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            (node,) = await cluster.start(0)
            assert node.status().standing == "singleton"
            path = await written(node, tmp_path / "backup")
            restore(str(path), str(tmp_path / "node-7"))
            (restored,) = await cluster.start(7)
            assert restored.status().standing == "singleton"
            assert restored.node_id != node.node_id
            assert await restored.propose(b"x") == b"1"

    run(main())


def test_a_backup_that_is_open_ends_with_the_node_and_leaves_no_file(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            await node.propose(b"x")
            backup = await node.backup()
            assert len(list(Path(node.directory).glob("app-*"))) >= 1
            await node.close()
            assert isinstance(await error_of(backup.read(0, 10)), NodeClosed)
            backup.close()
            conf = Path(node.directory, "nodes.conf").read_bytes()
            assert all(path.name.encode() in conf for path in Path(node.directory).glob("app-*"))

    run(main())


def test_a_backup_that_can_not_be_written_is_an_error_and_the_node_goes_on(run, tmp_path: Path, monkeypatch) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            await node.propose(b"x")

            def full(*args, **kwargs):
                raise StorageError("no room")

            monkeypatch.setattr(node._engine.storage, "write_outgoing", full)
            assert isinstance(await error_of(node.backup()), StorageError)
            monkeypatch.undo()
            node._engine._room.shortage = "nearly full"
            node._engine._room._least_bytes = 1 << 60
            assert isinstance(await error_of(node.backup()), StorageError)
            node._engine._room._least_bytes = 0
            node._engine._room.shortage = node._engine.member.no_room = ""
            assert running(node)
            assert await node.propose(b"y") == b"2"

    run(main())


def kept(folder: Path) -> tuple[list[str], list[str]]:
    """The app state files in a folder, and those that this process has open."""
    opened = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            opened.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    apps = sorted(path.name for path in folder.glob("app-*"))
    return apps, sorted(name for name in opened if name.startswith(f"{folder.resolve()}/app-"))


@pytest.mark.parametrize("when", ["before it is written", "while it is written", "while the node ends"])
def test_a_backup_that_is_cancelled_leaves_no_file_and_no_descriptor(
    run, tmp_path: Path, monkeypatch, when: str
) -> None:
    begun, go_on, shut = threading.Event(), threading.Event(), threading.Event()

    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            await node.propose(b"x")
            engine, folder = node._engine, Path(node.directory)
            before = kept(folder)
            write, shutdown = engine.storage.write_outgoing, engine._state_worker.shutdown

            def held(*args, **kwargs):
                begun.set()
                assert go_on.wait(PATIENCE)
                return write(*args, **kwargs)

            def shutting(wait: bool) -> None:
                shutdown(False)
                shut.set()
                shutdown(wait)

            monkeypatch.setattr(engine.storage, "write_outgoing", held)
            monkeypatch.setattr(engine._state_worker, "shutdown", shutting)
            if when == "before it is written":
                engine._state_worker.submit(go_on.wait, PATIENCE)
            backup = asyncio.ensure_future(node.backup())
            if when == "before it is written":
                await asyncio.sleep(0)  # its first step asks for the writing
            else:
                assert await engine.loop.run_in_executor(None, begun.wait, PATIENCE)
            ending = asyncio.ensure_future(kill(node)) if when == "while the node ends" else None
            if ending is not None:
                assert await engine.loop.run_in_executor(None, shut.wait, PATIENCE)
            backup.cancel()
            await asyncio.wait([backup])
            assert backup.cancelled()
            go_on.set()
            if ending is not None:
                await ending
            else:
                await engine.loop.run_in_executor(engine._state_worker, lambda: None)
                assert await node.propose(b"y") == b"2"
                assert engine._lent == []
            assert kept(folder) == before

    run(main())


@pytest.mark.parametrize("what", ["a backup", "a snapshot to send"])
def test_a_node_that_ends_does_not_wait_for_a_state_to_be_written_whole(run, tmp_path: Path, what: str) -> None:
    """The state has no end: who waits for it never ends."""
    begun, over = threading.Event(), threading.Event()

    class Endless(Journal):
        def snapshot(self):
            while not over.wait(0.001):  # a slow one, that fills no disk
                yield b"5:piece"
                begun.set()

    async def main() -> None:
        cluster = Cluster(tmp_path)
        (node,) = await cluster.start(0, state_machine=Endless())
        try:
            await node.propose(b"x")
            engine, folder = node._engine, Path(node.directory)
            before = kept(folder)
            if what == "a backup":
                asked = asyncio.ensure_future(node.backup())
            else:
                engine._build()
            assert await engine.loop.run_in_executor(None, begun.wait, PATIENCE)
            ending = asyncio.ensure_future(kill(node))
            await asyncio.wait([ending], timeout=PATIENCE)
            assert ending.done()
            if what == "a backup":
                assert isinstance(await error_of(asked), NodeClosed)
            assert kept(folder) == before
        finally:
            over.set()
            await cluster.close()

    run(main())


@pytest.mark.parametrize("how", ["close", "abort", "failure"])
def test_a_snapshot_to_send_ends_with_the_node(run_on_both, tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            engine, folder = node._engine, Path(node.directory)
            outgoing = engine.member.snapshots._out
            for command in (b"x", b"y"):  # the second snapshot takes the first one's place
                await node.propose(command)
                before = outgoing.source
                engine._build()
                await cluster.until(lambda before=before: outgoing.source is not before, "it is written")
            assert [file.total for file in engine._lent] == [outgoing.source.total]
            if how == "failure":
                engine.fail(StorageError("a disk"))
            await (node.abort() if how == "abort" else node.close())
            apps, opened = kept(folder)
            conf = (folder / "nodes.conf").read_bytes()
            assert opened == []
            assert all(name.encode() in conf for name in apps)

    run_on_both(main())


def test_an_error_of_the_state_machine_is_not_taken_for_the_end_of_the_node(run, tmp_path: Path, monkeypatch) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            await node.propose(b"x")

            def refused(*args, **kwargs):
                raise SnapshotError("the service's own")

            monkeypatch.setattr(node._engine.storage, "write_outgoing", refused)
            assert isinstance(await error_of(node.backup()), SnapshotError)
            assert running(node)

    run(main())


def test_the_head_of_a_backup_is_of_the_moment_of_its_state(run) -> None:
    """While it waits for a snapshot to be installed the node becomes another's, of a later term."""
    engine = SimpleNamespace(member=SimpleNamespace(raft=SimpleNamespace(current_term=1), cluster_id=None))

    async def lend_snapshot():
        engine.member.raft.current_term, engine.member.cluster_id = 7, "c" * 40
        return SimpleNamespace(index=9, term=6, image=SimpleNamespace(cluster_id="c" * 40)), SimpleNamespace(total=5)

    engine.lend_snapshot = lend_snapshot

    async def main() -> None:
        assert (await Backup.of(engine)).head == BackupHead(9, 6, 7, "c" * 40, 5)

    run(main())
