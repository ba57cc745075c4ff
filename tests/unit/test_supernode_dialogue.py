"""The recorded conversation with a reference supernode, held with ours: same answers to the same packets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint
from n2n.wire import ProtoV
from tests.sim.supernode_rig import Rig
from tests.unit.supernode_compare import answer_of, opener

Vectors = Callable[[str], dict[str, Any]]

#: Steps, by their note, whose answer differs on purpose, and why.
INTENDED = {
    "heartbeat of X then: told to register (the key is the string)": (
        "an edge is found by the MAC in its header, not by the text in its payload: one that writes its MAC in "
        "capitals is registered in full (WIRE 12 names the text as a defect to know of)"
    ),
}
SPACING = 0.15  # the recording waited so long for answers after each step


def clock_of(steps: list[dict[str, Any]]) -> Iterator[float]:
    """The recorded time of each step: what its header says, and at least the spacing after the one before."""
    now = 0.0
    for step in steps:
        raw = bytes.fromhex(step["hex"])
        stamp = ProtoV.unpack(raw).timestamp if raw[:1] == b"\x05" and len(raw) >= 30 and raw[22:26] > b"\1" else 0
        now = max(now + SPACING, float(stamp) if stamp > 1 else 0.0)
        yield now


class Dialogue:
    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.socket = {name: Endpoint.of(*party["socket"]) for name, party in record["parties"].items()}
        self.socket["A2"] = Endpoint.of(*record["second_socket_of_A"])
        self.name = {endpoint: name for name, endpoint in self.socket.items()}
        decrypt = opener(record["supernode_key"]["private_pkcs8_pem"])
        self.times = list(clock_of(record["steps"]))
        settings = SupernodeSettings(prefix=record["cidr"], vfuze=record["vfuze"], mapped_addresses=False)
        pem = record["supernode_key"]["public_pem"].encode()
        self.rig = Rig(settings, public_pem=pem, decrypt=decrypt, wall=self.times[0])

    def play(self) -> Iterator[tuple[dict[str, Any], dict[str, list[Any]], dict[str, list[Any]]]]:
        """Each step with the recorded and our answers, per party."""
        for step, time in zip(self.record["steps"], self.times, strict=True):
            self.rig.pass_time(time - self.rig.wall)
            recorded: dict[str, list[Any]] = defaultdict(list)
            for reply in step["replies"]:
                recorded[reply["at"]].append(answer_of(bytes.fromhex(reply["hex"]), time))
            ours: dict[str, list[Any]] = defaultdict(list)
            for datagram, to in self.rig.feed(bytes.fromhex(step["hex"]), self.socket[step["from"]]):
                ours[self.name[to]].append(answer_of(datagram, time))
            yield step, recorded, ours


def test_every_step_is_answered_as_the_reference_did_but_for_the_intended_differences(vectors: Vectors) -> None:
    differing: list[str] = []
    played = 0
    for step, recorded, ours in Dialogue(vectors("dialogue_supernode")).play():
        played += 1
        if step["note"] in INTENDED:
            if recorded != ours:
                differing.append(step["note"])
            continue
        assert ours == recorded, step["note"]
    assert played == 90
    assert sorted(differing) == sorted(INTENDED), "each intended difference must really be one"


def test_the_answers_that_differ_are_those_that_were_wanted(vectors: Vectors) -> None:
    ours = {step["note"]: ours for step, _, ours in Dialogue(vectors("dialogue_supernode")).play()}
    assert {note: ours[note] for note in INTENDED} == {note: {} for note in INTENDED}


def test_nothing_in_the_conversation_was_dropped_for_its_rate(vectors: Vectors) -> None:
    dialogue = Dialogue(vectors("dialogue_supernode"))
    for _ in dialogue.play():
        pass
    counters = dialogue.rig.core.counters()
    limits = [name for name in counters if name.endswith(("_limited", "_full", "overloaded", "suppressed"))]
    assert len(limits) >= 7
    assert {name: counters[name] for name in limits if counters[name]} == {}


@pytest.mark.parametrize("note", ["heartbeat of A: no answer", "unregister B; A is told"])
def test_the_comparison_notices_a_missing_answer(vectors: Vectors, note: str) -> None:
    """The test above must be able to fail: an answer more, or less, is seen."""
    for step, recorded, ours in Dialogue(vectors("dialogue_supernode")).play():
        if step["note"] == note:
            ours["A"] = [] if ours.get("A") else [((), {})]
            assert ours != recorded
            return
    pytest.fail("no such step")
