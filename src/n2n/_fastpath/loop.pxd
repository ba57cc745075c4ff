"""The loop: wait, obey, receive, send.  It never waits for a batch to fill."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcpy

from n2n._fastpath.atomic cimport n2n_load
from n2n._fastpath.edge cimport edge_receive, tap_burst, tap_flush
from n2n._fastpath.fence cimport n2n_fence, n2n_unfence
from n2n._fastpath.linux cimport (
    CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE, CMSG_DATA, CMSG_FIRSTHDR, CMSG_NXTHDR, EAGAIN, EBADFD, EINTR,
    MSG_DONTWAIT, MSG_TRUNC, POLLERR, POLLHUP, POLLIN, POLLNVAL, SOL_UDP, UDP_GRO, clock_gettime, cmsghdr, errno,
    mmsghdr, poll, pollfd, read, recvmmsg, timespec, write,
)
from n2n._fastpath.members cimport apply_commands
from n2n._fastpath.relay cimport relay_receive, relay_train
from n2n._fastpath.state cimport (
    BATCH, EDGE, HEADROOM, MAX_DATAGRAM, SLOT_SIZE, SOCKETS, TAILROOM, Addr, State, bump, bump_by, rx_slot, split_addr,
)
from n2n._fastpath.transmit cimport tx_flush
from n2n._fastpath.verdict cimport *

cdef enum:
    ROUNDS = 4          # full batches taken from one descriptor before the other has its turn

cdef inline void read_clocks(State *s) noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_REALTIME_COARSE, &t)
    s.wall = <uint32_t>t.tv_sec
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    s.now = <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec

cdef inline void receive_segment(State *s, uint8_t *data, int size, const uint8_t *ip, uint16_t port) noexcept nogil:
    bump(s, V_UDP_RX)
    bump_by(s, V_UDP_RX_BYTES, size)
    if size == 0:
        bump(s, V_DROP_EMPTY)
    elif s.role == EDGE:
        edge_receive(s, data, size, ip, port)
    else:
        relay_receive(s, data, size, ip, port)

cdef inline int segment_size(mmsghdr *m) noexcept nogil:
    """What UDP_GRO says of a message: bytes of each segment (the last may be shorter), 0: no train."""
    cdef cmsghdr *c = CMSG_FIRSTHDR(&m.msg_hdr)
    cdef int value = 0
    while c != NULL:
        if c.cmsg_level == SOL_UDP and c.cmsg_type == UDP_GRO:
            memcpy(&value, CMSG_DATA(c), sizeof(value))
            return value if 0 < value < <int>m.msg_len else 0
        c = CMSG_NXTHDR(&m.msg_hdr, c)
    return 0

cdef inline void receive_one(State *s, int i) noexcept nogil:
    """Take one message apart: a datagram, or a train of them."""
    cdef uint8_t *data = rx_slot(s, i) + HEADROOM
    cdef int size = <int>s.rx_msgs[i].msg_len, segment = 0, at = 0
    cdef uint8_t ip[16]
    cdef uint16_t port
    if s.rx_msgs[i].msg_hdr.msg_flags & MSG_TRUNC:
        bump(s, V_DROP_TRUNCATED)
        return
    split_addr(&s.rx_from[i], ip, &port)
    if s.gro:
        segment = segment_size(&s.rx_msgs[i])
    if segment == 0:
        receive_segment(s, data, size, ip, port)
        return
    bump(s, V_TRAINS_RX)
    if s.role != EDGE and relay_train(s, data, size, segment, ip, port):
        bump_by(s, V_UDP_RX, (size + segment - 1) // segment)
        bump_by(s, V_UDP_RX_BYTES, size)
        return
    while at < size:
        receive_segment(s, data + at, segment if size - at > segment else size - at, ip, port)
        at += segment

cdef inline int udp_burst(State *s, int fd) noexcept nogil:
    """Take one batch from a socket; how many datagrams it held."""
    cdef int n, i
    cdef size_t rest
    cdef uint8_t *end
    for i in range(BATCH):
        s.rx_msgs[i].msg_hdr.msg_namelen = sizeof(s.rx_from[i].raw)
        s.rx_msgs[i].msg_hdr.msg_flags = 0
        s.rx_msgs[i].msg_hdr.msg_controllen = sizeof(s.rx_ctrl[i]) if s.gro else 0
    n = recvmmsg(fd, s.rx_msgs, BATCH, MSG_DONTWAIT, NULL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            bump(s, V_RECV_ERROR)
        return 0
    for i in range(n):
        end = rx_slot(s, i) + HEADROOM + s.rx_msgs[i].msg_len
        rest = rx_slot(s, i) + SLOT_SIZE - end
        n2n_fence(end, rest)
        receive_one(s, i)
        n2n_unfence(end, rest)
    # What is relayed or glued lies in these buffers.
    tx_flush(s)
    tap_flush(s)
    return n

cdef inline void tell_python(State *s) noexcept nogil:
    cdef uint64_t one = 1
    if s.notify:
        s.notify = False
        write(s.event_fd, &one, 8)      # EAGAIN: it is already told

cdef inline int poll_further(State *s, pollfd *fds) noexcept nogil:
    """Write down the further sockets that this plane receives from; how many there are."""
    cdef int i, n = 0
    for i in range(1, SOCKETS):
        if s.fds[i] >= 0 and s.listens[i]:
            fds[n].fd = s.fds[i]
            fds[n].events = POLLIN
            fds[n].revents = 0
            n += 1
    return n

cdef inline int receive_further(State *s, const pollfd *fds, int count) noexcept nogil:
    """Take one batch from each further socket that has something, unless it was dropped meanwhile."""
    cdef int i, k, moved = 0
    for i in range(count):
        if not fds[i].revents:
            continue
        for k in range(1, SOCKETS):
            if s.fds[k] == fds[i].fd and s.listens[k]:
                if fds[i].revents & POLLNVAL:
                    s.listens[k] = False        # closed by somebody before it was dropped
                    bump(s, V_RECV_ERROR)
                else:
                    moved += udp_burst(s, fds[i].fd)
    return moved

cdef inline int iterate(State *s, int timeout_ms) noexcept nogil:
    """One round: how many packets it moved, or -1 with `fatal` set."""
    cdef pollfd fds[11]         # wake-up, socket, TAP, and at most 8 further sockets
    cdef uint64_t wakes
    cdef int n, _, moved = 0, further = 0
    fds[0].fd = s.wake_fd
    fds[1].fd = s.fds[0]
    fds[2].fd = s.tap_fd        # a supernode's is -1, which poll leaves alone
    fds[0].events = fds[1].events = fds[2].events = POLLIN
    fds[0].revents = fds[1].revents = fds[2].revents = 0
    if s.further:
        further = poll_further(s, &fds[3])
    if poll(fds, 3 + further, timeout_ms) < 0 and errno != EINTR:
        s.fatal = errno
        return -1
    read_clocks(s)
    if fds[0].revents & POLLIN:
        read(s.wake_fd, &wakes, 8)
    apply_commands(s)
    if fds[1].revents & POLLNVAL:
        s.fatal = EBADFD
        return -1
    if fds[1].revents:
        # Beside further sockets no more than a batch, as from each of them: none is to take the others' time.
        for _ in range(1 if further else ROUNDS):
            n = udp_burst(s, fds[1].fd)
            moved += n
            if n < BATCH:
                break
    if further:
        moved += receive_further(s, &fds[3], further)
    if fds[2].revents & (POLLERR | POLLNVAL | POLLHUP) and not fds[2].revents & POLLIN:
        s.fatal = EBADFD
    elif fds[2].revents & POLLIN:
        for _ in range(ROUNDS):
            n = tap_burst(s)
            moved += n
            if n < BATCH or s.fatal:
                break
    tell_python(s)
    return -1 if s.fatal else moved

cdef inline void run_until_stopped(State *s) noexcept nogil:
    while n2n_load(&s.stop) == 0:
        if iterate(s, -1) < 0:
            break
