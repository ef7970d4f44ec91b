"""What clients do in a run, and whether what they saw can be true: nothing lost, nothing stale, nothing twice.

Floor 6. Operations are answered by the nodes through their tokens. Every write has an index, and so has every read: the
one that was applied where it was served. So a history is linearizable if indexes never go back in real time, and each
answer is that of the one true log; this is stricter than what linearizability asks, and cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from ..cluster.entries import DelVoter, Entry, Failover, NodeForget, NodeInfo, SetReplicaOf, SlotChange
from ..cluster.state import ClusterState, Kind
from ..consensus import Standing
from ..errors import Busy, Dropped, Expired, NodeClosed, NotLinearizable, RaftError
from ..member.proposals import Client
from .invariants import BrokenInvariant, ClusterTruth
from .machine import Registers

if TYPE_CHECKING:
    from .process import SimulatedNode
    from .simulation import Simulation

__all__ = ["Barrier", "Change", "Operation", "Workload", "default_command"]


def default_command(rng: Random) -> bytes:
    """A write to one of a few registers, of a value that may be long."""
    size = rng.choice((0, 10, 10, 100, 300))
    return b"r%d %d%s" % (rng.randrange(5), rng.getrandbits(40), b"\n\\x"[: size % 4] + b"." * size)


class Operation:
    """A command on its way: a write outside sessions, or one try after the other in a session.

    `floor` is the greatest index that anybody had seen when it was called. `state` is `open`, `done`, `never` (it
    certainly has no effect) or `unknown`; then `error` tells why. Once done `index` is its place in the log.
    """

    def __init__(self, workload: Workload, number: int, command: bytes, session: _Session | None = None) -> None:
        self.workload = workload
        self.number = number
        self.command = command
        self.session = session
        self.sequence = 0
        self.floor = workload.greatest
        self.state = "open"
        self.index = 0
        self.result: bytes | None = None
        self.error: Exception | None = None
        self.node: SimulatedNode | None = None
        self.tries = 0

    def answered(self, node: SimulatedNode, result: bytes | None, error: Exception | None) -> None:
        """The node tells."""
        if self.state != "open":
            raise BrokenInvariant(f"operation {self.number} is answered twice")
        self.error = error
        if error is None:
            self.workload.acknowledged(self, node, result)
        elif self.session is not None and isinstance(error, (Expired, Dropped, NodeClosed)):
            self.node = None
            self.workload.try_again(self)
        else:
            unknown = getattr(error, "may_take_effect", False) or (self.session is not None and self.tries > 1)
            self.workload.ended(self, "unknown" if unknown else "never")

    @property
    def answer(self) -> bytes | None:
        """What the state machine answered, once it is `done`."""
        _, said_something, answer = (self.result or b"").partition(b" ")
        return answer if said_something else None

    def __repr__(self) -> str:
        return f"<Operation {self.number} {self.state} index={self.index} {self.error!r}>"


class _Session:
    """A session of a client that is not bound to a node."""

    def __init__(self, client_id: str) -> None:
        self.client = Client(client_id)
        self.open = False


class Barrier:
    """A linearizable read: a barrier, then a look at the node's own state."""

    def __init__(self, workload: Workload, key: bytes) -> None:
        self.workload = workload
        self.key = key
        self.floor = workload.greatest
        self.state = "open"
        self.index = 0
        self.node: SimulatedNode | None = None

    def answered(self, node: SimulatedNode, result: Any, error: Exception | None) -> None:
        """The node tells."""
        if self.state != "open":
            raise BrokenInvariant("a barrier is answered twice")
        if error is not None:
            if not isinstance(error, RaftError):
                raise BrokenInvariant(f"a barrier ends with {error!r}")
            self.workload.ended(self, "never")
        else:
            self.workload.read(self, node)


class Change:
    """A cluster entry, or a MEET (None): it is answered once, and not with a success where nothing came of it."""

    def __init__(self, workload: Workload | None = None, entry: Entry | None = None) -> None:
        self.workload = workload
        self.entry = entry
        self.state = "open"
        self.error: Exception | None = None
        self.node: SimulatedNode | None = None

    def answered(self, node: SimulatedNode, result: Any, error: Exception | None) -> None:
        """The node tells."""
        if self.state != "open":
            raise BrokenInvariant("a change is answered twice")
        self.error = error
        if error is None and self.entry is not None and self.workload is not None:
            self.workload.changed(self.entry, node)
        self.state = "done" if error is None else "failed"
        if self.workload is not None:
            self.workload.open.pop(self, None)


