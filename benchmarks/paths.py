"""Direct paths: what losing one costs, which NATs allow one and how soon, and what edges send that have nothing to do.

    sudo .venv/bin/python benchmarks/paths.py [--rounds 20] [--matrix-rounds 10] [--parts failover,matrix,idle]

failover: two edges behind port-restricted NATs ping each other a hundred times a second while the direct way is cut (a
drop rule), the NAT gives another port, or its router another address; the value is the longest time for which pings
found no answer, and the time from the change to a direct path (after a cut: from its end). matrix: that of
`n2n lab nat-matrix`. idle: UDP datagrams per second that an edge sends in a community where nobody talks, in namespaces
by the kernel's counters, and in the simulator (20 whole edges among 480 that only registered).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import NAN, Results, Run, Value, parser, short, spread, wait_quiet

from n2n.bench.plot import Bar, Panel
from n2n.errors import N2NError, PlatformError
from n2n.lab import matrix
from n2n.lab.namespaces import need_rights, wait_until
from n2n.lab.nat import TOOLS, Internet, Site
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab
from n2n.lab.traffic import Stream

Found = dict[str, tuple[float, str]]
PARTS = ("failover", "matrix", "idle")
LOST, AGAIN, DIRECT, IDLE = "frames lost for", "direct again after", "direct after", "idle edge sends"
PATIENCE = 120.0
PACE = 0.01  # seconds between two pings
CUT = 3.0  # seconds that a cut lasts
SETTLE = 30.0  # seconds after which an idle community is counted
SIMULATED = 500


# ---- failover ------------------------------------------------------------------------------------


@dataclass
class Meeting:
    """Two edges that have a direct path, each behind a NAT."""

    internet: Internet
    sites: tuple[Site, Site]
    a: EdgeNode
    b: EdgeNode

    def used(self) -> str:
        """Where b's frames to a go; "" by relay."""
        found = self.b.peer(self.a)
        return str(found["in_use"] or "") if found else ""

    def wait_direct(self, before: str = "") -> None:
        """Both paths are direct, b's not to the endpoint `before`."""
        wait_until("b has another endpoint", lambda: self.used() not in ("", before), PATIENCE)
        self.b.wait_path(self.a, "direct", PATIENCE)
        self.a.wait_path(self.b, "direct", PATIENCE)

    def direct_since(self) -> float:
        """Unix time at which the later path became direct."""
        ways = [self.a.peer(self.b), self.b.peer(self.a)]
        return max(float(way["since"]) for way in ways if way)


def cut(meeting: Meeting) -> float:
    meeting.internet.cut(*meeting.sites)
    time.sleep(CUT)
    paths = (meeting.a.path_to(meeting.b), meeting.b.path_to(meeting.a))
    meeting.internet.mend(*meeting.sites)
    mended = time.time()
    if paths != ("relay", "relay"):
        raise PlatformError(f"{CUT:g} s after the cut the paths were {' and '.join(paths)}")
    meeting.wait_direct()
    return meeting.direct_since() - mended


def rebind(meeting: Meeting) -> float:
    before, start = meeting.used(), time.time()
    meeting.sites[0].router.rebind()
    meeting.wait_direct(before)
    return max(meeting.direct_since() - start, 0.0)


def readdress(meeting: Meeting) -> float:
    before, start = meeting.used(), time.time()
    meeting.sites[0].router.change_address()
    meeting.wait_direct(before)
    return max(meeting.direct_since() - start, 0.0)


CHANGES: dict[str, Callable[[Meeting], float]] = {
    "direct way cut": cut,
    "NAT gives another port": rebind,
    "router gets another address": readdress,
}


def measure_failover(meeting: Meeting, change: Callable[[Meeting], float]) -> Found:
    meeting.wait_direct()
    with Stream(meeting.a.host, meeting.b.address, interval=PACE) as stream:
        time.sleep(2.0)
        again = change(meeting)
        time.sleep(2.0)
    return {LOST: (stream.gap(), "s"), AGAIN: (again, "s")}


def failover(run: Run) -> None:
    with Lab() as lab:
        internet = Internet(lab)
        supernode = SupernodeNode(internet.host("sn"))
        sites = (internet.site("a", "port"), internet.site("b", "port"))
        a, b = (EdgeNode(site.host, supernode, passphrase="a benchmark") for site in sites)
        start_all(supernode, [a, b], PATIENCE)
        meeting = Meeting(internet, sites, a, b)
        for variant in run.turns(list(CHANGES)):
            run.measure("failover", variant, partial(measure_failover, meeting, CHANGES[variant]))


# ---- matrix --------------------------------------------------------------------------------------


def nat_matrix(run: Run) -> str:
    """Returns the matrix in Markdown."""
    options = run.options
    pairs = matrix.ALL_PAIRS if options.pairs is None else matrix.Pair.parse(options.pairs)
    wait_quiet()

    def report(outcome: matrix.Outcome) -> None:
        run.keep(str(outcome.pair), {DIRECT: (statistics.median(outcome.seconds() or [NAN]), "s")})

    outcomes = matrix.run(matrix.MatrixOptions(pairs, options.matrix_rounds, jobs=options.jobs), report)
    run.results.values[:] = [value for value in run.results.values if value.measure != DIRECT]
    for outcome in outcomes:
        for number, seconds in enumerate(outcome.rounds, start=1):
            value = NAN if seconds is None else seconds
            run.results.values.append(Value(DIRECT, str(outcome.pair), number, value, "s"))
        if not outcome.ok:
            run.fault(f"{outcome.pair}: {outcome.path}, expected {matrix.expected(outcome.pair)} {outcome.faults[:1]}")
    heading, *rows = matrix.table(outcomes)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# ---- idle ----------------------------------------------------------------------------------------


