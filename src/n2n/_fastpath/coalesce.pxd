"""Gluing consecutive frames of one flow into a super-frame, written to the TAP in one call.

The reverse of segment.pxd: only what the kernel could have cut from one super-frame is glued, so that
cutting it again gives the same frames (a property test holds that).  Hence: same Ethernet, IP and
transport headers but for length, id, sequence and checksum; next sequence; same acknowledgement,
window and options; IPv4 id one higher each, or the same in all where DF is set; equal payload sizes,
only the last may be shorter; PSH and FIN end the run; SYN, RST, URG and CWR are never glued.  A
frame whose checksums are wrong is never glued: it goes to the kernel as it came, to be refused there.

Frames stay where they were received; a run is a list of pieces for one gathering write.  Runs of
several flows are open at a time; what is not glued first closes the run of its own flow, or of all
flows where it does not tell its flow: nothing overtakes within one.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memset

from n2n._fastpath.checksum cimport finish_ip_header, n2n_fold, n2n_raw16, n2n_set_raw16, n2n_sum, pseudo_sum
from n2n._fastpath.frames cimport (
    GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, PROTO_TCP, TCP_ACK, TCP_ECE, TCP_FIN, TCP_PSH, VNET_NEEDS_CSUM, Layers,
    VirtioHeader, find_layers,
)
from n2n._fastpath.linux cimport iovec
from n2n._fastpath.wire cimport get16, get32, put16

cdef enum:
    RUNS = 8                    # flows open at a time
    PIECES = 64                 # frames in a run: 64 KiB of full ones are 46
    MAX_IP = 65535

cdef struct Run:
    uint8_t *frame              # the first one; its headers become the super-frame's
    Layers at
    int frame_size
    int count
    int mss
    int total                   # payload bytes
    uint32_t next_seq
    uint32_t first_id
    bint fixed_id
    uint8_t last_flags
    bint closed
    VirtioHeader virtio
    iovec iov[66]               # virtio header, first frame, then payloads

cdef inline bint checksums_hold(const uint8_t *frame, const Layers *o) noexcept nogil:
    cdef int l4_size = o.end - o.l4
    if not o.v6 and n2n_fold(n2n_sum(frame + o.l3, 20)) != 0xFFFF:
        return False
    if o.proto != PROTO_TCP and n2n_raw16(frame + o.l4 + 6) == 0:
        return False            # UDP without a checksum: gluing would give it one
    return n2n_fold(pseudo_sum(frame + o.l3, o.v6, o.proto, l4_size) + n2n_sum(frame + o.l4, l4_size)) == 0xFFFF

cdef inline bint can_begin(const uint8_t *frame, const Layers *o) noexcept nogil:
    """May something be glued to this frame, or it to something?"""
    cdef uint8_t flags
    if o.end <= o.payload:
        return False
    if o.proto == PROTO_TCP:
        flags = frame[o.l4 + 13]
        if flags & ~<uint8_t>(TCP_ACK | TCP_PSH | TCP_FIN | TCP_ECE) or not flags & TCP_ACK or frame[o.l4 + 12] & 0x0F:
            return False
    return checksums_hold(frame, o)

cdef inline bint same_flow(const Run *r, const uint8_t *frame, const Layers *o) noexcept nogil:
    """Same addresses, protocol and ports."""
    if r.at.v6 != o.v6 or r.at.proto != o.proto or get32(r.frame + r.at.l4) != get32(frame + o.l4):
        return False
    if o.v6:
        return memcmp(r.frame + 22, frame + 22, 32) == 0
    return memcmp(r.frame + 26, frame + 26, 8) == 0

cdef inline bint id_fits(const Run *r, const uint8_t *frame, bint *fixed) noexcept nogil:
    cdef uint32_t ident = get16(frame + 18)
    cdef bint df = frame[20] & 0x40
    fixed[0] = r.fixed_id
    if r.count == 1 and df and ident == r.first_id:
        fixed[0] = True
        return True
    if r.count > 1 and r.fixed_id:
        return ident == r.first_id
    return ident == (r.first_id + <uint32_t>r.count) & 0xFFFF

cdef inline bint fits_run(const Run *r, const uint8_t *frame, const Layers *o, bint *fixed) noexcept nogil:
    """Is this frame what comes next in the run?"""
    cdef int n = o.end - o.payload
    cdef const uint8_t *a = r.frame
    fixed[0] = r.fixed_id
    if r.closed or n > r.mss or r.count >= PIECES or o.payload != r.at.payload:
        return False
    if (r.at.payload - 14 - (40 if o.v6 else 0)) + r.total + n > MAX_IP or memcmp(a, frame, 14):
        return False
    if o.v6:
        # Version, class, flow label; hop limit (addresses and protocol were compared).
        if memcmp(a + 14, frame + 14, 4) or a[21] != frame[21]:
            return False
    elif a[15] != frame[15] or a[22] != frame[22] or memcmp(a + 20, frame + 20, 2) or not id_fits(r, frame, fixed):
        return False
    if o.proto != PROTO_TCP:
        return True
    a += o.l4
    frame += o.l4
    if get32(frame + 4) != r.next_seq or memcmp(a + 8, frame + 8, 4) or a[12] != frame[12]:
        return False
    if (a[13] ^ frame[13]) & ~<uint8_t>(TCP_PSH | TCP_FIN):
        return False
    if memcmp(a + 14, frame + 14, 2) or memcmp(a + 18, frame + 18, 2):
        return False
    return memcmp(a + 20, frame + 20, o.payload - o.l4 - 20) == 0

cdef inline void run_begin(Run *r, uint8_t *frame, const Layers *o) noexcept nogil:
    cdef int n = o.end - o.payload
    r.frame = frame
    r.at = o[0]
    r.frame_size = o.end
    r.count = 1
    r.mss = n
    r.total = n
    r.first_id = 0 if o.v6 else get16(frame + 18)
    r.fixed_id = False
    r.closed = False
    r.iov[1].iov_base = frame
    r.iov[1].iov_len = o.end
    r.last_flags = 0
    if o.proto == PROTO_TCP:
        r.next_seq = get32(frame + o.l4 + 4) + <uint32_t>n
        r.last_flags = frame[o.l4 + 13]
        r.closed = (r.last_flags & (TCP_PSH | TCP_FIN)) != 0

cdef inline void run_add(Run *r, uint8_t *frame, const Layers *o, bint fixed) noexcept nogil:
    cdef int n = o.end - o.payload
    r.fixed_id = fixed
    r.count += 1
    r.total += n
    r.iov[r.count].iov_base = frame + o.payload
    r.iov[r.count].iov_len = n
    r.closed = n < r.mss
    if o.proto == PROTO_TCP:
        r.next_seq += <uint32_t>n
        r.last_flags = frame[o.l4 + 13]
        r.closed = r.closed or (r.last_flags & (TCP_PSH | TCP_FIN)) != 0

cdef inline int run_finish(Run *r) noexcept nogil:
    """Make the headers those of the whole, and the virtio header tell how to cut it.  Number of pieces to write."""
    cdef uint8_t *ip
    cdef uint8_t *l4
    cdef int l4_size
    memset(&r.virtio, 0, sizeof(VirtioHeader))
    r.iov[0].iov_base = &r.virtio
    r.iov[0].iov_len = sizeof(VirtioHeader)
    if r.count == 1:
        return 2                # untouched, and the kernel verifies it
    ip = r.frame + r.at.l3
    l4 = r.frame + r.at.l4
    l4_size = r.at.payload - r.at.l4 + r.total
    if r.at.v6:
        put16(ip + 4, l4_size)
    else:
        put16(ip + 2, 20 + l4_size)
        finish_ip_header(ip, 20)
    r.virtio.flags = VNET_NEEDS_CSUM
    r.virtio.hdr_len = <uint16_t>r.at.payload
    r.virtio.gso_size = <uint16_t>r.mss
    r.virtio.csum_start = <uint16_t>r.at.l4
    if r.at.proto == PROTO_TCP:
        l4[13] = r.last_flags
        r.virtio.gso_type = <uint8_t>(GSO_TCPV6 if r.at.v6 else GSO_TCPV4)
        r.virtio.csum_offset = 16
    else:
        put16(l4 + 4, l4_size)
        r.virtio.gso_type = <uint8_t>GSO_UDP_L4
        r.virtio.csum_offset = 6
    n2n_set_raw16(l4 + r.virtio.csum_offset, n2n_fold(pseudo_sum(ip, r.at.v6, r.at.proto, l4_size)))
    return r.count + 1
