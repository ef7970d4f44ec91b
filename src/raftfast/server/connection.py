"""One client's connection: bytes to commands, commands to replies, in the order in which they came.

Floor 5. Never here: what any one command does.

Commands run one after another, with one exception: writes that follow each other are proposed without waiting, so a
pipeline of them is one batch of the log. A read waits for the writes before it and for a barrier that began after it
came; the reads that came together share that barrier, and it runs while the writes do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import cast

from ..errors import Busy
from . import resp
from .command import (
    Client,
    Command,
    CommandError,
    Kind,
    Port,
    error_reply,
    find_command,
    look_away,
    waiting_error_reply,
    write_reply,
)
from .transaction import enqueue

__all__ = ["Connection"]

_logger = logging.getLogger("raftfast.server")

_FLUSH_BYTES = 64 << 10
_TURN_STEPS = 1024
_LINGER_SECONDS = 2.0
_HTTP_WORDS = (b"POST", b"HOST:")


class Connection(asyncio.Protocol):
    """Invariants: 1. while writes are outstanding nothing but writes is begun. 2. `_queue` holds commands in the order
    in which they came; `_begun` counts those that have left it. 3. replies leave in that order.
    """

    def __init__(self, port: Port, client_id: int, connections: set[Connection]) -> None:
        self._port = port
        self._connections = connections
        self._limits = port.limits
        self._client = Client(client_id, port)
        self._parser = resp.RequestParser(port.limits)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[list[bytes]] = deque()
        self._begun = 0
        self._backlog_bytes = 0
        self._outstanding: deque[asyncio.Future[bytes | None] | bytes] = deque()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._task: asyncio.Task[bytes] | None = None
        self._barrier: asyncio.Future[str | None] | None = None
        self._barrier_end = 0  # the barrier, passed or not, covers commands numbered below this
        self._output_full = False
        self._reading = True
        self._input_ended = False
        self._advance_is_due = False
        self._linger: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._port.closed:
            self._client.closing = True
            self._transport.abort()
            return
        self._port.connections_received += 1
        if len(self._port.clients) >= self._limits.max_clients:
            self._port.connections_rejected += 1
            self._client.closing = True
            self._transport.write(resp.error("ERR max number of clients reached"))
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        peer, local = self._transport.get_extra_info("peername"), self._transport.get_extra_info("sockname")
        self._client.ipv6 = isinstance(peer, tuple) and len(peer) == 4
        self._client.address, self._client.local_address = _endpoint(peer), _endpoint(local)
        self._port.clients[self._client.id] = self._client
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._client.closing = True
        if self._linger is not None:
            self._linger.cancel()
        self._port.clients.pop(self._client.id, None)
        self._connections.discard(self)
        self._queue.clear()
        self._out.clear()
        if self._task is not None:
            self._task.cancel()
        for waiting in self._outstanding:
            if isinstance(waiting, asyncio.Future):
                # the proposal goes on; somebody must look at its outcome, or asyncio complains
                waiting.add_done_callback(look_away)
        self._outstanding.clear()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._client.closing:
            return
        self._queue.extend(self._parser.feed(data))
        self._backlog_bytes += len(data)
        self._client.last_at = time.monotonic()
        self._advance()

    def eof_received(self) -> bool:
        if self._linger is not None:
            return False  # all is read that will ever come: asyncio may close
        self._input_ended = True
        self._advance()
        return True  # what was asked is still answered; `_advance` closes after that

    def pause_writing(self) -> None:
        self._output_full = True
        self._set_reading()

    def resume_writing(self) -> None:
        self._output_full = False
        self._advance()

    def close(self) -> None:
        """Closes once what was written is sent; commands that still wait are not answered."""
        self._client.closing = True
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- the order of things -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Runs what can run now, sends what is answered, and sees whether more should be read."""
        try:
            steps = 0
            while self._queue and self._task is None and not self._output_full and not self._client.closing:
                if steps == _TURN_STEPS:
                    self._advance_later()
                    break
                if not self._step(self._queue[0]):
                    break
                steps += 1
                if self._out_bytes >= _FLUSH_BYTES:
                    self._flush()
            self._flush()
            self._close_if_answered()
            self._set_reading()
        except Exception:
            _logger.exception("a client's connection failed")
            self.abort()

    def _advance_later(self) -> None:
        """Goes on in the next turn of the loop: one client's long pipeline must not stop the node's heartbeats."""
        if not self._advance_is_due:
            self._advance_is_due = True
            asyncio.get_running_loop().call_soon(self._on_later)

    def _on_later(self) -> None:
        self._advance_is_due = False
        self._advance()

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0

    def _close_if_answered(self) -> None:
        """Where nothing more is to come, by the client's wish or its fault, closes after the last reply."""
        if not self._queue:
            self._backlog_bytes = 0
        if self._linger is not None:
            return
        if self._client.closing:
            self.close()
        elif self._queue or self._outstanding or self._task is not None or self._output_full:
            return
        elif self._parser.fault is not None:
            self._out.append(resp.error(f"ERR {self._parser.fault}"))
            self._close_after_fault()
        elif self._input_ended:
            self.close()

    def _close_after_fault(self) -> None:
        """Ends our side, and for a while drops what still comes: a socket closed over unread bytes is reset, and a
        client in the middle of a value that is too long would see that and never the error.
        """
        if self._input_ended or self._transport is None:
            self.close()
            return
        self._client.closing = True
        self._flush()
        self._linger = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        self._transport.write_eof()

    def _set_reading(self) -> None:
        wanted = not self._output_full and self._backlog_bytes <= self._limits.max_backlog_bytes
        if wanted == self._reading or self._input_ended or self._transport is None or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _step(self, arguments: list[bytes]) -> bool:
        """Runs, or begins, the command at the head of the queue; False where it has to wait."""
        try:
            command = find_command(self._port, arguments)
        except CommandError as refusal:
            if self._outstanding:
                return False
            if arguments[0].upper() in _HTTP_WORDS:
                self._refuse_http()
                return False
            self._client.transaction_broken = self._client.transaction is not None
            self._answer(arguments, resp.error(str(refusal)))
            return True
        self._client.last_command = command.name
        if command.kind is Kind.WRITE and self._client.transaction is None:
            return self._begin_write(command, arguments)
        if command.kind is Kind.READ and self._client.transaction is None and not self._barrier_passed():
            return False
        if self._outstanding:
            return False
        if self._client.transaction is not None and not command.immediate:
            self._answer(arguments, enqueue(self._client, command, arguments))
        elif command.kind is Kind.WAITING:
            self._begin_task(command, arguments)
        else:
            self._answer(arguments, self._run(command, arguments))
        return True

    def _refuse_http(self) -> None:
        """As Redis does: a web page that makes a browser send a form here must not get as far as the form's lines."""
        _logger.warning("%s speaks HTTP: closed", self._client.address or "a client")
        self._queue.clear()
        self._client.closing = True

    def _run(self, command: Command, arguments: list[bytes]) -> bytes:
        if command.kind is Kind.READ:
            fault = self._barrier.result() if self._barrier is not None else None
            if fault is not None:
                return resp.error(fault)
        try:
            return command.run(self._client, arguments) if command.run is not None else b""
        except Exception as fault:
            return error_reply(fault)

    def _answer(self, arguments: list[bytes], reply: bytes) -> None:
        self._take(arguments)
        self._out.append(reply)
        self._out_bytes += len(reply)

    def _take(self, arguments: list[bytes]) -> None:
        self._queue.popleft()
        self._begun += 1
        self._port.commands_run += 1

    # -- writes ------------------------------------------------------------------------------------------------------

    def _begin_write(self, command: Command, arguments: list[bytes]) -> bool:
        if len(self._outstanding) >= self._limits.max_pipeline:
            return False
        waiting: asyncio.Future[bytes | None] | bytes
        try:
            proposal = command.run(self._client, arguments) if command.run is not None else b""
            waiting = self._port.node.submit(proposal)
        except Exception as fault:
            if isinstance(fault, Busy) and self._outstanding:
                return False  # a long pipeline waits for its own writes to make room
            waiting = error_reply(fault)
        self._take(arguments)
        self._outstanding.append(waiting)
        if len(self._outstanding) == 1:
            self._wait_for_first()
        return True

    def _wait_for_first(self) -> None:
        """Takes the replies of writes that are done, from the oldest on; then waits for the first that is not.

        Only that one has a callback: those behind it are mostly done when it is.
        """
        while self._outstanding:
            first = self._outstanding[0]
            if isinstance(first, asyncio.Future):
                if not first.done():
                    first.add_done_callback(self._on_first)
                    return
                reply = write_reply(first, self._client.resp3)
            else:
                reply = first
            self._outstanding.popleft()
            self._out.append(reply)
            self._out_bytes += len(reply)

    def _on_first(self, done: asyncio.Future[bytes | None]) -> None:
        if self._outstanding:
            self._wait_for_first()
            self._advance()

    # -- reads -------------------------------------------------------------------------------------------------------

    def _barrier_passed(self) -> bool:
        """Whether a barrier that began after the head of the queue came has passed; begins one if there is none."""
        if self._begun >= self._barrier_end:
            self._barrier = self._port.barrier()
            self._barrier_end = self._begun + len(self._queue)
            self._barrier.add_done_callback(self._on_barrier)
        return self._barrier is not None and self._barrier.done()

    def _on_barrier(self, done: asyncio.Future[str | None]) -> None:
        self._advance()

    # -- commands that wait ------------------------------------------------------------------------------------------

    def _begin_task(self, command: Command, arguments: list[bytes]) -> None:
        self._take(arguments)
        self._task = asyncio.ensure_future(_answered(command, self._client, arguments))
        self._task.add_done_callback(self._on_task)

    def _on_task(self, done: asyncio.Task[bytes]) -> None:
        self._task = None
        if self._transport is None:
            return
        # cancelled, though nobody here did it: the node gave its waiters up
        reply = error_reply(asyncio.CancelledError()) if done.cancelled() else done.result()
        self._out.append(reply)
        self._out_bytes += len(reply)
        self._advance()


async def _answered(command: Command, client: Client, arguments: list[bytes]) -> bytes:
    """The reply of a command that waits, whatever comes of it."""
    try:
        return await command.wait(client, arguments) if command.wait is not None else b""
    except Exception as fault:
        return waiting_error_reply(fault)


def _endpoint(name: object) -> str:
    """`host:port` of a socket name, IPv6 in brackets; empty for what has none."""
    if not isinstance(name, tuple) or len(name) < 2:
        return ""
    return f"[{name[0]}]:{name[1]}" if ":" in str(name[0]) else f"{name[0]}:{name[1]}"
