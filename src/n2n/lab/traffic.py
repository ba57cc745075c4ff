"""TCP in bulk with a checksum at both ends, and ping: what a lab sends through a network to see whether it works.

The two ends of a transfer are processes of their own (``python -m n2n.lab.traffic receive|send``), started in the
namespaces of their hosts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
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

__all__ = ["PingResult", "Transfer", "ping", "transfer"]

_MODULE: Final = "n2n.lab.traffic"
_BLOCK: Final = 1 << 18
_PATIENCE: Final = 20.0  # seconds that a connection may stand still
_STATISTICS: Final = re.compile(r"(\d+) packets transmitted, (\d+) received")
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
