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
