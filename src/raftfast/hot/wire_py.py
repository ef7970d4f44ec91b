"""The bus codec in plain Python: frames to messages and back; the twin of `wire_c`.

Floor 1. Knows shapes only (PROTOCOL 1 and 2): what an entry's data means, whom a message comes from and what follows
from it are others' affairs. No socket, no clock, no state but the bytes of a frame that is not whole yet.

A change here is a change to `wire_c` too: both have the same surface and refuse the same bytes in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, final

from ..config import BUS_PORT_OFFSET as _BUS_PORT_OFFSET
from ..errors import ProtocolError
from ..messages import ENTRY_TYPES as _ENTRY_TYPES
from ..messages import MAX_ENTRY_BYTES as _MAX_ENTRY_BYTES
from ..messages import (
    AddMe,
    AppendEntries,
    AppendEntriesAck,
    FailoverPrepare,
    Hello,
    Hi,
    InstallSnapshot,
    Meet,
    MeetRejected,
    Message,
    Module,
    PreVote,
    PreVoteRequest,
    Propose,
    Publish,
    ReadIndex,
    ReadIndexNo,
    ReadIndexOk,
    Reject,
    Removed,
    ReplOffsets,
    SnapshotAck,
    SnapshotPiece,
    TimeoutNow,
    TransferLeader,
    Unknown,
    Vote,
    VoteRequest,
    Welcome,
)

__all__ = [
    "MAX_FRAME",
    "AddMe",
    "AppendEntries",
    "AppendEntriesAck",
    "FailoverPrepare",
    "FrameDecoder",
    "Hello",
    "Hi",
    "InstallSnapshot",
    "Meet",
    "MeetRejected",
    "Message",
    "Module",
    "PreVote",
    "PreVoteRequest",
    "Propose",
    "ProtocolError",
    "Publish",
    "ReadIndex",
    "ReadIndexNo",
    "ReadIndexOk",
    "Reject",
    "Removed",
    "ReplOffsets",
    "SnapshotAck",
    "SnapshotPiece",
    "TimeoutNow",
    "TransferLeader",
    "Unknown",
    "Vote",
    "VoteRequest",
    "Welcome",
    "decode",
    "encode",
]

MAX_FRAME: Final = 16 << 20

_MAGIC = b"RAFT"
_BROKEN_OFF = "a feed was broken off"
_HEADER_BYTES = 8
_MOST_FRAME_BYTES = (1 << 32) - 1
_MOST_NUMBER = (1 << 64) - 1
_MOST_ADDRESS_BYTES = 2048
_MOST_PORT = 65535
_ADDRESS_START = re.compile(rb"[^,]{0,45}:([0-9]+)(?:@([0-9]+))?(?:,|\Z)")
_MOST_VERB_BYTES = 64
_LEAST_ENTRY_BYTES = len(b"0 APP")
_NO_VERB = "a payload without a verb"
_STRAY = re.compile(rb"[\x00-\x1f\"']|\A | (?= |\Z)")
_IS_STRAY = "has data with stray blanks, quotes or control bytes"
_ID_SIZE = 40
_ID_BYTES = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyz")


# Fields: how one token is read and written. `read` gives None for a token that is not of the kind, `write` for a value
# that is not; each kind's only value None is never a token, so None can't be mistaken for it.


class _Kind(NamedTuple):
    wrong: str
    read: Callable[[bytes], object]
    write: Callable[[Any], bytes | None]


def _read_number(token: bytes) -> int | None:
    # bytes.isdigit() knows ASCII digits only, so int() sees no sign, blank or underscore.
    if not token.isdigit() or len(token) > 20 or (token[0] == 0x30 and len(token) > 1):
        return None
    number = int(token)
    return number if number <= _MOST_NUMBER else None


def _write_number(value: object) -> bytes | None:
    return b"%d" % value if type(value) is int and 0 <= value <= _MOST_NUMBER else None


def _read_signed(token: bytes) -> int | None:
    minus = token.startswith(b"-")
    number = _read_number(token[1:] if minus else token)
    if number is None or (minus and number == 0) or number > (1 << 63) - 1 + minus:
        return None
    return -number if minus else number


def _write_signed(value: object) -> bytes | None:
    return b"%d" % value if type(value) is int and -(1 << 63) <= value < 1 << 63 else None


def _read_byte(token: bytes) -> int | None:
    number = _read_number(token)
    return number if number is not None and number <= 255 else None


def _write_byte(value: object) -> bytes | None:
    return b"%d" % value if type(value) is int and 0 <= value <= 255 else None


def _read_boolean(token: bytes) -> bool | None:
    return {b"0": False, b"1": True}.get(token)


def _write_boolean(value: object) -> bytes | None:
    return (b"1" if value else b"0") if type(value) is bool else None


def _read_transfer(token: bytes) -> bool:
    return token == b"transfer"  # any other word there is a further token, to be ignored


def _write_transfer(value: object) -> bytes | None:
    return b"transfer" if value is True else None


def _text(token: bytes) -> str:
    return token.decode("utf-8", "surrogateescape")


def _text_bytes(value: object) -> bytes | None:
    """The bytes whose text is `value`; None where there are none."""
    if type(value) is not str:
        return None
    try:
        token = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return token if token.isascii() or _text(token) == value else None


def _text_kind(wrong: str, good: Callable[[bytes], bool]) -> _Kind:
    def read(token: bytes) -> str | None:
        return _text(token) if good(token) else None

    def write(value: object) -> bytes | None:
        token = _text_bytes(value)
        return token if token is not None and good(token) else None

    return _Kind(wrong, read, write)


def _is_id(token: bytes) -> bool:
    return len(token) == _ID_SIZE and _ID_BYTES.issuperset(token)


def _is_address(token: bytes) -> bool:
    """`ip:port[@cport]`, and behind a comma what only the address's own parser looks at (PROTOCOL 2, NODESCONF 1.2)."""
    if not 0 < len(token) <= _MOST_ADDRESS_BYTES or min(token) <= 0x20 or 0x7F in token:
        return False
    found = _ADDRESS_START.match(token)
    if found is None:
        return False
    port = _read_number(found[1])
    if found[2] is None:
        return port is not None and port <= _MOST_PORT - _BUS_PORT_OFFSET
    bus_port = _read_number(found[2])
    return port is not None and port <= _MOST_PORT and bus_port is not None and bus_port <= _MOST_PORT


