"""MSS clamping: which segments, which way, and that nothing else of them changes."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest

from n2n._fastpath.plane import pack_vfuze
from tests.unit.plane_bench import IP, EdgePlane, Wire, close_all

ME, PEER, OTHER = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))
SYN, ACK = 0x02, 0x10
MTU = 1200


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_all()


def folded(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(ip: bytes, size: int) -> bytes:
    if ip[0] >> 4 == 4:
        return ip[12:20] + struct.pack(">HH", 6, size)
    return ip[8:40] + struct.pack(">II", size, 6)


def segment(
    options: bytes,
    *,
    v6: bool = False,
    flags: int = SYN,
    tags: bytes = b"",
    extra: bytes = b"",
    fragment: int = 0,
    body: bytes = b"",
) -> bytes:
    """From behind the MAC addresses on, with a right checksum; `extra`: IPv4 options."""  # fmt: skip
    options += b"\0" * (-len(options) % 4)
    tcp = struct.pack(">HHIIBBHHH", 5201, 80, 7, 9, (20 + len(options)) << 2, flags, 512, 0, 3) + options + body
    if v6:
        ip = (
            struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64)
            + socket.inet_pton(10, "fd00::1")
            + socket.inet_pton(10, "fd00::2")
        )
    else:
        head = 20 + len(extra)
        ip = struct.pack(">BBHHHBBH", 0x40 | head >> 2, 0, head + len(tcp), 1, fragment, 64, 6, 0) + IP + IP + extra
    check = folded(pseudo(ip, len(tcp)) + tcp) ^ 0xFFFF
    return tags + (b"\x86\xdd" if v6 else b"\x08\x00") + ip + tcp[:16] + struct.pack(">H", check) + tcp[18:]


def mss_of(value: int) -> bytes:
    return b"\x02\x04" + struct.pack(">H", value)


def checksum_is_right(content: bytes, tags: int = 0) -> bool:
    at = tags + 2
    head = (content[at] & 15) * 4 if content[at] >> 4 == 4 else 40
    tcp = content[at + head :]
    return folded(pseudo(content[at:], len(tcp)) + tcp) == 0xFFFF


class Bench:
    """An edge with one peer, and a frame's way out and in."""

    def __init__(self, mtu: int = MTU, **options: object) -> None:
        self.edge, self.peer = EdgePlane(ME, **options), Wire()
        self.edge.plane.put_peer(PEER, IP, self.peer.port, True)
        self.edge.plane.peer_mtu(PEER, mtu)
        self.edge.plane.step()

    def out(self, content: bytes, dest: bytes = PEER) -> bytes:
        self.edge.host_sends(dest + ME + content)
        (sent,) = self.peer.take()
        return sent[19:]

    def into(self, content: bytes) -> bytes:
        self.peer.send(pack_vfuze(ME) + ME + PEER + content, self.edge.port)
        (got,) = self.edge.host_receives()
        return got[12:]

    @property
    def clamped(self) -> int:
        return self.edge.plane.counters()["mss_clamped"]


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("flags", [SYN, SYN | ACK])
def test_connections_are_made_to_fit_whoever_begins_them(v6: bool, flags: int) -> None:
    bench = Bench()
    before = segment(mss_of(1380), v6=v6, flags=flags)
    after = segment(mss_of(MTU - (60 if v6 else 40)), v6=v6, flags=flags)
    assert bench.out(before) == after
    assert bench.into(before) == after
    assert bench.clamped == 2


def test_relayed_frames_are_clamped_by_whom_they_name() -> None:
    bench, supernode = Bench(), Wire()
    bench.edge.plane.set_supernode(IP, supernode.port)
    bench.edge.plane.put_peer(PEER, IP, bench.peer.port, False)
    bench.edge.host_sends(PEER + ME + segment(mss_of(1380)))
    assert supernode.take()[0][19:] == segment(mss_of(MTU - 40))
    supernode.send(pack_vfuze(ME) + ME + PEER + segment(mss_of(1380)), bench.edge.port)
    assert bench.edge.host_receives() == [ME + PEER + segment(mss_of(MTU - 40))]


