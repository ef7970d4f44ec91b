"""What a node has only while it leads: its members' progress, the rounds, a transfer; and what it sends them.

Floor 2. An object of this class lives from an election to the step-down, so nothing of an earlier term can be counted.
Transitions of role, term, commit and log stay in `raft`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from typing import TYPE_CHECKING

from ..config import Config
from ..messages import AppendEntries, AppendEntriesAck, TimeoutNow
from .progress import Progress, ProgressState
from .quorum import majority_value
from .reads import ReadRounds
from .update import Send, Update

if TYPE_CHECKING:
    from .raft import Raft

__all__ = ["Leadership"]


class Leadership:
    """A leader's view of its members.

    Invariants: 1. the leader itself has no `Progress`; 2. round numbers only grow; 3. at most one transfer runs.
    """

    __slots__ = (
        "_commit_at",
        "_commit_at_beat",
        "_commit_mark",
        "_config",
        "_disk_at",
        "_disk_index",
        "_due",
        "_elected_at",
        "_node_id",
        "_old_leader",
        "_round",
        "_rounds",
        "_transfer",
        "_transfer_told",
        "first_index",
        "heartbeat_at",
        "peers",
        "reads",
        "resign_at",
    )

    def __init__(
        self,
        node_id: str,
        first_index: int,
        config: Config,
        now: float,
        durable_index: int,
        old_leader: tuple[str, float] | None,
    ) -> None:
        """`first_index` is where the first entry of this term stands; `old_leader` who led before, and when heard."""
        self.first_index = first_index
        self.peers: dict[str, Progress] = {}
        self.reads = ReadRounds()
        self.heartbeat_at = now + config.heartbeat_interval
        self.resign_at: float | None = None
        self._node_id = node_id
        self._config = config
        self._elected_at = now
        self._old_leader = old_leader
        self._round = 0
        self._rounds: deque[tuple[int, float]] = deque()
        self._due = False
        self._transfer: tuple[str, float] | None = None
        self._transfer_told = False
        self._commit_mark = self._commit_at_beat = first_index
        self._disk_index = durable_index
        self._disk_at = now
        self._commit_at = now

    # ------------------------------------------------------------------ members and links

    def follow(
        self, others: Set[str], next_index: int, now: float, linked: Set[str], lost: Set[str] = frozenset()
    ) -> None:
        """`others` are the members now: progress begins for the new ones and ends for those that are gone.

        Those in `lost` say that they have lost their log.
        """
        for peer in self.peers.keys() - others:
            del self.peers[peer]
        for peer in sorted(others - self.peers.keys()):
            self.restart(peer, next_index, now, peer in linked)
        for peer in lost:
            self.peers[peer].lost_log = True

    def restart(self, peer: str, next_index: int, now: float, linked: bool) -> None:
        """What is known of `peer` starts anew."""
        progress = Progress(next_index, now, self._round)
        if self._old_leader is not None and self._old_leader[0] == peer:
            progress.silent_since = self._old_leader[1]
            self._old_leader = None  # known once, at the election; whoever joins later begins anew
        self.peers[peer] = progress
        if linked:
            progress.link_up()

    def counts_on(self, peer: str) -> bool:
        """Whether `peer` has acknowledged something that counts."""
        progress = self.peers.get(peer)
        return progress is not None and progress.match_index > 0 and not progress.lost_log

    def link_up(self, peer: str) -> None:
        """The outbound link to `peer` is identified."""
        if peer in self.peers:
            self.peers[peer].link_up()

    def link_down(self, peer: str) -> None:
        """The outbound link to `peer` is gone."""
        if peer in self.peers:
            self.peers[peer].link_down()

    def is_live(self, peer: str, now: float) -> bool:
        """Whether `peer` was heard within T."""
        progress = self.peers.get(peer)
        return (
            progress is not None
            and not progress.lost_log
            and progress.heard_at is not None
            and now - progress.heard_at <= self._config.node_timeout
        )

    def live(self, now: float) -> frozenset[str]:
        """The members heard within T, without the leader itself."""
        return frozenset(peer for peer in self.peers if self.is_live(peer, now))

    def is_caught_up(self, peer: str, now: float) -> bool:
        """Answered within two heartbeats, and has what was committed one heartbeat ago (PROTOCOL 8).

        And what the log held when it began to be followed, its own NODE_JOIN among it: without that it would be a voter
        that still greets as a joiner, and so as one that has lost its log. And by an answer to what was sent since: it
        was told then that its NODE_JOIN is committed, and is no joiner any more, which may give up. **(stricter)**
        """
        progress = self.peers.get(peer)
        return (
            progress is not None
            and progress.linked
            and not progress.lost_log
            and progress.heard_at is not None
            and now - progress.heard_at <= 2 * self._config.heartbeat_interval
            and progress.match_index >= max(self._commit_mark, progress.begun_after)
            and progress.acked_round > progress.begun_round
        )

    # ------------------------------------------------------------------ answers

    def on_ack(self, sender: str, ack: AppendEntriesAck, now: float, boundary_index: int) -> str | None:
        """An answer of this term; `boundary_index` is our log's. Returns what an operator must hear of, or None."""
        progress = self.peers.get(sender)
        if progress is None:
            return None
        first_on_link = not progress.answered_link
        waits = progress.unanswered
        progress.answered_link = True
        progress.unanswered = False
        progress.heard_at = progress.silent_since = now
        if ack.round is None:
            progress.echoes_rounds = False
            progress.fresh_at = now
        else:
            progress.echoes_rounds = True
            if progress.acked_round < ack.round <= self._round:
                progress.acked_round = ack.round
                progress.fresh_at = max(progress.fresh_at, self._began(ack.round))
        if ack.success:
            # What was not sent on this link can't be vouched for by it **(stricter)**
            progress.acknowledged(min(ack.index, progress.sent_index))
            progress.refusals = 0
            if progress.state is ProgressState.PROBE:
                progress.state = ProgressState.REPLICATE
            return None
        if first_on_link and ack.index < progress.match_index:
            progress.lost_log = True
            return f"{sender} lost entries that it had acknowledged (to {progress.match_index}); it is not served"
        if not self._step_back(progress, ack.index, boundary_index):
            progress.unanswered = waits  # so a refusal of what went out before the probe brings no second probe
        return None

    def _step_back(self, progress: Progress, hint: int, boundary_index: int) -> bool:
        """Whether the refusal is taken.

        The hint may be just one below what was refused, over a long tail of older terms. From the second refusal in a
        row on the step doubles, within the log: what is sent twice by that is no more than what differs.
        """
        if progress.state is ProgressState.SNAPSHOT:
            return True
        if hint + 1 < progress.next_index:
            leap = max(progress.next_index - (1 << min(progress.refusals, 62)), boundary_index + 1)
            next_index = max(progress.match_index + 1, min(hint + 1, leap))
        elif not progress.echoes_rounds:
            next_index = max(progress.match_index + 1, progress.next_index - 1)
        else:
            return False  # it answers an AppendEntries from before the last correction **(stricter)**
        progress.refusals += 1
        progress.probe_from(next_index)
        return True

    def majority_match(self, voters: Set[str], own_durable: int) -> int:
        """The highest index that is durable on a majority of `voters`; our own copy counts by our own disk."""
        values: dict[str, float] = {
            peer: progress.match_index for peer, progress in self.peers.items() if not progress.lost_log
        }
        values[self._node_id] = own_durable
        return int(majority_value(voters, values, 0))

    def quorum_fresh_since(self, voters: Set[str], now: float) -> float:
        """The moment since which a majority of `voters` has answered; by the sending of what they answered."""
        values = {peer: progress.fresh_at for peer, progress in self.peers.items() if not progress.lost_log}
        values[self._node_id] = now
        return majority_value(voters, values, self._elected_at)

    # ------------------------------------------------------------------ rounds

    def begin_round(self, number: int, now: float) -> None:
        """From now on AppendEntries carry `number`; the next turn sends one to everybody."""
        self._round = number
        self._rounds.append((number, now))
        while now - self._rounds[0][1] > 2 * self._config.node_timeout:
            self._rounds.popleft()
        self._due = True

    def _began(self, number: int) -> float:
        """When the round began; where that is long ago, the oldest moment that is no lie: the election."""
        for known, began in reversed(self._rounds):
            if known <= number:
                return began
        return self._elected_at

    def with_round(self, number: int) -> frozenset[str]:
        """The members that answered with this round or a later one."""
        return frozenset(
            peer for peer, progress in self.peers.items() if progress.acked_round >= number and not progress.lost_log
        )

    def heartbeat(self, now: float, commit_index: int) -> None:
        """A heartbeat is due: the next turn sends something to everybody."""
        self.heartbeat_at = now + self._config.heartbeat_interval
        self._commit_mark, self._commit_at_beat = self._commit_at_beat, max(commit_index, self.first_index)
        self._due = True

    # ------------------------------------------------------------------ transfer

    @property
    def transferring(self) -> bool:
        """Whether leadership is being handed over: nothing is appended meanwhile."""
        return self._transfer is not None or self.resign_at is not None

    @property
    def transfer_target(self) -> str | None:
        """To whom leadership is being handed over; None where no transfer runs."""
        return self._transfer[0] if self._transfer is not None else None

    def best_successor(self, voters: Set[str], now: float) -> str | None:
        """The live voter with the highest match; None if there is none."""
        able = [peer for peer in voters if self.is_live(peer, now) and self.peers[peer].linked]
        return max(sorted(able), key=lambda peer: self.peers[peer].match_index, default=None)

    def begin_transfer(self, target: str, deadline: float) -> None:
        """Hands over to `target` once it has the whole log; given up at `deadline`."""
        self._transfer = (target, deadline)
        self._transfer_told = False

    def end_late_transfer(self, now: float) -> None:
        """No new leader appeared: go on."""
        if self._transfer is not None and now >= self._transfer[1]:
            self._transfer = None

    def _pump_transfer(self, raft: Raft, update: Update) -> None:
        if self._transfer is None or self._transfer_told:
            return
        target = self._transfer[0]
        progress = self.peers.get(target)
        if progress is not None and progress.linked and progress.match_index == raft.log.last_index:
            update.send.append(Send(target, TimeoutNow(raft.current_term)))
            self._transfer_told = True

    # ------------------------------------------------------------------ the own disk

    def disk_moved(self, durable_index: int, now: float) -> None:
        """A storage job came back."""
        if durable_index > self._disk_index:
            self._disk_at = now
        self._disk_index = durable_index

    def commit_moved(self, now: float) -> None:
        """The commit index moved."""
        self._commit_at = now

    def disk_is_stalled(self, last_index: int, durable_index: int, now: float, limit: float) -> bool:
        """Whether entries wait for our disk, and neither it nor the commit index moved for `limit` (PROTOCOL 10)."""
        if durable_index >= last_index:
            self._disk_at = now
            return False
        return now - self._disk_at > limit and now - self._commit_at > limit

    # ------------------------------------------------------------------ sending

    def least_needed(self, now: float) -> int:
        """Up to which index nothing of the log is needed by a live member, or by a transfer's receiver."""
        needed = [
            progress.snapshot_index or progress.hold_index or progress.match_index
            for peer, progress in self.peers.items()
            if not progress.lost_log and (progress.snapshot_index or self.is_live(peer, now))
        ]
        return min(needed, default=(1 << 64) - 1)

    def snapshot_began(self, peer: str, last_included_index: int) -> None:
        """A transfer to `peer` runs: what follows the snapshot stays in the log."""
        progress = self.peers.get(peer)
        if progress is not None and progress.state is ProgressState.SNAPSHOT:
            progress.snapshot_index = progress.hold_index = last_included_index

    def pump(self, raft: Raft, update: Update) -> None:
        """One turn's AppendEntries: at most a window of entries a member, else a heartbeat where one is due."""
        due, self._due = self._due, False
        boundary, last, commit = raft.log.boundary_index, raft.log.last_index, raft.commit_index
        for peer, progress in self.peers.items():
            if not progress.linked or progress.lost_log:
                continue
            if progress.next_index <= boundary:
                self._pump_snapshot(raft, update, peer, progress, due)
                continue
            progress.hold_index = 0
            if progress.state is ProgressState.SNAPSHOT:
                progress.probe_from(progress.next_index)
            if progress.next_index <= last and self._send_entries(raft, update, peer, progress):
                continue
            prev = progress.next_index - 1
            behind = (commit if commit < prev else prev) > progress.sent_commit
            if (due or behind) and progress.may_heartbeat():
                self._send(raft, update, peer, progress, prev, raft.log.term_at(prev), (), ())
        if self._transfer is not None:
            self._pump_transfer(raft, update)

    def _pump_snapshot(self, raft: Raft, update: Update, peer: str, progress: Progress, due: bool) -> None:
        """The entry that `peer` needs next is compacted away."""
        if progress.state is not ProgressState.SNAPSHOT:
            progress.need_snapshot()
        if not progress.snapshot_index:
            update.needs_snapshot.append(peer)
            if progress.hold_index < raft.log.boundary_index:
                # No snapshot that is made from now on is older: so writing it may take as long as it takes
                progress.hold_index = raft.last_applied
        if due and progress.may_heartbeat():
            # prev 0 is taken by every log: the answer shows contact and nothing else
            self._send(raft, update, peer, progress, 0, 0, (), ())

    def _send_entries(self, raft: Raft, update: Update, peer: str, progress: Progress) -> bool:
        config, log, sent = self._config, raft.log, False
        while progress.next_index <= log.last_index and progress.may_send(
            config.max_inflight, config.max_inflight_bytes
        ):
            prev = progress.next_index - 1
            terms, lines = log.entries(prev + 1, log.last_index + 1, config.max_append_bytes)
            self._send(raft, update, peer, progress, prev, log.term_at(prev), terms, lines)
            sent = True
            if progress.state is ProgressState.PROBE:
                break
        return sent

    def _send(
        self,
        raft: Raft,
        update: Update,
        peer: str,
        progress: Progress,
        prev: int,
        prev_term: int,
        terms: tuple[int, ...],
        lines: tuple[bytes, ...],
    ) -> None:
        message = AppendEntries(
            self._node_id, raft.current_term, prev, prev_term, raft.commit_index, terms, lines, self._round
        )
        update.send.append(Send(peer, message))
        progress.sent(prev, len(lines), sum(map(len, lines)), raft.commit_index)
