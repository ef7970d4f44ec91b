"""What the simulator found in the members, distilled: each was wrong once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raftfast.cluster.entries import AddVoter, NodeFail, NodeJoin, SetReplicaOf
from raftfast.cluster.state import ClusterState
from raftfast.config import Config
from raftfast.consensus import Standing
from raftfast.consensus.leading import Leadership
from raftfast.errors import Busy, NodeClosed
from raftfast.hot import nodesconf
from raftfast.member import Identity, Member, Origin
from raftfast.member.proposals import Proposals, app_key
from raftfast.messages import AppendEntries, Hi, PreVoteRequest, Vote, VoteRequest
from raftfast.records import Address, HardState, NodeRecord, NodesConf
from raftfast.testing import Registers
from raftfast.testing.oracles import ShardOracle

T = 1.0
SETTINGS = Config(node_timeout=T, max_pending=2)
ME, FOUNDER = f"{1:040x}", f"{2:040x}"
SHARD, CLUSTER = f"{11:040x}", f"{12:040x}"


def address(number: int, shard: str) -> str:
    return f"10.0.0.{number}:7000@17000,,tls-port=0,shard-id={shard}"


def new_id() -> str:
    return f"{7:040x}"


def joiner(*entries: Any) -> Member:
    """A joiner that was restarted with these entries in its log."""
    record = NodeRecord(
        ME, "10.0.0.1", 7000, 17000, aux={"tls-port": "0", "shard-id": SHARD}, flags=("myself", "master")
    )
    lines = tuple((index, 1, b"1 " + entry.encode()) for index, entry in enumerate(entries, 1))
    pairs: dict[str, int | str] = {
        "currentTerm": 1,
        "lastApplied": 0,
        "snapshotTerm": 0,
        "joining": 1,
        "clusterId": CLUSTER,
    }
    conf = nodesconf.parse(nodesconf.dump(NodesConf((record,), pairs, lines)))
    origin = Origin.of_file(conf, Address("10.0.0.1", 7000, 17000, "", {"tls-port": "0"}))
    member = Member(origin, SETTINGS, random.Random(1), new_id, Registers(), now=0.0)
    member.take(0.0)
    return member


FOUNDED = NodeJoin(FOUNDER, address(2, CLUSTER), True)
JOINED = NodeJoin(ME, address(1, SHARD), False)
PROMOTED = AddVoter(ME)


def pass_time(member: Member, until: float) -> None:
    now = member.now
    while now < until:
        now += 0.1
        member.tick(now)
        member.take(now)


def test_a_joiner_that_nobody_names_gives_up() -> None:
    member = joiner(FOUNDED)
    pass_time(member, 5 * T)
    assert member.standing is Standing.SINGLETON


def test_a_joiner_that_is_a_voter_by_its_own_log_does_not_give_up() -> None:
    """Entries were committed with its copy before it heard of it: dropped, they could be lost (slow disks, seed 15)."""
    member = joiner(FOUNDED, JOINED, PROMOTED)
    pass_time(member, 50 * T)
    assert member.standing is Standing.JOINER
    assert member.raft.log.last_index == 3


def test_a_joiner_with_its_join_in_its_log_greets_by_its_cluster() -> None:
    """As `joining` it looked like a voter that had lost its log, and was never served again."""
    assert joiner(FOUNDED).cluster_token == "joining"
    assert joiner(FOUNDED, JOINED).cluster_token == CLUSTER


@pytest.mark.parametrize(("entries", "granted"), [((FOUNDED,), False), ((FOUNDED, JOINED, PROMOTED), True)])
def test_a_joiner_grants_votes_once_its_join_is_in_its_log(entries: tuple[Any, ...], granted: bool) -> None:
    """Others may count it among the voters, and be unable to elect anybody without it."""
    member = joiner(*entries)
    last = len(entries)
    member.raft.receive(FOUNDER, VoteRequest(FOUNDER, 2, last, 1), 3 * T, 5)
    update = member.raft.take()
    if update.ticket:
        member.raft.stored(update.ticket, 3 * T)
        update = member.raft.take()
    answers = [send.message for send in update.send if isinstance(send.message, Vote)]
    assert [answer.granted for answer in answers] == [granted]
    assert member.raft.hard_state == (HardState(2, FOUNDER) if granted else HardState(1, None))
    assert member.raft.role.value == "joiner"


def singleton() -> Member:
    identity = Identity(ME, SHARD, Address("10.0.0.1", 7000, 17000, "", {"tls-port": "0"}))
    return Member(Origin.fresh(identity), SETTINGS, random.Random(1), new_id, Registers(), now=0.0)


def test_a_late_vote_does_not_hide_that_an_append_is_not_answered() -> None:
    """The link stayed, the first AppendEntries on it was never answered, and no other was sent: for ever."""
    member = singleton()
    links = member.links
    links.opened(4, FOUNDER, "10.0.0.2", "10.0.0.1", 0.0)
    deliver = lambda info, message: None  # noqa: E731
    links.take(4, Hi(FOUNDER, address(2, CLUSTER), CLUSTER), 0.0, deliver)
    info = links.infos[4]
    links.send(info, PreVoteRequest(ME, 1, 0, 0), 0.1)
    links.send(info, AppendEntries(ME, 1, 0, 0, 0), 0.2)
    links.take(4, Vote(1, True), 0.3, deliver)
    links.tick(0.2 + T / 2)
    assert 4 in links.infos
    links.tick(0.3 + T / 2)
    assert 4 not in links.infos


def proposals() -> tuple[Proposals, list[tuple[Any, Any, Any]]]:
    answers: list[tuple[Any, Any, Any]] = []
    return Proposals(SETTINGS, new_id, lambda *answer: answers.append(answer)), answers


def test_what_a_node_wants_by_itself_is_not_refused_as_busy() -> None:
    """The error went through the node's own heartbeat, and ended it."""
    table, _ = proposals()
    for number in range(2):
        table.add_entry(NodeFail(f"{number:040x}").encode(), object(), 0.0)
    with pytest.raises(Busy):
        table.add_entry(NodeFail(ME).encode(), object(), 0.0)
    table.add_entry(NodeFail(ME).encode(), None, 0.0)
    assert len(table) == 3


