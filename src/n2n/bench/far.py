"""One end of a session with another edge's responder (:mod:`n2n.daemon.responder` says what goes over it)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final, TypeVar

from n2n.errors import NotReady, PlatformError

__all__ = ["LATE", "PATIENCE", "Far", "Usage", "number_of", "token_of"]

#: Seconds to wait for an answer.
PATIENCE: Final = 5.0
#: Seconds to wait for datagrams that are late, before they are lost.
LATE: Final = 1.0
#: Datagrams in a second, and their size: what a call or a game sends.
_ECHO_RATE: Final = 400.0
_ECHO_SIZE: Final = 172
_BLOCK: Final = 1 << 18
_LINE: Final = 65536
#: Seconds in which a line must have come.
_LINE_PATIENCE: Final = 20.0

T = TypeVar("T")
Usage = dict[str, dict[str, float]]


class Far:
    """The session with the peer's edge. It may be hostile: what it says is bounded and checked.

    Args:
        found: what the edge of this host said.
        seconds: that the session may take.
        rate: bits in a second.
    """

    def __init__(self, found: dict[str, Any], seconds: float, rate: float) -> None:
        self._name = str(found["peer"]["name"])
        self._from = str(IPv4Address(found["address"]))
        self._to = (str(IPv4Address(found["peer"]["virtual_ip"])), int(found["port"]))
        self._rate = rate / 8
        self._seconds = seconds
        self._until = 0.0
        self._token = ""
        self._control: _Line | None = None

    def __enter__(self) -> Far:
        self._control = _Line(self._connect(), self._name)
        try:
            answer = self._control.ask(do="open", seconds=self._seconds, rate=self._rate * 8)
            self._token = token_of(answer, self._name)
        except BaseException:
            self._control.close()
            raise
        self._until = time.monotonic() + self._seconds
        return self

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()

    def seconds_left(self) -> float:
        """Of the session."""
        return max(0.0, self._until - time.monotonic())

    def ask(self, do: str, **more: object) -> dict[str, Any]:
        """A question on the session's own connection."""
        assert self._control is not None
        return self._control.ask(do=do, **more)

    def usage(self) -> Usage:
        """CPU seconds of the peer's threads so far."""
        answer = self.ask("usage").get("usage")
        if not isinstance(answer, dict):
            raise PlatformError(f"{self._name} answered something that is no usage")
        found: Usage = {}
        for thread, used in list(answer.items())[:64]:
            if isinstance(used, dict):
                values = {kind: used.get(kind) for kind in ("user", "system")}
                found[str(thread)[:32]] = {kind: number_of(value) for kind, value in values.items()}
        return found

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(PATIENCE)
        try:
            sock.bind((self._from, 0))
            sock.connect(self._to)
        except ConnectionRefusedError:
            sock.close()
            raise PlatformError(
                f"{self._name} has not agreed to be measured: allow_bench: true in its edge's configuration allows it"
            ) from None
        except OSError as error:
            sock.close()
            why = "no answer" if isinstance(error, TimeoutError) else str(error.strerror)
            raise NotReady(
                f"{self._name} cannot be reached at {self._to[0]}, TCP port {self._to[1]}: {why}. Does a firewall on "
                f"its host keep that port of the TAP device closed? Try: ping {self._to[0]}"
            ) from error
        return sock

    def echo(self, seconds: float) -> tuple[int, list[float]]:
        """Datagrams there and back.

        Returns:
            How many went, and the nanoseconds of each that came back, in the order in which they went.
        """
        token, fill = bytes.fromhex(self._token), os.urandom(_ECHO_SIZE - 16)
        out: dict[int, int] = {}
        back: dict[int, float] = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.bind((self._from, 0))
            sock.connect(self._to)
            start = time.monotonic()
            end = start + seconds
            while (now := time.monotonic()) < end or (now < end + LATE and len(back) < len(out)):
                if now < end and len(out) <= (now - start) * _ECHO_RATE:
                    number = len(out)
                    out[number] = time.perf_counter_ns()
                    with contextlib.suppress(OSError):  # lost, as it happens to datagrams
                        sock.send(token + number.to_bytes(8, "big") + fill)
                next_one = start + len(out) / _ECHO_RATE if now < end else end + LATE
                if select.select([sock], [], [], max(0.0, next_one - time.monotonic()))[0]:
                    with contextlib.suppress(OSError):
                        datagram = sock.recv(2 * _ECHO_SIZE)
                        at, number = time.perf_counter_ns(), int.from_bytes(datagram[8:16], "big")
                        if len(datagram) == _ECHO_SIZE and datagram[:8] == token and number in out:
                            back.setdefault(number, at - out[number])
        return len(out), [back[number] for number in sorted(back)]

    def push(self, seconds: float) -> tuple[int, float]:
        """A stream to the peer; returns bytes and seconds as the peer counted them."""
        with contextlib.closing(_Line(self._connect(), self._name)) as line:
            line.ask(do="sink", token=self._token)
            block = os.urandom(_BLOCK)
            count, start = 0, time.monotonic()
            while time.monotonic() - start < seconds:
                line.send(block)
                count += len(block)
                self._pace(count, start)
            line.sock.shutdown(socket.SHUT_WR)
            line.sock.settimeout(seconds + PATIENCE)
            answer = line.read()
        taken = number_of(answer.get("bytes"))
        return int(min(taken, count)), number_of(answer.get("seconds"))

    def pull(self, seconds: float) -> tuple[int, float]:
        """A stream from the peer; returns bytes and seconds as they were counted here."""
        with contextlib.closing(_Line(self._connect(), self._name)) as line:
            line.ask(do="source", token=self._token, seconds=seconds)
            buffer = bytearray(_BLOCK)
            count, start = 0, time.monotonic()
            while (size := line.receive(buffer)) and time.monotonic() - start < seconds + PATIENCE:
                count += size
                self._pace(count, start)
            return count, time.monotonic() - start

    def _pace(self, count: int, start: float) -> None:
        ahead = count / self._rate - (time.monotonic() - start)
        if ahead > 0.002:
            time.sleep(min(ahead, 1.0))


