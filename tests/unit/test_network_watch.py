"""When a change of the host's network is one, and that a sleep is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

import pytest

from n2n.daemon import surroundings as watching
from n2n.daemon.surroundings import Change, Watch
from n2n.errors import NetlinkError
from n2n.net import ClockJumps, NetworkEvents, Surroundings, Way
from tests.unit.daemon_fakes import until

HERE, THERE = ip_address("192.0.2.7"), ip_address("192.0.2.8")
SUPERNODE, OTHER = ip_address("198.51.100.1"), ip_address("198.51.100.2")
HOME = Surroundings((HERE,), Way(HERE, "eth0", "192.0.2.1", 2))


class Clocks:
    def __init__(self) -> None:
        self.now = [1000.0, 1000.0, 5e8]

    def __call__(self) -> tuple[float, float, float]:
        mono, boot, wall = self.now
        return mono, boot, wall

    def pass_by(self, mono: float, boot: float, wall: float) -> None:
        self.now = [a + b for a, b in zip(self.now, (mono, boot, wall), strict=True)]


@pytest.mark.parametrize(
    ("passed", "slept"),
    [
        ((2.0, 2.0, 2.0), 0.0),
        ((2.0, 2.9, 2.9), 0.0),
        ((2.0, 62.0, 62.0), 60.0),
        ((2.0, 2.0, 62.0), 60.0),  # a guest that was stopped and set right
        ((2.0, 2.0, 9.0), 0.0),  # NTP
        ((2.0, 2.0, -3600.0), 0.0),  # summer time, by somebody who sets the clock by hand
        ((2.0, 2.0, 5e8), 5e8 - 2),
    ],
)
def test_time_that_the_monotonic_clock_missed_is_a_sleep(passed: tuple[float, float, float], slept: float) -> None:
    clocks = Clocks()
    jumps = ClockJumps(clocks)
    clocks.pass_by(*passed)
    assert jumps.slept() == pytest.approx(slept)
    assert jumps.slept() == 0.0, "told once"


class Bench:
    """A watch of a network that a test changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_SETTLE", "_GAP", "_TICK"):
            monkeypatch.setattr(watching, name, 0.005)
        monkeypatch.setattr(watching, "_BLIND", 0.01)
        self.clocks = Clocks()
        self.seen: Surroundings | Exception = HOME
        self.target: Any = SUPERNODE
        self.looks = 0
        self.changes: list[Change] = []
        self.warnings: list[str] = []

    def look(self, target: object) -> Surroundings:
        self.looks += 1
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    def watch(self, listen: Callable[[], NetworkEvents] = NetworkEvents) -> Watch:
        jumps = ClockJumps(self.clocks)
        return Watch(
            self.look, lambda: self.target, self.changes.append, self.warnings.append, jumps=jumps, listen=listen
        )

    async def again(self, watch: Watch) -> list[Change]:
        """Let it look; what it told of that."""
        before, looks = len(self.changes), self.looks
        watch.look_again()
        await until(lambda: self.looks > looks)
        await asyncio.sleep(0.03)
        return self.changes[before:]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def run(bench: Bench, main: Callable[[Watch], Coroutine[Any, Any, None]], **more: Any) -> None:
    async def guarded() -> None:
        watch = bench.watch(**more)
        task = asyncio.create_task(watch.run())
        await until(lambda: bench.changes)
        await main(watch)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(guarded(), 20))


def test_the_first_look_is_told_without_a_reason(bench: Bench) -> None:
    async def main(watch: Watch) -> None:
        assert bench.changes == [Change(HOME, "", "192.0.2.7 on eth0 via 192.0.2.1")]
        assert await bench.again(watch) == [], "nothing is different"

    run(bench, main)


