"""n2n beside other VPNs from Debian, all on this machine, in one run, taking turns.

    apt-get install -y iperf3 iputils-ping tinc fastd nebula
    sudo .venv/bin/python benchmarks/side_by_side.py [--rounds 5] [--seconds 3] [--peers n2n,tinc]

Two hosts in network namespaces, inner MTU 1420. For each VPN: memory idle and after load, round-trip time idle, TCP
with one and four streams, CPU time of the VPN for one GB of TCP payload (both edges, and the supernode by itself), and
UDP of 64 and of 1,392 bytes (the largest that fits): as fast as iperf3 can, and at one rate that is the same for all.
"""

from __future__ import annotations

from functools import partial

import loads
from harness import Results, Run, parser, ratio, short
from networks import OURS, PEERS, Tunnel

from n2n.bench.plot import GREY, Bar, Panel
from n2n.errors import N2NError
from n2n.lab.namespaces import need_rights

Found = dict[str, tuple[float, str]]
SMALL, LARGE = 64, 1392
PACED = {SMALL: 80_000, LARGE: 60_000}  # datagrams offered in a second: more than the slow ones carry, less than ours
PINGS = 600


def measure_memory(tunnel: Tunnel, when: str) -> Found:
    edge, supernode = tunnel.memory()
    found = {f"memory {when}, edge": (edge, "MiB")}
    return {**found, f"memory {when}, supernode": (supernode, "MiB")} if tunnel.supernode else found


def measure_ping(tunnel: Tunnel) -> Found:
    median, high = loads.ping(tunnel.a, tunnel.address, PINGS)
    return {"ping p50": (median, "us"), "ping p99": (high, "us")}


def measure_tcp(tunnel: Tunnel, seconds: float, streams: int) -> Found:
    before = tunnel.cpu()
    result = loads.tcp(tunnel.a, tunnel.b, tunnel.address, seconds, streams)
    edges, supernode = (now - then for now, then in zip(tunnel.cpu(), before, strict=True))
    found = {f"TCP {streams}": (result.bits_per_second / 1e6, "Mbit/s")}
    if tunnel.edges and streams == 1:
        found["CPU edges"] = (edges / (result.bytes / 1e9), "s/GB")
        if tunnel.supernode:
            found["CPU supernode"] = (supernode / (result.bytes / 1e9), "s/GB")
    return found


def measure_udp(tunnel: Tunnel, seconds: float, size: int, rate: int) -> Found:
    result = loads.udp(tunnel.a, tunnel.b, tunnel.address, seconds, size, rate)
    kind = f"UDP {size}" + (f" at {rate:,}/s" if rate else "")
    return {f"{kind} received": (result.received, "1/s"), f"{kind} lost": (result.loss, "%")}


def measure_peer(run: Run, name: str) -> None:
    seconds = run.options.seconds
    with PEERS[name].start() as tunnel:
        if tunnel.edges:
            run.keep(name, measure_memory(tunnel, "idle"))
        run.measure("ping", name, partial(measure_ping, tunnel))
        for streams in (1, 4):
            run.measure(f"TCP {streams}", name, partial(measure_tcp, tunnel, seconds, streams))
        for size in (SMALL, LARGE):
            for rate in (0, PACED[size]):
                run.measure(f"UDP {size}", name, partial(measure_udp, tunnel, seconds, size, rate))
        if tunnel.edges:
            run.keep(name, measure_memory(tunnel, "after load"))


# ---- what is asked for ---------------------------------------------------------------------------


def best_of(results: Results, measure: str, highest: bool) -> str:
    """The name of the best of the other VPNs, "" where there is none."""
    medians = {
        name: results.point(measure, name).median
        for name in results.variants(measure)
        if name not in OURS and name != "veth"
    }
    medians = {name: value for name, value in medians.items() if value == value}
    return (max if highest else min)(medians, key=medians.__getitem__) if medians else ""


