"""IPv6 outside: direct where IPv4 has only symmetric NATs, and a common network for edges that share no family."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nat import TOOLS, Internet
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping

from .needs import need_tool
from .networks import PATIENCE

SECRET = "a secret of the test"


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    for tool in (*TOOLS, "ping"):
        need_tool(tool)
    with Lab() as lab:
        yield Internet(lab, ipv6=True)


@pytest.fixture(scope="module")
def supernode(internet: Internet) -> SupernodeNode:
    node = SupernodeNode(internet.host("sn"))
    start_all(node, [], PATIENCE)
    return node


def up(*edges: EdgeNode) -> None:
    for edge in edges:
        edge.start()
    for edge in edges:
        edge.wait_registered(PATIENCE)


def test_a_direct_path_is_found_where_only_ipv6_has_one(internet: Internet, supernode: SupernodeNode) -> None:
    """Both routers let in what was asked for, and IPv4 has another port for everybody on both sides."""
    sites = [internet.site(name, "symmetric") for name in ("a", "b")]
    a, b = edges = [EdgeNode(site.host, supernode, community="six", passphrase=SECRET) for site in sites]
    up(*edges)
    for here, there in ((a, b), (b, a)):
        here.wait_path(there, "direct", PATIENCE)
        found = here.peer(there)
        assert found is not None
        ip, _, _ = str(found["in_use"]).rpartition(":")
        assert ip_address(ip.strip("[]")) in sites[here is a].router.lan6
        assert ping(here.host, there.address, count=2, interval=0.05).received == 2


def test_edges_without_a_common_family_meet_through_the_supernode(internet: Internet, supernode: SupernodeNode) -> None:
    four, six = internet.site("four", "port"), internet.site("six", "open")
    four.host.namespace.ip("-6", "address", "flush", "dev", "eth0")
    six.host.namespace.ip("-4", "address", "flush", "dev", "eth0")
    a = EdgeNode(four.host, supernode, community="both", passphrase=SECRET)
    b = EdgeNode(six.host, f"[{internet.six['sn']}]:7777", community="both", passphrase=SECRET)
    up(a, b)
    for here, there in ((a, b), (b, a)):
        wait_until("they know each other", lambda here=here, there=there: here.peer(there), PATIENCE)
        assert ping(here.host, there.address, count=3, interval=0.05).received == 3
        assert here.path_to(there) == "relay"


@pytest.mark.parametrize(("kind", "let_in"), [("full", False), ("open", True), ("carrier", False)])
def test_a_lan_lets_in_only_what_it_asked_for_unless_it_is_open(internet: Internet, kind: str, let_in: bool) -> None:
    site, far = internet.site(f"w-{kind}", kind), internet.host(f"far-{kind}")
    assert ping(far, internet.six[site.name], count=1).received == let_in
    assert ping(site.host, internet.six[far.name], count=1).received == 1
