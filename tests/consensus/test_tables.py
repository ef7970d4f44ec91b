"""The small parts of the core against dumb oracles: quorum, voters, durability, promises, progress, trimming, reads."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftfast.config import Config
from raftfast.consensus import Progress, ProgressState
from raftfast.consensus.durability import Durability
from raftfast.consensus.promises import Promises
from raftfast.consensus.quorum import is_majority, majority_value
from raftfast.consensus.reads import ReadRounds
from raftfast.consensus.trimming import Trimming
from raftfast.consensus.voters import VoterHistory, voter_change
from raftfast.errors import InvariantViolation
from raftfast.hot.log_py import RaftLog
from raftfast.messages import Vote
from raftfast.records import HardState

IDS = "abcdefg"

# ---------------------------------------------------------------------- quorum


def subsets(ids: str) -> list[frozenset[str]]:
    return [frozenset(chosen) for count in range(len(ids) + 1) for chosen in combinations(ids, count)]


def test_is_majority_counts_heads() -> None:
    for voters, yes in product(subsets("abcd"), subsets("abcdx")):
        count = sum(1 for voter in voters if voter in yes)
        assert is_majority(voters, yes) == (bool(voters) and count >= len(voters) // 2 + 1)


def test_two_majorities_of_a_set_share_a_voter_and_so_do_those_of_sets_one_apart() -> None:
    """Why one voter change at a time is safe (dissertation 4.1)."""
    for voters in subsets("abcde")[1:]:
        for changed in [voters, *(voters ^ {one} for one in "abcde")]:
            if not changed:
                continue
            rights = [right for right in subsets("abcde") if is_majority(changed, right)]
            for left in subsets("abcde"):
                if is_majority(voters, left):
                    assert all(left & right for right in rights), (voters, changed, left)


def test_majority_value_is_the_best_that_a_majority_has_reached() -> None:
    for count in range(6):
        voters = frozenset(IDS[:count])
        for reached in product(range(3), repeat=count):
            values: dict[str, float] = {**dict(zip(sorted(voters), reached, strict=True)), "x": 9.0}
            able = [value for value in range(10) if 2 * sum(values[v] >= value for v in voters) > count]
            assert majority_value(voters, values, 0) == max(able, default=0)


def test_a_voter_without_a_value_has_reached_the_default_only() -> None:
    assert majority_value(frozenset("abc"), {"a": 5.0}, 1.0) == 1.0
    assert majority_value(frozenset("abc"), {"a": 5.0, "b": 4.0}, 1.0) == 4.0
    assert majority_value(frozenset(), {"a": 5.0}, 7.0) == 7.0


# ---------------------------------------------------------------------- voters


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (b"1 ADD_VOTER a", (True, "a")),
        (b"1 DEL_VOTER a", (False, "a")),
        (b"1 NODE_JOIN a 10.0.0.1:1@2 voter", (True, "a")),
        (b"1 NODE_JOIN a 10.0.0.1:1@2 learner", None),
        (b"1 NODE_JOIN a 10.0.0.1:1@2,voter learner", None),
        (b"1 NODE_FORGET a 0", None),
        (b"1 NODE_FAIL a", None),
        (b"1 APP - ADD_VOTER a", None),
        (b"1 ADD_VOTER", None),
        (b"1 ADD_VOTER a b", None),
        (b"1 ADD_VOTER a ", None),
        (b"1 ADD_VOTER a b c", None),
        (b"1 DEL_VOTER a b", None),
        (b"1 NODE_JOIN a voter", None),
        (b"1 NODE_JOIN a b c voter", None),
        (b"1 NOOP", None),
        (b"1 ADD_VOTER \xff\xfe", (True, "\udcff\udcfe")),
    ],
)
def test_which_lines_change_the_voters(line: bytes, change: tuple[bool, str] | None) -> None:
    assert voter_change(line) == change


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(IDS)),
        st.tuples(st.just("del"), st.sampled_from(IDS)),
        st.tuples(st.just("other"), st.just("")),
        st.tuples(st.just("cut"), st.integers(0, 9)),
        st.tuples(st.just("forget"), st.integers(0, 9)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(base=st.frozensets(st.sampled_from(IDS)), steps=STEPS)
def test_voters_are_a_function_of_the_log(base: frozenset[str], steps: list[tuple[str, Any]]) -> None:
    history = VoterHistory(base)
    log: list[tuple[str, str]] = []  # entry i stands at index i + 1
    forgotten = 0

    def replay(upto: int) -> frozenset[str]:
        voters = base
        for kind, node in log[:upto]:
            voters = voters | {node} if kind == "add" else voters - {node} if kind == "del" else voters
        return voters

    for kind, what in steps:
        if kind in ("add", "del", "other"):
            log.append((kind, what))
            names = {"add": b"ADD_VOTER ", "del": b"DEL_VOTER ", "other": b"NOOP"}
            history.appended(len(log), b"1 " + names[kind] + what.encode())
        elif kind == "cut":
            index = max(forgotten + 1, len(log) + 1 - what)
            del log[index - 1 :]
            history.truncated_from(index)
        else:
            forgotten = max(forgotten, len(log) - what)
            history.forget_to(forgotten)
        changes = [i for i, (k, _) in enumerate(log, 1) if k != "other" and i > forgotten]
        assert history.current == replay(len(log))
        assert history.newest_change() == max(changes, default=0)
        for node in IDS:
            assert (node in history) == (node in history.current)
            assert history.others(node) == history.current - {node}
            for commit in range(forgotten, len(log) + 1):
                out = node not in replay(len(log)) and any(node in replay(i - 1) for i in changes if i > commit)
                assert history.taken_out_since(commit, node) == out


# ---------------------------------------------------------------------- durability


class DumbDisk:
    """A file of entries that carry a name each, written by jobs in flight: durable is what is there and still ours."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.file: list[int] = []
        self.jobs: list[tuple[int, list[int]]] = []

    def durable(self) -> int:
        """How far file and log agree."""
        agree = 0
        for ours, there in zip(self.log, self.file, strict=False):
            if ours != there:
                break
            agree += 1
        return agree


