"""What a command is to the client port: its entry in the table, the connection that sends it, what it may touch.

Floor 5. Never here: any one command, or a socket.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..errors import (
    Busy,
    ClusterReset,
    Conflict,
    Dropped,
    NodeClosed,
    NotLinearizable,
    RaftError,
    Rejected,
    StorageError,
    UnknownOutcome,
)
from . import resp
from .resp import Limits
from .served import ServedNode, ServedStore

__all__ = [
    "Client",
    "Command",
    "CommandError",
    "Kind",
    "LocalHandler",
    "Port",
    "arity_error",
    "error_reply",
    "find_command",
    "help_reply",
    "look_away",
    "waiting_error_reply",
    "write_reply",
]

_logger = logging.getLogger("raftfast.server")


_NULL2, _NULL3 = resp.null(False), resp.null(True)
_TIMEOUT = "TIMEOUT Cluster consensus not reached in time"


class CommandError(Exception):
    """A command that is refused. The text is what the client gets, its code (`ERR`, …) included."""


class Kind(enum.Enum):
    """How a command runs.

    LOCAL: at once. READ: once a barrier that began after it came has passed; then at once. WRITE: the handler gives
    the bytes to propose, and the result is the reply. WAITING: a coroutine, one at a time on a connection.
    """

    LOCAL = "local"
    READ = "read"
    WRITE = "write"
    WAITING = "waiting"


@dataclass(slots=True)
class Port:
    """What all connections of one client port share."""

    node: ServedNode
    store: ServedStore | None
    limits: Limits
    commands: dict[bytes, Command]
    shutdown: Callable[[], object] | None = None
    host: str = ""
    port: int = 0
    version: str = ""
    run_id: str = ""
    closed: bool = False
    started_at: float = field(default_factory=time.monotonic)
    clients: dict[int, Client] = field(default_factory=dict)
    connections_received: int = 0
    connections_rejected: int = 0
    commands_run: int = 0
    waiting_barrier: asyncio.Future[str | None] | None = None
    backup: object | None = None
    """The backup that is open, or about to be; `backup_commands` knows what it is."""

    def barrier(self) -> asyncio.Future[str | None]:
        """A future that is done when a barrier that begins after this call has passed: None, or an error text.

        All that ask within one turn of the loop share one barrier of the node. The future never holds an exception.
        """
        if self.waiting_barrier is None:
            loop = asyncio.get_running_loop()
            self.waiting_barrier = loop.create_future()
            loop.call_soon(self._begin_barrier)
        return self.waiting_barrier

    def _begin_barrier(self) -> None:
        waiting, self.waiting_barrier = self.waiting_barrier, None
        if waiting is None:
            return
        shared = waiting
        task = asyncio.ensure_future(self.node.barrier())

        def settle(done: asyncio.Future[None]) -> None:
            fault = asyncio.CancelledError() if done.cancelled() else done.exception()
            if not shared.done():
                shared.set_result(None if fault is None else error_text(fault))

        task.add_done_callback(settle)


@dataclass(slots=True)
class Client:
    """One connection as commands see it."""

    id: int
    port: Port
    address: str = ""
    local_address: str = ""
    ipv6: bool = False
    resp3: bool = False
    name: str = ""
    library_name: str = ""
    library_version: str = ""
    connected_at: float = field(default_factory=time.monotonic)
    last_at: float = field(default_factory=time.monotonic)
    last_command: str = "NULL"
    transaction: list[tuple[Command, list[bytes]]] | None = None
    transaction_bytes: int = 0
    transaction_broken: bool = False
    closing: bool = False

    @property
    def node(self) -> ServedNode:
        return self.port.node

    @property
    def store(self) -> ServedStore:
        """The store. **Raises** CommandError where none is served (its commands are not in the table then)."""
        if self.port.store is None:
            raise CommandError("ERR this node serves no key-value store")
        return self.port.store

    def null(self) -> bytes:
        return resp.null(self.resp3)

    def end_transaction(self) -> None:
        self.transaction, self.transaction_bytes, self.transaction_broken = None, 0, False


LocalHandler = Callable[[Client, list[bytes]], bytes]
WaitingHandler = Callable[[Client, list[bytes]], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table. `arity` counts the name, and is negative for "at least"; key positions as in COMMAND.

    A command with `subcommands` has no handler of its own: `wait` and `run` of those are used.
    """

    name: str
    arity: int
    kind: Kind = Kind.LOCAL
    run: LocalHandler | None = None
    wait: WaitingHandler | None = None
    flags: tuple[str, ...] = ()
    keys: tuple[int, int, int] = (0, 0, 0)
    group: str = "server"
    summary: str = ""
    subcommands: dict[bytes, Command] = field(default_factory=dict)
    no_transaction: bool = False
    immediate: bool = False
    """Runs at once between MULTI and EXEC too."""

    def takes(self, count: int) -> bool:
        """Whether `count` arguments, the name included, fit the arity."""
        return count == self.arity if self.arity > 0 else count >= -self.arity


