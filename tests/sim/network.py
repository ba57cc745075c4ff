"""A network in virtual time: latency, loss, duplicates, disorder, NAT routers, cut paths.

Everything is driven by one queue of events and one seeded random source: the same seed gives the same run, to the byte.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from n2n.types import Endpoint, Instant

__all__ = ["Clock", "Host", "Link", "Nat", "Network"]

Receiver = Callable[[bytes, Endpoint], None]
WALL = 1_800_000_000.0


class Clock:
    """Virtual time, and what is to happen in it."""

    def __init__(self) -> None:
        self.time = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    @property
    def now(self) -> Instant:
        return Instant(self.time, WALL + self.time)

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(time, self.time), next(self._numbers), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.time + seconds, what)

    def run_until(self, time: float) -> None:
        while self._queue and self._queue[0][0] <= time:
            self.time, _, what = heapq.heappop(self._queue)
            what()
        self.time = time

    def run_for(self, seconds: float) -> None:
        self.run_until(self.time + seconds)


@dataclass
class Link:
    """How the network treats a datagram.  Times in seconds, the rest as fractions of all datagrams."""

    latency: tuple[float, float] = (0.010, 0.012)
    loss: float = 0.0
    duplicates: float = 0.0
    disorder: float = 0.0
    """Held back so long that later ones overtake it (up to a second)."""


class Nat:
    """A router with one public address.

    Args:
        kind: "full" (cone), "address" or "port" (restricted cones), "symmetric" (with ports that nobody can guess).
        ip: the public address.
        timeout: seconds after which an unused mapping ends, and so does the leave for one remote to come in.
        hairpin: hosts behind it reach each other by its public address.
    """

    def __init__(self, kind: str, ip: str, *, timeout: float = 120.0, hairpin: bool = False) -> None:
        assert kind in ("full", "address", "port", "symmetric")
        self.kind = kind
        self.ip = IPv4Address(ip)
        self.timeout = timeout
        self.hairpin = hairpin
        self._ports = itertools.count(30_000)
        self._chance = random.Random(ip)
        self._out: dict[tuple[Endpoint, Endpoint | None], int] = {}
        self._in: dict[int, tuple[Endpoint, dict[Endpoint, float]]] = {}

    def forget(self) -> None:
        """Start again: all mappings are gone, and new ones get other ports."""
        self._out.clear()
        self._in.clear()

    def outbound(self, inside: Endpoint, remote: Endpoint, time: float) -> Endpoint:
        """The public endpoint from which a datagram leaves."""
        key = (inside, remote if self.kind == "symmetric" else None)
        port = self._out.get(key)
        if port is None or not self._alive(port, time):
            port = self._out[key] = self._free_port()
            self._in[port] = (inside, {})
        self._in[port][1][remote] = time
        return Endpoint(self.ip, port)

    def _free_port(self) -> int:
        if self.kind != "symmetric":
            return next(self._ports)
        while (port := self._chance.randrange(1024, 65536)) in self._in:
            pass
        return port

    def _alive(self, port: int, time: float) -> bool:
        return time - max(self._in[port][1].values(), default=-self.timeout) < self.timeout

    def inbound(self, port: int, remote: Endpoint, time: float) -> Endpoint | None:
        """Where inside a datagram goes, if it may come in."""
        if port not in self._in or not self._alive(port, time):
            return None
        inside, remotes = self._in[port]
        if self.kind == "full":
            return inside
        open_for = {known for known, last in remotes.items() if time - last < self.timeout}
        if self.kind == "address":
            return inside if any(remote.ip == known.ip for known in open_for) else None
        return inside if remote in open_for else None


@dataclass
class Host:
    """A machine with one address, public or behind a NAT."""

    ip: IPv4Address
    nat: Nat | None = None
    sockets: dict[int, Receiver] = field(default_factory=dict)


@dataclass
class Network:
    """Carries datagrams between hosts."""

    clock: Clock
    seed: int = 1
    link: Link = field(default_factory=Link)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.hosts: dict[IPv4Address, Host] = {}
        self.nats: dict[IPv4Address, Nat] = {}
        self.cut: set[frozenset[IPv4Address]] = set()
        """Pairs of (public) addresses between which nothing passes."""
        self.one_way: set[tuple[IPv4Address, IPv4Address]] = set()
        """Source and destination between which nothing passes, though it does the other way round."""
        self.cut_local = False
        """Hosts behind one NAT do not reach each other by their own addresses."""
        self.lose: Callable[[bytes, Endpoint, Endpoint], bool] = lambda datagram, source, to: False
        """Whether what is sent (as `tap` has it) gets lost."""
        self.tap: list[Callable[[bytes, Endpoint, Endpoint], None]] = []
        """Called with everything that is sent: datagram, source as the receiver sees it, destination."""
        self.sent: Counter[Endpoint] = Counter()
        """Datagrams by the endpoint they were sent to."""
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """A fingerprint of everything that was ever sent, and when."""
        return self._trace.hexdigest()

    def add_host(self, ip: str, nat: Nat | None = None) -> Host:
        host = Host(IPv4Address(ip), nat)
        assert host.ip not in self.hosts
        self.hosts[host.ip] = host
        if nat is not None:
            self.nats[nat.ip] = nat
        return host

    def cut_between(self, a: Host, b: Host) -> None:
        self.cut.add(_pair(a, b))

    def mend_between(self, a: Host, b: Host) -> None:
        self.cut.discard(_pair(a, b))

    def send(self, host: Host, port: int, datagram: bytes, to: Endpoint) -> None:
        """A socket sends."""
        assert datagram, "an empty datagram crashes v5 supernodes"
        source = Endpoint(host.ip, port)
        inside = self.hosts.get(to.ip) if isinstance(to.ip, IPv4Address) else None
        if inside is not None and inside.nat is not None:
            if inside.nat is not host.nat or self.cut_local:
                return  # a private address of another network: no route
        elif host.nat is not None:
            if to.ip == host.nat.ip and not host.nat.hairpin:
                return
            source = host.nat.outbound(source, to, self.clock.time)
        self._trace.update(b"%.9f %d %s %s" % (self.clock.time, len(datagram), str(source).encode(), str(to).encode()))
        self._trace.update(datagram)
        self.sent[to] += 1
        for tap in self.tap:
            tap(datagram, source, to)
        if frozenset((source.ip, to.ip)) in self.cut or (source.ip, to.ip) in self.one_way:
            return
        if self.lose(datagram, source, to):
            return
        link = self.link
        for _ in range(2 if self.random.random() < link.duplicates else 1):
            if self.random.random() < link.loss:
                continue
            delay = self.random.uniform(*link.latency)
            if self.random.random() < link.disorder:
                delay += self.random.uniform(0.0, 1.0)
            self.clock.after(delay, lambda: self._deliver(datagram, source, to))

    def _deliver(self, datagram: bytes, source: Endpoint, to: Endpoint) -> None:
        target: Endpoint | None = to
        nat = self.nats.get(to.ip) if isinstance(to.ip, IPv4Address) else None
        if nat is not None:
            target = nat.inbound(to.port, source, self.clock.time)
        if target is None or not isinstance(target.ip, IPv4Address):
            return
        host = self.hosts.get(target.ip)
        if host is None or (host.nat is not nat and not (host.nat is not None and source.ip in self.hosts)):
            return
        receiver = host.sockets.get(target.port)
        if receiver is not None:
            receiver(datagram, source)


def _pair(a: Host, b: Host) -> frozenset[IPv4Address]:
    return frozenset(host.ip if host.nat is None else host.nat.ip for host in (a, b))
