"""Peers, pings and pongs: who is believed, when a path is direct, and that nothing is given up."""

from __future__ import annotations

import dataclasses

import pytest

from n2n.proto.actions import AllowSource, DropPeer, PutPeer
from n2n.types import SUPERNODE_MAC, Endpoint, MacAddress
from n2n.wire import MAX_DATAGRAM, LeasesInfos, P2PCommunityDatas, P2PFullState, P2PStatus, PeerInfo, UDPAddr
from n2n.wire import PacketType as T
from tests.unit.edge_driver import OWN_ENDPOINT, SUPERNODE, WALL, Driver, endpoint_of, peer_info

A, B = peer_info(1), peer_info(2)
ELSEWHERE = Endpoint.parse("198.51.100.77:1234")


def edge(*peers: PeerInfo, **changes: object) -> Driver:
    driver = Driver(**{"liveness_beats": 10_000, **changes})
    driver.register(*peers)
    return driver


def mac_of(peer: PeerInfo) -> MacAddress:
    return MacAddress(peer.mac_addr)


def pings(driver: Driver, peer: PeerInfo) -> list[float]:
    return [s.at for s in driver.of_type(T.PING) if s.header.dest == mac_of(peer) and not s.message.is_pong]


def direct(*peers: PeerInfo, **changes: object) -> Driver:
    """An edge that reaches the first of these peers directly, at 3 s."""
    driver = edge(*peers, **changes)
    driver.run_until(3.0)
    driver.pong(peers[0], driver.last_check_id(peers[0]))
    assert driver.view(peers[0]).path == "direct"
    return driver


# -- the table


def test_the_plane_learns_of_peers_as_they_come_and_go() -> None:
    driver = edge(A)
    assert driver.did(PutPeer) == [PutPeer(mac_of(A), endpoint_of(A), False)]
    driver.say_peers(B, event=2)
    assert driver.did(PutPeer)[1:] == [PutPeer(mac_of(B), endpoint_of(B), False)]
    driver.say_peers(A, event=3)
    assert driver.did(DropPeer) == [DropPeer(mac_of(A))]
    assert [v.mac for v in driver.core.peers()] == [mac_of(B)]
    assert [n.fields["mac"] for n in driver.notes("peer_new")] == [str(mac_of(A)), str(mac_of(B))]
    assert [n.fields["reason"] for n in driver.notes("path")] == ["discovered", "discovered"]


def test_a_list_replaces_the_table() -> None:
    driver = edge(A)
    driver.run_until(10.0)
    driver.core.ask_peers(driver.now)
    driver.run_until(10.5)
    driver.say_peers(B)
    assert [v.mac for v in driver.core.peers()] == [mac_of(B)]


def test_a_list_older_than_an_event_does_not_undo_it() -> None:
    driver = edge(A)
    driver.run_until(10.0)
    driver.core.ask_peers(driver.now)
    driver.run_until(10.5)
    newer = dataclasses.replace(A, pub_socket=UDPAddr(bytes((192, 0, 2, 200)), 6000))
    driver.say_peers(B, newer, event=2)
    driver.say_peers(A)
    assert [v.mac for v in driver.core.peers()] == [mac_of(A), mac_of(B)]
    assert driver.view(A).endpoint == endpoint_of(newer)


def test_a_long_list_may_go_on_in_events_and_ends_no_path_meanwhile() -> None:
    many = [peer_info(n) for n in range(1, 301)]
    last, gone = many[-1], peer_info(999)
    driver = edge(*many, gone)
    driver.run_until(3.0)
    driver.pong(last, driver.last_check_id(last))
    driver.core.ask_peers(driver.now)
    driver.run_until(3.1)
    driver.say_peers(*many[:150])
    driver.say_peers(*many[150:], event=2)
    assert len(driver.core.peers()) == 301
    driver.run_until(8.2)
    assert len(driver.core.peers()) == 300
    assert driver.did(DropPeer) == [DropPeer(mac_of(gone))]
    assert driver.view(last).path == "direct"


