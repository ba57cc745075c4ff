"""Everything that one plane owns, as plain C: no Python object is reachable from here.

Packet buffers.  A frame always begins at HEADROOM in its slot, so that header and nonce are written in
front of it and the tag behind it, and nothing is copied:

    | ... header (7 or 30) | nonce (12) | frame ... | tag (16) |
                                        ^ slot + HEADROOM
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcmp, memcpy, memset

from n2n._fastpath.aead cimport Cipher
from n2n._fastpath.atomic cimport n2n_bump64
from n2n._fastpath.coalesce cimport Run
from n2n._fastpath.linux cimport (
    AF_INET, AF_INET6, in6_addr, iovec, mmsghdr, htonl, htons, ntohs, sockaddr, sockaddr_in, sockaddr_in6, socklen_t,
)
from n2n._fastpath.ring cimport ByteRing, CommandRing
from n2n._fastpath.table cimport Key, Table
from n2n._fastpath.verdict cimport V_COUNT
from n2n._fastpath.zstd cimport Zstd

cdef enum:
    BATCH = 64                  # datagrams or frames a system call or a round
    HEADROOM = 64               # in front of a frame: header and nonce (42), rounded to a cache line
    TAILROOM = 64               # behind it: tag (16)
    MAX_DATAGRAM = 65507        # largest UDP payload over IPv4
    # HEADROOM, 64 KiB, TAILROOM and more: 23 cache lines beyond a multiple of a page, so that the beginnings of slots
    # do not fight for one set of the caches.  Pages are taken when they are touched.
    SLOT_SIZE = 71104
    ARENA_SIZE = 262144         # what one super-frame is cut into
    TAP_BYTES = 524288          # read from the TAP before the other direction has its turn
    TX_QUEUE = 128              # datagrams waiting to be sent; the most segments that one train may have
    CTRL_SIZE = 32              # CMSG_SPACE of one small option
    MAX_TRAIN = 65000           # bytes in a train: what IPv4 and its options leave of 65,535
    TRAIN_RETRY = 60            # seconds until sizes that the path refused are tried again in trains
    SOURCES = 4                 # further endpoints by which a peer's frames may come
    MAX_CONTROL = 4126          # of a request to a supernode: a header and 4096 bytes of message
    MAX_PING = 9216             # of a ping to an edge: padded ones measure paths
    REPORTS_PER_SECOND = 256    # unknown senders told to Python, at most
    TELL_EVERY = 10000000       # ns between two answers that a packet is too large for one peer's path
    NOTICE_EVERY = 1000000000   # ns between two traffic notices for one peer
    SEEN = 4096                 # numbers of loads by which one may come late
    ARRIVALS = 4096             # answers whose times are noted
    SOCKETS = 9                 # the first is the plane's own, the others are added while it runs

cdef enum Role:
    EDGE = 1
    SUPERNODE = 2

cdef struct Addr:
    uint8_t raw[28]             # a sockaddr_in or a sockaddr_in6, as the socket's family wants it
    socklen_t size              # 0: this socket cannot reach it
    int socket                  # number of the socket that reaches it

cdef struct Peer:               # an edge's peer, or a supernode's member
    Addr addr
    Key endpoint                # of addr, as the endpoint table has it
    Key sources[4]              # edge: further endpoints (ring, oldest overwritten); c is 0 where there is none
    uint32_t next_source
    uint8_t mac[6]
    uint64_t mac48
    bint used
    bint direct
    uint64_t noticed            # edge: when Python was last told that the host sends to it; ns, coarse
    int mtu                     # edge: bytes of the largest IP packet that its path takes; 0: as large as any
    uint64_t told_too_big       # edge: when a host was last told that this is not enough for its packet; ns, coarse
    uint32_t header_id          # supernode: community id that its packets carry
    uint32_t group              # supernode: its community
    int next_in_group           # supernode: list of the community's members, -1 ends it
    int prev_in_group
    # Figures, read by Python's threads at any time; they stay last (see `clear_peer`).
    uint64_t tx_frames
    uint64_t tx_bytes
    uint64_t rx_frames
    uint64_t rx_bytes
    uint64_t last_rx            # CLOCK_MONOTONIC, ns, coarse
    uint64_t last_direct        # edge: the same of what came straight from it

cdef struct Load:               # edge: what may come of one peer outside of the tunnel, and what came (`load.pxd`)
    uint8_t token[8]
    uint64_t mac48              # the peer
    uint64_t until              # CLOCK_MONOTONIC, ns: nothing is taken from then on
    uint64_t budget             # bytes of loads that are counted, at most
    uint64_t second             # of the last answer, and how many there were in it
    uint32_t in_second
    uint64_t top                # highest number of a load, plus 1
    uint64_t seen[64]           # one bit for each of the last SEEN numbers
    # Read by Python's threads at any time.
    uint64_t datagrams
    uint64_t bytes
    uint64_t first              # CLOCK_MONOTONIC, ns, of the first load and the last
    uint64_t last
    uint64_t arrival[4096]      # the same of answers, by number; 0: none

cdef struct State:
    int role
    int tap_fd
    int wake_fd                 # Python -> plane
    int event_fd                # plane -> Python
    bint own_event_fd
    int fds[9]                  # UDP sockets by number; -1: there is none
    int families[9]             # of each
    bint listens[9]             # received from by this plane (another plane may be the one that does)
    int further                 # how many there are beside the first
    bint vfuze
    bint bridge
    bint sealed
    bint compress
    int frame_limit             # largest Ethernet frame, bytes
    uint8_t mac[6]
    uint64_t mac48
    uint32_t community
    # tables
    Peer *peers
    uint32_t max_peers
    Table by_mac                # edge: (mac); supernode: (header id, mac) of senders
    Table by_target             # supernode: (group, mac)
    Table by_endpoint
    int *group_head             # supernode: first member of each group + 1, 0 for none
    uint32_t max_groups
    bint has_supernode
    Addr supernode
    Key supernode_key
    Cipher cipher
    Zstd zstd
    Load *load                  # NULL: nobody agreed to any
    # rings
    CommandRing commands
    ByteRing control
    bint notify                 # something was pushed in this round
    # time, read once a round
    uint32_t wall               # Unix seconds
    uint64_t now                # CLOCK_MONOTONIC, ns, coarse
    uint64_t report_second
    uint32_t reports
    # flags shared with Python
    uint32_t stop
    uint32_t obeyed             # commands carried out since the start
    uint32_t sequence
    uint64_t count[V_COUNT]
    # buffers
    uint8_t *slab               # 2 * BATCH slots, then one of work space for zstd
    uint8_t *arena
    mmsghdr rx_msgs[64]
    iovec rx_iov[64]
    Addr rx_from[64]
    uint8_t rx_ctrl[64][32]
    mmsghdr tx_msgs[128]
    iovec tx_iov[128]
    uint8_t tx_ctrl[128][32]
    Addr *tx_to[128]
    uint16_t tx_segment[128]    # relay: the datagram is a train of segments of this size; 0: it is one
    int tx_n
    size_t arena_used
    # offloads; each may be switched off by Python, and is by the plane where the kernel refuses it
    bint vnet                   # the TAP speaks virtio headers
    bint coalesce
    bint uso                    # the kernel takes UDP super-frames
    int gso                     # UDP_SEGMENT; this and max_segments are read by Python's threads, too
    bint gro                    # UDP_GRO
    int max_segments            # in a train: 128, or 64 before Linux 6.9
    size_t train_limit          # datagrams of this size and more do not go in trains: the path refused them
    uint64_t train_retry        # when to try again, ns
    int runs_open
    int run_order[8]            # the first `runs_open` are open, oldest first; the rest are free
    Run runs[8]
    int fatal                   # errno that ended the loop

cdef inline uint8_t *rx_slot(State *s, int i) noexcept nogil:
    return s.slab + <size_t>i * SLOT_SIZE

cdef inline uint8_t *tx_slot(State *s, int i) noexcept nogil:
    return s.slab + <size_t>(BATCH + i) * SLOT_SIZE

cdef inline uint8_t *work_slot(State *s) noexcept nogil:
    return s.slab + <size_t>(2 * BATCH) * SLOT_SIZE

cdef inline void bump(State *s, int verdict) noexcept nogil:
    n2n_bump64(&s.count[verdict], 1)

cdef inline void bump_by(State *s, int verdict, uint64_t n) noexcept nogil:
    n2n_bump64(&s.count[verdict], n)

# ---- keys and addresses -------------------------------------------------------------------------

cdef inline Key mac_key(uint64_t mac48, uint32_t scope) noexcept nogil:
    """`scope`: 0 at an edge; header id or group at a supernode."""
    cdef Key k
    k.a = mac48
    k.b = scope
    k.c = 0
    return k

cdef inline Key endpoint_key(const uint8_t *ip, uint16_t port) noexcept nogil:
    """`ip`: 16 bytes, IPv4 in mapped form; `port` in host order."""
    cdef Key k
    memcpy(&k.a, ip, 8)
    memcpy(&k.b, ip + 8, 8)
    k.c = port | 0x10000        # never 0: that marks a free place in `Peer.sources`
    return k

cdef inline void split_addr(const Addr *a, uint8_t *ip, uint16_t *port) noexcept nogil:
    """What the kernel wrote into a sockaddr, as 16 bytes of address and a port."""
    cdef const sockaddr_in *v4 = <const sockaddr_in *>a.raw
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *>a.raw
    if (<const sockaddr *>a.raw).sa_family == AF_INET:
        memset(ip, 0, 10)
        ip[10] = ip[11] = 0xFF
        memcpy(ip + 12, &v4.sin_addr, 4)
        port[0] = ntohs(v4.sin_port)
    else:
        memcpy(ip, &v6.sin6_addr, 16)
        port[0] = ntohs(v6.sin6_port)

cdef inline bint is_mapped(const uint8_t *ip) noexcept nogil:
    cdef int i
    for i in range(10):
        if ip[i]:
            return False
    return ip[10] == 0xFF and ip[11] == 0xFF

cdef inline void make_addr(int family, Addr *a, const uint8_t *ip, uint16_t port, int socket) noexcept nogil:
    """A sockaddr of the socket's family; size 0 where it cannot hold `ip`."""
    cdef sockaddr_in *v4 = <sockaddr_in *>a.raw
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>a.raw
    memset(a, 0, sizeof(Addr))
    a.socket = socket
    if family == AF_INET6:
        v6.sin6_family = <unsigned short>AF_INET6
        v6.sin6_port = htons(port)
        memcpy(&v6.sin6_addr, ip, 16)
        a.size = sizeof(sockaddr_in6)
    elif is_mapped(ip):
        v4.sin_family = <unsigned short>AF_INET
        v4.sin_port = htons(port)
        memcpy(&v4.sin_addr, ip + 12, 4)
        a.size = sizeof(sockaddr_in)
