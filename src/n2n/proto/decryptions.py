"""RSA decryptions under way: asked of the world, answered later, bounded meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from n2n.types import Endpoint, MacAddress
from n2n.wire import HeartbeatPulse, ProtoV, RegisterRequest, UnregisterRequest

__all__ = ["Decryptions", "Job", "Sealed"]

#: A decryption that was not answered after this many seconds is given up.
_PATIENCE: Final = 5.0

#: The messages that carry an encrypted machine id.
Sealed: TypeAlias = RegisterRequest | HeartbeatPulse | UnregisterRequest


@dataclass(frozen=True, slots=True)
class Job:
    """What a decryption is for.

    Args:
        header: header of the packet.
        message: its message.
        source: where it came from.
        digest: of the ciphertext.
        started: monotonic seconds.
    """

    header: ProtoV
    message: Sealed
    source: Endpoint
    digest: bytes
    started: float

    @property
    def key(self) -> tuple[Endpoint, int, MacAddress]:
        """One sender has one job of a kind at a time."""
        return self.source, self.header.type, self.header.source


class Decryptions:
    """The jobs under way, in order of their start.

    Args:
        limit: number of jobs at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: dict[int, Job] = {}
        self._keys: set[tuple[Endpoint, int, MacAddress]] = set()
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def room(self, known: bool) -> bool:
        """A further job can be started; the last quarter is kept for senders that are registered."""
        return len(self._jobs) < (self._limit if known else max(1, self._limit * 3 // 4))

    def busy(self, source: Endpoint, header: ProtoV) -> bool:
        """A job for a packet of this sender and kind is under way."""
        return (source, header.type, header.source) in self._keys

    def start(self, job: Job) -> int:
        """Enter a job; returns the token under which it will be answered."""
        self._tokens += 1
        self._jobs[self._tokens] = job
        self._keys.add(job.key)
        return self._tokens

    def finish(self, token: int) -> Job | None:
        """Take out the job that was answered; None if there is no such job (any more)."""
        job = self._jobs.pop(token, None)
        if job is not None:
            self._keys.discard(job.key)
        return job

    def expire(self, mono: float) -> int:
        """Give up the jobs that were not answered in time; returns how many there were."""
        given_up = 0
        while self._jobs:
            token, job = next(iter(self._jobs.items()))
            if mono - job.started < _PATIENCE:
                break
            self.finish(token)
            given_up += 1
        return given_up
