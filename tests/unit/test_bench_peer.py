"""``n2n bench PEER``: the responder of an edge and whoever measures, each with an honest and a hostile other."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from n2n.api.benchmark import bench_methods
from n2n.bench.far import Far
from n2n.bench.peer import PeerOptions
from n2n.cli.main import main
from n2n.daemon import responder
from n2n.daemon.measured import Measured
from n2n.daemon.responder import Responder, thread_usage
from n2n.errors import ConfigError, N2NError, NotReady, PlatformError
from n2n.lab.namespaces import wait_until
from n2n.types import Endpoint, MacAddress

HOME = IPv4Address("127.0.0.1")
MAC = MacAddress.parse("02:00:00:00:00:02")
OTHER = MacAddress.parse("02:00:00:00:00:03")
ENDPOINT = Endpoint(IPv4Address("192.0.2.2"), 6)


@dataclass
class FakeHost:
    members: set[IPv4Address] = field(default_factory=lambda: {HOME})
    relayed: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    ended: list[object] = field(default_factory=list)

    def knows(self, address: IPv4Address) -> bool:
        return address in self.members

    def relay(self, address: IPv4Address, seconds: float) -> bool:
        self.relayed.append(seconds)
        return address in self.members

    def loads_of(self, session: object, address: IPv4Address, rate: float, seconds: float) -> Any:
        raise NotReady("the path is not direct")

    def end_loads(self, owner: object) -> None:
        self.ended.append(owner)

    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.told.append(event)


@dataclass
class Answering:
    """A responder on loopback, in the loop of another thread."""

    host: FakeHost
    responder: Responder
    loop: asyncio.AbstractEventLoop
    port: int = 0

    def call(self, work: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def far(self, seconds: float = 30, rate: float = 1e9) -> Far:
        peer = {"name": "b", "virtual_ip": str(HOME)}
        return Far({"peer": peer, "address": str(HOME), "port": self.port}, seconds, rate)

    def line(self, text: bytes) -> bytes:
        """What one line on a connection of its own is answered; b"" where it is hung up."""
        with socket.create_connection((str(HOME), self.port), timeout=30) as sock:
            sock.sendall(text)
            with sock.makefile("rb") as lines:
                try:
                    return lines.readline()
                except ConnectionError:
                    return b""

    def ask(self, **request: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.line(json.dumps(request).encode() + b"\n"))
        return answer

    def count(self, name: str) -> int:
        return self.responder.counters()[name]


@pytest.fixture
def answering() -> Iterator[Answering]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    host = FakeHost()
    made = Answering(host, Responder(host), loop)
    made.call(lambda: made.responder.open(HOME, None, 0))
    made.port = made.responder.port
    yield made
    made.call(made.responder.close)
    wait_until("its tasks end", lambda: made.call(lambda: len(asyncio.all_tasks())) == 1, 30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


# ---- both honest --------------------------------------------------------------------------------


def test_a_session_measures_datagrams_and_streams(answering: Answering) -> None:
    with answering.far() as far:
        sent, times = far.echo(0.2)
        assert sent > 1
        assert len(times) == sent
        assert all(time > 0 for time in times)
        for move in (far.push, far.pull):
            count, seconds = move(0.1)
            assert count > 0
            assert seconds > 0
        assert set(far.usage()["main"]) == {"user", "system"}
        far.ask("relay", seconds=5)
        assert answering.host.relayed == [5]
    wait_until("the session ends", lambda: answering.host.relayed == [5, 0], 30)
    assert answering.count("bench_sessions") == 1
    assert answering.count("bench_echoes") == sent
    assert answering.host.told == ["bench"]


def test_a_stream_keeps_to_the_rate_that_was_agreed(answering: Answering) -> None:
    rate = 80e6
    with answering.far(rate=rate) as far:
        for move in (far.push, far.pull):
            count, seconds = move(0.3)
            # Two blocks may be on their way before anybody waits.
            assert count * 8 <= rate * seconds + 16 * responder._BLOCK


def test_the_rate_is_kept_to_also_if_the_other_does_not(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Far, "_pace", lambda *_: None)
    rate = 80e6
    with answering.far(rate=rate) as far:
        for move in (far.pull, far.push):
            count, seconds = move(0.1)
            assert count * 8 <= rate * seconds + 16 * responder._BLOCK


def test_usage_is_of_every_thread_by_name() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="idler")
    thread.start()
    try:
        found = thread_usage()
    finally:
        over.set()
        thread.join()
    assert {"main", "idler"} <= set(found)
    assert found["main"]["user"] > 0


# ---- a hostile asker ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"do": "open"}, "seconds is a number"),
        ({"do": "open", "seconds": 121, "rate": 1e9}, "seconds is a number from 1 to 120"),
        ({"do": "open", "seconds": float("nan"), "rate": 1e9}, "seconds is a number"),
        ({"do": "open", "seconds": True, "rate": 1e9}, "seconds is a number"),
        ({"do": "open", "seconds": 5, "rate": 1e11}, "rate is a number"),
        ({"do": "open", "seconds": 5, "rate": "x"}, "rate is a number"),
        ({"do": "sink", "token": "00" * 8}, "no such session"),
        ({"do": "source", "token": None, "seconds": 1}, "no such session"),
        ({}, "no such session"),
    ],
)
def test_what_cannot_be_is_refused(answering: Answering, request_: dict[str, Any], why: str) -> None:
    answer = answering.ask(**request_)
    assert answer["ok"] is False
    assert why in answer["why"]
    assert answering.count("bench_refused") == 1
    assert answering.count("bench_sessions") == 0


@pytest.mark.parametrize("line", [b"\n", b"x\n", b"[]\n", b"{" * 512 + b"\n", b"\xff\xfe\n", b"y" * 5000 + b"\n"])
def test_what_is_no_request_is_counted(answering: Answering, line: bytes) -> None:
    assert answering.line(line) in (b"", b'{"ok": false, "why": "a request is one line of JSON"}\n')
    wait_until("it is counted", lambda: answering.count("bench_bad") == 1, 30)


def test_only_members_may_measure(answering: Answering) -> None:
    answering.host.members.clear()
    with pytest.raises(PlatformError, match="only members"), answering.far():
        pass


def test_one_at_a_time(answering: Answering) -> None:
    with answering.far():
        with pytest.raises(PlatformError, match="another measurement"), answering.far():
            pass
        assert answering.ask(do="sink", token="00" * 8)["why"] == "there is no such session"


def test_a_session_has_an_end(answering: Answering) -> None:
    with answering.far(seconds=1) as far:
        wait_until("it is over", lambda: answering.host.relayed == [0], 30)
        with pytest.raises(PlatformError, match="broke off"):
            far.usage()


def test_sessions_are_a_part_of_the_time_only(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    answering.responder._budget = 40.0
    for _ in range(3):  # what is not used comes back, but for a second of each
        with answering.far(seconds=30):
            pass
        wait_until("it is over", lambda: answering.responder._session is None, 30)
    assert 36 < answering.responder._budget < 40
    answering.responder._budget = 5.0
    with pytest.raises(PlatformError, match="try again in"), answering.far(seconds=60):
        pass


def test_connections_are_bounded(answering: Answering) -> None:
    idle = [socket.create_connection((str(HOME), answering.port), timeout=30) for _ in range(responder._CONNECTIONS)]
    try:
        wait_until("they are there", lambda: len(answering.responder._tasks) == responder._CONNECTIONS, 30)
        assert answering.line(b"{}\n") == b""
        assert answering.count("bench_refused") >= 1
    finally:
        for one in idle:
            one.close()
    wait_until("they are gone", lambda: not answering.responder._tasks, 30)


def test_who_says_nothing_is_let_go(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "_PATIENCE", 0.05)
    assert answering.line(b"") == b""


def test_datagrams_of_others_do_not_come_back(answering: Answering) -> None:
    with answering.far() as far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        token = bytes.fromhex(far._token)
        sock.connect((str(HOME), answering.port))
        sock.settimeout(30)
        for datagram in (b"", b"x", bytes(100), token, token[:7] + bytes(93), token + bytes(9000)):
            sock.send(datagram)
        wait_until("they are counted", lambda: answering.count("bench_stranger") == 6, 30)
        sock.send(token + b"12345678")
        assert sock.recv(100) == token + b"12345678", "one that is right comes back as it was, and nothing did before"
        answering.responder._session.source = "192.0.2.1"  # the session of somebody else
        sock.send(token + b"12345678")
        wait_until("it is counted", lambda: answering.count("bench_stranger") == 7, 30)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(token + b"12345678", (str(HOME), answering.port))
        wait_until("it is counted", lambda: answering.count("bench_stranger") == 8, 30)


def test_datagrams_come_back_at_a_bounded_rate(answering: Answering) -> None:
    now = time.monotonic()
    answering.responder._clock = lambda: now  # no time passes: only what there is at once
    with answering.far() as far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((str(HOME), answering.port))

        def more() -> int:
            for _ in range(50):  # the socket's buffer holds no more than some hundred
                sock.send(bytes.fromhex(far._token) + bytes(8))
            return answering.count("bench_limited")

        wait_until("some are too many", more, 30, every=0.01)
        assert answering.count("bench_echoes") == 500


def test_closing_ends_what_goes_on(answering: Answering) -> None:
    with answering.far() as far:
        answering.call(answering.responder.close)
        with pytest.raises(N2NError, match="broke off"):
            far.usage()
    assert not answering.responder.listening
    with pytest.raises(PlatformError, match="allow_bench"), answering.far():
        pass


# ---- a hostile responder ------------------------------------------------------------------------


@pytest.fixture
def hostile() -> Iterator[Callable[[bytes], Far]]:
    """Answers every connection's first line with the same bytes."""
    server = socket.create_server((str(HOME), 0))
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *about: Any) -> None:
        threads.append(threading.Thread(target=work, args=about, daemon=True))
        threads[-1].start()

    def accept(answer: bytes) -> None:
        with suppress(OSError):
            while True:
                start(say, server.accept()[0], answer)

    def say(sock: socket.socket, answer: bytes) -> None:
        with sock, suppress(OSError):
            sock.recv(4096)
            sock.sendall(answer)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    def make(answer: bytes) -> Far:
        start(accept, answer)
        peer = {"name": "b", "virtual_ip": str(HOME)}
        return Far({"peer": peer, "address": str(HOME), "port": server.getsockname()[1]}, 30, 1e9)

    yield make
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "broke off"),
        (b"x" * 100_000, "no line of JSON"),
        (b"[1]\n", "no line of JSON"),
        (b"[" * 60_000 + b"\n", "no line of JSON"),
        (b'{"ok": true}\n', "no token"),
        (b'{"ok": true, "token": "' + b"z" * 16 + b'"}\n', "no token"),
        (b'{"ok": true, "token": "' + b"0" * 1600 + b'"}\n', "no token"),
        (b'{"ok": 1, "token": "0011223344556677"}\n', "does not do that"),
    ],
    ids=range(8),
)
def test_nonsense_of_the_peer_is_told_as_such(hostile: Callable[[bytes], Far], answer: bytes, said: str) -> None:
    with pytest.raises(N2NError, match=said), hostile(answer):
        pass


