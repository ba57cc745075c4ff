"""Routers for a lab: every kind of NAT that stands between two edges, made of namespaces and nftables.

    with Lab() as lab:
        internet = Internet(lab)
        supernode = internet.host("sn")
        home = internet.site("a", "port")  # a router with a port-restricted NAT, and host "a" behind it
        home.host.run("ping", "-c1", supernode.addr)
        home.router.rebind()

The public segment is one switch (198.18.0.0/16); whoever stands there reaches the rest through its gateway. Behind a
router lies a LAN of its own: 192.168.N.0/24, behind a carrier 100.64.N.0/24, behind a router without NAT 198.19.N.0/24,
which the gateway routes there. With IPv6 every host has an address of 2001:2::/48 (RFC 5180) as well, without NAT:
routers let in what was asked for, and those of kind "open" everything.

How a kind is made (:mod:`n2n.lab.rules` has the rules): Linux's masquerade keeps the source port, so its mapping is
endpoint-independent and its filter that of connection tracking, port-restricted. With random ports it is symmetric. The
cones learn in a map which external port belongs to whom inside, and let in by that map whom masquerade would not.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from n2n.lab.namespaces import Namespace
from n2n.lab.rules import LAN, WAN, Behaviour, cut_rules, router_rules
from n2n.lab.topology import Host, Lab, Switch

__all__ = ["KINDS", "TOOLS", "Fence", "Internet", "Router", "Site"]

#: Kind of a site, and what stands between its host and the public segment.
KINDS: Final[Mapping[str, str]] = {
    "full": "full cone: one external port for everybody, and everybody may answer there",
    "addr": "address-restricted cone: one external port; addresses that were written to may answer",
    "port": "port-restricted cone: one external port; endpoints that were written to may answer",
    "symmetric": "symmetric: another external port for every endpoint that is written to",
    "open": "no NAT: a router that forwards everything, and a public address behind it",
    "carrier": "two in a row: a port-restricted router at home, a symmetric one at the provider",
    "blocked": "a port-restricted router that lets UDP out to the supernode's port only",
}
#: Programs that routers need.
TOOLS: Final = ("nft", "conntrack")
#: The port to which UDP passes out of a site of kind "blocked".
_SUPERNODE_PORT: Final = 7777
_PUBLIC: Final = "198.18.0.0/16"
_ROUTED: Final = "198.19.{}.0/24"
_HOME: Final = "192.168.{}.0/24"
_CARRIER: Final = "100.64.{}.0/24"
_ENTRY: Final = re.compile(r"src=(\S+) dst=\S+ sport=(\d+) ")
_PUBLIC6: Final = "2001:2:0:{:x}::/64"
_FIRST_PORT: Final = 20_000  # of those that a router moves mappings to
_TIMEOUTS: Final = (30, 120)  # seconds, what Linux has: without an answer, and with


class Fence:
    """Keeps hosts of one segment from each other: UDP only, both ways, without a word to the sender.

    Args:
        namespace: of the segment's switch.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._pairs: set[tuple[str, str]] = set()

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """No UDP passes between these two addresses any more; from the first to the second only, unless `both`."""
        self._pairs |= {(one, other), (other, one)} if both else {(one, other)}
        self._apply()

    def mend(self, one: str, other: str) -> None:
        """It passes again."""
        self._pairs -= {(one, other), (other, one)}
        self._apply()

    def _apply(self) -> None:
        self._namespace.run("nft", "-f", "-", input=cut_rules(sorted(self._pairs)))


