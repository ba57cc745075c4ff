"""What is refused, and how that is said: with the line, the variable or the flag, and all at once."""

from __future__ import annotations

import json
import os
import re

import pytest

from n2n.config import load_edge, load_supernode, show

from .config_files import REQUIRED, edge_loader, refusal, supernode_loader, writer


@pytest.fixture
def file(tmp_path):
    return writer(tmp_path)


@pytest.fixture
def edge(tmp_path):
    return edge_loader(tmp_path)


@pytest.fixture
def supernode(tmp_path):
    return supernode_loader(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tap_nam: x", "tap_nam: there is no such key. Did you mean tap_name?"),
        ("Tap-Name: x", "Did you mean tap_name?"),
        ("qqqqqq: x", "there is no such key; leave it out"),
        ("listen_address: :7777", "this is a key of a supernode"),
        ("local_port: yes", "whole number (without quotes), found a truth value"),
        ('local_port: "7"', "whole number (without quotes), found '7'"),
        ("local_port: 7.5", "found 7.5"),
        ("local_port: 65536", "65536 is not between 0 and 65535"),
        ("local_port: -1", "-1 is not between"),
        (f"local_port: {'9' * 5000}", "put it in quotes"),
        (f"local_port: {'9' * 50}", "a number that long is not between"),
        ("enable_vfuze: 1", "true or false (without quotes), found 1"),
        ('enable_vfuze: "true"', "found 'true'"),
        ("heartbeat_interval: 30", "30 has no unit: write it like 10s"),
        ("heartbeat_interval: 30 s", "not a duration"),
        ("heartbeat_interval: 1ms", "1ms is not between 100ms and 1h"),
        ("heartbeat_interval: 2h", "2h is not between"),
        ("heartbeat_interval: [1]", "found a list"),
        ("udp_buffer_size: 10", "not between 4096"),
        ("tap_name: sixteen-letters-", "1 to 15 characters"),
        ("tap_name: a/b", "TAP name"),
        ("tap_name: .hidden", "TAP name"),
        ("tap_mtu: 9001", "not between 576 and 9000"),
        ("tap_mtu: 575", "not between 576 and 9000"),
        ("tap_mtu: 0", "not between 576 and 9000 (nor auto)"),
        ("tap_mtu: large", "neither a whole number nor auto"),
        ("tap_mtu: true", "neither a whole number nor auto"),
        ("tap_mtu: 1420.5", "neither a whole number nor auto"),
        ("tap_mtu: [1420]", "neither a whole number nor auto"),
        ("edge_id: 12", "YAML takes this for a number (12): to write a name, put it in quotes"),
        ("edge_id: no", "YAML takes this for a truth value"),
        ("edge_id: 2024-01-01", "YAML takes this for a date"),
        ("edge_id: 2024-99-99", "put it in quotes"),
        ('edge_id: "a\\x1bb"', "invisible"),
        ('edge_id: ""', "1 to 64 characters"),
        (f"edge_id: {'x' * 65}", "1 to 64 characters"),
        ('edge_id: "\\ud83d"', "half of a surrogate pair"),
        ("edge_id:", "it has no value"),
        ("edge_id: ~", "it has no value"),
        ("edge_id: {a: 1}", "found a section"),
        ("edge_id: !!python/object:os.system x", "put it in quotes"),
        ("bind: 192.0.2", "'192.0.2' is not an IP address"),
        ("bind: a/b", "is not an IP address"),
        (f"bind: {'e' * 16}", "is not an IP address"),
        ("log_level: loud", "none of: debug, info, warning, error"),
        ("log_format: xml", "none of: text, json"),
        ('machine_id_file: ""', "not a path"),
        ("machine_id_file: ~nobody-of-that-name/x", "~nobody-of-that-name"),
        ("encryption_passphrase: 12345", "does not take this for a text: put it in quotes"),
        ("encryption_passphrase: #secret", "put text that begins with # or & in quotes"),
    ],
)
def test_a_line_of_a_file(edge, tmp_path, line, says):
    said = refusal(edge, line)
    assert said.startswith(f"{tmp_path}/edge.yaml:3: {line.partition(':')[0]}: ")
    assert says in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("supernode.example.org", "does not end in a port"),
        (":7777", "is not host:port"),
        ("host:0", "is not host:port"),
        ("host:70000", "does not end in a port"),
        ("2001:db8::1:7777", "in brackets"),
        ("'[192.0.2.1]:7'", "brackets are for IPv6"),
        ("'[zz]:7'", "not an IP address"),
        ("https://host:7777", "write host:port alone"),
        ("two hosts:7777", "write host:port alone"),
        ("[a.example:1, b.example]", "does not end in a port"),
        ("'a.example:1,,b.example:1'", "does not end in a port"),
        ("[a.example:1, b.example:1, a.example:1]", "'a.example:1' is in the list twice"),
        ("[a.example:1, 7]", "host:port in the list"),
        ("[]", "does not end in a port"),
        (str([f"a{n}.example:1" for n in range(9)]), "at most 8"),
        ("{a.example: 1}", "a section"),
    ],
)
def test_addresses_of_a_supernode(file, value, says):
    assert re.search(says, refusal(load_edge, file(f"community: a\nsupernode_addr: {value}\n"), {}))


