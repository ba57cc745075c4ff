"""Looks at a host as an edge or a supernode needs it, and says of each thing whether it is right, and what to do.

Nothing is changed: what has to be tried (a TAP device, a socket) is made under another name and taken away at once.
"""

from n2n.doctor.findings import Finding, Level, Subject, examine

__all__ = ["Finding", "Level", "Subject", "examine"]
