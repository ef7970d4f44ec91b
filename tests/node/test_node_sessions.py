"""Sessions: a command is applied exactly once, whatever happens to leaders, links and processes meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from node_cluster import ELECTIONS, PATIENCE, cluster_of, error_of, kill

from raftfast import Busy, Dropped, Node, NodeClosed, ProposalTimeout, UnknownOutcome


def test_a_session_proposes_from_any_member(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for number, node in cluster.nodes.items():
                async with node.session() as session:
                    assert await session.propose(b"a") == b"%d" % (3 * number + 1)
                    assert await session.propose_many([b"b", b"c"]) == [b"%d" % (3 * number + n) for n in (2, 3)]
                    assert await session.propose_many([]) == []

    run_on_both(main())


def test_a_leader_that_is_killed_loses_and_doubles_nothing(run, tmp_path: Path) -> None:
    """Commands of sessions on a follower go on through the death of the leader: each is in every state once."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS) as cluster:
            leader = await cluster.leader()
            proposers = await cluster.followers()
            done = 0

            async def work(node: Node, name: bytes) -> None:
                nonlocal done
                async with node.session() as session:
                    for n in range(150):
                        answer = await session.propose(b"%b:%d" % (name, n))
                        assert answer is not None
                        done += 1

            workers = [asyncio.ensure_future(work(node, b"%d" % n)) for n, node in enumerate(proposers * 2)]
            await cluster.until(lambda: done >= 50, "the sessions are at work")
            await kill(leader)
            await asyncio.gather(*workers)
            await cluster.converge()
            for node in proposers:
                commands = cluster.journal(node).commands
                assert len(commands) == len(set(commands)) == 600
                for worker in range(4):
                    mine = [command for command in commands if command.startswith(b"%d:" % worker)]
                    assert mine == [b"%d:%d" % (worker, n) for n in range(150)]

    run(main())


def test_plain_commands_too_are_applied_once_through_a_leader_change(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            follower = (await cluster.followers())[0]
            for round_number in range(3):
                many = asyncio.ensure_future(follower.propose_many([b"%d.%d" % (round_number, n) for n in range(400)]))
                await leader.transfer_leadership()
                assert len(await many) == 400
                leader = await cluster.leader()
            await cluster.converge()
            commands = cluster.journal(follower).commands
            assert commands == [b"%d.%d" % (round_number, n) for round_number in range(3) for n in range(400)]

    run(main())


def test_a_session_outlives_a_restart_of_all_others(run, tmp_path: Path) -> None:
    """Its table is in the files of all: a repeated command is known to nodes that were started anew."""

    async def main() -> None:
        # A leader that has just started drops what members send whom it has not applied: sent again after 3 T.
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS, patience=3 * ELECTIONS) as cluster:
            client = 2
            async with cluster[client].session() as session:
                assert await session.propose(b"before") == b"1"
                for number in (0, 1):
                    await cluster.kill(number)
                waiting = asyncio.ensure_future(session.propose(b"meanwhile"))
                await asyncio.sleep(0)
                await cluster.start(0, 1)
                assert await waiting == b"2"
                assert await session.propose(b"after") == b"3"
            await cluster.converge()
            assert cluster.journals[0].commands == [b"before", b"meanwhile", b"after"]

    run(main())


