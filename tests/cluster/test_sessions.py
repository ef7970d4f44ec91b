"""The exactly-once table against the dumbest model of it, and its bytes (PROTOCOL 6.3)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cluster_cases import A, B, C, D
from hypothesis import given, settings
from hypothesis import strategies as st

from raftfast.cluster.sessions import Duplicate, Look, Sessions
from raftfast.errors import InvariantViolation, SnapshotError


def opened(*clients: str, window: int = 4, result_bytes: int = 10, max_sessions: int = 3) -> Sessions:
    sessions = Sessions(window, result_bytes, max_sessions)
    for index, client in enumerate(clients, 1):
        assert sessions.open(client, index)
    return sessions


def test_a_command_is_applied_once_and_its_answer_given_again() -> None:
    sessions = opened(A)
    assert sessions.look(A, 1) is Look.FRESH
    sessions.record(A, 1, 2, b"one")
    assert sessions.look(A, 1) == Duplicate(b"one", kept=True)
    assert sessions.look(A, 2) is Look.FRESH
    with pytest.raises(ValueError, match="not fresh"):
        sessions.record(A, 1, 3, b"again")
    assert sessions.look(A, 1) == Duplicate(b"one", kept=True)


def test_of_a_client_that_is_not_open_nothing_is_applied() -> None:
    sessions = opened(A)
    assert sessions.look(B, 1) is Look.NOT_OPEN
    with pytest.raises(ValueError, match="not fresh"):
        sessions.record(B, 1, 2, None)
    sessions.touch(B, 3)
    assert B not in sessions
    assert list(sessions) == [A]


def test_opening() -> None:
    sessions = opened(A)
    sessions.record(A, 3, 2, b"three")
    assert sessions.look(A, 0) == Duplicate(None, kept=True)
    assert sessions.look(B, 0) is Look.FRESH
    assert not sessions.open(A, 3)
    assert sessions.look(A, 3) == Duplicate(b"three", kept=True)  # opening again forgets nothing
    with pytest.raises(ValueError, match="not fresh"):
        sessions.record(A, 0, 4, None)


def test_sequences_come_in_any_order_within_the_window() -> None:
    sessions = opened(A)
    for index, sequence in enumerate((4, 2, 1, 3), 2):
        assert sessions.look(A, sequence) is Look.FRESH
        sessions.record(A, sequence, index, None)
    assert all(sessions.look(A, sequence) == Duplicate(None, kept=True) for sequence in (1, 2, 3, 4))


def test_below_the_window_nothing_is_applied_again_applied_or_not() -> None:
    sessions = opened(A)
    sessions.record(A, 1, 2, b"x")
    sessions.record(A, 6, 3, b"y")
    assert [sessions.look(A, sequence) for sequence in (1, 2, 3)] == [Look.TOO_OLD, Look.TOO_OLD, Look.FRESH]
    with pytest.raises(ValueError, match="not fresh"):
        sessions.record(A, 2, 4, None)
    sessions.record(A, 1 << 60, 5, b"z")
    assert sessions.look(A, 6) is Look.TOO_OLD
    sessions.verify()


def test_results_are_kept_while_they_fit_oldest_in_the_log_first() -> None:
    sessions = opened(A)
    sessions.record(A, 2, 2, b"aaaa")
    sessions.record(A, 1, 3, b"bbbb")
    sessions.record(A, 3, 4, b"cccc")
    assert sessions.look(A, 2) == Duplicate(None, kept=False)
    assert sessions.look(A, 1) == Duplicate(b"bbbb", kept=True)
    sessions.record(A, 4, 5, b"x" * 11)  # never fits: it drives nothing out
    assert sessions.look(A, 4) == Duplicate(None, kept=False)
    assert sessions.look(A, 1) == Duplicate(b"bbbb", kept=True)
    sessions.record(A, 5, 6, b"x" * 10)
    assert sessions.look(A, 3) == Duplicate(None, kept=False)
    assert sessions.look(A, 5) == Duplicate(b"x" * 10, kept=True)
    sessions.verify()


def test_the_session_whose_last_entry_is_oldest_is_closed_first() -> None:
    sessions = opened(A, B, C)
    sessions.record(A, 1, 4, None)
    assert list(sessions) == [B, C, A]
    sessions.touch(B, 5)  # a duplicate is an entry in the log too
    assert list(sessions) == [C, A, B]
    assert not sessions.open(C, 6)
    assert list(sessions) == [A, B, C]
    assert sessions.open(D, 7)
    assert list(sessions) == [B, C, D]
    assert sessions.look(A, 2) is Look.NOT_OPEN
    sessions.verify()


def test_a_copy_of_the_opening_does_not_open_a_closed_session_again() -> None:
    """Else the commands that were applied in it, sent again too, would be applied twice."""
    sessions = Sessions(4, 100, 1)
    assert sessions.open(A, 1)
    sessions.record(A, 1, 2, b"once")
    assert sessions.open(B, 3)
    for table in (sessions, sessions.copy(), Sessions.decode(sessions.encode(), 4, 100, 1)):
        assert not table.open(A, 4)
        assert table.look(A, 1) is Look.NOT_OPEN
        table.verify()


@pytest.mark.parametrize("limits", [(0, 1, 1), (1, -1, 1), (1, 1, 0), ((1 << 20) + 1, 1, 1)])
def test_limits_that_make_no_table(limits: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no table"):
        Sessions(*limits)


class Naive:
    """Remembers all that is open for ever, of what was closed as many as may be open, and counts."""

    def __init__(self, window: int, result_bytes: int, max_sessions: int) -> None:
        self.limits = window, result_bytes, max_sessions
        self.used: list[str] = []
        self.closed: list[str] = []
        self.applied: dict[str, list[tuple[int, bytes | None]]] = {}
        self.gone: dict[str, set[int]] = {}

    def use(self, client: str) -> None:
        self.used.remove(client)
        self.used.append(client)

    def open(self, client: str) -> bool:
        if client in self.used:
            self.use(client)
            return False
        if client in self.closed:
            return False
        self.used.append(client)
        self.applied[client], self.gone[client] = [], set()
        if len(self.used) > self.limits[2]:
            closed = self.used.pop(0)
            del self.applied[closed], self.gone[closed]
            self.closed = [*self.closed, closed][-self.limits[2] :]
        return True

    def look(self, client: str, sequence: int) -> Look | Duplicate:
        if client not in self.used:
            return Look.NOT_OPEN
        greatest = max((done for done, _ in self.applied[client]), default=0)
        if sequence <= greatest - self.limits[0]:
            return Look.TOO_OLD
        for done, result in self.applied[client]:
            if done == sequence:
                return Duplicate(None, False) if done in self.gone[client] else Duplicate(result, True)
        return Look.FRESH

    def record(self, client: str, sequence: int, result: bytes | None) -> None:
        self.use(client)
        self.applied[client].append((sequence, result))
        greatest = max(done for done, _ in self.applied[client])
        gone = self.gone[client]
        gone.update(done for done, _ in self.applied[client] if done <= greatest - self.limits[0])
        if len(result or b"") > self.limits[1]:
            gone.add(sequence)
        for done, _ in self.applied[client]:
            if sum(len(kept or b"") for at, kept in self.applied[client] if at not in gone) > self.limits[1]:
                gone.add(done)


class Both:
    """The table and the model, side by side; the table is put through copies and its own bytes."""

    def __init__(self, window: int, result_bytes: int, max_sessions: int) -> None:
        self.limits = window, result_bytes, max_sessions
        self.table, self.naive = Sessions(*self.limits), Naive(*self.limits)
        self.index = 0
        self.copies: list[tuple[Sessions, bytes]] = []
        self.seen: Counter[str] = Counter()

    def open(self, client: str) -> None:
        self.index += 1
        assert self.table.open(client, self.index) == self.naive.open(client)
        self.compare()

    def command(self, client: str, ahead: int, result: bytes | None) -> None:
        """The command `ahead` of the client's greatest sequence, or behind it."""
        self.index += 1
        sequence = max(1, ahead + max((done for done, _ in self.naive.applied.get(client, [])), default=0))
        expected = self.naive.look(client, sequence)
        self.seen[expected.name if isinstance(expected, Look) else f"kept {expected.kept}"] += 1
        assert self.table.look(client, sequence) == expected
        if expected is Look.FRESH:
            self.table.record(client, sequence, self.index, result)
            self.naive.record(client, sequence, result)
        elif expected is not Look.NOT_OPEN:
            self.table.touch(client, self.index)
            self.naive.use(client)
        self.compare()

    def restart(self) -> None:
        encoded = self.table.encode()
        self.table = Sessions.decode(encoded, *self.limits)
        assert self.table.encode() == encoded

    def copy(self) -> None:
        self.copies.append((self.table.copy(), self.table.encode()))

    def compare(self) -> None:
        assert list(self.table) == self.naive.used
        for client in self.naive.used:
            greatest = max((done for done, _ in self.naive.applied[client]), default=0)
            for sequence in range(max(1, greatest - 8), greatest + 3):
                assert self.table.look(client, sequence) == self.naive.look(client, sequence)
        self.table.verify()

    def end(self) -> None:
        for copied, then in self.copies:
            copied.verify()
            assert copied.encode() == then, "a copy does not see what came later"


