"""Whole nodes for the simulator: cores with model planes, on hosts of the simulated network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import random
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from n2n.crypto import PayloadCodec, key_from_passphrase
from n2n.errors import MalformedDatagram
from n2n.proto.actions import (
    Action,
    Birthday,
    Configure,
    Decrypt,
    DropLease,
    DropMember,
    DropNetwork,
    KeepKey,
    LeaseRecord,
    Note,
    PutMember,
    Resolve,
    SaveLease,
    SaveNetwork,
    Send,
    SendProbe,
)
from n2n.proto.edge import EdgeCore, EdgeSettings, EdgeState, PeerView
from n2n.proto.sn_settings import SupernodeSettings
from n2n.proto.supernode import SupernodeCore
from n2n.types import BROADCAST_MAC, Endpoint, MacAddress
from n2n.wire import (
    Candidate,
    CandidateKind,
    Card,
    PacketType,
    ProtoV,
    RegisterRequest,
    build,
    community_id,
    derive_mac,
    parse,
    wrap,
)
from tests.sim.network import Clock, Host, Link, Nat, Network
from tests.sim.plane_model import PlaneModel, frame
from tests.sim.relay_model import RelayModel

__all__ = ["Edge", "Supernode", "World"]

SUPERNODE_PORT = 7777
PROBE_PORT = 7778
EDGE_PORT = 40_000
KEY_SIZE = 256
#: Seconds that a decryption takes, and the resolution of a name.
DECRYPTION = 0.001
RESOLUTION = 0.050


def encrypt(public_pem: bytes, data: bytes, nonce: int) -> bytes:
    """Like RSA-OAEP as far as both sides can tell: tied to a key, 256 bytes, different each time."""
    if not public_pem.startswith(b"sim key "):
        raise MalformedDatagram("no key")
    head = hashlib.sha256(public_pem).digest() + nonce.to_bytes(8, "big") + bytes((len(data),)) + data
    return head + hashlib.shake_128(head).digest(KEY_SIZE - len(head))


def decrypt(public_pem: bytes, ciphertext: bytes) -> bytes | None:
    if ciphertext[:32] != hashlib.sha256(public_pem).digest():
        return None
    return ciphertext[41 : 41 + ciphertext[40]]


class _Node:
    """What both kinds of node share: a core on a host, driven by the clock."""

    core: Any

    def __init__(self, world: World, host: Host, port: int) -> None:
        self.world = world
        self.host = host
        self.port = port
        self.notes: list[Note] = []
        self.running = False
        self.by_port: dict[Endpoint, int] = {}
        """Further sockets, by what is sent from them."""
        self._armed: float | None = None

    def pump(self) -> None:
        """Carry out what the core wants, and see to it that its timer goes off."""
        for action in self.core.drain():
            if isinstance(action, Send):
                port = self.by_port.get(action.endpoint, self.port)
                self.world.network.send(self.host, port, action.datagram, action.endpoint)
            elif isinstance(action, Note):
                self.notes.append(action)
            else:
                self.carry_out(action)
        due = self.core.next_timer()
        if due is not None and (self._armed is None or due < self._armed):
            self._armed = due
            core = self.core
            self.world.clock.at(due, lambda: self._timer(core, due))

    def _timer(self, core: Any, due: float) -> None:
        if not self.running or core is not self.core or self._armed != due:
            return
        self._armed = None
        core.handle_timer(self.world.clock.now)
        self.pump()

    def carry_out(self, action: Action) -> None:
        raise NotImplementedError

    def noted(self, event: str) -> list[Note]:
        return [note for note in self.notes if note.event == event]


class Supernode(_Node):
    """A supernode; what it saved survives `restart`."""

    core: SupernodeCore

    def __init__(self, world: World, host: Host, settings: SupernodeSettings) -> None:
        super().__init__(world, host, SUPERNODE_PORT)
        self.settings = settings
        self.leases: dict[tuple[str, MacAddress], LeaseRecord] = {}
        self.networks: dict[str, IPv4Network] = {}
        self.deaf = False
        """It drops `N2N` fields, as a v5 one does."""
        self._runs = itertools.count(1)
        self.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host.ip, self.port)

    def start(self) -> None:
        """Run, with a new key, as v5 supernodes do; knows the leases that were saved."""
        self.pem = b"sim key %d" % next(self._runs)
        self.core = SupernodeCore(
            self.settings, public_pem=self.pem, leases=list(self.leases.values()), networks=dict(self.networks)
        )
        self.relay = RelayModel(vfuze=self.settings.vfuze)
        self.running = True
        self._armed = None
        self.host.sockets[self.port] = self._receive
        if self.settings.probe_port:
            self.host.sockets[self.settings.probe_port] = self._probed
        self.core.handle_timer(self.world.clock.now)
        self.pump()

    def stop(self) -> None:
        """Die at once, if it lives."""
        self.running = False
        self.host.sockets.pop(self.port, None)
        self.host.sockets.pop(self.settings.probe_port, None)

    def share(self, other: Supernode) -> None:
        """Have what another one saved, as from a store that both use; start with it."""
        self.stop()
        self.leases, self.networks = other.leases, other.networks
        self.start()

    def forget(self) -> None:
        """Lose what was saved."""
        self.leases.clear()
        self.networks.clear()

    def move(self, host: Host) -> None:
        """Go on at another address (that names resolve to)."""
        self.stop()
        self.host = host
        self.start()

    def _receive(self, datagram: bytes, source: Endpoint) -> None:
        outcome = self.relay.handle(datagram, source)
        for relayed, to in outcome.sends:
            self.world.network.send(self.host, self.port, relayed, to)
        if outcome.control is not None:
            self.core.receive(self._cut(outcome.control), source, self.world.clock.now)
            self.pump()

    def _probed(self, datagram: bytes, source: Endpoint) -> None:
        self.core.receive_probe(datagram, source, self.world.clock.now)
        self.pump()

    def _cut(self, datagram: bytes) -> bytes:
        if not self.deaf:
            return datagram
        packet = parse(datagram)
        if not getattr(packet.message, "n2n", b""):
            return datagram
        return build(packet.header, dataclasses.replace(packet.message, n2n=b""))

    def carry_out(self, action: Action) -> None:
        match action:
            case SendProbe(datagram, endpoint):
                self.world.network.send(self.host, self.settings.probe_port, datagram, endpoint)
            case Decrypt(token, ciphertext):
                core, answer = self.core, decrypt(self.pem, ciphertext)
                self.world.clock.after(DECRYPTION, lambda: self._decrypted(core, token, answer))
            case PutMember() | DropMember():
                self.relay.apply(action)
            case SaveLease(record):
                self.leases[record.community, record.mac] = record
            case DropLease(community, mac):
                self.leases.pop((community, mac), None)
            case SaveNetwork(community, network):
                self.networks[community] = network
            case DropNetwork(community):
                self.networks.pop(community, None)
            case _:
                raise AssertionError(f"a supernode has no use for {action}")

    def _decrypted(self, core: SupernodeCore, token: int, answer: bytes | None) -> None:
        if self.running and core is self.core:
            core.decrypted(token, answer, self.world.clock.now)
            self.pump()


class Edge(_Node):
    """An edge and its TAP device."""

    core: EdgeCore

    def __init__(
        self,
        world: World,
        host: Host,
        settings: EdgeSettings,
        *,
        vfuze: bool = True,
        passphrase: str | None = None,
    ) -> None:
        super().__init__(world, host, EDGE_PORT)
        self.settings = settings
        self.vfuze = vfuze
        codec = None if passphrase is None else PayloadCodec(key_from_passphrase(passphrase))
        self.sealing = None if codec is None else (codec.seal, codec.open)
        self.parties = 0
        """How often it opened many sockets."""
        self.tap: list[bytes] = []
        """Frames that came out of the tunnel."""
        self.configured: list[tuple[IPv4Address, int]] = []
        self.resolved = 0
        self.kept: KeepKey | None = None
        self.random = random.Random(f"{world.network.seed} {settings.name}")
        self._nonces = itertools.count(1)

    def start(self) -> None:
        """Run, knowing nothing of a former run but the machine id."""
        sequence = itertools.count(1).__next__
        self.core = EdgeCore(
            self.settings,
            encrypt=lambda pem, data: encrypt(pem, data, next(self._nonces)),
            sequence=sequence,
            token=lambda: f"{self.random.getrandbits(64):016x}",
            jitter=self.random.random,
            sealing=self.sealing,
        )
        self.plane = PlaneModel(
            self.core.mac, self.core.community_id, sequence, vfuze=self.vfuze, clock=lambda: self.world.clock.time
        )
        self.running = True
        self._armed = None
        self.host.sockets[self.port] = self._receive
        self.tell_local()
        self.core.start(self.world.clock.now)
        self.pump()

    def tell_local(self) -> None:
        """The daemon tells the core the host's addresses."""
        if self.settings.n2n:
            self.core.set_local([(CandidateKind.LOCAL, Endpoint(self.host.ip, self.port))], self.world.clock.now)

    def kill(self) -> None:
        """Die at once, without a goodbye."""
        self.running = False
        self.host.sockets.pop(self.port, None)

    def close(self) -> None:
        """Leave as one should."""
        self.core.close(self.world.clock.now)
        self.pump()
        self.kill()

    def new_port(self) -> None:
        """The socket is another one, and the edge is not told."""
        receiver = self.host.sockets.pop(self.port)
        self.port += 1
        self.host.sockets[self.port] = receiver

    def carry_out(self, action: Action) -> None:
        match action:
            case Configure(ip, prefix):
                self.configured.append((ip, prefix))
            case Birthday():
                self._open_many(action)
            case KeepKey():
                self.kept = action
            case Resolve(again):
                core = self.core
                self.resolved += not again
                self.world.clock.after(RESOLUTION, lambda: self._resolve(core))
            case _:
                self.plane.apply(action)  # type: ignore[arg-type]

    def _open_many(self, action: Birthday) -> None:
        """As the daemon does: the first of many sockets that hears the peer wins."""
        ports = range(50_000, 50_000 + action.sockets)
        self.parties += 1

        def heard(port: int, datagram: bytes, source: Endpoint) -> None:
            if source != action.endpoint:
                return
            close(port)
            self.by_port[source] = port
            self.host.sockets[port] = self._receive
            self.core.birthday_won(action.mac, source, self.world.clock.now)
            self.pump()
            self._receive(datagram, source)

        def close(winner: int = 0) -> None:
            for port in ports:
                if port != winner and self.host.sockets.get(port) is receivers[port]:
                    del self.host.sockets[port]

        receivers = {port: functools.partial(heard, port) for port in ports}
        for port in ports:
            self.host.sockets[port] = receivers[port]
            self.world.network.send(self.host, port, action.datagram, action.endpoint)
        self.world.clock.after(action.seconds, close)

    def _resolve(self, core: EdgeCore) -> None:
        if self.running and core is self.core:
            others = self.world.supernodes
            turn = others[(self.resolved - 1) % len(others)] if others else self.world.supernode
            core.set_supernode(turn.endpoint, self.world.clock.now)
            self.pump()

    def _receive(self, datagram: bytes, source: Endpoint) -> None:
        verdict, content = self.plane.incoming(datagram, source)
        if verdict == "frame":
            self.tap.append(content)
        elif verdict == "control":
            self.core.receive(content, source, self.world.clock.now)
            self.pump()

    # -- for tests

    @property
    def mac(self) -> MacAddress:
        return self.core.mac

    @property
    def ip(self) -> IPv4Address:
        assert self.core.address is not None
        return self.core.address[0]

    @property
    def registered(self) -> bool:
        return self.running and self.core.state is EdgeState.REGISTERED

    def view(self, other: Edge) -> PeerView:
        return next(view for view in self.core.peers() if view.mac == other.mac)

    def reaches(self, other: Edge) -> bool:
        """Its frames to the other go straight there."""
        return any(view.mac == other.mac and view.path == "direct" for view in self.core.peers())

    def put_frame(self, dest: MacAddress, payload: bytes) -> None:
        """A frame comes from the host's IP stack."""
        out = self.plane.outgoing(frame(dest, self.mac, payload))
        if out is not None:
            self.world.network.send(self.host, self.by_port.get(out[1], self.port), *out)
        traffic = getattr(self.core, "traffic", None)
        for mac in self.plane.notices if traffic else ():
            traffic(mac, self.world.clock.now)
        self.plane.notices.clear()
        self.pump()

    def got(self, payload: bytes) -> int:
        """How often a frame with this payload came out of the tunnel."""
        return sum(ethernet[14:] == payload for ethernet in self.tap)


