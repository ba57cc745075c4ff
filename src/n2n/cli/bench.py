"""``n2n bench`` and ``n2n taptest``: what this host makes of n2n."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer

from n2n.cli.output import print_json, print_pairs, print_table
from n2n.errors import ConfigError

if TYPE_CHECKING:
    from n2n.bench import Options, Ratio, Results

__all__ = ["Progress", "app", "run_bench", "run_taptest"]

app = typer.Typer()

_ALL: Final = "all"
_WITH_PEER: Final = ("seconds", "rate", "instance")
#: Seconds between two looks of a terminal at the progress.
_REFRESH: Final = 0.1


@app.command()
def bench(  # noqa: PLR0917  (typer reads them by name)
    context: typer.Context,
    peer: Annotated[
        str | None, typer.Argument(metavar="PEER", help="A member: measure the way there instead of this host.")
    ] = None,
    allcomponents: Annotated[bool, typer.Option("--allcomponents", help="Measure everything; the default.")] = False,
    component: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="protocol, udp, tap, path or all; may be repeated [all].")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(metavar="N", help="Packets of each measurement [2000 to 128000, by component].")
    ] = None,
    packet_size: Annotated[
        list[str] | None,
        typer.Option(
            "--packet-size", "--packetsize", metavar="BYTES,...", help="Frame sizes, 64 to 9000 [64,512,1400]."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", help="Parts of each measurement, in turn with the others.")] = 5,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV.")] = None,
    compare: Annotated[Path | None, typer.Option(metavar="FILE", help="Ratios to an earlier CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the medians (SVG).")] = None,
    supernode: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Complete path through this one; needs no rights.")
    ] = None,
    community: Annotated[
        str, typer.Option(metavar="NAME", help="In which the edges of the complete path meet.")
    ] = "n2n-bench",
    strict: Annotated[bool, typer.Option("--strict", help="Fail where something had to be left out.")] = False,
    seconds: Annotated[float, typer.Option(metavar="S", help="With PEER: of each part, 0.1 to 10.")] = 3.0,
    rate: Annotated[float, typer.Option(metavar="MBIT", help="With PEER: most Mbit/s, 1 to 10000.")] = 1000.0,
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="With PEER: which edge of this host.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
) -> None:
    """Measure headers and seals, UDP sockets, TAP devices, and the complete path through two edges.

    Nothing needs to run: supernode and edges are started in private namespaces, which needs root. Without root these
    parts are left out. Times are of a packet there and back.

    With the name or address of a member: measure the way from the edge that runs here to that member's, direct and
    relayed. Its edge must have agreed (allow_bench: true). --seconds, --rate, --instance and --json go with it.
    """
    _check_kind(context, peer)
    if peer is not None:
        from n2n.cli.benchpeer import run_bench_peer

        run_bench_peer(peer, instance=instance, seconds=seconds, rate=rate, as_json=as_json)
        return
    from n2n.bench import Options

    names = [] if allcomponents else [name.strip().lower() for name in component or [_ALL]]
    options = Options(
        components=() if _ALL in names else tuple(names),
        iterations=iterations,
        packet_sizes=_sizes(packet_size) if packet_size else Options().packet_sizes,
        rounds=rounds,
        supernode=supernode,
        community=community,
    )
    run_bench(options, output=output, compare=compare, plot=plot, strict=strict, as_json=as_json)


@app.command()
def taptest(
    iterations: Annotated[int, typer.Option(metavar="N", help="Round trips.")] = 5000,
    size: Annotated[int, typer.Option(metavar="BYTES", help="Of the Ethernet frame, 64 to 9000.")] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
) -> None:
    """Send frames through a real TAP device and back, and show how long that takes. Needs root."""
    run_taptest(iterations, size, as_json=as_json)


def run_bench(
    options: Options,
    *,
    output: Path | None = None,
    compare: Path | None = None,
    plot: Path | None = None,
    strict: bool = False,
    as_json: bool = False,
) -> Results:
    """Measure, and show and write what was found.

    Args:
        options: what to measure.
        output: takes the CSV.
        compare: a CSV of an earlier run.
        plot: takes the picture.
        strict: what had to be left out is an error.
        as_json: a document on standard output in place of tables.

    Raises:
        N2NError, PermissionError: a file cannot be read or written, nothing of what is wanted can be measured here, or
            (`strict`) not all of it.
    """
    from n2n import bench

    earlier = bench.read_csv(compare) if compare is not None else []
    for path in (output, plot):
        if path is not None:
            _check_writable(path)
    log = logging.getLogger("n2n")
    level = log.level
    log.setLevel(logging.ERROR)  # what the edges of this process have to say is known here
    progress = Progress(sys.stderr)
    try:
        results = bench.run(options, progress.report)
    finally:
        progress.end()
        log.setLevel(level)
    if output is not None:
        results.write_csv(output)
    if plot is not None:
        _draw(results, plot)
    ratios = bench.compare(earlier, results.rows)
    if as_json:
        print_json(results.as_json() | ({"compare": [one.as_json() for one in ratios]} if compare is not None else {}))
    else:
        _print_results(results)
        if compare is not None:
            _print_ratios(compare, ratios)
    if results.left_out and (strict or not results.rows):
        raise results.left_out[0].error
    return results


def run_taptest(iterations: int = 5000, size: int = 1024, *, name: str = "n2n_bench", as_json: bool = False) -> None:
    """Measure a TAP device and show the times.

    Args:
        iterations, size, name: as `n2n.bench.taptest` takes them.
        as_json: a document on standard output in place of lines.

    Raises:
        N2NError, PermissionError: as `n2n.bench.taptest` does.
    """
    from n2n.bench import taptest as measure
    from n2n.bench.measure import shown_ns

    progress = Progress(sys.stderr)
    try:
        found = measure(iterations, size, name=name, report=progress.report)
    finally:
        progress.end()
    if as_json:
        print_json(found.as_json())
        return
    at = found.latency
    print_pairs(
        [
            ("frames", f"{found.sent} of {size} bytes, {found.lost} lost"),
            *((label, shown_ns(getattr(at, label))) for label in ("min", "mean", "median", "p95", "p99", "max")),
            ("rate", f"{_count(found.packets_per_second)} frames/s, one at a time"),
        ]
    )


def _check_kind(context: typer.Context, peer: str | None) -> None:
    """Refuse options of the other kind of measurement: nothing would read them."""
    given = [name for name in context.params if _was_given(context, name)]
    if peer is not None and (wrong := [name for name in given if name not in (*_WITH_PEER, "peer", "as_json")]):
        raise ConfigError(
            f"n2n bench {peer} takes --seconds, --rate, --instance and --json only, not --{wrong[0].replace('_', '-')}"
        )
    if peer is None and (wrong := [name for name in given if name in _WITH_PEER]):
        raise ConfigError(f"--{wrong[0]} goes with the name or address of a member: n2n bench PEER --{wrong[0]} ...")


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _sizes(words: Iterable[str]) -> tuple[int, ...]:
    parts = [part.strip() for word in words for part in word.split(",")]
    wrong = [part for part in parts if not (part.isascii() and part.isdigit() and len(part) < 7)]
    if wrong:
        raise ConfigError(f"--packet-size: {wrong[0][:40]!r} is not a number of bytes")
    return tuple(dict.fromkeys(map(int, parts)))


def _check_writable(path: Path) -> None:
    """Before minutes are spent on what cannot be kept."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Choose another file") from error


