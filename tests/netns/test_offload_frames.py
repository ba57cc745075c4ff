"""Frames that offloads must not touch, and such as they may: tags, fragments, ECN, and checksums that are wrong."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode
from n2n.lab.traffic import transfer

from .frames import Tapped, mac_bytes, marked_frame
from .needs import need_tool
from .networks import PATIENCE, apart, network, wait_paths
from .packets import ACK, CWR, ECE, PSH, Flow
from .rawtcp import HandTcp, TaggedTap, held, snmp
from .streams import STANDSTILL, both_ways, datagrams, family_of, noise

#: The last byte of addresses that the tests use and no kernel has.
NOBODY = 200
_ports = itertools.count(20_000)


@dataclass
class Pair:
    """Two edges and the addresses that the test gave them."""

    here: EdgeNode
    there: EdgeNode
    prefix: str

    def own(self, edge: EdgeNode, version: str) -> str:
        return edge.address if version == "v4" else f"{self.prefix}{1 if edge is self.here else 2}"

    def nobody(self, version: str) -> str:
        return f"{self.here.address.rpartition('.')[0]}.{NOBODY}" if version == "v4" else f"{self.prefix}{NOBODY:x}"

    def flow(self, version: str, port: int) -> Flow:
        """From nobody (behind the first edge's MAC) to a port of the second edge."""
        ethernet = mac_bytes(self.there.mac) + mac_bytes(self.here.mac)
        return Flow(ethernet, self.nobody(version), self.own(self.there, version), (next(_ports), port))


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, Pair]]:
    with network("abcd") as net:
        apart(net.host("c"), net.host("d"))
        edges = {
            f"{name}-{kind}": net.edge(
                name, name=f"{name}-{kind}", community=kind, tap=f"n2n_{kind}", passphrase=secret
            )
            for name in "abcd"
            for kind, secret in (("sealed", "a secret of the test"), ("plain", None))
        }
        net.up(*edges.values())
        found = {}
        for kind, (path, names) in itertools.product(("sealed", "plain"), (("direct", "ab"), ("relay", "cd"))):
            here, there = (edges[f"{name}-{kind}"] for name in names)
            wait_paths(path, here, there)
            pair = found[f"{kind}-{path}"] = Pair(here, there, f"fd6e:6e32:{len(found)}::")
            for edge in (here, there):
                space = edge.host.namespace
                space.ip("address", "add", f"{pair.own(edge, 'v6')}/64", "dev", edge.tap, "nodad")
            for version in ("v4", "v6"):  # nobody's address is behind the first edge
                lladdr = ["lladdr", here.mac, "dev", there.tap]
                there.host.namespace.ip("neighbour", "replace", pair.nobody(version), *lladdr)
        yield found


@pytest.fixture(params=["sealed-direct", "sealed-relay", "plain-direct", "plain-relay"])
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


versions = pytest.mark.parametrize("version", ["v4", "v6"])


# ---- VLAN tags -----------------------------------------------------------------------------------

TAG_5 = bytes.fromhex("8100 0005")
PRIORITY_7 = bytes.fromhex("8100 e064")
DOUBLE = bytes.fromhex("88a8 0064 8100 0005")


@pytest.mark.parametrize("tags", [TAG_5, PRIORITY_7, DOUBLE], ids=["one", "priority", "two"])
def test_frames_with_vlan_tags_arrive_with_them(pair: Pair, tags: bytes) -> None:
    largest = 1434 + 4 * (tags is not DOUBLE)
    with TaggedTap(pair.here) as sender, TaggedTap(pair.there) as receiver:
        for size in (60, 64, 1000, 1434, largest):
            plain = marked_frame(receiver.mac, sender.mac, size - len(tags))
            sender.send(plain[:12] + tags + plain[12:])
            assert receiver.sees([plain[:12] + tags + plain[12:]]) == [], size


