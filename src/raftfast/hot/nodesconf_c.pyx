# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, annotation_typing=False
"""The compiled twin of the `nodes.conf` leaf: the file, its lines, CRC-64 (NODESCONF 1; PROTOCOL 11).

Floor 1. Same names, signatures and behaviour as `nodesconf_py`. Read here, in C, are the lines that a writer usually
writes; a line that is unusual or wrong goes to `nodesconf_lines` and `nodesconf_file`, which both twins share, so
every rule beyond the usual and every error's text exists once. No file is opened here.
"""

from __future__ import annotations

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from collections.abc import Sequence

from ..config import BUS_PORT_OFFSET as _BUS_PORT_OFFSET
from ..errors import ParseError
from ..messages import ENTRY_TYPES as _ENTRY_TYPES
from ..records import Address, NodeRecord, NodesConf
from .nodesconf_file import Reader, written
from .nodesconf_lines import check_u64, format_address, parse_address, vars_line
from .nodesconf_lines import flags_column as _flags_column
from .nodesconf_lines import flags_of as _flags_of
from .nodesconf_lines import format_node_line as _format_any_node_line
from .nodesconf_lines import parse_node_line as _parse_any_node_line

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

cdef extern from "Python.h":
    void Py_XDECREF(PyObject *value) noexcept
    void PyObject_GC_UnTrack(void *value) noexcept
    PyObject *PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest) except NULL
    PyObject *PyUnicode_FromStringAndSize(const char *text, Py_ssize_t size) except NULL
    void *PyUnicode_DATA(PyObject *text) noexcept
    PyObject *PyLong_FromUnsignedLongLong(unsigned long long number) except NULL
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF


include "fields.pxi"
include "nodesconf_bytes.pxi"


# --- CRC-64 -------------------------------------------------------------------------------------------------------


