"""The control messages, one dataclass per structure of the wire.

Fields carry the values as they are on the wire, unjudged: addresses of any length, ports of any
size, names of any content.  :func:`to_peer` is where a PeerInfo becomes something to act on.
Every field has the zero value of its kind as default, which is also what a field absent from the
wire decodes to.  `n2n` is what protocol v5 does not have (:mod:`n2n.wire.cards` says what is in it): a message in which
it is empty is written exactly as v5 writes it.  Text is `str` with surrogate escapes for bytes that are not UTF-8.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from n2n import types
from n2n.errors import MalformedDatagram
from n2n.types import Endpoint, MacAddress
from n2n.wire.hashes import clean_name

__all__ = [
    "GoTime",
    "HeartbeatPulse",
    "Lease",
    "LeaseEdgeInfos",
    "LeaseWithEdgeInfos",
    "LeasesInfos",
    "OnlineCheck",
    "P2PCommunityDatas",
    "P2PFullState",
    "Peer",
    "PeerCachedInfo",
    "PeerInfo",
    "PeerInfoList",
    "PeerListRequest",
    "PeerP2PInfos",
    "PeerToPing",
    "RegisterRequest",
    "RegisterResponse",
    "SNPublicSecret",
    "UDPAddr",
    "UnregisterRequest",
    "from_peer",
    "to_peer",
]

_MAPPED: Final = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class GoTime:
    """A time as the reference writes it.  An absent time is `None`, not one of these.

    Args:
        unix: seconds since 1970; year 1 is representable and does occur.
        nsec: nanoseconds within the second, 0 to 999 999 999.
        offset: the sender's zone in seconds east of UTC, or None for the mark "UTC".

    >>> GoTime.of(1.5)
    GoTime(unix=1, nsec=500000000, offset=0)
    """

    unix: int
    nsec: int = 0
    offset: int | None = 0

    @classmethod
    def of(cls, wall: float) -> GoTime:
        """From Unix seconds, in zone UTC (as an offset of zero, which is what Go mostly writes)."""
        seconds = math.floor(wall)
        nsec = min(int((wall - seconds) * 1e9), 999_999_999)
        return cls(seconds, nsec)

    @property
    def wall(self) -> float:
        """Unix seconds."""
        return self.unix + self.nsec / 1e9


@dataclass(frozen=True, slots=True)
class UDPAddr:
    """Where a supernode saw an edge: `ip` of 4 bytes, or 16 (IPv4-mapped from a dual-stack socket)."""

    ip: bytes = b""
    port: int = 0
    zone: str = ""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One edge as a supernode describes it: `virtual_ip` of 0, 4 or 16 bytes, `mac_addr` of 6."""

    virtual_ip: bytes = b""
    mac_addr: bytes = b""
    pub_socket: UDPAddr | None = None
    community: str = ""
    desc: str = ""
    n2n: bytes = b""


@dataclass(frozen=True, slots=True)
class Peer:
    """One edge as another edge sees it; `p2p_status` is a P2PStatus."""

    infos: PeerInfo = PeerInfo()
    p2p_status: int = 0
    is_full_duplex: bool = False
    p2p_check_id: str = ""
    updated_at: GoTime | None = None


@dataclass(frozen=True, slots=True)
class PeerCachedInfo:
    """An edge that was registered once and is gone."""

    desc: str = ""
    mac_addr: str = ""
    virtual_ip: bytes = b""
    community: str = ""
    last_update: GoTime | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A virtual address given to a MAC address."""

    ip: bytes = b""
    mac: str = ""
    expiry: GoTime | None = None
    sticky: bool = False
    last_renew: GoTime | None = None


@dataclass(frozen=True, slots=True)
class LeaseEdgeInfos:
    """What a supernode knows of a lease's owner; `time_since_last_update` in nanoseconds, -10^9 if unknown."""

    edge_id: str = ""
    is_registered: bool = False
    time_since_last_update: int = 0
    virtual_ip: bytes = b""


@dataclass(frozen=True, slots=True)
class LeaseWithEdgeInfos:
    """A lease and its owner."""

    lease: Lease = Lease()
    lease_edge_infos: LeaseEdgeInfos = LeaseEdgeInfos()


@dataclass(frozen=True, slots=True)
class SNPublicSecret:
    """Type 251: the question for a supernode's public key, and the answer with its PEM text."""

    is_request: bool = False
    pem_data: bytes = b""
    n2n: bytes = b""


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """Type 1: an edge wants to join; `encrypted_machine_id` is RSA-OAEP."""

    edge_mac_addr: str = ""
    edge_desc: str = ""
    community_name: str = ""
    encrypted_machine_id: bytes = b""
    clear_machine_id: bytes = b""
    n2n: bytes = b""


@dataclass(frozen=True, slots=True)
class RegisterResponse:
    """Type 252: the edge's virtual address (dotted text) and prefix length, or a refusal without reason."""

    is_register_ok: bool = False
    virtual_ip: str = ""
    masklen: int = 0
    n2n: bytes = b""


@dataclass(frozen=True, slots=True)
class HeartbeatPulse:
    """Type 3: the edge lives and is to be found where this came from."""

    edge_mac_addr: str = ""
    community_name: str = ""
    encrypted_machine_id: bytes = b""
    clear_machine_id: bytes = b""
    n2n: bytes = b""


@dataclass(frozen=True, slots=True)
class UnregisterRequest:
    """Type 2: the edge leaves."""

    edge_mac_addr: str = ""
    community_name: str = ""
    encrypted_machine_id: bytes = b""


