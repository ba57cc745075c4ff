"""What strangers cannot do: replay, flood, fill, or make a supernode answer more than it is asked."""

from __future__ import annotations

import pytest

from n2n.proto.limits import KeyedBuckets, Rate, Strangers, source_key
from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint, MacAddress
from n2n.wire import (
    PacketType,
    PeerEvent,
    PeerListRequest,
    ProtoV,
    RegisterRequest,
    SNPublicSecret,
    build,
    community_id,
)
from tests.sim.supernode_rig import Party, Rig, fake_encrypt
from tests.unit.test_supernode_register import kinds, registered, told

ELSEWHERE = Endpoint.of("203.0.113.66", 6666)
KEY_REQUEST = SNPublicSecret(is_request=True)


# ---------------------------------------------------------------- copies of earlier packets


@pytest.mark.parametrize("kind", ["register", "heartbeat", "unregister"])
def test_a_recorded_packet_does_nothing_from_another_address(kind: str) -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    recorded = getattr(a, f"{kind}_datagram")()
    rig.feed(recorded, a.endpoint)
    if kind == "unregister":
        a.register()
    rig.pass_time(20)
    before = len(rig.decrypts)
    assert rig.feed(recorded, ELSEWHERE) == []
    assert rig.core.members("acme")[0 if kind != "unregister" else 1].endpoint == a.endpoint
    assert len(rig.core.members("acme")) == 2
    assert rig.core.counters()["replayed"] == 1
    assert len(rig.decrypts) == before, "a copy costs no decryption"


def test_a_new_header_around_a_recorded_machine_id_does_not_help() -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    recorded = a.heartbeat_datagram()
    rig.feed(recorded, a.endpoint)
    rig.pass_time(1)
    fresh = a.header(PacketType.HEARTBEAT, sequence=999).pack() + recorded[30:]
    assert rig.feed(fresh, ELSEWHERE) == []
    stolen = RegisterRequest(str(a.mac), a.name, a.community, rig.decrypts[-1].ciphertext)
    assert rig.feed(build(a.header(PacketType.REGISTER_REQUEST), stolen), ELSEWHERE) == []
    assert rig.core.counters()["replayed"] == 2
    assert rig.core.members("acme")[0].endpoint == a.endpoint


def test_an_old_leave_does_not_work_again_even_from_the_edge_s_own_address() -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    leave = a.unregister_datagram()
    rig.feed(leave, a.endpoint)
    a.register()
    assert rig.feed(leave, a.endpoint) == []
    assert len(rig.core.members("acme")) == 2


def test_a_registration_that_the_network_doubled_is_answered_twice_and_opened_once() -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    datagram = a.register_datagram()
    first = a.send(datagram)
    again = a.send(datagram)
    assert kinds(again) == [(PacketType.REGISTER_RESPONSE, a.endpoint)]
    assert again[0][0].message == first[0][0].message
    assert rig.core.counters()["registers_duplicate"] == 1
    assert len(rig.decrypts) == 3


def test_an_edge_whose_clock_went_back_does_not_move() -> None:
    """A heartbeat that was held back for hours, from elsewhere: its header's time gives it away."""
    rig = Rig()
    a, _ = registered(rig, 2)
    late = a.heartbeat_datagram()
    rig.pass_time(60)
    assert rig.feed(late, ELSEWHERE) == []
    assert rig.core.counters()["heartbeats_stale"] == 1
    # With a clock that is wrong, but steady, an edge may move.
    assert told(a.send(a.heartbeat_datagram()), PeerEvent.REGISTERED) == {}


def test_an_edge_with_a_wrong_clock_is_served_unless_the_operator_forbids_it() -> None:
    for limit, served in ((None, True), (16.0, False)):
        rig = Rig(SupernodeSettings(max_clock_skew=limit))
        a = Party(rig, 1)
        message = RegisterRequest(str(a.mac), a.name, a.community, a.seal())
        sent = a.send(build(a.header(PacketType.REGISTER_REQUEST, timestamp=17), message))
        assert [packet.message.is_register_ok for packet, _ in sent] == [served]


# ---------------------------------------------------------------- decryptions


def test_a_repeated_registration_is_decrypted_once() -> None:
    rig = Rig()
    rig.decrypting = False
    a = Party(rig, 1)
    for _ in range(5):
        assert a.send(a.register_datagram()) == []
    assert len(rig.decrypts) == 1
    assert rig.core.counters()["decrypt_repeated"] == 4
    [first] = rig.decrypts
    rig.core.decrypted(first.token, a.machine_id, rig.now)
    assert len(rig.settle()) == 1


