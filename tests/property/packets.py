"""Frames for offload tests, and a plain reference of what a kernel does with super-frames.

Written for clarity, from the RFCs and the kernel's documentation of virtio headers; it shares nothing
with the data plane.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VIRTIO = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM = 1
TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << n for n in range(8))


def ones_sum(data: bytes) -> int:
    """Ones'-complement sum of big-endian 16-bit words."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(ip: bytes, proto: int, size: int) -> int:
    addresses = ip[8:40] if ip[0] >> 4 == 6 else ip[12:20]
    return ones_sum(addresses + struct.pack(">HH", proto, size))


def with_checksum(ip: bytes, l4: bytes, proto: int) -> bytes:
    """The transport packet with its checksum filled in."""
    at = 16 if proto == 6 else 6
    zeroed = l4[:at] + b"\0\0" + l4[at + 2 :]
    total = pseudo(ip, proto, len(l4)) + ones_sum(zeroed)
    total = (total & 0xFFFF) + (total >> 16)
    value = (total ^ 0xFFFF) or 0xFFFF
    return l4[:at] + struct.pack(">H", value) + l4[at + 2 :]


def ip_checksum(header: bytes) -> bytes:
    zeroed = header[:10] + b"\0\0" + header[12:]
    return zeroed[:10] + struct.pack(">H", ones_sum(zeroed) ^ 0xFFFF) + zeroed[12:]


@dataclass(frozen=True)
class Packet:
    """One TCP or UDP packet, or a super-packet of such, before it becomes bytes."""

    dest: bytes
    source: bytes
    payload: bytes
    v6: bool = False
    proto: int = 6
    ports: tuple[int, int] = (1000, 2000)
    seq: int = 1
    ack: int = 1
    flags: int = ACK
    window: int = 500
    options: bytes = b""
    urgent: int = 0
    ttl: int = 64
    tos: int = 0
    ident: int = 1
    df: bool = True
    flow_label: int = 0
    host: int = 1
    ext: bytes = b""  # IPv6: one extension header (its first byte, the next header, is set here)
    vlan: int | None = None

    def l4(self, payload: bytes, seq: int, flags: int) -> bytes:
        if self.proto == 17:
            return struct.pack(">HHHH", *self.ports, 8 + len(payload), 0) + payload
        offset = (20 + len(self.options)) // 4 << 4
        head = struct.pack(">HHIIBBHHH", *self.ports, seq, self.ack, offset, flags, self.window, 0, self.urgent)
        return head + self.options + payload

    def ip(self, l4_size: int, ident: int) -> bytes:
        if self.v6:
            first = 0x60000000 | self.tos << 20 | self.flow_label
            follow = 60 if self.ext else self.proto
            head = struct.pack(">IHBB", first, len(self.ext) + l4_size, follow, self.ttl)
            head += bytes([0xFD, *bytes(14), self.host]) + bytes([0xFD, *bytes(14), 99])
            return head + (bytes([self.proto]) + self.ext[1:] if self.ext else b"")
        head = struct.pack(
            ">BBHHHBBH", 0x45, self.tos, 20 + l4_size, ident & 0xFFFF, 0x4000 * self.df, self.ttl, self.proto, 0
        )
        return ip_checksum(head + bytes([10, 0, 0, self.host, 10, 0, 0, 99]))

    @property
    def ethernet(self) -> bytes:
        tag = b"" if self.vlan is None else struct.pack(">HH", 0x8100, self.vlan)
        return self.dest + self.source + tag + (b"\x86\xdd" if self.v6 else b"\x08\x00")

    def frame(self) -> bytes:
        """As one ordinary frame, checksums complete."""
        return self.cut(len(self.payload) or 1)[0]

    def cut(self, mss: int) -> list[bytes]:
        """The frames that a super-packet stands for."""
        pieces = [self.payload[i : i + mss] for i in range(0, len(self.payload), mss)] or [b""]
        out = []
        for n, piece in enumerate(pieces):
            last = n == len(pieces) - 1
            flags = self.flags & ~(0 if last else FIN | PSH) & ~(CWR if n else 0)
            l4 = self.l4(piece, (self.seq + n * mss) & 0xFFFFFFFF, flags)
            ip = self.ip(len(l4), self.ident + n)
            out.append(self.ethernet + ip + with_checksum(ip, l4, self.proto))
        return out

    def super_frame(self, mss: int) -> bytes:
        """As a kernel hands it to a TAP: virtio header, then the whole with the pseudo-header's sum only."""
        l4 = self.l4(self.payload, self.seq, self.flags)
        ip = self.ip(len(l4), self.ident)
        at = 16 if self.proto == 6 else 6
        l4 = l4[:at] + struct.pack(">H", pseudo(ip, self.proto, len(l4))) + l4[at + 2 :]
        start = len(self.ethernet) + len(ip)
        kind = UDP_L4 if self.proto == 17 else TCPV6 if self.v6 else TCPV4
        if self.flags & CWR and self.proto == 6:
            kind |= ECN
        head = start + (8 if self.proto == 17 else 20 + len(self.options))
        single = len(self.payload) <= mss
        virtio = VIRTIO.pack(NEEDS_CSUM, 0 if single else kind, head, 0 if single else mss, start, at)
        return virtio + self.ethernet + ip + l4


