"""Plots as SVG: bars with whiskers and lines with whiskers, several panels in one picture.

The picture brings its own background and follows the reader's light or dark scheme, so that it is readable wherever it
is shown. A whisker runs from the lowest to the highest round, the bar or point is the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from textwrap import wrap

__all__ = ["COLOURS", "GREY", "Bar", "Panel", "Point", "Series", "number", "picture", "plain", "ticks"]

_STYLE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1c2128}
.plate{fill:#ffffff}.head{font-size:16px;font-weight:600}.title{font-size:13px;font-weight:600}
.small{font-size:11px;fill:#57606a}.grid{stroke:#d0d7de;stroke-width:1}.axis{stroke:#57606a;stroke-width:1}
.whisker{stroke:#1c2128;stroke-width:1.5;fill:none}.line{fill:none;stroke-width:2}
.f0{fill:#2f6fb3}.f1{fill:#b9541a}.f2{fill:#2b8056}.f3{fill:#8550b8}.f4{fill:#a3791a}.f5{fill:#8c959f}
.s0{stroke:#2f6fb3}.s1{stroke:#b9541a}.s2{stroke:#2b8056}.s3{stroke:#8550b8}.s4{stroke:#a3791a}.s5{stroke:#8c959f}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.plate{fill:#0d1117}.small{fill:#9aa4af}.grid{stroke:#30363d}.axis{stroke:#9aa4af}
.whisker{stroke:#e6edf3}
.f0{fill:#5b9fe3}.f1{fill:#ee8a4f}.f2{fill:#4fb283}.f3{fill:#b58be0}.f4{fill:#d4a72c}.f5{fill:#6e7681}
.s0{stroke:#5b9fe3}.s1{stroke:#ee8a4f}.s2{stroke:#4fb283}.s3{stroke:#b58be0}.s4{stroke:#d4a72c}.s5{stroke:#6e7681}
}"""
COLOURS = 6
GREY = 5
_CHARACTER = 7.0  # width of one at 12 px, near enough to leave room
_ROW = 22


@dataclass(frozen=True)
class Point:
    """A median with its spread.

    Args:
        x: position in a line plot; of no account in bars.
    """

    median: float
    low: float
    high: float
    x: float = 0.0


@dataclass(frozen=True)
class Bar:
    """One row of a bar plot; `colour` is 0 to 5 (5: grey)."""

    label: str
    point: Point
    colour: int = 0


@dataclass(frozen=True)
class Series:
    """One line of a line plot; `colour` is 0 to 5 (5: grey), without one its place among the others."""

    label: str
    points: Sequence[Point]
    colour: int | None = None


@dataclass
class Panel:
    """One plot: with `bars`, or with `series`.

    Args:
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis of a line plot.
        log_x: the horizontal axis of a line plot is logarithmic.
    """

    title: str
    x_label: str
    y_label: str = ""
    bars: Sequence[Bar] = field(default_factory=list)
    series: Sequence[Series] = field(default_factory=list)
    log_x: bool = False

    def height(self) -> float:
        return 34 + (len(self.bars) * _ROW if self.bars else 240 + 18 * math.ceil(len(self.series) / 2)) + 46


def number(value: float) -> str:
    """Three digits that count, no exponents, a comma between thousands."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def plain(value: float) -> str:
    """A mark of an axis."""
    return f"{value:,.10g}"


def ticks(highest: float, about: int = 5) -> list[float]:
    """Round values from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    raw = highest / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [n * step for n in range(math.ceil(highest / step - 1e-9) + 1)]


def _text(x: float, y: float, words: str, css: str = "", anchor: str = "start", *, more: str = "") -> str:
    attributes = f' class="{css}"' if css else ""
    anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}{anchor}{more}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def _bars(panel: Panel, x0: float, y0: float, width: float) -> list[str]:
    """A bar plot in the rectangle that starts at (x0, y0)."""
    left = x0 + 12 + max((len(bar.label) for bar in panel.bars), default=0) * _CHARACTER
    right = x0 + width - 64  # room for the number behind the longest bar
    top, bottom = y0 + 30, y0 + 30 + len(panel.bars) * _ROW
    marks = ticks(max((bar.point.high for bar in panel.bars if not math.isnan(bar.point.high)), default=1))
    scale = (right - left) / marks[-1]
    out = [_text(x0, y0 + 14, panel.title, "title")]
    for mark in marks:
        x = left + mark * scale
        out += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 15, plain(mark), "small", "middle")]
    out.append(_text((left + right) / 2, bottom + 32, panel.x_label, "small", "middle"))
    for row, bar in enumerate(panel.bars):
        y, point = top + row * _ROW, bar.point
        out.append(_text(left - 6, y + 15, bar.label, "", "end"))
        if math.isnan(point.median):
            out.append(_text(left + 6, y + 15, "no value", "small"))
            continue
        length = max(point.median * scale, 1.0)
        out.append(f'<rect x="{left:.1f}" y="{y + 4:.1f}" width="{length:.1f}" height="14" class="f{bar.colour}"/>')
        low, high, middle = left + point.low * scale, left + point.high * scale, y + 11
        if point.high > point.low:
            out.append(
                f'<path d="M{low:.1f} {middle - 4}V{middle + 4}M{low:.1f} {middle}H{high:.1f}'
                f'M{high:.1f} {middle - 4}V{middle + 4}" class="whisker"/>'
            )
        out.append(_text(max(high, left + length) + 5, y + 15, number(point.median), "small"))
    out.append(_line(left, top, left, bottom, "axis"))
    return out


