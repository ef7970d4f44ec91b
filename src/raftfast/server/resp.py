"""RESP as bytes: requests taken apart piece by piece, replies put together in either version of the protocol.

Floor 5, no I/O. Never here: what a command means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "OK",
    "Limits",
    "RequestParser",
    "array",
    "bulk",
    "bulks",
    "error",
    "integer",
    "mapping",
    "null",
    "parse_int",
    "set_of",
    "simple",
    "verbatim",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the client port: how much of what comes in is kept, and how much may wait to go out."""

    max_clients: int = 10_000
    """Connections open at once."""

    max_line_bytes: int = 64 << 10
    """The longest inline request, and the longest line of numbers."""

    max_arguments: int = 1 << 20
    """Arguments of one command."""

    max_bulk_bytes: int = 16 << 20
    """The longest argument, in bytes. What is longer than an entry (8 MiB) is refused later, with a clearer error."""

    max_query_bytes: int = 64 << 20
    """All arguments of one command, and all commands queued by one MULTI, in bytes; 64 are added for each argument."""

    max_backlog_bytes: int = 1 << 20
    """Bytes received that wait for earlier commands; beyond it a connection is not read."""

    max_pipeline: int = 1024
    """Writes of one connection that may be outstanding."""

    write_buffer_bytes: int = 1 << 20
    """Reply bytes that may wait for a slow reader; beyond it a connection's commands wait too."""

    max_reply_bytes: int = 512 << 20
    """The longest reply of a command that gathers values."""


def parse_int(raw: bytes) -> int | None:
    """A signed 64-bit number in its one canonical form, as Redis reads it; None for anything else.

    `int()` would also take blanks, underscores, a plus sign, and digits that are not ASCII.
    """
    digits = raw[1:] if raw[:1] == b"-" else raw
    if not 0 < len(digits) <= 19 or not digits.isdigit() or (digits[0] == 48 and raw != b"0"):
        return None
    number = int(raw)
    return number if -(1 << 63) <= number < 1 << 63 else None


