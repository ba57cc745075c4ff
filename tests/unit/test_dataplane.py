"""How the daemons get their descriptors: TAP queues with what the kernel offers, and a plane or several."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from n2n._fastpath.group import PlaneGroup
from n2n._fastpath.plane import Plane
from n2n.daemon import dataplane
from n2n.daemon.dataplane import compiled_plane, open_queues, thread_count
from n2n.errors import PlatformError, TapError

ALL = frozenset({"csum", "tso", "uso"})


class FakeKernel:
    """Stands for `Tap`: `offers` are the offloads of its devices, `refuses` the errors of the calls that open one, by
    their number from 0 on."""

    def __init__(self) -> None:
        self.offers = ALL
        self.refuses: dict[int, int | None] = {}
        self.calls: list[tuple[str, bool, bool]] = []
        self.asked: list[bool] = []
        self.open_taps: list[FakeTap] = []

    def open(self, name: str, *, vnet_hdr: bool = False, multi_queue: bool = False) -> FakeTap:
        number = len(self.calls)
        self.calls.append((name, vnet_hdr, multi_queue))
        if number in self.refuses:
            code = self.refuses[number]
            raise TapError(f"refused {name}") from (None if code is None else OSError(code, os.strerror(code)))
        tap = FakeTap(self, name.replace("%d", "7"), vnet_hdr)
        self.open_taps.append(tap)
        return tap


class FakeTap:
    def __init__(self, kernel: FakeKernel, name: str, vnet_hdr: bool) -> None:
        self.kernel = kernel
        self.name = name
        self.vnet_hdr = vnet_hdr

    def offload(self, *, uso: bool) -> frozenset[str]:
        assert self.vnet_hdr
        self.kernel.asked.append(uso)
        return self.kernel.offers if uso else self.kernel.offers - {"uso"}

    def close(self) -> None:
        self.kernel.open_taps.remove(self)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel()
    monkeypatch.setattr(dataplane, "Tap", fake)
    return fake


def opened(count: int = 1, *, offload: bool = True, uso: bool = True) -> tuple[list[FakeTap], list[str]]:
    """The queues and the warnings."""
    said: list[str] = []
    return open_queues("vpn%d", count, offload=offload, uso=uso, warn=said.append), said  # type: ignore[return-value]


# ---- queues --------------------------------------------------------------------------------------


def test_one_queue_with_all_offloads(kernel: FakeKernel) -> None:
    queues, said = opened()
    assert [(tap.name, tap.vnet_hdr) for tap in queues] == [("vpn7", True)]
    assert kernel.calls == [("vpn%d", True, False)]
    assert kernel.asked == [True]
    assert said == []


def test_further_queues_are_of_the_device_that_the_first_one_made(kernel: FakeKernel) -> None:
    queues, said = opened(3)
    assert kernel.calls == [("vpn%d", True, True), ("vpn7", True, True), ("vpn7", True, True)]
    assert [tap.name for tap in queues] == ["vpn7"] * 3
    assert kernel.asked == [True] * 3, "what one of them does not ask for, all lose"
    assert said == []


@pytest.mark.parametrize("count", [1, 2])
def test_without_offloads_none_are_asked_for(kernel: FakeKernel, count: int) -> None:
    queues, said = opened(count, offload=False)
    assert [tap.vnet_hdr for tap in queues] == [False] * count
    assert kernel.asked == []
    assert said == []


def test_without_uso_only_that_is_left_out(kernel: FakeKernel) -> None:
    queues, said = opened(uso=False)
    assert queues[0].vnet_hdr
    assert kernel.asked == [False]
    assert said == []


@pytest.mark.parametrize(
    ("offers", "told"),
    [({"csum", "tso"}, "uso"), ({"csum"}, "tso, uso"), (set(), "csum, tso, uso")],
)
def test_what_the_kernel_lacks_is_told(kernel: FakeKernel, offers: set[str], told: str) -> None:
    kernel.offers = frozenset(offers)
    queues, said = opened()
    assert queues[0].vnet_hdr
    assert len(said) == 1
    assert said[0].endswith(f": {told}")


def test_a_device_without_virtio_headers_is_used_without(kernel: FakeKernel) -> None:
    kernel.refuses = {0: errno.EINVAL}
    queues, said = opened(2)
    assert [tap.vnet_hdr for tap in queues] == [False, False]
    assert kernel.calls == [("vpn%d", True, True), ("vpn%d", False, True), ("vpn7", False, True)]
    assert len(said) == 1
    assert "no super-frames" in said[0]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EPERM, None])
def test_any_other_refusal_is_final(kernel: FakeKernel, code: int | None) -> None:
    kernel.refuses = {0: code}
    with pytest.raises(TapError, match="refused"):
        opened()
    assert len(kernel.calls) == 1


@pytest.mark.parametrize(("refuses", "count"), [({0: errno.EINVAL, 1: errno.EINVAL}, 1), ({2: errno.EBUSY}, 3)])
def test_nothing_stays_open_of_what_fails(kernel: FakeKernel, refuses: dict[int, int | None], count: int) -> None:
    kernel.refuses = refuses
    with pytest.raises(TapError):
        opened(count)
    assert kernel.open_taps == []


# ---- threads and planes --------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (1, 1), (2, 2), (64, 64)])
def test_auto_is_one_thread(asked: int, given: int) -> None:
    assert thread_count(asked) == given


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)]
        for sock in socks:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        yield [sock.fileno() for sock in socks]


def test_one_socket_makes_a_plane_and_several_a_group(descriptors: list[int]) -> None:
    assert isinstance(compiled_plane("supernode", descriptors[:1]), Plane)
    group = compiled_plane("supernode", descriptors[:3])
    assert isinstance(group, PlaneGroup)
    assert group.features()["threads"] == 3
    taps = {"mac": bytes(6), "community": 1}
    assert isinstance(compiled_plane("edge", descriptors[:1], tap_fds=descriptors[2:3], **taps), Plane)
    assert isinstance(compiled_plane("edge", descriptors[:2], tap_fds=descriptors[2:4], **taps), PlaneGroup)


def test_settings_reach_the_plane(descriptors: list[int]) -> None:
    plane = compiled_plane("supernode", descriptors[:2], gso=False, gro=False)
    assert (plane.features()["gso"], plane.features()["gro"]) == (False, False)


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_plane_lacks_is_the_platforms_fault(descriptors: list[int], count: int) -> None:
    with open(os.devnull) as no_socket, pytest.raises(PlatformError, match="the data plane cannot start"):
        compiled_plane("supernode", [no_socket.fileno()] * count)
    with pytest.raises(PlatformError, match="the data plane cannot start"):
        compiled_plane("edge", descriptors[:count], mac=bytes(6))
