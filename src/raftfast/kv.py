"""The built-in replicated store: Redis' strings as an ordinary `StateMachine`, and the example to copy.

Floor 5, but it knows nothing of nodes or sockets: commands come in as bytes, results go out as bytes. Never here: a
clock, randomness, or anything else by which two members that apply the same commands could come to differ.

A command is its arguments, each as `<length>:<bytes>`; there is no newline in the form, so most commands need no
escaping in the log. A result is a RESP2 reply, which the client port can pass on as it is.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator

from .cluster.keyslot import key_slot
from .errors import RaftError, SnapshotError
from .records import SLOTS
from .statemachine import StateMachine

__all__ = ["KeyValueStore", "ReplyError", "decode_command", "decode_result", "encode_command"]

MAX_VALUE_BYTES = 512 << 20
"""The longest value, in bytes. A single command brings less (PROTOCOL 1); APPEND can add up to it."""

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_PIECE_BYTES = 256 << 10
_HEAD = re.compile(rb"kv 1 (0|[1-9][0-9]{0,19})\n")
_LONGEST_HEAD = len("kv 1 18446744073709551615\n")
_PARTS = 1024

_OK = b"+OK\r\n"
_NULL = b"$-1\r\n"
_NOT_AN_INTEGER = b"value is not an integer or out of range"
_OVERFLOW = b"-ERR increment or decrement would overflow\r\n"
_TOO_LONG = b"-ERR string exceeds maximum allowed size (512MB)\r\n"


class ReplyError(RaftError, ValueError):
    """The store's own refusal of a command: it was applied and changed nothing. The text is Redis' error text."""


def encode_command(*arguments: bytes | str | int) -> bytes:
    """The bytes to propose for a command, as in `encode_command("SET", "key", b"value")`.

    Text is encoded as UTF-8, whole numbers as decimal digits. **Raises** TypeError for anything else. What the command
    means is looked at where it is applied: a wrong one gets an error result.
    """
    parts = []
    for argument in arguments:
        raw = _as_bytes(argument)
        parts.append(b"%d:" % len(raw))
        parts.append(raw)
    return b"".join(parts)


def _as_bytes(argument: bytes | str | int) -> bytes:
    if isinstance(argument, bytes):
        return argument
    if isinstance(argument, str):
        return argument.encode()
    if isinstance(argument, int) and not isinstance(argument, bool):
        return b"%d" % argument
    raise TypeError(f"an argument must be bytes, str or int, not {type(argument).__name__}")


def decode_command(command: bytes) -> list[bytes]:
    """The arguments of a command. **Raises** ValueError where it is none. **Cost** linear."""
    arguments = []
    position, end = 0, len(command)
    while position < end:
        # a length has at most ten digits: no search for a colon runs through a whole value
        colon = command.find(b":", position, position + 11)
        if colon < 0:
            raise ValueError("an argument without its length")
        digits = command[position:colon]
        if not digits.isdigit() or (digits[0] == 48 and len(digits) > 1):
            raise ValueError("a length that is no decimal number")
        length = int(digits)
        if length > end - colon - 1:
            raise ValueError("an argument that is cut short")
        position = colon + 1 + length
        arguments.append(command[colon + 1 : position])
    return arguments


def _length(digits: bytes) -> int:
    if not digits.isdigit() or (digits[0] == 48 and len(digits) > 1):
        raise ValueError("a length that is no decimal number")
    return int(digits)


def decode_result(result: bytes | None) -> bytes | int | str | None:
    """What a result says: bytes for a value, an int for a number, `"OK"`, or None for no value.

    **Raises** ReplyError where the store refused the command, ValueError where this is no result.
    """
    if result is None or not result.endswith(b"\r\n"):
        raise ValueError("no result of the key-value store")
    kind, line = result[:1], result[1:-2]
    if kind == b"-":
        raise ReplyError(line.decode("utf-8", "replace").removeprefix("ERR "))
    if kind == b"+":
        return line.decode()
    if kind == b":":
        return int(line)
    if result == _NULL:
        return None
    digits, _, value = line.partition(b"\r\n")
    if kind != b"$" or _length(digits) != len(value):
        raise ValueError("no result of the key-value store")
    return value


def _value(raw: bytes | None) -> bytes:
    return _NULL if raw is None else b"$%d\r\n%b\r\n" % (len(raw), raw)


def _number(raw: bytes) -> int | None:
    """A signed 64-bit number in its one canonical form, as Redis reads it; None for anything else."""
    digits = raw[1:] if raw[:1] == b"-" else raw
    if not 0 < len(digits) <= 19 or not digits.isdigit() or (digits[0] == 48 and raw != b"0"):
        return None
    number = int(raw)
    return number if _INT64_MIN <= number <= _INT64_MAX else None


class _Values:
    """Keys and values in 1,024 dicts by the key's CRC-32: one of them is copied, sorted or freed at a time.

    With a single dict each of these is one step of the interpreter, in which no other thread runs: with a million keys
    the event loop would stand still for a tenth of a second or more, whichever thread takes the step.
    """

    __slots__ = ("_frozen", "_parts")

    def __init__(self) -> None:
        self._parts: list[dict[bytes, bytes]] = [{} for _ in range(_PARTS)]
        self._frozen = bytearray(_PARTS)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, key: bytes) -> bool:
        return key in self._parts[zlib.crc32(key) % _PARTS]

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self._parts)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return itertools.chain.from_iterable(part.items() for part in self._parts)

    def get(self, key: bytes) -> bytes | None:
        return self._parts[zlib.crc32(key) % _PARTS].get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._own(key)[key] = value

    def pop(self, key: bytes) -> bytes | None:
        return self._own(key).pop(key, None)

    def _own(self, key: bytes) -> dict[bytes, bytes]:
        """The part of `key`, to be changed: a copy where a snapshot still looks at it."""
        place = zlib.crc32(key) % _PARTS
        if self._frozen[place]:
            self._frozen[place] = 0
            self._parts[place] = self._parts[place].copy()
        return self._parts[place]

    def freeze(self) -> list[dict[bytes, bytes]]:
        """The parts as they are now; what is changed later is not seen in them. **Cost**: a few microseconds."""
        self._frozen = bytearray(b"\1" * _PARTS)
        return self._parts.copy()

    def clear(self) -> None:
        """Lets go of the parts one by one; for a thread that has the time."""
        while self._parts:
            self._parts.pop()


class KeyValueStore(StateMachine):
    """Keys and values, both bytes.

    Commands: `SET key value [NX|XX] [GET]`, `GETSET`, `DEL key…`, `INCR`, `INCRBY`, `DECR`, `DECRBY`, `APPEND`,
    `MSET key value…`, `FLUSHALL`, proposed as in `await node.propose(encode_command("SET", "key", "value"))`. The other
    methods read this member's state: after `await node.barrier()` such a read is linearizable.

    Invariants: 1. keys and values are `bytes`. 2. the slot index, if there is one, holds each key once, in its slot.
    """

    def __init__(self) -> None:
        self._values = _Values()
        # slot -> its keys, in order of arrival. Built when it is first asked for, then kept: a store that nobody
        # scans pays nothing for it.
        self._slots: list[dict[bytes, None]] | None = None

    # -- the StateMachine ------------------------------------------------------------------------------------------

    def apply(self, index: int, command: bytes) -> bytes:
        """Applies one command; the result is a RESP2 reply, an error reply for what is no command. Never raises."""
        try:
            arguments = decode_command(command)
        except ValueError as error:
            return b"-ERR not a command of the key-value store: %b\r\n" % str(error).encode()
        verb = arguments[0].upper() if arguments else b""
        fault = _fault(verb, arguments)
        return _VERBS[verb][1](self, arguments) if fault is None else b"-ERR %b\r\n" % fault

    def encode(self, arguments: list[bytes]) -> bytes:
        """As `encode_command`, for a command that should be right: **raises** ReplyError where it can't succeed.

        So that what a user mistyped costs no entry of the log. (`apply` looks again: it must not trust a proposer.)
        """
        fault = _fault(arguments[0].upper() if arguments else b"", arguments)
        if fault is not None:
            raise ReplyError(fault.decode())
        return b"".join([b"%d:%b" % (len(argument), argument) for argument in arguments])

    def snapshot(self) -> Iterator[bytes]:
        """The state in pieces of about 256 KiB: a count, then each key and value, in an order that equal states share.

        **Cost** to begin: a few microseconds. The first change of each of 1,024 parts afterwards copies that part.
        """
        return _pieces(self._values.freeze())

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Takes the state of a snapshot; no bytes at all are the state of a new store.

        **Raises** SnapshotError, and keeps the old state, where anything is off.
        """
        values = _parse(iter(pieces))
        old, self._values, self._slots = self._values, values, None
        old.clear()

    def digest(self) -> str:
        """40 hex digits that are equal for equal states. **Cost** one pass over the whole state."""
        checksum = hashlib.sha1(usedforsecurity=False)
        for piece in self.snapshot():
            checksum.update(piece)
        return checksum.hexdigest()

    # -- local reads -----------------------------------------------------------------------------------------------

    # no __len__: an empty store would be false, and `if state_machine:` a trap
    @property
    def size(self) -> int:
        """How many keys there are."""
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and key in self._values

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return self._values.get(key)

    def keys(self, pattern: bytes = b"*") -> list[bytes]:
        """The keys that match a glob: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what is meant literally."""
        if pattern == b"*":
            return list(self._values)
        matches = _glob(pattern)
        return [key for key in self._values if matches(key)]

    def scan(self, cursor: int, pattern: bytes = b"*", count: int = 10) -> tuple[int, list[bytes]]:
        """About `count` keys from `cursor` on, those that match, and the cursor to go on with: 0 when all is seen.

        A key that is there from the first call to the last is given exactly once, whatever comes and goes
        meanwhile: a cursor is a place in the order of (slot, CRC-32 of the key), so it also holds on another member.
        """
        slots = self._index()
        slot, start = cursor >> 32, cursor & 0xFFFFFFFF
        found: list[bytes] = []
        while slot < SLOTS and len(found) < count:
            keys, start = _bucket_part(slots[slot], start, count - len(found))
            found += keys
            if start > 0xFFFFFFFF:
                slot, start = slot + 1, 0
        matches = _glob(pattern)
        return (slot << 32 | start if slot < SLOTS else 0), [key for key in found if matches(key)]

    def keys_in_slot(self, slot: int) -> list[bytes]:
        """The keys of a hash slot."""
        return list(self._index()[slot])

    def check(self) -> None:
        """**Raises** ValueError where an invariant of this class does not hold (for tests)."""
        for key, value in self._values.items():
            if type(key) is not bytes or type(value) is not bytes:
                raise ValueError(f"invariant 1: {key!r} or its value is not bytes")
        if self._slots is not None:
            kept = [(slot, key) for slot, keys in enumerate(self._slots) for key in keys]
            if sorted(kept) != sorted((key_slot(key), key) for key in self._values):
                raise ValueError("invariant 2: the slot index does not hold the keys")

    # -- changes: everything below runs at apply, and only there -----------------------------------------------------

    def _put(self, key: bytes, value: bytes) -> None:
        if self._slots is not None and key not in self._values:
            self._slots[key_slot(key)][key] = None
        self._values.put(key, value)

    def _drop(self, key: bytes) -> bool:
        if self._values.pop(key) is None:
            return False
        if self._slots is not None:
            del self._slots[key_slot(key)][key]
        return True

    def _index(self) -> list[dict[bytes, None]]:
        if self._slots is None:
            self._slots = [{} for _ in range(SLOTS)]
            for key in self._values:
                self._slots[key_slot(key)][key] = None
        return self._slots

    def _set(self, arguments: list[bytes]) -> bytes:
        key, value = arguments[1], arguments[2]
        if len(arguments) == 3:
            self._put(key, value)
            return _OK
        options = {option.upper() for option in arguments[3:]}
        old = self._values.get(key)
        taken = not ((b"NX" in options and old is not None) or (b"XX" in options and old is None))
        if taken:
            self._put(key, value)
        if b"GET" in options:
            return _value(old)
        return _OK if taken else _NULL

    def _getset(self, arguments: list[bytes]) -> bytes:
        old = self._values.get(arguments[1])
        self._put(arguments[1], arguments[2])
        return _value(old)

    def _del(self, arguments: list[bytes]) -> bytes:
        return b":%d\r\n" % sum(self._drop(key) for key in arguments[1:])

    def _append(self, arguments: list[bytes]) -> bytes:
        key, tail = arguments[1], arguments[2]
        old = self._values.get(key) or b""
        if len(tail) > MAX_VALUE_BYTES - len(old):
            return _TOO_LONG
        self._put(key, old + tail)
        return b":%d\r\n" % (len(old) + len(tail))

    def _mset(self, arguments: list[bytes]) -> bytes:
        for position in range(1, len(arguments), 2):
            self._put(arguments[position], arguments[position + 1])
        return _OK

    def _flushall(self, arguments: list[bytes]) -> bytes:
        self._values, self._slots = _Values(), None
        return _OK

    def _add(self, key: bytes, amount: int) -> bytes:
        kept = self._values.get(key)
        old = 0 if kept is None else _number(kept)
        if old is None:
            return b"-ERR %b\r\n" % _NOT_AN_INTEGER
        if not _INT64_MIN <= old + amount <= _INT64_MAX:
            return _OVERFLOW
        self._put(key, b"%d" % (old + amount))
        return b":%d\r\n" % (old + amount)

    def _incr(self, arguments: list[bytes]) -> bytes:
        return self._add(arguments[1], 1)

    def _decr(self, arguments: list[bytes]) -> bytes:
        return self._add(arguments[1], -1)

    def _incrby(self, arguments: list[bytes]) -> bytes:
        return self._add(arguments[1], int(arguments[2]))

    def _decrby(self, arguments: list[bytes]) -> bytes:
        return self._add(arguments[1], -int(arguments[2]))


