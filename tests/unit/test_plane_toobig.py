"""A host that sends packets which are too large for a peer's path is told so, as a router would."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.unit.plane_bench import IP, EdgePlane, Wire, close_all
from tests.unit.test_plane_mss import folded

ME, PEER = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2))
FROM, TO = socket.inet_aton("10.1.0.1"), socket.inet_aton("10.1.0.2")
FROM6, TO6 = socket.inet_pton(10, "fd00::1"), socket.inet_pton(10, "fd00::2")
MTU = 1300
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
VIRTIO = struct.Struct("=BBHHHH")


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_all()


def four(
    size: int, *, flags: int = 0x4000, proto: int = UDP, body: bytes = b"", options: bytes = b"", source: bytes = FROM,
    dest: bytes = TO,
) -> bytes:  # fmt: skip
    """An IPv4 packet of `size` bytes."""
    head = 20 + len(options)
    ip = struct.pack(">BBHHHBBH", 0x40 | head >> 2, 0, size, 1, flags, 64, proto, 0) + source + dest + options
    return (ip + body + bytes(range(256)) * 40)[:size]


def six(size: int, *, proto: int = UDP, body: bytes = b"", source: bytes = FROM6, dest: bytes = TO6) -> bytes:
    """An IPv6 packet of `size` bytes."""
    ip = struct.pack(">IHBB", 6 << 28, size - 40, proto, 64) + source + dest
    return (ip + body + bytes(range(256)) * 40)[:size]


def ether(packet: bytes, tags: bytes = b"", *, source: bytes = ME) -> bytes:
    return PEER + source + tags + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


class Bench:
    def __init__(self, mtu: int = MTU, **options: object) -> None:
        self.edge, self.peer = EdgePlane(ME, **options), Wire()
        self.edge.plane.put_peer(PEER, IP, self.peer.port, True)
        self.edge.plane.peer_mtu(PEER, mtu)
        self.edge.plane.step()

    def out(self, frame: bytes) -> tuple[list[bytes], list[bytes]]:
        """What the peer gets, and what the host is told."""
        time.sleep(0.015)  # answers to a peer's path are this far apart
        self.edge.host_sends(frame)
        return [one[7:] for one in self.peer.take()], self.edge.host_receives()

    @property
    def told(self) -> int:
        return self.edge.plane.counters()["told_too_big"]


@pytest.mark.parametrize("tags", [b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x01\x81\x00\x00\x07"])
@pytest.mark.parametrize("options", [b"", bytes(8)])
def test_ipv4_hosts_are_told_and_the_packet_is_sent(tags: bytes, options: bytes) -> None:
    bench = Bench()
    packet = four(MTU + 1 - len(tags), options=options)
    sent, (answer,) = bench.out(ether(packet, tags))
    assert sent == [ether(packet, tags)]
    assert answer[:12] == ME + PEER
    assert answer[12 : 14 + len(tags)] == tags + b"\x08\x00"
    ip = answer[14 + len(tags) :]
    assert folded(ip[:20]) == 0xFFFF
    assert struct.unpack(">BBHHHBB", ip[:10]) == (0x45, 0, len(ip), 0, 0, 64, ICMP)
    assert ip[12:20] == TO + FROM, "from whom it was sent to"
    icmp = ip[20:]
    assert folded(icmp) == 0xFFFF
    assert struct.unpack(">BB2xHH", icmp[:8]) == (3, 4, 0, MTU - len(tags))
    assert icmp[8:] == packet[:512]
    assert bench.told == 1


def test_ipv6_hosts_are_told() -> None:
    bench = Bench()
    packet = six(MTU + 1)
    sent, (answer,) = bench.out(ether(packet))
    assert sent == [ether(packet)]
    assert answer[:14] == ME + PEER + b"\x86\xdd"
    ip = answer[14:]
    assert ip[:40] == struct.pack(">IHBB", 6 << 28, len(ip) - 40, ICMPV6, 64) + TO6 + FROM6
    icmp = ip[40:]
    assert folded(ip[8:40] + struct.pack(">II", len(icmp), ICMPV6) + icmp) == 0xFFFF
    assert struct.unpack(">BB2xI", icmp[:8]) == (2, 0, MTU)
    assert icmp[8:] == packet[:512]


@pytest.mark.parametrize(
    "packet",
    [
        four(MTU),
        six(MTU),
        four(MTU + 1, flags=0),  # routers may fragment it
        four(MTU + 1, flags=0x4001),  # not its beginning
        four(MTU + 1, dest=socket.inet_aton("224.0.0.1")),
        four(MTU + 1, source=socket.inet_aton("240.0.0.1")),
        four(MTU + 1, source=bytes(4)),
        *(four(MTU + 1, proto=ICMP, body=bytes([kind, 0, 0, 0])) for kind in (3, 4, 5, 11, 12)),
        six(MTU + 1, proto=ICMPV6, body=bytes([2, 0, 0, 0])),
        six(MTU + 1, source=bytes(16)),
        six(MTU + 1, source=b"\xff" + bytes(15)),
        six(MTU + 1, dest=b"\xff" + bytes(15)),
        b"\x41" + four(MTU + 1)[1:],
    ],
)  # fmt: skip
def test_nobody_else_is_told(packet: bytes) -> None:
    bench = Bench()
    assert bench.out(ether(packet)) == ([ether(packet)], [])
    assert bench.told == 0


def test_echoes_and_frames_of_others() -> None:
    bench = Bench(bridge=True)
    assert len(bench.out(ether(four(MTU + 1, proto=ICMP, body=b"\x08\0\0\0")))[1]) == 1
    assert len(bench.out(ether(six(MTU + 1, proto=ICMPV6, body=b"\x80\0\0\0")))[1]) == 1
    host = bytes([2, 0, 0, 0, 0, 9])
    assert bench.out(ether(four(MTU + 1), source=host))[1][0][:6] == host, "a host behind the bridge"
    for frame in (
        ether(four(MTU + 1), source=b"\x01" + bytes(5)),
        PEER + ME + b"\x08\x06" + bytes(MTU + 1),
        PEER + ME + b"\x08\x00" + b"\x60" + bytes(MTU),
        PEER + ME + b"\x86\xdd" + b"\x45" + bytes(MTU),
    ):
        assert bench.out(frame) == ([frame], [])


def test_answers_are_bounded_and_nothing_is_told_without_a_limit() -> None:
    bench = Bench()
    time.sleep(0.015)
    began = time.monotonic()
    for _ in range(200):
        bench.edge.host_sends(ether(four(MTU + 1)))
        bench.edge.host_receives()
    assert 1 <= bench.told <= 2 + (time.monotonic() - began) / 0.01
    none = Bench(mtu=0)
    assert none.out(ether(four(4000))) == ([ether(four(4000))], [])
    assert none.told == 0


def test_relayed_frames_and_super_frames() -> None:
    bench, supernode = Bench(vnet_hdr=True), Wire()
    bench.edge.plane.set_supernode(IP, supernode.port)
    bench.edge.plane.put_peer(PEER, IP, bench.peer.port, False)
    tcp = struct.pack(">HHIIBBHHH", 5201, 80, 7, 9, 0x50, 0x10, 512, 0, 0)
    frame = ether(four(5000, proto=TCP, body=tcp))
    for mss, told in ((MTU - 40, 0), (MTU - 39, 1)):
        time.sleep(0.015)
        bench.edge.host_sends(VIRTIO.pack(1, 1, 54, mss, 34, 16) + frame)
        assert len(supernode.take()) == -(-(5000 - 40) // mss)
        assert bench.told == told
    (answer,) = bench.edge.host_receives()
    assert answer[:10] == bytes(10)
    assert answer[10 + 14 + 20 :][:2] == b"\x03\x04"
    assert answer[10 + 14 + 28 :] == frame[14 : 14 + 512]


def test_a_compressing_edge_tells_too() -> None:
    bench = Bench(key=bytes(32), compress=True)
    assert len(bench.out(ether(four(MTU + 1)))[1]) == 1
