"""Port mappings with a real miniupnpd: by hand (`n2n upnp`), kept by an edge's PortMapper, and by a whole edge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from n2n.daemon.portmap import PortMapper, PortMapState, PortMapTimes
from n2n.lab.gateway import HomeRouter
from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Host, Lab
from n2n.net.portmap import METHODS
from n2n.types import Endpoint

from .needs import need_tool
from .networks import PATIENCE

WAN = "44.128.0.1"
OUTSIDE = Endpoint.of(WAN, 40001)
SECRET = bytes(range(16))
#: As short as works: nothing here waits for a minute.
QUICK = PortMapTimes(lifetime=600, check=0.2, retry=0.3, longest_retry=0.5, again=0.05, prove=0.1)


class Home:
    """A host behind a router with miniupnpd, and a stranger on the router's other side."""

    def __init__(self, lab: Lab, wan: str = WAN) -> None:
        street, rooms = lab.switch("street"), lab.switch("rooms")
        self.lab = lab
        self.router = HomeRouter(lab.host("router"), street, f"{wan}/24", rooms, "10.1.0.1/24")
        self.inside, self.outside = lab.host("inside"), lab.host("outside")
        self.inside.attach(rooms, "10.1.0.2/24", gateway="10.1.0.1")
        self.outside.attach(street, f"{wan.rpartition('.')[0]}.66/24")

    def use(self, **options: object) -> HomeRouter:
        """Start the router anew, with these options of :class:`HomeRouter`."""
        plain: dict[str, object] = {
            "upnp": True,
            "natpmp": True,
            "lifetime": 86400,
            "allowed": True,
            "says": None,
            "honest": True,
        }
        self.router.options.update(plain | options)
        self.router.restart()
        return self.router

    def reached(self, inner: int, outer: Endpoint = OUTSIDE) -> bool:
        """Whether a stranger's datagram to `outer` comes in at the inside host's port `inner`."""
        with self.inside.entered():
            inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with self.outside.entered():
            outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with inside, outside:
            inside.bind(("10.1.0.2", inner))
            inside.settimeout(0.3)
            word = secrets.token_bytes(8)
            outside.sendto(word, (str(outer.ip), outer.port))
            with contextlib.suppress(TimeoutError):
                return inside.recv(100) == word
        return False

    def n2n(self, *words: str, status: int = 0) -> Any:
        """Run `n2n upnp ... --json` on the inside host; what it prints, or what it complains of."""
        result = self.inside.run(
            sys.executable, "-m", "n2n", "upnp", *words, check=False, env={"HOME": str(self.inside.folder)}
        )
        assert result.returncode == status, (result.stdout, result.stderr)
        return result.stderr if status else json.loads(result.stdout)

    def mapper(
        self, mode: str = "auto", times: PortMapTimes = QUICK, seen: str | None = None, port: int = 40001
    ) -> Kept:
        return Kept(self, mode, times, seen, port)


class Kept:
    """A PortMapper that runs on the inside host, within ``with``."""

    def __init__(self, home: Home, mode: str, times: PortMapTimes, seen: str | None, port: int) -> None:
        self.home = home
        self.events: list[dict[str, object]] = []
        self.mapped: list[Endpoint | None] = []
        self._make = lambda: PortMapper(
            mode,
            Endpoint.of("0.0.0.0", port),
            SECRET,
            tell=lambda level, event, fields: self.events.append({"level": level, **fields}),
            seen_as=lambda: Endpoint.parse(seen) if seen else None,
            changed=self.mapped.append,
            times=times,
        )
        self.mapper: PortMapper

    def run(self, *steps: Callable[[Kept], Any]) -> PortMapper:
        """Carry out steps while it works: each is a condition to be waited for, or returns None."""

        async def main() -> None:
            self.mapper = self._make()
            self.mapper.supernode_at(Endpoint.of("44.128.0.10", 7777))
            task = asyncio.get_running_loop().create_task(self.mapper.run())
            try:
                async with asyncio.timeout(PATIENCE):
                    for step in steps:
                        while await asyncio.to_thread(step, self) is False:  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
            except TimeoutError:
                pytest.fail(f"{steps}: {self.mapper.view}; {self.events}")
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await self.mapper.close()

        with self.home.inside.entered():
            asyncio.run(main())
        return self.mapper

    def state(self, state: PortMapState) -> bool:
        return self.mapper.view.state is state


