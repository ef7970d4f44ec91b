"""A node's folder as the simulator sees it: what is durable, job by job, and what a crash leaves of the running one.

Floor 6. The file becomes bytes, in the real format and through the real parser, when a node starts from it. No time
passes here: how long a job takes is decided in `diskwork`.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ..errors import InvariantViolation, StorageError
from ..hot import nodesconf
from ..member import Image, StoreJob
from ..records import HardState, NodesConf
from ..storage import AppFile, StoredState
from ..storage.conffile import head_of

__all__ = ["SimulatedDisk", "stored_state_of"]

_NO_STATE = HardState(0, None)
_ENDLESS = 1 << 60
_LINE_BYTES = 40
"""What a log line has beside its entry, about."""


def stored_state_of(image: Image) -> StoredState:
    """The stored state that an image asks for."""
    return StoredState(
        nodes=image.nodes,
        last_applied=image.last_applied,
        snapshot_term=image.snapshot_term,
        cluster_id=image.cluster_id,
        joining=image.joining,
        raft_leader=image.raft_leader,
        app=image.app,
        extra={"removed": "1"} if image.removed else {},
    )


def term_of(line: bytes) -> int:
    """The term that an entry line begins with."""
    return int(line[: line.index(b" ")])


class SimulatedDisk:
    """What of one node survives.

    Invariants: 1. `lines` are those of `stored_index + 1` on, without a gap; 2. the term never falls and the vote never
    changes within a term, but for a reset; 3. the stored index never falls, but for a reset.
    """

    def __init__(self) -> None:
        self.stored: StoredState | None = None
        self.hard = _NO_STATE
        self.lines: list[bytes] = []
        self.apps: dict[str, bytes] = {}
        self.log_bytes = 0
        self.room: int | None = None
        """Bytes that may still be written; None: as many as one likes."""
        self.path = "the simulated disk"
        self._hard_in_head = _NO_STATE
        self._torn = b""
        self._app_count = 0

    def copy(self) -> SimulatedDisk:
        """What survives as of now, apart from what happens to this one."""
        other = SimulatedDisk()
        other.stored, other.hard, other.lines = self.stored, self.hard, list(self.lines)
        return other

    @property
    def rewrite_bytes(self) -> int:
        """What the next rewrite takes: here none is ever without room."""
        return 0

    def free_bytes(self) -> int:
        """What a file system says of its room."""
        return _ENDLESS if self.room is None else max(self.room, 0)

    # ------------------------------------------------------------------ what there is

    @property
    def stored_index(self) -> int:
        """S: the index of the stored state."""
        return self.stored.last_applied if self.stored is not None else 0

    @property
    def last_index(self) -> int:
        """The last index that is durable."""
        return self.stored_index + len(self.lines)

    def term_at(self, index: int) -> int | None:
        """The term of the durable entry at `index`; None where it is not known: below S, or past the end."""
        first = self.stored_index + 1
        if index == first - 1:
            return self.stored.snapshot_term if self.stored is not None else 0
        return term_of(self.lines[index - first]) if first <= index < first + len(self.lines) else None

    # ------------------------------------------------------------------ storing

    def keep_app(self, index: int, data: bytes) -> AppFile:
        """An app state file, durable from now on."""
        self._app_count += 1
        app = AppFile(f"app-{index}-{self._app_count:016x}", len(data), nodesconf.crc64(data))
        self.apps[app.name] = data
        return app

    def store(self, job: StoreJob) -> None:
        """The whole job is durable. Raises StorageError without room for it, InvariantViolation for what the real
        storage refuses."""
        self._take_room(sum(len(line) + _LINE_BYTES for line in job.lines))
        hard_state = job.hard_state
        if job.image is not None:
            self.rewrite(job.image, job.keep_above, hard_state)
            hard_state = None
        self._append(hard_state, job.truncate_from, job.first_index, job.lines)

    def _take_room(self, nbytes: int) -> None:
        if self.room is not None:
            if nbytes > self.room:
                raise StorageError(f"{self.path}: no room for {nbytes} bytes")
            self.room -= nbytes

    def store_part(self, job: StoreJob, rng: Random) -> None:
        """The node ended while the job ran: none of it is there, its first steps, a part of its last write, or all."""
        hard_state = job.hard_state
        if job.image is not None:
            if rng.random() < 0.3:
                return  # the rename did not survive
            self.rewrite(job.image, job.keep_above, hard_state)
            hard_state = None
        if job.truncate_from is not None and hard_state is not None and rng.random() < 0.5:
            # The cut would take the old term and vote along: then it is a rewrite, all or nothing.
            if rng.random() < 0.5:
                self._append(hard_state, job.truncate_from, job.first_index, job.lines)
            return
        if rng.random() < 0.2:
            return
        self._append(None, job.truncate_from, 0, [])
        if rng.random() < 0.8:
            self._write_part(hard_state, job.first_index, job.lines, rng)

    def _write_part(self, hard_state: HardState | None, first: int, lines: list[bytes], rng: Random) -> None:
        """One write of a term and vote and of lines, cut off anywhere; behind the cut there may be NULs."""
        pair = b""
        if hard_state is not None:
            pair = nodesconf.appended_vars(hard_state.current_term, hard_state.voted_for, 0)
        pieces = [pair, *(nodesconf.log_line(first + at, line) for at, line in enumerate(lines))]
        at = 0
        while at < len(pieces) and (not pieces[at] or rng.random() < 0.7):
            at += 1
        self._append(hard_state if at else None, None, first, lines[: max(at - 1, 0)])
        self._torn = b"\0" * rng.choice((0, 0, 1, 100))
        if at < len(pieces):
            self._torn = pieces[at][: rng.randrange(len(pieces[at]) - 1)] + self._torn

    def rewrite(self, image: Image, keep_above: int | None, hard_state: HardState | None = None) -> None:
        """A new stored state in one atomic step."""
        hard = self._checked(hard_state, reset=image.reset)
        if not image.reset and image.last_applied < self.stored_index:
            raise InvariantViolation(f"S would go back from {self.stored_index} to {image.last_applied}")
        if keep_above is not None and (image.reset or keep_above != image.last_applied):
            raise InvariantViolation(f"lines above {keep_above} can't follow a state of {image.last_applied}")
        if image.snapshot_term > hard.current_term:
            raise InvariantViolation(f"a state of term {image.snapshot_term} in term {hard.current_term}")
        kept = self.lines[keep_above - self.stored_index :] if keep_above is not None else []
        old = self.stored.app if self.stored is not None else None
        self.stored = stored_state_of(image)
        self.hard = self._hard_in_head = hard
        self.lines = kept
        self.log_bytes = sum(map(len, kept))
        if old is not None and old != self.stored.app:
            self.apps.pop(old.name, None)

    def _append(self, hard_state: HardState | None, truncate_from: int | None, first: int, lines: list[bytes]) -> None:
        if self.stored is None:
            raise InvariantViolation("an append before the first rewrite")
        hard = self._checked(hard_state)
        start = self.stored_index + 1
        if truncate_from is not None and truncate_from <= self.last_index:
            if truncate_from >= start:
                del self.lines[truncate_from - start :]
            elif self.lines:
                raise InvariantViolation(f"a cut at {truncate_from}, where {start - 1} is stored as applied")
        covered = max(0, start - first)
        lines, first = lines[covered:], first + covered
        if lines and first != self.last_index + 1:
            raise InvariantViolation(f"an append at {first}, where {self.last_index + 1} is next")
        if lines and term_of(lines[-1]) > hard.current_term:
            raise InvariantViolation(f"an entry of a term above {hard.current_term}")
        self.lines.extend(lines)
        self.log_bytes += sum(map(len, lines))
        self.hard = hard

    def _checked(self, hard: HardState | None, *, reset: bool = False) -> HardState:
        if hard is None:
            return self.hard
        if not reset and hard.current_term < self.hard.current_term:
            raise InvariantViolation(f"the term would go back from {self.hard.current_term} to {hard.current_term}")
        changed = self.hard.voted_for is not None and hard.voted_for != self.hard.voted_for
        if not reset and hard.current_term == self.hard.current_term and changed:
            raise InvariantViolation(f"the vote of term {hard.current_term} would change")
        return hard

    # ------------------------------------------------------------------ loading

    def load(self, rng: Random) -> NodesConf | None:
        """What the file says, through the real format; None where it was never written. Drops a torn end."""
        if self.stored is None:
            return None
        appended = rng.random() < 0.5
        data = head_of(self.stored, self._hard_in_head if appended else self.hard)
        if appended and self.hard != self._hard_in_head:
            data += nodesconf.appended_vars(self.hard.current_term, self.hard.voted_for, nodesconf.crc64(data))
        data += nodesconf.log_lines(self.stored_index + 1, self.lines) if self.lines else b""
        conf = nodesconf.parse(data + self._torn)
        found = HardState(int(conf.vars["currentTerm"]), None)
        if conf.vars.get("votedFor") is not None:
            found = found._replace(voted_for=str(conf.vars["votedFor"]))
        if [line for _, _, line in conf.entries] != self.lines or found != self.hard:
            raise InvariantViolation(f"the file reads {found} and {len(conf.entries)} entries, written was another")
        self._torn = b""
        self._hard_in_head = self.hard
        self.apps = {name: data for name, data in self.apps.items() if self.stored.app and name == self.stored.app.name}
        return replace(conf, torn_tail=b"", warnings=())
