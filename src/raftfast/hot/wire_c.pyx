# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=True
"""The bus codec, compiled: frames to messages and back; the twin of `wire_py`.

Floor 1. Knows shapes only (PROTOCOL 1 and 2): what an entry's data means, whom a message comes from and what follows
from it are others' affairs. No socket, no clock, no state but the bytes of a frame that is not whole yet.

A change here is a change to `wire_py` too: both have the same surface and refuse the same bytes in the same words.

Memory: a `Span` never owns what it points into. On decoding that is the caller's buffer (held by a `bytes` argument or an
exported view) or a `bytearray` that only the running call refers to; on encoding a field of the message, which is
immutable and held by the caller. Lengths from the wire are compared with what is left, never added to anything, and
never allocated; sums are of lengths of objects in memory, each checked against 2^32 before the next is added.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_CheckExact
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_TYPE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from raftfast.errors import ProtocolError
from raftfast.messages import (
    AddMe,
    AppendEntries,
    AppendEntriesAck,
    FailoverPrepare,
    Hello,
    Hi,
    InstallSnapshot,
    Meet,
    MeetRejected,
    Message,
    Module,
    PreVote,
    PreVoteRequest,
    Propose,
    Publish,
    ReadIndex,
    ReadIndexNo,
    ReadIndexOk,
    Reject,
    Removed,
    ReplOffsets,
    SnapshotAck,
    SnapshotPiece,
    TimeoutNow,
    TransferLeader,
    Unknown,
    Vote,
    VoteRequest,
    Welcome,
)
from raftfast.messages import ENTRY_TYPES as _ENTRY_TYPES, MAX_ENTRY_BYTES as _MAX_ENTRY_BYTES

__all__ = [
    "MAX_FRAME",
    "AddMe",
    "AppendEntries",
    "AppendEntriesAck",
    "FailoverPrepare",
    "FrameDecoder",
    "Hello",
    "Hi",
    "InstallSnapshot",
    "Meet",
    "MeetRejected",
    "Message",
    "Module",
    "PreVote",
    "PreVoteRequest",
    "Propose",
    "ProtocolError",
    "Publish",
    "ReadIndex",
    "ReadIndexNo",
    "ReadIndexOk",
    "Reject",
    "Removed",
    "ReplOffsets",
    "SnapshotAck",
    "SnapshotPiece",
    "TimeoutNow",
    "TransferLeader",
    "Unknown",
    "Vote",
    "VoteRequest",
    "Welcome",
    "decode",
    "encode",
]

cdef extern from "Python.h":
    object PyType_GenericAlloc(type kind, Py_ssize_t items)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyUnicode_CheckExact(object value)
    bint PyTuple_CheckExact(object value)
    object PyLong_FromUnsignedLongLong(unsigned long long value)

MAX_FRAME = 16 << 20

cdef enum:
    HEADER_BYTES = 8
    HEADING_BYTES = 4096  # more than the longest first line that is written: a verb, an address, ids, numbers
    MOST_FIELDS = 8
    MOST_VERB_BYTES = 16
    MOST_UNKNOWN_VERB_BYTES = 64
    MOST_ADDRESS_BYTES = 2048
    MOST_NUMBER_DIGITS = 20
    LEAST_ENTRY_BYTES = 5  # b"0 APP"
    LEAST_TYPE_BYTES = 3
    MOST_TYPE_BYTES = 14

cdef uint64_t MOST_NUMBER = 0xFFFFFFFFFFFFFFFF
cdef uint64_t MOST_FRAME_BYTES = 0xFFFFFFFF
cdef Py_ssize_t MAX_ENTRY_BYTES = _MAX_ENTRY_BYTES
cdef bytes MAGIC = b"RAFT"
cdef object _new_tuple = tuple


# Spans and tokens.

cdef struct Span:  # the bytes from `at` up to `end`
    const uint8_t *at
    const uint8_t *end


cdef inline Py_ssize_t size_of(Span span) noexcept nogil:
    return span.end - span.at


cdef inline const uint8_t *find(Span span, int byte) noexcept nogil:
    """Where `byte` stands first; NULL where it doesn't."""
    if span.at == span.end:
        return NULL
    return <const uint8_t *>memchr(span.at, byte, size_of(span))


cdef inline bint take_token(Span *line, Span *token) noexcept nogil:
    """Moves the next token out of a line that has no empty ones; false where none is left."""
    cdef const uint8_t *blank
    if line.at == line.end:
        return False
    blank = find(line[0], 32)
    token.at = line.at
    if blank == NULL:
        token.end = line.at = line.end
    else:
        token.end = blank
        line.at = blank + 1  # at most line.end: the blank was in the line
    return True


cdef inline bint has_empty_token(Span line) noexcept nogil:
    """Whether a blank follows a blank or ends the line. The line does not begin with one."""
    cdef const uint8_t *blank
    while True:
        blank = find(line, 32)
        if blank == NULL:
            return False
        line.at = blank + 1
        if line.at == line.end or line.at[0] == 32:
            return True


cdef inline bint is_word(Span token, bytes word) noexcept:
    return size_of(token) == PyBytes_GET_SIZE(word) and memcmp(
        token.at, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word)
    ) == 0


cdef inline Span span_of(bytes data) noexcept:
    cdef Span span
    span.at = <const uint8_t *>PyBytes_AS_STRING(data)
    span.end = span.at + PyBytes_GET_SIZE(data)
    return span


cdef inline bytes bytes_of(Span span):
    return PyBytes_FromStringAndSize(<const char *>span.at, size_of(span))


cdef inline str text_of(Span span):
    return PyUnicode_DecodeUTF8(<const char *>span.at, size_of(span), "surrogateescape")


# What a token may be.

