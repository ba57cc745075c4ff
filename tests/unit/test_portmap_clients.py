"""The clients of NAT-PMP, PCP and UPnP with routers that are slow, silent, mad or hostile."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest

from n2n.net.portmap import (
    Announcements,
    Cause,
    Mapping,
    NatPmpClient,
    NotMapped,
    PcpClient,
    RouterStatus,
    UpnpClient,
    Wanted,
    announce,
    answering,
    most_telling,
)
from n2n.types import Endpoint

HERE = IPv4Address("127.0.0.1")
INTERNAL = Endpoint(HERE, 40001)
WANTED = Wanted("udp", INTERNAL, 40002, 600)
ADDRESS = bytes.fromhex("0080000000000e102c800001")
SHORT = (0.05, 0.05, 0.05)


@contextmanager
def router(answer: Callable[[bytes, int], list[bytes]]) -> Iterator[int]:
    """A router on loopback; `answer` gets a request and its number. Yields its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        stop = threading.Event()
        sock.settimeout(0.05)

        def serve() -> None:
            number = 0
            while not stop.is_set():
                try:
                    request, sender = sock.recvfrom(2000)
                except TimeoutError:
                    continue
                for datagram in answer(request, number):
                    sock.sendto(datagram, sender)
                number += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def mapped(request: bytes, lifetime: int = 600, outer: int | None = None) -> bytes:
    """What a router of NAT-PMP answers to a request for a mapping."""
    port = request[6:8] if outer is None else outer.to_bytes(2)
    return bytes([0, 128 + request[1], 0, 0]) + bytes(4) + request[4:6] + port + lifetime.to_bytes(4)


def natpmp_answer(request: bytes, number: int) -> list[bytes]:
    return [ADDRESS if request == b"\0\0" else mapped(request)]


def ask(port: int, wanted: Wanted = WANTED, counts: Counter[str] | None = None, waits: Any = SHORT) -> Mapping:
    return asyncio.run(NatPmpClient(HERE, HERE, counts, port=port, waits=waits).map(wanted))


def test_nat_pmp_maps_and_unmaps() -> None:
    with router(natpmp_answer) as port:
        mapping = ask(port)
        assert (mapping.external, mapping.lifetime) == (Endpoint.of("44.128.0.1", 40002), 600)
        asyncio.run(NatPmpClient(HERE, HERE, port=port).unmap(mapping))


def test_a_lost_request_is_sent_again() -> None:
    with router(lambda request, number: natpmp_answer(request, number) if number % 2 else []) as port:
        assert ask(port).external_port == 40002


def test_a_router_that_is_silent_or_not_there_is_no_wait_without_end() -> None:
    counts: Counter[str] = Counter()
    with router(lambda *_: []) as port, pytest.raises(NotMapped) as caught:
        ask(port, counts=counts)
    assert caught.value.cause is Cause.SILENT
    with pytest.raises(NotMapped) as caught:  # nobody listens: refused at once
        ask(port, counts=counts, waits=(60.0,))
    assert caught.value.cause is Cause.SILENT
    assert counts == {"portmap_silent": 2}


def test_nonsense_is_counted_and_the_answer_behind_it_taken() -> None:
    counts: Counter[str] = Counter()
    with router(lambda request, number: [b"", b"x" * 1400, bytes(16), *natpmp_answer(request, number)]) as port:
        assert ask(port, counts=counts, waits=(10.0,)).external_port == 40002
    assert counts["portmap_malformed"] == 6


def test_a_flood_of_nonsense_ends_the_exchange() -> None:
    counts: Counter[str] = Counter()
    with router(lambda *_: [b"nonsense"] * 100) as port, pytest.raises(NotMapped) as caught:
        ask(port, counts=counts, waits=(10.0,))
    assert caught.value.cause is Cause.BROKEN
    assert counts["portmap_malformed"] == 64


def test_only_nonsense_is_a_broken_router() -> None:
    with router(lambda *_: [b"nonsense"]) as port, pytest.raises(NotMapped) as caught:
        ask(port)
    assert caught.value.cause is Cause.BROKEN


