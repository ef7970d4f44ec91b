"""What must hold in every run: Raft's safety properties, and what this project promises beyond them.

Floor 6. It sees everything at once, which no node can, and changes nothing. A broken rule raises `BrokenInvariant`.
What is looked at is only what a step can have changed: the checks cost little, so that runs can be many.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from ..cluster.entries import NodeForget, NodeJoin, parse_entry
from ..cluster.snapshot import node_lines
from ..cluster.state import ClusterState, Kind
from ..consensus import Progress, Standing
from ..consensus.voters import voter_change
from ..errors import EntryError
from ..member import Member, StoreJob
from ..messages import (
    AppendEntries,
    AppendEntriesAck,
    Hello,
    Hi,
    InstallSnapshot,
    Message,
    SnapshotPiece,
    Vote,
    VoteRequest,
)
from .disk import SimulatedDisk, term_of
from .machine import split_command
from .network import End
from .oracles import BrokenInvariant, SessionOracle, ShardOracle
from .states import KnownStates, Where, other_answer

if TYPE_CHECKING:
    from .process import SimulatedNode

__all__ = ["BrokenInvariant", "Checks", "ClusterTruth", "MachineWatch"]


class _Command(NamedTuple):
    at: int
    inner: bytes
    result: bytes
    where: Where


class ClusterTruth:
    """What is true of one cluster for ever, learned as it happens.

    `lines` are all entries that ever stood in a log, by (index, term); `committed` the entries that are committed,
    `committed_in` in which term each was found to be;
    `commands` the applied commands by operation number, as each was first; `repeated` by index those that took effect
    once more, as they may whose session is forgotten; `applied` both, in the order of the log; `digests` the state
    machine's hash after each command's index, `states` its states, as far as they were looked at.
    `succeeded` are the cluster entries that took effect, or held, each with the index where it first did; `lost` the
    ids of nodes whose copies were destroyed and that have not been forgotten, or joined anew, since.
    """

    def __init__(self, max_sessions: int) -> None:
        self.lines: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.committed: list[bytes] = [b""]
        self.committed_in: list[int] = [0]
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], str] = {}
        self.commands: dict[int, _Command] = {}
        self.repeated: dict[int, _Command] = {}
        self.applied: list[_Command] = []
        self.command_indexes: list[int] = []
        self.digests: list[bytes] = []
        self.states = KnownStates()
        self.state = ClusterState()
        self.state_indexes: list[int] = [0]
        self.state_lines: list[bytes] = [b""]
        self.sessions = SessionOracle(max_sessions)
        self.shards = ShardOracle()
        self.succeeded: dict[bytes, int] = {}
        self.lost: set[str] = set()

    def learn_committed(self, index: int, line: bytes, term: int) -> None:
        """The entry at `index` is committed in `term`. It never was, and never will be, another."""
        if index < len(self.committed):
            if self.committed[index] != line:
                raise BrokenInvariant(f"entry {index} was committed as {self.committed[index]!r} and as {line!r}")
            return
        if index > len(self.committed):
            raise BrokenInvariant(f"entry {index} is committed before {len(self.committed)}")
        self.committed.append(line)
        self.committed_in.append(term)
        raw = line.split(b" ", 1)[1]
        if raw.startswith(b"APP"):
            self.sessions.learn(line)
        elif raw != b"NOOP":
            self._learn_entry(index, raw)

    def _learn_entry(self, index: int, raw: bytes) -> None:
        try:
            entry = parse_entry(raw)
        except EntryError:
            return
        verdict = self.state.apply(index, entry)
        if verdict.success:
            self.succeeded.setdefault(raw, index)
            if isinstance(entry, (NodeJoin, NodeForget)) and not self._is_voter(entry.node_id):
                self.lost.discard(entry.node_id)
        if verdict.kind is Kind.VALID:
            self.shards.learn(index, entry, self.state)
            self.state_indexes.append(index)
            self.state_lines.append(node_lines(self.state))

    def _is_voter(self, node_id: str) -> bool:
        member = self.state.nodes.get(node_id)
        return member is not None and member.voter

    def state_at(self, index: int) -> bytes:
        """The node lines after the entry at `index`."""
        return self.state_lines[bisect_right(self.state_indexes, index) - 1]

    def digest_at(self, index: int) -> bytes:
        """The state machine's hash after the entry at `index`."""
        position = bisect_right(self.command_indexes, index) - 1
        return self.digests[position] if position >= 0 else bytes(16)


