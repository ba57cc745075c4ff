"""What this host's place in the network is: its addresses, and the way that leads to one destination."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any, Final

from n2n.errors import NetlinkError
from n2n.net.link import netlink_session, refusals

__all__ = ["Surroundings", "Way", "surroundings"]

#: Addresses of this host that are looked at, at most: hosts with thousands of them exist.
_MOST_ADDRESSES: Final = 64
_IFF_UP: Final = 1
#: linux/if_addr.h: the address failed its duplicate check, is being checked, or is going out of use.
_IFA_UNUSABLE: Final = 0x08 | 0x40 | 0x20
_LOOPBACK: Final = "lo"
#: None, or one of type unreachable, prohibit, or blackhole (ip-route(8)).
_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Way:
    """How datagrams to one destination leave this host.

    Args:
        source: their source address.
        device: name of the interface.
        gateway: the next router; None where the destination is a neighbour.
        carrier: how often the interface has lost and got its lower layer so far: a cable that was pulled and put back
            may lead elsewhere.
    """

    source: IPv4Address | IPv6Address | None
    device: str
    gateway: str | None
    carrier: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A look at the host's network.

    Args:
        addresses: at which others may reach this host, that of the way's source first; at most 64.  Without those of
            loopback, link-local ones, and ones that are not usable (yet).
        way: to the destination that was asked for; None where there is none.
    """

    addresses: tuple[IPv4Address | IPv6Address, ...]
    way: Way | None


def surroundings(
    target: IPv4Address | IPv6Address | None,
    *,
    ignore: Collection[str] = (),
    without: Collection[IPv4Network] = (),
    device: str = "",
) -> Surroundings:
    """Look at this host's addresses and its way to `target`.

    Args:
        target: the destination; None: there is none, and no way to it.
        ignore: interfaces whose addresses do not count (the TAP devices of this host's edges).
        device: the only interface that counts; empty: every one.
        without: networks whose addresses do not count (overlays: a bridge may have such an address).

    Raises:
        NetlinkError: the kernel does not answer.

    >>> surroundings(ip_address("127.0.0.1")).way.device
    'lo'
    """

    def work(netlink: Any) -> Surroundings:
        with refusals("cannot list links and addresses"):
            links = {link["index"]: link for link in netlink.get_links()}
            items = list(netlink.get_addr())
        usable = {
            index for index, link in links.items() if link["flags"] & _IFF_UP and link.get("ifname") not in ignore
        } - {index for index, link in links.items() if link.get("ifname") == _LOOPBACK}
        if device:
            usable &= {index for index, link in links.items() if link.get("ifname") == device}
        way = _way(netlink, target, links, device) if target is not None else None
        found = [
            address
            for address in _usable_addresses(items, usable)
            if not any(address in network for network in without)
        ]
        if way is not None and way.source in found:
            found.remove(way.source)
            found.insert(0, way.source)
        return Surroundings(tuple(dict.fromkeys(found[:_MOST_ADDRESSES])), way)

    return netlink_session(work)


def _usable_addresses(items: list[Any], devices: Collection[int]) -> Iterator[IPv4Address | IPv6Address]:
    for item in items:
        flags = item.get("flags") or item["flags"]
        if item["index"] not in devices or flags & _IFA_UNUSABLE:
            continue
        address = ip_address(item.get("local") or item.get("address"))
        if not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified):
            yield address


def _way(netlink: Any, target: IPv4Address | IPv6Address, links: dict[int, Any], device: str) -> Way | None:
    family = 2 if target.version == 4 else 10
    by = [{"oif": index} for index, link in links.items() if link.get("ifname") == device] if device else [{}]
    if not by:  # the interface is not there (yet)
        return None
    try:
        with refusals(f"cannot look up the route to {target}"):
            route = netlink.route("get", family=family, dst=str(target), **by[0])[0]
    except NetlinkError as error:
        if getattr(error.__cause__, "code", None) in _NO_ROUTE:
            return None
        raise
    source, link = route.get("prefsrc"), links.get(route.get("oif"))
    if link is None:
        return None
    return Way(
        source=ip_address(source) if source else None,
        device=str(link.get("ifname")),
        gateway=route.get("gateway"),
        carrier=int(link.get("carrier_changes") or 0),
    )
