"""``n2n bench`` and ``n2n taptest``: what they print and write, and how they end."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from n2n.bench import Options
from n2n.cli.bench import Progress
from n2n.cli.main import main
from n2n.lab import topology

QUICK = ["--iterations", "40", "--rounds", "2", "--packet-size", "64"]
LOCAL = ["bench", "--component", "protocol", "--component", "udp", *QUICK]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise PermissionError("network namespaces and TAP devices need root. Run the same command with sudo.")

    monkeypatch.setattr(topology, "need_rights", refuse)


def test_a_person_reads_a_table_and_gets_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, picture = tmp_path / "results.csv", tmp_path / "out.svg"
    assert main([*LOCAL, "--output", str(table), "--plot", str(picture)]) == 0
    said = capsys.readouterr()
    for words in ("Protocol Serialization", "UDP Socket", "VFuze, sealed", "one at a time", "MEDIAN", "PACKETS/S"):
        assert words in said.out
    assert re.search(r"\d+ cores, Linux", said.out)
    assert said.err.splitlines() == ["Protocol Serialization", "UDP Socket"], "progress where there is no terminal"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 6
    assert {row["PacketsSent"] for row in rows} == {"40"}
    drawn = {"".join(one.itertext()) for one in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {"UDP Socket", "one at a time, 64 bytes", "us for a packet there and back"} <= drawn


def test_json_is_one_document_with_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.csv"
    assert main([*LOCAL, "--output", str(old)]) == 0
    capsys.readouterr()
    assert main([*LOCAL, "--json", "--compare", str(old)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["component"] for row in found["results"]} == {"Protocol Serialization", "UDP Socket"}
    assert len(found["compare"]) == 6
    assert all(
        one["latency_ratio_low"] <= one["latency_ratio"] <= one["latency_ratio_high"] for one in found["compare"]
    )
    assert main([*LOCAL, "--compare", str(old)]) == 0
    assert "RATIO" in capsys.readouterr().out


def test_sizes_are_a_list_and_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--component", "udp", "--iterations", "4", "--json", "--packet-size", "64,128"]
    assert main([*words, "--packet-size", "64", "--packet-size", "1400"]) == 0
    sizes = [row["packet_size"] for row in json.loads(capsys.readouterr().out)["results"]]
    assert list(dict.fromkeys(sizes)) == [64, 128, 1400]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--packet-size", "64,x"], "'x' is not a number of bytes"),
        (["--packet-size", ""], "'' is not a number of bytes"),
        (["--packet-size", "63"], "packet size 63"),
        (["--component", "tea"], "no component 'tea'"),
        (["--iterations", "0"], "0 iterations"),
        (["--compare", "/nowhere/at/all.csv"], "/nowhere/at/all.csv cannot be read"),
        (["--output", "/nowhere/at/all.csv"], "/nowhere/at/all.csv cannot be written"),
        (["--plot", "/nowhere/at/all.svg"], "/nowhere/at/all.svg cannot be written"),
    ],
)
def test_nonsense_is_refused_before_anything_is_measured(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


@pytest.mark.usefixtures("no_rights")
def test_without_rights_the_rest_is_measured_and_the_reason_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.csv"
    assert main(["bench", "--allcomponents", *QUICK, "--output", str(path)]) == 0
    told = capsys.readouterr().out
    for component in ("TAP Device", "Complete Path"):
        assert f"{component}: left out. network namespaces and TAP devices need root" in told
    assert {row["Component"] for row in csv.DictReader(path.read_text().splitlines())} == {
        "Protocol Serialization",
        "UDP Socket",
    }


@pytest.mark.usefixtures("no_rights")
@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--component", "tap", *QUICK],
        ["bench", "--strict", *QUICK],
        ["taptest", "--iterations", "9"],
        ["lab", "up"],
    ],
)
def test_want_of_rights_is_an_error_where_it_matters(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 5
    told = capsys.readouterr().err
    assert told.endswith("n2n: error: network namespaces and TAP devices need root. Run the same command with sudo.\n")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("none")


def test_progress_is_refreshed_in_place_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("n2n.cli.bench._REFRESH", 0)
    screen = Screen()
    progress = Progress(screen)
    progress.report(1, 4, "UDP Socket, 64 bytes")
    progress.report(2, 4, f"UDP Socket, {'x' * 300}")
    progress.end()
    first, second, last = screen.getvalue().split("\r\033[K")[1:]
    assert first == "#####............... " + " 25%  UDP Socket, 64 bytes"
    assert "50%" in second
    assert len(second) == 79
    assert last == ""


def test_a_component_named_twice_is_measured_once() -> None:
    assert Options(components=("udp", "udp")).wanted() == ("udp",)


def test_help_loads_nothing_of_it() -> None:
    script = (
        "import sys; from n2n.cli.main import main; main(['--help']); main(['bench', '--help']);"
        "found = [name for name in sys.modules if name.startswith(('n2n.bench', 'n2n._fastpath', 'statistics'))];"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--allcomponents" in done.stdout
