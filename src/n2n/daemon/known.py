"""What an edge remembers of its supernode between two runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from n2n.errors import N2NError
from n2n.proto.actions import KeepKey

if TYPE_CHECKING:
    from n2n.store import KnownKey, KnownKeys

__all__ = ["KeyMemory"]


class KeyMemory:
    """The keys of an edge's supernodes on disk.

    Args:
        directory: the state directory; None: nothing is remembered.
        supernodes: their addresses, as they are configured.
        warn: told of a key that cannot be kept: event and fields.
    """

    def __init__(
        self, directory: Path | None, supernodes: Sequence[str], warn: Callable[[str, dict[str, object]], None]
    ) -> None:
        self._file = _open(directory) if directory is not None else None
        self._supernodes = tuple(supernodes)
        self._warn = warn

    async def load(self) -> dict[str, KnownKey]:
        """What is remembered, by address.

        Raises:
            StoreError: the file is damaged, or cannot be read.
        """
        if self._file is None:
            return {}
        known = await asyncio.to_thread(self._file.all)
        return {address: known[address] for address in self._supernodes if address in known}

    async def keep(self, action: KeepKey) -> None:
        """Remember a key; if that fails, what is known now holds until the end of this run."""
        if self._file is None:
            return
        from n2n.store import KnownKey

        key = KnownKey(action.public_pem, action.lasts, time.time())
        try:
            await asyncio.to_thread(self._file.put, action.supernode or self._supernodes[0], key)
        except N2NError as error:
            self._warn("key_not_kept", {"error": str(error)})


def _open(directory: Path) -> KnownKeys:
    from n2n.store import KnownKeys  # loaded where it is used: most of it is the supernode's

    return KnownKeys(directory)
