"""What a simulated node does for its disk: jobs in order, one at a time, as the engine's disk thread does them.

Floor 6. How long a job takes, and that it fails, is decided here; what it leaves on the disk is `disk`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ..consensus import Standing
from ..errors import StorageError
from ..member import Capture, Member, Orders, Rewrite, StoreJob, join_jobs
from ..reserve import Reserve
from ..storage import Storage

if TYPE_CHECKING:
    from .process import SimulatedNode

__all__ = ["DiskWork"]


class DiskWork:
    """The storage jobs of one life of a node."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._jobs: deque[StoreJob | tuple[Rewrite, int | None]] = deque()
        self._job: StoreJob | tuple[Rewrite, int | None] | None = None
        self._compacting = False
        self._wants_rewrite = False
        self._resets = 0
        self._reserve = Reserve(cast(Storage, node.disk), node.simulation.config.disk_reserve_bytes)

    @property
    def is_idle(self) -> bool:
        """Whether no job runs or waits."""
        return self._job is None and not self._jobs

    @property
    def settled(self) -> bool:
        """Whether the storage has nothing left to do."""
        return self.is_idle and not self._compacting

    # ------------------------------------------------------------------ jobs

    def carry_out(self, orders: Orders) -> None:
        """A turn's orders."""
        for rewrite in orders.rewrites:
            self._jobs.append((rewrite, None))
        job = orders.store
        if job is not None:
            if job.image is not None and job.image.reset:
                self._resets += 1
            self._jobs.append(job)
        self._start()

    def _start(self) -> None:
        """One job at a time; what queued up meanwhile is one write and one sync."""
        if self._job is not None or not self._jobs:
            return
        first = self._jobs.popleft()
        if isinstance(first, StoreJob):
            self._job = join_jobs(first, self._jobs)
            self._later(self._stored, self._job)
        else:
            self._job = first
            self._later(self._rewritten, *first)

    def _later(self, call: Callable[..., object], *args: Any) -> None:
        node, simulation = self._node, self._node.simulation
        delay = simulation.faults.disk_delay * node.disk_slowness * (0.3 + simulation.rng.random())
        node.later(max(delay, node.disk_stalled_until - simulation.timeline.now), self._done, call, args)

    def _done(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        remaining = self._node.disk_stalled_until - self._node.simulation.timeline.now
        if remaining > 0:
            self._node.later(remaining, self._done, call, args)
        else:
            call(*args)

    def _stored(self, job: StoreJob) -> None:
        node, member = self._node, self._node.member
        if member is None:
            return
        before = node.disk.hard
        try:
            if node.disk_fails:
                raise StorageError("the disk reports an error")
            node.disk.store(job)
        except StorageError as error:
            node.fail(error)
            return
        self._job = None
        self.look_at_room()
        if node.disk.hard != before:
            node.simulation.checks.hard_state_stored(node)
        member.stored(job.ticket, node.clock())
        self._start()
        if self._file_has_grown(member):
            self.compact()

    def _file_has_grown(self, member: Member) -> bool:
        """Whether a rewrite gives back enough for what it writes, as in the engine."""
        config, disk = self._node.simulation.config, self._node.disk
        state_bytes = 300 * len(member.state.nodes) + sum(map(len, disk.apps.values()))
        limit = max(config.rewrite_min_bytes, config.rewrite_factor * state_bytes)
        if disk.log_bytes <= limit:  # cheaper, and no line has to be looked at
            return False
        applied = max(0, member.raft.last_applied - disk.stored_index)
        gone, kept = (sum(map(len, lines)) for lines in (disk.lines[:applied], disk.lines[applied:]))
        return gone > max(limit, kept)

    def _rewritten(self, rewrite: Rewrite, life: int | None) -> None:
        node, member = self._node, self._node.member
        if member is None:
            return
        if node.disk_fails:
            node.fail(StorageError("the disk reports an error"))
            return
        self._job = None
        if not self._is_overtaken(rewrite, life):
            node.disk.rewrite(rewrite.image, rewrite.keep_above)
        elif rewrite.image.app is not None:
            node.disk.apps.pop(rewrite.image.app.name, None)
        if rewrite.token:
            member.rewritten(rewrite.token, node.clock())
        else:
            self._compacting = False
        self._start()

    def look_at_room(self) -> None:
        """Whether the disk has room for commands: asked after each job, and when it was filled or emptied."""
        member = self._node.member
        self._reserve.look()
        if member is not None and member.no_room != self._reserve.shortage:
            member.no_room = self._reserve.shortage
            self._node.note("room", member.no_room or "there is room again")

    def _is_overtaken(self, rewrite: Rewrite, life: int | None) -> bool:
        """Whether a compaction came too late: a snapshot was installed meanwhile, or the node was reset."""
        return life is not None and (life != self._resets or rewrite.image.last_applied < self._node.disk.stored_index)

    # ------------------------------------------------------------------ compaction

    def wants_rewrite(self) -> None:
        """What the file says of the node has changed: it is written anew as soon as may be."""
        self._wants_rewrite = True

    def rewrite_if_wanted(self) -> None:
        """Called each turn."""
        if self._wants_rewrite:
            self.compact(moves=False)

    def compact(self, *, moves: bool = True) -> bool:
        """Moves the stored state up to what is applied; `moves` False: also where the index stays. Whether begun."""
        node, member = self._node, self._node.member
        if member is None or self._compacting or member.snapshots.installing:
            return False
        if member.standing not in (Standing.MEMBER, Standing.REMOVED):
            return False
        if member.raft.last_applied < node.disk.stored_index + moves:
            return False
        self._compacting = True
        self._wants_rewrite = False
        node.note("compact", f"to {member.raft.last_applied}")
        node.snapshots.state_later(self._state_written, member.capture(), self._resets)
        return True

    def _state_written(self, capture: Capture, life: int) -> None:
        image = capture.image
        if capture.app_pieces is not None:
            image = replace(image, app=self._node.disk.keep_app(capture.index, b"".join(capture.app_pieces)))
        self._jobs.append((Rewrite(0, image, capture.index), life))
        self._start()

    # ------------------------------------------------------------------ the end of a life

    def crash(self) -> None:
        """The node ends while a job may run: none of it is on the disk, a part, or all."""
        node, job = self._node, self._job
        if job is None:
            return
        before = node.disk.hard
        if isinstance(job, StoreJob):
            node.disk.store_part(job, node.simulation.rng)
        elif node.simulation.rng.random() < 0.5 and not self._is_overtaken(*job):
            node.disk.rewrite(job[0].image, job[0].keep_above)  # the rename survived
        if node.disk.hard != before:
            node.simulation.checks.hard_state_stored(node)
