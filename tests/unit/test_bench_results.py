"""Rows, CSV and comparison of the benchmark."""

from __future__ import annotations

import csv
import json
import math

import pytest

from n2n.bench import LeftOut, Results, compare, read_csv
from n2n.bench.results import COLUMNS, Measurement, Part, measurement
from n2n.errors import ConfigError, PlatformError

FIRST = (
    "Component,PacketSize,PacketsSent,PacketsReceived,MinLatency,AvgLatency,MedianLatency,P95Latency,P99Latency,"
    "MaxLatency,TotalTime"
)


def row(variant: str = "one", scale: float = 1.0, *, size: int = 64) -> Measurement:
    parts = [
        Part([10 * scale, 20 * scale], 2, 2, int(40 * scale), cpu=30),
        Part([30 * scale, 40 * scale], 3, 2, int(80 * scale), cpu=50),
    ]
    return measurement("UDP Socket", size, variant, parts)


def test_rounds_become_one_row():
    found = row()
    assert (found.sent, found.received, found.lost, found.total) == (5, 4, 1, 120)
    assert (found.latency.min, found.latency.median, found.latency.max) == (10, 25, 40)
    assert found.medians == (15, 35)
    assert (found.spread.min, found.spread.median, found.spread.max) == (15, 25, 35)
    assert found.cpu == 20
    assert found.packets_per_second == pytest.approx(4e9 / 120)
    assert found.bits_per_second == pytest.approx(4e9 / 120 * 512)


def test_what_is_not_known_is_no_number_and_null():
    found = measurement("UDP Socket", 64, "one", [Part([], 5, 0, 100), Part([3], 1, 1, 10, cpu=4)])
    assert math.isnan(found.cpu)
    assert found.medians[0] != found.medians[0]
    assert found.spread.min == found.spread.max == 3
    nothing = measurement("UDP Socket", 64, "one", [Part([], 5, 0, 0)])
    assert json.loads(json.dumps(nothing.as_json(), allow_nan=False))["latency_ns"]["median"] is None
    assert nothing.as_json()["packets_per_second"] is None


def test_the_csv_begins_with_the_columns_of_the_reference(tmp_path):
    path = tmp_path / "results.csv"
    Results({}, [row(), row("two, at once")]).write_csv(path)
    lines = path.read_text().splitlines()
    assert lines[0].startswith(f"{FIRST},")
    assert lines[0] == ",".join(COLUMNS)
    rows = list(csv.DictReader(lines))
    assert [one["Variant"] for one in rows] == ["one", "two, at once"]
    for name in FIRST.split(",")[1:]:
        assert rows[0][name].isdigit(), name
    assert (rows[0]["PacketsSent"], rows[0]["MedianLatency"], rows[0]["TotalTime"]) == ("5", "25", "120")
    assert rows[0]["MiddleMedian"] == "25.00"


def test_a_csv_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "results.csv"
    written = [row(), row("two, at once", 3.3, size=1400), measurement("TAP Device", 64, "x", [Part([], 5, 0, 7)])]
    Results({}, written).write_csv(path)
    read = read_csv(path)
    assert [one.key for one in read] == [one.key for one in written]
    for old, new in zip(written, read, strict=True):
        assert (new.sent, new.received, new.total) == (old.sent, old.received, old.total)
        assert new.spread.median == pytest.approx(old.spread.median, abs=0.01, nan_ok=True)
    assert [ratio.latency for ratio in compare(read, written)][:2] == [pytest.approx(1, rel=1e-3)] * 2


def test_a_file_with_the_eleven_columns_alone_will_do(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text(f"{FIRST}\nUDP Socket,64,10,10,1,2,30,4,5,6,100\n")
    (old,) = read_csv(path)
    assert (old.variant, old.spread.min, old.spread.max, old.latency.median) == ("", 30, 30, 30)


def test_ratios_have_the_spread_of_both_runs():
    (ratio,) = compare([row()], [row(scale=2), row("only now")])
    assert ratio.latency == 2
    assert (ratio.low, ratio.high) == (pytest.approx(30 / 35), pytest.approx(70 / 15))
    assert ratio.rate == pytest.approx(0.5)
    assert ratio.as_json()["latency_ratio"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column Component"),
        ("a,b\n1,2\n", "no column Component"),
        (f"{FIRST}\nUDP Socket,64,x,10,1,2,3,4,5,6,100\n", "old.csv:2: PacketsSent 'x' is not a number"),
        (f"{FIRST}\nUDP Socket,64\n", "old.csv:2: PacketsSent"),
        (f"{FIRST}\nUDP Socket,64,nan,10,1,2,3,4,5,6,100\n", "old.csv:2: PacketsSent nan is not a possible value"),
        (f"{FIRST}\nUDP Socket,64,-1,10,1,2,3,4,5,6,100\n", "not a possible value"),
        (f"{FIRST}\nUDP Socket,64,1e400,10,1,2,3,4,5,6,100\n", "not a possible value"),
        (f'{FIRST}\n"UDP Socket,64,1,10,1,2,3,4,5,6,100\n', "unexpected end"),
        (f"{FIRST}\n" + "UDP Socket,64,1,1,1,2,3,4,5,6,100\n" * 10_001, "more than 10,000 rows"),
        (f"{FIRST}\n" + "x" * (5 << 20), "longer than 4 MiB"),
    ],
    ids=range(10),
)
def test_what_is_no_result_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "old.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read_csv(path)
    assert said in str(refusal.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text"):
        read_csv(tmp_path / "x")
    with pytest.raises(ConfigError, match="No such file"):
        read_csv(tmp_path / "y")


def test_what_cannot_be_written_says_so(tmp_path):
    with pytest.raises(PlatformError, match="--output"):
        Results({}).write_csv(tmp_path / "no" / "such" / "folder.csv")


def test_json_tells_what_was_left_out():
    results = Results({"cores": 2}, [row()], [LeftOut("TAP Device", PermissionError("needs root"))])
    found = json.loads(json.dumps(results.as_json()))
    assert found["left_out"] == [{"component": "TAP Device", "reason": "needs root"}]
    assert found["results"][0]["latency_ns"]["p95"] == pytest.approx(38.5)
