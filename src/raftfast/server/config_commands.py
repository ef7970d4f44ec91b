"""CONFIG: what of the settings a client may see, and the one that it may change.

Floor 5. Never here: the settings' own checks (that is floor 0).
"""

from __future__ import annotations

import fnmatch

from . import resp
from .command import Client, Command, CommandError, Kind, arity_error, help_reply
from .resp import OK

__all__ = ["COMMANDS", "hostname_fault"]

_HOSTNAME = "cluster-announce-hostname"
_HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")


def _parameters(client: Client) -> dict[str, str]:
    """Every parameter that is known, by name, with its value now."""
    config = client.node.config
    myself = client.node.cluster.nodes.get(client.node.node_id)
    return {
        "appendonly": "yes",
        "bind": client.port.host,
        _HOSTNAME: "" if myself is None else myself.address.hostname,
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(round(config.node_timeout * 1000)),
        "cluster-preferred-endpoint-type": "ip",
        "cluster-require-full-coverage": "yes" if config.require_full_coverage else "no",
        "databases": "1",
        "maxclients": str(client.port.limits.max_clients),
        "port": str(client.port.port),
        "proto-max-bulk-len": str(client.port.limits.max_bulk_bytes),
        "save": "",
        "timeout": "0",
    }


def _get(client: Client, arguments: list[bytes]) -> bytes:
    known = _parameters(client)
    patterns = [raw.decode("utf-8", "surrogateescape").lower() for raw in arguments[2:]]
    chosen = [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    return resp.mapping([(name, resp.bulk(known[name])) for name in chosen], client.resp3)


def hostname_fault(raw: bytes) -> str | None:
    """What is wrong with a hostname (NODESCONF 1.2); None where nothing is. Empty takes the hostname away."""
    if len(raw) > 255:
        return "Hostnames must be less than 256 characters"
    if not _HOST_BYTES.issuperset(raw):
        return "Hostnames may only contain alphanumeric characters, hyphens or dots"
    return None


async def _set(client: Client, arguments: list[bytes]) -> bytes:
    """CONFIG SET name value…: all of it is looked at before any of it is done."""
    if len(arguments) % 2:
        raise CommandError(arity_error("config|set"))
    known, wanted = _parameters(client), dict[str, bytes]()
    for raw, value in zip(arguments[2::2], arguments[3::2], strict=True):
        name = raw.decode("utf-8", "surrogateescape")
        if name.lower() not in known:
            raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
        if name.lower() in wanted:
            raise CommandError(_set_failed(name, "duplicate parameter"))
        if name.lower() != _HOSTNAME:
            raise CommandError(_set_failed(name, "can't set immutable config"))
        if fault := hostname_fault(value):
            raise CommandError(_set_failed(name, fault))
        wanted[name.lower()] = value
    await client.node.set_hostname(wanted[_HOSTNAME].decode("ascii"))
    return OK


def _set_failed(name: str, reason: str) -> str:
    return f"ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"


def _accept(client: Client, arguments: list[bytes]) -> bytes:
    """REWRITE and RESETSTAT: what can be set is in the cluster's log already, and totals are never reset."""
    return OK


def _help(client: Client, arguments: list[bytes]) -> bytes:
    return help_reply("CONFIG", _CONFIG, {"GET": "<pattern> ...", "SET": "<directive> <value> ..."})


_CONFIG = {
    b"GET": Command("config|get", -3, run=_get, summary="The parameters that match."),
    b"HELP": Command("config|help", 2, run=_help, summary="Print this help."),
    b"RESETSTAT": Command("config|resetstat", 2, run=_accept, summary="Accepted; totals are not reset."),
    b"REWRITE": Command("config|rewrite", 2, run=_accept, summary="Accepted; there is nothing to write."),
    b"SET": Command("config|set", -4, Kind.WAITING, wait=_set, summary=f"Sets {_HOSTNAME}."),
}

COMMANDS = [
    Command(
        "config",
        -2,
        flags=("admin", "noscript", "loading", "stale"),
        summary="Of the settings.",
        subcommands=_CONFIG,
    )
]
