"""What a review of the core against PROTOCOL.md found: one test for each bug, named after what went wrong."""

from __future__ import annotations

from raft_world import World

from raftfast.messages import Role, VoteRequest


def _votes_asked(world: World, sender: str) -> list[VoteRequest]:
    return [f.message for f in world.bag if f.sender == sender and isinstance(f.message, VoteRequest)]


def test_a_link_that_comes_up_brings_no_vote_request_before_the_own_vote_is_durable(log_class: type) -> None:
    """PROTOCOL 4: persist both, *then* send VOTE_REQ; a HI in between must not let it out."""
    world = World(log_class, 3)
    world.cut("1", "3")
    world.nodes["1"].disk.slow = True
    world.campaign("1")
    world.stabilize()
    assert world["1"].role is Role.CANDIDATE
    world.mend("1", "3")  # the world itself raises Broken where the request leaves too early
    assert _votes_asked(world, "1") == []
    world.nodes["1"].disk.slow = False
    world.store("1")
    assert {f.to for f in world.bag if isinstance(f.message, VoteRequest)} == {"2", "3"}
