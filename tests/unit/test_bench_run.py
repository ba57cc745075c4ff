"""Runs of the benchmark: options, turns, what is left out, and real measurements that need no rights."""

from __future__ import annotations

import asyncio
import threading

import pytest

import n2n
from n2n.bench import COMPONENTS, Options, run, taptest
from n2n.bench.measure import Trial, batches, exchange, in_turns
from n2n.bench.results import Part
from n2n.errors import ConfigError, NotReady
from n2n.lab import topology
from n2n.lab.namespaces import wait_until


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"components": ("udp", "tea")}, "no component 'tea'"),
        ({"iterations": 0}, "0 iterations"),
        ({"iterations": 1_000_001}, "iterations"),
        ({"packet_sizes": ()}, "1 to 32 packet sizes"),
        ({"packet_sizes": (64,) * 33}, "1 to 32 packet sizes"),
        ({"packet_sizes": (64, 63)}, "packet size 63"),
        ({"packet_sizes": (9001,)}, "packet size 9001"),
        ({"rounds": 0}, "0 rounds"),
        ({"rounds": 101}, "101 rounds"),
    ],
)
def test_impossible_options_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Options(**settings)


def trials(log: list[tuple[str, int]]) -> list[Trial]:
    def one(name: str) -> Trial:
        def work(packets: int) -> Part:
            log.append((name, packets))
            return Part([1.0] * packets, packets, packets, packets)

        return Trial("X", 64, name, work)

    return [one(name) for name in "abc"]


def test_rounds_take_turns_and_begin_with_another_trial_each():
    log: list[tuple[str, int]] = []
    told: list[str] = []
    rows = in_turns(trials(log), 11, 3, told.append)
    assert [name for name, _ in log] == ["a", "b", "c", *"abc", *"bca", *"cab"]  # warm-up first
    assert [packets for name, packets in log[3:] if name == "a"] == [3, 4, 4]
    assert [row.sent for row in rows] == [11] * 3, "what only warmed up does not count"
    assert [len(row.medians) for row in rows] == [3] * 3
    assert len(told) == 9


def test_there_are_no_more_rounds_than_packets():
    log: list[tuple[str, int]] = []
    rows = in_turns(trials(log), 2, 5, lambda _: None)
    assert [len(row.medians) for row in rows] == [2] * 3


def test_packets_are_cut_into_batches_and_a_rest():
    assert list(batches(64 * 3 + 1, 64)) == [(3, 64), (1, 1)]
    assert list(batches(0, 64)) == []


class Fake:
    def __init__(self, size: int) -> None:
        self.size = size
        self.calls: list[int] = []

    def run(self, count: int, timeout_ms: int = 1000) -> tuple[list[int], int, int]:
        self.calls.append(count)
        return [100 * self.size] * count, count * self.size, count * self.size - 1


def test_a_batch_s_time_is_divided_by_its_packets_and_calls_are_short():
    made: list[Fake] = []

    def make(size: int) -> Fake:
        made.append(Fake(size))
        return made[-1]

    clock = iter([5, 9])
    part = exchange(make, 4, lambda: next(clock))(4 * 600 + 3)
    assert set(part.times) == {100.0}
    assert (part.sent, part.received, part.cpu) == (2403, 2400, 4)
    assert [one.calls for one in made] == [[500, 100], [1]]
    assert exchange(make, 4, lambda: None)(4).cpu is None


def test_serialization_and_sockets_are_measured_without_rights():
    told: list[tuple[int, int, str]] = []
    options = Options(components=("udp", "protocol"), iterations=300, packet_sizes=(64, 1400), rounds=3)
    results = run(options, lambda *step: told.append(step))
    assert [row.component for row in results.rows] == [COMPONENTS["protocol"]] * 8 + [COMPONENTS["udp"]] * 4
    assert {(row.sent, row.received, len(row.medians)) for row in results.rows} == {(300, 300, 3)}
    for row in results.rows:
        at = row.latency
        assert 0 < at.min <= at.median <= at.p95 <= at.p99 <= at.max
        assert row.cpu >= 0
        assert row.total > 0
    assert told[-1] == (36, 36, "done")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert results.left_out == []
    assert results.machine["cipher"] in ("libcrypto", "ipsec-mb")


def test_sealing_costs_more_than_not_sealing():
    rows = run(Options(components=("protocol",), iterations=6400, packet_sizes=(1400,))).rows
    median = {row.variant: row.latency.median for row in rows}
    assert median["VFuze, sealed"] > 2 * median["VFuze, plain"]
    assert median["ProtoV, sealed"] > 2 * median["ProtoV, plain"]


def test_what_there_are_no_rights_for_is_left_out_with_the_reason(monkeypatch):
    def refuse(*_: str) -> None:
        raise PermissionError("needs root: use sudo")

    monkeypatch.setattr(topology, "need_rights", refuse)
    results = run(Options(iterations=20, packet_sizes=(64,), rounds=1))
    assert {row.component for row in results.rows} == {COMPONENTS["protocol"], COMPONENTS["udp"]}
    assert [(one.component, one.reason) for one in results.left_out] == [
        (COMPONENTS[name], "needs root: use sudo") for name in ("tap", "path")
    ]
    with pytest.raises(PermissionError, match="sudo"):
        taptest(10, 64)


@pytest.fixture
def supernode():
    """One that serves in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = n2n.Supernode(listen_address="127.0.0.1:0", state_dir=None)

    def call(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    call(made.start())
    yield made
    call(made.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def test_the_complete_path_through_a_given_supernode_needs_no_rights(supernode):
    where = str(supernode.local)
    options = Options(components=("path",), iterations=70, packet_sizes=(64,), rounds=1, supernode=where)
    rows = run(options).rows
    kinds = [row.variant.removeprefix(f"through {where}, ").split(", ") for row in rows]
    assert [kind[1:] for kind in kinds] == [
        [kind, how] for kind in ("plain", "sealed") for how in ("one at a time", "64 at once")
    ]
    assert {kind[0] for kind in kinds} <= {"direct", "relay", "mixed"}
    assert all(row.received > 0 and row.sent == 70 for row in rows)
    names = {view.name for view in supernode.core.communities()}
    assert names == {"n2n-bench", "n2n-bench-sealed"}
    # Their leave is opened by another thread, after they have gone.
    wait_until("they left", lambda: not sum(view.members for view in supernode.core.communities()), 30)


def test_a_supernode_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("n2n.bench.through._PATIENCE", 0.3)
    with pytest.raises(NotReady, match=r"127\.0\.0\.1:9"):
        run(Options(components=("path",), iterations=10, supernode="127.0.0.1:9"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"supernode": "foo"}, "supernode_addr: 'foo' does not end in a port"),
        ({"supernode": "http://a:1"}, "without http"),
        ({"community": ""}, "a community's name has 1 to 1024 bytes"),
        ({"community": "c" * 1020}, "a community's name has 1 to 1024 bytes"),
    ],
)
def test_where_the_edges_meet_is_looked_at_also_if_none_are_started(settings, said):
    with pytest.raises(ConfigError, match=said):
        Options(components=("udp",), **settings)
