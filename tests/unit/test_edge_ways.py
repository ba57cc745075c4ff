"""An edge and n2n peers, datagram by datagram: whom it believes, what it answers, what it tells the plane."""

from __future__ import annotations

import dataclasses

import pytest

from n2n.crypto import PayloadCodec, key_from_passphrase
from n2n.proto.actions import AllowSource, PutPeer
from n2n.proto.agenda import Agenda
from n2n.proto.keeping import Keeper, WaySettings
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import (
    Candidate,
    CandidateKind,
    Card,
    Note,
    NoteKind,
    PacketType,
    PeerInfo,
    PeerToPing,
    ProtoV,
    UDPAddr,
    build,
    unwrap,
    wrap,
)
from tests.unit.edge_driver import SUPERNODE, WALL, Driver, Sent, endpoint_of, peer_info

CODEC = PayloadCodec(key_from_passphrase("secret"))
SEALED = {"sealing": (CODEC.seal, CODEC.open)}
LAN = Endpoint.parse("192.168.1.7:40000")
ELSEWHERE = Endpoint.parse("198.51.100.77:1234")
US = Endpoint.parse("203.0.113.9:40000")
SECRET = b"abcdefgh"


class Peer:
    """A peer that speaks notes."""

    def __init__(self, driver: Driver, number: int, *, seal: bool = False) -> None:
        self.driver = driver
        self.seal = CODEC.seal if seal else None
        self.open = CODEC.open if seal else None
        self.mac = MacAddress(peer_info(number).mac_addr)
        self.info = self.with_card(peer_info(number))
        self.endpoint = endpoint_of(self.info)
        self.stamps = 0

    def with_card(self, info: PeerInfo, *endpoints: Endpoint) -> PeerInfo:
        card = Card(self.mac, tuple(Candidate(CandidateKind.LOCAL, one) for one in endpoints or (LAN,)))
        return dataclasses.replace(info, n2n=wrap(card.pack(), self.seal))

    def note(self, kind: NoteKind, **more: object) -> bytes:
        self.stamps += 1
        about = {"stamp": int((WALL + self.driver.time) * 1e6) + self.stamps, **more}
        return wrap(Note(kind, self.mac, self.driver.core.mac, **about).pack(), self.seal)

    def say(self, kind: NoteKind, check_id: str, source: Endpoint, **more: object) -> list[Sent]:
        field = more.pop("field", None) or self.note(kind, **more)
        flags = 2 if source == SUPERNODE else 0
        header = ProtoV(PacketType.PING, self.driver.core.community_id, self.mac, self.driver.core.mac, flags)
        pong = kind in (NoteKind.PONG, NoteKind.ANSWER)
        return self.driver.feed(build(header, PeerToPing(check_id, pong, field)), source)

    def read(self, sent: Sent) -> Note:
        return Note.unpack(unwrap(sent.message.n2n, self.open))


def edge(*numbers: int, seal: bool = False, **changes: object) -> tuple[Driver, list[Peer]]:
    driver = Driver(**{"liveness_beats": 10_000, **(SEALED if seal else {}), **changes})
    peers = [Peer(driver, number, seal=seal) for number in numbers]
    driver.core.start(driver.now)
    driver.core.set_supernode(SUPERNODE, driver.now)
    driver.say_key()
    driver.say_accepted()
    driver.say_peers(*(peer.info for peer in peers), origin=driver.own_info())
    return driver, peers


def to(driver: Driver, endpoint: Endpoint, *, pong: bool = False) -> list[Sent]:
    return [s for s in driver.of_type(PacketType.PING) if s.endpoint == endpoint and s.message.is_pong is pong]


def found(driver: Driver, peer: Peer, where: Endpoint) -> None:
    """The peer answers our call, and our pings there."""
    peer.say(NoteKind.ANSWER, to(driver, SUPERNODE)[-1].message.check_id, SUPERNODE, token=SECRET)
    driver.run_for(0.05)
    peer.say(NoteKind.PONG, to(driver, where)[-1].message.check_id, where, observed=US)