def test_nothing_new_keeps_the_path_and_new_data_start_it_anew() -> None:
    driver = direct(A, B)
    driver.say_peers(A, event=2)
    assert driver.view(A).path == "direct"
    renamed = dataclasses.replace(A, desc="another name")
    driver.say_peers(renamed, event=2)
    assert (driver.view(A).path, driver.view(A).name) == ("direct", "another name")
    for changed in (
        dataclasses.replace(A, virtual_ip=b"\x0a\x01\x00\x63"),
        dataclasses.replace(A, pub_socket=UDPAddr(bytes((192, 0, 2, 200)), 6000)),
    ):
        driver = direct(A, B)
        driver.say_peers(changed, event=2)
        view = driver.view(A)
        assert (view.path, view.status, view.reason, view.check_id) == ("relay", P2PStatus.UNKNOWN, "peer_changed", "")
        assert driver.did(PutPeer)[-1] == PutPeer(mac_of(A), endpoint_of(changed), False)
        assert driver.notes("path")[-1].fields["reason"] == "peer_changed"


def test_the_mapped_form_of_an_address_is_the_same_address() -> None:
    driver = direct(A)
    assert A.pub_socket is not None
    mapped = dataclasses.replace(A, pub_socket=UDPAddr(bytes(10) + b"\xff\xff" + A.pub_socket.ip, A.pub_socket.port))
    driver.say_peers(mapped, event=2)
    assert driver.view(A).path == "direct"


@pytest.mark.parametrize(
    ("changes", "counter"),
    [
        ({"mac_addr": b""}, "peer_malformed"),
        ({"mac_addr": bytes(5)}, "peer_malformed"),
        ({"mac_addr": bytes(6)}, "peer_malformed"),
        ({"mac_addr": b"\xff" * 6}, "peer_malformed"),
        ({"mac_addr": SUPERNODE_MAC.raw}, "peer_malformed"),
        ({"pub_socket": None}, "peer_malformed"),
        ({"pub_socket": UDPAddr(b"", 5000)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(bytes(4), 5000)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(b"\xff" * 4, 5000)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(b"\xe0\0\0\1", 5000)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(bytes(16), 5000)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(b"\xc0\0\2\1", 0)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(b"\xc0\0\2\1", 65536)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(b"\xc0\0\2\1", -1)}, "peer_malformed"),
        ({"pub_socket": UDPAddr(SUPERNODE.packed, SUPERNODE.port)}, "peer_bad_endpoint"),
        ({"pub_socket": UDPAddr(b"\xfe\x80" + bytes(13) + b"\1", 5000)}, "peer_bad_endpoint"),
        ({"virtual_ip": bytes(15) + b"\1"}, "peer_malformed"),
    ],
)
@pytest.mark.parametrize("event", [1, 2])
def test_a_peer_that_makes_no_sense_is_skipped_and_the_others_taken(
    changes: dict[str, object], counter: str, event: int
) -> None:
    bad = dataclasses.replace(B, **changes)
    driver = edge()
    driver.core.ask_peers(driver.now)
    driver.say_peers(bad, A, event=event)
    assert [v.mac for v in driver.core.peers()] == [mac_of(A)]
    assert driver.core.counters()[counter] == 1


def test_the_edge_itself_is_no_peer() -> None:
    driver = edge()
    driver.say_peers(driver.own_info(), A, event=2)
    assert [v.mac for v in driver.core.peers()] == [mac_of(A)]
    assert driver.core.counters()["peer_is_self"] == 1


def test_the_table_is_bounded() -> None:
    driver = edge(max_peers=10)
    driver.say_peers(*(peer_info(n) for n in range(1, 101)), event=2)
    assert len(driver.core.peers()) == 10
    assert driver.core.counters()["peer_table_full"] == 90
    driver.say_peers(peer_info(1), event=3)
    driver.say_peers(peer_info(100), event=2)
    assert len(driver.core.peers()) == 10


def test_unregistering_goes_on_after_an_unknown_peer() -> None:
    driver = edge(A, B)
    driver.say_peers(peer_info(9), peer_info(8, mac_addr=b"\1"), A, B, event=3)
    assert driver.core.peers() == ()
    assert driver.core.counters()["peer_unknown"] == 2


def test_an_origin_that_is_not_us_is_ignored() -> None:
    driver = edge()
    driver.core.ask_peers(driver.now)
    driver.say_peers(A, origin=B)
    assert driver.core.reflexive == OWN_ENDPOINT
    assert driver.core.counters()["origin_bad"] == 1
    assert len(driver.core.peers()) == 1


def test_names_are_fit_to_be_shown() -> None:
    driver = edge(dataclasses.replace(A, desc="\x1b[31m" + "x" * 500))
    assert driver.view(A).name == ("[31m" + "x" * 500)[:64]


# -- rounds of pings


