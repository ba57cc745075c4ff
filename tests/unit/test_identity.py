"""The machine id file: recorded contents, how it is made, and what is never done to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from n2n.cli.exits import code_of
from n2n.errors import ConfigError
from n2n.identity import load_machine_id, mac_for, machine, parse_machine_id
from n2n.wire import derive_mac


def mode(path: Path) -> int:
    """Permission bits."""
    return path.stat().st_mode & 0o777


def test_vectors(vectors, tmp_path):
    cases = vectors("machine_id_file")["vectors"]
    assert {case["accepted"] for case in cases} == {True, False}
    for number, case in enumerate(cases):
        content = bytes.fromhex(case["file_hex"])
        path = tmp_path / str(number)
        path.write_bytes(content)
        if case["accepted"]:
            machine_id = load_machine_id(path)
            assert machine_id.hex() == case["machine_id"], case["what"]
            assert str(mac_for(machine_id, case["community"])) == case["mac"]
        else:
            with pytest.raises(ConfigError) as error:
                load_machine_id(path)
            assert str(path) in str(error.value)
        assert path.read_bytes() == content, "a file that is there is never written over"


@pytest.mark.parametrize("around", ["\x1c", "\x1d", "\x1e", "\x1f", "\u200b", "\ufeff", "\0"])
def test_what_is_no_blank(around):
    with pytest.raises(ConfigError):
        parse_machine_id(("0" * 32 + around).encode())


@pytest.mark.parametrize("around", ["\u2003", "\u3000", "\x85", "\v", " \t\r\n" * 20])
def test_what_is_blank(around):
    assert parse_machine_id((around + "0f" * 16 + around).encode()) == b"\x0f" * 16


@pytest.mark.parametrize("digits", ["٠" * 32, "０" * 32, "0" * 31 + "g", "+" + "0" * 31, "0_" * 16])
def test_digits_are_ascii(digits):
    with pytest.raises(ConfigError):
        parse_machine_id(digits.encode())


def test_a_new_id_is_private_and_stays(tmp_path):
    path = tmp_path / "deep" / "er" / "machine-id"
    first = load_machine_id(path)
    assert len(first) == 16
    assert path.read_bytes() == first.hex().encode()
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert load_machine_id(path) == first
    assert os.listdir(path.parent) == ["machine-id"], "nothing else is left behind"
    assert load_machine_id(tmp_path / "other") != first


def test_the_default_is_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    first = load_machine_id()
    assert (tmp_path / ".n2n-go" / "machine-id").read_text() == first.hex()
    assert load_machine_id() == first


def test_no_home(monkeypatch):
    def no_home():
        raise RuntimeError("no home")

    monkeypatch.setattr(machine.Path, "home", no_home)
    with pytest.raises(ConfigError, match="home directory"):
        load_machine_id()


def test_a_file_open_to_others_is_closed(tmp_path):
    """The reference makes it 0755; the id in it is a secret."""
    path = tmp_path / "machine-id"
    path.write_text("0" * 32)
    path.chmod(0o755)
    load_machine_id(path)
    assert mode(path) == 0o600


def test_edges_that_start_at_once_get_one_id(tmp_path):
    path = tmp_path / "machine-id"
    barrier = threading.Barrier(8)
    found = []

    def start():
        barrier.wait()
        found.append(load_machine_id(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {bytes.fromhex(path.read_text())}
    assert os.listdir(tmp_path) == ["machine-id"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def no_link(source, target):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(machine.os, "link", no_link)
    path = tmp_path / "machine-id"
    assert load_machine_id(path) == bytes.fromhex(path.read_text())
    assert os.listdir(tmp_path) == ["machine-id"]


def test_what_cannot_be_read_or_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "file" / "machine-id", Path("/proc/none/machine-id"), tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="cannot be read or made") as error:
            load_machine_id(path)
        assert str(path) in str(error.value)


def test_want_of_rights_is_told_as_such(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.os, "open", refused)
    with pytest.raises(ConfigError, match="machine_id_file") as error:
        load_machine_id(tmp_path / "machine-id")
    assert code_of(error.value) == 5


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "machine-id"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ConfigError, match="not a machine id"):
        load_machine_id(path)


def test_mac_for():
    machine_id = bytes(range(16))
    assert mac_for(machine_id, "acme") == derive_mac(machine_id, "acme")
    for size in (0, 15, 17):
        with pytest.raises(ConfigError, match="16 bytes"):
            mac_for(bytes(size), "acme")
