"""A small HTTP/1.1 server for a few pages: bounded in everything, and nothing loaded before somebody connects.

The protocol is h11's: it parses, and keeps to the rules of HTTP.  (aiohttp would cost an idle edge 14 MB of its 60.)
Only GET and HEAD, no bodies; `Host` must name this host, so that no web site can read these pages through a browser
(DNS rebinding); where a token is set, it is asked for before anything is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from n2n.daemon.runtime import hang_up
from n2n.errors import N2NError, PlatformError

if TYPE_CHECKING:
    import h11

__all__ = ["COUNTERS", "HttpServer", "Request", "Response", "host_allowed"]

#: What is counted.
COUNTERS: Final = (
    "requests",
    "too_many",  # connections beyond the limit
    "malformed",  # no HTTP, or a head that is too long
    "timed_out",  # a head that did not come, an answer that was not taken
    "bad_host",
    "bad_token",
    "bad_method",
    "with_body",
    "not_found",
    "faults",  # bugs
)

#: Connections at once. A browser opens up to six.
MAX_CONNECTIONS: Final = 48
#: Bytes of a request's head.
MAX_HEAD: Final = 16384
#: Seconds for a head to come whole, and for a client to take what it was sent.
HEAD_TIMEOUT: Final = 10.0
WRITE_TIMEOUT: Final = 10.0
#: Seconds that a connection is kept for the next request.
IDLE_TIMEOUT: Final = 30.0
#: Requests on one connection.
_MAX_TURNS: Final = 1000

#: Nothing from elsewhere, nothing inline, no frames around us.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A question.

    Args:
        path: without the query.
        query: by name; of several values the last.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Args:
        body: all of it; or pieces, as they come, until the client leaves.
        kind: Content-Type.
        status: of HTTP.
        headers: further ones.
        policy: Content-Security-Policy.
    """

    body: bytes | AsyncGenerator[bytes, None]
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    policy: str = _POLICY


Answer = Callable[[Request], Awaitable["Response | None"]]


