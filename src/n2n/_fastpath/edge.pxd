"""An edge's two directions: frame -> datagram, datagram -> frame."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from n2n._fastpath.aead cimport NONCE_SIZE, SEAL_OVERHEAD, TAG_SIZE, next_nonce, open_sealed, seal
from n2n._fastpath.atomic cimport n2n_add, n2n_bump64, n2n_put64
from n2n._fastpath.checksum cimport finish_checksum
from n2n._fastpath.coalesce cimport RUNS, Run, can_begin, fits_run, run_add, run_begin, run_finish, same_flow
from n2n._fastpath.frames cimport GSO_NONE, PROTO_TCP, VNET_NEEDS_CSUM, VNET_SIZE, Layers, VirtioHeader, find_layers
from n2n._fastpath.linux cimport EAGAIN, EBADFD, EINTR, errno, read, writev
from n2n._fastpath.load cimport is_load, load_receive
from n2n._fastpath.mss cimport clamp_mss
from n2n._fastpath.ring cimport DATAGRAM, NOTICE, bytes_push
from n2n._fastpath.segment cimport Cut, cut_begin, cut_count, cut_make
from n2n._fastpath.state cimport (
    ARENA_SIZE, Addr, BATCH, HEADROOM, Key, MAX_PING, NOTICE_EVERY, Peer, SLOT_SIZE, State, TAILROOM, TAP_BYTES,
    TELL_EVERY, TX_QUEUE, bump, bump_by, endpoint_key, mac_key, tx_slot, work_slot,
)
from n2n._fastpath.table cimport same_key, table_get
from n2n._fastpath.toobig cimport ANSWER_SIZE, tell_too_big
from n2n._fastpath.transmit cimport tx_flush, tx_queue
from n2n._fastpath.verdict cimport *
from n2n._fastpath.wire cimport *
from n2n._fastpath.zstd cimport zstd_deflate, zstd_inflate

cdef inline void to_control(State *s, const uint8_t *data, int size, const uint8_t *ip, uint16_t port) noexcept nogil:
    """Hand a datagram to Python."""
    if bytes_push(&s.control, data, <uint32_t>size, ip, port, DATAGRAM):
        bump(s, V_CONTROL)
        s.notify = True
    else:
        bump(s, V_DROP_CONTROL_FULL)

# ---- out: TAP -> UDP ----------------------------------------------------------------------------

cdef struct Target:
    Addr *to
    Peer *peer                  # NULL: flooded by the supernode

cdef inline void notice(State *s, Peer *p) noexcept nogil:
    """Tell Python that the host sends frames to this peer.  One that finds the ring full is lost and counted; the next
    is due after the same time."""
    cdef uint8_t nowhere[16]
    memset(nowhere, 0, 16)
    p.noticed = s.now
    if bytes_push(&s.control, p.mac, MAC_SIZE, nowhere, 0, NOTICE):
        bump(s, V_NOTICE)
        s.notify = True
    else:
        bump(s, V_DROP_CONTROL_FULL)

cdef inline bint find_target(State *s, const uint8_t *frame, int size, Target *t) noexcept nogil:
    """Where a frame goes; False (and counted) where it goes nowhere."""
    cdef Key key
    cdef int slot = -1
    t.peer = NULL
    t.to = &s.supernode
    if size < ETH_SIZE:
        bump(s, V_DROP_FRAME_SHORT)
        return False
    if not frame[0] & 1:
        key = mac_key(get_mac(frame), 0)
        slot = table_get(&s.by_mac, &key)
    if slot >= 0:
        t.peer = &s.peers[slot]
        if s.now - t.peer.noticed >= <uint64_t>NOTICE_EVERY:
            notice(s, t.peer)
        if t.peer.direct and t.peer.addr.size:
            t.to = &t.peer.addr
            return True
    if not s.has_supernode:
        bump(s, V_DROP_NO_SUPERNODE)
        return False
    return True

cdef inline void emit(State *s, const Target *t, uint8_t *frame, int size) noexcept nogil:
    """Transform a frame where it lies (HEADROOM before it, TAILROOM behind it) and queue it."""
    cdef uint8_t dest[6]
    cdef uint8_t *start = frame
    cdef uint8_t *out
    cdef int n = size
    if size > s.frame_limit:
        bump(s, V_DROP_FRAME_LONG)
        return
    memcpy(dest, frame, MAC_SIZE)       # sealing writes over the frame
    if s.compress:
        out = work_slot(s)
        # What does not compress grows by some 15 bytes; TAILROOM holds them beside the tag.
        n = zstd_deflate(&s.zstd, out, size + TAILROOM - TAG_SIZE, frame, size)
        if n < 0:
            bump(s, V_DROP_ZSTD)
            return
        memcpy(frame, out, n)
    if s.sealed:
        start -= NONCE_SIZE
        if not next_nonce(&s.cipher, start) or not seal(&s.cipher, frame, n):
            bump(s, V_DROP_UNSEALED)
            return
        n += SEAL_OVERHEAD
    if t.peer != NULL and s.vfuze:
        start -= VFUZE_SIZE
        put_vfuze(start, dest)
        n += VFUZE_SIZE
    else:
        # What has no single known receiver must not go as VFuze: supernodes relay that to known targets only.
        start -= PROTOV_SIZE
        put_protov(start, TYPE_DATA, s.community, s.mac, dest, 0, n2n_add(&s.sequence, 1) & 0xFFFF, s.wall, 0, TTL)
        n += PROTOV_SIZE
    if t.peer == NULL:
        bump(s, V_TX_FLOOD)
    else:
        bump(s, V_TX_RELAY if t.to == &s.supernode else V_TX_DIRECT)
        n2n_bump64(&t.peer.tx_frames, 1)
        n2n_bump64(&t.peer.tx_bytes, size)
    tx_queue(s, start, n, 0, t.to)

cdef inline void tell_host(State *s, Peer *p, const uint8_t *frame, int size) noexcept nogil:
    """A frame is too large for the peer's path: let its sender know.  It is sent all the same: it may pass in
    fragments."""
    cdef uint8_t answer[ANSWER_SIZE]
    cdef int n
    if s.now - p.told_too_big < <uint64_t>TELL_EVERY:
        return
    n = tell_too_big(frame, size, p.mtu, answer)
    if n:
        p.told_too_big = s.now
        bump(s, V_TOLD_TOO_BIG)
        tap_write(s, answer, n)

cdef inline void emit_super(State *s, const Target *t, const uint8_t *frame, int size,
                            const VirtioHeader *v) noexcept nogil:
    """Cut a super-frame into the arena, frame by frame."""
    cdef Cut c
    cdef int i, n, need
    bump(s, V_SUPER_RX)
    if not cut_begin(&c, frame, size, v):
        bump(s, V_DROP_SUPER)
        return
    if t.peer != NULL and t.peer.mtu and c.header + c.mss > t.peer.mtu + ETH_SIZE:
        tell_host(s, t.peer, frame, size)
    need = (HEADROOM + c.header + c.mss + TAILROOM + 63) & ~63
    if need > ARENA_SIZE:
        bump(s, V_DROP_SUPER)
        return
    for i in range(cut_count(&c)):
        if s.tx_n == 0:
            s.arena_used = 0
        if s.tx_n == TX_QUEUE or s.arena_used + need > ARENA_SIZE:
            tx_flush(s)
            s.arena_used = 0
        n = cut_make(&c, i, s.arena + s.arena_used + HEADROOM)
        emit(s, t, s.arena + s.arena_used + HEADROOM, n)
        s.arena_used += need

cdef inline void fit(State *s, uint8_t *frame, int size, int mtu, bint partial) noexcept nogil:
    """A connection that begins here shall fit the path."""
    if clamp_mss(frame, size, mtu, partial):
        bump(s, V_MSS_CLAMPED)

cdef inline int edge_send(State *s, uint8_t *frame, int size, const VirtioHeader *v) noexcept nogil:
    """Send one frame or super-frame that lies in a slot; how many bytes it had."""
    cdef Target t
    if not find_target(s, frame, size, &t):
        return size
    if v.gso_type != GSO_NONE:
        emit_super(s, &t, frame, size, v)       # data: no SYN comes so
        return size
    if t.peer != NULL and t.peer.mtu:
        fit(s, frame, size, t.peer.mtu, v.flags & VNET_NEEDS_CSUM != 0)
        if size > t.peer.mtu + ETH_SIZE:
            tell_host(s, t.peer, frame, size)
    if v.flags & VNET_NEEDS_CSUM:
        if <int>v.csum_start + v.csum_offset + 2 > size:
            bump(s, V_DROP_SUPER)
            return size
        finish_checksum(frame + v.csum_start, size - v.csum_start, v.csum_offset)
    emit(s, &t, frame, size)
    return size

cdef inline int tap_burst(State *s) noexcept nogil:
    """Read frames until there are no more or the batch is full, and send them.  How many there were; where the
    device is gone, `fatal` is set."""
    cdef int n = 0, bytes = 0
    cdef int head = VNET_SIZE if s.vnet else 0
    cdef ssize_t got
    cdef uint8_t *frame
    cdef VirtioHeader v
    memset(&v, 0, sizeof(v))
    while n < BATCH and bytes < TAP_BYTES:
        frame = tx_slot(s, n) + HEADROOM
        got = read(s.tap_fd, frame - head, SLOT_SIZE - HEADROOM - TAILROOM)
        if got < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                s.fatal = errno
            break
        if got <= head:
            s.fatal = EBADFD
            break
        if head:
            memcpy(&v, frame - head, VNET_SIZE)
        got -= head
        n += 1
        bump(s, V_TAP_RX)
        bump_by(s, V_TAP_RX_BYTES, got)
        bytes += edge_send(s, frame, <int>got, &v)
    tx_flush(s)
    return n

# ---- in: UDP -> TAP -----------------------------------------------------------------------------

cdef inline void tap_write_run(State *s, Run *r) noexcept nogil:
    """Write a run of one or more frames in one call."""
    cdef int pieces = run_finish(r), skip = 0 if s.vnet else 1
    cdef ssize_t n
    cdef int size = r.frame_size + r.total - r.mss
    while True:
        n = writev(s.tap_fd, &r.iov[skip], pieces - skip)
        if n >= 0:
            bump_by(s, V_TAP_TX, r.count)
            bump_by(s, V_TAP_TX_BYTES, size)
            if r.count > 1:
                bump(s, V_SUPER_TX)
        elif errno == EINTR:
            continue
        else:
            n2n_bump64(&s.count[V_DROP_TAP_FULL if errno == EAGAIN else V_DROP_TAP_ERROR], r.count)
        return

cdef inline void tap_flush(State *s) noexcept nogil:
    """Write all open runs, the oldest first."""
    cdef int i
    for i in range(s.runs_open):
        tap_write_run(s, &s.runs[s.run_order[i]])
    s.runs_open = 0

cdef inline void close_run(State *s, int index) noexcept nogil:
    """Write one open run and close the gap."""
    cdef int i, slot = s.run_order[index]
    tap_write_run(s, &s.runs[slot])
    s.runs_open -= 1
    for i in range(index, s.runs_open):
        s.run_order[i] = s.run_order[i + 1]
    s.run_order[s.runs_open] = slot

cdef inline void tap_write(State *s, uint8_t *frame, int size) noexcept nogil:
    """Write a frame, now or glued to its neighbours at the end of the batch."""
    cdef Layers o
    cdef Run *r
    cdef Run single
    cdef int i, found = -1
    cdef bint glue, fixed = False, known = s.coalesce and find_layers(frame, size, &o)
    if known:
        for i in range(s.runs_open):
            if same_flow(&s.runs[s.run_order[i]], frame, &o):
                found = i
                break
        glue = (o.proto == PROTO_TCP or s.uso) and can_begin(frame, &o)
        if found >= 0:
            r = &s.runs[s.run_order[found]]
            if glue and fits_run(r, frame, &o, &fixed):
                run_add(r, frame, &o, fixed)
                return
            close_run(s, found)
        if glue:
            if s.runs_open == RUNS:
                close_run(s, 0)
            run_begin(&s.runs[s.run_order[s.runs_open]], frame, &o)
            s.runs_open += 1
            return
    elif s.runs_open:
        tap_flush(s)            # it may belong to any of them (a fragment, say)
    single.frame = frame
    single.frame_size = size
    single.count = 1
    single.mss = single.total = 0
    single.iov[1].iov_base = frame
    single.iov[1].iov_len = size
    tap_write_run(s, &single)

cdef inline bint is_from_supernode(State *s, const Key *source) noexcept nogil:
    return s.has_supernode and same_key(source, &s.supernode_key)

cdef inline bint frame_is_ours(State *s, const uint8_t *frame, Peer *sender,
                               const uint8_t *header_source) noexcept nogil:
    """May this frame enter our TAP?  `sender` is known where it came directly, `header_source` where a ProtoV
    header names one; with neither the supernode vouches for it."""
    cdef uint64_t source = get_mac(frame + MAC_SIZE)
    if frame[MAC_SIZE] & 1 or source == s.mac48:
        bump(s, V_DROP_SPOOFED)
        return False
    if s.bridge:
        return True
    if (sender != NULL and source != sender.mac48) or (header_source != NULL and source != get_mac(header_source)):
        bump(s, V_DROP_SPOOFED)
        return False
    if not frame[0] & 1 and get_mac(frame) != s.mac48:
        bump(s, V_DROP_DESTINATION)
        return False
    return True

cdef inline void edge_data(State *s, uint8_t *payload, int size, const Key *source,
                           const uint8_t *header_source) noexcept nogil:
    """Open, decompress, check, write to the TAP."""
    cdef Peer *sender = NULL
    cdef uint8_t *out
    cdef int slot, n = size
    cdef Key key
    slot = table_get(&s.by_endpoint, source)
    if slot >= 0:
        sender = &s.peers[slot]
    if is_from_supernode(s, source):
        sender = NULL
    elif sender == NULL:
        bump(s, V_DROP_STRANGER)
        return
    if s.sealed:
        n = open_sealed(&s.cipher, payload, n)
        if n < 0:
            bump(s, V_DROP_UNSEALED)
            return
        payload += NONCE_SIZE
    if s.compress:
        out = work_slot(s) + HEADROOM
        n = zstd_inflate(&s.zstd, out, s.frame_limit, payload, n)
        if n < 0:
            bump(s, V_DROP_ZSTD)
            return
        payload = out
    if n < ETH_SIZE:
        bump(s, V_DROP_FRAME_SHORT)
        return
    if n > s.frame_limit:
        bump(s, V_DROP_FRAME_LONG)
        return
    if header_source == NULL and get_mac(payload) != s.mac48:
        # A short header repeats the frame's destination.  What was relayed under one names no sender, and this is what
        # keeps sealed bytes from being taken for a frame where this edge alone has no passphrase.
        bump(s, V_DROP_DESTINATION)
        return
    if not frame_is_ours(s, payload, sender, header_source):
        return
    if sender != NULL:
        n2n_put64(&sender.last_direct, s.now)
    else:                       # relayed: credit whom the frame names, if we know it
        key = mac_key(get_mac(payload + MAC_SIZE), 0)
        slot = table_get(&s.by_mac, &key)
        sender = &s.peers[slot] if slot >= 0 else NULL
    if sender != NULL:
        n2n_bump64(&sender.rx_frames, 1)
        n2n_bump64(&sender.rx_bytes, n)
        n2n_put64(&sender.last_rx, s.now)
        if sender.mtu:
            fit(s, payload, n, sender.mtu, False)
    tap_write(s, payload, n)

cdef inline bint edge_takes(int kind) noexcept nogil:
    return (kind == TYPE_PEER_INFO or kind == TYPE_PING or kind == TYPE_FULL_STATE or kind == TYPE_LEASES
            or kind == TYPE_PUBLIC_KEY or kind == TYPE_REGISTER_RESPONSE or kind == TYPE_RETRY)

cdef inline void edge_receive(State *s, uint8_t *data, int size, const uint8_t *ip, uint16_t port) noexcept nogil:
    """Decide what becomes of one datagram."""
    cdef Key source = endpoint_key(ip, port)
    if data[0] == VFUZE_MARK:
        if size < VFUZE_SIZE:
            bump(s, V_DROP_SHORT)
        elif not s.vfuze:
            bump(s, V_DROP_VFUZE_OFF)
        elif get_mac(data + 1) != s.mac48:
            bump(s, V_DROP_DESTINATION)
        else:
            edge_data(s, data + VFUZE_SIZE, size - VFUZE_SIZE, &source, NULL)
    elif data[0] != PROTOV_VERSION:
        bump(s, V_DROP_FOREIGN)
    elif size < PROTOV_SIZE:
        bump(s, V_DROP_SHORT)
    elif data[OFF_TYPE] == TYPE_DATA:
        edge_data(s, data + PROTOV_SIZE, size - PROTOV_SIZE, &source, data + OFF_SOURCE)
    elif not edge_takes(data[OFF_TYPE]):
        bump(s, V_DROP_TYPE)
    elif data[OFF_TYPE] != TYPE_PING and not is_from_supernode(s, &source):
        bump(s, V_DROP_STRANGER)        # nobody else has a say in these; the ring to Python is for honest ones
    elif data[OFF_TYPE] == TYPE_PING and size > MAX_PING:
        bump(s, V_DROP_CONTROL_LONG)
    elif data[OFF_TYPE] == TYPE_PING and is_load(data, size):
        load_receive(s, data, size, &source)
    else:
        to_control(s, data, size, ip, port)
