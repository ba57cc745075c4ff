"""Loading: defaults, precedence and origins, what is shown, the sample files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from n2n.config import DEFAULT, EdgeConfig, SupernodeConfig, load_edge, load_supernode, show
from n2n.errors import ConfigError
from n2n.net import udp
from n2n.proto.supernode import SupernodeSettings

from .config_files import edge_loader, refusal, supernode_loader, writer

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def file(tmp_path):
    return writer(tmp_path)


@pytest.fixture
def edge(tmp_path):
    return edge_loader(tmp_path)


@pytest.fixture
def supernode(tmp_path):
    return supernode_loader(tmp_path)


class TestDefaults:
    def test_of_an_edge(self, edge):
        config, origins, warnings = edge()
        expected = {
            "local_port": 0,
            "bind": "",
            "enable_vfuze": True,
            "tap_name": "n2n_tap0",
            "tap_mtu": 1420,
            "heartbeat_interval": 30.0,
            "udp_buffer_size": 8388608,
            "encryption_passphrase": None,
            "compress_payload": False,
            "machine_id_file": Path.home() / ".n2n-go" / "machine-id",
            "log_level": "info",
            "log_format": "text",
        }
        assert {key: getattr(config, key) for key in expected} == expected
        assert config.edge_id
        assert {origins[key] for key in expected} == {DEFAULT}
        assert warnings == ()

    def test_of_a_supernode(self, supernode):
        config = supernode().config
        expected = {
            "listen_address": ":7777",
            "debug": False,
            "community_subnet": IPv4Address("10.128.0.0"),
            "community_subnet_cidr": 24,
            "expiry_duration": 600.0,
            "cleanup_interval": 300.0,
            "udp_buffer_size": 2097152,
            "strict_hash_checking": True,
            "enable_vfuze": True,
            "max_communities": 4096,
            "log_level": "info",
            "log_format": "text",
        }
        assert {key: getattr(config, key) for key in expected} == expected

    def test_are_the_cores_and_the_sockets(self):
        assert SupernodeConfig().settings() == SupernodeSettings()
        assert SupernodeConfig().udp_buffer_size == udp.DEFAULT_SUPERNODE_BUFFER
        assert EdgeConfig(community="a", supernode_addr="b:1").udp_buffer_size == udp.DEFAULT_EDGE_BUFFER

    @pytest.mark.parametrize(
        ("euid", "env", "run", "state"),
        [
            (0, {}, "/run/n2n", "/var/lib/n2n"),
            (0, {"XDG_RUNTIME_DIR": "/run/user/0", "XDG_STATE_HOME": "/x"}, "/run/n2n", "/var/lib/n2n"),
            (7, {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/x"}, "/run/user/7/n2n", "/x/n2n"),
            (7, {}, "/tmp/n2n-7", "HOME/.local/state/n2n"),
        ],
    )
    def test_of_directories(self, monkeypatch, euid, env, run, state):
        monkeypatch.setattr(os, "geteuid", lambda: euid)
        config = load_supernode(env=env).config
        assert str(config.run_dir) == run
        assert str(config.state_dir) == state.replace("HOME", str(Path.home()))

    @pytest.mark.parametrize("euid", [0, 7])
    @pytest.mark.parametrize(
        ("env", "state"),
        [({}, "HOME/.local/state/n2n"), ({"XDG_STATE_HOME": "/x"}, "/x/n2n"), ({"STATE_DIRECTORY": "/s:/t"}, "/s")],
    )
    def test_of_what_an_edge_remembers(self, monkeypatch, edge, euid, env, state):
        """Root's as well: two edges with two homes have two identities, and two memories of their supernodes."""
        monkeypatch.setattr(os, "geteuid", lambda: euid)
        assert str(edge(env=env).config.state_dir) == state.replace("HOME", str(Path.home()))


