"""What all tests share: where the vectors lie and how to read them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).resolve().parent / "vectors"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        type=Path,
        default=VECTORS,
        metavar="DIR",
        help="folder of test vectors to use in place of tests/vectors (same file names)",
    )


@pytest.fixture(scope="session", autouse=True)
def _no_state_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What daemons in tests keep lies in a directory of the tests, whatever their configuration leaves open."""
    os.environ["STATE_DIRECTORY"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def vectors(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    """Reads a vector file: ``vectors("mac")["vectors"]``."""
    folder: Path = request.config.getoption("--vectors")

    @cache
    def text(name: str) -> str:
        return (folder / f"{name}.json").read_text(encoding="utf-8")

    def load(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(text(name))  # anew each time: a test may change what it is given
        return content

    return load