def _is_cluster(token: bytes) -> bool:
    return token in (b"joining", b"-") or _is_id(token)


_ID = _text_kind("is not 40 characters of 0-9a-z", _is_id)
_ADDRESS = _text_kind("is not ip:port@cport[,...], of at most 2048 bytes without blanks and control bytes", _is_address)
_CLUSTER = _text_kind("is neither an id nor joining nor -", _is_cluster)
_STATUS = _text_kind("is neither singleton nor cluster", (b"singleton", b"cluster").__contains__)
_REASON = _text_kind("is neither conflict nor rejected", (b"conflict", b"rejected").__contains__)
_NUMBER = _Kind("is not a number from 0 to 2^64-1", _read_number, _write_number)
_SIGNED = _Kind("is not a number from -2^63 to 2^63-1", _read_signed, _write_signed)
_BYTE = _Kind("is not a number from 0 to 255", _read_byte, _write_byte)
_BOOLEAN = _Kind("is neither 0 nor 1", _read_boolean, _write_boolean)
_TRANSFER = _Kind("is not a bool", _read_transfer, _write_transfer)

_ALWAYS = object()


def _is_further(kind: _Kind, token: bytes) -> bool:
    """Whether a token that is no cluster's is a further one, to be ignored: a damaged id, by its length, is not."""
    return kind is _CLUSTER and len(token) != _ID_SIZE


class _Field(NamedTuple):
    name: str
    kind: _Kind
    optional: bool = False
    left_out: object = _ALWAYS  # the value for which no token is sent


