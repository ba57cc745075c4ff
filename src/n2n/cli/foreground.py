"""The two commands that stay: ``n2n edge up`` and ``n2n supernode serve``.

A daemon keeps what it has loaded for months.  So an ordinary command line of these two is read here, without
typer (and what typer loads: 12 MB and a tenth of a second); whatever is not plain, ``--help`` and mistakes
above all, is left to typer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["plain", "read_flags", "run_edge", "run_supernode"]

_VERBOSE: Final = ("-v", "--verbose")
#: Keys that only the loader knows: a flag of their own, but no field of the configuration.
_LOADER_KEYS: Final = {"edge": {"encryption_passphrase_file"}, "supernode": set()}


def run_edge(path: Path | None, flags: Mapping[str, Any], flag_names: Mapping[str, str] | None = None) -> None:
    """Be an edge until told to stop.

    Args:
        path: of the YAML file, if there is one.
        flags: keys given on the command line; None stands for "not given".
        flag_names: by key, how a flag is spelled, where that is not ``--key-with-dashes``.

    Raises:
        N2NError: it cannot start, or died.
    """
    from n2n.api.service import serve_edge
    from n2n.config import load_edge

    _run(lambda: load_edge(path, None, flags, flag_names=flag_names), serve_edge)


def run_supernode(path: Path | None, flags: Mapping[str, Any], flag_names: Mapping[str, str] | None = None) -> None:
    """Be a supernode until told to stop; arguments and errors as `run_edge`."""
    from n2n.api.service import serve_supernode
    from n2n.config import load_supernode

    _run(lambda: load_supernode(path, None, flags, flag_names=flag_names), serve_supernode)


def _run(load: Callable[[], Any], serve: Callable[[Any, Callable[[], Any]], Any]) -> None:
    from n2n.cli.exits import tell_warning
    from n2n.daemon.logs import setup_logging
    from n2n.daemon.runtime import run

    loaded = load()
    for warning in loaded.warnings:
        tell_warning(warning)
    setup_logging(loaded.config.log_format, loaded.config.log_level)
    run(serve(loaded.config, load))


def plain(words: Sequence[str]) -> Callable[[], None] | None:
    """What to call for a plain command line of a daemon; None: let typer read it."""
    if tuple(words[:2]) == ("edge", "up"):
        role, run = "edge", run_edge
    elif tuple(words[:2]) == ("supernode", "serve"):
        role, run = "supernode", run_supernode
    else:
        return None
    flags = read_flags(role, words[2:])
    if flags is None:
        return None
    path = flags.pop("config", None)
    return lambda: run(None if path is None else Path(path), flags)


def read_flags(role: str, words: Sequence[str]) -> dict[str, Any] | None:
    """The flags of a daemon's command line by key; None where it is not plain (a word that is no such flag)."""
    from n2n.config.model import EdgeConfig, SupernodeConfig, kinds_of

    keys = kinds_of(EdgeConfig if role == "edge" else SupernodeConfig)
    rest = list(words)
    switches = {name for name, (kind, _) in keys.items() if kind.types is bool}
    texts = {*keys, *_LOADER_KEYS[role], "config"} - switches
    flags: dict[str, Any] = {}
    verbose = False
    while rest:
        word = rest.pop(0)
        if word in _VERBOSE:
            verbose = True
            continue
        if not word.startswith("--"):
            return None
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in switches and not equals:
            flags[name] = True
        elif name.startswith("no_") and name[3:] in switches and not equals:
            flags[name[3:]] = False
        elif name in texts and equals:
            flags[name] = value
        elif name in texts and rest and (rest[0] == "-" or not rest[0].startswith("-")):
            flags[name] = rest.pop(0)
        else:
            return None
    if verbose:
        flags.setdefault("log_level", "debug")
    return flags
