"""A daemon that runs is told to read its configuration again, to log more, to show what happened, to drop an edge."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from n2n.api.client import Client
from n2n.api.service import supernode_methods
from n2n.cli.main import main
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.daemon import edge as edge_module
from n2n.daemon import live as live_module
from n2n.daemon.edge import EdgeDaemon
from n2n.daemon.live import Change, reconfigure
from n2n.daemon.runtime import RECENT, Listeners, watchdog_period
from n2n.daemon.supernode import SupernodeDaemon
from n2n.errors import ConfigError, NetlinkError
from n2n.net import Tap, socket_buffers
from n2n.proto.actions import LeaseRecord, SaveLease, SaveNetwork
from n2n.store import MemoryStore
from n2n.types import MacAddress
from tests.sim.supernode_rig import Rig
from tests.unit.daemon_fakes import FakePlane, until
from tests.unit.edge_driver import Driver
from tests.unit.processes import Process
from tests.unit.test_daemon_supernode import key

MAC = MacAddress.parse("02:00:00:00:00:01")


@pytest.fixture
def _logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


def supernode(**more: Any) -> SupernodeDaemon:
    about: dict[str, Any] = {"listen_address": "127.0.0.1:0", "state_dir": None, "udp_buffer_size": 65536}
    store = more.pop("store", None)
    return SupernodeDaemon(SupernodeConfig(**about | more), key=key(), store=store, plane_factory=FakePlane)


def changed(daemon: Any, **more: Any) -> dict[str, Change]:
    from dataclasses import replace

    return {change.key: change for change in reconfigure(daemon, replace(daemon.config, **more))}


@pytest.mark.usefixtures("_logging")
def test_a_supernode_applies_what_it_can_and_says_what_not() -> None:
    async def main() -> None:
        events: list[dict[str, Any]] = []
        async with supernode() as daemon:
            daemon.listeners.add(events.append)
            found = changed(
                daemon,
                expiry_duration=90.0, cleanup_interval=7.0, strict_hash_checking=False, udp_buffer_size=131072,
                log_level="debug", enable_vfuze=False, max_edges=5,
            )  # fmt: skip
            assert {name for name, change in found.items() if not change.applied} == {"enable_vfuze", "max_edges"}
            assert found["expiry_duration"] == Change("expiry_duration", "10m", "1m30s", True, "")
            assert found["max_edges"].why == "takes effect at the next start"
            assert daemon.config.expiry_duration == 90.0
            assert daemon.config.enable_vfuze is True, "what is not in force is not shown as if it were"
            assert socket_buffers(daemon._socks[0]).receive == 131072
            assert logging.getLogger().level == logging.DEBUG
            assert daemon.core is not None
            settings = daemon.core._state.settings
            assert (settings.expiry, settings.cleanup_interval, settings.strict_hash_checking) == (90.0, 7.0, False)
            assert events[-1]["event"] == "reloaded"
            assert events[-1]["fields"]["not_applied"] == "enable_vfuze, max_edges"
            assert set(changed(daemon, enable_vfuze=False)) == {"enable_vfuze"}, "it is told again until it is so"
            assert changed(daemon) == {}

    run(main())


def test_an_edge_applies_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    calls: list[tuple[str, dict[str, Any]]] = []

    def open_tap(name: str, **_: object) -> Tap:
        ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        ours.close()
        return Tap(device.detach(), name)

    def configure(name: str, **what: Any) -> None:
        if what.get("mtu") == 9000:
            raise NetlinkError("cannot set mtu 9000: no")
        calls.append((name, what))

    monkeypatch.setattr(Tap, "open", open_tap)
    monkeypatch.setattr(edge_module, "configure", configure)
    monkeypatch.setattr(live_module, "configure", configure)
    config = EdgeConfig(
        community="acme", supernode_addr="192.0.2.7:7777", bind="127.0.0.1", encryption_passphrase="one passphrase"
    )

    async def main() -> None:
        async with EdgeDaemon(config, machine_id=bytes(16), plane_factory=FakePlane) as daemon:
            found = changed(daemon, heartbeat_interval=5.0, tap_mtu=1300, encryption_passphrase="another passphrase")
            assert found["heartbeat_interval"].applied
            assert daemon.core is not None
            assert daemon.core.settings.heartbeat == 5.0
            assert found["tap_mtu"].applied
            assert calls[-1] == ("n2n_tap0", {"mtu": 1300, "up": False})
            assert changed(daemon, tap_mtu=0)["tap_mtu"] == Change("tap_mtu", "1300", "auto", True, "")
            assert calls[-1] == ("n2n_tap0", {"mtu": 1420, "up": False})
            assert daemon.mtu == 1420
            assert changed(daemon, tap_mtu=1300)["tap_mtu"].applied
            assert not found["encryption_passphrase"].applied
            assert "passphrase" not in str(found["encryption_passphrase"][1:]), "neither secret is told"
            refused = changed(daemon, tap_mtu=9000)["tap_mtu"]
            assert refused == Change("tap_mtu", "1300", "9000", False, "cannot set mtu 9000: no")
            assert daemon.config.tap_mtu == 1300
            with pytest.raises(ConfigError, match="another kind of daemon"):
                reconfigure(daemon, SupernodeConfig())  # type: ignore[arg-type]

    run(main())


def test_the_documentation_lists_what_is_live() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "OPERATING.md").read_text()
    table = text.partition("| daemon | keys that change while it runs |")[2].partition("\n\n")[0]
    told = {line.split("|")[1].strip(): set(re.findall(r"`(\w+)`", line)) for line in table.splitlines()[2:]}
    edge = EdgeDaemon(EdgeConfig(community="acme", supernode_addr="192.0.2.7:7777"))
    both = {"log_level", "log_format", *(set(edge.live_keys()) & set(supernode().live_keys()))}
    assert told["both"] == both
    assert told["edge"] == set(edge.live_keys()) - both
    assert told["supernode"] == {"debug", *supernode().live_keys()} - both


def test_an_edge_beats_at_its_new_interval() -> None:
    driver = Driver()
    driver.register()
    driver.core.set_heartbeat(1.0, driver.now)
    before = driver.core.counters()["sent_heartbeat"]
    driver.run_for(10.5)
    assert driver.core.counters()["sent_heartbeat"] - before == 10


def test_a_supernode_looks_for_silent_edges_at_its_new_pace() -> None:
    rig = Rig()
    start = rig.now.mono
    assert rig.core.next_timer() == start + 300.0
    rig.core.set_cleanup(10.0, rig.now)
    assert rig.core.next_timer() == start + 10.0


class TestKick:
    def test_an_address_is_given_back_also_in_a_community_whose_name_is_shown_otherwise(self) -> None:
        name = "acme\u200b"  # what is invisible in it is not shown
        lease = LeaseRecord(name, MAC, IPv4Address("10.171.51.9"), bytes(32), "x", 1e12, 0.0)
        store = MemoryStore()
        store.save([SaveNetwork(name, IPv4Network("10.171.51.0/24")), SaveLease(lease)])

        async def main() -> None:
            async with supernode(store=store) as daemon:
                kick = supernode_methods(daemon, "supernode")["kick"]
                assert await kick({"community": "acme", "mac": str(MAC)}) == {"kicked": False}, "it is not registered"
                about = {"community": "acme", "mac": str(MAC), "release": True}
                assert await kick(about) == {"kicked": True}
                assert await kick(about) == {"kicked": False}
                await until(lambda: store.load_leases() == [])

        run(main())

    @pytest.mark.parametrize(
        "params",
        [{}, {"community": 3, "mac": str(MAC)}, {"community": "acme", "mac": "nonsense"},
         {"community": "acme", "mac": str(MAC), "release": "yes"}],
    )  # fmt: skip
    def test_nonsense_is_refused(self, params: dict[str, Any]) -> None:
        async def main() -> None:
            async with supernode() as daemon:
                with pytest.raises(ConfigError):
                    await supernode_methods(daemon, "supernode")["kick"](params)

        run(main())


class TestListeners:
    def test_the_last_events_come_first_and_are_bounded(self) -> None:
        listeners = Listeners()
        for number in range(RECENT + 9):
            listeners.tell({"n": number})
        seen: list[dict[str, object]] = []
        listeners.add(seen.append, recent=2)
        listeners.tell({"n": "new"})
        assert [event["n"] for event in seen] == [RECENT + 7, RECENT + 8, "new"]
        assert len(listeners.recent(10**9)) == RECENT
        assert listeners.recent(0) == []


@pytest.mark.parametrize(
    ("usec", "pid", "period"),
    [("20000000", None, 10.0), ("20000000", "1", None), ("0", None, None), ("soon", None, None), ("", None, None)],
)
def test_watchdog_period(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, period: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid if pid is not None else str(os.getpid()))
    assert watchdog_period() == period


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.fixture
def running(folder: Path) -> Iterator[tuple[Process, Path]]:
    path = folder / "sn.yaml"
    path.write_text(f"listen_address: 127.0.0.1:0\nstate_dir: {folder}/state\n")
    process = Process(folder, "supernode", "serve", "--config", str(path), WATCHDOG_USEC="200000")
    try:
        while "READY=1" not in process.told():
            pass
        yield process, path
    finally:
        process.close()


def told(process: Process, what: str) -> None:
    while what not in process.told():
        pass


def test_a_running_supernode(running: tuple[Process, Path], capsys: pytest.CaptureFixture[str]) -> None:
    process, path = running
    told(process, "WATCHDOG=1")
    told(process, "WATCHDOG=1")
    text = path.read_text()
    path.write_text(text + "expiry_duration: 90s\nenable_vfuze: false\ncommunity_subnet: 11.0.0.0\n")
    assert main(["supernode", "reload"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^expiry_duration +10m +1m30s +in force *$", captured.out, re.MULTILINE)
    assert re.search(r"^enable_vfuze +true +false +takes effect at the next start *$", captured.out, re.MULTILINE)
    assert "no private range" in captured.err
    told(process, "RELOADING=1\nMONOTONIC_USEC=")
    told(process, "READY=1")

    path.write_text(text + "expiry_duration: soon\n")
    assert main(["supernode", "reload"]) == 2
    assert f"{path}:3: expiry_duration" in capsys.readouterr().err
    path.write_text(text)
    process.popen.send_signal(signal.SIGHUP)
    with Client(process_socket(path)) as client:
        events = (line["event"] for line in client.events(recent=RECENT))
        assert [next(e for e in events if e["event"] == "reloaded")["fields"]["applied"] for _ in range(2)] == [
            "expiry_duration",
            "expiry_duration",
        ]
        path.write_text(text + "nonsense: 1\n")
        process.popen.send_signal(signal.SIGHUP)
        failed = next(e for e in events if e["event"] == "reload_failed")
        assert "nonsense" in failed["fields"]["error"]
    assert process.popen.poll() is None, "a mistake in a file ends nothing that runs"


def process_socket(path: Path) -> Path:
    return path.parent / "supernode.sock"


def test_logs_and_levels(running: tuple[Process, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "--no-follow", "--last", "1"]) == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info ready\n", capsys.readouterr().out)
    assert main(["logs", "--no-follow", "--json", "--last", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["starting", "data_plane", "ready"]
    assert set(lines[0]) == {"time", "level", "event", "fields", "missed"}
    assert main(["logs", "--no-follow", "--level", "warning"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["logs", "--set-level", "debug"]) == 0
    assert capsys.readouterr().out == "supernode logs from debug on\n"
    with Client(running[1].parent / "supernode.sock") as client:
        assert client.call("log_level") == {"level": "debug"}
    assert main(["logs", "--set-level", "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"level": "info"}
    assert main(["logs", "--set-level", "loud"]) == 2
    assert main(["logs", "--level", "loud"]) == 2
    assert main(["supernode", "communities"]) == 0
    assert "no community yet" in capsys.readouterr().out
    assert main(["supernode", "edges", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["communities"] == []
    assert main(["supernode", "kick", "nobody"]) == 1
    assert main(["supernode", "kick", "nobody", "--release"]) == 1
    assert main(["supernode", "edges", "--community", "none"]) == 1
    assert "there is no community 'none'" in capsys.readouterr().err
    assert main(["supernode", "down"]) == 0
    assert capsys.readouterr().out == "the supernode is down\n"
    assert running[0].popen.wait(20) == 0


def test_following_ends_with_the_daemon(running: tuple[Process, Path], capsys: pytest.CaptureFixture[str]) -> None:
    import threading
    import time

    def end() -> None:
        time.sleep(0.2)
        running[0].popen.send_signal(signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    assert main(["logs"]) == 0
    thread.join()
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].endswith(" info stopping")
    assert captured.err == "n2n: supernode has ended\n"
