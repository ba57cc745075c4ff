# cython: language_level=3
"""What the data plane does to packets, done in batches and timed without the GIL: for the benchmark of `n2n.bench`.

No packet of a network goes through here.  Headers and seals are those that the plane writes and reads (`wire.pxd`,
`aead.pxd`), in buffers that are laid out as its own.
"""

from cpython.bytes cimport PyBytes_AsString
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strerror

from n2n._fastpath cimport aead, wire
from n2n._fastpath.linux cimport (
    CLOCK_MONOTONIC, MSG_DONTWAIT, POLLIN, clock_gettime, getrandom, iovec, mmsghdr, poll, pollfd, read, recvmmsg,
    sendmmsg, timespec, write,
)
from n2n._fastpath.openssl cimport n2n_libcrypto_init
from n2n._fastpath.state cimport BATCH as _BATCH, HEADROOM, TAILROOM

cdef extern from "<poll.h>" nogil:
    short POLLOUT

if n2n_libcrypto_init() != 1:   # where libcrypto is linked in, this extension has one of its own
    raise ImportError("libcrypto cannot be initialised")

BATCH = <int>_BATCH             # packets that the data plane handles at once
LARGEST = 9018                  # bytes of a frame: the plane's own limit
cdef int ROOM = 9216            # of one message in `Exchange`, with all headers

cdef inline int64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef int backend_number(str name) except -1:
    names = ("auto", "libcrypto", "ipsec-mb")
    if name not in names:
        raise ValueError(f"cipher {name!r} is none of {', '.join(names)}")
    return names.index(name)


# ---- headers and seals --------------------------------------------------------------------------