class Router:
    """A router: a host with an interface "wan", and a LAN (its own bridge) with any number of hosts.

    Args:
        internet: where its WAN address is reached.
        name: of its namespace.
        kind: "full", "addr", "port", "symmetric" or "open".
        lan: its inner network; its own address there is the first.
        behind: the router in whose LAN it stands; None: on the public segment.
        hairpin: hosts in the LAN reach each other by their external endpoints (not with "symmetric" or "open").
        udp_ports: destination ports to which UDP passes out; None: all.
    """

    def __init__(
        self,
        internet: Internet,
        name: str,
        kind: str,
        *,
        lan: IPv4Network,
        behind: Router | None = None,
        hairpin: bool = False,
        udp_ports: Iterable[int] | None = None,
    ) -> None:
        self.name = name
        self.lan = lan
        self.behind = behind
        self._internet = internet
        self._behaviour = Behaviour(kind, hairpin, None if udp_ports is None else tuple(udp_ports))
        self._timeouts = _TIMEOUTS
        self._moved: dict[tuple[str, int], int] = {}
        self._black_hole = False
        self._addresses = lan.hosts()
        self.lan6 = internet.next_network6()
        """Its inner IPv6 network, where the lab has IPv6."""
        self.inside = str(next(self._addresses))
        """Its address in the LAN."""
        self.address6 = ""
        self.host = internet.lab.host(name)
        _forwarding(self.host.namespace)
        self.switch = Switch(self.host.namespace, internet.mtu)
        self.fence = Fence(self.host.namespace)
        self.host.namespace.ip("address", "add", f"{self.inside}/{lan.prefixlen}", "dev", LAN)
        segment = internet.switch if behind is None else behind.switch
        self._outer = internet.network if behind is None else behind.lan
        self._gateway = internet.gateway if behind is None else behind.inside
        self.address = self._next_address()
        """Its WAN address."""
        self.host.attach(segment, f"{self.address}/{self._outer.prefixlen}", interface=WAN, gateway=self._gateway)
        if internet.ipv6:
            internet.plug_in(self)
        internet.routed(self)
        self._renew()

    def _next_address(self) -> str:
        return self._internet.address() if self.behind is None else str(next(self.behind._addresses))

    def __repr__(self) -> str:
        return f"Router({self.name!r}, {self.kind!r})"

    @property
    def kind(self) -> str:
        """What it does now."""
        return self._behaviour.kind

    def attach(self, name: str) -> Host:
        """A further host in its LAN."""
        host = self._internet.lab.host(name)
        address = f"{next(self._addresses)}/{self.lan.prefixlen}"
        host.attach(self.switch, address, gateway=self.inside)
        if self._internet.ipv6:
            self._internet.number(host, self.lan6)
        return host

    # ---- changes, as they happen to routers ------------------------------------------------------

    def become(self, kind: str, *, hairpin: bool = False, udp_ports: Iterable[int] | None = None) -> None:
        """Behave otherwise from now on; what it knew is forgotten."""
        self._behaviour = Behaviour(kind, hairpin, None if udp_ports is None else tuple(udp_ports))
        self._internet.routed(self)
        self._renew()

    def rebind(self) -> None:
        """Forget every mapping; whoever inside had one gets another external port."""
        for inside in self.mappings():
            self._moved[inside] = _FIRST_PORT + secrets.randbelow(65_536 - _FIRST_PORT)
        self._renew()

    def forget(self) -> None:
        """Forget every mapping and whom it let in (as when it starts again); ports may stay the same."""
        self._moved.clear()
        self._renew()

    def change_address(self) -> str:
        """Get another WAN address, as after a forced disconnect; returns it. Mappings are forgotten."""
        interface = f"{self.address}/{self._outer.prefixlen}"
        self.address = self._next_address()
        self.host.namespace.ip(
            batch=[
                f"address del {interface} dev {WAN}",
                f"address add {self.address}/{self._outer.prefixlen} dev {WAN}",
                f"route replace default via {self._gateway} dev {WAN}",
            ]
        )
        self._internet.routed(self)
        self._renew()
        return self.address

    def set_timeouts(self, unanswered: int, stream: int) -> None:
        """After how many seconds without a packet a UDP mapping ends: one that was never answered, and any other."""
        self._timeouts = (unanswered, stream)
        self._renew()

    def set_mtu(self, mtu: int, *, black_hole: bool = False) -> None:
        """Forward no packet of more than `mtu` bytes, in either direction.

        Args:
            black_hole: do not tell the sender of one that was too big (ICMP is filtered).
        """
        self.host.namespace.ip(
            batch=[
                f"route replace default via {self._gateway} dev {WAN} mtu {mtu}",
                f"route replace {self._outer} dev {WAN} proto kernel scope link src {self.address} mtu {mtu}",
                f"route replace {self.lan} dev {LAN} proto kernel scope link src {self.inside} mtu {mtu}",
            ]
        )
        self._black_hole = black_hole
        self._renew()

    def mappings(self) -> list[tuple[str, int]]:
        """Address and port of everything inside that sent UDP out and is still remembered."""
        listed = self.host.run("conntrack", "-L", "-p", "udp", check=False).stdout
        found = {(entry[1], int(entry[2])) for entry in _ENTRY.finditer(listed)}
        return sorted(one for one in found if ipaddress.ip_address(one[0]) in self.lan)

    def _renew(self) -> None:
        """Apply the rules and begin with nothing known. Nothing passes meanwhile, so that nothing old comes back."""
        self._apply(frozen=True)
        with self.host.entered():
            for key, seconds in zip(("", "_stream"), self._timeouts, strict=True):
                Path(f"/proc/sys/net/netfilter/nf_conntrack_udp_timeout{key}").write_text(str(seconds))
        self.host.run("conntrack", "-F")
        self._apply()

    def _apply(self, *, frozen: bool = False) -> None:
        rules = router_rules(
            self._behaviour,
            address=self.address,
            lifetime=self._timeouts[1],
            moved=self._moved,
            black_hole=self._black_hole,
            frozen=frozen,
        )
        self.host.run("nft", "-f", "-", input=rules)


@dataclass(frozen=True)
class Site:
    """A host, and what stands between it and the public segment."""

    name: str
    kind: str
    host: Host
    router: Router
    outer: Router
    """The router with the public address: `router` itself, or the carrier's."""

    @property
    def public(self) -> str:
        """The address by which others reach it, if they do."""
        return self.host.addr if self.router.kind == "open" else self.outer.address


