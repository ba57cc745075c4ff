"""What `pip install .` says where something that it needs is missing: the thing, and the line to type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_HEADERS = (
    "import runpy, sys, sysconfig; real = sysconfig.get_path\n"
    "sysconfig.get_path = lambda name, *a, **k: '/nonexistent' if name == 'include' else real(name, *a, **k)\n"
    "sys.argv = ['setup.py', 'build_ext', '--inplace']; runpy.run_path('setup.py')"
)
BUILD = ("setup.py", "build_ext", "--inplace")


@pytest.mark.parametrize(
    ("command", "environment", "missing", "line"),
    [
        (BUILD, {"CC": "nope-cc"}, "no C compiler ('nope-cc' is not on PATH)", "apt-get install -y gcc"),
        (BUILD, {"CC": "cc -nostdinc"}, "cannot read <stdio.h>", "apt-get install -y gcc libc6-dev"),
        (BUILD, {"CC": "false"}, "cannot read <stdio.h> (exit status 1)", "dnf install -y gcc glibc-devel"),
        (BUILD, {"PKG_CONFIG_LIBDIR": "/nonexistent"}, "libcrypto 3.0 or newer", "dnf install -y openssl-devel"),
        (BUILD, {"N2N_OPENSSL_PREFIX": "/nonexistent"}, "/nonexistent has no", "apt-get install -y libssl-dev"),
        (("-c", WITHOUT_HEADERS), {}, "Python's headers are missing", "apt-get install -y python3-dev"),
    ],
    ids=["compiler", "libc", "broken", "libcrypto", "prefix", "headers"],
)
def test_each_missing_thing_is_named(
    command: tuple[str, ...], environment: dict[str, str], missing: str, line: str
) -> None:
    env = {**os.environ, **environment}
    env.pop("PKG_CONFIG_PATH", None)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "n2n cannot be built: " in done.stderr
    assert missing in done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