cdef inline bint read_number(Span token, uint64_t *number) noexcept nogil:
    cdef uint64_t value = 0
    cdef uint8_t digit
    cdef Py_ssize_t size = size_of(token)
    if size < 1 or size > MOST_NUMBER_DIGITS or (token.at[0] == 48 and size > 1):
        return False
    while token.at != token.end:
        digit = <uint8_t>(token.at[0] - 48)  # unsigned: what is below "0" becomes great
        if digit > 9:
            return False
        # Checked before it is multiplied: neither the product nor the sum can pass 2^64-1.
        if value >= 1844674407370955161U and (value > 1844674407370955161U or digit > 5):
            return False
        value = value * 10 + digit
        token.at += 1
    number[0] = value
    return True


cdef inline bint read_signed(Span token, int64_t *number) noexcept nogil:
    cdef uint64_t value
    cdef bint minus = token.at != token.end and token.at[0] == 45
    if minus:
        token.at += 1
    if not read_number(token, &value):
        return False
    if minus:
        if value == 0 or value > 0x8000000000000000U:
            return False
        number[0] = <int64_t>(~value + 1)  # two's complement in unsigned numbers: fits for 2^63 too
    else:
        if value > 0x7FFFFFFFFFFFFFFFU:
            return False
        number[0] = <int64_t>value
    return True


cdef inline bint is_id(Span token) noexcept nogil:
    cdef uint8_t byte
    if size_of(token) != 40:
        return False
    while token.at != token.end:
        byte = token.at[0]
        if <uint8_t>(byte - 97) > 25 and <uint8_t>(byte - 48) > 9:
            return False
        token.at += 1
    return True


cdef inline bint is_address(Span token) noexcept nogil:
    if size_of(token) < 1 or size_of(token) > MOST_ADDRESS_BYTES:
        return False
    while token.at != token.end:
        if token.at[0] <= 0x20 or token.at[0] == 0x7F:
            return False
        token.at += 1
    return True


cdef bint is_text(char kind, Span token) noexcept:
    """Whether a token is right for a field of text."""
    if kind == b"i":
        return is_id(token)
    if kind == b"a":
        return is_address(token)
    if kind == b"c":
        return is_word(token, b"joining") or is_word(token, b"-") or is_id(token)
    if kind == b"m":
        return is_word(token, b"singleton") or is_word(token, b"cluster")
    return is_word(token, b"conflict") or is_word(token, b"rejected")


cdef str wrong(char kind):
    """What is said of a token or a value that is not of this kind."""
    if kind == b"i":
        return "is not 40 characters of 0-9a-z"
    if kind == b"a":
        return "is not 1 to 2048 bytes without blanks and control bytes"
    if kind == b"c":
        return "is neither an id nor joining nor -"
    if kind == b"m":
        return "is neither singleton nor cluster"
    if kind == b"x":
        return "is neither conflict nor rejected"
    if kind == b"s":
        return "is not a number from -2^63 to 2^63-1"
    if kind == b"y":
        return "is not a number from 0 to 255"
    if kind == b"b":
        return "is neither 0 nor 1"
    if kind == b"t":
        return "is not a bool"
    return "is not a number from 0 to 2^64-1"


# Forms: a verb's class and tokens.

cdef enum Shape:
    TOKENS
    ENTRIES
    ONE_ENTRY
    REJECTED_ENTRY
    OFFSETS
    SNAPSHOT
    PIECE
    CHANNEL
    MODULE


@cython.final
@cython.internal
cdef class _Form:
    """A verb's shape. `kinds` has a letter a token: i id, a address, c cluster, m status, u number, s signed number,
    y byte, b boolean, t the word transfer, r round; n a length or count that is no field of the message. Those from
    `required` on may be absent. `slots` are the class's member descriptors, None for n.
    """

    cdef bytes verb
    cdef Span verb_span  # into `verb`
    cdef type message
    cdef bytes kinds
    cdef int count
    cdef int required
    cdef Shape shape
    cdef tuple names
    cdef tuple slots
    cdef object data  # the slot of the raw bytes, or None

    def __init__(self, verb, message, shape=TOKENS, kinds=b"", names="", required=-1, data=None):
        self.verb = verb
        self.verb_span = span_of(self.verb)
        self.message = message
        self.shape = shape
        self.kinds = kinds
        self.count = len(kinds)
        self.required = self.count if required < 0 else required
        self.names = tuple(names.split())
        self.slots = tuple(
            None if kind == ord("n") else getattr(message, name) for kind, name in zip(kinds, self.names, strict=True)
        )
        self.data = None if data is None else getattr(message, data)

    cdef object error(self, str reason):
        return ProtocolError(f"{self.verb.decode()}: {reason}")


_STAND = "candidate_id term last_log_index last_log_term"
_COPY = "leader_id term last_included_index last_included_term"
# The most frequent stand first.
cdef tuple _FORMS = (
    _Form(
        b"AE",
        AppendEntries,
        ENTRIES,
        b"iuuuunr",
        "leader_id term prev_log_index prev_log_term leader_commit count round",
        6,
    ),
    _Form(b"AE_ACK", AppendEntriesAck, TOKENS, b"ubusr", "term success index repl_offset round", 3),
    _Form(b"PROPOSE", Propose, ONE_ENTRY, data="entry"),
    _Form(b"REJECT", Reject, REJECTED_ENTRY, data="entry"),
    _Form(b"READ_INDEX", ReadIndex, TOKENS, b"u", "number"),
    _Form(b"READ_INDEX_OK", ReadIndexOk, TOKENS, b"uu", "number index"),
    _Form(b"READ_INDEX_NO", ReadIndexNo, TOKENS, b"u", "number"),
    _Form(b"PUBLISH", Publish, CHANNEL, b"bnn", "sharded chan_len msg_len", data="message"),
    _Form(b"SNAPSHOT_PIECE", SnapshotPiece, PIECE, b"iuuuunu", _COPY + " offset size total", data="data"),
    _Form(b"SNAPSHOT_ACK", SnapshotAck, TOKENS, b"uuu", "term last_included_index next_offset"),
    _Form(b"INSTALL_SNAPSHOT", InstallSnapshot, SNAPSHOT, b"iuuu", _COPY, data="data"),
    _Form(b"HELLO", Hello, TOKENS, b"iac", "node_id address cluster", 2),
    _Form(b"HI", Hi, TOKENS, b"iac", "node_id address cluster", 2),
    _Form(b"MEET", Meet, TOKENS, b"m", "status"),
    _Form(b"ADD_ME", AddMe),
    _Form(b"WELCOME", Welcome),
    _Form(b"MEET_REJECTED", MeetRejected),
    _Form(b"REMOVED", Removed, TOKENS, b"u", "index"),
    _Form(b"PRE_VOTE_REQ", PreVoteRequest, TOKENS, b"iuuu", _STAND),
    _Form(b"PRE_VOTE", PreVote, TOKENS, b"ub", "term granted"),
    _Form(b"VOTE_REQ", VoteRequest, TOKENS, b"iuuut", _STAND + " transfer", 4),
    _Form(b"VOTE", Vote, TOKENS, b"ub", "term granted"),
    _Form(b"TRANSFER_LEADER", TransferLeader, TOKENS, b"u", "term"),
    _Form(b"TIMEOUT_NOW", TimeoutNow, TOKENS, b"u", "term"),
    _Form(b"REPL_OFFSETS", ReplOffsets, OFFSETS),
    _Form(b"FAILOVER_PREPARE", FailoverPrepare),
    _Form(b"MODULE", Module, MODULE, b"uyn", "module_id type len", data="data"),
)
cdef dict _BY_CLASS = {(<_Form>form).message: form for form in _FORMS}
cdef object _terms = AppendEntries.terms
cdef object _lines = AppendEntries.lines
cdef object _channel = Publish.channel
cdef object _reason = Reject.reason


