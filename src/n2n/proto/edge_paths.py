"""Which way frames take to each peer, as the data plane, the log and the supernode are told of it."""

from __future__ import annotations

from n2n.proto.actions import AllowSource, PutPeer
from n2n.proto.edge_outbox import Outbox
from n2n.proto.peers import Member
from n2n.types import Endpoint, Instant

__all__ = ["PathBook"]


class PathBook:
    """Tells who must know when a path changes.

    Args:
        outbox: takes the actions.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._out = outbox
        self.dirty = False
        """Something changed that the supernode has not been told."""

    def put(self, member: Member) -> None:
        """Tell the plane where frames for a peer go."""
        self._out.act(PutPeer(member.info.mac, member.target, member.direct))
        if member.way is None:
            return
        # The plane takes frames from the endpoint it was told last; those that the peer showed before stay good.
        for source in (member.info.endpoint, *member.sources):
            if source != member.target:
                self._out.act(AllowSource(member.info.mac, source))

    def set_path(self, member: Member, reason: str, now: Instant, *, moved: bool) -> None:
        """The reason for the present path is another; tell who watches if the path is another, too."""
        member.set_reason(reason, now, moved)
        self.dirty = True
        if moved:
            self.note_path(member)

    def note_path(self, member: Member) -> None:
        """Tell who watches which way frames for a peer go."""
        self._out.note(
            "info", "path", mac=str(member.info.mac), name=member.info.name, endpoint=str(member.target),
            path="direct" if member.direct else "relay", reason=member.reason,
        )  # fmt: skip

    def heard(self, member: Member, source: Endpoint, now: Instant) -> None:
        """A peer was heard straight from this endpoint: its frames may come from there."""
        allowed = member.allow(source, now.mono)
        if allowed:
            self._out.act(AllowSource(member.info.mac, source))
            self._out.note("debug", "source_allowed", mac=str(member.info.mac), endpoint=str(source))
        elif allowed is False:
            self._out.count("source_limited")
