"""What one line of `nodes.conf` says, both ways: addresses, node lines, vars lines, entries (NODESCONF 1.2, 1.5, 1.7).

Floor 1; shared by both twins of the leaf: the compiled one reads the usual line itself and leaves to this file what is
unusual, wrong, or written. A file as a whole is `nodesconf_file`'s affair. Errors carry a line number only where the
caller knows it; here it is 0.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ..config import BUS_PORT_OFFSET
from ..errors import ParseError
from ..messages import ENTRY_TYPES
from ..records import SLOTS, Address, NodeRecord

__all__ = [
    "U64_MAX",
    "VARS_ORDER",
    "address_of",
    "check_u64",
    "decimal",
    "entry_line",
    "flags_column",
    "flags_of",
    "format_address",
    "format_node_line",
    "node_of",
    "parse_address",
    "parse_node_line",
    "vars_line",
    "vars_of",
]

U64_MAX = (1 << 64) - 1
_MAX_LINE_BYTES = 2 << 20
_MAX_IP_BYTES = 45

_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,19}")
_ID = re.compile(rb"[a-z0-9]{40}")
_STRAY = re.compile(rb"[\x00-\x08\x0a-\x0c\x0e-\x1f\"']")
_TOKEN = re.compile(rb"[^\x00-\x20\"']+")
_STRAY_IN_DATA = re.compile(rb"[\x00-\x1f\"']|\A | (?= |\Z)")
_AUX_TEXT = re.compile(rb"[\-./0-9:A-Z_`a-z\x80-\xff]*")
_OPEN_SLOT = re.compile(rb"\[([0-9]+)-([<>])-([a-z0-9]{40})\]")
_APP_FILE = re.compile(rb"app-(?:0|[1-9][0-9]{0,19})-[0-9a-f]{16}")
_CHECKSUM = re.compile(rb"[0-9A-Fa-f]{16}")

_FLAGS = ("myself", "master", "slave", "fail?", "fail", "handshake", "noaddr", "nofailover", "learner")
_FLAG_WORDS = {flag.encode(): flag for flag in _FLAGS} | {b"primary": "master", b"replica": "slave"}

# The order in which the reference writes them; names that we don't know follow, by their bytes.
_AUX_PORTS = frozenset({"client-tls-port", "client-tcp-port", "tls-port", "tcp-port"})
_AUX_FAMILIES = {"client-ipv6": socket.AF_INET6, "client-ipv4": socket.AF_INET}
_AUX_ORDER = {
    name: place
    for place, name in enumerate(
        (
            "availability-zone",
            "client-tls-port",
            "client-tcp-port",
            "client-ipv6",
            "client-ipv4",
            "tls-port",
            "tcp-port",
            "nodename",
            "shard-id",
        )
    )
}

# Known names of a vars line in the order in which they are written, each with what its value is.
_VARS = {
    "currentTerm": "number",
    "lastApplied": "number",
    "snapshotTerm": "number",
    "votedFor": "id",
    "raftLeader": "id",
    "clusterId": "id",
    "joining": "boolean",
    "appSnapshot": "file",
    "appLength": "number",
    "appCrc": "checksum",
    "currentEpoch": "number",
    "lastVoteEpoch": "number",
}
_VARS_BY_LOWER = {name.lower().encode(): name for name in _VARS}
VARS_ORDER = tuple(_VARS)


# --- text and numbers ---------------------------------------------------------------------------------------------


def _shown(token: bytes) -> str:
    """`token` as it stands in an error's text: printable, and short whatever came."""
    text = token[:48].decode("utf-8", "backslashreplace")
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f"'{printable}{'…' if len(token) > 48 else ''}'"


def _text(token: bytes) -> str:
    return token.decode("utf-8", "surrogateescape")


