"""Paths between n2n edges: found behind every pair of NATs, held, lost within two seconds, and found again."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint
from n2n.wire import Mapping, P2PStatus, PacketType
from tests.sim.network import Link, Nat
from tests.sim.nodes import PROBE_PORT, Edge, World

KINDS = ("open", "full", "address", "port", "symmetric")
#: What simultaneous sending cannot do.
IMPOSSIBLE = {frozenset(("port", "symmetric")), frozenset(("symmetric",))}
#: Seconds in which a path is found, and in which one that fails is left.
FOUND, LEFT = 3.0, 2.0


def pair(first: str, second: str, *, seed: int = 1, **more: object) -> tuple[World, Edge, Edge]:
    world = World(n2n=True, seed=seed)
    edges = []
    for number, kind in enumerate((first, second)):
        nat = None if kind == "open" else Nat(kind, f"192.0.2.{number + 1}")
        edges.append(world.edge(nat=nat, **more))
    world.run_until(lambda: all(e.registered for e in edges), 1.0, 0.05)
    return world, edges[0], edges[1]


def talk(world: World, a: Edge, b: Edge, seconds: float, every: float = 0.05) -> list[tuple[float, bool, bool]]:
    """Frames both ways for so long; for each moment, which of the two got through (looked at when all is over)."""
    sent = []
    for _ in range(round(seconds / every)):
        there, back = world.payload(), world.payload()
        sent.append((world.clock.time, there, back))
        a.put_frame(b.mac, there)
        b.put_frame(a.mac, back)
        world.run_for(every)
    world.run_for(0.2)
    return [(at, b.got(there) == 1, a.got(back) == 1) for at, there, back in sent]


def gap(results: list[tuple[float, bool, bool]]) -> float:
    """Seconds from the first to the last frame that was lost."""
    lost = [at for at, there, back in results if not (there and back)]
    return lost[-1] - lost[0] if lost else 0.0


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations_with_replacement(KINDS, 2)))
def test_every_pair_of_nats_that_can_goes_direct_at_once(first: str, second: str) -> None:
    world, a, b = pair(first, second, port_prediction=False)
    if frozenset((first, second)) in IMPOSSIBLE:
        world.run_for(20.0)
        assert not a.reaches(b)
        assert a.view(b).status is P2PStatus.UNAVAILABLE
    else:
        took = world.run_until(world.all_direct, FOUND, 0.05)
        assert took < FOUND
        world.run_for(1.0)
        for source, dest in ((a, b), (b, a)):
            view = source.view(dest)
            assert (view.path, view.one_way, view.their_path, view.kind) == ("direct", False, "direct", "n2n")
            assert view.rtt == pytest.approx(0.022, abs=0.003)
    assert gap(talk(world, a, b, 3.0)) == 0.0
    relayed = a.plane.counts["relay"]
    assert (relayed == 0) == (frozenset((first, second)) not in IMPOSSIBLE)


def test_two_edges_behind_one_nat_without_hairpin_meet_by_their_local_addresses() -> None:
    world = World(n2n=True)
    nat = Nat("port", "192.0.2.1")
    a, b = world.edge(nat=nat), world.edge(nat=nat)
    world.run_until(world.all_direct, FOUND, 0.05)
    world.run_for(2.0)
    assert a.view(b).in_use == Endpoint(b.host.ip, b.port)
    assert [c.kind for c in a.view(b).candidates if c.in_use] == ["local"]
    assert gap(talk(world, a, b, 2.0)) == 0.0


def test_where_udp_is_blocked_the_relay_serves_without_a_pause_and_is_never_given_up() -> None:
    world = World(n2n=True)
    a, b = world.edge(), world.edge(start=False)
    world.network.cut_between(a.host, b.host)
    b.start()
    world.run_until(lambda: b.registered and len(b.core.peers()) == len(a.core.peers()) == 1, 1.0, 0.05)
    assert gap(talk(world, a, b, 90.0, every=0.5)) == 0.0
    assert a.view(b).path == "relay"
    pings = world.count_to(a)["ping"]
    talk(world, a, b, 120.0, every=0.5)
    assert 4 <= world.count_to(a)["ping"] - pings <= 120, "searches go on, slowly"
    world.network.mend_between(a.host, b.host)
    talk(world, a, b, 61.0, every=0.5)
    assert world.all_direct()
    assert a.view(b).reason == "answered"


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_path_is_left_within_two_seconds_and_taken_again(seed: int) -> None:
    world, a, b = pair("port", "address", seed=seed)
    world.run_until(world.all_direct, FOUND)
    talk(world, a, b, 3.0)
    world.run_for(world.network.random.uniform(0.0, 1.0))
    world.network.cut_between(a.host, b.host)
    results = talk(world, a, b, 6.0)
    assert 0.0 < gap(results) <= LEFT
    assert {note.fields["reason"] for note in a.noted("path")} >= {"silent"}
    assert not a.reaches(b)
    world.network.mend_between(a.host, b.host)
    assert gap(talk(world, a, b, 15.0)) == 0.0, "nothing is lost on the way back"
    assert world.all_direct()


def test_a_path_cut_while_idle_is_left_within_two_seconds_of_the_first_frame() -> None:
    world, a, b = pair("port", "port")
    world.run_until(world.all_direct, FOUND)
    world.run_for(100.0)
    world.network.cut_between(a.host, b.host)
    assert gap(talk(world, a, b, 5.0)) <= LEFT


def test_another_candidate_takes_over_without_the_relay() -> None:
    world = World(n2n=True)
    nat = Nat("full", "192.0.2.1", hairpin=True)
    a, b = world.edge(nat=nat), world.edge(nat=nat)
    world.run_until(world.all_direct, FOUND, 0.05)
    world.run_for(2.0)
    assert a.view(b).in_use == Endpoint(b.host.ip, b.port)
    talk(world, a, b, 2.0)
    world.network.cut_local = True
    assert 0.0 < gap(talk(world, a, b, 5.0)) <= LEFT
    assert a.view(b).in_use is not None
    assert a.view(b).in_use.ip == nat.ip
    assert (a.view(b).path, a.view(b).reason) == ("direct", "silent")
    world.network.cut_local = False
    assert gap(talk(world, a, b, 35.0)) == 0.0
    assert a.view(b).in_use == Endpoint(b.host.ip, b.port)
    assert a.view(b).reason == "better"


def test_a_way_that_only_one_side_can_go_is_known_to_both() -> None:
    world, a, b = pair("open", "open")
    world.network.one_way.add((b.host.ip, a.host.ip))
    world.run_until(lambda: a.reaches(b) and not b.reaches(a), 5.0)
    talk(world, a, b, 4.0)
    assert (a.view(b).path, a.view(b).one_way, a.view(b).their_path) == ("direct", True, "relay")
    assert (b.view(a).path, b.view(a).their_path) == ("relay", "direct")
    assert gap(talk(world, a, b, 10.0)) == 0.0


def test_a_nat_that_gives_new_ports_is_survived_within_five_seconds() -> None:
    for kind in ("full", "address", "port", "symmetric"):
        world, a, b = pair(kind, "address")
        world.run_until(world.all_direct, FOUND)
        talk(world, a, b, 2.0)
        assert a.host.nat is not None
        a.host.nat.forget()
        assert gap(talk(world, a, b, 8.0)) <= 5.0, kind
        world.run_until(world.all_direct, 5.0)


def test_a_changed_network_heals_within_five_seconds() -> None:
    world, a, b = pair("open", "port")
    world.run_until(world.all_direct, FOUND)
    talk(world, a, b, 2.0)
    a.new_port()
    a.tell_local()
    a.core.network_changed(world.clock.now)
    a.pump()
    assert gap(talk(world, a, b, 8.0)) <= 5.0
    assert world.all_direct()


def five_hundred() -> list[Counter[str]]:
    """What each of 500 idle edges sends in 90 s."""
    gc.disable()  # of a million objects none is garbage, and looking for it takes as long as all the rest
    world = World(n2n=True, settings=SupernodeSettings(prefix=16, probe_port=PROBE_PORT))
    world.network.lose = lambda datagram, source, to: datagram[2] == PacketType.PEER_INFO
    nats = [Nat("port", f"198.18.{n // 250}.{n % 250 + 1}") for n in range(500)]
    edges = [world.edge(heartbeat=30.0, state_interval=1000.0, nat=nat) for nat in nats]
    world.run_for(5.0)
    world.network.lose = lambda datagram, source, to: False
    world.run_for(15.0)
    assert all(e.registered and len(e.core._mesh) == 499 for e in edges)
    world.run_for(20.0)
    before = [world.count_to(e) for e in edges]
    world.run_for(90.0)
    return [world.count_to(e) - was for e, was in zip(edges, before, strict=True)]


def test_500_whole_idle_edges_send_less_than_a_packet_a_second_each() -> None:
    """What the supernode tells is lost until all are registered and know their NATs, or each would hear of each of the
    others one by one: then they ask for the list again, and what follows is the steady state.  How they see their peers
    is not told, which would be once, and a third of the time that this takes: the next test counts that, too.  All of
    it in a process of its own, whose end clears it away at once."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        sent = pool.submit(five_hundred).result()
    assert len(sent) == 500
    assert max(one.total() for one in sent) / 90.0 <= 1.0
    assert max(one.total() for one in sent) / 90.0 < 0.45, "heartbeats, a look whether the supernode is there, a list"
    assert min(one.total() for one in sent) / 90.0 > 0.2, "they are alive"
    assert sum(one["ping"] + one["pong"] for one in sent) == 0


