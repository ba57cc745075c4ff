"""What a person does to daemons that run, as a user types it: keys, names, reload, kick, doctor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping

from .networks import PATIENCE, Network, network


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("ab") as found:
        yield found


@pytest.fixture
def hosts(net: Network) -> Path:
    path = net.lab.hosts["a"].folder / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    return path


@pytest.fixture
def edges(net: Network, hosts: Path, request: pytest.FixtureRequest) -> Iterator[tuple[EdgeNode, EdgeNode]]:
    name = f"{request.node.name[5:25]}"
    a = net.edge("a", name=f"a-{name}", community=name, hosts_file=str(hosts), heartbeat_interval="1s")
    b = net.edge("b", name=f"b-{name}", community=name, accept_new_key=False, heartbeat_interval="1s")
    net.up(a, b)
    yield a, b
    for edge in (a, b):
        if edge.alive:
            edge.stop()


def n2n(host: str, net: Network, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``n2n WORDS`` on a host, as its user types it."""
    where = net.lab.hosts[host]
    env = {**os.environ, "N2N_RUN_DIR": str(where.folder / "run"), "HOME": str(where.folder), "NO_COLOR": "1"}
    return where.run(sys.executable, "-m", "n2n", *words, check=check, env=env)


def test_names_come_and_go_with_the_edge(net: Network, hosts: Path, edges: tuple[EdgeNode, EdgeNode]) -> None:
    a, b = edges
    community = a.config["community"]
    name = f"{b.name}.{community}.n2n".replace("_", "-")
    wait_until("the name is there", lambda: f"{b.address} {name}" in hosts.read_text(), PATIENCE)
    assert f"{b.address} {name}\n" in n2n("a", net, "names", "--hosts").stdout
    assert a.kill() == -9
    wait_until("the names are gone", lambda: hosts.read_text() == "127.0.0.1 localhost\n", PATIENCE)
    a.start()
    wait_until("the name is back", lambda: name in hosts.read_text(), PATIENCE)
    assert a.process is not None
    assert n2n("a", net, "edge", "down").stdout == f"edge {a.tap} is down\n"
    assert a.process.wait(PATIENCE) == 0
    assert hosts.read_text() == "127.0.0.1 localhost\n"
    assert a.tap not in a.host.interfaces()
    assert n2n("a", net, "edge", "down", check=False).returncode == 3


