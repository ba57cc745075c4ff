"""Talks to a daemon's control socket. Blocking and small: a command asks one question and ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from n2n.api.instances import SUPERNODE, instances, socket_path
from n2n.errors import ConfigError, N2NError, NotReady

__all__ = [
    "AccessDenied",
    "CallFailed",
    "Client",
    "NotRunning",
    "choose_daemon",
    "choose_edge",
    "connect",
    "live_instances",
    "stop",
]

#: Bytes of one answer that a client is ready to take.
MAX_ANSWER: Final = 64 * 1024 * 1024


class NotRunning(N2NError):  # noqa: N818
    """No daemon answers under this name."""


class AccessDenied(N2NError):  # noqa: N818
    """The control socket is not for this user."""


class CallFailed(N2NError):  # noqa: N818
    """The daemon answered with an error.

    Args:
        code: one of the codes of :mod:`n2n.api.control`.
        message: what it said.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """A connection to one daemon; a context manager.

    Args:
        path: of its control socket.
        timeout: seconds to wait for an answer.

    Raises:
        NotRunning: nobody listens there.
        AccessDenied: the socket is not for this user.
    """

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self.path = path
        self._ids = itertools.count(1)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._sock.settimeout(timeout)
        try:
            self._sock.connect(str(path))
        except PermissionError as error:
            self._sock.close()
            raise AccessDenied(
                f"{path}: permission denied. Run as root, or as a member of the socket's group (usermod -aG n2n USER)"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._sock.close()
            raise NotRunning(_not_running(path.stem)) from error
        self._file = self._sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()

    def call(self, method: str, **params: Any) -> Any:
        """Ask one question.

        Returns:
            Its result, as JSON has it.

        Raises:
            CallFailed: the daemon said no.
            NotRunning: the daemon went away.
        """
        ident = self._ask(method, params)
        while True:
            answer = self._read()
            if answer.get("id") in (ident, None):
                return _result(answer)

    def events(self, recent: int = 0) -> Iterator[dict[str, Any]]:
        """The last `recent` events and every one from now on, until the daemon ends: ``{event, missed}``."""
        self._ask("events", {"recent": recent})
        _result(self._read())
        self._sock.settimeout(None)
        while True:
            try:
                yield self._read()
            except NotRunning:
                return

    def recent(self, count: int) -> list[dict[str, Any]]:
        """The last `count` events (at most 256 are kept), in the form of `events`."""
        return [{"event": event, "missed": 0} for event in self.call("recent", count=count)["events"]]

    def wait_gone(self, timeout: float) -> None:
        """Wait until the daemon gives its name back.

        Raises:
            NotReady: it did not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.path.exists():
            if time.monotonic() >= deadline:
                raise NotReady(f"{self.path.stem} has not ended after {timeout:g} s; see its log")
            time.sleep(0.02)

    def _ask(self, method: str, params: dict[str, Any]) -> int:
        ident = next(self._ids)
        request = {"id": ident, "method": method} | ({"params": params} if params else {})
        # If the daemon has hung up, what it said before ("busy") is still to be read.
        with contextlib.suppress(OSError):
            self._sock.sendall(json.dumps(request).encode() + b"\n")
        return ident

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline(MAX_ANSWER)
        except TimeoutError:
            raise CallFailed("timed_out", f"{self.path.stem} did not answer in time; see its log") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise NotRunning(f"{self.path.stem} ended while it was asked")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise CallFailed("failed", f"{self.path} answered something else than an object: is it a daemon of n2n?")
        return answer


def connect(instance: str, timeout: float = 10.0) -> Client:
    """A client of the daemon with this instance name, wherever its socket is.

    Raises:
        NotRunning: it does not run.
        AccessDenied: it is not for this user.
    """
    return Client(instances().get(instance) or socket_path(instance), timeout)


def live_instances() -> dict[str, Path]:
    """Those instances that somebody answers for; one that this user may not ask counts as live."""
    live: dict[str, Path] = {}
    for name, path in instances().items():
        try:
            Client(path, timeout=2.0).close()
        except NotRunning:
            continue
        except AccessDenied:
            pass
        live[name] = path
    return live


def choose_edge(instance: str | None) -> str:
    """The edge that is meant: the one named, or the only one that runs.

    Raises:
        NotRunning: none runs.
        ConfigError: several run, and none was named.
    """
    if instance is not None:
        return instance
    names = [name for name in live_instances() if name != SUPERNODE]
    if not names:
        raise NotRunning("no edge is running here. Start one: n2n edge up --config edge.yaml")
    if len(names) > 1:
        raise ConfigError(f"several edges are running ({', '.join(sorted(names))}): say which with --instance NAME")
    return names[0]


def choose_daemon(instance: str | None) -> str:
    """The daemon that is meant: the one named, or the only one that runs, edge or supernode.

    Raises:
        NotRunning: none runs.
        ConfigError: several run, and none was named.
    """
    names = [instance] if instance is not None else sorted(live_instances())
    if not names:
        raise NotRunning("nothing of n2n is running here. Start an edge: n2n edge up --config edge.yaml")
    if len(names) > 1:
        raise ConfigError(f"several daemons are running ({', '.join(names)}): say which with --instance NAME")
    return names[0]


def stop(instance: str, timeout: float = 10.0) -> None:
    """Ask a daemon to end, and wait until it has.

    Raises:
        NotRunning: it did not run.
        NotReady: it is still there after `timeout` seconds.
    """
    with connect(instance) as client:
        client.call("down")
        client.wait_gone(timeout)


def _result(answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        raise CallFailed("failed", str(error))
    raise CallFailed(str(error.get("code", "failed")), str(error.get("message", "no reason given")))


def _not_running(instance: str) -> str:
    if instance == SUPERNODE:
        return "no supernode is running here. Start it: n2n supernode serve"
    return f"edge {instance} is not running. Start it: n2n edge up --tap-name {instance} --config edge.yaml"