class _Seen:
    """What was last seen of one node's life."""

    __slots__ = ("applied", "beginnings", "commit", "matches", "state_index", "term", "turns", "verified", "voters")

    def __init__(self) -> None:
        self.beginnings = 0
        self.term = self.commit = self.applied = self.verified = self.state_index = self.turns = 0
        self.voters: frozenset[str] = frozenset()
        self.matches: dict[Progress, int] = {}


class Checks:
    """All checks, over all nodes of a simulation."""

    def __init__(self, nodes: list[SimulatedNode], max_sessions: int) -> None:
        self.truths: dict[str, ClusterTruth] = {}
        self.forgiven_criticals = ("the disk does not move: stepping down",)
        self._nodes = nodes
        self._seen: dict[int, _Seen] = {}
        self._max_sessions = max_sessions
        self._destroyed: dict[str, list[SimulatedDisk]] = {}

    def truth(self, cluster_id: str) -> ClusterTruth:
        """What is known of a cluster."""
        truth = self.truths.get(cluster_id)
        if truth is None:
            truth = self.truths[cluster_id] = ClusterTruth(self._max_sessions)
        return truth

    def truth_of(self, node: SimulatedNode) -> ClusterTruth | None:
        """What is known of a node's cluster; None where it has none."""
        cluster_id = node.cluster_id
        return None if cluster_id is None else self.truth(cluster_id)

    def _node_of(self, node_id: str) -> SimulatedNode | None:
        for node in self._nodes:
            if node.node_id == node_id:
                return node
        return None

    # ------------------------------------------------------------------ a node's life

    def started(self, node: SimulatedNode) -> None:
        """The node was loaded from its disk: it knows what it had promised."""
        self._baseline(node)
        member = node.member
        if member is not None and node.disk.stored is not None and member.raft.hard_state != node.disk.hard:
            raise BrokenInvariant(
                f"node {node.number} starts with {member.raft.hard_state}, stored is {node.disk.hard}"
            )

    def _baseline(self, node: SimulatedNode) -> _Seen:
        seen = self._seen[node.number] = _Seen()
        if node.member is not None:
            raft = node.member.raft
            seen.beginnings = raft.beginnings
            seen.term, seen.commit, seen.applied = raft.current_term, raft.commit_index, raft.last_applied
            seen.verified = seen.applied
        return seen

    def destroyed(self, node: SimulatedNode) -> None:
        """The node is about to lose all that it has stored: what it promised with that was no lie."""
        if not node.node_id:
            return
        self._destroyed.setdefault(node.node_id, []).append(node.disk.copy())
        cluster_id = node.cluster_id or (node.disk.stored.cluster_id if node.disk.stored is not None else None)
        if cluster_id is not None:
            self.truth(cluster_id).lost.add(node.node_id)

    def critical(self, node: SimulatedNode, text: str) -> None:
        """The node reports what must not be; that a destroyed node has lost its log is what it should report."""
        lost = any(text.startswith(f"{node_id} lost entries") for node_id in self._destroyed)
        if text not in self.forgiven_criticals and not lost:
            raise BrokenInvariant(f"node {node.number} reports: {text}")

    # ------------------------------------------------------------------ after each turn

    def committed(self, node: SimulatedNode, member: Member) -> None:
        """Before it applies: what is newly committed is still in its log, which may be trimmed as soon as applied."""
        seen, raft = self._seen[node.number], member.raft
        if raft.commit_index <= seen.commit or raft.standing is Standing.SINGLETON:
            return
        truth = self.truth_of(node)
        if truth is None:
            return
        if raft.beginnings != seen.beginnings and raft.standing is Standing.JOINER:
            return
        if raft.leadership is not None:
            self._check_leader(node, member, truth, seen)
        self._learn_commit(node, member, truth, seen.commit)
        seen.commit = raft.commit_index

    def turned(self, node: SimulatedNode, member: Member) -> None:
        """The node has had a turn: only of it can anything have changed."""
        raft = member.raft
        seen = self._seen[node.number]
        standing = raft.standing
        if raft.beginnings != seen.beginnings:
            seen = self._baseline(node)  # it dropped all that it had
        term, commit, applied = raft.current_term, raft.commit_index, raft.last_applied
        if term < seen.term or commit < seen.commit or applied < seen.applied:
            raise BrokenInvariant(
                f"node {node.number} went back: term {seen.term} to {term}, commit {seen.commit} to {commit}, "
                f"applied {seen.applied} to {applied}"
            )
        if (raft.leadership is not None or applied != seen.applied) and standing is not Standing.SINGLETON:
            truth = self.truth_of(node)
            if truth is not None:
                self._check_leader(node, member, truth, seen)
                if applied != seen.applied:
                    self._check_state(node, member, truth, seen)
        seen.term, seen.commit, seen.applied, seen.voters = term, commit, applied, raft.voters
        seen.turns += 1
        log, last = raft.log, raft.log.last_index
        if not log.boundary_index <= applied <= commit <= last or raft.durable_index > last:
            raise BrokenInvariant(
                f"node {node.number}: boundary {log.boundary_index}, applied {applied}, commit {commit}, "
                f"last {log.last_index}, durable {raft.durable_index}"
            )
        if seen.turns % 32 == 0:
            self._check_whole(node, member)
            if applied != seen.verified:
                seen.verified = applied
                self._check_applied(node, member)

    def _check_whole(self, node: SimulatedNode, member: Member) -> None:
        """What costs more, now and then."""
        member.raft.check()
        self._check_voters(node, member)
        pending, unsent = list(member.proposals.pending), member.proposals.unsent
        if len(pending) != len(member.proposals.pending) or not {id(p) for p in unsent} <= {id(p) for p in pending}:
            raise BrokenInvariant(f"node {node.number}: unsent proposals that are not pending")
        links = member.links
        for table in (links.inbound, links.outbound):
            for node_id, info in table.items():
                if info.node_id != node_id or links.infos.get(info.link) is not info:
                    raise BrokenInvariant(f"node {node.number}: the link {info.link} of {node_id[:8]} is in no table")

    def _check_sessions(self, node: SimulatedNode, member: Member, truth: ClusterTruth) -> None:
        if [client_id.encode() for client_id in member.sessions] != list(truth.sessions.open):
            raise BrokenInvariant(f"node {node.number} has other sessions open than the log says")

    def _check_applied(self, node: SimulatedNode, member: Member) -> None:
        """What costs more of what only an applied entry changes."""
        member.state.verify()
        member.sessions.verify()
        truth = self.truth_of(node)
        if truth is not None and member.raft.last_applied == len(truth.committed) - 1:
            self._check_sessions(node, member, truth)

    def _check_voters(self, node: SimulatedNode, member: Member) -> None:
        """The voters in force are a function of the log, and change one at a time."""
        raft, log = member.raft, member.raft.log
        truth = self.truth_of(node)
        if raft.standing is not Standing.MEMBER or truth is None:
            return
        voters, open_changes = member.state.voters(), 0
        for index, line in log.membership_lines(raft.last_applied + 1, log.last_index + 1):
            change = voter_change(line, voters)
            if change is not None:
                voters = voters | {change[1]} if change[0] else voters - {change[1]}
                open_changes += index > max(raft.commit_index, len(truth.committed) - 1)
        if voters != raft.voters:
            raise BrokenInvariant(
                f"node {node.number}: the voters in force are {sorted(raft.voters)}, by its log {sorted(voters)}"
            )
        if open_changes > 1:
            raise BrokenInvariant(f"node {node.number}: {open_changes} voter changes are under way")

    def _check_leader(self, node: SimulatedNode, member: Member, truth: ClusterTruth, seen: _Seen) -> None:
        raft, leadership = member.raft, member.raft.leadership
        if leadership is None:
            return
        known = truth.leaders.get(raft.current_term)
        if known is None:
            truth.leaders[raft.current_term] = node.node_id
            node.note("leads", f"term {raft.current_term}")
            founds = node.disk.last_index == 0 and raft.voters == {node.node_id}
            if node.disk.hard != (raft.current_term, node.node_id) and not founds:
                raise BrokenInvariant(f"node {node.number} leads term {raft.current_term}, and its vote is not stored")
            seen.matches.clear()
            self._check_complete(node, member, truth)
        elif known != node.node_id:
            raise BrokenInvariant(f"term {raft.current_term} has two leaders: {known[:8]} and {node.node_id[:8]}")
        matches = seen.matches
        for peer, progress in leadership.peers.items():
            match = progress.match_index
            if match != (before := matches.get(progress)):
                if before is not None and match < before:
                    raise BrokenInvariant(f"node {node.number}: the match of {peer[:8]} fell to {match}")
                matches[progress] = match

    def _check_complete(self, node: SimulatedNode, member: Member, truth: ClusterTruth) -> None:
        """Leader completeness: all that was committed in earlier terms is in a new leader's log.

        It may be late: a leader of a later term, which it has not heard of, may have committed more.
        """
        log, last = member.raft.log, len(truth.committed) - 1
        while truth.committed_in[last] >= member.raft.current_term:
            last -= 1
        if log.last_index < last:
            raise BrokenInvariant(
                f"node {node.number} leads term {member.raft.current_term} with {log.last_index} entries, "
                f"and {last} were committed before"
            )
        for index in range(log.boundary_index + 1, last + 1):
            if log.line(index) != truth.committed[index]:
                raise BrokenInvariant(f"node {node.number} leads, and its entry {index} is not the committed one")

    def _learn_commit(self, node: SimulatedNode, member: Member, truth: ClusterTruth, before: int) -> None:
        raft = member.raft
        first = max(before, raft.log.boundary_index) + 1
        for index, line in enumerate(raft.log.lines(first, raft.commit_index + 1), first):
            truth.learn_committed(index, line, raft.current_term)
        if raft.commit_index >= len(truth.committed):
            raise BrokenInvariant(f"node {node.number} commits {raft.commit_index}, which nobody has committed")
        if raft.leadership is not None:
            self._check_majority(node, member, self._seen[node.number].voters)

    def _check_majority(self, node: SimulatedNode, member: Member, voters_before: frozenset[str]) -> None:
        """What a leader commits is on the disks of a majority of the voters in force, whatever happens next.

        A voter change that it appended in the same turn, after that, does not count yet.
        """
        raft = member.raft
        index = raft.commit_index
        term = raft.log.term_at(index)
        if term != raft.current_term:
            raise BrokenInvariant(
                f"node {node.number} leads term {raft.current_term} and commits {index} of term {term}"
            )
        have = set()
        for voter in raft.voters | voters_before:
            holder = self._node_of(voter)
            disks = self._destroyed.get(voter, []) + ([holder.disk] if holder is not None else [])
            if any(disk.term_at(index) == term or disk.stored_index > index for disk in disks):
                have.add(voter)
        if not any(2 * len(have & voters) > len(voters) for voters in (raft.voters, voters_before)):
            raise BrokenInvariant(
                f"node {node.number} commits {index} of term {term} with {len(have)} of {len(raft.voters)} disks"
            )

    def _check_state(self, node: SimulatedNode, member: Member, truth: ClusterTruth, seen: _Seen) -> None:
        """State machine safety: at the same index the same state, on all nodes, for ever."""
        applied = member.raft.last_applied
        newest = truth.state_indexes[bisect_right(truth.state_indexes, applied) - 1]
        if newest > seen.state_index or seen.state_index > applied:
            seen.state_index = newest
            if node_lines(member.state) != truth.state_at(applied):
                raise BrokenInvariant(
                    f"node {node.number}: after entry {applied} the cluster's state differs:\n"
                    f"{node_lines(member.state).decode()}should be\n{truth.state_at(applied).decode()}"
                )
        if node.digest != truth.digest_at(applied):
            raise BrokenInvariant(f"node {node.number}: after entry {applied} the state machine's state differs")

    # ------------------------------------------------------------------ what nodes do

    def job_ordered(self, node: SimulatedNode, job: StoreJob) -> None:
        """A log changes: the same index and term mean the same entry and, before it, the same log."""
        truth = self.truth_of(node)
        if truth is None or node.member is None:
            return
        log = node.member.raft.log
        if job.truncate_from is not None or any(b" ADD_VOTER " in line or b" DEL_VOTER " in line for line in job.lines):
            self._check_voters(node, node.member)
        if not job.lines:
            return
        before = log.term_at(job.first_index - 1) if job.first_index > log.boundary_index else -1
        for index, line in enumerate(job.lines, job.first_index):
            term = term_of(line)
            known = truth.lines.get((index, term))
            if known is None:
                truth.lines[index, term] = (line, before)
            elif known[0] != line or (before >= 0 and known[1] >= 0 and known[1] != before):
                raise BrokenInvariant(f"node {node.number}: entry {index} of term {term} is {line!r}, was {known[0]!r}")
            before = term

    def hard_state_stored(self, node: SimulatedNode) -> None:
        """A term and vote are durable: one vote a term, in all of the node's lives."""
        hard = node.disk.hard
        if hard.voted_for is None or node.cluster_id is None:
            return
        votes = self.truth(node.cluster_id).votes
        known = votes.setdefault((node.node_id, hard.current_term), hard.voted_for)
        if known != hard.voted_for:
            raise BrokenInvariant(
                f"node {node.number} votes in term {hard.current_term} for {known[:8]} and {hard.voted_for[:8]}"
            )

    def message_sent(self, node: SimulatedNode, end: End, message: Message) -> None:
        """What a message promises is on the sender's disk before it leaves."""
        disk = node.disk
        if isinstance(message, AppendEntriesAck):
            self._check_ack(node, message)
        elif isinstance(message, (AppendEntries, InstallSnapshot, SnapshotPiece)):
            if disk.hard.current_term < message.term:
                raise BrokenInvariant(f"node {node.number} leads term {message.term}, which is not stored")
        elif isinstance(message, Vote):
            asker = end.other.site
            voted = disk.hard.voted_for in (asker.node_id, *asker.former_ids) and disk.hard.current_term == message.term
            if disk.hard.current_term < message.term or (message.granted and not voted):
                raise BrokenInvariant(f"node {node.number} sends a vote of term {message.term} that is not stored")
        elif isinstance(message, (Hello, Hi)):
            if not disk.stored:
                raise BrokenInvariant(f"node {node.number} greets before its id is stored")
        elif isinstance(message, VoteRequest) and (disk.hard.current_term, disk.hard.voted_for) != (
            message.term,
            node.node_id,
        ):
            raise BrokenInvariant(f"node {node.number} stands in term {message.term}, which is not stored")

    def _check_ack(self, node: SimulatedNode, ack: AppendEntriesAck) -> None:
        disk = node.disk
        if disk.hard.current_term < ack.term:
            raise BrokenInvariant(f"node {node.number} answers in term {ack.term}, which is not stored")
        if not ack.success:
            return
        if ack.index > disk.last_index:
            raise BrokenInvariant(f"node {node.number} acknowledges {ack.index}, and {disk.last_index} is stored")
        truth = self.truth_of(node)
        leader = self._node_of(truth.leaders.get(ack.term, "")) if truth is not None else None
        if leader is None or leader.member is None or leader.member.raft.current_term != ack.term:
            return
        log = leader.member.raft.log
        if leader.member.raft.leadership is None or not log.boundary_index < ack.index:
            return
        term = disk.term_at(ack.index)
        if term is None:
            return
        if ack.index > log.last_index or log.term_at(ack.index) != term:
            raise BrokenInvariant(f"node {node.number} acknowledges {ack.index}, where the leader has another entry")


