"""The parts of the benchmarks that need no network: what they parse, how they count, what they draw."""

from __future__ import annotations

import csv
import importlib
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from n2n.bench import plot

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = ("ablation", "basic", "instructions", "paths", "relay", "scaling", "side_by_side", "sizes")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which find each other in their own folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)

    def bring(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield bring
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


# ---- counting ------------------------------------------------------------------------------------


def filled(harness: ModuleType) -> Any:
    results = harness.Results()
    for round_, (ours, other) in enumerate([(10.0, 2.0), (30.0, 3.0), (20.0, 5.0)], start=1):
        results.values.append(harness.Value("TCP", "n2n", round_, ours, "Mbit/s", foreign=0.05 * round_))
        results.values.append(harness.Value("TCP", "tinc", round_, other, "Mbit/s"))
    return results


def test_a_point_is_the_median_with_lowest_and_highest(load: Any) -> None:
    point = filled(load("harness")).point("TCP", "n2n")
    assert (point.median, point.low, point.high) == (20, 10, 30)


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_single_rounds(load: Any) -> None:
    harness = load("harness")
    point = harness.ratio(filled(harness), "TCP", "n2n", "tinc")
    assert point.median == pytest.approx(20 / 3)
    assert (point.low, point.high) == (4, 10)


def test_what_was_not_measured_is_no_number_and_no_error(load: Any) -> None:
    harness = load("harness")
    point = harness.ratio(filled(harness), "TCP", "n2n", "fastd")
    assert point.median != point.median
    assert harness.Results().point("TCP", "n2n").median != 0


def test_values_at_different_places_are_kept_apart(load: Any) -> None:
    harness = load("harness")
    results = harness.Results()
    for size, value in ((64, 1.0), (1420, 7.0)):
        results.values.append(harness.Value("rate", "on", 1, value, "1/s", x=size))
    assert results.xs("rate") == [64, 1420]
    assert results.point("rate", "on", 1420).median == 7
    assert "| rate | on | 1420 | 7 | 7 | 7 |" in results.table()


def test_csv_holds_every_single_value(load: Any, tmp_path: Path) -> None:
    results = filled(load("harness"))
    results.write(tmp_path / "deep" / "x.csv")
    with (tmp_path / "deep" / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[2] == {
        "measure": "TCP",
        "variant": "n2n",
        "x": "",
        "round": "2",
        "value": "30",
        "unit": "Mbit/s",
        "foreign_cores": "0.10",
    }


def test_the_goals_of_the_side_by_side_run_can_be_missed(load: Any) -> None:
    load("harness")
    goals = load("side_by_side").goals
    results = filled(load("harness"))
    assert "| TCP 1 stream over tinc |" not in goals(results)  # another measure
    for one in list(results.values):
        results.add("TCP 1", one.variant, one.value * (3 if one.variant == "n2n" else 1), one.unit)
    (line,) = [line for line in goals(results).splitlines() if "over tinc" in line]
    assert line.endswith("| at least 12 | yes |")
    results.values = [one for one in results.values if one.variant == "tinc" or one.value < 40]
    (line,) = [line for line in goals(results).splitlines() if "over tinc" in line]
    assert line.endswith("| NO |")


# ---- a run ---------------------------------------------------------------------------------------


def run_of(harness: ModuleType, tmp_path: Path, *words: str) -> Any:
    options = harness.parser("x", rounds=2, seconds=1, minutes=1).parse_args(["--output", str(tmp_path), *words])
    return harness.Run("trial", options)


@pytest.fixture
def quiet(load: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    harness: ModuleType = load("harness")
    monkeypatch.setattr(harness, "wait_quiet", lambda: True)
    monkeypatch.setattr(harness.signal, "signal", lambda *_: None)
    return harness


def test_rounds_are_interleaved_and_begin_with_another_variant_each(quiet: ModuleType, tmp_path: Path) -> None:
    assert list(run_of(quiet, tmp_path).turns(["a", "b", "c"])) == ["a", "b", "c", "b", "c", "a"]


def test_nothing_is_started_after_the_time_limit(quiet: ModuleType, tmp_path: Path) -> None:
    run = run_of(quiet, tmp_path, "--minutes", "0")
    assert list(run.turns(["a", "b"])) == []
    assert "0 minutes are over" in run.faults[0]


def test_a_disturbed_measurement_is_repeated_and_the_quieter_one_counts(
    quiet: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbance, values = iter([0.5, 0.3]), iter([1.0, 2.0])
    monkeypatch.setattr(quiet.Watch, "__exit__", lambda self, *_: setattr(self, "cores", next(disturbance)))
    run = run_of(quiet, tmp_path)
    run.measure("TCP", "a", lambda: {"TCP": (next(values), "Mbit/s")})
    assert [(one.value, one.foreign) for one in run.results.values] == [(2.0, 0.3)]


def test_a_failed_measurement_is_told_and_the_run_goes_on(
    quiet: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(quiet, tmp_path)

    def fail() -> dict[str, tuple[float, str]]:
        raise OSError("no tunnel")

    run.measure("TCP", "a", fail)
    run.keep("b", {"TCP": (1.0, "Mbit/s")})
    run.finish("Trial", [])
    assert "no tunnel" in capsys.readouterr().out
    assert (tmp_path / "trial.csv").read_text().count("\n") == 2


def test_only_processes_that_are_not_ours_are_foreign(load: Any) -> None:
    harness = load("harness")
    line = "7 (a ) b) S 3 7 7 0 -1 4194304 0 0 0 0 " + " ".join(str(n * harness.TICKS) for n in (1, 2, 3, 4)) + " 20 0"
    usage = harness.parse_stat(line)
    assert (usage.parent, usage.seconds, usage.kernel) == (3, 10, False)
    usages = {
        1: harness.Usage(0, 1.0, False),
        2: harness.Usage(0, 50.0, True),
        10: harness.Usage(1, 100.0, False),
        11: harness.Usage(10, 100.0, False),
        12: harness.Usage(1, 4.0, False),
    }
    assert harness.foreign_seconds(usages, 10) == 5.0
    assert os.getpid() in harness.processes()


# ---- what programs print -------------------------------------------------------------------------


def test_the_receivers_view_of_iperf_counts(load: Any) -> None:
    loads = load("loads")
    far = {"end": {"streams": [{"udp": {"packets": 900, "lost_packets": 100}}]}}
    report = {"end": {"streams": [{"udp": {"packets": 1000}}]}, "server_output_json": far}
    found = loads.udp_of(report, 2.0)
    assert (found.sent, found.received, found.loss) == (500, 400, pytest.approx(20))
    with pytest.raises(load("n2n.errors").PlatformError):
        loads.udp_of({"end": {"streams": []}}, 2.0)


def test_round_trip_times_and_results_are_found_in_what_is_printed(load: Any) -> None:
    loads = load("loads")
    assert loads.times_of("64 bytes: time=0.120 ms\nrtt\n64 bytes: time=1.5 ms\n") == [120.0, 1500.0]
    assert loads.fields_of("ready\nreceived=12 bytes=340 seconds=0.5\n") == {
        "received": 12,
        "bytes": 340,
        "seconds": 0.5,
    }
    with pytest.raises(load("n2n.errors").PlatformError):
        loads.fields_of("ready\n")


def test_a_flow_becomes_the_words_that_the_c_program_takes(load: Any) -> None:
    flow = load("loads").Flow(1469, rate=5, train=44, prefix=b"\x51\x02", source=9000)
    words = flow.send("load", "198.18.0.1", 7777, 1.5)
    assert words == ["load", "send", "198.18.0.1", "7777", "1469", "1.5", "5", "44", "9000", "5102"]


PROFILE = """events: Ir
ob=/x/plane.abi3.so
fl=/y/edge.pxd
fn=__pyx_f_3n2n_9_fastpath_4edge_edge_send
3 100
fi=/y/wire.pxd
2 7
fe=/y/edge.pxd
cob=/usr/lib/libcrypto.so.3
cfn=EVP_EncryptUpdate
calls=4 10
4 5000
cfn=__pyx_f_3n2n_9_fastpath_4edge_other
calls=4 10
4 900
cob=/usr/lib/libc.so.6
cfn=__memcpy_avx_unaligned_erms
calls=1 10
4 60
ob=/usr/lib/libcrypto.so.3
fn=EVP_EncryptUpdate
0 5000
"""


def test_instructions_belong_to_the_function_around_their_line_also_where_it_was_inlined(load: Any) -> None:
    callgrind = load("callgrind")
    edge = "# head\ncdef inline void edge_send(State *s) noexcept nogil:\n    a()\n    b()\n"
    wire = 'cdef extern from *:\n    """x"""\ncdef inline uint16_t get16(const uint8_t *p) noexcept nogil:\n'
    lines = {
        "edge.pxd": callgrind.Lines.of(edge, callgrind._CYTHON),
        "wire.pxd": callgrind.Lines.of("cdef inline int get16(int p):\n    return p\n" + wire, callgrind._CYTHON),
    }
    found = callgrind.by_function(PROFILE, lines)
    assert found == {"edge_send": 100, "get16": 7, callgrind.CIPHER: 5000, "libc: memcpy": 60}


# ---- pictures ------------------------------------------------------------------------------------


def drawn() -> str:
    nan = float("nan")
    bars = [
        plot.Bar("n2n <sealed>", plot.Point(3000, 2800, 3300)),
        plot.Bar("none", plot.Point(nan, nan, nan), plot.GREY),
    ]
    points = [plot.Point(10.0 * n, 9.0 * n, 12.0 * n, x) for n, x in enumerate((64, 512, 9000), start=1)]
    panels = [
        plot.Panel("TCP", "Mbit/s", bars=bars),
        plot.Panel("Sizes", "bytes", "Mbit/s", series=[plot.Series("on & off", points)], log_x=True),
    ]
    return str(plot.picture("A & B", "a note", panels))


def test_a_picture_is_whole_labelled_and_fits_both_schemes() -> None:
    text = drawn()
    root = ET.fromstring(text)
    words = {"".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"A & B", "TCP", "Mbit/s", "bytes", "n2n <sealed>", "3,000", "no value", "on & off", "a note"} <= words
    assert "prefers-color-scheme:dark" in text
    assert 'class="plate"' in text
    assert "nan" not in text


def test_everything_in_a_picture_is_inside_of_it() -> None:
    root = ET.fromstring(drawn())
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    for one in root.iter():
        for keys, limit in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
            for key in keys:
                assert 0 <= float(one.attrib.get(key, 0)) <= limit, one.attrib


def test_a_whisker_reaches_from_the_lowest_to_the_highest() -> None:
    root = ET.fromstring(drawn())
    (bar,) = [one for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.attrib["class"] == "f0"][:1]
    (whisker,) = [one for one in root.iter("{http://www.w3.org/2000/svg}path") if one.attrib["class"] == "whisker"]
    low = float(whisker.attrib["d"][1:].split()[0])
    assert 0 < low - float(bar.attrib["x"]) < float(bar.attrib["width"])


@pytest.mark.parametrize(
    ("highest", "marks"), [(0.0, [0, 1]), (10.0, [0, 2, 4, 6, 8, 10]), (7300.0, [0, 2000, 4000, 6000, 8000])]
)
def test_marks_are_round_and_reach_the_highest(highest: float, marks: list[float]) -> None:
    assert plot.ticks(highest) == marks


# ---- the scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_how_it_is_used(
    load: Any, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(name)
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert "--output" in capsys.readouterr().out


def test_every_scenario_of_the_instruction_count_moves_its_packets(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepping = load("stepping")
    for name, (function, size, trains, sealed) in stepping.SCENARIOS.items():
        seen: list[dict[str, int]] = []
        packets = function(size, trains, sealed, lambda one, seen=seen: seen.append(one.plane.counters()))
        moved = {key: seen[1][key] - seen[0][key] for key in seen[0]}
        way = "udp_tx" if "edge out" in name else "udp_rx"
        assert moved[way] == packets, (name, moved)
        assert not [key for key in moved if key.startswith("drop") and moved[key]], (name, moved)
    stepping.udp_sink.close()
