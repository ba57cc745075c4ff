"""The passphrase: where it may come from, which one counts, and that nothing tells it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from n2n.config import EdgeConfig, load_edge, show
from n2n.errors import ConfigError

from .config_files import REQUIRED, edge_loader, refusal, writer


@pytest.fixture
def file(tmp_path):
    return writer(tmp_path)


@pytest.fixture
def edge(tmp_path):
    return edge_loader(tmp_path)


def test_from_a_file_of_its_own(edge, file):
    secret = file("open sesame\n", "secret")
    loaded = edge("encryption_passphrase_file: secret\n")
    assert loaded.config.encryption_passphrase == "open sesame"
    assert re.fullmatch(rf"file {secret} \(.*edge\.yaml:3\)", loaded.origins["encryption_passphrase"])
    assert loaded.warnings == ()
    assert edge("", {"N2N_ENCRYPTION_PASSPHRASE_FILE": str(secret)}).config.encryption_passphrase == "open sesame"
    assert edge(encryption_passphrase_file=secret).config.encryption_passphrase == "open sesame"


@pytest.mark.parametrize(
    ("content", "passphrase"), [("a", "a"), ("a\r\n", "a"), (" a \n", " a "), ("kölsch\n", "kölsch")]
)
def test_only_the_line_end_is_cut_off(edge, file, content, passphrase):
    (file("", "secret")).write_bytes(content.encode())
    assert edge("encryption_passphrase_file: secret\n").config.encryption_passphrase == passphrase


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb\n", "several lines"),
        (b"\xff", "not UTF-8"),
        (b"x" * 5000, "right file"),
    ],
)
def test_files_that_hold_none(edge, file, content, says):
    secret = file("", "secret")
    secret.write_bytes(content)
    said = refusal(edge, "encryption_passphrase_file: secret\n")
    assert f"edge.yaml:3: encryption_passphrase_file {secret} " in said
    assert says in said


def test_a_file_that_is_not_there(edge):
    assert "cannot be read: no such file" in refusal(edge, "encryption_passphrase_file: secret\n")


SHOW = """
from n2n.config import load_edge
given = {"community": "c", "supernode_addr": "h:1", "encryption_passphrase_file": "-"}
first, again = load_edge(None, {}, given), load_edge(None, {}, given)
print(first.config == again.config, first.config.encryption_passphrase, first.origins["encryption_passphrase"])
"""
SHOWN = "True open sesame asked for (flag --encryption-passphrase-file)"


def test_it_is_asked_for_once_where_a_line_of_input_is_given():
    command = (sys.executable, "-c", SHOW)
    done = subprocess.run(command, input="open sesame\nmore\n", capture_output=True, text=True, check=True)
    assert done.stdout == f"{SHOWN}\n"
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert "nothing was typed" in done.stderr


def test_at_a_terminal_it_is_asked_for_and_not_shown():
    ours, theirs = pty.openpty()
    command = (sys.executable, "-c", SHOW)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        seen = b""
        while b"passphrase of the community: " not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"open sesame\n")
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:
            pass  # how a terminal says that nobody is at its other end
        assert process.wait(60) == 0, seen
    os.close(ours)
    assert seen.count(b"open sesame") == 1, "what the program prints, and no echo"
    assert SHOWN.encode() in seen


def test_in_a_file_it_is_the_name_of_a_file(edge, file):
    file("open sesame\n", "-")
    assert edge("encryption_passphrase_file: '-'\n").config.encryption_passphrase == "open sesame"


def test_the_stronger_source_counts(edge, file):
    secret = file("from file", "secret")
    by_flag = edge("encryption_passphrase_file: none-there\n", encryption_passphrase="by flag")
    assert by_flag.config.encryption_passphrase == "by flag"
    by_env = edge("encryption_passphrase: in yaml\n", {"N2N_ENCRYPTION_PASSPHRASE_FILE": str(secret)})
    assert by_env.config.encryption_passphrase == "from file"
    assert "both give the passphrase" in refusal(edge, "encryption_passphrase: a\nencryption_passphrase_file: secret\n")
    beside = edge('encryption_passphrase: ""\nencryption_passphrase_file: secret\n')
    assert beside.config.encryption_passphrase == "from file"


def test_an_empty_one_is_none_in_a_file_and_a_mistake_elsewhere(edge):
    assert edge('encryption_passphrase: ""\n').config.encryption_passphrase is None
    assert "it is empty" in refusal(edge, "", {"N2N_ENCRYPTION_PASSPHRASE": ""})
    assert "it is empty" in refusal(edge, encryption_passphrase="")


def test_a_flag_works_and_warns(edge):
    loaded = edge(encryption_passphrase="open sesame")
    assert loaded.config.encryption_passphrase == "open sesame"
    assert len(loaded.warnings) == 1
    assert "command line" in loaded.warnings[0]
    assert edge("", {"N2N_ENCRYPTION_PASSPHRASE": "open sesame"}).warnings == ()


def test_files_that_others_can_read_warn(file):
    path = file(f"{REQUIRED}encryption_passphrase: sesame\n", mode=0o644)
    assert load_edge(path, {}).warnings == (f"{path} holds a passphrase and others can read it: chmod 600 {path}",)
    secret = file("sesame", "secret", mode=0o640)
    warned = load_edge(None, {}, {"community": "a", "supernode_addr": "h:1", "encryption_passphrase_file": secret})
    assert warned.warnings == (f"others can read the passphrase in {secret}: chmod 600 {secret}",)
    assert load_edge(file(REQUIRED, mode=0o644), {}).warnings == ()


def test_it_is_never_shown(edge, file):
    file("hunter2", "secret")
    for loaded in (
        edge("encryption_passphrase: hunter2\n"),
        edge("", {"N2N_ENCRYPTION_PASSPHRASE": "hunter2"}),
        edge(encryption_passphrase="hunter2"),
        edge("encryption_passphrase_file: secret\n"),
    ):
        assert loaded.config.encryption_passphrase == "hunter2"
        assert "hunter2" not in repr(loaded)
        assert "hunter2" not in str(show(loaded))
        shown = {line.key: line.value for line in show(loaded)}
        assert shown["encryption_passphrase"] == "********"
    assert {line.key: line.value for line in show(edge())}["encryption_passphrase"] == "none"


@pytest.mark.parametrize(
    "value",
    [
        "[hunter2]",
        "{hunter2: 1}",
        "!hunter2",
        "*hunter2",
        "&hunter2",
        "!!int hunter2",
        "'hunter2",
        '"\\q hunter2"',
        "hunter2: x",
        "@hunter2",
        "%hunter2",
        "0x1337 hunter2: ",
    ],
)
def test_no_error_tells_it(edge, value, tmp_path):
    assert "hunter2" not in refusal(edge, f"encryption_passphrase: {value}\n").replace(str(tmp_path), "")


def test_no_error_of_the_class_tells_it():
    with pytest.raises(ConfigError) as caught:
        EdgeConfig(community="a", supernode_addr="h:1", encryption_passphrase=b"hunter2")
    assert "hunter2" not in str(caught.value)
