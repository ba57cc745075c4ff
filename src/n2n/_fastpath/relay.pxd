"""A supernode's data plane: who may send, and to whom it goes.  Nothing is opened, nothing is copied."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp

from n2n._fastpath.atomic cimport n2n_bump64
from n2n._fastpath.edge cimport to_control
from n2n._fastpath.state cimport (
    MAX_CONTROL, REPORTS_PER_SECOND, Key, Peer, State, bump, bump_by, endpoint_key, mac_key,
)
from n2n._fastpath.table cimport table_get
from n2n._fastpath.transmit cimport tx_queue
from n2n._fastpath.verdict cimport *
from n2n._fastpath.wire cimport *

cdef inline void relay_one(State *s, uint8_t *data, int size, int segment, Peer *sender, Peer *target) noexcept nogil:
    """To one member: a datagram, or a whole train of `segment`-byte ones."""
    cdef int n = (size + segment - 1) // segment if segment else 1
    n2n_bump64(&sender.rx_frames, n)
    n2n_bump64(&sender.rx_bytes, size)
    n2n_bump64(&target.tx_frames, n)
    n2n_bump64(&target.tx_bytes, size)
    tx_queue(s, data, size, segment, &target.addr)
    bump_by(s, V_RELAYED, n)

cdef inline void relay_flood(State *s, uint8_t *data, int size, Peer *sender) noexcept nogil:
    """To every member of the sender's community but the sender."""
    cdef int at = s.group_head[sender.group] - 1
    cdef Peer *target
    n2n_bump64(&sender.rx_frames, 1)
    n2n_bump64(&sender.rx_bytes, size)
    while at >= 0:
        target = &s.peers[at]
        if target.mac48 != sender.mac48:
            n2n_bump64(&target.tx_frames, 1)
            n2n_bump64(&target.tx_bytes, size)
            tx_queue(s, data, size, 0, &target.addr)
            bump(s, V_RELAYED_FLOOD)
        at = target.next_in_group

cdef inline void relay_report(State *s, uint8_t *data, const uint8_t *ip, uint16_t port) noexcept nogil:
    """Tell Python of an unknown sender, by the header alone and not too often: it will be told to register."""
    cdef uint64_t second = s.now // 1000000000
    if second != s.report_second:
        s.report_second = second
        s.reports = 0
    if s.reports >= REPORTS_PER_SECOND:
        bump(s, V_DROP_UNKNOWN_SENDER)
        return
    s.reports += 1
    to_control(s, data, PROTOV_SIZE, ip, port)

cdef inline void relay_protov(State *s, uint8_t *data, int size, const uint8_t *ip, uint16_t port) noexcept nogil:
    """Data and pings between edges."""
    cdef Key key = mac_key(get_mac(data + OFF_SOURCE), get32(data + OFF_COMMUNITY))
    cdef int slot = table_get(&s.by_mac, &key)
    cdef Peer *sender
    if slot < 0:
        relay_report(s, data, ip, port)
        return
    sender = &s.peers[slot]
    key = mac_key(get_mac(data + OFF_DEST), sender.group)
    slot = table_get(&s.by_target, &key)
    data[OFF_FLAGS] |= FLAG_SUPERNODE
    if slot >= 0:
        relay_one(s, data, size, 0, sender, &s.peers[slot])
    elif data[OFF_TYPE] == TYPE_DATA:
        relay_flood(s, data, size, sender)
    else:
        bump(s, V_DROP_UNKNOWN_TARGET)

cdef inline void relay_vfuze(State *s, uint8_t *data, int size, const uint8_t *ip, uint16_t port) noexcept nogil:
    """The short header names no sender: its endpoint does."""
    cdef Key key = endpoint_key(ip, port)
    cdef int slot = table_get(&s.by_endpoint, &key)
    cdef Peer *sender
    if slot < 0:
        bump(s, V_DROP_STRANGER)
        return
    sender = &s.peers[slot]
    key = mac_key(get_mac(data + 1), sender.group)
    slot = table_get(&s.by_target, &key)
    if slot < 0:
        bump(s, V_DROP_UNKNOWN_TARGET)
    else:
        relay_one(s, data, size, 0, sender, &s.peers[slot])

