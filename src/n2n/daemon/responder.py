"""The far end of ``n2n bench PEER``: answers other edges of the community that want to measure the way to this one.

It listens on the edge's virtual address alone, on the TAP device alone, and only while `allow_bench` is on. Who asks is
a member, and may be hostile all the same, so everything is bounded: one session at a time, its length and its rate,
how much of the time sessions take in the long run, connections, lines, datagrams. A stream goes only to who holds a
connection and a session's token, and a datagram is answered by one of its own length, to the session's address.

TCP, port 7779: a connection begins with one line, a JSON object with "do", and is answered by one line,
``{"ok": true, ...}`` or ``{"ok": false, "why": "..."}``:

- ``open`` (seconds, rate): begins a session, which lasts as long as this connection and not longer than asked for;
  answered by its token. On the same connection then, as often as wanted: ``usage`` (CPU seconds of the edge's threads),
  ``relay`` (seconds: our frames to the asker go by the supernode meanwhile; 0 ends that).
  Of the path outside of the tunnel, where it is direct: ``outer`` (seconds: loads of the asker are taken for so long;
  answered by the token that they bear), ``pour`` (size, rate in bits/s, seconds: loads are sent to the asker, of all
  together no more bytes than came from it), ``counted`` (what `n2n.daemon.outer.Loads.look` tells).
- ``sink`` (token): takes bytes to their end, answers with their number and the seconds they took.
- ``source`` (token, seconds): sends bytes.

UDP, port 7779: a datagram that begins with a session's token (8 bytes) comes back as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from n2n.errors import N2NError
from n2n.proto.pacing import Bucket

if TYPE_CHECKING:
    from n2n.daemon.outer import Loads

__all__ = ["MAX_RATE", "MAX_SECONDS", "PORT", "Host", "Responder", "thread_usage"]

PORT: Final = 7779
#: Seconds of one session.
MAX_SECONDS: Final = 120.0
#: Bits in a second, each way.
MAX_RATE: Final = 10_000_000_000
#: Seconds of sessions that there are at once, and how many come back in a second: a quarter of the time, in the end.
_BUDGET: Final = 360.0
_REFILL: Final = 0.25
_CONNECTIONS: Final = 8
_LINE: Final = 512
#: Seconds for the first line of a connection, and between two questions of a session.
_PATIENCE: Final = 5.0
_PAUSE: Final = 0.01
#: Datagrams that come back in a second, and at once.
_ECHOES: Final = 5000.0
_BURST: Final = 500.0
_SMALLEST: Final = 16
_LARGEST: Final = 9000
_BLOCK: Final = 1 << 18
_TOKEN: Final = 8


class Host(Protocol):
    """What the responder asks of its edge."""

    def knows(self, address: IPv4Address) -> bool:
        """Is this the virtual address of a member?"""

    def relay(self, address: IPv4Address, seconds: float) -> bool:
        """Send frames to that member by the supernode for so long; False where it is not known."""

    def loads_of(self, session: object, address: IPv4Address, rate: float, seconds: float) -> Loads:
        """Loads between this edge and that member, at so many bytes in a second; NotReady where there can be none."""

    def end_loads(self, owner: object) -> None:
        """The session is over."""

    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Log."""


@dataclass(eq=False, slots=True)
class _Session:
    """One measurement by one member."""

    source: str
    token: bytes
    rate: float  # bytes in a second
    until: float
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Refused(Exception):  # noqa: N818
    """Why a request is not done, for its sender."""


