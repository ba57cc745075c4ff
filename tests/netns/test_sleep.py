"""An edge that stood still for a while, with its NAT forgetting it meanwhile: all is well again within five seconds.

A process is stopped by a signal for longer than its supernode and its peers have patience. For it that is like the
sleep of its machine but for one thing: CLOCK_MONOTONIC goes on. So there are two tests: in one the edge is told nothing
and has to find out, in the other its clocks tell it. libfaketime can not make that difference between CLOCK_MONOTONIC
and CLOCK_BOOTTIME (0.9.10 moves both, or makes Python's sleep fail), so a few lines of C, loaded before libc, add to
CLOCK_BOOTTIME what a file says.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nat import TOOLS, Internet, Site
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Lab
from n2n.lab.traffic import Stream, ping

from .needs import need_tool
from .networks import PATIENCE

#: Seconds after which the supernode takes an edge for gone, and for which one stands still: peers have given it up
#: after two.
EXPIRY, STILL = 3, 6.0
#: What the issue allows.
HEALED = 5.0

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *tp)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(id, tp);
    FILE *file = result == 0 && id == CLOCK_BOOTTIME ? fopen(getenv("BOOTTIME_JUMP"), "r") : NULL;
    long more = 0;
    if (file && fscanf(file, "%ld", &more) == 1)
        tp->tv_sec += more;
    if (file)
        fclose(file);
    return result;
}
"""


class JumpingEdge(EdgeNode):
    """An edge whose CLOCK_BOOTTIME can be put ahead of its CLOCK_MONOTONIC."""

    def __init__(self, *args: Any, shim: Path, **more: Any) -> None:
        super().__init__(*args, **more)
        self._shim = shim
        self._file = self.folder / "jump"
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """So far ahead from now on."""
        self._file.write_text(f"{seconds}\n")

    def start(self) -> None:
        path = self.folder / "config.yaml"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.config))
        env = {
            "HOME": str(self.folder),
            "N2N_RUN_DIR": str(self.run_dir),
            "XDG_RUNTIME_DIR": None,
            "LD_PRELOAD": str(self._shim),
            "BOOTTIME_JUMP": str(self._file),
        }
        self.process = self.host.python("-m", "n2n", "edge", "up", "--config", str(path), log=self.name, env=env)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_tool("gcc")
    built = tmp_path_factory.mktemp("shim") / "jump.so"
    command = ["gcc", "-x", "c", "-shared", "-fPIC", "-o", str(built), "-", "-ldl"]
    subprocess.run(command, input=SHIM, text=True, check=True)
    return built


@pytest.fixture(scope="module")
def meeting(shim: Path) -> Iterator[tuple[SupernodeNode, Site, JumpingEdge, EdgeNode]]:
    """Two edges that have a direct path, each behind a NAT of its own, and the site of the first."""
    for tool in (*TOOLS, "ping"):
        need_tool(tool)
    with Lab() as lab:
        internet = Internet(lab)
        supernode = SupernodeNode(internet.host("sn"), expiry_duration=f"{EXPIRY}s", cleanup_interval="500ms")
        supernode.start()
        supernode.wait_ready(PATIENCE)
        site, other = internet.site("a", "port"), internet.site("b", "port")
        a = JumpingEdge(site.host, supernode, heartbeat_interval="1s", shim=shim)
        b = EdgeNode(other.host, supernode, heartbeat_interval="1s")
        for edge in (a, b):
            edge.start()
        for edge in (a, b):
            edge.wait_registered(PATIENCE)
        yield supernode, site, a, b


def log_of(edge: EdgeNode, start: int = 0) -> str:
    assert edge.process is not None
    return edge.process.log.read_text(errors="replace")[start:]


def used(here: EdgeNode, there: EdgeNode) -> str:
    """Where frames go; "" by relay."""
    found = here.peer(there)
    return str(found["in_use"] or "") if found else ""


def test_the_clock_that_jumps_is_the_one_that_goes_on_in_a_sleep(shim: Path, tmp_path: Path) -> None:
    """So that the tests below can fail."""
    jump = tmp_path / "jump"
    jump.write_text("0")
    code = (
        "import pathlib, sys, time; from n2n.net import ClockJumps; jumps = ClockJumps(); print(jumps.slept());"
        "pathlib.Path(sys.argv[1]).write_text('7'); print(jumps.slept()); print(jumps.slept())"
    )
    env = {"LD_PRELOAD": str(shim), "BOOTTIME_JUMP": str(jump), "PYTHONPATH": ":".join(filter(None, sys.path))}
    found = subprocess.run(
        [sys.executable, "-c", code, str(jump)], env=env, check=True, capture_output=True, text=True, timeout=60
    )
    slept = [float(line) for line in found.stdout.split()]
    assert slept == [0.0, pytest.approx(7.0, abs=0.5), 0.0]


@pytest.mark.parametrize("told", [False, True], ids=["unnoticed", "told by its clocks"])
def test_an_edge_that_stood_still_is_back_at_once(
    meeting: tuple[SupernodeNode, Site, JumpingEdge, EdgeNode], told: bool
) -> None:
    supernode, site, a, b = meeting
    for here, there in ((a, b), (b, a)):
        here.wait_path(there, "direct", PATIENCE)
    address, before, mark = a.address, used(b, a), len(log_of(a))
    assert a.process is not None
    with Stream(b.host, a.address):  # so that the other side finds out that it is silent
        time.sleep(0.5)
        a.process.signal(signal.SIGSTOP)
        began = time.monotonic()
        wait_until("the supernode takes it for gone", lambda: supernode.status().get("edges") == 1, PATIENCE)
        site.router.rebind()
        if told:
            a.jump(round(STILL))
        time.sleep(max(0.0, began + STILL - time.monotonic()))
        assert b.path_to(a) in ("", "relay"), "it is given up, or this tests nothing"
        a.process.signal(signal.SIGCONT)
        began = time.monotonic()
        wait_until("it is registered", lambda: supernode.status().get("edges") == 2, PATIENCE)
        wait_until("its new endpoint is used", lambda: used(b, a) not in ("", before), PATIENCE)
        a.wait_path(b, "direct", PATIENCE)
        wait_until("frames pass", lambda: ping(a.host, b.address, count=1).received, PATIENCE)
        took = time.monotonic() - began
    assert took < HEALED
    assert a.address == address
    assert ("woke_up" in log_of(a, mark)) is told
