"""An owner that writes down what it is told and lets a test wait for it, and a transport that is no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raftfast.config import Config
from raftfast.messages import AppendEntries, Hello, Message
from raftfast.net import Link

ID = "a" * 40
HELLO = Hello(ID, "127.0.0.1:7000@17000", "-")
CONFIG = Config(node_timeout=10.0)
PATIENCE = 90.0


def entries(number: int, size: int = 1000) -> AppendEntries:
    """An AppendEntries of `number` lines of about `size` bytes."""
    line = b"1 APP - " + b"x" * size
    return AppendEntries(ID, 1, 0, 0, 0, (1,) * number, (line,) * number)


class Recorder:
    """A `DialOwner`. `on_...` hooks run after the note is taken; `calling` is true inside a callback."""

    def __init__(self) -> None:
        self.opened: list[Link] = []
        self.messages: list[tuple[Link, Message]] = []
        self.closed: list[tuple[Link, str]] = []
        self.failed: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.on_opened: Callable[[Link], None] = lambda link: None
        self.on_messages: Callable[[Link, list[Message]], None] = lambda link, messages: None
        self.on_closed: Callable[[Link], None] = lambda link: None
        self.on_failed: Callable[[str], None] = lambda key: None
        self._changed = asyncio.Event()

    def link_opened(self, link: Link) -> None:
        self._note("opened")
        self.opened.append(link)
        self.on_opened(link)

    def link_messages(self, link: Link, messages: list[Message]) -> None:
        self._note("messages")
        assert messages, "an empty list was delivered"
        assert link in self.opened, "messages of a link that was not opened"
        assert link not in [gone for gone, _ in self.closed], "messages of a closed link"
        self.messages.extend((link, message) for message in messages)
        self.on_messages(link, messages)

    def link_closed(self, link: Link, reason: str) -> None:
        self._note("closed")
        assert link in self.opened, "an end without a beginning"
        assert link not in [gone for gone, _ in self.closed], "ended twice"
        self.closed.append((link, reason))
        self.on_closed(link)

    def dial_failed(self, key: str, reason: str) -> None:
        self._note("failed")
        self.failed.append((key, reason))
        self.on_failed(key)

    def got(self) -> list[Message]:
        return [message for _, message in self.messages]

    def reasons(self) -> list[str]:
        return [reason for _, reason in self.closed]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits, callback by callback, until `condition()` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _note(self, what: str) -> None:
        self.told.append(what)
        self._changed.set()


class NoSocket(asyncio.Transport):
    """Keeps what is written; `waiting` is what it claims to have unsent."""

    def __init__(self, link: Link, peer: Any = ("10.0.0.2", 4242), local: Any = ("10.0.0.1", 17000)) -> None:
        super().__init__({"peername": peer, "sockname": local})
        self.writes: list[bytes] = []
        self.waiting = 0
        self.ended: str | None = None
        self._link = link

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def close(self) -> None:
        self._finish("close")

    def abort(self) -> None:
        self._finish("abort")

    def _finish(self, how: str) -> None:
        if self.ended is None:
            asyncio.get_running_loop().call_soon(self._link.connection_lost, None)
        self.ended = how


def new_link(owner: Recorder, *, outbound: bool = False, max_frame: int = 1 << 20, max_buffer: int = 1 << 20) -> Link:
    return Link(owner, outbound=outbound, max_frame=max_frame, max_buffer=max_buffer)


def open_link(owner: Recorder, **limits: Any) -> tuple[Link, NoSocket]:
    """A link that is open on a `NoSocket`."""
    link = new_link(owner, **limits)
    transport = NoSocket(link)
    link.connection_made(transport)
    return link, transport
