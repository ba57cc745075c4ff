"""What follows from a measured path: the TAP's MTU, and which peers' connections are made to fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from n2n.daemon import mtu as module
from n2n.daemon.mtu import PathMtu, Surface
from n2n.types import Endpoint, MacAddress
from tests.unit.daemon_fakes import until

ME, OURS, OLD = (MacAddress(bytes([2, 0, 0, 0, 0, n])) for n in (1, 2, 3))
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
    def __init__(self) -> None:
        self.paths: dict[tuple[MacAddress, Endpoint], int | None] = {(ME, SUPERNODE): 1500}
        self.measured: list[tuple[MacAddress, Endpoint]] = []
        self.asked = 1420
        self.taps: list[int] = []
        self.clamps: dict[MacAddress, int] = {}
        self.told: list[tuple[str, str, dict[str, object]]] = []
        self.path_mtu = PathMtu(
            self,  # type: ignore[arg-type]
            ME,
            SEALED,
            asked=lambda: self.asked,
            peers=lambda: [SimpleNamespace(mac=OURS, kind="n2n"), SimpleNamespace(mac=OLD, kind="v5")],  # type: ignore[list-item]
            set_tap=self.set_tap,
            clamp=self.clamps.__setitem__,
            tell=lambda *what: self.told.append(what),
        )

    async def measure(self, dest: MacAddress, endpoint: Endpoint, most: int) -> int | None:
        self.measured.append((dest, endpoint))
        limit = self.paths.get((dest, endpoint))
        return None if limit is None else min(limit, most)

    async def set_tap(self, mtu: int) -> None:
        self.taps.append(mtu)

    async def settled(self, count: int) -> None:
        await until(lambda: len(self.measured) >= count)
        await asyncio.sleep(0.02)


def run(main: Callable[[Bench], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE", 0.002)

    async def guarded() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.path_mtu.run())
        await main(bench)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

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
        await until(lambda: bench.clamps.get(OURS) == 1203)
        bench.path_mtu.peer_put(OURS, ELSEWHERE, True)
        assert bench.clamps[OURS] == 0, "not known yet"
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


def test_v5_peers_are_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        bench.path_mtu.peer_put(OLD, THERE, True)
        bench.path_mtu.look_again(SUPERNODE)
        await bench.settled(1)
        assert bench.measured == [(ME, SUPERNODE)]

    run(main, monkeypatch)
