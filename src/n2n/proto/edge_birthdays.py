"""Meetings by many ports (:mod:`n2n.proto.birthday`): who opens sockets and who tries ports, when, and how often.

A meeting takes two, and needs one of them to know that its NAT is a hard one.  Whoever finds out first that the plain
way fails and who has which part begins, and **invites** the other by way of the supernode, with its card: the other
joins at once, whatever it knew until then.  So it does not matter who learns what its NAT does, when, or whose call was
lost; and should the invitation be lost, the other comes to the same end by its own search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from n2n.proto.actions import Birthday
from n2n.proto.birthday import SECONDS, SOCKETS, Party, Spray
from n2n.proto.edge_outbox import Outbox
from n2n.proto.notes import Notary
from n2n.proto.pacing import Bucket
from n2n.proto.peers import Member
from n2n.proto.ways import Way
from n2n.types import Endpoint, Instant
from n2n.wire import Card, Mapping, NoteKind, PeerToPing, encode

__all__ = ["Parties"]

#: How often many ports are tried, for all peers together: each time costs some 1000 pings, or 256 sockets.
_RATE: Final = 0.2
_BURST: Final = 4.0
#: Times that ports are tried in one search: 98 in 100 meet at the first, and all but 4 in 10,000 at the second.
_TRIES: Final = 2
#: Seconds after the last ping in which an answer may still come; then it is tried again.
_GRACE: Final = 0.5
#: Sockets that are open for longer (seconds) than this will not last for another 1024 pings: they are opened anew.  If
#: nobody has come by then, the other side is invited again.
_HALF: Final = SECONDS / 2
_ABLE: Final = (Mapping.EASY, Mapping.UNKNOWN)


class Parties:
    """The meetings with all peers.

    Args:
        willing: false: there are none.
        name: of this edge, for check ids.
        outbox: takes what is to be sent.
        notary: writes notes.
        token: returns unpredictable text for check ids, another each time.
        jitter: returns a number in [0, 1), another each time.
        secret: what a peer is told by way of the supernode, for its pings to repeat.
        inside: whether an endpoint is in our virtual network.
    """

    def __init__(
        self,
        *,
        willing: bool,
        name: str,
        outbox: Outbox,
        notary: Notary,
        token: Callable[[], str],
        jitter: Callable[[], float],
        secret: Callable[[Member], bytes],
        inside: Callable[[Endpoint], bool],
    ) -> None:
        self._willing = willing
        self._name = name
        self._out = outbox
        self._notary = notary
        self._token = token
        self._jitter = jitter
        self._secret = secret
        self._inside = inside
        self._budget = Bucket(_RATE, _BURST)

    def _opens(self, member: Member) -> bool | None:
        """Whether our part is to open sockets (True) or to try ports; None: there is no use in it."""
        ours, card, there = self._notary.card.mapping, member.card, member.info.endpoint
        if not self._willing or card is None or not card.capabilities & Card.BIRTHDAYS:
            return None
        if there.ip.version != 4 or self._inside(there):
            return None
        if ours is Mapping.HARD and card.mapping in _ABLE:
            return True
        return False if card.mapping is Mapping.HARD and ours in _ABLE else None

    def begin(self, member: Member, way: Way, now: Instant) -> None:
        """Nobody answers: try many ports, if one of us is behind a hard NAT, and have the peer do its part."""
        if (member.party is None or member.party.due is None) and self._start(member, way, now):
            self._invite(member, now)

    def invited(self, member: Member, way: Way, now: Instant) -> None:
        """The peer begins: join at once."""
        self._start(member, way, now)

    def _start(self, member: Member, way: Way, now: Instant) -> bool:
        """Begin with our part, unless it is under way; False if nothing begins."""
        opens, party = self._opens(member), member.party
        if opens is None or way.chosen is not None:
            return False
        under_way = party is not None and party.due is not None and party.opens == opens
        if under_way and party is not None and (not opens or now.mono - party.began < _HALF):
            return False
        if not self._budget.take(now.mono):
            return False
        check_id = f"{self._name}.{self._out.mac}.{member.info.mac}.birthday.{self._token()}"
        if opens:
            self._open(member, check_id, now)
        else:
            self._spray(member, Party(check_id, now.mono, now.mono, None, False), now)
        return True

    def _open(self, member: Member, check_id: str, now: Instant) -> None:
        member.party = Party(check_id, now.mono + _HALF, now.mono, None, True)
        datagram = self._out.datagram(member.info.mac, self._ping(member, check_id, now), now)
        self._out.act(Birthday(member.info.mac, member.info.endpoint, datagram, SOCKETS, SECONDS))
        self._tell(member, "sockets", 1)

    def _spray(self, member: Member, party: Party, now: Instant) -> None:
        party.spray = Spray(member.info.endpoint, self._jitter, now)
        party.due = party.began = now.mono
        member.party = party
        self._tell(member, "ports", party.tries)

    def _tell(self, member: Member, what: str, tries: int) -> None:
        about = {"mac": str(member.info.mac), "name": member.info.name, "what": what, "tries": tries}
        self._out.note("debug", "many_ports", **about)

    def _ping(self, member: Member, check_id: str, now: Instant) -> bytes:
        mac = member.info.mac
        note = self._notary.note_field(NoteKind.BIRTHDAY, mac, now, token=member.their_secret, reached=member.direct)
        return encode(PeerToPing(check_id=check_id, n2n=note))

    def _invite(self, member: Member, now: Instant) -> None:
        party, supernode, mac = member.party, self._out.supernode, member.info.mac
        if party is None or supernode is None:
            return
        party.invitation = f"{self._name}.{self._out.mac}.{mac}.invite.{self._token()}"
        note = self._notary.note_field(
            NoteKind.BIRTHDAY, mac, now, token=self._secret(member), reached=member.direct, with_card=True
        )
        self._out.ping(mac, encode(PeerToPing(check_id=party.invitation, n2n=note)), supernode, 1, now)

    def go_on(self, member: Member, way: Way, now: Instant) -> None:
        """Do what is due for one peer."""
        party = member.party
        if party is None or party.due is None or party.due > now.mono:
            return
        if way.chosen is not None:
            party.due = None
        elif party.spray is not None:
            self._try_some(member, party, party.spray, now)
        elif party.opens:
            self._wait(member, party, now)
        elif party.tries < _TRIES and self._budget.take(now.mono):
            party.tries += 1
            self._spray(member, party, now)
            self._invite(member, now)
        else:
            party.due = None

    def _try_some(self, member: Member, party: Party, spray: Spray, now: Instant) -> None:
        targets = spray.take(now)
        if targets:
            payload = self._ping(member, party.check_id, now)
            for endpoint in targets:
                self._out.ping(member.info.mac, payload, endpoint, 1, now)
            self._out.count("sent_birthday", len(targets))
        if spray.due is None:
            party.spray = None
        party.due = now.mono + _GRACE if spray.due is None else spray.due

    def _wait(self, member: Member, party: Party, now: Instant) -> None:
        """Half of the time is over, or all of it."""
        end = party.began + SECONDS
        if now.mono >= end:
            party.due = None
            return
        party.due = end
        self._invite(member, now)