def find_command(port: Port, arguments: list[bytes]) -> Command:
    """The row for a command line. **Raises** CommandError where there is none or the arguments are too few or many."""
    command = port.commands.get(arguments[0]) or port.commands.get(arguments[0].upper())
    if command is None:
        raise CommandError(_unknown_command(arguments))
    if not command.takes(len(arguments)):
        raise CommandError(arity_error(command.name))
    if command.subcommands and len(arguments) > 1:
        parent = command
        found = parent.subcommands.get(arguments[1].upper())
        if found is None:
            shown = _shown(arguments[1][:128])
            raise CommandError(f"ERR unknown subcommand '{shown}'. Try {parent.name.upper()} HELP.")
        if not found.takes(len(arguments)):
            raise CommandError(arity_error(found.name))
        return found
    return command


def arity_error(name: str) -> str:
    """The text for too few or too many arguments; `name` is `get` or `cluster|nodes`."""
    return f"ERR wrong number of arguments for '{name}' command"


def _unknown_command(arguments: list[bytes]) -> str:
    shown, left = "", 128
    for argument in arguments[1:]:
        if left <= 0:
            break
        part = f"'{_shown(argument[:left])}' "
        left -= len(part)
        shown += part
    return f"ERR unknown command '{_shown(arguments[0][:128])}', with args beginning with: {shown}"


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def error_text(fault: BaseException) -> str:
    """What a client is told of an exception: its own text for what is expected, nothing inner for what is not."""
    if isinstance(fault, CommandError):
        return str(fault)
    if isinstance(fault, (UnknownOutcome, NotLinearizable, TimeoutError)):
        return _TIMEOUT
    if isinstance(fault, Conflict):
        return "ERR proposal rejected due to stale shard epoch"
    if isinstance(fault, Rejected):
        return "ERR proposal rejected by raft leader"
    if isinstance(fault, Busy):
        return "ERR busy: too many proposals are pending, try again later"
    if isinstance(fault, ClusterReset):
        return "ERR cluster reset"
    if isinstance(fault, Dropped):
        return "CLUSTERDOWN The cluster is down, the command has no effect"
    if isinstance(fault, (NodeClosed, asyncio.CancelledError)):
        return "ERR node is shutting down"
    if isinstance(fault, StorageError):
        return f"ERR disk: {fault}"
    if isinstance(fault, RaftError):
        return f"ERR {fault}"
    _logger.error("a command failed in a way that nothing foresees", exc_info=fault)
    return "ERR internal error"


def error_reply(fault: BaseException) -> bytes:
    """`error_text` as a reply."""
    return resp.error(error_text(fault))


def waiting_error_reply(fault: BaseException) -> bytes:
    """As `error_reply`, for commands that wait: a change of the cluster that came to nothing is a TIMEOUT in Valkey,
    whether it had left the node or not.
    """
    return resp.error(_TIMEOUT) if isinstance(fault, Dropped) else error_reply(fault)


def write_reply(done: asyncio.Future[bytes | None], resp3: bool) -> bytes:
    """The reply of a write whose proposal is done: the store's result, which is one already."""
    fault = asyncio.CancelledError() if done.cancelled() else done.exception()
    if fault is not None:
        return error_reply(fault)
    reply = done.result()
    if reply is None:
        return resp.error("ERR the store gave no result")
    return _NULL3 if reply == _NULL2 and resp3 else reply


def look_away(done: asyncio.Future[bytes | None]) -> None:
    """Takes note of a future's exception that nobody waits for any more, so that asyncio doesn't complain of it."""
    if not done.cancelled():
        done.exception()


def help_reply(title: str, rows: dict[bytes, Command], usage: dict[str, str]) -> bytes:
    """The reply of `X HELP`: a line for each subcommand and one, indented, that says what it does."""
    lines = [f"{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for name, row in sorted(rows.items()):
        text = name.decode()
        if text != "HELP":
            lines += [" ".join((text, usage.get(text, ""))).rstrip(), f"    {row.summary}"]
    return resp.array([resp.simple(line) for line in [*lines, "HELP", "    Print this help."]])
