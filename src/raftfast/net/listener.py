"""The bus port: takes connections and makes a link of each.

Floor 3. Never here: who may connect, and how long a link may stay unnamed; those need the cluster's state, which is
the owner's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import weakref
from ssl import SSLContext

from ..config import Config
from ..errors import ConfigError
from .link import Link, LinkOwner, reason_of
from .stats import LinkStats

__all__ = ["Listener", "check_free", "listen", "stop_listening"]


class Listener:
    """An open bus port and the links that came in through it. Made by `listen`."""

    def __init__(self, owner: LinkOwner, config: Config, stats: LinkStats) -> None:
        self._owner = owner
        self._config = config
        self.stats = stats
        self._server: asyncio.Server | None = None
        self._closed = False
        # weak: a connection that dies before its link is made whole (TLS) is told to nobody
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 once closed. Where every address has its own free port, that of IPv4."""
        sockets = () if self._server is None else self._server.sockets
        return int(min(sockets, key=lambda each: each.family).getsockname()[1]) if sockets else 0

    async def close(self, reason: str = "the node is closing") -> None:
        """Listens no more and closes its links; returns when their sockets are gone, in `LINGER` seconds or less.

        Cancelled, it closes the port all the same, and cuts what is left.
        """
        self._closed = True
        try:
            if self._server is not None:
                await stop_listening(self._server)
            links = list(self._links)
            for link in links:
                link.close(reason)
            for link in links:
                await link.wait_released()
        except asyncio.CancelledError:
            for link in list(self._links):
                link.abort(reason)
            raise

    def _accept(self) -> Link:
        link = Link(
            self._owner,
            outbound=False,
            max_frame=self._config.max_frame,
            max_buffer=self._config.max_link_buffer,
            stats=self.stats,
        )
        self._links.add(link)
        if self._closed:
            link.close("the port is closed")
        return link

    async def _open(self, host: str, port: int, ssl: SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        # Not in one step: asyncio, cancelled while it begins to serve, leaves the port open and nobody to close it.
        self._server = await loop.create_server(self._accept, host or None, port, ssl=ssl, start_serving=False)
        try:
            await self._server.start_serving()
        except BaseException:
            await self.close()
            raise


async def listen(
    host: str,
    port: int,
    owner: LinkOwner,
    config: Config,
    *,
    ssl: SSLContext | None = None,
    stats: LinkStats | None = None,
) -> Listener:
    """Opens the bus port and makes a link, told to `owner`, of each connection that comes.

    An empty `host` is every address; port 0 a free one (see `Listener.port`). **Raises** ConfigError for a number
    that is no port, OSError with one clear line where the port can't be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"a port must be from 0 to 65535, not {port}")
    listener = Listener(owner, config, LinkStats() if stats is None else stats)
    try:
        await listener._open(host, port, ssl)
    except (OSError, UnicodeError) as exc:
        raise _one_line(host, port, exc) from exc
    return listener


async def stop_listening(server: asyncio.Server) -> None:
    """Closes a server's port, also where it is cancelled; what was accepted just now gets its transport before that.

    asyncio alone, once its server is closed, drops it unclosed.
    """
    loop = asyncio.get_running_loop()
    for each in server.sockets:
        loop.remove_reader(each.fileno())
    try:
        await asyncio.sleep(0)
    finally:
        server.close()


async def check_free(host: str, port: int) -> None:
    """Raises OSError, as `listen` would, where the port is taken now or not allowed; opens nothing.

    For who has something to lose before it can listen. What else may be wrong is left for `listen` to tell.
    """
    flags, loop = socket.AI_PASSIVE, asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as exc:
        raise _one_line(host, port, exc) from exc
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as exc:
            if exc.errno in (errno.EADDRINUSE, errno.EACCES):
                raise _one_line(host, port, exc) from exc


def _one_line(host: str, port: int, exc: OSError | UnicodeError) -> OSError:
    """The error in one line, its `errno` kept."""
    shown = f"[{host}]" if ":" in host else host or "*"
    error = OSError(f"cannot listen on {shown}:{port}: {reason_of(exc)}")
    error.errno = exc.errno if isinstance(exc, OSError) else None
    return error
