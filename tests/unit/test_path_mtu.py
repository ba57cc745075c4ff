"""What follows from a measured path: the TAP's MTU, and which peers' connections are made to fit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from n2n.daemon import mtu as module
from n2n.daemon.mtu import PathMtu, Surface
from n2n.types import Endpoint, MacAddress
from tests.unit.daemon_fakes import until

ME, OURS, OLD, OTHER = (MacAddress(bytes([2, 0, 0, 0, 0, n])) for n in (1, 2, 3, 4))
SUPERNODE, THERE, ELSEWHERE = (Endpoint.parse(f"192.0.2.{n}:7777") for n in (1, 2, 3))
SEALED = Surface(vfuze=True, sealed=True, compressed=False)


@pytest.mark.parametrize(
    ("surface", "endpoint", "around"),
    [
        (SEALED, SUPERNODE, 77),
        (SEALED, Endpoint.parse("[2001:db8::1]:1"), 97),
        (Surface(False, False, False), SUPERNODE, 72),
        (Surface(False, True, True), SUPERNODE, 116),
    ],
)
def test_what_is_around_a_packet(surface: Surface, endpoint: Endpoint, around: int) -> None:
    assert surface.around(endpoint) == around


class Bench:
    def __init__(self, asked: int) -> None:
        self.paths: dict[tuple[MacAddress, Endpoint], int | None] = {(ME, SUPERNODE): 1500}
        self.measured: list[tuple[MacAddress, Endpoint]] = []
        self.checked: list[tuple[MacAddress, Endpoint, int]] = []
        self.plain: set[MacAddress] = set()
        self.kinds = {OURS: "n2n", OLD: "v5"}
        self.bytes: Counter[MacAddress] = Counter()
        self.asked = asked
        self.taps: list[int] = []
        self.clamps: dict[MacAddress, int] = {}
        self.told: list[tuple[str, str, dict[str, object]]] = []
        self.path_mtu = PathMtu(
            self,  # type: ignore[arg-type]
            ME,
            SEALED,
            asked=lambda: self.asked,
            peers=self.peers,  # type: ignore[arg-type]
            sent=self.bytes.__getitem__,
            set_tap=self.set_tap,
            clamp=self.clamps.__setitem__,
            tell=lambda *what: self.told.append(what),
        )

    def peers(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(mac=mac, kind=kind) for mac, kind in self.kinds.items()]

    async def measure(self, dest: MacAddress, endpoint: Endpoint, most: int, *, plain: bool = False) -> int | None:
        self.measured.append((dest, endpoint))
        if plain:
            self.plain.add(dest)
        limit = self.paths.get((dest, endpoint))
        return None if limit is None else min(limit, most)

    async def check(self, dest: MacAddress, endpoint: Endpoint, size: int, *, plain: bool = False) -> int | None:
        assert plain == (self.kinds.get(dest) == "v5")
        self.checked.append((dest, endpoint, size))
        limit = self.paths.get((dest, endpoint))
        return None if limit is None else min(limit, size)

    async def sends(self, mac: MacAddress, until: Callable[[], object], size: int = 1434) -> None:
        """The host sends frames of this size, one in 2 ms, and the data plane tells now and then."""
        while not until():
            self.bytes[mac] += size
            self.path_mtu.used(mac)
            await asyncio.sleep(0.002)

    async def set_tap(self, mtu: int) -> None:
        self.taps.append(mtu)

    async def settled(self, count: int) -> None:
        await until(lambda: len(self.measured) >= count)
        await asyncio.sleep(0.02)


def run(main: Callable[[Bench], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch, asked: int = 1420) -> None:
    monkeypatch.setattr(module, "_SETTLE", 0.002)
    monkeypatch.setattr(module, "_CHECK", 0.005)

    async def guarded() -> None:
        bench = Bench(asked)
        tasks = [asyncio.create_task(one) for one in (bench.path_mtu.run(), bench.path_mtu.watch())]
        await main(bench)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(guarded(), 20))


def test_a_path_that_takes_all_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.path_mtu.look_again(SUPERNODE)
        await bench.settled(1)
        assert (bench.taps, bench.told, bench.path_mtu.mtu) == ([], [], 1420)

    run(main, monkeypatch)


def test_the_tap_follows_the_path_to_the_supernode_down_and_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.paths[ME, SUPERNODE] = 1280
        bench.path_mtu.look_again(SUPERNODE)
        await until(lambda: bench.told)
        assert bench.taps == [1203]
        level, event, fields = bench.told[0]
        assert (level, event, fields["mtu"], fields["configured"]) == ("warning", "mtu", 1203, 1420)
        assert "1280 bytes" in str(fields["why"])
        bench.path_mtu.look_again()
        await bench.settled(2)
        assert len(bench.told) == 1, "told once"
        bench.paths[ME, SUPERNODE] = 1500
        bench.path_mtu.look_again()
        await until(lambda: len(bench.told) == 2)
        assert bench.taps == [1203, 1420]
        assert bench.told[1][0] == "info"
        bench.paths[ME, SUPERNODE] = 100
        bench.path_mtu.look_again()
        await until(lambda: len(bench.told) == 3)
        assert bench.taps[-1] == 576

    run(main, monkeypatch)


def test_a_supernode_that_does_not_answer_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.paths[ME, SUPERNODE] = None
        bench.path_mtu.look_again(SUPERNODE)
        await bench.settled(1)
        assert (bench.taps, bench.told, bench.path_mtu.mtu) == ([], [], 1420)

    run(main, monkeypatch)


def test_each_peers_connections_fit_its_present_path(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.path_mtu.look_again(SUPERNODE)
        bench.paths |= {(OURS, THERE): 1280, (OURS, ELSEWHERE): 1400}
        bench.path_mtu.peer_put(OURS, SUPERNODE, False)
        bench.path_mtu.peer_put(OURS, THERE, True)
        assert bench.path_mtu.measured(OURS) is None
        await until(lambda: bench.clamps.get(OURS) == 1203)
        assert bench.path_mtu.measured(OURS) == 1203
        bench.path_mtu.peer_put(OURS, ELSEWHERE, True)
        assert bench.clamps[OURS] == 0, "not known yet"
        assert bench.path_mtu.measured(OURS) is None
        await until(lambda: bench.clamps[OURS] == 1323)
        bench.path_mtu.peer_put(OURS, ELSEWHERE, False)
        assert bench.clamps[OURS] == 0, "the path to the supernode takes all"
        bench.path_mtu.peer_put(OURS, ELSEWHERE, True)
        assert bench.clamps[OURS] == 1323, "known from before"
        bench.path_mtu.peer_dropped(OURS)
        bench.path_mtu.peer_put(OURS, SUPERNODE, False)
        assert len(bench.measured) == 3

    run(main, monkeypatch)


def test_relayed_peers_share_the_path_to_the_supernode(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.path_mtu.peer_put(OLD, THERE, False)
        bench.paths[ME, SUPERNODE] = 1280
        bench.path_mtu.look_again(SUPERNODE)
        await until(lambda: bench.clamps.get(OLD) == 1203)

    run(main, monkeypatch)


def test_v5_peers_are_probed_with_what_they_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.paths[OLD, THERE] = 1280
        bench.path_mtu.peer_put(OLD, THERE, True)
        bench.path_mtu.peer_put(OURS, ELSEWHERE, True)
        bench.path_mtu.look_again(SUPERNODE)
        await until(lambda: bench.clamps.get(OLD) == 1203)
        assert bench.plain == {OLD}

    run(main, monkeypatch)


def test_a_peer_of_which_nothing_is_known_is_left_alone_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.kinds[OLD] = "unknown"
        bench.paths[OLD, THERE] = 1280
        bench.path_mtu.peer_put(OLD, THERE, True)
        bench.path_mtu.look_again(SUPERNODE)
        await bench.settled(1)
        assert bench.measured == [(ME, SUPERNODE)]
        bench.kinds[OLD] = "v5"
        await bench.sends(OLD, lambda: bench.clamps.get(OLD) == 1203)

    run(main, monkeypatch)


@pytest.mark.parametrize("mac", [OURS, OLD])
def test_a_path_in_use_that_shrinks_is_noticed(mac: MacAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.paths[mac, THERE] = 1500
        bench.path_mtu.look_again(SUPERNODE)
        bench.path_mtu.peer_put(mac, THERE, True)
        await bench.settled(2)
        await bench.sends(mac, lambda: bench.checked)
        assert set(bench.checked) == {(mac, THERE, 1497)}
        bench.paths[mac, THERE] = 1300
        await bench.sends(mac, lambda: bench.clamps.get(mac) == 1223)
        level, event, fields = bench.told[-1]
        assert (level, event, fields["mtu"], fields["before"]) == ("info", "peer_mtu", 1223, 1420)
        assert len(bench.measured) == 2, "found by the check itself"
        bench.paths[mac, THERE] = None
        seen = len(bench.checked)
        await bench.sends(mac, lambda: len(bench.checked) > seen + 2)
        assert bench.clamps[mac] == 1223, "a path that is cut tells nothing"

    run(main, monkeypatch)


def test_a_path_with_small_packets_only_or_none_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.paths[OURS, THERE] = 1500
        bench.path_mtu.look_again(SUPERNODE)
        bench.path_mtu.peer_put(OURS, THERE, True)
        await bench.settled(2)
        ticks = 0

        async def sleep(seconds: float) -> None:
            nonlocal ticks
            ticks += seconds == module._CHECK
            await slept(seconds)

        slept = asyncio.sleep
        monkeypatch.setattr(module.asyncio, "sleep", sleep)
        bench.path_mtu.used(OTHER)
        while ticks < 30:
            bench.bytes[OURS] += 20
            bench.path_mtu.used(OURS)
            await slept(0.001)
        assert bench.checked == []
        await slept(0.1)  # it falls asleep
        before = ticks
        await slept(0.05)
        assert ticks == before

    run(main, monkeypatch)


def test_relayed_peers_are_measured_by_way_of_the_supernode_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their own path to the supernode may be smaller than ours."""

    async def main(bench: Bench) -> None:
        bench.paths |= {(OURS, SUPERNODE): 1400, (OLD, SUPERNODE): None}
        for mac in (OURS, OLD):
            bench.path_mtu.peer_put(mac, THERE, False)
        bench.path_mtu.look_again(SUPERNODE)
        await bench.settled(1)
        assert bench.measured == [(ME, SUPERNODE)]
        await bench.sends(OURS, lambda: bench.clamps.get(OURS) == 1323)
        bench.paths[OURS, SUPERNODE] = 1300
        await bench.sends(OURS, lambda: bench.clamps.get(OURS) == 1223)
        assert bench.taps == []
        await bench.sends(OLD, lambda: (OLD, SUPERNODE) in bench.measured)
        bench.paths[ME, SUPERNODE] = 1280
        await bench.sends(OLD, lambda: bench.taps == [1203])
        assert (bench.clamps[OLD], bench.clamps[OURS]) == (1203, 1203)
        assert bench.measured.count((OLD, SUPERNODE)) == 1, "it answered nothing"
        assert bench.measured.count((ME, SUPERNODE)) == 1

    run(main, monkeypatch)


