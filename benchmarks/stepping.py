"""Steps planes over socket pairs, one scenario after the other, for instructions.py to count what each packet costs.

    valgrind --tool=callgrind --toggle-collect='*Plane*step' --dump-before='*Plane*counters' python stepping.py FOLDER

Every scenario is preceded and followed by a call of `Plane.counters`, at which callgrind writes down what it has
counted since the last; its packets are handled in `Plane.step` alone. The names and numbers of packets of all
scenarios, in their order, go to FOLDER/scenarios.json.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n._fastpath.plane import Plane, pack_vfuze

A, B = bytes([2, 0, 0, 0, 0, 1]), bytes([2, 0, 0, 0, 0, 2])
KEY = bytes(range(32))
LOCAL = socket.inet_aton("127.0.0.1")
SOL_UDP, UDP_SEGMENT = 17, 103
SEGMENT = 1380  # TCP payload that fills an inner packet of 1,420 bytes
TRAIN = 44  # segments in a super-frame, datagrams in a train
BATCH = 32  # single packets that wait when a round begins
ROUNDS = 24  # of a batch or of two trains each
NEEDS_CSUM, GSO_NONE, GSO_TCPV4 = 1, 0, 1


def pseudo_sum(ip: bytes, size: int) -> int:
    """What the kernel leaves in the checksum field: the sum over the pseudo-header, not inverted."""
    total: int = sum((*struct.unpack(">4H", ip[12:20]), ip[9], size))
    return (total & 0xFFFF) + (total >> 16)


def header_sum(ip: bytes) -> int:
    total: int = sum(struct.unpack(">10H", ip))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def frame(payload: int, offset: int, *, tcp: bool, gso: bool) -> bytes:
    """A frame with its virtio header, as a TAP gives it; the flow's `offset`th byte is its first."""
    size = payload + (20 if tcp else 8)
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + size, offset & 0xFFFF, 0x4000, 64, 6 if tcp else 17, 0, LOCAL, LOCAL
    )
    ip = ip[:10] + struct.pack(">H", header_sum(ip)) + ip[12:]
    if tcp:
        l4 = struct.pack(">HHIIBBHHH", 5201, 5201, offset, 1, 0x50, 0x10, 512, pseudo_sum(ip, size), 0)
    else:
        l4 = struct.pack(">HHHH", 5201, 5201, size, pseudo_sum(ip, size))
    kind, cut, sum_at = GSO_TCPV4 if gso else GSO_NONE, SEGMENT * gso, 16 if tcp else 6
    virtio = struct.pack("=BBHHHH", NEEDS_CSUM, kind, 34 + len(l4), cut, 34, sum_at)
    return virtio + B + A + b"\x08\x00" + ip + l4 + bytes(payload)


def udp_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


@dataclass
class Bench:
    """One plane between a TAP (`host` is the other end) and its UDP socket, and the socket of its peer."""

    plane: Plane
    port: int
    host: socket.socket
    peer: socket.socket

    def drain(self) -> None:
        for one in (self.host, self.peer):
            while select.select([one], [], [], 0)[0]:
                one.recv(1 << 17)

    def work(self) -> None:
        """Rounds until nothing is left."""
        while self.plane.step(0):
            self.drain()
        self.drain()

    def train(self, datagrams: list[bytes]) -> None:
        """Send datagrams of one size (the last may be shorter) to the plane in one call."""
        size = struct.pack("H", len(datagrams[0]))
        self.peer.sendmsg([b"".join(datagrams)], [(SOL_UDP, UDP_SEGMENT, size)], 0, ("127.0.0.1", self.port))


@contextlib.contextmanager
def bench(role: str, mac: bytes, *, sealed: bool = False, peer: socket.socket | None = None) -> Iterator[Bench]:
    """A plane, and a peer at another socket."""
    own, far = udp_socket(), peer or udp_socket()
    host, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in (host, tap):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        one.setblocking(False)
    try:
        port = int(own.getsockname()[1])
        if role == "edge":
            settings: dict[str, Any] = {"vnet_hdr": True, "cipher": "libcrypto", "key": KEY if sealed else None}
            plane = Plane("edge", own.fileno(), tap_fd=tap.fileno(), mac=mac, community=7, **settings)
            plane.put_peer(A if mac == B else B, LOCAL, int(far.getsockname()[1]), True)
        else:
            plane = Plane("supernode", own.fileno())
            plane.put_member(7, 0, A, LOCAL, int(far.getsockname()[1]))
            plane.put_member(7, 0, B, LOCAL, int(udp_sink.getsockname()[1]))
        yield Bench(plane, port, host, far)
    finally:
        for one in (own, far, host, tap):
            one.close()


