"""The store's commands: writes become proposals, reads look at this member's state behind a barrier.

Floor 5. Never here: what a write does to the state (that is the store's own affair, at apply).
"""

from __future__ import annotations

from ..messages import MAX_ENTRY_BYTES
from . import resp
from .command import Client, Command, CommandError, Kind, LocalHandler
from .resp import parse_int

__all__ = ["COMMANDS", "DBSIZE"]

_ENTRY_ROOM = 128
"""What an entry's line holds beside the command, at most: term, type, client id, sequence."""


def _write(client: Client, arguments: list[bytes]) -> bytes:
    """The proposal for any of the writes."""
    command = client.store.encode(arguments)
    if len(command) > MAX_ENTRY_BYTES - _ENTRY_ROOM:
        raise CommandError(f"ERR the command is too long to be replicated: at most {MAX_ENTRY_BYTES >> 20} MiB")
    return command


def _get(client: Client, arguments: list[bytes]) -> bytes:
    value = client.store.get(arguments[1])
    return client.null() if value is None else resp.bulk(value)


def _mget(client: Client, arguments: list[bytes]) -> bytes:
    values = [client.store.get(key) for key in arguments[1:]]
    if sum(len(value) for value in values if value is not None) > client.port.limits.max_reply_bytes:
        raise CommandError("ERR the reply is too large")
    return resp.array([client.null() if value is None else resp.bulk(value) for value in values])


def _exists(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(sum(key in client.store for key in arguments[1:]))


def _strlen(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(len(client.store.get(arguments[1]) or b""))


def _dbsize(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(client.store.size)


def _no_keys(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(0)


def _keys(client: Client, arguments: list[bytes]) -> bytes:
    return resp.bulks(client.store.keys(arguments[1]))


def _scan(client: Client, arguments: list[bytes]) -> bytes:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]"""
    cursor = parse_int(arguments[1])
    if cursor is None or cursor < 0:
        raise CommandError("ERR invalid cursor")
    pattern, count, strings = b"*", 10, True
    options = arguments[2:]
    if len(options) % 2:
        raise CommandError("ERR syntax error")
    for option, value in zip(options[::2], options[1::2], strict=True):
        match option.upper():
            case b"MATCH":
                pattern = value
            case b"COUNT":
                count = parse_int(value) or 0
                if parse_int(value) is None:
                    raise CommandError("ERR value is not an integer or out of range")
                if count < 1:
                    raise CommandError("ERR syntax error")
            case b"TYPE":
                strings = value.lower() == b"string"
            case _:
                raise CommandError("ERR syntax error")
    following, keys = client.store.scan(cursor, pattern, count)
    return resp.array([resp.bulk(str(following)), resp.bulks(keys if strings else [])])


_ONE, _ALL, _PAIRS = (1, 1, 1), (1, -1, 1), (1, -1, 2)


def _write_row(name: str, arity: int, keys: tuple[int, int, int], summary: str, *flags: str) -> Command:
    return Command(name, arity, Kind.WRITE, _write, None, ("write", *flags), keys, "string", summary)


def _read_row(
    name: str, arity: int, run: LocalHandler, keys: tuple[int, int, int], summary: str, *flags: str
) -> Command:
    return Command(name, arity, Kind.READ, run, None, ("readonly", *flags), keys, "string", summary)


DBSIZE = Command("dbsize", 1, run=_no_keys, flags=("readonly", "fast"), summary="How many keys there are: none.")
"""What stands in the table where no store is served: `redis-cli --cluster info` asks for it."""

COMMANDS = [
    _write_row("append", 3, _ONE, "Adds to the end of a value.", "denyoom", "fast"),
    _write_row("decr", 2, _ONE, "Takes one from a number.", "denyoom", "fast"),
    _write_row("decrby", 3, _ONE, "Takes from a number.", "denyoom", "fast"),
    _write_row("del", -2, _ALL, "Removes keys."),
    _write_row("flushall", -1, (0, 0, 0), "Removes all keys."),
    _write_row("getset", 3, _ONE, "Sets a value and gives the old one.", "denyoom", "fast"),
    _write_row("incr", 2, _ONE, "Adds one to a number.", "denyoom", "fast"),
    _write_row("incrby", 3, _ONE, "Adds to a number.", "denyoom", "fast"),
    _write_row("mset", -3, _PAIRS, "Sets values.", "denyoom"),
    _write_row("set", -3, _ONE, "Sets a value: [NX|XX] [GET].", "denyoom"),
    _read_row("dbsize", 1, _dbsize, (0, 0, 0), "How many keys there are.", "fast"),
    _read_row("exists", -2, _exists, _ALL, "How many of the keys are there.", "fast"),
    _read_row("get", 2, _get, _ONE, "A value.", "fast"),
    _read_row("keys", 2, _keys, (0, 0, 0), "The keys that match a glob."),
    _read_row("mget", -2, _mget, _ALL, "Values.", "fast"),
    _read_row("scan", -2, _scan, (0, 0, 0), "The keys, some at a time."),
    _read_row("strlen", 2, _strlen, _ONE, "The length of a value.", "fast"),
]
