"""Several threads of the data plane: nothing is lost of a stream, and nothing overtakes within a flow."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode

from .networks import PATIENCE, Network, apart, network, wait_paths
from .streams import MEGABYTE, both_ways, datagrams, download, echo_sizes, noise, super_datagrams

SECRET = "a secret of the test"


@dataclass
class Threaded:
    """A supernode and four edges with so many threads each: a and b directly, c and d by the supernode."""

    count: int
    net: Network
    edges: dict[str, EdgeNode]

    def pair(self, path: str) -> tuple[EdgeNode, EdgeNode]:
        names = "ab" if path == "direct" else "cd"
        return self.edges[names[0]], self.edges[names[1]]


@pytest.fixture(scope="module", params=[2, 4])
def threaded(request: pytest.FixtureRequest) -> Iterator[Threaded]:
    count: int = request.param
    with network("abcd", threads=count) as net:
        apart(net.host("c"), net.host("d"))
        edges = {name: net.edge(name, passphrase=SECRET, threads=count, heartbeat_interval="2s") for name in "abcd"}
        net.up(*edges.values())
        wait_paths("direct", edges["a"], edges["b"])
        wait_paths("relay", edges["c"], edges["d"])
        yield Threaded(count, net, edges)
        for edge in edges.values():
            assert edge.stop() == 0, edge.process and edge.process.tail()


@pytest.fixture(params=["direct", "relay"])
def pair(request: pytest.FixtureRequest, threaded: Threaded) -> tuple[EdgeNode, EdgeNode]:
    return threaded.pair(request.param)


def test_so_many_threads_run(threaded: Threaded) -> None:
    for node in (*threaded.edges.values(), threaded.net.supernode):
        assert node.status()["data_plane"]["threads"] == threaded.count
        assert node.process is not None
        names = [path.read_text().strip() for path in Path(f"/proc/{node.process.pid}/task").glob("*/comm")]
        assert len(names) > threaded.count


def test_several_connections_at_once(pair: tuple[EdgeNode, EdgeNode]) -> None:
    here, there = pair
    with ThreadPoolExecutor(6) as threads:
        found = [
            threads.submit(both_ways, one.host, other.host, other.address, 3 * MEGABYTE)
            for one, other in [(here, there), (there, here)] * 3
        ]
        assert all(one.result() for one in found)


def test_other_traffic(pair: tuple[EdgeNode, EdgeNode], tmp_path: Path) -> None:
    here, there = pair
    assert download(here.host, there.host, there.address, tmp_path)
    assert super_datagrams(here.host, there.host, there.address) == []
    assert echo_sizes(here.host, there.address, (1, 1000, 1392, 1393, 9000, 65_000)) == []


def test_nothing_overtakes_within_a_flow(pair: tuple[EdgeNode, EdgeNode]) -> None:
    """Numbered datagrams of eight flows at once, in bursts: some may be lost, none may be late."""
    here, there = pair
    streams, each = 8, 3000
    # Before a kernel knows the MAC, datagrams wait in its queue, and are overtaken when the answer comes.
    assert echo_sizes(here.host, there.address, [100]) == []
    with ExitStack() as stack:
        ends = [stack.enter_context(datagrams(here.host, there.host, there.address)) for _ in range(streams)]

        def send(number: int) -> None:
            for n in range(each):
                ends[number][0].send(struct.pack("!II", number, n) + noise(n % 3)[: 200 + n // 40 % 4 * 300])
                if n % 100 == 99:  # a burst that the device's queue holds, beside those of the others
                    time.sleep(0.001)
            while not received[number].done():
                ends[number][0].send(struct.pack("!II", number, each))
                time.sleep(0.01)

        def receive(number: int) -> list[int]:
            got: list[int] = []
            while not got or got[-1] != each:
                stream, n = struct.unpack_from("!II", ends[number][1].recv(2048))
                assert stream == number
                got.append(n)
            return got  # it ends with the first of the marks

        with ThreadPoolExecutor(2 * streams) as threads:
            received = [threads.submit(receive, number) for number in range(streams)]
            sent = [threads.submit(send, number) for number in range(streams)]
            orders = [one.result() for one in received]
            for one in sent:
                one.result()
    for order in orders:
        assert [(earlier, later) for earlier, later in itertools.pairwise(order) if earlier >= later] == []
        assert len(order) > each // 20, "the test means something"


def test_control_is_answered_under_load_and_all_come_back_to_a_new_supernode(threaded: Threaded) -> None:
    c, d = threaded.pair("relay")
    stop = threading.Event()

    def load() -> int:
        rounds = 0
        while not stop.is_set():
            assert both_ways(c.host, d.host, d.address, MEGABYTE)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(load)
        try:
            for edge in threaded.edges.values():
                assert set(edge.call("leases")) & {"leases", "at"}, "the supernode answers"
                assert edge.call("state")
        finally:
            stop.set()
        assert running.result() > 0
    old = threaded.net.supernode
    addresses = [edge.address for edge in threaded.edges.values()]
    since = {name: edge.status()["state_since"] for name, edge in threaded.edges.items()}
    assert old.stop() == 0
    old.start()
    old.wait_ready(PATIENCE)
    for name, edge in threaded.edges.items():
        wait_until("registered again", lambda edge=edge, name=name: again(edge, since[name]), PATIENCE)
    assert [edge.address for edge in threaded.edges.values()] == addresses
    wait_until("the relay carries", lambda: echo_sizes(c.host, d.address, [100]) == [], PATIENCE)
    assert both_ways(c.host, d.host, d.address)


def again(edge: EdgeNode, since: object) -> bool:
    status = edge.status()
    return status.get("state") == "registered" and status["state_since"] != since
