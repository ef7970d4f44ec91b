"""The node for threads: the same answers and errors, from many threads at once, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import linecache
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

import raftfast.blocking
from raftfast import (
    Busy,
    Config,
    ConfigError,
    MeetError,
    NodeClosed,
    ProposalTimeout,
    Rejected,
    Role,
    StorageError,
    TimedOut,
    blocking,
)
from real_nodes import Sum, no_thread_left

HOST = "127.0.0.1"
PATIENCE = 90.0
"""Seconds for anything at all."""


class PatientConfig(Config):
    """Here each node has a thread of its own: none must be taken for dead because its thread had to wait."""

    __slots__ = ()

    @property
    def heartbeat_interval(self) -> float:
        return 0.05


CONFIG = PatientConfig(node_timeout=20.0, trim_keep_time=0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """And afterwards no thread of ours is left."""
    with no_thread_left():
        yield tmp_path


def node_at(folder: Path, number: int = 0, **settings) -> blocking.Node:
    settings = {"port": 7000 + number, "bus_port": 0, "state_machine": Sum(), "config": CONFIG, **settings}
    return blocking.Node(folder / f"node-{number}", **settings)


def until(condition: Callable[[], bool], node: blocking.Node, what: str) -> None:
    """Waits on the turns of a node: each look is after its next turn, or soon: that turn may be over already."""
    engine = node._node._engine

    async def turned() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.turned.wait(), 0.2)

    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        node._thread.run(turned(), PATIENCE)


def cluster(folder: Path, count: int, **settings) -> list[blocking.Node]:
    nodes = [node_at(folder, number, **settings) for number in range(count)]
    for node in nodes:
        node.start()
    for other in nodes[1:]:
        nodes[0].meet(HOST, 7000, other.bus_port)
    until(lambda: all(node.cluster.size == count for node in nodes), nodes[0], f"{count} voters")
    return nodes


@pytest.mark.parametrize("loop_factory", [None, asyncio.new_event_loop, uvloop.new_event_loop])
def test_commands_and_reads(folder: Path, loop_factory) -> None:
    machine = Sum()
    with node_at(folder, state_machine=machine, loop_factory=loop_factory) as node:
        assert node.propose(b"1") == b"1"
        assert node.propose_many([b"1", b"2"], timeout=PATIENCE) == [b"2", b"4"]
        assert node.submit(b"3").result(PATIENCE) == b"7"
        node.barrier(timeout=PATIENCE)
        assert node.call(lambda: machine.value) == 7
        with node.session() as session:
            assert session.propose(b"1") == b"8"
            assert session.propose_many(iter([b"1"] * 3)) == [b"9", b"10", b"11"]
        assert node.status().standing == "member"
        assert node.node_id == node.status().node_id
        assert len(node.state_digest()) == 40
        assert node.config is CONFIG
    with node_at(folder, state_machine=machine) as node:
        node.barrier()
        assert machine.value == 11


def test_the_calls_of_a_cluster(folder: Path) -> None:
    nodes = cluster(folder, 3)
    try:
        nodes[1].add_slots(range(10))
        nodes[2].barrier()
        assert nodes[2].cluster.slots_of(nodes[1].node_id) == ((0, 9),)
        nodes[2].del_slots([0])
        nodes[1].set_hostname("host.example")
        nodes[0].barrier()
        assert nodes[0].cluster.nodes[nodes[1].node_id].address.hostname == "host.example"
        before = nodes[0].status().leader_id
        leader_id = nodes[2].transfer_leadership()
        assert leader_id != before
        follower = next(node for node in nodes if node.node_id not in (leader_id, nodes[1].node_id))
        nodes[1].del_voter(follower.node_id)
        nodes[1].forget(follower.node_id)
        with pytest.raises(Rejected):
            nodes[1].add_voter(follower.node_id)
        until(lambda: follower.status().standing == "removed", follower, "it learns of it")
        follower.reset(hard=True)
        assert follower.status().standing == "singleton"
        with pytest.raises(MeetError):
            nodes[1].meet(HOST, 7001, nodes[1].bus_port)
    finally:
        for node in nodes:
            node.close()


def test_many_threads_at_once(folder: Path) -> None:
    """Each thread's commands are applied once each, and every answer is one that nobody else got."""
    nodes = cluster(folder, 3)

    def work(number: int) -> list[int]:
        node = nodes[number % 3]
        if number % 2:
            with node.session() as session:
                return [int(session.propose(b"1") or 0) for _ in range(50)]
        return [int(node.propose(b"1") or 0) for _ in range(50)]

    try:
        with ThreadPoolExecutor(12) as pool:
            answers = [answer for part in pool.map(work, range(12)) for answer in part]
        assert sorted(answers) == list(range(1, 601))
    finally:
        for node in nodes:
            node.close()


