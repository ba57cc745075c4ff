"""Who holds a TAP device or a UDP port: only to make an error message say it.

Everything is read from /proc and may be wrong a moment later, or hidden from this user; then nothing is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["tap_holder", "udp_port_holder"]

_PROC = Path("/proc")


def tap_holder(name: str) -> str:
    """Describe the process of this network namespace that has the TAP device `name` open.

    Returns:
        ``process 4711 (n2n)``, or an empty text if it cannot be told.
    """

    def holds(process: Path) -> bool:
        # The kernel's tun driver shows the device's name in fdinfo as "iff:" (since Linux 3.19).
        return any(f"iff:\t{name}\n" in info.read_text(errors="replace") for info in (process / "fdinfo").iterdir())

    return _first(holds)


def udp_port_holder(port: int) -> str:
    """Describe a process of this network namespace that has a UDP socket bound to `port`.

    Returns:
        ``process 4711 (n2n)``, or an empty text if it cannot be told.
    """
    inodes = set(_udp_inodes(port))

    def holds(process: Path) -> bool:
        return any(f"socket:[{inode}]" in _links(process / "fd") for inode in inodes)

    return _first(holds) if inodes else ""


def _udp_inodes(port: int) -> Iterator[str]:
    """Inode numbers of the sockets in /proc/net/udp and udp6 with this local port (hexadecimal there)."""
    for table in ("net/udp", "net/udp6"):
        try:
            lines = (_PROC / "thread-self" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and columns[1].endswith(f":{port:04X}"):
                yield columns[9]


def _links(directory: Path) -> set[str]:
    found = set()
    for entry in directory.iterdir():
        try:
            found.add(os.readlink(entry))
        except OSError:
            continue
    return found


def _first(holds: Callable[[Path], bool]) -> str:
    """The first process in our network namespace for which `holds` is true."""
    try:
        ours = os.readlink(_PROC / "thread-self" / "ns" / "net")
        processes = [entry for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return ""
    for process in processes:
        try:
            if os.readlink(process / "ns" / "net") == ours and holds(process):
                name = (process / "comm").read_text(errors="replace").strip()
                return f"process {process.name} ({name})"
        except OSError:  # it ended while we looked, or it is not ours to see
            continue
    return ""