class Workload:
    """All clients of a run. `greatest` is the greatest index that a client has seen."""

    def __init__(self, simulation: Simulation, command: Callable[[Random], bytes] | None) -> None:
        """`command` None: there is no state machine, and clients change the cluster's metadata."""
        self.simulation = simulation
        self.greatest = 0
        self.open: dict[Operation | Barrier | Change, None] = {}
        self.counts = {"done": 0, "never": 0, "unknown": 0, "reads": 0}
        self.running = False
        self.removal_at = float("-inf")
        """When a voter or a node was last asked to be taken out."""
        self._command = command
        self._number = 0
        self._sessions: list[_Session] = []
        self._never: list[Operation] = []
        self._rate = 1.0

    @property
    def truth(self) -> ClusterTruth:
        """What is true of the cluster that the clients talk to."""
        cluster_id = self.simulation.cluster_id
        if cluster_id is None:
            raise ValueError("there is no cluster yet")
        return self.simulation.checks.truth(cluster_id)

    # ------------------------------------------------------------------ calls

    def begin(self, calls_per_second: float) -> None:
        """Clients call from now on, until `end`."""
        self.running = True
        self._rate = calls_per_second
        self._next_call()

    def end(self) -> None:
        """No new calls."""
        self.running = False

    def _next_call(self) -> None:
        if self.running:
            timeline = self.simulation.timeline
            timeline.at(timeline.now + self.simulation.rng.expovariate(self._rate), self._call)

    def _call(self) -> None:
        self._next_call()
        rng = self.simulation.rng
        nodes = self.simulation.members()
        if not nodes or not self.running:
            return
        node = rng.choice(nodes)
        kind = rng.random()
        if kind < 0.15:
            self.barrier(node)
        elif self._command is None:
            for _ in range(rng.choice((1, 1, 1, 3, 8))):
                self.change_something(node)
        elif kind < 0.4:
            self._call_in_session(node)
        else:
            for _ in range(rng.choice((1, 1, 1, 3, 8))):
                self.propose(node, self.new_command())

    def new_command(self) -> bytes:
        """A command that some client might send. Raises ValueError in a run without a state machine."""
        if self._command is None:
            raise ValueError("there is no state machine that commands could be for")
        return self._command(self.simulation.rng)

    def mark(self, node: SimulatedNode) -> Operation | Change | None:
        """Something that can be done at any time in a cluster that is live. None where the node is not in its state."""
        if self._command is not None:
            return self.propose(node, self.new_command())
        entry = _other_flag(node)
        return self.change(node, entry) if entry is not None else None

    def propose(self, node: SimulatedNode, command: bytes) -> Operation:
        """A command outside sessions."""
        operation = self._operation(node, command, None)
        node.now(self._send, operation, node)
        return operation

    def _operation(self, node: SimulatedNode, command: bytes, session: _Session | None) -> Operation:
        self._number += 1
        operation = Operation(self, self._number, b"%d %s" % (self._number, command), session)
        operation.node = node
        self.open[operation] = None
        return operation

    def _send(self, operation: Operation, node: SimulatedNode) -> None:
        member = node.member
        if member is None or operation.state != "open":
            return
        if not self._serves(node):
            operation.tries += 1
            operation.answered(node, None, Dropped("the node is in no cluster now, or in another one"))
            return
        operation.tries += 1
        try:
            if operation.session is None:
                member.propose_app(operation.command, operation, node.clock())
            else:
                client, command = operation.session.client, operation.command if operation.sequence else b""
                member.propose_in_session(client, operation.sequence, command, operation, node.clock())
        except RaftError as error:
            if operation.session is not None and isinstance(error, Busy):
                operation.node = None
                operation.tries -= 1
                self.try_again(operation)
            else:
                operation.error = error
                self.ended(operation, "never" if operation.tries == 1 else "unknown")

    def _call_in_session(self, node: SimulatedNode) -> None:
        rng, simulation = self.simulation.rng, self.simulation
        if not self._sessions or (len(self._sessions) < 4 and rng.random() < 0.1):
            session = _Session(simulation.new_id())
            self._sessions.append(session)
            node.now(self._send, self._operation(node, b"", session), node)
            return
        session = rng.choice(self._sessions)
        if session.open and session.client.has_room(simulation.config.session_window):
            operation = self._operation(node, self.new_command(), session)
            operation.sequence = session.client.take_sequence()
            node.now(self._send, operation, node)

    def try_again(self, operation: Operation) -> None:
        """The same command again, in its session, a little later, at whatever node."""
        timeline = self.simulation.timeline
        timeline.at(timeline.now + 0.2 * self.simulation.rng.random(), self._again, operation)

    def _again(self, operation: Operation) -> None:
        nodes = self.simulation.members()
        if operation.state != "open" or operation.node is not None:
            return
        if nodes:
            node = self.simulation.rng.choice(nodes)
            operation.node = node
            node.now(self._send, operation, node)
        else:
            self.try_again(operation)

    def _serves(self, node: SimulatedNode) -> bool:
        """Whether the node is still what its client took it for: it may have been reset while the call was on its way.

        A node that is alone would found a cluster of its own for the first command.
        """
        alone = node.member is not None and node.member.standing is Standing.SINGLETON
        return self.simulation.cluster_id is None or not (
            alone or node.cluster_id not in (None, self.simulation.cluster_id)
        )

    def barrier(self, node: SimulatedNode) -> Barrier:
        """A linearizable read at a node."""
        barrier = Barrier(self, b"r%d" % self.simulation.rng.randrange(5))
        barrier.node = node
        self.open[barrier] = None
        node.now(self._ask, barrier, node)
        return barrier

    def _ask(self, barrier: Barrier, node: SimulatedNode) -> None:
        if node.member is None:
            return
        if self._serves(node):
            node.member.barrier(barrier, node.clock())
        else:
            barrier.answered(node, None, NotLinearizable("the node is in no cluster now, or in another one"))

    def change(self, node: SimulatedNode, entry: Entry) -> Change:
        """A cluster entry."""
        if isinstance(entry, (DelVoter, NodeForget)):
            self.removal_at = self.simulation.timeline.now
        change = Change(self, entry)
        change.node = node
        self.open[change] = None
        node.now(self._change, change, node, entry)
        return change

    def _change(self, change: Change, node: SimulatedNode, entry: Entry) -> None:
        member = node.member
        if member is None:
            return
        try:
            member.propose_entry(entry, change, node.clock())
        except RaftError as error:
            change.answered(node, None, error)

    def change_something(self, node: SimulatedNode) -> None:
        """Some entry about slots, addresses or shards; now and then one that is stale or can't be."""
        rng, member = self.simulation.rng, node.member
        if member is None or node.node_id not in member.state.nodes:
            return
        kind = rng.randrange(5)
        entry = _other_flag(node) if kind == 0 else None
        self.change(node, entry or _some_entry(member.state, kind, self.simulation.new_id(), rng))

    # ------------------------------------------------------------------ answers

    def changed(self, entry: Entry, node: SimulatedNode) -> None:
        """A cluster entry is told to be done: it stands in the log with success, or holds already."""
        member = node.member
        if member is None or self.simulation.cluster_id is None or node.cluster_id != self.simulation.cluster_id:
            return
        at = self.truth.succeeded.get(entry.encode())
        if at is None and member.state.check(entry).kind is not Kind.HOLDS:
            raise BrokenInvariant(f"node {node.number} says that {entry} is done, and it is not")
        self.greatest = max(self.greatest, at or 0)

    def acknowledged(self, operation: Operation, node: SimulatedNode, result: bytes | None) -> None:
        """A write is done: what it was told must be what the log has made of it."""
        session = operation.session
        if session is not None and operation.sequence == 0:
            session.open = True
            self.ended(operation, "done")
            return
        if result is None:
            raise BrokenInvariant(f"operation {operation.number} is acknowledged without a result")
        known = self.truth.commands.get(operation.number)
        if known is None:
            raise BrokenInvariant(f"operation {operation.number} is acknowledged, and was never applied")
        for repeated in self.truth.repeated.values():
            if repeated.result == result and repeated.inner == known.inner:
                known = repeated
        if known.result != result:
            raise BrokenInvariant(
                f"operation {operation.number} is told {result!r}, and its result is {known.result!r}"
            )
        operation.index, operation.result = known.at, result
        if known.at <= operation.floor:
            raise BrokenInvariant(
                f"operation {operation.number} stands at {known.at}, and {operation.floor} was seen before its call"
            )
        self.greatest = max(self.greatest, known.at)
        self.ended(operation, "done")

    def read(self, barrier: Barrier, node: SimulatedNode) -> None:
        """A barrier passed: the node's own state is read at once."""
        if node.member is None:
            return
        index = node.member.raft.last_applied
        if index < barrier.floor:
            raise BrokenInvariant(
                f"a read at node {node.number} sees entry {index}, and {barrier.floor} was seen before its call"
            )
        barrier.index = index
        self.greatest = max(self.greatest, index)
        inner = node.machine.inner if node.machine is not None else None
        if isinstance(inner, Registers):
            value, written = inner.values.get(barrier.key, b""), self._written(barrier.key, index)
            if value != written:
                raise BrokenInvariant(f"a read at {index} sees {value!r}, and {written!r} was written")
        self.counts["reads"] += 1
        self.ended(barrier, "done")

    def _written(self, key: bytes, index: int) -> bytes:
        """What the last command up to `index` wrote to the register."""
        truth = self.truth
        for command in reversed(truth.applied):
            if command.at <= index:
                name, _, value = command.inner.partition(b" ")
                if name == key:
                    return value
        return b""

    def ended(self, operation: Operation | Barrier, state: str) -> None:
        """Nobody waits for it any more."""
        operation.state = state
        self.open.pop(operation, None)
        self.counts[state] += 1
        if isinstance(operation, Operation):
            session = operation.session
            if state == "never" and operation.command:
                self._never.append(operation)
            if session is not None:
                session.client.done(operation.sequence)
                if state != "done" and session in self._sessions:
                    self._sessions.remove(session)

    def node_died(self, node: SimulatedNode) -> None:
        """Who waited for an answer of this node gets none."""
        for operation in list(self.open):
            if operation.node is not node:
                continue
            if isinstance(operation, Change):
                operation.state = "failed"
                self.open.pop(operation)
            elif isinstance(operation, Operation) and operation.session is not None:
                operation.node = None
                self.try_again(operation)
            else:
                self.ended(operation, "unknown")

    # ------------------------------------------------------------------ at the end

    def check_end(self) -> None:
        """What certainly has no effect must have none."""
        commands = self.truth.commands
        for operation in self._never:
            if operation.number in commands:
                raise BrokenInvariant(f"{operation!r} has no effect, and is applied at {commands[operation.number].at}")


