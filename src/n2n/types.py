"""Values that every layer shares: addresses, endpoints, communities, peers.

All are immutable, hashable and validated when they are made; none knows how it looks on the wire.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

__all__ = [
    "BROADCAST_MAC",
    "SUPERNODE_MAC",
    "ZERO_MAC",
    "Endpoint",
    "Instant",
    "MacAddress",
    "PeerInfo",
]


@dataclass(frozen=True, slots=True, order=True)
class MacAddress:
    """An Ethernet address.

    Args:
        raw: exactly 6 bytes, first byte first on the wire.

    Raises:
        ValueError: `raw` is not 6 bytes.

    >>> MacAddress.parse("0A:68:97:74:D5:44")
    MacAddress('0a:68:97:74:d5:44')
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> MacAddress:
        """Read six hexadecimal pairs joined by colons, in either case.

        Raises:
            ValueError: `text` has another form.
        """
        parts = text.split(":")
        if len(parts) != 6 or any(len(part) != 2 for part in parts):
            raise ValueError(f"{text!r} is not a MAC address (six hexadecimal pairs joined by colons)")
        try:
            return cls(bytes.fromhex("".join(parts)))
        except ValueError:
            raise ValueError(f"{text!r} is not a MAC address (six hexadecimal pairs joined by colons)") from None

    def __str__(self) -> str:
        return self.raw.hex(":")

    def __repr__(self) -> str:
        return f"MacAddress('{self}')"

    @property
    def is_zero(self) -> bool:
        """True for the all-zero address, which in a header means "absent"."""
        return self.raw == b"\0" * 6

    @property
    def is_broadcast(self) -> bool:
        """True for ff:ff:ff:ff:ff:ff."""
        return self.raw == b"\xff" * 6

    @property
    def is_multicast(self) -> bool:
        """True where the group bit (IEEE 802: bit 0 of the first byte) is set; broadcast included."""
        return bool(self.raw[0] & 1)


ZERO_MAC: Final = MacAddress(bytes(6))
BROADCAST_MAC: Final = MacAddress(b"\xff" * 6)
#: Source address of every message that a supernode makes itself (protocol v5).
SUPERNODE_MAC: Final = MacAddress(bytes.fromhex("cafec0ffee00"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and a UDP port.

    An IPv4-mapped IPv6 address becomes the IPv4 address it stands for, so that one peer has one
    endpoint whatever kind of socket its datagram came in by.

    Args:
        ip: the address; a scope id of a link-local IPv6 address stays part of it.
        port: 0 to 65535.

    Raises:
        ValueError: `port` is out of range.

    >>> Endpoint.parse("[::ffff:192.0.2.1]:7777")
    Endpoint('192.0.2.1:7777')
    """

    ip: IPv4Address | IPv6Address
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if isinstance(self.ip, IPv6Address) and (mapped := self.ip.ipv4_mapped) is not None:
            object.__setattr__(self, "ip", mapped)

    @classmethod
    def of(cls, host: str, port: int) -> Endpoint:
        """From the text of an IP address and a port.

        Raises:
            ValueError: `host` is not an IP address, or `port` is out of range.
        """
        return cls(ipaddress.ip_address(host), port)

    @classmethod
    def of_sockaddr(cls, sockaddr: tuple[Any, ...]) -> Endpoint:
        """From what `socket.recvfrom` or `getsockname` returns (AF_INET or AF_INET6)."""
        host = str(sockaddr[0])
        if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
            host = f"{host}%{sockaddr[3]}"
        return cls.of(host, int(sockaddr[1]))

    @classmethod
    def of_packed(cls, ip: bytes, port: int) -> Endpoint:
        """From 4 or 16 bytes of address.

        Raises:
            ValueError: `ip` has another length, or `port` is out of range.
        """
        if len(ip) not in (4, 16):
            raise ValueError(f"an IP address has 4 or 16 bytes, not {len(ip)}")
        return cls(ipaddress.ip_address(ip), port)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``192.0.2.1:7777`` or ``[2001:db8::1]:7777``.

        Raises:
            ValueError: `text` has another form.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit():
            raise ValueError(f"{text!r} is not an endpoint (address:port)")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r} is not an endpoint: write an IPv6 address in brackets")
        return cls.of(host, int(port))

    @property
    def packed(self) -> bytes:
        """4 bytes for IPv4, 16 for IPv6, network order; without the scope id."""
        return self.ip.packed

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if isinstance(self.ip, IPv6Address) else f"{self.ip}:{self.port}"

    def __repr__(self) -> str:
        return f"Endpoint('{self}')"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a supernode tells of one edge.

    Args:
        mac: its TAP address, which is its key in a community.
        name: free text given by its user (at most 64 characters once normalised); never trusted.
        community: name of the community; a byte that is not UTF-8 is a surrogate escape.
        virtual_ip: its lease, if known.
        endpoint: where the supernode saw its datagrams come from.
    """

    mac: MacAddress
    name: str
    community: str
    virtual_ip: IPv4Address | None
    endpoint: Endpoint


class Instant(NamedTuple):
    """A moment, on both clocks that the protocol needs.

    Protocol code never reads a clock: it is told.  Intervals are taken on `mono` (which a user
    setting the date does not move); `wall` goes into headers and leases.
    """

    mono: float
    """Monotonic seconds, from an arbitrary start."""
    wall: float
    """Unix seconds."""
