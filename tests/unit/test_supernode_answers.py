"""Lists, full states and leases: complete where they fit, split or cut where they do not, and always sendable."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from n2n.proto.actions import LeaseRecord
from n2n.proto.answers import ROOM, cut_desc, leases_answer
from n2n.proto.limits import Rate
from n2n.proto.members import Community, Record
from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint, MacAddress
from n2n.wire import (
    MAX_DATAGRAM,
    GoTime,
    LeasesInfos,
    P2PFullState,
    PacketType,
    Peer,
    PeerEvent,
    PeerInfo,
    PeerListRequest,
    PeerP2PInfos,
    UDPAddr,
    build,
    community_id,
    decode,
    parse,
)
from tests.sim.supernode_rig import Party, Rig
from tests.unit.test_supernode_register import registered

PLENTY = Rate(1e6, 1e6)


def crowd(count: int, **changes: Any) -> tuple[Rig, list[Party]]:
    rig = Rig(SupernodeSettings(prefix=20, source_rate=PLENTY, total_rate=PLENTY, member_rate=PLENTY))
    parties = [Party(rig, number, host=f"192.0.{number >> 8}.{number & 255}") for number in range(1, count + 1)]
    for party in parties:
        rig.core.receive(party.register_datagram(**changes), party.endpoint, rig.now)
        for action in rig.core.drain():
            if hasattr(action, "token"):
                rig.core.decrypted(action.token, party.machine_id, rig.now)
        rig.core.drain()
    assert rig.core.counters()["now_members"] == count
    return rig, parties


def ask(party: Party, kind: int, message: object) -> list[Any]:
    """The messages of the answer; every datagram can be sent."""
    datagrams = party.rig.feed(build(party.header(kind), message), party.endpoint)
    assert all(len(datagram) <= MAX_DATAGRAM for datagram, _ in datagrams)
    assert {to for _, to in datagrams} <= {party.endpoint}
    return [parse(datagram).message for datagram, _ in datagrams]


def peer(number: int, **changes: Any) -> Peer:
    info = PeerInfo(b"\x0a\0\0\1", number.to_bytes(6, "big"), UDPAddr(b"\xc0\0\2\1", 40_000), "acme", f"peer{number}")
    fields = {"infos": info, "p2p_status": 2, "p2p_check_id": "c" * 57, "updated_at": GoTime(1_800_000_000, 5)}
    return Peer(**{**fields, **changes})


def state_of(count: int) -> PeerP2PInfos:
    return PeerP2PInfos(peer(0), tuple(peer(number) for number in range(1, count + 1)))


# ---------------------------------------------------------------- peer lists


@pytest.mark.parametrize(("count", "desc", "parts"), [(254, "edge", 1), (600, "x" * 255, 5)])
def test_a_list_names_every_other_edge_once_and_is_split_only_if_it_must(count: int, desc: str, parts: int) -> None:
    _, parties = crowd(count, edge_desc=desc)
    lists = ask(parties[0], PacketType.PEER_LIST_REQUEST, PeerListRequest("acme"))
    assert [message.event_type for message in lists] == [PeerEvent.LIST] + [PeerEvent.REGISTERED] * (len(lists) - 1)
    assert [message.has_origin for message in lists] == [True] + [False] * (len(lists) - 1)
    assert len(lists) <= parts
    assert (len(lists) > 1) == (parts > 1)
    named = [info.mac_addr for message in lists for info in message.peer_infos]
    assert sorted(named) == sorted(party.mac.raw for party in parties[1:])
    assert lists[0].origin.mac_addr == parties[0].mac.raw


def test_addresses_are_told_in_the_form_of_the_socket() -> None:
    for mapped, length in ((True, 16), (False, 4)):
        rig = Rig(SupernodeSettings(mapped_addresses=mapped))
        a, _ = registered(rig, 2)
        [message] = ask(a, PacketType.PEER_LIST_REQUEST, PeerListRequest("acme"))
        assert [len(info.pub_socket.ip) for info in (message.origin, *message.peer_infos)] == [length, length]
        assert [len(info.virtual_ip) for info in (message.origin, *message.peer_infos)] == [4, 4]
    rig = Rig()
    a = Party(rig, 1, host="2001:db8::1")
    a.register()
    [message] = ask(a, PacketType.PEER_LIST_REQUEST, PeerListRequest("acme"))
    assert message.origin.pub_socket == UDPAddr(bytes.fromhex("20010db8" + "00" * 11 + "01"), a.port)


def test_the_answer_carries_the_id_of_the_name_that_was_asked_for() -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    [(packet, _)] = a.say(PacketType.PEER_LIST_REQUEST, PeerListRequest("other"))
    assert packet.header.community == community_id("other")


# ---------------------------------------------------------------- P2P states


def test_a_full_state_tells_what_everyone_said_last_and_who_is_gone() -> None:
    rig = Rig()
    a, b, c = registered(rig, 3)
    a.say(PacketType.P2P_STATE, PeerP2PInfos(None, ()))
    a.say(PacketType.P2P_STATE, state_of(2))
    b.say(PacketType.P2P_STATE, state_of(1))
    c.say(PacketType.P2P_STATE, state_of(1))
    c.send(c.unregister_datagram())
    [message] = ask(a, PacketType.P2P_FULL_STATE, P2PFullState("acme", is_request=True))
    assert not message.is_request
    assert message.community_name == "acme"
    assert message.p2p_community_datas.reachables == {str(a.mac): state_of(2), str(b.mac): state_of(1)}
    [gone] = message.p2p_community_datas.unreachables.values()
    assert (gone.mac_addr, gone.desc, gone.community) == (str(c.mac), c.name, "acme")
    assert gone.last_update == GoTime.of(rig.wall)


def test_reachables_are_there_even_if_empty() -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    [message] = ask(a, PacketType.P2P_FULL_STATE, P2PFullState("acme", is_request=True))
    assert message.p2p_community_datas.reachables == {}
    assert message.p2p_community_datas.unreachables == {}


@pytest.mark.parametrize(
    "bad",
    [
        peer(1, infos=PeerInfo(mac_addr=b"12345", pub_socket=UDPAddr())),
        peer(1, infos=PeerInfo(mac_addr=b"123456")),
    ],
    ids=["no MAC", "no socket"],
)
@pytest.mark.parametrize("as_sender", [True, False])
def test_a_state_that_would_crash_v5_edges_is_not_kept(bad: Peer, as_sender: bool) -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    a.say(PacketType.P2P_STATE, state_of(1))
    a.say(PacketType.P2P_STATE, PeerP2PInfos(bad, ()) if as_sender else PeerP2PInfos(None, (peer(2), bad)))
    [message] = ask(b, PacketType.P2P_FULL_STATE, P2PFullState("acme", is_request=True))
    assert message.p2p_community_datas.reachables == {str(a.mac): state_of(1)}


def test_a_full_state_that_does_not_fit_loses_check_ids_first_and_then_edges() -> None:
    rig, parties = crowd(60)
    asked = parties[0]

    def fill(count: int, size: int) -> P2PFullState:
        for party in parties[:count]:
            party.say(PacketType.P2P_STATE, state_of(size))
        rig.pass_time(3)
        [message] = ask(asked, PacketType.P2P_FULL_STATE, P2PFullState("acme", is_request=True))
        return message

    whole = fill(12, 20).p2p_community_datas.reachables
    assert len(whole) == 12
    assert {p.p2p_check_id for infos in whole.values() for p in infos.to} == {"c" * 57}
    assert rig.core.counters()["full_states_cut"] == 0
    slim = fill(24, 20).p2p_community_datas.reachables
    assert len(slim) == 24
    assert {p.p2p_check_id for infos in slim.values() for p in infos.to} == {""}
    assert {len(infos.to) for infos in slim.values()} == {20}
    assert rig.core.counters()["full_states_cut"] == 0
    cut = fill(60, 40).p2p_community_datas.reachables
    assert 8 < len(cut) < 60
    assert set(cut) == {str(party.mac) for party in parties[: len(cut)]}
    assert rig.core.counters()["full_states_cut"] == 1
    assert [note.fields["left_out"] for note in rig.notes if note.event == "full_state_cut"] == [60 - len(cut)]


def test_many_that_are_gone_leave_room_for_those_that_are_there() -> None:
    rig, parties = crowd(700, edge_desc="x" * 255)
    keep = parties[0]
    keep.say(PacketType.P2P_STATE, state_of(50))
    for party in parties[1:]:
        rig.core.kick("acme", party.mac, rig.now)
        rig.core.drain()
        rig.mono += 1
    [message] = ask(keep, PacketType.P2P_FULL_STATE, P2PFullState("acme", is_request=True))
    datas = message.p2p_community_datas
    assert list(datas.reachables) == [str(keep.mac)]
    assert 20 < len(datas.unreachables) < 699
    told = {str(party.mac) for party in parties[-len(datas.unreachables) :]}
    assert set(datas.unreachables) == told, "those that went last are told"
    assert rig.core.counters()["full_states_cut"] == 1


def test_states_are_bounded_in_all_and_given_back() -> None:
    rig = Rig(SupernodeSettings(max_state_bytes=4000))
    a, b = registered(rig, 2)
    a.say(PacketType.P2P_STATE, state_of(15))
    assert 2000 < rig.core.counters()["now_state_bytes"] <= 4000
    b.say(PacketType.P2P_STATE, state_of(15))
    assert rig.core.counters()["states_refused"] == 1
    a.send(a.unregister_datagram())
    assert rig.core.counters()["now_state_bytes"] == 0
    b.say(PacketType.P2P_STATE, state_of(15))
    assert rig.core.counters()["states_stored"] == 2


@pytest.mark.parametrize("kind", [PacketType.P2P_FULL_STATE, PacketType.LEASES_INFOS])
def test_long_answers_are_given_to_who_asks_from_its_own_address(kind: PacketType) -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    bodies = {
        PacketType.P2P_FULL_STATE: P2PFullState("acme", is_request=True),
        PacketType.LEASES_INFOS: LeasesInfos(is_request=True, community_name="acme"),
    }
    request = build(a.header(kind), bodies[kind])
    assert rig.feed(request, Endpoint.of("203.0.113.66", 1)) == []
    assert rig.core.counters()["answers_misdirected"] == 1
    answers = [len(rig.feed(request, a.endpoint)) for _ in range(50)]
    assert sum(answers) == 20
    assert rig.core.counters()["answers_limited"] == 30


# ---------------------------------------------------------------- leases


def test_leases_tell_what_is_known_of_their_edges() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    rig.pass_time(5)
    b.send(b.unregister_datagram())
    rig.pass_time(2)
    request = LeasesInfos(is_request=True, community_name="acme")
    [message] = ask(a, PacketType.LEASES_INFOS, request)
    entries = message.leases_with_edges_infos
    assert {mac: e.lease.ip for mac, e in entries.items()} == {
        str(p.mac): rig.leases["acme", p.mac].ip.packed for p in (a, b)
    }
    infos = [entries[str(p.mac)].lease_edge_infos for p in (a, b)]
    assert [i.edge_id for i in infos] == ["edge1", "edge2"]
    assert [i.is_registered for i in infos] == [True, False]
    assert [i.time_since_last_update for i in infos] == [7_000_000_000, 2_000_000_000]
    rig.start()
    a.register()
    [message] = ask(a, PacketType.LEASES_INFOS, request)
    info = message.leases_with_edges_infos[str(b.mac)].lease_edge_infos
    assert (info.edge_id, info.is_registered, info.time_since_last_update, info.virtual_ip) == (
        "unknown",
        False,
        -1_000_000_000,
        b"",
    )


def test_leases_that_do_not_fit_are_cut() -> None:
    community = Community("acme", 1, IPv4Network("10.0.0.0/16"), True)
    records = []
    now = Rig().now
    for number in range(1, 1000):
        mac = MacAddress(number.to_bytes(6, "big"))
        ip = IPv4Address("10.0.0.0") + number
        records.append(LeaseRecord("acme", mac, ip, bytes(32), "x", now.wall, now.wall))
        community.records[mac] = Record("x" * 255, ip, now.mono, now.wall, Endpoint.of("192.0.2.1", 1))
    cut = leases_answer(community, records, now)
    assert len(cut.payload) <= ROOM
    told = decode(LeasesInfos, cut.payload).leases_with_edges_infos
    assert told is not None
    assert list(told) == [str(record.mac) for record in records[: len(told)]]
    assert len(told) + cut.left_out == len(records)
    assert len(told) > 100


@pytest.mark.parametrize("text", ["", "a", "é" * 128, "\udc80" * 256, "x\udcc3" * 200, "🚀" * 64, "a" * 253 + "🚀"])
def test_a_cut_name_is_the_start_of_the_name(text: str) -> None:
    kept = cut_desc(text)
    assert text.startswith(kept)
    assert len(kept.encode("utf-8", "surrogateescape")) <= 255
    assert kept == text or len(kept.encode("utf-8", "surrogateescape")) > 251
