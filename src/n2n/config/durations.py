"""Durations as people write them: ``10s``, ``1m30s``, ``2h``, ``250ms`` (the notation of Go, which v5 files use)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["format_duration", "parse_duration"]

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([^0-9.]+)")
_LONGEST_TEXT: Final = 64


def parse_duration(text: str) -> float:
    """Read a duration.

    Args:
        text: numbers with units (``h m s ms us ns``), in any order; ``0`` needs none.

    Returns:
        Seconds.

    Raises:
        ValueError: it has another form; a number without a unit would be a guess.

    >>> parse_duration("1m30s")
    90.0
    """
    if text == "0":
        return 0.0
    if len(text) > _LONGEST_TEXT:
        raise ValueError("too long for a duration")
    if re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{text!r} has no unit: write {text}s for seconds, {text}m for minutes")
    total, end = 0.0, 0
    while end < len(text):
        part = _PART.match(text, end)
        if part is None or part[2] not in _UNITS:
            raise ValueError(f"{text!r} is not a duration: write it like 10s, 1m30s or 2h")
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not text:
        raise ValueError("an empty text is not a duration: write it like 10s, 1m30s or 2h")
    return total


def format_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration` reads the same; to the microsecond.

    >>> format_duration(5400)
    '1h30m'
    """
    micros = round(seconds * 1_000_000)
    if micros < 1_000_000:
        return f"{micros / 1000:.6g}ms" if micros else "0s"
    minutes, rest = divmod(micros, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h"] * bool(hours) + [f"{minutes}m"] * bool(minutes)
    if rest:
        parts.append(f"{rest / 1_000_000:.8g}s")
    return "".join(parts)
