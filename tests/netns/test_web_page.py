"""The page of a real edge in a real browser, both in one namespace: it sees paths change and members go."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from n2n.lab.namespaces import Process, wait_until
from tests.browser import ARTEFACTS, need_chromium

from .networks import PATIENCE, apart, network

WATCHER = Path(__file__).with_name("page_watcher.py")


def said(process: Process, word: str) -> bool:
    """Whether the watcher has got that far; a test fails at once where it has ended instead."""
    text = process.log.read_text(errors="replace") if process.log.exists() else ""
    assert process.alive or word in text, process.tail()
    return word in text


@pytest.mark.parametrize("hosts", ["ab", "abc"])
def test_the_page_follows_paths_and_members(hosts: str) -> None:
    need_chromium()
    with network(hosts) as net:
        apart(net.host("a"), net.host("b"))
        edges = {name: net.edge(name, passphrase="a secret of the test") for name in hosts}
        net.up(*edges.values())
        a, b = edges["a"], edges["b"]
        a.wait_path(b, "relay", PATIENCE)
        url = a.status()["web"]["url"]
        assert url == "http://127.0.0.1:7778/peers"
        env = {
            "PYTHONPATH": os.pathsep.join((str(WATCHER.parents[2]), os.environ["PYTHONPATH"])),
            "HOME": str(a.folder),
        }
        words = (str(WATCHER), url, a.mac, b.mac, f"edges-{len(hosts)}", str(len(hosts)), hosts[2:])
        watcher = net.host("a").python(*words, log="watcher", env=env)
        wait_until("the page shows the relayed path", lambda: said(watcher, "relayed"), 2 * PATIENCE)
        for name in "ab":
            net.host(name).port.isolate(False)
        wait_until("the page shows the direct path", lambda: said(watcher, "direct"), 3 * PATIENCE)
        if hosts[2:]:
            edges["c"].stop()
        assert watcher.wait(2 * PATIENCE) == 0, watcher.tail()
        found = json.loads(watcher.log.read_text().splitlines()[-1])
        assert found == {"errors": [], "foreign": [], "reloaded": False, "moved": False}
        assert (ARTEFACTS / f"edges-{len(hosts)}-direct.png").stat().st_size > 10_000
        cli = (sys.executable, "-m", "n2n")
        env = {"N2N_RUN_DIR": str(a.run_dir)}
        drawn = net.host("a").run(*cli, "p2viz", "--format", "svg", env=env).stdout
        assert 'class="link direct own"' in drawn
        metrics = net.host("a").run(*cli, "metrics", env=env).stdout
        families = {family.name: family for family in text_string_to_metric_families(metrics)}
        assert {s.labels["path"]: s.value for s in families["n2n_peers"].samples}["direct"] >= 1
        assert "n2n_dropped" in families
