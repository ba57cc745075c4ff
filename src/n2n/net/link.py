"""Links, addresses and routes of this host, through the kernel's netlink interface (pyroute2).

pyroute2 is imported at the first call, and only the parts that this takes (:mod:`n2n.net.lean`).  Every call blocks for
about a millisecond; in a program with an event loop use ``asyncio.to_thread``.  (Called inside a running loop they
still work: pyroute2 brings a loop of its own, so the work is then done in a thread that the caller waits for.)

A call acts on the network namespace of the calling thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_interface
from typing import Any, Final, TypeVar

from n2n.errors import NetlinkError
from n2n.net.lean import put_pyroute2
from n2n.types import MacAddress

__all__ = [
    "LinkInfo",
    "configure",
    "interface_down",
    "interface_up",
    "link_info",
    "netlink_session",
    "refusals",
    "remove_address",
    "routes_clashing",
]

_T = TypeVar("_T")

_IFF_UP: Final = 1
_IFF_LOWER_UP: Final = 1 << 16
_MAIN_TABLE: Final = 254
#: Wider routes are pieces of a default route (0.0.0.0/1 and 128.0.0.0/1, or smaller ones, are how VPNs write it):
#: no private or assigned network is wider than this.
_WIDEST_NETWORK: Final = 8


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """One network interface.

    Args:
        index: the kernel's number for it.
        name: its present name.
        mac: its Ethernet address; None where it has none (tunnels).
        mtu: largest payload of a frame in bytes.
        up: administratively up.
        carrier: the lower layer is up (a TAP device: some process has it open).
        kind: as ``ip -d link`` shows it (``tun`` for TAP devices, ``veth``, ...); empty for physical cards.
        addresses: IPv4 and IPv6 addresses with their prefix lengths.
    """

    index: int
    name: str
    mac: MacAddress | None
    mtu: int
    up: bool
    carrier: bool
    kind: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]


def configure(
    name: str,
    *,
    mac: MacAddress | None = None,
    address: IPv4Interface | None = None,
    mtu: int | None = None,
    up: bool = True,
    exclusive: bool = False,
) -> None:
    """Bring an interface into a state; what is so already stays untouched.

    One request reads the link, at most one changes it, at most one adds the address (and with `exclusive` one lists
    the addresses).

    Args:
        name: of the interface.
        mac: its Ethernet address (not a group address).
        address: IPv4 address and prefix length to have.
        mtu: largest payload of a frame in bytes; a TAP device takes 68 to 65521.
        up: True brings it up; False leaves it as it is.
        exclusive: remove every other IPv4 address: the way to change it, since removing the old address of a network
            afterwards would take the new one with it.

    Raises:
        NetlinkError: no such interface, not allowed, or refused; the message names the value and what to do.

    >>> from n2n.net import Tap
    >>> with Tap.open("example0") as tap:
    ...     configure(tap.name, address=IPv4Interface("10.1.2.3/24"), mtu=1420)
    ...     link_info(tap.name).mtu
    1420
    """

    def work(netlink: Any) -> None:
        link = _find(netlink, name)
        changes = _changes(link, mac, mtu, up)
        if changes:
            wanted = ", ".join(f"{key} {value}" for key, value in changes.items())
            with refusals(f"cannot set {wanted} on {name}"):
                netlink.link("set", index=link["index"], **changes)
        if exclusive:
            # Before the new one: with a primary address the kernel removes all others of its network
            # (net.ipv4.conf.*.promote_secondaries is off by default).
            for other in tuple(_addresses(netlink, link["index"])):
                if isinstance(other, IPv4Interface) and other != address:
                    _remove(netlink, name, link["index"], other)
        if address is not None:
            with refusals(f"cannot give {name} the address {address}"):
                netlink.addr("replace", index=link["index"], **_address_fields(address))

    netlink_session(work)


def remove_address(name: str, address: IPv4Interface | IPv6Interface) -> bool:
    """Take an address off an interface; the kernel may take further ones of the same network with it.

    Returns:
        False if the interface did not have it.

    Raises:
        NetlinkError: no such interface, or not allowed.

    >>> remove_address("lo", IPv4Interface("192.0.2.1/32"))
    False
    """
    return netlink_session(lambda netlink: _remove(netlink, name, _find(netlink, name)["index"], address))


def interface_up(name: str) -> None:
    """Bring an interface up.

    Raises:
        NetlinkError: no such interface, or not allowed.

    >>> interface_up("lo")
    """
    configure(name, up=True)


def interface_down(name: str) -> None:
    """Take an interface down.

    Raises:
        NetlinkError: no such interface, or not allowed.

    >>> interface_down("lo")
    """

    def work(netlink: Any) -> None:
        link = _find(netlink, name)
        if link["flags"] & _IFF_UP:
            with refusals(f"cannot take {name} down"):
                netlink.link("set", index=link["index"], state="down")

    netlink_session(work)


def link_info(name: str) -> LinkInfo:
    """What the kernel says of one interface.

    Raises:
        NetlinkError: there is no such interface.

    >>> link_info("lo").name
    'lo'
    """

    def work(netlink: Any) -> LinkInfo:
        link = _find(netlink, name)
        details = link.get("linkinfo")
        return LinkInfo(
            index=link["index"],
            name=link.get("ifname"),
            mac=_mac_of(link),
            mtu=link.get("mtu"),
            up=bool(link["flags"] & _IFF_UP),
            carrier=bool(link["flags"] & _IFF_LOWER_UP),
            kind=(details.get("kind") or "") if details else "",
            addresses=tuple(_addresses(netlink, link["index"])),
        )

    return netlink_session(work)


def routes_clashing(network: IPv4Network, *, ignore: Collection[str] = ()) -> list[str]:
    """Local networks that an overlay network would hide or be hidden by.

    Looks at the IPv4 addresses of all interfaces and at the main routing table.  Default routes, also in pieces, do
    not count: the overlay is meant to be narrower than those.

    Args:
        network: the overlay's.
        ignore: interfaces that do not count (the TAP devices of this host's edges).

    Returns:
        One line for each clash, for people: ``192.168.1.0/24 on eth0`` or ``10.0.0.0/8 via 192.168.1.1 dev eth0``.

    Raises:
        NetlinkError: the kernel does not answer.

    >>> interface_up("lo")
    >>> routes_clashing(IPv4Network("127.0.0.0/24"))
    ['127.0.0.0/8 on lo']
    """

    def work(netlink: Any) -> list[str]:
        with refusals("cannot list links, addresses and routes"):
            names = {link["index"]: str(link.get("ifname")) for link in netlink.get_links()}
            own = [(names.get(item["index"], "?"), item) for item in netlink.get_addr(family=2)]
            routes = list(netlink.get_routes(family=2, table=_MAIN_TABLE))
        found = {}
        for device, item in own:
            local = IPv4Interface((item.get("local") or item.get("address"), item["prefixlen"]))
            if device not in ignore and local.network.overlaps(network):
                found[local.network, device] = f"{local.network} on {device}"
        for route in routes:
            target = IPv4Network((route.get("dst") or "0.0.0.0", route["dst_len"]))  # noqa: S104
            device = names.get(route.get("oif") or 0, "")
            if target.prefixlen < _WIDEST_NETWORK or device in ignore or not target.overlaps(network):
                continue
            found.setdefault((target, device), str(target) + _by_way_of(route.get("gateway"), device))
        return sorted(found.values())

    return netlink_session(work)


def _by_way_of(gateway: str | None, device: str) -> str:
    return (f" via {gateway}" if gateway else "") + (f" dev {device}" if device else "")


def _changes(link: Any, mac: MacAddress | None, mtu: int | None, up: bool) -> dict[str, Any]:
    """The fields of one RTM_NEWLINK request that are not already so."""
    changes: dict[str, Any] = {}
    if mac is not None and _mac_of(link) != mac:
        changes["address"] = str(mac)
    if mtu is not None and link.get("mtu") != mtu:
        changes["mtu"] = mtu
    if up and not link["flags"] & _IFF_UP:
        changes["state"] = "up"
    return changes


def _address_fields(address: IPv4Interface | IPv6Interface) -> dict[str, Any]:
    fields: dict[str, Any] = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
    if isinstance(address, IPv4Interface):
        fields["family"] = 2
        if address.network.prefixlen < 31:  # RFC 3021: smaller networks have no broadcast address
            fields["broadcast"] = str(address.network.broadcast_address)
    return fields


def _addresses(netlink: Any, index: int) -> Iterator[IPv4Interface | IPv6Interface]:
    with refusals("cannot list addresses"):
        for item in netlink.get_addr(index=index):
            if item["index"] == index:  # older kernels and pyroute2 do not filter
                yield ip_interface((item.get("local") or item.get("address"), item["prefixlen"]))


def _remove(netlink: Any, name: str, index: int, address: IPv4Interface | IPv6Interface) -> bool:
    try:
        with refusals(f"cannot remove the address {address} from {name}"):
            netlink.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    except NetlinkError as error:
        if _code(error.__cause__) == errno.EADDRNOTAVAIL:
            return False
        raise
    return True


def _mac_of(link: Any) -> MacAddress | None:
    text = link.get("address")
    try:
        return MacAddress.parse(text) if text else None
    except ValueError:
        return None


def _find(netlink: Any, name: str) -> Any:
    with refusals(f"cannot look up the interface {name!r}"):
        found = netlink.link("get", ifname=name)
    return found[0]


def netlink_session(work: Callable[[Any], _T]) -> _T:
    """Run `work` with an open netlink socket, and close that again."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _session(work)
    outcome: list[tuple[_T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((_session(work), None))
        except BaseException as error:
            outcome.append((None, error))

    helper = threading.Thread(target=run, name="netlink", daemon=True)
    helper.start()
    helper.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _session(work: Callable[[Any], _T]) -> _T:
    put_pyroute2()
    from pyroute2.iproute import IPRoute

    # A loop of asyncio's own kind: where uvloop is the policy, pyroute2 would get one that knows no netlink sockets.
    loop = asyncio.SelectorEventLoop()
    try:
        with refusals("cannot open a netlink socket"):
            netlink = IPRoute(use_event_loop=loop)
        try:
            return work(netlink)
        finally:
            netlink.close()
            loop.run_until_complete(asyncio.sleep(0))  # the transport closes its socket in the loop's next round
    finally:
        loop.close()


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what pyroute2 raises into our error, with cause and remedy."""
    put_pyroute2()
    from pyroute2.netlink.exceptions import NetlinkError as Refused

    try:
        yield
    except (Refused, OSError) as error:
        code = _code(error)
        cause = os.strerror(code).lower() if code else str(error)
        raise NetlinkError(f"{what}: {cause}. {_remedy(code)}") from error


def _code(error: BaseException | None) -> int | None:
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    return code if isinstance(code, int) else None


def _remedy(code: int | None) -> str:
    match code:
        case errno.EPERM | errno.EACCES:
            return "Run as root, or give the process CAP_NET_ADMIN"
        case errno.ENODEV:
            return "There is no such interface here: see ip link"
        case errno.EADDRNOTAVAIL:
            return "That is no usable address (an interface's MAC address must not be a group address)"
        case errno.EINVAL | errno.ERANGE:
            return "The value is out of the range that this interface takes: see ip -d link"
        case errno.EBUSY:
            return "The interface is in use by something that forbids it (a bridge or a bond?): see ip -d link"
        case _:
            return "See ip -d link, and the kernel's log (dmesg)"
