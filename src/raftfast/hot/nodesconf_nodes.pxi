# Node lines in the form that writers give them, read and written without the checks' full price.
#
# Floor 1; included by nodesconf_c.pyx. Never in it: an error. What is unusual or wrong gives None, and the rules that
# both twins share (nodesconf_lines) say what it is.

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


cdef bint is_sound_aux(Cursor name, Cursor value) noexcept:
    """Whether this is one of the usual aux fields, with a value that it may have."""
    cdef uint64_t number
    cdef Cursor rest = value, taken
    if is_text(name, b"tls-port", 8):
        return take_number(&rest, 65535, &number) and rest.at == rest.end
    if is_text(name, b"shard-id", 8):
        return value.end - value.at == 40 and take_run(&rest, ID, &taken) == 40
    if is_text(name, b"availability-zone", 17) or is_text(name, b"nodename", 8):
        return take_run(&rest, AUX, &taken) == value.end - value.at
    return False


cdef str aux_name(Cursor name):
    """The name of a usual aux field: always the same str."""
    if name.end - name.at == 17:
        return "availability-zone"
    if name.at[0] == c"n":
        return "nodename"
    return "tls-port" if name.at[0] == c"t" else "shard-id"


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
            if not is_sound_aux(name, value):
                return None
            aux[aux_name(name)] = text_of(value)
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


# --- writing ------------------------------------------------------------------------------------------------------

cdef dict FLAGS_TEXT = {}  # flags of a record → column; filled as records are seen, up to 256


cdef object flags_text(object flags):
    """The flags column; None where it must be looked at closer."""
    if type(flags) is not tuple:
        return None
    cdef object text
    try:
        text = FLAGS_TEXT.get(flags)
        if text is None:
            text = flags_column(flags)
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
        return overflow > 0 and most == U64_MAX and number <= U64_MAX
    return value >= 0 and <uint64_t>value <= most


cdef object aux_text(dict aux):
    """The aux fields, each with a comma before it, if they are some of the usual ones; else None."""
    cdef Py_ssize_t left = len(aux)
    cdef str text = ""
    cdef object name, value
    cdef Cursor key, run
    for name in ("availability-zone", "tls-port", "nodename", "shard-id"):
        value = aux.get(name) if left else None
        if value is None:
            continue
        if not is_all(name, AUX, &key) or not is_all(value, AUX, &run) or not is_sound_aux(key, run):
            return None
        text += f",{name}={value}"
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
        or not (is_number(node.ping_sent, U64_MAX) and is_number(node.pong_recv, U64_MAX))
        or not is_number(node.epoch, U64_MAX) or type(aux) is not dict or node.migrating != () or node.importing != ()
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
