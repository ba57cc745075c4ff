"""The supernode's plane: who may send, to whom it goes, and what reaches Python."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from n2n._fastpath.plane import pack_protov, pack_vfuze
from tests.unit.plane_bench import IP, RelayPlane, Wire, close_all, port_of, udp_socket

A, B, C, Z = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3, 9))
BROADCAST = b"\xff" * 6
RED, BLUE = 0x11111111, 0x22222222


class Net:
    """Three members of one community and one of another, on loopback."""

    def __init__(self, **options: object) -> None:
        self.relay = RelayPlane(**options)
        self.wires = {mac: Wire() for mac in (A, B, C, Z)}
        for mac in (A, B, C):
            self.put(mac)
        self.relay.plane.put_member(BLUE, 1, Z, IP, self.wires[Z].port)

    def put(self, mac: bytes, port: int | None = None) -> None:
        self.relay.plane.put_member(RED, 0, mac, IP, port or self.wires[mac].port)

    def send(self, source: bytes | Wire, datagram: bytes) -> dict[bytes, list[bytes]]:
        """Who got what."""
        wire = self.wires[source] if isinstance(source, bytes) else source
        wire.send(datagram, self.relay.port)
        self.relay.step()
        return {mac: got for mac, w in self.wires.items() if (got := w.take())}


@pytest.fixture
def net() -> Iterator[Net]:
    yield Net()
    close_all()


def flagged(datagram: bytes) -> bytes:
    return datagram[:3] + bytes([datagram[3] | 2]) + datagram[4:]


def test_data_goes_to_its_target_with_the_flag_added_and_nothing_else_changed(net: Net) -> None:
    odd = pack_protov(4, RED, A, B, flags=0xF5, sequence=9, timestamp=1, checksum=7, ttl=0) + b"payload"
    assert net.send(A, odd) == {B: [flagged(odd)]}
    empty = pack_protov(4, RED, A, B)
    assert net.send(A, empty) == {B: [flagged(empty)]}


@pytest.mark.parametrize("dest", [BROADCAST, bytes(6), Z, b"\x02unkno"])
def test_data_without_a_registered_target_goes_to_all_others_of_the_community(net: Net, dest: bytes) -> None:
    data = pack_protov(4, RED, A, dest) + b"payload"
    assert net.send(A, data) == {B: [flagged(data)], C: [flagged(data)]}


def test_pings_go_to_registered_targets_only(net: Net) -> None:
    ping = pack_protov(8, RED, A, B) + b"not even gob"
    assert net.send(A, ping) == {B: [flagged(ping)]}
    assert net.send(A, pack_protov(8, RED, A, Z)) == {}
    assert net.relay.dropped() == {"drop_unknown_target": 1}


def test_vfuze_is_relayed_unchanged_within_the_community_of_its_endpoint(net: Net) -> None:
    short = pack_vfuze(B) + b"payload"
    assert net.send(A, short) == {B: [short]}
    assert net.send(A, pack_vfuze(A) + b"x") == {A: [pack_vfuze(A) + b"x"]}
    for dest in (Z, BROADCAST, b"\x02unkno"):
        assert net.send(A, pack_vfuze(dest) + b"x") == {}
    assert net.send(Wire(), short) == {}
    assert net.relay.dropped() == {"drop_unknown_target": 3, "drop_stranger": 1}


def test_a_moved_member_keeps_its_traffic_and_its_old_endpoint_loses_it(net: Net) -> None:
    moved = Wire()
    net.put(A, moved.port)
    short = pack_vfuze(B) + b"payload"
    assert net.send(A, short) == {}
    assert net.send(moved, short) == {B: [short]}
    assert net.send(B, pack_vfuze(A) + b"x") == {}
    assert moved.take() == [pack_vfuze(A) + b"x"]


def test_who_left_gets_nothing_and_may_send_nothing(net: Net) -> None:
    net.relay.plane.drop_member(RED, 0, B)
    data = pack_protov(4, RED, A, B) + b"payload"
    assert net.send(A, data) == {C: [flagged(data)]}
    assert net.send(B, pack_vfuze(A) + b"x") == {}
    assert net.send(B, pack_protov(4, RED, B, A) + b"payload") == {}
    assert net.relay.plane.receive() == [(pack_protov(4, RED, B, A), IP, net.wires[B].port)]
    for mac in (A, C):
        net.relay.plane.drop_member(RED, 0, mac)
    net.put(B)
    assert net.send(B, pack_protov(4, RED, B, BROADCAST) + b"payload") == {}


def test_unknown_senders_are_reported_by_their_header_and_not_too_often(net: Net) -> None:
    stranger = Wire()
    for datagram in (pack_protov(4, BLUE, A, B), pack_protov(8, RED, Z, B), pack_protov(4, RED, bytes(6), B)):
        assert net.send(stranger, datagram + b"payload") == {}
        assert net.relay.plane.receive() == [(datagram, IP, stranger.port)]
    for _ in range(600):
        stranger.send(pack_protov(4, 7, A, B) + b"x", net.relay.port)
        net.relay.plane.step(20)
    taken = len(net.relay.plane.receive(1000))
    assert taken <= 512  # 256 a second, and a second may turn while this runs
    assert net.relay.dropped() == {"drop_unknown_sender": 600 - taken}


def test_requests_longer_than_any_honest_one_are_dropped(net: Net) -> None:
    for kind in (1, 2, 3, 6, 10, 11, 251):
        net.send(A, pack_protov(kind, RED, A, bytes(6)) + bytes(4097))
        assert net.relay.plane.receive() == []
    assert net.relay.dropped() == {"drop_control_long": 7}
    for datagram in (pack_protov(9, RED, A, bytes(6)) + bytes(60_000), pack_protov(1, RED, A, bytes(6)) + bytes(4096)):
        net.send(A, datagram)
        assert net.relay.plane.receive() == [(datagram, IP, net.wires[A].port)]


def test_control_reaches_python_whole_and_other_types_do_not(net: Net) -> None:
    for kind in (1, 2, 3, 6, 9, 10, 11, 251):
        datagram = pack_protov(kind, RED, A, bytes(6)) + bytes(100)
        assert net.send(A, datagram) == {}
        assert net.relay.plane.receive() == [(datagram, IP, net.wires[A].port)]
    for kind in (0, 5, 7, 12, 13, 99, 252, 253, 255):
        assert net.send(A, pack_protov(kind, RED, A, bytes(6))) == {}
    assert net.relay.plane.receive() == []
    assert net.relay.dropped() == {"drop_type": 9}


@pytest.mark.parametrize(
    ("datagram", "name"),
    [(b"", "drop_empty"), (b"\x51" + B[:5], "drop_short"), (b"\x05", "drop_short"), (b"\x06" * 60, "drop_foreign")],
)
def test_bad_datagrams_are_counted(net: Net, datagram: bytes, name: str) -> None:
    assert net.send(A, datagram) == {}
    assert net.relay.dropped() == {name: 1}


def test_vfuze_can_be_switched_off() -> None:
    net = Net(vfuze=False)
    assert net.send(A, pack_vfuze(B) + b"payload") == {}
    assert net.relay.dropped() == {"drop_vfuze_off": 1}
    close_all()


def test_a_large_community_gets_its_broadcasts_in_several_batches() -> None:
    relay, sender = RelayPlane(), Wire()
    wires = [Wire() for _ in range(150)]
    relay.plane.put_member(RED, 5, A, IP, sender.port)
    for n, wire in enumerate(wires):
        relay.plane.put_member(RED, 5, bytes([6, 0, 0, 0, 0, n]), IP, wire.port)
    data = pack_protov(4, RED, A, BROADCAST) + b"payload"
    sender.send(data, relay.port)
    relay.step()
    assert all(wire.sock.recv(100) == flagged(data) for wire in wires)
    assert relay.plane.counters()["relayed_flood"] == 150
    close_all()


def test_a_flood_at_one_socket_takes_a_batch_of_a_round_and_no_more(net: Net) -> None:
    """Whoever's datagrams come by another socket has a turn in every round."""
    with udp_socket() as further:
        net.relay.plane.add_socket(further.fileno())
        net.relay.plane.step(0)  # it obeys
        for n in range(300):
            net.wires[A].send(pack_vfuze(B) + n.to_bytes(20, "big"), net.relay.port)
        net.wires[C].send(pack_vfuze(B) + b"modest", port_of(further))
        net.relay.plane.step(100)
        got = net.wires[B].take()
        assert pack_vfuze(B) + b"modest" in got
        assert len(got) <= 65
        net.relay.step()
        assert net.relay.plane.counters()["relayed"] == 301