class _Form(NamedTuple):
    """A verb's shape: its class, its tokens, and the two functions that know what else there is."""

    verb: bytes
    message: type[Message]
    fields: tuple[_Field, ...]
    decode: Callable[[_Form, bytes, bytes | None], Message]
    encode: Callable[[_Form, Any], bytes]

    def error(self, reason: str) -> ProtocolError:
        return ProtocolError(f"{self.verb.decode()}: {reason}")

    def read_fields(self, line: bytes) -> list[Any]:
        """The values of the first line's tokens; further tokens are ignored (PROTOCOL 1)."""
        if b"  " in line or line.endswith(b" "):
            raise self.error("an empty token")
        tokens = line.split(b" ", len(self.fields) + 1)
        values = []
        for position, field in enumerate(self.fields, 1):
            if position >= len(tokens):
                if field.optional:
                    break
                raise self.error(f"{field.name} is missing")
            value = field.kind.read(tokens[position])
            if value is None:
                if _is_further(field.kind, tokens[position]):
                    break
                raise self.error(f"{field.name} {field.kind.wrong}")
            values.append(value)
        return values

    def write_fields(self, values: Iterable[object]) -> bytes:
        """The first line."""
        tokens = [self.verb]
        for field, value in zip(self.fields, values, strict=True):
            if value is field.left_out:
                break
            token = field.kind.write(value)
            if token is None:
                raise self.error(f"{field.name} {field.kind.wrong}")
            tokens.append(token)
        return b" ".join(tokens)

    def raw(self, message: object, name: str) -> bytes:
        """A field that goes out as it is."""
        value = getattr(message, name)
        if type(value) is not bytes:
            raise self.error(f"{name} is not bytes")
        return value

    def frame(self, *parts: bytes) -> bytes:
        """The frame whose payload is these parts."""
        length = _HEADER_BYTES + sum(map(len, parts))
        if length > _MOST_FRAME_BYTES:
            raise self.error("longer than a frame can be")
        return b"".join((_MAGIC, length.to_bytes(4, "big"), *parts))


# Messages of one line.


def _decode_tokens(form: _Form, line: bytes, body: bytes | None) -> Message:
    if body is not None:
        raise form.error("a second line")
    return form.message(*form.read_fields(line))


def _encode_tokens(form: _Form, message: Message) -> bytes:
    return form.frame(form.write_fields([getattr(message, field.name) for field in form.fields]))


def _decode_repl_offsets(form: _Form, line: bytes, body: bytes | None) -> Message:
    if body is not None:
        raise form.error("a second line")
    if b"  " in line or line.endswith(b" "):
        raise form.error("an empty token")
    tokens = line.split(b" ")[1:]
    if not tokens or len(tokens) % 2:
        raise form.error("not pairs of id and offset")
    offsets = []
    for position in range(0, len(tokens), 2):
        node_id, offset = _ID.read(tokens[position]), _SIGNED.read(tokens[position + 1])
        if node_id is None:
            raise form.error(f"id {_ID.wrong}")
        if offset is None:
            raise form.error(f"offset {_SIGNED.wrong}")
        offsets.append((node_id, offset))
    return ReplOffsets(tuple(offsets))  # type: ignore[arg-type]


def _encode_repl_offsets(form: _Form, message: ReplOffsets) -> bytes:
    if type(message.offsets) is not tuple or not message.offsets:
        raise form.error("not pairs of id and offset")
    tokens = [form.verb]
    for pair in message.offsets:
        if type(pair) is not tuple or len(pair) != 2:
            raise form.error("not pairs of id and offset")
        node_id, offset = pair
        id_token, offset_token = _ID.write(node_id), _SIGNED.write(offset)
        if id_token is None:
            raise form.error(f"id {_ID.wrong}")
        if offset_token is None:
            raise form.error(f"offset {_SIGNED.wrong}")
        tokens += id_token, offset_token
    return form.frame(b" ".join(tokens))