def test_words_of_the_peer_move_no_cursor(hostile: Callable[[bytes], Far]) -> None:
    answer = json.dumps({"ok": False, "why": "\x1b[31m" + "no " * 999}).encode() + b"\n"
    with pytest.raises(PlatformError) as refusal, hostile(answer):
        pass
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_numbers_of_the_peer_are_bounded(hostile: Callable[[bytes], Far]) -> None:
    numbers = b'"bytes": 1e300, "seconds": -5, "usage": {"a": {"user": "x"}, "b": 3}'
    with hostile((b'{"ok": true, "token": "0011223344556677", ' + numbers + b"}\n") * 2) as far:
        count, seconds = far.push(0.05)
        assert (count, seconds) == (0, 0.0)
        assert far.usage() == {"a": {"user": 0.0, "system": 0.0}}


def test_who_does_not_answer_is_named() -> None:
    with socket.socket() as closed:
        closed.bind((str(HOME), 0))
        found = {"peer": {"name": "b", "virtual_ip": str(HOME)}, "address": str(HOME), "port": closed.getsockname()[1]}
        with pytest.raises(PlatformError, match="has not agreed"), Far(found, 10, 1e9):
            pass
    found["address"] = "192.0.2.77"  # not ours: as if the way there were broken
    with pytest.raises(NotReady, match="cannot be reached"), Far(found, 10, 1e9):
        pass