class _Refused(Exception):  # noqa: N818
    def __init__(self, counter: str, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.counter = counter
        self.response = Response(f"{text}\n".encode(), status=status, headers=headers)


class HttpServer:
    """Answers on one TCP address.

    Args:
        host: IP address; empty: every one.
        port: 0: the kernel chooses.
        answer: makes the answers; None for a path that does not exist.
        token: who has it may ask; None: everybody who gets here.
        fault: told of an exception of `answer`, which is a bug.
    """

    def __init__(
        self, host: str, port: int, answer: Answer, *, token: str | None, fault: Callable[[Exception], None]
    ) -> None:
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._address = (host, port)
        self._answer = answer
        self._token = token
        self._fault = fault
        self._names = {"localhost", *_names_of_host()}
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Begin to listen.

        Returns:
            The address and port to ask at, such as ``127.0.0.1:7778``.

        Raises:
            PlatformError: the address cannot be had; the message says what to do.
        """
        sock = _bound(*self._address)
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=MAX_HEAD)
        host, port = sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Let everybody go. May be called more than once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            self.counters["too_many"] += 1
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            for _ in range(_MAX_TURNS):
                await self._turn(connection, reader, writer)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        except TimeoutError:
            self.counters["timed_out"] += 1
        except (OSError, h11.LocalProtocolError):
            pass  # the client left
        except Exception as error:
            self.counters["faults"] += 1
            self._fault(error)
        except asyncio.CancelledError:  # the daemon ends, and waits for nobody
            writer.transport.abort()
            raise
        finally:
            await hang_up(writer, WRITE_TIMEOUT)

    async def _turn(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take one request and answer it."""
        import h11

        head = ""
        try:
            request = await _read_request(connection, reader)
            if request is None:
                return
            self.counters["requests"] += 1
            head = request.method.decode("ascii", "replace")
            response = await self._respond(request)
        except _Refused as refusal:
            self.counters[refusal.counter] += 1
            response = refusal.response
        except h11.RemoteProtocolError as error:
            self.counters["malformed"] += 1
            if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return
            response = Response(b"this is not HTTP as it should be\n", status=error.error_status_hint)
        async with contextlib.aclosing(_pieces(response)) as pieces:
            await _send(connection, writer, response, pieces, bodiless=head == "HEAD")

    async def _respond(self, request: h11.Request) -> Response:
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        if not host_allowed(headers.get("host", ""), self._names):
            raise _Refused("bad_host", 403, "ask for this page by the IP address of its host, or as localhost")
        if self._token is not None and not _token_given(headers.get("authorization", ""), self._token):
            challenge = ("WWW-Authenticate", 'Basic realm="n2n: any name, and api_token as the password"')
            raise _Refused(
                "bad_token", 401, "the token (api_token) is needed, as a password or a bearer token", challenge
            )
        if request.method not in (b"GET", b"HEAD"):
            raise _Refused("bad_method", 405, "there is only GET and HEAD", ("Allow", "GET, HEAD"))
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            raise _Refused("with_body", 413, "no body is taken")
        try:
            response = await self._answer(_parsed(request.target))
        except N2NError as error:  # such as a disk that is full
            return Response(f"{error}\n".encode("utf-8", "replace"), status=503)
        except Exception as error:
            self.counters["faults"] += 1
            self._fault(error)
            return Response(b"this is a bug: see the log of the daemon\n", status=500)
        if response is None:
            raise _Refused("not_found", 404, "there is no such page; see /peers")
        return response


def _parsed(target: bytes) -> Request:
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(target.decode("ascii"))
        query = dict(parse_qsl(parts.query, max_num_fields=8))
    except ValueError:
        return Request("")
    return Request(unquote(parts.path, errors="replace"), query)


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The next request; None where the client has nothing more to ask.

    Raises:
        TimeoutError: it began, and did not come whole in time.
    """
    import h11

    if not connection.trailing_data[0]:
        try:
            async with asyncio.timeout(IDLE_TIMEOUT):
                connection.receive_data(await reader.read(4096))
        except TimeoutError:
            return None
    request: h11.Request | None = None
    async with asyncio.timeout(HEAD_TIMEOUT):
        while True:
            event: Any = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(4096))
            elif isinstance(event, h11.Request):
                request = event
                if _has_body(request):
                    return request
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None


def _has_body(request: h11.Request) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in request.headers
    )


async def _pieces(response: Response) -> AsyncGenerator[bytes, None]:
    if isinstance(response.body, bytes):
        yield response.body
        return
    async with contextlib.aclosing(response.body) as pieces:
        async for piece in pieces:
            yield piece


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    response: Response,
    pieces: AsyncIterator[bytes],
    *,
    bodiless: bool,
) -> None:
    import h11

    headers = [
        ("Content-Type", response.kind),
        ("Content-Security-Policy", response.policy),
        ("Cache-Control", "no-store"),
        *_HEADERS,
        *response.headers,
    ]
    if isinstance(response.body, bytes):
        headers.append(("Content-Length", str(len(response.body))))
    # A client that has not sent all of its request (a body that is not taken) must not send more of it.
    if connection.their_state is not h11.DONE:
        headers.append(("Connection", "close"))
    writer.write(connection.send(h11.Response(status_code=response.status, headers=headers)) or b"")
    if not bodiless:
        async for piece in pieces:
            writer.write(connection.send(h11.Data(data=piece)) or b"")
            async with asyncio.timeout(WRITE_TIMEOUT):
                await writer.drain()
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(WRITE_TIMEOUT):
        await writer.drain()


def host_allowed(host: str, names: set[str]) -> bool:
    """Whether a `Host` header names this host: by an IP address, or by one of `names`.

    A name that somebody else chose may lead here by their DNS; an address cannot.

    >>> [host_allowed(host, {"localhost"}) for host in ("127.0.0.1:7778", "[::1]", "LOCALHOST:80", "evil.example", "")]
    [True, True, True, False, False]
    """
    name, colon, port = host.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or name.endswith(":"):
        name = host
    name = name.lower().removesuffix(".")
    if name in names:
        return True
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _token_given(authorization: str, token: str) -> bool:
    import base64
    import binascii
    import hmac

    scheme, _, credentials = authorization.partition(" ")
    given = credentials.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given, token.encode("utf-8", "surrogateescape"))


def _names_of_host() -> Iterator[str]:
    name = socket.gethostname().lower()
    yield name
    yield name.partition(".")[0]


def _bound(host: str, port: int) -> socket.socket:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if not host:
            # Both families on one socket, where this kernel has IPv6.
            with contextlib.suppress(OSError):
                return _listening(socket.AF_INET6, "::", port, dual=True)
        return _listening(socket.AF_INET6 if ":" in host else socket.AF_INET, host or "0.0.0.0", port)  # noqa: S104
    except OSError as error:
        raise PlatformError(f"cannot listen on {shown}: {_remedy(error)}") from error


def _listening(family: socket.AddressFamily, host: str, port: int, *, dual: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # Connections of a daemon that has just ended do not hold the address.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((host, port))
        sock.listen(MAX_CONNECTIONS)
    except OSError:
        sock.close()
        raise
    return sock


def _remedy(error: OSError) -> str:
    said = (error.strerror or str(error)).lower()
    if error.errno == errno.EADDRINUSE:
        return f'{said} (by another edge of this host?). Choose another port, or "" for none'
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{said}: this host does not have it. Choose one that it has, or 127.0.0.1"
    if error.errno == errno.EACCES:
        return f"{said}. Choose a port above 1023"
    return said
