"""What a supernode tells of itself to status pages and commands: values, not its tables."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from n2n.types import Endpoint, MacAddress

__all__ = ["CommunityView", "MemberView"]


@dataclass(frozen=True, slots=True)
class CommunityView:
    """A community.

    Args:
        name: its name (surrogate escapes for bytes that are not UTF-8).
        id: as in the headers of its packets.
        group: its number in the data plane.
        network: where its addresses come from.
        derived: False where another community had the network of the v5 derivation.
        members: number of registered edges.
        leases: number of leases.
    """

    name: str
    id: int
    group: int
    network: IPv4Network
    derived: bool
    members: int
    leases: int


@dataclass(frozen=True, slots=True)
class MemberView:
    """A registered edge.

    Args:
        mac: its address in the community.
        name: what it calls itself, normalised.
        virtual_ip: its lease.
        endpoint: where it is.
        header_id: community id that its packets carry.
        registered: Unix seconds of the registration that entered it.
        last_seen: monotonic seconds of its last registration or heartbeat.
        has_state: it has sent a P2P state.
    """

    mac: MacAddress
    name: str
    virtual_ip: IPv4Address
    endpoint: Endpoint
    header_id: int
    registered: float
    last_seen: float
    has_state: bool
