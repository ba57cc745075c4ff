"""`n2n lab demo`, and the group of commands that it belongs to (the others are in :mod:`n2n.cli.lab`)."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

from n2n.errors import N2NError, NotReady
from n2n.lab.demo import Demo, DemoOptions

__all__ = ["View", "app", "end_on_signals"]

_FAILED: Final = 1
_TIMED_OUT: Final = 4
_PERMISSION: Final = 5
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = typer.Typer(no_args_is_help=True, help="Networks in namespaces, to try n2n on one machine.")


@app.callback()
def _lab() -> None:
    """Networks in namespaces, to try n2n on one machine."""


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout; progress on stderr.")] = False,
    duration: Annotated[float, typer.Option(help="Seconds of TCP in each direction.", min=0.1, max=600)] = 3.0,
    plain: Annotated[bool, typer.Option("--plain", help="Without a passphrase: frames travel readable.")] = False,
    relay: Annotated[bool, typer.Option("--relay", help="Keep the edges apart, so that the supernode relays.")] = False,
    keep_logs: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy the logs of all daemons there.")] = None,
) -> None:
    """Bring up a supernode and two edges, ping, transfer TCP, and take it all away again. Needs root."""
    shared: dict[str, Any] = {"duration": duration, "relay": relay, "keep_logs": keep_logs}
    options = DemoOptions(**shared) if plain else DemoOptions.sealed(**shared)
    view = View(sys.stderr if as_json else sys.stdout)
    end_on_signals()
    run = Demo(options, view.line)
    status = 0
    try:
        run.run()
    except (N2NError, OSError) as error:
        view.end(f"failed: {error}", good=False)
        status = _status(error)
    except SystemExit as ended:
        run.result["error"] = "interrupted"
        view.end("interrupted; everything was taken away again", good=False)
        status = ended.code if isinstance(ended.code, int) else _FAILED
    else:
        view.end("Everything worked, and nothing of it is left.", good=True)
    if as_json:
        print(json.dumps(run.result, indent=2))
    raise typer.Exit(status)


def _status(error: Exception) -> int:
    if isinstance(error, PermissionError):
        return _PERMISSION
    return _TIMED_OUT if isinstance(error, NotReady) else _FAILED


def end_on_signals() -> None:
    """Turn the first signal that asks for an end into SystemExit, and ignore more: the way out is short and bounded."""

    def end(number: int, _: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in _ENDING:
        signal.signal(number, end)


class View:
    """Lines for a person: topic, text, seconds since the start; colour only on a terminal, and not with NO_COLOR."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = stream.isatty() and not os.environ.get("NO_COLOR")
        self._start = time.monotonic()
        self._last = ""

    def line(self, topic: str, text: str) -> None:
        """One more step."""
        shown = "" if topic == self._last else topic
        self._last = topic
        seconds = f"{time.monotonic() - self._start:6.1f} s"
        self._write(f"{self._paint('2', seconds)}  {self._paint('1;36', f'{shown:<10}')} {text}")

    def end(self, text: str, *, good: bool) -> None:
        """The outcome."""
        if not good:
            self._stream.flush()
            self._stream = sys.stderr
        self._write(self._paint("1;32" if good else "1;31", text))

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def _write(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:  # whoever read it has left; the run goes on to its end
            self._stream = open(os.devnull, "w")  # noqa: SIM115
