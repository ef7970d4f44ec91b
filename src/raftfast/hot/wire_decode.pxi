# Part of wire_c: from the bytes of one payload to a message. Floor 1; frames are cut in wire_c.pyx.

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


cdef inline bint is_further(char kind, Span token) noexcept nogil:
    """Whether a token that is no cluster's is a further one, to be ignored: a damaged id, by its length, is not.
    No field follows this one: its value is None, as without a token.
    """
    return kind == b"c" and size_of(token) != ID_BYTES


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
    message = new_instance(&form.layout)
    for i in range(form.count):
        if take_token(&line, &token):
            value = read_field(kinds[i], token, &numbers[i])
            if value is None and not is_further(kinds[i], token):
                raise form.error(f"{form.names[i]} {wrong(kinds[i])}")
        elif i < form.required:
            raise form.error(f"{form.names[i]} is missing")
        else:
            value = absent(kinds[i])
        if kinds[i] != b"n":
            put(message, form.places[i], value)
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
    give(message, form.data, new_bytes(<const char *>data.at, size_of(data)))
    return 0


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


# Entries.

cdef object decode_entry(_Form form, Span line, const uint8_t *blank, bint second_line):
    """PROPOSE and REJECT: the rest of the line is the entry, blanks and all."""
    cdef Span token, entry, kind
    message = new_instance(&form.layout)
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
    kind = type_span(entry)
    kept = kept_line(entry.at, entry, kind)
    if kept is None:
        raise form.error("entry has an unknown type")
    if is_stray(entry, kind):
        raise form.error(f"entry {IS_STRAY}")
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
        put(message, _lines, ())
        return 0
    # Bounds what a body of nothing but newlines makes us allocate. The sums are of sizes in memory.
    if there > <uint64_t>((size_of(body) + 1) // (LEAST_ENTRY_BYTES + 1)):
        raise form.error("an entry line without term and type")
    return read_lines(form, message, body, <Py_ssize_t>there, numbers[3], numbers[1])


cdef int read_lines(
    _Form form, object message, Span body, Py_ssize_t count, uint64_t least, uint64_t most
) except -1:
    """Fills `terms` and `lines`. `count` is the number of lines that are there, seen and not announced."""
    cdef Span line
    cdef Head head
    cdef Py_ssize_t position
    cdef const uint8_t *newline
    cdef uint64_t term = least
    cdef object term_object = None
    cdef tuple terms = PyTuple_New(count), lines = PyTuple_New(count)
    put(message, _terms, terms)
    put(message, _lines, lines)
    set_head(&head, body.at, 0)
    for position in range(count):
        newline = find(body, 10)
        line.at = body.at
        line.end = body.end if newline == NULL else newline
        body.at = body.end if newline == NULL else newline + 1
        if size_of(line) > MAX_ENTRY_BYTES:
            raise form.error(f"entry {position} is longer than {MAX_ENTRY_BYTES} bytes")
        if is_like(&head, line.at, size_of(line)):
            tuple_give(lines, position, new_bytes(<const char *>line.at, size_of(line)))
        else:
            least = term
            kept = read_line(form, position, line, least, most, &term, &head)
            Py_INCREF(kept)
            tuple_give(lines, position, <PyObject *>kept)
            if term != least or term_object is None:
                term_object = PyLong_FromUnsignedLongLong(term)
        Py_INCREF(term_object)
        tuple_give(terms, position, <PyObject *>term_object)
    return 0


cdef bytes read_line(
    _Form form, Py_ssize_t position, Span line, uint64_t least, uint64_t most, uint64_t *term, Head *head
):
    """An entry line, as it is kept. `head` becomes what a like line begins with."""
    cdef Span token, entry, kind
    cdef bytes kept
    token.at = line.at
    token.end = find(line, 32)
    if token.end == NULL:
        raise form.error(f"entry {position} is not a term and a type")
    if not read_number(token, term):
        raise form.error(f"the term of entry {position} {wrong(b'u')}")
    check_term(form, position, term[0], least, most)
    entry.at = token.end + 1  # the blank was in the line
    entry.end = line.end
    kind = type_span(entry)
    set_head(head, line.at, 0)  # it may be of an earlier term: no line is compared with it any more
    if is_kept(entry, kind):
        if is_app(kind):
            set_head(head, line.at, kind.end - line.at)
        kept = bytes_of(line)
    else:
        kept = kept_line(line.at, entry, kind)
        if kept is None:
            raise form.error(f"entry {position} has an unknown type")
    if is_stray(entry, kind):
        raise form.error(f"entry {position} {IS_STRAY}")
    return kept


cdef inline int check_term(_Form form, Py_ssize_t position, uint64_t term, uint64_t least, uint64_t most) except -1:
    if term < least:
        raise form.error(f"the term of entry {position} falls")
    if term > most:
        raise form.error(f"the term of entry {position} is above the leader's")
    return 0
