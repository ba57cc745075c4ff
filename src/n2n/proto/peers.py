"""The other edges of the community, as the supernode tells of them: a bounded table, keyed by MAC address.

What a supernode says is checked entry by entry; what makes no sense is skipped and counted, and the rest is taken.
The table turns messages into changes; :class:`~n2n.proto.edge.EdgeCore` makes actions of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Final, Literal, TypeAlias

from n2n.errors import MalformedDatagram
from n2n.proto.birthday import Party
from n2n.proto.candidates import CandidateView
from n2n.proto.notes import Freshness
from n2n.proto.pacing import Bucket
from n2n.proto.paths import Probe, ProbeSettings
from n2n.proto.ways import Way
from n2n.types import SUPERNODE_MAC, Endpoint, Instant, MacAddress, PeerInfo
from n2n.wire import Card, GoTime, Mapping, P2PStatus, from_peer, to_peer
from n2n.wire import Peer as WirePeer
from n2n.wire import PeerInfo as WirePeerInfo

__all__ = ["Member", "PathName", "PeerChange", "PeerTable", "PeerView", "Told"]

PathName: TypeAlias = Literal["direct", "relay"]

#: Further endpoints that one peer's frames may come from; the plane remembers as many.
SOURCES_PER_PEER: Final = 4
#: A new one of these per second and peer, at most: pings can be forged.
_SOURCE_RATE: Final = 1.0
#: A list as long as this may be the first part of a longer one, whose rest comes as events: a datagram holds
#: some 1100 peers, with the longest names and cards 110.
_SPLIT_AT: Final = 100
#: Pongs per second for one peer, and at once: to pings from endpoints known as its own, to relayed ones, and to those
#: from elsewhere, each for itself, so that whoever forges pings in its name leaves it the answers to its own. A v5 edge
#: pings 4 times in 3 seconds, 8 times in its first round.
_PONG_RATE: Final = 8.0
_PONG_BURST: Final = 32.0
#: Calls and new cards of one peer that make us search, per second and at once: each costs some twenty pings.
_CALL_RATE: Final = 0.5
_CALL_BURST: Final = 5.0


@dataclass(frozen=True, slots=True)
class PeerView:
    """One peer, for people.

    Args:
        mac: its address in the community.
        name: what it calls itself (bounded; never to be trusted).
        virtual_ip: its lease, if the supernode told.
        endpoint: where the supernode sees it.
        status: how far the direct path from here to there has got.
        path: the way our frames to it take now.
        one_way: it is reached directly, but answers by way of the supernode.
        full_duplex: it is reached directly, and answers directly.
        reason: why the path is what it is: `discovered`, `probing`, `answered`, `silent`, `no_answer`, `peer_changed`,
            `network_changed`; of an n2n peer also `better` and `quicker` (than the endpoint used before) and `idle`.
        since: Unix seconds of the last change of `path` (of the discovery, if there was none).
        rtt: seconds there and back, directly, when last measured; None if never.
        last_pong: Unix seconds of the last answer to a ping; None if never.
        updated: Unix seconds at which the supernode last told of it, or its status last changed.
        check_id: the public part of its pings' check ids; empty before the first ping.
        kind: `n2n` once it has shown a card or a note, `v5` once it has answered without one, else `unknown`.
        in_use: where our frames to it go; None while they go by relay.
        their_path: the way its frames to us take, as it said last; None: unknown.
        candidates: the endpoints at which an n2n peer is tried.
        nat: what its NAT does, as it says itself.
        outer_trip: seconds that the last answer from the endpoint in use took, straight back.
        relay_trip: seconds that its last answer by way of the supernode took.
    """

    mac: MacAddress
    name: str
    virtual_ip: IPv4Address | None
    endpoint: Endpoint
    status: P2PStatus
    path: PathName
    one_way: bool
    full_duplex: bool
    reason: str
    since: float
    rtt: float | None
    last_pong: float | None
    updated: float
    check_id: str
    kind: Literal["n2n", "v5", "unknown"] = "unknown"
    in_use: Endpoint | None = None
    their_path: PathName | None = None
    candidates: tuple[CandidateView, ...] = ()
    nat: Mapping = Mapping.UNKNOWN
    outer_trip: float | None = None
    relay_trip: float | None = None


class Member:
    """One peer and what we know of the way to it."""

    __slots__ = (
        "_mapped",
        "_source_bucket",
        "call",
        "call_bucket",
        "card",
        "card_field",
        "fresh",
        "info",
        "party",
        "placed",
        "plain",
        "pong_buckets",
        "probe",
        "reason",
        "secret",
        "since",
        "sources",
        "their_path",
        "their_secret",
        "told",
        "updated",
        "way",
    )

    def __init__(self, info: PeerInfo, mapped: bool, probe: Probe, now: Instant) -> None:
        self.info = info
        self.probe = probe
        self.reason = "discovered"
        self.since = now.wall
        self.updated = now.wall
        self.told = now.mono
        """Monotonic seconds at which the supernode last told of it."""
        self.sources: deque[Endpoint] = deque(maxlen=SOURCES_PER_PEER)
        """Endpoints besides its own that its frames may come from, oldest first."""
        self.pong_buckets = {way: Bucket(_PONG_RATE, _PONG_BURST) for way in ("known", "relayed", "elsewhere")}
        self.way: Way | None = None
        """The ways to an n2n peer; None: it is treated as a v5 one, with `probe`."""
        self.card: Card | None = None
        """The last card it showed."""
        self.card_field = b""
        """The field in which the supernode last told its card."""
        self.plain = False
        """It answered without a note: it is a v5 edge, and gets no notes."""
        self.placed: Endpoint | None = None
        """The endpoint in use that the plane was last told of."""
        self.call: tuple[str, float] | None = None
        """Check id of the last call that is not answered yet, and when it was made."""
        self.call_bucket = Bucket(_CALL_RATE, _CALL_BURST)
        self.fresh = Freshness()
        self.secret = b""
        """What we told it by way of the supernode, for its direct pings to repeat."""
        self.party: Party | None = None
        """The attempt to meet it by many ports that is under way."""
        self.their_secret = b""
        """What it told us."""
        self.their_path: PathName | None = None
        self._source_bucket = Bucket(_SOURCE_RATE, SOURCES_PER_PEER)
        self._mapped = mapped

    @property
    def direct(self) -> bool:
        """Our frames to it go straight to it."""
        return self.probe.available if self.way is None else self.way.chosen is not None

    @property
    def target(self) -> Endpoint:
        """Where they go if they go straight; else where the supernode sees it."""
        return self.info.endpoint if self.way is None or self.way.chosen is None else self.way.chosen

    def update(self, info: PeerInfo, mapped: bool, now: Instant) -> bool:
        """Take newer data; True if they are such that what is known of the path no longer holds (v5's rule)."""
        moved = info.endpoint != self.info.endpoint
        changed = moved or info.virtual_ip != self.info.virtual_ip
        self.info = info
        self.told = now.mono
        self.updated = now.wall
        self._mapped = mapped
        if moved:
            self.sources.clear()
        return changed

    def allow(self, source: Endpoint, mono: float) -> bool | None:
        """Whether `source` is made a further endpoint of this peer: True, False (too many are new), None (known)."""
        if source == self.info.endpoint or source in self.sources:
            return None
        if not self._source_bucket.take(mono):
            return False
        self.sources.append(source)
        return True

    def may_pong(self, source: Endpoint, relayed: bool, mono: float) -> bool:
        """Whether a ping in this peer's name is answered."""
        known = source == self.info.endpoint or (self.way is not None and source in self.way.trials)
        return self.pong_buckets["relayed" if relayed else "known" if known else "elsewhere"].take(mono)

    def set_reason(self, reason: str, now: Instant, moved: bool) -> None:
        """Remember why the path is what it is; `moved`: it is another way than before."""
        self.reason = reason
        self.updated = now.wall
        if moved:
            self.since = now.wall

    def view(self) -> PeerView:
        """It, for people."""
        probe, way = self.probe, self.way
        trial = None if way is None or way.chosen is None else way.trials[way.chosen]
        straight = probe.full_duplex if way is None else way.straight
        label, asked = (probe.label, probe.asked) if way is None else (way.label, way.asked)
        return PeerView(
            mac=self.info.mac,
            name=self.info.name,
            virtual_ip=self.info.virtual_ip,
            endpoint=self.info.endpoint,
            status=probe.status if way is None else way.status,
            path="direct" if self.direct else "relay",
            one_way=self.direct and not straight,
            full_duplex=self.direct and straight,
            reason=self.reason,
            since=self.since,
            rtt=probe.rtt if way is None else None if trial is None else trial.rtt,
            last_pong=probe.last_pong if way is None else way.last_pong,
            updated=self.updated,
            check_id=label if asked else "",
            kind="n2n" if way is not None else "v5" if self.plain else "unknown",
            in_use=self.target if self.direct else None,
            their_path=self.their_path,
            candidates=() if way is None else way.views(),
            nat=Mapping.UNKNOWN if self.card is None else self.card.mapping,
            outer_trip=None if trial is None or not trial.straight else trial.turnaround,
            relay_trip=None if way is None else way.relay_rtt,
        )

    def wire(self) -> WirePeer:
        """It, for the supernode; without the part of the check id that nobody else may know."""
        view = self.view()
        return WirePeer(
            infos=from_peer(self.info, self._mapped),
            p2p_status=int(view.status),
            is_full_duplex=view.full_duplex,
            p2p_check_id=view.check_id,
            updated_at=GoTime.of(view.updated),
        )


class Told(Enum):
    """What the supernode's word did to a peer."""

    MOVED = "moved"
    """An n2n peer's endpoint is another; its paths may well be alive."""

    ADDED = "added"
    CHANGED = "changed"
    """Its endpoint or virtual address is another: the path starts anew."""
    REFRESHED = "refreshed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class PeerChange:
    """One peer, and what happened to it.

    Args:
        told: what.
        member: the peer.
        was_direct: its frames went straight to it before.
        card: the card that came with it.
        before: its endpoint before that.
    """

    told: Told
    member: Member
    was_direct: bool = False
    card: Card | None = None
    before: Endpoint | None = None


class PeerTable:
    """All peers.

    Args:
        own_mac: our own address; never a peer.
        limit: peers that are kept; more are skipped and counted.
        probe_settings: how their endpoints are probed.
        label_of: the public part of the check id of pings to a peer.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
        count: called with the name of a counter for each entry that is skipped.
        read_card: reads the card that comes with an edge, if it can be believed.
    """

    def __init__(
        self,
        own_mac: MacAddress,
        *,
        limit: int,
        probe_settings: ProbeSettings,
        label_of: Callable[[PeerInfo], str],
        jitter: Callable[[], float],
        count: Callable[[str], None],
        read_card: Callable[[bytes, MacAddress], Card | None],
    ) -> None:
        self._own_mac = own_mac
        self._limit = limit
        self._probe_settings = probe_settings
        self._label_of = label_of
        self._jitter = jitter
        self._count = count
        self._read_card = read_card
        self._members: dict[MacAddress, Member] = {}
        self._doubtful: list[tuple[Member, float]] = []

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members.values()))

    def get(self, mac: MacAddress) -> Member | None:
        """The peer with this MAC address, if there is one."""
        return self._members.get(mac)

    def put(self, infos: Iterable[WirePeerInfo], forbidden: Endpoint | None, now: Instant) -> list[PeerChange]:
        """Add or update peers.

        Args:
            infos: as they came.
            forbidden: an endpoint that no peer can have (the supernode's).
            now: the moment.
        """
        changes = []
        for raw in infos:
            info = self._checked(raw, forbidden)
            if info is not None and (change := self._put_one(info, raw, now)) is not None:
                changes.append(change)
        return changes

    def _checked(self, raw: WirePeerInfo, forbidden: Endpoint | None) -> PeerInfo | None:
        try:
            info = to_peer(raw)
        except MalformedDatagram:
            self._count("peer_malformed")
            return None
        ip = info.endpoint.ip
        if info.mac == self._own_mac:
            self._count("peer_is_self")
        elif info.mac == SUPERNODE_MAC:
            self._count("peer_malformed")
        elif info.endpoint == forbidden or (ip.version == 6 and ip.is_link_local):
            # Our frames for a peer at the supernode's endpoint would look like frames to relay; a link-local
            # address means nothing without the interface, which a supernode cannot know.
            self._count("peer_bad_endpoint")
        else:
            return info
        return None

    def _put_one(self, info: PeerInfo, raw: WirePeerInfo, now: Instant) -> PeerChange | None:
        mapped = raw.pub_socket is not None and len(raw.pub_socket.ip) == 16
        member = self._members.get(info.mac)
        # The same card again, as lists bring it, need not be opened again.
        known = member is not None and member.card_field == raw.n2n
        card = None if known else self._read_card(raw.n2n, info.mac)
        if member is None:
            if len(self._members) >= self._limit:
                self._count("peer_table_full")
                return None
            member = Member(info, mapped, self._new_probe(info), now)
            member.card_field = raw.n2n
            self._members[info.mac] = member
            return PeerChange(Told.ADDED, member, card=card)
        member.card_field = raw.n2n
        was_direct, before = member.direct, member.info.endpoint
        if card is not None or member.way is not None:
            member.update(info, mapped, now)
            told = Told.REFRESHED if before == info.endpoint else Told.MOVED
            return PeerChange(told, member, was_direct, card, before)
        if not member.update(info, mapped, now):
            return PeerChange(Told.REFRESHED, member, was_direct)
        member.probe = self._new_probe(info)
        return PeerChange(Told.CHANGED, member, was_direct)

    def _new_probe(self, info: PeerInfo) -> Probe:
        return Probe(info.endpoint, self._label_of(info), self._probe_settings, self._jitter)

    def replace(
        self, infos: tuple[WirePeerInfo, ...], forbidden: Endpoint | None, asked: float, now: Instant
    ) -> list[PeerChange]:
        """Take a whole list: who is not in it is removed.

        A peer that an event told of after the list was asked for (monotonic seconds `asked`) stays as it is: datagrams
        overtake each other, and that list may be the older word.  Where the list may go on in events, who is not in it
        stays until `sweep`.
        """
        newer = {m.info.mac.raw for m in self if m.told > asked}
        listed = {info.mac_addr for info in infos} | newer
        gone = [m for m in self if m.info.mac.raw not in listed]
        older = [info for info in infos if info.mac_addr not in newer]
        self._doubtful = [(member, member.told) for member in gone] if len(infos) >= _SPLIT_AT else []
        removed = [] if self._doubtful else self._remove_members(gone)
        return [*removed, *self.put(older, forbidden, now)]

    @property
    def doubtful(self) -> bool:
        """Some peers were not in the last list, and `sweep` is to remove them."""
        return bool(self._doubtful)

    def sweep(self) -> list[PeerChange]:
        """Remove those that were not in the last list and that no event has told of since."""
        gone = [m for m, told in self._doubtful if m.told == told and self._members.get(m.info.mac) is m]
        self._doubtful = []
        return self._remove_members(gone)

    def remove(self, infos: Iterable[WirePeerInfo]) -> list[PeerChange]:
        """Remove each peer that is known; the others are passed over."""
        gone = []
        for raw in infos:
            member = self._members.get(MacAddress(raw.mac_addr)) if len(raw.mac_addr) == 6 else None
            if member is None:
                self._count("peer_unknown")
            else:
                gone.append(member)
        return self._remove_members(gone)

    def _remove_members(self, gone: Iterable[Member]) -> list[PeerChange]:
        changes = []
        for member in gone:
            if self._members.pop(member.info.mac, None) is not None:
                changes.append(PeerChange(Told.REMOVED, member, member.direct))
        return changes
