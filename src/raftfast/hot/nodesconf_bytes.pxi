# The bytes of the `nodes.conf` leaf: CRC-64 over them, and the one bounded cursor through which they are read.
#
# Floor 1; included by nodesconf_c.pyx. C only: no Python object but the str that `new_text` makes, no rule of the file.

# --- CRC-64 -------------------------------------------------------------------------------------------------------

cdef uint64_t POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xad93d23594c935a9, bits reversed
cdef uint64_t CRC[8][256]  # CRC[k][b]: what byte b does to the checksum with k zero bytes after it


cdef void fill_crc_tables() noexcept:
    cdef int value, bit, depth
    cdef uint64_t crc
    for value in range(256):
        crc = value
        for bit in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        CRC[0][value] = crc
    for depth in range(1, 8):
        for value in range(256):
            crc = CRC[depth - 1][value]
            CRC[depth][value] = CRC[0][crc & 0xFF] ^ (crc >> 8)


fill_crc_tables()


cdef uint64_t crc_of(const unsigned char *at, Py_ssize_t size, uint64_t crc) noexcept nogil:
    """The checksum of `size` bytes at `at` (the caller's, and alive), eight a step, whatever the byte order here."""
    while size >= 8:
        crc ^= (
            <uint64_t>at[0] | <uint64_t>at[1] << 8 | <uint64_t>at[2] << 16 | <uint64_t>at[3] << 24
            | <uint64_t>at[4] << 32 | <uint64_t>at[5] << 40 | <uint64_t>at[6] << 48 | <uint64_t>at[7] << 56
        )
        crc = (
            CRC[7][crc & 0xFF] ^ CRC[6][crc >> 8 & 0xFF] ^ CRC[5][crc >> 16 & 0xFF] ^ CRC[4][crc >> 24 & 0xFF]
            ^ CRC[3][crc >> 32 & 0xFF] ^ CRC[2][crc >> 40 & 0xFF] ^ CRC[1][crc >> 48 & 0xFF] ^ CRC[0][crc >> 56]
        )
        at += 8
        size -= 8
    while size > 0:
        crc = CRC[0][(crc ^ at[0]) & 0xFF] ^ (crc >> 8)
        at += 1
        size -= 1
    return crc


# --- the cursor ---------------------------------------------------------------------------------------------------

# All bytes of a file are taken through a Cursor: `at` never passes `end`, and both point into a bytes object that the
# caller of the function at hand keeps alive.
cdef struct Cursor:
    const unsigned char *at
    const unsigned char *end

cdef extern from *:
    """
    #define LAST_SLOT 16383u
    #define LAST_PORT 65535u
    """
    # Macros, so that what a number is compared with is known when take_number is compiled.
    const uint64_t LAST_SLOT
    const uint64_t LAST_PORT

cdef enum:
    WORD = 1  # a character of a token; ASCII only, so that text can be made without decoding
    FIELD = 2  # of an address's field: no comma, no equals sign
    ID = 4
    AUX = 8  # of an aux field's value
    DATA = 16  # a byte of an entry's token

    MAX_LINE_BYTES = 2 << 20
    MAX_IP_BYTES = 45
    MAX_HOSTNAME_BYTES = 255  # longer ones are unusual
    MAX_TYPES = 32
    MAX_AUX = 8  # the aux fields of a line; more are unusual
    MAX_RANGES = 8192  # of owned slots that are ascending and maximal there can't be more
    ID_BYTES = 40
    MAX_COLUMNS = 64
    MAX_COLUMN_BYTES = 80

cdef unsigned char KINDS[256]


cdef void fill_kinds() noexcept:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = 0
        if byte <= 0x20 or byte == 0x22 or byte == 0x27:
            continue
        KINDS[byte] |= DATA
        if byte >= 0x7F:
            continue
        KINDS[byte] |= WORD
        if byte != 0x2C and byte != 0x3D:
            KINDS[byte] |= FIELD
        if 0x30 <= byte <= 0x39 or 0x61 <= byte <= 0x7A:
            KINDS[byte] |= ID | AUX
        elif 0x41 <= byte <= 0x5A or 0x2D <= byte <= 0x2F or byte == 0x3A or byte == 0x5F or byte == 0x60:
            KINDS[byte] |= AUX


fill_kinds()


cdef inline bint take(Cursor *c, unsigned char byte) noexcept nogil:
    if c.at >= c.end or c.at[0] != byte:
        return False
    c.at += 1
    return True


cdef inline Py_ssize_t take_run(Cursor *c, unsigned char kind, Cursor *run) noexcept nogil:
    """Takes all bytes of `kind` into `run`; how many."""
    run.at = c.at
    while c.at < c.end and KINDS[c.at[0]] & kind:
        c.at += 1
    run.end = c.at
    return run.end - run.at


