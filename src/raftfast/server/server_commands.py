"""Commands about the server: COMMAND, DEBUG, SHUTDOWN.

Floor 5. Never here: INFO's text (`info`), the settings (`config_commands`).
"""

from __future__ import annotations

from . import resp
from .command import Client, Command, CommandError, help_reply

__all__ = ["COMMANDS"]


def _shutdown(client: Client, arguments: list[bytes]) -> bytes:
    """SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE]: all is stored already, so the options change nothing.

    No reply: the connection ends.
    """
    options = [option.upper() for option in arguments[1:]]
    if not set(options) <= {b"NOSAVE", b"SAVE", b"NOW", b"FORCE"} or {b"NOSAVE", b"SAVE"} <= set(options):
        raise CommandError("ERR syntax error")
    if client.port.shutdown is None:
        raise CommandError("ERR SHUTDOWN is not served here: the node belongs to another program")
    client.closing = True
    client.port.shutdown()
    return b""


def _debug_digest(client: Client, arguments: list[bytes]) -> bytes:
    return resp.simple(client.node.state_digest())


def _debug_help(client: Client, arguments: list[bytes]) -> bytes:
    return help_reply("DEBUG", _DEBUG, {})


# -- COMMAND -------------------------------------------------------------------------------------------------------


def _command(client: Client, arguments: list[bytes]) -> bytes:
    resp3 = client.resp3
    return resp.array([_entry(row, resp3) for row in client.port.commands.values()])


def _command_count(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(len(client.port.commands))


def _command_list(client: Client, arguments: list[bytes]) -> bytes:
    return resp.bulks([row.name for row in client.port.commands.values()])


def _command_info(client: Client, arguments: list[bytes]) -> bytes:
    rows = _named(client, arguments[2:])
    return resp.array([resp.null(client.resp3) if row is None else _entry(row, client.resp3) for row in rows])


def _command_docs(client: Client, arguments: list[bytes]) -> bytes:
    pairs = [(row.name, _docs(row, client.resp3)) for row in _named(client, arguments[2:]) if row is not None]
    return resp.mapping(pairs, client.resp3)


def _docs(row: Command, resp3: bool) -> bytes:
    fields = [("summary", resp.bulk(row.summary)), ("since", resp.bulk("0.1.0")), ("group", resp.bulk(row.group))]
    if row.subcommands:
        inner = [(each.name, _docs(each, resp3)) for each in row.subcommands.values()]
        fields.append(("subcommands", resp.mapping(inner, resp3)))
    return resp.mapping(fields, resp3)


def _named(client: Client, names: list[bytes]) -> list[Command | None]:
    """The rows of the names given, None for what is not known; all rows where none is given."""
    if not names:
        return list(client.port.commands.values())
    rows: list[Command | None] = []
    for name in names:
        head, _, tail = name.upper().partition(b"|")
        row = client.port.commands.get(head)
        rows.append(row.subcommands.get(tail) if row is not None and tail else row)
    return rows


def _entry(row: Command, resp3: bool) -> bytes:
    """A row in COMMAND's shape: ten elements."""
    first, last, step = row.keys
    return resp.array(
        [
            resp.bulk(row.name),
            resp.integer(row.arity),
            resp.set_of([resp.simple(flag) for flag in row.flags], resp3),
            resp.integer(first),
            resp.integer(last),
            resp.integer(step),
            resp.set_of([resp.simple(f"@{row.group}")], resp3),
            resp.array([]),
            resp.array([]),
            resp.array([_entry(each, resp3) for each in row.subcommands.values()]),
        ]
    )


def _command_getkeys(client: Client, arguments: list[bytes]) -> bytes:
    row = client.port.commands.get(arguments[2].upper())
    if row is None:
        raise CommandError("ERR Invalid command specified")
    line = arguments[2:]
    if not row.takes(len(line)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    first, last, step = row.keys
    if first == 0:
        raise CommandError("ERR The command has no key arguments")
    return resp.bulks(line[first : len(line) if last < 0 else last + 1 : step])


def _command_help(client: Client, arguments: list[bytes]) -> bytes:
    return help_reply("COMMAND", _COMMAND, {"DOCS": "[<name> ...]", "INFO": "[<name> ...]", "GETKEYS": "<command>"})


_COMMAND = {
    b"COUNT": Command("command|count", 2, run=_command_count, summary="How many commands there are."),
    b"DOCS": Command("command|docs", -2, run=_command_docs, summary="What commands do."),
    b"GETKEYS": Command("command|getkeys", -3, run=_command_getkeys, summary="The keys of a command line."),
    b"HELP": Command("command|help", 2, run=_command_help, summary="Print this help."),
    b"INFO": Command("command|info", -2, run=_command_info, summary="Rows of the table of commands."),
    b"LIST": Command("command|list", 2, run=_command_list, summary="The names of all commands."),
}
_DEBUG = {
    b"DIGEST": Command("debug|digest", 2, run=_debug_digest, summary="40 hex digits, equal for equal states."),
    b"HELP": Command("debug|help", 2, run=_debug_help, summary="Print this help."),
}
_ADMIN = ("admin", "noscript", "loading", "stale")

COMMANDS = [
    Command("command", -1, run=_command, flags=("loading", "stale"), summary="All commands.", subcommands=_COMMAND),
    Command("debug", -2, flags=_ADMIN, summary="For tests and diagnosis.", subcommands=_DEBUG),
    Command("shutdown", -1, run=_shutdown, flags=_ADMIN, summary="Stops the node.", no_transaction=True),
]
