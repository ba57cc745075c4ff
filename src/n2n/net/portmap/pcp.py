"""PCP (RFC 6887), opcodes ANNOUNCE and MAP: requests and answers as bytes. No input or output here.

A header has 24 bytes, the rest of MAP 36; a packet has at most 1100 bytes (RFC 6887, 7). IPv4 addresses stand in their
IPv6-mapped form; all numbers are in network order.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from n2n.errors import MalformedDatagram
from n2n.net.portmap.values import Cause, NotMapped, Transport

__all__ = ["LARGEST", "MapAnswer", "announce_request", "map_request", "nonce_of", "parse_announce", "parse_map"]

#: Bytes of the longest packet (RFC 6887, 7).
LARGEST: Final = 1100

_VERSION: Final = 2
_ANNOUNCE: Final = 0
_MAP: Final = 1
_ANSWER: Final = 128
_TRANSPORTS: Final = {"udp": 17, "tcp": 6}  # IANA protocol numbers
_HEAD: Final = struct.Struct("!BBBBII12x")
_REQUEST: Final = struct.Struct("!BBHI16s")
_BODY: Final = struct.Struct("!12sB3xHH16s")
_NONCE_SIZE: Final = 12
#: RFC 6887, 7.4.
_RESULTS: Final = {
    1: (Cause.BROKEN, "it does not speak version 2 of PCP"),
    2: (Cause.REFUSED, "port mappings are not allowed to this host"),
    3: (Cause.BROKEN, "it could not read the request"),
    4: (Cause.BROKEN, "it does not know that request"),
    5: (Cause.BROKEN, "it does not know an option"),
    6: (Cause.BROKEN, "it could not read an option"),
    7: (Cause.DOUBLE_NAT, "it has no public address itself"),
    8: (Cause.FULL, "it has no room for a further mapping"),
    9: (Cause.REFUSED, "it maps no such transport protocol"),
    10: (Cause.REFUSED, "this host has as many mappings as it may have"),
    11: (Cause.CONFLICT, "that external port is not to be had"),
    12: (Cause.DOUBLE_NAT, "there is a NAT between this host and that router"),
    13: (Cause.REFUSED, "it has too many remote peers"),
}


class MapAnswer(NamedTuple):
    """The router's answer to `map_request`."""

    internal_port: int
    external_port: int
    external_ip: IPv4Address | None
    """None: an IPv6 address, or none at all."""
    lifetime: int
    """Seconds granted."""
    epoch: int
    """Seconds since the router lost its mappings last."""


def nonce_of(secret: bytes, transport: Transport, internal_port: int) -> bytes:
    """The 12 bytes that prove that a mapping is ours.

    They follow from a secret of this host, so that a program that was started again can renew or delete its mapping,
    and nobody else can guess them.

    Args:
        secret: 16 bytes or more.
    """
    about = f"n2n pcp {transport} {internal_port}".encode()
    return hmac.digest(secret, about, hashlib.sha256)[:_NONCE_SIZE]


def announce_request(client: IPv4Address) -> bytes:
    """Ask how long the router has remembered its mappings; 24 bytes."""
    return _REQUEST.pack(_VERSION, _ANNOUNCE, 0, 0, _mapped(client))


def map_request(
    client: IPv4Address, nonce: bytes, transport: Transport, internal_port: int, *, external_port: int, lifetime: int
) -> bytes:
    """Ask for a mapping, renew it, or (a lifetime of 0) delete it; 60 bytes.

    Args:
        client: our address, as the router must see it.
        nonce: see `nonce_of`.
        external_port: the one we would like; 0: any.
        lifetime: seconds.
    """
    head = _REQUEST.pack(_VERSION, _MAP, 0, lifetime, _mapped(client))
    nowhere = _mapped(IPv4Address(0))
    return head + _BODY.pack(nonce, _TRANSPORTS[transport], internal_port, external_port, nowhere)


def parse_announce(datagram: bytes) -> int:
    """Read the answer to `announce_request`; returns the epoch.

    Raises:
        MalformedDatagram: it is no such answer.
        NotMapped: the router refused.
    """
    return _head(datagram, _ANNOUNCE)[1]


def parse_map(datagram: bytes, nonce: bytes, transport: Transport, internal_port: int) -> MapAnswer:
    """Read the answer to `map_request`.

    Args:
        nonce, transport, internal_port: as asked for: an answer about another mapping is none.

    Raises:
        MalformedDatagram: it is no such answer.
        NotMapped: the router refused.
    """
    lifetime, epoch = _head(datagram, _MAP)
    if len(datagram) < _HEAD.size + _BODY.size:
        raise MalformedDatagram(f"an answer with a mapping has 60 bytes, not {len(datagram)}")
    theirs, number, internal, external, ip = _BODY.unpack_from(datagram, _HEAD.size)
    if theirs != nonce or number != _TRANSPORTS[transport] or internal != internal_port:
        raise MalformedDatagram("an answer about another mapping")
    return MapAnswer(internal, external, _plain(ip), lifetime, epoch)


def _head(datagram: bytes, operation: int) -> tuple[int, int]:
    """Check the header; returns lifetime and epoch."""
    if len(datagram) >= 2 and datagram[0] == 0 and datagram[1] >= _ANSWER:  # RFC 6886, 3.5: a router of NAT-PMP alone
        raise NotMapped(Cause.SILENT, "the router speaks NAT-PMP, but not PCP")
    if not _HEAD.size <= len(datagram) <= LARGEST:
        raise MalformedDatagram(f"an answer has 24 to {LARGEST} bytes, not {len(datagram)}")
    version, code, _, result, lifetime, epoch = _HEAD.unpack_from(datagram)
    if version != _VERSION or code != _ANSWER + operation:
        raise MalformedDatagram(f"version {version}, operation {code}: no answer to operation {operation}")
    if result:
        cause, what = _RESULTS.get(result, (Cause.BROKEN, f"unknown result {result}"))
        raise NotMapped(cause, f"the router refused by PCP (result {result}): {what}")
    return int(lifetime), int(epoch)


def _mapped(ip: IPv4Address) -> bytes:
    return bytes(10) + b"\xff\xff" + ip.packed


def _plain(ip: bytes) -> IPv4Address | None:
    return IPv6Address(ip).ipv4_mapped
