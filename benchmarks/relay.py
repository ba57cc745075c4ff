"""The supernode as a relay: beside a naive one, for TCP between edges, and between communities that compete.

    sudo .venv/bin/python benchmarks/relay.py [--rounds 5] [--seconds 3] [--parts alone,tcp,fair]

alone: the relay by itself, between a sender and a receiver in namespaces, datagrams of 1,469 bytes (a sealed inner
packet of 1,420): trains (UDP_SEGMENT on send, UDP_GRO at the receiver) and single ones; beside it a relay of a few
lines of C that takes and sends one datagram per call. tcp: between two edges, direct and through the supernode.
fair: one community sends a modest 10,000 datagrams a second while another floods.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import loads
from harness import Results, Run, parser, ratio, short
from networks import Tunnel, n2n
from relays import SINGLE, TRAIN, Star, star

from n2n.bench.plot import GREY, Bar, Panel, Point
from n2n.errors import N2NError
from n2n.lab.namespaces import need_rights

Found = dict[str, tuple[float, str]]
MODEST = replace(SINGLE, rate=10_000)
ALONE: dict[str, tuple[bool, tuple[str, ...]]] = {
    "n2n": (False, ()),
    "n2n, no udp_gso": (False, ("--no-gso",)),
    "n2n, no udp_gro": (False, ("--no-gro",)),
    "n2n, neither": (False, ("--no-gso", "--no-gro")),
    "naive": (True, ()),
}
FAIR = {"n2n": False, "naive": True}
PARTS = ("alone", "tcp", "fair")


def measure_flow(around: Star, kind: str, flow: loads.Flow, seconds: float) -> Found:
    (found,), spent = around.run([(around.pairs[0], flow)], seconds)
    if not found.bytes:
        return {kind: (0.0, "Gbit/s")}
    return {kind: (found.bits / 1e9, "Gbit/s"), f"{kind}, CPU": (spent / (found.bytes / 1e9), "s/GB")}


def measure_tcp(tunnel: Tunnel, seconds: float, relayed: bool) -> Found:
    before = tunnel.cpu()[1]
    result = loads.tcp(tunnel.a, tunnel.b, tunnel.address, seconds)
    spent = tunnel.cpu()[1] - before
    found = {"TCP": (result.bits_per_second / 1e9, "Gbit/s")}
    return {**found, "TCP, CPU supernode": (spent / (result.bytes / 1e9), "s/GB")} if relayed else found


def measure_fair(around: Star, kind: str, flood: loads.Flow | None, seconds: float) -> Found:
    modest, other = around.pairs
    flows = [(modest, MODEST)] + ([(other, flood)] if flood else [])
    found, _ = around.run(flows, seconds)
    values = {
        f"modest sender, {kind}": (found[0].received, "1/s"),
        f"modest sender, {kind}, lost": (found[0].loss, "%"),
    }
    return {**values, f"flood, {kind}": (found[1].bits / 1e9, "Gbit/s")} if flood else values


def measure_even(around: Star, seconds: float) -> Found:
    found, _ = around.run([(pair, SINGLE) for pair in around.pairs], seconds)
    bits = [one.bits for one in found]
    return {"two alike: the smaller's share": (100 * min(bits) / sum(bits) if sum(bits) else 0.0, "% (even: 50)")}


def measure(run: Run, part: str, variant: str, program: str) -> None:
    seconds = run.options.seconds
    if part == "alone":
        naive, options = ALONE[variant]
        with star(program, naive=naive, options=options) as around:
            run.measure("trains", variant, partial(measure_flow, around, "trains", TRAIN, seconds))
            run.measure("single", variant, partial(measure_flow, around, "single", SINGLE, seconds))
    elif part == "tcp":
        with n2n(path=variant) as tunnel:
            run.measure("TCP", variant, partial(measure_tcp, tunnel, seconds, variant == "relay"))
    else:
        with star(program, 2, naive=FAIR[variant]) as around:
            for kind, flood in (("alone", None), ("beside singles", SINGLE), ("beside trains", TRAIN)):
                run.measure(kind, variant, partial(measure_fair, around, kind, flood, seconds))
            run.measure("two alike", variant, partial(measure_even, around, seconds))


def goals(results: Results) -> str:
    """Markdown table: what was to be reached, and what was."""
    lines = ["| goal | reached | in single rounds | wanted | met |", "| --- | ---: | ---: | ---: | --- |"]

    def line(words: str, point: Point, wanted: float, least: bool = True) -> None:
        if point.median == point.median:
            met = point.median >= wanted if least else point.median <= wanted
            limit = f"at {'least' if least else 'most'} {wanted:g}"
            between = f"{short(point.low)} to {short(point.high)}"
            lines.append(f"| {words} | {short(point.median)} | {between} | {limit} | {'yes' if met else 'NO'} |")

    line("trains over naive", ratio(results, "trains", "n2n", "naive"), 12)
    line("trains, CPU s/GB", results.point("trains, CPU", "n2n"), 0.8, least=False)
    line("single over naive", ratio(results, "single", "n2n", "naive"), 1)
    line("TCP relayed over direct", ratio(results, "TCP", "relay", "direct"), 0.75)
    line("TCP, CPU of the supernode, s/GB", results.point("TCP, CPU supernode", "relay"), 0.8, least=False)
    return "\n".join(lines)


def panels(results: Results) -> list[Panel]:
    wanted = [
        ("trains", "Trains", "Gbit/s (more is better)"),
        ("trains, CPU", "Trains: CPU time of the relay", "seconds per GB (less is better)"),
        ("single", "Single datagrams", "Gbit/s (more is better)"),
        ("single, CPU", "Single datagrams: CPU time of the relay", "seconds per GB (less is better)"),
        ("TCP", "TCP between two edges", "Gbit/s (more is better)"),
        (
            "modest sender, beside singles, lost",
            "10,000 a second beside a flood, singles",
            "% lost (less is better)",
        ),
        ("modest sender, beside trains, lost", "10,000 a second beside a flood, trains", "% lost (less is better)"),
        ("two alike: the smaller's share", "Two communities that both flood", "% that the smaller gets (50 is even)"),
    ]
    made = []
    for name, title, axis in wanted:
        names = results.variants(name)
        rows = sorted(names, key=[*ALONE, "direct", "relay"].index)
        if rows:
            bars = [Bar(one, results.point(name, one), GREY if one in ("naive", "direct") else 0) for one in rows]
            made.append(Panel(title, axis, bars=bars))
    return made


def main() -> None:
    options = parser(__doc__, rounds=5, seconds=3, minutes=45)
    options.add_argument("--parts", default=",".join(PARTS), help="which, with commas between (all)")
    run = Run("relay", options.parse_args())
    need_rights("iperf3", "ping")
    parts = run.options.parts.split(",")
    if set(parts) - set(PARTS):
        options.error(f"the parts are: {', '.join(PARTS)}")
    variants = {"alone": tuple(ALONE), "tcp": ("direct", "relay"), "fair": tuple(FAIR)}
    turns = [(part, variant) for part in parts for variant in variants[part]]
    try:
        with loads.compiled() as program:
            for part, variant in run.turns(turns):
                try:
                    measure(run, part, variant, program)
                except N2NError as error:
                    run.fault(f"{part}, {variant}, round {run.round}: {str(error)[:400]}")
    except N2NError as error:
        sys.exit(f"relay: {error}")
    words = f"{run.results.table()}\n\n{goals(run.results)}"
    run.finish("The supernode as a relay", panels(run.results), words)


if __name__ == "__main__":
    main()
