"""One function a leaf that takes any bytes, gives them to both twins and raises where these differ.

The fuzzer's targets (run.sh) and, on the corpus, tests of their own (tests/hot/test_fuzz_targets.py). No fuzzer is
imported here, so a find is played again by `python fuzz/targets.py LEAF FILE`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "vectors"
sys.path[:0] = [str(ROOT / "tests" / "hot")]

from nodesconf_cases import resealed  # noqa: E402

from raftfast.hot import log_c, log_py, nodesconf_c, nodesconf_py, wire_c, wire_py  # noqa: E402

TOP = (1 << 64) - 1


class Difference(AssertionError):
    """The twins, or a call and what it must be equal to, are not the same."""


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives, or the type and text of the error that it may raise."""
    try:
        return call(*arguments)
    except (ValueError, LookupError, TypeError, OverflowError, log_py.InvariantViolation) as error:
        return type(error), str(error), getattr(error, "messages", None)


def equal(one: Any, other: Any) -> Any:
    if one != other:
        raise Difference(f"{one!r}\nis not\n{other!r}")
    return one


def same(one: Any, other: Any) -> Any:
    """The one, where both are equal to the last type and the order of a dict."""
    if repr(one) != repr(other):
        raise Difference(f"{one!r}\nis not\n{other!r}")
    return equal(one, other)


def both(modules: tuple[Any, Any], verb: str, *arguments: Any) -> Any:
    one, other = (outcome(getattr(module, verb), *arguments) for module in modules)
    if isinstance(one, list | tuple) and len(one) > 32:  # lines by the hundred: written out they would take most time
        return equal(one, other)
    return same(one, other)


# The codec. The first byte: how the rest is taken.

WIRE = (wire_c, wire_py)


def wire(data: bytes) -> None:
    how, data = data[:1], data[1:]
    if how in (b"", b"d"):
        _payload(data)
    elif how == b"f":  # payloads, framed here: a fuzzer seldom gets a length right
        _stream(b"".join(map(_framed, data.split(b"\xff\xfe"))), 7)
    else:
        _stream(data, how[0])


def _framed(payload: bytes) -> bytes:
    return b"RAFT" + (len(payload) + 8).to_bytes(4, "big") + payload


def _payload(payload: bytes) -> None:
    message = both(WIRE, "decode", payload)
    if isinstance(message, tuple):
        if message[0] is not wire_py.ProtocolError:
            raise Difference(f"{message} for bytes")
        return
    frame = both(WIRE, "encode", message)
    if isinstance(frame, bytes):
        same(both(WIRE, "decode", frame[8:]), message)
    elif type(message) is not wire_py.Unknown:
        raise Difference(f"{message!r} was decoded and is not encoded: {frame}")


def _stream(stream: bytes, step: int) -> None:
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)] if step else [stream]
    limit = 64 if step % 2 else 16 << 20
    given = [_fed(twin, pieces, limit) for twin in WIRE]
    same(*given)
    same(given[0][0], _fed(wire_c, [stream], limit)[0])


def _fed(twin: Any, pieces: list[bytes], limit: int) -> Any:
    """All messages and the error, then what each piece did."""
    decoder, messages, steps = twin.FrameDecoder(limit), [], []
    for piece in pieces:
        step = outcome(decoder.feed, piece)
        steps.append((step, decoder.buffered))
        if isinstance(step, tuple):
            return (messages + list(step[2]), step[:2]), steps
        messages += step
    return (messages, None), steps


# The log: a program of verbs. Each takes a byte for the verb and up to three for its arguments.


def log(data: bytes) -> None:
    source = iter(data)
    index, term = ((0, 0), (5, 3), (TOP - 200, 1 << 40), (TOP, TOP))[next(source, 0) % 4]
    twins = tuple(twin.RaftLog(index, term) for twin in (log_c, log_py))
    for step, verb in enumerate(source):
        _step(twins, verb, *(next(source, 0) for _ in range(3)))
        for name in ("boundary_index", "boundary_term", "first_index", "last_index", "last_term", "nbytes"):
            same(*(getattr(twin, name) for twin in twins))
        if step % 16 == 0:
            _check(twins)
    _check(twins)
    if twins[0].last_index < TOP:
        equal(*(twin.entries(twin.first_index, twin.last_index + 1) for twin in twins))


def _check(twins: Any) -> None:
    for twin in twins:
        twin.check()