@pytest.mark.parametrize(("lifetime", "outer"), [(0, 40002), (600, 0)])
def test_a_mapping_of_nothing_is_none(lifetime: int, outer: int) -> None:
    def answer(request: bytes, _: int) -> list[bytes]:
        return [ADDRESS if request == b"\0\0" else mapped(request, lifetime, outer)]

    with router(answer) as port, pytest.raises(NotMapped) as caught:
        ask(port)
    assert caught.value.cause is Cause.BROKEN


def test_another_port_than_asked_for_is_taken_or_given_back() -> None:
    seen: list[bytes] = []

    def answer(request: bytes, _: int) -> list[bytes]:
        seen.append(request)
        return [ADDRESS if request == b"\0\0" else mapped(request, outer=50000)]

    with router(answer) as port:
        assert ask(port).external_port == 50000
        with pytest.raises(NotMapped) as caught:
            ask(port, Wanted("udp", INTERNAL, 40002, 600, strict=True))
    assert caught.value.cause is Cause.CONFLICT
    assert seen[-1].hex() == "000100009c41000000000000", "the last word was to delete it"


def test_a_router_without_an_address_outside_tells_none() -> None:
    with router(lambda *_: [ADDRESS[:8] + bytes(4)]) as port:
        status = asyncio.run(NatPmpClient(HERE, HERE, port=port).status())
    assert status == RouterStatus(None, 3600)


def test_a_full_pcp_router_that_has_no_address_is_behind_another_nat() -> None:
    def answer(request: bytes, _: int) -> list[bytes]:
        if request[0] == 0:
            return [bytes.fromhex("008000030000000000000000")]
        return [bytes([2, 128 + request[1], 0, 8]) + bytes(20) + request[24:]]

    with router(answer) as port, pytest.raises(NotMapped) as caught:
        asyncio.run(PcpClient(HERE, HERE, port=port, waits=SHORT, secret=bytes(16)).map(WANTED))
    assert caught.value.cause is Cause.DOUBLE_NAT


# ---- UPnP, with a library that says anything ----------------------------------------------------


