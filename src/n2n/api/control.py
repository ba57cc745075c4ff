"""The control socket of a daemon: one JSON object per line, both ways, over a Unix socket.

    -> {"id": 1, "method": "status", "params": {}}
    <- {"id": 1, "result": {...}}            or {"id": 1, "error": {"code": "...", "message": "..."}}

`events` is answered by ``{"id": 1, "result": {"streaming": true}}``, and from then on by lines
``{"id": 1, "event": {"time": ..., "level": ..., "event": ..., "fields": {...}}, "missed": 0}`` until the client leaves;
`missed` counts events that were dropped since the last line because the client did not keep up.  With
``"params": {"recent": 20}`` the last 20 events come first (at most 256 are kept).

Error codes: bad_request, unknown_method, too_large, busy, not_ready, timed_out, failed.  Requests, clients and
what waits for a slow client are bounded.  Who may connect is a matter of file permission (0660; group "n2n" where
there is one).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from n2n.daemon.logs import Event
from n2n.daemon.runtime import RECENT, Listeners, hang_up
from n2n.errors import ConfigError, N2NError, NotReady, PlatformError

__all__ = ["AlreadyRunning", "ControlServer", "Method"]

#: Bytes of one request line; the longest honest one has less than 200.
MAX_REQUEST: Final = 16384
MAX_CLIENTS: Final = 32
#: Events that wait for one client.
MAX_WAITING: Final = 2 * RECENT
#: Seconds after which a client that neither asks nor reads is let go.
IDLE_TIMEOUT: Final = 60.0
_GROUP: Final = "n2n"
_BAD_RECENT: Final = f"recent is a number of events, 0 to {RECENT}"
_LOG: Final = logging.getLogger("n2n.control")

Method: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[object]]


class AlreadyRunning(PlatformError):  # noqa: N818
    """Another daemon answers under this instance's name."""


