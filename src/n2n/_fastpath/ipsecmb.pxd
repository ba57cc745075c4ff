"""AES-256-GCM by way of Intel's ipsec-mb, where the system has it: loaded at run time, never needed.

Its functions for one packet are exported by name, one set per instruction set (intel-ipsec-mb.h, 1.0
to 1.5).  Key material is opaque to us: we give it more room than any version takes (1,008 bytes in 1.3).
Who opens it checks what it computes against libcrypto before a packet depends on it.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memset

from n2n._fastpath.linux cimport RTLD_LOCAL, RTLD_NOW, dlopen, dlsym
from n2n._fastpath.openssl cimport OPENSSL_cleanse

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "cpu.h" nogil:
    int n2n_cpu_level()
    int N2N_CPU_AVX2_AES, N2N_CPU_AVX512_VAES

ctypedef void (*mb_pre)(const void *key, void *keys) noexcept nogil
ctypedef void (*mb_gcm)(const void *keys, void *context, uint8_t *out, const uint8_t *data, uint64_t size,
                        const uint8_t *iv, const uint8_t *aad, uint64_t aad_size, uint8_t *tag,
                        uint64_t tag_size) noexcept nogil

cdef enum:
    MB_KEYS = 4096
    MB_CONTEXT = 1024

cdef struct Mb:
    mb_gcm enc
    mb_gcm dec
    uint8_t *keys               # MB_KEYS bytes, then MB_CONTEXT; aligned to a cache line

cdef inline void mb_close(Mb *m) noexcept nogil:
    if m.keys != NULL:
        OPENSSL_cleanse(m.keys, MB_KEYS + MB_CONTEXT)
        free(m.keys)
    m.keys = NULL

cdef inline void *mb_symbol(void *library, const char *name) noexcept nogil:
    cdef char full[64]
    cdef bint wide = n2n_cpu_level() >= N2N_CPU_AVX512_VAES
    snprintf(full, sizeof(full), b"aes_gcm_%s_256_%s", name, b"vaes_avx512" if wide else b"avx_gen4")
    return dlsym(library, full)

cdef inline bint mb_open(Mb *m, const uint8_t *key) noexcept nogil:
    """Load the library and schedule the key; False where it is not installed or has nothing for this processor."""
    cdef mb_pre pre
    cdef void *library
    m.keys = NULL
    if n2n_cpu_level() < N2N_CPU_AVX2_AES:
        return False
    library = dlopen(b"libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        return False
    pre = <mb_pre>mb_symbol(library, b"pre")
    m.enc = <mb_gcm>mb_symbol(library, b"enc")
    m.dec = <mb_gcm>mb_symbol(library, b"dec")
    if pre == NULL or m.enc == NULL or m.dec == NULL:
        return False
    m.keys = <uint8_t *>aligned_alloc(64, MB_KEYS + MB_CONTEXT)
    if m.keys == NULL:
        return False
    memset(m.keys, 0, MB_KEYS + MB_CONTEXT)
    pre(key, m.keys)
    return True

cdef inline void mb_seal(Mb *m, uint8_t *data, uint64_t size, const uint8_t *nonce, uint8_t *tag) noexcept nogil:
    m.enc(m.keys, m.keys + MB_KEYS, data, data, size, nonce, NULL, 0, tag, 16)

cdef inline void mb_open_sealed(Mb *m, uint8_t *data, uint64_t size, const uint8_t *nonce, uint8_t *tag) noexcept nogil:
    """Decrypts in place and tells the tag that should have come with it; the caller compares."""
    m.dec(m.keys, m.keys + MB_KEYS, data, data, size, nonce, NULL, 0, tag, 16)
