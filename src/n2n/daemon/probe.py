"""The supernode's second UDP socket, where edges ask from which endpoint they are seen.

It carries a few small datagrams per edge and hour, so Python serves it on the event loop; the data plane knows nothing
of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from n2n.types import Endpoint

__all__ = ["ProbeSocket"]

#: Datagrams taken per turn of the loop, so that the others get theirs.
_BATCH: Final = 32
#: Bytes of the longest datagram that is looked at; the rest of a longer one is cut off, and it does not decode.
_LONGEST: Final = 9216


class ProbeSocket:
    """Hands over what comes to a socket, and sends.

    Args:
        sock: bound, non-blocking; closed by its owner, after `stop`.
        receive: called with each datagram and where it came from.
    """

    def __init__(self, sock: socket.socket, receive: Callable[[bytes, Endpoint], None]) -> None:
        self.failures = 0
        """Datagrams that the kernel did not take."""
        self._sock = sock
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def stop(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._sock.fileno())

    def send(self, datagram: bytes, endpoint: Endpoint, *, fresh: bool = False) -> None:
        """Send a datagram; one that the kernel does not take is counted, and lost as on any network.

        Args:
            fresh: from another port of the same address, which the kernel chooses and which is closed at once.
        """
        host = str(endpoint.ip)
        if self._sock.family == socket.AF_INET6 and endpoint.ip.version == 4:
            host = f"::ffff:{host}"
        try:
            if fresh:
                with socket.socket(self._sock.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as once:
                    if self._sock.family == socket.AF_INET6:
                        v6only = self._sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                        once.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
                    once.bind((self._sock.getsockname()[0], 0))
                    once.sendto(datagram, (host, endpoint.port))
            else:
                self._sock.sendto(datagram, (host, endpoint.port))
        except OSError:
            self.failures += 1

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                datagram, sockaddr = self._sock.recvfrom(_LONGEST)
            except OSError:  # nothing more, or an ICMP error about what was sent before
                return
            self._receive(datagram, Endpoint.of_sockaddr(sockaddr))
