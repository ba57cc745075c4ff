"""Planes in their own threads, under traffic, while several Python threads command, ask and send at once.

Right results at the end are what is tested here; `scripts/sanitize` runs the same under ThreadSanitizer, which sees
every access that two threads make without an order.
"""

from __future__ import annotations

import itertools
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from n2n._fastpath.group import PlaneGroup
from n2n._fastpath.plane import Plane, pack_protov, pack_vfuze
from tests.unit.plane_bench import IP, EdgePlane, RelayPlane, Wire, close_all, port_of

A, B, ME = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))
RED = 7
CHURNS = 10_000  # commands that each thread gives
PACKETS = 5000
PORTS = range(1000, 9000)  # below those that the kernel gives to the sockets here


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_all()


class Crew:
    """Threads that start together; the first error of any is raised at the end."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self.over = threading.Event()

    def add(self, work: Callable[..., object], *args: object) -> None:
        def guarded() -> None:
            try:
                work(*args)
            except BaseException as error:
                self.errors.append(error)

        self.threads.append(threading.Thread(target=guarded))

    def until_over(self, work: Callable[[], object]) -> None:
        """A thread that does this again and again."""

        def again() -> None:
            while not self.over.wait(0.0005):
                work()

        self.add(again)

    def work(self, main: Callable[[], None]) -> None:
        """`main` in this thread beside all others; its end ends those that go on until it is over."""
        for thread in self.threads:
            thread.start()
        try:
            main()
        finally:
            self.over.set()
            for thread in self.threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads)
        if self.errors:
            raise self.errors[0]


class Running:
    """Runs a plane or a group in a thread."""

    def __init__(self, plane: Plane | PlaneGroup) -> None:
        self.plane = plane
        self.thread = threading.Thread(target=plane.run)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.plane.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


def numbered(source: Callable[[bytes], object], target: socket.socket, head: bytes) -> None:
    """Send numbers in small bursts; each arrives, once, in order."""
    for first in range(0, PACKETS, 10):
        for number in range(first, first + 10):
            source(head + number.to_bytes(4, "big"))
        for number in range(first, first + 10):
            assert select.select([target], [], [], 20)[0], f"number {number} was lost"
            assert int.from_bytes(target.recv(100)[-4:], "big") == number


def churn_members(relay: Any, known: dict[bytes, int], seed: int) -> None:
    """Add, move and remove members that only this thread knows."""
    rng = random.Random(seed)
    for _ in range(CHURNS):
        mac = bytes([2, 0, 0, 0, seed, rng.randrange(8)])
        if rng.random() < 0.4:
            relay.drop_member(RED, 0, mac)
            known.pop(mac, None)
        else:
            known[mac] = rng.choice(PORTS)
            relay.put_member(RED, 0, mac, IP, known[mac])
        figures = relay.peer_counters((RED, 0, mac))
        assert (figures is None) == (mac not in known)


def sockets(count: int) -> list[socket.socket]:
    out: list[socket.socket] = []
    for _ in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port_of(out[0]) if out else 0))
        sock.setblocking(False)
        out.append(sock)
    return out


def test_a_relay_group_under_traffic_and_commands_from_everywhere() -> None:
    socks = sockets(2)
    relay = PlaneGroup("supernode", [sock.fileno() for sock in socks], max_peers=64)
    port = port_of(socks[0])
    a, b, speaker, listener = (Wire() for _ in range(4))
    relay.put_member(RED, 0, A, IP, a.port)
    relay.put_member(RED, 0, B, IP, b.port)
    crew = Crew()
    known: list[dict[bytes, int]] = [{}, {}, {}]
    told: list[bytes] = []
    for number, macs in enumerate(known):
        crew.add(churn_members, relay, macs, number + 1)
    crew.until_over(lambda: (relay.counters(), relay.features(), relay.peer_counters((RED, 0, B))))
    crew.until_over(lambda: told.extend(data for data, _, _ in relay.receive(7)))
    crew.until_over(lambda: relay.send(b"from Python", IP, listener.port) or pytest.fail("not sent"))
    numbers = iter(range(10**9))
    crew.until_over(lambda: speaker.send(pack_protov(1, RED, A, B) + next(numbers).to_bytes(4, "big"), port))
    with Running(relay):
        crew.work(lambda: numbered(lambda data: a.send(data, port), b.sock, pack_vfuze(B)))
    relay.step()
    told += [data for data, _, _ in relay.receive(100_000)]
    said = next(numbers)
    assert sorted(int.from_bytes(data[30:], "big") for data in told) == list(range(said))
    figures = relay.peer_counters((RED, 0, B))
    assert figures is not None
    assert figures["tx_frames"] == PACKETS
    assert relay.counters()["relayed"] == PACKETS
    # Who is a member now?  All planes must agree with the threads that gave the commands.
    final = {mac for macs in known for mac in macs}
    for seed in range(1, 4):
        for index in range(8):
            mac = bytes([2, 0, 0, 0, seed, index])
            a.send(pack_vfuze(mac) + b"?", port)
            assert (relay.peer_counters((RED, 0, mac)) is not None) == (mac in final)
    before = relay.counters()
    while sum(relay.counters()[k] - before[k] for k in ("relayed", "drop_unknown_target")) < 24:
        assert relay.step(5000)
    assert relay.counters()["relayed"] - before["relayed"] == len(final)
    for sock in socks:
        sock.close()


def churn_peers(edge: Plane, known: dict[bytes, int], seed: int, ports: list[int]) -> None:
    rng = random.Random(seed)
    for _ in range(CHURNS):
        mac = bytes([2, 0, 0, 0, seed, rng.randrange(4)])
        if rng.random() < 0.3:
            edge.drop_peer(mac)
            known.pop(mac, None)
        else:
            known[mac] = rng.choice(ports)
            edge.put_peer(mac, IP, known[mac], rng.random() < 0.5)
            edge.allow_source(mac, IP, rng.choice(PORTS))
        edge.peer_counters(mac)


def churn_sockets(edge: Plane, known: dict[bytes, int], mac: bytes, far: Wire) -> None:
    """Add a socket, reach a peer by it, give it back and close it: its descriptor may be anybody's at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        number = edge.add_socket(sock.fileno())
        known[mac] = far.port
        edge.put_peer(mac, IP, far.port, True, number)
        assert edge.send(b"from Python", IP, far.port, number)
        far.send(b"junk", port_of(sock))
        edge.drop_socket(number)


