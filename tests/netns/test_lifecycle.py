"""Daemons come, go, crash and return."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode
from n2n.lab.traffic import ping

from .networks import PATIENCE, Network, network, wait_paths

#: What these tests wait for must not depend on the defaults: an edge notices a new supernode at its next heartbeat.
HEARTBEAT = "2s"


@pytest.fixture(scope="module")
def shared() -> Iterator[Network]:
    with network("abc") as found:
        yield found


@pytest.fixture
def net(shared: Network) -> Iterator[Network]:
    """The shared network: its supernode runs, and no edge is left of a test that failed."""
    if not shared.supernode.alive:
        shared.supernode.start()
        shared.supernode.wait_ready(PATIENCE)
    yield shared
    for process in [*shared.lab.processes]:
        if shared.supernode.process is not process:
            process.stop()
            shared.lab.processes.remove(process)


@pytest.fixture
def pair(net: Network, request: pytest.FixtureRequest) -> tuple[EdgeNode, EdgeNode]:
    """Two edges of a community of the test's own, with a direct path."""
    name = f"lifecycle-{zlib.crc32(request.node.name.encode()):x}"
    a, b = (
        net.edge(host, name=f"{host}-{name}", community=name, passphrase="a secret", heartbeat_interval=HEARTBEAT)
        for host in "ab"
    )
    net.up(a, b)
    wait_paths("direct", a, b)
    return a, b


def reaches(here: EdgeNode, there: EdgeNode) -> bool:
    return ping(here.host, there.address, count=1).received == 1


def wait_reached(here: EdgeNode, there: EdgeNode) -> None:
    wait_until(f"{here.name} reaches {there.name}", lambda: reaches(here, there), PATIENCE)


def registrations(edge: EdgeNode) -> tuple[object, object]:
    status = edge.status()
    return status.get("state"), status.get("state_since")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_edges_register_again_after_a_restart_of_the_supernode(
    net: Network, pair: tuple[EdgeNode, EdgeNode], how: str
) -> None:
    a, b = pair
    addresses = a.address, b.address
    since = {edge.name: registrations(edge) for edge in pair}
    assert reaches(a, b)  # and now their kernels know each other's MAC: the question for it is a broadcast
    getattr(net.supernode, how)()
    assert reaches(a, b), "a direct path needs no supernode"
    net.supernode.start()
    net.supernode.wait_ready(PATIENCE)

    def back(edge: EdgeNode) -> bool:
        return registrations(edge)[0] == "registered" and registrations(edge) != since[edge.name]

    for edge in pair:
        wait_until(f"{edge.name} registers again", lambda edge=edge: back(edge), PATIENCE)
    assert (a.address, b.address) == addresses
    wait_until("the supernode knows both", lambda: net.supernode.status()["edges"] >= 2, PATIENCE)
    wait_reached(a, b)
    wait_reached(b, a)


def test_an_edge_that_is_killed_returns_with_its_address(pair: tuple[EdgeNode, EdgeNode]) -> None:
    a, b = pair
    address, mac = b.address, b.mac
    for _ in range(2):
        assert b.kill() == -9
        assert not reaches_address(a, address)
        b.start()
        assert b.wait_registered(PATIENCE) == address
        assert b.mac == mac
        wait_reached(a, b)
        wait_reached(b, a)
    assert b.process is not None
    assert "already" not in b.process.tail(100_000), "a return is never refused"


def reaches_address(edge: EdgeNode, address: str) -> bool:
    return ping(edge.host, address, count=1).received == 1


def test_sigterm_ends_an_edge_cleanly_and_the_others_know(pair: tuple[EdgeNode, EdgeNode]) -> None:
    a, b = pair
    times = []
    for attempt in range(3):
        if attempt:
            b.start()
            b.wait_registered(PATIENCE)
            wait_until(f"{a.name} knows {b.name}", lambda: a.peer(b), PATIENCE)
        start = time.monotonic()
        assert b.stop() == 0
        times.append(time.monotonic() - start)
        assert b.tap not in b.host.interfaces()
        wait_until(f"{a.name} forgets {b.name}", lambda: a.peer(b) is None, 5)
    assert min(times) < 1.0, times  # the quickest of three: a busy machine is not the edge's fault


def test_an_edge_waits_for_a_supernode_that_is_not_there_yet(net: Network) -> None:
    net.supernode.stop()
    edge = net.edge("c", name="early", community="early")
    edge.start()
    try:
        wait_until("the edge runs", edge.status, PATIENCE)
        assert not edge.address
    finally:
        net.supernode.start()
    net.supernode.wait_ready(PATIENCE)
    assert edge.wait_registered(PATIENCE)
    assert edge.stop() == 0


def test_a_network_that_the_host_has_already_is_refused_before_anything_is_configured(net: Network) -> None:
    """`lab` gets 10.145.70.0/24, from which this host has an address on its own network."""
    edge = net.edge("c")
    host = edge.host.namespace
    host.ip("address", "add", "10.145.70.200/24", "dev", "eth0")
    try:
        edge.start()
        assert edge.process is not None
        assert edge.process.wait(PATIENCE) == 1
        said = edge.process.tail(20_000)
        assert "10.145.70.0/24" in said
        assert "clashes with what this host has" in said
        assert "eth0" in said
        assert "Traceback" not in said
        assert "configured tap=" not in said
        assert edge.tap not in edge.host.interfaces(), "its device is gone with it"
    finally:
        host.ip("address", "del", "10.145.70.200/24", "dev", "eth0")
        if edge.process in net.lab.processes:
            net.lab.processes.remove(edge.process)


def test_addresses_survive_everybody_going_down(net: Network) -> None:
    edges = [net.edge(host, name=f"{host}-kept", community="kept") for host in "ab"]
    net.up(*edges)
    before = [edge.address for edge in edges]
    for edge in edges:
        edge.stop()
    net.supernode.kill()
    net.supernode.start()
    net.supernode.wait_ready(PATIENCE)
    net.up(*reversed(edges))
    assert [edge.address for edge in edges] == before
    for edge in edges:
        edge.stop()
