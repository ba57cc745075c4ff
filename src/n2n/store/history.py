"""What became of the paths to each peer, in a bounded SQLite file: nothing that a network depends on.

The oldest changes are dropped beyond a number of rows for each peer and in all, so that neither a peer that flaps nor
many of them push out the rest or fill the disk.  A damaged file is set aside and a new one begun.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from n2n.errors import StoreError
from n2n.store.directory import cause, make_private_directory

__all__ = ["MAX_PER_PEER", "MAX_ROWS", "HistoryStore", "PathChange"]

#: Rows that are kept: about 2 MB in all.
MAX_ROWS: Final = 20_000
MAX_PER_PEER: Final = 1_000
#: Characters of a text that are kept.
_TEXT: Final = 80
#: PRAGMA user_version of the files that this version writes; a file of another version is set aside.
_VERSION: Final = 1
#: Seconds to wait for somebody who reads the file with another tool.
_BUSY_TIMEOUT: Final = 2.0
#: KiB of pages that SQLite keeps in memory (its default is 2000).
_CACHE: Final = 128

_SCHEMA: Final = """
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    mac TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    reason TEXT NOT NULL,
    endpoint TEXT NOT NULL
);
CREATE INDEX changes_by_peer ON changes (mac, id);
"""
_ADD: Final = "INSERT INTO changes (at, mac, name, path, reason, endpoint) VALUES (?, ?, ?, ?, ?, ?)"
_TRIM_PEER: Final = """
DELETE FROM changes WHERE mac = ?1 AND id <= (SELECT id FROM changes WHERE mac = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
"""
_TRIM: Final = "DELETE FROM changes WHERE id <= (SELECT id FROM changes ORDER BY id DESC LIMIT 1 OFFSET ?)"
_FIND: Final = """
SELECT at, mac, name, path, reason, endpoint FROM changes
WHERE at >= ?1 AND (?2 = '' OR mac = ?2 OR name = ?2) ORDER BY id DESC LIMIT ?3
"""


@dataclass(frozen=True, slots=True)
class PathChange:
    """One change.

    Args:
        at: Unix seconds.
        mac: of the peer.
        name: what it called itself.
        path: direct, relay, or gone: it left the community.
        reason: why, as in `peers`; empty where it is gone.
        endpoint: where it was, or "".
    """

    at: float
    mac: str
    name: str
    path: str
    reason: str
    endpoint: str


class HistoryStore:
    """A history in one file; for one thread at a time.

    Args:
        path: the file, made if it does not exist, and its directory too.

    Raises:
        StoreError: it cannot be read or written; a damaged one is set aside instead (see `set_aside`).
    """

    def __init__(self, path: Path) -> None:
        self.set_aside: Path | None = None
        """Where a damaged file was moved to; None: none was."""
        self._path = path
        make_private_directory(path.parent)
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise StoreError(f"cannot open {path}: {error}. See ls -l {path} and df {path.parent}") from error
            self._connection = self._anew()

    def add(self, changes: Iterable[PathChange]) -> None:
        """Keep these.

        Raises:
            StoreError: they could not be written.
        """
        rows = [_row(change) for change in changes]
        self._guarded("write to", lambda: self._write(rows))

    def find(self, peer: str = "", since: float = 0.0, limit: int = 100) -> list[PathChange]:
        """Changes, the newest first.

        Args:
            peer: MAC address or name; empty: of all.
            since: Unix seconds.
            limit: at most so many.

        Raises:
            StoreError: they could not be read.
        """
        found: list[PathChange] = []

        def read() -> None:
            rows = self._connection.execute(_FIND, (since, _text(peer), limit)).fetchall()
            found[:] = [PathChange(float(row[0]), *map(str, row[1:])) for row in rows]

        self._guarded("read", read)
        return found

    def close(self) -> None:
        """Close the file. May be called more than once."""
        self._connection.close()

    def _guarded(self, what: str, work: object) -> None:
        assert callable(work)
        try:
            work()
        except (sqlite3.Error, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.Error) and not _damaged(error):
                raise StoreError(f"cannot {what} {self._path}: {error}. See df {self._path.parent}") from error
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = self._anew()
            try:
                work()
            except sqlite3.Error as again:
                raise StoreError(f"cannot {what} {self._path}: {again}") from again

    def _write(self, rows: list[tuple[float | str, ...]]) -> None:
        connection = self._connection
        with connection:  # one transaction
            connection.executemany(_ADD, rows)
            for mac in {row[1] for row in rows}:
                connection.execute(_TRIM_PEER, (mac, MAX_PER_PEER))
            connection.execute(_TRIM, (MAX_ROWS,))

    def _open(self) -> sqlite3.Connection:
        try:
            # SQLite would make it with the umask's mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise StoreError(f"cannot open {self._path}: {cause(error)}. See ls -l {self._path}") from error
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, check_same_thread=False)
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok" or (
                (version, bool(tables)) not in ((0, False), (_VERSION, True))
            ):
                raise sqlite3.DatabaseError(_NOT_OURS)
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            # The last changes before a power cut may be lost; the file stays whole.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if not tables:
                connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    def _anew(self) -> sqlite3.Connection:
        """Move the damaged file out of the way, over an older one of the kind, and begin a new one."""
        aside = self._path.with_name(f"{self._path.name}.damaged")
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(f"{self._path.name}{suffix}").unlink(missing_ok=True)
            self.set_aside = aside
            return self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path} is damaged, and cannot be set aside as {aside}: {error}") from error


_NOT_OURS: Final = "not a history of this version"


def _damaged(error: sqlite3.Error) -> bool:
    # The low byte is the primary result code (sqlite.org/rescode.html).
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or str(error) == _NOT_OURS


def _row(change: PathChange) -> tuple[float | str, ...]:
    texts = (change.mac, change.name, change.path, change.reason, change.endpoint)
    return (change.at, *map(_text, texts))


def _text(text: str) -> str:
    return text[:_TEXT].encode("utf-8", "replace").decode()
