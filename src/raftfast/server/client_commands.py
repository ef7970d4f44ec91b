"""Commands about the connection itself: PING, HELLO, AUTH, CLIENT, SELECT, QUIT, RESET and their like.

Floor 5. Never here: the cluster, the store.
"""

from __future__ import annotations

import time

from . import resp
from .command import Client, Command, CommandError, help_reply
from .resp import OK, parse_int

__all__ = ["COMMANDS"]

_NOT_AN_INTEGER = "ERR value is not an integer or out of range"
_NO_PASSWORD = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
_WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."


def _ping(client: Client, arguments: list[bytes]) -> bytes:
    if len(arguments) > 2:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    return b"+PONG\r\n" if len(arguments) == 1 else resp.bulk(arguments[1])


def _echo(client: Client, arguments: list[bytes]) -> bytes:
    return resp.bulk(arguments[1])


def _hello(client: Client, arguments: list[bytes]) -> bytes:
    """HELLO [version [AUTH user password] [SETNAME name]]: all of it is looked at before any of it counts."""
    resp3, name = client.resp3, None
    if len(arguments) > 1:
        version = parse_int(arguments[1])
        if version is None:
            raise CommandError("ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
        resp3 = version == 3
    position = 2
    while position < len(arguments):
        option, left = arguments[position].upper(), len(arguments) - position - 1
        if option == b"AUTH" and left >= 2:
            _check_user(arguments[position + 1])
            position += 3
        elif option == b"SETNAME" and left >= 1:
            name = _client_name(arguments[position + 1])
            position += 2
        else:
            shown = arguments[position].decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR Syntax error in HELLO option '{shown}'")
    client.resp3 = resp3
    client.name = client.name if name is None else name
    return resp.mapping(
        [
            ("server", resp.bulk("raftfast")),
            ("version", resp.bulk(client.port.version)),
            ("proto", resp.integer(3 if resp3 else 2)),
            ("id", resp.integer(client.id)),
            ("mode", resp.bulk("cluster")),
            ("role", resp.bulk("master")),
            ("modules", resp.array([])),
        ],
        resp3,
    )


def _check_user(user: bytes) -> None:
    """The default user needs no password, so it takes any; there is no other user."""
    if user != b"default":
        raise CommandError(_WRONG_PASSWORD)


def _auth(client: Client, arguments: list[bytes]) -> bytes:
    if len(arguments) > 3:
        raise CommandError("ERR syntax error")
    if len(arguments) == 2:
        raise CommandError(_NO_PASSWORD)
    _check_user(arguments[1])
    return OK


def _select(client: Client, arguments: list[bytes]) -> bytes:
    number = parse_int(arguments[1])
    if number is None:
        raise CommandError(_NOT_AN_INTEGER)
    if number != 0:
        raise CommandError("ERR SELECT is not allowed in cluster mode")
    return OK


def _quit(client: Client, arguments: list[bytes]) -> bytes:
    client.closing = True
    return OK


def _reset(client: Client, arguments: list[bytes]) -> bytes:
    client.end_transaction()
    client.resp3, client.name = False, ""
    return b"+RESET\r\n"


def _accept(client: Client, arguments: list[bytes]) -> bytes:
    return OK


# -- CLIENT --------------------------------------------------------------------------------------------------------


def _printable(raw: bytes, what: str) -> str:
    if any(not 33 <= byte <= 126 for byte in raw):
        raise CommandError(f"ERR {what} cannot contain spaces, newlines or special characters.")
    return raw.decode("ascii")


def _client_name(raw: bytes) -> str:
    return _printable(raw, "Client names")


def _client_setname(client: Client, arguments: list[bytes]) -> bytes:
    client.name = _client_name(arguments[2])
    return OK


def _client_getname(client: Client, arguments: list[bytes]) -> bytes:
    return resp.bulk(client.name) if client.name else client.null()


def _client_setinfo(client: Client, arguments: list[bytes]) -> bytes:
    field = arguments[2].upper()
    if field == b"LIB-NAME":
        client.library_name = _printable(arguments[3], "lib-name")
    elif field == b"LIB-VER":
        client.library_version = _printable(arguments[3], "lib-ver")
    else:
        raise CommandError(f"ERR Unrecognized option '{arguments[2].decode('utf-8', 'surrogateescape')}'")
    return OK


def _client_id(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(client.id)


def _client_info(client: Client, arguments: list[bytes]) -> bytes:
    return resp.verbatim(_describe(client, time.monotonic()) + "\n", client.resp3)


def _client_list(client: Client, arguments: list[bytes]) -> bytes:
    """CLIENT LIST [TYPE type | ID id…]: every connection is of the type `normal`."""
    chosen = set(client.port.clients)
    if len(arguments) > 2:
        option = arguments[2].upper()
        if option == b"TYPE" and len(arguments) == 4:
            if arguments[3].upper() not in (b"NORMAL", b"MASTER", b"PRIMARY", b"REPLICA", b"SLAVE", b"PUBSUB"):
                raise CommandError(f"ERR Unknown client type '{arguments[3].decode('utf-8', 'surrogateescape')}'")
            chosen = chosen if arguments[3].upper() == b"NORMAL" else set()
        elif option == b"ID" and len(arguments) > 3:
            numbers = [parse_int(raw) for raw in arguments[3:]]
            if any(number is None or number < 1 for number in numbers):
                raise CommandError("ERR Invalid client ID")
            chosen &= set(numbers)
        else:
            raise CommandError("ERR syntax error")
    now = time.monotonic()
    lines = [_describe(each, now) + "\n" for number, each in sorted(client.port.clients.items()) if number in chosen]
    return resp.verbatim("".join(lines), client.resp3)


def _describe(client: Client, now: float) -> str:
    multi = -1 if client.transaction is None else len(client.transaction)
    return (
        f"id={client.id} addr={client.address} laddr={client.local_address} fd=-1 name={client.name} "
        f"age={int(now - client.connected_at)} idle={int(now - client.last_at)} flags={'N' if multi < 0 else 'x'} db=0 "
        f"sub=0 psub=0 ssub=0 multi={multi} watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem={client.transaction_bytes} "
        f"rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={client.last_command} user=default redir=-1 "
        f"resp={3 if client.resp3 else 2} lib-name={client.library_name} lib-ver={client.library_version}"
    )


def _client_switch(client: Client, arguments: list[bytes]) -> bytes:
    """NO-EVICT and NO-TOUCH: nothing is ever evicted here, so there is nothing to switch."""
    if arguments[2].upper() not in (b"ON", b"OFF"):
        raise CommandError("ERR syntax error")
    return OK


def _client_reply(client: Client, arguments: list[bytes]) -> bytes:
    if arguments[2].upper() != b"ON":
        raise CommandError("ERR only CLIENT REPLY ON is served")
    return OK


def _client_help(client: Client, arguments: list[bytes]) -> bytes:
    usage = {
        "SETNAME": "<name>",
        "SETINFO": "<option> <value>",
        "LIST": "[TYPE <type> | ID <id> [<id> ...]]",
        "NO-EVICT": "(ON|OFF)",
        "NO-TOUCH": "(ON|OFF)",
        "REPLY": "ON",
    }
    return help_reply("CLIENT", _CLIENT, usage)


_STALE = ("noscript", "loading", "stale")
_CLIENT = {
    b"GETNAME": Command("client|getname", 2, run=_client_getname, summary="The name of this connection."),
    b"HELP": Command("client|help", 2, run=_client_help, summary="Print this help."),
    b"ID": Command("client|id", 2, run=_client_id, summary="The id of this connection."),
    b"INFO": Command("client|info", 2, run=_client_info, summary="What is known of this connection."),
    b"LIST": Command("client|list", -2, run=_client_list, summary="What is known of all connections."),
    b"NO-EVICT": Command("client|no-evict", 3, run=_client_switch, summary="Accepted; nothing is ever evicted."),
    b"NO-TOUCH": Command("client|no-touch", 3, run=_client_switch, summary="Accepted; nothing is ever evicted."),
    b"REPLY": Command("client|reply", 3, run=_client_reply, summary="ON: replies are sent, as they always are."),
    b"SETINFO": Command("client|setinfo", 4, run=_client_setinfo, summary="Sets the library's name or version."),
    b"SETNAME": Command("client|setname", 3, run=_client_setname, summary="Names this connection."),
}

_FAST = (*_STALE, "fast")
COMMANDS = [
    Command("asking", 1, run=_accept, flags=("fast",), group="cluster", summary="Accepted; no slot migrates here."),
    Command("auth", -2, run=_auth, flags=(*_FAST, "no_auth"), group="connection", summary="Names a user."),
    Command("client", -2, flags=_STALE, group="connection", summary="Of connections.", subcommands=_CLIENT),
    Command("echo", 2, run=_echo, flags=("fast",), group="connection", summary="Says its argument."),
    Command("hello", -1, run=_hello, flags=(*_FAST, "no_auth"), group="connection", summary="Chooses the protocol."),
    Command("ping", -1, run=_ping, flags=("fast",), group="connection", summary="Says PONG, or its argument."),
    Command("quit", -1, run=_quit, flags=_FAST, group="connection", summary="Closes.", immediate=True),
    Command("readonly", 1, run=_accept, flags=_FAST, group="cluster", summary="Accepted; every member serves reads."),
    Command("readwrite", 1, run=_accept, flags=_FAST, group="cluster", summary="Accepted."),
    Command("reset", 1, run=_reset, flags=_FAST, group="connection", summary="As newly connected.", immediate=True),
    Command("select", 2, run=_select, flags=("loading", "stale", "fast"), group="connection", summary="0 only."),
]
