"""A hash table from up to 20 bytes of key to a slot number: open addressing, linear probing, no tombstones.

Its memory is taken once.  The hash is seeded, so that strangers who choose their addresses cannot line
up collisions.  Only the plane's thread touches a table.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef struct Key:
    uint64_t a
    uint64_t b
    uint32_t c

cdef struct Entry:
    Key key
    uint32_t slot           # number + 1; 0 means free

cdef struct Table:
    Entry *entries
    uint32_t mask
    uint32_t used
    uint64_t seed

cdef inline bint table_init(Table *t, uint32_t slots, uint64_t seed) noexcept nogil:
    """Room for `slots` keys at a load of at most one half; False where memory is short."""
    cdef uint32_t size = 16
    while size < 2 * slots:
        size *= 2
    t.entries = <Entry *>calloc(size, sizeof(Entry))
    t.mask = size - 1
    t.used = 0
    t.seed = seed
    return t.entries != NULL

cdef inline void table_free(Table *t) noexcept nogil:
    free(t.entries)
    t.entries = NULL

cdef inline uint32_t table_hash(const Table *t, const Key *k) noexcept nogil:
    # Two rounds of multiply and fold (the constants are odd and have no structure).
    cdef uint64_t h = (k.a ^ t.seed) * <uint64_t>0x9E3779B97F4A7C15
    h ^= h >> 32
    h = (h ^ k.b ^ (<uint64_t>k.c << 40)) * <uint64_t>0xD6E8FEB86659FD93
    h ^= h >> 29
    return <uint32_t>(h ^ (h >> 32)) & t.mask

cdef inline bint same_key(const Key *x, const Key *y) noexcept nogil:
    return x.a == y.a and x.b == y.b and x.c == y.c

cdef inline int table_get(const Table *t, const Key *k) noexcept nogil:
    """Slot number, or -1."""
    cdef uint32_t i = table_hash(t, k)
    while t.entries[i].slot != 0:
        if same_key(&t.entries[i].key, k):
            return <int>(t.entries[i].slot - 1)
        i = (i + 1) & t.mask
    return -1

cdef inline bint table_put(Table *t, const Key *k, uint32_t slot) noexcept nogil:
    """Set or replace; False where the table is half full (its callers size it so that it never is)."""
    cdef uint32_t i = table_hash(t, k)
    while t.entries[i].slot != 0:
        if same_key(&t.entries[i].key, k):
            t.entries[i].slot = slot + 1
            return True
        i = (i + 1) & t.mask
    if 2 * t.used > t.mask:
        return False
    t.entries[i].key = k[0]
    t.entries[i].slot = slot + 1
    t.used += 1
    return True

cdef inline bint table_drop(Table *t, const Key *k) noexcept nogil:
    """Remove, and move what was displaced by it back: look-ups never walk over the dead."""
    cdef uint32_t i = table_hash(t, k), j, home
    while t.entries[i].slot != 0 and not same_key(&t.entries[i].key, k):
        i = (i + 1) & t.mask
    if t.entries[i].slot == 0:
        return False
    t.used -= 1
    j = i
    while True:
        j = (j + 1) & t.mask
        if t.entries[j].slot == 0:
            break
        home = table_hash(t, &t.entries[j].key)
        # The entry at j may move to the hole at i unless its home lies cyclically in (i, j].
        if ((j - home) & t.mask) >= ((j - i) & t.mask):
            t.entries[i] = t.entries[j]
            i = j
    t.entries[i].slot = 0
    return True

cdef inline bint table_drop_own(Table *t, const Key *k, uint32_t slot) noexcept nogil:
    """Remove, unless the key has come to stand for another slot since."""
    return table_get(t, k) == <int>slot and table_drop(t, k)
