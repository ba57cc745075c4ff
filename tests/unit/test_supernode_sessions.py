"""Two recorded sessions of reference edges and a reference supernode: ours takes the supernode's place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint
from tests.sim.supernode_rig import Rig
from tests.unit.supernode_compare import answer_of, opener

Vectors = Callable[[str], dict[str, Any]]

#: Not recorded: chosen so that the edge that was killed counts as gone when the reference found it gone.
EXPIRY, CLEANUP = 6.0, 3.0


class Session:
    def __init__(self, record: dict[str, Any], mapped: bool) -> None:
        self.record = record
        self.events = record["events"]
        first = bytes.fromhex(self.events[0]["hex"])
        self.start = int.from_bytes(first[22:26], "big") - self.events[0]["t"]
        self.at = {name: Endpoint.of("127.0.0.1", edge["port"]) for name, edge in record["edges"].items()}
        self.name = {endpoint: name for name, endpoint in self.at.items()}
        self.keys = iter(record["supernode_keys"])
        gone = next((e["t"] for e in self.events if e.get("type") == "PeerInfoList" and _event(e) == 3), 0.0)
        phase = gone % CLEANUP - CLEANUP  # the cleanup must fall into the moment of the recorded event
        settings = SupernodeSettings(
            vfuze=record["config"]["vfuze"], mapped_addresses=mapped, expiry=EXPIRY, cleanup_interval=CLEANUP
        )
        key = next(self.keys)
        decrypt = opener(key["private_pkcs8_pem"])
        wall = self.start + phase
        self.rig = Rig(settings, public_pem=key["public_pem"].encode(), decrypt=decrypt, wall=wall)
        self.recorded: dict[str, list[tuple[float, bytes]]] = defaultdict(list)
        self.ours: dict[str, list[tuple[float, bytes]]] = defaultdict(list)

    def play(self) -> None:
        for event in self.events:
            self._until(self.start + event["t"])
            if event["event"].startswith("supernode killed"):
                key = next(self.keys)
                self.rig.start(key["public_pem"].encode(), opener(key["private_pkcs8_pem"]))
            if event["event"] != "udp":
                continue
            datagram = bytes.fromhex(event["hex"])
            if event["to"] == "SN":
                self._took(self.rig.feed(datagram, self.at[event["from"]]))
            elif event["from"] == "SN":
                self.recorded[event["to"]].append((self.rig.wall, datagram))

    def _until(self, wall: float) -> None:
        if wall > self.rig.wall:
            self._took(self.rig.pass_time(wall - self.rig.wall))

    def _took(self, sent: list[tuple[bytes, Endpoint]]) -> None:
        for datagram, to in sent:
            self.ours[self.name[to]].append((self.rig.wall, datagram))


def _event(event: dict[str, Any]) -> int:
    number: int = event["decoded"]["EventType"]
    return number


def in_order(answers: list[tuple[float, bytes]], relayed: bool) -> list[Any]:
    """The answers one edge got: those that the supernode made, or those that it passed on."""
    found = [answer_of(datagram, wall) for wall, datagram in answers]
    return [answer for answer in found if isinstance(answer, str) == relayed]


@pytest.mark.parametrize(("name", "mapped"), [("session_plain", False), ("session_sealed", True)])
def test_every_edge_is_sent_what_the_reference_sent_it(vectors: Vectors, name: str, mapped: bool) -> None:
    session = Session(vectors(name), mapped)
    session.play()
    assert session.ours.keys() == session.recorded.keys()
    for edge, recorded in session.recorded.items():
        ours = session.ours[edge]
        assert in_order(ours, relayed=False) == in_order(recorded, relayed=False), edge
        # The reference's workers relay side by side: the order of frames and pings means nothing.
        assert sorted(in_order(ours, relayed=True)) == sorted(in_order(recorded, relayed=True)), edge
        assert len(recorded) >= 4, "the recording holds a conversation"


def test_the_killed_edge_is_reported_gone_in_time(vectors: Vectors) -> None:
    session = Session(vectors("session_sealed"), mapped=True)
    session.play()
    assert session.rig.core.counters()["expired"] == 1


def test_an_edge_keeps_its_address_over_the_restart(vectors: Vectors) -> None:
    session = Session(vectors("session_plain"), mapped=False)
    session.play()
    edges = session.record["edges"]
    addresses = {str(record.mac): f"{record.ip}/24" for record in session.rig.leases.values()}
    assert addresses == {edge["mac"]: edge["vip"] for edge in edges.values()}