def churn_loads(edge: EdgePlane, other: EdgePlane, turn: int) -> None:
    """Measure from one to the other, in a window of its own, which another turn may have closed already."""
    token = turn.to_bytes(8, "big")
    other.plane.load_open(ME, token, 1, 1 << 20)
    for kind in (1, 2):
        datagram = pack_protov(8, 77, ME, B) + b"n2n load" + bytes([kind]) + token + bytes(40)
        edge.plane.load_open(B, token, 1, 1 << 20)
        assert edge.plane.load_send(datagram, IP, other.port, 0, first=0, count=3, rate=1e6, seconds=0.5)[0] == 3
        other.plane.load_look()
        edge.plane.load_arrivals()
    (edge if turn % 2 else other).plane.load_close()


def test_an_edge_under_traffic_and_commands_from_everywhere() -> None:
    key = bytes(range(32))
    edge, peer, other = EdgePlane(ME, key=key, max_peers=16), Wire(), EdgePlane(B, key=key)
    supernodes = [Wire(), Wire()]
    edge.plane.put_peer(B, IP, other.port, True)
    other.plane.put_peer(ME, IP, edge.port, True)
    crew = Crew()
    known: list[dict[bytes, int]] = [{}, {}, {}]
    far, told = Wire(), []
    sequence: list[int] = []
    turns = iter(range(10**9))
    for number, macs in enumerate(known[:2]):
        crew.add(churn_peers, edge.plane, macs, number + 1, [9001 + number, 9011 + number])
    crew.until_over(lambda: edge.plane.set_supernode(IP, supernodes[next(turns) % 2].port))
    crew.until_over(lambda: (edge.plane.counters(), edge.plane.features(), edge.plane.peer_counters(B)))
    crew.until_over(lambda: told.extend(mac for mac, ip, _ in edge.plane.receive() if not ip))
    crew.until_over(lambda: churn_sockets(edge.plane, known[2], bytes([2, 0, 0, 0, 3, 0]), far))
    crew.until_over(lambda: churn_sockets(edge.plane, known[2], bytes([2, 0, 0, 0, 3, 1]), far))
    crew.until_over(lambda: sequence.append(edge.plane.next_sequence()))
    for _ in range(2):
        crew.until_over(lambda: churn_loads(edge, other, next(turns)))
    crew.until_over(lambda: edge.plane.send(b"from Python", IP, peer.port))
    head = B + ME + b"\x08\x00"
    back = ME + B + b"\x08\x00"
    flood = b"\xff" * 6 + ME + b"\x08\x06" + bytes(20)

    def traffic() -> None:
        edge.tap.setblocking(True)
        other.tap.setblocking(True)
        edge.plane.set_supernode(IP, supernodes[0].port)
        for _ in range(50):
            edge.tap.send(flood)
        numbered(edge.tap.send, other.tap, head)
        numbered(other.tap.send, edge.tap, back)

    with Running(edge.plane), Running(other.plane):
        crew.work(traffic)
    figures = edge.plane.peer_counters(B)
    assert figures is not None
    assert (figures["tx_frames"], figures["rx_frames"]) == (PACKETS, PACKETS)
    assert set(edge.dropped()) <= {"drop_foreign", "drop_load"}
    assert other.plane.counters()["load_rx"] > 0
    assert B in told
    flooded = [int.from_bytes(data[4:6], "big") for wire in supernodes for data in wire.take()]
    assert len(flooded) == 50
    # The plane's own packets and Python's share one counter.
    assert sorted(flooded + sequence) == list(range(1, len(flooded + sequence) + 1))
    for seed, macs in enumerate(known, 1):
        for index in range(4):
            mac = bytes([2, 0, 0, 0, seed, index])
            assert (edge.plane.peer_counters(mac) is not None) == (mac in macs)


