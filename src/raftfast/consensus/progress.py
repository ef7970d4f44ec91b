"""What a leader knows of one member: where it stands, what is in flight to it, when it was last heard.

Floor 2. Bookkeeping only: what to send, and when, is decided in `raft`.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple

__all__ = ["Progress", "ProgressState"]


class ProgressState(enum.Enum):
    """How entries go to a member (PROTOCOL 5.2)."""

    PROBE = "probe"
    """One AppendEntries at a time, until one is taken."""

    REPLICATE = "replicate"
    """A pipelined window: `next_index` moves on as entries leave."""

    SNAPSHOT = "snapshot"
    """The entry before `next_index` is compacted away: nothing but heartbeats until a snapshot is taken."""


class _InFlight(NamedTuple):
    last_index: int
    nbytes: int


class Progress:
    """One member's progress.

    Invariants:
    1. `match_index < next_index`;
    2. `match_index` never falls in the life of this object;
    3. nothing is in flight beyond what `sent_index` covers.
    """

    __slots__ = (
        "_inflight",
        "acked_round",
        "answered_link",
        "begun_after",
        "begun_round",
        "echoes_rounds",
        "fresh_at",
        "heard_at",
        "hold_index",
        "inflight_bytes",
        "linked",
        "lost_log",
        "match_index",
        "next_index",
        "refusals",
        "sent_commit",
        "sent_index",
        "silent_since",
        "snapshot_index",
        "state",
        "unanswered",
    )

    def __init__(self, next_index: int, now: float, newest_round: int = 0) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.begun_after = next_index - 1
        """Last index of the log when this began."""
        self.begun_round = newest_round
        """The leader's newest round when this began: an answer with a later one is to something sent since."""
        self.state = ProgressState.PROBE
        self.linked = False
        self.sent_index = 0
        """Greatest prev + count, or last included index, that went out on this link."""
        self.sent_commit = 0
        """Greatest commit index that what went out on this link can have told: no more than the message's own end."""
        self.refusals = 0
        """Corrections in a row since it last took an AppendEntries, on this link."""
        self.unanswered = False
        """An AppendEntries went out on this link and none was answered since."""
        self.answered_link = False
        """Something was answered on this link."""
        self.echoes_rounds: bool | None = None
        """Whether it sends rounds back; None until its first answer. Valkey's servers don't."""
        self.acked_round = 0
        self.fresh_at = now
        """Sending time of the newest AppendEntries that was answered: freshness."""
        self.heard_at: float | None = None
        """Arrival of its last answer to this leader; None: never."""
        self.silent_since = now
        """Since when it has not been heard, by this leader or, of the old leader, by its followers."""
        self.lost_log = False
        """It lost what it had acknowledged: reported, and not served (PROTOCOL 5.3)."""
        self.snapshot_index = 0
        """Last included index of the transfer under way; 0: none has begun."""
        self.hold_index = 0
        """What follows it stays in the log while the member is live and needs a snapshot; 0: it needs none.

        A broken link leaves it as it is, so that the transfer can be resumed on the next one.
        """
        self._inflight: deque[_InFlight] = deque()
        self.inflight_bytes = 0

    def link_up(self) -> None:
        """A new outbound link is identified: probe on it."""
        self.linked = True
        self.sent_index = 0
        self.sent_commit = 0
        self.answered_link = False
        self.unanswered = False
        self.echoes_rounds = None
        self.refusals = 0
        self.probe_from(self.match_index + 1 if self.match_index else self.next_index)

    def link_down(self) -> None:
        """The outbound link is gone, and with it the answers that were due on it."""
        self.linked = False
        self.unanswered = False
        if self.state is ProgressState.REPLICATE and self.match_index:
            self.next_index = self.match_index + 1
        self._clear_inflight()
        self.snapshot_index = 0

    def probe_from(self, next_index: int) -> None:
        """Goes on with one AppendEntries at a time, from `next_index`."""
        self.state = ProgressState.PROBE
        self.next_index = next_index
        self.unanswered = False
        self.snapshot_index = 0
        self._clear_inflight()

    def need_snapshot(self) -> None:
        """The entry before `next_index` is compacted away."""
        self.state = ProgressState.SNAPSHOT
        self.snapshot_index = 0
        self._clear_inflight()

    def snapshot_sent(self, last_included_index: int) -> None:
        """The last byte of a snapshot went out on this link: an answer may now vouch for that index."""
        self.sent_index = max(self.sent_index, last_included_index)

    def sent(self, prev_index: int, count: int, nbytes: int, commit_index: int) -> None:
        """An AppendEntries went out."""
        self.unanswered = True
        self.sent_commit = max(self.sent_commit, min(commit_index, prev_index + count))
        self.sent_index = max(self.sent_index, prev_index + count)
        if self.state is ProgressState.REPLICATE and count:
            self.next_index = prev_index + count + 1
            self._inflight.append(_InFlight(prev_index + count, nbytes))
            self.inflight_bytes += nbytes

    def acknowledged(self, index: int) -> bool:
        """A success for `index`, already bounded by `sent_index`. Returns whether `match_index` moved."""
        moved = index > self.match_index
        if moved:
            self.match_index = index
        self.next_index = max(self.next_index, self.match_index + 1)
        while self._inflight and self._inflight[0].last_index <= self.match_index:
            self.inflight_bytes -= self._inflight.popleft().nbytes
        return moved

    def may_send(self, max_inflight: int, max_inflight_bytes: int) -> bool:
        """Whether entries may go out now."""
        if not self.linked or self.lost_log or self.state is ProgressState.SNAPSHOT:
            return False
        if self.state is ProgressState.PROBE or not self.echoes_rounds:
            return not self.unanswered
        return len(self._inflight) < max_inflight and self.inflight_bytes < max_inflight_bytes

    def may_heartbeat(self) -> bool:
        """Whether an empty AppendEntries may go out now: never a second unanswered one to who echoes no rounds."""
        return self.linked and not self.lost_log and (bool(self.echoes_rounds) or not self.unanswered)

    def _clear_inflight(self) -> None:
        self._inflight.clear()
        self.inflight_bytes = 0

    def __repr__(self) -> str:
        return f"<Progress {self.state.value} match={self.match_index} next={self.next_index} sent={self.sent_index}>"
