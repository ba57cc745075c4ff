"""Drives one EdgeCore in virtual time and records what it sends: the world, as far as these tests need one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from n2n.errors import MalformedDatagram
from n2n.proto.actions import Action, Note, Send
from n2n.proto.edge import EdgeCore, EdgeSettings
from n2n.proto.watching import WatchSettings
from n2n.types import SUPERNODE_MAC, ZERO_MAC, Endpoint, Instant, MacAddress
from n2n.wire import (
    FLAG_SUPERNODE,
    Packet,
    PacketType,
    PeerInfo,
    PeerInfoList,
    PeerToPing,
    ProtoV,
    RegisterResponse,
    SNPublicSecret,
    UDPAddr,
    build,
    parse,
)

WALL = 1_700_000_000.0
SUPERNODE = Endpoint.parse("198.51.100.1:7777")
MACHINE_ID = bytes(range(16))
KEY = b"a public key"
OWN_ENDPOINT = Endpoint.parse("203.0.113.9:40000")
UNWATCHED = WatchSettings(plain=False)


def fake_encrypt(public_pem: bytes, data: bytes) -> bytes:
    """Stands for RSA: any text with "key" in it is a key."""
    if b"key" not in public_pem:
        raise MalformedDatagram("no key")
    return public_pem + b"|" + data


@dataclass(frozen=True)
class Sent:
    """One datagram that the edge sent, and when (seconds since the start)."""

    at: float
    endpoint: Endpoint
    datagram: bytes

    @property
    def packet(self) -> Packet:
        return parse(self.datagram)

    @property
    def header(self) -> ProtoV:
        header = self.packet.header
        assert isinstance(header, ProtoV)
        return header

    @property
    def type(self) -> PacketType:
        return PacketType(self.header.type)

    @property
    def message(self) -> Any:
        return self.packet.message


class Driver:
    """An edge, a clock that starts at 0, and everything that the edge did.

    Args:
        settings: the edge's; keyword arguments change the default ones of these tests, in which v5 supernodes, whose
            answers tests give by hand, are not watched.
    """

    def __init__(
        self,
        settings: EdgeSettings | None = None,
        *,
        encrypt: Callable[[bytes, bytes], bytes] = fake_encrypt,
        supernode: Endpoint = SUPERNODE,
        wall: float = WALL,
        sealing: Any = None,
        **changes: Any,
    ) -> None:
        if settings is None:
            fields = {"name": "tester", "community": "acme", "machine_id": MACHINE_ID, "watch": UNWATCHED}
            settings = EdgeSettings(**{**fields, **changes})
        self.supernode = supernode
        self.wall = wall
        self.time = 0.0
        self.sent: list[Sent] = []
        self.actions: list[Action] = []
        tokens = (f"t{n:04d}" for n in itertools.count(1))
        self.core = EdgeCore(
            settings,
            encrypt=encrypt,
            sequence=itertools.count(1).__next__,
            token=tokens.__next__,
            sealing=sealing,
        )

    @property
    def now(self) -> Instant:
        return Instant(self.time, self.wall + self.time)

    def collect(self) -> list[Action]:
        """Take what the core wants done."""
        actions = self.core.drain()
        self.actions += actions
        self.sent += [Sent(self.time, a.endpoint, a.datagram) for a in actions if isinstance(a, Send)]
        return actions

    def run_until(self, time: float) -> None:
        """Let time pass; every timer fires at its moment."""
        self.collect()
        while (due := self.core.next_timer()) is not None and due <= time:
            assert due >= self.time - 1e-9, "a timer in the past"
            self.time = max(due, self.time)
            self.core.handle_timer(self.now)
            self.collect()
            after = self.core.next_timer()
            assert after is None or after > due, "the same timer is due for ever"
        self.time = time

    def run_for(self, seconds: float) -> None:
        self.run_until(self.time + seconds)

    def feed(self, datagram: bytes, source: Endpoint) -> list[Sent]:
        """A datagram arrives; returns what the edge sent at once."""
        before = len(self.sent)
        self.core.receive(datagram, source, self.now)
        self.collect()
        return self.sent[before:]

    def take(self) -> list[Sent]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def of_type(self, kind: PacketType) -> list[Sent]:
        return [s for s in self.sent if s.type is kind]

    def did(self, kind: type[Action]) -> list[Any]:
        """All actions of a kind so far."""
        return [a for a in self.actions if isinstance(a, kind)]

    def notes(self, event: str) -> list[Note]:
        return [n for n in self.did(Note) if n.event == event]

    # -- a supernode's words

    def say(self, kind: PacketType, body: object = b"", **header: Any) -> list[Sent]:
        """The supernode sends a message."""
        fields = {"community": self.core.community_id, "source": SUPERNODE_MAC, "flags": FLAG_SUPERNODE, **header}
        source = fields.pop("from_", self.supernode)
        return self.feed(build(ProtoV(kind, **fields), body), source)

    def say_key(self, key: bytes = KEY) -> list[Sent]:
        return self.say(PacketType.SN_PUBLIC_SECRET, SNPublicSecret(False, key), community=0)

    def say_accepted(self, ip: str = "10.1.2.3", prefix: int = 24) -> list[Sent]:
        return self.say(PacketType.REGISTER_RESPONSE, RegisterResponse(True, ip, prefix))

    def say_peers(self, *peers: PeerInfo, event: int = 1, origin: PeerInfo | None = None) -> list[Sent]:
        message = PeerInfoList(origin is not None, origin or PeerInfo(), peers, event)
        return self.say(PacketType.PEER_INFO, message)

    def own_info(self, endpoint: Endpoint = OWN_ENDPOINT) -> PeerInfo:
        return PeerInfo(b"\x0a\1\2\3", self.core.mac.raw, UDPAddr(endpoint.packed, endpoint.port), "acme", "tester")

    def register(self, *peers: PeerInfo) -> None:
        """The whole of a good start; the supernode tells of these peers.  Forgets what was sent."""
        self.core.start(self.now)
        self.core.set_supernode(self.supernode, self.now)
        self.collect()
        self.say_key()
        self.say_accepted()
        self.say_peers(*peers, origin=self.own_info())
        assert self.core.state.value == "registered"
        self.take()

    # -- peers' words

    def ping(
        self, peer: PeerInfo, check_id: str, *, pong: bool = False, from_: Endpoint | None = None, **header: Any
    ) -> list[Sent]:
        """A peer sends a ping or pong, directly unless it comes from the supernode."""
        source = from_ or endpoint_of(peer)
        fields: dict[str, Any] = {
            "community": self.core.community_id,
            "source": MacAddress(peer.mac_addr),
            "dest": self.core.mac,
            "flags": FLAG_SUPERNODE if source == self.supernode else 0,
        }
        return self.feed(build(ProtoV(PacketType.PING, **{**fields, **header}), PeerToPing(check_id, pong)), source)

    def pong(self, peer: PeerInfo, check_id: str, **more: Any) -> list[Sent]:
        return self.ping(peer, check_id, pong=True, **more)

    def last_check_id(self, peer: PeerInfo) -> str:
        """The check id of the last ping that this peer got."""
        pings = [s for s in self.sent if s.type is PacketType.PING and s.header.dest == MacAddress(peer.mac_addr)]
        return str(pings[-1].message.check_id)

    def view(self, peer: PeerInfo) -> Any:
        return next(v for v in self.core.peers() if v.mac.raw == peer.mac_addr)


def peer_info(number: int, *, port: int = 5000, ip: bytes | None = None, **changes: Any) -> PeerInfo:
    """Peer number `number` (1 to 65535), as a supernode tells of it."""
    fields: dict[str, Any] = {
        "virtual_ip": bytes((10, 1)) + number.to_bytes(2, "big"),
        "mac_addr": bytes((2, 0, 0, 0)) + number.to_bytes(2, "big"),
        "pub_socket": UDPAddr(ip or bytes((192, 0)) + number.to_bytes(2, "big"), port),
        "community": "acme",
        "desc": f"peer{number}",
    }
    return PeerInfo(**{**fields, **changes})


def endpoint_of(peer: PeerInfo) -> Endpoint:
    assert peer.pub_socket is not None
    return Endpoint.of_packed(peer.pub_socket.ip, peer.pub_socket.port)


__all__ = [
    "KEY",
    "MACHINE_ID",
    "OWN_ENDPOINT",
    "SUPERNODE",
    "WALL",
    "ZERO_MAC",
    "Driver",
    "Sent",
    "endpoint_of",
    "peer_info",
]
