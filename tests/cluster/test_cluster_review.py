"""What a review found: malformed entries, the voters that the state shows, Valkey's files, commands of backslashes."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from cluster_cases import FREE, SA, SB, A, B, C, D, join, three
from hypothesis import given
from hypothesis import strategies as st

from raftfast.cluster.entries import (
    AddVoter,
    DelVoter,
    Entry,
    NodeForget,
    NodeJoin,
    app_entry,
    escape,
    parse_app,
    parse_entry,
    parse_line,
    unescape,
)
from raftfast.cluster.sessions import Look, Sessions
from raftfast.cluster.snapshot import node_lines, parse_nodes
from raftfast.cluster.state import ClusterState, Kind
from raftfast.consensus.voters import VoterHistory, voter_change
from raftfast.errors import EntryError
from raftfast.hot import nodesconf, wire
from raftfast.messages import ENTRY_TYPES, AppendEntries

VECTORS = Path(__file__).parent.parent / "vectors" / "nodesconf"
ADDRESS = f"h:1@2,,shard-id={SA}"


# ---------------------------------------------------------------------- what the codec takes and an entry is not

PIECES = st.sampled_from(
    [A, B, FREE, SA, "-", "0", "1", "5-6", "16384", "voter", "learner", "noflags", ADDRESS, "h:1@2,", "h:1", "\\", "é"]
)


@given(kind=st.sampled_from(sorted(ENTRY_TYPES)), pieces=st.lists(PIECES, max_size=7))
def test_a_malformed_entry_that_came_is_a_no_op_and_nothing_else(kind: bytes, pieces: list[str]) -> None:
    """PROTOCOL 6.4: whatever the codec takes is an entry, or EntryError; the state is as it was after a refusal."""
    line = b" ".join([b"5", kind, *(piece.encode() for piece in pieces)])
    (taken,) = wire.decode(wire.encode(AppendEntries(A, 5, 0, 0, 0, (5,), (line,)))[8:]).lines  # type: ignore[attr-defined]
    state = three()
    before = node_lines(state)
    try:
        app = parse_app(taken)
        entry = None if app is not None else parse_line(taken)[1]
    except EntryError:
        with pytest.raises(EntryError):
            parse_line(taken)
        return
    if entry is not None:
        assert entry.encode() == taken.split(b" ", 1)[1]
        verdict = state.apply(1, entry)
        state.verify()
        assert verdict.kind is Kind.VALID or node_lines(state) == before


# ---------------------------------------------------------------------- the voters that are shown


@pytest.mark.parametrize(
    "entry",
    [
        b"ADD_VOTER",
        b"ADD_VOTER %b x" % D.encode(),
        b"ADD_VOTER %b %b" % (D.encode(), D.encode()),
        b"ADD_VOTER %b x y" % D.encode(),
        b"DEL_VOTER %b x" % A.encode(),
        b"NODE_JOIN %b voter" % FREE.encode(),
        b"NODE_JOIN %b voter voter voter" % FREE.encode(),
    ],
)
def test_an_entry_with_fields_too_many_moves_no_voters(entry: bytes) -> None:
    """PROTOCOL 8: what is applied follows the voter set exactly; so what apply refuses must not have moved the set."""
    assert voter_change(b"1 " + entry) is None
    with pytest.raises(EntryError):
        parse_entry(entry)


CHANGES: list[Entry] = [
    *(change(node) for change in (AddVoter, DelVoter) for node in (A, B, C, D, FREE)),
    *(NodeForget(node, 0) for node in (A, B, C, D)),
    *(join(node) for node in (A, B, C, D)),
    *(join(node, voter=True) for node in (A, B)),
]


@given(wanted=st.lists(st.sampled_from(CHANGES), max_size=30))
def test_the_state_shows_the_voters_that_were_in_force(wanted: list[Entry]) -> None:
    """PROTOCOL 8: a leader appends what passes the check against the whole log's state; then both move alike."""
    state, history = ClusterState(), VoterHistory(())
    for index, entry in enumerate([join(A, voter=True), *wanted], 1):
        if state.check(entry).success:
            history.appended(index, b"1 " + entry.encode())
            state.apply(index, entry)
        assert history.current == state.voters()


# ---------------------------------------------------------------------- Valkey's files


def test_the_file_that_valkey_wrote_gives_the_state_and_its_log_the_rest() -> None:
    conf = nodesconf.parse((VECTORS / "05_raft_full.conf").read_bytes())
    told = json.loads((VECTORS / "05_raft_full.json").read_text())
    state = ClusterState.from_records(conf.nodes)
    state.verify()
    assert {shard: state.shard_epoch(shard) for shard in state.shard_ids() if state.shard_epoch(shard)} == (
        told["shard_epochs"]
    )
    for index, _, line in conf.entries:
        verdict = state.apply(index, parse_line(line)[1])
        assert verdict.kind is Kind.VALID, (line, verdict)
        state.verify()
    lines = node_lines(state)
    members = sorted(state.nodes)
    again = parse_nodes(lines, members[0], members[-1])
    assert again == state
    assert node_lines(again) == lines


# ---------------------------------------------------------------------- commands of backslashes


def _dumb(data: bytes) -> bytes | None:
    """`unescape`, a byte at a time; None where it refuses."""
    out, at = bytearray(), 0
    while at < len(data):
        byte = data[at : at + 1]
        if byte == b"\n":
            return None
        if byte == b"\\":
            at += 1
            byte = {b"\\": b"\\", b"n": b"\n"}.get(data[at : at + 1], b"")
            if not byte:
                return None
        out += byte
        at += 1
    return bytes(out)


def test_unescape_is_what_a_byte_at_a_time_gives() -> None:
    for length in range(7):
        for letters in itertools.product(b"\\n\nx", repeat=length):
            data = bytes(letters)
            want = _dumb(data)
            if want is None:
                with pytest.raises(EntryError):
                    unescape(data)
            else:
                assert unescape(data) == want
                assert escape(want) == data


@pytest.mark.parametrize("command", [b"\\", b"\n", b"\\\n", b"x\\"])
def test_a_command_of_backslashes_costs_what_its_bytes_cost(command: bytes) -> None:
    """It is read on every member's loop: no object a backslash, which took seconds for the longest command."""
    command *= 500_000
    escaped = escape(command)
    tracemalloc.start()
    try:
        assert unescape(escaped) == command
        assert tracemalloc.get_traced_memory()[1] < 4 * len(escaped)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["\ud800", "a\udfff\ud800"])
def test_text_that_is_no_utf_8_is_an_entry_error(text: str) -> None:
    for entry in (NodeJoin(A, f"{text}:1@2,,shard-id={SB}"), AddVoter(text)):
        with pytest.raises(EntryError):
            entry.encode()
    with pytest.raises(EntryError):
        app_entry(text, 1, b"x")


# ---------------------------------------------------------------------- answers that no snapshot could hold


@pytest.mark.parametrize("result", ["text", bytearray(b"x"), 5, True, memoryview(b"x")])
def test_an_answer_that_is_not_bytes_is_refused_at_once(result: Any) -> None:
    sessions = Sessions()
    sessions.open(A, 1)
    before = sessions.encode()
    with pytest.raises(TypeError, match="must be bytes or None"):
        sessions.record(A, 1, 2, result)
    assert sessions.encode() == before
    assert sessions.look(A, 1) is Look.FRESH