class ControlServer:
    """Answers on one Unix socket.

    Args:
        path: of the socket; its directory is made if need be.
        methods: by name; each gets the request's params and returns what JSON can carry.
        listeners: where `events` come from.
    """

    def __init__(self, path: Path, methods: Mapping[str, Method], listeners: Listeners) -> None:
        self.path = path
        self._methods = methods
        self._listeners = listeners
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._lock_fd = -1

    async def start(self) -> None:
        """Take the instance's name and listen.

        Raises:
            AlreadyRunning: a live daemon holds it. The socket of a dead one is replaced.
            PlatformError: the directory or the socket cannot be made.
        """
        try:
            _make_dir(self.path.parent)
            self._lock_fd = _take_lock(self.path)
            sock = _bind(self.path)
        except OSError as error:
            self._release()
            raise PlatformError(
                f"control socket {self.path}: {error.strerror}. Run as root, or set N2N_RUN_DIR to a directory of yours"
            ) from error
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=MAX_REQUEST)

    async def close(self) -> None:
        """Let all clients go and give the name back. May be called more than once."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._release()

    def _release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            writer.write(_line({"id": None, "error": _error("busy", f"more than {MAX_CLIENTS} clients")}))
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._turn(reader, writer):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client left, or sleeps
        except asyncio.CancelledError:  # the daemon ends, and waits for nobody
            writer.transport.abort()
            raise
        finally:
            await hang_up(writer, IDLE_TIMEOUT)

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            line = await asyncio.wait_for(reader.readuntil(b"\n"), IDLE_TIMEOUT)
        except asyncio.LimitOverrunError:
            await _write(
                writer, {"id": None, "error": _error("too_large", f"a request has at most {MAX_REQUEST} bytes")}
            )
            return False
        request, problem = _parse(line)
        if problem is not None:
            await _write(writer, {"id": request.get("id"), "error": problem})
            return True
        if request["method"] == "events":
            recent = (request.get("params") or {}).get("recent", 0)
            if not isinstance(recent, int) or not 0 <= recent <= RECENT:
                await _write(writer, {"id": request.get("id"), "error": _error("bad_request", _BAD_RECENT)})
                return True
            await self._stream(request.get("id"), recent, reader, writer)
            return False
        await _write(writer, {"id": request.get("id")} | await self._answer(request))
        return True

    async def _answer(self, request: Mapping[str, Any]) -> dict[str, object]:
        method = self._methods.get(request["method"])
        if method is None:
            known = ", ".join(sorted({*self._methods, "events"}))
            return {"error": _error("unknown_method", f"no method {request['method']!r}; there are: {known}")}
        try:
            return {"result": await method(request.get("params") or {})}
        except NotReady as error:
            return {"error": _error("not_ready", str(error))}
        except ConfigError as error:
            return {"error": _error("bad_request", str(error))}
        except TimeoutError as error:
            return {"error": _error("timed_out", str(error) or "no answer in time")}
        except N2NError as error:
            return {"error": _error("failed", str(error))}
        except Exception as error:
            _LOG.exception(Event("control_fault", {"method": request["method"]}))
            return {"error": _error("failed", f"internal error ({type(error).__name__}); see the daemon's log")}

    async def _stream(
        self, ident: object, recent: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        waiting: asyncio.Queue[dict[str, object]] = asyncio.Queue(MAX_WAITING)
        missed = 0

        def listen(event: dict[str, object]) -> None:
            nonlocal missed
            if waiting.full():
                missed += 1
            else:
                waiting.put_nowait(event)

        async def forward() -> None:
            nonlocal missed
            while True:
                event = await waiting.get()
                lost, missed = missed, 0
                await _write(writer, {"id": ident, "event": event, "missed": lost})

        remove = self._listeners.add(listen, recent)
        forwarding: asyncio.Task[None] | None = None
        try:
            await _write(writer, {"id": ident, "result": {"streaming": True}})
            forwarding = asyncio.get_running_loop().create_task(forward())
            gone = asyncio.get_running_loop().create_task(_until_eof(reader))
            await asyncio.wait({forwarding, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
        finally:
            remove()
            if forwarding is not None:
                forwarding.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, TimeoutError):
                    await forwarding


async def _until_eof(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(MAX_REQUEST):
            pass


async def _write(writer: asyncio.StreamWriter, answer: Mapping[str, object]) -> None:
    writer.write(_line(answer))
    await asyncio.wait_for(writer.drain(), IDLE_TIMEOUT)


def _line(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer, separators=(",", ":"), default=str).encode() + b"\n"


def _error(code: str, message: str) -> dict[str, object]:
    return {"code": code, "message": message}


def _parse(line: bytes) -> tuple[dict[str, Any], dict[str, object] | None]:
    """The request, and what is wrong with it if anything is."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {}, _error("bad_request", "a request is one line of JSON")
    if not isinstance(request, dict):
        return {}, _error("bad_request", "a request is a JSON object")
    ident = request.get("id")
    if not isinstance(ident, str | int | None):
        return {}, _error("bad_request", "an id is a number or a string")
    if not isinstance(request.get("method"), str):
        return {"id": ident}, _error("bad_request", "a request needs a method")
    if not isinstance(request.get("params"), dict | None):
        return {"id": ident}, _error("bad_request", "params are an object")
    return request, None


def _make_dir(directory: Path) -> None:
    private = os.geteuid() != 0
    directory.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
    if private and str(directory).startswith("/tmp/"):  # noqa: S108
        status = directory.lstat()
        if status.st_uid != os.geteuid() or not directory.is_dir() or directory.is_symlink():
            raise PlatformError(f"{directory} belongs to somebody else: remove it, or set N2N_RUN_DIR")


def _take_lock(path: Path) -> int:
    """Hold ``<instance>.lock`` while the daemon lives: the kernel lets go of it however the daemon ends."""
    fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AlreadyRunning(
            f"{path.stem} is already running (it answers on {path}). Stop it first, or choose another name: "
            "an edge's is that of its TAP device"
        ) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # we hold the lock: it is a dead daemon's
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        mask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(_GROUP).gr_gid)
        path.chmod(0o660)
        sock.listen(MAX_CLIENTS)
    except OSError:
        sock.close()
        raise
    return sock
