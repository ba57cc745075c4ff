"""The supernode of protocol v5, as far as it decides: who is registered, who is told what.

`SupernodeCore` takes datagrams and the time and gives back actions; it does no input or output.  Frames and pings are
relayed by the data plane, which `PutMember` and `DropMember` keep informed; what reaches this core of them comes from
edges that are not registered.  The duties lie in files of their own:

========================  ==================================================================
`sn_register`             registrations, heartbeats, leaves, and the checks before them
`sn_state`                the shared tables, who is told what, what is saved
`members`, `networks`,    the tables themselves: pure, each with its own rules
`leases`, `decryptions`
`answers`                 the datagrams that are sent, and how they are made to fit
`limits`, `sn_settings`   how much a stranger can ask for
========================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Final, TypeAlias

from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.proto.actions import Action, LeaseRecord
from n2n.proto.answers import ROOM, Cut, check_state, full_state, leases_answer, own
from n2n.proto.limits import source_key
from n2n.proto.members import Community, Member
from n2n.proto.sn_register import Registrar
from n2n.proto.sn_settings import SupernodeSettings
from n2n.proto.sn_state import SupernodeState
from n2n.proto.views import CommunityView, MemberView
from n2n.proto.whereabouts import Whereabouts
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import (
    PROTOV_SIZE,
    LeasesInfos,
    P2PFullState,
    PacketType,
    PeerListRequest,
    ProtoV,
    SNPublicSecret,
    clean_name,
    community_id,
    decode,
)

__all__ = ["CommunityView", "MemberView", "SupernodeCore", "SupernodeSettings"]

_Handler: TypeAlias = Callable[[ProtoV, bytes, Endpoint, Instant], None]

#: Seconds between two looks at what waits, while something does.
_TICK: Final = 1.0
#: A full state longer than this is made at most once in `_KEEP` seconds per community (it takes a while).
_LONG: Final = 8192
_KEEP: Final = 2.0
#: Longest payload of a request, in bytes: the longest names, the ciphertext of the longest key, and descriptors take
#: less than 3,000.  Decoding costs time in proportion, also what is skipped, and strangers send these.
_REQUEST_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class _Made:
    """A full state that was made, and of what."""

    cut: Cut
    version: int
    mono: float


class SupernodeCore:
    """Decides for a supernode.

    Args:
        settings: its settings.
        public_pem: its public key as v5 sends it (PEM text with the label "RSA PUBLIC KEY").
        leases: those saved in earlier runs, in any order.
        networks: those saved in earlier runs, in the order in which they were given.
        key_size: bytes of the key's modulus; encrypted machine ids of another length are not decrypted.
    """

    def __init__(
        self,
        settings: SupernodeSettings,
        *,
        public_pem: bytes,
        leases: Iterable[LeaseRecord] = (),
        networks: Mapping[str, IPv4Network] | None = None,
        key_size: int = 256,
    ) -> None:
        self._state = SupernodeState(settings, public_pem, leases, networks or {})
        self._registrar = Registrar(self._state, key_size)
        self._whereabouts = Whereabouts(self._state)
        self._next_cleanup: float | None = None
        self._next_tick: float | None = None
        self._full_states: dict[Community, _Made] = {}
        self._handlers: dict[int, _Handler] = {
            PacketType.SN_PUBLIC_SECRET: self._on_key_request,
            PacketType.REGISTER_REQUEST: self._registrar.register,
            PacketType.HEARTBEAT: self._registrar.heartbeat,
            PacketType.UNREGISTER_REQUEST: self._registrar.unregister,
            PacketType.DATA: self._on_relayed,
            PacketType.PING: self._on_relayed,
            PacketType.PEER_LIST_REQUEST: self._on_list_request,
            PacketType.P2P_STATE: self._on_state,
            PacketType.P2P_FULL_STATE: self._on_full_state_request,
            PacketType.LEASES_INFOS: self._on_leases_request,
        }

    # ------------------------------------------------------------------ what happens

    def receive(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        """A datagram came in.  Never raises for what is in it."""
        state = self._state
        state.count("received")
        if source.port == 0:
            state.count("unsendable_source")
            return
        try:
            header = ProtoV.unpack(datagram)
        except MalformedDatagram:
            state.count("not_protocol")
            return
        handler = self._handlers.get(header.type)
        if handler is None:
            state.count("unhandled_type")
            return
        # Only what describes many peers may be long; it is decoded for registered edges alone.
        if len(datagram) > PROTOV_SIZE + _REQUEST_LIMIT and header.type != PacketType.P2P_STATE:
            state.count("oversized")
            return
        try:
            handler(header, datagram[PROTOV_SIZE:], source, now)
        except (MalformedDatagram, LocalProtocolError):
            state.count("malformed")
        self._plan_tick(now)

    def receive_probe(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        """A datagram came to the probe port.  Never raises for what is in it."""
        self._state.count("received")
        self._whereabouts.receive(datagram, source, now)

    def decrypted(self, token: int, machine_id: bytes | None, now: Instant) -> None:
        """Answer to a `Decrypt` action; None if the ciphertext did not open."""
        job = self._state.pending.finish(token)
        if job is None:
            self._state.count("decrypt_unexpected")
            return
        try:
            self._registrar.decrypted(job, machine_id, now)
        except (MalformedDatagram, LocalProtocolError):
            self._state.count("malformed")

    def handle_timer(self, now: Instant) -> None:
        """The time of `next_timer` has come (or another; nothing happens before its time)."""
        if self._next_cleanup is None:
            self._next_cleanup = now.mono + self._state.settings.cleanup_interval
        if now.mono >= self._next_cleanup:
            self._next_cleanup = now.mono + self._state.settings.cleanup_interval
            self._clean_up(now)
        if self._next_tick is not None and now.mono >= self._next_tick:
            self._next_tick = None
            self._state.tick(now)
        self._plan_tick(now)

    def next_timer(self) -> float | None:
        """Monotonic seconds at which `handle_timer` wants to be called; 0 (at once) before its first call."""
        if self._next_cleanup is None:
            return 0.0
        return self._next_cleanup if self._next_tick is None else min(self._next_cleanup, self._next_tick)

    def drain(self) -> list[Action]:
        """Take what is to be done, in order."""
        actions, self._state.out = self._state.out, []
        return actions

    def set_expiry(self, seconds: float, now: Instant) -> None:
        """Count silent edges as gone after another time."""
        self._state.settings = replace(self._state.settings, expiry=seconds)

    def set_cleanup(self, seconds: float, now: Instant) -> None:
        """Look for silent edges at another interval."""
        self._state.settings = replace(self._state.settings, cleanup_interval=seconds)
        if self._next_cleanup is not None:
            self._next_cleanup = min(self._next_cleanup, now.mono + seconds)

    def set_strict(self, strict: bool, now: Instant) -> None:
        """Refuse false community ids from the next registration on, or no more."""
        self._state.settings = replace(self._state.settings, strict_hash_checking=strict)

    def kick(self, community: str, mac: MacAddress, now: Instant) -> bool:
        """Drop a registered edge, as if it had left; it may come back.  False if there is none."""
        member = self._member(community, mac)
        if member is None:
            return False
        self._state.remove(member, "kicked", now)
        return True

    def release(self, community: str, mac: MacAddress, now: Instant) -> bool:
        """Free an edge's address (and drop the edge): the MAC may then be another machine's.  False if it has none."""
        self.kick(community, mac, now)
        lease = self._state.book.release(community, mac)
        if lease is None:
            return False
        self._state.drop_record(community, lease)
        fields = {"community": clean_name(community), "mac": str(mac), "ip": str(lease.ip)}
        self._state.note("info", "lease_released", now, **fields)
        return True

    # ------------------------------------------------------------------ what is known

    def communities(self) -> tuple[CommunityView, ...]:
        """All communities, idle ones included, in order of their entry."""
        return tuple(
            CommunityView(
                entry.name,
                entry.id,
                entry.group,
                entry.network,
                entry.derived,
                len(entry.members),
                len(self._state.book.leases(entry.name)),
            )
            for entry in self._state.registry.communities.values()
        )

    def members(self, community: str) -> tuple[MemberView, ...]:
        """The registered edges of a community, in order of registration; none if it is unknown."""
        there = self._state.registry.communities.get(community)
        return tuple(
            MemberView(
                member.mac,
                clean_name(member.name),
                member.ip,
                member.endpoint,
                member.header_id,
                member.entered,
                member.last_seen,
                member.state is not None,
            )
            for member in (there.members.values() if there is not None else ())
        )

    def leases(self, community: str) -> tuple[LeaseRecord, ...]:
        """The leases of a community, run out or not; none if it is unknown."""
        return self._state.book.leases(community)

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by name, and how full the bounded tables are."""
        state = self._state
        return state.counters | {
            "now_communities": len(state.registry.communities),
            "now_leases": len(state.book),
            "now_members": state.registry.member_count,
            "now_pending": len(state.pending),
            "now_state_bytes": state.state_bytes,
        }

    # ------------------------------------------------------------------ packets

    def _on_key_request(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        state = self._state
        if not state.where_sources.take(source_key(source), now.mono):
            state.count("keys_limited")
            return
        question = decode(SNPublicSecret, payload)
        if question.n2n:
            if state.key_total.take(now.mono):
                self._whereabouts.asked(header, question.n2n, PROTOV_SIZE + len(payload), source, now)
            else:
                state.count("keys_limited")
            return
        if not self._is_request(question.is_request):
            return
        if not state.key_sources.take(source_key(source), now.mono):
            state.count("keys_limited")
            return
        if not state.key_total.take(now.mono):
            state.count("keys_limited")
            state.owe(source, now)
            return
        state.hush(source, now)
        state.send_key(source, now)

    def _on_relayed(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        """Data or ping that the plane did not relay, because it did not know the sender."""
        if self._sender(header, source, now) is not None:
            self._state.count("relayed_meanwhile")

    def _on_list_request(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        member = self._sender(header, source, now)
        if member is None:
            return
        settings = self._state.settings
        rate = settings.member_rate if source == member.endpoint else settings.stray_rate
        if not member.take(header.type, source == member.endpoint, rate, now.mono):
            self._state.count("answers_limited")
            return
        request = decode(PeerListRequest, payload)
        member.missed = False
        self._state.send_list(member, community_id(request.community_name), now)

    def _on_state(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        state = self._state
        member = self._sender(header, source, now)
        if member is None:
            return
        if not member.take(header.type, source == member.endpoint, state.settings.member_rate, now.mono):
            state.count("answers_limited")
            return
        check_state(payload)
        state.count("states_stored" if state.set_state(member, payload) else "states_refused")

    def _on_full_state_request(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        member = self._asker(header, source, now)
        if member is None or not self._is_request(decode(P2PFullState, payload).is_request):
            return
        cut = self._full_state(member.community, now)
        if cut.left_out:
            self._cut("full_states_cut", "full_state_cut", member, cut, now)
        self._state.send(own(PacketType.P2P_FULL_STATE, member.community.id, now, cut.payload), member.endpoint)
        self._state.count("full_states_sent")

    def _on_leases_request(self, header: ProtoV, payload: bytes, source: Endpoint, now: Instant) -> None:
        member = self._asker(header, source, now)
        if member is None or not self._is_request(decode(LeasesInfos, payload).is_request):
            return
        community = member.community
        cut = leases_answer(community, self._state.book.leases(community.name), now)
        if cut.left_out:
            self._cut("leases_cut", "leases_cut", member, cut, now)
        self._state.send(own(PacketType.LEASES_INFOS, community.id, now, cut.payload), member.endpoint)
        self._state.count("leases_sent")

    # ------------------------------------------------------------------ help

    def _sender(self, header: ProtoV, source: Endpoint, now: Instant) -> Member | None:
        """The registered edge that a packet names as its sender; one that is not registered is told to do so."""
        member = self._state.registry.find(header.community, header.source)
        if member is None:
            self._state.tell_to_register(source, now)
        elif source == member.endpoint:
            self._state.speak(member, now)
        return member

    def _is_request(self, is_request: bool) -> bool:
        if not is_request:
            self._state.count("not_a_request")
        return is_request

    def _asker(self, header: ProtoV, source: Endpoint, now: Instant) -> Member | None:
        """The registered edge that may have a long answer: it asks from its own address, and not too often."""
        state = self._state
        member = self._sender(header, source, now)
        if member is None:
            return None
        if source != member.endpoint:
            state.count("answers_misdirected")
            return None
        if not member.take(header.type, True, state.settings.member_rate, now.mono) or not state.heavy.take(now.mono):
            state.count("answers_limited")
            return None
        return member

    def _full_state(self, community: Community, now: Instant) -> Cut:
        made = self._full_states.get(community)
        if made is not None and (
            made.version == community.version or (len(made.cut.payload) > _LONG and now.mono - made.mono < _KEEP)
        ):
            return made.cut
        cut = full_state(community)
        if len(cut.payload) > ROOM:  # the estimates were wrong: a bug, but not one to lose an answer for
            raise LocalProtocolError(f"a full state of {len(cut.payload)} bytes")
        self._full_states[community] = _Made(cut, community.version, now.mono)
        return cut

    def _cut(self, counter: str, event: str, member: Member, cut: Cut, now: Instant) -> None:
        self._state.count(counter)
        fields = {"community": clean_name(member.community.name), "left_out": cut.left_out, "bytes": len(cut.payload)}
        self._state.note("warning", event, now, **fields)

    def _member(self, community: str, mac: MacAddress) -> Member | None:
        there = self._state.registry.communities.get(community)
        return there.members.get(mac) if there is not None else None

    def _clean_up(self, now: Instant) -> None:
        state = self._state
        horizon = now.mono - state.settings.expiry
        for member in [member for member in state.registry.members() if member.last_seen < horizon]:
            state.count("expired")
            state.remove(member, "silent", now)
        state.purge(now)
        self._full_states.clear()

    def _plan_tick(self, now: Instant) -> None:
        if self._next_tick is None and self._state.waiting:
            self._next_tick = now.mono + _TICK