def test_decryptions_under_way_are_bounded_and_given_up() -> None:
    rig = Rig(SupernodeSettings(max_pending=8))
    [known] = registered(rig, 1)
    rig.decrypting = False
    parties = [Party(rig, number) for number in range(10, 30)]
    for party in parties:
        party.send(party.register_datagram())
    assert rig.core.counters()["now_pending"] == 6
    assert rig.core.counters()["decrypt_full"] == 14
    known.send(known.heartbeat_datagram())
    assert rig.core.counters()["now_pending"] == 7, "room is kept for those that are registered"
    tokens = [action.token for action in rig.decrypts]
    rig.pass_time(10)
    assert rig.core.counters()["now_pending"] == 0
    assert rig.core.counters()["decrypt_timeout"] == 7
    for token in (*tokens, 10**9, -1):
        rig.core.decrypted(token, bytes(16), rig.now)
    assert rig.settle() == []
    assert rig.core.counters()["decrypt_unexpected"] == len(tokens) + 2


def test_an_edge_whose_registration_was_dropped_is_woken_up_with_the_key() -> None:
    """A v5 edge that was told to register again would else wait for ever."""
    rig = Rig(SupernodeSettings(total_rate=Rate(0.1, 1)))
    a, b = Party(rig, 1), Party(rig, 2)
    assert a.register() is not None
    assert b.send(b.register_datagram()) == []
    assert rig.core.counters()["overloaded"] == 1
    assert rig.pass_time(5) == [], "not while it waits for the response: it would stumble over a key"
    sent = rig.pass_time(5)
    assert [(data[2], to) for data, to in sent] == [(PacketType.SN_PUBLIC_SECRET, b.endpoint)]
    assert b.register() is not None


def test_one_source_cannot_use_up_what_is_there_for_all() -> None:
    rig = Rig(SupernodeSettings(source_rate=Rate(1, 10), total_rate=Rate(100, 100)))
    flood = [Party(rig, number, host="198.51.100.7") for number in range(1, 41)]
    for party in flood:
        party.send(party.register_datagram())
    assert rig.core.counters()["source_limited"] == 30
    assert Party(rig, 99).register() is not None


def test_a_flood_from_many_sources_cannot_crowd_registered_edges_out() -> None:
    rig = Rig(SupernodeSettings(total_rate=Rate(1, 20), expiry=90))
    [a] = registered(rig, 1)
    for round_ in range(20):
        for number in range(30):
            stranger = Party(rig, 1000 + number + round_ * 30, host=f"203.0.{round_}.{number}")
            stranger.send(stranger.register_datagram())
        rig.pass_time(10)
        a.send(a.heartbeat_datagram())
    assert rig.core.counters()["overloaded"] > 100
    assert a.mac in [member.mac for member in rig.core.members("acme")]


def test_who_copies_an_edge_s_header_cannot_keep_it_from_moving() -> None:
    rig = Rig(SupernodeSettings(member_rate=Rate(1, 3)))
    a, b = registered(rig, 2)
    for _ in range(50):
        forged = build(a.header(PacketType.HEARTBEAT), b"junk")
        rig.feed(forged, ELSEWHERE)
    a.port = 20_001
    assert told(a.send(a.heartbeat_datagram()), PeerEvent.REGISTERED) == {b.endpoint: (a.mac, a.endpoint)}


def test_an_edge_that_moves_all_the_time_is_not_told_of_each_time() -> None:
    rig = Rig(SupernodeSettings(member_rate=Rate(1, 5)))
    a, b = registered(rig, 2)
    events = 0
    for number in range(50):
        a.port = 30_000 + number
        events += len(told(a.send(a.heartbeat_datagram()), PeerEvent.REGISTERED))
    assert events == 5
    assert rig.core.counters()["member_limited"] == 45
    assert b.endpoint == rig.core.members("acme")[1].endpoint


# ---------------------------------------------------------------- answers to strangers


def test_a_key_request_is_answered_and_bounded_for_each_source_and_for_all() -> None:
    rig = Rig(SupernodeSettings(key_rate=Rate(1, 5), key_total=Rate(1, 8)))
    x = Party(rig, 1, host="198.51.100.1")
    answers = [x.say(PacketType.SN_PUBLIC_SECRET, KEY_REQUEST) for _ in range(20)]
    assert sum(map(len, answers)) == 5
    [(packet, _)] = answers[0]
    assert isinstance(packet.header, ProtoV)
    assert (packet.header.community, packet.message.is_request) == (0, False)
    others = [Party(rig, n, host=f"198.51.100.{n}") for n in range(2, 20)]
    assert sum(len(p.say(PacketType.SN_PUBLIC_SECRET, KEY_REQUEST)) for p in others) == 3
    assert x.say(PacketType.SN_PUBLIC_SECRET, SNPublicSecret(False, b"pem")) == []


