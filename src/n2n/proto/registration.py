"""How an edge comes to be registered, and comes to be so again: a table of states, and its delays.

Protocol v5 sends each question of this conversation once and gives up.  Here every question is repeated
with growing delays until the edge is closed, a refusal included: a supernode that comes back, or makes up its mind,
finds the edge still asking.

The table decides; :class:`~n2n.proto.edge.EdgeCore` does what it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from n2n.errors import MalformedDatagram
from n2n.proto.pacing import Backoff, Pace
from n2n.types import Instant
from n2n.wire import RegisterResponse

__all__ = [
    "ADDRESS_RANGES",
    "Do",
    "EdgeState",
    "Registration",
    "RegistrationView",
    "Trigger",
    "check_address",
]


class EdgeState(Enum):
    """How far an edge has got."""

    IDLE = "idle"
    """Made, not started."""
    RESOLVING = "resolving"
    """The supernode's address is not known yet."""
    KEY = "key"
    """The supernode was asked for its public key."""
    REGISTERING = "registering"
    """The machine id was sent, the answer is awaited."""
    REGISTERED = "registered"
    REFUSED = "refused"
    """The supernode said no (v5 gives no reason), or gave an address that makes no sense; to be tried again, slowly."""
    CLOSED = "closed"


class Trigger(Enum):
    """What moves an edge from one state to another."""

    START = "start"
    RESOLVED = "resolved"
    """The supernode has an address, the first or another one."""
    KEY = "key"
    """The key came, and is one."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    EXHAUSTED = "exhausted"
    """A timeout, and the same question was repeated often enough."""
    TOLD = "told"
    """The supernode does not know us (RetryRegisterRequest)."""
    SILENT = "silent"
    """The supernode no longer answers."""
    MOVED = "moved"
    """We have another address, as the supernode sees it or as our host knows."""
    CLOSE = "close"


class Do(Enum):
    """What the core has to do on a transition."""

    RESOLVE = "resolve"
    """Find the supernode, the next one where there are several."""
    RESOLVE_AGAIN = "resolve_again"
    """See whether the supernode has another address by now."""
    ASK_KEY = "ask_key"
    REGISTER = "register"
    WELCOME = "welcome"
    """Registered: ask for the peers, start or go on with the loops."""
    LEAVE = "leave"
    """Unregister, if there is anything to unregister."""


_S: Final = EdgeState
_T: Final = Trigger

#: (state, trigger) -> (next state, what to do).  A pair that is not here changes nothing.
TRANSITIONS: Final[Mapping[tuple[EdgeState, Trigger], tuple[EdgeState, tuple[Do, ...]]]] = {
    (_S.IDLE, _T.START): (_S.RESOLVING, (Do.RESOLVE,)),
    (_S.RESOLVING, _T.TIMEOUT): (_S.RESOLVING, (Do.RESOLVE,)),
    (_S.RESOLVING, _T.EXHAUSTED): (_S.RESOLVING, (Do.RESOLVE,)),
    # Another address of the supernode starts the conversation anew, wherever it was.
    (_S.RESOLVING, _T.RESOLVED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.KEY, _T.RESOLVED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.REGISTERING, _T.RESOLVED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.REGISTERED, _T.RESOLVED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.REFUSED, _T.RESOLVED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.KEY, _T.KEY): (_S.REGISTERING, (Do.REGISTER,)),
    # Perhaps it moved: its name may stand for another address by now.  Since each question is accompanied by a look-up,
    # and comes 4.5 s after the one before at the latest (EdgeSettings.asking), an edge is back within 5 s of the moment
    # when the name stands for an address at which a supernode answers: 4.5 s, the look-up, and two questions.  (A name
    # that is no address is looked up again within 4 s, see n2n.daemon.resolver; what is beyond us is a name server that
    # does not answer: the system asks it again after 5 s, unless resolv.conf says otherwise.)
    (_S.KEY, _T.TIMEOUT): (_S.KEY, (Do.RESOLVE_AGAIN, Do.ASK_KEY)),
    (_S.KEY, _T.EXHAUSTED): (_S.KEY, (Do.RESOLVE, Do.ASK_KEY)),
    (_S.KEY, _T.REFUSED): (_S.REFUSED, ()),  # a key that must not be believed
    (_S.REGISTERING, _T.ACCEPTED): (_S.REGISTERED, (Do.WELCOME,)),
    (_S.REGISTERING, _T.REFUSED): (_S.REFUSED, ()),
    (_S.REGISTERING, _T.TIMEOUT): (_S.REGISTERING, (Do.RESOLVE_AGAIN, Do.REGISTER)),
    # Perhaps it was started again in between, with another key.
    (_S.REGISTERING, _T.EXHAUSTED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.REFUSED, _T.ACCEPTED): (_S.REGISTERED, (Do.WELCOME,)),  # an answer that was overtaken by a refusal
    (_S.REFUSED, _T.TIMEOUT): (_S.KEY, (Do.ASK_KEY,)),
    (_S.REFUSED, _T.EXHAUSTED): (_S.KEY, (Do.RESOLVE, Do.ASK_KEY)),
    (_S.REGISTERED, _T.TOLD): (_S.KEY, (Do.ASK_KEY,)),
    (_S.REGISTERED, _T.SILENT): (_S.KEY, (Do.RESOLVE, Do.ASK_KEY)),
    (_S.REGISTERED, _T.MOVED): (_S.KEY, (Do.ASK_KEY,)),
    (_S.IDLE, _T.CLOSE): (_S.CLOSED, ()),
    (_S.RESOLVING, _T.CLOSE): (_S.CLOSED, (Do.LEAVE,)),
    (_S.KEY, _T.CLOSE): (_S.CLOSED, (Do.LEAVE,)),
    (_S.REGISTERING, _T.CLOSE): (_S.CLOSED, (Do.LEAVE,)),
    (_S.REGISTERED, _T.CLOSE): (_S.CLOSED, (Do.LEAVE,)),
    (_S.REFUSED, _T.CLOSE): (_S.CLOSED, (Do.LEAVE,)),
}

#: Questions of one kind that are repeated before something else is tried as well (TIMEOUT becomes EXHAUSTED).
_PATIENCE: Final = 3


@dataclass(frozen=True, slots=True)
class RegistrationView:
    """Where the registration stands, for people.

    Args:
        state: see :class:`EdgeState`.
        since: Unix seconds of its last change.
        attempts: questions sent since something came of one.
        reason: what brought it into this state (the name of a trigger, or of a fault).
        retry_in: seconds until the question is repeated, or None if nothing is awaited.
    """

    state: EdgeState
    since: float
    attempts: int
    reason: str
    retry_in: float | None


class Registration:
    """The state, and when to be impatient.

    Args:
        asking: pace of unanswered questions.
        refused: pace of attempts after refusals.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
    """

    __slots__ = ("_asking", "_refusals", "deadline", "reason", "since", "state")

    def __init__(self, asking: Pace, refused: Pace, jitter: Callable[[], float]) -> None:
        self.state = EdgeState.IDLE
        self.reason = "new"
        self.since = 0.0
        self.deadline: float | None = None
        """Monotonic seconds at which `timeout` is due, or None."""
        self._asking = Backoff(asking, jitter)
        self._refusals = Backoff(refused, jitter)

    def step(self, trigger: Trigger, now: Instant, reason: str = "") -> tuple[Do, ...]:
        """Follow the table; returns what is to be done, in order."""
        found = TRANSITIONS.get((self.state, trigger))
        if found is None:
            return ()
        state, todo = found
        if trigger in (Trigger.KEY, Trigger.ACCEPTED, Trigger.RESOLVED, Trigger.TOLD, Trigger.SILENT, Trigger.MOVED):
            self._asking.reset()
        if trigger is Trigger.ACCEPTED:
            self._refusals.reset()
        if state is not self.state:
            self.since = now.wall
            self.reason = reason or trigger.value
        self.state = state
        self.deadline = self._next_deadline(now)
        return todo

    def _next_deadline(self, now: Instant) -> float | None:
        if self.state in (EdgeState.IDLE, EdgeState.REGISTERED, EdgeState.CLOSED):
            return None
        backoff = self._refusals if self.state is EdgeState.REFUSED else self._asking
        return now.mono + backoff.delay()

    def timeout(self, now: Instant) -> tuple[Do, ...]:
        """The deadline has come."""
        backoff = self._refusals if self.state is EdgeState.REFUSED else self._asking
        exhausted = backoff.attempts > 0 and backoff.attempts % _PATIENCE == 0
        return self.step(Trigger.EXHAUSTED if exhausted else Trigger.TIMEOUT, now)

    def hurry(self, seconds: float, now: Instant) -> None:
        """Somebody waits for an answer: repeat the question, if one is open, within that time."""
        if self.state in (EdgeState.KEY, EdgeState.REGISTERING) and self.deadline is not None:
            self.deadline = min(self.deadline, now.mono + seconds)

    def view(self, now: Instant) -> RegistrationView:
        """Where it stands."""
        backoff = self._refusals if self.state is EdgeState.REFUSED else self._asking
        retry_in = None if self.deadline is None else max(0.0, self.deadline - now.mono)
        return RegistrationView(self.state, self.since, backoff.attempts, self.reason, retry_in)


#: Where a virtual network may lie unless more is configured: RFC 1918 (private), RFC 6598 (shared address space).
ADDRESS_RANGES: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
)
_LONGEST_PREFIX: Final = 30
_SHORTEST_PREFIX: Final = 8


def check_address(response: RegisterResponse, further_ranges: Iterable[IPv4Network] = ()) -> tuple[IPv4Address, int]:
    """The address and prefix length that a supernode gives, if a host can take them without harm.

    The whole network, not only the address, must lie in a private or configured range: its route would
    otherwise take traffic away from the internet.

    Args:
        response: an accepting answer.
        further_ranges: ranges allowed besides :data:`ADDRESS_RANGES`.

    Raises:
        MalformedDatagram: it makes no sense; the message says why.

    >>> check_address(RegisterResponse(True, "10.187.106.1", 24))
    (IPv4Address('10.187.106.1'), 24)
    """
    try:
        ip = IPv4Address(response.virtual_ip)
    except ValueError:
        raise MalformedDatagram("the address given is not a dotted IPv4 address") from None
    prefix = response.masklen
    if not _SHORTEST_PREFIX <= prefix <= _LONGEST_PREFIX:
        raise MalformedDatagram(f"the prefix length given, {prefix}, is not between 8 and 30")
    network = IPv4Network((int(ip) & (0xFFFFFFFF << (32 - prefix)), prefix))
    if ip in (network.network_address, network.broadcast_address):
        raise MalformedDatagram(f"the address given, {ip}/{prefix}, is the network's own or its broadcast address")
    if not any(network.subnet_of(allowed) for allowed in (*ADDRESS_RANGES, *further_ranges)):
        raise MalformedDatagram(f"the network given, {network}, is neither private nor in a configured range")
    return ip, prefix
