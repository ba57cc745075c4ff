"""Streams made to be costly: refused, or passed over in proportion to their size.

Costs are counted, not timed: bytes allocated, and calls made.
"""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from n2n.errors import MalformedDatagram
from n2n.wire import P2PFullState, PeerInfoList, PeerListRequest, decode, decoder, encode, gob
from n2n.wire.gob import Kind, WireType

ROOT = 65


def stream(types: dict[int, WireType], value: bytes) -> bytes:
    """A payload with these types and a value of type 65."""
    out = bytearray()
    for type_id, described in types.items():
        gob.put_descriptor(out, type_id, "T", described)
    body = bytearray()
    gob.put_int(body, ROOT)
    gob.put_message(out, body + value)
    return bytes(out)


def struct(**fields: int) -> WireType:
    """A struct type of these fields."""
    return WireType(Kind.STRUCT, tuple(fields.values()), tuple(name.encode() for name in fields))


def number(value: int) -> bytes:
    """An unsigned number as on the wire."""
    out = bytearray()
    gob.put_uint(out, value)
    return bytes(out)


def cost(cls: type, payload: bytes) -> tuple[int, int]:
    """(most bytes allocated, Python calls made) by decoding a payload, taken or not."""
    calls = 0

    def count(frame, event, arg):
        nonlocal calls
        calls += event == "call"

    tracemalloc.start()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        decode(cls, payload)
    except MalformedDatagram:
        pass
    finally:
        sys.setprofile(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, calls


NAME = b"\x01\x01a"  # field 0, "a"


@pytest.mark.parametrize("depth", [1, 2000, 30000])
def test_recursive_struct_is_skipped_to_any_depth(depth):
    types = {ROOT: struct(CommunityName=gob.STRING, Other=66), 66: struct(Next=66)}
    payload = stream(types, NAME + b"\x01" + b"\x01" * depth + b"\0" * depth + b"\0" + b"\0")
    assert decode(PeerListRequest, payload) == PeerListRequest("a")
    assert cost(PeerListRequest, payload)[1] < 50 + 5 * len(payload)


@pytest.mark.parametrize("kind", [Kind.SLICE, Kind.MAP])
def test_recursive_containers_are_skipped_to_any_depth(kind):
    depth = 20000
    parts = (66,) if kind is Kind.SLICE else (gob.UINT, 66)
    types = {ROOT: struct(CommunityName=gob.STRING, Other=66), 66: WireType(kind, parts)}
    level = b"\x01" if kind is Kind.SLICE else b"\x01\x07"
    payload = stream(types, NAME + b"\x01" + level * depth + b"\0" + b"\0")
    assert decode(PeerListRequest, payload) == PeerListRequest("a")


def test_cut_recursion_is_refused():
    types = {ROOT: struct(CommunityName=gob.STRING, Other=66), 66: struct(Next=66)}
    with pytest.raises(MalformedDatagram):
        decode(PeerListRequest, stream(types, NAME + b"\x01" * 30000))


def test_a_known_struct_that_holds_itself_goes_no_deeper_than_ours():
    """Origin described as the very type that holds it: its fields are not a PeerInfo's, so they are skipped."""
    types = {ROOT: struct(HasOrigin=gob.BOOL, Origin=ROOT)}
    payload = stream(types, b"\x02" * 5000 + b"\0" * 5000 + b"\0")
    assert decode(PeerInfoList, payload) == PeerInfoList()


@pytest.mark.parametrize("count", [2**16, 2**30, 2**50, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    ("cls", "types", "lead"),
    [
        (PeerInfoList, {ROOT: struct(PeerInfos=66), 66: WireType(Kind.SLICE, (67,)), 67: struct(Desc=6)}, b"\x01"),
        (PeerInfoList, {ROOT: struct(EventType=3, More=66), 66: WireType(Kind.SLICE, (67,)), 67: struct()}, b"\x02"),
        (PeerInfoList, {ROOT: struct(EventType=3, More=66), 66: WireType(Kind.MAP, (2, 2))}, b"\x02"),
        (PeerInfoList, {ROOT: struct(EventType=3, More=66), 66: WireType(Kind.ARRAY, (2,), length=2**62)}, b"\x02"),
        (PeerListRequest, {ROOT: struct(CommunityName=gob.STRING)}, b"\x01"),
        (
            P2PFullState,
            {
                ROOT: struct(P2PCommunityDatas=66),
                66: struct(Reachables=67),
                67: WireType(Kind.MAP, (6, 68)),
                68: struct(To=69),
                69: WireType(Kind.SLICE, (70,)),
                70: struct(),
            },
            b"\x01\x01",
        ),
    ],
)
def test_absurd_counts_are_refused_before_anything_is_made(cls, types, lead, count):
    payload = stream(types, lead + number(count) + b"\0" * 1000)
    with pytest.raises(MalformedDatagram):
        decode(cls, payload)
    assert cost(cls, payload)[0] < 100_000


@pytest.mark.parametrize("fields", [gob.MAX_FIELDS, gob.MAX_FIELDS + 1])
def test_fields_are_bounded(fields):
    names = {f"F{i}": gob.BOOL for i in range(fields - 1)}
    payload = stream({ROOT: struct(CommunityName=gob.STRING, **names)}, NAME + b"\0")
    if fields <= gob.MAX_FIELDS:
        assert decode(PeerListRequest, payload) == PeerListRequest("a")
    else:
        with pytest.raises(MalformedDatagram, match="65 fields"):
            decode(PeerListRequest, payload)


@pytest.mark.parametrize("types", [gob.MAX_TYPES, gob.MAX_TYPES + 1])
def test_types_are_bounded(types):
    more = {ROOT + i: WireType(Kind.GOB_ENCODER) for i in range(1, types)}
    payload = stream({ROOT: struct(CommunityName=gob.STRING), **more}, NAME + b"\0")
    if types <= gob.MAX_TYPES:
        assert decode(PeerListRequest, payload) == PeerListRequest("a")
    else:
        with pytest.raises(MalformedDatagram, match="more than 64 types"):
            decode(PeerListRequest, payload)


def test_a_datagram_of_empty_structs_costs_in_proportion():
    """The densest list: one byte per element.  They share one value."""
    count = 65_000
    types = {ROOT: struct(PeerInfos=66), 66: WireType(Kind.SLICE, (67,)), 67: struct(Desc=gob.STRING)}
    payload = stream(types, b"\x01" + number(count) + b"\0" * count + b"\0")
    message = decode(PeerInfoList, payload)
    assert len(message.peer_infos) == count
    memory, calls = cost(PeerInfoList, payload)
    assert memory < 40 * len(payload)
    assert calls < 3 * len(payload)


def test_plans_are_remembered_and_few():
    """One parse of the descriptors per process that talks to us; strangers cannot make memory grow."""
    remembered = decoder._remembered_plan
    remembered.cache_clear()
    for _ in range(3):
        decode(PeerListRequest, encode(PeerListRequest("a")))
    assert remembered.cache_info()[:2] == (2, 1)
    for type_id in range(1000):
        out = bytearray()
        gob.put_descriptor(out, 65 + type_id, "T", struct(CommunityName=gob.STRING))
        body = bytearray()
        gob.put_int(body, 65 + type_id)
        gob.put_message(out, body + NAME + b"\0")
        assert decode(PeerListRequest, bytes(out)) == PeerListRequest("a")
    assert remembered.cache_info().currsize == remembered.cache_info().maxsize == 128


def test_long_descriptors_are_not_remembered():
    remembered = decoder._remembered_plan
    remembered.cache_clear()
    names = {f"{'F' * 100}{i}": gob.BOOL for i in range(30)}
    payload = stream({ROOT: struct(CommunityName=gob.STRING, **names)}, NAME + b"\0")
    assert decode(PeerListRequest, payload) == PeerListRequest("a")
    assert remembered.cache_info().currsize == 0
