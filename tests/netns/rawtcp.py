"""Frames straight into and out of TAPs: VLAN tags, super-frames made by hand, and a TCP that a test controls."""

from __future__ import annotations

import select
import signal
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from n2n.lab.nodes import EdgeNode
from n2n.lab.topology import Host

from .frames import Tapped, mac_bytes
from .packets import ACK, FIN, RST, SYN, Flow

_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_PACKET_VNET_HDR = 15
_OUTGOING = 4
_VLAN_VALID, _TPID_VALID = 0x10, 0x40  # TP_STATUS_* of linux/if_packet.h
_AUXDATA = struct.Struct("=IIIHHHH")


class TaggedTap:
    """As `Tapped`, with the VLAN tags that the kernel takes off a frame before it shows it, and with virtio headers
    for super-frames that go in."""

    def __init__(self, edge: EdgeNode, *, vnet_hdr: bool = False) -> None:
        self.mac = mac_bytes(edge.mac)
        with edge.host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        if vnet_hdr:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.bind((edge.tap, 3))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def sees(self, wanted: Iterable[bytes], timeout: float = 5.0) -> list[bytes]:
        """Wait for these frames in this order; returns those that did not come out of the TAP so."""
        missing = list(wanted)
        until = time.monotonic() + timeout
        while missing and (left := until - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                break
            data, extra, _, address = self._socket.recvmsg(65536, 256)
            if address[2] != _OUTGOING and with_tag(data, extra) == missing[0]:
                del missing[0]
        return missing


def with_tag(data: bytes, extra: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The frame as it was before the kernel took its outer tag."""
    for _, kind, value in extra:
        if kind == _PACKET_AUXDATA:
            status, *_, tci, tpid = _AUXDATA.unpack(value[: _AUXDATA.size])
            if status & _VLAN_VALID:
                return data[:12] + struct.pack("!HH", tpid if status & _TPID_VALID else 0x8100, tci) + data[12:]
    return data


@contextmanager
def held(*edges: EdgeNode) -> Iterator[None]:
    """These edges stand still meanwhile, so that what waits for them is one batch: the first goes on first."""
    with ExitStack() as stack:
        for edge in reversed(edges):
            assert edge.process is not None
            edge.process.signal(signal.SIGSTOP)
            stack.callback(edge.process.signal, signal.SIGCONT)
        yield


def snmp(host: Host, protocol: str, name: str) -> int:
    """A counter of the host's network stack (/proc/net/snmp and netstat)."""
    with host.entered():
        text = "".join(Path(f"/proc/thread-self/net/{file}").read_text() for file in ("snmp", "netstat", "snmp6"))
    for line in text.splitlines():
        if line.split() == [protocol + name, *line.split()[1:]]:  # snmp6: one to a line
            return int(line.split()[1])
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith(f"{protocol}:")]
    return int(dict(zip(rows[0], rows[1], strict=True))[name])


class Answer(NamedTuple):
    """What the test looks at in a segment that came back."""

    seq: int
    ack: int
    flags: int


class HandTcp:
    """The client of a TCP connection whose every segment the test makes.

    Its address is one that no kernel has, so that none answers for it.

    Args:
        tap: of the client's edge.
        flow: from the client to the server.
        flags: beside SYN in the first segment.
    """

    def __init__(self, tap: Tapped, flow: Flow, flags: int = 0) -> None:
        self.tap = tap
        self.flow = flow
        self._seq = 1_000_000
        tap.send(flow.tcp(self._seq, 0, SYN | flags))
        self.welcome = self.answer()
        assert self.welcome.flags & (SYN | ACK) == SYN | ACK
        self._seq += 1
        self._ack = self.welcome.seq + 1
        tap.send(flow.tcp(self._seq, self._ack, ACK))
        self.start = self._seq

    def segment(self, at: int, data: bytes, *, flags: int = 0, wrong: int = 0, ident: int = 0, tos: int = 0) -> bytes:
        """A frame with `data` of the stream from position `at` on."""
        return self.flow.tcp(self.start + at, self._ack, ACK | flags, data, wrong=wrong, ident=ident, tos=tos)

    def answer(self, timeout: float = 5.0) -> Answer:
        """The next segment that comes back."""
        back = struct.pack("!HH", *reversed(self.flow.ports))
        at = 54 if self.flow.v6 else 34
        for frame in self.tap.frames(timeout):
            if frame[at : at + 4] == back and frame[(20 if self.flow.v6 else 23)] == 6:
                return Answer(*struct.unpack_from("!II", frame, at + 4), frame[at + 13])
        raise AssertionError("no segment comes back")

    def reset(self) -> None:
        """End it."""
        self.tap.send(self.flow.tcp(self._seq, self._ack, RST | ACK))


__all__ = ["FIN", "Answer", "HandTcp", "TaggedTap", "held", "snmp", "with_tag"]
