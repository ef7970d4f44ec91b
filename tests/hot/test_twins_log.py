"""log_c and log_py are one: surface, signatures, docstrings, and each refusal's type and words."""

from __future__ import annotations

import enum
import inspect

import pytest

from raftfast.errors import Compacted, InvariantViolation, Unavailable
from raftfast.hot import log_py
from twins import IMPLEMENTATIONS, leaf

if "c" not in IMPLEMENTATIONS:
    pytest.skip("RAFTFAST_PURE_TESTS: one twin only", allow_module_level=True)
log_c = leaf("c", "log")

TOP = (1 << 64) - 1
HUGE = 10**6000


class Index(enum.IntEnum):
    ONE = 1


class Line(bytes):
    pass


class LikeAnInt:
    def __index__(self):
        return 1


def public(thing):
    return [name for name in dir(thing) if not name.startswith("_")]


def verbs():
    return [name for name in public(log_py.RaftLog) if callable(getattr(log_py.RaftLog, name))]


def test_the_modules_offer_the_same():
    assert log_c.__all__ == log_py.__all__ == ["RaftLog"]
    assert log_c.RaftLog is not log_py.RaftLog


def test_the_class_has_the_same_surface():
    assert public(log_c.RaftLog) == public(log_py.RaftLog)
    assert len(verbs()) >= 14
    assert log_c.RaftLog.__name__ == log_py.RaftLog.__name__
    assert [name for name in dir(log_py.RaftLog()) if name in ("__dict__", "__weakref__")] == []
    assert [name for name in dir(log_c.RaftLog()) if name in ("__dict__", "__weakref__")] == []


def test_the_signatures_are_the_same():
    for name in verbs():
        assert inspect.signature(getattr(log_c.RaftLog, name)) == inspect.signature(getattr(log_py.RaftLog, name)), name
    compiled, pure = (inspect.signature(twin.RaftLog).parameters for twin in (log_c, log_py))
    assert [(each.name, each.default, each.kind) for each in compiled.values()] == [
        (each.name, each.default, each.kind) for each in pure.values()
    ]


def test_the_docstrings_are_the_same():
    assert inspect.getdoc(log_c.RaftLog) == inspect.getdoc(log_py.RaftLog)
    for name in public(log_py.RaftLog):
        text = inspect.getdoc(getattr(log_py.RaftLog, name))
        assert text, name
        assert inspect.getdoc(getattr(log_c.RaftLog, name)) == text, name


def test_the_stub_says_what_the_pure_twin_says():
    """log_c.pyi, executed as the text that it is, has the annotations of log_py."""
    path = log_c.__file__.rpartition("/")[0] + "/log_c.pyi"
    with open(path, encoding="utf-8") as stub:
        said: dict[str, object] = {}
        exec(compile("from __future__ import annotations\n" + stub.read(), path, "exec"), said)
    assert public(said["RaftLog"]) == public(log_py.RaftLog)
    for name in [*verbs(), "__init__"]:
        assert inspect.signature(getattr(said["RaftLog"], name)) == inspect.signature(getattr(log_py.RaftLog, name)), (
            name
        )


def test_arguments_go_by_name_too():
    for twin in (log_c, log_py):
        log = twin.RaftLog(boundary_index=4, boundary_term=1)
        assert log.append(term=1, line=b"a") == 5
        assert log.extend(terms=[1], lines=[b"b"]) == 6
        assert log.merge(prev_index=6, terms=[2], lines=[b"c"], commit_index=0) == (7, 0)
        assert log.line(index=5) == b"a"
        assert log.term_at(index=7) == 2
        assert log.lines(lo=5, hi=8, max_bytes=2) == [b"a", b"b"]
        assert log.entries(lo=5, hi=6, max_bytes=None) == ((1,), (b"a",))
        assert log.membership_lines(lo=5, hi=6) == []
        assert log.matches(index=5, term=1) is True
        assert log.hint(prev_index=7, prev_term=1) == 6
        assert (log.truncate_from(index=7), log.trim_to(index=5)) == (1, 1)
        assert log.reset(boundary_index=1, boundary_term=1) is None


BAD_NUMBERS = [
    (True, TypeError),
    (False, TypeError),
    (1.0, TypeError),
    (float("nan"), TypeError),
    (None, TypeError),
    ("1", TypeError),
    (b"1", TypeError),
    (Index.ONE, TypeError),
    (LikeAnInt(), TypeError),
    (-1, OverflowError),
    (TOP + 1, OverflowError),
    (HUGE, OverflowError),
    (-HUGE, OverflowError),
]
BAD_LINES = [None, "1 NOOP", bytearray(b"1 NOOP"), memoryview(b"1 NOOP"), Line(b"1 NOOP"), 7, [b"x"]]
GOOD_CALLS = {
    "append": [9, b"x"],
    "line": [13],
    "term_at": [13],
    "lines": [12, 13, 5],
    "entries": [12, 13, 5],
    "membership_lines": [12, 13],
    "truncate_from": [13],
    "trim_to": [12],
    "reset": [3, 3],
    "matches": [12, 4],
    "merge": [13, [9], [b"x"], 0],
    "hint": [13, 4],
    "__init__": [3, 3],
}


