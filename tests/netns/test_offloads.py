"""Real traffic with every offload on, each of them off, none at all, and none at one end (as a peer of v5).

For each combination four edges of one community: a and b reach each other directly, c and d only through a supernode.
What is switched off must be off: the counters tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from n2n._fastpath.plane import Aead
from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.traffic import transfer

from .needs import need_tool
from .networks import PATIENCE, Network, apart, network, wait_paths
from .streams import MEGABYTE, both_ways, download, echo_sizes, super_datagrams

#: Every feature that can be switched off, and what status calls it.
FEATURES = {
    "tap_offload": "vnet_hdr",
    "tap_coalesce": "coalesce",
    "tap_uso": "uso",
    "udp_gso": "gso",
    "udp_gro": "gro",
}
NONE = dict.fromkeys(FEATURES, False)
#: What a feature of the TAP needs: without that it is off, too.
NEEDS = {"tap_coalesce": ["tap_offload"], "tap_uso": ["tap_offload", "tap_coalesce"]}
#: Every combination of them switched off, one key for each: what is off by need is not switched off as well.
ALL_OFF = [
    tuple(off)
    for count in range(1, len(FEATURES) + 1)
    for off in combinations(FEATURES, count)
    if not any(need in off for key in off for need in NEEDS.get(key, []))
]


@dataclass(frozen=True)
class Combination:
    """Configurations of one edge and of the other, and whether the supernode has offloads."""

    name: str
    here: dict[str, object] = field(default_factory=dict)
    there: dict[str, object] | None = None
    bare_relay: bool = False
    passphrase: str | None = "a secret of the test"

    def of(self, host: str) -> dict[str, object]:
        return self.here if host in "ac" or self.there is None else self.there


COMBINATIONS = [
    Combination("everything"),
    Combination("everything-unsealed", passphrase=None),
    *(
        Combination("-".join(("no", *off)), dict.fromkeys(off, False), bare_relay="udp_gso" in off or "udp_gro" in off)
        for off in ALL_OFF
    ),
    Combination("one-end", {}, NONE),
    Combination("libcrypto", {"cipher": "libcrypto"}),
    Combination("ipsec-mb", {"cipher": "ipsec-mb"}),
]


@dataclass
class Running:
    """A combination at work."""

    combination: Combination
    edges: dict[str, EdgeNode]
    relay: SupernodeNode

    def pair(self, path: str) -> tuple[EdgeNode, EdgeNode]:
        names = "ab" if path == "direct" else "cd"
        return self.edges[names[0]], self.edges[names[1]]


def own_address(edge: EdgeNode) -> str:
    """The IPv6 address that the test gives an edge."""
    return f"fd6e:6e32::{'abcd'.index(edge.host.name) + 1}"


class Fleet:
    """Starts the next combinations while one is tested: the search for a direct way is waiting, above all."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.bare = SupernodeNode(net.host("sn2"), udp_gso=False, udp_gro=False)
        self.bare.start()
        self.bare.wait_ready(PATIENCE)
        self._started: dict[str, Running] = {}

    def take(self, chosen: Combination) -> Running:
        """Wait until all four edges of a combination are at work."""
        at = COMBINATIONS.index(chosen)
        for one in COMBINATIONS[at : at + 3]:
            if one.name not in self._started and (one.name != "ipsec-mb" or not lacks_ipsec_mb()):
                self._started[one.name] = self._start(one)
        found = self._started[chosen.name]
        for edge in found.edges.values():
            edge.wait_registered(PATIENCE)
            edge.host.namespace.ip("address", "add", f"{own_address(edge)}/64", "dev", edge.tap, "nodad")
        wait_paths("direct", *found.pair("direct"))
        wait_paths("relay", *found.pair("relay"))
        return found

    def _start(self, chosen: Combination) -> Running:
        relay = self.bare if chosen.bare_relay else self.net.supernode
        edges = {
            name: EdgeNode(
                self.net.host(name),
                relay,
                name=f"{name}-{chosen.name}",
                community=chosen.name,
                tap=f"n2n_{COMBINATIONS.index(chosen)}",
                passphrase=chosen.passphrase,
                **chosen.of(name),  # type: ignore[arg-type]
            )
            for name in "abcd"
        }
        for edge in edges.values():
            edge.start()
        return Running(chosen, edges, relay)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with network(["a", "b", "c", "d", "sn2"]) as net:
        apart(net.host("c"), net.host("d"))
        yield Fleet(net)


