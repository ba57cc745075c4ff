"""A whole network that stays: a supernode, and edges behind NAT routers, to look at and to play with.

``n2n lab up`` makes it and ends; nothing of it needs the process that made it. What stands is written down in the
folder of the run (:data:`n2n.lab.cleaner.STANDING`), in the form of ``n2n lab status --json``.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from n2n.api.client import CallFailed, Client, NotRunning
from n2n.errors import ConfigError, PlatformError
from n2n.lab import cleaner
from n2n.lab.namespaces import need_rights, which
from n2n.lab.nat import KINDS, TOOLS, Internet, Site
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab

__all__ = ["MOST_EDGES", "UpOptions", "down", "shell", "status", "up"]

#: Edges of one network: every one is a process of some 40 MB.
MOST_EDGES: Final = 60
_SUPERNODE: Final = "sn"
_PATIENCE: Final = 30.0  # seconds to register, and one more for every edge

#: Told what has been reached: a topic of one word or two, and a line about it.
Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What is to stand.

    Args:
        kinds: one for each edge, of :data:`n2n.lab.nat.KINDS`.
        passphrase: seals the frames between the edges; None: plain.
        mtu: of every link.

    Raises:
        ConfigError: there is no such kind, or there are too many edges or none.
    """

    kinds: tuple[str, ...]
    passphrase: str | None = None
    mtu: int = 1500

    def __post_init__(self) -> None:
        if not 1 <= len(self.kinds) <= MOST_EDGES:
            raise ConfigError(f"a network of {len(self.kinds)} edges: from 1 to {MOST_EDGES} can be made")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"--nat: unknown kind {kind!r}. Known are: {', '.join(KINDS)}")

    @classmethod
    def of(cls, edges: int | None, kinds: Sequence[str], *, plain: bool = False, mtu: int = 1500) -> UpOptions:
        """As the command line says it: kinds are used in turn; without a number of edges, each once, and one twice.

        >>> UpOptions.of(3, ["port", "open"], plain=True).kinds
        ('port', 'open', 'port')

        Raises:
            ConfigError: see above, or there are more kinds than edges.
        """
        count = max(len(kinds), 2) if edges is None else edges
        if not kinds or count < len(kinds):
            raise ConfigError(f"--nat names {len(kinds)} kinds for {count} edges. Give --edges {max(len(kinds), 1)}")
        turns = tuple(kinds[number % len(kinds)] for number in range(count))
        return cls(turns, None if plain else secrets.token_urlsafe(24), mtu)


# ---- up ------------------------------------------------------------------------------------------


