"""What a supernode does with cards: keeps them and hands them on; and how it tells an edge where it sees it."""

from __future__ import annotations

import pytest

from n2n.proto.sn_settings import SupernodeSettings
from n2n.proto.through import ask_through, came_through
from n2n.types import SUPERNODE_MAC, Endpoint
from n2n.wire import (
    CARD_LIMIT,
    MAX_DATAGRAM,
    Packet,
    PacketType,
    PeerEvent,
    PeerListRequest,
    PeerToPing,
    ProtoV,
    SNPublicSecret,
    Welcome,
    Where,
    build,
    community_id,
    parse,
)
from tests.sim.supernode_rig import Party, Rig

TOKEN = b"12345678"
PROBE = SupernodeSettings(probe_port=7778)


def cards(sent: list[tuple[Packet, Endpoint]], party: Party) -> list[bytes]:
    """The cards that this edge is told in events and lists."""
    return [
        info.n2n
        for packet, to in sent
        if to == party.endpoint and packet.header.type == PacketType.PEER_INFO
        for info in packet.message.peer_infos
    ]


def trio(rig: Rig) -> tuple[Party, Party, Party]:
    """Two edges with cards, and one of protocol v5."""
    a, b, old = (Party(rig, number) for number in (1, 2, 3))
    a.register(n2n=b"card of a")
    old.register()
    b.register(n2n=b"card of b")
    return a, b, old


def test_cards_are_handed_to_those_that_have_one_and_to_nobody_else() -> None:
    rig = Rig()
    a, b, old = Party(rig, 1), Party(rig, 2), Party(rig, 3)
    a.register(n2n=b"card of a")
    old.register()
    sent = b.send(b.register_datagram(n2n=b"card of b"))
    assert cards(sent, a) == [b"card of b"]
    assert cards(sent, old) == [b""]
    ask = PeerListRequest("acme")
    assert set(cards(b.say(PacketType.PEER_LIST_REQUEST, ask), b)) == {b"card of a", b""}
    assert set(cards(old.say(PacketType.PEER_LIST_REQUEST, ask), old)) == {b""}


def test_what_a_v5_edge_gets_has_no_trace_of_cards() -> None:
    rig = Rig()
    a, b, old = trio(rig)
    rig.mono += 60.0
    raw = [data for data, to in rig.feed(a.heartbeat_datagram(b"news"), a.endpoint) if to == old.endpoint]
    raw += [data for data, to in rig.feed(b.register_datagram(n2n=b"x"), b.endpoint) if to == old.endpoint]
    raw += [data for data, _ in rig.feed(old.register_datagram(), old.endpoint)]
    assert len(raw) >= 3
    lists = rig.feed(build(old.header(PacketType.PEER_LIST_REQUEST), PeerListRequest("acme")), old.endpoint)
    assert not any(b"N2N" in data for data in raw if data[2] == PacketType.REGISTER_RESPONSE)
    assert not any(b"N2N" in data for data, _ in lists)


def test_the_supernode_tells_its_probe_port_to_edges_with_a_card() -> None:
    rig = Rig(PROBE)
    a, old = Party(rig, 1), Party(rig, 2)
    (answer, _), *_ = a.send(a.register_datagram(n2n=b"card"))
    assert Welcome.unpack(answer.message.n2n) == Welcome(7778)
    (answer, _), *_ = old.send(old.register_datagram())
    assert answer.message.n2n == b""


def test_a_changed_card_is_told_and_the_same_one_is_not() -> None:
    rig = Rig()
    a, b, old = trio(rig)
    assert a.send(a.heartbeat_datagram(b"card of a")) == []
    sent = a.send(a.heartbeat_datagram(b"news"))
    assert cards(sent, b) == [b"news"]
    assert [p.message.event_type for p, _ in sent] == [PeerEvent.REGISTERED] * 2
    assert cards(sent, old) == [b""]
    assert a.send(a.heartbeat_datagram()) == [], "a heartbeat without a card changes nothing"
    assert cards(b.say(PacketType.PEER_LIST_REQUEST, PeerListRequest("acme")), b).count(b"news") == 1


def test_a_card_that_changes_all_the_time_is_told_at_a_bounded_rate() -> None:
    rig = Rig()
    a, b, _ = trio(rig)
    told = sum(len(cards(a.send(a.heartbeat_datagram(b"card %d" % number)), b)) for number in range(100))
    assert told <= 20
    assert rig.core.counters()["member_limited"] + rig.core.counters()["cards_limited"] >= 80


