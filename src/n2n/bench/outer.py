"""The path outside of the tunnel, measured by the two edges with datagrams from the very sockets of their frames.

Questions that the other data plane sends back give latency, jitter and loss. For the throughput one side sends a load
and the other counts: first for moments, at a rate that doubles until no more arrives, then for long at what arrived and
a tenth, so that a narrow path is overloaded for moments only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from n2n.api.client import Client
from n2n.bench.far import LATE, Far, Usage, number_of, token_of
from n2n.bench.stats import jitter, summarize
from n2n.bench.ways import Flood, Way, difference
from n2n.errors import NotReady

__all__ = ["RAMP_SECONDS", "OuterPath"]

#: Seconds that finding the rates takes, about, for both directions.
RAMP_SECONDS: Final = 8.0
#: Questions in a second, and their size: as the datagrams in the tunnel.
_QUESTIONS: Final = 400
_QUESTION_SIZE: Final = 172
#: Bits in a second of the first moment, and seconds of each.
_FIRST: Final = 10e6
_MOMENT: Final = 0.1
#: A doubled rate of which less than this many times as much arrives has found the end of the path.
_GROWTH: Final = 1.25
#: What is offered for long, of what arrived for a moment.
_ABOVE: Final = 1.1
_LEAST: Final = 100e3
#: A path may lose so much however little is offered; that is offered in addition.
_BAD: Final = 0.3
#: Seconds for which loads are taken beyond those in which they are sent.
_SLACK: Final = 10.0
#: Share of the credit that one more moment may take.
_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Run:
    """One load in one direction."""

    sent: int
    sent_seconds: float
    received: int
    bytes: int
    seconds: float
    overflows: int
    credit: int
    cpu: dict[str, float]
    size: int

    @property
    def left(self) -> float:
        """Bits in a second that left the sender."""
        return self.sent * self.size * 8 / self.sent_seconds if self.sent_seconds else 0.0

    @property
    def lost(self) -> float:
        """Share of the datagrams that did not arrive."""
        return 1 - self.received / self.sent if self.sent else 0.0

    @property
    def arrived(self) -> float:
        """Bits in a second that arrived."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0


