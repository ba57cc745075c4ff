"""An edge's cards and notes: written, sealed, opened, judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from n2n.errors import ProtocolError
from n2n.proto.edge_outbox import Outbox
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import CANDIDATES_LIMIT, Candidate, Card, Mapping, Note, NoteKind, unwrap, wrap

__all__ = ["Freshness", "Notary"]

#: A note may be overtaken by others that its sender wrote so much later, in microseconds of its clock.
_OVERTAKEN: Final = 10_000_000
#: After such a silence (seconds) any note is taken: the sender's clock may have been set back.
_FORGIVEN: Final = 60.0


@dataclass(slots=True)
class Freshness:
    """The newest note of one peer: its stamp, and when it came (monotonic seconds)."""

    stamp: int = 0
    at: float = float("-inf")

    def take(self, stamp: int, mono: float) -> bool:
        """Whether a note with this stamp is new enough; remembers it if it is."""
        if mono - self.at >= _FORGIVEN:
            self.stamp = stamp
        elif stamp < self.stamp - _OVERTAKEN:
            return False
        self.stamp = max(self.stamp, stamp)
        self.at = mono
        return True


class Notary:
    """Writes and reads what stands in `N2N` fields.

    Args:
        outbox: knows who we are; counts.
        seal: seals with the community's key; None where there is none.
        unseal: opens what `seal` made, or raises a ProtocolError; given if and only if `seal` is.
    """

    def __init__(
        self, outbox: Outbox, seal: Callable[[bytes], bytes] | None, unseal: Callable[[bytes], bytes] | None
    ) -> None:
        self._out = outbox
        self._seal = seal
        self._unseal = unseal
        self.card = Card(outbox.mac)
        """Our own."""
        self._sealed_card = b""

    @property
    def sealed(self) -> bool:
        """The community has a key: what opens was written by a member."""
        return self._seal is not None

    def set_card(self, candidates: Iterable[Candidate], mapping: Mapping) -> bool:
        """Where we may be reached, best first; what does not fit is left out.  True if our card is another now."""
        chosen = tuple(dict.fromkeys(candidates))[:CANDIDATES_LIMIT]
        card = Card(self._out.mac, chosen, mapping, self.card.capabilities)
        changed = card != self.card
        if changed:
            self.card, self._sealed_card = card, b""
        return changed

    def set_capabilities(self, capabilities: int) -> None:
        """What we can do (bits of `Card`)."""
        self.card = Card(self._out.mac, self.card.candidates, self.card.mapping, capabilities)
        self._sealed_card = b""

    def card_field(self) -> bytes:
        """Our card for the supernode; the same bytes as long as it is the same, so that a change shows."""
        if not self._sealed_card:
            self._sealed_card = wrap(self.card.pack(), self._seal)
        return self._sealed_card

    def note_field(
        self,
        kind: NoteKind,
        dest: MacAddress,
        now: Instant,
        *,
        observed: Endpoint | None = None,
        token: bytes = b"",
        reached: bool = False,
        with_card: bool = False,
    ) -> bytes:
        """A note for a peer."""
        card = self.card if with_card else None
        note = Note(kind, self._out.mac, dest, int(now.wall * 1e6), observed, reached, card, token)
        return wrap(note.pack(), self._seal)

    def read_card(self, field: bytes, mac: MacAddress) -> Card | None:
        """The card that a supernode hands on of this edge; None (and counted) if it is none that can be believed."""
        if not field:
            return None
        try:
            card = Card.unpack(unwrap(field, self._unseal))
        except ProtocolError:
            self._out.count("card_bad")
            return None
        if card.mac != mac:
            self._out.count("card_bad")
            return None
        return card

    def read_note(self, field: bytes, sender: MacAddress, fresh: Freshness, now: Instant) -> Note | None:
        """The note in a ping or pong; None (and counted) if it is none, for somebody else, or an old one."""
        if not field:
            return None
        try:
            note = Note.unpack(unwrap(field, self._unseal))
        except ProtocolError:
            self._out.count("note_bad")
            return None
        if note.source != sender or note.dest != self._out.mac:
            self._out.count("note_bad")
            return None
        if self.sealed and not fresh.take(note.stamp, now.mono):
            self._out.count("note_stale")
            return None
        return note