def test_a_card_that_is_too_long_is_none() -> None:
    rig = Rig()
    a, b = Party(rig, 1), Party(rig, 2)
    b.register(n2n=b"b")
    sent = a.send(a.register_datagram(n2n=bytes(CARD_LIMIT + 1)))
    assert cards(sent, b) == [b""]
    assert a.send(a.heartbeat_datagram(bytes(CARD_LIMIT + 1))) == []
    assert cards(a.send(a.heartbeat_datagram(bytes(CARD_LIMIT))), b) == [bytes(CARD_LIMIT)]
    assert rig.core.counters()["cards_refused"] == 2


def test_an_edge_that_comes_back_as_a_v5_one_has_no_card() -> None:
    rig = Rig()
    a, b, _ = trio(rig)
    assert cards(a.send(a.register_datagram()), b) == [b""]


def test_long_lists_with_cards_fit() -> None:
    rig = Rig(SupernodeSettings(community_rate=SupernodeSettings().total_rate, prefix=16))
    asker = Party(rig, 9999)
    asker.register(n2n=bytes(CARD_LIMIT))
    for number in range(1, 400):
        Party(rig, number, port=20_000 + number).register(n2n=bytes(CARD_LIMIT), edge_desc="x" * 250)
    sent = rig.feed(build(asker.header(PacketType.PEER_LIST_REQUEST), PeerListRequest("acme")), asker.endpoint)
    assert len(sent) > 1
    assert all(60_000 < len(data) <= MAX_DATAGRAM for data, _ in sent[:-1])
    assert len([c for data, to in sent for c in cards([(parse(data), to)], asker)]) == 399


# -- where do you see me


def question(party: Party, **more: object) -> bytes:
    return build(party.header(PacketType.SN_PUBLIC_SECRET), SNPublicSecret(True, n2n=Where(TOKEN, **more).pack()))


def test_an_edge_is_told_where_it_is_seen() -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    ((packet, to),) = a.send(question(a))
    assert (packet.header.type, packet.header.source, to) == (PacketType.SN_PUBLIC_SECRET, SUPERNODE_MAC, a.endpoint)
    assert packet.message.pem_data == b"", "not the key"
    assert Where.unpack(packet.message.n2n) == Where(TOKEN, True, False, False, a.endpoint)
    a.register()
    ((packet, _),) = a.send(question(a))
    assert Where.unpack(packet.message.n2n).known
    a.port += 1
    ((packet, _),) = a.send(question(a))
    assert not Where.unpack(packet.message.n2n).known, "registered, but elsewhere"


def test_the_answer_can_be_had_from_the_other_port() -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    assert a.send(question(a, other=True)) == []
    ((datagram, to),) = rig.probed
    assert to == a.endpoint
    assert Where.unpack(parse(datagram).message.n2n) == Where(TOKEN, True, True, False, a.endpoint)
    rig.core.receive_probe(question(a), a.endpoint, rig.now)
    assert rig.settle() == []
    assert len(rig.probed) == 2
    rig.core.receive_probe(question(a, other=True), a.endpoint, rig.now)
    ((datagram, _),) = rig.settle()
    assert not Where.unpack(parse(datagram).message.n2n).other


def test_a_ping_to_the_probe_port_is_answered_by_a_pong() -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    field = Where(TOKEN).pack() + bytes(2)
    ping = build(a.header(PacketType.PING, dest=SUPERNODE_MAC), PeerToPing("mine", n2n=field))
    rig.core.receive_probe(ping, a.endpoint, rig.now)
    rig.settle()
    packet = parse(rig.probed[0][0])
    assert isinstance(packet.header, ProtoV)
    assert (packet.header.dest, packet.message.check_id, packet.message.is_pong) == (a.mac, "mine", True)
    assert Where.unpack(packet.message.n2n).observed == a.endpoint


def short_gob(flag: bytes, field: bytes) -> bytes:
    """A message in which nothing is described but a flag, which is not set, and a field `N2N`."""
    fields = b"\x02" + b"\x01" + bytes((len(flag),)) + flag + b"\x01\x02\x00" + b"\x01\x03N2N\x01\x0a\x00"
    described = bytes.fromhex("ff81030101017801ff820001") + fields + b"\x00\x00"
    value = b"\xff\x82\x02" + bytes((len(field),)) + field + b"\x00"
    return bytes((len(described),)) + described + bytes((len(value),)) + value


