"""What every store of leases promises, asked of both kinds; and what only the one on disk can get wrong."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from n2n.errors import StoreError
from n2n.proto.actions import DropLease, DropNetwork, LeaseRecord, Note, SaveLease, SaveNetwork
from n2n.store import LEASES_FILE, MemoryStore, SqliteStore
from n2n.store import sqlite as sqlite_module
from n2n.types import MacAddress


def mac(number: int) -> MacAddress:
    return MacAddress(b"\x02" + number.to_bytes(5, "big"))


def lease(number: int, community: str = "acme", *, ip: str | None = None, name: str = "box", at: float = 0.0):
    address = IPv4Address(ip) if ip else IPv4Address("10.171.51.0") + number
    return LeaseRecord(community, mac(number), address, bytes([number % 256]) * 32, name, at + 86400.0, at)


NETWORK = IPv4Network("10.171.51.0/24")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / LEASES_FILE


@pytest.fixture(params=["memory", "sqlite"])
def store(request, path):
    made = MemoryStore() if request.param == "memory" else SqliteStore(path)
    yield made
    made.close()


@pytest.fixture
def disk(path):
    with SqliteStore(path) as made:
        yield made


class TestEveryStore:
    def test_a_new_one_is_empty(self, store):
        assert store.load_leases() == []
        assert store.load_networks() == {}

    def test_what_was_saved_comes_back_equal(self, store):
        records = [lease(1, at=1700000000.125), lease(2, name="köln \U0001f680"), lease(1, "other")]
        store.save([SaveNetwork("acme", NETWORK), *map(SaveLease, records)])
        assert store.load_leases() == records
        assert store.load_networks() == {"acme": NETWORK}

    @pytest.mark.parametrize("name", ["", "a\0b", "\udcff\udc80", "köln", "\u202e", "x" * 1024, "O'Hara; --"])
    def test_any_name_of_a_community(self, store, name):
        store.save([SaveNetwork(name, NETWORK), SaveLease(lease(1, name, name=name))])
        assert store.load_leases() == [lease(1, name, name=name)]
        assert store.load_networks() == {name: NETWORK}
        store.save([DropLease(name, mac(1)), DropNetwork(name)])
        assert (store.load_leases(), store.load_networks()) == ([], {})

    def test_names_that_differ_in_bytes_are_different(self, store):
        store.save([SaveLease(lease(1, "é")), SaveLease(lease(1, "e\u0301")), SaveLease(lease(1, "É"))])
        assert len(store.load_leases()) == 3

    def test_saving_again_replaces_and_keeps_the_place(self, store):
        store.save([SaveLease(lease(1)), SaveLease(lease(2))])
        store.save([SaveLease(lease(1, ip="10.171.51.99", at=5.0))])
        assert store.load_leases() == [lease(1, ip="10.171.51.99", at=5.0), lease(2)]
        store.save([SaveNetwork("acme", NETWORK), SaveNetwork("acme", IPv4Network("10.0.0.0/30"))])
        assert store.load_networks() == {"acme": IPv4Network("10.0.0.0/30")}

    def test_dropping_what_is_not_there_is_fine(self, store):
        store.save([DropLease("acme", mac(9)), DropNetwork("acme")])
        assert store.load_leases() == []

    def test_actions_are_carried_out_in_order(self, store):
        store.save([SaveLease(lease(1)), DropLease("acme", mac(1)), SaveLease(lease(2, ip="10.171.51.1"))])
        assert store.load_leases() == [lease(2, ip="10.171.51.1")]

    def test_an_empty_batch_and_a_generator(self, store):
        store.save([])
        store.save(SaveLease(lease(number)) for number in (1, 2))
        assert len(store.load_leases()) == 2

    def test_two_edges_never_get_one_address(self, store):
        store.save([SaveLease(lease(1))])
        with pytest.raises(StoreError, match=r"10\.171\.51\.1 of community 'acme'"):
            store.save([SaveLease(lease(3)), SaveLease(lease(2, ip="10.171.51.1"))])
        assert store.load_leases() == [lease(1)]
        store.save([SaveLease(lease(1, "other"))])  # another community has addresses of its own

    def test_two_communities_never_get_one_network(self, store):
        store.save([SaveNetwork("acme", NETWORK)])
        with pytest.raises(StoreError, match="two communities"):
            store.save([SaveNetwork("other", NETWORK)])
        assert store.load_networks() == {"acme": NETWORK}

    def test_edges_and_communities_may_change_places_within_a_batch(self, store):
        second = IPv4Network("10.171.52.0/24")
        store.save([SaveLease(lease(1)), SaveLease(lease(2)), SaveNetwork("a", NETWORK), SaveNetwork("b", second)])
        store.save([SaveLease(lease(1, ip="10.171.51.2")), SaveLease(lease(2, ip="10.171.51.1"))])
        store.save([SaveNetwork("a", second), SaveNetwork("b", NETWORK)])
        assert [str(record.ip) for record in store.load_leases()] == ["10.171.51.2", "10.171.51.1"]
        assert store.load_networks() == {"a": second, "b": NETWORK}

    def test_another_action_is_a_mistake_and_saves_nothing(self, store):
        with pytest.raises(TypeError, match="Note"):
            store.save([SaveLease(lease(1)), Note("info", "x")])
        assert store.load_leases() == []

    def test_what_was_given_out_is_not_the_stores_own(self, store):
        store.save([SaveNetwork("acme", NETWORK), SaveLease(lease(1))])
        store.load_leases().clear()
        store.load_networks().clear()
        assert store.load_leases() == [lease(1)]
        assert store.load_networks() == {"acme": NETWORK}

    def test_a_closed_one_says_so(self, store):
        store.close()
        store.close()
        for use in (store.load_leases, store.load_networks, lambda: store.save([SaveLease(lease(1))])):
            with pytest.raises(StoreError, match="closed"):
                use()

    def test_threads_may_share_it(self, store):
        def work(first: int) -> None:
            for number in range(first, first + 20):
                store.save([SaveLease(lease(number))])

        threads = [threading.Thread(target=work, args=(first,)) for first in (1, 21, 41)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(store.load_leases(), key=lambda record: record.ip) == [lease(n) for n in range(1, 61)]

    def test_a_random_history_leaves_what_a_dictionary_would(self, store):
        chance, model = random.Random(5), {}
        for _ in range(60):
            batch = []
            for _ in range(chance.randrange(6)):
                number = chance.randrange(1, 12)
                if chance.random() < 0.6:
                    record = lease(number, at=chance.random())
                    batch.append(SaveLease(record))
                    model[number] = record
                else:
                    batch.append(DropLease("acme", mac(number)))
                    model.pop(number, None)
            store.save(batch)
            assert sorted(store.load_leases(), key=lambda r: r.mac) == [model[n] for n in sorted(model)]


def test_it_survives_closing_and_opening_again(path):
    with SqliteStore(path) as store:
        store.save([SaveNetwork("acme", NETWORK), SaveLease(lease(1)), SaveLease(lease(2))])
    with SqliteStore(path) as store:
        assert store.load_leases() == [lease(1), lease(2)]
        assert store.load_networks() == {"acme": NETWORK}


def test_files_are_private(disk, path):
    disk.save([SaveLease(lease(1))])
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert modes.keys() == {"lock", LEASES_FILE, f"{LEASES_FILE}-wal", f"{LEASES_FILE}-shm"}
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_durability_is_what_was_promised(disk):
    assert disk._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert disk._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_batch_is_one_transaction(disk):
    spoken = []
    disk._connection.set_trace_callback(spoken.append)
    disk.save([SaveLease(lease(number)) for number in range(1, 50)])
    assert [text for text in spoken if text in ("BEGIN IMMEDIATE", "COMMIT")] == ["BEGIN IMMEDIATE", "COMMIT"]


def test_a_second_supernode_is_told_which_process_is_there(disk, path):
    with pytest.raises(StoreError, match=rf"in use by another supernode \(process {os.getpid()}\)") as caught:
        SqliteStore(path)
    assert str(path.parent) in str(caught.value)
    assert "state_dir of its own" in str(caught.value)
    disk.save([SaveLease(lease(1))])  # the first one goes on
    disk.close()
    with SqliteStore(path) as second:
        assert second.load_leases() == [lease(1)]


def test_a_newer_file_is_left_alone(path):
    with SqliteStore(path):
        pass
    edit(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer n2n .*its format is 2.*knows 1"):
        SqliteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("script", ["CREATE TABLE songs (title)", "PRAGMA application_id = 7; PRAGMA user_version = 1"])
def test_a_file_of_another_program_is_left_alone(path, script):
    path.parent.mkdir()
    edit(path, script)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 20, b"SQLite format 3\0" + b"\xff" * 4080]
)
def test_a_damaged_file_says_what_to_do(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged .*Put back a copy, or move it away"):
        SqliteStore(path)
    assert path.read_bytes() == content
    with pytest.raises(StoreError, match="damaged"):  # and the lock was let go
        SqliteStore(path)


def test_a_damaged_page_inside_is_found_at_the_start(path):
    with SqliteStore(path) as store:
        store.save([SaveLease(lease(number, name="x" * 64)) for number in range(1, 200)])
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = os.urandom(len(content) - 4096 * 2)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        SqliteStore(path)


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE leases SET mac = 'x'",
        "UPDATE leases SET ip = '10.0.0.256'",
        "UPDATE leases SET owner = 5",
        "UPDATE leases SET community = 5",
        "UPDATE leases SET expiry = 'soon'",
        "UPDATE leases SET name = 'text'",
    ],
)
def test_a_row_that_makes_no_sense_is_damage(path, script):
    with SqliteStore(path) as store:
        store.save([SaveLease(lease(1))])
    edit(path, script)
    with SqliteStore(path) as store, pytest.raises(StoreError, match=r"damaged .a lease reads"):
        store.load_leases()


@pytest.mark.parametrize(
    "script", ["UPDATE networks SET network = '10.0.0.1/24'", "UPDATE networks SET community = 1.5"]
)
def test_a_network_that_makes_no_sense_is_damage(path, script):
    with SqliteStore(path) as store:
        store.save([SaveNetwork("acme", NETWORK)])
    edit(path, script)
    with SqliteStore(path) as store, pytest.raises(StoreError, match="damaged"):
        store.load_networks()


def test_a_full_disk_loses_nothing_and_ends_with_the_shortage(disk):
    disk.save([SaveLease(lease(1))])
    pages = disk._connection.execute("PRAGMA page_count").fetchone()[0]
    disk._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="Make room on the disk"):
        disk.save([SaveLease(lease(number, name="x" * 64)) for number in range(2, 200)])
    assert disk.load_leases() == [lease(1)]
    disk._connection.execute("PRAGMA max_page_count = 100000")
    disk.save([SaveLease(lease(2))])
    assert disk.load_leases() == [lease(1), lease(2)]


def test_a_locked_file_says_so(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "_BUSY_TIMEOUT", 0.01)
    with SqliteStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="Another program has locked it"):
            store.save([SaveLease(lease(1))])
        other.execute("ROLLBACK")
        other.close()
        store.save([SaveLease(lease(1))])
        assert store.load_leases() == [lease(1)]


def test_a_place_that_cannot_be_had(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the state directory"):
        SqliteStore(tmp_path / "file" / "state" / LEASES_FILE)
    (tmp_path / LEASES_FILE).mkdir()
    with pytest.raises(StoreError, match=r"cannot open .*is a directory"):
        SqliteStore(tmp_path / LEASES_FILE)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot use the state directory"):
        SqliteStore(tmp_path / "linked" / LEASES_FILE)


WRITER = """
import sys
from pathlib import Path
from ipaddress import IPv4Address
from n2n.proto.actions import LeaseRecord, SaveLease
from n2n.store import SqliteStore
from n2n.types import MacAddress

store = SqliteStore(Path(sys.argv[1]))
batch = int(sys.argv[2])
while True:
    records = [
        LeaseRecord("acme", MacAddress(n.to_bytes(6, "big")), IPv4Address(n), bytes(32), "", 0.0, 0.0)
        for n in range(batch * 3 + 1, batch * 3 + 4)
    ]
    store.save([SaveLease(record) for record in records])
    sys.stdout.write(f"{batch}\\n")
    sys.stdout.flush()
    batch += 1
"""


def test_nothing_committed_is_lost_when_the_writer_is_killed(path):
    told, chance = -1, random.Random(1)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(told + 1)], stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(chance.randrange(1, 40)):
                told = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split("\n")
            told = max([told, *(int(line) for line in rest[:-1])])
        with SqliteStore(path) as store:
            found = {int(record.ip) for record in store.load_leases()}
        # All that was told is there; of the batch after it, everything or nothing.
        committed = len(found) // 3
        assert found == set(range(1, committed * 3 + 1))
        assert committed - (told + 1) in (0, 1)
        told = committed - 1
    assert told > 5


def edit(path: Path, script: str) -> None:
    """Change the file behind the store's back."""
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    connection.close()
