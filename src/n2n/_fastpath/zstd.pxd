"""zstd by way of the system's libzstd, loaded when compression is first asked for.

Loaded and not linked, so that a build needs nothing of it; prototypes and parameter numbers are those
of its stable interface (zstd.h, 1.4.0 and newer).
"""

from libc.stdint cimport uint8_t
from libc.stddef cimport size_t

from n2n._fastpath.linux cimport RTLD_LOCAL, RTLD_NOW, dlopen, dlsym

ctypedef void *(*zstd_new)() noexcept nogil
ctypedef size_t (*zstd_free)(void *) noexcept nogil
ctypedef size_t (*zstd_set)(void *, int, int) noexcept nogil
ctypedef size_t (*zstd_compress)(void *, void *, size_t, const void *, size_t) noexcept nogil
ctypedef unsigned int (*zstd_is_error)(size_t) noexcept nogil

cdef enum:
    ZSTD_C_LEVEL = 100
    ZSTD_C_CHECKSUM = 201
    ZSTD_LEVEL = 1          # the fastest that still compresses; receivers take any

cdef struct Zstd:
    void *library
    zstd_new new_c
    zstd_new new_d
    zstd_free free_c
    zstd_free free_d
    zstd_set set_c
    zstd_compress compress
    zstd_compress decompress
    zstd_is_error is_error
    void *c
    void *d

cdef inline void zstd_close(Zstd *z) noexcept nogil:
    if z.c != NULL:
        z.free_c(z.c)
    if z.d != NULL:
        z.free_d(z.d)
    z.c = z.d = NULL

cdef inline bint zstd_open(Zstd *z) noexcept nogil:
    """Load the library and make one context a direction; False where it is not installed or too old."""
    z.c = z.d = NULL
    z.library = dlopen(b"libzstd.so.1", RTLD_NOW | RTLD_LOCAL)
    if z.library == NULL:
        return False
    z.new_c = <zstd_new>dlsym(z.library, b"ZSTD_createCCtx")
    z.new_d = <zstd_new>dlsym(z.library, b"ZSTD_createDCtx")
    z.free_c = <zstd_free>dlsym(z.library, b"ZSTD_freeCCtx")
    z.free_d = <zstd_free>dlsym(z.library, b"ZSTD_freeDCtx")
    z.set_c = <zstd_set>dlsym(z.library, b"ZSTD_CCtx_setParameter")
    z.compress = <zstd_compress>dlsym(z.library, b"ZSTD_compress2")
    z.decompress = <zstd_compress>dlsym(z.library, b"ZSTD_decompressDCtx")
    z.is_error = <zstd_is_error>dlsym(z.library, b"ZSTD_isError")
    if (z.new_c == NULL or z.new_d == NULL or z.free_c == NULL or z.free_d == NULL or z.set_c == NULL
            or z.compress == NULL or z.decompress == NULL or z.is_error == NULL):
        return False
    z.c = z.new_c()
    z.d = z.new_d()
    if (z.c == NULL or z.d == NULL or z.is_error(z.set_c(z.c, ZSTD_C_LEVEL, ZSTD_LEVEL))
            or z.is_error(z.set_c(z.c, ZSTD_C_CHECKSUM, 1))):
        zstd_close(z)
        return False
    return True

cdef inline int zstd_deflate(Zstd *z, uint8_t *out, size_t room, const uint8_t *data, size_t size) noexcept nogil:
    """One frame with a checksum of its content; an empty input gives an empty output.  Its size, or -1."""
    cdef size_t n
    if size == 0:
        return 0
    n = z.compress(z.c, out, room, data, size)
    return -1 if z.is_error(n) else <int>n

cdef inline int zstd_inflate(Zstd *z, uint8_t *out, size_t room, const uint8_t *data, size_t size) noexcept nogil:
    """All frames of `data`, into at most `room` bytes.  Their size, or -1.

    In one shot the output is its own window: nothing is allocated, whatever window a stranger's frame declares.
    """
    cdef size_t n
    if size == 0:
        return 0
    n = z.decompress(z.d, out, room, data, size)
    return -1 if z.is_error(n) else <int>n
