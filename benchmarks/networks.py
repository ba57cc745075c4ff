"""The networks that are compared: two hosts on one Ethernet switch, joined by n2n, by another VPN, or by nothing.

Every network is a context manager that yields a :class:`Tunnel` that works. All of the others' programs come from
Debian's packages.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from n2n.errors import NotReady, PlatformError
from n2n.lab.namespaces import Process, run, wait_until, which
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Host, Lab

PASSPHRASE = "benchmark"
INNER_MTU = 1420
INNER = ("10.77.0.1", "10.77.0.2")
MIB = 1 << 20


@dataclass
class Tunnel:
    """Two hosts and what joins them.

    Args:
        a: the host that sends.
        b: the host that receives, at `address`.
        mtu: the largest inner IP packet.
        edges: the processes of the VPN on the two hosts.
        supernode: the process in the middle.
    """

    a: Host
    b: Host
    address: str
    mtu: int
    edges: list[Process] = field(default_factory=list)
    supernode: Process | None = None
    nodes: list[EdgeNode] = field(default_factory=list)

    def cpu(self) -> tuple[float, float]:
        """CPU seconds so far: of both edges, and of the supernode."""
        return sum(edge.cpu_seconds() for edge in self.edges), self.supernode.cpu_seconds() if self.supernode else 0.0

    def memory(self) -> tuple[float, float]:
        """Resident MiB: of the larger edge, and of the supernode."""
        return max(edge.memory() for edge in self.edges) / MIB, self.supernode.memory() / MIB if self.supernode else 0.0


def ordinary_tcp(host: Host) -> None:
    """TCP as Linux has it by default (cubic), whatever this machine's default is.

    BBR paces: a timer for every super-frame, which costs a virtual machine more than the super-frame does. A program
    that chooses cubic only when its connection stands (iperf3 -C) keeps the pacing.
    """
    with host.entered():
        try:
            Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("cubic")
        except OSError as error:
            raise PlatformError(f"the kernel has no TCP congestion control cubic: {error}") from error


@contextlib.contextmanager
def _hosts(names: str = "ab", *, isolate: bool = False, mtu: int = 1500) -> Iterator[dict[str, Host]]:
    """Hosts on one switch, at 198.18.0.1 and so on; isolated: a and b only reach the last one."""
    with Lab() as lab:
        switch = lab.switch(mtu=mtu)
        for number, name in enumerate(names, start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24").isolate(isolate and name in "ab")
            ordinary_tcp(lab.hosts[name])
        yield lab.hosts


def _need(program: str, package: str) -> str:
    found = which(program)
    if found is None:
        raise PlatformError(f"the program {program!r} is missing. Install it: apt-get install -y {package}")
    return found


def _ready(tunnel: Tunnel, interface: str | None = None) -> Tunnel:
    """Wait until pings pass."""

    def works() -> bool:
        for process in tunnel.edges:
            if not process.alive:
                raise PlatformError(f"a VPN ended with status {process.status}: {process.tail(500)}")
        if interface and any(interface not in host.interfaces() for host in (tunnel.a, tunnel.b)):
            return False
        return tunnel.a.run("ping", "-c3", "-i0.1", "-W1", tunnel.address, check=False).returncode == 0

    try:
        wait_until("the tunnel", works, 40)
    except NotReady as error:
        logs = "\n".join(process.tail(500) for process in tunnel.edges)
        raise PlatformError(f"{error}\n{logs}") from error
    return tunnel


# ---- n2n ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def n2n(
    *,
    path: str = "direct",
    sealed: bool = True,
    underlay_mtu: int = 1500,
    supernode: dict[str, object] | None = None,
    **edge: object,
) -> Iterator[Tunnel]:
    """A supernode and two edges, their path settled; `edge` and `supernode` are keys of their configurations."""
    with _hosts("abs", isolate=path == "relay", mtu=underlay_mtu) as hosts:
        middle = SupernodeNode(hosts["s"], **(supernode or {}))  # type: ignore[arg-type]
        passphrase = PASSPHRASE if sealed else None
        a, b = (EdgeNode(hosts[name], middle, passphrase=passphrase, **edge) for name in "ab")  # type: ignore[arg-type]
        start_all(middle, [a, b])
        a.wait_path(b, path)
        b.wait_path(a, path)
        edges = [node.process for node in (a, b) if node.process]
        mtu = edge.get("tap_mtu", INNER_MTU)
        assert isinstance(mtu, int)
        yield _ready(Tunnel(hosts["a"], hosts["b"], b.address, mtu, edges, middle.process, [a, b]))


# ---- the others ----------------------------------------------------------------------------------


@contextlib.contextmanager
def veth(mtu: int = 1500) -> Iterator[Tunnel]:
    """No VPN: what the machine does at most."""
    with _hosts(mtu=mtu) as hosts:
        yield _ready(Tunnel(hosts["a"], hosts["b"], hosts["b"].addr, mtu))


@contextlib.contextmanager
def tinc() -> Iterator[Tunnel]:
    """tinc 1.0 as a switch, with the cipher and digest that it has without being told."""
    program = _need("tincd", "tinc")
    with _hosts() as hosts:
        edges = []
        for name, other in (("a", "b"), ("b", "a")):
            folder = hosts[name].folder / "tinc"
            (folder / "hosts").mkdir(parents=True)
            connect = f"ConnectTo = {other}\n" if name == "b" else ""
            (folder / "tinc.conf").write_text(
                f"Name = {name}\nMode = switch\nDeviceType = tap\nInterface = tap0\nAddressFamily = ipv4\n"
                f"BindToAddress = {hosts[name].addr}\n{connect}"
            )
            (folder / "hosts" / name).write_text(
                f"Address = {hosts[name].addr}\nCipher = aes-256-cbc\nDigest = sha256\n"
            )
            run([program, "-c", str(folder), "-K", "2048"], stdin=subprocess.DEVNULL)
            up = folder / "tinc-up"
            up.write_text(_up(INNER["ab".index(name)], "$INTERFACE"))
            up.chmod(0o755)
        for name, other in (("a", "b"), ("b", "a")):
            folder = hosts[name].folder / "tinc"
            (folder / "hosts" / other).write_text((hosts[other].folder / "tinc" / "hosts" / other).read_text())
        for name in "ab":
            folder = hosts[name].folder / "tinc"
            edges.append(hosts[name].spawn(program, "-D", "-c", str(folder), f"--pidfile={folder}/pid", log="tinc"))
        tunnel = _ready(Tunnel(hosts["a"], hosts["b"], INNER[1], INNER_MTU, edges), "tap0")
        # Until it has probed the path's MTU, large packets go over its TCP connection.
        hosts["a"].run("ping", "-c40", "-i0.1", "-s1300", INNER[1], check=False)
        yield tunnel


def _up(address: str, interface: str) -> str:
    return f"#!/bin/sh\nip addr add {address}/24 dev {interface}\nip link set {interface} mtu {INNER_MTU} up\n"


@contextlib.contextmanager
def fastd() -> Iterator[Tunnel]:
    """fastd with the method that its manual recommends first."""
    program = _need("fastd", "fastd")
    with _hosts() as hosts:
        keys = {}
        for name in "ab":
            words = run([program, "--machine-readable", "--generate-key"]).stdout.split()
            keys[name] = (
                words[0],
                run(
                    [program, "--machine-readable", "--show-key", "--config", "-"], input=f'secret "{words[0]}";\n'
                ).stdout.split()[0],
            )
        edges = []
        for number, (name, other) in enumerate((("a", "b"), ("b", "a"))):
            config, up = hosts[name].folder / "fastd.conf", hosts[name].folder / "up"
            up.write_text(_up(INNER[number], "tap0"))
            up.chmod(0o755)
            config.write_text(
                f'mode tap;\ninterface "tap0";\nmethod "salsa2012+umac";\nbind {hosts[name].addr}:10000;\n'
                f'mtu {INNER_MTU};\nsecret "{keys[name][0]}";\nlog level warn;\non up "{up}";\n'
                f'peer "other" {{ key "{keys[other][1]}"; remote {hosts[other].addr}:10000; }}\n'
            )
            edges.append(hosts[name].spawn(program, "-c", str(config), log="fastd"))
        yield _ready(Tunnel(hosts["a"], hosts["b"], INNER[1], INNER_MTU, edges), "tap0")


_NEBULA = """pki: {{ca: {pki}/ca.crt, cert: {pki}/{name}.crt, key: {pki}/{name}.key}}
static_host_map: {{"{inner}": ["{outer}:4242"]}}
lighthouse: {{am_lighthouse: {first}, interval: 10, hosts: [{lighthouse}]}}
listen: {{host: 0.0.0.0, port: 4242}}
cipher: aes
tun: {{dev: neb0, mtu: {mtu}}}
logging: {{level: warning, format: text}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


@contextlib.contextmanager
def nebula() -> Iterator[Tunnel]:
    """nebula (layer 3) with AES-256-GCM; a is its lighthouse."""
    program, signer = _need("nebula", "nebula"), _need("nebula-cert", "nebula")
    with _hosts() as hosts:
        pki = hosts["a"].folder / "pki"
        pki.mkdir()
        run([signer, "ca", "-name", "benchmark"], cwd=pki)
        edges = []
        for name, inner in zip("ab", INNER, strict=True):
            run([signer, "sign", "-name", name, "-ip", f"{inner}/24"], cwd=pki)
            config = hosts[name].folder / "nebula.yml"
            config.write_text(
                _NEBULA.format(
                    pki=pki,
                    name=name,
                    inner=INNER[0],
                    outer=hosts["a"].addr,
                    first="true" if name == "a" else "false",
                    lighthouse="" if name == "a" else f'"{INNER[0]}"',
                    mtu=INNER_MTU,
                )
            )
            edges.append(hosts[name].spawn(program, "-config", str(config), log="nebula"))
        yield _ready(Tunnel(hosts["a"], hosts["b"], INNER[1], INNER_MTU, edges), "neb0")


@dataclass(frozen=True)
class Peer:
    """One network of the side-by-side run."""

    name: str
    words: str
    start: Callable[[], AbstractContextManager[Tunnel]]
    program: str = ""
    package: str = ""

    @property
    def missing(self) -> str:
        """How to get what it needs; "" where nothing is missing."""
        return (
            f"{self.name} is left out: apt-get install -y {self.package}"
            if self.program and not which(self.program)
            else ""
        )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("n2n", "layer 2, AES-256-GCM", n2n),
        Peer("n2n-plain", "layer 2, no cipher", lambda: n2n(sealed=False)),
        Peer("n2n-relay", "layer 2, AES-256-GCM, through the supernode", lambda: n2n(path="relay")),
        Peer("veth", "no tunnel: the bound", veth),
        Peer("tinc", "layer 2, AES-256-CBC + SHA-256", tinc, "tincd", "tinc"),
        Peer("fastd", "layer 2, Salsa20/12 + UMAC", fastd, "fastd", "fastd"),
        Peer("nebula", "layer 3, AES-256-GCM", nebula, "nebula", "nebula"),
    )
}
OURS = ("n2n", "n2n-plain", "n2n-relay")
