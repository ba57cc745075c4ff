"""The lab itself: hosts, switches, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from n2n.errors import NotReady, PlatformError
from n2n.lab import cleaner, namespaces
from n2n.lab.namespaces import ip, wait_until
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping, transfer

from . import own_namespace


def two_hosts(lab: Lab) -> None:
    switch = lab.switch()
    for number, name in enumerate(("a", "b"), start=1):
        lab.host(name).attach(switch, f"198.18.0.{number}/24")


def test_hosts_on_a_switch_reach_each_other_unless_isolated_or_unplugged() -> None:
    with Lab() as lab:
        two_hosts(lab)
        a, b = lab.hosts["a"], lab.hosts["b"]
        assert ping(a, b.addr, count=1).received == 1
        a.port.isolate()
        assert ping(a, b.addr, count=1).received == 1, "one isolated port reaches one that is not"
        b.port.isolate()
        assert ping(a, b.addr, count=1).received == 0
        b.port.isolate(False)
        assert ping(a, b.addr, count=1).received == 1
        b.port.plug(False)
        assert ping(a, b.addr, count=1).received == 0


def test_a_transfer_is_counted_and_checked() -> None:
    with Lab() as lab:
        two_hosts(lab)
        found = transfer(lab.hosts["a"], lab.hosts["b"], "198.18.0.2", size=1_000_001)
        assert found.bytes == 1_000_001
        assert found.verified
        with pytest.raises(PlatformError, match=r"TCP from a to 203\.0\.113\.9"):
            transfer(lab.hosts["a"], lab.hosts["b"], "203.0.113.9", size=1)


def test_two_labs_at_once_share_nothing() -> None:
    with Lab() as one, Lab() as two:
        two_hosts(one)
        two_hosts(two)
        assert one.tag != two.tag
        two.hosts["b"].port.plug(False)
        assert ping(one.hosts["a"], "198.18.0.2", count=1).received == 1
        assert ping(two.hosts["a"], "198.18.0.2", count=1).received == 0
    assert not cleaner.namespaces_of(one.tag)
    assert not cleaner.namespaces_of(two.tag)


def test_the_machine_own_network_is_left_alone() -> None:
    with own_namespace.entered():  # plays the machine's: nobody else makes links in it meanwhile
        before = ip("-oneline", "address") + ip("route")
        with Lab() as lab:
            two_hosts(lab)
            assert ping(lab.hosts["a"], "198.18.0.2", count=1).received == 1
            assert ip("-oneline", "address") + ip("route") == before
        assert ip("-oneline", "address") + ip("route") == before


def test_closing_ends_processes_that_ignore_sigterm() -> None:
    with Lab() as lab:
        two_hosts(lab)
        process = lab.hosts["a"].python("-c", STUBBORN, log="stubborn")
        wait_until("the process ignores SIGTERM", lambda: "ready" in process.tail(), 20)
    assert process.status == -signal.SIGKILL
    assert not lab.folder.exists()
    lab.close()  # a second time is harmless


def test_logs_are_kept_where_asked(tmp_path: Path) -> None:
    with Lab(keep_logs=tmp_path / "logs") as lab:
        two_hosts(lab)
        lab.hosts["a"].python("-c", "print('hello')", log="speaker").wait(20)
    assert (tmp_path / "logs" / "a-speaker.log").read_text() == "hello\n"


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""

VICTIM = """
import sys, time
from n2n.lab.topology import Lab
lab = Lab()
host = lab.host("a")
host.attach(lab.switch(), "198.18.0.1/24")
host.python("-c", "import time; time.sleep(600)")
print(lab.tag, flush=True)
time.sleep(600)
"""


def victim() -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        tag = output.readline().strip()
    assert cleaner.namespaces_of(tag)
    # In the middle of its exec a process shows no environment, and it is not in its namespace yet.
    wait_until("its program is seen", lambda: cleaner.processes_of(tag), 20, every=0.01)
    return process, tag


def gone(tag: str) -> bool:
    return not (cleaner.namespaces_of(tag) or cleaner.processes_of(tag) or (cleaner.labs_dir() / tag).exists())


def test_a_guardian_cleans_up_after_kill_9() -> None:
    process, tag = victim()
    process.kill()
    process.wait()
    wait_until(f"{tag} is gone", lambda: gone(tag), 20)


def test_the_next_run_sweeps_what_even_the_guardian_left() -> None:
    process, tag = victim()
    folder = str(cleaner.labs_dir() / tag)
    guardians = [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and folder.encode() in (path / "cmdline").read_bytes().split(b"\0")
    ]
    assert len(guardians) == 1
    os.kill(guardians[0], signal.SIGKILL)
    process.kill()
    process.wait()
    assert not gone(tag)
    with Lab() as living:
        assert gone(tag)
        assert tag not in cleaner.sweep()
        assert living.folder.exists(), "a living run is never swept"


def test_only_the_folder_of_a_lab_is_ever_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(ValueError, match="not the folder of a lab"):
        cleaner.remove(tmp_path / "precious")
    assert (tmp_path / "precious").exists()


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces.need_rights("ping")
    monkeypatch.setattr(namespaces, "_PATH", "")
    with pytest.raises(PlatformError, match=r"'ip' is missing.*install -y iproute2"):
        namespaces.need_rights()


def test_waiting_names_what_did_not_happen() -> None:
    with pytest.raises(NotReady, match=r"the moon: not within 0\.1 s"):
        wait_until("the moon", lambda: False, 0.1)
