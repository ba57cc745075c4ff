"""What an edge's core shows of itself: for looking, not for touching."""

from __future__ import annotations

from ipaddress import IPv4Address

from n2n.proto.edge_mesh import Mesh
from n2n.proto.edge_outbox import Outbox
from n2n.proto.edge_questions import Answer, Questions
from n2n.proto.notes import Notary
from n2n.proto.peers import PeerView
from n2n.proto.registration import EdgeState, Registration, RegistrationView
from n2n.proto.trust import KeyTrust
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import LeasesInfos, Mapping, P2PFullState, PacketType

__all__ = ["EdgeViews"]


class EdgeViews:
    """The part of :class:`~n2n.proto.edge.EdgeCore` that only looks."""

    _out: Outbox
    _mesh: Mesh
    _notary: Notary
    _registration: Registration
    _questions: Questions
    _address: tuple[IPv4Address, int] | None
    trust: KeyTrust

    @property
    def state(self) -> EdgeState:
        """How far the edge has got."""
        return self._registration.state

    @property
    def mac(self) -> MacAddress:
        """Its address in the community, for the TAP device."""
        return self._out.mac

    @property
    def community_id(self) -> int:
        """The id of the community in packet headers."""
        return self._out.community

    @property
    def address(self) -> tuple[IPv4Address, int] | None:
        """The virtual address and prefix length last given, kept while registering again."""
        return self._address

    @property
    def supernode(self) -> Endpoint | None:
        """Where the supernode is."""
        return self._out.supernode

    @property
    def supernode_key(self) -> bytes | None:
        """The supernode's public key that is believed (PEM as on the wire)."""
        return self.trust.key

    @property
    def reflexive(self) -> Endpoint | None:
        """Our own endpoint, as the supernode sees it."""
        return self._mesh.reflexive

    @property
    def nat(self) -> Mapping:
        """What our NAT does, as far as is known."""
        return self._notary.card.mapping

    @property
    def full_state(self) -> Answer[P2PFullState] | None:
        """The last answer to `ask_full_state`."""
        return self._questions.full_state

    @property
    def leases(self) -> Answer[LeasesInfos] | None:
        """The last answer to `ask_leases`."""
        return self._questions.leases

    def awaiting(self, kind: PacketType, now: Instant) -> bool:
        """Whether an answer to `ask_full_state` or `ask_leases` may still come."""
        return self._questions.awaiting(kind, now)

    def registration(self, now: Instant) -> RegistrationView:
        """Where the registration stands, and why."""
        return self._registration.view(now)

    def peers(self) -> tuple[PeerView, ...]:
        """The other edges, as the supernode tells of them, and the way to each."""
        return self._mesh.views()

    def counters(self) -> dict[str, int]:
        """What was sent, and what was ignored for which reason; the names are COUNTERS of `edge_settings`."""
        return self._out.counters()
