"""The node for threads: the same calls, blocking, for services without asyncio.

Floor 5. It owns a thread with an event loop in it, and runs there what `raftfast.Node` does; never anything of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from types import TracebackType
from typing import Any, Self, TypeVar

from . import node as _node
from .cluster.view import ClusterView
from .config import Config
from .errors import NodeClosed, ProposalTimeout, TimedOut
from .member import Event
from .session import Session as _Session
from .statemachine import StateMachine
from .status import Status

__all__ = ["Node", "Session"]

_T = TypeVar("_T")


class Node:
    """One node of a cluster, driven by a thread of its own. Its calls may be made from any number of threads at once.

    The arguments are those of `raftfast.Node`, and so are the errors. Where `timeout` (seconds, None: no limit) is over
    a call raises `ProposalTimeout`, whether its command was sent already or not: what happens in the node's thread is
    not waited for; `TimedOut` where it proposes nothing (`barrier`, `wait_failed`). Both are TimeoutErrors. Giving up
    waiting undoes nothing. The state machine is called in the node's thread.

    `loop_factory` makes the event loop, as `uvloop.new_event_loop` does. Use it as a context manager, or `start()` and
    `close()` it. It can't be used in a process that was forked after `start()`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 7000,
        bus_port: int | None = None,
        announce_ip: str | None = None,
        announce_port: int | None = None,
        announce_bus_port: int | None = None,
        state_machine: StateMachine | None = None,
        config: Config | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        """Raises ConfigError for ports or an address that can't be."""
        self._node = _node.Node(
            directory,
            host=host,
            port=port,
            bus_port=bus_port,
            announce_ip=announce_ip,
            announce_port=announce_port,
            announce_bus_port=announce_bus_port,
            state_machine=state_machine,
            config=config,
        )
        self._thread = LoopThread(loop_factory, self._node.start, self._node.abort)
        self._is_lent = False

    @classmethod
    def over(cls, node: _node.Node, thread: LoopThread) -> Self:
        """The blocking face of a started node that runs in a thread which others use too, and goes on without it."""
        self = cls.__new__(cls)
        self._node, self._thread, self._is_lent = node, thread, True
        return self

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Loads the folder, opens the bus port, and takes part. Raises as `raftfast.Node.start`; no thread is left."""
        if self._is_lent:
            raise NodeClosed("a node is started once")
        self._thread.start()

    def close(self) -> None:
        """Stops gracefully: leadership is handed over, the state is stored, nobody is left waiting. Idempotent."""
        if self._thread.running:
            try:
                with contextlib.suppress(NodeClosed):  # another thread was quicker
                    self._thread.run(self._node.close())
            finally:
                if not self._is_lent:
                    self._thread.stop()

    def wait_failed(self, timeout: float | None = None) -> None:
        """Waits until the node ends by itself, and raises what ended it. Returns when it is closed instead."""
        self._thread.run(self._node.wait_failed(), timeout, late=TimedOut)

    # ------------------------------------------------------------------ commands

    def submit(self, command: bytes) -> Future[bytes | None]:
        """Proposes a command, waiting for room where need be; the future gets what the state machine answers.

        Cancelling the future gives up waiting, and undoes nothing.
        """
        return self._thread.submit(self._node.propose(command, wait=True))

    def propose(self, command: bytes, *, timeout: float | None = None, wait: bool = False) -> bytes | None:
        """Proposes a command, from any member; returns the state machine's answer once it is committed and applied.

        `wait`: where too much is pending, wait for room in place of `Busy`.
        """
        return self._thread.run(self._node.propose(command, wait=wait), timeout)

    def propose_many(self, commands: Iterable[bytes], *, timeout: float | None = None) -> list[bytes | None]:
        """Proposes commands in their order, waiting for room where need be; returns their answers in that order."""
        return self._thread.run(self._node.propose_many(list(commands)), timeout)

    def session(self, timeout: float | None = None) -> Session:
        """A session, opened: commands proposed in it are applied exactly once, through retries and leader changes."""
        return Session(self._thread, self._node, timeout)

    def barrier(self, timeout: float | None = None) -> None:
        """After it, local reads see everything that was committed before the call (ReadIndex, PROTOCOL 5.6)."""
        self._thread.run(self._node.barrier(), timeout, late=TimedOut)

    def call(self, function: Callable[[], _T], timeout: float | None = None) -> _T:
        """Calls a function in the node's thread, where no command is applied meanwhile, and returns what it returns.

        This is how a thread reads a state machine that takes no lock: `barrier()`, then `call(...)`. The node waits
        for the function's end, so it must be quick.
        """

        async def called() -> _T:
            return function()

        return self._thread.run(called(), timeout)

    # ------------------------------------------------------------------ the cluster

    def meet(self, host: str, port: int, bus_port: int | None = None, *, timeout: float | None = None) -> None:
        """Makes one cluster of this node's and that of the node at `host`. Raises MeetError where that can't be."""
        self._thread.run(self._node.meet(host, port, bus_port), timeout)

    def add_slots(self, slots: Iterable[int], *, timeout: float | None = None) -> None:
        """This node takes slots that nobody owns. Raises Rejected where another owns one; all or none."""
        self._thread.run(self._node.add_slots(list(slots)), timeout)

    def del_slots(self, slots: Iterable[int], *, timeout: float | None = None) -> None:
        """Takes slots from whoever owns them. Raises Rejected where one has no owner; all of an owner or none."""
        self._thread.run(self._node.del_slots(list(slots)), timeout)

    def forget(self, node_id: str, *, timeout: float | None = None) -> None:
        """Takes a node out of the cluster; one that is not there is a success. Raises Rejected where it can't go."""
        self._thread.run(self._node.forget(node_id), timeout)

    def add_voter(self, node_id: str, *, timeout: float | None = None) -> None:
        """Makes a caught-up learner a voter. Raises Rejected where it is unknown or behind."""
        self._thread.run(self._node.add_voter(node_id), timeout)

    def del_voter(self, node_id: str, *, timeout: float | None = None) -> None:
        """Makes a voter a learner. Raises Rejected for the last voter."""
        self._thread.run(self._node.del_voter(node_id), timeout)

    def set_hostname(self, hostname: str, *, timeout: float | None = None) -> None:
        """Announces another host name; an empty one takes it away. Raises ConfigError for what is no host name."""
        self._thread.run(self._node.set_hostname(hostname), timeout)

    def reset(self, *, hard: bool = False, timeout: float | None = None) -> None:
        """Makes this node a fresh singleton: without state, log, slots and cluster (CLUSTER RESET, PROTOCOL 8)."""
        self._thread.run(self._node.reset(hard=hard), timeout)

    def transfer_leadership(self, to: str | None = None, *, timeout: float | None = None) -> str:
        """Hands leadership over, to the best voter where `to` is None; returns the new leader's id."""
        return self._thread.run(self._node.transfer_leadership(to), timeout)

    # ------------------------------------------------------------------ what it knows

    @property
    def config(self) -> Config:
        """The settings that it was given."""
        return self._node.config

    @property
    def bus_port(self) -> int:
        """The port of the bus; where 0 was asked for, the one that it took, once started."""
        return self._node.bus_port

    @property
    def node_id(self) -> str:
        """This node's id: 40 characters."""
        return self.call(lambda: self._node.node_id)

    @property
    def cluster(self) -> ClusterView:
        """The applied cluster metadata of this moment: nodes, slots, shards. Read only; nothing changes it later."""
        return self.call(lambda: self._node.cluster)

    def status(self) -> Status:
        """What this node is at this moment."""
        return self.call(self._node.status)

    def state_digest(self) -> str:
        """40 hex digits over cluster metadata and state machine: equal on members that applied the same."""
        return self.call(self._node.state_digest)

    def events(self) -> Iterator[Event]:
        """What happens to the node from the first step of the iteration on, until the node ends."""
        stream = self._node.events()

        async def following() -> Event | None:
            return await anext(stream, None)

        with contextlib.suppress(NodeClosed):  # the end of the node is the end of its events
            while (event := self._thread.run(following())) is not None:
                yield event


