"""What an edge remembers of its supernode between two runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from n2n.errors import N2NError
from n2n.proto.actions import KeepKey
from n2n.store import KnownKey, KnownKeys

__all__ = ["KeyMemory"]


class KeyMemory:
    """The supernode's key on disk.

    Args:
        directory: the state directory; None: nothing is remembered.
        address: of the supernode, as it is configured.
        warn: told of a key that cannot be kept: event and fields.
    """

    def __init__(self, directory: Path | None, address: str, warn: Callable[[str, dict[str, object]], None]) -> None:
        self._file = KnownKeys(directory) if directory is not None else None
        self._address = address
        self._warn = warn

    async def load(self) -> KnownKey | None:
        """What is remembered.

        Raises:
            StoreError: the file is damaged, or cannot be read.
        """
        return await asyncio.to_thread(self._file.get, self._address) if self._file is not None else None

    async def keep(self, action: KeepKey) -> None:
        """Remember a key; if that fails, what is known now holds until the end of this run."""
        if self._file is None:
            return
        key = KnownKey(action.public_pem, action.lasts, time.time())
        try:
            await asyncio.to_thread(self._file.put, self._address, key)
        except N2NError as error:
            self._warn("key_not_kept", {"error": str(error)})
