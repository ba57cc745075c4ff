"""How large a datagram may be on a path: found by sending some, since ICMP is often lost on the way.

A probe is a ProtoV packet of type ping with a body of our own, padded and sent with "do not fragment". The supernode is
probed with pings to ourselves: every supernode relays those back, whole. A peer answers with the size that arrived, if
it knows of this; v5 programs do not, and stay silent.

    body: "n2n path" | kind (1 probe, 2 heard) | token (8) | size heard (2) | padding
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from n2n.types import Endpoint, MacAddress
from n2n.wire import PROTOV_SIZE, PacketType, ProtoV

__all__ = ["PathProber"]

_MARK: Final = b"n2n path"
_BODY: Final = struct.Struct(">8sB8sH")
_PROBE, _HEARD = 1, 2
_IPV4, _IPV6 = 28, 48
"""Bytes of the IP and UDP headers."""
#: Bytes of the smallest packet that is tried: IPv6 takes it everywhere, and less than 576 is of no use for IPv4.
_SMALLEST: Final = {4: 576, 6: 1280}
#: Sizes tried at once while searching, and how often each of them is sent.
_SPREAD: Final = 8
_REPEAT: Final = 2
#: The search ends when it is so near, in bytes.
_NEAR: Final = 2
#: Tries with the smallest and the largest size, and seconds to wait for an answer: three times the round trip within.
_TRIES: Final = 4
_PATIENCE: Final = (0.25, 1.5)
#: Probes of others that are answered in a second.
_ANSWERS: Final = 64


class _Search:
    """What is known of one path while it is probed."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.token = secrets.token_bytes(8)
        self.endpoint = endpoint
        self.heard = 0
        self.news = asyncio.Event()
        self.sent_at: dict[int, float] = {}
        self.rtt: float | None = None


class PathProber:
    """Measures paths, and answers those who measure theirs to us.

    Args:
        mac: our address.
        community: id for headers.
        sequence: gives numbers for headers.
        send: sends a datagram whole, or says that it cannot.
    """

    def __init__(
        self,
        mac: MacAddress,
        community: int,
        sequence: Callable[[], int],
        send: Callable[[bytes, Endpoint], bool],
    ) -> None:
        self.counts: Counter[str] = Counter(mtu_probes=0, mtu_answered=0, mtu_limited=0, mtu_bad=0)
        """Probes sent, probes of others answered or not (too many), and bodies that make no sense."""
        self._mac = mac
        self._community = community
        self._sequence = sequence
        self._send = send
        self._searches: dict[bytes, _Search] = {}
        self._second = 0
        self._answered = 0

    async def measure(self, dest: MacAddress, endpoint: Endpoint, most: int) -> int | None:
        """Find the size of the largest IP packet that gets through.

        Args:
            dest: the peer's address; our own for the path to the supernode and back.
            endpoint: where to send to.
            most: bytes of the largest packet of interest.

        Returns:
            `most` or less, exact to 2 bytes; None where nothing at all is answered.
        """
        search = _Search(endpoint)
        self._searches[search.token] = search
        try:
            return await self._find(search, dest, most)
        finally:
            del self._searches[search.token]

    async def _find(self, search: _Search, dest: MacAddress, most: int) -> int | None:
        smallest = min(_SMALLEST[search.endpoint.ip.version], most)
        for _ in range(_TRIES):
            self._probe(search, dest, smallest)
            self._probe(search, dest, most)
            if await self._wait(search, most):
                return most
        if not search.heard:
            return None
        high = most
        while high - search.heard > _NEAR:
            low = search.heard
            step = max((high - low) / (_SPREAD + 1), 1.0)
            sizes = sorted({min(low + int(step * n), high - 1) for n in range(1, _SPREAD + 1)} - {low})
            for _ in range(_REPEAT):
                for size in sizes:
                    self._probe(search, dest, size)
                await self._wait(search, sizes[-1])
            high = min([size for size in sizes if size > search.heard], default=high)
        return search.heard

    def _probe(self, search: _Search, dest: MacAddress, size: int) -> None:
        head = _IPV4 if search.endpoint.ip.version == 4 else _IPV6
        body = _BODY.pack(_MARK, _PROBE, search.token, 0)
        datagram = self._header(dest) + body
        search.sent_at.setdefault(size, time.monotonic())
        self.counts["mtu_probes"] += 1
        self._send(datagram + bytes(max(size - head - len(datagram), 0)), search.endpoint)

    async def _wait(self, search: _Search, wanted: int) -> bool:
        """Wait for `wanted`, as long as an honest answer may take; whether it came."""
        least, longest = _PATIENCE
        patience = least if search.rtt is None else min(max(3 * search.rtt, least), longest)
        if search.rtt is None and search.sent_at:
            # Nothing was heard yet: wait longer each time.
            patience = min(max(time.monotonic() - min(search.sent_at.values()), least), longest)
        try:
            async with asyncio.timeout(patience):
                while search.heard < wanted:
                    search.news.clear()
                    await search.news.wait()
        except TimeoutError:
            return False
        return True

    def _header(self, dest: MacAddress) -> bytes:
        return ProtoV(
            PacketType.PING,
            community=self._community,
            source=self._mac,
            dest=dest,
            sequence=self._sequence(),
            timestamp=int(time.time()) & 0xFFFFFFFF,
        ).pack()

    def receive(self, datagram: bytes, source: Endpoint) -> bool:
        """Take a datagram, if it is one of these (True, whatever becomes of it)."""
        if datagram[PROTOV_SIZE : PROTOV_SIZE + len(_MARK)] != _MARK or datagram[2] != PacketType.PING:
            return False
        if len(datagram) < PROTOV_SIZE + _BODY.size or datagram[16:22] != self._mac.raw:
            self.counts["mtu_bad"] += 1
            return True
        _, kind, token, told = _BODY.unpack_from(datagram, PROTOV_SIZE)
        size = len(datagram) + (_IPV4 if source.ip.version == 4 else _IPV6)
        sender = datagram[10:16]
        if kind == _HEARD and sender != self._mac.raw:
            self._heard(token, source, told)
        elif kind == _PROBE and sender == self._mac.raw:
            self._heard(token, source, size)
        elif kind == _PROBE:
            self._answer(MacAddress(sender), token, size, source)
        else:
            self.counts["mtu_bad"] += 1
        return True

    def _heard(self, token: bytes, source: Endpoint, size: int) -> None:
        search = self._searches.get(token)
        if search is None or search.endpoint != source or size not in search.sent_at:
            self.counts["mtu_bad"] += 1
            return
        if search.rtt is None:
            search.rtt = time.monotonic() - search.sent_at[size]
        search.heard = max(search.heard, size)
        search.news.set()

    def _answer(self, to: MacAddress, token: bytes, size: int, source: Endpoint) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._answered = second, 0
        self._answered += 1
        if self._answered > _ANSWERS:
            self.counts["mtu_limited"] += 1
            return
        self.counts["mtu_answered"] += 1
        self._send(self._header(to) + _BODY.pack(_MARK, _HEARD, token, size & 0xFFFF), source)
