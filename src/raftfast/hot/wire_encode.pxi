# Part of wire_c: from a message to the bytes of one frame. Floor 1.

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


cdef inline bint is_ascii(object value, Span *span) noexcept:
    """Whether `value` is a str of ASCII; then `span` is its bytes, which it owns."""
    if not PyUnicode_CheckExact(value) or not PyUnicode_IS_ASCII(value):
        return False
    span.at = <const uint8_t *>PyUnicode_DATA(value)
    span.end = span.at + PyUnicode_GET_LENGTH(value)
    return True


cdef bytes text_bytes(object value):
    """The bytes whose text is `value`; None where there are none."""
    cdef bytes token
    if not PyUnicode_CheckExact(value):
        return None
    try:
        token = (<str>value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return token if token.decode("utf-8", "surrogateescape") == value else None


cdef bint write_field(Heading *heading, char kind, object value, uint64_t *number) except -1:
    """Writes a value as a token, a blank before it; false where it is not of the kind. `number` as in read_field."""
    cdef bytes token
    cdef Span span
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
        span = span_of(token)
    else:
        if not is_ascii(value, &span):
            token = text_bytes(value)
            if token is None:
                return False
            span = span_of(token)
        if not is_text(kind, span):
            return False
    write(heading, b" ", 1)
    write(heading, span.at, size_of(span))
    return True


cdef int write_fields(_Form form, object message, Heading *heading, uint64_t *numbers) except -1:
    """The first line, behind the verb; the tokens that are no fields stand in `numbers`."""
    cdef int i
    cdef const char *kinds = form.kinds
    for i in range(form.count):
        value = None if kinds[i] == b"n" else get(message, form.places[i], form.names[i])
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


cdef inline bytes raw_field(_Form form, object message, Py_ssize_t place, str name):
    """A field that goes out as it is."""
    value = get(message, place, name)
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
    data = raw_field(form, message, form.data, form.data_name)
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
    cdef bytes line = raw_field(form, message, form.data, form.data_name)
    cdef Span entry = span_of(line), nothing
    cdef uint64_t number
    nothing.at = nothing.end = start
    if form.shape == REJECTED_ENTRY and not write_field(heading, b"x", get(message, _reason, "reason"), &number):
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
        if is_stray(entry, kind):
            raise form.error(f"{what} {IS_STRAY}")
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
    for pair in <tuple>offsets:
        if not PyTuple_CheckExact(pair) or len(<tuple>pair) != 2:
            raise form.error("not pairs of id and offset")
        node_id, offset = <tuple>pair
        token = text_bytes(node_id)
        if token is None or not is_id(span_of(token)):
            raise form.error(f"id {wrong(b'i')}")
        if not PyLong_CheckExact(offset) or not -0x8000000000000000 <= offset <= 0x7FFFFFFFFFFFFFFF:
            raise form.error(f"offset {wrong(b's')}")
        tokens.append(b" %b %d" % (token, offset))
    return b"".join(tokens)


cdef bytes encode_entries(_Form form, object message, const uint8_t *start, Heading *heading, uint64_t *numbers):
    """AE: every line is measured and checked first, then all are copied into one object."""
    cdef tuple terms, lines
    cdef bytes whole
    cdef uint64_t length = <uint64_t>0
    cdef Span body
    cdef bint usual = False
    terms_object = get(message, _terms, "terms")
    lines_object = get(message, _lines, "lines")
    if not PyTuple_CheckExact(terms_object) or not PyTuple_CheckExact(lines_object) or len(
        <tuple>terms_object
    ) != len(<tuple>lines_object):
        raise form.error("terms and lines are not two tuples of one length")
    terms, lines = <tuple>terms_object, <tuple>lines_object
    numbers[5] = <uint64_t>len(lines)
    write_fields(form, message, heading, numbers)
    if numbers[3] > numbers[1]:
        raise form.error("prev_log_term is above term")
    if len(lines) > 1:
        check_lines(form, terms, lines, 1, numbers[3], numbers[1])
        usual = are_like_first(terms, lines, &length)
    if not usual:
        length = check_lines(form, terms, lines, len(lines), numbers[3], numbers[1])
    length += <uint64_t>(heading.at - start)  # at most 2^32, the heading is short
    if length > MOST_FRAME_BYTES:
        raise form.error("longer than a frame can be")
    whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    body = span_of(whole)
    put_length(<uint8_t *>start, <uint32_t>length)
    memcpy(<uint8_t *>body.at, start, heading.at - start)
    body.at += heading.at - start
    # Fills exactly what was measured: the lines are immutable and were all checked to be bytes.
    put_lines(<uint8_t *>body.at, lines)
    if usual and find(body, 10) != NULL:
        check_lines(form, terms, lines, len(lines), numbers[3], numbers[1])
        raise SystemError("a newline in no entry")
    put_newlines(<uint8_t *>body.at, lines)
    return whole


cdef bint are_like_first(tuple terms, tuple lines, uint64_t *length) noexcept:
    """Whether all lines have the first one's term and APP, then a blank and data; `length` is that of all, a byte
    before each. The first was checked. A newline in one is not looked for here: that is done in all of them at once.
    """
    cdef Head head
    cdef Span first, entry, kind
    cdef Py_ssize_t position, size, count = len(lines)
    cdef PyObject *term = PyTuple_GET_ITEM(terms, 0)
    cdef PyObject *line = PyTuple_GET_ITEM(lines, 0)
    cdef uint64_t total = <uint64_t>bytes_size(line) + 1
    first.at = <const uint8_t *>bytes_data(line)
    first.end = first.at + bytes_size(line)
    entry = first
    entry.at = find(first, 32) + 1  # the first was checked: there is a blank behind its term
    kind = type_span(entry)
    if not is_app(kind):
        return False
    set_head(&head, first.at, kind.end - first.at)
    for position in range(1, count):
        line = PyTuple_GET_ITEM(lines, position)
        if PyTuple_GET_ITEM(terms, position) != term or not is_bytes(line):
            return False
        size = bytes_size(line)
        if size > MAX_ENTRY_BYTES or not is_like(&head, <const uint8_t *>bytes_data(line), size):
            return False
        total += <uint64_t>size + 1  # of sizes in memory: far from 2^64
    length[0] = total
    return total <= MOST_FRAME_BYTES


cdef inline void put_lines(uint8_t *at, tuple lines) noexcept:
    """Copies the lines, a byte before each that is no newline."""
    cdef Py_ssize_t position
    cdef PyObject *line
    for position in range(len(lines)):
        line = PyTuple_GET_ITEM(lines, position)
        at[0] = 0
        memcpy(at + 1, bytes_data(line), bytes_size(line))
        at += bytes_size(line) + 1


cdef inline void put_newlines(uint8_t *at, tuple lines) noexcept:
    """Puts a newline before each of the lines that `put_lines` copied."""
    cdef Py_ssize_t position
    for position in range(len(lines)):
        at[0] = 10
        at += bytes_size(PyTuple_GET_ITEM(lines, position)) + 1


cdef uint64_t check_lines(
    _Form form, tuple terms, tuple lines, Py_ssize_t count, uint64_t least, uint64_t most
) except? 0:
    """How many bytes the first `count` lines take, a newline before each; raises where one is wrong."""
    cdef uint64_t size = 0, term = least
    cdef uint8_t prefix[MOST_NUMBER_DIGITS + 1]
    cdef Py_ssize_t position, prefix_size = 0
    cdef Span line, entry, kind
    cdef Head head
    cdef PyObject *seen = NULL  # the term object whose digits are in `prefix`; only compared, never followed
    cdef PyObject *term_object
    set_head(&head, NULL, 0)
    for position in range(count):
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
                set_head(&head, NULL, 0)
        if not is_like(&head, line.at, size_of(line)):
            if size_of(line) < prefix_size or memcmp(line.at, prefix, prefix_size) != 0:
                raise form.error(f"entry {position} does not begin with its term")
            if find(line, 10) != NULL:
                raise form.error(f"entry {position} holds a newline")
            entry.at = line.at + prefix_size
            entry.end = line.end
            check_kept(form, f"entry {position}", entry)
            kind = type_span(entry)
            set_head(&head, line.at, kind.end - line.at if is_app(kind) else 0)
        elif find(line, 10) != NULL:
            raise form.error(f"entry {position} holds a newline")
        size += <uint64_t>size_of(line) + 1
        if size > MOST_FRAME_BYTES:
            raise form.error("longer than a frame can be")
    return size
