"""The recorded conversation with a reference edge, held with ours instead, in virtual time.

Everything that the scripted supernode and peers said is said again at the recorded moments, and every packet and every
peer table of the recording must be matched: same socket, same header fields, same message.  What differs on purpose
stands in DIFFERENCES with its reason, and must differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from n2n.crypto import SupernodeKey, encrypt
from n2n.proto.edge import EdgeSettings
from n2n.types import ZERO_MAC, Endpoint, MacAddress
from n2n.wire import P2PStatus, PacketType, PeerToPing, ProtoV, build, parse
from tests.unit.edge_driver import UNWATCHED, Driver, Sent
from tests.wirejson import json_of

#: The recorder's processes were scheduled by a kernel; ours happens exactly when it should.
SLACK = 0.2
#: A round's pings leave within this time of each other.
ROUND = 0.5

#: What our edge does otherwise.  Keys: "state: <note>" for a peer table; "<peer> ping round <n>: ping <m>" for a ping
#: that is not sent, both counted from 1; "P2P_STATE <n>" for the n-th such packet; "to edge: <note>" where what we do
#: about a packet differs.
DIFFERENCES = {
    **{
        f"P ping round 1: ping {n}": "a new peer is pinged four times in its first round, not eight"
        for n in range(5, 9)
    },
    **{f"P ping round 2: ping {n}": "an available peer that answers is pinged once per round" for n in range(2, 5)},
    **{f"P ping round 3: ping {n}": "the peer is new again: four pings, not eight" for n in range(5, 9)},
    "state: Q is Unavailable for good": "a pong that was not asked for is ignored, not held against its sender",
    "state: P keeps its status": "Q again, which the reference has given up",
    "state: P is Unknown again": "a wrong pong is ignored: anyone could forge one and end a direct path",
    "state: P changed": "Q again",
    "P2P_STATE 3": "Q again: unknown, not unavailable",
    "state: P is gone": "Q again",
    "to edge: a list with only P: Q is removed, P added": "a list is taken only when one was asked for",
    "to edge: data from a stranger, other community, other destination: written to the TAP": "the plane drops it",
    "to edge: VFuze from a stranger: written to the TAP": "the plane drops it",
    "to edge: accepted: the edge asks for the list (the new address is ignored) and beats again": "it is taken",
}
#: Steps of the recording after which the edge's TAP, which the core does not see, did something.
PLANE = ("data from a stranger", "VFuze from a stranger", "VFuze for another MAC")


@dataclass
class Expected:
    """One packet of the recording."""

    key: str
    at: float
    socket: str
    type: PacketType
    header: ProtoV
    decoded: dict[str, Any]


class Replay:
    """The conversation, and what was found to differ."""

    def __init__(self, dialogue: dict[str, Any]) -> None:
        self.dialogue = dialogue
        self.sockets = {name: Endpoint.of(*address) for name, address in dialogue["sockets"].items()}
        self.key = SupernodeKey.load(dialogue["supernode_key"]["private_pkcs8_pem"].encode())
        self.machine_id = bytes.fromhex(dialogue["machine_id"])
        self.different: set[str] = set()
        states = [e for e in dialogue["events"] if e["event"] == "state"]
        first = next(iter(states[0]["peers"].values()))["UpdatedAt"]
        listed = next(e for e in dialogue["events"] if "peer list with Origin" in e.get("note", ""))
        settings = EdgeSettings(
            name=dialogue["edge_id"],
            community=dialogue["community"],
            machine_id=self.machine_id,
            heartbeat=dialogue["heartbeat_s"],
            watch=UNWATCHED,  # the recorded supernode has no answer to that
        )
        self.driver = Driver(
            settings,
            encrypt=encrypt,
            supernode=self.sockets["SN"],
            wall=first["unix"] + first["nsec"] / 1e9 - listed["t"],
        )
        self.core = self.driver.core

    def run(self) -> None:
        self.core.start(self.driver.now)
        self.core.set_supernode(self.sockets["SN"], self.driver.now)
        self.driver.collect()
        for event in self.dialogue["events"]:
            self.driver.run_until(event["t"])
            handler: Callable[[dict[str, Any]], None] = getattr(self, f"on_{event['event']}")
            handler(event)
            self.driver.collect()
        self.compare_packets()

    # -- the recording's events

    def on_from_edge(self, event: dict[str, Any]) -> None:
        """Compared at the end; but what the recorded edge was asked by its web page, ours must be asked as well."""
        if event.get("type") == PacketType.P2P_FULL_STATE:
            assert self.core.ask_full_state(self.driver.now)
        if event.get("type") == PacketType.LEASES_INFOS:
            assert self.core.ask_leases(self.driver.now)

    def on_tap_in(self, event: dict[str, Any]) -> None:
        """Frames are the plane's."""

    on_tap_out = on_tap_in

    def on_close(self, event: dict[str, Any]) -> None:
        self.core.close(self.driver.now)

    def on_to_edge(self, event: dict[str, Any]) -> None:
        datagram, source = bytes.fromhex(event["hex"]), self.sockets[event["from"]]
        note = f"to edge: {event['note']}"
        if event["note"].startswith(PLANE):
            assert not self.driver.feed(datagram, source)
            if not event["note"].startswith("VFuze for another"):
                self.different.add(note)
            assert self.core.counters()["data_unexpected"] > 0
        elif event["note"].startswith("a list with only P"):
            self.feed_unasked_list(datagram, source, note)
        elif event["note"].startswith("accepted: the edge asks"):
            before = self.core.address
            self.driver.feed(datagram, source)
            if self.core.address != before:
                self.different.add(note)
        else:
            self.driver.feed(self.with_our_check_id(datagram), source)

    def feed_unasked_list(self, datagram: bytes, source: Endpoint, note: str) -> None:
        """It must be ignored; to follow the rest of the conversation, let the edge ask for it then."""
        before = self.core.peers()
        assert not self.driver.feed(datagram, source)
        if self.core.peers() == before and self.core.counters()["list_unasked"] == 1:
            self.different.add(note)
        assert self.core.ask_peers(self.driver.now)
        self.driver.collect()
        assert self.driver.sent.pop().type is PacketType.PEER_LIST_REQUEST
        self.driver.feed(datagram, source)

    def with_our_check_id(self, datagram: bytes) -> bytes:
        """A pong with the recorded edge's check id gets ours, which ends in something unpredictable."""
        if datagram[0] != 5 or datagram[2] != PacketType.PING:
            return datagram
        packet = parse(datagram)
        assert isinstance(packet.header, ProtoV)
        label = f"{self.dialogue['edge_id']}.{self.core.mac}.{packet.header.source}."
        if not (packet.message.is_pong and packet.message.check_id.startswith(label)):
            return datagram
        ours = [s for s in self.driver.sent if s.type is PacketType.PING and s.header.dest == packet.header.source]
        assert ours[-1].message.check_id.startswith(packet.message.check_id + ".")
        return build(packet.header, PeerToPing(ours[-1].message.check_id, is_pong=True))

    def on_state(self, event: dict[str, Any]) -> None:
        """The recorded edge's own tables, against ours."""
        ours = {str(view.mac): self.table_entry(view) for view in self.core.peers()}
        theirs = {
            mac: {
                "status": peer["P2PStatus"],
                "full_duplex": peer["IsFullDuplex"],
                "check_id": peer["P2PCheckID"],
                "virtual_ip": peer["Infos"]["VirtualIP"],
                "name": peer["Infos"]["Desc"],
                "socket": peer["Infos"]["PubSocket"]["Port"],
            }
            for mac, peer in event["peers"].items()
        }
        if ours != theirs:
            self.different.add(f"state: {event['note']}")
        assert set(ours) == set(theirs)
        awaited = self.core.awaiting(PacketType.P2P_FULL_STATE, self.driver.now)
        assert awaited == event["waiting_full"]
        state, leases = self.core.full_state, self.core.leases
        assert (state and json_of(state.message)["P2PCommunityDatas"]["Reachables"]) == event["reachables"]
        assert (leases and json_of(leases.message)) == event["leases"]

    @staticmethod
    def table_entry(view: Any) -> dict[str, Any]:
        return {
            "status": int(view.status),
            "full_duplex": view.full_duplex,
            "check_id": view.check_id,
            "virtual_ip": view.virtual_ip.packed.hex(),
            "name": view.name,
            "socket": view.endpoint.port,
        }

    # -- packets

    def expected(self) -> list[Expected]:
        """The packets of the recording, each under a name of its own."""
        names = {endpoint: name for name, endpoint in self.sockets.items()}
        counts: dict[str, int] = defaultdict(int)
        rounds: dict[str, list[Any]] = {}
        found = []
        for event in self.dialogue["events"]:
            if event["event"] != "from_edge" or "type" not in event:
                continue  # VFuze is the plane's
            packet = parse(bytes.fromhex(event["hex"]))
            kind = PacketType(event["type"])
            assert isinstance(packet.header, ProtoV)
            assert event["at"] in names.values()
            if kind is PacketType.PING and not event["decoded"]["IsPong"]:
                key = self.ping_key(event, rounds)
            else:
                counts[kind.name] += 1
                key = f"{kind.name} {counts[kind.name]}"
            found.append(Expected(key, event["t"], event["at"], kind, packet.header, event["decoded"]))
        return found

    @staticmethod
    def ping_key(event: dict[str, Any], rounds: dict[str, list[Any]]) -> str:
        began, number, count = rounds.get(event["at"], (-ROUND, 0, 0))
        if event["t"] - began >= ROUND:
            began, number, count = event["t"], number + 1, 0
        rounds[event["at"]] = [began, number, count + 1]
        return f"{event['at']} ping round {number}: ping {count + 1}"

    def compare_packets(self) -> None:
        left = list(self.driver.sent)
        for expected in self.expected():
            match = next((s for s in left if self.is_same_event(expected, s)), None)
            if match is None:
                self.different.add(expected.key)
                continue
            left.remove(match)
            self.compare_header(expected, match)
            if self.plain(match) != self.plain_expected(expected):
                self.different.add(expected.key)
        assert not left, "packets that the recorded edge did not send"

    def is_same_event(self, expected: Expected, sent: Sent) -> bool:
        return (
            sent.type is expected.type
            and sent.endpoint == self.sockets[expected.socket]
            and abs(sent.at - expected.at) <= SLACK
        )

    def compare_header(self, expected: Expected, sent: Sent) -> None:
        ours, theirs = sent.header, expected.header
        assert (ours.version, ours.ttl, ours.flags, ours.checksum) == (5, 64, 0, 0)
        assert (ours.community, ours.source, ours.dest) == (theirs.community, theirs.source, theirs.dest)
        assert abs(ours.timestamp - theirs.timestamp) <= 1
        assert ours.timestamp == int(self.driver.wall + sent.at)

    def plain(self, sent: Sent) -> dict[str, Any]:
        """A message in which what cannot be the same is replaced by what it must be."""
        message = json_of(sent.message)
        if sent.type is PacketType.PING and not sent.message.is_pong:
            label, dot, token = message["CheckID"].rpartition(".")
            assert dot
            assert token.startswith("t"), "the unpredictable part"
            message["CheckID"] = label
        return self.without_chance(message)

    def plain_expected(self, expected: Expected) -> dict[str, Any]:
        return self.without_chance(dict(expected.decoded))

    def without_chance(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("EncryptedMachineID"):
            assert self.key.decrypt(bytes.fromhex(message["EncryptedMachineID"])) == self.machine_id
            message["EncryptedMachineID"] = "the machine id"
        if "From" in message:
            peers = [message["From"], *message["To"]]
            message["To"].sort(key=lambda peer: peer["Infos"]["MACAddr"])
            for peer in peers:
                if peer is not None:
                    assert peer["UpdatedAt"]["zone"] == 0
                    peer["UpdatedAt"] = "a moment"
            if message["From"] is not None:
                message["From"]["Infos"]["PubSocket"]["Port"] = "ours"
        return message


@pytest.fixture(scope="module")
def replay(vectors: Callable[[str], dict[str, Any]]) -> Replay:
    replay = Replay(vectors("dialogue_edge"))
    replay.run()
    return replay


def test_our_edge_says_what_the_reference_says(replay: Replay) -> None:
    unexpected = replay.different - set(DIFFERENCES)
    assert not unexpected


@pytest.mark.parametrize("key", DIFFERENCES)
def test_intended_differences_are_there(replay: Replay, key: str) -> None:
    assert key in replay.different, f"no longer differs, though meant to: {DIFFERENCES[key]}"


def test_what_v5_does_not_know_stands_where_the_protocol_says_and_nowhere_else(replay: Replay) -> None:
    """The comparison does not see the field `N2N`, which the recorded programs pass over."""
    beyond = [sent for sent in replay.driver.sent if b"N2N" in sent.datagram]
    assert {sent.type for sent in beyond} == {PacketType.REGISTER_REQUEST, PacketType.HEARTBEAT, PacketType.PING}
    pings = [sent for sent in replay.driver.of_type(PacketType.PING) if sent.endpoint != replay.sockets["SN"]]
    assert not any(sent.message.n2n for sent in pings if sent.message.is_pong)
    asked = [bool(s.message.n2n) for s in pings if s.endpoint == replay.sockets["P"] and not s.message.is_pong]
    assert asked[:5] == [True] * 4 + [False], "after the first answer without a note, none"


def test_sequence_numbers_count_every_packet(replay: Replay) -> None:
    numbers = [s.header.sequence for s in replay.driver.sent]
    asked_by_the_test = 1
    assert numbers[0] == 1
    assert numbers == sorted(numbers)
    assert numbers[-1] == len(numbers) + asked_by_the_test


def test_the_conversation_covers_what_it_should(replay: Replay) -> None:
    """A recording that was cut short would let everything else here pass."""
    kinds = {s.type for s in replay.driver.sent}
    assert kinds == {
        PacketType.SN_PUBLIC_SECRET, PacketType.REGISTER_REQUEST, PacketType.PEER_LIST_REQUEST, PacketType.PING,
        PacketType.HEARTBEAT, PacketType.P2P_STATE, PacketType.P2P_FULL_STATE, PacketType.LEASES_INFOS,
        PacketType.UNREGISTER_REQUEST,
    }  # fmt: skip
    assert all(s.header.source == MacAddress.parse(replay.dialogue["mac"]) for s in replay.driver.sent)
    assert all(s.header.dest == ZERO_MAC for s in replay.driver.sent if s.type is not PacketType.PING)
    counters = replay.core.counters()
    assert counters["pong_unasked"] == 2  # Q's before its first ping, P's with a wrong check id
    assert counters["ping_not_ours"] == 2
    assert counters["told_waiting"] == 1
    assert counters["key_bad"] == 1
    assert counters["full_state_bad"] == 1
    assert counters["event_unknown"] == 1
    assert counters["peer_unknown"] == 1
    assert counters["type_unhandled"] == 9
    assert [v.status for v in replay.core.peers()] == [P2PStatus.PENDING]
