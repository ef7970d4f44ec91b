"""Child of test_leaks: calls each verb of a compiled leaf many times and prints by how much memory and counts rose.

Run as `python leak_cases.py LEAF`; prints a line of JSON a case. Nothing here is a test.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nodesconf_cases import BAD_RECORDS, WRONG_TYPES
from wire_cases import INVALID, VALID, message_of

from raftfast import messages
from raftfast.hot import log_c, nodesconf_c, wire_c
from raftfast.records import NodeRecord, NodesConf

CALLS = 100_000
SLOW_CALLS = 6_000
"""Of verbs whose one call is itself the work of hundreds, or of the Python that both twins share."""

Call = Callable[[], Any]
ID = "a1" * 20
BIG = 64 << 10


def measure(calls: list[Call], count: int) -> dict[str, Any]:
    """What `count` calls in turn leave behind: blocks of Python's allocator, KiB of memory, references."""
    watched: list[Any] = [None, True, False, 0, 7, "", b"", (), ID, dict, *vars(messages).values(), *KEPT]
    rounds = max(count // len(calls), 500)
    found = (0, 0, 0)
    for turns in (rounds // 10 + 20, rounds):  # the first fills caches and free lists
        gc.collect()
        before = _blocks(), _resident_kib(), [sys.getrefcount(each) for each in watched]
        for _ in range(turns):
            for call in calls:
                with contextlib.suppress(Exception):
                    call()
        gc.collect()
        rise = [sys.getrefcount(each) - was for each, was in zip(watched, before[2], strict=True)]
        found = _blocks() - before[0], _resident_kib() - before[1], max(rise, key=abs)
    return {"calls": rounds * len(calls), "rounds": rounds, "blocks": found[0], "kib": found[1], "references": found[2]}


def _blocks() -> int:
    return sys.getallocatedblocks()


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def calling(verb: Callable[..., Any], inputs: Iterable[Any]) -> list[Call]:
    return [lambda given=given: verb(given) for given in inputs]


# The arguments: kept here, so that a count of theirs that rises is seen.

LINES = [b"7 NODE_JOIN a", b"7 NOOP", b"7 APP - " + bytes(BIG), *(b"7 APP - %d" % i for i in range(61))]
TERMS = [7] * 64
MESSAGES = [message_of(vector) for vector in VALID if vector["message"] != "Unknown"] + [
    messages.AppendEntries(ID, 7, 1, 1, 1, tuple(TERMS), tuple(LINES), None),
    messages.SnapshotPiece(ID, 1, 1, 1, 0, BIG, bytes(BIG)),
]
FRAMES = [wire_c.encode(message) for message in MESSAGES]
BAD_FRAMES = [bytes.fromhex(vector["frame"]) for vector in INVALID]
FOLDER = Path(__file__).parents[1] / "vectors" / "nodesconf"
FILES = [path.read_bytes() for path in sorted(FOLDER.glob("*.conf")) if 0 < path.stat().st_size < 5000]
NODE_LINES = [line for data in FILES[:5] for line in data.splitlines() if re.match(rb"[0-9a-z]{40} ", line)]
KEPT: list[Any] = [LINES, TERMS, *LINES, *MESSAGES, *FRAMES, *FILES, *NODE_LINES]


def wire() -> Iterable[tuple[str, list[Call], int]]:
    yield "decode", calling(wire_c.decode, [frame[8:] for frame in FRAMES]), CALLS
    yield "decode of a buffer", calling(wire_c.decode, [memoryview(frame)[8:] for frame in FRAMES]), CALLS
    yield "decode, refused", calling(wire_c.decode, [frame[8:] for frame in BAD_FRAMES]), CALLS
    yield "decode, cut", calling(wire_c.decode, [frame[8:-3] for frame in FRAMES]), CALLS
    yield "decode, wrong", calling(wire_c.decode, [None, "x", memoryview(bytes(8))[::2]]), CALLS
    yield "encode", calling(wire_c.encode, MESSAGES), CALLS
    yield "encode, refused", calling(wire_c.encode, list(_unsendable())), CALLS
    yield "feed", calling(lambda frame: wire_c.FrameDecoder().feed(frame), [b"".join(FRAMES[:20]), *FRAMES]), CALLS
    yield "feed, refused", calling(lambda frame: wire_c.FrameDecoder().feed(frame), BAD_FRAMES), CALLS
    yield "feed in pieces", calling(_in_pieces, FRAMES), CALLS
    yield "feed after a fault", calling(_after_a_fault, BAD_FRAMES), CALLS
    yield "FrameDecoder", calling(wire_c.FrameDecoder, [8, 7, 1 << 32, None, 1.0]), CALLS
    yield "FrameDecoder, again", calling(wire_c.FrameDecoder().__init__, [8, 7, 64]), CALLS
    yield "copy", calling(copy.copy, [wire_c.FrameDecoder()]), CALLS


def _unsendable() -> Iterable[Any]:
    yield from (None, object(), messages.Unknown("x"))
    for message in {type(message): message for message in MESSAGES}.values():
        for name in message.__slots__:
            for wrong in (None, 1 << 64, "\ud800"):
                if name != "offsets":
                    changed = wire_c.decode(wire_c.encode(message)[8:])
                    object.__setattr__(changed, name, wrong)
                    yield changed


def _in_pieces(frame: bytes) -> None:
    decoder = wire_c.FrameDecoder()
    for cut in (frame[:3], frame[3:20], memoryview(frame)[20:]):
        decoder.feed(cut)


def _after_a_fault(frame: bytes) -> None:
    decoder = wire_c.FrameDecoder()
    for data in (frame, b"RAFT"):
        with contextlib.suppress(wire_c.ProtocolError):
            decoder.feed(data)


def log() -> Iterable[tuple[str, list[Call], int]]:
    made = log_c.RaftLog(10, 3)
    made.extend(TERMS, LINES)
    KEPT.append(made)
    ends, bad = [11, 60, 74], [None, True, -1, 1 << 64, 0, 99]
    yield "RaftLog", [log_c.RaftLog, lambda: log_c.RaftLog(3, 4), *calling(log_c.RaftLog, bad)], CALLS
    for verb in (made.line, made.term_at):
        yield verb.__name__, calling(verb, [*ends, *bad]), CALLS
    for verb in (made.lines, made.entries, made.membership_lines):
        reads = calling(lambda lo, verb=verb: verb(lo, 75), [*ends, 75, *bad])
        if verb != made.membership_lines:
            reads.append(lambda verb=verb: verb(11, 75, 5000))
        yield verb.__name__, reads, CALLS // 4
    yield "properties", calling(lambda name: getattr(made, name), PROPERTIES), CALLS
    yield "repr and len", [lambda: repr(made), lambda: len(made), made.__sizeof__, made.check], CALLS // 4
    yield "matches", calling(lambda at: made.matches(at, 7), [*ends, *bad]), CALLS
    yield "hint", calling(lambda at: made.hint(at, 7), [*ends, *bad]), CALLS
    yield "append", [_append_and_trim()], CALLS
    yield "append, refused", calling(lambda given: made.append(7, given), [None, "x", bytearray(b"x")]), CALLS
    yield "append, a low term", calling(lambda term: made.append(term, LINES[0]), [2, *bad[:4]]), CALLS
    yield "extend, trim, truncate, reset", [_cycle], CALLS // 10
    yield "wide terms", [_wide], CALLS // 10
    yield (
        "extend, refused",
        [
            lambda: made.extend(TERMS, LINES[:3]),
            lambda: made.extend([*TERMS, None], [*LINES, b""]),
            lambda: made.extend(TERMS, [*LINES[:63], None]),
            lambda: made.extend(iter(TERMS), None),
            lambda: made.extend([9, 8], [b"", b""]),
        ],
        CALLS // 4,
    )
    yield "merge", [_merges], CALLS // 20
    yield (
        "merge, refused",
        [
            lambda: made.merge(10, [9], [b"x"], 12),
            lambda: made.merge(10, [7], [b"x"], 0),
            lambda: made.merge(9, [4], [b"x"], 0),
            lambda: made.merge(99, TERMS, LINES, 0),
            lambda: made.merge(10, [7, None], [b"x", b"y"], 0),
            lambda: made.merge(10, None, LINES, 0),
        ],
        CALLS,
    )
    yield (
        "truncate_from and trim_to, refused",
        [
            *calling(made.truncate_from, [0, 10, 99, None]),
            *calling(made.trim_to, [0, 10, 9999999, None]),
        ],
        CALLS,
    )
    yield "reduce", [made.__reduce__], CALLS


PROPERTIES = ["boundary_index", "boundary_term", "first_index", "last_index", "last_term", "nbytes"]


def _append_and_trim() -> Call:
    made = log_c.RaftLog()

    def step() -> None:
        made.append(7, LINES[2])
        if made.last_index % 200 == 0:
            made.trim_to(made.last_index - 3)

    return step


def _cycle() -> None:
    made = log_c.RaftLog()
    for _ in range(5):
        made.extend(tuple(TERMS), iter(LINES))
    made.trim_to(100)
    made.truncate_from(200)
    made.extend(TERMS, LINES)
    made.reset(5, 5)
    made.extend(TERMS, LINES)
    made.__init__(1, 1)
    made.append(7, LINES[2])


def _wide() -> None:
    made = log_c.RaftLog()
    made.extend([1, 1 << 40, 1 << 63], LINES[:3])
    made.entries(1, 4)
    made.truncate_from(2)
    made.extend([1 << 50] * 3, LINES[:3])


def _merges() -> None:
    made = log_c.RaftLog(10, 3)
    made.extend(TERMS, LINES)
    made.merge(10, TERMS, LINES, 0)
    made.merge(20, [8] * 64, LINES, 12)
    made.merge(8, [3, 3, *TERMS], [b"x", b"y", *LINES], 12)


def nodesconf() -> Iterable[tuple[str, list[Call], int]]:
    records = [nodesconf_c.parse_node_line(line) for line in NODE_LINES]
    good = NodeRecord(ID)
    odd = [_changed(good, change) for change in (*BAD_RECORDS, *WRONG_TYPES)]
    confs = [conf for conf in map(_parsed, FILES) if conf is not None]
    KEPT.extend([*records, *confs])
    yield "parse_node_line", calling(nodesconf_c.parse_node_line, NODE_LINES), CALLS
    refused = [line[:-1] + b"!" for line in NODE_LINES] + [b"x", None, LINES[2]]
    yield "parse_node_line, refused", calling(nodesconf_c.parse_node_line, refused), SLOW_CALLS
    yield "parse", calling(nodesconf_c.parse, FILES), SLOW_CALLS
    yield "parse, cut", calling(nodesconf_c.parse, [*(data[:-9] for data in FILES), b"x", None]), SLOW_CALLS
    yield "format_node_line", calling(nodesconf_c.format_node_line, records), CALLS
    yield "format_node_line, refused", calling(nodesconf_c.format_node_line, [None, *odd]), SLOW_CALLS
    yield "dump", calling(nodesconf_c.dump, [*confs, None]), SLOW_CALLS
    yield "log_line", calling(lambda line: nodesconf_c.log_line(9, line), LINES[:8]), CALLS // 2
    yield "log_lines", [lambda: nodesconf_c.log_lines(9, LINES), lambda: nodesconf_c.log_lines(9, [])], CALLS // 20
    yield (
        "log_lines, refused",
        [
            *calling(lambda lines: nodesconf_c.log_lines(9, lines), [None, [b"x", None], [b"a\nb"], "x"]),
            *calling(lambda index: nodesconf_c.log_lines(index, [b"x", b"y"]), [None, True, -1, (1 << 64) - 1]),
        ],
        CALLS,
    )
    yield "crc64", calling(nodesconf_c.crc64, [b"abc", LINES[2], bytearray(b"x"), memoryview(b"xyz")[::-1]]), CALLS
    yield "crc64, refused", calling(lambda crc: nodesconf_c.crc64(b"x", crc), [None, True, -1, 1 << 64]), CALLS
    yield "appended_vars", calling(lambda vote: nodesconf_c.appended_vars(7, vote, 9), [None, ID, "x"]), CALLS // 4
    columns = [line.split(b" ")[1] for line in NODE_LINES]
    yield "parse_address", calling(nodesconf_c.parse_address, [*columns, None, b":"]), CALLS // 4
    yield "format_address", calling(nodesconf_c.format_address, [*records, None]), CALLS // 4


def _parsed(data: bytes) -> NodesConf | None:
    try:
        return nodesconf_c.parse(data)
    except nodesconf_c.ParseError:
        return None


def _changed(record: NodeRecord, change: dict[str, Any]) -> NodeRecord:
    changed = copy.copy(record)
    for name, value in change.items():
        object.__setattr__(changed, name, value)
    return changed


# What the measure must see.


def leaks() -> Iterable[tuple[str, list[Call], int]]:
    incref, kept, fill = ctypes.pythonapi.Py_IncRef, ctypes.py_object, ctypes.memset
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    yield "an object", [lambda: incref(kept(object()))], CALLS
    yield "a count of None", [lambda: incref(kept(None))], CALLS
    yield "a count of an argument", [lambda: incref(kept(LINES[1]))], CALLS
    yield "malloc's own", [lambda: fill(malloc(2000), 1, 2000)], CALLS


def main() -> None:
    for name, calls, count in {"wire": wire, "log": log, "nodesconf": nodesconf, "leaks": leaks}[sys.argv[1]]():
        print(json.dumps({"case": name, **measure(calls, count)}), flush=True)


if __name__ == "__main__":
    main()