@pytest.mark.parametrize(
    "content",
    [
        segment(mss_of(MTU - 40)),  # fits
        segment(mss_of(536)),
        segment(mss_of(1380), flags=ACK),  # no SYN
        segment(mss_of(1380), fragment=5),  # not the first piece
        segment(b"\x01\x01\x00" + mss_of(1380)),  # behind the end of the options
        segment(b"\x03\x00" + mss_of(1380)),  # an option without a length
        segment(b"\x03\x99" + mss_of(1380)),  # one that is longer than all
        segment(b"\x02\x03\x05\x64"),  # an MSS of another length
        segment(b"\x01\x01\x01\x02"),  # cut off
        segment(b""),
        segment(mss_of(1380))[:40],
        b"\x08\x06" + bytes(40),
        b"\x08\x00" + bytes(40),
        b"\x86\xdd" + bytes(60),
    ],
)  # fmt: skip
def test_everything_else_passes_as_it_is(content: bytes) -> None:
    bench = Bench()
    assert bench.out(content) == content
    assert bench.into(content) == content
    assert bench.clamped == 0


def test_tags_and_ip_options_are_looked_behind() -> None:
    bench = Bench()
    for tags in (b"\x81\x00\x00\x07", b"\x88\xa8\x00\x01\x81\x00\x00\x07"):
        assert bench.out(segment(mss_of(1380), tags=tags)) == segment(mss_of(1160), tags=tags)
    assert bench.out(segment(mss_of(1380), extra=bytes(8))) == segment(mss_of(1160), extra=bytes(8))


def test_without_a_limit_or_for_others_nothing_changes() -> None:
    bench = Bench(mtu=0)
    content = segment(mss_of(1380))
    assert bench.out(content) == content
    bench.edge.plane.peer_mtu(PEER, MTU)
    bench.edge.plane.peer_mtu(OTHER, MTU)  # not known: no harm
    bench.edge.plane.put_peer(OTHER, IP, bench.peer.port, True)
    assert bench.out(content, OTHER) == content
    assert bench.out(content) != content
    bench.edge.plane.peer_mtu(PEER, 0)
    assert bench.out(content) == content
    bench.edge.plane.peer_mtu(PEER, MTU)
    bench.edge.plane.drop_peer(PEER)
    bench.edge.plane.put_peer(PEER, IP, bench.peer.port, True)
    assert bench.out(content) == content, "forgotten with the peer"
    bench.edge.plane.peer_mtu(PEER, 100)
    assert bench.out(content) == content, "no path is so small"
    for wrong in (-1, 65536):
        with pytest.raises(ValueError, match="an MTU has"):
            bench.edge.plane.peer_mtu(PEER, wrong)


def test_a_checksum_that_the_kernel_left_to_us_is_completed_afterwards() -> None:
    bench = Bench(vnet_hdr=True)
    content = segment(mss_of(1380))
    whole = PEER + ME + content
    size = len(content) - 22
    started = whole[:50] + struct.pack(">H", folded(pseudo(content[2:], size))) + whole[52:]
    virtio = struct.pack("=BBHHHH", 1, 0, 0, 0, 34, 16)
    bench.edge.host_sends(virtio + started)
    (sent,) = bench.peer.take()
    assert sent[19:] == segment(mss_of(1160))


def test_checksums_stay_right_wherever_the_option_lies() -> None:
    rng, bench = random.Random(4), Bench(key=bytes(32))
    far = EdgePlane(PEER, key=bytes(32))
    far.plane.put_peer(ME, IP, bench.edge.port, True)
    bench.edge.plane.put_peer(PEER, IP, far.port, True)
    for _ in range(300):
        v6, tags = rng.random() < 0.5, rng.choice([b"", b"\x81\x00\x00\x07"])
        options = b"".join(rng.choice([b"\x01", b"\x04\x02", b"\x03\x03\x07"]) for _ in range(rng.randrange(6)))
        options += mss_of(rng.randrange(1161, 65536)) + b"\x01" * rng.randrange(4) + b"\x08\x0a" + rng.randbytes(8)
        content = segment(options, v6=v6, tags=tags, body=rng.randbytes(rng.randrange(60)))
        assert checksum_is_right(content, len(tags))
        bench.edge.host_sends(PEER + ME + content)
        (got,) = far.host_receives()
        assert checksum_is_right(got[12:], len(tags))
        changed = [n for n, (a, b) in enumerate(zip(content, got[12:], strict=True)) if a != b]
        assert 2 <= len(changed) <= 4
    assert bench.clamped == 300
