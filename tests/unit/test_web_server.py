"""The web server and the pages of an edge: what they answer, and everything that a client can do wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from n2n.errors import NotReady, PlatformError, StoreError
from n2n.web import pages as pages_module
from n2n.web import server as module
from n2n.web.cache import Cached
from n2n.web.pages import EdgePages
from n2n.web.server import COUNTERS, HttpServer, Request, Response, host_allowed
from tests.unit.web_fakes import community, methods_of, served

TOKEN = "open-sesame-42"
PATHS = ("/peers", "/peers.json", "/peers.svg", "/peers.dot", "/offlines.dot", "/leases.json", "/metrics")


def answers_of(members: int = 4) -> dict[str, Any]:
    history = {"at": 5.0, "peer": "x", "changes": []}
    return community(members, offline=1) | {"counters": {"plane_drop_short": 1}, "history": history}


async def plain(request: Request) -> Response | None:
    return None if request.path == "/none" else Response(request.path.encode("utf-8", "replace"))


def get(where: str, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(where, timeout=20)
    try:
        connection.request(method, path, body=body, headers={n.replace("_", "-"): v for n, v in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def raw(where: str, data: bytes, *, hang_up: bool = True) -> bytes:
    """Send bytes, and read until the server closes."""
    host, _, port = where.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            if hang_up:
                sock.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                found += piece
        return found


@pytest.fixture
def where() -> Iterator[tuple[str, HttpServer]]:
    with served(plain) as found:
        yield found


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_answered_safely(path: str) -> None:
    with served(EdgePages(methods_of(answers_of())).answer) as (where, server):
        response, body = get(where, path)
        head, empty = get(where, path, "HEAD")
    assert response.status == head.status == 200
    assert len(body) == int(head.headers["Content-Length"]) or path in ("/peers.json", "/leases.json")
    assert empty == b""
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy or path == "/peers.svg"
    assert "http" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert server.counters["requests"] == 2


def test_what_the_pages_hold() -> None:
    with served(EdgePages(methods_of(answers_of())).answer) as (where, _):
        picture = json.loads(get(where, "/peers.json")[1])
        assert {member["role"] for member in picture["members"]} == {"self", "member", "offline"}
        assert picture["age"] > 0
        assert picture["edge"]["supernode"] == "192.0.2.1:7777"
        assert ET.fromstring(get(where, "/peers.svg")[1]).tag.endswith("svg")
        assert get(where, "/peers.dot")[1].startswith(b"// ")
        assert b"router-bern" not in get(where, "/peers.dot")[1]
        assert b"phone" in get(where, "/offlines.dot")[1]
        assert json.loads(get(where, "/leases.json")[1])["leases"] == []
        assert json.loads(get(where, "/history.json?peer=02:00:00:00:00:01")[1])["changes"] == []
        assert b'n2n_dropped_total{reason="short"} 1' in get(where, "/metrics")[1]
        home, _ = get(where, "/")
        assert (home.status, home.headers["Location"]) == (303, "/peers")


def test_the_page_takes_nothing_from_elsewhere() -> None:
    with served(EdgePages(methods_of(answers_of())).answer) as (where, _):
        page = get(where, "/peers")[1].decode()
        used = re.findall(r'(?:src|href)="([^"]*)"', page)
        assert used
        for path in used:
            assert path.startswith(("/", "#"))
            if path.startswith("/static/"):
                response, body = get(where, path)
                assert response.status == 200
                assert b"http://" not in body.replace(b"http://www.w3.org/", b"")
                assert b"https://" not in body
        assert "style=" not in page
        assert not re.search(r"<script(?![^>]*src=)", page)
        assert get(where, "/favicon.ico")[1] == get(where, "/static/icon.svg")[1]
        assert get(where, "/static/../pages.py")[0].status == 404
        assert get(where, "/static/%2e%2e/pages.py")[0].status == 404


def test_no_page_waits_for_the_supernode() -> None:
    asked = threading.Event()

    async def never(_: Mapping[str, Any]) -> Any:
        asked.set()
        await asyncio.Event().wait()

    pages = EdgePages(methods_of(answers_of()) | {"state": never, "leases": never})
    with served(pages.answer) as (where, _):
        for path in PATHS:  # each is answered, though the question to the supernode never is
            assert get(where, path)[0].status == 200
        assert asked.is_set()
        picture = json.loads(get(where, "/peers.json")[1])
        assert picture["age"] is None
        assert len(picture["members"]) == 3
        asyncio.run_coroutine_threadsafe(pages.close(), pages._state._task.get_loop()).result(20)  # type: ignore[union-attr]


async def _silent(_: Mapping[str, Any]) -> Any:
    await asyncio.Event().wait()


async def _slow(_: Mapping[str, Any]) -> Any:
    await asyncio.sleep(0.5)
    raise TimeoutError


async def _refuses(_: Mapping[str, Any]) -> Any:
    raise NotReady("the edge is not registered")


@pytest.mark.parametrize("supernode", [None, _silent, _slow, _refuses])
def test_pages_of_200_members_come_within_100_ms_whatever_the_supernode_does(supernode: Any) -> None:
    methods = methods_of(community(200, offline=10) | {"counters": {}})
    if supernode is not None:
        methods = {**methods, "state": supernode, "leases": supernode}
    pages = EdgePages(methods)
    with served(pages.answer) as (where, _):
        for path in PATHS:
            taken = []
            for _ in range(20):  # of a busy machine the quickest counts: what waits for something is never quick
                start = time.monotonic()
                assert get(where, path)[0].status == 200
                taken.append(time.monotonic() - start)
                if taken[-1] < 0.1:
                    break
            assert min(taken) < 0.1, path
        loop = pages._state._task.get_loop()  # type: ignore[union-attr]
        asyncio.run_coroutine_threadsafe(pages.close(), loop).result(20)


def test_an_answer_is_kept_with_its_age_while_the_supernode_is_silent() -> None:
    async def main() -> None:
        answers: list[Any] = [{"at": 1.0}, NotReady("the edge is not registered"), TimeoutError(), {"at": 9.0}]

        async def ask() -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        cached = Cached(ask, refresh=0.0)
        assert await cached.get() == {"at": 1.0}
        for problem in ("the edge is not registered", "the supernode did not answer in time"):
            assert await cached.get() == {"at": 1.0}
            await asyncio.sleep(0.01)
            assert cached.problem == problem
        await cached.get()
        await asyncio.sleep(0.01)
        assert (cached.answer, cached.problem) == ({"at": 9.0}, None)
        await cached.close()

    asyncio.run(main())


def test_nothing_is_asked_while_nobody_looks_and_little_while_many_do() -> None:
    asked = 0

    async def state(_: Mapping[str, Any]) -> Any:
        nonlocal asked
        asked += 1
        return {"at": 1.0, "reachable": [], "offline": []}

    with served(EdgePages(methods_of(answers_of()) | {"state": state}).answer) as (where, _):
        assert asked == 0
        for _ in range(20):
            get(where, "/peers.json")
    assert asked < 20


def test_the_page_is_told_of_changes() -> None:
    answers = answers_of()
    with served(EdgePages(methods_of(answers)).answer) as (where, _):
        connection = HTTPConnection(where, timeout=20)
        connection.request("GET", "/events")
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        first = next_picture(response)
        answers["peers"]["peers"][0] |= {"path": "relay", "full_duplex": False, "one_way": False}
        answers["state"]["reachable"] = []
        while (picture := next_picture(response))["members"][1]["path"] != "relay":
            pass
        assert first["members"][1]["at"] == picture["members"][1]["at"]
        connection.close()


def next_picture(response: HTTPResponse) -> Any:
    while not (line := response.readline()).startswith(b"data: "):
        assert line
    return json.loads(line[6:])


def test_open_pages_are_bounded_and_let_go() -> None:
    pages = EdgePages(methods_of(answers_of()))
    with served(pages.answer) as (where, _):
        streams = []
        for _ in range(pages_module.MAX_VIEWERS):
            connection = HTTPConnection(where, timeout=20)
            connection.request("GET", "/events")
            next_picture(connection.getresponse())
            streams.append(connection)
        assert get(where, "/events")[0].status == 503
        for connection in streams:
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
        until(lambda: pages._viewers == 0)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_hosts_by_other_names_are_refused(where: tuple[str, HttpServer]) -> None:
    address, server = where
    for host in (
        "evil.example",
        "evil.example:7778",
        "",
        "127.0.0.1.evil.example",
        "[::1",
        "1.2.3",
        "localhost.evil.ex",
    ):
        assert get(address, "/peers", Host=host)[0].status == 403
    for host in ("localhost", "127.0.0.1:1", "[::1]:7778", "192.0.2.7", socket.gethostname()):
        assert get(address, "/peers", Host=host)[0].status == 200
    assert server.counters["bad_host"] == 7
    assert raw(address, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    assert not host_allowed("a" * 10_000, set())


def test_a_token_is_asked_for_where_one_is_set() -> None:
    with served(plain, TOKEN) as (where, server):
        assert get(where, "/peers", Authorization=f"Bearer {TOKEN}")[0].status == 200
        password = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
        assert get(where, "/peers", Authorization=f"Basic {password}")[0].status == 200
        wrong = ("", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Digest {TOKEN}", f"Bearer {TOKEN}x", "Basic !!", "\xff")
        for given in wrong:
            response, body = get(where, "/peers", **({"Authorization": given} if given else {}))
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
            assert TOKEN.encode() not in body
        assert server.counters["bad_token"] == len(wrong)


def test_methods_bodies_and_unknown_pages_are_refused(where: tuple[str, HttpServer]) -> None:
    address, server = where
    assert get(address, "/peers", "POST")[0].status == 405
    assert get(address, "/peers", "GET", b"a body")[0].status == 413
    assert get(address, "/peers", "GET", iter([b"piece"]))[0].status == 413
    assert get(address, "/none")[0].status == 404
    found = {name: count for name, count in server.counters.items() if count}
    assert found == {"requests": 4, "bad_method": 1, "with_body": 2, "not_found": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 40_000 + b"\r\n\r\n",
        b"G" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_counted(where: tuple[str, HttpServer], data: bytes) -> None:
    address, server = where
    answer = raw(address, data)
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d |HTTP/1\.1 501 ", answer)
    until(lambda: server.counters["malformed"] + server.counters["bad_host"] + server.counters["with_body"] == 1)
    assert get(address, "/x")[1] == b"/x"


@pytest.mark.parametrize(
    "path", ["/%ff%00", "//x//", "/?" + "a&" * 500, "/?a=1&a=2", "http://other/peers", "*", "/%", "/[::"]
)
def test_odd_targets_do_no_harm(path: str) -> None:
    with served(EdgePages(methods_of(answers_of())).answer) as (where, server):
        answer = raw(where, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1\.1 (200|303|404) ", answer)
        assert server.counters["faults"] == 0


def test_several_requests_on_one_connection(where: tuple[str, HttpServer]) -> None:
    address, server = where
    request = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(address, request * 3)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert server.counters["requests"] == 3


def test_slow_clients_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr(module, "IDLE_TIMEOUT", 0.1)
    with served(plain) as (where, server):
        assert raw(where, b"GET / HTTP/1.1\r\nHo", hang_up=False) == b""
        until(lambda: server.counters["timed_out"] == 1)
        assert raw(where, b"", hang_up=False) == b""  # one that says nothing is no more than idle
        assert server.counters["timed_out"] == 1


def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT", 0.05)

    async def large(_: Request) -> Response:
        return Response(bytes(64 * 1024 * 1024))

    with served(large) as (where, server):
        host, _, port = where.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: server.counters["timed_out"] == 1)
            until(lambda: not server._tasks)
            # What it did not take is thrown away: nothing of it is kept until it may read again.
            taken = 0
            with contextlib.suppress(ConnectionError):
                while piece := sock.recv(1 << 20):
                    taken += len(piece)
            assert taken < 64 * 1024 * 1024


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    with served(plain) as (where, server):
        host, _, port = where.rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert sock.recv(20)
            assert raw(where, b"").startswith(b"HTTP/1.1 503 ")
            assert server.counters["too_many"] == 1
        until(lambda: not server._tasks)
        assert get(where, "/x")[1] == b"/x"


def test_a_bug_is_told_and_counted_and_shows_nothing() -> None:
    async def broken(_: Request) -> Response:
        raise ZeroDivisionError("secret detail")

    async def main() -> None:
        faults: list[Exception] = []
        server = HttpServer("127.0.0.1", 0, broken, token=None, fault=faults.append)
        where = await server.start()
        response, body = await asyncio.to_thread(get, where, "/x")
        await server.close()
        assert response.status == 500
        assert b"secret" not in body
        assert server.counters["faults"] == len(faults) == 1

    asyncio.run(main())


def test_what_cannot_be_told_now_is_no_bug() -> None:
    with served(EdgePages(methods_of(answers_of() | {"history": StoreError("cannot read x: no space")})).answer) as (
        where,
        server,
    ):
        response, body = get(where, "/history.json")
        assert (response.status, body) == (503, b"cannot read x: no space\n")
        assert server.counters["faults"] == 0


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [("127.0.0.1", None, "in use"), ("192.0.2.1", 0, "does not have it"), ("", None, "in use")],
)
def test_an_address_that_cannot_be_had(host: str, port: int | None, text: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1" if host else "0.0.0.0", 0)) as taken:
            number = taken.getsockname()[1] if port is None else port
            server = HttpServer(host, number, plain, token=None, fault=lambda _: None)
            with pytest.raises(PlatformError, match=text):
                await server.start()
            await server.close()

    asyncio.run(main())


def test_every_way_to_fail_has_a_counter() -> None:
    source = module.__loader__.get_source(module.__name__)  # type: ignore[union-attr, attr-defined]
    used = set(re.findall(r'(?:_Refused\(|counters\[)\s*"(\w+)"', source))
    assert used == set(COUNTERS)