cdef _Form form_of(Span verb):
    """The form of a verb in any case; None where it is not known."""
    cdef uint8_t upper[MOST_VERB_BYTES]
    cdef Py_ssize_t size = size_of(verb), i
    cdef _Form form
    if size > MOST_VERB_BYTES:
        return None
    for i in range(size):
        upper[i] = upper_case(verb.at[i])
    for i in range(len(_FORMS)):
        form = <_Form>PyTuple_GET_ITEM(_FORMS, i)
        if size_of(form.verb_span) == size and memcmp(form.verb_span.at, upper, size) == 0:
            return form
    return None


cdef inline uint8_t upper_case(uint8_t byte) noexcept nogil:
    return byte - 32 if 97 <= byte <= 122 else byte


cdef inline int put(object message, object slot, object value) except -1:
    """Sets a field of a new message: a frozen class refuses assignment, its slot does not."""
    return Py_TYPE(slot).tp_descr_set(slot, message, value)


cdef inline object get(object message, object slot):
    return Py_TYPE(slot).tp_descr_get(slot, message, <object>Py_TYPE(message))


# Decoding.

cdef object read_field(char kind, Span token, uint64_t *number):
    """The value of a token; None where it is not of the kind. `number` gets it too where it is a number."""
    cdef int64_t signed
    if kind == b"u" or kind == b"r":
        return PyLong_FromUnsignedLongLong(number[0]) if read_number(token, number) else None
    if kind == b"i":
        return ascii_text(token) if is_id(token) else None
    if kind == b"b":
        if size_of(token) != 1 or (token.at[0] != 48 and token.at[0] != 49):
            return None
        return token.at[0] == 49
    if kind == b"n":
        return True if read_number(token, number) else None
    if kind == b"s":
        return signed if read_signed(token, &signed) else None
    if kind == b"y":
        return number[0] if read_number(token, number) and number[0] <= 255 else None
    if kind == b"t":
        return is_word(token, b"transfer")  # any other word there is a further token, to be ignored
    return text_of(token) if is_text(kind, token) else None


cdef inline object ascii_text(Span token):
    text = PyUnicode_New(size_of(token), 127)
    memcpy(PyUnicode_DATA(text), token.at, size_of(token))
    return text


cdef object absent(char kind):
    """The value of an optional field without a token."""
    if kind == b"s":
        return 0
    return False if kind == b"t" else None


cdef object read_fields(_Form form, Span line, uint64_t *numbers):
    """A new message with the fields of the first line's tokens; further tokens are ignored (PROTOCOL 1).

    `line` is what follows the verb and its blank, whole without empty tokens. `numbers` has room for MOST_FIELDS.
    """
    cdef Span token
    cdef int i
    cdef const char *kinds = form.kinds
    message = PyType_GenericAlloc(form.message, 0)
    for i in range(form.count):
        if take_token(&line, &token):
            value = read_field(kinds[i], token, &numbers[i])
            if value is None:
                raise form.error(f"{form.names[i]} {wrong(kinds[i])}")
        elif i < form.required:
            raise form.error(f"{form.names[i]} is missing")
        else:
            value = absent(kinds[i])
        if kinds[i] != b"n":
            put(message, <object>PyTuple_GET_ITEM(form.slots, i), value)
    return message


cdef object decode_span(Span payload):
    cdef Span line = payload, verb, body
    cdef uint64_t numbers[MOST_FIELDS]
    cdef const uint8_t *newline = find(payload, 10)
    cdef const uint8_t *blank
    cdef _Form form
    if newline != NULL:
        line.end = newline
    verb = line
    blank = find(line, 32)
    if blank != NULL:
        verb.end = blank
    if verb.at == verb.end:
        raise ProtocolError("a payload without a verb")
    form = form_of(verb)
    if form is None:
        if size_of(verb) > MOST_UNKNOWN_VERB_BYTES:
            verb.end = verb.at + MOST_UNKNOWN_VERB_BYTES
        return Unknown(text_of(verb))
    body.at = payload.end if newline == NULL else newline + 1  # newline < payload.end
    body.end = payload.end
    if form.shape == ONE_ENTRY or form.shape == REJECTED_ENTRY:
        return decode_entry(form, line, blank, newline != NULL)
    if newline != NULL:
        if form.shape == TOKENS or form.shape == OFFSETS:
            raise form.error("a second line")
    elif form.shape >= SNAPSHOT:
        raise form.error("no line end before the bytes")
    if has_empty_token(line):
        raise form.error("an empty token")
    line.at = line.end if blank == NULL else blank + 1
    if form.shape == OFFSETS:
        return decode_offsets(form, line)
    message = read_fields(form, line, numbers)
    if form.shape == ENTRIES:
        decode_entries(form, message, body, newline != NULL, numbers)
    elif form.shape != TOKENS:
        decode_raw(form, message, body, numbers)
    return message