def test_commands_beyond_the_ring_while_the_plane_starts() -> None:
    """Whoever finds the ring full empties it himself, unless the plane's thread does: never both."""
    relay = RelayPlane(max_peers=128)
    sender, wires = Wire(), [Wire() for _ in range(4)]
    relay.plane.put_member(RED, 0, A, IP, sender.port)
    crew, running = Crew(), Running(relay.plane)
    half = threading.Barrier(5)

    def many(number: int) -> None:
        mac = bytes([2, 0, 0, 0, 9, number])
        for turn in range(4000):
            if turn == 1500:
                half.wait(30)
            relay.plane.put_member(RED, 0, mac, IP, turn + 1)
            if turn % 3 == 0:
                relay.plane.drop_member(RED, 0, mac)
        relay.plane.put_member(RED, 0, mac, IP, wires[number].port)

    def start() -> None:
        half.wait(30)
        running.__enter__()

    for number in range(4):
        crew.add(many, number)
    try:
        crew.work(start)
        for number, wire in enumerate(wires):
            data = pack_vfuze(bytes([2, 0, 0, 0, 9, number])) + b"!"
            sender.send(data, relay.port)
            assert select.select([wire.sock], [], [], 20)[0]
            assert wire.sock.recv(100) == data
    finally:
        running.__exit__()
    assert relay.dropped() == {}


def test_a_second_thread_is_refused() -> None:
    relay = RelayPlane()
    with Running(relay.plane):
        for step in itertools.repeat(relay.plane.step):  # until the thread has begun
            try:
                step()
            except RuntimeError as error:
                assert "running in its own thread" in str(error)  # noqa: PT017
                break
        with pytest.raises(RuntimeError, match="already running"):
            relay.plane.run()
