"""Messages of identified peers: which may be handled, on which link, and by whom.

Floor 3. What a message does is decided where it is handed to; this file is the table, and the few answers that need
no more than a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cluster.entries import App, DelVoter, NodeForget, parse_entry
from ..cluster.state import Kind
from ..consensus import Standing
from ..errors import Conflict, Rejected, UnknownOutcome
from ..messages import (
    AddMe,
    AppendEntries,
    AppendEntriesAck,
    InstallSnapshot,
    Meet,
    MeetRejected,
    Message,
    PreVote,
    PreVoteRequest,
    Propose,
    ReadIndex,
    ReadIndexNo,
    ReadIndexOk,
    Reject,
    Removed,
    ReplOffsets,
    SnapshotAck,
    SnapshotPiece,
    TimeoutNow,
    TransferLeader,
    Vote,
    VoteRequest,
    Welcome,
)
from .barriers import RemoteRead
from .links import LinkInfo

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Inbox"]


class Inbox:
    """Hands on what arrives for one member."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def deliver(self, info: LinkInfo, message: Message) -> None:
        """A message of an identified peer. Requests come on inbound links, answers on outbound ones."""
        member, kind = self._member, type(message)
        handler = _DISPATCH.get(kind)
        if kind in _OF_LEADERS_AND_CANDIDATES and member.raft.alone:
            member.links.close(info, f"{kind.__name__} to a node that is alone")
        elif handler is None:
            self._deliver_other(info, message)
        elif info.is_meet or not member.is_served(info):
            member.count("messages_unserved")
        elif (kind in _REQUESTS) == info.outbound:
            member.links.close(info, f"{kind.__name__} on the wrong link")
        else:
            handler(self, info, message)

    def _deliver_other(self, info: LinkInfo, message: Message) -> None:
        """What is not for members alone, or for nobody."""
        member, kind = self._member, type(message)
        if kind in _MEETING:
            member.meetings.receive(info, message, member.now)
        elif isinstance(message, Removed):
            self._on_removed(info, message)
        elif info.is_meet or not member.is_served(info):
            member.count("messages_unserved")
        else:
            member.count(f"messages_ignored_{kind.__name__.lower()}")

    def _on_removed(self, info: LinkInfo, message: Removed) -> None:
        """Obeyed if the NODE_FORGET is news, and comes from our cluster (PROTOCOL 8)."""
        member = self._member
        if not info.outbound or info.cluster != member.cluster_id or message.index <= member.raft.last_applied:
            return
        joins = member.standing is Standing.JOINER and member.neighbours.is_counted_on
        if member.standing is Standing.MEMBER:
            member.lifecycle.was_removed(member.now)
        elif joins and message.index > member.neighbours.newest_join(member.node_id):
            member.lifecycle.give_up_joining("this node was forgotten while it joined: alone again", member.now)

    def _on_raft(self, info: LinkInfo, message: Message) -> None:
        self._member.raft.receive(info.node_id or "", message, self._member.now, info.link)
        self._follow_cluster_of(info)

    def _on_snapshot(self, info: LinkInfo, message: Message) -> None:
        self._member.snapshots.receive(info, message, self._member.now)
        self._follow_cluster_of(info)

    def _follow_cluster_of(self, info: LinkInfo) -> None:
        """A joiner takes the cluster id of the first leader that it follows (PROTOCOL 9)."""
        member = self._member
        joins = member.standing is Standing.JOINER and member.cluster_id is None
        if joins and member.raft.leader_id == info.node_id:
            member.cluster_id = info.cluster
            member.links.close_foreign()

    def _on_snapshot_ack(self, info: LinkInfo, message: SnapshotAck) -> None:
        member = self._member
        member.raft.see_term(message.term, member.now, info.link)
        member.snapshots.on_ack(info.node_id or "", message)

    def _on_propose(self, info: LinkInfo, message: Propose) -> None:
        if self._member.knows(info.node_id or ""):  # also by the log alone: a restarted leader has applied nothing yet
            self._member.leader.on_propose(info.link, message.entry, self._member.now)
        else:
            self._member.count("proposals_of_strangers")

    def _on_reject(self, info: LinkInfo, message: Reject) -> None:
        member = self._member
        if info.node_id == member.raft.leader_id and member.proposals.pending.has(_key_of(message.entry)):
            error = Conflict if message.reason == "conflict" else Rejected
            reason = self._reason_to_refuse(message.entry) or message.reason
            self.refused(message.entry, error(f"the leader refused it: {reason}"))

    def refused(self, raw: bytes, error: Rejected) -> None:
        """A leader refused a proposal of ours. Sent twice, it may be in the log all the same (PROTOCOL 6.4)."""
        member, key = self._member, _key_of(raw)
        outcome: Exception | None = error
        if member.proposals.sent_more_than_once(key):
            entry = parse_entry(raw)
            if isinstance(entry, App):
                outcome = UnknownOutcome("it was sent before, and is refused now")
            elif member.state.check(entry).kind is Kind.HOLDS:
                outcome = None
        member.proposals.complete(key, None, outcome)

    def _reason_to_refuse(self, raw: bytes) -> str:
        """Why a leader would refuse the entry, by our own state: REJECT does not say it."""
        entry, state = parse_entry(raw), self._member.state
        if isinstance(entry, App):
            return ""
        if isinstance(entry, NodeForget):
            state = state.copy()
            state.apply(0, DelVoter(entry.node_id))
        return state.check(entry).reason

    def _on_read_index(self, info: LinkInfo, message: ReadIndex) -> None:
        member = self._member
        if info.node_id in member.state.nodes:
            member.raft.barrier(RemoteRead(info.node_id or "", message.number, info.link), member.now)
        else:
            member.links.send(info, ReadIndexNo(message.number), member.now)

    def _on_read_index_ok(self, info: LinkInfo, message: ReadIndexOk) -> None:
        if info.node_id == self._member.raft.leader_id:
            self._member.barriers.confirmed(message.number, message.index)

    def _on_read_index_no(self, info: LinkInfo, message: ReadIndexNo) -> None:
        member = self._member
        member.barriers.refused(message.number, member.now + member.config.heartbeat_interval)

    def _on_transfer_leader(self, info: LinkInfo, message: TransferLeader) -> None:
        member, raft = self._member, self._member.raft
        if info.node_id not in member.state.nodes:
            return
        raft.see_term(message.term, member.now, info.link)
        if raft.is_leader and message.term == raft.current_term:
            raft.transfer_to(None, member.now)

    def _on_repl_offsets(self, info: LinkInfo, message: ReplOffsets) -> None:
        if info.node_id == self._member.raft.leader_id:
            self._member.repl_offsets.update(message.offsets)


