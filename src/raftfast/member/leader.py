"""A leader's work beside Raft: checking proposals before they are appended, the queue of voter changes, its policy.

Floor 3. A proposal is checked against the state that the whole log will give; apply checks again (PROTOCOL 6.4, 8).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..cluster.entries import AddVoter, DelVoter, Entry, NodeForget, parse_entry
from ..cluster.state import ClusterState, Kind, Verdict
from ..consensus import Standing
from ..consensus.leading import Leadership
from ..errors import Conflict, EntryError, Rejected
from ..messages import Reject
from .policy import View, failure_entries, silent_voters, voter_entry

if TYPE_CHECKING:
    from .member import Member

__all__ = ["LeaderWork"]

_BY_THEMSELVES = 64
"""Entries that nobody's limit counts: openings of clients, addresses, marks of failure."""


class _Asked(NamedTuple):
    """A proposal: its entry as bytes, and the link that a REJECT goes back on; None: it is our own."""

    raw: bytes
    link: int | None


class LeaderWork:
    """What is done only while this node leads.

    Invariant: what is queued came in the leadership that is; all of it is forgotten with that: proposers send again.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._voter_changes: deque[tuple[AddVoter | DelVoter, _Asked]] = deque()
        self._forgets: deque[tuple[NodeForget, _Asked]] = deque()
        self._held: deque[_Asked] = deque()
        self._held_bytes = 0
        self._beat_at = 0.0
        self._replacing: tuple[str, str] | None = None
        self._leadership: Leadership | None = None

    def _forget_earlier(self) -> None:
        """Called before anything is queued or released: nothing of an earlier leadership is looked at."""
        leadership = self._member.raft.leadership
        if leadership is self._leadership:
            return
        self._leadership = leadership
        self._voter_changes.clear()
        self._forgets.clear()
        self._held.clear()
        self._held_bytes = 0
        self._replacing = None

    @property
    def replaced(self) -> frozenset[str]:
        """The silent voter that this leader has put a learner in the place of: taken out next, if it stays silent."""
        if self._replacing is None or self._leadership is not self._member.raft.leadership:
            return frozenset()
        return frozenset(self._replacing[:1])

    # ------------------------------------------------------------------ proposals

    def append_own(self, entries: list[bytes], now: float) -> None:
        """This node's own proposals, in their order."""
        self._forget_earlier()
        commands: list[bytes] = []
        for raw in entries:
            if raw.startswith(b"APP "):
                commands.append(raw)
                continue
            self._append_commands(commands, now)
            commands = []
            self._admit(_Asked(raw, None), now)
        self._append_commands(commands, now)

    def _append_commands(self, commands: list[bytes], now: float) -> None:
        if not commands:
            return
        if not self._member.raft.accepts_proposals:  # an entry before them made us hand over
            for raw in commands:
                self._hold(_Asked(raw, None))
        elif self._has_foreign_member():
            for raw in commands:
                self._refuse(_Asked(raw, None), Rejected("a member does not take commands of state machines"))
        else:
            self._member.raft.propose(commands, now)

    def _has_foreign_member(self) -> bool:
        """Whether a member names no cluster: a server of another make, to which APP means nothing (PROTOCOL 8)."""
        return any(
            info.cluster is None and node_id in self._member.state.nodes
            for node_id, info in self._member.links.outbound.items()
        )

    @property
    def is_overfull(self) -> bool:
        """Whether this leader's log holds more that is not committed than all members may have pending at once.

        Proposers forget what expires, and propose anew: where the commit index does not move (the only voter's disk
        hangs) the log would grow without end.
        """
        raft, config = self._member.raft, self._member.config
        if not raft.is_leader:
            return False
        members = len(raft.members)
        return raft.is_overfull(config.max_pending * members + _BY_THEMSELVES, config.max_pending_bytes * members)

    def on_propose(self, link: int, raw: bytes, now: float) -> None:
        """A member forwards a proposal."""
        raft = self._member.raft
        if not raft.is_leader:
            self._member.count("proposals_not_leading")
            return
        self._forget_earlier()
        asked = _Asked(raw, link)
        if self._member.no_room and raw.startswith(b"APP "):
            self._member.count("commands_without_room")
            self._refuse(asked, Rejected(self._member.no_room))
            return
        if self.is_overfull:
            self._member.count("proposals_over_limit")  # they expire, unless they are sent again in time
            return
        if raft.accepts_proposals:
            self._admit(asked, now)
            return
        config = self._member.config
        if len(self._held) < config.max_pending and len(raw) <= config.max_pending_bytes - self._held_bytes:
            self._hold(asked)

    def _hold(self, asked: _Asked) -> None:
        """Handing over: kept in case that nobody takes over."""
        self._held.append(asked)
        self._held_bytes += len(asked.raw)

    def _admit(self, asked: _Asked, now: float) -> None:
        """Checks one proposal, and appends, queues or refuses it."""
        raft = self._member.raft
        if not raft.accepts_proposals:
            self._hold(asked)
            return
        try:
            if asked.raw.startswith(b"APP"):
                parse_entry(asked.raw)
                if self._has_foreign_member():
                    raise EntryError("a member does not take commands of state machines")
                raft.propose([asked.raw], now)
                return
            entry = parse_entry(asked.raw)
        except EntryError as error:
            self._refuse(asked, Rejected(str(error)))
            return
        state, voter = self._whole_log_state(), None
        if isinstance(entry, NodeForget) and entry.node_id in (raft.voters | self._member.state.voters()):
            # What would refuse the NODE_FORGET in the end must do so before its voter is taken out.
            state, voter = state.copy(), entry
            state.apply(0, DelVoter(voter.node_id))
        verdict = state.check(entry)
        if not verdict.success:
            self._refuse(asked, _error(verdict))
        elif voter is not None and verdict.kind is Kind.VALID:
            self._forget_voter(voter, asked, now)
        elif isinstance(entry, (AddVoter, DelVoter)):
            self._queue_voter_change(entry, asked, now)
        else:
            self._append(asked, now)

    def _append(self, asked: _Asked, now: float) -> None:
        try:
            self._member.raft.propose([asked.raw], now)
        except Rejected as error:  # a founder's join sent again: to Raft a voter change, and now is no time for one
            self._refuse(asked, error)

    def _whole_log_state(self) -> ClusterState:
        """The state that all of the log will give, committed or not."""
        member = self._member
        log, applied = member.raft.log, member.raft.last_applied
        if applied == log.last_index:
            return member.state
        state = member.state.copy()
        for index, line in enumerate(log.lines(applied + 1, log.last_index + 1), applied + 1):
            _, kind_and_data = line.split(b" ", 1)
            if not kind_and_data.startswith(b"APP"):
                try:
                    state.apply(index, parse_entry(kind_and_data))
                except EntryError:
                    continue  # a no-op at apply too
        return state

    def _refuse(self, asked: _Asked, error: Rejected) -> None:
        if asked.link is None:
            self._member.inbox.refused(asked.raw, error)
        else:
            reason = "conflict" if isinstance(error, Conflict) else "rejected"
            self._member.links.reply(asked.link, Reject(reason, asked.raw), self._member.now)

    # ------------------------------------------------------------------ voters

    def _queue_voter_change(self, entry: AddVoter | DelVoter, asked: _Asked, now: float) -> None:
        """Requests that come while a change is under way wait; they do not fail (PROTOCOL 8)."""
        if isinstance(entry, DelVoter) and entry.node_id == self._member.node_id and len(self._member.raft.voters) > 1:
            self._hand_over(asked, now)
        else:
            self._voter_changes.append((entry, asked))

    def _forget_voter(self, entry: NodeForget, asked: _Asked, now: float) -> None:
        """DEL_VOTER first; the NODE_FORGET once that is committed."""
        if entry.node_id == self._member.node_id:
            if len(self._member.raft.voters) > 1:
                self._hand_over(asked, now)
            else:
                self._refuse(asked, Rejected("the last voter is never removed"))
            return
        change = DelVoter(entry.node_id)
        if all(queued != change for queued, _ in self._voter_changes):
            self._voter_changes.append((change, _Asked(change.encode(), None)))
        self._forgets.append((entry, asked))

    def _hand_over(self, asked: _Asked, now: float) -> None:
        """This leader is to be removed: another one does it, to whom the proposer sends again."""
        if self._member.raft.transfer_to(None, now) is None:
            self._refuse(asked, Rejected("it is the leader, and there is no live voter to hand over to"))

    def release_waiting(self, now: float) -> None:
        """Appends what waited, as far as its time has come. Called each turn."""
        if not (self._voter_changes or self._held or self._forgets):
            return
        member, raft = self._member, self._member.raft
        self._forget_earlier()
        while self._held and raft.accepts_proposals:  # any of them may make us hand over
            asked = self._held.popleft()
            self._held_bytes -= len(asked.raw)
            self._admit(asked, now)
        for _ in range(len(self._forgets)):
            entry, asked = self._forgets.popleft()
            if entry.node_id in (raft.voters | member.state.voters()):
                self._forgets.append((entry, asked))
            else:
                self._admit(asked, now)
        while self._voter_changes and raft.accepts_proposals and not raft.voter_change_pending:
            change, asked = self._voter_changes.popleft()
            refusal = self._refusal(change)
            if refusal is not None and self.may_still_hear(change.node_id, now):
                self._voter_changes.appendleft((change, asked))
                break
            if refusal is None:
                raft.propose([asked.raw], now)
                break
            self._refuse(asked, Rejected(refusal))
            self._fail_forgets_of(change, refusal)

    def _refusal(self, entry: AddVoter | DelVoter) -> str | None:
        verdict = self._whole_log_state().check(entry)
        if not verdict.success:
            return verdict.reason
        added = isinstance(entry, AddVoter)
        if added and verdict.kind is Kind.VALID and not self._names_cluster(entry.node_id):
            return "the member names no cluster: its quorum would follow other rules"
        return self._member.raft.voter_change_refusal(added, entry.node_id, self._member.now)

    def may_still_hear(self, node_id: str | None, now: float) -> bool:
        """Whether this leader is too new to have heard all whom a change is about: it says nothing of them yet."""
        raft = self._member.raft
        peers = raft.leadership.peers if raft.leadership is not None else {}
        return any(
            progress.heard_at is None and now - progress.silent_since <= self._member.config.node_timeout
            for peer, progress in peers.items()
            if peer == node_id or peer in raft.voters
        )

    def _fail_forgets_of(self, entry: Entry, refusal: str) -> None:
        if not isinstance(entry, DelVoter):
            return
        for _ in range(len(self._forgets)):
            forget, asked = self._forgets.popleft()
            if forget.node_id == entry.node_id:
                self._refuse(asked, Rejected(refusal))
            else:
                self._forgets.append((forget, asked))

    def _names_cluster(self, node_id: str) -> bool:
        info = self._member.links.outbound.get(node_id)
        return info is not None and info.cluster is not None

    # ------------------------------------------------------------------ policy

    def tick(self, now: float) -> None:
        """At each heartbeat: what this leader proposes by itself."""
        member = self._member
        leadership = member.raft.leadership
        if leadership is None or leadership.heartbeat_at == self._beat_at or member.standing is not Standing.MEMBER:
            return
        self._beat_at = leadership.heartbeat_at
        self._forget_earlier()
        if not member.raft.accepts_proposals:
            return
        config, state = member.config, member.state
        view = View(
            member.node_id,
            state.nodes,
            member.raft.voters,
            {peer: now - progress.silent_since for peer, progress in leadership.peers.items()},
            frozenset(
                node_id
                for node_id, node in state.nodes.items()
                if not node.voter and member.raft.is_caught_up(node_id) and self._names_cluster(node_id)
            ),
            self._replacing,
        )
        in_flight = member.proposals.pending
        for entry in failure_entries(view, config.node_timeout):
            node_id = entry.encode().split(b" ")[1]
            if not (in_flight.has(b"NODE_FAIL " + node_id) or in_flight.has(b"NODE_RECOVER " + node_id)):
                member.proposals.add_entry(entry.encode(), None, now)
        if not self._voter_changes and not member.raft.voter_change_pending:
            replace_after = config.replace_after if config.replace_after is not None else 10 * config.node_timeout
            change = voter_entry(view, config.max_voters, replace_after)
            if isinstance(change, AddVoter) and (silent := silent_voters(view, replace_after)):
                self._replacing = silent[0], change.node_id
            if isinstance(change, (AddVoter, DelVoter)):
                self._voter_changes.append((change, _Asked(change.encode(), None)))


def _error(verdict: Verdict) -> Rejected:
    return (Conflict if verdict.kind is Kind.CONFLICT else Rejected)(verdict.reason)
