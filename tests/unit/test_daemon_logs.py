"""What a log line looks like, and that repeated warnings are held back and counted."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from n2n.daemon.logs import IO_ERROR, Event, Limiter, RateFilter, log_event, quote, setup_logging
from n2n.errors import ConfigError


@pytest.fixture
def root() -> Iterator[None]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def lines(style: str, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    out = io.StringIO()
    setup_logging(style, level, out)
    return logging.getLogger("n2n.test"), out


@pytest.mark.usefixtures("root")
class TestLines:
    def test_debug_shows_ours_and_not_every_message_of_a_library(self) -> None:
        logger, out = lines("text", "debug")
        logger.debug("seen")
        logging.getLogger("pyroute2.netlink.core").debug("unseen")
        logging.getLogger("pyroute2.netlink.core").warning("seen, too")
        assert ["unseen" in out.getvalue(), out.getvalue().count("seen")] == [False, 2]

    def test_key_value(self) -> None:
        logger, out = lines("text")
        log_event(logger, "info", "peer_new", {"mac": "02:00:00:00:00:01", "name": "two words", "n": 3, "ok": True})
        line = out.getvalue()
        assert line.endswith(' info n2n.test peer_new mac=02:00:00:00:00:01 name="two words" n=3 ok=true\n')
        assert line[4] == "-"
        assert line.split(" ", 1)[0].endswith("Z")

    def test_a_name_cannot_forge_a_line(self) -> None:
        logger, out = lines("text")
        log_event(logger, "info", "peer_new", {"name": 'x\n2026 error fake a="b" \udc80\x1b[31m'})
        text = out.getvalue()
        assert text.count("\n") == 1
        assert "\x1b" not in text
        text.encode()

    def test_json(self) -> None:
        logger, out = lines("json")
        log_event(
            logger, "warning", "resolve_failed", {"error": "no\nname", "event": "fake", "retry_in": 1.5, "a": {1}}
        )
        entry = json.loads(out.getvalue())
        assert entry["event"] == "resolve_failed"
        assert entry["level"] == "warning"
        assert entry["error"] == "no\nname"
        assert entry["retry_in"] == 1.5

    def test_a_plain_message_is_an_event(self) -> None:
        logger, out = lines("json")
        logger.warning("others could read %s", "x")
        assert json.loads(out.getvalue())["event"] == "others could read x"

    def test_level(self) -> None:
        logger, out = lines("text", "warning")
        log_event(logger, "info", "quiet")
        log_event(logger, "error", "loud")
        assert "quiet" not in out.getvalue()
        assert "loud" in out.getvalue()

    def test_a_traceback_is_kept(self) -> None:
        logger, out = lines("json")
        try:
            raise ValueError("boom")
        except ValueError:
            logger.exception(Event("core_fault"))
        assert "ValueError: boom" in json.loads(out.getvalue())["traceback"]

    @pytest.mark.parametrize(("style", "level"), [("xml", "info"), ("text", "loud")])
    def test_unknown_settings(self, style: str, level: str) -> None:
        with pytest.raises(ConfigError, match="unknown"):
            setup_logging(style, level)


def test_quote() -> None:
    assert quote("10.1.2.3:77") == "10.1.2.3:77"
    assert quote("") == '""'
    assert quote("a=b") == '"a=b"'


def test_the_limiter_counts_what_it_holds_back() -> None:
    limiter = Limiter(burst=2, period=10.0)
    assert [limiter.allow("a", at) for at in (0.0, 1.0, 2.0, 3.0)] == [0, 0, None, None]
    assert limiter.allow("b", 3.0) == 0
    assert limiter.allow("a", 10.0) == 2
    assert limiter.allow("a", 20.0) == 0


def test_the_limiter_forgets_the_oldest_key() -> None:
    limiter = Limiter(burst=1, period=1000.0, max_keys=2)
    assert [limiter.allow(key, 0.0) for key in ("a", "b", "a", "b")] == [0, 0, None, None]
    assert limiter.allow("c", 1.0) == 0
    assert limiter.allow("a", 2.0) == 0, "a was forgotten for c"


def record(level: int, event: str, **fields: object) -> logging.LogRecord:
    return logging.LogRecord("n2n", level, __file__, 1, Event(event, fields), None, None)


def test_io_errors_once_a_minute_per_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("n2n.daemon.logs.time.monotonic", lambda: now[0])
    held = RateFilter()
    passed = [held.filter(record(logging.WARNING, IO_ERROR, kind=kind)) for kind in ("send", "send", "tap", "send")]
    assert passed == [True, False, True, False]
    now[0] = 61.0
    after = record(logging.WARNING, IO_ERROR, kind="send")
    assert held.filter(after)
    assert after.getMessage() == "io_error kind=send suppressed=2"


def test_a_flood_of_one_warning_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n.daemon.logs.time.monotonic", lambda: 5.0)
    held = RateFilter()
    assert sum(held.filter(record(logging.WARNING, "refused")) for _ in range(1000)) == 20
    assert held.filter(record(logging.ERROR, "store_failed"))
    assert all(held.filter(record(logging.INFO, "peer_new")) for _ in range(100))
