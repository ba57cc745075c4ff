"""Supernodes and edges on the hosts of a lab: real daemons, each with a home and a state directory of its own.

They are started as a user starts them (``python -m n2n edge up --config FILE``) and asked through their control
sockets, which are files and therefore reachable from any network namespace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from n2n.api.client import CallFailed, Client, NotRunning
from n2n.errors import NotReady, PlatformError
from n2n.lab.namespaces import Process, wait_until
from n2n.lab.topology import Host

__all__ = ["DEFAULT_COMMUNITY", "EdgeNode", "SupernodeNode", "logs_of", "start_all"]

#: The community of a lab's edges, unless another is named.
DEFAULT_COMMUNITY: Final = "lab"
_SUPERNODE_PORT: Final = 7777


class _Daemon:
    """One n2n process on a host.

    Args:
        host: where it runs.
        name: of its folder and log on that host.
        config: keys of its configuration file.
    """

    command: ClassVar[tuple[str, ...]]

    def __init__(self, host: Host, name: str, config: dict[str, object]) -> None:
        self.host = host
        self.name = name
        self.config = config
        self.folder = host.folder / name
        self.folder.mkdir(mode=0o700)
        self.run_dir = host.folder / "run"  # one for all daemons of a host, as on a real one
        self.process: Process | None = None

    @property
    def instance(self) -> str:
        """Its name among the daemons of its run directory."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start the process; returns at once.

        Raises:
            PlatformError: it runs already.
        """
        if self.alive:
            raise PlatformError(f"{self.name} on {self.host.name} runs already")
        path = self.folder / "config.yaml"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.config, indent=1))  # JSON is YAML
        env = {"HOME": str(self.folder), "N2N_RUN_DIR": str(self.run_dir), "XDG_RUNTIME_DIR": None}
        self.process = self.host.python("-m", "n2n", *self.command, "--config", str(path), log=self.name, env=env)

    def stop(self, timeout: float = 5.0) -> int:
        """SIGTERM and wait; returns the exit status."""
        return self._ended(self._process().stop(timeout))

    def kill(self) -> int:
        """SIGKILL; returns the exit status."""
        return self._ended(self._process().kill())

    def _ended(self, status: int) -> int:
        if self.process in self.host.lab.processes:
            self.host.lab.processes.remove(self.process)
        return status

    def _process(self) -> Process:
        if self.process is None:
            raise PlatformError(f"{self.name} on {self.host.name} was never started")
        return self.process

    def call(self, method: str, **params: Any) -> Any:
        """Ask its control socket.

        Raises:
            NotRunning: it does not answer (yet).
            CallFailed: it answered with an error.
        """
        with Client(self.run_dir / f"{self.instance}.sock") as client:
            return client.call(method, **params)

    def status(self) -> dict[str, Any]:
        """What ``n2n status --json`` prints of it; empty while it does not answer.

        Raises:
            PlatformError: its process has ended; the message holds the end of its log.
        """
        if not self._process().alive:
            raise PlatformError(
                f"{self.name} on {self.host.name} ended with status {self._process().status}:\n{self._process().tail()}"
            )
        try:
            found: dict[str, Any] = self.call("status")
        except (NotRunning, CallFailed):
            return {}
        return found

    def counters(self) -> dict[str, int]:
        """What it counts, by name."""
        found: dict[str, int] = self.call("counters")
        return found

    def _fail(self, what: str) -> NotReady:
        return NotReady(f"{what}. The end of the log of {self.name} on {self.host.name}:\n{self._process().tail()}")


class SupernodeNode(_Daemon):
    """A supernode, listening on port 7777 of its host.

    Args:
        more: further keys of its configuration.
    """

    command = ("supernode", "serve")

    def __init__(self, host: Host, *, name: str = "supernode", **more: object) -> None:
        super().__init__(host, name, {"listen_address": f":{_SUPERNODE_PORT}", **more})
        self.config.setdefault("state_dir", str(self.folder / "state"))

    @property
    def instance(self) -> str:
        """Its name among the daemons of its run directory."""
        return "supernode"

    @property
    def endpoint(self) -> str:
        """Where edges reach it."""
        return f"{self.host.addr}:{_SUPERNODE_PORT}"

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Wait until it serves.

        Raises:
            NotReady: it does not within `timeout` seconds.
        """
        try:
            wait_until("the supernode serves", lambda: self.status().get("ready"), timeout)
        except NotReady as error:
            raise self._fail(str(error)) from error


