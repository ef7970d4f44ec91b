"""One class for each entry type, and the way between an entry and its line.

Floor 2. Shape only: what an entry does to the state is `state.py`'s affair. Nothing of the state may be asked here.
An *entry* is `<TYPE>` or `<TYPE> <data>`, a *line* is an entry with its term in front (PROTOCOL 2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ..errors import EntryError, ParseError
from ..hot import nodesconf
from ..messages import MAX_ENTRY_BYTES
from ..records import SLOTS

__all__ = [
    "MAX_TERMLESS_BYTES",
    "AddVoter",
    "App",
    "DelVoter",
    "Entry",
    "Failover",
    "NodeFail",
    "NodeForget",
    "NodeInfo",
    "NodeJoin",
    "NodeRecover",
    "Noop",
    "SetReplicaOf",
    "SlotChange",
    "app_entry",
    "escape",
    "parse_app",
    "parse_entry",
    "parse_line",
    "unescape",
]

MAX_TERMLESS_BYTES: Final = MAX_ENTRY_BYTES - 21
"""The longest entry without its term, in bytes: with any term of up to 20 digits its line is not too long."""

_MOST: Final = (1 << 64) - 1
_ID = re.compile(rb"[0-9a-z]{40}")
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,19}")
_RANGE = re.compile(rb"(0|[1-9][0-9]{0,4})(?:-(0|[1-9][0-9]{0,4}))?")
_SWAP: Final = bytes.maketrans(b"\\\n", b"\n\\")
_APP_HEAD = re.compile(rb"([0-9a-f]{40}):(0|[1-9][0-9]{0,19})")
# Far above what any address needs, far below what would make a node line too long to be read back (NODESCONF A).
_LONGEST_ADDRESS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """The base of all entries. Equal only to an entry of the same class with equal fields."""

    TYPE: ClassVar[bytes] = b""

    def _tokens(self) -> Iterable[str]:
        return ()

    def encode(self) -> bytes:
        """The entry as bytes: `<TYPE>` or `<TYPE> <data>`.

        **Raises** EntryError where `parse_entry` would refuse the bytes, or read another entry from them.
        """
        text = " ".join((self.TYPE.decode("ascii"), *self._tokens()))
        entry = _bytes(text)
        # One set of checks, the reader's: what is made here can be read wherever it goes.
        if parse_entry(entry) != self:
            raise EntryError(f"{_show(entry)} does not say what its {type(self).__name__} holds")
        return entry


@dataclass(frozen=True, slots=True)
class Noop(Entry):
    """Nothing; the first entry of a leader's term (PROTOCOL 4)."""

    TYPE: ClassVar[bytes] = b"NOOP"


@dataclass(frozen=True, slots=True)
class NodeJoin(Entry):
    """A node becomes a member, as learner; `voter` only in a founder's self-join. `address` names its shard-id."""

    TYPE: ClassVar[bytes] = b"NODE_JOIN"
    node_id: str
    address: str
    voter: bool = False

    def _tokens(self) -> Iterable[str]:
        return self.node_id, self.address, "voter" if self.voter else "learner"


@dataclass(frozen=True, slots=True)
class NodeForget(Entry):
    """A member is removed."""

    TYPE: ClassVar[bytes] = b"NODE_FORGET"
    node_id: str
    shard_epoch: int

    def _tokens(self) -> Iterable[str]:
        return self.node_id, str(self.shard_epoch)


@dataclass(frozen=True, slots=True)
class _OneNode(Entry):
    """An entry that says nothing but whom it is about."""

    node_id: str

    def _tokens(self) -> Iterable[str]:
        return (self.node_id,)


@dataclass(frozen=True, slots=True)
class AddVoter(_OneNode):
    """A learner becomes a voter."""

    TYPE: ClassVar[bytes] = b"ADD_VOTER"


@dataclass(frozen=True, slots=True)
class DelVoter(_OneNode):
    """A voter becomes a learner."""

    TYPE: ClassVar[bytes] = b"DEL_VOTER"


@dataclass(frozen=True, slots=True)
class NodeFail(_OneNode):
    """A member is marked as failed."""

    TYPE: ClassVar[bytes] = b"NODE_FAIL"


