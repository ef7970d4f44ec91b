"""The Raft state machine: its inputs, its one output, and what a leader does.

Floor 2. It reads like figure 3.1 of the dissertation, in four files that build on each other: `core` (the state),
`elections`, `following`, and this one. What a rule comes from stands beside it, and each deviation names the PROTOCOL
section that orders it. Nothing here can wait, block, look at a clock or open anything; `now` is an argument, randomness
a `random.Random` handed in: same seed, same calls, same output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

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
from .core import Standing
from .following import Following
from .leading import Leadership
from .quorum import is_majority
from .update import Send, Update
from .voters import VOTER_CHANGES, VoterHistory, voter_change

__all__ = ["Raft"]

_MAX_INDEX = (1 << 64) - 1


class Raft(Following):
    """One node's Raft.

    Inputs are methods; what they cause is collected and handed out by `take()`, once a turn.

    Invariants (`check()` holds them):
    1. boundary <= last_applied <= commit_index <= last_index, but that last_applied may trail the boundary's install;
    2. the term never falls, and in one term the vote changes once at most, from none;
    3. durable index <= last_index, and what was handed to storage <= last_index;
    4. only a member has voters, and only a leader has a `Leadership`;
    5. `verified_index` <= last_index.
    """

    # ------------------------------------------------------------------ inputs

    def receive(self, sender: str, message: Message, now: float, link: int | None = None) -> None:
        """A message that came on a link bound to `sender`; answers go back on `link`.

        Raises InvariantViolation where Raft's own guarantees are seen broken: the node must stop.
        """
        self._enter(now)
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            getattr(self, handler)(sender, message, link)

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
        """`peer` says that it has lost its log: what it acknowledged counts no more, until its progress starts anew."""
        self._enter(now)
        self.without_log.add(peer)
        self._follow_membership()

    def joins_anew(self, peer: str, now: float) -> None:
        """On a new link `peer`, which does not vote, says that it is no member: a joiner that gave up has dropped what
        it acknowledged on earlier links (PROTOCOL 3), so that counts no more, and nothing was lost."""
        self._enter(now)
        if self.leadership is not None and self.leadership.counts_on(peer):
            self._restart(peer, self.leadership)

    def keep_tail(self, factor: int) -> None:
        """The log may outgrow `max_log_bytes` this many times before it is trimmed whoever needs it (PROTOCOL 7)."""
        self._trimming.tail_factor = factor

    def restart_progress(self, peer: str, now: float) -> None:
        """`peer` joined, or has its log again: what it acknowledged before counts no more (PROTOCOL 5.3)."""
        self._enter(now)
        self.without_log.discard(peer)
        if self.leadership is not None and peer != self.node_id:
            self._restart(peer, self.leadership)

    def _restart(self, peer: str, leadership: Leadership) -> None:
        leadership.restart(peer, self.log.last_index + 1, self._now, peer in self._linked)

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
        self.beginnings += 1
        self.standing = standing
        self.node_id = node_id if node_id is not None else self.node_id
        self.current_term = term
        self.voted_for = None
        self.leader_id = None
        self.verified_index = 0
        self._leader_round = None
        self._old_leader = None
        self._needed_until = 0.0
        self._term_leader = None
        self.commit_to_reach = 0
        self._timeout_now_in = 0
        self.members = frozenset()
        self._voters = VoterHistory(())
        self._granted.clear()
        self.without_log.clear()
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
        update, last = self._update, self.log.last_index
        if self._issued != (self.current_term, self.voted_for):
            update.hard_state = self._issued = self.hard_state
        update.store_from, update.store_to = self._handed + 1, last + 1
        has_entries, self._handed = self._handed < last, last
        if has_entries or update.hard_state or update.snapshot or update.truncate_from is not None:
            # A rewrite always carries the hard state: its ticket vouches for it too.
            carried = self._issued if update.hard_state or update.snapshot else None
            update.ticket = self._durability.issue(last, carried, self._now)
        if self._promises.made:
            slow = self._durability.is_slow(self._now, self.config.node_timeout / 4)
            sends, owed = self._promises.end_turn(self.current_term, slow)
            update.send.extend(sends)
            self._acknowledge(owed)

    def _wake_at(self) -> float:
        soon = self._now + self._heartbeat_interval
        if self.leadership is not None:
            return min(soon, self.leadership.heartbeat_at)
        if self._deadline < soon and self.may_stand:
            return max(self._deadline, self._now)
        return soon

    # ------------------------------------------------------------------ the leader

    def _refuse_bad_voter_change(self, added: bool, node_id: str) -> None:
        """One at a time, and only what could be committed with now (PROTOCOL 8). **(stricter)**"""
        leadership = self.leadership
        if leadership is None or self.voter_change_pending:
            raise Rejected("an earlier voter change is not committed yet")
        refusal = self.voter_change_refusal(added, node_id, self._now)
        if refusal is not None:
            raise Rejected(refusal)

    def voter_change_refusal(self, added: bool, node_id: str, now: float) -> str | None:
        """Why this leader would refuse the change for good at `now`; None if it would not, or if it holds already."""
        self._enter(now)
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
        if leadership is None or self.commit_index == self.log.last_index:
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

    # ------------------------------------------------------------------ compaction and invariants

    def _trim(self) -> None:
        """Drops applied entries from the front of the log in memory (PROTOCOL 7)."""
        needed = self.leadership.least_needed if self.leadership is not None else _by_nobody
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


def _by_nobody(now: float) -> int:
    """Where a log is needed up to that is sent to nobody."""
    return _MAX_INDEX


_HANDLERS: dict[type[Message], str] = {
    AppendEntries: "_on_append_entries",
    AppendEntriesAck: "_on_append_entries_ack",
    PreVoteRequest: "_on_pre_vote_request",
    PreVote: "_on_pre_vote",
    VoteRequest: "_on_vote_request",
    Vote: "_on_vote",
    TimeoutNow: "_on_timeout_now",
}