cdef inline bint supernode_takes(int kind) noexcept nogil:
    return (kind == TYPE_REGISTER or kind == TYPE_UNREGISTER or kind == TYPE_HEARTBEAT or kind == TYPE_LIST_REQUEST
            or kind == TYPE_P2P_STATE or kind == TYPE_FULL_STATE or kind == TYPE_LEASES or kind == TYPE_PUBLIC_KEY)

cdef inline void relay_receive(State *s, uint8_t *data, int size, const uint8_t *ip, uint16_t port) noexcept nogil:
    """Decide what becomes of one datagram."""
    cdef int kind
    if data[0] == VFUZE_MARK:
        if size < VFUZE_SIZE:
            bump(s, V_DROP_SHORT)
        elif not s.vfuze:
            bump(s, V_DROP_VFUZE_OFF)
        else:
            relay_vfuze(s, data, size, ip, port)
        return
    if data[0] != PROTOV_VERSION:
        bump(s, V_DROP_FOREIGN)
        return
    if size < PROTOV_SIZE:
        bump(s, V_DROP_SHORT)
        return
    kind = data[OFF_TYPE]
    if kind == TYPE_DATA or kind == TYPE_PING:
        relay_protov(s, data, size, ip, port)
    elif not supernode_takes(kind):
        bump(s, V_DROP_TYPE)
    elif size > MAX_CONTROL and kind != TYPE_P2P_STATE:
        bump(s, V_DROP_CONTROL_LONG)
    else:
        to_control(s, data, size, ip, port)

# ---- trains -------------------------------------------------------------------------------------

cdef inline bint one_way(const uint8_t *data, int size, int segment) noexcept nogil:
    """Do all segments of a train have the same header, as far as relaying looks at it?"""
    cdef int at = segment
    cdef int need = VFUZE_SIZE if data[0] == VFUZE_MARK else PROTOV_SIZE
    if data[0] != VFUZE_MARK and (data[0] != PROTOV_VERSION or data[OFF_TYPE] != TYPE_DATA):
        return False
    if segment < need:
        return False
    while at < size:
        if size - at < need or data[at] != data[0]:
            return False
        if data[0] == VFUZE_MARK:
            if memcmp(data + at, data, VFUZE_SIZE):
                return False
        elif data[at + OFF_TYPE] != TYPE_DATA or memcmp(data + at + OFF_COMMUNITY, data + OFF_COMMUNITY, 16):
            return False
        at += segment
    return True

cdef inline bint relay_train(State *s, uint8_t *data, int size, int segment, const uint8_t *ip,
                             uint16_t port) noexcept nogil:
    """Forward a train as it came, if all of it goes to one known member; False: it must be taken apart."""
    cdef Key key
    cdef Peer *sender
    cdef int slot, at = 0
    if not s.gso or not one_way(data, size, segment) or (data[0] == VFUZE_MARK and not s.vfuze):
        return False
    if data[0] == VFUZE_MARK:
        key = endpoint_key(ip, port)
        slot = table_get(&s.by_endpoint, &key)
    else:
        key = mac_key(get_mac(data + OFF_SOURCE), get32(data + OFF_COMMUNITY))
        slot = table_get(&s.by_mac, &key)
    if slot < 0:
        return False
    sender = &s.peers[slot]
    key = mac_key(get_mac(data + (1 if data[0] == VFUZE_MARK else OFF_DEST)), sender.group)
    slot = table_get(&s.by_target, &key)
    if slot < 0:
        return False
    if data[0] != VFUZE_MARK:
        while at < size:
            data[at + OFF_FLAGS] |= FLAG_SUPERNODE
            at += segment
    relay_one(s, data, size, segment, sender, &s.peers[slot])
    return True
