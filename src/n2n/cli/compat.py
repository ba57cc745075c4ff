"""The commands that users of n2n-go type, with its single-dash flags: ``n2n-edge``, ``n2n-supernode``, and its tools.

Each does what a command of ``n2n`` does, and takes the same configuration files.  Flags are read as Go's `flag` package
reads them: one dash or two, ``-name value`` or ``-name=value``, switches alone or with ``=true`` and ``=false``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from n2n.cli.exits import OK
from n2n.cli.main import guarded, main
from n2n.errors import ConfigError

__all__ = ["benchmark", "edge", "p2viz", "supernode", "taptest", "upnp"]


class Flag(NamedTuple):
    """What a flag stands for.

    Args:
        key: of the configuration, or the name of a flag of the command of ``n2n``; empty: it is taken, and not needed.
        help: for people.
        switch: it has no value of its own.
    """

    key: str
    help: str
    switch: bool = False


_CONFIG: Final = Flag("config", "YAML file; flags and N2N_... variables come before it")
_EDGE: Final = {
    "config": _CONFIG,
    "id": Flag("edge_id", "what the edge calls itself [host name]"),
    "community": Flag("community", "network to join"),
    "tap": Flag("tap_name", "TAP device [n2n_tap0]"),
    "port": Flag("local_port", "UDP port; 0: any [0]"),
    "enableFuze": Flag("enable_vfuze", "short header for unicast [true]", switch=True),
    "supernode": Flag("supernode_addr", "where to register, host:port"),
    "heartbeat": Flag("heartbeat_interval", "between signs of life [30s]"),
    "udpbuffersize": Flag("udp_buffer_size", "bytes of socket buffer [8388608]"),
    "api-listen": Flag("api_listen_address", "address of the web pages [127.0.0.1:7778]"),
    "encryption-passphrase": Flag("encryption_passphrase", "seals frames; others can see it here: better in a file"),
    "compress-payload": Flag("compress_payload", "zstd; all edges alike [false]", switch=True),
}
_SUPERNODE: Final = {
    "config": _CONFIG,
    "listen": Flag("listen_address", "UDP address [:7777]"),
    "cleanup": Flag("cleanup_interval", "between two looks for silent edges [5m]"),
    "expiry": Flag("expiry_duration", "a silent edge is gone after [10m]"),
    "debug": Flag("debug", "log everything [false]", switch=True),
    "enableFuze": Flag("enable_vfuze", "relay the short header [true]", switch=True),
    "subnet": Flag("community_subnet", "base of all networks [10.128.0.0]"),
    "subnetcidr": Flag("community_subnet_cidr", "prefix of each network [24]"),
}
_BENCHMARK: Final = {
    "component": Flag("component", "udp, protocol, tap or all [all]"),
    "iterations": Flag("iterations", "packets of each measurement"),
    "packetsize": Flag("packet-size", "bytes"),
    "supernode": Flag("supernode", "host:port, for the complete path through it"),
    "community": Flag("community", "in which the edges meet there"),
    "allcomponents": Flag("allcomponents", "measure everything", switch=True),
    "output": Flag("output", "write a CSV"),
    "tapid": Flag("", "not needed: the device is the benchmark's own"),
}
_TAPTEST: Final = {
    "iterations": Flag("iterations", "round trips [5000]"),
    "size": Flag("size", "bytes of the frame [1024]"),
}
_UPNP: Final = {
    "external-port": Flag("external-port", "the router's port"),
    "internal-port": Flag("internal-port", "this host's port [the same]"),
    "protocol": Flag("protocol", "udp or tcp [udp]"),
}
_P2VIZ: Final = {
    "format": Flag("format", "dot, svg, html or json [dot]"),
    "output": Flag("output", "write there, in place of standard output"),
    "instance": Flag("instance", "which edge, by its TAP device"),
}


def edge() -> int:
    """``n2n-edge``: an edge in the foreground, as ``n2n edge up``."""
    return guarded(lambda: _daemon("edge", _EDGE, sys.argv[1:]))


def supernode() -> int:
    """``n2n-supernode``: a supernode in the foreground, as ``n2n supernode serve``."""
    return guarded(lambda: _daemon("supernode", _SUPERNODE, sys.argv[1:]))


def benchmark() -> int:
    """``n2n-benchmark``: as ``n2n bench``."""
    return guarded(lambda: _tool("bench", _BENCHMARK, sys.argv[1:]))


def taptest() -> int:
    """``n2n-taptest``: as ``n2n taptest``."""
    return guarded(lambda: _tool("taptest", _TAPTEST, sys.argv[1:]))


def upnp() -> int:
    """``n2n-upnp``: a port mapping by hand, as ``n2n upnp``."""
    return guarded(lambda: _tool("upnp", _UPNP, sys.argv[1:]))


def p2viz() -> int:
    """``n2n-p2viz``: the community as a picture, as ``n2n p2viz``."""
    return guarded(lambda: _tool("p2viz", _P2VIZ, sys.argv[1:]))


def _daemon(role: str, flags: Mapping[str, Flag], words: Sequence[str]) -> int:
    from n2n.cli.foreground import run_edge, run_supernode

    given = read_go_flags(flags, words)
    if given is None:
        print(usage(f"n2n-{role}", f"n2n {role} {'up' if role == 'edge' else 'serve'}", flags))
        return OK
    path = given.pop("config", None)
    values = {flags[name].key: value for name, value in given.items()}
    names = {flag.key: f"-{name}" for name, flag in flags.items()}
    (run_edge if role == "edge" else run_supernode)(None if path is None else Path(path), values, names)
    return OK


def _tool(command: str, flags: Mapping[str, Flag], words: Sequence[str]) -> int:
    given = read_go_flags(flags, words)
    if given is None:
        print(usage(f"n2n-{'benchmark' if command == 'bench' else command}", f"n2n {command}", flags))
        return OK
    line = [command]
    for name, value in given.items():
        key = flags[name].key
        if flags[name].switch:
            line += [f"--{key}"] if value == "true" else []
        elif key:
            line += [f"--{key}", value]
    return main(line)


def read_go_flags(flags: Mapping[str, Flag], words: Sequence[str]) -> dict[str, Any] | None:
    """The flags of a command line, as texts ("true" and "false" for switches); None where help is asked for.

    Raises:
        ConfigError: a word is no flag, or a flag has no value.

    >>> read_go_flags(_TAPTEST, ["-iterations", "5", "--size=9"])
    {'iterations': '5', 'size': '9'}
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name in ("h", "help") and word.startswith("-"):
            return None
        flag = flags.get(name) if word.startswith("-") else None
        if flag is None:
            known = " ".join(f"-{each}" for each in flags)
            raise ConfigError(f"{word!r} is none of the flags: {known}")
        if flag.switch:
            value = value if equals else "true"
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise ConfigError(f"-{name}={value}: it is true or false")
            value = "true" if value.lower() in ("true", "1", "t") else "false"
        elif not equals:
            if not rest:
                raise ConfigError(f"-{name} needs a value: {flag.help}")
            value = rest.pop(0)
        found[name] = value
    return found


def usage(program: str, command: str, flags: Mapping[str, Flag]) -> str:
    """What ``-help`` prints."""
    lines = [f"Usage of {program} (the same as: {command}; see {command} --help for everything it can do):"]
    for name, flag in flags.items():
        value = "" if flag.switch else " VALUE"
        lines += [f"  -{name}{value}", f"        {flag.help}"]
    return "\n".join(lines)
