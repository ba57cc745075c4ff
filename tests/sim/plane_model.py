"""An edge's data plane, modelled in a few lines of Python: where a frame goes, and which frames are taken.

For the simulator, and for the property tests that hold the compiled plane equal to it.  It follows the same rules; it
does not seal and compress, but can be told how payloads are opened:

- a unicast frame for a peer goes straight to it if the peer is direct, else to the supernode, as VFuze if that is on,
  else as Data; every other frame (broadcast, multicast, unknown destination) goes to the supernode as Data;
- Data and VFuze are taken from the supernode, from peers' endpoints and from endpoints allowed for a peer; the frame's
  source must be the peer whose endpoint it came from, and the one that the header names;
- where several peers claim one endpoint, the last one put there has it; a further source is never taken from a peer
  whose own endpoint it is;
- the first frame for a peer since it was put, and then one a second at most, is told to the core as a notice;
- control messages of the types that an edge takes are for the core; what is dropped is counted as the plane does.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from n2n.proto.actions import AllowSource, DropPeer, EdgeAction, PutPeer, SetSupernode
from n2n.types import Endpoint, MacAddress
from n2n.wire import PROTOCOL_VERSION, PROTOV_SIZE, VFUZE_MARK, VFUZE_SIZE, PacketType, ProtoV, VFuze, build

__all__ = ["PlaneModel", "Unopened", "frame"]

_ETHERNET = 14
_SOURCES = 4
_NOTICE_EVERY = 1.0
_LONGEST_PING = 9216
_TAKEN = frozenset({7, 8, 10, 11, 251, 252, 253})


def frame(dest: MacAddress, source: MacAddress, payload: bytes) -> bytes:
    """An Ethernet frame (IPv4, by its type)."""
    return dest.raw + source.raw + b"\x08\x00" + payload


def _plain(payload: bytes) -> bytes:
    return payload


def _stopped() -> float:
    return 0.0


class Unopened(Exception):
    """A payload does not open; the argument is the plane's counter."""


@dataclass
class _Peer:
    endpoint: Endpoint
    direct: bool
    sources: deque[Endpoint] = field(default_factory=lambda: deque(maxlen=_SOURCES))
    traffic: Counter[str] = field(default_factory=Counter)
    noticed: float | None = None


