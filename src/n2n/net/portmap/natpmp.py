"""NAT-PMP (RFC 6886): requests and answers as bytes. No input or output here.

Requests have 2 or 12 bytes, answers 8, 12 or 16; all numbers are in network order.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from n2n.errors import MalformedDatagram
from n2n.net.portmap.values import Cause, NotMapped, Transport

__all__ = ["PORT", "Answer", "MapAnswer", "external_request", "map_request", "parse_external", "parse_map"]

#: UDP port of the router (RFC 6886, 3.1; PCP has the same).
PORT: Final = 5351

_VERSION: Final = 0
_EXTERNAL: Final = 0
_MAP: Final = {"udp": 1, "tcp": 2}
_ANSWER: Final = 128
_HEAD: Final = struct.Struct("!BBHI")
_MAPPED: Final = struct.Struct("!HHI")
_NOT_AUTHORISED: Final = 2
_NETWORK_FAILURE: Final = 3
_OUT_OF_RESOURCES: Final = 4
#: RFC 6886, 3.5.
_RESULTS: Final = {
    1: (Cause.BROKEN, "it does not speak this version of NAT-PMP"),
    _NOT_AUTHORISED: (Cause.REFUSED, "port mappings are switched off there, or not allowed to this host"),
    _NETWORK_FAILURE: (Cause.DOUBLE_NAT, "it has no public address itself"),
    _OUT_OF_RESOURCES: (Cause.FULL, "it has no room for a further mapping"),
    5: (Cause.BROKEN, "it does not know that request"),
}


class Answer(NamedTuple):
    """The router's answer to `external_request`."""

    external_ip: IPv4Address
    epoch: int
    """Seconds since the router lost its mappings last."""


class MapAnswer(NamedTuple):
    """The router's answer to `map_request`."""

    internal_port: int
    external_port: int
    lifetime: int
    """Seconds granted."""
    epoch: int


def external_request() -> bytes:
    """Ask for the router's external address; 2 bytes."""
    return bytes((_VERSION, _EXTERNAL))


def map_request(transport: Transport, internal_port: int, external_port: int, lifetime: int) -> bytes:
    """Ask for a mapping, or renew one; 12 bytes.

    Args:
        external_port: the one we would like; 0: any.
        lifetime: seconds; 0 with an external port of 0 deletes the mapping (RFC 6886, 3.4).
    """
    return struct.pack("!BBHHHI", _VERSION, _MAP[transport], 0, internal_port, external_port, lifetime)


def parse_external(datagram: bytes) -> Answer:
    """Read the answer to `external_request`.

    Raises:
        MalformedDatagram: it is no such answer.
        NotMapped: the router refused.
    """
    epoch = _head(datagram, _EXTERNAL)
    if len(datagram) < _HEAD.size + 4:
        raise MalformedDatagram(f"an answer with an address has 12 bytes, not {len(datagram)}")
    return Answer(IPv4Address(datagram[8:12]), epoch)


def parse_map(datagram: bytes, transport: Transport, internal_port: int) -> MapAnswer:
    """Read the answer to `map_request`.

    Args:
        transport, internal_port: as asked for: an answer about another mapping is none.

    Raises:
        MalformedDatagram: it is no such answer.
        NotMapped: the router refused.
    """
    epoch = _head(datagram, _MAP[transport])
    if len(datagram) < _HEAD.size + _MAPPED.size:
        raise MalformedDatagram(f"an answer with a mapping has 16 bytes, not {len(datagram)}")
    internal, external, lifetime = _MAPPED.unpack_from(datagram, _HEAD.size)
    if internal != internal_port:
        raise MalformedDatagram(f"an answer about port {internal}, not {internal_port}")
    return MapAnswer(internal, external, lifetime, epoch)


def _head(datagram: bytes, operation: int) -> int:
    """Check the first 8 bytes; returns the epoch."""
    if len(datagram) < _HEAD.size:
        raise MalformedDatagram(f"an answer has at least 8 bytes, not {len(datagram)}")
    version, code, result, epoch = _HEAD.unpack_from(datagram)
    if version != _VERSION or code != _ANSWER + operation:
        raise MalformedDatagram(f"version {version}, operation {code}: no answer to operation {operation}")
    if result:
        cause, what = _RESULTS.get(result, (Cause.BROKEN, f"unknown result {result}"))
        raise NotMapped(cause, f"the router refused by NAT-PMP (result {result}): {what}")
    return int(epoch)
