"""How an edge comes to be registered, and stays so: retries, refusals, restarts, and what it does not believe."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Network

import pytest

from n2n.errors import ConfigError, MalformedDatagram
from n2n.proto.actions import Configure, Resolve, SetSupernode
from n2n.proto.edge import EdgeCore, EdgeSettings, EdgeState
from n2n.proto.registration import TRANSITIONS, Trigger, check_address
from n2n.types import Endpoint
from n2n.wire import PacketType as T
from n2n.wire import RegisterResponse
from tests.unit.edge_driver import KEY, MACHINE_ID, SUPERNODE, Driver, fake_encrypt, peer_info

ELSEWHERE = Endpoint.parse("198.51.100.2:7777")


def started(**changes: object) -> Driver:
    driver = Driver(**changes)
    driver.core.start(driver.now)
    driver.core.set_supernode(SUPERNODE, driver.now)
    driver.collect()
    return driver


def registered(**changes: object) -> Driver:
    driver = Driver(**changes)
    driver.register()
    return driver


# -- the start


def test_it_resolves_then_asks_for_the_key_then_registers() -> None:
    driver = Driver()
    driver.core.start(driver.now)
    assert driver.collect() == [Resolve()]
    assert driver.core.state is EdgeState.RESOLVING
    driver.core.set_supernode(SUPERNODE, driver.now)
    assert driver.collect()[0] == SetSupernode(SUPERNODE)
    assert [s.type for s in driver.take()] == [T.SN_PUBLIC_SECRET]
    (register,) = driver.say_key()
    assert register.type is T.REGISTER_REQUEST
    assert register.message.edge_mac_addr == str(driver.core.mac)
    assert register.message.encrypted_machine_id == KEY + b"|" + MACHINE_ID
    (asked,) = driver.say_accepted("10.1.2.3", 24)
    assert asked.type is T.PEER_LIST_REQUEST
    assert driver.did(Configure) == [Configure(IPv4Address("10.1.2.3"), 24)]
    assert driver.core.address == (IPv4Address("10.1.2.3"), 24)
    assert driver.core.state is EdgeState.REGISTERED


def test_a_supernode_known_before_the_start_is_used() -> None:
    driver = Driver()
    driver.core.set_supernode(SUPERNODE, driver.now)
    driver.core.start(driver.now)
    driver.collect()
    assert not driver.did(Resolve)
    assert [s.type for s in driver.sent] == [T.SN_PUBLIC_SECRET]
    driver.core.start(driver.now)
    assert driver.collect() == []


def test_resolving_is_asked_again() -> None:
    driver = Driver()
    driver.core.start(driver.now)
    driver.run_until(3.5)
    assert len(driver.did(Resolve)) == 1
    driver.run_until(3.7)
    assert len(driver.did(Resolve)) == 2
    driver.run_until(200.0)
    assert 53 <= len(driver.did(Resolve)) <= 57


# -- lost datagrams


def test_key_requests_are_repeated_for_ever() -> None:
    driver = started()
    driver.run_until(3600.0)
    times = [s.at for s in driver.of_type(T.SN_PUBLIC_SECRET)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == pytest.approx([3.6] * len(gaps)), "so that the end of an outage is found within 5 s"
    assert driver.core.registration(driver.now).attempts == len(times)
    asked = [action.again for action in driver.actions if isinstance(action, Resolve)]
    assert len(asked) == len(times), "its name may stand for another address by now"
    assert asked[:7] == [False, *[True, True, False] * 2], "and every third time it is the next supernode's turn"
    assert not driver.of_type(T.REGISTER_REQUEST)


def test_jitter_spreads_all_but_the_first_delay() -> None:
    for jitter, second in ((0.0, 3.6 * 0.75), (0.999, 3.6 * 1.2495)):
        driver = Driver()
        settings = driver.core.settings
        driver.core = EdgeCore(
            settings,
            encrypt=fake_encrypt,
            sequence=itertools.count(1).__next__,
            token=lambda: "t",
            jitter=lambda value=jitter: value,
        )
        driver.core.start(driver.now)
        driver.core.set_supernode(SUPERNODE, driver.now)
        driver.collect()
        driver.run_until(20.0)
        times = [s.at for s in driver.of_type(T.SN_PUBLIC_SECRET)]
        assert times[1] == 3.6
        assert times[2] - times[1] == pytest.approx(second)


def test_registrations_are_repeated_and_then_the_key_is_asked_again() -> None:
    driver = started()
    driver.say_key()
    driver.run_until(12.0)
    registers = [s.at for s in driver.of_type(T.REGISTER_REQUEST)]
    assert registers == pytest.approx([0.0, 3.6, 7.2])
    assert [s.at for s in driver.of_type(T.SN_PUBLIC_SECRET)] == pytest.approx([0.0, 10.8])
    assert driver.core.state is EdgeState.KEY
    driver.say_key(b"another key")
    assert driver.sent[-1].message.encrypted_machine_id.startswith(b"another key|")
    driver.say_accepted()
    assert driver.core.state is EdgeState.REGISTERED


def test_the_list_is_asked_again_until_it_comes() -> None:
    driver = started()
    driver.say_key()
    driver.say_accepted()
    driver.run_until(8.0)
    assert [s.at for s in driver.of_type(T.PEER_LIST_REQUEST)] == pytest.approx([0.0, 3.0, 6.75])
    driver.say_peers(peer_info(1))
    assert len(driver.core.peers()) == 1
    driver.run_until(29.0)
    assert len(driver.of_type(T.PEER_LIST_REQUEST)) == 3


def test_the_list_is_refreshed_now_and_then() -> None:
    driver = registered(liveness_beats=1000)
    driver.run_until(301.0)
    assert [s.at for s in driver.of_type(T.PEER_LIST_REQUEST)] == pytest.approx([300.0])


# -- refusals


def test_a_refusal_is_told_and_tried_again_slowly() -> None:
    driver = started()
    driver.say_key()
    assert driver.say(T.REGISTER_RESPONSE, RegisterResponse(False)) == []
    assert driver.core.state is EdgeState.REFUSED
    assert [n.level for n in driver.notes("register_refused")] == ["error"]
    driver.take()
    driver.run_until(9.9)
    assert not driver.take()
    driver.run_until(10.1)
    assert [s.type for s in driver.take()] == [T.SN_PUBLIC_SECRET]
    driver.say_key()
    driver.say(T.REGISTER_RESPONSE, RegisterResponse(False))
    driver.take()
    driver.run_until(29.0)
    assert not driver.take()
    driver.run_until(31.0)
    assert [s.type for s in driver.take()] == [T.SN_PUBLIC_SECRET]


def test_after_a_success_refusals_are_counted_anew() -> None:
    driver = started()
    for _ in range(4):
        driver.say_key()
        driver.say(T.REGISTER_RESPONSE, RegisterResponse(False))
        driver.run_until(driver.core.next_timer() or 0.0)
    driver.say_key()
    driver.say_accepted()
    driver.run_for(60.0)
    driver.say(T.RETRY_REGISTER, community=0)
    driver.say_key()
    driver.say(T.REGISTER_RESPONSE, RegisterResponse(False))
    assert driver.core.registration(driver.now).retry_in == pytest.approx(10.0)


def test_an_endless_refusal_costs_little() -> None:
    driver = started()
    while driver.time < 36_000.0:
        driver.say_key()
        driver.say(T.REGISTER_RESPONSE, RegisterResponse(False))
        due = driver.core.next_timer()
        assert due is not None
        driver.run_until(due)
    assert 100 <= len(driver.of_type(T.REGISTER_REQUEST)) <= 130


@pytest.mark.parametrize(
    ("ip", "prefix"),
    [
        ("1.2.3.4", 0), ("1.2.3.4", 24), ("10.1.2.0", 24), ("10.1.2.255", 24), ("10.1.2.3", 31), ("10.1.2.3", 32),
        ("10.1.2.3", 7), ("10.1.2.3", -1), ("10.1.2.3", 1 << 40), ("", 24), ("10.1.2", 24), ("10.1.2.3/24", 24),
        ("fd00::1", 64), ("127.0.0.1", 8), ("169.254.1.1", 16), ("224.0.0.1", 24), ("192.168.0.9", 8),
        ("172.32.0.1", 24), ("010.1.2.3", 24), ("100.128.0.1", 16), ("10.1.2.3\0", 24), ("\udcff", 24),
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense_is_never_configured(ip: str, prefix: int) -> None:
    driver = started()
    driver.say_key()
    try:
        driver.say_accepted(ip, prefix)
    except Exception as error:  # the encoder may refuse what no peer of ours would send
        pytest.skip(f"cannot be said: {error}")
    assert driver.core.state is EdgeState.REFUSED
    assert driver.core.address is None
    assert not driver.did(Configure)
    assert driver.core.counters()["response_bad"] == 1
    assert driver.notes("address_refused")
    assert driver.core.registration(driver.now).reason == "bad_address"


@pytest.mark.parametrize(
    ("ip", "prefix"),
    [("10.0.0.1", 8), ("172.16.0.1", 12), ("192.168.1.2", 30), ("100.64.9.9", 10), ("10.187.106.1", 24)],
)
def test_private_addresses_are_taken(ip: str, prefix: int) -> None:
    assert check_address(RegisterResponse(True, ip, prefix)) == (IPv4Address(ip), prefix)


def test_a_configured_range_is_taken() -> None:
    response = RegisterResponse(True, "203.0.113.5", 25)
    with pytest.raises(MalformedDatagram, match="neither private nor"):
        check_address(response)
    assert check_address(response, [IPv4Network("203.0.113.0/24")]) == (IPv4Address("203.0.113.5"), 25)
    with pytest.raises(MalformedDatagram):
        check_address(response, [IPv4Network("203.0.113.0/26")])


# -- RetryRegisterRequest


def test_told_to_register_it_does_so_once_and_keeps_quiet_meanwhile() -> None:
    driver = registered(heartbeat=2.0)
    driver.run_until(10.0)
    driver.take()
    assert [s.type for s in driver.say(T.RETRY_REGISTER, community=0)] == [T.SN_PUBLIC_SECRET]
    for _ in range(50):
        assert driver.say(T.RETRY_REGISTER, community=0) == []
    assert driver.core.counters()["told_waiting"] == 50
    driver.take()
    driver.run_until(13.5)
    assert not driver.take(), "no heartbeats and no state while waiting"
    driver.run_until(13.7)
    assert [s.type for s in driver.take()] == [T.SN_PUBLIC_SECRET], "a lost answer does not end it"
    driver.say_key()
    driver.say_accepted("10.1.2.77", 24)
    assert driver.core.address == (IPv4Address("10.1.2.77"), 24)
    assert [c.ip for c in driver.did(Configure)] == [IPv4Address("10.1.2.3"), IPv4Address("10.1.2.77")]
    assert driver.notes("address_changed")
    driver.take()
    driver.run_until(16.1)
    assert T.HEARTBEAT in {s.type for s in driver.take()}


def test_the_same_address_is_not_configured_again() -> None:
    driver = registered()
    driver.run_until(10.0)
    driver.say(T.RETRY_REGISTER, community=0)
    driver.say_key()
    driver.say_accepted()
    assert driver.core.state is EdgeState.REGISTERED
    assert len(driver.did(Configure)) == 1


def test_being_told_right_after_registering_is_checked_by_a_heartbeat_first() -> None:
    driver = registered()
    for _ in range(20):
        assert driver.say(T.RETRY_REGISTER, community=0) == []
    assert driver.core.counters()["told_early"] == 20
    driver.run_until(4.9)
    assert not driver.of_type(T.HEARTBEAT)
    driver.run_until(5.1)
    assert len(driver.of_type(T.HEARTBEAT)) == 1
    driver.say(T.RETRY_REGISTER, community=0)
    assert driver.core.state is EdgeState.KEY


def test_a_supernode_that_always_says_register_is_obeyed_at_a_bounded_rate() -> None:
    driver = registered()
    driver.run_until(5.0)
    driver.take()
    for tenth in range(10, 6010):
        driver.run_until(5.0 + tenth / 10)
        for sent in driver.take():
            if sent.type is T.SN_PUBLIC_SECRET:
                driver.say_key()
            elif sent.type is T.REGISTER_REQUEST:
                driver.say_accepted()
        driver.say(T.RETRY_REGISTER, community=0)
    assert driver.core.counters()["sent_register"] <= 601 / 5 + 2


# -- what is not believed


@pytest.mark.parametrize("state", ["resolving", "key", "registering", "registered", "refused"])
def test_answers_from_elsewhere_or_without_the_flag_change_nothing(state: str) -> None:
    driver = Driver()
    driver.core.start(driver.now)
    if state != "resolving":
        driver.core.set_supernode(SUPERNODE, driver.now)
    if state in ("registering", "registered", "refused"):
        driver.say_key()
    if state == "registered":
        driver.say_accepted()
    if state == "refused":
        driver.say(T.REGISTER_RESPONSE, RegisterResponse(False))
    driver.run_until(1.0)
    assert driver.core.state.value == state
    driver.take()
    actions = len(driver.actions)
    for header in ({"from_": ELSEWHERE}, {"flags": 0}, {"flags": 1}):
        supernode = {"flags": 2} | header
        driver.say(T.RETRY_REGISTER, community=0, **supernode)
        driver.say(T.REGISTER_RESPONSE, RegisterResponse(True, "10.9.9.9", 24), **supernode)
        driver.say(T.REGISTER_RESPONSE, RegisterResponse(False), **supernode)
        driver.say(T.PEER_INFO, **supernode)
    assert driver.core.state.value == state
    assert len(driver.actions) == actions
    counters = driver.core.counters()
    assert counters["stranger"] + counters["not_flagged"] == 12


def test_answers_nobody_asked_for_change_nothing() -> None:
    driver = registered()
    actions = len(driver.actions)
    driver.say_key(b"another key")
    driver.say_accepted("10.9.9.9")
    driver.say(T.REGISTER_RESPONSE, RegisterResponse(False))
    driver.say_peers(peer_info(1))
    assert len(driver.actions) == actions
    assert driver.core.address == (IPv4Address("10.1.2.3"), 24)
    counters = driver.core.counters()
    assert counters["key_unasked"] == 1
    assert counters["response_unasked"] == 2
    assert counters["list_unasked"] == 1


def test_messages_of_another_community_are_not_taken() -> None:
    driver = started()
    driver.say_key()
    driver.say(T.REGISTER_RESPONSE, RegisterResponse(True, "10.9.9.9", 24), community=1)
    assert driver.core.state is EdgeState.REGISTERING
    assert driver.core.counters()["other_community"] == 1


@pytest.mark.parametrize("key", [b"", b"junk", b"key" * 2000])
def test_a_key_that_is_none_is_not_taken(key: bytes) -> None:
    driver = started()
    assert driver.say_key(key) == []
    assert driver.core.state is EdgeState.KEY
    assert driver.core.counters()["key_bad"] == 1


def test_a_key_request_is_no_key() -> None:
    from n2n.wire import SNPublicSecret

    driver = started()
    driver.say(T.SN_PUBLIC_SECRET, SNPublicSecret(True, KEY), community=0)
    assert driver.core.state is EdgeState.KEY


def test_another_key_is_taken_with_a_warning() -> None:
    driver = started(known_key=b"the old key")
    driver.say_key()
    assert driver.core.state is EdgeState.REGISTERING
    assert [n.level for n in driver.notes("supernode_key_changed")] == ["warning"]
    assert driver.core.trust.key == KEY


def test_another_key_is_refused_where_keys_are_pinned() -> None:
    driver = started(known_key=b"the old key", accept_new_key=False)
    assert driver.say_key() == []
    assert driver.core.state is EdgeState.REFUSED
    assert driver.core.registration(driver.now).reason == "supernode_key_changed"
    assert driver.core.trust.key == b"the old key"
    assert driver.notes("supernode_key_refused")
    driver.run_until(11.0)
    driver.say_key(b"the old key")
    assert driver.core.state is EdgeState.REGISTERING


# -- liveness


def test_a_silent_supernode_is_asked_for_the_list_and_then_given_up() -> None:
    driver = registered(heartbeat=10.0)
    driver.run_until(29.9)
    assert not driver.of_type(T.PEER_LIST_REQUEST)
    driver.run_until(47.2)
    assert [s.at for s in driver.of_type(T.PEER_LIST_REQUEST)] == pytest.approx([30.0, 33.0, 36.75, 41.4375])
    assert driver.core.state is EdgeState.REGISTERED
    driver.run_until(47.3)
    assert driver.core.state is EdgeState.KEY
    assert driver.core.registration(driver.now).reason == "silent"
    assert driver.did(Resolve)
    assert driver.notes("supernode_silent")
    assert driver.sent[-1].type is T.SN_PUBLIC_SECRET


def test_an_answered_list_keeps_the_supernode_alive() -> None:
    driver = registered(heartbeat=10.0)
    for _ in range(100):
        driver.run_for(10.0)
        if any(s.type is T.PEER_LIST_REQUEST for s in driver.take()):
            driver.say_peers(origin=driver.own_info())
    assert driver.core.state is EdgeState.REGISTERED
    assert driver.core.counters()["sent_heartbeat"] == 100
    assert driver.core.counters()["sent_list_request"] <= 1 + 34


def test_a_supernode_that_says_anything_is_not_given_up() -> None:
    driver = registered(heartbeat=10.0)
    for _ in range(100):
        driver.run_for(10.0)
        driver.say_peers(peer_info(1), event=2)
    assert driver.core.state is EdgeState.REGISTERED


def test_another_address_of_the_supernode_starts_the_registration_there() -> None:
    driver = registered()
    driver.core.set_supernode(ELSEWHERE, driver.now)
    driver.collect()
    assert SetSupernode(ELSEWHERE) in driver.actions
    assert driver.core.state is EdgeState.KEY
    assert driver.sent[-1].endpoint == ELSEWHERE
    assert driver.say_key() == []
    driver.supernode = ELSEWHERE
    driver.say_key()
    driver.say_accepted()
    assert driver.core.state is EdgeState.REGISTERED


def test_the_same_address_of_the_supernode_changes_nothing() -> None:
    driver = registered()
    driver.core.set_supernode(SUPERNODE, driver.now)
    assert driver.collect() == []


def test_a_changed_reflexive_endpoint_makes_it_register_again() -> None:
    driver = registered()
    assert driver.core.reflexive == Endpoint.parse("203.0.113.9:40000")
    driver.core.ask_peers(driver.now)
    driver.collect()
    moved = Endpoint.parse("203.0.113.9:40001")
    assert driver.say_peers(origin=driver.own_info(moved))[-1].type is T.SN_PUBLIC_SECRET
    assert driver.core.reflexive == moved
    assert driver.notes("moved")


def test_a_changed_network_makes_it_register_again() -> None:
    driver = registered(heartbeat=10.0)
    driver.core.network_changed(driver.now)
    driver.collect()
    assert [s.type for s in driver.take()] == [T.SN_PUBLIC_SECRET]
    driver.core.network_changed(driver.now)
    driver.collect()
    assert not driver.take()


# -- the end


def test_close_says_goodbye_once() -> None:
    driver = registered()
    driver.core.close(driver.now)
    driver.core.close(driver.now)
    driver.collect()
    assert [s.type for s in driver.take()] == [T.UNREGISTER_REQUEST]
    assert driver.core.next_timer() is None
    assert driver.say(T.RETRY_REGISTER, community=0) == []
    driver.core.set_supernode(ELSEWHERE, driver.now)
    driver.core.start(driver.now)
    driver.core.network_changed(driver.now)
    assert driver.collect() == []
    assert driver.core.counters()["inactive"] == 1
    assert driver.core.state is EdgeState.CLOSED


@pytest.mark.parametrize("stage", ["new", "resolving", "key", "registering"])
def test_close_before_it_was_registered_says_nothing(stage: str) -> None:
    driver = Driver()
    if stage != "new":
        driver.core.start(driver.now)
    if stage in ("key", "registering"):
        driver.core.set_supernode(SUPERNODE, driver.now)
        driver.collect()
    if stage == "registering":
        driver.say_key()
    driver.take()
    driver.core.close(driver.now)
    driver.collect()
    assert driver.take() == []
    assert driver.core.next_timer() is None


# -- the table and the settings


def test_every_state_can_be_closed_and_every_waiting_state_times_out() -> None:
    waiting = {EdgeState.RESOLVING, EdgeState.KEY, EdgeState.REGISTERING, EdgeState.REFUSED}
    for state in EdgeState:
        assert ((state, Trigger.CLOSE) in TRANSITIONS) == (state is not EdgeState.CLOSED)
        for trigger in (Trigger.TIMEOUT, Trigger.EXHAUSTED):
            assert ((state, trigger) in TRANSITIONS) == (state in waiting), (state, trigger)
    assert not any(state is EdgeState.CLOSED for state, _ in TRANSITIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"machine_id": b"short"},
        {"name": ""},
        {"name": "x" * 65},
        {"community": ""},
        {"heartbeat": 0.0},
        {"ping_interval": -1},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"name": "a", "community": "acme", "machine_id": MACHINE_ID}
    with pytest.raises(ConfigError):
        EdgeSettings(**{**fields, **change})  # type: ignore[arg-type]


def test_the_machine_id_is_not_shown() -> None:
    assert MACHINE_ID.hex() not in repr(EdgeSettings("a", "acme", MACHINE_ID))
    assert repr(MACHINE_ID) not in repr(EdgeSettings("a", "acme", MACHINE_ID))