def test_unregistered_edges_are_told_to_register_but_not_without_end() -> None:
    rig = Rig(SupernodeSettings(retry_rate=Rate(5, 20)))
    x = Party(rig, 1)
    data = build(x.header(PacketType.DATA), b"frame" * 200)
    answers = [x.send(data) for _ in range(1000)]
    assert sum(map(len, answers)) == 20
    assert answers[0][0][0].header == ProtoV(
        PacketType.RETRY_REGISTER, source=MacAddress.parse("ca:fe:c0:ff:ee:00"), flags=2, timestamp=int(rig.wall)
    )
    assert rig.core.counters()["retries_limited"] == 980


def test_an_edge_that_was_told_and_never_comes_is_sent_the_key() -> None:
    """The answer to its key request was lost: a v5 edge does not repeat that."""
    rig = Rig()
    x = Party(rig, 1)
    seen = []
    for _ in range(40):
        seen += [kind for kind, _ in kinds(x.say(PacketType.PING, b""))]
        rig.pass_time(1)
    assert seen.count(PacketType.RETRY_REGISTER) == 40
    assert seen.count(PacketType.SN_PUBLIC_SECRET) == 2
    assert PacketType.SN_PUBLIC_SECRET not in seen[:15]


def test_no_answer_to_a_stranger_is_longer_than_its_question_but_for_the_key() -> None:
    rig = Rig()
    registered(rig, 1)
    x = Party(rig, 2)
    for kind in range(256):
        if kind in (PacketType.REGISTER_REQUEST, PacketType.SN_PUBLIC_SECRET):
            continue
        question = x.header(kind).pack()
        for answer, to in rig.feed(question, x.endpoint):
            assert to == x.endpoint
            assert len(answer) <= len(question)
    refusal = rig.feed(x.register_datagram(edge_mac_addr="no"), x.endpoint)
    assert [len(answer) < 200 for answer, _ in refusal] == [True]


def test_lists_go_to_the_registered_address_only_and_slowly_if_asked_for_from_elsewhere() -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    request = build(a.header(PacketType.PEER_LIST_REQUEST), PeerListRequest("acme"))
    sent = [to for _ in range(100) for _, to in rig.feed(request, ELSEWHERE)]
    assert sent == [a.endpoint] * 5
    assert rig.core.counters()["answers_limited"] == 95
    assert len(rig.feed(request, a.endpoint)) == 1, "that did not use up the edge's own"


@pytest.mark.parametrize("datagram", [b"", b"\x05", b"\x05" * 29, b"\x04" + bytes(40), b"Q", bytes(65_507)], ids=len)
def test_junk_is_counted_and_dropped(datagram: bytes) -> None:
    rig = Rig()
    rig.core.receive(datagram, ELSEWHERE, rig.now)
    assert rig.settle() == []
    assert rig.core.counters()["not_protocol"] == 1


def test_types_that_nobody_handles_and_sources_that_nothing_can_be_sent_to() -> None:
    rig = Rig()
    x = Party(rig, 1)
    for kind in (0, 5, 7, 12, 13, 99, 252, 253, 255):
        assert x.say(kind) == []
    assert rig.core.counters()["unhandled_type"] == 9
    assert rig.feed(x.register_datagram(), Endpoint.of("192.0.2.1", 0)) == []
    assert rig.core.counters()["unsendable_source"] == 1


@pytest.mark.parametrize("kind", [1, 2, 3, 6, 9, 10, 11, 251])
def test_a_payload_that_is_not_the_message_of_its_type_is_not_answered(kind: int) -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    for payload in (b"", b"\xff" * 40, b"\x03\x02\x01"):
        assert rig.feed(a.header(kind).pack() + payload, a.endpoint) == []
    assert rig.core.counters()["malformed"] == 3


def test_strangers_cannot_fill_the_log() -> None:
    rig = Rig(SupernodeSettings(note_rate=Rate(1, 10)))
    x = Party(rig, 1)
    for _ in range(100):
        x.register(edge_mac_addr="no")
    assert len(rig.notes) == 10
    assert rig.core.counters()["notes_suppressed"] == 90
    assert all(len(str(value)) <= 64 for note in rig.notes for value in note.fields.values())


# ---------------------------------------------------------------- tables


