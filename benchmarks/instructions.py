"""Instructions per packet of the data plane, by function, beside the cipher: counted by callgrind, the same every time.

    apt-get install -y valgrind
    .venv/bin/python benchmarks/instructions.py [--functions 12]

Needs no root, no quiet machine, and no second round. The extension is compiled anew in a temporary folder, as fast as
ever but with line numbers. Planes are stepped over socket pairs (stepping.py says in what scenarios); what the kernel
does is not counted. Full-size inner packets have 1,420 bytes; "trains" are super-frames and UDP_SEGMENT trains of 44.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from callgrind import CIPHER, by_function, sources
from harness import Run

import n2n
from n2n.bench.plot import GREY, Bar, Panel, Point
from n2n.errors import PlatformError
from n2n.lab.namespaces import run as execute

ROOT = Path(__file__).resolve().parents[1]
TIME = 600.0


def build(folder: Path) -> Path:
    """Compile the extension with line numbers; returns a folder with the whole package for PYTHONPATH."""
    if not (ROOT / "setup.py").exists():
        raise PlatformError(f"{ROOT} is no checkout of the sources")
    package = folder / "path" / "n2n"
    shutil.copytree(Path(n2n.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    where = ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    command = [sys.executable, "setup.py", "-q", "build_ext", *where, "--cython-line-directives"]
    flags = f"{os.environ.get('N2N_CFLAGS', '')} -g".strip()
    execute(command, timeout=TIME, cwd=ROOT, env={"N2N_CFLAGS": flags})
    for made in (folder / "lib").rglob("*.so"):
        shutil.copy(made, package / "_fastpath")
    return package.parent


def profile(folder: Path, path: Path) -> list[dict[str, object]]:
    """Run all scenarios under callgrind; returns their names and numbers of packets."""
    command = [
        "valgrind",
        "-q",
        "--tool=callgrind",
        f"--callgrind-out-file={folder}/out",
        "--compress-strings=no",
        "--compress-pos=no",
        "--toggle-collect=*Plane*step",
        "--dump-before=*Plane_*counters",
        sys.executable,
        str(Path(__file__).with_name("stepping.py")),
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    try:
        result = subprocess.run(command, check=False, timeout=TIME, env=environment, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        raise PlatformError(f"callgrind did not end within {TIME:g} s") from None
    if result.returncode:
        raise PlatformError(f"callgrind failed: {result.stderr[-2000:]}")
    found: list[dict[str, object]] = json.loads((folder / "scenarios.json").read_text())
    return found


def count(run: Run, folder: Path) -> dict[str, dict[str, float]]:
    """Instructions by scenario and function."""
    path = build(folder)
    scenarios = profile(folder, path)
    lines = sources(folder / "temp") | sources(path / "n2n" / "_fastpath")
    found = {}
    for number, scenario in enumerate(scenarios, start=1):
        name, packets = str(scenario["name"]), scenario["packets"]
        assert isinstance(packets, int)
        if scenario["dropped"]:
            run.fault(f"{name}: {scenario['dropped']}")
        functions = by_function((folder / f"out.{2 * number}").read_text(), lines)
        found[name] = {function: cost / packets for function, cost in functions.items()}
        beside = sum(cost for function, cost in found[name].items() if function != CIPHER)
        run.keep(name, {"beside the cipher": (beside, "instructions per packet")})
        for function, cost in ranked(found[name]):
            if cost >= 0.5:
                run.results.add(function, name, cost, "instructions per packet")
    return found


def ranked(functions: dict[str, float]) -> list[tuple[str, float]]:
    """The dearest first."""
    return sorted(functions.items(), key=lambda item: -item[1])


def overview(found: dict[str, dict[str, float]], most: int) -> str:
    """Markdown: the sums, then the functions of each scenario."""
    lines = ["| scenario | beside the cipher | cipher |", "| --- | ---: | ---: |"]
    for name, functions in found.items():
        beside = sum(cost for function, cost in functions.items() if function != CIPHER)
        lines.append(f"| {name} | {beside:,.0f} | {functions.get(CIPHER, 0):,.0f} |")
    for name, functions in found.items():
        top = [item for item in ranked(functions) if item[0] != CIPHER]
        words = ", ".join(f"`{function}` {cost:,.0f}" for function, cost in top[:most] if cost >= 0.5)
        rest = sum(cost for _, cost in top[most:])
        lines += ["", f"{name}: {words}, the rest {rest:,.0f}."]
    return "\n".join(lines)


def panels(found: dict[str, dict[str, float]], most: int) -> list[Panel]:
    axis = "instructions per packet"

    def bar(label: str, value: float, colour: int = 0) -> Bar:
        return Bar(label, Point(value, value, value), colour)

    sums = {name: sum(cost for f, cost in functions.items() if f != CIPHER) for name, functions in found.items()}
    made = [
        Panel("Beside the cipher", axis, bars=[bar(name, value) for name, value in sums.items()]),
        Panel("The cipher", axis, bars=[bar(name, f[CIPHER], GREY) for name, f in found.items() if CIPHER in f]),
    ]
    for name in (
        "edge out, trains, sealed",
        "edge in, trains, sealed",
        "edge out, single, sealed",
        "edge in, single, sealed",
    ):
        top = [item for item in ranked(found.get(name, {})) if item[0] != CIPHER][:most]
        if top:
            made.append(Panel(name, axis, bars=[bar(function, cost) for function, cost in top]))
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--functions", type=int, default=12, help="shown of each scenario (12); the CSV has all")
    options.add_argument("--output", type=Path, default=Path("artefacts/performance"), help="folder of CSV and SVG")
    options.set_defaults(rounds=1, seconds=0.0, minutes=30.0)
    run = Run("instructions", options.parse_args(), how="counted by callgrind, the kernel's not among them")
    if shutil.which("valgrind") is None:
        sys.exit("instructions: valgrind is missing. Install it: apt-get install -y valgrind")
    run.round = 1
    try:
        with tempfile.TemporaryDirectory(prefix="n2n-instructions-") as folder:
            found = count(run, Path(folder))
    except PlatformError as error:
        sys.exit(f"instructions: {error}")
    most = run.options.functions
    run.finish("Instructions per packet", panels(found, most), overview(found, most))


if __name__ == "__main__":
    main()
