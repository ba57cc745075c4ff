"""The datagrams that a supernode makes: headers, and messages that always fit.

The largest UDP datagram carries 65,507 bytes.  A peer list that would be longer is split: the first part is the list
(event 1), which makes an edge forget whom it does not name, and the rest follows as events "registered" (event 2).
Full states and leases cannot be split (each answer replaces the former at the edge), so they are cut, and the caller is
told how much was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from n2n.errors import MalformedDatagram
from n2n.proto.actions import LeaseRecord
from n2n.proto.members import Community, Member, Record
from n2n.types import SUPERNODE_MAC, Instant, MacAddress, PeerInfo
from n2n.wire import (
    FLAG_SUPERNODE,
    MAX_DATAGRAM,
    PROTOV_SIZE,
    GoTime,
    Lease,
    LeaseEdgeInfos,
    LeasesInfos,
    LeaseWithEdgeInfos,
    P2PCommunityDatas,
    P2PFullState,
    PacketType,
    Peer,
    PeerCachedInfo,
    PeerEvent,
    PeerInfoList,
    PeerP2PInfos,
    ProtoV,
    build,
    decode,
    encode,
    from_peer,
    messages,
    name_bytes,
)

__all__ = ["ROOM", "Cut", "cut_desc", "full_state", "info_of", "leases_answer", "own", "peer_event", "peer_lists"]

#: Bytes of payload in the largest datagram.
ROOM: Final = MAX_DATAGRAM - PROTOV_SIZE
#: Longest name of an edge that is echoed to others, in bytes (a host name has at most 255: POSIX, HOST_NAME_MAX).
DESC_LIMIT: Final = 255

# Upper bounds of the encoded sizes, for deciding what fits before encoding it (the end is checked all the same).
_DESCRIPTORS: Final = 1500
_PEER_INFO: Final = 40
_PEER: Final = 36
_P2P_INFOS: Final = 40
_CACHED: Final = 96
_LEASE: Final = 128
#: Share of a full state that may be used for those who are gone.
_GONE_SHARE: Final = ROOM // 4


class Cut(NamedTuple):
    """A payload, and how many entries were left out of it."""

    payload: bytes
    left_out: int


def own(kind: int, community: int, now: Instant, body: object = b"") -> bytes:
    """A datagram of a supernode's own: flag 2, sequence 0, its MAC, no destination (WIRE 10)."""
    header = ProtoV(kind, community, SUPERNODE_MAC, flags=FLAG_SUPERNODE, timestamp=int(now.wall))
    return build(header, body)


def cut_desc(text: str) -> str:
    """An edge's name as it is echoed: as it came, but no longer than `DESC_LIMIT` bytes."""
    if len(text) * 4 <= DESC_LIMIT:
        return text
    raw = name_bytes(text)
    if len(raw) <= DESC_LIMIT:
        return text
    end = DESC_LIMIT
    while end and raw[end] & 0xC0 == 0x80:  # not in the middle of a code point
        end -= 1
    return raw[: end or DESC_LIMIT].decode("utf-8", "surrogateescape")


def info_of(member: Member, mapped: bool, cards: bool = False) -> messages.PeerInfo:
    """What others are told of an edge; `cards`: they are told its card, too."""
    peer = PeerInfo(member.mac, member.name, member.community.name, member.ip, member.endpoint)
    return from_peer(peer, mapped, member.card if cards else b"")


def peer_event(member: Member, event: PeerEvent, mapped: bool, now: Instant, cards: bool = False) -> bytes:
    """Event 2 or 3 about one edge, for all others (`cards`: for those that showed a card themselves)."""
    cards = cards and event == PeerEvent.REGISTERED
    body = PeerInfoList(peer_infos=(info_of(member, mapped, cards),), event_type=event)
    return own(PacketType.PEER_INFO, member.community.id, now, body)


def peer_lists(member: Member, header_id: int, mapped: bool, now: Instant) -> list[bytes]:
    """The answer to a peer list request: all others of the community, in as few datagrams as it takes.

    Args:
        member: who asks; if it showed a card, it is told those of the others.
        header_id: community id of the answers' headers.
        mapped: write IPv4 socket addresses as 16 bytes.
        now: goes into the headers.
    """
    origin = info_of(member, mapped)
    parts: list[list[messages.PeerInfo]] = [[]]
    start = left = ROOM - _DESCRIPTORS - _info_size(origin)
    for other in member.community.others(member.mac):
        info = info_of(other, mapped, cards=bool(member.card))
        size = _info_size(info)
        if size > left:
            parts.append([])
            left = start
        parts[-1].append(info)
        left -= size
    answer = PeerInfoList(has_origin=True, origin=origin, peer_infos=tuple(parts[0]), event_type=PeerEvent.LIST)
    rest = (PeerInfoList(peer_infos=tuple(part), event_type=PeerEvent.REGISTERED) for part in parts[1:])
    return [own(PacketType.PEER_INFO, header_id, now, body) for body in (answer, *rest)]


