"""The reader of plain daemon command lines: what it takes, typer takes alike; what it does not, typer gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from n2n.cli import edge, foreground, supernode
from n2n.cli.foreground import plain
from n2n.cli.main import build_app

PLAIN = [
    ["edge", "up"],
    ["edge", "up", "--config", "edge.yaml"],
    ["edge", "up", "--config=edge.yaml", "--community", "acme", "--supernode-addr=h:1", "--tap-mtu", "1400"],
    ["edge", "up", "--enable-vfuze", "--no-tap-offload", "--threads", "2", "--encryption-passphrase-file", "/x"],
    ["edge", "up", "--community=", "--community", "b"],
    ["edge", "up", "-v", "--config", "edge.yaml"],
    ["edge", "up", "--encryption-passphrase-file", "-", "--community", "acme"],
    ["supernode", "serve", "--verbose", "--log-level", "warning"],
    ["supernode", "serve"],
    ["supernode", "serve", "--listen-address", ":7777", "--debug", "--no-udp-gro", "--state-dir="],
]
LEFT_TO_TYPER = [
    [],
    ["edge"],
    ["edge", "down"],
    ["supernode", "status"],
    ["edge", "up", "--help"],
    ["edge", "up", "-h"],
    ["edge", "up", "--comunity", "acme"],
    ["edge", "up", "--community"],
    ["edge", "up", "--community", "-acme"],
    ["edge", "up", "acme"],
    ["edge", "up", "--enable-vfuze=true"],
    ["edge", "up", "--no-community", "x"],
    ["edge", "up", "--listen-address", ":1"],
    ["supernode", "serve", "--tap-name", "t"],
]


@pytest.mark.parametrize("words", PLAIN, ids=" ".join)
def test_plain_lines_mean_what_typer_reads_in_them(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path | None, dict[str, Any]]] = []

    def record(path: Path | None, flags: dict[str, Any]) -> None:
        seen.append((path, {name: value for name, value in flags.items() if value is not None}))

    monkeypatch.setattr(foreground, "run_edge", record)
    monkeypatch.setattr(foreground, "run_supernode", record)
    run = plain(words)
    assert run is not None
    run()
    build_app(words)(args=words, standalone_mode=False)
    assert len(seen) == 2
    assert seen[0] == seen[1]


@pytest.mark.parametrize("words", LEFT_TO_TYPER, ids=" ".join)
def test_everything_else_is_left_to_typer(words: list[str]) -> None:
    assert plain(words) is None


def test_a_daemon_loads_neither_typer_nor_the_other_daemon() -> None:
    code = (
        "import sys; sys.argv = ['n2n', 'edge', 'up', '--community', 'c', '--supernode-addr', 'h:1']\n"
        "import n2n.api.service as service\n"
        "async def serve(config, load): import n2n.daemon.edge\n"
        "service.serve_edge = serve\n"
        "from n2n.cli.main import main\n"
        "assert main() == 0\n"
        "print([m for m in ('typer', 'pydantic', 'rich', 'n2n.daemon.supernode', 'n2n.store') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert edge.app is not supernode.app
