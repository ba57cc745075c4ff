"""Networks in namespaces: hosts on switches, each in a network namespace of its own.

    with Lab() as lab:
        street = lab.switch("street")
        a, b = lab.host("a"), lab.host("b")
        a.attach(street, "198.18.0.1/24")
        b.attach(street, "198.18.0.2/24")
        a.run("ping", "-c1", "198.18.0.2")

Nothing touches the network of the machine itself: links are made inside the namespaces, and addresses come from
198.18.0.0/15, which RFC 2544 keeps for tests. What a lab makes goes with it, also when its process is killed
(see :mod:`n2n.lab.cleaner`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any, Final

from n2n.errors import PlatformError
from n2n.lab import cleaner
from n2n.lab.namespaces import Namespace, Process, need_rights

__all__ = ["Host", "Lab", "Port", "Switch"]

_STOP_PATIENCE: Final = 3.0  # seconds between SIGTERM and SIGKILL when a lab ends
_BRIDGE: Final = "br0"
_numbers = itertools.count()


class Switch:
    """An Ethernet bridge in a namespace of its own: no spanning tree, no multicast snooping, no firewall."""

    def __init__(self, namespace: Namespace, mtu: int) -> None:
        self.namespace = namespace
        self.mtu = mtu
        self._ports = itertools.count()
        with namespace.entered():
            for key in ("iptables", "ip6tables", "arptables"):
                with contextlib.suppress(OSError):  # absent where the module is not loaded
                    Path(f"/proc/sys/net/bridge/bridge-nf-call-{key}").write_text("0")
        namespace.ip(
            batch=[
                # A bridge without an address of its own takes the lowest of its ports: another with each new port.
                f"link add {_BRIDGE} address 02:{secrets.token_bytes(5).hex(':')} "
                "type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {_BRIDGE} mtu {mtu} up",
            ]
        )

    def next_port(self) -> str:
        """A name for one more port."""
        return f"p{next(self._ports)}"


class Port:
    """Where a host is plugged into a switch."""

    def __init__(self, switch: Switch, name: str) -> None:
        self.switch = switch
        self.name = name

    def isolate(self, on: bool = True) -> None:
        """An isolated port exchanges frames with ports that are not, and with no isolated one."""
        self.switch.namespace.ip("link", "set", self.name, "type", "bridge_slave", "isolated", "on" if on else "off")

    def plug(self, on: bool = True) -> None:
        """Pull the cable out, or (`on`) put it back."""
        self.switch.namespace.ip("link", "set", self.name, "up" if on else "down")


class Host:
    """A machine: a network namespace, a folder, and the programs that run in it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.folder = lab.folder / name
        self.folder.mkdir(mode=0o700)
        self.namespace = lab.namespace(name)
        self.ports: dict[str, Port] = {}
        self._address: str | None = None

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    @property
    def addr(self) -> str:
        """Its first address on a switch, without the prefix.

        Raises:
            LookupError: it was never attached to one.
        """
        if self._address is None:
            raise LookupError(f"host {self.name!r} is attached to nothing")
        return self._address

    def attach(
        self, switch: Switch, address: str | None = None, *, interface: str = "eth0", gateway: str | None = None
    ) -> Port:
        """Lay a cable from a new interface of this host to `switch`.

        Args:
            address: of the interface, with its prefix length; none is set without.
            gateway: becomes the default route.
        """
        port = switch.next_port()
        lines = [
            f"link add {interface} mtu {switch.mtu} type veth peer name {port} mtu {switch.mtu} "
            f"netns {switch.namespace.name}",
            f"link set {interface} up",
        ]
        if address is not None:
            parsed = ipaddress.ip_interface(address)
            lines.append(f"address add {address} dev {interface}{_options(parsed)}")
            self._address = self._address or str(parsed.ip)
        if gateway is not None:
            lines.append(f"route add default via {gateway} dev {interface}")
        switch_lines = [f"link set {port} master {_BRIDGE} up"]
        self.namespace.ip(batch=lines[:1])
        switch.namespace.ip(batch=switch_lines)
        self.namespace.ip(batch=lines[1:])
        self.ports[interface] = Port(switch, port)
        return self.ports[interface]

    @property
    def port(self) -> Port:
        """Its first port."""
        return next(iter(self.ports.values()))

    def run(
        self, *command: str, check: bool = True, timeout: float | None = 60, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end, output captured (see :func:`n2n.lab.namespaces.run`)."""
        return self.namespace.run(*command, check=check, timeout=timeout, **more)

    def spawn(self, *command: str, log: str = "program", env: Mapping[str, str | None] | None = None) -> Process:
        """Start a program here; it ends with the lab at the latest. Its output goes to ``<log>.log``."""
        process = self.namespace.spawn(*command, log=self.folder / f"{log}.log", env=env)
        self.lab.processes.append(process)
        return process

    def python(self, *arguments: str, log: str = "program", env: Mapping[str, str | None] | None = None) -> Process:
        """Start this same Python here (see :meth:`spawn`)."""
        return self.spawn(sys.executable, *arguments, log=log, env=env)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into this host: sockets made meanwhile belong to it for good."""
        return self.namespace.entered()

    def interfaces(self) -> list[str]:
        """Names of its network interfaces."""
        return [line.split()[0].partition("@")[0] for line in self.namespace.ip("-br", "link").splitlines()]


def _options(address: IPv4Interface | IPv6Interface) -> str:
    return " nodad" if address.version == 6 else ""


class Lab:
    """Everything one run makes: hosts, switches, processes, files.

    A context manager; :meth:`close` may be called more than once.

    Args:
        keep_logs: a folder that gets a copy of every log when the lab closes.

    Raises:
        PermissionError: this process may not make namespaces or TAPs.
        PlatformError: iproute2 or /dev/net/tun is missing.
    """

    def __init__(self, *, keep_logs: Path | None = None) -> None:
        need_rights()
        self.hosts: dict[str, Host] = {}
        self.processes: list[Process] = []
        self._keep_logs = keep_logs
        self._closed = False
        number = next(_numbers)
        self.tag = f"n2n-{os.getpid()}" + (f".{number}" if number else "")
        self.folder = cleaner.labs_dir() / self.tag
        try:
            cleaner.labs_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformError(
                f"{cleaner.labs_dir()} cannot be made ({error.strerror}). "
                "Set N2N_LAB_DIR to a folder that can be written."
            ) from error
        cleaner.sweep()
        self._lock = self._claim()
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", cleaner.__file__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _claim(self) -> int:
        for _ in range(50):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            lock = cleaner.hold(self.folder)
            if lock is not None:
                return lock
            time.sleep(0.1)  # another run took it for a leftover and is just removing it
        raise PlatformError(f"the lock {self.folder}/lock cannot be taken: another process holds it")

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def namespace(self, name: str) -> Namespace:
        """A further bare namespace, called ``<tag>-<name>``."""
        return Namespace(f"{self.tag}-{name}", self.tag)

    def switch(self, name: str = "net", *, mtu: int = 1500) -> Switch:
        """A further switch."""
        return Switch(self.namespace(name), mtu)

    def host(self, name: str) -> Host:
        """A further host, attached to nothing yet."""
        host = self.hosts[name] = Host(self, name)
        return host

    def logs(self) -> Iterator[tuple[str, Path]]:
        """Name (host and program) and path of every log so far."""
        for path in sorted(self.folder.rglob("*.log")):
            yield "-".join(path.relative_to(self.folder).with_suffix("").parts), path

    def close(self) -> None:
        """End all processes, remove all namespaces and files. Never raises for what is already gone."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end_processes()
            if self._keep_logs is not None:
                self._keep_logs.mkdir(parents=True, exist_ok=True)
                for name, path in self.logs():
                    shutil.copyfile(path, self._keep_logs / f"{name}.log")
        finally:
            cleaner.remove(self.folder, settle=0)
            os.close(self._lock)
            self._guardian.communicate()  # it sees the end of its input, and nothing left to do

    def leave(self, about: str) -> None:
        """Let everything stand when this process ends, until ``n2n lab down``.

        Args:
            about: text of the file that says so (:data:`n2n.lab.cleaner.STANDING`).
        """
        made = self.folder / "standing.new"
        made.write_text(about)
        made.rename(self.folder / cleaner.STANDING)
        self._closed = True
        os.close(self._lock)
        self._guardian.communicate()  # it sees that this stands, and goes

    def _end_processes(self) -> None:
        for process in reversed(self.processes):
            process.signal(signal.SIGTERM)
        until = time.monotonic() + _STOP_PATIENCE
        for process in reversed(self.processes):
            process.stop(max(0.0, until - time.monotonic()))