def test_auto_takes_what_the_path_to_the_supernode_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.paths = {(ME, SUPERNODE): 9000, (OURS, THERE): 1500, (OLD, ELSEWHERE): None}
        bench.path_mtu.look_again(SUPERNODE)
        bench.path_mtu.peer_put(OURS, THERE, True)
        bench.path_mtu.peer_put(OLD, ELSEWHERE, True)
        assert bench.path_mtu.mtu == 1420, "until more is known"
        await until(lambda: bench.told)
        assert bench.taps == [8923]
        assert (bench.told[0][0], bench.told[0][2]["configured"]) == ("info", "auto")
        await until(lambda: bench.clamps.get(OURS) == 1423)
        await until(lambda: bench.clamps.get(OLD) == 1420)
        bench.paths[ME, SUPERNODE] = 1280
        bench.path_mtu.look_again()
        await until(lambda: len(bench.told) == 2)
        assert bench.taps == [8923, 1203]
        assert bench.told[1][0] == "warning", "too small for IPv6"
        bench.paths[ME, SUPERNODE] = 65_000
        bench.path_mtu.look_again()
        await until(lambda: len(bench.told) == 3)
        assert bench.taps[-1] == 9000, "more, the data plane does not carry"

    run(main, monkeypatch, asked=0)