def _other_flag(node: SimulatedNode) -> NodeInfo | None:
    """The node says that it may not take over any more, or may again; None where the state does not name it."""
    member = node.member
    mine = member.state.nodes.get(node.node_id) if member is not None else None
    if member is None or mine is None:
        return None
    return NodeInfo(node.node_id, member.identity.info_text, not mine.nofailover)


def _some_entry(state: ClusterState, kind: int, new_shard: str, rng: Random) -> Entry:
    """`kind`: 1 and 2 change slots, 3 makes a replica or a primary, 4 puts a replica in its primary's place."""
    one, other = rng.choice(sorted(state.nodes)), rng.choice(sorted(state.nodes))
    mine, theirs = state.nodes[one], state.nodes[other]
    epoch = state.shard_epoch(mine.shard_id) + rng.choice((0, 0, 0, 0, 1))
    if kind == 3:
        if rng.random() < 0.7:
            target = theirs.shard_id
            return SetReplicaOf(one, mine.shard_id, epoch, other, target, state.shard_epoch(target))
        return SetReplicaOf(one, mine.shard_id, epoch, None, new_shard, 0)
    if kind == 4:
        replicas = sorted(member.id for member in state.nodes.values() if member.primary_id is not None)
        one = rng.choice(replicas) if replicas else one
        mine = state.nodes[one]
        return Failover(one, mine.primary_id or other, mine.shard_id, state.shard_epoch(mine.shard_id))
    if kind == 2 and state.slots_of(one):
        return SlotChange(one, epoch, None, 0, state.slots_of(one)[:1])
    first = rng.randrange(16300)
    return SlotChange(None, 0, one, epoch, ((first, first + rng.randrange(80)),))