def _marker(shape: int, x: float, y: float) -> str:
    css = f"f{shape % COLOURS}"
    if shape % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{css}"/>'
    if shape % 3 == 1:
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" class="{css}"/>'
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 8.5h-10z" class="{css}"/>'


def _lines(panel: Panel, x0: float, y0: float, width: float) -> list[str]:
    """A line plot in the rectangle that starts at (x0, y0)."""
    left, right, top = x0 + 74, x0 + width - 14, y0 + 30
    bottom = top + 220
    points = [point for series in panel.series for point in series.points if not math.isnan(point.median)]
    marks = ticks(max((point.high for point in points), default=1))
    xs = sorted({point.x for point in points}) or [0.0, 1.0]
    move = math.log if panel.log_x else float
    low, span = move(xs[0]), (move(xs[-1]) - move(xs[0])) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + 10 + (move(x) - low) / span * (right - left - 20), bottom - y / marks[-1] * (bottom - top)

    out = [_text(x0, y0 + 14, panel.title, "title")]
    for mark in marks:
        y = at(xs[0], mark)[1]
        out += [_line(left, y, right, y, "grid"), _text(left - 6, y + 4, plain(mark), "small", "end")]
    last = -math.inf
    for value in xs:
        x = at(value, 0)[0]
        out.append(_line(x, bottom, x, bottom + 4, "axis"))
        if x - last >= 8 + len(plain(value)) * 6:  # where two would touch, the second goes without
            out.append(_text(x, bottom + 16, plain(value), "small", "middle"))
            last = x
    out += [_line(left, bottom, right, bottom, "axis"), _line(left, top, left, bottom, "axis")]
    out.append(_text((left + right) / 2, bottom + 34, panel.x_label, "small", "middle"))
    turn = f' transform="rotate(-90 {x0 + 10:.1f} {(top + bottom) / 2:.1f})"'
    out.append(_text(x0 + 10, (top + bottom) / 2, panel.y_label, "small", "middle", more=turn))
    for index, series in enumerate(panel.series):
        shape = index if series.colour is None else series.colour
        good = sorted((point for point in series.points if not math.isnan(point.median)), key=lambda point: point.x)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(point.x, point.median) for point in good))
        out.append(f'<polyline points="{path}" class="line s{shape % COLOURS}"/>')
        for point in good:
            x, y = at(point.x, point.median)
            ends = (at(point.x, point.low)[1], at(point.x, point.high)[1])
            out += [_line(x, ends[0], x, ends[1], f"line s{shape % COLOURS}"), _marker(shape, x, y)]
        column, row = index % 2, index // 2
        x, y = left + column * (right - left) / 2 + 8, bottom + 54 + row * 18
        out += [_marker(shape, x, y - 4), _text(x + 10, y, series.label)]
    return out


def picture(title: str, note: str, panels: Sequence[Panel], *, columns: int = 2, width: int = 960) -> str:
    """All panels in rows of `columns`, under a title, with a note at the foot (machine, rounds, what a whisker is)."""
    gap = 28
    each = (width - gap * (columns + 1)) / columns
    out, y = [_text(gap, 32, title, "head")], 56.0
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        for column, panel in enumerate(row):
            out += (_bars if panel.bars else _lines)(panel, gap + column * (each + gap), y, each)
        y += max(panel.height() for panel in row)
    for line in (part for words in note.splitlines() for part in wrap(words, int(width / 6.5))):
        out.append(_text(gap, y + 6, line, "small"))
        y += 16
    height = y + 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
    )
    plate = f'<rect class="plate" width="{width}" height="{height:.0f}"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", plate, *out, "</svg>"]) + "\n"