cdef class Packets:
    """Frames that get a header and a seal, as on the way out, and lose both, as on the way in.  Not for two threads at
    once.

    Args:
        header: "vfuze" or "protov".
        size: of the frames, 14 to `LARGEST` bytes.
        key: 32 bytes; None: nothing is sealed.
        batch: packets at once, 1 to `BATCH`.
        cipher: "auto" (measured), "libcrypto" or "ipsec-mb"; OSError where that one is not there.
    """

    cdef aead.Cipher cipher
    cdef bint sealed, vfuze
    cdef int size, batch, slot
    cdef uint8_t *buffers
    cdef uint8_t *original

    def __cinit__(self, str header, int size, bytes key=None, int batch=<int>_BATCH, str cipher="auto"):
        cdef int i
        if header not in ("vfuze", "protov"):
            raise ValueError(f"header {header!r} is neither vfuze nor protov")
        if not 14 <= size <= 9018:
            raise ValueError(f"a frame of {size} bytes is not between 14 and {LARGEST}")
        if not 1 <= batch <= <int>_BATCH:
            raise ValueError(f"a batch of {batch} is not between 1 and {BATCH}")
        if key is not None and len(key) != aead.KEY_SIZE:
            raise ValueError(f"an AES-256 key has 32 bytes, not {len(key)}")
        self.vfuze, self.size, self.batch = header == "vfuze", size, batch
        self.slot = HEADROOM + size + TAILROOM
        self.original = <uint8_t *>calloc(1, size)
        self.buffers = <uint8_t *>calloc(batch, self.slot)
        if self.original == NULL or self.buffers == NULL:
            raise MemoryError
        if key is not None:
            if not aead.cipher_init(&self.cipher, <const uint8_t *>PyBytes_AsString(key), backend_number(cipher)):
                raise OSError(f"{cipher} offers no AES-256-GCM here")
            self.sealed = True
        for i in range(size):
            self.original[i] = <uint8_t>(i * 167 + 13)
        for i in range(batch):
            memcpy(self.buffers + i * self.slot + HEADROOM, self.original, size)

    def __dealloc__(self):
        if self.sealed:
            aead.cipher_free(&self.cipher)
        free(self.buffers)
        free(self.original)

    @property
    def backend(self):
        """The library that seals: "libcrypto", "ipsec-mb", or "" where nothing is sealed."""
        if not self.sealed:
            return ""
        return "ipsec-mb" if self.cipher.use_mb else "libcrypto"

    cdef bint leave(self, uint8_t *frame, uint32_t number) noexcept nogil:
        """Write what goes in front of a frame, and seal it where it lies."""
        cdef uint8_t *head = frame
        if self.sealed:
            head -= aead.NONCE_SIZE
            if not aead.next_nonce(&self.cipher, head) or not aead.seal(&self.cipher, frame, self.size):
                return False
        if self.vfuze:
            wire.put_vfuze(head - wire.VFUZE_SIZE, self.original)
        else:
            wire.put_protov(head - wire.PROTOV_SIZE, wire.TYPE_DATA, 7, self.original + 6, self.original, 0, number,
                            number, 0, wire.TTL)
        return True

    cdef bint arrive(self, uint8_t *frame) noexcept nogil:
        """Read what stands in front, and open; is it the frame that left?"""
        cdef uint8_t *head = frame - (aead.NONCE_SIZE if self.sealed else 0)
        if self.vfuze:
            head -= wire.VFUZE_SIZE
            if head[0] != wire.VFUZE_MARK or wire.get_mac(head + 1) != wire.get_mac(self.original):
                return False
        else:
            head -= wire.PROTOV_SIZE
            if (head[0] != wire.PROTOV_VERSION or head[wire.OFF_TYPE] != wire.TYPE_DATA
                    or wire.get32(head + wire.OFF_COMMUNITY) != 7
                    or wire.get_mac(head + wire.OFF_DEST) != wire.get_mac(self.original)):
                return False
        if self.sealed and aead.open_sealed(&self.cipher, frame - aead.NONCE_SIZE,
                                            self.size + aead.SEAL_OVERHEAD) != self.size:
            return False
        return wire.get_mac(frame) == wire.get_mac(self.original)

    def run(self, int batches):
        """Handle up to 1,000,000 batches.

        Returns:
            (nanoseconds of each batch, packets that came back as they had left)
        """
        cdef int64_t *times
        cdef int64_t start
        cdef int i, n, good = 0, last = 0
        cdef uint8_t *frame
        if not 0 <= batches <= 1000000:
            raise ValueError(f"{batches} batches are not between 0 and 1,000,000")
        times = <int64_t *>calloc(max(batches, 1), sizeof(int64_t))
        if times == NULL:
            raise MemoryError
        try:
            with nogil:
                for n in range(batches):
                    start = now()
                    for i in range(self.batch):
                        self.leave(self.buffers + i * self.slot + HEADROOM, n * self.batch + i)
                    for i in range(self.batch):
                        good += self.arrive(self.buffers + i * self.slot + HEADROOM)
                    times[n] = now() - start
                for i in range(self.batch):     # each is whole, not only its first bytes
                    frame = self.buffers + i * self.slot + HEADROOM
                    last += memcmp(frame, self.original, self.size) != 0
            if last:
                good -= last
                for i in range(self.batch):
                    memcpy(self.buffers + i * self.slot + HEADROOM, self.original, self.size)
            return [times[n] for n in range(batches)], good
        finally:
            free(times)


# ---- messages through descriptors ---------------------------------------------------------------

cdef struct End:                # one of the two descriptors
    int fd
    bint socket                 # takes sendmmsg and recvmmsg; a TAP device takes read and write
    int offset                  # of the number in a message

