"""The lab's routers do what their names say: mapping and filtering are measured with plain sockets, not assumed."""

from __future__ import annotations

import errno
import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nat import KINDS, TOOLS, Internet, Router, Site
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping

from .needs import need_tool
from .reflectors import PATIENCE, Found, Reflectors, Socket, measure, opened

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    for tool in TOOLS:
        need_tool(tool)
    with Lab() as lab:
        yield Internet(lab)


@pytest.fixture(scope="module")
def world(internet: Internet) -> Iterator[Reflectors]:
    with Reflectors(internet) as found:
        yield found


def site(internet: Internet, kind: str, **more: bool) -> Site:
    return internet.site(f"h{next(_numbers)}", kind, **more)


@pytest.mark.parametrize(
    ("kind", "mapping", "filtering", "preserved"),
    [
        ("full", "independent", "anybody", True),
        ("addr", "independent", "address", True),
        ("port", "independent", "endpoint", True),
        ("symmetric", "dependent", "endpoint", False),
        ("open", "independent", "anybody", True),
        ("carrier", "dependent", "endpoint", False),
    ],
)
def test_a_router_maps_and_filters_as_its_kind_says(
    internet: Internet, world: Reflectors, kind: str, mapping: str, filtering: str, preserved: bool
) -> None:
    behind = site(internet, kind)
    assert measure(behind.host, world) == Found(mapping, filtering, preserved, behind.public)


def test_where_udp_is_blocked_only_the_supernodes_port_is_reached(internet: Internet, world: Reflectors) -> None:
    behind = site(internet, "blocked")
    with opened(behind.host) as (one,):
        one.send(b"?", world.first)
        assert one.reflexive(world.relay)[0] == behind.public
        assert one.pending() == []
        assert ping(behind.host, world.first[0], count=1).received == 1, "all but UDP passes"
        world.stranger.send(b"let me in", one.reflexive(world.relay))
        one.reflexive(world.relay)
        assert one.pending() == []
        behind.router.become("port", udp_ports=())
        one.send(b"?", world.relay)
        behind.router.become("port")
        one.reflexive(world.first)
        assert one.pending() == []


def test_every_kind_can_be_made_and_others_are_refused_by_name(internet: Internet) -> None:
    assert {"full", "addr", "port", "symmetric", "open", "carrier", "blocked"} == set(KINDS)
    with pytest.raises(ValueError, match=r"'cone'.*full, addr"):
        internet.site("x", "cone")
    with pytest.raises(ValueError, match=r"'symmetric' has no hairpin"):
        internet.router("x", "symmetric", hairpin=True)


@pytest.mark.parametrize("kind", ["full", "addr", "port"])
def test_hosts_of_one_lan_meet_at_their_external_endpoints_only_with_hairpin(
    internet: Internet, world: Reflectors, kind: str
) -> None:
    behind = site(internet, kind)
    other = behind.router.attach(f"{behind.name}-2")
    for hairpin in (False, True):
        behind.router.become(kind, hairpin=hairpin)
        with opened(behind.host) as (one,), opened(other) as (two,):
            ours, theirs = one.reflexive(world.first), two.reflexive(world.first)
            for _ in range(2):
                one.send(b"hello", theirs)
                two.send(b"hello", ours)
            one.reflexive(world.first)
            two.reflexive(world.first)
            expected = {(b"hello", theirs)} if hairpin else set()
            assert set(one.pending()) == expected
            assert bool(two.pending()) is hairpin
            one.send(b"near", (other.addr, two.port))
            assert two.receive() == (b"near", (behind.host.addr, one.port)), "the LAN itself is open"
    with opened(behind.host) as (one,), opened(other) as (two,):
        one.reflexive(world.first)
        behind.router.rebind()
        ours, theirs = one.reflexive(world.first), two.reflexive(world.first)
        assert ours[1] != one.port
        one.send(b"hello", theirs)
        assert two.receive() == (b"hello", ours), "also by a port that was given anew"


@pytest.mark.parametrize("kind", ["full", "addr", "port", "symmetric", "carrier"])
def test_rebinding_gives_new_ports_and_forgets_the_old_ones(internet: Internet, world: Reflectors, kind: str) -> None:
    behind = site(internet, kind)
    with opened(behind.host) as (one,):
        before = one.reflexive(world.first)
        assert behind.outer.mappings()
        behind.outer.rebind()
        after = one.reflexive(world.first)
        assert after[0] == before[0]
        assert after[1] != before[1]
        world.sockets[world.first].send(b"old", before)
        world.sockets[world.first].send(b"new", after)
        one.reflexive(world.first)
        assert [data for data, _ in one.pending()] == [b"new"]
        again = one.reflexive(world.second)
        assert (again == after) is (kind in ("full", "addr", "port")), (
            "the new port is for everybody, as the old one was"
        )


