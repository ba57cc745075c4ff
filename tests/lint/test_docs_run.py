"""Every command in README and the documents is run by something: ours by tests/netns/test_docs_commands.py, all others
by what is named here.

A command is a line of a code block, or whole in backticks, that begins with a program of `PROGRAM`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .test_docs import DOCS, ROOT, parts, spans

PROGRAM = re.compile(  # with words after it: a program's name alone is no command, but for our scripts
    r"(?:[A-Z_0-9]+=\S+ )*(?:make|sudo|python3?|pip|ln|cp|apt-get|apt|systemctl|journalctl|usermod|rsync|scp|ssh|"
    r"chroot|debootstrap|podman|docker|nft|sysctl|modprobe|ip|sh|bash|zsh|fish|git|curl|"
    r"n2n-[a-z0-9]+|[\w.-]+\.py|\.?/?[\w.-]+/\S+) \S.*"
    r"|scripts/[a-z-]+"
)
#: A command begins like this -> the file that runs it, and what stands there.
RUN = {
    **{f"make {name}": (".ci/run", f"make {name}") for name in ("demo", "test", "dist", "wheels", "deb", "services")},
    "apt-get install gcc libc6-dev": ("Containerfile", "gcc libc6-dev python3-dev python3-venv libssl-dev pkg-config"),
    "apt-get install libipsec-mb1": ("scripts/setup.sh", "packages+=(libipsec-mb1)"),
    "python3 -m venv /opt/n2n": ("scripts/dist.sh", "/^## Install/"),
    "/opt/n2n/bin/pip install .": ("scripts/dist.sh", "/^## Install/"),
    "ln -s /opt/n2n/bin/n2n": ("scripts/dist.sh", "/^## Install/"),
    "systemctl enable --now n2n-edge@home": ("scripts/services", "systemctl enable --now --no-block n2n-edge@home"),
    "systemctl status": ("scripts/services", "systemctl status n2n-edge@home"),
    "systemctl reload n2n-edge@home": ("scripts/services", "systemctl reload n2n-edge@home"),
    "scripts/services": ("Makefile", "bash scripts/services"),
    "usermod -aG n2n": ("scripts/services", "usermod -aG n2n somebody"),
    "rsync -a /var/lib/n2n/": ("tests/netns/test_supernodes.py", '"rsync", "-a"'),
    "n2n-edge -help": ("tests/unit/test_compat.py", "test_help_names_every_flag"),
    "python setup.py build_ext --inplace": ("tests/unit/test_build_messages.py", '"build_ext", "--inplace"'),
}
#: Selections of what `make test` runs, and what only measures: that make takes them is looked at below.
MAKE = {"make", "PYTHON=python3.13"}
#: Flags are looked at below; what they do takes minutes of a machine that does nothing else.
MEASURES = ("sudo .venv/bin/python benchmarks/", ".venv/bin/python benchmarks/", "python benchmarks/")
#: Nobody runs these but people.
BY_HAND = {
    "apt-get install -y make": "who reads it has no make yet",
    "scripts/sanitize": "builds the extension twice more, for three minutes",
    "scripts/container-check": "needs podman, and some minutes",
    "vpnbench.py run": "not part of this project",
    "sysctl -w": "for vpnbench.py alone, and it changes the whole machine",
}


def commands(path: Path) -> list[str]:
    prose, blocks = parts(path.read_text())
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines = [" ".join(line.partition("  #")[0].split()) for line in lines]
    # What a comment offers in its place: "n2n edge reload   # or SIGHUP, or: systemctl reload n2n-edge@home".
    lines += re.findall(r"# .*\bor: (\S.*)", "\n".join(line for block in blocks for line in block.splitlines()))
    quoted = [span for paragraph in prose.split("\n\n") for span in spans(" ".join(paragraph.split()))]
    return [text for text in (*lines, *quoted) if PROGRAM.fullmatch(text)]


ALL = sorted({command for path in DOCS if path.name != "PROTOCOL.md" for command in commands(path)})


def test_there_are_commands() -> None:
    assert len(ALL) > 25
    assert {"make demo", "systemctl enable --now n2n-edge@home", "scripts/sanitize memory"} <= set(ALL)


@pytest.mark.parametrize("command", ALL)
def test_something_runs_it(command: str) -> None:
    if command.startswith(tuple(BY_HAND)) or command.startswith(MEASURES) or command.split()[0] in MAKE:
        return
    assert [start for start in RUN if command.startswith(start)] != [], "nothing runs this: name what does in RUN"


def test_what_runs_them_does() -> None:
    assert [key for key, (name, text) in RUN.items() if text not in (ROOT / name).read_text()] == []
    known = "\n".join(ALL)
    assert [key for key in (*RUN, *BY_HAND) if key not in known] == [], "nobody is told to type that"


@pytest.mark.parametrize("command", [command for command in ALL if command.split()[0] in MAKE])
def test_make_takes_it(command: str) -> None:
    words = shlex.split(command)
    while "=" in words[0]:
        words.append(words.pop(0))
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_make_help_tells_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert re.findall(r"^  make ([a-z]+)", told, re.MULTILINE) == targets[1].split()


class Taken(Exception):
    """The flags were taken; nothing more is wanted."""


@pytest.mark.parametrize("command", [command for command in ALL if command.startswith(MEASURES)])
def test_a_benchmark_takes_its_flags(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser, *args: Any) -> None:
        parse(self, *args)
        raise Taken

    script, *flags = shlex.split(command.partition("python ")[2])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    before = set(sys.modules)
    try:
        with pytest.raises(Taken):
            importlib.import_module(Path(script).stem).main()
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "benchmarks")):
                del sys.modules[name]
