"""What the applied entries have made of the cluster: members, voters, slots, shards.

Floor 2. Deterministic: equal states and equal entries give equal states, on every member alike (PROTOCOL 5.5). Who
leads, who is linked, which node this is and what time it is can't be asked here, nor `APP` (its meaning is the state
machine's and `sessions.py`'s). A state is empty at index 0: the founder's own NODE_JOIN is what makes it a member.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import EntryError, InvariantViolation, ParseError
from ..hot import nodesconf
from ..records import Address, NodeRecord
from .entries import (
    AddVoter,
    DelVoter,
    Entry,
    Failover,
    NodeFail,
    NodeForget,
    NodeInfo,
    NodeJoin,
    NodeRecover,
    Noop,
    SetReplicaOf,
    SlotChange,
)
from .members import Member, bits_of, canonical_address, frozen, member_of, ranges_of
from .view import ALL_SLOTS, ClusterView, Metadata

__all__ = ["HOLDS", "VALID", "ClusterState", "Kind", "Verdict"]

_MOST: Final = (1 << 64) - 1
_ID_LENGTH: Final = 40


class Kind(enum.Enum):
    """What a check finds (PROTOCOL 6.4, 6.5)."""

    VALID = "valid"
    HOLDS = "holds"
    CONFLICT = "conflict"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found, and why.

    VALID: it changes the state as it says (a NOOP changes nothing). HOLDS: it is so already; a success that changes
    nothing. CONFLICT: a shard moved on; it may be proposed anew. REJECTED: final.
    """

    kind: Kind
    reason: str = ""

    @property
    def success(self) -> bool:
        """Whether its proposer is told that it succeeded."""
        return self.kind is Kind.VALID or self.kind is Kind.HOLDS


VALID: Final = Verdict(Kind.VALID)
HOLDS: Final = Verdict(Kind.HOLDS)


@dataclass(frozen=True, slots=True)
class _Change:
    """What an entry does, where it is valid: members new or replaced, one forgotten, shards whose epoch grows."""

    members: tuple[Member, ...] = ()
    forgotten: str | None = None
    bumped: tuple[str, ...] = ()