def random_step(both: Both, choose: Callable[[Sequence[Any]], Any]) -> None:
    kind = choose(("command",) * 12 + ("open", "open", "restart", "copy"))
    if kind == "command":
        ahead = choose((1, 1, 1, 1, 2, 3, 7, 0, -1, -2, -3, -4, -6))
        both.command(choose((A, A, A, B, B, C, D)), ahead, choose((None, b"", b"x", b"ab\n", b"01234567")))
    elif kind == "open":
        both.open(choose((A, B, C, D)))
    else:
        getattr(both, kind)()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.tuples(st.integers(1, 6), st.integers(0, 12), st.integers(1, 3)))
def test_as_the_naive_model(data: st.DataObject, limits: tuple[int, int, int]) -> None:
    both = Both(*limits)
    both.open(A)
    for _ in range(data.draw(st.integers(1, 15))):
        random_step(both, lambda of: data.draw(st.sampled_from(of)))
    both.end()


def test_as_the_naive_model_for_long() -> None:
    seen: Counter[str] = Counter()
    for seed in range(12):
        source = random.Random(seed)
        limits = source.randint(1, 6), source.randint(0, 12), source.randint(1, 3)
        print(f"seed {seed} limits {limits}")
        both = Both(*limits)
        for _ in range(150):
            random_step(both, source.choice)
        both.end()
        seen += both.seen
    assert all(seen[name] > 20 for name in ("FRESH", "TOO_OLD", "NOT_OPEN", "kept True", "kept False")), seen


