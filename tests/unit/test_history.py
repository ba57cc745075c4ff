"""The path history: what is kept, how much, and that a bad file or disk costs nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from n2n.api.past import keep_history
from n2n.api.service import edge_methods, supernode_methods
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.daemon import history as daemon_history
from n2n.daemon.edge import EdgeDaemon
from n2n.daemon.history import History
from n2n.daemon.supernode import SupernodeDaemon
from n2n.errors import ConfigError, N2NError, StoreError
from n2n.store import history as module
from n2n.store.history import HistoryStore, PathChange
from tests.unit.web_fakes import mac_of


def change(number: int, *, peer: int = 1, path: str = "direct", name: str = "nas") -> PathChange:
    return PathChange(float(number), mac_of(peer), name, path, "answered", "192.0.2.1:5")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.sqlite"


def test_what_is_kept_is_found_the_newest_first(path: Path) -> None:
    store = HistoryStore(path)
    store.add([change(1), change(2, path="relay"), change(3, peer=2, name="phone")])
    store.close()
    again = HistoryStore(path)
    assert again.find() == [change(3, peer=2, name="phone"), change(2, path="relay"), change(1)]
    assert again.find(mac_of(1)) == again.find("nas") == [change(2, path="relay"), change(1)]
    assert again.find(since=2.5) == [change(3, peer=2, name="phone")]
    assert again.find(limit=1) == [change(3, peer=2, name="phone")]
    assert again.find("nobody") == []
    assert again.set_aside is None
    again.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_is_a_ring_for_each_peer_and_in_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PER_PEER", 5)
    monkeypatch.setattr(module, "MAX_ROWS", 12)
    store = HistoryStore(path)
    store.add([change(n, peer=9) for n in range(3)])
    store.add([change(n) for n in range(100)])  # one that flaps does not push out the others
    assert [c.at for c in store.find(mac_of(1))] == [99.0, 98.0, 97.0, 96.0, 95.0]
    assert len(store.find(mac_of(9))) == 3
    for peer in range(20, 40):
        store.add([change(peer, peer=peer)])
    assert len(store.find()) == 12
    store.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    store = HistoryStore(path)
    store.add([change(1)])
    assert store.find() == [change(1)]
    assert store.set_aside == path.with_name("history.sqlite.damaged")
    assert store.set_aside.read_bytes() == content
    store.close()


def test_a_file_of_another_program_or_version_is_set_aside(path: Path) -> None:
    for statement in ("CREATE TABLE other (x)", "PRAGMA user_version = 99"):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as other:
            other.execute(statement)
        other.close()
        store = HistoryStore(path)
        assert store.find() == []
        assert store.set_aside is not None
        store.close()


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(path: Path) -> None:
    store = HistoryStore(path)
    store.add([change(n, name="x" * 80) for n in range(900)])
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store._connection.execute("PRAGMA cache_size = 0")
    store.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 65536)
    again = HistoryStore(path)  # quick_check finds it
    assert again.set_aside is not None
    again.add([change(5)])
    assert again.find() == [change(5)]
    again.close()


def test_strange_texts_are_kept_as_they_can_be(path: Path) -> None:
    store = HistoryStore(path)
    store.add([PathChange(1.0, "m", "'; DROP TABLE changes; --\ud800\0" + "x" * 500, "direct", "", "")])
    (found,) = store.find()
    assert found.name.startswith("'; DROP TABLE changes; --?")
    assert len(found.name) == 80
    assert store.find("' OR 1=1 --") == []
    store.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=str(tmp_path / "file")):
        HistoryStore(tmp_path / "file" / "history.sqlite")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        HistoryStore(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 60)

    asyncio.run(bounded())


def edge(folder: Path | None) -> EdgeDaemon:
    config = EdgeConfig(community="acme", supernode_addr="192.0.2.1:7777", state_dir=folder)
    return EdgeDaemon(config, machine_id=bytes(16))


def tell(daemon: EdgeDaemon, event: str, **fields: object) -> None:
    daemon.tell("info", event, {"mac": mac_of(1), "name": "nas"} | fields)


def test_an_edge_writes_down_what_it_tells(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = edge(tmp_path)
        methods = edge_methods(daemon, "tap0")
        history = keep_history(daemon, "tap0", methods)
        assert history is not None
        tell(daemon, "path", path="direct", reason="answered", endpoint="192.0.2.1:5")
        tell(daemon, "stopping")
        tell(daemon, "peer_gone")
        found: Any = await methods["history"]({"peer": "nas"})
        assert [(c["path"], c["reason"], c["mac"]) for c in found["changes"]] == [
            ("gone", "", mac_of(1)),
            ("direct", "answered", mac_of(1)),
        ]
        assert found["changes"][1]["at"] <= found["at"]
        assert (await methods["history"]({"peer": mac_of(1).upper(), "limit": 1}))["changes"] == found["changes"][:1]  # type: ignore[index]
        for bad in ({"peer": 5}, {"since": "x"}, {"limit": None}, {"since": 10**400}, {"since": float("nan")}):
            with pytest.raises(ConfigError):
                await methods["history"](bad)
        counters: Any = await methods["counters"]({})
        assert counters["daemon_history_kept"] == 2
        await history.close()
        await history.close()
        assert (tmp_path / "history-tap0.sqlite").exists()

    run(main)


ODD: tuple[object, ...] = (
    *(10**400, -(10**400), float("nan"), float("inf"), -1, 0.5, True, None, [], {}, [[]]),
    *("", "\0", "\ud800", "x" * 9000, "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "%s{}", "../../etc"),
)
NAMES = ("peer", "since", "limit", "mac", "seconds", "level", "count", "fingerprint", "community", "release")


def test_no_parameter_of_the_control_socket_is_a_bug(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = edge(tmp_path)
        methods = edge_methods(daemon, "tap0")
        history = keep_history(daemon, "tap0", methods)
        assert history is not None
        del methods["down"]
        theirs = supernode_methods(SupernodeDaemon(SupernodeConfig()), "supernode")
        methods |= {f"supernode {name}": method for name, method in theirs.items() if name != "down"}
        refused = 0
        for method in methods.values():
            for odd in ODD:
                for params in ({name: odd} for name in NAMES):
                    full = {"mac": "02:00:00:00:00:01", "community": "acme", **params}
                    for given in (params, full):
                        try:
                            await method(given)
                        except (N2NError, TimeoutError):
                            refused += 1
        assert refused > 1000
        await history.close()

    run(main)


def test_what_comes_before_the_end_is_written(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = edge(tmp_path)
        history = History(daemon, tmp_path / "h.sqlite")
        tell(daemon, "path", path="relay", reason="silent")
        await history.close()
        tell(daemon, "path", path="direct", reason="answered")
        store = HistoryStore(tmp_path / "h.sqlite")
        assert [c.reason for c in store.find()] == ["silent"]
        store.close()

    run(main)


def test_a_flood_is_counted_and_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_history, "MAX_WAITING", 3)
    (tmp_path / "file").touch()

    async def main() -> None:
        daemon = edge(tmp_path)
        events: list[Any] = []
        daemon.listeners.add(events.append)
        history = History(daemon, tmp_path / "file" / "h.sqlite")
        for _ in range(5):
            tell(daemon, "path", path="relay", reason="silent")
        await history.flush()
        counts = history.counters()
        assert (counts["daemon_history_dropped"], counts["daemon_history_failures"]) == (2, 1)
        assert [e["fields"]["lost"] for e in events if e["event"] == "history_failed"] == [3]
        await history.close()

    run(main)


def test_where_nothing_is_kept_nothing_is_answered() -> None:
    async def main() -> None:
        daemon = edge(None)
        methods = edge_methods(daemon, "tap0")
        assert keep_history(daemon, "tap0", methods) is None
        assert "history" not in methods

    run(main)