def sent(edge: EdgeNode) -> int:
    """UDP datagrams that an edge's host has sent."""
    lines = [line.split() for line in edge.host.run("cat", "/proc/net/snmp").stdout.splitlines()]
    names, values = (line for line in lines if line[0] == "Udp:")
    return int(values[names.index("OutDatagrams")])


def idle(run: Run, count: int) -> None:
    """A community of `count` edges behind port-restricted NATs, counted for a while."""
    with Lab() as lab:
        internet = Internet(lab)
        supernode = SupernodeNode(internet.host("sn"))
        sites = [internet.site(f"e{number}", "port") for number in range(count)]
        edges = [EdgeNode(site.host, supernode, passphrase="a benchmark") for site in sites]
        start_all(supernode, edges, PATIENCE)
        time.sleep(SETTLE)
        before, start = [sent(edge) for edge in edges], time.monotonic()
        time.sleep(run.options.seconds)
        taken = time.monotonic() - start
        rates = [(sent(edge) - was) / taken for edge, was in zip(edges, before, strict=True)]
    keep_rates(run, f"{count} edges", rates, count)


def simulated(run: Run) -> None:
    """As many as a community is to hold, in virtual time."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from n2n.proto.sn_settings import SupernodeSettings
    from tests.sim.network import Nat
    from tests.sim.nodes import World

    world = World(n2n=True, settings=SupernodeSettings(prefix=16))
    world.populate(SIMULATED - 20)
    edges = [world.edge(heartbeat=30.0, nat=Nat("port", f"192.0.2.{number}")) for number in range(1, 21)]
    world.run_for(60.0)
    before = [world.count_to(edge).total() for edge in edges]
    world.run_for(300.0)
    rates = [(world.count_to(edge).total() - was) / 300.0 for edge, was in zip(edges, before, strict=True)]
    keep_rates(run, f"{SIMULATED} edges, simulated", rates, SIMULATED)


def keep_rates(run: Run, variant: str, rates: list[float], count: int) -> None:
    """One value for each edge, as if they were rounds."""
    run.results.values += [Value(IDLE, variant, number, rate, "1/s", x=count) for number, rate in enumerate(rates, 1)]
    found = spread(rates)
    print(f"  {variant}: {short(found.median)} datagrams/s, at most {short(found.high)}", file=sys.stderr, flush=True)


# ---- what is told --------------------------------------------------------------------------------


def words(results: Results, pairs: str) -> str:
    """Markdown: failover, matrix, idle; what was not measured is left out."""
    text = []
    changes = results.variants(LOST)
    if changes:
        text.append("| change | frames lost, median | worst | direct again, median | worst | rounds |")
        text.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for change in changes:
        lost, again = results.point(LOST, change), results.point(AGAIN, change)
        cells = [f"{short(value)} s" for value in (lost.median, lost.high, again.median, again.high)]
        text.append(f"| {change} | {' | '.join(cells)} | {len(results.of(LOST, change))} |")
    if pairs:
        worst = max(
            (one.value for one in results.values if one.measure == DIRECT and one.value == one.value), default=NAN
        )
        text += ["", pairs, "", f"The slowest of all rounds took {short(worst)} s."]
    if results.variants(IDLE):
        text += ["", "| community | datagrams/s of an edge, median | highest |", "| --- | ---: | ---: |"]
    for variant in results.variants(IDLE):
        found = results.point(IDLE, variant)
        text.append(f"| {variant} | {short(found.median)} | {short(found.high)} |")
    return "\n".join(text).strip()


def panels(results: Results) -> list[Panel]:
    wanted = [
        (LOST, "Frames lost after a change of the path", "s"),
        (DIRECT, "From registration to direct, by pair of NATs", "s"),
        (IDLE, "UDP datagrams of an idle edge", "1/s"),
    ]
    made = [
        Panel(title, unit, bars=[Bar(name, results.point(measure, name)) for name in results.variants(measure)])
        for measure, title, unit in wanted
    ]
    return [panel for panel in made if any(bar.point.median == bar.point.median for bar in panel.bars)]


def main() -> None:
    options = parser(__doc__, rounds=20, seconds=120, minutes=60)
    options.add_argument("--parts", default=",".join(PARTS), help="which, with commas between (all)")
    options.add_argument("--matrix-rounds", type=int, default=10, help="of each pair of NATs (10)")
    options.add_argument("--pairs", help="of NATs, as n2n lab nat-matrix takes them (all)")
    options.add_argument("--jobs", type=int, default=4, help="pairs at the same time (4)")
    options.add_argument("--edges", default="2,8,24", help="idle communities, with commas between (2,8,24)")
    run = Run("paths", options.parse_args(), "in namespaces behind nftables NATs")
    parts = run.options.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        sys.exit(f"paths: unknown part {unknown[0]!r}. Known are: {', '.join(PARTS)}")
    pairs = ""
    try:
        need_rights(*TOOLS, "ping")
        if "failover" in parts:
            failover(run)
        if "matrix" in parts:
            pairs = nat_matrix(run)
        if "idle" in parts:
            for word in run.options.edges.split(","):
                idle(run, int(word))
            simulated(run)
    except (N2NError, OSError) as error:
        if not run.results.values:
            sys.exit(f"paths: {error}")
        run.fault(str(error)[:400])
    run.finish("Direct paths", panels(run.results), words(run.results, pairs))


if __name__ == "__main__":
    main()
