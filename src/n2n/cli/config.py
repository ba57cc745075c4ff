"""``n2n config init | show | check``: begin a configuration file, see what is in force, find what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from n2n.cli.exits import USAGE, tell_error, tell_warning
from n2n.cli.output import print_json, print_table
from n2n.errors import ConfigError, PlatformError

if TYPE_CHECKING:
    from n2n.config import Loaded

__all__ = ["Role", "app", "load", "sample"]

_PRIVATE: Final = 0o600

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Configuration files: begin, show, check.")

#: Everything that follows the known options is read as the flags of the daemon.
_WITH_FLAGS: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


class Role(StrEnum):
    """Whose configuration."""

    EDGE = "edge"
    SUPERNODE = "supernode"


_Role = Annotated[Role, typer.Argument(metavar="edge|supernode", help="Whose configuration.")]
_File = Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file; without one: environment and defaults.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")]


@app.callback()
def _config() -> None:
    """Configuration files: begin, show, check."""


@app.command()
def init(
    role: _Role,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; - prints it [edge.yaml, ...].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write a sample file in which every key is explained. An edge then needs its community and supernode_addr."""
    text = sample(role.value)
    if str(output) == "-":
        sys.stdout.write(text)
        return
    path = output if output is not None else Path(f"{role.value}.yaml")
    mode = os.O_TRUNC if force else os.O_EXCL
    try:
        # Private from the first byte on: a passphrase may come into it.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | mode | os.O_CLOEXEC, _PRIVATE)
    except FileExistsError:
        raise ConfigError(f"{path} exists: choose another file with --output, or --force to write over it") from None
    except OSError as error:
        raise PlatformError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"wrote {path}; edit it, then: n2n config check {role.value} --config {path}")


@app.command(context_settings=_WITH_FLAGS)
def show(ctx: typer.Context, role: _Role, config: _File = None, as_json: _Json = False) -> None:
    """Show every value in force and where it comes from: flag, environment, line of the file, or default.

    Takes the flags of `n2n edge up` or `n2n supernode serve` as well. Secrets are masked.
    """
    from n2n.config import show as lines_of

    loaded = load(role, config, ctx.args)
    lines = lines_of(loaded)
    if as_json:
        values = [{"key": line.key, "value": line.value, "origin": line.origin} for line in lines]
        print_json({"role": role.value, "values": values, "warnings": list(loaded.warnings)})
        return
    for warning in loaded.warnings:
        tell_warning(warning)
    print_table(("KEY", "VALUE", "FROM"), lines, "")


@app.command(context_settings=_WITH_FLAGS)
def check(ctx: typer.Context, role: _Role, config: _File = None, as_json: _Json = False) -> None:
    """Say ok, or everything that is wrong with its file and line. Nothing is started.

    Takes the flags of `n2n edge up` or `n2n supernode serve` as well.
    """
    problems: list[str] = []
    warnings: Sequence[str] = ()
    try:
        warnings = load(role, config, ctx.args).warnings
    except ConfigError as error:
        if not as_json:
            tell_error(error)
        problems = _each(str(error))
    if as_json:
        print_json({"ok": not problems, "problems": problems, "warnings": list(warnings)})
    for warning in () if as_json else warnings:
        tell_warning(warning)
    if problems:
        raise typer.Exit(USAGE)
    if not as_json:
        print(f"{config if config is not None else role.value}: ok")


def sample(role: str) -> str:
    """The sample file of a role, as it lies in ``configs/`` of the sources."""
    return (resources.files("n2n") / "data" / "configs" / f"{role}.yaml").read_text(encoding="utf-8")


def load(role: Role, path: Path | None, words: list[str]) -> Loaded[Any]:
    """The configuration from a file and the words of a daemon's command line.

    Raises:
        ConfigError: something is wrong with it, or the words are no flags of that daemon.
    """
    from n2n.cli.foreground import read_flags
    from n2n.config import load_edge, load_supernode

    flags = read_flags(role.value, words)
    if flags is None:
        command = "edge up" if role is Role.EDGE else "supernode serve"
        raise ConfigError(f"{' '.join(words)}: these are not flags of n2n {command} (try: n2n {command} --help)")
    return load_edge(path, None, flags) if role is Role.EDGE else load_supernode(path, None, flags)


def _each(message: str) -> list[str]:
    """The problems that the loader put into one message, one per line after a heading where there are several."""
    lines = message.splitlines()
    return [line.strip() for line in lines[1:]] if len(lines) > 1 else lines
