"""Faults as they happen: at each moment, by the rates of a run, something goes wrong at some node.

Floor 6. Each fault is a method of its own; `Simulation` has those that tests call by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cluster.entries import AddVoter, DelVoter, NodeForget
from ..consensus import Standing

if TYPE_CHECKING:
    from .process import SimulatedNode
    from .simulation import Simulation

__all__ = ["Storm"]

_MOST_NODES = 9


class Storm:
    """Makes faults happen until it is ended."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.raging = False
        faults = simulation.faults
        self._kinds = [(kind, getattr(faults, kind)) for kind in faults.kinds() if getattr(faults, kind) > 0]

    def begin(self) -> None:
        """Faults from now on."""
        self.raging = bool(self._kinds)
        self._wait()

    def end(self) -> None:
        """No new faults."""
        self.raging = False

    def _wait(self) -> None:
        if self.raging:
            timeline, rng = self.simulation.timeline, self.simulation.rng
            rate = sum(rate for _, rate in self._kinds) / self.simulation.config.node_timeout
            timeline.at(timeline.now + rng.expovariate(rate), self._strike)

    def _strike(self) -> None:
        if not self.raging:
            return
        self._wait()
        rng, simulation = self.simulation.rng, self.simulation
        kind = rng.choices([kind for kind, _ in self._kinds], [rate for _, rate in self._kinds])[0]
        up = [node for node in simulation.nodes if node.is_up]
        if up:
            getattr(self, f"_{kind}")(rng.choice(up))

    def _time(self, least: float, most: float) -> float:
        return self.simulation.config.node_timeout * self.simulation.rng.uniform(least, most)

    # ------------------------------------------------------------------ processes

    def _crash(self, node: SimulatedNode) -> None:
        rng, simulation = self.simulation.rng, self.simulation
        victims = [node]
        if rng.random() < 0.1:
            victims = [other for other in simulation.nodes if other.is_up]
        for victim in victims:
            victim.crash(power=rng.random() < 0.3)
            if victim.number == 1 and rng.random() < 0.2:
                victim.move()  # only ever this one: two that lose each other so can be brought together by nobody
            simulation.restart_later(victim, self._time(0.01, 1.0) if rng.random() < 0.6 else self._time(1.0, 8.0))

    def _stop(self, node: SimulatedNode) -> None:
        self.simulation.stop_gracefully(node, self._time(0.1, 2.0))

    def _pause(self, node: SimulatedNode) -> None:
        node.pause(self._time(0.05, 0.6) if self.simulation.rng.random() < 0.5 else self._time(0.6, 4.0))

    def _compact(self, node: SimulatedNode) -> None:
        node.now(node.compact)

    def _trim(self, node: SimulatedNode) -> None:
        node.now(node.trim)

    # ------------------------------------------------------------------ network

    def _partition(self, node: SimulatedNode) -> None:
        rng, nodes = self.simulation.rng, self.simulation.nodes
        side = {other.number for other in nodes if rng.random() < 0.5}
        if rng.random() < 0.4:
            side = {node.number}
        others = {other.number for other in nodes} - side
        pairs = {(a, b) for a in side for b in others} | {(b, a) for a in side for b in others}
        self._block(pairs)

    def _one_way(self, node: SimulatedNode) -> None:
        rng, nodes = self.simulation.rng, self.simulation.nodes
        others = [other.number for other in nodes if other is not node]
        if others and rng.random() < 0.5:
            others = [rng.choice(others)]
        pairs = {(node.number, other) for other in others}
        self._block(pairs if rng.random() < 0.5 else {(b, a) for a, b in pairs})

    def _block(self, pairs: set[tuple[int, int]]) -> None:
        simulation = self.simulation
        simulation.trace.note(simulation.timeline.now, 0, "blocked", sorted(pairs))
        simulation.network.block(pairs)
        duration = self._time(0.1, 1.0) if simulation.rng.random() < 0.4 else self._time(1.0, 6.0)
        simulation.timeline.at(simulation.timeline.now + duration, simulation.network.unblock, pairs)

    def _cut(self, node: SimulatedNode) -> None:
        if node.ends:
            self.simulation.network.cut(self.simulation.rng.choice(list(node.ends.values())))

    def _half_open(self, node: SimulatedNode) -> None:
        rng = self.simulation.rng
        if node.ends:
            end = rng.choice(list(node.ends.values()))
            end.swallows = True
            if rng.random() < 0.5:
                end.other.swallows = True

    # ------------------------------------------------------------------ disks

    def _slow_disk(self, node: SimulatedNode) -> None:
        node.slow_disk(self.simulation.rng.choice((1.0, 10.0, 50.0)))

    def _stalled_disk(self, node: SimulatedNode) -> None:
        node.stall_disk(self._time(0.1, 1.0) if self.simulation.rng.random() < 0.5 else self._time(1.0, 5.0))

    def _failing_disk(self, node: SimulatedNode) -> None:
        node.fail_disk(restart_after=self._time(0.05, 4.0))

    def _full_disk(self, node: SimulatedNode) -> None:
        simulation = self.simulation
        room = simulation.rng.randrange(2 * simulation.config.disk_reserve_bytes + 2000)
        node.fill_disk(room, restart_after=self._time(0.05, 4.0))
        simulation.timeline.at(simulation.timeline.now + self._time(0.5, 6.0), node.fill_disk, None)

    # ------------------------------------------------------------------ what operators do

    def _transfer(self, node: SimulatedNode) -> None:
        rng, member = self.simulation.rng, node.member
        if member is None or member.standing is not Standing.MEMBER:
            return
        voters = sorted(member.raft.voters)
        node.transfer(rng.choice(voters) if voters and rng.random() < 0.5 else None)

    def _reset(self, node: SimulatedNode) -> None:
        if self.simulation.operators.may_lose(node):
            self.simulation.operators.lose(node, wiped=False, down=0.0)

    def _wipe(self, node: SimulatedNode) -> None:
        if self.simulation.operators.may_lose(node):
            self.simulation.operators.lose(node, wiped=True, down=self._time(0.05, 3.0))

    def _voter_change(self, node: SimulatedNode) -> None:
        member = node.member
        if member is None or not node.is_member or not member.state.nodes:
            return
        target = self.simulation.rng.choice(sorted(member.state.nodes))
        voter = member.is_voter(target) or self.simulation.rng.random() < 0.2
        if voter and self._must_not_remove(target):
            return
        self.simulation.workload.change(node, DelVoter(target) if voter else AddVoter(target))

    def _forget(self, node: SimulatedNode) -> None:
        """FORGET as tools do it: every node is asked."""
        simulation, member = self.simulation, node.member
        if member is None or not node.is_member or len(member.state.nodes) < 3:
            return
        target = simulation.rng.choice(sorted(member.state.nodes))
        if target == node.node_id or len(simulation.members()) < 3 or self._must_not_remove(target):
            return
        epoch = member.state.shard_epoch(member.state.nodes[target].shard_id)
        for other in simulation.members():
            if other is node or simulation.rng.random() < 0.5:
                simulation.workload.change(other, NodeForget(target, epoch))

    def _must_not_remove(self, target: str) -> bool:
        """While the cluster counts on a node that is lost, no other may be taken out: together they may be too many."""
        lost = self.simulation.operators.lost
        return bool(lost) and target not in lost

    def _join(self, node: SimulatedNode) -> None:
        if len(self.simulation.nodes) < _MOST_NODES:
            self.simulation.add_node()

    def _entry(self, node: SimulatedNode) -> None:
        if node.is_member:
            self.simulation.workload.change_something(node)
