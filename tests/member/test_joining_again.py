"""An id that was forgotten, was reset and joins again: what its earlier life left in logs and states is history to it.

PROTOCOL 8. Each execution was found by a review, and was wrong once: the node took its old NODE_FORGET for news.
"""

from __future__ import annotations

import pytest
from wiring import Host, Token, Wiring

from raftfast.cluster.entries import NodeForget
from raftfast.consensus import Standing
from raftfast.member import Identity
from raftfast.messages import AppendEntries, AppendEntriesAck, InstallSnapshot, Propose, SnapshotPiece, Welcome


def forget(world: Wiring, node: Host) -> None:
    world.done(world["a"].entry(NodeForget(node.id, 0)))


def reset(world: Wiring, node: Host, shard_id: str = "5" * 40) -> None:
    node.member.reset(Identity(node.id, shard_id, node.address), Token(), world.now)
    world.settle()


def with_learner(**knobs: int) -> Wiring:
    """Voters a, b and c, and d, which is a learner for good."""
    world = Wiring("abcd", max_voters=3, **knobs)
    world.form("abc")
    world.done(world["d"].meet(world["a"]))
    world.until(lambda: world["d"].member.standing is Standing.MEMBER)
    world.run(1.0)
    return world


def stored_in_its_earlier_life(**knobs: int) -> Wiring:
    """The voters' files know d in the life that is over: the state has it, the log behind it its NODE_FORGET."""
    world = with_learner(trim_keep=1000, **knobs)
    for name in "abc":
        world[name].compact()
    world.settle()
    forget(world, world["d"])
    world.until(lambda: world["d"].member.standing is Standing.REMOVED)
    reset(world, world["d"])
    return world


def restart(world: Wiring, names: str) -> None:
    """All at once; then one leads, and its first entry is not committed for a while."""
    for name in names:
        world[name].crash()
    world.kept.clear()
    for name in names:
        world[name].disk_held = False
        world[name].start()
    world.held = lambda sender, to, message: sender.name in "abc" and isinstance(message, AppendEntriesAck)
    world.until(lambda: any(host.up and host.member.raft.is_leader for host in world.hosts.values()))
    world.run(0.3)
    world.release()


def is_member_in_the_end(world: Wiring, node: Host) -> bool:
    world.run(8.0)
    return node.member.standing is Standing.MEMBER and node.id in world.leader.member.state.nodes


def test_no_snapshot_of_a_state_from_before_its_join_is_sent_by_a_leader_that_was_restarted() -> None:
    world = stored_in_its_earlier_life()
    d = world["d"]
    kinds = (AppendEntries, InstallSnapshot, SnapshotPiece)
    world.held = lambda sender, to, message: to is d and isinstance(message, kinds)
    world.done(d.meet(world["a"]))
    world.until(lambda: d.member.standing is Standing.JOINER and d.id in world["a"].member.state.nodes)
    world.run(0.1)
    restart(world, "abc")
    assert is_member_in_the_end(world, d)


def test_no_snapshot_is_sent_to_a_node_whose_forgetting_is_not_applied() -> None:
    """Its leader was restarted, and has not heard of its NODE_JOIN yet."""
    world = stored_in_its_earlier_life()
    a, b, d = world["a"], world["b"], world["d"]
    world.part("a", "d")
    for name in "abc":
        world[name].crash()
        world[name].start()
    world.held = lambda sender, to, message: (
        isinstance(message, Propose) or (sender.name in "abc" and isinstance(message, AppendEntriesAck))
    )
    world.until(lambda: a.member.raft.is_leader or b.member.raft.is_leader or world["c"].member.raft.is_leader)
    leader = world.leader
    other = next(world[name] for name in "bca" if world[name] is not leader)
    assert d.id in leader.member.state.nodes
    met = d.meet(other)
    world.until(lambda: d.member.standing is Standing.JOINER)
    world.heal()
    world.run(0.4)
    assert d.member.raft.last_applied == 0
    world.release()
    world.done(met)
    assert is_member_in_the_end(world, d)


def test_no_snapshot_of_a_state_from_before_its_join_is_sent_while_that_is_not_applied() -> None:
    """One was built for somebody else."""
    world = with_learner(trim_keep=1000)
    a, b, c, d = (world[name] for name in "abcd")
    world.isolate("b")
    world.done(a.propose(b"x"))
    world.run(0.3)
    b.member.caught_up_by = ""
    a.member.raft.log.trim_to(a.member.raft.last_applied)
    world.heal()
    world.until(lambda: b.member.caught_up_by == "snapshot")
    world.run(0.5)
    forget(world, d)
    world.until(lambda: d.member.standing is Standing.REMOVED)
    world.run(0.3)
    reset(world, d)
    b.disk_held = c.disk_held = True
    d.meet(a)
    world.run(0.6)
    b.disk_held = c.disk_held = False
    assert is_member_in_the_end(world, d)