class World:
    """A supernode, a network, and as many edges as a test makes: v5 edges, unless `n2n` says otherwise."""

    def __init__(
        self,
        *,
        seed: int = 1,
        link: Link | None = None,
        settings: SupernodeSettings | None = None,
        n2n: bool = False,
    ) -> None:
        self.n2n = n2n
        self.clock = Clock()
        self.network = Network(self.clock, seed, link or Link())
        self.edges: list[Edge] = []
        self.supernode = Supernode(
            self,
            self.network.add_host("198.51.100.1"),
            settings or SupernodeSettings(probe_port=PROBE_PORT if n2n else 0),
        )
        self.supernodes: list[Supernode] = []
        """Where there are several: edges take them in turns."""
        self._payloads = itertools.count(1)

    def edge(
        self,
        *,
        community: str = "acme",
        nat: Nat | None = None,
        start: bool = True,
        vfuze: bool = True,
        passphrase: str | None = None,
        **changes: Any,
    ) -> Edge:
        """Another edge, on a host of its own."""
        number = len(self.edges) + 1
        ip = f"10.0.{number // 250}.{number % 250 + 1}" if nat else f"203.0.{number // 250}.{number % 250 + 1}"
        machine_id = hashlib.sha256(b"machine %d" % number).digest()[:16]
        fields = {"name": f"edge{number}", "community": community, "machine_id": machine_id, "heartbeat": 10.0}
        fields["n2n"] = self.n2n
        settings = EdgeSettings(**{**fields, **changes})
        edge = Edge(self, self.network.add_host(ip, nat), settings, vfuze=vfuze, passphrase=passphrase)
        self.edges.append(edge)
        if start:
            edge.start()
        return edge

    def populate(self, count: int, community: str = "acme") -> None:
        """Register so many n2n edges that are never heard of again (nothing is at their endpoints)."""
        core, now = self.supernode.core, self.clock.now
        for number in range(count):
            machine_id = hashlib.sha256(b"crowd %d" % number).digest()[:16]
            mac, pem = derive_mac(machine_id, community), self.supernode.pem
            card = Card(mac, (Candidate(CandidateKind.LOCAL, Endpoint.of("172.16.0.1", 1 + number)),))
            sealed = encrypt(pem, machine_id, number)
            message = RegisterRequest(str(mac), f"crowd{number}", community, sealed, n2n=wrap(card.pack(), None))
            header = ProtoV(PacketType.REGISTER_REQUEST, community_id(community), mac, timestamp=int(now.wall))
            core.receive(build(header, message), Endpoint.of(f"100.{number // 250}.{number % 250}.1", 7), now)
            token = next(action.token for action in core.drain() if isinstance(action, Decrypt))
            core.decrypted(token, machine_id, now)
            core.drain()
        assert len(core.members(community)) == count

    def run_for(self, seconds: float) -> None:
        self.clock.run_for(seconds)

    def all_direct(self, *edges: Edge) -> bool:
        group = edges or tuple(self.edges)
        return all(a.reaches(b) for a, b in itertools.permutations(group, 2))

    def run_until(self, what: Any, within: float, step: float = 0.25) -> float:
        """Run until `what()` is true; how long that took.  Fails after `within` seconds."""
        start = self.clock.time
        while not what():
            assert self.clock.time - start < within, f"not so within {within} s"
            self.clock.run_for(step)
        return self.clock.time - start

    def payload(self) -> bytes:
        """A frame's payload that there was never before."""
        return b"frame %d" % next(self._payloads)

    def delivers(self, source: Edge, dest: Edge, wait: float = 3.0) -> bool:
        """Whether a unicast frame gets there, once."""
        payload = self.payload()
        source.put_frame(dest.mac, payload)
        self.run_for(wait)
        return dest.got(payload) == 1 and not any(e.got(payload) for e in self.edges if e is not dest)

    def floods(self, source: Edge, wait: float = 3.0) -> set[str]:
        """The names of those who get a broadcast."""
        payload = self.payload()
        source.put_frame(BROADCAST_MAC, payload)
        self.run_for(wait)
        return {e.settings.name for e in self.edges if e.got(payload)}

    def count_to(self, edge: Edge) -> Counter[str]:
        """What an edge sent so far, by kind."""
        return Counter({k[5:]: v for k, v in edge.core.counters().items() if k.startswith("sent_")})
