"""Finding the largest packet of a path: exact, in bounded time, and not to be fooled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from n2n.daemon import pathprobe
from n2n.daemon.pathprobe import PathProber
from n2n.types import Endpoint, MacAddress
from n2n.wire import PROTOV_SIZE, PacketType, PeerToPing, ProtoV, build, decode

ME, PEER = MacAddress(bytes([2, 0, 0, 0, 0, 1])), MacAddress(bytes([2, 0, 0, 0, 0, 2]))
V4, V6 = Endpoint.parse("192.0.2.1:7777"), Endpoint.parse("[2001:db8::1]:7777")
HERE = Endpoint.parse("192.0.2.9:5000")


class Path:
    """A way to the supernode and back, or to a peer: what does not fit is lost without a word."""

    def __init__(
        self, limit: int, *, loss: float = 0.0, delay: float = 0.001, peer: bool = False, plain: str = ""
    ) -> None:
        self.plain = plain
        self.limit, self.loss, self.delay = limit, loss, delay
        self.random = random.Random(7)
        self.sent: list[int] = []
        self.us = PathProber(ME, 7, lambda: 1, self.send)
        self.them = PathProber(PEER, 7, lambda: 1, self.back) if peer else None

    def send(self, datagram: bytes, to: Endpoint) -> bool:
        size = len(datagram) + (28 if to.ip.version == 4 else 48)
        self.sent.append(size)
        if size <= self.limit and self.random.random() >= self.loss:
            asyncio.get_running_loop().call_later(self.delay, self.arrive, datagram, to)
        return size <= 65000

    def arrive(self, datagram: bytes, to: Endpoint) -> None:
        if self.plain:
            self.ponged(datagram)
        elif self.them is not None:
            assert self.them.receive(datagram, HERE)
        else:
            flagged = datagram[:3] + b"\x02" + datagram[4:]
            assert self.us.receive(flagged, to)

    def ponged(self, datagram: bytes) -> None:
        """What a v5 program does (WIRE 11.4): it looks at the beginning, and repeats the check id."""
        header, ping = ProtoV.unpack(datagram), decode(PeerToPing, datagram[PROTOV_SIZE:])
        assert (header.dest, header.source, ping.is_pong) == (PEER, ME, False)
        pong = build(ProtoV(PacketType.PING, 7, PEER, ME), PeerToPing(ping.check_id, is_pong=True))
        if self.plain == "relayed":
            assert self.us.receive(pong[:3] + b"\x02" + pong[4:], HERE)
        else:
            assert self.us.receive(pong, V4)

    def back(self, datagram: bytes, to: Endpoint) -> bool:
        assert to == HERE
        assert len(datagram) < 64, "no more than what was sent"
        self.us.receive(datagram, V4)
        return True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pathprobe, "_PATIENCE", (0.02, 0.05))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("limit", [576, 577, 1279, 1280, 1300, 1400, 1492, 1495, 1496])
@pytest.mark.parametrize("endpoint", [V4, V6])
def test_a_limit_is_found_to_two_bytes(limit: int, endpoint: Endpoint) -> None:
    async def main() -> None:
        path = Path(limit)
        found = await path.us.measure(ME, endpoint, 1497)
        if endpoint is V6 and limit < 1280:
            assert found is None
        else:
            assert found is not None
            assert limit - 2 <= found <= limit
        assert len(path.sent) < 120

    run(main)


def test_a_path_that_takes_all_costs_two_datagrams() -> None:
    async def main() -> None:
        path = Path(9000)
        assert await path.us.measure(ME, V4, 1497) == 1497
        assert len(path.sent) == 2
        assert 8998 <= (await path.us.measure(ME, V4, 9100) or 0) <= 9000

    run(main)


def test_a_peer_tells_what_arrived() -> None:
    async def main() -> None:
        path = Path(1280, peer=True)
        assert await path.us.measure(PEER, V4, 1497) in (1278, 1279, 1280)
        assert path.them is not None
        assert path.them.counts["mtu_answered"] > 2

    run(main)


def test_loss_does_not_make_a_path_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        path = Path(1500, loss=0.2)
        assert await path.us.measure(ME, V4, 1497) == 1497

    run(main)


def test_who_does_not_answer_has_no_limit() -> None:
    async def main() -> None:
        path = Path(0)
        assert await path.us.measure(PEER, V4, 1497) is None
        assert len(path.sent) == 8

    run(main)


def body(kind: int, token: bytes, size: int = 0, *, dest: MacAddress = ME, source: MacAddress = PEER) -> bytes:
    header = ProtoV(PacketType.PING, community=7, source=source, dest=dest, sequence=1, timestamp=1).pack()
    return header + b"n2n path" + bytes([kind]) + token + size.to_bytes(2, "big")


def test_what_nobody_asked_for_and_what_makes_no_sense_is_counted() -> None:
    async def main() -> None:
        path = Path(1400, peer=True)
        measuring = asyncio.create_task(path.us.measure(PEER, V4, 1497))
        await asyncio.sleep(0)
        (token,) = path.us._searches
        forged = [
            (body(2, bytes(8), 1497), V4),
            (body(2, token, 1497), HERE),  # from elsewhere
            (body(2, token, 1400), V4),  # a size that was not sent
            (body(9, token, 1497), V4),
            (body(1, token, dest=PEER), V4),
            (body(2, token, 1497, source=ME), V4),
            (body(2, token)[:-1], V4),
            (body(1, token)[:40], V4),
        ]
        for datagram, source in forged:
            assert path.us.receive(datagram, source)
        assert path.us.counts["mtu_bad"] == len(forged)
        assert await measuring in (1398, 1399, 1400)

    run(main)


def test_other_datagrams_are_left_alone() -> None:
    async def main() -> None:
        path = Path(1500)
        plain = ProtoV(PacketType.PING, community=7, source=PEER, dest=ME, sequence=1, timestamp=1).pack()
        for datagram in (b"", b"\x05", plain, plain + b"n2n pat", plain[:2] + b"\x07" + plain[3:] + b"n2n path"):
            assert not path.us.receive(datagram, V4)
        assert path.us.counts["mtu_bad"] == 0

    run(main)


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pathprobe, "_ANSWERS", 64)

    async def main() -> None:
        path = Path(1500, peer=True)
        assert path.them is not None
        for _ in range(1000):
            path.them.receive(body(1, bytes(8), dest=PEER, source=ME), HERE)
        assert 64 <= path.them.counts["mtu_answered"] <= 192
        assert path.them.counts["mtu_answered"] + path.them.counts["mtu_limited"] == 1000

    run(main)


@pytest.mark.parametrize("how", ["straight", "relayed"])
@pytest.mark.parametrize("limit", [600, 1280, 1499])
def test_a_v5_peer_is_asked_what_it_answers(how: str, limit: int) -> None:
    async def main() -> None:
        path = Path(limit, plain=how)
        found = await path.us.measure(PEER, V4, 1500, plain=True)
        assert found is not None
        assert limit - 2 <= found <= limit
        assert max(path.sent) == 1500
        assert path.us.counts["mtu_bad"] == 0
        path.limit = 9100
        assert await path.us.measure(PEER, V4, 9077, plain=True) == 9077
        path.limit = 0
        assert await path.us.measure(PEER, V4, 1500, plain=True) is None

    run(main)


def test_pongs_that_nobody_asked_for() -> None:
    async def main() -> None:
        path = Path(1400, plain="straight")
        measuring = asyncio.create_task(path.us.measure(PEER, V4, 1500, plain=True))
        await asyncio.sleep(0)
        (token,) = path.us._searches

        def pong(check_id: str, *, source: MacAddress = PEER, is_pong: bool = True, dest: MacAddress = ME) -> bytes:
            return build(ProtoV(PacketType.PING, 7, source, dest), PeerToPing(check_id, is_pong=is_pong))

        for counted in (
            pong(f"n2n size {token.hex()} 1500", source=MacAddress(bytes([2, 0, 0, 0, 0, 9]))),
            pong(f"n2n size {token.hex()} 1400"),  # a size that was not sent
            pong(f"n2n size {bytes(8).hex()} 1500"),
            body(2, token, 1500),  # not what a v5 program says
        ):
            before = path.us.counts["mtu_bad"]
            assert path.us.receive(counted, V4)
            assert path.us.counts["mtu_bad"] == before + 1
        for other in (
            pong(f"n2n size {token.hex()} 1500", is_pong=False),
            pong(f"n2n size {token.hex()} 1500", dest=PEER),
            pong(f"n2n size {token.hex()}"),
            pong(f"n2n size {token.hex()} 1500 "),
            pong(f"n2n size {token.hex()} 1500")[:-20],
            pong(f"n2n size {token.hex()} 1500") + bytes(300),
            pong("edge.mac.mac.ip.port"),
        ):
            assert not path.us.receive(other, V4), "the core's"
        found = await measuring
        assert found is not None
        assert found <= 1400

    run(main)


@pytest.mark.parametrize("plain", ["", "straight"])
def test_a_check_costs_one_datagram_while_all_is_well(plain: str) -> None:
    async def main() -> None:
        path = Path(1500, peer=True, plain=plain)
        assert await path.us.check(PEER, V4, 1497, plain=bool(plain)) == 1497
        assert path.sent == [1497]
        path.limit, path.sent = 1300, []
        found = await path.us.check(PEER, V4, 1497, plain=bool(plain))
        assert found is not None
        assert 1298 <= found <= 1300
        assert len(path.sent) < 70
        path.limit, path.sent = 0, []
        assert await path.us.check(PEER, V4, 1497, plain=bool(plain)) is None
        assert len(path.sent) == 5

    run(main)


def test_a_check_is_not_fooled_by_loss() -> None:
    """Two datagrams lost in a row begin a search; it tries that size again."""

    async def main() -> None:
        path = Path(1500, peer=True)
        lost = 2

        def send(datagram: bytes, to: Endpoint) -> bool:
            nonlocal lost
            if len(datagram) + 28 == 1497 and lost:
                lost -= 1
                return True
            return path.send(datagram, to)

        path.us._send = send
        assert await path.us.check(PEER, V4, 1497) == 1497
        assert lost == 0

    run(main)
