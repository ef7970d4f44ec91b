# Where the entries of `log_c` stand in memory: blocks, the ring that names them, and whose each pointer is.
#
# Floor 1; included by log_c.pyx alone. Never in it: an index (entries are counted from 0 here, wherever the log's
# boundary is), a check of what a caller hands in, anything that can run Python code or raise.
#
# The shape. Entries stand in blocks of 128, the blocks in a ring of pointers whose size is a power of two. One ring
# of all entries would take 32 bytes an entry right after doubling, and growing or shrinking it would move what is
# kept; whole blocks come and go, so trimming and truncating cost what they drop. A block holds the lines' pointers
# and, for each, its term's distance from the block's first in 32 bits: 12.3 bytes an entry in all. Where a term lies
# 2**32 or more above its block's first (PROTOCOL 3 never adopts such a leap) that block alone gets an array of whole
# terms beside it.
#
# Ownership. One reference to each line of the `count` entries is owned here; pointers in other slots are stale and
# never followed. The ring owns its blocks, a block its `wide`. Dropping a reference to exact `bytes` runs nobody's
# code, so no loop here can be entered twice.
#
# Sums. `offset`, `count` and the length of a list in hand are bounded by the memory that they stand for, 8 bytes each
# at least: none of their sums comes near 2**64. `nbytes` may add one line many times, 2**64 bytes of lines would take
# 2**41 entries of the longest kind (PROTOCOL 1) all the same.

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t

cdef extern from "Python.h":
    # With bare pointers: Cython counts no references here, the functions below do.
    void Py_INCREF(PyObject *value) noexcept
    void Py_DECREF(PyObject *value) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject *value) noexcept

cdef enum:
    SHIFT = 7
    BLOCK = 1 << SHIFT
    MASK = BLOCK - 1
    LEAST_RING = 4

cdef struct Block:
    PyObject *lines[BLOCK]
    uint32_t steps[BLOCK]  # term - base, while wide is NULL
    uint64_t base          # the term that was put into slot 0; no later one is below it
    uint64_t *wide         # NULL, or BLOCK whole terms, which then hold in place of steps

cdef struct Entries:
    Block **ring      # NULL, or `ring_size` pointers: those to `blocks` blocks, from `ring_first` on, are in use
    size_t ring_size  # 0, or a power of two
    size_t ring_first
    size_t blocks     # outside of a verb exactly as many as the entries need
    size_t offset     # slots of the first block that were trimmed: below BLOCK; 0 where count is 0
    size_t count
    uint64_t nbytes   # the lengths of the lines, summed
    uint64_t changes  # how often entries were dropped: whoever counted on a position can see that it moved


cdef inline Block *block_at(Entries *entries, size_t k) noexcept:
    return entries.ring[(entries.ring_first + k) & (entries.ring_size - 1)]


cdef inline PyObject *line_of(Entries *entries, size_t i) noexcept:
    """The line of entry `i`, a borrowed reference."""
    return block_at(entries, (entries.offset + i) >> SHIFT).lines[(entries.offset + i) & MASK]


cdef inline uint64_t term_of(Entries *entries, size_t i) noexcept:
    """The term of entry `i`."""
    cdef size_t slot = (entries.offset + i) & MASK
    cdef Block *block = block_at(entries, (entries.offset + i) >> SHIFT)
    return block.base + block.steps[slot] if block.wide == NULL else block.wide[slot]


cdef inline bint reserve(Entries *entries, size_t kept, uint64_t *terms, size_t n) noexcept:
    """Makes all the room that `put` will need for `n` entries of these rising terms behind the first `kept`.

    False where memory lacks, and then all is as it was. The entries behind `kept` may still be there.
    """
    cdef size_t position = entries.offset + kept
    cdef size_t end = position + n
    cdef size_t step
    cdef uint64_t base
    cdef Block *block
    while entries.blocks < (end + MASK) >> SHIFT:
        if not add_block(entries):
            give_back(entries)
            return False
    while position < end:
        step = min(<size_t>BLOCK - (position & MASK), end - position)
        block = block_at(entries, position >> SHIFT)
        base = block.base if position & MASK else terms[0]
        # Terms don't fall: where the last one of the block is near enough to its base, all are.
        if block.wide == NULL and terms[step - 1] - base > UINT32_MAX and not widen(block):
            give_back(entries)
            return False
        terms += step
        position += step
    return True


cdef inline void put(Entries *entries, uint64_t *terms, PyObject **lines, size_t n) noexcept:
    """Appends entries for which room is reserved, taking a reference to each line."""
    cdef size_t i, slot
    cdef size_t position = entries.offset + entries.count
    cdef Block *block
    for i in range(n):
        block = block_at(entries, (position + i) >> SHIFT)
        slot = (position + i) & MASK
        if slot == 0:
            block.base = terms[i]
        if block.wide == NULL:
            block.steps[slot] = <uint32_t>(terms[i] - block.base)
        else:
            block.wide[slot] = terms[i]
        Py_INCREF(lines[i])
        block.lines[slot] = lines[i]
        entries.nbytes += bytes_size(lines[i])
    entries.count += n


