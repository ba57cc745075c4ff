"""Real TAP devices, in a network namespace of the test's own."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys

import pytest

from n2n.errors import TapError
from n2n.net import arp, link
from n2n.net.tap import VNET_HEADER_SIZE, Tap
from n2n.types import MacAddress

from . import own_namespace

LACKING = own_namespace.missing()
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(LACKING), reason=LACKING)]

MAC = MacAddress.parse("0a:68:97:74:d5:44")


@pytest.fixture(autouse=True)
def namespace():
    with own_namespace.entered():
        yield


def quiet(name: str) -> None:
    """No IPv6 on the interface, so that the kernel sends nothing of its own."""
    with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as switch:
        switch.write("1")


def next_frame(tap: Tap) -> bytes:
    assert select.select([tap.fd], [], [], 5)[0], "no frame came"
    frame = tap.read()
    assert frame is not None
    return frame


def test_a_device_lives_as_long_as_its_descriptor():
    with Tap.open("t0") as tap:
        info = link.link_info("t0")
        assert (info.name, info.kind, info.up, info.carrier) == ("t0", "tun", False, False)
        assert (tap.name, tap.current_name(), tap.vnet_hdr) == ("t0", "t0", False)
        assert not os.get_blocking(tap.fd)
        assert not os.get_inheritable(tap.fd)
    assert "t0" not in [name for _, name in socket.if_nameindex()]


def test_the_kernel_fills_in_a_free_number():
    with Tap.open("n2n%d") as first, Tap.open("n2n%d") as second:
        assert (first.name, second.name) == ("n2n0", "n2n1")


def test_frames_pass_both_ways():
    with Tap.open("t0") as tap:
        link.configure("t0", mac=MAC)
        quiet("t0")
        while tap.read() is not None:
            pass
        arp.send_gratuitous_arp("t0", MAC, link.IPv4Interface("10.1.2.3/24").ip)
        assert next_frame(tap) == arp.gratuitous_arp(MAC, link.IPv4Interface("10.1.2.3/24").ip)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as listener:
            listener.bind(("t0", 0x88B5))
            listener.settimeout(5)
            frame = MAC.raw + bytes.fromhex("020000000001 88b5") + bytes(range(50))
            assert tap.write(frame)
            assert listener.recv(2000) == frame


def test_a_virtio_header_stands_before_each_frame_when_asked_for():
    with Tap.open("t0", vnet_hdr=True) as tap:
        link.configure("t0", mac=MAC)
        quiet("t0")
        while tap.read() is not None:
            pass
        arp.send_gratuitous_arp("t0", MAC, link.IPv4Interface("10.1.2.3/24").ip)
        frame = next_frame(tap)
        assert len(frame) == VNET_HEADER_SIZE + arp.FRAME_SIZE
        assert tap.vnet_hdr


def test_several_queues_of_one_device():
    with Tap.open("t0", multi_queue=True) as first, Tap.open("t0", multi_queue=True) as second:
        assert first.name == second.name == "t0"
        assert first.fd != second.fd
    with Tap.open("t0"), pytest.raises(TapError, match="other settings"):
        Tap.open("t0", multi_queue=True)


def test_a_name_in_use_names_its_holder():
    with Tap.open("t0"), pytest.raises(TapError, match="choose another tap_name") as caught:
        Tap.open("t0")
    assert f"held by process {os.getpid()} " in str(caught.value)


def test_a_name_of_another_kind_of_interface():
    with pytest.raises(TapError, match="no TAP device"):
        Tap.open("lo")


def test_a_down_device_says_bring_it_up():
    with Tap.open("t0") as tap, pytest.raises(TapError, match="bring it up"):
        tap.write(bytes(60))


def test_a_runt_frame_is_refused():
    with Tap.open("t0") as tap:
        link.interface_up("t0")
        with pytest.raises(TapError, match=r"cannot write 5 bytes: .*shorter than an Ethernet header"):
            tap.write(bytes(5))


def test_a_deleted_device_says_open_it_again():
    with Tap.open("t0") as tap:
        subprocess.run(["ip", "link", "delete", "t0"], check=True)
        with pytest.raises(TapError, match="open it again"):
            tap.write(bytes(60))
        with pytest.raises(TapError, match="open it again"):
            tap.read()
        with pytest.raises(TapError, match="Was it deleted"):
            tap.current_name()


def test_a_renamed_device_knows_its_new_name():
    with Tap.open("t0") as tap:
        subprocess.run(["ip", "link", "set", "t0", "name", "other0"], check=True)
        assert (tap.name, tap.current_name()) == ("t0", "other0")


def test_a_persistent_device_survives_and_can_be_opened_again():
    subprocess.run(["ip", "tuntap", "add", "dev", "keep0", "mode", "tap"], check=True)
    index = link.link_info("keep0").index
    for _ in range(2):
        with Tap.open("keep0"):
            assert link.link_info("keep0").index == index
    assert link.link_info("keep0").index == index


def test_an_ordinary_user_is_told_what_right_is_missing():
    # The child opens the device as nobody; the import path goes along because it may not be able to read ours.
    program = (
        "import os\n"
        "from n2n.errors import TapError\n"
        "from n2n.net.tap import Tap\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    Tap.open('t0')\n"
        "except TapError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "CAP_NET_ADMIN" in said
    assert "run as root" in said
