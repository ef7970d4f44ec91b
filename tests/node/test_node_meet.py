"""MEET as its caller sees it: what comes together, in whatever order, and what is refused with which words."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from pathlib import Path

import pytest
from node_cluster import CONFIG, ELECTIONS, HOST, Cluster, cluster_of, error_of, meet

from raftfast import ConfigError, MeetError, Node

SHAPES = {
    "star": [(0, n) for n in range(1, 5)],
    "reverse star": [(n, 0) for n in range(1, 5)],
    "chain": [(n, n + 1) for n in range(4)],
    "reverse chain": [(n + 1, n) for n in range(4)],
    "chain, far end first": [(n, n + 1) for n in (3, 2, 1, 0)],
}


def members_of(node: Node) -> set[str]:
    return set(node.cluster.nodes)


async def all_one(cluster: Cluster, count: int) -> None:
    """Waits until all live nodes are voters of one cluster of `count`."""
    await cluster.until(
        lambda: (
            len(cluster.live) == count
            and cluster.voters_agreed(count)
            and all(len(node.cluster.nodes) == count for node in cluster.live)
        ),
        f"one cluster of {count}",
    )
    assert len({node.status().cluster_id for node in cluster.live}) == 1


@pytest.mark.parametrize("shape", ["star", "chain"])
def test_five_nodes_that_meet_one_after_another_become_one_cluster(run_on_both, tmp_path: Path, shape: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            await cluster.start(*range(5))
            for one, other in SHAPES[shape]:
                await meet(cluster[one], cluster[other])
            await all_one(cluster, 5)
            assert await cluster[4].propose(b"x") == b"1"
            await cluster.converge()

    run_on_both(main())


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_five_nodes_that_meet_all_at_once_become_one_cluster(run, tmp_path: Path, shape: str) -> None:
    """Two may have become clusters before they are linked; then that MEET says so. None is left half-way."""

    async def main() -> None:
        async with cluster_of(tmp_path, 0, node_timeout=ELECTIONS) as cluster:
            await cluster.start(*range(5))
            errors = await asyncio.gather(
                *(error_of(meet(cluster[one], cluster[other])) for one, other in SHAPES[shape])
            )
            assert all(error is None or isinstance(error, MeetError) for error in errors), errors
            await cluster.until(
                lambda: all(node.status().standing in ("member", "singleton") for node in cluster.live), "all settled"
            )
            if "star" in shape:
                await all_one(cluster, 5)

    run(main())


def test_a_meet_of_a_known_node_is_a_success_at_once(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for one, other in itertools.permutations(cluster.nodes.values(), 2):
                await meet(one, other)
            assert all(len(members_of(node)) == 3 for node in cluster.live)

    run(main())


def test_crossing_meets_make_one_cluster(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            first, second = await cluster.start(0, 1)
            errors = await asyncio.gather(error_of(meet(first, second)), error_of(meet(second, first)))
            assert errors == [None, None]
            await all_one(cluster, 2)

    run_on_both(main())


def test_the_same_meet_many_times_at_once_is_one(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            first, second = await cluster.start(0, 1)
            errors = await asyncio.gather(*(error_of(meet(first, second)) for _ in range(10)))
            assert errors == [None] * 10
            await all_one(cluster, 2)

    run(main())


def test_a_node_that_meets_a_cluster_is_added_by_it(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            (newcomer,) = await cluster.start(2)
            await meet(newcomer, cluster[1])
            await all_one(cluster, 3)
            assert newcomer.status().caught_up_by in ("log", "snapshot")

    run(main())


def test_two_clusters_are_not_merged(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            one, other = await cluster.start(5, 6)
            await meet(one, other)
            await cluster.until(lambda: other.status().standing == "member", "a second cluster")
            for asker, asked in ((cluster[0], one), (other, cluster[1])):
                error = await error_of(meet(asker, asked))
                assert isinstance(error, MeetError)
                assert str(error) == "Cannot merge two existing clusters"
                assert not error.may_take_effect
            assert members_of(cluster[0]) == {cluster[0].node_id, cluster[1].node_id}
            assert members_of(one) == {one.node_id, other.node_id}

    run(main())


def test_a_cluster_of_one_that_took_commands_is_a_cluster(run, tmp_path: Path) -> None:
    """What it acknowledged would be lost if it stepped down."""

    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            one, other, third = await cluster.start(0, 1, 2)
            await one.propose(b"mine")
            await other.propose(b"mine too")
            assert str(await error_of(meet(one, other))) == "Cannot merge two existing clusters"
            await meet(one, third)
            await cluster.until(lambda: third.status().standing == "member", "a member")
            await third.barrier()
            assert cluster.journals[2].commands == [b"mine"]

    run(main())


def test_a_node_does_not_meet_itself(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            (node,) = await cluster.start(0)
            error = await error_of(meet(node, node))
            assert isinstance(error, MeetError)
            assert "itself" in str(error)
            assert node.status().standing == "singleton"
            assert await node.propose(b"x") == b"1"

    run(main())


def test_nobody_there_is_a_clear_error(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            (node,) = await cluster.start(0)
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                dead = probe.getsockname()[1]  # bound, and nobody listens
                error = await error_of(node.meet(HOST, 7001, dead))
            assert isinstance(error, MeetError)
            assert "connect" in str(error)
            error = await error_of(node.meet("no such host.invalid", 7001))
            assert isinstance(error, MeetError)
            assert node.status().standing == "singleton"

    run(main())


def test_somebody_who_does_not_answer_is_given_up(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0, node_timeout=0.1) as cluster:
            (node,) = await cluster.start(0)
            with socket.socket() as deaf:
                deaf.bind((HOST, 0))
                deaf.listen()
                assert isinstance(await error_of(node.meet(HOST, 7001, deaf.getsockname()[1])), MeetError)
            assert node.status().standing == "singleton"

    run(main())


def test_somebody_who_speaks_otherwise_is_given_up(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"-ERR unknown command\r\n" * 10)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, HOST, 0)
        async with cluster_of(tmp_path, 0) as cluster:
            (node,) = await cluster.start(0)
            error = await error_of(node.meet(HOST, 7001, server.sockets[0].getsockname()[1]))
            assert isinstance(error, MeetError)
            assert node.status().standing == "singleton"
        server.close()
        await server.wait_closed()

    run_on_both(main())


@pytest.mark.parametrize("ports", [(-1, None), (70000, None), (60000, None), (7001, 0), (7001, 70000), (True, None)])
def test_ports_that_cannot_be_are_refused(run, tmp_path: Path, ports: tuple[int, int | None]) -> None:
    async def main() -> None:
        async with Node(tmp_path / "n", bus_port=0, config=CONFIG) as node:
            assert isinstance(await error_of(node.meet(HOST, *ports)), ConfigError)

    run(main())


def test_a_meet_whose_caller_gave_up_still_joins(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0) as cluster:
            first, second = await cluster.start(0, 1)
            task = asyncio.ensure_future(meet(first, second))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await all_one(cluster, 2)

    run(main())


def test_commands_proposed_while_joining_wait_until_it_is_a_member(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            await cluster[0].propose(b"before")
            (newcomer,) = await cluster.start(2)
            asking = asyncio.ensure_future(meet(newcomer, cluster[0]))
            await cluster.until(lambda: newcomer.status().standing != "singleton", "a joiner")
            answer = await newcomer.propose(b"from the joiner")
            assert answer == b"2"
            await newcomer.barrier()
            assert cluster.journals[2].commands == [b"before", b"from the joiner"]
            await asking

    run(main())


def test_random_meets_always_end_and_leave_nobody_between(run, tmp_path: Path, rng: random.Random) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0, node_timeout=ELECTIONS) as cluster:
            await cluster.start(*range(5))
            pairs = [(rng.randrange(5), rng.randrange(5)) for _ in range(10)]
            errors = await asyncio.gather(*(error_of(meet(cluster[a], cluster[b])) for a, b in pairs))
            assert all(error is None or isinstance(error, MeetError) for error in errors), errors
            await cluster.until(lambda: all(n.status().standing != "joiner" for n in cluster.live), "nobody joins")
            by_cluster: dict[str, set[str]] = {}
            for node in cluster.live:
                if node.status().standing == "member":
                    by_cluster.setdefault(node.status().cluster_id or "", set()).add(node.node_id)
            for node in cluster.live:
                if node.status().standing == "member":
                    mine = by_cluster[node.status().cluster_id or ""]
                    await cluster.until(lambda node=node, mine=mine: members_of(node) >= mine, "all of its cluster")

    run(main())