# ---- the long way -------------------------------------------------------------------------------


def view(mac: MacAddress = MAC, name: str = "b", ip: str = "10.0.0.2") -> Any:
    return SimpleNamespace(mac=mac, name=name, virtual_ip=IPv4Address(ip), path="direct")


class FakeEdge:
    def __init__(self, *views: Any) -> None:
        self.views = views
        self.told: list[str] = []
        self.put: list[bool] = []
        self.measured = Measured(self, lambda mac, endpoint, direct: self.put.append(direct))
        self.address = SimpleNamespace(ip=IPv4Address("10.0.0.1"))
        self.tap_name = "tap0"
        self.mtu = 1400
        self.config = SimpleNamespace(enable_vfuze=True, encryption_passphrase="x", compress_payload=False)

    def peers(self) -> tuple[Any, ...]:
        return self.views

    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.told.append(event)


def test_frames_take_the_long_way_for_a_while() -> None:
    async def run() -> list[bool]:
        edge = FakeEdge(view())
        edge.measured.put_peer(MAC, ENDPOINT, True)
        assert edge.measured.relay(IPv4Address("10.0.0.2"), 0.02)
        edge.measured.put_peer(MAC, ENDPOINT, True)  # the core does not know of it
        async with asyncio.timeout(30):
            while len(edge.put) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return edge.put

    assert asyncio.run(run()) == [True, False, False, True]


