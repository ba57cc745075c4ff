"""A home router in a namespace with a real miniupnpd: port mappings by UPnP IGD, NAT-PMP and PCP.

It masquerades (port-restricted, as most home routers do) and drops what comes unasked from outside, unless a mapping
lets it in. miniupnpd makes no mapping where the outside address is not a public one, so a lab that wants mappings
takes addresses that look public: they exist in its namespaces only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from n2n.errors import PlatformError
from n2n.lab.namespaces import Process, need_rights, wait_until
from n2n.lab.topology import Host, Switch

__all__ = ["HomeRouter"]

_WAN: Final = "wan"
_LAN: Final = "lan"
#: miniupnpd adds rules to the three chains with its name, and never makes or removes them.
_RULES: Final = """flush ruleset
table inet filter {
  chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    jump miniupnpd
    iifname "lan" oifname "wan" accept
  }
  chain input { type filter hook input priority 0; policy accept;
    ct state established,related accept
    iifname "wan" drop
  }
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain prerouting { type nat hook prerouting priority -100; policy accept;
    {jump}
  }
  chain postrouting { type nat hook postrouting priority 100; policy accept;
    jump postrouting_miniupnpd
    oifname "wan" masquerade
  }
}
"""
_CONFIG: Final = """ext_ifname=wan
listening_ip=lan
port=0
enable_upnp={upnp}
enable_natpmp={natpmp}
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
min_lifetime=1
max_lifetime={lifetime}
secure_mode=yes
notify_interval=30
system_uptime=no
uuid=7868a2dd-fd9b-4fd1-a535-d6deeade5f8d
lease_file={folder}/leases
{more}
{allow} 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class HomeRouter:
    """A router between two switches.

    Args:
        host: a host of the lab that is attached to nothing yet.
        outside: the switch towards the internet.
        wan: its address there, with prefix length.
        inside: the switch of the home.
        lan: its address there, with prefix length.
        upnp: answers by UPnP.
        natpmp: answers by NAT-PMP and PCP (miniupnpd knows one key for both).
        lifetime: longest lifetime of a mapping by NAT-PMP and PCP, in seconds.
        allowed: makes mappings; False: refuses all.
        says: the external address that it claims to have; None: its own.
        honest: what it maps it lets in; False: it says so only.

    Raises:
        PlatformError: miniupnpd or nft is not installed.
    """

    def __init__(
        self,
        host: Host,
        outside: Switch,
        wan: str,
        inside: Switch,
        lan: str,
        *,
        upnp: bool = True,
        natpmp: bool = True,
        lifetime: int = 86400,
        allowed: bool = True,
        says: str | None = None,
        honest: bool = True,
    ) -> None:
        need_rights("nft", "miniupnpd")
        self.host = host
        self.wan = wan.partition("/")[0]
        self.lan = lan.partition("/")[0]
        self.process: Process | None = None
        self.options: dict[str, object] = {
            "upnp": upnp,
            "natpmp": natpmp,
            "lifetime": lifetime,
            "allowed": allowed,
            "says": says,
            "honest": honest,
        }
        """The arguments of the same names: change them, then `restart`."""
        self._starts = 0
        host.attach(outside, wan, interface=_WAN)
        host.attach(inside, lan, interface=_LAN)
        with host.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def start(self) -> None:
        """Load the rules, start miniupnpd, and wait until it listens.

        Raises:
            NotReady: it does not listen; PlatformError: it ended, with the end of its log.
        """
        rules = _RULES.replace("{jump}", "jump prerouting_miniupnpd" if self.options["honest"] else "")
        self.host.run("nft", "-f", "-", input=rules)
        self._starts += 1
        leases = self.host.folder / "leases"
        leases.write_text("")
        config = self.host.folder / "miniupnpd.conf"
        config.write_text(self._config())
        log = f"miniupnpd-{self._starts}"
        self.process = self.host.spawn("miniupnpd", "-d", "-f", str(config), "-P", f"{config}.pid", log=log)
        wait_until("miniupnpd listens", self._listening, 20)

    def stop(self) -> None:
        """End miniupnpd; its mappings stay in force, as no router would have it: see `restart`."""
        if self.process is not None:
            self.process.stop()

    def restart(self) -> None:
        """As if its power had been cut: all mappings and connections are forgotten."""
        self.stop()
        self.start()

    def mappings(self) -> list[str]:
        """The rules in force that let packets in, as nft shows them."""
        shown = self.host.run("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd").stdout
        return [line.strip() for line in shown.splitlines() if "dnat" in line]

    def drop_mappings(self) -> None:
        """Take all mappings away behind miniupnpd's back: it still says that they are there."""
        self.host.run("nft", "flush", "chain", "inet", "filter", "prerouting_miniupnpd")

    def _config(self) -> str:
        options, says = self.options, self.options["says"]
        return _CONFIG.format(
            upnp="yes" if options["upnp"] else "no",
            natpmp="yes" if options["natpmp"] else "no",
            lifetime=options["lifetime"],
            allow="allow" if options["allowed"] else "deny",
            folder=self.host.folder,
            more=f"ext_ip={says}" if says else "",
        )

    def _listening(self) -> bool:
        assert self.process is not None
        if not self.process.alive:
            raise PlatformError(f"miniupnpd ended with status {self.process.status}:\n{self.process.tail()}")
        text = self.process.tail(20000)
        return (not self.options["natpmp"] or "NAT-PMP" in text) and (not self.options["upnp"] or "HTTP" in text)