@versions
@pytest.mark.parametrize("cwr", [0, CWR], ids=["", "cwr"])
def test_a_super_frame_with_a_vlan_tag_is_cut_behind_its_tag(pair: Pair, version: str, cwr: int) -> None:
    """Made by hand, for this kernel may have no VLAN devices: 10 segments of 1,000 bytes as one frame."""
    mss, count = 1000, 10
    data = noise(5)[: mss * (count - 1) + 321]
    base = pair.flow(version, next(_ports))
    flow = Flow(base.ethernet + TAG_5, base.source, base.dest, base.ports)
    pieces = [data[at : at + mss] for at in range(0, len(data), mss)]
    last = len(pieces) - 1
    wanted = [
        flow.tcp(
            n * mss, 7, ACK | (PSH if n == last else 0) | (cwr if n == 0 else 0), piece, ident=0 if flow.v6 else 100 + n
        )
        for n, piece in enumerate(pieces)
    ]
    whole = flow.tcp(0, 7, ACK | PSH | cwr, data, ident=0 if flow.v6 else 100)
    l4 = 18 + (40 if flow.v6 else 20)
    whole = whole[: l4 + 16] + struct.pack("!H", flow.pseudo_sum(6, len(whole) - l4)) + whole[l4 + 18 :]
    gso = (4 if flow.v6 else 1) | (0x80 if cwr else 0)  # VIRTIO_NET_HDR_GSO_TCPV4, ..V6; with CWR: .._ECN
    virtio = struct.pack("=BBHHHH", 1, gso, l4 + 20, mss, l4, 16)
    with TaggedTap(pair.here, vnet_hdr=True) as sender, TaggedTap(pair.there) as receiver:
        before = pair.here.counters()["plane_super_rx"]
        sender.send(virtio + whole)
        assert receiver.sees(wanted) == []
        cut_by_us = pair.here.counters()["plane_super_rx"] - before
    if not cwr:  # what has it, the kernel cuts itself where it was not asked to leave it (TUN_F_TSO_ECN)
        assert cut_by_us == 1


# ---- checksums -----------------------------------------------------------------------------------


@contextmanager
def hand_made(pair: Pair, version: str, flags: int = 0) -> Iterator[tuple[HandTcp, socket.socket]]:
    """A TCP connection from nobody to the second edge's kernel: the client's end by hand, the server's a socket."""
    with ExitStack() as stack:
        address = pair.own(pair.there, version)
        with pair.there.host.entered():
            server = stack.enter_context(socket.create_server((address, 0), family=family_of(address)))
        tap = stack.enter_context(Tapped(pair.here))
        server.settimeout(STANDSTILL)
        client = HandTcp(tap, pair.flow(version, server.getsockname()[1]), flags)
        end = stack.enter_context(server.accept()[0])
        end.settimeout(STANDSTILL)
        stack.callback(client.reset)
        yield client, end


@versions
@pytest.mark.parametrize("wrong", [1, 0x8000, 0xFFFE])
def test_tcp_with_a_wrong_checksum_never_arrives(pair: Pair, version: str, wrong: int) -> None:
    size, bad = 1000, 5
    data = noise(6)[: size * 9]
    with hand_made(pair, version) as (client, end):
        refused = snmp(pair.there.host, "Tcp", "InCsumErrors")
        glued = pair.there.counters()["plane_super_tx"]
        with held(pair.here, pair.there):  # so that all of them are one train, and could be one super-frame
            for n in range(9):
                piece = data[n * size : (n + 1) * size]
                client.tap.send(client.segment(n * size, piece, wrong=wrong if n == bad else 0, ident=n))
        wait_until("the kernel refuses it", lambda: snmp(pair.there.host, "Tcp", "InCsumErrors") > refused, PATIENCE)
        wait_until("the kernel has the rest", lambda: acked(client) == size * bad, PATIENCE)
        end.setblocking(False)
        assert end.recv(100_000) == data[: size * bad]
        assert pair.there.counters()["plane_super_tx"] > glued, "what was right came glued"
        client.tap.send(client.segment(bad * size, data[bad * size : (bad + 1) * size]))
        end.settimeout(STANDSTILL)
        assert receive(end, len(data) - size * bad) == data[size * bad :]


def acked(client: HandTcp) -> int:
    return client.answer().ack - client.start


