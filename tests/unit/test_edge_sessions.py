"""The recorded sessions of reference edges, lived through by ours: each edge of each session in turn.

What the supernode and the other edges sent to it arrives again at its moment, in virtual time; what it then says to the
supernode must be what the recorded edge said, and its pongs must take the ways that the recorded ones took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from n2n.crypto import SupernodeKey, encrypt
from n2n.errors import AuthenticationFailed
from n2n.proto.edge import EdgeSettings, EdgeState
from n2n.types import Endpoint, MacAddress
from n2n.wire import VFUZE_MARK, PacketType, PeerToPing, ProtoV, build, parse
from tests.unit.edge_driver import UNWATCHED, Driver, Sent
from tests.wirejson import json_of

#: Recorded processes were scheduled by a kernel.
SLACK = 0.2
EDGES = [
    ("session_plain", "A"),
    ("session_plain", "B"),
    ("session_sealed", "A"),
    ("session_sealed", "B"),
    ("session_sealed", "C"),
]
CLOCK = 1_795_332_257.0


class Life:
    """One edge's part of a session."""

    def __init__(self, session: dict[str, Any], letter: str) -> None:
        self.letter = letter
        self.edge = session["edges"][letter]
        self.events = session["events"]
        self.mac = MacAddress.parse(self.edge["mac"])
        ports = {"SN": session["supernode_port"], **{name: edge["port"] for name, edge in session["edges"].items()}}
        self.sockets = {name: Endpoint.of("127.0.0.1", port) for name, port in ports.items()}
        self.names = {endpoint: name for name, endpoint in self.sockets.items()}
        self.keys = [SupernodeKey.load(key["private_pkcs8_pem"].encode()) for key in session["supernode_keys"]]
        self.start = next(e["t"] for e in self.events if e.get("from") == letter)
        self.machine_id = bytes.fromhex(self.edge["machine_id"])
        self.driver = Driver(
            EdgeSettings(
                name=self.edge["edge_id"],
                community=session["community"],
                machine_id=self.machine_id,
                heartbeat=self.heartbeat(),
                # Ours asks whether the supernode is there; the recorded one has no answer to that.
                liveness_beats=10,
                watch=UNWATCHED,
            ),
            encrypt=encrypt,
            supernode=self.sockets["SN"],
            wall=CLOCK,
        )
        self.recorded = [
            Sent(e["t"] - self.start, self.sockets[e["to"]], bytes.fromhex(e["hex"]))
            for e in self.events
            if e["event"] == "udp" and e["from"] == letter and not is_data(e["hex"])
        ]

    def heartbeat(self) -> float:
        mine = [e for e in self.events if e.get("from") == self.letter and "type" in e]
        beat = next(e["t"] for e in mine if e["type"] == "HeartbeatPulse")
        return float(round(beat - next(e["t"] for e in mine if e["type"] == "PeerListRequest")))

    def live(self) -> None:
        driver, core = self.driver, self.driver.core
        core.start(driver.now)
        core.set_supernode(self.sockets["SN"], driver.now)
        driver.collect()
        for event in self.events:
            if event["t"] < self.start:
                continue
            driver.run_until(event["t"] - self.start)
            if event["event"] == f"edge {self.letter} killed (no unregister)":
                return
            if event.get("edge") == self.letter and event["event"] == "api":
                ask = core.ask_leases if event["what"] == "asks leases" else core.ask_full_state
                assert ask(driver.now)
            elif event.get("edge") == self.letter and event["event"] == "close":
                core.close(driver.now)
            elif event.get("to") == self.letter and not is_data(event["hex"]):
                driver.feed(self.with_our_check_id(bytes.fromhex(event["hex"])), self.sockets[event["from"]])
            driver.collect()

    def with_our_check_id(self, datagram: bytes) -> bytes:
        packet = parse(datagram)
        assert isinstance(packet.header, ProtoV)
        if packet.header.type != PacketType.PING or not packet.message.is_pong:
            return datagram
        ours = [s for s in self.driver.sent if s.type is PacketType.PING and s.header.dest == packet.header.source]
        pings = [s for s in ours if not s.message.is_pong]
        if not pings:
            return datagram
        assert pings[-1].message.check_id.startswith(packet.message.check_id + ".")
        return build(packet.header, PeerToPing(pings[-1].message.check_id, is_pong=True))

    # -- comparison

    def to_supernode(self, sent: list[Sent]) -> list[Sent]:
        """What was said to the supernode, pongs apart, by type: loops that are due together have no order."""
        said = [s for s in sent if self.names[s.endpoint] == "SN" and s.type is not PacketType.PING]
        return sorted(said, key=lambda s: s.type)

    def plain(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("EncryptedMachineID"):
            message["EncryptedMachineID"] = self.decrypts(bytes.fromhex(message["EncryptedMachineID"]))
        for peer in [message.get("From"), *message.get("To", [])]:
            if peer is not None:
                peer["UpdatedAt"] = None
        message.get("To", []).sort(key=lambda peer: peer["Infos"]["MACAddr"])
        return message

    def decrypts(self, ciphertext: bytes) -> bool:
        for key in self.keys:
            try:
                return key.decrypt(ciphertext) == self.machine_id
            except AuthenticationFailed:
                continue
        return False

    def pongs(self, sent: list[Sent]) -> Counter[tuple[str, str]]:
        return Counter((self.names[s.endpoint], s.message.check_id) for s in sent if is_ping(s, pong=True))

    def rounds(self, sent: list[Sent]) -> dict[tuple[str, int], int]:
        """How many pings each peer got in each round."""
        registered = next(s.at for s in sent if s.type is PacketType.PEER_LIST_REQUEST)
        pings = [s for s in sent if is_ping(s, pong=False)]
        return Counter((self.names[s.endpoint], round((s.at - registered) / 3.0)) for s in pings)


def is_data(text: str) -> bool:
    raw = bytes.fromhex(text[:6])
    return raw[0] == VFUZE_MARK or raw[2] == PacketType.DATA


def is_ping(sent: Sent, *, pong: bool) -> bool:
    return sent.type is PacketType.PING and sent.message.is_pong is pong


@pytest.fixture(scope="module", params=EDGES, ids=lambda p: f"{p[0]}-{p[1]}")
def life(request: pytest.FixtureRequest, vectors: Callable[[str], dict[str, Any]]) -> Life:
    name, letter = request.param
    life = Life(vectors(name), letter)
    life.live()
    return life


def test_the_supernode_hears_the_same(life: Life) -> None:
    theirs, ours = life.to_supernode(life.recorded), life.to_supernode(life.driver.sent)
    assert [s.type for s in ours] == [s.type for s in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert life.plain(json_of(our.message)) == life.plain(json_of(their.message))
        assert abs(our.at - their.at) <= SLACK
    assert {s.type.name for s in ours} >= {"SN_PUBLIC_SECRET", "REGISTER_REQUEST", "PEER_LIST_REQUEST", "HEARTBEAT"}


def test_pongs_answer_the_same_pings_the_same_way(life: Life) -> None:
    assert life.pongs(life.driver.sent) == life.pongs(life.recorded)
    assert life.pongs(life.recorded)


def test_the_same_peers_are_pinged_in_the_same_rounds(life: Life) -> None:
    """Less often, on purpose: four times in a first round, once where the peer answers."""
    theirs, ours = life.rounds(life.recorded), life.rounds(life.driver.sent)
    assert set(ours) == set(theirs)
    for key, count in theirs.items():
        assert count in (4, 8)
        assert ours[key] in ((4,) if count == 8 else (1, 4)), key
    assert 1 in ours.values() or max(number for _, number in theirs) == 1


def test_the_address_is_taken(life: Life) -> None:
    ip, prefix = life.edge["vip"].split("/")
    assert life.driver.core.address is not None
    assert (str(life.driver.core.address[0]), life.driver.core.address[1]) == (ip, int(prefix))
    closed = any(e["event"] == "close" and e.get("edge") == life.letter for e in life.events)
    assert life.driver.core.state is (EdgeState.CLOSED if closed else EdgeState.REGISTERED)
