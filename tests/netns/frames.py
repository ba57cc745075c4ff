"""Frames, multicast groups and echoes, through sockets of the test process that live in a host's namespace."""

from __future__ import annotations

import itertools
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address

from n2n.lab.nodes import EdgeNode
from n2n.lab.topology import Host

#: "Local experimental" (IEEE 802): no kernel answers it.
EXPERIMENT = 0x88B5
BROADCAST = b"\xff" * 6
_OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h
_numbers = itertools.count()


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def link_local(mac: str) -> str:
    """The IPv6 address that the kernel makes of a MAC (RFC 4291, appendix A)."""
    raw = mac_bytes(mac)
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]))


def marked_frame(dest: bytes, source: bytes, size: int = 60) -> bytes:
    """An Ethernet frame that no other frame equals."""
    body = b"n2n-test-%d-" % next(_numbers)
    return (dest + source + struct.pack("!H", EXPERIMENT) + body).ljust(size, b".")


class Tapped:
    """Sees every frame that comes out of an edge's TAP, and sends frames into it."""

    def __init__(self, edge: EdgeNode) -> None:
        self.edge = edge
        self.mac = mac_bytes(edge.mac)
        with edge.host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        self._socket.bind((edge.tap, 3))
        self._socket.setblocking(False)

    def __enter__(self) -> Tapped:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def frames(self, timeout: float) -> Iterable[bytes]:
        """What came out of the TAP (not what went into it), for `timeout` seconds."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            frame, address = self._socket.recvfrom(65536)
            if address[2] != _OUTGOING:
                yield frame

    def sees(self, wanted: Callable[[bytes], bool] | bytes, timeout: float = 5.0) -> bool:
        matches = wanted if callable(wanted) else lambda frame: frame.startswith(wanted)
        return any(matches(frame) for frame in self.frames(timeout))


def flood(sender: Tapped, receivers: Iterable[Tapped], dest: bytes = BROADCAST, size: int = 60) -> bool:
    """One frame to a group address; True if every receiver gets it, byte for byte."""
    frame = marked_frame(dest, sender.mac, size)
    sender.send(frame)
    return all(receiver.sees(frame) for receiver in receivers)


def multicast(sender: EdgeNode, receiver: EdgeNode, group: str) -> bool:
    """A UDP datagram to a multicast group that the receiver has joined, over the TAPs."""
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with receiver.host.entered():
        inbox = socket.socket(family, socket.SOCK_DGRAM)
        index = socket.if_nametoindex(receiver.tap)
    with sender.host.entered():
        outbox = socket.socket(family, socket.SOCK_DGRAM)
        out_index = socket.if_nametoindex(sender.tap)
    with inbox, outbox:
        inbox.settimeout(5)
        inbox.bind(("", 0))
        raw = socket.inet_pton(family, group)
        if family == socket.AF_INET6:
            inbox.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, raw + struct.pack("@I", index))
            outbox.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, out_index)
        else:
            request = struct.pack("@4s4si", raw, bytes(4), index)
            inbox.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            outbox.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("@4s4si", bytes(4), bytes(4), out_index)
            )
        message = b"to the group %d" % next(_numbers)
        outbox.sendto(message, (group, inbox.getsockname()[1]))
        try:
            return inbox.recv(2048) == message
        except TimeoutError:
            return False


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def echo_sizes(host: Host, target: str, sizes: Iterable[int]) -> list[int]:
    """ICMP echoes with payloads of these sizes; returns the sizes whose answer did not come back whole."""
    with host.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    lost = []
    with sock:
        sock.settimeout(2.0)
        sock.connect((target, 0))
        for size in sizes:
            payload = bytes((size + n) & 0xFF for n in range(size))
            head = struct.pack("!HH", 0x6E32, size)
            sock.send(struct.pack("!BBH", 8, 0, _checksum(b"\x08\0\0\0" + head + payload)) + head + payload)
            if not _answered(sock, b"\0\0" + head + payload):
                lost.append(size)
    return lost


def _answered(sock: socket.socket, wanted: bytes) -> bool:
    """Wait for the ICMP message `wanted` (its checksum aside)."""
    while True:
        try:
            packet = sock.recv(65536)
        except TimeoutError:
            return False
        message = packet[(packet[0] & 15) * 4 :]
        if message[:2] + message[4:] == wanted:
            return True
