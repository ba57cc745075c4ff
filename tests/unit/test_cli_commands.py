"""The command line: what it prints, which code it ends with, and that nothing ends in a traceback."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n.api.client import CallFailed, Client, NotRunning
from n2n.cli import exits
from n2n.cli.main import build_app, main
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.errors import ConfigError, NetlinkError, NotReady, PlatformError, TapError
from tests.unit.processes import ENV, Process


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("N2N_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


class FakeDaemon:
    """Answers one client after the other on a control socket with what it was given."""

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        self.path = path
        self.answers = answers
        self.asked: list[str] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    self.asked.append(request["method"])
                    answer = self.answers.get(request["method"], {"error": {"code": "unknown_method", "message": "?"}})
                    if request["method"] == "down":
                        self.path.unlink()
                    client.sendall(json.dumps({"id": request["id"], **answer}).encode() + b"\n")

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._sock.close()


EDGE = {
    "role": "edge", "instance": "tap0", "ready": True, "state": "registered", "reason": "accepted", "retry_in": None,
    "name": "e1", "community": "acme", "address": "10.1.2.3/24", "mac": "02:00:00:00:00:01", "public": "192.0.2.1:5",
    "supernode": {"configured": "vpn.example.org:7777", "endpoint": "192.0.2.9:7777"}, "sealed": False,
    "peers": {"total": 2, "direct": 1, "relay": 1}, "uptime": 75.0,
    "port_mapping": {
        "mode": "auto", "state": "double_nat", "reason": "no public address", "remedy": "Ask the provider",
        "method": "upnp", "external": "100.64.0.2:7777",
    },
    "traffic": {"tx_frames": 1, "tx_bytes": 2048, "rx_frames": 2, "rx_bytes": 99, "tx_direct": 0, "tx_relay": 1},
}  # fmt: skip
SUPERNODE = {
    "role": "supernode", "instance": "supernode", "ready": True, "listen": "[::]:7777", "subnet": "10.128.0.0/24",
    "edges": 2, "leases": 3, "relayed": 7, "uptime": 5.0,
    "communities": [{"name": "acme", "network": "10.1.2.0/24", "derived": True, "edges": 2, "leases": 3}],
}  # fmt: skip
PEER = {
    "mac": "02:00:00:00:00:02", "name": "evil\x1b[31m\n", "virtual_ip": "10.1.2.4", "endpoint": "192.0.2.2:6",
    "path": "direct", "one_way": True, "rtt": 0.0042, "tx_bytes": 1536, "rx_bytes": 0, "since": 40.0,
    "reason": "answered", "in_use": "192.0.2.2:7", "their_path": "relay",
}  # fmt: skip
LEASE = {
    "community": "acme", "ip": "10.1.2.4", "mac": "02:00:00:00:00:02", "name": "e2", "registered": True,
    "expires": 3700.0, "renewed": 40.0,
}  # fmt: skip


@pytest.fixture
def edge(folder: Path) -> Iterator[FakeDaemon]:
    answers = {
        "status": {"result": EDGE},
        "peers": {"result": {"at": 100.0, "peers": [PEER]}},
        "leases": {"result": {"at": 100.0, "leases": [LEASE]}},
        "down": {"result": {"stopping": True}},
    }
    daemon = FakeDaemon(folder / "tap0.sock", answers)
    yield daemon
    daemon.close()


@pytest.fixture
def supernode(folder: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(folder / "supernode.sock", {"status": {"result": SUPERNODE}})
    yield daemon
    daemon.close()


class TestReaders:
    def test_status_for_people(
        self, edge: FakeDaemon, supernode: FakeDaemon, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["status"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"^state +registered: accepted$", text, re.MULTILINE)
        assert re.search(r"^supernode +vpn\.example\.org:7777 \(192\.0\.2\.9:7777\)$", text, re.MULTILINE)
        assert re.search(r"^frames +NOT SEALED", text, re.MULTILINE)
        assert re.search(r"^port mapping +double nat: 100\.64\.0\.2:7777 by upnp \(no public", text, re.MULTILINE)
        assert re.search(r"^sent +1 frames, 2\.0 KiB$", text, re.MULTILINE)
        assert re.search(r"^acme +10\.1\.2\.0/24 +2 +3", text, re.MULTILINE)

    def test_a_refused_key_is_seen(self, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        edge.answers["status"] = {
            "result": EDGE | {"supernode": EDGE["supernode"] | {"key": "aa", "refused_key": "bb"}}
        }
        assert main(["status", "--instance", "tap0"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"^its key +SHA256:aa$", text, re.MULTILINE)
        assert re.search(
            r"^REFUSED +another key of the supernode, SHA256:bb \(see n2n key accept\)$", text, re.MULTILINE
        )

    def test_status_for_programs(
        self, edge: FakeDaemon, supernode: FakeDaemon, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"instances": [SUPERNODE, EDGE]}
        assert main(["status", "--json", "--instance", "tap0"]) == 0
        assert json.loads(capsys.readouterr().out) == {"instances": [EDGE]}

    def test_supernode_status(self, supernode: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["supernode", "status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == SUPERNODE
        assert main(["supernode", "status"]) == 0
        assert "10.128.0.0/24" in capsys.readouterr().out

    def test_peers(self, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["peers"]) == 0
        text = capsys.readouterr().out
        assert "\x1b" not in text, "a peer's name must not reach the terminal as it is"
        assert len(text.splitlines()) == 3
        assert re.search(r"10\.1\.2\.4 +direct \(one way\) +4\.2 ms +1\.5 KiB +0 B +1m +answered", text)
        assert main(["peers", "--json", "--instance", "tap0"]) == 0
        assert json.loads(capsys.readouterr().out)["peers"] == [PEER]

    def test_no_peers(self, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        edge.answers["peers"] = {"result": {"at": 1.0, "peers": []}}
        assert main(["peers"]) == 0
        assert "no other edge" in capsys.readouterr().out

    def test_leases(self, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["leases"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"acme +10\.1\.2\.4 +e2 +yes +1m +1h +02:00:00:00:00:02", text)
        assert main(["leases", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["leases"] == [LEASE]

    def test_down(self, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["edge", "down"]) == 0
        assert edge.asked == ["down"]
        assert capsys.readouterr().out == "edge tap0 is down\n"

    def test_down_that_does_not_happen(self, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        edge.answers["down"] = {"error": {"code": "failed", "message": "no"}}
        assert main(["edge", "down"]) == 1

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["version"]) == 0
        assert capsys.readouterr().out.startswith("n2n ")
        assert main(["version", "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)) == ["version"]
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("n2n ")

    def test_which_edge(self, folder: Path, edge: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        second = FakeDaemon(folder / "tap1.sock", {})
        try:
            assert main(["peers"]) == 2
            assert "tap0, tap1" in capsys.readouterr().err
        finally:
            second.close()

    @pytest.mark.parametrize(
        ("code", "status"), [("not_ready", 4), ("timed_out", 4), ("failed", 1), ("bad_request", 2)]
    )
    def test_errors_of_the_daemon(
        self, edge: FakeDaemon, code: str, status: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        edge.answers["leases"] = {"error": {"code": code, "message": "because"}}
        assert main(["leases"]) == status
        assert capsys.readouterr().err == "n2n: error: because\n"


class TestErrors:
    @pytest.mark.parametrize(
        "args",
        [["status"], ["peers"], ["leases"], ["edge", "down"], ["supernode", "status"], ["status", "--instance", "x"]],
    )
    def test_nothing_runs(self, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(args) == 3
        error = capsys.readouterr().err
        assert error.startswith("n2n: error: ")
        assert "n2n edge up" in error or "n2n supernode serve" in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        "args",
        [["nope"], ["edge", "nope"], ["edge", "up", "--nope"], ["status", "extra"],
         ["edge", "down", "--timeout", "soon"], ["status", "--instance", "../x"]],
    )  # fmt: skip
    def test_usage(self, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(args) == 2
        error = capsys.readouterr().err
        assert error.startswith("n2n: error: ")
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("config show king", "edge|supernode: 'king' is not one of 'edge', 'supernode'"),
            ("p2viz --format png", "--format: 'png' is not one of 'dot', 'svg', 'html', 'json'"),
            ("edge down --timeout soon", "--timeout: 'soon' "),
            ("edge down --timeout -1", "--timeout: "),
            ("logs --last 1000", "--last: "),
            ("edge nope", "no such command 'nope'"),
            ("ping", "missing argument 'PEER'"),
        ],
    )
    def test_mistakes_are_worded_as_everywhere(self, words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(words.split()) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"n2n: error: {said}")
        assert words.split()[-1] in error or words == "ping", "the value is named"
        assert re.search(r"[^.] \(try: n2n .*--help\)\n$", error)
        assert not re.search("Invalid|Value error|Input", error)

    def test_no_words_show_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "Commands:" in capsys.readouterr().out
        assert main(["--help"]) == 0
        text = capsys.readouterr().out
        for word in ("edge", "supernode", "status", "peers", "leases", "lab", "version"):
            assert word in text

    def test_configuration(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["edge", "up"]) == 2
        assert "community is missing: give --community" in capsys.readouterr().err
        path = folder / "edge.yaml"
        path.write_text("community: acme\nsupernode_addr: vpn:7777\nheartbeat_interval: soon\n")
        assert main(["edge", "up", "--config", str(path)]) == 2
        assert f"{path}:3: heartbeat_interval" in capsys.readouterr().err
        assert main(["supernode", "serve", "--listen-address", "here"]) == 2
        assert "flag --listen-address" in capsys.readouterr().err
        assert main(["supernode", "serve", "--config", str(folder / "none.yaml")]) == 2

    def test_already_running(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        import fcntl

        with (folder / "supernode.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            args = ["--listen-address", "127.0.0.1:0", "--state-dir", str(folder / "s")]
            assert main(["supernode", "serve", *args]) == 1
        assert "supernode is already running" in capsys.readouterr().err
        assert not (folder / "s").exists(), "nothing was touched"

    def test_a_bug_is_no_traceback(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        def bug() -> None:
            raise ZeroDivisionError("oh")

        monkeypatch.setattr("n2n.api.client.live_instances", bug)
        assert main(["status"]) == 1
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert "ZeroDivisionError: oh" in error
        monkeypatch.setenv("N2N_DEBUG", "1")
        assert main(["status"]) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_codes(self) -> None:
        refused = TapError("/dev/net/tun: permission denied")
        refused.__cause__ = PermissionError(13, "Permission denied")
        netlink = NetlinkError("not permitted")
        netlink.__cause__ = type("Refused", (Exception,), {"code": 1})()
        expected = {
            PlatformError("x"): 1, ConfigError("x"): 2, NotRunning("x"): 3, NotReady("x"): 4, TimeoutError(): 4,
            refused: 5, netlink: 5, CallFailed("not_ready", "x"): 4, ValueError(): 1,
        }  # fmt: skip
        assert {error: exits.code_of(error) for error in expected} == expected


def flags_of(group: str, command: str) -> set[str]:
    from typer.main import get_command

    found = get_command(build_app([group])).commands[group].commands[command]  # type: ignore[attr-defined]
    return {parameter.name for parameter in found.params}


def test_every_key_is_a_flag() -> None:
    keys = {field.name for field in dataclasses.fields(EdgeConfig)} | {
        "encryption_passphrase_file",
        "config",
        "verbose",
    }
    assert flags_of("edge", "up") == keys
    keys = {field.name for field in dataclasses.fields(SupernodeConfig)} | {"config", "verbose"}
    assert flags_of("supernode", "serve") == keys


def test_flags_reach_the_configuration(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[EdgeConfig] = []

    async def serve(config: EdgeConfig, load: object) -> None:
        seen.append(config)

    monkeypatch.setattr("n2n.api.service.serve_edge", serve)
    monkeypatch.setattr("n2n.daemon.logs.setup_logging", lambda *args: None)
    args = "--community acme --supernode-addr vpn:7777 --heartbeat-interval 10s --no-enable-vfuze --compress-payload"
    monkeypatch.setenv("N2N_TAP_NAME", "t9")
    assert main(["edge", "up", *args.split(), "--encryption-passphrase", "secret"]) == 0
    config = seen[0]
    assert (config.heartbeat_interval, config.enable_vfuze, config.compress_payload) == (10.0, False, True)
    assert (config.tap_name, config.encryption_passphrase) == ("t9", "secret")
    assert "n2n: warning: flag --encryption-passphrase" in capsys.readouterr().err


def test_importing_n2n_is_cheap() -> None:
    script = (
        "import sys; import n2n; heavy = {'asyncio', 'socket', 'logging', 'typer', 'cryptography', 'n2n.wire', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reading_commands_load_no_heavy_modules() -> None:
    script = (
        "import sys; from n2n.cli.main import main; main(['version']); main(['status']);"
        "heavy = {'asyncio', 'uvloop', 'pyroute2', 'cryptography', 'rich.console', 'yaml', 'n2n.config', 'n2n.wire'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_supernode_as_a_process(folder: Path, number: signal.Signals) -> None:
    args = ("--listen-address", "127.0.0.1:0", "--state-dir", str(folder / "state"), "--log-format", "json")
    process = Process(folder, "supernode", "serve", *args)
    try:
        assert process.told().startswith("READY=1\nSTATUS=serving on 127.0.0.1:")
        with Client(folder / "supernode.sock") as client:
            status = client.call("status")
            assert status["ready"] is True
            assert status["pid"] == process.popen.pid
            assert client.call("leases") == {"at": pytest.approx(time.time(), abs=60), "leases": []}
            assert client.call("state")["communities"] == []
            assert client.call("counters")["plane_udp_rx"] == 0
            with pytest.raises(CallFailed) as caught:
                client.call("leases", community=3)
            assert caught.value.code == "bad_request"
        assert main(["supernode", "serve", *args]) == 1, "the name is taken"
        process.popen.send_signal(number)
        assert process.told() == "STOPPING=1"
        assert process.popen.wait(20) == 0
        assert not (folder / "supernode.sock").exists()
        events = [json.loads(line)["event"] for line in process.text().splitlines()]
        assert events == ["starting", "ready", "stopping"]
    finally:
        process.close()


def test_down_ends_a_daemon(folder: Path) -> None:
    process = Process(
        folder, "supernode", "serve", "--listen-address", "127.0.0.1:0", "--state-dir", str(folder / "state")
    )
    try:
        process.told()
        with Client(folder / "supernode.sock") as client:
            assert client.call("down") == {"stopping": True}
            client.wait_gone(10)
        assert process.popen.wait(20) == 0
    finally:
        process.close()


def test_an_edge_without_rights(folder: Path) -> None:
    prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
    process = Process(folder, "edge", "up", "--community", "acme", "--supernode-addr", "127.0.0.1:9", prefix=prefix)
    try:
        assert process.popen.wait(20) == 5
        assert "n2n: error: " in process.text()
        assert "CAP_NET_ADMIN" in process.text()
        assert "Traceback" not in process.text()
    finally:
        process.close()