class ClusterState(Metadata):
    """The cluster's metadata after some prefix of the log.

    Invariants: 1. a member stands under its own id; 2. no slot has two owners; 3. a replica owns no slots, and its
    primary is a member, a primary, and of its shard; 4. exactly the shards that have members have an epoch; 5. who
    was forgotten is no member; 6. the voters are the members that vote.

    Two states are equal if their node lines are. `removed` is not part of that: it is kept while the process lives.
    """

    __slots__ = ("_removed", "_view")

    _nodes: dict[str, Member]
    _epochs: dict[str, int]

    def __init__(self) -> None:
        self._nodes = {}
        self._epochs = {}  # replaced, never changed: views share it
        self._removed: dict[str, int] = {}
        self._voters = frozenset()
        self._view: ClusterView | None = None

    @property
    def removed(self) -> dict[str, int]:
        """Forgotten ids, each with the index of its NODE_FORGET (PROTOCOL 8)."""
        return self._removed

    def view(self) -> ClusterView:
        """What is applied now, for who only reads. **Cost**: a dictionary is copied, where anything has changed."""
        if self._view is None:
            self._view = ClusterView(self._nodes.copy(), self._epochs, self._voters)
        return self._view

    def stale(self, shard_id: str, epoch: int) -> bool:
        """Whether an entry that was made for that epoch of the shard comes too late (NODESCONF 1.7)."""
        return self._epochs.get(shard_id, 0) not in (0, epoch)

    # What changes it.

    def check(self, entry: Entry) -> Verdict:
        """What `apply` would do with the entry. **Raises** ValueError for an `App`."""
        outcome = self._rule(entry)
        return outcome if isinstance(outcome, Verdict) else VALID

    def apply(self, index: int, entry: Entry) -> Verdict:
        """Applies the entry that is committed at `index`: a no-op unless VALID. **Raises** ValueError for an `App`."""
        outcome = self._rule(entry)
        if isinstance(outcome, Verdict):
            return outcome
        self._take(index, outcome)
        return VALID

    def copy(self) -> ClusterState:
        """A state of its own. **Cost**: three dictionaries are copied; the members are shared."""
        other = ClusterState()
        other._nodes = self._nodes.copy()
        other._epochs = self._epochs.copy()
        other._removed = self._removed.copy()
        other._voters = self._voters
        return other

    def _rule(self, entry: Entry) -> _Change | Verdict:
        rule = _RULES.get(type(entry))
        if rule is None:
            raise ValueError(f"{type(entry).__name__} says nothing about the cluster's state")
        return rule(self, entry)

    def _take(self, index: int, change: _Change) -> None:
        """The one place where the state changes."""
        self._view = None
        before = [self._nodes.get(member.id) for member in change.members]
        for member in change.members:
            self._nodes[member.id] = member
            self._removed.pop(member.id, None)
        if change.forgotten is not None:
            del self._nodes[change.forgotten]
            self._removed[change.forgotten] = index
        if change.bumped or None in before:
            shards = dict.fromkeys(member.shard_id for member in self._nodes.values())
            epochs = self._epochs
            self._epochs = {shard: min(epochs.get(shard, 0) + (shard in change.bumped), _MOST) for shard in shards}
        # The same set while nobody's vote changes: slots and flags change often, votes hardly ever.
        if any(old is None or old.voter != new.voter for old, new in zip(before, change.members, strict=True)):
            self._voters = frozenset(member.id for member in self._nodes.values() if member.voter)

    # How it is read; `records` writes it.

    @classmethod
    def from_records(cls, records: Iterable[NodeRecord]) -> ClusterState:
        """A fresh state of node lines, in any order. The flag `myself`, times, links and open slots say nothing here.

        **Raises** EntryError for lines that no state can have given.
        """
        state = cls()
        lines = list(records)
        for record in lines:
            if record.id in state._nodes:
                raise EntryError(f"node {record.id} has two lines")
            state._nodes[record.id] = member_of(record)
        owned = 0
        for member in list(state._nodes.values()):
            if owned & member.slot_bits:
                slot = ranges_of(owned & member.slot_bits)[0][0]
                raise EntryError(f"slot {slot} of node {member.id} is on another node's line too")
            owned |= member.slot_bits
            if member.primary_id is not None:
                state._nodes[member.id] = replace(member, shard_id=_primary_on_load(state, member).shard_id)
        # A replica's line shows its primary's epoch, and a parsed one none at all: only the others count.
        epochs = dict.fromkeys((member.shard_id for member in state._nodes.values()), 0)
        for record in lines:
            if record.primary_id is None:
                shard = record.aux["shard-id"]
                epochs[shard] = max(epochs[shard], record.epoch)
        state._epochs = epochs
        state._voters = frozenset(member.id for member in state._nodes.values() if member.voter)
        return state

    def verify(self) -> None:
        """Raises InvariantViolation for the first of the numbered invariants that is broken. Tests call it."""
        owned = 0
        for node_id, member in self._nodes.items():
            if member.id != node_id or len(node_id) != _ID_LENGTH:
                raise InvariantViolation(f"1: {member.id} stands under {node_id}")
            if owned & member.slot_bits or member.slot_bits & ~ALL_SLOTS:
                raise InvariantViolation(f"2: {node_id} owns slots of another node, or none that exist")
            owned |= member.slot_bits
            if member.primary_id is not None:
                primary = self._nodes.get(member.primary_id)
                if primary is None or primary.primary_id is not None or primary.shard_id != member.shard_id:
                    raise InvariantViolation(
                        f"3: {node_id} is a replica of {member.primary_id}, which is not its primary"
                    )
                if member.slot_bits:
                    raise InvariantViolation(f"3: the replica {node_id} owns slots")
        if set(self._epochs) != {member.shard_id for member in self._nodes.values()}:
            raise InvariantViolation("4: the shards with an epoch are not the shards with members")
        if self._removed.keys() & self._nodes.keys():
            raise InvariantViolation("5: a member is among the forgotten")
        if self._voters != {member.id for member in self._nodes.values() if member.voter}:
            raise InvariantViolation("6: the voters are not the members that vote")


# The rules: one function an entry type, from the state as it is to what changes, or to why nothing does. All look in
# the same order: does it hold already (a success, so that a proposal may be sent twice); are the nodes known; are the
# shards' epochs current; then everything else. What a moved shard explains is so a conflict and not a refusal.


def _noop(state: ClusterState, entry: Noop) -> _Change | Verdict:
    return _Change()


def _node_join(state: ClusterState, entry: NodeJoin) -> _Change | Verdict:
    # PROTOCOL 10: NODE_JOIN of a known node changes its address, never its vote. `voter` is a founder's word: where
    # there are voters already it makes a learner like any other, as the voter set in force has it (PROTOCOL 8).
    settled = _settled(entry.address)
    if isinstance(settled, Verdict):
        return settled
    address, shard_id = settled
    known = state._nodes.get(entry.node_id)
    founds = entry.voter and not state._voters
    if known is not None:
        joined = replace(known, address=address, voter=known.voter or founds)
        return HOLDS if joined == known else _Change((joined,))
    if shard_id is None:
        return _rejected(f"the address of node {entry.node_id} lacks its shard-id")
    return _Change((Member(entry.node_id, address, shard_id, voter=founds),))


