"""Several planes with threads of their own that look like one: nothing lost, nothing twice, order kept."""

from __future__ import annotations

import os
import select
import socket
import threading
import time

import pytest

from n2n._fastpath.group import PlaneGroup
from n2n._fastpath.plane import pack_protov, pack_vfuze
from tests.unit.plane_bench import IP, Wire, close_all, port_of

ME, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
THREADS = 4  # more than the smallest machine has cores


def sockets() -> list[socket.socket]:
    out: list[socket.socket] = []
    for _ in range(THREADS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port_of(out[0]) if out else 0))
        sock.setblocking(False)
        out.append(sock)
    return out


def wait_for(what: str, condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_a_relay_on_four_threads_keeps_each_senders_order() -> None:
    socks = sockets()
    relay = PlaneGroup("supernode", [sock.fileno() for sock in socks])
    target, senders = Wire(), [Wire() for _ in range(12)]
    relay.put_member(7, 0, PEER, IP, target.port)
    for n, sender in enumerate(senders):
        relay.put_member(7, 0, bytes([2, 0, 0, 0, 1, n]), IP, sender.port)
    thread = threading.Thread(target=relay.run)
    thread.start()
    got: dict[int, list[int]] = {n: [] for n in range(len(senders))}
    try:
        for round_ in range(40):
            for n, sender in enumerate(senders):
                for k in range(5):
                    sender.send(pack_vfuze(PEER) + bytes([n]) + (5 * round_ + k).to_bytes(2, "big"), port_of(socks[0]))
            for _ in range(5 * len(senders)):
                assert select.select([target.sock], [], [], 5)[0]
                data = target.sock.recv(100)
                got[data[7]].append(int.from_bytes(data[8:10], "big"))
        busy = sum(plane.counters()["relayed"] > 0 for plane in relay.planes)
    finally:
        relay.stop()
        thread.join(5)
        close_all()
        for sock in socks:
            sock.close()
    assert not thread.is_alive()
    assert all(order == list(range(200)) for order in got.values())
    assert relay.counters()["relayed"] == 200 * len(senders)
    assert busy > 1


def test_commands_control_and_figures_of_all_come_together() -> None:
    socks = sockets()
    relay = PlaneGroup("supernode", [sock.fileno() for sock in socks])
    thread = threading.Thread(target=relay.run)
    thread.start()
    wires = [Wire() for _ in range(16)]
    try:
        for n, wire in enumerate(wires):
            wire.send(pack_protov(1, 7, ME, bytes(6)) + bytes([n]), port_of(socks[0]))
        got: list[tuple[bytes, bytes, int]] = []
        while len(got) < len(wires):
            assert select.select([relay.event_fd], [], [], 5)[0]
            got += relay.receive(3)
        assert {data[30] for data, _, _ in got} == set(range(16))
        assert {port for _, _, port in got} == {wire.port for wire in wires}
        relay.put_member(7, 0, ME, IP, wires[0].port)
        wires[0].send(pack_vfuze(ME) + b"x", port_of(socks[0]))
        wait_for("relayed", lambda: (relay.peer_counters((7, 0, ME)) or {}).get("tx_frames") == 1)
        relay.drop_member(7, 0, ME)
        assert relay.peer_counters((7, 0, ME)) is None
        assert relay.features()["threads"] == THREADS
    finally:
        relay.stop()
        thread.join(5)
        close_all()
        for sock in socks:
            sock.close()


def test_the_end_of_one_ends_all_and_is_told() -> None:
    socks = sockets()
    taps = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in socks]
    for pair in taps:
        pair[1].setblocking(False)
    group = PlaneGroup("edge", [s.fileno() for s in socks], tap_fds=[t[1].fileno() for t in taps], mac=ME)
    fault: list[OSError] = []

    def run() -> None:
        try:
            group.run()
        except OSError as error:
            fault.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    taps[2][0].close()
    thread.join(5)
    assert not thread.is_alive()
    assert "data plane stopped" in str(fault[0])
    for sock in [*socks, *(s for pair in taps for s in pair)]:
        sock.close()


def test_an_edge_sends_from_every_queue_and_takes_from_every_socket() -> None:
    socks = sockets()
    taps = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in socks]
    for pair in taps:
        pair[1].setblocking(False)
    group = PlaneGroup(
        "edge", [s.fileno() for s in socks], tap_fds=[t[1].fileno() for t in taps], mac=ME, key=bytes(32)
    )
    peer = Wire()
    group.put_peer(PEER, IP, peer.port, True)
    nonces = set()
    for n, (host, _) in enumerate(taps):
        host.send(PEER + ME + b"\x08\x00" + bytes([n]) + os.urandom(50))
        group.step(100)
        nonces.add(peer.take()[0][7:19])
    assert len(nonces) == THREADS
    assert group.counters()["tx_direct"] == THREADS
    assert group.next_sequence() == 1
    group.planes.clear()
    close_all()
    for sock in [*socks, *(s for pair in taps for s in pair)]:
        sock.close()


def test_queues_and_sockets_must_match() -> None:
    with pytest.raises(ValueError, match="do not go with"):
        PlaneGroup("edge", [1, 2], tap_fds=[3], mac=ME)
    with pytest.raises(OSError, match="no socket"):
        PlaneGroup("supernode", [0])
