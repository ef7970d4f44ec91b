"""A real cluster in one process: nodes on sockets of loopback and folders of their own, formed, and closed at the end.

Floor 6. For tests of services. It starts, ends and looks at nodes by what a service can call, and knows nothing more.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..config import Config
from ..errors import MeetError, NodeClosed
from ..messages import Role
from ..node import Node
from ..statemachine import StateMachine

__all__ = ["LOOK_INTERVAL", "PATIENCE", "Cluster"]

PATIENCE = 60.0
"""Seconds for anything at all: a machine may be slow, and nothing waits longer than it must."""

LOOK_INTERVAL = 0.01
"""Seconds from one look to the next, where a condition is waited for: no node can tell when it will hold."""

_HOST = "127.0.0.1"
_FIRST_PORT = 7000
_CONFIG = Config(node_timeout=1.0)


class Cluster:
    """`size` nodes, made one cluster by `start`, or by entering the context; for tests that run on asyncio.

    `state_machine` makes an empty machine for each start of a node. `directory` holds the nodes' folders; None: a
    temporary one, gone at the end. Bus ports are free ones. `nodes` keeps its order, and those that were killed.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        state_machine: Callable[[], StateMachine],
        directory: str | os.PathLike[str] | None = None,
        config: Config | None = None,
    ) -> None:
        """Raises ValueError for a size that can't be."""
        if size < 1:
            raise ValueError(f"a cluster of {size} nodes")
        self.config = config if config is not None else _CONFIG
        self.nodes: list[Node] = []
        self.machines: list[StateMachine] = []
        self._size = size
        self._new_machine = state_machine
        self._temporary = tempfile.TemporaryDirectory(prefix="raftfast-") if directory is None else None
        self._directory = Path(self._temporary.name if self._temporary is not None else os.fspath(directory or ""))

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Starts the nodes and makes them one cluster, in which all are voters, up to `max_voters`, and one leads.

        Raises TimeoutError where that takes too long; nothing is left running then.
        """
        try:
            for number in range(self._size):
                self.nodes.append(await self._start(number, 0))
            await self._form()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """All nodes end at once. Idempotent."""
        await asyncio.gather(*(node.abort() for node in self.nodes))
        if self._temporary is not None:
            await asyncio.to_thread(self._temporary.cleanup)

    async def _start(self, number: int, bus_port: int) -> Node:
        machine = self._new_machine()
        node = Node(
            self._directory / f"node-{number}",
            host=_HOST,
            port=_FIRST_PORT + number,
            bus_port=bus_port,
            state_machine=machine,
            config=self.config,
        )
        await node.start()
        self.machines[number : number + 1] = [machine]
        return node

    async def _form(self) -> None:
        """Who is alone is met, again and again: a busy machine may take longer than a joiner waits."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            for other in self.nodes[1:]:
                if other.status().standing == "singleton":
                    await self._meet(self.nodes[0], other, deadline)
            if await self._holds(self._is_formed, 5 * self.config.node_timeout):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"the nodes did not become a cluster\n{self.describe()}")

    async def _meet(self, node: Node, other: Node, deadline: float) -> None:
        while other.status().standing == "singleton":
            try:
                await node.meet(_HOST, other.port, other.bus_port)
                return
            except MeetError:
                if asyncio.get_running_loop().time() > deadline:
                    raise

    def _is_formed(self) -> bool:
        voters = min(len(self.nodes), self.config.max_voters)
        if len(self.nodes) == 1:
            return self.nodes[0].status().standing in ("singleton", "member")
        states = [node.cluster for node in self.nodes]
        same = all(len(state.nodes) == len(self.nodes) and state.size == voters for state in states)
        return same and self._agreed_leader() is not None

    async def add_node(self) -> Node:
        """One more node, once it is a member."""
        number = len(self.nodes)
        leader = await self.leader()
        node = await self._start(number, 0)
        self.nodes.append(node)
        await self._meet(leader, node, asyncio.get_running_loop().time() + PATIENCE)
        await self.wait_until(lambda: node.status().standing == "member")
        return node

    async def kill(self, node: Node) -> None:
        """Ends a node as a kill does: nothing is told, handed over or stored any more. It may be restarted."""
        self._number_of(node)
        await node.abort()

    async def restart(self, node: Node) -> Node:
        """Starts a node again from its folder, with a new state machine; returns it: an ended node is never started.

        One that runs is stopped gracefully before. It has the same ports, unless somebody took its bus port meanwhile.
        """
        number = self._number_of(node)
        await node.close()
        try:
            again = await self._start(number, node.bus_port)
        except OSError:
            again = await self._start(number, 0)
        self.nodes[number] = again
        return again

    def _number_of(self, node: Node) -> int:
        if node not in self.nodes:
            raise ValueError("that node is not, or no longer, one of this cluster's")
        return self.nodes.index(node)

    # ------------------------------------------------------------------ what is seen of it

    @property
    def live(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes if _is_live(node)]

    def machine(self, node: Node) -> StateMachine:
        """The state machine of a node."""
        return self.machines[self._number_of(node)]

    async def leader(self, timeout: float = PATIENCE) -> Node:
        """The leader that all live nodes agree on; waits until there is one. Raises TimeoutError."""
        await self.wait_until(lambda: self._agreed_leader() is not None, timeout)
        leader = self._agreed_leader()
        return leader if leader is not None else await self.leader(timeout)

    async def followers(self, timeout: float = PATIENCE) -> list[Node]:
        """The live nodes that follow the leader."""
        leader = await self.leader(timeout)
        return [node for node in self.live if node is not leader]

    def _agreed_leader(self) -> Node | None:
        live = self.live
        leading = [node for node in live if node.status().role is Role.LEADER]
        if len(leading) == 1 and all(node.status().leader_id == leading[0].node_id for node in live):
            return leading[0]
        return None

    def converged(self) -> bool:
        """Whether all live nodes have applied the same, and hold the same state."""
        statuses = [node.status() for node in self.live]
        applied = {index for status in statuses for index in (status.last_applied, status.commit_index)}
        return len(applied) == 1 and len({node.state_digest() for node in self.live}) == 1

    async def wait_until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Waits until `condition()` holds, looking a hundred times a second. Raises TimeoutError."""
        if not await self._holds(condition, timeout):
            raise TimeoutError(f"it did not come to that within {timeout} seconds\n{self.describe()}")

    async def _holds(self, condition: Callable[[], bool], timeout: float) -> bool:
        deadline = asyncio.get_running_loop().time() + timeout
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(LOOK_INTERVAL)
        return True

    def describe(self) -> str:
        """The status of each node, one a line."""
        return "\n".join(f"nodes[{number}]: {_line(node)}" for number, node in enumerate(self.nodes))


def _line(node: Node) -> str:
    if not _is_live(node):
        return "has ended"
    status = node.status()
    return (
        f"{status.node_id[:8]} {status.standing} {status.role.value}, term {status.term}, leader "
        f"{(status.leader_id or '-')[:8]}, applied {status.last_applied}, committed {status.commit_index}, "
        f"voters {sorted(voter[:8] for voter in status.voters)}"
    )


def _is_live(node: Node) -> bool:
    try:
        node.status()
    except NodeClosed:
        return False
    return True
