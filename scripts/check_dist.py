"""Look into an sdist and a wheel: what must be in them is, what must not be is not.

check_dist.py n2n-X.tar.gz n2n-X-cp311-abi3-linux_x86_64.whl

Run in a git clone, it also sees that the sdist has every file that git knows.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

SDIST_HAS = (
    "src/n2n/_fastpath/*.pyx",
    "src/n2n/_fastpath/*.pxd",
    "src/n2n/_fastpath/*.h",
    "src/n2n/_fastpath/*.pyi",
    "src/n2n/py.typed",
    "tests/*/test_*.py",
    "tests/vectors/*.json",
    "configs/edge.yaml",
    "configs/supernode.yaml",
    "docs/*.md",
    "benchmarks/load.c",
    "scripts/setup.sh",
    "Makefile",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
SDIST_LACKS = ("*.so", "src/*.c", "*__pycache__*", "*.pyc", ".venv*", ".git/*", "artefacts*")
WHEEL_HAS = (
    "n2n/__init__.py",
    "n2n/py.typed",
    "n2n/web/static/peers.html",
    "n2n/web/static/peers.js",
    "n2n/data/configs/*.yaml",
    "n2n/data/systemd/*.service",
    "n2n/_fastpath/*.abi3.so",
    "n2n/_fastpath/*.pyi",
    "*.dist-info/entry_points.txt",
    "*.dist-info/licenses/LICENSE",
)
WHEEL_LACKS = ("*.pyx", "*.pxd", "*.c", "*.h", "tests/*", "*__pycache__*", "*.pyc")


#: What git knows and an sdist does without.
NOT_PACKED = (".gitignore",)


def tracked() -> list[str]:
    """The files that git knows here; none where this is no clone."""
    if not Path(".git").exists():
        return []
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in listed if name and Path(name).is_file() and name not in NOT_PACKED]


def faults(kind: str, names: list[str], has: tuple[str, ...], lacks: tuple[str, ...]) -> list[str]:
    found = [
        f"{kind}: nothing in it is named {pattern}" for pattern in has if not any(fnmatch(n, pattern) for n in names)
    ]
    found += [f"{kind}: {name} does not belong in it" for name in names if any(fnmatch(name, p) for p in lacks)]
    return found


def main(sdist: str, wheel: str) -> int:
    with tarfile.open(sdist) as archive:
        inside = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
    wrong = faults("sdist", inside, SDIST_HAS, SDIST_LACKS)
    wrong += [f"sdist: {name}, which git knows, is not in it (MANIFEST.in)" for name in set(tracked()) - set(inside)]
    with zipfile.ZipFile(wheel) as archive_:
        packed = archive_.namelist()
    # What is linked in comes with its licence.
    bundles = ("*.dist-info/licenses/LICENSE.libcrypto",) if "manylinux" in Path(wheel).name else ()
    wrong += faults("wheel", packed, (*WHEEL_HAS, *bundles), WHEEL_LACKS)
    if "-cp311-abi3-" not in Path(wheel).name:
        wrong.append(f"wheel: its name {Path(wheel).name} is not tagged cp311-abi3")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"sdist: {len(inside)} files, {Path(sdist).stat().st_size / 1e6:.1f} MB")
    print(f"wheel: {len(packed)} files, {Path(wheel).stat().st_size / 1e6:.1f} MB, {Path(wheel).name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
