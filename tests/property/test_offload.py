"""Segmenting and gluing against the plain reference: a kernel must see exactly the frames that were sent.

The planes run for real, on socket pairs that play TAPs with virtio headers and on loopback UDP.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from n2n._fastpath.plane import pack_vfuze
from tests.property import packets as k
from tests.property.packets import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Packet, kernel_sees
from tests.unit.plane_bench import IP, EdgePlane, Wire, close_all

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Pair:
    """The receiving edge, fed by hand as its peer A, and the sending edge, read by hand as its peer B."""

    def __init__(self, **options: object) -> None:
        self.peer = Wire()
        self.edge = EdgePlane(B, vnet_hdr=True, **options)
        self.edge.plane.put_peer(A, IP, self.peer.port, True)
        self.sender = EdgePlane(A, vnet_hdr=True, **options)
        self.sender.plane.put_peer(B, IP, self.peer.port, True)

    def receive(self, frames: list[bytes]) -> list[bytes]:
        """Give frames to the edge in one batch; what it wrote to its TAP."""
        for frame in frames:
            self.peer.send(pack_vfuze(B) + frame, self.edge.port)
        return self.edge.host_receives()

    def cut(self, super_frame: bytes) -> list[bytes]:
        """Give a super-frame to the sender's TAP; the frames on the wire."""
        self.sender.tap.send(super_frame)
        self.sender.plane.step(100)
        wire = self.peer.take()
        assert all(d.startswith(pack_vfuze(B)) for d in wire)
        return [d[7:] for d in wire]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    yield Pair()
    close_all()


def packets(**fixed: object) -> st.SearchStrategy[Packet]:
    def build(draw: st.DrawFn) -> Packet:
        v6 = draw(st.booleans())
        values: dict[str, object] = {
            "v6": v6,
            "proto": draw(st.sampled_from([6, 6, 6, 17])),
            "payload": draw(st.binary(min_size=64, max_size=64)) * draw(st.integers(1, 60)),
            "ports": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "seq": draw(st.sampled_from([0, 1, 0xFFFFFF00, draw(st.integers(0, 2**32 - 1))])),
            "ack": draw(st.integers(0, 2)),
            "flags": draw(st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | ECE, ACK | CWR, ACK | PSH | FIN | CWR])),
            "options": draw(st.sampled_from([b"", b"\1\1\1\1", b"\1\1\x08\x0a12345678"])),
            "ttl": draw(st.sampled_from([64, 63])),
            "tos": draw(st.sampled_from([0, 2])),
            "ident": draw(st.integers(0, 65535)),
            "df": draw(st.booleans()),
            "host": draw(st.integers(1, 2)),
        }
        return Packet(B, A, **(values | fixed))  # type: ignore[arg-type]

    return st.composite(build)()


@SETTINGS
@given(packets(), st.integers(32, 1400), st.booleans())
def test_cutting_gives_what_a_kernel_would(pair: Pair, packet: Packet, mss: int, tagged: bool) -> None:
    packet = replace(packet, vlan=7 if tagged else None)
    assert pair.cut(packet.super_frame(mss)) == packet.cut(mss)


def test_cutting_the_largest_super_frames(pair: Pair) -> None:
    body = random.Random(5).randbytes(65_000)
    for v6 in (False, True):
        for mss in (1448, 1380, 8000, 536, 8900):
            big = Packet(B, A, body, v6=v6, options=b"\1\1\x08\x0a12345678", flags=ACK | PSH | FIN | CWR)
            assert pair.cut(big.super_frame(mss)) == big.cut(mss)
        big = Packet(B, A, body[:40_000], v6=v6, proto=17)
        assert pair.cut(big.super_frame(1372)) == big.cut(1372)
    ext = Packet(B, A, body, v6=True, ext=bytes([0, 0, 1, 4, 0, 0, 0, 0]))
    assert pair.cut(ext.super_frame(1400)) == ext.cut(1400)


