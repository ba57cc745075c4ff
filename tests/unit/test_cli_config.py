"""``n2n config`` and ``n2n key``: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import re
import stat
from importlib import resources
from pathlib import Path

import pytest

from n2n.cli.key import new_passphrase
from n2n.cli.main import main
from n2n.identity import mac_for
from n2n.store import KEY_FILE, load_key, load_or_make_key
from n2n.wire import key_fingerprint

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ROLES = ("edge", "supernode")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("N2N_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("role", ROLES)
class TestInit:
    def test_writes_the_sample_and_it_is_accepted(self, role: str, folder: Path, capsys) -> None:
        assert main(["config", "init", role]) == 0
        path = folder / f"{role}.yaml"
        assert path.read_text() == (CONFIGS / f"{role}.yaml").read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert f"n2n config check {role} --config {role}.yaml" in capsys.readouterr().out
        assert main(["config", "check", role, "--config", path.name]) == 0
        assert capsys.readouterr() == (f"{role}.yaml: ok\n", "")

    def test_writes_over_nothing_unless_told_to(self, role: str, folder: Path, capsys) -> None:
        path = folder / "mine.yaml"
        path.write_text("mine")
        assert main(["config", "init", role, "--output", str(path)]) == 2
        assert path.read_text() == "mine"
        assert "--force" in capsys.readouterr().err
        assert main(["config", "init", role, "--output", str(path), "--force"]) == 0
        assert path.read_text().startswith("# ")

    def test_prints(self, role: str, folder: Path, capsys) -> None:
        assert main(["config", "init", role, "--output", "-"]) == 0
        assert capsys.readouterr().out == (CONFIGS / f"{role}.yaml").read_text()
        assert list(folder.iterdir()) == []

    def test_what_cannot_be_written_is_told(self, role: str, capsys) -> None:
        assert main(["config", "init", role, "--output", "none/x.yaml"]) == 1
        assert capsys.readouterr().err == "n2n: error: none/x.yaml cannot be written: no such file or directory\n"

    def test_the_sample_is_in_the_package(self, role: str) -> None:
        assert (resources.files("n2n") / "data" / "configs" / f"{role}.yaml").is_file()


class TestShow:
    def test_values_origins_and_a_secret(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        path = folder / "edge.yaml"
        path.write_text("community: acme\nsupernode_addr: vpn:7777\nencryption_passphrase: top-secret-words\n")
        path.chmod(0o600)
        monkeypatch.setenv("N2N_TAP_MTU", "1300")
        args = ["config", "show", "edge", "--config", str(path), "--tap-name", "t9", "--bridge"]
        assert main(args) == 0
        text = capsys.readouterr().out
        assert "top-secret-words" not in text
        assert re.search(rf"^community +acme +{re.escape(str(path))}:1 *$", text, re.MULTILINE)
        assert re.search(r"^encryption_passphrase +\*{8} +", text, re.MULTILINE)
        assert re.search(r"^tap_mtu +1300 +environment N2N_TAP_MTU *$", text, re.MULTILINE)
        assert re.search(r"^tap_name +t9 +flag --tap-name *$", text, re.MULTILINE)
        assert re.search(r"^bridge +true +flag --bridge *$", text, re.MULTILINE)
        assert re.search(r"^heartbeat_interval +30s +default *$", text, re.MULTILINE)
        assert main([*args, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["role"] == "edge"
        assert {"key": "tap_name", "value": "t9", "origin": "flag --tap-name"} in found["values"]
        assert "top-secret-words" not in str(found)

    def test_of_a_supernode_without_a_file(self, capsys) -> None:
        assert main(["config", "show", "supernode"]) == 0
        assert re.search(r"^listen_address +:7777 +default *$", capsys.readouterr().out, re.MULTILINE)

    @pytest.mark.parametrize("words", [["--no-such-flag"], ["more"], ["--tap-name"]])
    def test_flags_that_are_none(self, words: list[str], capsys) -> None:
        assert main(["config", "show", "supernode", *words]) == 2
        assert "not flags of n2n supernode serve" in capsys.readouterr().err

    def test_a_role_that_is_none(self, capsys) -> None:
        assert main(["config", "show", "king"]) == 2
        assert "king" in capsys.readouterr().err


class TestCheck:
    def test_every_problem_with_its_line(self, folder: Path, capsys) -> None:
        path = folder / "bad.yaml"
        path.write_text("community: acme\nheartbeat_interval: soon\nno_such: 1\n")
        assert main(["config", "check", "edge", "--config", str(path)]) == 2
        error = capsys.readouterr().err
        for part in ("3 problems", f"{path}:2: heartbeat_interval", f"{path}:3: no_such", "supernode_addr is missing"):
            assert part in error
        assert main(["config", "check", "edge", "--config", str(path), "--json"]) == 2
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] is False
        assert len(found["problems"]) == 3
        assert found["problems"][0].startswith(f"{path}:2: heartbeat_interval")

    def test_one_problem(self, folder: Path, capsys) -> None:
        assert main(["config", "check", "edge", "--config", str(folder / "none.yaml"), "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["problems"] == [
            f"{folder}/none.yaml: cannot be read: no such file or directory"
        ]

    def test_warnings_are_no_problems(self, folder: Path, capsys) -> None:
        path = folder / "edge.yaml"
        path.write_text("community: acme\nsupernode_addr: vpn:7777\ntap_mtu: 700\n")
        assert main(["config", "check", "edge", "--config", str(path)]) == 0
        captured = capsys.readouterr()
        assert captured.out == f"{path}: ok\n"
        assert "too small for IPv6" in captured.err
        assert main(["config", "check", "edge", "--config", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True


class TestKey:
    def test_fingerprint_of_a_file(self, folder: Path, capsys) -> None:
        expected = key_fingerprint(load_or_make_key(folder / "state" / KEY_FILE).public_pem())
        assert main(["key", "fingerprint", "--state-dir", "state"]) == 0
        assert capsys.readouterr().out == f"SHA256:{expected}  (state/{KEY_FILE})\n"
        assert main(["key", "fingerprint", "--state-dir", "state", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fingerprint"] == expected

    def test_fingerprint_makes_no_key(self, folder: Path, capsys) -> None:
        assert main(["key", "fingerprint", "--state-dir", "state"]) == 2
        assert "there is no key" in capsys.readouterr().err
        assert not (folder / "state").exists()
        with pytest.raises(FileNotFoundError):
            load_key(folder / "state" / KEY_FILE)

    def test_fingerprint_without_a_supernode(self, capsys) -> None:
        assert main(["key", "fingerprint"]) == 3
        assert "n2n supernode serve" in capsys.readouterr().err

    def test_mac(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        assert main(["key", "mac", "acme"]) == 2
        assert "there is no machine id" in capsys.readouterr().err
        assert list(folder.iterdir()) == [], "asking makes no identity"
        (folder / "id").write_text(bytes(range(16)).hex())
        expected = str(mac_for(bytes(range(16)), "acme"))
        assert main(["key", "mac", "acme", "--machine-id-file", "id", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"community": "acme", "mac": expected, "machine_id_file": "id"}
        monkeypatch.setenv("N2N_MACHINE_ID_FILE", "id")
        assert main(["key", "mac", "acme"]) == 0
        assert expected in capsys.readouterr().out

    def test_passphrase(self, folder: Path, capsys) -> None:
        assert main(["key", "passphrase"]) == 0
        assert re.fullmatch(r"([0-9a-z]{5}-){5}[0-9a-z]{5}\n", capsys.readouterr().out)
        assert main(["key", "passphrase", "--output", "secret"]) == 0
        assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
        written = (folder / "secret").read_text()
        assert written.strip() not in capsys.readouterr().out
        assert main(["key", "passphrase", "--output", "secret"]) == 2
        assert (folder / "secret").read_text() == written, "a passphrase in use is never written over"
        path = folder / "edge.yaml"
        path.write_text("community: acme\nsupernode_addr: vpn:7777\nencryption_passphrase_file: secret\n")
        assert main(["config", "check", "edge", "--config", str(path)]) == 0

    def test_passphrases_use_their_whole_alphabet(self) -> None:
        letters = set("".join(new_passphrase() for _ in range(60))) - {"-"}
        assert len(letters) == 32
