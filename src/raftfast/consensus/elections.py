"""Terms, votes and elections: figure 3.1, "RequestVote RPC" and "Rules for Servers"; pre-vote, lease and transfer.

Floor 2. Every change of term, vote and role is in this file, but the step-down that a leader decides (`raft`).
"""

from __future__ import annotations

from ..messages import Message, PreVote, PreVoteRequest, Role, TimeoutNow, Vote, VoteRequest
from .core import Core, Standing
from .leading import Leadership
from .quorum import is_majority
from .update import Send

__all__ = ["MAX_TERM_JUMP", "Elections"]

MAX_TERM_JUMP = 1 << 32
"""A term further than this above ours is well-formed but never adopted (PROTOCOL 3)."""


class Elections(Core):
    """How a node comes to follow, to vote, to stand and to lead."""

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
        is_free = self.may_grant and message.term > self.current_term and not self.lease_is_live(self._now)
        is_behind = self._log_is_behind(message.last_log_index, message.last_log_term)
        granted = is_free and not is_behind
        if is_free and is_behind:
            self._stand_for_a_while()
        self._promise(sender, PreVote(message.term if granted else self.current_term, granted), link)

    def _stand_for_a_while(self) -> None:
        """Somebody counts on our vote, and lacks entries of ours: for a while we stand ourselves, a learner too.

        An entry that we don't have may have made us a voter there: where the asker has not enough votes without ours,
        nobody else might ever win. **(stricter, dissertation 4.2.2)**
        """
        if not self.may_stand:
            self._deadline = self._now + self._election_timeout()
        self._needed_until = self._now + 3 * self.config.node_timeout

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

    def see_term(self, term: int, now: float, link: int | None) -> None:
        """A member's message that is not the core's carried `term`: a higher one makes us its follower (PROTOCOL 4)."""
        self._enter(now)
        self._learn_term(term, link)

    def _learn_term(self, term: int, link: int | None) -> None:
        """A term in a message that is no AppendEntries, no snapshot, and does not ask for a vote."""
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
        self._old_leader = None  # who led before us is no news any more, should we lead again without another between
        self._round += 1
        self.leadership.begin_round(self._round, self._now)
        self._follow_membership()

    def _on_timeout_now(self, sender: str, message: TimeoutNow, link: int | None) -> None:
        """Dissertation 3.10: obeyed once, by a follower that may stand, in exactly that term, from its leader."""
        if self.alone:
            self._close(link, "TIMEOUT_NOW to a node that is alone")
        elif message.term > self.current_term:
            self._learn_term(message.term, link)
        elif (
            self.role is Role.FOLLOWER
            and self.may_stand
            and message.term == self.current_term
            and sender == self.leader_id
            and self._timeout_now_in != message.term
        ):
            self._timeout_now_in = message.term
            self._begin_election(transfer=True)