def test_a_timeout_gives_up_waiting_and_undoes_nothing(folder: Path) -> None:
    nodes = cluster(folder, 3)
    leader = next(node for node in nodes if node.node_id == node.status().leader_id)
    others = [node for node in nodes if node is not leader]
    try:
        for other in others:
            other.close()
        for call in (
            lambda: leader.propose(b"5", timeout=0.01),
            lambda: leader.propose_many([b"5", b"5"], timeout=0.01),
            lambda: leader.session(timeout=0.01),
            lambda: leader.add_slots([1], timeout=0.01),
        ):
            with pytest.raises(ProposalTimeout) as told:
                call()
            assert isinstance(told.value, TimeoutError)
            assert told.value.may_take_effect
        for call in (lambda: leader.barrier(timeout=0.01), lambda: leader.wait_failed(timeout=0.01)):
            with pytest.raises(TimedOut) as late:
                call()
            assert isinstance(late.value, TimeoutError)
            assert not late.value.may_take_effect
        given_up = leader.submit(b"5")
        assert given_up.cancel()
        with pytest.raises(CancelledError):
            given_up.result()
        assert leader.status().pending >= 1
        back = node_at(folder, nodes.index(others[0]), bus_port=others[0].bus_port)
        with back:
            until(lambda: leader.status().pending == 0, leader, "it is decided")
    finally:
        leader.close()


def test_who_waits_is_told_of_the_close(folder: Path) -> None:
    nodes = cluster(folder, 2)
    leader = next(node for node in nodes if node.node_id == node.status().leader_id)
    other = next(node for node in nodes if node is not leader)
    other.close()
    started = threading.Barrier(4)

    def wait_for(call: Callable[[], object]) -> BaseException | None:
        started.wait()
        try:
            call()
        except BaseException as error:
            return error
        return None

    calls = [lambda: leader.propose(b"1"), leader.barrier, leader.wait_failed]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(wait_for, call) for call in calls]
        started.wait()
        until(lambda: leader.status().pending >= 1, leader, "the command is under way")
        leader.close()
        errors = [future.result(PATIENCE) for future in waiting]
    assert all(isinstance(error, NodeClosed) for error in errors[:2])
    assert errors[0].may_take_effect
    assert errors[2] is None or isinstance(errors[2], NodeClosed)


def test_a_node_that_is_not_running_says_so(folder: Path) -> None:
    node = node_at(folder)
    for _ in ("before", "after"):
        for call in (
            lambda: node.propose(b"1"),
            lambda: node.propose_many([b"1"]),
            lambda: node.submit(b"1"),
            node.barrier,
            node.session,
            node.status,
            lambda: node.cluster,
            lambda: node.call(lambda: 1),
        ):
            with pytest.raises(NodeClosed):
                call()
        assert list(node.events()) == []
        if _ == "before":
            node.start()
            node.close()
    node.close()
    with pytest.raises(NodeClosed):
        node.start()


def test_closing_from_many_threads_is_closing_once(folder: Path) -> None:
    node = node_at(folder)
    node.start()
    node.propose(b"1")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: node.close(), range(8))) == [None] * 8


def test_errors_are_those_of_the_node(folder: Path) -> None:
    with pytest.raises(ConfigError):
        node_at(folder, port=-1)
    with node_at(folder, config=Config(max_pending=2)) as node:
        with pytest.raises(StorageError, match="in use"):
            node_at(folder).start()
        with pytest.raises(TypeError):
            node.propose("1")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            node.propose_many([b"1", None])  # type: ignore[list-item]
        with pytest.raises(ConfigError):
            node.add_slots([-1])
        with pytest.raises(Rejected):
            node.del_slots([1])
        assert node.propose(b"1") == b"1"
        with pytest.raises(Busy):
            node.call(lambda: [node._node.submit(b"1") for _ in range(3)])
        assert node.propose(b"1", wait=True, timeout=PATIENCE) == b"4"
        waiting = [node.submit(b"1") for _ in range(20)]  # the last may find room before those that wait for it
        assert sorted(int(future.result(PATIENCE)) for future in waiting) == list(range(5, 25))


def test_a_start_that_fails_leaves_no_thread_and_no_lock(folder: Path) -> None:
    (folder / "node-0").write_bytes(b"no folder")
    node = node_at(folder)
    with pytest.raises(StorageError):
        node.start()
    with pytest.raises(NodeClosed):
        node.propose(b"1")
    (folder / "node-0").unlink()

    def no_loop() -> asyncio.AbstractEventLoop:
        raise RuntimeError("no loop today")

    with pytest.raises(RuntimeError, match="no loop today"):
        node_at(folder, loop_factory=no_loop).start()
    with node_at(folder) as again:
        assert again.propose(b"1") == b"1"


def test_a_blocking_call_in_the_nodes_own_thread_is_an_error_and_not_a_deadlock(folder: Path) -> None:
    with node_at(folder) as node:
        with pytest.raises(RuntimeError, match="own thread"):
            node.call(lambda: node.propose(b"1"), timeout=PATIENCE)
        assert node.propose(b"1") == b"1"


