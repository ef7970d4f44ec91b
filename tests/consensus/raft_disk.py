"""What a node of the tests has on disk and has applied: the models that a core's orders are carried out on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from raftfast.consensus import Installed
from raftfast.records import HardState


class Broken(AssertionError):
    """An invariant of Raft does not hold."""


@dataclass
class State:
    """What a node has applied: the lines by index, and the voters and members that they gave."""

    index: int = 0
    term: int = 0
    voters: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()
    lines: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> State:
        return replace(self, lines=dict(self.lines))

    def apply(self, index: int, line: bytes) -> None:
        self.index, self.term, self.lines[index] = index, int(line.split(b" ")[0]), line
        parts = line.decode().split(" ")
        if parts[1] in ("ADD_VOTER", "NODE_JOIN"):
            self.members |= {parts[2]}
        if parts[1] == "ADD_VOTER" or (parts[1] == "NODE_JOIN" and parts[-1] == "voter"):
            self.voters |= {parts[2]}
        if parts[1] == "DEL_VOTER":
            self.voters -= {parts[2]}
        if parts[1] == "NODE_FORGET":
            self.members -= {parts[2]}


@dataclass
class Job:
    """One storage job, as it was handed over."""

    ticket: int
    hard_state: HardState | None
    snapshot: Installed | None
    state: State | None
    truncate_from: int | None
    first: int
    entries: list[bytes]


@dataclass
class Disk:
    """A node's durable image, and the jobs that are not done yet."""

    hard_state: HardState
    state: State
    lines: list[bytes] = field(default_factory=list)
    jobs: deque[Job] = field(default_factory=deque)
    slow: bool = False

    @property
    def last_index(self) -> int:
        return self.state.index + len(self.lines)

    def carry_out(self, job: Job) -> None:
        """In the order that `Update` gives; a job that leaves a gap in the file is a fault of who handed it over."""
        if job.snapshot is not None and job.state is not None:
            kept = job.snapshot.keep_above
            self.lines = [] if kept is None else self.lines[max(0, kept - self.state.index) :]
            self.state = job.state
        if job.hard_state is not None:
            self.hard_state = job.hard_state
        if job.truncate_from is not None:
            self.lines = self.lines[: max(0, job.truncate_from - self.state.index - 1)]
        if job.entries:
            if job.first != self.last_index + 1:
                raise Broken(f"the file ends at {self.last_index} and is given {job.first}")
            self.lines += job.entries
