"""An id that was forgotten, was reset and joins again: what its earlier life left in logs and states is history to it.

PROTOCOL 8. Each execution was found by a review, and was wrong once.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from wiring import Host, Token, Wiring

from raftfast.cluster.entries import NodeForget, NodeJoin
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


# ---------------------------------------------------------------------- who counts on a joiner


@pytest.mark.parametrize("how", ["reset", "reset, restarted", "emptied but for its own line"])
def test_a_joiner_that_reads_history_grants_no_vote_to_who_knew_its_earlier_life(how: str) -> None:
    """PROTOCOL 4. Two leaders acknowledged: c, which was away, counted a, and a had its old NODE_JOIN alone by then."""
    world = Wiring("abce", trim_keep=1000, max_append_bytes=1, max_inflight=1)
    a, b, c, e = (world[name] for name in "abce")
    world.form("abc")
    world.done(a.propose(b"one"))
    world.run(0.5)
    world.isolate("c")
    world.done(e.meet(a))
    world.until(lambda: a.member.is_voter(e.id) and e.member.is_voter(e.id))
    a.member.transfer(b.id, world.now)
    world.until(lambda: b.member.raft.is_leader)
    world.run(0.5)
    world.done(b.entry(NodeForget(a.id, 0)))
    world.until(lambda: a.member.standing is Standing.REMOVED)
    world.done(b.propose(b"two"))
    reset(world, a, a.shard if how.startswith("emptied") else "5" * 40)
    until = c.member.raft.log.last_index - 1
    world.held = lambda sender, to, message: (
        to is a and isinstance(message, AppendEntries) and a.member.raft.log.last_index >= until
    )
    a.meet(b)
    world.until(lambda: bool(world.kept))
    assert a.id in a.member.raft.voters, "by its earlier life"
    if how == "reset, restarted":  # then it does not know how far history goes
        a.crash()
        a.start()
        world.settle()
    assert not a.member.raft.may_grant
    assert a.member.cluster_token == "joining", "nobody is to count on it"
    world.heal()
    world.kept.clear()
    world.held = lambda sender, to, message: False
    for one in "ac":
        for other in "be":
            world.part(one, other)
    world.run(3.5)
    assert not c.member.raft.is_leader
    here, there = b.propose(b"three"), c.propose(b"four")
    world.run(1.0)
    assert here.ok
    assert not there.ok
    world.heal()
    world.run(5.0)
    assert c.machine.applied[:3] == b.machine.applied[:3] == [b"one", b"two", b"three"]
    assert a.member.standing is Standing.SINGLETON, "it heard no leader for too long"
    world.done(a.meet(b))
    assert is_member_in_the_end(world, a)


def test_no_voter_is_made_of_a_joiner_that_was_not_told_that_it_is_a_member() -> None:
    """It gave up, and of two voters one was nobody: an answer from before its NODE_JOIN was applied had counted."""
    world = Wiring("ab", trim_keep=1000)
    a, b = world["a"], world["b"]
    world.done(a.propose(b"x"))
    world.run(0.3)
    a.disk_held = True  # b acknowledges the NODE_JOIN before a can commit it

    def answers(sender: Host, message: object) -> bool:
        return sender is b and isinstance(message, AppendEntriesAck) and message.success and message.index >= 4

    world.held = lambda sender, to, message: answers(sender, message)
    a.meet(b)
    world.until(lambda: a.member.raft.log.last_index == b.disk.last_index > 0 and bool(world.kept))
    world.held = lambda sender, to, message: sender is a or answers(sender, message)
    a.disk_held = False
    world.until(lambda: b.id in a.member.state.nodes)
    world.settle()
    late = [kept for kept in world.kept if isinstance(kept[1], AppendEntriesAck)]
    assert late
    world.kept.clear()
    world.held = lambda sender, to, message: sender is a
    world.queue.extend(late)
    world.run(0.8)
    world.part("a", "b")
    world.kept.clear()
    world.held = lambda sender, to, message: False
    world.run(5.0)
    assert b.member.standing is Standing.SINGLETON, "it gave up"
    world.heal()
    world.run(0.5)
    world.done(a.propose(b"y"))
    world.done(b.meet(a))
    assert is_member_in_the_end(world, b)


def member_but_in_its_file(names: str) -> Wiring:
    """All of `names`, of which the last is a voter, and was killed before its file said more than `joining`."""
    world = Wiring(names, trim_keep=1000)
    world.form(names[:-1])
    first, last = world[names[0]], world[names[-1]]
    world.done(first.propose(b"x"))
    last.compact = lambda: None  # type: ignore[method-assign]
    world.done(last.meet(first))
    world.until(lambda: first.member.is_voter(last.id) and last.member.is_voter(last.id))
    world.run(0.3)
    last.crash()
    del last.compact
    return world


def test_a_joiner_that_votes_finds_the_others_from_another_address() -> None:
    """Two voters: while one dialled where the other was, and that one nobody, no leader was found for ever."""
    world = member_but_in_its_file("ab")
    a, b = world["a"], world["b"]
    a.crash()
    b.address = replace(b.address, ip="10.0.0.77")
    a.start()
    b.start()
    assert b.member.standing is Standing.JOINER
    world.run(8.0)
    world.done(a.propose(b"y"))
    assert b.member.standing is Standing.MEMBER
    assert a.member.state.nodes[b.id].address.ip == "10.0.0.77"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_joiner_that_was_forgotten_while_it_was_down_is_told_and_gives_up(restarted: bool) -> None:
    """It votes by its own log, so it waited for ever; and nobody dialled it."""
    world = member_but_in_its_file("abcd")
    d = world["d"]
    world.run(1.0)
    forget(world, d)
    world.run(1.0)
    if restarted:
        restarted_behind_their_states(world, "abc")
    d.start()
    assert d.member.standing is Standing.JOINER
    world.until(lambda: d.member.standing is Standing.SINGLETON)
    assert "this node was forgotten while it joined: alone again" in d.said
    world.done(d.meet(world["a"]))
    assert is_member_in_the_end(world, d)


def test_a_joiner_whose_join_is_cut_off_reads_history_again() -> None:
    world = Wiring("ad", trim_keep=1000)
    a, d = world["a"], world["d"]
    world.held = lambda sender, to, message: isinstance(message, AppendEntries)
    a.meet(d)
    world.until(lambda: d.member.standing is Standing.JOINER)
    raft = d.member.raft
    earlier = Identity(d.id, "4" * 40, d.address)
    joins = tuple(b"5 " + NodeJoin(d.id, who.text, False).encode() for who in (earlier, d.member.identity))
    raft.receive(a.id, AppendEntries(a.id, 5, 0, 0, 1, (5, 5), joins, 1), world.now, None)
    d.turn()
    assert d.member.knows(d.id)
    assert raft.may_grant
    raft.receive(a.id, AppendEntries(a.id, 6, 1, 5, 1, (6,), (b"6 NOOP",), 1), world.now, None)
    d.turn()
    assert d.member.knows(d.id)
    assert not raft.may_grant
    assert d.member.cluster_token == "joining"


def test_a_joiner_that_reads_history_does_not_take_its_old_forgetting_for_news() -> None:
    """It asks a member that does not know yet that it joins again."""
    world = with_learner(trim_keep=1000, max_append_bytes=1, max_inflight=1)
    a, c, d = world["a"], world["c"], world["d"]
    forget(world, d)
    world.until(lambda: d.member.standing is Standing.REMOVED and d.id in c.member.state.removed)
    world.part("a", "c")
    world.part("b", "c")
    reset(world, d)
    world.held = lambda sender, to, message: (
        to is d and isinstance(message, AppendEntries) and d.member.raft.log.last_index > 0
    )
    d.meet(a)
    world.until(lambda: bool(world.kept))
    assert d.member.raft.last_applied < c.member.state.removed[d.id]
    d.meet(c)
    world.run(0.3)
    assert d.member.standing is Standing.JOINER
    world.heal()
    world.release()
    assert is_member_in_the_end(world, d)


# ---------------------------------------------------------------------- who is told that it is forgotten


def restarted_behind_their_states(world: Wiring, names: str) -> None:
    """One after the other writes its state, and is started again: no process remembers who was forgotten."""
    for name in names:
        world[name].compact()
        world.settle()
        world[name].crash()
        world.run(0.1)
        world[name].start()
        world.run(4.0)


def test_a_node_that_was_away_is_told_that_it_is_forgotten_by_members_that_were_restarted() -> None:
    """It asked for votes for ever, in silence; its MEET was a success that made it no member of anything."""
    world = Wiring("abc", trim_keep=1000)
    world.form("abc")
    a, c = world["a"], world["c"]
    c.crash()
    world.run(2.0)
    forget(world, c)
    world.run(1.0)
    restarted_behind_their_states(world, "ab")
    assert all(not world[name].member.state.removed for name in "ab")
    c.start()
    world.until(lambda: c.member.standing is Standing.REMOVED)
    reset(world, c)
    world.done(c.meet(a))
    assert is_member_in_the_end(world, c)


def test_who_knows_less_than_a_member_does_not_take_it_for_forgotten() -> None:
    """It has not heard of the member's NODE_JOIN yet."""
    world = Wiring("abcd", trim_keep=1000)
    a, c, d = world["a"], world["c"], world["d"]
    world.form("abc")
    world.isolate("c")
    world.done(d.meet(a))
    world.until(lambda: d.member.is_voter(d.id))
    world.isolate("a")
    world.heal()
    world.part("a", "c")
    world.part("b", "c")
    world.run(1.0)
    assert d.id not in c.member.state.nodes
    assert d.member.standing is Standing.MEMBER
    assert d.member.links.outbound[c.id].node_id == c.id


