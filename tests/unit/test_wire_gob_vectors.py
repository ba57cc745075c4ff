"""Messages made by the reference: decoded to the same values, and encoded to the same value bytes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from n2n.errors import MalformedDatagram
from n2n.wire import PeerListRequest, decode, encode, gob, parse
from n2n.wire.gob import Kind, WireType
from tests.wirejson import class_of, json_of, message_of

TYPES = [
    "HeartbeatPulse",
    "LeasesInfos",
    "OnlineCheck",
    "P2PFullState",
    "PeerInfoList",
    "PeerListRequest",
    "PeerP2PInfos",
    "PeerToPing",
    "RegisterRequest",
    "RegisterResponse",
    "SNPublicSecret",
    "UnregisterRequest",
]


@pytest.fixture(params=TYPES)
def gob_vectors(request, vectors):
    """(message class, vectors) of each type in turn."""
    content = vectors(f"gob_{request.param}")
    assert content["type"] == request.param
    assert content["vectors"]
    return class_of(request.param), content["vectors"]


def value_bytes(payload: bytes) -> bytes:
    """What stands behind the type id in the value message."""
    _, _, start, end = gob.split(payload)
    return payload[start:end]


def test_decode_gives_the_value(gob_vectors):
    cls, cases = gob_vectors
    for case in cases:
        message = decode(cls, bytes.fromhex(case["hex"]))
        assert json_of(message) == case["value"], case["label"]
        assert message == message_of(cls.__name__, case["value"]), case["label"]


def test_encode_gives_something_with_the_same_value(gob_vectors):
    cls, cases = gob_vectors
    for case in cases:
        payload = encode(message_of(cls.__name__, case["value"]))
        assert json_of(decode(cls, payload)) == case["value"], case["label"]


def has_large_map(value: Any) -> bool:
    """True if a message holds a map of two or more entries: its order on the wire is random."""
    if isinstance(value, dict):
        return len(value) > 1 or any(map(has_large_map, value.values()))
    if isinstance(value, tuple):
        return any(map(has_large_map, value))
    return dataclasses.is_dataclass(value) and any(
        has_large_map(getattr(value, field.name)) for field in dataclasses.fields(value)
    )


def test_value_bytes_are_those_of_the_reference(gob_vectors):
    cls, cases = gob_vectors
    exact = 0
    for case in cases:
        theirs = value_bytes(bytes.fromhex(case["hex"]))
        message = message_of(cls.__name__, case["value"])
        ours = value_bytes(encode(message))
        if has_large_map(message):
            assert sorted(ours) == sorted(theirs), case["label"]
        else:
            assert ours == theirs, case["label"]
            exact += 1
    assert exact >= 5


def described(payload: bytes) -> list[tuple[int, WireType]]:
    """The described types in the order of the stream, with ids renumbered by order of first mention."""
    block = payload[: gob.split(payload)[0]]
    types = gob.read_types(block)
    numbers: dict[int, int] = {}

    def renumber(type_id: int) -> int:
        return type_id if type_id < gob.FIRST_TYPE else numbers.setdefault(type_id, 1000 + len(numbers))

    return [
        (renumber(type_id), WireType(t.kind, tuple(map(renumber, t.parts)), t.names, t.length))
        for type_id, t in types.items()
    ]


def test_descriptors_are_those_of_the_reference(gob_vectors):
    """The same types, fields and order of descriptors; only ids and some names differ."""
    cls, cases = gob_vectors
    ours = described(encode(cls()))
    for case in cases:
        assert described(bytes.fromhex(case["hex"])) == ours, case["label"]
    assert ours[0][1].kind is Kind.STRUCT


def test_worked_example_is_byte_exact():
    """The worked example of the format's description: PeerListRequest with `acme`, type id 65."""
    assert encode(PeerListRequest("acme")) == (
        bytes.fromhex("2f ff81 03 01 010f") + b"PeerListRequest" + bytes.fromhex("01ff82 00 0101 010d")
        + b"CommunityName" + bytes.fromhex("010c 00 0000 09 ff82 0104") + b"acme\0"
    )  # fmt: skip


def recorded(vectors) -> list[dict[str, Any]]:
    """Every datagram of the recorded sessions and dialogues that carries a message."""
    found = []
    for name in ("session_plain", "session_sealed"):
        found += [event for event in vectors(name)["events"] if "decoded" in event]
    for step in vectors("dialogue_supernode")["steps"]:
        found += [reply for reply in step["replies"] if "decoded" in reply]
    found += [event for event in vectors("dialogue_edge")["events"] if "decoded" in event]
    return found


def test_recorded_messages_parse(vectors):
    packets = recorded(vectors)
    seen = set()
    for packet in packets:
        if packet["decoded"] is None:  # a ping of junk, which a supernode relays unread
            with pytest.raises(MalformedDatagram):
                parse(bytes.fromhex(packet["hex"]))
            continue
        parsed = parse(bytes.fromhex(packet["hex"]))
        assert parsed.message is not None, packet
        assert json_of(parsed.message) == packet["decoded"], packet["hex"][:80]
        assert parsed.header.pack() + parsed.payload == bytes.fromhex(packet["hex"])
        seen.add(type(parsed.message).__name__)
    assert len(packets) > 100
    assert seen >= set(TYPES) - {"OnlineCheck"}