cdef inline bint take_id(Cursor *c, Cursor *run) noexcept nogil:
    """Takes the 40 bytes of an id. What follows is the caller's to look at: it may be a 41st."""
    cdef const unsigned char *at = c.at
    cdef unsigned char wrong = 0
    cdef int place
    if c.end - at < ID_BYTES:
        return False
    # Without a way out in between, and so 16 bytes a step; the last step looks at some of them again.
    for place in range(32):
        wrong |= (<unsigned char>(at[place] - 0x61) > 25) & (<unsigned char>(at[place] - 0x30) > 9)
    for place in range(ID_BYTES - 16, ID_BYTES):
        wrong |= (<unsigned char>(at[place] - 0x61) > 25) & (<unsigned char>(at[place] - 0x30) > 9)
    run.at = at
    c.at = run.end = at + ID_BYTES
    return wrong == 0


cdef inline bint take_eight(const unsigned char *at, uint64_t *number) noexcept nogil:
    """What the eight bytes at `at` say, if all are digits."""
    cdef uint64_t word = (
        <uint64_t>at[0] | <uint64_t>at[1] << 8 | <uint64_t>at[2] << 16 | <uint64_t>at[3] << 24
        | <uint64_t>at[4] << 32 | <uint64_t>at[5] << 40 | <uint64_t>at[6] << 48 | <uint64_t>at[7] << 56
    )
    # A digit is 0x30 to 0x39: the high half is 3, and still is when 6 is added. Above that the sum may carry, but only
    # where the high half of a byte before it is wrong already.
    if (word & 0xF0F0F0F0F0F0F0F0U) != 0x3030303030303030U or (
        (word + 0x0606060606060606U) & 0xF0F0F0F0F0F0F0F0U
    ) != 0x3030303030303030U:
        return False
    # Neighbours are joined: digits to pairs, pairs to fours, fours to eight; each lane holds what it may become.
    word = (word & 0x0F0F0F0F0F0F0F0FU) * 2561 >> 8
    word = (word & 0x00FF00FF00FF00FFU) * 6553601 >> 16
    number[0] = (word & 0x0000FFFF0000FFFFU) * 42949672960001U >> 32
    return True


cdef inline bint take_number(Cursor *c, uint64_t most, uint64_t *number) noexcept nogil:
    """Takes a strict decimal of at most `most`."""
    cdef const unsigned char *first = c.at
    cdef const unsigned char *at = first
    cdef const unsigned char *end = c.end
    cdef uint64_t value, eight
    cdef unsigned int digit
    if at == end:
        return False
    value = at[0] - 0x30U
    if value > 9:
        return False
    at += 1
    # A time in milliseconds has thirteen digits.
    if most == UINT64_MAX and end - at >= 8 and take_eight(at, &eight):
        value = value * 100000000 + eight
        at += 8
    while at < end:
        digit = at[0] - 0x30U
        if digit > 9:
            break
        value = value * 10 + digit
        at += 1
    c.at = at
    if at - first > 1:
        if first[0] == 0x30:
            return False
        # Up to 19 digits fit in 64 bits. Of 20 that begin with a one the sum may have wrapped, once, and then it is
        # below 10**19, which no number of 20 digits is.
        if at - first > 19 and (at - first > 20 or first[0] != 0x31 or value < <uint64_t>10000000000000000000U):
            return False
    if value > most:
        return False
    number[0] = value
    return True


cdef inline bint take_hex16(Cursor *c, uint64_t *number) noexcept nogil:
    cdef uint64_t value = 0
    cdef unsigned char byte
    cdef int place
    if c.end - c.at < 16:
        return False
    for place in range(16):
        byte = c.at[place]
        if 0x30 <= byte <= 0x39:
            byte -= 0x30
        elif 0x61 <= byte <= 0x66:
            byte -= 0x61 - 10
        elif 0x41 <= byte <= 0x46:
            byte -= 0x41 - 10
        else:
            return False
        value = value << 4 | byte
    c.at += 16
    number[0] = value
    return True


cdef inline bint take_text(Cursor *c, const char *text, Py_ssize_t size) noexcept nogil:
    """Takes just this text, if it stands here; what follows is the caller's to look at."""
    if c.end - c.at < size or memcmp(c.at, text, size) != 0:
        return False
    c.at += size
    return True


cdef inline bint is_text(Cursor run, const char *text, Py_ssize_t size) noexcept nogil:
    return run.end - run.at == size and memcmp(run.at, text, size) == 0


cdef inline PyObject *new_text(Cursor run) except NULL:
    """A new reference to a str of the run, all of whose bytes are ASCII."""
    cdef PyObject *text
    if run.end - run.at <= 1:
        # Those CPython has made already.
        return PyUnicode_FromStringAndSize(<const char *>run.at, run.end - run.at)
    text = PyUnicode_New(run.end - run.at, 127)
    memcpy(PyUnicode_DATA(text), run.at, run.end - run.at)
    return text


cdef inline object text_of(Cursor run):
    cdef PyObject *text = new_text(run)
    made = <object>text
    Py_DECREF(made)
    return made
