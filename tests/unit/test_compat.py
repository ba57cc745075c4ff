"""``n2n-edge`` and its like: Go's flags reach our configuration, under the names that were typed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from n2n.cli import compat
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.errors import ConfigError


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("N2N_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("n2n.daemon.logs.setup_logging", lambda *args: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    async def serve(config: Any, load: Any) -> None:
        found.append(config)
        assert load().config == config

    monkeypatch.setattr("n2n.api.service.serve_edge", serve)
    monkeypatch.setattr("n2n.api.service.serve_supernode", serve)
    return found


def run(command: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["n2n-x", *words])
    return int(command())


def test_every_flag_of_the_edge(seen: list[Any], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    line = (
        "-id box -community acme -tap t0 -port 5 -enableFuze=false -supernode vpn:7777 -heartbeat 10s "
        "--udpbuffersize=65536 -api-listen 127.0.0.1:9 -encryption-passphrase secret -compress-payload"
    )
    assert run(compat.edge, monkeypatch, *line.split()) == 0
    config = seen[0]
    assert isinstance(config, EdgeConfig)
    assert (config.edge_id, config.community, config.tap_name, config.local_port) == ("box", "acme", "t0", 5)
    assert (config.enable_vfuze, config.supernode_addr, config.heartbeat_interval) == (False, "vpn:7777", 10.0)
    assert config.api_listen_address == "127.0.0.1:9"
    assert (config.udp_buffer_size, config.encryption_passphrase, config.compress_payload) == (65536, "secret", True)
    assert "-encryption-passphrase: every user of this host can read" in capsys.readouterr().err


def test_every_flag_of_the_supernode(seen: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "sn.yaml"
    path.write_text("listen_address: ':1'\nstrict_hash_checking: false\n")
    line = f"-config {path} -listen :7 -cleanup 1m -expiry 2m -debug -enableFuze=false -subnet 10.9.0.0 -subnetcidr 26"
    assert run(compat.supernode, monkeypatch, *line.split()) == 0
    config = seen[0]
    assert isinstance(config, SupernodeConfig)
    assert (config.listen_address, config.cleanup_interval, config.expiry_duration) == (":7", 60.0, 120.0)
    assert (config.log_level, config.enable_vfuze, str(config.community_subnet)) == ("debug", False, "10.9.0.0")
    assert (config.community_subnet_cidr, config.strict_hash_checking) == (26, False)


def test_mistakes_name_the_flag_that_was_typed(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(compat.edge, monkeypatch, "-tap", "x" * 30, "-community", "acme", "-supernode", "vpn:1") == 2
    assert capsys.readouterr().err.startswith("n2n: error: flag -tap: ")
    assert run(compat.edge, monkeypatch, "-taap", "x") == 2
    assert "-enableFuze" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["stray"], ["-id"], ["-enableFuze=perhaps"], ["---id", "x"], ["-"]])
def test_what_is_no_flag(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        compat.read_go_flags(compat._EDGE, words)


@pytest.mark.parametrize("command", [getattr(compat, name) for name in compat.__all__])
@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_help_names_every_flag(command: Any, word: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(command, monkeypatch, word) == 0
    text = capsys.readouterr().out
    for flag in getattr(compat, f"_{command.__name__.upper()}"):
        assert f"\n  -{flag}" in text
    assert "n2n " in text


def test_tools_become_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []
    monkeypatch.setattr(compat, "main", lambda words: lines.append(words) or 0)
    words = "--component udp --iterations 9 --packetsize 512 --allcomponents --output x.csv --tapid 3 -community c"
    assert run(compat.benchmark, monkeypatch, *words.split()) == 0
    assert run(compat.benchmark, monkeypatch, "-allcomponents=false") == 0
    assert run(compat.taptest, monkeypatch, "-iterations", "7", "-size=900") == 0
    assert run(compat.upnp, monkeypatch, *["--external-port", "7", "--internal-port", "8", "--protocol", "udp"]) == 0
    assert run(compat.p2viz, monkeypatch, "-format", "svg", "-output=x.svg") == 0
    assert lines == [
        ["bench", "--component", "udp", "--iterations", "9", "--packet-size", "512", "--allcomponents", "--output",
         "x.csv", "--community", "c"],
        ["bench"],
        ["taptest", "--iterations", "7", "--size", "900"],
        ["upnp", "--external-port", "7", "--internal-port", "8", "--protocol", "udp"],
        ["p2viz", "--format", "svg", "--output", "x.svg"],
    ]  # fmt: skip


def test_they_run(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(compat.benchmark, monkeypatch, "-component", "protocol", "-iterations", "10") == 0
    assert "Protocol Serialization" in capsys.readouterr().out
    assert run(compat.benchmark, monkeypatch, "-component", "nothing") == 2
    assert run(compat.upnp, monkeypatch, "-external-port", "0") == 2
    monkeypatch.setenv("N2N_RUN_DIR", "/nowhere")
    assert run(compat.p2viz, monkeypatch) == 3


def test_every_script_is_installed() -> None:
    import tomllib

    scripts = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    ours = {name: where for name, where in scripts.items() if name.startswith("n2n-")}
    assert ours == {f"n2n-{name}": f"n2n.cli.compat:{name}" for name in compat.__all__}