# Messages with one entry: the rest of the line is the entry, blanks and all.


def _kept_entry(entry: bytes) -> bytes | None:
    """`<TYPE>[ <data>]` as it is kept: the type in upper case, no blank after it without data. None: unknown type."""
    kind, _, data = entry.partition(b" ")
    kind = kind.upper()
    if kind not in _ENTRY_TYPES:
        return None
    return kind + b" " + data if data else kind


def _is_stray(kind: bytes, data: bytes) -> bool:
    """Whether an entry's data can't be kept in `nodes.conf` (NODESCONF 1.7): only APP's is not tokens."""
    return kind != b"APP" and _STRAY.search(data) is not None


def _read_entry(form: _Form, entry: bytes | None, body: bytes | None) -> bytes:
    if entry is None:
        raise form.error("entry is missing")
    if body is not None:
        raise form.error("a second line")
    if len(entry) > _MAX_ENTRY_BYTES:
        raise form.error(f"entry is longer than {_MAX_ENTRY_BYTES} bytes")
    kept = _kept_entry(entry)
    if kept is None:
        raise form.error("entry has an unknown type")
    kind, _, data = kept.partition(b" ")
    if _is_stray(kind, data):
        raise form.error(f"entry {_IS_STRAY}")
    return kept


def _check_entry(form: _Form, entry: bytes) -> None:
    if len(entry) > _MAX_ENTRY_BYTES:
        raise form.error(f"entry is longer than {_MAX_ENTRY_BYTES} bytes")
    if b"\n" in entry:
        raise form.error("entry holds a newline")
    kept = _kept_entry(entry)
    if kept is None:
        raise form.error("entry has an unknown type")
    if kept != entry:
        raise form.error("entry is not in the form in which it is kept")
    kind, _, data = entry.partition(b" ")
    if _is_stray(kind, data):
        raise form.error(f"entry {_IS_STRAY}")


def _rest(line: bytes, tokens: int) -> bytes | None:
    """What follows the first `tokens` tokens and a blank; None where there is no such blank."""
    parts = line.split(b" ", tokens)
    return parts[tokens] if len(parts) > tokens else None


def _decode_propose(form: _Form, line: bytes, body: bytes | None) -> Message:
    return Propose(_read_entry(form, _rest(line, 1), body))


def _encode_propose(form: _Form, message: Propose) -> bytes:
    entry = form.raw(message, "entry")
    _check_entry(form, entry)
    return form.frame(form.verb, b" ", entry)


def _decode_reject(form: _Form, line: bytes, body: bytes | None) -> Message:
    tokens = line.split(b" ", 2)
    if len(tokens) < 2:
        raise form.error("reason is missing")
    reason = _REASON.read(tokens[1])
    if reason is None:
        raise form.error(f"reason {_REASON.wrong}")
    return Reject(reason, _read_entry(form, _rest(line, 2), body))  # type: ignore[arg-type]


def _encode_reject(form: _Form, message: Reject) -> bytes:
    entry = form.raw(message, "entry")
    reason = _REASON.write(message.reason)
    if reason is None:
        raise form.error(f"reason {_REASON.wrong}")
    _check_entry(form, entry)
    return form.frame(form.verb, b" ", reason, b" ", entry)


# AppendEntries.


def _decode_append_entries(form: _Form, line: bytes, body: bytes | None) -> Message:
    leader_id, term, prev_index, prev_term, commit, count, *round_ = form.read_fields(line)
    if prev_term > term:
        raise form.error("prev_log_term is above term")
    if count != (0 if body is None else body.count(b"\n") + 1):
        raise form.error("count is not the number of entry lines")
    terms, lines = _read_lines(form, body, count, prev_term, term) if body is not None else ((), ())
    return AppendEntries(leader_id, term, prev_index, prev_term, commit, terms, lines, *round_)


