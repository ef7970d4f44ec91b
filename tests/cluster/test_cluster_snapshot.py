"""A snapshot's bytes: made, cut anywhere, taken apart, and refused whole (PROTOCOL 7)."""

from __future__ import annotations

import itertools

import pytest
from cluster_cases import A, B, C, D, E, three
from hypothesis import given
from hypothesis import strategies as st

from raftfast.cluster.sessions import Sessions
from raftfast.cluster.snapshot import (
    Head,
    app_header,
    node_lines,
    parse_nodes,
    session_part,
    split_head,
    split_sessions,
)
from raftfast.cluster.state import ClusterState
from raftfast.errors import SnapshotError
from raftfast.hot import nodesconf

NODES = node_lines(three())


def sessions() -> Sessions:
    table = Sessions()
    table.open(A, 5)
    table.record(A, 1, 6, b"app 1\nsessions 2\n")
    return table


APP = session_part(sessions()) + b"the state\napp 3 0\n\xff"
WHOLE = NODES + app_header(len(APP), nodesconf.crc64(APP)) + APP


def test_a_snapshot_and_its_parts() -> None:
    head = split_head(WHOLE)
    assert head == Head(NODES, len(APP), nodesconf.crc64(APP), len(WHOLE) - len(APP))
    assert parse_nodes(head.nodes, A, B) == three()
    table, rest = split_sessions([WHOLE[head.app_offset :]])
    assert Sessions.decode(table) == sessions()
    assert b"".join(rest) == b"the state\napp 3 0\n\xff"


def test_node_lines_are_ascending_and_name_nobody_myself() -> None:
    lines = NODES.splitlines(keepends=True)
    assert [line[:40].decode() for line in lines] == [A, B, C, D]
    assert all(line.endswith(b" connected\n") or b" connected " in line for line in lines)
    assert b"myself" not in NODES
    assert node_lines(ClusterState()) == b""


def test_a_head_is_found_in_every_prefix_that_holds_it_and_in_no_shorter_one() -> None:
    head = split_head(WHOLE)
    assert head is not None
    for length in range(len(WHOLE) + 1):
        expected = head if length >= head.app_offset else None
        assert split_head(WHOLE[:length], len(WHOLE)) == expected


def test_a_snapshot_without_an_app_part() -> None:
    assert split_head(NODES) == Head(NODES, None, None, len(NODES))
    assert split_head(NODES[:-1], len(NODES)) is None
    assert split_head(b"") == Head(b"", None, None, 0)


def test_an_app_part_of_no_bytes_and_a_checksum_of_zero_count_as_any_other() -> None:
    assert app_header(0, 0) == b"app 0 0000000000000000\n"
    assert split_head(NODES + app_header(0, 0)) == Head(NODES, 0, 0, len(NODES) + 23)
    assert split_head(app_header(0, 0)) == Head(b"", 0, 0, 23)
    assert app_header((1 << 64) - 1, (1 << 64) - 1) == b"app 18446744073709551615 ffffffffffffffff\n"


@pytest.mark.parametrize(("length", "crc"), [(-1, 0), (1 << 64, 0), (0, -1), (0, 1 << 64)])
def test_an_app_line_that_could_not_be_read_is_not_made(length: int, crc: int) -> None:
    with pytest.raises(ValueError, match="no app part"):
        app_header(length, crc)


@pytest.mark.parametrize(
    "tail",
    [
        b"app 3 0000000000000000\nab",
        b"app 1 0000000000000000\nab",
        b"app 02 0000000000000000\nab",
        b"app 2 000000000000000\nab",
        b"app 2 000000000000000G\nab",
        b"app 2 00000000000000AA\nab",
        b"app  2 0000000000000000\nab",
        b"app 2 0000000000000000 \nab",
        b"app 2 0000000000000000\r\nab",
        b"app 2 0000000000000000",
        b"app " + b"2" * 100,
        b"app ",
    ],
)
def test_a_bad_app_line_is_refused(tail: bytes) -> None:
    with pytest.raises(SnapshotError):
        split_head(NODES + tail)