class _Line:
    """A connection that begins with lines of JSON."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.sock = sock
        self._name = name

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def ask(self, **request: object) -> dict[str, Any]:
        """Send a line and read its answer.

        Raises:
            PlatformError: it was refused, or makes no sense.
        """
        self.send(json.dumps(request).encode() + b"\n")
        answer = self.read()
        if answer.get("ok") is not True:
            why = "".join(c for c in str(answer.get("why"))[:200] if c.isprintable())
            raise PlatformError(f"{self._name} does not do that: {why}")
        return answer

    def send(self, data: bytes) -> None:
        """All of it."""
        self._guard(lambda: self.sock.sendall(data))

    def receive(self, buffer: bytearray) -> int:
        """What has come; 0 at the end."""
        return self._guard(lambda: self.sock.recv_into(buffer))

    def read(self) -> dict[str, Any]:
        """The next line, byte by byte: what comes behind it is not ours."""
        line = bytearray()
        until = time.monotonic() + _LINE_PATIENCE
        while not line.endswith(b"\n") and len(line) < _LINE and time.monotonic() < until:
            if not (part := self._guard(lambda: self.sock.recv(1))):
                raise PlatformError(f"{self._name} broke off: is its edge being stopped?")
            line += part
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        raise PlatformError(f"{self._name} answered something that is no line of JSON")

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except TimeoutError:
            raise NotReady(f"{self._name} did not answer in time") from None
        except OSError as error:
            raise PlatformError(f"{self._name} broke off: {error.strerror}") from error


def token_of(answer: dict[str, Any], name: str) -> str:
    """The 16 hexadecimal digits of a peer's answer; PlatformError where there are none."""
    token = str(answer.get("token"))
    if len(token) != 16 or not all(c in "0123456789abcdef" for c in token):
        raise PlatformError(f"{name} answered something that is no token")
    return token


def number_of(value: object) -> float:
    """What a peer calls a number; 0 where it is none, or below 0, or 1e15 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return 0.0
    return float(value)
