"""Child of test_guard_pages: what a leaf reads stands right before a page that can't be read, or right behind one.

Run as `python guard_pages.py LEAF SEED WHERE`. A read of one byte too many ends this process; the case at hand stands
in the file WHERE then. Prints how many cases it went through. Nothing here is a test.

The leaves take `bytes` by a way of their own, without the buffer protocol, so `bytes` objects are forged: a header
laid by hand in front of the data. Even the NUL that stands behind the data of every real one lies on the forbidden
page. Their reference count begins high, so nobody frees them; it must be the same again after each call, which also
says that the memory may be used for the next case.
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cffi import FFI
from nodesconf_cases import resealed
from wire_cases import INVALID, VALID, message_of

from raftfast import messages
from raftfast.hot import log_c, nodesconf_c, wire_c

PAGE = mmap.PAGESIZE
HEADER = struct.Struct("nPnn")  # references, type, size, hash
REFERENCES = 1 << 30
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_PRIVATE, MAP_ANONYMOUS = 2, 32

ffi = FFI()
ffi.cdef("""
    void *mmap(void *at, size_t size, int protection, int flags, int file, long offset);
    int mprotect(void *at, size_t size, int protection);
    void *memchr(const void *at, int byte, size_t size);
""")
libc = ffi.dlopen(None)


class Edge:
    """Pages between two that can't be read. What is put there is overwritten by the next `before` or `behind`."""

    def __init__(self, pages: int) -> None:
        if (bytes.__basicsize__, object.__basicsize__) != (HEADER.size + 1, 16):
            raise SystemExit("bytes objects have another header here")
        self.size = pages * PAGE
        mapped = libc.mmap(ffi.NULL, self.size + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if mapped == ffi.cast("void *", -1):
            raise SystemExit("mmap failed")
        self.start = ffi.cast("char *", mapped) + PAGE
        self.end = self.start + self.size
        for page in (self.start - PAGE, self.end):
            if libc.mprotect(page, PAGE, PROT_NONE) != 0:
                raise SystemExit("mprotect failed")

    def before(self, data: bytes) -> memoryview:
        """The data as a buffer whose end is the forbidden page."""
        ffi.memmove(self.end - len(data), data, len(data))
        return memoryview(ffi.buffer(self.end - len(data), len(data)))

    def behind(self, data: bytes) -> memoryview:
        """The data as a buffer whose beginning is the other forbidden page's end."""
        ffi.memmove(self.start, data, len(data))
        return memoryview(ffi.buffer(self.start, len(data)))

    def forged(self, data: bytes) -> bytes:
        """The data as `bytes` whose end is the forbidden page."""
        at = self.end - len(data) - HEADER.size
        ffi.memmove(at, HEADER.pack(REFERENCES, id(bytes), len(data), -1) + data, HEADER.size + len(data))
        made = ctypes.cast(int(ffi.cast("intptr_t", at)), ctypes.py_object).value
        if type(made) is not bytes:
            raise SystemExit("the forged object is no bytes")
        return made

    def references(self, size: int) -> int:
        """How many references to the forged object of `size` bytes there are beyond the first ones."""
        (count,) = struct.unpack("n", ffi.buffer(self.end - size - HEADER.size, 8)[:])
        return int(count) - REFERENCES


class Run:
    """Calls, each on bytes at the edge, and what they gave compared with what they give for ordinary bytes."""

    def __init__(self, where: str, seed: int) -> None:
        self.edge = Edge(64)
        self.source = random.Random(seed)
        self.where = mmap.mmap(-1, PAGE) if where == "-" else _mapped(where)
        self.done = 0

    def each(self, what: str, call: Callable[[Any], Any], data: bytes, *, buffers: bool) -> None:
        """`call` with the data as forged bytes and, where the verb takes buffers, as those."""
        note = f"{what} of {len(data)} bytes: {data!r}".encode()[: PAGE - 4]
        self.where[: 4 + len(note)] = struct.pack("i", len(note)) + note
        expected = outcome(call, data)
        # CPython itself looks at the first byte of empty bytes when it compares them, and has but one such object.
        places = (self.edge.forged,) if data else ()
        for place in (*places, self.edge.before, self.edge.behind) if buffers else places:
            placed = place(data)
            given = outcome(call, placed)
            if given != expected:
                raise SystemExit(f"{note.decode()} gives {given}, not {expected}, as {place.__name__}")
            if placed != data:
                raise SystemExit(f"{note.decode()} was changed in place")
            del placed, given
            if place == self.edge.forged and self.edge.references(len(data)) != 0:
                raise SystemExit(f"{note.decode()} keeps {self.edge.references(len(data))} references")
            self.done += 1

    def mutated(self, data: bytes) -> bytes:
        """The data with one to three of its bytes changed, cut out or doubled."""
        changed = bytearray(data)
        for _ in range(self.source.randint(1, 3)):
            at = self.source.randrange(len(changed) + 1)
            kind = self.source.randrange(4)
            if kind == 0:
                del changed[at : at + self.source.randint(1, 4)]
            elif kind == 1:
                changed[at:at] = changed[max(0, at - 8) : at]
            else:
                changed[at : at + 1] = bytes([self.source.choice(b" \n\x00-,:@=[]019aAz\x80\xff")])
        return bytes(changed)


def _mapped(where: str) -> mmap.mmap:
    path = Path(where)
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), PAGE)


