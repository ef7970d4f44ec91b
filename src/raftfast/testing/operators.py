"""What operators do in a run: they lose nodes, have the cluster forget what is gone, and bring nodes in again.

Floor 6. They ask as people and tools do, through any member, and see no more than members show; only what may be
destroyed at all is decided by what is true, since more than a minority's copies can't be lost without loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cluster.entries import Entry, Failover, NodeForget, SlotChange
from ..cluster.state import ClusterState
from ..consensus import Standing

if TYPE_CHECKING:
    from .process import SimulatedNode
    from .simulation import Simulation

__all__ = ["Operators"]

_VOTER_CHANGES = (b" ADD_VOTER ", b" DEL_VOTER ")


class Operators:
    """The people around a cluster. `lost` are the ids whose copies were destroyed and that it still counts on."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._cares = False
        self._losing: dict[str, float] = {}
        """Ids of nodes that were told to begin anew, each with when: a paused one, or a leader, does so later."""

    @property
    def lost(self) -> list[str]:
        """Ids of nodes that were reset or wiped and must be forgotten."""
        simulation = self._simulation
        if simulation.cluster_id is None:
            return []
        truth = simulation.checks.truth(simulation.cluster_id)
        return sorted(truth.lost & truth.state.nodes.keys())

    # ------------------------------------------------------------------ losing

    def may_lose(self, node: SimulatedNode) -> bool:
        """Whether the node's copies may be destroyed: in every voter set that is, or may come, a majority remains.

        Not while a removal is under way: a leader that has not noticed yet that the node is gone would count on it.
        A silent voter in whose place the leader has put another is about to be taken out by it.
        """
        simulation = self._simulation
        cluster_id = simulation.cluster_id
        if cluster_id is None or not node.is_member or node.cluster_id != cluster_id:
            return False
        if simulation.timeline.now - simulation.workload.removal_at < 4 * simulation.config.node_timeout:
            return False
        truth = simulation.checks.truth(cluster_id)
        sets = {truth.state.voters()}
        for other in simulation.nodes:
            if other.member is not None and other.cluster_id == cluster_id:
                voters = other.member.raft.voters
                sets |= {voters, voters - other.member.leader.replaced}
            elif other.member is None and _may_change_voters(other, len(truth.committed)):
                return False
        late = simulation.timeline.now - 20 * simulation.config.node_timeout
        gone = truth.lost | {node.node_id} | {node_id for node_id, told in self._losing.items() if told > late}
        return all(2 * len(voters - gone) > len(voters | {node.node_id}) for voters in sets)

    def lose(self, node: SimulatedNode, *, wiped: bool, down: float) -> None:
        """The node is wiped, in one way or another, and starts again after `down` seconds; or it is reset."""
        simulation, rng = self._simulation, self._simulation.rng
        self._losing[node.node_id] = simulation.timeline.now
        if wiped:
            node.wipe(keeps_id=rng.random() < 0.7, joining=rng.random() < 0.4)
            simulation.restart_later(node, down)
        else:
            node.reset(hard=rng.random() < 0.5)
        if not self._cares:
            self._cares = True
            self._later()

    # ------------------------------------------------------------------ mending

    def _later(self) -> None:
        simulation = self._simulation
        delay = simulation.config.node_timeout * simulation.rng.uniform(0.2, 3.0)
        simulation.timeline.at(simulation.timeline.now + delay, self._care)

    def _care(self) -> None:
        simulation = self._simulation
        self.forget_lost()
        simulation.bring_in()
        alone = any(node.member is not None and node.member.standing is Standing.SINGLETON for node in simulation.nodes)
        self._cares = simulation.storm.raging and (alone or bool(self.lost))
        if self._cares:
            self._later()

    def forget_lost(self) -> None:
        """One step towards a cluster that counts on nobody who is gone."""
        simulation = self._simulation
        members = [node for node in simulation.members() if node.cluster_id == simulation.cluster_id]
        for lost in self.lost:
            asked = [node for node in members if node.node_id != lost]
            if asked:
                self.forget(simulation.rng.choice(asked), lost)

    def forget(self, node: SimulatedNode, node_id: str) -> None:
        """Has `node` ask for what must come before the other may be forgotten, or for that."""
        member = node.member
        if member is not None and node_id in member.state.nodes:
            self._simulation.workload.change(node, _towards_forget(member.state, node_id))


def _may_change_voters(node: SimulatedNode, committed: int) -> bool:
    """Whether the log of a node that is down ends in a voter change of which nobody knows whether it will be."""
    first = max(0, committed - node.disk.stored_index - 1)
    return any(kind in line for line in node.disk.lines[first:] for kind in _VOTER_CHANGES)


def _towards_forget(state: ClusterState, node_id: str) -> Entry:
    """A primary can't be forgotten while it has replicas or slots."""
    shard = state.nodes[node_id].shard_id
    epoch = state.shard_epoch(shard)
    replica = next((other.id for other in state.nodes.values() if other.primary_id == node_id), None)
    if replica is not None:
        return Failover(replica, node_id, shard, epoch)
    slots = state.slots_of(node_id)
    return SlotChange(node_id, epoch, None, 0, slots) if slots else NodeForget(node_id, epoch)
