"""ProtoV and VFuze headers, where they lie in a packet buffer.  Sizes and fields: docs/PROTOCOL.md."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    PROTOV_VERSION = 5
    VFUZE_MARK = 0x51
    PROTOV_SIZE = 30
    VFUZE_SIZE = 7
    TTL = 64
    FLAG_SUPERNODE = 2
    TYPE_REGISTER = 1
    TYPE_UNREGISTER = 2
    TYPE_HEARTBEAT = 3
    TYPE_DATA = 4
    TYPE_LIST_REQUEST = 6
    TYPE_PEER_INFO = 7
    TYPE_PING = 8
    TYPE_P2P_STATE = 9
    TYPE_FULL_STATE = 10
    TYPE_LEASES = 11
    TYPE_PUBLIC_KEY = 251
    TYPE_REGISTER_RESPONSE = 252
    TYPE_RETRY = 253
    OFF_TYPE = 2
    OFF_FLAGS = 3
    OFF_COMMUNITY = 6
    OFF_SOURCE = 10
    OFF_DEST = 16
    MAC_SIZE = 6
    ETH_SIZE = 14

cdef inline void put16(uint8_t *p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 8)
    p[1] = <uint8_t>v

cdef inline void put32(uint8_t *p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 24)
    p[1] = <uint8_t>(v >> 16)
    p[2] = <uint8_t>(v >> 8)
    p[3] = <uint8_t>v

cdef inline uint32_t get16(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 8) | p[1]

cdef inline uint32_t get32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]

cdef inline uint64_t get_mac(const uint8_t *p) noexcept nogil:
    """Six bytes as the low 48 bits of a number: what tables compare."""
    return (<uint64_t>get16(p) << 32) | get32(p + 2)

cdef inline void put_protov(uint8_t *p, int kind, uint32_t community, const uint8_t *source, const uint8_t *dest,
                            int flags, uint32_t sequence, uint32_t timestamp, uint32_t checksum,
                            int ttl) noexcept nogil:
    """Write the 30 bytes at `p`."""
    p[0] = PROTOV_VERSION
    p[1] = <uint8_t>ttl
    p[2] = <uint8_t>kind
    p[3] = <uint8_t>flags
    put16(p + 4, sequence)
    put32(p + OFF_COMMUNITY, community)
    memcpy(p + OFF_SOURCE, source, MAC_SIZE)
    memcpy(p + OFF_DEST, dest, MAC_SIZE)
    put32(p + 22, timestamp)
    put32(p + 26, checksum)

cdef inline void put_vfuze(uint8_t *p, const uint8_t *dest) noexcept nogil:
    """Write the 7 bytes at `p`."""
    p[0] = VFUZE_MARK
    memcpy(p + 1, dest, MAC_SIZE)
