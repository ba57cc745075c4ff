"""``n2n completion SHELL``: a script that completes verbs, flags and files; it starts no Python at a key press."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple

import typer

__all__ = ["app", "script"]

app = typer.Typer()

#: Words in the place of a value that stand for a file or a directory.
_FILES: Final = {"FILE", "DIR"}


class Shell(StrEnum):
    """A shell that is known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class Option(NamedTuple):
    """One flag of a command, with all its spellings."""

    names: tuple[str, ...]
    value: str
    """What stands for its value ("FILE"); empty for a switch."""
    help: str


class Command(NamedTuple):
    """One command and how to come to it ("edge up")."""

    path: str
    help: str
    words: tuple[str, ...]
    """Verbs that may follow."""
    options: tuple[Option, ...]


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Whose script.")]) -> None:
    """Print a script that completes n2n's verbs, flags and files.

    bash: n2n completion bash > /etc/bash_completion.d/n2n. zsh: n2n completion zsh > a directory of $fpath, as _n2n.
    fish: n2n completion fish > ~/.config/fish/completions/n2n.fish.
    """
    print(script(shell), end="")


def script(shell: Shell) -> str:
    """The script for a shell."""
    from typer.main import get_command

    from n2n.cli.main import build_app

    commands = list(_commands(get_command(build_app([])), ""))
    return {Shell.BASH: _bash, Shell.ZSH: _zsh, Shell.FISH: _fish}[shell](commands)


def _commands(command: Any, path: str) -> Iterator[Command]:
    verbs = {name: found for name, found in getattr(command, "commands", {}).items() if not found.hidden}
    yield Command(path, _first(command.help), tuple(verbs), tuple(_options(command)))
    for name, found in verbs.items():
        yield from _commands(found, f"{path} {name}".strip())


def _options(command: Any) -> Iterator[Option]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            names = tuple(name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))
            value = "" if parameter.is_flag else str(parameter.metavar or "VALUE")
            yield Option(names, value, _first(parameter.help))
    yield Option(("--help",), "", "Show what it does.")


def _first(text: str | None) -> str:
    """The first sentence of a help text, without what a quoting shell would look at."""
    line = (text or "").strip().split("\n")[0]
    return "".join(char for char in line if char not in "'\"\\$`")


def _tables(commands: list[Command]) -> str:
    """Functions in the language that bash and zsh share: what may follow a path of verbs, and whose value is what."""
    after = {one.path: (*one.words, *(name for each in one.options for name in each.names)) for one in commands}
    follow = "\n".join(f"        '{path}') echo '{' '.join(words)}';;" for path, words in after.items())
    values: dict[str, set[str]] = {"files": set(), "instances": set(), "none": set()}
    for option in (option for one in commands for option in one.options if option.value):
        kind = "files" if option.value in _FILES else "none"
        values["instances" if "--instance" in option.names else kind] |= set(option.names)
    values["none"] -= values["files"]
    taken = "\n".join(f"        {'|'.join(sorted(names))}) echo {kind};;" for kind, names in values.items())
    return f"""_n2n_follow() {{
    case "$1" in
{follow}
    esac
}}
_n2n_value() {{
    case "$1" in
{taken}
    esac
}}
_n2n_instances() {{
    local socket
    for socket in "${{N2N_RUN_DIR:-/run/n2n}}"/*.sock /run/n2n-supernode/*.sock; do
        socket="${{socket##*/}}"
        [ "$socket" = '*.sock' ] || echo "${{socket%.sock}}"
    done
}}
_n2n_path() {{
    local found= word
    for word in "$@"; do
        case " $(_n2n_follow "$found") " in *" $word "*) ;; *) continue;; esac
        case "$word" in -*) continue;; esac
        found="${{found:+$found }}$word"
    done
    echo "$found"
}}
"""


def _bash(commands: list[Command]) -> str:
    return f"""# bash completion of n2n, made by: n2n completion bash
{_tables(commands)}_n2n() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    COMPREPLY=()
    case "$(_n2n_value "$before")" in
        files) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")); return;;
        instances) COMPREPLY=($(compgen -W "$(_n2n_instances)" -- "$current")); return;;
        none) return;;
    esac
    COMPREPLY=($(compgen -W "$(_n2n_follow "$(_n2n_path "${{COMP_WORDS[@]:1:COMP_CWORD-1}}")")" -- "$current"))
}}
complete -F _n2n n2n
"""


def _zsh(commands: list[Command]) -> str:
    return f"""#compdef n2n
# zsh completion of n2n, made by: n2n completion zsh
{_tables(commands)}_n2n() {{
    case "$(_n2n_value "${{words[CURRENT-1]}}")" in
        files) _files; return;;
        instances) compadd -- ${{(f)"$(_n2n_instances)"}}; return;;
        none) return;;
    esac
    compadd -- ${{=$(_n2n_follow "$(_n2n_path "${{(@)words[2,CURRENT-1]}}")")}}
}}
if [ "${{funcstack[1]}}" = _n2n ]; then _n2n "$@"; else compdef _n2n n2n; fi
"""


def _fish(commands: list[Command]) -> str:
    lines = [
        "# fish completion of n2n, made by: n2n completion fish",
        "function __n2n_path",
        "    set -l found",
        "    set -l known " + " ".join(f"'{one.path}'" for one in commands if one.path),
        "    for word in (commandline -opc)[2..-1]",
        '        contains -- (string join " " $found $word) $known; and set found $found $word',
        "    end",
        '    string join " " $found',
        "end",
        "complete -c n2n -f",
    ]
    helps = {one.path: one.help for one in commands}
    for one in commands:
        when = f"""-n 'test "$(__n2n_path)" = "{one.path}"'"""
        for word in one.words:
            lines.append(f"complete -c n2n {when} -a '{word}' -d '{helps[f'{one.path} {word}'.strip()]}'")
        for option in one.options:
            value = "" if not option.value else " -r -F" if option.value in _FILES else " -x"
            lines += [f"complete -c n2n {when} -l {name[2:]}{value} -d '{option.help}'" for name in option.names]
    return "\n".join(lines) + "\n"