class Responder:
    """Listens while it is open.

    Args:
        host: the edge.
        clock: monotonic seconds.
    """

    def __init__(self, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._clock = clock
        self._listener: socket.socket | None = None
        self._echo: socket.socket | None = None
        self._session: _Session | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget = _BUDGET
        self._counted_at = clock()
        self._echoes = Bucket(_ECHOES, _BURST)
        self._counts = dict.fromkeys(
            (
                "bench_sessions", "bench_echoes", "bench_outer", "bench_poured",
                "bench_refused", "bench_stranger", "bench_limited", "bench_bad",
            ),
            0,
        )  # fmt: skip

    def counters(self) -> dict[str, int]:
        """Sessions and datagrams answered; times that loads were taken and sent outside of the tunnel; requests
        refused; datagrams of strangers and over the rate; bad lines."""
        return dict(self._counts)

    @property
    def listening(self) -> bool:
        """True while it is open."""
        return self._listener is not None

    def open(self, address: IPv4Address, device: str | None, port: int = PORT) -> None:
        """Listen on this address; where it listened before, no more.

        Args:
            address: the edge's virtual address.
            device: what does not come in by this network device is not for us; None: by any (tests).
            port: of TCP and UDP.

        Raises:
            OSError: the address cannot be had, or the port is in use.
        """
        self.close()
        loop = asyncio.get_running_loop()
        self._listener = _bound(socket.SOCK_STREAM, address, device, port)
        try:
            self._listener.listen(_CONNECTIONS)
            self._echo = _bound(socket.SOCK_DGRAM, address, device, self._listener.getsockname()[1])
        except OSError:
            self._listener.close()
            self._listener = None
            raise
        loop.add_reader(self._listener.fileno(), self._accept)
        loop.add_reader(self._echo.fileno(), self._answer)

    @property
    def port(self) -> int:
        """Where it listens; 0 where it does not."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    def close(self) -> None:
        """Listen no more, and end what goes on. May be called more than once."""
        for sock in (self._listener, self._echo):
            if sock is not None:
                asyncio.get_running_loop().remove_reader(sock.fileno())
                sock.close()
        self._listener = self._echo = None
        for task in tuple(self._tasks):
            task.cancel()

    # ---- datagrams ---------------------------------------------------------------------------

    def _answer(self) -> None:
        for _ in range(64):  # then the loop has other things to do
            if self._echo is None:
                return
            try:
                datagram, source = self._echo.recvfrom(_LARGEST + 1)
            except OSError:
                return
            session = self._session
            if (
                session is None
                or source[0] != session.source
                or not _SMALLEST <= len(datagram) <= _LARGEST
                or not secrets.compare_digest(datagram[:_TOKEN], session.token)
            ):
                self._counts["bench_stranger"] += 1
            elif not self._echoes.take(self._clock()):
                self._counts["bench_limited"] += 1
            else:
                with contextlib.suppress(OSError):  # lost, as it happens to datagrams
                    self._echo.sendto(datagram, source)
                    self._counts["bench_echoes"] += 1

    # ---- connections -------------------------------------------------------------------------

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, source = self._listener.accept()
        except OSError:  # it left before, or there are no descriptors: the next one has its chance
            return
        if len(self._tasks) >= _CONNECTIONS:
            self._counts["bench_refused"] += 1
            sock.close()
            return
        sock.setblocking(False)
        self._spawn(self._serve(sock, str(source[0])))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, source: str) -> None:
        with sock, contextlib.suppress(OSError, TimeoutError):
            try:
                async with asyncio.timeout(_PATIENCE):
                    request = await self._request(sock)
                if request is None:
                    return
                if request.get("do") == "open":
                    await self._measured(sock, source, request)
                else:
                    await self._transfer(sock, source, request)
            except Refused as refusal:
                self._counts["bench_refused"] += 1
                async with asyncio.timeout(_PATIENCE):
                    await _say(sock, ok=False, why=str(refusal))

    async def _request(self, sock: socket.socket) -> dict[str, Any] | None:
        """The next line; None where the other has hung up.

        Raises:
            Refused: it is none.
        """
        line = b""
        loop = asyncio.get_running_loop()
        while not line.endswith(b"\n"):
            part = await loop.sock_recv(sock, _LINE + 1 - len(line))
            if not part:
                return None
            line += part
            if len(line) > _LINE:
                break
        with contextlib.suppress(ValueError, RecursionError):
            request = json.loads(line[:_LINE])
            if isinstance(request, dict):
                return request
        self._counts["bench_bad"] += 1
        raise Refused("a request is one line of JSON")

    async def _measured(self, sock: socket.socket, source: str, request: Mapping[str, Any]) -> None:
        session = self._begin(source, request)
        task = asyncio.current_task()
        assert task is not None
        began = self._clock()
        self._host.tell("info", "bench", {"by": source, "seconds": round(session.until - began, 1)})
        try:
            async with asyncio.timeout(session.until - began):
                await _say(sock, ok=True, token=session.token.hex())
                while (asked := await self._request(sock)) is not None:
                    await _say(sock, **self._do(session, asked))
                    await asyncio.sleep(_PAUSE)
        finally:
            self._session = None
            self._host.relay(IPv4Address(source), 0)
            self._host.end_loads(session)
            # What was not used comes back, but for a second: very short sessions are bounded, too.
            self._budget += max(0.0, session.until - max(self._clock(), began + 1.0))
            for other in tuple(session.tasks):
                other.cancel()

    def _begin(self, source: str, request: Mapping[str, Any]) -> _Session:
        seconds, rate = _number(request, "seconds", 1, MAX_SECONDS), _number(request, "rate", 1, MAX_RATE)
        now = self._clock()
        self._budget = min(_BUDGET, self._budget + (now - self._counted_at) * _REFILL)
        self._counted_at = now
        if not self._host.knows(IPv4Address(source)):
            raise Refused("only members of the community may measure")
        if self._session is not None:
            raise Refused("another measurement is going on: try again later")
        if self._budget < seconds:
            wait = math.ceil((seconds - self._budget) / _REFILL)
            raise Refused(f"there were many measurements: try again in {wait} s")
        self._budget -= seconds
        self._counts["bench_sessions"] += 1
        self._session = _Session(source, secrets.token_bytes(_TOKEN), rate / 8, now + seconds)
        return self._session

    def _do(self, session: _Session, request: Mapping[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "usage":
                return {"ok": True, "usage": thread_usage()}
            case "relay":
                seconds = _number(request, "seconds", 0, MAX_SECONDS)
                seconds = min(seconds, max(0.0, session.until - self._clock()))
                return {"ok": self._host.relay(IPv4Address(session.source), seconds), "why": "not a peer any more"}
            case "outer" | "pour" | "counted":
                try:
                    return self._outer(session, request)
                except N2NError as error:  # the path is not direct just now, say: the session goes on
                    self._counts["bench_refused"] += 1
                    return {"ok": False, "why": str(error)}
        raise Refused("there is usage, relay, outer, pour, and counted")

    def _outer(self, session: _Session, request: Mapping[str, Any]) -> dict[str, Any]:
        """See the head of this module. The path must be direct whenever something is asked for."""
        left = max(0.0, session.until - self._clock())
        loads = self._host.loads_of(session, IPv4Address(session.source), session.rate, left)
        match request["do"]:
            case "outer":
                seconds = min(_number(request, "seconds", 0, MAX_SECONDS), left)
                token = loads.open(seconds)
                self._counts["bench_outer"] += 1
                return {"ok": True, "token": token.hex()}
            case "pour":
                size, rate = _number(request, "size", 0, 65535), _number(request, "rate", 1, 8 * session.rate)
                seconds = min(_number(request, "seconds", 0, MAX_SECONDS), left)
                loads.send(size=int(size), rate=rate / 8, seconds=seconds, most=loads.credit)
                self._counts["bench_poured"] += 1
                return {"ok": True}
        return {"ok": True, **loads.look()}

    async def _transfer(self, sock: socket.socket, source: str, request: Mapping[str, Any]) -> None:
        session = self._session
        token = request.get("token")
        if session is None or source != session.source or token != session.token.hex():
            raise Refused("there is no such session")
        task = asyncio.current_task()
        assert task is not None
        session.tasks.add(task)
        try:
            async with asyncio.timeout(max(0.0, session.until - self._clock())):
                if request.get("do") == "sink":
                    await _say(sock, ok=True)
                    await self._sink(sock, session)
                elif request.get("do") == "source":
                    seconds = _number(request, "seconds", 0, MAX_SECONDS)
                    await _say(sock, ok=True)
                    await self._pour(sock, session, seconds)
                else:
                    raise Refused("there is open, sink, and source")
        finally:
            session.tasks.discard(task)

    async def _sink(self, sock: socket.socket, session: _Session) -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray(_BLOCK)
        count, start = 0, 0.0
        while size := await loop.sock_recv_into(sock, buffer):
            start = start or self._clock()
            count += size
            await self._pace(count, start, session)
        await _say(sock, ok=True, bytes=count, seconds=self._clock() - start if start else 0.0)

    async def _pour(self, sock: socket.socket, session: _Session, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        block = os.urandom(_BLOCK)  # nothing that compresses
        count, start = 0, self._clock()
        while self._clock() - start < seconds:
            await loop.sock_sendall(sock, block)
            count += len(block)
            await self._pace(count, start, session)
        sock.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(sock, _LINE):  # until it has all
            pass

    async def _pace(self, count: int, start: float, session: _Session) -> None:
        """Wait where so many bytes since `start` are above the session's rate; let others have their turn anyway."""
        ahead = count / session.rate - (self._clock() - start)
        await asyncio.sleep(ahead if ahead > 0.002 else 0)


def thread_usage() -> dict[str, dict[str, float]]:
    """CPU seconds of this process's threads so far, by name: {"main": {"user": 1.5, "system": 0.2}, ...}.

    Threads that ended are not in it.
    """
    tick = os.sysconf("SC_CLK_TCK")
    found: dict[str, dict[str, float]] = {}
    for thread in threading.enumerate():
        with contextlib.suppress(OSError, IndexError, ValueError):  # it has just ended
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
            name = "main" if thread is threading.main_thread() else thread.name
            found[name] = {"user": int(stat[11]) / tick, "system": int(stat[12]) / tick}
    return found


def _bound(kind: socket.SocketKind, address: IPv4Address, device: str | None, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if device is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
    except OSError:
        sock.close()
        raise
    return sock


def _number(request: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(f"{name} is a number from {low:g} to {high:g}")
    return float(value)


async def _say(sock: socket.socket, **answer: object) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, json.dumps(answer).encode() + b"\n")
