"""The one exception tree of the program.

Every error that a user can meet derives from :class:`N2NError`; its message says what failed, with
which value, and what to do about it.  A decoder raises :class:`MalformedDatagram` and nothing else.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "ConfigError",
    "LocalProtocolError",
    "MalformedDatagram",
    "N2NError",
    "NetlinkError",
    "NotReady",
    "PlatformError",
    "PortMapError",
    "ProtocolError",
    "StoreError",
    "TapError",
]


class N2NError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(N2NError):
    """A configuration value is unknown, of the wrong type, or impossible.

    The message names where the value came from (file and line, environment variable, or flag).
    """


class ProtocolError(N2NError):
    """Base of what can go wrong with packets."""


class LocalProtocolError(ProtocolError):
    """We were asked to send something that the protocol cannot carry."""


class MalformedDatagram(ProtocolError):  # noqa: N818  (the field's name for it)
    """What arrived is not a well-formed packet, header, or message."""


class AuthenticationFailed(ProtocolError):  # noqa: N818
    """A payload or a machine id did not open: wrong key, or altered on the way."""


class PlatformError(N2NError):
    """The operating system refused something."""


class TapError(PlatformError):
    """A TAP device could not be opened, configured, read or written."""


class NetlinkError(PlatformError):
    """The kernel refused a change of a link, an address or a route."""


class PortMapError(PlatformError):
    """A router did not make, list or delete a port mapping."""

    silent = False
    """True where it did not answer at all."""


class StoreError(N2NError):
    """Leases, keys or other state could not be read from or written to disk."""


class NotReady(N2NError):  # noqa: N818
    """Something did not come up within the time it was given."""
