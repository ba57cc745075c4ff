"""The edge as a process: what it asks of the kernel, what it does when something fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from n2n.config import EdgeConfig
from n2n.daemon import base
from n2n.daemon import edge as module
from n2n.daemon.edge import EdgeDaemon
from n2n.daemon.resolver import Resolver, resolve_aside
from n2n.errors import ConfigError, NetlinkError, PlatformError, TapError
from n2n.net import Surroundings, Tap, Way, gratuitous_arp
from n2n.proto.actions import AllowSource, Birthday, Configure, DropPeer, PutPeer, Resolve, SetSupernode
from n2n.types import Endpoint, MacAddress
from n2n.wire import PacketType, ProtoV
from tests.unit.daemon_fakes import FakePlane, until

ID = bytes(range(16))
THERE = Endpoint.parse("192.0.2.7:7777")
PEER = MacAddress.parse("02:00:00:00:00:09")


HOME = Surroundings((), Way(ip_address("127.0.0.1"), "lo", None, 0))


@dataclass
class Kernel:
    """Stands for TAP devices and netlink; records in `calls`."""

    calls: list[tuple[Any, ...]]
    clashes: list[str]
    refuse: Exception | None = None
    seen: Surroundings = HOME

    def open(self, name: str, *, vnet_hdr: bool = False, **_: object) -> Tap:
        ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        ours.close()
        self.calls.append(("open", name, vnet_hdr))
        return Tap(device.detach(), name)

    def configure(self, name: str, **what: Any) -> None:
        if self.refuse is not None and "address" in what:
            raise self.refuse
        self.calls.append(("configure", name, what))

    def routes_clashing(self, network: IPv4Network, *, ignore: Any = ()) -> list[str]:
        self.calls.append(("routes", network, set(ignore)))
        return self.clashes

    def surroundings(self, target: Any, *, ignore: Any = (), **_: Any) -> Surroundings:
        self.calls.append(("surroundings", target, set(ignore)))
        return self.seen


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel([], [])
    monkeypatch.setattr(Tap, "open", made.open)
    monkeypatch.setattr(module, "configure", made.configure)
    monkeypatch.setattr(module, "routes_clashing", made.routes_clashing)
    monkeypatch.setattr(module, "surroundings", made.surroundings)
    return made


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    # Nobody waits for a look-up at the end: one that a short test left behind may still hold its descriptors.
    for thread in threading.enumerate():
        if thread.name == "n2n-resolver":
            thread.join(20)
    after = set(os.listdir("/proc/self/fd"))
    # Planes made by the test keep their event descriptor; everything else is closed.
    leaked = [fd for fd in after - before if "eventfd" not in _target(fd)]
    assert leaked == []


def _target(fd: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return "eventfd, or gone"


def config(**more: Any) -> EdgeConfig:
    about: dict[str, Any] = {"community": "acme", "supernode_addr": "192.0.2.7:7777", "bind": "127.0.0.1"}
    return EdgeConfig(**(about | more))


def make(planes: list[FakePlane], **more: Any) -> EdgeDaemon:
    def plane(*args: Any, **settings: Any) -> FakePlane:
        planes.append(FakePlane(*args, **settings))
        return planes[-1]

    siblings = more.pop("siblings", tuple)
    return EdgeDaemon(config(**more), machine_id=ID, plane_factory=plane, siblings=siblings)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 20)

    asyncio.run(bounded())


def test_the_plane_is_made_for_this_edge(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes, encryption_passphrase="secret", enable_vfuze=False, tap_name="t0") as daemon:
            settings = planes[0].settings
            assert planes[0].role == "edge"
            assert daemon.mac is not None
            assert settings["mac"] == daemon.mac.raw
            assert settings["vfuze"] is False
            assert isinstance(settings["key"], bytes)
            assert len(settings["key"]) == 32
            assert kernel.calls[0] == ("open", "t0", True)
            assert kernel.calls[1] == ("configure", "t0", {"mac": daemon.mac, "mtu": 1420, "up": False})

    run(main)


def test_an_address_is_configured_then_announced(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes, siblings=lambda: ["other0"]) as daemon:
            plane = planes[0]
            assert not daemon.ready
            daemon._execute([SetSupernode(THERE), Configure(IPv4Address("10.1.2.3"), 24)])
            assert plane.calls[-1] == ("set_supernode", THERE.packed, THERE.port)
            await daemon.wait_ready(10)
            assert daemon.address == IPv4Interface("10.1.2.3/24")
            assert kernel.calls[-2] == ("routes", IPv4Network("10.1.2.0/24"), {"n2n_tap0", "other0"})
            name, device, what = kernel.calls[-1]
            assert (name, device) == ("configure", "n2n_tap0")
            assert what == {"mac": daemon.mac, "address": daemon.address, "mtu": 1420, "up": True, "exclusive": True}
            # The core asks for the supernode's key at its own pace, before or after.
            [(datagram, ip, port)] = [one for one in plane.sent if ProtoV.unpack(one[0]).type == PacketType.DATA]
            assert (ip, port) == (THERE.packed, THERE.port)
            header = ProtoV.unpack(datagram)
            assert header.source == daemon.mac
            assert header.dest.is_broadcast
            assert header.flags == 0
            assert daemon.mac is not None
            assert datagram[30:] == gratuitous_arp(daemon.mac, IPv4Address("10.1.2.3"))

    run(main)


def test_a_clash_ends_the_edge_with_its_cause(kernel: Kernel) -> None:
    async def main() -> None:
        kernel.clashes = ["10.1.0.0/16 on eth0"]
        daemon = make([])
        async with daemon:
            daemon._execute([Configure(IPv4Address("10.1.2.3"), 24)])
            with pytest.raises(PlatformError, match=r"10\.1\.2\.0/24 .*clashes .*10\.1\.0\.0/16 on eth0"):
                await daemon.wait()
            assert not any(call[0] == "configure" and "address" in call[2] for call in kernel.calls)
            assert not daemon.ready

    run(main)


def test_a_refused_address_ends_the_edge_with_its_cause(kernel: Kernel) -> None:
    async def main() -> None:
        kernel.refuse = NetlinkError("cannot give t0 the address: operation not permitted. Run as root")
        async with make([]) as daemon:
            daemon._execute([Configure(IPv4Address("10.1.2.3"), 24)])
            with pytest.raises(NetlinkError, match="not permitted"):
                await daemon.wait()

    run(main)


def test_a_plane_that_dies_ends_the_edge_with_its_cause(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes) as daemon:
            planes[0].die(OSError(77, "File descriptor in bad state"))
            with pytest.raises(PlatformError, match=r"data plane ended: OSError.*bad state"):
                await daemon.wait()
            with pytest.raises(PlatformError, match="data plane ended"):
                await daemon.wait_ready(5)

    run(main)


def test_what_is_used_of_the_kernel_is_told_and_a_refusal_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_WATCH_PERIOD", 0.005)
    told: list[tuple[str, Any]] = []

    async def main() -> None:
        planes: list[FakePlane] = []
        daemon = make(planes)
        daemon.listeners.add(lambda one: told.append((str(one["event"]), one["fields"])))
        async with daemon:
            monkeypatch.setattr(planes[0], "features", lambda: {"gso": False})
            await until(lambda: any("refused" in str(fields) for event, fields in told if event == "offload"))
            await asyncio.sleep(0.05)  # some further looks, which have nothing to tell

    run(main)
    assert ("data_plane", {"gso": True}) in told
    refusals = [fields["what"] for event, fields in told if event == "offload" and "refused" in fields["what"]]
    assert refusals == ["the kernel refused gso = True: the data plane goes on with False"]


def test_a_tap_that_cannot_be_had_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **_: Any) -> Tap:
        raise TapError("/dev/net/tun: permission denied. Run as root")

    monkeypatch.setattr(Tap, "open", refuse)

    async def main() -> None:
        planes: list[FakePlane] = []
        daemon = make(planes)
        with pytest.raises(TapError, match="permission denied"):
            await daemon.start()
        assert planes == []
        with pytest.raises(Exception, match="started before"):
            await daemon.start()

    run(main)


def test_a_plane_that_cannot_be_made_leaves_nothing_behind(kernel: Kernel) -> None:
    def refuse(*_: Any, **__: Any) -> FakePlane:
        raise PlatformError("the data plane cannot start: no libzstd")

    async def main() -> None:
        daemon = EdgeDaemon(config(), machine_id=ID, plane_factory=refuse)
        with pytest.raises(PlatformError, match="libzstd"):
            await daemon.start()

    run(main)


def test_a_peer_too_many_is_counted_and_the_others_are_kept(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        other = MacAddress.parse("02:00:00:00:00:0a")
        async with make(planes) as daemon:
            planes[0].full.add(PEER.raw)
            actions = [
                PutPeer(PEER, THERE, False),
                PutPeer(other, THERE, True),
                AllowSource(other, THERE),
                DropPeer(PEER),
            ]
            daemon._execute(actions)
            assert planes[0].calls == [
                ("put_peer", other.raw, THERE.packed, THERE.port, True),
                ("allow_source", other.raw, THERE.packed, THERE.port),
                ("drop_peer", PEER.raw),
            ]
            assert daemon.counters()["daemon_action_faults"] == 1

    run(main)


def test_the_end_says_goodbye_then_stops_the_plane(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        events: list[str] = []
        daemon = make(planes)
        daemon.listeners.add(lambda event: events.append(str(event["event"])))
        await daemon.start()
        await daemon.stop()
        await daemon.stop()
        assert planes[0].calls[-1] == ("stop",)
        assert planes[0].calls.count(("stop",)) == 1
        assert events.count("stopping") == 1
        assert "not_sealed" in events

    run(main)


def test_what_the_host_refuses_is_said_once_in_a_while(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n.daemon.base._WATCH_PERIOD", 0.01)

    async def main() -> None:
        planes: list[FakePlane] = []
        events: list[dict[str, Any]] = []
        async with make(planes) as daemon:
            daemon.listeners.add(events.append)
            monkeypatch.setattr(planes[0], "counters", lambda: {"drop_tap_error": 3})
            await until(lambda: any(event["event"] == "io_error" for event in events))
            await asyncio.sleep(0.05)
        said = [event["fields"] for event in events if event["event"] == "io_error"]
        assert said == [{"kind": "drop_tap_error", "count": 3}]

    run(main)


def test_a_passphrase_is_not_logged(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def main() -> None:
        async with make([], encryption_passphrase="hunter2-secret") as daemon:
            assert daemon.mac is not None

    run(main)
    assert "starting" in caplog.text
    assert "hunter2" not in caplog.text
    assert ID.hex() not in caplog.text
    assert "not_sealed" not in caplog.text


# ---- names ---------------------------------------------------------------------------------------


def resolver(answers: list[Any], warnings: list[Any], *names: str, asked: list[str] | None = None) -> Resolver:
    names = names or ("vpn:7",)

    async def lookup(host_port: str, family: socket.AddressFamily) -> list[Endpoint]:
        if asked is not None:
            asked.append(host_port)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [Endpoint.parse(text) for text in answer]

    return Resolver(names, socket.AF_UNSPEC, lambda event, about: warnings.append((event, about)), lookup)


def test_names_are_asked_for_until_they_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr("n2n.daemon.resolver.asyncio.sleep", sleep)
    warnings: list[Any] = []
    failures: list[Any] = [PlatformError("no such name")] * 9
    found = asyncio.run(resolver([*failures, ["192.0.2.1:7"]], warnings).find())
    assert found == Endpoint.parse("192.0.2.1:7")
    assert slept == [1, 2, 4, 4, 4, 4, 4, 4, 4]
    assert warnings[0] == ("resolve_failed", {"supernode": "vpn:7", "error": "no such name", "retry_in": 1.0})


def test_a_name_that_can_never_be_one_is_an_error() -> None:
    with pytest.raises(ConfigError):
        asyncio.run(resolver([ConfigError("not host:port")], []).find())


def test_addresses_take_turns_and_ipv4_comes_first() -> None:
    async def main() -> list[str]:
        found = ["[2001:db8::1]:7", "192.0.2.1:7", "192.0.2.2:7"]
        asked = resolver([found] * 3, [])
        return [str(await asked.find()) for _ in range(3)]

    assert asyncio.run(main()) == ["192.0.2.1:7", "192.0.2.2:7", "192.0.2.1:7"]
    only = asyncio.run(resolver([["[2001:db8::1]:7"]], []).find())
    assert str(only) == "[2001:db8::1]:7"


def test_several_supernodes_take_turns_and_names_that_do_not_resolve_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr("n2n.daemon.resolver.asyncio.sleep", sleep)
    no = PlatformError("no such name")
    one, two, three = ["192.0.2.1:7"], ["192.0.2.2:7", "192.0.2.3:7"], ["192.0.2.4:7"]
    asked: list[str] = []
    warnings: list[Any] = []

    async def main() -> list[str]:
        answers = [one, two, two, three, one, no, three, no, no, no, two]
        found = resolver(answers, warnings, "a:7", "b:7", "c:7", asked=asked)
        return [str(await found.find())[8:9] for _ in range(7)]

    assert asyncio.run(main()) == ["1", "2", "3", "4", "1", "4", "2"]
    assert asked == ["a:7", "b:7", "b:7", "c:7", "a:7", "b:7", "c:7", "a:7", "b:7", "c:7", "a:7"]
    assert slept == [1.0], "only after all have failed"
    assert [about["retry_in"] for _, about in warnings] == [0.0, 0.0, 0.0, 1.0]


def test_a_question_that_is_asked_again_stays_with_the_supernode_and_finds_it_where_it_moved() -> None:
    no = PlatformError("no such name")
    one, both, other = ["192.0.2.1:7"], ["192.0.2.5:7", "192.0.2.1:7"], ["192.0.2.5:7"]
    asked: list[str] = []
    warnings: list[Any] = []

    async def main() -> list[str]:
        found = resolver([one, one, both, other, no, ["192.0.2.9:7"]], warnings, "a:7", "b:7", asked=asked)
        seen = [str(await found.find(again=again))[8:9] for again in (True, True, True, True, True)]
        assert found.found == "b:7"
        return seen

    assert asyncio.run(main()) == ["1", "1", "1", "5", "9"], "while its name stands for that address, it is that"
    assert asked == ["a:7", "a:7", "a:7", "a:7", "a:7", "b:7"], "and one whose name is none is left for the next"
    assert [event for event, _ in warnings] == ["resolve_failed"]


def test_a_lookup_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    hang, begun = threading.Event(), threading.Event()

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        begun.set()
        hang.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> None:
        task = asyncio.create_task(resolve_aside("name.example:7", socket.AF_INET))
        await until(begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "n2n-resolver")
    assert thread.daemon
    hang.set()
    thread.join(10)


def test_lookups_tell_what_is_wrong() -> None:
    assert asyncio.run(resolve_aside("127.0.0.1:7", socket.AF_INET)) == [Endpoint.parse("127.0.0.1:7")]
    with pytest.raises(ConfigError):
        asyncio.run(resolve_aside("no-port", socket.AF_INET))


def test_one_question_at_a_time(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes) as daemon:
            await until(lambda: not daemon._resolving)
            asked: list[int] = []

            class Slow:
                async def find(self, *, again: bool = False) -> Endpoint:
                    asked.append(1)
                    await asyncio.sleep(3600)
                    raise AssertionError

            daemon._resolver = Slow()  # type: ignore[assignment]
            daemon._execute([Resolve(), Resolve()])
            await until(lambda: asked)
            daemon._execute([Resolve()])
            await asyncio.sleep(0.02)
            assert asked == [1]

    run(main)


def test_the_machine_id_file_is_the_configurations(kernel: Kernel, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "id"
        macs = []
        for _ in range(2):
            daemon = EdgeDaemon(config(machine_id_file=path), plane_factory=FakePlane)
            async with daemon:
                macs.append(daemon.mac)
        assert macs[0] == macs[1]
        assert path.stat().st_mode & 0o777 == 0o600

    run(main)


# ---- the host's network, and further sockets -----------------------------------------------------


def test_a_changed_network_and_a_sleep_are_told_to_the_core(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes, siblings=lambda: ["other"]) as daemon:
            assert daemon.core is not None
            assert daemon._network is not None
            told: list[str] = []
            daemon.core.network_changed = lambda now, reason: told.append(reason)  # type: ignore[method-assign]
            await until(lambda: daemon._network._seen_target == THERE.ip)
            kernel.seen = Surroundings((), Way(ip_address("127.0.0.2"), "lo", None, 0))
            daemon._network.look_again()
            await until(lambda: told)
            assert told == ["network_changed"]
            looks = [call for call in kernel.calls if call[0] == "surroundings"]
            assert looks[-1] == ("surroundings", THERE.ip, {daemon.tap_name, "other"})

    run(main)


def test_a_socket_that_won_serves_its_peer_and_is_closed_at_the_end(kernel: Kernel) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            far.setblocking(False)
            endpoint = Endpoint.of("127.0.0.1", far.getsockname()[1])
            async with make(planes) as daemon:
                assert daemon.core is not None
                seen: list[Any] = []
                daemon.core.birthday_won = lambda mac, at, now: seen.append((mac, at))  # type: ignore[attr-defined]
                daemon.core.receive = lambda data, at, now: seen.append((data, at))  # type: ignore[method-assign]
                daemon._execute([Birthday(PEER, endpoint, b"hello", 5, 30.0)])
                data, address = far.recvfrom(100)
                assert data == b"hello"
                assert address[0] == "127.0.0.1", "from where the edge listens"
                far.sendto(b"I hear you", address)
                await until(lambda: len(seen) == 2)
                assert seen == [(PEER, endpoint), (b"I hear you", endpoint)]
                daemon._execute([PutPeer(PEER, endpoint, True), PutPeer(PEER, THERE, True)])
                assert planes[0].calls[-2:] == [
                    ("put_peer", PEER.raw, endpoint.packed, endpoint.port, True, 1),
                    ("put_peer", PEER.raw, THERE.packed, THERE.port, True),
                ]
                assert daemon.counters()["daemon_birthday_won"] == 1
                assert daemon.action_faults == 0
        assert planes[0].calls[-1] == ("drop_socket", 1)

    run(main)
