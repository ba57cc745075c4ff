"""Telling a host that its packet is too large for the path (RFC 1191, RFC 8201): the answer that a router would give.

It comes from the packet's destination, as from the tunnels of Linux: a layer-2 network has no router of its own.  What
is said is what hosts act upon: a connection that is open goes on with smaller segments, UDP is cut by its sender.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from n2n._fastpath.checksum cimport finish_checksum, finish_ip_header, n2n_fold, n2n_set_raw16, pseudo_sum
from n2n._fastpath.frames cimport ETHERTYPE_IPV4, ETHERTYPE_IPV6, find_l3
from n2n._fastpath.wire cimport ETH_SIZE, MAC_SIZE, put16, put32

cdef enum:
    PROTO_ICMP = 1
    PROTO_ICMPV6 = 58
    QUOTED = 512                # bytes of the packet that are repeated: more than every host looks at
    ANSWER_SIZE = 640           # a frame's header with two tags, the IP and ICMP headers, and QUOTED

cdef inline bint is_icmp_error(int kind) noexcept nogil:
    """Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122, 3.2.2)."""
    return kind == 3 or kind == 4 or kind == 5 or kind == 11 or kind == 12

cdef inline bint wants_ipv4(const uint8_t *ip, int size) noexcept nogil:
    """May this packet be answered?  Only one that must not be fragmented, from one host to one host, and no error."""
    cdef int head
    if size < 20 or ip[0] >> 4 != 4:
        return False
    head = (ip[0] & 15) * 4
    if head < 20 or size < head + 8 or not ip[6] & 0x40 or (ip[6] & 0x1F) | ip[7]:
        return False
    if ip[12] == 0 or ip[12] >= 224 or ip[16] >= 224:
        return False
    return not (ip[9] == PROTO_ICMP and is_icmp_error(ip[head]))

cdef inline bint wants_ipv6(const uint8_t *ip, int size) noexcept nogil:
    cdef int i, sum = 0
    if size < 48 or ip[0] >> 4 != 6:
        return False
    for i in range(8, 24):
        sum |= ip[i]
    if sum == 0 or ip[8] == 0xFF or ip[24] == 0xFF:
        return False
    return not (ip[6] == PROTO_ICMPV6 and ip[40] < 128)

cdef inline int tell_too_big(const uint8_t *frame, int size, int mtu, uint8_t *out) noexcept nogil:
    """Write to `out` (ANSWER_SIZE bytes) the frame that tells the sender of this one: packets of at most `mtu` bytes.

    `mtu` is that of untagged frames; tags take of it.  The size of the answer; 0: none is due."""
    cdef uint32_t kind = 0
    cdef int l3 = find_l3(frame, size, &kind), quoted, n
    cdef const uint8_t *ip
    cdef uint8_t *to
    cdef uint8_t *icmp
    if l3 < 0 or frame[MAC_SIZE] & 1:
        return 0
    ip = frame + l3
    mtu -= l3 - ETH_SIZE
    memcpy(out, frame + MAC_SIZE, MAC_SIZE)
    memcpy(out + MAC_SIZE, frame, MAC_SIZE)
    memcpy(out + 2 * MAC_SIZE, frame + 2 * MAC_SIZE, l3 - 2 * MAC_SIZE)
    to = out + l3
    quoted = size - l3 if size - l3 < QUOTED else <int>QUOTED
    if kind == ETHERTYPE_IPV4 and wants_ipv4(ip, size - l3):
        icmp = to + 20
        n = 8 + quoted
        memset(to, 0, 28)
        to[0], to[8], to[9] = 0x45, 64, PROTO_ICMP
        put16(to + 2, 20 + n)
        memcpy(to + 12, ip + 16, 4)
        memcpy(to + 16, ip + 12, 4)
        finish_ip_header(to, 20)
        icmp[0], icmp[1] = 3, 4                 # unreachable: fragmentation needed
        put16(icmp + 6, mtu)
    elif kind == ETHERTYPE_IPV6 and wants_ipv6(ip, size - l3):
        icmp = to + 40
        n = 8 + quoted
        memset(to, 0, 48)
        to[0], to[6], to[7] = 0x60, PROTO_ICMPV6, 64
        put16(to + 4, n)
        memcpy(to + 8, ip + 24, 16)
        memcpy(to + 24, ip + 8, 16)
        icmp[0] = 2                             # packet too big
        put32(icmp + 4, mtu)
        n2n_set_raw16(icmp + 2, n2n_fold(pseudo_sum(to, True, PROTO_ICMPV6, n)))
    else:
        return 0
    memcpy(icmp + 8, ip, quoted)
    finish_checksum(icmp, n, 2)
    return <int>(icmp - out) + n