def test_a_silent_peer_is_pinged_as_v5_does_and_then_ever_more_slowly_but_always() -> None:
    driver = edge(A)
    driver.run_until(93.5)
    times = pings(driver, A)
    assert len(times) == 30 * 4
    assert sorted(set(times)) == pytest.approx([3.0 * n for n in range(1, 31)])
    view = driver.view(A)
    assert (view.status, view.path, view.reason) == (P2PStatus.UNAVAILABLE, "relay", "no_answer")
    driver.take()
    driver.run_until(93.0 + 3600.0)
    rounds = sorted(set(pings(driver, A)))
    assert 60 <= len(rounds) <= 70, "about one a minute"
    assert len(pings(driver, A)) == 4 * len(rounds)
    driver.pong(A, driver.last_check_id(A))
    assert driver.view(A).path == "direct"


def test_a_pong_makes_the_path_direct_and_costs_one_ping_a_round_from_then_on() -> None:
    driver = direct(A)
    assert driver.did(PutPeer)[-1] == PutPeer(mac_of(A), endpoint_of(A), True)
    note = driver.notes("path")[-1]
    assert (note.fields["path"], note.fields["reason"]) == ("direct", "answered")
    driver.take()
    for n in range(2, 20):
        driver.run_until(3.0 * n)
        assert len(pings(driver, A)) == 1
        driver.pong(A, driver.last_check_id(A))
        driver.take()
    assert driver.view(A).status is P2PStatus.AVAILABLE


def test_round_trip_time_is_measured_by_direct_pongs_only() -> None:
    driver = edge(A)
    driver.run_until(3.0)
    driver.run_until(3.02)
    driver.pong(A, driver.last_check_id(A), from_=SUPERNODE)
    assert driver.view(A).rtt is None
    driver.run_until(6.02)
    driver.pong(A, driver.last_check_id(A))
    assert driver.view(A).rtt == pytest.approx(0.02)
    assert driver.view(A).last_pong == pytest.approx(WALL + 6.02)


def test_one_way_is_known_and_told() -> None:
    driver = edge(A)
    driver.run_until(3.0)
    driver.pong(A, driver.last_check_id(A), from_=SUPERNODE)
    view = driver.view(A)
    assert (view.path, view.one_way, view.full_duplex) == ("direct", True, False)
    driver.run_until(4.5)
    (peer,) = driver.of_type(T.P2P_STATE)[-1].message.to
    assert (peer.p2p_status, peer.is_full_duplex) == (2, False)
    driver.run_until(6.0)
    driver.pong(A, driver.last_check_id(A))
    view = driver.view(A)
    assert (view.path, view.one_way, view.full_duplex) == ("direct", False, True)
    driver.run_until(8.5)
    (peer,) = driver.of_type(T.P2P_STATE)[-1].message.to
    assert (peer.p2p_status, peer.is_full_duplex) == (2, True)


def test_a_direct_path_that_no_longer_answers_is_left_after_three_rounds() -> None:
    driver = direct(A)
    driver.run_until(14.9)
    assert driver.view(A).path == "direct"
    # The ping that keeps it, then bursts, to tell loss from the end of the path.
    assert pings(driver, A)[4:] == pytest.approx([6.0, *[9.0] * 4, *[12.0] * 4])
    driver.run_until(15.1)
    view = driver.view(A)
    assert (view.path, view.status, view.reason) == ("relay", P2PStatus.PENDING, "silent")
    assert driver.did(PutPeer)[-1] == PutPeer(mac_of(A), endpoint_of(A), False)
    assert driver.notes("path")[-1].fields["reason"] == "silent"
    assert view.since == pytest.approx(WALL + 15.0)
    driver.pong(A, driver.last_check_id(A))
    assert driver.view(A).path == "direct"


def test_one_lost_round_ends_nothing() -> None:
    driver = direct(A)
    for n in range(2, 40):
        driver.run_until(3.0 * n)
        if n % 3 == 0:
            driver.pong(A, driver.last_check_id(A))
    assert driver.view(A).path == "direct"
    assert len(driver.notes("path")) == 2


def test_a_pong_that_takes_longer_than_a_round_still_counts() -> None:
    driver = edge(A)
    driver.run_until(3.0)
    first = driver.last_check_id(A)
    driver.run_until(6.0)
    assert driver.last_check_id(A) != first
    driver.pong(A, first)
    assert driver.view(A).path == "direct"


# -- pongs that are not believed


