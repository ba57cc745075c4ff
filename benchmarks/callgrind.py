"""Reads what callgrind wrote: instructions by function of the source, also of those that the compiler inlined.

The extension must have been compiled with line directives: then every instruction names the line of the .pxd or .pyx
file that it comes from, and the function around that line is where it belongs, wherever it was inlined.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CIPHER = "cipher (libcrypto)"
_CYTHON = re.compile(r"\s*(?:cdef|cpdef|def)\b[^=(]*?(\w+)\(")
_C = re.compile(r"\s*(?:static|CYTHON_INLINE|__attribute__\S*|[a-z]\w*_t|int|void|unsigned)\b[^;=]*?(\w+)\([^;]*$")
_SYMBOL = re.compile(r"__pyx_\w+?_fastpath_\d+[a-z]+_(?:\d+Plane_\d*)?(.*)")
_COST = re.compile(r"(\d+) (\d+)$")


@dataclass
class Lines:
    """Which function a line of a source file is in."""

    starts: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, text: str, pattern: re.Pattern[str]) -> Lines:
        made = cls()
        for number, line in enumerate(text.splitlines(), start=1):
            if (found := pattern.match(line)) and found[1] not in ("if", "while", "for", "switch", "sizeof"):
                made.starts.append(number)
                made.names.append(found[1])
        return made

    def at(self, line: int) -> str | None:
        place = bisect_right(self.starts, line) - 1
        return self.names[place] if place >= 0 else None


def sources(folder: Path) -> dict[str, Lines]:
    """The functions of every Cython file in a folder, and of the C file in it, by the file's name."""
    found = {path.name: Lines.of(path.read_text(), _CYTHON) for path in folder.rglob("*.p[xy][dx]")}
    for path in folder.rglob("*.pyx"):
        found[path.name] = Lines.of(path.read_text(), _CYTHON)
    # Functions in C stand in quoted blocks of the .pxd files, and are compiled as lines of the C file.
    return {**found, **{path.name: Lines.of(path.read_text(errors="replace"), _C) for path in folder.rglob("*.c")}}


@dataclass(frozen=True)
class Cost:
    """One line of a profile: self cost, or (`called`) all that a call cost."""

    object: str
    function: str
    file: str
    line: int
    count: int
    called: tuple[str, str] | None = None


def costs(text: str) -> Iterator[Cost]:
    """Every cost line of a file that was written with --compress-strings=no --compress-pos=no."""
    where = {"ob": "", "fn": "", "fl": "", "cob": "", "cfn": ""}
    calling = False
    for line in text.splitlines():
        key, is_assignment, value = line.partition("=")
        if is_assignment and key in ("ob", "fl", "fi", "fe", "fn", "cob", "cfn", "cfi", "cfl"):
            where["fl" if key in ("fi", "fe") else key] = value
        elif key == "calls":
            calling = True
        elif found := _COST.match(line):
            called = (where["cob"] or where["ob"], where["cfn"]) if calling else None
            yield Cost(where["ob"], where["fn"], where["fl"], int(found[1]), int(found[2]), called)
            if calling:
                where["cob"] = where["cfn"] = ""
                calling = False


def name_of(cost: Cost, lines: dict[str, Lines]) -> str:
    """The function of the source that an instruction belongs to."""
    known = lines.get(Path(cost.file).name)
    if known and (name := known.at(cost.line)) and not name.startswith("__Pyx"):
        return name
    found = _SYMBOL.match(cost.function)
    return found[1] if found else cost.function


def by_function(text: str, lines: dict[str, Lines], mine: str = "plane.") -> Counter[str]:
    """Instructions of the extension by function, and of what it calls elsewhere by library and function."""
    found: Counter[str] = Counter()
    for cost in costs(text):
        if mine not in Path(cost.object).name:
            continue
        if cost.called is None:
            found[name_of(cost, lines)] += cost.count
            continue
        library, function = Path(cost.called[0]).name, cost.called[1]
        if mine in library:
            continue  # its own lines count by themselves
        if "crypto" in library:
            found[CIPHER] += cost.count
        elif "python" not in library:  # a round is one call from Python here, and has none around it in `Plane.run`
            found[f"libc: {re.sub(r'_(avx|sse|evex|erms|unaligned).*$', '', function).strip('_')}"] += cost.count
    return found
