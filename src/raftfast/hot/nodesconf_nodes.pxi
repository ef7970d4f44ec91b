# Node lines in the form that writers give them, read without the checks' full price.
#
# Floor 1; included by nodesconf_c.pyx. Never in it: an error. What is unusual or wrong is left alone, and the rules that
# both twins share (nodesconf_lines) say what it is.

cdef uint64_t PORT_OFFSET = _BUS_PORT_OFFSET

cdef enum:
    SHARD_ID
    TLS_PORT
    AVAILABILITY_ZONE
    NODENAME

cdef tuple AUX_NAMES = ("shard-id", "tls-port", "availability-zone", "nodename")

# The flags columns seen so far, as writers give them. A file has few: they are found by their bytes, without an object.
cdef struct Column:
    char text[MAX_COLUMN_BYTES + 1]  # with the blank behind it
    Py_ssize_t size  # of text
    uint64_t word  # the first eight bytes of text, as memory has them, behind `mask`
    uint64_t mask
    PyObject *flags  # a reference of its own, for as long as the module
    bint replica
    bint myself

cdef Column COLUMNS[MAX_COLUMNS]
cdef int COLUMN_COUNT = 0

# An aux field; `name` is one of AUX_NAMES.
cdef struct Aux:
    int name
    Cursor value

# A node line as it stands: runs point into it, and no Python object is made before the whole line is known to be usual.
cdef struct NodeLine:
    Cursor id
    Cursor ip
    Cursor ports  # the colon, `port` and `cport`, as some line wrote what they are now; empty where none did
    Cursor hostname
    Column *column  # NULL where the flags column is not known yet
    Cursor flags  # that column then
    Cursor primary  # empty where there is none
    uint64_t port
    uint64_t cport
    uint64_t ping
    uint64_t pong
    uint64_t epoch
    bint connected
    int aux_count
    int range_count
    Aux aux[MAX_AUX]
    unsigned short firsts[MAX_RANGES]
    unsigned short lasts[MAX_RANGES]


cdef inline bint take_ports(Cursor c, uint64_t *port, uint64_t *cport) noexcept nogil:
    """All that is left of the cursor: `port` or `port@cport`."""
    if not take_number(&c, LAST_PORT, port):
        return False
    if take(&c, c"@"):
        if not take_number(&c, LAST_PORT, cport):
            return False
    else:
        cport[0] = port[0] + PORT_OFFSET  # both are small
        if cport[0] > LAST_PORT:
            return False
    return c.at == c.end


cdef inline bint take_aux_field(Cursor *c, Aux *aux) noexcept nogil:
    """One of the usual aux fields, with a value that it may have."""
    cdef uint64_t number
    aux.value.at = c.at
    if take_text(c, b"shard-id=", 9):
        aux.name = SHARD_ID
        return take_id(c, &aux.value)
    if take_text(c, b"tls-port=", 9):
        aux.name = TLS_PORT
        aux.value.at = c.at
        if not take_number(c, LAST_PORT, &number):
            return False
        aux.value.end = c.at
        return True
    if take_text(c, b"availability-zone=", 18):
        aux.name = AVAILABILITY_ZONE
    elif take_text(c, b"nodename=", 9):
        aux.name = NODENAME
    else:
        return False
    take_run(c, AUX, &aux.value)
    return True


cdef inline bint take_aux(Cursor *c, NodeLine *node) noexcept nogil:
    """The aux fields, each with a comma before it, if they are usual ones. What follows must be a blank."""
    while take(c, c","):
        if node.aux_count == MAX_AUX or not take_aux_field(c, &node.aux[node.aux_count]):
            return False
        node.aux_count += 1
    return True


cdef inline bint take_same_ports(Cursor *c, NodeLine *node) noexcept nogil:
    """Takes `ip:port@cport` where the ports stand as in the line before, as they mostly do, and the ip has no colon."""
    cdef Cursor at = c[0]
    cdef Py_ssize_t size = node.ports.end - node.ports.at
    while at.at < at.end and KINDS[at.at[0]] & FIELD and at.at[0] != c":":
        at.at += 1
    if size == 0 or at.end - at.at <= size or memcmp(at.at, node.ports.at, size) != 0 or KINDS[at.at[size]] & FIELD:
        return False
    node.ip.at = c.at
    node.ip.end = at.at
    c.at = at.at + size
    return True


