"""An edge, as far as it decides anything: registration, peers, direct paths, what the supernode is told.

Everything comes in as calls and goes out as the actions of :mod:`n2n.proto.actions`; the core does no input or output,
reads no clock and draws no random numbers.  Frames are the data plane's: the core only tells it who the peers are and
which way to send to each.

What arrives is judged in :mod:`~n2n.proto.edge_inbox`; the conversation with the supernode follows the table of
:mod:`~n2n.proto.registration`; the peers and the ways to them are :mod:`~n2n.proto.edge_mesh`, for n2n peers
:mod:`~n2n.proto.edge_ways` and :mod:`~n2n.proto.ways`, with the cards and notes of :mod:`~n2n.proto.notes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from n2n.errors import MalformedDatagram
from n2n.proto.actions import Configure, EdgeAction, Resolve, SetSupernode
from n2n.proto.edge_inbox import Inbox
from n2n.proto.edge_listing import EdgeListing
from n2n.proto.edge_mesh import Mesh
from n2n.proto.edge_outbox import Outbox
from n2n.proto.edge_questions import Answer, Questions
from n2n.proto.edge_settings import EdgeSettings
from n2n.proto.edge_watch import Watch
from n2n.proto.notes import Notary
from n2n.proto.pacing import Question
from n2n.proto.peers import PeerView
from n2n.proto.registration import Do, EdgeState, Registration, RegistrationView, Trigger, check_address
from n2n.proto.trust import KEY_CHANGED, KeyTrust
from n2n.types import SUPERNODE_MAC, Endpoint, Instant, MacAddress
from n2n.wire import (
    Candidate,
    CandidateKind,
    Card,
    HeartbeatPulse,
    LeasesInfos,
    Mapping,
    P2PFullState,
    PacketType,
    PeerToPing,
    ProtoV,
    RegisterRequest,
    RegisterResponse,
    SNPublicSecret,
    UnregisterRequest,
    usable,
)

__all__ = ["Answer", "EdgeCore", "EdgeSettings", "EdgeState", "PeerView", "RegistrationView"]

#: Longest public key that is looked at, in bytes of PEM text; 8192 bits of RSA take 1.5 KiB.
_KEY_LIMIT: Final = 4096
#: Least time between two heartbeats that are sent out of their turn, in seconds.
_BEAT_GAP: Final = 2.0


class EdgeCore(EdgeListing):
    """One edge in one community.

    Args:
        settings: see :class:`~n2n.proto.edge_settings.EdgeSettings`.
        encrypt: seals bytes for the owner of a public key (PEM), freshly each time; raises an N2NError (such as
            MalformedDatagram) if that is no usable key.
        sequence: returns the next sequence number of ProtoV packets, which the data plane counts as well.
        token: returns text for the end of ping check ids that nobody can predict, another each time (say 16 hexadecimal
            digits from `secrets`).
        jitter: returns a number in [0, 1) that spreads repeated questions of many edges; without it nothing is spread.
        sealing: seals bytes with the community's key, and opens them or raises a ProtocolError; None: there is no key.

    All methods that take `now` must be given moments that do not go back.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        encrypt: Callable[[bytes, bytes], bytes],
        sequence: Callable[[], int],
        token: Callable[[], str],
        jitter: Callable[[], float] = lambda: 0.5,
        sealing: tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]] | None = None,
    ) -> None:
        self.settings = settings
        self._out = Outbox(settings, encrypt, sequence)
        self._inbox = Inbox(self._out, self)
        self._notary = Notary(self._out, *(sealing or (None, None)))
        self._notary.set_capabilities(Card.BIRTHDAYS if settings.port_prediction else 0)
        self._mesh = Mesh(settings, self._out, self._notary, token=token, jitter=jitter, doubt=self._doubt)
        self._registration = Registration(settings.asking, settings.refused, jitter)
        self._address: tuple[IPv4Address, int] | None = None
        self.trust = KeyTrust(settings, self._out)
        self._sealed: bytes | None = None  # the machine id for the key that just came, to be used once
        self._registered_at: float | None = None
        self._heard_at = 0.0
        self._beat_at = -math.inf
        self._told_card = b""
        self._watch = Watch(
            settings.watch, self._out, token, self, is_local=self._is_local, heartbeat=lambda: self.settings.heartbeat
        )
        self._list = Question(settings.listing, jitter)
        self._questions = Questions(self._out, settings.community, settings.answer_wait)
        # Loops, in the order in which they run when several are due: name -> monotonic seconds.
        self._due: dict[str, float] = {}
        self._loops: Final[tuple[tuple[str, Callable[[Instant], None]], ...]] = (
            ("state", self._on_state_timer),
            ("heartbeat", self._on_heartbeat_timer),
            ("doubt", self._on_doubt_timer),
            ("list", self._on_list_timer),
            ("sweep", self._on_sweep_timer),
            ("ping", self._on_ping_timer),
        )

    # -- life

    def start(self, now: Instant) -> None:
        """Begin.  Asks for the supernode's address unless `set_supernode` has told it already."""
        if self._out.supernode is None:
            self._step(Trigger.START, now)
        elif self.state is EdgeState.IDLE:
            self._registration.step(Trigger.START, now)
            self._step(Trigger.RESOLVED, now)

    def set_supernode(self, endpoint: Endpoint, now: Instant) -> None:
        """The supernode is at `endpoint`: the answer to `Resolve`, or a change of mind.

        The address in use changes nothing; another one starts the registration there.  Direct paths stay.
        """
        if self.state is EdgeState.CLOSED:
            return
        if endpoint != self._out.supernode:
            self._out.supernode = endpoint
            self._out.act(SetSupernode(endpoint))
            self._out.note("info", "supernode", endpoint=str(endpoint))
        elif self.state is not EdgeState.RESOLVING:
            return
        self._step(Trigger.RESOLVED, now)

    def known_as(self, name: str, now: Instant) -> None:
        """The supernode that `set_supernode` tells of next has this name: what is remembered of its key goes by it."""
        self.trust.switch(name)

    def network_changed(self, now: Instant, reason: str = "network_changed") -> None:
        """Our host's address changed, or it woke up: register again, and find every direct path again."""
        self._step(Trigger.MOVED, now, reason)
        self._mesh.restart_paths(reason, now)
        if "ping" in self._due:
            self._due["ping"] = now.mono

    def traffic(self, mac: MacAddress, now: Instant) -> None:
        """Frames are being sent to a peer (the plane says so at most once a second for each)."""
        if self.state is EdgeState.CLOSED or not self._mesh.traffic(mac, now):
            return
        self._watch.busy(now)
        if self.settings.n2n:
            self._registration.hurry(self.settings.watch.hurry, now)

    def measure(self, mac: MacAddress, now: Instant) -> None:
        """Ask a peer over every way to it; `outer_trip` and `relay_trip` of its view tell how long the answers took."""
        if self.state is EdgeState.REGISTERED:
            self._mesh.measure(mac, now)

    def set_local(self, candidates: Sequence[tuple[CandidateKind, Endpoint]], now: Instant) -> None:
        """Where other edges may reach this host besides where the supernode sees it, best first.

        These are local addresses, global IPv6 addresses and port mappings, each with the port at which the plane hears
        it; of more than 8 the first 8 are told.  The others learn of a change within seconds.
        """
        told = (Candidate(kind, endpoint) for kind, endpoint in candidates if usable(endpoint))
        if self._notary.set_card(told, self._notary.card.mapping):
            self._doubt(now)

    def accept_key(self, now: Instant) -> bytes | None:
        """Believe the key that was refused last, and register with it; returns it, or None if there is none."""
        key = self.trust.accept()
        if key is not None and self.state is EdgeState.REFUSED:
            self._step(Trigger.RESOLVED, now)
        return key

    def set_heartbeat(self, seconds: float, now: Instant) -> None:
        """Beat at another interval from now on."""
        self.settings = replace(self.settings, heartbeat=seconds)
        if "heartbeat" in self._due:
            self._due["heartbeat"] = min(self._due["heartbeat"], now.mono + seconds)

    def birthday_won(self, mac: MacAddress, endpoint: Endpoint, now: Instant) -> None:
        """A socket of a `Birthday` got something from `endpoint`: what is sent there leaves by that socket now."""
        if self.state is not EdgeState.CLOSED:
            self._mesh.birthday_won(mac, endpoint, now)

    def close(self, now: Instant) -> None:
        """End; says goodbye to the supernode, if it ever knew us."""
        self._step(Trigger.CLOSE, now)
        self._due.clear()
        self._mesh.ways.close()
        self._watch.end()

    # -- the common shape of cores

    def receive(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        """Take a datagram from the network.  Never raises, whatever it holds."""
        if self.state in (EdgeState.IDLE, EdgeState.CLOSED):
            self._out.count("inactive")
            return
        self._inbox.receive(datagram, source, now)

    def handle_timer(self, now: Instant) -> None:
        """Do what is due."""
        deadline = self._registration.deadline
        if deadline is not None and deadline <= now.mono:
            self._carry_out(self._registration.timeout(now), now)
        for name, loop in self._loops:
            due = self._due.get(name)
            if due is not None and due <= now.mono:
                loop(now)
        self._watch.step(now)
        self._mesh.ways.handle_timer(now)

    def next_timer(self) -> float | None:
        """When `handle_timer` is to be called next (monotonic seconds), or None."""
        times = list(self._due.values())
        if self._registration.deadline is not None:
            times.append(self._registration.deadline)
        times += [at for at in (self._watch.due, self._mesh.ways.next_timer()) if at is not None]
        return min(times, default=None)

    def drain(self) -> list[EdgeAction]:
        """Hand over what is to be done, in order."""
        return self._out.drain()

    # -- on demand

    def ask_full_state(self, now: Instant) -> bool:
        """Ask how all edges see each other; False if not registered, or if an answer is awaited already."""
        return self.state is EdgeState.REGISTERED and self._questions.ask_full_state(now)

    def ask_leases(self, now: Instant) -> bool:
        """Ask who holds which address; False if not registered, or if an answer is awaited already."""
        return self.state is EdgeState.REGISTERED and self._questions.ask_leases(now)

    # -- registration

    def _step(self, trigger: Trigger, now: Instant, reason: str = "") -> None:
        self._carry_out(self._registration.step(trigger, now, reason), now)
        if self.state is not EdgeState.REGISTERED:
            self._watch.end()

    def _carry_out(self, todo: tuple[Do, ...], now: Instant) -> None:
        for do in todo:
            if do is Do.RESOLVE:
                self._out.act(Resolve())
            elif do is Do.RESOLVE_AGAIN:
                self._out.act(Resolve(again=True))
            elif do is Do.ASK_KEY:
                self._out.ask_key(now)
            elif do is Do.REGISTER:
                self._register(now)
            elif do is Do.WELCOME:
                self._welcome(now)
            elif do is Do.LEAVE and self._registered_at is not None:
                self._unregister(now)

    def _seal(self) -> bytes | None:
        """The machine id for the supernode, freshly sealed; None if there is no key to do it with."""
        sealed, self._sealed = self._sealed, None
        if sealed is None and self.trust.key is not None:
            sealed = self._out.sealed_machine_id(self.trust.key)
        return sealed

    def _register(self, now: Instant) -> None:
        settings = self.settings
        if (sealed := self._seal()) is not None:
            request = RegisterRequest(str(self.mac), settings.name, settings.community, sealed, n2n=self._card())
            self._out.tell_supernode(PacketType.REGISTER_REQUEST, request, now)

    def _unregister(self, now: Instant) -> None:
        if (sealed := self._seal()) is not None:
            request = UnregisterRequest(str(self.mac), self.settings.community, sealed)
            self._out.tell_supernode(PacketType.UNREGISTER_REQUEST, request, now)

    def _welcome(self, now: Instant) -> None:
        settings = self.settings
        first = self._registered_at is None
        self._registered_at = self._heard_at = now.mono
        self._due.pop("doubt", None)
        if first:
            self._due["state"] = now.mono + settings.state_interval
            self._due["heartbeat"] = now.mono + settings.heartbeat
            self._due["ping"] = now.mono + settings.ping_interval
        else:
            self._mesh.doubt_state()  # it may be a supernode that was started again, which knows nothing of it
            self._mesh.ways.wake(now)
        assert self._address is not None
        self._out.note("info", "registered", ip=str(self._address[0]), prefix=self._address[1], again=not first)
        self._list.end()
        self._ask_list(now)
        if settings.n2n and self._notary.card_field() != self._told_card:
            self._doubt(now)  # it changed meanwhile

    # -- what the inbox hands over (see edge_inbox.EdgeLogic)

    def wants(self, kind: PacketType) -> bool:
        """Whether a message of this type was asked for, or may come unasked."""
        if kind is PacketType.SN_PUBLIC_SECRET:
            return self.state is EdgeState.KEY or self._watch.awaiting
        if kind is PacketType.REGISTER_RESPONSE:
            return self.state in (EdgeState.REGISTERING, EdgeState.REFUSED)
        if kind is PacketType.RETRY_REGISTER:
            return self.state is EdgeState.REGISTERED
        return kind is PacketType.PEER_INFO or self._questions.asked(kind)

    def heard_supernode(self, now: Instant) -> None:
        """Something came that only the supernode sends."""
        self._heard_at = now.mono

    def on_key(self, message: SNPublicSecret, now: Instant) -> None:
        """The supernode's key, which we asked for; or where it sees us."""
        if message.n2n:
            self._watch.answered(message.n2n, now)
            return
        if self.state is not EdgeState.KEY:
            if not self._watch.key_came(now):
                self._out.count("key_unasked")
            return
        key = message.pem_data
        fits = not message.is_request and len(key) <= _KEY_LIMIT
        sealed = self._out.sealed_machine_id(key) if fits else None
        if sealed is None:
            self._out.count("key_bad")
            return
        if not self.trust.take(key):
            self._step(Trigger.REFUSED, now, KEY_CHANGED)
            return
        self._sealed = sealed
        self._step(Trigger.KEY, now)

    def on_response(self, message: RegisterResponse, now: Instant) -> None:
        """The supernode's answer to our registration."""
        if not message.is_register_ok:
            self._out.note("error", "register_refused", community=self.settings.community)
            self._step(Trigger.REFUSED, now)
            return
        try:
            address = check_address(message, self.settings.address_ranges)
        except MalformedDatagram as error:
            self._out.count("response_bad")
            self._out.note("error", "address_refused", why=str(error))
            self._step(Trigger.REFUSED, now, "bad_address")
            return
        if address != self._address:
            before, self._address = self._address, address
            self._out.act(Configure(*address))
            self._mesh.ways.overlay = IPv4Network(address, strict=False)
            if before is not None:
                self._out.note("warning", "address_changed", before=f"{before[0]}/{before[1]}", ip=str(address[0]))
        self.trust.confirm(message.n2n)
        self._step(Trigger.ACCEPTED, now)
        if self.settings.n2n:
            self._watch.begin(message.n2n, now)

    def on_told(self, message: None, now: Instant) -> None:
        """The supernode says that it does not know us."""
        doubt_until = (self._registered_at or 0.0) + self.settings.told_gap
        if now.mono < doubt_until:
            # It may answer a packet from before; if it is true, the heartbeat will bring the same answer.
            self._out.count("told_early")
            self._due["doubt"] = doubt_until
            return
        self._out.note("info", "told_to_register")
        self._step(Trigger.TOLD, now)

    def on_full_state(self, message: P2PFullState, now: Instant) -> None:
        """How all edges see each other."""
        self._questions.take_full_state(message, now)

    def on_leases(self, message: LeasesInfos, now: Instant) -> None:
        """Who holds which address."""
        self._questions.take_leases(message, now)

    def on_ping(self, message: PeerToPing, header: ProtoV, source: Endpoint, now: Instant) -> None:
        """A ping or a pong for us."""
        relayed = header.from_supernode
        if header.source == SUPERNODE_MAC:
            self._watch.probed(message.n2n, source, now)
            return
        if message.is_pong:
            self._mesh.take_pong(message, header.source, source, relayed, now)
            return
        known = self._mesh.take_ping(message, header.source, source, relayed, now)
        if not known and self.state is EdgeState.REGISTERED and now.mono - self._list.last >= self.settings.list_gap:
            self._ask_list(now)  # the news of it was lost, perhaps

    # -- loops

    def _tick(self, name: str, period: float, now: Instant) -> None:
        """Put a loop off to the next point of its grid after `now`."""
        due = self._due[name]
        self._due[name] = due + period * (math.floor((now.mono - due) / period) + 1)

    def _on_state_timer(self, now: Instant) -> None:
        self._tick("state", self.settings.state_interval, now)
        if self.state is EdgeState.REGISTERED:
            self._mesh.tell_state(now)

    def _on_ping_timer(self, now: Instant) -> None:
        self._tick("ping", self.settings.ping_interval, now)
        self._mesh.ping_round(now)

    def _on_heartbeat_timer(self, now: Instant) -> None:
        self._tick("heartbeat", self.settings.heartbeat, now)
        if self.state is not EdgeState.REGISTERED:
            return
        self._beat(now)
        if now.mono - self._heard_at >= self.settings.liveness_beats * self.settings.heartbeat:
            self._ask_list(now)  # heartbeats are not answered; the list is

    def _on_doubt_timer(self, now: Instant) -> None:
        del self._due["doubt"]
        if self.state is EdgeState.REGISTERED:
            self._beat(now)

    def _beat(self, now: Instant) -> None:
        if (sealed := self._seal()) is not None:
            self._beat_at = now.mono
            pulse = HeartbeatPulse(str(self.mac), self.settings.community, sealed, n2n=self._card())
            self._out.tell_supernode(PacketType.HEARTBEAT, pulse, now)

    def _card(self) -> bytes:
        self._told_card = self._notary.card_field() if self.settings.n2n else b""
        return self._told_card

    # -- what the watch finds out (see edge_watch.Watcher)

    def supernode_lost(self, now: Instant) -> None:
        """It does not answer any more."""
        if self.state is EdgeState.REGISTERED:
            self._out.note("warning", "supernode_silent", seconds=round(now.mono - self._heard_at, 3))
            self._step(Trigger.SILENT, now)

    def supernode_forgot(self, now: Instant) -> None:
        """It does not know us where we are."""
        self._doubt(now)

    def mapping_found(self, mapping: Mapping, now: Instant) -> None:
        """What our NAT does."""
        if self._notary.set_card(self._notary.card.candidates, mapping):
            self._out.note("info", "nat", mapping=mapping.name.lower())
            self._doubt(now)
            self._mesh.ways.mapping_found(now)

    def _is_local(self, endpoint: Endpoint) -> bool:
        return any(candidate.endpoint == endpoint for candidate in self._notary.card.candidates)

    def _doubt(self, now: Instant) -> None:
        """The supernode may not know where we are, or not our card: a heartbeat tells it."""
        due = max(now.mono, self._beat_at + _BEAT_GAP)
        if self.state is EdgeState.REGISTERED and self._due.get("doubt", math.inf) > due:
            self._due["doubt"] = due
