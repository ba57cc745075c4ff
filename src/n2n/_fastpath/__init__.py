"""The data plane: a compiled extension that moves packets on raw descriptors without the GIL.

Nothing here imports anything else of ``n2n``.  There is no pure-Python twin: it would be a second
implementation of nonces and checks, and slow without saying so.
"""

from __future__ import annotations

try:
    from n2n._fastpath import plane as plane
except ImportError as error:  # pragma: no cover - only where the build was skipped
    raise ImportError(
        "the compiled data plane of n2n is missing or does not fit this Python "
        f"({error}). Build it with: pip install . (it needs a C compiler, Python's headers and "
        "libcrypto's: apt-get install gcc python3-dev libssl-dev pkg-config)"
    ) from error
