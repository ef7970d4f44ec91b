"""The same cluster for threads: tests that don't run on asyncio.

Floor 6. It owns a thread with an event loop, in which a `Cluster` lives, and passes calls on; nothing of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from .. import node as _node
from ..blocking import LoopThread, Node
from ..config import Config
from ..statemachine import StateMachine
from .cluster import LOOK_INTERVAL, PATIENCE, Cluster

__all__ = ["BlockingCluster"]

_T = TypeVar("_T")


class BlockingCluster:
    """What `Cluster` is, with nodes of `raftfast.blocking`. All nodes share one thread; call from any other."""

    def __init__(
        self,
        size: int = 3,
        *,
        state_machine: Callable[[], StateMachine],
        directory: str | os.PathLike[str] | None = None,
        config: Config | None = None,
    ) -> None:
        """Raises ValueError for a size that can't be."""
        self.nodes: list[Node] = []
        self._cluster = Cluster(size, state_machine=state_machine, directory=directory, config=config)
        self._thread = LoopThread(None, self._cluster.start, self._cluster.close)

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the nodes and makes them one cluster: see `Cluster.start`."""
        self._thread.start()
        self.nodes = [Node.over(node, self._thread) for node in self._cluster.nodes]

    def close(self) -> None:
        """All nodes end at once. Idempotent."""
        if self._thread.running:
            try:
                self._thread.run(self._cluster.close())
            finally:
                self._thread.stop()

    def add_node(self) -> Node:
        """One more node, once it is a member."""
        self.nodes.append(Node.over(self._thread.run(self._cluster.add_node()), self._thread))
        return self.nodes[-1]

    def kill(self, node: Node) -> None:
        """Ends a node as a kill does: nothing is told, handed over or stored any more. It may be restarted."""
        self._thread.run(self._cluster.kill(self._cluster.nodes[self._number_of(node)]))

    def restart(self, node: Node) -> Node:
        """Starts a node again from its folder: see `Cluster.restart`. Returns it: an ended node is never started."""
        number = self._number_of(node)
        again = self._thread.run(self._cluster.restart(self._cluster.nodes[number]))
        self.nodes[number] = Node.over(again, self._thread)
        return self.nodes[number]

    def _number_of(self, node: Node) -> int:
        if node not in self.nodes:
            raise ValueError("that node is not, or no longer, one of this cluster's")
        return self.nodes.index(node)

    def _faces(self, nodes: list[_node.Node]) -> list[Node]:
        return [self.nodes[self._cluster.nodes.index(node)] for node in nodes]

    # ------------------------------------------------------------------ what is seen of it

    @property
    def config(self) -> Config:
        """The settings of its nodes."""
        return self._cluster.config

    @property
    def live(self) -> list[Node]:
        """The nodes that run."""
        return self._faces(self._call(lambda: self._cluster.live))

    @property
    def machines(self) -> list[StateMachine]:
        """The state machines, in the order of the nodes. `node.call` reads one while nothing is applied."""
        return self._cluster.machines

    def machine(self, node: Node) -> StateMachine:
        """The state machine of a node."""
        return self.machines[self._number_of(node)]

    def leader(self, timeout: float = PATIENCE) -> Node:
        """The leader that all live nodes agree on; waits until there is one. Raises TimeoutError."""
        return self._faces([self._thread.run(self._cluster.leader(timeout))])[0]

    def followers(self, timeout: float = PATIENCE) -> list[Node]:
        """The live nodes that follow the leader."""
        return self._faces(self._thread.run(self._cluster.followers(timeout)))

    def converged(self) -> bool:
        """Whether all live nodes have applied the same, and hold the same state."""
        return self._call(self._cluster.converged)

    def wait_until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Waits until `condition()`, called in this thread, holds. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come to that within {timeout} seconds\n{self.describe()}")
            time.sleep(LOOK_INTERVAL)

    def describe(self) -> str:
        """The status of each node, one a line."""
        return self._call(self._cluster.describe)

    def _call(self, function: Callable[[], _T]) -> _T:
        """Calls it in the nodes' thread."""

        async def called() -> _T:
            return function()

        return self._thread.run(called())