def outcome(call: Callable[[Any], Any], data: Any) -> Any:
    """What a call gives, or the type and text of what it raises."""
    try:
        return call(data)
    except Exception as error:
        return type(error), str(error)


def cuts(run: Run, data: bytes, most: int = 1 << 30) -> Iterator[bytes]:
    """The data whole, cut at each byte (or at `most` of them), and each of these mutated."""
    ends = range(len(data) + 1)
    for end in ends if len(ends) <= most else sorted(run.source.sample(ends, most)):
        yield data[:end]
        yield run.mutated(data[:end])
    yield data
    for _ in range(50):
        yield run.mutated(data)


# Each leaf's verbs.


def wire(run: Run) -> None:
    frames = [bytes.fromhex(vector["frame"]) for vector in VALID + INVALID]
    lines = tuple(b"%d APP - %032d" % (term, term) for term in range(95, 103))
    frames.append(wire_c.encode(messages.AppendEntries("a1" * 20, 200, 7, 95, 7, (95, 96, *range(97, 103)), lines, 3)))
    for frame in frames:
        for data in cuts(run, frame, 400):
            run.each("feed", lambda given: wire_c.FrameDecoder().feed(given), data, buffers=True)
            run.each("decode", wire_c.decode, data[8:], buffers=True)
            cut = run.source.randint(0, len(data))

            def in_two(given: Any, data: bytes = data, cut: int = cut) -> Any:
                decoder = wire_c.FrameDecoder()
                return decoder.feed(data[:cut]), decoder.feed(given), decoder.buffered

            run.each("feed after a piece", in_two, data[cut:] + frames[0], buffers=True)
    for vector in VALID:
        encoded(run, message_of(vector))


def encoded(run: Run, message: messages.Message) -> None:
    """`encode` with each field of bytes, and each line, at the edge."""
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if type(value) is bytes:
            for data in cuts(run, value, 200):
                run.each(
                    f"encode {field.name}",
                    lambda given, name=field.name: wire_c.encode(dataclasses.replace(message, **{name: given})),
                    data,
                    buffers=False,
                )
        elif field.name == "lines":
            for position, line in enumerate(value):

                def with_line(given: bytes, value: Any = value, position: int = position) -> bytes:
                    changed = (*value[:position], given, *value[position + 1 :])
                    return wire_c.encode(dataclasses.replace(message, lines=changed))

                for data in cuts(run, line, 100):
                    run.each(f"encode line {position}", with_line, data, buffers=False)


def log(run: Run) -> None:
    kinds = (b"NOOP", b"APP - data", b"NODE_JOIN a", b"NODE_FORGET", b"ADD_VOTER a b", b"DEL_VOTER", b"NODE_JOINS")
    for line in [b"7 " + kind for kind in kinds]:
        for data in cuts(run, line):
            run.each("append and read", _kept, data, buffers=False)
            for other in (data, data + b"x", run.mutated(data)):
                run.each("merge over it", lambda given, other=other: _merged(given, other), data, buffers=False)
                run.each("merge it over", lambda given, other=other: _merged(other, given), data, buffers=False)


def _kept(line: bytes) -> Any:
    made = log_c.RaftLog(1, 1)
    made.append(2, line)
    made.extend([2, 3], [b"x", line])
    made.check()
    return made.membership_lines(2, 5), made.lines(2, 5, 7), made.entries(2, 5), made.nbytes, made.trim_to(3)


def _merged(held: bytes, sent: bytes) -> Any:
    made = log_c.RaftLog(1, 1)
    made.append(2, held)
    return made.merge(1, [2, 2], [sent, held], 0), made.lines(2, 4)


def nodesconf(run: Run) -> None:
    folder = Path(__file__).parents[1] / "vectors" / "nodesconf"
    files = [path.read_bytes() for path in sorted(folder.glob("*.conf"))]
    lines = {line for data in files for line in data.splitlines()[:15]}
    for data in files:
        for cut in cuts(run, data, 200 if len(data) < 10_000 else 5):
            run.each("parse", nodesconf_c.parse, cut, buffers=False)
            run.each("parse", nodesconf_c.parse, resealed(cut, nodesconf_c.crc64), buffers=False)
            run.each("parse", nodesconf_c.parse, cut + b"\n", buffers=False)
    for line in sorted(lines):
        for cut in cuts(run, line, 50):
            run.each("parse_node_line", nodesconf_c.parse_node_line, cut, buffers=False)
            run.each("parse_address", nodesconf_c.parse_address, cut[41:].partition(b" ")[0], buffers=False)
            run.each("crc64", nodesconf_c.crc64, cut, buffers=True)
            run.each("log_lines", lambda given: nodesconf_c.log_lines(9, [b"x", given, given]), cut, buffers=False)
    for size in range(600):
        run.each("crc64", lambda given: nodesconf_c.crc64(given, 7), run.source.randbytes(size), buffers=True)


# The proof that a read past the end is seen.


def past(run: Run) -> None:
    run.edge.forged(b"abc")
    libc.memchr(run.edge.end - 3, 0, 4)


def ahead(run: Run) -> None:
    run.edge.behind(b"abc")
    libc.memchr(run.edge.start - 1, ord("c"), 4)


def main() -> None:
    name, seed, where = sys.argv[1:]
    run = Run(where, int(seed))
    {"wire": wire, "log": log, "nodesconf": nodesconf, "past": past, "ahead": ahead}[name](run)
    print(run.done)


if __name__ == "__main__":
    main()
