"""Links, addresses and routes over netlink, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import os
import subprocess
import sys
from ipaddress import IPv4Interface, IPv4Network

import pytest

from n2n import net
from n2n.errors import NetlinkError
from n2n.net import link
from n2n.net.tap import Tap
from n2n.types import MacAddress

from . import own_namespace

LACKING = own_namespace.missing()
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(LACKING), reason=LACKING)]

MAC = MacAddress.parse("0a:68:97:74:d5:44")
ADDRESS = IPv4Interface("10.171.51.7/24")


@pytest.fixture(autouse=True)
def namespace():
    with own_namespace.entered():
        yield


@pytest.fixture
def tap():
    with Tap.open("t0") as opened:
        yield opened


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def ipv4(name: str) -> list[str]:
    return [str(address) for address in link.link_info(name).addresses if address.version == 4]


def test_everything_at_once(tap):
    link.configure("t0", mac=MAC, address=ADDRESS, mtu=1420)
    info = link.link_info("t0")
    assert (info.mac, info.mtu, info.up, info.carrier) == (MAC, 1420, True, True)
    assert ipv4("t0") == ["10.171.51.7/24"]
    assert "inet 10.171.51.7/24 brd 10.171.51.255" in ip("address", "show", "t0")
    assert "10.171.51.0/24 dev t0" in ip("route")


def test_again_changes_nothing_and_asks_for_nothing(tap, monkeypatch):
    link.configure("t0", mac=MAC, address=ADDRESS, mtu=1420)
    before = ip("-d", "address", "show", "t0")
    requests = []
    monkeypatch.setattr(
        link, "_changes", lambda *args, real=link._changes: requests.append(real(*args)) or requests[-1]
    )
    link.configure("t0", mac=MAC, address=ADDRESS, mtu=1420)
    assert requests == [{}]
    assert ip("-d", "address", "show", "t0") == before


def test_mac_changes_while_the_device_is_up(tap):
    link.interface_up("t0")
    link.configure("t0", mac=MAC)
    assert link.link_info("t0").mac == MAC
    assert link.link_info("t0").up


def test_without_up_it_stays_down(tap):
    link.configure("t0", mtu=1400, up=False)
    assert not link.link_info("t0").up
    link.interface_up("t0")
    assert link.link_info("t0").up
    link.interface_down("t0")
    link.interface_down("t0")
    assert not link.link_info("t0").up


def test_a_new_address_beside_or_instead_of_the_old_one(tap):
    link.configure("t0", address=ADDRESS)
    other = IPv4Interface("10.171.51.9/24")
    link.configure("t0", address=other)
    assert ipv4("t0") == ["10.171.51.7/24", "10.171.51.9/24"]
    link.configure("t0", address=other, exclusive=True)
    assert ipv4("t0") == ["10.171.51.9/24"]


def test_exclusive_without_an_address_removes_all_ipv4(tap):
    link.configure("t0", address=ADDRESS)
    link.configure("t0", exclusive=True)
    assert ipv4("t0") == []


def test_remove_address_tells_whether_it_was_there(tap):
    link.configure("t0", address=ADDRESS)
    assert link.remove_address("t0", ADDRESS)
    assert not link.remove_address("t0", ADDRESS)
    assert ipv4("t0") == []


def test_point_to_point_prefix_has_no_broadcast_address(tap):
    link.configure("t0", address=IPv4Interface("10.0.0.0/31"))
    assert "brd" not in ip("-4", "address", "show", "t0").split("inet", 1)[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mac": MacAddress.parse("01:00:5e:00:00:01")}, "group address"),
        ({"mtu": 10}, "mtu 10, .*out of the range"),
        ({"mtu": 1 << 20}, "out of the range"),
    ],
)
def test_refused_values_are_named(tap, change, says):
    with pytest.raises(NetlinkError, match=says) as caught:
        link.configure("t0", **change)
    assert "t0" in str(caught.value)


@pytest.mark.parametrize(
    "use",
    [
        link.interface_up,
        link.interface_down,
        link.link_info,
        lambda name: link.configure(name, mac=MAC),
        lambda name: link.remove_address(name, ADDRESS),
    ],
)
def test_no_such_interface(use):
    with pytest.raises(NetlinkError, match=r"'none0': no such device. There is no such interface"):
        use("none0")


def test_an_ordinary_user_is_told_what_right_is_missing(tap):
    program = (
        "import os, pyroute2\n"
        "from n2n.errors import NetlinkError\n"
        "from n2n.net import link\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    link.configure('t0', mtu=1400)\n"
        "except NetlinkError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "cannot set mtu 1400, state up on t0: operation not permitted. Run as root" in said


@pytest.mark.parametrize("policy", ["asyncio", "uvloop"])
def test_works_inside_a_running_loop_of_either_kind(tap, policy):
    async def main():
        link.configure("t0", mtu=1300)
        await asyncio.to_thread(link.configure, "t0", mtu=1310)
        with pytest.raises(NetlinkError):
            link.link_info("none0")

    if policy == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
    assert link.link_info("t0").mtu == 1310


def test_works_where_uvloop_is_the_policy(tap):
    # In a process of its own: a policy is global, and deprecated in newer Pythons.
    program = (
        "import asyncio, uvloop\n"
        "from n2n.net import link\n"
        "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
        "link.configure('t0', mtu=1234)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], check=True)
    assert link.link_info("t0").mtu == 1234


def test_no_descriptor_is_left_open(tap):
    link.configure("t0", address=ADDRESS)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        link.configure("t0", address=ADDRESS)
        with pytest.raises(NetlinkError):
            link.link_info("none0")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", ["tap", "link", "arp"])
def test_the_examples_in_docstrings_hold(name):
    module = importlib.import_module(f"n2n.net.{name}")
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0


def test_every_public_function_of_net_has_an_example():
    functions = [getattr(net, name) for name in net.__all__ if inspect.isfunction(getattr(net, name))]
    assert [function.__name__ for function in functions if ">>> " not in inspect.getdoc(function)] == []


def clashes(network: str, **options) -> list[str]:
    return link.routes_clashing(IPv4Network(network), **options)


def test_clash_with_the_network_of_an_interface(tap):
    link.configure("t0", address=ADDRESS)
    assert clashes("10.171.51.0/24") == ["10.171.51.0/24 on t0"]
    assert clashes("10.171.51.128/25") == ["10.171.51.0/24 on t0"]
    assert clashes("10.171.0.0/16") == ["10.171.51.0/24 on t0"]
    assert clashes("10.171.52.0/24") == []
    assert clashes("10.171.51.0/24", ignore={"t0"}) == []


def test_clash_with_a_route(tap):
    link.configure("t0", address=ADDRESS)
    ip("route", "add", "10.20.0.0/16", "via", "10.171.51.1")
    ip("route", "add", "blackhole", "10.30.0.0/16")
    assert clashes("10.20.30.0/24") == ["10.20.0.0/16 via 10.171.51.1 dev t0"]
    assert clashes("10.30.30.0/24") == ["10.30.0.0/16"]


def test_default_routes_do_not_clash_even_in_pieces(tap):
    link.configure("t0", address=ADDRESS)
    for target in ("default", "0.0.0.0/1", "8.0.0.0/5"):
        ip("route", "add", target, "via", "10.171.51.1")
    assert clashes("10.20.30.0/24") == []
    ip("route", "add", "10.0.0.0/8", "via", "10.171.51.1")
    assert clashes("10.20.30.0/24") == ["10.0.0.0/8 via 10.171.51.1 dev t0"]
