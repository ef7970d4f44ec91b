"""What of the log and of the hard state is on disk: tickets out, tickets back.

Floor 2. A ticket stands for one storage job. The hole that this file closes: a write in flight is overtaken by a
truncation, and when it comes back it must not vouch for entries that are gone (PROTOCOL 5.3, PITFALLS "Replication").
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..errors import InvariantViolation
from ..records import HardState

__all__ = ["Durability"]


@dataclass(slots=True)
class _Job:
    ticket: int
    last_index: int
    hard_state: HardState | None
    issued_at: float


class Durability:
    """The durable index and the durable hard state, and the jobs that will move them.

    Invariants:
    1. jobs are outstanding in ascending order of ticket;
    2. no job outstanding vouches for more than was in the log when the last truncation happened, or later;
    3. `index` only falls by a truncation or a dropped log.
    """

    __slots__ = ("_jobs", "_last_ticket", "hard_state", "index")

    def __init__(self, index: int, hard_state: HardState) -> None:
        self.index = index
        self.hard_state = hard_state
        self._jobs: deque[_Job] = deque()
        self._last_ticket = 0

    def issue(self, last_index: int, hard_state: HardState | None, now: float = 0.0) -> int:
        """A new ticket for a job after which entries up to `last_index`, and `hard_state`, are durable."""
        self._last_ticket += 1
        self._jobs.append(_Job(self._last_ticket, last_index, hard_state, now))
        return self._last_ticket

    def stored(self, ticket: int) -> None:
        """The job of `ticket`, and with it all earlier ones, is durable. Raises InvariantViolation if unknown."""
        if ticket > self._last_ticket:
            raise InvariantViolation(f"ticket {ticket} was never given out")
        while self._jobs and self._jobs[0].ticket <= ticket:
            job = self._jobs.popleft()
            self.index = max(self.index, job.last_index)
            if job.hard_state is not None:
                self.hard_state = job.hard_state

    def fall_to(self, index: int) -> None:
        """Entries above `index` were dropped: nothing durable, nor anything in flight, vouches for more."""
        self.index = min(self.index, index)
        for job in self._jobs:
            job.last_index = min(job.last_index, index)

    @property
    def hard_state_ticket(self) -> int:
        """The ticket of the newest job in flight that carries a hard state; 0 if all of it is durable."""
        for job in reversed(self._jobs):
            if job.hard_state is not None:
                return job.ticket
        return 0

    @property
    def last_ticket(self) -> int:
        """The newest ticket given out, in flight or back; 0 if none."""
        return self._last_ticket

    def is_slow(self, now: float, limit: float) -> bool:
        """Whether a job has been in flight for longer than `limit`."""
        return bool(self._jobs) and now - self._jobs[0].issued_at > limit

    @property
    def oldest_outstanding(self) -> int:
        """The oldest ticket in flight; 0 if none."""
        return self._jobs[0].ticket if self._jobs else 0
