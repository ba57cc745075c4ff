"""The members' names in a hosts file: what is ours, what is not, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.api.service import edge_methods
from n2n.cli.main import main
from n2n.config import EdgeConfig
from n2n.daemon import hosts as module
from n2n.daemon.edge import EdgeDaemon
from n2n.daemon.hosts import HostsKeeper, Member, Named, hostnames
from n2n.net import hosts
from n2n.net.hosts import host_label, owners, put_lines
from n2n.types import MacAddress
from tests.unit.daemon_fakes import until

OTHERS = b"127.0.0.1\tlocalhost\n# a remark\n\xff\xfe not text\n10.9.9.9 somebody  # n2n\n"
HERE = IPv4Interface("10.1.2.1/24")


def member(name: str, last: int, ip: str | None = None) -> Member:
    return Member(name, MacAddress(bytes((2, 0, 0, 0, 0, last))), IPv4Address(ip or f"10.1.2.{last}"))


class Peer(NamedTuple):
    """As much of a peer as has to do with its name."""

    name: str
    mac: MacAddress | None
    virtual_ip: IPv4Address | None


def everybody(*members: Member, community: str = "acme", network: IPv4Interface | None = HERE) -> list[Named]:
    own, *others = members
    return hostnames(community, network, own, [Peer(*other) for other in others])  # type: ignore[misc]


def called(*members: Member, **more: Any) -> list[str | None]:
    return [named.hostname for named in everybody(*members, **more)]


class TestNames:
    def test_one_label_below_the_community(self) -> None:
        assert called(member("Laptop", 1), member("my.pc_2", 2)) == ["laptop.acme.n2n", "my-pc-2.acme.n2n"]

    def test_nobody_can_be_somebody_else(self) -> None:
        assert called(member("www.example.org", 1), member("localhost", 2)) == [
            "www-example-org.acme.n2n",
            "localhost.acme.n2n",
        ]

    def test_two_with_one_name_have_none(self) -> None:
        assert called(member("a", 1), member("A", 2), member("b", 3)) == [None, None, "b.acme.n2n"]

    def test_addresses_of_other_networks(self) -> None:
        assert called(member("a", 1, "127.0.0.1"), member("b", 2, "8.8.8.8")) == [None, None]
        assert called(member("a", 1), network=None) == [None]
        assert called(Member("a", MacAddress(bytes(6)), None)) == [None]

    def test_a_community_without_a_label(self) -> None:
        assert called(member("a", 1), community="...") == [None]

    @given(st.text(max_size=100))
    def test_any_name_gives_a_label_or_none(self, name: str) -> None:
        label = host_label(name)
        assert label is None or re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "hosts"
        path.write_bytes(OTHERS)
        path.chmod(0o644)
        return path

    @pytest.mark.parametrize("content", [OTHERS, b"", b"no end of line", b"\r\n", OTHERS.replace(b"\n", b"\r\n")])
    def test_what_is_not_ours_stays_byte_for_byte(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])
        assert path.read_bytes().startswith(content)
        assert b"\n10.1.2.3 a.acme.n2n  # n2n tap0\n" in path.read_bytes()
        assert not put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"]), "nothing to do"
        assert put_lines(path, "tap0", ["10.1.2.4 b.acme.n2n"])
        assert b"a.acme.n2n" not in path.read_bytes()
        assert put_lines(path, "tap0", [])
        assert path.read_bytes() == content

    @given(st.lists(st.binary(max_size=30), max_size=6))
    def test_any_file(self, lines: list[bytes]) -> None:
        content = b"\n".join(lines)
        put = hosts._replaced(content, b"tap0", [b"10.1.2.3 a.acme.n2n"])
        assert hosts._replaced(put, b"tap0", []) == content

    def test_owners_leave_each_other_alone(self, path: Path) -> None:
        put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])
        put_lines(path, "tap1", ["10.7.7.7 b.other.n2n"])
        assert owners(path) == {"tap0", "tap1"}
        put_lines(path, "tap0", [])
        assert owners(path) == {"tap1"}
        assert b"10.7.7.7 b.other.n2n" in path.read_bytes()

    def test_mode_and_link_stay(self, path: Path) -> None:
        path.chmod(0o640)
        link = path.with_name("link")
        link.symlink_to(path)
        put_lines(link, "tap0", ["10.1.2.3 a.acme.n2n"])
        assert link.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []

    def test_in_place_where_the_directory_is_not_ours(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(16, "Device or resource busy")

        monkeypatch.setattr(os, "rename", refuse)
        inode = path.stat().st_ino
        put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])
        put_lines(path, "tap0", [])
        assert path.read_bytes() == OTHERS
        assert path.stat().st_ino == inode
        assert [entry.name for entry in path.parent.iterdir()] == ["hosts"]

    def test_who_locks_the_directory_delays_only(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hosts, "_TURN", 0.05)
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            assert put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])
        finally:
            os.close(fd)

    def test_what_is_no_file_is_refused_at_once(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/zero"), Path("/dev/ptmx")):
            with pytest.raises(OSError, match="no regular file"):
                put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])
            with pytest.raises(OSError, match="no regular file"):
                owners(path)
        warnings: list[Any] = []
        keeper = HostsKeeper("tap0", list, lambda *about: warnings.append(about))
        keeper.use(pipe)
        assert not keeper._write(["10.1.2.3 a.acme.n2n"])
        keeper.close()  # which waits for the guardian
        assert "no regular file" in warnings[0][1]["error"]
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_a_file_that_is_too_large(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hosts, "_LARGEST", 10)
        with pytest.raises(OSError, match="more than 10 bytes"):
            put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])
        assert path.read_bytes() == OTHERS


class TestKeeper:
    def named(self, *numbers: int) -> list[Named]:
        return everybody(*(member(f"m{n}", n) for n in numbers))

    def test_it_writes_what_changes_and_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_PERIOD", 0.005)
        path, other = tmp_path / "hosts", tmp_path / "other"
        path.write_bytes(OTHERS)
        other.write_bytes(b"")
        now = self.named(1)
        warnings: list[Any] = []

        async def main() -> None:
            keeper = HostsKeeper("tap0", lambda: now, lambda *about: warnings.append(about))
            task = asyncio.create_task(keeper.run(path))
            await until(lambda: b"10.1.2.1 m1.acme.n2n" in path.read_bytes())
            now[:] = self.named(1, 2)
            await until(lambda: b"10.1.2.2 m2.acme.n2n" in path.read_bytes())
            keeper.use(other)
            assert path.read_bytes() == OTHERS
            await until(lambda: b"10.1.2.2 m2.acme.n2n" in other.read_bytes())
            task.cancel()
            keeper.close()
            keeper.close()

        asyncio.run(asyncio.wait_for(main(), 30))
        assert other.read_bytes() == b""
        assert warnings == []

    def test_what_another_left_goes_at_the_start_also_where_nobody_is_known(self, tmp_path: Path) -> None:
        path = tmp_path / "hosts"
        path.write_bytes(OTHERS)
        put_lines(path, "tap0", ["10.1.2.3 a.acme.n2n"])  # and then there was no current

        async def main() -> None:
            keeper = HostsKeeper("tap0", list, lambda *about: pytest.fail(str(about)))
            task = asyncio.create_task(keeper.run(path))
            await until(lambda: path.read_bytes() == OTHERS)
            task.cancel()
            keeper.close()

        asyncio.run(asyncio.wait_for(main(), 30))

    def test_without_a_guardian_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "hosts").write_bytes(OTHERS)
        monkeypatch.setattr(module.sys, "executable", "/bin/false")
        warnings: list[Any] = []
        keeper = HostsKeeper("tap0", list, lambda *about: warnings.append(about))
        keeper.use(tmp_path / "hosts")
        assert not keeper._write(["10.1.2.3 a.acme.n2n"])
        assert "ended with 1" in warnings[0][1]["error"]
        assert (tmp_path / "hosts").read_bytes() == OTHERS
        keeper.close()

    def test_a_file_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        warnings: list[Any] = []
        keeper = HostsKeeper("tap0", list, lambda *about: warnings.append(about))
        keeper.use(tmp_path / "none")
        assert not keeper._write(["10.1.2.3 a.acme.n2n"])
        assert warnings == [("hosts_failed", {"file": str(tmp_path / "none"), "error": "No such file or directory"})]
        keeper.close()

    def test_without_a_file_nothing_is_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_watch", lambda *_: pytest.fail("a guardian for nothing"))
        keeper = HostsKeeper("tap0", list, lambda *_: None)
        assert keeper._write(["10.1.2.3 a.acme.n2n"])
        keeper.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(OTHERS)
    script = (
        "import sys, time; from pathlib import Path; from n2n.daemon.hosts import HostsKeeper\n"
        "keeper = HostsKeeper('tap0', list, print); keeper.use(Path(sys.argv[1]))\n"
        "keeper._write(['10.1.2.3 a.acme.n2n']); print('ready', keeper._guardian.pid, flush=True); time.sleep(60)"
    )
    daemon = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    guardian = int(daemon.stdout.readline().split()[1])
    assert b"a.acme.n2n" in path.read_bytes()
    # systemd ends what a dead daemon left in its group: that must not be in the way.
    os.kill(guardian, signal.SIGABRT if number == signal.SIGABRT else signal.SIGTERM)
    daemon.send_signal(number)
    daemon.wait(20)
    daemon.stdout.close()
    asyncio.run(asyncio.wait_for(until(lambda: path.read_bytes() == OTHERS), 20))


def test_an_edge_tells_names(tmp_path: Path) -> None:
    config = EdgeConfig(community="acme", supernode_addr="192.0.2.1:7777", edge_id="me")

    async def main() -> None:
        daemon = EdgeDaemon(config, machine_id=bytes(16))
        assert (await edge_methods(daemon, "tap0")["names"]({}))["names"] == []
        daemon.mac, daemon.address = MacAddress(bytes(6)), HERE
        [own] = (await edge_methods(daemon, "tap0")["names"]({}))["names"]
        assert own == {
            "name": "me",
            "hostname": "me.acme.n2n",
            "address": "10.1.2.1",
            "mac": str(daemon.mac),
            "self": True,
        }

    asyncio.run(main())


class TestCommand:
    @pytest.fixture(autouse=True)
    def _asked(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        answer = {
            "at": 1.0,
            "names": [
                {"name": "me\x1b", "hostname": "me.acme.n2n", "address": "10.1.2.1", "mac": "m", "self": True},
                {"name": "twin", "hostname": None, "address": "10.1.2.2", "mac": "m", "self": False},
            ],
        }

        class Client:
            def __enter__(self) -> Client:
                return self

            def __exit__(self, *_: object) -> None: ...

            def call(self, method: str) -> Any:
                assert method == "names"
                return answer

        monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
        monkeypatch.setattr("n2n.api.client.choose_edge", lambda _: "tap0")
        monkeypatch.setattr("n2n.api.client.connect", lambda _: Client())

    def test_forms(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["names"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"^me\? \(this edge\) +10\.1\.2\.1 +me\.acme\.n2n *$", text, re.MULTILINE)
        assert re.search(r"^twin +10\.1\.2\.2 +- *$", text, re.MULTILINE)
        assert main(["names", "--hosts"]) == 0
        assert capsys.readouterr().out == "10.1.2.1 me.acme.n2n\n"
        assert main(["names", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["names"]) == 2

    def test_tidy(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "hosts"
        path.write_bytes(OTHERS)
        put_lines(path, "gone0", ["10.1.2.3 a.acme.n2n"])
        assert main(["names", "--tidy", str(path)]) == 0
        assert "gone0" in capsys.readouterr().out
        assert path.read_bytes() == OTHERS
        assert main(["names", "--tidy", str(path)]) == 0
        assert main(["names", "--tidy", str(tmp_path / "none")]) == 1