def _node_forget(state: ClusterState, entry: NodeForget) -> _Change | Verdict:
    member = state._nodes.get(entry.node_id)
    if member is None:
        return HOLDS
    if state.stale(member.shard_id, entry.shard_epoch):
        return _conflict(state, member.shard_id, entry.shard_epoch)
    if member.voter:
        return _rejected(f"node {member.id} is a voter; it needs DEL_VOTER first")
    if member.slot_bits:
        return _rejected(f"node {member.id} has slots")
    if _has_replicas(state, member):
        return _rejected(f"node {member.id} has replicas")
    return _Change(forgotten=member.id, bumped=(member.shard_id,))


def _add_voter(state: ClusterState, entry: AddVoter) -> _Change | Verdict:
    member = state._nodes.get(entry.node_id)
    if member is None:
        return _unknown(entry.node_id)
    return HOLDS if member.voter else _Change((replace(member, voter=True),))


def _del_voter(state: ClusterState, entry: DelVoter) -> _Change | Verdict:
    member = state._nodes.get(entry.node_id)
    if member is None or not member.voter:
        return HOLDS
    if len(state._voters) == 1:
        return _rejected(f"node {member.id} is the last voter")
    return _Change((replace(member, voter=False),))


def _slot_change(state: ClusterState, entry: SlotChange) -> _Change | Verdict:
    wanted = bits_of(entry.ranges)
    source = target = None
    if entry.target_id is not None:
        target = state._nodes.get(entry.target_id)
        if target is None:
            return _unknown(entry.target_id)
    owned_by_target = state.assigned_bits() ^ ALL_SLOTS if target is None else target.slot_bits
    if wanted & ~owned_by_target == 0:
        return HOLDS
    if entry.source_id is not None:
        source = state._nodes.get(entry.source_id)
        if source is None:
            return _unknown(entry.source_id)
    for side, epoch in ((source, entry.source_epoch), (target, entry.target_epoch)):
        if side is not None and state.stale(side.shard_id, epoch):
            return _conflict(state, side.shard_id, epoch)
    if target is not None and not target.is_primary:
        return _rejected(f"node {target.id} is a replica")
    owned_by_source = state.assigned_bits() ^ ALL_SLOTS if source is None else source.slot_bits
    if missing := wanted & ~owned_by_source:
        slot = ranges_of(missing)[0][0]
        return _rejected(f"slot {slot} {'has an owner' if source is None else f'is not owned by {source.id}'}")
    changed = []
    if source is not None:
        changed.append(replace(source, slot_bits=source.slot_bits & ~wanted))
    if target is not None:
        changed.append(replace(target, slot_bits=target.slot_bits | wanted))
    return _Change(tuple(changed))


def _set_replica_of(state: ClusterState, entry: SetReplicaOf) -> _Change | Verdict:
    replica = state._nodes.get(entry.replica_id)
    if replica is None:
        return _unknown(entry.replica_id)
    if replica.primary_id == entry.primary_id and replica.shard_id == entry.target_shard:
        return HOLDS
    primary = None
    if entry.primary_id is not None:
        primary = state._nodes.get(entry.primary_id)
        if primary is None:
            return _unknown(entry.primary_id)
    for shard_id, epoch in ((entry.source_shard, entry.source_epoch), (entry.target_shard, entry.target_epoch)):
        if state.stale(shard_id, epoch):
            return _conflict(state, shard_id, epoch)
    refusal = _replica_refusal(state, entry, replica, primary)
    if refusal:
        return _rejected(refusal)
    moved = replace(replica, primary_id=entry.primary_id, shard_id=entry.target_shard)
    return _Change((moved,), bumped=(entry.source_shard, entry.target_shard))


