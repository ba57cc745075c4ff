"""What is told is on disk before: order, one transaction for what waits, and a disk that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from n2n.daemon.commits import CommitQueue
from n2n.errors import StoreError
from n2n.proto.actions import DropLease, DropNetwork, LeaseRecord, Note, SaveLease, SaveNetwork, Send
from n2n.types import Endpoint, MacAddress
from n2n.wire import PacketType, ProtoV

HERE = Endpoint.parse("192.0.2.1:1")


def lease(number: int, name: str = "x") -> SaveLease:
    mac = MacAddress(bytes([2, 0, 0, 0, 0, number]))
    return SaveLease(LeaseRecord("acme", mac, IPv4Address(f"10.0.0.{number}"), bytes(32), name, 1.0, 0.0))


def send(text: bytes) -> Send:
    return Send(text, HERE)


class Disk:
    """A store that waits for `go`, and fails while `broken`."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.go = threading.Event()
        self.go.set()
        self.broken = False

    def save(self, batch: list[Any]) -> None:
        assert self.go.wait(10)
        if self.broken:
            raise StoreError("the disk is full")
        self.log.append(("saved", list(batch)))


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 20)

    asyncio.run(bounded())


def make() -> tuple[CommitQueue, Disk, list[Any], list[Exception]]:
    log: list[Any] = []
    disk, complaints = Disk(log), []
    queue = CommitQueue(disk, log.extend, complaints.append)
    return queue, disk, log, complaints


def test_without_anything_to_save_nothing_waits() -> None:
    async def main() -> None:
        queue, disk, log, _ = make()
        disk.go.clear()
        queue.submit([send(b"a"), Note("info", "x")])
        assert log == [send(b"a"), Note("info", "x")]
        await queue.close()

    run(main)


def test_the_disk_comes_first_and_order_stays() -> None:
    async def main() -> None:
        queue, disk, log, _ = make()
        disk.go.clear()
        queue.submit([send(b"before"), lease(1), send(b"after")])
        queue.submit([send(b"next")])
        await asyncio.sleep(0.02)
        assert log == [], "everything waits for the disk"
        disk.go.set()
        await queue.close()
        assert log == [("saved", [lease(1)]), send(b"before"), send(b"after"), send(b"next")]

    run(main)


def test_what_waits_is_one_transaction() -> None:
    async def main() -> None:
        queue, disk, log, _ = make()
        disk.go.clear()
        for number in range(1, 6):
            queue.submit([lease(number), send(b"%d" % number)])
        await asyncio.sleep(0.02)
        disk.go.set()
        await queue.close()
        saved = [entry for entry in log if isinstance(entry, tuple)]
        assert len(saved) <= 2
        assert sum(len(batch) for _, batch in saved) == 5
        assert [entry.datagram for entry in log if isinstance(entry, Send)] == [b"1", b"2", b"3", b"4", b"5"]

    run(main)


def test_the_last_word_on_a_lease_counts_in_its_place() -> None:
    async def main() -> None:
        queue, _, log, _ = make()
        first, network = lease(1), SaveNetwork("acme", IPv4Network("10.0.0.0/24"))
        drop = DropLease("acme", first.record.mac)
        queue.submit([network, first, lease(2), drop, lease(2, "y"), DropNetwork("acme")])
        await queue.close()
        assert log == [("saved", [drop, lease(2, "y"), DropNetwork("acme")])]

    run(main)


def test_a_full_disk_sends_nothing_and_is_tried_again() -> None:
    async def main() -> None:
        queue, disk, log, complaints = make()
        disk.broken = True
        queue.submit([lease(1), Note("info", "registered"), send(b"lost")])
        await asyncio.sleep(0.05)
        assert log == [Note("info", "registered")]
        assert queue.failures == 1
        assert str(complaints[0]) == "the disk is full"
        queue.submit([send(b"harmless")])
        assert log[-1] == send(b"harmless"), "what has nothing to save goes on"
        disk.broken = False
        queue.submit([lease(2), send(b"sent")])
        await queue.close()
        assert log[2:] == [("saved", [lease(1), lease(2)]), send(b"sent")]

    run(main)


def test_what_a_full_disk_did_not_take_is_tried_again_at_the_end() -> None:
    async def main() -> None:
        queue, disk, log, _ = make()
        disk.broken = True
        queue.submit([lease(1)])
        await asyncio.sleep(0.05)
        assert queue.failures == 1
        disk.broken = False
        await queue.close()
        assert log == [("saved", [lease(1)])]

    run(main)


def test_what_a_full_disk_did_not_take_is_tried_again_by_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n.daemon.commits._RETRY", 0.0)

    async def main() -> None:
        queue, disk, log, _ = make()
        disk.broken = True
        queue.submit([lease(1)])
        await asyncio.sleep(0.05)
        queue.submit([send(b"meanwhile")])
        await asyncio.sleep(0.05)
        assert queue.failures == 2
        assert log == [send(b"meanwhile")], "what has nothing to save goes on"
        disk.broken = False
        queue.submit([send(b"later")])
        await asyncio.sleep(0.05)
        assert log[1:] == [("saved", [lease(1)]), send(b"later")]
        await queue.close()

    run(main)


def test_no_edge_is_told_an_address_that_the_disk_never_took() -> None:
    async def main() -> None:
        queue, disk, log, _ = make()
        answer = send(ProtoV(PacketType.REGISTER_RESPONSE).pack())
        disk.broken = True
        queue.submit([lease(1), answer])
        await asyncio.sleep(0.05)
        queue.submit([answer, send(b"other")])  # the edge asked again: it is registered, so nothing is to be saved
        await asyncio.sleep(0.05)
        assert log == [send(b"other")]
        disk.broken = False
        queue.submit([answer])
        await queue.close()
        assert log[1:] == [("saved", [lease(1)]), answer]

    run(main)
