"""``n2n service install | uninstall``: edges and the supernode as services of systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer

from n2n.cli.config import Role, sample
from n2n.errors import ConfigError, PlatformError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Edges and the supernode as systemd services.")

#: What files of ours begin with: nothing else is written over or removed.
_MARK: Final = "# Written by `n2n service install`"
_UNITS: Final = {Role.EDGE: "n2n-edge@.service", Role.SUPERNODE: "n2n-supernode.service"}
_UNIT_DIR: Final = "etc/systemd/system"
_SYSUSERS: Final = "etc/sysusers.d/n2n.conf"
_CONFIG_DIR: Final = "etc/n2n"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
#: Services of ours see nothing of these (ProtectHome=).
_HOMES: Final = ("/home", "/root", "/run/user")
_OLD_STATE: Final = Path("/var/lib/n2n/leases.sqlite")

_Root = Annotated[Path, typer.Option(metavar="DIR", help="Below this directory, and no systemctl: for images, tests.")]
_Role = Annotated[Role, typer.Argument(metavar="edge|supernode", help="What is to run.")]


@app.callback()
def _service() -> None:
    """Edges and the supernode as systemd services."""


@app.command()
def install(
    role: _Role,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Of an edge: its file is /etc/n2n/NAME.yaml.")] = "edge",
    now: Annotated[bool, typer.Option("--now", help="Start it, now and at every boot.")] = False,
    program: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The n2n that the service runs [this one].")
    ] = None,
    root: _Root = Path("/"),
) -> None:
    """Write the unit, and a sample configuration in /etc/n2n if there is none. Several edges: one NAME for each."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a service: use letters, digits, '_', '-' and '.'")
    if role is Role.EDGE and name == Role.SUPERNODE.value:
        raise ConfigError(f"{_CONFIG_DIR}/{name}.yaml is the supernode's file: give the edge another name")
    live = _is_live(root)
    unit, instance = _UNITS[role], _instance(role, name)
    text = _unit(unit, _program(program, root))
    _write(root / _SYSUSERS, _data("n2n.sysusers"))
    _write(root / _UNIT_DIR / unit, text)
    path = root / _CONFIG_DIR / f"{name if role is Role.EDGE else 'supernode'}.yaml"
    fresh = _configure(path, role)
    if not live:
        print(f"then: systemctl daemon-reload && systemctl enable --now {instance}")
        return
    _run("systemd-sysusers", "n2n.conf")
    _tell_of_old_state(role)
    _run("systemctl", "daemon-reload")
    if now and not fresh:
        _run("systemctl", "enable", "--now", "--no-block", instance)
        print(f"started {instance}; see: systemctl status {instance}")
    else:
        edit = f"edit {path}, then: " if fresh else ""
        print(f"{edit}n2n config check {role.value} --config {path} && systemctl enable --now {instance}")


@app.command()
def uninstall(role: _Role, root: _Root = Path("/")) -> None:
    """Stop what runs, and remove the unit. Configuration and state stay."""
    unit = _UNITS[role]
    if _is_live(root):
        for instance in _instances(unit):
            _run("systemctl", "disable", "--now", instance)
    removed = [path for path in (root / _UNIT_DIR / unit,) if _remove(path)]
    if not any((root / _UNIT_DIR / each).exists() for each in _UNITS.values()) and _remove(root / _SYSUSERS):
        removed.append(root / _SYSUSERS)
    if _is_live(root):
        _run("systemctl", "daemon-reload")
    if not removed:
        raise ConfigError(f"{root / _UNIT_DIR / unit} is not there: nothing was installed by n2n service install")
    print(f"removed {', '.join(map(str, removed))}; {root / _CONFIG_DIR} and the state in /var/lib stay")


def _is_live(root: Path) -> bool:
    """Whether it concerns this system, and systemd runs it."""
    if root.resolve() != Path("/"):
        return False
    if os.geteuid() != 0:
        raise PlatformError("services are root's to install: run it as root, or with --root DIR") from PermissionError(
            1
        )
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _instance(role: Role, name: str) -> str:
    return f"n2n-edge@{name}.service" if role is Role.EDGE else _UNITS[role]


