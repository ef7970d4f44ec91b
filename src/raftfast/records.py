"""What the lines of `nodes.conf` say, as values: an address, a node's record, a whole file.

Floor 0. Defined once and shared by both twins of the parser. Nothing is parsed or formatted here (that is
`hot.nodesconf`). Text is the file's bytes as UTF-8 with surrogate escapes, so any bytes survive a round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["SLOTS", "Address", "HardState", "NodeRecord", "NodesConf"]

SLOTS = 16384
"""How many hash slots a cluster has; slots are numbered 0 to SLOTS - 1."""


class HardState(NamedTuple):
    """What a node must not forget of a term: the term, and whom it voted for in it (None: nobody yet)."""

    current_term: int
    voted_for: str | None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node is: `ip:port@cport[,hostname][,name=value]*`.

    `ip` may be empty (not known yet); IPv6 stands without brackets. `port` serves clients, `cport` the bus.
    `aux` keeps the order in which the fields stood.
    """

    ip: str
    port: int
    cport: int
    hostname: str = ""
    aux: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node line (NODESCONF 1.2).

    `flags` are canonical names in the order written (`()` for `noflags`), `primary_id` is None where the column is
    `-`. `epoch` is what is stored: 0 for a replica that has a primary. `ping_sent` and `pong_recv` are milliseconds.
    `slots` are (first, last) pairs, ascending and maximal; `migrating` and `importing` are (slot, node id) pairs,
    ascending by slot.
    """

    id: str
    ip: str = ""
    port: int = 0
    cport: int = 0
    hostname: str = ""
    aux: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    primary_id: str | None = None
    ping_sent: int = 0
    pong_recv: int = 0
    epoch: int = 0
    connected: bool = True
    slots: tuple[tuple[int, int], ...] = ()
    migrating: tuple[tuple[int, str], ...] = ()
    importing: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class NodesConf:
    """A whole `nodes.conf`.

    `vars` is keyed by the file's own names; values are `int` where the name is known to hold a number, else text.
    `entries` are the (index, term, line) of the log lines, `line` an AE line. `torn_tail` holds the bytes that were
    dropped from the end (empty where none were); `warnings` what was accepted though it looks wrong, one sentence
    each.
    """

    nodes: tuple[NodeRecord, ...] = ()
    vars: dict[str, int | str] = field(default_factory=dict)
    entries: tuple[tuple[int, int, bytes], ...] = ()
    torn_tail: bytes = b""
    warnings: tuple[str, ...] = ()
