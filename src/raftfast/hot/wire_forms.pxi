# Part of wire_c: spans and tokens, the verbs' shapes, the entry types. Floor 1; nothing here reads or makes a message.

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


cdef Py_ssize_t count_bytes(Span span, uint8_t byte) noexcept nogil:
    """How many times `byte` stands in the span."""
    cdef Py_ssize_t count = 0
    cdef uint8_t part
    cdef int i
    while size_of(span) >= COUNTED_AT_ONCE:
        # In bytes, and so 16 a step: a part can't pass 255.
        part = 0
        for i in range(COUNTED_AT_ONCE):
            part += span.at[i] == byte
        count += part
        span.at += COUNTED_AT_ONCE
    while span.at != span.end:
        count += span.at[0] == byte
        span.at += 1
    return count


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
    cdef uint8_t wrong = 0
    cdef int i
    if size_of(token) != ID_BYTES:
        return False
    # Without a way out in between, and so 16 bytes a step.
    for i in range(ID_BYTES):
        wrong |= (<uint8_t>(token.at[i] - 97) > 25) & (<uint8_t>(token.at[i] - 48) > 9)
    return wrong == 0


cdef bint is_address(Span token) noexcept nogil:
    """`ip:port[@cport]`, and behind a comma what only the address's own parser looks at (PROTOCOL 2, NODESCONF 1.2)."""
    cdef Span head = token, port
    cdef const uint8_t *comma
    if size_of(token) < 1 or size_of(token) > MOST_ADDRESS_BYTES:
        return False
    comma = find(token, 44)
    if comma != NULL:
        head.end = comma
    while token.at != token.end:
        if token.at[0] <= 0x20 or token.at[0] == 0x7F:
            return False
        token.at += 1
    port.at = port.end = head.end
    while port.at != head.at and (port.at - 1)[0] != 58:
        port.at -= 1
    # Behind the last colon, if there is one.
    return port.at != head.at and port.at - head.at <= MOST_IP_BYTES + 1 and is_port_pair(port)


cdef inline bint is_port_pair(Span port) noexcept nogil:
    """Whether it is `port@cport`, or a `port` that leaves one."""
    cdef Span bus_port
    cdef const uint8_t *sign = find(port, 64)
    cdef uint64_t number
    if sign == NULL:
        return read_number(port, &number) and number <= LAST_PORT_THAT_LEAVES_ONE
    bus_port.at = sign + 1  # the sign was in the span
    bus_port.end = port.end
    port.end = sign
    if not read_number(port, &number) or number > MOST_PORT:
        return False
    return read_number(bus_port, &number) and number <= MOST_PORT


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
        return "is not ip:port@cport[,...], of at most 2048 bytes without blanks and control bytes"
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
    `required` on may be absent. `places` say where the fields stand in a message, and nothing for n.
    """

    cdef bytes verb
    cdef Span verb_span  # into `verb`
    cdef type message
    cdef Layout layout
    cdef bytes kinds
    cdef int count
    cdef int required
    cdef Shape shape
    cdef tuple names
    cdef Py_ssize_t places[MOST_FIELDS]
    cdef Py_ssize_t data  # the place of the raw bytes; 0 where there are none
    cdef str data_name

    def __init__(self, verb, message, shape=TOKENS, kinds=b"", names="", required=-1, data=None):
        self.verb = verb
        self.verb_span = span_of(self.verb)
        self.message = message
        self.shape = shape
        self.kinds = kinds
        self.count = len(kinds)
        self.required = self.count if required < 0 else required
        self.names = tuple(names.split())
        self.layout = layout_of(message)
        for i, name in enumerate(self.names):
            if kinds[i] != ord("n"):
                self.places[i] = field_place(message, name)
        self.data_name = data
        self.data = 0 if data is None else field_place(message, data)

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
cdef Py_ssize_t _terms = field_place(AppendEntries, "terms")
cdef Py_ssize_t _lines = field_place(AppendEntries, "lines")
cdef Py_ssize_t _channel = field_place(Publish, "channel")
cdef Py_ssize_t _reason = field_place(Reject, "reason")


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


cdef inline object get(object message, Py_ssize_t place, str name):
    """A field of a message of the class whose place it is."""
    cdef PyObject *value = field_of(message, place)
    return getattr(message, name) if value == NULL else <object>value  # where it was never set, getattr says so


# Entry types.

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


cdef bint is_stray(Span entry, Span kind) noexcept nogil:
    """Whether data, of an entry of a known type, can't be kept in `nodes.conf` (NODESCONF 1.7).

    APP's is taken as it is; that of the others is tokens, single blanks between them, without quotes and control
    bytes.
    """
    cdef const uint8_t *at = kind.end
    cdef bint blank = False
    if is_app(kind):
        return False
    # The first byte is the blank behind the type: as between two tokens, no other may follow it or end the data.
    while at != entry.end:
        if at[0] < 32 or at[0] == 34 or at[0] == 39 or (at[0] == 32 and blank):
            return True
        blank = at[0] == 32
        at += 1
    return blank and entry.end - kind.end > 1


cdef inline bint is_app(Span kind) noexcept nogil:
    return size_of(kind) == 3  # of a known type: no other is as short


cdef str IS_STRAY = "has data with stray blanks, quotes or control bytes"


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


# What most lines of a message begin with: the term and APP of the line before, and a blank. Held as two words, so that
# a line is compared with it in a few instructions, without a call. Never another type: its data must be looked at.

cdef struct Head:
    Py_ssize_t size  # of term and APP; 0 where there is no such line
    const uint8_t *at
    uint64_t words[2]  # the first bytes, the blank among them, behind `masks`
    uint64_t masks[2]
    bint fits  # whether term, APP and blank are within the words


cdef inline void set_head(Head *head, const uint8_t *at, Py_ssize_t size) noexcept nogil:
    """Makes the `size` bytes at `at` the head; with 0 no line is like it."""
    cdef uint8_t masks[HEAD_BYTES]
    cdef uint8_t start[HEAD_BYTES]
    head.size = size
    head.at = at
    head.fits = 0 < size < HEAD_BYTES
    if not head.fits:
        return
    memset(masks, 0, HEAD_BYTES)
    memset(masks, 0xFF, size + 1)
    memset(start, 0, HEAD_BYTES)
    memcpy(start, at, size)
    start[size] = 32
    memcpy(head.words, start, HEAD_BYTES)
    memcpy(head.masks, masks, HEAD_BYTES)


cdef inline bint is_like(Head *head, const uint8_t *at, Py_ssize_t size) noexcept nogil:
    """Whether the line of `size` bytes at `at` begins with the head and a blank, and has data behind it: it is good."""
    cdef uint64_t words[2]
    if size - head.size < 2 or head.size == 0:
        return False
    if head.fits and size >= HEAD_BYTES:
        memcpy(words, at, HEAD_BYTES)
        return ((words[0] ^ head.words[0]) & head.masks[0] | (words[1] ^ head.words[1]) & head.masks[1]) == 0
    return at[head.size] == 32 and memcmp(at, head.at, head.size) == 0
