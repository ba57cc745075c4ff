"""Graph, layout and drawings: who reaches whom, where everybody stands, and that no name becomes markup."""

from __future__ import annotations

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from n2n.proto.peers import PeerView
from n2n.web import drawing
from n2n.web.graph import MAX_LINKS, MAX_NODES, Graph, build_graph, how_old
from n2n.web.layout import FEW, arrange
from n2n.web.text import words_for
from tests.unit.web_fakes import address_of, community, mac_of

HOSTILE = '"><script>alert(1)</script>&\\N{}|<b x=\'1\'>\x00\x1b[31m\u202e\ud800"];evil[label="x'
SVG = "{http://www.w3.org/2000/svg}"


def graph_of(answers: dict[str, Any]) -> Graph:
    return build_graph(answers["status"], answers["peers"], answers["state"])


def pair(peer: dict[str, Any], seen: list[dict[str, Any]] | None = None) -> Graph:
    """Ourselves and one peer, who has told (or not) how it sees us."""
    base = {"mac": mac_of(1), "name": "b", "virtual_ip": "10.0.0.2", "path": "relay", "full_duplex": False}
    status = {"mac": mac_of(0), "name": "a", "address": "10.0.0.1/24", "community": "acme"}
    state = {"at": 5.0, "reachable": [{"mac": mac_of(1), "peers": seen}], "offline": []} if seen is not None else None
    return build_graph(status, {"at": 7.0, "peers": [base | peer]}, state)


def sees(number: int, status: str) -> dict[str, Any]:
    return {"mac": mac_of(number), "name": "", "status": status, "full_duplex": False}


@pytest.mark.parametrize(
    ("peer", "seen", "kind", "toward"),
    [
        ({"path": "direct", "full_duplex": True}, None, "direct", ""),
        ({"path": "direct", "full_duplex": False, "one_way": True}, None, "one_way", mac_of(1)),
        ({"path": "relay"}, None, "relay", ""),
        ({"path": "relay"}, [sees(0, "available")], "one_way", mac_of(0)),
        ({"path": "relay"}, [sees(0, "unavailable")], "relay", ""),
        ({"path": "direct", "full_duplex": True}, [sees(0, "unavailable")], "direct", ""),
        ({"path": "relay", "their_path": "direct"}, None, "one_way", mac_of(0)),
        ({"path": "relay", "their_path": "relay"}, [sees(0, "available")], "relay", ""),
        ({"path": "direct", "full_duplex": False, "their_path": "direct"}, None, "direct", ""),
    ],
)
def test_own_paths_are_known_at_first_hand(
    peer: dict[str, Any], seen: list[dict[str, Any]] | None, kind: str, toward: str
) -> None:
    (link,) = pair(peer, seen).links
    assert (link.kind, link.toward, link.own) == (kind, toward, True)


@pytest.mark.parametrize(
    ("forth", "back", "kind", "toward"),
    [
        ("available", "full_duplex", "direct", ""),
        ("available", "pending", "one_way", mac_of(2)),
        ("unknown", "available", "one_way", mac_of(1)),
        ("unavailable", "unavailable", "relay", ""),
        ("available", None, "direct", ""),
        (None, "unavailable", "relay", ""),
    ],
)
def test_paths_between_others_are_what_they_told(forth: str | None, back: str | None, kind: str, toward: str) -> None:
    answers = community(3)
    for number, other, status in ((1, 2, forth), (2, 1, back)):
        answers["state"]["reachable"][number]["peers"] = [] if status is None else [sees(other, status)]
    (link,) = [link for link in graph_of(answers).links if not link.own]
    assert (link.kind, link.toward) == (kind, toward)


def test_nothing_is_drawn_between_those_who_told_nothing() -> None:
    answers = community(3)
    answers["state"]["reachable"] = []
    assert all(link.own for link in graph_of(answers).links)


def test_who_has_left_is_offline_and_keeps_its_place() -> None:
    before = community(9)
    after = community(9)
    gone = after["peers"]["peers"].pop(4)
    left = graph_of(after)
    assert [node.mac for node in left.offline] == [gone["mac"]]
    assert {link for link in left.links if gone["mac"] in (link.a, link.b)} == set()
    assert arrange(left).places == arrange(graph_of(before)).places
    # Also once the supernode says so itself.
    after["state"]["reachable"] = [entry for entry in after["state"]["reachable"] if entry["mac"] != gone["mac"]]
    after["state"]["offline"] = [{"mac": gone["mac"], "name": "x", "virtual_ip": gone["virtual_ip"], "last_seen": 4.0}]
    assert arrange(graph_of(after)).places == arrange(left).places
    assert graph_of(after).offline[0].seen == 4.0


