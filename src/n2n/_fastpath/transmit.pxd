"""Sending: datagrams are queued as they are made and leave together, in one system call a batch.

Neighbours in the queue that go to one endpoint and have one size (the last may be shorter) leave as a
train: one message with UDP_SEGMENT, which crosses the kernel's stack once.  Trains that the kernel
refuses are sent singly; what it will never take is switched off, what only this path does not take
(EMSGSIZE: trains are not fragmented) is tried again after a minute.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcpy

from n2n._fastpath.atomic cimport n2n_add64, n2n_set_int
from n2n._fastpath.linux cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS,
    ENOPROTOOPT, EOPNOTSUPP, MSG_DONTWAIT,
    MSG_NOSIGNAL, SOL_UDP, UDP_SEGMENT, cmsghdr, errno, iovec, mmsghdr, msghdr, sched_yield, sendmmsg, sockaddr,
    sendto,
)
from n2n._fastpath.state cimport MAX_TRAIN, TRAIN_RETRY, TX_QUEUE, Addr, State, bump, bump_by
from n2n._fastpath.verdict cimport (
    V_DROP_NO_ROUTE, V_DROP_SEND_ERROR, V_DROP_SEND_FULL, V_TRAIN_REFUSED, V_TRAINS_TX, V_UDP_TX, V_UDP_TX_BYTES,
)

cdef enum:
    WHOLE_TRIES = 100           # of a datagram that is too large to leave whole, while nothing may be fragmented

cdef inline void lose(State *s, int verdict) noexcept nogil:
    """Count a datagram that did not leave.  `Plane.send` counts these too, from Python's threads."""
    n2n_add64(&s.count[verdict], 1)

cdef inline int verdict_of_errno() noexcept nogil:
    return V_DROP_SEND_FULL if errno == EAGAIN or errno == ENOBUFS else V_DROP_SEND_ERROR

cdef inline void send_singly(State *s, uint8_t *data, size_t size, size_t segment, const Addr *to) noexcept nogil:
    """One datagram, or a train cut by hand.  EMSGSIZE: Python is about to send a probe that must not be fragmented, and
    for these microseconds nothing else of the socket is (`n2n.net.df`)."""
    cdef size_t at = 0, n
    cdef int tries = 0
    while at < size:
        n = size - at
        if segment and n > segment:
            n = segment
        if sendto(s.fds[to.socket], data + at, n, MSG_DONTWAIT | MSG_NOSIGNAL, <const sockaddr *>to.raw, to.size) >= 0:
            bump(s, V_UDP_TX)
            bump_by(s, V_UDP_TX_BYTES, n)
        elif errno == EINTR:
            continue
        elif errno == EMSGSIZE and tries < WHOLE_TRIES:
            tries += 1
            sched_yield()
            continue
        else:
            lose(s, verdict_of_errno())
        at += n

cdef inline bint train_refused(State *s, size_t segment, int pieces, int why) noexcept nogil:
    """Learn from the errno of a train; False where it says nothing about trains (no route, a firewall, ...)."""
    if why == EMSGSIZE or (why == EINVAL and (pieces <= 64 or s.max_segments <= 64)):
        # Some kernels say EINVAL where a segment does not fit the path.
        s.train_limit = segment
        s.train_retry = s.now + <uint64_t>TRAIN_RETRY * 1000000000
    elif why == EINVAL:
        n2n_set_int(&s.max_segments, 64)
    elif why == EIO or why == EOPNOTSUPP or why == ENOPROTOOPT:
        n2n_set_int(&s.gso, False)
    else:
        return False
    bump(s, V_TRAIN_REFUSED)
    return True

cdef inline int run_length(State *s, int first) noexcept nogil:
    """How many datagrams from `first` on make one train."""
    cdef size_t size = s.tx_iov[first].iov_len, total = size
    cdef int n = 1, i
    if not s.gso or s.tx_segment[first] or size >= s.train_limit:
        return 1
    for i in range(first + 1, s.tx_n):
        total += s.tx_iov[i].iov_len
        if (s.tx_to[i] != s.tx_to[first] or s.tx_iov[i].iov_len > size or s.tx_segment[i] or n >= s.max_segments
                or total > MAX_TRAIN):
            break
        n += 1
        if s.tx_iov[i].iov_len < size:
            break
    return n

cdef inline void mark_train(msghdr *m, uint8_t *ctrl, uint16_t segment) noexcept nogil:
    cdef cmsghdr *c
    m.msg_control = ctrl
    m.msg_controllen = CMSG_SPACE(sizeof(uint16_t))
    c = CMSG_FIRSTHDR(m)
    c.cmsg_level = SOL_UDP
    c.cmsg_type = UDP_SEGMENT
    c.cmsg_len = CMSG_LEN(sizeof(uint16_t))
    memcpy(CMSG_DATA(c), &segment, sizeof(uint16_t))