def test_idle_edges_of_a_crowd_are_quiet_when_others_move_and_there_when_wanted() -> None:
    """20 whole edges, and 480 that only registered."""
    world = World(n2n=True, settings=SupernodeSettings(prefix=16))
    world.populate(480)
    edges = [world.edge(heartbeat=30.0, nat=Nat("port", f"192.0.2.{n}")) for n in range(1, 21)]
    world.run_for(40.0)
    assert all(e.registered and len(e.core.peers()) == 499 for e in edges)
    assert max(world.count_to(e).total() for e in edges) <= 40.0, "and with what they say in the beginning"
    pings = {e: world.count_to(e)["ping"] for e in edges}
    for edge in edges[:5]:
        assert edge.host.nat is not None
        edge.host.nat.forget()
    world.run_for(35.0)
    assert {e: world.count_to(e)["ping"] for e in edges} == pings, "nor when others move"
    a, b = edges[0], edges[-1]
    assert not a.reaches(b)
    talk(world, a, b, 1.0)
    assert a.reaches(b), "but a path is there as soon as it is wanted"
    assert b.reaches(a)
    world.run_for(400.0)
    assert not a.reaches(b)
    assert (a.view(b).reason, a.view(b).status) == ("idle", P2PStatus.UNKNOWN)


def test_the_time_that_a_nat_remembers_is_found() -> None:
    world = World(n2n=True)
    nats = [Nat("port", "192.0.2.1", timeout=40.0), Nat("port", "192.0.2.2", timeout=300.0)]
    a, b = (world.edge(nat=nat) for nat in nats)
    world.run_until(world.all_direct, FOUND)
    world.run_for(900.0)
    lost = len([n for n in a.noted("path") if n.fields["reason"] == "silent"])
    assert lost <= 2
    world.run_for(1800.0)
    assert len([n for n in a.noted("path") if n.fields["reason"] == "silent"]) <= 2
    pings = world.count_to(a)["ping"] + world.count_to(b)["ping"]
    world.run_for(600.0)
    assert 600 / 40 <= world.count_to(a)["ping"] + world.count_to(b)["ping"] - pings <= 600 / 12
    assert world.all_direct()