def test_changing_a_copy_leaves_the_original() -> None:
    sessions = opened(A)
    sessions.record(A, 1, 2, b"one")
    before = sessions.encode()
    twin = sessions.copy()
    assert twin == sessions
    twin.record(A, 2, 3, b"two")
    twin.open(B, 4)
    assert sessions.encode() == before
    assert twin != sessions
    assert sessions.look(A, 2) is Look.FRESH


def test_the_bytes() -> None:
    sessions = opened(A, B)
    sessions.record(A, 1, 3, b"a\nb")
    sessions.record(A, 3, 4, None)
    a, b = A.encode(), B.encode()
    assert sessions.encode() == b"v2 2 0\n%s 2 0 1 0\n%s 4 3 d 2\n1 3\na\nb\n3 -\n\n" % (b, a)
    assert Sessions().encode() == b"v2 0 0\n"
    sessions = Sessions(4, 100, 1)
    for index, client in enumerate((A, B), 1):
        sessions.open(client, index)
    assert sessions.encode() == b"v2 1 1\n%s 2 0 1 0\n%s\n" % (b, a)


def test_a_table_read_under_smaller_limits_is_cut_down() -> None:
    sessions = opened(A, B, C, window=8, result_bytes=100)
    for index, sequence in enumerate((1, 2, 3, 4), 4):
        sessions.record(C, sequence, index, b"x" * sequence)
    small = Sessions.decode(sessions.encode(), window=3, result_bytes=6, max_sessions=2)
    small.verify()
    assert list(small) == [B, C]
    assert small.look(C, 1) is Look.TOO_OLD
    assert small.look(C, 2) == small.look(C, 3) == Duplicate(None, kept=False)
    assert small.look(C, 4) == Duplicate(b"xxxx", kept=True)