def _bytes(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be str, not {type(text).__name__}")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ParseError(f"{what} can't be written as UTF-8") from None


def decimal(token: bytes, most: int, what: str) -> int:
    """Strict decimal: no sign, no blank, no underscore, no leading zero, nothing above `most`."""
    if _DECIMAL.fullmatch(token) is None or (value := int(token)) > most:
        raise ParseError(f"{what} {_shown(token)} is not a decimal number from 0 to {most}")
    return value


def _digits(value: object, most: int, what: str) -> bytes:
    if type(value) is not int:
        raise TypeError(f"{what} must be int, not {type(value).__name__}")
    if not 0 <= value <= most:
        # Writing out an int of thousands of digits is refused by Python itself.
        shown = value if value.bit_length() <= 128 else "of many digits"
        raise ParseError(f"{what} {shown} is not from 0 to {most}")
    return b"%d" % value


def check_u64(value: object, what: str) -> int:
    """`value`, if it is an int (no bool) of 64 unsigned bits. Raises TypeError or OverflowError."""
    if type(value) is not int:
        raise TypeError(f"{what} must be int, not {type(value).__name__}")
    if not 0 <= value <= U64_MAX:
        raise OverflowError(f"{what} does not fit 64 unsigned bits")
    return value


def _pairs(value: object, what: str) -> tuple[tuple[Any, Any], ...]:
    """`value`, if it is a sequence of pairs."""
    if isinstance(value, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value):
        return tuple((first, second) for first, second in value)
    raise TypeError(f"{what} must be a tuple of pairs")


def _check_id(token: bytes, what: str) -> bytes:
    if _ID.fullmatch(token) is None:
        raise ParseError(f"{what} {_shown(token)} is not 40 characters of a-z0-9")
    return token


def _words(line: bytes, what: str) -> list[bytes]:
    """The tokens of a node or vars line. Blanks and CR part them; quotes and other control bytes are refused."""
    if len(line) > _MAX_LINE_BYTES:
        raise ParseError(f"a {what} line of {len(line)} bytes; at most {_MAX_LINE_BYTES} are taken")
    if (stray := _STRAY.search(line)) is not None:
        raise ParseError(f"byte 0x{stray[0][0]:02x} in a {what} line")
    words = line.split()
    if not words:
        raise ParseError("a line of blanks only")
    return words


# --- addresses ----------------------------------------------------------------------------------------------------


def address_of(token: bytes) -> Address:
    """The address that a token (no blanks, quotes or control bytes in it) holds."""
    head, _, rest = token.partition(b",")
    ip, colon, ports = head.rpartition(b":")
    if not colon:
        raise ParseError(f"address {_shown(token)} has no port")
    if len(ip) > _MAX_IP_BYTES:
        raise ParseError(f"ip {_shown(ip)} is longer than {_MAX_IP_BYTES} bytes")
    port_text, at, cport_text = ports.partition(b"@")
    port = decimal(port_text, 65535, "port")
    cport = decimal(cport_text, 65535, "bus port") if at else port + BUS_PORT_OFFSET
    if cport > 65535:
        raise ParseError(f"port {port} leaves no bus port {cport}, and none is given")
    hostname, *items = rest.split(b",")
    aux: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition(b"=")
        if not equals:
            raise ParseError(f"aux field {_shown(item)} is not of the form name=value")
        _check_aux(name, value)
        aux[_text(name)] = _text(value)
    return Address(_text(ip), port, cport, _text(hostname), aux)


def _check_aux(name: bytes, value: bytes) -> None:
    if not name or _AUX_TEXT.fullmatch(name) is None:
        raise ParseError(f"aux field name {_shown(name)} is empty or has characters that are not allowed")
    if _AUX_TEXT.fullmatch(value) is None:
        raise ParseError(f"aux field {_shown(name)} has a value with characters that are not allowed: {_shown(value)}")
    known = _text(name)
    if known in _AUX_PORTS:
        decimal(value, 65535, known)
    elif known == "shard-id":
        _check_id(value, known)
    elif known in _AUX_FAMILIES and value:
        try:
            socket.inet_pton(_AUX_FAMILIES[known], _text(value))
        except (OSError, ValueError):
            raise ParseError(f"{known} {_shown(value)} is no such address") from None


def parse_address(text: str | bytes) -> Address:
    """The address that `text`, `ip:port@cport[,hostname][,name=value]*`, holds.

    Without `@cport` the bus port is port + 10000. The first item after the ports is the hostname, which may be empty;
    aux fields follow. Unknown aux fields with a valid name and value are kept; of a repeated one the last counts.

    Raises: ParseError (`lineno` 0); TypeError for anything but str or bytes.
    Source: NODESCONF 1.2, column 2.
    """
    token = text if isinstance(text, bytes) else _bytes(text, "an address")
    if token and _TOKEN.fullmatch(token) is None:
        raise ParseError(f"address {_shown(token)} has blanks, quotes or control bytes")
    return address_of(token)


def format_address(address: Address, *, always_comma: bool = True) -> str:
    """The text of `address`: known aux fields in the reference's order, then unknown ones by their bytes.

    `always_comma` writes the comma before the hostname also where neither hostname nor aux field follows, as the file
    has it.

    Raises: ParseError where `parse_address` would refuse the text or read something else; TypeError.
    Source: NODESCONF 1.2, column 2.
    """
    if not isinstance(address, Address):
        raise TypeError(f"an address must be Address, not {type(address).__name__}")
    return _text(_address_token(address, always_comma))


def _address_token(address: Address | NodeRecord, always_comma: bool) -> bytes:
    ip, hostname = _bytes(address.ip, "ip"), _bytes(address.hostname, "hostname")
    if len(ip) > _MAX_IP_BYTES:
        raise ParseError(f"ip {_shown(ip)} is longer than {_MAX_IP_BYTES} bytes")
    for what, token in (("ip", ip), ("hostname", hostname)):
        if token and (_TOKEN.fullmatch(token) is None or b"," in token):
            raise ParseError(f"{what} {_shown(token)} has commas, blanks, quotes or control bytes")
    port, cport = _digits(address.port, 65535, "port"), _digits(address.cport, 65535, "bus port")
    if not isinstance(address.aux, dict):
        raise TypeError(f"aux must be dict, not {type(address.aux).__name__}")
    fields = [(_bytes(name, "an aux field"), _bytes(value, "an aux field")) for name, value in address.aux.items()]
    fields.sort(key=lambda field: (_AUX_ORDER.get(_text(field[0]), len(_AUX_ORDER)), field[0]))
    for name, value in fields:
        _check_aux(name, value)
    items = [hostname, *(name + b"=" + value for name, value in fields)]
    tail = b"," + b",".join(items) if always_comma or hostname or fields else b""
    return b"%b:%b@%b%b" % (ip, port, cport, tail)


# --- node lines ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _known_flags(token: bytes) -> tuple[str, ...]:
    names = set()
    for word in token.lower().split(b","):
        if word in _FLAG_WORDS:
            names.add(_FLAG_WORDS[word])
        elif word != b"noflags":
            raise ParseError(f"unknown flag {_shown(word)}")
    if "noaddr" in names:
        names.add("fail")
    return tuple(flag for flag in _FLAGS if flag in names)


def flags_of(token: bytes) -> tuple[str, ...]:
    """The canonical flags that the flags column names. Only columns of a usual length are remembered."""
    return _known_flags(token) if len(token) <= 80 else _known_flags.__wrapped__(token)


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """`ranges` ascending and maximal."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


_OpenSlots = tuple[tuple[int, str], ...]


def _open_slots(migrating: Iterable[tuple[int, str]], importing: Iterable[tuple[int, str]]) -> list[_OpenSlots]:
    """Both ascending, one item a slot: the last of a kind counts, and migrating wins over importing."""
    leaving, coming = dict(migrating), dict(importing)
    kept = {slot: node_id for slot, node_id in coming.items() if slot not in leaving}
    return [tuple(sorted(leaving.items())), tuple(sorted(kept.items()))]


def _slots_of(words: list[bytes]) -> tuple[tuple[tuple[int, int], ...], _OpenSlots, _OpenSlots]:
    ranges: list[tuple[int, int]] = []
    open_slots: dict[bytes, list[tuple[int, str]]] = {b">": [], b"<": []}
    for word in words:
        if word.startswith(b"["):
            if (found := _OPEN_SLOT.fullmatch(word)) is None:
                raise ParseError(f"open slot {_shown(word)} is not of the form [slot->-id] or [slot-<-id]")
            open_slots[found[2]].append((decimal(found[1], SLOTS - 1, "slot"), _text(found[3])))
            continue
        first_text, dash, last_text = word.partition(b"-")
        first = decimal(first_text, SLOTS - 1, "slot")
        last = decimal(last_text, SLOTS - 1, "slot") if dash else first
        if first > last:
            raise ParseError(f"slots {_shown(word)} run backwards")
        ranges.append((first, last))
    migrating, importing = _open_slots(open_slots[b">"], open_slots[b"<"])
    return _merged(ranges), migrating, importing


def node_of(line: bytes) -> NodeRecord:
    """The record of a node line without its line end."""
    words = _words(line, "node")
    if len(words) < 8:
        raise ParseError(f"a node line has at least 8 columns, this has {len(words)}")
    node_id = _check_id(words[0], "node id")
    address = address_of(words[1])
    flags = flags_of(words[2])
    primary = None if words[3] == b"-" else _text(_check_id(words[3], "primary"))
    ping, pong = decimal(words[4], U64_MAX, "ping-sent"), decimal(words[5], U64_MAX, "pong-recv")
    epoch = decimal(words[6], U64_MAX, "epoch")
    if primary is not None and "slave" in flags:
        epoch = 0  # the column shows the primary's
    slots, migrating, importing = _slots_of(words[8:])
    return NodeRecord(
        _text(node_id),
        address.ip,
        address.port,
        address.cport,
        address.hostname,
        dict(address.aux),
        flags,
        primary,
        ping,
        pong,
        epoch,
        words[7] == b"connected",
        slots,
        migrating,
        importing,
    )


def parse_node_line(line: bytes) -> NodeRecord:
    """The record that one node line holds; one line end after it is allowed.

    Flags come back in the reference's order, slots ascending and maximal, of open slots one a slot. The epoch of a
    replica that has a primary is 0, whatever the column shows. Stricter than the reference: numbers are decimal and
    in range, the primary is an id or `-`, open slots have exactly their form, quotes are refused.

    Raises: ParseError (`lineno` 1) with the reason; TypeError for anything but bytes.
    Cost: linear in the line.
    Source: NODESCONF A, 1.2 and 1.4.
    """
    if not isinstance(line, bytes):
        raise TypeError(f"a node line must be bytes, not {type(line).__name__}")
    try:
        return node_of(line[:-1] if line.endswith(b"\n") else line)
    except ParseError as error:
        raise ParseError(error.reason, 1) from None


def _slot_words(node: NodeRecord) -> list[bytes]:
    slots = _pairs(node.slots, "slots")
    for first, last in slots:
        _digits(first, SLOTS - 1, "slot")
        _digits(last, SLOTS - 1, "slot")
        if first > last:
            raise ParseError(f"slots {first}-{last} run backwards")
    words = [b"%d" % first if first == last else b"%d-%d" % (first, last) for first, last in _merged(slots)]
    migrating, importing = _open_slots(_pairs(node.migrating, "migrating"), _pairs(node.importing, "importing"))
    items = [(slot, b">", node_id) for slot, node_id in migrating] + [
        (slot, b"<", node_id) for slot, node_id in importing
    ]
    for slot, arrow, node_id in sorted(items):
        checked = _check_id(_bytes(node_id, "node id"), "node id")
        words.append(b"[%b-%b-%b]" % (_digits(slot, SLOTS - 1, "slot"), arrow, checked))
    return words


def flags_column(flags: tuple[str, ...]) -> str:
    """The flags column for canonical names in any order."""
    for flag in flags:
        if flag not in _FLAGS:
            raise ParseError(f"unknown flag {_shown(_bytes(flag, 'a flag'))}")
    return ",".join(flag for flag in _FLAGS if flag in flags) or "noflags"


def format_node_line(node: NodeRecord) -> bytes:
    """The node line of `node`, without a line end; epoch and open slots as the record has them.

    Flags are written in the reference's order, aux fields as by `format_address`, slots ascending and maximal, then
    open slots ascending.

    Raises: ParseError (`lineno` 0) where `parse_node_line` would refuse the line or read something else; TypeError.
    Source: NODESCONF 1.2.
    """
    if not isinstance(node, NodeRecord):
        raise TypeError(f"a node must be NodeRecord, not {type(node).__name__}")
    primary = b"-" if node.primary_id is None else _check_id(_bytes(node.primary_id, "primary"), "primary")
    columns = [
        _check_id(_bytes(node.id, "node id"), "node id"),
        _address_token(node, True),
        flags_column(node.flags).encode(),
        primary,
        _digits(node.ping_sent, U64_MAX, "ping-sent"),
        _digits(node.pong_recv, U64_MAX, "pong-recv"),
        _digits(node.epoch, U64_MAX, "epoch"),
        b"connected" if node.connected else b"disconnected",
        *_slot_words(node),
    ]
    line = b" ".join(columns)
    if len(line) > _MAX_LINE_BYTES:
        raise ParseError(f"a node line of {len(line)} bytes; at most {_MAX_LINE_BYTES} are taken")
    return line


# --- vars lines ---------------------------------------------------------------------------------------------------


def _var_of(name: str, value: bytes) -> int | str:
    kind = _VARS.get(name)
    if kind == "number":
        return decimal(value, U64_MAX, name)
    if kind == "boolean":
        return decimal(value, 1, name)
    if kind == "id":
        return _text(_check_id(value, name))
    if kind == "file" and _APP_FILE.fullmatch(value) is None:
        raise ParseError(f"{name} {_shown(value)} is not of the form app-<index>-<16 hex digits>")
    if kind == "checksum":
        if _CHECKSUM.fullmatch(value) is None:
            raise ParseError(f"{name} {_shown(value)} is not 16 hex digits")
        return _text(value.lower())
    return _text(value)


def vars_of(line: bytes) -> dict[str, int | str]:
    """The pairs of a vars line without its line end; known names in their own spelling, of repeated ones the last."""
    words = _words(line, "vars")
    if len(words) % 2 == 0:
        raise ParseError(f"{_shown(words[-1])} in a vars line has no value")
    pairs: dict[str, int | str] = {}
    for word, value in zip(words[1::2], words[2::2], strict=True):
        name = _VARS_BY_LOWER.get(word.lower()) or _text(word)
        pairs[name] = _var_of(name, value)
    return pairs


def vars_line(pairs: dict[str, int | str]) -> bytes:
    """The vars line of `pairs`, without a line end: known names in their order, then the others as they come.

    Raises ParseError where `vars_of` would refuse the line or read something else; TypeError.
    """
    line = b"vars"
    for name in [*(n for n in VARS_ORDER if n in pairs), *(n for n in pairs if n not in _VARS)]:
        word, value = _bytes(name, "a name in vars"), pairs[name]
        if _VARS_BY_LOWER.get(word.lower(), name) != name:
            raise ParseError(f"{_shown(word)} in vars is spelled {_VARS_BY_LOWER[word.lower()]}")
        is_number = _VARS.get(name) in ("number", "boolean")
        token = _digits(value, U64_MAX, name) if is_number else _bytes(value, f"{name} in vars")
        for part in (word, token):
            if _TOKEN.fullmatch(part) is None:
                raise ParseError(f"{_shown(part)} in vars is empty or has blanks, quotes or control bytes")
        if _var_of(name, token) != value:
            raise ParseError(f"{name} {_shown(token)} is not written as it is read")
        line += b" %b %b" % (word, token)
    if len(line) > _MAX_LINE_BYTES:
        raise ParseError(f"a vars line of {len(line)} bytes; at most {_MAX_LINE_BYTES} are taken")
    return line


# --- entries ------------------------------------------------------------------------------------------------------


def entry_line(term_text: bytes, type_text: bytes, data: bytes | None, index: int) -> tuple[int, bytes]:
    """Term and AE line of the entry at `index`: the type known and in upper case, the data well formed.

    The data of an APP entry is taken as it is; that of the others is tokens with single blanks between them.
    """
    kind = type_text.upper()
    if kind not in ENTRY_TYPES:
        raise ParseError(f"log line at index {index}: unknown type {_shown(type_text)}")
    term = decimal(term_text, U64_MAX, "term")
    if data is None:
        return term, b"%b %b" % (term_text, kind)
    if not data:
        raise ParseError(f"log line at index {index}: a blank without data after it")
    if kind == b"APP":
        if b"\n" in data:
            raise ParseError(f"log line at index {index}: a line end inside its data")
    elif _STRAY_IN_DATA.search(data) is not None:
        raise ParseError(f"log line at index {index}: data with stray blanks, quotes or control bytes")
    return term, b"%b %b %b" % (term_text, kind, data)
