"""Port-restricted and symmetric NATs: edges meet by trying many ports, whoever learns what when, whatever is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from n2n.errors import MalformedDatagram
from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint
from n2n.wire import Note, NoteKind, PacketType, ProtoV, parse, unwrap
from tests.sim.network import Nat
from tests.sim.nodes import PROBE_PORT, Edge, World
from tests.sim.test_sim_ways import FOUND, LEFT, gap, pair, talk

ORDERS = [("port", "symmetric"), ("symmetric", "port")]
SEEDS = 12


def kind_of(datagram: bytes) -> NoteKind | None:
    """Of the note in a ping or pong; None: it has none (or is something else)."""
    try:
        if ProtoV.unpack(datagram).type != PacketType.PING:
            return None
    except MalformedDatagram:  # a frame
        return None
    field = parse(datagram).message.n2n  # type: ignore[union-attr]
    return Note.unpack(unwrap(field, None)).kind if field.find(b"NOTE") >= 0 else None


def without(world: World, *kinds: NoteKind) -> None:
    """No note of these kinds passes by way of the supernode."""
    own = world.supernode.endpoint
    world.network.lose = lambda datagram, source, to: own in (source, to) and kind_of(datagram) in kinds


def learns_late(world: World, edge: Edge, seconds: float) -> None:
    """The supernode's second port does not hear this edge for so long: it does not know what its NAT does."""
    hears: Callable[[bytes, Endpoint], None] = world.supernode.host.sockets[PROBE_PORT]
    until, nat = world.clock.time + seconds, edge.host.nat
    assert nat is not None

    def hear(datagram: bytes, source: Endpoint) -> None:
        if world.clock.time >= until or source.ip != nat.ip:
            hears(datagram, source)

    world.supernode.host.sockets[PROBE_PORT] = hear


def two(first: str, second: str, *, seed: int = 1, crowd: int = 0, **more: object) -> tuple[World, Edge, Edge]:
    """Two edges that are not started yet."""
    world = World(n2n=True, seed=seed, settings=SupernodeSettings(prefix=16, probe_port=PROBE_PORT))
    world.populate(crowd)
    kinds = enumerate((first, second), start=1)
    edges = [world.edge(nat=Nat(kind, f"192.0.2.{number}"), start=False, **more) for number, kind in kinds]
    return world, edges[0], edges[1]


def sides(world: World, edge: Edge) -> tuple[int, int]:
    """How often an edge opened many sockets, and how many ports it tried."""
    return edge.parties, world.count_to(edge)["birthday"]


