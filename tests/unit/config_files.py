"""Configuration files for tests, and what comes of loading them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from n2n.config import EdgeConfig, Loaded, SupernodeConfig, load_edge, load_supernode
from n2n.errors import ConfigError

#: The keys that an edge must be given: two lines.
REQUIRED = "community: acme\nsupernode_addr: 192.0.2.1:7777\n"


def writer(folder: Path) -> Callable[..., Path]:
    """A function that writes a file and returns its path."""

    def write(text: str, name: str = "edge.yaml", mode: int = 0o600) -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    return write


def edge_loader(folder: Path) -> Callable[..., Loaded[EdgeConfig]]:
    """A function that loads an edge from the required keys and more lines, which begin in line 3 of edge.yaml."""

    def load(lines: str = "", env: dict[str, str] | None = None, **flags: object) -> Loaded[EdgeConfig]:
        return load_edge(writer(folder)(REQUIRED + lines), env or {}, flags)

    return load


def supernode_loader(folder: Path) -> Callable[..., Loaded[SupernodeConfig]]:
    """A function that loads a supernode from the lines of supernode.yaml."""

    def load(lines: str = "", env: dict[str, str] | None = None, **flags: object) -> Loaded[SupernodeConfig]:
        return load_supernode(writer(folder)(lines, "supernode.yaml"), env or {}, flags)

    return load


def refusal(load: Callable[..., Any], *arguments: object, **flags: object) -> str:
    """The message of the ConfigError that loading ends in."""
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **flags)
    return str(caught.value)