class _Here:
    """The edge of this host."""

    def __init__(self, edge: Client, mac: str) -> None:
        self._edge = edge
        self._mac = mac

    def open(self, token: str, seconds: float) -> None:
        self._edge.call("bench_outer", mac=self._mac, token=token, seconds=seconds)

    def send(self, size: int, rate: float, seconds: float, questions: bool = False) -> None:
        about = {"size": size, "rate": rate, "seconds": seconds, "questions": questions}
        self._edge.call("bench_outer_send", mac=self._mac, **about)

    def look(self, trips: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = self._edge.call("bench_outer_look", mac=self._mac, trips=trips)
        return found

    def close(self) -> None:
        self._edge.call("bench_outer_close", mac=self._mac)


class _There:
    """The peer's edge, of which nothing is believed unchecked."""

    def __init__(self, far: Far, name: str) -> None:
        self._far = far
        self._name = name

    def open(self, seconds: float) -> str:
        return token_of(self._far.ask("outer", seconds=seconds), self._name)

    def send(self, size: int, rate: float, seconds: float) -> None:
        self._far.ask("pour", size=size, rate=rate, seconds=seconds)

    def look(self) -> dict[str, Any]:
        answer = self._far.ask("counted")
        names = ("sent", "sent_bytes", "sent_ns", "datagrams", "bytes", "span_ns", "overflows", "credit")
        found: dict[str, Any] = {name: number_of(answer.get(name)) for name in names}
        cpu = answer.get("cpu")
        cpu = cpu if isinstance(cpu, dict) else {}
        found["cpu"] = {kind: number_of(cpu.get(kind)) for kind in ("user", "system")}
        found["sending"] = answer.get("sending") is True
        found["why"] = "".join(c for c in str(answer.get("why") or "")[:200] if c.isprintable())
        return found


class OuterPath:
    """Measures it, over a session with the peer's edge.

    Args:
        edge: of this host.
        far: the session.
        found: what the edge of this host said of the peer.
        seconds: of each of the three parts.
        rate: most bits in a second.
        usage: CPU seconds of both edges' threads so far.
        step: told what comes next.
    """

    def __init__(
        self,
        edge: Client,
        far: Far,
        found: dict[str, Any],
        *,
        seconds: float,
        rate: float,
        usage: Callable[[], dict[str, Usage]],
        step: Callable[[str], None],
    ) -> None:
        self._here = _Here(edge, found["peer"]["mac"])
        self._there = _There(far, str(found["peer"]["name"]))
        self._size = int(found["datagram"])
        self._seconds = seconds
        self._most = rate
        self._usage = usage
        self._step = step
        self._quiet = 0.15

    def measure(self) -> Way:
        """Both directions.

        Raises:
            N2NError: the path is not direct (any more), or one of the edges refuses.
        """
        try:
            self._step("outer path, datagrams there and back")
            sent, times = self._echo()
            if times:
                self._quiet = min(max(self._quiet, 2 * max(times) / 1e9), LATE)
            floods = []
            for up, direction in ((True, "to the peer"), (False, "from the peer")):
                self._step(f"outer path, load {direction}")
                floods.append(self._flood(up))
        finally:
            self._here.close()
        return Way("outer", "direct", sent, len(times), summarize(times), jitter(times), *floods)

    def _open(self, seconds: float) -> None:
        self._here.open(self._there.open(seconds + _SLACK), seconds + _SLACK)

    def _echo(self) -> tuple[int, list[int]]:
        self._open(self._seconds)
        self._here.send(_QUESTION_SIZE, 8.0 * _QUESTIONS * _QUESTION_SIZE, self._seconds, questions=True)
        sent = int(self._ended(self._here, self._seconds)["sent"])
        until = time.monotonic() + LATE
        while len(times := self._here.look(trips=True)["trips"]) < sent and time.monotonic() < until:
            time.sleep(0.05)
        return sent, times

    def _flood(self, up: bool) -> Flood:
        offered, seconds, short = self._found_rate(up)
        if seconds < _MOMENT / 10:  # nothing arrived there, so nothing may come back
            return Flood(0, 0.0, {}, 0, 0, offered, "credit")
        before = self._usage()
        run = self._run(up, offered, seconds)
        cpu = difference(self._usage(), before)
        cpu["here" if up else "there"]["n2n-load"] = run.cpu
        limit = _limit(run, offered, self._most, short)
        return Flood(run.bytes, run.seconds, cpu, run.sent, run.received, offered, limit)

    def _found_rate(self, up: bool) -> tuple[float, float, bool]:
        """Bits in a second to offer for long, seconds of that, and whether it was the credit that set an end."""
        rate, best, short, lost = min(_FIRST, self._most), 0.0, False, _BAD
        while True:
            run = last = self._run(up, rate, _MOMENT)
            if run.arrived < _GROWTH * best:  # a moment in which a host was busy would look the same
                last = self._run(up, rate, _MOMENT)
                run = max(run, last, key=lambda one: one.arrived)
            grown = run.arrived >= _GROWTH * best
            best, lost = max(best, run.arrived), min(lost, run.lost)
            if not grown or rate >= self._most or run.left < 0.8 * rate:
                break
            rate = min(2 * rate, self._most)
            short = not up and rate / 8 * _MOMENT > _SHARE * last.credit
            if short:
                break
        offered = min(max(_ABOVE * best / (1 - lost), _LEAST), self._most)
        if up:
            return offered, self._seconds, False
        affordable = 0.95 * last.credit * 8 / offered
        return offered, min(self._seconds, affordable), short

    def _run(self, up: bool, rate: float, seconds: float) -> _Run:
        sender: _Here | _There = self._here if up else self._there
        receiver: _Here | _There = self._there if up else self._here
        self._open(seconds)
        sender.send(self._size, rate, seconds)
        left = self._ended(sender, seconds)
        sent = int(left["sent"])
        came = self._arrived(receiver, sent)
        sent_seconds = left["sent_ns"] / 1e9
        return _Run(
            sent=sent,
            sent_seconds=sent_seconds,
            received=min(int(came["datagrams"]), sent),
            bytes=min(int(came["bytes"]), sent * self._size),
            seconds=max(came["span_ns"] / 1e9, sent_seconds),
            overflows=int(came["overflows"]),
            credit=0 if up else int(left["credit"]),
            cpu=left["cpu"],
            size=self._size,
        )

    def _ended(self, sender: _Here | _There, seconds: float) -> dict[str, Any]:
        """Wait for the sender; what it says then."""
        time.sleep(seconds)
        until = time.monotonic() + _SLACK
        while (found := sender.look())["sending"] and time.monotonic() < until:
            time.sleep(0.02)
        if found["why"]:
            raise NotReady(f"the load ended early: {found['why']}")
        return found

    def _arrived(self, receiver: _Here | _There, sent: int) -> dict[str, Any]:
        """Wait for all, or until no more comes; what the receiver says then."""
        last, since, until = -1.0, time.monotonic(), time.monotonic() + 2 * LATE
        while True:
            found, now = receiver.look(), time.monotonic()
            if found["datagrams"] != last:
                last, since = found["datagrams"], now
            if last >= sent or now >= until or now - since >= self._quiet:
                return found
            time.sleep(0.02)


def _limit(run: _Run, offered: float, most: float, short: bool) -> str:
    """What kept a load from being more (see `n2n.bench.ways.Flood`)."""
    lost = run.sent - run.received
    if lost > 0.02 * run.sent and run.overflows > lost / 2:
        return "receiver"
    if lost <= 0.1 * run.sent and run.seconds <= 1.1 * run.sent_seconds:
        if run.left < 0.95 * offered:
            return "sender"
        if offered >= 0.99 * most:
            return "rate"
    if lost > 0.03 * run.sent or run.seconds > 1.1 * run.sent_seconds:
        return "path"
    return "credit" if short else "load"
