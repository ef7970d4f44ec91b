# The ids that a file names: each with one str, shared by all records that name it, and the number of its own line.
#
# Floor 1; included by nodesconf_c.pyx. C only. It stands in for the Reader's dict while all node lines are usual: no
# hash of a str and no int for each line. Where it can't serve it says so, and the Reader's dict goes on from there.

cdef enum:
    LEAST_PLACES = 64
    MOST_PLACES_AT_FIRST = 1 << 16
    USUAL_LINE_BYTES = 192
    MOST_STEPS = 64  # in one search: ids that were chosen to collide must not make it long

cdef struct Id:
    PyObject *text  # a reference of its own; NULL where the place is free
    Py_ssize_t lineno  # 0 while the id was only referred to

cdef struct Ids:
    Id *places  # NULL, or `size` of them: at most half are taken
    size_t size  # 0, or a power of two and more than count
    size_t count
    size_t absent  # those without a line of their own


cdef inline size_t id_hash(const unsigned char *at) noexcept nogil:
    """Of an id's first and last eight bytes: ids are random, and those made up for a test differ there too."""
    cdef uint64_t first, last
    memcpy(&first, at, 8)
    memcpy(&last, at + ID_BYTES - 8, 8)
    first = (first * <uint64_t>0x9E3779B97F4A7C15U) ^ (last * <uint64_t>0xC2B2AE3D27D4EB4FU)
    return first ^ first >> 32


cdef inline Id *id_search(Ids *ids, const unsigned char *at) noexcept:
    """The place where the id stands, or is to be put; NULL where it would have to be searched for too long."""
    cdef size_t place = id_hash(at)
    cdef Id *found
    cdef int step
    for step in range(MOST_STEPS):
        found = &ids.places[(place + step) & (ids.size - 1)]
        if found.text == NULL or memcmp(PyUnicode_DATA(found.text), at, ID_BYTES) == 0:
            return found
    return NULL


cdef bint ids_grow(Ids *ids, size_t size) noexcept:
    """Makes room for `size` places, a power of two. False where that can't be, and then all is as it was."""
    cdef Ids grown
    cdef Id *place
    cdef size_t i
    grown = ids[0]
    grown.size = size
    grown.places = <Id *>PyMem_Calloc(size, sizeof(Id))
    if grown.places == NULL:
        return False
    for i in range(ids.size):
        if ids.places[i].text != NULL:
            place = id_search(&grown, <const unsigned char *>PyUnicode_DATA(ids.places[i].text))
            if place == NULL:
                PyMem_Free(grown.places)
                return False
            place[0] = ids.places[i]
    PyMem_Free(ids.places)
    ids[0] = grown
    return True


cdef bint ids_begin(Ids *ids, size_t file_bytes) noexcept:
    """Makes room for about as many nodes as a file of that size may have."""
    cdef size_t size = LEAST_PLACES
    while size < MOST_PLACES_AT_FIRST and size < file_bytes // (USUAL_LINE_BYTES // 2):
        size *= 2
    return ids_grow(ids, size)


cdef inline bint ids_room(Ids *ids) noexcept:
    """Makes room for the two ids that a line can bring. False where that can't be."""
    # The sizes are of memory in use: far below 2**63.
    return (ids.count + 2) * 2 <= ids.size or ids_grow(ids, ids.size * 2)


cdef inline int id_put(Ids *ids, Id *place, const unsigned char *at) except -1:
    """Makes the id's str, if the place is free, as one without a line."""
    cdef Cursor run
    if place.text == NULL:
        run.at = at
        run.end = at + ID_BYTES
        place.text = new_text(run)
        place.lineno = 0
        ids.count += 1
        ids.absent += 1
    return 0


cdef void ids_free(Ids *ids) noexcept:
    cdef size_t i
    for i in range(ids.size):
        Py_XDECREF(ids.places[i].text)
    PyMem_Free(ids.places)
    ids.places = NULL
    ids.size = ids.count = ids.absent = 0