@dataclass(frozen=True, slots=True)
class NodeRecover(_OneNode):
    """A member is no longer marked as failed."""

    TYPE: ClassVar[bytes] = b"NODE_RECOVER"


@dataclass(frozen=True, slots=True)
class SlotChange(Entry):
    """Slots go from one primary to another; None stands for nobody.

    `ranges` are (first, last) pairs, in any order, no slot twice; there is at least one. An epoch beside None means
    nothing.
    """

    TYPE: ClassVar[bytes] = b"SLOT_CHANGE"
    source_id: str | None
    source_epoch: int
    target_id: str | None
    target_epoch: int
    ranges: tuple[tuple[int, int], ...]

    def _tokens(self) -> Iterable[str]:
        yield from (self.source_id or "-", str(self.source_epoch), self.target_id or "-", str(self.target_epoch))
        yield from (str(first) if first == last else f"{first}-{last}" for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class SetReplicaOf(Entry):
    """A node leaves its shard: for `primary_id`'s, or as a primary into a new one where that is None."""

    TYPE: ClassVar[bytes] = b"SET_REPLICA_OF"
    replica_id: str
    source_shard: str
    source_epoch: int
    primary_id: str | None
    target_shard: str
    target_epoch: int

    def _tokens(self) -> Iterable[str]:
        yield from (self.replica_id, self.source_shard, str(self.source_epoch))
        yield from (self.primary_id or "-", self.target_shard, str(self.target_epoch))


@dataclass(frozen=True, slots=True)
class Failover(Entry):
    """A replica takes its primary's place."""

    TYPE: ClassVar[bytes] = b"FAILOVER"
    replica_id: str
    primary_id: str
    shard_id: str
    shard_epoch: int

    def _tokens(self) -> Iterable[str]:
        return self.replica_id, self.primary_id, self.shard_id, str(self.shard_epoch)


@dataclass(frozen=True, slots=True)
class NodeInfo(Entry):
    """What a member says of itself anew. `address` names no shard-id."""

    TYPE: ClassVar[bytes] = b"NODE_INFO"
    node_id: str
    address: str
    nofailover: bool = False

    def _tokens(self) -> Iterable[str]:
        return self.node_id, self.address, "nofailover" if self.nofailover else "noflags"


@dataclass(frozen=True, slots=True)
class App(Entry):
    """A command of the embedding service (PROTOCOL 6.3).

    `client_id` None is a command without identity, its sequence 0. Sequence 0 of a client opens its session and has
    no bytes.
    """

    TYPE: ClassVar[bytes] = b"APP"
    client_id: str | None
    sequence: int
    command: bytes = b""

    def encode(self) -> bytes:
        """As `app_entry`."""
        return app_entry(self.client_id, self.sequence, self.command)


def parse_entry(entry: bytes) -> Entry:
    """The entry that `<TYPE>` or `<TYPE> <data>` says; the type in any case.

    **Raises** EntryError with the reason.
    """
    if len(entry) > MAX_TERMLESS_BYTES:
        raise EntryError(f"an entry of {len(entry)} bytes is longer than {MAX_TERMLESS_BYTES}")
    kind, _, data = entry.partition(b" ")
    return _parse(kind, data)


def parse_line(line: bytes) -> tuple[int, Entry]:
    """(term, entry) of an AE line.

    **Raises** EntryError with the reason.
    """
    if len(line) > MAX_ENTRY_BYTES:
        raise EntryError(f"an entry line of {len(line)} bytes is longer than {MAX_ENTRY_BYTES}")
    term, _, entry = line.partition(b" ")
    kind, _, data = entry.partition(b" ")
    return _number(term, "term"), _parse(kind, data)


def parse_app(line: bytes) -> tuple[str | None, int, bytes] | None:
    """(client id, sequence, command) of an AE line that is an `APP`; None where it is of another type.

    Trusts that the line came through the codec, which keeps types in upper case. **Raises** EntryError where an
    `APP`'s data is malformed. **Cost**: one split and one match, and one copy of the command.
    """
    parts = line.split(b" ", 3)
    if len(parts) < 2 or parts[1] != b"APP":
        return None
    escaped = parts[3] if len(parts) > 3 else b""
    client_id, sequence = _app_head(parts[2] if len(parts) > 2 else b"", escaped)
    return client_id, sequence, unescape(escaped) if b"\\" in escaped else escaped


def app_entry(client_id: str | None, sequence: int, command: bytes) -> bytes:
    """`APP <client-id>:<sequence> <escaped bytes>`, or `APP - <escaped bytes>` where `client_id` is None.

    **Raises** EntryError for what `parse_entry` would refuse.
    """
    if client_id is None:
        if sequence != 0:
            raise EntryError("a command without a client has no sequence")
        head = b"-"
    else:
        head = b"%s:%d" % (_bytes(client_id), sequence)
        match = _APP_HEAD.fullmatch(head)
        if match is None or sequence > _MOST:
            raise EntryError(f"{_show(head)} is no client id and sequence")
        if sequence == 0:
            if command:
                raise EntryError("the entry that opens a session has no bytes")
            return b"APP " + head
    entry = b"APP %s %s" % (head, escape(command))
    if len(entry) > MAX_TERMLESS_BYTES:
        raise EntryError(f"a command of {len(command)} bytes makes an entry longer than {MAX_TERMLESS_BYTES}")
    return entry


def escape(data: bytes) -> bytes:
    r"""The bytes as they stand on a line: a backslash as `\\`, a newline as `\n`, any other as itself."""
    if b"\\" in data:
        data = data.replace(b"\\", b"\\\\")
    return data.replace(b"\n", b"\\n") if b"\n" in data else data


def unescape(data: bytes) -> bytes:
    """The bytes that `escape` made `data` of.

    **Raises** EntryError for a newline, for an escape that is none, and for a lone backslash at the end.
    """
    if b"\n" in data:
        raise EntryError("a newline stands in a line")
    if b"\\" not in data:
        return data
    # No newline stands in it, so one can stand for each double backslash, from the left; every backslash that is left
    # must begin a newline. Whole-string steps only: a command may be megabytes of nothing but backslashes.
    marked = data.replace(b"\\\\", b"\n")
    if marked.count(b"\\") != marked.count(b"\\n"):
        raise EntryError("a backslash that is neither doubled nor followed by n")
    return marked.replace(b"\\n", b"\\").translate(_SWAP)


def _parse(kind: bytes, data: bytes) -> Entry:
    kind = kind.upper()
    if kind == b"APP":
        head, _, escaped = data.partition(b" ")
        return App(*_app_head(head, escaped), unescape(escaped))
    reader = _READERS.get(kind)
    if reader is None:
        raise EntryError(f"unknown entry type {_show(kind)}")
    count, read = reader
    tokens = data.split(b" ") if data else []
    if len(tokens) < abs(count) or (count >= 0 and len(tokens) != count):
        raise EntryError(f"{_show(kind)} has {len(tokens)} fields, not {count if count >= 0 else f'{-count} or more'}")
    return read(tokens)


def _app_head(head: bytes, escaped: bytes) -> tuple[str | None, int]:
    if head == b"-":
        return None, 0
    match = _APP_HEAD.fullmatch(head)
    if match is None:
        raise EntryError(f"{_show(head)} is no client id and sequence")
    client, digits = match.groups()
    sequence = int(digits)
    if sequence > _MOST:
        raise EntryError(f"sequence {sequence} is out of range")
    if sequence == 0 and escaped:
        raise EntryError("the entry that opens a session has no bytes")
    return client.decode("ascii"), sequence


def _noop(tokens: list[bytes]) -> Entry:
    return Noop()


def _node_join(tokens: list[bytes]) -> Entry:
    node_id = _id(tokens[0], "node id")
    address = _address(tokens[1], with_shard=True)
    return NodeJoin(node_id, address, _word(tokens[2], b"voter", b"learner"))


def _node_info(tokens: list[bytes]) -> Entry:
    node_id = _id(tokens[0], "node id")
    address = _address(tokens[1], with_shard=False)
    return NodeInfo(node_id, address, _word(tokens[2], b"nofailover", b"noflags"))


def _node_forget(tokens: list[bytes]) -> Entry:
    return NodeForget(_id(tokens[0], "node id"), _number(tokens[1], "shard epoch"))


def _one_node(make: Callable[[str], Entry]) -> Callable[[list[bytes]], Entry]:
    return lambda tokens: make(_id(tokens[0], "node id"))


def _slot_change(tokens: list[bytes]) -> Entry:
    source_id = _id_or_none(tokens[0], "source id")
    source_epoch = _number(tokens[1], "source epoch")
    target_id = _id_or_none(tokens[2], "target id")
    target_epoch = _number(tokens[3], "target epoch")
    return SlotChange(source_id, source_epoch, target_id, target_epoch, _ranges(tokens[4:]))


def _set_replica_of(tokens: list[bytes]) -> Entry:
    return SetReplicaOf(
        _id(tokens[0], "replica id"),
        _id(tokens[1], "source shard"),
        _number(tokens[2], "source epoch"),
        _id_or_none(tokens[3], "primary id"),
        _id(tokens[4], "target shard"),
        _number(tokens[5], "target epoch"),
    )


def _failover(tokens: list[bytes]) -> Entry:
    return Failover(
        _id(tokens[0], "replica id"),
        _id(tokens[1], "primary id"),
        _id(tokens[2], "shard id"),
        _number(tokens[3], "shard epoch"),
    )


# A negative count: that many fields, or more.
_READERS: dict[bytes, tuple[int, Callable[[list[bytes]], Entry]]] = {
    Noop.TYPE: (0, _noop),
    NodeJoin.TYPE: (3, _node_join),
    NodeForget.TYPE: (2, _node_forget),
    AddVoter.TYPE: (1, _one_node(AddVoter)),
    DelVoter.TYPE: (1, _one_node(DelVoter)),
    NodeFail.TYPE: (1, _one_node(NodeFail)),
    NodeRecover.TYPE: (1, _one_node(NodeRecover)),
    SlotChange.TYPE: (-5, _slot_change),
    SetReplicaOf.TYPE: (6, _set_replica_of),
    Failover.TYPE: (4, _failover),
    NodeInfo.TYPE: (3, _node_info),
}


def _id(token: bytes, what: str) -> str:
    if _ID.fullmatch(token) is None:
        raise EntryError(f"{what} {_show(token)} is not 40 characters of 0-9a-z")
    return token.decode("ascii")


def _id_or_none(token: bytes, what: str) -> str | None:
    return None if token == b"-" else _id(token, what)


def _number(token: bytes, what: str) -> int:
    # int() alone would take b"1_0", b" 7 " and b"+7".
    if _NUMBER.fullmatch(token) is None or (number := int(token)) > _MOST:
        raise EntryError(f"{what} {_show(token)} is no number from 0 to 2^64 - 1")
    return number


def _word(token: bytes, yes: bytes, no: bytes) -> bool:
    if token != yes and token != no:
        raise EntryError(f"{_show(token)} is neither {yes.decode()} nor {no.decode()}")
    return token == yes


def _address(token: bytes, *, with_shard: bool) -> str:
    if len(token) > _LONGEST_ADDRESS:
        raise EntryError(f"an address of {len(token)} bytes is longer than {_LONGEST_ADDRESS}")
    try:
        aux = nodesconf.parse_address(token).aux
    except ParseError as error:
        raise EntryError(f"address {_show(token)}: {error.reason}") from error
    if with_shard != ("shard-id" in aux):
        raise EntryError(f"address {_show(token)} {'lacks its' if with_shard else 'must not name a'} shard-id")
    return token.decode("utf-8", "surrogateescape")


def _ranges(tokens: list[bytes]) -> tuple[tuple[int, int], ...]:
    ranges = []
    for token in tokens:
        match = _RANGE.fullmatch(token)
        if match is None:
            raise EntryError(f"{_show(token)} is no range of slots")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if not first <= last < SLOTS:
            raise EntryError(f"slots {_show(token)} are not from 0 to {SLOTS - 1}, ascending")
        ranges.append((first, last))
    highest = -1
    for first, last in sorted(ranges):
        if first <= highest:
            raise EntryError(f"slot {first} is named twice")
        highest = last
    return tuple(ranges)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise EntryError("text that can't be written as UTF-8") from None


def _show(token: bytes) -> str:
    """A token for an error's text: short whatever it holds."""
    return repr(token if len(token) <= 48 else token[:45] + b"...")[1:]
