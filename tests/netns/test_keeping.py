"""Direct paths behind real NATs that are cut, moved and forgotten: frames go on by relay, and directly again.

Two seconds are what a lost path may cost; the simulator holds that to the tenth (tests/sim/test_sim_ways.py). Here,
on a machine that may be busy, `LEFT` tells it from paths that are not watched at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nat import TOOLS, Internet, Site
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab
from n2n.lab.traffic import Stream, ping

from .needs import need_tool

SECRET = "a secret of the test"
#: Seconds for which frames may be lost, and in which anything has to have happened at all.
LEFT, PATIENCE = 6.0, 90.0
HEARTBEAT = "3s"


@dataclass
class Meeting:
    """Two edges, each behind a port-restricted router of its own."""

    internet: Internet
    supernode: SupernodeNode
    sites: tuple[Site, Site]
    a: EdgeNode
    b: EdgeNode

    def edge(self, site: Site, **config: object) -> EdgeNode:
        return EdgeNode(site.host, self.supernode, name=site.name, passphrase=SECRET, **config)  # type: ignore[arg-type]

    def used(self) -> str:
        """Where b's frames to a go; "" by relay."""
        found = self.b.peer(self.a)
        return str(found["in_use"] or "") if found else ""

    def moved(self, before: str) -> None:
        """Wait for direct paths, b's to another endpoint than before."""
        wait_until("b uses another endpoint", lambda: self.used() not in ("", before), PATIENCE)
        wait_paths_direct(self.a, self.b)


def wait_paths_direct(*edges: EdgeNode) -> None:
    for here in edges:
        for there in edges:
            if here is not there:
                here.wait_path(there, "direct", PATIENCE)


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    for tool in (*TOOLS, "ping"):
        need_tool(tool)
    with Lab() as lab:
        yield Internet(lab)


@pytest.fixture(scope="module")
def supernode(internet: Internet) -> SupernodeNode:
    node = SupernodeNode(internet.host("sn"))
    start_all(node, [], PATIENCE)
    return node


@pytest.fixture(scope="module")
def started(internet: Internet, supernode: SupernodeNode) -> Meeting:
    sites = (internet.site("a", "port"), internet.site("b", "port"))
    edges = [
        EdgeNode(site.host, supernode, passphrase=SECRET, heartbeat_interval=HEARTBEAT)  # type: ignore[arg-type]
        for site in sites
    ]
    for edge in edges:
        edge.start()
    for edge in edges:
        edge.wait_registered(PATIENCE)
    return Meeting(internet, supernode, sites, *edges)


@pytest.fixture
def meeting(started: Meeting) -> Meeting:
    """Both ways are direct."""
    wait_paths_direct(started.a, started.b)
    return started


@contextmanager
def flowing(meeting: Meeting) -> Iterator[Stream]:
    """Frames both ways while something happens; afterwards it is known what was lost."""
    with Stream(meeting.a.host, meeting.b.address) as stream:
        time.sleep(0.5)
        yield stream
        time.sleep(0.3)


def test_a_path_that_is_cut_costs_little_and_comes_back_by_itself(meeting: Meeting) -> None:
    with flowing(meeting) as stream:
        meeting.internet.cut(*meeting.sites)
        meeting.a.wait_path(meeting.b, "relay", PATIENCE)
        meeting.b.wait_path(meeting.a, "relay", PATIENCE)
    assert 0 < stream.gap() < LEFT, "something was lost, or it was not cut"
    assert "silent" in log_of(meeting.a)
    with flowing(meeting) as stream:
        meeting.internet.mend(*meeting.sites)
        wait_paths_direct(meeting.a, meeting.b)
    assert stream.gap() < 1.0, "going back to the direct path costs nothing"


def log_of(edge: EdgeNode) -> str:
    assert edge.process is not None
    return edge.process.tail(1_000_000)


def test_a_nat_gives_another_port(meeting: Meeting) -> None:
    before = meeting.used()
    with flowing(meeting) as stream:
        meeting.sites[0].router.rebind()
        meeting.moved(before)
    assert stream.gap() < LEFT


def test_a_router_gets_another_address(meeting: Meeting) -> None:
    before = meeting.used()
    with flowing(meeting) as stream:
        address = meeting.sites[0].router.change_address()
        meeting.moved(before)
    assert stream.gap() < LEFT
    assert meeting.used().startswith(f"{address}:")