def test_several_supernodes(file):
    for value in ("[a.example:1, '[2001:db8::1]:2']", "'a.example:1, [2001:db8::1]:2'"):
        config = load_edge(file(f"community: a\nsupernode_addr: {value}\n"), {}).config
        assert config.supernodes == ("a.example:1", "[2001:db8::1]:2")
    flags = {"community": "a", "supernode_addr": "a.example:1,[2001:db8::1]:2"}
    assert load_edge(None, {}, flags).config == config


@pytest.mark.parametrize("value", ["vpn.example.org:7777", "192.0.2.1:1", "[2001:db8::1]:65535"])
def test_good_addresses_of_a_supernode(value):
    assert load_edge(None, {}, {"community": "a", "supernode_addr": value}).config.supernode_addr == value


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("listen_address: localhost:7777", "Write :7777 to listen on every address"),
        ("listen_address: 7777", "put it in quotes"),
        ("community_subnet: 10.128.0.0/9", "community_subnet_cidr"),
        ("community_subnet: 10.1", "put it in quotes"),
        ("community_subnet: 10.1.1", "not an IPv4 address"),
        ("community_subnet: 224.0.0.0", "cannot be the base"),
        ("community_subnet: 127.0.0.0", "cannot be the base"),
        ("community_subnet: 0.0.0.0", "cannot be the base"),
        ("community_subnet_cidr: 31", "not between 8 and 30"),
        ("community_subnet_cidr: 7", "not between 8 and 30"),
        ("expiry_duration: 0s", "not between 1s"),
        ("source_rate: 0", "not between"),
        ("source_rate: .nan", "not between"),
        ("source_rate: .inf", "not between"),
        ("source_rate: fast", "expected a number"),
        (f"source_rate: {'9' * 400}", "not between"),
        ("max_edges: 0", "not between 1"),
        ("max_edges: 1048577", "not between 1"),
        ("community: a", "this is a key of an edge"),
        ("encryption_passphrase_file: a", "this is a key of an edge"),
    ],
)
def test_a_line_of_a_supernodes_file(supernode, line, says):
    assert says in refusal(supernode, line)


def test_environment_and_flags_are_named(edge):
    assert (
        refusal(edge, "", {"N2N_LOCAL_PORT": "x"}) == "environment variable N2N_LOCAL_PORT: 'x' is not a whole number"
    )
    assert (
        refusal(edge, heartbeat_interval="5")
        == "flag --heartbeat-interval: '5' has no unit: write 5s for seconds, 5m for minutes"
    )
    assert "environment variable N2N_LOCL_PORT: there is no such key. Did you mean local_port?" in refusal(
        edge, "", {"N2N_LOCL_PORT": "1"}
    )
    assert "neither true nor false" in refusal(edge, "", {"N2N_ENABLE_VFUZE": "maybe"})
    assert "not a number" in refusal(lambda: load_supernode(None, {"N2N_SOURCE_RATE": "many"}))
    assert "'localhost' is not an IP address" in refusal(edge, api_listen_address="localhost:7778")


def test_pages_for_other_hosts_need_a_token(edge):
    for address in (":7778", "0.0.0.0:7778", "'[::]:7778'", "192.0.2.1:7778"):
        [warning] = edge(f"api_listen_address: {address}\n").warnings
        assert "no web pages are served until api_token is set" in warning
        assert edge(f"api_listen_address: {address}\napi_token: a-long-enough-token\n").warnings == ()
    for address in ("127.0.0.1:7778", "127.9.9.9:1", "'[::1]:7778'", '""'):
        assert edge(f"api_listen_address: {address}\n").warnings == ()


def test_metrics_of_a_supernode_are_for_its_own_host():
    assert "can be reached from other hosts" in refusal(
        lambda: load_supernode(None, {"N2N_METRICS_LISTEN_ADDRESS": ":1"})
    )
    for address in ("127.0.0.1:7780", "[::1]:7780", ""):
        found = load_supernode(None, {}, {"metrics_listen_address": address})
        assert found.config.metrics_listen_address == address


