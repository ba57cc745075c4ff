"""The machine id: 16 random bytes per user account, an edge's only credential.

It is the same file that edges of the Go implementation read and write, so that an account keeps its
addresses whichever program it runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Final

from n2n.errors import ConfigError
from n2n.types import MacAddress
from n2n.wire.hashes import derive_mac

__all__ = ["MACHINE_ID_SIZE", "load_machine_id", "mac_for", "parse_machine_id"]

#: Bytes of a machine id.
MACHINE_ID_SIZE: Final = 16
#: More than a file with any sensible amount of white space around the digits.
_MAX_FILE: Final = 4096
#: What may stand around the digits: Unicode's White_Space.  `str.strip` would also take the separators
#: 1c to 1f, which are control characters and not white space.
_BLANKS: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_PRIVATE: Final = 0o600
#: What `link` says on file systems without hard links (vfat: EPERM).
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


def parse_machine_id(content: bytes) -> bytes:
    """The machine id in the content of its file: 32 hexadecimal digits, with blanks around.

    Raises:
        ConfigError: it is anything else.

    >>> parse_machine_id(b" 54A2d2dd401e4cc744c5157149f61bad\\n").hex()
    '54a2d2dd401e4cc744c5157149f61bad'
    """
    digits = content.decode("utf-8", "replace").strip(_BLANKS)
    if len(digits) != 2 * MACHINE_ID_SIZE or not _HEX.issuperset(digits):
        raise ConfigError(f"not a machine id: {2 * MACHINE_ID_SIZE} hexadecimal digits and nothing else are expected")
    return bytes.fromhex(digits)


def load_machine_id(path: Path | None = None) -> bytes:
    """The machine id of this user account, made if there is none.

    A new file has mode 0600, its folder 0700; an existing file that others can read is made private. Several
    edges may start at once: all get the same id. A file that holds no id is never written over.

    Args:
        path: the file; by default `~/.n2n-go/machine-id`.

    Returns:
        16 bytes.

    Raises:
        ConfigError: the file holds something else, or cannot be read or made; the message names it.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = load_machine_id(Path(folder) / "machine-id")
    ...     load_machine_id(Path(folder) / "machine-id") == first
    True
    """
    path = _default_path() if path is None else path
    try:
        content = _read(path)
        if content is None:
            _make(path)
            content = _read(path)
    except OSError as error:
        raise ConfigError(
            f"the machine id {path} cannot be read or made: {(error.strerror or str(error)).lower()}. Run as its "
            "owner, or name another file (machine_id_file)"
        ) from error
    try:
        return parse_machine_id(content or b"")
    except ConfigError as error:
        raise ConfigError(
            f"{path}: {error}. Restore the file, or delete it to become a new machine with new addresses"
        ) from None


def mac_for(machine_id: bytes, community: str) -> MacAddress:
    """The MAC address that this machine has in a community.

    Raises:
        ConfigError: the machine id is not 16 bytes.

    >>> mac_for(bytes.fromhex("54a2d2dd401e4cc744c5157149f61bad"), "acme")
    MacAddress('0a:68:97:74:d5:44')
    """
    if len(machine_id) != MACHINE_ID_SIZE:
        raise ConfigError(f"a machine id has {MACHINE_ID_SIZE} bytes, not {len(machine_id)}")
    return derive_mac(machine_id, community)


def _default_path() -> Path:
    try:
        return Path.home() / ".n2n-go" / "machine-id"
    except RuntimeError as error:
        raise ConfigError(f"there is no home directory to keep the machine id in: {error}") from None


def _read(path: Path) -> bytes | None:
    """The file's content, or None if there is no file; closes it to others if it is ours and open to them."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            with contextlib.suppress(OSError):  # on a read-only disk it stays as it is
                os.fchmod(descriptor, _PRIVATE)
        return file.read(_MAX_FILE + 1)


def _make(path: Path) -> None:
    """Put a new id there, unless somebody else does so first; it is complete whenever it is visible."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".machine-id-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(MACHINE_ID_SIZE))
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(name, path)
        except FileExistsError:
            return  # another edge was faster: its id counts
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