def test_super_frames_that_make_no_sense_are_dropped(pair: Pair) -> None:
    good = Packet(B, A, bytes(3000)).super_frame(1000)
    before = pair.sender.plane.counters()["drop_super"]
    bad = []
    for change in range(8):
        flags, kind, head, mss, start, offset = k.VIRTIO.unpack(good[:10])
        values = [
            (flags, 9, head, mss, start, offset),
            (flags, kind, head, 0, start, offset),
            (flags, kind, head, mss, 3, offset),
            (flags, kind, head, mss, 65000, offset),
            (flags, kind, head, mss, start, 7),
            (flags, k.UDP_L4, head, mss, start, offset),
            (flags, 0, head, mss, 4000, offset),
            (flags, 0, head, mss, start, 65000),
        ][change]
        bad.append(k.VIRTIO.pack(*values) + good[10:])
    for frame in bad:
        assert pair.cut(frame) == []
    assert pair.sender.plane.counters()["drop_super"] == before + len(bad)


def split(frames: list[bytes]) -> dict[bytes, list[bytes]]:
    """Frames by flow (what does not tell its flow counts as one)."""
    flows: dict[bytes, list[bytes]] = {}
    for frame in frames:
        v6 = frame[12:14] == b"\x86\xdd"
        flows.setdefault(frame[22:58] if v6 else frame[26:38], []).append(frame)
    return flows


