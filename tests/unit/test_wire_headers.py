"""Both headers against recorded packets."""

from __future__ import annotations

import pytest

from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.types import SUPERNODE_MAC, MacAddress
from n2n.wire import MAX_DATAGRAM, VFUZE_MARK, PacketType, ProtoV, VFuze, build, mark_relayed, messages, parse

MAC = MacAddress.parse("0a:68:97:74:d5:44")


def header_of(fields) -> ProtoV:
    """The header of a vector's `fields`."""
    fields = dict(fields)
    source, dest = (MacAddress(bytes.fromhex(fields.pop(name))) for name in ("source", "dest"))
    return ProtoV(source=source, dest=dest, **fields)


def test_protov_vectors(vectors):
    cases = vectors("protov_header")["vectors"]
    taken = 0
    for case in cases:
        raw = bytes.fromhex(case["hex"])
        header = header_of(case["fields"])
        assert header.pack() + bytes.fromhex(case["payload"]) == raw
        if not case["accepted"]:
            with pytest.raises(MalformedDatagram):
                ProtoV.unpack(raw)
            continue
        taken += 1
        assert ProtoV.unpack(raw) == header
        assert header.from_supernode == case["from_supernode"]
        assert mark_relayed(raw).hex() == case["flagged"]
        for mac, text in ((header.source, case["source_mac"]), (header.dest, case["dest_mac"])):
            assert ("" if mac.is_zero else str(mac)) == text
    assert 100 < taken < len(cases)


def test_protov_raw(vectors):
    for case in vectors("protov_header")["raw"]:
        raw = bytes.fromhex(case["hex"])
        if case["accepted"]:
            assert ProtoV.unpack(raw).pack() == raw[:30]
            continue
        with pytest.raises(MalformedDatagram):
            ProtoV.unpack(raw)
        if raw[0] != VFUZE_MARK:
            with pytest.raises(MalformedDatagram):
                mark_relayed(raw)


def test_type_names_are_those_of_the_reference(vectors):
    """The numbers that the reference has a name for are types to us too."""
    cases = [case for case in vectors("protov_header")["vectors"] if case["accepted"]]
    named = {case["fields"]["type"] for case in cases if case["type_name"] != "Unknown"}
    assert len(named) >= 5
    assert named <= set(PacketType)


def test_vfuze_vectors(vectors):
    cases = vectors("vfuze_header")["vectors"]
    assert {case["accepted"] for case in cases} == {True, False}
    for case in cases:
        raw = bytes.fromhex(case["hex"])
        if not case["accepted"]:
            with pytest.raises(MalformedDatagram):
                VFuze.unpack(raw)
            with pytest.raises(MalformedDatagram):
                parse(raw)
            continue
        header = VFuze(MacAddress(bytes.fromhex(case["dest"])))
        assert VFuze.unpack(raw) == header
        assert header.pack() + bytes.fromhex(case["payload"]) == raw
        packet = parse(raw)
        assert (packet.header, packet.payload.hex(), packet.message) == (header, case["payload"], None)
        assert mark_relayed(raw) == raw
        assert build(header, packet.payload) == raw


def test_sequence_and_time_are_cut_to_their_size():
    header = ProtoV.unpack(ProtoV(1, sequence=0x12345, timestamp=0x1_0000_0007).pack())
    assert (header.sequence, header.timestamp) == (0x2345, 7)


@pytest.mark.parametrize("field", ["type", "community", "flags", "checksum", "ttl"])
@pytest.mark.parametrize("value", [-1, 2**32, 1.5])
def test_what_does_not_fit_is_our_error(field, value):
    with pytest.raises(LocalProtocolError, match="does not fit"):
        ProtoV(**{"type": 1, field: value}).pack()


@pytest.mark.parametrize(
    "data", [b"", b"\x05", b"\x04" + bytes(40), bytes(30), b"\x51" + bytes(5), b"\x05" + bytes(28)]
)
def test_parse_refuses(data):
    with pytest.raises(MalformedDatagram):
        parse(data)


@pytest.mark.parametrize("kind", [4, 5, 12, 253, 13, 0, 254, 255])
def test_types_without_a_message_are_not_decoded(kind):
    packet = parse(ProtoV(kind).pack() + b"\xffjunk")
    assert (packet.header, packet.payload, packet.message) == (ProtoV(kind), b"\xffjunk", None)


def test_build_and_parse():
    header = ProtoV(PacketType.PEER_INFO, 5, SUPERNODE_MAC, MAC, flags=2, timestamp=9)
    message = messages.PeerInfoList(peer_infos=(messages.PeerInfo(desc="x"),), event_type=2)
    packet = parse(build(header, message))
    assert (packet.header, packet.message) == (header, message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (ProtoV(PacketType.PING), messages.PeerListRequest()),
        (ProtoV(PacketType.DATA), messages.PeerToPing()),
        (ProtoV(200), messages.PeerToPing()),
        (VFuze(MAC), messages.PeerToPing()),
        (ProtoV(PacketType.PING), None),
    ],
)
def test_build_refuses_what_the_type_does_not_carry(header, message):
    with pytest.raises(LocalProtocolError, match="is not what"):
        build(header, message)


def test_build_refuses_what_no_datagram_holds():
    assert len(build(ProtoV(4), bytes(MAX_DATAGRAM - 30))) == MAX_DATAGRAM
    with pytest.raises(LocalProtocolError, match="65508 bytes"):
        build(ProtoV(4), bytes(MAX_DATAGRAM - 29))