def _replica_refusal(state: ClusterState, entry: SetReplicaOf, replica: Member, primary: Member | None) -> str:
    """Why a SET_REPLICA_OF that is neither done nor stale can't be; empty if it can."""
    if replica.shard_id != entry.source_shard:
        return f"node {replica.id} is not in the shard {entry.source_shard}"
    if replica.slot_bits:
        return f"node {replica.id} has slots"
    if primary is None:
        # NODESCONF 3.3: a promotion makes a shard; in one that has members it would be a second primary.
        if replica.is_primary:
            return f"node {replica.id} is a primary already"
        return f"the shard {entry.target_shard} has members" if entry.target_shard in state._epochs else ""
    if primary.id == replica.id:
        return f"node {replica.id} can't replicate itself"
    if not primary.is_primary:
        return f"node {primary.id} is a replica"
    if primary.shard_id != entry.target_shard:
        return f"node {primary.id} is not in the shard {entry.target_shard}"
    return f"node {replica.id} has replicas" if _has_replicas(state, replica) else ""


def _failover(state: ClusterState, entry: Failover) -> _Change | Verdict:
    replica, old = state._nodes.get(entry.replica_id), state._nodes.get(entry.primary_id)
    if replica is None or old is None:
        return _unknown(entry.primary_id if old is None else entry.replica_id)
    if replica.is_primary and replica.shard_id == entry.shard_id and old.primary_id == replica.id:
        return HOLDS
    if state.stale(entry.shard_id, entry.shard_epoch):
        return _conflict(state, entry.shard_id, entry.shard_epoch)
    if replica.primary_id != old.id:
        return _rejected(f"node {replica.id} is not a replica of {old.id}")
    if replica.shard_id != entry.shard_id:
        return _rejected(f"node {replica.id} is not in the shard {entry.shard_id}")
    siblings = (m for m in state._nodes.values() if m.primary_id == old.id and m.id != replica.id)
    changed = (
        replace(replica, primary_id=None, slot_bits=old.slot_bits),
        replace(old, primary_id=replica.id, slot_bits=0),
        *(replace(sibling, primary_id=replica.id) for sibling in siblings),
    )
    return _Change(changed, bumped=(entry.shard_id,))


def _node_info(state: ClusterState, entry: NodeInfo) -> _Change | Verdict:
    member = state._nodes.get(entry.node_id)
    if member is None:
        return _unknown(entry.node_id)
    settled = _settled(entry.address)
    if isinstance(settled, Verdict):
        return settled
    # The whole address is replaced, so a field that is not named anew is gone (NODESCONF 1.2); the shard stays.
    changed = replace(member, address=settled[0], nofailover=entry.nofailover)
    return HOLDS if changed == member else _Change((changed,))


def _node_fail(state: ClusterState, entry: NodeFail) -> _Change | Verdict:
    return _mark(state, entry.node_id, failed=True)


def _node_recover(state: ClusterState, entry: NodeRecover) -> _Change | Verdict:
    return _mark(state, entry.node_id, failed=False)


def _mark(state: ClusterState, node_id: str, *, failed: bool) -> _Change | Verdict:
    member = state._nodes.get(node_id)
    if member is None:
        return _unknown(node_id)
    return HOLDS if member.failed == failed else _Change((replace(member, failed=failed),))


_RULES: dict[type[Entry], Callable[[ClusterState, Any], _Change | Verdict]] = {
    Noop: _noop,
    NodeJoin: _node_join,
    NodeForget: _node_forget,
    AddVoter: _add_voter,
    DelVoter: _del_voter,
    SlotChange: _slot_change,
    SetReplicaOf: _set_replica_of,
    Failover: _failover,
    NodeInfo: _node_info,
    NodeFail: _node_fail,
    NodeRecover: _node_recover,
}


def _rejected(reason: str) -> Verdict:
    return Verdict(Kind.REJECTED, reason)


def _unknown(node_id: str) -> Verdict:
    return Verdict(Kind.REJECTED, f"node {node_id} is not known")


def _conflict(state: ClusterState, shard_id: str, epoch: int) -> Verdict:
    reason = f"the shard {shard_id} is at epoch {state.shard_epoch(shard_id)}, not {epoch}"
    return Verdict(Kind.CONFLICT, reason)


def _has_replicas(state: ClusterState, member: Member) -> bool:
    return any(other.primary_id == member.id for other in state._nodes.values())


def _settled(text: str) -> tuple[Address, str | None] | Verdict:
    """An entry's address as a member keeps it, and the shard-id that it names."""
    try:
        address, shard_id = canonical_address(nodesconf.parse_address(text))
        return frozen(address), shard_id
    except (ParseError, EntryError) as error:
        return _rejected(f"bad address: {error}")


def _primary_on_load(state: ClusterState, replica: Member) -> Member:
    primary = state._nodes.get(replica.primary_id or "")
    if primary is None or primary.primary_id is not None:
        raise EntryError(f"node {replica.id} is a replica of {replica.primary_id}, which is no primary here")
    return primary
