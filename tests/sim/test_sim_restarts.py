"""Supernodes and edges die, come back, move; addresses stay and traffic comes back by itself."""

from __future__ import annotations

import pytest

from n2n.proto.edge import EdgeState
from tests.sim.network import Link
from tests.sim.nodes import World

HOUR = 3600.0


def started(count: int, **changes: object) -> World:
    world = World()
    for _ in range(count):
        world.edge(**changes)
    world.run_until(world.all_direct, 8.0)
    return world


@pytest.mark.parametrize("keep_leases", [True, False])
def test_a_supernode_that_starts_again_gets_its_edges_back(keep_leases: bool) -> None:
    world = started(4)
    addresses = [e.ip for e in world.edges]
    world.supernode.stop()
    if not keep_leases:
        world.supernode.forget()
    world.run_for(5.0)
    assert world.delivers(world.edges[0], world.edges[1]), "direct paths need no supernode"
    world.supernode.start()
    # Heartbeats come every 10 s; the supernode answers each with the demand to register.
    world.run_until(lambda: len(world.supernode.core.members("acme")) == 4, 15.0)
    world.run_until(lambda: all(e.registered for e in world.edges), 3.0)
    if keep_leases:
        assert [e.ip for e in world.edges] == addresses
        assert all(len(e.configured) == 1 for e in world.edges)
    assert len({e.ip for e in world.edges}) == 4
    leases = {record.mac: record.ip for record in world.supernode.core.leases("acme")}
    assert {e.mac: e.ip for e in world.edges} == leases
    world.run_until(world.all_direct, 10.0)
    assert world.floods(world.edges[0]) == {"edge2", "edge3", "edge4"}
    for edge in world.edges:
        assert edge.configured[-1][0] == edge.ip
        assert not world.network.sent[world.supernode.endpoint] > 1000


def test_nothing_is_lost_in_an_orderly_restart_but_relayed_frames() -> None:
    world = started(3)
    paths = [len(e.noted("path")) for e in world.edges]
    world.supernode.stop()
    world.supernode.start()
    world.run_for(30.0)
    assert [len(e.noted("path")) for e in world.edges] == paths, "direct paths are not touched"


def test_a_restart_under_traffic_makes_no_storm() -> None:
    """Each frame that an unknown edge sends is answered by a demand to register; one registration is enough."""
    world = started(5)
    before = [world.count_to(e) for e in world.edges]
    world.supernode.stop()
    world.supernode.start()
    for n in range(2000):
        world.clock.after(n * 0.005, lambda n=n: world.edges[n % 5].put_frame(world.edges[0].mac, b"traffic"))
        world.clock.after(n * 0.005, lambda n=n: world.floods(world.edges[n % 5], wait=0.0))
    world.run_for(15.0)
    for edge, former in zip(world.edges, before, strict=True):
        sent = world.count_to(edge) - former
        assert edge.registered
        assert sent["register"] <= 2
        assert sent["key_request"] <= 2
        assert sent["heartbeat"] <= 4


def test_a_dead_supernode_is_noticed_asked_for_seldom_and_found_again() -> None:
    world = started(2, heartbeat=10.0)
    a, b = world.edges
    world.supernode.stop()
    before = world.count_to(a)
    # Three heartbeats of silence at least, then four unanswered questions.
    world.run_until(lambda: a.core.state is EdgeState.KEY, 60.0)
    assert a.noted("supernode_silent")
    resolved = a.resolved
    world.run_for(HOUR)
    sent = world.count_to(a) - before
    assert sent["key_request"] <= HOUR / 3.6 + 20
    assert sent["heartbeat"] <= 7
    assert resolved + 10 < a.resolved < resolved + HOUR / 10.8 + 20, "its name is resolved again and again"
    assert world.delivers(a, b), "the direct path outlived it"
    world.supernode.start()
    world.run_until(lambda: a.registered and b.registered, 6.0)
    assert world.floods(a) == {"edge2"}


def test_a_supernode_that_moved_is_found_by_its_name() -> None:
    world = started(3)
    addresses = [e.ip for e in world.edges]
    world.supernode.move(world.network.add_host("198.51.100.99"))
    world.run_until(
        lambda: all(e.registered and e.core.supernode == world.supernode.endpoint for e in world.edges), 120.0
    )
    assert [e.ip for e in world.edges] == addresses
    assert world.floods(world.edges[0]) == {"edge2", "edge3"}


def test_a_killed_edge_comes_back_with_its_address_at_once() -> None:
    world = started(3)
    edge, others = world.edges[0], world.edges[1:]
    address = edge.ip
    edge.kill()
    world.run_for(1.0)
    edge.start()
    world.run_until(lambda: edge.registered, 2.0)
    assert edge.ip == address
    world.run_until(world.all_direct, 10.0)
    assert all(world.delivers(edge, other) and world.delivers(other, edge) for other in others)


