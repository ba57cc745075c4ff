"""The text that Prometheus reads: valid, complete, bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from n2n._fastpath.plane import COUNTERS as PLANE_COUNTERS
from n2n.proto import edge_settings, sn_state
from n2n.web.exposition import CONTENT_TYPE, MAX_PEERS, exposition
from n2n.web.pages import EdgePages, MetricsPage
from n2n.web.server import COUNTERS as WEB_COUNTERS
from n2n.web.server import Request
from tests.unit.web_fakes import community, mac_of, methods_of

EDGE_COUNTERS = {f"plane_{name}": number for number, name in enumerate(PLANE_COUNTERS)}
EDGE_COUNTERS |= {f"core_{name}": 3 for name in edge_settings.COUNTERS}
EDGE_COUNTERS |= {f"web_{name}": 4 for name in WEB_COUNTERS}
EDGE_COUNTERS |= {"daemon_core_faults": 0, "daemon_action_faults": 2}


def parsed(text: str) -> dict[str, Metric]:
    """By name; the parser refuses what is not valid."""
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "each family once"
    samples = [(s.name, tuple(sorted(s.labels.items()))) for family in families for s in family.samples]
    assert len(samples) == len(set(samples)), "each series once"
    return {family.name: family for family in families}


def values(family: Metric, label: str) -> dict[str, float]:
    return {sample.labels[label]: sample.value for sample in family.samples}


def edge(members: int, counters: dict[str, int] | None = None) -> tuple[str, dict[str, Any]]:
    answers = community(members)
    return exposition(answers["status"], EDGE_COUNTERS if counters is None else counters, answers["peers"]), answers


def test_every_counter_is_told_by_its_name() -> None:
    found = parsed(edge(4)[0])
    drops = values(found["n2n_dropped"], "reason")
    assert set(drops) == {name.removeprefix("drop_") for name in PLANE_COUNTERS if name.startswith("drop_")}
    assert drops["stranger"] == PLANE_COUNTERS.index("drop_stranger")
    told = sum(len(found[name].samples) for name in ("n2n_dropped", "n2n_plane", "n2n_plane_bytes"))
    assert told == len(PLANE_COUNTERS)
    assert set(values(found["n2n_core"], "event")) == set(edge_settings.COUNTERS)
    assert set(values(found["n2n_web"], "event")) == set(WEB_COUNTERS)
    assert values(found["n2n_plane_bytes"], "way")["tap_rx"] == PLANE_COUNTERS.index("tap_rx_bytes")
    assert values(found["n2n_daemon"], "event") == {"core_faults": 0, "action_faults": 2}
    assert found["n2n_dropped"].type == "counter"


def test_what_is_used_of_the_kernel_is_told() -> None:
    used = {"gso": True, "gro": False, "max_segments": 128, "threads": 1, "cipher": "ipsec-mb"}
    found = parsed(exposition({"role": "edge", "data_plane": used}, {}, {}))
    assert values(found["n2n_feature"], "name") == {"gso": 1, "gro": 0, "max_segments": 128, "threads": 1}
    assert values(found["n2n_cipher_info"], "library") == {"ipsec-mb": 1}
    assert "n2n_feature" not in parsed(exposition({"role": "edge"}, {}, {}))


def test_a_counter_of_a_room_that_is_not_known_is_told_too() -> None:
    found = parsed(edge(2, {"novel_thing": 7})[0])
    assert values(found["n2n_other"], "event") == {"novel_thing": 7}


def test_peers_have_path_and_round_trip_time() -> None:
    text, answers = edge(30)
    found = parsed(text)
    peers = answers["peers"]["peers"]
    assert values(found["n2n_peer_direct"], "mac") == {p["mac"]: float(p["path"] == "direct") for p in peers}
    measured = {p["mac"]: p["rtt"] for p in peers if p["rtt"] is not None}
    assert values(found["n2n_peer_rtt_seconds"], "mac") == measured
    assert values(found["n2n_peer_sent_bytes"], "mac")[mac_of(3)] == peers[2]["tx_bytes"]
    paths = values(found["n2n_peers"], "path")
    assert paths["direct"] + paths["relay"] == len(peers)
    (info,) = found["n2n_build_info"].samples
    assert info.labels["role"] == "edge"
    assert info.labels["version"] == "0.1.0"


def test_the_number_of_series_is_bounded() -> None:
    found = parsed(edge(MAX_PEERS + 11)[0])
    assert len(found["n2n_peer_info"].samples) == MAX_PEERS
    assert found["n2n_peers_left_out"].samples[0].value == 10


def test_names_are_only_labels() -> None:
    answers = community(2)
    name = 'a"} 1\nn2n_ready 0\\\n\ud800'
    answers["peers"]["peers"][0]["name"] = name
    found = parsed(exposition(answers["status"], {}, answers["peers"]))
    assert found["n2n_peer_info"].samples[0].labels["name"] == name.replace("\ud800", "?")
    assert found["n2n_ready"].samples[0].value == 1


def test_of_a_supernode() -> None:
    counters = {f"core_{name}": 1 for name in sn_state.COUNTERS} | {"core_now_members": 5, "daemon_store_failures": 0}
    status = {"role": "supernode", "instance": "supernode", "version": "1", "ready": True, "started": 5.5, "edges": 5}
    status |= {"leases": 9, "communities": [{"name": 'x"y'}, {"name": "z"}]}
    found = parsed(exposition(status, counters, {}))
    assert values(found["n2n_current"], "what") == {"members": 5}
    assert found["n2n_current"].type == "gauge"
    assert found["n2n_supernode_edges"].samples[0].value == 5
    assert found["n2n_supernode_communities"].samples[0].value == 2
    assert found["n2n_start_time_seconds"].samples[0].value == 5.5
    assert "n2n_peers" not in found


@pytest.mark.parametrize("role", ["edge", "supernode"])
def test_the_page(role: str) -> None:
    answers = community(3) | {"counters": EDGE_COUNTERS}
    if role == "supernode":
        answers = {"status": {"role": "supernode"}, "counters": EDGE_COUNTERS}
    page = (EdgePages if role == "edge" else MetricsPage)(methods_of(answers))

    async def main() -> None:
        response = await page.answer(Request("/metrics"))
        assert response is not None
        assert response.kind == CONTENT_TYPE
        assert isinstance(response.body, bytes)
        assert "n2n_dropped" in parsed(response.body.decode())
        if role == "supernode":
            assert await page.answer(Request("/peers")) is None

    asyncio.run(main())
