"""Datagrams that must not be fragmented, and sockets whose datagrams may be."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from n2n.types import Endpoint

__all__ = ["let_fragment", "send_whole"]

# linux/in.h and linux/in6.h; Python 3.11 has no names for them.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_DONT: Final = 0
"""IPv4: fragments are made where they are needed, by routers too, whatever is known of the path."""
_WANT: Final = 1
"""Fragments are made here, by what ICMP has told of the path (IPv6 routers make none)."""
_PROBE: Final = 3
"""No fragments, and what is known of the path does not count."""


def let_fragment(sock: socket.socket) -> None:
    """Let routers fragment what does not fit their links: where their ICMP messages are lost, nothing else helps.

    IPv6 knows no such thing, and the call changes nothing there.

    >>> with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    ...     let_fragment(opened)
    """
    with contextlib.suppress(OSError):  # an AF_INET6 socket without IPv4
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DONT)


def send_whole(sock: socket.socket, datagram: bytes, endpoint: Endpoint) -> bool:
    """Send a datagram that nobody may fragment.

    What other threads send by the same socket in these microseconds is not fragmented either.

    Returns:
        False where the kernel did not take it: it is larger than the MTU of the interface, or there is no way.

    >>> with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    ...     opened.bind(("127.0.0.1", 0))
    ...     send_whole(opened, bytes(100), Endpoint.of_sockaddr(opened.getsockname()))
    True
    """
    six = endpoint.ip.version == 6
    level, option = (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER) if six else (socket.IPPROTO_IP, _IP_MTU_DISCOVER)
    host = str(endpoint.ip)
    mapped = not six and sock.family == socket.AF_INET6
    try:
        sock.setsockopt(level, option, _PROBE)
        try:
            sock.sendto(datagram, (f"::ffff:{host}" if mapped else host, endpoint.port))
        finally:
            sock.setsockopt(level, option, _WANT if six else _DONT)
    except OSError:
        return False
    return True