def test_who_knows_less_than_a_joiner_does_not_make_it_give_up() -> None:
    """It was started again, has applied nothing yet, and others may count on it."""
    world = Wiring("abcd", trim_keep=1000)
    a, b, c, d = (world[name] for name in "abcd")
    world.form("abc")
    d.compact = lambda: None  # type: ignore[method-assign]
    world.isolate("c")
    world.done(d.meet(a))
    world.until(lambda: a.member.is_voter(d.id) and d.member.is_voter(d.id))
    world.run(0.3)
    for host in (a, b, d):
        host.crash()
    world.heal()
    world.part("a", "c")
    world.part("b", "c")
    del d.compact
    d.start()
    world.run(1.0)
    assert d.member.links.outbound[c.id].node_id == c.id
    assert c.member.raft.last_applied > d.member.raft.last_applied == 0
    assert d.member.standing is Standing.JOINER
    a.start()
    b.start()
    world.heal()
    assert is_member_in_the_end(world, d)


# ---------------------------------------------------------------------- the log's tail


def test_of_two_joins_in_the_tail_the_first_stays_where_the_second_is_cut_off() -> None:
    """PROTOCOL 2: a node is known by any NODE_JOIN of the tail. A proposal that is sent twice stands there twice."""
    world = Wiring("abcd", trim_keep=1000)
    world.form("abc")
    b, c, d = world["b"], world["c"], world["d"]
    raft, term = b.member.raft, b.member.raft.current_term
    world.isolate("b")
    last, join = raft.log.last_index, b"%d " % (term + 1) + NodeJoin(d.id, d.member.identity.text, False).encode()
    raft.receive(c.id, AppendEntries(c.id, term + 1, last, term, 0, (term + 1,) * 2, (join, join), 1), world.now, None)
    b.turn()
    assert b.member.knows(d.id)
    noop = b"%d NOOP" % (term + 2)
    append = AppendEntries(c.id, term + 2, last + 1, term + 1, 0, (term + 2,), (noop,), 1)
    raft.receive(c.id, append, world.now, None)
    b.turn()
    assert (raft.log.last_index, b.member.knows(d.id), d.id in raft.members) == (last + 2, True, True)
    append = AppendEntries(c.id, term + 3, last, term, 0, (term + 3,), (b"%d NOOP" % (term + 3),), 1)
    raft.receive(c.id, append, world.now, None)
    b.turn()
    assert (raft.log.last_index, b.member.knows(d.id), d.id in raft.members) == (last + 1, False, False)