def test_a_v5_edge_among_n2n_edges_is_treated_as_ever() -> None:
    world = World(n2n=True)
    a, b = world.edge(), world.edge()
    old = world.edge(n2n=False)
    world.run_until(world.all_direct, 8.0)
    world.run_for(10.0)
    assert (a.view(b).kind, a.view(old).kind, old.view(a).kind) == ("n2n", "v5", "v5")
    seen: list[bytes] = []
    ends = {Endpoint(old.host.ip, old.port), world.supernode.endpoint}

    def tap(datagram: bytes, source: Endpoint, to: Endpoint) -> None:
        if to.ip == old.host.ip or (datagram[2:3] == bytes((PacketType.PING,)) and datagram[16:22] == old.mac.raw):
            seen.append(datagram)

    world.network.tap.append(tap)
    before = world.count_to(a)
    world.run_for(30.0)
    assert world.count_to(a)["ping"] - before["ping"] <= 10 + 4, "one ping a round, and keep-alives"
    assert seen
    assert not any(b"N2N" in datagram for datagram in seen), "nothing that it does not know"
    assert ends
    assert all(world.delivers(x, y, wait=0.2) for x, y in itertools.permutations((a, b, old), 2))


@pytest.mark.parametrize("seed", range(2))
def test_edges_find_each_other_without_a_supernode_that_knows_cards(seed: int) -> None:
    """A supernode that drops what it does not know, as a v5 one does: pings of v5's rounds tell what an edge is."""
    world = World(n2n=True, seed=seed)
    world.supernode.deaf = True
    world.supernode.stop()
    world.supernode.start()
    a, b = world.edge(nat=Nat("port", "192.0.2.1")), world.edge(nat=Nat("port", "192.0.2.2"))
    world.run_until(world.all_direct, 8.0)
    world.run_for(4.0)
    assert (a.view(b).kind, b.view(a).kind) == ("n2n", "n2n")
    world.run_for(30.0)
    assert world.all_direct()
    assert gap(talk(world, a, b, 3.0)) == 0.0


