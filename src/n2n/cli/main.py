"""The command ``n2n``: finds the group of verbs that is meant, loads that one, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from n2n.cli.exits import FAILED, OK, USAGE, code_of, tell_error
from n2n.cli.foreground import plain

__all__ = ["build_app", "guarded", "main"]

#: First word -> module that has its typer app: groups of verbs, and verbs that stand by themselves.
_GROUPS: Final = {
    "edge": "n2n.cli.edge",
    "supernode": "n2n.cli.supernode",
    "config": "n2n.cli.config",
    "key": "n2n.cli.key",
    "upnp": "n2n.cli.upnp",
    "service": "n2n.cli.service",
    "lab": "n2n.cli.lab",
}
_VERBS: Final = {
    "status": "n2n.cli.show",
    "peers": "n2n.cli.show",
    "leases": "n2n.cli.show",
    "names": "n2n.cli.names",
    "version": "n2n.cli.show",
    "logs": "n2n.cli.logs",
    "doctor": "n2n.cli.doctor",
    "netcheck": "n2n.cli.netcheck",
    "why": "n2n.cli.why",
    "ping": "n2n.cli.why",
    "bench": "n2n.cli.bench",
    "taptest": "n2n.cli.bench",
    "p2viz": "n2n.cli.picture",
    "metrics": "n2n.cli.picture",
    "history": "n2n.cli.history",
    "top": "n2n.cli.top",
    "completion": "n2n.cli.completion",
}
_INTERRUPTED: Final = 130


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the command line without the program's name; None: this process's.

    Returns:
        The exit code: 0 ok, 1 failed, 2 usage or configuration, 3 daemon not running, 4 timed out or not ready,
        5 permission.
    """
    words = list(sys.argv[1:] if args is None else args)
    return guarded(lambda: _run(words))


def guarded(run: Callable[[], object]) -> int:
    """Run a command; whatever goes wrong is told in one line, and becomes an exit code as of `main`."""
    try:
        result = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read the output has left: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _failed(error)
    return result if isinstance(result, int) else OK


def _run(words: list[str]) -> object:
    if words == ["--version"]:  # what people type at every program
        words = ["version"]
    daemon = plain(words)
    if daemon is not None:
        daemon()
        return OK
    return build_app(words)(args=words, prog_name="n2n", standalone_mode=False)


def build_app(words: Sequence[str]) -> Any:
    """The typer app for this command line, with no more groups than it needs: each costs time to load."""
    import typer

    app = typer.Typer(
        name="n2n",
        help="n2n: a layer-2 peer-to-peer VPN.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_n2n)
    first = words[0] if words else ""
    everything = first not in _GROUPS and first not in _VERBS
    for name, module in _GROUPS.items():
        if everything or name == first:
            app.add_typer(importlib.import_module(module).app, name=name)
    for module in dict.fromkeys(module for verb, module in _VERBS.items() if everything or verb == first):
        app.registered_commands += importlib.import_module(module).app.registered_commands
    return app


def _n2n() -> None:
    """n2n: a layer-2 peer-to-peer VPN. See `n2n COMMAND --help`."""


def _failed(error: Exception) -> int:
    # typer carries its own copy of click, or uses click's, depending on its version: know its errors by their shape.
    name = type(error).__name__
    if name == "Exit":
        return int(getattr(error, "exit_code", FAILED))
    if name == "Abort":
        return FAILED
    if name == "NoArgsIsHelpError":
        sys.stdout.write(f"{error}\n")
        return USAGE
    format_message = getattr(error, "format_message", None)
    if callable(format_message):
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", "n2n")
        sys.stderr.write(f"n2n: error: {_reworded(format_message(), error.__cause__)} (try: {path} --help)\n")
        return USAGE
    tell_error(error)
    return code_of(error)


def _reworded(message: str, cause: object) -> str:
    """What typer says of a mistake, in the form that all our messages have: where, with which value, what.

    >>> _reworded("Invalid value for '--output' / '-o': Value error, 'x' is not one of 'a', 'b'", None)
    "--output / -o: 'x' is not one of 'a', 'b'"
    >>> _reworded("No such command 'nope'.", None)
    "no such command 'nope'"
    """
    where, colon, what = message.removeprefix("Invalid value for ").partition(": ")
    if not message.startswith("Invalid value for ") or not colon:
        return (message[:1].lower() + message[1:]).strip().removesuffix(".")
    # Newer versions of typer ask pydantic, whose sentences leave the value out.
    errors = getattr(cause, "errors", None)
    value = repr(errors()[0].get("input")) if callable(errors) else "it"
    what = re.sub("^Input (?=should )", f"{value} ", what.removeprefix("Value error, "))
    return f"{where.replace(chr(39), '')}: {what.strip().removesuffix('.')}"