class TestPrecedence:
    def test_flag_over_environment_over_file_over_default(self, edge):
        lines, env = "tap_name: fromfile\n", {"N2N_TAP_NAME": "fromenv"}
        path = edge().origins["community"].rpartition(":")[0]
        for loaded, value, origin in [
            (edge(), "n2n_tap0", DEFAULT),
            (edge(lines), "fromfile", f"{path}:3"),
            (edge(lines, env), "fromenv", "environment N2N_TAP_NAME"),
            (edge(lines, env, tap_name="fromflag"), "fromflag", "flag --tap-name"),
        ]:
            assert (loaded.config.tap_name, loaded.origins["tap_name"]) == (value, origin)

    def test_every_key_is_read_from_every_source(self, file):
        values = {
            "community": "c",
            "supernode_addr": "h:1",
            "edge_id": "box",
            "local_port": 5,
            "bind": "192.0.2.9",
            "port_mapping": "nat-pmp",
            "enable_vfuze": False,
            "tap_name": "t",
            "tap_mtu": 1400,
            "heartbeat_interval": "7s",
            "udp_buffer_size": 5000,
            "encryption_passphrase": "sesame",
            "compress_payload": True,
            "bridge": True,
            "threads": 3,
            "cipher": "libcrypto",
            "tap_offload": False,
            "tap_coalesce": False,
            "port_prediction": False,
            "tap_uso": False,
            "allow_bench": True,
            "udp_gso": False,
            "udp_gro": False,
            "machine_id_file": "/a",
            "api_listen_address": "127.0.0.1:5",
            "api_token": "a-long-enough-token",
            "state_dir": "/s",
            "accept_new_key": False,
            "hosts_file": "/h",
            "run_dir": "/b",
            "log_level": "error",
            "log_format": "json",
        }
        assert values.keys() == {item.name for item in dataclasses.fields(EdgeConfig)}
        paths = {key: Path(values[key]) for key in ("machine_id_file", "state_dir", "hosts_file", "run_dir")}
        expected = EdgeConfig(**values | paths | {"heartbeat_interval": 7.0})
        env = {f"N2N_{key.upper()}": str(value) for key, value in values.items()}
        assert load_edge(file(json.dumps(values)), {}).config == expected
        assert load_edge(None, env).config == expected
        assert load_edge(None, {}, values).config == expected
        assert load_edge(None, {}, {key: str(value) for key, value in values.items()}).config == expected

    def test_every_key_of_a_supernode_too(self, file):
        values = {
            "listen_address": "127.0.0.1:1",
            "debug": True,
            "community_subnet": "10.64.0.0",
            "community_subnet_cidr": 16,
            "expiry_duration": "1m",
            "cleanup_interval": "2s",
            "udp_buffer_size": 5000,
            "strict_hash_checking": False,
            "enable_vfuze": False,
            "probe_port": 0,
            "state_dir": "/s",
            "metrics_listen_address": "127.0.0.1:5",
            "source_rate": 2,
            "total_rate": 2.5,
            "max_communities": 3,
            "max_edges": 4,
            "max_leases": 5,
            "threads": 2,
            "udp_gso": False,
            "udp_gro": False,
            "run_dir": "/b",
            "log_level": "debug",
            "log_format": "json",
        }
        assert values.keys() == {item.name for item in dataclasses.fields(SupernodeConfig)}
        loaded = load_supernode(file(json.dumps(values)), {})
        defaults = SupernodeConfig()
        assert all(getattr(loaded.config, key) != getattr(defaults, key) for key in values)
        env = {f"N2N_{key.upper()}": str(value) for key, value in values.items()}
        assert load_supernode(None, env).config == loaded.config
        assert load_supernode(None, {}, values).config == loaded.config

    def test_threads_are_a_number_or_auto(self, edge):
        assert edge("threads: auto\n").config.threads == edge().config.threads == 0
        assert edge("threads: 64\n").config.threads == 64
        for bad in ("0", "65", "many", "true", "[1]", "1.5"):
            assert "threads: " in refusal(edge, f"threads: {bad}\n")

    def test_flags_that_were_not_given_do_not_count(self, edge):
        assert edge("tap_name: t\n", tap_name=None).config.tap_name == "t"

    def test_flags_may_have_other_names(self):
        loaded = load_edge(
            None, {}, {"community": "a", "supernode_addr": "h:1"}, flag_names={"supernode_addr": "-supernode"}
        )
        assert loaded.origins["supernode_addr"] == "flag -supernode"

    def test_the_environment_of_this_process_is_the_default(self, monkeypatch):
        monkeypatch.setenv("N2N_COMMUNITY", "from-process")
        monkeypatch.setenv("N2N_SUPERNODE_ADDR", "h:1")
        assert load_edge().config.community == "from-process"

    def test_an_environment_file_may_serve_both_roles(self):
        env = {"N2N_COMMUNITY": "a", "N2N_SUPERNODE_ADDR": "h:1", "N2N_LISTEN_ADDRESS": ":1", "N2N_RUN_DIR": "/r"}
        assert load_edge(None, env).config.run_dir == load_supernode(None, env).config.run_dir == Path("/r")

    def test_what_kubernetes_and_the_build_set_is_no_key(self, monkeypatch):
        monkeypatch.delenv("STATE_DIRECTORY")
        names = [
            "PORT",
            "PORT_7777_UDP",
            "PORT_7777_UDP_ADDR",
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SUPERNODE_SERVICE_PORT_VPN",
        ]
        env = {f"N2N_{name}": "tcp://10.0.0.1:7777" for name in [*names, "OPENSSL_PREFIX", "LAB_DIR"]}
        assert load_supernode(None, env).config == SupernodeConfig()

    def test_relative_paths_start_from_the_file_or_the_working_directory(self, edge, tmp_path, supernode):
        assert edge("machine_id_file: id\n").config.machine_id_file == tmp_path / "id"
        assert edge("machine_id_file: ~/id\n").config.machine_id_file == Path.home() / "id"
        assert edge("", {"N2N_MACHINE_ID_FILE": "id"}).config.machine_id_file == Path("id")
        assert edge(machine_id_file=Path("id")).config.machine_id_file == Path("id")
        assert supernode("state_dir: s\n").config.state_dir == tmp_path / "s"
        assert supernode('state_dir: ""\n').config.state_dir is None