_VERBS: dict[bytes, tuple[int, Callable[[KeyValueStore, list[bytes]], bytes]]] = {
    b"SET": (-3, KeyValueStore._set),
    b"GETSET": (3, KeyValueStore._getset),
    b"DEL": (-2, KeyValueStore._del),
    b"INCR": (2, KeyValueStore._incr),
    b"DECR": (2, KeyValueStore._decr),
    b"INCRBY": (3, KeyValueStore._incrby),
    b"DECRBY": (3, KeyValueStore._decrby),
    b"APPEND": (3, KeyValueStore._append),
    b"MSET": (-3, KeyValueStore._mset),
    b"FLUSHALL": (-1, KeyValueStore._flushall),
}
"""Verb → (arity as Redis counts it: the verb included, negative for "at least"; what it does)."""


def _fault(verb: bytes, arguments: list[bytes]) -> bytes | None:
    """What is wrong with a command whatever the state, in Redis' words; None where nothing is."""
    known = _VERBS.get(verb)
    if known is None:
        return b"not a command of the key-value store"
    arity, count = known[0], len(arguments)
    if (count != arity if arity > 0 else count < -arity) or (verb == b"MSET" and count % 2 == 0):
        return b"wrong number of arguments for '%b' command" % verb.lower()
    if verb == b"SET" and count > 3:
        options = {option.upper() for option in arguments[3:]}
        return b"syntax error" if options - {b"NX", b"XX", b"GET"} or options >= {b"NX", b"XX"} else None
    if verb == b"FLUSHALL" and (count > 2 or (count == 2 and arguments[1].upper() not in (b"SYNC", b"ASYNC"))):
        return b"syntax error"
    if verb in (b"INCRBY", b"DECRBY"):
        amount = _number(arguments[2])
        if amount is None:
            return _NOT_AN_INTEGER
        if verb == b"DECRBY" and amount == _INT64_MIN:
            return b"decrement would overflow"
    return None


