"""What a follower does with its log: figure 3.1, "AppendEntries RPC"; figure 5.3, "InstallSnapshot RPC".

Floor 2. Every change of a log by somebody else's word is in this file; a leader's own appends are not.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvariantViolation
from ..messages import AppendEntries, AppendEntriesAck, Role
from .core import Standing
from .elections import Elections
from .update import Installed, Send
from .voters import VoterHistory

__all__ = ["Following"]

_MAX_INDEX = (1 << 64) - 1


class Following(Elections):
    """How a node takes entries and snapshots from the leader of its term, and what it answers."""

    # ------------------------------------------------------------------ snapshots

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

    # ------------------------------------------------------------------ AppendEntries

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
            has_new = count > 0 and self._merge(prev, message)
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

    # ------------------------------------------------------------------ answers

    def _acknowledge(self, owed: list[tuple[str, int]]) -> None:
        """Acknowledges what is verified and durable by now, to the leader of the term, even if we look for another.

        It may send nothing more until it is answered (PROTOCOL 5.2); what was owed in an earlier term is gone already.
        """
        for sender, link in owed:
            self._update.send.append(Send(sender, self._acknowledgement(), link))

    def _acknowledgement(self) -> AppendEntriesAck:
        index = min(self.verified_index, self._durability.index)
        return AppendEntriesAck(self.current_term, True, index, self.repl_offset, self._leader_round)
