"""Writes down what becomes of an edge's paths, from the events that it tells. Nothing waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from n2n.daemon.base import Daemon
from n2n.errors import N2NError

if TYPE_CHECKING:
    from n2n.store.history import HistoryStore, PathChange

__all__ = ["COUNTERS", "MAX_WAITING", "History"]

COUNTERS: Final = (
    "history_kept",
    "history_dropped",  # too many at once
    "history_failures",  # of the disk
)
#: Changes that wait for the disk; what is beyond is counted, not kept.
MAX_WAITING: Final = 4096
#: Seconds that changes are gathered before they are written.
_GATHER: Final = 1.0


class History:
    """The path history of one edge.

    Args:
        daemon: whose events are heard, and who is told of failures (`history_failed`, `history_damaged`).
        path: of the file.
    """

    def __init__(self, daemon: Daemon, path: Path) -> None:
        self._daemon = daemon
        self._path = path
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._waiting: list[tuple[float, str, Mapping[str, Any]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._store: HistoryStore | None = None
        # One thread, made when it is first needed: SQLite is used by nobody else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="n2n-history")
        self._deafen: Callable[[], None] | None = daemon.listeners.add(self._hear)
        self._writing: asyncio.Future[None] | None = None

    def counters(self) -> dict[str, int]:
        """What was kept and what was not, by name (`daemon_history_...`)."""
        return {f"daemon_{name}": count for name, count in self._counts.items()}

    async def find(self, peer: str, since: float, limit: int) -> list[PathChange]:
        """Changes, the newest first; see `HistoryStore.find`.

        Raises:
            StoreError: the file cannot be read.
        """
        await self.flush()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._opened().find(peer, since, limit))

    async def flush(self) -> None:
        """Write what waits."""
        while self._waiting or (self._writing is not None and not self._writing.done()):
            self._start_writing()
            if self._writing is not None:
                await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Hear no more, write what waits, and close the file. May be called more than once."""
        if self._deafen is None:
            return
        self._deafen()
        self._deafen = None
        if self._timer is not None:
            self._timer.cancel()
        await self.flush()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, lambda: self._store.close() if self._store is not None else None)
        self._thread.shutdown()

    def _hear(self, event: dict[str, object]) -> None:
        kind, fields = event.get("event"), event.get("fields")
        if kind not in ("path", "peer_gone") or not isinstance(fields, Mapping):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._counts["history_dropped"] += 1
            return
        at = event.get("time")
        self._waiting.append((float(at) if isinstance(at, int | float) else 0.0, str(kind), fields))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER, self._start_writing)

    def _start_writing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and (self._writing is None or self._writing.done()):
            batch, self._waiting = self._waiting, []
            self._writing = asyncio.ensure_future(self._write(batch))

    async def _write(self, batch: list[tuple[float, str, Mapping[str, Any]]]) -> None:
        try:
            aside = await asyncio.get_running_loop().run_in_executor(self._thread, self._keep, batch)
            self._counts["history_kept"] += len(batch)
        except N2NError as error:
            self._counts["history_failures"] += 1
            self._daemon.tell("warning", "history_failed", {"lost": len(batch), "error": str(error)})
            return
        if aside is not None:
            self._daemon.tell("warning", "history_damaged", {"set_aside": str(aside)})

    def _keep(self, batch: list[tuple[float, str, Mapping[str, Any]]]) -> Path | None:
        """In the thread: write, and say where a damaged file was moved to."""
        from n2n.store.history import PathChange

        store = self._opened()
        store.add(
            PathChange(
                at=at,
                mac=str(fields.get("mac", "")),
                name=str(fields.get("name", "")),
                path="gone" if kind == "peer_gone" else str(fields.get("path", "")),
                reason=str(fields.get("reason", "")),
                endpoint=str(fields.get("endpoint", "")),
            )
            for at, kind, fields in batch
        )
        aside, store.set_aside = store.set_aside, None
        return aside

    def _opened(self) -> HistoryStore:
        """In the thread: the store, opened when it is first needed (SQLite takes 1 MB)."""
        if self._store is None:
            from n2n.store.history import HistoryStore

            self._store = HistoryStore(self._path)
        return self._store
