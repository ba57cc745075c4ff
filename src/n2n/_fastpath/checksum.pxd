"""The Internet checksum (RFC 1071), and the headers that carry it.

Sums are kept in the machine's own byte order: a ones'-complement sum does not mind, as long as what is
read and written is read and written alike.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #include "cpu.h"

    static inline uint64_t n2n_sum_tail(const uint8_t *p, size_t n, uint64_t acc)
    {
        uint64_t w;
        uint32_t h;
        uint16_t q = 0;
        for (; n >= 8; p += 8, n -= 8) {
            memcpy(&w, p, 8);
            acc += (w & 0xffffffff) + (w >> 32);
        }
        if (n >= 4) { memcpy(&h, p, 4); acc += h; p += 4; n -= 4; }
        if (n >= 2) { memcpy(&q, p, 2); acc += q; p += 2; n -= 2; q = 0; }
        if (n) { memcpy(&q, p, 1); acc += q; }
        return acc;
    }

    #if defined(__x86_64__)
    #include <immintrin.h>
    __attribute__((target("avx2")))
    static uint64_t n2n_sum_avx2(const uint8_t *p, size_t n)
    {
        const __m256i low = _mm256_set1_epi64x(0xffffffff);
        __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
        uint64_t lanes[4];
        for (; n >= 64; p += 64, n -= 64) {
            __m256i v = _mm256_loadu_si256((const __m256i *)p);
            __m256i w = _mm256_loadu_si256((const __m256i *)(p + 32));
            a = _mm256_add_epi64(a, _mm256_and_si256(v, low));
            b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
            c = _mm256_add_epi64(c, _mm256_and_si256(w, low));
            d = _mm256_add_epi64(d, _mm256_srli_epi64(w, 32));
        }
        _mm256_storeu_si256((__m256i *)lanes, _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d)));
        return n2n_sum_tail(p, n, lanes[0] + lanes[1] + lanes[2] + lanes[3]);
    }
    static int n2n_sum_wide = -1;
    static inline int n2n_sum_probe(void)
    {
        if (n2n_sum_wide < 0) n2n_sum_wide = n2n_cpu_level() >= N2N_CPU_AVX2;
        return n2n_sum_wide;
    }
    static inline uint64_t n2n_sum(const uint8_t *p, size_t n)
    { return n2n_sum_wide > 0 && n >= 128 ? n2n_sum_avx2(p, n) : n2n_sum_tail(p, n, 0); }
    #else
    static inline int n2n_sum_probe(void) { return 0; }
    static inline uint64_t n2n_sum(const uint8_t *p, size_t n) { return n2n_sum_tail(p, n, 0); }
    #endif

    static inline uint16_t n2n_fold(uint64_t s)
    {
        s = (s & 0xffffffff) + (s >> 32);
        s = (s & 0xffffffff) + (s >> 32);
        s = (s & 0xffff) + (s >> 16);
        s = (s & 0xffff) + (s >> 16);
        return (uint16_t)s;
    }
    static inline uint16_t n2n_raw16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
    static inline void n2n_set_raw16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
    """
    int n2n_sum_probe() nogil                              # 1: the AVX2 routine is used; call it once before sums
    uint64_t n2n_sum(const uint8_t *p, size_t n) nogil     # n below 2^32 / 2^16 words: never overflows
    uint16_t n2n_fold(uint64_t s) nogil
    uint16_t n2n_raw16(const uint8_t *p) nogil
    void n2n_set_raw16(uint8_t *p, uint16_t v) nogil

cdef inline uint16_t net16(uint32_t v) noexcept nogil:
    """A number as the 16 bits that lie in a packet."""
    cdef uint8_t b[2]
    b[0] = <uint8_t>(v >> 8)
    b[1] = <uint8_t>v
    return n2n_raw16(b)

cdef inline uint64_t pseudo_sum(const uint8_t *ip, bint v6, uint32_t proto, uint32_t l4_size) noexcept nogil:
    """Sum of the pseudo-header (RFC 9293, RFC 8200) for addresses that stand in the IP header at `ip`."""
    if v6:
        return n2n_sum(ip + 8, 32) + net16(proto) + net16(l4_size)
    return n2n_sum(ip + 12, 8) + net16(proto) + net16(l4_size)

cdef inline void finish_checksum(uint8_t *start, size_t size, int offset) noexcept nogil:
    """Complete a checksum whose field (at `offset` from `start`) holds the sum of the pseudo-header."""
    cdef uint16_t sum = n2n_fold(n2n_sum(start, size))
    sum = <uint16_t>~sum
    n2n_set_raw16(start + offset, 0xFFFF if sum == 0 else sum)     # 0 would mean "none" in UDP; both are right in TCP

cdef inline void finish_ip_header(uint8_t *ip, int size) noexcept nogil:
    n2n_set_raw16(ip + 10, 0)
    n2n_set_raw16(ip + 10, <uint16_t>~n2n_fold(n2n_sum(ip, size)))