def test_the_number_of_edges_and_communities_is_bounded() -> None:
    rig = Rig(SupernodeSettings(max_members=3, max_communities=2))
    registered(rig, 3)
    assert Party(rig, 4).register() is None
    assert rig.notes[-1].fields["reason"] == "too_many_edges"
    assert set(rig.networks) == {"acme"}, "nor did that found a community"
    rig.core.kick("acme", Party(rig, 1).mac, rig.now)
    rig.settle()
    assert Party(rig, 5, "second").register() is not None
    rig.core.kick("acme", Party(rig, 2).mac, rig.now)
    rig.settle()
    assert Party(rig, 6, "third").register() is None
    assert rig.notes[-1].fields["reason"] == "too_many_communities"


def test_an_idle_community_gives_way_and_takes_its_saved_things_along() -> None:
    rig = Rig(SupernodeSettings(max_communities=2))
    one, two = Party(rig, 1, "one"), Party(rig, 2, "two")
    for party in (one, two):
        party.register()
        party.send(party.heartbeat_datagram())
        party.send(party.unregister_datagram())
    assert Party(rig, 3, "three").register() is None, "their leases still run"
    rig.pass_time(25 * 3600)
    two.register()
    assert Party(rig, 3, "three").register() is not None
    assert set(rig.networks) == {"two", "three"}
    assert {community for community, _ in rig.leases} == {"two", "three"}


def test_the_id_of_an_idle_community_is_not_held_for_ever() -> None:
    first, second = "xytsgnxfrs", "xytsgtkexe"
    assert community_id(first) == community_id(second)
    rig = Rig()
    a, b = Party(rig, 1, first), Party(rig, 2, second)
    a.register()
    assert b.register() is None
    a.send(a.unregister_datagram())
    assert b.register() is None
    rig.pass_time(25 * 3600)
    assert b.register() is not None
    assert set(rig.networks) == {second}


def test_one_source_cannot_found_communities_without_end() -> None:
    rig = Rig(SupernodeSettings(community_rate=Rate(0.01, 5)))
    founded = [Party(rig, number, f"c{number}").register() for number in range(20)]
    assert [address is not None for address in founded] == [True] * 5 + [False] * 15


def test_a_community_s_name_is_bounded() -> None:
    rig = Rig()
    assert Party(rig, 1, "x" * 1024).register() is not None
    assert Party(rig, 1, "x" * 1025).register() is None
    assert rig.notes[-1].fields["reason"] == "community_name_too_long"


def test_buckets_by_source_are_bounded_and_age() -> None:
    table: KeyedBuckets[int] = KeyedBuckets(Rate(1, 2), limit=3)
    assert [table.take(1, 0.0) for _ in range(3)] == [True, True, False]
    for key in (2, 3, 4):
        assert table.take(key, 0.0)
    assert len(table) == 3
    assert table.take(1, 0.0), "forgotten, since three others came: it starts anew"
    table.purge(1.0)
    assert len(table) == 3
    table.purge(2.5)
    assert len(table) == 0


def test_strangers_are_bounded_and_forgotten() -> None:
    strangers = Strangers(Rate(1, 1), limit=2)
    places = [Endpoint.of("192.0.2.1", port) for port in (1, 2, 3)]
    assert [strangers.heard(place, 0.0).retry for place in places] == [True] * 3
    assert len(strangers) == 2
    assert not strangers.heard(places[2], 0.0).retry
    strangers.forget(places[2])
    assert len(strangers) == 1
    strangers.purge(61.0)
    assert len(strangers) == 0


def test_a_source_is_an_ipv4_address_or_an_ipv6_link() -> None:
    same = [source_key(Endpoint.of(host, 1)) for host in ("2001:db8::1", "2001:db8::ffff:1")]
    assert len(set(same)) == 1
    keys = [source_key(Endpoint.of(host, 1)) for host in ("2001:db8:0:1::1", "192.0.2.1", "192.0.2.2", "::1")]
    assert len({*keys, same[0]}) == 5


# ---------------------------------------------------------------- edges that start again


def test_an_edge_that_asked_for_the_key_is_sent_nothing_else_until_it_registers() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    assert kinds(a.say(PacketType.SN_PUBLIC_SECRET, KEY_REQUEST)) == [(PacketType.SN_PUBLIC_SECRET, a.endpoint)]
    assert b.send(b.register_datagram())[1:] == [], "the event is held back"
    assert rig.core.counters()["events_held"] == 1
    sent = a.send(a.register_datagram())
    assert kinds(sent)[0] == (PacketType.REGISTER_RESPONSE, a.endpoint)
    assert len(told(b.send(b.register_datagram()), PeerEvent.REGISTERED)) == 1, "from now on it hears again"


