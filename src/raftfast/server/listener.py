"""Opens the client port and closes it.

Floor 5. Never here: what a connection does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import weakref
from collections.abc import Callable

from ..net import stop_listening
from ..version import VERSION
from . import (
    backup_commands,
    client_commands,
    cluster_commands,
    config_commands,
    info,
    kv_commands,
    server_commands,
    transaction,
)
from .command import Command, Port
from .connection import Connection
from .resp import Limits
from .served import ServedNode, ServedStore

__all__ = ["Server", "bind", "serve"]


def command_table(*, with_store: bool) -> dict[bytes, Command]:
    """All commands that are served, by name in upper case."""
    rows = [
        *backup_commands.COMMANDS,
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

    def __init__(
        self, listening: asyncio.Server, port: Port, connections: set[Connection], accepted: weakref.WeakSet[Connection]
    ) -> None:
        """`accepted`: all that were made, also those that have no transport yet and are none of `connections`."""
        self._listening = listening
        self._port = port
        self._connections = connections
        self._accepted = accepted

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

        A connection whose client doesn't read within a second is cut; so are all where this is cancelled. May be called
        again.
        """
        self._port.closed = True
        try:
            await stop_listening(self._listening)
            accepted = [connection for connection in self._accepted if not connection.closed.done()]
            for connection in accepted:
                connection.close()
            if accepted:
                await asyncio.wait([connection.closed for connection in accepted], timeout=_CLOSE_SECONDS)
        finally:
            for connection in list(self._accepted):
                connection.abort()
        if self._connections:
            await asyncio.wait([connection.closed for connection in self._connections])


_CLOSE_SECONDS = 1.0
_BACKLOG = 511


def bind(host: str, port: int) -> socket.socket:
    """A socket on the client port, before there is a node: should the port be taken, nothing else has happened yet.

    **Raises** OSError with one clear line.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # a name may have addresses of both kinds, or be of IPv6 alone
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number is not None and number > 0 else getattr(error, "strerror", None)
        where = f"[{host}]" if ":" in host else host or "*"
        shown = OSError(f"cannot listen on {where}:{port}: {reason or error}")
        shown.errno = number
        raise shown from error


async def serve(
    node: ServedNode,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    kv: ServedStore | None = None,
    shutdown: Callable[[], object] | None = None,
    limits: Limits | None = None,
    sock: socket.socket | None = None,
) -> Server:
    """Opens the client port of `node`; port 0 takes a free one, and a `sock` that `bind` gave is served in their place.

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
        version=VERSION,
        run_id=secrets.token_hex(20),
    )
    connections: set[Connection] = set()
    accepted: weakref.WeakSet[Connection] = weakref.WeakSet()
    numbers = itertools.count(1)
    loop = asyncio.get_running_loop()

    def connected() -> Connection:
        connection = Connection(shared, next(numbers), connections)
        accepted.add(connection)
        return connection

    if sock is not None:
        listening = await loop.create_server(connected, sock=sock, backlog=_BACKLOG, start_serving=False)
    else:
        listening = await loop.create_server(connected, host, port, backlog=_BACKLOG, start_serving=False)
    shared.host, shared.port = listening.sockets[0].getsockname()[:2]
    server = Server(listening, shared, connections, accepted)
    try:
        await listening.start_serving()  # a step of its own, as `net.listen` does
    except BaseException:
        await server.close()
        raise
    return server