def up(options: UpOptions, report: Report) -> dict[str, Any]:
    """Make a network and leave it standing.

    Returns:
        What :func:`status` returns.

    Raises:
        PermissionError: this process may not make namespaces or TAPs.
        PlatformError: a network stands already, a program is missing, or something did not work.
        NotReady: an edge did not register in time. Nothing stands then.
    """
    need_rights(*TOOLS)
    with _alone():
        there = cleaner.standing()
        if there:
            raise PlatformError(
                f"a network stands already ({there[0].name}). See it: n2n lab status. End it: n2n lab down"
            )
        with Lab() as lab:
            about = _build(lab, options, report)
            lab.leave(json.dumps(about, indent=1))
    return status()


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time makes a network that is to stand."""
    folder = cleaner.labs_dir()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PlatformError(
            f"{folder} cannot be written ({error.strerror}). Set N2N_LAB_DIR to a folder that can."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise PlatformError("another `n2n lab up` is at work. Wait for its end, and see: n2n lab status") from None
    else:
        yield
    finally:
        os.close(lock)


def _build(lab: Lab, options: UpOptions, report: Report) -> dict[str, Any]:
    internet = Internet(lab, mtu=options.mtu)
    supernode = SupernodeNode(internet.host(_SUPERNODE))
    sites = [internet.site(f"e{number}", kind) for number, kind in enumerate(options.kinds, start=1)]
    report("network", f"{len(lab.hosts)} namespaces {lab.tag}-*, public addresses in {internet.network}")
    edges = [EdgeNode(site.host, supernode, passphrase=options.passphrase) for site in sites]
    start_all(supernode, edges, _PATIENCE + len(edges))
    report("supernode", f"serves on {supernode.endpoint}")
    for edge, site in zip(edges, sites, strict=True):
        report(f"edge {edge.name}", f"{edge.address}, behind {site.kind} ({KINDS[site.kind]})")
    return {
        "tag": lab.tag,
        "sealed": options.passphrase is not None,
        "supernode": {"name": _SUPERNODE, "address": supernode.endpoint, "instance": supernode.instance},
        "hosts": sorted(lab.hosts),
        "edges": [_about(edge, site) for edge, site in zip(edges, sites, strict=True)],
    }


def _about(edge: EdgeNode, site: Site) -> dict[str, Any]:
    return {
        "name": edge.name,
        "kind": site.kind,
        "underlay": site.host.addr,
        "router": site.router.name,
        "public": site.public,
        "instance": edge.instance,
    }


# ---- what stands ---------------------------------------------------------------------------------


def _found() -> tuple[Path, dict[str, Any]]:
    there = cleaner.standing()
    if not there:
        raise NotRunning("no network of a lab stands here. Make one: n2n lab up --edges 2 --nat port,symmetric")
    folder = there[0]
    try:
        about: dict[str, Any] = json.loads((folder / cleaner.STANDING).read_text())
        complete = {"tag", "sealed", "supernode", "hosts", "edges"} <= about.keys()
    except (OSError, ValueError, AttributeError):
        complete = False
    if not complete:
        raise PlatformError(f"{folder / cleaner.STANDING} is damaged. Remove what stands: n2n lab down")
    return folder, about


def _call(folder: Path, host: str, instance: str, method: str) -> dict[str, Any]:
    """What a daemon says; empty where it does not answer."""
    try:
        with Client(folder / host / "run" / f"{instance}.sock", timeout=5.0) as client:
            found: dict[str, Any] = client.call(method)
    except (NotRunning, CallFailed):
        return {}
    return found


def status() -> dict[str, Any]:
    """What stands: tag, folder, sealed, hosts, supernode {name, address, running}, edges: list of {name, kind, running,
    address, mac, underlay, public, router, peers: list of {name, path, reason, rtt}}.

    Raises:
        NotRunning: nothing stands.
        PlatformError: it cannot be read what stands.
    """
    folder, about = _found()
    supernode = about["supernode"]
    edges = []
    for edge in about["edges"]:
        said = _call(folder, edge["name"], edge["instance"], "status")
        peers = _call(folder, edge["name"], edge["instance"], "peers").get("peers", [])
        edges.append(
            {
                **{key: edge[key] for key in ("name", "kind", "underlay", "public", "router")},
                "running": bool(said),
                "address": str(said.get("address") or "").partition("/")[0] or None,
                "mac": said.get("mac"),
                "peers": [{key: peer[key] for key in ("name", "path", "reason", "rtt")} for peer in peers],
            }
        )
    running = bool(_call(folder, supernode["name"], supernode["instance"], "status"))
    return {
        "tag": about["tag"],
        "folder": str(folder),
        "sealed": about["sealed"],
        "hosts": about["hosts"],
        "supernode": {"name": supernode["name"], "address": supernode["address"], "running": running},
        "edges": edges,
    }


def shell(name: str, command: Sequence[str]) -> NoReturn:
    """Become a shell, or `command`, in a host of the network that stands. `n2n` finds that host's daemons there.

    Raises:
        PermissionError: this process may not enter namespaces.
        NotRunning: nothing stands.
        ConfigError: it has no such host.
        PlatformError: the program is not there.
    """
    folder, about = _found()
    need_rights()
    if name not in about["hosts"]:
        raise ConfigError(f"there is no host {name!r} in this network. There are: {', '.join(about['hosts'])}")
    words = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    environment = {
        **os.environ,
        "PATH": path,
        cleaner.MARK: folder.name,
        "N2N_RUN_DIR": str(folder / name / "run"),
        "debian_chroot": f"n2n {name}",  # shown in the prompt of Debian's bash
    }
    environment.pop("XDG_RUNTIME_DIR", None)
    ip = which("ip") or "ip"
    os.execve(ip, ["ip", "netns", "exec", f"{folder.name}-{name}", *words], environment)  # noqa: S606


def down() -> list[str]:
    """Take away what stands, and what runs that died have left.

    Returns:
        The tags of all that was removed.

    Raises:
        PermissionError: this process may not.
        NotRunning: there was nothing.
        PlatformError: it is just being taken away.
    """
    need_rights()
    removed = cleaner.sweep()
    for folder in cleaner.standing():
        lock = cleaner.hold(folder)
        if lock is None:
            if folder.exists():
                raise PlatformError(f"{folder.name} is being made or taken away by another process. Try again.")
            continue
        try:
            cleaner.remove(folder)
        finally:
            os.close(lock)
        removed.append(folder.name)
    if not removed:
        raise NotRunning("no network of a lab stands here.")
    return removed
