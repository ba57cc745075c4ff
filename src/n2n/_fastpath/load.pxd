"""Loads: datagrams that measure the bare path to a peer, outside of the tunnel (``n2n bench PEER``).

They come and go by the sockets of the frames, so through the same NATs.  What arrives is counted or answered here and
never handed to Python; whatever nobody agreed to costs a comparison and a counter.

    ProtoV header of type ping (30) | "n2n load" (8) | kind (1) | token (8) | number (4) | padding

A load is counted; a question is answered by itself, with the kind changed and the addresses turned round, so by as many
bytes; of an answer the time is noted.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcmp, memcpy, memset

from n2n._fastpath.atomic cimport n2n_add64, n2n_bump64, n2n_get_int, n2n_load64, n2n_put64
from n2n._fastpath.linux cimport (
    CLOCK_MONOTONIC, EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, ENOPROTOOPT, EOPNOTSUPP, MSG_DONTWAIT, MSG_NOSIGNAL,
    POLLOUT, clock_gettime, errno, iovec, mmsghdr, nanosleep, poll, pollfd, sendmmsg, timespec,
)
from n2n._fastpath.state cimport (
    ARRIVALS, MAX_TRAIN, SEEN, TX_QUEUE, Addr, Key, Load, Peer, State, bump,
)
from n2n._fastpath.table cimport table_get
from n2n._fastpath.transmit cimport mark_train, tx_queue
from n2n._fastpath.verdict cimport (
    V_DROP_LOAD, V_DROP_SEND_ERROR, V_LOAD_ANSWERED, V_LOAD_RX, V_LOAD_TX,
)
from n2n._fastpath.wire cimport MAC_SIZE, OFF_DEST, OFF_SOURCE, PROTOV_SIZE, get32, get_mac, put32

cdef enum:
    LOAD = 1
    QUESTION = 2
    ANSWER = 3
    OFF_KIND = 38
    OFF_TOKEN = 39
    OFF_NUMBER = 47
    LOAD_SIZE = 51              # of the smallest
    TOKEN_SIZE = 8
    ANSWERS_PER_SECOND = 1000   # questions answered, at most
    LOAD_BATCH = 64             # datagrams of one system call, at most: what every kernel takes as a train
    TURN = 1000000              # ns: a batch is what fits into this time at the rate, and at least one datagram
    NAP = 10000000              # ns: longest sleep between two looks at the clock

cdef inline uint64_t precise_now() noexcept nogil:
    """CLOCK_MONOTONIC, ns."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec

cdef inline bint is_load(const uint8_t *data, int size) noexcept nogil:
    """Has a ping, whose header is whole, the mark of these?"""
    return size >= PROTOV_SIZE + 8 and memcmp(data + PROTOV_SIZE, b"n2n load", 8) == 0

# ---- in -----------------------------------------------------------------------------------------

cdef inline Peer *expected(State *s, const uint8_t *data, int size, const Key *source) noexcept nogil:
    """The peer whose loads are awaited, if this is one of them; else NULL."""
    cdef Load *w = s.load
    cdef Peer *p
    cdef int slot
    if w == NULL or size < LOAD_SIZE or s.now >= w.until or memcmp(data + OFF_TOKEN, w.token, TOKEN_SIZE) != 0:
        return NULL
    slot = table_get(&s.by_endpoint, source)
    if slot < 0:
        return NULL
    p = &s.peers[slot]
    if p.mac48 != w.mac48 or get_mac(data + OFF_SOURCE) != p.mac48 or get_mac(data + OFF_DEST) != s.mac48:
        return NULL
    return p

cdef inline bint first_time(Load *w, uint32_t number) noexcept nogil:
    """Was this number not seen yet?  One that is SEEN below the highest counts as seen."""
    cdef uint64_t n = number, i
    if n + SEEN < w.top:
        return False
    if n >= w.top:
        if n - w.top >= SEEN:
            memset(w.seen, 0, sizeof(w.seen))
        else:
            for i in range(w.top, n):
                w.seen[(i % SEEN) >> 6] &= ~(<uint64_t>1 << (i & 63))
        w.top = n + 1
    elif w.seen[(n % SEEN) >> 6] >> (n & 63) & 1:
        return False
    w.seen[(n % SEEN) >> 6] |= <uint64_t>1 << (n & 63)
    return True

cdef inline bint count_load(Load *w, uint32_t number, int size) noexcept nogil:
    cdef uint64_t now
    if n2n_load64(&w.bytes) + size > w.budget or not first_time(w, number):
        return False
    now = precise_now()
    if n2n_load64(&w.datagrams) == 0:
        n2n_put64(&w.first, now)
    n2n_put64(&w.last, now)
    n2n_bump64(&w.bytes, size)
    n2n_bump64(&w.datagrams, 1)
    return True

