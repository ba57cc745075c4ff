"""TCP in bulk with a checksum at both ends, and ping: what a lab sends through a network to see whether it works.

The two ends of a transfer are processes of their own (``python -m n2n.lab.traffic receive|send``), started in the
namespaces of their hosts.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import signal
import socket
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from n2n.errors import PlatformError

if TYPE_CHECKING:
    from n2n.lab.topology import Host

__all__ = ["PingResult", "Stream", "Transfer", "ping", "transfer"]

_MODULE: Final = "n2n.lab.traffic"
_BLOCK: Final = 1 << 18
_PATIENCE: Final = 20.0  # seconds that a connection may stand still
_STATISTICS: Final = re.compile(r"(\d+) packets transmitted, (\d+) received")
_ANSWER: Final = re.compile(r"\[([\d.]+)\] \d+ bytes from .*? icmp_seq=(\d+) ")
_TIMES: Final = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms")


@dataclass(frozen=True, slots=True)
class PingResult:
    """What `ping` counted; times are milliseconds, None where no answer came."""

    sent: int
    received: int
    min_ms: float | None
    avg_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One stretch of TCP.

    Args:
        bytes: payload that was sent and acknowledged by the receiving program.
        seconds: from the first byte sent until the receiver said that it had the last.
        bits_per_second: payload over that time.
        verified: the receiver counted the same bytes with the same checksum (CRC-32).
    """

    bytes: int
    seconds: float
    bits_per_second: float
    verified: bool


def ping(
    host: Host, target: str, *, count: int = 3, interval: float = 0.2, size: int = 56, options: Sequence[str] = ()
) -> PingResult:
    """Ping `target` from `host`.

    Args:
        size: of the ICMP payload in bytes.
        options: further ones of ping(8).

    Raises:
        PlatformError: ping itself failed (a lost answer is no failure).
    """
    command = ["ping", "-n", "-c", str(count), "-i", f"{interval:g}", "-W", "1", "-s", str(size), *options, target]
    result = host.run(*command, check=False, timeout=count * (interval + 1) + 10)
    counts = _STATISTICS.search(result.stdout)
    if counts is None:
        raise PlatformError(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    times = _TIMES.search(result.stdout)
    low, mean, high = (float(times[n]) for n in (1, 2, 3)) if times else (None, None, None)
    return PingResult(int(counts[1]), int(counts[2]), low, mean, high)


class Stream:
    """Pings from `host` to `target` at an even pace until it is stopped, to see what a change of paths costs.

    A context manager, which stops it.

    Args:
        interval: seconds between two.
    """

    def __init__(self, host: Host, target: str, *, interval: float = 0.02) -> None:
        self.interval = interval
        command = ["ping", "-n", "-D", "-i", f"{interval:g}", "-W", "1", target]
        self._host = host
        self._process = host.spawn(*command, log=f"stream-{time.monotonic_ns()}")
        self.answers: list[tuple[float, int]] = []
        """Unix time and number of every answer that came; filled when it is stopped."""
        self.sent = 0
        """How many were sent; known when it is stopped."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and read what it found.

        Raises:
            PlatformError: ping itself failed.
        """
        if self._process not in self._host.lab.processes:
            return
        self._process.signal(signal.SIGINT)  # it prints its sums then
        self._process.wait(_PATIENCE)
        self._host.lab.processes.remove(self._process)
        text = self._process.log.read_text(errors="replace")
        counts = _STATISTICS.search(text)
        if counts is None:
            raise PlatformError(f"ping from {self._host.name} failed: {text[-500:].strip()}")
        self.sent = int(counts[1])
        self.answers = [(float(found[1]), int(found[2])) for found in _ANSWER.finditer(text)]

    @property
    def lost(self) -> int:
        """Pings without an answer."""
        return self.sent - len({number for _, number in self.answers})

    def gap(self) -> float:
        """The longest time in seconds for which pings that were sent found no answer."""
        numbers = sorted({number for _, number in self.answers})
        gaps = [after - before - 1 for before, after in itertools.pairwise([0, *numbers, self.sent + 1])]
        return max(gaps) * self.interval


def transfer(
    sender: Host,
    receiver: Host,
    address: str,
    *,
    seconds: float | None = None,
    size: int | None = None,
    port: int = 5201,
) -> Transfer:
    """Send bytes by TCP from `sender` to `address` of `receiver`, for `seconds` or until `size` bytes are sent.

    Raises:
        PlatformError: no connection, or it broke or stood still; the message holds what the programs said.
    """
    far = receiver.python("-m", _MODULE, "receive", address, str(port), log="tcp-receive")
    limit = ["--seconds", str(seconds)] if seconds is not None else ["--size", str(size or 0)]
    command = [sys.executable, "-m", _MODULE, "send", address, str(port), *limit]
    try:
        result = sender.run(*command, check=False, timeout=(seconds or 60) + 3 * _PATIENCE)
    finally:
        far.stop(1.0)
        receiver.lab.processes.remove(far)
    if result.returncode:
        words = result.stderr.strip().splitlines()[-1:] + far.tail(500).strip().splitlines()[-1:]
        raise PlatformError(f"TCP from {sender.name} to {address} failed: {'; '.join(words)}")
    return Transfer(**json.loads(result.stdout))


# ---- the two ends --------------------------------------------------------------------------------


def _blocks() -> tuple[bytes, ...]:
    """Four blocks that neither repeat within themselves nor compress."""
    return tuple(hashlib.shake_128(bytes([number])).digest(_BLOCK) for number in range(4))


def _receive(address: str, port: int) -> None:
    with socket.create_server((address, port)) as server:
        server.settimeout(_PATIENCE)
        connection, _ = server.accept()
    with connection:
        connection.settimeout(_PATIENCE)
        buffer = memoryview(bytearray(_BLOCK))
        count = checksum = 0
        while size := connection.recv_into(buffer):
            checksum = zlib.crc32(buffer[:size], checksum)
            count += size
        connection.sendall(json.dumps({"bytes": count, "crc": checksum}).encode())


def _connect(address: str, port: int) -> socket.socket:
    until = time.monotonic() + 5
    while True:
        try:
            return socket.create_connection((address, port), timeout=_PATIENCE)
        except ConnectionRefusedError:  # the receiver is still starting
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _send(address: str, port: int, seconds: float | None, size: int) -> Transfer:
    blocks = _blocks()
    with _connect(address, port) as connection:
        count = checksum = number = 0
        start = time.monotonic()
        while (time.monotonic() - start < seconds) if seconds is not None else (count < size):
            block = blocks[number % len(blocks)]
            if seconds is None:
                block = block[: size - count]
            connection.sendall(block)
            checksum = zlib.crc32(block, checksum)
            count += len(block)
            number += 1
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(4096):
            answer += part
        elapsed = time.monotonic() - start
    verified = json.loads(answer) == {"bytes": count, "crc": checksum}
    return Transfer(count, elapsed, count * 8 / elapsed, verified)


def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}")
    parser.add_argument("end", choices=["receive", "send"])
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--size", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.end == "receive":
        _receive(options.address, options.port)
        return
    result: dict[str, Any] = asdict(_send(options.address, options.port, options.seconds, options.size))
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        _main()
    except OSError as problem:
        sys.exit(f"{Path(__file__).stem}: {problem}")