# -- snapshots -----------------------------------------------------------------------------------------------------


def _pieces(parts: list[dict[bytes, bytes]]) -> Iterator[bytes]:
    texts, size = [b"kv 1 %d\n" % sum(map(len, parts))], 0
    while parts:
        part = parts.pop()
        for key in sorted(part):
            value = part[key]
            texts += (b"%d:" % len(key), key, b"%d:" % len(value), value)
            size += len(key) + len(value) + 8
            if size >= _PIECE_BYTES:
                yield b"".join(texts)
                texts, size = [], 0
    if texts:
        yield b"".join(texts)


def _parse(pieces: Iterator[bytes]) -> _Values:
    """The values that a snapshot's bytes hold, and nothing else: a wrong count or form, or a key that stands twice,
    refuses it whole. No bytes at all are no values."""
    values, start = _Values(), b""
    while len(start) < _LONGEST_HEAD and (piece := next(pieces, None)) is not None:
        start += piece
    if not start:
        return values
    head = _HEAD.match(start)
    try:
        if head is None:
            raise ValueError("it does not begin as one")
        fields = _fields(itertools.chain((start[head.end() :],), pieces))
        count = 0
        for key in fields:
            value = next(fields, None)
            if value is None:
                raise ValueError("a key without its value")
            if key in values:
                raise ValueError("a key that stands twice")
            values.put(key, value)
            count += 1
        if count != int(head[1]):
            raise ValueError(f"{count} keys where {int(head[1])} are announced")
    except ValueError as error:
        raise SnapshotError(f"no snapshot of the key-value store: {error}") from error
    return values


