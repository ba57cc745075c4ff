"""`n2n lab up`, `status`, `shell` and `down`: a network that outlives the command that made it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from n2n.lab import cleaner
from n2n.lab.namespaces import wait_until
from n2n.lab.nat import TOOLS
from n2n.lab.topology import Lab

from .needs import need_tool
from .networks import PATIENCE
from .test_demo import AS_NOBODY

LAB = [sys.executable, "-m", "n2n", "lab"]
LIMIT = 120


@pytest.fixture(scope="module", autouse=True)
def own_labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of labs of our own: a network that somebody left standing on this machine is none of ours."""
    for tool in TOOLS:
        need_tool(tool)
    folder = tmp_path_factory.mktemp("labs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("N2N_LAB_DIR", str(folder))
        yield folder
        for path in cleaner.standing():
            cleaner.remove(path)
        assert not list(folder.glob("n2n-*"))


def run(*words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, *LAB, *words], check=False, capture_output=True, text=True, timeout=LIMIT)


def told(*words: str) -> Any:
    found = run(*words)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def gone(tag: str) -> bool:
    return not (cleaner.namespaces_of(tag) or cleaner.processes_of(tag) or (cleaner.labs_dir() / tag).exists())


def test_a_network_stands_until_it_is_taken_down() -> None:
    made = told("up", "--edges", "2", "--nat", "port,open", "--json")
    tag = made["tag"]
    assert made["hosts"] == ["e1", "e1-r", "e2", "e2-r", "sn"]
    assert [(edge["name"], edge["kind"]) for edge in made["edges"]] == [("e1", "port"), ("e2", "open")]
    with Lab():  # sweeps what is not to stay
        assert not gone(tag)
    again = run("up")
    assert again.returncode == 1
    assert f"stands already ({tag})" in again.stderr

    def settled() -> Any:
        found = told("status", "--json")
        return found if all(peer["path"] == "direct" for edge in found["edges"] for peer in edge["peers"]) else None

    found = wait_until("all paths are direct", settled, PATIENCE, every=0.5)
    one, two = found["edges"]
    assert found["supernode"]["running"] is True
    assert [peer["name"] for peer in one["peers"]] == ["e2"]
    assert one["public"] != one["underlay"]
    assert two["public"] == two["underlay"]

    peers = run("shell", "e1", "n2n", "peers", "--json")
    assert [peer["name"] for peer in json.loads(peers.stdout)["peers"]] == ["e2"], peers.stderr
    assert run("shell", "e2", "ping", "-c1", one["address"]).returncode == 0
    assert run("shell", "e1-r", "sh", "-c", "exit 7").returncode == 7

    text = run("status").stdout
    for wanted in (f"{tag}-e1-r", one["address"], "e2 direct", "port"):
        assert wanted in text

    edge = next(pid for pid in cleaner.processes_of(tag) if "e1/config.yaml" in command_of(pid))
    os.kill(edge, signal.SIGKILL)
    wait_until("it has ended", lambda: not told("status", "--json")["edges"][0]["running"], PATIENCE)
    assert "e1 (does not run)" in run("status").stdout

    ended = run("down")
    assert ended.returncode == 0
    assert tag in ended.stdout
    assert gone(tag)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("words", [["status"], ["shell", "e1"], ["down"]])
def test_where_nothing_stands_it_says_so(words: list[str]) -> None:
    found = run(*words)
    assert found.returncode == 3
    assert "no network of a lab stands here" in found.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "--nat", "port,cone"], "unknown kind 'cone'. Known are: full, addr"),
        (["up", "--edges", "1", "--nat", "port,open"], "2 kinds for 1 edges"),
        (["up", "--edges", "61"], "from 1 to 60"),
        (["nat-matrix", "--pairs", "port"], "'port' is no pair"),
        (["nat-matrix", "--pairs", "port:cone"], "unknown kind 'cone'"),
        (["nat-matrix", "--pairs", ","], "names no pair"),
        (["up", "--edges", "none"], "--edges"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words: list[str], message: str) -> None:
    found = run(*words)
    assert (found.returncode, "Traceback" in found.stderr) == (2, False)
    assert message in found.stderr


@pytest.mark.parametrize("words", [["up"], ["nat-matrix"]])
def test_whoever_may_not_is_told_so(words: list[str]) -> None:
    need_tool("setpriv")
    found = run(*words, before=AS_NOBODY)
    assert found.returncode == 5
    assert "sudo" in found.stderr


@contextmanager
def under_way() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An `n2n lab up` that has begun, and its tag."""
    process = subprocess.Popen([*LAB, "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tag = f"n2n-{process.pid}"
    try:
        wait_until("it has begun", lambda: len(cleaner.namespaces_of(tag)) >= 2, PATIENCE)
        yield process, tag
    finally:
        process.kill()
        process.wait()


def test_what_a_crash_left_is_taken_down_too(own_labs: Path) -> None:
    """Killed with its guardian, `n2n lab up` leaves namespaces that nobody has written down."""
    with under_way() as (process, tag):
        guardians = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if guards(pid, own_labs / tag)]
        assert len(guardians) == 1
        for pid in (*guardians, process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert not gone(tag)
        assert run("down").returncode == 0
        assert gone(tag)


def guards(pid: int, folder: Path) -> bool:
    return str(folder) in command_of(pid).split("\0")


def test_an_interrupted_up_leaves_nothing() -> None:
    with under_way() as (process, tag):
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 128 + signal.SIGTERM
        wait_until("nothing is left", lambda: gone(tag), PATIENCE)


def test_what_stands_but_cannot_be_read_can_still_be_removed(own_labs: Path) -> None:
    folder = own_labs / "n2n-99999999"
    folder.mkdir()
    (folder / cleaner.STANDING).write_text('{"hosts": 3}')
    found = run("status")
    assert found.returncode == 1
    assert "n2n lab down" in found.stderr
    assert run("down").returncode == 0
    assert not folder.exists()
