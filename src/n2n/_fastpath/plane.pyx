# cython: language_level=3
"""The compiled data plane: `Plane`, and the header, AES-GCM and zstd routines that it shares with Python."""

from threading import RLock
from time import sleep

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strerror

from n2n._fastpath cimport aead, state, wire, zstd
from n2n._fastpath.atomic cimport n2n_add, n2n_add64, n2n_get_int, n2n_load, n2n_load64, n2n_store
from n2n._fastpath.checksum cimport n2n_sum_probe
from n2n._fastpath.coalesce cimport RUNS
from n2n._fastpath.linux cimport (
    AF_INET, AF_INET6, EFD_CLOEXEC, EFD_NONBLOCK, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, MSG_DONTWAIT,
    MSG_NOSIGNAL, PROT_READ, PROT_WRITE, SOL_UDP, UDP_GRO, UDP_SEGMENT, close, dup, eventfd, getrandom, getsockname,
    mmap, munmap, read, sendto, setsockopt, sockaddr, write,
)
from n2n._fastpath.load cimport LOAD_BATCH, LOAD_SIZE, TOKEN_SIZE, Pouring, pour, precise_now
from n2n._fastpath.loop cimport iterate, run_until_stopped
from n2n._fastpath.members cimport apply_commands
from n2n._fastpath.openssl cimport OPENSSL_VERSION, OPENSSL_cleanse, OpenSSL_version, n2n_libcrypto_init
from n2n._fastpath.ring cimport (
    NOTICE, OP_ADD_SOCKET, OP_ALLOW_SOURCE, OP_DROP_MEMBER, OP_DROP_PEER, OP_DROP_SOCKET, OP_LOAD, OP_PEER_MTU,
    OP_PUT_MEMBER, OP_PUT_PEER, OP_SUPERNODE, Command, Record, bytes_init, bytes_peek, bytes_pop, commands_init,
    commands_push,
)
from n2n._fastpath.state cimport Addr, Load, Peer, State
from n2n._fastpath.table cimport table_free, table_init
from n2n._fastpath.verdict cimport V_CONTROL_TX, V_COUNT, V_DROP_NO_ROUTE, V_DROP_SEND_ERROR, V_DROP_SEND_FULL

COUNTERS = (
    "udp_rx", "udp_rx_bytes", "udp_tx", "udp_tx_bytes", "tap_rx", "tap_rx_bytes", "tap_tx", "tap_tx_bytes",
    "tx_direct", "tx_relay", "tx_flood", "relayed", "relayed_flood", "control", "control_tx", "notice", "mss_clamped",
    "told_too_big", "trains_rx", "trains_tx", "super_rx", "super_tx", "load_rx", "load_tx", "load_answered",
    "train_refused",
    "drop_empty", "drop_short", "drop_foreign", "drop_type", "drop_truncated", "drop_control_long", "drop_load",
    "drop_vfuze_off", "drop_stranger",
    "drop_destination", "drop_spoofed", "drop_unsealed", "drop_zstd", "drop_frame_short", "drop_frame_long",
    "drop_unknown_sender", "drop_unknown_target", "drop_no_supernode", "drop_no_route", "drop_send_full",
    "drop_send_error", "drop_tap_full", "drop_tap_error", "drop_control_full", "drop_command",
    "drop_super", "recv_error",
)
if len(COUNTERS) != V_COUNT:
    raise ImportError("the names of the counters do not fit the verdicts")

if n2n_libcrypto_init() != 1:
    raise ImportError("libcrypto cannot be initialised")
LIBCRYPTO = OpenSSL_version(OPENSSL_VERSION).decode()
cdef int COMMANDS = 4096                # waiting at once; more make the caller wait
cdef uint32_t CONTROL_BYTES = 1 << 20   # a full state answer takes 64 KiB of it


# ---- headers ------------------------------------------------------------------------------------

cdef const uint8_t *six(bytes mac, str what) except NULL:
    if len(mac) != 6:
        raise ValueError(f"{what} has {len(mac)} bytes, not 6")
    return <const uint8_t *>PyBytes_AsString(mac)


def pack_protov(int type, uint32_t community, bytes source, bytes dest, int flags=0, uint32_t sequence=0,
                uint32_t timestamp=0, uint32_t checksum=0, int ttl=64):
    """The 30 bytes of a ProtoV header (version 5).  Raises ValueError where an address is not 6 bytes long or a
    number does not fit its field."""
    cdef uint8_t out[30]
    if not (0 <= type <= 255 and 0 <= flags <= 255 and 0 <= ttl <= 255 and sequence <= 0xFFFF):
        raise ValueError("type, flags and ttl take 8 bits, sequence 16")
    wire.put_protov(out, type, community, six(source, "source"), six(dest, "dest"), flags, sequence, timestamp,
                    checksum, ttl)
    return PyBytes_FromStringAndSize(<char *>out, 30)