def full_state(community: Community) -> Cut:
    """The payload of a full state: what every registered edge said last, and who is gone.

    If that does not fit, the check ids (of use to their sender only) are left out; if it still does not, so are the
    edges that registered last.
    """
    gone = _gone(community)
    total_gone = len(gone)
    while sum(map(_gone_size, gone.values())) > _GONE_SHARE:
        gone.pop(next(iter(gone)))  # the longest gone first
    room = ROOM - _DESCRIPTORS - sum(map(_gone_size, gone.values())) - len(name_bytes(community.name))
    told = [(str(mac), member.state) for mac, member in community.members.items() if member.state is not None]
    slim = sum(len(state) + _P2P_INFOS for _, state in told) > room
    reachable: dict[str, PeerP2PInfos] = {}
    for mac, state in told:
        infos = decode(PeerP2PInfos, state)
        if slim:
            infos = _slim(infos)
            room -= _infos_size(infos)
            if room < 0:
                break
        reachable[mac] = infos
    payload = encode(P2PFullState(community.name, False, P2PCommunityDatas(reachable, gone)))
    return Cut(payload, len(told) - len(reachable) + total_gone - len(gone))


def leases_answer(community: Community, records: Sequence[LeaseRecord], now: Instant) -> Cut:
    """The payload that tells a community's leases; if they do not fit, the newest are left out."""
    room = ROOM - _DESCRIPTORS - len(name_bytes(community.name))
    entries: dict[str, LeaseWithEdgeInfos] = {}
    for record in records:
        known = community.records.get(record.mac)
        room -= _LEASE + (len(name_bytes(known.name)) if known is not None else 0)
        if room < 0:
            break
        mac = str(record.mac)
        lease = Lease(record.ip.packed, mac, GoTime.of(record.expiry), True, GoTime.of(record.last_renew))
        entries[mac] = LeaseWithEdgeInfos(lease, _edge_infos(community, record.mac, known, now))
    return Cut(encode(LeasesInfos(False, community.name, entries)), len(records) - len(entries))


def check_state(payload: bytes) -> None:
    """Accept a P2P state for being told to others.

    Raises:
        MalformedDatagram: it does not decode, or describes a peer that would crash a v5 edge (WIRE, quirk 13).
    """
    infos = decode(PeerP2PInfos, payload)
    for peer in (*infos.to, *([infos.from_] if infos.from_ is not None else [])):
        if len(peer.infos.mac_addr) != 6 or peer.infos.pub_socket is None:
            raise MalformedDatagram("a P2P state with a peer that has no MAC or socket address")


def _edge_infos(community: Community, mac: MacAddress, known: Record | None, now: Instant) -> LeaseEdgeInfos:
    if known is None:
        return LeaseEdgeInfos("unknown", False, -1_000_000_000)
    since = round((now.mono - known.since_mono) * 1e9)
    return LeaseEdgeInfos(known.name, mac in community.members, since, known.ip.packed)


def _gone(community: Community) -> dict[str, PeerCachedInfo]:
    """Those once registered and gone, the longest gone first."""
    records: Iterable[tuple[MacAddress, Record]] = (
        (mac, record) for mac, record in community.records.items() if mac not in community.members
    )
    return {
        str(mac): PeerCachedInfo(record.name, str(mac), record.ip.packed, community.name, GoTime.of(record.since_wall))
        for mac, record in sorted(records, key=lambda entry: entry[1].since_mono)
    }


def _slim(infos: PeerP2PInfos) -> PeerP2PInfos:
    def without(peer: Peer) -> Peer:
        return replace(peer, p2p_check_id="")

    return PeerP2PInfos(None if infos.from_ is None else without(infos.from_), tuple(map(without, infos.to)))


def _info_size(info: messages.PeerInfo) -> int:
    socket = info.pub_socket
    there = 0 if socket is None else len(socket.ip) + len(name_bytes(socket.zone))
    named = len(name_bytes(info.community)) + len(name_bytes(info.desc))
    card = len(info.n2n) + 3 if info.n2n else 0
    return _PEER_INFO + card + len(info.virtual_ip) + len(info.mac_addr) + there + named


def _infos_size(infos: PeerP2PInfos) -> int:
    peers = (*infos.to, *([infos.from_] if infos.from_ is not None else []))
    return _P2P_INFOS + sum(_PEER + _info_size(peer.infos) + len(name_bytes(peer.p2p_check_id)) for peer in peers)


def _gone_size(info: PeerCachedInfo) -> int:
    return _CACHED + len(name_bytes(info.desc)) + len(name_bytes(info.community))