def _key_of(entry: bytes) -> bytes:
    """What a proposal of this entry is known by."""
    if entry.startswith(b"APP "):
        return entry.split(b" ", 2)[1]
    return entry


_MEETING = frozenset({Meet, AddMe, Welcome, MeetRejected})

_DISPATCH: dict[type[Message], Any] = {
    AppendEntries: Inbox._on_raft,
    AppendEntriesAck: Inbox._on_raft,
    PreVoteRequest: Inbox._on_raft,
    PreVote: Inbox._on_raft,
    VoteRequest: Inbox._on_raft,
    Vote: Inbox._on_raft,
    TimeoutNow: Inbox._on_raft,
    InstallSnapshot: Inbox._on_snapshot,
    SnapshotPiece: Inbox._on_snapshot,
    SnapshotAck: Inbox._on_snapshot_ack,
    Propose: Inbox._on_propose,
    Reject: Inbox._on_reject,
    ReadIndex: Inbox._on_read_index,
    ReadIndexOk: Inbox._on_read_index_ok,
    ReadIndexNo: Inbox._on_read_index_no,
    TransferLeader: Inbox._on_transfer_leader,
    ReplOffsets: Inbox._on_repl_offsets,
}

_OF_LEADERS_AND_CANDIDATES = frozenset(
    {AppendEntries, PreVoteRequest, VoteRequest, TimeoutNow, InstallSnapshot, SnapshotPiece}
)

_REQUESTS = _OF_LEADERS_AND_CANDIDATES | {Propose, ReadIndex, TransferLeader, ReplOffsets}