cdef int decode_raw(_Form form, object message, Span data, uint64_t *numbers) except -1:
    """The bytes behind the first line. Lengths are compared with what is there, one by one; never summed."""
    cdef uint64_t there = <uint64_t>size_of(data)
    cdef Span channel
    if form.shape == PIECE:
        if numbers[5] != there:
            raise form.error("size is not that of the bytes")
        if numbers[4] > numbers[6] or there > numbers[6] - numbers[4]:
            raise form.error("the piece ends past the total")
    elif form.shape == CHANNEL:
        if numbers[1] > there or numbers[2] != there - numbers[1]:
            raise form.error("the lengths are not those of the bytes")
        channel.at = data.at
        channel.end = data.at = data.at + numbers[1]
        put(message, _channel, bytes_of(channel))
    elif form.shape == MODULE and numbers[2] != there:
        raise form.error("len is not that of the bytes")
    return put(message, form.data, bytes_of(data))


cdef object decode_offsets(_Form form, Span line):
    cdef Span token
    cdef int64_t offset
    cdef list offsets = []
    if line.at == line.end:
        raise form.error("not pairs of id and offset")
    if count_bytes(line, 32) % 2 == 0:
        raise form.error("not pairs of id and offset")
    while take_token(&line, &token):
        if not is_id(token):
            raise form.error(f"id {wrong(b'i')}")
        node_id = ascii_text(token)
        take_token(&line, &token)  # there is one: the tokens are even in number
        if not read_signed(token, &offset):
            raise form.error(f"offset {wrong(b's')}")
        offsets.append((node_id, offset))
    return ReplOffsets(tuple(offsets))


cdef Py_ssize_t count_bytes(Span span, int byte) noexcept nogil:
    cdef Py_ssize_t count = 0
    cdef const uint8_t *found = find(span, byte)
    while found != NULL:
        count += 1
        span.at = found + 1
        found = find(span, byte)
    return count


# Entries.

cdef inline bint is_type(const uint8_t *at, Py_ssize_t size) noexcept nogil:
    """Whether these bytes are the name of an entry type, in upper case."""
    if size == 3:
        return memcmp(at, b"APP", 3) == 0
    if size == 4:
        return memcmp(at, b"NOOP", 4) == 0
    if size == 8:
        return memcmp(at, b"FAILOVER", 8) == 0
    if size == 9:
        return (
            memcmp(at, b"NODE_JOIN", 9) == 0
            or memcmp(at, b"NODE_INFO", 9) == 0
            or memcmp(at, b"NODE_FAIL", 9) == 0
            or memcmp(at, b"ADD_VOTER", 9) == 0
            or memcmp(at, b"DEL_VOTER", 9) == 0
        )
    if size == 11:
        return memcmp(at, b"NODE_FORGET", 11) == 0 or memcmp(at, b"SLOT_CHANGE", 11) == 0
    if size == 12:
        return memcmp(at, b"NODE_RECOVER", 12) == 0
    return size == 14 and memcmp(at, b"SET_REPLICA_OF", 14) == 0


cdef _check_types():
    """The names above are those of `messages`: a type added there and not here must not go unseen."""
    for name in _ENTRY_TYPES:
        if not is_type(<const uint8_t *>PyBytes_AS_STRING(name), len(name)):
            raise ImportError(f"wire_c does not know the entry type {name!r}")


_check_types()


cdef inline Span type_span(Span entry) noexcept nogil:
    """The type that an entry `<TYPE>[ <data>]` begins with, cut off where it is too long to be one."""
    cdef Span kind
    kind.at = entry.at
    kind.end = entry.at
    while kind.end != entry.end and kind.end[0] != 32 and kind.end - kind.at <= MOST_TYPE_BYTES:
        kind.end += 1
    return kind


cdef inline bint is_kept(Span entry, Span kind) noexcept nogil:
    """Whether an entry is as it is kept: a known type in upper case, then nothing, or a blank and data."""
    return is_type(kind.at, size_of(kind)) and entry.end - kind.end != 1


cdef bytes kept_line(const uint8_t *start, Span entry, Span kind):
    """The bytes from `start` to the entry's end, the entry as it is kept; None where its type is not known."""
    cdef uint8_t upper[MOST_TYPE_BYTES + 1]
    cdef Py_ssize_t i
    cdef bytes line
    for i in range(size_of(kind)):  # type_span gives at most MOST_TYPE_BYTES + 1
        upper[i] = upper_case(kind.at[i])
    if not is_type(upper, size_of(kind)):
        return None
    if entry.end - kind.end == 1:
        entry.end = kind.end
    line = PyBytes_FromStringAndSize(<const char *>start, entry.end - start)
    memcpy(PyBytes_AS_STRING(line) + (kind.at - start), upper, size_of(kind))
    return line


cdef object decode_entry(_Form form, Span line, const uint8_t *blank, bint second_line):
    """PROPOSE and REJECT: the rest of the line is the entry, blanks and all."""
    cdef Span token, entry
    message = PyType_GenericAlloc(form.message, 0)
    if form.shape == REJECTED_ENTRY:
        if blank == NULL:
            raise form.error("reason is missing")
        token.at = blank + 1
        token.end = line.end
        blank = find(token, 32)
        if blank != NULL:
            token.end = blank
        if not is_text(b"x", token):
            raise form.error(f"reason {wrong(b'x')}")
        put(message, _reason, text_of(token))
    if blank == NULL:
        raise form.error("entry is missing")
    if second_line:
        raise form.error("a second line")
    entry.at = blank + 1
    entry.end = line.end
    if size_of(entry) > MAX_ENTRY_BYTES:
        raise form.error(f"entry is longer than {MAX_ENTRY_BYTES} bytes")
    kept = kept_line(entry.at, entry, type_span(entry))
    if kept is None:
        raise form.error("entry has an unknown type")
    put(message, form.data, kept)
    return message