@pytest.mark.parametrize("more", [{}, {"other": True}, {"other": True, "observed": Endpoint.parse("198.51.100.1:9")}])
def test_no_answer_is_longer_than_its_question(more: dict[str, object]) -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    a.register()
    if more.get("observed"):
        more = {**more, "observed": Endpoint(a.endpoint.ip, 40_001)}
    field = Where(TOKEN, **more).pack()
    key, ping = a.header(PacketType.SN_PUBLIC_SECRET), a.header(PacketType.PING, dest=SUPERNODE_MAC)
    for receive in (rig.core.receive, rig.core.receive_probe):
        receive(build(key, short_gob(b"IsRequest", field)), a.endpoint, rig.now)
    rig.core.receive_probe(build(ping, short_gob(b"IsPong", field)), a.endpoint, rig.now)
    assert rig.settle() == []
    assert not rig.probed
    assert rig.core.counters()["wheres_short"] == 3
    whole = question(a, **more)
    sizes = [len(datagram) for datagram, _ in (*rig.feed(whole, a.endpoint), *rig.probed)]
    assert len(sizes) == 1
    assert sizes[0] <= len(whole)


def test_without_a_second_port_nothing_comes_from_it() -> None:
    rig = Rig()
    a = Party(rig, 1)
    assert a.send(question(a, other=True)) == []
    assert rig.core.counters()["wheres_no_port"] == 1
    assert not rig.probed


@pytest.mark.parametrize("to_probe", [False, True])
def test_answers_and_rubbish_are_not_answered(to_probe: bool) -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    for datagram in (
        question(a, answer=True),
        build(a.header(PacketType.SN_PUBLIC_SECRET), SNPublicSecret(True, n2n=b"rubbish")),
        build(a.header(PacketType.SN_PUBLIC_SECRET), b"rubbish"),
        b"",
        bytes(5000),
    ):
        if to_probe:
            rig.core.receive_probe(datagram, a.endpoint, rig.now)
        else:
            rig.core.receive(datagram, a.endpoint, rig.now)
        assert rig.settle() == []
    assert not rig.probed


def test_questions_are_answered_at_a_bounded_rate_and_do_not_hush_events() -> None:
    rig = Rig(PROBE)
    a, b = Party(rig, 1), Party(rig, 2)
    a.register(n2n=b"a")
    assert sum(len(a.send(question(a))) for _ in range(2000)) <= 1010
    assert rig.core.counters()["keys_limited"] >= 990
    for _ in range(2000):
        rig.core.receive_probe(question(b), b.endpoint, rig.now)
    rig.settle()
    assert len(rig.probed) <= 1010
    sent = b.send(b.register_datagram(n2n=b"b"))
    assert cards(sent, a) == [b"b"]


# -- does a port mapping let anything in


def through(party: Party, mapped: Endpoint) -> bytes:
    return ask_through(community_id("acme"), party.mac, TOKEN, mapped, 1, 2)


def test_an_answer_can_be_had_through_a_port_mapping() -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    a.register()
    mapped = Endpoint(a.endpoint.ip, 40_001)
    question = through(a, mapped)
    assert a.send(question) == []
    ((datagram, to),) = rig.probed
    assert to == mapped
    assert rig.fresh == [True], "from a port that nothing was ever sent to"
    assert len(datagram) <= len(question), "nobody gains by asking in somebody else's name"
    assert parse(datagram).header.dest == a.mac
    assert came_through(datagram, TOKEN)
    assert not came_through(datagram, bytes(8))
    for number in range(len(datagram)):
        came_through(datagram[:number], TOKEN)  # cut: never raises
    assert not came_through(question, TOKEN), "our own question is no answer"
    assert not came_through(TOKEN * 20, TOKEN)


def test_only_a_registered_edge_gets_an_answer_through_to_its_own_address() -> None:
    rig = Rig(PROBE)
    a = Party(rig, 1)
    mapped = Endpoint(a.endpoint.ip, 40_001)
    assert a.send(through(a, mapped)) == []
    a.register()
    assert a.send(through(a, Endpoint.parse("198.51.100.9:53"))) == []
    a.port += 1
    assert a.send(through(a, mapped)) == []
    assert not rig.probed
    assert rig.core.counters()["wheres_refused"] == 3
    without = Rig()
    b = Party(without, 1)
    b.register()
    assert b.send(through(b, Endpoint(b.endpoint.ip, 40_001))) == []
    assert without.core.counters()["wheres_no_port"] == 1
