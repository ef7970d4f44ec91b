"""A cluster in virtual time: real members, modelled links and disks, one seed for everything.

Floor 6. `Simulation(seed).run()` forms a cluster, lets clients and faults loose on it, heals it, and wants it live and
equal. Tests may also drive it step by step: crash, pause, partition, propose, run until something holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from types import TracebackType
from typing import NoReturn

from ..config import Config
from ..consensus import Standing
from ..member import Identity
from ..statemachine import StateMachine
from .faults import Faults, draw_config, draw_faults
from .invariants import Checks, MachineWatch
from .machine import Registers, WatchedMachine
from .network import End, Network
from .operators import Operators
from .process import SimulatedNode
from .states import MachineFault
from .storm import Storm
from .timeline import Timeline, Trace
from .workload import Barrier, Change, Operation, Workload, default_command

__all__ = ["Simulation", "SimulationFailure", "drawn_machine"]


__tracebackhide__ = True
"""pytest shows whoever called, and what failed, but not the way through here."""


class SimulationFailure(AssertionError):
    """A run broke a rule: `reason`. `seed`, `nodes`, and `again`, how to run it again; `trace`: what happened last.

    The text has it all; without the trace where `brief` is set, because it is shown elsewhere.
    """

    def __init__(self, simulation: Simulation, reason: str) -> None:
        super().__init__(reason)
        self.seed, self.nodes, self.again = simulation.seed, simulation.size, simulation.again
        self.reason = reason
        self.states = simulation.describe()
        self.trace = simulation.trace.text()
        self.brief = False

    def __str__(self) -> str:
        last = f"{self.reason}\n\nseed {self.seed}, {self.nodes} nodes: {self.again}"
        return last if self.brief else f"{self.trace}\n\n{self.states}\n{last}"


class Simulation:
    """One run. The same seed and arguments give the same run.

    `config` and `faults` None: drawn by the seed. `state_machine` makes an empty machine for each start of a node;
    `command` draws a command for it. `state_machine` None: the cluster's metadata alone, as nodes beside servers
    replicate it; clients change slots, shards and addresses then, and snapshots are sent whole, in Valkey's form.
    `digest` says what of a machine must be equal on all nodes; None: what its `snapshot()` gives. `keep` is how many
    lines of the trace are kept. `again` is what a failure says of how to see it once more.
    """

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        *,
        state_machine: Callable[[], StateMachine] | None = Registers,
        command: Callable[[Random], bytes] | None = None,
        digest: Callable[[StateMachine], bytes] | None = None,
        config: Config | None = None,
        faults: Faults | None = None,
        keep: int = 400,
        again: str | None = None,
    ) -> None:
        """Raises ValueError where a state machine comes without commands for it, or commands without one, and for a
        single node without one, which has nothing to agree on."""
        drawn = drawn_machine(seed, nodes)
        plain = state_machine is drawn and command is None and config is None and faults is None
        if state_machine is None:
            if command is not None:
                raise ValueError("`command` is for a state machine, and there is none")
            if nodes == 1:
                raise ValueError("a node that is alone needs a state machine")
        elif command is None:
            if state_machine is not Registers:
                raise ValueError("give `command` too: a function that draws a command for this state machine")
            command = default_command
        self.seed = seed
        self.size = nodes
        self.rng = Random(seed)
        self.config = config if config is not None else draw_config(self.rng)
        self.faults = faults if faults is not None else draw_faults(self.rng)
        self.new_machine = state_machine
        self.state_of = digest
        self.again = again if again is not None else _how_again(seed, nodes, plain)
        self.timeline = Timeline()
        self.trace = Trace(keep)
        self.nodes: list[SimulatedNode] = []
        self.checks = Checks(self.nodes, self.config.max_sessions)
        self.network = Network(self.timeline, self.rng, self.faults)
        self.network.codec = self.rng.random() < 0.1
        self.workload = Workload(self, command)
        self.storm = Storm(self)
        self.operators = Operators(self)
        self.cluster_id: str | None = None
        self._small_budget = self.rng.random() < 0.3
        for _ in range(nodes):
            self._new_node().start()

    # ------------------------------------------------------------------ what nodes ask of it

    def new_id(self) -> str:
        """An id of 40 hex digits."""
        return f"{self.rng.getrandbits(160):040x}"

    def apply_budget(self) -> int:
        """How many entries a turn may apply."""
        return self.rng.randint(1, 4) if self._small_budget else 4096

    def shard_of_wiped(self, identity: Identity) -> str:
        """The shard of a node that lost all but its id: its old one, or another.

        Never the cluster's own id, which is what a founder's shard was: no file but its very first says that.
        """
        keeps = identity.shard_id != self.cluster_id and self.rng.random() < 0.5
        return identity.shard_id if keeps else self.new_id()

    def node_at(self, ip: str) -> SimulatedNode | None:
        """The node at an address."""
        return next((node for node in self.nodes if node.ip == ip), None)

    # ------------------------------------------------------------------ time

    def run_for(self, seconds: float) -> None:
        """Lets virtual time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, holds: Callable[[], bool], limit: float) -> bool:
        """Goes on until `holds`, looked at after each step, for at most `limit` seconds. Whether it held."""
        end, timeline = self.timeline.now + limit, self.timeline
        with _Watched(self):
            while not holds():
                if not timeline.step(end):
                    return holds()
        return True

    def fail(self, reason: str, cause: BaseException | None = None) -> NoReturn:
        """The run is over: raises SimulationFailure with all that is known."""
        raise SimulationFailure(self, reason) from cause

    def describe(self) -> str:
        """What each node is at this moment, one a line."""
        return "\n".join(self._describe(node) for node in self.nodes)

    def _describe(self, node: SimulatedNode) -> str:
        member = node.member
        if member is None:
            return f"n{node.number} {node.node_id[:8]} is down, stored {node.disk.stored_index}+{len(node.disk.lines)}"
        raft, log = member.raft, member.raft.log
        return (
            f"n{node.number} {node.node_id[:8]} {raft.standing.value} {raft.role.value} term {raft.current_term} "
            f"leader {(raft.leader_id or '-')[:8]} log {log.boundary_index}({log.boundary_term})..{log.last_index}"
            f"({log.last_term}) commit {raft.commit_index} applied {raft.last_applied} durable {raft.durable_index} "
            f"voters {sorted(voter[:4] for voter in raft.voters)} "
            f"members {sorted(other[:4] for other in raft.members)}"
        )

    # ------------------------------------------------------------------ a whole run

    def run(self, duration: float | None = None) -> None:
        """A whole run: form, rage, heal, converge. Raises SimulationFailure."""
        timeout = self.config.node_timeout
        self.form()
        if self.rng.random() < 0.3:
            self.run_for(timeout * self.rng.random())
        self.workload.begin(self.rng.choice((3.0, 10.0, 40.0)) / timeout)
        self.storm.begin()
        self.run_for(duration if duration is not None else timeout * self.rng.uniform(10, 40))
        self.storm.end()
        self.heal()
        self.run_for(timeout * self.rng.random())
        self.workload.end()
        self.converge()

    def form(self) -> None:
        """Makes one cluster of the nodes, by MEETs from everywhere."""
        limit = self.timeline.now + 200 * self.config.node_timeout
        first = self.nodes[0]
        for node in self.nodes[1:]:
            if self.rng.random() < 0.5:
                first.meet(node, Change())
            else:
                node.meet(first, Change())
            if self.rng.random() < 0.5:
                self.run_for(0.2 * self.rng.random())
        if self.size == 1:
            self.run_until(lambda: first.listens, limit)
            self.workload.mark(first)
        while not self.run_until(self._is_formed, 5 * self.config.node_timeout):
            if self.timeline.now > limit:
                self.fail("no cluster was formed")
            self._choose_cluster()
            self.bring_in()
        self._choose_cluster()

    def _choose_cluster(self) -> None:
        """Where the MEETs made two clusters the smaller ones are emptied: clusters never merge."""
        sizes: dict[str, int] = {}
        for node in self.nodes:
            if node.member is not None and node.is_member and node.member.cluster_id is not None:
                sizes[node.member.cluster_id] = sizes.get(node.member.cluster_id, 0) + 1
        if not sizes:
            self.cluster_id = None
            return
        self.cluster_id = max(sorted(sizes), key=lambda cluster_id: sizes[cluster_id])
        for node in self.nodes:
            if node.is_up and node.cluster_id not in (None, self.cluster_id):
                node.wipe()
                node.start()

    def _is_formed(self) -> bool:
        leader = self.leader()
        if leader is None or leader.member is None:
            return False
        state = leader.member.state
        wanted = min(self.size, self.config.max_voters)
        return len(state.nodes) >= self.size and state.size >= wanted and len(self.members()) == len(self.nodes)

    def leader(self) -> SimulatedNode | None:
        """The leader of the highest term, if there is one."""
        leaders = [node for node in self.nodes if node.member is not None and node.member.raft.is_leader]
        return max(leaders, key=lambda node: node.member.raft.current_term if node.member else 0, default=None)

    def members(self) -> list[SimulatedNode]:
        """The nodes that run and are members."""
        return [node for node in self.nodes if node.is_member]

    def bring_in(self) -> None:
        """Nodes that are alone MEET a member, or are met by one; those that are forgotten, or in a cluster of their
        own, are emptied first."""
        members = [node for node in self.members() if node.cluster_id == self.cluster_id]
        if not members and self.cluster_id is None:
            members = self.nodes[:1]
        if not members:
            return  # two nodes that are alone would make another cluster
        for node in self.nodes:
            if node in members or node.member is None:
                continue
            elsewhere = self.cluster_id is not None and node.cluster_id not in (None, self.cluster_id)
            if node.member.standing is Standing.REMOVED or elsewhere or self._is_forgotten(node):
                node.wipe()
                node.start()
            other = self.rng.choice(members)
            if node.is_up and other.is_up and node.member.standing is Standing.SINGLETON:
                if self.rng.random() < 0.5:
                    other.meet(node, Change())
                else:
                    node.meet(other, Change())

    def _is_forgotten(self, node: SimulatedNode) -> bool:
        """Whether the cluster has forgotten a node that still thinks that it belongs to it, or is about to."""
        if self.cluster_id is None or node.cluster_id != self.cluster_id:
            return False
        return node.node_id in self.checks.truth(self.cluster_id).state.removed

    # ------------------------------------------------------------------ explicit faults

    def _new_node(self) -> SimulatedNode:
        node = SimulatedNode(self, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    def add_node(self) -> SimulatedNode:
        """A fresh node, which some member meets."""
        node = self._new_node()
        node.start()
        self.timeline.at(self.timeline.now + 0.1, self.bring_in)
        return node

    def restart_later(self, node: SimulatedNode, seconds: float) -> None:
        """A node that is down starts again after a while, unless it was started meanwhile."""
        self.timeline.at(self.timeline.now + seconds, self._restart, node, node.life)

    def _restart(self, node: SimulatedNode, life: int) -> None:
        if node.life == life and node.member is None:
            node.start()

    def stop_gracefully(self, node: SimulatedNode, down: float) -> None:
        """A node hands over, stores its state, ends, and is back after `down` seconds."""
        if node.stopping or node.member is None:
            return
        node.stopping = True
        node.note("stops")
        member = node.member
        if member.raft.is_leader and len(member.raft.voters) > 1:
            node.transfer()
        self.timeline.at(
            self.timeline.now, self._stop, node, node.life, self.timeline.now + self.config.node_timeout, down
        )

    def _stop(self, node: SimulatedNode, life: int, deadline: float, down: float) -> None:
        if node.life != life or node.member is None:
            return
        busy = node.member.raft.is_leader or not node.settled or node.compact()
        if busy and self.timeline.now < deadline:
            self.timeline.at(self.timeline.now + 0.02, self._stop, node, life, deadline, down)
        else:
            node.stop()
            self.restart_later(node, down)

    def partition(self, *groups: Iterable[SimulatedNode]) -> None:
        """Nothing gets through between nodes of different groups, until `heal`."""
        numbers = [[node.number for node in group] for group in groups]
        self.network.block(
            (a, b) for one in numbers for other in numbers if one is not other for a in one for b in other
        )

    def one_way(self, sender: SimulatedNode, receiver: SimulatedNode) -> None:
        """Nothing gets through from one node to the other, until `heal`; the other way it does."""
        self.network.block([(sender.number, receiver.number)])

    def cut(self, one: SimulatedNode, other: SimulatedNode) -> int:
        """All links between two nodes break: what is on its way is lost, new ones may be made. How many there were."""
        ends = self._ends_between(one, other)
        for end in ends:
            self.network.cut(end)
        return len(ends)

    def half_open(self, one: SimulatedNode, other: SimulatedNode) -> int:
        """What `one` sends to the other on their links of now gets nowhere, and nobody is told. How many they are."""
        ends = self._ends_between(one, other)
        for end in ends:
            end.swallows = True
        return len(ends)

    def _ends_between(self, one: SimulatedNode, other: SimulatedNode) -> list[End]:
        return [end for end in one.ends.values() if end.other.site is other]

    def forget(self, node: SimulatedNode | str) -> None:
        """An operator has every member asked to forget a node: its slots and replicas go to others first, a step a
        call. A node's id where it is given, or where the node has another one now."""
        node_id = node if isinstance(node, str) else node.node_id
        for member in self.members():
            if member.node_id != node_id:
                self.operators.forget(member, node_id)

    def heal(self) -> None:
        """No fault any more: all nodes run, all links may be made, all disks are quick."""
        self.trace.note(self.timeline.now, 0, "healed")
        self.network.unblock()
        self.faults = Faults(delay=min(self.faults.delay, 0.002), disk_delay=min(self.faults.disk_delay, 0.001))
        self.network.calm(self.faults)
        with _Watched(self):
            for node in self.nodes:
                node.recover()
                if node.member is None:
                    node.start()

    # ------------------------------------------------------------------ the end

    def converge(self) -> None:
        """Within a bounded time the cluster is live, all nodes are members, and their states are equal."""
        timeout = self.config.node_timeout
        limit = self.timeline.now + 60 * timeout
        marker: Operation | Change | None = None
        while True:
            self.run_for(timeout)
            self.bring_in_lost()
            if marker is None or marker.state in ("never", "unknown", "failed"):
                members = [node for node in self.members() if not self._is_forgotten(node)]
                marker = self.workload.mark(self.rng.choice(members)) if members else None
            elif marker.state == "done" and self._has_converged() and not self.workload.open:
                break
            if self.timeline.now > limit:
                self.fail(f"no convergence: {marker!r}, still open: {list(self.workload.open)[:5]}")
        with _Watched(self):
            self.workload.check_end()
            self._check_machines()

    def _check_machines(self) -> None:
        """All state machines hold the same; and a new one becomes the same by a snapshot, and new again without one."""
        machines = [node.machine for node in self.nodes if node.machine is not None]
        if self.new_machine is None:
            return
        for machine in machines:
            machine.look()
        data = b"".join(machines[0].snapshot())
        machine = WatchedMachine(self.new_machine, MachineWatch(self.checks, self.nodes[0]), self.state_of)
        size = 1 + len(data) // 1000
        machine.restore(data[at : at + size] for at in range(0, len(data), size))
        machine.restore(())

    def bring_in_lost(self) -> None:
        """What was forgotten, or never came in, is brought in again; what is lost is forgotten before."""
        self.operators.forget_lost()
        for node in self.nodes:
            if self._is_forgotten(node):
                node.wipe()
                node.start()
        self.bring_in()

    def _has_converged(self) -> bool:
        leader = self.leader()
        if leader is None or leader.member is None:
            return False
        want = leader.member
        for node in self.nodes:
            member = node.member
            if member is None or member.standing is not Standing.MEMBER or member.cluster_id != self.cluster_id:
                return False
            raft = member.raft
            if raft.last_applied != want.raft.log.last_index or raft.leader_id != want.node_id:
                return False
            if member.state != want.state or member.sessions.encode() != want.sessions.encode():
                return False
            if node.digest != leader.digest or raft.voters != want.raft.voters:
                return False
        return True

    def propose(self, node: SimulatedNode, command: bytes) -> Operation:
        """A client's command at a node."""
        return self.workload.propose(node, command)

    def read(self, node: SimulatedNode) -> Barrier:
        """A client's linearizable read at a node."""
        return self.workload.barrier(node)


def drawn_machine(seed: int, nodes: int) -> Callable[[], StateMachine] | None:
    """What the runs of the command line replicate: one seed of eight has no state machine."""
    return None if seed % 8 == 7 and nodes > 1 else Registers


class _Watched:
    """Whatever a node raises in here, or a check, or the machine under test, is the run's end, told with its trace."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, MachineFault):  # where it was noticed tells nothing; what the machine raised does
            self._simulation.fail(f"{type(error).__name__}: {error}", error.__cause__)
        if isinstance(error, Exception) and not isinstance(error, SimulationFailure):
            self._simulation.fail(f"{type(error).__name__}: {error}", error)


def _how_again(seed: int, nodes: int, plain: bool) -> str:
    """How to see it once more. `plain`: the seed decides all but the number of nodes."""
    if plain:
        return f"python -m raftfast.testing --seed {seed} --nodes {nodes} runs it again"
    return f"Simulation({seed}, {nodes}, ...) with the same arguments and calls is the same run again"
