"""Who is where: communities, their registered edges, and what is remembered of those that are gone.

One packet finds its edge by two numbers in its header: the community id and the source MAC.  That pair is the key here
and in the data plane alike; the text that an edge writes into its payload is a key of nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from n2n.proto.limits import Rate
from n2n.proto.pacing import Bucket
from n2n.types import Endpoint, MacAddress
from n2n.wire.hashes import community_id

__all__ = ["Community", "History", "Member", "Record", "Registry", "digest_of"]

_DIGEST_SIZE: Final = 8
#: Ciphertexts remembered of one edge.  Registrations and leaves are rare: 64 reach back months.  Heartbeats come every
#: 10 to 30 seconds: 512 reach back hours.
_RARE_LIMIT: Final = 64
_BEATS_LIMIT: Final = 512


def digest_of(ciphertext: bytes) -> bytes:
    """Eight bytes by which an encrypted machine id is recognised when it comes again."""
    return hashlib.blake2b(ciphertext, digest_size=_DIGEST_SIZE).digest()


class History:
    """The encrypted machine ids that were accepted from one edge.

    Every edge encrypts afresh for each message, and the encryption is randomised: a ciphertext that comes a second
    time is a copy, whatever the header around it says.
    """

    __slots__ = ("_beats", "_rare")

    def __init__(self) -> None:
        self._rare = bytearray()
        self._beats = bytearray()

    def __contains__(self, digest: bytes) -> bool:
        return _holds(self._rare, digest) or _holds(self._beats, digest)

    def add(self, digest: bytes, *, beat: bool) -> None:
        """Remember one; the oldest of its kind is forgotten when there are too many."""
        ring, limit = (self._beats, _BEATS_LIMIT) if beat else (self._rare, _RARE_LIMIT)
        ring += digest
        if len(ring) > limit * _DIGEST_SIZE:
            del ring[:_DIGEST_SIZE]


def _holds(ring: bytearray, digest: bytes) -> bool:
    at = ring.find(digest)
    while at >= 0 and at % _DIGEST_SIZE:
        at = ring.find(digest, at + 1)
    return at >= 0


@dataclass(slots=True)
class Record:
    """What is remembered of an edge that is, or once was, registered (lost at a restart, as in v5).

    Args:
        name: what it called itself when it was entered, as it is echoed on the wire.
        ip: its address.
        since_mono: when it was entered or dropped last, monotonic seconds.
        since_wall: the same moment in Unix seconds.
        endpoint: where it was heard from last.
        history: the ciphertexts accepted from it.
    """

    name: str
    ip: IPv4Address
    since_mono: float
    since_wall: float
    endpoint: Endpoint
    history: History = field(default_factory=History)


@dataclass(slots=True, eq=False)
class Member:
    """A registered edge.

    Args:
        community: where it is a member.
        mac: its address there.
        header_id: community id that its packets carry.
        name: what it called itself, as it is echoed on the wire.
        ip: its virtual address.
        owner: SHA-256 of its machine id.
        endpoint: where its last registration or heartbeat came from.
        entered: Unix seconds of the registration that entered it.
        last_seen: monotonic seconds of its last registration or heartbeat.
        skew: its clock minus ours when it was last heard from its own endpoint, in seconds.
        state: payload of its last P2P state, checked; None before the first.
        quiet_until: until then it is sent no event (it asked for the key, and v5 stumbles over anything else).
        missed: an event was held back.
        card: what it told of itself for other n2n edges, as it came; empty: a v5 edge.
    """

    community: Community
    mac: MacAddress
    header_id: int
    name: str
    ip: IPv4Address
    owner: bytes
    endpoint: Endpoint
    entered: float
    last_seen: float
    skew: float
    state: bytes | None = None
    quiet_until: float = 0.0
    missed: bool = False
    card: bytes = b""
    _buckets: dict[tuple[int, bool], Bucket] = field(default_factory=dict)

    def take(self, kind: int, own: bool, rate: Rate, mono: float) -> bool:
        """Take a token for a request of this kind; `own` if it came from the edge's endpoint.

        The two have buckets apart, so that a stranger who copies the edge's header cannot use up what is the edge's.
        """
        bucket = self._buckets.get((kind, own))
        if bucket is None:
            bucket = self._buckets[kind, own] = Bucket(rate.per_second, rate.burst)
        return bucket.take(mono)


@dataclass(slots=True, eq=False)
class Community:
    """A community: its network, its registered edges, and the memory of others.

    Args:
        name: its name.
        group: number by which the data plane knows it; never used twice by one core.
        network: where its addresses come from.
        derived: False where another community had the network of the v5 derivation.
        touched: monotonic seconds of the last registration in it.
        version: counts what changes a full state.
    """

    name: str
    group: int
    network: IPv4Network
    derived: bool
    touched: float = 0.0
    version: int = 0
    id: int = field(init=False)
    members: dict[MacAddress, Member] = field(default_factory=dict)
    records: dict[MacAddress, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = community_id(self.name)

    def others(self, mac: MacAddress) -> Iterator[Member]:
        """All registered edges but this one."""
        return (member for member in self.members.values() if member.mac != mac)


class Registry:
    """The tables of communities and registered edges, kept in step with each other."""

    def __init__(self) -> None:
        self._communities: dict[str, Community] = {}
        self._by_id: dict[int, Community] = {}
        self._foreign: Counter[int] = Counter()
        self._members: dict[tuple[int, MacAddress], Member] = {}
        self._at: dict[Endpoint, dict[Member, None]] = {}  # dict for a set in order of entry
        self._groups = 0

    @property
    def communities(self) -> Mapping[str, Community]:
        """All communities by name."""
        return self._communities

    @property
    def member_count(self) -> int:
        """Registered edges in all communities."""
        return len(self._members)

    def make(self, name: str, network: IPv4Network, derived: bool) -> Community:
        """Enter a community whose id is free."""
        self._groups += 1
        community = Community(name, self._groups, network, derived)
        self._communities[name] = self._by_id[community.id] = community
        return community

    def give_up(self, community: Community) -> None:
        """Forget a community that has no registered edge."""
        del self._communities[community.name]
        del self._by_id[community.id]

    def owner_of(self, header_id: int) -> Community | None:
        """The community whose packets carry this id."""
        return self._by_id.get(header_id)

    def find(self, header_id: int, mac: MacAddress) -> Member | None:
        """The sender of a packet, if it is registered."""
        return self._members.get((header_id, mac))

    def at(self, endpoint: Endpoint) -> tuple[Member, ...]:
        """The registered edges whose endpoint this is (more than one if one socket serves several communities)."""
        return tuple(self._at.get(endpoint, ()))

    def members(self) -> Iterator[Member]:
        """All registered edges."""
        return iter(self._members.values())

    def enter(self, member: Member) -> None:
        """Register an edge whose MAC is free in its community."""
        member.community.members[member.mac] = member
        member.community.version += 1
        self._put(member)

    def drop(self, member: Member) -> None:
        """An edge is registered no more."""
        del member.community.members[member.mac]
        member.community.version += 1
        self._take(member)

    def move(self, member: Member, endpoint: Endpoint, header_id: int) -> None:
        """An edge's packets come from elsewhere, or carry another community id."""
        self._take(member)
        member.endpoint = endpoint
        member.header_id = header_id
        self._put(member)

    def _put(self, member: Member) -> None:
        self._members[member.header_id, member.mac] = member
        self._at.setdefault(member.endpoint, {})[member] = None
        if member.header_id != member.community.id:
            self._foreign[member.header_id] += 1
            self._by_id[member.header_id] = member.community

    def _take(self, member: Member) -> None:
        del self._members[member.header_id, member.mac]
        there = self._at[member.endpoint]
        del there[member]
        if not there:
            del self._at[member.endpoint]
        if member.header_id != member.community.id:
            self._foreign[member.header_id] -= 1
            if not self._foreign[member.header_id]:
                del self._foreign[member.header_id], self._by_id[member.header_id]
