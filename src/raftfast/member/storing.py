"""What is to be stored, and who waits until it is.

Floor 3. Makes a turn's storage job of what Raft wants durable, and images of the applied state. Which promise may leave
when is Raft's affair (`consensus/promises`): here wait only what goes beside Raft, and the callers of this node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..consensus import Standing, Update
from ..messages import Message
from .orders import Image, Rewrite, StoreJob

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from .member import Member

__all__ = ["Storing", "join_jobs"]

_MOST_LINES_A_JOB = 8192
"""Jobs that hold more lines are not joined with later ones: a disk that is slow should be seen to move."""


def join_jobs(job: StoreJob, waiting: deque[StoreJob | tuple[Rewrite, int | None]]) -> StoreJob:
    """`job` and those that wait behind it, as far as one write and one sync can carry them: group commit.

    They are taken off `waiting`. Who has carried out the last one's ticket has carried out all.
    """
    if not waiting:
        return job
    lines, hard_state, ticket, first_index = list(job.lines), job.hard_state, job.ticket, job.first_index
    while waiting:
        following = waiting[0]
        if not isinstance(following, StoreJob) or following.image is not None:
            break
        if following.truncate_from is not None or len(lines) > _MOST_LINES_A_JOB:
            break
        if following.lines:
            first_index = following.first_index if not lines else first_index
            lines += following.lines
        hard_state = following.hard_state or hard_state
        ticket = following.ticket
        waiting.popleft()
    return job._replace(lines=lines, hard_state=hard_state, ticket=ticket, first_index=first_index)


class Storing:
    """The storage jobs of a member.

    Invariants: tickets are Raft's, and become durable in their order; each token is answered once.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._messages: list[tuple[int, int, Message]] = []
        self._tokens: list[tuple[int, Any]] = []
        self._rewrite_tokens: dict[int, Any] = {}
        self._rewrite_count = 0

    # ------------------------------------------------------------------ who waits

    def send_with_next(self, link: int, message: Message) -> None:
        """`message` goes on the link once this turn's job is durable: its ticket is the next one."""
        self._messages.append((self._member.raft.next_ticket, link, message))

    def answer_with_next(self, token: Any) -> None:
        """`token` is answered once this turn's job is durable."""
        self._tokens.append((self._member.raft.next_ticket, token))

    def stored(self, ticket: int, now: float) -> None:
        """The job of `ticket` is durable, and with it all before."""
        waiting, self._messages = self._messages, []
        for needed, link, message in waiting:
            if needed <= ticket:
                self._member.links.reply(link, message, now)
            else:
                self._messages.append((needed, link, message))
        for needed, token in self._tokens:
            if needed <= ticket:
                self._member.answer(token, None, None)
        self._tokens = [each for each in self._tokens if each[0] > ticket]

    def rewritten(self, number: int) -> None:
        """A rewrite that `order_rewrite` ordered is durable."""
        self._member.answer(self._rewrite_tokens.pop(number, None), None, None)

    def fail_all(self, error: Callable[[bool], Exception]) -> None:
        """Nobody waits any more. What they wanted may be on its way to the disk."""
        for token in [*self._rewrite_tokens.values(), *(token for _, token in self._tokens)]:
            self._member.answer(token, None, error(True))
        self._rewrite_tokens.clear()
        self._tokens.clear()

    # ------------------------------------------------------------------ what is stored

    def take(self, update: Update) -> None:
        """Orders the turn's storage job, of an update that has a ticket."""
        member = self._member
        if update.truncate_from is not None:
            member.neighbours.truncated_from(update.truncate_from)
        lines: list[bytes] = []
        if update.store_from < update.store_to:
            lines = member.raft.log.lines(update.store_from, update.store_to)
            member.neighbours.appended(update.store_from, update.store_to)
            if member.caught_up_by == "none" and not member.raft.is_leader:
                member.caught_up_by = "log"
        image = keep_above = None
        if update.snapshot is not None:
            image = self.image(reset=update.snapshot.index == 0)
            keep_above = update.snapshot.keep_above
        member.orders.store = StoreJob(
            update.ticket, image, keep_above, update.hard_state, update.truncate_from, update.store_from, lines
        )

    def order_rewrite(self, token: Any) -> None:
        """The node lines of a node without a log have changed: they are stored, then `token`, if any, is answered.

        A turn's rewrites are carried out before its storage job: an image of that job is newer, and stands in the end.
        Where such a job is due already it shows the change. A rewrite before it would be wrong behind a reset: it would
        put the new node's state before the old one's log.
        """
        if self._member.raft.next_job_rewrites:
            self.answer_with_next(token)
            return
        self._rewrite_count += 1
        if token is not None:
            self._rewrite_tokens[self._rewrite_count] = token
        image = self.image()
        self._member.orders.rewrites.append(Rewrite(self._rewrite_count, image, image.last_applied))

    def image(self, *, reset: bool = False, app: Any = None) -> Image:
        """The stored state as of what is applied now."""
        member = self._member
        raft = member.raft
        return Image(
            nodes=tuple(member.records()),
            last_applied=raft.last_applied,
            snapshot_term=raft.log.term_at(raft.last_applied),
            cluster_id=member.cluster_id,
            joining=member.standing is Standing.JOINER,
            removed=member.standing is Standing.REMOVED,
            raft_leader=raft.leader_id if member.standing is Standing.MEMBER else None,
            app=app if app is not None else member.snapshots.installed_app(raft.last_applied),
            reset=reset,
        )