cdef inline uint64_t u64(object value, str what) except? 0xFFFFFFFFFFFFFFFF:
    """`value` as C has it; `check_u64` refuses all that does not fit."""
    if type(value) is int:
        try:
            return PyLong_AsUnsignedLongLong(value)
        except OverflowError:
            pass
    return PyLong_AsUnsignedLongLong(check_u64(value, what))


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC-64 "Jones" of `data`, going on from `crc`: `crc64(b, crc64(a)) == crc64(a + b)`.

    Reflected, initial value 0, no final xor; of `b"123456789"` it is 0xe9c6d914c4b8d9ca.

    Raises: TypeError for a `crc` that is no int (a bool is none) or data that is not bytes-like; OverflowError for a
    `crc` outside 64 unsigned bits.
    Source: NODESCONF 1.6.
    """
    cdef uint64_t start = u64(crc, "crc")
    if not isinstance(data, bytes):
        data = bytes(memoryview(data))
    return crc_of(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), start)


include "nodesconf_nodes.pxi"
include "nodesconf_write.pxi"
include "nodesconf_ids.pxi"


cdef inline object primary_of(NodeLine *node):
    return None if node.primary.at == node.primary.end else text_of(node.primary)


def parse_node_line(line: bytes) -> NodeRecord:
    """The record that one node line holds; one line end after it is allowed.

    Flags come back in the reference's order, slots ascending and maximal, of open slots one a slot. The epoch of a
    replica that has a primary is 0, whatever the column shows. Stricter than the reference: numbers are decimal and
    in range, the primary is an id or `-`, open slots have exactly their form, quotes are refused.

    Raises: ParseError (`lineno` 1) with the reason; TypeError for anything but bytes.
    Cost: linear in the line.
    Source: NODESCONF A, 1.2 and 1.4.
    """
    cdef Cursor c
    cdef NodeLine node
    cdef Column *column
    if isinstance(line, bytes):
        c.at = <const unsigned char *>PyBytes_AS_STRING(line)
        c.end = c.at + PyBytes_GET_SIZE(line)
        node.ports.at = node.ports.end = c.at
        if c.end > c.at and (c.end - 1)[0] == c"\n":
            c.end -= 1
        if take_node(c, &node):
            column = column_of(&node)
            if column != NULL:
                return record_of(&node, column, text_of(node.id), primary_of(&node))
    return _parse_any_node_line(line)


def format_node_line(node: NodeRecord) -> bytes:
    """The node line of `node`, without a line end; epoch and open slots as the record has them.

    Flags are written in the reference's order, aux fields as by `format_address`, slots ascending and maximal, then
    open slots ascending.

    Raises: ParseError (`lineno` 0) where `parse_node_line` would refuse the line or read something else; TypeError.
    Source: NODESCONF 1.2.
    """
    line = node_text(node) if isinstance(node, NodeRecord) else None
    return _format_any_node_line(node) if line is None else line


# --- log lines ----------------------------------------------------------------------------------------------------

cdef tuple TYPES = tuple(sorted(_ENTRY_TYPES))  # owns the bytes that TYPE_AT points to
cdef const char *TYPE_AT[MAX_TYPES]
cdef Py_ssize_t TYPE_SIZE[MAX_TYPES]
cdef int TYPE_COUNT = len(TYPES)


cdef int fill_types() except -1:
    cdef int place
    if TYPE_COUNT > MAX_TYPES:
        raise ImportError("more entry types than this module has room for")
    for place in range(TYPE_COUNT):
        TYPE_AT[place] = PyBytes_AS_STRING(TYPES[place])
        TYPE_SIZE[place] = PyBytes_GET_SIZE(TYPES[place])
    return 0


fill_types()

# An entry as a log line has it; `line` points into the file's bytes.
cdef struct Entry:
    uint64_t index
    uint64_t term
    Cursor line


cdef bint take_type(Cursor *c, bint *is_app) noexcept nogil:
    cdef Cursor run
    cdef int place
    take_run(c, WORD, &run)
    for place in range(TYPE_COUNT):
        if is_text(run, TYPE_AT[place], TYPE_SIZE[place]):
            is_app[0] = is_text(run, b"APP", 3)
            return True
    return False


cdef bint take_data(Cursor *c) noexcept nogil:
    """Takes the rest of the line, if it is tokens with single blanks between them."""
    cdef Cursor run
    while True:
        if take_run(c, DATA, &run) == 0:
            return False
        if c.at == c.end:
            return True
        if not take(c, c" "):
            return False


cdef bint take_entry(Cursor c, Entry *entry) noexcept nogil:
    """The entry of a whole log line that is sound by itself and in the form that writers give it."""
    cdef uint64_t checksum
    cdef const unsigned char *payload
    cdef bint is_app = False
    if c.end - c.at < 4 or memcmp(c.at, b"log ", 4) != 0:
        return False
    c.at += 4
    if not take_hex16(&c, &checksum) or checksum == 0 or not take(&c, c" "):
        return False
    payload = c.at
    if not take_number(&c, UINT64_MAX, &entry.index) or not take(&c, c" "):
        return False
    entry.line = c
    if not take_number(&c, UINT64_MAX, &entry.term) or not take(&c, c" ") or not take_type(&c, &is_app):
        return False
    if c.at != c.end:
        if not take(&c, c" ") or c.at == c.end:
            return False
        if not is_app and not take_data(&c):
            return False
    return crc_of(payload, c.end - payload, 0) == checksum


cdef Py_ssize_t put_decimal(char *to, uint64_t number) noexcept nogil:
    """Writes at most 20 digits; how many. With `to` NULL only counts."""
    cdef char digits[20]
    cdef Py_ssize_t count = 0, place
    while True:
        digits[19 - count] = <char>(0x30 + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    if to != NULL:
        memcpy(to, &digits[20 - count], count)
    return count


cdef void put_hex16(char *to, uint64_t number) noexcept nogil:
    cdef int place
    for place in range(15, -1, -1):
        to[place] = b"0123456789abcdef"[number & 15]
        number >>= 4


def log_lines(first_index: int, lines: Sequence[bytes]) -> bytes:
    """The file's lines for the entries from `first_index` on, whose AE lines are `lines`, each with its line end.

    `log <checksum> <index> <line>`, where the checksum covers all that follows it. What a line holds is not looked
    at, but for a line end, which would break the file.

    Raises: ParseError for a line end inside a line; TypeError, OverflowError for an index that is no unsigned 64-bit
    int or lines that are not bytes.
    Source: NODESCONF 1.7.
    """
    cdef uint64_t first = u64(first_index, "index"), index = first
    if not isinstance(lines, (list, tuple)):
        raise TypeError(f"lines must be a list or a tuple, not {type(lines).__name__}")
    cdef tuple held = tuple(lines)  # keeps the lines alive, and their number as it is, whoever has the list
    cdef Py_ssize_t total = 0, size, count = len(held), place
    cdef object line
    for place in range(count):
        line = held[place]
        if not isinstance(line, bytes):
            raise TypeError(f"an entry's line must be bytes, not {type(line).__name__}")
        if memchr(PyBytes_AS_STRING(line), c"\n", PyBytes_GET_SIZE(line)) != NULL:
            raise ParseError("a line end inside an entry's line")
        if place and index == 0:
            check_u64(first_index + place, "index")
        # 23 bytes a line besides; all lines are in memory and far from filling what Py_ssize_t counts.
        total += 23 + put_decimal(NULL, index) + PyBytes_GET_SIZE(line)
        index += 1
    cdef bytes text = PyBytes_FromStringAndSize(NULL, total)
    cdef char *to = PyBytes_AS_STRING(text)
    cdef char *payload
    index = first
    for place in range(count):
        line = held[place]
        memcpy(to, b"log ", 4)
        to[20] = c" "
        payload = to + 21
        size = put_decimal(payload, index)
        payload[size] = c" "
        memcpy(payload + size + 1, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
        size += 1 + PyBytes_GET_SIZE(line)
        put_hex16(to + 4, crc_of(<const unsigned char *>payload, size, 0))
        payload[size] = c"\n"
        to = payload + size + 1
        index += 1
    return text


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
    pairs = {"currentTerm": current_term}
    if voted_for is not None:
        pairs["votedFor"] = voted_for
    line = vars_line(pairs) + b"\n"
    return line + b"crc %016x\n" % crc64(line, crc)


# --- the file -----------------------------------------------------------------------------------------------------


@cython.final
@cython.internal
cdef class _Progress:
    """Where a file being read stands, in C. `Reader` has the same; `give` and `fetch` keep them equal.

    The ids of the nodes stand in `ids` as long as every node line is usual; then, by `hand_over`, in the reader.
    """

    cdef object reader
    cdef list entries
    cdef list nodes
    cdef bytearray owned
    cdef Ids ids
    cdef bint has_ids  # the reader does not know of the node lines so far
    cdef bint has_myself
    cdef bint plain  # no appended vars line waits for its crc line
    cdef bint in_log  # currentTerm is known, and an index can follow
    cdef bint moved  # the reader does not know yet of the last entries
    cdef uint64_t next_index
    cdef uint64_t last_term
    cdef uint64_t current_term

    def __cinit__(self, reader, size_t file_bytes):
        self.reader = reader
        self.entries = reader.entries
        self.nodes = reader.nodes
        # It grows long while the collector runs, of records that it does not see either: there is nothing to visit.
        PyObject_GC_UnTrack(<void *>self.nodes)
        self.owned = reader.owned
        self.has_ids = ids_begin(&self.ids, file_bytes)
        self.fetch()

    def __dealloc__(self):
        ids_free(&self.ids)

    cdef int fetch(self) except -1:
        current_term = self.reader.current_term
        self.plain = self.reader.pending is None
        self.in_log = self.plain and current_term is not None and self.reader.next_index <= UINT64_MAX
        if self.in_log:
            self.next_index = self.reader.next_index
            self.last_term = self.reader.last_term
            self.current_term = current_term
        self.moved = False
        return 0

    cdef int give(self) except -1:
        if self.moved:
            self.reader.next_index = self.entries[len(self.entries) - 1][0] + 1
            self.reader.last_term = self.last_term
            self.reader.appending = True
            self.moved = False
        return 0

    cdef bint add(self, Entry *entry) except -1:
        """Keeps an entry that follows the last one; False where it does not."""
        if entry.index != self.next_index or not self.last_term <= entry.term <= self.current_term:
            return False
        self.entries.append((
            entry.index,
            entry.term,
            PyBytes_FromStringAndSize(<const char *>entry.line.at, entry.line.end - entry.line.at),
        ))
        self.in_log = entry.index != UINT64_MAX
        self.next_index = entry.index + 1
        self.last_term = entry.term
        self.moved = True
        return True

    cdef bint add_node(self, NodeLine *node, Py_ssize_t lineno) except -1:
        """Keeps a node; False where its line is unusual, or refused as `Reader.add_node` says it."""
        cdef Column *column = column_of(node)
        cdef Id *own = NULL
        cdef Id *referred = NULL
        cdef bint by_reader
        if column == NULL:
            return False
        by_reader = not self.has_ids or not ids_room(&self.ids)
        primary = None
        if not by_reader and node.primary.at != node.primary.end:
            referred = id_search(&self.ids, node.primary.at)
            if referred == NULL:
                by_reader = True
            else:
                id_put(&self.ids, referred, node.primary.at)
                primary = <object>referred.text
        if not by_reader:
            own = id_search(&self.ids, node.id.at)
        if own == NULL:
            self.hand_over()
            self.reader.add_node(record_of(node, column, text_of(node.id), primary_of(node)), lineno)
            return True
        id_put(&self.ids, own, node.id.at)
        if own.lineno or (column.myself and self.has_myself) or not self.take_ownership(node):
            return False
        own.lineno = lineno
        self.ids.absent -= 1
        self.has_myself = self.has_myself or column.myself
        self.nodes.append(record_of(node, column, <object>own.text, primary))
        return True

    cdef bint take_ownership(self, NodeLine *node) noexcept:
        """Marks the node's slots; False, and none is marked, where one has an owner."""
        cdef char *owned = PyByteArray_AS_STRING(self.owned)  # of SLOTS bytes: nobody resizes it
        cdef int place
        for place in range(node.range_count):
            if memchr(owned + node.firsts[place], 1, node.lasts[place] - node.firsts[place] + 1) != NULL:
                return False
        for place in range(node.range_count):
            memset(owned + node.firsts[place], 1, node.lasts[place] - node.firsts[place] + 1)
        return True

    cdef int hand_over(self) except -1:
        """Tells the reader of the node lines so far; from here on it keeps them."""
        cdef size_t i
        if not self.has_ids:
            return 0
        self.has_ids = False
        for i in range(self.ids.size):
            if self.ids.places[i].lineno:
                self.reader.node_lines[<object>self.ids.places[i].text] = self.ids.places[i].lineno
        self.reader.has_myself = self.has_myself
        ids_free(&self.ids)
        return 0

    cdef object finish(self):
        cdef bint settled = self.has_ids and self.ids.absent == 0  # a usual line refers to nothing but its primary
        self.give()
        if settled:
            self.reader.has_myself = self.has_myself
        else:
            self.hand_over()
        return self.reader.finish(settled)