class Internet:
    """The public segment of a lab, and all routers on it.

    Args:
        lab: that it is part of.
        network: its addresses.
        mtu: of all its links.
        ipv6: hosts have IPv6 addresses, too.

    Raises:
        PlatformError: nft or conntrack refused something.
    """

    def __init__(self, lab: Lab, *, network: str = _PUBLIC, mtu: int = 1500, ipv6: bool = False) -> None:
        self.lab = lab
        self.ipv6 = ipv6
        self.network = IPv4Network(network)
        self.mtu = mtu
        self.switch = lab.switch("public", mtu=mtu)
        self.fence = Fence(self.switch.namespace)
        self._addresses = self.network.hosts()
        self._lans = itertools.count(1)
        self._routes: dict[str, str] = {}
        self.gateway = self.address()
        _forwarding(self.switch.namespace)
        self.switch.namespace.ip("address", "add", f"{self.gateway}/{self.network.prefixlen}", "dev", LAN)
        self.six: dict[str, str] = {}
        """IPv6 address by host, where there is IPv6."""
        self._networks6 = itertools.count()
        self._numbers6 = itertools.count(2)
        self.network6 = self.next_network6()
        if ipv6:
            self.switch.namespace.ip("address", "add", f"{self.network6[1]}/64", "dev", LAN, "nodad")

    def address(self) -> str:
        """A further address of the public segment."""
        return str(next(self._addresses))

    def host(self, name: str) -> Host:
        """A further host with a public address."""
        host = self.lab.host(name)
        host.attach(self.switch, f"{self.address()}/{self.network.prefixlen}", gateway=self.gateway)
        if self.ipv6:
            self.number(host, self.network6)
        return host

    def next_network6(self) -> IPv6Network:
        """A further IPv6 network."""
        return IPv6Network(_PUBLIC6.format(next(self._networks6)))

    def number(self, host: Host, network: IPv6Network, interface: str = "eth0") -> str:
        """Give a host an IPv6 address and the way out of its network; returns the address."""
        address = self.six[host.name] = str(network[next(self._numbers6)])
        host.namespace.ip(
            batch=[
                f"address add {address}/64 dev {interface} nodad",
                f"route add default via {network[1]} dev {interface}",
            ]
        )
        return address

    def plug_in(self, router: Router) -> None:
        """Give a router its IPv6 addresses, and the others the way to its LAN."""
        outer, above = (self.network6, self.switch.namespace)
        if router.behind is not None:
            outer, above = (router.behind.lan6, router.behind.host.namespace)
            self.switch.namespace.ip("-6", "route", "add", str(router.lan6), "via", router.behind.address6)
        router.address6 = self.number(router.host, outer, WAN)
        router.host.namespace.ip("address", "add", f"{router.lan6[1]}/64", "dev", LAN, "nodad")
        above.ip("-6", "route", "add", str(router.lan6), "via", router.address6)

    def router(
        self,
        name: str,
        kind: str,
        *,
        behind: Router | None = None,
        carrier: bool = False,
        hairpin: bool = False,
        udp_ports: Iterable[int] | None = None,
    ) -> Router:
        """A further router (see :class:`Router`).

        Args:
            carrier: its LAN has addresses of a carrier's (RFC 6598).
        """
        form = _ROUTED if kind == "open" else _CARRIER if carrier else _HOME
        lan = IPv4Network(form.format(next(self._lans)))
        return Router(self, name, kind, lan=lan, behind=behind, hairpin=hairpin, udp_ports=udp_ports)

    def site(self, name: str, kind: str, *, hairpin: bool = False) -> Site:
        """Host `name` behind what `kind` names (one of :data:`KINDS`); its router is called ``<name>-r``.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind of NAT {kind!r}. Known are: {', '.join(KINDS)}")
        outer = self.router(f"{name}-c", "symmetric", carrier=True) if kind == "carrier" else None
        inner = "port" if kind in ("carrier", "blocked") else kind
        ports = (_SUPERNODE_PORT,) if kind == "blocked" else None
        router = self.router(f"{name}-r", inner, behind=outer, hairpin=hairpin, udp_ports=ports)
        return Site(name, kind, router.attach(name), router, outer or router)

    def cut(self, one: Site, other: Site) -> None:
        """Nothing of UDP passes directly between two sites any more; what others relay does."""
        self.fence.cut(one.public, other.public)

    def mend(self, one: Site, other: Site) -> None:
        """The direct way is free again."""
        self.fence.mend(one.public, other.public)

    def routed(self, router: Router) -> None:
        """Tell the gateway where a LAN without NAT is, and where none is any more."""
        lan = str(router.lan)
        wanted = router.address if router.kind == "open" and router.behind is None else None
        if wanted == self._routes.get(lan):
            return
        if wanted is None:
            del self._routes[lan]
            self.switch.namespace.ip("route", "del", lan)
        else:
            self._routes[lan] = wanted
            self.switch.namespace.ip("route", "replace", lan, "via", wanted)


def _forwarding(namespace: Namespace) -> None:
    """Make a namespace a router, one that does not tell hosts of shorter ways."""
    with namespace.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for scope in ("all", "default"):
            Path(f"/proc/sys/net/ipv4/conf/{scope}/send_redirects").write_text("0")
