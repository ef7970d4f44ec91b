"""Who leads: transfers, graceful ends, abrupt ends, and what status and events tell of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from node_cluster import CONFIG, ELECTIONS, cluster_of, error_of, events_of, kill, meet, until_added

from raftfast import Dropped, Event, Node, NodeClosed, NotLinearizable, Rejected, UnknownOutcome
from raftfast.messages import Role
from raftfast.subscribers import _EVENTS_KEPT


def pre_vote_rounds(cluster) -> list[str]:
    """From now on every pre-vote round is noted: it begins only where an election timeout has passed."""
    rounds: list[str] = []
    for node in cluster.live:
        raft = node._engine.member.raft
        begin = raft._begin_pre_vote

        def noted(begin=begin, node=node) -> None:
            rounds.append(node.node_id)
            begin()

        raft._begin_pre_vote = noted
    return rounds


def test_a_graceful_close_hands_over_without_an_election_timeout(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            term = leader.status().term
            rounds = pre_vote_rounds(cluster)
            async with events_of(followers[0]) as seen:
                await leader.close()
                other = await cluster.leader()
                await cluster.until(lambda: any(event.kind == "leader" for event in seen), "its event")
            assert rounds == []
            assert other.status().term == term + 1
            assert next(event for event in seen if event.kind == "leader").node_id == other.node_id
            assert await other.propose(b"x") == b"1"

    run_on_both(main())


def test_leadership_goes_where_it_is_asked_to_go(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for _ in range(2):
                for target in list(cluster.nodes.values()):
                    leader = await cluster.leader()
                    if leader is target:
                        continue
                    rounds = pre_vote_rounds(cluster)
                    assert await leader.transfer_leadership(to=target.node_id) == target.node_id
                    assert await cluster.leader() is target
                    assert rounds == []
            await cluster[0].propose(b"x")

    run(main())


def test_a_follower_may_ask_for_the_transfer(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            new = await followers[0].transfer_leadership()
            assert new != leader.node_id
            assert (await cluster.leader()).node_id == new

    run(main())


def test_a_member_that_has_just_handed_over_may_ask_for_the_next_transfer(run_on_both, tmp_path: Path) -> None:
    """The new leader has not heard its voters yet: a question that was sent once came to nothing."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for _ in range(3):
                old, (target, _) = await cluster.leader(), await cluster.followers()
                assert await old.transfer_leadership(to=target.node_id) == target.node_id
                assert await old.transfer_leadership() != target.node_id

    run_on_both(main())


def test_a_transfer_that_cannot_be_is_refused_and_the_leader_goes_on(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, max_voters=1) as cluster:  # by itself the leader makes nobody a voter
            leader, (voter, learner) = cluster[0], await cluster.start(1, 2)
            for node in (voter, learner):
                await meet(leader, node)
                await cluster.until(lambda node=node: node.status().standing == "member", "a learner")
            await until_added(leader, voter.node_id)
            for wrong in ("f" * 40, leader.node_id, learner.node_id):
                error = await error_of(leader.transfer_leadership(to=wrong))
                assert isinstance(error, Rejected), error
            assert leader.status().role is Role.LEADER
            assert await leader.propose(b"x") == b"1"

    run(main())