@pytest.mark.parametrize(
    "way",
    [Way(THERE, "eth0", "192.0.2.1", 2), Way(HERE, "wlan0", "192.0.2.1", 2), Way(HERE, "eth0", None, 2),
     Way(HERE, "eth0", "192.0.2.1", 4)],
    ids=["source", "device", "gateway", "cable"],
)  # fmt: skip
def test_another_way_to_the_supernode_is_a_change(bench: Bench, way: Way) -> None:
    async def main(watch: Watch) -> None:
        bench.seen = Surroundings((HERE,), way)
        assert [change.reason for change in await bench.again(watch)] == ["network_changed"]

    run(bench, main)


def test_other_addresses_alone_are_told_without_a_reason(bench: Bench) -> None:
    async def main(watch: Watch) -> None:
        bench.seen = Surroundings((HERE, THERE), HOME.way)
        (change,) = await bench.again(watch)
        assert (change.reason, change.seen.addresses) == ("", (HERE, THERE))

    run(bench, main)


def test_nothing_is_found_anew_before_there_is_a_way_again(bench: Bench) -> None:
    async def main(watch: Watch) -> None:
        bench.seen = Surroundings((), None)
        (lost,) = await bench.again(watch)
        assert (lost.reason, lost.what) == ("", "there is no route to the supernode")
        bench.seen = HOME
        assert [change.reason for change in await bench.again(watch)] == ["network_changed"], "as it was, but late"

    run(bench, main)


def test_another_supernode_is_no_change_of_this_hosts_network(bench: Bench) -> None:
    async def main(watch: Watch) -> None:
        bench.seen = Surroundings((THERE,), Way(THERE, "wg0", None, 0))
        bench.target = OTHER
        assert [change.reason for change in await bench.again(watch)] == [""]

    run(bench, main)


def test_a_sleep_is_noticed_without_any_message(bench: Bench) -> None:
    async def main(watch: Watch) -> None:
        bench.clocks.pass_by(1.0, 3600.0, 3600.0)
        await until(lambda: len(bench.changes) == 2)
        assert bench.changes[1].reason == "woke_up"
        await asyncio.sleep(0.05)
        assert len(bench.changes) == 2

    run(bench, main)


def test_a_look_that_fails_is_told_once_and_the_next_one_counts(bench: Bench) -> None:
    async def main(watch: Watch) -> None:
        bench.seen = NetlinkError("the kernel is busy")
        assert await bench.again(watch) == []
        assert await bench.again(watch) == []
        assert bench.warnings == ["the kernel is busy"]
        bench.clocks.pass_by(1.0, 3600.0, 3600.0)
        await until(lambda: len(bench.changes) == 2)
        assert bench.changes[1].reason == "woke_up", "a sleep counts, whatever cannot be seen"
        bench.seen = Surroundings((), Way(HERE, "eth1", None, 0))
        assert [change.reason for change in await bench.again(watch)] == ["network_changed"]

    run(bench, main)


def test_without_messages_of_the_kernel_it_looks_by_itself(bench: Bench) -> None:
    def refused() -> NetworkEvents:
        raise NetlinkError("AF_NETLINK is forbidden here")

    async def main(watch: Watch) -> None:
        assert bench.warnings == ["AF_NETLINK is forbidden here"]
        bench.seen = Surroundings((HERE,), Way(HERE, "eth1", None, 0))
        await until(lambda: len(bench.changes) == 2)
        assert bench.changes[1].reason == "network_changed"

    run(bench, main, listen=refused)


def test_many_changes_make_few_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SETTLE", 0.1)
    monkeypatch.setattr(watching, "_GAP", 0.2)

    async def main(watch: Watch) -> None:
        for _ in range(100):
            watch.look_again()
            await asyncio.sleep(0.001)
        await until(lambda: bench.looks >= 2)
        assert bench.looks <= 4

    run(bench, main)


def test_it_ends_when_told_to_though_a_message_comes_at_the_same_time(bench: Bench) -> None:
    async def main() -> None:
        watch = bench.watch()
        task = asyncio.create_task(watch.run())
        await until(lambda: bench.changes)
        await asyncio.sleep(0.02)
        watch.look_again()
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

    asyncio.run(asyncio.wait_for(main(), 20))
