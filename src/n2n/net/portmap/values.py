"""What the three port-mapping protocols have in common: what is asked for, what is granted, and why not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Final, Literal, TypeAlias

from n2n.errors import PortMapError
from n2n.types import Endpoint

__all__ = [
    "METHODS",
    "Cause",
    "Mapping",
    "Method",
    "NotMapped",
    "RouterStatus",
    "Transport",
    "Wanted",
    "kind_of_address",
    "most_telling",
]

Method: TypeAlias = Literal["upnp", "nat-pmp", "pcp"]
Transport: TypeAlias = Literal["udp", "tcp"]

#: Every method, in the order in which they are tried.
METHODS: Final[tuple[Method, ...]] = ("upnp", "nat-pmp", "pcp")

_CARRIER_GRADE: Final = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598


class Cause(Enum):
    """Why there is no mapping; the value is what to do about it."""

    NO_GATEWAY = "Nothing to do where other edges are in this network; otherwise give this host a default route"
    SILENT = "Switch UPnP or NAT-PMP on in the router, or forward the UDP port to this host in its settings by hand"
    REFUSED = "Allow port mappings (UPnP) for this host in the router's settings"
    DOUBLE_NAT = (
        "Another NAT stands before this router (a second router, or the provider's carrier-grade NAT), or its line is "
        "down. Put one of two routers into bridge mode, or ask the provider for a public IPv4 address, or use IPv6"
    )
    CONFLICT = "Another host or program holds that port at the router: choose another one"
    FULL = "The router's table of mappings is full: delete what is not needed (n2n upnp list), or restart the router"
    BROKEN = "The router's answers make no sense: update its firmware, or try another method"
    NOT_INSTALLED = "Install it: pip install miniupnpc (NAT-PMP and PCP need nothing)"
    NO_MAPPING = "See which there are: n2n upnp list"
    NOT_OFFERED = "Use another method"


class NotMapped(PortMapError):  # noqa: N818  (the field's name for it)
    """A router did not do what it was asked.

    Args:
        cause: what kind of failure it is.
        what: what happened, without a full stop at its end; no text from the network but printable, bounded one.
    """

    def __init__(self, cause: Cause, what: str) -> None:
        super().__init__(f"{what}. {cause.value}")
        self.cause = cause
        self.silent = cause is Cause.SILENT
        self.what = what


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mapping as we would like it.

    Args:
        transport: udp or tcp.
        internal: our address in the router's network, and our port.
        external_port: the router's port that we would like; 0: any.
        lifetime: seconds that it shall last, at least 1; routers may grant less, or more.
        strict: fail (CONFLICT) where that very port cannot be had.
    """

    transport: Transport
    internal: Endpoint
    external_port: int
    lifetime: int
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping as the router says that it made it.

    Args:
        method: protocol that it was made by.
        transport: udp or tcp.
        internal: where the router sends what it receives.
        external_port: the router's port.
        external_ip: the router's address on its other side; None: it did not say.
        lifetime: seconds granted; 0: until it is deleted.
        epoch: seconds that the router remembers its mappings for, as it says; None: unknown.
    """

    method: Method
    transport: Transport
    internal: Endpoint
    external_port: int
    external_ip: IPv4Address | None
    lifetime: int
    epoch: int | None

    @property
    def external(self) -> Endpoint | None:
        """Where others can reach us, if the router gave its address."""
        return None if self.external_ip is None else Endpoint(self.external_ip, self.external_port)


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """What a router says of itself.

    Args:
        external_ip: its address on the other side; None: it did not say.
        epoch: seconds since it lost its mappings last; None: unknown.
        present: whether it still has the mapping that was asked about; None: it cannot say.
    """

    external_ip: IPv4Address | None
    epoch: int | None
    present: bool | None = None


#: The most telling first.
_TELLING: Final = (
    Cause.DOUBLE_NAT,
    Cause.REFUSED,
    Cause.CONFLICT,
    Cause.FULL,
    Cause.NO_MAPPING,
    Cause.BROKEN,
    Cause.NOT_INSTALLED,
    Cause.NOT_OFFERED,
    Cause.SILENT,
    Cause.NO_GATEWAY,
)


def most_telling(refusals: Iterable[NotMapped]) -> NotMapped:
    """What a user is told where every method failed, each in its way; of several of one kind the first."""
    return min(refusals, key=lambda refusal: _TELLING.index(refusal.cause))


def kind_of_address(ip: IPv4Address) -> str:
    """Whether an address is reachable from the internet: "public", or what it is instead.

    >>> kind_of_address(IPv4Address("100.64.0.7")), kind_of_address(IPv4Address("192.168.1.1"))
    ('carrier-grade', 'private')
    """
    if ip in _CARRIER_GRADE:
        return "carrier-grade"
    if ip.is_global and not ip.is_multicast:
        return "public"
    return "private" if ip.is_private and not (ip.is_loopback or ip.is_unspecified or ip.is_link_local) else "unusable"
