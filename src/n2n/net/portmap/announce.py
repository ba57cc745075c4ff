"""Hears routers say that they have started again (RFC 6886, 3.2.1; RFC 6887, 14.1), so that nobody has to ask soon."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

__all__ = ["Announcements"]

#: Where routers tell it: all hosts of the network, at the clients' port.
_GROUP: Final = "224.0.0.1"
_PORT: Final = 5350
_VERSIONS: Final = (0, 2)  # NAT-PMP, PCP
_ANSWER: Final = 128  # to the question for the address (NAT-PMP) and to ANNOUNCE (PCP): operation 0
#: Seconds between two that are told: a router repeats itself, and anybody in the network can say it in its name.
_GAP: Final = 1.0
_BATCH: Final = 16
_LARGEST: Final = 1101


class Announcements:
    """Listens on one interface as long as it is open.

    What comes is only a reason to ask the router, never believed.

    Args:
        router: whose words count.
        source: our address in its network.
        heard: called when it said something, at most once a second.
    """

    def __init__(self, router: IPv4Address, source: IPv4Address, heard: Callable[[], None]) -> None:
        self._router = str(router)
        self._heard = heard
        self._last = -_GAP
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # several edges on one host
            self._sock.bind((_GROUP, _PORT))
            membership = socket.inet_aton(_GROUP) + source.packed
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            self._loop.add_reader(self._sock.fileno(), self._readable)
        except OSError:  # the port is another program's: a restart is noticed at the next check
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        """Listen no more; may be called more than once."""
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if self._sock is None:
                return
            with contextlib.suppress(ConnectionError):
                try:
                    datagram, sender = self._sock.recvfrom(_LARGEST)
                except BlockingIOError:
                    return
                now = time.monotonic()
                said = len(datagram) >= 2 and datagram[0] in _VERSIONS and datagram[1] == _ANSWER
                if said and sender[0] == self._router and now - self._last >= _GAP:
                    self._last = now
                    self._heard()
