"""`n2n why` and `n2n ping` between edges behind real NATs."""

from __future__ import annotations

import json
import sys
from typing import Any

from n2n.lab.namespaces import wait_until
from n2n.lab.nat import TOOLS, Internet
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping

from .needs import need_tool
from .networks import PATIENCE


def n2n(edge: EdgeNode, *words: str, good: bool = True) -> dict[str, Any]:
    env = {"HOME": str(edge.folder), "N2N_RUN_DIR": str(edge.run_dir)}
    result = edge.host.run(sys.executable, "-m", "n2n", *words, "--json", check=False, env=env)
    assert result.returncode == (0 if good else 1), (result.stdout, result.stderr)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_why_and_ping_tell_what_is_there() -> None:
    for tool in TOOLS:
        need_tool(tool)
    with Lab() as lab:
        internet = Internet(lab)
        node = SupernodeNode(internet.host("sn"))
        kinds = {"a": "port", "b": "port", "c": "symmetric", "d": "symmetric"}
        edges = {name: EdgeNode(internet.site(name, kind).host, node) for name, kind in kinds.items()}
        start_all(node, list(edges.values()), PATIENCE)
        a, b, c, d = edges.values()
        a.wait_path(b, "direct", PATIENCE)
        b.wait_path(a, "direct", PATIENCE)
        wait_until("both are known to go straight", lambda: (a.peer(b) or {})["their_path"] == "direct", PATIENCE)
        wait_until("what b's NAT does is told", lambda: (a.peer(b) or {})["nat"] == "easy", PATIENCE)
        found = n2n(a, "why", "b")
        assert (found["verdict"], found["remedy"]) == ("direct", "")
        assert found["peer"]["nat"] == "easy"
        told = n2n(a, "ping", "b", "--count", "2", "--interval", "0.3")
        assert told["path"] == "direct"
        for one in told["rounds"]:
            assert 0 < one["outer"] < 1
            assert 0 < one["relay"] < 1
            assert 0 < one["tunnel"] < 1
        wait_until("it was tried in vain", lambda: (c.peer(d) or {})["reason"] == "no_answer", PATIENCE)
        wait_until("they know their NATs", lambda: c.status()["nat"] == (c.peer(d) or {})["nat"] == "hard", PATIENCE)
        assert n2n(c, "why", d.address, good=False)["verdict"] == "both_hard"
        told = n2n(c, "ping", "d", "--count", "1")
        assert (told["path"], told["rounds"][0]["outer"]) == ("relay", None)
        assert told["rounds"][0]["relay"] is not None
        assert n2n(a, "why", "nobody", good=False)["verdict"] == "unknown_peer"
        d.stop()
        wait_until("it is gone", lambda: c.peer("d") is None, PATIENCE)
        assert n2n(c, "why", "d", good=False)["verdict"] in ("offline", "unknown_peer")


def test_a_way_that_leads_in_one_direction_only_is_used_and_told_as_such() -> None:
    for tool in (*TOOLS, "ping"):
        need_tool(tool)
    with Lab() as lab:
        internet = Internet(lab)
        node = SupernodeNode(internet.host("sn"))
        sites = [internet.site(name, "port") for name in ("mute", "heard")]
        internet.fence.cut(sites[0].public, sites[1].public, both=False)
        mute, heard = edges = [EdgeNode(site.host, node) for site in sites]
        start_all(node, edges, PATIENCE)
        heard.wait_path(mute, "direct", PATIENCE)
        wait_until("it is known to lead one way", lambda: (heard.peer(mute) or {})["one_way"], PATIENCE)
        wait_until("to the other side too", lambda: (mute.peer(heard) or {})["their_path"] == "direct", PATIENCE)
        assert mute.path_to(heard) == "relay"
        assert ping(mute.host, heard.address, count=3, interval=0.05).received == 3
        assert n2n(heard, "why", "mute", good=False)["verdict"] == "one_way_out"
        assert n2n(mute, "why", "heard", good=False)["verdict"] == "one_way_in"
