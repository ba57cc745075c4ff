"""What README and docs speak of exists: files, tests, modules, names, counters, keys, commands and flags.

The convention is simple: whatever stands `in backticks` is checked by its form (see `fault_of`), and so is every line
of a code block that is a command or a key of a configuration file.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from n2n._fastpath.plane import COUNTERS as PLANE_COUNTERS
from n2n.cli.main import build_app
from n2n.config import EdgeConfig, SupernodeConfig
from tests.unit import test_edge_dialogue, test_leases, test_supernode_dialogue, test_wire_gob_accept

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = {"src", "tests", "docs", "configs", "scripts", "benchmarks", "changelog.d", ".ci"}
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi", ".md", ".yaml", ".json", ".toml", ".sh")
KEYS = {field.name for config in (EdgeConfig, SupernodeConfig) for field in dataclasses.fields(config)} | {
    "encryption_passphrase_file"
}
#: Written by the program or its user, not by us.
NOT_OURS = {"edge.yaml", "CHANGELOG.md"}
KINDS = ("added", "changed", "fixed", "removed", "security")


def tracked(path: Path) -> bool:
    return path.is_file() and path.suffix in {".py", ".pyx", ".pxd", ".sh", ".yaml"}


@cache
def words() -> frozenset[str]:
    """Every word of our sources, scripts and samples."""
    folders = [ROOT / name for name in ("src", "scripts", "configs", "benchmarks")]
    files = [path for folder in folders for path in folder.rglob("*") if tracked(path)]
    files += [ROOT / "Makefile", ROOT / "setup.py"]
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text()))


# ---- taking a document apart --------------------------------------------------------------------


def parts(text: str) -> tuple[str, list[str]]:
    """The prose, and the code blocks (fenced, or indented by four after an empty line)."""
    prose: list[str] = []
    blocks: list[list[str]] = []
    fenced = inside = False
    before = ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            inside = False
            if fenced:
                blocks.append([])
        elif fenced:
            blocks[-1].append(line)
        elif line.startswith("    ") and (inside or not before.strip()):
            if not inside:
                blocks.append([])
            inside = True
            blocks[-1].append(line[4:])
        elif line.strip() or not inside:
            inside = False
            prose.append(line)
        before = line
    return "\n".join(prose), ["\n".join(block) for block in blocks]


def spans(prose: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose)


# ---- commands -----------------------------------------------------------------------------------


@cache
def application() -> Any:
    from typer.main import get_command

    return get_command(build_app([]))


def options_of(command: Any) -> set[str]:
    known = {"-h", "--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    return known


def fault_of_n2n(line: str) -> str | None:
    """What is wrong with a command line of ours."""
    rest = shlex.split(line, comments=True)[1:]
    command = application()
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] in ("...", "COMMAND"):
            return None
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    known = options_of(command)
    unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
    return f"there is no {unknown[0]}" if unknown else None


def fault_of_make(line: str) -> str | None:
    text = (ROOT / "Makefile").read_text() + (ROOT / "scripts" / "lib.sh").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in shlex.split(line, comments=True)[1:]:
        name, is_variable, _ = word.partition("=")
        if is_variable and not re.search(rf"\b{name}\b", text):
            return f"nothing looks at {name}"
        if not is_variable and word not in targets:
            return f"there is no target {word!r}"
    return None


def fault_of_command(line: str) -> str | None:
    line = re.sub(r"^(\w+=\S+ )+(?=make )", "", line)
    if line.startswith("n2n "):
        return fault_of_n2n(line)
    return fault_of_make(line) if line.startswith("make ") else None


# ---- names --------------------------------------------------------------------------------------


@cache
def defined_in(path: Path) -> frozenset[str]:
    """What a test file defines: `test_x`, and `TestY::test_x`."""
    found = set()
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, functions):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, functions)}
    return frozenset(found)


def fault_of_test(span: str) -> str | None:
    name, _, test = span.partition("::")
    path = ROOT / name
    if not path.is_file():
        return "there is no such file"
    return None if test in defined_in(path) else "there is no such test"


def fault_of_path(span: str) -> str | None:
    """From the root, from the package, or (a bare name) anywhere in the package."""
    name = span.rstrip("/")
    found = any((base / name).exists() for base in (ROOT, ROOT / "src" / "n2n"))
    if not found and "/" not in name:
        found = any((ROOT / "src" / "n2n").rglob(name))
    return None if found or name in NOT_OURS else "there is no such file"


def fault_of_module(span: str) -> str | None:
    names = span.split(".")
    for count in range(len(names), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(names[:count]))
        except ModuleNotFoundError:
            continue
        for name in names[count:]:
            if not hasattr(thing, name):
                return f"{thing.__name__} has no {name}"
            thing = getattr(thing, name)
        return None
    return "there is no such module"


def fault_of_name(span: str) -> str | None:
    if span.startswith("drop_"):
        return None if span in PLANE_COUNTERS else "the data plane has no such counter"
    missing = [word for word in span.split(".") if word not in words()]
    return f"nothing in the sources is called {missing[0]}" if missing else None


def fault_of(span: str) -> str | None:
    """What is wrong with what stands in backticks; None where nothing is, or where its form tells nothing."""
    if "::" in span:
        return fault_of_test(span)
    if span.startswith(("n2n ", "make ")):
        return fault_of_command(span)
    if key := re.fullmatch(r"([a-z]+_[a-z_]+): \S.*", span):
        return None if key[1] in KEYS else "there is no such configuration key"
    if variable := re.fullmatch(r"N2N_([A-Z_]+)(=\S+)?", span):
        known = variable[1].lower() in KEYS or f"N2N_{variable[1]}" in words()
        return None if known else "nothing reads that variable"
    if re.search(r"[\s<>*|]", span) or span.startswith(("~", "/", "--")):
        return None
    if span.split("/")[0] in FOLDERS or span.endswith(SUFFIXES):
        return fault_of_path(span)
    if re.fullmatch(r"n2n(\.\w+)+", span):
        return fault_of_module(span)
    # Names with an underscore or capitals inside; a plain word may be anything.
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", span) and re.search(r"_|[a-z][A-Z]", span):
        return fault_of_name(span)
    return None


# ---- the tests ----------------------------------------------------------------------------------


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCS, ids=named)
def test_what_a_document_names_exists(path: Path) -> None:
    prose, _ = parts(path.read_text())
    faults = {span: fault for span in spans(prose) if (fault := fault_of(span)) is not None}
    assert not faults


@pytest.mark.parametrize("path", DOCS, ids=named)
def test_commands_and_keys_in_code_blocks_exist(path: Path) -> None:
    _, blocks = parts(path.read_text())
    faults = {}
    for line in "\n".join(blocks).splitlines():
        fault = fault_of_command(line.strip())
        key = re.fullmatch(r"([a-z]+(?:_[a-z]+)*): \S.*", line)
        if key and key[1] not in KEYS:
            fault = "there is no such configuration key"
        if fault is not None:
            faults[line] = fault
    assert not faults


@pytest.mark.parametrize("path", DOCS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    prose, _ = parts(path.read_text())
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not link.startswith(("https:", "#"))]
    assert [link for link in links if not (path.parent / link.partition("#")[0]).exists()] == []


def test_every_promise_has_a_test() -> None:
    held = (ROOT / "docs" / "SECURITY.md").read_text().partition("\n## What does not hold")[0]
    rows = [line for line in held.splitlines() if line.startswith("| ") and "---" not in line]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert len(promises) > 25
    assert [row for row in promises if "::test_" not in row] == []


def test_every_intended_difference_is_told() -> None:
    """The tests of the recordings know where we differ; the protocol's description names each."""
    text = " ".join((ROOT / "docs" / "PROTOCOL.md").read_text().split())
    steps = {re.sub(r": ping \d+$", "", key) for key in test_edge_dialogue.DIFFERENCES}
    keys = {
        *steps, *test_supernode_dialogue.INTENDED, *test_leases.DIFFERENCES, *test_wire_gob_accept.STRICTER,
        *test_wire_gob_accept.LESS,
    }  # fmt: skip
    quoted = set(re.findall(r'"([^"]+)"', text))
    missing = {key for key in keys if not key.startswith("state: ") and key not in quoted}
    missing |= {key for key in keys if key.startswith("state: ") and f'"{key}"' not in text}
    assert not missing