A_ROW = A.encode() + b" 4 3 d 1\n"
GOOD = b"v2 1 0\n" + A_ROW + b"3 2\nab\n"


def test_the_table_that_the_bad_ones_are_made_of_is_good() -> None:
    assert Sessions.decode(GOOD).look(A, 3) == Duplicate(b"ab", kept=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"v2 1 0",
        b"v2 0\n",
        b"v2 01 0\n",
        b"v2 -1 0\n",
        b"v2 1 0\n",
        b"v2 0 0\nx",
        b"v1 0\n",
        b"v2 0 1\n",
        b"v2 0 1\nshort\n",
        b"v2 0 2\n%s\n%s\n" % (A.encode(), A.encode()),
        GOOD.replace(b"v2 1 0", b"v2 1 1") + A.encode() + b"\n",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD.replace(b"v2 1 0", b"v2 1 1"),
        b"v2 2 0\n" + (A_ROW + b"3 2\nab\n") * 2,
        b"v2 2 0\n" + A_ROW + b"3 2\nab\n" + B.encode() + b" 4 0 1 0\n",
        b"v2 2 0\n" + A_ROW + b"3 2\nab\n" + B.encode() + b" 3 0 1 0\n",
        GOOD.replace(A.encode(), b"z" * 40),
        GOOD.replace(A.encode(), b"a" * 39),
        GOOD.replace(b" 4 ", b" 18446744073709551616 "),
        GOOD.replace(b" 3 d", b" 18446744073709551616 d"),
        GOOD.replace(b" d ", b" e "),
        GOOD.replace(b" d ", b" 0d "),
        GOOD.replace(b" d ", b" D "),
        GOOD.replace(b" d ", b" 1d "),
        GOOD.replace(b" d ", b"  "),
        GOOD.replace(b"d 1", b"d 2"),
        GOOD.replace(b"3 2\n", b"2 2\n"),
        GOOD.replace(b"3 2\n", b"0 2\n"),
        GOOD.replace(b"3 2\n", b"4 2\n"),
        GOOD.replace(b"3 2\n", b"3 1\n"),
        GOOD.replace(b"3 2\n", b"3 3\n"),
        GOOD.replace(b"3 2\n", b"3 18446744073709551615\n"),
        GOOD.replace(b"3 2\n", b"3 -\n"),
        b"v2 1 0\n" + A.encode() + b" 4 3 d 2\n3 2\nab\n3 2\nab\n",
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        Sessions.decode(data)


@given(st.data())
def test_any_bytes_give_a_table_or_snapshot_error(data: st.DataObject) -> None:
    start, end = data.draw(st.integers(0, len(GOOD))), data.draw(st.integers(0, len(GOOD)))
    mutated = GOOD[:start] + data.draw(st.binary(max_size=3)) + GOOD[end:]
    try:
        table = Sessions.decode(mutated)
    except SnapshotError:
        return
    table.verify()
    assert table.encode() == mutated


@pytest.mark.parametrize(
    ("break_it", "number"),
    [
        (lambda s: setattr(s._sessions[B], "last_index", 1), "1"),
        (lambda s: setattr(s, "_max_sessions", 1), "2"),
        (lambda s: setattr(s._sessions[A], "applied", 2), "3"),
        (lambda s: setattr(s._sessions[A], "applied", 3), "3"),
        (lambda s: setattr(s._sessions[A], "results", {1: None}), "4"),
        (lambda s: setattr(s._sessions[A], "result_bytes", 1), "4"),
    ],
)
def test_verify_names_what_is_broken(break_it: object, number: str) -> None:
    sessions = opened(A, B)
    break_it(sessions)  # type: ignore[operator]
    with pytest.raises(InvariantViolation, match=f"^{number}:"):
        sessions.verify()
