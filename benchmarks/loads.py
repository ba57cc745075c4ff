"""Traffic between two hosts of a lab: iperf3, ping, and the small C program of `load.c`."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n.errors import PlatformError
from n2n.lab.namespaces import Process, wait_until
from n2n.lab.topology import Host


@contextlib.contextmanager
def running(host: Host, *command: str, log: str) -> Iterator[Process]:
    """A program on a host for as long as the block lasts."""
    process = host.spawn(*command, log=log)
    try:
        yield process
    finally:
        process.stop(1)
        host.lab.processes.remove(process)


def iperf(sender: Host, receiver: Host, address: str, seconds: float, *options: str) -> dict[str, Any]:
    """One iperf3 run; returns its report.

    Raises:
        PlatformError: it failed.
    """
    command = ["iperf3", "-c", address, "-t", f"{seconds:g}", "-J", "--connect-timeout", "3000", *options]
    report: dict[str, Any] = {"error": "never started"}
    with running(receiver, "iperf3", "-s", "-1", "-J", "-B", address, log="iperf3"):
        for _ in range(20):  # the server may not listen yet
            output = sender.run(*command, check=False, timeout=seconds + 30).stdout
            with contextlib.suppress(ValueError):
                report = json.loads(output)
            if "error" not in report:
                return report
            time.sleep(0.1)
    raise PlatformError(f"{' '.join(command)}: {report['error']}")


@dataclass(frozen=True)
class Tcp:
    """What iperf3 counted at the receiver."""

    bits_per_second: float
    bytes: int


def tcp(sender: Host, receiver: Host, address: str, seconds: float, streams: int = 1) -> Tcp:
    """TCP in bulk."""
    received = iperf(sender, receiver, address, seconds, "-P", str(streams))["end"]["sum_received"]
    return Tcp(received["bits_per_second"], received["bytes"])


@dataclass(frozen=True)
class Udp:
    """Datagrams: sent and received in a second, and the share in percent that was lost."""

    sent: float
    received: float

    @property
    def loss(self) -> float:
        return 100 * max(0.0, 1 - self.received / self.sent) if self.sent else float("nan")


def udp_of(report: dict[str, Any], seconds: float) -> Udp:
    """The receiver's own view in a report of iperf3 with the server's output."""
    far = report.get("server_output_json", {}).get("end", {})
    streams = [stream["udp"] for stream in far.get("streams", []) if "udp" in stream]
    if not streams:
        raise PlatformError("iperf3 gave no result of the receiver")
    got = sum(stream["packets"] - stream["lost_packets"] for stream in streams)
    sent = sum(stream["udp"]["packets"] for stream in report["end"]["streams"])
    return Udp(sent / seconds, got / seconds)


def udp(sender: Host, receiver: Host, address: str, seconds: float, size: int, rate: int = 0) -> Udp:
    """iperf3 datagrams of `size` bytes; `rate` a second, or 0: as fast as it can, one call for each."""
    options = ["-u", "-l", str(size), "-b", str(rate * size * 8), "--get-server-output"]
    return udp_of(iperf(sender, receiver, address, seconds, *options), seconds)


def ping(host: Host, address: str, count: int, interval: float = 0.005) -> tuple[float, float]:
    """Median and 99th percentile of the round-trip time in microseconds.

    Raises:
        PlatformError: more than half of the answers are missing.
    """
    command = ["ping", "-n", "-c", str(count), "-i", f"{interval:g}", "-W", "1", address]
    times = times_of(host.run(*command, check=False, timeout=count * interval + 30).stdout)
    if len(times) < count / 2:
        raise PlatformError(f"ping: {len(times)} answers to {count}")
    return statistics.median(times), sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


def times_of(output: str) -> list[float]:
    """Round-trip times in microseconds from the output of ping."""
    return [float(value) * 1000 for value in re.findall(r"time=([\d.]+) ms", output)]


# ---- the small C program -------------------------------------------------------------------------


@contextlib.contextmanager
def compiled() -> Iterator[str]:
    """Path of `load.c`, compiled into a temporary folder.

    Raises:
        PlatformError: there is no C compiler, or it failed.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise PlatformError("there is no C compiler. Install one: apt-get install -y gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="n2n-load-") as folder:
        program = f"{folder}/load"
        command = [compiler, "-O2", "-Wall", "-o", program, str(Path(__file__).with_name("load.c"))]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        if result.returncode:
            raise PlatformError(f"{' '.join(command)} failed:\n{result.stderr[-1000:]}")
        yield program


def fields_of(output: str) -> dict[str, float]:
    """The last line of name=value words that `load` prints.

    Raises:
        PlatformError: there is none.
    """
    for line in reversed(output.splitlines()):
        found = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", line)}
        if found:
            return found
    raise PlatformError(f"load printed no result: {output[-300:]!r}")


@dataclass(frozen=True)
class Bulk:
    """Datagrams of `load`: sent and received in a second, and the bits that arrived in a second."""

    sent: float
    received: float
    bits: float
    bytes: float

    @property
    def loss(self) -> float:
        return 100 * max(0.0, 1 - self.received / self.sent) if self.sent else float("nan")


@dataclass(frozen=True)
class Flow:
    """What one sender sends: datagrams of `size` bytes, `rate` a second (0: as fast as it can).

    Args:
        train: so many by one call with UDP_SEGMENT; 1: single ones.
        prefix: the first bytes of each.
        gro: the receiver takes trains.
        source: port that it sends from; 0: any.
    """

    size: int
    rate: int = 0
    train: int = 1
    prefix: bytes = b""
    gro: bool = True
    source: int = 0

    def send(self, program: str, address: str, port: int, seconds: float) -> list[str]:
        words = [program, "send", address, port, self.size, f"{seconds:g}", self.rate, self.train, self.source]
        return [str(word) for word in words] + ([self.prefix.hex()] if self.prefix else [])

    def receive(self, program: str, port: int, seconds: float) -> list[str]:
        return [program, "receive", str(port), f"{seconds + 5:g}", str(int(self.gro))]


def start_receiver(host: Host, program: str, flow: Flow, port: int, seconds: float) -> Process:
    """Start the receiving end, and wait until it listens."""
    log = f"load-{time.monotonic_ns()}"
    process = host.spawn(*flow.receive(program, port, seconds), log=log)
    wait_until("the receiver listens", lambda: "ready" in process.tail(), 5, every=0.01)
    return process


def result_of(receiver: Process, host: Host, sent: str, seconds: float) -> Bulk:
    """Wait until a receiver has counted; `sent` is what the sender printed."""
    try:
        receiver.wait(seconds + 8)
    finally:
        receiver.stop(0.1)
        host.lab.processes.remove(receiver)
    out = fields_of(sent)
    try:
        got = fields_of(receiver.tail())
    except PlatformError:
        got = {"received": 0.0, "bytes": 0.0}
    span = max(got.get("seconds", 0.0), out["seconds"])  # a queue may drain after the sender has ended
    return Bulk(out["sent"] / out["seconds"], got["received"] / span, got["bytes"] * 8 / span, got["bytes"])


def bulk(
    sender: Host, receiver: Host, address: str, seconds: float, program: str, flow: Flow, port: int = 9000
) -> Bulk:
    """One flow of `load` from one host to another."""
    far = start_receiver(receiver, program, flow, port, seconds)
    sent = sender.run(*flow.send(program, address, port, seconds), check=False, timeout=seconds + 30)
    if sent.returncode:
        far.stop(0.1)
        receiver.lab.processes.remove(far)
        raise PlatformError(f"load send: {sent.stderr.strip()}")
    return result_of(far, receiver, sent.stdout, seconds)
