"""What all duties of a supernode share: tables, limits, counters, and the list of actions to carry out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Final

from n2n.proto.actions import (
    Action,
    DropLease,
    DropMember,
    DropNetwork,
    LeaseRecord,
    Level,
    Note,
    PutMember,
    SaveNetwork,
    Send,
)
from n2n.proto.answers import own, peer_event, peer_lists
from n2n.proto.decryptions import Decryptions
from n2n.proto.leases import LeaseBook
from n2n.proto.limits import KeyedBuckets, Strangers, source_key
from n2n.proto.members import Community, Member, Registry
from n2n.proto.networks import NetworkPlan
from n2n.proto.pacing import Bucket
from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint, Instant
from n2n.wire import PacketType, PeerEvent, SNPublicSecret, clean_name, community_id, name_bytes

__all__ = ["COUNTERS", "SupernodeState"]

#: What is counted.  Every packet that is not answered as it wished ends in one of these.
COUNTERS: Final = (
    "answers_limited",  # a registered edge asked for lists, states or leases too often
    "answers_misdirected",  # full state or leases asked for from elsewhere than the edge's own address
    "bad_ciphertext",  # an encrypted machine id that is not as long as our key
    "cards_limited",  # changed cards of an edge that others are not told of yet
    "cards_refused",  # longer than any honest one
    "clock_skew",  # refused by max_clock_skew
    "decrypt_failed",  # a machine id that did not open
    "decrypt_full",  # too many decryptions under way
    "decrypt_repeated",  # the same sender's former packet is still being decrypted
    "decrypt_timeout",  # a decryption that nobody answered
    "decrypt_unexpected",  # an answer to a decryption that was given up
    "events_held",  # peer events not sent to an edge that is about to register
    "events_sent",
    "expired",  # edges that fell silent
    "full_states_cut",
    "full_states_sent",
    "heartbeats",
    "heartbeats_duplicate",
    "heartbeats_refused",  # of another machine
    "heartbeats_stale",  # from a new address, with a clock that went back
    "keys_limited",
    "keys_sent",
    "keys_unasked",  # sent to wake up an edge that waits for one
    "leases_cut",
    "leases_reclaimed",
    "leases_sent",
    "malformed",  # a payload that is not the message of its type
    "member_limited",  # heartbeats and registrations of one edge, too many
    "not_a_request",  # an answer sent to us
    "not_protocol",  # too short, or not of version 5
    "notes_suppressed",
    "overloaded",  # decryptions beyond what all sources together may ask for
    "oversized",  # a request longer than any honest one
    "peer_lists_sent",
    "received",
    "registers",
    "registers_duplicate",
    "registers_refused",
    "relayed_meanwhile",  # data of an edge that registered before the plane knew it
    "replayed",  # a machine id copied from an earlier packet
    "retries_limited",
    "retries_sent",
    "source_limited",  # one source, too many packets that cost a decryption
    "states_refused",  # no room for another P2P state
    "states_stored",
    "unhandled_type",
    "unregisters",
    "unregisters_refused",
    "unsendable_source",  # from port 0
    "wheres_refused",  # an answer to another port was asked for: by a stranger, or for another address
    "wheres_no_port",  # an answer from the probe port was asked for, and there is none
    "wheres_short",  # the answer would have been longer than the question
    "wheres_sent",  # edges told where they are seen
)

#: Longest name of a community, in bytes: it stands in every entry of every peer list.
NAME_LIMIT: Final = 1024
#: Seconds for which an edge that asked for the key is sent no event: it waits 5 for the key and 5 for the response.
_QUIET: Final = 10.0
#: It is not kept from events again for this long, whoever sends key requests in its name.
_QUIET_AGAIN: Final = 30.0
#: An edge whose registration we had to drop is sent the key (to make it try again) after its own wait is over.
_OWED_AFTER: Final = 6.0
_OWED_LIMIT: Final = 4096
_EVICT_AGAIN: Final = 1.0


class SupernodeState:
    """The state of a supernode.

    Args:
        settings: its settings.
        public_pem: its public key as it is sent.
        leases: what was saved in earlier runs.
        networks: the same; in order of assignment.
    """

    def __init__(
        self,
        settings: SupernodeSettings,
        public_pem: bytes,
        leases: Iterable[LeaseRecord],
        networks: Mapping[str, IPv4Network],
    ) -> None:
        self.settings = settings
        self.out: list[Action] = []
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.registry = Registry()
        self.plan = NetworkPlan(settings.base, settings.prefix)
        self.book = LeaseBook(settings.lease_lifetime, settings.max_leases)
        self.pending = Decryptions(settings.max_pending)
        self.sources: KeyedBuckets[tuple[int, int]] = KeyedBuckets(settings.source_rate, settings.max_sources)
        self.key_sources: KeyedBuckets[tuple[int, int]] = KeyedBuckets(settings.key_rate, settings.max_sources)
        self.where_sources: KeyedBuckets[tuple[int, int]] = KeyedBuckets(settings.where_rate, settings.max_sources)
        self.founders: KeyedBuckets[tuple[int, int]] = KeyedBuckets(settings.community_rate, settings.max_sources)
        self.strangers = Strangers(settings.retry_rate, settings.max_sources)
        self.total = Bucket(*settings.total_rate)
        self.key_total = Bucket(*settings.key_total)
        self.retry_total = Bucket(*settings.retry_total)
        self.heavy = Bucket(*settings.heavy_rate)
        self.state_bytes = 0
        self._notes = Bucket(*settings.note_rate)
        self._public_pem = public_pem
        self._owed: dict[Endpoint, float] = {}
        self._quiet: dict[Member, None] = {}
        self._evict_at = 0.0
        self._load(leases, networks)

    # ------------------------------------------------------------------ output

    def count(self, name: str) -> None:
        """Count one more of these."""
        self.counters[name] += 1

    def send(self, datagram: bytes, endpoint: Endpoint) -> None:
        """Send a datagram."""
        self.out.append(Send(datagram, endpoint))

    def note(self, level: Level, event: str, now: Instant, **fields: object) -> None:
        """Say that something happened; not too often, since strangers can make it happen."""
        if self._notes.take(now.mono):
            self.out.append(Note(level, event, fields))
        else:
            self.count("notes_suppressed")

    def send_key(self, endpoint: Endpoint, now: Instant) -> None:
        """Send the public key (community id 0, as in v5)."""
        self.send(own(PacketType.SN_PUBLIC_SECRET, 0, now, SNPublicSecret(False, self._public_pem)), endpoint)
        self.count("keys_sent")

    def tell_to_register(self, endpoint: Endpoint, now: Instant) -> None:
        """A packet of an edge that is not registered came from here."""
        told = self.strangers.heard(endpoint, now.mono)
        if not told.retry or not self.retry_total.take(now.mono):
            self.count("retries_limited")
            return
        self.send(own(PacketType.RETRY_REGISTER, 0, now), endpoint)
        self.count("retries_sent")
        if told.wake and self.key_total.take(now.mono):
            self.send_key(endpoint, now)
            self.count("keys_unasked")

    def tell_others(self, member: Member, event: PeerEvent, now: Instant) -> None:
        """Tell all other edges of the community about this one."""
        mapped = self.settings.mapped_addresses
        made: dict[bool, bytes] = {}
        for other in member.community.others(member.mac):
            if other.endpoint == member.endpoint:
                continue  # a former self of the same edge, not yet expired
            if now.mono < other.quiet_until:
                other.missed = True
                self.count("events_held")
                continue
            cards = bool(other.card)  # a v5 edge gets what it always got, to the byte
            if cards not in made:
                made[cards] = peer_event(member, event, mapped, now, cards)
            self.send(made[cards], other.endpoint)
            self.count("events_sent")

    def send_list(self, member: Member, header_id: int, now: Instant) -> None:
        """Tell an edge of all others."""
        for datagram in peer_lists(member, header_id, self.settings.mapped_addresses, now):
            self.send(datagram, member.endpoint)
        self.count("peer_lists_sent")

    # ------------------------------------------------------------------ quiet edges, owed keys

    def hush(self, endpoint: Endpoint, now: Instant) -> None:
        """A key request came from here: a registered edge there is starting again, and stumbles over events."""
        for member in self.registry.at(endpoint):
            if now.mono >= member.quiet_until + _QUIET_AGAIN or not member.quiet_until:
                member.quiet_until = now.mono + _QUIET
                self._quiet[member] = None

    def speak(self, member: Member, now: Instant) -> None:
        """An edge can take events again; it gets the list if it missed any."""
        if member not in self._quiet:
            return
        del self._quiet[member]
        member.quiet_until = min(member.quiet_until, now.mono)
        if member.missed:
            member.missed = False
            self.send_list(member, member.community.id, now)

    def forget_quiet(self, member: Member) -> None:
        """An edge has registered, or is gone: nothing is kept from it."""
        self._quiet.pop(member, None)
        member.quiet_until = 0.0
        member.missed = False

    def owe(self, endpoint: Endpoint, now: Instant) -> None:
        """A registration from here was dropped for lack of time: a v5 edge may now wait without end."""
        if endpoint not in self._owed and len(self._owed) < _OWED_LIMIT:
            self._owed[endpoint] = now.mono + _OWED_AFTER

    @property
    def waiting(self) -> bool:
        """Something needs to be looked at every second."""
        return bool(self._owed or self._quiet or len(self.pending))

    def tick(self, now: Instant) -> None:
        """Look at what waits."""
        self.counters["decrypt_timeout"] += self.pending.expire(now.mono)
        for member in [member for member in self._quiet if now.mono >= member.quiet_until]:
            self.speak(member, now)
        while self._owed:
            endpoint, due = next(iter(self._owed.items()))
            if now.mono < due or not self.key_total.take(now.mono):
                break
            del self._owed[endpoint]
            self.send_key(endpoint, now)
            self.count("keys_unasked")

    def purge(self, now: Instant) -> None:
        """Forget the sources that fell silent."""
        for table in (self.sources, self.key_sources, self.where_sources, self.founders):
            table.purge(now.mono)
        self.strangers.purge(now.mono)

    # ------------------------------------------------------------------ members

    def put(self, member: Member) -> None:
        """Make the plane relay for an edge where it is now."""
        self.out.append(PutMember(member.header_id, member.community.group, member.mac, member.endpoint))

    def unput(self, header_id: int, member: Member, endpoint: Endpoint) -> None:
        """Make the plane forget an edge; another one at the same endpoint has that to itself again."""
        self.out.append(DropMember(header_id, member.community.group, member.mac))
        self.yield_endpoint(member, endpoint)

    def yield_endpoint(self, member: Member, endpoint: Endpoint) -> None:
        """An edge left this endpoint: another one there, if any, has it to itself again."""
        for other in self.registry.at(endpoint):
            if other is not member:
                self.put(other)

    def set_state(self, member: Member, state: bytes | None) -> bool:
        """Keep an edge's P2P state; False, and the former is kept, if there is no room."""
        size = self.state_bytes - len(member.state or b"") + len(state or b"")
        if state is not None and size > self.settings.max_state_bytes:
            return False
        self.state_bytes = size
        member.state = state
        member.community.version += 1
        return True

    def remove(self, member: Member, reason: str, now: Instant) -> None:
        """An edge is registered no more: it left, fell silent, or was kicked.  Its lease stays."""
        community = member.community
        self.set_state(member, None)
        self.forget_quiet(member)
        self.registry.drop(member)
        self.unput(member.header_id, member, member.endpoint)
        record = community.records.get(member.mac)
        if record is not None:
            record.since_mono, record.since_wall = now.mono, now.wall
        self.book.left(community.name)
        self.tell_others(member, PeerEvent.UNREGISTERED, now)
        self.note("info", "edge_gone", now, reason=reason, **self.names(member))

    def drop_record(self, community: str, lease: LeaseRecord) -> None:
        """A lease ended: the edge's record goes with it."""
        self.out.append(DropLease(community, lease.mac))
        there = self.registry.communities.get(community)
        if there is not None and there.records.pop(lease.mac, None) is not None:
            there.version += 1

    @staticmethod
    def names(member: Member) -> dict[str, object]:
        """An edge, for notes: text from the network is normalised."""
        return {
            "community": clean_name(member.community.name),
            "mac": str(member.mac),
            "name": clean_name(member.name),
            "ip": str(member.ip),
            "endpoint": str(member.endpoint),
        }

    # ------------------------------------------------------------------ communities

    def found(self, name: str, source: Endpoint, now: Instant) -> Community | str:
        """Enter a new community; returns the reason if that cannot be."""
        if len(name_bytes(name)) > NAME_LIMIT:
            return "community_name_too_long"
        if not self.founders.take(source_key(source), now.mono):
            return "too_many_new_communities"
        squatter = self.registry.owner_of(community_id(name))
        if squatter is not None and not self._evict(squatter, now):
            return "community_id_taken"
        if len(self.registry.communities) >= self.settings.max_communities and not self._evict_any(now):
            return "too_many_communities"
        assignment = self.plan.assign(name)
        if assignment is None:
            return "no_free_network"
        self._open(name, assignment.network, assignment.derived, save=True)
        return self.registry.communities[name]

    def _open(self, name: str, network: IPv4Network, derived: bool, *, save: bool) -> None:
        self.registry.make(name, network, derived)
        self.book.open(name, network)
        if not save:
            return
        self.out.append(SaveNetwork(name, network))
        if not derived:
            fields = {
                "community": clean_name(name),
                "network": str(network),
                "derived": str(self.plan.derived(name)),
                "why": "another community has the network of the v5 derivation",
            }
            self.out.append(Note("warning", "network_differs", fields))

    def _evict(self, community: Community, now: Instant) -> bool:
        """Give up a community that nobody would miss."""
        if community.members or not self.book.dormant(community.name, now.wall):
            return False
        self.out.extend(DropLease(community.name, lease.mac) for lease in self.book.close(community.name))
        self.out.append(DropNetwork(community.name))
        self.plan.release(community.name)
        self.registry.give_up(community)
        self.note("info", "community_given_up", now, community=clean_name(community.name))
        return True

    def _evict_any(self, now: Instant) -> bool:
        if now.mono < self._evict_at:
            return False
        for community in sorted(self.registry.communities.values(), key=lambda entry: entry.touched):
            if self._evict(community, now):
                return True
        self._evict_at = now.mono + _EVICT_AGAIN
        return False

    # ------------------------------------------------------------------ start

    def _load(self, leases: Iterable[LeaseRecord], networks: Mapping[str, IPv4Network]) -> None:
        records = list(leases)
        homeless = [name for name, network in networks.items() if not self.plan.keep(name, network)]
        for name, network in list(self.plan.networks.items()):
            self._load_community(name, network, save=False)
        # The base or the prefix was changed, or two shared a network, or only the leases are there.
        for name in dict.fromkeys((*homeless, *(record.community for record in records))):
            if name not in self.registry.communities and (assignment := self.plan.assign(name)) is not None:
                self._load_community(name, assignment.network, save=True)
        # Of two leases for one address the one renewed last counts.
        records.sort(key=lambda record: record.last_renew)
        chosen = {(record.community, record.ip): record for record in records}
        for record in records:
            if chosen[record.community, record.ip] is not record or not self.book.restore(record):
                self._drop_loaded(record)

    def _drop_loaded(self, record: LeaseRecord) -> None:
        if self.book.get(record.community, record.mac) is None:
            self.out.append(DropLease(record.community, record.mac))
        fields = {"community": clean_name(record.community), "mac": str(record.mac), "ip": str(record.ip)}
        self.out.append(Note("warning", "lease_dropped", fields))

    def _load_community(self, name: str, network: IPv4Network, *, save: bool) -> None:
        if self.registry.owner_of(community_id(name)) is not None:  # never by our own doing
            self.plan.release(name)
            self.out.append(DropNetwork(name))
            return
        self._open(name, network, network == self.plan.derived(name), save=save)
