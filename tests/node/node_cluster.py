"""Nodes in this process, on real sockets of loopback and real folders, and how a test waits for them: on their turns.

Nothing here sleeps to wait. A condition is looked at after each turn of any node, up to a deadline that is far longer
than anything takes.

Nothing here depends on how fast the machine is either: by `CONFIG` no node is ever silent for long enough that another
one is elected or it is marked as failed, however little of the processor it gets. A test in which leaders, or most
nodes, die says `node_timeout=ELECTIONS`, and expects an election at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import raftfast
from raftfast import Config, Event, MeetError, Node, StateMachine
from raftfast.messages import Role

PATIENCE = 90.0
"""Seconds for anything at all."""

ELECTIONS = 1.0
"""T where a test waits for elections, or for a node to be marked as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientConfig(Config):
    """Times that a user's configuration ties to T are set apart: heartbeats are quick, and no proposal is given up."""

    heartbeat: float = 0.05
    patience: float = PATIENCE

    @property
    def heartbeat_interval(self) -> float:
        return self.heartbeat

    @property
    def proposal_timeout(self) -> float:
        return self.patience


CONFIG = PatientConfig(node_timeout=10.0, trim_keep_time=0.0)
FIRST_PORT = 7000
HOST = "127.0.0.1"


class Journal(StateMachine):
    """Keeps every command in order. A command answers how many there are with it; b"none" answers None.

    `applied` is what this life of the process applied, by index: what a snapshot or the file brought is not in it.
    """

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.applied: list[tuple[int, bytes]] = []
        self.restored = 0

    def apply(self, index: int, command: bytes) -> bytes | None:
        if command.startswith(b"fault"):
            raise RuntimeError("a fault of the state machine")
        self.commands.append(command)
        self.applied.append((index, command))
        return None if command == b"none" else b"%d" % len(self.commands)

    def snapshot(self) -> Iterable[bytes]:
        return (b"%d:%b" % (len(command), command) for command in self.commands[:])

    def restore(self, pieces: Iterable[bytes]) -> None:
        rest, commands = b"".join(pieces), []
        while rest:
            size, _, rest = rest.partition(b":")
            commands.append(rest[: int(size)])
            rest = rest[int(size) :]
        self.commands = commands
        self.restored += 1


class Cluster:
    """The nodes that a test made, each with its folder, its port and its journal. Nodes are named by number, from 0."""

    def __init__(self, folder: Path, config: Config = CONFIG) -> None:
        self.folder = folder
        self.config = config
        self.nodes: dict[int, Node] = {}
        self.journals: dict[int, Journal] = {}

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    # ------------------------------------------------------------------ life

    def make(self, number: int, **changes: Any) -> Node:
        """A node that is not started; its folder and ports are those of its earlier life, if it had one."""
        earlier = self.nodes.get(number)
        journal = self.journals[number] = Journal()
        settings: dict[str, Any] = {
            "host": HOST,
            "port": FIRST_PORT + number,
            "bus_port": earlier.bus_port if earlier is not None else 0,
            "state_machine": journal,
            "config": self.config,
        }
        self.nodes[number] = Node(self.folder / f"node-{number}", **{**settings, **changes})
        return self.nodes[number]

    async def start(self, *numbers: int, **changes: Any) -> list[Node]:
        """Nodes, started or started again."""
        made = [self.make(number, **changes) for number in numbers]
        await asyncio.gather(*(node.start() for node in made))
        return made

    async def form(self, count: int) -> list[Node]:
        """A cluster of `count` voters, led by whoever leads it."""
        nodes = await self.start(*range(count))
        for other in nodes[1:]:
            await meet(nodes[0], other)
        await self.until(lambda: self.voters_agreed(count), f"{count} voters everywhere")
        return nodes

    async def join(self, number: int, **changes: Any) -> Node:
        """One more node, met by the leader, once it is a member."""
        leader = await self.leader()
        (node,) = await self.start(number, **changes)
        await meet(leader, node)
        await self.until(lambda: node.status().standing == "member", f"node {number} is a member")
        return node

    async def kill(self, number: int) -> None:
        """Ends a node as a kill does: nothing is said, handed over or stored any more."""
        await kill(self.nodes[number])

    async def close(self) -> None:
        """Closes all at once. The last to lead finds nobody to hand over to, and is not to wait for long."""
        for node in self.nodes.values():
            node.config = replace(node.config, node_timeout=0.5)
        await asyncio.gather(*(node.close() for node in self.nodes.values()))

    # ------------------------------------------------------------------ what is seen of it

    @property
    def live(self) -> list[Node]:
        return [node for node in self.nodes.values() if running(node)]

    def voters_agreed(self, count: int) -> bool:
        """Whether all live nodes are voters in the same applied state with `count` of them, and know a leader."""
        states = [node.cluster for node in self.live]
        known = all(node.status().leader_id is not None for node in self.live)
        return known and all(state.size == count and node_id_of(state) == node_id_of(states[0]) for state in states)

    def applied_equal(self) -> bool:
        """Whether all live members hold the same state, at one index: all that is committed."""
        statuses = [node.status() for node in self.live]
        indexes = {index for status in statuses for index in (status.last_applied, status.commit_index)}
        return len(indexes) == 1 and len({node.state_digest() for node in self.live}) == 1

    async def converge(self) -> None:
        """Waits until all live members hold the same state."""
        await self.until(self.applied_equal, "all live nodes hold the same state")

    async def leader(self, besides: Node | None = None) -> Node:
        """Waits for a leader, another one than `besides`, that the live nodes agree on."""
        found: list[Node] = []

        def one() -> bool:
            leading = [n for n in self.live if n.status().role is Role.LEADER and n is not besides]
            found[:] = leading[:1]
            return len(leading) == 1 and {n.status().leader_id for n in self.live} == {leading[0].node_id}

        await self.until(one, "one leader")
        return found[0]

    async def followers(self) -> list[Node]:
        leader = await self.leader()
        return [node for node in self.live if node is not leader]

    def number_of(self, node: Node) -> int:
        return next(number for number, each in self.nodes.items() if each is node)

    def journal(self, node: Node) -> Journal:
        return self.journals[self.number_of(node)]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await until(condition, what, lambda: self.live)


