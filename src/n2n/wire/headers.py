"""The two packet headers: ProtoV (control and broadcast data) and VFuze (unicast data)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.types import ZERO_MAC, MacAddress
from n2n.wire.constants import (
    DEFAULT_TTL,
    FLAG_SUPERNODE,
    PROTOCOL_VERSION,
    PROTOV_SIZE,
    VFUZE_MARK,
    VFUZE_SIZE,
)

__all__ = ["ProtoV", "VFuze", "mark_relayed"]

_PROTOV: Final = struct.Struct(">BBBBHI6s6sII")
_FLAGS_AT: Final = 3


@dataclass(frozen=True, slots=True)
class ProtoV:
    """The 30-byte header of control messages and of data that a supernode copies to many.

    Args:
        type: a :class:`~n2n.wire.constants.PacketType` or a number unknown to us, 0 to 255.
        community: id of the community, 32 bits; 0 in some of a supernode's own messages.
        source: sender's MAC; all zero means absent.
        dest: whom it is for; all zero means absent.
        flags: `FLAG_SUPERNODE`, or 0.
        sequence: an edge's counter of ProtoV packets; only its low 16 bits are sent.
        timestamp: Unix seconds; only the low 32 bits are sent.
        checksum: 32 bits that nobody computes.
        ttl: 0 to 255.
        version: 5; others can be packed, for tests, but are not unpacked.

    >>> header = ProtoV(8, community=0x45FD71AF, sequence=7)
    >>> ProtoV.unpack(header.pack() + b"payload") == header
    True
    """

    type: int
    community: int = 0
    source: MacAddress = ZERO_MAC
    dest: MacAddress = ZERO_MAC
    flags: int = 0
    sequence: int = 0
    timestamp: int = 0
    checksum: int = 0
    ttl: int = DEFAULT_TTL
    version: int = PROTOCOL_VERSION

    def pack(self) -> bytes:
        """The header's 30 bytes.

        Raises:
            LocalProtocolError: a field does not fit.
        """
        try:
            return _PROTOV.pack(
                self.version,
                self.ttl,
                self.type,
                self.flags,
                self.sequence & 0xFFFF,
                self.community,
                self.source.raw,
                self.dest.raw,
                self.timestamp & 0xFFFFFFFF,
                self.checksum,
            )
        except (struct.error, TypeError) as error:
            raise LocalProtocolError(f"{self} does not fit a ProtoV header: {error}") from None

    @classmethod
    def unpack(cls, data: bytes) -> ProtoV:
        """Read the header at the start of a datagram.

        Raises:
            MalformedDatagram: fewer than 30 bytes, or another version.
        """
        if len(data) < PROTOV_SIZE:
            raise MalformedDatagram(f"{len(data)} bytes are too few for a ProtoV header ({PROTOV_SIZE})")
        version, ttl, kind, flags, sequence, community, source, dest, timestamp, checksum = _PROTOV.unpack_from(data)
        if version != PROTOCOL_VERSION:
            raise MalformedDatagram(f"a ProtoV header of version {version}, not {PROTOCOL_VERSION}")
        return cls(
            kind,
            community,
            MacAddress(source),
            MacAddress(dest),
            flags,
            sequence,
            timestamp,
            checksum,
            ttl,
        )

    @property
    def from_supernode(self) -> bool:
        """True where a supernode made or relayed the packet (so its header says: nothing proves it)."""
        return bool(self.flags & FLAG_SUPERNODE)


@dataclass(frozen=True, slots=True)
class VFuze:
    """The 7-byte header of unicast data: a mark and the frame's destination.

    Args:
        dest: destination MAC address of the Ethernet frame inside.

    >>> VFuze(MacAddress.parse("0a:68:97:74:d5:44")).pack().hex()
    '510a689774d544'
    """

    dest: MacAddress

    def pack(self) -> bytes:
        """The header's 7 bytes."""
        return bytes((VFUZE_MARK,)) + self.dest.raw

    @classmethod
    def unpack(cls, data: bytes) -> VFuze:
        """Read the header at the start of a datagram.

        Raises:
            MalformedDatagram: fewer than 7 bytes, or another first byte.
        """
        if len(data) < VFUZE_SIZE:
            raise MalformedDatagram(f"{len(data)} bytes are too few for a VFuze header ({VFUZE_SIZE})")
        if data[0] != VFUZE_MARK:
            raise MalformedDatagram(f"a VFuze header starts with {VFUZE_MARK:#04x}, not {data[0]:#04x}")
        return cls(MacAddress(bytes(data[1:VFUZE_SIZE])))


def mark_relayed(datagram: bytes) -> bytes:
    """The datagram as a supernode passes it on: a ProtoV packet gets the supernode flag, VFuze stays as it is.

    Raises:
        MalformedDatagram: it is neither.

    >>> mark_relayed(ProtoV(4).pack())[3]
    2
    """
    if datagram[:1] == bytes((VFUZE_MARK,)):
        VFuze.unpack(datagram)
        return datagram
    ProtoV.unpack(datagram)
    flags = datagram[_FLAGS_AT] | FLAG_SUPERNODE
    return datagram[:_FLAGS_AT] + bytes((flags,)) + datagram[_FLAGS_AT + 1 :]
