"""What follows from a name, against recorded values."""

from __future__ import annotations

import unicodedata
from ipaddress import IPv4Address

import pytest

from n2n.errors import LocalProtocolError
from n2n.wire import clean_name, community_id, derive_mac, name_bytes, name_of, virtual_network


def name_in(case) -> str:
    """The name of a vector; where it is given as text too, both agree."""
    name = name_of(bytes.fromhex(case["name_hex"]))
    assert case.get("name", name) == name
    return name


def test_community_ids(vectors):
    cases = vectors("community_hash")["vectors"]
    odd = 0
    for case in cases:
        name = name_in(case)
        assert community_id(name) == case["hash"], case
        assert community_id(name).to_bytes(4, "big").hex() == case["wire"]
        odd += name != name_bytes(name).decode("utf-8", "replace")
    assert odd, "names that are not UTF-8 occur"


def test_community_collisions(vectors):
    for case in vectors("community_collision")["vectors"]:
        assert case["name_a"] != case["name_b"]
        assert community_id(case["name_a"]) == community_id(case["name_b"]) == case["hash"]


def test_macs(vectors):
    for case in vectors("mac")["vectors"]:
        mac = derive_mac(bytes.fromhex(case["machine_id"]), name_in(case))
        assert str(mac) == case["mac"], case
        assert not mac.is_multicast


def test_virtual_networks(vectors):
    for case in vectors("virtual_network")["vectors"]:
        network = virtual_network(name_in(case), IPv4Address(case["base"]), case["cidr"])
        assert (str(network.network_address), str(network)) == (case["network"], case["prefix"]), case


def test_a_name_that_is_spelt_in_escapes_is_the_same_name():
    """Surrogate escapes that together are UTF-8 are the same bytes, hence the same community."""
    assert name_bytes("\udcc3\udca9") == name_bytes("é")
    assert community_id("\udcc3\udca9") == community_id("é")


@pytest.mark.parametrize("use", [name_bytes, community_id, lambda name: derive_mac(b"", name)])
def test_a_surrogate_that_is_no_byte(use):
    with pytest.raises(LocalProtocolError, match="cannot be written"):
        use("a\ud800")


@pytest.mark.parametrize("prefix", [-1, 33])
def test_prefix_out_of_range(prefix):
    with pytest.raises(LocalProtocolError, match="prefix length"):
        virtual_network("acme", IPv4Address("10.128.0.0"), prefix)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("laptop", "laptop"),
        ("", ""),
        ("a\0b\x1b[2Jc\x7f\x9b\r\n", "ab[2Jc"),
        ("safe\u202etxt.exe", "safetxt.exe"),
        ("line\u2028two\u2029", "linetwo"),
        ("\udcff\udc80", "\ufffd\ufffd"),
        ("\ud800x", "x"),
        ("é" * 100, "é" * 64),
        ("\n" * 100 + "x" * 100, "x" * 64),
    ],
)
def test_clean_name(text, clean):
    assert clean_name(text) == clean
    assert clean_name(clean) == clean
    assert not any(unicodedata.category(char).startswith("C") for char in clean)
    clean.encode()