@pytest.mark.parametrize("seal", [False, True])
def test_a_peer_with_a_card_is_called_and_pinged_everywhere_at_once(seal: bool) -> None:
    driver, (peer,) = edge(1, seal=seal)
    (call,) = to(driver, SUPERNODE)
    note = peer.read(call)
    assert (note.kind, note.source, note.dest, note.reached) == (NoteKind.CALL, driver.core.mac, peer.mac, False)
    assert note.card is not None
    driver.run_until(0.05)
    assert len(to(driver, peer.endpoint)) == len(to(driver, LAN)) == 1
    driver.run_until(2.0)
    assert [s.at for s in to(driver, LAN)] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6])
    assert driver.view(peer.info).reason == "no_answer"
    driver.run_until(16.0)
    assert len(to(driver, SUPERNODE)) == 1, "nobody uses it"
    driver.run_until(17.0)
    assert len(to(driver, SUPERNODE)) == 2, "and again"
    driver.run_until(19.0)
    driver.core.traffic(peer.mac, driver.now)
    driver.run_until(19.1)
    assert len(to(driver, SUPERNODE)) == 3, "at once when a frame wants it"
    driver.run_until(24.0)
    assert len(to(driver, SUPERNODE)) == 4, "and soon again"


def test_in_a_crowd_nobody_is_pinged_before_a_frame_wants_it() -> None:
    driver, (peer, *_) = edge(*range(1, 21))
    driver.run_until(100.0)
    assert not driver.of_type(PacketType.PING)
    driver.core.traffic(peer.mac, driver.now)
    driver.run_until(100.3)
    assert len(to(driver, SUPERNODE)) == 1
    assert to(driver, LAN)
    driver.core.traffic(MacAddress(b"\x02" * 6), driver.now)  # nobody


def test_a_call_is_answered_and_makes_us_search_at_a_bounded_rate() -> None:
    driver, (peer, *_) = edge(*range(1, 21))
    (answer,) = peer.say(NoteKind.CALL, "check", SUPERNODE, token=SECRET)
    note = peer.read(answer)
    assert (note.kind, answer.message.check_id, answer.endpoint) == (NoteKind.ANSWER, "check", SUPERNODE)
    driver.run_for(0.05)
    (ping,) = to(driver, peer.endpoint)
    assert peer.read(ping).token == SECRET, "it proves that we got the call"
    driver.take()
    for _ in range(100):
        driver.run_for(1.0)
        peer.say(NoteKind.CALL, "check", SUPERNODE, token=SECRET)
    assert len(to(driver, peer.endpoint)) <= 6 * (5 + 51) + 12


@pytest.mark.parametrize("seal", [False, True])
def test_the_endpoint_that_answers_is_used_and_a_nearer_one_taken(seal: bool) -> None:
    driver, (peer,) = edge(1, seal=seal)
    driver.run_until(0.05)
    found(driver, peer, peer.endpoint)
    assert driver.did(PutPeer)[-1] == PutPeer(peer.mac, peer.endpoint, True)
    driver.run_for(0.3)
    peer.say(NoteKind.PONG, to(driver, LAN)[-1].message.check_id, LAN)
    assert driver.did(PutPeer)[-1] == PutPeer(peer.mac, LAN, True)
    assert AllowSource(peer.mac, peer.endpoint) in driver.did(AllowSource), "its frames may still come from there"
    view = driver.view(peer.info)
    assert (view.in_use, view.reason, view.kind) == (LAN, "better", "n2n")
    assert {c.kind: c.in_use for c in view.candidates} == {"reflexive": False, "local": True}


def test_pongs_go_straight_back_and_by_relay_until_the_own_way_is_known() -> None:
    driver, (peer,) = edge(1, seal=True)
    driver.run_until(3.0)
    sent = peer.say(NoteKind.PING, "check", ELSEWHERE)
    pongs = [s for s in sent if s.message.is_pong]
    assert [s.endpoint for s in pongs] == [ELSEWHERE, SUPERNODE]
    assert all(peer.read(s).observed == ELSEWHERE for s in pongs)
    (ping,) = [s for s in sent if not s.message.is_pong]
    assert ping.endpoint == ELSEWHERE, "it is heard there: is it reached there?"
    peer.say(NoteKind.PONG, ping.message.check_id, ELSEWHERE)
    assert driver.view(peer.info).in_use == ELSEWHERE
    sent = peer.say(NoteKind.PING, "another", ELSEWHERE)
    assert [s.endpoint for s in sent if s.message.is_pong] == [ELSEWHERE]


