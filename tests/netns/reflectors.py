"""Finds out with plain UDP sockets what a NAT does: which external endpoints it gives, and whom it lets in."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from n2n.lab.nat import Internet
from n2n.lab.topology import Host

Address = tuple[str, int]
PORT, OTHER_PORT, RELAY_PORT = 3478, 3479, 7777
#: A busy machine answers in this time; what is to be lost is not waited for.
PATIENCE = 20.0
_SETTLE = 0.05


class Socket:
    """One UDP socket of a host."""

    def __init__(self, host: Host, port: int = 0, address: str = "0.0.0.0") -> None:
        with host.entered():
            self.raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.raw.bind((address, port))
        self.raw.settimeout(PATIENCE)
        self.port: int = self.raw.getsockname()[1]
        self._other: list[tuple[bytes, Address]] = []

    def send(self, data: bytes, to: Address) -> None:
        self.raw.sendto(data, to)

    def reflexive(self, server: Address) -> Address:
        """Our endpoint as `server` sees it."""
        self.send(b"?", server)
        while True:
            data, source = self.raw.recvfrom(2000)
            if source == server and data.startswith(b"!"):
                ip, _, port = data[1:].decode().rpartition(":")
                return ip, int(port)
            self._other.append((data, source))

    def receive(self) -> tuple[bytes, Address]:
        """The next datagram that is no answer of a server."""
        return self._other.pop(0) if self._other else self.raw.recvfrom(2000)

    def pending(self, seconds: float = _SETTLE) -> list[tuple[bytes, Address]]:
        """What has arrived and still arrives."""
        found, self._other = self._other, []
        while select.select([self.raw], [], [], seconds)[0]:
            found.append(self.raw.recvfrom(2000))
        return found


class Reflectors:
    """Two public hosts that answer every question with the endpoint it came from, and a stranger."""

    def __init__(self, internet: Internet) -> None:
        one, two = internet.host("one"), internet.host("two")
        self.first: Address = (one.addr, PORT)
        self.neighbour: Address = (one.addr, OTHER_PORT)
        self.second: Address = (two.addr, PORT)
        self.relay: Address = (one.addr, RELAY_PORT)
        self.sockets = {
            self.first: Socket(one, PORT),
            self.neighbour: Socket(one, OTHER_PORT),
            self.relay: Socket(one, RELAY_PORT),
            self.second: Socket(two, PORT),
        }
        self.stranger = Socket(internet.host("stranger"))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        raws = [one.raw for one in self.sockets.values()]
        while not self._ended.is_set():
            for raw in select.select(raws, [], [], 0.1)[0]:
                data, source = raw.recvfrom(2000)
                if data == b"?":
                    raw.sendto(f"!{source[0]}:{source[1]}".encode(), source)

    def __enter__(self) -> Reflectors:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        for one in (*self.sockets.values(), self.stranger):
            one.raw.close()

    def lets_in(self, inside: Socket, sender: Socket, met: Address) -> bool:
        """Whether a datagram of `sender` reaches `inside`, which has asked `met` alone.

        What `met` sends afterwards shows when the other one must have come.
        """
        there = inside.reflexive(met)
        inside.pending(0)
        sender.send(b"let me in", there)
        inside.reflexive(met)
        return b"let me in" in [data for data, _ in inside.pending()]


@dataclass(frozen=True)
class Found:
    """What a NAT does.

    Args:
        mapping: "independent" of whom is written to, or "dependent" on it.
        filtering: who gets in besides endpoints that were written to: "anybody", whoever has such an "address", or
            nobody but those ("endpoint").
        preserved: the external port is the internal one.
        ip: the external address.
    """

    mapping: str
    filtering: str
    preserved: bool
    ip: str


def measure(host: Host, world: Reflectors) -> Found:
    """What stands between `host` and the public segment."""
    with opened(host, 3) as (one, two, three):
        seen = [one.reflexive(server) for server in (world.first, world.neighbour, world.second)]
        filtering = "endpoint"
        if world.lets_in(three, world.sockets[world.neighbour], world.first):
            filtering = "address"
        if world.lets_in(two, world.stranger, world.first):
            filtering = "anybody"
        mapping = "independent" if len(set(seen)) == 1 else "dependent"
        return Found(mapping, filtering, seen[0][1] == one.port, seen[0][0])


@contextlib.contextmanager
def opened(host: Host, count: int = 1) -> Iterator[Sequence[Socket]]:
    """Fresh sockets of a host."""
    sockets = [Socket(host) for _ in range(count)]
    try:
        yield sockets
    finally:
        for one in sockets:
            one.raw.close()
