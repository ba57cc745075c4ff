"""AES-256-GCM in place, through libcrypto or, where it is faster, ipsec-mb: contexts are keyed once.

    nonce (12) | ciphertext (as long as the frame) | tag (16)

Fetching the cipher and scheduling the key cost as much as sealing a full frame, so per packet only the
nonce is set.  Every edge of a community seals with the same key, so nonces must differ between hosts,
threads and restarts, not only within one counter: each context draws 64 random bits for its first
eight bytes and counts its packets in the last four; before the count wraps it draws anew.  Two
contexts meet only if they drew the same 64 bits (chance below n^2 / 2^65 for n draws of 2^32 packets
each; twelve random bytes per packet would reach that after 2^16 packets).
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from n2n._fastpath.ipsecmb cimport Mb, mb_close, mb_open, mb_open_sealed, mb_seal
from n2n._fastpath.linux cimport CLOCK_MONOTONIC, clock_gettime, getrandom, timespec
from n2n._fastpath.openssl cimport (
    CRYPTO_memcmp, ERR_clear_error, EVP_CIPHER, EVP_CIPHER_CTX, EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_free,
    EVP_CIPHER_CTX_new,
    EVP_CIPHER_fetch, EVP_CIPHER_free, EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG, EVP_DecryptFinal_ex,
    EVP_DecryptInit_ex2, EVP_DecryptUpdate, EVP_EncryptFinal_ex, EVP_EncryptInit_ex2, EVP_EncryptUpdate,
)
from n2n._fastpath.wire cimport put32

cdef enum:
    KEY_SIZE = 32
    NONCE_SIZE = 12
    TAG_SIZE = 16
    SEAL_OVERHEAD = 28

cdef struct Cipher:
    EVP_CIPHER *kind
    EVP_CIPHER_CTX *sealer
    EVP_CIPHER_CTX *opener
    uint8_t prefix[8]
    uint32_t count
    bint drawn
    bint use_mb
    Mb mb

cdef enum:                      # which library does the work
    BACKEND_AUTO = 0            # measured when the key is set
    BACKEND_LIBCRYPTO = 1
    BACKEND_IPSEC_MB = 2

cdef inline void cipher_free(Cipher *c) noexcept nogil:
    EVP_CIPHER_CTX_free(c.sealer)
    EVP_CIPHER_CTX_free(c.opener)
    EVP_CIPHER_free(c.kind)
    mb_close(&c.mb)
    c.sealer = c.opener = NULL
    c.kind = NULL
    c.use_mb = False

cdef inline bint cipher_init(Cipher *c, const uint8_t *key, int backend) noexcept nogil:
    """Key both directions; False where libcrypto refuses (no memory, or no AES-GCM in its providers), or where
    BACKEND_IPSEC_MB was asked for and it is not there."""
    memset(c, 0, sizeof(Cipher))
    c.sealer = EVP_CIPHER_CTX_new()
    c.opener = EVP_CIPHER_CTX_new()
    c.kind = EVP_CIPHER_fetch(NULL, b"AES-256-GCM", NULL)
    if (c.sealer == NULL or c.opener == NULL or c.kind == NULL
            or EVP_EncryptInit_ex2(c.sealer, c.kind, key, NULL, NULL) != 1
            or EVP_DecryptInit_ex2(c.opener, c.kind, key, NULL, NULL) != 1):
        cipher_free(c)
        return False
    if backend == BACKEND_LIBCRYPTO:
        return True
    if mb_open(&c.mb, key) and agrees(c):
        c.use_mb = True
        if backend == BACKEND_AUTO:
            c.use_mb = trial(c, True) < trial(c, False)
    if c.use_mb or backend == BACKEND_AUTO:
        return True
    cipher_free(c)
    return False

cdef inline bint next_nonce(Cipher *c, uint8_t *nonce) noexcept nogil:
    """Write the 12 bytes of a nonce that was never used before; False where the kernel gave no random bytes."""
    if not c.drawn or c.count == <uint32_t>0xFFFFFFFF:
        if getrandom(c.prefix, sizeof(c.prefix), 0) != <ssize_t>sizeof(c.prefix):
            return False
        c.drawn = True
        c.count = 0
    c.count += 1
    memcpy(nonce, c.prefix, 8)
    put32(nonce + 8, c.count)
    return True

cdef inline bint seal_evp(Cipher *c, uint8_t *data, int size) noexcept nogil:
    cdef int done = 0, rest = 0
    return (EVP_EncryptInit_ex2(c.sealer, NULL, NULL, data - NONCE_SIZE, NULL) == 1
            and EVP_EncryptUpdate(c.sealer, data, &done, data, size) == 1
            and EVP_EncryptFinal_ex(c.sealer, data + done, &rest) == 1
            and EVP_CIPHER_CTX_ctrl(c.sealer, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, data + size) == 1)

cdef inline bint seal(Cipher *c, uint8_t *data, int size) noexcept nogil:
    """Seal `size` bytes where they lie: the nonce must already stand in the 12 bytes before `data`, the tag
    goes into the 16 bytes behind."""
    if c.use_mb:
        mb_seal(&c.mb, data, size, data - NONCE_SIZE, data + size)
        return True
    return seal_evp(c, data, size)

cdef inline int open_sealed(Cipher *c, uint8_t *sealed, int size) noexcept nogil:
    """Open nonce | ciphertext | tag where they lie; the plain bytes begin at `sealed` + 12.

    Returns how many there are, or -1: too short, altered, or sealed with another key.
    """
    cdef int inner = size - SEAL_OVERHEAD, done = 0, rest = 0
    cdef uint8_t *data = sealed + NONCE_SIZE
    cdef uint8_t tag[16]
    if inner < 0:
        return -1
    if c.use_mb:
        mb_open_sealed(&c.mb, data, inner, sealed, tag)
        return inner if CRYPTO_memcmp(tag, data + inner, TAG_SIZE) == 0 else -1
    if (EVP_DecryptInit_ex2(c.opener, NULL, NULL, sealed, NULL) == 1
            and EVP_DecryptUpdate(c.opener, data, &done, data, inner) == 1
            and EVP_CIPHER_CTX_ctrl(c.opener, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, data + inner) == 1
            and EVP_DecryptFinal_ex(c.opener, data + done, &rest) == 1):
        return inner
    ERR_clear_error()       # or strangers' packets would fill this thread's error queue
    return -1

# ---- choosing a library -------------------------------------------------------------------------

cdef enum:
    TRIAL_SIZE = 1434           # a full frame at the TAP's usual MTU
    TRIAL_ROUNDS = 64

cdef inline bint agrees(Cipher *c) noexcept nogil:
    """Do both libraries give the same bytes, at sizes around every block boundary that matters?"""
    cdef uint8_t a[12 + 1500 + 16]
    cdef uint8_t b[12 + 1500 + 16]
    cdef int size = 0, i
    cdef bint same = True
    while size <= 1500 and same:
        for i in range(12 + 1500 + 16):
            a[i] = b[i] = <uint8_t>(i * 7 + size)
        same = seal_evp(c, a + NONCE_SIZE, size)
        mb_seal(&c.mb, b + NONCE_SIZE, size, b, b + NONCE_SIZE + size)
        same = same and memcmp(a, b, NONCE_SIZE + size + TAG_SIZE) == 0
        c.use_mb = True
        same = same and open_sealed(c, b, size + SEAL_OVERHEAD) == size
        c.use_mb = False
        size += 1 if size < 66 else 61
    return same

cdef inline long trial(Cipher *c, bint use_mb) noexcept nogil:
    """Nanoseconds of the fastest of some seals (with a made-up nonce, of made-up bytes)."""
    cdef uint8_t b[12 + 1434 + 16]
    cdef timespec x, y
    cdef long best = 1 << 30, took
    cdef bint was = c.use_mb
    cdef int _
    memset(b, 0, sizeof(b))
    c.use_mb = use_mb
    for _ in range(TRIAL_ROUNDS):
        clock_gettime(CLOCK_MONOTONIC, &x)
        seal(c, b + NONCE_SIZE, TRIAL_SIZE)
        clock_gettime(CLOCK_MONOTONIC, &y)
        took = (y.tv_sec - x.tv_sec) * 1000000000 + y.tv_nsec - x.tv_nsec
        if took < best:
            best = took
    c.use_mb = was
    return best