def test_the_long_way_ends_as_soon_as_it_is_asked_to_and_with_the_peer() -> None:
    async def run() -> None:
        edge = FakeEdge(view())
        assert not edge.measured.relay_to(MAC, 5), "no such peer"
        edge.measured.put_peer(MAC, ENDPOINT, True)
        edge.measured.relay_to(MAC, 5)
        edge.measured.relay_to(MAC, 0)
        assert edge.put == [True, False, True]
        edge.measured.relay_to(MAC, 5)
        edge.measured.drop_peer(MAC)
        edge.measured.put_peer(MAC, ENDPOINT, False)
        assert edge.put[3:] == [False, False]
        assert not edge.measured.relay(IPv4Address("10.0.0.9"), 5)
        edge.measured.close()

    asyncio.run(run())


def test_nobody_listens_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def record(self: Responder, *where: object) -> None:
        opened.append(where)

    monkeypatch.setattr(Responder, "open", record)

    async def run() -> None:
        edge = FakeEdge()
        edge.measured.configured(HOME, "tap0")
        assert opened == []
        edge.measured.allow(True)
        edge.measured.allow(False)
        edge.measured.configured(IPv4Address("10.0.0.9"), "tap0")
        assert opened == [(HOME, "tap0")]

    asyncio.run(run())


def test_a_port_that_is_taken_is_no_end_of_the_edge() -> None:
    async def run() -> list[str]:
        edge = FakeEdge()
        edge.measured.allow(True)
        edge.measured.configured(IPv4Address("192.0.2.77"), "nosuchdevice")
        return edge.told

    assert asyncio.run(run()) == ["bench_off"]


# ---- questions to the edge ----------------------------------------------------------------------


def ask(edge: FakeEdge, method: str, **params: object) -> Any:
    return asyncio.run(bench_methods(edge)[method](params))  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["b", "10.0.0.2", "02:00:00:00:00:02"])
def test_a_peer_is_known_by_name_and_by_address(wanted: str) -> None:
    found = ask(FakeEdge(view(), view(OTHER, "c", "10.0.0.3")), "bench", peer=wanted)
    assert found["peer"] == {"mac": str(MAC), "name": "b", "virtual_ip": "10.0.0.2", "path": "direct"}
    assert (found["address"], found["tap"], found["port"]) == ("10.0.0.1", "tap0", 7779)
    assert found["datagram"] == 1400 + 14 + 7 + 28
    assert "main" in found["usage"]


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("bench", {}, "peer is the name"),
        ("bench", {"peer": "b"}, "several members"),
        ("bench_relay", {"mac": 5, "seconds": 1}, "a mac is needed"),
        ("bench_relay", {"mac": str(MAC), "seconds": True}, "must be a number"),
        ("bench_relay", {"mac": str(MAC), "seconds": 121}, "not between"),
        ("bench_relay", {"mac": "x", "seconds": 1}, "x"),
    ],
)
def test_questions_that_make_no_sense_are_refused(method: str, params: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(FakeEdge(view(), view(OTHER, "b", "10.0.0.3")), method, **params)


def test_a_member_that_is_not_there() -> None:
    with pytest.raises(N2NError, match="no member 'nobody'") as caught:
        ask(FakeEdge(view()), "bench", peer="nobody")
    assert not isinstance(caught.value, ConfigError), "exit code 1, as of why and ping"


@pytest.mark.parametrize("settings", [{"seconds": 0.01}, {"seconds": 11}, {"rate": 0}, {"rate": 10_001}])
def test_what_is_asked_for_is_bounded(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="not between"):
        PeerOptions(peer="b", **settings)  # type: ignore[arg-type]


def test_the_two_kinds_of_measurement_are_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--iterations", "5"], ["--rounds", "5"], ["--community", "c"], ["--allcomponents"]):
        assert main(["bench", "b", *words]) == 2
        assert f"--seconds, --rate, --instance and --json only, not {words[0]}" in capsys.readouterr().err
    for words in (["--seconds", "3"], ["--rate", "5"], ["--instance", "tap0"]):
        assert main(["bench", "--component", "udp", *words]) == 2
        assert f"{words[0]} goes with the name or address of a member" in capsys.readouterr().err


def test_without_an_edge_there_is_nothing_to_measure(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
    assert main(["bench", "b"]) == 3
    assert "no edge is running" in capsys.readouterr().err
