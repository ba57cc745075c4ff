"""Which NATs let two edges reach each other, and how soon: measured with real routers and real daemons.

For every pair of kinds there are two sites, and two edges in a community of their own. A round starts both edges
with routers that remember nothing; it ends when both frames' ways are direct, or when the time is over. The time to
direct counts from the moment when the later of the two is registered to the moment when the later path became direct,
both as the edges themselves tell them: polling adds nothing. The time that a pair has counts from the moment when this
program has seen both registered, so it is never less than was asked for. Of a round that did not become direct where it
should have, it is kept what both edges said of each other at the end.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from n2n.errors import ConfigError, NotReady
from n2n.lab.namespaces import need_rights
from n2n.lab.nat import KINDS, TOOLS, Internet, Site
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping

__all__ = ["ALL_PAIRS", "COLUMNS", "ROWS", "MatrixOptions", "Outcome", "Pair", "expected", "run", "table"]

#: The kinds of a matrix: its columns, and its rows.
COLUMNS: Final = ("full", "addr", "port", "symmetric", "open")
ROWS: Final = (*COLUMNS, "carrier", "blocked")
_HARD: Final = ("symmetric", "carrier")
_PATIENCE: Final = 60.0  # seconds to register on a busy machine
_RELAYED: Final = 5.0  # seconds after which a pair that cannot become direct counts as relayed


@dataclass(frozen=True, slots=True)
class Pair:
    """Two kinds of sites.

    Raises:
        ConfigError: there is no such kind.
    """

    a: str
    b: str

    def __post_init__(self) -> None:
        for kind in (self.a, self.b):
            if kind not in KINDS:
                raise ConfigError(f"--pairs: unknown kind {kind!r}. Known are: {', '.join(KINDS)}")

    def __str__(self) -> str:
        return f"{self.a}:{self.b}"

    @classmethod
    def parse(cls, text: str) -> tuple[Pair, ...]:
        """Pairs as the command line has them.

        >>> [str(pair) for pair in Pair.parse("port:open, full:full")]
        ['port:open', 'full:full']

        Raises:
            ConfigError: that are no pairs, or of unknown kinds.
        """
        pairs = []
        for word in filter(None, (part.strip() for part in text.split(","))):
            kinds = word.split(":")
            if len(kinds) != 2:
                raise ConfigError(f"--pairs: {word!r} is no pair. Write KIND:KIND, with commas between pairs")
            pairs.append(cls(*kinds))
        if not pairs:
            raise ConfigError("--pairs names no pair. Write KIND:KIND, with commas between pairs")
        return tuple(dict.fromkeys(pairs))


#: Every cell of the matrix once: a pair and its mirror image are one.
ALL_PAIRS: Final = tuple(
    [Pair(a, b) for a, b in itertools.combinations_with_replacement(COLUMNS, 2)]
    + [Pair(row, column) for row in ROWS[len(COLUMNS) :] for column in COLUMNS]
)


def expected(pair: Pair) -> str:
    """The path that such a pair comes to: "direct" or "relay".

    Pings that both send at the same time open every pair but those where one side has another port for everybody and
    the other lets in only the endpoints that it wrote to; of these, birthday pings open the ones with a single port on
    one side. Two sides that both have another port for everybody are left to the relay.
    """
    if "blocked" in (pair.a, pair.b) or (pair.a in _HARD and pair.b in _HARD):
        return "relay"
    return "direct"


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """What to measure.

    Args:
        pairs: which.
        rounds: for each pair.
        wait: seconds that a pair has to become direct, at most 5 where its NATs do not allow it.
        jobs: pairs that are measured at the same time.
    """

    pairs: tuple[Pair, ...] = ALL_PAIRS
    rounds: int = 1
    wait: float = 10.0
    jobs: int = 4


@dataclass(slots=True)
class Outcome:
    """What was found of one pair: for each round the seconds to direct, or None where the relay carried on."""

    pair: Pair
    rounds: list[float | None] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Rounds in which nothing passed at all, in words."""
    waited: float = 0.0
    """Seconds that each round had to become direct."""
    missed: list[str] = field(default_factory=list)
    """Of each round that should have become direct and did not: what both edges said of each other at the end."""

    @property
    def path(self) -> str:
        """ "direct" or "relay" where all rounds agree, else "mixed"; "none" where nothing passed in one."""
        if self.faults or not self.rounds:
            return "none"
        direct = sum(seconds is not None for seconds in self.rounds)
        return "direct" if direct == len(self.rounds) else "mixed" if direct else "relay"

    @property
    def ok(self) -> bool:
        """It came as expected."""
        return self.path == expected(self.pair)

    def seconds(self) -> list[float]:
        """Of the rounds that became direct."""
        return [seconds for seconds in self.rounds if seconds is not None]

    def about(self) -> dict[str, Any]:
        """In the form of ``--json``."""
        times = self.seconds()
        return {
            "a": self.pair.a,
            "b": self.pair.b,
            "path": self.path,
            "expected": expected(self.pair),
            "ok": self.ok,
            "rounds": self.rounds,
            "waited": self.waited,
            "missed": self.missed,
            "median": round(statistics.median(times), 3) if times else None,
            "worst": max(times) if times else None,
            "faults": self.faults,
        }

    def __str__(self) -> str:
        times = self.seconds()
        if not times:
            return self.path
        middle = f"{statistics.median(times):.2f} s"
        if self.path == "direct":
            return middle
        return f"{middle} ({len(times)} of {len(self.rounds) + len(self.faults)})"


