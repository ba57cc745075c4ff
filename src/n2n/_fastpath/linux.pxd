"""Externs of the kernel and the C library; nothing of ours."""

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<sys/types.h>" nogil:
    ctypedef unsigned int socklen_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t readv(int fd, const iovec *iov, int count)
    ssize_t writev(int fd, const iovec *iov, int count)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buf, size_t count)
    ssize_t write(int fd, const void *buf, size_t count)
    int close(int fd)
    int dup(int fd)

cdef extern from "<sys/socket.h>" nogil:
    int AF_INET, AF_INET6
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    struct sockaddr:
        unsigned short sa_family
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int getsockname(int fd, sockaddr *name, socklen_t *size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    ssize_t sendto(int fd, const void *buf, size_t size, int flags, const sockaddr *to, socklen_t tolen)
    int sendmmsg(int fd, mmsghdr *msgs, unsigned int count, int flags)
    int recvmmsg(int fd, mmsghdr *msgs, unsigned int count, int flags, void *timeout)
    cmsghdr *CMSG_FIRSTHDR(msghdr *msg)
    cmsghdr *CMSG_NXTHDR(msghdr *msg, cmsghdr *cmsg)
    void *CMSG_DATA(cmsghdr *cmsg)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t htons(uint16_t host)
    uint16_t ntohs(uint16_t net)
    uint32_t htonl(uint32_t host)
    uint32_t ntohl(uint32_t net)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL
    int poll(pollfd *fds, unsigned long count, int timeout_ms)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int initial, int flags)

cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    void *MAP_FAILED
    void *mmap(void *addr, size_t size, int prot, int flags, int fd, long offset)
    int munmap(void *addr, size_t size)

cdef extern from * nogil:
    """
    #include <sys/syscall.h>
    #include <sys/types.h>
    #include <unistd.h>
    /* In glibc since 2.25, in the kernel since 3.17: our wheels run with glibc 2.17. */
    static inline ssize_t n2n_getrandom(void *buf, size_t size, unsigned int flags)
    { return syscall(SYS_getrandom, buf, size, flags); }
    """
    ssize_t getrandom "n2n_getrandom"(void *buf, size_t size, unsigned int flags)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *time, timespec *left)
    int CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)

cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN, EINTR, EIO, EINVAL, EMSGSIZE, ENOBUFS, EBADF, EPERM, EOPNOTSUPP, ENOPROTOOPT, EBADFD

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL
    void *dlopen(const char *name, int flags)
    void *dlsym(void *handle, const char *symbol)

cdef extern from *:
    """
    #ifndef SOL_UDP
    #define SOL_UDP 17
    #endif
    #ifndef UDP_SEGMENT     /* linux/udp.h, since 4.18 */
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO         /* since 5.0 */
    #define UDP_GRO 104
    #endif
    """
    int SOL_UDP, UDP_SEGMENT, UDP_GRO