cdef inline bint take_other_ports(Cursor *c, NodeLine *node) noexcept nogil:
    """Takes `ip:port` or `ip:port@cport`; the colon is the last one."""
    cdef Cursor ip, ports
    node.ports.at = node.ports.end = c.at
    take_run(c, FIELD, &ip)
    ports.at = ports.end = ip.end
    while ports.at > ip.at and (ports.at - 1)[0] != c":":
        ports.at -= 1
    if ports.at == ip.at or not take_ports(ports, &node.port, &node.cport):
        return False
    node.ports.at = ports.at - 1  # the colon
    node.ports.end = ports.end
    node.ip.at = ip.at
    node.ip.end = node.ports.at
    return True


cdef inline bint take_address(Cursor *c, NodeLine *node) noexcept nogil:
    if not take_same_ports(c, node) and not take_other_ports(c, node):
        return False
    if node.ip.end - node.ip.at > MAX_IP_BYTES:
        return False
    node.hostname.at = node.hostname.end = c.at
    node.aux_count = 0
    if not take(c, c","):
        return True
    take_run(c, FIELD, &node.hostname)
    return take_aux(c, node)


cdef inline bint take_slots(Cursor *c, NodeLine *node) noexcept nogil:
    """The rest of the line, if it is owned slots, ascending and maximal."""
    cdef uint64_t first, last, least = 0
    node.range_count = 0
    while c.at < c.end:
        if not take(c, c" ") or not take_number(c, LAST_SLOT, &first):
            return False
        last = first
        if take(c, c"-") and not take_number(c, LAST_SLOT, &last):
            return False
        if first < least or last < first or node.range_count == MAX_RANGES:
            return False
        node.firsts[node.range_count] = <unsigned short>first
        node.lasts[node.range_count] = <unsigned short>last
        node.range_count += 1
        least = last + 2
    return True


cdef inline bint take_flags(Cursor *c, NodeLine *node) noexcept nogil:
    """The flags column and the blank behind it."""
    cdef int place
    cdef uint64_t word = 0
    if c.end - c.at >= 8:  # with less behind it no column is usual
        memcpy(&word, c.at, 8)
    for place in range(COLUMN_COUNT):
        if (word ^ COLUMNS[place].word) & COLUMNS[place].mask == 0 and (
            take_text(c, COLUMNS[place].text, COLUMNS[place].size)
        ):
            node.column = &COLUMNS[place]
            return True
    node.column = NULL
    return take_run(c, WORD, &node.flags) > 0 and take(c, c" ")


cdef inline bint take_link(Cursor *c, NodeLine *node) noexcept nogil:
    cdef Cursor link
    node.connected = take_text(c, b"connected", 9)
    if node.connected and (c.at == c.end or c.at[0] == c" "):
        return True
    if take_run(c, WORD, &link) == 0 and not node.connected:
        return False
    node.connected = False
    return True


cdef bint take_node(Cursor c, NodeLine *node) noexcept nogil:
    """Takes a node line in the form that writers give it; False for any other line, right or wrong."""
    if c.end - c.at > MAX_LINE_BYTES or not take_id(&c, &node.id) or not take(&c, c" "):
        return False
    if not take_address(&c, node) or not take(&c, c" ") or not take_flags(&c, node):
        return False
    node.primary.at = node.primary.end = c.at
    if not take(&c, c"-") and not take_id(&c, &node.primary):
        return False
    return (
        take(&c, c" ") and take_number(&c, UINT64_MAX, &node.ping)
        and take(&c, c" ") and take_number(&c, UINT64_MAX, &node.pong)
        and take(&c, c" ") and take_number(&c, UINT64_MAX, &node.epoch)
        and take(&c, c" ") and take_link(&c, node) and take_slots(&c, node)
    )


cdef inline Column *column_of(NodeLine *node) except? NULL:
    """What the line's flags column says; NULL where it is unusual or refused."""
    return new_column(node.flags) if node.column == NULL else node.column


cdef Column *new_column(Cursor run) except? NULL:
    global COLUMN_COUNT
    cdef Column *column
    if COLUMN_COUNT == MAX_COLUMNS or run.end - run.at > MAX_COLUMN_BYTES:
        return NULL
    text = PyBytes_FromStringAndSize(<const char *>run.at, run.end - run.at)
    try:
        flags = _flags_of(text)
    except ParseError:
        return NULL
    if _flags_column(flags).encode() != text or COLUMN_COUNT == MAX_COLUMNS:
        return NULL  # full by now: what ran since it was looked at may have been another thread's reading
    column = &COLUMNS[COLUMN_COUNT]
    memcpy(column.text, run.at, run.end - run.at)
    column.text[run.end - run.at] = c" "
    column.size = run.end - run.at + 1
    column.word = column.mask = 0
    memcpy(&column.word, column.text, min(column.size, 8))
    memset(&column.mask, 0xFF, min(column.size, 8))
    column.replica = "slave" in flags
    column.myself = "myself" in flags
    Py_INCREF(flags)
    column.flags = <PyObject *>flags
    COLUMN_COUNT += 1
    return column


