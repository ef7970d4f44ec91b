"""The Raft state machine: every transition of role, term, vote, log and commit index is in this file.

Floor 2. It reads like figure 3.1 of the dissertation: what a rule comes from stands beside it, and each deviation names
the PROTOCOL section that orders it. Nothing here can wait, block, look at a clock or open anything; `now` is an
argument, randomness a `random.Random` handed in: same seed, same calls, same output.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING, Any, Protocol

from ..config import Config
from ..errors import Dropped, InvariantViolation, Rejected
from ..messages import (
    AppendEntries,
    AppendEntriesAck,
    Message,
    PreVote,
    PreVoteRequest,
    Role,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from ..records import HardState
from .durability import Durability
from .leading import Leadership
from .promises import Promises
from .quorum import is_majority
from .trimming import Trimming
from .update import Installed, Send, Update
from .voters import VOTER_CHANGES, VoterHistory, voter_change

if TYPE_CHECKING:
    from ..hot import RaftLog

__all__ = ["MAX_TERM_JUMP", "Raft", "RandomSource", "Standing"]

MAX_TERM_JUMP = 1 << 32
"""A term further than this above ours is well-formed but never adopted (PROTOCOL 3)."""

_MAX_INDEX = (1 << 64) - 1


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


class Raft:
    """One node's Raft.

    Inputs are methods; what they cause is collected and handed out by `take()`, once a turn.

    Invariants (`check()` holds them):
    1. boundary <= last_applied <= commit_index <= last_index, but that last_applied may trail the boundary's install;
    2. the term never falls, and in one term the vote changes once at most, from none;
    3. durable index <= last_index, and what was handed to storage <= last_index;
    4. only a member has voters, and only a leader has a `Leadership`;
    5. `verified_index` <= last_index.
    """

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
        self._rng = rng
        self._voters = VoterHistory(voters)
        self._durability = Durability(log.last_index, hard_state)
        self._issued = hard_state
        self._handed = log.last_index
        self._now = now
        self._contact = now
        self._old_leader: tuple[str, float] | None = None
        self._term_leader: str | None = None  # who led this term, also where we look for another
        self._deadline = 0.0
        self._ask_at = 0.0
        self._granted: set[str] = set()
        self._transfer_election = False
        self._timeout_now_in = 0
        self._leader_round: int | None = None
        self._round = 0
        self._linked: set[str] = set()
        self._lost: set[str] = set()
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
        return self.node_id in self._voters or self._voters.taken_out_since(self.commit_index, self.node_id)

    @property
    def may_grant(self) -> bool:
        """Whether this node may grant votes: a member, which a joiner is as soon as its NODE_JOIN is in its log.

        Others may count on it from then on, though it has not heard yet that the entry is committed (PROTOCOL 1, 4).
        """
        return self.standing is Standing.MEMBER or (self.standing is Standing.JOINER and self.node_id in self.members)

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

    # ------------------------------------------------------------------ inputs

    def receive(self, sender: str, message: Message, now: float, link: int | None = None) -> None:
        """A message that came on a link bound to `sender`; answers go back on `link`.

        Raises InvariantViolation where Raft's own guarantees are seen broken: the node must stop.
        """
        self._enter(now)
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, sender, message, link)

    def tick(self, now: float) -> None:
        """Time has passed. Everything that arrived before `now` must have been handed in first (PROTOCOL 3)."""
        self._enter(now)
        if self.leadership is not None:
            self._tick_leader(self.leadership)
        elif now >= self._deadline and self.may_stand:
            self._on_election_timeout()
        elif self.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and now >= self._ask_at:
            self._ask_for_votes()
        if self.standing is Standing.MEMBER:
            self._trim()

    def propose(self, entries: Sequence[bytes], now: float) -> int:
        """Appends entries (`<TYPE>[ <data>]`, without a term) and returns the first one's index.

        Raises Dropped where we do not lead or are handing over, Rejected for a voter change out of order. All or none.
        """
        self._enter(now)
        if not self.accepts_proposals:
            raise Dropped("not the leader, or handing over")
        for entry in entries:
            change = voter_change(b"0 " + entry) if entry.startswith(VOTER_CHANGES) else None
            if change is not None:
                if len(entries) > 1:
                    raise Rejected("a voter change is proposed by itself")
                self._refuse_bad_voter_change(*change)
        return self._append(entries)

    def stored(self, ticket: int, now: float) -> None:
        """The storage job of `ticket` is durable, and with it all earlier ones."""
        self._enter(now)
        before = self._durability.index
        self._durability.stored(ticket)
        if self._durability.index > before:
            self.disk_stalled = False
        self._update.send.extend(self._promises.kept_until(ticket, self.current_term))
        self._acknowledge(self._promises.owed_until(ticket))
        if self.role is Role.CANDIDATE:
            self._count_own_vote()
        if self.leadership is not None:
            self.leadership.disk_moved(self._durability.index, self._now)
            self._advance_commit()

    def applied(self, index: int, now: float) -> None:
        """Entries up to `index` are applied. Raises InvariantViolation above the commit index."""
        self._enter(now)
        if index > self.commit_index:
            raise InvariantViolation(f"applied {index} above the commit index {self.commit_index}")
        if index <= self.last_applied:
            return
        self.last_applied = index
        self._trimming.applied(index, now)
        self._trim()

    def barrier(self, token: Any, now: float) -> None:
        """A linearizable read came to this node as a leader: `token` comes back in `reads` or `reads_failed`."""
        self._enter(now)
        if self.leadership is None or self.leadership.transferring:
            self._update.reads_failed.append(token)
        else:
            self.leadership.reads.ask(token)

    def link_up(self, peer: str, now: float) -> None:
        """Our outbound link to `peer` is identified."""
        self._enter(now)
        self._linked.add(peer)
        if self.leadership is not None:
            self.leadership.link_up(peer)
        elif self._may_ask and peer in self._voters and peer not in self._granted:
            self._update.send.append(Send(peer, self._vote_request()))

    def link_down(self, peer: str) -> None:
        """Our outbound link to `peer` is gone."""
        self._linked.discard(peer)
        if self.leadership is not None:
            self.leadership.link_down(peer)

    def set_members(self, members: Iterable[str], now: float) -> None:
        """The members by applied state and by the NODE_JOINs of the log's tail: who gets AppendEntries."""
        self._enter(now)
        self.members = frozenset(members)
        if self.leadership is not None:
            self._follow_membership()

    def lost_log(self, peer: str, now: float) -> None:
        """`peer` says that it has lost its log: what it acknowledged counts no more, until its next NODE_JOIN."""
        self._enter(now)
        self._lost.add(peer)
        self._follow_membership()

    def keep_tail(self, factor: int) -> None:
        """The log may outgrow `max_log_bytes` this many times before it is trimmed whoever needs it (PROTOCOL 7)."""
        self._trimming.tail_factor = factor

    def restart_progress(self, peer: str, now: float) -> None:
        """A NODE_JOIN of `peer` was applied: what it acknowledged before counts no more (PROTOCOL 5.3)."""
        self._enter(now)
        self._lost.discard(peer)
        if self.leadership is not None and peer != self.node_id:
            self.leadership.restart(peer, self.log.last_index + 1, self._now, peer in self._linked)

    def transfer_to(self, peer: str | None, now: float) -> str | None:
        """Begins to hand leadership over, to the best voter where `peer` is None. Returns the one chosen, None if none.

        Raises Dropped where we do not lead, Rejected where `peer` can't take over.
        """
        self._enter(now)
        leadership = self.leadership
        if leadership is None:
            raise Dropped("not the leader")
        if leadership.transfer_target is not None and peer in (None, leadership.transfer_target):
            return leadership.transfer_target  # it runs already: asking again must not make it longer
        target = leadership.best_successor(self._voters.others(self.node_id), self._now)
        if peer is not None:
            if peer not in self._voters or not leadership.is_live(peer, self._now):
                raise Rejected(f"{peer} is no live voter")
            target = peer
        if target is not None:
            leadership.begin_transfer(target, self._now + self._election_timeout())
            self._update.reads_failed.extend(leadership.reads.fail_all())
        return target

    def found(self, entries: Sequence[bytes], now: float) -> int:
        """A fresh singleton becomes a cluster of one: its self-join and all of `entries`, in one write (PROTOCOL 8).

        Returns the first entry's index. Raises Rejected for any other node.
        """
        self._enter(now)
        if self.standing is not Standing.SINGLETON:
            raise Rejected("only a fresh singleton founds a cluster")
        self.standing = Standing.MEMBER
        self.members = frozenset({self.node_id})
        self.current_term += 1
        self.voted_for = self.node_id
        self._lead()
        return self._append(entries)

    def reset(self, standing: Standing, term: int, now: float, node_id: str | None = None) -> None:
        """Drops term, vote, log and voters: a singleton that becomes a joiner, a joiner that gave up, CLUSTER RESET.

        A hard RESET gives another `node_id` too.

        To be stored as one rewrite (`Update.snapshot` with index 0).
        """
        self._enter(now)
        self._leave_leadership()
        self.standing = standing
        self.node_id = node_id if node_id is not None else self.node_id
        self.current_term = term
        self.voted_for = None
        self.leader_id = None
        self.verified_index = 0
        self._leader_round = None
        self._old_leader = None
        self._term_leader = None
        self.commit_to_reach = 0
        self._timeout_now_in = 0
        self.members = frozenset()
        self._voters = VoterHistory(())
        self._granted.clear()
        self._lost.clear()
        self._promises.drop_all()
        self._trimming.clear()
        self._drop_log(0, 0)
        self.commit_index = self.last_applied = 0
        self._enter_standing(self._now)

    def join(self, now: float) -> None:
        """A joiner found itself in the state that it applied or installed: it is a member now."""
        self._enter(now)
        self.standing = Standing.MEMBER
        self.role = Role.FOLLOWER
        self._deadline = now + self._election_timeout()

    def remove(self, now: float) -> None:
        """This node applied its own NODE_FORGET: it stands, votes and proposes no more."""
        self._enter(now)
        self._leave_leadership()
        self.standing = Standing.REMOVED
        self.role = Role.FOLLOWER
        self.leader_id = None

    # ------------------------------------------------------------------ snapshots at the follower

    def hears_leader(self, sender: str, leader_id: str, term: int, now: float, link: int | None) -> bool:
        """The steps that AppendEntries, InstallSnapshot and SnapshotPiece share (PROTOCOL 5.1). Whether to go on."""
        self._enter(now)
        return self._hears_leader(sender, leader_id, term, link)

    def snapshot_is_stale(self, last_included_index: int) -> bool:
        """Whether a snapshot holds nothing that is not committed here already (PROTOCOL 7)."""
        return last_included_index <= self.commit_index

    def answer_snapshot(self, sender: str, last_included_index: int, now: float, link: int) -> None:
        """A snapshot from the current leader was dropped as stale: success with what is committed and durable."""
        self._enter(now)
        if sender == self._term_leader:
            self.verified_index = max(self.verified_index, self.commit_index)  # which every later leader has
            self._owe(sender, link, False)

    def install(self, index: int, term: int, voters: Iterable[str], now: float, sender: str, link: int | None) -> None:
        """The state machine now holds the snapshot's state (figure 5.3, rules 6 to 8).

        `voters` are those of its node lines. An older one than what is applied is refused by InvariantViolation: the
        caller has asked `snapshot_is_stale` before it replaced anything, and applied nothing since.
        """
        self._enter(now)
        if index <= self.last_applied:
            raise InvariantViolation(f"snapshot {index} installed over applied {self.last_applied}")
        tail: list[tuple[int, bytes]] = []
        if self.log.matches(index, term):
            tail = self.log.membership_lines(index + 1, self.log.last_index + 1)
            self.log.trim_to(index)
            self._handed = max(self._handed, index)
            self._update.snapshot = Installed(index, term, self._file_kept_above(index))
        else:
            self._drop_log(index, term)
        self._voters = VoterHistory(voters)
        for tail_index, line in tail:
            self._voters.appended(tail_index, line)
        self.commit_index = max(self.commit_index, index)
        self.last_applied = index
        self._trimming.clear()
        if sender == self._term_leader and link is not None:
            self.verified_index = max(self.verified_index, index)
            self._owe(sender, link, True)

    def _file_kept_above(self, index: int) -> int | None:
        """Above what the log lines in the file stay; what this turn dropped of the log goes there too."""
        cut, dropped = self._update.truncate_from, self._update.snapshot
        if cut is not None and cut <= index:
            self._update.truncate_from = None
            return None
        return None if dropped is not None and dropped.keep_above is None else index

    def _drop_log(self, index: int, term: int) -> None:
        """The whole log goes, what lies above `index` too; the file is rewritten."""
        # What is committed agrees with every snapshot of the cluster; what lies above it does not, on disk or on its
        # way there: no ticket may vouch for it. The rewrite's own ticket will vouch for `index`.
        self._durability.fall_to(min(self.commit_index, index))
        self.log.reset(index, term)
        self._handed = index
        self._update.truncate_from = None
        self._update.snapshot = Installed(index, term, None)

    # ------------------------------------------------------------------ output

    def take(self) -> Update:
        """All that the inputs since the last call have caused. See `Update` for the order to carry it out in."""
        leadership = self.leadership
        if leadership is not None:
            if leadership.reads.wants_round and self.commit_index >= leadership.first_index:
                self._round += 1
                leadership.begin_round(self._round, self._now)
                leadership.reads.begin(self._round, self.commit_index)
                self._confirm_reads(leadership)
            if self._durability.hard_state.current_term == self.current_term:
                leadership.pump(self, self._update)
        self._issue_ticket()
        update, self._update = self._update, Update()
        update.commit_index = self.commit_index
        update.wake_at = self._wake_at()
        return update

    def _issue_ticket(self) -> None:
        """Numbers this turn's storage job, if there is one, and lets go of the promises that need none."""
        update, hard_state = self._update, self.hard_state
        if hard_state != self._issued:
            update.hard_state = self._issued = hard_state
        update.store_from, update.store_to = self._handed + 1, self.log.last_index + 1
        self._handed = self.log.last_index
        has_entries = update.store_from < update.store_to
        if update.hard_state or update.snapshot or update.truncate_from is not None or has_entries:
            # A rewrite always carries the hard state: its ticket vouches for it too.
            carried = hard_state if update.hard_state or update.snapshot else None
            update.ticket = self._durability.issue(self.log.last_index, carried, self._now)
        slow = self._durability.is_slow(self._now, self.config.node_timeout / 4)
        sends, owed = self._promises.end_turn(self.current_term, slow)
        update.send.extend(sends)
        self._acknowledge(owed)

    def _wake_at(self) -> float:
        soon = self._now + self.config.heartbeat_interval
        if self.leadership is not None:
            return min(soon, self.leadership.heartbeat_at)
        return min(soon, max(self._deadline, self._now)) if self.may_stand else soon

    def _promise(self, to: str, message: Message, link: int | None) -> None:
        """To be sent once the term and the vote as they are now are durable (PROTOCOL 5.5)."""
        self._promises.hold(self.current_term, to, message, link)

    def _owe(self, sender: str, link: int | None, has_new: bool) -> None:
        """One answer for all that this link brought in this turn, after one write (PROTOCOL 5.3)."""
        if link is not None:
            self._promises.owe(sender, link, has_new)

    def _acknowledge(self, owed: list[tuple[str, int]]) -> None:
        """Acknowledges what is verified and durable by now, to the leader of the term, even if we look for another.

        It may send nothing more until it is answered (PROTOCOL 5.2); what was owed in an earlier term is gone already.
        """
        for sender, link in owed:
            self._update.send.append(Send(sender, self._acknowledgement(), link))

    def _acknowledgement(self) -> AppendEntriesAck:
        index = min(self.verified_index, self._durability.index)
        return AppendEntriesAck(self.current_term, True, index, self.repl_offset, self._leader_round)

    # ------------------------------------------------------------------ time

    def _enter(self, now: float) -> None:
        """Every input begins here: after a pause of this process, timers and leases start anew (PROTOCOL 3)."""
        if now - self._now > self.config.node_timeout / 2:
            self._contact = now
            self._deadline = now + self._election_timeout()
        self._now = max(now, self._now)

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

    # ------------------------------------------------------------------ terms and elections

    def _adopt_term(self, term: int) -> None:
        """Figure 3.1, "Rules for Servers": a higher term makes a follower; only this clears the vote."""
        keeps_asking = self.role is Role.PRE_CANDIDATE
        self._leave_leadership()
        self.current_term = term
        self.voted_for = None
        self.leader_id = self._term_leader = None
        self.verified_index = 0
        self._leader_round = None
        self._promises.drop_owed()
        if self.standing is not Standing.JOINER:
            self.role = Role.PRE_CANDIDATE if keeps_asking else Role.FOLLOWER
        self._granted.clear()

    def _leave_leadership(self) -> None:
        if self.leadership is None:
            return
        self._update.reads_failed.extend(self.leadership.reads.fail_all())
        self.leadership = None
        self._contact = self._now
        self._deadline = self._now + self._election_timeout()

    def _step_down(self) -> None:
        """Within the term: the vote stays. **(stricter, PROTOCOL 4)**"""
        self._leave_leadership()
        self.role = Role.FOLLOWER
        self.leader_id = None

    def _term_is_sane(self, term: int, link: int | None) -> bool:
        if term - self.current_term <= MAX_TERM_JUMP:
            return True
        self._close(link, f"term {term} is absurdly far above ours")
        self._update.critical.append(f"a message of term {term} was refused: ours is {self.current_term}")
        return False

    def _close(self, link: int | None, reason: str) -> None:
        if link is not None:
            self._update.close.append((link, reason))

    def _on_election_timeout(self) -> None:
        if self.role is Role.PRE_CANDIDATE:
            # A timeout without a majority: back to follower, which waits anew. **(PROTOCOL 4)**
            self.role = Role.FOLLOWER
            self._granted.clear()
            self._deadline = self._now + self._election_timeout()
            return
        self._begin_pre_vote()

    def _begin_pre_vote(self) -> None:
        """Dissertation 9.6: ask before the term moves; nothing is persisted."""
        self.role = Role.PRE_CANDIDATE
        self.leader_id = None
        self._deadline = self._now + self._election_timeout()
        self._granted = {self.node_id}
        if is_majority(self.voters, self._granted):
            self._begin_election(transfer=False)
        else:
            self._ask_for_votes()

    def _begin_election(self, transfer: bool) -> None:
        """Figure 3.1, "Candidates": new term, vote for self, both durable before anybody is asked."""
        self._adopt_term(self.current_term + 1)
        self.role = Role.CANDIDATE
        self.voted_for = self.node_id
        self._transfer_election = transfer
        self._deadline = self._now + self._election_timeout()
        for voter in sorted(self._voters.others(self.node_id)):
            self._promise(voter, self._vote_request(), None)
        self._ask_at = self._now + self.config.heartbeat_interval

    def _ask_for_votes(self) -> None:
        """Asks, again where need be, the voters that have not granted (PROTOCOL 4)."""
        self._ask_at = self._now + self.config.heartbeat_interval
        if not self._may_ask:
            return
        for voter in sorted(self._voters.others(self.node_id) - self._granted):
            self._update.send.append(Send(voter, self._vote_request()))

    @property
    def _may_ask(self) -> bool:
        """Whether a request for votes may leave: a candidate's own vote is durable first (PROTOCOL 4)."""
        if self.role is Role.CANDIDATE:
            return self._durability.hard_state == self.hard_state
        return self.role is Role.PRE_CANDIDATE

    def _vote_request(self) -> Message:
        last_index, last_term = self.log.last_index, self.log.last_term
        if self.role is Role.PRE_CANDIDATE:
            return PreVoteRequest(self.node_id, self.current_term + 1, last_index, last_term)
        return VoteRequest(self.node_id, self.current_term, last_index, last_term, self._transfer_election)

    def _log_is_behind(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is less up to date than ours (§3.6.1); an empty log ends at its boundary."""
        return (last_term, last_index) < (self.log.last_term, self.log.last_index)

    def _on_pre_vote_request(self, sender: str, message: PreVoteRequest, link: int | None) -> None:
        if sender != message.candidate_id or self.alone:
            self._close(link, "a pre-vote request that is not the sender's, or to a node that is alone")
            return
        granted = (
            self.may_grant
            and message.term > self.current_term
            and not self.lease_is_live(self._now)
            and not self._log_is_behind(message.last_log_index, message.last_log_term)
        )
        self._promise(sender, PreVote(message.term if granted else self.current_term, granted), link)

    def _on_vote_request(self, sender: str, message: VoteRequest, link: int | None) -> None:
        if sender != message.candidate_id or self.alone:
            self._close(link, "a vote request that is not the sender's, or to a node that is alone")
            return
        # §4.2.3: a live lease refuses before the term is looked at, so that who was cut off or removed deposes nobody.
        refused = self.lease_is_live(self._now) and not message.transfer
        if not self.may_grant:
            refused = True
        if not refused and message.term > self.current_term:
            if not self._term_is_sane(message.term, link):
                return
            self._adopt_term(message.term)
            if self.role is Role.PRE_CANDIDATE:
                self._go_on_asking()
        granted = (
            not refused
            and message.term == self.current_term
            and self.voted_for in (None, sender)
            and not self._log_is_behind(message.last_log_index, message.last_log_term)
        )
        if granted:
            self.voted_for = sender
            if self.standing is Standing.MEMBER:
                self.role = Role.FOLLOWER
            self.leader_id = None
            self._deadline = self._now + self._election_timeout()
        self._promise(sender, Vote(self.current_term, granted), link)

    def _go_on_asking(self) -> None:
        """A pre-candidate that learned a higher term goes on in it (PROTOCOL 4)."""
        self._granted = {self.node_id}
        self._ask_for_votes()

    def _on_pre_vote(self, sender: str, message: PreVote, link: int | None) -> None:
        if not message.granted:
            self._learn_term(message.term, link)
        elif self.role is Role.PRE_CANDIDATE and message.term == self.current_term + 1 and self.may_stand:
            self._granted.add(sender)  # by id, each once **(stricter)**
            if is_majority(self.voters, self._granted):
                self._begin_election(transfer=False)

    def _on_vote(self, sender: str, message: Vote, link: int | None) -> None:
        if message.term > self.current_term:
            self._learn_term(message.term, link)
        elif self.role is Role.CANDIDATE and message.granted and message.term == self.current_term:
            self._granted.add(sender)  # by id, each once **(stricter)**
            self._count_votes()

    def _learn_term(self, term: int, link: int | None) -> None:
        """A term in an answer to something that we asked."""
        if term <= self.current_term or self.standing is not Standing.MEMBER or not self._term_is_sane(term, link):
            return
        self._adopt_term(term)
        if self.role is Role.PRE_CANDIDATE:
            self._go_on_asking()

    def _count_own_vote(self) -> None:
        if self._durability.hard_state == self.hard_state and self.node_id not in self._granted:
            self._granted.add(self.node_id)
            self._count_votes()

    def _count_votes(self) -> None:
        # Our own vote must be durable even where the others' are enough: it was counted on when they were asked.
        if is_majority(self.voters, self._granted):
            self._lead()
            self._append([b"NOOP"])

    def _lead(self) -> None:
        """Figure 3.1, "Leaders": next index is last + 1, match 0, for every member."""
        self.role = Role.LEADER
        self.leader_id = self._term_leader = self.node_id
        self._granted.clear()
        self.leadership = Leadership(
            self.node_id, self.log.last_index + 1, self.config, self._now, self._durability.index, self._old_leader
        )
        self._round += 1
        self.leadership.begin_round(self._round, self._now)
        self._follow_membership()

    def _follow_membership(self) -> None:
        if self.leadership is not None:
            others = (self.members | self.voters) - {self.node_id}
            self._lost &= others
            self.leadership.follow(others, self.log.last_index + 1, self._now, self._linked, self._lost)

    def _on_timeout_now(self, sender: str, message: TimeoutNow, link: int | None) -> None:
        """Dissertation 3.10: obeyed once, by a follower that may stand, in exactly that term, from its leader."""
        if self.alone:
            self._close(link, "TIMEOUT_NOW to a node that is alone")
        elif (
            self.role is Role.FOLLOWER
            and self.may_stand
            and message.term == self.current_term
            and sender == self.leader_id
            and self._timeout_now_in != message.term
        ):
            self._timeout_now_in = message.term
            self._begin_election(transfer=True)

    # ------------------------------------------------------------------ the follower's log

    def _hears_leader(self, sender: str, leader_id: str, term: int, link: int | None) -> bool:
        if sender != leader_id:
            self._close(link, "a leader's message that is not the sender's")  # **(stricter)**
            return False
        if self.alone:
            self._close(link, "a leader's message to a node that is alone")
            return False
        if self.standing is Standing.REMOVED:
            return False
        if term < self.current_term:
            self._promise(sender, AppendEntriesAck(self.current_term, False, 0, self.repl_offset), link)
            return False
        if not self._term_is_sane(term, link):
            return False
        if term == self.current_term and self._term_leader not in (None, sender):
            self._update.critical.append(f"two leaders in term {term}: {self._term_leader} and {sender}")
            return False
        if term > self.current_term:
            self._adopt_term(term)
        if self.standing is Standing.MEMBER:
            self.role = Role.FOLLOWER
        self.leader_id = self._term_leader = sender
        self._old_leader = (sender, self._now)
        self._granted.clear()
        self._contact = self._now
        self._deadline = self._now + self._election_timeout()
        return True

    def _on_append_entries(self, sender: str, message: AppendEntries, link: int | None) -> None:
        prev, count = message.prev_log_index, len(message.lines)
        if count > _MAX_INDEX - prev or (prev == 0 and message.prev_log_term != 0):
            self._close(link, "an AppendEntries at an impossible place")
            return
        if not self._hears_leader(sender, message.leader_id, message.term, link):
            return
        if self.standing is Standing.JOINER and not self.commit_to_reach:
            self.commit_to_reach = message.leader_commit
        if message.round is not None:
            self._leader_round = max(message.round, self._leader_round or 0)
        end = prev + count
        has_new = False
        if end > self.log.boundary_index:
            # prev below the boundary is no mismatch: what is up to there is committed, and `merge` checks at it.
            if prev >= self.log.boundary_index and not self.log.matches(prev, message.prev_log_term):
                self._refuse_append(sender, message, link)
                return
            has_new = self._merge(prev, message)
        elif end == self.log.boundary_index and end:
            self._check_boundary(message, message.terms[-1] if count else message.prev_log_term)
        self.verified_index = max(self.verified_index, end)
        # Figure 3.1 says min(leaderCommit, index of last new entry): the last of this message **(stricter)**
        self.commit_index = max(self.commit_index, min(message.leader_commit, end))
        self._owe(sender, link, has_new)

    def _check_boundary(self, message: AppendEntries, sent_term: int) -> None:
        if sent_term != self.log.boundary_term:
            raise InvariantViolation(
                f"the leader of term {message.term} differs at our boundary {self.log.boundary_index}"
            )

    def _refuse_append(self, sender: str, message: AppendEntries, link: int | None) -> None:
        prev = message.prev_log_index
        if prev <= self.commit_index:
            raise InvariantViolation(
                f"the leader of term {message.term} has term {message.prev_log_term} at index {prev}, "
                f"which is committed here with term {self.log.term_at(prev)}"
            )
        hint = self.log.hint(prev, message.prev_log_term)
        answer = AppendEntriesAck(self.current_term, False, hint, self.repl_offset, self._leader_round)
        self._promise(sender, answer, link)

    def _merge(self, prev: int, message: AppendEntries) -> bool:
        """Figure 3.1, AppendEntries 3 and 4: only a conflict truncates. Whether anything was appended."""
        first, dropped = self.log.merge(prev, message.terms, message.lines, self.commit_index)
        if dropped:
            self._truncated_from(first)
        if first <= self.log.last_index:
            for index, line in self.log.membership_lines(first, self.log.last_index + 1):
                self._voters.appended(index, line)
            return True
        return False

    def _truncated_from(self, index: int) -> None:
        self._durability.fall_to(index - 1)
        self._voters.truncated_from(index)
        self.verified_index = min(self.verified_index, index - 1)
        if index <= self._handed:
            self._handed = index - 1
            if self._update.truncate_from is None or index < self._update.truncate_from:
                self._update.truncate_from = index

    # ------------------------------------------------------------------ the leader

    def _append(self, entries: Sequence[bytes]) -> int:
        first = self.log.last_index + 1
        prefix = b"%d " % self.current_term
        self.log.extend([self.current_term] * len(entries), [prefix + entry for entry in entries])
        for index, line in self.log.membership_lines(first, self.log.last_index + 1):
            self._voters.appended(index, line)
        self._follow_membership()
        return first

    def _refuse_bad_voter_change(self, added: bool, node_id: str) -> None:
        """One at a time, and only what could be committed with now (PROTOCOL 8). **(stricter)**"""
        leadership = self.leadership
        if leadership is None or self.voter_change_pending:
            raise Rejected("an earlier voter change is not committed yet")
        refusal = self.voter_change_refusal(added, node_id)
        if refusal is not None:
            raise Rejected(refusal)

    def voter_change_refusal(self, added: bool, node_id: str) -> str | None:
        """Why this leader would refuse the change for good; None if it would not, or if it holds already."""
        leadership = self.leadership
        if leadership is None:
            return "not the leader"
        if (node_id in self._voters) == added:
            return None
        if not added and node_id == self.node_id:
            return "a leader does not remove itself"
        voters = self.voters | {node_id} if added else self.voters - {node_id}
        if not voters:
            return "the last voter is never removed"
        if added and not leadership.is_caught_up(node_id, self._now):
            return "the learner has not caught up"
        if not is_majority(voters, leadership.live(self._now) | {self.node_id}):
            return "the new voters that are heard would be no majority"
        return None

    def is_caught_up(self, node_id: str) -> bool:
        """Whether a learner may be promoted, by this leader's view."""
        return self.leadership is not None and self.leadership.is_caught_up(node_id, self._now)

    def live_members(self) -> Set[str]:
        """The members that this leader heard within T."""
        return self.leadership.live(self._now) if self.leadership is not None else frozenset()

    def _on_append_entries_ack(self, sender: str, message: AppendEntriesAck, link: int | None) -> None:
        if message.term > self.current_term:
            self._learn_term(message.term, link)
        elif self.leadership is not None and message.term == self.current_term:
            report = self.leadership.on_ack(sender, message, self._now, self.log.boundary_index)
            if report is not None:
                self._update.critical.append(report)
            if self.leadership.reads.is_out:
                self._confirm_reads(self.leadership)
            self._advance_commit()

    def _confirm_reads(self, leadership: Leadership) -> None:
        confirmed = leadership.with_round(leadership.reads.round) | {self.node_id}
        if is_majority(self.voters, confirmed):
            self._update.reads.extend(leadership.reads.confirm())

    def _advance_commit(self) -> None:
        """Figure 3.1, "Leaders", last rule: a majority's match, of the own term only (§3.6.2)."""
        leadership = self.leadership
        if leadership is None:
            return
        index = leadership.majority_match(self.voters, self._durability.index)
        if index <= self.commit_index or self.log.term_at(index) != self.current_term:
            return
        self.commit_index = index
        leadership.commit_moved(self._now)
        self._stall_doublings = 0
        if self.node_id not in self._voters and self._voters.newest_change() <= index:
            self._hand_over_as_removed(leadership)

    def _hand_over_as_removed(self, leadership: Leadership) -> None:
        """§4.2.2: our removal is committed; hand over, and step down after one election timeout in any case."""
        if leadership.resign_at is None:
            leadership.resign_at = self._now + self._election_timeout()
            self._update.reads_failed.extend(leadership.reads.fail_all())
            target = leadership.best_successor(self.voters, self._now)
            if target is not None:
                leadership.begin_transfer(target, leadership.resign_at)

    def _tick_leader(self, leadership: Leadership) -> None:
        now = self._now
        if leadership.resign_at is not None and now >= leadership.resign_at:
            self._step_down()
            return
        if now - leadership.quorum_fresh_since(self.voters, now) > self.config.node_timeout:
            self._step_down()
            return
        limit = self.config.node_timeout * (1 << self._stall_doublings)
        stalled = leadership.disk_is_stalled(self.log.last_index, self._durability.index, now, limit)
        if stalled and is_majority(self.voters, leadership.live(now)):
            # A stalled disk behind healthy heartbeats would stop the cluster **(stricter, PROTOCOL 10)**
            self._stall_doublings = min(self._stall_doublings + 1, 4)
            self.disk_stalled = True
            self._update.critical.append("the disk does not move: stepping down")
            self._step_down()
            return
        leadership.end_late_transfer(now)
        if now >= leadership.heartbeat_at:
            self._round += 1
            leadership.begin_round(self._round, now)
            leadership.heartbeat(now, self.commit_index)

    # ------------------------------------------------------------------ compaction

    def _trim(self) -> None:
        """Drops applied entries from the front of the log in memory (PROTOCOL 7)."""
        leadership = self.leadership
        needed = leadership.least_needed(self._now) if leadership is not None else _MAX_INDEX
        target = self._trimming.target(self.log, self.last_applied, needed, self._now)
        if target > self.log.boundary_index:
            self.log.trim_to(target)
            self._voters.forget_to(target)

    def check(self) -> None:
        """Raises InvariantViolation where one of the class's invariants does not hold."""
        last = self.log.last_index
        facts = {
            "last_applied <= commit_index": self.last_applied <= self.commit_index,
            "commit_index <= last_index": self.commit_index <= last,
            "boundary <= last_applied": self.log.boundary_index <= self.last_applied,
            "durable <= last_index": self._durability.index <= last,
            "handed <= last_index": self._handed <= last,
            "verified <= last_index": self.verified_index <= max(last, self.log.boundary_index),
            "leadership only of a leader": self.leadership is None or self.role is Role.LEADER,
            "voters only of members": self.standing is not Standing.SINGLETON or not self.voters,
        }
        broken = [fact for fact, holds in facts.items() if not holds]
        if broken:
            raise InvariantViolation(f"{self.node_id}: {', '.join(broken)}")
        self.log.check()


_HANDLERS: dict[type[Message], Any] = {
    AppendEntries: Raft._on_append_entries,
    AppendEntriesAck: Raft._on_append_entries_ack,
    PreVoteRequest: Raft._on_pre_vote_request,
    PreVote: Raft._on_pre_vote,
    VoteRequest: Raft._on_vote_request,
    Vote: Raft._on_vote,
    TimeoutNow: Raft._on_timeout_now,
}
