"""Gob: round trips, canonical bytes, and that no bytes whatever get past the decoder as another exception."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from n2n.errors import MalformedDatagram
from n2n.wire import MESSAGE_OF, PeerInfoList, decode, encode, gob, messages, parse, to_peer
from n2n.wire.gob import Kind, WireType
from n2n.wire.schema import STRUCTS
from tests.property import strategies as wire

CLASSES = sorted(STRUCTS, key=lambda cls: cls.__name__)
U64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
I64 = st.one_of(st.integers(-300, 300), st.integers(-(2**63), 2**63 - 1))


def quietly(read: Any, *args: Any) -> Any:
    """What `read` gives, or None if it raises the one exception that it may."""
    with contextlib.suppress(MalformedDatagram):
        return read(*args)
    return None


@given(U64)
def test_unsigned_numbers(number):
    out = bytearray()
    gob.put_uint(out, number)
    assert gob.get_uint(bytes(out), 0) == (number, len(out))
    assert len(out) == 1 if number < 128 else len(out) == 1 + (number.bit_length() + 7) // 8


@given(I64)
def test_signed_numbers(number):
    out = bytearray()
    gob.put_int(out, number)
    assert gob.get_int(bytes(out), 0) == (number, len(out))


@given(wire.messages)
def test_decode_undoes_encode(message):
    payload = encode(message)
    again = decode(type(message), payload)
    assert again == message
    assert encode(again) == payload


@given(wire.messages, st.binary(max_size=50))
def test_what_follows_the_value_is_ignored(message, junk):
    assert decode(type(message), encode(message) + junk) == message


@given(st.data(), wire.messages)
def test_any_cut_is_refused(data, message):
    payload = encode(message)
    cut = data.draw(st.integers(0, len(payload) - 1))
    assert quietly(decode, type(message), payload[:cut]) is None


@given(st.data(), wire.messages)
def test_mutations_raise_nothing_else(data, message):
    """Change, insert or delete a few bytes anywhere; whatever still decodes is a whole value that encodes again."""
    payload = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        kind = data.draw(st.sampled_from(["flip", "insert", "delete"]))
        if kind == "insert":
            payload[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif kind == "delete":
            del payload[at : at + data.draw(st.integers(1, 8))]
        elif at < len(payload):
            payload[at] ^= data.draw(st.integers(1, 255))
    again = quietly(decode, type(message), bytes(payload))
    if again is not None:
        assert decode(type(again), encode(again)) == again


@given(st.sampled_from(CLASSES), st.binary(max_size=200))
@example(messages.PeerListRequest, b"")
@example(messages.PeerListRequest, b"\0")
@example(messages.PeerListRequest, b"\x80")
def test_random_bytes_raise_nothing_else(cls, payload):
    quietly(decode, cls, payload)


@given(st.sampled_from(CLASSES), wire.messages)
def test_messages_of_another_class_raise_nothing_else(cls, message):
    quietly(decode, cls, encode(message))


# Streams of a stranger's own types: well-formed descriptors, wild in what they say.

IDS = st.one_of(st.integers(65, 70), st.sampled_from([1, 2, 3, 4, 5, 6, 7]), st.sampled_from([0, -1, 8, 18, 64, 71]))
NAMES = st.sampled_from(
    [field.wire.encode() for struct in STRUCTS.values() for field in struct.fields] + [b"X", b"x", b"\xff"]
)
STRUCT_TYPES = st.lists(st.tuples(NAMES, IDS), max_size=6).map(
    lambda fields: WireType(Kind.STRUCT, tuple(part for _, part in fields), tuple(name for name, _ in fields))
)
TYPES = st.one_of(
    STRUCT_TYPES,
    STRUCT_TYPES,
    st.builds(WireType, st.just(Kind.SLICE), st.tuples(IDS)),
    st.builds(WireType, st.just(Kind.MAP), st.tuples(IDS, IDS)),
    st.builds(WireType, st.sampled_from([Kind.GOB_ENCODER, Kind.BINARY_MARSHALER, Kind.TEXT_MARSHALER])),
)


@settings(max_examples=300)
@given(
    st.sampled_from(CLASSES),
    STRUCT_TYPES,
    st.lists(TYPES, max_size=6),
    # Mostly small numbers: they are deltas, counts and lengths alike.
    st.lists(st.integers(0, 6) | st.integers(0, 255), max_size=200),
)
def test_strange_types_raise_nothing_else(cls, root, others, value):
    out = bytearray()
    for offset, described in enumerate([root, *others]):
        gob.put_descriptor(out, 65 + offset, "T", described)
    gob.put_message(out, b"\xff\x82" + bytes(value) + bytes(20))
    message = quietly(decode, cls, bytes(out))
    if message is not None:
        assert decode(cls, encode(message)) == message


@given(st.lists(TYPES, min_size=1, max_size=6))
def test_descriptors_round_trip(described):
    out = bytearray()
    for offset, one in enumerate(described):
        gob.put_descriptor(out, 65 + offset, "", one)
    assert gob.read_types(bytes(out)) == {65 + offset: one for offset, one in enumerate(described)}


@given(wire.headers, wire.messages)
def test_datagrams_raise_nothing_else(header, message):
    datagram = header.pack() + encode(message)
    packet = quietly(parse, datagram)
    if packet is not None:
        assert packet.header == header
        assert (packet.message is None) == (header.type not in set(MESSAGE_OF) - {12})


@given(st.binary(max_size=100), st.sampled_from([b"", b"\x05", b"\x51", b"\x05\x40\xfb"]))
def test_random_datagrams_raise_nothing_else(junk, start):
    quietly(parse, start + junk)


@given(wire.values_of(STRUCTS[PeerInfoList]))
def test_peers_of_any_content_raise_nothing_else(message):
    for info in message.peer_infos:
        peer = quietly(to_peer, info)
        if peer is not None:
            assert len(peer.name) <= 64
            peer.name.encode()


@given(st.data(), wire.messages)
def test_field_order_and_extra_fields_do_not_matter(data, message):
    """A stream that describes and sends the same fields in another order, among unknown ones, is the same message.

    Only for messages of simple fields: the test writes the stream by hand.
    """
    struct = STRUCTS[type(message)]
    ids = {"bool": gob.BOOL, "int": gob.INT, "uint8": gob.UINT, "bytes": gob.BYTES, "string": gob.STRING}
    simple = [f for f in struct.fields if getattr(f.kind, "value", None) in ids]
    if not simple:
        return
    rest = {f.attr: getattr(struct.empty, f.attr) for f in struct.described(True) if f not in simple}
    message = dataclasses.replace(message, **rest)
    order = data.draw(st.permutations([*simple, None]))
    names = tuple(field.wire.encode() if field else b"Unknown" for field in order)
    parts = tuple(ids[field.kind.value] if field else gob.STRING for field in order)
    out, value = bytearray(), bytearray()
    gob.put_descriptor(out, 65, "T", WireType(Kind.STRUCT, parts, names))
    gob.put_int(value, 65)
    for field in order:
        value.append(1)
        content = getattr(message, field.attr) if field else "skipped"
        if isinstance(content, str):
            gob.put_blob(value, content.encode("utf-8", "surrogateescape"))
        elif isinstance(content, bytes):
            gob.put_blob(value, content)
        elif field.kind.value == "int":
            gob.put_int(value, content)
        else:
            gob.put_uint(value, int(content))
    value.append(0)
    gob.put_message(out, value)
    assert decode(type(message), bytes(out)) == message