@dataclass(frozen=True, slots=True)
class PeerListRequest:
    """Type 6: who else is here?"""

    community_name: str = ""


@dataclass(frozen=True, slots=True)
class PeerToPing:
    """Type 8: ping and pong."""

    check_id: str = ""
    is_pong: bool = False
    n2n: bytes = b""


@dataclass(frozen=True, slots=True)
class PeerInfoList:
    """Type 7: all other edges (event 1), or the one that came, changed (2) or went (3)."""

    has_origin: bool = False
    origin: PeerInfo = PeerInfo()
    peer_infos: tuple[PeerInfo, ...] = ()
    event_type: int = 0


@dataclass(frozen=True, slots=True)
class PeerP2PInfos:
    """Type 9: how an edge sees its peers."""

    from_: Peer | None = None
    to: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class P2PCommunityDatas:
    """How all edges of a community see each other, by MAC address in text form; None is not the same as empty."""

    reachables: Mapping[str, PeerP2PInfos] | None = None
    unreachables: Mapping[str, PeerCachedInfo] | None = None


@dataclass(frozen=True, slots=True)
class P2PFullState:
    """Type 10: the question for a community's P2P state, and the answer."""

    community_name: str = ""
    is_request: bool = False
    p2p_community_datas: P2PCommunityDatas = P2PCommunityDatas()


@dataclass(frozen=True, slots=True)
class LeasesInfos:
    """Type 11: the question for a community's leases, and the answer, by MAC address in text form."""

    is_request: bool = False
    community_name: str = ""
    leases_with_edges_infos: Mapping[str, LeaseWithEdgeInfos] | None = None


@dataclass(frozen=True, slots=True)
class OnlineCheck:
    """Type 12: never used."""

    cookie: str = ""


def to_peer(info: PeerInfo) -> types.PeerInfo:
    """What a supernode tells of an edge, checked and in our own types.

    The name is cut to 64 characters and loses those that cannot be seen; the community is left as it is.

    Raises:
        MalformedDatagram: the MAC address is not 6 bytes of a unicast address; there is no socket address,
            or one that nothing can be sent to; the virtual address is not IPv4.

    >>> socket = UDPAddr(bytes(10) + b"\\xff\\xff\\xc0\\x00\\x02\\x01", 7777)
    >>> peer = to_peer(PeerInfo(b"\\x0a\\0\\0\\1", bytes.fromhex("0a689774d544"), socket, "acme", "laptop"))
    >>> peer.endpoint, peer.virtual_ip
    (Endpoint('192.0.2.1:7777'), IPv4Address('10.0.0.1'))
    """
    if len(info.mac_addr) != 6:
        raise MalformedDatagram(f"a peer with a MAC address of {len(info.mac_addr)} bytes")
    mac = MacAddress(info.mac_addr)
    if mac.is_zero or mac.is_multicast:
        raise MalformedDatagram(f"a peer with the MAC address {mac}, which is nobody's")
    return types.PeerInfo(
        mac=mac,
        name=clean_name(info.desc),
        community=info.community,
        virtual_ip=_virtual_ip(info.virtual_ip),
        endpoint=_endpoint(info.pub_socket),
    )


def _virtual_ip(raw: bytes) -> IPv4Address | None:
    if not raw:
        return None
    if len(raw) == 16 and raw.startswith(_MAPPED):
        raw = raw[12:]
    if len(raw) != 4:
        raise MalformedDatagram(f"a peer with a virtual address that is not IPv4 ({len(raw)} bytes)")
    return IPv4Address(raw)


def _endpoint(socket: UDPAddr | None) -> Endpoint:
    if socket is None:
        raise MalformedDatagram("a peer without a socket address")
    if len(socket.ip) not in (4, 16):
        raise MalformedDatagram(f"a peer with a socket address of {len(socket.ip)} bytes")
    if not 1 <= socket.port <= 65535:
        raise MalformedDatagram(f"a peer with the port {socket.port}")
    endpoint = Endpoint(ipaddress.ip_address(socket.ip), socket.port)
    ip = endpoint.ip
    if ip.is_unspecified or ip.is_multicast or ip.packed == b"\xff\xff\xff\xff":
        raise MalformedDatagram(f"a peer at {endpoint}, which is nobody's address")
    return endpoint


def from_peer(peer: types.PeerInfo, mapped: bool, card: bytes = b"") -> PeerInfo:
    """An edge as a supernode tells others of it.

    Args:
        peer: the edge.
        mapped: write an IPv4 socket address as 16 bytes (IPv4-mapped), as the reference does on a dual-stack socket.
        card: the edge's card, as it gave it.

    >>> from n2n.types import Endpoint, PeerInfo as Known
    >>> known = Known(MacAddress.parse("0a:68:97:74:d5:44"), "laptop", "acme", None, Endpoint.parse("192.0.2.1:7777"))
    >>> from_peer(known, mapped=False).pub_socket
    UDPAddr(ip=b'\\xc0\\x00\\x02\\x01', port=7777, zone='')
    """
    ip = peer.endpoint.packed
    if mapped and len(ip) == 4:
        ip = _MAPPED + ip
    return PeerInfo(
        virtual_ip=peer.virtual_ip.packed if peer.virtual_ip is not None else b"",
        mac_addr=peer.mac.raw,
        pub_socket=UDPAddr(ip, peer.endpoint.port),
        community=peer.community,
        desc=peer.name,
        n2n=card,
    )