class Session:
    """A session of a node: each command is applied exactly once, whatever is sent again (PROTOCOL 6.3).

    Made by `Node.session()`, and open from then on. Several threads may use it at once, up to the session's window.
    """

    def __init__(self, thread: LoopThread, node: _node.Node, timeout: float | None) -> None:
        """Opens it in the log, for up to `timeout` seconds."""
        self._thread = thread

        async def opened() -> _Session:
            return await node.session().__aenter__()

        self._session = thread.run(opened(), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._session.__aexit__(kind, error, trace))

    def propose(self, command: bytes, *, timeout: float | None = None, wait: bool = False) -> bytes | None:
        """Proposes a command, again and again until it is decided, and returns the state machine's answer."""
        return self._thread.run(self._session.propose(command, wait=wait), timeout)

    def propose_many(self, commands: Iterable[bytes], *, timeout: float | None = None) -> list[bytes | None]:
        """Proposes commands side by side, waiting for room where need be; returns their answers in order."""
        return self._thread.run(self._session.propose_many(list(commands)), timeout)


class LoopThread:
    """A thread that runs an event loop from `start` to `stop`. Each call runs in it and ends before `stop` returns.

    In it `first` is called at the beginning, and `last`, which gives all back that there still is, at the end: then all
    calls are cancelled. KeyboardInterrupt may break off any method: `stop` ends the thread all the same.
    """

    def __init__(
        self,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
        first: Callable[[], Coroutine[Any, Any, object]],
        last: Callable[[], Coroutine[Any, Any, object]],
    ) -> None:
        self._factory = loop_factory
        self._first = first
        self._last = last
        self._lock = threading.Lock()
        self._ready: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None
        self._ended = False
        self._left = False
        self._calls: set[Future[Any]] = set()

    @property
    def running(self) -> bool:
        return self._loop is not None

    def start(self) -> None:
        """Raises what `first` raises: no thread is left then. Raises NodeClosed where it was started before."""
        with self._lock:
            if self._thread is not None:
                raise NodeClosed("a node is started once")
            self._thread = threading.Thread(target=self._main, name="raftfast-node", daemon=True)
        try:
            self._thread.start()
            self._ready.result()
            self.run(self._first())
        except BaseException:
            self.stop()
            raise

    def _main(self) -> None:
        try:
            runner = asyncio.Runner(loop_factory=self._factory)
            loop = runner.get_loop()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        try:
            with runner:
                with self._lock:
                    self._left = self._ended
                    self._loop = loop
                self._ending = loop.create_task(self._end())
                self._ready.set_result(None)
                while not self._left:
                    # What ends an asyncio program was told to the caller of `call`, or has failed the node: that, or
                    # those beside it, must be closed in this loop.
                    with contextlib.suppress(SystemExit, KeyboardInterrupt):
                        loop.run_forever()
        finally:
            self._loop = None

    async def _end(self) -> None:
        """What the loop's end cancels with all other tasks, and waits for."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._last()

    def _leave(self) -> None:
        """In the loop, and once: again, it would stop what the loop does at its end."""
        if not self._left and self._loop is not None:
            self._left = True
            self._loop.stop()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Starts a coroutine in the loop. Raises NodeClosed where there is none."""
        try:
            self._check_thread()
        except RuntimeError:
            work.close()
            raise
        with self._lock:
            if self._loop is None or self._ended:
                work.close()
                raise NodeClosed("the node is closed" if self._thread is not None else "the node is not started")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def run(
        self, work: Coroutine[Any, Any, _T], timeout: float | None = None, late: type[TimedOut] = ProposalTimeout
    ) -> _T:
        """Runs a coroutine in the loop and waits for it; what ends the waiting cancels it. `late` after `timeout`."""
        future = self.submit(work)
        try:
            if timeout is not None and not wait([future], timeout).done:
                raise late(f"not done within {timeout} seconds")
            return future.result()
        except CancelledError:
            error = NodeClosed("the node is closed")
            error.may_take_effect = True  # for all that is known here
            raise error from None
        except BaseException:
            future.cancel()  # no effect where it is the coroutine's own error
            raise

    def stop(self) -> None:
        """Ends loop and thread; calls that are still running are cancelled. Idempotent."""
        self._check_thread()
        with self._lock:
            self._ended = True
            loop, calls = self._loop, list(self._calls)
        for call in calls:
            call.cancel()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed by now
                loop.call_soon_threadsafe(self._leave)
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # it has not begun, and ends at once if it will
                self._thread.join()

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call in the node's own thread would wait for itself")
