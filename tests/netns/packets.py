"""Packets made by hand: frames that no kernel would send, with the checksums that a test wants."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << n for n in range(8))


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the sum with end-around carry is what is left of the whole number, divided by 65,535."""
    if len(data) % 2:
        data += b"\0"
    number = int.from_bytes(data, "big")
    total = number % 0xFFFF
    return 0xFFFF ^ (total if total or not number else 0xFFFF)


@dataclass(frozen=True)
class Flow:
    """Who sends to whom: what stands in every packet of a flow.

    Args:
        ethernet: destination, source, and VLAN tags, if any.
    """

    ethernet: bytes
    source: str
    dest: str
    ports: tuple[int, int]
    v6: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "v6", ":" in self.source)

    @property
    def addresses(self) -> bytes:
        return ipaddress.ip_address(self.source).packed + ipaddress.ip_address(self.dest).packed

    def _pseudo_header(self, protocol: int, size: int) -> bytes:
        return self.addresses + (
            struct.pack("!IxxxB", size, protocol) if self.v6 else struct.pack("!xBH", protocol, size)
        )

    def pseudo_sum(self, protocol: int, size: int) -> int:
        """What stands in the checksum field of a packet whose checksum is still to be completed."""
        return internet_checksum(self._pseudo_header(protocol, size)) ^ 0xFFFF

    def packet(self, protocol: int, body: bytes, *, ident: int = 0, tos: int = 0) -> bytes:
        """A frame around a transport header and what follows it."""
        if self.v6:
            head = struct.pack("!IHBB", 6 << 28 | tos << 20, len(body), protocol, 64) + self.addresses
            return self.ethernet + b"\x86\xdd" + head + body
        head = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(body), ident, 0x4000, 64, protocol, 0) + self.addresses
        head = head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:]
        return self.ethernet + b"\x08\x00" + head + body

    def tcp(
        self, seq: int, ack: int, flags: int, data: bytes = b"", *, wrong: int = 0, ident: int = 0, tos: int = 0
    ) -> bytes:
        """A segment; `wrong` is added to its checksum."""
        head = struct.pack("!HHIIBBHHH", *self.ports, seq % 2**32, ack, 5 << 4, flags, 65535, 0, 0)
        checksum = internet_checksum(self._pseudo_header(6, len(head) + len(data)) + head + data)
        head = head[:16] + struct.pack("!H", (checksum + wrong) & 0xFFFF) + head[18:]
        return self.packet(6, head + data, ident=ident, tos=tos)

    def udp(self, data: bytes, *, wrong: int = 0, ident: int = 0, checksum: bool = True) -> bytes:
        """A datagram; `wrong` is added to its checksum, or it has none."""
        head = struct.pack("!HHHH", *self.ports, 8 + len(data), 0)
        value = internet_checksum(self._pseudo_header(17, len(head) + len(data)) + head + data) or 0xFFFF
        value = (value + wrong) & 0xFFFF or 1
        head = head[:6] + struct.pack("!H", value if checksum else 0)
        return self.packet(17, head + data, ident=ident)
