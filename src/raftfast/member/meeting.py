"""MEET and its answers: how singletons, joiners and clusters come together (PROTOCOL 8).

Floor 3. Only a fresh singleton steps down, and whether it is one is looked at when the message arrives, never earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..cluster.entries import NodeJoin
from ..config import Config
from ..consensus import Standing
from ..errors import MeetError
from ..hot import nodesconf
from ..messages import AddMe, Meet, MeetRejected, Message, Welcome
from .links import MEET_TARGET, LinkInfo, Links, of_two_clusters
from .orders import Orders

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

__all__ = ["Meetings", "MeetingsOwner"]

CANNOT_MERGE = "Cannot merge two existing clusters"


class MeetingsOwner(Protocol):
    """What the meetings ask of the member."""

    config: Config
    orders: Orders
    lifecycle: Lifecycle

    @property
    def node_id(self) -> str: ...
    @property
    def standing(self) -> Standing: ...
    @property
    def cluster_id(self) -> str | None: ...
    def knows(self, node_id: str) -> bool: ...
    def is_voter(self, node_id: str) -> bool: ...
    def answer(self, token: Any, result: Any, error: Exception | None) -> None: ...


class _Asked:
    """A MEET of ours that is not answered yet."""

    __slots__ = ("deadline", "info", "sent", "token")

    def __init__(self, token: Any, deadline: float) -> None:
        self.token = token
        self.deadline = deadline
        self.info: LinkInfo | None = None
        self.sent = False


class Meetings:
    """Our own MEETs, and those of others that we can't answer yet.

    Invariant: each token is answered once.
    """

    def __init__(self, owner: MeetingsOwner, links: Links) -> None:
        self._owner = owner
        self._links = links
        self._asked: dict[str, _Asked] = {}
        self.kept: list[tuple[LinkInfo, Message]] = []
        self._count = 0

    def begin(self, token: Any, now: float) -> str:
        """A client asks us to meet somebody. Returns the target to dial the link under."""
        self._count += 1
        target = f"{MEET_TARGET}{self._count}"
        self._asked[target] = _Asked(token, now + self._owner.config.joiner_timeout)
        return target

    def failed(self, target: str, reason: str) -> None:
        """Dialling failed, or the link is gone."""
        self._finish(target, MeetError(reason))

    def link_bound(self, info: LinkInfo, now: float) -> None:
        """The link of one of our MEETs is identified."""
        asked = self._asked.get(info.target or "")
        if asked is None:
            self._links.close(info, "the MEET is over")
            return
        asked.info = info
        self._ask(info.target or "", asked, now)

    def _ask(self, target: str, asked: _Asked, now: float) -> None:
        info, owner = asked.info, self._owner
        if info is None or asked.sent or info.node_id is None:
            return
        if info.lost:
            self._finish(target, MeetError(f"{info.node_id} is a voter that has lost its log: forget it first"))
        elif owner.knows(info.node_id) and owner.standing is Standing.MEMBER and info.cluster != "-":
            self._finish(target, None)
        elif owner.standing is Standing.REMOVED:
            self._finish(target, MeetError("this node was forgotten by its cluster: CLUSTER RESET it first"))
        elif owner.standing is not Standing.JOINER:  # a joiner asks once it is a member
            asked.sent = True
            status = "singleton" if owner.standing is Standing.SINGLETON else "cluster"
            self._links.send(info, Meet(status), now)

    def link_lost(self, info: LinkInfo, reason: str) -> None:
        """A link is gone: our MEET on it failed, a kept one is dropped."""
        if info.is_meet:
            merging = of_two_clusters(info.cluster, self._owner.cluster_id)
            self._finish(info.target or "", MeetError(CANNOT_MERGE if merging else f"the link was closed: {reason}"))
        self.kept = [kept for kept in self.kept if kept[0] is not info]

    def tick(self, now: float) -> None:
        """Gives up what had no answer in time."""
        for target, asked in list(self._asked.items()):
            if now >= asked.deadline:
                self._finish(target, MeetError("no answer to MEET in time"))

    def fail_all(self, reason: str) -> None:
        """The node closes or is reset."""
        for target in list(self._asked):
            self._finish(target, MeetError(reason))
        self.kept = []

    def standing_changed(self, now: float) -> None:
        """We are something else now: what was kept is looked at again, what waited is asked."""
        kept, self.kept = self.kept, []
        for info, message in kept:
            self.receive(info, message, now)
        for target, asked in list(self._asked.items()):
            node_id = asked.info.node_id if asked.info is not None else None
            if node_id is not None and self._owner.standing is Standing.MEMBER and self._owner.knows(node_id):
                self._finish(target, None)
            else:
                self._ask(target, asked, now)

    def _finish(self, target: str, error: MeetError | None) -> None:
        asked = self._asked.pop(target, None)
        if asked is None:
            return
        if asked.info is not None:
            self._links.close(asked.info, "the MEET is over")
        self._owner.answer(asked.token, None, error)
        if not self._asked and self.kept:
            self._owner.orders.busy = True

    # ------------------------------------------------------------------ messages

    def receive(self, info: LinkInfo, message: Message, now: float) -> None:
        """MEET on an inbound link, or an answer on the link of a MEET of ours."""
        if isinstance(message, Meet):
            if info.outbound:
                self._links.close(info, "a MEET out of place")
            else:
                self._on_meet(info, message, now)
            return
        asked = self._asked.get(info.target or "")
        if asked is None or not asked.sent:
            self._links.close(info, "an answer to no MEET of ours")
        elif isinstance(message, AddMe):
            self._on_add_me(info, message, now)
        elif isinstance(message, Welcome):
            self._on_welcome(info, now)
        else:
            self._finish(info.target or "", MeetError(CANNOT_MERGE))

    def _on_meet(self, info: LinkInfo, message: Meet, now: float) -> None:
        owner, asker = self._owner, info.node_id or ""
        if owner.standing is Standing.MEMBER:
            join = self._join_of(asker)
            if message.status == "cluster" or owner.is_voter(asker) or join is None:
                self._links.send(info, MeetRejected(), now)
            else:
                self._links.send(info, Welcome(), now)
                owner.lifecycle.invite(join, now)
        elif owner.standing is Standing.REMOVED:
            self._links.send(info, MeetRejected(), now)
        elif owner.standing is Standing.JOINER or (self._waits_for_answer() and asker > owner.node_id):
            if all(kept is not info for kept, _ in self.kept):
                self.kept.append((info, message))
        else:
            owner.lifecycle.become_joiner((info.link, AddMe()), now)

    def _waits_for_answer(self) -> bool:
        return any(asked.sent for asked in self._asked.values())

    def release_kept(self, now: float) -> None:
        """Our own MEETs are all answered or have failed: those that were kept for them are looked at again."""
        if self.kept and not self._waits_for_answer() and self._owner.standing is not Standing.JOINER:
            self.standing_changed(now)

    def _on_add_me(self, info: LinkInfo, message: Message, now: float) -> None:
        owner, other = self._owner, info.node_id or ""
        if owner.standing is Standing.JOINER:
            self.kept.append((info, message))
            return
        join = self._join_of(other)
        if owner.standing is Standing.REMOVED or owner.is_voter(other) or join is None:
            self._finish(info.target or "", MeetError(f"{other} can't be added: forget it first"))
            return
        owner.lifecycle.invite(join, now)
        self._finish(info.target or "", None)

    def _on_welcome(self, info: LinkInfo, now: float) -> None:
        if self._owner.standing is Standing.SINGLETON:
            self._finish(info.target or "", None)
            self._owner.lifecycle.become_joiner(None, now)
        elif self._owner.standing is Standing.JOINER:
            pass  # whether it is the same cluster shows when we are a member, or the MEET's time is over
        else:
            self._links.close(info, "a WELCOME to a node that is no fresh singleton any more")

    def _join_of(self, node_id: str) -> NodeJoin | None:
        """The invitation of a node, at the address that its greeting named."""
        address = self._links.heard_addresses.get(node_id)
        if address is None or "shard-id" not in address.aux:
            return None
        return NodeJoin(node_id, nodesconf.format_address(address), False)
