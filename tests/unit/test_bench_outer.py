"""The path outside of the tunnel, as ``n2n bench PEER`` measures it: who may, how much, and what is made of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from n2n.api.benchmark import bench_methods
from n2n.bench.far import Far
from n2n.bench.outer import OuterPath, _limit, _Run, _There
from n2n.bench.peer import PeerResults
from n2n.bench.stats import summarize
from n2n.bench.ways import Flood, Stretch, Way
from n2n.cli.benchpeer import _print
from n2n.daemon.measured import Carrier, Measured
from n2n.daemon.outer import Loads
from n2n.errors import ConfigError, NotReady, PlatformError
from n2n.lab.namespaces import wait_until
from n2n.types import Endpoint, MacAddress
from tests.unit.plane_bench import EdgePlane, close_all

HOME = IPv4Address("127.0.0.1")
A, B, C = (MacAddress(bytes([2, 0, 0, 0, 0, n])) for n in (1, 2, 3))
SIZE = 500
RATE = 1e6  # bytes in a second


class Edge:
    """A real plane in its thread, and what of an edge measures; its one member is reached on loopback."""

    def __init__(self, mac: MacAddress, other: MacAddress) -> None:
        self.wire = EdgePlane(mac.raw)
        self.mac, self.other = mac, other
        self.told: list[str] = []
        self.mtu = 1400
        self.config = SimpleNamespace(enable_vfuze=True, encryption_passphrase="x", compress_payload=False)
        self.measured = Measured(self, self._put)
        self.measured.carrier = Carrier(self.wire.plane, mac, 77, lambda _: 0, [self.wire.sock])
        self.thread = threading.Thread(target=self.wire.plane.run)
        self.thread.start()

    def _put(self, mac: MacAddress, endpoint: Endpoint, direct: bool) -> None:
        self.wire.plane.put_peer(mac.raw, endpoint.packed, endpoint.port, direct)

    def reach(self, other: Edge, direct: bool = True) -> None:
        self.measured.put_peer(other.mac, Endpoint(HOME, other.wire.port), direct)

    def peers(self) -> tuple[Any, ...]:
        return (SimpleNamespace(mac=self.other, name="b", virtual_ip=HOME, path="direct"),)

    def tell(self, level: str, event: str, fields: object) -> None:
        self.told.append(event)

    def loads(self, owner: object = "me", rate: float = RATE) -> Loads:
        return self.measured.loads(owner, self.other, rate, 60)

    def counters(self) -> dict[str, int]:
        return dict(self.wire.plane.counters())

    def end(self) -> None:
        self.wire.plane.stop()
        self.thread.join()


@pytest.fixture
def edges() -> Iterator[tuple[Edge, Edge]]:
    a, b = Edge(A, B), Edge(B, A)
    a.reach(b)
    b.reach(a)
    yield a, b
    for edge in (a, b):
        edge.end()
    close_all()


def ended(loads: Loads) -> dict[str, Any]:
    wait_until("the sending ends", lambda: not loads.sending, 30)
    return loads.look()


# ---- an edge ------------------------------------------------------------------------------------


def test_a_load_is_counted_by_the_other_side(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    token = b.loads().open(30)
    a.loads().open(30, token)
    a.loads().send(size=SIZE, rate=RATE, seconds=0.12)
    sent = ended(a.loads())
    assert sent["sent"] > 1
    assert sent["sent_bytes"] == SIZE * sent["sent"] <= RATE * 0.12
    assert sent["sent_ns"] > 0
    assert sent["why"] == ""
    wait_until("all arrive", lambda: b.loads().look()["datagrams"] == sent["sent"], 30)
    found = b.loads().look()
    assert found["bytes"] == sent["sent_bytes"] == found["credit"]
    assert found["span_ns"] > 0
    assert found["overflows"] == 0
    assert b.counters()["control"] == 0, "none of them was handed to Python"


def test_questions_have_round_trips_in_their_order(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    a.loads().open(30, b.loads().open(30))
    a.loads().send(size=172, rate=172 * 400, seconds=0.15, questions=True)
    sent = ended(a.loads())["sent"]
    assert 1 <= sent <= 60
    wait_until("all come back", lambda: len(a.loads().trips()) == sent, 30)
    assert all(0 < trip < 30e9 for trip in a.loads().trips())
    assert b.loads().look()["datagrams"] == 0


def test_loads_go_by_a_direct_path_only(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    token = b.loads().open(30)
    a.loads().open(30, token)
    a.reach(b, direct=False)
    with pytest.raises(NotReady, match="not direct"):
        a.loads().send(size=SIZE, rate=RATE, seconds=1)
    with pytest.raises(NotReady, match="not direct"):
        a.loads().open(30, token)
    assert b.counters()["load_rx"] == 0


@pytest.mark.parametrize("how", ["relayed", "moved", "gone", "closed"])
def test_a_load_ends_with_its_path(edges: tuple[Edge, Edge], how: str) -> None:
    a, b = edges
    loads = a.loads()
    loads.open(30, b.loads().open(30))
    loads.send(size=SIZE, rate=RATE, seconds=10)
    wait_until("it has begun", lambda: loads.look()["sent"] > 0, 30)
    if how == "relayed":
        a.reach(b, direct=False)
    elif how == "moved":
        a.measured.put_peer(B, Endpoint(HOME, 9), True)
    elif how == "gone":
        a.measured.drop_peer(B)
    else:
        a.measured.end_loads("me")
    found = ended(loads)
    assert found["sent_ns"] < 9e9
    assert found["why"] == ("" if how == "closed" else "the path has changed")


def test_one_sending_at_a_time_within_its_bounds(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    loads = a.loads()
    loads.open(30, b.loads().open(30))
    for wrong in (
        {"size": 63}, {"size": 9217}, {"rate": 0.0}, {"rate": RATE + 1}, {"seconds": 0.0}, {"seconds": 10.1},
        {"rate": float("nan")},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="out of bounds"):
            loads.send(**{"size": SIZE, "rate": RATE, "seconds": 1.0, **wrong})  # type: ignore[arg-type]
    loads.send(size=SIZE, rate=RATE, seconds=5)
    with pytest.raises(NotReady, match="being sent already"):
        loads.send(size=SIZE, rate=RATE, seconds=1)
    with pytest.raises(NotReady, match="being sent already"):
        loads.open(5)
    loads.close()
    ended(loads)


def test_the_other_counts_no_more_than_was_agreed(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    token = b.loads(rate=10 * SIZE).open(1.0)  # ten datagrams
    fast = a.loads(rate=1e9)
    fast.open(30, token)
    fast.send(size=SIZE, rate=1e6, seconds=10, most=40 * SIZE)
    sent = ended(fast)["sent"]
    assert sent == 40
    wait_until("all arrive", lambda: b.counters()["drop_load"] == sent - 10, 30)
    assert b.loads().look()["bytes"] == 10 * SIZE


def test_who_measures_has_it_alone(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    a.loads("one").open(30, bytes(8))
    with pytest.raises(NotReady, match="another measurement"):
        a.loads("two")
    a.measured.end_loads("two")  # not his
    with pytest.raises(NotReady, match="another measurement"):
        a.loads("two")
    a.measured.end_loads("one")
    assert a.loads("two").credit == 0, "what came for the one before is no credit"
    a.measured._loads_until = 0.0  # he went away without a word
    a.loads("three")
    with pytest.raises(NotReady, match="another measurement"):
        a.loads("two")
    a.measured.close()
    b.measured.carrier = None
    with pytest.raises(NotReady, match="does not run yet"):
        b.loads()


def test_credit_is_what_came_and_was_not_sent_back(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    for number in (1, 2):  # in two windows
        a.loads().open(30, b.loads().open(30))
        a.loads().send(size=SIZE, rate=RATE, seconds=10, most=5 * SIZE)
        ended(a.loads())
        wait_until("it arrives", lambda: b.loads().credit == 5 * SIZE * number, 30)  # noqa: B023
    b.loads().send(size=SIZE, rate=RATE, seconds=10, most=b.loads().credit - 1)
    assert ended(b.loads())["sent"] == 9
    assert b.loads().credit == SIZE
    b.measured.end_loads("me")
    assert b.loads("next").credit == 0, "what came for somebody else is no credit"


# ---- a session ----------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join(30)
    made.close()


@pytest.fixture
def session(edges: tuple[Edge, Edge], loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Far]]:
    """Opens one with the responder of the second edge."""
    responder = edges[1].measured.responder

    def call(work: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(30)

    call(lambda: responder.open(HOME, None, 0))
    port = responder.port

    def far(rate: float = 8 * RATE, seconds: float = 60) -> Far:
        return Far({"peer": {"name": "b", "virtual_ip": str(HOME)}, "address": str(HOME), "port": port}, seconds, rate)

    yield far
    call(responder.close)
    wait_until("its tasks end", lambda: call(lambda: len(asyncio.all_tasks())) == 1, 30)


def test_a_session_takes_loads_and_gives_back_no_more(edges: tuple[Edge, Edge], session: Callable[..., Far]) -> None:
    a, b = edges
    with session() as far:
        there = _There(far, "b")
        token = there.open(30)
        a.loads().open(30, bytes.fromhex(token))
        there.send(SIZE, 8 * RATE, 0.2)  # nothing was sent there, so nothing comes back
        assert there.look()["sent"] == 0
        a.loads().send(size=SIZE, rate=RATE, seconds=10, most=20 * SIZE)
        ended(a.loads())
        wait_until("they arrive", lambda: there.look()["credit"] == 20 * SIZE, 30)
        assert there.look()["datagrams"] == 20
        there.send(SIZE, 8 * RATE, 10)
        wait_until("they come back", lambda: a.loads().look()["datagrams"] == 20, 30)
        wait_until("it has ended", lambda: not there.look()["sending"], 30)
        there.send(SIZE, 8 * RATE, 0.2)
        wait_until("it has ended", lambda: not there.look()["sending"], 30)
        found = there.look()
        assert (found["sent"], found["credit"]) == (0, 0)
        assert b.counters()["load_tx"] == 20
    counts = b.measured.counts
    wait_until("the session ends", lambda: b.measured._loads is None, 30)
    assert (counts["bench_outer"], counts["bench_poured"]) == (1, 3)
    a.loads().send(size=SIZE, rate=RATE, seconds=0.05)  # after its end
    sent = ended(a.loads())["sent"]
    wait_until("they are dropped", lambda: b.counters()["drop_load"] == sent > 0, 30)


def test_a_session_that_breaks_off_leaves_nothing_behind(edges: tuple[Edge, Edge], session: Callable[..., Far]) -> None:
    a, b = edges
    with session() as far:
        there = _There(far, "b")
        a.loads(rate=1e8).open(30, bytes.fromhex(there.open(30)))
        a.loads().send(size=SIZE, rate=RATE, seconds=0.2)
        ended(a.loads())
        wait_until("there is some credit", lambda: there.look()["credit"] > 0, 30)
        there.send(SIZE, 8 * 2 * SIZE, 10)  # slowly; no word of its end ever comes
        sending = b.measured._loads
    assert sending is not None
    wait_until("it is over", lambda: b.measured._loads is None and not sending.sending, 30)


@pytest.mark.parametrize(
    ("do", "about", "why"),
    [
        ("pour", {"size": 63, "rate": 1e6, "seconds": 1}, "out of bounds"),
        ("pour", {"size": 9217, "rate": 1e6, "seconds": 1}, "out of bounds"),
        ("pour", {"size": 500, "rate": 1e6, "seconds": 11}, "out of bounds"),
        ("pour", {"size": 500, "rate": 9 * RATE, "seconds": 1}, "rate is a number"),
        ("pour", {"size": 500, "rate": 1e6}, "seconds is a number"),
        ("pour", {"size": "x", "rate": 1e6, "seconds": 1}, "size is a number"),
        ("outer", {}, "seconds is a number"),
        ("outer", {"seconds": -1}, "seconds is a number"),
    ],
)
def test_what_cannot_be_is_refused(session: Callable[..., Far], do: str, about: dict[str, object], why: str) -> None:
    with session() as far:
        far.ask("outer", seconds=5)
        with pytest.raises(PlatformError, match=why):
            far.ask(do, **about)


def test_without_a_direct_path_the_session_goes_on_without_loads(
    edges: tuple[Edge, Edge], session: Callable[..., Far]
) -> None:
    a, b = edges
    b.reach(a, direct=False)
    with session() as far:
        for do in ("outer", "pour"):
            with pytest.raises(PlatformError, match="not direct"):
                far.ask(do, seconds=1, size=500, rate=1e6)
        assert "main" in far.usage()
    assert b.counters()["load_tx"] == 0


# ---- what the control socket answers ------------------------------------------------------------


def test_the_control_socket_opens_sends_and_tells(edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    methods = bench_methods(a)  # type: ignore[arg-type]

    def ask(method: str, **about: object) -> Any:
        return asyncio.run(methods[method]({"mac": str(B), **about}))  # type: ignore[arg-type]

    token = b.loads().open(30)
    ask("bench_outer", token=token.hex(), seconds=30)
    ask("bench_outer_send", size=172, rate=8 * 172 * 400, seconds=0.1, questions=True)
    wait_until("it has ended", lambda: not ask("bench_outer_look")["sending"], 30)
    sent = ask("bench_outer_look")["sent"]
    wait_until("all are back", lambda: len(ask("bench_outer_look", trips=True)["trips"]) == sent > 0, 30)
    ask("bench_outer_close")
    assert a.measured._loads is None
    for about in ({"token": "xx"}, {"token": "z" * 16}, {"token": token.hex(), "seconds": 121}, {"mac": "x"}):
        with pytest.raises(ConfigError):
            ask("bench_outer", **{"token": token.hex(), "seconds": 1, **about})
    for about in ({"size": 9217}, {"rate": 0}, {"rate": 1e11}, {"seconds": True}):
        with pytest.raises(ConfigError):
            ask("bench_outer_send", **{"size": 500, "rate": 1e6, "seconds": 1, **about})


# ---- what is made of it -------------------------------------------------------------------------


class Modelled(OuterPath):
    """Runs on a path of so many bits in a second, or a sender's host of so many."""

    def __init__(
        self, path: float, *, most: float = 1e9, sender: float = 1e12, loss: float = 0, back: float = 1
    ) -> None:
        found = {"peer": {"mac": str(B), "name": "b"}, "datagram": 1000}
        more: dict[str, Any] = {"usage": lambda: {"here": {}, "there": {}}, "step": lambda _: None}
        super().__init__(None, None, found, seconds=2, rate=most, **more)  # type: ignore[arg-type]
        self.path, self.sender, self.loss, self.back = path, sender, loss, back
        self.credit = 0
        self.runs: list[tuple[float, float]] = []

    def _run(self, up: bool, rate: float, seconds: float) -> _Run:
        path = self.path if up else self.path * self.back
        self.runs.append((rate, seconds))
        left = min(rate, self.sender)
        sent = int(left * seconds / 8000) if up else min(int(left * seconds / 8000), self.credit // 1000)
        received = int(min(left, path) * seconds / 8000 * (1 - self.loss))
        self.credit += received * 1000 if up else -sent * 1000
        return _Run(sent, seconds, received, received * 1000, seconds, 0, max(self.credit, 0), {"user": 1.0}, 1000)


@pytest.mark.parametrize(
    ("model", "limit", "expected"),
    [
        (Modelled(50e6), "path", 50e6),
        (Modelled(3e6), "path", 3e6),
        (Modelled(1e12), "rate", 1e9),
        (Modelled(1e12, loss=0.05), "rate", 0.95e9),
        (Modelled(1e12, most=5e6), "rate", 5e6),
        (Modelled(50e6, loss=0.2), "path", 40e6),
        (Modelled(1e12, sender=300e6), "sender", 300e6),
    ],
    ids=range(7),
)
def test_the_throughput_of_a_path_is_found(model: Modelled, limit: str, expected: float) -> None:
    found = model._flood(up=True)
    assert (found.limit, found.at_least) == (limit, limit != "path")
    assert found.bits_per_second == pytest.approx(expected, rel=0.05)
    assert found.seconds == 2
    assert found.cpu["here"]["n2n-load"] == {"user": 1.0}
    rates = [rate for rate, _ in model.runs]
    assert rates[0] <= 10e6
    assert all(after <= 2 * before for before, after in itertools.pairwise(rates))
    too_much = [seconds for rate, seconds in model.runs if rate > 1.2 * model.path]
    assert max(too_much, default=0) <= 0.1 or model.path < 5e6, "a narrow path is overloaded for moments only"


def test_what_comes_back_is_paid_for() -> None:
    model = Modelled(20e6, back=100)
    up, down = model._flood(up=True), model._flood(up=False)
    assert up.limit == "path"
    assert (down.limit, down.at_least) == ("credit", True)
    assert down.bits_per_second > up.bits_per_second
    model = Modelled(20e6)
    up, down = model._flood(up=True), model._flood(up=False)
    assert (down.limit, down.seconds) == ("path", pytest.approx(2, rel=0.3))
    model = Modelled(0)
    up, down = model._flood(up=True), model._flood(up=False)
    assert (up.received, down.received, down.limit) == (0, 0, "credit")
    assert model.runs[-1][1] <= 0.1, "what nobody pays for is not even asked for"


def run_of(**about: Any) -> _Run:
    given = {"sent": 1000, "received": 1000, "sent_seconds": 1.0, "seconds": 1.0, "overflows": 0, **about}
    return _Run(bytes=0, credit=0, cpu={}, size=1000, **given)


@pytest.mark.parametrize(
    ("run", "offered", "limit"),
    [
        (run_of(), 8e6, "load"),
        (run_of(received=900, overflows=90), 8e6, "receiver"),
        (run_of(received=900, overflows=10), 8e6, "path"),
        (run_of(seconds=1.5), 8e6, "path"),
        (run_of(), 20e6, "sender"),
        (run_of(sent=0, received=0, sent_seconds=0.0, seconds=0.0), 8e6, "sender"),
    ],
    ids=range(6),
)
def test_what_set_the_limit_is_told(run: _Run, offered: float, limit: str) -> None:
    assert _limit(run, offered, 1e9, False) == limit


def test_nothing_of_the_peer_is_believed_unchecked() -> None:
    answer: dict[str, Any] = {"sent": "x", "bytes": -5, "span_ns": 1e300, "cpu": [], "why": "\x1b[31m" + "n" * 999}
    far = SimpleNamespace(ask=lambda do, **_: answer)
    found = _There(far, "b").look()  # type: ignore[arg-type]
    assert (found["sent"], found["bytes"], found["span_ns"], found["credit"]) == (0, 0, 0, 0)
    assert found["cpu"] == {"user": 0, "system": 0}
    assert "\x1b" not in found["why"]
    assert len(found["why"]) <= 200
    with pytest.raises(PlatformError, match="no token"):
        _There(far, "b").open(1)  # type: ignore[arg-type]


def test_a_load_that_ended_early_is_no_figure() -> None:
    model = Modelled(1e6)
    sender = SimpleNamespace(look=lambda: {"sending": False, "why": "the path has changed"})
    with pytest.raises(NotReady, match="the path has changed"):
        model._ended(sender, 0)  # type: ignore[arg-type]


def test_who_waits_for_what_does_not_come_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Modelled(1e6)
    model._quiet = 0.05
    begin = time.monotonic()
    receiver = SimpleNamespace(look=lambda: {"datagrams": 3})
    assert model._arrived(receiver, 10)["datagrams"] == 3  # type: ignore[arg-type]
    assert time.monotonic() - begin >= 0.05


def results(why: str = "") -> PeerResults:
    flood = Flood(1_000_000, 1.0, {"here": {"n2n-load": {"user": 0.5, "system": 0.5}}}, 1100, 1000, 9e6, "path")
    least = Flood(1_000_000, 1.0, {}, 1000, 1000, 8e6, "rate")
    times = summarize([1e6, 2e6])
    ways = [] if why else [Way("outer", "direct", 2, 2, times, 1e6, flood, least)]
    stretch = Stretch(1, 1.0, {})
    ways.append(Way("tunnel", "direct", 2, 2, times, 1e6, stretch, stretch))
    return PeerResults({"name": "b", "virtual_ip": "10.0.0.2"}, times, ways, why)


def test_people_are_told_what_the_figures_are_worth(capsys: pytest.CaptureFixture[str]) -> None:
    _print(results())
    out = capsys.readouterr().out
    assert ">= 8" in out
    assert "outer, up: 1100 datagrams in 1.0 s, 9.1 % lost; the path takes no more" in out
    assert "outer, down: 1000 datagrams in 1.0 s, 0.0 % lost; at least; no more was agreed (--rate)" in out
    assert "n2n-load" in out
    _print(results("there is no direct path"))
    out = capsys.readouterr().out
    assert "there is no direct path" in out
    assert "2 probes" in out


def test_programs_are_told_in_stable_fields() -> None:
    found = results().as_json()
    assert found["outer"]["not_measured"] is None
    up = found["ways"][0]["up"]
    assert {key: up[key] for key in ("sent", "received", "loss_percent", "limit", "at_least")} == {
        "sent": 1100, "received": 1000, "loss_percent": 9.091, "limit": "path", "at_least": False,
    }  # fmt: skip
    assert "limit" not in found["ways"][1]["up"], "of the streams in the tunnel only the outer loads tell that"
    assert found["ways"][0]["way"] == "outer"
