"""Who an edge is: the machine id of its user account, and the MAC address that follows from it."""

from __future__ import annotations

from n2n.identity.machine import MACHINE_ID_SIZE, load_machine_id, mac_for, parse_machine_id

__all__ = ["MACHINE_ID_SIZE", "load_machine_id", "mac_for", "parse_machine_id"]
