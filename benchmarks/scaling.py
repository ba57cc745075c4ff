"""Threads of the data plane: two edges, and a relay with several senders, with 1, 2 (and 4) threads each.

    sudo .venv/bin/python benchmarks/scaling.py [--rounds 5] [--seconds 3] [--threads 1,2,4]

Senders, receivers and all planes share the cores of this machine: on few of them a second thread can only take what
the others leave. The relay stands by itself between four pairs of namespaces, as in relay.py.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import loads
from harness import Results, Run, parser, short
from networks import Tunnel, n2n
from relays import SINGLE, TRAIN, Star, star

from n2n.bench.plot import Panel, Series
from n2n.errors import N2NError
from n2n.lab.namespaces import need_rights

Found = dict[str, tuple[float, str]]
STREAMS = (1, 4, 8)
PAIRS = 4
PINGS = 400
SMALL = loads.Flow(64, gro=False)


def default_threads() -> str:
    """1 and 2, and 4 where there are so many cores."""
    return "1,2,4" if (os.cpu_count() or 1) >= 4 else "1,2"


def measure_tcp(tunnel: Tunnel, seconds: float, streams: int, sealed: str) -> Found:
    before = tunnel.cpu()[0]
    result = loads.tcp(tunnel.a, tunnel.b, tunnel.address, seconds, streams)
    name = f"TCP {streams}, {sealed}"
    spent = (tunnel.cpu()[0] - before) / (result.bytes / 1e9)
    return {name: (result.bits_per_second / 1e9, "Gbit/s"), f"{name}, CPU edges": (spent, "s/GB")}


def measure_rest(tunnel: Tunnel, seconds: float, program: str, sealed: str) -> Found:
    small = loads.bulk(tunnel.a, tunnel.b, tunnel.address, seconds, program, SMALL)
    median, high = loads.ping(tunnel.a, tunnel.address, PINGS)
    return {
        f"UDP 64, {sealed}": (small.received / 1e3, "1,000/s"),
        f"ping p50, {sealed}": (median, "us"),
        f"ping p99, {sealed}": (high, "us"),
    }


def measure_relay(around: Star, kind: str, flow: loads.Flow, seconds: float) -> Found:
    found, spent = around.run([(pair, flow) for pair in around.pairs], seconds)
    total = sum(one.bytes for one in found)
    values = {f"relay, {kind}": (sum(one.bits for one in found) / 1e9, "Gbit/s")}
    return {**values, f"relay, {kind}, CPU": (spent / (total / 1e9), "s/GB")} if total else values


def measure(run: Run, part: str, threads: int, program: str) -> None:
    seconds = run.options.seconds
    if part == "relay":
        with star(program, PAIRS, options=("--threads", str(threads))) as around:
            for kind, flow in (("single", SINGLE), ("trains", TRAIN)):
                run.measure(kind, part, partial(measure_relay, around, kind, flow, seconds), threads)
        return
    with n2n(sealed=part == "sealed", threads=threads, supernode={"threads": threads}) as tunnel:
        for streams in STREAMS:
            run.measure(f"TCP {streams}", part, partial(measure_tcp, tunnel, seconds, streams, part), threads)
        run.measure("UDP 64 and ping", part, partial(measure_rest, tunnel, seconds, program, part), threads)


def overview(results: Results, threads: list[int]) -> str:
    """Markdown: one row per measure, one column per number of threads."""
    head = " | ".join(f"{count} thread{'s' * (count > 1)}" for count in threads)
    lines = [f"| | unit | {head} |", "| --- | --- |" + " ---: |" * len(threads)]
    for (name, part), unit in {(one.measure, one.variant): one.unit for one in results.values}.items():
        points = [results.point(name, part, count) for count in threads]
        cells = [f"{short(p.median)} ({short(p.low)}-{short(p.high)})" if p.median == p.median else "-" for p in points]
        lines.append(f"| {name} | {unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def panels(results: Results, threads: list[int]) -> list[Panel]:
    def series(names: list[tuple[str, str]]) -> list[Series]:
        found = [Series(name, [results.point(name, part, count) for count in threads]) for name, part in names]
        return [one for one in found if any(point.median == point.median for point in one.points)]

    tcp = {part: [(f"TCP {streams}, {part}", part) for streams in STREAMS] for part in ("sealed", "plain")}
    wanted = [
        Panel("TCP between two edges, sealed", "threads", "Gbit/s", series=series(tcp["sealed"])),
        Panel("TCP between two edges, plain", "threads", "Gbit/s", series=series(tcp["plain"])),
        Panel("UDP, 64 bytes", "threads", "1,000/s received", series=series([(f"UDP 64, {p}", p) for p in tcp])),
        Panel(
            f"Relay, {PAIRS} pairs",
            "threads",
            "Gbit/s",
            series=series([(f"relay, {kind}", "relay") for kind in ("single", "trains")]),
        ),
    ]
    return [panel for panel in wanted if panel.series]


def main() -> None:
    options = parser(__doc__, rounds=5, seconds=3, minutes=45)
    options.add_argument("--threads", default=default_threads(), help=f"with commas between ({default_threads()})")
    options.add_argument("--parts", default="sealed,plain,relay", help="which, with commas between (all)")
    run = Run("scaling", options.parse_args())
    need_rights("iperf3", "ping")
    threads = [int(word) for word in run.options.threads.split(",")]
    turns = [(part, count) for part in run.options.parts.split(",") for count in threads]
    try:
        with loads.compiled() as program:
            for part, count in run.turns(turns):
                try:
                    measure(run, part, count, program)
                except N2NError as error:
                    run.fault(f"{part}, {count} threads, round {run.round}: {str(error)[:400]}")
    except N2NError as error:
        sys.exit(f"scaling: {error}")
    run.finish("Threads of the data plane", panels(run.results, threads), overview(run.results, threads))


if __name__ == "__main__":
    main()
