"""Who may tell an edge what: every datagram is judged here before anything is done about it.

The cheap questions come first: is there a header, does it come from where such messages come from, is it wanted now.
Only what passes is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from n2n.errors import MalformedDatagram
from n2n.proto.edge_outbox import Outbox
from n2n.proto.paths import CHECK_ID_LIMIT
from n2n.types import Endpoint, Instant
from n2n.wire import (
    MESSAGE_OF,
    PROTOV_SIZE,
    VFUZE_MARK,
    LeasesInfos,
    P2PFullState,
    PacketType,
    PeerInfoList,
    PeerToPing,
    ProtoV,
    RegisterResponse,
    SNPublicSecret,
    decode,
)

__all__ = ["EdgeLogic", "Inbox"]

#: Longest payload of a ping that is decoded, in bytes: a check id of `CHECK_ID_LIMIT` characters of four bytes, and
#: its description.  Decoding takes time in proportion, and pings come from strangers.
_PING_LIMIT: Final = 4 * CHECK_ID_LIMIT + 512


class EdgeLogic(Protocol):
    """What the inbox asks the edge, and hands over to it."""

    def wants(self, kind: PacketType) -> bool:
        """Whether a message of this type was asked for (or may come unasked)."""

    def heard_supernode(self, now: Instant) -> None:
        """Something came that only the supernode sends."""

    def on_key(self, message: SNPublicSecret, now: Instant) -> None: ...
    def on_response(self, message: RegisterResponse, now: Instant) -> None: ...
    def on_told(self, message: None, now: Instant) -> None: ...
    def on_peers(self, message: PeerInfoList, now: Instant) -> None: ...
    def on_full_state(self, message: P2PFullState, now: Instant) -> None: ...
    def on_leases(self, message: LeasesInfos, now: Instant) -> None: ...
    def on_ping(self, message: PeerToPing, header: ProtoV, source: Endpoint, now: Instant) -> None:
        """A ping or a pong for us, from a non-zero MAC address; a flagged one came from the supernode's endpoint."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a type of supernode message is judged.

    Args:
        unwanted: counter for those that `EdgeLogic.wants` does not want.
        ours: its header must carry our community's id (the key and RetryRegisterRequest carry 0).
        handle: takes the decoded message.
    """

    unwanted: str
    ours: bool
    handle: Callable[[EdgeLogic, Any, Instant], None]


_RULES: Final = {
    PacketType.SN_PUBLIC_SECRET: _Rule("key_unasked", False, lambda edge, m, now: edge.on_key(m, now)),
    PacketType.REGISTER_RESPONSE: _Rule("response_unasked", True, lambda edge, m, now: edge.on_response(m, now)),
    PacketType.RETRY_REGISTER: _Rule("told_waiting", False, lambda edge, m, now: edge.on_told(m, now)),
    PacketType.PEER_INFO: _Rule("list_unasked", True, lambda edge, m, now: edge.on_peers(m, now)),
    PacketType.P2P_FULL_STATE: _Rule("full_state_unasked", True, lambda edge, m, now: edge.on_full_state(m, now)),
    PacketType.LEASES_INFOS: _Rule("leases_unasked", True, lambda edge, m, now: edge.on_leases(m, now)),
}


class Inbox:
    """Judges what arrives.

    Args:
        outbox: knows who we are and where the supernode is; counts.
        edge: gets what passed.
    """

    def __init__(self, outbox: Outbox, edge: EdgeLogic) -> None:
        self._out = outbox
        self._edge = edge

    def receive(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        """Judge one datagram.  Whatever its bytes are, nothing is raised."""
        self._out.count("received")
        if datagram[:1] == bytes((VFUZE_MARK,)):
            self._out.count("data_unexpected")
            return
        try:
            header = ProtoV.unpack(datagram)
            verdict = self._judge(header, datagram, source, now)
        except MalformedDatagram:
            verdict = "malformed"
        if verdict:
            self._out.count(verdict)

    def _judge(self, header: ProtoV, datagram: bytes, source: Endpoint, now: Instant) -> str:
        """Act on it and return "", or return the counter of what is wrong with it."""
        if header.type == PacketType.PING:
            return self._judge_ping(header, datagram, source, now)
        if header.type == PacketType.DATA:
            return "data_unexpected"
        kind = PacketType(header.type) if header.type in _RULES else None
        if kind is None:
            return "type_unhandled"
        if source != self._out.supernode:
            return "stranger"
        if not header.from_supernode:
            return "not_flagged"
        rule = _RULES[kind]
        if rule.ours and header.community != self._out.community:
            return "other_community"
        self._edge.heard_supernode(now)
        if not self._edge.wants(kind):
            return rule.unwanted
        message = decode(MESSAGE_OF[kind], datagram[PROTOV_SIZE:]) if kind in MESSAGE_OF else None
        rule.handle(self._edge, message, now)
        return ""

    def _judge_ping(self, header: ProtoV, datagram: bytes, source: Endpoint, now: Instant) -> str:
        if header.community != self._out.community:
            return "other_community"
        if header.dest != self._out.mac or header.source.is_zero or header.source == self._out.mac:
            return "ping_not_ours"
        # A supernode flags all that it relays, and nobody else may: the flag decides what a pong proves.
        if header.from_supernode != (source == self._out.supernode):
            return "ping_bad_flag"
        if len(datagram) > PROTOV_SIZE + _PING_LIMIT:
            return "ping_too_long"
        if header.from_supernode:
            self._edge.heard_supernode(now)
        self._edge.on_ping(decode(PeerToPing, datagram[PROTOV_SIZE:]), header, source, now)
        return ""
