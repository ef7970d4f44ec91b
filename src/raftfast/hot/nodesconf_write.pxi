# Node lines in the form that writers give them, written without the checks' full price.
#
# Floor 1; included by nodesconf_c.pyx. Never in it: an error. What is unusual or wrong gives None, and the rules that
# both twins share (nodesconf_lines) say what it is.

cdef dict FLAGS_TEXT = {}  # flags of a record → column; filled as records are seen, up to 256


cdef object flags_text(object flags):
    """The flags column; None where it must be looked at closer."""
    if type(flags) is not tuple:
        return None
    for flag in <tuple>flags:
        if type(flag) is not str:  # what is equal to a str without being one must not find its column
            return None
    cdef object text
    try:
        text = FLAGS_TEXT.get(flags)
        if text is None:
            text = _flags_column(flags)
            if len(FLAGS_TEXT) < 256:
                FLAGS_TEXT[flags] = text
    except (ParseError, TypeError):
        return None
    return text


cdef bint is_all(object text, unsigned char kind, Cursor *run) except -1:
    """Whether `text` is a str all of whose characters are of `kind`; then `run` is its bytes, which it owns."""
    cdef Py_ssize_t size
    cdef Cursor rest, taken
    if type(text) is not str or not text.isascii():
        return False
    rest.at = <const unsigned char *>PyUnicode_AsUTF8AndSize(text, &size)
    rest.end = rest.at + size
    run[0] = rest
    return take_run(&rest, kind, &taken) == size


cdef inline bint is_number(object number, uint64_t most) except -1:
    """Whether `number` is an int, no bool, from 0 to `most`."""
    if type(number) is not int:
        return False
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow != 0:
        return overflow > 0 and most == UINT64_MAX and number <= UINT64_MAX
    return value >= 0 and <uint64_t>value <= most


cdef inline bint is_empty(object pairs):
    return type(pairs) is tuple and len(<tuple>pairs) == 0


cdef object aux_text(dict aux):
    """The aux fields, each with a comma before it, if they are some of the usual ones; else None."""
    cdef Py_ssize_t left = len(aux)
    cdef str text = "", item
    cdef object name, value
    cdef Cursor run
    cdef Aux field
    for name in ("availability-zone", "tls-port", "nodename", "shard-id"):
        value = aux.get(name) if left else None
        if value is None:
            continue
        if not is_all(value, AUX, &run):
            return None
        item = f"{name}={value}"
        is_all(item, AUX, &run)
        if not take_aux_field(&run, &field) or run.at != run.end:
            return None
        text += f",{item}"
        left -= 1
    return text if left == 0 else None


cdef object slots_text(object slots):
    """The owned slots, each with a blank before it, if they are ascending and maximal; else None."""
    cdef Py_ssize_t least = 0
    cdef str text = ""
    if type(slots) is not tuple:
        return None
    for pair in <tuple>slots:
        if type(pair) is not tuple or len(pair) != 2:
            return None
        first, last = pair
        if not is_number(first, LAST_SLOT) or not is_number(last, LAST_SLOT) or first < least or last < first:
            return None
        text += f" {first}" if first == last else f" {first}-{last}"
        least = last + 2
    return text


cdef object node_text(object node):
    """The line of a record that has nothing unusual; None for any other, right or wrong."""
    cdef Cursor run
    cdef object aux = node.aux, primary = node.primary_id
    if (
        not is_all(node.id, ID, &run) or run.end - run.at != 40
        or not is_all(node.ip, FIELD, &run) or run.end - run.at > MAX_IP_BYTES
        or not is_all(node.hostname, FIELD, &run) or run.end - run.at > MAX_HOSTNAME_BYTES
        or not (is_number(node.port, 65535) and is_number(node.cport, 65535))
        or not (is_number(node.ping_sent, UINT64_MAX) and is_number(node.pong_recv, UINT64_MAX))
        or not is_number(node.epoch, UINT64_MAX) or type(aux) is not dict
        or not is_empty(node.migrating) or not is_empty(node.importing)
    ):
        return None
    if primary is None:
        primary = "-"
    elif not is_all(primary, ID, &run) or run.end - run.at != 40:
        return None
    fields, flags, slots = aux_text(aux), flags_text(node.flags), slots_text(node.slots)
    if fields is None or flags is None or slots is None:
        return None
    link = "connected" if node.connected else "disconnected"
    line = (
        f"{node.id} {node.ip}:{node.port}@{node.cport},{node.hostname}{fields} {flags} {primary} {node.ping_sent} "
        f"{node.pong_recv} {node.epoch} {link}{slots}"
    )
    return line.encode("ascii") if len(line) <= MAX_LINE_BYTES else None