def test_pongs_nobody_asked_for_are_ignored() -> None:
    driver = edge(A, B)
    driver.pong(A, "whatever")
    driver.run_until(3.0)
    check_a, check_b = driver.last_check_id(A), driver.last_check_id(B)
    actions = len(driver.actions)
    driver.pong(A, check_b)
    driver.pong(A, check_a.rpartition(".")[0])
    driver.pong(A, check_a + "x")
    driver.pong(A, "")
    driver.pong(peer_info(77), check_a)
    driver.pong(A, check_a, dest=mac_of(B))
    driver.pong(A, check_a, source=MacAddress(bytes(6)))
    driver.pong(A, check_a, community=1)
    assert len(driver.actions) == actions
    assert [v.status for v in driver.core.peers()] == [P2PStatus.PENDING] * 2
    counters = driver.core.counters()
    assert (counters["pong_unasked"], counters["pong_stranger"]) == (5, 1)
    assert (counters["ping_not_ours"], counters["other_community"]) == (2, 1)


def test_old_check_ids_are_worth_nothing() -> None:
    driver = direct(A)
    old = driver.last_check_id(A)
    for _ in range(4):
        driver.run_for(3.0)
        driver.pong(A, old)
    assert driver.view(A).path == "relay"


def test_an_answer_two_rounds_late_is_worth_nothing() -> None:
    driver = edge(A)
    driver.run_until(3.0)
    old = driver.last_check_id(A)
    driver.run_until(9.0)
    driver.pong(A, old)
    assert driver.view(A).path == "relay"
    assert driver.core.counters()["pong_unasked"] == 1


def test_a_pong_counts_once() -> None:
    driver = direct(A)
    seen = driver.view(A).last_pong
    driver.run_until(3.5)
    driver.pong(A, driver.last_check_id(A))
    assert (driver.view(A).last_pong, driver.view(A).rtt) == (seen, 0.0)
    assert driver.core.counters()["pong_repeated"] == 1


def test_check_ids_cannot_be_predicted_and_are_not_told() -> None:
    driver = direct(A)
    driver.run_until(20.0)
    ids = {s.message.check_id for s in driver.of_type(T.PING)}
    assert len(ids) == 6
    label = f"tester.{driver.core.mac}.{mac_of(A)}.192.0.0.1.5000"
    assert all(i.startswith(label + ".t") for i in ids)
    told = {peer.p2p_check_id for s in driver.of_type(T.P2P_STATE) for peer in s.message.to}
    assert told == {"", label}
    assert driver.view(A).check_id == label


def test_a_flag_that_does_not_fit_its_source_is_not_believed() -> None:
    driver = edge(A)
    driver.run_until(3.0)
    driver.pong(A, driver.last_check_id(A), flags=2)
    driver.pong(A, driver.last_check_id(A), from_=SUPERNODE, flags=0)
    assert driver.view(A).path == "relay"
    assert driver.core.counters()["ping_bad_flag"] == 2


# -- pings


def test_pongs_take_the_way_of_frames() -> None:
    driver = edge(A, B)
    driver.run_until(3.0)
    driver.pong(A, driver.last_check_id(A))
    (pong,) = driver.ping(A, "check")
    assert (pong.endpoint, pong.message.is_pong, pong.message.check_id) == (endpoint_of(A), True, "check")
    assert pong.header.dest == mac_of(A)
    (pong,) = driver.ping(B, "check")
    assert pong.endpoint == SUPERNODE
    (pong,) = driver.ping(peer_info(9), "check")
    assert pong.endpoint == SUPERNODE
    (pong,) = driver.ping(A, "check", from_=SUPERNODE)
    assert pong.endpoint == endpoint_of(A)


def test_pings_that_are_not_for_us_are_not_answered() -> None:
    driver = edge(A)
    assert not driver.ping(A, "check", dest=mac_of(B))
    assert not driver.ping(A, "check", dest=MacAddress(b"\xff" * 6))
    assert not driver.ping(A, "check", source=MacAddress(bytes(6)))
    assert not driver.ping(A, "check", source=driver.core.mac)
    assert not driver.ping(A, "x" * 1025)
    assert driver.core.counters()["ping_not_ours"] == 4
    assert driver.core.counters()["ping_too_long"] == 1
    assert not driver.ping(A, "x" * 60_000)
    assert driver.core.counters()["ping_too_long"] == 2


def test_a_ping_longer_than_any_that_is_answered_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = edge(A)
    monkeypatch.setattr("n2n.proto.edge_inbox.decode", lambda *_: pytest.fail("decoded"))
    driver.ping(A, "x" * 60_000)
    assert driver.core.counters()["ping_too_long"] == 1


