"""What an edge and a supernode can be told: every key with its kind and its default.

The names and defaults that protocol v5 has are v5's.
"""
# ruff: noqa: RUF009  (`_key` only wraps dataclasses.field)

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from n2n.config import kinds
from n2n.config.kinds import Kind
from n2n.config.mtu import TAP_MTU, USUAL_MTU
from n2n.config.supernodes import SUPERNODES
from n2n.errors import ConfigError
from n2n.proto.limits import Rate
from n2n.proto.supernode import SupernodeSettings
from n2n.wire.hashes import clean_name

__all__ = [
    "EdgeConfig",
    "SupernodeConfig",
    "default_edge_state_dir",
    "default_run_dir",
    "default_state_dir",
    "kinds_of",
]

_CORE: Final = SupernodeSettings()
_SYSTEM_RUN_DIR: Final = Path("/run/n2n")
_SYSTEM_STATE_DIR: Final = Path("/var/lib/n2n")
_BUFFERS: Final = kinds.integer(4096, 1 << 30)
_LEVELS: Final = kinds.choice("debug", "info", "warning", "error")
_PREFIX: Final = kinds.integer(8, 30)
_EXPIRY: Final = kinds.duration(1, 7 * 86400)
_CLEANUP: Final = kinds.duration(0.1, 86400)
_FORMATS: Final = kinds.choice("text", "json")
_CIPHERS: Final = kinds.choice("auto", "libcrypto", "ipsec-mb")
_PORT_MAPPING: Final = kinds.choice("auto", "off", "upnp", "nat-pmp", "pcp")
_LIMIT: Final = kinds.integer(1, 10_000_000)
#: The data plane's table has no room for more.
_EDGES: Final = kinds.integer(1, 1 << 20)
_RATE: Final = kinds.number(0.001, 1_000_000)


def default_run_dir(env: Mapping[str, str] | None = None) -> Path:
    """Where control sockets lie: /run/n2n for root, else n2n in XDG_RUNTIME_DIR, else a directory in /tmp.

    systemd's RuntimeDirectory= comes before these (it sets RUNTIME_DIRECTORY, systemd.exec(5)).
    (The variable N2N_RUN_DIR is the configuration key `run_dir`, and comes before this.)
    """
    env = os.environ if env is None else env
    if given := env.get("RUNTIME_DIRECTORY"):
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return _SYSTEM_RUN_DIR
    runtime = env.get("XDG_RUNTIME_DIR")
    # Whoever makes it there must make it 0700 and check its owner.
    return Path(runtime) / "n2n" if runtime else Path(f"/tmp/n2n-{os.geteuid()}")  # noqa: S108


def default_state_dir(env: Mapping[str, str] | None = None) -> Path:
    """Where a supernode keeps what must survive it: /var/lib/n2n for root, else as an edge.

    systemd's StateDirectory= comes before (it sets STATE_DIRECTORY, systemd.exec(5)).
    """
    env = os.environ if env is None else env
    if os.geteuid() == 0 and not env.get("STATE_DIRECTORY"):
        return _SYSTEM_STATE_DIR
    return default_edge_state_dir(env)


def default_edge_state_dir(env: Mapping[str, str] | None = None) -> Path:
    """Where an edge keeps what it remembers: n2n in XDG_STATE_HOME, root's too (in the home of the machine id).

    XDG_STATE_HOME is ~/.local/state where it is not set (XDG Base Directory Specification).  systemd's StateDirectory=
    comes before (it sets STATE_DIRECTORY, systemd.exec(5)).
    """
    env = os.environ if env is None else env
    if given := env.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    state = env.get("XDG_STATE_HOME")
    return (Path(state) if state else _in_home(".local/state")) / "n2n"


def _in_home(below: str) -> Path:
    try:
        return Path.home() / below
    except RuntimeError:  # no such user, no HOME: whoever opens it will say so
        return Path("~") / below