def unpack_protov(bytes data):
    """(version, ttl, type, flags, sequence, community, source, dest, timestamp, checksum) of the first 30 bytes.
    Raises ValueError where there are fewer, or the version is not 5."""
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AsString(data)
    if len(data) < 30:
        raise ValueError(f"a ProtoV header has 30 bytes, not {len(data)}")
    if p[0] != wire.PROTOV_VERSION:
        raise ValueError(f"version {p[0]} is not 5")
    return (p[0], p[1], p[2], p[3], wire.get16(p + 4), wire.get32(p + 6), data[10:16], data[16:22], wire.get32(p + 22),
            wire.get32(p + 26))


def pack_vfuze(bytes dest):
    """The 7 bytes of a VFuze header."""
    cdef uint8_t out[7]
    wire.put_vfuze(out, six(dest, "dest"))
    return PyBytes_FromStringAndSize(<char *>out, 7)


# ---- payload transforms for library users -------------------------------------------------------

cdef int bounded(size_t size) except -1:
    """A size that is safe as a C int, with room to add to it."""
    if size > 1 << 30:
        raise ValueError(f"{size} bytes are more than 1 GiB")
    return <int>size


cdef int backend_number(str name) except -1:
    names = ("auto", "libcrypto", "ipsec-mb")
    if name not in names:
        raise ValueError(f"cipher {name!r} is none of {', '.join(names)}")
    return names.index(name)


cdef str no_cipher(str backend):
    if backend == "ipsec-mb":
        return "ipsec-mb is not installed, or has no AES-GCM for this processor: apt-get install libipsec-mb1"
    return f"libcrypto ({LIBCRYPTO}) offers no AES-256-GCM"


cdef class Aead:
    """AES-256-GCM as the data plane does it: nonce (12) | ciphertext | tag (16).  Not for two threads at once.

    Args:
        key: 32 bytes.
        backend: "auto" (measured), "libcrypto" or "ipsec-mb"; OSError where that one is not there.
    """

    cdef aead.Cipher cipher
    cdef bint keyed

    def __cinit__(self, bytes key, str backend="auto"):
        if len(key) != aead.KEY_SIZE:
            raise ValueError(f"an AES-256 key has 32 bytes, not {len(key)}")
        if not aead.cipher_init(&self.cipher, <const uint8_t *>PyBytes_AsString(key), backend_number(backend)):
            raise OSError(no_cipher(backend))
        self.keyed = True

    @property
    def backend(self):
        """The library that does the work: "libcrypto" or "ipsec-mb"."""
        return "ipsec-mb" if self.cipher.use_mb else "libcrypto"

    def __dealloc__(self):
        if self.keyed:
            aead.cipher_free(&self.cipher)

    def seal(self, bytes data, bytes nonce=None):
        """Seal up to 1 GiB; 28 bytes more come out.  `nonce` (12 bytes) is for test vectors only: left out, it is one
        that was never used before."""
        cdef int size = bounded(len(data))
        cdef bytes out
        cdef uint8_t *p
        if nonce is not None and len(nonce) != aead.NONCE_SIZE:
            raise ValueError(f"a nonce has 12 bytes, not {len(nonce)}")
        out = PyBytes_FromStringAndSize(NULL, size + aead.SEAL_OVERHEAD)
        p = <uint8_t *>PyBytes_AsString(out)
        if nonce is not None:
            memcpy(p, PyBytes_AsString(nonce), aead.NONCE_SIZE)
        elif not aead.next_nonce(&self.cipher, p):
            raise OSError("the kernel gave no random bytes")
        memcpy(p + aead.NONCE_SIZE, PyBytes_AsString(data), size)
        if not aead.seal(&self.cipher, p + aead.NONCE_SIZE, size):
            raise RuntimeError("libcrypto could not seal")
        return out

    def open(self, bytes sealed):
        """The plain bytes (of up to 1 GiB).  Raises ValueError where they were altered or sealed with another key."""
        cdef int size = bounded(len(sealed)), n
        cdef uint8_t *p = <uint8_t *>calloc(1, size + 1)
        if p == NULL:
            raise MemoryError
        try:
            memcpy(p, PyBytes_AsString(sealed), size)
            n = aead.open_sealed(&self.cipher, p, size)
            if n < 0:
                raise ValueError("the payload does not open: altered, or sealed with another key")
            return PyBytes_FromStringAndSize(<char *>p + aead.NONCE_SIZE, n)
        finally:
            free(p)


def zstd_available():
    """True where libzstd (1.4 or newer) can be loaded."""
    cdef zstd.Zstd z
    cdef bint ok = zstd.zstd_open(&z)
    if ok:
        zstd.zstd_close(&z)
    return bool(ok)