cdef inline void refer(Entries *entries, size_t i, size_t n, PyObject **target) noexcept:
    """Puts the lines of `n` entries from `i` on into `target`, with a reference of its own to each."""
    cdef size_t position = entries.offset + i
    cdef size_t end = position + n
    cdef size_t slot, step
    cdef PyObject **lines
    while position < end:
        lines = &block_at(entries, position >> SHIFT).lines[position & MASK]
        step = min(<size_t>BLOCK - (position & MASK), end - position)
        for slot in range(step):
            Py_INCREF(lines[slot])
            target[slot] = lines[slot]
        target += step
        position += step


cdef void drop_last(Entries *entries, size_t n) noexcept:
    """Lets the last `n` entries go, of at least as many. Their blocks stay until `give_back`."""
    cdef size_t i
    for i in range(entries.count - n, entries.count):
        let_go(entries, i)
    entries.count -= n
    entries.changes += 1


cdef void drop_first(Entries *entries, size_t n) noexcept:
    """Lets the first `n` entries go, of at least as many, and the blocks that held nothing else."""
    cdef size_t i
    cdef size_t end = entries.offset + n
    for i in range(n):
        let_go(entries, i)
    for i in range(end >> SHIFT):
        free_block(block_at(entries, 0))
        entries.ring_first = (entries.ring_first + 1) & (entries.ring_size - 1)
        entries.blocks -= 1
    entries.offset = end & MASK
    entries.count -= n
    entries.changes += 1


cdef void give_back(Entries *entries) noexcept:
    """Frees the blocks behind the last entry, and most of a ring of which less than a quarter is in use.

    At least a quarter of the ring is in use after that and at most a half, so moving its pointers is always paid for by
    as many blocks that came or went.
    """
    cdef size_t size = entries.ring_size
    while entries.blocks > blocks_needed(entries):
        entries.blocks -= 1
        free_block(block_at(entries, entries.blocks))
    if entries.count == 0:
        entries.offset = 0
    while size > LEAST_RING and entries.blocks * 4 < size:
        size //= 2
    if size < entries.ring_size:
        # Where memory lacks even for the small one, the large one serves on.
        resize_ring(entries, size)


cdef void free_all(Entries *entries) noexcept:
    drop_last(entries, entries.count)
    give_back(entries)
    PyMem_Free(entries.ring)
    entries.ring = NULL
    entries.ring_size = 0


cdef size_t blocks_needed(Entries *entries) noexcept:
    return (entries.offset + entries.count + MASK) >> SHIFT if entries.count else 0


cdef size_t size_of(Entries *entries) noexcept:
    """Bytes of the ring and the blocks, the lines not included."""
    cdef size_t k
    cdef size_t total = entries.ring_size * sizeof(Block *) + entries.blocks * sizeof(Block)
    for k in range(entries.blocks):
        if block_at(entries, k).wide != NULL:
            total += BLOCK * sizeof(uint64_t)
    return total


cdef inline void let_go(Entries *entries, size_t i) noexcept:
    cdef PyObject *line = line_of(entries, i)
    entries.nbytes -= bytes_size(line)
    Py_DECREF(line)


cdef bint add_block(Entries *entries) noexcept:
    cdef Block *block
    if entries.blocks == entries.ring_size:
        if not resize_ring(entries, entries.ring_size * 2 if entries.ring_size else LEAST_RING):
            return False
    # Zeroed, so that `widen` may carry over slots that were never written.
    block = <Block *>PyMem_Calloc(1, sizeof(Block))
    if block == NULL:
        return False
    entries.ring[(entries.ring_first + entries.blocks) & (entries.ring_size - 1)] = block
    entries.blocks += 1
    return True


cdef bint resize_ring(Entries *entries, size_t size) noexcept:
    """Moves the blocks' pointers to a ring of `size`, a power of two and enough. False where memory lacks."""
    cdef size_t k
    cdef Block **ring = <Block **>PyMem_Malloc(size * sizeof(Block *))
    if ring == NULL:
        return False
    for k in range(entries.blocks):
        ring[k] = block_at(entries, k)
    PyMem_Free(entries.ring)
    entries.ring = ring
    entries.ring_size = size
    entries.ring_first = 0
    return True


cdef bint widen(Block *block) noexcept:
    """Gives the block whole terms, all its slots carried over. False where memory lacks."""
    cdef size_t slot
    cdef uint64_t *wide = <uint64_t *>PyMem_Malloc(BLOCK * sizeof(uint64_t))
    if wide == NULL:
        return False
    for slot in range(<size_t>BLOCK):
        wide[slot] = block.base + block.steps[slot]
    block.wide = wide
    return True


cdef void free_block(Block *block) noexcept:
    PyMem_Free(block.wide)
    PyMem_Free(block)