def bad_arguments():
    """Each verb with each wrong value in the place of each of its arguments, then what no single value shows."""
    for verb, good in GOOD_CALLS.items():
        for at, argument in enumerate(good):
            if type(argument) is int:
                for bad, error in BAD_NUMBERS:
                    if not (verb in ("lines", "entries") and at == 2 and bad is None):
                        yield verb, (*good[:at], bad, *good[at + 1 :]), error
        yield verb, (*good, 1, 2), TypeError
        if verb != "__init__":
            yield verb, (), TypeError
    for bad in BAD_LINES:
        yield "append", (9, bad), TypeError
        yield "extend", ([9, 9], [b"x", bad]), TypeError
        yield "merge", (13, [9, 9], (b"x", bad), 0), TypeError
    for bad, error in BAD_NUMBERS:
        yield "extend", ((9, bad), (b"x", b"y")), error
        yield "merge", (13, [9, bad], [b"x", b"y"], 0), error
        yield "merge", (0, [bad], [b"x"], 0), error
    for bad in (None, 7, 1.5, object()):
        yield "extend", (bad, [b"x"]), TypeError
        yield "extend", ([9], bad), TypeError
        yield "merge", (13, bad, [b"x"], 0), TypeError
        yield "merge", (13, [9], bad, 0), TypeError
    yield "extend", ("9", [b"x"]), TypeError
    yield "extend", ([9], b"x"), TypeError
    yield "extend", ([9], "x"), TypeError
    yield "extend", ([9, 9], [b"x"]), ValueError
    yield "extend", ([9], []), ValueError
    yield "extend", ([9, 8], [b"x", b"y"]), ValueError
    yield "extend", ([5], [b"x"]), ValueError
    yield "append", (5, b"x"), ValueError
    yield "merge", (13, [9], [], 0), ValueError
    yield "merge", (13, [9, 8], [b"x", b"y"], 0), ValueError
    yield "merge", (13, [5], [b"x"], 0), ValueError
    yield "merge", (12, [3], [b"x"], 0), ValueError
    yield "merge", (14, [9], [b"x"], 0), Unavailable
    yield "merge", (TOP, [9], [b"x"], 0), Unavailable
    yield "merge", (9, [1], [b"x"], 0), InvariantViolation
    yield "merge", (11, [9], [b"x"], 12), InvariantViolation
    yield "merge", (11, [4], [b"other"], 0), InvariantViolation
    yield "line", (10,), Compacted
    yield "line", (14,), Unavailable
    yield "term_at", (9,), Compacted
    yield "term_at", (TOP,), Unavailable
    yield "truncate_from", (10,), Compacted
    yield "trim_to", (14,), Unavailable
    for verb in ("lines", "entries", "membership_lines"):
        yield verb, (13, 12), ValueError
        yield verb, (TOP, 0), ValueError
        yield verb, (10, 11), Compacted
        yield verb, (0, TOP), Compacted
        yield verb, (11, 15), Unavailable
        yield verb, (15, 15), Unavailable
    yield "__reduce__", (), TypeError


def refusal(log, verb, arguments):
    with pytest.raises(Exception) as caught:
        getattr(log, verb)(*arguments)
    return caught.type, str(caught.value)


def test_each_refusal_is_the_same_and_changes_nothing():
    checked = 0
    for verb, arguments, error in bad_arguments():
        refusals = []
        for twin in (log_c, log_py):
            log = twin.RaftLog(10, 3)
            log.extend([4, 4, 6], [b"4 NOOP", b"4 NODE_JOIN a", b"6 APP - x"])
            refusals.append(refusal(log, verb, arguments))
            log.check()
            assert log.entries(11, 14) == ((4, 4, 6), (b"4 NOOP", b"4 NODE_JOIN a", b"6 APP - x")), (checked, verb)
            assert (log.boundary_index, log.boundary_term, log.nbytes) == (10, 3, 28)
        assert refusals[0][0] is refusals[1][0] is error, (checked, verb, refusals)
        # How many arguments there are is counted by Python and by Cython, each in its own words.
        if "argument" not in refusals[1][1]:
            assert refusals[0][1] == refusals[1][1], (checked, verb, refusals)
        checked += 1
    assert checked > 300
