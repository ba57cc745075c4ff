"""n2n: a layer-2 peer-to-peer VPN.

An **edge** owns a TAP device and carries its Ethernet frames to the other edges of a **community**, directly where that
works and through a **supernode** where it does not.

>>> import n2n
>>> issubclass(n2n.NotReady, n2n.N2NError)
True

In a program: :class:`n2n.Edge` and :class:`n2n.Supernode` run daemons; :mod:`n2n.wire` speaks the protocol,
:mod:`n2n.crypto` and :mod:`n2n.identity` do its cryptography and identities; :mod:`n2n.net` opens TAP devices;
:mod:`n2n.buffers` pools buffers; :mod:`n2n.bench` measures.
Importing ``n2n`` loads none of them: each is loaded where it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from n2n import bench, buffers, config, crypto, identity, net, store, wire
    from n2n.api.faces import Edge, Supernode
    from n2n.errors import ConfigError, N2NError, NotReady

    __version__: str

__all__ = [
    "ConfigError",
    "Edge",
    "N2NError",
    "NotReady",
    "Supernode",
    "__version__",
    "bench",
    "buffers",
    "config",
    "crypto",
    "identity",
    "net",
    "store",
    "wire",
]

_NAMES: Final = {
    "ConfigError": "n2n.errors",
    "Edge": "n2n.api.faces",
    "N2NError": "n2n.errors",
    "NotReady": "n2n.errors",
    "Supernode": "n2n.api.faces",
}
_MODULES: Final = frozenset({"bench", "buffers", "config", "crypto", "identity", "net", "store", "wire"})


def __getattr__(name: str) -> Any:
    """Load what is asked for, once."""
    if name == "__version__":
        value: Any = _version()
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        return importlib.import_module(f"n2n.{name}")
    else:
        raise AttributeError(f"module 'n2n' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("n2n")
    except PackageNotFoundError:  # run from a source tree
        return "0+unknown"
