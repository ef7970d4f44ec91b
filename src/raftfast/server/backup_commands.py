"""RAFTFAST BACKUP: a consistent snapshot of the node, carried over the client port piece by piece.

Floor 5. BEGIN writes it to a file on the node and answers a name, its size, and the head for the backup's file; READ
gives pieces; END lets it go, and so does a minute without a READ. One at a time. Never here: the backup's file.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from . import resp
from .command import Client, Command, CommandError, Kind, Port, help_reply
from .resp import parse_int
from .served import ServedBackup

__all__ = ["COMMANDS", "MAX_PIECE_BYTES"]

MAX_PIECE_BYTES = 1 << 20
"""Bytes that one READ gives at most."""

IDLE_SECONDS = 60.0
"""A backup that is not read for so long is let go."""


@dataclass(slots=True)
class OpenBackup:
    """The one backup that a client port has open."""

    name: bytes
    backup: ServedBackup
    expiry: asyncio.TimerHandle


def _end(port: Port) -> None:
    opened, port.backup = port.backup, None
    if isinstance(opened, OpenBackup):
        opened.expiry.cancel()
        opened.backup.close()


def _watch(port: Port) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(IDLE_SECONDS, _end, port)


async def _begin(client: Client, arguments: list[bytes]) -> bytes:
    port = client.port
    if port.backup is not None:
        raise CommandError("ERR a backup is being read already: END it, or wait for a minute")
    port.backup = "being written"
    try:
        backup = await port.node.backup()
    except BaseException:
        port.backup = None
        raise
    if client.closing:  # who asked is gone
        port.backup = None
        backup.close()
        return b""
    opened = OpenBackup(secrets.token_hex(8).encode(), backup, _watch(port))
    port.backup = opened
    head = backup.head.encode()
    return resp.array([resp.bulk(opened.name), resp.integer(backup.head.total), resp.bulk(head)])


def _named(client: Client, name: bytes) -> OpenBackup:
    opened = client.port.backup
    if not isinstance(opened, OpenBackup) or opened.name != name:
        raise CommandError("ERR no such backup: it was ended, or not read for a minute")
    return opened


async def _read(client: Client, arguments: list[bytes]) -> bytes:
    opened = _named(client, arguments[3])
    offset, size = parse_int(arguments[4]), parse_int(arguments[5])
    if offset is None or size is None or offset < 0 or not 0 < size <= MAX_PIECE_BYTES:
        raise CommandError(f"ERR offset and size must be numbers, the size at most {MAX_PIECE_BYTES}")
    opened.expiry.cancel()
    opened.expiry = _watch(client.port)
    return resp.bulk(await opened.backup.read(offset, size))


async def _backup(client: Client, arguments: list[bytes]) -> bytes:
    verb, count = arguments[2].upper(), len(arguments)
    if verb == b"BEGIN" and count == 3:
        return await _begin(client, arguments)
    if verb == b"READ" and count == 6:
        return await _read(client, arguments)
    if verb == b"END" and count == 4:
        _named(client, arguments[3])
        _end(client.port)
        return resp.OK
    raise CommandError("ERR syntax error: BACKUP BEGIN, BACKUP READ <name> <offset> <size>, or BACKUP END <name>")


def _help(client: Client, arguments: list[bytes]) -> bytes:
    return help_reply("RAFTFAST", _RAFTFAST, {"BACKUP": "BEGIN | READ <name> <offset> <size> | END <name>"})


_RAFTFAST = {
    b"BACKUP": Command(
        "raftfast|backup",
        -3,
        kind=Kind.WAITING,
        wait=_backup,
        flags=("admin", "noscript"),
        summary="Reads a consistent snapshot of the node.",
        no_transaction=True,
    ),
    b"HELP": Command("raftfast|help", 2, run=_help, summary="Print this help."),
}

COMMANDS = [
    Command("raftfast", -2, flags=("admin",), summary="What only raftfast has.", subcommands=_RAFTFAST),
]
