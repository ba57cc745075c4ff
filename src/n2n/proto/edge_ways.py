"""An edge and its n2n peers: calls, notes, pings, and what they do to the ways (:mod:`n2n.proto.ways`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import NamedTuple

from n2n.proto.agenda import Agenda
from n2n.proto.candidates import Trial
from n2n.proto.edge_birthdays import Parties
from n2n.proto.edge_outbox import Outbox
from n2n.proto.edge_paths import PathBook
from n2n.proto.edge_settings import EdgeSettings
from n2n.proto.notes import Notary
from n2n.proto.peers import Member, PeerChange, PeerTable, Told
from n2n.proto.ways import Way
from n2n.types import Endpoint, Instant
from n2n.wire import TOKEN_SIZE, CandidateKind, Card, Note, NoteKind, PeerToPing, encode

__all__ = ["Heard", "Ways"]


class Heard(NamedTuple):
    """A ping or pong that came."""

    check_id: str
    source: Endpoint
    relayed: bool


class Ways:
    """The ways to all n2n peers.

    Args:
        settings: the edge's.
        outbox: takes what is to be sent.
        notary: writes notes.
        paths: told when a path changes.
        table: the peers.
        token: returns unpredictable text for check ids, another each time.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
        doubt: called when our own address may be another than the supernode knows.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        outbox: Outbox,
        notary: Notary,
        paths: PathBook,
        table: PeerTable,
        *,
        token: Callable[[], str],
        jitter: Callable[[], float],
        doubt: Callable[[Instant], None],
    ) -> None:
        self._settings = settings.way
        self._name = settings.name
        self._out = outbox
        self._notary = notary
        self._paths = paths
        self._table = table
        self._token = token
        self._jitter = jitter
        self._doubt = doubt
        self._parties = Parties(
            willing=settings.port_prediction,
            name=settings.name,
            outbox=outbox,
            notary=notary,
            token=token,
            jitter=jitter,
            secret=self.secret,
            inside=self.inside,
        )
        self._agenda = Agenda()
        self.listed = False
        """We have had a list of all peers, and know how many there are."""
        self.overlay: IPv4Network | None = None
        """Our virtual network."""

    def inside(self, endpoint: Endpoint) -> bool:
        """It is in our virtual network: a path there would carry the tunnel in itself, again and again."""
        return self.overlay is not None and endpoint.ip in self.overlay

    def _outside(self, endpoint: Endpoint) -> Endpoint | None:
        return None if self.inside(endpoint) else endpoint

    # -- time

    def next_timer(self) -> float | None:
        """When `handle_timer` is to be called next."""
        return self._agenda.next()

    def handle_timer(self, now: Instant) -> None:
        """Do what is due."""
        for mac in self._agenda.take(now.mono):
            member = self._table.get(mac)
            if member is not None and member.way is not None:
                member.way.step(now)
                self._parties.go_on(member, member.way, now)
                self._settle(member, member.way, now)

    def close(self) -> None:
        """Ask for nothing more."""
        self._agenda.clear()

    # -- what happens

    def told(self, change: PeerChange, now: Instant) -> None:
        """The supernode told of a peer that is an n2n one, or shows a card for the first time."""
        member = change.member
        first = member.way is None
        if member.way is None:
            self._adopt(member, now)
        assert member.way is not None
        if change.card is not None:
            self._take_card(member, member.way, change.card, now)
        if change.told is Told.MOVED and change.before is not None:
            member.way.moved(change.before, self._outside(member.info.endpoint), now)
        elif first and member.way.chosen is None and member.way.wanted(now):
            member.way.start(now)
        self._settle(member, member.way, now)

    def gone(self, member: Member, now: Instant) -> None:
        """A peer left."""
        self._agenda.set(member.info.mac, None)
        if len(self._table) == self._settings.eager_limit:
            self.wake(now)

    def wake(self, now: Instant) -> None:
        """Look for every way that is wanted and not there: we are registered anew, or few enough by now."""
        for member in self._table:
            way = member.way
            if way is not None and way.chosen is None and way.wanted(now) and not way.just_started(now):
                way.start(now)
                self._settle(member, way, now)

    def traffic(self, member: Member, now: Instant) -> None:
        """Frames are being sent to a peer."""
        if member.way is not None:
            member.way.traffic(now)
            self._settle(member, member.way, now)

    def measure(self, member: Member, way: Way, now: Instant) -> None:
        """Find how long each way takes: ask by way of the supernode, and straight where that is in use."""
        way.traffic(now)
        self._call(member, now)
        if way.chosen is not None:
            way.ping_now(way.trials[way.chosen], now)
        self._settle(member, way, now)

    def restart(self, member: Member, way: Way, reason: str, now: Instant) -> None:
        """Our own address changed."""
        member.their_path = member.party = None
        way.restart(reason, now)
        self._settle(member, way, now)

    def _adopt(self, member: Member, now: Instant) -> None:
        """A peer turns out to be an n2n one; a path that v5's rounds found stays in use."""
        direct, where = member.direct, member.info.endpoint

        def label(endpoint: Endpoint) -> str:
            return f"{self._name}.{self._out.mac}.{member.info.mac}.{endpoint.ip}.{endpoint.port}"

        way = member.way = Way(
            self._settings, label_of=label, token=self._token, jitter=self._jitter, eager=self._few
        )  # fmt: skip
        way.see(self._outside(where))
        if direct:
            member.placed = where
            if not self.inside(where):
                way.adopt(where, now)

    def found_out(self, member: Member, note: Note, now: Instant) -> None:
        """The answer to a ping of v5's rounds had a note."""
        self._adopt(member, now)
        way = member.way
        assert way is not None
        self._take_note(member, way, note, now)
        if way.wanted(now):
            way.start(now)
        self._settle(member, way, now)

    def _few(self) -> bool:
        return self.listed and len(self._table) <= self._settings.eager_limit

    def _take_card(self, member: Member, way: Way, card: Card, now: Instant) -> None:
        own = {candidate.endpoint for candidate in self._notary.card.candidates}
        fits = [
            candidate
            for candidate in card.candidates
            if candidate.endpoint not in own
            and candidate.endpoint != self._out.supernode
            and not self.inside(candidate.endpoint)
        ]
        if len(fits) < len(card.candidates):
            self._out.count("candidate_refused", len(card.candidates) - len(fits))
        # Where there are too many new ones, they are tried with the others when it is time.
        if way.set_candidates(fits) and way.wanted(now) and member.call_bucket.take(now.mono):
            way.start(now, call=False)
        before, member.card = member.card, card
        if before is None or (before.mapping, before.capabilities) != (card.mapping, card.capabilities):
            self._learned(member, way, now)

    def mapping_found(self, now: Instant) -> None:
        """What our own NAT does is known now, or is another thing than before."""
        for member in self._table:
            if member.way is not None:
                self._learned(member, member.way, now)
                self._settle(member, member.way, now)

    def _learned(self, member: Member, way: Way, now: Instant) -> None:
        """We know more of the two NATs than when a search ended without an answer."""
        if way.stuck and way.wanted(now):
            self._parties.begin(member, way, now)

    # -- pings and pongs

    def trusts(self, member: Member, note: Note) -> bool:
        """Whether a note that came straight from somewhere is this peer's: sealed, or with the secret that it got."""
        return self._notary.sealed or (member.secret != b"" and note.token == member.secret)

    def secret(self, member: Member) -> bytes:
        """What a peer is told by way of the supernode, for its pings to repeat."""
        if not member.secret:
            member.secret = hashlib.blake2b(self._token().encode(), digest_size=TOKEN_SIZE).digest()
        return member.secret

    def take_ping(self, member: Member, heard: Heard, note: Note, now: Instant) -> None:
        """Answer a ping with a note: straight back, and by another way too until we know that we reach it there."""
        if member.way is None:
            self._adopt(member, now)
        way = member.way
        assert way is not None
        self._take_note(member, way, note, now, invited=heard.relayed)
        if not heard.relayed:
            self._pinged_straight(member, way, heard, now)
        elif note.kind is NoteKind.CALL:
            way.called(now, start=not way.just_started(now) and member.call_bucket.take(now.mono))
            self._pong(member, heard, NoteKind.ANSWER, self._out.supernode, now)
        elif note.kind is NoteKind.BIRTHDAY:
            way.called(now, start=False)
            self._pong(member, heard, NoteKind.ANSWER, self._out.supernode, now)
            self._parties.invited(member, way, now)
        else:
            self._pong(member, heard, NoteKind.PONG, way.chosen or self._out.supernode, now)
        self._settle(member, way, now)

    def _pinged_straight(self, member: Member, way: Way, heard: Heard, now: Instant) -> None:
        source = heard.source
        self._paths.heard(member, source, now)
        self._pong(member, heard, NoteKind.PONG, source, now)
        trial = way.trials.get(source) or way.add(CandidateKind.PEER, source)
        if trial is None or not (trial.available and trial.straight):
            other = way.chosen if way.chosen not in (None, source) else self._out.supernode
            self._pong(member, heard, NoteKind.PONG, other, now)
        way.contact(source, now)
        if trial is not None and not trial.available and (way.searching or way.wanted(now)):
            way.ping_now(trial, now)

    def take_pong(self, member: Member, heard: Heard, note: Note | None, now: Instant) -> None:
        """Judge a pong from a peer that has a way.  Its check id proves that our ping got there.

        What does not answer us is not believed either: it may be anybody's.
        """
        way = member.way
        assert way is not None
        if member.call is not None and heard.check_id == member.call[0]:
            way.relay_rtt = now.mono - member.call[1]
            member.call = None
            if way.chosen is None:
                way.start(now, call=False)
        elif member.party is not None and heard.check_id == member.party.check_id and not heard.relayed:
            self._met(member, way, heard.source, now)
        elif member.party is not None and heard.check_id == member.party.invitation:
            member.party.invitation = ""
        elif (trial := way.answered(heard.check_id, not heard.relayed, now)) is None:
            self._out.count("pong_unasked")
            return
        elif not heard.relayed:
            self._paths.heard(member, heard.source, now)
            self._compare(trial, note, now)
        if note is not None:
            self._take_note(member, way, note, now)
        self._settle(member, way, now)

    def _compare(self, trial: Trial, note: Note | None, now: Instant) -> None:
        if note is None or note.observed is None:
            return
        before, trial.observed = trial.observed, note.observed
        if before is not None and before != note.observed:
            self._doubt(now)  # our NAT gave us another port

    def _take_note(self, member: Member, way: Way, note: Note, now: Instant, *, invited: bool = False) -> None:
        if note.kind in (NoteKind.CALL, NoteKind.ANSWER) or (invited and note.kind is NoteKind.BIRTHDAY):
            member.their_secret = note.token
        if note.card is not None:
            self._take_card(member, way, note.card, now)
        member.their_path = "direct" if note.reached else "relay"

    # -- carrying out

    def _pong(self, member: Member, heard: Heard, kind: NoteKind, to: Endpoint | None, now: Instant) -> None:
        if to is None:
            self._out.count("no_supernode")
            return
        note = self._notary.note_field(
            kind,
            member.info.mac,
            now,
            observed=None if heard.relayed else heard.source,
            token=self.secret(member) if kind is NoteKind.ANSWER else b"",
            reached=member.direct,
            with_card=kind is NoteKind.ANSWER,
        )
        payload = encode(PeerToPing(check_id=heard.check_id, is_pong=True, n2n=note))
        self._out.pong(member.info.mac, payload, to, now)

    def _settle(self, member: Member, way: Way, now: Instant) -> None:
        """Do what a way wants done."""
        todo = way.take_todo()
        moved = way.chosen != member.placed
        if moved or todo.reason is not None:
            member.placed = way.chosen
            self._paths.set_path(member, todo.reason or "answered", now, moved=moved)
        if moved:
            self._paths.put(member)
        if todo.call:
            self._call(member, now)
        if todo.pings:
            mac = member.info.mac
            note = self._notary.note_field(NoteKind.PING, mac, now, token=member.their_secret, reached=member.direct)
            for endpoint, check_id in todo.pings:
                self._out.ping(mac, encode(PeerToPing(check_id=check_id, n2n=note)), endpoint, 1, now)
        if todo.lost:
            self._doubt(now)
        if todo.failed:
            self._parties.begin(member, way, now)
        times = [at for at in (way.due, member.party.due if member.party else None) if at is not None]
        self._agenda.set(member.info.mac, min(times, default=None))

    # -- many ports at once

    def _met(self, member: Member, way: Way, source: Endpoint, now: Instant) -> None:
        """One of the many pings got an answer: there it is."""
        self._paths.heard(member, source, now)
        trial = way.trials.get(source) or way.add(CandidateKind.PEER, source)
        if trial is not None and not trial.available:
            way.ping_now(trial, now)

    def birthday_won(self, member: Member, way: Way, endpoint: Endpoint, now: Instant) -> None:
        """One of our many sockets heard the peer: from there we reach it, perhaps."""
        trial = way.trials.get(endpoint) or way.add(CandidateKind.PEER, endpoint)
        if trial is not None and way.chosen != endpoint:
            trial.forget()
            way.ping_now(trial, now)
        self._settle(member, way, now)

    def _call(self, member: Member, now: Instant) -> None:
        supernode = self._out.supernode
        if supernode is None:
            self._out.count("no_supernode")
            return
        mac = member.info.mac
        check_id = f"{self._name}.{self._out.mac}.{mac}.call.{self._token()}"
        member.call = (check_id, now.mono)
        note = self._notary.note_field(
            NoteKind.CALL, mac, now, token=self.secret(member), reached=member.direct, with_card=True
        )
        self._out.ping(mac, encode(PeerToPing(check_id=check_id, n2n=note)), supernode, 1, now)
