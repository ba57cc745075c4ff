"""Real TAP devices in real network namespaces: everything in this folder needs root."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n.lab import cleaner

from .needs import need_root

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("root")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """In CI nothing here is skipped: what is missing there is an error."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {reason} (a failure, because CI is set)"


@pytest.fixture(scope="session", autouse=True)
def rights() -> None:
    need_root()
    sources = str(HERE.parents[1] / "src")  # for the programs that tests start, also where n2n is not installed
    os.environ["PYTHONPATH"] = f"{sources}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")


@pytest.fixture(scope="session", autouse=True)
def nothing_left(rights: None) -> Iterator[None]:
    """Every lab of this session has taken away what it made."""
    yield
    left = [path.name for path in cleaner.labs_dir().glob(f"n2n-{os.getpid()}*")]
    assert not left, f"labs were left behind: {left}"
