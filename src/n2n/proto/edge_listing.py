"""The list of peers: asked for until it comes, again now and then, and as a question whether the supernode is there."""

from __future__ import annotations

from typing import Final

from n2n.proto.edge_settings import EdgeSettings
from n2n.proto.edge_views import EdgeViews
from n2n.proto.pacing import Question
from n2n.proto.registration import EdgeState, Trigger
from n2n.types import Instant
from n2n.wire import PacketType, PeerEvent, PeerInfoList, PeerListRequest

__all__ = ["EdgeListing"]

#: Unanswered questions after which a supernode that is otherwise silent counts as lost.
_LOST_AFTER: Final = 4


class EdgeListing(EdgeViews):
    """The part of :class:`~n2n.proto.edge.EdgeCore` that sees to the list of peers."""

    settings: EdgeSettings
    _list: Question
    _due: dict[str, float]
    _heard_at: float

    def _step(self, trigger: Trigger, now: Instant, reason: str = "") -> None:
        raise NotImplementedError

    def ask_peers(self, now: Instant) -> bool:
        """Ask for the list of peers now; False if not registered."""
        if self.state is not EdgeState.REGISTERED:
            return False
        self._ask_list(now)
        return True

    def on_peers(self, message: PeerInfoList, now: Instant) -> None:
        """A list of peers, or news of one."""
        if message.event_type != PeerEvent.LIST:
            self._mesh.take_event(message, now)
            return
        if self._list.asked is None:
            self._out.count("list_unasked")
            return
        moved = self._mesh.take_list(message, self._list.asked, now)
        self._list.end()
        self._due["list"] = now.mono + self.settings.list_refresh
        if self._mesh.doubtful:
            self._due["sweep"] = now.mono + self.settings.answer_wait
        if moved:
            # A v5 supernode takes our VFuze packets only from where we registered (WIRE 12).
            self._out.note("info", "moved", endpoint=str(self._mesh.reflexive))
            self._step(Trigger.MOVED, now)

    def _ask_list(self, now: Instant) -> None:
        """Ask for the list of peers, unless it is awaited already; it is asked again until it comes."""
        if self._list.asked is None:
            self._send_list_request(now)

    def _send_list_request(self, now: Instant) -> None:
        self._due["list"] = self._list.ask(now.mono)
        self._out.tell_supernode(PacketType.PEER_LIST_REQUEST, PeerListRequest(self.settings.community), now)

    def _on_list_timer(self, now: Instant) -> None:
        """The list was not answered, or is old."""
        asked = self._list.asked
        if self.state is not EdgeState.REGISTERED:
            del self._due["list"]  # being registered again brings a new list
            self._list.end()
        elif asked is not None and self._list.attempts >= _LOST_AFTER and self._heard_at < asked:
            del self._due["list"]
            self._list.end()
            self._out.note("warning", "supernode_silent", seconds=round(now.mono - self._heard_at, 3))
            self._step(Trigger.SILENT, now)
        else:
            self._send_list_request(now)

    def _on_sweep_timer(self, now: Instant) -> None:
        del self._due["sweep"]
        self._mesh.sweep(now)
