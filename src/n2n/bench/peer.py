"""``n2n bench PEER``: the way from an edge of this host to another, as programs on both hosts have it.

The edge that runs here says who the peer is; the peer's edge answers on its virtual address, if it has agreed
(`allow_bench`). Measured are round trips of datagrams and one TCP stream each way: over the path that frames take, and,
where that is the direct one, also by the supernode, to which both edges change over for the time, and outside of the
tunnel (:mod:`n2n.bench.outer`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from n2n.api.client import Client, choose_edge, connect
from n2n.bench.far import LATE, PATIENCE, Far, Usage
from n2n.bench.measure import Report, quiet
from n2n.bench.outer import RAMP_SECONDS, OuterPath
from n2n.bench.stats import Summary, jitter, summarize
from n2n.bench.ways import Flood, Stretch, Way, difference, known
from n2n.errors import ConfigError, N2NError, NotReady

__all__ = ["Flood", "PeerOptions", "PeerResults", "Stretch", "Way", "run_peer"]

MAX_SECONDS: Final = 10.0
MAX_RATE: Final = 10_000.0
#: Seconds in which a direct path is found that can be found.
_SETTLE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOptions:
    """What to measure.

    Args:
        peer: name, virtual address or MAC address of a member.
        instance: the edge of this host, by its TAP device; None: the only one that runs.
        seconds: of each of the three parts of a way, 0.1 to 10.
        rate: most Mbit/s of a stream, 1 to 10,000.

    Raises:
        ConfigError: a value is impossible.
    """

    peer: str
    instance: str | None = None
    seconds: float = 3.0
    rate: float = 1000.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= MAX_SECONDS:
            raise ConfigError(f"{self.seconds:g} seconds are not between 0.1 and {MAX_SECONDS:g}")
        if not 1 <= self.rate <= MAX_RATE:
            raise ConfigError(f"a rate of {self.rate:g} Mbit/s is not between 1 and {MAX_RATE:g}")


@dataclass(slots=True)
class PeerResults:
    """What a run found.

    Args:
        peer: {mac, name, virtual_ip, path} as the edge of this host has it.
        outer: round-trip times in nanoseconds that the edge's own probes of the direct path measured meanwhile; none
            where there is no direct path.
        ways: what was measured, in its order.
        why: why the path outside of the tunnel was not; "" where it was.
    """

    peer: dict[str, Any]
    outer: Summary
    ways: list[Way]
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """By stable names; what is not known is null."""
        outer = {name: known(getattr(self.outer, name)) for name in ("min", "median", "max")}
        return {
            "peer": self.peer,
            "outer": {"probes": self.outer.count, "latency_ns": outer, "not_measured": self.why or None},
            "ways": [way.as_json() for way in self.ways],
        }


def run_peer(options: PeerOptions, report: Report = quiet) -> PeerResults:
    """Measure the way to a member whose edge has agreed to it.

    It takes three times `options.seconds` for each way, of which there are three where the path is direct, and more.

    Args:
        options: to whom, and how long.
        report: told of every step.

    Raises:
        ConfigError: there is no such member, or several of that name.
        NotRunning: no edge runs here.
        NotReady: the peer's edge does not answer, or the edge of this host has no address yet.
        PlatformError: the peer has not agreed, is being measured by another, or broke off; the message says which.
    """
    with connect(choose_edge(options.instance)) as edge:
        found = edge.call("bench", peer=options.peer)
        peer = found["peer"]
        if peer["virtual_ip"] is None:
            raise NotReady(f"the virtual address of {peer['name']} is not known yet: try again in a moment")
        outer = _Outer(edge, peer["mac"])
        session = 3 * (3 * options.seconds + 3 * LATE) + RAMP_SECONDS + _SETTLE + PATIENCE
        far = Far(found, session, options.rate * 1e6)
        with far:
            report(0, 9, f"the way to {peer['name']}")
            peer["path"] = _settled(edge, far, options.peer)
            ways = ["tunnel", "relay"] if peer["path"] == "direct" else ["tunnel"]
            direct = peer["path"] == "direct"
            steps = _Steps(report, 3 * (len(ways) + direct))
            results: list[Way] = []
            why = "there is no direct path"
            if direct:
                why = _outside(found, edge, far, options, steps, results)
            for name in ways:
                with _relayed(edge, far, peer["mac"], name == "relay"):
                    results.append(_measure(name, edge, far, options, steps, outer))
        report(steps.total, steps.total, "done")
        return PeerResults(peer, summarize(outer.times), results, why)


def _outside(  # noqa: PLR0917
    found: dict[str, Any], edge: Client, far: Far, options: PeerOptions, steps: _Steps, results: list[Way]
) -> str:
    """Measure the path outside of the tunnel; why that was not possible, or ""."""

    def usage() -> dict[str, Usage]:
        return {"here": edge.call("bench", peer=options.peer)["usage"], "there": far.usage()}

    how = OuterPath(edge, far, found, seconds=options.seconds, rate=options.rate * 1e6, usage=usage, step=steps.step)
    try:
        results.append(how.measure())
    except N2NError as error:  # the path has changed to the relay, say: there is a tunnel all the same
        return str(error)
    return ""


def _settled(edge: Client, far: Far, peer: str) -> str:
    """The path once there is traffic: edges look for the direct one when they have something to send."""
    until = time.monotonic() + _SETTLE
    while (path := str(edge.call("bench", peer=peer)["peer"]["path"])) != "direct" and time.monotonic() < until:
        far.usage()
        time.sleep(0.05)
    return path


class _Steps:
    """Counts what is done."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._done = 0
        self.total = total

    def step(self, what: str) -> None:
        self._report(self._done, self.total, what)
        self._done += 1


