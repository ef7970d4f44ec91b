"""Links between simulated nodes: ordered streams with delays, which break in all the ways that TCP's do.

Floor 6. A link's two ends learn of its end separately, or never. What a message means is not known here; only in a
run that asks for it are single messages lost, doubled or swapped, which no TCP does but the members must bear.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, Protocol

from ..hot import wire
from ..messages import InstallSnapshot, Message, Reject
from .timeline import Timeline

if TYPE_CHECKING:
    from .faults import Faults

__all__ = ["End", "Network", "Site"]

_NEVER_LOST = frozenset({InstallSnapshot})
"""It has no answer of its own, and the heartbeats' answers show that its link lives: lost alone it would be waited for
for ever. Of pieces the sender asks."""

_NEVER_TWICE = frozenset({Reject})
"""It decides a proposal by its bytes: the second one would decide another proposal of the same bytes."""


class Site(Protocol):
    """What the network asks of a node."""

    number: int
    node_id: str
    former_ids: set[str]

    @property
    def ip(self) -> str: ...
    @property
    def listens(self) -> bool: ...
    def link_is_open(self, end: End) -> None: ...
    def messages_came(self, end: End, messages: list[Message]) -> None: ...
    def link_is_closed(self, end: End, reason: str) -> None: ...


class End:
    """One node's end of a link. `key` is what was dialled, None where it was accepted.

    `origin`: for the trace, where its messages come from. `swallows`: what is sent here gets nowhere, and nobody is
    told. `backlog`: what waits for a partition to end.
    """

    __slots__ = ("backlog", "closed", "key", "last_arrival", "number", "origin", "other", "site", "swallows")

    def __init__(self, number: int, site: Site, key: str | None, origin: str) -> None:
        self.number = number
        self.origin = origin
        self.site = site
        self.key = key
        self.other: End = self
        self.closed = False
        self.swallows = False
        self.last_arrival = 0.0
        self.backlog: list[list[Message]] = []


class Network:
    """All links. `blocked` holds the (from, to) pairs of node numbers between which nothing gets through."""

    def __init__(self, timeline: Timeline, rng: Random, faults: Faults) -> None:
        self.blocked: set[tuple[int, int]] = set()
        self.messages = 0
        self.ends: dict[int, End] = {}
        self.codec = False
        self._timeline = timeline
        self._rng = rng
        self._faults = faults
        self._count = 0

    def delay(self) -> float:
        """How long something takes on its way: mostly short, now and then long."""
        faults, rng = self._faults, self._rng
        if rng.random() < faults.long_delay_chance:
            return rng.random() * faults.long_delay
        return faults.delay * (0.2 + rng.random())

    def calm(self, faults: Faults) -> None:
        """Other faults from now on."""
        self._faults = faults

    # ------------------------------------------------------------------ life

    def connect(self, site: Site, key: str, target: Site | None) -> End | None:
        """A dial reaches the node at the other end: our end of the new link, or None."""
        if target is None or not target.listens or self._is_blocked(site, target):
            return None
        ours, theirs = self._end(site, key, target), self._end(target, None, site)
        ours.other, theirs.other = theirs, ours
        ours.last_arrival = theirs.last_arrival = self._timeline.now
        target.link_is_open(theirs)
        return ours

    def _end(self, site: Site, key: str | None, peer: Site) -> End:
        self._count += 1
        end = self.ends[self._count] = End(self._count, site, key, f"from n{peer.number}")
        return end

    def _is_blocked(self, one: Site, other: Site) -> bool:
        return bool(self.blocked) and (
            (one.number, other.number) in self.blocked or (other.number, one.number) in self.blocked
        )

    def close(self, end: End, reason: str, *, silently: bool = False) -> None:
        """A node closes its end, or is gone. The other hears of it, later, unless `silently`."""
        if self.ends.pop(end.number, None) is None:
            return
        end.closed = True
        other = end.other
        if silently or end.swallows or (end.site.number, other.site.number) in self.blocked:
            end.swallows = True  # the other waits in vain
        elif not other.closed:
            when = max(end.last_arrival, self._timeline.now + self.delay())
            self._timeline.at(when, self._tell, other, reason)

    def _tell(self, end: End, reason: str) -> None:
        if self.ends.pop(end.number, None) is not None:
            end.closed = True
            end.site.link_is_closed(end, f"closed by the peer: {reason}")

    def cut(self, end: End) -> None:
        """The link breaks; both ends hear of it, each in its time. What is on its way is lost."""
        for side in (end, end.other):
            side.swallows = True
            if not side.closed:
                self._timeline.at(self._timeline.now + self.delay(), self._tell, side, "reset")

    # ------------------------------------------------------------------ messages

    def send(self, end: End, messages: list[Message]) -> None:
        """One write of a node."""
        if end.swallows:
            return
        if end.backlog or (self.blocked and (end.site.number, end.other.site.number) in self.blocked):
            end.backlog.append(messages)
            return
        if self._faults.message_chaos:
            messages = self._shuffle(messages)
        if self.codec:
            messages = wire.FrameDecoder().feed(b"".join(map(wire.encode, messages)))
        arrival = self._timeline.now + self.delay()
        if arrival < end.last_arrival and not (self._faults.message_chaos and self._rng.random() < 0.3):
            arrival = end.last_arrival
        end.last_arrival = max(arrival, end.last_arrival)
        self._timeline.at(arrival, self._arrive, end, messages)

    def _arrive(self, end: End, messages: list[Message]) -> None:
        if end.swallows and not end.closed:
            return  # the link was cut meanwhile
        other = end.other
        if not other.closed:
            self.messages += len(messages)
            other.site.messages_came(other, messages)

    def _shuffle(self, messages: list[Message]) -> list[Message]:
        chance, rng = self._faults.message_chaos, self._rng
        shuffled: list[Message] = []
        for message in messages:
            kind = type(message)
            if rng.random() > chance:
                shuffled.append(message)
                continue
            fate = rng.randrange(3)
            if fate == 0 and kind not in _NEVER_LOST:
                continue
            if fate == 1 and kind not in _NEVER_TWICE:
                shuffled.append(message)
            shuffled.insert(rng.randint(0, len(shuffled)), message)
        return shuffled

    # ------------------------------------------------------------------ partitions

    def block(self, pairs: Iterable[tuple[int, int]]) -> None:
        """From now on nothing gets through from the first to the second of each pair."""
        self.blocked.update(pairs)

    def unblock(self, pairs: Iterable[tuple[int, int]] | None = None) -> None:
        """A partition ends (None: all of them do): what waited arrives after all, or its link is dead for good."""
        ended = set(self.blocked if pairs is None else pairs)
        self.blocked -= ended
        for end in list(self.ends.values()):
            if end.backlog and (end.site.number, end.other.site.number) in ended:
                waiting, end.backlog = end.backlog, []
                if self._rng.random() < 0.5:
                    end.swallows = True
                else:
                    for messages in waiting:
                        self.send(end, messages)