def test_without_a_majority_a_session_goes_on_asking_until_there_is_one(run, tmp_path: Path) -> None:
    """An expired or dropped command is sent again under its number: longer than a proposal lives is not too long."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS, patience=1.0) as cluster:
            node = await cluster.leader()
            others = [cluster.number_of(other) for other in await cluster.followers()]
            async with node.session() as session:
                await session.propose(b"before")
                for number in others:
                    await cluster.kill(number)
                waiting = asyncio.ensure_future(session.propose(b"patient"))
                expired = asyncio.ensure_future(error_of(node.propose(b"plain")))
                await cluster.until(expired.done, "a plain command expires")
                assert isinstance(expired.result(), (UnknownOutcome, Dropped))
                assert not waiting.done()
                await cluster.start(*others)
                assert await waiting is not None
            await cluster.converge()
            assert cluster.journal(node).commands.count(b"patient") == 1

    run(main())


def test_a_full_window_is_busy(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, session_window=3) as cluster, cluster[0].session() as session:
            calls = [asyncio.ensure_future(session.propose(b"%d" % n)) for n in range(5)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results[:3] == [b"1", b"2", b"3"]
            assert all(isinstance(error, Busy) and not error.may_take_effect for error in results[3:])
            assert await session.propose(b"room again") == b"4"

    run(main())


def test_propose_many_of_a_session_takes_more_than_its_window(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, session_window=3) as cluster, cluster[0].session() as session:
            assert await session.propose_many([b"%d" % n for n in range(10)]) == [b"%d" % n for n in range(1, 11)]

    run(main())


def test_commands_given_up_before_they_were_sent_leave_the_window_free(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, session_window=3) as cluster, cluster[0].session() as session:
            for timeout in (0, -1):
                error = await error_of(session.propose_many([b"given up"] * 3, timeout=timeout))
                assert isinstance(error, TimeoutError)
            results = await asyncio.wait_for(session.propose_many([b"x"] * 4), PATIENCE)
            assert cluster.journals[0].commands[-4:] == [b"x"] * 4
            assert results[-1] == b"%d" % len(cluster.journals[0].commands)
            assert await session.propose(b"y")

    run_on_both(main())


def test_errors_of_commands_that_were_given_up_are_no_noise(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, session_window=3) as cluster, cluster[0].session() as session:
            decide, decided = session._decide, []

            async def all_but_the_first(sequence: int, *rest) -> bytes | None:
                if sequence > 1:
                    decided.append(sequence)
                    raise UnknownOutcome("lost")
                return await asyncio.get_running_loop().create_future()

            session._decide = all_but_the_first
            calls = asyncio.ensure_future(session.propose_many([b"x"] * 9))
            while decided != [2, 3]:  # and the fourth has no room beside the first
                await asyncio.sleep(0)
            calls.cancel()
            await asyncio.wait([calls])
            session._decide = decide
            assert await session.propose(b"y", wait=True) == b"1"

    run(main())


def test_a_session_that_lost_its_place_says_that_the_outcome_is_unknown(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, max_sessions=2) as cluster:
            node = cluster[0]
            async with node.session() as first, node.session() as second, node.session() as third:
                assert isinstance(await error_of(first.propose(b"x")), UnknownOutcome)
                assert await second.propose(b"x") == b"1"
                assert await third.propose(b"x") == b"2"

    run(main())


def test_a_timeout_of_a_session_raises_and_the_session_goes_on(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            node = await cluster.leader()
            others = [cluster.number_of(other) for other in await cluster.followers()]
            async with node.session() as session:
                await session.propose(b"before")
                for number in others:
                    await cluster.kill(number)
                with pytest.raises(ProposalTimeout):
                    await session.propose(b"timed out", timeout=0.01)
                await cluster.start(*others)
                await session.propose(b"after")
            assert cluster.journal(node).commands == [b"before", b"timed out", b"after"]

    run(main())


def test_a_close_ends_the_waiting_of_a_session(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            async with leader.session() as session:
                for other in await cluster.followers():
                    await kill(other)
                waiting = asyncio.ensure_future(session.propose(b"x"))
                await asyncio.sleep(0)
                await leader.close()
                error = await error_of(waiting)
                assert isinstance(error, NodeClosed)
                assert error.may_take_effect
                assert isinstance(await error_of(session.propose(b"y")), NodeClosed)

    run(main())


def test_a_command_of_a_session_is_bytes(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster, cluster[0].session() as session:
            for wrong in ("text", bytearray(b"x"), None):
                assert isinstance(await error_of(session.propose(wrong)), TypeError)  # type: ignore[arg-type]
                assert isinstance(await error_of(session.propose_many([b"good", wrong])), TypeError)
            assert await session.propose(b"right") == b"1"

    run(main())