class Progress:
    """How far a run is: a line that is refreshed in place on a terminal, elsewhere a line for each component.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = ""
        self._next = 0.0

    def report(self, done: int, total: int, what: str) -> None:
        """As `n2n.bench.Report`."""
        if not self._live:
            subject = what.partition(",")[0]
            if subject not in (self._shown, "done"):
                self._write(f"{subject}\n")
            self._shown = subject
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _REFRESH
            share = done / total if total else 1.0
            line = f"{'#' * round(20 * share):.<20} {share:4.0%}  {what}"
            width = os.get_terminal_size(self._stream.fileno()).columns - 1 if self._fits() else 79
            self._write(f"\r\033[K{line[:width]}")
            self._shown = line

    def end(self) -> None:
        """Take the line away."""
        if self._live and self._shown:
            self._write("\r\033[K")

    def _fits(self) -> bool:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns > 1
        except (OSError, ValueError):
            return False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


# ---- for people ---------------------------------------------------------------------------------


def _print_results(results: Results) -> None:
    from n2n.bench.measure import shown_ns

    for component in dict.fromkeys(row.component for row in results.rows):
        print(f"{component}, time of a packet there and back")
        headings = ("BYTES", "VARIANT", "MEDIAN", "P95", "P99", "MAX", "LOST", "PACKETS/S", "MBIT/S", "CPU")
        print_table(
            headings,
            [
                (
                    row.size,
                    row.variant,
                    *(shown_ns(value) for value in (row.latency.median, row.latency.p95, row.latency.p99)),
                    shown_ns(row.latency.max),
                    row.lost,
                    _count(row.packets_per_second),
                    _count(row.bits_per_second / 1e6),
                    shown_ns(row.cpu),
                )
                for row in results.rows
                if row.component == component
            ],
            "",
        )
        print()
    for one in results.left_out:
        print(f"{one.component}: left out. {one.reason}")
    about = results.machine
    print(
        f"{about['processor']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}, "
        f"n2n {about['n2n']}, sealed by {about['cipher']}; {results.seconds:.1f} s"
    )


def _print_ratios(path: Path, ratios: Sequence[Ratio]) -> None:
    from n2n.bench.measure import shown_ns

    print(f"\ncompared with {path}: time now / before (lowest to highest of the rounds), packets a second now / before")
    print_table(
        ("COMPONENT", "BYTES", "VARIANT", "BEFORE", "NOW", "RATIO", "SPREAD", "RATE"),
        [
            (
                one.component,
                one.size,
                one.variant,
                shown_ns(one.before),
                shown_ns(one.now),
                _ratio(one.latency),
                f"{_ratio(one.low)}-{_ratio(one.high)}",
                _ratio(one.rate),
            )
            for one in ratios
        ],
        "nothing was measured in both runs",
    )


def _draw(results: Results, path: Path) -> None:
    from n2n.bench.plot import Bar, Panel, Point, picture
    from n2n.errors import PlatformError

    panels = []
    for component in dict.fromkeys(row.component for row in results.rows):
        rows = [row for row in results.rows if row.component == component]
        scale, unit = (1.0, "ns") if max((row.latency.median for row in rows), default=0.0) < 5000 else (1e3, "us")
        sizes = list(dict.fromkeys(row.size for row in rows))
        panels.append(
            Panel(
                component,
                f"{unit} for a packet there and back",
                bars=[
                    Bar(
                        f"{row.variant}, {row.size} bytes",
                        Point(*(value / scale for value in (row.spread.median, row.spread.min, row.spread.max))),
                        sizes.index(row.size) % 5,
                    )
                    for row in rows
                ],
            )
        )
    about = results.machine
    note = (
        f"Medians; a whisker runs from the lowest to the highest round. {about['processor']}, {about['cores']} cores, "
        f"Linux {about['kernel']}, n2n {about['n2n']}, sealed by {about['cipher']}."
    )
    try:
        path.write_text(picture("n2n bench", note, panels, columns=1, width=760), encoding="utf-8")
    except OSError as error:
        raise PlatformError(f"{path} cannot be written: {error.strerror}. Choose another --plot") from error


def _count(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
