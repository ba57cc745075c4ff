"""The edge's port mapping with routers that are made up: what it does, what it tells, and that it always goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from n2n.daemon.portmap import PortMapper, PortMapState, PortMapTimes
from n2n.errors import PlatformError
from n2n.net.portmap import Cause, Gateway, Mapping, Method, NotMapped, RouterStatus, Wanted
from n2n.types import Endpoint

from .daemon_fakes import until

PUBLIC = IPv4Address("44.128.0.1")
GATEWAY = Gateway(IPv4Address("10.1.0.1"), IPv4Address("10.1.0.2"), "eth0")
SUPERNODE = Endpoint.of("44.128.0.10", 7777)
OUTSIDE = Endpoint(PUBLIC, 40001)
QUICK = PortMapTimes(lifetime=600, check=0.01, retry=0.01, longest_retry=0.02, again=0.001, prove=0.005, farewell=0.2)


class Router:
    """One method of a made-up router."""

    router = "10.1.0.1"

    def __init__(self, method: Method = "nat-pmp") -> None:
        self.method = method
        self.address: IPv4Address | None = PUBLIC
        self.lifetime = 600
        self.present: bool | None = None
        self.epoch: int | None = None
        self.error: Exception | None = None
        self.map_error: Exception | None = None
        self.maps: list[Wanted] = []
        self.unmaps: list[Mapping] = []

    async def status(self, mapping: Mapping | None = None) -> RouterStatus:
        if self.error is not None:
            raise self.error
        return RouterStatus(self.address, self.epoch, None if mapping is None else self.present)

    async def map(self, wanted: Wanted) -> Mapping:
        self.maps.append(wanted)
        if self.map_error is not None:
            raise self.map_error
        return Mapping(
            self.method, "udp", wanted.internal, wanted.external_port, self.address, self.lifetime, self.epoch
        )

    async def unmap(self, mapping: Mapping) -> None:
        self.unmaps.append(mapping)


class Rig:
    """A PortMapper with routers; `play` runs it beside a story."""

    def __init__(self, *routers: Router, mode: str = "auto", times: PortMapTimes = QUICK) -> None:
        self.routers = routers or (Router(),)
        self.gateway = GATEWAY
        self.no_gateway: Exception | None = None
        self.seen: Endpoint | None = None
        self.events: list[dict[str, object]] = []
        self.mapped: list[Endpoint | None] = []
        self.mode, self.times = mode, times
        self.local = Endpoint.of("0.0.0.0", 40001)
        self.supernode = SUPERNODE

    def _find(self, towards: Any, source: Any) -> Gateway:
        if self.no_gateway is not None:
            raise self.no_gateway
        return self.gateway

    def play(self, story: Callable[[PortMapper], Any]) -> PortMapper:
        async def main() -> PortMapper:
            mapper = PortMapper(
                self.mode,
                self.local,
                bytes(16),
                tell=lambda level, event, fields: self.events.append({"level": level, "event": event, **fields}),
                seen_as=lambda: self.seen,
                changed=self.mapped.append,
                times=self.times,
                find=self._find,
                make=lambda *_: list(self.routers),
            )
            task = asyncio.get_running_loop().create_task(mapper.run())
            mapper.supernode_at(self.supernode)
            async with asyncio.timeout(30):
                await story(mapper)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await mapper.close()
            return mapper

        return asyncio.run(main())


def reached(state: PortMapState) -> Callable[[PortMapper], Any]:
    return lambda mapper: until(lambda: mapper.view.state is state)


def test_a_mapping_is_unproven_until_a_packet_came_through_that_very_one() -> None:
    rig = Rig()

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.UNPROVEN)(mapper)
        mapper.proven(Endpoint(PUBLIC, 1))
        assert mapper.view.state is PortMapState.UNPROVEN
        mapper.proven(OUTSIDE)
        assert mapper.view.state is PortMapState.WORKING

    rig.play(story)
    assert [event["state"] for event in rig.events] == ["unproven", "working"]
    assert [event["level"] for event in rig.events] == ["info", "info"]
    assert rig.mapped == [OUTSIDE]
    assert [mapping.external_port for mapping in rig.routers[0].unmaps] == [40001]


def test_the_first_method_that_maps_is_used() -> None:
    first, second, third = Router("upnp"), Router("nat-pmp"), Router("pcp")
    first.error = NotMapped(Cause.SILENT, "no answer")
    second.map_error = NotMapped(Cause.FULL, "full")
    mapper = Rig(first, second, third).play(reached(PortMapState.UNPROVEN))
    assert mapper.view.method == "pcp"
    assert not first.maps


def test_what_fails_is_tried_again_and_told_once() -> None:
    rig = Rig()
    rig.routers[0].map_error = NotMapped(Cause.REFUSED, "the router said no")

    async def story(mapper: PortMapper) -> None:
        await until(lambda: len(rig.routers[0].maps) > 3)
        rig.routers[0].map_error = None
        await reached(PortMapState.UNPROVEN)(mapper)

    rig.play(story)
    assert [event["state"] for event in rig.events] == ["refused", "unproven"]
    assert rig.events[0]["remedy"] == Cause.REFUSED.value


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda router: setattr(router, "present", False), "no longer has the mapping"),
        (lambda router: setattr(router, "address", IPv4Address("44.128.0.2")), "address changed"),
        (lambda router: setattr(router, "epoch", 1), "restarted"),
        (lambda router: setattr(router, "error", NotMapped(Cause.SILENT, "gone")), "gone"),
    ],
)
def test_a_mapping_that_is_lost_is_made_again(break_it: Callable[[Router], None], why: str) -> None:
    rig = Rig()
    router = rig.routers[0]
    router.epoch = 5000

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.UNPROVEN)(mapper)
        mapper.proven(OUTSIDE)
        break_it(router)
        await until(lambda: mapper.counts["portmap_lost"])
        assert why in mapper.view.reason
        router.error, router.present = None, None
        await reached(PortMapState.UNPROVEN)(mapper)

    rig.play(story)
    assert None in rig.mapped, "nobody is told to use it meanwhile"
    assert len(router.maps) >= 2


def test_one_check_without_an_answer_loses_nothing() -> None:
    rig = Rig()
    router = rig.routers[0]

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.UNPROVEN)(mapper)
        asked = 0

        async def status(_: Mapping | None = None) -> RouterStatus:
            nonlocal asked
            asked += 1
            if asked % 3:
                raise NotMapped(Cause.SILENT, "busy")
            return RouterStatus(PUBLIC, None)

        router.status = status  # type: ignore[method-assign]
        await until(lambda: asked > 12)
        assert mapper.counts["portmap_lost"] == 0

    rig.play(story)


def test_it_is_renewed_and_lost_only_when_it_ended() -> None:
    rig = Rig(times=PortMapTimes(lifetime=1, check=100.0, retry=0.01, prove=0.005, again=0.001))
    router = rig.routers[0]
    router.lifetime = 1

    async def story(mapper: PortMapper) -> None:
        await until(lambda: len(router.maps) >= 2)
        assert mapper.counts["portmap_lost"] == 0
        router.map_error = NotMapped(Cause.SILENT, "no answer any more")
        await until(lambda: mapper.counts["portmap_lost"])

    rig.play(story)


def test_another_router_on_the_way_gets_its_own_mapping() -> None:
    rig = Rig()

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.UNPROVEN)(mapper)
        mapper.network_changed()  # but the way is the same
        await asyncio.sleep(0.05)
        assert rig.routers[0].unmaps == []
        rig.gateway = Gateway(IPv4Address("10.2.0.1"), IPv4Address("10.2.0.2"), "eth1")
        mapper.network_changed()
        await until(lambda: mapper.view.internal == Endpoint.of("10.2.0.2", 40001))

    rig.play(story)
    assert str(rig.routers[0].unmaps[0].internal) == "10.1.0.2:40001"


@pytest.mark.parametrize(("ip", "seen"), [("192.168.0.2", None), ("100.64.0.2", None), ("44.128.0.9", OUTSIDE)])
def test_double_nat_is_told_with_a_remedy_unless_a_packet_came_through(ip: str, seen: Endpoint | None) -> None:
    rig = Rig()
    rig.routers[0].address = IPv4Address(ip)
    rig.seen = seen

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.DOUBLE_NAT)(mapper)
        assert mapper.view.remedy
        mapper.proven(Endpoint.of(ip, 40001))
        assert mapper.view.state is PortMapState.WORKING

    rig.play(story)
    assert rig.events[0]["level"] == "warning"


def test_a_router_that_does_not_tell_its_address_has_the_one_that_the_supernode_sees() -> None:
    rig = Rig()
    rig.routers[0].address = None
    rig.seen = Endpoint(PUBLIC, 5)
    assert rig.play(reached(PortMapState.UNPROVEN)).view.external == OUTSIDE


def test_where_none_is_needed_nobody_is_asked() -> None:
    rig = Rig()
    rig.gateway = Gateway(IPv4Address("44.128.0.254"), PUBLIC, "eth0")
    rig.play(reached(PortMapState.NOT_NEEDED))
    assert not rig.routers[0].maps
    rig = Rig()
    rig.supernode = Endpoint.of("127.0.0.1", 7777)
    rig.play(reached(PortMapState.NOT_NEEDED))
    assert not rig.routers[0].maps


def test_switched_off_it_does_nothing() -> None:
    rig = Rig(mode="off")
    assert rig.play(lambda _: asyncio.sleep(0.02)).view.state is PortMapState.OFF
    rig = Rig()
    rig.local = Endpoint.of("2001:db8::1", 1)
    assert "IPv6" in rig.play(lambda _: asyncio.sleep(0.02)).view.reason
    rig.local = Endpoint.of("127.0.0.1", 1)
    assert "loopback" in rig.play(lambda _: asyncio.sleep(0.02)).view.reason
    assert not rig.routers[0].maps


@pytest.mark.parametrize("error", [NotMapped(Cause.NO_GATEWAY, "no way"), PlatformError("netlink is gone")])
def test_a_host_without_a_way_out_waits_for_one(error: Exception) -> None:
    rig = Rig()
    rig.no_gateway = error

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.NONE)(mapper)
        rig.no_gateway = None
        await reached(PortMapState.UNPROVEN)(mapper)

    rig.play(story)


def test_a_bug_costs_the_mapping_and_not_the_edge() -> None:
    rig = Rig()
    rig.routers[0].map_error = ZeroDivisionError("a bug")

    async def story(mapper: PortMapper) -> None:
        await reached(PortMapState.REFUSED)(mapper)
        assert "a bug" in mapper.view.reason
        assert mapper.counts["portmap_faults"] >= 1
        rig.routers[0].map_error = None
        await reached(PortMapState.UNPROVEN)(mapper)

    rig.play(story)


def test_a_router_that_does_not_answer_does_not_hold_the_end_up() -> None:
    rig = Rig()

    async def never(_: Mapping) -> None:
        await asyncio.Event().wait()

    rig.routers[0].unmap = never  # type: ignore[method-assign]
    rig.play(reached(PortMapState.UNPROVEN))
