"""Loads, stores and additions that order memory between the plane's thread and Python's."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint32_t n2n_load(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void n2n_store(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint32_t n2n_add(uint32_t *p, uint32_t v) { return __atomic_add_fetch(p, v, __ATOMIC_RELAXED); }
    static inline int n2n_get_int(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void n2n_set_int(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint64_t n2n_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void n2n_bump64(uint64_t *p, uint64_t v)
    { __atomic_store_n(p, __atomic_load_n(p, __ATOMIC_RELAXED) + v, __ATOMIC_RELAXED); }
    static inline void n2n_add64(uint64_t *p, uint64_t v) { __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
    static inline void n2n_put64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    """
    uint32_t n2n_load(const uint32_t *p) nogil
    void n2n_store(uint32_t *p, uint32_t v) nogil
    uint32_t n2n_add(uint32_t *p, uint32_t v) nogil
    int n2n_get_int(const int *p) nogil
    void n2n_set_int(int *p, int v) nogil
    uint64_t n2n_load64(const uint64_t *p) nogil
    # One writer only: a plain addition whose halves no reader can see apart, without a locked instruction.
    void n2n_bump64(uint64_t *p, uint64_t v) nogil
    void n2n_add64(uint64_t *p, uint64_t v) nogil
    void n2n_put64(uint64_t *p, uint64_t v) nogil
