"""The node: what a service embeds. Its life, its calls, its status.

Floor 4. The loop is `engine`'s, the decisions are `member`'s; this file turns calls into proposals and waits.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from .arguments import (
    announced_ip,
    checked_config,
    checked_hostname,
    checked_port,
    checked_state_machine,
    checked_text,
    slot_bits,
)
from .backup import Backup
from .cluster.entries import AddVoter, DelVoter, Entry, NodeForget, NodeInfo, SlotChange
from .cluster.members import bits_of, ranges_of
from .cluster.sessions import Sessions
from .cluster.state import ClusterState
from .cluster.view import ClusterView
from .config import BUS_PORT_OFFSET, Config
from .engine import Engine
from .errors import (
    Busy,
    ClusterReset,
    ConfigError,
    Conflict,
    Dropped,
    NodeClosed,
    ParseError,
    RaftError,
    Rejected,
)
from .hot import nodesconf
from .member import Event, Identity, Member, Origin
from .net import Listener, check_free, listen
from .observe import digest_of, status_of, unjoined_at
from .opening import open_folder
from .records import Address, NodeRecord
from .session import Session, check_command, gave_up
from .signals import GracefulTerm
from .statemachine import StateMachine
from .status import Status
from .storage import Loaded, Storage
from .subscribers import Subscribers
from .unbroken import unbroken

__all__ = ["Node", "Session"]

_CONFLICT_RETRIES = 10


class Node:
    """One node of a cluster, in this process, on the running event loop.

    `directory` keeps its state and belongs to it alone. `host` is bound for the bus (`bus_port`, by default `port` +
    10000; 0 takes a free one); `port` is the client port that it announces, whoever serves it. What it announces may
    differ from what it binds: `announce_ip`, `announce_port`, `announce_bus_port`.

    Use it as a context manager, or `start()` and `close()` it. Leaving the context stops it gracefully, and so do
    SIGINT (asyncio cancels the main task) and, where the process has no handler of its own, SIGTERM. Every error is a
    `RaftError` whose `may_take_effect` says whether the command may still be applied. Cancelling an await gives up
    waiting, and undoes nothing.
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
    ) -> None:
        """Raises ConfigError for ports or an address that can't be, TypeError for what is no such thing at all."""
        self.config = checked_config(config)
        self.directory = os.fspath(directory)
        self.host = checked_text("host", host)
        self.port = checked_port("port", port)
        if bus_port is None and port + BUS_PORT_OFFSET > 65535:
            raise ConfigError(f"port {port} leaves no bus port {port + BUS_PORT_OFFSET}: give bus_port")
        self.bus_port = checked_port("bus_port", bus_port if bus_port is not None else port + BUS_PORT_OFFSET)
        self._announce_port = checked_port("announce_port", announce_port if announce_port is not None else port)
        self._announce_bus_port = checked_port("announce_bus_port", announce_bus_port or 0)
        self._announce_ip = announced_ip(host) if announce_ip is None else checked_text("announce_ip", announce_ip)
        try:
            nodesconf.parse_address(nodesconf.format_address(self._address(self.bus_port)))
        except ParseError as error:
            raise ConfigError(f"{self._announce_ip!r} can't be announced: {error.reason}") from None
        self._state_machine = checked_state_machine(state_machine)
        self._rng = random.Random(secrets.randbits(64))
        self._engine: Engine | None = None
        self._listener: Listener | None = None
        self._subscribers = Subscribers()
        self._meets: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._signals = GracefulTerm()

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        await self.start()
        self._signals.arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        finally:
            self._signals.disarm()

    async def start(self) -> None:
        """Loads the folder, opens the bus port, and takes part.

        Raises StorageError (the folder is locked, damaged, not writable, or the state machine refuses what is stored),
        OSError (the port can't be had): nothing has changed then. NodeClosed where it is closed before it has started.
        """
        if self._starting is not None or self._closed:
            raise NodeClosed("a node is started once")
        # A task of its own: what it holds is given back, whoever hurries.
        starting = self._starting = asyncio.get_running_loop().create_task(self._start())
        starting.add_done_callback(self._start_ended)
        try:
            await asyncio.wait([starting])
        except asyncio.CancelledError:
            await self.close()
            raise
        if starting.cancelled():
            raise NodeClosed("the node was closed before it had started")
        starting.result()

    async def _start(self) -> None:
        if self.bus_port:
            await check_free(self.host, self.bus_port)  # opening the folder makes it, and folds its file
        disk_worker = ThreadPoolExecutor(1, "raftfast-disk")
        opening = disk_worker.submit(open_folder, self.directory, self._state_machine, self.config)
        try:
            storage, loaded, sessions = await asyncio.wrap_future(opening)
            await self._run(storage, loaded, sessions, disk_worker)
        except BaseException:
            self._closed = True
            try:
                if self._engine is not None:
                    await self._end("the node did not start")
                else:
                    disk_worker.submit(_give_up, opening)  # behind it: also where we were cancelled before we had it
                    await unbroken(asyncio.get_running_loop().run_in_executor(None, disk_worker.shutdown, True))
            finally:
                self._engine = None
            raise

    def _start_ended(self, starting: asyncio.Task[None]) -> None:
        """Also looks at its error: who waited for it may have given up in this very turn."""
        if starting.cancelled() or starting.exception() is not None:
            self._closed = True
            self._subscribers.end()

    async def _run(self, storage: Storage, loaded: Loaded, sessions: Sessions, disk_worker: ThreadPoolExecutor) -> None:
        """What was loaded becomes a running node."""
        loop = asyncio.get_running_loop()
        origin = self._origin(loaded, self._announce_bus_port or self.bus_port)
        member = Member(origin, self.config, self._rng, _new_id, self._state_machine, sessions, now=loop.time())
        extra = loaded.stored.extra if loaded.stored is not None else None
        engine = self._engine = Engine(
            member, storage, self.config, self._rng, disk_worker, self._subscribers.tell, extra
        )
        engine.failed.add_done_callback(lambda _: self._subscribers.end())
        await engine.begin()
        self._listener = await listen(self.host, self.bus_port, engine, self.config, stats=engine.dialer.stats)
        if self.bus_port == 0:
            self.bus_port = self._listener.port
            if not self._announce_bus_port:
                member.set_address(replace(member.identity.address, cport=self.bus_port), loop.time())
        if loaded.conf is None:
            member.storing.order_rewrite(None)  # the id must be on disk before anybody hears of it
        for warning in loaded.warnings:
            member.report(warning)
        engine.schedule()
        await engine.next_turn()
        await engine.settle()
        if engine.failed.done():
            raise engine.failed.exception() or NodeClosed("the node did not start")
        member.lifecycle.propose_own_address(loop.time())

    def _address(self, bus_port: int) -> Address:
        return Address(self._announce_ip, self._announce_port, bus_port, "", {"tls-port": "0"})

    def _origin(self, loaded: Loaded, bus_port: int) -> Origin:
        address = self._address(bus_port)
        if loaded.conf is None:
            return Origin.fresh(Identity(_new_id(), _new_id(), address))
        return Origin.of_file(loaded.conf, address)

    async def close(self) -> None:
        """Stops gracefully: leadership is handed over, the state is stored, nobody is left waiting. Idempotent."""
        await self._end_by(self._close)

    async def abort(self) -> None:
        """Ends at once, as a kill does: nothing is handed over, and what waits to be stored is not. For tests."""
        await self._end_by(self._abort)

    async def _end_by(self, way: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """In a task of its own: who gives up waiting changes nothing. Where that is cancelled, as all tasks are when
        `asyncio.run` ends, it hurries, and gives all back.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(way())
        closing = self._closing
        try:
            await asyncio.wait([closing])
        finally:
            if closing.cancelled():  # before its first step, for all that is known here; else this does nothing
                await self._abort()
        if not closing.cancelled():
            closing.result()

    async def _close(self) -> None:
        try:
            await self._end_start()
            engine = self._engine
            if engine is not None and not engine.failed.done():
                await self._hand_over(engine, engine.loop.time() + self.config.node_timeout)
                await engine.settle()
                try:
                    engine.compact()
                except Exception as error:  # the state machine's: what is in the log is stored all the same
                    engine.fail(error)
                await engine.settle()
        finally:
            await self._end("the node is closed")

    async def _abort(self) -> None:
        try:
            await self._end_start()
            for link in list(self._engine.links.values()) if self._engine is not None else ():
                link.abort("the node was aborted")
        finally:
            await self._end("the node was aborted")

    async def _end_start(self) -> None:
        """From here the node is closed, whether it has started or not; a start that is under way is undone."""
        self._closed = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await unbroken(self._starting)

    async def _end(self, reason: str) -> None:
        """Who waits is told; port, links, threads and folder are given back, however often this is cancelled."""
        engine = self._engine
        try:
            if engine is not None:
                engine.stop(lambda sent: NodeClosed(reason).once_sent(sent))
                if self._listener is not None:
                    await self._listener.close()
        finally:
            self._subscribers.end()
            if engine is not None:
                await engine.close()

    async def _hand_over(self, engine: Engine, deadline: float) -> None:
        """Leadership goes to another voter, if there is one that is live."""
        raft, loop = engine.member.raft, engine.loop
        if not raft.is_leader or len(raft.voters) < 2:
            return
        try:
            engine.member.transfer(None, loop.time())
        except (Rejected, Dropped):
            return
        engine.schedule()
        while raft.is_leader and loop.time() < deadline and not engine.is_stopped:
            await engine.turned.wait()

    async def wait_failed(self) -> None:
        """Waits until the node ends by itself, and raises what ended it. Returns when it is closed instead."""
        engine = self._running()
        while not self._closed and not engine.failed.done():
            await engine.turned.wait()
        error = engine.failed.exception() if engine.failed.done() else None
        if error is not None:
            raise error

    # ------------------------------------------------------------------ commands

    def submit(self, command: bytes) -> asyncio.Future[bytes | None]:
        """Proposes a command; the future gets what the state machine answers. The cheapest way in: no task is made.

        Raises Busy, EntryError, Rejected, NodeClosed at once, and nothing was proposed. The future's errors are
        `Dropped`, `Rejected`, `UnknownOutcome`, `NodeClosed`. Source: PROTOCOL 6.
        """
        engine = self._running()
        if not isinstance(command, bytes):
            raise TypeError(f"a command is bytes, not {type(command).__name__}")
        future: asyncio.Future[bytes | None] = engine.loop.create_future()
        engine.member.propose_app(command, future, engine.loop.time())
        engine.schedule()
        return future

    async def propose(self, command: bytes, *, timeout: float | None = None, wait: bool = False) -> bytes | None:
        """Proposes a command, from any member; returns the state machine's answer once it is committed and applied.

        `timeout` (seconds) gives up waiting, with `ProposalTimeout`; with `TimedOut` while it waited for room. `wait`:
        where too much is pending, wait for room in place of `Busy`. Raises as `submit` and its future.
        """
        sent = False
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        future = self.submit(command)
                    except Busy:
                        if not wait:
                            raise
                        await self._running().room.wait()
                    else:
                        sent = True
                        return await future
        except TimeoutError:
            raise gave_up(timeout, sent) from None

    async def propose_many(self, commands: Iterable[bytes], *, timeout: float | None = None) -> list[bytes | None]:
        """Proposes commands in their order, waiting for room where need be; returns their answers in that order.

        The first error is raised, after all are decided: an error here says nothing of the other commands. Where one
        can't be proposed at all (TypeError, EntryError) none is. `timeout` as in `propose`, for all together.
        """
        commands = list(commands)
        for command in commands:
            check_command(command)
        futures: list[asyncio.Future[bytes | None]] = []
        try:
            async with asyncio.timeout(timeout):
                for command in commands:
                    while True:
                        try:
                            futures.append(self.submit(command))
                            break
                        except Busy:
                            await self._running().room.wait()
                await asyncio.wait(futures) if futures else None
        except TimeoutError:
            raise gave_up(timeout, bool(futures)) from None
        finally:
            for future in futures:
                if not future.done():
                    future.cancel()
                elif not future.cancelled():
                    future.exception()
        return [future.result() for future in futures]

    def session(self) -> Session:
        """A session: commands proposed in it are applied exactly once, through retries and leader changes."""
        return Session(self._running, self.config.session_window, _new_id())

    async def barrier(self) -> None:
        """After it, local reads see everything that was committed before the call (ReadIndex, PROTOCOL 5.6).

        Raises NotLinearizable where no leader confirmed it in time, ClusterReset where the node is reset meanwhile.
        """
        engine = self._running()
        lifecycle = engine.member.lifecycle
        future, resets = engine.loop.create_future(), lifecycle.resets
        engine.member.barrier(future, engine.loop.time())
        engine.schedule()
        await future
        if lifecycle.resets != resets:  # between the answer and this moment: there is nothing left to read
            raise ClusterReset("cluster reset")

    # ------------------------------------------------------------------ the cluster

    async def meet(self, host: str, port: int, bus_port: int | None = None) -> None:
        """Makes one cluster of this node's and that of the node at `host`. Raises MeetError where that can't be.

        `port` is its client port; the bus port is that plus 10000 unless given. Returns when the other has agreed;
        becoming a member takes a little longer.
        """
        checked_text("host", host)
        checked_port("port", port)
        if bus_port is None:
            bus_port = port + BUS_PORT_OFFSET
        if not 0 < bus_port <= 65535:
            raise ConfigError(f"no bus port can be {bus_port}")
        engine = self._running()
        future = self._meets.get((host, bus_port))
        if future is None:  # a second link to the same node would only replace the first one's
            future = self._meets[host, bus_port] = engine.loop.create_future()
            future.add_done_callback(lambda done: (self._meets.pop((host, bus_port)), done.exception()))
            target = engine.member.meet(future, engine.loop.time())
            engine.dialer.dial_once(target, host, bus_port)
            engine.schedule()
        await asyncio.shield(future)

    async def add_slots(self, slots: Iterable[int]) -> None:
        """This node takes slots that nobody owns. Raises Rejected where another owns one; all or none."""
        bits = slot_bits(slots)

        def entry() -> Entry | None:
            state = self._state()
            mine = state.nodes.get(self.node_id)
            shard = mine.shard_id if mine is not None else self._member().identity.shard_id
            mine_bits = bits_of(state.slots_of(self.node_id))
            wanted = bits & ~mine_bits
            busy = ranges_of(wanted & state.assigned_bits())
            if busy:
                raise Rejected(f"Slot {busy[0][0]} is already busy")
            if not wanted:
                return None
            return SlotChange(None, 0, self.node_id, state.shard_epoch(shard), ranges_of(wanted))

        await self._change(entry)

    async def del_slots(self, slots: Iterable[int]) -> None:
        """Takes slots from whoever owns them. Raises Rejected where one has no owner; all of an owner or none."""
        bits = slot_bits(slots)
        self._running()
        free = ranges_of(bits & ~self._state().assigned_bits())
        if free:
            raise Rejected(f"Slot {free[0][0]} is already unassigned")
        for owner in sorted(self._state().nodes):

            def entry(owner: str = owner) -> Entry | None:
                state = self._state()
                theirs = ranges_of(bits & bits_of(state.slots_of(owner)))
                if not theirs:
                    return None
                return SlotChange(owner, state.shard_epoch(state.nodes[owner].shard_id), None, 0, theirs)

            await self._change(entry)

    async def forget(self, node_id: str) -> None:
        """Takes a node out of the cluster; one that is not there is a success. Raises Rejected where it can't go."""
        self._running()
        if checked_text("node_id", node_id) == self.node_id:
            raise Rejected("a node can't forget itself")

        def entry() -> Entry | None:
            state = self._state()
            node = state.nodes.get(node_id)
            return None if node is None else NodeForget(node_id, state.shard_epoch(node.shard_id))

        await self._change(entry)

    async def add_voter(self, node_id: str) -> None:
        """Makes a caught-up learner a voter. Raises Rejected where it is unknown or behind."""
        await self._change(lambda: AddVoter(checked_text("node_id", node_id)))

    async def del_voter(self, node_id: str) -> None:
        """Makes a voter a learner. Raises Rejected for the last voter."""
        await self._change(lambda: DelVoter(checked_text("node_id", node_id)))

    async def set_hostname(self, hostname: str) -> None:
        """Announces another host name; an empty one takes it away. Raises ConfigError for what is no host name."""
        checked_hostname(hostname)
        engine = self._running()
        member = engine.member
        address = replace(member.identity.address, hostname=hostname)
        before = member.identity.address.hostname
        member.identity = replace(member.identity, address=address)

        def entry() -> Entry | None:
            mine = self._state().nodes.get(self.node_id)
            if mine is None or mine.address == address:
                return None
            return NodeInfo(self.node_id, member.identity.info_text, mine.nofailover)

        try:
            await self._change(entry)
        except RaftError as error:
            if not error.may_take_effect:  # then the node must not go on announcing it
                address = replace(member.identity.address, hostname=before)
                member.identity = replace(member.identity, address=address)
            raise

    async def reset(self, *, hard: bool = False) -> None:
        """Makes this node a fresh singleton: without state, log, slots and cluster (CLUSTER RESET, PROTOCOL 8).

        It keeps its id unless `hard`. Returns when that is stored. Proposals that wait get `ClusterReset`. A leader
        hands over first, for at most a node timeout; a snapshot that is being written or installed ends first. The
        others keep their record of this node until they forget it, and don't take its id back before.
        """
        engine = self._running()
        loop = engine.loop
        await self._hand_over(engine, loop.time() + self.config.node_timeout)
        await engine.rest_of_states()  # emptying the state machine would be seen by who reads it
        self._running()
        old = engine.member.identity
        identity = Identity(_new_id() if hard else old.node_id, _new_id(), old.address)
        future = loop.create_future()
        engine.member.reset(identity, future, loop.time())
        engine.schedule()
        await future

    async def transfer_leadership(self, to: str | None = None) -> str:
        """Hands leadership over, to the best voter where `to` is None; returns the new leader's id.

        Raises Rejected where nobody can take over, Dropped where it did not happen in time. On a node that does not
        lead the leader is asked to hand over, to whom it sees fit, and asked again at each heartbeat: a new one can't
        before it has heard the others.
        """
        if to is not None:
            checked_text("to", to)
        engine = self._running()
        raft, loop = engine.member.raft, engine.loop
        before = raft.current_term
        while True:
            try:
                engine.member.transfer(to, loop.time())
                break
            except Rejected:
                if not engine.member.leader.may_still_hear(to, loop.time()):
                    raise
            await engine.turned.wait()  # a new leader has not heard everybody yet
            self._running()
        engine.schedule()
        deadline = loop.time() + 3 * self.config.node_timeout
        ask_at = loop.time() + self.config.heartbeat_interval
        while loop.time() < deadline:
            await engine.turned.wait()
            self._running()
            if raft.current_term > before and raft.leader_id is not None:
                return raft.leader_id
            if loop.time() >= ask_at and not raft.is_leader and raft.leader_id is not None:
                engine.member.transfer(to, loop.time())
                engine.schedule()
                ask_at = loop.time() + self.config.heartbeat_interval
        raise Dropped("no new leader appeared")

    async def _change(self, make: Callable[[], Entry | None]) -> None:
        """Proposes what `make` gives by the applied state, anew on a conflict, at most ten times (PROTOCOL 6.5)."""
        engine = self._running()
        for attempt in range(_CONFLICT_RETRIES + 1):
            engine.member.refuse_if_unable()
            entry = make()
            if entry is None:
                return
            future = engine.loop.create_future()
            applied = engine.member.raft.last_applied
            engine.member.propose_entry(entry, future, engine.loop.time())
            engine.schedule()
            try:
                await future
                return
            except Conflict:
                if attempt == _CONFLICT_RETRIES:
                    raise
            deadline = engine.loop.time() + self.config.proposal_timeout
            while engine.member.raft.last_applied == applied and engine.loop.time() < deadline:
                await engine.turned.wait()
                self._running()

    # ------------------------------------------------------------------ what it knows

    @property
    def node_id(self) -> str:
        """This node's id: 40 characters."""
        return self._member().node_id

    @property
    def cluster(self) -> ClusterView:
        """The applied cluster metadata of this moment: nodes, slots, shards. Read only; nothing changes it later."""
        return self._state().view()

    @property
    def repl_offsets(self) -> dict[str, int]:
        """Replication offsets by node id, as the leader told them."""
        return self._member().repl_offsets

    def known_unjoined(self) -> list[NodeRecord]:
        """Nodes that the state does not name: this one, while it is no member, and those that said HELLO to it."""
        return unjoined_at(self._member())

    async def backup(self) -> Backup:
        """A consistent snapshot of all that was committed before the call, to be read in pieces, then closed.

        It lies in a file of the node's folder until it is closed. Raises NotLinearizable where no leader confirmed it
        in time, StorageError where the disk has no room for it.
        """
        await self.barrier()
        return await Backup.of(self._running())

    def state_digest(self) -> str:
        """40 hex digits over cluster metadata and state machine: equal on members that applied the same.

        **Cost**: serialises the whole state, on the event loop.
        """
        return digest_of(self._member())

    @property
    def failure(self) -> BaseException | None:
        """What ended the node by itself, also after it was closed; None where nothing did."""
        engine = self._engine
        return engine.failed.exception() if engine is not None and engine.failed.done() else None

    def status(self) -> Status:
        """What this node is at this moment."""
        return status_of(self._running())

    def events(self) -> AsyncIterator[Event]:
        """What happens to the node from the first step of the iteration on, until the node ends.

        Who falls behind misses the oldest events.
        """
        return self._subscribers.listen()

    def _running(self) -> Engine:
        engine = self._engine
        if engine is None:
            raise NodeClosed("the node is not started")
        if self._closed or engine.failed.done():
            raise NodeClosed("the node is closed" if self._closed else f"the node stopped: {engine.failed.exception()}")
        return engine

    def _member(self) -> Member:
        if self._engine is None:
            raise NodeClosed("the node is not started")
        return self._engine.member

    def _state(self) -> ClusterState:
        return self._member().state


def _new_id() -> str:
    """40 hex digits from the operating system's random source."""
    return secrets.token_hex(20)


def _give_up(opening: Future[tuple[Storage, Loaded, Sessions]]) -> None:
    """The folder that was opened, if it was, is closed."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
