# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, annotation_typing=False
"""The compiled twin of the `nodes.conf` leaf: the file, its lines, CRC-64 (NODESCONF 1; PROTOCOL 11).

Floor 1. Same names, signatures and behaviour as `nodesconf_py`. Read here, in C, are the lines that a writer usually
writes; a line that is unusual or wrong goes to `nodesconf_lines` and `nodesconf_file`, which both twins share, so
every rule beyond the usual and every error's text exists once. No file is opened here.
"""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

from collections.abc import Sequence

from ..config import BUS_PORT_OFFSET
from ..errors import ParseError
from ..messages import ENTRY_TYPES
from ..records import NodeRecord, NodesConf
from .nodesconf_file import Reader, written
from .nodesconf_lines import check_u64, flags_of, format_address, format_node_line, parse_address, vars_line
from .nodesconf_lines import parse_node_line as _parse_any_node_line

__all__ = [
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
    int PyObject_GenericSetAttr(object target, object name, object value) except -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF


# --- CRC-64 -------------------------------------------------------------------------------------------------------

cdef uint64_t POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xad93d23594c935a9, bits reversed
cdef uint64_t CRC[8][256]  # CRC[k][b]: what byte b does to the checksum with k zero bytes after it


cdef void fill_crc_tables() noexcept:
    cdef int value, bit, depth
    cdef uint64_t crc
    for value in range(256):
        crc = value
        for bit in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        CRC[0][value] = crc
    for depth in range(1, 8):
        for value in range(256):
            crc = CRC[depth - 1][value]
            CRC[depth][value] = CRC[0][crc & 0xFF] ^ (crc >> 8)


fill_crc_tables()


cdef uint64_t crc_of(const unsigned char *at, Py_ssize_t size, uint64_t crc) noexcept nogil:
    """The checksum of `size` bytes at `at` (the caller's, and alive), eight a step, whatever the byte order here."""
    while size >= 8:
        crc ^= (
            <uint64_t>at[0] | <uint64_t>at[1] << 8 | <uint64_t>at[2] << 16 | <uint64_t>at[3] << 24
            | <uint64_t>at[4] << 32 | <uint64_t>at[5] << 40 | <uint64_t>at[6] << 48 | <uint64_t>at[7] << 56
        )
        crc = (
            CRC[7][crc & 0xFF] ^ CRC[6][crc >> 8 & 0xFF] ^ CRC[5][crc >> 16 & 0xFF] ^ CRC[4][crc >> 24 & 0xFF]
            ^ CRC[3][crc >> 32 & 0xFF] ^ CRC[2][crc >> 40 & 0xFF] ^ CRC[1][crc >> 48 & 0xFF] ^ CRC[0][crc >> 56]
        )
        at += 8
        size -= 8
    while size > 0:
        crc = CRC[0][(crc ^ at[0]) & 0xFF] ^ (crc >> 8)
        at += 1
        size -= 1
    return crc


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


# --- the cursor ---------------------------------------------------------------------------------------------------

# All bytes of a file are taken through a Cursor: `at` never passes `end`, and both point into a bytes object that the
# caller of the function at hand keeps alive.
cdef struct Cursor:
    const unsigned char *at
    const unsigned char *end

cdef enum:
    WORD = 1  # a character of a token; ASCII only, so that text can be made without decoding
    FIELD = 2  # of an address's field: no comma, no equals sign
    ID = 4
    AUX = 8  # of an aux field's value
    DATA = 16  # a byte of an entry's token

    MAX_LINE_BYTES = 2 << 20
    MAX_IP_BYTES = 45
    MAX_TYPES = 32

cdef unsigned char KINDS[256]


cdef void fill_kinds() noexcept:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = 0
        if byte <= 0x20 or byte == 0x22 or byte == 0x27:
            continue
        KINDS[byte] |= DATA
        if byte >= 0x7F:
            continue
        KINDS[byte] |= WORD
        if byte != 0x2C and byte != 0x3D:
            KINDS[byte] |= FIELD
        if 0x30 <= byte <= 0x39 or 0x61 <= byte <= 0x7A:
            KINDS[byte] |= ID | AUX
        elif 0x41 <= byte <= 0x5A or 0x2D <= byte <= 0x2F or byte == 0x3A or byte == 0x5F or byte == 0x60:
            KINDS[byte] |= AUX


fill_kinds()


cdef inline bint take(Cursor *c, unsigned char byte) noexcept nogil:
    if c.at >= c.end or c.at[0] != byte:
        return False
    c.at += 1
    return True


cdef inline Py_ssize_t take_run(Cursor *c, unsigned char kind, Cursor *run) noexcept nogil:
    """Takes all bytes of `kind` into `run`; how many."""
    run.at = c.at
    while c.at < c.end and KINDS[c.at[0]] & kind:
        c.at += 1
    run.end = c.at
    return run.end - run.at


cdef inline bint take_number(Cursor *c, uint64_t most, uint64_t *number) noexcept nogil:
    """Takes a strict decimal of at most `most`. The sum can't wrap: it is compared before it is made."""
    cdef uint64_t value = 0
    cdef unsigned int digit
    cdef const unsigned char *first = c.at
    while c.at < c.end and 0x30 <= c.at[0] <= 0x39:
        digit = c.at[0] - 0x30
        if value > most // 10 or value * 10 > most - digit:
            return False
        value = value * 10 + digit
        c.at += 1
    if c.at == first or (first[0] == 0x30 and c.at - first > 1):
        return False
    number[0] = value
    return True


cdef inline bint take_hex16(Cursor *c, uint64_t *number) noexcept nogil:
    cdef uint64_t value = 0
    cdef unsigned char byte
    cdef int place
    if c.end - c.at < 16:
        return False
    for place in range(16):
        byte = c.at[place]
        if 0x30 <= byte <= 0x39:
            byte -= 0x30
        elif 0x61 <= byte <= 0x66:
            byte -= 0x61 - 10
        elif 0x41 <= byte <= 0x46:
            byte -= 0x41 - 10
        else:
            return False
        value = value << 4 | byte
    c.at += 16
    number[0] = value
    return True


cdef inline bint is_text(Cursor run, const char *text, Py_ssize_t size) noexcept nogil:
    return run.end - run.at == size and memcmp(run.at, text, size) == 0


cdef inline str text_of(Cursor run):
    """A str of the run, all of whose bytes are ASCII."""
    return PyUnicode_DecodeASCII(<const char *>run.at, run.end - run.at, NULL)


# --- node lines ---------------------------------------------------------------------------------------------------

cdef uint64_t U64_MAX = 0xFFFFFFFFFFFFFFFF
cdef uint64_t LAST_SLOT = 16383
cdef uint64_t PORT_OFFSET = BUS_PORT_OFFSET
cdef dict FLAGS = {}  # column → (flags, whether a replica); filled as columns are seen, up to 256


cdef tuple flags_in(Cursor run):
    """The flags of a column, and whether they say replica; None where they are refused."""
    cdef bytes column = PyBytes_FromStringAndSize(<const char *>run.at, run.end - run.at)
    cdef object found = FLAGS.get(column)
    if found is None:
        if len(column) > 80:
            return None
        try:
            flags = flags_of(column)
        except ParseError:
            return None
        found = (flags, "slave" in flags)
        if len(FLAGS) < 256:
            FLAGS[column] = found
    return found


cdef bint take_ports(Cursor c, uint64_t *port, uint64_t *cport) noexcept nogil:
    """All that is left of the cursor: `port` or `port@cport`."""
    if not take_number(&c, 65535, port):
        return False
    if take(&c, c"@"):
        if not take_number(&c, 65535, cport):
            return False
    else:
        cport[0] = port[0] + PORT_OFFSET  # both are small
        if cport[0] > 65535:
            return False
    return c.at == c.end


cdef bint add_aux(dict aux, Cursor name, Cursor value) except? False:
    """Keeps one of the usual aux fields; False for what must be looked at closer."""
    cdef uint64_t number
    cdef Cursor rest = value
    cdef str key
    if is_text(name, b"tls-port", 8):
        key = "tls-port"
        if not take_number(&rest, 65535, &number) or rest.at != rest.end:
            return False
    elif is_text(name, b"shard-id", 8):
        key = "shard-id"
        if value.end - value.at != 40 or take_run(&rest, ID, &name) != 40:
            return False
    elif is_text(name, b"availability-zone", 17) or is_text(name, b"nodename", 8):
        key = "nodename" if name.end - name.at == 8 else "availability-zone"
        if take_run(&rest, AUX, &name) != value.end - value.at:
            return False
    else:
        return False
    aux[key] = text_of(value)
    return True


cdef tuple take_slots(Cursor *c):
    """The rest of the line, if it is owned slots, ascending and maximal; else None."""
    cdef uint64_t first, last, least = 0
    cdef list ranges = []
    while c.at < c.end:
        if not take(c, c" ") or not take_number(c, LAST_SLOT, &first):
            return None
        last = first
        if take(c, c"-") and not take_number(c, LAST_SLOT, &last):
            return None
        if first < least or last < first:
            return None
        ranges.append((first, last))
        least = last + 2
    return tuple(ranges)


cdef object record_of(str node_id, str ip, uint64_t port, uint64_t cport, str hostname, dict aux, tuple flags,
                      object primary, uint64_t ping, uint64_t pong, uint64_t epoch, bint connected, tuple slots):
    """A NodeRecord without its constructor, which is most of the cost of a line."""
    cdef object record = NodeRecord.__new__(NodeRecord)
    PyObject_GenericSetAttr(record, "id", node_id)
    PyObject_GenericSetAttr(record, "ip", ip)
    PyObject_GenericSetAttr(record, "port", port)
    PyObject_GenericSetAttr(record, "cport", cport)
    PyObject_GenericSetAttr(record, "hostname", hostname)
    PyObject_GenericSetAttr(record, "aux", aux)
    PyObject_GenericSetAttr(record, "flags", flags)
    PyObject_GenericSetAttr(record, "primary_id", primary)
    PyObject_GenericSetAttr(record, "ping_sent", ping)
    PyObject_GenericSetAttr(record, "pong_recv", pong)
    PyObject_GenericSetAttr(record, "epoch", epoch)
    PyObject_GenericSetAttr(record, "connected", connected)
    PyObject_GenericSetAttr(record, "slots", slots)
    PyObject_GenericSetAttr(record, "migrating", ())
    PyObject_GenericSetAttr(record, "importing", ())
    return record


cdef object take_node(Cursor c):
    """The record of a node line in the form that writers give it; None for any other line, right or wrong."""
    cdef Cursor node_id, ip, hostname, name, value, column, ports
    cdef uint64_t port = 0, cport = 0, ping = 0, pong = 0, epoch = 0
    cdef object primary = None
    if c.end - c.at > MAX_LINE_BYTES or take_run(&c, ID, &node_id) != 40 or not take(&c, c" "):
        return None
    take_run(&c, FIELD, &ip)
    ports.at = ports.end = ip.end
    while ports.at > ip.at and (ports.at - 1)[0] != c":":
        ports.at -= 1
    if ports.at == ip.at:
        return None
    ip.end = ports.at - 1  # the colon
    if ip.end - ip.at > MAX_IP_BYTES or not take_ports(ports, &port, &cport):
        return None
    hostname.at = hostname.end = c.at
    cdef dict aux = {}
    if take(&c, c","):
        take_run(&c, FIELD, &hostname)
        while take(&c, c","):
            take_run(&c, FIELD, &name)
            if not take(&c, c"="):
                return None
            take_run(&c, FIELD, &value)
            if not add_aux(aux, name, value):
                return None
    if not take(&c, c" ") or take_run(&c, WORD, &column) == 0 or not take(&c, c" "):
        return None
    cdef tuple flags = flags_in(column)
    if flags is None:
        return None
    if not take(&c, c"-"):
        if take_run(&c, ID, &column) != 40:
            return None
        primary = text_of(column)
    if not (
        take(&c, c" ") and take_number(&c, U64_MAX, &ping)
        and take(&c, c" ") and take_number(&c, U64_MAX, &pong)
        and take(&c, c" ") and take_number(&c, U64_MAX, &epoch)
        and take(&c, c" ") and take_run(&c, WORD, &column) > 0
    ):
        return None
    cdef tuple slots = take_slots(&c)
    if slots is None:
        return None
    if primary is not None and flags[1]:
        epoch = 0  # the column shows the primary's
    return record_of(text_of(node_id), text_of(ip), port, cport, text_of(hostname), aux, flags[0], primary, ping, pong,
                     epoch, is_text(column, b"connected", 9), slots)


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
    if isinstance(line, bytes):
        c.at = <const unsigned char *>PyBytes_AS_STRING(line)
        c.end = c.at + PyBytes_GET_SIZE(line)
        if c.end > c.at and (c.end - 1)[0] == c"\n":
            c.end -= 1
        record = take_node(c)
        if record is not None:
            return record
    return _parse_any_node_line(line)


# --- log lines ----------------------------------------------------------------------------------------------------

cdef tuple TYPES = tuple(sorted(ENTRY_TYPES))  # owns the bytes that TYPE_AT points to
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
    if not take_number(&c, U64_MAX, &entry.index) or not take(&c, c" "):
        return False
    entry.line = c
    if not take_number(&c, U64_MAX, &entry.term) or not take(&c, c" ") or not take_type(&c, &is_app):
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


cdef class Progress:
    """Where the log of a file being read stands, in C. `Reader` has the same; `give` and `fetch` keep them equal."""

    cdef object reader
    cdef list entries
    cdef bint plain  # no appended vars line waits for its crc line
    cdef bint in_log  # currentTerm is known, and an index can follow
    cdef bint moved  # the reader does not know yet of the last entries
    cdef uint64_t next_index
    cdef uint64_t last_term
    cdef uint64_t current_term

    def __cinit__(self, reader):
        self.reader = reader
        self.entries = reader.entries
        self.fetch()

    cdef int fetch(self) except -1:
        current_term = self.reader.current_term
        self.plain = self.reader.pending is None
        self.in_log = self.plain and current_term is not None and self.reader.next_index <= U64_MAX
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
        self.in_log = entry.index != U64_MAX
        self.next_index = entry.index + 1
        self.last_term = entry.term
        self.moved = True
        return True


cdef int read_lines(bytes data, object reader) except -1:
    cdef const unsigned char *base = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef const unsigned char *found
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), start = 0, end, lineno = 0
    cdef Progress progress = Progress(reader)
    cdef Cursor c
    cdef Entry entry
    while start < size:
        found = <const unsigned char *>memchr(base + start, c"\n", size - start)
        end = size if found == NULL else found - base
        lineno += 1
        c.at = base + start
        c.end = base + end
        start = end + 1
        if found != NULL and progress.in_log and take_entry(c, &entry) and progress.add(&entry):
            continue
        node = take_node(c) if found != NULL and progress.plain else None
        if node is not None:
            reader.add_node(node, lineno)
            continue
        progress.give()
        reader.line(c.at - base, end, lineno)
        progress.fetch()
    progress.give()
    return 0


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
    read_lines(data, reader)
    return reader.finish()


def dump(conf: NodesConf) -> bytes:
    """The file that says what `conf` says: node lines by ascending id, the vars line, and in a Raft file the crc line
    and the log lines.

    Left out: nodes in handshake (but myself), `torn_tail`, `warnings`. A replica's line shows its primary's epoch.
    Known vars stand in a fixed order, then the others as they come; so `parse(dump(conf))` is `conf` in canonical
    order, and `dump(parse(dump(conf)))` the same bytes again.

    Raises: ParseError (`lineno` 0) where `parse` would refuse the file or read something else; TypeError.
    Cost: linear in the file.
    Source: NODESCONF A, 1.1 and 1.9.
    """
    return written(conf, crc64, log_lines)
