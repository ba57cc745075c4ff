"""A YAML file of one flat section, read so that every key knows its line.

Only single values are built: no list, section, anchor or tag makes this do more work than the file is long.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["Entry", "Unreadable", "YamlFile", "read_yaml"]

#: Longer files are not configurations.
_LARGEST: Final = 256 * 1024
#: Items of a list that are looked at.
_LONGEST_LIST: Final = 64


class Unreadable:
    """In place of a value that YAML could not build.

    Args:
        why: for people; holds nothing of the value.
    """

    def __init__(self, why: str) -> None:
        self.why = why


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a file.

    Args:
        line: from 1.
        value: bool, int, float, str, a date, None for nothing; an (always empty) list or dict for a list or section; or
            an `Unreadable`.
    """

    line: int
    value: object


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file holds.

    Args:
        path: of the file.
        entries: by key; of a key given twice the first.
        problems: what is wrong with the file as such, each with its place.
        mode: permission bits of the file.
        broken: it could not be read to its end.
    """

    path: Path
    entries: dict[str, Entry]
    problems: list[str]
    mode: int
    broken: bool = False


def read_yaml(path: Path) -> YamlFile:
    """Read a file; what is wrong with it is in `problems`, and nothing is raised."""
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    try:
        content, mode = _content(path)
    except OSError as error:
        cause = os.strerror(error.errno).lower() if error.errno else str(error)
        return YamlFile(path, entries, [f"{path}: cannot be read: {cause}"], 0, broken=True)
    except ValueError as error:
        return YamlFile(path, entries, [f"{path}{error}"], 0, broken=True)
    try:
        loader = yaml.SafeLoader(content)
        try:
            _collect(path, loader, loader.get_single_node(), entries, problems)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        problems.append(_syntax(path, content, error))
    except RecursionError:
        problems.append(f"{path}: it is nested too deeply; a configuration is one flat list of 'key: value' lines")
    else:
        return YamlFile(path, entries, problems, mode)
    return YamlFile(path, entries, problems, mode, broken=True)


def _content(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
        mode = os.fstat(file.fileno()).st_mode & 0o777
    if len(raw) > _LARGEST:
        raise ValueError(f": it has more than {_LARGEST} bytes: is this a configuration?")
    try:
        return raw.decode("utf-8-sig"), mode
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f":{line}: it is not UTF-8 text (byte {raw[error.start]:#04x})") from None


def _collect(path: Path, loader: Any, root: Any, entries: dict[str, Entry], problems: list[str]) -> None:
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}:{_line(root)}: expected lines of the form 'key: value'")
        return
    for key_node, value_node in root.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{path}:{line}: a key is a single word")
            continue
        key = str(key_node.value)
        if key in entries:
            problems.append(f"{path}:{line}: {key} is given twice (first in line {entries[key].line}): remove one")
            continue
        entries[key] = Entry(line, _build(loader, value_node))


def _build(loader: Any, node: Any) -> object:
    if isinstance(node, yaml.SequenceNode):
        # What a list holds is looked at one level deep: nothing here takes lists of lists.
        flat = [one if isinstance(one, yaml.ScalarNode) else None for one in node.value[:_LONGEST_LIST]]
        items = [_build(loader, one) if one is not None else [] for one in flat]
        return next((item for item in items if isinstance(item, Unreadable)), items)
    if isinstance(node, yaml.MappingNode):
        return {}
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        return Unreadable("YAML cannot read this value: put it in quotes")
    return _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> object:
    """Join surrogate pairs: JSON writes characters beyond U+FFFF as two escapes, which YAML takes one by one."""
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return Unreadable("it holds half of a surrogate pair: write the character itself")


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _syntax(path: Path, content: str, error: yaml.YAMLError) -> str:
    """Where and what, without the excerpt that PyYAML adds: it may hold a passphrase."""
    if isinstance(error, yaml.reader.ReaderError):
        line = content.count("\n", 0, error.position) + 1
        return f"{path}:{line}: a character that YAML does not allow (U+{int(error.character):04X})"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    problem = str(getattr(error, "problem", None) or "not YAML")
    if "alias" in problem or "tag" in problem:
        problem = "a word that begins with *, & or ! has a meaning in YAML: put it in quotes"
    elif mark is not None and "tab" not in problem and "\\t" in problem:
        problem = "a tab cannot be used for indentation"
    context = getattr(error, "context", None)
    return f"{where}: {problem}" + (f" ({context})" if context and "tag" not in context else "")