cdef int decode_entries(_Form form, object message, Span body, bint has_body, uint64_t *numbers) except -1:
    """The entry lines of AE. `numbers`: 1 is the term, 3 prev_log_term, 5 count."""
    cdef uint64_t there = 0
    if numbers[3] > numbers[1]:
        raise form.error("prev_log_term is above term")
    if has_body:
        there = <uint64_t>count_bytes(body, 10) + 1
    if numbers[5] != there:
        raise form.error("count is not the number of entry lines")
    if not has_body:
        put(message, _terms, ())
        return put(message, _lines, ())
    # Bounds what a body of nothing but newlines makes us allocate. The sums are of sizes in memory.
    if there > <uint64_t>((size_of(body) + 1) // (LEAST_ENTRY_BYTES + 1)):
        raise form.error("an entry line without term and type")
    return read_lines(form, message, body, <Py_ssize_t>there, numbers[3], numbers[1])


cdef int read_lines(
    _Form form, object message, Span body, Py_ssize_t count, uint64_t least, uint64_t most
) except -1:
    """Fills `terms` and `lines`. `count` is the number of lines that are there, seen and not announced."""
    cdef Span line, head, token, entry, kind
    cdef Py_ssize_t position, size, head_size = 0
    cdef const uint8_t *newline
    cdef uint64_t term = least
    cdef object term_object = None
    cdef tuple terms = PyTuple_New(count), lines = PyTuple_New(count)
    head.at = head.end = body.at
    for position in range(count):
        newline = find(body, 10)
        line.at = body.at
        line.end = body.end if newline == NULL else newline
        body.at = body.end if newline == NULL else newline + 1
        size = size_of(line)
        if size > MAX_ENTRY_BYTES:
            raise form.error(f"entry {position} is longer than {MAX_ENTRY_BYTES} bytes")
        # Most lines begin with the same term and type as the line before, then a blank and data: those are good.
        head_size = size_of(head)
        if head_size and size - head_size > 1 and line.at[head_size] == 32 and memcmp(
            line.at, head.at, head_size
        ) == 0:
            kept = bytes_of(line)
        else:
            token.at = line.at
            token.end = find(line, 32)
            if token.end == NULL:
                raise form.error(f"entry {position} is not a term and a type")
            least = term
            if not read_number(token, &term):
                raise form.error(f"the term of entry {position} {wrong(b'u')}")
            check_term(form, position, term, least, most)
            if term != least or term_object is None:
                term_object = PyLong_FromUnsignedLongLong(term)
            entry.at = token.end + 1  # the blank was in the line
            entry.end = line.end
            kind = type_span(entry)
            if is_kept(entry, kind):
                head.at = line.at
                head.end = kind.end
                kept = bytes_of(line)
            else:
                head.at = head.end  # it may be of an earlier term: no line is compared with it any more
                kept = kept_line(line.at, entry, kind)
                if kept is None:
                    raise form.error(f"entry {position} has an unknown type")
        Py_INCREF(term_object)  # SET_ITEM takes over a reference
        PyTuple_SET_ITEM(terms, position, term_object)
        Py_INCREF(kept)
        PyTuple_SET_ITEM(lines, position, kept)
    put(message, _terms, terms)
    return put(message, _lines, lines)


cdef inline int check_term(_Form form, Py_ssize_t position, uint64_t term, uint64_t least, uint64_t most) except -1:
    if term < least:
        raise form.error(f"the term of entry {position} falls")
    if term > most:
        raise form.error(f"the term of entry {position} is above the leader's")
    return 0


# Encoding.

cdef struct Heading:  # a frame's first bytes, header included, as far as `at`
    uint8_t *at
    uint8_t *end


cdef inline int write(Heading *heading, const void *data, Py_ssize_t size) except -1:
    if size > heading.end - heading.at:
        raise SystemError("a first line longer than its fields allow")  # HEADING_BYTES is too small
    memcpy(heading.at, data, size)
    heading.at += size
    return 0


cdef Py_ssize_t digits_of(uint64_t number, uint8_t *digits) noexcept nogil:
    """Writes the decimal digits; how many. `digits` has room for MOST_NUMBER_DIGITS."""
    cdef uint8_t reversed_digits[MOST_NUMBER_DIGITS]
    cdef Py_ssize_t size = 0, i
    while True:
        reversed_digits[size] = 48 + <uint8_t>(number % 10)
        number //= 10
        size += 1
        if number == 0:
            break
    for i in range(size):
        digits[i] = reversed_digits[size - 1 - i]
    return size


cdef inline int write_number(Heading *heading, uint64_t number) except -1:
    cdef uint8_t digits[MOST_NUMBER_DIGITS]
    return write(heading, digits, digits_of(number, digits))


cdef inline bint as_number(object value, uint64_t *number) noexcept:
    """Whether `value` is an int (no bool) from 0 to 2^64-1."""
    if not PyLong_CheckExact(value):
        return False
    try:
        number[0] = PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        return False
    return True


cdef bytes text_bytes(object value):
    """The bytes whose text is `value`; None where there are none."""
    cdef bytes token
    if not PyUnicode_CheckExact(value):
        return None
    if PyUnicode_IS_ASCII(value):
        return PyBytes_FromStringAndSize(<const char *>PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value))
    try:
        token = (<str>value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return token if token.decode("utf-8", "surrogateescape") == value else None


cdef bint write_field(Heading *heading, char kind, object value, uint64_t *number) except -1:
    """Writes a value as a token, a blank before it; false where it is not of the kind. `number` as in read_field."""
    cdef bytes token
    if kind == b"u" or kind == b"r" or kind == b"y":
        if not as_number(value, number) or (kind == b"y" and number[0] > 255):
            return False
        write(heading, b" ", 1)
        write_number(heading, number[0])
        return True
    if kind == b"n":
        write(heading, b" ", 1)
        write_number(heading, number[0])
        return True
    if kind == b"b":
        if value is not True and value is not False:
            return False
        write(heading, b" 1" if value is True else b" 0", 2)
        return True
    if kind == b"t":
        if value is True:
            write(heading, b" transfer", 9)
        return value is True
    if kind == b"s":
        if not PyLong_CheckExact(value) or not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
            return False
        token = b"%d" % value
    else:
        token = text_bytes(value)
        if token is None or not is_text(kind, span_of(token)):
            return False
    write(heading, b" ", 1)
    write(heading, PyBytes_AS_STRING(token), PyBytes_GET_SIZE(token))
    return True


cdef int write_fields(_Form form, object message, Heading *heading, uint64_t *numbers) except -1:
    """The first line, behind the verb; the tokens that are no fields stand in `numbers`."""
    cdef int i
    cdef const char *kinds = form.kinds
    for i in range(form.count):
        value = None if kinds[i] == b"n" else get(message, <object>PyTuple_GET_ITEM(form.slots, i))
        if i >= form.required and left_out(kinds[i], value):
            break
        if not write_field(heading, kinds[i], value, &numbers[i]):
            raise form.error(f"{form.names[i]} {wrong(kinds[i])}")
    return 0


cdef inline bint left_out(char kind, object value) noexcept:
    """Whether an optional field has the value for which no token is sent."""
    if kind == b"s":
        return False
    return value is False if kind == b"t" else value is None


cdef inline bytes raw_field(_Form form, object message, object slot, str name):
    """A field that goes out as it is."""
    value = get(message, slot)
    if not PyBytes_CheckExact(value):
        raise form.error(f"{name} is not bytes")
    return value


cdef bytes frame(_Form form, const uint8_t *start, Heading *heading, Span first, Span second):
    """The frame of a heading and what follows it; its length is put into the heading's first bytes."""
    # Three sizes of things in memory: far below 2^63.
    cdef uint64_t length = <uint64_t>(heading.at - start) + <uint64_t>size_of(first) + <uint64_t>size_of(second)
    cdef bytes whole
    cdef uint8_t *at
    if length > MOST_FRAME_BYTES:
        raise form.error("longer than a frame can be")
    whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    at = <uint8_t *>PyBytes_AS_STRING(whole)
    memcpy(at, start, heading.at - start)
    put_length(at, <uint32_t>length)
    at += heading.at - start
    memcpy(at, first.at, size_of(first))
    memcpy(at + size_of(first), second.at, size_of(second))
    return whole


cdef inline void put_length(uint8_t *header, uint32_t length) noexcept nogil:
    memcpy(header, b"RAFT", 4)
    header[4] = <uint8_t>(length >> 24)
    header[5] = <uint8_t>(length >> 16)
    header[6] = <uint8_t>(length >> 8)
    header[7] = <uint8_t>length


cdef bytes encode_form(_Form form, object message):
    cdef uint8_t start[HEADING_BYTES]
    cdef uint64_t numbers[MOST_FIELDS]
    cdef Heading heading
    cdef Span nothing
    cdef bytes data
    heading.at = start + HEADER_BYTES
    heading.end = start + HEADING_BYTES
    nothing.at = nothing.end = start
    write(&heading, PyBytes_AS_STRING(form.verb), PyBytes_GET_SIZE(form.verb))
    if form.shape == TOKENS:
        write_fields(form, message, &heading, numbers)
        return frame(form, start, &heading, nothing, nothing)
    if form.shape == ENTRIES:
        return encode_entries(form, message, start, &heading, numbers)
    if form.shape == ONE_ENTRY or form.shape == REJECTED_ENTRY:
        return encode_entry(form, message, start, &heading)
    if form.shape == OFFSETS:
        data = offset_tokens(form, message)
        return frame(form, start, &heading, span_of(data), nothing)
    return encode_raw(form, message, start, &heading, numbers)


cdef bytes encode_raw(_Form form, object message, const uint8_t *start, Heading *heading, uint64_t *numbers):
    """A first line, its end, and raw bytes."""
    cdef bytes data, channel = b""
    cdef uint64_t size
    if form.shape == CHANNEL:
        channel = raw_field(form, message, _channel, "channel")
        data = raw_field(form, message, form.data, "message")
    else:
        data = raw_field(form, message, form.data, "data")
    size = <uint64_t>PyBytes_GET_SIZE(data)
    if form.shape == PIECE:
        numbers[5] = size
    elif form.shape == CHANNEL:
        numbers[1] = <uint64_t>PyBytes_GET_SIZE(channel)
        numbers[2] = size
    elif form.shape == MODULE:
        numbers[2] = size
    write_fields(form, message, heading, numbers)
    if form.shape == PIECE and (numbers[4] > numbers[6] or size > numbers[6] - numbers[4]):
        raise form.error("the piece ends past the total")
    write(heading, b"\n", 1)
    return frame(form, start, heading, span_of(channel), span_of(data))


cdef bytes encode_entry(_Form form, object message, const uint8_t *start, Heading *heading):
    """PROPOSE and REJECT."""
    cdef bytes line = raw_field(form, message, form.data, "entry")
    cdef Span entry = span_of(line), nothing
    cdef uint64_t number
    nothing.at = nothing.end = start
    if form.shape == REJECTED_ENTRY and not write_field(heading, b"x", get(message, _reason), &number):
        raise form.error(f"reason {wrong(b'x')}")
    if size_of(entry) > MAX_ENTRY_BYTES:
        raise form.error(f"entry is longer than {MAX_ENTRY_BYTES} bytes")
    if find(entry, 10) != NULL:
        raise form.error("entry holds a newline")
    check_kept(form, "entry", entry)
    write(heading, b" ", 1)
    return frame(form, start, heading, entry, nothing)


cdef int check_kept(_Form form, str what, Span entry) except -1:
    """Raises where an entry is not in the form in which it is kept."""
    cdef Span kind = type_span(entry)
    if is_kept(entry, kind):
        return 0
    if kept_line(entry.at, entry, kind) is None:
        raise form.error(f"{what} has an unknown type")
    raise form.error(f"{what} is not in the form in which it is kept")


cdef bytes offset_tokens(_Form form, object message):
    """The tokens of REPL_OFFSETS, each with a blank before it. Not a fixed number: no room for them in a heading."""
    cdef list tokens = []
    cdef bytes token
    offsets = message.offsets
    if not PyTuple_CheckExact(offsets) or not offsets:
        raise form.error("not pairs of id and offset")
    for node_id, offset in offsets:
        token = text_bytes(node_id)
        if token is None or not is_id(span_of(token)):
            raise form.error(f"id {wrong(b'i')}")
        if not PyLong_CheckExact(offset) or not -0x8000000000000000 <= offset <= 0x7FFFFFFFFFFFFFFF:
            raise form.error(f"offset {wrong(b's')}")
        tokens.append(b" %b %d" % (token, offset))
    return b"".join(tokens)


cdef bytes encode_entries(_Form form, object message, const uint8_t *start, Heading *heading, uint64_t *numbers):
    """AE: every line is checked and measured first, then all are copied into one object."""
    cdef tuple lines
    cdef bytes whole
    cdef uint64_t length
    cdef uint8_t *at
    cdef Py_ssize_t position, size
    terms_object = get(message, _terms)
    lines_object = get(message, _lines)
    if not PyTuple_CheckExact(terms_object) or not PyTuple_CheckExact(lines_object) or len(
        <tuple>terms_object
    ) != len(<tuple>lines_object):
        raise form.error("terms and lines are not two tuples of one length")
    lines = <tuple>lines_object
    numbers[5] = <uint64_t>len(lines)
    write_fields(form, message, heading, numbers)
    if numbers[3] > numbers[1]:
        raise form.error("prev_log_term is above term")
    # check_lines gives at most 2^32, the heading is short.
    length = check_lines(form, <tuple>terms_object, lines, numbers[3], numbers[1]) + <uint64_t>(heading.at - start)
    if length > MOST_FRAME_BYTES:
        raise form.error("longer than a frame can be")
    whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    at = <uint8_t *>PyBytes_AS_STRING(whole)
    memcpy(at, start, heading.at - start)
    put_length(at, <uint32_t>length)
    at += heading.at - start
    # Fills exactly what check_lines measured: the lines are immutable and were all checked to be bytes.
    for position in range(len(lines)):
        line = <object>PyTuple_GET_ITEM(lines, position)
        size = PyBytes_GET_SIZE(line)
        at[0] = 10
        memcpy(at + 1, PyBytes_AS_STRING(line), size)
        at += size + 1
    return whole


cdef uint64_t check_lines(_Form form, tuple terms, tuple lines, uint64_t least, uint64_t most) except? 0:
    """How many bytes the lines take, a newline before each; raises where one is wrong."""
    cdef uint64_t size = 0, term = least
    cdef uint8_t prefix[MOST_NUMBER_DIGITS + 1]
    cdef Py_ssize_t position, prefix_size = 0, head_size
    cdef Span line, head, entry
    cdef PyObject *seen = NULL  # the term object whose digits are in `prefix`; only compared, never followed
    cdef PyObject *term_object
    head.at = head.end = NULL
    for position in range(len(lines)):
        line_object = <object>PyTuple_GET_ITEM(lines, position)
        term_object = PyTuple_GET_ITEM(terms, position)
        if not PyBytes_CheckExact(line_object):
            raise form.error(f"entry {position} is not bytes")
        line = span_of(<bytes>line_object)
        if size_of(line) > MAX_ENTRY_BYTES:
            raise form.error(f"entry {position} is longer than {MAX_ENTRY_BYTES} bytes")
        if term_object != seen:
            seen = term_object
            least = term
            if not as_number(<object>term_object, &term):
                raise form.error(f"the term of entry {position} {wrong(b'u')}")
            check_term(form, position, term, least, most)
            if term != least or prefix_size == 0:
                prefix_size = digits_of(term, prefix)
                prefix[prefix_size] = 32
                prefix_size += 1
                head.at = head.end
        # As in read_lines: the same term and type as the line before, then a blank and data, is good.
        head_size = size_of(head)
        if (
            head_size == 0
            or size_of(line) - head_size < 2
            or line.at[head_size] != 32
            or memcmp(line.at, head.at, head_size) != 0
        ):
            if size_of(line) < prefix_size or memcmp(line.at, prefix, prefix_size) != 0:
                raise form.error(f"entry {position} does not begin with its term")
            if find(line, 10) != NULL:
                raise form.error(f"entry {position} holds a newline")
            entry.at = line.at + prefix_size
            entry.end = line.end
            check_kept(form, f"entry {position}", entry)
            head.at = line.at
            head.end = type_span(entry).end
        elif find(line, 10) != NULL:
            raise form.error(f"entry {position} holds a newline")
        size += <uint64_t>size_of(line) + 1
        if size > MOST_FRAME_BYTES:
            raise form.error("longer than a frame can be")
    return size


# The public surface.

cdef object not_a_buffer(object data, str verb, bint contiguous):
    if contiguous:
        return TypeError(f"{verb} takes a bytes-like object, not {type(data).__name__}")
    return TypeError(f"{verb} takes a contiguous buffer")


cdef int export(object data, Py_buffer *view, str verb) except -1:
    try:
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    except TypeError:
        raise not_a_buffer(data, verb, True) from None
    except BufferError:
        raise not_a_buffer(data, verb, False) from None
    return 0


def decode(payload):
    """The message that the payload of one frame holds; `Unknown` where its verb is not known.

    Lines are kept as they came but for two things: entry types are in upper case, and a blank behind a type without
    data is dropped. Raises ProtocolError, and nothing else, for any bytes at all; TypeError for what is no buffer.
    Cost: linear. Source: PROTOCOL 1 and 2.
    """
    cdef Py_buffer view
    cdef Span span
    if PyBytes_CheckExact(payload):
        return decode_span(span_of(<bytes>payload))
    export(payload, &view, "decode")
    try:
        span.at = <const uint8_t *>view.buf
        span.end = span.at + view.len
        return decode_span(span)
    finally:
        PyBuffer_Release(&view)


def encode(message):
    """One whole frame that holds the message.

    Refuses, by ProtocolError, a field of a wrong type or range, whatever `decode` would refuse, and whatever it would
    not give back equal; `Unknown` can't be sent. TypeError for what is no message. Frames of up to 2^32-1 bytes
    are made: what a peer takes is its own `max_frame`. Cost: linear. Source: PROTOCOL 1 and 2.
    """
    form = _BY_CLASS.get(type(message))
    if form is None:
        if isinstance(message, Message):
            raise ProtocolError(f"{type(message).__name__} can't be sent")
        raise TypeError(f"encode takes a message, not {type(message).__name__}")
    return encode_form(<_Form>form, message)


@cython.final
cdef class FrameDecoder:
    """FrameDecoder(max_frame=16777216)
--

Turns the bytes of one connection into messages, however they are cut.

    `max_frame` is the longest frame taken, in bytes, header included: 8 to 2^32-1. Raises TypeError where it is no
    int, ValueError where it is out of range. Source: PROTOCOL 1.
    """

    cdef Py_ssize_t _max_frame
    cdef bytearray _pending  # the beginning of a frame that is not whole yet
    cdef str _failure

    def __init__(self, max_frame=MAX_FRAME):
        if not PyLong_CheckExact(max_frame):
            raise TypeError(f"max_frame must be an int, not {type(max_frame).__name__}")
        if not HEADER_BYTES <= max_frame <= MOST_FRAME_BYTES:
            raise ValueError(f"max_frame must be from {HEADER_BYTES} to {MOST_FRAME_BYTES}")
        self._max_frame = max_frame
        self._pending = bytearray()
        self._failure = None

    @property
    def buffered(self):
        """How many bytes are kept: those of a frame that is not whole yet."""
        return PyByteArray_GET_SIZE(self._pending)

    def feed(self, data):
        """The messages that `data` completes, in order; the bytes of a frame that is not whole are kept.

        Raises ProtocolError as soon as the bytes that show a fault have arrived. What stood whole before the fault is
        not lost: it is in the error's `messages`. From then on every feed raises ProtocolError. TypeError for what is
        no contiguous buffer; nothing is taken then. Cost: linear in the bytes fed, whatever the cut; memory: the bytes
        that are there, never what a header announces.
        """
        cdef Py_buffer view
        cdef Span span
        cdef list messages = []
        if self._failure is not None:
            raise ProtocolError(f"refused after a protocol error: {self._failure}")
        export(data, &view, "feed")
        try:
            span.at = <const uint8_t *>view.buf
            span.end = span.at + view.len
            self._take(span, messages)
        except ProtocolError as error:
            self._failure = str(error)
            self._pending = bytearray()
            error.messages = tuple(messages)
            raise
        finally:
            PyBuffer_Release(&view)
        return messages

    cdef int _take(self, Span data, list messages) except -1:
        cdef Span payload
        cdef Py_ssize_t length
        self._complete(&data, messages)
        while data.at != data.end:
            length = self._frame_length(data)
            if length == 0 or length > size_of(data):
                return self._keep(&data, size_of(data))
            payload.at = data.at + HEADER_BYTES  # length is at least HEADER_BYTES
            payload.end = data.at + length
            data.at = payload.end
            messages.append(decode_span(payload))
        return 0

    cdef int _complete(self, Span *data, list messages) except -1:
        """Moves from `data` what the kept frame lacks, and no more: what follows is read where it stands."""
        cdef Span kept
        cdef Py_ssize_t have = PyByteArray_GET_SIZE(self._pending), length = 0
        cdef bytearray whole
        if have == 0:
            return 0
        if have < HEADER_BYTES:
            self._keep(data, HEADER_BYTES - have)
        kept = self._kept()
        length = self._frame_length(kept)
        if length == 0:
            return 0
        self._keep(data, length - size_of(kept))  # never negative: a whole frame is not kept
        kept = self._kept()
        if size_of(kept) < length:
            return 0
        # Only this call refers to `whole` now: nothing that runs while it is read can resize it.
        whole = self._pending
        self._pending = bytearray()
        kept.at += HEADER_BYTES
        messages.append(decode_span(kept))
        return 0

    cdef Span _kept(self) noexcept:
        cdef Span kept
        kept.at = <const uint8_t *>PyByteArray_AS_STRING(self._pending)
        kept.end = kept.at + PyByteArray_GET_SIZE(self._pending)
        return kept

    cdef int _keep(self, Span *data, Py_ssize_t size) except -1:
        """Moves `size` bytes, or what there is, from `data` to the kept ones. A bytearray grows by a factor."""
        cdef Py_ssize_t have = PyByteArray_GET_SIZE(self._pending)
        if size > size_of(data[0]):
            size = size_of(data[0])
        if size == 0:
            return 0
        PyByteArray_Resize(self._pending, have + size)  # both are sizes in memory
        memcpy(PyByteArray_AS_STRING(self._pending) + have, data.at, size)
        data.at += size
        return 0

    cdef Py_ssize_t _frame_length(self, Span data) except -1:
        """The length of the frame that begins with `data`; 0 while its header is not whole."""
        cdef Py_ssize_t size = size_of(data), length
        if memcmp(data.at, PyBytes_AS_STRING(MAGIC), 4 if size > 4 else size) != 0:
            raise ProtocolError("a frame with the wrong magic")
        if size < HEADER_BYTES:
            return 0
        # Four bytes: fits a Py_ssize_t of 64 bits.
        length = (
            (<Py_ssize_t>data.at[4] << 24)
            | (<Py_ssize_t>data.at[5] << 16)
            | (<Py_ssize_t>data.at[6] << 8)
            | <Py_ssize_t>data.at[7]
        )
        if length < HEADER_BYTES:
            raise ProtocolError(f"a frame of {length} bytes, less than its header")
        if length > self._max_frame:
            raise ProtocolError(f"a frame of {length} bytes, above the limit of {self._max_frame}")
        return length
