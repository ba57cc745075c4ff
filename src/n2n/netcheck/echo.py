"""One ICMP echo (ping) at a time, for the time through the tunnel."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Final, Self

__all__ = ["Echo"]

_REQUEST: Final = 8  # RFC 792
_REPLY: Final = 0
_HEAD: Final = struct.Struct("!BBHHH")
_MOST_OTHERS: Final = 1000


class Echo:
    """Sends echo requests, from whatever kind of socket this user may have; a context manager.

    Raises:
        PermissionError: none (net.ipv4.ping_group_range, CAP_NET_RAW).
    """

    def __init__(self) -> None:
        self._number = 0
        self._ident = os.getpid() & 0xFFFF
        try:
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
            self._raw = False
        except PermissionError:
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
            self._raw = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, ip: str, patience: float = 1.0) -> float | None:
        """Seconds there and back; None where no answer comes within `patience` seconds, or no way leads there."""
        self._number = (self._number + 1) & 0xFFFF
        word = os.urandom(16)
        start = time.monotonic()
        try:
            self._sock.sendto(self._request(word), (ip, 0))
            for _ in range(_MOST_OTHERS):
                left = start + patience - time.monotonic()
                if left <= 0:
                    return None
                self._sock.settimeout(left)
                packet, sender = self._sock.recvfrom(2048)
                if sender[0] == ip and self._is_reply(packet, word):
                    return time.monotonic() - start
        except OSError:  # no answer in time, unreachable
            pass
        return None

    def _request(self, word: bytes) -> bytes:
        body = _HEAD.pack(_REQUEST, 0, 0, self._ident, self._number) + word
        return body[:2] + struct.pack("!H", _checksum(body)) + body[4:]

    def _is_reply(self, packet: bytes, word: bytes) -> bool:
        if self._raw and packet:
            packet = packet[(packet[0] & 15) * 4 :]  # the IP header comes as well
        return len(packet) >= _HEAD.size and packet[0] == _REPLY and packet[_HEAD.size :] == word


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
