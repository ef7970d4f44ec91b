"""The event loop waits for no disk: no call of it is made in the loop's thread, and while one hangs turns go on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hanging_disk import Hang, hanging
from node_cluster import Cluster, Journal, cluster_of, meet

from raftfast import Node
from raftfast.storage import Disk

CALLS = sorted(name for name in vars(Disk) if not name.startswith("_"))
TURNS = 20
LONGEST_HANG = 50.0


# ---------------------------------------------------------------------- which thread makes the calls


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each call of the disk was made, by its name and that of its thread."""
    seen: Counter[tuple[str, str]] = Counter()
    for name in CALLS:
        monkeypatch.setattr(Disk, name, noted(name, getattr(Disk, name), seen))
    return seen


def noted(name: str, working: Callable[..., object], seen: Counter[tuple[str, str]]) -> Callable[..., object]:
    def method(disk: Disk, *args):
        seen[name, threading.current_thread().name] += 1
        return working(disk, *args)

    return method


class Watched(Journal):
    """Notes the threads in which its methods run, and its snapshot is iterated."""

    def __init__(self, seen: Counter[tuple[str, str]]) -> None:
        super().__init__()
        self._seen = seen

    def _note(self, what: str) -> None:
        self._seen[what, threading.current_thread().name] += 1

    def apply(self, index: int, command: bytes) -> bytes | None:
        self._note("apply")
        return super().apply(index, command)

    def snapshot(self) -> Iterator[bytes]:
        self._note("snapshot")
        pieces = super().snapshot()

        def iterated() -> Iterator[bytes]:
            self._note("iterate")
            yield from pieces

        return iterated()

    def restore(self, pieces) -> None:
        self._note("restore")
        super().restore(pieces)


def test_no_call_of_the_disk_is_made_on_the_loop(run, tmp_path: Path, threads: Counter[tuple[str, str]]) -> None:
    """Founding, appends, rewrites, snapshots both ways, a backup, RESET, closes, and starts again."""
    machines: Counter[tuple[str, str]] = Counter()

    async def main() -> None:
        async with cluster_of(tmp_path, 0, trim_keep=1, rewrite_min_bytes=300, rewrite_factor=0.1) as cluster:
            (leader,) = await cluster.start(0, state_machine=Watched(machines))
            await leader.propose_many([b"%d" % number for number in range(40)])
            await cluster.until(lambda: leader.status().boundary_index > 2, "the log is trimmed")
            await leader._engine.settle()
            (newcomer,) = await cluster.start(1, state_machine=Watched(machines))
            await meet(leader, newcomer)
            await cluster.until(lambda: newcomer.status().standing == "member", "it joins by snapshot")
            await newcomer.propose(b"after")
            backup = await newcomer.backup()
            await backup.read(0, 100)
            backup.close()
            await cluster.until(lambda: not newcomer.status().learner, "it votes")
            await newcomer.close()
            (newcomer,) = await cluster.start(1, state_machine=Watched(machines))
            await newcomer.barrier()
            await newcomer.reset(hard=True)

    run(main())
    loop = threading.current_thread().name
    on_loop = {name for name, thread in threads if thread == loop}
    assert not on_loop, "calls of the disk in the thread of the loop"
    made = {name for name, _ in threads}
    assert set(CALLS) == made, "a call that was not made was not looked at"
    where = {what: {thread for each, thread in machines if each == what} for what, _ in machines}
    assert where["apply"] == where["snapshot"] == {loop}
    assert {thread.rstrip("0123456789_") for thread in where["iterate"]} == {"raftfast-state"}
    restored = {thread.rstrip("0123456789_") for thread in where["restore"]}
    assert restored == {"raftfast-state", "raftfast-disk", loop}, "a snapshot, a start, a RESET"


# ---------------------------------------------------------------------- a call that hangs


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hang]:
    yield from hanging(monkeypatch, LONGEST_HANG)


async def turns_on(hang: Hang, cluster: Cluster, node: Node) -> None:
    """The disk hangs; the node's loop makes turns all the same."""
    await cluster.until(lambda: hang.began, "the disk hangs")
    for _ in range(TURNS):
        await node._engine.next_turn()
    assert node.status().standing in ("member", "singleton", "joiner")
    assert node.failure is None
    assert not hang.timed_out


STORING = [
    ("pwrite", "nodes.conf"), ("fdatasync", "nodes.conf"),
    ("open", "app-"), ("pwrite", "app-"), ("fsync", "app-"), ("close", "app-"),
    ("open", ".tmp-"), ("lock", ".tmp-"), ("pwrite", ".tmp-"), ("fsync", ".tmp-"), ("rename", ".tmp-"),
    ("fsync_folder", ""), ("names", ""), ("unlink", "app-"), ("free_bytes", ""),
]  # fmt: skip


@pytest.mark.parametrize(("call", "part"), STORING, ids=lambda part: part.strip("-.") or "folder")
def test_turns_go_on_while_an_append_or_a_rewrite_hangs(
    run, tmp_path: Path, hang: Hang, monkeypatch, call: str, part: str
) -> None:
    monkeypatch.setattr("raftfast.engine.LOOK_INTERVAL", 0.005)

    async def main() -> None:
        config = {"node_timeout": 20.0, "rewrite_min_bytes": 1, "rewrite_factor": 0.1}
        async with cluster_of(tmp_path, 1, **config) as cluster, AsyncExitStack() as closing:
            (node,) = cluster.live
            await node.propose_many([b"%d" % number for number in range(10)])
            await node._engine.settle()
            node._engine.compact(moves=False)
            await node._engine.settle()  # there is an app file, which the next rewrite removes
            closing.callback(hang.release)
            hang.begin([node], call, part)
            waiting = node.submit(b"x" * 1000)
            node._engine.compact(moves=False)
            await turns_on(hang, cluster, node)
            hang.release()
            await waiting
            await node._engine.settle()
            assert await node.propose(b"after") == b"12"

    run(main())


CARRYING = [
    *(("sender", call) for call in ("open", "pwrite", "fsync", "size", "pread")),
    *(("taker", call) for call in ("open", "pwrite", "fsync", "pread")),
]


@pytest.mark.parametrize(("who", "call"), CARRYING)
def test_turns_go_on_while_a_snapshot_hangs(run, tmp_path: Path, hang: Hang, who: str, call: str) -> None:
    """Who takes it writes its pieces to a file, and reads that for the state machine; nobody is taken for dead."""

    async def main() -> None:
        async with cluster_of(tmp_path, 0, trim_keep=1, node_timeout=20.0) as cluster, AsyncExitStack() as closing:
            (leader,) = await cluster.start(0)
            await leader.propose_many([b"%d" % number for number in range(20)])
            await cluster.until(lambda: leader.status().boundary_index > 2, "the log is trimmed")
            await leader._engine.settle()
            (newcomer,) = await cluster.start(1)
            closing.callback(hang.release)
            slow = leader if who == "sender" else newcomer
            hang.begin([slow], call, "app-")
            await meet(leader, newcomer)
            await turns_on(hang, cluster, slow)
            assert newcomer.status().standing == "joiner"
            if who == "sender":
                assert await leader.propose(b"meanwhile") == b"21"
            hang.release()
            await cluster.until(lambda: newcomer.status().standing == "member", "it joins")
            await cluster.converge()

    run(main())
