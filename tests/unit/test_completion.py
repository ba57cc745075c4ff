"""Shell completion: the scripts, as the shells themselves run them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from n2n.cli.completion import Shell, script
from n2n.cli.main import main


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        assert not os.environ.get("CI"), f"{shell} is missing: scripts/setup.sh test installs it"
        pytest.skip(f"{shell} is missing")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for shell in Shell:
        found[shell.value] = folder / f"n2n.{shell.value}"
        found[shell.value].write_text(script(shell))
    return found


def run(*command: str, env: dict[str, str] | None = None) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | (env or {}), timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def bash(path: Path, *words: str, env: dict[str, str] | None = None) -> list[str]:
    line = " ".join(f"'{word}'" for word in ("n2n", *words))
    code = f"source {path}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _n2n; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return run("bash", "--norc", "-c", code, env=env)


class TestBash:
    def test_verbs(self, scripts: dict[str, Path]) -> None:
        assert {"edge", "supernode", "doctor", "completion"} <= set(bash(scripts["bash"], ""))
        assert bash(scripts["bash"], "su") == ["supernode"]
        assert set(bash(scripts["bash"], "config", "")) >= {"init", "show", "check"}
        assert bash(scripts["bash"], "edge", "u") == ["up"]

    def test_flags_of_the_verb_only(self, scripts: dict[str, Path]) -> None:
        assert bash(scripts["bash"], "edge", "up", "--comp") == ["--compress-payload"]
        assert bash(scripts["bash"], "supernode", "serve", "--listen-address", ":7777", "--comm") == [
            "--community-subnet",
            "--community-subnet-cidr",
        ]
        assert bash(scripts["bash"], "status", "--comm") == []

    def test_values(self, scripts: dict[str, Path], tmp_path: Path) -> None:
        (tmp_path / "edge.yaml").touch()
        assert bash(scripts["bash"], "edge", "up", "--config", f"{tmp_path}/ed") == [f"{tmp_path}/edge.yaml"]
        assert bash(scripts["bash"], "edge", "up", "--community", "") == [], "nobody knows"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "tap7.sock"))
            assert bash(scripts["bash"], "peers", "--instance", "ta", env={"N2N_RUN_DIR": str(tmp_path)}) == ["tap7"]


def test_zsh(scripts: dict[str, Path]) -> None:
    need("zsh")
    code = f'compdef() {{ :; }}; source {scripts["zsh"]}; _n2n_follow "$(_n2n_path edge up --tap-name x)"'
    assert "--compress-payload" in run("zsh", "-f", "-c", code)
    # As its completion system calls it: with the words so far, and a way to offer more.
    code = (
        f"compdef() {{ :; }}; source {scripts['zsh']}; compadd() {{ shift; print -l -- $@; }}; "
        "words=(n2n config ''); CURRENT=3; _n2n"
    )
    assert {"init", "show", "check"} <= set(run("zsh", "-f", "-c", code))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("n2n su", "supernode"),
        ("n2n edge ", "up"),
        ("n2n edge up --compr", "--compress-payload"),
        ("n2n config i", "init"),
    ],
)
def test_fish(line: str, word: str, scripts: dict[str, Path], tmp_path: Path) -> None:
    need("fish")
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    found = run("fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C '{line}'", env=env)
    assert word in found


def test_fish_offers_no_flag_of_another_verb(scripts: dict[str, Path], tmp_path: Path) -> None:
    need("fish")
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    code = f"source {scripts['fish']}; complete -C 'n2n status --comp'"
    assert "--compress-payload" not in run("fish", "--no-config", "-c", code, env=env)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == script(Shell.BASH)
    assert main(["completion", "csh"]) == 2