@pytest.mark.parametrize("how_far", ["all", "before-its-join"])
def test_a_joiner_that_restarts_with_its_leader_reads_the_log_to_its_new_join(how_far: str) -> None:
    """A leader's first word tells no more than its file's commit index."""
    part = how_far == "before-its-join"
    world = stored_in_its_earlier_life(**({"max_append_bytes": 1, "max_inflight": 1} if part else {}))
    a, d = world["a"], world["d"]
    stored = a.disk.image.last_applied
    if part:
        log = d.member.raft
        world.held = lambda sender, to, message: (
            to is d and isinstance(message, AppendEntries) and log.log.last_index >= stored
        )
    else:
        world["b"].disk_held = world["c"].disk_held = True
    d.meet(a)
    world.until(lambda: d.disk.last_index >= stored and (not part or bool(world.kept)))
    world.run(0.3)
    assert d.member.standing is Standing.JOINER
    restart(world, "abcd")
    assert is_member_in_the_end(world, d)


def test_a_joiner_whose_log_has_its_join_waits_for_that_and_takes_nothing_before_it_for_news() -> None:
    """It is forgotten and joins anew in one breath, by one leader, and its state has it from before."""
    world = with_learner(trim_keep=1000)
    a, b, c, d = (world[name] for name in "abcd")
    world.part("a", "d")  # which is not told that it is alone now
    reset(world, d)
    b.disk_held = c.disk_held = True
    forgotten = a.entry(NodeForget(d.id, 0))
    met = d.meet(b)
    world.until(lambda: d.member.standing is Standing.JOINER)
    world.run(0.2)
    world.heal()
    world.until(lambda: d.member.knows(d.id) and d.member.raft.last_applied > 0)
    assert not forgotten.answered
    b.disk_held = c.disk_held = False
    world.done(forgotten)
    world.done(met)
    assert is_member_in_the_end(world, d)


def test_a_voter_that_was_forgotten_once_keeps_its_vote_through_a_power_failure() -> None:
    """Two voters, one of which has not written its state as a member yet: without it there is no quorum any more."""
    world = Wiring("ab")
    world.form("ab")
    a, b = world["a"], world["b"]
    a.compact()
    world.settle()
    forget(world, b)
    world.until(lambda: b.member.standing is Standing.REMOVED)
    reset(world, b)
    b.compact = lambda: None  # type: ignore[method-assign]
    world.done(b.meet(a))
    world.until(lambda: a.member.is_voter(b.id) and b.member.is_voter(b.id))
    world.run(0.5)
    world.done(a.propose(b"acknowledged"))
    for host in (a, b):
        host.crash()
    del b.compact
    for host in (a, b):
        host.start()
    assert b.member.standing is Standing.JOINER
    world.done(a.propose(b"x"))
    world.run(1.0)
    assert b.member.standing is Standing.MEMBER
    assert b.machine.applied == [b"acknowledged", b"x"]


@pytest.mark.parametrize("how", ["reset", "reset, restarted", "emptied but for its own line"])
def test_a_joiner_that_votes_in_history_alone_gives_up_when_it_is_forgotten_on_the_way(how: str) -> None:
    """PROTOCOL 3. It kept its log for ever, as a voter does whose acknowledgements count."""
    world = Wiring("abcd", trim_keep=1000, max_append_bytes=1, max_inflight=1)
    world.form("abcd")
    a, d = world["a"], world["d"]
    forget(world, d)
    world.until(lambda: d.member.standing is Standing.REMOVED)
    reset(world, d, d.shard if how.startswith("emptied") else "5" * 40)
    world.held = lambda sender, to, message: (
        to is d and isinstance(message, AppendEntries) and d.id in d.member.raft.voters
    )
    d.meet(a)
    world.until(lambda: d.member.standing is Standing.JOINER and bool(world.kept))
    world.isolate("d")
    world.run(0.5)
    forget(world, d)
    world.kept.clear()
    world.release()
    if how == "reset, restarted":  # then it does not know how far history goes
        d.crash()
        d.start()
    world.heal()
    world.until(lambda: d.member.standing is Standing.SINGLETON)
    world.done(d.meet(a))
    assert is_member_in_the_end(world, d)


def test_who_knew_its_earlier_life_and_gets_the_next_one_by_snapshot_waits_for_it_to_hear_of_its_join() -> None:
    """PROTOCOL 9: a learner may not know of its NODE_JOIN for 4T. It said `-`, and was held for one without its log."""
    world = with_learner(trim_keep=0, trim_keep_time=0)
    a, b, d = world["a"], world["b"], world["d"]
    world.run(world.config.joiner_timeout)
    b.member.caught_up_by = ""
    world.isolate("b")
    reset(world, d)
    forget(world, d)
    world.run(0.3)
    world.held = lambda sender, to, message: isinstance(message, Welcome)
    met = d.meet(a)
    world.until(lambda: d.id in a.member.state.nodes)
    world.run(0.3)
    a.member.raft.log.trim_to(a.member.raft.last_applied)
    world.heal()
    world.part("b", "d")
    world.until(lambda: b.member.caught_up_by == "snapshot")
    world.heal()
    world.run(0.6)
    a.member.transfer(b.id, world.now)
    world.until(lambda: b.member.raft.is_leader)
    world.release()
    world.done(met)
    assert is_member_in_the_end(world, d)
