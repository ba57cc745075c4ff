"""Numbers of protocol version 5, as its edges and supernodes use them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = [
    "DEFAULT_TTL",
    "FLAG_EXTENDED",
    "FLAG_SUPERNODE",
    "MAX_DATAGRAM",
    "PROTOCOL_VERSION",
    "PROTOV_SIZE",
    "VFUZE_MARK",
    "VFUZE_SIZE",
    "P2PStatus",
    "PacketType",
    "PeerEvent",
]

#: First byte of every ProtoV packet.
PROTOCOL_VERSION: Final = 5
#: First byte of every VFuze packet.
VFUZE_MARK: Final = 0x51
#: Bytes of a ProtoV header.
PROTOV_SIZE: Final = 30
#: Bytes of a VFuze header.
VFUZE_SIZE: Final = 7
#: Bytes of the largest UDP payload over IPv4 (65535 - 20 - 8), the most that is read or sent.
MAX_DATAGRAM: Final = 65507
#: Written by everyone, looked at by no one, not counted down.
DEFAULT_TTL: Final = 64
#: Named by the protocol, neither set nor read.
FLAG_EXTENDED: Final = 0x01
#: The packet was made, or relayed, by a supernode.
FLAG_SUPERNODE: Final = 0x02


class PacketType(IntEnum):
    """What a ProtoV packet carries (byte 2 of its header)."""

    REGISTER_REQUEST = 1
    UNREGISTER_REQUEST = 2
    HEARTBEAT = 3
    DATA = 4
    ACK = 5
    PEER_LIST_REQUEST = 6
    PEER_INFO = 7
    PING = 8
    P2P_STATE = 9
    P2P_FULL_STATE = 10
    LEASES_INFOS = 11
    ONLINE_CHECK = 12
    SN_PUBLIC_SECRET = 251
    REGISTER_RESPONSE = 252
    RETRY_REGISTER = 253


class PeerEvent(IntEnum):
    """Why a supernode sent a PeerInfoList."""

    LIST = 1
    REGISTERED = 2
    UNREGISTERED = 3


class P2PStatus(IntEnum):
    """How far an edge has got with the direct path to a peer, as it tells others."""

    UNKNOWN = 0
    PENDING = 1
    AVAILABLE = 2
    FULL_DUPLEX = 3
    UNAVAILABLE = 4
