"""Meeting a peer behind a NAT that gives every destination another port, by trying many ports at once.

Our side is reached at one endpoint, but lets in only what we sent to; theirs opens 256 ports towards us that nobody can
know.  Of n tries at random among 64,512 ports each hits one of 256 with a chance of 1 in 252: after 252 tries 63 % have
met, after 1024 98 %.  (With one port on their side it would be one in 64,512: it is the birthday paradox that helps.)
Some NATs count upwards, so the ports just above the one that the supernode sees come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from math import gcd
from typing import Final

from n2n.types import Endpoint, Instant

__all__ = ["SECONDS", "SOCKETS", "Party", "Spray"]

#: Sockets that the side behind the hard NAT opens, and seconds for which they wait.
SOCKETS: Final = 256
SECONDS: Final = 4.0
#: Ports that the other side tries, in all and at once, and the time between two such bursts: 1000 pings a second, for a
#: second.
_TRIES: Final = 1024
_BURST: Final = 20
_PACE: Final = 0.02
#: Of these, so many just above the port that is known.
_NEAR: Final = 64
_LOWEST: Final = 1024
_PORTS: Final = 65536 - _LOWEST


class Spray:
    """Which ports to try when.

    Args:
        known: where the supernode sees the peer.
        jitter: returns a number in [0, 1), another each time.
        now: when to begin.
    """

    def __init__(self, known: Endpoint, jitter: Callable[[], float], now: Instant) -> None:
        self.due: float | None = now.mono
        """When `take` is to be called next, monotonic seconds; None: all is done."""
        self._ip: IPv4Address | IPv6Address = known.ip
        self._ports = islice(_ports(known.port, int(jitter() * _PORTS), int(jitter() * _PORTS)), _TRIES)

    def take(self, now: Instant) -> list[Endpoint]:
        """Where to send a ping now."""
        if self.due is None or self.due > now.mono:
            return []
        ports = list(islice(self._ports, _BURST))
        self.due = now.mono + _PACE if len(ports) == _BURST else None
        return [Endpoint(self._ip, port) for port in ports]


@dataclass(slots=True)
class Party:
    """An attempt to meet one peer.

    Args:
        check_id: of our pings to its many ports; an answer may come when all is over.
        due: when something is to be done about it, monotonic seconds; None: it is over.
        began: when the sockets were opened, or the first port was tried.
        spray: the ports that are being tried; None: we opened sockets, or all ports were tried.
        opens: we opened sockets.
        tries: how often ports were tried.
        invitation: check id of the invitation that was sent last and is not answered; empty: there is none.
    """

    check_id: str
    due: float | None
    began: float
    spray: Spray | None
    opens: bool
    tries: int = 1
    invitation: str = ""


def _ports(known: int, start: int, step: int) -> Iterator[int]:
    """All ports from 1024 up, each once: those above `known` first, then in an order that jumps about."""
    near = [port for port in range(known + 1, known + 1 + _NEAR) if _LOWEST <= port <= 65535]
    yield from near
    step = max(step, 1)
    while gcd(step, _PORTS) != 1:
        step += 1
    for number in range(_PORTS):
        port = _LOWEST + (start + number * step) % _PORTS
        if port not in near:
            yield port
