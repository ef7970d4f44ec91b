"""What may not leave before it is durable: votes and refusals of a term, acknowledgements of entries.

Floor 2. A promise is kept here until the storage job that makes it true is back, and dropped where its term has passed
by then (PROTOCOL 5.3, 5.5). Tickets are `durability`'s; what is promised is `raft`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..messages import Message
from .durability import Durability
from .update import Send

__all__ = ["Promises"]


class Promises:
    """Messages that wait for a hard state, and links that are owed an acknowledgement.

    Invariants: 1. nothing is kept under a ticket that is back; 2. an acknowledgement is made when it leaves, of what is
    durable then, so that no truncation in between can make it a lie.
    """

    __slots__ = ("_durability", "_held", "_new", "_owed", "_owed_later", "made")

    def __init__(self, durability: Durability) -> None:
        self._durability = durability
        self.made = False
        """Whether anything was promised in this turn."""
        self._new: list[tuple[int, Send]] = []
        self._held: deque[tuple[int, int, Send]] = deque()
        self._owed: dict[int, tuple[str, bool]] = {}
        self._owed_later: deque[tuple[int, int, str]] = deque()

    def hold(self, term: int, to: str, message: Message, link: int | None) -> None:
        """To be sent once term and vote as they are now, in `term`, are durable."""
        self._new.append((term, Send(to, message, link)))
        self.made = True

    def owe(self, sender: str, link: int, has_new: bool) -> None:
        """One answer for all that the link brought in this turn; with new entries, after this turn's write."""
        self._owed[link] = (sender, has_new or self._owed.get(link, ("", False))[1])
        self.made = True

    def end_turn(self, current_term: int, disk_is_slow: bool = False) -> tuple[list[Send], list[tuple[str, int]]]:
        """This turn's storage job has its ticket. Returns what needs none: messages, and (sender, link) owed.

        While the disk is slow, entries are answered twice: at once with what is durable so far, so that the disk is
        seen as lag and not as a dead link (PROTOCOL 5.2), and once they are durable.
        """
        self.made = False
        promised = self._durability.hard_state_ticket
        sends = []
        for term, send in self._new:
            if promised:
                self._held.append((promised, term, send))
            elif term == current_term:
                sends.append(send)
        self._new = []
        acks = []
        for link, (sender, has_new) in self._owed.items():
            ticket = self._durability.last_ticket if has_new and self._durability.oldest_outstanding else promised
            if ticket:
                self._owed_later.append((ticket, link, sender))
            if not ticket or (disk_is_slow and not promised):
                acks.append((sender, link))
        self._owed.clear()
        return sends, acks

    def kept_until(self, ticket: int, current_term: int) -> Iterator[Send]:
        """The messages that `ticket` lets go, but those of a term that has passed."""
        while self._held and self._held[0][0] <= ticket:
            _, term, send = self._held.popleft()
            if term == current_term:
                yield send

    def owed_until(self, ticket: int) -> list[tuple[str, int]]:
        """(sender, link) of the acknowledgements that `ticket` lets go: one a link."""
        owed: dict[int, str] = {}
        while self._owed_later and self._owed_later[0][0] <= ticket:
            _, link, sender = self._owed_later.popleft()
            owed[link] = sender
        return [(sender, link) for link, sender in owed.items()]

    def drop_owed(self) -> None:
        """The term has passed in which acknowledgements were owed: they are dropped (PROTOCOL 5.3)."""
        self._owed.clear()
        self._owed_later.clear()

    def drop_all(self) -> None:
        """The node begins anew: nothing that it promised counts."""
        self._new.clear()
        self._held.clear()
        self.drop_owed()
