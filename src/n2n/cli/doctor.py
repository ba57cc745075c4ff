"""``n2n doctor``: is everything there that an edge or a supernode needs?"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from n2n.cli.config import Role, load
from n2n.cli.exits import FAILED, OK
from n2n.cli.output import print_json
from n2n.errors import ConfigError

if TYPE_CHECKING:
    from n2n.doctor import Finding

__all__ = ["app"]

app = typer.Typer()

_MARKS: Final = {"ok": ("ok", "32"), "warning": ("warning", "33"), "fail": ("FAIL", "31")}


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def doctor(
    ctx: typer.Context,
    role: Annotated[Role, typer.Argument(metavar="[edge|supernode]", help="Whose needs.")] = Role.EDGE,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its file; without one (and variables) only the host is seen.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
) -> None:
    """Check the host, the kernel, the configuration, the supernode; each line is ok, or says what to do.

    Takes the flags of `n2n edge up` or `n2n supernode serve` as well, and changes nothing. Ends with 1 if something
    fails. JSON: {"ok": bool, "findings": [{check, level, what, remedy}]}; level is ok, warning or fail.
    """
    from n2n.doctor import Level

    found: list[Finding] = []
    for finding in _findings(role, config, ctx.args):
        found.append(finding)
        if not as_json:
            _print(finding)
    good = all(finding.level is not Level.FAIL for finding in found)
    if as_json:
        print_json({"ok": good, "findings": [dataclasses.asdict(finding) for finding in found]})
    raise typer.Exit(OK if good else FAILED)


def _findings(role: Role, path: Path | None, words: list[str]) -> Iterator[Finding]:
    from n2n.doctor import Finding, Level, Subject, examine
    from n2n.doctor.network import statuses

    config = None
    given = path is not None or bool(words) or "N2N_COMMUNITY" in os.environ or role is Role.SUPERNODE
    if given:
        try:
            loaded = load(role, path, words)
        except ConfigError as error:
            yield Finding("config", Level.FAIL, str(error), f"n2n config check {role.value} shows the same")
        else:
            config = loaded.config
            yield Finding("config", Level.OK, f"{path if path is not None else 'the configuration'} is right")
            for text in loaded.warnings:
                yield Finding("config", Level.WARNING, text, "See n2n config show")
    yield from examine(Subject(role.value, config, statuses()))


def _print(finding: Finding) -> None:
    word, colour = _MARKS[finding.level.value]
    mark = f"{word:<7}"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        mark = f"\033[{colour}m{mark}\033[0m"
    print(f"{mark}  {finding.check:<12}  {_plain(finding.what)}")
    if finding.remedy:
        print(f"{'':<23}{_plain(finding.remedy)}", flush=True)


def _plain(text: str) -> str:
    """Nothing in a name of somebody else's may move the cursor; a list of problems keeps its lines."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