@pytest.mark.parametrize("members", [1, 2, 3, FEW, FEW + 1, 60, 200])
def test_places_are_apart_inside_and_the_same_every_time(members: int) -> None:
    graph = graph_of(community(members, offline=members // 8))
    layout = arrange(graph)
    assert layout == arrange(graph)
    assert set(layout.places) == {node.mac for node in graph.nodes}
    for place in layout.places.values():
        for at in (place.at, place.label):
            assert 0 <= at.x <= layout.width
            assert 0 <= at.y <= layout.height
    for one, other in itertools.combinations(layout.places.values(), 2):
        assert math.dist(one.at, other.at) >= one.radius + other.radius
    assert layout.dense == (members > FEW)


def test_a_path_that_changes_moves_nobody() -> None:
    relayed, direct = pair({"path": "relay"}), pair({"path": "direct", "full_duplex": True})
    assert arrange(relayed).places == arrange(direct).places
    ways = [drawing.snapshot(graph)["links"][0]["d"] for graph in (relayed, direct)]
    assert ways[0] != ways[1]
    assert [re.sub(r"[-0-9. ]+", "", way) for way in ways] == ["MQ", "MQ"], "so that the page can move one to the other"


def test_page_and_svg_agree() -> None:
    graph = graph_of(community(12, offline=2))
    told = drawing.snapshot(graph)
    root = ET.fromstring(drawing.svg(graph))
    marks = root.findall(f"{SVG}circle")
    assert [(float(m.get("cx", "")), float(m.get("cy", ""))) for m in marks] == [
        tuple(m["at"]) for m in told["members"]
    ]
    ways = {path.get("d") for path in root.findall(f"{SVG}path") if "link" in (path.get("class") or "")}
    assert ways == {link["d"] for link in told["links"]}


def hostile(members: int) -> dict[str, Any]:
    answers = community(members, offline=1)
    for entries in (answers["peers"]["peers"], answers["state"]["reachable"], answers["state"]["offline"]):
        for entry in entries:
            entry |= {"name": HOSTILE, "endpoint": HOSTILE, "reason": HOSTILE}
    answers["status"] |= {"name": HOSTILE, "community": HOSTILE}
    return answers


@pytest.mark.parametrize("members", [4, 20])
def test_names_are_only_text(members: int) -> None:
    graph = graph_of(hostile(members))
    root = ET.fromstring(drawing.svg(graph, note=HOSTILE).encode())  # well-formed, though the name has bytes it may not
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "style", "path", "rect", "text", "circle"}
    page = drawing.html(graph, note=HOSTILE)
    page.encode()
    assert "<script" not in page
    assert "<b " not in page
    json.dumps(drawing.snapshot(graph)).encode("ascii")
    for text in (drawing.dot(graph), drawing.offlines_dot(graph)):
        text.encode()
        quoted = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", text)
        assert "evil" not in quoted
        assert '"' not in quoted


def test_dot_has_every_member_and_link_with_its_look() -> None:
    answers = community(3)
    answers["peers"]["peers"][0] |= {"path": "relay", "full_duplex": False, "one_way": False}
    answers["peers"]["peers"][1] |= {"path": "direct", "full_duplex": False, "one_way": True}
    answers["state"] = None
    text = drawing.dot(graph_of(answers))
    assert f'"{mac_of(0)}" -- "{mac_of(1)}" [color="#8f98a8", tooltip="relayed", style=dashed];' in text
    assert f'"{mac_of(0)}" -- "{mac_of(2)}" [color="#d97a1c", tooltip="one way", dir=forward];' in text
    assert f'label="nas ({address_of(1)})"' in text
    assert text.count("{") == text.count("}") == 1


def test_of_many_the_links_between_others_are_told_of_one_only() -> None:
    graph = graph_of(community(40))
    links = drawing.snapshot(graph, focus=mac_of(7))["links"]
    others = [link for link in links if not link["own"]]
    assert len(others) == 38
    assert all(mac_of(7) in (link["a"], link["b"]) for link in others)
    assert all(link["own"] for link in drawing.snapshot(graph, focus="")["links"])
    assert len(drawing.snapshot(graph)["links"]) == 40 * 39 // 2


def test_what_is_shown_is_bounded_and_what_is_not_is_counted() -> None:
    graph = graph_of(community(MAX_NODES + 20, others=6))
    assert len(graph.nodes) == MAX_NODES
    assert len(graph.links) == MAX_LINKS
    assert all(link.own for link in graph.links[: MAX_NODES - 1])
    assert graph.left_out > 20


def test_answers_that_make_no_sense_do_no_harm() -> None:
    status = {"mac": 7, "address": None, "community": ["x"]}
    peers = {"peers": [None, {}, {"mac": "m", "name": 5, "rtt": "x", "since": None}], "at": "now"}
    state = {"reachable": {"no": "list"}, "offline": [{"mac": None}, 3]}
    graph = build_graph(status, peers, state)
    for text in (drawing.svg(graph), drawing.dot(graph), drawing.html(graph), json.dumps(drawing.snapshot(graph))):
        assert text
    empty = build_graph({}, {}, None)
    assert empty.nodes == ()
    assert drawing.svg(empty).startswith("<svg")


def test_every_reason_has_words() -> None:
    """Those that n2n.proto gives, as PeerView tells; one that is new is shown as it is."""
    told = re.findall(r"`(\w+)`", (PeerView.__doc__ or "").partition("reason:")[2].partition("since:")[0])
    reasons = set(told) - {"path"}
    assert {"answered", "silent", "better", "idle"} <= reasons
    assert [reason for reason in sorted(reasons) if words_for(reason) == reason.replace("_", " ")] == []


def test_it_says_how_old_it_is() -> None:
    assert how_old(pair({}, [])) == "1970-01-01 00:00:07 UTC, the others as told 2 s ago"
    assert how_old(pair({})) == "1970-01-01 00:00:07 UTC, others unknown"
