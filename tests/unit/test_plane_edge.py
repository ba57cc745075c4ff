"""The edge's plane: what it sends, what it takes, and under which name it drops the rest."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from n2n._fastpath.plane import COUNTERS, Aead, Plane, Zstd, pack_protov, pack_vfuze
from tests.unit.plane_bench import IP, EdgePlane, Wire, close_all, udp_socket

ME = bytes.fromhex("020000000001")
PEER = bytes.fromhex("020000000002")
OTHER = bytes.fromhex("020000000003")
BROADCAST = b"\xff" * 6
KEY = bytes(range(32))


def frame(dest: bytes, source: bytes, body: bytes = b"x" * 60) -> bytes:
    return dest + source + b"\x08\x00" + body


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def supernode() -> Wire:
    return Wire()


@pytest.fixture
def peer() -> Wire:
    return Wire()


def make(supernode: Wire, peer: Wire, *, direct: bool = False, **options: object) -> EdgePlane:
    edge = EdgePlane(ME, **options)
    edge.plane.set_supernode(IP, supernode.port)
    edge.plane.put_peer(PEER, IP, peer.port, direct)
    return edge


def test_unicast_goes_short_to_the_supernode_and_straight_when_direct(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    sent = frame(PEER, ME)
    edge.host_sends(sent)
    assert supernode.take() == [pack_vfuze(PEER) + sent]
    edge.plane.put_peer(PEER, IP, peer.port, True)
    edge.host_sends(sent)
    assert peer.take() == [pack_vfuze(PEER) + sent]
    assert supernode.take() == []
    counters = edge.plane.counters()
    assert (counters["tx_relay"], counters["tx_direct"], counters["udp_tx"]) == (1, 1, 2)


def test_without_vfuze_unicast_carries_the_long_header(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer, vfuze=False, community=0x45FD71AF)
    sent = frame(PEER, ME)
    edge.host_sends(sent)
    (got,) = supernode.take()
    assert got[30:] == sent
    stamp = int.from_bytes(got[22:26], "big")
    assert got[:30] == pack_protov(4, 0x45FD71AF, ME, PEER, sequence=1, timestamp=stamp)


@pytest.mark.parametrize("dest", [BROADCAST, bytes.fromhex("01005e0000fb"), bytes.fromhex("3333000000fb"), OTHER])
def test_what_has_no_known_receiver_goes_as_data_to_the_supernode(supernode: Wire, peer: Wire, dest: bytes) -> None:
    edge = make(supernode, peer, direct=True)
    sent = frame(dest, ME)
    edge.host_sends(sent)
    (got,) = supernode.take()
    assert got[0] == 5
    assert got[2] == 4
    assert got[10:22] == ME + dest
    assert got[30:] == sent
    assert peer.take() == []


def test_sequence_is_shared_with_control_messages(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    assert edge.plane.next_sequence() == 1
    edge.host_sends(frame(BROADCAST, ME))
    assert int.from_bytes(supernode.take()[0][4:6], "big") == 2
    assert edge.plane.next_sequence() == 3


@pytest.mark.parametrize(("sealed", "compress", "vfuze"), list(itertools.product([False, True], repeat=3)))
def test_transforms_both_ways(supernode: Wire, peer: Wire, sealed: bool, compress: bool, vfuze: bool) -> None:
    key = KEY if sealed else None
    edge = make(supernode, peer, direct=True, key=key, compress=compress, vfuze=vfuze)
    head = 7 if vfuze else 30
    for size in (0, 1, 46, 1000, 1420, 9000):
        sent = frame(PEER, ME, os.urandom(size))
        edge.host_sends(sent)
        (got,) = peer.take()
        payload = Aead(KEY).open(got[head:]) if sealed else got[head:]
        assert (Zstd().decompress(payload, 9018) if compress else payload) == sent
        back = frame(ME, PEER, os.urandom(size))
        payload = Zstd().compress(back) if compress else back
        payload = Aead(KEY).seal(payload) if sealed else payload
        peer.send((pack_vfuze(ME) if vfuze else pack_protov(4, 77, PEER, ME)) + payload, edge.port)
        assert edge.host_receives() == [back]
    assert edge.dropped() == {}
    traffic = edge.plane.peer_counters(PEER)
    assert traffic is not None
    assert (traffic["tx_frames"], traffic["rx_frames"]) == (6, 6)


def test_nonces_never_repeat_in_a_plane_nor_between_two(supernode: Wire, peer: Wire) -> None:
    seen = set()
    for _ in range(2):
        edge = make(supernode, peer, direct=True, key=KEY)
        for _ in range(300):
            edge.host_sends(frame(PEER, ME))
            for got in peer.take() if _ % 50 == 49 else []:
                nonce = got[7:19]
                assert nonce not in seen
                seen.add(nonce)
        edge.close()
    assert len(seen) == 600


def drops(edge: EdgePlane, name: str) -> None:
    assert edge.host_receives() == []
    assert edge.dropped() == {name: 1}


def test_strangers_are_dropped_and_counted(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    stranger = Wire()
    stranger.send(pack_vfuze(ME) + frame(ME, PEER), edge.port)
    drops(edge, "drop_stranger")
    edge.plane.allow_source(PEER, IP, stranger.port)
    stranger.send(pack_vfuze(ME) + frame(ME, PEER), edge.port)
    assert edge.host_receives() == [frame(ME, PEER)]
    edge.plane.drop_peer(PEER)
    stranger.send(pack_vfuze(ME) + frame(ME, PEER), edge.port)
    peer.send(pack_vfuze(ME) + frame(ME, PEER), edge.port)
    assert edge.host_receives() == []
    assert edge.dropped() == {"drop_stranger": 3}


def test_further_sources_are_bounded_and_never_taken_from_another_peer(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    second = Wire()
    edge.plane.put_peer(OTHER, IP, second.port, False)
    edge.plane.allow_source(PEER, IP, second.port)
    second.send(pack_vfuze(ME) + frame(ME, OTHER), edge.port)
    assert edge.host_receives() == [frame(ME, OTHER)]
    wires = [Wire() for _ in range(5)]
    for wire in wires:
        edge.plane.allow_source(PEER, IP, wire.port)
    for wire in wires:
        wire.send(pack_vfuze(ME) + frame(ME, PEER), edge.port)
    assert edge.host_receives() == [frame(ME, PEER)] * 4
    assert edge.dropped() == {"drop_stranger": 1}


@pytest.mark.parametrize(
    ("datagram", "name"),
    [
        (b"", "drop_empty"),
        (b"\x51" + ME[:5], "drop_short"),
        (b"\x05" + bytes(28), "drop_short"),
        (b"\x04" + bytes(40), "drop_foreign"),
        (pack_protov(1, 77, PEER, ME), "drop_type"),
        (pack_protov(12, 77, PEER, ME), "drop_type"),
        (pack_protov(99, 77, PEER, ME), "drop_type"),
        (pack_protov(7, 77, PEER, ME), "drop_stranger"),
        (pack_protov(251, 77, PEER, ME) + b"key", "drop_stranger"),
        (pack_protov(253, 77, PEER, ME), "drop_stranger"),
        (pack_protov(8, 77, PEER, ME) + bytes(9187), "drop_control_long"),
        (pack_vfuze(OTHER) + frame(ME, PEER), "drop_destination"),
        (pack_vfuze(ME) + frame(OTHER, PEER), "drop_destination"),
        (pack_protov(4, 77, PEER, ME) + frame(OTHER, PEER), "drop_destination"),
        (pack_vfuze(ME) + frame(BROADCAST, PEER), "drop_destination"),
        (pack_vfuze(ME) + frame(b"\x33\x33aaaa", PEER), "drop_destination"),
        (pack_vfuze(ME), "drop_frame_short"),
        (pack_vfuze(ME) + frame(ME, PEER)[:13], "drop_frame_short"),
        (pack_vfuze(ME) + frame(ME, PEER, bytes(9005)), "drop_frame_long"),
        (pack_vfuze(ME) + frame(ME, ME), "drop_spoofed"),
        (pack_vfuze(ME) + frame(ME, OTHER), "drop_spoofed"),
        (pack_vfuze(ME) + frame(ME, BROADCAST), "drop_spoofed"),
        (pack_protov(4, 77, OTHER, ME) + frame(ME, PEER), "drop_spoofed"),
    ],
)
def test_every_bad_datagram_has_its_own_counter(supernode: Wire, peer: Wire, datagram: bytes, name: str) -> None:
    edge = make(supernode, peer)
    peer.send(datagram, edge.port)
    drops(edge, name)


def test_vfuze_switched_off_is_a_drop(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer, vfuze=False)
    peer.send(pack_vfuze(ME) + frame(ME, PEER), edge.port)
    drops(edge, "drop_vfuze_off")


def test_a_sealed_community_takes_nothing_plain_or_altered(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer, key=KEY)
    good = Aead(KEY).seal(frame(ME, PEER))
    bad = [frame(ME, PEER), b"", b"short", Aead(b"z" * 32).seal(frame(ME, PEER))]
    bad += [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(0, len(good), 7)]
    bad += [good[:i] for i in range(0, len(good), 9)]
    for payload in bad:
        peer.send(pack_vfuze(ME) + payload, edge.port)
    assert edge.host_receives() == []
    edge.host_receives()
    assert edge.dropped() == {"drop_unsealed": len(bad)}
    peer.send(pack_vfuze(ME) + good, edge.port)
    assert edge.host_receives() == [frame(ME, PEER)]


def test_a_decompression_bomb_stops_at_the_frame_limit(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer, compress=True)
    bomb = Zstd().compress(frame(ME, PEER, bytes(10_000_000)))
    assert len(bomb) < 2000
    for payload in (bomb, b"\x28\xb5\x2f\xfd junk", Zstd().compress(frame(ME, PEER)) + b"x"):
        peer.send(pack_vfuze(ME) + payload, edge.port)
    assert edge.host_receives() == []
    assert edge.dropped() == {"drop_zstd": 3}


def test_bridging_lets_other_addresses_pass(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer, bridge=True, vfuze=False)
    sent = frame(bytes.fromhex("02dddddddddd"), bytes.fromhex("02eeeeeeeeee"))
    peer.send(pack_protov(4, 77, PEER, ME) + sent, edge.port)
    assert edge.host_receives() == [sent]
    peer.send(pack_protov(4, 77, PEER, ME) + frame(ME, ME), edge.port)
    drops(edge, "drop_spoofed")


def test_frames_are_dropped_without_a_supernode_and_out_of_bounds(supernode: Wire, peer: Wire) -> None:
    edge = EdgePlane(ME, frame_limit=1514)
    edge.host_sends(frame(PEER, ME))
    assert edge.dropped() == {"drop_no_supernode": 1}
    edge.plane.set_supernode(IP, supernode.port)
    edge.host_sends(b"thirteen....."[:13])
    edge.host_sends(frame(PEER, ME, bytes(1501)))
    assert edge.dropped() == {"drop_no_supernode": 1, "drop_frame_short": 1, "drop_frame_long": 1}
    assert supernode.take() == []


def test_an_ipv6_peer_of_an_ipv4_socket_is_reached_by_the_supernode(supernode: Wire, peer: Wire) -> None:
    edge = EdgePlane(ME)
    edge.plane.set_supernode(IP, supernode.port)
    edge.plane.put_peer(PEER, socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 7777, True)
    edge.host_sends(frame(PEER, ME))
    assert len(supernode.take()) == 1
    assert edge.plane.send(b"x", socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 7777) is False
    assert edge.dropped() == {"drop_no_route": 1}


def test_control_reaches_python_in_order_with_its_source(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    datagrams = [
        pack_protov(kind, 77, PEER, ME) + os.urandom(n) for n, kind in enumerate((7, 8, 10, 11, 251, 252, 253))
    ]
    for datagram in datagrams:
        supernode.send(datagram, edge.port)
    edge.plane.step(100)
    assert edge.plane.receive(3) == [(d, IP, supernode.port) for d in datagrams[:3]]
    assert edge.plane.receive() == [(d, IP, supernode.port) for d in datagrams[3:]]
    assert edge.plane.receive() == []


def test_a_full_control_ring_drops_counts_and_recovers(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    big = pack_protov(10, 77, PEER, ME) + bytes(50_000)
    for _ in range(30):
        supernode.send(big, edge.port)
        edge.plane.step(100)
    taken = edge.plane.receive(100)
    assert {d for d, _, _ in taken} == {big}
    assert 15 <= len(taken) < 30
    assert edge.dropped() == {"drop_control_full": 30 - len(taken)}
    rng = random.Random(7)
    for _ in range(200):  # across the ring's end, with every size
        datagram = pack_protov(10, 77, PEER, ME) + rng.randbytes(rng.randrange(20_000))
        supernode.send(datagram, edge.port)
        edge.plane.step(100)
        assert edge.plane.receive() == [(datagram, IP, supernode.port)]


def test_a_ping_may_have_the_length_of_an_honest_one(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    ping = pack_protov(8, 77, PEER, ME) + bytes(9186)  # a padded one, that measures a path
    peer.send(ping, edge.port)
    edge.plane.step(100)
    assert edge.plane.receive() == [(ping, IP, peer.port)]


def test_random_bytes_never_harm(supernode: Wire, peer: Wire) -> None:
    rng = random.Random(1)
    heads = [b"", b"\x51", b"\x51" + ME, b"\x05", pack_protov(4, 77, PEER, ME), pack_protov(8, 77, PEER, ME)]
    for key in (None, KEY):
        edge = make(supernode, peer, key=key, compress=True)
        for _ in range(3000):
            head = rng.choice(heads)
            peer.send(head + rng.randbytes(rng.randrange(200)), edge.port)
            edge.plane.step(0)
            edge.plane.receive()
        counters = edge.plane.counters()
        assert counters["udp_rx"] == 3000
        accounted = counters["control"] + counters["tap_tx"] + sum(edge.dropped().values())
        assert accounted == 3000
        edge.close()


def test_run_stops_when_told_and_says_when_the_tap_is_gone(supernode: Wire, peer: Wire) -> None:
    edge = make(supernode, peer)
    thread = threading.Thread(target=edge.plane.run)
    thread.start()
    edge.tap.send(frame(PEER, ME))
    assert supernode.sock.fileno() >= 0
    edge.plane.stop()
    thread.join(5)
    assert not thread.is_alive()
    gone = make(supernode, peer)
    gone.tap.close()
    with pytest.raises(OSError, match="data plane stopped"):
        gone.plane.run()


def test_impossible_arguments_are_refused() -> None:
    with udp_socket() as sock:
        fd = sock.fileno()
        for bad in (
            {"role": "router", "udp_fd": fd},
            {"role": "edge", "udp_fd": fd, "mac": ME},
            {"role": "edge", "udp_fd": fd, "tap_fd": 0, "mac": b"12345"},
            {"role": "edge", "udp_fd": fd, "tap_fd": 0, "mac": ME, "key": b"short"},
            {"role": "supernode", "udp_fd": fd, "frame_limit": 70000},
            {"role": "supernode", "udp_fd": fd, "max_peers": 0},
        ):
            with pytest.raises(ValueError, match=r"."):
                Plane(**bad)
        plane = Plane("edge", fd, tap_fd=0, mac=ME, max_peers=2)
        plane.put_peer(ME, IP, 1, False)
        plane.put_peer(PEER, IP, 2, False)
        with pytest.raises(ValueError, match="room for 2"):
            plane.put_peer(OTHER, IP, 3, False)
        plane.drop_peer(PEER)
        plane.put_peer(OTHER, IP, 3, False)
        with pytest.raises(ValueError, match="4 or 16"):
            plane.put_peer(OTHER, b"123", 3, False)
        with pytest.raises(ValueError, match="datagram"):
            plane.send(b"", IP, 3)
    with pytest.raises(OSError, match="no socket"):
        Plane("supernode", 0)


def test_thousands_of_commands_keep_the_tables_right(supernode: Wire, peer: Wire) -> None:
    """Random additions, moves and removals against a dictionary: who is accepted afterwards?"""
    rng = random.Random(3)
    edge = EdgePlane(ME, max_peers=64)
    edge.plane.set_supernode(IP, supernode.port)
    wires = [Wire() for _ in range(24)]
    known: dict[bytes, int] = {}
    macs = [bytes([2, 0, 0, 0, 1, i]) for i in range(48)]
    for _ in range(6000):
        mac = rng.choice(macs)
        if rng.random() < 0.4:
            edge.plane.drop_peer(mac)
            known.pop(mac, None)
        else:
            free = [w.port for w in wires if w.port not in known.values()]
            if not free and mac not in known:
                continue
            known[mac] = rng.choice(free) if free else known[mac]
            edge.plane.put_peer(mac, IP, known[mac], rng.random() < 0.5)
    by_port = {port: mac for mac, port in known.items()}
    for wire in wires:
        wire.send(pack_vfuze(ME) + frame(ME, by_port.get(wire.port, macs[0])), edge.port)
        got = edge.host_receives()
        assert got == ([frame(ME, by_port[wire.port])] if wire.port in by_port else [])
    for mac in macs:
        assert (edge.plane.peer_counters(mac) is None) == (mac not in known)


def test_counters_have_unique_names() -> None:
    assert len(set(COUNTERS)) == len(COUNTERS)
