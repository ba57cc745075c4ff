"""What is kept on disk: leases, networks and key of a supernode; the keys of supernodes that edges know.

Open the store first: it locks the directory, so that of two supernodes only one makes the key.

>>> import tempfile
>>> from pathlib import Path
>>> from n2n.store import SqliteStore
>>> with tempfile.TemporaryDirectory() as folder, SqliteStore(Path(folder) / LEASES_FILE) as store:
...     store.load_leases()
[]
"""

from typing import TYPE_CHECKING, Any, Final

from n2n.store.directory import DirectoryLock
from n2n.store.keyfile import load_key, load_or_make_key
from n2n.store.known_keys import KNOWN_KEYS_FILE, KnownKey, KnownKeys
from n2n.store.lease_store import LeaseStore, MemoryStore, StoreAction

if TYPE_CHECKING:
    from n2n.store.sqlite import SqliteStore

__all__ = [
    "KEY_FILE",
    "KNOWN_KEYS_FILE",
    "LEASES_FILE",
    "DirectoryLock",
    "KnownKey",
    "KnownKeys",
    "LeaseStore",
    "MemoryStore",
    "SqliteStore",
    "StoreAction",
    "load_key",
    "load_or_make_key",
]

#: Names of the files in a supernode's state directory.
LEASES_FILE: Final = "leases.sqlite"
KEY_FILE: Final = "supernode-key.pem"


def __getattr__(name: str) -> Any:
    """SQLite takes a megabyte, and edges, which come here for the keys that they know, have no use for it."""
    if name == "SqliteStore":
        from n2n.store.sqlite import SqliteStore

        return SqliteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
