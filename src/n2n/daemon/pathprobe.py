"""How large a datagram may be on a path: found by sending some, since ICMP is often lost on the way.

A probe is a ProtoV packet of type ping with a body of our own, padded and sent with "do not fragment". The supernode is
probed with pings to ourselves: every supernode relays those back, whole. A peer answers with the size that arrived, if
it knows of this.

    body: "n2n path" | kind (1 probe, 2 heard) | token (8) | size heard (2) | padding

A v5 program is sent what it answers: a ping (PeerToPing) whose check id names the size, with zeros behind, which every
decoder of gob ignores. Its pong repeats the check id, and comes straight or by way of the supernode.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from n2n.errors import MalformedDatagram
from n2n.types import Endpoint, MacAddress
from n2n.wire import PROTOV_SIZE, PacketType, PeerToPing, ProtoV, build, decode

__all__ = ["PathProber"]

_MARK: Final = b"n2n path"
_BODY: Final = struct.Struct(">8sB8sH")
_PROBE, _HEARD = 1, 2
#: How the check id of a ping to a v5 program begins; token and size follow.
_PLAIN: Final = "n2n size"
_CHECK_ID: Final = re.compile(f"{_PLAIN} ([0-9a-f]{{16}}) ([0-9]{{1,5}})")
#: Bytes of the longest pong that is looked at for it: a header, a description, and a check id of some 40 characters.
_LONGEST_PONG: Final = 256
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
#: How often a size that is known to pass is tried: twice, where smaller ones are answered.
_CHECKS: Final = 3
#: Probes of others that are answered in a second: two from each of some hundred busy peers, and searches besides.  One
#: that is not answered looks like a path that is too small.  An answer has a tenth of the bytes of a usual probe.
_ANSWERS: Final = 1000


class _Search:
    """What is known of one path while it is probed."""

    def __init__(self, dest: MacAddress, endpoint: Endpoint, plain: bool) -> None:
        self.token = secrets.token_bytes(8)
        self.dest = dest
        self.endpoint = endpoint
        self.plain = plain
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

    async def measure(self, dest: MacAddress, endpoint: Endpoint, most: int, *, plain: bool = False) -> int | None:
        """Find the size of the largest IP packet that gets through.

        Args:
            dest: the peer's address; our own for the path to the supernode and back.
            endpoint: where to send to: the peer's, or the supernode's for the way by relay.
            most: bytes of the largest packet of interest.
            plain: the peer is a v5 program.

        Returns:
            `most` or less, exact to 2 bytes; None where nothing at all is answered.
        """
        with self._searching(dest, endpoint, plain) as search:
            return await self._find(search, most)

    async def check(self, dest: MacAddress, endpoint: Endpoint, size: int, *, plain: bool = False) -> int | None:
        """See whether an IP packet of `size` bytes still gets through; one datagram, where it does.

        Args:
            dest, endpoint, plain: see `measure`.

        Returns:
            `size`; or less, where smaller ones get through and this one does not; None where nothing is answered.
        """
        with self._searching(dest, endpoint, plain) as search:
            for number in range(_CHECKS):
                if number:
                    self._probe(search, min(_SMALLEST[endpoint.ip.version], size))
                self._probe(search, size)
                if await self._wait(search, size):
                    return size
                if number and search.heard:
                    break
            return await self._narrow(search, size + 1) if search.heard else None

    @contextmanager
    def _searching(self, dest: MacAddress, endpoint: Endpoint, plain: bool) -> Iterator[_Search]:
        search = _Search(dest, endpoint, plain)
        self._searches[search.token] = search
        try:
            yield search
        finally:
            del self._searches[search.token]

    async def _find(self, search: _Search, most: int) -> int | None:
        smallest = min(_SMALLEST[search.endpoint.ip.version], most)
        for _ in range(_TRIES):
            self._probe(search, smallest)
            self._probe(search, most)
            if await self._wait(search, most):
                return most
        return await self._narrow(search, most) if search.heard else None

    async def _narrow(self, search: _Search, high: int) -> int:
        """Come near the largest size that passes: more than what was heard, less than `high`, which is tried last."""
        while high - search.heard > _NEAR:
            low = search.heard
            step = max((high - low) / (_SPREAD + 1), 1.0)
            sizes = sorted({min(low + int(step * n), high - 1) for n in range(1, _SPREAD + 1)} - {low} | {high - 1})
            for _ in range(_REPEAT):
                for size in sizes:
                    self._probe(search, size)
                await self._wait(search, sizes[-1])
            high = min([size for size in sizes if size > search.heard], default=high)
        return search.heard

    def _probe(self, search: _Search, size: int) -> None:
        payload = size - (_IPV4 if search.endpoint.ip.version == 4 else _IPV6)
        header = self._header(search.dest)
        if search.plain:
            datagram = build(header, PeerToPing(f"{_PLAIN} {search.token.hex()} {size}"))
        else:
            datagram = build(header, _BODY.pack(_MARK, _PROBE, search.token, 0))
        search.sent_at.setdefault(size, time.monotonic())
        self.counts["mtu_probes"] += 1
        self._send(datagram.ljust(payload, b"\0"), search.endpoint)

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

    def _header(self, dest: MacAddress) -> ProtoV:
        return ProtoV(
            PacketType.PING,
            community=self._community,
            source=self._mac,
            dest=dest,
            sequence=self._sequence(),
            timestamp=int(time.time()) & 0xFFFFFFFF,
        )

    def receive(self, datagram: bytes, source: Endpoint) -> bool:
        """Take a datagram, if it is one of these (True, whatever becomes of it)."""
        if len(datagram) < PROTOV_SIZE or datagram[2] != PacketType.PING:
            return False
        if datagram[PROTOV_SIZE : PROTOV_SIZE + len(_MARK)] != _MARK:
            return self._is_pong(datagram)
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

    def _is_pong(self, datagram: bytes) -> bool:
        """Take a v5 program's pong to a probe; a late one, too: nobody else has asked for it."""
        if len(datagram) > _LONGEST_PONG or _PLAIN.encode() not in datagram:
            return False
        try:
            message = decode(PeerToPing, datagram[PROTOV_SIZE:])
        except MalformedDatagram:
            return False
        found = _CHECK_ID.fullmatch(message.check_id)
        if not message.is_pong or found is None or datagram[16:22] != self._mac.raw:
            return False
        search = self._searches.get(bytes.fromhex(found[1]))
        if search is None or not search.plain or datagram[10:16] != search.dest.raw:
            self.counts["mtu_bad"] += 1
        else:
            self._take(search, int(found[2]))
        return True

    def _heard(self, token: bytes, source: Endpoint, size: int) -> None:
        search = self._searches.get(token)
        if search is None or search.plain or search.endpoint != source:
            self.counts["mtu_bad"] += 1
            return
        self._take(search, size)

    def _take(self, search: _Search, size: int) -> None:
        if size not in search.sent_at:
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
        self._send(self._header(to).pack() + _BODY.pack(_MARK, _HEARD, token, size & 0xFFFF), source)