def test_events_end_with_the_node(folder: Path) -> None:
    seen: list[str] = []
    node = node_at(folder)
    node.start()
    listening = threading.Event()

    def listen() -> None:
        stream = node.events()
        listening.set()
        seen.extend(event.kind for event in stream)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(listen)
        listening.wait(PATIENCE)
        until(lambda: bool(node._node._subscribers), node, "somebody listens")
        with node_at(folder, 1) as other:
            node.meet(HOST, 7001, other.bus_port)
            until(lambda: node.cluster.size == 2, node, "two voters")
            node.close()
            done.result(PATIENCE)
            assert seen[:2] == ["member-joined", "voter-added"]
            until(lambda: other.status().role is Role.LEADER, other, "it handed over")


def test_an_exception_in_the_body_still_closes(folder: Path) -> None:
    def body() -> None:
        with node_at(folder) as node:
            node.propose(b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    with node_at(folder) as again:
        again.barrier()
        assert again.propose(b"1") == b"2"


# ---------------------------------------------------------------------- what breaks off: exits and interrupts


LOOP_FACTORIES = [None, uvloop.new_event_loop]


class Exits(Sum):
    def apply(self, index: int, command: bytes) -> bytes:
        if command == b"0":
            sys.exit(3)
        return super().apply(index, command)


@pytest.mark.parametrize("loop_factory", LOOP_FACTORIES)
def test_an_exit_in_the_state_machine_fails_the_node_and_it_can_be_closed(folder: Path, loop_factory) -> None:
    node = node_at(folder, state_machine=Exits(), loop_factory=loop_factory)
    node.start()
    assert node.propose(b"1") == b"1"
    with pytest.raises(NodeClosed, match="SystemExit") as told:
        node.propose(b"0", timeout=PATIENCE)
    assert told.value.may_take_effect
    with pytest.raises(NodeClosed):
        node.propose(b"1", timeout=PATIENCE)
    with pytest.raises(NodeClosed, match="SystemExit"):
        node.wait_failed(timeout=PATIENCE)
    node.close()
    with node_at(folder) as again:
        again.barrier()
        assert again.propose(b"1") == b"2"


@pytest.mark.parametrize("loop_factory", LOOP_FACTORIES)
def test_an_exit_in_a_call_is_the_callers(folder: Path, loop_factory) -> None:
    with node_at(folder, loop_factory=loop_factory) as node:
        for number in range(1, 3):
            with pytest.raises(SystemExit):
                node.call(lambda: sys.exit(3), timeout=PATIENCE)
            assert node.propose(b"1", timeout=PATIENCE) == b"%d" % number


def interrupted_at(step: int, call: Callable[[], None]) -> bool:
    """Calls it, with a KeyboardInterrupt before the given one of the lines of `blocking` that it runs in this thread;
    whether there were as many.

    Not before a `with`: its line is told once more in front of its `__exit__`, where Python looks for no signal.
    """
    lines = 0

    def trace(frame, event: str, _):
        nonlocal lines
        if frame.f_code.co_filename != raftfast.blocking.__file__:
            return None
        if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(
            "with "
        ):
            lines += 1
            if lines > step:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("loop_factory", LOOP_FACTORIES)
@pytest.mark.parametrize("what", ["start", "close"])
def test_an_interrupt_at_any_line_leaves_no_thread_and_no_lock(folder: Path, what: str, loop_factory) -> None:
    for step in itertools.count():
        with no_thread_left():
            node = node_at(folder, loop_factory=loop_factory)
            if what == "close":
                node.start()
                node.propose(b"1")
            was_interrupted = interrupted_at(step, node.start if what == "start" else node.close)
            if what == "close" or not was_interrupted:  # who can't start has nothing to close
                node.close()
        if not was_interrupted:
            assert step > 10
            break


class Interrupting(Sum):
    """Has the main thread interrupted as if by Ctrl-C, in the midst of what it is called for, and waits until it is."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self._interrupted = threading.Event()

    def on_signal(self, *_) -> None:
        self._interrupted.set()
        raise KeyboardInterrupt

    def _look(self, where: str) -> None:
        if where == self._where and not self._interrupted.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            assert self._interrupted.wait(PATIENCE)

    def snapshot(self):
        self._look("close")
        return super().snapshot()

    def restore(self, pieces) -> None:
        self._look("start")
        super().restore(pieces)


@pytest.mark.parametrize("loop_factory", LOOP_FACTORIES)
@pytest.mark.parametrize("what", ["start", "close"])
def test_an_interrupt_of_who_waits_leaves_no_thread_and_no_lock(folder: Path, what: str, loop_factory) -> None:
    with node_at(folder) as node:
        node.propose(b"1")
    machine = Interrupting(what)
    before = signal.signal(signal.SIGUSR1, machine.on_signal)
    try:
        node = node_at(folder, state_machine=machine, loop_factory=loop_factory)
        with no_thread_left():
            if what == "close":
                node.start()
                node.propose(b"1")
            with pytest.raises(KeyboardInterrupt):
                (node.start if what == "start" else node.close)()
            node.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    with node_at(folder) as again:
        again.barrier()
        assert again.propose(b"1") == {"start": b"2", "close": b"3"}[what]
