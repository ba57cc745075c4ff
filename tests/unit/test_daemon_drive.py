"""The wire between core and plane: order, timers, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from n2n.daemon.drive import Drive, PlaneThread
from n2n.types import Endpoint, MacAddress
from tests.unit.daemon_fakes import FakeCore, FakePlane, until


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def test_datagrams_reach_the_core_in_order_and_actions_come_out() -> None:
    async def main() -> None:
        plane, core, done = FakePlane(), FakeCore(), []
        drive = Drive(core, plane, done.extend)
        drive.start()
        sent = [b"%d" % number for number in range(200)]
        for datagram in sent:
            plane.feed(datagram, b"\xc0\0\2\1", 99)
        await until(lambda: len(done) == 200)
        drive.stop()
        assert done == sent
        assert core.seen[0] == (b"0", Endpoint.parse("192.0.2.1:99"))

    run(main)


def test_notices_reach_a_core_that_wants_them_between_the_datagrams() -> None:
    async def main() -> None:
        plane, core, done = FakePlane(), FakeCore(), []
        drive = Drive(core, plane, done.extend)
        drive.start()
        plane.feed(b"one")
        plane.notice(b"\2\0\0\0\0\7")
        plane.feed(b"two")
        await until(lambda: len(done) == 2)
        drive.stop()
        assert core.wanted == [MacAddress(b"\2\0\0\0\0\7")]
        assert [datagram for datagram, _ in core.seen] == [b"one", b"two"]
        assert drive.faults == 0

    run(main)


def test_notices_for_a_core_without_use_for_them_are_let_go() -> None:
    class Deaf(FakeCore):
        traffic = None  # type: ignore[assignment]

    async def main() -> None:
        plane, core, done = FakePlane(), Deaf(), []
        drive = Drive(core, plane, done.extend)
        drive.start()
        plane.notice(bytes(6))
        plane.feed(b"one")
        await until(lambda: done)
        drive.stop()
        assert drive.faults == 0
        assert len(core.seen) == 1

    run(main)


def test_what_actions_cause_is_carried_out_too() -> None:
    async def main() -> None:
        plane, core, done = FakePlane(), FakeCore(), []

        def execute(actions: Any) -> None:
            done.append(list(actions))
            if len(done) == 1:
                core.actions.append("more")

        drive = Drive(core, plane, execute)
        core.actions.append("first")
        drive.start()
        drive.stop()
        assert done == [["first"], ["more"]]

    run(main)


def test_the_timer_fires_when_due_and_follows_changes() -> None:
    async def main() -> None:
        plane, core = FakePlane(), FakeCore()
        drive = Drive(core, plane, lambda actions: None)
        core.due = time.monotonic() + 3600
        drive.start()
        await asyncio.sleep(0.02)
        assert core.timers == 0
        core.due = time.monotonic()
        drive.settle()
        await until(lambda: core.timers)
        await asyncio.sleep(0.02)
        assert core.timers == 1, "due once, called once"
        core.due = time.monotonic() + 0.01
        drive.settle()
        drive.stop()
        await asyncio.sleep(0.05)
        assert core.timers == 1, "a stopped drive has no timer"

    run(main)


def test_a_fault_of_the_core_loses_one_packet_and_is_counted() -> None:
    async def main() -> None:
        plane, core, done = FakePlane(), FakeCore(), []
        core.raise_on = b"bad"
        drive = Drive(core, plane, done.extend)
        drive.start()
        for datagram in (b"one", b"bad", b"two"):
            plane.feed(datagram)
        await until(lambda: len(done) == 2)
        drive.stop()
        assert done == [b"one", b"two"]
        assert drive.faults == 1

    run(main)


def test_a_timer_that_fails_does_not_spin() -> None:
    async def main() -> None:
        plane, core = FakePlane(), FakeCore()
        core.due, core.timer_raises = 0.0, True
        drive = Drive(core, plane, lambda actions: None)
        drive.start()
        await asyncio.sleep(0.2)
        drive.stop()
        assert 1 <= drive.faults <= 2
        assert core.timers == drive.faults

    run(main)


@pytest.mark.parametrize("cause", [OSError(19, "No such device"), None])
def test_a_plane_that_dies_is_heard_of(cause: BaseException | None) -> None:
    async def main() -> None:
        plane, heard = FakePlane(), []
        thread = PlaneThread(plane, asyncio.get_running_loop(), heard.append)
        thread.start()
        plane.die(cause)
        await until(lambda: heard)
        expected = "OSError: [Errno 19] No such device" if cause else "it returned without being told to"
        assert heard == [expected]
        assert thread.stop()

    run(main)


def test_a_plane_that_stops_when_told_is_no_news() -> None:
    async def main() -> None:
        plane, heard = FakePlane(), []
        thread = PlaneThread(plane, asyncio.get_running_loop(), heard.append)
        thread.start()
        assert thread.stop()
        await asyncio.sleep(0.01)
        assert heard == []

    run(main)


def test_a_plane_that_hangs_is_told_so() -> None:
    async def main() -> None:
        plane = FakePlane()
        plane.refuses_to_stop = True
        thread = PlaneThread(plane, asyncio.get_running_loop(), lambda cause: None)
        thread.start()
        assert not thread.stop(timeout=0.01)
        plane.stopped.set()
        assert thread.stop()

    run(main)
