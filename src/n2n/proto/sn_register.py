"""How edges come, stay and go: registrations, heartbeats and leaves.

All three carry the machine id, RSA-encrypted, and opening one is the costliest thing a stranger can ask for.  So it
comes last: first the sender (for heartbeats and leaves), its rate, the form of the message, whether it was seen before,
and the rate of all together.
"""

from __future__ import annotations

import hashlib
from typing import Final

from n2n.proto.actions import Decrypt, DropMember, SaveLease
from n2n.proto.answers import cut_desc, own
from n2n.proto.decryptions import Job, Sealed
from n2n.proto.leases import Refusal
from n2n.proto.limits import source_key
from n2n.proto.members import Community, Member, Record, digest_of
from n2n.proto.sn_state import SupernodeState
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import (
    CARD_LIMIT,
    HeartbeatPulse,
    PacketType,
    PeerEvent,
    ProtoV,
    RegisterRequest,
    RegisterResponse,
    UnregisterRequest,
    Welcome,
    clean_name,
    community_id,
    decode,
    derive_mac,
)

__all__ = ["Registrar"]

#: Length of the machine ids that v5 edges have.
_MACHINE_ID_SIZE: Final = 16
#: An edge that moves has a clock; if that went back or ahead by more (seconds), the packet is an old one.
_SKEW_LIMIT: Final = 16.0
_REFUSED: Final = RegisterResponse()
#: Stands for changed cards among the kinds of requests that are limited (those are packet types, below 256).
_CARDS: Final = 256