def test_one_that_is_alone_has_nobody_to_hand_over_to(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            for _ in range(2):
                assert isinstance(await error_of(cluster[0].transfer_leadership()), Rejected)
                assert await cluster[0].propose(b"x") is not None

    run(main())


def test_proposals_and_reads_go_on_through_transfers(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            stop = False
            done: list[bytes] = []

            async def write(node: Node, name: int) -> None:
                while not stop:
                    command = b"%d:%d" % (name, len(done))
                    await node.propose(command)
                    done.append(command)

            async def read(node: Node) -> None:
                while not stop:
                    before = list(done)
                    await node.barrier()
                    assert set(before) <= set(cluster.journal(node).commands)

            work = [asyncio.ensure_future(write(node, n)) for n, node in enumerate(cluster.live)]
            work += [asyncio.ensure_future(read(node)) for node in cluster.live]
            for _ in range(6):
                await (await cluster.leader()).transfer_leadership()
            stop = True
            await asyncio.gather(*work)
            await cluster.converge()
            assert sorted(cluster.journals[0].commands) == sorted(done)

    run(main())


def test_a_killed_leader_is_followed_by_another(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            await leader.propose(b"before")
            pending = asyncio.ensure_future(followers[0].propose(b"while there is none"))
            await kill(leader)
            assert await pending == b"2"
            other = await cluster.leader()
            assert other.status().term > 1
            for node in followers:
                await node.barrier()
                assert cluster.journal(node).commands == [b"before", b"while there is none"]

    run_on_both(main())


def test_a_leader_without_its_majority_steps_down(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS, patience=1.0) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            term = leader.status().term
            async with events_of(leader) as seen:
                for node in followers:
                    await kill(node)
                await cluster.until(lambda: bool(seen), "it steps down")
            assert [(event.kind, event.term) for event in seen] == [("role", term)]
            assert leader.status().role is not Role.LEADER
            assert leader.status().leader_id is None
            assert leader.status().term == term
            assert isinstance(await error_of(leader.transfer_leadership()), (Rejected, Dropped))
            assert isinstance(await error_of(leader.barrier()), NotLinearizable)

    run(main())


def test_closing_all_at_once_ends(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            futures = [node.submit(b"x") for node in cluster.live for _ in range(100)]
            await cluster.close()
            assert all(future.done() for future in futures)
            for future in futures:
                error = future.exception()
                assert error is None or isinstance(error, (NodeClosed, UnknownOutcome))

    run_on_both(main())


# ---------------------------------------------------------------------- status and events


def test_status_tells_what_is(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            await cluster[0].propose_many([b"%d" % n for n in range(100)])
            await cluster.converge()
            leader = await cluster.leader()
            await cluster.until(
                lambda: (
                    all(peer.match_index == leader.status().last_index for peer in leader.status().peers)
                    and all(node.status().durable_index == leader.status().last_index for node in cluster.live)
                    and all(node.status().pending == 0 for node in cluster.live)
                    and all(link.node_id for node in cluster.live for link in node.status().links)
                    and all(len(node.status().links) == 4 for node in cluster.live)
                ),
                "all of it is durable everywhere, and the leader knows",
            )
            for node in cluster.live:
                status = node.status()
                assert status.node_id == node.node_id
                assert status.shard_id == node.cluster.nodes[node.node_id].shard_id
                assert status.standing == "member"
                assert not status.learner
                assert (status.role is Role.LEADER) == (node is leader)
                assert status.leader_id == leader.node_id
                assert status.term == leader.status().term == 1
                assert status.cluster_id == leader.status().cluster_id is not None
                assert status.commit_index == status.last_applied == status.last_index == status.durable_index
                assert status.log_entries == status.last_index - status.boundary_index
                assert (status.log_bytes > 0) == (status.log_entries > 0)
                assert status.voters == set(node.cluster.nodes)
                assert status.pending == 0
                assert {peer.node_id for peer in status.peers} == status.voters - {node.node_id}
                assert all(peer.voter and peer.connected for peer in status.peers)
                for peer in status.peers:
                    if node is leader:
                        assert peer.match_index == status.last_index
                        assert peer.next_index == status.last_index + 1
                        assert peer.progress == "replicate"
                        assert 0 <= peer.silent_for < CONFIG.node_timeout
                    else:
                        assert (peer.match_index, peer.next_index, peer.progress) == (None, None, None)
                        assert (peer.silent_for is not None) == (peer.node_id == leader.node_id)
                assert sorted((link.node_id, link.outbound) for link in status.links) == sorted(
                    (peer.node_id, outbound) for peer in status.peers for outbound in (True, False)
                )
                assert all(link.writable and link.buffer_limit_bytes == 64 << 20 for link in status.links)
                assert status.caught_up_by == ("none" if node is cluster[0] else "log")
                assert status.counters["messages_out"] > 0
                assert status.counters["messages_in"] > 0

    run(main())


def test_a_status_is_of_one_moment(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            before = cluster[0].status()
            counters = dict(before.counters)
            await cluster[0].propose(b"x")
            assert before.standing == "singleton"
            assert before.last_index == 0
            assert before.counters == counters
            assert before != cluster[0].status()

    run(main())


def test_events_of_a_joining_node_in_their_order(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].propose(b"x")
            (node,) = await cluster.start(1)
            async with events_of(node) as at_node, events_of(cluster[0]) as at_host:
                await meet(cluster[0], node)
                await cluster.until(lambda: any(e.kind == "voter-added" for e in at_node), "it votes")
            mine = [event.kind for event in at_node if event.node_id == node.node_id]
            assert mine.index("joined") < mine.index("voter-added")
            assert [e.kind for e in at_host if e.node_id == node.node_id] == ["member-joined", "voter-added"]
            assert all(isinstance(event, Event) and event.index > 0 for event in at_host)

    run(main())


def test_many_may_listen_and_one_that_falls_behind_holds_up_nobody(run, tmp_path: Path) -> None:
    """It misses the oldest events, and a close still comes through."""

    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            slow = node.events()
            first = asyncio.ensure_future(anext(slow))
            await asyncio.sleep(0)
            for number in range(3 * _EVENTS_KEPT):
                node._subscribers.tell(Event("leader", 1, number))
            assert (await first).index == 3 * _EVENTS_KEPT - _EVENTS_KEPT
            await node.close()
            rest = [event.index async for event in slow]
            assert rest[-1] == 3 * _EVENTS_KEPT - 1
            assert len(rest) == _EVENTS_KEPT - 1  # one made room for the end
            assert [event async for event in node.events()] == []

    run(main())


@pytest.mark.parametrize("pace", [0, 1, 5])
def test_a_listener_that_leaves_is_forgotten(run, tmp_path: Path, pace: int) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            for _ in range(10):
                async with events_of(cluster[0]):
                    for _ in range(pace):
                        await asyncio.sleep(0)
            assert not cluster[0]._subscribers

    run(main())
