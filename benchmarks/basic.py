"""What a working network of two edges does on this machine: throughput, latency, registrations, memory.

    sudo .venv/bin/python benchmarks/basic.py [--rounds 5] [--seconds 5] [--output artefacts/basic.csv]

Supernode and edges run in network namespaces on this one machine, so that iperf3 at both ends and both edges share its
cores. The rounds are interleaved (every combination once, then all again), because a shared machine varies by a third
between hours: compare ratios within one run, not numbers of two. Prints a Markdown table of medians and spread.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import registrations
from networks import ordinary_tcp

from n2n.lab.namespaces import need_rights
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Host, Lab

PASSPHRASE = "benchmark"
PINGS = 200
MIB = 1 << 20


@dataclass
class Results:
    """Measured values by (benchmark, variant, unit), in the order in which they first came."""

    rows: list[tuple[str, str, int, float, str]] = field(default_factory=list)

    def add(self, benchmark: str, variant: str, round_: int, value: float, unit: str) -> None:
        self.rows.append((benchmark, variant, round_, value, unit))
        print(f"  round {round_}: {benchmark}, {variant}: {value:,.3g} {unit}", file=sys.stderr)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["benchmark", "variant", "round", "value", "unit"])
            writer.writerows(self.rows)

    def table(self) -> str:
        groups: dict[tuple[str, str, str], list[float]] = {}
        for benchmark, variant, _, value, unit in self.rows:
            groups.setdefault((benchmark, variant, unit), []).append(value)
        lines = ["| what | variant | median | lowest | highest | unit |", "| --- | --- | ---: | ---: | ---: | --- |"]
        for (benchmark, variant, unit), values in groups.items():
            numbers = " | ".join(f"{value:,.4g}" for value in (statistics.median(values), min(values), max(values)))
            lines.append(f"| {benchmark} | {variant} | {numbers} | {unit} |")
        return "\n".join(lines)


@contextmanager
def two_edges(path: str, sealed: bool) -> Iterator[tuple[SupernodeNode, EdgeNode, EdgeNode]]:
    """A supernode and two edges, their path settled."""
    with Lab() as lab:
        switch = lab.switch()
        for number, name in enumerate(("sn", "a", "b"), start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24").isolate(path == "relay" and name != "sn")
            ordinary_tcp(lab.hosts[name])
        supernode = SupernodeNode(lab.hosts["sn"])
        passphrase = PASSPHRASE if sealed else None
        a, b = (EdgeNode(lab.hosts[name], supernode, passphrase=passphrase) for name in "ab")
        start_all(supernode, [a, b])
        a.wait_path(b, path)
        b.wait_path(a, path)
        yield supernode, a, b


def iperf(sender: Host, receiver: Host, address: str, seconds: float) -> tuple[float, float]:
    """One TCP stream; returns (bits per second, bytes received)."""
    server = receiver.spawn("iperf3", "-s", "-1", "-B", address, log="iperf3")
    try:
        command = ["iperf3", "-c", address, "-t", f"{seconds:g}", "-J", "--connect-timeout", "3000"]
        for _ in range(20):  # the server may not listen yet
            result = sender.run(*command, check=False, timeout=seconds + 30)
            report: dict[str, Any] = json.loads(result.stdout)
            if "error" not in report:
                break
        received = report["end"]["sum_received"]
    finally:
        server.stop(1)
        receiver.lab.processes.remove(server)
    return received["bits_per_second"], received["bytes"]


def round_trips(host: Host, address: str) -> float:
    """Median round-trip time in microseconds."""
    output = host.run("ping", "-n", "-c", str(PINGS), "-i", "0.01", "-W", "1", address, check=False).stdout
    times = [float(value) * 1000 for value in re.findall(r"time=([\d.]+) ms", output)]
    return statistics.median(times) if times else float("nan")


def measure_pair(results: Results, round_: int, path: str, sealed: bool, seconds: float) -> None:
    """Ping and TCP between two edges, with the CPU time and the memory they take."""
    variant = f"{path}, {'sealed' if sealed else 'plain'}"
    with two_edges(path, sealed) as (supernode, a, b):
        daemons = {"edge": a.process, "supernode": supernode.process}
        for name, process in daemons.items():
            assert process is not None
            results.add("memory idle", f"{name}, {variant}", round_, process.memory() / MIB, "MiB")
        results.add("ping", variant, round_, round_trips(a.host, b.address), "us")
        before = [process.cpu_seconds() for process in (a.process, b.process, supernode.process) if process]
        rate, size = iperf(a.host, b.host, b.address, seconds)
        after = [process.cpu_seconds() for process in (a.process, b.process, supernode.process) if process]
        spent = [now - then for now, then in zip(after, before, strict=True)]
        results.add("TCP, one stream", variant, round_, rate / 1e6, "Mbit/s")
        results.add("CPU of both edges", variant, round_, (spent[0] + spent[1]) / (size / 1e9), "s/GB")
        if path == "relay":
            results.add("CPU of the supernode", variant, round_, spent[2] / (size / 1e9), "s/GB")
        for name, process in daemons.items():
            assert process is not None
            results.add("memory after load", f"{name}, {variant}", round_, process.memory() / MIB, "MiB")


def measure_registrations(results: Results, round_: int, count: int) -> None:
    """Registrations per second of one supernode over loopback, limits out of the way."""
    with Lab() as lab:
        supernode = SupernodeNode(lab.host("sn"), source_rate=1_000_000, total_rate=1_000_000, log_level="warning")
        supernode.start()
        supernode.wait_ready()
        assert supernode.process is not None
        first, again = registrations.measure(supernode, count)
        for name, found in (("new edges", first), ("the same again", again)):
            if found.lost or found.refused:
                print(f"  {name}: {found.lost} lost, {found.refused} refused", file=sys.stderr)
            results.add("registrations", f"{name}, {count}", round_, found.per_second, "per second")
        memory = supernode.process.memory() / MIB
        results.add("memory with members", f"supernode, {count} edges", round_, memory, "MiB")


def machine() -> str:
    """What it was measured on."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores, kernel {platform.release()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of TCP in each measurement")
    parser.add_argument("--edges", type=int, default=4000, help="to register")
    parser.add_argument("--output", type=Path, default=Path("artefacts/basic.csv"))
    options = parser.parse_args()
    need_rights("iperf3", "ping")
    results = Results()
    for round_ in range(1, options.rounds + 1):
        for path in ("direct", "relay"):
            for sealed in (True, False):
                measure_pair(results, round_, path, sealed, options.seconds)
        measure_registrations(results, round_, options.edges)
        results.write(options.output)
    print(f"{machine()}; {options.rounds} rounds, {options.seconds:g} s of TCP each\n\n{results.table()}")


if __name__ == "__main__":
    main()
