"""A node's folder as the simulator sees it: what is durable, job by job, and what a crash leaves of the running one.

Floor 6. The file becomes bytes, in the real format and through the real parser, when a node starts from it. No time
passes here: how long a job takes is decided in `process`.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ..errors import InvariantViolation
from ..hot import nodesconf
from ..member import Image, StoreJob
from ..records import HardState, NodesConf
from ..storage import AppFile, StoredState
from ..storage.conffile import head_of

__all__ = ["SimulatedDisk", "stored_state_of"]

_NO_STATE = HardState(0, None)


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
        self._hard_in_head = _NO_STATE
        self._torn = b""
        self._app_count = 0

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
        """The whole job is durable. Raises InvariantViolation for what the real storage refuses."""
        hard_state = job.hard_state
        if job.image is not None:
            self.rewrite(job.image, job.keep_above, hard_state)
            hard_state = None
        self._append(hard_state, job.truncate_from, job.first_index, job.lines)

    def store_part(self, job: StoreJob, rng: Random) -> None:
        """The node crashed while the job ran: none of it, its first steps, a part of its last write, or all."""
        steps = rng.randrange(4)
        if steps == 0:
            return
        hard_state = job.hard_state
        if job.image is not None:
            self.rewrite(job.image, job.keep_above, hard_state)
            hard_state = None
        if steps == 1 and job.image is not None:
            return
        if steps == 3:
            self._append(hard_state, job.truncate_from, job.first_index, job.lines)
            return
        if job.truncate_from is not None and hard_state is not None and rng.random() < 0.5:
            return  # the cut would take the old term and vote along: it was a rewrite, all or nothing
        self._append(None, job.truncate_from, 0, [])
        if steps == 2:
            kept = rng.randint(0, len(job.lines))
            self._append(hard_state, None, job.first_index, job.lines[:kept])
            if kept < len(job.lines):
                whole = nodesconf.log_line(job.first_index + kept, job.lines[kept])
                self._torn = whole[: rng.randrange(len(whole) - 1)]

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
