"""What a router (or somebody in its place) answers by NAT-PMP and PCP: any bytes are read, refused or not taken."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.errors import MalformedDatagram
from n2n.net.portmap import Cause, Epoch, NotMapped, kind_of_address, natpmp, pcp

NONCE = bytes(range(12))
#: The examples of the RFCs' figures: 6886 3.2 and 3.3, 6887 11.1.
ADDRESS = bytes.fromhex("0080000000000e102c800001")
MAPPED = bytes.fromhex("0081000000000e109c419c4200001c20")
PCP_MAPPED = (
    bytes.fromhex("02810000000002580000000a" + "00" * 12)
    + NONCE
    + bytes.fromhex("110000009c419c42")
    + bytes(10)
    + b"\xff\xff"
    + bytes.fromhex("2c800001")
)


def test_requests_are_as_the_rfcs_have_them() -> None:
    assert natpmp.external_request().hex() == "0000"
    assert natpmp.map_request("udp", 40001, 40002, 7200).hex() == "000100009c419c4200001c20"
    assert natpmp.map_request("tcp", 1, 0, 0).hex() == "000200000001000000000000"
    client = "00" * 10 + "ffff0a010002"
    assert pcp.announce_request(IPv4Address("10.1.0.2")).hex() == "02000000" + "00000000" + client
    request = pcp.map_request(IPv4Address("10.1.0.2"), NONCE, "udp", 40001, external_port=40002, lifetime=600)
    assert request.hex() == (
        "02010000" + "00000258" + client + NONCE.hex() + "11000000" + "9c419c42" + "00" * 10 + "ffff00000000"
    )


def test_answers_are_read() -> None:
    assert natpmp.parse_external(ADDRESS) == (IPv4Address("44.128.0.1"), 3600)
    assert natpmp.parse_map(MAPPED, "udp", 40001) == (40001, 40002, 7200, 3600)
    assert pcp.parse_map(PCP_MAPPED, NONCE, "udp", 40001) == (40001, 40002, IPv4Address("44.128.0.1"), 600, 10)
    assert pcp.parse_announce(bytes.fromhex("02800000000000000000000a" + "00" * 12)) == 10


@pytest.mark.parametrize("size", range(60))
def test_cut_answers_are_not_taken(size: int) -> None:
    with pytest.raises(MalformedDatagram):
        pcp.parse_map(PCP_MAPPED[:size], NONCE, "udp", 40001)
    if size < 16:
        with pytest.raises(MalformedDatagram):
            natpmp.parse_map(MAPPED[:size], "udp", 40001)
    if size < 12:
        with pytest.raises(MalformedDatagram):
            natpmp.parse_external(ADDRESS[:size])


def test_answers_about_something_else_are_not_taken() -> None:
    for transport, port in (("tcp", 40001), ("udp", 40003)):
        with pytest.raises(MalformedDatagram):
            natpmp.parse_map(MAPPED, transport, port)  # type: ignore[arg-type]
        with pytest.raises(MalformedDatagram):
            pcp.parse_map(PCP_MAPPED, NONCE, transport, port)  # type: ignore[arg-type]
    with pytest.raises(MalformedDatagram):
        pcp.parse_map(PCP_MAPPED, bytes(12), "udp", 40001)
    with pytest.raises(MalformedDatagram):
        pcp.parse_map(natpmp.map_request("udp", 1, 1, 1) + bytes(48), NONCE, "udp", 40001)
    with pytest.raises(MalformedDatagram):
        pcp.parse_map(PCP_MAPPED + bytes(1100), NONCE, "udp", 40001)


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (1, Cause.BROKEN),
        (2, Cause.REFUSED),
        (3, Cause.DOUBLE_NAT),
        (4, Cause.FULL),
        (5, Cause.BROKEN),
        (999, Cause.BROKEN),
    ],
)
def test_refusals_by_nat_pmp_have_a_cause(result: int, cause: Cause) -> None:
    datagram = MAPPED[:2] + struct.pack("!H", result) + MAPPED[4:8]  # a refusal need not have the rest
    with pytest.raises(NotMapped) as caught:
        natpmp.parse_map(datagram, "udp", 40001)
    assert caught.value.cause is cause
    assert str(result) in str(caught.value)


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (2, Cause.REFUSED), (7, Cause.DOUBLE_NAT), (8, Cause.FULL), (11, Cause.CONFLICT), (12, Cause.DOUBLE_NAT),
        (200, Cause.BROKEN),
    ],
)  # fmt: skip
def test_refusals_by_pcp_have_a_cause(result: int, cause: Cause) -> None:
    with pytest.raises(NotMapped) as caught:
        pcp.parse_map(PCP_MAPPED[:3] + bytes([result]) + PCP_MAPPED[4:24], NONCE, "udp", 40001)
    assert caught.value.cause is cause


def test_a_router_of_nat_pmp_alone_is_known_by_its_answer() -> None:
    with pytest.raises(NotMapped, match="but not PCP"):
        pcp.parse_map(bytes.fromhex("0081000100000001"), NONCE, "udp", 40001)


@given(st.binary(max_size=1200))
def test_any_bytes_are_read_or_refused(datagram: bytes) -> None:
    for read in (
        natpmp.parse_external,
        pcp.parse_announce,
        lambda data: natpmp.parse_map(data, "udp", 40001),
        lambda data: pcp.parse_map(data, NONCE, "udp", 40001),
    ):
        try:
            read(datagram)
        except (MalformedDatagram, NotMapped) as error:
            assert len(str(error)) < 500  # noqa: PT017


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
def test_what_is_asked_for_comes_back(lifetime: int, inner: int, outer: int) -> None:
    request = pcp.map_request(IPv4Address("10.1.0.2"), NONCE, "udp", inner, external_port=outer, lifetime=lifetime)
    answer = bytes([2, 129, 0, 0]) + request[4:8] + bytes(16) + request[24:]
    assert pcp.parse_map(answer, NONCE, "udp", inner) == (inner, outer, IPv4Address(0), lifetime, 0)


def test_a_nonce_is_the_same_for_one_host_and_mapping_only() -> None:
    found = {
        pcp.nonce_of(secret, transport, port)
        for secret in (bytes(16), bytes(15) + b"\1")
        for transport in ("udp", "tcp")
        for port in (1, 2)
    }
    assert len(found) == 8
    assert {len(nonce) for nonce in found} == {12}
    assert pcp.nonce_of(bytes(16), "udp", 1) in found


@pytest.mark.parametrize(
    ("told", "restarted"),
    [
        ([(0, 0), (60, 60), (120, 120)], False),
        ([(100, 0), (158, 60), (218, 120)], False),  # a slow clock
        ([(100, 0), (99, 1)], False),  # rounding
        ([(100, 0), (0, 60)], True),
        ([(100, 0), (110, 60)], True),  # too young: it was restarted and has been up for a while
        ([(100, 0), (500, 60)], True),  # another router
        ([(100, 0), (None, 60), (220, 120)], False),
    ],
)
def test_a_restart_is_seen_from_the_age(told: list[tuple[int | None, float]], restarted: bool) -> None:
    epoch = Epoch()
    assert [epoch.restarted(age, now) for age, now in told][-1] is restarted


@pytest.mark.parametrize(
    ("ip", "kind"),
    [
        ("44.128.0.1", "public"), ("100.64.0.1", "carrier-grade"), ("10.0.0.1", "private"), ("192.168.1.1", "private"),
        ("0.0.0.0", "unusable"), ("127.0.0.1", "unusable"), ("169.254.1.1", "unusable"), ("224.0.0.1", "unusable"),
        ("255.255.255.255", "private"),
    ],
)  # fmt: skip
def test_kinds_of_addresses(ip: str, kind: str) -> None:
    assert kind_of_address(IPv4Address(ip)) == kind
