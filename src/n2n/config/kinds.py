"""Kinds of configuration values: how each is read from text and from YAML, what it may be, how it is shown.

Every function here raises `BadValueError` with a text that completes "key: ..."; the loader says whence the value.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from n2n.config.durations import format_duration, parse_duration
from n2n.errors import ProtocolError
from n2n.wire.hashes import clean_name, name_bytes

__all__ = [
    "AUTO_BOOLEAN",
    "AUTO_PORT",
    "BASE_ADDRESS",
    "BIND",
    "BOOLEAN",
    "COMMUNITY",
    "EDGE_NAME",
    "LISTEN_ADDRESS",
    "LOCAL_ADDRESS",
    "MASK",
    "OPTIONAL_PATH",
    "PAGES_ADDRESS",
    "PATH",
    "PROBE_PORT",
    "SECRET",
    "STATE_DIR",
    "TAP_NAME",
    "THREADS",
    "TOKEN",
    "BadValueError",
    "Kind",
    "check_host_port",
    "choice",
    "duration",
    "expect_text",
    "integer",
    "is_loopback",
    "number",
    "split_host_port",
]

#: What stands in place of a secret.
MASK: Final = "********"
#: The supernode's own limit.
_LONGEST_COMMUNITY: Final = 1024
_WORDS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class BadValueError(ValueError):
    """A value is of another kind than its key's, or impossible; the text is for people."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    Args:
        what: for messages ("a whole number").
        types: what the value is in a finished configuration.
        of_text: reads it from an environment variable or a flag.
        of_yaml: reads it from what YAML makes of it (bool, int, float, str, ...).
        check: refuses impossible values.
        show: writes it as a person would.
        secret: never shown.
    """

    what: str
    types: type | tuple[type, ...]
    of_text: Callable[[str], Any]
    of_yaml: Callable[[object], Any]
    check: Callable[[Any], None] = lambda _: None
    show: Callable[[Any], str] = str
    secret: bool = False

    def read(self, raw: object, *, text: bool) -> Any:
        """The value in `raw`.

        Args:
            raw: as the source has it.
            text: it is a text that stands for a value (environment, flag), not a typed one (YAML).

        Raises:
            BadValueError: it is of another kind, or impossible.
        """
        value = self.of_text(raw) if text and isinstance(raw, str) else self.of_yaml(raw)
        self.check(value)
        return value

    def validate(self, value: Any) -> None:
        """Check a value that a program gave.

        Raises:
            BadValueError: it is of another type, or impossible.
        """
        types = self.types if isinstance(self.types, tuple) else (self.types,)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise BadValueError(f"{_shown(value, self)} is not {self.what}")
        self.check(value)


def _shown(value: object, kind: Kind | None = None) -> str:
    """A value in a message: shortened, and hidden if it is a secret."""
    if kind is not None and kind.secret:
        return "the value"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}..."


def expect_text(value: object, what: str) -> str:
    """What YAML made of a text.

    Raises:
        BadValueError: it made something else of it.
    """
    """YAML makes numbers and booleans of some unquoted texts: say so, rather than guess how they were written."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float) or value.__class__.__module__ == "datetime":
        name = {bool: "truth value", int: "number", float: "number"}.get(type(value), "date")
        raise BadValueError(f"YAML takes this for a {name} ({_shown(value)}): to write {what}, put it in quotes")
    raise BadValueError(f"expected {what}, found {_shape(value)}")


def _shape(value: object) -> str:
    return {list: "a list", dict: "a section", bool: "a truth value"}.get(type(value), _shown(value))


def _text(
    what: str,
    check: Callable[[Any], None],
    read: Callable[[str], Any] = str,
    types: type | tuple[type, ...] = str,
    **more: Any,
) -> Kind:
    """A kind whose YAML form is a text too."""
    return Kind(what, types, read, lambda value: read(expect_text(value, what)), check, **more)