def lacks_ipsec_mb() -> str:
    try:
        Aead(bytes(32), backend="ipsec-mb")
    except OSError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module", params=COMBINATIONS, ids=lambda one: one.name)
def running(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Running]:
    if request.param.name == "ipsec-mb" and lacks_ipsec_mb():
        pytest.skip(lacks_ipsec_mb())
    found = fleet.take(request.param)
    yield found
    for edge in found.edges.values():
        assert edge.stop() == 0, edge.process and edge.process.tail()


@pytest.fixture(params=["direct", "relay"])
def pair(request: pytest.FixtureRequest, running: Running) -> tuple[EdgeNode, EdgeNode]:
    return running.pair(request.param)


@pytest.fixture(params=["v4", "v6"])
def target(request: pytest.FixtureRequest, pair: tuple[EdgeNode, EdgeNode]) -> str:
    """An address of the second edge of the pair."""
    return pair[1].address if request.param == "v4" else own_address(pair[1])


# ---- traffic -------------------------------------------------------------------------------------


def test_a_tls_download_arrives_as_it_was_served(pair: tuple[EdgeNode, EdgeNode], target: str, tmp_path: Path) -> None:
    here, there = pair
    assert download(here.host, there.host, target, tmp_path)


def test_big_writes_both_ways_at_once(pair: tuple[EdgeNode, EdgeNode], target: str) -> None:
    here, there = pair
    assert both_ways(here.host, there.host, target)


def interesting_sizes(overhead: int, piece: int) -> list[int]:
    """Payloads of an echo around every boundary there is.

    Args:
        overhead: bytes of the IP and ICMP headers.
        piece: bytes of IP payload in a fragment.
    """
    sizes = {1, 2, 3, 17, 18, 19, 46, 47, 63, 64, 65, 255, 256, 999, 1000, 9000, 32_767, 32_768, 40_001, 64_999, 65_000}
    sizes.update(range(1420 - overhead - 24, 1420 - overhead + 10))  # the TAP's MTU; below it, that of the path
    for pieces in (1, 2, 3, 10, 45):
        sizes.update(range(pieces * piece - 10, pieces * piece - 5))  # 8 bytes of each are the ICMP header's
    return sorted(sizes)


def test_echoes_of_every_size_from_1_to_65000(pair: tuple[EdgeNode, EdgeNode], target: str) -> None:
    here, _ = pair
    sizes = interesting_sizes(48, 1368) if ":" in target else interesting_sizes(28, 1400)
    assert echo_sizes(here.host, target, sizes) == []


def test_echoes_of_all_sizes_there_are(running: Running) -> None:
    """All of them with every feature on; in the other combinations every 64th, each time other ones."""
    here, there = running.pair("direct")
    number = COMBINATIONS.index(running.combination)
    for target in (there.address, own_address(there)):
        assert echo_sizes(here.host, target, range(1 + number, 65_001, 64 if number else 1)) == []


def test_super_frames_of_udp_arrive_as_the_datagrams_they_stand_for(
    pair: tuple[EdgeNode, EdgeNode], target: str, running: Running
) -> None:
    here, there = pair
    with grown(here, there) as deltas:
        assert super_datagrams(here.host, there.host, target) == []
    sent, got = deltas
    ours, theirs = (running.combination.of(edge.host.name) for edge in pair)
    assert (sent["super_rx"] > 0) is on(ours, "tap_offload", "tap_uso")
    trains = on(ours, "udp_gso") and on(theirs, "udp_gro")  # else they arrive one by one, and rarely two in one batch
    if trains or not on(theirs, "tap_offload", "tap_coalesce", "tap_uso"):
        assert (got["super_tx"] > 0) is on(theirs, "tap_offload", "tap_coalesce", "tap_uso")