cdef inline bint wait_for(int fd, short what, int64_t until) noexcept nogil:
    """False where the time is over, or the descriptor is broken."""
    cdef pollfd p
    cdef int64_t left = until - now()
    cdef int n
    p.fd, p.events, p.revents = fd, what, 0
    if left < 0:
        return False
    n = poll(&p, 1, <int>(left // 1000000) + 1)
    return n > 0 and (p.revents & what) != 0 or n < 0 and errno == EINTR


cdef class Exchange:
    """Sends messages from one descriptor to another and back, one batch after the other, and takes the time.

    A message is written at `near`, read at `far`, written there again (`far_offset` 42: with Ethernet, IPv4 and UDP
    addresses and ports exchanged, 14: with Ethernet addresses exchanged), and read at `near`.  Each carries a number
    that nothing else carries; whatever else arrives is ignored.  Both descriptors must not block.

    Args:
        near, far: descriptors.
        size: of a message at `near`, in bytes; `far_offset` - `near_offset` more at `far`.
        head: the first bytes of each message at `near`.
        near_offset, far_offset: where the number (8 bytes) stands.
        near_socket, far_socket: whether it is a socket (connected), or takes one message by each read and write.
        batch: messages on their way at once, 1 to `BATCH`.
    """

    cdef End near, far
    cdef int size, batch
    cdef uint64_t number
    cdef uint8_t *out           # what `near` sends
    cdef uint8_t *there         # what `far` got and sends back, then what `near` got
    cdef mmsghdr messages[_BATCH]
    cdef iovec pieces[_BATCH]

    def __cinit__(self, int near, int far, int size, *, bytes head=b"", int near_offset=0, int far_offset=0,
                  bint near_socket=True, bint far_socket=True, int batch=1):
        cdef int more = far_offset - near_offset, i, n
        if not (0 <= near_offset <= far_offset <= 64 and len(head) <= near_offset):
            raise ValueError(f"a head of {len(head)} bytes does not go with offsets {near_offset}, {far_offset}")
        if not (near_offset + 8 <= size and size + more <= ROOM):
            raise ValueError(f"a message of {size} bytes is not between {near_offset + 8} and {ROOM - more}")
        if not 1 <= batch <= <int>_BATCH:
            raise ValueError(f"a batch of {batch} is not between 1 and {BATCH}")
        if getrandom(&self.number, sizeof(self.number), 0) != sizeof(self.number):
            raise OSError("the kernel gave no random bytes")
        self.near.fd, self.near.socket, self.near.offset = near, near_socket, near_offset
        self.far.fd, self.far.socket, self.far.offset = far, far_socket, far_offset
        self.size, self.batch = size, batch
        self.out = <uint8_t *>calloc(batch, ROOM)
        self.there = <uint8_t *>calloc(batch, ROOM)
        if self.out == NULL or self.there == NULL:
            raise MemoryError
        for i in range(batch):
            for n in range(size):
                self.out[i * ROOM + n] = <uint8_t>(n * 167 + i)
            if head:
                memcpy(self.out + i * ROOM, PyBytes_AsString(head), len(head))

    def __dealloc__(self):
        free(self.out)
        free(self.there)

    cdef int send(self, End *end, uint8_t *buffers, int size, int count, int64_t until) noexcept nogil:
        """Send the first `count` messages; returns how many went, -1 where the descriptor is broken."""
        cdef int done = 0, n, i
        while done < count:
            if end.socket:
                for i in range(done, count):
                    self.pieces[i].iov_base, self.pieces[i].iov_len = buffers + i * ROOM, size
                    memset(&self.messages[i], 0, sizeof(mmsghdr))
                    self.messages[i].msg_hdr.msg_iov, self.messages[i].msg_hdr.msg_iovlen = &self.pieces[i], 1
                n = sendmmsg(end.fd, &self.messages[done], count - done, MSG_DONTWAIT)
            else:
                n = 1 if write(end.fd, buffers + done * ROOM, size) >= 0 else -1
            if n > 0:
                done += n
            elif errno == ENOBUFS:
                return done             # lost on the way, as it happens
            elif errno not in (EAGAIN, EINTR):
                return -1
            elif not wait_for(end.fd, POLLOUT, until):
                return done
        return done

    cdef int take(self, End *end, uint8_t *buffers, int size, int count, uint64_t first, int64_t until) noexcept nogil:
        """Receive up to `count` messages of this batch; returns how many came, -1 where the descriptor is broken."""
        cdef int done = 0, n, i, got
        cdef uint64_t number
        while done < count:
            if end.socket:
                for i in range(count - done):
                    self.pieces[i].iov_base, self.pieces[i].iov_len = buffers + (done + i) * ROOM, ROOM
                    memset(&self.messages[i], 0, sizeof(mmsghdr))
                    self.messages[i].msg_hdr.msg_iov, self.messages[i].msg_hdr.msg_iovlen = &self.pieces[i], 1
                n = recvmmsg(end.fd, self.messages, count - done, MSG_DONTWAIT, NULL)
            else:
                got = <int>read(end.fd, buffers + done * ROOM, ROOM)
                n = 1 if got >= 0 else -1
                self.messages[0].msg_len = <unsigned int>got if got >= 0 else 0
            if n < 0:
                if errno not in (EAGAIN, EINTR):
                    return -1
                if not wait_for(end.fd, POLLIN, until):
                    return done
                continue
            for i in range(n):          # keep what is of this batch, close up over what is not
                if <int>self.messages[i].msg_len == size:
                    memcpy(&number, buffers + (done + i) * ROOM + end.offset, sizeof(number))
                    if number - first < <uint64_t>self.batch:
                        continue
                self.messages[i].msg_len = 0
            got = done
            for i in range(n):
                if self.messages[i].msg_len != 0:
                    if got != done + i:
                        memcpy(buffers + got * ROOM, buffers + (done + i) * ROOM, size)
                    got += 1
            done = got
        return done

    cdef void turn_round(self, uint8_t *message) noexcept nogil:
        """Exchange the addresses, so that it goes back; a checksum over them stays right."""
        cdef uint8_t kept[6]
        if self.far.offset >= 14:
            memcpy(kept, message, 6)
            memcpy(message, message + 6, 6)
            memcpy(message + 6, kept, 6)
        if self.far.offset >= 42:
            memcpy(kept, message + 26, 4)
            memcpy(message + 26, message + 30, 4)
            memcpy(message + 30, kept, 4)
            memcpy(kept, message + 34, 2)
            memcpy(message + 34, message + 36, 2)
            memcpy(message + 36, kept, 2)

    cdef int exchange(self, int64_t patience, int64_t *took) noexcept nogil:
        """One batch there and back; returns how many came back, -1 where a descriptor is broken."""
        cdef int more = self.far.offset - self.near.offset, i, n
        cdef int64_t start, until
        cdef uint64_t first = self.number, number
        self.number += self.batch
        for i in range(self.batch):
            number = first + i
            memcpy(self.out + i * ROOM + self.near.offset, &number, sizeof(number))
        start = now()
        until = start + patience
        n = self.send(&self.near, self.out, self.size, self.batch, until)
        if n > 0:
            n = self.take(&self.far, self.there, self.size + more, n, first, until)
        for i in range(n):
            self.turn_round(self.there + i * ROOM)
        if n > 0:
            n = self.send(&self.far, self.there, self.size + more, n, until)
        if n > 0:
            n = self.take(&self.near, self.there, self.size, n, first, until)
        took[0] = now() - start
        return n

    def run(self, int batches, int timeout_ms=1000):
        """Exchange up to 1,000,000 batches; stops early where ten in a row did not come back at all.

        Args:
            timeout_ms: until what is missing of a batch is given up, 1 to 60,000.

        Returns:
            (nanoseconds of each batch that came back whole, messages sent, messages that came back)

        Raises:
            OSError: a descriptor is broken.
        """
        cdef int64_t *times
        cdef int64_t took = 0
        cdef int n = 0, back, whole = 0, silent = 0
        cdef long came = 0
        if not (0 <= batches <= 1000000 and 1 <= timeout_ms <= 60000):
            raise ValueError(f"{batches} batches with {timeout_ms} ms for each are too many or too few")
        times = <int64_t *>calloc(max(batches, 1), sizeof(int64_t))
        if times == NULL:
            raise MemoryError
        try:
            with nogil:
                while n < batches and silent < 10:
                    back = self.exchange(<int64_t>timeout_ms * 1000000, &took)
                    if back < 0:
                        break
                    n += 1
                    came += back
                    silent = silent + 1 if back == 0 else 0
                    if back == self.batch:
                        times[whole] = took
                        whole += 1
            if n < batches and silent < 10:
                raise OSError(errno, strerror(errno).decode())
            return [times[i] for i in range(whole)], n * self.batch, came
        finally:
            free(times)
