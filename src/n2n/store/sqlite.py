"""Leases and networks in an SQLite file.

The journal is a write-ahead log and every batch is one transaction with synchronous=FULL: one flush of the disk per
batch, whatever its size.  Community names are stored as the bytes they have on the wire, because a `str` here may hold
surrogate escapes, which SQLite does not take.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, Self

from n2n.errors import ProtocolError, StoreError
from n2n.proto.actions import DropLease, DropNetwork, LeaseRecord, SaveLease, SaveNetwork
from n2n.store.directory import DirectoryLock, cause
from n2n.store.lease_store import StoreAction, address_given_twice, network_given_twice, not_to_be_stored
from n2n.types import MacAddress
from n2n.wire.hashes import name_bytes, name_of

__all__ = ["SCHEMA_VERSION", "SqliteStore"]

#: PRAGMA user_version of the files that this version writes.
SCHEMA_VERSION: Final = 1
#: PRAGMA application_id: tells our files from other programs' ("n2n" and a zero byte).
_APPLICATION_ID: Final = 0x6E326E00
#: Seconds to wait for somebody who reads the file with another tool.
_BUSY_TIMEOUT: Final = 5.0

# Ordinary rowid tables: a row keeps its place when it is changed, so that leases come back oldest first.  Not STRICT:
# that needs SQLite 3.37, and some systems still in use have an older one; values are checked when they are read.
_SCHEMA: Final = """
CREATE TABLE leases (
    community BLOB NOT NULL,
    mac TEXT NOT NULL,
    ip TEXT NOT NULL,
    owner BLOB NOT NULL,
    name BLOB NOT NULL,
    expiry REAL NOT NULL,
    last_renew REAL NOT NULL,
    PRIMARY KEY (community, mac)
);
CREATE INDEX leases_by_address ON leases (community, ip);
CREATE TABLE networks (
    community BLOB NOT NULL PRIMARY KEY,
    network TEXT NOT NULL
);
"""

_SAVE_LEASE: Final = """
INSERT INTO leases (community, mac, ip, owner, name, expiry, last_renew) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (community, mac) DO UPDATE SET ip = excluded.ip, owner = excluded.owner, name = excluded.name,
    expiry = excluded.expiry, last_renew = excluded.last_renew
