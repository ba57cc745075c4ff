"""Supernodes that die, move and have others beside them; ours, and v5 ones."""

from __future__ import annotations

from functools import partial

import pytest

from tests.sim.network import Nat
from tests.sim.nodes import Edge, Supernode, World
from tests.sim.test_sim_ways import gap, relayed_pair, talk

#: What the issue allows.
HEALED = 5.0


def moved(world: World) -> None:
    """The supernode goes on at another address, and its name stands for that."""
    world.supernode.move(world.network.add_host("198.51.100.99"))


def there(world: World, supernode: Supernode, *edges: Edge) -> bool:
    """All edges are registered there."""
    members = supernode.core.members("acme")
    return len(members) == len(edges) and all(e.core.supernode == supernode.endpoint and e.registered for e in edges)


@pytest.mark.parametrize("away", [0.0, 0.7, 4.4, 6.0, 9.9, 14.2, 21.0, 47.3, 301.0])
@pytest.mark.parametrize("heartbeat", [3.0, 600.0])
def test_an_idle_edge_is_at_a_moved_supernode_within_five_seconds(away: float, heartbeat: float) -> None:
    """From the moment when the name stands for its new address, whenever that is."""
    for seed in range(4):
        world = World(n2n=True, seed=seed)
        edges = [world.edge(heartbeat=heartbeat) for _ in range(3)]
        world.run_for(30.0 + 3.0 * seed / 4)
        addresses = [e.ip for e in edges]
        world.supernode.stop()
        world.run_for(away)
        moved(world)
        world.run_until(partial(there, world, world.supernode, *edges), HEALED, 0.05)
        assert [e.ip for e in edges] == addresses


def test_relayed_traffic_is_back_within_five_seconds_of_another_address_of_the_supernode() -> None:
    world, a, b = relayed_pair()
    world.supernode.move(world.network.add_host("198.51.100.99"))
    results = talk(world, a, b, 15.0)
    lost = [at for at, *ok in results if not all(ok)]
    assert lost[-1] - results[0][0] <= 5.0, "three unanswered questions, then at once"
    assert a.core.supernode == b.core.supernode == world.supernode.endpoint


def test_edges_keep_to_one_supernode_and_go_to_the_next_when_it_dies() -> None:
    world = World(n2n=True)
    second = Supernode(world, world.network.add_host("198.51.100.2"), world.supernode.settings)
    world.supernodes = [world.supernode, second]
    a, b = world.edge(heartbeat=30.0), world.edge(heartbeat=30.0)
    world.network.cut_between(a.host, b.host)
    world.run_for(300.0)
    assert [e.core.supernode for e in (a, b)] == [world.supernode.endpoint] * 2
    assert not second.core.members("acme")
    addresses = a.ip, b.ip
    second.share(world.supernode)
    world.supernode.stop()
    world.run_until(lambda: len(second.core.members("acme")) == 2, 2 * 30.0)
    assert (a.ip, b.ip) == addresses, "the leases are shared"
    world.run_for(1.0)
    assert gap(talk(world, a, b, 3.0)) == 0.0
    world.supernode.start()
    world.run_for(300.0)
    assert a.core.supernode == second.endpoint, "it keeps to the one that it has"
    second.stop()
    results = talk(world, a, b, 15.0)
    lost = [at for at, *ok in results if not all(ok)]
    assert lost[-1] - results[0][0] <= 9.0, "and with traffic it is noticed sooner"


@pytest.mark.parametrize("heartbeat", [1.0, 3.0, 10.0, 30.0, 120.0])
def test_from_a_dead_v5_supernode_edges_go_to_the_next_within_two_heartbeats(heartbeat: float) -> None:
    """It answers no heartbeat, but gives its key to whoever asks."""
    for seed in range(4):
        world = World(n2n=True, seed=seed)
        second = Supernode(world, world.network.add_host("198.51.100.2"), world.supernode.settings)
        world.supernodes = [world.supernode, second]
        for supernode in world.supernodes:
            supernode.deaf = True
        edges = [world.edge(heartbeat=heartbeat) for _ in range(3)]
        world.run_for(10 * heartbeat + seed * heartbeat / 4)
        assert there(world, world.supernode, *edges), "they keep to the first"
        assert not any(e.noted("supernode_silent") for e in edges)
        before = [world.count_to(e) for e in edges]
        world.run_for(20 * heartbeat)
        for edge, was in zip(edges, before, strict=True):
            sent = world.count_to(edge) - was
            assert 19 <= sent["key_request"] <= 21, "asked once in a heartbeat"
            assert sent["register"] == sent["where"] == 0
        world.supernode.stop()
        world.run_until(partial(there, world, second, *edges), 2 * heartbeat, heartbeat / 50)


def test_many_edges_behind_one_nat_are_all_answered() -> None:
    world = World(n2n=True)
    nat = Nat("port", "192.0.2.1")
    edges = [world.edge(community=f"community{number}", nat=nat, heartbeat=30.0) for number in range(120)]
    world.run_for(90.0)
    assert all(edge.registered for edge in edges)
    assert not any(edge.noted("supernode_silent") for edge in edges)
    assert world.supernode.core.counters()["keys_limited"] == 0


def test_a_v5_supernode_that_is_slow_or_loses_an_answer_is_not_left() -> None:
    world = World(n2n=True)
    second = Supernode(world, world.network.add_host("198.51.100.2"), world.supernode.settings)
    world.supernodes = [world.supernode, second]
    world.supernode.deaf = second.deaf = True
    edge = world.edge(heartbeat=10.0)
    world.run_for(5.0)
    world.network.link.latency = (0.6, 0.7)
    world.run_for(100.0)
    lost = iter([True, False, True, True, False] * 100)
    world.network.lose = lambda datagram, source, to: source == world.supernode.endpoint and next(lost)
    world.run_for(300.0)
    assert edge.core.supernode == world.supernode.endpoint
    assert not edge.noted("supernode_silent")


def test_a_v5_supernode_that_started_again_with_another_key_gets_its_edges_back() -> None:
    world = World(n2n=True)
    world.supernode.deaf = True
    edges = [world.edge(heartbeat=10.0) for _ in range(2)]
    world.run_for(35.0)
    world.supernode.stop()
    world.supernode.start()
    world.run_until(lambda: there(world, world.supernode, *edges), 10.0 + 1.0)
