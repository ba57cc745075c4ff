"""The relay of a supernode by itself: its data plane, with members that are given on the command line.

    python benchmarks/bare_relay.py PORT GROUP,MAC,ADDRESS,PORT ... [--threads 2] [--no-gso] [--no-gro]

Nobody has to register, so that a benchmark can send whatever it likes from plain sockets. Runs until it is ended.
"""

from __future__ import annotations

import argparse
import socket
import threading

from n2n.daemon.dataplane import add_queues, compiled_plane, socket_count
from n2n.net import open_udp_group

BUFFER = 2 << 20  # as a supernode's default


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("port", type=int)
    options.add_argument("members", nargs="+", help="GROUP,MAC,ADDRESS,PORT")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--no-gso", action="store_true")
    options.add_argument("--no-gro", action="store_true")
    asked = options.parse_args()
    sockets = open_udp_group(f"0.0.0.0:{asked.port}", socket_count(asked.threads), buffer_size=BUFFER)
    own = [one.fileno() for one in sockets[: asked.threads]]
    plane = compiled_plane("supernode", own, gso=not asked.no_gso, gro=not asked.no_gro)
    add_queues(plane, sockets, asked.threads)
    thread = threading.Thread(target=plane.run)
    thread.start()
    for member in asked.members:
        group, mac, address, port = member.split(",")
        plane.put_member(int(group) + 1, int(group), bytes.fromhex(mac), socket.inet_aton(address), int(port))
    print("ready", flush=True)
    thread.join()


if __name__ == "__main__":
    main()
