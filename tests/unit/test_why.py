"""`n2n why`: one verdict and one remedy for every combination of facts that there is."""

from __future__ import annotations

from typing import Any

import pytest

from n2n.netcheck.echo import Echo, _checksum
from n2n.netcheck.why import explain, find

STATUS = {
    "public": "44.128.0.1:5000", "nat": "easy", "port_mapping": {"state": "none"}, "mac": "02:00:00:00:00:01",
    "state": "registered",
}  # fmt: skip
USED = {"kind": "local", "endpoint": "10.1.0.3:5", "answers": True, "straight": True, "rtt": 0.001, "in_use": True}
PEER = {
    "name": "far", "mac": "02:00:00:00:00:02", "virtual_ip": "10.1.2.4", "endpoint": "44.128.0.2:6000", "kind": "n2n",
    "path": "relay", "status": "unavailable", "one_way": False, "full_duplex": False, "reason": "no_answer",
    "their_path": "relay", "nat": "easy", "candidates": [USED | {"in_use": False, "answers": False}],
}  # fmt: skip
DIRECT = {"path": "direct", "candidates": [USED], "their_path": "direct", "full_duplex": True, "reason": "answered"}


@pytest.mark.parametrize(
    ("code", "status", "peer", "theirs"),
    [
        ("direct", {}, DIRECT, None),
        ("direct", {}, DIRECT | {"their_path": None}, None),
        ("direct", {}, DIRECT | {"their_path": None, "full_duplex": False}, {"status": "available"}),
        ("one_way_out", {}, DIRECT | {"their_path": "relay"}, None),
        ("one_way_out", {}, DIRECT | {"their_path": None, "full_duplex": False, "one_way": True}, None),
        ("one_way_in", {}, {"their_path": "direct"}, None),
        ("one_way_in", {}, {"kind": "v5", "their_path": None}, {"status": "full_duplex"}),
        ("idle", {}, {"reason": "idle", "status": "unknown"}, None),
        ("searching", {}, {"reason": "probing", "status": "pending"}, None),
        ("silent_peer", {}, {"kind": "unknown", "their_path": None}, {"status": "unavailable"}),
        ("v5", {}, {"kind": "v5", "their_path": None}, None),
        ("one_lan", {}, {"endpoint": "44.128.0.1:7000"}, None),
        ("both_hard", {"nat": "hard"}, {"nat": "hard"}, None),
        ("hard_and_restricted", {"nat": "hard"}, {}, None),
        ("hard_and_restricted", {}, {"nat": "hard"}, None),
        ("blocked", {}, {}, None),
        ("blocked", {"public": None, "nat": "unknown"}, {"nat": "unknown", "candidates": []}, None),
    ],
)
def test_there_is_one_verdict(code: str, status: dict[str, Any], peer: dict[str, Any], theirs: Any) -> None:
    verdict = explain(STATUS | status, PEER | peer, theirs)
    assert verdict.code == code
    assert "far" in verdict.text or code in ("direct", "hard_and_restricted")
    assert bool(verdict.remedy) is (code != "direct")


def test_a_peer_is_found_by_what_people_know_of_it() -> None:
    peers: list[dict[str, Any]] = [
        {"mac": "02:00:00:00:00:02", "virtual_ip": "10.1.2.4", "name": "far"},
        {"mac": "02:00:00:00:00:03", "virtual_ip": None, "name": "far"},
        {"mac": "02:00:00:00:00:04", "virtual_ip": "10.1.2.5", "name": "10.1.2.4"},
    ]
    assert find(peers, "02:00:00:00:00:03") == [peers[1]]
    assert find(peers, " 10.1.2.4 ") == [peers[0]], "an address before a name that looks like one"
    assert find(peers, "FAR") == peers[:2]
    assert find(peers, "nobody") == []


def test_a_checksum_makes_the_whole_come_to_nothing() -> None:
    data = bytes(range(24))
    total = _checksum(data)
    assert _checksum(data + total.to_bytes(2)) == 0


def test_this_host_answers_an_echo_and_nobody_does_not() -> None:
    try:
        echo = Echo()
    except PermissionError:
        pytest.skip("this user may send no ICMP echo requests")
    with echo:
        assert (echo.ask("127.0.0.1", 20.0) or 99) < 20
        assert echo.ask("255.255.255.255", 0.1) is None
