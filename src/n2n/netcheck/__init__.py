"""What kind of network this host is in, as far as one supernode and the router can tell: ``n2n netcheck``.

`asker` sends questions and waits, `verdicts` says what the answers mean (and does no input or output), `report` puts
both together with port mappings and what the kernel knows.
"""

from n2n.netcheck.report import Report, check

__all__ = ["Report", "check"]
