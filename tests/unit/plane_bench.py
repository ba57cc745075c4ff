"""Planes on loopback sockets and socket pairs, driven by `step()`: neither root nor a thread is needed."""

from __future__ import annotations

import select
import socket
from typing import Any

from n2n._fastpath.plane import Plane

IP = socket.inet_aton("127.0.0.1")


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)  # cut to what the machine allows
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


OPEN: list[Wire] = []


def close_all() -> None:
    """Close everything that a test opened (the modules that use this bench call it after each test)."""
    while OPEN:
        OPEN.pop().close()


class Wire:
    """One UDP socket on loopback, as a peer that a test plays by hand."""

    def __init__(self) -> None:
        OPEN.append(self)
        self.sock = udp_socket()
        self.port = port_of(self.sock)

    def send(self, data: bytes, to: int) -> None:
        self.sock.sendto(data, ("127.0.0.1", to))

    def take(self) -> list[bytes]:
        got = []
        while select.select([self.sock], [], [], 0.02)[0]:
            got.append(self.sock.recv(65535))
        return got

    def close(self) -> None:
        self.sock.close()


class EdgePlane(Wire):
    """A plane of an edge; `tap` is the host's end of its TAP."""

    def __init__(self, mac: bytes, community: int = 77, **options: Any) -> None:
        super().__init__()
        self.mac = mac
        self.tap, self._tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tap.setblocking(False)
        self._tap.setblocking(False)
        self.plane = Plane(
            "edge", self.sock.fileno(), tap_fd=self._tap.fileno(), mac=mac, community=community, **options
        )

    def host_sends(self, frame: bytes) -> None:
        self.tap.send(frame)
        self.plane.step(100)

    def host_receives(self) -> list[bytes]:
        self.plane.step(20)
        frames = []
        while select.select([self.tap], [], [], 0.0)[0]:
            frames.append(self.tap.recv(65535))
        return frames

    def dropped(self) -> dict[str, int]:
        return {k: v for k, v in self.plane.counters().items() if k.startswith("drop_") and v}

    def close(self) -> None:
        super().close()
        self.tap.close()
        self._tap.close()


class RelayPlane(Wire):
    """A plane of a supernode."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.plane = Plane("supernode", self.sock.fileno(), **options)

    def step(self) -> None:
        while self.plane.step(20):
            pass

    dropped = EdgePlane.dropped