def test_the_edges_host_gets_another_address(meeting: Meeting) -> None:
    router, host = meeting.sites[0].router, meeting.a.host
    old, new = f"{host.addr}/24", str(router.lan[77])
    with flowing(meeting) as stream:
        host.namespace.ip(
            batch=[
                f"address del {old} dev eth0",
                f"address add {new}/24 dev eth0",
                f"route replace default via {router.inside} dev eth0",
            ]
        )
        wait_until("the NAT knows it", lambda: new in [ip for ip, _ in router.mappings()], PATIENCE)
        wait_until("it has been noticed", lambda: "network_changed" in log_of(meeting.a), PATIENCE)
        wait_paths_direct(meeting.a, meeting.b)
        wait_until("both are sure", lambda: stable(meeting), PATIENCE)
    assert stream.gap() < LEFT


def stable(meeting: Meeting) -> bool:
    """Frames go both ways right now."""
    return ping(meeting.b.host, meeting.a.address, count=3, interval=0.1).received == 3


def test_a_mapping_that_ended_while_nobody_spoke(meeting: Meeting) -> None:
    """Shorter than any keep-alive: the supernode alone keeps its own by heartbeats."""
    for site in meeting.sites:
        site.router.set_timeouts(5, 5)
    wait_until("both are sure", lambda: stable(meeting), PATIENCE)
    wait_paths_direct(meeting.a, meeting.b)
    for site, other in (meeting.sites, meeting.sites[::-1]):
        wait_until("the mapping ended", ended(site, other.public), PATIENCE, every=0.2)
    with flowing(meeting) as stream:
        wait_until("frames arrive", lambda: stable(meeting), PATIENCE)
        wait_paths_direct(meeting.a, meeting.b)
    assert stream.gap() < LEFT
    for site in meeting.sites:
        site.router.set_timeouts(30, 120)


def ended(site: Site, other: str) -> Callable[[], bool]:
    def look() -> bool:
        listed = site.router.host.run("conntrack", "-L", "-p", "udp", "-d", other, check=False)
        return "src=" not in listed.stdout

    return look


def test_the_supernode_starts_anew(meeting: Meeting) -> None:
    """The direct path does not need it; afterwards it introduces and relays again."""
    with flowing(meeting) as stream:
        assert meeting.supernode.stop() == 0
        time.sleep(0.5)
        meeting.supernode.start()
        meeting.supernode.wait_ready(PATIENCE)
        wait_until("both are back", lambda: meeting.supernode.status().get("edges") == 2, PATIENCE)
    assert stream.gap() < LEFT
    wait_paths_direct(meeting.a, meeting.b)
    meeting.internet.cut(*meeting.sites)
    meeting.a.wait_path(meeting.b, "relay", PATIENCE)
    wait_until("frames go by relay", lambda: stable(meeting), PATIENCE)
    meeting.internet.mend(*meeting.sites)


def test_two_edges_behind_one_nat_without_hairpin_meet_in_the_lan(internet: Internet, supernode: SupernodeNode) -> None:
    site = internet.site("l1", "port")
    edges = [
        EdgeNode(host, supernode, name=host.name, community="lan", passphrase=SECRET)
        for host in (site.host, site.router.attach("l2"))
    ]
    for edge in edges:
        edge.start()
    for edge in edges:
        edge.wait_registered(PATIENCE)
    wait_paths_direct(*edges)
    for here, there in (edges, edges[::-1]):
        found = here.peer(there)
        assert found is not None
        assert str(found["in_use"]).startswith(f"{there.host.addr}:")
        assert ping(here.host, there.address, count=2, interval=0.05).received == 2


def test_where_no_direct_path_can_be_the_relay_carries_on_without_a_pause(
    internet: Internet, supernode: SupernodeNode
) -> None:
    sites = [
        internet.site(f"r{number}", kind) for number, kind in enumerate(("carrier", "symmetric", "blocked", "full"))
    ]
    edges = [EdgeNode(site.host, supernode, name=site.name, community="relayed", passphrase=SECRET) for site in sites]
    for edge in edges:
        edge.start()
    for edge in edges:
        edge.wait_registered(PATIENCE)
    for here, there in zip(edges[::2], edges[1::2], strict=True):
        wait_until("they know each other", lambda here=here, there=there: here.peer(there), PATIENCE)
    pairs = list(zip(edges[::2], edges[1::2], strict=True))
    with Stream(edges[0].host, edges[1].address) as carrier, Stream(edges[2].host, edges[3].address) as blocked:
        time.sleep(4.0)  # every try of a direct path, birthday pings too, is in this time
    for stream in (carrier, blocked):
        assert stream.sent > 20
        assert stream.gap() < 1.0
    for here, there in pairs:
        assert (here.path_to(there), there.path_to(here)) == ("relay", "relay")
