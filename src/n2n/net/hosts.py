"""Lines of ours in a file like /etc/hosts: put there, and taken out again whatever happens.

Every line of ours ends in ``# n2n <owner>``, so that what is ours can be told whatever else is done to the file; all
other bytes stay as they are.  Run as a program (``python hosts.py FILE OWNER``) this is the guardian: it waits for the
end of its standard input, which is the end of the daemon that started it, and takes that owner's lines out.

It imports nothing of n2n and raises OSError only, so that the guardian is small.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["host_label", "owners", "put_lines"]

#: Longest file that is touched, in bytes: a list of names, not a data base.
_LARGEST: Final = 4 * 1024 * 1024
#: Seconds to wait for one's turn.
_TURN: Final = 2.0
#: Longest label of a host name (RFC 1035).
_LABEL: Final = 63
_HEAD: Final = b"# what follows is kept by n2n: changes are lost"
#: The same, where the line before had no end: taking the lines out takes that end away again.
_HEAD_JOINED: Final = b"# what follows is kept by n2n: changes are lost."
_OURS: Final = re.compile(rb"[ \t]# n2n ([A-Za-z0-9_.-]+)\r?\n?\Z")


def host_label(name: str) -> str | None:
    """One label of a host name, as close to `name` as can be; None if nothing is left of it.

    >>> host_label("Ada's PC_2"), host_label("..."), host_label("localhost.")
    ('ada-s-pc-2', None, 'localhost')
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LABEL].strip("-")
    return label or None


def put_lines(path: Path, owner: str, lines: Iterable[str]) -> bool:
    """Make these the owner's lines in a file; none takes out what there was.

    The file is replaced as a whole where its directory allows that, else written in place.  Edges take turns.

    Args:
        path: of the file, which exists.
        owner: letters, digits, '_', '-' and '.': the name of an edge.
        lines: such as ``10.1.2.3 laptop.acme.n2n``, without an end of line and without '#'.

    Returns:
        False if they were there already.

    Raises:
        OSError: the file cannot be read or written, is no regular file, or is too large to be a list of hosts.
    """
    path = Path(os.path.realpath(path))
    with _locked(path.parent):
        before = _read(path)
        after = _replaced(before, owner.encode("ascii"), [line.encode("ascii") for line in lines])
        if after == before:
            return False
        _write(path, after)
    return True


def owners(path: Path) -> set[str]:
    """Whose lines are in a file.

    Raises:
        OSError: it cannot be read.
    """
    found = (_OURS.search(line) for line in _read(path).splitlines(keepends=True))
    return {match[1].decode("ascii") for match in found if match is not None}


def _replaced(content: bytes, owner: bytes, lines: list[bytes]) -> bytes:
    kept = bytearray()
    for line in content.splitlines(keepends=True):
        match = _OURS.search(line)
        if match is None or match[1] != owner:
            kept += line
        elif line.startswith(_HEAD_JOINED):
            kept[:] = kept.removesuffix(b"\n")
    if not lines:
        return bytes(kept)
    joined = bool(kept) and not kept.endswith(b"\n")
    head = _HEAD_JOINED if joined else _HEAD
    block = b"".join(b"%s  # n2n %s\n" % (line, owner) for line in (head, *lines))
    return bytes(kept) + (b"\n" if joined else b"") + block


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Anybody may lock a directory that he can read: he delays us, no more.
        end = time.monotonic() + _TURN
        while not _lock(fd) and time.monotonic() < end:
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open(path: Path, flags: int) -> int:
    """A descriptor of a regular file: neither opening a pipe or a device nor reading it may make anybody wait."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError("it is no regular file: is it a list of hosts?")


def _read(path: Path) -> bytes:
    with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(f"it has more than {_LARGEST} bytes: is it a list of hosts?")
    return content


def _write(path: Path, content: bytes) -> None:
    """Replace the file, or write it in place where its directory does not allow that (as for our service in /etc)."""
    try:
        _replace(path, content)
    except OSError:
        with os.fdopen(_open(path, os.O_WRONLY), "wb") as file:
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    status = path.stat()
    fd, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.chown(draft, status.st_uid, status.st_gid)
        shutil.copystat(path, draft)  # mode, and labels where there are such
        os.utime(draft)
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _guard(path: str, owner: str) -> None:
    # systemd ends what a daemon left in its group, by SIGABRT where the watchdog bit: that must not be in the way.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b".")  # on guard
    while os.read(0, 4096):
        pass
    with contextlib.suppress(OSError):
        put_lines(Path(path), owner, ())


if __name__ == "__main__":
    _guard(*sys.argv[1:3])
