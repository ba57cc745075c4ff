"""Where the web pages of a daemon are listened for, and what happens when that cannot be: a warning, never its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from n2n.api.control import Method
from n2n.config import EdgeConfig
from n2n.config.kinds import is_loopback, split_host_port
from n2n.daemon.logs import Event
from n2n.errors import PlatformError
from n2n.web.server import COUNTERS, Answer, HttpServer, Request, Response

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon
    from n2n.daemon.supernode import SupernodeDaemon
    from n2n.web.pages import EdgePages

__all__ = ["WebPages"]


class WebPages:
    """The pages of one daemon.

    Args:
        daemon: its configuration says where to listen; it is told of what goes wrong, and asked for its events.
        methods: what it answers (see :mod:`n2n.api.service`); `status` gets a field `web` {url, problem}, `counters`
            the counters of the pages.
    """

    def __init__(self, daemon: EdgeDaemon | SupernodeDaemon, methods: dict[str, Method]) -> None:
        self.url: str | None = None
        """Where the pages are; None: nowhere."""
        self.problem: str | None = None
        """Why they are not where they should be; None: nothing is wrong."""
        self._daemon = daemon
        self._methods = methods
        self._token: str | None = None
        if isinstance(daemon.config, EdgeConfig):
            self._key, self._address = "api_listen_address", daemon.config.api_listen_address
            self._token = daemon.config.api_token
        else:
            self._key, self._address = "metrics_listen_address", daemon.config.metrics_listen_address
        self._server: HttpServer | None = None
        self._answer: Answer | None = None
        self._pages: EdgePages | None = None
        self._deafen: Callable[[], None] | None = None
        status, counters = methods["status"], methods["counters"]

        async def status_with(params: Mapping[str, Any]) -> object:
            return {**_mapping(await status(params)), "web": {"url": self.url, "problem": self.problem}}

        async def counters_with(params: Mapping[str, Any]) -> object:
            return {**_mapping(await counters(params)), **self.counters()}

        methods |= {"status": status_with, "counters": counters_with}

    async def start(self) -> None:
        """Listen, if that is wanted and possible; why it is not is told as an event `web_unavailable`."""
        if not self._address:
            return
        if self._token is None and not is_loopback(self._address):
            self._give_up(f"{self._address} can be reached from other hosts: set api_token, or listen on 127.0.0.1")
            return
        host, port = split_host_port(self._address)
        server = HttpServer(host, port, self._ask, token=self._token, fault=self._fault)
        try:
            where = await server.start()
        except PlatformError as error:
            self._give_up(str(error))
            return
        self._server = server
        self.url = f"http://{where}/{'peers' if self._daemon.role == 'edge' else 'metrics'}"
        self._daemon.tell("info", "web", {"url": self.url})

    async def close(self) -> None:
        """Serve no more. May be called more than once."""
        if self._deafen is not None:
            self._deafen()
        if self._server is not None:
            await self._server.close()
        if self._pages is not None:
            await self._pages.close()

    def counters(self) -> dict[str, int]:
        """What became of requests, by name (`web_...`); all zero where nothing is served."""
        counts = self._server.counters if self._server is not None else dict.fromkeys(COUNTERS, 0)
        return {f"web_{name}": value for name, value in counts.items()}

    async def _ask(self, request: Request) -> Response | None:
        if self._answer is None:
            # Only now: an edge that nobody looks at has no need of drawings.
            from n2n.web import pages

            if self._daemon.role == "edge":
                self._pages = pages.EdgePages(self._methods)
                self._deafen = self._daemon.listeners.add(self._pages.note)
                self._answer = self._pages.answer
            else:
                self._answer = pages.MetricsPage(self._methods).answer
        return await self._answer(request)

    def _give_up(self, why: str) -> None:
        self.problem = why
        self._daemon.tell("warning", "web_unavailable", {"key": self._key, "why": why})

    def _fault(self, error: Exception) -> None:
        self._daemon.log.error(Event("web_fault", {"error": repr(error)}), exc_info=error)


def _mapping(answer: object) -> Mapping[str, Any]:
    return answer if isinstance(answer, Mapping) else {}
