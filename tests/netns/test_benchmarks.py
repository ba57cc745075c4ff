"""Every benchmark that the documents name measures something: its shortest run, one variant, one round.

Nothing is said here of how fast anything is.
"""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .needs import need_tool

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

#: Flags of a short run, and what it must have measured.
RUNS: dict[str, tuple[list[str], set[str]]] = {
    "side_by_side": (["--peers", "n2n"], {"TCP 1", "ping p50"}),
    "ablation": (["--variants", "all on"], {"TCP", "UDP 64", "UDP trains"}),
    "sizes": (["--sizes", "1024", "--variants", "offloads on"], {"throughput"}),
    "relay": (["--parts", "tcp"], {"TCP"}),
    "scaling": (["--parts", "relay", "--threads", "1"], {"relay, trains"}),
    "paths": (["--parts", "matrix", "--pairs", "open:open", "--matrix-rounds", "1"], {"direct after"}),
}


def run(name: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--rounds", "1", "--seconds", "1", *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        [*command, "--output", str(folder)], capture_output=True, text=True, check=False, env=environment, timeout=120
    )


@pytest.mark.parametrize("name", RUNS)
def test_it_measures(name: str, tmp_path: Path) -> None:
    need_tool("iperf3")
    flags, wanted = RUNS[name]
    done = run(name, tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert "What went wrong" not in done.stdout, done.stdout
    with (tmp_path / f"{name}.csv").open(newline="") as file:
        measured = {row["measure"] for row in csv.DictReader(file) if math.isfinite(float(row["value"]))}
    assert wanted <= measured
    assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")
    assert f"benchmarks/{name}.py" in done.stdout