@dataclass
class PlaneModel:
    """An edge's plane.

    Args:
        mac: the edge's address.
        community: id for headers.
        sequence: the counter shared with the core.
        vfuze: send known unicast with the short header, and take such packets.
        bridge: take frames from and for any address.
        frame_limit: bytes of the largest frame.
        opened: turns a payload into a frame, or raises `Unopened`.
        clock: seconds, for what happens once a second.
    """

    mac: MacAddress
    community: int
    sequence: Callable[[], int]
    vfuze: bool = True
    bridge: bool = False
    frame_limit: int = 9018
    opened: Callable[[bytes], bytes] = _plain
    clock: Callable[[], float] = _stopped
    supernode: Endpoint | None = None
    peers: dict[MacAddress, _Peer] = field(default_factory=dict)
    holders: dict[Endpoint, MacAddress] = field(default_factory=dict)
    """Whose frames come from an endpoint."""
    counts: Counter[str] = field(default_factory=Counter)
    notices: list[MacAddress] = field(default_factory=list)
    """Peers that frames were sent to, for the core; whoever tells it empties this."""

    def apply(self, action: EdgeAction) -> None:
        """Carry out an action of the core that concerns the plane."""
        match action:
            case SetSupernode(endpoint):
                self.supernode = endpoint
            case PutPeer(mac, endpoint, direct):
                peer = self.peers.setdefault(mac, _Peer(endpoint, direct))
                before, peer.endpoint, peer.direct = peer.endpoint, endpoint, direct
                self._release(before, mac)
                self.holders[endpoint] = mac
            case DropPeer(mac):
                assert mac in self.peers, "a peer that was never put"
                del self.peers[mac]
                self.holders = {at: holder for at, holder in self.holders.items() if holder != mac}
            case AllowSource(mac, endpoint):
                assert mac in self.peers, "a source for a peer that was never put"
                self._allow(mac, endpoint)

    def _allow(self, mac: MacAddress, endpoint: Endpoint) -> None:
        holder = self.holders.get(endpoint)
        if holder == mac or (holder is not None and self.peers[holder].endpoint == endpoint):
            return
        sources = self.peers[mac].sources
        oldest = sources[0] if len(sources) == _SOURCES else None
        sources.append(endpoint)
        if oldest is not None:
            self._release(oldest, mac)
        self.holders[endpoint] = mac

    def _release(self, endpoint: Endpoint, mac: MacAddress) -> None:
        """An endpoint is not the peer's any more, unless by another right."""
        peer = self.peers[mac]
        if self.holders.get(endpoint) == mac and endpoint != peer.endpoint and endpoint not in peer.sources:
            del self.holders[endpoint]

    def outgoing(self, ethernet: bytes) -> tuple[bytes, Endpoint] | None:
        """A frame from the TAP: the datagram and where it goes."""
        if len(ethernet) < _ETHERNET:
            self.counts["drop_frame_short"] += 1
            return None
        dest = MacAddress(ethernet[:6])
        peer = None if dest.is_multicast else self.peers.get(dest)
        if peer is not None:
            self._notice(dest, peer)
        to = peer.endpoint if peer is not None and peer.direct else self.supernode
        if to is None:
            self.counts["drop_no_supernode"] += 1
            return None
        if len(ethernet) > self.frame_limit:
            self.counts["drop_frame_long"] += 1
            return None
        if peer is not None:
            peer.traffic.update(tx_frames=1, tx_bytes=len(ethernet))
        self.counts["flood" if peer is None else "direct" if peer.direct else "relay"] += 1
        if peer is not None and self.vfuze:
            return build(VFuze(dest), ethernet), to
        header = ProtoV(PacketType.DATA, self.community, self.mac, dest, sequence=self.sequence())
        return build(header, ethernet), to

    def _notice(self, mac: MacAddress, peer: _Peer) -> None:
        now = self.clock()
        if peer.noticed is None or now - peer.noticed >= _NOTICE_EVERY:
            peer.noticed = now
            self.notices.append(mac)
            self.counts["notice"] += 1

    def incoming(self, datagram: bytes, source: Endpoint) -> tuple[str, bytes]:
        """("frame", for the TAP) or ("control", for the core) or (why it was dropped, "")."""
        verdict, content = self._incoming(datagram, source)
        self.counts[verdict] += 1
        return verdict, content

    def _incoming(self, datagram: bytes, source: Endpoint) -> tuple[str, bytes]:
        if not datagram:
            return "drop_empty", b""
        if datagram[0] == VFUZE_MARK:
            if len(datagram) < VFUZE_SIZE:
                return "drop_short", b""
            if not self.vfuze:
                return "drop_vfuze_off", b""
            if datagram[1:VFUZE_SIZE] != self.mac.raw:
                return "drop_destination", b""
            return self._data(datagram[VFUZE_SIZE:], source, None)
        if datagram[0] != PROTOCOL_VERSION:
            return "drop_foreign", b""
        if len(datagram) < PROTOV_SIZE:
            return "drop_short", b""
        if datagram[2] == PacketType.DATA:
            return self._data(datagram[PROTOV_SIZE:], source, datagram[10:16])
        if datagram[2] not in _TAKEN:
            return "drop_type", b""
        if datagram[2] != PacketType.PING and source != self.supernode:
            return "drop_stranger", b""
        if datagram[2] == PacketType.PING and len(datagram) > _LONGEST_PING:
            return "drop_control_long", b""
        if datagram[2] == PacketType.PING and datagram[PROTOV_SIZE:].startswith(b"n2n load"):
            return "drop_load", b""  # nobody agreed to any
        return "control", datagram

    def _data(self, payload: bytes, source: Endpoint, named: bytes | None) -> tuple[str, bytes]:
        sender = None
        if source != self.supernode:
            sender = self.holders.get(source)
            if sender is None:
                return "drop_stranger", b""
        try:
            ethernet = self.opened(payload)
        except Unopened as error:
            return str(error), b""
        if len(ethernet) < _ETHERNET:
            return "drop_frame_short", b""
        if len(ethernet) > self.frame_limit:
            return "drop_frame_long", b""
        if named is None and ethernet[:6] != self.mac.raw:  # a short header repeats the frame's destination
            return "drop_destination", b""
        verdict = self._judge(MacAddress(ethernet[:6]), MacAddress(ethernet[6:12]), sender, named)
        if verdict != "frame":
            return verdict, b""
        # What was relayed is credited to whom the frame names.
        peer = self.peers.get(sender or MacAddress(ethernet[6:12]))
        if peer is not None:
            peer.traffic.update(rx_frames=1, rx_bytes=len(ethernet), rx_direct=sender is not None)
        return verdict, ethernet

    def _judge(self, dest: MacAddress, inner: MacAddress, sender: MacAddress | None, named: bytes | None) -> str:
        if inner.is_multicast or inner == self.mac:
            return "drop_spoofed"
        if self.bridge:
            return "frame"
        if (sender is not None and inner != sender) or (named is not None and inner.raw != named):
            return "drop_spoofed"
        return "frame" if dest.is_multicast or dest == self.mac else "drop_destination"