cdef inline bint answer_load(State *s, Load *w, Peer *p, uint8_t *data, int size) noexcept nogil:
    """Send a question back as an answer, where the peer's frames go."""
    cdef uint64_t second = s.now // 1000000000
    if not p.direct or p.addr.size == 0:
        return False
    if second != w.second:
        w.second, w.in_second = second, 0
    if w.in_second >= ANSWERS_PER_SECOND:
        return False
    w.in_second += 1
    data[OFF_KIND] = ANSWER
    memcpy(data + OFF_SOURCE, s.mac, MAC_SIZE)
    memcpy(data + OFF_DEST, p.mac, MAC_SIZE)
    tx_queue(s, data, size, 0, &p.addr)
    bump(s, V_LOAD_ANSWERED)
    return True

cdef inline bint note_answer(Load *w, uint32_t number) noexcept nogil:
    if number >= ARRIVALS or n2n_load64(&w.arrival[number]) != 0:
        return False
    n2n_put64(&w.arrival[number], precise_now())
    return True

cdef inline void load_receive(State *s, uint8_t *data, int size, const Key *source) noexcept nogil:
    """Take a datagram that has the mark, or drop it."""
    cdef Peer *p = expected(s, data, size, source)
    cdef bint taken = False
    if p != NULL:
        if data[OFF_KIND] == LOAD:
            taken = count_load(s.load, get32(data + OFF_NUMBER), size)
        elif data[OFF_KIND] == QUESTION:
            taken = answer_load(s, s.load, p, data, size)
        elif data[OFF_KIND] == ANSWER:
            taken = note_answer(s.load, get32(data + OFF_NUMBER))
    bump(s, V_LOAD_RX if taken else V_DROP_LOAD)

# ---- out: in a thread of Python's, without the GIL ----------------------------------------------

cdef struct Pouring:
    int fd
    uint8_t *buffers            # `batch` datagrams of `size` bytes, one behind the other
    int size
    int batch
    bint trains
    Addr to
    double rate                 # bytes in a second
    uint32_t number             # of the next one
    uint32_t upto               # and the first not to be sent
    uint64_t deadline           # ns
    uint64_t *sent_at           # ns, for each from the first on; NULL: not noted
    uint32_t left               # how many left this host

cdef inline int pour_batch(Pouring *o, int n) noexcept nogil:
    """Hand `n` datagrams to the kernel; how many it took, or -1."""
    cdef mmsghdr messages[64]
    cdef iovec parts[64]
    cdef uint8_t control[32]
    cdef int i, count = n, got
    memset(messages, 0, sizeof(messages))
    if o.trains and n > 1:
        count = 1
    for i in range(count):
        parts[i].iov_base = o.buffers + <size_t>i * o.size
        parts[i].iov_len = <size_t>o.size * (n if count == 1 else 1)
        messages[i].msg_hdr.msg_name = o.to.raw
        messages[i].msg_hdr.msg_namelen = o.to.size
        messages[i].msg_hdr.msg_iov = &parts[i]
        messages[i].msg_hdr.msg_iovlen = 1
    if count < n:
        mark_train(&messages[0].msg_hdr, control, <unsigned short>o.size)
    got = sendmmsg(o.fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL)
    return n if got > 0 and count < n else got

cdef inline void rest(Pouring *o, uint64_t ns) noexcept nogil:
    cdef timespec t
    t.tv_sec = 0
    t.tv_nsec = <long>(ns if ns < NAP else NAP)
    nanosleep(&t, NULL)

cdef inline void kernel_said_no(State *s, Pouring *o, int n) noexcept nogil:
    """Wait where its buffers are full; do without trains where it takes none; else what is lost is lost."""
    cdef pollfd f
    if errno == EAGAIN:
        f.fd, f.events = o.fd, POLLOUT
        poll(&f, 1, 5)
    elif errno == ENOBUFS:
        rest(o, TURN)
    elif o.trains and n > 1 and (errno == EINVAL or errno == EMSGSIZE or errno == EIO or errno == EOPNOTSUPP
                                 or errno == ENOPROTOOPT):
        o.trains = False
    elif errno != EINTR:
        n2n_add64(&s.count[V_DROP_SEND_ERROR], n)
        o.number += n

cdef inline void pour(State *s, Pouring *o) noexcept nogil:
    """Send at the rate until all are sent or the time is over."""
    cdef uint64_t begin = precise_now(), now = begin, due
    cdef uint32_t first = o.number
    cdef int i, n, got, most
    most = <int>(o.rate * TURN / 1e9 / o.size)
    most = 1 if most < 1 or o.sent_at != NULL else (o.batch if most > o.batch else most)
    while o.number < o.upto and now < o.deadline:
        due = begin + <uint64_t>(<double>(o.number - first) * o.size * 1e9 / o.rate)
        if due > now:
            rest(o, due - now if due < o.deadline else o.deadline - now)
            now = precise_now()
            continue
        n = most if o.upto - o.number > <uint32_t>most else <int>(o.upto - o.number)
        for i in range(n):
            put32(o.buffers + <size_t>i * o.size + OFF_NUMBER, o.number + i)
        got = pour_batch(o, n)
        if got > 0:
            if o.sent_at != NULL:
                o.sent_at[o.number - first] = now
            n2n_add64(&s.count[V_LOAD_TX], got)
            o.number += got
            o.left += got
        else:
            kernel_said_no(s, o, n)
        now = precise_now()