cdef inline tuple slots_of(NodeLine *node):
    cdef int place
    cdef tuple ranges, pair
    if node.range_count == 0:
        return ()
    ranges = PyTuple_New(node.range_count)
    for place in range(node.range_count):
        pair = (node.firsts[place], node.lasts[place])
        PyObject_GC_UnTrack(<void *>pair)  # of ints: the collector would do the same on its first visit
        Py_INCREF(pair)  # SET_ITEM takes over a reference
        PyTuple_SET_ITEM(ranges, place, pair)
    PyObject_GC_UnTrack(<void *>ranges)
    return ranges


# The ports of the node before, and their ints: mostly all nodes of a file have the same.
cdef object PORT = 0
cdef object CPORT = 0
cdef uint64_t PORT_VALUE = 0
cdef uint64_t CPORT_VALUE = 0

cdef Layout RECORD = layout_of(NodeRecord)
cdef Py_ssize_t ID_PLACE = field_place(NodeRecord, "id")
cdef Py_ssize_t IP_PLACE = field_place(NodeRecord, "ip")
cdef Py_ssize_t PORT_PLACE = field_place(NodeRecord, "port")
cdef Py_ssize_t CPORT_PLACE = field_place(NodeRecord, "cport")
cdef Py_ssize_t HOSTNAME_PLACE = field_place(NodeRecord, "hostname")
cdef Py_ssize_t AUX_PLACE = field_place(NodeRecord, "aux")
cdef Py_ssize_t FLAGS_PLACE = field_place(NodeRecord, "flags")
cdef Py_ssize_t PRIMARY_PLACE = field_place(NodeRecord, "primary_id")
cdef Py_ssize_t PING_PLACE = field_place(NodeRecord, "ping_sent")
cdef Py_ssize_t PONG_PLACE = field_place(NodeRecord, "pong_recv")
cdef Py_ssize_t EPOCH_PLACE = field_place(NodeRecord, "epoch")
cdef Py_ssize_t CONNECTED_PLACE = field_place(NodeRecord, "connected")
cdef Py_ssize_t SLOTS_PLACE = field_place(NodeRecord, "slots")
cdef Py_ssize_t MIGRATING_PLACE = field_place(NodeRecord, "migrating")
cdef Py_ssize_t IMPORTING_PLACE = field_place(NodeRecord, "importing")


cdef enum:
    RECORD_BYTES = 15 * 8  # of the fields above

if RECORD.size != RECORD_BYTES:
    raise ImportError("NodeRecord has other fields than nodesconf_c fills")


cdef object record_of(NodeLine *node, Column *column, object node_id, object primary):
    """The NodeRecord of a line, without its constructor, which would be most of the cost."""
    global PORT, CPORT, PORT_VALUE, CPORT_VALUE
    cdef object record = raw_instance(<type>RECORD.kind)  # as new_instance; the size is known when this is compiled
    memset(<char *><PyObject *>record + RECORD.first, 0, RECORD_BYTES)
    cdef dict aux = {}
    cdef int place
    for place in range(node.aux_count):
        aux[<object>PyTuple_GET_ITEM(AUX_NAMES, node.aux[place].name)] = text_of(node.aux[place].value)
    if node.port != PORT_VALUE:
        PORT = node.port
        PORT_VALUE = node.port
    if node.cport != CPORT_VALUE:
        CPORT = node.cport
        CPORT_VALUE = node.cport
    put(record, ID_PLACE, node_id)
    give(record, IP_PLACE, new_text(node.ip))
    put(record, PORT_PLACE, PORT)
    put(record, CPORT_PLACE, CPORT)
    give(record, HOSTNAME_PLACE, new_text(node.hostname))
    put(record, AUX_PLACE, aux)
    put(record, FLAGS_PLACE, <object>column.flags)
    put(record, PRIMARY_PLACE, primary)
    give(record, PING_PLACE, PyLong_FromUnsignedLongLong(node.ping))
    give(record, PONG_PLACE, PyLong_FromUnsignedLongLong(node.pong))
    # The epoch column of a replica that has a primary shows the primary's.
    give(record, EPOCH_PLACE, PyLong_FromUnsignedLongLong(0 if column.replica and primary is not None else node.epoch))
    put(record, CONNECTED_PLACE, True if node.connected else False)
    put(record, SLOTS_PLACE, slots_of(node))
    put(record, MIGRATING_PLACE, ())
    put(record, IMPORTING_PLACE, ())
    return record
