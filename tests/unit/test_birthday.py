"""Many sockets for one peer: how many, how long, who wins, and that nothing stays open."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from n2n.daemon import birthday
from n2n.daemon.birthday import MOST_SOCKETS, Birthdays
from n2n.proto.actions import Birthday
from n2n.types import Endpoint, MacAddress
from tests.unit.daemon_fakes import FakePlane, until
from tests.unit.plane_bench import Wire, close_all, udp_socket

PEERS = [MacAddress(bytes([2, 0, 0, 0, 0, n])) for n in range(12)]
PEER = PEERS[0]


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    close_all()
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors were left open"


class Bench:
    def __init__(self) -> None:
        self.plane = FakePlane()
        self.won: list[tuple[MacAddress, Endpoint, bytes, int]] = []
        self.refuse_after = 10**9
        self.opened: list[socket.socket] = []
        self.birthdays = Birthdays(self.plane, self.open, self._won, lambda sock: sock.close())

    def open(self, endpoint: Endpoint) -> socket.socket:
        if len(self.opened) >= self.refuse_after:
            raise OSError(24, "Too many open files")
        self.opened.append(udp_socket())
        return self.opened[-1]

    def _won(self, mac: MacAddress, endpoint: Endpoint, datagram: bytes) -> None:
        self.won.append((mac, endpoint, datagram, self.birthdays.socket_for(endpoint)))

    def begin(self, far: Wire, mac: MacAddress = PEER, sockets: int = 40, seconds: float = 30.0) -> Endpoint:
        endpoint = Endpoint.of("127.0.0.1", far.port)
        self.birthdays.begin(Birthday(mac, endpoint, b"hello", sockets, seconds))
        return endpoint

    def live(self) -> list[socket.socket]:
        return [sock for sock in self.opened if sock.fileno() >= 0]


def run(main: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def guarded() -> None:
        bench = Bench()
        await main(bench)
        bench.birthdays.close()
        assert bench.live() == []
        assert bench.plane.sockets == {}
        os.close(bench.plane.event_fd)

    asyncio.run(asyncio.wait_for(guarded(), 20))


def heard(far: Wire) -> list[int]:
    """From which ports the greeting came so far."""
    ports = []
    while True:
        try:
            data, address = far.sock.recvfrom(100)
        except BlockingIOError:
            return ports
        assert data == b"hello"
        ports.append(address[1])


async def met(bench: Bench, far: Wire, mac: MacAddress = PEER, **more: Any) -> Endpoint:
    """Begin, and answer to one of the sockets."""
    before = len(bench.won)
    endpoint = bench.begin(far, mac, **more)
    await until(lambda: (ports := heard(far)) and far.send(b"I hear you", ports[-1]) is None)
    await until(lambda: len(bench.won) > before)
    return endpoint


def test_every_socket_sends_once_and_the_one_that_is_heard_joins_the_plane() -> None:
    async def main(bench: Bench) -> None:
        far = Wire()
        endpoint = bench.begin(far)
        ports: list[int] = []
        await until(lambda: ports.extend(heard(far)) or len(ports) >= 40)
        assert len(set(ports)) == 40
        assert bench.birthdays.socket_for(endpoint) == 0
        far.send(b"I hear you", ports[7])
        await until(lambda: bench.won)
        assert bench.won == [(PEER, endpoint, b"I hear you", 1)]
        (winner,) = bench.live()
        assert winner.getsockname()[1] == ports[7]
        assert bench.plane.sockets == {1: winner.fileno()}
        assert bench.birthdays.counts["birthday_sockets"] == 40
        assert bench.birthdays.counts["birthday_won"] == 1
        bench.birthdays.peer_dropped(PEER)
        assert bench.live() == []
        assert bench.birthdays.socket_for(endpoint) == 0

    run(main)


def test_strangers_do_not_win() -> None:
    async def main(bench: Bench) -> None:
        far, stranger = Wire(), Wire()
        bench.begin(far, sockets=3)
        ports: list[int] = []
        await until(lambda: ports.extend(heard(far)) or len(ports) == 3)
        for port in ports:
            stranger.send(b"I hear you", port)
            stranger.send(b"", port)
        await until(lambda: bench.birthdays.counts["birthday_stranger"] == 6)
        assert bench.won == []
        far.send(b"here", ports[0])
        await until(lambda: bench.won)

    run(main)


def test_the_sockets_are_closed_after_their_time() -> None:
    async def main(bench: Bench) -> None:
        far = Wire()
        bench.begin(far, sockets=100, seconds=0.05)
        assert bench.live()
        await until(lambda: not bench.live())
        assert bench.won == []

    run(main)


def test_opening_is_paced_and_bounded_over_all_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        far = Wire()
        bench.begin(far, PEERS[0], sockets=10_000)
        bench.begin(far, PEERS[1], sockets=10_000)
        assert len(bench.live()) == 2 * 32, "not all in one turn of the loop"
        await until(lambda: len(bench.live()) == MOST_SOCKETS and bench.birthdays.counts["birthday_refused"])
        await asyncio.sleep(0.05)
        assert len(bench.live()) == MOST_SOCKETS

    monkeypatch.setattr(birthday, "_PACE", 0.001)
    run(main)


def test_fewer_will_do_where_the_host_gives_no_more() -> None:
    async def main(bench: Bench) -> None:
        far = Wire()
        bench.refuse_after = 5
        await met(bench, far)
        assert bench.birthdays.counts["birthday_refused"] == 35
        assert len(bench.live()) == 1

    run(main)


def test_without_a_descriptor_to_wait_with_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        def none_left() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(birthday.select, "epoll", none_left)
        bench.begin(Wire())
        assert bench.opened == []
        assert bench.birthdays.counts["birthday_refused"] == 40

    run(main)


def test_another_one_for_the_same_peer_takes_the_place_of_the_first() -> None:
    async def main(bench: Bench) -> None:
        far, other = Wire(), Wire()
        first = await met(bench, far)
        second = await met(bench, other)
        assert (bench.birthdays.socket_for(first), bench.birthdays.socket_for(second)) == (0, 1)
        assert len(bench.live()) == 1
        bench.begin(far)
        bench.begin(far, sockets=2)
        assert len(bench.live()) == 3

    run(main)


def test_where_the_plane_is_full_the_oldest_winner_in_no_use_goes() -> None:
    async def main(bench: Bench) -> None:
        fars = [Wire() for _ in range(10)]
        places = [await met(bench, far, mac, sockets=2) for far, mac in zip(fars[:8], PEERS, strict=False)]
        for mac, place in zip(PEERS[:8], places, strict=True):
            bench.birthdays.peer_put(mac, place, True)
        bench.birthdays.begin(Birthday(PEERS[8], Endpoint.of("127.0.0.1", fars[8].port), b"hello", 2, 30.0))
        await until(lambda: (ports := heard(fars[8])) and fars[8].send(b"I hear you", ports[0]) is None)
        await until(lambda: bench.birthdays.counts["birthday_refused"] == 1)
        assert len(bench.won) == 8, "all are in use: the newcomer is refused"
        bench.birthdays.peer_put(PEERS[3], places[3], False)
        ninth = await met(bench, fars[9], PEERS[9], sockets=2)
        assert bench.birthdays.socket_for(ninth) == 4
        assert bench.birthdays.socket_for(places[3]) == 0

    run(main)


def test_a_winner_whose_path_ended_is_given_up_unless_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our NAT may have moved it, and nobody could tell the peer where to: the first socket is what it knows."""

    async def main(bench: Bench) -> None:
        monkeypatch.setattr(birthday, "_KEPT", 0.05)
        far = Wire()
        endpoint = await met(bench, far)
        bench.birthdays.peer_put(PEER, endpoint, True)
        bench.birthdays.peer_put(PEER, endpoint, False)
        bench.birthdays.peer_put(PEER, endpoint, True)
        await asyncio.sleep(0.2)
        assert bench.birthdays.socket_for(endpoint) == 1, "a cut for a moment"
        bench.birthdays.peer_put(PEER, endpoint, False)
        assert bench.birthdays.socket_for(endpoint) == 1
        await until(lambda: not bench.live())
        assert bench.birthdays.socket_for(endpoint) == 0
        assert bench.plane.sockets == {}

    run(main)


def test_a_winner_that_nothing_comes_of_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        monkeypatch.setattr(birthday, "_PROVEN", 0.05)
        far, other = Wire(), Wire()
        endpoint = await met(bench, far)
        used = await met(bench, other, PEERS[1])
        bench.birthdays.peer_put(PEERS[1], used, True)
        await until(lambda: len(bench.live()) == 1)
        assert bench.birthdays.socket_for(endpoint) == 0
        assert bench.birthdays.socket_for(used) != 0

    run(main)
