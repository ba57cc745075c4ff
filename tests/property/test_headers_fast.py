"""The extension's header routines and n2n.wire's are one and the same function, twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n._fastpath.plane import pack_protov, pack_vfuze, unpack_protov
from n2n.errors import MalformedDatagram
from n2n.types import MacAddress
from n2n.wire import ProtoV, VFuze
from tests.property import strategies as wire


def pack_fast(header: ProtoV) -> bytes:
    """The extension's packing of a header (always version 5)."""
    return pack_protov(
        header.type,
        header.community,
        header.source.raw,
        header.dest.raw,
        header.flags,
        header.sequence,
        header.timestamp,
        header.checksum,
        header.ttl,
    )


def unpack_fast(raw: bytes) -> ProtoV:
    """The extension's reading of a header."""
    version, ttl, kind, flags, sequence, community, source, dest, timestamp, checksum = unpack_protov(raw)
    return ProtoV(
        kind,
        community,
        MacAddress(source),
        MacAddress(dest),
        flags,
        sequence,
        timestamp,
        checksum,
        ttl,
        version,
    )


@given(wire.headers, st.binary(max_size=40))
def test_protov_is_the_same_in_both(header, payload):
    assert pack_fast(header) == header.pack()
    assert unpack_fast(header.pack() + payload) == header


@given(wire.macs)
def test_vfuze_is_the_same_in_both(mac):
    assert pack_vfuze(mac.raw) == VFuze(mac).pack()


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda junk: b"\x05" + junk))
def test_both_take_the_same_bytes(raw):
    try:
        header = ProtoV.unpack(raw)
    except MalformedDatagram:
        with pytest.raises(ValueError, match=r"."):
            unpack_fast(raw)
    else:
        assert unpack_fast(raw) == header


def test_protov_vectors_in_the_extension(vectors):
    content = vectors("protov_header")
    seen = set()
    for case in [*content["vectors"], *content["raw"]]:
        raw = bytes.fromhex(case["hex"])
        seen.add(case["accepted"])
        if case["accepted"]:
            header = unpack_fast(raw)
            assert header == ProtoV.unpack(raw)
            assert pack_fast(header) == raw[:30]
        else:
            with pytest.raises(ValueError, match=r"."):
                unpack_protov(raw)
    assert seen == {True, False}


def test_vfuze_vectors_in_the_extension(vectors):
    for case in vectors("vfuze_header")["vectors"]:
        if case["accepted"]:
            assert pack_vfuze(bytes.fromhex(case["dest"])) == bytes.fromhex(case["hex"])[:7]


@pytest.mark.parametrize("size", [0, 5, 7, 12])
def test_macs_of_another_size_are_refused(size):
    with pytest.raises(ValueError, match=r"."):
        pack_vfuze(bytes(size))
    for source, dest in ((bytes(size), bytes(6)), (bytes(6), bytes(size))):
        with pytest.raises(ValueError, match=r"."):
            pack_protov(1, 0, source, dest)