def _read_lines(
    form: _Form, body: bytes, count: int, least: int, most: int
) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    # Bounds what a body of nothing but newlines makes us allocate.
    if count > (len(body) + 1) // (_LEAST_ENTRY_BYTES + 1):
        raise form.error("an entry line without term and type")
    lines = body.split(b"\n")
    terms = []
    token, term = None, least
    for position, line in enumerate(lines):
        if len(line) > _MAX_ENTRY_BYTES:
            raise form.error(f"entry {position} is longer than {_MAX_ENTRY_BYTES} bytes")
        parts = line.split(b" ", 2)
        if len(parts) < 2:
            raise form.error(f"entry {position} is not a term and a type")
        if parts[0] != token:
            token = parts[0]
            term = _read_term(form, position, token, term, most)
        if parts[1] not in _ENTRY_TYPES or (len(parts) == 3 and not parts[2]):
            kept = _kept_entry(line[len(token) + 1 :])
            if kept is None:
                raise form.error(f"entry {position} has an unknown type")
            lines[position] = token + b" " + kept
        if len(parts) == 3 and parts[1] != b"APP" and _is_stray(parts[1].upper(), parts[2]):
            raise form.error(f"entry {position} {_IS_STRAY}")
        terms.append(term)
    return tuple(terms), tuple(lines)


def _read_term(form: _Form, position: int, token: bytes, least: int, most: int) -> int:
    term = _read_number(token)
    if term is None:
        raise form.error(f"the term of entry {position} {_NUMBER.wrong}")
    _check_term(form, position, term, least, most)
    return term


def _check_term(form: _Form, position: int, term: int, least: int, most: int) -> None:
    if term < least:
        raise form.error(f"the term of entry {position} falls")
    if term > most:
        raise form.error(f"the term of entry {position} is above the leader's")


def _encode_append_entries(form: _Form, message: AppendEntries) -> bytes:
    terms, lines = message.terms, message.lines
    if type(terms) is not tuple or type(lines) is not tuple or len(terms) != len(lines):
        raise form.error("terms and lines are not two tuples of one length")
    heading = form.write_fields(
        (
            message.leader_id,
            message.term,
            message.prev_log_index,
            message.prev_log_term,
            message.leader_commit,
            len(lines),
            message.round,
        )
    )
    if message.prev_log_term > message.term:
        raise form.error("prev_log_term is above term")
    _check_lines(form, terms, lines, message.prev_log_term, message.term)
    return form.frame(b"\n".join((heading, *lines)))


def _check_lines(form: _Form, terms: Sequence[object], lines: Sequence[object], least: int, most: int) -> None:
    size = 0
    prefix = b"%d " % least
    for position, (term, line) in enumerate(zip(terms, lines, strict=True)):
        if type(line) is not bytes:
            raise form.error(f"entry {position} is not bytes")
        if len(line) > _MAX_ENTRY_BYTES:
            raise form.error(f"entry {position} is longer than {_MAX_ENTRY_BYTES} bytes")
        if type(term) is not int or not 0 <= term <= _MOST_NUMBER:
            raise form.error(f"the term of entry {position} {_NUMBER.wrong}")
        if term != least:
            _check_term(form, position, term, least, most)
            least, prefix = term, b"%d " % term
        if not line.startswith(prefix):
            raise form.error(f"entry {position} does not begin with its term")
        if b"\n" in line:
            raise form.error(f"entry {position} holds a newline")
        parts = line.split(b" ", 2)
        if parts[1] not in _ENTRY_TYPES or (len(parts) == 3 and not parts[2]):
            if _kept_entry(line[len(prefix) :]) is None:
                raise form.error(f"entry {position} has an unknown type")
            raise form.error(f"entry {position} is not in the form in which it is kept")
        if len(parts) == 3 and parts[1] != b"APP" and _is_stray(parts[1], parts[2]):
            raise form.error(f"entry {position} {_IS_STRAY}")
        size += len(line) + 1
        if size > _MOST_FRAME_BYTES:
            raise form.error("longer than a frame can be")


# Messages with raw bytes behind the first line. Lengths are compared with what is there, one by one; never summed.


