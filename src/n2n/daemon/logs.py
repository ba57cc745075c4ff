"""How a daemon's log looks, and how it is kept from flooding.

A record's message is an :class:`Event`: a fixed name and its circumstances.  It is written as one line, ``key=value``
or JSON; in a program that set up its logging by itself it is readable text.  Whatever a stranger can trigger may repeat
without end, so each event of level warning or above passes a :class:`Limiter`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

from n2n.errors import ConfigError

__all__ = [
    "IO_ERROR",
    "Event",
    "JsonFormatter",
    "KeyValueFormatter",
    "Limiter",
    "RateFilter",
    "level_in_force",
    "log_event",
    "set_level",
    "setup_logging",
]

#: Event name of every failed read, write or send; its field `kind` says which, and each kind is limited by itself.
IO_ERROR: Final = "io_error"

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/@%+,-[]*")


class Event:
    """The message of a log record.

    Args:
        name: fixed, in snake_case.
        fields: its circumstances; the values may be anything.

    >>> str(Event("peer_new", {"name": "two words"}))
    'peer_new name="two words"'
    """

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[str, object] | None = None) -> None:
        self.name = name
        self.fields = dict(fields or {})

    def __str__(self) -> str:
        return " ".join([quote(self.name), *(f"{key}={quote(_text(value))}" for key, value in self.fields.items())])


class Limiter:
    """Lets at most `burst` events of one key pass in `period` seconds, and counts the rest.

    Keys are bounded: beyond `max_keys` the oldest is forgotten (which lets its next event pass).

    >>> limiter = Limiter(burst=1, period=60.0)
    >>> [limiter.allow("tap_read", now) for now in (0.0, 1.0, 2.0, 61.0)]
    [0, None, None, 2]
    """

    def __init__(self, burst: int, period: float, max_keys: int = 256) -> None:
        self._burst = burst
        self._period = period
        self._max_keys = max_keys
        self._windows: dict[str, list[float]] = {}  # key -> [start, passed, suppressed]

    def allow(self, key: str, now: float) -> int | None:
        """How many events of this key were suppressed since the last window, or None to suppress this one."""
        window = self._windows.get(key)
        if window is None or now - window[0] >= self._period:
            suppressed = 0 if window is None else int(window[2])
            self._windows.pop(key, None)
            if len(self._windows) >= self._max_keys:
                del self._windows[next(iter(self._windows))]
            self._windows[key] = [now, 1, 0]
            return suppressed
        if window[1] < self._burst:
            window[1] += 1
            return 0
        window[2] += 1
        return None


class RateFilter(logging.Filter):
    """Holds back repeated warnings: I/O errors once a minute per kind, other events twenty times a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._io = Limiter(burst=1, period=60.0)
        self._events = Limiter(burst=20, period=60.0)

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record that comes too often; the next one that passes says how many were held back."""
        if record.levelno < logging.WARNING:
            return True
        event = _event(record)
        now = time.monotonic()
        if event.name == IO_ERROR:
            suppressed = self._io.allow(str(event.fields.get("kind", "")), now)
        else:
            suppressed = self._events.allow(event.name, now)
        if suppressed:
            record.msg = Event(event.name, event.fields | {"suppressed": suppressed})
            record.args = None
        return suppressed is not None


class KeyValueFormatter(logging.Formatter):
    """``2026-01-31T09:30:00.123Z warning edge event key=value key="two words"``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the values hold."""
        line = f"{_timestamp(record.created)} {record.levelname.lower()} {record.name} {_event(record)}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, event, and the event's fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII; the four fixed keys win over fields of the same name."""
        entry: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record).name,
        }
        entry = _event(record).fields | entry
        if record.exc_info is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=_text)


#: Libraries whose debug lines (every netlink message, say) would bury ours.
_TALKATIVE: Final = ("asyncio", "pyroute2")


def setup_logging(style: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream` (default: standard error).

    Args:
        style: "text" (key=value) or "json".
        level: "debug", "info", "warning" or "error".
        stream: where the lines go.

    Raises:
        ConfigError: `style` or `level` is none of these.
    """
    _check_level(level)
    if style not in ("text", "json"):
        raise ConfigError(f"log format {style!r} is unknown: use text or json")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if style == "json" else KeyValueFormatter())
    handler.addFilter(RateFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on; raises as `setup_logging`."""
    _check_level(level)
    logging.getLogger().setLevel(_LEVELS[level])
    for talkative in _TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.WARNING)


def level_in_force() -> str:
    """From which level on this process logs: debug, info, warning or error."""
    number = logging.getLogger().getEffectiveLevel()
    return next((name for name, each in _LEVELS.items() if number <= each), "error")


def _check_level(level: str) -> None:
    if level not in _LEVELS:
        raise ConfigError(f"log level {level!r} is unknown: use one of {', '.join(_LEVELS)}")


def log_event(logger: logging.Logger, level: str, event: str, fields: Mapping[str, object] | None = None) -> None:
    """Write one event; costs next to nothing when its level is off."""
    number = _LEVELS.get(level, logging.INFO)
    if logger.isEnabledFor(number):
        logger.log(number, Event(event, fields))


def quote(text: str) -> str:
    """`text` as one word: as it is where that is safe, else as a JSON string (no raw control character)."""
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)


def _event(record: logging.LogRecord) -> Event:
    """What a record says; a plain message of another module is an event without fields."""
    return record.msg if isinstance(record.msg, Event) else Event(record.getMessage())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _timestamp(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
