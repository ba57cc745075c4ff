"""What an edge shows under which path, from the answers of its control socket.

Everything is answered from what the edge knows, at once; what only the supernode knows comes from a cache and bears its
age, so no page waits for a supernode.  While nobody looks, nothing is asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from n2n.web import drawing, exposition
from n2n.web.cache import Cached
from n2n.web.graph import Graph, build_graph, how_old
from n2n.web.server import Request, Response

__all__ = ["EdgePages", "Methods", "MetricsPage"]

Methods = Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]

#: Seconds between two pictures sent to those who look.
_TICK: Final = 1.0
#: Pages that are kept up to date at once.
MAX_VIEWERS: Final = 16
_STATIC: Final = Path(__file__).with_name("static")
#: Served under /static/: name -> Content-Type.
_FILES: Final = {
    "peers.html": "text/html; charset=utf-8",
    "peers.css": "text/css; charset=utf-8",
    "peers.js": "text/javascript; charset=utf-8",
    "draw.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_JSON: Final = "application/json"
_DOT: Final = "text/vnd.graphviz; charset=utf-8"
#: An SVG by itself has its style inside, and nothing else.
_SVG_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class EdgePages:
    """Answers requests for the pages of one edge.

    Args:
        methods: the edge's: status, peers, counters, leases, state (see :mod:`n2n.api.views`), and history.
    """

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._state = Cached(lambda: methods["state"]({}))
        self._leases = Cached(lambda: methods["leases"]({}))
        self._viewers = 0
        self._current: dict[str, tuple[float, bytes]] = {}
        self._pages: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._home,
            "/peers": self._page,
            "/peers.json": self._peers_json,
            "/peers.svg": self._peers_svg,
            "/peers.dot": self._peers_dot,
            "/offlines.dot": self._offlines_dot,
            "/leases.json": self._leases_json,
            "/metrics": self._metrics,
            "/events": self._events,
            "/favicon.ico": self._icon,  # what browsers ask for beside JSON and SVG
        }
        if "history" in methods:
            self._pages["/history.json"] = self._history_json

    async def answer(self, request: Request) -> Response | None:
        """The page at a path; None: there is none."""
        if request.path.startswith("/static/"):
            name = request.path.removeprefix("/static/")
            kind = _FILES.get(name)
            return None if kind is None else Response(_file(name), kind)
        page = self._pages.get(request.path)
        return None if page is None else await page(request)

    async def close(self) -> None:
        """Ask the supernode no more."""
        await self._state.close()
        await self._leases.close()

    def note(self, event: Mapping[str, object]) -> None:
        """Hear of an event of the daemon: who comes or goes, the supernode knows more of by now."""
        if self._viewers and event.get("event") in ("peer_new", "peer_gone"):
            asyncio.get_running_loop().call_later(0.3, self._state.renew)

    async def _graph(self) -> Graph:
        state = await self._state.get()
        status, peers = await self._methods["status"]({}), await self._methods["peers"]({})
        return build_graph(status, peers, state)

    async def picture(self, focus: str | None = None) -> dict[str, Any]:
        """What the page draws, and `/peers.json` tells: see `n2n.web.drawing.snapshot` (also for `focus`).

        Besides: now (Unix seconds), age (seconds since the supernode's word, or null), problem (why its last answer is
        missing, or null), edge {instance, name, version, state, ready, supernode, sealed}.
        """
        state = await self._state.get()
        status, peers = await self._methods["status"]({}), await self._methods["peers"]({})
        graph = build_graph(status, peers, state)
        now = time.time()
        supernode = status.get("supernode") or {}
        return drawing.snapshot(graph, focus) | {
            "now": now,
            "age": None if graph.told is None else round(max(now - graph.told, 0.0), 3),
            "problem": self._state.problem,
            "edge": {
                **{name: status.get(name) for name in ("instance", "name", "version", "state", "ready", "sealed")},
                "supernode": supernode.get("endpoint") or supernode.get("configured"),
            },
        }

    # ---- pages -------------------------------------------------------------------------------

    async def _home(self, _: Request) -> Response:
        return Response(b"see /peers\n", status=303, headers=(("Location", "/peers"),))

    async def _page(self, _: Request) -> Response:
        return Response(_file("peers.html"), _FILES["peers.html"])

    async def _icon(self, _: Request) -> Response:
        return Response(_file("icon.svg"), _FILES["icon.svg"])

    async def _peers_json(self, _: Request) -> Response:
        return _json(await self.picture())

    async def _peers_svg(self, _: Request) -> Response:
        graph = await self._graph()
        text = drawing.svg(graph, note=how_old(graph))
        return Response(text.encode("utf-8", "replace"), "image/svg+xml", policy=_SVG_POLICY)

    async def _peers_dot(self, _: Request) -> Response:
        graph = await self._graph()
        return Response(f"// {how_old(graph)}\n{drawing.dot(graph)}".encode("utf-8", "replace"), _DOT)

    async def _offlines_dot(self, _: Request) -> Response:
        graph = await self._graph()
        return Response(f"// {how_old(graph)}\n{drawing.offlines_dot(graph)}".encode("utf-8", "replace"), _DOT)

    async def _leases_json(self, _: Request) -> Response:
        answer = await self._leases.get() or {}
        at = answer.get("at")
        age = round(max(time.time() - at, 0.0), 3) if isinstance(at, int | float) else None
        return _json({"at": at, "age": age, "problem": self._leases.problem, "leases": answer.get("leases", [])})

    async def _history_json(self, request: Request) -> Response:
        peer = request.query.get("peer", "")
        return _json(await self._methods["history"]({"peer": peer, "limit": 20}))

    async def _metrics(self, _: Request) -> Response:
        return await metrics(self._methods)

    async def _events(self, request: Request) -> Response:
        if self._viewers >= MAX_VIEWERS:
            return Response(b"too many pages are open\n", status=503)
        return Response(self._stream(request.query.get("of", "")[:17]), "text/event-stream")

    async def _stream(self, focus: str) -> AsyncGenerator[bytes, None]:
        self._viewers += 1
        try:
            yield b"retry: 2000\n\n"
            while True:
                yield b"data: " + await self._shared_picture(focus) + b"\n\n"
                await asyncio.sleep(_TICK)
        finally:
            self._viewers -= 1

    async def _shared_picture(self, focus: str) -> bytes:
        """The picture as JSON, made once for all who look at the same in the same moment."""
        now = time.monotonic()
        self._current = {key: made for key, made in self._current.items() if now - made[0] < _TICK / 2}
        if focus not in self._current:
            self._current[focus] = (now, _compact(await self.picture(focus)))
        return self._current[focus][1]


class MetricsPage:
    """Answers requests for `/metrics` alone, for a supernode.

    Args:
        methods: the daemon's: status and counters.
    """

    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    async def answer(self, request: Request) -> Response | None:
        """The metrics; None for every other path."""
        return await metrics(self._methods) if request.path == "/metrics" else None


async def metrics(methods: Methods) -> Response:
    """The metrics of a daemon with these methods."""
    status, counters = await methods["status"]({}), await methods["counters"]({})
    peers = await methods["peers"]({}) if "peers" in methods else {}
    return Response(exposition.exposition(status, counters, peers).encode(), exposition.CONTENT_TYPE)


def _file(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


def _json(value: object) -> Response:
    return Response(_compact(value) + b"\n", _JSON)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
