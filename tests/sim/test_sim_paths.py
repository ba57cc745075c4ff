"""Which way frames go: direct where it can be, relayed where it must be, never to another community."""

from __future__ import annotations

import itertools

import pytest

from n2n.types import BROADCAST_MAC, Endpoint
from n2n.wire import P2PStatus, PacketType, ProtoV, build, community_id
from tests.sim.network import Nat
from tests.sim.nodes import Edge, World
from tests.sim.plane_model import frame

KINDS = ("open", "full", "address", "port", "symmetric")


def pair(first: str, second: str) -> tuple[World, Edge, Edge]:
    world = World()
    edges = []
    for number, kind in enumerate((first, second)):
        nat = None if kind == "open" else Nat(kind, f"192.0.2.{number + 1}")
        edges.append(world.edge(nat=nat))
    return world, edges[0], edges[1]


def can_reach(source: str, target: str) -> bool:
    """Whether datagrams for the endpoint that the supernode saw get in, both sides pinging."""
    if target == "symmetric":
        return False
    return target != "port" or source != "symmetric"


@pytest.mark.parametrize(("first", "second"), list(itertools.product(KINDS, KINDS)))
def test_every_pair_of_nats_talks_and_goes_direct_where_it_can(first: str, second: str) -> None:
    world, a, b = pair(first, second)
    world.run_until(lambda: a.registered and b.registered, 1.0)
    assert world.delivers(a, b, wait=0.5)
    world.run_for(20.0)
    assert (a.reaches(b), b.reaches(a)) == (can_reach(first, second), can_reach(second, first))
    relayed = [world.network.sent[world.supernode.endpoint]]
    for source, dest in ((a, b), (b, a)):
        assert world.delivers(source, dest, wait=0.1)
        relayed.append(world.network.sent[world.supernode.endpoint])
        assert (relayed[-1] == relayed[-2]) == source.reaches(dest)
    for source, dest in ((a, b), (b, a)):
        view = source.view(dest)
        assert view.one_way == (source.reaches(dest) and not dest.reaches(source))


def test_paths_through_nats_are_kept_open() -> None:
    world, a, _ = pair("port", "port")
    world.run_until(world.all_direct, 8.0)
    world.run_for(3600.0)
    assert world.all_direct()
    assert len(a.noted("path")) == 2


def test_a_nat_that_starts_again_is_survived() -> None:
    world, a, b = pair("port", "address")
    world.run_until(world.all_direct, 8.0)
    assert a.host.nat is not None
    a.host.nat.forget()
    world.run_until(lambda: b.view(a).endpoint.port == 30_001 or b.view(a).endpoint.port > 30_001, 12.0)
    world.run_until(world.all_direct, 20.0)
    assert world.delivers(a, b)
    assert world.delivers(b, a)


def test_no_direct_frame_passes_where_direct_is_blocked_and_all_arrive() -> None:
    world = World()
    a, b, c = (world.edge() for _ in range(3))
    world.network.cut_between(a.host, b.host)
    direct: list[bytes] = []
    ends = {a.host.ip, b.host.ip}

    def tap(datagram: bytes, source: Endpoint, to: Endpoint) -> None:
        if {source.ip, to.ip} == ends and datagram[2] != PacketType.PING:
            direct.append(datagram)

    world.network.tap.append(tap)
    world.run_for(200.0)
    assert not a.reaches(b)
    assert a.reaches(c)
    assert a.view(b).status is P2PStatus.UNAVAILABLE
    for source, dest in itertools.permutations((a, b, c), 2):
        assert world.delivers(source, dest, wait=0.5)
    assert world.floods(a, wait=0.5) == {"edge2", "edge3"}
    assert not direct
    assert a.plane.counts["relay"] == 1


def test_a_path_that_was_blocked_for_long_comes_by_itself() -> None:
    world = World()
    a, b = world.edge(), world.edge()
    world.network.cut_between(a.host, b.host)
    world.run_for(1800.0)
    before = world.count_to(a)
    world.run_for(600.0)
    assert (world.count_to(a) - before)["ping"] <= 4 * 12, "slowly"
    world.network.mend_between(a.host, b.host)
    world.run_until(world.all_direct, 80.0)
    assert a.view(b).reason == "answered"
    assert world.delivers(a, b)


def test_a_cut_path_falls_back_to_the_relay_and_returns() -> None:
    world = World()
    a, b = world.edge(), world.edge()
    world.run_until(world.all_direct, 8.0)
    world.network.cut_between(a.host, b.host)
    assert not world.delivers(a, b, wait=1.0), "it is not noticed at once"
    world.run_until(lambda: not a.reaches(b) and not b.reaches(a), 16.0)
    assert world.delivers(a, b, wait=0.5)
    assert a.view(b).reason == "silent"
    world.run_for(20.0)
    world.network.mend_between(a.host, b.host)
    world.run_until(world.all_direct, 7.0)
    assert [n.fields["reason"] for n in a.noted("path")] == ["discovered", "answered", "silent", "answered"]