def test_a_bad_app_line_is_refused_before_the_rest_arrives() -> None:
    with pytest.raises(SnapshotError, match="malformed"):
        split_head(NODES + b"app " + b"2" * 100, 1 << 30)
    assert split_head(NODES + b"app 2", 1 << 30) is None


LINES = NODES.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (b"", "lacks its end"),
        (NODES[:-1], "lacks its end"),
        (NODES + b"\n", "node line 5"),
        (b"\n" + NODES, "node line 1"),
        (NODES + b"\0\n", "node line 5"),
        (LINES[0] + b"junk\n" + b"".join(LINES[1:]), "node line 2"),
        (LINES[0] + LINES[1][:60] + b"\n" + b"".join(LINES[2:]), "node line 2"),
        (b"".join(LINES[1:]), f"no line of the sender, {A}|no primary here"),
        (LINES[0] + LINES[2] + LINES[3], f"no line of this node, {B}"),
        (NODES + LINES[0], "two lines"),
        (NODES.replace(b"10000-16383", b"9999-16383"), "slot 9999"),
        (NODES.replace(b" master ", b" myself,master ", 1), "node line 1: the flag myself"),
        (NODES.replace(b" master,learner ", b" handshake,master,learner "), "node line 4: the flag handshake"),
        (NODES.replace(b" master ", b" master,learner "), "no line of a voter"),
        (NODES.replace(b" master ", b" master,what ", 1), "node line 1"),
        (NODES.replace(b",shard-id=" + b"4" * 40, b""), "lacks its shard-id"),
        (NODES.replace(b"app", b"x") + b"app 2 0000000000000000\n", "node line 5"),
    ],
)
def test_bad_node_lines_refuse_the_whole(nodes: bytes, reason: str) -> None:
    with pytest.raises(SnapshotError, match=reason):
        parse_nodes(nodes, A, B)


def test_the_sender_and_this_node_must_have_a_line() -> None:
    with pytest.raises(SnapshotError, match="sender"):
        parse_nodes(NODES, E, A)
    with pytest.raises(SnapshotError, match="this node"):
        parse_nodes(NODES, A, E)


def test_the_order_of_lines_says_nothing() -> None:
    assert parse_nodes(b"".join(reversed(LINES)), A, B) == three()


def test_flags_come_from_the_lines_alone() -> None:
    # A state that is parsed has nothing of the one before it: no flag, no primary, no slot is left over.
    state = three()
    fresh = parse_nodes(NODES, A, D)
    for member in fresh.nodes.values():
        assert member == state.nodes[member.id]
        assert not member.failed
    assert fresh.removed == {}


@given(st.lists(st.integers(0, len(APP)), max_size=8))
def test_the_app_part_may_be_cut_anywhere(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(APP)]
    pieces = [APP[start:end] for start, end in itertools.pairwise(bounds)]
    table, rest = split_sessions(iter(pieces))
    assert Sessions.decode(table) == sessions()
    assert b"".join(rest) == b"the state\napp 3 0\n\xff"


def test_the_rest_is_read_only_when_it_is_asked_for() -> None:
    taken = []

    def pieces() -> object:
        for piece in (b"sess", b"ions 7\nv2 0 0", b"\nab", b"cd"):
            taken.append(piece)
            yield piece

    table, rest = split_sessions(pieces())  # type: ignore[arg-type]
    assert table == b"v2 0 0\n"
    assert len(taken) == 3
    assert list(rest) == [b"ab", b"cd"]


def test_no_sessions_and_no_state() -> None:
    table, rest = split_sessions([session_part(Sessions())])
    assert Sessions.decode(table) == Sessions()
    assert list(rest) == []


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"sessions 5"],
        [b"sessions 7\nv2 0 0"],
        [b"sessions 07\nv2 0 0\n"],
        [b"sessions -1\n"],
        [b"session 7\nv2 0 0\n"],
        [b"Sessions 7\nv2 0 0\n"],
        [b"sessions 7 \nv2 0 0\n"],
        [b"x" * 1000],
        [b"x"] * 1000,
        [b"sessions 18446744073709551615\n", b"v2 0 0\n"],
    ],
)
def test_an_app_part_without_a_whole_table_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(SnapshotError):
        split_sessions(pieces)