def _step(twins: Any, verb: int, a: int, b: int, c: int) -> None:
    one = twins[0]
    near = min(max(one.boundary_index - 2 + a, 0), TOP + 1) if a < 128 else max(one.last_index + 2 - (a - 128), 0)
    other = near + b if c % 2 else max(one.last_index + 1 - b, 0)
    if verb % 12 == 0:
        both(twins, "append", _term(one.last_term, a), _line(b, c))
    elif verb % 12 in (1, 2):
        both(twins, "extend", *_batch(one.last_term, a, b, c))
    elif verb % 12 == 3:
        both(twins, "merge", near, *_batch(_term_at(one, near), b, c, verb), one.boundary_index + verb // 12)
    elif verb % 12 == 4:
        _merge_of_held(twins, near, b, c)
    elif verb % 12 == 5:
        both(twins, "truncate_from", near)
    elif verb % 12 == 6:
        both(twins, "trim_to", near)
    elif verb % 12 == 7:
        both(twins, "lines", near, other, None if c < 128 else c)
    elif verb % 12 == 8:
        both(twins, "entries", near, other, None if c < 128 else c * 9)
    elif verb % 12 == 9:
        both(twins, "membership_lines", near, other)
    elif verb % 12 == 10:
        both(twins, "hint", near, _term(_term_at(one, near), b))
        both(twins, "matches", near, b)
        both(twins, "line", near)
        both(twins, "term_at", near)
    elif c == 7:
        both(twins, "reset", near, b)


def _term(least: int, step: int) -> int:
    return int(least) + (0, 0, 1, 2, -1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 50)[step % 9]


def _term_at(one: Any, index: int) -> int:
    found = outcome(one.term_at, index)
    return found if isinstance(found, int) else 0


def _line(kind: int, tail: int) -> bytes:
    kinds = b"APP", b"NOOP", b"NODE_JOIN", b"NODE_FORGET", b"ADD_VOTER", b"DEL_VOTER", b"NODE_JOINS", b"ADD_VOTE", b""
    return b"%d %b%b" % (kind, kinds[kind % 9], b" x" * (tail % 5))


def _batch(least: int, count: int, step: int, kind: int) -> tuple[list[int], list[bytes]]:
    count = count % 8 if count < 192 else 120 + (count - 192) * 3  # a few, or as many as fill a block and more
    terms = [least] * (count // 2) + [_term(least, step)] * (count - count // 2)
    return terms, [_line(kind, at) for at in range(count - (kind == 255))]


def _merge_of_held(twins: Any, lo: int, count: int, change: int) -> None:
    """A part of what is held, perhaps with one entry changed, and some more behind it."""
    one = twins[0]
    if not one.boundary_index < lo <= one.last_index < TOP:
        return
    terms, lines = map(list, one.entries(lo, min(lo + count, one.last_index + 1)))
    if terms and change % 3:
        at = change % len(terms)
        lines[at] += b"'" * (change % 2)
        terms[at:] = [_term(term, change) for term in terms[at:]]
    both(twins, "merge", lo - 1, terms + terms[-1:] * 3, lines + [b"tail"] * len(terms[-1:]) * 3, lo + change - 128)


# nodes.conf. The first byte: which verb.

CONF = (nodesconf_c, nodesconf_py)


def nodesconf(data: bytes) -> None:
    how, data = data[:1], data[1:]
    if how == b"n":
        _node_line(data)
    elif how == b"a":
        both(CONF, "parse_address", data)
        both(CONF, "parse_address", data.decode("utf-8", "surrogateescape"))
    elif how == b"l":
        both(CONF, "crc64", data, len(data))
        both(CONF, "log_lines", TOP - 2, data.split(b"\xff"))
    else:
        _file(resealed(data, nodesconf_c.crc64) if how == b"s" else data)


def _node_line(line: bytes) -> None:
    record = both(CONF, "parse_node_line", line)
    if not isinstance(record, tuple):
        written = both(CONF, "format_node_line", record)
        equal(both(CONF, "parse_node_line", written), record)


def _file(data: bytes) -> None:
    conf = both(CONF, "parse", data)
    if isinstance(conf, tuple):
        if conf[0] is not nodesconf_py.ParseError:
            raise Difference(f"{conf} for bytes")
        return
    written = both(CONF, "dump", conf)
    if not isinstance(written, bytes):
        return  # a file of another program may hold what ours would not write
    again = both(CONF, "parse", written)
    equal((again.vars, again.entries), (conf.vars, conf.entries))
    same(both(CONF, "dump", again), written)


TARGETS: dict[str, Callable[[bytes], None]] = {"wire": wire, "log": log, "nodesconf": nodesconf}


def seeds(leaf: str) -> Iterator[bytes]:
    """What a corpus begins with: the vectors, as the leaf's target takes them."""
    if leaf == "wire":
        vectors = json.loads((VECTORS / "wire.json").read_text(encoding="utf-8"))
        frames = [bytes.fromhex(vector["frame"]) for vector in vectors["valid"] + vectors["invalid"]]
        yield from (b"d" + frame[8:] for frame in frames)
        yield from (b"\0" + frame for frame in frames)
        yield b"f" + b"\xff\xfe".join(frame[8:] for frame in frames[:12])
        yield b"\x03" + b"".join(frames[:12])
    elif leaf == "log":
        for first in range(4):
            yield bytes([first, *(1, 9, 2, 2), *(4, 3, 5, 3), *(6, 4, 0, 0), *(2, 200, 7, 4), *(9, 0, 9, 1)])
            yield bytes([first, *(1, 130, 8, 1), *(5, 140, 0, 0), *(6, 100, 0, 0), *(3, 5, 3, 3), *(8, 3, 9, 200)])
            yield bytes([first, *(0, 0, 0, 0), *(10, 3, 0, 0), *(11, 3, 1, 7), *(7, 2, 1, 1), *(4, 3, 1, 4)])
    else:
        for path in sorted((VECTORS / "nodesconf").glob("*.conf")):
            data = path.read_bytes()
            if len(data) < 5000:
                yield from (b"p" + data, b"s" + data)
                yield from (b"n" + line for line in data.splitlines() if line[40:41] == b" ")
                yield from (b"a" + line.split(b" ")[1] for line in data.splitlines() if line[40:41] == b" ")
                yield b"l" + data.replace(b"\n", b"\xff")


def main() -> None:
    leaf, *files = sys.argv[1:]
    for name in files:
        TARGETS[leaf](Path(name).read_bytes())
        print(f"{name}: no difference")


if __name__ == "__main__":
    main()
