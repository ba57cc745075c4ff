"""The keys of the supernodes that edges of this host registered with, by the address that is configured.

One file for all edges with the same state directory: a line for each supernode with address, "lasts" or "passes" (it
said that its key lasts, or did not), the time of the first registration with this key, and the key (base64 of its PEM
text).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from n2n.errors import StoreError
from n2n.store.directory import cause, make_private_directory, sync_directory

__all__ = ["KNOWN_KEYS_FILE", "KnownKey", "KnownKeys"]

#: Name of the file in a state directory.
KNOWN_KEYS_FILE: Final = "known_keys"
#: Supernodes remembered: beyond it the one that is known longest is forgotten.
_MOST: Final = 256
#: Bytes of the file that are read: more than so many of the largest keys have (4096 bytes, `n2n.crypto.rsa`).
_LARGEST: Final = 4 * 1024 * 1024
_HEAD: Final = "# Keys of supernodes; see n2n key list. Address, does the key last, since when, key.\n"
_LINE: Final = re.compile(r"(\S{1,300}) (lasts|passes) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ([A-Za-z0-9+/=]{1,8192})")


class KnownKey(NamedTuple):
    """What is remembered of one supernode."""

    public_pem: bytes
    lasts: bool
    since: float
    """Unix seconds of the first registration with this key."""


class KnownKeys:
    """The file.

    Args:
        directory: the state directory, made (0700) when something is first remembered.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / KNOWN_KEYS_FILE

    def all(self) -> dict[str, KnownKey]:
        """Everything, by address; empty if there is no file.

        Raises:
            StoreError: it is damaged, somebody else's, or cannot be read: then no key can be trusted.
        """
        try:
            text = self._read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {cause(error)}. See ls -l {self.path}") from error
        found = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if line and not line.startswith("#"):
                address, key = self._parse(number, line)
                found[address] = key
        return found

    def get(self, address: str) -> KnownKey | None:
        """The key of one supernode; raises as `all`."""
        return self.all().get(address)

    def put(self, address: str, key: KnownKey) -> None:
        """Remember a key; on disk when this returns.

        Raises:
            StoreError: the file is damaged, or cannot be written.
        """
        with self._changing() as keys:
            keys.pop(address, None)
            while len(keys) >= _MOST:
                del keys[min(keys, key=lambda each: keys[each].since)]
            keys[address] = key

    def forget(self, address: str) -> bool:
        """Remember no key of this supernode; False if none was known. Raises as `put`."""
        if address not in self.all():
            return False
        with self._changing() as keys:
            return keys.pop(address, None) is not None

    def _read(self) -> str:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{self.path} is not a regular file: move it away")
            if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
                raise StoreError(
                    f"{self.path} could be changed by others: check it, then chmod 600 and chown it to the edge's user"
                )
            return os.read(fd, _LARGEST).decode("utf-8", "replace")
        finally:
            os.close(fd)

    def _parse(self, number: int, line: str) -> tuple[str, KnownKey]:
        match = _LINE.fullmatch(line)
        with contextlib.suppress(ValueError, binascii.Error):
            if match is not None:
                since = datetime.strptime(match[3], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
                pem = base64.b64decode(match[4], validate=True)
                return match[1], KnownKey(pem, match[2] == "lasts", since)
        raise StoreError(
            f"{self.path}:{number}: this is not a known key. Remove the line (that supernode's next key is then taken "
            "as it comes)"
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, KnownKey]]:
        """Read, let the caller change, write: one process at a time."""
        make_private_directory(self.path.parent)
        try:
            lock = os.open(
                self.path.with_name(f".{self.path.name}.lock"),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = self.all()
                yield keys
                self._write(keys)
            finally:
                os.close(lock)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {cause(error)}. See ls -ld {self.path.parent}") from error

    def _write(self, keys: dict[str, KnownKey]) -> None:
        lines = [_HEAD]
        for address, key in keys.items():
            when = datetime.fromtimestamp(key.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            word = "lasts" if key.lasts else "passes"
            lines.append(f"{address} {word} {when} {base64.b64encode(key.public_pem).decode('ascii')}\n")
        fd, draft = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)  # mode 0600
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(fd)
            os.rename(draft, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        sync_directory(self.path.parent)
