"""``--help`` suffices: every command says what it does, and every flag and argument what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from n2n.cli.main import build_app, main


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, found in getattr(command, "commands", {}).items():
        yield from commands(found, (*path, name))


EVERYTHING = dict(commands(get_command(build_app([]))))


@pytest.mark.parametrize("path", EVERYTHING, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = EVERYTHING[path]
    assert command.help
    assert len(command.help.splitlines()[0]) > 15, "a first line that tells something"
    silent = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert silent == []
    assert main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: {' '.join(('n2n', *path))}")
    for parameter in command.params:
        for name in parameter.opts if parameter.param_type_name == "option" else ():
            assert name in text


#: Commands that do something and print a line about it at most, or print one thing that is read as it is.
ACTIONS = {
    "edge up", "edge down", "supernode serve", "supernode down", "config init", "key accept", "key forget",
    "key passphrase", "service install", "service uninstall", "lab down", "lab shell", "completion",
}  # fmt: skip


def test_whatever_there_is_to_read_programs_can_read() -> None:
    def readable(command: Any) -> bool:
        names = {name for parameter in command.params for name in parameter.opts}
        return "--json" in names or "--format" in names  # p2viz: json is one of its formats

    verbs = {" ".join(path): command for path, command in EVERYTHING.items() if not hasattr(command, "commands")}
    assert {name for name, command in verbs.items() if not readable(command)} == ACTIONS


def test_there_are_commands() -> None:
    assert len(EVERYTHING) > 30