@pytest.mark.parametrize("seed", range(2))
def test_heavy_loss_does_not_keep_paths_away(seed: int) -> None:
    world = World(n2n=True, seed=seed, link=Link(loss=0.3))
    edges = [world.edge() for _ in range(6)]
    world.run_until(lambda: all(e.registered for e in edges) and world.all_direct(), 120.0)
    up = total = 0
    for _ in range(200):
        world.run_for(1.0)
        states = [a.reaches(b) for a, b in itertools.permutations(edges, 2)]
        up, total = up + sum(states), total + len(states)
    assert up / total > 0.95


@pytest.mark.parametrize("seed", range(2))
def test_chaos_ends_well_among_n2n_edges(seed: int) -> None:
    world = World(n2n=True, seed=seed, link=Link(loss=0.1, duplicates=0.05, disorder=0.05))
    edges = [world.edge(nat=Nat("port", f"192.0.2.{n}") if n % 2 else None) for n in range(6)]
    chance = world.network.random
    for _ in range(15):
        world.run_for(chance.uniform(0.0, 20.0))
        if chance.random() < 0.4:
            world.supernode.stop()
            world.run_for(chance.uniform(0.0, 5.0))
            world.supernode.start()
        edge = chance.choice(edges)
        edge.kill()
        world.run_for(chance.uniform(0.0, 5.0))
        if edge.host.nat is not None and chance.random() < 0.5:
            edge.host.nat.forget()
        edge.start()
    world.network.link = Link()
    world.run_until(lambda: all(e.registered for e in edges) and world.all_direct(), 90.0)
    for edge in edges:
        assert world.floods(edge, wait=0.5) == {e.settings.name for e in edges if e is not edge}


@pytest.mark.parametrize(("first", "second"), [("open", "port"), ("address", "symmetric"), ("port", "symmetric")])
def test_it_is_the_same_where_cards_and_notes_are_sealed(first: str, second: str) -> None:
    world, a, b = pair(first, second, passphrase="secret")
    world.run_until(world.all_direct, FOUND, 0.05)
    assert gap(talk(world, a, b, 3.0)) == 0.0
    assert not any(e.core.counters()[name] for e in (a, b) for name in ("card_bad", "note_bad", "note_stale"))


def test_edges_with_other_passphrases_treat_each_other_as_v5_edges() -> None:
    world = World(n2n=True)
    a, b, c = (world.edge(passphrase=secret) for secret in ("one", "two", None))
    world.run_until(world.all_direct, 10.0)
    world.run_for(30.0)
    assert {x.view(y).kind for x, y in itertools.permutations((a, b, c), 2)} == {"v5"}
    assert a.core.counters()["card_bad"] >= 2


def test_two_idle_edges_of_a_crowd_do_not_keep_each_other_awake() -> None:
    world = World(n2n=True, settings=SupernodeSettings(prefix=16))
    world.populate(20)
    a, b = world.edge(), world.edge()
    world.network.cut_between(a.host, b.host)
    world.run_for(5.0)
    talk(world, a, b, 1.0)
    world.run_for(130.0)
    before = world.count_to(a) + world.count_to(b)
    world.run_for(600.0)
    after = world.count_to(a) + world.count_to(b) - before
    assert (after["ping"], after["pong"]) == (0, 0)


