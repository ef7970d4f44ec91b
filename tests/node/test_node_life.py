"""A node's beginning and end as others see them: what is cut short, what is waited for, and that all is given back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import operator
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_cluster import CONFIG, HOST, PATIENCE, Journal, cluster_of, error_of

from loop_turns import turns
from raftfast import Event, Node, NodeClosed, StorageError
from raftfast.engine import Engine
from raftfast.unbroken import unbroken
from real_nodes import no_thread_left


def write_on(engine: Engine) -> None:
    """From now on each job of the storage is followed by another one, which runs at once: it is never idle again."""
    stored, numbers = engine._stored, itertools.count()

    def and_another(job) -> None:
        engine._queue(job._replace(hard_state=None, truncate_from=None, lines=[]))
        stored(job)
        engine.member.propose_app(b"%d" % next(numbers), None, engine.loop.time())

    engine._stored = and_another


def turns_until_over() -> Iterator[int]:
    """0, 1, 2, … turns of a loop, then more and more, for who stops when what it looks at is over by then."""
    yield from range(24)
    count = 24
    while True:
        yield count
        count += count // 2


def opened_in(folder: Path) -> list[str]:
    """The files of a folder that this process has open."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in names if name.startswith(str(folder.resolve()))]


# ---------------------------------------------------------------------- an end that is cut short


@pytest.mark.parametrize("what", ["start", "close", "abort"])
def test_a_loop_that_ends_meanwhile_leaves_nothing_of_a_node(tmp_path: Path, new_loop, what: str) -> None:
    """`asyncio.run` cancels all tasks when it ends. The folder is free then: the next round has it."""

    async def main(count: int) -> bool:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        if what != "start":
            await node.start()
            await node.propose(b"x")
        under_way = asyncio.ensure_future(getattr(node, what)())
        await turns(count)
        return under_way.done() and (what != "start" or await node.close() is None)

    with warnings.catch_warnings(record=True) as caught, no_thread_left():  # raised in its close, uvloop waits for ever
        warnings.simplefilter("always")
        for count in turns_until_over():
            with asyncio.Runner(loop_factory=new_loop) as runner:
                is_over = runner.run(main(count))
            gc.collect()
            unclosed = [str(each.message) for each in caught if each.category is ResourceWarning]
            assert not unclosed, f"left behind after {count} turns"
            assert opened_in(tmp_path) == []
            if is_over:
                break


@pytest.mark.parametrize("again", [False, True])
def test_an_end_that_is_cancelled_gives_all_back_before_it_is_over(run_on_both, tmp_path: Path, again: bool) -> None:
    async def main() -> None:
        me, is_over = asyncio.current_task(), False
        for count in turns_until_over():
            node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
            await node.start()
            await node.propose(b"x")
            closing = asyncio.ensure_future(node.close())
            await turns(count)
            is_over = closing.done()
            while not closing.done():
                for task in asyncio.all_tasks() - {me}:
                    task.cancel()
                await (asyncio.sleep(0) if again else asyncio.wait([closing]))
            await node.close()  # and this is not cancelled with what it waits for
            if is_over:
                break

    run_on_both(main())


@pytest.mark.parametrize("part", ["_listener", "_engine.dialer"])
def test_an_end_that_is_cancelled_while_it_waits_for_others(run_on_both, tmp_path: Path, part: str) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        await node.start()
        waited_for, waiting = operator.attrgetter(part)(node), asyncio.Event()
        close = waited_for.close

        async def close_and_wait(*reason: str) -> None:
            await close(*reason)
            waiting.set()
            await asyncio.get_running_loop().create_future()

        waited_for.close = close_and_wait
        closing = asyncio.ensure_future(node.close())
        await asyncio.wait_for(waiting.wait(), PATIENCE)
        waited_for.close = close
        for task in (closing, node._closing):  # whose caller has given up
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)
            assert task.cancelled()
        assert opened_in(tmp_path) == []

    run_on_both(main())


def test_what_is_given_back_is_waited_for_however_often_that_is_cancelled(run_on_both) -> None:
    async def main() -> None:
        given_back = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(unbroken(given_back))
        for _ in range(5):
            await asyncio.sleep(0)
            waiting.cancel()
        await turns(5)
        assert not waiting.done()
        given_back.set_result(None)
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await unbroken(given_back)

    run_on_both(main())


