"""This node's own proposals, from the call until they are applied, rejected or expired.

Floor 2. A table and nothing else: who gets what, and when, is decided by its caller. `APP` proposals are known by
their identity, `<client-id>:<sequence>`, so two equal commands never share an answer; a cluster entry is known by its
bytes, which is enough since it is idempotent (PROTOCOL 6.3).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Pending", "Proposal"]


class Proposal:
    """One proposal: its entry, who waits for it (`token`, opaque), and how often it was sent.

    `sent_term` is the term that it was last sent in, 0 if never; `number` its place among all that were made.
    """

    __slots__ = ("deadline", "entry", "key", "number", "sent_count", "sent_term", "token")

    def __init__(self, key: bytes, entry: bytes, token: Any, deadline: float) -> None:
        self.key = key
        self.entry = entry
        self.token = token
        self.deadline = deadline
        self.number = 0
        self.sent_term = 0
        self.sent_count = 0


class Pending:
    """The outstanding proposals in the order in which they were made.

    Invariants: 1. `nbytes` is the sum of the entries' lengths; 2. each proposal stands under its key once; 3. the keys
    stand in the order of their oldest proposals.
    """

    __slots__ = ("_by_key", "_count", "_made", "nbytes")

    def __init__(self) -> None:
        self._by_key: OrderedDict[bytes, deque[Proposal]] = OrderedDict()
        self._count = 0
        self._made = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return self._count

    def add(self, proposal: Proposal) -> None:
        """Takes a proposal in, behind all others."""
        self._made += 1
        proposal.number = self._made
        same = self._by_key.get(proposal.key)
        if same is None:
            self._by_key[proposal.key] = deque((proposal,))
        else:
            same.append(proposal)
        self._count += 1
        self.nbytes += len(proposal.entry)

    def pop(self, key: bytes) -> Proposal | None:
        """Takes out the oldest proposal under `key`; None if there is none."""
        same = self._by_key.get(key)
        if same is None:
            return None
        proposal = same.popleft()
        if not same:
            del self._by_key[key]
        else:
            self._put_in_order()
        self._count -= 1
        self.nbytes -= len(proposal.entry)
        return proposal

    def discard(self, proposal: Proposal) -> bool:
        """Takes this very proposal out. Whether it was in."""
        same = self._by_key.get(proposal.key)
        if same is None or proposal not in same:
            return False
        same.remove(proposal)
        if not same:
            del self._by_key[proposal.key]
        else:
            self._put_in_order()
        self._count -= 1
        self.nbytes -= len(proposal.entry)
        return True

    def _put_in_order(self) -> None:
        """A key's oldest proposal went, and a younger one is left. Rare, so that its cost may be all keys."""
        self._by_key = OrderedDict(sorted(self._by_key.items(), key=lambda item: item[1][0].number))

    def has(self, key: bytes) -> bool:
        """Whether a proposal is outstanding under `key`."""
        return key in self._by_key

    def under(self, key: bytes) -> Iterable[Proposal]:
        """The proposals that are outstanding under `key`, the oldest first."""
        return self._by_key.get(key, ())

    def __iter__(self) -> Iterator[Proposal]:
        """All proposals, in the order in which they were made."""
        everything = [proposal for same in self._by_key.values() for proposal in same]
        if len(everything) > len(self._by_key):
            everything.sort(key=lambda proposal: proposal.number)
        return iter(everything)

    def expired(self, now: float) -> list[Proposal]:
        """Takes out, and returns, those whose deadline has passed: the oldest ones, since all wait equally long."""
        late: list[Proposal] = []
        while self._by_key:
            key, same = next(iter(self._by_key.items()))
            if same[0].deadline > now:
                break
            late.append(same[0])
            self.pop(key)
        return late

    def drain(self) -> list[Proposal]:
        """Takes everything out."""
        everything = list(self)
        self._by_key.clear()
        self._count = 0
        self.nbytes = 0
        return everything
