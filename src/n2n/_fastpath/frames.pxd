"""Finding the transport header of a frame, as far as segmenting and coalescing need it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from n2n._fastpath.wire cimport get16, get32

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_QINQ = 0x88A8
    PROTO_TCP = 6
    PROTO_UDP = 17
    TCP_FIN = 0x01
    TCP_PSH = 0x08
    TCP_ACK = 0x10
    TCP_ECE = 0x40
    TCP_CWR = 0x80

cdef struct VirtioHeader:       # virtio_net_hdr, 10 bytes, in the host's byte order (linux/virtio_net.h)
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset

cdef enum:
    VNET_SIZE = 10
    VNET_NEEDS_CSUM = 1
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80

cdef struct Layers:
    int l3                      # offset of the IP header
    int l4                      # offset of the transport header
    int payload                 # offset of what it carries
    int end                     # offset behind the IP packet (frames may carry padding)
    bint v6
    uint8_t proto

cdef inline int find_l3(const uint8_t *frame, int size, uint32_t *ethertype) noexcept nogil:
    """Offset of what the frame carries, behind at most two VLAN tags; -1: too short."""
    cdef int at = 12, tags = 0
    while True:
        if size < at + 2:
            return -1
        ethertype[0] = get16(frame + at)
        if (ethertype[0] != ETHERTYPE_VLAN and ethertype[0] != ETHERTYPE_QINQ) or tags == 2:
            return at + 2
        at += 4
        tags += 1

cdef inline bint find_layers(const uint8_t *frame, int size, Layers *o) noexcept nogil:
    """TCP or UDP directly in plain IPv4 (no options, no fragment) or IPv6 (no extension header), untagged and
    without padding?  Only such frames are coalesced; all others pass as they are."""
    cdef const uint8_t *ip = frame + 14
    cdef uint32_t kind
    cdef int doff
    if size < 14 + 20 + 8:
        return False
    kind = get16(frame + 12)
    o.l3 = 14
    if kind == ETHERTYPE_IPV4:
        if ip[0] != 0x45 or get16(ip + 6) & 0x3FFF:
            return False
        o.v6, o.proto, o.l4, o.end = False, ip[9], 34, 14 + <int>get16(ip + 2)
    elif kind == ETHERTYPE_IPV6:
        if size < 14 + 40 + 8 or ip[0] >> 4 != 6:
            return False
        o.v6, o.proto, o.l4, o.end = True, ip[6], 54, 54 + <int>get16(ip + 4)
    else:
        return False
    if o.end != size:
        return False
    if o.proto == PROTO_TCP:
        if size < o.l4 + 20:
            return False
        doff = (frame[o.l4 + 12] >> 4) * 4
        if doff < 20 or o.l4 + doff > size:
            return False
        o.payload = o.l4 + doff
        return True
    if o.proto == PROTO_UDP:
        if <int>get16(frame + o.l4 + 4) != size - o.l4:
            return False
        o.payload = o.l4 + 8
        return True
    return False