class TestDebug:
    def test_is_the_log_level(self, supernode):
        loaded = supernode("debug: true\n")
        assert loaded.config.log_level == "debug"
        assert loaded.origins["log_level"] == loaded.origins["debug"]
        assert supernode("debug: false\nlog_level: error\n").config.log_level == "error"
        assert supernode("debug: true\nlog_level: debug\n").config.log_level == "debug"

    def test_the_stronger_source_counts(self, supernode):
        quiet = supernode("debug: true\n", log_level="error")
        assert (quiet.config.debug, quiet.config.log_level) == (False, "error")
        loud = supernode("log_level: error\n", debug=True)
        assert (loud.config.debug, loud.config.log_level) == (True, "debug")

    def test_a_contradiction_in_one_place(self, supernode):
        assert "contradict each other" in refusal(supernode, "debug: true\nlog_level: info\n")


class TestWarnings:
    @pytest.mark.parametrize(
        ("lines", "says"),
        [("tap_mtu: 1200", "IPv6"), ("tap_mtu: 1500", "fragments"), ("edge_id: x\ntap_mtu: 1421", "fragments")],
    )
    def test_of_an_edge(self, edge, lines, says):
        (warning,) = edge(lines).warnings
        assert says in warning

    def test_none_of_an_mtu_that_fits_itself(self, edge):
        for loaded in (edge("tap_mtu: auto"), edge("", {"N2N_TAP_MTU": "Auto"}), edge("tap_mtu: 1420", tap_mtu="auto")):
            assert (loaded.config.tap_mtu, loaded.warnings) == (0, ())
            assert {line.value for line in show(loaded) if line.key == "tap_mtu"} == {"auto"}

    @pytest.mark.parametrize("name", ["acme ", "a\u200bb", "a\nb"])
    def test_of_odd_communities(self, name):
        (warning,) = load_edge(None, {}, {"community": name, "supernode_addr": "h:1"}).warnings
        assert "part of its name" in warning

    def test_of_a_supernode(self, supernode):
        (warning,) = supernode("community_subnet: 20.0.0.0").warnings
        assert "no private range" in warning


