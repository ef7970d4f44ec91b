"""Who is at the other end of which link: HELLO and HI, one link each way a peer, silence, cluster ids (PROTOCOL 9).

Floor 3. Links are numbers here; the connections themselves are `net`'s. What an identified message means is decided
in `member`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from ..cluster.members import canonical_address
from ..config import Config
from ..errors import EntryError, ParseError
from ..hot import nodesconf
from ..messages import (
    AppendEntries,
    AppendEntriesAck,
    Hello,
    Hi,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteRequest,
    ReadIndex,
    ReadIndexNo,
    ReadIndexOk,
    Removed,
    SnapshotAck,
    SnapshotPiece,
    Unknown,
    Vote,
    VoteRequest,
)
from ..records import Address
from .orders import Orders

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

__all__ = ["MEET_TARGET", "NO_CLUSTER", "LinkInfo", "Links", "LinksOwner", "of_two_clusters"]

MEET_TARGET = "meet "
"""What the target of a link that a MEET opened begins with; no node id does."""

_WANTS_ANSWER: dict[type[Message], str] = {
    Hello: "greeting",
    AppendEntries: "log",
    InstallSnapshot: "snapshot",
    SnapshotPiece: "snapshot",
    PreVoteRequest: "vote",
    VoteRequest: "vote",
    ReadIndex: "read",
}
_ANSWERS: dict[type[Message], tuple[str, ...]] = {
    Hi: ("greeting",),
    AppendEntriesAck: ("log", "snapshot"),
    SnapshotAck: ("snapshot",),
    PreVote: ("vote",),
    Vote: ("vote",),
    ReadIndexOk: ("read",),
    ReadIndexNo: ("read",),
}
"""What answers what: a late VOTE must not hide that the only AppendEntries on the link was never answered, nor may a
SNAPSHOT_ACK. The other way round an install may take long, and the answers to heartbeats show that the link lives."""

NO_CLUSTER = ("-", "joining")
"""What a singleton and a joiner say of their cluster; a member that says so has lost its log."""


def of_two_clusters(theirs: str | None, ours: str | None) -> bool:
    """Whether both cluster tokens name a cluster, and not the same one (PROTOCOL 9)."""
    return theirs is not None and ours is not None and theirs not in NO_CLUSTER and theirs != ours


class LinkInfo:
    """What is known of one link.

    `target` is the node id that was dialled, or a MEET's name; None on an inbound link. `node_id` is whom the link is
    bound to, None before HELLO or HI. `cluster` is the token that came with it, `announced` the address, None where
    that lacks an ip. `lost`: it came from a voter that has lost its log. `dialled_voter`: it was dialled as a voter of
    the applied state; `dialled_settled`: as one that had been heard as a member or a joiner since its newest NODE_JOIN.
    `is_meet`: a MEET opened it. `waits`: by kind of answer, since when the oldest message of ours waits for one.
    """

    __slots__ = (
        "announced",
        "cluster",
        "dialled_settled",
        "dialled_voter",
        "is_meet",
        "link",
        "lost",
        "node_id",
        "opened_at",
        "outbound",
        "peer_ip",
        "target",
        "waits",
    )

    def __init__(self, link: int, outbound: bool, target: str | None, peer_ip: str, now: float) -> None:
        self.link = link
        self.outbound = outbound
        self.target = target
        self.peer_ip = peer_ip
        self.opened_at = now
        self.node_id: str | None = None
        self.cluster: str | None = None
        self.lost = False
        self.announced: Address | None = None
        self.dialled_voter = False
        self.dialled_settled = False
        self.is_meet = target is not None and target.startswith(MEET_TARGET)
        self.waits: dict[str, float] = {}


class LinksOwner(Protocol):
    """What the links ask of the member."""

    config: Config
    orders: Orders
    lifecycle: Lifecycle

    @property
    def node_id(self) -> str: ...
    @property
    def address_text(self) -> str: ...
    @property
    def cluster_token(self) -> str | None: ...
    @property
    def cluster_id(self) -> str | None: ...
    def knows(self, node_id: str) -> bool: ...
    def forgotten_at(self, node_id: str, cluster: str | None) -> int | None: ...
    def link_bound(self, info: LinkInfo) -> None: ...
    def link_lost(self, info: LinkInfo, reason: str) -> None: ...
    def count(self, name: str) -> None: ...
    def report(self, text: str) -> None: ...


class Links:
    """The links of a node.

    Invariants: 1. a node id has at most one inbound and one outbound link bound to it; 2. nothing but HELLO leaves on
    an outbound link before its HI; 3. a closed link is in no table.
    """

    def __init__(self, owner: LinksOwner) -> None:
        self._owner = owner
        self.infos: dict[int, LinkInfo] = {}
        self.outbound: dict[str, LinkInfo] = {}
        self.inbound: dict[str, LinkInfo] = {}
        self.heard_addresses: dict[str, Address] = {}
        """Where HELLO and HI said that a node is: where to dial one whose address the state lacks."""

    # ------------------------------------------------------------------ life

    def opened(self, link: int, target: str | None, peer_ip: str, local_ip: str, now: float) -> None:
        """A connection is there: dialled for `target`, or accepted where that is None."""
        owner = self._owner
        owner.lifecycle.own_address_seen(local_ip)
        if target is None and self._unknown_links() >= owner.config.max_unknown_links:
            owner.count("links_refused")
            owner.orders.closes.append((link, "too many links of nodes that are not known"))
            return
        info = LinkInfo(link, target is not None, target, peer_ip, now)
        self.infos[link] = info
        if target is not None:
            self.send(info, Hello(owner.node_id, owner.address_text, owner.cluster_token), now)

    def _unknown_links(self) -> int:
        return sum(
            1
            for info in self.infos.values()
            if not info.outbound and (info.node_id is None or not self._owner.knows(info.node_id))
        )

    def closed(self, link: int, reason: str) -> None:
        """The connection is gone."""
        info = self.infos.pop(link, None)
        if info is not None:
            self._unbind(info, reason)

    def close(self, info: LinkInfo, reason: str) -> None:
        """Closes a link from our side. What was owed on it is dropped."""
        if self.infos.pop(info.link, None) is not None:
            self._owner.orders.closes.append((info.link, reason))
            self._unbind(info, reason)

    def _unbind(self, info: LinkInfo, reason: str) -> None:
        if info.node_id is not None:
            table = self.outbound if info.outbound else self.inbound
            if table.get(info.node_id) is info:
                del table[info.node_id]
        self._owner.link_lost(info, reason)

    def close_all(self, reason: str) -> None:
        """RESET: every link goes."""
        for info in list(self.infos.values()):
            self.close(info, reason)

    def close_of(self, node_id: str, reason: str) -> None:
        """Closes both links of a node."""
        for table in (self.outbound, self.inbound):
            if node_id in table:
                self.close(table[node_id], reason)

    def is_foreign(self, info: LinkInfo) -> bool:
        """Whether the link's peer named another cluster than ours."""
        return of_two_clusters(info.cluster, self._owner.cluster_id)

    def close_foreign(self) -> None:
        """We have a cluster now: links that were made before, with nodes of others, go."""
        for info in list(self.infos.values()):
            if self.is_foreign(info):
                self._owner.report(f"the link of {info.node_id} is closed: it is of another cluster")
                self.close(info, "it is of another cluster")

    def tick(self, now: float) -> None:
        """Silent outbound links, and inbound ones that never said who they are, are closed."""
        timeout = self._owner.config.node_timeout
        for info in list(self.infos.values()):
            if info.waits and now - min(info.waits.values()) > timeout / 2:
                self._owner.count("links_silent")
                self.close(info, "no answer within half a node timeout")
            elif info.node_id is None and not info.outbound and now - info.opened_at > timeout:
                self.close(info, "no HELLO in time")

    def after_pause(self, now: float) -> None:
        """This process did not run for a while: what is unanswered may be waiting to be read."""
        for info in self.infos.values():
            info.waits = dict.fromkeys(info.waits, now)

    # ------------------------------------------------------------------ sending

    def send(self, info: LinkInfo, message: Message, now: float) -> None:
        """Sends on this very link."""
        self._owner.orders.sends.append((info.link, message))
        if info.outbound and (kind := _WANTS_ANSWER.get(type(message))) is not None:
            info.waits.setdefault(kind, now)

    def send_to(self, node_id: str, message: Message, now: float) -> bool:
        """Sends on our outbound link to `node_id`; dropped where there is none. Whether it was sent."""
        info = self.outbound.get(node_id)
        if info is None:
            return False
        self.send(info, message, now)
        return True

    def reply(self, link: int, message: Message, now: float) -> None:
        """Sends on the link that a request came on; dropped where that is gone."""
        info = self.infos.get(link)
        if info is not None:
            self.send(info, message, now)

    # ------------------------------------------------------------------ receiving

    def take(self, link: int, message: Message, now: float, deliver: Callable[[LinkInfo, Message], None]) -> None:
        """A message came. Those of an identified peer go to `deliver`; the rest is handled or refused here."""
        info = self.infos.get(link)
        if info is None:
            return
        if isinstance(message, (Hello, Hi, Unknown)):
            self._take_greeting(info, message, now)
        elif info.node_id is None:
            self.close(info, f"{type(message).__name__} before identification")
        else:
            if info.outbound:
                for kind in _ANSWERS.get(type(message), ()):
                    info.waits.pop(kind, None)
            deliver(info, message)

    def _take_greeting(self, info: LinkInfo, message: Hello | Hi | Unknown, now: float) -> None:
        if isinstance(message, Hello):
            self._on_hello(info, message, now)
        elif isinstance(message, Hi):
            self._on_hi(info, message)
        else:
            self._owner.count("messages_unknown")

    def _on_hello(self, info: LinkInfo, hello: Hello, now: float) -> None:
        owner = self._owner
        if info.outbound or info.node_id is not None:
            self.close(info, "a HELLO out of place")
            return
        refusal = self._refusal(hello)
        if refusal is not None:
            owner.report(f"a link from {hello.node_id} ({info.peer_ip}) is refused: {refusal}")
            self.send(info, Hi(owner.node_id, owner.address_text, owner.cluster_token), now)  # it tells the other why
            self.close(info, refusal)
            return
        earlier = self.inbound.get(hello.node_id)
        if earlier is not None:
            self.close(earlier, "replaced by a newer link")
        info.node_id = hello.node_id
        info.cluster = hello.cluster
        self.inbound[hello.node_id] = info
        self.send(info, Hi(owner.node_id, owner.address_text, owner.cluster_token), now)
        self._hear_address(info, hello.node_id, hello.address)
        forgotten_at = owner.forgotten_at(hello.node_id, hello.cluster)
        if forgotten_at is not None:
            self.send(info, Removed(forgotten_at), now)
        owner.link_bound(info)

    def _on_hi(self, info: LinkInfo, hi: Hi) -> None:
        owner = self._owner
        if not info.outbound or info.node_id is not None:
            self.close(info, "a HI out of place")
            return
        info.cluster = hi.cluster
        refusal = self._refusal(hi)
        if refusal is None and not info.is_meet and hi.node_id != info.target:
            refusal = f"{hi.node_id} answers where {info.target} was dialled"
        if refusal is not None:
            owner.report(f"the link to {info.target} ({info.peer_ip}) is refused: {refusal}")
            self.close(info, refusal)
            return
        info.waits.clear()
        info.node_id = hi.node_id
        self._hear_address(info, hi.node_id, hi.address)
        if not info.is_meet:
            earlier = self.outbound.get(hi.node_id)
            if earlier is not None:
                self.close(earlier, "a second outbound link")
            self.outbound[hi.node_id] = info
        owner.orders.identified.append(info.link)
        owner.link_bound(info)

    def _refusal(self, greeting: Hello | Hi) -> str | None:
        """Why the greeting ends the link, None where it does not."""
        if greeting.node_id == self._owner.node_id:
            return "that is this node itself"
        theirs, ours = greeting.cluster, self._owner.cluster_id
        if theirs is None or ours is None or not of_two_clusters(theirs, ours):
            return None
        return f"it is of another cluster ({theirs[:8]}…, ours is {ours[:8]}…)"

    def _hear_address(self, info: LinkInfo, node_id: str, text: str) -> None:
        try:
            address = nodesconf.parse_address(text)
        except ParseError as error:
            self._owner.report(f"{node_id} announces an address that can't be read: {error.reason}")
            return
        if address.ip:
            with suppress(EntryError):  # then no entry could have it
                info.announced = canonical_address(address)[0]
        else:
            address = Address(info.peer_ip, address.port, address.cport, address.hostname, address.aux)
        self.heard_addresses[node_id] = address
        while len(self.heard_addresses) > 4 * self._owner.config.max_unknown_links:
            oldest = next(iter(self.heard_addresses))
            del self.heard_addresses[oldest]