cdef inline bint is_no_node(Cursor c) noexcept nogil:
    """Whether this is certainly no node line. Of a line that is, or may be one, False."""
    return c.at == c.end or (c.end - c.at >= 5 and (
        memcmp(c.at, b"vars ", 5) == 0 or memcmp(c.at, b"log ", 4) == 0 or memcmp(c.at, b"crc ", 4) == 0
    ))


cdef object read_file(object data, object reader):  # bytes, or of a class below it
    cdef const unsigned char *base = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef const unsigned char *found
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), start = 0, end, lineno = 0
    cdef _Progress progress = _Progress(reader, size)
    cdef Cursor c
    cdef Entry entry
    cdef NodeLine node
    node.ports.at = node.ports.end = base
    while start < size:
        found = <const unsigned char *>memchr(base + start, c"\n", size - start)
        end = size if found == NULL else found - base
        lineno += 1
        c.at = base + start
        c.end = base + end
        start = end + 1
        if found != NULL and progress.in_log and take_entry(c, &entry) and progress.add(&entry):
            continue
        if found != NULL and progress.plain and take_node(c, &node) and progress.add_node(&node, lineno):
            continue
        if not is_no_node(c):
            progress.hand_over()
        progress.give()
        reader.line(c.at - base, end, lineno)
        progress.fetch()
    return progress.finish()


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
    return read_file(data, Reader(data, crc64))


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