def test_floods_of_pings_are_answered_at_a_bounded_rate() -> None:
    driver = edge(A)
    for peer, bound in ((A, 8 * 10 + 32), (peer_info(9), 8 * 10 + 16)):
        driver.take()
        start = driver.time
        for n in range(1000):
            driver.run_until(start + n / 100)
            driver.ping(peer, f"check{n}")
        pongs = [s for s in driver.of_type(T.PING) if s.message.is_pong]
        assert bound - 10 <= len(pongs) <= bound
    assert driver.core.counters()["ping_limited"] > 1500


def test_a_v5_peer_s_first_round_of_eight_is_answered() -> None:
    driver = edge(A)
    for _ in range(3):
        assert all(driver.ping(A, "check") for _ in range(8))


def test_an_unknown_edge_that_pings_makes_us_ask_who_is_there_but_seldom() -> None:
    driver = edge()
    stranger = peer_info(9)
    driver.ping(stranger, "check")
    assert not driver.of_type(T.PEER_LIST_REQUEST), "the list is fresh"
    driver.run_until(31.0)
    driver.take()
    driver.ping(stranger, "check")
    assert [s.type for s in driver.take()].count(T.PEER_LIST_REQUEST) == 1
    driver.say_peers(stranger)
    driver.ping(peer_info(10), "check")
    assert not driver.of_type(T.PEER_LIST_REQUEST)


# -- further endpoints of a peer


def test_frames_are_allowed_from_where_a_known_peer_pings() -> None:
    driver = edge(A)
    driver.ping(A, "check")
    assert not driver.did(AllowSource)
    driver.ping(A, "check", from_=ELSEWHERE)
    driver.ping(A, "check", from_=ELSEWHERE)
    assert driver.did(AllowSource) == [AllowSource(mac_of(A), ELSEWHERE)]


def test_frames_are_not_allowed_because_of_strangers_relays_or_others_pings() -> None:
    driver = edge(A)
    driver.ping(peer_info(9), "check", from_=ELSEWHERE)
    driver.ping(A, "check", from_=SUPERNODE)
    driver.ping(A, "check", from_=ELSEWHERE, dest=mac_of(B))
    driver.ping(A, "check", from_=ELSEWHERE, flags=2)
    driver.pong(A, "not asked for", from_=ELSEWHERE)
    assert not driver.did(AllowSource)


def test_a_pong_that_proves_itself_allows_its_source() -> None:
    driver = edge(A)
    driver.run_until(3.0)
    driver.pong(A, driver.last_check_id(A), from_=ELSEWHERE)
    assert driver.did(AllowSource) == [AllowSource(mac_of(A), ELSEWHERE)]
    assert driver.view(A).path == "direct"
    assert driver.view(A).endpoint == endpoint_of(A), "the endpoint that was asked is the one that works"


def test_allowed_sources_are_bounded() -> None:
    driver = edge(A)
    for n in range(1000):
        driver.run_until(n / 100)
        driver.ping(A, "check", from_=Endpoint.of("198.51.100.9", 1000 + n))
    assert len(driver.did(AllowSource)) <= 4 + 10
    assert driver.core.counters()["source_limited"] > 0


def test_a_moved_peer_must_show_its_further_endpoints_again() -> None:
    driver = edge(A)
    driver.ping(A, "check", from_=ELSEWHERE)
    driver.say_peers(dataclasses.replace(A, pub_socket=UDPAddr(bytes((192, 0, 2, 200)), 6000)), event=2)
    driver.ping(A, "check", from_=ELSEWHERE)
    assert driver.did(AllowSource) == [AllowSource(mac_of(A), ELSEWHERE)] * 2


def test_a_peer_given_up_is_tried_at_once_when_it_is_heard_but_not_on_demand() -> None:
    driver = edge(A)
    driver.run_until(300.0)
    assert driver.view(A).status is P2PStatus.UNAVAILABLE
    while not pings(driver, A) or pings(driver, A)[-1] < driver.time:  # up to the next of its rare rounds
        driver.take()
        driver.run_for(3.0)
    driver.take()
    driver.ping(A, "check")
    driver.run_for(3.0)
    assert len(pings(driver, A)) == 4
    start = driver.time
    driver.take()
    for n in range(20):
        driver.run_until(start + 1.0 + n)
        driver.ping(A, "check")
    assert len(pings(driver, A)) <= 8


# -- our own address changes


