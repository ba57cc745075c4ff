"""``n2n doctor``: each thing that can be wrong is found, named, and comes with what to do."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n.cli.main import main
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.doctor import Finding, Level, Subject, host, network
from n2n.doctor.findings import run
from n2n.errors import NetlinkError, PlatformError, TapError
from n2n.net import SocketBuffers
from n2n.store import KnownKey, KnownKeys
from n2n.types import SUPERNODE_MAC, ZERO_MAC, Endpoint
from n2n.wire import FLAG_SUPERNODE, PacketType, ProtoV, SNPublicSecret, build, key_fingerprint

KEY = b"-----BEGIN RSA PUBLIC KEY-----\n..."


def edge(**more: Any) -> EdgeConfig:
    return EdgeConfig(**{"community": "acme", "supernode_addr": "127.0.0.1:9", "bind": "127.0.0.1"} | more)


def only(findings: Any) -> Finding:
    [found] = findings
    return found


class TestHost:
    @pytest.mark.parametrize(
        ("number", "word"), [(errno.ENOENT, "modprobe tun"), (errno.ENODEV, "modprobe tun"), (errno.EACCES, "root")]
    )
    def test_no_tun(self, number: int, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", refuse)
        found = only(host.tun(Subject("edge")))
        assert found.level is Level.FAIL
        assert word in found.remedy
        assert list(host.tun(Subject("supernode"))) == [], "a supernode needs none"

    @pytest.mark.parametrize(("mask", "level"), [("0000000000001000", "ok"), ("0000000000000fff", "fail")])
    def test_rights(self, mask: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"Name:\tx\nCapEff:\t{mask}\n")
        assert only(host.rights(Subject("edge"))).level == level
        running = Subject("edge", edge(), {"n2n_tap0": {"role": "edge"}})
        assert only(host.rights(running)).level == "ok", "what runs has what it needs"

    @pytest.mark.parametrize(
        ("got", "level", "word"),
        [({"csum", "tso", "uso"}, "ok", "USO"), ({"csum", "tso"}, "warning", "6.2"), (set(), "warning", "tso")],
    )
    def test_offloads(self, got: set[str], level: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Fake:
            def __enter__(self) -> Fake:
                return self

            def __exit__(self, *_: object) -> None: ...

            def offload(self, *, uso: bool) -> frozenset[str]:
                return frozenset(got)

        monkeypatch.setattr(host, "has_net_admin", lambda: True)
        monkeypatch.setattr(host.Tap, "open", lambda *_, **__: Fake())
        first, second = host.tap_features(Subject("edge"))
        assert first.level == level
        assert word in first.what + first.remedy
        assert (second.check, second.level) == ("tap_queues", "ok")

    def test_a_kernel_without_virtio_headers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise TapError("TAP x: invalid argument")

        monkeypatch.setattr(host, "has_net_admin", lambda: True)
        monkeypatch.setattr(host.Tap, "open", refuse)
        assert only(host.tap_features(Subject("edge"))).level is Level.WARNING

    def test_udp_features(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [found.level for found in host.udp_features(Subject("edge"))] == ["ok", "ok"]
        monkeypatch.setattr(host, "_UDP_GRO", 9999)
        assert [found.level for found in host.udp_features(Subject("edge"))] == ["ok", "warning"]

    def test_cipher(self) -> None:
        chosen, passphrase = host.cipher(Subject("edge", edge(cipher="libcrypto", encryption_passphrase="x" * 30)))
        assert chosen.what == "AES-256-GCM by libcrypto, as configured"
        assert passphrase.level is Level.OK
        assert "fastest" in only(host.cipher(Subject("edge"))).what

    @pytest.mark.parametrize("text", [None, "short"])
    def test_passphrases_that_protect_nothing(self, text: str | None) -> None:
        found = host._passphrase(text)
        assert found.level is Level.WARNING
        assert "n2n key passphrase" in found.remedy
        assert "short" not in found.what

    def test_buffers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert only(host.buffers(Subject("edge", edge(udp_buffer_size=65536)))).level is Level.OK
        monkeypatch.setattr(host, "socket_buffers", lambda _: SocketBuffers(212992, 300000))
        found = only(host.buffers(Subject("edge", edge(udp_buffer_size=400000))))
        assert found.level is Level.WARNING
        assert "allows 212992 bytes" in found.what
        assert "net.core.rmem_max=400000" in found.remedy

    def test_files(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        config = SupernodeConfig(run_dir=tmp_path / "new", state_dir=tmp_path / "file" / "state")
        found = {item.what.split()[0]: item for item in host.files(Subject("supernode", config))}
        assert found["run_dir"].what.endswith("can be made")
        assert found["state_dir"].level is Level.FAIL
        assert list(host.files(Subject("supernode", config, {"supernode": {}}))) == []


class Answering:
    """A UDP socket that answers each question with the next of some datagrams."""

    def __init__(self, *answers: tuple[bytes, ...]) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self._sock.settimeout(20)
        self.endpoint = Endpoint.parse(f"127.0.0.1:{self._sock.getsockname()[1]}")
        self.asked: list[bytes] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            question, source = self._sock.recvfrom(2048)
            self.asked.append(question)
            for datagram in answer:
                self._sock.sendto(datagram, source)

    def close(self) -> None:
        self._thread.join(20)
        self._sock.close()


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    made: list[Answering] = []

    def make(*answers: tuple[bytes, ...]) -> Answering:
        made.append(Answering(*answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def answer(at: float = 0, **more: Any) -> bytes:
    header = ProtoV(
        PacketType.SN_PUBLIC_SECRET, source=SUPERNODE_MAC, dest=ZERO_MAC, flags=FLAG_SUPERNODE, timestamp=int(at)
    )
    return build(header, SNPublicSecret(**{"is_request": False, "pem_data": KEY} | more))


class TestSupernode:
    def test_it_answers_after_a_lost_question_and_nonsense(
        self, answering: Callable[..., Answering], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(network, "_PATIENCE", 0.3)
        there = answering((), (b"", b"nonsense", answer(is_request=True), answer(time.time())))
        found = list(network.supernode(Subject("edge", edge(supernode_addr=str(there.endpoint)))))
        assert [item.check for item in found] == ["supernode", "mtu"]
        assert found[0].level is Level.OK
        assert key_fingerprint(KEY) in found[0].what
        assert found[1].level is Level.OK

    def test_its_clock_differs(self, answering: Callable[..., Answering]) -> None:
        there = answering((answer(time.time() + 3600),))
        found = {
            item.check: item for item in network.supernode(Subject("edge", edge(supernode_addr=str(there.endpoint))))
        }
        assert found["clock"].level is Level.WARNING
        assert "+36" in found["clock"].what or "+35" in found["clock"].what

    @pytest.mark.parametrize(
        ("known", "lasts", "rule", "level"),
        [(KEY, True, None, None), (b"old", True, None, "fail"), (b"old", False, None, "warning"),
         (b"old", True, True, "warning"), (b"old", False, False, "fail")],
    )  # fmt: skip
    def test_its_key_is_another(
        self, known: bytes, lasts: bool, rule: bool | None, level: str | None, tmp_path: Path
    ) -> None:
        KnownKeys(tmp_path).put("127.0.0.1:9", KnownKey(known, lasts, 1e9))
        found = list(network._known_key(edge(state_dir=tmp_path, accept_new_key=rule), KEY, edge().supernode_addr))
        assert [item.level for item in found] == ([] if level is None else [level])

    def test_it_is_silent(self, answering: Callable[..., Answering], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network, "_PATIENCE", 0.02)
        there = answering((), (), ())
        found = only(network.supernode(Subject("edge", edge(supernode_addr=str(there.endpoint)))))
        assert found.level is Level.FAIL
        assert "firewall" in found.remedy
        there.close()
        assert len(there.asked) == 3

    def test_nobody_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        assert network.ask_key(Endpoint.parse(f"127.0.0.1:{port}")) is None

    def test_its_name_is_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def lookup(*_: object) -> list[Endpoint]:
            raise PlatformError("vpn.invalid: no such name")

        monkeypatch.setattr(network, "resolve", lookup)
        assert "no such name" in only(network.supernode(Subject("edge", edge(supernode_addr="vpn.invalid:1")))).what

    def test_a_narrow_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Narrow(socket.socket):
            def getsockopt(self, *_: Any) -> Any:
                return 1280

        monkeypatch.setattr(socket, "socket", Narrow)
        found = only(network._mtu(edge(encryption_passphrase="x"), Endpoint.parse("127.0.0.1:9")))
        assert found.level is Level.WARNING
        assert "takes 1497 on a path of 1280" in found.what
        assert found.remedy == "tap_mtu: 1203"
        found = only(network._mtu(edge(encryption_passphrase="x", tap_mtu=0), Endpoint.parse("127.0.0.1:9")))
        assert found.level is Level.OK
        assert "auto" in found.what


class TestNetwork:
    def test_a_port_in_use(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            config = SupernodeConfig(listen_address=f"127.0.0.1:{port}", state_dir=None)
            found = only(network.port(Subject("supernode", config)))
            assert found.level is Level.FAIL
            assert str(port) in found.what
            running = Subject("supernode", config, {"supernode": {"listen": f"127.0.0.1:{port}"}})
            assert only(network.port(running)).level is Level.OK, "by the one that is meant"
        assert only(network.port(Subject("supernode", config))).level is Level.OK

    def test_clocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time", lambda: 1000.0)
        assert only(network.clock(Subject("edge"))).level is Level.FAIL

    @pytest.mark.parametrize(("state", "level"), [(0, "ok"), (5, "warning")])
    def test_synchronised(self, state: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Library:
            def adjtimex(self, _: object) -> int:
                return state

        monkeypatch.setattr(network.ctypes, "CDLL", lambda *_, **__: Library())
        assert only(network.clock(Subject("edge"))).level == level

    def test_clashes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ignored: list[Any] = []

        def clashing(of: Any, *, ignore: Any) -> list[str]:
            ignored.append(set(ignore))
            return [f"{of} on eth0"]

        monkeypatch.setattr(network, "routes_clashing", clashing)
        found = only(network.clash(Subject("edge", edge())))
        assert (found.level, found.what.split()[0]) == ("warning", "10.171.51.0/24"), "where acme would lie"
        status = {"role": "edge", "tap": "tap7", "address": "10.9.9.2/24"}
        found = only(network.clash(Subject("edge", edge(tap_name="tap7"), {"tap7": status})))
        assert found.level is Level.FAIL
        assert "10.9.9.0/24 of edge tap7 clashes with 10.9.9.0/24 on eth0" in found.what
        assert ignored[-1] == {"tap7"}, "its own device is no clash"

    def test_daemons(self) -> None:
        running = {
            "a": {"role": "edge", "ready": True, "address": "10.0.0.1/24"},
            "b": {"role": "edge", "ready": False, "state": "key", "reason": "resolved"},
            "c": {},
        }
        found = list(network.daemons(Subject("edge", None, running)))
        assert [item.level for item in found] == ["ok", "fail", "warning"]
        assert "key (resolved)" in found[1].what


def test_what_cannot_be_looked_at_is_told() -> None:
    def broken(_: Subject) -> Iterator[Finding]:
        raise NetlinkError("cannot list links")
        yield

    found = only(run(Subject("edge"), [("clash", broken)]))
    assert (found.check, found.level) == ("clash", "fail")
    assert "cannot list links" in found.what


class TestCommand:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("N2N_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
        monkeypatch.setattr("n2n.doctor.host.CHECKS", (("x", self._checks),))
        monkeypatch.setattr("n2n.doctor.network.CHECKS", ())

    level = "ok"

    def _checks(self, subject: Subject) -> Iterator[Finding]:
        yield Finding("x", Level(self.level), f"{subject.role} \x1b[2J {subject.config is not None}", "do this")

    @pytest.mark.parametrize(("level", "status"), [("ok", 0), ("warning", 0), ("fail", 1)])
    def test_exit_codes(self, level: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.__class__.level = level
        assert main(["doctor"]) == status
        text = capsys.readouterr().out
        assert "\x1b" not in text
        assert "edge ?[2J False" in text
        assert text.splitlines()[1].strip() == "do this"
        assert main(["doctor", "--json"]) == status
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] is (status == 0)
        assert found["findings"][0]["level"] == level

    def test_with_a_configuration(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.__class__.level = "ok"
        path = tmp_path / "edge.yaml"
        path.write_text("community: acme\nsupernode_addr: vpn:7777\ntap_mtu: 700\n")
        assert main(["doctor", "--config", str(path), "--json"]) == 0
        levels = [item["level"] for item in json.loads(capsys.readouterr().out)["findings"]]
        assert levels == ["ok", "warning", "ok"]
        path.write_text("community: acme\n")
        assert main(["doctor", "edge", "--config", str(path)]) == 1
        assert "supernode_addr is missing" in capsys.readouterr().out
        assert main(["doctor", "supernode", "--listen-address", "127.0.0.1:7"]) == 0
        assert "supernode ?[2J True" in capsys.readouterr().out


def test_on_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every check runs here, whatever it finds."""
    for name in [name for name in os.environ if name.startswith("N2N_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(network, "_PATIENCE", 0.01)
    args = ["--community", "acme", "--supernode-addr", "127.0.0.1:9", "--encryption-passphrase", "x" * 30]
    assert main(["doctor", "edge", *args, "--json"]) == 1
    found = {item["check"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert found["supernode"]["level"] == "fail"
    assert {"extension", "tun", "rights", "udp_segment", "cipher", "buffers", "files", "port", "clock", "clash"} <= {
        *found
    }
    assert not [item for item in found.values() if "could not be looked at" in item["what"]]
