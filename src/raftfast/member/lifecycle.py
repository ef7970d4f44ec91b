"""What this node is to its cluster, and becomes: alone, joining, a member, forgotten.

Floor 3. Each verb is one step from one standing to another, with all that belongs to it. When a step is due is said by
the files that hear of it: `meeting`, `applying`, `snapshots`, `inbox`. No Raft rule in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cluster.entries import NodeInfo, NodeJoin, SlotChange
from ..cluster.members import bits_of, ranges_of
from ..cluster.state import ClusterState
from ..consensus import Standing
from ..errors import ClusterReset, NodeClosed
from ..messages import Message
from ..records import Address
from .origin import Identity, own_state

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Lifecycle"]

_INFO, _WARNING = 20, 30


class Lifecycle:
    """The steps between a node's standings.

    Invariant: `member.raft.standing`, the state, the cluster id and the claimed slots change in one step.
    """

    def __init__(self, member: Member, claimed_slots: Sequence[tuple[int, int]]) -> None:
        self._member = member
        self.claimed_slots = tuple(claimed_slots)
        """What a joiner owned while it was alone, and asks for once it is a member."""
        self.resets = 0
        """How often the node was reset since it started."""

    # ------------------------------------------------------------------ alone

    def found_if_singleton(self, now: float) -> None:
        """Before its first entry a fresh singleton founds a cluster of one (PROTOCOL 8)."""
        member = self._member
        if member.standing is not Standing.SINGLETON:
            return
        member.cluster_id = member.identity.shard_id
        entries = [NodeJoin(member.node_id, member.identity.text, True).encode()]
        slots = member.state.slots_of(member.node_id)
        if slots:
            entries.append(SlotChange(None, 0, member.node_id, 0, slots).encode())
        member.raft.found(entries, now)
        member.neighbours.moved = True
        member.log(_INFO, f"founded cluster {member.cluster_id}")

    def invite(self, join: NodeJoin, now: float) -> None:
        """Somebody is to be added: proposes its NODE_JOIN as a learner."""
        self.found_if_singleton(now)
        self._member.proposals.add_entry(join.encode(), None, now)

    def reset(self, identity: Identity, token: Any, now: float) -> None:
        """See `Member.reset`."""
        member = self._member
        self._empty_state_machine()  # first: should it raise, nothing has changed
        self.resets += 1
        member.fail_waiting(lambda sent: ClusterReset("cluster reset").once_sent(sent), "cluster reset")
        member.identity = identity
        self.claimed_slots = ()
        self._become_singleton(0, now)
        member.links.close_all("cluster reset")
        member.storing.answer_with_next(token)

    def _become_singleton(self, term: int, now: float) -> None:
        member = self._member
        member.state = own_state(member.identity, self.claimed_slots)
        self.claimed_slots = ()
        member.cluster_id = None
        member.sessions = member.new_sessions()
        member.raft.reset(Standing.SINGLETON, term, now, member.node_id)
        self._after_reset()
        member.meetings.standing_changed(now)

    def _empty_state_machine(self) -> None:
        member = self._member
        if member.state_machine is not None and member.raft.last_applied:
            member.state_machine.restore(())

    def _after_reset(self) -> None:
        self._member.neighbours.clear()
        self._member.snapshots.reset()

    # ------------------------------------------------------------------ joining

    def become_joiner(self, when_durable: tuple[int, Message] | None, now: float) -> None:
        """A fresh singleton steps down: no term, vote, log or state; `joining` is durable before it says so.

        `when_durable`: a message for a link that waits for that.
        """
        member = self._member
        self.claimed_slots = member.state.slots_of(member.node_id)
        member.state = ClusterState()
        member.cluster_id = None
        member.raft.reset(Standing.JOINER, 0, now)
        self._after_reset()
        if when_durable is not None:
            member.storing.send_with_next(*when_durable)
        member.log(_INFO, "stepped down to join a cluster")

    def tick(self, now: float) -> None:
        """A joiner that nobody came for gives up."""
        if self._member.standing is Standing.JOINER and self._joins_for_nothing(now):
            self.give_up_joining("no leader was heard while joining: alone again", now)

    def give_up_joining(self, why: str, now: float) -> None:
        """A joiner is a fresh singleton again, in a term above all that it saw (PROTOCOL 3).

        Not while the state machine is being replaced: that ends first, and whoever says so is asked again.
        """
        member = self._member
        if member.snapshots.installing:
            return
        self._empty_state_machine()
        self._become_singleton(member.raft.current_term + 1, now)
        member.log(_WARNING, why)

    def _joins_for_nothing(self, now: float) -> bool:
        """Whether this joiner waited long enough for a leader.

        Not when it is a voter by its own log, though it has not heard that this is committed: what it acknowledged
        counts, and it must not lose it.
        """
        member, raft = self._member, self._member.raft
        votes = member.node_id in raft.voters and member.neighbours.is_counted_on
        return raft.silent_for(now) > member.config.joiner_timeout and not votes

    # ------------------------------------------------------------------ a member

    def became_member(self, now: float) -> None:
        """A joiner found itself in what it applied or installed."""
        member = self._member
        member.raft.join(now)
        member.orders.wants_rewrite = True
        member.event("joined", member.node_id)
        claimed, self.claimed_slots = self.claimed_slots, ()
        free = tuple(ranges_of(bits_of(claimed) & ~member.state.assigned_bits()))
        if free:
            mine = member.state.nodes[member.node_id]
            entry = SlotChange(None, 0, member.node_id, member.state.shard_epoch(mine.shard_id), free)
            member.proposals.add_entry(entry.encode(), None, now)
        if sum(b - a + 1 for a, b in claimed) != sum(b - a + 1 for a, b in free):
            member.report("slots that this node owned before it joined have other owners now: they are not claimed")
        self.propose_own_address(now)
        member.meetings.standing_changed(now)
        member.log(_INFO, "Promoted from joiner to follower")

    def own_address_seen(self, ip: str) -> None:
        """A connection shows our own address: taken where we have none of our own (PROTOCOL 2)."""
        member = self._member
        if not member.identity.address.ip and ip:
            self.set_address(replace(member.identity.address, ip=ip), member.now)

    def set_address(self, address: Address, now: float) -> None:
        """What the node announces has changed."""
        member = self._member
        member.identity = replace(member.identity, address=address)
        self.propose_own_address(now)

    def propose_own_address(self, now: float) -> None:
        """Proposes NODE_INFO where the state has another address of ours."""
        member = self._member
        mine = member.state.nodes.get(member.node_id)
        if mine is None or mine.address == member.identity.address or member.standing is Standing.REMOVED:
            return
        entry = NodeInfo(member.node_id, member.identity.info_text, mine.nofailover)
        if member.standing is Standing.SINGLETON:
            member.state.apply(0, entry)
            member.storing.order_rewrite(None)
        elif member.standing is Standing.MEMBER:
            member.proposals.add_wanted(entry.encode(), now)

    # ------------------------------------------------------------------ forgotten

    def was_removed(self, now: float) -> None:
        """This node learned that its cluster forgot it."""
        member = self._member
        member.raft.remove(now)
        text = "this node was forgotten by its cluster"
        member.fail_waiting(lambda sent: NodeClosed(text).once_sent(sent), "forgotten")
        member.neighbours.moved = True
        member.orders.wants_rewrite = True
        member.event("removed", member.node_id)
        member.report(f"{text}: it waits for CLUSTER RESET")
