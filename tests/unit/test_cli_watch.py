"""``n2n history``, ``top``, ``p2viz`` and ``metrics`` against a daemon that is none."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n.cli.history import read_period
from n2n.cli.main import main
from n2n.cli.top import screen
from n2n.errors import ConfigError
from tests.unit.test_cli_commands import ENV, FakeDaemon
from tests.unit.web_fakes import NOW, community, mac_of

CHANGE = {"at": NOW, "mac": mac_of(1), "name": "nas\x1b[2J", "path": "direct", "reason": "answered", "endpoint": "h:1"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("N2N_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.fixture
def daemon(folder: Path) -> Iterator[FakeDaemon]:
    answers: dict[str, Any] = {name: {"result": answer} for name, answer in community(4, offline=1).items()}
    answers["counters"] = {"result": {"plane_drop_short": 5}}
    answers["history"] = {"result": {"at": NOW + 60, "peer": "nas", "changes": [CHANGE]}}
    found = FakeDaemon(folder / "tap0.sock", answers)
    yield found
    found.close()


def test_p2viz(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["p2viz"]) == 0
    assert capsys.readouterr().out.startswith('graph "our-community" {')
    assert main(["p2viz", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["members"]) == 4
    for form, begin in (("svg", "<svg "), ("html", "<!doctype html>")):
        target = folder / f"picture.{form}"
        assert main(["p2viz", "--format", form, "--output", str(target)]) == 0
        assert target.read_text().startswith(begin)
    daemon.answers["state"] = {"error": {"code": "timed_out", "message": "no word"}}
    assert main(["p2viz"]) == 0, "what the edge knows by itself is shown without its supernode"
    assert "nas" in capsys.readouterr().out
    assert main(["p2viz", "--format", "png"]) == 2


def test_metrics(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    assert 'n2n_dropped_total{reason="short"} 5\n' in capsys.readouterr().out


def test_metrics_for_programs(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--json"]) == 0
    found = {family["name"]: family for family in json.loads(capsys.readouterr().out)["metrics"]}
    dropped = found["n2n_dropped_total"]
    assert (dropped["type"], dropped["samples"]) == ("counter", [{"labels": {"reason": "short"}, "value": 5}])
    assert main(["metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("# TYPE")] == list(found)
    assert sum(len(family["samples"]) for family in found.values()) == sum(line[0] != "#" for line in lines)


def test_history(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "nas", "--since", "2d"]) == 0
    out = capsys.readouterr().out
    assert "it answered our ping" in out
    assert "1m ago" in out
    assert "\x1b" not in out
    assert main(["history", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == [CHANGE]
    daemon.answers["history"]["result"]["changes"] = []
    assert main(["history", "nas"]) == 0
    assert "no path to nas changed within 2d" in capsys.readouterr().out
    assert main(["history", "--since", "yesterday"]) == 2
    assert "2d, 12h" in capsys.readouterr().err, "days are told, which other durations have not"
    del daemon.answers["history"]
    assert main(["history"]) == 2
    assert "state_dir" in capsys.readouterr().err


def test_periods() -> None:
    assert (read_period("2d"), read_period("1d12h"), read_period("90s"), read_period("0")) == (172800, 129600, 90, 0)
    for text in ("", "d", "2", "2d3", "-1h", "1w", "9" * 100 + "d"):
        with pytest.raises(ConfigError):
            read_period(text)


def test_top_once(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--interval", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "our-community: laptop 10.171.0.1/16" in out
    assert "2 peers" in out
    assert "\x1b" not in out


def test_top_for_programs(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--json", "--interval", "0.1"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    peers = json.loads(line)["peers"]
    assert len(peers) == 2
    assert set(peers[0]) == {
        "mac", "name", "virtual_ip", "path", "one_way", "rtt", "since", "sent_rate", "received_rate",
    }  # fmt: skip
    env = {**ENV, "N2N_RUN_DIR": str(folder)}
    command = (sys.executable, "-m", "n2n", "top", "--interval", "0.1", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert [len(look["peers"]) for look in looks] == [2, 2, 2]


def test_no_such_peer(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["ping", "nobody"], ["why", "nobody"]):
        assert main(command) == 1, "nothing is wrong with the command, but it fails"
        said = capsys.readouterr()
        assert "there is no edge 'nobody' in this community" in said.out + said.err


def test_top_refreshes_in_place_and_gives_the_terminal_back(daemon: FakeDaemon, folder: Path) -> None:
    ours, theirs = pty.openpty()
    env = {**ENV, "N2N_RUN_DIR": str(folder), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    command = (sys.executable, "-m", "n2n", "top", "--interval", "0.1")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        end = time.monotonic() + 60
        while seen.count(b"our-community") < 3:
            assert time.monotonic() < end, seen
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:
            pass  # how a terminal says that nobody is at its other end
        assert process.wait(60) == 130
    os.close(ours)
    assert seen.startswith(b"\x1b[?1049h")
    assert seen.rstrip().endswith(b"\x1b[?1049l")
    assert b"\x1b[2J" not in seen
    assert b"\x1b[32m" in seen, "direct is green"
    assert b"Traceback" not in seen


def test_the_busiest_is_first_and_everything_fits() -> None:
    answers = community(60)
    before = json.loads(json.dumps(answers["peers"]))
    answers["peers"]["at"] += 2
    answers["peers"]["peers"][40]["tx_bytes"] += 4096
    lines = screen(answers["status"], answers["peers"], before, 20, colour=False, columns=60)
    assert len(lines) == 20
    assert all(len(line) <= 60 for line in lines)
    assert lines[4].startswith(answers["peers"]["peers"][40]["name"])
    wide = screen(answers["status"], answers["peers"], before, 20, colour=False)
    assert "2.0 KiB" in wide[4]
    assert lines[-1] == "and 44 more"
    answers["peers"]["peers"][0]["name"] = "\x1b[2Jevil\n"
    text = screen(answers["status"], answers["peers"], {}, 100, colour=False)
    assert not any("\x1b" in line or "\n" in line for line in text)
    assert screen({}, {}, {}, 3, colour=True)
