"""Carrying out Python's commands: the only code that writes the plane's tables, run by the plane's own thread.

Python hands out the slot numbers; the tables map keys to them.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from n2n._fastpath.atomic cimport n2n_put64, n2n_store
from n2n._fastpath.ring cimport (
    OP_ADD_SOCKET, OP_ALLOW_SOURCE, OP_DROP_MEMBER, OP_DROP_PEER, OP_DROP_SOCKET, OP_LOAD, OP_PEER_MTU, OP_PUT_MEMBER,
    OP_PUT_PEER, OP_SUPERNODE, Command, commands_pop,
)
from n2n._fastpath.state cimport SOURCES, Key, Load, Peer, State, bump, endpoint_key, mac_key, make_addr
from n2n._fastpath.table cimport same_key, table_drop_own, table_get, table_put
from n2n._fastpath.verdict cimport V_DROP_COMMAND
from n2n._fastpath.wire cimport get_mac

cdef inline void clear_peer(Peer *p) noexcept nogil:
    """All but the figures at once; those may be read by Python's threads meanwhile."""
    memset(p, 0, <uint8_t *>&p.tx_frames - <uint8_t *>p)
    n2n_put64(&p.tx_frames, 0)
    n2n_put64(&p.tx_bytes, 0)
    n2n_put64(&p.rx_frames, 0)
    n2n_put64(&p.rx_bytes, 0)
    n2n_put64(&p.last_rx, 0)
    n2n_put64(&p.last_direct, 0)

cdef inline void forget_endpoint(State *s, const Key *key, uint32_t slot) noexcept nogil:
    """An endpoint is a peer's no more, unless by another right: its own may be one of the further ones, too."""
    cdef Peer *p = &s.peers[slot]
    cdef int i
    if same_key(key, &p.endpoint):
        return
    for i in range(SOURCES):
        if same_key(key, &p.sources[i]):
            return
    table_drop_own(&s.by_endpoint, key, slot)

cdef inline void claim_endpoint(State *s, const Key *key, uint32_t slot) noexcept nogil:
    if not table_put(&s.by_endpoint, key, slot):
        bump(s, V_DROP_COMMAND)

cdef inline void move_endpoint(State *s, Peer *p, const Command *c) noexcept nogil:
    cdef Key key = endpoint_key(c.ip, c.port), before = p.endpoint
    p.endpoint = key
    make_addr(s.families[c.socket], &p.addr, c.ip, c.port, c.socket)
    if p.used:
        forget_endpoint(s, &before, c.slot)
    claim_endpoint(s, &key, c.slot)

cdef inline void put_peer(State *s, const Command *c) noexcept nogil:
    cdef Peer *p = &s.peers[c.slot]
    cdef Key key = mac_key(get_mac(c.mac), 0)
    if not p.used:
        clear_peer(p)
        memcpy(p.mac, c.mac, 6)
        p.mac48 = key.a
        if not table_put(&s.by_mac, &key, c.slot):
            bump(s, V_DROP_COMMAND)
            return
    move_endpoint(s, p, c)
    p.direct = c.direct
    p.used = True

cdef inline void drop_peer(State *s, const Command *c) noexcept nogil:
    cdef Peer *p = &s.peers[c.slot]
    cdef Key key
    cdef int i
    if not p.used:
        return
    key = mac_key(p.mac48, 0)
    table_drop_own(&s.by_mac, &key, c.slot)
    table_drop_own(&s.by_endpoint, &p.endpoint, c.slot)
    for i in range(SOURCES):
        if p.sources[i].c:
            table_drop_own(&s.by_endpoint, &p.sources[i], c.slot)
    clear_peer(p)

cdef inline void allow_source(State *s, const Command *c) noexcept nogil:
    cdef Peer *p = &s.peers[c.slot]
    cdef Key key = endpoint_key(c.ip, c.port), oldest
    cdef int holder, i
    if not p.used:
        return
    holder = table_get(&s.by_endpoint, &key)
    if holder == <int>c.slot or (holder >= 0 and same_key(&s.peers[holder].endpoint, &key)):
        return          # known already; or another peer's own endpoint, which nobody takes from it
    i = p.next_source % SOURCES
    oldest = p.sources[i]
    p.sources[i] = key
    p.next_source += 1
    if oldest.c:
        forget_endpoint(s, &oldest, c.slot)
    claim_endpoint(s, &key, c.slot)

