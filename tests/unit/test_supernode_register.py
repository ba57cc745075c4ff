"""How edges come, stay, move and go, and who is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from n2n.proto.actions import PutMember, SaveLease, SaveNetwork, Send
from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint, MacAddress
from n2n.wire import (
    HeartbeatPulse,
    Packet,
    PacketType,
    PeerEvent,
    PeerListRequest,
    ProtoV,
    UnregisterRequest,
    VFuze,
    build,
    community_id,
    derive_mac,
    to_peer,
    virtual_network,
)
from tests.sim.supernode_rig import KEY_SIZE, Party, Rig, fake_encrypt

Sent = list[tuple[Packet, Endpoint]]


def kinds(sent: Sent) -> list[tuple[int, Endpoint]]:
    return [(packet.header.type, to) for packet, to in sent]


def told(sent: Sent, event: PeerEvent) -> dict[Endpoint, tuple[MacAddress, Endpoint]]:
    """Who was told of whom, and where that one is."""
    return {
        to: (peer.mac, peer.endpoint)
        for packet, to in sent
        if packet.header.type == PacketType.PEER_INFO and packet.message.event_type == event
        for peer in map(to_peer, packet.message.peer_infos)
    }


def registered(rig: Rig, count: int, **options: object) -> list[Party]:
    parties = [Party(rig, number, **options) for number in range(1, count + 1)]
    for party in parties:
        assert party.register() is not None
    return parties


# ---------------------------------------------------------------- coming


def test_an_edge_registers_and_the_others_are_told_after_it() -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    b = Party(rig, 2)
    sent = b.send(b.register_datagram())
    assert kinds(sent) == [(PacketType.REGISTER_RESPONSE, b.endpoint), (PacketType.PEER_INFO, a.endpoint)]
    network = virtual_network("acme", IPv4Address("10.128.0.0"), 24)
    assert sent[0][0].message.virtual_ip == str(network[2])
    assert told(sent, PeerEvent.REGISTERED) == {a.endpoint: (b.mac, b.endpoint)}


def test_what_must_survive_is_saved_before_the_edge_is_told() -> None:
    rig = Rig()
    a = Party(rig, 1)
    a.register()
    kept = [type(action) for action in rig.log if isinstance(action, Send | SaveLease | SaveNetwork | PutMember)]
    assert kept == [SaveNetwork, SaveLease, Send, PutMember]


def test_a_mac_in_capitals_is_the_same_mac() -> None:
    rig = Rig()
    a = Party(rig, 1)
    assert a.register(edge_mac_addr=str(a.mac).upper()) is not None
    assert a.send(a.heartbeat_datagram()) == []
    assert kinds(a.say(PacketType.PEER_LIST_REQUEST, PeerListRequest("acme"))) == [(PacketType.PEER_INFO, a.endpoint)]
    assert a.register() == a.register(edge_mac_addr=str(a.mac).upper())
    assert len(rig.leases) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"edge_mac_addr": "02:00:00:00:00:01"},
        {"edge_mac_addr": ""},
        {"edge_mac_addr": "0a:68:97:74:d5"},
        {"edge_mac_addr": "\udcff" * 17},
        {"community_name": "other"},
        {"encrypted_machine_id": b""},
        {"encrypted_machine_id": fake_encrypt(b"m" * 16, 1)[:-1]},
        {"encrypted_machine_id": fake_encrypt(b"m" * 16, 1) + b"x"},
        {"encrypted_machine_id": bytes(KEY_SIZE)},
        {"encrypted_machine_id": fake_encrypt(b"another machine!", 2)},
    ],
    ids=str,
)
def test_a_registration_that_does_not_fit_itself_is_refused(changes: dict[str, object]) -> None:
    rig = Rig()
    a = Party(rig, 1)
    assert a.register(**changes) is None
    assert rig.core.counters()["registers_refused"] == 1
    assert rig.core.counters()["now_members"] == 0
    assert not rig.leases
    assert [note.event for note in rig.notes] == ["registration_refused"]


@pytest.mark.parametrize("size", [0, 15, 17, 190])
def test_a_machine_id_has_16_bytes(size: int) -> None:
    rig = Rig()
    a = Party(rig, 1)
    a.machine_id = bytes(size)
    a.mac = derive_mac(a.machine_id, a.community)
    assert a.register() is None
    assert rig.notes[0].fields["reason"] == "machine_id_length"


def test_another_machine_cannot_take_a_mac_over() -> None:
    """Two machine ids that give one MAC are easy to make: the derivation is no cryptographic one."""
    rig = Rig()
    [a] = registered(rig, 1)
    key = a.community, a.mac
    rig.leases[key] = replace(rig.leases[key], owner=b"\0" * 32)
    rig.start()
    assert a.register() is None
    assert rig.notes[-1].fields["reason"] == "mac_of_another_machine"
    assert rig.core.release("acme", a.mac, rig.now)
    rig.settle()
    assert a.register() is not None


def test_the_name_that_came_first_stays() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    [(answer, _), (event, _)] = b.send(b.register_datagram(edge_desc="renamed"))
    assert answer.message.is_register_ok
    assert event.message.peer_infos[0].desc == "edge2"
    assert [m.name for m in rig.core.members("acme")] == [a.name, "edge2"]


@pytest.mark.parametrize(
    ("desc", "echoed"),
    [("x" * 255, "x" * 255), ("x" * 300, "x" * 255), ("é" * 200, "é" * 127), ("\udcff" * 300, "\udcff" * 255)],
)
def test_names_are_echoed_as_they_came_but_bounded(desc: str, echoed: str) -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    b = Party(rig, 2)
    sent = b.send(b.register_datagram(edge_desc=desc))
    assert [p.message.peer_infos[0].desc for p, to in sent if to == a.endpoint] == [echoed]
    assert len(rig.core.members("acme")[1].name) <= 64


# ---------------------------------------------------------------- community ids


def test_strict_checking_refuses_an_id_that_the_name_does_not_give() -> None:
    rig = Rig()
    a = Party(rig, 1, header_id=7)
    assert a.register() is None
    assert rig.notes[0].fields["reason"] == "community_id_differs"


def test_without_strict_checking_an_edge_is_found_under_the_id_it_uses() -> None:
    """Software that hashes the bytes of a name and not its code points belongs to the community all the same."""
    rig = Rig(SupernodeSettings(strict_hash_checking=False))
    a, b = Party(rig, 1, "café"), Party(rig, 2, "café", header_id=7)
    assert a.register() is not None
    assert b.register() is not None
    assert len(rig.networks) == 1
    data = build(b.header(PacketType.DATA, dest=a.mac), b"frame")
    assert rig.feed(data, b.endpoint) == [(data[:3] + b"\x02" + data[4:], a.endpoint)]
    short = build(VFuze(b.mac), b"frame")
    assert rig.feed(short, a.endpoint) == [(short, b.endpoint)]
    assert b.send(b.heartbeat_datagram()) == []
    # Under the right id it is not known, until it registers under that.
    b.header_id = None
    assert kinds(b.send(b.heartbeat_datagram())) == [(PacketType.RETRY_REGISTER, b.endpoint)]
    assert b.register() is not None
    assert len(rig.core.members("café")) == 2
    assert rig.relay.handle(data, b.endpoint).verdict == "unknown_sender", "the plane forgot the former id"


def test_without_strict_checking_an_id_of_another_community_is_refused() -> None:
    rig = Rig(SupernodeSettings(strict_hash_checking=False))
    registered(rig, 1)
    intruder = Party(rig, 2, "other", header_id=community_id("acme"))
    assert intruder.register() is None
    assert rig.notes[-1].fields["reason"] == "community_id_taken"
    # Nor can a community be founded whose id an edge of another already uses.
    squatter = Party(rig, 3, "acme", header_id=community_id("later"))
    assert squatter.register() is not None
    assert Party(rig, 4, "later").register() is None


def test_a_foreign_id_is_free_again_when_its_last_edge_is_gone() -> None:
    rig = Rig(SupernodeSettings(strict_hash_checking=False))
    squatter = Party(rig, 3, "acme", header_id=community_id("later"))
    squatter.register()
    squatter.send(squatter.unregister_datagram())
    assert Party(rig, 4, "later").register() is not None


# ---------------------------------------------------------------- staying and moving


def test_a_heartbeat_moves_an_edge_in_every_index() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    old = a.endpoint
    a.port = 20_000
    sent = a.send(a.heartbeat_datagram())
    assert told(sent, PeerEvent.REGISTERED) == {b.endpoint: (a.mac, a.endpoint)}
    short = build(VFuze(b.mac), b"frame")
    assert rig.feed(short, a.endpoint) == [(short, b.endpoint)]
    assert rig.feed(short, old) == [], "the old endpoint lost it"
    back = build(VFuze(a.mac), b"frame")
    assert rig.feed(back, b.endpoint) == [(back, a.endpoint)]
    assert a.send(a.heartbeat_datagram()) == [], "nothing changed: nobody is told"


def test_a_heartbeat_of_another_machine_changes_nothing() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    message = HeartbeatPulse(str(a.mac), a.community, b.seal())
    forged = build(a.header(PacketType.HEARTBEAT), message)
    assert rig.feed(forged, Endpoint.of("203.0.113.9", 9)) == []
    assert rig.core.counters()["heartbeats_refused"] == 1
    assert rig.core.members("acme")[0].endpoint == a.endpoint


def test_two_edges_that_were_at_one_endpoint_do_not_take_each_other_away() -> None:
    """One socket may serve two communities; when one leaves or moves, the other still has the endpoint."""
    rig = Rig()
    a, x = Party(rig, 1, "one", port=5000), Party(rig, 2, "two", port=5000)
    b, y = Party(rig, 3, "one"), Party(rig, 4, "two")
    for party in (x, y, a, b):
        assert party.register() is not None
    short = build(VFuze(b.mac), b"frame")
    assert rig.feed(short, a.endpoint) == [(short, b.endpoint)], "the one that registered last"
    a.port = 6000
    a.send(a.heartbeat_datagram())
    short = build(VFuze(y.mac), b"frame")
    assert rig.feed(short, x.endpoint) == [(short, y.endpoint)]


def test_a_silent_edge_counts_as_gone() -> None:
    rig = Rig(SupernodeSettings(expiry=90, cleanup_interval=30))
    a, b = registered(rig, 2)
    for _ in range(4):
        assert rig.pass_time(28) == []
        a.send(a.heartbeat_datagram())
    sent = rig.pass_time(10)
    assert [to for _, to in sent] == [a.endpoint]
    assert [m.mac for m in rig.core.members("acme")] == [a.mac]
    assert rig.core.counters()["expired"] == 1
    assert kinds(b.send(b.heartbeat_datagram())) == [(PacketType.RETRY_REGISTER, b.endpoint)]


# ---------------------------------------------------------------- going


def test_leaving_keeps_the_lease_and_tells_the_others() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    address = rig.leases[b.community, b.mac].ip
    sent = b.send(b.unregister_datagram())
    assert told(sent, PeerEvent.UNREGISTERED) == {a.endpoint: (b.mac, b.endpoint)}
    assert kinds(b.send(b.unregister_datagram())) == [(PacketType.RETRY_REGISTER, b.endpoint)]
    assert b.register() == str(address)


@pytest.mark.parametrize("community", ["acme", "other"])
def test_nobody_is_unregistered_by_another(community: str) -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    sealed = b.seal() if community == "acme" else a.seal()
    message = UnregisterRequest(str(a.mac), community, sealed)
    forged = build(a.header(PacketType.UNREGISTER_REQUEST), message)
    assert rig.feed(forged, b.endpoint) == []
    assert len(rig.core.members("acme")) == 2
    assert rig.core.counters()["unregisters_refused"] == 1


def test_a_kicked_edge_is_gone_but_may_come_back() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    assert rig.core.kick("acme", b.mac, rig.now)
    assert not rig.core.kick("acme", b.mac, rig.now)
    assert not rig.core.kick("nowhere", b.mac, rig.now)
    assert [to for _, to in rig.settle()] == [a.endpoint]
    assert b.register() is not None


# ---------------------------------------------------------------- addresses that last


def test_the_same_address_after_25_hours_a_restart_and_a_crash() -> None:
    rig = Rig()
    a, b, c = registered(rig, 3)
    addresses = [rig.leases[p.community, p.mac].ip for p in (a, b, c)]
    a.send(a.unregister_datagram())
    rig.pass_time(25 * 3600)
    rig.start()  # nothing but what was saved is left
    assert [p.register() for p in (c, a, b)] == [str(addresses[n]) for n in (2, 0, 1)]
    rig.pass_time(300 * 86_400)
    assert [p.register() for p in (b, c, a)] == [str(addresses[n]) for n in (1, 2, 0)]


def test_an_edge_that_stays_has_its_lease_renewed() -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    first = rig.leases[a.community, a.mac].expiry
    for _ in range(100):
        rig.pass_time(500)
        a.send(a.heartbeat_datagram())
    assert rig.leases[a.community, a.mac].expiry > first + 40_000


def test_a_full_network_refuses_and_says_so() -> None:
    rig = Rig(SupernodeSettings(prefix=30))
    registered(rig, 2)
    late = Party(rig, 3)
    assert late.register() is None
    assert rig.notes[-1].event == "registration_refused"
    assert rig.notes[-1].fields["reason"] == "no_free_address"


def test_a_reclaimed_address_is_saved_as_the_new_owner_s_only() -> None:
    rig = Rig(SupernodeSettings(prefix=30))
    a, _ = registered(rig, 2)
    rig.pass_time(25 * 3600)
    c = Party(rig, 3)
    assert c.register() == str(virtual_network("acme", IPv4Address("10.128.0.0"), 30)[1])
    assert (a.community, a.mac) not in rig.leases
    assert len({record.ip for record in rig.leases.values()}) == len(rig.leases) == 2


def test_communities_that_clash_get_networks_apart_and_the_log_says_so() -> None:
    rig = Rig(SupernodeSettings(prefix=12))  # eight networks only
    names = [f"c{number}" for number in range(8)]
    for number, name in enumerate(names):
        assert Party(rig, number, name).register() is not None
    assert len(set(rig.networks.values())) == 8
    notes = [note for note in rig.notes if note.event == "network_differs"]
    assert notes
    assert all(note.level == "warning" for note in notes)
    assert [view.derived for view in rig.core.communities()].count(False) == len(notes)
    assert Party(rig, 9, "one too many").register() is None
    assert rig.notes[-1].fields["reason"] == "no_free_network"
    before = dict(rig.networks)
    rig.start()
    assert Party(rig, 3, "c3").register() is not None
    assert rig.networks == before, "a restart moves nobody"


def test_saved_things_that_do_not_fit_are_dropped_not_believed() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    spare = rig.leases[a.community, a.mac]
    other = MacAddress.parse("02:00:00:00:00:09")
    rig.leases["acme", other] = replace(spare, mac=other, last_renew=spare.last_renew - 5)
    far = MacAddress.parse("02:00:00:00:00:08")
    rig.leases["acme", far] = replace(spare, mac=far, ip=IPv4Address("192.0.2.1"))
    rig.leases["alone", far] = replace(spare, community="alone", mac=far, ip=IPv4Address("192.0.2.1"))
    rig.networks["elsewhere"] = IPv4Network("192.0.2.0/24")
    rig.start()
    assert set(rig.leases) == {("acme", a.mac), ("acme", b.mac)}
    assert [note.event for note in rig.notes].count("lease_dropped") == 3
    assert rig.networks["elsewhere"] == virtual_network("elsewhere", IPv4Address("10.128.0.0"), 24)
    assert a.register() == str(spare.ip)


def test_after_a_change_of_the_plan_addresses_that_still_fit_are_kept() -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    before = rig.leases[a.community, a.mac]
    rig.settings = SupernodeSettings(prefix=20)
    rig.start()
    assert rig.networks["acme"].prefixlen == 20
    assert a.register() == str(before.ip)
    rig.settings = SupernodeSettings(base=IPv4Address("172.16.0.0"), prefix=20)
    rig.start()
    assert not rig.leases
    address = a.register()
    assert address is not None
    assert IPv4Address(address) in rig.networks["acme"]


def test_views_tell_what_is_there() -> None:
    rig = Rig()
    a = Party(rig, 1)
    a.register(edge_desc="bad\x1bname\udcff")
    [community] = rig.core.communities()
    assert (community.name, community.members, community.leases, community.derived) == ("acme", 1, 1, True)
    assert community.id == community_id("acme")
    [member] = rig.core.members("acme")
    assert (member.mac, member.name, member.endpoint, member.has_state) == (a.mac, "badname\ufffd", a.endpoint, False)
    assert [record.mac for record in rig.core.leases("acme")] == [a.mac]
    assert rig.core.members("nowhere") == rig.core.leases("nowhere") == ()


def test_headers_of_refusals_name_the_community_of_the_request() -> None:
    rig = Rig()
    a = Party(rig, 1, header_id=99)
    [(packet, _)] = a.send(a.register_datagram())
    assert isinstance(packet.header, ProtoV)
    assert packet.header.community == community_id("acme")
    assert (packet.header.flags, packet.header.sequence) == (2, 0)