def test_an_edge_that_comes_back_at_another_port_keeps_its_address_and_gets_its_frames() -> None:
    world = started(3)
    edge, other = world.edges[0], world.edges[1]
    address = edge.ip
    edge.kill()
    edge.port += 100
    edge.start()
    world.run_until(lambda: edge.registered, 2.0)
    assert edge.ip == address
    assert world.delivers(other, edge)
    world.run_until(world.all_direct, 10.0)
    assert other.view(edge).endpoint.port == edge.port


@pytest.mark.parametrize("others_meanwhile", [False, True])
def test_an_edge_keeps_its_address_for_longer_than_a_lease(others_meanwhile: bool) -> None:
    world = World()
    slow = {"ping_interval": 600.0, "heartbeat": 120.0}
    edge, other = world.edge(**slow), world.edge(**slow)
    world.run_until(lambda: edge.registered and other.registered, 2.0)
    addresses = edge.ip, other.ip
    edge.kill()
    world.run_for(25 * HOUR)
    assert other.registered
    assert {str(m.mac) for m in world.supernode.core.members("acme")} == {str(other.mac)}
    if others_meanwhile:
        newcomers = [world.edge(**slow) for _ in range(5)]
        world.run_until(lambda: all(e.registered for e in newcomers), 2.0)
        assert addresses[0] not in {e.ip for e in newcomers}
    edge.start()
    world.run_until(lambda: edge.registered, 2.0)
    assert (edge.ip, other.ip) == addresses
    assert world.delivers(edge, other)


def test_an_edge_that_leaves_is_gone_for_the_others_at_once() -> None:
    world = started(3)
    gone = world.edges[0]
    gone.close()
    world.run_for(0.5)
    assert all(view.mac != gone.mac for e in world.edges[1:] for view in e.core.peers())
    assert all(gone.mac not in e.plane.peers for e in world.edges[1:])
    assert world.count_to(gone)["unregister"] == 1
    sent = world.network.sent.total()
    assert not gone.running
    world.run_for(30.0)
    assert gone.mac not in {m.mac for m in world.supernode.core.members("acme")}
    assert world.network.sent.total() > sent


def test_a_killed_edge_is_gone_when_it_expires_and_its_path_long_before() -> None:
    world = started(2)
    edge, other = world.edges
    edge.kill()
    world.run_until(lambda: not other.reaches(edge), 16.0)
    assert other.view(edge).reason == "silent"
    world.run_until(lambda: not other.core.peers(), 600.0 + 300.0 + 20.0)


def test_an_edge_that_changed_its_port_without_knowing_is_found_again() -> None:
    """A NAT gives a new port, say: its next heartbeat tells the supernode, which tells the others."""
    world = started(3)
    edge = world.edges[0]
    edge.new_port()
    world.run_until(lambda: all(o.view(edge).endpoint.port == edge.port for o in world.edges[1:]), 11.0)
    world.run_until(world.all_direct, 15.0)
    assert world.delivers(edge, world.edges[1])
    assert world.delivers(world.edges[1], edge)


def test_an_edge_that_slept_heals_when_it_is_told() -> None:
    world = started(2)
    edge, other = world.edges
    edge.new_port()
    edge.core.network_changed(world.clock.now)
    edge.pump()
    world.run_until(lambda: edge.registered, 1.0)
    world.run_until(world.all_direct, 5.0)
    assert world.delivers(other, edge, wait=1.0)


@pytest.mark.parametrize("seed", range(3))
def test_chaos_ends_well(seed: int) -> None:
    """Supernode and edges die and come back at random on a bad network; when it stops, all is well again."""
    world = World(seed=seed, link=Link(loss=0.1, duplicates=0.05, disorder=0.05))
    edges = [world.edge() for _ in range(6)]
    chance = world.network.random
    for _ in range(20):
        world.run_for(chance.uniform(0.0, 20.0))
        if chance.random() < 0.4:
            world.supernode.stop()
            world.run_for(chance.uniform(0.0, 5.0))
            world.supernode.start()
        edge = chance.choice(edges)
        edge.kill()
        world.run_for(chance.uniform(0.0, 5.0))
        edge.start()
    world.network.link = Link()
    world.run_until(lambda: all(e.registered for e in edges) and world.all_direct(), 90.0)
    members = {m.mac: m.virtual_ip for m in world.supernode.core.members("acme")}
    assert {e.mac: e.ip for e in edges} == members
    for edge in edges:
        assert len({ip for ip, _ in edge.configured}) == 1
        assert world.floods(edge, wait=0.5) == {e.settings.name for e in edges if e is not edge}