def at(state: PortMapState) -> Callable[[Kept], bool]:
    return lambda kept: kept.state(state)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    need_tool("miniupnpd")
    need_tool("nft")
    with Lab() as lab:
        yield Home(lab)


@pytest.fixture(scope="module")
def behind_another_nat() -> Iterator[Home]:
    """The router's own address is a carrier's: it is not the last NAT before the internet."""
    need_tool("miniupnpd")
    need_tool("nft")
    with Lab() as lab:
        yield Home(lab, "100.64.0.9")


@pytest.mark.parametrize("method", METHODS)
def test_by_hand_a_port_is_mapped_and_given_back(home: Home, method: str) -> None:
    home.use()
    ports = ("--external-port", "40001", "--internal-port", "40007", "--protocol", "udp")
    assert not home.reached(40007)
    made = home.n2n(*ports, "--method", method, "--lifetime", "10m", "--json")
    assert made["external"] == f"{WAN}:40001"
    assert (made["method"], made["internal"], made["lifetime"]) == (method, "10.1.0.2:40007", 600)
    assert (made["address"], made["warning"]) == ("public", None)
    assert home.reached(40007)
    (entry,) = home.n2n("list", "--json")["mappings"]
    assert (entry["protocol"], entry["external_port"], entry["internal_host"]) == ("udp", 40001, "10.1.0.2")
    gone = home.n2n("delete", *ports, "--method", method, "--json")
    assert gone["deleted"]
    assert not home.reached(40007)
    assert home.router.mappings() == []


def test_by_hand_what_answers_first_is_used_and_the_address_told(home: Home) -> None:
    home.use(upnp=False)
    assert home.n2n("external-ip", "--json") == {
        "method": "nat-pmp", "router": "10.1.0.1", "external_ip": WAN, "address": "public", "warning": None,
    }  # fmt: skip


def test_by_hand_a_refusal_says_why(home: Home) -> None:
    home.use()
    said = home.n2n("--external-port", "80", "--internal-port", "40001", "--method", "upnp", status=1)
    assert "Action not authorized" in said
    assert "settings" in said
    assert "has no mapping of port 40001" in home.n2n(
        "delete", "--external-port", "40001", "--method", "upnp", status=1
    )
    assert "neither udp nor tcp" in home.n2n("--external-port", "1", "--protocol", "sctp", status=2)


def test_by_hand_double_nat_is_told_as_such(behind_another_nat: Home) -> None:
    behind_another_nat.use()
    for words in (("--external-port", "40001"), ("--external-port", "40001", "--method", "pcp"), ("external-ip",)):
        said = behind_another_nat.n2n(*words, status=1)
        assert "Another NAT" in said, said


