"""The work that the benchmarks time: one maker of a `Case` for each verb, for either twin of its leaf.

For the benchmarks only. The sizes are those of the table in README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from measuring import Case
from raftfast import messages
from raftfast.hot import nodesconf as quick

__all__ = [
    "CALLS",
    "CHUNK",
    "ENTRIES",
    "LINE",
    "MIXED",
    "THOUSAND_NODES",
    "VERBS",
    "Verb",
    "append_entries",
    "batch",
    "filled",
    "plain_nodes",
    "raft_file",
]

ID = "a1" * 20
CLIENT = b"c3" * 20
CHUNK = 64 << 10
LINE = b"7 APP 0123456789012345678901234567890123456789:12345 " + b"x" * 64
BATCH = 64
HELD = 10_000
CALLS = 1000
ENTRIES = 100_000
ENTRY = b"8 APP " + b"c" * 40 + b":123456 SET key:000000123456 " + b"v" * 32

_VECTORS = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "nodesconf"
THOUSAND_NODES = (_VECTORS / "09_thousand_nodes.conf").read_bytes()
_HEAD = (_VECTORS / "05_raft_full.conf").read_bytes().partition(b"crc ")[0]


# --- wire ---------------------------------------------------------------------------------------------------------


def append_entries(count: int, data_bytes: int = 64, kind: bytes = b"APP") -> messages.AppendEntries:
    """Lines of `data_bytes` data each, in one term, as a leader under load sends them."""
    term = 7
    lines = tuple(
        (b"%d %b %b:%d " % (term, kind, CLIENT, 100_000 + i)).ljust(data_bytes + 6, b"x") for i in range(count)
    )
    return messages.AppendEntries(ID, term, 100_000, term, 99_990, (term,) * count, lines, 77)


MIXED: list[messages.Message] = [
    append_entries(0),
    append_entries(1),
    append_entries(4),
    messages.AppendEntriesAck(7, True, 100_000, 0, 77),
    messages.AppendEntriesAck(7, True, 100_004, 0, 78),
    messages.AppendEntriesAck(7, False, 99_000, 0, 79),
    messages.Propose(b"APP " + CLIENT + b":123 " + b"x" * 64),
    messages.ReadIndex(123_456),
    messages.ReadIndexOk(123_456, 100_004),
    messages.VoteRequest(ID, 8, 100_004, 7),
]


def _decode(wire: ModuleType) -> Case:
    payload = wire.encode(append_entries(100))[8:]
    return Case(partial(wire.decode, payload))


def _encode(wire: ModuleType) -> Case:
    message = append_entries(100)
    return Case(partial(wire.encode, message))


def _feed(wire: ModuleType) -> Case:
    stream = b"".join(map(wire.encode, MIXED)) * 1000
    pieces = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]

    def feed() -> None:
        decoder = wire.FrameDecoder()
        for piece in pieces:
            decoder.feed(piece)

    return Case(feed)


def _encode_mixed(wire: ModuleType) -> Case:
    return Case(lambda: [wire.encode(message) for message in MIXED])


# --- log ----------------------------------------------------------------------------------------------------------


def filled(log: ModuleType, count: int = HELD) -> Any:
    """A RaftLog of `count` entries, each line an object of its own."""
    made = log.RaftLog()
    made.extend([7] * count, [bytes(bytearray(LINE)) for _ in range(count)])
    return made


def batch(count: int = BATCH, term: int = 7) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """What a decoder hands over: tuples, each line an object of its own."""
    return (term,) * count, tuple(bytes(bytearray(LINE)) for _ in range(count))


def _merge_new(log: ModuleType) -> Case:
    terms, lines = batch()
    return Case(lambda made: made.merge(HELD, terms, lines, HELD), lambda: filled(log), 8)


def _merge_held(log: ModuleType) -> Case:
    terms, lines = batch()
    made = filled(log)
    return Case(partial(made.merge, 5_000, terms, lines, 0))


def _merge_conflict(log: ModuleType) -> Case:
    terms, lines = batch(term=8)
    return Case(lambda made: made.merge(HELD - BATCH, terms, lines, 0), lambda: filled(log), 8)


def _lines(log: ModuleType) -> Case:
    made = filled(log)
    return Case(partial(made.lines, 5_000, 5_000 + BATCH))


def _lines_bounded(log: ModuleType) -> Case:
    made = filled(log)
    return Case(partial(made.lines, 5_000, 5_000 + BATCH, 1 << 20))


def _entries(log: ModuleType) -> Case:
    made = filled(log)
    return Case(partial(made.entries, 5_000, 5_000 + BATCH, 1 << 20))


def _membership(log: ModuleType) -> Case:
    made = filled(log)
    return Case(partial(made.membership_lines, 5_000, 5_000 + BATCH))


def _hint(log: ModuleType) -> Case:
    made = filled(log)
    return Case(partial(made.hint, HELD, 6))


def _append(log: ModuleType) -> Case:
    def loop(made: Any) -> None:
        for _ in range(CALLS):
            made.append(7, LINE)

    return Case(loop, log.RaftLog, 4, CALLS)


def _term_at(log: ModuleType) -> Case:
    made = filled(log)

    def loop() -> None:
        for _ in range(CALLS):
            made.term_at(5_000)

    return Case(loop, per=CALLS)


def _line(log: ModuleType) -> Case:
    made = filled(log)

    def loop() -> None:
        for _ in range(CALLS):
            made.line(5_000)

    return Case(loop, per=CALLS)


def trim_of(log: ModuleType, count: int) -> Case:
    """Trims 64 entries off a log that then keeps `count`; it is filled up again outside of the clock."""
    terms, lines = batch()
    made = filled(log, count)

    def refill() -> int:
        made.extend(terms, lines)
        return int(made.boundary_index) + BATCH

    return Case(made.trim_to, refill, 1)


# --- nodesconf ----------------------------------------------------------------------------------------------------


def plain_nodes() -> bytes:
    """The thousand nodes without aux fields, as CLUSTER NODES shows them, and without the vars line."""
    lines = [line.split(b" ") for line in THOUSAND_NODES.splitlines() if not line.startswith(b"vars")]
    for columns in lines:
        address, hostname = columns[1].split(b",")[:2]
        columns[1] = address + b"," + hostname if hostname else address
    return b"".join(b" ".join(columns) + b"\n" for columns in lines)


def raft_file(nodesconf: ModuleType, entries: int = ENTRIES) -> bytes:
    """A sound Raft file of four nodes and that many log lines."""
    crc = b"crc %016x\n" % nodesconf.crc64(_HEAD)
    return bytes(_HEAD + crc + nodesconf.log_lines(43, [ENTRY] * entries))


def _parse_nodes(nodesconf: ModuleType) -> Case:
    return Case(partial(nodesconf.parse, THOUSAND_NODES))


def _parse_plain_nodes(nodesconf: ModuleType) -> Case:
    return Case(partial(nodesconf.parse, plain_nodes()))


def _dump_nodes(nodesconf: ModuleType) -> Case:
    conf = nodesconf.parse(THOUSAND_NODES)
    return Case(partial(nodesconf.dump, conf))


def _parse_entries(nodesconf: ModuleType) -> Case:
    data = raft_file(quick)
    return Case(partial(nodesconf.parse, data))


def _log_lines(nodesconf: ModuleType) -> Case:
    lines = [ENTRY] * BATCH
    return Case(partial(nodesconf.log_lines, 43, lines))


def _crc64(size: int) -> Callable[[ModuleType], Case]:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    return lambda nodesconf: Case(partial(nodesconf.crc64, data))


@dataclass(frozen=True)
class Verb:
    """A verb, its leaf, and how many times as fast as the pure twin the compiled one must be (0: no rule)."""

    leaf: str
    name: str
    case: Callable[[ModuleType], Case]
    at_least: float = 0


VERBS = [
    Verb("wire", "decode an AE of 100 entries of 64 bytes", _decode, 8),
    Verb("wire", "encode an AE of 100 entries of 64 bytes", _encode, 6),
    Verb("wire", "frames from a stream: 10,000 mixed messages", _feed, 6),
    Verb("wire", "encode 10 mixed messages", _encode_mixed),
    Verb("log", "merge 64 new entries", _merge_new, 4),
    Verb("log", "merge 64 entries held already", _merge_held, 4),
    Verb("log", "merge 64 entries over 64 of another term", _merge_conflict, 4),
    Verb("log", "lines of a range of 64", _lines, 4),
    Verb("log", "lines of a range of 64, at most 1 MiB", _lines_bounded, 4),
    Verb("log", "entries of a range of 64, at most 1 MiB", _entries),
    Verb("log", "membership_lines of a range of 64", _membership),
    Verb("log", "hint over 10,000 entries", _hint),
    Verb("log", "append", _append),
    Verb("log", "line", _line),
    Verb("log", "term_at", _term_at),
    Verb("log", "trim 64 of 200 entries", lambda log: trim_of(log, 200)),
    Verb("log", "trim 64 of 1,000,000 entries", lambda log: trim_of(log, 1_000_000)),
    Verb("nodesconf", "parse a nodes.conf of 1,000 nodes", _parse_nodes, 5),
    Verb("nodesconf", "parse 1,000 nodes without aux fields", _parse_plain_nodes),
    Verb("nodesconf", "dump a nodes.conf of 1,000 nodes", _dump_nodes),
    Verb("nodesconf", "parse 100,000 log lines", _parse_entries, 8),
    Verb("nodesconf", "log_lines of 64 entries", _log_lines),
    Verb("nodesconf", "crc64 of 64 bytes", _crc64(64)),
    Verb("nodesconf", "crc64 of 64 KiB", _crc64(64 << 10)),
]
