"""Fences behind received datagrams, in builds with AddressSanitizer; elsewhere they are nothing.

All packet buffers lie in one mapping, so that a read beyond a short datagram hits the remains of a former one, which
no tool would see.
"""

from libc.stddef cimport size_t

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    static inline void n2n_fence(const void *p, size_t n) { __asan_poison_memory_region(p, n); }
    static inline void n2n_unfence(const void *p, size_t n) { __asan_unpoison_memory_region(p, n); }
    #else
    static inline void n2n_fence(const void *p, size_t n) { (void)p; (void)n; }
    static inline void n2n_unfence(const void *p, size_t n) { (void)p; (void)n; }
    #endif
    """
    void n2n_fence(const void *p, size_t n) nogil
    void n2n_unfence(const void *p, size_t n) nogil
