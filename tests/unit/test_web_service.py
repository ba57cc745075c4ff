"""Where a daemon's pages are, and that a daemon lives where they cannot be."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from http.client import HTTPConnection
from typing import Any

import pytest

from n2n.api.pages import WebPages
from n2n.api.service import edge_methods, supernode_methods
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.daemon.edge import EdgeDaemon
from n2n.daemon.supernode import SupernodeDaemon


def edge(**config: Any) -> EdgeDaemon:
    return EdgeDaemon(EdgeConfig(community="acme", supernode_addr="192.0.2.1:7777", **config), machine_id=bytes(16))


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 60)

    asyncio.run(bounded())


def get(url: str) -> tuple[int, bytes]:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = HTTPConnection(host, timeout=20)
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    try:
        return response.status, response.read()
    finally:
        connection.close()


def test_an_edge_serves_pages_and_tells_where() -> None:
    async def main() -> None:
        daemon = edge(api_listen_address="127.0.0.1:0")
        methods = edge_methods(daemon, "tap0")
        pages = WebPages(daemon, methods)
        await pages.start()
        status: Any = await methods["status"]({})
        assert status["web"] == {"url": pages.url, "problem": None}
        assert pages.url is not None
        assert (await asyncio.to_thread(get, pages.url))[0] == 200
        # An edge that is not registered has no word of its supernode, and says why.
        found = await asyncio.to_thread(get, pages.url.replace("/peers", "/leases.json"))
        assert b"not registered" in found[1]
        counters: Any = await methods["counters"]({})
        assert counters["web_requests"] == 2
        await pages.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(get, pages.url)

    run(main)


def test_a_supernode_tells_metrics_only_if_asked_to() -> None:
    async def main() -> None:
        config = SupernodeConfig(metrics_listen_address="127.0.0.1:0", state_dir=None)
        daemon = SupernodeDaemon(config)
        pages = WebPages(daemon, supernode_methods(daemon, "supernode"))
        await pages.start()
        assert pages.url is not None
        status, text = await asyncio.to_thread(get, pages.url)
        assert status == 200
        assert b'role="supernode"' in text
        await pages.close()
        silent = SupernodeDaemon(SupernodeConfig(state_dir=None))
        quiet = WebPages(silent, supernode_methods(silent, "supernode"))
        await quiet.start()
        assert (quiet.url, quiet.problem) == (None, None)

    run(main)


@pytest.mark.parametrize("why", ["taken", "open"])
def test_where_no_pages_can_be_served_the_edge_lives_and_says_why(why: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}" if why == "taken" else ":0"
            daemon = edge(api_listen_address=address)
            events: list[Any] = []
            daemon.listeners.add(events.append)
            methods = edge_methods(daemon, "tap0")
            pages = WebPages(daemon, methods)
            await pages.start()
            [event] = events
            assert (event["event"], event["level"]) == ("web_unavailable", "warning")
            assert event["fields"]["key"] == "api_listen_address"
            remedy = "another edge" if why == "taken" else "set api_token"
            assert remedy in event["fields"]["why"]
            status: Any = await methods["status"]({})
            assert status["web"]["url"] is None
            assert remedy in status["web"]["problem"]
            await pages.close()

    run(main)


def test_an_edge_that_nobody_looks_at_loads_nothing_for_pages() -> None:
    code = (
        "import sys, asyncio, n2n.api.service, n2n.cli.foreground\n"
        "import n2n.daemon.edge\n"
        "heavy = ('h11', 'n2n.web.pages', 'n2n.web.drawing', 'typer')\n"
        "print([name for name in heavy if name in sys.modules])"
    )

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert out == b"[]\n"

    run(main)