def test_a_start_whose_caller_is_cancelled_as_it_fails_is_no_noise(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.create_server((HOST, 0)) as taken:
            node = Node(tmp_path / "n", bus_port=taken.getsockname()[1], config=CONFIG)
            task = asyncio.ensure_future(node.start())
            await asyncio.sleep(0)
            node._starting.add_done_callback(lambda _: task.cancel())
            await asyncio.wait([task])
            assert task.cancelled()

    run_on_both(main())


class Exits(Journal):
    def apply(self, index: int, command: bytes) -> bytes | None:
        if command == b"exit":
            sys.exit(3)
        return super().apply(index, command)


def test_an_exit_in_the_state_machine_ends_the_loop_and_the_node(tmp_path: Path, new_loop) -> None:
    node = Node(tmp_path / "n", bus_port=0, state_machine=Exits(), config=CONFIG)
    told: list[BaseException | None] = []

    async def main() -> None:
        async with node:
            await node.propose(b"x")
            exiting = node.submit(b"exit")
            try:
                await asyncio.Event().wait()
            finally:
                told.append(exiting.exception())

    with no_thread_left(), pytest.raises(SystemExit) as raised, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert raised.value.code == 3
    assert isinstance(node.failure, NodeClosed)
    assert isinstance(told[0], NodeClosed)
    assert told[0].may_take_effect
    assert opened_in(tmp_path) == []


# ---------------------------------------------------------------------- while others write


def test_who_writes_on_does_not_hold_up_the_end(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        await node.start()
        engine = node._engine
        write_on(engine)
        await node.propose(b"first")
        async with asyncio.timeout(PATIENCE):
            await engine.settle()
            applied = engine.member.raft.last_applied
            await node.close()
        assert engine.storage.stored_index >= applied
        journal = Journal()
        async with Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG) as again:
            await again.barrier()
            assert journal.commands[:2] == [b"first", b"0"]

    run_on_both(main())


# ---------------------------------------------------------------------- the end of its events


async def listen(node: Node) -> list[Event]:
    return [event async for event in node.events()]


async def listening(node: Node) -> asyncio.Task[list[Event]]:
    task = asyncio.ensure_future(listen(node))
    await asyncio.sleep(0)  # the first step of the iteration
    return task


@pytest.mark.parametrize("how", ["never started", "refused", "cancelled"])
def test_events_end_where_the_node_never_runs(run, tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1):
            node = Node(tmp_path / ("node-0" if how == "refused" else "n"), bus_port=0, config=CONFIG)
            task = await listening(node)
            if how == "refused":
                assert isinstance(await error_of(node.start()), StorageError)
            elif how == "cancelled":
                starting = asyncio.ensure_future(node.start())
                await asyncio.sleep(0)
                node._starting.cancel()  # before its first step
                assert isinstance(await error_of(starting), NodeClosed)
            else:
                await node.close()
            assert await asyncio.wait_for(task, PATIENCE) == []
            assert await asyncio.wait_for(listen(node), PATIENCE) == []

    run(main())


def test_who_listens_to_a_node_that_has_failed_is_told_so(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            before = await listening(node)
            node._engine.fail(RuntimeError("a fault"))
            at_once = await listening(node)
            assert await asyncio.wait_for(before, PATIENCE) == []
            assert await asyncio.wait_for(at_once, PATIENCE) == []
            assert await asyncio.wait_for(listen(node), PATIENCE) == []

    run(main())


# ---------------------------------------------------------------------- SIGTERM


BEGINNING = """
import asyncio, contextlib, os, signal, sys
import uvloop
import raftfast
from node_cluster import CONFIG, Journal

node = raftfast.Node(sys.argv[1], bus_port=0, state_machine=Journal(), config=CONFIG)
"""

END = """
with asyncio.Runner(loop_factory=sys.modules[sys.argv[2]].new_event_loop) as runner:
    runner.run(main())
"""

ENTERED_BY_A_TASK_THAT_ENDS = """
async def main():
    stack = contextlib.AsyncExitStack()

    async def startup():
        await stack.enter_async_context(node)

    await asyncio.create_task(startup())
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()
"""

HANDLED_BY_THE_SERVICE = """
async def main():
    told = asyncio.Event()
    async with node:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await told.wait()
        told.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    await told.wait()
"""

HANDLED_BY_THE_PROCESS = """
async def main():
    told = []
    async with node:
        signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        os.kill(os.getpid(), signal.SIGTERM)
        while not told:
            await asyncio.sleep(0)
        await node.propose(b"x")
    os.kill(os.getpid(), signal.SIGTERM)
    while len(told) < 2:
        await asyncio.sleep(0)
"""


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("main", "code"),
    [(ENTERED_BY_A_TASK_THAT_ENDS, -signal.SIGTERM), (HANDLED_BY_THE_SERVICE, 0), (HANDLED_BY_THE_PROCESS, 0)],
    ids=["nobody to cancel", "a handler of the loop", "a handler of the process"],
)
def test_sigterm_is_swallowed_by_nobody_and_left_to_who_handles_it(
    tmp_path: Path, main: str, code: int, module: str
) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + main + END, str(tmp_path / "n"), module],
        env={**os.environ, "PYTHONPATH": paths},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code