def test_who_asks_for_the_key_in_an_edge_s_name_keeps_little_from_it() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    a.say(PacketType.SN_PUBLIC_SECRET, KEY_REQUEST)
    b.port = 40_000
    assert b.send(b.heartbeat_datagram()) == []
    sent = rig.pass_time(12)
    assert [(data[2], to) for data, to in sent] == [(PacketType.PEER_INFO, a.endpoint)], "the list, with what it missed"
    a.say(PacketType.SN_PUBLIC_SECRET, KEY_REQUEST)
    b.port = 40_001
    assert len(b.send(b.heartbeat_datagram())) == 1, "not again so soon"


def test_an_edge_that_goes_on_speaking_has_not_started_again() -> None:
    rig = Rig()
    a, b = registered(rig, 2)
    a.say(PacketType.SN_PUBLIC_SECRET, KEY_REQUEST)
    b.send(b.register_datagram())
    [(packet, _)] = a.send(a.heartbeat_datagram())
    assert packet.message.event_type == PeerEvent.LIST


def test_an_edge_under_a_new_machine_id_is_not_told_of_itself() -> None:
    rig = Rig()
    [a] = registered(rig, 1)
    reborn = Party(rig, 2, port=a.port)
    assert kinds(reborn.send(reborn.register_datagram())) == [(PacketType.REGISTER_RESPONSE, a.endpoint)]


def test_ciphertexts_are_remembered_for_long_but_not_without_end() -> None:
    rig = Rig(SupernodeSettings(expiry=1e9, member_rate=Rate(100, 100)))
    a, _ = registered(rig, 2)
    first = a.heartbeat_datagram()
    a.send(first)
    for _ in range(511):
        a.send(a.heartbeat_datagram())
        rig.pass_time(1)
    assert rig.feed(first, ELSEWHERE) == []
    assert rig.core.counters()["replayed"] == 1
    a.send(a.heartbeat_datagram())
    assert rig.feed(first, ELSEWHERE) == []
    assert rig.core.counters()["heartbeats_stale"] == 1, "too long ago to be known, but its time tells"


def test_fake_encryption_is_what_the_tests_believe() -> None:
    assert fake_encrypt(b"m" * 16, 1) != fake_encrypt(b"m" * 16, 2)


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    "kind", [PacketType.PEER_LIST_REQUEST, PacketType.P2P_FULL_STATE, PacketType.LEASES_INFOS, PacketType.P2P_STATE]
)
def test_nothing_of_a_stranger_is_decoded(kind: PacketType, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    decoded: list[object] = []
    monkeypatch.setattr("n2n.proto.supernode.decode", lambda *what: decoded.append(what))
    monkeypatch.setattr("n2n.proto.supernode.check_state", decoded.append)
    stranger = ProtoV(kind, community_id("acme"), MacAddress(bytes([2, 0, 0, 0, 0, 99])))
    rig.core.receive(stranger.pack() + bytes(60_000), ELSEWHERE, rig.now)
    rig.core.receive(stranger.pack() + bytes(3000), ELSEWHERE, rig.now)
    # A copied header lets nobody ask for long answers from elsewhere.
    if kind in (PacketType.P2P_FULL_STATE, PacketType.LEASES_INFOS):
        rig.core.receive(a.header(kind).pack() + bytes(3000), ELSEWHERE, rig.now)
    assert decoded == []


@pytest.mark.parametrize(
    "kind",
    [
        PacketType.SN_PUBLIC_SECRET,
        PacketType.REGISTER_REQUEST,
        PacketType.HEARTBEAT,
        PacketType.UNREGISTER_REQUEST,
        PacketType.PEER_LIST_REQUEST,
        PacketType.P2P_FULL_STATE,
        PacketType.LEASES_INFOS,
    ],
)
def test_requests_longer_than_any_honest_one_are_not_decoded(kind: PacketType) -> None:
    rig = Rig()
    a, _ = registered(rig, 2)
    assert rig.feed(a.header(kind).pack() + bytes(4097), a.endpoint) == []
    assert rig.core.counters()["oversized"] == 1
    assert rig.core.counters()["malformed"] == 0


def test_the_longest_honest_registration_is_not_too_long() -> None:
    name, desc, machine_id = "c" * 1024, "d" * 255, bytes(1024)
    message = RegisterRequest("02:00:00:00:00:01", desc, name, machine_id)
    assert len(build(ProtoV(PacketType.REGISTER_REQUEST), message)) < 4096