def without_fixed_ids(frames: list[bytes]) -> list[bytes]:
    """IPv4 ids have no meaning where DF is set (RFC 6864): cutting may give them anew."""
    out = []
    for frame in frames:
        plain = frame
        if frame[12:14] == b"\x08\x00" and frame[20] & 0x40:
            plain = frame[:18] + b"\0\0" + frame[20:24] + b"\0\0" + frame[26:]
        out.append(plain)
    return out


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Flows that mostly go on as they should, with everything that may come between."""
    frames: list[bytes] = []
    current: dict[int, Packet] = {}
    for _ in range(draw(st.integers(1, 30))):
        flow = draw(st.integers(1, 3))
        packet = current.get(flow) or replace(draw(packets()), ports=(flow, 1), payload=bytes(100 * flow), flags=ACK)
        twist = draw(st.integers(0, 24))
        size = len(packet.payload)
        if twist == 1:
            packet = replace(packet, payload=packet.payload[: size // 2])
        elif twist == 2:
            packet = replace(packet, payload=packet.payload + b"longer")
        elif twist == 3:
            packet = replace(
                packet,
                flags=draw(st.sampled_from([ACK | PSH, ACK | FIN, ACK | CWR, ACK | ECE, SYN, RST | ACK, URG | ACK])),
            )
        elif twist == 4:
            packet = replace(packet, ttl=packet.ttl - 1)
        elif twist == 5:
            packet = replace(packet, tos=packet.tos ^ 4)
        elif twist == 6:
            packet = replace(packet, ack=packet.ack + 1)
        elif twist == 7:
            packet = replace(packet, window=packet.window + 1)
        elif twist == 8:
            packet = replace(packet, ident=packet.ident + draw(st.integers(-2, 3)) & 0xFFFF)
        elif twist == 9:
            packet = replace(packet, options=b"\1\1\1\1" if not packet.options else b"")
        elif twist == 10:
            packet = replace(packet, seq=packet.seq + 1 & 0xFFFFFFFF)
        elif twist == 11:
            packet = replace(packet, flow_label=packet.flow_label ^ 5)
        elif twist == 12:
            packet = replace(packet, payload=b"")
        elif twist == 13:
            packet = replace(packet, df=not packet.df)
        elif twist == 14:
            packet = replace(packet, urgent=3)
        frame = packet.frame()
        if twist == 15:
            at = draw(st.integers(14, len(frame) - 1))
            frame = frame[:at] + bytes([frame[at] ^ draw(st.integers(1, 255))]) + frame[at + 1 :]
        elif twist == 16:
            frame += b"padding"
        elif twist == 17 and not packet.v6:
            frame = frame[:14] + k.ip_checksum(frame[14:20] + b"\x20\x00" + frame[22:34]) + frame[34:]
        elif twist == 18:
            frame = replace(packet, vlan=5).frame()
        elif twist == 19 and packet.v6:
            frame = replace(packet, ext=bytes([0, 0, 1, 4, 0, 0, 0, 0])).frame()
        elif twist == 20:
            frame = B + A + b"\x08\x06" + bytes(46)
        elif twist == 21 and packet.proto == 17:
            at = 54 if packet.v6 else 34
            frame = frame[: at + 6] + b"\0\0" + frame[at + 8 :]
        frames.append(frame)
        fixed = draw(st.booleans())
        current[flow] = replace(
            packet,
            seq=(packet.seq + len(packet.payload)) & 0xFFFFFFFF,
            ident=packet.ident if fixed and packet.df else packet.ident + 1 & 0xFFFF,
            payload=bytes([len(frames)]) * size,
            flags=ACK,
            urgent=0,
        )
    return frames


@settings(SETTINGS, max_examples=600)
@given(streams())
def test_gluing_loses_adds_changes_and_reorders_nothing(pair: Pair, frames: list[bytes]) -> None:
    seen = [frame for written in pair.receive(frames) for frame in kernel_sees(written)]
    want, got = split(frames), split(seen)
    assert got.keys() == want.keys()
    for flow, sent in want.items():
        assert without_fixed_ids(got[flow]) == without_fixed_ids(sent)


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("proto", [6, 17])
def test_a_plain_stream_becomes_one_super_frame(pair: Pair, v6: bool, proto: int) -> None:
    """The property above would hold if nothing were ever glued: this would not."""
    frames = Packet(B, A, random.Random(1).randbytes(40 * 1200 + 7), v6=v6, proto=proto, flags=ACK | PSH).cut(1200)
    (written,) = pair.receive(frames)
    assert kernel_sees(written) == frames


def test_a_bad_checksum_is_never_laundered(pair: Pair) -> None:
    frames = Packet(B, A, bytes(12_000)).cut(1200)
    bad = bytearray(frames[4])
    bad[500] ^= 0x10
    written = pair.receive([*frames[:4], bytes(bad), *frames[5:]])
    assert len(written) == 3
    assert written[1] == bytes(10) + bytes(bad)  # flags 0: the kernel verifies, and refuses it


def test_interleaved_streams_are_glued_each_for_itself(pair: Pair) -> None:
    flows = [Packet(B, A, bytes(24_000), ports=(n, 80)).cut(1200) for n in range(1, 5)]
    mixed = [frame for group in zip(*flows, strict=True) for frame in group][:64]
    assert len(pair.receive(mixed)) == 4


def test_an_error_of_the_network_does_not_switch_trains_off() -> None:
    """What a plane learns from EMSGSIZE it must not learn from a route or a firewall that is missing for a while."""
    pair = Pair()
    broadcast = bytes([255, 255, 255, 255])  # EACCES: the socket may not send there
    pair.sender.plane.put_peer(B, broadcast, 9, True)
    assert pair.cut(Packet(B, A, bytes(6000)).super_frame(1200)) == []
    assert pair.sender.plane.features()["gso"] is True
    assert pair.sender.dropped() == {"drop_send_error": 5}
    pair.sender.plane.put_peer(B, IP, pair.peer.port, True)
    assert len(pair.cut(Packet(B, A, bytes(6000)).super_frame(1200))) == 5
    assert pair.sender.plane.counters()["trains_tx"] == 1
    close_all()


def test_gluing_and_super_frames_can_be_switched_off() -> None:
    pair = Pair(coalesce=False)
    frames = Packet(B, A, bytes(6000)).cut(1200)
    assert pair.receive(frames) == [bytes(10) + frame for frame in frames]
    pair = Pair(uso=False)
    frames = Packet(B, A, bytes(6000), proto=17).cut(1200)
    assert pair.receive(frames) == [bytes(10) + frame for frame in frames]
    pair = Pair(gso=False, gro=False)
    assert pair.edge.plane.features()["gso"] is False
    assert pair.edge.plane.features()["gro"] is False
    assert pair.cut(Packet(B, A, bytes(6000)).super_frame(1200)) == Packet(B, A, bytes(6000)).cut(1200)
    close_all()