def test_a_changed_network_puts_all_on_the_relay_and_finds_them_again() -> None:
    driver = direct(A, B)
    driver.run_until(4.0)
    driver.core.network_changed(driver.now, "woke_up")
    driver.collect()
    assert [v.path for v in driver.core.peers()] == ["relay", "relay"]
    assert driver.did(PutPeer)[-1] == PutPeer(mac_of(A), endpoint_of(A), False)
    assert driver.notes("path")[-1].fields["reason"] == "woke_up"
    driver.take()
    driver.run_until(4.1)
    assert len(pings(driver, A)) == len(pings(driver, B)) == 4
    driver.pong(A, driver.last_check_id(A))
    assert driver.view(A).path == "direct"


# -- what the supernode is told


def test_state_is_told_when_it_changed_and_only_then() -> None:
    driver = edge(A)
    driver.run_until(30.0)
    times = [s.at for s in driver.of_type(T.P2P_STATE)]
    assert times == pytest.approx([2.0, 4.0])
    driver.say_peers(A, event=3)
    driver.run_until(60.0)
    assert [s.at for s in driver.of_type(T.P2P_STATE)] == pytest.approx([2.0, 4.0, 32.0])


def test_state_is_told_again_to_a_supernode_that_forgot_it() -> None:
    driver = edge(A)
    driver.run_until(30.0)
    driver.take()
    driver.say(T.RETRY_REGISTER, community=0)
    driver.say_key()
    driver.say_accepted()
    driver.run_until(32.5)
    assert len(driver.of_type(T.P2P_STATE)) == 1


def test_state_that_does_not_fit_is_cut_and_keeps_the_direct_peers() -> None:
    many = tuple(peer_info(n, desc="x" * 60) for n in range(1, 901))
    driver = edge()
    for start in range(0, len(many), 100):
        driver.say_peers(*many[start : start + 100], event=2)
    driver.run_until(3.0)
    driver.pong(many[-1], driver.last_check_id(many[-1]))
    driver.run_until(4.1)
    state = driver.of_type(T.P2P_STATE)[-1]
    assert 30_000 < len(state.datagram) <= MAX_DATAGRAM
    assert state.message.to[0].infos.mac_addr == many[-1].mac_addr
    assert driver.core.counters()["state_cut"] >= 1


# -- on demand


def test_leases_and_full_state_are_asked_on_demand_and_taken_once() -> None:
    driver = edge(A)
    state = P2PFullState("acme", False, P2PCommunityDatas({}, None))
    answers = (
        (driver.core.ask_leases, T.LEASES_INFOS, LeasesInfos(False, "acme", {}), "leases"),
        (driver.core.ask_full_state, T.P2P_FULL_STATE, state, "full_state"),
    )  # fmt: skip
    for ask, kind, answer, attribute in answers:
        driver.say(kind, answer)
        assert getattr(driver.core, attribute) is None
        assert ask(driver.now)
        assert not ask(driver.now), "an answer is awaited"
        driver.collect()
        assert driver.sent[-1].type is kind
        driver.say(kind, answer)
        found = getattr(driver.core, attribute)
        assert (found.message, found.at) == (answer, driver.now.wall)
        driver.say(kind, answer)
        assert driver.core.counters()[f"{attribute}_unasked"] == 2
        assert ask(driver.now)
        driver.collect()
        driver.run_for(5.5)
        driver.say(kind, answer)
        assert driver.core.counters()[f"{attribute}_unasked"] == 3, "too late"
        assert ask(driver.now)
        driver.collect()


def test_requests_and_states_without_reachables_are_no_answers() -> None:
    driver = edge(A)
    driver.core.ask_leases(driver.now)
    driver.core.ask_full_state(driver.now)
    driver.collect()
    driver.say(T.LEASES_INFOS, LeasesInfos(True, "acme", {}))
    driver.say(T.P2P_FULL_STATE, P2PFullState("acme", True, P2PCommunityDatas({}, {})))
    driver.say(T.P2P_FULL_STATE, P2PFullState("acme", False, P2PCommunityDatas(None, {})))
    assert driver.core.leases is None
    assert driver.core.full_state is None
    assert driver.core.awaiting(T.LEASES_INFOS, driver.now)
    driver.say(T.LEASES_INFOS, LeasesInfos(False, "acme", {}))
    assert driver.core.leases is not None


def test_nothing_is_asked_while_not_registered() -> None:
    driver = Driver()
    driver.core.start(driver.now)
    assert not driver.core.ask_leases(driver.now)
    assert not driver.core.ask_full_state(driver.now)
    assert not driver.core.ask_peers(driver.now)
