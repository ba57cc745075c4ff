"""A fixed pool of equal-size byte buffers, for users of this library.

Its memory is mapped and filled in once, when the pool is made; `acquire` and `release` neither map nor copy any.
A small handle object is made per `acquire`: it is what makes a double release, or a use of the handle after its
release, an error instead of silent corruption.  (A slice that outlives the handle is beyond what Python can notice.)

The data plane does not draw on this pool: it keeps its packet buffers in a slab of its own in C, where no Python
object stands for them.  `BufferPool` is the same idea for code that feeds or drains packets from Python.
"""

from __future__ import annotations

import mmap
import threading
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, overload

from n2n.errors import LocalProtocolError, N2NError

__all__ = ["DEFAULT_BUFFER_SIZE", "Buffer", "BufferPool", "PoolStatistics"]

#: Bytes that hold any Ethernet frame of an MTU up to 1500 with the tunnel's headers and tag around it.
DEFAULT_BUFFER_SIZE: Final = 2048


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool holds and did.

    Args:
        capacity: buffers in all.
        buffer_size: usable bytes of each.
        mapped: bytes of memory that the pool occupies.
        in_use: buffers acquired and not yet released.
        peak: largest `in_use` so far.
        acquired: successful calls of `acquire`.
        exhausted: calls of `acquire` that found no free buffer.
        leaked: buffers whose handle was dropped without `release`.  They stay in use, because a view of them may
            still be about; each was also reported as a ResourceWarning.
    """

    capacity: int
    buffer_size: int
    mapped: int
    in_use: int
    peak: int
    acquired: int
    exhausted: int
    leaked: int

    @property
    def free(self) -> int:
        """Buffers that `acquire` can give at once."""
        return self.capacity - self.in_use


class Buffer:
    """One buffer of a pool: a context manager that behaves like a writable sequence of bytes.

    Its content is whatever the former user left there.  Do not make one: `BufferPool.acquire` does.
    """

    __slots__ = ("__weakref__", "_index", "_pool", "_view")

    def __init__(self, pool: BufferPool, index: int, view: memoryview) -> None:
        self._pool = pool
        self._index = index
        self._view: memoryview | None = view

    @property
    def view(self) -> memoryview:
        """All its bytes, writable; for `readinto`, `recv_into`, `struct.pack_into`.

        Do not use a slice of it after `release`: the bytes are somebody else's then, and nothing can tell.

        Raises:
            LocalProtocolError: the buffer was released.
        """
        if self._view is None:
            raise LocalProtocolError(f"buffer {self._index} is used after its release: acquire one again")
        return self._view

    @property
    def released(self) -> bool:
        """True after `release`."""
        return self._view is None

    def release(self) -> None:
        """Give the buffer back to its pool.

        Raises:
            LocalProtocolError: it was released before, or an object that exports its bytes still holds them.
        """
        self._pool._take_back(self)

    def __len__(self) -> int:
        return len(self.view)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> memoryview: ...
    def __getitem__(self, at: int | slice) -> int | memoryview:
        return self.view[at]

    @overload
    def __setitem__(self, at: int, value: int) -> None: ...
    @overload
    def __setitem__(self, at: slice, value: bytes | bytearray | memoryview) -> None: ...
    def __setitem__(self, at: int | slice, value: int | bytes | bytearray | memoryview) -> None:
        self.view[at] = value  # type: ignore[index,assignment]

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.released:
            self.release()

    def __del__(self) -> None:
        if self._view is not None:
            self._pool._count_leak(self)

    def __repr__(self) -> str:
        state = "released" if self._view is None else f"{len(self._view)} bytes"
        return f"<Buffer {self._index}: {state}>"


class BufferPool:
    """A fixed number of equal-size buffers over one anonymous mapping.  Safe to use from several threads.

    Args:
        count: number of buffers, at least 1.
        size: usable bytes of each, at least 1.
        alignment: every buffer begins at a multiple of this many bytes in memory; a power of two up to the page
            size, which is the default.  64 (a cache line) packs small buffers closer.

    Raises:
        ValueError: an argument is out of range.
        N2NError: the memory cannot be had.

    >>> pool = BufferPool(count=2, size=1500)
    >>> with pool.acquire() as buffer:
    ...     buffer[0:5] = b"hello"
    ...     (bytes(buffer[0:5]), pool.statistics().in_use)
    (b'hello', 1)
    >>> pool.close()
    """

    def __init__(self, count: int, size: int = DEFAULT_BUFFER_SIZE, *, alignment: int = mmap.PAGESIZE) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"a pool has at least one buffer of one byte, not {count} of {size}")
        if not 1 <= alignment <= mmap.PAGESIZE or alignment & (alignment - 1):
            raise ValueError(f"alignment {alignment} is not a power of two up to the page size {mmap.PAGESIZE}")
        self._size = size
        self._count = count
        self._stride = -(-size // alignment) * alignment
        # Reentrant: a collection that starts while a thread is in here may drop a leaked buffer of this pool.
        self._lock = threading.RLock()
        self._free = list(range(count - 1, -1, -1))
        self._peak = self._acquired = self._exhausted = self._leaked = 0
        try:
            # MAP_POPULATE: the pages exist from now on, so that later use cannot run out of memory.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            self._memory = mmap.mmap(-1, self._stride * count, flags=flags)
        except (OSError, OverflowError) as error:
            raise N2NError(
                f"cannot map {self._stride * count} bytes for {count} buffers: {error}. Ask for fewer or smaller ones"
            ) from error
        self._slab: memoryview | None = memoryview(self._memory)

    def acquire(self) -> Buffer:
        """Take a free buffer; give it back by `Buffer.release`, or use it in a `with` block.

        Raises:
            N2NError: none is free (the pool never grows).
            LocalProtocolError: the pool is closed.
        """
        with self._lock:
            if self._slab is None:
                raise LocalProtocolError("the buffer pool is closed")
            if not self._free:
                self._exhausted += 1
                raise N2NError(f"all {self._count} buffers of the pool are in use: release some, or make a larger pool")
            index = self._free.pop()
            self._acquired += 1
            self._peak = max(self._peak, self._count - len(self._free))
            start = index * self._stride
            return Buffer(self, index, self._slab[start : start + self._size])

    def statistics(self) -> PoolStatistics:
        """What the pool holds and did, at one moment."""
        with self._lock:
            return PoolStatistics(
                capacity=self._count,
                buffer_size=self._size,
                mapped=self._stride * self._count,
                in_use=self._count - len(self._free),
                peak=self._peak,
                acquired=self._acquired,
                exhausted=self._exhausted,
                leaked=self._leaked,
            )

    def close(self) -> None:
        """Return the memory to the system.  May be called again.

        Raises:
            LocalProtocolError: buffers are still in use.
        """
        with self._lock:
            if self._slab is None:
                return
            if len(self._free) != self._count:
                raise LocalProtocolError(
                    f"{self._count - len(self._free)} buffers are still in use: release them before the pool is closed"
                )
            self._slab.release()
            self._slab = None
            try:
                self._memory.close()
            except BufferError:
                raise LocalProtocolError(
                    "a slice of a released buffer is still in use: the pool is closed, but its memory stays mapped"
                ) from None

    def _take_back(self, buffer: Buffer) -> None:
        with self._lock:
            if buffer._view is None:
                raise LocalProtocolError(f"buffer {buffer._index} is released twice")
            try:
                buffer._view.release()
            except BufferError:
                raise LocalProtocolError(
                    f"buffer {buffer._index} is released while another object exports its bytes: drop that first"
                ) from None
            buffer._view = None
            self._free.append(buffer._index)

    def _count_leak(self, buffer: Buffer) -> None:
        with self._lock:
            self._leaked += 1
        warnings.warn(f"buffer {buffer._index} was dropped without release", ResourceWarning, stacklevel=3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
