"""What the tests in this folder need of the machine: a test is skipped with the name of what is missing.

A skipped test proves nothing, so where the environment has CI set, conftest.py turns the skip into a failure.
"""

from __future__ import annotations

import pytest

from n2n.errors import PlatformError
from n2n.lab.namespaces import need_rights, which


def need_root() -> None:
    """Skip where this process may not make namespaces and TAPs."""
    try:
        need_rights()
    except (PermissionError, PlatformError) as error:
        pytest.skip(str(error))


def need_tool(name: str) -> None:
    """Skip where the program `name` is not installed."""
    if which(name) is None:
        pytest.skip(f"the program {name!r} is missing")