def test_what_is_decided_while_it_waits_to_be_sent_again_is_not_sent_again() -> None:
    table, answers = proposals()
    table.heard_from(1, FOUNDER)
    table.add_app(b"x", "token", 0.0)
    assert len(table.take_unsent(1)) == 2
    table.heard_from(2, FOUNDER)
    assert len(table.unsent) == 2
    table.complete(app_key(new_id(), 0), None, None)
    table.complete(app_key(new_id(), 1), b"done", None)
    assert answers == [("token", b"done", None)]
    assert table.take_unsent(2) == []


def test_a_forgotten_node_does_not_say_that_what_it_sent_has_no_effect() -> None:
    member = singleton()
    member.propose_app(b"sent", "sent", 0.0)
    member.take(0.0)
    member.proposals.pending.pop(app_key(new_id(), 0))
    member.propose_app(b"not sent", "not sent", 0.0)
    member.lifecycle.was_removed(0.0)
    errors = {token: error for token, _, error in member.orders.answers}
    assert isinstance(errors["sent"], NodeClosed)
    assert errors["sent"].may_take_effect
    assert not errors["not sent"].may_take_effect


def member_of_two(flags: tuple[str, ...]) -> Member:
    """A member whose state has the founder too, with these flags."""
    mine = NodeRecord(ME, "10.0.0.1", 7000, 17000, aux={"shard-id": SHARD}, flags=("myself", "master"))
    other = NodeRecord(FOUNDER, "10.0.0.2", 7000, 17000, aux={"shard-id": CLUSTER}, flags=("master", *flags))
    pairs: dict[str, int | str] = {"currentTerm": 1, "lastApplied": 3, "snapshotTerm": 1, "clusterId": CLUSTER}
    conf = nodesconf.parse(nodesconf.dump(NodesConf((mine, other), pairs)))
    origin = Origin.of_file(conf, Address("10.0.0.1", 7000, 17000, "", {"tls-port": "0"}))
    return Member(origin, SETTINGS, random.Random(1), new_id, Registers(), now=0.0)


