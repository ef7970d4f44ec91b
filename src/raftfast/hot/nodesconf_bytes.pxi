# The bytes of the `nodes.conf` leaf: CRC-64 over them, and the one bounded cursor through which they are read.
#
# Floor 1; included by nodesconf_c.pyx. C only: no Python object but the str that `text_of` makes, no rule of the file.

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


cdef inline bint take_number(Cursor *c, uint64_t most, uint64_t *number) noexcept nogil:
    """Takes a strict decimal of at most `most`. The sum can't wrap: it is compared before it is made."""
    cdef uint64_t value = 0
    cdef unsigned int digit
    cdef const unsigned char *first = c.at
    while c.at < c.end and 0x30 <= c.at[0] <= 0x39:
        digit = c.at[0] - 0x30
        if value > most // 10 or value * 10 > most - digit:
            return False
        value = value * 10 + digit
        c.at += 1
    if c.at == first or (first[0] == 0x30 and c.at - first > 1):
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


cdef inline bint is_text(Cursor run, const char *text, Py_ssize_t size) noexcept nogil:
    return run.end - run.at == size and memcmp(run.at, text, size) == 0


cdef inline str text_of(Cursor run):
    """A str of the run, all of whose bytes are ASCII."""
    return PyUnicode_DecodeASCII(<const char *>run.at, run.end - run.at, NULL)
