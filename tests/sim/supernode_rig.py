"""A supernode in memory: core, relay model, decryption and store, driven by a clock that the test moves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from n2n.proto.actions import (
    Action,
    Decrypt,
    DropLease,
    DropMember,
    DropNetwork,
    LeaseRecord,
    Note,
    PutMember,
    SaveLease,
    SaveNetwork,
    Send,
    SendProbe,
)
from n2n.proto.sn_settings import SupernodeSettings
from n2n.proto.supernode import SupernodeCore
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import (
    HeartbeatPulse,
    Packet,
    PacketType,
    ProtoV,
    RegisterRequest,
    UnregisterRequest,
    build,
    community_id,
    derive_mac,
    parse,
)
from tests.sim.relay_model import RelayModel

__all__ = ["Party", "Rig", "fake_decrypt", "fake_encrypt"]

PEM = b"-----BEGIN RSA PUBLIC KEY-----\nnot a real one\n-----END RSA PUBLIC KEY-----\n"
START = 1_800_000_000.0
KEY_SIZE = 256


def fake_encrypt(machine_id: bytes, nonce: int) -> bytes:
    """Like RSA-OAEP as far as a supernode can tell: 256 bytes, different each time."""
    head = b"sealed" + nonce.to_bytes(8, "big") + bytes([len(machine_id)]) + machine_id
    return head + hashlib.shake_128(head).digest(KEY_SIZE - len(head))


def fake_decrypt(ciphertext: bytes) -> bytes | None:
    """The machine id in what `fake_encrypt` made; None for anything else."""
    if not ciphertext.startswith(b"sealed"):
        return None
    return ciphertext[15 : 15 + ciphertext[14]]


class Rig:
    """One supernode; what it saves survives `restart`."""

    def __init__(
        self,
        settings: SupernodeSettings | None = None,
        *,
        public_pem: bytes = PEM,
        decrypt: Callable[[bytes], bytes | None] = fake_decrypt,
        wall: float = START,
    ) -> None:
        self.settings = settings or SupernodeSettings()
        self.leases: dict[tuple[str, MacAddress], LeaseRecord] = {}
        self.networks: dict[str, IPv4Network] = {}
        self.wall = wall
        self.mono = 1000.0
        self.decrypting = True
        """False: `Decrypt` actions stay in `decrypts`, unanswered."""
        self.start(public_pem, decrypt)

    def start(self, public_pem: bytes = PEM, decrypt: Callable[[bytes], bytes | None] = fake_decrypt) -> None:
        """Begin, or begin again after a crash: only what was saved is still there."""
        self.decrypt = decrypt
        self.core = SupernodeCore(
            self.settings, public_pem=public_pem, leases=list(self.leases.values()), networks=dict(self.networks)
        )
        self.relay = RelayModel(vfuze=self.settings.vfuze, every_type=True)
        self.notes: list[Note] = []
        self.probed: list[tuple[bytes, Endpoint]] = []
        self.fresh: list[bool] = []
        self.decrypts: list[Decrypt] = []
        self.log: list[Action] = []
        self.core.handle_timer(self.now)
        self.settle()

    @property
    def now(self) -> Instant:
        return Instant(self.mono, self.wall)

    def pass_time(self, seconds: float) -> list[tuple[bytes, Endpoint]]:
        """Let time go by, with timers going off when they want to; returns what was sent."""
        end = self.mono + seconds
        sent: list[tuple[bytes, Endpoint]] = []
        while (due := self.core.next_timer()) is not None and due <= end:
            self._set(max(due, self.mono))
            self.core.handle_timer(self.now)
            sent += self.settle()
        self._set(end)
        return sent

    def feed(self, datagram: bytes, source: Endpoint) -> list[tuple[bytes, Endpoint]]:
        """A datagram comes in, through the plane; returns what was sent because of it."""
        outcome = self.relay.handle(datagram, source)
        sent = list(outcome.sends)
        if outcome.control is not None:
            self.core.receive(outcome.control, source, self.now)
            sent += self.settle()
        return sent

    def settle(self) -> list[tuple[bytes, Endpoint]]:
        """Carry out what the core asks for."""
        sent: list[tuple[bytes, Endpoint]] = []
        while actions := self.core.drain():
            self.log += actions
            for action in actions:
                self._carry_out(action, sent)
        return sent

    def _carry_out(self, action: Action, sent: list[tuple[bytes, Endpoint]]) -> None:
        match action:
            case Send(datagram, endpoint):
                sent.append((datagram, endpoint))
            case SendProbe(datagram, endpoint, fresh):
                self.probed.append((datagram, endpoint))
                self.fresh.append(fresh)
            case Decrypt(token, ciphertext):
                self.decrypts.append(action)
                if self.decrypting:
                    self.core.decrypted(token, self.decrypt(ciphertext), self.now)
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
            case Note():
                self.notes.append(action)
            case _:
                raise AssertionError(f"a supernode has no use for {action}")

    def _set(self, mono: float) -> None:
        self.wall += mono - self.mono
        self.mono = mono


_NONCE = iter(range(1, 1 << 62))


@dataclass
class Party:
    """An edge as far as a supernode can tell: its messages, made by hand."""

    rig: Rig
    number: int
    community: str = "acme"
    port: int = 0
    host: str = "192.0.2.1"
    header_id: int | None = None

    def __post_init__(self) -> None:
        self.machine_id = hashlib.sha256(b"machine %d" % self.number).digest()[:16]
        self.mac = derive_mac(self.machine_id, self.community)
        self.name = f"edge{self.number}"
        self.port = self.port or 10_000 + self.number

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.of(self.host, self.port)

    def header(self, kind: int, **fields: Any) -> ProtoV:
        """A header as an edge makes it."""
        given = community_id(self.community) if self.header_id is None else self.header_id
        defaults = {"community": given, "source": self.mac, "timestamp": int(self.rig.wall)}
        return ProtoV(kind, **{**defaults, **fields})

    def seal(self) -> bytes:
        """The machine id, encrypted afresh."""
        return fake_encrypt(self.machine_id, next(_NONCE))

    def register_datagram(self, **changes: Any) -> bytes:
        """A registration; `changes` replace fields of the message."""
        fields = {
            "edge_mac_addr": str(self.mac),
            "edge_desc": self.name,
            "community_name": self.community,
            "encrypted_machine_id": self.seal(),
        }
        return build(self.header(PacketType.REGISTER_REQUEST), RegisterRequest(**{**fields, **changes}))

    def heartbeat_datagram(self, card: bytes = b"") -> bytes:
        """A heartbeat."""
        message = HeartbeatPulse(str(self.mac), self.community, self.seal(), n2n=card)
        return build(self.header(PacketType.HEARTBEAT), message)

    def unregister_datagram(self) -> bytes:
        """A leave."""
        message = UnregisterRequest(str(self.mac), self.community, self.seal())
        return build(self.header(PacketType.UNREGISTER_REQUEST), message)

    def send(self, datagram: bytes) -> list[tuple[Packet, Endpoint]]:
        """Send a datagram; returns what the supernode then sends, taken apart."""
        return [(parse(data), to) for data, to in self.rig.feed(datagram, self.endpoint)]

    def say(self, kind: int, message: object = b"") -> list[tuple[Packet, Endpoint]]:
        """Send a message."""
        return self.send(build(self.header(kind), message))

    def register(self, **changes: Any) -> str | None:
        """Register; returns the address, or None if refused.  An unanswered registration is an error."""
        sent = self.send(self.register_datagram(**changes))
        answers = [p.message for p, to in sent if to == self.endpoint and p.header.type == PacketType.REGISTER_RESPONSE]
        assert len(answers) == 1, sent
        return answers[0].virtual_ip if answers[0].is_register_ok else None
