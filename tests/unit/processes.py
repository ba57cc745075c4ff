"""Daemons as processes of their own, started as a user starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ENV = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}


class Process:
    """``python -m n2n ...``, and a socket on which systemd would listen."""

    def __init__(self, folder: Path, *args: str, prefix: tuple[str, ...] = (), **variables: str) -> None:
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(folder / "notify"))
        self.systemd.settimeout(20)
        env = os.environ | ENV | {"NOTIFY_SOCKET": str(folder / "notify"), "N2N_RUN_DIR": str(folder)} | variables
        self.log = (folder / "log").open("w+")
        self.popen = subprocess.Popen([*prefix, sys.executable, "-m", "n2n", *args], env=env, stderr=self.log)

    def told(self) -> str:
        return self.systemd.recv(4096).decode()

    def text(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self.log.close()
        self.systemd.close()
