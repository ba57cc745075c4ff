"""A supernode and two edges on loopback, with socket pairs for TAP devices: no root, real datagrams, real planes."""

from __future__ import annotations

import asyncio
import dataclasses
import doctest
import functools
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

import n2n
from n2n.api import faces
from n2n.cli import output
from n2n.crypto import SupernodeKey
from n2n.daemon import logs, supernode
from n2n.net import Tap, gratuitous_arp
from n2n.proto.edge import EdgeSettings, EdgeState
from n2n.types import BROADCAST_MAC, MacAddress
from tests.unit.daemon_fakes import until

pytestmark = pytest.mark.usefixtures("_quick_pings")


@pytest.fixture
def _quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(EdgeSettings, ping_interval=0.05, state_interval=0.05, told_gap=0.05)
    monkeypatch.setattr("n2n.daemon.edge_core.EdgeSettings", quick)


@functools.cache
def key() -> SupernodeKey:
    return SupernodeKey.generate()


class Host:
    """What stands behind an edge's device."""

    def __init__(self, name: str) -> None:
        self.ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device.setblocking(False)
        self.ours.setblocking(False)
        self.tap = Tap(device.detach(), name)

    def send(self, frame: bytes) -> None:
        self.ours.send(frame)

    def pending(self) -> list[bytes]:
        frames = []
        while select.select([self.ours], [], [], 0)[0]:
            frame = self.ours.recv(65536)
            if not frame:
                break
            frames.append(frame)
        return frames

    async def receive(self, wanted: bytes) -> list[bytes]:
        """Wait for a frame; returns what came before it as well."""
        seen: list[bytes] = []

        def there() -> bool:
            seen.extend(self.pending())
            return wanted in seen

        await until(there)
        return seen


@dataclasses.dataclass
class Net:
    supernode: n2n.Supernode
    edges: tuple[n2n.Edge, n2n.Edge]
    hosts: tuple[Host, Host]

    @property
    def macs(self) -> tuple[bytes, bytes]:
        assert self.edges[0].mac is not None
        assert self.edges[1].mac is not None
        return self.edges[0].mac.raw, self.edges[1].mac.raw

    def relayed(self) -> int:
        """Frames that went by way of the supernode so far.  (It relays the edges' words about paths as well.)"""
        counters = [edge.counters() for edge in self.edges]
        return sum(one["plane_tx_relay"] + one["plane_tx_flood"] for one in counters)


def an_edge(supernode: n2n.Supernode, host: Host, number: int, **settings: Any) -> n2n.Edge:
    about: dict[str, Any] = {"community": "acme", "supernode_addr": str(supernode.local), "edge_id": f"e{number}"}
    return n2n.Edge(tap=host.tap, machine_id=bytes([number] * 16), **(about | settings))


@asynccontextmanager
async def network(*, direct: bool = False, **settings: Any) -> AsyncIterator[Net]:
    hosts = Host("one"), Host("two")
    async with AsyncExitStack() as stack:
        supernode = await stack.enter_async_context(
            n2n.Supernode(listen_address="127.0.0.1:0", state_dir=None, key=key())
        )
        edges = []
        for number, host in enumerate(hosts, 1):
            edge = await stack.enter_async_context(an_edge(supernode, host, number, **settings))
            await edge.wait_ready(10)
            edges.append(edge)
        net = Net(supernode, (edges[0], edges[1]), hosts)
        await until(lambda: all(len(edge.peers()) == 1 for edge in net.edges))
        if direct:
            await until(lambda: all(edge.peers()[0].path == "direct" for edge in net.edges))
        yield net
    for host in hosts:
        host.ours.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 30)

    asyncio.run(bounded())


def frame(dest: bytes, source: bytes, text: bytes, kind: bytes = b"\x08\x00") -> bytes:
    return dest + source + kind + text * 20


@pytest.mark.parametrize("passphrase", [None, "secret"])
@pytest.mark.parametrize("vfuze", [True, False])
@pytest.mark.parametrize("compress", [False, True])
def test_frames_reach_the_other_host(passphrase: str | None, vfuze: bool, compress: bool) -> None:
    settings = {"encryption_passphrase": passphrase, "enable_vfuze": vfuze, "compress_payload": compress}

    async def main() -> None:
        async with network(direct=True, **settings) as net:
            one, two = net.macs
            before = net.relayed()
            for here, there, dest, source in ((0, 1, two, one), (1, 0, one, two)):
                sent = frame(dest, source, b"direct")
                net.hosts[here].send(sent)
                await net.hosts[there].receive(sent)
            assert net.relayed() == before, "direct frames do not pass the supernode"
            for dest, kind in (
                (BROADCAST_MAC.raw, b"\x08\x06"),
                (bytes.fromhex("01005e0000fb"), b"\x08\x00"),
                (bytes.fromhex("3333000000fb"), b"\x86\xdd"),
            ):
                sent = frame(dest, one, b"to all", kind)
                net.hosts[0].send(sent)
                await net.hosts[1].receive(sent)
            assert net.relayed() > before

    run(main)