def _read_boolean(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise BadValueError(f"{_shown(text)} is neither true nor false") from None


def _yaml_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValueError(f"expected true or false (without quotes), found {_shape(value)}")
    return value


BOOLEAN: Final = Kind("true or false", bool, _read_boolean, _yaml_boolean, show=lambda value: str(value).lower())


def _read_auto(text: str) -> bool | None:
    return None if text.strip().lower() == "auto" else _read_boolean(text)


#: True, false, or None for "auto".
AUTO_BOOLEAN: Final = Kind(
    "true, false or auto",
    (bool, type(None)),
    _read_auto,
    lambda value: None if value == "auto" else _yaml_boolean(value),
    show=lambda value: "auto" if value is None else str(value).lower(),
)


def _range(low: float, high: float, show: Callable[[Any], str]) -> Callable[[Any], None]:
    def check(value: float) -> None:
        if not low <= value <= high:  # also refuses "not a number"
            raise BadValueError(f"{show(value)} is not between {show(low)} and {show(high)}")

    return check


def integer(low: int, high: int) -> Kind:
    """A whole number in a range, bounds included."""

    def of_text(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
            raise BadValueError(f"{_shown(text)} is not a whole number")
        return int(text)

    def of_yaml(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValueError(f"expected a whole number (without quotes), found {_shape(value)}")
        return value

    return Kind("a whole number", int, of_text, of_yaml, _range(low, high, _short_number))


def _read_threads(value: object) -> int:
    """A number of threads; the word "auto" is 0."""
    text = str(value).strip().lower()
    if text == "auto":
        return 0
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 64:
        raise BadValueError(f"{_shown(value)} is neither auto nor a number from 1 to 64")
    return int(text)


def _check_threads(value: int) -> None:
    if not 0 <= value <= 64:
        raise BadValueError(f"{value} is not between 1 and 64 (nor 0, which is auto)")


def _read_probe_port(value: object) -> int:
    """A port; the word "auto" is -1."""
    text = str(value).strip().lower()
    if text == "auto":
        return AUTO_PORT
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise BadValueError(f"{_shown(value)} is neither auto nor a port (0 for none, or 1 to 65535)")
    return int(text)


def _check_probe_port(value: int) -> None:
    if not AUTO_PORT <= value <= 65535:
        raise BadValueError(f"{value} is not between 0 and 65535 (nor -1, which is auto)")


#: In a finished configuration: the port after the main one.
AUTO_PORT: Final = -1
#: A supernode's second port: 1 to 65535, 0 for none, -1 in a finished configuration means "auto".
PROBE_PORT: Final = Kind(
    "a port, or auto",
    int,
    _read_probe_port,
    _read_probe_port,
    _check_probe_port,
    lambda value: "auto" if value == AUTO_PORT else str(value),
)


#: Threads of the data plane: 1 to 64, 0 in a finished configuration means "auto".
THREADS: Final = Kind(
    "a number of threads", int, _read_threads, _read_threads, _check_threads, lambda n: str(n) if n else "auto"
)


def number(low: float, high: float) -> Kind:
    """A number in a range, bounds included."""

    def of_text(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise BadValueError(f"{_shown(text)} is not a number") from None

    def of_yaml(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadValueError(f"expected a number (without quotes), found {_shape(value)}")
        return float(value) if abs(value) < 1e300 else math.inf

    return Kind("a number", (float, int), of_text, of_yaml, _range(low, high, _short_number), show=_short_number)


def _short_number(value: float) -> str:
    if isinstance(value, int):
        return str(value) if abs(value) < 1e18 else "a number that long"
    return f"{value:g}"


def duration(low: float, high: float) -> Kind:
    """A duration in seconds, written like ``1m30s``; bounds included."""

    def of_yaml(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise BadValueError(f"{_shown(value)} has no unit: write it like 10s, 1m30s or 2h")
        return parse_duration(expect_text(value, "a duration such as 10s"))

    return Kind(
        "a duration in seconds",
        (float, int),
        lambda text: parse_duration(text.strip()),
        of_yaml,
        _range(low, high, format_duration),
        show=format_duration,
    )


def choice(*words: str) -> Kind:
    """One of some words."""

    def check(value: str) -> None:
        if value not in words:
            raise BadValueError(f"{_shown(value)} is none of: {', '.join(words)}")

    return _text(f"one of: {', '.join(words)}", check, lambda text: text.strip().lower())


def _check_edge_name(value: str) -> None:
    if not value or value != clean_name(value):
        raise BadValueError(f"{_shown(value)}: a name has 1 to 64 characters and no invisible ones")


def _check_community(value: str) -> None:
    try:
        size = len(name_bytes(value))
    except ProtocolError as error:
        raise BadValueError(str(error)) from None
    if not 1 <= size <= _LONGEST_COMMUNITY:
        raise BadValueError(f"a community's name has 1 to {_LONGEST_COMMUNITY} bytes, not {size}")


def _check_tap_name(value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,14}", value):
        raise BadValueError(f"{_shown(value)}: a TAP name has 1 to 15 characters: letters, digits, '_', '-' and '.'")


def split_host_port(text: str) -> tuple[str, int]:
    """Cut ``host:port`` or ``[IPv6 address]:port``; the host may be empty.

    Raises:
        BadValueError: it has another form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise BadValueError(f"{_shown(text)} does not end in a port, such as :7777")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not isinstance(_address(host, text), ipaddress.IPv6Address):
            raise BadValueError(f"{_shown(text)}: brackets are for IPv6 addresses")
    elif ":" in host:
        raise BadValueError(f"{_shown(text)}: write an IPv6 address in brackets, such as [2001:db8::1]:7777")
    return host, int(port)


def _address(host: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        raise BadValueError(f"{_shown(text)}: {_shown(host)} is not an IP address") from None


def check_host_port(value: str) -> None:
    """Refuse what is not host:port.

    Raises:
        BadValueError: it says why.
    """
    if re.search(r"[/\s]", value):
        raise BadValueError(f"{_shown(value)}: write host:port alone, without http:// or blanks")
    host, port = split_host_port(value)
    if not host or not port:
        raise BadValueError(f"{_shown(value)} is not host:port, such as vpn.example.org:7777")


def _check_listen_address(value: str) -> None:
    host, port = split_host_port(value)
    if host:
        try:
            _address(host, value)
        except ValueError as error:
            raise BadValueError(f"{error}. Write :{port} to listen on every address") from None


def _check_pages_address(value: str) -> None:
    if value:
        _check_listen_address(value)


def _check_local_address(value: str) -> None:
    _check_pages_address(value)
    if value and not is_loopback(value):
        raise BadValueError(f"{_shown(value)} can be reached from other hosts: listen on 127.0.0.1, behind a proxy")


def is_loopback(address: str) -> bool:
    """Whether ``IP:port`` can be reached from this host only.

    >>> is_loopback("127.0.0.1:7778"), is_loopback("[::1]:7778"), is_loopback(":7778")
    (True, True, False)
    """
    host = split_host_port(address)[0]
    return bool(host) and ipaddress.ip_address(host).is_loopback


def _check_token(value: str | None) -> None:
    if value is not None and not re.fullmatch(r"[!-~]{12,1024}", value):
        raise BadValueError("a token has at least 12 characters: letters, digits and signs, no blanks")


def _yaml_token(value: object) -> str | None:
    if not isinstance(value, str):
        raise BadValueError("YAML does not take this for a text: put it in quotes")
    return value or None


def is_interface(value: str) -> bool:
    """Could this be the name of a network interface, and is no IP address?"""
    return bool(re.fullmatch(r"(?=.*[A-Za-z])[^\s/:\x00-\x1f]{1,15}", value))


def _check_bind(value: str) -> None:
    if value and not is_interface(value):
        _address(value, value)


def _check_base(value: IPv4Address) -> None:
    if value.is_multicast or value.is_loopback or value.is_link_local or int(value) >> 24 in (0, 255):
        raise BadValueError(f"{value} cannot be the base of networks: take a private one, such as 10.128.0.0")


def _read_ipv4(text: str) -> IPv4Address:
    if "/" in text:
        raise BadValueError(f"{_shown(text)}: write the address alone; its prefix length is community_subnet_cidr")
    try:
        return IPv4Address(text.strip())
    except ValueError:
        raise BadValueError(f"{_shown(text)} is not an IPv4 address") from None


def _read_path(text: str) -> Path:
    if not text or "\0" in text:
        raise BadValueError(f"{_shown(text)} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise BadValueError(f"{_shown(text)}: {error}") from None


def _read_secret(text: str) -> str | None:
    if not text:
        raise BadValueError("it is empty. To join without a passphrase, leave it out; nothing is sealed then")
    return text


def _yaml_secret(value: object) -> str | None:
    if not isinstance(value, str):
        raise BadValueError("YAML does not take this for a text: put it in quotes")
    return value or None  # an empty text in a file is how v5 files say "none"


def _check_secret(value: str | None) -> None:
    if value is None:
        return
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadValueError("it holds a character that cannot be encoded") from None


EDGE_NAME: Final = _text("a name", _check_edge_name)
COMMUNITY: Final = _text("a community's name", _check_community)
TAP_NAME: Final = _text("a TAP name", _check_tap_name)
LISTEN_ADDRESS: Final = _text("an address such as :7777", _check_listen_address, str.strip)
BIND: Final = _text("an IP address or an interface", _check_bind, str.strip)
#: Where pages are served by TCP; empty: nowhere.
PAGES_ADDRESS: Final = _text('an address such as 127.0.0.1:7778, or ""', _check_pages_address, str.strip)
BASE_ADDRESS: Final = _text("an IPv4 address", _check_base, _read_ipv4, IPv4Address)
OPTIONAL_PATH: Final = _text(
    "a path",
    lambda _: None,
    lambda text: _read_path(text) if text else None,
    (Path, type(None)),
    show=lambda value: str(value) if value else '""',
)
LOCAL_ADDRESS: Final = _text('an address such as 127.0.0.1:7780, or ""', _check_local_address, str.strip)
STATE_DIR: Final = OPTIONAL_PATH
PATH: Final = _text("a path", lambda _: None, _read_path, Path)
SECRET: Final = Kind(
    "a passphrase",
    (str, type(None)),
    _read_secret,
    _yaml_secret,
    _check_secret,
    show=lambda value: MASK if value else "none",
    secret=True,
)
TOKEN: Final = Kind(
    "a token",
    (str, type(None)),
    lambda text: text or None,
    _yaml_token,
    _check_token,
    show=lambda value: MASK if value else "none",
    secret=True,
)
