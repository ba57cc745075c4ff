"""`n2n lab demo`: what it says, how it ends, and that nothing of it stays."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from n2n.lab import cleaner
from n2n.lab.cli import View
from n2n.lab.namespaces import wait_until

from .needs import need_tool

DEMO = [sys.executable, "-m", "n2n", "lab", "demo", "--duration", "0.3"]
LIMIT = 120


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    need_tool("ping")


def gone(pid: int) -> bool:
    tag = f"n2n-{pid}"
    return not (cleaner.namespaces_of(tag) or cleaner.processes_of(tag) or (cleaner.labs_dir() / tag).exists())


@contextmanager
def running(*more: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in the midst of its work: its edges have processes."""
    process = subprocess.Popen([*DEMO, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until("the demo starts its daemons", lambda: len(cleaner.processes_of(f"n2n-{process.pid}")) >= 3, 60)
        yield process
    finally:
        process.kill()
        process.communicate()
        wait_until("nothing is left", lambda: gone(process.pid), 30)


def check_result(result: dict[str, Any], path: str) -> None:
    assert result["ok"] is True
    assert result["error"] is None
    assert result["path"] == path
    assert [edge["name"] for edge in result["edges"]] == ["a", "b"]
    assert len({edge["address"] for edge in result["edges"]}) == 2
    for direction in ("a_to_b", "b_to_a"):
        assert result["ping"][direction]["received"] > 0
        assert result["ping"][direction]["path"] == path
        assert result["tcp"][direction]["verified"] is True
        assert result["tcp"][direction]["bytes"] > 0
        assert result["tcp"][direction]["path"] == path


@pytest.mark.parametrize(
    ("options", "path", "sealed"),
    [([], "direct", True), (["--relay", "--plain"], "relay", False)],
    ids=["direct", "relay"],
)
def test_json_is_one_document_and_progress_goes_elsewhere(
    options: list[str], path: str, sealed: bool, tmp_path: Path
) -> None:
    command = [*DEMO, "--json", "--keep-logs", str(tmp_path / "logs"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    result = json.loads(out)
    check_result(result, path)
    assert result["sealed"] is sealed
    assert "Mbit/s" in err
    assert "\033" not in err, "no colour where nobody sees it"
    assert gone(process.pid)
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    assert {"sn-supernode.log", "a-a.log", "b-b.log"} <= logs


def terminal(environment: dict[str, str]) -> str:
    """What the demo writes on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(DEMO, stdout=theirs, stderr=theirs, env={**os.environ, **environment}) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # the other end was closed
            pass
        os.close(ours)
        assert process.wait(LIMIT) == 0, written.decode()
    assert gone(process.pid)
    return written.decode()


def test_a_person_reads_addresses_path_times_and_throughput() -> None:
    coloured = terminal({"TERM": "xterm", "NO_COLOR": ""})
    assert "\033[" in coloured
    text = re.sub(r"\033\[[0-9;]*m", "", coloured)
    for wanted in (r"supernode +serves on 198\.18\.0\.1:7777", r"edge a +10\.", r"edge b +10\.", r"direct both ways"):
        assert re.search(wanted, text), text
    assert len(re.findall(r"[ab] -> [ab] +\d of \d answered, [\d.]+ ms", text)) >= 4
    assert len(re.findall(r"[ab] -> [ab] +[\d,]+ Mbit/s", text)) == 2
    assert "nothing of it is left" in text


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"), [(Screen, "", True), (Screen, "1", False), (io.StringIO, "", False)]
)
def test_colour_is_for_terminals_and_no_color_is_honoured(
    stream: type[io.StringIO], no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    written = stream()
    View(written).line("topic", "text")
    assert ("\033[" in written.getvalue()) is coloured


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_it_and_nothing_is_left(number: signal.Signals) -> None:
    with running() as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 128 + number
        assert "Traceback" not in output
        assert "interrupted" in output
        assert gone(process.pid)


def test_kill_9_leaves_nothing_either() -> None:
    with running() as process:
        process.kill()
        process.wait()
        wait_until("the guardian has cleaned up", lambda: gone(process.pid), 30)


#: Nobody, but for the right to read: this Python may lie where other users cannot.
_SETS = [f"--{name}-caps=-all,+dac_override" for name in ("inh", "ambient")]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *_SETS]


def test_whoever_may_not_is_told_so() -> None:
    need_tool("setpriv")
    found = subprocess.run([*AS_NOBODY, *DEMO, "--json"], check=False, capture_output=True, text=True, timeout=LIMIT)
    assert found.returncode == 5, found.stderr
    assert "sudo" in found.stderr
    assert json.loads(found.stdout)["ok"] is False


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "N2N_LAB_DIR": str(tmp_path / "file" / "labs")}
    found = subprocess.run(DEMO, check=False, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert found.returncode == 1
    assert "N2N_LAB_DIR" in found.stdout + found.stderr
    assert "Traceback" not in found.stdout + found.stderr