@settings(max_examples=300)
@given(steps=st.lists(st.tuples(st.sampled_from(["append", "cut", "issue", "stored"]), st.integers(1, 5)), max_size=60))
def test_the_durable_index_never_says_more_than_the_disk(steps: list[tuple[str, int]]) -> None:
    durability = Durability(0, HardState(0, None))
    disk, names, handed = DumbDisk(), iter(range(1 << 20)), 0
    for kind, number in steps:
        if kind == "append":
            disk.log += [next(names) for _ in range(number)]
        elif kind == "cut" and len(disk.log) >= number:
            index = len(disk.log) - number + 1
            del disk.log[index - 1 :]
            durability.fall_to(index - 1)
            handed = min(handed, index - 1)
        elif kind == "issue":
            ticket = durability.issue(len(disk.log), None)
            disk.jobs.append((ticket, list(disk.log)))  # what the file holds once it is done
            handed = len(disk.log)
        elif kind == "stored" and disk.jobs:
            done = disk.jobs[: min(number, len(disk.jobs))]
            del disk.jobs[: len(done)]
            disk.file = done[-1][1]
            durability.stored(done[-1][0])
        assert durability.index <= disk.durable()
        assert durability.oldest_outstanding == (disk.jobs[0][0] if disk.jobs else 0)
        if not disk.jobs:
            assert durability.index == handed  # nor less, once all is quiet


def test_the_hard_state_is_that_of_the_newest_job_done() -> None:
    durability = Durability(0, HardState(1, None))
    first = durability.issue(0, HardState(2, "a"))
    second = durability.issue(3, None)
    third = durability.issue(3, HardState(3, None))
    assert durability.hard_state_ticket == third
    durability.stored(first)
    assert (durability.hard_state, durability.index) == (HardState(2, "a"), 0)
    durability.stored(second)
    assert (durability.hard_state, durability.index, durability.hard_state_ticket) == (HardState(2, "a"), 3, third)
    durability.stored(third)
    assert (durability.hard_state, durability.hard_state_ticket, durability.oldest_outstanding) == ((3, None), 0, 0)
    durability.stored(first)  # told twice: nothing more
    with pytest.raises(InvariantViolation):
        durability.stored(third + 1)


# ---------------------------------------------------------------------- promises


def test_promises_wait_for_the_hard_state_they_are_made_under() -> None:
    durability = Durability(0, HardState(1, None))
    promises = Promises(durability)
    promises.hold(1, "b", Vote(1, False), 7)
    assert [send.message for send in promises.end_turn(1)[0]] == [Vote(1, False)]
    promises.hold(2, "b", Vote(2, True), 7)
    ticket = durability.issue(0, HardState(2, "b"))
    assert promises.end_turn(2) == ([], [])
    promises.hold(2, "c", Vote(2, False), 8)  # made while that one is in flight
    assert promises.end_turn(2) == ([], [])
    assert list(promises.kept_until(ticket - 1, 2)) == []
    durability.stored(ticket)
    assert [(send.to, send.link) for send in promises.kept_until(ticket, 2)] == [("b", 7), ("c", 8)]
    assert list(promises.kept_until(ticket, 2)) == []


