"""The benchmark with real TAP devices and the complete path, briefly."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from n2n.bench import Options, run, taptest
from n2n.bench.results import COLUMNS
from n2n.lab import cleaner
from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab
from tests.netns.longline import LongLine
from tests.netns.test_docs_commands import faults, shape

LIMIT = 120
N2N = [sys.executable, "-m", "n2n"]
HOWS = ("one at a time", "64 at once")


def test_frames_go_through_a_tap_device_and_back() -> None:
    before = sorted(os.listdir("/sys/class/net"))
    found = taptest(iterations=200, size=1024)
    assert (found.component, found.size, found.sent, found.received) == ("TAP Device", 1024, 200, 200)
    assert 0 < found.latency.min <= found.latency.median <= found.latency.max
    (small, jumbo) = (
        row
        for row in run(Options(components=("tap",), iterations=130, rounds=2, packet_sizes=(64, 9000))).rows
        if row.variant == "64 at once"
    )
    assert (small.received, jumbo.received) == (130, 130)
    assert sorted(os.listdir("/sys/class/net")) == before, "the host's own network is not touched"


def test_everything_is_measured_by_the_command_and_written(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    command = [*N2N, "bench", "--allcomponents", "--output", str(path)]
    command += ["--iterations", "128", "--rounds", "2", "--packet-size", "64,1400", "--strict", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert not cleaner.namespaces_of(f"n2n-{process.pid}")
    with path.open() as file:
        assert file.readline() == ",".join(COLUMNS) + "\n"
        rows = list(csv.DictReader(file, fieldnames=COLUMNS))
    paths = {row["Variant"]: row for row in rows if row["Component"] == "Complete Path"}
    assert list(paths) == [
        f"{way}, {kind}, {how}" for way in ("relay", "direct") for kind in ("plain", "sealed") for how in HOWS
    ]
    assert {row["Component"] for row in rows} == {
        "Protocol Serialization", "UDP Socket", "TAP Device", "Complete Path"
    }  # fmt: skip
    assert {(row["PacketsSent"], row["Rounds"]) for row in rows} == {("128", "2")}
    for row in rows:
        assert 0 < int(row["PacketsReceived"]) <= 128
        assert int(row["MinLatency"]) <= int(row["MedianLatency"]) <= int(row["P99Latency"]) <= int(row["MaxLatency"])
    found = json.loads(out)
    assert found["left_out"] == []
    assert wrong_fields(found, "n2n bench") == ["n2n bench.compare"], "there is none without --compare"
    assert "cores" in found["machine"]
    again = [
        *N2N,
        "bench",
        "--component",
        "udp",
        "--iterations",
        "64",
        "--rounds",
        "1",
        "--packet-size",
        "64",
        "--json",
    ]
    told = subprocess.run([*again, "--compare", str(path)], check=True, capture_output=True, text=True, timeout=LIMIT)
    assert len(json.loads(told.stdout)["compare"]) == 2
    assert wrong_fields(json.loads(told.stdout), "n2n bench") == []
    cpu = [row["cpu_ns_per_packet"] for row in found["results"] if row["component"] == "Complete Path"]
    assert None not in cpu


def test_taptest_prints_percentiles() -> None:
    told = subprocess.run(
        [*N2N, "taptest", "--iterations", "10", "--json"], check=True, capture_output=True, text=True, timeout=60
    )
    assert wrong_fields(json.loads(told.stdout), "n2n taptest") == []
    done = subprocess.run(
        [*N2N, "taptest", "--iterations", "100", "--size", "512"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "100 of 512 bytes, 0 lost" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "frames", "min", "mean", "median", "p95", "p99", "max", "rate",
    ]  # fmt: skip


def test_an_edge_measures_the_way_to_one_that_has_agreed() -> None:
    with Lab() as lab:
        switch = lab.switch()
        for number, name in enumerate(("sn", "a", "b"), start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")
        supernode = SupernodeNode(lab.hosts["sn"])
        a = EdgeNode(lab.hosts["a"], supernode)
        b = EdgeNode(lab.hosts["b"], supernode, allow_bench=True)
        start_all(supernode, [a, b])

        def bench(here: EdgeNode, *words: str) -> subprocess.CompletedProcess[str]:
            return here.host.run(*N2N, "bench", *words, check=False, env={"N2N_RUN_DIR": str(here.run_dir)})

        done = bench(a, "b", "--seconds", "0.4", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["peer"]["name"], found["peer"]["path"]) == ("b", "direct")
        assert [(way["way"], way["path"]) for way in found["ways"]] == [
            ("outer", "direct"), ("tunnel", "direct"), ("relay", "relay"),
        ]  # fmt: skip
        streams = [way[direction] for way in found["ways"] for direction in ("up", "down")]
        lacking = {"sent", "received", "loss_percent", "offered_bits_per_second", "limit", "at_least"}
        for stream in streams[2:]:  # of the tunnel and the relay
            assert not lacking & set(stream)
            stream.update(dict.fromkeys(lacking))
        assert wrong_fields(found, "n2n bench PEER") == []
        for way in found["ways"]:
            assert way["received"] > 0
            assert 0 < way["latency_ns"]["min"] <= way["latency_ns"]["p95"]
            assert way["up"]["bits_per_second"] > 0
            assert way["down"]["bits_per_second"] > 0
            assert "n2n-plane" in way["up"]["cpu_seconds"]["there"]
        assert found["outer"]["probes"] > 0
        assert found["outer"]["not_measured"] is None
        outer = found["ways"][0]
        assert "n2n-load" in outer["up"]["cpu_seconds"]["here"]
        assert "n2n-load" in outer["down"]["cpu_seconds"]["there"]
        counted = b.counters()
        assert 0 < counted["plane_load_tx"] <= counted["plane_load_rx"], "it sends no more than it got"
        assert b.counters()["daemon_bench_sessions"] == 1

        refused = bench(b, "a")
        assert refused.returncode == 1
        assert "allow_bench" in refused.stderr
        # Whoever sends loads all the same is not answered, and keeps nobody busy.
        b.call("bench_outer", mac=a.mac, token="00" * 8, seconds=20)
        before = a.counters()
        for questions in (True, False):
            b.call("bench_outer_send", mac=a.mac, size=500, rate=4e6, seconds=0.1, questions=questions)
            wait_until("all are sent", lambda: not b.call("bench_outer_look", mac=a.mac)["sending"], 30)
        after = a.counters()
        assert after["plane_drop_load"] > before["plane_drop_load"] + 50
        assert [after[f"plane_load_{what}"] - before[f"plane_load_{what}"] for what in ("rx", "tx", "answered")] == [
            0
        ] * 3
        assert b.call("bench_outer_look", mac=a.mac, trips=True)["trips"] == []
        table = bench(a, b.address, "--seconds", "0.2")
        assert table.returncode == 0, table.stderr
        assert "JITTER" in table.stdout

        # From the network beneath, nobody sees that it listens.
        outside = lab.hosts["sn"].run(sys.executable, "-c", KNOCK.format(b.host.addr), check=False)
        assert outside.stdout.strip() == "refused", outside.stderr


def test_what_a_path_takes_and_loses_outside_of_the_tunnel_is_told() -> None:
    delay, loss = 0.02, 0.04
    with Lab() as lab:
        switch = lab.switch()
        for number, name in enumerate(("sn", "a"), start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24", gateway="198.18.0.254")
        router, far = lab.host("r"), lab.host("b")
        router.attach(switch, "198.18.0.254/24")
        with router.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        with LongLine(router, far, delay=delay, loss=loss):
            router.namespace.ip("route", "add", "198.18.1.0/24", "dev", "line")
            far.namespace.ip("address", "add", "198.18.1.2/24", "dev", "line")
            far.namespace.ip("route", "add", "default", "dev", "line")
            supernode = SupernodeNode(lab.hosts["sn"])
            a = EdgeNode(lab.hosts["a"], supernode)
            b = EdgeNode(far, supernode, allow_bench=True)
            start_all(supernode, [a, b])
            done = a.host.run(
                *N2N, "bench", "b", "--seconds", "0.8", "--rate", "20", "--json",
                check=False, env={"N2N_RUN_DIR": str(a.run_dir)},
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["outer"]["not_measured"] is None
        outer = found["ways"][0]
        assert outer["way"] == "outer"
        assert outer["sent"] > 100
        assert 100 * loss / 8 < outer["loss_percent"] < 100 * loss * 2.5
        there_and_back = 2 * delay * 1e9
        assert there_and_back <= outer["latency_ns"]["min"]
        assert outer["latency_ns"]["median"] < 1.5 * there_and_back
        assert outer["jitter_ns"] < there_and_back
        assert 100 * loss / 3 < outer["up"]["loss_percent"] < 100 * loss * 2.5
        assert outer["down"]["loss_percent"] < 100 * loss / 3
        for way in (outer["up"], outer["down"]):
            assert 10e6 < way["bits_per_second"] < 20.5e6
            assert way["received"] == way["sent"] - round(way["loss_percent"] * way["sent"] / 100)


def documented(command: str) -> Any:
    """The fields that docs/BENCHMARK.md names, in the notation of docs/JSON.md."""
    text = (Path(__file__).parents[2] / "docs" / "BENCHMARK.md").read_text()
    found = re.search(rf"^`{command}`[^\n]*\n\n(    \{{.*\n(?:    .*\n)*)", text, re.MULTILINE)
    assert found is not None
    return shape(found[1])


def wrong_fields(found: dict[str, Any], command: str) -> list[str]:
    return faults(found, documented(command), command)


KNOCK = """
import socket
try:
    socket.create_connection(("{}", 7779), timeout=10)
    print("open")
except ConnectionRefusedError:
    print("refused")
"""
