"""Sessions: commands that are applied exactly once, whatever is sent again.

Floor 4, a part of the node. What makes it exactly once is the table in the replicated state; this file only numbers
commands and repeats what was not decided.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from .cluster.entries import MAX_TERMLESS_BYTES, app_entry
from .engine import Engine
from .errors import Busy, Dropped, Expired, ProposalTimeout, RaftError, TimedOut
from .member.proposals import Client

__all__ = ["Session", "check_command", "gave_up"]


def check_command(command: bytes) -> None:
    """Raises TypeError or EntryError for what can't be proposed, whatever is beside it."""
    if not isinstance(command, bytes):
        raise TypeError(f"a command is bytes, not {type(command).__name__}")
    if len(command) > MAX_TERMLESS_BYTES // 4:
        app_entry("0" * 40, (1 << 64) - 1, command)


def gave_up(timeout: float | None, sent: bool) -> TimedOut:
    """What the caller of a proposal is told whose `timeout` is over; `sent`: whether any of it may take effect."""
    if sent:
        return ProposalTimeout(f"not decided within {timeout} seconds; it may still take effect")
    return TimedOut(f"no room within {timeout} seconds; nothing was sent")


class Session:
    """A session of a node: each command is applied exactly once, whatever is sent again (PROTOCOL 6.3).

    Made by `Node.session()`. A context manager; it is opened in the log. Commands may be outstanding side by side, up
    to the session's window.
    """

    def __init__(self, running: Callable[[], Engine], window: int, client_id: str) -> None:
        """`running` gives the node's engine, or raises NodeClosed."""
        self._running = running
        self._window = window
        self._client = Client(client_id)
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._decide(0, b"", True, set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is sent, and nothing ends: what is proposed afterwards is applied exactly once all the same.

        A session that is used no more is closed when the table needs its place.
        """

    async def propose(self, command: bytes, *, timeout: float | None = None, wait: bool = False) -> bytes | None:
        """Proposes a command, again and again until it is decided, and returns the state machine's answer.

        `timeout` (seconds) gives up waiting, with `ProposalTimeout`; with `TimedOut` while it waited for room. `wait`:
        where too much is outstanding, in the session or in the node, wait for room in place of `Busy`. Raises
        UnknownOutcome where the session was closed meanwhile.
        """
        check_command(command)
        sent: set[int] = set()
        try:
            async with asyncio.timeout(timeout):
                sequence = await self._take_sequence(wait)
                try:
                    return await self._decide(sequence, command, wait, sent)
                finally:
                    self._take_back(sequence)
        except TimeoutError:
            raise gave_up(timeout, bool(sent)) from None

    async def propose_many(self, commands: Iterable[bytes], *, timeout: float | None = None) -> list[bytes | None]:
        """Proposes commands side by side, waiting for room where need be; returns their answers in order.

        The first error is raised, after all are decided. Where one can't be proposed at all (TypeError, EntryError)
        none is. `timeout` as in `propose`, for all together.
        """
        commands = list(commands)
        for command in commands:
            check_command(command)
        calls: list[asyncio.Task[bytes | None]] = []
        sent: set[int] = set()
        try:
            async with asyncio.timeout(timeout):
                for command in commands:
                    sequence = await self._take_sequence(wait=True)
                    call = asyncio.ensure_future(self._decide(sequence, command, True, sent))
                    call.add_done_callback(functools.partial(self._ended, sequence))
                    calls.append(call)
                await asyncio.gather(*calls, return_exceptions=True)
        except TimeoutError:
            raise gave_up(timeout, bool(sent)) from None
        finally:
            for call in calls:
                call.cancel()
        return [call.result() for call in calls]

    async def _take_sequence(self, wait: bool) -> int:
        while not self._client.has_room(self._window):
            if not wait:
                raise Busy(f"{self._window} commands of this session are outstanding")
            await self._room.wait()
        return self._client.take_sequence()

    def _take_back(self, sequence: int) -> None:
        self._client.done(sequence)
        self._room.set()
        self._room.clear()

    def _ended(self, sequence: int, call: asyncio.Task[bytes | None]) -> None:
        """Not at the end of its body: cancelled before its first step, a task has none. Also looks at its error, which
        nobody else does where the caller has given up.
        """
        self._take_back(sequence)
        _ = call.cancelled() or call.exception()

    async def _decide(self, sequence: int, command: bytes, wait: bool, sent: set[int]) -> bytes | None:
        """`sent`: the numbers of which a copy may be, or come to be, in a log."""
        earlier = False  # whether an earlier copy may be in a log: then no error may say that there is no effect
        while True:
            try:
                engine = self._running()
                future: asyncio.Future[bytes | None] = engine.loop.create_future()
                engine.member.propose_in_session(self._client, sequence, command, future, engine.loop.time())
                engine.schedule()
                sent.add(sequence)
                return await future
            except Busy:
                if not wait and not earlier:
                    raise
                await engine.room.wait()
            except Expired:
                earlier = True  # the same sequence again is the same command again
            except Dropped:
                if not earlier:
                    sent.discard(sequence)
            except RaftError as error:
                error.may_take_effect = error.may_take_effect or earlier
                raise