def test_without_a_key_a_stranger_that_knows_the_addresses_gains_nothing() -> None:
    driver, (peer,) = edge(1)
    driver.run_until(3.0)
    before = driver.view(peer.info)
    for token in (b"", SECRET):
        sent = peer.say(NoteKind.PING, "check", ELSEWHERE, token=token, reached=True)
        assert [s.endpoint for s in sent] == [SUPERNODE], "a pong, by the way of frames"
    assert driver.view(peer.info) == before
    # Who gets what is relayed to the peer knows what to say.
    secret = peer.read(to(driver, SUPERNODE)[0]).token
    sent = peer.say(NoteKind.PING, "check", ELSEWHERE, token=secret, reached=True)
    assert ELSEWHERE in [s.endpoint for s in sent]
    assert driver.view(peer.info).their_path == "direct"


def test_with_a_key_forged_old_and_misdirected_notes_are_not_believed() -> None:
    driver, (peer, other) = edge(1, 2, seal=True)
    driver.run_until(3.0)
    peer.say(NoteKind.PING, "check", ELSEWHERE)
    old = peer.note(NoteKind.PING)
    driver.run_for(30.0)
    peer.say(NoteKind.PING, "check", ELSEWHERE)
    third = Endpoint.parse("198.51.100.99:99")
    counters = driver.core.counters()
    for field in (
        old,
        other.note(NoteKind.PING),
        wrap(Note(NoteKind.PING, peer.mac, driver.core.mac, 1).pack(), None),
        wrap(Note(NoteKind.PING, peer.mac, peer.mac, 1 << 62).pack(), CODEC.seal),
        wrap(Card(peer.mac).pack(), CODEC.seal),
        b"rubbish",
    ):
        sent = peer.say(NoteKind.PING, "check", third, field=field)
        assert third not in [s.endpoint for s in sent]
    after = driver.core.counters()
    assert (after["note_stale"] - counters["note_stale"], after["note_bad"] - counters["note_bad"]) == (1, 5)


def test_cards_that_are_not_the_bearer_s_or_do_not_open_count_for_nothing() -> None:
    driver, (peer, other) = edge(1, 2, seal=True)
    bad = driver.core.counters()["card_bad"]
    for field in (other.info.n2n, wrap(Card(peer.mac).pack(), None), b"rubbish"):
        driver.say_peers(dataclasses.replace(peer.info, n2n=field), event=2)
    assert driver.core.counters()["card_bad"] == bad + 3


def test_candidates_that_would_lead_us_astray_are_left_out() -> None:
    driver, (peer,) = edge(1)
    own = Endpoint.parse("192.168.1.9:5")
    driver.core.set_local([(CandidateKind.LOCAL, own)], driver.now)
    inside = Endpoint.parse("10.1.2.77:40000")
    driver.say_peers(peer.with_card(peer_info(1), own, SUPERNODE, inside, LAN), event=2)
    assert {c.endpoint for c in driver.view(peer.info).candidates} == {peer.endpoint, LAN}
    assert driver.core.counters()["candidate_refused"] == 3


def test_endpoints_tried_are_bounded() -> None:
    driver, (peer,) = edge(1, seal=True)
    for number in range(300):
        driver.run_for(1.1)
        peer.say(NoteKind.PING, "check", Endpoint.of("198.51.100.9", 1000 + number))
    assert len(driver.view(peer.info).candidates) <= 16
    assert peer.endpoint in {c.endpoint for c in driver.view(peer.info).candidates}


