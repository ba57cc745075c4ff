"""Removes what a lab leaves behind, whatever became of the process that made it.

Every run of a lab owns one folder, ``<labs>/<tag>``, and holds a lock on ``<labs>/<tag>/lock`` for as long as it
lives; all its namespaces are called ``<tag>-<name>`` and all its processes carry ``N2N_LAB=<tag>`` in their
environment. That is enough to find everything of a run again, and nothing else.

A network that is to outlive the run that made it has a file of its own in the folder, :data:`STANDING`: from then on
only :func:`remove` takes it away.

This module is also a program, the *guardian*: it waits for the end of its standard input, the other end of which the
run keeps open and tells nobody of. When the run dies, by kill -9 too, the guardian wakes up and removes what is left.

Only the standard library is used, so that the guardian is small and starts quickly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = [
    "MARK",
    "NETNS_DIR",
    "STANDING",
    "hold",
    "labs_dir",
    "namespaces_of",
    "processes_of",
    "remove",
    "standing",
    "sweep",
]

#: The environment variable that every process of a lab carries.
MARK: Final = "N2N_LAB"
#: Where iproute2 keeps its named network namespaces.
NETNS_DIR: Final = Path("/run/netns")
#: The file in a run's folder that keeps it standing without anybody who holds its lock.
STANDING: Final = "standing.json"
_TAG: Final = re.compile(r"n2n-[0-9]+(\.[0-9]+)?")
_PATIENCE: Final = 3.0  # seconds for killed processes to be gone
_SETTLE: Final = 0.3  # seconds in which a command that was under way may still make something
_IP_PATH: Final = os.defpath + ":/usr/sbin:/sbin"


def labs_dir() -> Path:
    """The folder of all labs of this machine: N2N_LAB_DIR, else /run/n2n-lab."""
    return Path(os.environ.get("N2N_LAB_DIR") or "/run/n2n-lab")


def hold(folder: Path) -> int | None:
    """Take the lock of a run.

    Returns:
        A descriptor that holds the lock until it is closed (children do not inherit it), or None where the run
        is alive and holds it.
    """
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # removed by somebody else at this moment
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    if _identity(folder / "lock") != (os.fstat(fd).st_dev, os.fstat(fd).st_ino):
        os.close(fd)  # whoever held it has removed the folder
        return None
    return fd


def namespaces_of(tag: str) -> list[str]:
    """Names of the network namespaces of the run `tag`, in alphabetical order."""
    try:
        names = os.listdir(NETNS_DIR)
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(f"{tag}-"))


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _all_pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def processes_of(tag: str) -> list[int]:
    """Process ids of what runs in the namespaces of `tag` or carries its mark; never this process."""
    inside = {_identity(NETNS_DIR / name) for name in namespaces_of(tag)} - {None, _identity("/proc/self/ns/net")}
    mark = f"{MARK}={tag}".encode()
    found = []
    for pid in _all_pids():
        if pid == os.getpid():
            continue
        if inside and _identity(f"/proc/{pid}/ns/net") in inside:
            found.append(pid)
            continue
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _end_processes(tag: str) -> None:
    until = time.monotonic() + _PATIENCE
    while (pids := processes_of(tag)) and time.monotonic() < until:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _delete_namespaces(tag: str) -> bool:
    """Returns True where there was something to delete."""
    names = namespaces_of(tag)
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_IP_PATH}"}
    for name in names:
        with contextlib.suppress(OSError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, env=environment)
    return bool(names)


def remove(folder: Path, *, settle: float = _SETTLE) -> None:
    """End every process of the run that owns `folder`, delete its namespaces (with their TAPs), and the folder.

    Looks again until nothing new has appeared for `settle` seconds: a command that the run had started may still have
    been under way. What is already gone is no error.
    """
    tag = folder.name
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{folder} is not the folder of a lab")
    for _ in range(10):
        found = bool(processes_of(tag))
        _end_processes(tag)
        found = _delete_namespaces(tag) or found
        if not found:
            break
        time.sleep(settle)
    shutil.rmtree(folder, ignore_errors=True)


def _folders() -> list[Path]:
    try:
        return sorted(path for path in labs_dir().iterdir() if _TAG.fullmatch(path.name))
    except OSError:
        return []


def standing() -> list[Path]:
    """The folders of all networks that were left standing."""
    return [folder for folder in _folders() if (folder / STANDING).exists()]


def sweep() -> list[str]:
    """Remove what runs left that are no longer alive, but for what is to stand.

    Returns:
        Their tags.
    """
    swept = []
    for folder in _folders():
        lock = hold(folder)
        if lock is None:
            continue
        try:
            if (folder / STANDING).exists():
                continue
            remove(folder)
        finally:
            os.close(lock)
        swept.append(folder.name)
    return swept


def _guard(folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the run it guards, and not before
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    if folder.exists() and not (folder / STANDING).exists():
        remove(folder)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
