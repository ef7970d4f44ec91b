"""What can be asked of the cluster's metadata, and the view of it that a service gets.

Floor 2. Nothing here changes anything: what entries do is `state.py`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..records import SLOTS, NodeRecord
from .members import Member, Ranges, record_of

__all__ = ["ALL_SLOTS", "ClusterView", "Metadata"]

ALL_SLOTS: Final = (1 << SLOTS) - 1
"""Every slot, one bit each."""


class Metadata:
    """Members, voters, slots and shards, after some prefix of the log.

    Two are equal if their node lines are.
    """

    __slots__ = ("_epochs", "_nodes", "_voters")

    _nodes: Mapping[str, Member]
    _epochs: Mapping[str, int]
    _voters: frozenset[str]

    @property
    def nodes(self) -> Mapping[str, Member]:
        """The members by id, in no order. For reading only."""
        return self._nodes

    @property
    def size(self) -> int:
        """How many voters there are."""
        return len(self._voters)

    def voters(self) -> frozenset[str]:
        """The ids of the voters, as applied."""
        return self._voters

    def shard_of(self, node_id: str) -> str | None:
        """The shard of a member; None of another node."""
        member = self._nodes.get(node_id)
        return None if member is None else member.shard_id

    def shard_epoch(self, shard_id: str) -> int:
        """The shard's epoch; 0 where it has no members."""
        return self._epochs.get(shard_id, 0)

    def shard_members(self, shard_id: str) -> list[str]:
        """The ids of a shard's members, ascending."""
        return sorted(member.id for member in self._nodes.values() if member.shard_id == shard_id)

    def shard_ids(self) -> list[str]:
        """The shards that have members, ascending."""
        return sorted(self._epochs)

    def is_primary(self, node_id: str) -> bool:
        """Whether the node is a member and a primary."""
        member = self._nodes.get(node_id)
        return member is not None and member.primary_id is None

    def primary_of(self, node_id: str) -> str | None:
        """The primary of a replica; None of any other node."""
        member = self._nodes.get(node_id)
        return None if member is None else member.primary_id

    def replicas_of(self, node_id: str) -> list[str]:
        """The ids of a primary's replicas, ascending."""
        return sorted(member.id for member in self._nodes.values() if member.primary_id == node_id)

    def slots_of(self, node_id: str) -> Ranges:
        """The slots of a node as ascending, maximal (first, last) pairs; none of a node that is no member."""
        member = self._nodes.get(node_id)
        return () if member is None else member.slots

    def owner_of(self, slot: int) -> str | None:
        """The owner of a slot. **Cost**: one look at each member."""
        bit = 1 << slot
        return next((member.id for member in self._nodes.values() if member.slot_bits & bit), None)

    def assigned_bits(self) -> int:
        """The slots that have an owner, one bit each."""
        bits = 0
        for member in self._nodes.values():
            bits |= member.slot_bits
        return bits

    def assigned(self) -> int:
        """How many slots have an owner."""
        return self.assigned_bits().bit_count()

    def covered(self) -> bool:
        """Whether every slot has an owner that is not failed (PROTOCOL 10)."""
        bits = 0
        for member in self._nodes.values():
            if not member.failed:
                bits |= member.slot_bits
        return bits == ALL_SLOTS

    def records(self, myself: str | None = None) -> list[NodeRecord]:
        """The members' node lines as values, ascending by id; `myself` gets that flag.

        Links are no part of the state: `connected` is always true, and the times are 0 (NODESCONF 2).
        """
        members = (self._nodes[node_id] for node_id in sorted(self._nodes))
        return [record_of(m, self._epochs[m.shard_id], myself=m.id == myself) for m in members]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metadata):
            return NotImplemented
        return self._nodes == other._nodes and self._epochs == other._epochs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} of {len(self._nodes)} members, {self.size} voters, {self.assigned()} slots>"


class ClusterView(Metadata):
    """The applied cluster metadata of one moment, for reading only: `Node.cluster`.

    What is applied later does not change it: ask for another one. It shares its members with the state, and they never
    change; so it costs a copy of one dictionary, and nothing where nothing was applied since the last one was made.
    """

    __slots__ = ("_shards", "_slots")

    def __init__(self, nodes: Mapping[str, Member], epochs: Mapping[str, int], voters: frozenset[str]) -> None:
        """Nobody may change what is given afterwards."""
        self._nodes = MappingProxyType(nodes)
        self._epochs = MappingProxyType(epochs)
        self._voters = voters
        self._slots: Mapping[int, str] | None = None
        self._shards: Mapping[str, tuple[str, ...]] | None = None

    @property
    def slots(self) -> Mapping[int, str]:
        """The owner's id for each slot that has one, ascending by slot; `slots_of` gives a node's as ranges.

        **Cost**: that of a dictionary of the slots, where it is asked of this view for the first time.
        """
        if self._slots is None:
            ranges = sorted((*pair, member.id) for member in self._nodes.values() for pair in member.slots)
            self._slots = MappingProxyType(
                {slot: owner for first, last, owner in ranges for slot in range(first, last + 1)}
            )
        return self._slots

    @property
    def shards(self) -> Mapping[str, tuple[str, ...]]:
        """The ids of each shard's nodes by the shard's id, both ascending, but the primary first."""
        if self._shards is None:
            ranked = sorted(self._nodes.values(), key=lambda m: (m.shard_id, m.primary_id is not None, m.id))
            shards: dict[str, tuple[str, ...]] = {}
            for member in ranked:
                shards[member.shard_id] = (*shards.get(member.shard_id, ()), member.id)
            self._shards = MappingProxyType(shards)
        return self._shards
