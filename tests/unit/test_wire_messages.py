"""Peers as supernodes describe them, checked; times; what encode refuses."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest

from n2n import types
from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.types import Endpoint, MacAddress
from n2n.wire import (
    GoTime,
    Lease,
    LeasesInfos,
    LeaseWithEdgeInfos,
    OnlineCheck,
    P2PCommunityDatas,
    P2PFullState,
    Peer,
    PeerCachedInfo,
    PeerInfo,
    PeerInfoList,
    PeerP2PInfos,
    PeerToPing,
    RegisterResponse,
    UDPAddr,
    decode,
    encode,
    from_peer,
    gob,
    to_peer,
)

MAC = MacAddress.parse("0a:68:97:74:d5:44")
MAPPED = bytes(10) + b"\xff\xff"
GOOD = PeerInfo(b"\x0a\0\0\1", MAC.raw, UDPAddr(b"\xc0\0\2\1", 7777), "acme", "laptop")
PEER = types.PeerInfo(MAC, "laptop", "acme", IPv4Address("10.0.0.1"), Endpoint.of("192.0.2.1", 7777))


def with_socket(ip: bytes, port: int = 7777, zone: str = "") -> PeerInfo:
    """A good peer at another address."""
    return dataclasses.replace(GOOD, pub_socket=UDPAddr(ip, port, zone))


@pytest.mark.parametrize(
    "info",
    [
        GOOD,
        with_socket(MAPPED + b"\xc0\0\2\1"),
        with_socket(b"\xc0\0\2\1", zone="eth0"),
        dataclasses.replace(GOOD, virtual_ip=MAPPED + b"\x0a\0\0\1"),
        dataclasses.replace(GOOD, desc="lap\x1btop\n"),
    ],
)
def test_to_peer(info):
    assert to_peer(info) == PEER


def test_to_peer_of_other_kinds():
    assert to_peer(dataclasses.replace(GOOD, virtual_ip=b"")).virtual_ip is None
    assert to_peer(with_socket(b"\x20\1" + bytes(13) + b"\1")).endpoint == Endpoint.of("2001::1", 7777)
    assert to_peer(dataclasses.replace(GOOD, community="\udcff\n")).community == "\udcff\n"


@pytest.mark.parametrize(
    "info",
    [
        PeerInfo(),
        *(dataclasses.replace(GOOD, mac_addr=bytes(n)) for n in (0, 1, 5, 6, 7, 8, 20)),
        dataclasses.replace(GOOD, mac_addr=b"\xff" * 6),
        dataclasses.replace(GOOD, mac_addr=b"\x01" + bytes(5)),
        dataclasses.replace(GOOD, pub_socket=None),
        *(with_socket(bytes([10]) * n) for n in (0, 1, 5, 15, 17)),
        *(with_socket(b"\xc0\0\2\1", port) for port in (-1, 0, 65536, 70000, 2**62)),
        *(with_socket(ip) for ip in (bytes(4), bytes(16), b"\xff" * 4, b"\xe0\0\0\1", MAPPED + bytes(4))),
        *(dataclasses.replace(GOOD, virtual_ip=bytes([10]) * n) for n in (1, 3, 5, 16, 20)),
    ],
)
def test_to_peer_refuses(info):
    with pytest.raises(MalformedDatagram):
        to_peer(info)


@pytest.mark.parametrize(("mapped", "ip"), [(False, b"\xc0\0\2\1"), (True, MAPPED + b"\xc0\0\2\1")])
def test_from_peer(mapped, ip):
    assert from_peer(PEER, mapped) == with_socket(ip)
    assert to_peer(from_peer(PEER, mapped)) == PEER


def test_from_peer_of_other_kinds():
    six = dataclasses.replace(PEER, endpoint=Endpoint.of("2001:db8::1", 1), virtual_ip=None)
    for mapped in (False, True):
        assert to_peer(from_peer(six, mapped)) == six
    assert from_peer(six, True).virtual_ip == b""


@pytest.mark.parametrize(
    ("wall", "unix", "nsec"),
    [(0.0, 0, 0), (1.5, 1, 500_000_000), (-0.25, -1, 750_000_000), (1795332257.25, 1795332257, 250_000_000)],
)
def test_time_of_the_clock(wall, unix, nsec):
    assert GoTime.of(wall) == GoTime(unix, nsec, 0)
    assert GoTime.of(wall).wall == wall


def test_time_just_before_a_second_stays_in_it():
    assert 0 <= GoTime.of(-1e-20).nsec < 10**9
    encode(PeerCachedInfo(last_update=GoTime.of(-1e-20)))


@pytest.mark.parametrize(
    ("time", "wire"),
    [
        (GoTime(0, 1, 0), "01 0000000e7791f700 00000001 0000"),
        (GoTime(0, 1, None), "01 0000000e7791f700 00000001 ffff"),
        (GoTime(-62_135_596_800), "01 0000000000000000 00000000 0000"),
        (GoTime(0, 0, 19800), "01 0000000e7791f700 00000000 014a"),
        (GoTime(0, 0, -10800), "01 0000000e7791f700 00000000 ff4c"),
        (GoTime(0, 0, 1172), "02 0000000e7791f700 00000000 0013 20"),
        (GoTime(0, 0, -1172), "02 0000000e7791f700 00000000 ffed e0"),
    ],
)
def test_time_on_the_wire(time, wire):
    message = PeerCachedInfo(last_update=time)
    assert encode(message).endswith(bytes.fromhex(wire) + b"\0")
    assert decode(PeerCachedInfo, encode(message)) == message


@pytest.mark.parametrize(
    "wire",
    [
        "02 0000000e7791f700 00000000 0000 00",
        "02 0000000e7791f700 00000000 0013 3c",
        "02 0000000e7791f700 00000000 0013 e0",
        "02 0000000e7791f700 00000000 ffed 20",
        "02 0000000e7791f700 00000000 ffff fb",
        "01 0000000e7791f700 3b9aca00 0000",
        "03 0000000e7791f700 00000000 0000",
        "01 0000000e7791f700 00000000 00",
    ],
)
def test_times_that_nobody_writes_are_refused(wire):
    """In the place of a good time, with the lengths around it kept right."""
    good = encode(PeerCachedInfo(last_update=GoTime(0, 0, 1172)))
    bad = bytes.fromhex(wire)
    value = bytes([0xFF, 0x82, 5, len(bad)]) + bad + b"\0"
    payload = good[: gob.split(good)[0]] + bytes([len(value)]) + value
    with pytest.raises(MalformedDatagram, match="a time"):
        decode(PeerCachedInfo, payload)


@pytest.mark.parametrize(
    "message",
    [
        object(),
        None,
        PeerToPing,
        PEER,
        RegisterResponse(masklen=2**63),
        RegisterResponse(masklen=-(2**63) - 1),
        RegisterResponse(masklen="24"),
        RegisterResponse(virtual_ip=b"10.0.0.1"),
        OnlineCheck("\ud800"),
        OnlineCheck(7),
        PeerInfoList(event_type=256),
        PeerInfoList(event_type=-1),
        PeerInfoList(origin=None),
        PeerInfoList(peer_infos=(None,)),
        PeerInfoList(peer_infos=(UDPAddr(),)),
        PeerInfoList(peer_infos=7),
        PeerInfo(virtual_ip=b"123"),
        PeerInfo(virtual_ip="10.0.0.1"),
        PeerInfo(mac_addr="0a:68:97:74:d5:44"),
        PeerP2PInfos(from_=PeerInfo()),
        P2PFullState(p2p_community_datas=P2PCommunityDatas(reachables={"a": None})),
        P2PFullState(p2p_community_datas=P2PCommunityDatas(reachables={b"a": PeerP2PInfos()})),
        P2PFullState(p2p_community_datas=P2PCommunityDatas(reachables=())),
        Peer(updated_at=1.5),
        *(Peer(updated_at=GoTime(0, nsec)) for nsec in (-1, 10**9)),
        *(Peer(updated_at=GoTime(0, 0, offset)) for offset in (-60, -61, 60 * 32768, -60 * 32769)),
        Peer(updated_at=GoTime(2**63)),
    ],
)
def test_encode_refuses(message):
    with pytest.raises(LocalProtocolError):
        encode(message)


def test_equal_messages_are_equal_bytes():
    """Maps are written in the order of their keys' bytes, whatever order they were filled in."""
    one = LeasesInfos(leases_with_edges_infos={"b": LeaseWithEdgeInfos(), "a": LeaseWithEdgeInfos(Lease(mac="x"))})
    two = LeasesInfos(leases_with_edges_infos=dict(reversed(one.leases_with_edges_infos.items())))
    assert one == two
    assert encode(one) == encode(two)


def test_absent_and_empty_maps_differ():
    absent, empty = LeasesInfos(), LeasesInfos(leases_with_edges_infos={})
    assert encode(absent) != encode(empty)
    assert decode(LeasesInfos, encode(absent)).leases_with_edges_infos is None
    assert decode(LeasesInfos, encode(empty)).leases_with_edges_infos == {}


def test_a_pointer_to_nothing_is_not_an_absent_one():
    absent, zero = PeerP2PInfos(), PeerP2PInfos(from_=Peer())
    assert decode(PeerP2PInfos, encode(absent)) == absent
    assert decode(PeerP2PInfos, encode(zero)) == zero


def test_messages_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        OnlineCheck().cookie = "x"
