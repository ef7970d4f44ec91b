"""The pure twin of the `nodes.conf` leaf: the file, its lines, CRC-64 (NODESCONF 1; PROTOCOL 11).

Floor 1. Same names, signatures and behaviour as `nodesconf_c`. Bytes in, values out: no file is opened here, no
entry's data is given a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ParseError
from ..records import Address, NodeRecord, NodesConf
from .nodesconf_file import Reader, written
from .nodesconf_lines import (
    check_u64,
    format_address,
    format_node_line,
    parse_address,
    parse_node_line,
    vars_line,
)

__all__ = [
    "Address",
    "NodeRecord",
    "NodesConf",
    "ParseError",
    "appended_vars",
    "crc64",
    "dump",
    "format_address",
    "format_node_line",
    "log_line",
    "log_lines",
    "parse",
    "parse_address",
    "parse_node_line",
]

_POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xad93d23594c935a9, bits reversed


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC-64 "Jones" of `data`, going on from `crc`: `crc64(b, crc64(a)) == crc64(a + b)`.

    Reflected, initial value 0, no final xor; of `b"123456789"` it is 0xe9c6d914c4b8d9ca.

    Raises: TypeError for a `crc` that is no int (a bool is none) or data that is not bytes-like; OverflowError for a
    `crc` outside 64 unsigned bits.
    Source: NODESCONF 1.6.
    """
    crc = check_u64(crc, "crc")
    table = _CRC_TABLE
    for byte in data if isinstance(data, bytes) else bytes(memoryview(data)):
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


def log_lines(first_index: int, lines: Sequence[bytes]) -> bytes:
    """The file's lines for the entries from `first_index` on, whose AE lines are `lines`, each with its line end.

    `log <checksum> <index> <line>`, where the checksum covers all that follows it. What a line holds is not looked
    at, but for a line end, which would break the file.

    Raises: ParseError for a line end inside a line; TypeError, OverflowError for an index that is no unsigned 64-bit
    int or lines that are not bytes.
    Source: NODESCONF 1.7.
    """
    index = check_u64(first_index, "index")
    if not isinstance(lines, (list, tuple)):
        raise TypeError(f"lines must be a list or a tuple, not {type(lines).__name__}")
    parts = []
    for line in lines:
        if not isinstance(line, bytes):
            raise TypeError(f"an entry's line must be bytes, not {type(line).__name__}")
        if b"\n" in line:
            raise ParseError("a line end inside an entry's line")
        payload = b"%d %b" % (check_u64(index, "index"), line)
        parts.append(b"log %016x %b\n" % (crc64(payload), payload))
        index += 1
    return b"".join(parts)


def log_line(index: int, line: bytes) -> bytes:
    """The file's line for the entry at `index` whose AE line is `line`, with its line end.

    As `log_lines` for one entry; it raises the same.
    Source: NODESCONF 1.7.
    """
    return log_lines(index, (line,))


def appended_vars(current_term: int, voted_for: str | None, crc: int) -> bytes:
    """The two lines by which term and vote are appended: `vars currentTerm N[ votedFor ID]` and `crc ...`.

    `crc` is the running CRC-64 of all bytes of the file before them (`crc64`, chained; blank lines don't count, and
    our files have none). Afterwards the file's running value is `crc64(lines, crc)`.

    Raises: ParseError for an id of a wrong form or a term out of range; TypeError; OverflowError for a `crc` outside
    64 unsigned bits.
    Source: PROTOCOL 11.
    """
    pairs: dict[str, int | str] = {"currentTerm": current_term}
    if voted_for is not None:
        pairs["votedFor"] = voted_for
    line = vars_line(pairs) + b"\n"
    return line + b"crc %016x\n" % crc64(line, crc)


def parse(data: bytes) -> NodesConf:
    """What a whole `nodes.conf` says; no bytes at all are a fresh node's and give an empty `NodesConf`.

    Nodes come in the file's order, then those that a gossip file (one without `currentTerm`) refers to without a line
    of their own. Appended vars lines are folded into `vars`. A torn tail is dropped into `torn_tail`; it, and what was
    accepted though it looks wrong, is told in `warnings`. Stricter than the reference: a wrong checksum, index gap,
    falling term or misplaced byte anywhere else refuses the file.

    Raises: ParseError with the line's number (0 where no line is at fault) and the reason; TypeError for anything but
    bytes.
    Cost: linear in the file.
    Source: NODESCONF A and 1; PROTOCOL 11.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"a file must be bytes, not {type(data).__name__}")
    if not data:
        return NodesConf()
    reader = Reader(data, crc64)
    start = lineno = 0
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            end = len(data)
        lineno += 1
        reader.line(start, end, lineno)
        start = end + 1
    return reader.finish()


def dump(conf: NodesConf) -> bytes:
    """The file that says what `conf` says: node lines by ascending id, the vars line, and in a Raft file the crc line
    and the log lines.

    Left out: nodes that have not joined (flags `handshake` or `meet`), those flags of myself, which is always written,
    `torn_tail`, `warnings`. A replica's line shows its primary's epoch, and myself's line the open slots of all lines.
    Of nothing at all, a fresh node's, no bytes. Known vars stand in a fixed order, then the others as they come; so
    `parse(dump(conf))` is `conf` in canonical order, and `dump(parse(dump(conf)))` the same bytes again.

    Raises: ParseError (`lineno` 0) where `parse` would refuse the file or read something else; TypeError.
    Cost: linear in the file.
    Source: NODESCONF A, 1.1 and 1.9.
    """
    return written(conf, crc64, format_node_line, log_lines)