def _values_and_body(form: _Form, line: bytes, body: bytes | None) -> tuple[list[Any], bytes]:
    if body is None:
        raise form.error("no line end before the bytes")
    return form.read_fields(line), body


def _decode_install_snapshot(form: _Form, line: bytes, body: bytes | None) -> Message:
    (leader_id, term, index, last_term), data = _values_and_body(form, line, body)
    return InstallSnapshot(leader_id, term, index, last_term, data)


def _encode_install_snapshot(form: _Form, message: InstallSnapshot) -> bytes:
    data = form.raw(message, "data")
    heading = form.write_fields([getattr(message, field.name) for field in form.fields])
    return form.frame(heading, b"\n", data)


def _decode_snapshot_piece(form: _Form, line: bytes, body: bytes | None) -> Message:
    (leader_id, term, index, last_term, offset, size, total), data = _values_and_body(form, line, body)
    if size != len(data):
        raise form.error("size is not that of the bytes")
    if offset > total or size > total - offset:
        raise form.error("the piece ends past the total")
    return SnapshotPiece(leader_id, term, index, last_term, offset, total, data)


def _encode_snapshot_piece(form: _Form, message: SnapshotPiece) -> bytes:
    data = form.raw(message, "data")
    heading = form.write_fields(
        (
            message.leader_id,
            message.term,
            message.last_included_index,
            message.last_included_term,
            message.offset,
            len(data),
            message.total,
        )
    )
    if message.offset > message.total or len(data) > message.total - message.offset:
        raise form.error("the piece ends past the total")
    return form.frame(heading, b"\n", data)


def _decode_publish(form: _Form, line: bytes, body: bytes | None) -> Message:
    (sharded, channel_size, message_size), data = _values_and_body(form, line, body)
    if channel_size > len(data) or message_size != len(data) - channel_size:
        raise form.error("the lengths are not those of the bytes")
    return Publish(sharded, data[:channel_size], data[channel_size:])


def _encode_publish(form: _Form, message: Publish) -> bytes:
    channel, data = form.raw(message, "channel"), form.raw(message, "message")
    heading = form.write_fields((message.sharded, len(channel), len(data)))
    return form.frame(heading, b"\n", channel, data)


def _decode_module(form: _Form, line: bytes, body: bytes | None) -> Message:
    (module_id, kind, size), data = _values_and_body(form, line, body)
    if size != len(data):
        raise form.error("len is not that of the bytes")
    return Module(module_id, kind, data)


def _encode_module(form: _Form, message: Module) -> bytes:
    data = form.raw(message, "data")
    heading = form.write_fields((message.module_id, message.type, len(data)))
    return form.frame(heading, b"\n", data)


def _numbers(*names: str) -> tuple[_Field, ...]:
    return tuple(_Field(name, _NUMBER) for name in names)


def _tokens(verb: bytes, message: type[Message], *fields: _Field) -> _Form:
    return _Form(verb, message, fields, _decode_tokens, _encode_tokens)


_INTRODUCTION = (
    _Field("node_id", _ID),
    _Field("address", _ADDRESS),
    _Field("cluster", _CLUSTER, optional=True, left_out=None),
)
_ROUND = _Field("round", _NUMBER, optional=True, left_out=None)
_LEADER = _Field("leader_id", _ID)
_STAND = (_Field("candidate_id", _ID), *_numbers("term", "last_log_index", "last_log_term"))
_GRANT = (*_numbers("term"), _Field("granted", _BOOLEAN))
_SNAPSHOT = (_LEADER, *_numbers("term", "last_included_index", "last_included_term"))

