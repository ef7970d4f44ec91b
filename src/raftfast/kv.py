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
_HEAD = b"kv 1 "

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


class KeyValueStore(StateMachine):
    """Keys and values, both bytes.

    Commands: `SET key value [NX|XX] [GET]`, `GETSET`, `DEL key…`, `INCR`, `INCRBY`, `DECR`, `DECRBY`, `APPEND`,
    `MSET key value…`, `FLUSHALL`, proposed as in `await node.propose(encode_command("SET", "key", "value"))`. The other
    methods read this member's state: after `await node.barrier()` such a read is linearizable.

    Invariants: 1. keys and values are `bytes`. 2. the slot index, if there is one, holds each key once, in its slot.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
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
        """The state in pieces of about 256 KiB: a count, then each key and value, ascending by key.

        **Cost** to begin: one shallow copy. Values are immutable, so the copy can't change under the iterator.
        """
        return _pieces(self._values.copy())

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Takes the state of a snapshot; no bytes at all are the state of a new store.

        **Raises** SnapshotError, and keeps the old state, where anything is off.
        """
        data = b"".join(pieces)
        values = _parse(data) if data else {}
        self._values, self._slots = values, None

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
        return key in self._values

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
        self._values[key] = value

    def _drop(self, key: bytes) -> bool:
        if self._values.pop(key, None) is None:
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
        old = self._values.get(key, b"")
        if len(tail) > MAX_VALUE_BYTES - len(old):
            return _TOO_LONG
        self._put(key, old + tail)
        return b":%d\r\n" % (len(old) + len(tail))

    def _mset(self, arguments: list[bytes]) -> bytes:
        for position in range(1, len(arguments), 2):
            self._put(arguments[position], arguments[position + 1])
        return _OK

    def _flushall(self, arguments: list[bytes]) -> bytes:
        self._values, self._slots = {}, None
        return _OK

    def _add(self, key: bytes, amount: int) -> bytes:
        old = _number(self._values.get(key, b"0"))
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


def _pieces(values: dict[bytes, bytes]) -> Iterator[bytes]:
    parts, size = [_HEAD + b"%d\n" % len(values)], 0
    for key in sorted(values):
        value = values[key]
        parts += (b"%d:" % len(key), key, b"%d:" % len(value), value)
        size += len(key) + len(value) + 8
        if size >= _PIECE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _parse(data: bytes) -> dict[bytes, bytes]:
    """The values that a snapshot's bytes hold, and nothing else: a wrong count, order or form refuses it whole."""
    line, _, rest = data.partition(b"\n")
    try:
        if not line.startswith(_HEAD):
            raise ValueError("it does not begin as one")
        count = _length(line[len(_HEAD) :])
        fields = decode_command(rest)
        keys = fields[::2]
        if len(fields) != 2 * count:
            raise ValueError(f"{len(fields)} fields for {count} keys")
        if any(first >= second for first, second in itertools.pairwise(keys)):
            raise ValueError("its keys do not ascend")
    except ValueError as error:
        raise SnapshotError(f"no snapshot of the key-value store: {error}") from error
    return dict(zip(keys, fields[1::2], strict=True))


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
