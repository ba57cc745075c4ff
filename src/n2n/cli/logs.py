"""``n2n logs``: follow the events of a daemon, or change from which level on it logs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from n2n.errors import ConfigError

__all__ = ["app"]

_LEVELS: Final = ("debug", "info", "warning", "error")
_KEPT: Final = 256

app = typer.Typer()


@app.command()
def logs(  # noqa: PLR0917  (typer reads them by name)
    instance: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which daemon: a TAP device, or supernode.")
    ] = None,
    level: Annotated[str, typer.Option(metavar="LEVEL", help="Least level: debug, info, warning, error.")] = "debug",
    last: Annotated[int, typer.Option(metavar="N", help="So many earlier events first.", min=0, max=_KEPT)] = 20,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more.")] = True,
    set_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Change from which level on the daemon's own log is written.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Follow the events of a running daemon, until Ctrl-C or its end.

    The JSON lines have the fields time (Unix seconds), level, event, fields, and missed: how many events before this
    one were lost because the reader was slow. With --set-level nothing is followed: the level of what the daemon writes
    to standard error (the journal) changes, until its next start or reload; JSON: {level}.
    """
    from n2n.api.client import choose_daemon, connect

    least = _number(level)
    with connect(choose_daemon(instance)) as client:
        if set_level is not None:
            _number(set_level)
            now = client.call("log_level", level=set_level)
            print(json.dumps(now) if as_json else f"{client.path.stem} logs from {now['level']} on")
            return
        try:
            _print_events(client, least, last, follow, as_json)
        except KeyboardInterrupt:
            return
    if follow:
        sys.stderr.write(f"n2n: {client.path.stem} has ended\n")


def _print_events(client: Any, least: int, last: int, follow: bool, as_json: bool) -> None:
    lines = client.events(last) if follow else client.recent(last)
    for line in lines:
        event = line["event"]
        if _number(str(event["level"])) < least:
            continue
        if as_json:
            print(json.dumps({**event, "missed": line["missed"]}), flush=True)
            continue
        if line["missed"]:
            print(f"... {line['missed']} events missed", flush=True)
        print(_text(event), flush=True)


def _text(event: dict[str, Any]) -> str:
    """The line that the daemon's own log would have."""
    from n2n.daemon.logs import Event

    moment = datetime.fromtimestamp(float(event["time"]), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return f"{moment}Z {event['level']} {Event(str(event['event']), event['fields'])}"


def _number(level: str) -> int:
    if level not in _LEVELS:
        raise ConfigError(f"{level!r} is no level: use one of {', '.join(_LEVELS)}")
    return _LEVELS.index(level)
