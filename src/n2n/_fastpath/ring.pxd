"""Rings with one writer and one reader: commands towards the plane, control datagrams towards Python.

Head and tail run freely and wrap at 2^32; sizes are powers of two.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from n2n._fastpath.atomic cimport n2n_load, n2n_store

# ---- commands -----------------------------------------------------------------------------------

cdef enum Op:
    OP_SUPERNODE = 1
    OP_PUT_PEER
    OP_DROP_PEER
    OP_ALLOW_SOURCE
    OP_PUT_MEMBER
    OP_DROP_MEMBER
    OP_ADD_SOCKET               # slot: its number; header_id: descriptor; group: family; direct: poll it, too
    OP_DROP_SOCKET
    OP_PEER_MTU                 # slot; group: bytes of the largest IP packet on its path, 0: any
    OP_LOAD                     # load: what takes the place of what there was; that is not touched afterwards

cdef struct Command:
    int op
    uint32_t slot
    uint8_t mac[6]
    uint16_t port
    uint8_t ip[16]              # IPv4 in mapped form
    uint32_t header_id
    uint32_t group
    int direct
    int socket                  # number of the socket by which a peer is reached
    void *load                  # a `Load`, or NULL

cdef struct CommandRing:
    Command *items
    uint32_t mask
    uint32_t head               # written by the writer
    uint32_t tail               # written by the reader

cdef inline bint commands_init(CommandRing *r, uint32_t size) noexcept nogil:
    r.items = <Command *>calloc(size, sizeof(Command))
    r.mask = size - 1
    r.head = r.tail = 0
    return r.items != NULL

cdef inline bint commands_push(CommandRing *r, const Command *c) noexcept nogil:
    """False where the ring is full."""
    cdef uint32_t head = r.head
    if head - n2n_load(&r.tail) > r.mask:
        return False
    r.items[head & r.mask] = c[0]
    n2n_store(&r.head, head + 1)
    return True

cdef inline bint commands_pop(CommandRing *r, Command *c) noexcept nogil:
    cdef uint32_t tail = r.tail
    if tail == n2n_load(&r.head):
        return False
    c[0] = r.items[tail & r.mask]
    n2n_store(&r.tail, tail + 1)
    return True

# ---- control datagrams --------------------------------------------------------------------------

cdef struct Record:             # 24 bytes in front of each datagram, all multiples of 8
    uint32_t size               # bytes of the datagram; SKIP: nothing more before the ring's end
    uint16_t port
    uint16_t kind               # DATAGRAM or NOTICE
    uint8_t ip[16]

cdef enum:
    SKIP = 0xFFFFFFFF
    DATAGRAM = 0
    NOTICE = 1                  # six bytes, the address of a peer: the host sends it frames

cdef struct ByteRing:
    uint8_t *bytes
    uint32_t size
    uint32_t head
    uint32_t tail

cdef inline bint bytes_init(ByteRing *r, uint32_t size) noexcept nogil:
    r.bytes = <uint8_t *>calloc(1, size)
    r.size = size
    r.head = r.tail = 0
    return r.bytes != NULL

cdef inline bint bytes_push(ByteRing *r, const uint8_t *data, uint32_t size, const uint8_t *ip, uint16_t port,
                            int kind) noexcept nogil:
    """Copy a datagram or a notice in; False where it does not fit."""
    cdef uint32_t need = <uint32_t>sizeof(Record) + ((size + 7) & ~<uint32_t>7)
    cdef uint32_t head = r.head, room = r.size - (head - n2n_load(&r.tail))
    cdef uint32_t at = head & (r.size - 1), left = r.size - at
    cdef Record *rec
    if left < need:             # does not fit before the end: leave that empty and begin anew
        if room < left + need:
            return False
        (<Record *>(r.bytes + at)).size = <uint32_t>SKIP
        head += left
        at = 0
    elif room < need:
        return False
    rec = <Record *>(r.bytes + at)
    rec.size = size
    rec.port = port
    rec.kind = <uint16_t>kind
    memcpy(rec.ip, ip, 16)
    memcpy(r.bytes + at + sizeof(Record), data, size)
    n2n_store(&r.head, head + need)
    return True

cdef inline Record *bytes_peek(ByteRing *r) noexcept nogil:
    """The oldest record (its datagram lies behind it), or NULL."""
    cdef uint32_t at
    cdef Record *rec
    while r.tail != n2n_load(&r.head):
        at = r.tail & (r.size - 1)
        rec = <Record *>(r.bytes + at)
        if rec.size != <uint32_t>SKIP:
            return rec
        n2n_store(&r.tail, r.tail + r.size - at)
    return NULL

cdef inline void bytes_pop(ByteRing *r, const Record *rec) noexcept nogil:
    n2n_store(&r.tail, r.tail + <uint32_t>sizeof(Record) + ((rec.size + 7) & ~<uint32_t>7))