@pytest.mark.parametrize(("first", "second"), ORDERS)
@pytest.mark.parametrize("apart", [0.0, 2.0])
def test_they_meet_in_three_seconds_whoever_comes_first(first: str, second: str, apart: float) -> None:
    took = []
    for seed in range(SEEDS):
        world, a, b = two(first, second, seed=seed)
        a.start()
        world.run_for(apart)
        b.start()
        world.run_until(lambda a=a, b=b: a.registered and b.registered, 1.0, 0.05)
        took.append(world.run_until(world.all_direct, 5.0, 0.05))
        assert sum(edge.parties for edge in (a, b)) == 1
        assert world.count_to(a)["birthday"] + world.count_to(b)["birthday"] <= 2 * 1024
    assert sorted(took)[SEEDS // 2] < 1.5
    assert sorted(took)[-2] < FOUND, "one in fifty needs a second try"


def test_the_way_that_was_met_is_used_and_kept_as_any_other() -> None:
    world, a, b = pair("port", "symmetric")
    world.run_until(world.all_direct, FOUND, 0.05)
    assert gap(talk(world, a, b, 5.0)) == 0.0
    assert (sides(world, a)[0], sides(world, b)) == (0, (1, 0))
    world.run_for(120.0)
    assert world.all_direct(), "it is kept open as any other"
    world.network.cut_between(a.host, b.host)
    assert 0.0 < gap(talk(world, a, b, 5.0)) <= LEFT


@pytest.mark.parametrize(("first", "second"), ORDERS)
@pytest.mark.parametrize("who", [(0,), (1,), (0, 1)])
def test_what_a_nat_does_may_be_learned_late(first: str, second: str, who: tuple[int, ...]) -> None:
    """After the search has failed: as soon as it is known, many ports are tried, and the other side joins."""
    late = 1.9  # the last of three questions to the second port comes 2 s after the registration
    for seed in range(4):
        world, *edges = two(first, second, seed=seed)
        for number in who:
            learns_late(world, edges[number], late)
        for edge in edges:
            edge.start()
        took = world.run_until(world.all_direct, 10.0, 0.05)
        assert took < late + FOUND


@pytest.mark.parametrize(("first", "second"), ORDERS)
def test_who_was_not_called_is_invited(first: str, second: str) -> None:
    """In a crowd nobody searches for a peer without being called; the call is lost, the invitation is not."""
    world, a, b = two(first, second, crowd=30)
    for edge in (a, b):
        edge.start()
    world.run_for(10.0)
    assert not a.reaches(b)
    assert sides(world, a) == sides(world, b) == (0, 0)
    without(world, NoteKind.CALL)
    began = world.clock.time
    while not world.all_direct(a, b):
        a.put_frame(b.mac, world.payload())
        world.run_for(0.1)
        assert world.clock.time - began < FOUND
    assert {a.parties, b.parties} == {0, 1}


@pytest.mark.parametrize(("first", "second"), ORDERS)
@pytest.mark.parametrize("lost", [(NoteKind.BIRTHDAY,), (NoteKind.BIRTHDAY, NoteKind.CALL, NoteKind.ANSWER)])
def test_without_any_word_from_the_other_both_come_to_it_by_themselves(
    first: str, second: str, lost: tuple[NoteKind, ...]
) -> None:
    world, a, b = two(first, second, passphrase=None)
    without(world, *lost)
    for edge in (a, b):
        edge.start()
    if NoteKind.ANSWER not in lost:  # nobody learns the secret by which straight pings are believed, otherwise
        world.run_until(world.all_direct, 4.0, 0.05)
    else:
        world.run_for(4.0)
    assert {a.parties, b.parties} == {0, 1}


@pytest.mark.parametrize(("first", "second"), ORDERS)
def test_a_miss_is_followed_by_another_try_at_once(first: str, second: str) -> None:
    world, a, b = two(first, second)
    for edge in (a, b):
        edge.start()
    tries: list[float] = []

    def lose(datagram: bytes, source: Endpoint, to: Endpoint) -> bool:
        if world.supernode.endpoint in (source, to) or kind_of(datagram) is not NoteKind.BIRTHDAY:
            return False
        tries.append(world.clock.time)
        return world.clock.time < tries[0] + 1.2  # the whole first try, and what the sockets sent

    world.network.lose = lose
    world.run_until(world.all_direct, 5.0, 0.05)
    assert tries[-1] - tries[0] > 1.2
    assert sum(world.count_to(edge)["birthday"] for edge in (a, b)) <= 2 * 1024
    assert {a.parties, b.parties} == {0, 1}, "the sockets wait for a second try"


@pytest.mark.parametrize("which", [0, 1])
def test_many_ports_are_tried_only_where_both_are_willing(which: int) -> None:
    world = World(n2n=True)
    nats = (Nat("port", "192.0.2.1"), Nat("symmetric", "192.0.2.2"))
    a, b = (world.edge(nat=nat, port_prediction=n != which) for n, nat in enumerate(nats))
    world.run_for(60.0)
    assert not a.reaches(b)
    assert sides(world, a) == sides(world, b) == (0, 0)


def test_two_hard_nats_do_not_try_many_ports() -> None:
    world, a, b = pair("symmetric", "symmetric")
    world.run_for(60.0)
    assert sides(world, a) == sides(world, b) == (0, 0)


def test_what_cannot_succeed_is_tried_within_bounds() -> None:
    world = World(n2n=True)
    a, b = world.edge(nat=Nat("port", "192.0.2.1")), world.edge(nat=Nat("symmetric", "192.0.2.2"))
    world.network.cut_between(a.host, b.host)
    talk(world, a, b, 300.0, every=1.0)
    assert 4 <= b.parties <= 24
    assert world.count_to(a)["birthday"] <= (4 + 300 * 0.2) * 1024, "the budget of all searches together"
    assert world.count_to(a)["birthday"] <= 24 * 1024, "and twice in each"


def test_invitations_cost_no_more_than_searches() -> None:
    """Whoever invites us again and again (a member gone wrong) gets 4 tries at once, then one in 5 s."""
    world, a, b = two("port", "symmetric")
    world.network.cut_between(a.host, b.host)
    for edge in (a, b):
        edge.start()
    world.run_for(60.0)
    before = world.count_to(a)["birthday"]
    parties = b.core._mesh.ways._parties
    member = b.core._mesh._table.get(a.mac)
    assert member is not None
    for _ in range(600):
        parties._invite(member, world.clock.now)
        b.pump()
        world.run_for(0.1)
    assert world.count_to(a)["birthday"] - before <= (4 + 60 * 0.2 + 1) * 1024
