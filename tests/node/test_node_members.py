"""Slots, forgetting, voters and names, as the calls of a node give them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from node_cluster import CONFIG, ELECTIONS, HOST, cluster_of, error_of, events_of, kill, meet, until_added

from raftfast import ConfigError, Conflict, Event, Node, NotLinearizable, Rejected
from raftfast.messages import Role

SLOTS = 16384
NOBODY = "f" * 40


# ---------------------------------------------------------------------- slots


def test_slots_are_taken_given_back_and_taken_by_another(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            one, other, third = cluster.nodes.values()
            await one.add_slots(range(8000))
            await other.add_slots(range(8000, SLOTS))
            await third.barrier()
            assert third.cluster.slots_of(one.node_id) == ((0, 7999),)
            assert third.cluster.slots_of(other.node_id) == ((8000, 16383),)
            assert third.cluster.covered()
            await third.del_slots([0, 7999, 8000, 16383])  # of two owners, asked of a third node
            await one.barrier()
            assert one.cluster.slots_of(one.node_id) == ((1, 7998),)
            assert one.cluster.slots_of(other.node_id) == ((8001, 16382),)
            assert not one.cluster.covered()
            await third.add_slots([0, 16383])
            await cluster.converge()
            assert one.cluster.slots_of(third.node_id) == ((0, 0), (16383, 16383))

    run(main())


@pytest.mark.parametrize("alone", [True, False])
def test_slots_that_cannot_be_had_are_refused_and_nothing_is_changed(run, tmp_path: Path, alone: bool) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0 if alone else 2) as cluster:
            if alone:
                await cluster.start(0)
            node = cluster[0]
            await node.add_slots([5])
            for wrong in ([-1], [SLOTS], [True], ["1"], [1.0], [1, 1], [3, 2, 3]):
                assert isinstance(await error_of(node.add_slots(wrong)), ConfigError), wrong
                assert isinstance(await error_of(node.del_slots(wrong)), ConfigError), wrong
            error = await error_of(node.del_slots([5, 6]))
            assert isinstance(error, Rejected)
            assert "6" in str(error)
            assert "unassigned" in str(error)
            if not alone:
                await cluster[1].barrier()
                error = await error_of(cluster[1].add_slots([4, 5]))
                assert isinstance(error, Rejected)
                assert "5" in str(error)
                assert "busy" in str(error)
                await node.barrier()
            assert node.cluster.slots_of(node.node_id) == ((5, 5),)
            assert node.cluster.assigned() == 1
            await node.add_slots([])
            await node.del_slots([])
            await node.add_slots([5, 6])  # its own are no error: they are its already
            assert node.cluster.slots_of(node.node_id) == ((5, 6),)

    run(main())


def test_two_that_want_one_slot_at_once_do_not_both_get_it(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for slot in range(10):
                errors = await asyncio.gather(*(error_of(node.add_slots([slot])) for node in cluster.live))
                assert sum(error is None for error in errors) == 1, errors
                assert all(isinstance(error, Rejected) and not error.may_take_effect for error in errors if error)
            await cluster.converge()
            assert cluster[0].cluster.assigned() == 10

    run(main())


def test_slots_of_a_singleton_are_stored_at_once_and_go_into_its_cluster(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            one, other = await cluster.start(0, 1)
            await one.add_slots(range(10))
            await one.del_slots([3])
            assert one.status().standing == "singleton"
            assert one.status().last_index == 0
            await meet(one, other)
            await cluster.until(lambda: one.node_id in other.cluster.nodes, "the other knows it")
            assert other.cluster.slots_of(one.node_id) == ((0, 2), (4, 9))

    run(main())


# ---------------------------------------------------------------------- forgetting


@pytest.mark.parametrize("asked", ["leader", "follower"])
def test_a_voter_that_is_forgotten_is_taken_out_learns_it_and_refuses(run, tmp_path: Path, asked: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 4) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            gone, stays = followers[0], followers[1]
            async with events_of(leader) as at_leader, events_of(gone) as at_gone:
                await (leader if asked == "leader" else stays).forget(gone.node_id)
                await cluster.until(lambda: any(e.kind == "removed" for e in at_gone), "it learns of it")
                await cluster.until(lambda: any(e.kind == "member-forgotten" for e in at_leader), "so does the leader")
            assert gone.status().standing == "removed"
            assert gone.node_id not in leader.cluster.nodes
            assert leader.cluster.size == 3
            assert [e.kind for e in at_leader if e.node_id == gone.node_id] == ["voter-removed", "member-forgotten"]
            assert [e.kind for e in at_gone if e.kind == "removed"] == ["removed"]
            for call in (gone.propose(b"x"), gone.add_slots([1]), gone.forget(leader.node_id), gone.set_hostname("h")):
                error = await error_of(call)
                assert isinstance(error, Rejected), error
                assert "forgotten" in str(error)
            assert await error_of(meet(gone, leader)) is not None
            assert await error_of(gone.transfer_leadership()) is not None
            assert gone.status().learner
            assert await leader.propose(b"on") == b"1"
            number = cluster.number_of(gone)
            await gone.close()
            # And after a restart it still knows. Nobody answers its reads: they take all of its patience.
            (gone,) = await cluster.start(number, config=replace(cluster.config, patience=0.5))
            assert gone.status().standing == "removed"
            assert isinstance(await error_of(gone.propose(b"x")), Rejected)
            assert isinstance(await error_of(gone.barrier()), NotLinearizable)

    run(main())


def test_a_forgotten_node_that_was_down_hears_of_it_when_it_comes_back(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 4) as cluster:
            leader, gone = await cluster.leader(), (await cluster.followers())[0]
            number = cluster.number_of(gone)
            await kill(gone)
            await leader.forget(gone.node_id)
            (again,) = await cluster.start(number)
            await cluster.until(lambda: again.status().standing == "removed", "it hears of it")
            assert again.node_id not in leader.cluster.nodes

    run(main())


def test_forgetting_the_leader_hands_over_first(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            await followers[0].propose(b"before")
            await followers[0].forget(leader.node_id)
            assert leader.node_id not in followers[0].cluster.nodes
            await cluster.until(lambda: leader.status().standing == "removed", "it learns of it")
            assert await followers[0].propose(b"after") == b"2"
            assert followers[0].cluster.size == 2

    run(main())


def test_forgetting_everywhere_is_a_success_everywhere(run, tmp_path: Path) -> None:
    """Tools send it to every node: where it is forgotten already it is one too."""

    async def main() -> None:
        async with cluster_of(tmp_path, 4) as cluster:
            gone = (await cluster.followers())[0]
            others = [node for node in cluster.live if node is not gone]
            assert await asyncio.gather(*(error_of(node.forget(gone.node_id)) for node in others)) == [None] * 3
            for node in others:
                assert await error_of(node.forget(gone.node_id)) is None
                assert await error_of(node.forget(NOBODY)) is None

    run(main())


def test_what_cannot_be_forgotten_is_refused_and_keeps_its_vote(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            node, other = cluster[0], cluster[1]
            assert isinstance(await error_of(node.forget(node.node_id)), Rejected)
            await other.add_slots([1])
            await node.barrier()
            for asked in cluster.live:
                if asked is not other:
                    error = await error_of(asked.forget(other.node_id))
                    assert isinstance(error, Rejected), error
                    assert not isinstance(error, Conflict)
            assert node.cluster.size == 3
            await other.del_slots([1])
            await node.barrier()
            assert await error_of(node.forget(other.node_id)) is None

    run(main())


def test_a_forgotten_node_that_was_wiped_joins_again_under_a_new_id(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, gone = await cluster.leader(), (await cluster.followers())[0]
            await leader.forget(gone.node_id)
            await gone.close()
            newcomer = await cluster.join(7)
            await cluster.until(lambda: newcomer.cluster.size == 3, "it votes")
            assert gone.node_id not in newcomer.cluster.nodes

    run(main())


# ---------------------------------------------------------------------- voters


def test_voters_are_taken_out_and_brought_back_by_hand(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, max_voters=1) as cluster:
            leader = cluster[0]
            for number in (1, 2):
                (node,) = await cluster.start(number)
                await meet(leader, node)
                await cluster.until(lambda node=node: node.status().standing == "member", "a learner")
            learners = [cluster[1], cluster[2]]
            await leader.barrier()
            assert leader.cluster.size == 1
            assert all(node.status().learner for node in learners)
            async with events_of(leader) as seen:
                await until_added(leader, learners[0].node_id)
                await until_added(learners[0], learners[1].node_id)
                assert leader.cluster.size == 3
                await learners[1].del_voter(learners[0].node_id)
                await learners[1].del_voter(learners[0].node_id)  # it is a learner already: a success
                await leader.barrier()
                assert leader.cluster.voters() == {leader.node_id, learners[1].node_id}
                assert leader.status().voters == leader.cluster.voters()
            kinds = [(event.kind, event.node_id) for event in seen if event.kind.startswith("voter")]
            assert kinds == [
                ("voter-added", learners[0].node_id),
                ("voter-added", learners[1].node_id),
                ("voter-removed", learners[0].node_id),
            ]

    run(main())


def test_voter_changes_that_cannot_be_are_refused(run, tmp_path: Path) -> None:
    async def main() -> None:
        # By hand above `max_voters`: else the leader would promote again what is made a learner here.
        async with cluster_of(tmp_path, 1, max_voters=1) as cluster:
            leader, (follower,) = cluster[0], await cluster.start(1)
            await meet(leader, follower)
            await cluster.until(lambda: follower.status().standing == "member", "a learner")
            await until_added(leader, follower.node_id)
            for node in (leader, follower):
                assert isinstance(await error_of(node.add_voter(NOBODY)), Rejected)
                assert await error_of(node.del_voter(NOBODY)) is None  # it has no vote
                assert await error_of(node.add_voter(follower.node_id)) is None  # it is one
            await leader.del_voter(follower.node_id)
            for node in (leader, follower):
                assert isinstance(await error_of(node.del_voter(leader.node_id)), Rejected)
            assert leader.status().voters == {leader.node_id}

    run(main())


def test_a_leader_that_is_made_a_learner_hands_over_first(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2, max_voters=2) as cluster:
            (learner,) = await cluster.start(2)
            await meet(cluster[0], learner)
            await cluster.until(lambda: learner.status().standing == "member", "a learner")
            leader = next(node for node in cluster.live if node.status().role is Role.LEADER)
            await learner.del_voter(leader.node_id)
            await cluster.until(lambda: leader.status().role is Role.FOLLOWER, "it handed over")
            await learner.propose(b"x")
            assert leader.status().role is not Role.LEADER

    run(main())


def test_a_learner_that_caught_up_replaces_a_voter_that_is_gone(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS, replace_after=1.5, max_voters=3) as cluster:
            (spare,) = await cluster.start(3)
            await meet(cluster[0], spare)
            await cluster.until(lambda: spare.status().standing == "member", "a learner")
            dead = next(node for node in await cluster.followers() if node is not spare)
            async with events_of(spare) as seen:
                await kill(dead)
                await cluster.until(
                    lambda: spare.cluster.voters() == {node.node_id for node in cluster.live}, "the spare votes"
                )
                gone = ("voter-removed", dead.node_id)
                await cluster.until(lambda: gone in [(e.kind, e.node_id) for e in seen], "and the dead one does not")
            events = [(event.kind, event.node_id) for event in seen]
            assert ("node-failed", dead.node_id) in events
            assert events.index(("voter-added", spare.node_id)) < events.index(gone)

    run(main())


def test_a_node_that_is_down_is_marked_failed_and_recovers_when_it_is_back(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS) as cluster:
            leader, down = await cluster.leader(), (await cluster.followers())[0]
            number = cluster.number_of(down)
            async with events_of(leader) as seen:

                def told() -> list[str]:
                    return [event.kind for event in seen if event.kind.startswith("node-") and mine(event)]

                def mine(event: Event) -> bool:
                    return event.node_id == down.node_id

                await kill(down)
                await cluster.until(lambda: leader.cluster.nodes[down.node_id].failed, "it is marked")
                await cluster.start(number)
                await cluster.until(lambda: not leader.cluster.nodes[down.node_id].failed, "it recovers")
                await cluster.until(lambda: "node-recovered" in told(), "its event")
                assert told()[:2] == ["node-failed", "node-recovered"]

    run(main())


def test_a_leader_full_of_pending_proposals_still_marks_and_replaces(run, tmp_path: Path) -> None:
    """What it proposes by itself has room whatever its callers fill."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS, max_pending=1) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            await leader.propose(b"first")
            full = asyncio.ensure_future(leader.propose_many([b"%d" % n for n in range(300)]))
            await kill(followers[0])
            await cluster.until(lambda: leader.cluster.nodes[followers[0].node_id].failed, "it is marked")
            assert len(await full) == 300

    run(main())


