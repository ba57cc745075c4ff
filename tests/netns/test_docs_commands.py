"""What README and the documents tell people to type works when it is typed: commands, and firewall rules."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode
from n2n.lab.topology import Host, Lab
from n2n.lab.traffic import ping

from ..lint.test_docs import ROOT, parts, spans
from .needs import need_tool
from .networks import PATIENCE, Network, network

FOR_OPERATORS = ("README.md", "NETWORK.md", "OPERATING.md")
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Commands that need more than a network that stands, and the test that runs them.
ELSEWHERE = {
    "n2n upnp": "tests/netns/test_port_mapping.py",
    "n2n bench": "tests/netns/test_bench.py",
    "n2n taptest": "tests/netns/test_bench.py",
    "n2n lab": "tests/netns/test_standing.py",
    "n2n key accept": "tests/netns/test_operating.py",
    "n2n edge up --config edge.yaml -v": "tests/unit/test_cli_foreground.py",
    "n2n edge up --community": "tests/netns/test_docs_commands.py",  # the five lines, below
    "n2n lab nat-matrix": "tests/netns/test_matrix.py",
    "n2n COMMAND": "tests/unit/test_cli_help.py",
}
#: Started by the fixture, with these very words.
RUNNING = {"n2n supernode serve", "n2n edge up --config edge.yaml", "n2n edge up"}
#: What is added to a command, so that it ends, asks nobody, or leaves this machine alone.
MORE = {
    "n2n logs": ["--no-follow"],
    "n2n top": ["--once"],
    "n2n service": ["--root", "{folder}"],
    "n2n key fingerprint": ["--state-dir", "{sn_state}"],
    "n2n key list": ["--state-dir", "{state}"],
    "n2n key forget": ["--state-dir", "{state}"],
    "n2n config init": ["--output", "{folder}/new-{number}.yaml"],
}


def commands(path: Path) -> list[str]:
    """The command lines of ours in a document, without comments: those of code blocks, and, in what is for whoever runs
    n2n, those in backticks, which are whole there."""
    prose, blocks = parts(path.read_text())
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    found = [" ".join(shlex.split(line, comments=True)).removesuffix(" &") for line in lines if line.startswith("n2n ")]
    if path.name not in FOR_OPERATORS:
        return found
    return found + [
        span for span in spans(prose) if span.startswith("n2n ") and " | " not in span and "..." not in span
    ]


#: Each command, in the order of the documents.
ALL = list(dict.fromkeys((command, path) for path in DOCS for command in commands(path)))


def longest(table: dict[str, object], command: str) -> str | None:
    """The entry that this command begins with."""
    return max((key for key in table if f"{command} ".startswith(f"{key} ")), key=len, default=None)


@dataclass
class Place:
    """A supernode, and the edges home and laptop of our-community, as the documents have them."""

    net: Network
    home: EdgeNode
    laptop: EdgeNode
    folder: Path

    def type(self, command: str, number: int) -> subprocess.CompletedProcess[str]:
        """Run a command as the document has it, with the names of this network in place of its examples."""
        words = shlex.split(command.partition(" > ")[0])
        at_supernode = "supernode" in words or "key fingerprint" in command
        host = self.net.supernode.host if at_supernode else self.home.host
        config = self.home.folder / "config.yaml"
        known = {
            "edge.yaml": str(config), "/etc/n2n/home.yaml": str(config), "/etc/hosts": str(self.folder / "hosts"),
            "supernode.example.org:7777": self.net.supernode.endpoint, "PEER": "laptop", "nas": "laptop",
            "secret.txt": str(self.folder / "secret.txt"),
        }  # fmt: skip
        more = MORE[key] if (key := longest(dict(MORE), command)) else []
        names = {
            "folder": self.folder, "number": number, "state": self.home.config["state_dir"],
            "sn_state": self.net.supernode.config["state_dir"],
        }  # fmt: skip
        words = [known.get(word, word) for word in words[1:]] + [word.format(**names) for word in more]
        return host.run(sys.executable, "-m", "n2n", *words, check=False, env=self.environment(host))

    def environment(self, host: Host) -> dict[str, str]:
        return {**os.environ, "N2N_RUN_DIR": str(host.folder / "run"), "HOME": str(self.home.folder), "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with network("ab") as net:
        shared = {"community": "our-community", "passphrase": "a long passphrase that all members share"}
        home, laptop = net.edge("a", name="home", **shared), net.edge("b", name="laptop", **shared)
        net.up(home, laptop)
        home.wait_path(laptop, "direct", PATIENCE)
        folder = tmp_path_factory.mktemp("docs")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        yield Place(net, home, laptop, folder)


def test_the_documents_have_commands() -> None:
    assert len(ALL) > 40
    assert {"README.md", "OPERATING.md", "NETWORK.md", "BENCHMARK.md"} <= {path.name for _, path in ALL}


def test_what_runs_elsewhere_does() -> None:
    words = {key: key.split()[1] for key in ELSEWHERE}
    assert [key for key, name in ELSEWHERE.items() if not (ROOT / name).is_file()] == []
    texts = {name: (ROOT / name).read_text() for name in ELSEWHERE.values()}
    assert [key for key, name in ELSEWHERE.items() if words[key] != "COMMAND" and words[key] not in texts[name]] == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("number", "command"),
    [pytest.param(n, command, id=f"{path.name}: {command}") for n, (command, path) in enumerate(ALL)],
)
def test_it_can_be_typed(place: Place, number: int, command: str) -> None:
    if longest(dict(ELSEWHERE), command) or command in RUNNING:
        return
    if "kick laptop" in command:  # it may be on its way back from an earlier kick
        known = "n2n supernode edges"
        wait_until("laptop is registered", lambda: "laptop" in place.type(known, number).stdout, PATIENCE)
    found = place.type(command, number)
    assert found.returncode == 0, f"{found.stdout}\n{found.stderr}"
    assert "Traceback" not in found.stderr


# ---- fields -------------------------------------------------------------------------------------


def documents() -> dict[str, Any]:
    """Command -> what docs/JSON.md says that it prints, as JSON: an object where there are objects, else null."""
    text = (ROOT / "docs" / "JSON.md").read_text()
    found = re.findall(r"^((?:`n2n [^`]+`(?: and )?)+)[^\n]*\n\n((?:    .*\n)+)", text, re.MULTILINE)
    return {command: shape(block) for commands, block in found for command in re.findall("`(n2n [^`]+)`", commands)}


def shape(block: str) -> Any:
    """``{at, peers: [{name}]}`` as {"at": None, "peers": {"name": None}}; ``{...}`` as {"...": None}."""
    text = re.sub(r"[\[\]\s]", "", block)
    text = re.sub(r"([\w.]+)(?=[,}])", r"\1:null", text)
    return json.loads(re.sub(r"([\w.]+):", r'"\1":', text))


def faults(found: Any, told: Any, where: str) -> list[str]:
    """Where what a command printed and what is told of it differ; a list that is empty is like any list."""
    if isinstance(found, list):
        objects = [each for each in found if isinstance(each, dict)]
        return [fault for each in objects for fault in faults(each, told, where)]
    if told is None or found is None or told == {"...": None}:
        return [f"{where} is an object"] if told is None and isinstance(found, dict) else []
    if not isinstance(found, dict):
        return [f"{where} is no object"]
    wrong = [f"{where}.{name}" for name in found.keys() ^ told.keys()]
    return wrong + [fault for name in found.keys() & told.keys() for fault in faults(found[name], told[name], name)]


def test_fields_can_be_wrong() -> None:
    told = shape("{at, peers: [{name, more: {...}}]}")
    assert told == {"at": None, "peers": {"name": None, "more": {"...": None}}}
    assert faults({"at": 1, "peers": []}, told, "") == []
    assert faults({"at": 1, "peers": [{"name": "a", "more": {"x": 1}}, {"name": "b", "more": None}]}, told, "") == []
    assert faults({"at": 1, "peers": [{"name": "a"}]}, told, "") == ["peers.more"]
    wrong = faults({"at": {"x": 1}, "peers": 3, "new": 1}, told, "")
    assert sorted(wrong) == [".new", "at is an object", "peers is no object"]
    assert len(documents()) > 20


@pytest.mark.root
@pytest.mark.parametrize("number", range(len(documents())), ids=list(documents()))
def test_fields_are_as_documented(place: Place, number: int) -> None:
    command, told = list(documents().items())[number]
    if "PEER" in command or "laptop" in command:
        wait_until("laptop is registered", lambda: "laptop" in place.type("n2n peers", number).stdout, PATIENCE)
    done = place.type(command if "p2viz" in command else f"{command} --json", number)
    assert done.returncode in (0, 1), done.stderr  # 1: n2n why, where the path is not direct just then
    text = done.stdout if done.stdout.startswith("{\n") else f"[{','.join(done.stdout.splitlines())}]"
    found = json.loads(text)
    assert found
    assert faults(found, told, command) == []


# ---- five lines ---------------------------------------------------------------------------------


@pytest.mark.root
def test_the_first_network_on_two_machines_takes_five_lines(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().partition("Two machines, five lines")[2]
    lines = [line.partition("#")[0].strip() for line in parts(text)[1][0].splitlines()]
    assert len(lines) == 5
    with Lab() as lab:
        switch = lab.switch()
        first, second = lab.host("first"), lab.host("second")
        first.attach(switch, "198.18.0.1/24")
        second.attach(switch, "198.18.0.2/24")

        def shell(line: str, host: Host) -> tuple[list[str], dict[str, str]]:
            """The line as a shell on that machine would take it; both have the file that is copied."""
            for word, known in (("supernode.example.org", first.addr), ("PEER", "first")):
                line = line.replace(word, known)
            line = line.removesuffix("&").replace("n2n", f"exec {sys.executable} -m n2n", 1)
            folders = {"N2N_RUN_DIR": "run", "HOME": "home", "STATE_DIRECTORY": "state"}
            env = {name: str(host.folder / folder) for name, folder in folders.items()}
            return ["sh", "-c", f"cd {tmp_path}; {line}"], env | {"N2N_EDGE_ID": host.name, "NO_COLOR": "1"}

        def typed(line: str, host: Host) -> subprocess.CompletedProcess[str]:
            command, env = shell(line, host)
            return host.run(*command, check=False, env=env)

        for line in lines:
            if line.endswith("&"):
                for host in (first, second) if "edge up" in line else (first,):
                    command, env = shell(line, host)
                    host.spawn(*command, log=line.split()[1], env=env)
            elif line == "n2n peers":
                wait_until("they see each other", lambda: "first  " in typed("n2n peers", second).stdout, PATIENCE)
            else:
                done = typed(line, second)
                assert done.returncode == 0, done.stderr
        assert "tunnel  4 of 4 answered" in done.stdout


# ---- firewall rules -----------------------------------------------------------------------------


def tables() -> dict[str, str]:
    """The nftables rule sets of the documents, by the name of their table."""
    blocks = [block for path in DOCS for block in parts(path.read_text())[1] if block.startswith("table inet ")]
    return {block.split()[2]: block for block in blocks}


@pytest.mark.root
def test_the_firewall_rules_let_through_what_they_promise(place: Place) -> None:
    need_tool("nft")
    rules, home, laptop = tables(), place.home, place.laptop
    assert set(rules) == {"n2n_supernode", "n2n_edge"}

    def load(host: Host, name: str, text: str) -> None:
        file = place.folder / f"{host.name}-{name}.nft"
        file.write_text(text + "\n")
        host.run("nft", "-f", str(file))

    try:
        load(place.net.supernode.host, "sn", rules["n2n_supernode"])
        load(home.host, "edge", rules["n2n_edge"])
        # As hosts are that let in answers only: the edges must reach each other all the same.
        for edge in (home, laptop):
            edge.stop()
            closed = rules["n2n_supernode"].replace("n2n_supernode", "closed").replace("{ 7777, 7778 }", "1")
            load(edge.host, "closed", closed)
        place.net.up(home, laptop)
        for here, there in ((home, laptop), (laptop, home)):
            here.wait_path(there, "direct", PATIENCE)
            assert ping(here.host, there.address, count=2).received == 2
        # Ping and ssh may come in by the TAP device, nothing else.
        home.host.run("nft", "delete", "table", "inet", "closed")
        listening = "import socket; s = socket.create_server(('', {0})); s.accept()"
        for port, answer in ((22, 0), (80, 1)):
            server = home.host.python("-c", listening.format(port), log=f"port-{port}")
            trial = f"import socket, sys, time\nend = time.monotonic() + {40 if answer == 0 else 2}\n"
            trial += "while time.monotonic() < end:\n    try:\n"
            trial += f"        socket.create_connection(('{home.address}', {port}), 1)\n        sys.exit(0)\n"
            trial += "    except ConnectionRefusedError: time.sleep(0.1)\n    except OSError: pass\nsys.exit(1)"
            assert laptop.host.run(sys.executable, "-c", trial, check=False).returncode == answer, port
            server.kill()
    finally:
        for host in (place.net.supernode.host, home.host, laptop.host):
            host.run("nft", "flush", "ruleset")
