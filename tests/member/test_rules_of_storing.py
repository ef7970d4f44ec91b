"""What of a member's turns is stored, and which jobs are one write (PROTOCOL 11)."""

from __future__ import annotations

from collections import deque
from typing import Any

from wiring import Wiring

from raftfast.member.orders import StoreJob
from raftfast.member.storing import join_jobs
from raftfast.messages import AppendEntries
from raftfast.records import HardState


def job(ticket: int, first: int, *lines: bytes, hard: HardState | None = None, cut: int | None = None) -> StoreJob:
    return StoreJob(ticket, None, None, hard, cut, first, list(lines))


def test_jobs_that_follow_each_other_are_one_with_the_newest_hard_state() -> None:
    """An older one would let the node vote a second time in the term of the newer."""
    waiting: deque[Any] = deque([job(2, 6, b"1 APP - b", hard=HardState(2, "x")), job(3, 7, b"2 NOOP")])
    first = job(1, 5, b"1 APP - a", hard=HardState(1, None))
    lines = (b"1 APP - a", b"1 APP - b", b"2 NOOP")
    assert join_jobs(first, waiting) == job(3, 5, *lines, hard=HardState(2, "x"))
    assert list(waiting) == []


def test_a_job_that_cuts_is_not_joined_to_the_one_before_it() -> None:
    """The cut comes before its own lines, and behind those of the job before."""
    first, cut = job(1, 5, b"1 APP - old", b"1 APP - old"), job(2, 6, b"2 NOOP", cut=6)
    waiting: deque[Any] = deque([cut])
    assert join_jobs(first, waiting) == first
    assert list(waiting) == [cut]


def test_the_stored_state_has_the_term_of_its_own_last_entry() -> None:
    """PROTOCOL 7: `snapshotTerm` is the term of the last entry that is applied, not of the log's last one."""
    world = Wiring("abc")
    world.form("abc")
    b, c = world["b"], world["c"]
    raft, term = b.member.raft, b.member.raft.current_term
    world.isolate("b")
    line = b"%d NOOP" % (term + 1)
    noop = AppendEntries(c.id, term + 1, raft.log.last_index, term, 0, (term + 1,), (line,), 1)
    raft.receive(c.id, noop, world.now, None)
    b.turn()
    assert (raft.log.last_index, raft.log.last_term) == (raft.last_applied + 1, term + 1)
    image = b.member.storing.image()
    assert (image.last_applied, image.snapshot_term) == (raft.last_applied, term)
