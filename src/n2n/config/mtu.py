"""The MTU of a TAP device: a number, or what fits the paths."""

from __future__ import annotations

import re
from typing import Final

from n2n.config.kinds import BadValueError, Kind

__all__ = ["AUTO_MTU", "LARGEST_MTU", "TAP_MTU", "USUAL_MTU"]

#: In a finished configuration: what the path to the supernode takes.
AUTO_MTU: Final = 0
#: Just fits a path of 1500 bytes, sealed, over IPv4; the one of every v5 edge.
USUAL_MTU: Final = 1420
#: Largest frame that the data plane carries is 9018 bytes: 14 of Ethernet header and 4 of one VLAN tag around this.
LARGEST_MTU: Final = 9000
#: Every IPv4 host takes datagrams of this size (RFC 791).
_SMALLEST: Final = 576


def _read(value: object) -> int:
    text = str(value).strip().lower()
    if text == "auto":
        return AUTO_MTU
    if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise BadValueError(f"{str(value)[:80]!r} is neither a whole number nor auto")
    if int(text) == AUTO_MTU:
        raise BadValueError(f"0 is not between {_SMALLEST} and {LARGEST_MTU} (nor auto)")
    return int(text)


def _check(value: int) -> None:
    if value != AUTO_MTU and not _SMALLEST <= value <= LARGEST_MTU:
        raise BadValueError(f"{value} is not between {_SMALLEST} and {LARGEST_MTU} (nor auto)")


#: 576 to 9000, the most that the device gets; 0 in a finished configuration means "auto".
TAP_MTU: Final = Kind(
    "a whole number, or auto", int, _read, _read, _check, lambda mtu: "auto" if mtu == AUTO_MTU else str(mtu)
)