def test_a_token_is_long_and_never_shown(edge):
    for token in ("short", "with a blank in it", "umläut-umläut"):
        message = refusal(edge, f"api_token: '{token}'\n")
        assert "at least 12 characters" in message
        assert token not in message
    loaded = edge("", {"N2N_API_TOKEN": "a-long-enough-token"})
    assert "a-long-enough-token" not in repr(loaded.config) + repr(show(loaded))
    assert edge('api_token: ""\n').config.api_token is None
    assert "ps" in edge(api_token="a-long-enough-token").warnings[0]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("YES", True), ("1", True), ("off", False), ("0", False)])
def test_truth_in_the_environment(edge, text, value):
    assert edge("", {"N2N_COMPRESS_PAYLOAD": text}).config.compress_payload is value


def test_a_value_that_is_overridden_must_still_be_right(edge):
    assert "edge.yaml:3" in refusal(edge, "local_port: x", {"N2N_LOCAL_PORT": "5"})


def test_what_is_missing_says_how_to_give_it(file):
    said = refusal(load_edge, None, {})
    assert (
        "community is missing: give --community, the environment variable N2N_COMMUNITY, or a line 'community: ...'"
        in said
    )
    assert "supernode_addr is missing" in said
    assert f"in {file('')}" in refusal(load_edge, file(""), {})


def test_everything_is_reported_at_once_and_once(file, tmp_path):
    path = file("local_port: x\nlocal_prot: 1\ncommunity:\n")
    said = refusal(load_edge, path, {"N2N_TAP_MTU": "x"}, {"log_level": "x"}).splitlines()
    assert said[0] == "6 problems in the configuration:"
    for line, start in zip(
        said[1:],
        [
            f"{path}:1: local_port",
            f"{path}:2: local_prot",
            f"{path}:3: community",
            "environment variable N2N_TAP_MTU",
            "flag --log-level",
            "supernode_addr is missing",
        ],
        strict=True,
    ):
        assert line.startswith(f"  {start}")


def test_a_key_given_twice(edge, tmp_path):
    assert (
        refusal(edge, "community: b\n")
        == f"{tmp_path}/edge.yaml:3: community is given twice (first in line 1): remove one"
    )


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: b: c\n", ":1", "mapping values"),
        ("community: x\n\tlocal_port: 1\n", ":2", "tab"),
        ("community: 'open\n", ":2", "quoted scalar"),
        ("community: [1\n", ":2", "flow"),
        ("- community\n", ":1", "expected lines of the form"),
        ("just text\n", ":1", "expected lines of the form"),
        ("a: 1\n---\nb: 2\n", ":2", "document"),
        ("community: *x\n", ":1", "put it in quotes"),
        ("community: \x01\n", ":1", r"U\+0001"),
        ("[a, b]: 1\n", ":1", "single word"),
        ("x: " + "[" * 3000, "", "nested too deeply"),
        ("x: " + "[" * 3000 + "]" * 3000, "", "nested too deeply"),
    ],
)
def test_what_is_not_yaml_names_the_line(file, text, place, says):
    path = file(text)
    said = refusal(load_edge, path, {}, {"community": "a", "supernode_addr": "h:1"})
    assert f"{path}{place}: " in said
    assert re.search(says, said)


def test_files_that_cannot_be_read(file, tmp_path):
    assert f"{tmp_path}/none.yaml: cannot be read: no such file" in refusal(load_edge, tmp_path / "none.yaml", {})
    assert "is a directory" in refusal(load_edge, str(tmp_path), {})
    assert "is this a configuration?" in refusal(load_edge, file("#" * 300_000), {})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"community: a\nedge_id: \xff\n")
    assert f"{binary}:2: it is not UTF-8 text (byte 0xff)" in refusal(load_edge, binary, {})


def test_many_aliases_cost_nothing(file):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "there is no such key" in refusal(load_edge, file("\n".join(lines)), {})


def test_a_bom_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + REQUIRED.replace("\n", "\r\n").encode())
    assert load_edge(path, {}).config.community == "acme"


def test_names_beyond_the_basic_plane_in_json(file):
    text = json.dumps({"community": "köln \U0001f680", "supernode_addr": "h:1"})
    assert "\\ud83d" in text
    assert load_edge(file(text), {}).config.community == "köln \U0001f680"


def test_a_community_that_is_not_utf8_from_the_environment():
    env = {"N2N_COMMUNITY": os.fsdecode(b"caf\xe9"), "N2N_SUPERNODE_ADDR": "h:1"}
    assert load_edge(None, env).config.community == "caf\udce9"


@pytest.mark.parametrize("name", ["", "x" * 1025, "\ud800"])
def test_impossible_communities(name):
    assert "community" in refusal(load_edge, None, {}, {"community": name, "supernode_addr": "h:1"})