def test_news_are_named_as_towncrier_reads_them() -> None:
    fragments = [path.name for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    assert [name for name in fragments if not re.fullmatch(rf"[\w-]+\.({'|'.join(KINDS)})\.md", name)] == []


@pytest.mark.parametrize(
    "span",
    [
        "tests/unit/test_leases.py::test_nothing_of_the_kind", "tests/unit/test_none.py::test_x", "n2n frobnicate",
        "n2n edge up --no-such-flag", "n2n edge sideways", "make tea", "make test COLOUR=red", "strict_checks: false",
        "N2N_NO_SUCH_KEY", "docs/NOTHING.md", "nothing.pxd", "n2n.wire.nothing", "n2n.nowhere", "drop_nothing",
        "NoSuchThing", "EdgeCore.no_such_method",
    ],
)  # fmt: skip
def test_the_check_can_fail(span: str) -> None:
    assert fault_of(span) is not None


@pytest.mark.parametrize(
    "span",
    [
        "tests/unit/test_leases.py::test_a_mac_belongs_to_one_machine", "n2n edge up --config edge.yaml",
        "n2n edge ...", "make test", "make dist", "strict_hash_checking: false", "N2N_COMMUNITY", "docs/SECURITY.md",
        "relay.pxd", "n2n.wire.parse", "drop_stranger", "EdgeCore.network_changed", "a plain word", "acme",
    ],
)  # fmt: skip
def test_the_check_can_pass(span: str) -> None:
    assert fault_of(span) is None


def test_code_blocks_are_found() -> None:
    prose, blocks = parts(
        "one `a`\n\n    n2n status\n\n    make test\n\ntwo\n\n```\nn2n peers\n```\n* list\n    goes on `b`\n"
    )
    assert blocks == ["n2n status\nmake test", "n2n peers"]
    assert spans(prose) == ["a", "b"]
