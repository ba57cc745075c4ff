"""Further sockets of a plane, and what it tells of traffic: notices, and when frames came straight."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator

import pytest

from n2n._fastpath.group import PlaneGroup
from n2n._fastpath.plane import pack_protov, pack_vfuze
from tests.unit.plane_bench import IP, EdgePlane, RelayPlane, Wire, close_all, port_of, udp_socket

ME, PEER, OTHER = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))
LOOPBACK6 = socket.inet_pton(socket.AF_INET6, "::1")


def frame(dest: bytes, source: bytes, body: bytes = b"x" * 60) -> bytes:
    return dest + source + b"\x08\x00" + body


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def further() -> Iterator[list[socket.socket]]:
    socks = [udp_socket() for _ in range(9)]
    yield socks
    for sock in socks:
        sock.close()


def heard(wire: Wire) -> list[tuple[bytes, int]]:
    """What came, and from which port."""
    got = []
    while select.select([wire.sock], [], [], 0.02)[0]:
        data, address = wire.sock.recvfrom(65535)
        got.append((data, address[1]))
    return got


# ---- further sockets -----------------------------------------------------------------------------


def test_a_peers_frames_leave_by_its_socket_and_come_in_by_every_one(further: list[socket.socket]) -> None:
    edge, peer, other = EdgePlane(ME), Wire(), Wire()
    number = edge.plane.add_socket(further[0].fileno())
    assert number == 1
    edge.plane.put_peer(PEER, IP, peer.port, True, number)
    edge.plane.put_peer(OTHER, IP, other.port, True)
    for body in (b"1" * 60, b"2" * 60):
        edge.tap.send(frame(PEER, ME, body))
        edge.tap.send(frame(OTHER, ME, body))
    edge.plane.step(100)
    assert heard(peer) == [(pack_vfuze(PEER) + frame(PEER, ME, n * 60), port_of(further[0])) for n in (b"1", b"2")]
    assert heard(other) == [(pack_vfuze(OTHER) + frame(OTHER, ME, n * 60), edge.port) for n in (b"1", b"2")]
    ping = pack_protov(8, 77, PEER, ME)
    for port in (edge.port, port_of(further[0])):
        peer.send(pack_vfuze(ME) + frame(ME, PEER), port)
        peer.send(ping, port)
        assert edge.host_receives() == [frame(ME, PEER)]
    assert [data for data, ip, _ in edge.plane.receive() if ip] == [ping, ping]
    assert edge.dropped() == {}


def test_control_leaves_by_the_socket_that_it_is_given_to(further: list[socket.socket]) -> None:
    edge, peer = EdgePlane(ME), Wire()
    number = edge.plane.add_socket(further[0].fileno())
    assert edge.plane.send(b"main", IP, peer.port)
    assert edge.plane.send(b"further", IP, peer.port, number)
    assert heard(peer) == [(b"main", edge.port), (b"further", port_of(further[0]))]


def test_a_socket_that_is_given_back_is_not_touched_and_its_peers_return_to_the_first(
    further: list[socket.socket],
) -> None:
    edge, peer = EdgePlane(ME), Wire()
    numbers = [edge.plane.add_socket(sock.fileno()) for sock in further[:2]]
    edge.plane.put_peer(PEER, IP, peer.port, True, numbers[0])
    edge.plane.drop_socket(numbers[0])
    peer.send(pack_vfuze(ME) + frame(ME, PEER), port_of(further[0]))
    edge.host_sends(frame(PEER, ME))
    assert edge.host_receives() == []
    assert [port for _, port in heard(peer)] == [edge.port]
    assert further[0].recv(1000) == pack_vfuze(ME) + frame(ME, PEER), "it is the caller's again"
    assert edge.plane.add_socket(further[2].fileno()) == numbers[0], "the number is free again"
    for wrong in (0, 5, 9, -1, numbers[0], numbers[0]):
        edge.plane.drop_socket(wrong)
    edge.host_sends(frame(PEER, ME))
    assert [port for _, port in heard(peer)] == [edge.port]


def test_what_is_no_socket_or_no_number_is_refused(further: list[socket.socket]) -> None:
    edge = EdgePlane(ME)
    with open(os.devnull) as no_socket, pytest.raises(OSError, match="is no socket"):
        edge.plane.add_socket(no_socket.fileno())
    with pytest.raises(OSError, match="no IPv4 or IPv6 socket"):
        edge.plane.add_socket(edge.tap.fileno())
    assert [edge.plane.add_socket(sock.fileno()) for sock in further[:8]] == list(range(1, 9))
    with pytest.raises(ValueError, match="room for 8 further sockets"):
        edge.plane.add_socket(further[8].fileno())
    edge.plane.drop_socket(4)
    for wrong in (4, 9, -1):
        with pytest.raises(ValueError, match=f"no socket {wrong}"):
            edge.plane.put_peer(PEER, IP, 1, True, wrong)
        with pytest.raises(ValueError, match=f"no socket {wrong}"):
            edge.plane.send(b"x", IP, 1, wrong)
    assert edge.plane.peer_counters(PEER) is None


def test_a_further_socket_may_be_of_the_other_family() -> None:
    edge, supernode = EdgePlane(ME), Wire()
    edge.plane.set_supernode(IP, supernode.port)
    six, far = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
    with six, far:
        try:
            six.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no IPv6 on loopback")
        far.bind(("::1", 0))
        six.setblocking(False)
        number = edge.plane.add_socket(six.fileno())
        edge.plane.put_peer(PEER, LOOPBACK6, port_of(far), True, number)
        edge.host_sends(frame(PEER, ME))
        assert far.recvfrom(1000)[:2][0] == pack_vfuze(PEER) + frame(PEER, ME)
        assert edge.plane.send(b"x", LOOPBACK6, port_of(far), number)
        far.sendto(pack_vfuze(ME) + frame(ME, PEER), six.getsockname())
        assert edge.host_receives() == [frame(ME, PEER)]
        edge.plane.drop_socket(number)
        edge.host_sends(frame(PEER, ME))
        assert len(supernode.take()) == 1, "the first socket does not reach it: the relay does"
        assert edge.dropped() == {}


def test_a_further_socket_that_somebody_closed_is_counted_once_and_left_alone() -> None:
    edge, gone = EdgePlane(ME), udp_socket()
    number = edge.plane.add_socket(gone.fileno())
    gone.close()
    for _ in range(3):
        edge.plane.step(0)
    assert edge.plane.counters()["recv_error"] == 1
    edge.plane.drop_socket(number)


def test_trains_come_in_by_a_further_socket(further: list[socket.socket]) -> None:
    edge, peer = EdgePlane(ME), Wire()
    edge.plane.add_socket(further[0].fileno())
    edge.plane.put_peer(PEER, IP, peer.port, True, 1)
    edge.plane.step()  # it is polled from the next round on
    sent = [pack_vfuze(ME) + frame(ME, PEER, bytes([n]) * 500) for n in range(8)]
    try:
        peer.sock.setsockopt(17, 103, len(sent[0]))  # UDP_SEGMENT
    except OSError:
        pytest.skip("this kernel knows no UDP_SEGMENT")
    peer.send(b"".join(sent), port_of(further[0]))
    assert edge.host_receives() == [data[7:] for data in sent]
    if edge.plane.features()["gro"]:
        assert edge.plane.counters()["trains_rx"] == 1


def test_a_group_receives_by_its_first_plane_and_sends_by_all(further: list[socket.socket]) -> None:
    first, peer = udp_socket(), Wire()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    second.bind(first.getsockname())
    second.setblocking(False)
    taps = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for pair in taps:
        pair[1].setblocking(False)
    group = PlaneGroup("edge", [first.fileno(), second.fileno()], tap_fds=[tap[1].fileno() for tap in taps], mac=ME)
    number = group.add_socket(further[0].fileno())
    group.put_peer(PEER, IP, peer.port, True, number)
    for host, _ in taps:
        host.send(frame(PEER, ME))
        group.step(100)
    assert [port for _, port in heard(peer)] == [port_of(further[0])] * 2
    peer.send(pack_vfuze(ME) + frame(ME, PEER), port_of(further[0]))
    assert group.planes[1].step(50) == 0, "the other plane leaves it alone"
    assert group.planes[0].step(100) == 1
    figures = group.peer_counters(PEER)
    assert figures is not None
    assert 0 < figures["rx_direct_ns"] == figures["last_rx_ns"]
    assert group.send(b"x", IP, peer.port, number)
    assert sorted(group.receive()) == [(PEER, b"", 0)] * 2, "each plane tells for itself"
    group.drop_socket(number)
    with pytest.raises(ValueError, match="no socket"):
        group.send(b"x", IP, peer.port, number)
    group.planes.clear()
    for sock in (first, second, *(end for pair in taps for end in pair)):
        sock.close()


# ---- what is told of traffic ---------------------------------------------------------------------


def test_frames_for_a_known_peer_are_told_once_a_second() -> None:
    edge, peer = EdgePlane(ME), Wire()
    edge.plane.set_supernode(IP, peer.port)
    edge.plane.put_peer(PEER, IP, peer.port, False)
    edge.plane.put_peer(OTHER, IP, peer.port, True)
    began = time.monotonic()
    for dest in (PEER, PEER, OTHER, PEER, b"\xff" * 6, b"\x02other"):
        edge.host_sends(frame(dest, ME))
    first = edge.plane.receive()
    assert first[:2] == [(PEER, b"", 0), (OTHER, b"", 0)]
    while not (again := edge.plane.receive()):
        edge.host_sends(frame(PEER, ME))
    assert again == [(PEER, b"", 0)]
    assert len(first) > 2 or time.monotonic() - began > 0.98
    assert edge.plane.counters()["notice"] == len(first) + 1
    assert edge.plane.counters()["control"] == 0


def test_a_peer_that_is_put_anew_is_told_of_anew() -> None:
    edge, peer = EdgePlane(ME), Wire()
    edge.plane.put_peer(PEER, IP, peer.port, True)
    edge.host_sends(frame(PEER, ME))
    edge.plane.put_peer(PEER, IP, peer.port, False)
    edge.plane.drop_peer(PEER)
    edge.plane.put_peer(PEER, IP, peer.port, True)
    edge.host_sends(frame(PEER, ME))
    assert edge.plane.receive() == [(PEER, b"", 0)] * 2


def test_a_notice_that_finds_the_ring_full_is_counted() -> None:
    edge, peer = EdgePlane(ME), Wire()
    edge.plane.put_peer(PEER, IP, peer.port, True)
    ping = pack_protov(8, 77, PEER, ME) + bytes(1000)
    while not edge.plane.counters()["drop_control_full"]:
        for _ in range(50):
            peer.send(ping, edge.port)
        edge.plane.step(0)
    for small in range(0, 1000, 8):  # what room is left
        peer.send(ping[: 30 + small], edge.port)
        peer.send(ping[:30], edge.port)
        edge.plane.step(0)
    before = edge.plane.counters()
    edge.host_sends(frame(PEER, ME))
    after = edge.plane.counters()
    assert (after["notice"], after["drop_control_full"]) == (0, before["drop_control_full"] + 1)
    assert after["tx_direct"] == 1
    taken = edge.plane.receive(10_000)
    assert all(ip for _, ip, _ in taken)
    assert {data[:30] for data, _, _ in taken} == {ping[:30]}


def test_when_frames_came_straight_is_told_apart_from_when_any_came() -> None:
    edge, peer, supernode = EdgePlane(ME, key=bytes(32)), Wire(), Wire()
    far = EdgePlane(PEER, key=bytes(32))
    far.plane.put_peer(ME, IP, edge.port, True)
    edge.plane.set_supernode(IP, supernode.port)
    edge.plane.put_peer(PEER, IP, far.port, True)
    far.host_sends(frame(ME, PEER))
    assert edge.host_receives() == [frame(ME, PEER)]
    before = edge.plane.peer_counters(PEER)
    assert before is not None
    assert 0 < before["rx_direct_ns"] == before["last_rx_ns"]
    edge.plane.put_peer(PEER, IP, peer.port, True)
    far.plane.put_peer(ME, IP, peer.port, True)
    while (after := edge.plane.peer_counters(PEER)) is not None and after["last_rx_ns"] <= before["last_rx_ns"]:
        far.host_sends(frame(ME, PEER))
        for sealed in peer.take():
            supernode.send(sealed, edge.port)
            peer.send(sealed[:-1] + bytes([sealed[-1] ^ 1]), edge.port)  # straight, but altered
        edge.host_receives()
    assert after is not None
    assert after["rx_direct_ns"] == before["rx_direct_ns"]
    assert edge.plane.counters()["drop_unsealed"] > 0


def test_a_supernode_gives_no_notices() -> None:
    relay, a, b = RelayPlane(), Wire(), Wire()
    relay.plane.put_member(7, 0, ME, IP, a.port)
    relay.plane.put_member(7, 0, PEER, IP, b.port)
    a.send(pack_vfuze(PEER) + b"x" * 60, relay.port)
    relay.step()
    assert len(b.take()) == 1
    assert relay.plane.receive() == []
    assert relay.plane.counters()["notice"] == 0
