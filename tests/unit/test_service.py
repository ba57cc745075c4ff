"""``n2n service``: units that systemd takes, files that are ours alone, and what is done when."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from n2n.cli import service
from n2n.cli.main import main

PROGRAM = "/usr/bin/env"  # any program: verify looks whether it is there
UNITS = ["n2n-edge@.service", "n2n-supernode.service"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("N2N_")]:
        monkeypatch.delenv(name)
    return tmp_path


def install(root: Path, *words: str) -> int:
    return main(["service", "install", *words, "--root", str(root), "--program", PROGRAM])


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing: scripts/setup.sh test installs it"
        pytest.skip("systemd-analyze is missing")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS)
class TestUnits:
    @pytest.fixture
    def path(self, unit: str, root: Path) -> Path:
        assert install(root, "edge" if "edge" in unit else "supernode") == 0
        path = root / "etc/systemd/system" / unit
        if "@." in unit:
            path = path.rename(path.with_name("n2n-edge@home.service"))
        return path

    def test_systemd_knows_every_key(self, path: Path) -> None:
        done = analyze("verify", "--recursive-errors=no", str(path))
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_wrong_key_would_be_seen(self, path: Path) -> None:
        path.write_text(path.read_text().replace("[Service]", "[Service]\nProtectEverything=yes"))
        assert "ProtectEverything" in analyze("verify", "--recursive-errors=no", str(path)).stderr

    def test_they_are_hardened(self, path: Path) -> None:
        done = analyze("security", "--offline=true", "--threshold=30", "--no-pager", str(path))
        assert done.returncode == 0, done.stdout
        path.write_text(path.read_text().replace("ProtectSystem=strict", "").replace("NoNewPrivileges=yes", ""))
        text = path.read_text()
        path.write_text("".join(line for line in text.splitlines(True) if not line.startswith(("Protect", "Restrict"))))
        assert analyze("security", "--offline=true", "--threshold=30", "--no-pager", str(path)).returncode != 0

    def test_readiness_watchdog_and_reload(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        assert "Type=notify" in lines
        assert any(line.startswith("WatchdogSec=") for line in lines)
        assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
        assert "@N2N@" not in path.read_text()


class TestInstall:
    def test_an_edge(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert install(root, "edge", "home") == 0
        unit = (root / "etc/systemd/system/n2n-edge@.service").read_text()
        assert f"ExecStart={PROGRAM} edge up --config /etc/n2n/%i.yaml\n" in unit
        config = root / "etc/n2n/home.yaml"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600, "a passphrase may come into it"
        assert "systemctl enable --now n2n-edge@home.service" in capsys.readouterr().out
        assert "SupplementaryGroups=n2n" in unit
        assert "u n2n" in (root / "etc/sysusers.d/n2n.conf").read_text(), "the group that the unit names"

    def test_a_supernode(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert install(root, "supernode") == 0
        assert (root / "etc/n2n/supernode.yaml").stat().st_mode & 0o004, "its user reads it"
        assert "\nu n2n - " in (root / "etc/sysusers.d/n2n.conf").read_text()
        (root / "etc/n2n/supernode.yaml").chmod(0o600)
        assert install(root, "supernode") == 0
        assert "chmod 644" in capsys.readouterr().out

    def test_again_keeps_the_configuration(self, root: Path) -> None:
        install(root, "edge", "home")
        config = root / "etc/n2n/home.yaml"
        config.write_text("mine")
        unit = root / "etc/systemd/system/n2n-edge@.service"
        unit.write_text(unit.read_text().replace("RestartSec=5s", "RestartSec=9s"))
        assert install(root, "edge", "home") == 0
        assert config.read_text() == "mine"
        assert "RestartSec=5s" in unit.read_text(), "an older unit of ours is replaced"

    def test_what_is_not_ours_stays(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        unit = root / "etc/systemd/system/n2n-edge@.service"
        unit.parent.mkdir(parents=True)
        unit.write_text("[Service]\n")
        assert install(root, "edge") == 2
        assert "was not written by n2n" in capsys.readouterr().err
        assert main(["service", "uninstall", "edge", "--root", str(root)]) == 2
        assert unit.read_text() == "[Service]\n"

    def test_the_group_stays_while_somebody_needs_it(self, root: Path) -> None:
        install(root, "supernode")
        install(root, "edge")
        assert main(["service", "uninstall", "supernode", "--root", str(root)]) == 0
        assert (root / "etc/sysusers.d/n2n.conf").exists()
        assert main(["service", "uninstall", "edge", "--root", str(root)]) == 0
        assert not (root / "etc/sysusers.d/n2n.conf").exists()

    def test_uninstall_keeps_configuration(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        install(root, "supernode")
        assert main(["service", "uninstall", "supernode", "--root", str(root)]) == 0
        left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        assert left == ["etc/n2n/supernode.yaml"]
        assert main(["service", "uninstall", "supernode", "--root", str(root)]) == 2

    @pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 70, "a%i", "supernode"])
    def test_names(self, name: str, root: Path) -> None:
        assert install(root, "edge", name) == 2
        assert list(root.iterdir()) == []

    def test_a_link_that_somebody_left_is_not_followed(self, root: Path) -> None:
        units, theirs = root / "etc/systemd/system", root / "theirs"
        units.mkdir(parents=True)
        theirs.write_text("precious")
        (units / ".n2n-edge@.service.new").symlink_to(theirs)
        assert install(root, "edge") == 0
        assert theirs.read_text() == "precious"
        assert (units / "n2n-edge@.service").read_text().startswith("# Written by")
        assert stat.S_IMODE((units / "n2n-edge@.service").stat().st_mode) == 0o644

    def test_a_directory_that_cannot_be_written(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (root / "etc").touch()
        assert install(root, "edge") == 1
        assert "cannot be written" in capsys.readouterr().err


class TestProgram:
    @pytest.mark.parametrize("path", ["/opt/a b/n2n", "/opt/%n/n2n", "/opt/$HOME/n2n", '/opt/"/n2n'])
    def test_paths_that_no_unit_can_name(self, path: str, root: Path) -> None:
        assert main(["service", "install", "edge", "--root", str(root), "--program", path]) == 2

    def test_homes_are_hidden_from_services(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(service, "_is_live", lambda _: True)
        assert main(["service", "install", "edge", "--program", "/home/me/.venv/bin/n2n"]) == 2
        assert "/opt/n2n" in capsys.readouterr().err

    def test_this_program_is_found(self, root: Path) -> None:
        assert main(["service", "install", "edge", "--root", str(root)]) == 0
        [line] = [
            line
            for line in (root / "etc/systemd/system/n2n-edge@.service").read_text().splitlines()
            if line.startswith("ExecStart=")
        ]
        program = Path(line.removeprefix("ExecStart=").split()[0])
        assert program.is_absolute()
        assert program.name == "n2n"


class TestLive:
    """On a system that systemd runs; systemctl is not called here, only recorded."""

    @pytest.fixture
    def commands(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        monkeypatch.setattr(service, "_is_live", lambda _: True)
        monkeypatch.setattr(service, "_run", lambda *words: found.append(words))
        monkeypatch.setattr(service, "_instances", lambda _: iter(["n2n-edge@home.service"]))
        return found

    def test_a_sample_is_not_started(self, root: Path, commands: list[tuple[str, ...]]) -> None:
        assert install(root, "edge", "home", "--now") == 0
        assert commands == [("systemd-sysusers", "n2n.conf"), ("systemctl", "daemon-reload")]
        assert install(root, "edge", "home", "--now") == 0
        assert commands[-1] == ("systemctl", "enable", "--now", "--no-block", "n2n-edge@home.service")

    def test_the_user_comes_first(self, root: Path, commands: list[tuple[str, ...]]) -> None:
        assert install(root, "supernode") == 0
        assert commands == [("systemd-sysusers", "n2n.conf"), ("systemctl", "daemon-reload")]

    @pytest.mark.parametrize("known", [True, False])
    def test_addresses_can_be_kept(
        self, known: bool, root: Path, commands: list[tuple[str, ...]], monkeypatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HOME", str(root))
        if known:
            (root / ".n2n-go").mkdir()
            (root / ".n2n-go/machine-id").touch()
        install(root, "edge")
        assert ("install -D -m 600" in capsys.readouterr().out) is known

    def test_uninstall_stops_first(self, root: Path, commands: list[tuple[str, ...]]) -> None:
        install(root, "edge", "home")
        commands.clear()
        assert main(["service", "uninstall", "edge", "--root", str(root)]) == 0
        assert commands == [("systemctl", "disable", "--now", "n2n-edge@home.service"), ("systemctl", "daemon-reload")]


def test_it_is_roots(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["service", "install", "edge"]) == 5
    assert main(["service", "uninstall", "edge"]) == 5
    assert "--root" in capsys.readouterr().err


def test_a_command_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from n2n.errors import PlatformError

    with pytest.raises(PlatformError, match="sh -c exit 3: it ended with 3"):
        service._run("sh", "-c", "exit 3")


def test_systemd_says_where_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    from n2n.config import default_state_dir

    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/n2n-supernode:/var/lib/more")
    assert default_state_dir() == Path("/var/lib/n2n-supernode")