class MachineWatch:
    """What one life of a node's state machine does: it must do what all others do."""

    def __init__(self, checks: Checks, node: SimulatedNode) -> None:
        self._checks = checks
        self._node = node
        self._where = Where(node.number, None)

    def applied(self, index: int, command: bytes, digest: bytes, result: bytes) -> bool:
        """It took a command. Whether its state should be looked at too."""
        node, truth = self._node, self._checks.truth_of(self._node)
        if truth is None:
            raise BrokenInvariant(f"node {node.number} applies {index} and is in no cluster")
        number, inner = split_command(command)
        known = truth.repeated.get(index, truth.commands.get(number))
        newest = truth.command_indexes[-1] if truth.command_indexes else 0
        if index > newest:
            if known is None:
                known = truth.commands[number] = _Command(index, inner, result, self._where)
            elif truth.sessions.may_repeat(truth.committed[index]):
                truth.repeated[index] = known = _Command(index, inner, result, self._where)
            else:
                raise BrokenInvariant(f"operation {number} is applied at {known.at} and at {index}")
            truth.applied.append(known)
            truth.command_indexes.append(index)
            truth.digests.append(digest)
        elif known is None or known.at != index or known.inner != inner:
            raise BrokenInvariant(f"node {node.number} applies another command at {index}")
        elif known.result != result:
            raise other_answer(index, inner, result, self._where, known.result, known.where)
        elif truth.digest_at(index) != digest:
            raise BrokenInvariant(f"node {node.number} has applied other commands before {index}")
        return truth.states.is_due(index)

    def restored(self, index: int, digest: bytes) -> None:
        """It took a snapshot, or what the disk held."""
        truth = self._checks.truth_of(self._node)
        self._where = Where(self._node.number, index if index else None)
        if index and truth is not None and truth.digest_at(index) != digest:
            raise BrokenInvariant(f"node {self._node.number} restores another state of index {index}")

    def looked_at(self, index: int, state: bytes) -> None:
        """It holds this state after the command of `index`."""
        truth = self._checks.truth_of(self._node)
        if truth is not None:
            truth.states.see(index, state, self._where)
