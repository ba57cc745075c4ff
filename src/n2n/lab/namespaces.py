"""Network namespaces: made, entered, and run in, through iproute2.

Nothing here knows what n2n is; :mod:`n2n.lab.topology` builds networks from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from n2n.errors import NotReady, PlatformError
from n2n.lab.cleaner import MARK, NETNS_DIR

__all__ = ["Namespace", "Process", "ip", "need_rights", "run", "wait_until", "which"]

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_REMEDY: Final = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
    "nft": "nftables",
    "conntrack": "conntrack",
    "miniupnpd": "miniupnpd-nftables",
}


def which(tool: str) -> str | None:
    """Path of a program on PATH or in an sbin folder, or None."""
    return shutil.which(tool, path=_PATH)


def need_rights(*tools: str) -> None:
    """Check that this process may make namespaces and TAPs, and that `tools` are installed.

    Raises:
        PermissionError: this process may not; the message says what is missing.
        PlatformError: a tool or /dev/net/tun is missing; the message says how to get it.
    """
    for tool in ("ip", *tools):
        if which(tool) is None:
            raise PlatformError(
                f"the program {tool!r} is missing. Install it: apt-get install -y {_REMEDY.get(tool, tool)}"
            )
    if os.geteuid() != 0:
        raise PermissionError("network namespaces and TAP devices need root. Run the same command with sudo.")
    if not Path("/dev/net/tun").exists():
        raise PlatformError(
            "/dev/net/tun is missing. On a machine: modprobe tun. In a container: start it with --device /dev/net/tun."
        )
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise PermissionError(
            f"/dev/net/tun cannot be opened ({error.strerror}). In a container: start it with --device /dev/net/tun "
            "--cap-add NET_ADMIN --cap-add SYS_ADMIN."
        ) from error


def run(
    command: Sequence[str], *, check: bool = True, timeout: float | None = 60, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, its output captured as text.

    Raises:
        PlatformError: it could not be started, ended with another status than 0 (where `check`), or took longer
            than `timeout` seconds; the message holds what it wrote.
    """
    environment = {**os.environ, **more.pop("env", {}), "PATH": _PATH}
    try:
        result = subprocess.run(
            command, check=False, timeout=timeout, text=True, capture_output=True, env=environment, **more
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(f"{' '.join(command)} did not end within {timeout} s") from None
    except OSError as error:
        raise PlatformError(f"{command[0]} could not be started: {error}") from error
    if check and result.returncode:
        words = (result.stderr.strip() or result.stdout.strip())[-2000:]
        raise PlatformError(f"{' '.join(command)} failed with status {result.returncode}: {words}")
    return result


def ip(*arguments: str, batch: Sequence[str] = ()) -> str:
    """Run `ip`, or, with `batch`, one `ip` that carries out many lines. Returns what it printed."""
    if batch:
        return run(["ip", *arguments, "-batch", "-"], input="\n".join(batch) + "\n").stdout
    return run(["ip", *arguments]).stdout


class Process:
    """A program that runs in a namespace; it is only ever ended by its process id.

    Args:
        popen: the running program.
        log: the file that takes its output.
    """

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log
        self.pid = popen.pid

    @property
    def alive(self) -> bool:
        """True until the program has ended."""
        return self._popen.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal that ended it), or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int:
        """Wait for its end; returns the exit status.

        Raises:
            PlatformError: it still runs after `timeout` seconds.
        """
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise PlatformError(f"process {self.pid} still runs after {timeout} s\n{self.tail()}") from None

    def signal(self, number: int) -> None:
        """Send a signal; none where it has ended."""
        if self.alive:
            self._popen.send_signal(number)

    def stop(self, timeout: float = 5.0) -> int:
        """SIGTERM, and SIGKILL after `timeout` seconds; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL; returns the exit status, -9."""
        self.signal(signal.SIGKILL)
        return self._popen.wait()

    def tail(self, size: int = 3000) -> str:
        """The last `size` bytes of what it wrote."""
        try:
            return self.log.read_bytes()[-size:].decode(errors="replace")
        except OSError:
            return ""

    def memory(self) -> int:
        """Resident memory (VmRSS) in bytes; 0 where it has ended."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far; 0 where it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Namespace:
    """One named network namespace, with its loopback up and IPv6 addresses usable at once.

    Args:
        name: as ``ip netns`` shows it.
        tag: mark for what runs in it (see :mod:`n2n.lab.cleaner`).
    """

    def __init__(self, name: str, tag: str) -> None:
        self.name = name
        self.tag = tag
        ip("netns", "add", name)
        with self.entered():
            # Without this the first second of IPv6 on a new link is lost to duplicate address detection.
            for scope in ("all", "default"):
                for key, value in (("accept_dad", "0"), ("dad_transmits", "0"), ("router_solicitations", "0")):
                    with contextlib.suppress(OSError):
                        # /proc/sys/net shows the namespace of whoever looks
                        Path(f"/proc/sys/net/ipv6/conf/{scope}/{key}").write_text(value)
        self.ip("link", "set", "lo", "up")

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return NETNS_DIR / self.name

    def ip(self, *arguments: str, batch: Sequence[str] = ()) -> str:
        """`ip` in this namespace."""
        return ip("-n", self.name, *arguments, batch=batch)

    def run(
        self, *command: str, check: bool = True, timeout: float | None = 60, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this namespace to its end (see :func:`run`)."""
        more["env"] = {**more.get("env", {}), MARK: self.tag}
        return run(["ip", "netns", "exec", self.name, *command], check=check, timeout=timeout, **more)

    def spawn(self, *command: str, log: Path, env: Mapping[str, str | None] | None = None) -> Process:
        """Start a program in this namespace; its output is added to the file `log`.

        It leads a session of its own, so that Ctrl-C at the terminal reaches whoever runs the lab and not it.

        Args:
            env: changes to the environment; None takes a variable away.
        """
        environment: dict[str, str] = {**os.environ, "PATH": _PATH, MARK: self.tag, "PYTHONUNBUFFERED": "1"}
        for key, value in (env or {}).items():
            if value is None:
                environment.pop(key, None)
            else:
                environment[key] = value
        with log.open("ab") as output:
            popen = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return Process(popen, log)

    def python(self, *arguments: str, log: Path, env: Mapping[str, str | None] | None = None) -> Process:
        """Start this same Python in the namespace."""
        return self.spawn(sys.executable, *arguments, log=log, env=env)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread (only it) into this namespace: sockets made meanwhile stay in it.

        Raises:
            OSError: the kernel refused.
        """
        libc = ctypes.CDLL(None, use_errno=True)  # os.setns exists from Python 3.12 on
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            here = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.setns(here, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns to {self.name}")
                try:
                    yield
                finally:
                    if libc.setns(home, _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns back")
            finally:
                os.close(here)
        finally:
            os.close(home)

    def delete(self) -> None:
        """Delete it; what it holds goes as soon as no process uses it."""
        run(["ip", "netns", "del", self.name], check=False)


def wait_until(what: str, ready: Callable[[], T], timeout: float, *, every: float = 0.05) -> T:
    """Call `ready` until it returns something true, and return that.

    Raises:
        NotReady: nothing true within `timeout` seconds.
    """
    until = time.monotonic() + timeout
    while True:
        if value := ready():
            return value
        if time.monotonic() > until:
            raise NotReady(f"{what}: not within {timeout:g} s")
        time.sleep(every)