def receive(end: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (part := end.recv(size - len(got))):
        got += part
    return got


@versions
def test_udp_with_a_wrong_checksum_never_arrives(pair: Pair, version: str) -> None:
    address = pair.own(pair.there, version)
    mib = ("Udp", "InCsumErrors") if version == "v4" else ("Udp6", "InCsumErrors")
    with datagrams(pair.there.host, pair.there.host, address) as (_, inbox), Tapped(pair.here) as tap:
        flow = pair.flow(version, inbox.getsockname()[1])
        before = snmp(pair.there.host, *mib)
        pieces = [noise(40 + n)[:800] for n in range(9)]
        with held(pair.here, pair.there):
            for n, piece in enumerate(pieces):
                tap.send(flow.udp(piece, wrong=3 if n in (0, 4) else 0, ident=n))
        assert [inbox.recv(2000) for _ in range(7)] == [piece for n, piece in enumerate(pieces) if n not in (0, 4)]
        inbox.settimeout(0.1)
        with pytest.raises(TimeoutError):
            inbox.recv(2000)
        assert snmp(pair.there.host, *mib) == before + 2


def test_udp_without_a_checksum_arrives_without(pair: Pair) -> None:
    address = pair.own(pair.there, "v4")
    with (
        datagrams(pair.there.host, pair.there.host, address) as (_, inbox),
        Tapped(pair.here) as tap,
        TaggedTap(pair.there) as out,
    ):
        flow = pair.flow("v4", inbox.getsockname()[1])
        frames = [flow.udp(noise(50)[:700], checksum=False, ident=n) for n in range(6)]
        with held(pair.here, pair.there):
            for frame in frames:
                tap.send(frame)
        assert [inbox.recv(2000) for _ in frames] == [noise(50)[:700]] * len(frames)
        assert out.sees(frames) == []


# ---- ECN -----------------------------------------------------------------------------------------

CONGESTED = """table inet n2n_test {
 chain leaving {
  type filter hook output priority 0;
  oifname "%s" ip ecn ect0 numgen inc mod 16 0 ip ecn set ce
  oifname "%s" ip6 ecn ect0 numgen inc mod 16 0 ip6 ecn set ce
 }
}
"""


@versions
def test_tcp_with_ecn_on_a_congested_way(pair: Pair, version: str) -> None:
    need_tool("nft")
    sender, receiver = pair.here.host, pair.there.host
    for host in (sender, receiver):
        with host.entered():
            Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1")
    before = snmp(receiver, "IpExt", "InCEPkts") + snmp(receiver, "Ip6", "InCEPkts")
    sender.run("nft", "-f", "-", input=CONGESTED % (pair.here.tap, pair.here.tap))
    try:
        assert both_ways(sender, receiver, pair.own(pair.there, version))
    finally:
        sender.run("nft", "delete", "table", "inet", "n2n_test")
    assert snmp(receiver, "IpExt", "InCEPkts") + snmp(receiver, "Ip6", "InCEPkts") > before


@versions
def test_a_congestion_mark_in_the_midst_of_a_batch_is_heard(pair: Pair, version: str) -> None:
    """Segment 4 of 8 is marked: the receiver echoes it until the sender says CWR."""
    with pair.there.host.entered():
        Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1")
    size, data = 1000, noise(7)[:9000]
    with hand_made(pair, version, ECE | CWR) as (client, end):
        assert client.welcome.flags & (ECE | CWR) == ECE, "ECN is agreed upon"
        with held(pair.here, pair.there):
            for n in range(8):
                piece = data[n * size : (n + 1) * size]
                client.tap.send(client.segment(n * size, piece, tos=3 if n == 4 else 2, ident=n))
        answers = []
        while not answers or answers[-1].ack < client.start + 8 * size:
            answers.append(client.answer())
        assert answers[-1].flags & ECE, answers
        client.tap.send(client.segment(8 * size, data[8 * size :], flags=CWR, tos=2, ident=8))
        assert receive(end, len(data)) == data
        last = answers[-1]
        while last.ack < client.start + 9 * size:
            last = client.answer()
        assert not last.flags & ECE


# ---- fragments -----------------------------------------------------------------------------------


@versions
def test_datagrams_in_fragments_beside_tcp(pair: Pair, version: str) -> None:
    address = pair.own(pair.there, version)
    with datagrams(pair.here.host, pair.there.host, address) as (here, there):
        for n, size in enumerate((1393, 1400, 2000, 2800, 9000, 30_000, 65_000)):
            here.send(noise(60 + n, 65_536)[:size])
            if n == 3:
                assert transfer(pair.here.host, pair.there.host, pair.there.address, size=5_000_000).verified
        for n, size in enumerate((1393, 1400, 2000, 2800, 9000, 30_000, 65_000)):
            assert there.recv(65_536) == noise(60 + n, 65_536)[:size], size