class RequestParser:
    """Takes the bytes of a connection, gives whole commands: lists of arguments, none empty.

    After a fault `fault` holds the error text (`Protocol error: …`), what came before it was given, and nothing more
    comes. **Cost** linear in the bytes fed, whatever the cut; nothing is allocated by a number from the wire.
    """

    __slots__ = ("_arguments", "_bytes", "_limits", "_missing", "_need", "_rest", "_size", "fault")

    def __init__(self, limits: Limits) -> None:
        self.fault: str | None = None
        self._limits = limits
        self._arguments: list[bytes] = []
        self._missing = 0  # arguments that the command still lacks; 0 between commands
        self._bytes = -1  # length of the argument that is due, -1 where its header is due
        self._size = 0  # what the command's arguments hold so far
        self._rest = bytearray()  # bytes that are not yet a whole line or argument
        self._need = 0  # how many of them make an argument; 0: a line end does

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that are whole now."""
        if self.fault is not None:
            return []
        if self._rest:
            # Kept bytes are looked at again only when they can be of use, so that a value that comes in many
            # pieces is not copied with each of them.
            self._rest += data
            if len(self._rest) < self._need or (not self._need and b"\n" not in data):
                self._check_line(len(self._rest))
                return []
            data = bytes(self._rest)
            self._rest = bytearray()
        commands: list[list[bytes]] = []
        position = self._take(data, commands)
        if self.fault is None and position < len(data):
            self._rest += memoryview(data)[position:]
            self._check_line(len(self._rest))
        return commands

    def _take(self, data: bytes, commands: list[list[bytes]]) -> int:
        """Takes all that is whole; where it ends."""
        position, end = 0, len(data)
        self._need = 0
        while position < end:
            if not self._missing and (whole := _whole_command(data, position)):
                commands.append(whole[0])
                position = whole[1]
                continue
            if self._bytes >= 0:
                stop = position + self._bytes
                if end - position < self._bytes + 2:
                    self._need = self._bytes + 2
                    break
                if data[stop : stop + 2] != b"\r\n":
                    self.fault = "Protocol error: expected CRLF after an argument"
                    break
                self._add(data[position:stop], commands)
                position = stop + 2
                continue
            line_end = data.find(b"\n", position)
            if line_end < 0:
                break
            self._take_line(data[position:line_end], commands)
            if self.fault is not None:
                break
            position = line_end + 1
        return position

    def _take_line(self, line: bytes, commands: list[list[bytes]]) -> None:
        """One line, without its newline: a header, or an inline request."""
        self._check_line(len(line), line[:1])
        if self.fault is not None:
            return
        if self._missing:
            self._take_bulk_header(line)
        elif line[:1] == b"*":
            self._take_array_header(line)
        else:
            self._take_inline(line, commands)

    def _take_array_header(self, line: bytes) -> None:
        count = parse_int(line[1:-1]) if line[-1:] == b"\r" else None
        if count is None or count > self._limits.max_arguments:
            self.fault = "Protocol error: invalid multibulk length"
        elif count > 0:
            self._missing = count

    def _take_bulk_header(self, line: bytes) -> None:
        if line[:1] != b"$":
            shown = line[:1].decode("ascii") if 33 <= (line or b" ")[0] <= 126 else "?"
            self.fault = f"Protocol error: expected '$', got '{shown}'"
            return
        length = parse_int(line[1:-1]) if line[-1:] == b"\r" else None
        if length is None or not 0 <= length <= self._limits.max_bulk_bytes:
            self.fault = "Protocol error: invalid bulk length"
        elif length + 64 > self._limits.max_query_bytes - self._size:
            self.fault = "Protocol error: too big request"
        else:
            self._bytes = length
            self._size += length + 64

    def _take_inline(self, line: bytes, commands: list[list[bytes]]) -> None:
        arguments = _split_inline(line)
        if arguments is None:
            self.fault = "Protocol error: unbalanced quotes in request"
        elif arguments:
            commands.append(arguments)

    def _add(self, argument: bytes, commands: list[list[bytes]]) -> None:
        self._arguments.append(argument)
        self._bytes = -1
        self._missing -= 1
        if not self._missing:
            commands.append(self._arguments)
            self._arguments = []
            self._size = 0

    def _check_line(self, length: int, first: bytes = b"") -> None:
        if self._need or length <= self._limits.max_line_bytes:
            return
        if self._missing:
            self.fault = "Protocol error: too big bulk count string"
        elif (first or self._rest[:1]) == b"*":
            self.fault = "Protocol error: too big mbulk count string"
        else:
            self.fault = "Protocol error: too big inline request"


_SMALL = {b"%d" % number: number for number in range(1000)}


def _whole_command(data: bytes, position: int) -> tuple[list[bytes], int] | None:
    """A command of usual size that lies whole in `data`, and the place behind it; None for all else.

    The short way for what nearly every request is: three steps an argument. What it does not take, right or wrong, is
    left to the parser proper.
    """
    line_end = data.find(b"\r\n", position, position + 6)
    if line_end < 0 or data[position] != 42:
        return None
    arguments = []
    for _ in range(_SMALL.get(data[position + 1 : line_end], 0)):
        position = line_end + 2
        line_end = data.find(b"\r\n", position, position + 6)
        length = _SMALL.get(data[position + 1 : line_end]) if line_end > 0 else None
        if length is None or data[position] != 36:
            return None
        position = line_end + 2
        line_end = position + length
        if data[line_end : line_end + 2] != b"\r\n":
            return None
        arguments.append(data[position:line_end])
    return (arguments, line_end + 2) if arguments else None


_ESCAPES = {110: 10, 114: 13, 116: 9, 98: 8, 97: 7}


def _split_inline(line: bytes) -> list[bytes] | None:
    """The arguments of an inline request, quotes as in Redis; None where they are not balanced."""
    if b'"' not in line and b"'" not in line:
        return line.split()
    arguments: list[bytes] = []
    position = 0
    while True:
        while position < len(line) and line[position : position + 1].isspace():
            position += 1
        if position == len(line):
            return arguments
        argument = bytearray()
        while position < len(line) and not line[position : position + 1].isspace():
            quote = line[position]
            if quote in b"\"'":
                closed = _take_quoted(line, position + 1, quote, argument)
                if closed is None or (closed < len(line) and not line[closed : closed + 1].isspace()):
                    return None
                position = closed
            else:
                argument.append(quote)
                position += 1
        arguments.append(bytes(argument))


def _take_quoted(line: bytes, position: int, quote: int, argument: bytearray) -> int | None:
    """Adds what stands up to the closing quote; the place behind it, None where there is none."""
    while position < len(line):
        byte = line[position]
        if byte == quote:
            return position + 1
        if byte == 92 and position + 1 < len(line):
            following = line[position + 1]
            if quote == 34 and following == 120 and _is_hex(line[position + 2 : position + 4]):
                argument.append(int(line[position + 2 : position + 4], 16))
                position += 4
                continue
            if quote == 34 or following == 39:
                argument.append(_ESCAPES.get(following, following) if quote == 34 else following)
                position += 2
                continue
        argument.append(byte)
        position += 1
    return None


def _is_hex(digits: bytes) -> bool:
    return len(digits) == 2 and all(digit in b"0123456789abcdefABCDEF" for digit in digits)


# -- replies -------------------------------------------------------------------------------------------------------

OK = b"+OK\r\n"

_BREAKS = str.maketrans("\r\n", "  ")


def simple(text: str) -> bytes:
    """A status line."""
    return b"+%b\r\n" % _line(text)


def error(text: str) -> bytes:
    """An error: `text` with its code in front (`ERR …`)."""
    return b"-%b\r\n" % _line(text)


def _line(text: str) -> bytes:
    return text.translate(_BREAKS).encode("utf-8", "surrogateescape")


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def bulk(value: bytes | str) -> bytes:
    """A string of any bytes; text goes as UTF-8 (surrogate escapes become the bytes they came from)."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def null(resp3: bool) -> bytes:
    return b"_\r\n" if resp3 else b"$-1\r\n"


def array(items: Iterable[bytes]) -> bytes:
    """An array of replies that are encoded already."""
    parts = list(items)
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def bulks(values: Iterable[bytes | str]) -> bytes:
    """An array of strings."""
    return array([bulk(value) for value in values])


def set_of(items: Iterable[bytes], resp3: bool) -> bytes:
    """A set of encoded replies; an array in RESP2."""
    encoded = array(items)
    return b"~" + encoded[1:] if resp3 else encoded


def mapping(pairs: Iterable[tuple[str | bytes, bytes]], resp3: bool) -> bytes:
    """A map of text to encoded replies, in order; a flat array in RESP2."""
    parts = [bulk(name) + value for name, value in pairs]
    return b"%b%d\r\n%b" % (b"%" if resp3 else b"*", len(parts) * (1 if resp3 else 2), b"".join(parts))


def verbatim(text: str, resp3: bool) -> bytes:
    """Text for people to read."""
    raw = text.encode("utf-8", "surrogateescape")
    return b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw) if resp3 else bulk(raw)