"""
_DROP_LEASE: Final = "DELETE FROM leases WHERE community = ? AND mac = ?"
_SAVE_NETWORK: Final = """
INSERT INTO networks (community, network) VALUES (?, ?)
ON CONFLICT (community) DO UPDATE SET network = excluded.network
"""
_DROP_NETWORK: Final = "DELETE FROM networks WHERE community = ?"
_HOLDERS: Final = "SELECT count(*) FROM leases WHERE community = ? AND ip = ?"
_SHARED_NETWORK: Final = "SELECT network FROM networks GROUP BY network HAVING count(*) > 1 LIMIT 1"


class SqliteStore:
    """A `LeaseStore` in one file.  Calls from several threads are served one after the other.

    Args:
        path: the file, made if it does not exist; its directory is locked against other supernodes while the store is
            open, and made too.

    Raises:
        StoreError: the directory is in use, the file is damaged, of a newer version, or of another program, or it
            cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._directory = DirectoryLock(path.parent)
        try:
            self._connection = self._open()
        except BaseException:
            self._directory.release()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def load_leases(self) -> list[LeaseRecord]:
        """See `LeaseStore.load_leases`."""
        with self._use("read leases from") as connection:
            rows = connection.execute(
                "SELECT community, mac, ip, owner, name, expiry, last_renew FROM leases ORDER BY rowid"
            ).fetchall()
            return [self._record(row) for row in rows]

    def load_networks(self) -> dict[str, IPv4Network]:
        """See `LeaseStore.load_networks`."""
        with self._use("read networks from") as connection:
            rows = connection.execute("SELECT community, network FROM networks ORDER BY rowid").fetchall()
            return dict(self._network(*row) for row in rows)

    def save(self, batch: Iterable[StoreAction]) -> None:
        """See `LeaseStore.save`."""
        statements, addresses, networks = _statements(batch)
        if not statements:
            return
        with self._use("write to") as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    connection.execute(statement, values)
                _check_unique(connection, addresses, networks)
                connection.execute("COMMIT")
            except BaseException:
                # After some errors (a full disk) SQLite has rolled back already, and says so by an error.
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """See `LeaseStore.close`."""
        with self._mutex:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):  # what was committed is safe in the log as well
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.close()
                self._directory.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        with self._explained("open"):
            # SQLite would make it with the umask's mode; the -wal and -shm files copy the mode of this one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained("open"):
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = _pragma(connection, "user_version")
        application = _pragma(connection, "application_id")
        if application not in (0, _APPLICATION_ID) or (version == 0 and _pragma(connection, "schema_version")):
            raise StoreError(f"{self._path} is an SQLite file of another program: choose another state_dir")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer n2n (its format is {version}, this version knows "
                f"{SCHEMA_VERSION}): install the newer version, or choose another state_dir"
            )
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise StoreError(self._damaged(str(found)))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if version == 0:
            # One transaction, the version last: a crash in here leaves an empty file, and this runs again.
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    @contextlib.contextmanager
    def _use(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._explained(what):
            if self._connection is None:
                raise StoreError(f"the lease store {self._path} is closed")
            yield self._connection

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._why(what, error)) from error
        except OSError as error:
            remedy = f"See ls -l {self._path}, or choose another state_dir"
            raise StoreError(f"cannot {what} {self._path}: {cause(error)}. {remedy}") from error

    def _why(self, what: str, error: sqlite3.Error) -> str:
        # The low byte is the primary result code, the others say more of where it arose (sqlite.org/rescode.html).
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        said = f"cannot {what} {self._path}: {error}. "
        match code:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return f"{said}Another program has locked it (sqlite3, a backup?): end that one, then start again"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return self._damaged(str(error))
            case sqlite3.SQLITE_FULL:
                return f"{said}Make room on the disk (df {self._path.parent}); nothing that was saved before is lost"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
                return f"{said}The supernode must own it and its directory: see ls -la {self._path.parent}"
            case sqlite3.SQLITE_IOERR:
                return f"{said}The disk failed or is full: see dmesg and df {self._path.parent}"
            case _:
                return (
                    f"{said}See the log, and whether the file is intact: sqlite3 {self._path} 'PRAGMA integrity_check'"
                )

    def _damaged(self, how: str) -> str:
        return (
            f"{self._path} is damaged ({how}). Put back a copy, or move it away with its -wal and -shm files: "
            "the supernode then begins with no leases, and edges may get other addresses"
        )

    def _record(self, row: tuple[bytes, str, str, bytes, bytes, float, float]) -> LeaseRecord:
        community, mac, ip, owner, name, expiry, last_renew = row
        try:
            return LeaseRecord(
                name_of(community),
                MacAddress.parse(mac),
                IPv4Address(ip),
                bytes(memoryview(owner)),  # refuses what is not bytes
                name_of(name),
                float(expiry),
                float(last_renew),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(self._damaged(f"a lease reads {row}: {error}")) from error

    def _network(self, community: bytes, network: str) -> tuple[str, IPv4Network]:
        try:
            return name_of(community), IPv4Network(network)
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(self._damaged(f"a network reads {network!r}: {error}")) from error


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _statements(
    batch: Iterable[StoreAction],
) -> tuple[list[tuple[str, tuple[Any, ...]]], dict[tuple[bytes, str], LeaseRecord], bool]:
    """SQL for a batch, the addresses that it gives out, and whether it gives out networks."""
    statements: list[tuple[str, tuple[Any, ...]]] = []
    addresses: dict[tuple[bytes, str], LeaseRecord] = {}
    networks = False
    for action in batch:
        match action:
            case SaveLease(record):
                community, ip = _bytes(record.community), str(record.ip)
                addresses[community, ip] = record
                values = (community, str(record.mac), ip, record.owner, _bytes(record.name))
                statements.append((_SAVE_LEASE, (*values, float(record.expiry), float(record.last_renew))))
            case DropLease(community=name, mac=mac):
                statements.append((_DROP_LEASE, (_bytes(name), str(mac))))
            case SaveNetwork(community=name, network=network):
                networks = True
                statements.append((_SAVE_NETWORK, (_bytes(name), str(network))))
            case DropNetwork(community=name):
                statements.append((_DROP_NETWORK, (_bytes(name),)))
            case _:
                raise not_to_be_stored(action)
    return statements, addresses, networks


def _check_unique(
    connection: sqlite3.Connection, addresses: dict[tuple[bytes, str], LeaseRecord], networks: bool
) -> None:
    # At the end of the batch, not by a UNIQUE constraint: in between, two edges may have changed places.
    for key, record in addresses.items():
        if connection.execute(_HOLDERS, key).fetchone()[0] > 1:
            raise address_given_twice(record.community, record.ip)
    if networks and (shared := connection.execute(_SHARED_NETWORK).fetchone()):
        raise network_given_twice(IPv4Network(shared[0]))


def _bytes(name: str) -> bytes:
    try:
        return name_bytes(name)
    except ProtocolError as error:
        raise StoreError(f"cannot store the name {name!r}: {error}") from error
