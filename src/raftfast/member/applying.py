"""Applying committed entries: in index order, once each, on every member alike (PROTOCOL 5.5).

Floor 3. What an entry does to the cluster's state is `cluster.state`'s affair, what a command does the state machine's;
this file does what follows for this node, and answers who waited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cluster.entries import (
    AddVoter,
    DelVoter,
    Entry,
    NodeFail,
    NodeForget,
    NodeInfo,
    NodeJoin,
    NodeRecover,
    parse_app,
    parse_entry,
)
from ..cluster.sessions import Duplicate, Look
from ..cluster.state import Kind, Verdict
from ..consensus import Standing
from ..consensus.voters import voter_change
from ..errors import Conflict, EntryError, InvariantViolation, Rejected, UnknownOutcome
from ..hot import nodesconf
from .proposals import app_key

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Applier"]

_EVENTS: dict[type[Entry], str] = {
    NodeJoin: "member-joined",
    NodeForget: "member-forgotten",
    AddVoter: "voter-added",
    DelVoter: "voter-removed",
    NodeFail: "node-failed",
    NodeRecover: "node-recovered",
}


class Applier:
    """Applies for one member."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def run(self, budget: int, now: float) -> bool:
        """Applies up to `budget` committed entries. Whether another turn is due: there is more, or something follows.

        What follows of commands are answers alone.
        """
        member, raft = self._member, self._member.raft
        first, boundary, follows = raft.last_applied + 1, raft.log.boundary_index, False
        last = min(raft.commit_index, raft.last_applied + budget)
        if last < first:
            return False
        for index, line in enumerate(raft.log.lines(first, last + 1), first):
            try:
                app = parse_app(line)
            except EntryError as error:
                # No leader of ours appends such an entry; whoever did, it is a no-op on every member alike.
                member.report(f"entry {index} is malformed and has no effect: {error}")
                follows = True
                continue
            if app is not None:
                self._apply_command(index, *app)
            else:
                self._apply_entry(index, line.split(b" ", 1)[1], now)
                follows = True
        raft.applied(last, now)
        if member.standing is Standing.JOINER:
            self._become_member(now)
            follows = True
        member.barriers.serve(last)
        # Who stands behind a boundary that moved may need a snapshot now.
        return follows or raft.commit_index > last or raft.log.boundary_index != boundary

    def _become_member(self, now: float) -> None:
        """A joiner that the state names is a member, once the past is behind it.

        Up to what was committed when it first heard a leader it applies history: a NODE_JOIN there may be of an
        earlier time, and its NODE_FORGET still to come. A leader that has not committed anything of its own term may
        not know how far that goes; and where its own NODE_JOIN is still to come, what went before it is history too.
        """
        member, raft = self._member, self._member.raft
        if member.node_id not in member.state.nodes or member.node_id in member.neighbours:
            return
        if raft.last_applied >= raft.commit_to_reach and raft.log.term_at(raft.last_applied) == raft.current_term:
            member.lifecycle.became_member(now)

    def _apply_command(self, index: int, client_id: str | None, sequence: int, command: bytes) -> None:
        """Exactly once for each identity (PROTOCOL 6.3)."""
        member = self._member
        if member.state_machine is None:
            raise InvariantViolation(
                f"entry {index} is a command for a state machine, and this node embeds none: start it with the one "
                "that its cluster uses"
            )
        if client_id is None:
            member.state_machine.apply(index, command)
            return
        sessions = member.sessions
        if sequence == 0:
            sessions.open(client_id, index)
            member.proposals.complete(app_key(client_id, 0), None, None)
            return
        look = sessions.look(client_id, sequence)
        result: bytes | None = None
        error: Exception | None = None
        if look is Look.FRESH:
            result = member.state_machine.apply(index, command)
            sessions.record(client_id, sequence, index, result)
        else:
            sessions.touch(client_id, index)
            result, error = self.outcome_of(look)
        member.proposals.complete(app_key(client_id, sequence), result, error)

    @staticmethod
    def outcome_of(look: Look | Duplicate) -> tuple[bytes | None, Exception | None]:
        """What the proposer of a command that is not applied now is told."""
        if isinstance(look, Duplicate):
            if look.kept:
                return look.result, None
            return None, UnknownOutcome("the command was applied before; its result is no longer kept")
        return None, UnknownOutcome("the session was closed meanwhile")

    def _apply_entry(self, index: int, raw: bytes, now: float) -> None:
        member = self._member
        try:
            entry = parse_entry(raw)
        except EntryError as error:
            member.report(f"entry {index} is malformed and has no effect: {error}")
            self._check_voters(index, raw)
            return
        verdict = member.state.apply(index, entry)
        if verdict.success:
            self._follow(index, entry, verdict, now)
        else:
            self._check_voters(index, raw)
        member.proposals.complete(raw, None, _error_of(verdict))

    def _check_voters(self, index: int, raw: bytes) -> None:
        """Of an entry that had no effect: it must have none on the voters in force either (PROTOCOL 8).

        They are read from the log, the others at a restart from the node lines: where the two part, majorities do. A
        leader that checks what it appends never makes such an entry.
        """
        voters = self._member.state.voters()
        change = voter_change(b"0 " + raw, voters)
        if change is not None and (change[1] in voters) is not change[0]:
            raise InvariantViolation(f"entry {index} changed the voters in force and can't be applied: {raw[:80]!r}")

    def _follow(self, index: int, entry: Entry, verdict: Verdict, now: float) -> None:
        """What an entry that took effect means for this node."""
        member = self._member
        if isinstance(entry, NodeJoin):
            if entry.voter and member.cluster_id is None:
                member.cluster_id = nodesconf.parse_address(entry.address).aux.get("shard-id")
            member.neighbours.joined(entry.node_id, index)
        if verdict.kind is not Kind.VALID:
            return
        kind = _EVENTS.get(type(entry))
        if kind is not None:
            node_id: Any = getattr(entry, "node_id", None)
            member.event(kind, node_id)
        if isinstance(entry, NodeForget):
            member.neighbours.moved = True
            if entry.node_id == member.node_id:
                if member.standing is not Standing.JOINER:
                    member.lifecycle.was_removed(now)
            else:
                member.links.close_of(entry.node_id, "forgotten")
        elif isinstance(entry, (AddVoter, DelVoter, NodeInfo)):
            member.neighbours.moved = True


def _error_of(verdict: Verdict) -> Exception | None:
    if verdict.success:
        return None
    if verdict.kind is Kind.CONFLICT:
        return Conflict(verdict.reason)
    return Rejected(verdict.reason)