def node_id_of(state: Any) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(state.nodes), state.voters()


def running(node: Node) -> bool:
    engine = node._engine
    return engine is not None and not engine.is_stopped


async def until(condition: Callable[[], bool], what: str, live: Callable[[], list[Node]]) -> None:
    """Waits until `condition` holds, looking after each turn of a live node. AssertionError when it never does.

    Also where no node has anything to do: a turn may have been over before it was listened for.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                turns = [asyncio.ensure_future(node._engine.turned.wait()) for node in live()]
                try:
                    await asyncio.wait(turns, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for turn in turns:
                        turn.cancel()
    except TimeoutError:
        statuses = "\n".join(str(node.status()) for node in live())
        raise AssertionError(f"it never came to this: {what}\n{statuses}") from None


async def meet(node: Node, other: Node) -> None:
    """Says it again where the machine was too slow for a dial. Raises MeetError."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await node.meet(HOST, other.port, other.bus_port)
            except MeetError as error:
                if "no connection in time" not in str(error):
                    raise


async def until_added(node: Node, node_id: str) -> None:
    """A learner that is not caught up is refused; it is soon."""
    async with asyncio.timeout(PATIENCE):
        while await error_of(node.add_voter(node_id)) is not None:
            await node._engine.turned.wait()


async def kill(node: Node) -> None:
    """What is left in place of a `close`: threads and files of this process end, nothing is told or stored."""
    await node.abort()


@contextlib.asynccontextmanager
async def cluster_of(folder: Path, count: int, **changes: Any) -> AsyncIterator[Cluster]:
    """A cluster of `count` voters; `changes` are of the configuration."""
    cluster = Cluster(folder, replace(CONFIG, **changes))
    try:
        if count:
            await cluster.form(count)
        yield cluster
    finally:
        await cluster.close()


@contextlib.asynccontextmanager
async def events_of(node: Node) -> AsyncIterator[list[Event]]:
    """The events of a node from now on, in a list that grows."""
    seen: list[Event] = []

    async def listen() -> None:
        async for event in node.events():
            seen.append(event)

    task = asyncio.ensure_future(listen())
    await asyncio.sleep(0)  # the first step of the iteration subscribes
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def error_of(awaitable: Any) -> BaseException | None:
    """What an await raised; None where it raised nothing."""
    try:
        await awaitable
    except (raftfast.RaftError, OSError, TimeoutError, TypeError, ValueError) as error:
        return error
    return None
