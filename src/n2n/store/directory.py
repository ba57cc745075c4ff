"""The state directory of a supernode: private, and used by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

from n2n.errors import StoreError

__all__ = ["DirectoryLock", "cause", "make_private_directory", "sync_directory"]

_LOCK_FILE: Final = "lock"
_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600


def make_private_directory(path: Path) -> None:
    """Make a directory that only its owner can look into; one that exists stays as it is.

    Raises:
        StoreError: it cannot be made, or is no directory.
    """
    try:
        path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        remedy = "Choose another state_dir, or make this one for the user that the supernode runs as"
        raise StoreError(f"cannot make the state directory {path}: {cause(error)}. {remedy}") from error


def sync_directory(path: Path) -> None:
    """Make the names of new files in a directory survive a crash of the machine.

    Raises:
        OSError: the disk does not take them.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cause(error: OSError) -> str:
    """What the system said, without the number and the file name that `str` adds."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


class DirectoryLock:
    """Holds a directory for this process; the kernel lets go of it however the process ends.

    Args:
        directory: made if it does not exist.

    Raises:
        StoreError: another process (or another store of this one) holds it; the message names the process.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        path = directory / _LOCK_FILE
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE)
        except OSError as error:
            remedy = f"See ls -ld {directory}, or choose another state_dir"
            raise StoreError(f"cannot use the state directory {directory}: {path}: {cause(error)}. {remedy}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            refusal = _refused(directory, self._fd, error)
            self.release()
            raise refusal from error
        # For the message that the next one gets, no more (the disk may be full): what counts is the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go.  May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _refused(directory: Path, fd: int, error: OSError) -> StoreError:
    if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
        return StoreError(f"cannot lock the state directory {directory}: {cause(error)}. Choose another state_dir")
    holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    who = f" (process {holder})" if holder.isdigit() else ""
    return StoreError(
        f"the state directory {directory} is in use by another supernode{who}: stop that one, "
        "or give each supernode a state_dir of its own"
    )
