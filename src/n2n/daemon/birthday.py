"""Many sockets at once, to meet a peer behind a NAT that gives each destination another port.

Such a NAT opens one more port for each socket. With 256 of them open and the peer trying ports at random, a meeting is
likely after a few hundred tries (the birthday paradox). The socket that hears the peer joins the data plane, the others
are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from n2n.daemon.drive import PlaneLike
from n2n.errors import N2NError
from n2n.proto.actions import Birthday
from n2n.types import Endpoint, MacAddress

__all__ = ["MOST_SOCKETS", "Birthdays"]

#: Sockets open at once for all peers together: below the 1,024 descriptors that a process usually may have.
MOST_SOCKETS: Final = 256
#: Sockets opened in one turn of the loop, and seconds between two turns: 256 in 80 ms.
_STEP: Final = 32
_PACE: Final = 0.01
#: Seconds that sockets wait at most, whatever the core says.
_LONGEST: Final = 60.0
#: Seconds for which a winner is kept whose path is not in use: it may be cut for a moment, or not be proven yet.  After
#: that the peer is reached by the first socket again, of which it knows where it is seen.
_KEPT: Final = 2.0
_PROVEN: Final = 5.0
#: Bytes of the longest datagram that is looked at: a ping (`MAX_CONTROL` of the plane).
_DATAGRAM: Final = 4126
#: Datagrams taken per turn of the loop.
_BATCH: Final = 64


class _Party:
    """The sockets that wait for one peer."""

    def __init__(self, action: Birthday) -> None:
        self.action = action
        self.sockets: dict[int, socket.socket] = {}
        self.wanted = min(action.sockets, MOST_SOCKETS)
        self.poll = select.epoll()
        self.timers: list[asyncio.TimerHandle] = []


class Birthdays:
    """Carries out `Birthday` actions, and keeps the sockets that won.

    Args:
        plane: winners join it.
        open_socket: gives a bound, non-blocking UDP socket at a port of the kernel's choice that reaches the endpoint.
        won: told of the winner: the peer, where it was heard from, and what it said.  From before this call on,
            `socket_for` names the winning socket.
        release: closes a socket that the plane has had.
    """

    def __init__(
        self,
        plane: PlaneLike,
        open_socket: Callable[[Endpoint], socket.socket],
        won: Callable[[MacAddress, Endpoint, bytes], None],
        release: Callable[[socket.socket], None],
    ) -> None:
        self.counts: Counter[str] = Counter(birthday_sockets=0, birthday_won=0, birthday_stranger=0, birthday_refused=0)
        """Sockets opened, winners, datagrams from elsewhere, and sockets that could not be had."""
        self._plane = plane
        self._open_socket = open_socket
        self._won = won
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._parties: dict[MacAddress, _Party] = {}
        self._winners: dict[MacAddress, tuple[Endpoint, int, socket.socket]] = {}
        self._numbers: dict[Endpoint, int] = {}
        self._direct: dict[MacAddress, Endpoint] = {}

    def socket_for(self, endpoint: Endpoint) -> int:
        """Number of the plane's socket by which this endpoint is reached; 0: the first."""
        return self._numbers.get(endpoint, 0)

    def socket_of(self, endpoint: Endpoint) -> socket.socket | None:
        """The winning socket by which this endpoint is reached; None: the first."""
        return next((sock for at, _, sock in self._winners.values() if at == endpoint), None)

    def peer_put(self, mac: MacAddress, endpoint: Endpoint, direct: bool) -> None:
        """The peer's path is this one now: a winner on a path in use is not given up for another.

        One whose path ended is given up soon: our NAT may have moved it, and where to, only the peer could tell.
        """
        before = self._direct.pop(mac, None)
        if direct:
            self._direct[mac] = endpoint
        elif mac in self._winners and before == self._winners[mac][0]:
            self._loop.call_later(_KEPT, self._give_up_unused, mac, self._winners[mac][2])

    def peer_dropped(self, mac: MacAddress) -> None:
        """The peer is gone, and with it what was opened for it."""
        self._direct.pop(mac, None)
        self._end(mac)
        self._give_up(mac)

    def begin(self, action: Birthday) -> None:
        """Open the sockets, and send from each; the first one that hears the peer wins."""
        self._end(action.mac)
        try:
            party = _Party(action)
        except OSError:  # no more descriptors: without a direct path, then
            self.counts["birthday_refused"] += action.sockets
            return
        self._parties[action.mac] = party
        self._loop.add_reader(party.poll.fileno(), self._readable, party)
        party.timers.append(self._loop.call_later(min(action.seconds, _LONGEST), self._end, action.mac))
        self._open_some(party)

    def close(self) -> None:
        """Close everything, the winners too."""
        for mac in tuple(self._parties):
            self._end(mac)
        for mac in tuple(self._winners):
            self._give_up(mac)

    def _open_some(self, party: _Party) -> None:
        for _ in range(_STEP):
            if len(party.sockets) >= party.wanted:
                return
            if not self._open_one(party):
                self.counts["birthday_refused"] += party.wanted - len(party.sockets)
                return
        party.timers.append(self._loop.call_later(_PACE, self._open_some, party))

    def _open_one(self, party: _Party) -> bool:
        if sum(len(one.sockets) for one in self._parties.values()) >= MOST_SOCKETS:
            return False
        try:
            opened = self._open_socket(party.action.endpoint)
        except (OSError, N2NError):  # no more descriptors or ports, or no such address family: fewer will do
            return False
        party.sockets[opened.fileno()] = opened
        party.poll.register(opened.fileno(), select.EPOLLIN)
        self.counts["birthday_sockets"] += 1
        with contextlib.suppress(OSError):  # lost, as on any network
            opened.sendto(party.action.datagram, _sockaddr(opened, party.action.endpoint))
        return True

    def _readable(self, party: _Party) -> None:
        for number, _ in party.poll.poll(0, _BATCH):
            opened = party.sockets[number]
            try:
                datagram, sockaddr = opened.recvfrom(_DATAGRAM)
            except OSError:  # an ICMP error about what was sent
                continue
            if Endpoint.of_sockaddr(sockaddr) != party.action.endpoint:
                self.counts["birthday_stranger"] += 1
                continue
            self._adopt(party, opened, datagram)
            return

    def _adopt(self, party: _Party, winner: socket.socket, datagram: bytes) -> None:
        mac, endpoint = party.action.mac, party.action.endpoint
        party.poll.unregister(winner.fileno())
        del party.sockets[winner.fileno()]
        self._end(mac)
        self._give_up(mac)
        try:
            number = self._join(winner)
        except (OSError, ValueError):
            self.counts["birthday_refused"] += 1
            winner.close()
            return
        self._winners[mac] = endpoint, number, winner
        self._numbers[endpoint] = number
        self.counts["birthday_won"] += 1
        self._loop.call_later(_PROVEN, self._give_up_unused, mac, winner)
        self._won(mac, endpoint, datagram)

    def _join(self, winner: socket.socket) -> int:
        try:
            return self._plane.add_socket(winner.fileno())
        except ValueError:  # it has as many as it takes: the oldest one that is in no use goes
            for mac, (endpoint, _, _) in tuple(self._winners.items()):
                if self._direct.get(mac) != endpoint:
                    self._give_up(mac)
                    return self._plane.add_socket(winner.fileno())
            raise

    def _give_up_unused(self, mac: MacAddress, winner: socket.socket) -> None:
        """Its time is over, unless the peer is reached by it now."""
        held = self._winners.get(mac)
        if held is not None and held[2] is winner and self._direct.get(mac) != held[0]:
            self._give_up(mac)

    def _give_up(self, mac: MacAddress) -> None:
        held = self._winners.pop(mac, None)
        if held is not None:
            endpoint, number, opened = held
            if self._numbers.get(endpoint) == number:
                del self._numbers[endpoint]
            self._plane.drop_socket(number)
            self._release(opened)

    def _end(self, mac: MacAddress) -> None:
        party = self._parties.pop(mac, None)
        if party is None:
            return
        for timer in party.timers:
            timer.cancel()
        self._loop.remove_reader(party.poll.fileno())
        party.poll.close()
        for opened in party.sockets.values():
            opened.close()


def _sockaddr(opened: socket.socket, endpoint: Endpoint) -> tuple[str, int]:
    host = str(endpoint.ip)
    mapped = opened.family == socket.AF_INET6 and endpoint.ip.version == 4
    return (f"::ffff:{host}" if mapped else host), endpoint.port