_FORMS = (
    _tokens(b"HELLO", Hello, *_INTRODUCTION),
    _tokens(b"HI", Hi, *_INTRODUCTION),
    _tokens(b"MEET", Meet, _Field("status", _STATUS)),
    _tokens(b"ADD_ME", AddMe),
    _tokens(b"WELCOME", Welcome),
    _tokens(b"MEET_REJECTED", MeetRejected),
    _tokens(b"REMOVED", Removed, *_numbers("index")),
    _Form(
        b"AE",
        AppendEntries,
        (_LEADER, *_numbers("term", "prev_log_index", "prev_log_term", "leader_commit", "count"), _ROUND),
        _decode_append_entries,
        _encode_append_entries,
    ),
    _tokens(
        b"AE_ACK",
        AppendEntriesAck,
        *_numbers("term"),
        _Field("success", _BOOLEAN),
        *_numbers("index"),
        _Field("repl_offset", _SIGNED, optional=True),
        _ROUND,
    ),
    _tokens(b"PRE_VOTE_REQ", PreVoteRequest, *_STAND),
    _tokens(b"PRE_VOTE", PreVote, *_GRANT),
    _tokens(b"VOTE_REQ", VoteRequest, *_STAND, _Field("transfer", _TRANSFER, optional=True, left_out=False)),
    _tokens(b"VOTE", Vote, *_GRANT),
    _Form(b"INSTALL_SNAPSHOT", InstallSnapshot, _SNAPSHOT, _decode_install_snapshot, _encode_install_snapshot),
    _Form(
        b"SNAPSHOT_PIECE",
        SnapshotPiece,
        (*_SNAPSHOT, *_numbers("offset", "size", "total")),
        _decode_snapshot_piece,
        _encode_snapshot_piece,
    ),
    _tokens(b"SNAPSHOT_ACK", SnapshotAck, *_numbers("term", "last_included_index", "next_offset")),
    _Form(b"PROPOSE", Propose, (), _decode_propose, _encode_propose),
    _Form(b"REJECT", Reject, (), _decode_reject, _encode_reject),
    _tokens(b"READ_INDEX", ReadIndex, *_numbers("number")),
    _tokens(b"READ_INDEX_OK", ReadIndexOk, *_numbers("number", "index")),
    _tokens(b"READ_INDEX_NO", ReadIndexNo, *_numbers("number")),
    _tokens(b"TRANSFER_LEADER", TransferLeader, *_numbers("term")),
    _tokens(b"TIMEOUT_NOW", TimeoutNow, *_numbers("term")),
    _Form(b"REPL_OFFSETS", ReplOffsets, (), _decode_repl_offsets, _encode_repl_offsets),
    _tokens(b"FAILOVER_PREPARE", FailoverPrepare),
    _Form(
        b"PUBLISH",
        Publish,
        (_Field("sharded", _BOOLEAN), *_numbers("chan_len", "msg_len")),
        _decode_publish,
        _encode_publish,
    ),
    _Form(
        b"MODULE",
        Module,
        (*_numbers("module_id"), _Field("type", _BYTE), *_numbers("len")),
        _decode_module,
        _encode_module,
    ),
)
_BY_VERB = {form.verb: form for form in _FORMS}
_BY_CLASS = {form.message: form for form in _FORMS}


def _buffer_bytes(data: object, verb: str) -> bytes:
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{verb} takes a bytes-like object, not {type(data).__name__}") from None
    if not view.c_contiguous:
        raise TypeError(f"{verb} takes a contiguous buffer")
    return view.tobytes()


def decode(payload: bytes | bytearray | memoryview) -> Message:
    """The message that the payload of one frame holds; `Unknown` where its verb is not known.

    Lines are kept as they came but for two things: entry types are in upper case, and a blank behind a type without
    data is dropped. Raises ProtocolError, and nothing else, for any bytes at all; TypeError for what is no buffer.
    Cost: linear. Source: PROTOCOL 1 and 2.
    """
    line, newline, body = _buffer_bytes(payload, "decode").partition(b"\n")
    verb = line.split(b" ", 1)[0]
    if not verb:
        raise ProtocolError(_NO_VERB)
    form = _BY_VERB.get(verb.upper())
    if form is None:
        return Unknown(_text(verb[:_MOST_VERB_BYTES]))
    return form.decode(form, line, body if newline else None)


