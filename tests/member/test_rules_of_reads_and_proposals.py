"""When a member's reads and proposals leave, leave again, wait, and are taken for answered (PROTOCOL 5.6, 6 and 8)."""

from __future__ import annotations

import pytest
from wiring import Host, Wiring

from raftfast.cluster.entries import NodeForget, SlotChange
from raftfast.errors import Rejected
from raftfast.member.barriers import Barriers
from raftfast.messages import AppendEntriesAck, Propose, ReadIndex, ReadIndexOk, TimeoutNow


def in_log(host: Host, text: bytes) -> int:
    """How many entries of the host's log have that in them."""
    log = host.member.raft.log
    return sum(text in line for line in log.lines(log.first_index, log.last_index + 1))


# ---------------------------------------------------------------------- reads


def test_a_read_waits_for_its_very_index_and_for_a_number_of_its_own() -> None:
    """PROTOCOL 5.6: the answered index is applied; a number is never used twice in the life of a process."""
    answers: list[object] = []
    barriers = Barriers(lambda token, result, error: answers.append(token))
    barriers.add("first", 9.0)
    old = barriers.ask()
    barriers.ask_again()
    barriers.add("second", 9.0)
    new = barriers.ask()
    assert new > old
    barriers.confirmed(old, 1)  # late
    barriers.serve(5)
    assert answers == []
    barriers.confirmed(new, 7)
    barriers.serve(6)
    assert answers == []
    barriers.serve(7)
    assert answers == ["first", "second"]


def test_a_read_is_confirmed_by_the_leader_that_this_node_follows_alone() -> None:
    """PROTOCOL 5.6: what one leader was asked, another one, who led before, may answer too late."""
    world = Wiring("abc")
    world.form("abc")
    b, c = world["b"], world["c"]
    world.held = lambda sender, to, message: isinstance(message, ReadIndex)
    read = b.barrier()
    world.settle()
    ((_, asked),) = world.kept
    assert isinstance(asked, ReadIndex)
    b.member.link_messages(b.member.links.outbound[c.id].link, [ReadIndexOk(asked.number, 0)], world.now)
    b.turn()
    assert not read.answered
    world.release()
    world.done(read)


@pytest.mark.parametrize("kind", [ReadIndex, Propose])
def test_what_went_out_on_a_link_that_broke_leaves_again_on_the_next_one(kind: type) -> None:
    """PROTOCOL 5.6 and 6.2: also where the leader is the same, in the same term."""
    world = Wiring("abc")
    world.form("abc")
    a, b = world["a"], world["b"]
    term = a.member.raft.current_term
    world.held = lambda sender, to, message: isinstance(message, kind)
    token = b.barrier() if kind is ReadIndex else b.propose(b"x")
    world.settle()
    assert world.kept
    world.kept.clear()
    world.release()
    world.cut(b.member.links.outbound[a.id].link)
    world.done(token)
    assert (a.member.raft.is_leader, a.member.raft.current_term) == (True, term)


# ---------------------------------------------------------------------- what a leader appends


def test_a_proposal_is_checked_against_the_whole_log() -> None:
    """PROTOCOL 6.4: two that could conflict, the first not applied yet: the second is refused before it is appended."""
    world = Wiring("abc")
    world.form("abc")
    a, b = world["a"], world["b"]
    epoch_a, epoch_b = (a.member.state.shard_epoch(host.shard) for host in (a, b))
    world.held = lambda sender, to, message: isinstance(message, AppendEntriesAck)
    one = a.entry(SlotChange(None, 0, a.id, epoch_a, ((0, 9),)))
    a.turn()
    last = a.member.raft.log.last_index
    two = a.entry(SlotChange(None, 0, b.id, epoch_b, ((5, 6),)))
    a.turn()
    a.turn()
    assert not one.answered
    assert isinstance(two.error, Rejected)
    assert a.member.raft.log.last_index == last


def test_a_voter_is_forgotten_once_its_removal_is_applied_and_is_removed_once() -> None:
    """PROTOCOL 8: DEL_VOTER first, and NODE_FORGET when that is committed."""
    world = Wiring("abc")
    world.form("abc")
    a, c = world["a"], world["c"]
    removal, forgetting = b" DEL_VOTER " + c.id.encode(), b" NODE_FORGET " + c.id.encode()
    world.held = lambda sender, to, message: isinstance(message, AppendEntriesAck)
    forgotten = a.entry(NodeForget(c.id, 0))
    for _ in range(5):
        world.settle()
        a.turn()
    assert (in_log(a, removal), in_log(a, forgetting)) == (1, 0)
    world.release()
    world.done(forgotten)
    world.run(0.5)
    assert (in_log(a, removal), in_log(a, forgetting)) == (1, 1)


def test_what_a_leader_held_while_handing_over_is_not_appended_when_it_leads_again() -> None:
    """Its proposer has sent it to the leader in between; sessions know a command again, cluster entries have none."""
    world = Wiring("abc")
    world.form("abc")
    a, b, c = world["a"], world["b"], world["c"]
    world.held = lambda sender, to, message: isinstance(message, TimeoutNow)
    a.member.transfer(b.id, world.now)
    world.settle()
    done = c.propose(b"held")
    world.settle()
    assert any(isinstance(message, Propose) and to == "a" for _, to, message in world.passed)
    assert in_log(a, b" held") == 0
    world.release()
    world.done(done)
    assert b.member.raft.is_leader
    b.member.transfer(a.id, world.now)
    world.until(lambda: a.member.raft.is_leader)
    world.run(1.0)
    assert in_log(a, b" held") == 1