# ---------------------------------------------------------------------- names


def test_a_host_name_is_seen_by_all(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            node = (await cluster.followers())[0]
            await node.set_hostname("node.example.com")
            await cluster.converge()
            for each in cluster.live:
                assert each.cluster.nodes[node.node_id].address.hostname == "node.example.com"
            await node.set_hostname("node.example.com")
            number = cluster.number_of(node)
            await node.close()
            await cluster.start(number)
            await cluster.leader()
            assert cluster[number].cluster.nodes[node.node_id].address.hostname == "node.example.com"
            await cluster[number].set_hostname("")
            await cluster.converge()
            assert cluster[0].cluster.nodes[node.node_id].address.hostname == ""

    run(main())


@pytest.mark.parametrize("name", ["a" * 256, "with space", "under_score", "comma,", "new\nline", "ümlaut", "a:1"])
def test_a_host_name_that_cannot_be_is_refused(run, tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with Node(tmp_path / "n", bus_port=0, config=CONFIG) as node:
            await node.set_hostname("good.name-1")
            assert isinstance(await error_of(node.set_hostname(name)), ConfigError)
            assert node.cluster.nodes[node.node_id].address.hostname == "good.name-1"

    run(main())


def test_what_a_node_announces_may_differ_from_what_it_binds(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            one, other = await cluster.start(0, 1)
            await one.close()
            one = cluster.make(0, announce_ip="localhost", announce_port=6000, announce_bus_port=cluster[0].bus_port)
            await one.start()
            await meet(one, other)
            await cluster.until(lambda: one.node_id in other.cluster.nodes, "they met")
            address = other.cluster.nodes[one.node_id].address
            assert (address.ip, address.port, address.cport) == ("localhost", 6000, one.bus_port)
            await other.propose(b"x")

    run(main())


def test_a_node_bound_to_everything_learns_its_address_from_its_links(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            one, other = await cluster.start(0, 1, host="0.0.0.0")
            await meet(one, other)
            await cluster.until(lambda: cluster.voters_agreed(2), "they met")
            await cluster.until(
                lambda: all(n.cluster.nodes[m.node_id].address.ip == HOST for n in (one, other) for m in (one, other)),
                "both addresses are known",
            )
            await other.propose(b"x")
            await cluster.converge()

    run(main())
