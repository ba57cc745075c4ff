"""The supernode's key: what an edge remembers of it, when it believes another one, and how a person accepts one."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from n2n.api.service import edge_methods
from n2n.api.views import edge_status
from n2n.cli.main import main
from n2n.config import EdgeConfig, load_edge
from n2n.daemon.edge import EdgeDaemon
from n2n.errors import ConfigError, NotReady, StoreError
from n2n.net import Tap
from n2n.proto.actions import KeepKey
from n2n.proto.edge import EdgeState
from n2n.store import KnownKey, KnownKeys
from n2n.store import known_keys as module
from n2n.wire import PacketType, RegisterResponse, SNPublicSecret, Welcome, key_fingerprint
from tests.unit.daemon_fakes import FakePlane, until
from tests.unit.edge_driver import KEY, Driver

OLD = b"the old key"
THERE = "vpn.example.org:7777"


class TestFile:
    def test_what_is_put_is_found_and_private(self, tmp_path: Path) -> None:
        known = KnownKeys(tmp_path / "state")
        assert known.all() == {}
        assert not (tmp_path / "state").exists(), "looking makes nothing"
        first, second = KnownKey(b"one\n", True, 1e9), KnownKey(b"two", False, 2e9)
        known.put(THERE, first)
        known.put("[2001:db8::1]:7777", second)
        assert KnownKeys(tmp_path / "state").all() == {THERE: first, "[2001:db8::1]:7777": second}
        assert stat.S_IMODE(known.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(known.path.parent.stat().st_mode) == 0o700
        known.put(THERE, second)
        assert known.get(THERE) == second
        assert known.forget(THERE)
        assert not known.forget(THERE)
        assert known.get(THERE) is None
        assert [path.name for path in known.path.parent.iterdir() if path.name.startswith(".known_keys-")] == []

    def test_it_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_MOST", 3)
        known = KnownKeys(tmp_path)
        for number in (5, 1, 3, 4):
            known.put(f"h:{number}", KnownKey(b"k", False, float(number)))
        assert set(known.all()) == {"h:5", "h:3", "h:4"}, "the one known longest is forgotten"

    @pytest.mark.parametrize(
        "line",
        ["nonsense", f"{THERE} lasts 2026-01-01T00:00:00Z ===", f"{THERE} forever 2026-01-01T00:00:00Z a2V5",
         f"{THERE} lasts 2026-99-01T00:00:00Z a2V5", "\x00\xff"],
    )  # fmt: skip
    def test_a_damaged_file_is_named_and_left_alone(self, tmp_path: Path, line: str) -> None:
        known = KnownKeys(tmp_path)
        known.path.write_text(f"# a remark\n\n{line}\n")
        known.path.chmod(0o600)
        before = known.path.read_bytes()
        with pytest.raises(StoreError, match="known_keys:3: this is not a known key"):
            known.get(THERE)
        with pytest.raises(StoreError):
            known.put("other:1", KnownKey(b"k", False, 1.0))
        assert known.path.read_bytes() == before

    def test_a_file_that_others_can_change_is_refused(self, tmp_path: Path) -> None:
        known = KnownKeys(tmp_path)
        known.put(THERE, KnownKey(b"k", False, 1.0))
        known.path.chmod(0o666)
        with pytest.raises(StoreError, match="could be changed by others"):
            known.all()
        known.path.unlink()
        known.path.mkdir()
        with pytest.raises(StoreError, match="not a regular file"):
            known.all()

    def test_a_crash_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        known = KnownKeys(tmp_path)
        known.put(THERE, KnownKey(b"k", False, 1.0))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module.os, "fsync", full)
        with pytest.raises(StoreError, match="no space left"):
            known.put(THERE, KnownKey(b"another", False, 1.0))
        assert known.get(THERE) == KnownKey(b"k", False, 1.0)


def started(**changes: Any) -> Driver:
    driver = Driver(**changes)
    driver.core.start(driver.now)
    driver.core.set_supernode(driver.supernode, driver.now)
    driver.collect()
    return driver


def accepted(driver: Driver, n2n: bytes = b"") -> None:
    driver.say(PacketType.REGISTER_RESPONSE, RegisterResponse(True, "10.1.2.3", 24, n2n))


class TestRule:
    def test_a_key_is_kept_once_the_supernode_proved_to_have_it(self) -> None:
        driver = started()
        driver.say_key()
        assert driver.did(KeepKey) == [], "so far anybody could have said it"
        accepted(driver)
        assert driver.did(KeepKey) == [KeepKey(KEY, False)]
        accepted(driver)
        assert len(driver.did(KeepKey)) == 1, "nothing new"

    def test_a_supernode_that_keeps_its_key_is_held_to_it(self) -> None:
        driver = started()
        driver.say_key()
        accepted(driver, Welcome(0, key_lasts=True).pack())
        assert driver.did(KeepKey) == [KeepKey(KEY, True)]
        again = started(known_key=KEY, known_lasts=True)
        assert again.say_key(b"another key") == []
        assert again.core.state is EdgeState.REFUSED
        assert again.core.registration(again.now).reason == "supernode_key_changed"
        assert [note.level for note in again.notes("supernode_key_refused")] == ["error"]
        assert again.core.trust.refused == b"another key"
        again.run_until(11.0)
        again.say_key(KEY)
        assert again.core.state is EdgeState.REGISTERING
        assert again.core.trust.refused is None

    def test_silence_takes_nothing_back(self) -> None:
        driver = started(known_key=KEY, known_lasts=True)
        driver.say_key()
        accepted(driver, b"nonsense")
        assert driver.core.trust.lasts
        assert driver.did(KeepKey) == []

    def test_v5_supernodes_may_change_theirs(self) -> None:
        driver = started(known_key=OLD)
        driver.say_key()
        assert driver.core.state is EdgeState.REGISTERING
        assert [note.level for note in driver.notes("supernode_key_changed")] == ["warning"]
        accepted(driver)
        assert driver.did(KeepKey) == [KeepKey(KEY, False)]

    @pytest.mark.parametrize(("rule", "state"), [(True, EdgeState.REGISTERING), (False, EdgeState.REFUSED)])
    @pytest.mark.parametrize("lasts", [True, False])
    def test_a_rule_counts_more(self, rule: bool, state: EdgeState, lasts: bool) -> None:
        driver = started(known_key=OLD, known_lasts=lasts, accept_new_key=rule)
        driver.say_key()
        assert driver.core.state is state

    def test_what_the_old_one_said_is_not_said_of_the_new_one(self) -> None:
        driver = started(known_key=OLD, known_lasts=True, accept_new_key=True)
        driver.say_key()
        accepted(driver)
        assert driver.did(KeepKey) == [KeepKey(KEY, False)]

    def test_a_person_accepts(self) -> None:
        driver = started(known_key=OLD, known_lasts=True)
        assert driver.core.accept_key(driver.now) is None
        driver.say_key()
        driver.take()
        assert driver.core.accept_key(driver.now) == KEY
        driver.collect()
        assert [sent.type for sent in driver.take()] == [PacketType.SN_PUBLIC_SECRET], "asked at once"
        driver.say_key()
        accepted(driver)
        assert driver.core.state is EdgeState.REGISTERED
        assert driver.did(KeepKey) == [KeepKey(KEY, False)]


@pytest.mark.parametrize("lasts", [True, False])
def test_a_supernode_says_whether_its_key_lasts(lasts: bool) -> None:
    raw = Welcome(7, lasts).pack()
    assert Welcome.unpack(raw) == Welcome(7, lasts)
    assert Welcome.unpack(raw[:3]) == Welcome(7, False), "an earlier version said nothing of it"
    assert Welcome.unpack(raw + b"more") == Welcome(7, lasts)


def test_an_edge_remembers_over_a_restart(tmp_path: Path) -> None:
    import socket

    config = EdgeConfig(
        community="acme", supernode_addr="127.0.0.1:7777", bind="127.0.0.1", state_dir=tmp_path, run_dir=tmp_path
    )

    def edge() -> EdgeDaemon:
        ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        ours.close()
        tap = Tap(device.detach(), "t0")
        return EdgeDaemon(config, tap=tap, machine_id=bytes(16), plane_factory=FakePlane)

    async def main() -> None:
        async with edge() as daemon:
            daemon._execute([KeepKey(OLD, True)])
            await until(lambda: KnownKeys(tmp_path).get("127.0.0.1:7777") is not None)
        async with edge() as daemon:
            assert daemon.core is not None
            trust = daemon.core.trust
            assert (trust.key, trust.lasts) == (OLD, True)
            accept = edge_methods(daemon, "t0")["accept_key"]
            with pytest.raises(ConfigError, match="nothing to accept"):
                await accept({})
            assert not trust.take(b"another key")
            assert edge_status(daemon, "t0")["supernode"]["refused_key"] == key_fingerprint(b"another key")
            with pytest.raises(ConfigError, match=key_fingerprint(b"another key")):
                await accept({"fingerprint": key_fingerprint(OLD)})
            assert trust.key == OLD
            await accept({"fingerprint": key_fingerprint(b"another key")})
            assert trust.key == b"another key"
        (tmp_path / "known_keys").write_text("damaged\n")
        with pytest.raises(StoreError, match="known_keys:1"):
            await edge().start()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_refused_key_is_explained() -> None:
    driver = started(known_key=OLD, accept_new_key=False)
    driver.say_key()
    daemon = EdgeDaemon(EdgeConfig(community="acme", supernode_addr=THERE, state_dir=None))
    daemon._drive = type("Drive", (), {"core": driver.core})()  # type: ignore[assignment]
    assert "n2n key accept" in daemon._progress()

    async def wait() -> None:
        with pytest.raises(NotReady, match="n2n key accept"):
            await daemon.wait_ready(0.001)

    asyncio.run(wait())


def test_as_many_keys_as_are_kept_as_large_as_they_come_can_be_read_again(tmp_path: Path) -> None:
    known = KnownKeys(tmp_path)
    key = KnownKey(b"k" * 4096, True, 1.0)  # the largest that is taken from a supernode
    known._write({f"{'x' * 240}.{number}:7777": key for number in range(256)})
    assert len(known.all()) == 256


def test_keys_that_cannot_be_kept_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    events: list[dict[str, Any]] = []

    async def main() -> None:
        daemon = EdgeDaemon(EdgeConfig(community="acme", supernode_addr=THERE, state_dir=tmp_path / "file" / "x"))
        daemon.listeners.add(events.append)
        daemon._execute([KeepKey(KEY, False)])
        await until(lambda: events)
        await daemon.stop()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert events[0]["event"] == "key_not_kept"


@pytest.mark.parametrize(("text", "rule"), [("auto", None), ("true", True), ("false", False), ("'auto'", None)])
def test_the_rule_in_a_file(tmp_path: Path, text: str, rule: bool | None) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(f"community: acme\nsupernode_addr: {THERE}\naccept_new_key: {text}\n")
    assert load_edge(path, {}).config.accept_new_key is rule
    assert load_edge(path, {}, {"accept_new_key": "auto"}).config.accept_new_key is None


@pytest.mark.parametrize("text", ["perhaps", "1", "'true'", "[true]"])
def test_a_rule_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(f"community: acme\nsupernode_addr: {THERE}\naccept_new_key: {text}\n")
    with pytest.raises(ConfigError, match=":3: accept_new_key"):
        load_edge(path, {})


class TestCommand:
    def test_list_and_forget(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        where = ["--state-dir", str(tmp_path)]
        assert main(["key", "list", *where]) == 0
        assert "no supernode's key is known" in capsys.readouterr().out
        KnownKeys(tmp_path).put(THERE, KnownKey(KEY, True, 1e9))
        assert main(["key", "list", *where]) == 0
        assert f"{THERE}   SHA256:{key_fingerprint(KEY)}   yes" in capsys.readouterr().out
        assert main(["key", "list", "--json", *where]) == 0
        about = {"supernode": THERE, "fingerprint": key_fingerprint(KEY), "lasts": True, "since": 1e9}
        assert json.loads(capsys.readouterr().out) == {"keys": [about]}
        assert main(["key", "forget", THERE, *where]) == 0
        assert main(["key", "forget", THERE, *where]) == 1

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        calls: list[Any] = []
        supernode = {"configured": THERE, "key": "aa", "refused_key": "bb"}

        class Client:
            def __enter__(self) -> Client:
                return self

            def __exit__(self, *_: object) -> None: ...

            def call(self, method: str, **params: Any) -> Any:
                calls.append((method, params))
                return {"supernode": supernode}

        monkeypatch.setattr("n2n.api.client.choose_edge", lambda _: "tap0")
        monkeypatch.setattr("n2n.api.client.connect", lambda _: Client())
        calls.append(supernode)
        return calls

    def test_accept(self, asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["key", "accept", "--yes"]) == 0
        assert asked[1:] == [("status", {}), ("accept_key", {"fingerprint": "bb"})]
        assert "SHA256:bb" in capsys.readouterr().out

    @pytest.mark.parametrize(("answer", "status"), [("yes", 0), ("y", 1), ("", 1)])
    def test_a_person_is_asked(
        self, asked: list[Any], answer: str, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda _: answer)
        assert main(["key", "accept"]) == status
        assert (("accept_key", {"fingerprint": "bb"}) in asked) is (status == 0)

    def test_nobody_to_ask_or_nothing_to_accept(self, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        assert main(["key", "accept"]) == 2
        asked[0]["refused_key"] = None
        assert main(["key", "accept", "--yes"]) == 1


def test_a_key_message_of_v5_says_nothing_more() -> None:
    assert SNPublicSecret(False, KEY).n2n == b""
