"""Rules told a second time, in other words than the members' own code: what committed entries must come to.

Floor 6. Each oracle is shown every committed entry once, in order, and raises nothing but `BrokenInvariant`. Nothing of
nodes, disks or links may be known here.
"""

from __future__ import annotations

from collections import OrderedDict

from ..cluster.entries import Entry, Failover, NodeJoin, SetReplicaOf, SlotChange
from ..cluster.state import ClusterState

__all__ = ["BrokenInvariant", "SessionOracle", "ShardOracle"]


_Shard = frozenset[tuple[str, str | None]]
"""A shard's members, each with its primary; None: it is one."""


class BrokenInvariant(Exception):
    """Something happened that must not."""


class SessionOracle:
    """Which sessions are open, by a memory without bound (PROTOCOL 6.3).

    A table that remembers only so many closed sessions can be deceived: a late copy of an opening opens a session
    again that was closed longer ago, and then late copies of its commands are applied again. That, and nothing else,
    is allowed to happen: `may_repeat` tells of which clients.
    """

    def __init__(self, max_sessions: int) -> None:
        self.max_sessions = max_sessions
        self.open: OrderedDict[bytes, None] = OrderedDict()
        self.opened_again: set[bytes] = set()
        self._closed_at: dict[bytes, int] = {}
        self._closings = 0

    def learn(self, line: bytes) -> None:
        """A command is committed: `<term> APP <identity> ...`."""
        client, _, sequence = line.split(b" ", 3)[2].partition(b":")
        if client in self.open:
            self.open.move_to_end(client)
        elif sequence == b"0":
            self._open(client)

    def _open(self, client: bytes) -> None:
        closed_at = self._closed_at.get(client)
        if closed_at is not None:
            if self._closings - closed_at < self.max_sessions:
                return  # still remembered: what is closed stays closed
            self.opened_again.add(client)
        self.open[client] = None
        if len(self.open) > self.max_sessions:
            self._closings += 1
            self._closed_at[self.open.popitem(last=False)[0]] = self._closings

    def may_repeat(self, line: bytes) -> bool:
        """Whether the command of this line may be one that was applied before."""
        return line.split(b" ", 3)[2].partition(b":")[0] in self.opened_again


class ShardOracle:
    """Shards, their epochs, and slots: what an entry that took effect may have changed of them (PROTOCOL 10)."""

    def __init__(self) -> None:
        self._shards: dict[str, _Shard] = {}
        self._epochs: dict[str, int] = {}
        self._slots: dict[str, int] = {}

    def learn(self, index: int, entry: Entry, state: ClusterState) -> None:
        """`entry` took effect at `index`, and `state` is what came of it."""
        shards: dict[str, _Shard] = {}
        for member in state.nodes.values():
            shards[member.shard_id] = shards.get(member.shard_id, frozenset()) | {(member.id, member.primary_id)}
        epochs = {shard: state.shard_epoch(shard) for shard in shards}
        slots = {member.id: member.slot_bits for member in state.nodes.values()}
        try:
            self._check_shards(entry, shards, epochs)
            self._check_slots(entry, slots)
        except BrokenInvariant as error:
            raise BrokenInvariant(f"entry {index}, {entry.encode()[:120]!r}: {error}") from None
        self._shards, self._epochs, self._slots = shards, epochs, slots

    def _check_shards(self, entry: Entry, shards: dict[str, _Shard], epochs: dict[str, int]) -> None:
        joins = isinstance(entry, NodeJoin)
        for shard, now in shards.items():
            before = self._shards.get(shard)
            primaries = _primaries(now)
            # Who comes with the shard that it had in an earlier life is taken in as it is: a second primary there.
            if not primaries or (primaries > 1 and not joins and (before is None or primaries > _primaries(before))):
                raise BrokenInvariant(f"the shard {shard} has {primaries} primaries")
            grown = epochs[shard] - self._epochs.get(shard, epochs[shard])
            if grown != (before is not None and before != now and not joins):
                raise BrokenInvariant(f"the epoch of the shard {shard} grows by {grown}")
        for shard, epoch in _named_epochs(entry):
            if self._epochs.get(shard, 0) not in (0, epoch):
                raise BrokenInvariant(f"the shard {shard} was at epoch {self._epochs[shard]}: it is stale")

    def _check_slots(self, entry: Entry, slots: dict[str, int]) -> None:
        before, after = _union(self._slots), _union(slots)
        if before != after and not isinstance(entry, SlotChange):
            raise BrokenInvariant("it gives or takes slots")
        if isinstance(entry, Failover) and slots[entry.replica_id] != self._slots.get(entry.primary_id, 0):
            raise BrokenInvariant("the new primary has other slots than the old one had")


def _primaries(shard: _Shard) -> int:
    return sum(primary_id is None for _, primary_id in shard)


def _named_epochs(entry: Entry) -> tuple[tuple[str, int], ...]:
    if isinstance(entry, Failover):
        return ((entry.shard_id, entry.shard_epoch),)
    if isinstance(entry, SetReplicaOf):
        return ((entry.source_shard, entry.source_epoch), (entry.target_shard, entry.target_epoch))
    return ()


def _union(slots: dict[str, int]) -> int:
    bits = 0
    for owned in slots.values():
        if bits & owned:
            raise BrokenInvariant("a slot has two owners")
        bits |= owned
    return bits
