"""Where a running daemon is found: one Unix socket per instance in one directory.

An edge's instance is the name of its TAP device, a supernode's is "supernode".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from n2n.errors import ConfigError, PlatformError

__all__ = ["SUPERNODE", "check_instance", "instances", "run_dir", "search_dirs", "socket_path"]

SUPERNODE: Final = "supernode"
_SYSTEM_DIR: Final = Path("/run/n2n")
#: Of the supernode that systemd runs as a user of its own.
_SERVICE_DIR: Final = Path("/run/n2n-supernode")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: sizeof(sun_path) of unix(7), less the closing zero.
_MAX_PATH: Final = 107


def check_instance(name: str) -> str:
    """`name`, if it can be the name of a socket file.

    Raises:
        ConfigError: it is empty, too long, or has characters that do not belong in a file name.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(f"{name!r} cannot name an instance: use letters, digits, '_', '-' and '.', at most 64")
    return name


def run_dir() -> Path:
    """The directory that a daemon of this user puts its socket into, unless its configuration names another.

    N2N_RUN_DIR, if set; what systemd gives (RUNTIME_DIRECTORY); /run/n2n for root; else n2n in XDG_RUNTIME_DIR, or a
    directory of this user's in /tmp.
    """
    chosen = os.environ.get("N2N_RUN_DIR")
    return Path(chosen) if chosen else _default_dir()


def search_dirs() -> tuple[Path, ...]:
    """Where a client looks for daemons: the system's directories too, whoever asks, unless N2N_RUN_DIR is set."""
    if chosen := os.environ.get("N2N_RUN_DIR"):
        return (Path(chosen),)
    return tuple(dict.fromkeys((_default_dir(), _SYSTEM_DIR, _SERVICE_DIR)))


def socket_path(instance: str, directory: Path | None = None) -> Path:
    """The socket of an instance in `directory` (default: :func:`run_dir`).

    Raises:
        ConfigError: the name is none, or the path is longer than a Unix socket's may be (107 bytes).
    """
    path = (run_dir() if directory is None else directory) / f"{check_instance(instance)}.sock"
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ConfigError(f"{path} is too long for a Unix socket: set N2N_RUN_DIR to a shorter directory")
    return path


def instances(directories: Iterable[Path] | None = None) -> dict[str, Path]:
    """Every socket there is, by instance name. A socket may outlive its daemon: connecting tells.

    Args:
        directories: where to look; None: :func:`search_dirs`.

    Raises:
        PlatformError: a directory exists but may not be listed, and nothing was found in the others.
    """
    found: dict[str, Path] = {}
    refused: tuple[Path, PermissionError] | None = None
    for directory in search_dirs() if directories is None else directories:
        try:
            paths = sorted(directory.glob("*.sock")) if directory.is_dir() else []
            found.update({path.stem: path for path in paths if path.stem not in found and _is_socket(path)})
        except PermissionError as error:
            refused = directory, error
    if refused is not None and not found:
        raise PlatformError(
            f"{refused[0]}: permission denied. Run as root, or as a member of the directory's group"
        ) from refused[1]
    return found


def _default_dir() -> Path:
    """As `n2n.config.default_run_dir`, which takes a tenth of a second to import; a test holds the two together."""
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return _SYSTEM_DIR
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "n2n" if runtime else Path(f"/tmp/n2n-{os.geteuid()}")  # noqa: S108


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