class Registrar:
    """Handles packet types 1, 2 and 3.

    Args:
        state: what all duties share.
        key_size: bytes of the supernode's RSA modulus; every ciphertext has this length.
    """

    def __init__(self, state: SupernodeState, key_size: int) -> None:
        self._state = state
        self._key_size = key_size

    # ------------------------------------------------------------------ packets

    def register(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        """A RegisterRequest: answered by a RegisterResponse whatever becomes of it, unless a limit is reached."""
        state = self._state
        state.count("registers")
        if not state.sources.take(source_key(source), now.mono):
            state.count("source_limited")
            return
        message = decode(RegisterRequest, payload)
        reason = self._register_refusal(header, message, now)
        if reason is not None:
            self._refuse(header, message, reason, source, now)
            return
        digest = digest_of(message.encrypted_machine_id)
        community = state.registry.communities.get(message.community_name)
        if community is not None and self._seen(community, header, digest, source, now):
            return
        member = community.members.get(header.source) if community is not None else None
        if member is not None and not self._paced(member, header, source, now):
            return
        self._decrypt(Job(header, message, source, digest, now.mono), member, now)

    def heartbeat(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        """A HeartbeatPulse of a registered edge: never answered."""
        state = self._state
        state.count("heartbeats")
        member = state.registry.find(header.community, header.source)
        if member is None:
            state.tell_to_register(source, now)
            return
        if not self._paced(member, header, source, now) or not self._source_paced(source, now):
            return
        message = decode(HeartbeatPulse, payload)
        if not self._well_formed(message, header, now):
            return
        digest = digest_of(message.encrypted_machine_id)
        if self._copied(member, digest):
            state.count("heartbeats_duplicate" if source == member.endpoint else "replayed")
            return
        self._decrypt(Job(header, message, source, digest, now.mono), member, now)

    def unregister(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        """An UnregisterRequest of a registered edge: never answered."""
        state = self._state
        state.count("unregisters")
        member = state.registry.find(header.community, header.source)
        if member is None:
            state.tell_to_register(source, now)
            return
        if not self._paced(member, header, source, now) or not self._source_paced(source, now):
            return
        message = decode(UnregisterRequest, payload)
        if not self._well_formed(message, header, now):
            return
        if message.community_name != member.community.name:
            state.count("unregisters_refused")
            return
        digest = digest_of(message.encrypted_machine_id)
        if self._copied(member, digest):
            state.count("replayed")
            return
        self._decrypt(Job(header, message, source, digest, now.mono), member, now)

    def decrypted(self, job: Job, machine_id: bytes | None, now: Instant) -> None:
        """The machine id of a packet is known, or is None because it did not open."""
        if machine_id is None:
            self._state.count("decrypt_failed")
        if isinstance(job.message, RegisterRequest):
            self._finish_register(job, job.message, machine_id, now)
            return
        member = self._state.registry.find(job.header.community, job.header.source)
        if member is None or machine_id is None:
            return
        matches = hashlib.sha256(machine_id).digest() == member.owner
        if isinstance(job.message, HeartbeatPulse):
            self._finish_heartbeat(job, job.message.n2n, member, matches, now)
        elif matches:
            self._remember(member, job)
            self._state.remove(member, "left", now)
        else:
            self._state.count("unregisters_refused")

    # ------------------------------------------------------------------ before the decryption

    def _register_refusal(self, header: ProtoV, message: RegisterRequest, now: Instant) -> str | None:
        """Why a registration cannot succeed, whatever its machine id is."""
        try:
            mac = MacAddress.parse(message.edge_mac_addr)
        except ValueError:
            return "bad_mac"
        if mac != header.source or mac.is_zero or mac.is_multicast:
            return "mac_differs"
        strict = self._state.settings.strict_hash_checking
        if strict and header.community != community_id(message.community_name):
            return "community_id_differs"
        holder = self._state.registry.owner_of(header.community)
        # Under its own id a community may take the place of an idle one, which only `found` can tell.
        if (
            holder is not None
            and holder.name != message.community_name
            and (holder.members or header.community != community_id(message.community_name))
        ):
            return "community_id_taken"
        return None if self._well_formed(message, header, now) else "bad_ciphertext"

    def _well_formed(self, message: Sealed, header: ProtoV, now: Instant) -> bool:
        if len(message.encrypted_machine_id) != self._key_size:
            self._state.count("bad_ciphertext")
            return False
        limit = self._state.settings.max_clock_skew
        if limit is not None and abs(_skew(header, now)) > limit:
            self._state.count("clock_skew")
            return False
        return True

    def _seen(self, community: Community, header: ProtoV, digest: bytes, source: Endpoint, now: Instant) -> bool:
        """A copy of an earlier packet: from the same place it gets the same answer, from elsewhere none."""
        state = self._state
        record = community.records.get(header.source)
        if record is None or digest not in record.history:
            return False
        member = community.members.get(header.source)
        if record.endpoint != source:
            state.count("replayed")
            return True
        if member is None:
            return False  # it may have been told to register, and does so with what it has
        state.count("registers_duplicate")
        if self._paced(member, header, source, now):
            self._accept(member, source, now)
        return True

    def _copied(self, member: Member, digest: bytes) -> bool:
        record = member.community.records.get(member.mac)
        return record is not None and digest in record.history

    def _source_paced(self, source: Endpoint, now: Instant) -> bool:
        if self._state.sources.take(source_key(source), now.mono):
            return True
        self._state.count("source_limited")
        return False

    def _paced(self, member: Member, header: ProtoV, source: Endpoint, now: Instant) -> bool:
        # Packets from elsewhere are paced by their source alone: whoever copies an edge's header must not be able to
        # use up what is the edge's, and keep it from moving.
        rate = self._state.settings.member_rate
        if source != member.endpoint or member.take(header.type, True, rate, now.mono):
            return True
        self._state.count("member_limited")
        return False

    def _decrypt(self, job: Job, member: Member | None, now: Instant) -> None:
        state = self._state
        if state.pending.busy(job.source, job.header):
            state.count("decrypt_repeated")
            return
        # Registered edges at their endpoints go first: strangers cannot crowd them out.
        known = member is not None and member.endpoint == job.source
        dropped = None if state.pending.room(known) else "decrypt_full"
        if dropped is None and not known and not state.total.take(now.mono):
            dropped = "overloaded"
        if dropped is not None:
            state.count(dropped)
            if isinstance(job.message, RegisterRequest):
                state.owe(job.source, now)
            return
        token = state.pending.start(job)
        state.out.append(Decrypt(token, job.message.encrypted_machine_id))

    # ------------------------------------------------------------------ after the decryption

    def _finish_register(self, job: Job, message: RegisterRequest, machine_id: bytes | None, now: Instant) -> None:
        if machine_id is None:
            self._refuse(job.header, message, "machine_id_does_not_open", job.source, now)
            return
        # What was true before the decryption may be so no more.
        reason = self._register_refusal(job.header, message, now)
        if reason is None and len(machine_id) != _MACHINE_ID_SIZE:
            reason = "machine_id_length"
        if reason is None and derive_mac(machine_id, message.community_name) != job.header.source:
            reason = "mac_not_of_this_machine"
        if reason is None:
            reason = self._admit(job, message, hashlib.sha256(machine_id).digest(), now)
        if reason is not None:
            self._refuse(job.header, message, reason, job.source, now)

    def _admit(self, job: Job, message: RegisterRequest, owner: bytes, now: Instant) -> str | None:
        """Enter an edge, or take note that it is still there; returns the reason if it cannot be."""
        state = self._state
        community = state.registry.communities.get(message.community_name)
        known = community.members.get(job.header.source) if community is not None else None
        if known is None and state.registry.member_count >= state.settings.max_members:
            return "too_many_edges"
        if community is None:
            founded = state.found(message.community_name, job.source, now)
            if isinstance(founded, str):
                return founded
            community = founded
        community.touched = now.mono
        member = community.members.get(job.header.source)
        if member is None:
            entered = self._enter(job, message, owner, community, now)
            if isinstance(entered, str):
                return entered
            member = entered
            member.card = self._checked_card(message.n2n)
        elif member.owner != owner:
            return Refusal.OWNER
        elif self._restless(member, job, now):
            return None
        else:
            self._move(member, job, now)
            self._renew(member, now)
            member.card = self._checked_card(message.n2n)
        self._remember(member, job)
        self._accept(member, job.source, now)
        state.put(member)
        state.tell_others(member, PeerEvent.REGISTERED, now)
        return None

    def _enter(
        self, job: Job, message: RegisterRequest, owner: bytes, community: Community, now: Instant
    ) -> Member | str:
        state = self._state
        mac = job.header.source
        shown = clean_name(message.edge_desc)
        grant = state.book.request(community.name, mac, owner, name=shown, wall=now.wall, busy=community.members)
        if isinstance(grant, Refusal):
            return grant
        if grant.reclaimed is not None:
            state.count("leases_reclaimed")
            state.drop_record(community.name, grant.reclaimed)
        state.out.append(SaveLease(grant.record))
        name = cut_desc(message.edge_desc)
        skew = _skew(job.header, now)
        ip = grant.record.ip
        member = Member(community, mac, job.header.community, name, ip, owner, job.source, now.wall, now.mono, skew)
        record = Record(name, ip, now.mono, now.wall, job.source)
        if (former := community.records.get(mac)) is not None:
            record.history = former.history
        community.records[mac] = record
        state.registry.enter(member)
        state.note("info", "edge_registered", now, **state.names(member))
        return member

    def _accept(self, member: Member, source: Endpoint, now: Instant) -> None:
        """Tell an edge its address.  This goes before anything else to that address (WIRE, quirk 12)."""
        state = self._state
        settings = state.settings
        welcome = Welcome(settings.probe_port, settings.key_lasts).pack() if member.card else b""
        answer = RegisterResponse(True, str(member.ip), member.community.network.prefixlen, welcome)
        state.send(own(PacketType.REGISTER_RESPONSE, member.community.id, now, answer), source)
        state.forget_quiet(member)
        state.strangers.forget(source)

    def _refuse(self, header: ProtoV, message: RegisterRequest, reason: str, source: Endpoint, now: Instant) -> None:
        state = self._state
        state.count("registers_refused")
        datagram = own(PacketType.REGISTER_RESPONSE, community_id(message.community_name), now, _REFUSED)
        state.send(datagram, source)
        fields = {
            "reason": str(reason),
            "community": clean_name(message.community_name),
            "mac": str(header.source),
            "name": clean_name(message.edge_desc),
            "endpoint": str(source),
        }
        state.note("warning", "registration_refused", now, **fields)

    def _finish_heartbeat(self, job: Job, card: bytes, member: Member, matches: bool, now: Instant) -> None:
        state = self._state
        if not matches:
            state.count("heartbeats_refused")
            return
        moved = job.source != member.endpoint
        if moved and abs(_skew(job.header, now) - member.skew) > _SKEW_LIMIT:
            state.count("heartbeats_stale")
            return
        if self._restless(member, job, now):
            return
        before = member.endpoint
        self._move(member, job, now)
        self._renew(member, now)
        self._remember(member, job)
        news = self._new_card(member, card, now)
        if moved:
            state.put(member)
        else:
            state.speak(member, now)
        if moved or news:
            state.tell_others(member, PeerEvent.REGISTERED, now)
        if moved:
            moves = {"before": str(before)} | state.names(member)
            state.note("info", "edge_moved", now, **moves)

    def _checked_card(self, card: bytes) -> bytes:
        """What is kept of an `N2N` field: its content is the edges' affair, its length is ours."""
        if len(card) <= CARD_LIMIT:
            return card
        self._state.count("cards_refused")
        return b""

    def _new_card(self, member: Member, card: bytes, now: Instant) -> bool:
        """A heartbeat brought this card; whether it is another one, and others may be told of it now."""
        card = self._checked_card(card)
        if not card or card == member.card:
            return False
        if not member.take(_CARDS, True, self._state.settings.member_rate, now.mono):
            self._state.count("cards_limited")  # the next heartbeat brings it again
            return False
        member.card = card
        return True

    def _restless(self, member: Member, job: Job, now: Instant) -> bool:
        """An edge moves too often: all others are told each time."""
        rate = self._state.settings.member_rate
        if job.source == member.endpoint or member.take(job.header.type, False, rate, now.mono):
            return False
        self._state.count("member_limited")
        return True

    def _move(self, member: Member, job: Job, now: Instant) -> None:
        """An edge is where this packet came from: all indexes say so from now on."""
        state = self._state
        member.last_seen = now.mono
        member.skew = _skew(job.header, now)
        before, header_id = member.endpoint, member.header_id
        if (before, header_id) == (job.source, job.header.community):
            return
        state.registry.move(member, job.source, job.header.community)
        member.community.version += 1
        if header_id != member.header_id:
            state.out.append(DropMember(header_id, member.community.group, member.mac))
        if before != job.source:
            state.yield_endpoint(member, before)

    def _renew(self, member: Member, now: Instant) -> None:
        renewed = self._state.book.stays(member.community.name, member.mac, now.wall)
        if renewed is not None:
            self._state.out.append(SaveLease(renewed))

    def _remember(self, member: Member, job: Job) -> None:
        record = member.community.records.get(member.mac)
        if record is not None:
            record.endpoint = job.source
            record.history.add(job.digest, beat=isinstance(job.message, HeartbeatPulse))


def _skew(header: ProtoV, now: Instant) -> float:
    """The sender's clock minus ours, in seconds; a header's time wraps at 32 bits."""
    return float((header.timestamp - int(now.wall) + (1 << 31)) % (1 << 32) - (1 << 31))
