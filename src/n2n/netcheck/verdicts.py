"""What the answers mean. No input or output here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from n2n.net.portmap import kind_of_address
from n2n.types import Endpoint

__all__ = ["Filtering", "Mapping", "Nat", "Seen", "double_nat", "judge"]


class Mapping(Enum):
    """How public endpoints are given out; the names of RFC 4787, 4.1, as far as two ports of one address can tell."""

    UNKNOWN = "unknown"
    NONE = "none"
    """There is no NAT: the supernode sees this host's own address."""
    SAME = "endpoint-independent"
    """One public endpoint for both of the supernode's ports."""
    DIFFERENT = "endpoint-dependent"
    """Another one for each port (symmetric)."""


class Filtering(Enum):
    """Who may answer; RFC 4787, 5, as far as two ports of one address can tell."""

    UNKNOWN = "unknown"
    LOOSE = "endpoint-independent or address-dependent"
    """A port that was never asked may answer."""
    STRICT = "address and port-dependent"
    """Only the very port that was asked may answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was asked and answered.

    Args:
        local: the endpoint that the questions left from.
        main: where the main port saw them; None: no answer, or a v5 supernode's.
        second: where the other port saw them; None: no answer.
        unasked: whether an answer came from a port that was never asked; None: there is no such port to answer.
    """

    local: Endpoint | None
    main: Endpoint | None
    second: Endpoint | None
    unasked: bool | None


@dataclass(frozen=True, slots=True)
class Nat:
    """What NAT this host is behind.

    Args:
        kind: one name for all of it, in words.
        mapping, filtering: see there.
        port_preserved: the public port is the local one; None: unknown.
        unknown: what cannot be known from here, in sentences.
    """

    kind: str
    mapping: Mapping
    filtering: Filtering
    port_preserved: bool | None
    unknown: tuple[str, ...]


_OTHER_ADDRESS: Final = (
    "whether another destination address would see another endpoint, and whether strangers' datagrams get in: "
    "only two ports of one supernode were asked"
)


def judge(seen: Seen) -> Nat:
    """What NAT that is.

    >>> at = Endpoint.parse
    >>> judge(Seen(at("10.1.0.2:5000"), at("192.0.2.1:5000"), at("192.0.2.1:5000"), False)).kind
    'a port-restricted NAT'
    """
    if seen.main is None:
        return Nat("unknown", Mapping.UNKNOWN, Filtering.UNKNOWN, None, ("everything: the supernode told nothing",))
    mapping = _mapping(seen)
    filtering = Filtering.UNKNOWN
    if seen.unasked is not None:
        filtering = Filtering.LOOSE if seen.unasked else Filtering.STRICT
    unknown = []
    if mapping is Mapping.UNKNOWN:
        unknown.append("whether each destination sees another endpoint: the supernode's second port did not answer")
    if filtering is Filtering.UNKNOWN:
        unknown.append("who may answer: the supernode has no second port that answers")
    if mapping in (Mapping.SAME, Mapping.DIFFERENT):
        unknown.append(_OTHER_ADDRESS)
    preserved = None if seen.local is None else seen.main.port == seen.local.port
    return Nat(_kind(mapping, filtering), mapping, filtering, preserved, tuple(unknown))


def _mapping(seen: Seen) -> Mapping:
    if seen.main == seen.local:
        return Mapping.NONE
    if seen.second is None:
        return Mapping.UNKNOWN
    return Mapping.SAME if seen.second == seen.main else Mapping.DIFFERENT


def _kind(mapping: Mapping, filtering: Filtering) -> str:
    match mapping, filtering:
        case Mapping.NONE, Filtering.STRICT:
            return "no NAT, but a firewall that lets only answers in"
        case Mapping.NONE, _:
            return "no NAT"
        case Mapping.DIFFERENT, _:
            return "a symmetric NAT"
        case Mapping.SAME, Filtering.LOOSE:
            return "a full-cone or address-restricted NAT"
        case Mapping.SAME, Filtering.STRICT:
            return "a port-restricted NAT"
        case _:
            return "a NAT of unknown kind"


def double_nat(router_says: IPv4Address | None, seen: Endpoint | None) -> str:
    """Why a second NAT lies behind the router, as far as one can tell; empty where nothing says so.

    >>> double_nat(IPv4Address("100.64.0.9"), None)
    'the router has 100.64.0.9 outside, which is no public address (carrier-grade)'
    """
    if router_says is None:
        return ""
    if (kind := kind_of_address(router_says)) != "public":
        return f"the router has {router_says} outside, which is no public address ({kind})"
    ip = seen.ip if seen is not None else None
    if isinstance(ip, IPv4Address) and kind_of_address(ip) == "public" and ip != router_says:
        return f"the router has {router_says} outside, but the supernode sees {ip}"
    return ""
