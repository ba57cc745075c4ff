"""Puts a configuration together: flag > environment variable ``N2N_<KEY>`` > YAML file > default.

Every value knows where it came from, and all that is wrong is reported at once.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from n2n.config import kinds
from n2n.config.kinds import BadValueError, Kind
from n2n.config.model import (
    EdgeConfig,
    SupernodeConfig,
    default_edge_state_dir,
    default_run_dir,
    default_state_dir,
    kinds_of,
)
from n2n.config.mtu import AUTO_MTU
from n2n.config.yamlfile import Unreadable, YamlFile, read_yaml
from n2n.errors import ConfigError
from n2n.wire.hashes import clean_name

__all__ = ["DEFAULT", "PASSPHRASE_FILE", "Loaded", "Shown", "load_edge", "load_supernode", "show"]

C = TypeVar("C", EdgeConfig, SupernodeConfig)

#: Origin of a value that nobody gave.
DEFAULT: Final = "default"
#: The key of an edge that names a file with the passphrase; it becomes `encryption_passphrase`.
PASSPHRASE_FILE: Final = "encryption_passphrase_file"  # noqa: S105
_PASSPHRASE: Final = "encryption_passphrase"  # noqa: S105
#: In place of that file, as a flag or in the environment (in a file it is a file's name): the passphrase is asked for.
_ASK: Final = Path("-")
_TOKEN: Final = "api_token"  # noqa: S105
_LONGEST_PASSPHRASE: Final = 4096

#: Variables of this name space that are no configuration keys: they concern the build, the lab and the scripts.
_OTHER_VARIABLE: Final = re.compile(r"N2N_(OPENSSL_PREFIX|CFLAGS|LDFLAGS|ABI3|VENV|LAB(_.*)?)")
#: Kubernetes sets such variables in every container beside a service whose name begins with "n2n".
_FOREIGN_VARIABLE: Final = re.compile(
    r"N2N_(.*_)?(SERVICE_(HOST|PORT(_.*)?)=.*|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?=.*|=(tcp|udp|sctp)://.*))"
)


class Loaded(NamedTuple, Generic[C]):
    """A configuration and where each value came from."""

    config: C
    origins: Mapping[str, str]
    """By key: ``flag --tap-name``, ``environment N2N_TAP_NAME``, ``edge.yaml:12`` or ``default``."""
    warnings: tuple[str, ...]
    """What works but should be known."""


class Shown(NamedTuple):
    """One line of ``n2n config show``."""

    key: str
    value: str
    """As it would be written in a file; secrets are masked."""
    origin: str


class _Rank(IntEnum):
    FILE = 1
    ENVIRONMENT = 2
    FLAG = 3


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    origin: str
    rank: _Rank


@dataclass(frozen=True, slots=True)
class _Source:
    rank: _Rank
    origin: str
    """As a user is told where a value comes from."""
    where: str
    """As an error begins."""
    base: Path | None = None
    """What relative paths start from; None: the working directory."""


@dataclass(slots=True)
class _Collection(Generic[C]):
    """What was found so far."""

    config: type[C]
    keys: dict[str, Kind]
    others: frozenset[str]
    """Keys that only the other role has."""
    given: dict[str, _Given] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load_edge(
    path: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    flag_names: Mapping[str, str] | None = None,
) -> Loaded[EdgeConfig]:
    """Load an edge's configuration.

    Args:
        path: of a YAML file; None: there is none.
        env: the environment; None: this process's.
        flags: by key; texts are read as environment variables are, None means "not given".
        flag_names: by key, how a flag is spelled, where that is not ``--key-with-dashes``.

    Raises:
        ConfigError: one line for each thing that is wrong, with its place.

    >>> loaded = load_edge(env={"N2N_COMMUNITY": "acme"}, flags={"supernode_addr": "192.0.2.1:7777"})
    >>> loaded.config.community, loaded.origins["community"], loaded.origins["supernode_addr"]
    ('acme', 'environment N2N_COMMUNITY', 'flag --supernode-addr')
    """
    found = _Collection(EdgeConfig, _keys(EdgeConfig, PASSPHRASE_FILE), frozenset(kinds_of(SupernodeConfig)))
    file = _collect(found, path, env, flags or {}, flag_names or {})
    _settle_passphrase(found, file)
    return _finish(found, file, env)


def load_supernode(
    path: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    flag_names: Mapping[str, str] | None = None,
) -> Loaded[SupernodeConfig]:
    """Load a supernode's configuration; see `load_edge`.

    >>> load_supernode(env={"N2N_EXPIRY_DURATION": "1m30s"}).config.expiry_duration
    90.0
    """
    found = _Collection(SupernodeConfig, _keys(SupernodeConfig), frozenset({*kinds_of(EdgeConfig), PASSPHRASE_FILE}))
    file = _collect(found, path, env, flags or {}, flag_names or {})
    _settle_debug(found)
    return _finish(found, file, env)


def show(loaded: Loaded[C]) -> list[Shown]:
    """Every effective value with its origin, in a fixed order; secrets are masked.

    >>> show(load_supernode(env={"N2N_LISTEN_ADDRESS": ":9999"}))[0]
    Shown(key='listen_address', value=':9999', origin='environment N2N_LISTEN_ADDRESS')
    """
    return [
        Shown(key, kind.show(getattr(loaded.config, key)), loaded.origins[key])
        for key, (kind, _) in kinds_of(type(loaded.config)).items()
    ]


def _keys(config: type[EdgeConfig] | type[SupernodeConfig], *paths: str) -> dict[str, Kind]:
    return {key: kind for key, (kind, _) in kinds_of(config).items()} | dict.fromkeys(paths, kinds.PATH)


def _collect(
    found: _Collection[C],
    path: Path | str | None,
    env: Mapping[str, str] | None,
    flags: Mapping[str, object],
    flag_names: Mapping[str, str],
) -> YamlFile | None:
    """Take the values of every source, the weakest first."""
    file = read_yaml(Path(path)) if path is not None else None
    if file is not None:
        found.problems += file.problems
        for key, entry in file.entries.items():
            where = f"{file.path}:{entry.line}"
            _take(found, key, entry.value, _Source(_Rank.FILE, where, f"{where}: {key}", file.path.parent))
    for variable, text in _variables(os.environ if env is None else env, found):
        source = _Source(_Rank.ENVIRONMENT, f"environment {variable}", f"environment variable {variable}")
        _take(found, _key_of(variable), text, source)
    for key, value in flags.items():
        if value is not None:
            flag = f"flag {flag_names.get(key, '--' + key.replace('_', '-'))}"
            _take(found, key, value, _Source(_Rank.FLAG, flag, flag))
            if key == _PASSPHRASE:
                found.warnings.append(
                    f"{flag}: every user of this host can read a passphrase on a command line (ps); "
                    f"use {PASSPHRASE_FILE}, or the environment variable N2N_ENCRYPTION_PASSPHRASE"
                )
            elif key in found.keys and found.keys[key].secret:
                found.warnings.append(
                    f"{flag}: every user of this host can read it on a command line (ps); "
                    f"use the environment variable N2N_{key.upper()}, or a file"
                )
    return file


def _key_of(variable: str) -> str:
    return variable.removeprefix("N2N_").lower()


def _variables(env: Mapping[str, str], found: _Collection[C]) -> Iterator[tuple[str, str]]:
    """The variables that concern this role.  Those of the other role may stand beside them, in one environment file."""
    for variable, text in sorted(env.items()):
        if not variable.startswith("N2N_") or _OTHER_VARIABLE.fullmatch(variable):
            continue
        key = _key_of(variable)
        if key in found.keys or not (key in found.others or _FOREIGN_VARIABLE.fullmatch(f"{variable}={text}")):
            yield variable, text


def _take(found: _Collection[C], key: str, raw: object, source: _Source) -> None:
    kind = found.keys.get(key)
    if kind is None:
        found.problems.append(f"{source.where}: {_unknown(key, found)}")
        return
    try:
        if raw is None:
            raise BadValueError("it has no value. Leave the key out, or put text that begins with # or & in quotes")
        if isinstance(raw, Unreadable):
            raise BadValueError(raw.why)
        raw = str(raw) if isinstance(raw, Path) else raw
        value = kind.read(raw, text=source.rank is not _Rank.FILE)
    except ValueError as error:
        found.failed.add(key)
        found.problems.append(f"{source.where}: {error}")
        return
    if isinstance(value, Path) and source.base is not None:
        value = source.base / value
    found.given[key] = _Given(value, source.origin, source.rank)


def _unknown(key: str, found: _Collection[C]) -> str:
    if key in found.others:
        role = "a supernode" if found.config is EdgeConfig else "an edge"
        return f"this is a key of {role}; leave it out here"
    close = difflib.get_close_matches(key.lower().replace("-", "_"), found.keys, n=1)
    return f"there is no such key. Did you mean {close[0]}?" if close else "there is no such key; leave it out"


def _settle_passphrase(found: _Collection[EdgeConfig], file: YamlFile | None) -> None:
    """Let the stronger of passphrase and passphrase file count, and read the file."""
    written = found.given.get(_PASSPHRASE)
    for key, what in ((_PASSPHRASE, "a passphrase"), (_TOKEN, "a token")):
        held = found.given.get(key)
        if held is not None and held.value and held.rank is _Rank.FILE and file is not None and file.mode & 0o044:
            found.warnings.append(f"{file.path} holds {what} and others can read it: chmod 600 {file.path}")
    by_file = found.given.pop(PASSPHRASE_FILE, None)
    if by_file is None or (written is not None and written.rank > by_file.rank):
        return
    if written is not None and written.rank == by_file.rank and written.value:
        found.failed.add(_PASSPHRASE)
        found.problems.append(f"{written.origin} and {by_file.origin}: both give the passphrase; leave one out")
        return
    asks = by_file.value == _ASK
    try:
        text, mode = (_asked_passphrase(), 0) if asks else _passphrase_in(by_file.value)
    except OSError as error:
        cause = os.strerror(error.errno).lower() if error.errno else str(error)
        found.problems.append(f"{by_file.origin}: {PASSPHRASE_FILE} {by_file.value} cannot be read: {cause}")
        return
    except ValueError as error:
        found.problems.append(f"{by_file.origin}: {PASSPHRASE_FILE} {by_file.value} {error}")
        return
    if mode & 0o044:
        found.warnings.append(f"others can read the passphrase in {by_file.value}: chmod 600 {by_file.value}")
    origin = f"asked for ({by_file.origin})" if asks else f"file {by_file.value} ({by_file.origin})"
    found.given[_PASSPHRASE] = _Given(text, origin, by_file.rank)


@cache
def _asked_passphrase() -> str:
    """What is typed at the terminal, or the first line of standard input where that is none; asked for once, so that a
    reload asks nobody.

    Raises:
        ValueError: nothing is typed, or there is no text.
    """
    if sys.stdin is None:
        raise ValueError("(which asks for it): there is nobody to ask")
    if sys.stdin.isatty():
        import getpass

        text = getpass.getpass("passphrase of the community: ")
    else:
        text = sys.stdin.readline(_LONGEST_PASSPHRASE).removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("(which asks for it): nothing was typed")
    return text


def _passphrase_in(path: Path) -> tuple[str, int]:
    """The first line of a file, and the file's mode.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty, has several lines, or is no text.
    """
    with path.open("rb") as file:
        raw = file.read(_LONGEST_PASSPHRASE + 1)
        mode = os.fstat(file.fileno()).st_mode
    if len(raw) > _LONGEST_PASSPHRASE:
        raise ValueError(f"has more than {_LONGEST_PASSPHRASE} bytes: is it the right file?")
    try:
        text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not text:
        raise ValueError("is empty")
    if "\n" in text:
        raise ValueError("has several lines: write the passphrase on one")
    return text, mode


def _settle_debug(found: _Collection[SupernodeConfig]) -> None:
    """Let the stronger of `debug: true` and `log_level` count."""
    debug, level = found.given.get("debug"), found.given.get("log_level")
    if debug is None or not debug.value:
        return
    if level is None or level.value == "debug" or level.rank < debug.rank:
        found.given["log_level"] = (
            level if level and level.value == "debug" else _Given("debug", debug.origin, debug.rank)
        )
    elif level.rank == debug.rank:
        found.problems.append(
            f"{debug.origin} and {level.origin}: debug and log_level {level.value} contradict each other"
        )
    else:
        found.given["debug"] = _Given(False, f"{level.origin} (log_level)", level.rank)


def _finish(found: _Collection[C], file: YamlFile | None, env: Mapping[str, str] | None) -> Loaded[C]:
    items = kinds_of(found.config)
    known = found.failed.union(found.given)
    for key, (_, item) in () if file and file.broken else items.items():
        if item.default is MISSING and item.default_factory is MISSING and key not in known:
            found.problems.append(
                f"{key} is missing: give --{key.replace('_', '-')}, the environment variable N2N_{key.upper()}, "
                f"or a line '{key}: ...' in {file.path if file else 'a file (--config)'}"
            )
    if found.problems:
        raise ConfigError(_together(found.problems))
    values = {key: given.value for key, given in found.given.items()}
    values.setdefault("run_dir", default_run_dir(env))
    if "state_dir" in items:
        default = default_edge_state_dir if found.config is EdgeConfig else default_state_dir
        values.setdefault("state_dir", default(env))
    config: C = found.config(**values)
    origins = {key: found.given[key].origin if key in found.given else DEFAULT for key in items}
    return Loaded(config, origins, (*found.warnings, *_doubts(config)))


def _together(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n".join((f"{len(problems)} problems in the configuration:", *(f"  {problem}" for problem in problems)))


def _doubts(config: EdgeConfig | SupernodeConfig) -> Iterator[str]:
    """What is allowed but seldom meant."""
    if isinstance(config, SupernodeConfig):
        if not config.community_subnet.is_private:
            yield f"community_subnet {config.community_subnet} is no private range: edges may refuse addresses in it"
        return
    if config.community != config.community.strip() or clean_name(config.community) != config.community[:64]:
        yield f"community {config.community!r} has blanks at an end or invisible characters; they are part of its name"
    if config.api_listen_address and not config.api_token and not kinds.is_loopback(config.api_listen_address):
        yield (
            f"api_listen_address {config.api_listen_address} can be reached from other hosts: no web pages are served "
            "until api_token is set (or listen on 127.0.0.1)"
        )
    if config.tap_mtu == AUTO_MTU:
        return
    if config.tap_mtu < 1280:
        yield f"tap_mtu {config.tap_mtu} is too small for IPv6 (1280)"
    elif config.tap_mtu > 1420:
        yield f"tap_mtu {config.tap_mtu}: full frames exceed a path of 1500 bytes and travel in fragments"
