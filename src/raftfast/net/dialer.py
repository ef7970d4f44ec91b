"""Outbound links: exactly one to each node that is wanted, dialled again with back-off when it ends.

Floor 3. Never here: which nodes are wanted, what is said on a link, and when a silent one must go.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Mapping
from ssl import SSLContext
from typing import Protocol

from ..config import Config
from ..errors import NodeClosed
from .link import Link, LinkOwner, call_owner, reason_of
from .stats import LinkStats

__all__ = ["DialOwner", "Dialer", "backoff_delay"]

_FIRST_DELAY = 0.050
_LONGEST_DELAY = 1.0


class DialOwner(LinkOwner, Protocol):
    """A link owner that also hears of the dials that came to nothing, under the key that was dialled.

    Each dial gives either `link_opened` with a link of that `key`, or one `dial_failed`; a dial that was given up by
    `want` or `close` gives neither.
    """

    def dial_failed(self, key: str, reason: str, /) -> None: ...


def backoff_delay(failures: int, rng: random.Random, first: float, longest: float) -> float:
    """Seconds to wait before the next dial, after `failures` dials without success since the last one.

    Uniform in the upper half of a range that doubles: [first, 2 first), [2 first, 4 first), … up to
    [longest / 2, longest). Nodes that lost the same peer at once come back apart.
    """
    # the exponent is bounded: a peer may be away for months
    upper = min(longest, first * 2.0 ** min(failures + 1, 64))
    return rng.uniform(max(upper / 2, min(first, longest)), upper)


class _Target:
    """One thing dialled: kept up where `kept`, otherwise dialled once."""

    __slots__ = ("address", "failures", "kept", "key", "link", "task")

    def __init__(self, key: str, address: tuple[str, int], *, kept: bool) -> None:
        self.key = key
        self.address = address
        self.kept = kept
        self.failures = 0
        self.link: Link | None = None
        self.task: asyncio.Task[None] | None = None


class Dialer:
    """Keeps one outbound link to each wanted address.

    `rng` gives the jitter; `connect_timeout` (seconds; None is T/2) covers names, TCP and TLS together; `backoff` is
    the first and the longest delay between dials in seconds (PROTOCOL 9).

    Invariants:

    1. A key has at most one link, or one dial under way.
    2. After `close` there is no task and no socket of it.
    """

    def __init__(
        self,
        owner: DialOwner,
        config: Config,
        *,
        rng: random.Random,
        ssl: SSLContext | None = None,
        stats: LinkStats | None = None,
        connect_timeout: float | None = None,
        backoff: tuple[float, float] = (_FIRST_DELAY, _LONGEST_DELAY),
    ) -> None:
        self.stats = LinkStats() if stats is None else stats
        self._owner = owner
        self._config = config
        self._rng = rng
        self._ssl = ssl
        self._connect_timeout = config.node_timeout / 2 if connect_timeout is None else connect_timeout
        self._backoff = backoff
        self._wanted: dict[str, _Target] = {}
        self._once: dict[str, _Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # also links that are no longer anybody's target, for as long as their sockets live
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._closed = False

    def want(self, targets: Mapping[str, tuple[str, int]]) -> None:
        """Makes `targets`, key to (host, bus port), the links that are kept, and no others.

        What is new is dialled at once; what is gone, or has another address, is closed. **Raises** NodeClosed after
        `close`.
        """
        self._check_open()
        for key, target in list(self._wanted.items()):
            if key not in targets:
                self._give_up(self._wanted.pop(key), "no longer wanted")
            elif target.address != tuple(targets[key]):
                self._give_up(self._wanted.pop(key), "its address changed")
        for key, (host, port) in targets.items():
            if key not in self._wanted:
                self._wanted[key] = self._start(_Target(key, (host, port), kept=True))

    def dial_once(self, key: str, host: str, port: int) -> None:
        """Dials once, for a MEET; when the link ends, or the dial fails, that is all.

        **Raises** ValueError for a key that is wanted, being dialled or open; NodeClosed after `close`.
        """
        self._check_open()
        before = self._once.get(key)
        over = before is None or (before.link is not None and before.link.close_reason is not None)
        if not over or key in self._wanted:
            raise ValueError(f"{key} is dialled already")
        self._once[key] = self._start(_Target(key, (host, port), kept=False))

    def adopt(self, link: Link, key: str, host: str, port: int) -> bool:
        """Makes an open link of `dial_once` the kept one of `key`, at that address; whether it did.

        After a MEET the same link serves on. It is refused, and nothing changes, where `key` has an open link.
        """
        self._check_open()
        target = self._once.get(link.key or "")
        other = self._wanted.get(key)
        if target is None or target.link is not link or not link.opened or link.close_reason is not None:
            return False
        if other is not None:
            if other.link is not None and other.link.opened and other.link.close_reason is None:
                return False
            self._give_up(other, "another link serves")
        del self._once[target.key]
        target.key, target.address, target.kept = key, (host, port), True
        link.key = key
        self._wanted[key] = target
        return True

    def succeeded(self, key: str) -> None:
        """The link of `key` proved good (its HI came): the next delay is the first again. Unknown keys: nothing."""
        if key in self._wanted:
            self._wanted[key].failures = 0

    async def close(self, reason: str = "the node is closing") -> None:
        """Dials no more and closes all links; returns when tasks and sockets are gone, in `LINGER` seconds or less.

        Cancelled, it cuts what is left.
        """
        self._closed = True
        for target in (*self._wanted.values(), *self._once.values()):
            self._give_up(target, reason)
        self._wanted.clear()
        self._once.clear()
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
            for link in list(self._links):
                await link.wait_released()
        except asyncio.CancelledError:
            for link in list(self._links):
                link.abort(reason)
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise NodeClosed("the dialer is closed")

    def _start(self, target: _Target) -> _Target:
        task = asyncio.get_running_loop().create_task(self._keep(target), name=f"raftfast dial {target.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        target.task = task
        return target

    def _give_up(self, target: _Target, reason: str) -> None:
        # The link is closed before the task ends: one that connects in this very turn must not reach the owner.
        if target.link is not None:
            target.link.close(reason)
        if target.task is not None:
            target.task.cancel()

    async def _keep(self, target: _Target) -> None:
        """A target's whole life: dial, wait for the link's end, wait a little, again."""
        while True:
            await self._dial(target)
            if not target.kept:
                # its owner may have dialled anew already, as it was told
                if self._once.get(target.key) is target:
                    del self._once[target.key]
                return
            delay = backoff_delay(target.failures, self._rng, *self._backoff)
            target.failures += 1
            await asyncio.sleep(delay)

    async def _dial(self, target: _Target) -> None:
        """One dial; returns when it failed or its link has ended."""
        link = target.link = Link(
            self._owner,
            outbound=True,
            max_frame=self._config.max_frame,
            max_buffer=self._config.max_link_buffer,
            key=target.key,
            stats=self.stats,
        )
        self._links.add(link)
        self.stats.dials += 1
        try:
            await self._connect(link, target.address)
        except BaseException as exc:
            # whatever it was (refused, no such name, no TLS, a port that is none): a dial that failed, tried again
            link.abort("no connection in time" if isinstance(exc, TimeoutError) else reason_of(exc))
            # uvloop, when a connect is cancelled just as it succeeds, closes the socket and never says so
            link.connection_lost(None)
            if not isinstance(exc, Exception):
                raise
        if link.opened:
            await link.wait_released()
            return
        self.stats.dial_failures += 1
        call_owner(self._owner.dial_failed, target.key, link.close_reason or "failed")

    async def _connect(self, link: Link, address: tuple[str, int]) -> None:
        """Connects; names are resolved off the loop, and literal addresses need no resolving."""
        async with asyncio.timeout(self._connect_timeout):
            await asyncio.get_running_loop().create_connection(lambda: link, *address, ssl=self._ssl)