def all_at_once(check: Callable[[str, int], None]) -> None:
    """One check for each method, each with a port of its own."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(check, METHODS, range(40001, 40004)))


def test_mappings_are_renewed_and_removed_at_the_end(home: Home) -> None:
    home.use(lifetime=2)

    def check(method: str, port: int) -> None:
        kept = home.mapper(method, PortMapTimes(lifetime=2, check=60.0, prove=0.1), port=port)
        outside = Endpoint.of(WAN, port)
        first: list[float] = []

        def noted(kept: Kept) -> None:
            first.append(kept.mapper.view.expires or 0)

        def twice_over(kept: Kept) -> bool:
            return (kept.mapper.view.expires or 0) > first[0] + 2.2

        reached = lambda _: home.reached(port, outside)  # noqa: E731
        view = kept.run(at(PortMapState.UNPROVEN), noted, twice_over, reached).view
        assert (view.method, view.external, view.lifetime) == (method, outside, 2)
        assert kept.mapper.counts["portmap_lost"] == 0
        assert not home.reached(port, outside)

    all_at_once(check)
    assert home.router.mappings() == []


def test_after_a_restart_of_the_router_mappings_are_made_again(home: Home) -> None:
    home.use()
    restart = threading.Barrier(len(METHODS), action=home.router.restart)

    def check(method: str, port: int) -> None:
        # That of NAT-PMP never looks: it hears the router announce itself.
        times = replace(QUICK, check=600.0) if method == "nat-pmp" else QUICK
        kept, outside = home.mapper(method, times, port=port), Endpoint.of(WAN, port)

        def prove(kept: Kept) -> None:
            kept.mapper.proven(outside)
            assert kept.state(PortMapState.WORKING)
            time.sleep(3.5)  # a router that is 0 seconds old before and after has proved nothing

        kept.run(
            at(PortMapState.UNPROVEN),
            prove,
            lambda _: restart.wait(PATIENCE),
            lambda _: any(f"dport {port} " in line for line in home.router.mappings()),
            at(PortMapState.UNPROVEN),
            lambda _: home.reached(port, outside),
        )
        assert kept.mapper.counts["portmap_lost"] >= 1
        assert kept.mapped[-1] == outside

    all_at_once(check)


def test_a_new_address_of_the_router_is_noticed(home: Home) -> None:
    home.use()
    kept = home.mapper("nat-pmp")
    other = Endpoint.of("44.128.0.2", 40001)

    def move(_: Kept, old: str = WAN, new: str = "44.128.0.2") -> None:
        home.router.host.namespace.ip(batch=[f"address del {old}/24 dev wan", f"address add {new}/24 dev wan"])

    try:
        kept.run(at(PortMapState.UNPROVEN), move, lambda kept: kept.mapped[-1] == other)
    finally:
        move(kept, "44.128.0.2", WAN)
    assert kept.mapped == [OUTSIDE, None, other] or kept.mapped == [OUTSIDE, other]


def test_a_refusal_is_told(home: Home) -> None:
    home.use(allowed=False)
    kept = home.mapper("upnp")
    view = kept.run(at(PortMapState.REFUSED)).view
    assert "Action not authorized" in view.reason
    assert "settings" in view.remedy
    assert kept.events[0] == {
        "level": "warning", "state": "refused", "reason": view.reason, "remedy": view.remedy,
    }  # fmt: skip
    assert kept.mapped == []


def test_no_router_that_maps_ports_is_told_and_looked_for_again(home: Home) -> None:
    home.use()
    home.router.stop()
    kept = home.mapper("nat-pmp")
    kept.run(at(PortMapState.NONE), lambda _: home.router.restart(), at(PortMapState.UNPROVEN))


def test_a_carrier_s_address_is_double_nat(behind_another_nat: Home) -> None:
    behind_another_nat.use()
    kept = behind_another_nat.mapper()
    kept.run(at(PortMapState.DOUBLE_NAT))
    assert kept.events[0]["level"] == "warning"


def test_another_address_than_the_supernode_sees_is_double_nat(home: Home) -> None:
    home.use(says="44.128.7.7")
    kept = home.mapper(seen=f"{WAN}:40001")
    view = kept.run(at(PortMapState.DOUBLE_NAT)).view
    assert "44.128.7.7" in view.reason
    assert WAN in view.reason
    assert view.external == Endpoint.of("44.128.7.7", 40001), "it may still serve somebody"


def test_an_edge_maps_its_port_and_gives_it_back(home: Home) -> None:
    home.use()
    host: Host = home.lab.host("sn")
    host.attach(home.outside.port.switch, "44.128.0.10/24")
    supernode = SupernodeNode(host)
    supernode.start()
    supernode.wait_ready(PATIENCE)
    edge = EdgeNode(home.inside, supernode, local_port=40001)
    edge.start()
    edge.wait_registered(PATIENCE)
    mapped = wait_until("the port is mapped", lambda: edge.status()["port_mapping"]["external"], PATIENCE)
    assert mapped == f"{WAN}:40001"
    told = edge.status()["port_mapping"]
    assert (told["mode"], told["method"], told["router"]) == ("auto", "upnp", "10.1.0.1")
    wait_until("a packet came through", lambda: edge.status()["port_mapping"]["state"] == "working", PATIENCE)
    assert len(home.router.mappings()) == 1
    assert edge.stop() == 0
    assert home.router.mappings() == []
    home.use(honest=False)  # it says that it maps, and lets nothing in
    edge.start()
    edge.wait_registered(PATIENCE)
    wait_until("proofs are asked for", lambda: edge.counters()["daemon_portmap_asked"] > 2, PATIENCE)
    assert edge.status()["port_mapping"]["state"] == "unproven"
    assert edge.stop() == 0
