"""pyroute2 without what it brings along.

``import pyroute2`` loads all of its parts, databases and file servers among them: 11 MB, in every edge.  This program
needs a few of them.  So the package is put in place unexecuted: a part is loaded when it is asked for, all of it when
somebody asks for a name that only the whole has (another user of pyroute2 in the same program notices nothing).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any, Final

__all__ = ["put_pyroute2"]

_NAME: Final = "pyroute2"
_lock: Final = threading.RLock()


def put_pyroute2() -> None:
    """Make parts of pyroute2 importable by themselves; nothing where it is loaded already.

    Raises ImportError where it is not installed.
    """
    with _lock:
        if _NAME in sys.modules:
            return
        spec = importlib.util.find_spec(_NAME)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
        package, loader = importlib.util.module_from_spec(spec), spec.loader

        def missing(name: str) -> Any:
            return _part_or_all(package, loader, name)

        package.__getattr__ = missing  # type: ignore[method-assign]
        sys.modules[_NAME] = package


def _part_or_all(package: ModuleType, loader: Any, name: str) -> Any:
    """A name that the package does not have yet: one of its modules, or else it is executed now."""
    if name.startswith("__"):
        raise AttributeError(name)
    if importlib.util.find_spec(f"{_NAME}.{name}") is not None:
        return importlib.import_module(f"{_NAME}.{name}")
    with _lock:
        if package.__dict__.pop("__getattr__", None) is not None:
            loader.exec_module(package)
    return getattr(package, name)