def test_two_communities_never_see_each_other() -> None:
    world = World()
    red = [world.edge(community="red") for _ in range(3)]
    blue = [world.edge(community="blue") for _ in range(3)]
    world.run_until(lambda: world.all_direct(*red) and world.all_direct(*blue), 8.0)
    check_apart(world, red, blue)


def test_two_communities_with_one_id_never_see_each_other(vectors) -> None:  # type: ignore[no-untyped-def]
    pair = vectors("community_collision")["vectors"][0]
    assert community_id(pair["name_a"]) == community_id(pair["name_b"])
    world = World()
    red = [world.edge(community=pair["name_a"]) for _ in range(3)]
    blue = [world.edge(community=pair["name_b"]) for _ in range(3)]
    world.run_for(20.0)
    # The supernode serves who came first and refuses the other name; what it may not do is mix them.
    served = [group for group in (red, blue) if all(e.registered for e in group)]
    assert len(served) == 1
    assert len([e for e in world.edges if e.registered]) == 3
    (members,) = served
    assert world.floods(members[0]) == {e.settings.name for e in members[1:]}
    outsiders = [e for e in world.edges if e not in members]
    assert all(not e.core.peers() for e in outsiders)
    for edge in outsiders:
        for target in members:
            payload = world.payload()
            for forged in forgeries(edge, target, payload):
                for to in (world.supernode.endpoint, Endpoint(target.host.ip, target.port)):
                    world.network.send(edge.host, edge.port, forged, to)
            world.run_for(0.5)
            assert not any(e.got(payload) for e in members)


def check_apart(world: World, red: list[Edge], blue: list[Edge]) -> None:
    """Peers, frames of every kind, forged ones too."""
    for ours, theirs in ((red, blue), (blue, red)):
        macs = {e.mac for e in theirs}
        assert not any(view.mac in macs for e in ours for view in e.core.peers())
        assert not {e.ip for e in ours} & {e.ip for e in theirs}
        for edge in ours:
            assert world.floods(edge, wait=0.5) == {e.settings.name for e in ours if e is not edge}
        for edge, target in itertools.product(ours, theirs):
            payload = world.payload()
            edge.put_frame(target.mac, payload)
            world.run_for(0.5)
            assert not any(e.got(payload) for e in theirs)
        for edge, target in itertools.product(ours, theirs):
            payload = world.payload()
            for forged in forgeries(edge, target, payload):
                for to in (world.supernode.endpoint, Endpoint(target.host.ip, target.port)):
                    world.network.send(edge.host, edge.port, forged, to)
            world.run_for(0.5)
            assert not any(e.got(payload) for e in theirs)


def forgeries(edge: Edge, target: Edge, payload: bytes) -> list[bytes]:
    """Packets of an edge that pretend to belong to the target's community."""
    inner = frame(target.mac, edge.mac, payload)
    flood = frame(BROADCAST_MAC, edge.mac, payload)
    ours, theirs = edge.core.community_id, target.core.community_id
    return [
        build(ProtoV(PacketType.DATA, theirs, edge.mac, target.mac), inner),
        build(ProtoV(PacketType.DATA, theirs, edge.mac, BROADCAST_MAC), flood),
        build(ProtoV(PacketType.DATA, ours, edge.mac, target.mac), inner),
        b"\x51" + target.mac.raw + inner,
    ]


def test_frames_of_strangers_are_not_taken() -> None:
    world = World()
    a, b = world.edge(), world.edge()
    stranger = world.edge(community="other")
    world.run_until(lambda: world.all_direct(a, b), 8.0)
    payload = world.payload()
    to = Endpoint(b.host.ip, b.port)
    for claimed in (a.mac, stranger.mac, b.mac):
        inner = frame(b.mac, claimed, payload)
        world.network.send(stranger.host, stranger.port, b"\x51" + b.mac.raw + inner, to)
        world.network.send(
            stranger.host, 9, build(ProtoV(PacketType.DATA, b.core.community_id, claimed, b.mac), inner), to
        )
    world.run_for(1.0)
    assert not b.got(payload)
    assert b.plane.counts["drop_stranger"] == 6


def test_members_cannot_speak_for_each_other_directly() -> None:
    world = World()
    a, b, c = (world.edge() for _ in range(3))
    world.run_until(world.all_direct, 8.0)
    payload = world.payload()
    forged = b"\x51" + b.mac.raw + frame(b.mac, a.mac, payload)
    world.network.send(c.host, c.port, forged, Endpoint(b.host.ip, b.port))
    world.run_for(1.0)
    assert not b.got(payload)
    assert b.plane.counts["drop_spoofed"] == 1
