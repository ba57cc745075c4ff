"""An edge asks its supernode whether it is there and where it sees it; what comes back must be what was asked for."""

from __future__ import annotations

import dataclasses

import pytest

from n2n.proto.actions import Resolve
from n2n.types import SUPERNODE_MAC, Endpoint
from n2n.wire import PacketType, PeerToPing, ProtoV, RegisterResponse, SNPublicSecret, Welcome, Where, build
from tests.unit.edge_driver import OWN_ENDPOINT, SUPERNODE, Driver, Sent, peer_info

PROBE = Endpoint(SUPERNODE.ip, 7778)
ELSEWHERE = Endpoint.parse("198.51.100.77:1234")


def edge(welcome: bytes = Welcome(7778).pack(), **changes: object) -> Driver:
    driver = Driver(**{"liveness_beats": 10_000, "list_refresh": 10_000.0, "heartbeat": 1000.0, **changes})
    driver.core.start(driver.now)
    driver.core.set_supernode(SUPERNODE, driver.now)
    driver.say_key()
    driver.take()
    driver.say(PacketType.REGISTER_RESPONSE, RegisterResponse(True, "10.1.2.3", 24, welcome))
    driver.say_peers(peer_info(1), origin=driver.own_info())
    return driver


def questions(driver: Driver, to: Endpoint = SUPERNODE) -> list[Sent]:
    return [s for s in driver.sent if s.endpoint == to and s.header.type in (8, 251) and s.message.n2n]


def answer(driver: Driver, *, to: Endpoint = SUPERNODE, seen: Endpoint = OWN_ENDPOINT, **more: object) -> None:
    """The supernode answers the last question."""
    asked = Where.unpack(questions(driver, to)[-1].message.n2n)
    told = dataclasses.replace(asked, answer=True, known=True, observed=seen)
    field = dataclasses.replace(told, **{k: v for k, v in more.items() if k != "source"}).pack()
    source = more.get("source", to)
    if to == SUPERNODE:
        driver.say(PacketType.SN_PUBLIC_SECRET, SNPublicSecret(n2n=field), community=0, from_=source)
    else:
        header = ProtoV(PacketType.PING, driver.core.community_id, SUPERNODE_MAC, driver.core.mac)
        driver.feed(build(header, PeerToPing("x", True, field)), source)


def nat(driver: Driver) -> list[object]:
    return [note.fields["mapping"] for note in driver.notes("nat")]


def test_a_v5_supernode_is_not_asked() -> None:
    driver = edge(welcome=b"")
    driver.run_until(100.0)
    assert not questions(driver)
    driver = edge(welcome=b"rubbish")
    driver.run_until(100.0)
    assert not questions(driver)
    assert driver.core.counters()["welcome_bad"] == 1


def test_a_supernode_that_answers_is_asked_seldom_and_often_while_frames_go_by_it() -> None:
    driver = edge()
    for second in range(1, 61):
        driver.run_until(float(second))
        if questions(driver)[-1].at > second - 1.0 or second == 1:
            answer(driver)
    assert 60 / 4 <= len(questions(driver)) <= 60 / 3 + 4
    driver.take()
    for second in range(61, 71):
        driver.core.traffic(driver.core.peers()[0].mac, driver.now)
        driver.run_until(float(second) - 0.5)
        answer(driver)
        driver.run_until(float(second))
    assert 9 <= len(questions(driver)) <= 11


def test_three_questions_without_an_answer_and_it_is_asked_for_by_name() -> None:
    driver = edge()
    driver.run_until(0.1)
    answer(driver)
    driver.run_until(30.0)
    assert driver.core.state.value == "key"
    assert driver.notes("supernode_silent")
    assert driver.did(Resolve)
    resolved, asked = len(driver.did(Resolve)), driver.core.counters()["sent_key_request"]
    for second in range(30, 50):
        driver.run_until(float(second))
        driver.core.traffic(driver.core.peers()[0].mac, driver.now)
        driver.collect()
    assert 9 <= len(driver.did(Resolve)) - resolved <= 14, "and more often while frames wait"
    assert 9 <= driver.core.counters()["sent_key_request"] - asked <= 12
    before = driver.core.counters()["sent_key_request"]
    driver.run_until(650.0)
    assert driver.core.counters()["sent_key_request"] - before <= 600 / 3.5, "but not for ever"


def test_one_that_does_not_know_us_is_told_by_a_heartbeat() -> None:
    driver = edge()
    driver.run_until(0.1)
    answer(driver, to=PROBE)
    answer(driver)
    driver.run_until(2.5)
    driver.take()
    driver.run_until(3.2)
    answer(driver, known=False)
    driver.run_for(0.1)
    assert len(driver.of_type(PacketType.HEARTBEAT)) == 1


@pytest.mark.parametrize(
    ("probe_sees", "expected"), [(OWN_ENDPOINT, "easy"), (Endpoint.parse("203.0.113.9:50000"), "hard")]
)
def test_two_ports_tell_what_the_nat_does(probe_sees: Endpoint, expected: str) -> None:
    driver = edge()
    driver.run_until(0.1)
    answer(driver)
    assert nat(driver) == []
    answer(driver, to=PROBE, seen=probe_sees)
    assert nat(driver) == [expected]


def test_another_port_of_an_easy_nat_does_not_make_it_a_hard_one() -> None:
    """What the second port saw was before: it is asked again."""
    driver = edge()
    driver.run_until(0.1)
    answer(driver)
    answer(driver, to=PROBE)
    driver.run_until(1.2)
    asked = len(questions(driver, PROBE))
    answer(driver, seen=ELSEWHERE)
    assert "hard" not in nat(driver)
    driver.run_until(2.3)
    assert len(questions(driver, PROBE)) == asked + 1
    answer(driver, seen=ELSEWHERE)
    answer(driver, to=PROBE, seen=ELSEWHERE)
    assert set(nat(driver)) == {"easy"}


def test_answers_that_were_not_asked_for_mean_nothing() -> None:
    driver = edge()
    driver.run_until(0.1)
    answer(driver, token=b"a guess!")
    answer(driver, answer=False)
    answer(driver, source=ELSEWHERE)
    answer(driver, to=PROBE, source=ELSEWHERE)
    answer(driver, to=PROBE, token=b"a guess!")
    assert nat(driver) == []
    answer(driver)
    answer(driver)
    answer(driver, to=PROBE)
    answer(driver, to=PROBE, seen=ELSEWHERE)
    assert nat(driver) == ["easy"], "each counts once"
    counters = driver.core.counters()
    assert counters["where_unasked"] >= 4
    assert counters["stranger"] == 1


def test_a_key_that_comes_while_it_is_watched_is_not_taken() -> None:
    driver = edge()
    driver.run_until(0.1)
    before = driver.core.supernode_key
    driver.say_key(b"another key")
    assert driver.core.supernode_key == before
    assert driver.core.state.value == "registered"
    assert driver.core.counters()["key_unasked"] == 1