class Igd:
    """Stands for miniupnpc: one router with a table."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.table: dict[tuple[int, str], tuple[str, int, int]] = {}
        self.address: Any = "44.128.0.1"
        self.fault = ""
        self.faults: dict[int, str] = {}
        self.hides = False
        self.hang: threading.Event | None = None

    def UPnP(self, **settings: Any) -> Igd:
        self.settings = settings
        return self

    def discover(self) -> int:
        if self.hang is not None:
            self.hang.wait(30)
        if self.fault == "nobody":
            raise Exception("Success")  # noqa: TRY002  (what the library says and raises)
        return 1

    def selectigd(self) -> str:
        return "http://10.1.0.1:5000/ctl/IPConn"

    def externalipaddress(self) -> str:
        if self.address is None:
            raise Exception("Action Failed")  # noqa: TRY002
        return str(self.address)

    def statusinfo(self) -> tuple[str, int, str]:
        return "Connected", 77, ""

    def getspecificportmapping(self, port: int, transport: str) -> Any:
        found = self.table.get((port, transport))
        return None if found is None or self.hides else (found[0], found[1], "n2n", True, found[2])

    def addportmapping(self, port: int, transport: str, host: str, inner: int, *rest: Any) -> bool:
        lifetime = rest[-1]
        fault = self.faults.get(lifetime, self.fault)
        if fault:
            raise Exception(fault)  # noqa: TRY002
        self.table[port, transport] = (host, inner, lifetime)
        return True

    def deleteportmapping(self, port: int, transport: str, _: str) -> bool:
        if (port, transport) not in self.table:
            raise Exception("NoSuchEntryInArray")  # noqa: TRY002
        del self.table[port, transport]
        return True

    def getgenericportmapping(self, index: int) -> Any:
        lines = list(self.table.items())
        if index >= len(lines):
            return None
        (port, transport), (host, inner, lifetime) = lines[index]
        if host == "bad":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return port, transport, (host, inner), "a\x1b[31mlabel\n" + "x" * 100, "1", "", lifetime


def client(igd: Igd, **more: Any) -> UpnpClient:
    return UpnpClient(HERE, library=lambda: igd, **more)


def test_upnp_maps_renews_and_unmaps() -> None:
    igd = Igd()
    upnp = client(igd)
    mapping = asyncio.run(upnp.map(WANTED))
    assert (mapping.external, mapping.lifetime, mapping.epoch) == (Endpoint.of("44.128.0.1", 40002), 600, 77)
    assert igd.settings["multicastif"] == "127.0.0.1"
    assert upnp.router == "10.1.0.1"
    assert asyncio.run(upnp.map(WANTED)) == mapping
    assert asyncio.run(upnp.status(mapping)) == RouterStatus(IPv4Address("44.128.0.1"), 77, True)
    igd.table.clear()
    assert asyncio.run(upnp.status(mapping)).present is False
    asyncio.run(upnp.unmap(mapping))  # gone already: no error


def test_upnp_leaves_another_host_s_port_alone() -> None:
    igd = Igd()
    igd.table[40002, "UDP"] = ("10.1.0.9", 1, 0)
    mapping = asyncio.run(client(igd).map(WANTED))
    assert mapping.external_port != 40002
    assert igd.table[40002, "UDP"] == ("10.1.0.9", 1, 0)
    with pytest.raises(NotMapped) as caught:
        asyncio.run(client(igd).map(Wanted("udp", INTERNAL, 40002, 600, strict=True)))
    assert caught.value.cause is Cause.CONFLICT
    with pytest.raises(NotMapped, match="another host's"):
        asyncio.run(client(igd).unmap(Mapping("upnp", "udp", INTERNAL, 40002, None, 0, None)))
    with pytest.raises(NotMapped, match=r"leads to 10\.1\.0\.9"):
        asyncio.run(client(igd).must_have(40002, "udp", HERE))


def test_upnp_takes_a_mapping_for_ever_where_there_is_no_other() -> None:
    igd = Igd()
    igd.faults[600] = "OnlyPermanentLeasesSupported"
    assert asyncio.run(client(igd).map(WANTED)).lifetime == 0


def test_upnp_believes_a_router_that_shows_no_table_but_no_other_lie() -> None:
    igd = Igd()
    igd.hides = True
    mapping = asyncio.run(client(igd).map(WANTED))
    assert mapping.lifetime == 600
    igd = Igd()
    upnp = client(igd)
    honest = igd.addportmapping

    def elsewhere(port: int, transport: str, _: str, inner: int, *rest: Any) -> bool:
        return honest(port, transport, "10.9.9.9", inner, *rest)

    igd.addportmapping = elsewhere  # type: ignore[method-assign]
    with pytest.raises(NotMapped) as caught:
        asyncio.run(upnp.map(WANTED))
    assert caught.value.cause is Cause.BROKEN


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("Action not authorized", Cause.REFUSED), ("ConflictInMappingEntry", Cause.CONFLICT),
        ("NoPortMapsAvailable", Cause.FULL), ("Miniupnpc HTTP error", Cause.REFUSED),
        ("\x1b[31m" * 1000, Cause.REFUSED),
    ],
)  # fmt: skip
def test_upnp_refusals_have_a_cause_and_are_fit_to_be_shown(said: str, cause: Cause) -> None:
    igd = Igd()
    igd.fault = said
    with pytest.raises(NotMapped) as caught:
        asyncio.run(client(igd).map(WANTED))
    assert caught.value.cause is cause
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "nonsense", "::1", "9" * 50])
def test_upnp_refusals_of_a_router_without_an_address_are_double_nat(address: str | None) -> None:
    igd = Igd()
    igd.address, igd.fault = address, "Action Failed"
    with pytest.raises(NotMapped) as caught:
        asyncio.run(client(igd).map(WANTED))
    assert caught.value.cause is Cause.DOUBLE_NAT


def test_upnp_lists_what_can_be_read() -> None:
    igd = Igd()
    igd.table = {(1, "UDP"): ("10.1.0.2", 1, 0), (2, "UDP"): ("bad", 1, 0), (3, "odd\n"): ("10.1.0.3", 2, 9)}
    counts: Counter[str] = Counter()
    entries = asyncio.run(client(igd, counts=counts).entries())
    assert [(entry.external_port, entry.transport) for entry in entries] == [(1, "udp"), (3, "odd")]
    assert all(entry.label.isprintable() and len(entry.label) <= 80 for entry in entries)
    assert counts["portmap_malformed"] == 1
    igd.getgenericportmapping = lambda _: (1, "UDP", ("h", 1), "", "1", "", 0)  # type: ignore[method-assign]
    assert len(asyncio.run(client(igd).entries())) == 512, "a table without end is cut"


def test_upnp_that_is_not_installed_says_so() -> None:
    def missing() -> Any:
        raise NotMapped(Cause.NOT_INSTALLED, "no miniupnpc")

    with pytest.raises(NotMapped, match="pip install miniupnpc"):
        asyncio.run(UpnpClient(HERE, library=missing).status())


def test_a_search_that_finds_nobody_is_counted() -> None:
    igd, counts = Igd(), Counter[str]()
    igd.fault = "nobody"
    with pytest.raises(NotMapped) as caught:
        asyncio.run(client(igd, counts=counts).status())
    assert caught.value.cause is Cause.SILENT
    assert caught.value.what == "no router answers by UPnP"
    assert counts["portmap_silent"] == 1


def test_a_router_that_hangs_holds_nobody_up() -> None:
    igd = Igd()
    igd.hang = threading.Event()

    async def main() -> None:
        upnp = client(igd, patience=0.1)
        for _ in range(2):  # the second waits for the first, in vain
            with pytest.raises(NotMapped) as caught:
                await upnp.status()
            assert caught.value.cause is Cause.SILENT

    before = time.monotonic()
    try:
        asyncio.run(main())
        assert time.monotonic() - before < 20, "it would hang for 30 s"
    finally:
        igd.hang.set()


# ---- all together -------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_preference_and_all_are_asked_at_once() -> None:
    started: list[str] = []

    class Slow:
        router = "r"

        def __init__(self, method: Any, event: asyncio.Event | None) -> None:
            self.method, self.event = method, event

        async def status(self, _: Mapping | None = None) -> RouterStatus:
            started.append(self.method)
            if self.event is not None:
                await self.event.wait()
            raise NotMapped(Cause.SILENT, self.method)

    async def main() -> list[str]:
        event = asyncio.Event()
        clients: Any = [Slow("upnp", event), Slow("nat-pmp", None)]
        asyncio.get_running_loop().call_later(0.05, event.set)
        return [answered.client.method async for answered in answering(clients)]

    assert asyncio.run(main()) == ["upnp", "nat-pmp"]
    assert started == ["upnp", "nat-pmp"]


def test_the_most_telling_refusal_is_told() -> None:
    silent, double = NotMapped(Cause.SILENT, "a"), NotMapped(Cause.DOUBLE_NAT, "b")
    assert most_telling([silent, double]) is double
    for cause in Cause:
        assert most_telling([NotMapped(cause, "c")]).cause is cause


# ---- announcements ------------------------------------------------------------------------------


def test_only_the_router_s_announcements_count_and_one_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "_GROUP", "127.0.0.1")
    monkeypatch.setattr(announce, "_PORT", 0)

    async def main(router: str) -> int:
        heard: list[int] = []
        ears = Announcements(IPv4Address(router), HERE, lambda: heard.append(1))
        if ears._sock is None:  # the group is no group here: listen all the same
            ears._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            ears._sock.bind(("127.0.0.1", 0))
            asyncio.get_running_loop().add_reader(ears._sock.fileno(), ears._readable)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for datagram in (b"", b"x", bytes(12), ADDRESS, b"\2\x80" + bytes(22), ADDRESS, b"\2\x81" + bytes(58)):
                sock.sendto(datagram, ears._sock.getsockname())
        await asyncio.sleep(0.05)
        ears.close()
        ears.close()
        return len(heard)

    assert asyncio.run(main("127.0.0.1")) == 1
    assert asyncio.run(main("127.0.0.2")) == 0