cdef class Zstd:
    """zstd as the data plane does it.  Not for two threads at once.  Raises OSError where libzstd is not installed."""

    cdef zstd.Zstd z
    cdef bint opened

    def __cinit__(self):
        if not zstd.zstd_open(&self.z):
            raise OSError("compression needs libzstd: apt-get install libzstd1 (dnf install libzstd)")
        self.opened = True

    def __dealloc__(self):
        if self.opened:
            zstd.zstd_close(&self.z)

    def compress(self, bytes data):
        """One frame with a content checksum; nothing for nothing."""
        cdef size_t room = bounded(len(data))
        return self._run(data, room + room // 255 + 64, True)

    def decompress(self, bytes data, size_t limit):
        """All frames in `data`.  Raises ValueError where they are damaged or give more than `limit` bytes (1 GiB at
        most)."""
        return self._run(data, bounded(limit), False)

    cdef _run(self, bytes data, size_t room, bint deflate):
        cdef uint8_t *p = <uint8_t *>calloc(1, room + 1)
        cdef const uint8_t *source = <const uint8_t *>PyBytes_AsString(data)
        cdef int n
        if p == NULL:
            raise MemoryError
        try:
            if deflate:
                n = zstd.zstd_deflate(&self.z, p, room, source, len(data))
            else:
                n = zstd.zstd_inflate(&self.z, p, room, source, len(data))
            if n < 0:
                raise ValueError("the payload does not decompress, or to more than its limit")
            return PyBytes_FromStringAndSize(<char *>p, n)
        finally:
            free(p)


# ---- the plane ----------------------------------------------------------------------------------

cdef inline int put_ip(uint8_t *out, bytes ip) except -1:
    """4 or 16 bytes of address as 16."""
    cdef const char *p = PyBytes_AsString(ip)
    if len(ip) == 16:
        memcpy(out, p, 16)
    elif len(ip) == 4:
        memset(out, 0, 10)
        out[10] = out[11] = 0xFF
        memcpy(out + 12, p, 4)
    else:
        raise ValueError(f"an IP address has 4 or 16 bytes, not {len(ip)}")
    return 0


cdef bytes plain_ip(const uint8_t *ip):
    if state.is_mapped(ip):
        return PyBytes_FromStringAndSize(<char *>ip + 12, 4)
    return PyBytes_FromStringAndSize(<char *>ip, 16)


cdef int socket_family(int fd) except -1:
    """AF_INET or AF_INET6; OSError where `fd` is no such socket."""
    cdef Addr a
    a.size = sizeof(a.raw)
    if getsockname(fd, <sockaddr *>a.raw, &a.size) < 0:
        raise OSError(errno, f"descriptor {fd} is no socket: {strerror(errno).decode()}")
    family = (<sockaddr *>a.raw).sa_family
    if family != AF_INET and family != AF_INET6:
        raise OSError(f"descriptor {fd} is no IPv4 or IPv6 socket")
    return family


cdef size_t slab_size() noexcept:
    """A batch of slots for each direction, one of work space for zstd, and the arena."""
    return <size_t>(2 * state.BATCH + 1) * state.SLOT_SIZE + state.ARENA_SIZE


cdef class Plane:
    """The packet loop of an edge or a supernode, on descriptors that it is given and does not close.

    `run()` belongs in a thread of its own and does not hold the GIL; every other method may be called from any
    Python thread at any time, `step()` only while `run()` is not running.  Commands are carried out in order, at the
    latest when the next packet is handled.

    Args:
        role: "edge" or "supernode".
        udp_fd: a non-blocking, bound UDP socket, AF_INET or AF_INET6.
        tap_fd: edge: a non-blocking descriptor on which a read gives one Ethernet frame and a write takes one.
        mac: edge: 6 bytes, the TAP's address.
        community: edge: the community id that goes into headers.
        vfuze: take and (edge) send the short header for unicast.
        key: edge: 32 bytes of AES-256-GCM key, or None for plain frames.
        compress: edge: zstd; raises OSError where libzstd is not installed.
        bridge: edge: other hosts are bridged behind this TAP or a peer's: frames from and for addresses other
            than the edges' own pass.
        max_peers: room for so many peers (edge) or members (supernode).
        max_groups: supernode: communities are numbered from 0 to below this.
        frame_limit: bytes of the largest Ethernet frame, header included, 14 to 65000.
        vnet_hdr: the TAP was opened with IFF_VNET_HDR: frames carry a virtio header of 10 bytes, and super-frames
            are read and (`coalesce`; of UDP too where `uso`) written.
        gso: send trains of datagrams (UDP_SEGMENT).
        gro: receive trains (UDP_GRO); the option is set on `udp_fd` here.
        cipher: edge: the library that seals: "auto" (the faster), "libcrypto" or "ipsec-mb".
        event_fd: a non-blocking eventfd of the caller's to ring when control datagrams wait; -1: one of its own.

    Raises:
        ValueError: an argument is impossible.
        OSError: `udp_fd` is no socket of such a family, or the kernel or libcrypto has not what is needed.
    """

    cdef State *s
    cdef bint running
    cdef bint stepping                  # a thread without `run` is in a round
    cdef object lock                    # held by who gives a command: slots and commands go in one order
    cdef dict slots                     # mac, or (header id, group, mac) -> slot
    cdef list free_slots
    cdef uint32_t next_slot
    cdef uint32_t given                 # commands given since the start
    cdef Load *load                     # what the last command of its kind gave to the plane's thread
    cdef int fds[9]                     # the sockets that commands have opened, by number; -1: none
    cdef int families[9]

    def __cinit__(self, str role, int udp_fd, *, int tap_fd=-1, bytes mac=b"", uint32_t community=0, bint vfuze=True,
                  bytes key=None, bint compress=False, bint bridge=False, uint32_t max_peers=4096,
                  uint32_t max_groups=65536, int frame_limit=9018, bint vnet_hdr=False, bint coalesce=True,
                  bint uso=True, bint gso=True, bint gro=True, str cipher="auto",
                  int event_fd=-1):
        cdef State *s
        if role not in ("edge", "supernode"):
            raise ValueError(f"role {role!r} is neither 'edge' nor 'supernode'")
        if role == "edge" and tap_fd < 0:
            raise ValueError("an edge needs a TAP descriptor")
        if not 14 <= frame_limit <= 65000:
            raise ValueError(f"frame_limit {frame_limit} is not between 14 and 65000 bytes")
        if not 1 <= max_peers <= 1 << 20 or not 1 <= max_groups <= 1 << 20:
            raise ValueError("max_peers and max_groups are between 1 and 1048576")
        s = self.s = <State *>calloc(1, sizeof(State))
        if s == NULL:
            raise MemoryError
        s.wake_fd = s.event_fd = -1
        s.role = state.EDGE if role == "edge" else state.SUPERNODE
        s.tap_fd = tap_fd if role == "edge" else -1
        s.vfuze, s.bridge, s.frame_limit = vfuze, bridge, frame_limit
        s.community, s.max_peers, s.max_groups = community, max_peers, max_groups
        if role == "edge":
            memcpy(s.mac, six(mac, "mac"), 6)
            s.mac48 = wire.get_mac(s.mac)
        s.event_fd, s.own_event_fd = event_fd, event_fd < 0
        self._first_socket(udp_fd)
        self._allocate()
        if key is not None:
            if len(key) != aead.KEY_SIZE:
                raise ValueError(f"an AES-256 key has 32 bytes, not {len(key)}")
            if not aead.cipher_init(&s.cipher, <const uint8_t *>PyBytes_AsString(key), backend_number(cipher)):
                raise OSError(no_cipher(cipher))
            s.sealed = True
        if compress:
            if not zstd.zstd_open(&s.zstd):
                raise OSError("compression needs libzstd: apt-get install libzstd1 (dnf install libzstd)")
            s.compress = True
        self._offloads(vnet_hdr, coalesce, uso, gso, gro)
        self.slots, self.free_slots, self.next_slot = {}, [], 0
        self.lock = RLock()

    cdef int _first_socket(self, int fd) except -1:
        cdef int i
        for i in range(state.SOCKETS):
            self.fds[i] = self.s.fds[i] = -1
        self.families[0] = self.s.families[0] = socket_family(fd)
        self.fds[0] = self.s.fds[0] = fd
        self.s.listens[0] = True
        return 0

    cdef int _offloads(self, bint vnet_hdr, bint coalesce, bint uso, bint gso, bint gro) except -1:
        cdef State *s = self.s
        cdef int on = 1, off = 0
        n2n_sum_probe()
        s.vnet = vnet_hdr
        # Gluing needs the virtio header; what was decompressed lies in one buffer, and cannot wait for more.
        s.coalesce = vnet_hdr and coalesce and not s.compress
        s.uso = s.coalesce and uso
        s.max_segments, s.train_limit = 128, <size_t>-1
        # A socket that knows the option says so for the size 0, which changes nothing.
        s.gso = gso and setsockopt(s.fds[0], SOL_UDP, UDP_SEGMENT, &off, sizeof(off)) == 0
        s.gro = gro and setsockopt(s.fds[0], SOL_UDP, UDP_GRO, &on, sizeof(on)) == 0
        if not s.gro:
            setsockopt(s.fds[0], SOL_UDP, UDP_GRO, &off, sizeof(off))
        return 0

    cdef int _allocate(self) except -1:
        cdef State *s = self.s
        cdef uint64_t seeds[3]
        cdef size_t size = slab_size()
        cdef void *slab
        cdef int i
        if getrandom(seeds, sizeof(seeds), 0) != sizeof(seeds):
            raise OSError("the kernel gave no random bytes")
        s.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if s.own_event_fd:
            s.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if s.wake_fd < 0 or s.event_fd < 0:
            raise OSError(errno, f"eventfd: {strerror(errno).decode()}")
        s.peers = <Peer *>calloc(s.max_peers, sizeof(Peer))
        s.group_head = <int *>calloc(s.max_groups, sizeof(int))
        slab = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        s.slab = NULL if slab == MAP_FAILED else <uint8_t *>slab
        if (s.slab == NULL or s.peers == NULL or s.group_head == NULL
                or not table_init(&s.by_mac, s.max_peers, seeds[0])
                or not table_init(&s.by_target, s.max_peers, seeds[1])
                or not table_init(&s.by_endpoint, s.max_peers * (1 + state.SOURCES), seeds[2])
                or not commands_init(&s.commands, COMMANDS) or not bytes_init(&s.control, CONTROL_BYTES)):
            raise MemoryError
        s.arena = state.work_slot(s) + state.SLOT_SIZE
        for i in range(RUNS):
            s.run_order[i] = i
        for i in range(state.BATCH):
            s.rx_msgs[i].msg_hdr.msg_control = s.rx_ctrl[i]
            s.rx_iov[i].iov_base = state.rx_slot(s, i) + state.HEADROOM
            s.rx_iov[i].iov_len = state.SLOT_SIZE - state.HEADROOM - state.TAILROOM
            s.rx_msgs[i].msg_hdr.msg_iov = &s.rx_iov[i]
            s.rx_msgs[i].msg_hdr.msg_iovlen = 1
            s.rx_msgs[i].msg_hdr.msg_name = s.rx_from[i].raw
        return 0

    def __dealloc__(self):
        cdef State *s = self.s
        if s == NULL:
            return
        if s.wake_fd >= 0:
            close(s.wake_fd)
        if s.event_fd >= 0 and s.own_event_fd:
            close(s.event_fd)
        if s.sealed:
            aead.cipher_free(&s.cipher)
        if s.compress:
            zstd.zstd_close(&s.zstd)
        table_free(&s.by_mac)
        table_free(&s.by_target)
        table_free(&s.by_endpoint)
        free(s.commands.items)
        free(s.control.bytes)
        free(s.peers)
        free(s.group_head)
        free(self.load)
        if s.slab != NULL:
            munmap(s.slab, slab_size())
        OPENSSL_cleanse(s, sizeof(State))
        free(s)

    # ---- running --------------------------------------------------------------------------------

    def run(self):
        """Move packets until `stop()`.  Raises OSError where a descriptor fails for good (TAP removed)."""
        if self.running:
            raise RuntimeError("the plane is already running")
        self.running = True
        try:
            while self.stepping:        # another thread's round ends first, and none begins after it
                self._wake()
                sleep(0.001)
            with nogil:
                run_until_stopped(self.s)
        finally:
            self.running = False
        if self.s.fatal:
            raise OSError(self.s.fatal, f"the data plane stopped: {strerror(self.s.fatal).decode()}")

    def step(self, int timeout_ms=0):
        """One bounded round in the calling thread; how many packets it moved.  Waits `timeout_ms` for the first."""
        cdef int n
        while self.stepping:            # in another thread: a command that found the ring full
            sleep(0.001)
        if self.running:
            raise RuntimeError("the plane is running in its own thread")
        n = self._iterate(timeout_ms)
        if n < 0:
            raise OSError(self.s.fatal, f"the data plane stopped: {strerror(self.s.fatal).decode()}")
        return n

    cdef int _iterate(self, int timeout_ms) noexcept:
        """A round in the calling thread, which has seen that nobody else is in one."""
        cdef int n
        self.stepping = True
        with nogil:
            n = iterate(self.s, timeout_ms)
        self.stepping = False
        return n

    def stop(self):
        """Make `run()` return, now or as soon as it is called."""
        n2n_store(&self.s.stop, 1)
        self._wake()

    cdef int _wake(self) except -1:
        cdef uint64_t one = 1
        write(self.s.wake_fd, &one, 8)
        return 0

    # ---- commands -------------------------------------------------------------------------------

    cdef int _command(self, Command *c) except -1:
        cdef int tries = 0
        while not commands_push(&self.s.commands, c):
            # Full: the plane empties it in microseconds, or nobody runs it and we are the only thread there is.
            if not self.running and not self.stepping:
                self._iterate(0)
                continue
            self._wake()
            tries += 1
            if tries > 5000:
                raise RuntimeError("the data plane does not take commands any more")
            sleep(0.001)
        self.given += 1
        self._wake()
        return 0

    cdef int _obeyed(self) except -1:
        """Wait until all commands given so far are carried out (the lock is held)."""
        cdef int tries = 0
        while n2n_load(&self.s.obeyed) != self.given:
            if not self.running and not self.stepping:
                apply_commands(self.s)      # with the GIL: nobody begins to run meanwhile
                continue
            self._wake()
            tries += 1
            if tries > 5000:
                raise RuntimeError("the data plane does not take commands any more")
            sleep(0.001)
        return 0

    cdef int _slot(self, object name, bint make, uint32_t *slot) except -1:
        """0 and the slot, or 1: not known (and not to be made)."""
        known = self.slots.get(name)
        if known is None:
            if not make:
                return 1
            if self.free_slots:
                known = self.free_slots.pop()
            elif self.next_slot < self.s.max_peers:
                known = self.next_slot
                self.next_slot += 1
            else:
                raise ValueError(f"the plane has room for {self.s.max_peers} peers, and all is taken")
            self.slots[name] = known
        slot[0] = known
        return 0

    def set_supernode(self, bytes ip, uint16_t port):
        """Edge: where to relay by; data from there are accepted."""
        cdef Command c
        memset(&c, 0, sizeof(c))
        c.op, c.port = OP_SUPERNODE, port
        put_ip(c.ip, ip)
        with self.lock:
            self._command(&c)

    def add_socket(self, int fd, *, bint listen=True):
        """Adopt a further UDP socket (non-blocking and bound; of any family): it is polled and received from like the
        first one, and serves `put_peer` and `send`.  It is not closed by the plane: drop it first.

        Args:
            listen: False where another plane receives from it.

        Returns: its number, 1 to 8.  Raises ValueError where there are 8 already, OSError where `fd` is no IPv4 or IPv6
        socket.
        """
        cdef Command c
        cdef int family = socket_family(fd), gro = self.s.gro
        memset(&c, 0, sizeof(c))
        c.op, c.header_id, c.group, c.direct = OP_ADD_SOCKET, fd, family, listen
        with self.lock:
            for number in range(1, state.SOCKETS):
                if self.fds[number] < 0:
                    break
            else:
                raise ValueError(f"the plane has room for {state.SOCKETS - 1} further sockets, and all is taken")
            if listen:
                setsockopt(fd, SOL_UDP, UDP_GRO, &gro, sizeof(gro))
            c.slot = number
            self._command(&c)
            self.fds[number], self.families[number] = fd, family
            return number

    def drop_socket(self, int number):
        """Give a further socket back: when this returns the plane does not touch it any more (it waits for a round of
        the plane, microseconds).  Peers that were reached by it are reached by the first one again.  No harm where
        there is none of that number."""
        cdef Command c
        memset(&c, 0, sizeof(c))
        c.op = OP_DROP_SOCKET
        with self.lock:
            if 0 < number < state.SOCKETS and self.fds[number] >= 0:
                c.slot = number
                self.fds[number] = -1
                self._command(&c)
                self._obeyed()

    cdef int _known_socket(self, int number) except -1:
        if not 0 <= number < state.SOCKETS or self.fds[number] < 0:
            raise ValueError(f"the plane has no socket {number}")
        return 0

    def put_peer(self, bytes mac, bytes ip, uint16_t port, bint direct, int socket=0):
        """Edge: add or change a peer.  Data from ip:port are accepted as its own; frames for it go there if `direct`,
        by the socket of that number, else by way of the supernode.  Raises ValueError where the table is full, or there
        is no such socket."""
        cdef Command c
        memset(&c, 0, sizeof(c))
        c.op, c.port, c.direct, c.socket = OP_PUT_PEER, port, direct, socket
        memcpy(c.mac, six(mac, "mac"), 6)
        put_ip(c.ip, ip)
        with self.lock:
            self._known_socket(socket)
            self._slot(mac, True, &c.slot)
            self._command(&c)

    def drop_peer(self, bytes mac):
        """Edge: forget a peer; no harm where it is not known."""
        cdef Command c
        memset(&c, 0, sizeof(c))
        c.op = OP_DROP_PEER
        self._drop(mac, &c)

    cdef int _drop(self, object name, Command *c) except -1:
        with self.lock:
            if self._slot(name, False, &c.slot) == 0:
                self._command(c)
                del self.slots[name]
                self.free_slots.append(c.slot)
        return 0

    def peer_mtu(self, bytes mac, int mtu):
        """Edge: bytes of the largest IP packet that fits the path to a peer; 0: any. TCP connections with it that begin
        from now on are made to fit, whoever begins them (MSS clamping); who sends larger packets that must not be
        fragmented is told so (ICMP), and they are sent. No harm where the peer is not known; forgotten with it."""
        cdef Command c
        if not 0 <= mtu <= 65535:
            raise ValueError(f"an MTU has 0 to 65535 bytes, not {mtu}")
        memset(&c, 0, sizeof(c))
        c.op, c.group = OP_PEER_MTU, mtu
        with self.lock:
            if self._slot(mac, False, &c.slot) == 0:
                self._command(&c)

    def allow_source(self, bytes mac, bytes ip, uint16_t port):
        """Edge: data from this further endpoint count as the peer's, too (at most 4; the oldest is forgotten)."""
        cdef Command c
        memset(&c, 0, sizeof(c))
        c.op, c.port = OP_ALLOW_SOURCE, port
        put_ip(c.ip, ip)
        with self.lock:
            if self._slot(mac, False, &c.slot) == 0:
                self._command(&c)

    def put_member(self, uint32_t header_id, uint32_t group, bytes mac, bytes ip, uint16_t port):
        """Supernode: add an edge, or change its endpoint.  `header_id`: the community id that its packets carry;
        `group`: number of its community.  Raises ValueError where the table is full."""
        cdef Command c
        if group >= self.s.max_groups:
            raise ValueError(f"group {group} is not below {self.s.max_groups}")
        memset(&c, 0, sizeof(c))
        c.op, c.port, c.header_id, c.group = OP_PUT_MEMBER, port, header_id, group
        memcpy(c.mac, six(mac, "mac"), 6)
        put_ip(c.ip, ip)
        with self.lock:
            self._slot((header_id, group, mac), True, &c.slot)
            self._command(&c)

    def drop_member(self, uint32_t header_id, uint32_t group, bytes mac):
        """Supernode: forget an edge; no harm where it is not known."""
        cdef Command c
        name = (header_id, group, mac)
        memset(&c, 0, sizeof(c))
        c.op = OP_DROP_MEMBER
        self._drop(name, &c)

    # ---- loads ----------------------------------------------------------------------------------

    def load_open(self, bytes mac, bytes token, double seconds, uint64_t budget):
        """Edge: take loads of this peer, with this token (8 bytes), for so long (0 to 3600 s), and so many bytes of
        them at most; what was counted before is forgotten.  Questions are answered while the peer is direct, 1000 in a
        second at most.  When this returns it is in force (it waits for a round of the plane, microseconds).  Raises
        ValueError where there is no such peer."""
        cdef Load *made
        cdef uint32_t slot
        if len(token) != TOKEN_SIZE or not 0 <= seconds <= 3600:
            raise ValueError("a token has 8 bytes, and loads are taken for 0 to 3600 seconds")
        with self.lock:
            if self._slot(mac, False, &slot):
                raise ValueError(f"there is no peer {mac.hex(':')}")
            made = <Load *>calloc(1, sizeof(Load))
            if made == NULL:
                raise MemoryError
            memcpy(made.token, PyBytes_AsString(token), TOKEN_SIZE)
            made.mac48 = wire.get_mac(six(mac, "mac"))
            made.until = precise_now() + <uint64_t>(seconds * 1e9)
            made.budget = budget
            self._change_load(made)

    def load_close(self):
        """Take no more loads.  What was counted is told until the next `load_open`."""
        with self.lock:
            if self.load != NULL:
                self._give_load(NULL)

    cdef int _change_load(self, Load *made) except -1:
        """Another one takes the place of the one before, which is nobody's then (the lock is held)."""
        cdef Load *before = self.load
        self.load = made
        self._give_load(made)
        free(before)
        return 0

    cdef int _give_load(self, Load *load) except -1:
        cdef Command c
        memset(&c, 0, sizeof(c))
        c.op, c.load = OP_LOAD, load
        self._command(&c)
        self._obeyed()
        return 0

    def load_look(self):
        """What came since the last `load_open`: datagrams, bytes, first_ns and last_ns (CLOCK_MONOTONIC; 0: none)."""
        cdef Load *w
        with self.lock:
            w = self.load
            if w == NULL:
                return {"datagrams": 0, "bytes": 0, "first_ns": 0, "last_ns": 0}
            return {"datagrams": n2n_load64(&w.datagrams), "bytes": n2n_load64(&w.bytes),
                    "first_ns": n2n_load64(&w.first), "last_ns": n2n_load64(&w.last)}

    def load_arrivals(self):
        """When answers came since the last `load_open`: number -> CLOCK_MONOTONIC in ns, of numbers below 4096."""
        cdef int i
        cdef dict found = {}
        with self.lock:
            if self.load != NULL:
                for i in range(state.ARRIVALS):
                    at = n2n_load64(&self.load.arrival[i])
                    if at:
                        found[i] = at
        return found

    def load_send(self, bytes datagram, bytes ip, uint16_t port, int socket, *, uint32_t first, uint32_t count,
                  double rate, double seconds, bint note=False):
        """Send a load or a question again and again, numbered from `first` on, in the calling thread and without the
        GIL: at `rate` bytes in a second, until `count` were sent or `seconds` (at most 1) are over.  By the socket of
        that number, in trains where the kernel takes them.

        Args:
            datagram: 51 to 9216 bytes, whole but for its number.
            note: at most 4096, one at a time, and when.

        Returns: (how many left, how many numbers were used, ns that it took, [CLOCK_MONOTONIC in ns of each number, 0
        for one that did not leave; where noted]).  Raises ValueError where an argument is impossible, OSError where
        there are no descriptors.
        """
        cdef Pouring o
        cdef uint8_t raw[16]
        cdef uint64_t begin
        cdef uint32_t n
        cdef int i
        if not LOAD_SIZE <= len(datagram) <= state.MAX_PING:
            raise ValueError(f"a load has {<int>LOAD_SIZE} to {<int>state.MAX_PING} bytes, not {len(datagram)}")
        if not 0 < rate <= 1e12 or not 0 <= seconds <= 1 or count > 0xFFFFFFFF - first or (
                note and count > state.ARRIVALS):
            raise ValueError("the rate, the time, or the numbers of a load are not what they can be")
        put_ip(raw, ip)
        self._known_socket(socket)
        memset(&o, 0, sizeof(o))
        state.make_addr(self.families[socket], &o.to, raw, port, socket)
        if o.to.size == 0:
            n2n_add64(&self.s.count[V_DROP_NO_ROUTE], 1)
            return 0, 0, 0, []
        o.size, o.rate, o.number, o.upto = <int>len(datagram), rate, first, first + count
        o.batch = min(<int>LOAD_BATCH, <int>state.MAX_TRAIN // o.size)
        o.trains = n2n_get_int(&self.s.gso)
        o.fd = dup(self.fds[socket])        # the socket may be given back meanwhile
        if o.fd < 0:
            raise OSError(errno, f"no descriptor for a load: {strerror(errno).decode()}")
        o.buffers = <uint8_t *>calloc(o.batch, o.size)
        o.sent_at = <uint64_t *>calloc(count + 1, sizeof(uint64_t)) if note else NULL
        try:
            if o.buffers == NULL or (note and o.sent_at == NULL):
                raise MemoryError
            for i in range(o.batch):
                memcpy(o.buffers + i * o.size, PyBytes_AsString(datagram), o.size)
            with nogil:
                begin = precise_now()
                o.deadline = begin + <uint64_t>(seconds * 1e9)
                pour(self.s, &o)
                begin = precise_now() - begin
            return o.left, o.number - first, begin, [o.sent_at[n] for n in range(o.number - first)] if note else []
        finally:
            close(o.fd)
            free(o.buffers)
            free(o.sent_at)

    # ---- control datagrams ----------------------------------------------------------------------

    @property
    def event_fd(self):
        """Readable while control datagrams wait (level-triggered until `receive` has emptied the ring)."""
        return self.s.event_fd

    def receive(self, int limit=64):
        """Up to `limit` control datagrams and notices, oldest first.  A datagram is (datagram, ip of 4 or 16 bytes,
        port).  Edge: (mac, b"", 0) is a traffic notice: the host has sent frames for this peer.  There is at most one
        a second for each peer, of each plane."""
        cdef uint64_t told
        cdef list out
        # Reset before looking: what comes later rings again.
        read(self.s.event_fd, &told, 8)
        out = self.take(limit)
        if bytes_peek(&self.s.control) != NULL:
            told = 1
            write(self.s.event_fd, &told, 8)
        return out

    def take(self, int limit=64):
        """As `receive`, but leaves `event_fd` alone: for planes that share one."""
        cdef Record *rec
        cdef list out = []
        while len(out) < limit:
            rec = bytes_peek(&self.s.control)
            if rec == NULL:
                break
            # Popped before the tuple is made: that may collect garbage, which may let another thread in here.
            data = PyBytes_FromStringAndSize(<char *>rec + sizeof(Record), rec.size)
            ip, port = b"" if rec.kind == NOTICE else plain_ip(rec.ip), rec.port
            bytes_pop(&self.s.control, rec)
            out.append((data, ip, port))
        return out

    def send(self, bytes datagram, bytes ip, uint16_t port, int socket=0):
        """Send a control datagram from the calling thread, on the plane's socket of that number.  False: dropped, and
        counted.  Raises ValueError where there is no such socket, or the datagram is empty or too long."""
        cdef uint8_t raw[16]
        cdef Addr to
        cdef ssize_t n
        if not 0 < len(datagram) <= state.MAX_DATAGRAM:
            raise ValueError(f"a datagram has 1 to {state.MAX_DATAGRAM} bytes, not {len(datagram)}")
        put_ip(raw, ip)
        self._known_socket(socket)
        state.make_addr(self.families[socket], &to, raw, port, socket)
        if to.size == 0:
            n2n_add64(&self.s.count[V_DROP_NO_ROUTE], 1)
            return False
        n = sendto(self.fds[socket], PyBytes_AsString(datagram), len(datagram), MSG_DONTWAIT | MSG_NOSIGNAL,
                   <sockaddr *>to.raw, to.size)
        if n < 0:
            n2n_add64(&self.s.count[V_DROP_SEND_FULL if errno == EAGAIN or errno == ENOBUFS else V_DROP_SEND_ERROR], 1)
            return False
        n2n_add64(&self.s.count[V_CONTROL_TX], 1)
        return True

    def next_sequence(self):
        """The sequence number of the next ProtoV header: 1, 2, ... 65535, 0, ...; the plane's own packets count too."""
        return n2n_add(&self.s.sequence, 1) & 0xFFFF

    # ---- figures --------------------------------------------------------------------------------

    def counters(self):
        """Every verdict by name, with how often it was given (bytes for names that end so)."""
        return {name: n2n_load64(&self.s.count[i]) for i, name in enumerate(COUNTERS)}

    def features(self):
        """The offloads in force: the kernel's refusals switch them off while the plane runs."""
        return {"vnet_hdr": bool(self.s.vnet), "coalesce": bool(self.s.coalesce), "uso": bool(self.s.uso),
                "gso": bool(n2n_get_int(&self.s.gso)), "gro": bool(self.s.gro),
                "max_segments": n2n_get_int(&self.s.max_segments),
                "avx2_checksum": bool(n2n_sum_probe()),
                "cipher": ("ipsec-mb" if self.s.cipher.use_mb else "libcrypto") if self.s.sealed else "none",
                "threads": 1}

    def peer_counters(self, name):
        """Traffic of one peer (`name`: its mac) or member ((header id, group, mac)): tx_frames, tx_bytes, rx_frames,
        rx_bytes, last_rx_ns and (of an edge's peer) rx_direct_ns, when a frame last came from it, and when one came
        straight from it (CLOCK_MONOTONIC; 0: never).  None where it is not known."""
        cdef Peer *p
        slot = self.slots.get(name)
        if slot is None:
            return None
        p = &self.s.peers[<uint32_t>slot]
        return {"tx_frames": n2n_load64(&p.tx_frames), "tx_bytes": n2n_load64(&p.tx_bytes),
                "rx_frames": n2n_load64(&p.rx_frames), "rx_bytes": n2n_load64(&p.rx_bytes),
                "last_rx_ns": n2n_load64(&p.last_rx), "rx_direct_ns": n2n_load64(&p.last_direct)}
