"""Keeps a promise to the edges: what a supernode tells them is on disk before the datagram leaves.

Batches of actions come in order and are carried out in order.  One that has something to save waits until the disk
has it; what comes meanwhile waits behind it, and goes to the disk together in the next transaction.  So the loop never
waits for the disk, and a slow disk makes larger transactions, not a longer queue of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from n2n.errors import N2NError
from n2n.proto.actions import DropLease, DropNetwork, SaveLease, SaveNetwork, Send
from n2n.wire import PacketType

__all__ = ["CommitQueue"]

_KEPT: Final = (SaveLease, DropLease, SaveNetwork, DropNetwork)
#: Seconds after a failed transaction until the next batch tries it again, even if it has nothing to save itself.
_RETRY: Final = 10.0
#: Where a header has its type (docs/PROTOCOL.md), and that of the answer to a registration.
_TYPE_AT: Final = 2
_RESPONSE: Final = bytes((PacketType.REGISTER_RESPONSE,))


class _Store(Protocol):
    def save(self, batch: list[Any]) -> None: ...


class CommitQueue:
    """Carries out batches of a supernode's actions, with the disk first.

    Args:
        store: where leases and networks are kept; called in a thread.
        execute: carries out all other actions, on the loop.
        complain: told of a failed transaction. The datagrams of its batches are not sent (the edges ask again), and
            what was not saved is tried again with the next, after `_RETRY` seconds with any batch, and at the end.
    """

    def __init__(
        self, store: _Store, execute: Callable[[Sequence[Any]], None], complain: Callable[[Exception], None]
    ) -> None:
        self.failures = 0
        self._store = store
        self._execute = execute
        self._complain = complain
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="n2n-store")
        self._waiting: list[Sequence[Any]] = []
        self._unsaved: dict[Hashable, Any] = {}
        self._retry_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def submit(self, actions: Sequence[Any]) -> None:
        """Carry out a batch, now or when the disk is through with what stands before it."""
        loop = asyncio.get_running_loop()
        waits = any(isinstance(action, _KEPT) for action in actions) or (
            bool(self._unsaved) and (loop.time() >= self._retry_at or any(map(_promises, actions)))
        )
        if self._task is None and not waits:
            self._execute(actions)
            return
        self._waiting.append(actions)
        if self._task is None:
            self._task = loop.create_task(self._work(), name="commits")

    async def close(self) -> None:
        """Wait until everything is on disk and carried out."""
        if self._task is not None:
            await self._task
        if self._unsaved:  # the last chance: the disk may have room again
            await asyncio.get_running_loop().run_in_executor(self._thread, self._save, list(self._unsaved.values()))
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batches, self._waiting = self._waiting, []
                for batch in batches:
                    self._remember(batch)
                durable = True
                if self._unsaved:
                    durable = await loop.run_in_executor(self._thread, self._save, list(self._unsaved.values()))
                if durable:
                    self._unsaved.clear()
                else:
                    self._retry_at = loop.time() + _RETRY
                for batch in batches:
                    self._carry_out(batch, durable)
        finally:
            self._task = None

    def _remember(self, batch: Sequence[Any]) -> None:
        """Note what is to be saved; a later word on the same thing replaces the earlier, in the later's place."""
        for action in batch:
            if isinstance(action, _KEPT):
                key = _key(action)
                self._unsaved.pop(key, None)
                self._unsaved[key] = action

    def _save(self, actions: list[Any]) -> bool:
        try:
            self._store.save(actions)
        except (N2NError, OSError) as error:
            self.failures += 1
            self._complain(error)
            return False
        return True

    def _carry_out(self, batch: Sequence[Any], durable: bool) -> None:
        saves = any(isinstance(action, _KEPT) for action in batch)
        held = _KEPT if durable or not saves else (*_KEPT, Send)
        # An edge asks again, and its lease is not on disk yet, though this batch has nothing to save.
        self._execute([a for a in batch if not isinstance(a, held) and (durable or not _promises(a))])


def _promises(action: object) -> bool:
    """Is this the datagram that tells an edge its address?"""
    return isinstance(action, Send) and action.datagram[_TYPE_AT : _TYPE_AT + 1] == _RESPONSE


def _key(action: SaveLease | DropLease | SaveNetwork | DropNetwork) -> Hashable:
    match action:
        case SaveLease(record):
            return "lease", record.community, record.mac
        case DropLease(community, mac):
            return "lease", community, mac
        case SaveNetwork(community=community) | DropNetwork(community=community):
            return "network", community
