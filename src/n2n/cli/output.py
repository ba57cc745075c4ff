"""Tables and JSON. rich is loaded only when a table is printed on a terminal's behalf."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["ago", "duration", "print_json", "print_pairs", "print_table", "size"]


def print_json(value: Any) -> None:
    """Write a value as indented JSON."""
    print(json.dumps(value, indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Write rows under headings, as wide as they need; `empty` where there are none.

    Colour only on a terminal, and not with NO_COLOR (rich sees to that).
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        print(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    # In a pipe a table is as wide as it is: the next program cuts it, not we.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    console.print(table)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values in two columns; a value of None is left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def duration(seconds: float | None) -> str:
    """A duration for people.

    >>> duration(0.0042), duration(75), duration(90061), duration(None)
    ('4.2 ms', '1m15s', '1d1h', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while parts[0][0] == 0 and len(parts) > 1:
        parts.pop(0)
    return "".join(f"{number}{unit}" for number, unit in parts[:2] if number or len(parts) == 1)


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago a Unix time was (or will be, with a sign).

    >>> ago(100.0, 160.0), ago(200.0, 100.0), ago(None)
    ('1m', '-1m40s', '-')
    """
    if moment is None:
        return "-"
    passed = (time.time() if now is None else now) - moment
    return f"-{duration(-passed)}" if passed < 0 else duration(passed)


def size(count: int) -> str:
    """A number of bytes for people.

    >>> size(999), size(1536), size(5 * 1024**3)
    ('999 B', '1.5 KiB', '5.0 GiB')
    """
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A name is not ours: nothing in it may move the cursor or break the encoding of the terminal.
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8")
