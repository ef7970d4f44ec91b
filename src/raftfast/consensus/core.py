"""What all parts of the Raft state machine share: its variables, its questions, its clock and its promises.

Floor 2. Figure 3.1, "State", and little more. No message is handled here and no role changes, but for the end of a
leadership, which has many causes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..config import Config
from ..messages import Message, Role
from ..records import HardState
from .durability import Durability
from .leading import Leadership
from .promises import Promises
from .trimming import Trimming
from .update import Update
from .voters import VoterHistory

if TYPE_CHECKING:
    from ..hot import RaftLog

__all__ = ["Core", "RandomSource", "Standing"]


class RandomSource(Protocol):
    """What the core needs of a `random.Random`."""

    def random(self) -> float:
        """A number from [0, 1)."""


class Standing(enum.Enum):
    """What a node is to its cluster (PROTOCOL 8). Raft proper runs for members only."""

    SINGLETON = "singleton"
    JOINER = "joiner"
    MEMBER = "member"
    REMOVED = "removed"


class Core:
    """The variables of one node's Raft. `Raft` is the whole, and says what always holds."""

    def __init__(
        self,
        node_id: str,
        log: RaftLog,
        config: Config,
        rng: RandomSource,
        *,
        standing: Standing,
        hard_state: HardState,
        voters: Iterable[str] = (),
        members: Iterable[str] = (),
        now: float,
    ) -> None:
        """A node that was just loaded: all that `log` holds is durable, all up to its boundary applied.

        `voters` are those of the state at the log's boundary; those in force follow from the log behind it.
        """
        self.node_id = node_id
        self.log = log
        self.config = config
        self.standing = standing
        self.current_term = hard_state.current_term
        self.voted_for = hard_state.voted_for
        self.commit_index = log.boundary_index
        self.last_applied = log.boundary_index
        self.leader_id: str | None = None
        self.role = Role.FOLLOWER
        self.verified_index = 0
        self.repl_offset = 0
        self.leadership: Leadership | None = None
        self.members: frozenset[str] = frozenset(members)
        self.disk_stalled = False
        self.commit_to_reach = 0
        """The leader's commit index as this joiner first heard it: what lies below is history to it."""
        self._heartbeat_interval = config.heartbeat_interval
        self._rng = rng
        self._voters = VoterHistory(voters)
        self._durability = Durability(log.last_index, hard_state)
        self._issued = hard_state
        self._handed = log.last_index
        self._now = now
        self._contact = now
        self._old_leader: tuple[str, float] | None = None
        self._needed_until = 0.0
        """Till when a learner stands, because a voter that lacks what it has asked for its vote."""
        self._term_leader: str | None = None  # who led this term, also where we look for another
        self._deadline = 0.0
        self._ask_at = 0.0
        self._granted: set[str] = set()
        self._transfer_election = False
        self._timeout_now_in = 0
        self._leader_round: int | None = None
        self._round = 0
        self._linked: set[str] = set()
        self.beginnings = 0
        """How often the node has begun anew since it started, with an empty log."""
        self.without_log: set[str] = set()
        """Who said that it has lost its log (PROTOCOL 9): led by us it is not served, nor counted as heard."""
        self._promises = Promises(self._durability)
        self._trimming = Trimming(config)
        self._stall_doublings = 0
        self._update = Update()
        for index, line in log.membership_lines(log.first_index, log.last_index + 1):
            self._voters.appended(index, line)
        self._enter_standing(now)

    # ------------------------------------------------------------------ what is asked of it

    @property
    def voters(self) -> frozenset[str]:
        """The voter set in force."""
        return self._voters.current

    @property
    def durable_index(self) -> int:
        """The highest index of the log that is on our disk."""
        return self._durability.index

    @property
    def next_ticket(self) -> int:
        """The ticket of the next storage job."""
        return self._durability.last_ticket + 1

    @property
    def next_job_rewrites(self) -> bool:
        """Whether the next storage job writes the whole state anew, as it is when the job is taken."""
        return self._update.snapshot is not None

    @property
    def hard_state(self) -> HardState:
        """Term and vote as they are now, durable or not."""
        return HardState(self.current_term, self.voted_for)

    @property
    def is_leader(self) -> bool:
        """Whether this node leads a cluster. A singleton, which leads nobody, does not."""
        return self.leadership is not None

    @property
    def accepts_proposals(self) -> bool:
        """Whether a proposal would be appended now: we lead and are not handing over."""
        return self.leadership is not None and not self.leadership.transferring

    @property
    def uncommitted(self) -> int:
        """How many entries of the log are not committed, as far as this node knows."""
        return self.log.last_index - self.commit_index

    def is_overfull(self, entries: int, nbytes: int) -> bool:
        """Whether more than so many entries of the log are not committed, or it holds so many bytes above what trimming
        leaves: those are of entries that are not applied."""
        return self.uncommitted > entries or self.log.nbytes > self._trimming.most_bytes + nbytes

    @property
    def alone(self) -> bool:
        """Whether this is a singleton or a cluster of one: nobody has a message of Raft for us (PROTOCOL 8)."""
        return self.standing is Standing.SINGLETON or (
            self.standing is Standing.MEMBER and self.members <= {self.node_id} and self.voters <= {self.node_id}
        )

    @property
    def may_stand(self) -> bool:
        """Whether this node may stand for election (PROTOCOL 4, dissertation 4.2.2)."""
        if self.standing is not Standing.MEMBER or self.disk_stalled:
            return False
        if self.node_id in self._voters or self._voters.taken_out_since(self.commit_index, self.node_id):
            return True
        return self._now < self._needed_until

    @property
    def may_grant(self) -> bool:
        """Whether this node may grant votes: a member, which a joiner is as soon as its NODE_JOIN is in its log.

        Others may count on it from then on, though it has not heard yet that the entry is committed (PROTOCOL 1, 4).
        In history it may have been a voter in an earlier life: what it acknowledged then is gone, and a vote in a voter
        set of then could elect who lacks it. **(stricter)**
        """
        if self.standing is not Standing.JOINER:
            return self.standing is Standing.MEMBER
        return self.node_id in self.members and not self.reads_history

    @property
    def reads_history(self) -> bool:
        """Whether the log ends in what was committed when this joiner first heard a leader."""
        return self.log.last_index < self.commit_to_reach

    @property
    def voter_change_pending(self) -> bool:
        """Whether a voter change must wait: an earlier one is uncommitted, or nothing of our term is committed."""
        if self.leadership is None:
            return True
        return self._voters.newest_change() > self.commit_index or self.commit_index < self.leadership.first_index

    def lease_is_live(self, now: float) -> bool:
        """Whether a leader of the current term was heard within T, or is this node (dissertation 4.2.3).

        T exactly, never the randomised timeout. **(stricter)**
        """
        if self.leadership is not None:
            return True
        return self.leader_id is not None and now - self._contact < self.config.node_timeout

    def silent_for(self, now: float) -> float:
        """Seconds since a leader was last heard."""
        return now - self._contact

    # ------------------------------------------------------------------ time

    def _enter(self, now: float) -> None:
        """Every input begins here: after a pause of this process, timers and leases start anew (PROTOCOL 3)."""
        if now <= self._now:
            return
        if now - self._now > self.config.node_timeout / 2:
            self._contact = now
            self._deadline = now + self._election_timeout()
        self._now = now

    def _election_timeout(self) -> float:
        """Uniform in [T, 2T), drawn anew at each start of a wait (dissertation 3.4)."""
        return self.config.node_timeout * (1.0 + self._rng.random())

    def _enter_standing(self, now: float) -> None:
        self._contact = now
        self._deadline = now + self._election_timeout()
        if self.standing is Standing.SINGLETON:
            self.role = Role.LEADER
            self.leader_id = self.node_id
        elif self.standing is Standing.JOINER:
            self.role = Role.JOINER
        else:
            self.role = Role.FOLLOWER
            if self.voters == {self.node_id}:
                self._deadline = now  # the only voter has nobody to wait for

    # ------------------------------------------------------------------ what every part does

    def _leave_leadership(self) -> None:
        if self.leadership is None:
            return
        self._update.reads_failed.extend(self.leadership.reads.fail_all())
        self.leadership = None
        self._contact = self._now
        self._deadline = self._now + self._election_timeout()

    def _close(self, link: int | None, reason: str) -> None:
        if link is not None:
            self._update.close.append((link, reason))

    def _promise(self, to: str, message: Message, link: int | None) -> None:
        """To be sent once the term and the vote as they are now are durable (PROTOCOL 5.5)."""
        self._promises.hold(self.current_term, to, message, link)

    def _owe(self, sender: str, link: int | None, has_new: bool) -> None:
        """One answer for all that this link brought in this turn, after one write (PROTOCOL 5.3)."""
        if link is not None:
            self._promises.owe(sender, link, has_new)

    def _append(self, entries: Sequence[bytes]) -> int:
        first = self.log.last_index + 1
        prefix = b"%d " % self.current_term
        self.log.extend([self.current_term] * len(entries), [prefix + entry for entry in entries])
        for index, line in self.log.membership_lines(first, self.log.last_index + 1):
            self._voters.appended(index, line)
        self._follow_membership()
        return first

    def _follow_membership(self) -> None:
        if self.leadership is not None:
            others = (self.members | self.voters) - {self.node_id}
            self.without_log &= others
            self.leadership.follow(others, self.log.last_index + 1, self._now, self._linked, self.without_log)
