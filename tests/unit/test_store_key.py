"""The supernode's key file: kept, private, whole, and never written over."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from n2n.crypto.rsa import SupernodeKey, encrypt
from n2n.errors import StoreError
from n2n.store import KEY_FILE, keyfile, load_or_make_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / KEY_FILE


@pytest.fixture
def made(path):
    return load_or_make_key(path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_key_is_private_and_alone(path, made):
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [KEY_FILE]
    assert path.read_bytes() == made.dump()


def test_the_key_stays_the_same(path, made):
    again = load_or_make_key(path)
    assert again.public_pem() == made.public_pem()
    assert again.decrypt(encrypt(made.public_pem(), b"sixteen bytes id")) == b"sixteen bytes id"


@pytest.mark.parametrize("open_to", [0o640, 0o604, 0o666])
def test_a_readable_key_is_made_private_with_a_warning(path, made, caplog, open_to):
    path.chmod(open_to)
    with caplog.at_level(logging.WARNING, "n2n.store"):
        assert load_or_make_key(path).public_pem() == made.public_pem()
    assert mode(path) == 0o600
    assert str(path) in caplog.text
    assert f"{open_to:04o}" in caplog.text


def test_a_private_key_draws_no_warning(path, made, caplog):
    assert load_or_make_key(path).public_pem() == made.public_pem()
    assert caplog.text == ""


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", os.urandom(2000)]
)
def test_something_else_is_refused_and_kept(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="move the file away") as caught:
        load_or_make_key(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_what_is_no_file_is_refused(path):
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="not a regular file"):
        load_or_make_key(path)


def test_a_key_that_somebody_else_could_change_is_refused(path, made, monkeypatch):
    monkeypatch.setattr(keyfile.os, "geteuid", lambda: 4711)
    if os.stat(path).st_uid == 0:
        os.chown(path, 1234, 1234)
    with pytest.raises(StoreError, match="belongs to user"):
        load_or_make_key(path)


def test_an_error_while_writing_leaves_nothing(path, monkeypatch):
    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile.os, "fsync", fail)
    with pytest.raises(StoreError, match=r"cannot make the key .*no space left"):
        load_or_make_key(path)
    assert list(path.parent.iterdir()) == []


def test_the_key_is_on_the_disk_before_it_has_its_name(path, monkeypatch):
    steps: list[str] = []
    real_rename, real_fsync = os.rename, os.fsync

    def rename(source: str, target: Path) -> None:
        assert SupernodeKey.load(Path(source).read_bytes())
        steps.append("rename")
        real_rename(source, target)

    def fsync(fd: int) -> None:
        steps.append("fsync")
        real_fsync(fd)

    monkeypatch.setattr(keyfile.os, "rename", rename)
    monkeypatch.setattr(os, "fsync", fsync)
    load_or_make_key(path)
    assert steps == ["fsync", "rename", "fsync"]
