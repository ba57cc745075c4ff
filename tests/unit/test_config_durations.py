"""Durations in Go's notation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.config import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("2h", 7200),
        ("1h2m3s", 3723),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("250ms", 0.25),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("5ns", 5e-9),
        ("0", 0),
        ("0s", 0),
        ("30s1m", 90),
        ("100m", 6000),
    ],
)
def test_reading(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", ["30", "1.5", "007"])
def test_a_bare_number_asks_for_its_unit(text):
    with pytest.raises(ValueError, match=f"has no unit: write {text}s"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1",
        "1d",
        "1x",
        "-1s",
        "+1s",
        "1 s",
        " 1s",
        "1s ",
        "1..5s",
        "1s2",
        "1S",
        "١s",
        "1e3s",
        "9" * 70 + "s",
        "1h-2m",
    ],
)
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match=r"duration|no unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (10, "10s"),
        (90, "1m30s"),
        (600, "10m"),
        (7200, "2h"),
        (3723, "1h2m3s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (61.25, "1m1.25s"),
    ],
)
def test_writing(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**12).map(lambda micros: micros / 1e6))
def test_what_is_written_reads_the_same(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
