"""A finding, and how the checks are run: one that fails in an unforeseen way is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from n2n.config import EdgeConfig, SupernodeConfig
from n2n.errors import N2NError

__all__ = ["Check", "Finding", "Level", "Subject", "examine", "failed", "ok", "warning"]


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but slower, or less safely, or perhaps not always."""
    FAIL = "fail"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        check: its name, in snake_case; stable.
        level: how bad it is.
        what: what is so, for people.
        remedy: what to do; empty if nothing.
    """

    check: str
    level: Level
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at.

    Args:
        role: "edge" or "supernode".
        config: its configuration; None: none was given, so only the host is looked at.
        running: the status of every daemon of this host that answers, by instance.
    """

    role: str
    config: EdgeConfig | SupernodeConfig | None = None
    running: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def edge(self) -> EdgeConfig | None:
        """The configuration, if it is an edge's."""
        return self.config if isinstance(self.config, EdgeConfig) else None

    @property
    def itself(self) -> Mapping[str, Any] | None:
        """The status of the daemon that has this configuration, if it runs."""
        name = "supernode" if self.role == "supernode" else self.edge.tap_name if self.edge is not None else ""
        return self.running.get(name)


Check: TypeAlias = Callable[[Subject], Iterable[Finding]]


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, remedy: str) -> Finding:
    """It works, but."""
    return Finding(check, Level.WARNING, what, remedy)


def failed(check: str, what: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.FAIL, what, remedy)


def examine(subject: Subject) -> Iterator[Finding]:
    """Run every check that concerns the subject, in an order from the host outwards; some take seconds."""
    from n2n.doctor import host, network

    yield from run(subject, (*host.CHECKS, *network.CHECKS))


def run(subject: Subject, checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run checks; what they raise becomes a finding of their name."""
    for name, check in checks:
        try:
            yield from check(subject)
        except (N2NError, OSError) as error:
            yield failed(name, f"it could not be looked at: {error}", "Run it as root, and see the message")