def _program(given: Path | None, root: Path) -> str:
    """The absolute path of the program that a service runs."""
    given_by_us = given is None
    if given is None:
        beside = Path(sys.executable).with_name("n2n")
        found = beside if beside.exists() else Path(shutil.which("n2n") or "")
        if not found.is_absolute():
            raise ConfigError("the program n2n is in no directory of PATH: give it with --program")
        given = found
    text = str(given.absolute())
    if re.search(r"[\s%\"'\\$]", text):
        raise ConfigError(f"{text!r}: a unit cannot name a path with blanks, quotes, '%' or '$'")
    needed = (text, sys.prefix, sys.base_prefix) if given_by_us else (text,)
    hidden = next((path for path in needed if path.startswith(tuple(f"{home}/" for home in _HOMES))), None)
    if root.resolve() == Path("/") and hidden is not None:
        raise ConfigError(
            f"{hidden} is in a home directory, which services do not see. Install n2n for all, for example: "
            "/usr/bin/python3 -m venv /opt/n2n && /opt/n2n/bin/pip install n2n && /opt/n2n/bin/n2n service install ..."
        )
    return text


def _unit(name: str, program: str) -> str:
    return _data(name).replace("@N2N@", program)


def _data(name: str) -> str:
    return (resources.files("n2n") / "data" / "systemd" / name).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    """Put a file of ours there, whole or not at all; an older one of ours is replaced.

    Raises:
        ConfigError: there is a file of somebody else's.
        PlatformError: it cannot be written.
    """
    try:
        if path.exists() and not _ours(path):
            raise ConfigError(f"{path} was not written by n2n: move it away, or put your changes into a drop-in")
        path.parent.mkdir(parents=True, exist_ok=True)
        # By a name that nobody can have put a link at: below DIR of --root others may write.
        fd, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(fd, 0o644)
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise PlatformError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
    print(f"wrote {path}")


def _remove(path: Path) -> bool:
    if not path.exists() or not _ours(path):
        return False
    try:
        path.unlink()
    except OSError as error:
        raise PlatformError(f"{path} cannot be removed: {(error.strerror or str(error)).lower()}") from error
    return True


def _ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)


def _configure(path: Path, role: Role) -> bool:
    """Write a sample where there is no configuration; True if one was written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An edge's may come to hold a passphrase; the supernode's is read by its own user.
        mode = 0o600 if role is Role.EDGE else 0o644
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        if role is Role.SUPERNODE and not path.stat().st_mode & 0o004:
            print(f"the supernode runs as the user n2n, who must be able to read {path}: chmod 644 {path}")
        return False
    except OSError as error:
        raise PlatformError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(sample(role.value))
    print(f"wrote {path}, a sample: edit it")
    return True


def _instances(unit: str) -> Iterator[str]:
    """The units of this kind that systemd knows of, running or enabled."""
    pattern = unit.replace("@.", "@*.")
    for verb in ("list-units", "list-unit-files"):
        done = subprocess.run(
            ["systemctl", verb, "--all", "--plain", "--no-legend", pattern], capture_output=True, text=True, check=False
        )
        for line in done.stdout.splitlines():
            name = line.split()[0] if line.split() else ""
            if name.endswith(".service") and "@." not in name:
                yield name


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr or done.stdout).strip() or f"it ended with {done.returncode}"
        raise PlatformError(f"{' '.join(command)}: {why}")


def _tell_of_old_state(role: Role) -> None:
    """Say how to take along what a daemon had that did not run as a service: it lies elsewhere."""
    if role is Role.EDGE:
        old, new = Path("~/.n2n-go/machine-id").expanduser(), Path("/var/lib/n2n/.n2n-go/machine-id")
        if old.exists() and not new.exists():
            print(f"to keep the addresses of the edges that ran as root: install -D -m 600 {old} {new}")
        return
    new = Path("/var/lib/n2n-supernode")
    if _OLD_STATE.exists() and not (new / _OLD_STATE.name).exists():
        print(
            f"leases and key of a supernode that ran as root are in {_OLD_STATE.parent}. To keep addresses and key: "
            f"install -d -o n2n -g n2n -m 700 {new} && cp {_OLD_STATE.parent}/leases.sqlite* "
            f"{_OLD_STATE.parent}/supernode-key.pem {new}/ && chown n2n: {new}/*"
        )
