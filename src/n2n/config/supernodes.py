"""The supernodes of an edge: one, or several in the order in which they are tried."""

from __future__ import annotations

from typing import Final

from n2n.config.kinds import BadValueError, Kind, check_host_port, expect_text

__all__ = ["MOST_SUPERNODES", "SUPERNODES"]

#: Supernodes that one edge may have.
MOST_SUPERNODES: Final = 8


def _read_supernodes(text: str) -> str:
    """One supernode, or several in the order in which they are tried, with a comma between two."""
    return ",".join(part.strip() for part in text.split(","))


def _yaml_supernodes(value: object) -> str:
    if isinstance(value, list):
        return ",".join(expect_text(item, "host:port in the list").strip() for item in value)
    return _read_supernodes(expect_text(value, "host:port, or a list of such"))


def _check_supernodes(value: str) -> None:
    parts = value.split(",")
    if len(parts) > MOST_SUPERNODES:
        raise BadValueError(f"{len(parts)} supernodes; at most {MOST_SUPERNODES} are taken")
    for part in parts:
        check_host_port(part)
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise BadValueError(f"{twice!r} is in the list twice")


SUPERNODES: Final = Kind("host:port", str, _read_supernodes, _yaml_supernodes, _check_supernodes)
