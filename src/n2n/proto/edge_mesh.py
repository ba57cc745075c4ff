"""An edge and its peers: who they are, pings and pongs, which way to each, and what the supernode is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from n2n.errors import MalformedDatagram
from n2n.proto.actions import DropPeer
from n2n.proto.edge_outbox import Outbox
from n2n.proto.edge_paths import PathBook
from n2n.proto.edge_settings import EdgeSettings
from n2n.proto.edge_ways import Heard, Ways
from n2n.proto.notes import Notary
from n2n.proto.pacing import Bucket
from n2n.proto.paths import CHECK_ID_LIMIT, Change, Pong
from n2n.proto.peers import Member, PeerChange, PeerTable, PeerView, Told
from n2n.types import Endpoint, Instant, MacAddress, PeerInfo
from n2n.wire import (
    MAX_DATAGRAM,
    PROTOV_SIZE,
    Card,
    GoTime,
    Note,
    NoteKind,
    P2PStatus,
    PacketType,
    PeerEvent,
    PeerInfoList,
    PeerP2PInfos,
    PeerToPing,
    encode,
    from_peer,
    to_peer,
)
from n2n.wire import Peer as WirePeer

__all__ = ["Mesh"]

#: Pongs per second, and at once, for all edges together that the supernode has not told us of.
_STRANGER_RATE: Final = 8.0
_STRANGER_BURST: Final = 16.0
#: Order of one ping round (WIRE 11.4); those given up come last.
_ORDER: Final = {P2PStatus.UNKNOWN: 0, P2PStatus.PENDING: 1, P2PStatus.AVAILABLE: 2, P2PStatus.UNAVAILABLE: 3}


class Mesh:
    """The peers and the ways to them.

    Args:
        settings: the edge's.
        outbox: takes what is to be sent and done.
        notary: writes and reads cards and notes.
        token: returns unpredictable text for check ids, another each time.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
        doubt: called when our own address may be another than the supernode knows.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        outbox: Outbox,
        notary: Notary,
        *,
        token: Callable[[], str],
        jitter: Callable[[], float],
        doubt: Callable[[Instant], None],
    ) -> None:
        self._name = settings.name
        self._out = outbox
        self._notary = notary
        self._n2n = settings.n2n
        self._token = token
        self._paths = PathBook(outbox)
        self._table = PeerTable(
            outbox.mac,
            limit=settings.max_peers,
            probe_settings=settings.probe,
            label_of=self._label,
            jitter=jitter,
            count=outbox.count,
            read_card=self._read_card,
        )
        self.ways = Ways(settings, outbox, notary, self._paths, self._table, token=token, jitter=jitter, doubt=doubt)
        """The ways to n2n peers."""
        self._strangers = Bucket(_STRANGER_RATE, _STRANGER_BURST)
        self._origin: WirePeer | None = None
        self.reflexive: Endpoint | None = None
        """Our own endpoint, as the supernode last told it."""

    def doubt_state(self) -> None:
        """The supernode may have forgotten how we see our peers."""
        self._paths.dirty = len(self) > 0

    def _read_card(self, field: bytes, mac: MacAddress) -> Card | None:
        return self._notary.read_card(field, mac) if self._n2n else None

    def _read_note(self, message: PeerToPing, member: Member, now: Instant) -> Note | None:
        return self._notary.read_note(message.n2n, member.info.mac, member.fresh, now) if self._n2n else None

    def traffic(self, mac: MacAddress, now: Instant) -> bool:
        """Frames are being sent to a peer; True if they go by way of the supernode."""
        member = self._table.get(mac)
        if member is None:
            return False
        self.ways.traffic(member, now)
        return not member.direct

    def measure(self, mac: MacAddress, now: Instant) -> None:
        """Ask a peer over every way to it."""
        member = self._table.get(mac)
        if member is not None and member.way is not None:
            self.ways.measure(member, member.way, now)

    def birthday_won(self, mac: MacAddress, endpoint: Endpoint, now: Instant) -> None:
        """A socket of ours met a peer."""
        member = self._table.get(mac)
        if member is not None and member.way is not None:
            self.ways.birthday_won(member, member.way, endpoint, now)

    def _label(self, peer: PeerInfo) -> str:
        return f"{self._name}.{self._out.mac}.{peer.mac}.{peer.endpoint.ip}.{peer.endpoint.port}"

    def __len__(self) -> int:
        return len(self._table)

    def views(self) -> tuple[PeerView, ...]:
        """All peers, for people."""
        return tuple(member.view() for member in self._table)

    # -- what the supernode tells

    def take_list(self, message: PeerInfoList, asked: float, now: Instant) -> bool:
        """A list that was asked for; True if it shows that our own endpoint is another than before."""
        moved = message.has_origin and self._take_origin(message, now)
        self.ways.listed = True
        self._carry_out(self._table.replace(message.peer_infos, self._out.supernode, asked, now), now)
        self.ways.wake(now)
        return moved

    @property
    def doubtful(self) -> bool:
        """A long list left some peers out: `sweep` is to be called when its rest must have come."""
        return self._table.doubtful

    def sweep(self, now: Instant) -> None:
        """The rest of a long list must have come: remove who was in no part of it."""
        self._carry_out(self._table.sweep(), now)

    def _take_origin(self, message: PeerInfoList, now: Instant) -> bool:
        try:
            origin = to_peer(message.origin)
        except MalformedDatagram:
            self._out.count("origin_bad")
            return False
        if origin.mac != self._out.mac:
            self._out.count("origin_bad")
            return False
        socket = message.origin.pub_socket
        mapped = socket is not None and len(socket.ip) == 16
        self._origin = WirePeer(infos=from_peer(origin, mapped), updated_at=GoTime.of(now.wall))
        before, self.reflexive = self.reflexive, origin.endpoint
        return before is not None and before != self.reflexive

    def take_event(self, message: PeerInfoList, now: Instant) -> None:
        """Peers that came, changed or went."""
        if message.event_type == PeerEvent.REGISTERED:
            self._carry_out(self._table.put(message.peer_infos, self._out.supernode, now), now)
        elif message.event_type == PeerEvent.UNREGISTERED:
            self._carry_out(self._table.remove(message.peer_infos), now)
        else:
            self._out.count("event_unknown")

    def _carry_out(self, changes: list[PeerChange], now: Instant) -> None:
        for change in changes:
            self._paths.dirty = True
            member = change.member
            if change.told is Told.REMOVED:
                self._out.act(DropPeer(member.info.mac))
                self._out.note("info", "peer_gone", mac=str(member.info.mac), name=member.info.name)
                self.ways.gone(member, now)
            elif change.told is Told.ADDED:
                self._paths.put(member)
                self._out.note(
                    "info", "peer_new", mac=str(member.info.mac), name=member.info.name,
                    virtual_ip=str(member.info.virtual_ip), endpoint=str(member.info.endpoint),
                )  # fmt: skip
                self._paths.note_path(member)
            elif change.told is Told.CHANGED:
                self._set_path(member, "peer_changed", change.was_direct, now)
                self._paths.put(member)
            if change.told is not Told.REMOVED and (member.way is not None or change.card is not None):
                self.ways.told(change, now)

    # -- paths

    def _set_path(self, member: Member, reason: str, was_direct: bool, now: Instant) -> None:
        self._paths.set_path(member, reason, now, moved=member.direct != was_direct)

    def ping_round(self, now: Instant) -> None:
        """Ping whom it is time to ping: v5's rounds, for those that have not shown to be more than v5."""
        plain = [member for member in self._table if member.way is None and not self.ways.inside(member.probe.endpoint)]
        for member in sorted(plain, key=lambda m: _ORDER[m.probe.status]):
            was_direct = member.direct
            round_ = member.probe.begin_round(now, self._token)
            if round_.change is not Change.NONE:
                self._set_path(member, round_.change.value, was_direct, now)
                if was_direct:
                    self._paths.put(member)
            if round_.pings:
                payload = encode(PeerToPing(check_id=round_.check_id, n2n=self._note(member, now)))
                self._out.ping(member.info.mac, payload, member.probe.endpoint, round_.pings, now)

    def restart_paths(self, reason: str, now: Instant) -> None:
        """Our own address changed: every peer by relay, until it is found again."""
        for member in self._table:
            if member.way is not None:
                self.ways.restart(member, member.way, reason, now)
                continue
            was_direct = member.direct
            member.probe.restart()
            self._set_path(member, reason, was_direct, now)
            if was_direct:
                self._paths.put(member)

    def _note(self, member: Member, now: Instant) -> bytes:
        """A note for a peer of which we do not know whether it reads notes; none for one that does not."""
        if member.plain or not self._n2n:
            return b""
        mac = member.info.mac
        return self._notary.note_field(NoteKind.PING, mac, now, token=member.their_secret, reached=member.direct)

    def take_ping(self, message: PeerToPing, sender: MacAddress, source: Endpoint, relayed: bool, now: Instant) -> bool:
        """Answer a ping for us; False if the supernode has never told of its sender.

        The pong goes the way our frames to the sender go (v5's rule), which tells the sender whether we reach it.
        """
        if len(message.check_id) > CHECK_ID_LIMIT:
            self._out.count("ping_too_long")
            return True
        if not relayed and self.ways.inside(source):
            self._out.count("from_inside")
            return True
        member = self._table.get(sender)
        due = self._strangers.take(now.mono) if member is None else member.may_pong(source, relayed, now.mono)
        if not due:
            self._out.count("ping_limited")
            return True
        note = self._read_note(message, member, now) if member is not None else None
        if member is not None and note is not None and (relayed or self.ways.trusts(member, note)):
            self.ways.take_ping(member, Heard(message.check_id, source, relayed), note, now)
            return True
        if member is not None and not relayed:
            self._heard_directly(member, source, now)
        direct = member is not None and member.direct
        endpoint = member.target if member is not None and direct else self._out.supernode
        if endpoint is None:
            self._out.count("no_supernode")
        else:
            answer = b""
            if member is not None and note is not None:  # it reads notes, and may be one of us
                answer = self._notary.note_field(
                    NoteKind.ANSWER, sender, now, token=self.ways.secret(member), reached=direct
                )
            payload = encode(PeerToPing(check_id=message.check_id, is_pong=True, n2n=answer))
            self._out.pong(sender, payload, endpoint, now)
        return member is not None

    def _heard_directly(self, member: Member, source: Endpoint, now: Instant) -> None:
        self._paths.heard(member, source, now)
        if source == member.info.endpoint:
            member.probe.nudge(now)  # its datagrams get through to us: ours may by now get through to it

    def take_pong(self, message: PeerToPing, sender: MacAddress, source: Endpoint, relayed: bool, now: Instant) -> None:
        """Judge a pong.  Its check id proves that the ping reached the peer, wherever it comes from."""
        member = self._table.get(sender)
        if member is None:
            self._out.count("pong_stranger")
            return
        if not relayed and self.ways.inside(source):
            self._out.count("from_inside")
            return
        note = self._read_note(message, member, now)
        if member.way is not None:
            self.ways.take_pong(member, Heard(message.check_id, source, relayed), note, now)
            return
        was_direct, was_duplex = member.direct, member.probe.full_duplex
        verdict = member.probe.pong(message.check_id, not relayed, now)
        if verdict is Pong.UNASKED:
            self._out.count("pong_unasked")
            return
        if verdict is Pong.REPEATED:
            self._out.count("pong_repeated")
        if not relayed:
            self._heard_directly(member, source, now)
        if not was_direct:
            self._set_path(member, "answered", was_direct, now)
            self._paths.put(member)
        elif was_duplex != member.probe.full_duplex:
            member.set_reason(member.reason, now, moved=False)
            self._paths.dirty = True
        member.plain = note is None
        if note is not None:
            self.ways.found_out(member, note, now)

    # -- what the supernode is told

    def state_message(self) -> PeerP2PInfos:
        """How we see our peers; those with a direct path first where not all fit into a datagram."""
        members = tuple(self._table)
        infos = tuple(member.wire() for member in members)
        message = PeerP2PInfos(self._origin, infos)
        while len(infos) > 1 and PROTOV_SIZE + len(encode(message)) > MAX_DATAGRAM:
            if len(infos) == len(members):
                self._out.count("state_cut")
                infos = tuple(member.wire() for member in sorted(members, key=lambda m: not m.direct))
            infos = infos[: len(infos) * 3 // 4]
            message = PeerP2PInfos(self._origin, infos)
        return message

    def tell_state(self, now: Instant) -> None:
        """Tell the supernode how we see our peers, if that changed."""
        if self._paths.dirty:
            self._paths.dirty = False
            self._out.tell_supernode(PacketType.P2P_STATE, self.state_message(), now)
