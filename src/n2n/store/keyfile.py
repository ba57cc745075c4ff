"""The supernode's RSA key on disk: kept across restarts, so that edges that pinned it keep trusting it."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from n2n.crypto.rsa import SupernodeKey
from n2n.errors import ConfigError, StoreError
from n2n.store.directory import cause, make_private_directory, sync_directory

__all__ = ["load_key", "load_or_make_key"]

_LOG: Final = logging.getLogger("n2n.store")
_PRIVATE: Final = 0o600
_MAX_SIZE: Final = 64 * 1024


def load_or_make_key(path: Path) -> SupernodeKey:
    """The key in a file (PKCS #8 PEM, mode 0600), made if there is no file.

    A new file is complete whenever it is visible, also after a crash.  A key that others could read is made private,
    with a warning in the log.  A file that holds something else is never written over.

    Args:
        path: the file; its directory is made (0700) if it does not exist.

    Raises:
        StoreError: it holds no such key, belongs to another user, or cannot be read or made.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = load_or_make_key(Path(folder) / "key.pem")
    ...     load_or_make_key(Path(folder) / "key.pem").public_pem() == made.public_pem()
    True
    """
    try:
        return load_key(path)
    except FileNotFoundError:
        return _make(path)


def load_key(path: Path) -> SupernodeKey:
    """The key in a file; see `load_or_make_key`.

    Raises:
        FileNotFoundError: there is no file.
        StoreError: it holds no such key, belongs to another user, or cannot be read.
    """
    try:
        pem = _read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"cannot read the key {path}: {cause(error)}. See ls -l {path}") from error
    try:
        return SupernodeKey.load(pem)
    except ConfigError as error:
        raise StoreError(
            f"{path}: {error}. Put back a copy, or move the file away: the supernode then makes a new key, "
            "and edges that know the old one have to accept it"
        ) from error


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"the key {path} is not a regular file: move it away")
        if status.st_uid not in (os.geteuid(), 0):
            raise StoreError(
                f"the key {path} belongs to user {status.st_uid}, who could change it: chown it to the supernode's user"
            )
        if status.st_mode & 0o077:
            _make_private(path, fd, status.st_mode)
        return os.read(fd, _MAX_SIZE)
    finally:
        os.close(fd)


def _make_private(path: Path, fd: int, mode: int) -> None:
    try:
        os.fchmod(fd, _PRIVATE)
    except OSError as error:
        raise StoreError(
            f"others can read the key {path} (mode {stat.S_IMODE(mode):04o}), and that cannot be changed: "
            f"{cause(error)}. chmod 600 {path}"
        ) from error
    _LOG.warning(
        "others could read the key %s (mode %04o): it is private now; move it away for a new one if they did",
        path,
        stat.S_IMODE(mode),
    )


def _make(path: Path) -> SupernodeKey:
    key = SupernodeKey.generate()
    make_private_directory(path.parent)
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(key.dump())
                file.flush()
                os.fsync(fd)
            os.rename(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot make the key {path}: {cause(error)}. Is there room, and may the supernode write there? "
            f"(df {path.parent}; ls -ld {path.parent})"
        ) from error
    return key