udp_sink = udp_socket()


def outgoing(size: int, trains: bool, part: int) -> list[bytes]:
    """The frames of one round: two super-frames, or a batch of single ones (TCP of full size, else UDP)."""
    if trains:
        step = SEGMENT * TRAIN
        return [frame(step, (2 * part + n) * step, tcp=True, gso=True) for n in range(2)]
    return [frame(size, (BATCH * part + n) * size, tcp=size == SEGMENT, gso=False) for n in range(BATCH)]


def datagrams_of(size: int, trains: bool, sealed: bool, rounds: int) -> list[list[bytes]]:
    """What an edge makes of the frames of each round."""
    made = []
    with bench("edge", A, sealed=sealed) as edge:
        edge.plane.step(0)
        for part in range(rounds):
            for one in outgoing(size, trains, part):
                edge.host.send(one)
            while edge.plane.step(0):
                pass
            found = []
            while select.select([edge.peer], [], [], 0)[0]:
                found.append(edge.peer.recv(1 << 16))
            made.append(found)
    return made


def edge_out(size: int, trains: bool, sealed: bool, mark: Callable[[Bench], None]) -> int:
    """From the TAP to the socket; returns how many packets went."""
    with bench("edge", A, sealed=sealed) as edge:
        for part in range(ROUNDS + 2):
            if part == 2:
                mark(edge)
            for one in outgoing(size, trains, part):
                edge.host.send(one)
            edge.work()
        mark(edge)
    return ROUNDS * (2 * TRAIN if trains else BATCH)


def feed(target: Bench, rounds: list[list[bytes]], trains: bool, mark: Callable[[Bench], None]) -> int:
    """From the socket of the peer to the plane."""
    count = 0
    for part, datagrams in enumerate(rounds):
        if part == 2:
            mark(target)
        for at in range(0, len(datagrams), TRAIN) if trains else ():
            target.train(datagrams[at : at + TRAIN])
        for one in () if trains else datagrams:
            target.peer.sendto(one, ("127.0.0.1", target.port))
        target.work()
        count += len(datagrams) if part >= 2 else 0
    mark(target)
    return count


def edge_in(size: int, trains: bool, sealed: bool, mark: Callable[[Bench], None]) -> int:
    """From the socket to the TAP."""
    rounds = datagrams_of(size, trains, sealed, ROUNDS + 2)
    with bench("edge", B, sealed=sealed) as edge:
        return feed(edge, rounds, trains, mark)


def relay(size: int, trains: bool, _: bool, mark: Callable[[Bench], None]) -> int:
    """From one member to another."""
    datagram = pack_vfuze(B) + bytes(size)
    count = 2 * TRAIN if trains else BATCH
    with bench("supernode", A) as around:
        return feed(around, [[datagram] * count for _ in range(ROUNDS + 2)], trains, mark)


SCENARIOS: dict[str, tuple[Callable[[int, bool, bool, Callable[[Bench], None]], int], int, bool, bool]] = {
    **{
        f"edge {way}, {kind}, {'sealed' if sealed else 'plain'}": (function, size, trains, sealed)
        for way, function in (("out", edge_out), ("in", edge_in))
        for kind, size, trains in (("trains", SEGMENT, True), ("single", SEGMENT, False), ("64 bytes", 64, False))
        for sealed in (True, False)
    },
    "relay, trains": (relay, 1462, True, False),
    "relay, single": (relay, 1462, False, False),
}


def main() -> None:
    folder = Path(sys.argv[1])
    done = []
    for name, (function, size, trains, sealed) in SCENARIOS.items():
        seen: list[dict[str, int]] = []

        def mark(one: Bench, seen: list[dict[str, int]] = seen) -> None:
            seen.append(one.plane.counters())

        packets = function(size, trains, sealed, mark)
        dropped = {key: seen[1][key] - seen[0][key] for key in seen[1] if key.startswith("drop")}
        dropped = {key: count for key, count in dropped.items() if count}
        done.append({"name": name, "packets": packets, "dropped": dropped})
        print(f"  {name}: {packets} packets{f', dropped {dropped}' if dropped else ''}", file=sys.stderr, flush=True)
    (folder / "scenarios.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
