"""One TCP connection of the bus: bytes in become messages, messages become bytes out.

Floor 3. A link knows frames, limits and its own end, and tells its owner. Never here: what a message means, who the
peer is (the owner finds out and may note it in `node_id`), dialling again, and timers of the protocol (PROTOCOL 9's
silent links are found and closed by their owner).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from ..errors import ProtocolError
from ..hot import wire
from ..messages import Message
from .stats import LinkStats

__all__ = ["LINGER", "Link", "LinkOwner", "call_owner", "reason_of"]

LINGER = 1.0
"""Seconds that a link closed by `close` may take to send what waits; then it is cut."""

_HIGH_WATER = 1 << 20

_ids = itertools.count(1)


class LinkOwner(Protocol):
    """Who is told of a link's life, always from the event loop and in this order.

    `link_opened` once, `link_messages` any number of times, never with an empty list, `link_closed` once, with a
    reason for people. None of them is called from inside a method of the link, so an owner may send to and close
    links while it walks over them. They should not raise: one that does is reported to the loop's exception handler,
    and its link is cut.
    """

    def link_opened(self, link: Link, /) -> None: ...

    def link_messages(self, link: Link, messages: list[Message], /) -> None: ...

    def link_closed(self, link: Link, reason: str, /) -> None: ...


class Link(asyncio.Protocol):
    """A connection that carries frames. Made on the event loop, by a listener or a dialer.

    Invariants:

    1. The owner hears of it only after it is connected, and then exactly one end.
    2. After `close` or `abort` no message is delivered and none is taken to be sent.
    3. The bytes that wait to be sent never exceed `max_buffer`.
    4. A fault of the peer ends this link and nothing else.
    """

    __slots__ = (
        "__weakref__",
        "_decoder",
        "_linger",
        "_loop",
        "_owner",
        "_paused",
        "_released",
        "_told_closed",
        "_transport",
        "bytes_in",
        "bytes_out",
        "close_reason",
        "created_ms",
        "id",
        "key",
        "local_ip",
        "max_buffer",
        "max_frame",
        "messages_in",
        "messages_out",
        "node_id",
        "opened",
        "outbound",
        "peer_ip",
        "stats",
    )

    def __init__(
        self,
        owner: LinkOwner,
        *,
        outbound: bool,
        max_frame: int,
        max_buffer: int,
        key: str | None = None,
        stats: LinkStats | None = None,
    ) -> None:
        self.id: int = next(_ids)
        """Never used twice in a process."""
        self.outbound = outbound
        self.key = key
        """What was dialled, by the dialer's name for it; None on an inbound link."""
        self.node_id: str | None = None
        """The node that the owner has bound the link to; the link itself never looks at it."""
        self.max_frame = max_frame
        self.max_buffer = max_buffer
        self.created_ms = time.time_ns() // 1_000_000
        """Wall-clock milliseconds of its making, for people; nothing is computed from it."""
        self.peer_ip = ""
        self.local_ip = ""
        self.opened = False
        """Whether it was ever connected, and the owner told."""
        self.close_reason: str | None = None
        """Why it ended; None while it has not."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in = 0
        self.messages_out = 0
        self.stats = LinkStats() if stats is None else stats
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._decoder = wire.FrameDecoder(max_frame)
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._told_closed = False
        self._linger: asyncio.TimerHandle | None = None
        self._released: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        where = f"to {self.key or self.peer_ip}" if self.outbound else f"from {self.peer_ip}"
        state = self.close_reason or ("open" if self.opened else "new")
        return f"<Link {self.id} {where}: {state}>"

    # What the owner does with it

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def writable(self) -> bool:
        """Whether it is open and the peer takes what is sent: no more than about a megabyte waits."""
        return self._is_open() and not self._paused

    def send(self, message: Message) -> bool:
        """Sends one message; whether it was handed to the socket.

        It was not where the link is closed, or is closed now because the message does not fit the send buffer.
        **Raises** ProtocolError for a message that has no bytes or more than `max_frame`; nothing was sent then.
        """
        if not self._is_open():
            return self._drop(1)
        return self.send_frame(wire.encode(message), message)

    def send_many(self, messages: Sequence[Message]) -> bool:
        """Sends messages in order by one write: all or, as `send` says, none."""
        if not self._is_open():
            return self._drop(len(messages))
        if not messages:
            return True
        frames = [wire.encode(message) for message in messages]
        self._check_frame(max(map(len, frames)))
        return self._write(frames[0] if len(frames) == 1 else b"".join(frames), messages)

    def send_frame(self, frame: bytes, message: Message) -> bool:
        """As `send`, where the caller has the frame of `message` already: one frame for many links is made once."""
        if not self._is_open():
            return self._drop(1)
        self._check_frame(len(frame))
        return self._write(frame, (message,))

    def close(self, reason: str) -> None:
        """Ends the link; what waits is still sent, for up to `LINGER` seconds. Again: nothing."""
        if self.close_reason is not None:
            return
        self._end(reason)
        if self._transport is not None:
            self._transport.close()
            # a peer that reads nothing must not keep the socket
            self._linger = self._loop.call_later(LINGER, self._cut)

    def abort(self, reason: str) -> None:
        """Ends the link at once; what waits is thrown away. After `close`: cuts the sending of the rest short."""
        if self.close_reason is None:
            self._end(reason)
        self._cut()

    async def wait_released(self) -> None:
        """Returns when the link has ended, its owner has been told, and the socket is gone."""
        await asyncio.shield(self._released)

    # What asyncio does with it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the link, unless it was closed while it was being dialled."""
        self._transport = cast(asyncio.Transport, transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.peer_ip, self.local_ip = _ip(peer), _ip(local)
        if self.outbound and peer is not None and peer == local:
            # TCP can connect a port to itself when nobody listens there; kept, it would hold the peer's own port
            self.close_reason = self.close_reason or "connected to itself"
        if self.close_reason is not None:
            self._cut()
            return
        _set_options(transport.get_extra_info("socket"))
        self._transport.set_write_buffer_limits(high=min(_HIGH_WATER, self.max_buffer))
        self.opened = True
        self.stats.links_opened += 1
        self._tell(self._owner.link_opened, self)

    def data_received(self, data: bytes) -> None:
        """Takes bytes; hands on the whole messages. A fault in them ends the link, after what came before it."""
        if self.close_reason is not None:
            return
        self.bytes_in += len(data)
        self.stats.bytes_in += len(data)
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as fault:
            self._deliver(list(getattr(fault, "messages", ())))
            self._on_fault(f"protocol error: {fault}")
        else:
            self._deliver(messages)

    def eof_received(self) -> bool:
        """The peer ended its side, so the link ends; half-closed connections are of no use here."""
        if self.close_reason is None:
            inside = " inside a frame" if self._decoder.buffered else ""
            self.close(f"closed by the peer{inside}")
        return False

    def pause_writing(self) -> None:
        """More than the high-water mark waits."""
        self._paused = True

    def resume_writing(self) -> None:
        """Little waits again."""
        self._paused = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is gone. More than once is no harm."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self.close_reason is None:
            self.close_reason = f"lost: {reason_of(exc)}" if exc is not None else "closed"
        self._tell_closed()
        self._transport = None
        self._release()

    # Inside

    def _is_open(self) -> bool:
        return self.close_reason is None and self._transport is not None

    def _drop(self, number: int) -> bool:
        self.stats.unsent += number
        return False

    def _check_frame(self, length: int) -> None:
        if length > self.max_frame:
            raise ProtocolError(f"a frame of {length} bytes is longer than max_frame, {self.max_frame}")

    def _write(self, data: bytes, messages: Sequence[Message]) -> bool:
        transport = cast(asyncio.Transport, self._transport)
        if len(data) > self.max_buffer - transport.get_write_buffer_size():
            self.stats.buffer_limit_exceeded += 1
            self.stats.faults.warn(self.peer_ip, f"send buffer limit of {self.max_buffer} bytes", self._loop.time())
            self.abort("send buffer limit")
            return self._drop(len(messages))
        transport.write(data)
        self.bytes_out += len(data)
        self.messages_out += len(messages)
        self.stats.bytes_out += len(data)
        self.stats.sent(messages)
        return True

    def _deliver(self, messages: list[Message]) -> None:
        if messages:
            self.messages_in += len(messages)
            self.stats.received(messages)
            self._tell(self._owner.link_messages, self, messages)

    def _on_fault(self, reason: str) -> None:
        self.stats.protocol_errors += 1
        self.stats.faults.warn(self.peer_ip, reason, self._loop.time())
        self.close(reason)

    def _end(self, reason: str) -> None:
        """Marks the end. The owner is told in the loop's next turn: it may be in the middle of a walk over links."""
        self.close_reason = reason
        if self.opened:
            self._loop.call_soon(self._tell_closed)
        elif self._transport is None:
            self._release()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _release(self) -> None:
        if not self._released.done():
            self._released.set_result(None)

    def _tell_closed(self) -> None:
        if self.opened and not self._told_closed:
            self._told_closed = True
            self.stats.links_closed += 1
            call_owner(self._owner.link_closed, self, self.close_reason or "closed")

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        if not call_owner(callback, *args):
            self.abort("its owner failed")


def call_owner(callback: Callable[..., None], *args: object) -> bool:
    """Calls an owner; whether it returned. An exception goes to the loop's exception handler, not into the network."""
    try:
        callback(*args)
    except Exception as exc:
        name = getattr(callback, "__qualname__", repr(callback))
        asyncio.get_running_loop().call_exception_handler({"message": f"{name} of a link's owner", "exception": exc})
        return False
    return True


def reason_of(exc: BaseException) -> str:
    """An error of the network in the system's own words, without the "[Errno …]" in front."""
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno)
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__


def _ip(address: Any) -> str:
    """The ip of a socket's address, in the form in which it is announced: no zone, IPv4 never wrapped in IPv6."""
    if not address:
        return ""
    host = str(address[0]).partition("%")[0]
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
        return str(mapped or host)
    return host


def _set_options(sock: Any) -> None:
    # The peer may have gone already, and some systems refuse options on such a socket: its end is about to be told.
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