class TestClasses:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"local_port": "7"}, "local_port: '7' is not a whole number"),
            ({"local_port": True}, "local_port: True is not a whole number"),
            ({"heartbeat_interval": "30s"}, "heartbeat_interval: '30s' is not a duration in seconds"),
            ({"heartbeat_interval": float("nan")}, "heartbeat_interval"),
            ({"community": ""}, "community"),
            ({"machine_id_file": "x"}, "machine_id_file"),
            ({"enable_vfuze": 1}, "enable_vfuze: 1 is not true or false"),
            ({"tap_name": "a b"}, "tap_name"),
        ],
    )
    def test_refuse_what_a_program_gives_wrongly(self, changes, says):
        with pytest.raises(ConfigError, match=re.escape(says)):
            EdgeConfig(**{"community": "a", "supernode_addr": "h:1"} | changes)

    def test_are_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            SupernodeConfig().debug = True

    @pytest.mark.parametrize(
        ("bind", "port", "listen"),
        [
            ("", 0, ":0"),
            ("192.0.2.1", 7, "192.0.2.1:7"),
            ("2001:db8::1", 7, "[2001:db8::1]:7"),
            ("eth0.5", 7, "eth0.5:7"),
        ],
    )
    def test_where_an_edge_listens(self, bind, port, listen):
        assert EdgeConfig(community="a", supernode_addr="h:1", bind=bind, local_port=port).listen == listen

    def test_what_reaches_the_core(self):
        settings = SupernodeConfig(
            community_subnet=IPv4Address("10.0.0.0"),
            community_subnet_cidr=20,
            expiry_duration=9.0,
            cleanup_interval=8.0,
            strict_hash_checking=False,
            enable_vfuze=False,
            source_rate=7.0,
            total_rate=6.0,
            max_communities=5,
            max_edges=4,
            max_leases=3,
        ).settings(mapped_addresses=False)
        assert (settings.base, settings.prefix) == (IPv4Address("10.0.0.0"), 20)
        assert (settings.expiry, settings.cleanup_interval) == (9.0, 8.0)
        assert (settings.strict_hash_checking, settings.vfuze, settings.mapped_addresses) == (False, False, False)
        assert (settings.source_rate, settings.total_rate) == ((7.0, 35.0), (6.0, 24.0))
        assert (settings.max_communities, settings.max_members, settings.max_leases) == (5, 4, 3)
        assert SupernodeConfig(source_rate=0.01).settings().source_rate.burst == 1.0


def test_show_lists_every_key_as_it_would_be_written(edge, supernode):
    shown = show(edge("heartbeat_interval: 90s\ncompress_payload: true\n"))
    assert [line.key for line in shown] == [item.name for item in dataclasses.fields(EdgeConfig)]
    assert {(line.key, line.value) for line in shown} > {
        ("heartbeat_interval", "1m30s"),
        ("compress_payload", "true"),
        ("udp_buffer_size", "8388608"),
        ("community", "acme"),
    }
    assert {line.origin for line in shown if line.key == "tap_mtu"} == {DEFAULT}
    values = {line.key: line.value for line in show(supernode('state_dir: ""\n'))}
    assert (values["source_rate"], values["expiry_duration"], values["state_dir"]) == ("200", "10m", '""')


@pytest.mark.parametrize(
    ("role", "load", "extra"),
    [("edge", load_edge, {"encryption_passphrase_file"}), ("supernode", load_supernode, set())],
)
class TestSamples:
    def test_load_as_they_are(self, role, load, extra):
        loaded = load(CONFIGS / f"{role}.yaml", {})
        assert loaded.warnings == ()

    def test_show_every_key_with_its_default(self, role, load, extra, file, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        text = (CONFIGS / f"{role}.yaml").read_text()
        keys = re.findall(r"^#?([a-z_]+):", text, re.MULTILINE)
        plain = load(CONFIGS / f"{role}.yaml", {})
        assert sorted(keys) == sorted({*plain.origins, *extra})
        everything = "\n".join(
            line.removeprefix("#") if re.match(r"#[a-z_]+:", line) else line
            for line in text.splitlines()
            if not re.match("#(encryption_passphrase_file|edge_id):", line)
        )
        assert load(file(everything), {}).config == plain.config
