# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=True
# cython: auto_pickle=False
"""The bus codec, compiled: frames to messages and back; the twin of `wire_py`.

Floor 1. Knows shapes only (PROTOCOL 1 and 2): what an entry's data means, whom a message comes from and what follows
from it are others' affairs. No socket, no clock, no state but the bytes of a frame that is not whole yet.

A change here is a change to `wire_py` too: both have the same surface and refuse the same bytes in the same words.

Memory: a `Span` never owns what it points into. On decoding that is the caller's buffer (held by a `bytes` argument or
an exported view) or a `bytearray` that only the running call refers to; on encoding a field of the message, which is
immutable and held by the caller. Lengths from the wire are compared with what is left, never added to anything, and
never allocated; sums are of lengths of objects in memory, each checked against 2^32 before the next is added.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from raftfast.config import BUS_PORT_OFFSET as _BUS_PORT_OFFSET
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
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest)
    void *PyUnicode_DATA(object text)
    # New references, handed over as they are: no count is touched between the maker and the owner.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    void tuple_give "PyTuple_SET_ITEM"(tuple target, Py_ssize_t at, PyObject *value) noexcept
    bint is_bytes "PyBytes_CheckExact"(PyObject *value) noexcept
    char *bytes_data "PyBytes_AS_STRING"(PyObject *value) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject *value) noexcept
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
    MOST_IP_BYTES = 45
    MOST_PORT = 65535
    MOST_NUMBER_DIGITS = 20
    LEAST_ENTRY_BYTES = 5  # b"0 APP"
    MOST_TYPE_BYTES = 14
    ID_BYTES = 40
    HEAD_BYTES = 16
    COUNTED_AT_ONCE = 240  # below 256, so that a count of them fits a byte

cdef uint64_t MOST_FRAME_BYTES = 0xFFFFFFFF
cdef Py_ssize_t MAX_ENTRY_BYTES = _MAX_ENTRY_BYTES
cdef uint64_t LAST_PORT_THAT_LEAVES_ONE = MOST_PORT - _BUS_PORT_OFFSET
cdef bytes MAGIC = b"RAFT"
cdef str BROKEN_OFF = "a feed was broken off"


include "fields.pxi"
include "wire_forms.pxi"
include "wire_decode.pxi"
include "wire_encode.pxi"


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

    def __cinit__(self):
        # Not in __init__ alone: the verbs below take `_pending` for a bytearray, and __new__ can be called without it.
        self._max_frame = MAX_FRAME
        self._pending = bytearray()

    def __init__(self, max_frame=MAX_FRAME):
        if not PyLong_CheckExact(max_frame):
            raise TypeError(f"max_frame must be an int, not {type(max_frame).__name__}")
        if not HEADER_BYTES <= max_frame <= MOST_FRAME_BYTES:
            raise ValueError(f"max_frame must be from {HEADER_BYTES} to {MOST_FRAME_BYTES}")
        self._max_frame = max_frame
        self._pending = bytearray()
        self._failure = None

    def __reduce__(self):
        raise TypeError("a FrameDecoder can't be pickled or copied")

    @property
    def buffered(self):
        """How many bytes are kept: those of a frame that is not whole yet."""
        return PyByteArray_GET_SIZE(self._pending)

    def feed(self, data):
        """The messages that `data` completes, in order; the bytes of a frame that is not whole are kept.

        Raises ProtocolError as soon as the bytes that show a fault have arrived. What stood whole before the fault is
        not lost: it is in the error's `messages`. From then on every feed raises ProtocolError; so it does after a feed
        that anything else, as a lack of memory, broke off. TypeError for what is no contiguous buffer; nothing is taken
        then. Cost: linear in the bytes fed, whatever the cut; memory: the bytes
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
        except BaseException:
            # How much was taken the caller can't know: what comes next would be read in the wrong place.
            self._failure = BROKEN_OFF
            self._pending = bytearray()
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
        cdef Py_ssize_t size = size_of(data), length = 0, at
        if memcmp(data.at, PyBytes_AS_STRING(MAGIC), 4 if size > 4 else size) != 0:
            raise ProtocolError("a frame with the wrong magic")
        if size < HEADER_BYTES:
            # The least length that can come of what is there.
            for at in range(4, size):
                length |= <Py_ssize_t>data.at[at] << 8 * (7 - at)
            if length > self._max_frame:
                raise self._too_long()
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
            raise self._too_long()
        return length

    cdef object _too_long(self):
        # In the same words whether all of the length has arrived or only the part that shows it.
        return ProtocolError(f"a frame above the limit of {self._max_frame} bytes")
