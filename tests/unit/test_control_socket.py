"""The control socket: questions and answers, and everything a client can do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from n2n.api import control
from n2n.api.client import AccessDenied, CallFailed, Client, NotRunning, choose_edge, connect, live_instances
from n2n.api.control import AlreadyRunning, ControlServer
from n2n.api.instances import instances, run_dir, search_dirs, socket_path
from n2n.cli.exits import code_of
from n2n.config import default_run_dir
from n2n.daemon.runtime import Listeners
from n2n.errors import ConfigError, LocalProtocolError, NotReady, PlatformError
from tests.unit.daemon_fakes import until


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("N2N_RUN_DIR", str(tmp_path))
    return tmp_path


async def echo(params: Mapping[str, Any]) -> object:
    return dict(params)


def raises(error: Exception) -> control.Method:
    async def method(_: Mapping[str, Any]) -> object:
        raise error

    return method


METHODS: dict[str, control.Method] = {
    "echo": echo,
    "config": raises(ConfigError("no such thing")),
    "unready": raises(NotReady("not yet")),
    "slow": raises(TimeoutError()),
    "broken": raises(LocalProtocolError("cannot")),
    "bug": raises(ZeroDivisionError("secret detail")),
}


def serve(folder: Path, talk: Callable[[Path], Any], name: str = "tap0", listeners: Listeners | None = None) -> Any:
    """Run a server, and `talk` in a thread beside it."""

    async def main() -> Any:
        server = ControlServer(folder / f"{name}.sock", METHODS, listeners or Listeners())
        await server.start()
        try:
            return await asyncio.wait_for(asyncio.to_thread(talk, server.path), 20)
        finally:
            await server.close()

    return asyncio.run(main())


def raw(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines, hang up, and read what came back."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b"".join(lines))
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answers:
            return [json.loads(line) for line in answers]


def test_a_question_is_answered(folder: Path) -> None:
    def talk(path: Path) -> None:
        with Client(path) as client:
            assert client.call("echo", name="x", n=1) == {"name": "x", "n": 1}
            assert client.call("echo") == {}

    serve(folder, talk)


def test_the_wire_format(folder: Path) -> None:
    lines = (b'{"id": 7, "method": "echo"}\n', b'{"id": "a", "method": "nope"}\n')
    first, second = serve(folder, lambda path: raw(path, *lines))
    assert first == {"id": 7, "result": {}}
    assert second["id"] == "a"
    assert second["error"]["code"] == "unknown_method"
    assert "echo" in second["error"]["message"]


@pytest.mark.parametrize(
    ("method", "code", "text"),
    [
        ("config", "bad_request", "no such thing"),
        ("unready", "not_ready", "not yet"),
        ("slow", "timed_out", "in time"),
        ("broken", "failed", "cannot"),
        ("bug", "failed", "internal error"),
        ("nope", "unknown_method", "nope"),
    ],
)
def test_errors_have_codes(folder: Path, method: str, code: str, text: str) -> None:
    def talk(path: Path) -> CallFailed:
        with Client(path) as client, pytest.raises(CallFailed) as caught:
            client.call(method)
        return caught.value

    error = serve(folder, talk)
    assert error.code == code
    assert text in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "line",
    [b"\n", b"hello\n", b"[1]\n", b'{"id": 1}\n', b'{"id": [1], "method": "echo"}\n', b'{"method": 3}\n', b"\xff\xfe\n",
     b'{"id": 1, "method": "echo", "params": [1]}\n', b"[" * 16000 + b"\n"],
)  # fmt: skip
def test_nonsense_is_refused_and_the_next_question_answered(folder: Path, line: bytes) -> None:
    bad, good = serve(folder, lambda path: raw(path, line, b'{"id": 2, "method": "echo"}\n'))
    assert bad["error"]["code"] == "bad_request"
    assert good == {"id": 2, "result": {}}


def test_requests_are_bounded(folder: Path) -> None:
    answers = serve(folder, lambda path: raw(path, b'{"id": 1, "method": "' + b"x" * control.MAX_REQUEST + b'"}\n'))
    assert [answer["error"]["code"] for answer in answers] == ["too_large"]


def test_clients_are_bounded(folder: Path) -> None:
    def talk(path: Path) -> str:
        clients = [Client(path) for _ in range(control.MAX_CLIENTS)]
        for client in clients:
            client.call("echo")
        with Client(path) as late, pytest.raises(CallFailed) as caught:
            late.call("echo")
        for client in clients:
            client.close()
        return caught.value.code

    assert serve(folder, talk) == "busy"


def test_idle_clients_are_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_TIMEOUT", 0.05)

    def talk(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            return sock.recv(1)

    assert serve(folder, talk) == b""


def test_what_a_client_does_not_read_is_thrown_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_TIMEOUT", 0.05)
    size, asked = 16 * 1024 * 1024, asyncio.Event()

    async def large(_: Mapping[str, Any]) -> object:
        asked.set()
        return "x" * size

    async def main() -> int:
        server = ControlServer(folder / "tap0.sock", {"large": large}, Listeners())
        await server.start()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(server.path))
            sock.sendall(b'{"method":"large"}\n')
            await asked.wait()
            await until(lambda: not server._clients)
            taken = await asyncio.wait_for(asyncio.to_thread(_read_all, sock), 20)
        await server.close()
        return taken

    assert asyncio.run(main()) < size


def test_a_client_that_does_not_read_does_not_hold_up_the_end(folder: Path) -> None:
    asked = asyncio.Event()

    async def large(_: Mapping[str, Any]) -> object:
        asked.set()
        return "x" * (16 * 1024 * 1024)

    async def main() -> None:
        server = ControlServer(folder / "tap0.sock", {"large": large}, Listeners())
        await server.start()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(server.path))
            sock.sendall(b'{"method":"large"}\n')
            await asked.wait()
            await asyncio.sleep(0)
            await asyncio.wait_for(server.close(), control.IDLE_TIMEOUT / 2)

    asyncio.run(main())


def _read_all(sock: socket.socket) -> int:
    taken = 0
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(1 << 20):
            taken += len(piece)
    return taken


def test_events_stream_and_say_what_was_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_WAITING", 3)
    listeners = Listeners()

    async def main() -> list[dict[str, Any]]:
        server = ControlServer(folder / "tap0.sock", METHODS, listeners)
        await server.start()
        client = await asyncio.to_thread(Client, server.path)
        events = client.events()
        waiting = asyncio.get_running_loop().run_in_executor(None, next, events)
        await until(lambda: listeners._listeners)
        for number in range(5):  # before the forwarder gets a turn
            listeners.tell({"event": "e", "fields": {"n": number}})
        got = [await waiting]
        for _ in range(2):
            got.append(await asyncio.to_thread(next, events))
        listeners.tell({"event": "e", "fields": {"n": 9}})
        got.append(await asyncio.to_thread(next, events))
        client.close()
        await until(lambda: not listeners._listeners)
        await server.close()
        return got

    got = asyncio.run(asyncio.wait_for(main(), 20))
    assert [line["event"]["fields"]["n"] for line in got] == [0, 1, 2, 9]
    assert sum(line["missed"] for line in got) == 2


def test_events_end_with_the_daemon(folder: Path) -> None:
    async def main() -> list[Any]:
        listeners = Listeners()
        server = ControlServer(folder / "tap0.sock", METHODS, listeners)
        await server.start()
        client = await asyncio.to_thread(Client, server.path)
        reading = asyncio.get_running_loop().run_in_executor(None, lambda: list(client.events()))
        await until(lambda: listeners._listeners)
        await server.close()
        got = await reading
        client.close()
        return got

    assert asyncio.run(asyncio.wait_for(main(), 20)) == []


def test_only_one_daemon_has_a_name(folder: Path) -> None:
    async def main() -> None:
        first = ControlServer(folder / "tap0.sock", METHODS, Listeners())
        await first.start()
        with pytest.raises(AlreadyRunning, match="tap0 is already running"):
            await ControlServer(folder / "tap0.sock", METHODS, Listeners()).start()
        other = ControlServer(folder / "tap1.sock", METHODS, Listeners())
        await other.start()
        await other.close()
        await first.close()
        again = ControlServer(folder / "tap0.sock", METHODS, Listeners())
        await again.start()
        await again.close()

    asyncio.run(main())
    assert not (folder / "tap0.sock").exists()


def test_the_socket_of_a_dead_daemon_is_replaced(folder: Path) -> None:
    script = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom n2n.api.control import ControlServer\n"
        "from n2n.daemon.runtime import Listeners\n"
        "async def main():\n    await ControlServer(Path(sys.argv[1]), {}, Listeners()).start()\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    path = folder / "tap0.sock"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script, str(path)], env=env, check=False).returncode == -9
    assert path.exists()
    with pytest.raises(NotRunning):
        Client(path)
    assert serve(folder, lambda where: len(raw(where, b'{"id": 1, "method": "echo"}\n'))) == 1


def test_the_socket_is_for_owner_and_group(folder: Path) -> None:
    mode = serve(folder, lambda path: stat.S_IMODE(path.stat().st_mode))
    assert mode == 0o660


def test_a_directory_that_cannot_be_made(folder: Path) -> None:
    (folder / "file").write_text("")
    server = ControlServer(folder / "file" / "tap0.sock", METHODS, Listeners())
    with pytest.raises(PlatformError, match="N2N_RUN_DIR"):
        asyncio.run(server.start())


def test_nobody_there(folder: Path) -> None:
    with pytest.raises(NotRunning, match="n2n edge up --tap-name tap7"):
        connect("tap7")
    with pytest.raises(NotRunning, match="n2n supernode serve"):
        connect("supernode")


def test_a_daemon_that_ends_while_asked(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "tap0.sock"))
        listening.listen()
        client = Client(folder / "tap0.sock")
        listening.accept()[0].close()
        with pytest.raises(NotRunning):
            client.call("status")
        client.close()


@pytest.mark.parametrize("answer", [b"no json\n", b"[" * 100_000 + b"\n", b'"\xff"\n', b"[]\n"])
def test_whoever_answers_something_else_is_no_daemon(folder: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "tap0.sock"))
        listening.listen()
        with Client(folder / "tap0.sock") as client, listening.accept()[0] as there:
            there.sendall(answer)
            with pytest.raises(CallFailed, match="is it a daemon of n2n"):
                client.call("status")


def test_a_directory_that_may_not_be_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(PlatformError, match="Run as root") as caught:
        instances()
    assert code_of(caught.value) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_told_what_to_do(folder: Path) -> None:
    folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "tap0.sock"))
        (folder / "tap0.sock").chmod(0o660)
        listening.listen()
        for parent in folder.parents[:-1]:
            if parent != Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            with pytest.raises(AccessDenied, match="group"):
                Client(folder / "tap0.sock")
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def test_which_edge_is_meant(folder: Path) -> None:
    with pytest.raises(NotRunning, match="no edge is running"):
        choose_edge(None)
    assert choose_edge("tap5") == "tap5"
    listening = []
    for name in ("supernode", "tap0", "dead"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(folder / f"{name}.sock"))
        sock.listen()
        listening.append(sock)
    listening.pop().close()
    assert sorted(instances()) == ["dead", "supernode", "tap0"]
    assert sorted(live_instances()) == ["supernode", "tap0"]
    assert choose_edge(None) == "tap0"
    (folder / "dead.sock").unlink()
    extra = socket.socket(socket.AF_UNIX)
    extra.bind(str(folder / "tap1.sock"))
    extra.listen()
    with pytest.raises(ConfigError, match="tap0, tap1"):
        choose_edge(None)
    for sock in (*listening, extra):
        sock.close()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConfigError):
        socket_path(name)


def test_paths_that_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N2N_RUN_DIR", "/tmp/" + "x" * 100)
    with pytest.raises(ConfigError, match="N2N_RUN_DIR"):
        socket_path("tap0")


def test_where_sockets_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("N2N_RUN_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_dir() == default_run_dir() == Path("/run/n2n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert run_dir() == default_run_dir() == Path("/run/user/1000/n2n")
    assert search_dirs() == (Path("/run/user/1000/n2n"), Path("/run/n2n"), Path("/run/n2n-supernode"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/n2n-supernode:/run/more")
    assert run_dir() == default_run_dir() == Path("/run/n2n-supernode")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert run_dir() == default_run_dir() == Path("/tmp/n2n-1000")
