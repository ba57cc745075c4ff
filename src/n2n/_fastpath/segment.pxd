"""Cutting a super-frame (TSO, USO) that the kernel gave us into the frames that it stands for.

What the kernel itself would do (net/ipv4/tcp_offload.c, udp_offload.c, linux 6.x): every frame gets the
headers; IP length, IPv4 id (+1 each) and header checksum are set anew; TCP's sequence goes on, FIN and
PSH stay on the last frame only, CWR on the first only; each checksum is completed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from n2n._fastpath.checksum cimport finish_checksum, finish_ip_header, n2n_fold, n2n_raw16, n2n_set_raw16, net16
from n2n._fastpath.frames cimport (
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, TCP_CWR, TCP_FIN, TCP_PSH, VirtioHeader,
    find_l3,
)
from n2n._fastpath.wire cimport get16, get32, put16, put32

cdef struct Cut:                # how a super-frame is cut
    const uint8_t *frame
    int l3
    int l4
    int header                  # bytes of all headers together
    int end                     # bytes of the super-frame
    int mss                     # payload bytes of every frame but the last
    int csum                    # offset of the checksum field in the transport header
    bint v6
    bint tcp
    uint64_t pseudo             # sum of the pseudo-header without its length
    uint32_t ip_id
    uint32_t seq

cdef inline bint cut_begin(Cut *c, const uint8_t *frame, int size, const VirtioHeader *v) noexcept nogil:
    """Understand a super-frame; False where its header makes no sense."""
    cdef uint32_t kind = 0
    cdef int gso = v.gso_type & ~<int>GSO_ECN
    c.frame = frame
    c.end = size
    c.l4 = v.csum_start
    c.mss = v.gso_size
    c.csum = v.csum_offset
    c.tcp = gso == GSO_TCPV4 or gso == GSO_TCPV6
    if not c.tcp and gso != GSO_UDP_L4:
        return False
    c.l3 = find_l3(frame, size, &kind)
    if c.l3 < 0 or c.mss == 0 or (kind != ETHERTYPE_IPV4 and kind != ETHERTYPE_IPV6):
        return False
    c.v6 = kind == ETHERTYPE_IPV6
    if c.l4 < c.l3 + (40 if c.v6 else 20) or c.l4 + (20 if c.tcp else 8) > size or c.csum != (16 if c.tcp else 6):
        return False
    c.header = c.l4 + ((frame[c.l4 + 12] >> 4) * 4 if c.tcp else 8)
    if c.header >= size or (c.tcp and c.header < c.l4 + 20) or c.header > 512:
        return False
    # The field holds the pseudo-header's sum with the length of the whole: take that length out again.
    c.pseudo = n2n_raw16(frame + c.l4 + c.csum)
    c.pseudo += <uint32_t>0xFFFF ^ net16(<uint32_t>(size - c.l4))
    c.ip_id = 0 if c.v6 else get16(frame + c.l3 + 4)
    c.seq = get32(frame + c.l4 + 4) if c.tcp else 0
    return True

cdef inline int cut_count(const Cut *c) noexcept nogil:
    return (c.end - c.header + c.mss - 1) // c.mss

cdef inline int cut_make(const Cut *c, int index, uint8_t *out) noexcept nogil:
    """Write frame number `index` to `out`; its size."""
    cdef int at = index * c.mss, n = c.end - c.header - at, l4_size
    cdef bint last = n <= c.mss
    cdef uint8_t *ip = out + c.l3
    cdef uint8_t *l4 = out + c.l4
    if not last:
        n = c.mss
    memcpy(out, c.frame, c.header)
    memcpy(out + c.header, c.frame + c.header + at, n)
    l4_size = c.header - c.l4 + n
    if c.v6:
        put16(ip + 4, c.l4 - c.l3 - 40 + l4_size)
    else:
        put16(ip + 2, c.l4 - c.l3 + l4_size)
        put16(ip + 4, c.ip_id + index)
        finish_ip_header(ip, c.l4 - c.l3)
    if c.tcp:
        put32(l4 + 4, c.seq + <uint32_t>at)
        if index:
            l4[13] &= ~<uint8_t>TCP_CWR
        if not last:
            l4[13] &= ~<uint8_t>(TCP_FIN | TCP_PSH)
    else:
        put16(l4 + 4, l4_size)
    n2n_set_raw16(l4 + c.csum, n2n_fold(c.pseudo + net16(l4_size)))
    finish_checksum(l4, l4_size, c.csum)
    return c.header + n
