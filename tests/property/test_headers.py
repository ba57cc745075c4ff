"""Headers and hashes: round trips and invariants over random values."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from n2n.errors import MalformedDatagram
from n2n.wire import (
    FLAG_SUPERNODE,
    ProtoV,
    VFuze,
    clean_name,
    community_id,
    derive_mac,
    mark_relayed,
    name_bytes,
    name_of,
    virtual_network,
)
from tests.property import strategies as wire


@given(wire.headers, st.binary(max_size=40))
def test_protov(header, payload):
    raw = header.pack()
    assert len(raw) == 30
    assert ProtoV.unpack(raw + payload) == header


@given(wire.headers, st.binary(max_size=40))
def test_relaying_changes_one_bit(header, payload):
    before = header.pack() + payload
    after = mark_relayed(before)
    assert ProtoV.unpack(after).from_supernode
    assert mark_relayed(after) == after
    assert after[:3] + after[4:] == before[:3] + before[4:]
    assert after[3] == before[3] | FLAG_SUPERNODE


@given(wire.macs, st.binary(max_size=40))
def test_vfuze(mac, payload):
    raw = VFuze(mac).pack()
    assert len(raw) == 7
    assert VFuze.unpack(raw + payload) == VFuze(mac)
    assert mark_relayed(raw + payload) == raw + payload


@given(st.binary(max_size=60))
def test_any_bytes(raw):
    for read in (ProtoV.unpack, VFuze.unpack, mark_relayed):
        try:
            read(raw)
        except MalformedDatagram:
            continue
        assert raw[0] in (5, 0x51)
        assert len(raw) >= 7


@given(st.binary(max_size=60))
def test_names_lose_nothing(raw):
    assert name_bytes(name_of(raw)) == raw


def plain_fnv(data: bytes) -> int:
    """FNV-1a over bytes, as everybody else has it."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


@given(st.text(st.characters(max_codepoint=127), min_size=1, max_size=60))
def test_community_id_of_ascii_is_fnv_1a(name):
    assert community_id(name) == plain_fnv(name.encode())


@given(wire.names)
def test_community_id_fits_the_header(name):
    assert ProtoV.unpack(ProtoV(1, community_id(name)).pack()).community == community_id(name)


@given(st.binary(max_size=40), wire.names)
def test_macs_are_local_unicast(machine_id, name):
    mac = derive_mac(machine_id, name)
    assert mac.raw[0] & 3 == 2
    assert mac == derive_mac(machine_id + name_bytes(name), "")


@given(wire.names, st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_networks_only_add_bits(name, base, prefix):
    network = virtual_network(name, IPv4Address(base), prefix)
    assert network.prefixlen == prefix
    mask = int(network.netmask)
    assert base & mask & ~int(network.network_address) == 0
    assert (int(network.network_address) ^ base) & mask & 0xFF000000 == 0


@given(wire.names | st.text())
def test_clean_names_can_be_shown(name):
    clean = clean_name(name)
    assert len(clean) <= 64
    assert clean.isprintable() or all(char.isprintable() or char.isspace() or ord(char) > 0xA0 for char in clean)
    assert clean.encode().decode() == clean == clean_name(clean)
