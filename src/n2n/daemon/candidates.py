"""Where other edges may reach this host, besides where the supernode sees it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from n2n.types import Endpoint
from n2n.wire import CandidateKind

__all__ = ["candidates"]


def candidates(
    addresses: Iterable[IPv4Address | IPv6Address], local: Endpoint, mapped: Iterable[Endpoint] = ()
) -> list[tuple[CandidateKind, Endpoint]]:
    """What an edge tells the others, best first.

    Args:
        addresses: of the host, that of the way to the supernode first.
        local: where the UDP socket is bound; an unspecified IPv6 address is a dual-stack socket's.
        mapped: endpoints at which a router lets others in.

    >>> candidates([IPv4Address("192.168.1.2")], Endpoint.parse("0.0.0.0:7777"))
    [(<CandidateKind.LOCAL: 1>, Endpoint('192.168.1.2:7777'))]
    """
    bound = local.ip
    found = []
    for address in addresses:
        heard = bound.version == 6 or address.version == 4 if bound.is_unspecified else address == bound
        if heard:
            kind = CandidateKind.IPV6 if address.version == 6 and address.is_global else CandidateKind.LOCAL
            found.append((kind, Endpoint(address, local.port)))
    # Few of the first kinds, so that the others have a place on the card, too.
    return [*found[:4], *((CandidateKind.MAPPED, endpoint) for endpoint in mapped), *found[4:]]