def test_commands_of_n2n_go_do_what_they_are_for(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name
    (tmp_path / "edge.yaml").write_text("community: go\nsupernode_addr: 198.18.0.1:7777\nencryption_passphrase: s3\n")
    (tmp_path / "edge.yaml").chmod(0o600)
    flags = "-community go -tap go0 -supernode 198.18.0.1:7777 -heartbeat 1s -encryption-passphrase s3"
    lines = {
        "sn": "n2n-supernode -listen :7777 -subnet 10.131.0.0 -subnetcidr 25 -debug",
        "a": f"n2n-edge -id a {flags} -port 4711 -udpbuffersize 65536 -api-listen 127.0.0.1:7900",
        "b": f"n2n-edge -config {tmp_path / 'edge.yaml'} -id b -enableFuze=false",
    }
    with Lab() as lab:
        switch = lab.switch()
        for number, name in enumerate(lines, start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")

        def env(name: str) -> dict[str, str]:
            folders = {"N2N_RUN_DIR": "run", "HOME": "home", "STATE_DIRECTORY": "state"}
            return {key: str(lab.hosts[name].folder / folder) for key, folder in folders.items()}

        def ask(*words: str) -> str:
            return lab.hosts["a"].run(str(program(words[0])), *words[1:], check=False, env=env("a")).stdout

        for name, line in lines.items():
            words = line.split()
            lab.hosts[name].spawn(str(program(words[0])), *words[1:], log="daemon", env=env(name))
        wait_until("a reaches b", lambda: '"path": "direct"' in ask("n2n", "peers", "--json"), PATIENCE)
        [status] = json.loads(ask("n2n", "status", "--json"))["instances"]
        assert (status["instance"], status["name"], status["sealed"]) == ("go0", "a", True)
        assert status["address"].endswith("/25")
        assert status["local"].endswith(":4711")
        assert status["web"]["url"] == "http://127.0.0.1:7900/peers"
        drawn = json.loads(ask("n2n-p2viz", "-format", "json"))
        assert {member["name"] for member in drawn["members"]} == {"a", "b"}
        assert "50" in ask("n2n-taptest", "-iterations", "50", "-size", "512")


def test_reload_drops_nothing(net: Network, edges: tuple[EdgeNode, EdgeNode]) -> None:
    a, b = edges
    a.wait_path(b, "direct", PATIENCE)
    a.config |= {"tap_mtu": 1300, "enable_vfuze": False}
    (a.folder / "config.yaml").write_text(json.dumps(a.config))
    found = json.loads(n2n("a", net, "edge", "reload", "--json").stdout)
    assert {change["key"]: change["applied"] for change in found["changes"]} == {"tap_mtu": True, "enable_vfuze": False}
    assert "mtu 1300" in a.host.run("ip", "link", "show", a.tap).stdout
    assert ping(a.host, b.address, count=3).received == 3
    assert a.status()["address"] is not None


#: Asks every page some times; prints how long the quickest answer of each took, and the age that /peers.json told last.
ASK = """
import json, time, urllib.request
took = {}
for path in ("peers", "peers.json", "peers.svg", "peers.dot", "leases.json", "offlines.dot", "metrics"):
    for _ in range(10):
        start = time.monotonic()
        body = urllib.request.urlopen("http://127.0.0.1:7778/" + path, timeout=30).read()
        took[path] = min(took.get(path, 60), time.monotonic() - start)
    if path == "peers.json":
        age = json.loads(body)["age"]
print(json.dumps([took, age]))
"""


def test_pages_come_at_once_and_tell_their_age_while_the_supernode_hangs(
    net: Network, edges: tuple[EdgeNode, EdgeNode]
) -> None:
    a, _ = edges

    def ask() -> tuple[dict[str, float], float | None]:
        took, age = json.loads(a.host.run(sys.executable, "-c", ASK).stdout)
        return took, age

    wait_until("the supernode has told something", lambda: ask()[1] is not None, PATIENCE)
    assert net.supernode.process is not None
    net.supernode.process.signal(signal.SIGSTOP)
    try:
        wait_until("what it told is older than the time between two questions", lambda: (ask()[1] or 0) > 5, PATIENCE)
        took, _ = ask()
        assert {path: seconds for path, seconds in took.items() if seconds >= 0.1} == {}
    finally:
        net.supernode.process.signal(signal.SIGCONT)


def test_a_kicked_edge_is_gone_and_may_come_back(net: Network, edges: tuple[EdgeNode, EdgeNode]) -> None:
    _, b = edges
    assert b.name in n2n("sn", net, "supernode", "edges").stdout
    since = b.status()["state_since"]
    kicked = json.loads(n2n("sn", net, "supernode", "kick", b.name, "--json").stdout)
    assert (kicked["name"], kicked["mac"], kicked["released"]) == (b.name, b.mac, False)

    def back() -> bool:
        status = b.status()
        return status.get("state") == "registered" and status["state_since"] != since

    wait_until("it is told, and registers again", back, PATIENCE)
    assert n2n("sn", net, "supernode", "kick", "nobody", check=False).returncode == 1


def test_a_changed_key_waits_for_a_person(net: Network, edges: tuple[EdgeNode, EdgeNode]) -> None:
    a, b = edges  # a holds the supernode to its key because that said that it lasts, b because it was told to
    endpoint = net.supernode.endpoint
    wait_until("the key is remembered", lambda: endpoint in known(b), PATIENCE)
    assert json.loads(known(a))["keys"][0]["lasts"] is True
    a.wait_path(b, "direct", PATIENCE)
    assert ping(a.host, b.address, count=1).received == 1  # and now its kernel knows the MAC: asking is a broadcast
    before = b.status()["supernode"]["key"]
    assert before in n2n("sn", net, "key", "fingerprint").stdout
    net.supernode.stop()
    shutil.rmtree(str(net.supernode.config["state_dir"]))
    net.supernode.start()
    net.supernode.wait_ready(PATIENCE)
    for edge in edges:
        wait_until("the new key is refused", lambda edge=edge: edge.status()["supernode"]["refused_key"], PATIENCE)
    assert ping(a.host, b.address, count=1).received == 1, "direct paths stay"
    assert b.status()["reason"] == "supernode_key_changed"
    assert n2n("b", net, "key", "accept", check=False).returncode == 2, "nobody is there to be asked"
    new = n2n("sn", net, "key", "fingerprint").stdout.split()[0]
    accepted = n2n("b", net, "key", "accept", "--yes").stdout
    assert new in accepted
    wait_until("it registers", lambda: b.status()["state"] == "registered", PATIENCE)
    wait_until("the new key is remembered", lambda: new[7:] in known(b), PATIENCE)
    b.stop()
    b.start()
    assert b.wait_registered(PATIENCE), "the key that was accepted is believed after a restart"


def known(edge: EdgeNode) -> str:
    """What `n2n key list` says of an edge's state directory."""
    command = [sys.executable, "-m", "n2n", "key", "list", "--json", "--state-dir", str(edge.config["state_dir"])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_doctor_finds_a_healthy_host_healthy(net: Network, edges: tuple[EdgeNode, EdgeNode]) -> None:
    a, _ = edges
    path = a.folder / "config.yaml"
    done = n2n("a", net, "doctor", "edge", "--config", str(path), "--json", check=False)
    found = {item["check"]: item for item in json.loads(done.stdout)["findings"]}
    assert [item for item in found.values() if item["level"] == "fail"] == []
    assert done.returncode == 0
    for name in ("tun", "rights", "tap_offload", "udp_gro", "cipher", "port", "supernode", "mtu", "clash", "daemon"):
        assert found[name]["level"] == "ok", found[name]
    assert a.alive, "looking disturbs nothing"
    net.supernode.stop()
    try:
        done = n2n("a", net, "doctor", "edge", "--config", str(path), check=False)
        assert done.returncode == 1
        assert "does not answer" in done.stdout
    finally:
        net.supernode.start()
        net.supernode.wait_ready(PATIENCE)
