"""One simulated node: a real `Member`, and around it what `engine`, `net` and `storage` are to a real one.

Floor 6. It carries out orders with delays of its own and decides nothing of the protocol. Faults come from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cluster.sessions import Sessions
from ..consensus import Standing
from ..errors import NodeClosed, RaftError
from ..member import Identity, Member, Orders, Origin
from ..messages import Message
from ..records import Address
from ..statemachine import StateMachine
from ..storage import StoredState, app_of
from .disk import SimulatedDisk
from .diskwork import DiskWork
from .invariants import MachineWatch
from .machine import WatchedMachine
from .network import End
from .snapshots import SnapshotWork

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["SimulatedNode"]


class _Target:
    """Something that is dialled: kept up where `kept`."""

    __slots__ = ("address", "end", "failures", "kept", "key")

    def __init__(self, key: str, address: tuple[str, int], kept: bool) -> None:
        self.key = key
        self.address = address
        self.kept = kept
        self.failures = 0
        self.end: End | None = None


class SimulatedNode:
    """One node, up or down. `number` begins at 1; `life` counts its starts; `member` is None while it is down."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.number = number
        self.simulation = simulation
        self.disk = SimulatedDisk()
        self.life = 0
        self.member: Member | None = None
        self.node_id = ""
        self.paused_until = 0.0
        self.disk_stalled_until = 0.0
        self.disk_slowness = 1.0
        self.disk_fails = False
        self.restart_after: float | None = None
        """Seconds after which a node that ended by itself is started again; None: by whoever drives the run."""
        self.former_ids: set[str] = set()
        self.stopping = False
        self.ends: dict[int, End] = {}
        self._ip_count = 0
        self._identity: Identity | None = None
        self._loading_cluster: str | None = None
        self._clear()
        drift = simulation.faults.clock_drift
        self._rate = 1.0 + drift * (2 * simulation.rng.random() - 1)
        self._offset = 1000.0 * simulation.rng.random()
        self._timeline, self._rng, self._checks = simulation.timeline, simulation.rng, simulation.checks

    def _clear(self) -> None:
        """Nothing is known of an earlier life."""
        self.ends = {}
        self._targets: dict[str, _Target] = {}
        self._scheduled = False
        self._timer_at: float | None = None
        self._timer = 0
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._held_timer: int | None = None
        self._settled = False
        self.disk_work = DiskWork(self)
        self.snapshots = SnapshotWork(self)
        self.stopping = False

    # ------------------------------------------------------------------ what is asked of it

    @property
    def ip(self) -> str:
        """Where it is."""
        return f"10.0.{self._ip_count}.{self.number}"

    @property
    def address(self) -> Address:
        """What it announces."""
        return Address(self.ip, 7000, 17000, "", {"tls-port": "0"})

    @property
    def is_up(self) -> bool:
        """Whether the process runs, paused or not."""
        return self.member is not None

    @property
    def listens(self) -> bool:
        """Whether others can connect: once what it loaded, its id above all, is stored."""
        return self._settled

    @property
    def is_member(self) -> bool:
        """Whether it runs and is a member of a cluster."""
        return self.member is not None and self.member.standing is Standing.MEMBER

    @property
    def machine(self) -> WatchedMachine | None:
        """Its state machine, under watch; None in a run without one."""
        if self.member is None:
            raise ValueError(f"node {self.number} is down")
        machine = self.member.state_machine
        return machine if isinstance(machine, WatchedMachine) else None

    @property
    def digest(self) -> bytes:
        """The hash over all that its state machine applied."""
        machine = self.machine
        return machine.digest if machine is not None else bytes(16)

    @property
    def state_machine(self) -> StateMachine:
        """Its state machine itself: that of a user's class."""
        machine = self.machine
        if machine is None:
            raise ValueError("this run has no state machine")
        return machine.inner

    @property
    def cluster_id(self) -> str | None:
        """Its cluster, also while it is being loaded."""
        return self.member.cluster_id if self.member is not None else self._loading_cluster

    def clock(self) -> float:
        """Its own clock, which no other node's agrees with."""
        return self._offset + self._rate * self._timeline.now

    def note(self, what: str, detail: Any = "") -> None:
        """For the trace."""
        self.simulation.trace.note(self._timeline.now, self.number, what, detail)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """The process starts from what its folder holds."""
        simulation, checks = self.simulation, self.simulation.checks
        self.life += 1
        self._clear()
        config = simulation.config
        conf = self.disk.load(simulation.rng)
        machine: WatchedMachine | None = None
        if simulation.new_machine is not None:
            machine = WatchedMachine(simulation.new_machine, MachineWatch(checks, self), simulation.state_of)
        sessions: Sessions | None = None
        self.member = None
        if conf is None:
            origin = Origin.fresh(Identity(simulation.new_id(), simulation.new_id(), self.address))
        else:
            app = app_of(conf)
            origin = Origin.of_file(conf, self.address)
            if app is not None and machine is not None:
                self._loading_cluster = origin.cluster_id
                sessions = self.snapshots.restored(machine, app)
        self._identity = origin.identity
        self.node_id = origin.identity.node_id
        self.member = Member(origin, config, simulation.rng, simulation.new_id, machine, sessions, now=self.clock())
        if conf is None:
            self.member.storing.order_rewrite(None)
        self.note("start", (origin.standing.value, origin.hard_state.current_term, self.node_id[:8]))
        checks.started(self)
        self._schedule()

    def crash(self, *, power: bool = False) -> None:
        """The process ends at once. What was not synced is lost, or a part of it kept; `power`: no peer is told."""
        if self.member is not None:
            self.note("crash", "power" if power else "kill")
            self._end("the process ended", silently=power)

    def _end(self, reason: str, *, silently: bool = False) -> None:
        self.disk_work.crash()
        for end in list(self.ends.values()):
            self.simulation.network.close(end, reason, silently=silently)
        self.member = None
        self.paused_until = 0.0
        self._clear()
        self.life += 1
        self.simulation.workload.node_died(self)

    def stop(self, reason: str = "the node is closed") -> None:
        """The process ends in order: who waits is told. `Simulation.stop_gracefully` hands over and stores before."""
        member = self.member
        if member is None:
            return
        member.close(lambda sent: NodeClosed(reason).once_sent(sent))
        self._answer(member.orders)
        self.note("stop", reason)
        self._end("the node is closing")

    def fail(self, error: Exception) -> None:
        """The node can't go on, as where its disk fails: it acknowledges nothing more, who waits is told, it ends."""
        self.disk_fails = False
        self.stop(f"the node stopped: {error}")
        if self.restart_after is not None:
            self.simulation.restart_later(self, self.restart_after)

    def wipe(self, *, new_address: bool = False, keeps_id: bool = False, joining: bool = False) -> None:
        """Down with the node, and its folder is emptied: what starts next is another node.

        `keeps_id`: its operator saves its own line of the file, and so its id, but no log and no vote; `joining`: as if
        it had been about to join a cluster.
        """
        identity = self._identity if keeps_id else None
        self.note("wipe", f"{'joins as' if joining else 'is'} {identity.node_id[:8]}" if identity else "")
        self.simulation.checks.destroyed(self)
        self.crash()
        self.disk = SimulatedDisk()
        self.former_ids.add(self.node_id)
        if identity is None:
            self.node_id = ""
        else:
            shard = self.simulation.shard_of_wiped(identity)
            mine = replace(identity, shard_id=shard).record((), learner=False)
            self.disk.stored = StoredState(nodes=(mine,), joining=joining)
        if new_address:
            self._ip_count += 1

    def move(self) -> None:
        """While it is down: it comes back under another address."""
        self._ip_count += 1

    def pause(self, seconds: float) -> None:
        """The process does not run for a while, and then goes on."""
        self.note("pause", f"{seconds:.3f}")
        self.paused_until = max(self.paused_until, self._timeline.now + seconds)
        self._timeline.at(self.paused_until, self._go_on)

    def _go_on(self) -> None:
        """A pause may be over: all that came meanwhile is done in its order, and then what was due meanwhile, before
        the next turn or behind it."""
        if self.paused_until > self._timeline.now:
            return
        held, self._held = self._held, []
        for call, args in held:
            call(*args)
        if self._held_timer is not None:
            late = self._rng.choice((0.0, 1e-9))
            self._timeline.at(self._timeline.now + late, self._on_timer, self.life, self._held_timer)

    def stall_disk(self, seconds: float) -> None:
        """Its disk does not come back for a while."""
        self.note("stall", f"{seconds:.3f}")
        self.disk_stalled_until = max(self.disk_stalled_until, self.simulation.timeline.now + seconds)

    def slow_disk(self, factor: float) -> None:
        """From now on its disk takes `factor` times as long as the run's disks do."""
        self.note("slow", f"{factor:g} times")
        self.disk_slowness = factor

    def fail_disk(self, *, restart_after: float | None = None) -> None:
        """Its disk reports an error at the next write, and the node ends; it may start again after a while."""
        self.note("fails", "the disk's next write")
        self.disk_fails = True
        self.restart_after = restart_after

    def fill_disk(self, room: int | None, *, restart_after: float | None = None) -> None:
        """Its disk has this many bytes of room from now on; None: as many as one likes.

        Below `disk_reserve_bytes` of the configuration it takes no commands. Without any room the node ends.
        """
        self.note("room", "without end" if room is None else f"{room} bytes")
        self.disk.room = room
        if room is not None:
            self.restart_after = restart_after
        self.now(self.disk_work.look_at_room)

    def drift(self, rate: float) -> None:
        """From now on its clock goes `rate` times as fast as time."""
        self.note("clock", f"{rate:g} times as fast")
        now = self.clock()
        self._rate = rate
        self._offset = now - rate * self.simulation.timeline.now

    def trim(self) -> None:
        """Its log in memory is cut off at what is applied, whoever may still need it: allowed at any time."""
        if self.member is not None and self.is_member:
            log, applied = self.member.raft.log, self.member.raft.last_applied
            if applied > log.boundary_index:
                self.note("trim", f"to {applied}")
                log.trim_to(applied)

    def recover(self) -> None:
        """Its pause and its disk's and clock's troubles are over."""
        self.paused_until = 0.0
        self._timeline.soon(self._go_on)
        self.disk_stalled_until = 0.0
        self.disk_slowness = 1.0
        self.disk_fails = False
        if self.disk.room is not None:
            self.fill_disk(None)
        if not 0.5 <= self._rate <= 2.0:
            self.drift(1.0)

    # ------------------------------------------------------------------ what its operator asks of it

    def transfer(self, to: str | None = None) -> None:
        """Its operator wants leadership handed over, to the node of id `to` or to the best one. Refused: no effect."""
        self.now(self._transfer, to)

    def _transfer(self, to: str | None) -> None:
        if self.member is not None:
            self.note("transfer", (to or "")[:8])
            try:
                self.member.transfer(to, self.clock())
            except RaftError as error:
                self.note("refused", error)

    def reset(self, *, hard: bool = False, token: Any = None) -> None:
        """CLUSTER RESET, as `Node.reset` does it: a leader hands over, then the node is a fresh singleton.

        `token` is answered when that is stored. The cluster must forget its old id, a voter's before it comes back.
        """
        self.now(self._begin_reset, hard, token)

    def _begin_reset(self, hard: bool, token: Any) -> None:
        member = self.member
        if member is None:
            return
        self.note("reset", "hard" if hard else "soft")
        if member.raft.is_leader and len(member.raft.voters) > 1:
            self._transfer(None)
        self._reset(hard, token, self.simulation.timeline.now + self.simulation.config.node_timeout)

    def _reset(self, hard: bool, token: Any, deadline: float) -> None:
        member, simulation = self.member, self.simulation
        if member is None:
            return
        leads = member.raft.is_leader and len(member.raft.voters) > 1
        busy = member.snapshots.installing or not self.snapshots.at_rest or not self._settled
        if busy or (leads and simulation.timeline.now < deadline):
            self.later(0.01, self._reset, hard, token, deadline)
            return
        old = member.identity
        identity = Identity(simulation.new_id() if hard else old.node_id, simulation.new_id(), old.address)
        simulation.checks.destroyed(self)
        self.former_ids.add(old.node_id)
        self._identity = identity
        self.node_id = identity.node_id
        member.reset(identity, token, self.clock())
        self.note("reset", f"is {self.node_id[:8]} now")

    # ------------------------------------------------------------------ turns

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """An input of this life, after a delay."""
        self._timeline.at(self._timeline.now + delay, self._arrive, self.life, call, args)

    def now(self, call: Callable[..., object], *args: Any) -> None:
        """An input of this life, now; or when its pause is over."""
        self._arrive(self.life, call, args)

    def _arrive(self, life: int, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if life != self.life or self.member is None:
            return
        if self._held or self.paused_until > self._timeline.now:
            self._held.append((self._arrive, (life, call, args)))
            return
        call(*args)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        """A turn is due: mostly at once, behind all that arrives at this moment."""
        if self._scheduled:
            return
        self._scheduled = True
        if self._rng.random() < 0.7:
            self._timeline.soon(self._turn, self.life)
        else:
            self._timeline.at(self._timeline.now + 0.0005 * self._rng.random(), self._turn, self.life)

    def _turn(self, life: int) -> None:
        member, timeline = self.member, self._timeline
        if life != self.life or member is None:
            return
        if self._held or self.paused_until > timeline.now:
            self._held.append((self._turn, (life,)))
            return
        self._scheduled = False
        now = self.clock()
        orders = member.take(now)
        self._carry_out(member, orders)
        self._checks.committed(self, member)
        raft, more = member.raft, False
        if raft.commit_index > raft.last_applied:
            more = member.apply(now, self.simulation.apply_budget())
            self._answer(member.orders)
        self._checks.turned(self, member)
        if more or orders.busy:
            self._schedule()
        self._set_timer(orders.wake_at)
        if not self._settled and self.disk_work.is_idle:
            self._settled = True
            member.lifecycle.propose_own_address(now)
            self._schedule()

    def _set_timer(self, wake_at: float) -> None:
        when = (wake_at - self._offset) / self._rate
        if self._timer_at is not None and when >= self._timer_at:
            return
        self._timer += 1
        self._timer_at = max(when, self._timeline.now) + 0.0001 + 0.001 * self._rng.random()
        self._timeline.at(self._timer_at, self._on_timer, self.life, self._timer)

    def _on_timer(self, life: int, timer: int) -> None:
        if life != self.life or timer != self._timer or self.member is None:
            return
        if self._held or self.paused_until > self._timeline.now:
            self._held_timer = timer  # a loop that wakes up reads its sockets before it runs its timers
            return
        self._held_timer = None
        self._timer_at = None
        self.member.tick(self.clock())
        self._schedule()

    def _carry_out(self, member: Member, orders: Orders) -> None:
        if orders.store is not None:
            self._checks.job_ordered(self, orders.store)
        if orders.store is not None or orders.rewrites:
            self.disk_work.carry_out(orders)
        if orders.sends:
            self._send(orders.sends)
        for number, reason in orders.closes:
            end = self.ends.get(number)
            if end is not None:
                self.simulation.network.close(end, reason)
                self.link_is_closed(end, reason)
        for number in orders.identified:
            end = self.ends.get(number)
            if end is not None and end.key in self._targets:
                self._targets[end.key].failures = 0
        if orders.dial is not None:
            self._want(orders.dial)
        self.snapshots.carry_out(member, orders)
        if orders.answers:
            self._answer(orders)
        for event in orders.events:
            self.note("event", f"{event.kind} {(event.node_id or '')[:8]}")
        for severity, text in orders.log:
            self.note("log", text)
            if severity >= 50:
                self._checks.critical(self, text)
        if orders.wants_rewrite:
            self.disk_work.wants_rewrite()
        self.disk_work.rewrite_if_wanted()

    def _send(self, sends: list[tuple[int, Message]]) -> None:
        """One write a link."""
        by_link: dict[int, list[Message]] = {}
        for number, message in sends:
            by_link.setdefault(number, []).append(message)
        for number, messages in by_link.items():
            end = self.ends.get(number)
            if end is not None:
                for message in messages:
                    self._checks.message_sent(self, end, message)
                self.simulation.network.send(end, messages)

    def _answer(self, orders: Orders) -> None:
        for token, result, error in orders.answers:
            token.answered(self, result, error)
        orders.answers.clear()

    # ------------------------------------------------------------------ links

    def link_is_open(self, end: End) -> None:
        """The network made a link, dialled or accepted."""
        self.ends[end.number] = end
        self.now(self._opened, end)

    def _opened(self, end: End) -> None:
        if self.member is not None and not end.closed:
            self.member.link_opened(end.number, end.key, end.other.site.ip, self.ip, self.clock())

    def messages_came(self, end: End, messages: list[Message]) -> None:
        """The network brings messages."""
        if end.number in self.ends:
            self._arrive(self.life, self._take_messages, (end, messages))

    def _take_messages(self, end: End, messages: list[Message]) -> None:
        if self.member is None or end.number not in self.ends:
            return
        for message in messages:
            self.note(type(message).__name__, (end.origin, message))
        self.member.link_messages(end.number, messages, self.clock())

    def link_is_closed(self, end: End, reason: str) -> None:
        """A link is gone."""
        if self.ends.get(end.number) is end:
            self.now(self._closed, end, reason)

    def _closed(self, end: End, reason: str) -> None:
        if self.ends.pop(end.number, None) is None or self.member is None:
            return
        self.note("closed", f"{end.number} n{end.other.site.number}: {reason}")
        self.member.link_closed(end.number, reason, self.clock())
        target = self._targets.get(end.key or "")
        if target is not None and target.end is end:
            target.end = None
            self._dial_again(target)

    def _want(self, targets: dict[str, tuple[str, int]]) -> None:
        for key in sorted(self._targets):
            target = self._targets[key]
            if target.kept and targets.get(key) != target.address:
                del self._targets[key]
                if target.end is not None:
                    self.simulation.network.close(target.end, "no longer wanted")
                    self.link_is_closed(target.end, "no longer wanted")
        for key in sorted(targets.keys() - self._targets.keys()):
            self._targets[key] = _Target(key, targets[key], True)
            self._dial(self._targets[key])

    def meet(self, other: SimulatedNode, token: Any) -> None:
        """A client of this node says MEET."""
        self.now(self._meet, other, token)

    def _meet(self, other: SimulatedNode, token: Any) -> None:
        if self.member is None:
            return
        if not self._settled:
            self.later(0.01, self._meet, other, token)
            return
        self.note("meet", f"n{other.number}")
        key = self.member.meet(token, self.clock())
        self._targets[key] = _Target(key, (other.ip, 17000), False)
        self._dial(self._targets[key])

    def _dial(self, target: _Target) -> None:
        self.later(self.simulation.network.delay(), self._connect, target)

    def _connect(self, target: _Target) -> None:
        if self._targets.get(target.key) is not target:
            return
        simulation = self.simulation
        end = simulation.network.connect(self, target.key, simulation.node_at(target.address[0]))
        if end is None:
            timeout = simulation.config.node_timeout / 2 * simulation.rng.random()
            self.later(timeout, self._dial_failed, target)
            return
        target.end = end
        self.ends[end.number] = end
        self._opened(end)

    def _dial_failed(self, target: _Target) -> None:
        if self._targets.get(target.key) is target and self.member is not None:
            self.member.meetings.failed(target.key, "cannot connect")
            self._dial_again(target)

    def _dial_again(self, target: _Target) -> None:
        if not target.kept:
            del self._targets[target.key]
            return
        upper = min(1.0, 0.05 * 2.0 ** min(target.failures + 1, 6))
        target.failures += 1
        self.later(upper * (0.5 + 0.5 * self.simulation.rng.random()), self._connect, target)

    # ------------------------------------------------------------------ storage

    def compact(self) -> bool:
        """Moves the stored state up to what is applied now. Whether begun."""
        return self.disk_work.compact()

    @property
    def settled(self) -> bool:
        """Whether the storage has nothing left to do."""
        return self.disk_work.settled