class EdgeNode(_Daemon):
    """An edge.

    Args:
        supernode: where it registers.
        name: by which the others know it; also of its folder.
        passphrase: seals its frames; None: plain.
        more: further keys of its configuration.
    """

    command = ("edge", "up")

    def __init__(
        self,
        host: Host,
        supernode: SupernodeNode | str,
        *,
        name: str | None = None,
        community: str = DEFAULT_COMMUNITY,
        tap: str = "n2n_tap0",
        passphrase: str | None = None,
        vfuze: bool = True,
        compress: bool = False,
        **more: object,
    ) -> None:
        name = name or host.name
        config: dict[str, object] = {
            "edge_id": name,
            "community": community,
            "supernode_addr": supernode if isinstance(supernode, str) else supernode.endpoint,
            "tap_name": tap,
            "enable_vfuze": vfuze,
            "compress_payload": compress,
            **more,
        }
        if passphrase is not None:
            config["encryption_passphrase"] = passphrase
        super().__init__(host, name, config)
        self.config.setdefault("state_dir", str(self.folder / "state"))
        self.tap = tap

    @property
    def instance(self) -> str:
        """Its name among the daemons of its run directory."""
        return self.tap

    def wait_registered(self, timeout: float = 20.0) -> str:
        """Wait until it is registered and its TAP is configured; returns its virtual address (no prefix).

        Raises:
            NotReady: it is not within `timeout` seconds.
        """
        try:
            return wait_until(f"edge {self.name} registers", lambda: self.address, timeout)
        except NotReady as error:
            raise self._fail(str(error)) from error

    @property
    def address(self) -> str:
        """Its virtual address without the prefix, or "" while it has none."""
        status = self.status()
        return str(status.get("address") or "").partition("/")[0] if status.get("ready") else ""

    @property
    def mac(self) -> str:
        """The address of its TAP."""
        return str(self.status()["mac"])

    def peers(self) -> list[dict[str, Any]]:
        """What ``n2n peers --json`` prints; empty while it does not answer."""
        try:
            found: list[dict[str, Any]] = self.call("peers")["peers"]
        except (NotRunning, CallFailed):
            return []
        return found

    def peer(self, other: EdgeNode | str) -> dict[str, Any] | None:
        """The line about another edge, by name; None where it is not known."""
        name = other if isinstance(other, str) else other.name
        return next((peer for peer in self.peers() if peer["name"] == name), None)

    def path_to(self, other: EdgeNode | str) -> str:
        """ "direct", "relay", or "" where the other is not known."""
        found = self.peer(other)
        return str(found["path"]) if found else ""

    def wait_path(self, other: EdgeNode | str, path: str, timeout: float = 30.0) -> None:
        """Wait until frames to `other` take `path`.

        Raises:
            NotReady: they do not within `timeout` seconds.
        """
        name = other if isinstance(other, str) else other.name
        try:
            wait_until(f"{self.name} reaches {name} by {path}", lambda: self.path_to(other) == path, timeout)
        except NotReady as error:
            raise self._fail(f"{error}; peers: {json.dumps(self.peers())}") from error


def start_all(supernode: SupernodeNode, edges: Sequence[EdgeNode], timeout: float = 30.0) -> None:
    """Start a supernode and its edges, and wait until all are registered."""
    supernode.start()
    supernode.wait_ready(timeout)  # an edge whose first question finds nobody asks again after 5 s
    for edge in edges:
        edge.start()
    for edge in edges:
        edge.wait_registered(timeout)


def logs_of(folder: Path) -> str:
    """Every log below `folder`, one after the other (for the message of a failed test)."""
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in sorted(folder.rglob("*.log")))