def test_a_search_tries_few_of_the_dead_endpoints_of_a_peer_whose_nat_moved() -> None:
    driver, (peer,) = edge(1, seal=True)
    dead = [Endpoint.of("198.51.100.9", 1000 + number) for number in range(9)]
    for endpoint in dead:
        driver.run_for(1.1)
        peer.say(NoteKind.PING, "check", endpoint)
    driver.run_until(200.0)
    left = [c.endpoint for c in driver.view(peer.info).candidates if c.kind == "peer"]
    assert left == dead[-3:]


def test_a_pong_that_answers_nothing_changes_nothing() -> None:
    driver, (peer,) = edge(1)
    driver.run_until(3.0)
    before, unasked = driver.view(peer.info), driver.core.counters()["pong_unasked"]
    victims = tuple(Candidate(CandidateKind.LOCAL, Endpoint.of("198.51.100.9", 1000 + n)) for n in range(8))
    for kind in (NoteKind.PONG, NoteKind.ANSWER):
        for source in (ELSEWHERE, peer.endpoint, SUPERNODE):
            card = Card(peer.mac, victims)
            sent = peer.say(kind, "guessed", source, token=b"wrongkey", reached=True, card=card)
            assert sent == []
    driver.run_for(0.5)
    assert driver.view(peer.info) == before
    assert driver.core.counters()["pong_unasked"] == unasked + 6
    assert not [s for s in driver.sent if s.endpoint.ip == victims[0].endpoint.ip]


@pytest.mark.parametrize("seal", [False, True])
def test_pings_in_a_peer_s_name_leave_it_its_own(seal: bool) -> None:
    driver, (peer,) = edge(1, seal=seal)
    driver.run_until(0.05)
    found(driver, peer, peer.endpoint)
    secret = peer.read(to(driver, SUPERNODE)[0]).token
    for number in range(200):  # forged: from somewhere, and by way of the supernode
        peer.say(NoteKind.PING, "forged", Endpoint.of("198.51.100.9", 1000 + number % 2), field=b"rubbish")
        peer.say(NoteKind.CALL, "forged", SUPERNODE, field=b"rubbish")
    assert driver.core.counters()["ping_limited"] > 300
    sent = peer.say(NoteKind.PING, "true", peer.endpoint, token=secret)
    assert [s.endpoint for s in sent if s.message.is_pong and s.message.check_id == "true"] == [peer.endpoint]


@pytest.mark.parametrize("seal", [False, True])
def test_whoever_comes_through_the_tunnel_is_not_direct(seal: bool) -> None:
    inside = Endpoint.parse("10.1.2.77:40000")
    driver, (peer,) = edge(1, seal=seal)
    driver.run_until(0.05)
    secret = peer.read(to(driver, SUPERNODE)[0]).token
    assert peer.say(NoteKind.PING, "check", inside, token=secret) == []
    assert peer.say(NoteKind.PONG, to(driver, LAN)[-1].message.check_id, inside) == []
    moved = dataclasses.replace(peer.info, pub_socket=UDPAddr(inside.packed, inside.port))
    driver.say_peers(moved, event=2)
    driver.run_until(10.0)
    assert not to(driver, inside)
    assert driver.view(peer.info).path == "relay"
    assert AllowSource(peer.mac, inside) not in driver.did(AllowSource)
    assert driver.core.counters()["from_inside"] == 2


def test_a_member_whose_card_is_always_another_makes_us_ping_at_a_bounded_rate() -> None:
    driver, (peer, *_) = edge(*range(1, 21), seal=True)
    driver.run_until(60.0)
    driver.take()
    for number in range(800):
        driver.run_for(0.125)
        card = Card(peer.mac, (Candidate(CandidateKind.LOCAL, Endpoint.of("198.51.100.9", 1000 + number)),))
        peer.say(NoteKind.CALL, "check", SUPERNODE, token=SECRET, card=card)
    pings = [s for s in driver.of_type(PacketType.PING) if not s.message.is_pong]
    assert len(pings) <= (100 * 0.5 + 5) * 20


