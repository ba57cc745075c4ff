"""Which router to ask: the next hop on the way to the internet."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from ipaddress import IPv4Address

from n2n.net.portmap.values import Cause, NotMapped
from n2n.net.surroundings import surroundings

__all__ = ["Gateway", "find_gateway"]

#: An address that only the default route leads to (TEST-NET-2, RFC 5737). Nothing is sent there.
_SOMEWHERE = IPv4Address("198.51.100.1")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The router, and our address in its network."""

    router: IPv4Address
    source: IPv4Address
    interface: str


def find_gateway(towards: IPv4Address | None = None, source: IPv4Address | None = None) -> Gateway:
    """The router on the way to an address; blocks for about a millisecond.

    Args:
        towards: such as the supernode's; where no router is on that way, the default route's counts.
        source: the address that we send from, if that is fixed.

    Raises:
        NotMapped: there is none.
        NetlinkError: the kernel does not answer.
    """
    for destination in dict.fromkeys((towards or _SOMEWHERE, _SOMEWHERE)):
        way = surroundings(destination).way
        if way is None or way.gateway is None or not isinstance(way.source, IPv4Address):
            continue
        with contextlib.suppress(ValueError):  # the next router of IPv4 may be one of IPv6 (RFC 8950)
            return Gateway(IPv4Address(way.gateway), source or way.source, way.device)
    raise NotMapped(Cause.NO_GATEWAY, "this host has no default route by IPv4, so there is no router to ask")