def _fields(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What `decode_command` gives of the joined pieces, without joining them. **Raises** ValueError."""
    waiting: list[bytes] = []
    held = needed = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held < needed:
            continue  # within a long value: it is joined once, when it is whole
        data, position, needed = b"".join(waiting), 0, 0
        while (colon := data.find(b":", position, position + 11)) >= 0:
            end = colon + 1 + _length(data[position:colon])
            if end > len(data):
                needed = end - position
                break
            yield data[colon + 1 : end]
            position = end
        else:
            if len(data) - position > 10:
                raise ValueError("an argument without its length")
        waiting, held = [data[position:]], len(data) - position
    if held:
        raise ValueError("an argument that is cut short")


# -- globs and cursors ---------------------------------------------------------------------------------------------


def _bucket_part(keys: Iterable[bytes], start: int, count: int) -> tuple[list[bytes], int]:
    """The first `count` or so keys of a slot whose CRC-32 is at least `start`, and where to go on."""
    ordered = sorted((place, key) for key in keys if (place := zlib.crc32(key)) >= start)
    if len(ordered) <= count:
        return [key for _, key in ordered], 1 << 32
    last = ordered[count - 1][0]
    # all keys of one place go together: a cursor can't stand between them
    return [key for place, key in ordered if place <= last], last + 1


def _glob(pattern: bytes) -> Callable[[bytes], object]:
    """A test for keys. **Cost** of one test: the key's length times the pattern's, at most."""
    if pattern == b"*":
        return lambda key: True
    segments, position = [b""], 0
    while position < len(pattern):
        if pattern[position] == 42:  # *
            segments.append(b"")
            position += 1
        else:
            part, position = _glob_atom(pattern, position)
            segments[-1] += part
    first, *rest = segments
    if rest:
        # Between two stars the leftmost match always does, so nothing need be tried twice: atomic groups say so, and
        # no pattern can make the search blow up.
        first += b"".join(b"(?>.*?" + segment + b")" for segment in rest[:-1] if segment) + b".*" + rest[-1]
    return re.compile(first, re.DOTALL).fullmatch


def _glob_atom(pattern: bytes, position: int) -> tuple[bytes, int]:
    """One step of a glob that is no star, as a regular expression, and where the next begins."""
    byte = pattern[position : position + 1]
    if byte == b"?":
        return b".", position + 1
    if byte == b"[":
        return _glob_class(pattern, position + 1)
    if byte == b"\\" and position + 1 < len(pattern):
        return re.escape(pattern[position + 1 : position + 2]), position + 2
    return re.escape(byte), position + 1


def _glob_class(pattern: bytes, position: int) -> tuple[bytes, int]:
    """A class from behind its `[`. As in Redis one that is never closed ends with the pattern."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    allowed: set[int] = set()
    while position < len(pattern) and pattern[position] != 93:  # ]
        if pattern[position] == 92 and position + 1 < len(pattern):  # backslash
            allowed.add(pattern[position + 1])
            position += 2
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            first, last = sorted((pattern[position], pattern[position + 2]))
            allowed.update(range(first, last + 1))
            position += 3
        else:
            allowed.add(pattern[position])
            position += 1
    members = bytes(sorted(allowed if not negated else set(range(256)) - allowed))
    expression = b"[" + b"".join(b"\\x%02x" % byte for byte in members) + b"]" if members else b"(?!)"
    return expression, position + 1