def test_a_router_that_started_anew_lets_nobody_in_until_written_to(internet: Internet, world: Reflectors) -> None:
    behind = site(internet, "full")
    with opened(behind.host) as (one,):
        before = one.reflexive(world.first)
        world.stranger.send(b"first", before)
        assert one.receive()[0] == b"first"
        behind.router.forget()
        world.stranger.send(b"second", before)
        assert one.reflexive(world.first) == before
        world.stranger.send(b"third", before)
        assert one.receive()[0] == b"third"


def test_a_router_changes_its_address(internet: Internet, world: Reflectors) -> None:
    for kind in ("full", "symmetric", "open", "carrier"):
        behind = site(internet, kind)
        with opened(behind.host) as (one,):
            before = one.reflexive(world.first)
            address = behind.outer.change_address()
            after = one.reflexive(world.first)
            if kind == "open":
                assert after == before, "a host with a public address of its own keeps it"
            else:
                assert after[0] == address == behind.public != before[0]
        assert measure(behind.host, world).ip == behind.public


@pytest.mark.parametrize("kind", ["full", "port"])
def test_a_mapping_ends_when_nothing_passes_and_lives_on_when_something_does(
    internet: Internet, world: Reflectors, kind: str
) -> None:
    router = (behind := site(internet, kind)).router
    router.set_timeouts(1, 1)
    with opened(behind.host) as (one,):
        there = one.reflexive(world.first)
        for _ in range(15):
            time.sleep(0.1)
            one.send(b".", world.first)
        world.sockets[world.first].send(b"in time", there)
        assert one.receive()[0] == b"in time"
        wait_until("the mapping ends", lambda: not (router.mappings() or learnt(router)), PATIENCE, every=0.2)
        world.sockets[world.first].send(b"late", there)
        one.reflexive(world.first)
        assert one.pending() == []


def learnt(router: Router) -> bool:
    listed = router.host.run("nft", "list", "map", "ip", "n2n_nat", "inside").stdout
    return "elements" in listed


def test_cutting_stops_udp_between_two_sites_and_nothing_else(internet: Internet, world: Reflectors) -> None:
    one, two = site(internet, "full"), site(internet, "open")
    with opened(one.host) as (here,), opened(two.host) as (there,):
        ours, theirs = here.reflexive(world.first), there.reflexive(world.first)

        def both_ways() -> tuple[int, int]:
            here.send(b"over", theirs)
            there.send(b"back", ours)
            here.reflexive(world.first)
            there.reflexive(world.first)
            return len(here.pending()), len(there.pending())

        assert both_ways() == (1, 1)
        internet.cut(one, two)
        assert both_ways() == (0, 0)
        assert ping(one.host, two.public, count=1).received == 1
        internet.mend(one, two)
        assert both_ways() == (1, 1)


def test_hosts_of_one_lan_can_be_cut_too(internet: Internet) -> None:
    behind = site(internet, "port")
    other = behind.router.attach(f"{behind.name}-2")
    with opened(behind.host) as (one,), opened(other) as (two,):
        behind.router.fence.cut(behind.host.addr, other.addr)
        one.send(b"first", (other.addr, two.port))
        behind.router.fence.mend(behind.host.addr, other.addr)
        one.send(b"second", (other.addr, two.port))
        assert two.receive()[0] == b"second"


IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_RECVERR = 10, 2, 11  # linux/in.h


@pytest.mark.parametrize("black_hole", [False, True])
def test_a_small_path_is_told_unless_icmp_is_filtered(internet: Internet, world: Reflectors, black_hole: bool) -> None:
    """1,252 bytes of UDP fit into 1,280 bytes of IPv4, 1,253 do not: out of the LAN, and into it."""
    behind = site(internet, "full")
    behind.router.set_mtu(1280, black_hole=black_hole)
    with opened(behind.host) as (one,), opened(internet.lab.hosts["two"]) as (far,):
        ours = one.reflexive(world.first)
        one.send(b"?", (internet.lab.hosts["two"].addr, far.port))
        far.receive()
        theirs = (internet.lab.hosts["two"].addr, far.port)
        for sender, receiver, to in ((one, far, theirs), (far, one, ours)):
            sender.raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            sender.raw.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)  # an ICMP error is told at once
            sender.send(b"x" * 1253, to)
            if not black_hole:
                wait_until("the sender is told", lambda one=sender: error_of(one) == errno.EMSGSIZE, PATIENCE)
            sender.send(b"y" * 1252, to)
            received = {receiver.receive()[0]} | {data for data, _ in receiver.pending()}
            assert received == {b"y" * 1252}
            assert not error_of(sender)
            sender.raw.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)


def error_of(sender: Socket) -> int:
    return sender.raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_a_routers_namespace_keeps_what_others_put_there(internet: Internet) -> None:
    router = site(internet, "full").router
    router.host.run("nft", "add", "table", "inet", "somebody")
    router.rebind()
    assert "somebody" in router.host.run("nft", "list", "tables").stdout
