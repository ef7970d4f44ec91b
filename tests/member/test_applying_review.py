"""An entry that has no effect must have none on the voters in force either, or the node stops (PROTOCOL 8)."""

from __future__ import annotations

import pytest
from wiring import Wiring

from raftfast.errors import InvariantViolation

NOBODY = b"f" * 40
ADDRESS = b"10.0.0.9:7000@17000,,tls-port=0,shard-id=" + NOBODY


@pytest.mark.parametrize(
    "entry",
    [
        b"ADD_VOTER nobody",
        b"ADD_VOTER " + NOBODY,
    ],
)
def test_an_entry_that_moved_the_voters_in_force_alone_stops_the_node(entry: bytes) -> None:
    """A restart would read the voters from the node lines, which don't have it: two majorities that share nobody."""
    world = Wiring("ab")
    world.form("ab")
    a = world["a"]
    a.member.raft._append([entry])  # as a leader that does not check would
    with pytest.raises(InvariantViolation, match="changed the voters in force"):
        world.run(5.0)


@pytest.mark.parametrize(
    "entry",
    [
        b"ADD_VOTER nobody else",
        b"DEL_VOTER nobody",
        b"DEL_VOTER " + NOBODY,
        b"NODE_JOIN " + NOBODY + b" nowhere learner",
        b"NODE_JOIN " + NOBODY + b" nowhere voter",
        b"NODE_JOIN " + NOBODY + b" " + ADDRESS + b" voter",
        b"NODE_JOIN nobody voter",
        b"NODE_FORGET nobody 0",
        b"NOOP x",
    ],
)
def test_an_entry_without_effect_that_moved_no_voters_stops_nobody(entry: bytes) -> None:
    world = Wiring("ab")
    world.form("ab")
    a, b = world["a"], world["b"]
    voters = a.member.raft.voters
    a.member.raft._append([entry])
    token = a.propose(b"x")
    world.until(lambda: token.answered and b.machine.applied == [b"x"])
    assert a.member.raft.voters == b.member.raft.voters == a.member.state.voters() == b.member.state.voters() == voters