class _Outer:
    """What the edge's probes of the direct path measure, whenever we look."""

    def __init__(self, edge: Client, mac: str) -> None:
        self._edge = edge
        self._mac = mac
        self._seen: object = None
        self.times: list[float] = []

    def look(self) -> None:
        """Keep the latest time, if it is a new one."""
        for peer in self._edge.call("peers")["peers"]:
            if peer["mac"] == self._mac and peer["rtt"] is not None and peer["last_pong"] != self._seen:
                self._seen = peer["last_pong"]
                self.times.append(peer["rtt"] * 1e9)


@contextlib.contextmanager
def _relayed(edge: Client, far: Far, mac: str, on: bool) -> Iterator[None]:
    """Have both edges send to each other by the supernode."""
    if not on:
        yield
        return
    seconds = far.seconds_left()
    far.ask("relay", seconds=seconds)
    edge.call("bench_relay", mac=mac, seconds=seconds)
    try:
        yield
    finally:
        edge.call("bench_relay", mac=mac, seconds=0)
        far.ask("relay", seconds=0)


def _measure(  # noqa: PLR0917
    name: str, edge: Client, far: Far, options: PeerOptions, steps: _Steps, outer: _Outer
) -> Way:
    def usage() -> dict[str, Usage]:
        outer.look()
        return {"here": edge.call("bench", peer=options.peer)["usage"], "there": far.usage()}

    before = edge.call("counters")
    steps.step(f"{name}, datagrams there and back")
    sent, times = far.echo(options.seconds)
    streams = []
    for direction, move in (("to the peer", far.push), ("from the peer", far.pull)):
        steps.step(f"{name}, TCP {direction}")
        at = usage()
        count, seconds = move(options.seconds)
        streams.append(Stretch(count, seconds, difference(usage(), at)))
    after = edge.call("counters")
    taken = {way: after[f"plane_tx_{way}"] - before[f"plane_tx_{way}"] for way in ("direct", "relay")}
    ours = sum(taken.values())
    # Others' frames are counted too: a few of them do not make it another path.
    path = next((way for way, count in taken.items() if ours and count > 0.9 * ours), "mixed")
    return Way(name, path, sent, len(times), summarize(times), jitter(times), *streams)