def _default_machine_id_file() -> Path:
    return _in_home(".n2n-go/machine-id")


def _default_edge_id() -> str:
    return clean_name(socket.gethostname()) or "edge"


def _key(kind: Kind, default: Any = None, *, factory: Callable[[], Any] | None = None, required: bool = False) -> Any:
    about: dict[str, Any] = {"metadata": {"kind": kind}, "repr": not kind.secret}
    if not required:
        about |= {"default": default} if factory is None else {"default_factory": factory}
    return field(**about)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """Settings of an edge.  Durations are in seconds, sizes in bytes.

    Args:
        community: name of the network to join.
        supernode_addr: where to register, ``host:port``; several with a comma between two: the edge keeps to one and
            goes to the next when that one is gone.
        edge_id: what it calls itself; by default the host's name.
        local_port: UDP port; 0: the kernel chooses.
        bind: IP address of this host to send from, or interface to send and receive by; empty: every one.
        port_mapping: have the router map a port by auto (what answers), upnp, nat-pmp or pcp; or off.
        enable_vfuze: send frames with the short header.
        tap_name: of the TAP device, and of the control socket.
        tap_mtu: of the TAP device, at most; 1420 just fits a path of 1500 bytes; 0: what the path to the supernode
            takes ("auto").
        heartbeat_interval: between two signs of life to the supernode.
        udp_buffer_size: asked for in each direction of the UDP socket.
        encryption_passphrase: seals every frame; None: they travel in the clear.
        compress_payload: compress frames; all edges of a community must agree.
        bridge: frames from and for other addresses than the edges' own pass: their TAPs are bridged to networks.
        port_prediction: try many ports at once where one of two edges is behind a symmetric NAT.
        allow_bench: answer members who measure the way to this edge (``n2n bench PEER``).
        threads: of the data plane; 0: chosen by the program ("auto").
        cipher: library that seals: auto (the faster one), libcrypto or ipsec-mb.
        tap_offload: take super-frames (TSO, USO) from the kernel and cut them here.
        tap_coalesce: glue received TCP segments to super-frames for the kernel; needs tap_offload.
        tap_uso: the same for UDP, both ways, where the kernel can.
        udp_gso: send trains of datagrams (UDP_SEGMENT).
        udp_gro: receive trains of datagrams (UDP_GRO).
        machine_id_file: holds the edge's credential, made if it does not exist.
        api_listen_address: where `n2n edge up` serves web pages, ``IP:port``; empty: nowhere.
        api_token: needed to see them; None: whoever gets there may.
        state_dir: what is remembered of supernodes and paths lies there; None: nothing is.
        accept_new_key: take another key of the supernode than the known one; None ("auto"): unless that one lasts.
        hosts_file: the members' names are kept in it (a file like /etc/hosts); None: in none.
        run_dir: holds the control socket.
        log_level: debug, info, warning or error.
        log_format: text or json.

    Raises:
        ConfigError: a value is of the wrong type, or impossible.

    >>> EdgeConfig(community="acme", supernode_addr="192.0.2.1:7777").heartbeat_interval
    30.0
    """

    community: str = _key(kinds.COMMUNITY, required=True)
    supernode_addr: str = _key(SUPERNODES, required=True)
    edge_id: str = _key(kinds.EDGE_NAME, factory=_default_edge_id)
    local_port: int = _key(kinds.integer(0, 65535), 0)
    bind: str = _key(kinds.BIND, "")
    port_mapping: str = _key(_PORT_MAPPING, "auto")
    enable_vfuze: bool = _key(kinds.BOOLEAN, True)
    tap_name: str = _key(kinds.TAP_NAME, "n2n_tap0")
    tap_mtu: int = _key(TAP_MTU, USUAL_MTU)
    heartbeat_interval: float = _key(kinds.duration(0.1, 3600), 30.0)
    udp_buffer_size: int = _key(_BUFFERS, 8 * 1024 * 1024)
    encryption_passphrase: str | None = _key(kinds.SECRET, None)
    compress_payload: bool = _key(kinds.BOOLEAN, False)
    bridge: bool = _key(kinds.BOOLEAN, False)
    port_prediction: bool = _key(kinds.BOOLEAN, True)
    allow_bench: bool = _key(kinds.BOOLEAN, False)
    threads: int = _key(kinds.THREADS, 0)
    cipher: str = _key(_CIPHERS, "auto")
    tap_offload: bool = _key(kinds.BOOLEAN, True)
    tap_coalesce: bool = _key(kinds.BOOLEAN, True)
    tap_uso: bool = _key(kinds.BOOLEAN, True)
    udp_gso: bool = _key(kinds.BOOLEAN, True)
    udp_gro: bool = _key(kinds.BOOLEAN, True)
    machine_id_file: Path = _key(kinds.PATH, factory=_default_machine_id_file)
    api_listen_address: str = _key(kinds.PAGES_ADDRESS, "127.0.0.1:7778")
    api_token: str | None = _key(kinds.TOKEN, None)
    state_dir: Path | None = _key(kinds.STATE_DIR, factory=default_edge_state_dir)
    accept_new_key: bool | None = _key(kinds.AUTO_BOOLEAN, None)
    hosts_file: Path | None = _key(kinds.OPTIONAL_PATH, None)
    run_dir: Path = _key(kinds.PATH, factory=default_run_dir)
    log_level: str = _key(_LEVELS, "info")
    log_format: str = _key(_FORMATS, "text")

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def supernodes(self) -> tuple[str, ...]:
        """Each of the supernodes in `supernode_addr`.

        >>> EdgeConfig(community="acme", supernode_addr="a.example:7777,b.example:7777").supernodes
        ('a.example:7777', 'b.example:7777')
        """
        return tuple(self.supernode_addr.split(","))

    @property
    def listen(self) -> str:
        """`bind` and `local_port` as :func:`n2n.net.open_udp` takes them."""
        return f"[{self.bind}]:{self.local_port}" if ":" in self.bind else f"{self.bind}:{self.local_port}"

    @property
    def device(self) -> str:
        """The interface in `bind`, if that is one; else empty."""
        return self.bind if kinds.is_interface(self.bind) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernodeConfig:
    """Settings of a supernode.  Durations are in seconds, sizes in bytes.

    Args:
        listen_address: UDP address; ``:7777`` is every address of the host.
        debug: log everything (the same as `log_level` debug).
        community_subnet: start of the block from which communities get their networks.
        community_subnet_cidr: prefix length of one community's network.
        expiry_duration: an edge that gave no sign of life for this long is gone.
        cleanup_interval: between two looks for such edges.
        udp_buffer_size: asked for in each direction of the UDP socket.
        strict_hash_checking: refuse an edge whose packets carry another community id than its community's name gives.
        enable_vfuze: relay frames with the short header.
        probe_port: second UDP port, where edges ask from which endpoint they are seen; -1: the one after
            `listen_address`'s, if that is free ("auto"); 0: none.
        state_dir: holds leases and the key of one supernode; None: nothing is kept.
        metrics_listen_address: where `n2n supernode serve` tells its metrics, ``127.0.0.1:port``; empty: nowhere.
        source_rate: registrations, heartbeats and leaves in a second from one source address.
        total_rate: the same from all sources.
        max_communities: communities remembered.
        max_edges: registered edges in all communities.
        max_leases: addresses remembered in all communities.
        threads: of the data plane; 0: chosen by the program ("auto").
        udp_gso: send trains of datagrams (UDP_SEGMENT).
        udp_gro: receive trains of datagrams (UDP_GRO), and relay them whole.
        run_dir: holds the control socket.
        log_level: debug, info, warning or error.
        log_format: text or json.

    Raises:
        ConfigError: a value is of the wrong type, or impossible.

    >>> SupernodeConfig(debug=True).log_level
    'debug'
    """

    listen_address: str = _key(kinds.LISTEN_ADDRESS, ":7777")
    debug: bool = _key(kinds.BOOLEAN, False)
    community_subnet: IPv4Address = _key(kinds.BASE_ADDRESS, _CORE.base)
    community_subnet_cidr: int = _key(kinds.integer(8, 30), _CORE.prefix)
    expiry_duration: float = _key(kinds.duration(1, 7 * 86400), _CORE.expiry)
    cleanup_interval: float = _key(kinds.duration(0.1, 86400), _CORE.cleanup_interval)
    udp_buffer_size: int = _key(_BUFFERS, 2 * 1024 * 1024)
    strict_hash_checking: bool = _key(kinds.BOOLEAN, _CORE.strict_hash_checking)
    enable_vfuze: bool = _key(kinds.BOOLEAN, _CORE.vfuze)
    probe_port: int = _key(kinds.PROBE_PORT, kinds.AUTO_PORT)
    state_dir: Path | None = _key(kinds.STATE_DIR, factory=default_state_dir)
    metrics_listen_address: str = _key(kinds.LOCAL_ADDRESS, "")
    source_rate: float = _key(_RATE, float(_CORE.source_rate.per_second))
    total_rate: float = _key(_RATE, float(_CORE.total_rate.per_second))
    max_communities: int = _key(_LIMIT, _CORE.max_communities)
    max_edges: int = _key(_EDGES, _CORE.max_members)
    max_leases: int = _key(_LIMIT, _CORE.max_leases)
    threads: int = _key(kinds.THREADS, 0)
    udp_gso: bool = _key(kinds.BOOLEAN, True)
    udp_gro: bool = _key(kinds.BOOLEAN, True)
    run_dir: Path = _key(kinds.PATH, factory=default_run_dir)
    log_level: str = _key(_LEVELS, "info")
    log_format: str = _key(_FORMATS, "text")

    def __post_init__(self) -> None:
        _validate(self)
        if self.debug:
            object.__setattr__(self, "log_level", "debug")

    def settings(
        self,
        *,
        mapped_addresses: bool = _CORE.mapped_addresses,
        probe_port: int = _CORE.probe_port,
        key_lasts: bool = _CORE.key_lasts,
    ) -> SupernodeSettings:
        """What of this concerns the protocol's core.

        Args:
            mapped_addresses: the UDP socket is a dual-stack one.
            probe_port: of the second socket, if there is one.
            key_lasts: the key is kept over restarts.
        """
        return SupernodeSettings(
            base=self.community_subnet,
            prefix=self.community_subnet_cidr,
            expiry=self.expiry_duration,
            cleanup_interval=self.cleanup_interval,
            strict_hash_checking=self.strict_hash_checking,
            vfuze=self.enable_vfuze,
            probe_port=probe_port,
            key_lasts=key_lasts,
            mapped_addresses=mapped_addresses,
            source_rate=_with_burst(self.source_rate, _CORE.source_rate),
            total_rate=_with_burst(self.total_rate, _CORE.total_rate),
            max_communities=self.max_communities,
            max_members=self.max_edges,
            max_leases=self.max_leases,
        )


def _with_burst(per_second: float, usual: Rate) -> Rate:
    """A burst in the same proportion as by default, and of at least one."""
    return Rate(per_second, max(1.0, per_second * usual.burst / usual.per_second))


def kinds_of(config: type[EdgeConfig] | type[SupernodeConfig]) -> dict[str, tuple[Kind, Field[Any]]]:
    """The kind of each key, in the order of the class."""
    return {item.name: (item.metadata["kind"], item) for item in fields(config)}


def _validate(config: EdgeConfig | SupernodeConfig) -> None:
    for name, (kind, _) in kinds_of(type(config)).items():
        try:
            kind.validate(getattr(config, name))
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