def goals(results: Results) -> str:
    """Markdown table: what was to be reached, and what was."""
    lines = ["| goal | reached | in single rounds | wanted | met |", "| --- | ---: | ---: | ---: | --- |"]

    def line(words: str, found: tuple[float, float, float], wanted: float, least: bool) -> None:
        if found[0] != found[0]:
            return
        met = found[0] >= wanted if least else found[0] <= wanted
        sign = "at least" if least else "at most"
        between = f"{short(found[1])} to {short(found[2])}"
        lines.append(f"| {words} | {short(found[0])} | {between} | {sign} {wanted:g} | {'yes' if met else 'NO'} |")

    def compare(
        words: str, measure: str, one: str, other: str, wanted: float, least: bool = True, over: str = ""
    ) -> None:
        point = ratio(results, measure, one, other, over or None)
        line(words, (point.median, point.low, point.high), wanted, least)

    def absolute(words: str, measure: str, one: str, wanted: float) -> None:
        point = results.point(measure, one)
        line(words, (point.median, point.low, point.high), wanted, False)

    compare("TCP 1 stream over tinc", "TCP 1", "n2n", "tinc", 12)
    compare("TCP 1 stream over fastd", "TCP 1", "n2n", "fastd", 9)
    absolute("CPU of both edges, s/GB", "CPU edges", "n2n", 3.0)
    compare("TCP 4 streams over 1", "TCP 4", "n2n", "n2n", 1, over="TCP 1")
    compare("TCP plain over sealed", "TCP 1", "n2n-plain", "n2n", 1.3)
    for size in (SMALL, LARGE):
        kind = f"UDP {size} received"
        if other := best_of(results, kind, highest=True):
            compare(f"{kind} over {other} (the best other)", kind, "n2n", other, 1.5)
        kind = f"UDP {size} at {PACED[size]:,}/s lost"
        if other := best_of(results, kind, highest=False):
            limit = results.point(kind, other).median
            absolute(f"{kind}, % ({other}, the best other: {short(limit)})", kind, "n2n", round(limit, 2))
    if other := best_of(results, "ping p50", highest=False):
        compare(f"ping p50 over {other} (the best other)", "ping p50", "n2n", other, 1.3, least=False)
    compare("TCP relayed over direct", "TCP 1", "n2n-relay", "n2n", 0.75)
    absolute("CPU of the supernode, s/GB", "CPU supernode", "n2n-relay", 0.8)
    absolute("memory idle, MiB", "memory idle, edge", "n2n", 60)
    absolute("memory after load, MiB", "memory after load, edge", "n2n", 80)
    return "\n".join(lines)


def overview(results: Results, names: list[str]) -> str:
    """Markdown table: one row per network, medians with lowest to highest."""
    measures = ["TCP 1", "TCP 4", "CPU edges", "CPU supernode", f"UDP {SMALL} received", f"UDP {SMALL} lost"]
    measures += [f"UDP {size} at {rate:,}/s lost" for size, rate in PACED.items()]
    measures += [f"UDP {LARGE} received", f"UDP {LARGE} lost", "ping p50", "ping p99"]
    measures += ["memory idle, edge", "memory after load, edge"]
    units = {value.measure: value.unit for value in results.values}
    measures = [measure for measure in measures if measure in units]
    lines = ["| | " + " | ".join(f"{measure}, {units[measure]}" for measure in measures) + " |"]
    lines.append("| --- |" + " ---: |" * len(measures))
    for name in names:
        cells = []
        for measure in measures:
            point = results.point(measure, name)
            known = point.median == point.median
            cells.append(f"{short(point.median)} ({short(point.low)}-{short(point.high)})" if known else "-")
        lines.append(f"| {name} ({PEERS[name].words}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def panels(results: Results, names: list[str]) -> list[Panel]:
    wanted = [
        ("TCP 1", "TCP, one stream", "Mbit/s (more is better)"),
        ("TCP 4", "TCP, four streams", "Mbit/s (more is better)"),
        ("CPU edges", "CPU time of both edges", "seconds per GB (less is better)"),
        ("ping p50", "Round-trip time, idle, median", "microseconds (less is better)"),
        (f"UDP {SMALL} received", "UDP, 64 bytes", "datagrams received per second (more is better)"),
        (f"UDP {LARGE} received", "UDP, 1,392 bytes", "datagrams received per second (more is better)"),
        (
            f"UDP {SMALL} at {PACED[SMALL]:,}/s lost",
            f"UDP, 64 bytes, {PACED[SMALL]:,} offered per second",
            "% lost (less is better)",
        ),
        ("memory after load, edge", "Memory of an edge after load", "MiB (less is better)"),
    ]
    made = []
    for measure, title, axis in wanted:
        # A bare veth carries five times as much as any tunnel, and would press all bars together.
        rows = [
            name
            for name in names
            if name in results.variants(measure) and not (name == "veth" and measure.startswith("TCP"))
        ]
        bars = [Bar(name, results.point(measure, name), 0 if name in OURS else GREY) for name in rows]
        if any(bar.point.median == bar.point.median for bar in bars):
            made.append(Panel(title, axis, bars=bars))
    return made


def main() -> None:
    options = parser(__doc__, rounds=5, seconds=3, minutes=60)
    options.add_argument("--peers", default=",".join(PEERS), help="which, with commas between (all)")
    run = Run("side_by_side", options.parse_args())
    need_rights("iperf3", "ping", "bridge")
    names = [name for name in run.options.peers.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        options.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    for name in names:
        if words := PEERS[name].missing:
            run.fault(words)
    names = [name for name in names if not PEERS[name].missing]
    for name in run.turns(names):
        try:
            measure_peer(run, name)
        except N2NError as error:
            run.fault(f"{name}, round {run.round}: {str(error)[:400]}")
    words = f"{overview(run.results, names)}\n\n{goals(run.results)}"
    run.finish("n2n beside other VPNs", panels(run.results, names), words)


if __name__ == "__main__":
    main()
