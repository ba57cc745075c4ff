"""Exit codes, and how an error is told: one line, what to do, no traceback."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from n2n.errors import ConfigError, N2NError, NotReady, PortMapError

__all__ = ["FAILED", "NOT_READY", "NOT_RUNNING", "OK", "PERMISSION", "USAGE", "code_of", "tell_error", "tell_warning"]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
NOT_READY: Final = 4
PERMISSION: Final = 5

_CODES: Final = {"bad_request": USAGE, "unknown_method": USAGE, "not_ready": NOT_READY, "timed_out": NOT_READY}


def code_of(error: BaseException) -> int:
    """The exit code for an error."""
    from n2n.api.client import AccessDenied, CallFailed, NotRunning

    if isinstance(error, CallFailed):
        return _CODES.get(error.code, FAILED)
    if isinstance(error, NotRunning):
        return NOT_RUNNING
    if isinstance(error, AccessDenied) or _forbidden(error):
        return PERMISSION
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, NotReady | TimeoutError) or (isinstance(error, PortMapError) and error.silent):
        return NOT_READY
    return FAILED


def tell_error(error: BaseException) -> None:
    """Write what went wrong to standard error; with N2N_DEBUG=1 also where."""
    if os.environ.get("N2N_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    # A refusal that we word ourselves has no number of the system.
    if isinstance(error, N2NError) or (isinstance(error, PermissionError) and error.errno is None):
        _write("error", str(error))
    elif isinstance(error, OSError) and error.strerror:
        _write("error", f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    else:
        _write(
            "error", f"{type(error).__name__}: {error}. This is a bug: please report it with the output of N2N_DEBUG=1"
        )


def tell_warning(text: str) -> None:
    """Write a line to standard error."""
    _write("warning", text)


def _write(kind: str, text: str) -> None:
    # A name with bytes that are not UTF-8 must not make the message an error of its own.
    line = f"n2n: {kind}: {text}\n"
    sys.stderr.write(line.encode(errors="backslashreplace").decode())
    sys.stderr.flush()


def _forbidden(error: BaseException | None) -> bool:
    """Whether a refusal for want of rights stands at the bottom of an error."""
    while error is not None:
        codes = (getattr(error, "errno", None), getattr(error, "code", None))
        if isinstance(error, PermissionError) or errno.EPERM in codes or errno.EACCES in codes:
            return True
        error = error.__cause__
    return False