def kernel_sees(written: bytes) -> list[bytes]:
    """The ordinary frames that one write to a TAP with virtio headers stands for."""
    flags, kind, _, mss, start, offset = VIRTIO.unpack(written[:10])
    frame = written[10:]
    if kind == 0:
        if not flags & NEEDS_CSUM:
            return [frame]
        total = ones_sum(frame[start:]) ^ 0xFFFF
        return [frame[: start + offset] + struct.pack(">H", total or 0xFFFF) + frame[start + offset + 2 :]]
    assert flags & NEEDS_CSUM
    assert mss > 0
    tcp = kind & ~ECN != UDP_L4
    assert offset == (16 if tcp else 6)
    proto = 6 if tcp else 17
    ip, l4 = frame[14:start], frame[start:]
    head = (l4[12] >> 4) * 4 if tcp else 8
    payload = l4[head:]
    # The field must hold the pseudo-header's sum, and the IP header must be whole: a kernel relies on both.
    assert struct.unpack(">H", l4[offset : offset + 2])[0] in (
        pseudo(ip, proto, len(l4)),
        pseudo(ip, proto, len(l4)) ^ 0xFFFF,
    )
    assert len(payload) > mss
    if ip[0] >> 4 == 4:
        assert struct.unpack(">H", ip[2:4])[0] == len(ip) + len(l4)
        assert ones_sum(ip) == 0xFFFF
    else:
        assert struct.unpack(">H", ip[4:6])[0] == len(l4)
    out = []
    pieces = [payload[i : i + mss] for i in range(0, len(payload), mss)]
    assert len(pieces) <= 128
    for n, piece in enumerate(pieces):
        last = n == len(pieces) - 1
        if tcp:
            seq = (struct.unpack(">I", l4[4:8])[0] + n * mss) & 0xFFFFFFFF
            flags = l4[13] & ~(0 if last else FIN | PSH) & ~(CWR if n else 0)
            part = l4[:4] + struct.pack(">I", seq) + l4[8:13] + bytes([flags]) + l4[14:head] + piece
        else:
            part = l4[:4] + struct.pack(">H", 8 + len(piece)) + l4[6:8] + piece
        if ip[0] >> 4 == 4:
            ident = (struct.unpack(">H", ip[4:6])[0] + n) & 0xFFFF
            new = ip_checksum(ip[:2] + struct.pack(">HH", 20 + len(part), ident) + ip[6:])
        else:
            new = ip[:4] + struct.pack(">H", len(part)) + ip[6:]
        out.append(frame[:14] + new + with_checksum(new, part, proto))
    return out