def test_what_a_joiner_said_before_it_was_a_voter_is_asked_anew_when_it_is_heard_late() -> None:
    """It was taken for a voter that had lost its log, and was never served again (rough, 5 nodes, seed 131)."""
    member = member_of_two(("learner",))
    member.link_opened(4, FOUNDER, "10.0.0.2", "10.0.0.1", 0.0)
    member.state.apply(4, AddVoter(FOUNDER))
    member.link_messages(4, [Hi(FOUNDER, address(2, CLUSTER), "joining")], 0.1)
    orders = member.take(0.1)
    assert [link for link, _ in orders.closes] == [4]
    member.link_opened(5, FOUNDER, "10.0.0.2", "10.0.0.1", 0.2)
    member.link_messages(5, [Hi(FOUNDER, address(2, CLUSTER), CLUSTER)], 0.3)
    assert member.is_served(member.links.infos[5])


def test_a_voter_that_was_dialled_as_one_and_says_that_it_joins_has_lost_its_log() -> None:
    member = member_of_two(())
    member.link_opened(4, FOUNDER, "10.0.0.2", "10.0.0.1", 0.0)
    member.link_messages(4, [Hi(FOUNDER, address(2, CLUSTER), "joining")], 0.1)
    assert not member.is_served(member.links.infos[4])


def test_a_learner_that_lacks_its_own_join_has_not_caught_up() -> None:
    """What was committed a heartbeat ago may end below it; a voter without it greets as a joiner (seed 230)."""
    leadership = Leadership(ME, 1, SETTINGS, 0.0, 0, None)
    leadership.follow({FOUNDER}, 6, 0.0, {FOUNDER})
    progress = leadership.peers[FOUNDER]
    progress.heard_at = 0.0
    progress.acked_round = 1
    progress.match_index = 4
    assert not leadership.is_caught_up(FOUNDER, 0.1)
    progress.match_index = 5
    assert leadership.is_caught_up(FOUNDER, 0.1)


@pytest.mark.parametrize("flags", [("learner",), ()])
def test_who_rejoined_below_a_snapshot_is_served_by_who_saw_it_without_its_log(flags: tuple[str, ...]) -> None:
    """Its NODE_JOIN was in the snapshot and never applied: once it led, that member was never served (losses, 114)."""
    member = member_of_two(flags)
    member.link_opened(4, FOUNDER, "10.0.0.2", "10.0.0.1", 0.0)
    member.link_messages(4, [Hi(FOUNDER, address(2, CLUSTER), "-")], 0.1)
    assert not member.is_served(member.links.infos[4])
    member.installed_state(member.state.copy(), member.new_sessions())
    assert [link for link, _ in member.take(0.2).closes] == [4]
    member.link_opened(5, FOUNDER, "10.0.0.2", "10.0.0.1", 0.3)
    member.link_messages(5, [Hi(FOUNDER, address(2, CLUSTER), CLUSTER)], 0.4)
    assert member.is_served(member.links.infos[5])
    assert member.raft.leadership is None
    member.raft._begin_election(transfer=False)
    member.raft._lead()
    assert member.raft.leadership is not None
    assert not member.raft.leadership.peers[FOUNDER].lost_log


def test_links_of_nodes_that_a_snapshot_does_not_name_are_closed_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    member, ids = singleton(), [f"{number * 7919 % 1009:040x}" for number in range(100, 120)]
    for index, node_id in enumerate(ids, 1):
        member.state.apply(index, NodeJoin(node_id, address(index, SHARD), False))
    closed: list[str] = []
    monkeypatch.setattr(member.links, "close_of", lambda node_id, reason: closed.append(node_id))
    member.installed_state(ClusterState(), member.new_sessions())
    assert closed == sorted([*ids, ME])


def test_a_replica_that_changes_its_primary_within_a_shard_is_a_change_of_the_shard() -> None:
    """Seed 9000791 of seven nodes: two primaries of one shard, as where a node comes back with its old one."""
    one, other, replica = (f"{number:040x}" for number in (1, 2, 3))
    oracle, state = ShardOracle(), ClusterState()
    joins = [NodeJoin(one, address(1, SHARD), True), NodeJoin(other, address(2, SHARD), False)]
    for index, join in enumerate([*joins, NodeJoin(replica, address(3, CLUSTER), False)], 1):
        assert state.apply(index, join).success
        oracle.learn(index, join, state)
    for index, (source, primary) in enumerate(((CLUSTER, one), (SHARD, other)), 4):
        epoch = state.shard_epoch(SHARD)
        entry = SetReplicaOf(replica, source, state.shard_epoch(source), primary, SHARD, epoch)
        assert state.apply(index, entry).success
        oracle.learn(index, entry, state)
    assert state.nodes[replica].primary_id == other
