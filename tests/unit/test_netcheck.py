"""`n2n netcheck`: what answers mean, and answers that are none."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest

import n2n
from n2n.cli import netcheck as command
from n2n.cli.main import main
from n2n.net.portmap import Cause
from n2n.netcheck.asker import Asker
from n2n.netcheck.report import Method, PathMtu, Report, _ask, _measure
from n2n.netcheck.verdicts import Filtering, Mapping, Seen, double_nat, judge
from n2n.types import SUPERNODE_MAC, Endpoint
from n2n.wire import FLAG_SUPERNODE, PacketType, ProtoV, SNPublicSecret, Where, build, parse

INSIDE = Endpoint.parse("10.1.0.2:5000")
OUTSIDE = Endpoint.parse("44.128.0.1:5000")
MOVED = Endpoint.parse("44.128.0.1:6000")


@pytest.mark.parametrize(
    ("main_port", "second", "unasked", "mapping", "filtering", "kind"),
    [
        (INSIDE, INSIDE, True, Mapping.NONE, Filtering.LOOSE, "no NAT"),
        (INSIDE, INSIDE, False, Mapping.NONE, Filtering.STRICT, "no NAT, but a firewall that lets only answers in"),
        (INSIDE, None, None, Mapping.NONE, Filtering.UNKNOWN, "no NAT"),
        (OUTSIDE, OUTSIDE, True, Mapping.SAME, Filtering.LOOSE, "a full-cone or address-restricted NAT"),
        (OUTSIDE, OUTSIDE, False, Mapping.SAME, Filtering.STRICT, "a port-restricted NAT"),
        (OUTSIDE, MOVED, False, Mapping.DIFFERENT, Filtering.STRICT, "a symmetric NAT"),
        (OUTSIDE, None, None, Mapping.UNKNOWN, Filtering.UNKNOWN, "a NAT of unknown kind"),
        (None, None, None, Mapping.UNKNOWN, Filtering.UNKNOWN, "unknown"),
    ],
)
def test_what_the_answers_mean(
    main_port: Any, second: Any, unasked: Any, mapping: Mapping, filtering: Filtering, kind: str
) -> None:
    nat = judge(Seen(INSIDE, main_port, second, unasked))
    assert (nat.mapping, nat.filtering, nat.kind) == (mapping, filtering, kind)
    assert nat.port_preserved is (None if main_port is None else True)
    assert bool(nat.unknown) is not (mapping is Mapping.NONE and filtering is not Filtering.UNKNOWN)


@pytest.mark.parametrize(
    ("router", "seen", "says"),
    [
        (None, OUTSIDE, ""), ("44.128.0.1", OUTSIDE, ""), ("44.128.0.1", None, ""), ("44.128.0.1", INSIDE, ""),
        ("192.168.1.1", OUTSIDE, "private"), ("100.64.0.1", None, "carrier-grade"), ("44.128.0.9", OUTSIDE, "sees"),
    ],
)  # fmt: skip
def test_double_nat_is_seen(router: str | None, seen: Endpoint | None, says: str) -> None:
    found = double_nat(IPv4Address(router) if router else None, seen)
    assert (says in found) if says else found == ""


# ---- questions on loopback ----------------------------------------------------------------------


@contextmanager
def supernode(answer: Callable[[bytes, tuple[str, int]], list[bytes]]) -> Iterator[Endpoint]:
    """Something on loopback that answers as `answer` says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    question, sender = sock.recvfrom(65535)
                except TimeoutError:
                    continue
                for datagram in answer(question, sender):
                    sock.sendto(datagram, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint.of_sockaddr(sock.getsockname())
        finally:
            stop.set()
            thread.join()


def told(message: SNPublicSecret) -> bytes:
    return build(ProtoV(PacketType.SN_PUBLIC_SECRET, source=SUPERNODE_MAC, flags=FLAG_SUPERNODE), message)


def where_of(question: bytes) -> Where:
    message = parse(question).message
    assert isinstance(message, SNPublicSecret)
    return Where.unpack(message.n2n)


def honest(question: bytes, sender: tuple[str, int]) -> bytes:
    where = Where(where_of(question).token, answer=True, observed=Endpoint.of_sockaddr(sender))
    return told(SNPublicSecret(n2n=where.pack()))


def asked(endpoint: Endpoint, **more: Any) -> Any:
    with Asker(endpoint, tries=2, wait=0.2) as asker:
        return asker.ask(**more), asker


def test_an_answer_behind_others_that_are_none_is_taken() -> None:
    def answer(question: bytes, sender: tuple[str, int]) -> list[bytes]:
        lie = Where(bytes(8), answer=True, observed=OUTSIDE)
        echo = where_of(question)
        return [
            b"", b"nonsense" * 200, question, told(SNPublicSecret(n2n=lie.pack())), told(SNPublicSecret(n2n=b"\1")),
            told(SNPublicSecret(n2n=echo.pack())), honest(question, sender),
        ]  # fmt: skip

    with supernode(answer) as endpoint:
        reply, asker = asked(endpoint)
    assert reply.observed.port == asker._sock.getsockname()[1] if asker._sock.fileno() >= 0 else reply.observed
    assert reply.port == endpoint.port


def test_a_flood_of_nonsense_is_no_answer() -> None:
    with supernode(lambda *_: [b"nonsense"] * 300) as endpoint:
        assert asked(endpoint)[0] is None


def test_a_v5_supernode_answers_with_its_key_and_tells_no_endpoint() -> None:
    report = Report("v5")
    with supernode(lambda *_: [told(SNPublicSecret(pem_data=b"PEM"))]) as endpoint:
        _ask(report, endpoint, "", None)
    assert (report.kind, report.public, report.problem) == ("v5", None, "")
    assert report.nat is not None
    assert report.nat.mapping is Mapping.UNKNOWN


def test_nobody_there_is_told_from_silence() -> None:
    with supernode(lambda *_: []) as endpoint:
        silent = Report("silent")
        _ask(silent, endpoint, "", None)
    assert "UDP is blocked" in silent.problem
    refused = Report("refused")
    _ask(refused, endpoint, "", None)  # nobody listens there any more
    assert "no supernode runs there" in refused.problem


@pytest.mark.parametrize("size", [200, 500, 576, 1279, 1280, 1500, 9000])
def test_questions_are_as_large_as_asked_for(size: int) -> None:
    with Asker(Endpoint.parse("127.0.0.1:1")) as asker:
        question = asker._question(Where(bytes(8)), size)
    assert len(question) + 28 == size
    assert where_of(question).token == bytes(8)


@pytest.mark.parametrize("largest", [576, 1000, 1280, 1399, 1500])
def test_the_largest_packet_that_is_answered_is_found(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Asker, "known_mtu", lambda _: 1500)
    monkeypatch.setattr("n2n.netcheck.report._PROBE_WAIT", 0.06)

    def answer(question: bytes, sender: tuple[str, int]) -> list[bytes]:
        return [honest(question, sender)] if len(question) + 28 <= largest else []

    with supernode(answer) as endpoint:
        found = _measure(endpoint, "", endpoint.port)
    assert found == PathMtu(1500, largest, exact=largest < 1500)


def test_a_real_supernode_tells_it_all() -> None:
    async def story() -> Report:
        async with n2n.Supernode(listen_address="127.0.0.1:0", state_dir=None) as node:
            report = Report("here")
            await asyncio.to_thread(_ask, report, Endpoint.of("127.0.0.1", node.local.port), "", None)
            return report

    report = asyncio.run(story())
    assert report.nat is not None
    assert report.endpoint is None, "which is for others to fill"
    assert (report.kind, report.nat.kind) == ("n2n", "no NAT")
    assert report.nat.filtering is Filtering.LOOSE
    assert report.probe_port is not None
    assert report.mtu is not None
    assert (report.mtu.found or 0) >= 9000


# ---- the command --------------------------------------------------------------------------------


def shown(report: Report) -> dict[str, Any]:
    return command._told(report, [])


def test_the_verdict_names_the_remedy() -> None:
    report = Report("sn:7777", problem="no answer from x", remedy="Do this")
    assert (shown(report)["verdict"], shown(report)["remedies"], shown(report)["udp"]) == (
        "no answer from x", ["Do this"], False,
    )  # fmt: skip
    report = Report("sn:7777", kind="n2n", nat=judge(Seen(INSIDE, OUTSIDE, MOVED, False)), public=OUTSIDE)
    report.methods = [Method("upnp", False, None, "no router answers", "x")]
    assert "symmetric" in shown(report)["verdict"]
    assert shown(report)["remedies"] == [Cause.SILENT.value]
    report.methods = [Method("pcp", True, IPv4Address("44.128.0.1"), "", "")]
    assert "maps ports" in shown(report)["verdict"]
    assert shown(report)["remedies"] == []
    report.double_nat = "two of them"
    assert "luck" in shown(report)["verdict"]
    assert shown(report)["remedies"] == [Cause.DOUBLE_NAT.value]
    json.dumps(shown(report))


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("sn:7777", Endpoint.parse("192.0.2.1:7777"), kind="n2n", rtt=0.01, local=INSIDE, public=OUTSIDE)
    report.nat = judge(Seen(INSIDE, OUTSIDE, OUTSIDE, False))
    report.mtu = PathMtu(1500, 1400, exact=True)
    report.router = "10.1.0.1"
    report.methods = [Method("upnp", False, None, "no router answers", "x")]

    async def check(*_: Any, **__: Any) -> Report:
        return report

    monkeypatch.setattr("n2n.netcheck.check", check)
    assert main(["netcheck", "--supernode", "sn:7777"]) == 0
    text = capsys.readouterr().out
    for word in ("a port-restricted NAT", "1400 bytes (the kernel believes in 1500)", "not known: whether", "to do:"):
        assert word in text
    report.kind = None
    assert main(["netcheck", "--supernode", "sn:7777", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["udp"] is False
    assert main(["netcheck", "--supernode", "sn:7777", "--config", "x.yaml"]) == 2
    assert "give one of them" in capsys.readouterr().err
