"""Edges find each other and go direct: few and many, on good networks and bad ones, and at a bounded cost."""

from __future__ import annotations

import itertools

import pytest

from n2n.proto.sn_settings import SupernodeSettings
from tests.sim.network import Link
from tests.sim.nodes import World

#: Seconds in which edges that start together must all be direct: the first round of pings comes after three.
PROMPT = 4.0


@pytest.mark.parametrize("vfuze", [True, False])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_edges_go_direct_and_frames_arrive(count: int, vfuze: bool) -> None:
    world = World()
    edges = [world.edge(vfuze=vfuze) for _ in range(count)]
    world.run_until(lambda: all(e.registered for e in edges), 1.0)
    assert len({e.ip for e in edges}) == count
    assert world.delivers(edges[0], edges[1], wait=1.0), "by relay, before any path was found"
    assert edges[0].plane.counts["relay"] == 1
    world.run_until(world.all_direct, PROMPT)
    relayed = world.network.sent[world.supernode.endpoint]
    for a, b in itertools.permutations(edges[:3], 2):
        assert world.delivers(a, b, wait=0.1)
    assert edges[0].plane.counts["direct"] == min(count, 3) - 1
    assert world.network.sent[world.supernode.endpoint] - relayed < 6 * count
    for edge in edges[:3]:
        assert world.floods(edge, wait=0.1) == {e.settings.name for e in edges} - {edge.settings.name}
    world.run_for(5.0)
    assert all(view.full_duplex and not view.one_way for e in edges for view in e.core.peers())
    assert all(view.rtt == pytest.approx(0.022, abs=0.003) for e in edges for view in e.core.peers())


def test_fifty_edges_go_direct_at_a_bounded_cost() -> None:
    world = World()
    edges = [world.edge(start=False) for _ in range(50)]
    for n, edge in enumerate(edges):
        world.clock.at(n * 0.1, edge.start)
    world.run_for(5.0)
    world.run_until(world.all_direct, PROMPT)
    world.run_for(10.0)
    before = [world.count_to(e) for e in edges]
    to_supernode = world.network.sent[world.supernode.endpoint]
    world.run_for(30.0)
    for edge, former in zip(edges, before, strict=True):
        sent = world.count_to(edge) - former
        # One ping and one pong for each of 49 peers in each of ten or eleven rounds, and heartbeats: no more.
        assert sent["ping"] <= 49 * 11
        assert sent["pong"] <= 49 * 11
        assert set(sent) <= {"ping", "pong", "heartbeat", "state", "list_request"}
        assert sent["heartbeat"] <= 4
        assert sent["state"] + sent["list_request"] <= 3
        # Its path to another never changed once it was found: discovered, then answered.
        assert len(edge.noted("path")) == 2 * 49
    assert world.network.sent[world.supernode.endpoint] - to_supernode <= 50 * 7
    assert world.delivers(edges[0], edges[49])


def test_an_idle_edge_alone_says_little() -> None:
    world = World()
    edge = world.edge(heartbeat=30.0)
    world.run_for(3600.0)
    sent = world.count_to(edge)
    assert sent["heartbeat"] == 119
    # The list is asked for when nothing was heard for three heartbeats, because heartbeats are not answered.
    assert sent["list_request"] <= 1 + 3600 / 90
    assert sum(sent.values()) <= 119 + 41 + 45
    assert edge.registered


@pytest.mark.parametrize("seed", range(4))
def test_thirty_percent_loss_ends_nothing(seed: int) -> None:
    world = World(seed=seed, link=Link(loss=0.3))
    edges = [world.edge() for _ in range(10)]
    world.run_until(lambda: all(e.configured for e in edges), 120.0)
    addresses = {e.settings.name: e.ip for e in edges}
    # The news of a new edge may get lost, and the list that would mend it, and what is asked then.
    world.run_until(world.all_direct, 120.0)
    lost = up = 0
    for _ in range(100):
        world.run_for(3.0)
        pairs = [a.reaches(b) for a, b in itertools.permutations(edges, 2)]
        lost += pairs.count(False)
        up += pairs.count(True)
    assert lost / (lost + up) < 0.02, "direct paths flap"
    assert {e.settings.name: e.ip for e in edges} == addresses


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_and_disorder_change_nothing(seed: int) -> None:
    world = World(seed=seed, link=Link(latency=(0.005, 0.2), duplicates=0.2, disorder=0.2))
    edges = [world.edge() for _ in range(8)]
    world.run_until(lambda: all(e.registered for e in edges), 30.0)
    world.run_until(world.all_direct, 20.0)
    world.run_for(120.0)
    assert world.all_direct()
    assert all(len(e.noted("path")) == 2 * 7 for e in edges), "paths flap"
    assert all(len(e.configured) == 1 for e in edges)
    assert all(e.core.counters()["malformed"] == 0 for e in edges)


def test_slow_networks_are_waited_for() -> None:
    """1.2 s one way: a pong by way of the supernode takes longer than a round of pings."""
    world = World(link=Link(latency=(1.2, 1.25)))
    edges = [world.edge() for _ in range(3)]
    world.run_until(world.all_direct, 30.0)
    world.run_for(60.0)
    assert world.all_direct()
    assert all(len(e.noted("path")) == 2 * 2 for e in edges)


def test_a_lost_event_is_mended() -> None:
    """The news of a new edge gets lost; its pings make the others ask who is there."""
    world = World()
    old = world.edge()
    world.run_for(40.0)
    world.network.cut_between(world.supernode.host, old.host)
    new = world.edge()
    world.run_for(1.0)
    assert new.registered
    world.network.mend_between(world.supernode.host, old.host)
    assert not old.core.peers()
    world.run_until(world.all_direct, 10.0)


def test_pings_that_cannot_arrive_mend_it_too_in_time() -> None:
    world = World()
    old = world.edge()
    world.run_for(40.0)
    new_host = world.edge(start=False)
    world.network.cut_between(old.host, new_host.host)
    world.network.cut_between(world.supernode.host, old.host)
    new_host.start()
    world.run_for(1.0)
    world.network.mend_between(world.supernode.host, old.host)
    world.run_until(lambda: len(old.core.peers()) == 1, 310.0)
    assert world.delivers(old, new_host)


def test_the_supernode_is_not_melted_by_a_whole_community_at_once() -> None:
    world = World(settings=SupernodeSettings())
    edges = [world.edge() for _ in range(40)]
    world.run_until(lambda: all(e.registered for e in edges), 3.0)
    assert world.count_to(edges[0])["register"] == 1


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> str:
        world = World(seed=seed, link=Link(loss=0.1, duplicates=0.1, disorder=0.1))
        for _ in range(5):
            world.edge()
        world.run_for(60.0)
        return world.network.trace

    assert run(7) == run(7)
    assert run(7) != run(8)
