"""Opens the client port and closes it.

Floor 5. Never here: what a connection does.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import itertools
import secrets
from collections.abc import Callable

from . import client_commands, cluster_commands, config_commands, info, kv_commands, server_commands, transaction
from .command import Command, Port
from .connection import Connection
from .resp import Limits
from .served import ServedNode, ServedStore

__all__ = ["Server", "serve"]


def command_table(*, with_store: bool) -> dict[bytes, Command]:
    """All commands that are served, by name in upper case."""
    rows = [
        *client_commands.COMMANDS,
        *cluster_commands.COMMANDS,
        *config_commands.COMMANDS,
        *info.COMMANDS,
        *server_commands.COMMANDS,
        *transaction.COMMANDS,
        *(kv_commands.COMMANDS if with_store else [kv_commands.DBSIZE]),
    ]
    return {row.name.upper().encode(): row for row in sorted(rows, key=lambda row: row.name)}


class Server:
    """An open client port. `host` and `port` are what it is bound to."""

    def __init__(self, listening: asyncio.Server, port: Port, connections: set[Connection]) -> None:
        self._listening = listening
        self._port = port
        self._connections = connections

    @property
    def host(self) -> str:
        return self._port.host

    @property
    def port(self) -> int:
        return self._port.port

    @property
    def clients(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def close(self) -> None:
        """Stops listening and closes all connections: what was answered is still sent, what waits is given up.

        A connection whose client doesn't read within a second is cut. May be called again.
        """
        self._listening.close()
        for connection in list(self._connections):
            connection.close()
        gone = [connection.closed for connection in self._connections]
        if gone:
            await asyncio.wait(gone, timeout=_CLOSE_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        if self._connections:
            await asyncio.wait([connection.closed for connection in self._connections])


_CLOSE_SECONDS = 1.0


async def serve(
    node: ServedNode,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    kv: ServedStore | None = None,
    shutdown: Callable[[], object] | None = None,
    limits: Limits | None = None,
) -> Server:
    """Opens the client port of `node`; port 0 takes a free one.

    `kv` is the `KeyValueStore` that is the node's state machine, where its commands are to be served. `shutdown` is
    called, on the loop, when a client says SHUTDOWN; without it the command is refused. The node must be open, and stay
    so until the server is closed.

    **Raises** OSError where the port can't be bound.
    """
    shared = Port(
        node=node,
        store=kv,
        limits=limits or Limits(),
        commands=command_table(with_store=kv is not None),
        shutdown=shutdown,
        version=_version(),
        run_id=secrets.token_hex(20),
    )
    connections: set[Connection] = set()
    numbers = itertools.count(1)
    listening = await asyncio.get_running_loop().create_server(
        lambda: Connection(shared, next(numbers), connections), host, port, backlog=511
    )
    shared.host, shared.port = listening.sockets[0].getsockname()[:2]
    return Server(listening, shared, connections)


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("raftfast")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"  # run from a source tree that is not installed
