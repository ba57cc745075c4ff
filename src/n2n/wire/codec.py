"""Whole datagrams: :func:`parse` takes one apart, :func:`build` puts one together."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.wire import messages as m
from n2n.wire.constants import (
    MAX_DATAGRAM,
    PROTOCOL_VERSION,
    PROTOV_SIZE,
    VFUZE_MARK,
    VFUZE_SIZE,
    PacketType,
)
from n2n.wire.decoder import decode_stream
from n2n.wire.encoder import encode_stream
from n2n.wire.headers import ProtoV, VFuze

__all__ = ["MESSAGE_OF", "Packet", "build", "decode", "encode", "parse"]

Message = TypeVar("Message")

#: The class of each packet type's payload; types without an entry carry a frame or nothing.
MESSAGE_OF: Final = MappingProxyType[PacketType, type](
    {
        PacketType.REGISTER_REQUEST: m.RegisterRequest,
        PacketType.UNREGISTER_REQUEST: m.UnregisterRequest,
        PacketType.HEARTBEAT: m.HeartbeatPulse,
        PacketType.PEER_LIST_REQUEST: m.PeerListRequest,
        PacketType.PEER_INFO: m.PeerInfoList,
        PacketType.PING: m.PeerToPing,
        PacketType.P2P_STATE: m.PeerP2PInfos,
        PacketType.P2P_FULL_STATE: m.P2PFullState,
        PacketType.LEASES_INFOS: m.LeasesInfos,
        PacketType.ONLINE_CHECK: m.OnlineCheck,
        PacketType.SN_PUBLIC_SECRET: m.SNPublicSecret,
        PacketType.REGISTER_RESPONSE: m.RegisterResponse,
    }
)

#: What `parse` decodes: ONLINE_CHECK is sent and handled by nobody.
_DECODED: Final[dict[int, type]] = {
    int(kind): cls for kind, cls in MESSAGE_OF.items() if kind is not PacketType.ONLINE_CHECK
}


@dataclass(frozen=True, slots=True)
class Packet:
    """A datagram taken apart.

    Args:
        header: which of the two says what `payload` is.
        payload: everything behind the header.
        message: the payload's message; None for data, for types without one, and for types unknown or unhandled.
    """

    header: ProtoV | VFuze
    payload: bytes
    message: Any = None


def encode(message: object) -> bytes:
    """The gob payload of a message; equal messages give equal bytes.

    Raises:
        LocalProtocolError: it is no message, or a value does not fit its field.

    >>> encode(m.PeerListRequest("acme"))[-7:]
    b'\\x01\\x04acme\\x00'
    """
    return encode_stream(message)


def decode(cls: type[Message], payload: bytes) -> Message:
    """The message of class `cls` in a payload.  Memory and time are in proportion to the payload.

    Args:
        cls: a class of :mod:`n2n.wire.messages`, which the packet's type tells (see `MESSAGE_OF`).
        payload: a gob stream; what follows its value is ignored.

    Raises:
        MalformedDatagram: there is no such message in it.

    >>> decode(m.PeerListRequest, encode(m.PeerListRequest("acme")) + b"junk")
    PeerListRequest(community_name='acme')
    """
    message: Message = decode_stream(cls, payload)
    return message


def parse(datagram: bytes) -> Packet:
    """Take a datagram apart and decode its message.

    Raises:
        MalformedDatagram: it is not of this protocol, is cut, or its message is malformed.

    >>> packet = parse(build(ProtoV(PacketType.PING), m.PeerToPing("7f", is_pong=True)))
    >>> packet.header.type == PacketType.PING, packet.message.check_id
    (True, '7f')
    """
    if not datagram:
        raise MalformedDatagram("an empty datagram")
    if datagram[0] == VFUZE_MARK:
        return Packet(VFuze.unpack(datagram), datagram[VFUZE_SIZE:])
    if datagram[0] != PROTOCOL_VERSION:
        raise MalformedDatagram(f"a datagram that starts with {datagram[0]:#04x} is not of this protocol")
    header = ProtoV.unpack(datagram)
    payload = datagram[PROTOV_SIZE:]
    cls = _DECODED.get(header.type)
    return Packet(header, payload, None if cls is None else decode_stream(cls, payload))


def build(header: ProtoV | VFuze, body: object = b"") -> bytes:
    """Put a datagram together.

    Args:
        header: its header.
        body: a message, which must be of the header's type, or the payload's bytes.

    Raises:
        LocalProtocolError: the message belongs to another type, a value does not fit, or the datagram would
            be longer than `MAX_DATAGRAM`.

    >>> len(build(ProtoV(PacketType.RETRY_REGISTER)))
    30
    """
    if isinstance(body, bytes | bytearray | memoryview):
        payload = bytes(body)
    elif isinstance(header, VFuze) or _message_class(header.type) is not type(body):
        raise LocalProtocolError(f"a {type(body).__name__} is not what {header} carries")
    else:
        payload = encode(body)
    datagram = header.pack() + payload
    if len(datagram) > MAX_DATAGRAM:
        raise LocalProtocolError(
            f"a datagram of {len(datagram)} bytes: the largest has {MAX_DATAGRAM}; send less, or in parts"
        )
    return datagram


def _message_class(kind: int) -> type | None:
    try:
        return MESSAGE_OF.get(PacketType(kind))
    except ValueError:
        return None