def encode(message: Message) -> bytes:
    """One whole frame that holds the message.

    Refuses, by ProtocolError, a field of a wrong type or range, whatever `decode` would refuse, and whatever it would
    not give back equal; `Unknown` can't be sent. TypeError for what is no message. Frames of up to 2^32-1 bytes
    are made: what a peer takes is its own `max_frame`. Cost: linear. Source: PROTOCOL 1 and 2.
    """
    form = _BY_CLASS.get(type(message))
    if form is None:
        if isinstance(message, Message):
            raise ProtocolError(f"{type(message).__name__} can't be sent")
        raise TypeError(f"encode takes a message, not {type(message).__name__}")
    return form.encode(form, message)


@final
class FrameDecoder:
    """Turns the bytes of one connection into messages, however they are cut.

    `max_frame` is the longest frame taken, in bytes, header included: 8 to 2^32-1. Raises TypeError where it is no
    int, ValueError where it is out of range. Source: PROTOCOL 1.
    """

    __slots__ = ("_failure", "_max_frame", "_pending")

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        if type(max_frame) is not int:
            raise TypeError(f"max_frame must be an int, not {type(max_frame).__name__}")
        if not _HEADER_BYTES <= max_frame <= _MOST_FRAME_BYTES:
            raise ValueError(f"max_frame must be from {_HEADER_BYTES} to {_MOST_FRAME_BYTES}")
        self._max_frame = max_frame
        self._pending = bytearray()  # the beginning of a frame that is not whole yet
        self._failure: str | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a FrameDecoder can't be pickled or copied")

    @property
    def buffered(self) -> int:
        """How many bytes are kept: those of a frame that is not whole yet."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """The messages that `data` completes, in order; the bytes of a frame that is not whole are kept.

        Raises ProtocolError as soon as the bytes that show a fault have arrived. What stood whole before the fault is
        not lost: it is in the error's `messages`. From then on every feed raises ProtocolError; so it does after a feed
        that anything else, as a lack of memory, broke off. TypeError for what is no contiguous buffer; nothing is taken
        then. Cost: linear in the bytes fed, whatever the cut; memory: the bytes
        that are there, never what a header announces.
        """
        if self._failure is not None:
            raise ProtocolError(f"refused after a protocol error: {self._failure}")
        source: bytes | bytearray = _buffer_bytes(data, "feed")
        messages: list[Message] = []
        position = 0
        try:
            if self._pending:
                self._pending += source
                source = self._pending
            while (length := self._frame_length(source, position)) and length <= len(source) - position:
                messages.append(decode(bytes(source[position + _HEADER_BYTES : position + length])))
                position += length
            if source is self._pending:
                del self._pending[:position]
            else:
                self._pending += source[position:]
        except ProtocolError as error:
            self._failure = str(error)
            self._pending = bytearray()
            error.messages = tuple(messages)
            raise
        except BaseException:
            # How much was taken the caller can't know: what comes next would be read in the wrong place.
            self._failure = _BROKEN_OFF
            self._pending = bytearray()
            raise
        return messages

    def _frame_length(self, source: bytes | bytearray, position: int) -> int:
        """The length of the frame that begins at `position`; 0 while its header is not whole."""
        header = source[position : position + _HEADER_BYTES]
        if header[:4] != _MAGIC[: len(header)]:
            raise ProtocolError("a frame with the wrong magic")
        if len(header) < _HEADER_BYTES:
            # The least length that can come of what is there.
            if int.from_bytes(header[4:].ljust(4, b"\0"), "big") > self._max_frame:
                raise self._too_long()
            return 0
        length = int.from_bytes(header[4:], "big")
        if length < _HEADER_BYTES:
            raise ProtocolError(f"a frame of {length} bytes, less than its header")
        if length > self._max_frame:
            raise self._too_long()
        return length

    def _too_long(self) -> ProtocolError:
        # In the same words whether all of the length has arrived or only the part that shows it.
        return ProtocolError(f"a frame above the limit of {self._max_frame} bytes")