cdef inline void put_member(State *s, const Command *c) noexcept nogil:
    cdef Peer *p = &s.peers[c.slot]
    cdef Key sender = mac_key(get_mac(c.mac), c.header_id), target = mac_key(get_mac(c.mac), c.group)
    if not p.used:
        clear_peer(p)
        memcpy(p.mac, c.mac, 6)
        p.mac48 = sender.a
        p.header_id = c.header_id
        p.group = c.group
        if not table_put(&s.by_mac, &sender, c.slot) or not table_put(&s.by_target, &target, c.slot):
            bump(s, V_DROP_COMMAND)
            return
        p.prev_in_group = -1
        p.next_in_group = s.group_head[c.group] - 1
        if p.next_in_group >= 0:
            s.peers[p.next_in_group].prev_in_group = <int>c.slot
        s.group_head[c.group] = <int>c.slot + 1
    move_endpoint(s, p, c)
    p.used = True

cdef inline void drop_member(State *s, const Command *c) noexcept nogil:
    cdef Peer *p = &s.peers[c.slot]
    cdef Key key
    if not p.used:
        return
    key = mac_key(p.mac48, p.header_id)
    table_drop_own(&s.by_mac, &key, c.slot)
    key = mac_key(p.mac48, p.group)
    table_drop_own(&s.by_target, &key, c.slot)
    table_drop_own(&s.by_endpoint, &p.endpoint, c.slot)
    if p.prev_in_group >= 0:
        s.peers[p.prev_in_group].next_in_group = p.next_in_group
    else:
        s.group_head[p.group] = p.next_in_group + 1
    if p.next_in_group >= 0:
        s.peers[p.next_in_group].prev_in_group = p.prev_in_group
    clear_peer(p)

cdef inline void add_socket(State *s, const Command *c) noexcept nogil:
    s.fds[c.slot] = <int>c.header_id
    s.families[c.slot] = <int>c.group
    s.listens[c.slot] = c.direct
    s.further += 1

cdef inline void drop_socket(State *s, const Command *c) noexcept nogil:
    """Peers that were reached by it are reached by the first one again, if that can."""
    cdef Peer *p
    cdef Key key
    cdef uint8_t ip[16]
    cdef uint32_t i
    s.fds[c.slot] = -1
    s.further -= 1
    for i in range(s.max_peers):
        p = &s.peers[i]
        if p.used and p.addr.socket == <int>c.slot:
            key = p.endpoint
            memcpy(ip, &key.a, 8)
            memcpy(ip + 8, &key.b, 8)
            make_addr(s.families[0], &p.addr, ip, <uint16_t>key.c, 0)

cdef inline void apply_commands(State *s) noexcept nogil:
    cdef Command c
    while commands_pop(&s.commands, &c):
        if c.op == OP_PUT_PEER:
            put_peer(s, &c)
        elif c.op == OP_DROP_PEER:
            drop_peer(s, &c)
        elif c.op == OP_ALLOW_SOURCE:
            allow_source(s, &c)
        elif c.op == OP_PUT_MEMBER:
            put_member(s, &c)
        elif c.op == OP_DROP_MEMBER:
            drop_member(s, &c)
        elif c.op == OP_SUPERNODE:
            make_addr(s.families[0], &s.supernode, c.ip, c.port, 0)
            s.supernode_key = endpoint_key(c.ip, c.port)
            s.has_supernode = s.supernode.size != 0
        elif c.op == OP_PEER_MTU:
            if s.peers[c.slot].used:
                s.peers[c.slot].mtu = <int>c.group
        elif c.op == OP_LOAD:
            s.load = <Load *>c.load
        elif c.op == OP_ADD_SOCKET:
            add_socket(s, &c)
        elif c.op == OP_DROP_SOCKET:
            drop_socket(s, &c)
        n2n_store(&s.obeyed, s.obeyed + 1)