def test_iperf3_forth_back_and_by_udp(running: Running) -> None:
    need_tool("iperf3")
    here, there = running.pair("direct")
    for more in ([], ["-R"], ["-u", "-b", "300M", "-l", "1300"]):
        server = there.host.spawn("iperf3", "--forceflush", "-s", "-1", "-B", there.address, log="iperf3")
        wait_until("iperf3 listens", lambda server=server: "listening" in server.tail(), PATIENCE, every=0.01)
        result = here.host.run("iperf3", "-c", there.address, "-n", "10M", "-J", *more, check=False)
        assert server.wait(PATIENCE) == 0
        there.host.lab.processes.remove(server)
        server.log.unlink()
        assert result.returncode == 0, result.stdout
        end = json.loads(result.stdout)["end"]
        # Less than all: it counts when the sender has ended, and what is on its way then is not there yet.
        assert end.get("sum_received", end.get("sum"))["bytes"] > MEGABYTE


# ---- what is on, and what is off -----------------------------------------------------------------


def on(config: dict[str, object], *keys: str) -> bool:
    """Are all of these switched on?"""
    return all(bool(config.get(key, True)) for key in keys)


@contextmanager
def grown(*nodes: EdgeNode | SupernodeNode) -> Iterator[list[dict[str, int]]]:
    """By how much the counters of these data planes grow meanwhile (filled in at the end)."""
    deltas: list[dict[str, int]] = []
    before = [node.counters() for node in nodes]
    yield deltas
    for node, old in zip(nodes, before, strict=True):
        deltas.append({key.removeprefix("plane_"): value - old[key] for key, value in node.counters().items()})


def test_status_tells_what_is_on(pair: tuple[EdgeNode, EdgeNode], running: Running) -> None:
    for edge in pair:
        told = edge.status()["data_plane"]
        config = running.combination.of(edge.host.name)
        assert {key: told[name] for key, name in FEATURES.items()} == {
            key: on(config, key, *NEEDS.get(key, [])) for key in FEATURES
        }
        if running.combination.passphrase is None:
            assert told["cipher"] == "none"
        elif "cipher" in config:
            assert told["cipher"] == config["cipher"]


def test_bulk_uses_what_is_on_and_nothing_else(pair: tuple[EdgeNode, EdgeNode], running: Running) -> None:
    here, there = pair
    by_relay = here.host.name == "c"
    with grown(here, there, running.relay) as deltas:
        assert transfer(here.host, there.host, there.address, size=30_000_000).verified
    sent, got, relayed = deltas
    ours, theirs = (running.combination.of(edge.host.name) for edge in pair)
    bare = running.combination.bare_relay
    # A program that writes big blocks makes the kernel hand over super-frames; these leave in trains, and so arrive.
    assert (sent["super_rx"] > 0) is on(ours, "tap_offload")
    assert (sent["trains_tx"] > 0) is on(ours, "udp_gso")
    train_comes = on(ours, "udp_gso") and not (by_relay and bare)
    if train_comes:
        assert (got["trains_rx"] > 0) is on(theirs, "udp_gro")
    if not on(theirs, "udp_gro"):
        assert got["trains_rx"] == 0
    if train_comes or not on(theirs, "tap_offload", "tap_coalesce"):
        assert (got["super_tx"] > 0) is on(theirs, "tap_offload", "tap_coalesce")
    if by_relay:
        assert (relayed["trains_rx"] > 0) is (on(ours, "udp_gso") and not bare)
        assert (relayed["trains_tx"] > 0) is (on(ours, "udp_gso") and not bare)
    assert relayed["relayed"] > 20_000 if by_relay else relayed["relayed"] < 100
    wrong = {
        key: value for one in deltas for key, value in one.items() if value and key in ("drop_super", "drop_tap_error")
    }
    assert not wrong, wrong