def run(options: MatrixOptions, report: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Measure all pairs, several at the same time; everything is gone afterwards.

    Args:
        report: is told of every pair that is done, from any thread, one at a time.

    Raises:
        PermissionError: this process may not make namespaces or TAPs.
        PlatformError: a program is missing, or something did not work.
        NotReady: a daemon did not come up.
    """
    need_rights(*TOOLS, "ping")
    told = threading.Lock()
    with Lab() as lab:
        internet = Internet(lab)
        supernode = SupernodeNode(internet.host("sn"))
        supernode.start()
        supernode.wait_ready(_PATIENCE)
        built, ended = threading.Lock(), threading.Event()

        def measure(number: int, pair: Pair) -> Outcome:
            with built:  # the segment is shared
                meeting = _Meeting(internet, supernode, pair, number, ended)
            outcome = meeting.run(options)
            with told:
                report(outcome)
            return outcome

        with ThreadPoolExecutor(options.jobs, thread_name_prefix="pair") as pool:
            tasks = [pool.submit(measure, number, pair) for number, pair in enumerate(options.pairs)]
            try:
                return [task.result() for task in tasks]
            finally:
                ended.set()
                for task in tasks:
                    task.cancel()


class _Meeting:
    """One pair: two sites, and two edges that meet again and again."""

    def __init__(
        self, internet: Internet, supernode: SupernodeNode, pair: Pair, number: int, ended: threading.Event
    ) -> None:
        self.pair = pair
        self._ended = ended
        self.sites: list[Site] = [
            internet.site(f"{side}{number}", kind) for side, kind in (("a", pair.a), ("b", pair.b))
        ]
        community = f"pair-{number}"
        self.a, self.b = (EdgeNode(site.host, supernode, community=community) for site in self.sites)

    def run(self, options: MatrixOptions) -> Outcome:
        able = expected(self.pair) == "direct"
        outcome = Outcome(self.pair, waited=options.wait if able else min(options.wait, _RELAYED))
        for _ in range(options.rounds):
            try:
                outcome.rounds.append(self._round(outcome.waited))
                if able and outcome.rounds[-1] is None:
                    outcome.missed.append(self._views())
            except NotReady as error:
                outcome.faults.append(str(error))
            for edge in (self.a, self.b):
                edge.stop()
            for site in self.sites:
                site.router.forget()
                if site.outer is not site.router:
                    site.outer.forget()
        return outcome

    def _views(self) -> str:
        """What both edges say of each other."""
        words = []
        for here, there in ((self.a, self.b), (self.b, self.a)):
            way = here.peer(there) or {"path": "unknown", "reason": "not told of", "nat": "unknown"}
            words.append(f"{here.name} to {there.name}: {way['path']} ({way['reason']}, its NAT: {way['nat']})")
        return ", ".join(words)

    def _round(self, wait: float) -> float | None:
        for edge in (self.a, self.b):
            edge.start()
        for edge in (self.a, self.b):
            edge.wait_registered(_PATIENCE)
        start = max(float(edge.status()["state_since"]) for edge in (self.a, self.b))
        until = time.monotonic() + wait
        found: float | None = None
        while True:
            ways = [self.a.peer(self.b), self.b.peer(self.a)]
            if all(way and way["path"] == "direct" for way in ways):
                found = round(max(float(way["since"]) for way in ways if way) - start, 3)
                break
            if time.monotonic() > until:
                break
            if self._ended.wait(0.1):
                raise NotReady("interrupted")
        for here, there in ((self.a, self.b), (self.b, self.a)):
            if ping(here.host, there.address, count=3, interval=0.2).received == 0:
                raise NotReady(f"{self.pair}: pings to {there.name} were lost; peers: {here.peers()}")
        return found


def table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Rows of cells, with a heading; "!" where it was not as expected, "" where nothing was measured."""
    known = {str(outcome.pair): outcome for outcome in outcomes}

    def cell(row: str, column: str) -> str:
        outcome = known.get(f"{row}:{column}") or known.get(f"{column}:{row}")
        return "" if outcome is None else str(outcome) if outcome.ok else f"{outcome} !"

    pairs = [outcome.pair for outcome in outcomes]
    kinds = {kind for pair in pairs for kind in (pair.a, pair.b)}
    extra = {kind for pair in pairs if not {pair.a, pair.b} & set(COLUMNS) for kind in (pair.a, pair.b)}
    columns = [kind for kind in ROWS if kind in kinds and (kind in COLUMNS or kind in extra)]
    return [["", *columns], *([row, *(cell(row, column) for column in columns)] for row in ROWS if row in kinds)]