def test_promises_of_a_term_that_has_passed_are_dropped() -> None:
    durability = Durability(0, HardState(1, None))
    promises = Promises(durability)
    promises.hold(1, "b", Vote(1, True), 7)
    ticket = durability.issue(0, HardState(1, "b"))
    assert promises.end_turn(1) == ([], [])
    durability.stored(ticket)
    assert list(promises.kept_until(ticket, 2)) == []


def test_one_acknowledgement_a_link_after_the_turns_write() -> None:
    durability = Durability(0, HardState(1, None))
    promises = Promises(durability)
    for has_new in (False, True, False):
        promises.owe("a", 7, has_new)
    promises.owe("a", 8, False)
    ticket = durability.issue(3, None)
    assert promises.end_turn(1) == ([], [("a", 8)])  # nothing new came on 8: nothing to wait for
    assert promises.owed_until(ticket - 1) == []
    promises.owe("a", 7, True)
    durability.issue(4, None)
    promises.end_turn(1)
    durability.stored(ticket + 1)
    assert promises.owed_until(ticket + 1) == [("a", 7)]


# ---------------------------------------------------------------------- progress

PROGRESS_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 4)),
        st.tuples(st.just("ack"), st.integers(0, 30)),
        st.tuples(st.sampled_from(["up", "down", "snapshot", "echo"]), st.just(0)),
        st.tuples(st.just("probe"), st.integers(1, 30)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(steps=PROGRESS_STEPS)
def test_progress_keeps_its_invariants(steps: list[tuple[str, int]]) -> None:
    """match < next; match never falls; what is in flight is what was sent behind match, to the byte."""
    progress = Progress(5, 0.0)
    last_match = 0
    flying: list[tuple[int, int]] = []
    for kind, number in steps:
        if kind == "send" and progress.may_send(3, 100):
            progress.sent(progress.next_index - 1, number, 10 * number, 0)
            if progress.state is ProgressState.REPLICATE and number:
                flying.append((progress.next_index - 1, 10 * number))
        elif kind == "ack" and progress.linked:
            progress.unanswered = False
            progress.acknowledged(min(number, progress.sent_index))
            if progress.state is ProgressState.PROBE:
                progress.state = ProgressState.REPLICATE
            flying = [(last, size) for last, size in flying if last > progress.match_index]
        elif kind == "echo":
            progress.echoes_rounds = True
        elif kind == "probe":
            progress.probe_from(max(number, progress.match_index + 1))
            flying = []
        elif kind in ("up", "down", "snapshot"):
            {"up": progress.link_up, "down": progress.link_down, "snapshot": progress.need_snapshot}[kind]()
            flying = []
        assert last_match <= progress.match_index < progress.next_index
        assert progress.inflight_bytes == sum(size for _, size in flying)
        assert len(flying) <= 3
        assert not progress.linked or progress.match_index <= max(last_match, progress.sent_index)
        last_match = progress.match_index


def test_what_is_acknowledged_is_no_longer_in_flight() -> None:
    progress = Progress(1, 0.0)
    progress.link_up()
    progress.state = ProgressState.REPLICATE
    for count, size in ((2, 20), (1, 7), (3, 9)):
        progress.sent(progress.next_index - 1, count, size, 0)
    assert (progress.next_index, progress.inflight_bytes) == (7, 36)
    in_flight = {1: 36, 2: 16, 3: 9, 5: 9, 6: 0}
    for index, nbytes in in_flight.items():
        assert progress.acknowledged(index)
        assert not progress.acknowledged(index)
        assert (progress.match_index, progress.next_index, progress.inflight_bytes) == (index, 7, nbytes)
    progress.sent(6, 1, 5, 0)
    progress.link_down()  # its answer is lost
    assert (progress.next_index, progress.inflight_bytes) == (7, 0)


def test_a_new_link_vouches_for_nothing_that_went_out_on_the_old_one() -> None:
    progress = Progress(5, 0.0)
    progress.link_up()
    progress.sent(4, 6, 60, 9)
    progress.acknowledged(7)
    progress.snapshot_sent(20)
    assert (progress.sent_index, progress.sent_commit) == (20, 9)
    progress.link_down()
    progress.link_up()
    assert (progress.sent_index, progress.sent_commit, progress.match_index, progress.next_index) == (0, 0, 7, 8)
    assert (progress.echoes_rounds, progress.unanswered, progress.answered_link) == (None, False, False)


@pytest.mark.parametrize("state", ProgressState)
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("unanswered", [False, True])
@pytest.mark.parametrize("echoes", [None, False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_when_something_may_go_out(
    state: ProgressState, linked: bool, unanswered: bool, echoes: bool | None, lost: bool
) -> None:
    progress = Progress(5, 0.0)
    progress.state, progress.linked, progress.unanswered = state, linked, unanswered
    progress.echoes_rounds, progress.lost_log = echoes, lost
    served = linked and not lost
    one_at_a_time = state is ProgressState.PROBE or echoes is not True
    assert progress.may_send(8, 100) == (
        served and state is not ProgressState.SNAPSHOT and not (one_at_a_time and unanswered)
    )
    assert progress.may_heartbeat() == (served and (echoes is True or not unanswered))


# ---------------------------------------------------------------------- trimming


@pytest.mark.parametrize(
    ("entries", "applied", "needed", "target"),
    [
        (128, 128, 1000, 0),  # 2 x 64 stay
        (129, 129, 1000, 65),  # one more: 64 are left
        (300, 129, 1000, 65),  # what is not applied is not looked at
        (300, 128, 1000, 0),
        (300, 300, 20, 20),  # somebody needs what follows 20
        (300, 300, 236, 236),
        (300, 300, 237, 236),
        (300, 300, 0, 0),
    ],
)
def test_how_far_a_log_is_trimmed(entries: int, applied: int, needed: int, target: int) -> None:
    trimming, log = Trimming(Config()), RaftLog()
    log.extend([1] * entries, [b"1 APP - x"] * entries)
    trimming.applied(applied, 0.0)
    assert trimming.target(log, applied, lambda _: needed, 1.0) == target
    assert trimming.target(log, applied, lambda _: needed, 0.999) == 0  # all of it was applied within the last second


def test_an_entry_stays_for_exactly_the_keep_time() -> None:
    trimming, log = Trimming(Config(trim_keep=1, trim_keep_time=2.0)), RaftLog()
    log.extend([1] * 30, [b"1 NOOP"] * 30)
    for index, now in ((10, 0.0), (20, 1.0), (30, 5.0)):
        trimming.applied(index, now)
    targets = {5.0: 20, 6.5: 20, 7.0: 29}
    assert {now: trimming.target(log, 30, lambda _: 99, now) for now in targets} == targets


@given(applied=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=30), gap=st.integers(0, 30))
def test_what_was_applied_of_late_stays(applied: list[tuple[int, int]], gap: int) -> None:
    trimming, log = Trimming(Config(trim_keep=0, trim_keep_time=16.0)), RaftLog()
    now, index, times = 0, 0, []
    for wait, count in applied:
        now, index = now + wait, index + count
        log.extend([1] * count, [b"1 NOOP"] * count)
        trimming.applied(index, float(now))
        times += [now] * count
    now += gap
    old = sum(1 for time in times if time <= now - 16)
    assert trimming.target(log, index, lambda _: 1 << 40, float(now)) == old


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=40), applied=st.integers(0, 40), limit=st.integers(1, 600)
)
def test_an_oversized_log_is_trimmed_whoever_needs_it(sizes: list[int], applied: int, limit: int) -> None:
    trimming, log = Trimming(Config(max_log_bytes=limit)), RaftLog()
    log.extend([1] * len(sizes), [b"1 APP - " + b"x" * size for size in sizes])
    applied = min(applied, len(sizes))
    target = trimming.target(log, applied, lambda _: 0, 0.0)
    assert 0 <= target <= applied
    log.trim_to(target)
    assert log.nbytes <= limit or target == applied  # all that may go went
    if target:  # and no entry more than it takes
        assert log.nbytes + len(b"1 APP - ") + sizes[target - 1] > limit


# ---------------------------------------------------------------------- reads


def test_reads_share_the_round_that_begins_after_them() -> None:
    reads = ReadRounds()
    assert not reads.wants_round
    reads.ask("a")
    reads.ask("b")
    assert (reads.wants_round, reads.is_out) == (True, False)
    reads.begin(4, 10)
    reads.ask("c")
    assert (reads.wants_round, reads.is_out) == (False, True)
    assert reads.confirm() == [("a", 10), ("b", 10)]
    assert reads.wants_round
    reads.begin(5, 12)
    reads.ask("d")
    assert reads.fail_all() == ["c", "d"]
    assert (reads.wants_round, reads.is_out, reads.confirm()) == (False, False, [])
