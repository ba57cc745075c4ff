"""What a daemon counts and knows: families of metrics, and their text in Prometheus' format 0.0.4.

Every counter of `counters` is told by its name, in a family for each of its rooms; bytes and states have families of
their own.  The number of series is bounded: peers beyond the limit are counted, not told.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from n2n.web.text import metric_label

__all__ = ["CONTENT_TYPE", "MAX_PEERS", "Family", "exposition", "families"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Peers of which each has series of its own.
MAX_PEERS: Final = 256

#: Prefix of a counter -> family, label, help. The first that fits counts.
_FAMILIES: Final = (
    ("plane_drop_", "n2n_dropped_total", "reason", "Packets that the data plane dropped."),
    ("plane_", "n2n_plane_total", "event", "What the data plane did with packets."),
    ("core_now_", "n2n_current", "what", "What the protocol holds at present."),
    ("core_", "n2n_core_total", "event", "What the protocol did with control messages."),
    ("web_", "n2n_web_total", "event", "Requests for web pages."),
    ("daemon_", "n2n_daemon_total", "event", "What went wrong in the daemon."),
)
_BYTES: Final = ("n2n_plane_bytes_total", "way", "Bytes that the data plane moved.")
_OTHER: Final = ("n2n_other_total", "event", "Other events.")

Series = tuple[Mapping[str, str], float]


class Family(NamedTuple):
    """Metrics of one name.

    Args:
        name: of all of them.
        kind: "gauge" or "counter".
        help: for people.
        series: labels and value of each.
    """

    name: str
    kind: str
    help: str
    series: tuple[Series, ...]


def exposition(status: Mapping[str, Any], counters: Mapping[str, int], peers: Mapping[str, Any]) -> str:
    """The metrics of a daemon as text; arguments as of `families`."""
    lines = []
    for family in families(status, counters, peers):
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.series:
            inside = ",".join(f"{key}={metric_label(text)}" for key, text in labels.items())
            lines.append(f"{family.name}{{{inside}}} {_number(value)}" if inside else f"{family.name} {_number(value)}")
    return "\n".join([*lines, ""])


def families(status: Mapping[str, Any], counters: Mapping[str, int], peers: Mapping[str, Any]) -> list[Family]:
    """The metrics of a daemon.

    Args:
        status: its answer to `status`.
        counters: its answer to `counters`.
        peers: its answer to `peers`; empty for a supernode.
    """
    about = {"role": _text(status, "role"), "instance": _text(status, "instance"), "version": _text(status, "version")}
    found = [_family("n2n_build_info", "gauge", "Which daemon this is.", [(about | {"python": _python()}, 1)])]
    found.append(_gauge("n2n_ready", "Whether it does what it is for.", bool(status.get("ready"))))
    started = status.get("started")
    if isinstance(started, int | float):
        found.append(_gauge("n2n_start_time_seconds", "Unix time of its start.", started))
    found += _features(status.get("data_plane"))
    found += _counted(counters)
    return found + (_edge(status, peers) if status.get("role") == "edge" else _supernode(status))


def _features(used: Any) -> list[Family]:
    """What the data plane uses of kernel and libraries: numbers and switches, and the library that seals."""
    if not isinstance(used, Mapping):
        return []
    numbers = [({"name": str(name)}, float(value)) for name, value in used.items() if isinstance(value, bool | int)]
    found = [_family("n2n_feature", "gauge", "What the data plane uses: 1 on, 0 off, or how many.", numbers)]
    cipher = used.get("cipher")
    if isinstance(cipher, str):
        found.append(_family("n2n_cipher_info", "gauge", "The library that seals frames.", [({"library": cipher}, 1)]))
    return found


def _counted(counters: Mapping[str, int]) -> list[Family]:
    rooms: dict[tuple[str, str, str], list[Series]] = {}
    for name, value in sorted(counters.items()):
        prefix, family, label, help_ = next((entry for entry in _FAMILIES if name.startswith(entry[0])), ("", *_OTHER))
        rest = name.removeprefix(prefix)
        if prefix == "plane_" and rest.endswith("_bytes"):
            (family, label, help_), rest = _BYTES, rest.removesuffix("_bytes")
        rooms.setdefault((family, label, help_), []).append(({label: rest}, value))
    return [
        _family(family, "counter" if family.endswith("_total") else "gauge", help_, series)
        for (family, _, help_), series in rooms.items()
    ]


def _edge(status: Mapping[str, Any], peers: Mapping[str, Any]) -> list[Family]:
    entries = [entry for entry in peers.get("peers") or [] if isinstance(entry, Mapping)]
    told = sorted(entries, key=lambda entry: _text(entry, "mac"))[:MAX_PEERS]
    direct = sum(entry.get("path") == "direct" for entry in entries)
    ways = [({"path": "direct"}, direct), ({"path": "relay"}, len(entries) - direct)]
    info = [({name: _text(entry, key) for name, key in _INFO}, 1.0) for entry in told]
    paths = [({"mac": _text(entry, "mac")}, float(entry.get("path") == "direct")) for entry in told]
    found = [
        _family("n2n_peers", "gauge", "Other edges, by the way that frames to them take.", ways),
        _gauge("n2n_registered", "Registered at its supernode.", status.get("state") == "registered"),
        _gauge("n2n_peers_left_out", "Peers without series.", len(entries) - len(told)),
        _family("n2n_peer_info", "gauge", "Who a peer is.", info),
        _family("n2n_peer_direct", "gauge", "1: frames to it go straight there; 0: by the supernode.", paths),
    ]
    for name, kind, key, help_ in _PEER:
        series = [
            ({"mac": _text(entry, "mac")}, entry[key]) for entry in told if isinstance(entry.get(key), int | float)
        ]
        found.append(_family(name, kind, help_, series))
    return found


_INFO: Final = (("mac", "mac"), ("name", "name"), ("address", "virtual_ip"))
_PEER: Final = (
    ("n2n_peer_rtt_seconds", "gauge", "rtt", "Time there and back, directly, when last measured."),
    ("n2n_peer_path_since_seconds", "gauge", "since", "Unix time of the last change of its path."),
    ("n2n_peer_sent_bytes_total", "counter", "tx_bytes", "Bytes of frames sent to it."),
    ("n2n_peer_received_bytes_total", "counter", "rx_bytes", "Bytes of frames received from it."),
)


def _supernode(status: Mapping[str, Any]) -> list[Family]:
    found = []
    for key, help_ in (("edges", "Registered edges."), ("leases", "Addresses given out.")):
        value = status.get(key)
        if isinstance(value, int):
            found.append(_gauge(f"n2n_supernode_{key}", help_, value))
    communities = status.get("communities")
    if isinstance(communities, list):
        # Not one series each: whoever registers names a community.
        found.append(_gauge("n2n_supernode_communities", "Communities that it knows.", len(communities)))
    return found


def _family(name: str, kind: str, help_: str, series: Iterable[Series]) -> Family:
    return Family(name, kind, help_, tuple(series))


def _gauge(name: str, help_: str, value: float) -> Family:
    """One value without labels."""
    return _family(name, "gauge", help_, [({}, float(value))])


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _text(about: Mapping[str, Any], name: str) -> str:
    value = about.get(name)
    return value if isinstance(value, str) else ""


def _python() -> str:
    return platform.python_version()
