"""Style, types and import rules, as tests: what they forbid, nobody has to look for in a review."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "n2n"
ALLOWED = Path(__file__).with_name("stubtest.allow")
MAX_FUNCTION = 60  # lines that fit a screen
MAX_FILE = 500  # lines that fit a head
PYTHON_FILES = sorted(SOURCES.rglob("*.py"))
TRACKED = [ROOT / name for name in ("src", "tests", "scripts", "docs", "configs", "benchmarks", "changelog.d", ".ci")]


MODULE = (sys.executable, "-m")


def beside(tool: str) -> str:
    """A program that was installed into the environment of this Python."""
    return str(Path(sys.executable).with_name(tool))


def check(*command: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(SOURCES.parent)}
    result = subprocess.run(command, env=environment, check=False, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    check(*MODULE, "ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    check(*MODULE, "ruff", "format", "--check", ".")


def test_types_are_right() -> None:
    check(*MODULE, "mypy")


def test_stub_of_the_extension_tells_the_truth() -> None:
    check(
        *MODULE,
        "mypy.stubtest",
        "n2n._fastpath.plane",
        "n2n._fastpath.trial",
        "--concise",
        "--allowlist",
        str(ALLOWED),
        "--ignore-unused-allowlist",
    )


def test_imports_point_down() -> None:
    check(beside("lint-imports"), "--no-cache")


def test_cython_lint_finds_nothing() -> None:
    files = [str(p) for p in sorted(SOURCES.rglob("*")) if p.suffix in (".pyx", ".pxd")]
    assert files, "there is no Cython source"
    check(beside("cython-lint"), "--max-line-length=120", *files)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(SOURCES)))
def test_files_fit_a_head_and_functions_a_screen(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE, f"{path} is longer than {MAX_FILE} lines: split it by duty"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1  # a signature is read, not followed
            assert length <= MAX_FUNCTION, f"{path}:{node.lineno}: {node.name} has {length} lines"


def test_scripts_are_bash() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.suffix in (".sh", "") and path.is_file()]
    assert len(scripts) > 5
    for script in [*scripts, ROOT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_no_place_of_one_machine_is_named() -> None:
    """A clone elsewhere has neither these folders nor these hosts."""
    words = [
        "/wo" + "rk/",
        "../sha" + "red",
        "py" + "pi.org",
        "python" + "hosted",
        "deb.debi" + "an.org",
        "/ro" + "ot/",
    ]
    found = [
        f"{path}: {word}"
        for folder in TRACKED
        for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
        if path.is_file() and path.suffix in (".py", ".sh", ".md", ".yaml", ".toml", ".pyx", ".pxd", ".pyi", "")
        for word in words
        if word in path.read_text(errors="replace")
    ]
    assert not found, found
