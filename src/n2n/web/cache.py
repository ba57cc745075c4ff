"""What only the supernode can tell, kept with its age.

Whoever asks gets what there is, at once; it is renewed aside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from n2n.errors import N2NError

__all__ = ["Cached"]

#: Seconds between two questions to the supernode, however many people look.
_REFRESH: Final = 5.0
#: Seconds that the very first question may keep somebody waiting.
_PATIENCE: Final = 0.05


class Cached:
    """The last answer to one question.

    Args:
        ask: asks it; may raise N2NError or TimeoutError, and may take seconds.
        refresh: seconds after which the answer is asked for anew, if somebody wants it.
    """

    def __init__(self, ask: Callable[[], Awaitable[Any]], refresh: float = _REFRESH) -> None:
        self._ask = ask
        self._refresh = refresh
        self._asked = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.answer: Mapping[str, Any] | None = None
        """What was answered last; None: nothing yet."""
        self.problem: str | None = None
        """Why the last question was not answered; None: it was."""

    async def get(self) -> Mapping[str, Any] | None:
        """The last answer, at once; a newer one is asked for where it is time.

        Where there is none yet it is waited for, but not long.
        """
        if time.monotonic() - self._asked >= self._refresh:
            self.renew()
        if self.answer is None and self._task is not None:
            await asyncio.wait({self._task}, timeout=_PATIENCE)
        return self.answer

    def renew(self) -> None:
        """Ask anew, unless that is under way."""
        if self._task is None or self._task.done():
            self._asked = time.monotonic()
            self._task = asyncio.get_running_loop().create_task(self._renew())

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _renew(self) -> None:
        try:
            answer = await self._ask()
        except (N2NError, TimeoutError) as error:
            self.problem = str(error) or "the supernode did not answer in time"
            return
        if isinstance(answer, Mapping):
            self.answer, self.problem = answer, None