cdef inline int tx_build(State *s) noexcept nogil:
    """Turn the queue into messages; how many."""
    cdef int at = 0, n, m = 0
    cdef msghdr *h
    if s.train_limit != <size_t>-1 and s.now > s.train_retry:
        s.train_limit = <size_t>-1
    while at < s.tx_n:
        n = run_length(s, at)
        h = &s.tx_msgs[m].msg_hdr
        h.msg_name = s.tx_to[at].raw
        h.msg_namelen = s.tx_to[at].size
        h.msg_iov = &s.tx_iov[at]
        h.msg_iovlen = n
        h.msg_control = NULL
        h.msg_controllen = 0
        if n > 1:
            mark_train(h, s.tx_ctrl[m], <uint16_t>s.tx_iov[at].iov_len)
        elif s.tx_segment[at]:
            mark_train(h, s.tx_ctrl[m], s.tx_segment[at])
        at += n
        m += 1
    return m

cdef inline void tx_count(State *s, int m) noexcept nogil:
    cdef msghdr *h = &s.tx_msgs[m].msg_hdr
    cdef uint64_t n = h.msg_iovlen, segment
    if h.msg_control != NULL:
        bump(s, V_TRAINS_TX)
        if n == 1:
            segment = (<uint16_t *>CMSG_DATA(CMSG_FIRSTHDR(h)))[0]
            n = (s.tx_msgs[m].msg_len + segment - 1) // segment
    bump_by(s, V_UDP_TX, n)
    bump_by(s, V_UDP_TX_BYTES, s.tx_msgs[m].msg_len)

cdef inline void tx_failed(State *s, int m) noexcept nogil:
    """The kernel refused message `m`: a single datagram is lost, a train is sent singly."""
    cdef msghdr *h = &s.tx_msgs[m].msg_hdr
    cdef size_t segment, i
    cdef int why = errno, verdict = verdict_of_errno()
    if h.msg_control == NULL:
        if why == EMSGSIZE:
            send_singly(s, <uint8_t *>h.msg_iov[0].iov_base, h.msg_iov[0].iov_len, 0, <Addr *>h.msg_name)
        else:
            lose(s, verdict)
        return
    segment = (<uint16_t *>CMSG_DATA(CMSG_FIRSTHDR(h)))[0]
    if not train_refused(s, segment, <int>h.msg_iovlen, why):
        for i in range(h.msg_iovlen):
            n2n_add64(&s.count[verdict], (h.msg_iov[i].iov_len + segment - 1) // segment)
        return
    for i in range(h.msg_iovlen):
        send_singly(s, <uint8_t *>h.msg_iov[i].iov_base, h.msg_iov[i].iov_len, segment, <Addr *>h.msg_name)

cdef inline int socket_of(State *s, int m) noexcept nogil:
    """Number of the socket by which message `m` leaves."""
    return (<Addr *>s.tx_msgs[m].msg_hdr.msg_name).socket

cdef inline int same_socket(State *s, int first, int total) noexcept nogil:
    """The end of the messages from `first` on that leave by one socket."""
    cdef int at = first + 1
    while at < total and socket_of(s, at) == socket_of(s, first):
        at += 1
    return at

cdef inline void tx_flush(State *s) noexcept nogil:
    """Send what is queued.  The kernel stops at the first message that it refuses; the rest goes on behind it."""
    cdef int at = 0, n, i, total, upto
    if s.tx_n == 0:
        return
    total = tx_build(s)
    while at < total:
        upto = same_socket(s, at, total) if s.further else total
        n = sendmmsg(s.fds[socket_of(s, at)], &s.tx_msgs[at], upto - at, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n > 0:
            for i in range(at, at + n):
                tx_count(s, i)
            at += n
        elif errno != EINTR:
            tx_failed(s, at)
            at += 1
    s.tx_n = 0

cdef inline void tx_queue(State *s, uint8_t *data, size_t size, size_t segment, Addr *to) noexcept nogil:
    """Queue one datagram, or (`segment` > 0) one train.  `data` and `to` must stay as they are until the flush."""
    cdef int i
    if to.size == 0:
        lose(s, V_DROP_NO_ROUTE)
        return
    if s.tx_n == TX_QUEUE:
        tx_flush(s)
    i = s.tx_n
    s.tx_iov[i].iov_base = data
    s.tx_iov[i].iov_len = size
    s.tx_to[i] = to
    s.tx_segment[i] = <uint16_t>segment
    s.tx_n = i + 1