def test_frames_are_relayed_until_there_is_a_direct_path(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = functools.partial(EdgeSettings, ping_interval=3600.0, n2n=False)
    monkeypatch.setattr("n2n.daemon.edge_core.EdgeSettings", slow)

    async def main() -> None:
        async with network(encryption_passphrase="secret") as net:
            one, two = net.macs
            assert [edge.peers()[0].path for edge in net.edges] == ["relay", "relay"]
            before = net.relayed()
            sent = frame(two, one, b"relayed")
            net.hosts[0].send(sent)
            await net.hosts[1].receive(sent)
            assert net.relayed() == before + 1
            assert net.supernode.counters()["plane_relayed"] > 0
            assert net.edges[0].peer_counters(MacAddress(two))["tx_frames"] == 1

    run(main)


def test_an_edge_announces_itself_to_the_others() -> None:
    async def main() -> None:
        async with network(encryption_passphrase="secret") as net:
            second = net.edges[1]
            assert second.mac is not None
            assert second.address is not None
            await net.hosts[0].receive(gratuitous_arp(second.mac, second.address.ip))

    run(main)


def test_other_passphrases_deliver_nothing() -> None:
    async def main() -> None:
        async with network(encryption_passphrase="secret") as net:
            third = Host("three")
            stranger = an_edge(net.supernode, third, 3, encryption_passphrase="guess")
            async with stranger:
                await stranger.wait_ready(10)
                net.hosts[0].send(frame(BROADCAST_MAC.raw, net.macs[0], b"for members"))
                await until(lambda: stranger.counters()["plane_drop_unsealed"])
                assert third.pending() == []
            third.ours.close()

    run(main)


def test_leases_state_and_views() -> None:
    async def main() -> None:
        async with network() as net:
            leases = (await net.edges[0].leases(5)).message.leases_with_edges_infos
            assert leases is not None
            assert {str(MacAddress(mac)) for mac in net.macs} == set(leases)
            state = (await net.edges[0].full_state(5)).message
            assert state.community_name == "acme"
            core = net.supernode.core
            assert core is not None
            assert [member.name for member in core.members("acme")] == ["e1", "e2"]
            assert str(net.edges[0].address) == "10.171.51.1/24"

    run(main)


def test_leaving_is_heard_by_the_others() -> None:
    async def main() -> None:
        async with network() as net:
            await net.edges[1].stop()
            await until(lambda: net.edges[0].peers() == ())
            core = net.supernode.core
            assert core is not None
            assert [member.name for member in core.members("acme")] == ["e1"]
            assert net.edges[1].state is EdgeState.CLOSED

    run(main)


def test_an_edge_comes_back_when_the_supernode_does() -> None:
    async def main() -> None:
        host = Host("one")
        first = n2n.Supernode(listen_address="127.0.0.1:0", state_dir=None, key=key())
        async with AsyncExitStack() as stack:
            await first.start()
            edge = await stack.enter_async_context(an_edge(first, host, 1, heartbeat_interval=0.1))
            await edge.wait_ready(10)
            address = edge.address
            await first.stop()
            second = n2n.Supernode(listen_address=str(first.local), state_dir=None, key=key())
            await stack.enter_async_context(second)
            await until(lambda: second.counters()["core_now_members"])
            await until(lambda: edge.state is EdgeState.REGISTERED)
            assert edge.address == address
        host.ours.close()

    run(main)


def test_not_ready_says_how_far_it_got() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{silent.getsockname()[1]}"
            host = Host("one")
            async with n2n.Edge(community="acme", supernode_addr=where, tap=host.tap, machine_id=bytes(16)) as edge:
                await until(lambda: edge.state is EdgeState.KEY)
                with pytest.raises(n2n.NotReady, match=f"no answer from the supernode at {where}"):
                    await edge.wait_ready(0.01)
                with pytest.raises(n2n.NotReady, match="not registered"):
                    await edge.leases()
            host.ours.close()

    run(main)


def test_the_device_is_closed_at_the_end_and_after_a_failed_start() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            host = Host("one")
            settings = {"community": "acme", "supernode_addr": "127.0.0.1:9", "bind": "127.0.0.1", "local_port": port}
            with pytest.raises(n2n.N2NError, match="address already in use"):
                await n2n.Edge(tap=host.tap, machine_id=bytes(16), **settings).start()
            assert host.tap.closed
            host.ours.close()
        async with network() as net:
            pass
        assert all(edge_host.tap.closed for edge_host in net.hosts)

    run(main)


def test_settings_are_checked() -> None:
    with pytest.raises(n2n.ConfigError, match="supernode_addr"):
        n2n.Edge(community="acme")
    with pytest.raises(n2n.ConfigError, match="colour"):
        n2n.Supernode(colour="red")
    with pytest.raises(n2n.ConfigError, match="expiry_duration"):
        n2n.Supernode(expiry_duration=-1.0)
    with pytest.raises(n2n.ConfigError, match="not both"):
        n2n.Supernode(n2n.config.SupernodeConfig(), debug=True)


@pytest.mark.parametrize("module", [n2n, faces, logs, supernode, output])
def test_the_examples_are_true(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs={"n2n": n2n})
    assert found.attempted
    assert not found.failed