def test_endpoints_on_old_cards_leave_room_for_new_ones() -> None:
    driver, (peer,) = edge(1)
    for number in range(40):
        card = Card(peer.mac, (Candidate(CandidateKind.REFLEXIVE, Endpoint.of("198.51.100.9", 1000 + number)),))
        driver.say_peers(dataclasses.replace(peer.info, n2n=wrap(card.pack(), None)), event=2)
    assert {c.endpoint for c in driver.view(peer.info).candidates} == {
        peer.endpoint,
        Endpoint.parse("198.51.100.9:1039"),
    }
    for endpoint in (peer.endpoint, LAN):  # on the card, and no longer: the supernode sees it there still
        driver.say_peers(peer.with_card(peer.info, endpoint), event=2)
    kinds = {c.endpoint: c.kind for c in driver.view(peer.info).candidates}
    assert kinds == {peer.endpoint: "reflexive", LAN: "local"}


def test_our_own_card_is_told_when_it_changes_and_stays_the_same_bytes_otherwise() -> None:
    driver, _ = edge(1, seal=True)
    driver.take()
    driver.run_until(61.0)
    first, second = (s.message.n2n for s in driver.of_type(PacketType.HEARTBEAT))
    assert first == second
    driver.take()
    wild = (CandidateKind.LOCAL, Endpoint.parse("127.0.0.1:1"))
    driver.core.set_local([(CandidateKind.LOCAL, LAN), wild], driver.now)
    driver.run_for(3.0)
    (beat,) = driver.of_type(PacketType.HEARTBEAT)
    card = Card.unpack(unwrap(beat.message.n2n, CODEC.open))
    assert card.candidates == (Candidate(CandidateKind.LOCAL, LAN),)
    driver.core.set_local([(CandidateKind.LOCAL, LAN)], driver.now)
    driver.run_for(3.0)
    assert len(driver.of_type(PacketType.HEARTBEAT)) == 1


def test_an_edge_that_is_told_to_be_a_v5_one_is_one() -> None:
    driver, (peer,) = edge(1, n2n=False)
    peer.say(NoteKind.CALL, "check", SUPERNODE, token=SECRET)
    driver.run_until(60.0)
    assert driver.view(peer.info).kind == "unknown"
    assert not any(b"N2N" in s.datagram for s in driver.sent)


def test_another_port_of_our_nat_is_told_to_the_supernode_at_once() -> None:
    driver, (peer,) = edge(1, seal=True)
    driver.run_until(0.05)
    found(driver, peer, peer.endpoint)
    driver.run_until(1.0)
    driver.take()
    driver.core.traffic(peer.mac, driver.now)
    driver.run_for(0.01)
    ping = to(driver, peer.endpoint)[-1]
    peer.say(NoteKind.PONG, ping.message.check_id, peer.endpoint, observed=Endpoint.parse("203.0.113.9:50000"))
    driver.run_for(0.1)
    assert len(driver.of_type(PacketType.HEARTBEAT)) == 1


def test_keep_alives_grow_while_they_are_answered_and_shrink_for_good_when_not() -> None:
    keeper = Keeper(WaySettings(), lambda: 0.0)
    now, seen = 0.0, []

    def survive() -> None:
        nonlocal now
        keeper.last = now
        now += keeper.pause()
        keeper.test(Instant(now, now))
        keeper.survived()
        seen.append(keeper.interval)

    for _ in range(8):
        survive()
    assert seen[:3] == [22.5, 33.75, 50.625]
    assert seen[-1] == 110.0
    keeper.last = now
    keeper.test(Instant(now + 110.0, 0.0))
    keeper.failed()
    assert keeper.interval == 15.0
    for _ in range(20):
        survive()
    assert keeper.interval == pytest.approx(110.0 / 1.5)


def test_the_agenda_gives_each_in_time_and_forgets_nobody() -> None:
    agenda, macs = Agenda(), [MacAddress(bytes((2, 0, 0, 0, n // 256, n % 256))) for n in range(300)]
    for round_ in range(20):
        for number, mac in enumerate(macs):
            agenda.set(mac, float(round_ * 1000 + number))
    assert len(agenda._heap) < 2000
    agenda.set(macs[0], None)
    assert agenda.next() == 19_001.0
    assert list(agenda.take(19_010.0)) == macs[1:11]
    assert agenda.next() == 19_011.0
    agenda.clear()
    assert agenda.next() is None
