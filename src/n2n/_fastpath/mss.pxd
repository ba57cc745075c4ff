"""Lowering the MSS that a TCP connection announces, so that its segments fit a path (RFC 879, RFC 9293 3.7.1).

Only SYN segments carry it. Nothing else of a segment changes; its checksum is corrected by the difference (RFC 1624).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from n2n._fastpath.frames cimport ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTO_TCP, find_l3
from n2n._fastpath.wire cimport get16, put16

cdef enum:
    TCP_SYN = 0x02
    OPTION_END = 0
    OPTION_NOP = 1
    OPTION_MSS = 2
    LEAST_MSS = 64          # no path is so small; a wrong figure must not stop a connection

cdef inline int find_syn(const uint8_t *frame, int size, int *headers) noexcept nogil:
    """Offset of the TCP header of a SYN segment, and the bytes of the IP and TCP headers without options; -1: it is
    none. Fragments but the first, and IPv6 with extension headers, are none."""
    cdef uint32_t kind = 0
    cdef int l3 = find_l3(frame, size, &kind), l4
    if l3 < 0:
        return -1
    if kind == ETHERTYPE_IPV4:
        if size < l3 + 20 or frame[l3] >> 4 != 4 or frame[l3 + 9] != PROTO_TCP or get16(frame + l3 + 6) & 0x1FFF:
            return -1
        l4 = l3 + (frame[l3] & 15) * 4
        if l4 < l3 + 20:
            return -1
        headers[0] = 40
    elif kind == ETHERTYPE_IPV6:
        if size < l3 + 40 or frame[l3] >> 4 != 6 or frame[l3 + 6] != PROTO_TCP:
            return -1
        l4 = l3 + 40
        headers[0] = 60
    else:
        return -1
    if size < l4 + 20 or not frame[l4 + 13] & TCP_SYN:
        return -1
    return l4

cdef inline void correct_checksum(uint8_t *tcp, int at, uint32_t before, uint32_t after) noexcept nogil:
    """Bytes `at` and `at` + 1 of the segment changed from `before` to `after`: the checksum follows."""
    cdef uint32_t sum
    if at & 1:      # it lies across two of the words that are summed
        before = ((before & 0xFF) << 8) | (before >> 8)
        after = ((after & 0xFF) << 8) | (after >> 8)
    sum = (get16(tcp + 16) ^ 0xFFFF) + (before ^ 0xFFFF) + after
    sum = (sum & 0xFFFF) + (sum >> 16)
    sum = (sum & 0xFFFF) + (sum >> 16)
    put16(tcp + 16, sum ^ 0xFFFF)

cdef inline bint clamp_mss(uint8_t *frame, int size, int mtu, bint partial) noexcept nogil:
    """Let a SYN announce no more than fits IP packets of `mtu` bytes; True if it announced more.

    `partial`: the checksum is completed later (its field holds the pseudo-header's sum only)."""
    cdef int headers = 0, l4 = find_syn(frame, size, &headers), at = 20, end, most
    cdef uint8_t *tcp
    cdef uint32_t before
    if l4 < 0:
        return False
    tcp = frame + l4
    end = (tcp[12] >> 4) * 4
    most = mtu - headers
    if l4 + end > size or most < LEAST_MSS:
        return False
    while at + 1 < end and tcp[at] != OPTION_END:
        if tcp[at] == OPTION_NOP:
            at += 1
            continue
        if tcp[at + 1] < 2 or at + tcp[at + 1] > end:
            return False
        if tcp[at] == OPTION_MSS and tcp[at + 1] == 4:
            before = get16(tcp + at + 2)
            if <int>before <= most:
                return False
            put16(tcp + at + 2, most)
            if not partial:
                correct_checksum(tcp, at + 2, before, most)
            return True
        at += tcp[at + 1]
    return False
