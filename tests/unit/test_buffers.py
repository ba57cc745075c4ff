"""The buffer pool: what it gives, what it refuses, what it counts."""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import pickle
import threading

import pytest

from n2n.buffers import BufferPool
from n2n.errors import LocalProtocolError, N2NError


def address_of(buffer) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer.view))


def test_buffers_are_aligned_apart_and_writable():
    with BufferPool(3, 1500) as pool:
        buffers = [pool.acquire() for _ in range(3)]
        addresses = sorted(address_of(buffer) for buffer in buffers)
        assert all(address % mmap.PAGESIZE == 0 for address in addresses)
        assert all(low + 1500 <= high for low, high in itertools.pairwise(addresses))
        for number, buffer in enumerate(buffers):
            buffer[:] = bytes([number + 1]) * 1500
        assert [bytes(buffer) for buffer in buffers] == [bytes([n]) * 1500 for n in (1, 2, 3)]
        assert [len(buffer) for buffer in buffers] == [1500] * 3
        assert buffers[1][7] == 2
        gc.collect()  # the ctypes exports above
        for buffer in buffers:
            buffer.release()


def test_small_alignment_packs_buffers():
    with BufferPool(4, 100, alignment=64) as pool:
        assert pool.statistics().mapped == 4 * 128
        with pool.acquire() as buffer:
            assert address_of(buffer) % 64 == 0
            gc.collect()


def test_exhaustion_is_an_error_and_is_counted():
    with BufferPool(2, 10) as pool:
        first, second = pool.acquire(), pool.acquire()
        with pytest.raises(N2NError, match="all 2 buffers"):
            pool.acquire()
        first.release()
        third = pool.acquire()
        statistics = pool.statistics()
        assert (statistics.in_use, statistics.free, statistics.peak) == (2, 0, 2)
        assert (statistics.acquired, statistics.exhausted) == (3, 1)
        second.release()
        third.release()


def test_double_release_is_refused_also_after_somebody_else_got_the_buffer():
    with BufferPool(1, 10) as pool:
        stale = pool.acquire()
        stale.release()
        with pytest.raises(LocalProtocolError, match="released twice"):
            stale.release()
        with pool.acquire() as current:
            with pytest.raises(LocalProtocolError, match="released twice"):
                stale.release()
            current[0] = 1
        assert pool.statistics().in_use == 0


def test_use_after_release_is_refused():
    with BufferPool(1, 10) as pool:
        buffer = pool.acquire()
        view = buffer.view
        buffer.release()
        with pytest.raises(LocalProtocolError, match="after its release"):
            buffer[0] = 1
        with pytest.raises(ValueError, match="released"):
            view[0]
        assert "released" in repr(buffer)


def test_release_inside_the_with_block_is_fine():
    with BufferPool(1, 10) as pool:
        with pool.acquire() as buffer:
            buffer.release()
        assert pool.statistics().in_use == 0


def test_release_is_refused_while_bytes_are_exported():
    with BufferPool(1, 16) as pool:
        buffer = pool.acquire()
        export = pickle.PickleBuffer(buffer.view)
        with pytest.raises(LocalProtocolError, match="exports its bytes"):
            buffer.release()
        assert not buffer.released
        export.release()
        buffer.release()


def test_a_dropped_handle_warns_and_its_buffer_is_not_given_to_another():
    pool = BufferPool(1, 10)
    with pytest.warns(ResourceWarning, match="dropped without release"):
        pool.acquire()  # the handle goes at once
    assert (pool.statistics().leaked, pool.statistics().in_use) == (1, 1)
    with pytest.raises(N2NError):
        pool.acquire()


def test_close_refuses_while_buffers_are_in_use():
    pool = BufferPool(1, 10)
    buffer = pool.acquire()
    with pytest.raises(LocalProtocolError, match="1 buffers are still in use"):
        pool.close()
    buffer.release()
    pool.close()
    pool.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        pool.acquire()


def test_close_notices_a_slice_that_outlived_its_buffer():
    pool = BufferPool(1, 10)
    with pool.acquire() as buffer:
        piece = buffer[2:4]
    with pytest.raises(LocalProtocolError, match="slice"):
        pool.close()
    piece.release()


@pytest.mark.parametrize(
    ("count", "size", "alignment"), [(0, 1, 64), (1, 0, 64), (1, 1, 3), (1, 1, 0), (1, 1, mmap.PAGESIZE * 2)]
)
def test_impossible_arguments(count, size, alignment):
    with pytest.raises(ValueError, match=r"pool has|alignment"):
        BufferPool(count, size, alignment=alignment)


def test_too_much_memory_is_an_error_of_ours():
    with pytest.raises(N2NError, match="cannot map"):
        BufferPool(1, 1 << 60)


def test_threads_never_share_a_buffer():
    clashes, rounds = [], 2000

    def work(mark: int) -> None:
        for _ in range(rounds):
            try:
                buffer = pool.acquire()
            except N2NError:
                continue
            with buffer:
                buffer[:] = bytes([mark]) * 64
                if bytes(buffer) != bytes([mark]) * 64:
                    clashes.append(mark)

    with BufferPool(3, 64, alignment=64) as pool:
        threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statistics = pool.statistics()
        assert clashes == []
        assert statistics.in_use == 0
        assert statistics.peak <= 3
        assert statistics.acquired + statistics.exhausted == 5 * rounds