def test_a_small_idle_community_with_unreachable_edges_says_little() -> None:
    world = World(n2n=True)
    edges = [world.edge() for _ in range(10)]
    for one, other in itertools.combinations(edges, 2):
        world.network.cut_between(one.host, other.host)
    world.run_for(600.0)
    before = [world.count_to(e).total() for e in edges]
    world.run_for(300.0)
    assert max(world.count_to(e).total() - was for e, was in zip(edges, before, strict=True)) / 300.0 < 2.0


# -- the supernode


def relayed_pair(**more: object) -> tuple[World, Edge, Edge]:
    """Two edges whose frames go by relay."""
    world = World(n2n=True, **more)
    a, b = world.edge(heartbeat=30.0), world.edge(heartbeat=30.0)
    world.network.cut_between(a.host, b.host)
    world.run_until(lambda: a.registered and b.registered, 1.0, 0.05)
    world.run_for(5.0)
    assert gap(talk(world, a, b, 3.0)) == 0.0
    assert not a.reaches(b)
    return world, a, b


@pytest.mark.parametrize("away", [0.0, 3.0, 40.0])
def test_relayed_traffic_is_back_within_five_seconds_of_a_restart_of_the_supernode(away: float) -> None:
    world, a, b = relayed_pair()
    addresses = a.ip, b.ip
    world.supernode.stop()
    talk(world, a, b, away)
    world.supernode.start()
    results = talk(world, a, b, 12.0)
    assert [lost for at, *ok in results if not all(ok) for lost in [at]][-1:] <= [results[0][0] + 5.0]
    assert (a.ip, b.ip) == addresses


def test_an_idle_edge_finds_a_supernode_that_started_again_in_five_seconds() -> None:
    world = World(n2n=True)
    a = world.edge(heartbeat=600.0)
    world.run_for(30.0)
    world.supernode.stop()
    world.supernode.start()
    world.run_until(lambda: len(world.supernode.core.members("acme")) == 1, 5.0)
    before = world.count_to(a)
    world.run_for(600.0)
    assert (world.count_to(a) - before)["where"] <= 201, "it asks seldom"


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_own_nat_does_is_found_and_told(kind: str) -> None:
    world = World(n2n=True)
    a = world.edge(nat=None if kind == "open" else Nat(kind, "192.0.2.1"))
    b = world.edge()
    world.run_for(4.0)
    expected = {"open": Mapping.OPEN, "symmetric": Mapping.HARD}.get(kind, Mapping.EASY)
    member = b.core._mesh._table.get(a.mac)
    assert member is not None
    assert member.card is not None
    assert member.card.mapping is expected
    assert [note.fields["mapping"] for note in a.noted("nat")] == [expected.name.lower()]


def test_a_second_port_that_is_not_let_through_leaves_it_unknown() -> None:
    world = World(n2n=True)
    del world.supernode.host.sockets[world.supernode.settings.probe_port]
    a = world.edge(nat=Nat("port", "192.0.2.1"))
    world.run_for(60.0)
    assert not a.noted("nat")
    assert world.count_to(a)["where"] <= 3 + 3 + 20


def test_an_idle_edge_whose_nat_gives_another_port_is_reached_again() -> None:
    world = World(n2n=True)
    a, b = world.edge(nat=Nat("symmetric", "192.0.2.1"), heartbeat=600.0), world.edge(heartbeat=600.0)
    world.network.cut_between(a.host, b.host)
    world.run_for(10.0)
    assert a.host.nat is not None
    a.host.nat.forget()
    world.run_for(23.0)
    assert world.delivers(b, a, wait=0.5)


def test_a_killed_edge_that_returns_is_never_refused() -> None:
    world, a, b = pair("port", "address")
    for seconds in (0.0, 0.5, 3.0, 30.0):
        address = a.ip
        a.kill()
        world.run_for(seconds)
        a.start()
        world.run_until(lambda: a.registered, 2.0, 0.05)
        assert a.ip == address
        assert not a.noted("register_refused")
        world.run_until(world.all_direct, 5.0, 0.05)
        assert gap(talk(world, a, b, 1.0)) == 0.0
