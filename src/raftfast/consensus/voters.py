"""The voter set in force: a function of the log, committed or not (dissertation 4.1, PROTOCOL 8).

Floor 2. The one place where the core reads an entry's data: which lines change the voters, and how.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

__all__ = ["VOTER_CHANGES", "VoterHistory", "voter_change"]

VOTER_CHANGES = (b"ADD_VOTER ", b"DEL_VOTER ", b"NODE_JOIN ")
"""What the entries that may change the voters begin with."""

_FIELDS = (3, 5)
"""How many fields, the term and the type among them, their lines have."""


def voter_change(line: bytes, voters: Set[str] = frozenset()) -> tuple[bool, str] | None:
    """(added, node id) where the AE line changes the voters, else None. `voters` are those before it.

    Voter-changing entries are ADD_VOTER, DEL_VOTER and a founder's self-join, no others. **(stricter)** A join comes
    before all voters, or it is no founder's: whoever wrote `voter` there, it joins a learner. One with fields too few
    or too many is none: apply refuses it, and what is applied must follow this set (PROTOCOL 8).
    """
    parts = line.split(b" ")
    if len(parts) not in _FIELDS:
        return None
    # Any bytes may stand where an id should (apply refuses such an entry); none of them may raise here.
    node_id = parts[2].decode("utf-8", "surrogateescape")
    if len(parts) == 3 and parts[1] == b"ADD_VOTER":
        return True, node_id
    if len(parts) == 3 and parts[1] == b"DEL_VOTER":
        return False, node_id
    if len(parts) == 5 and parts[1] == b"NODE_JOIN" and parts[-1] == b"voter" and not voters:
        return True, node_id
    return None


class VoterHistory:
    """The voter set at a base index, and each change since that the log holds.

    Invariants: 1. changes stand in ascending order of index, all above the base's; 2. `current` is the newest.
    """

    __slots__ = ("_base", "_changes", "current")

    def __init__(self, base: Iterable[str]) -> None:
        self._base = frozenset(base)
        self._changes: list[tuple[int, frozenset[str], frozenset[str]]] = []
        self.current = self._base

    def appended(self, index: int, line: bytes) -> None:
        """The line now stands in the log at `index`."""
        before = self.current
        change = voter_change(line, before)
        if change is None:
            return
        added, node_id = change
        self.current = before | {node_id} if added else before - {node_id}
        self._changes.append((index, before, self.current))

    def truncated_from(self, index: int) -> None:
        """Entries from `index` on are gone: the set rolls back."""
        while self._changes and self._changes[-1][0] >= index:
            self.current = self._changes.pop()[1]

    def forget_to(self, index: int) -> None:
        """Changes up to `index` are committed for good and need no way back."""
        kept = 0
        while kept < len(self._changes) and self._changes[kept][0] <= index:
            self._base = self._changes[kept][2]
            kept += 1
        del self._changes[:kept]

    def newest_change(self) -> int:
        """The index of the newest change that the history holds; 0 if none."""
        return self._changes[-1][0] if self._changes else 0

    def taken_out_since(self, commit_index: int, node_id: str) -> bool:
        """Whether an uncommitted entry has taken `node_id` out of the set in force (dissertation 4.2.2)."""
        if node_id in self.current:
            return False
        return any(index > commit_index and node_id in before for index, before, _ in self._changes)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self.current

    def others(self, node_id: str) -> Set[str]:
        """The voters in force but `node_id`."""
        return self.current - {node_id}
