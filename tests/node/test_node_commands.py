"""Commands as a user proposes them: from any member, in order, with time limits and room, and the reads after them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from node_cluster import CONFIG, ELECTIONS, HOST, PATIENCE, Cluster, Journal, cluster_of, error_of, kill, running

from raftfast import (
    Busy,
    Config,
    ConfigError,
    Dropped,
    EntryError,
    Expired,
    Node,
    NodeClosed,
    NotLinearizable,
    ProposalTimeout,
    Rejected,
)

LONGEST_ENTRY = 8 << 20


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"c%d" % number for number in range(start, start + count)]


def answers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start + 1, start + count + 1)]


def test_a_node_alone_takes_commands(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal()
        async with Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG) as node:
            assert node.status().standing == "singleton"
            assert await node.propose(b"one") == b"1"
            assert await node.propose(b"none") is None
            await node.barrier()
            assert journal.commands == [b"one", b"none"]
            assert node.status().standing == "member"
            assert node.status().voters == {node.node_id}

    run_on_both(main())


def test_any_member_takes_commands_and_reads_them_after_a_barrier(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for turn, proposer in enumerate(cluster.nodes.values(), 1):
                assert await proposer.propose(b"c%d" % turn) == b"%d" % turn
                for reader in cluster.nodes.values():
                    await reader.barrier()
                    assert cluster.journal(reader).commands == numbered(turn, 1)
            await cluster.converge()
            for journal in cluster.journals.values():
                assert journal.applied == cluster.journals[0].applied
                assert [index for index, _ in journal.applied] == sorted({index for index, _ in journal.applied})

    run_on_both(main())


@pytest.mark.parametrize("bytes_of_command", [b"", b"\n", b"\\", b"\\n", b"\r\n \x00\xff", bytes(range(256)) * 40])
def test_a_command_is_any_bytes(run, tmp_path: Path, bytes_of_command: bytes) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            for node in cluster.nodes.values():
                await node.propose(bytes_of_command)
            await cluster.converge()
            assert [journal.commands for journal in cluster.journals.values()] == [[bytes_of_command] * 2] * 2

    run(main())


def test_many_commands_keep_their_order_from_each_member(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            done = 0
            for node in cluster.nodes.values():
                assert await node.propose_many(numbered(2000, done)) == answers(2000, done)
                done += 2000
            assert await cluster[0].propose_many([]) == []
            await cluster.converge()
            assert cluster.journals[1].commands == numbered(done)

    run_on_both(main())


def test_proposers_side_by_side_each_keep_their_order(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            names = [b"%d:%d" % (number, n) for number in range(3) for n in range(500)]
            parts = [names[:500], names[500:1000], names[1000:]]
            results = await asyncio.gather(*(cluster[n].propose_many(parts[n]) for n in range(3)))
            assert sorted(int(answer or 0) for part in results for answer in part) == list(range(1, 1501))
            await cluster.converge()
            commands = cluster.journals[0].commands
            for number, part in enumerate(parts):
                assert [command for command in commands if command.startswith(b"%d:" % number)] == part

    run(main())


def test_order_holds_across_more_clients_than_one(run, tmp_path: Path) -> None:
    """A window of four commands: the node opens more sessions for what is outstanding beside it."""

    async def main() -> None:
        async with cluster_of(tmp_path, 2, session_window=4) as cluster:
            follower = (await cluster.followers())[0]
            assert await follower.propose_many(numbered(50)) == answers(50)

    run(main())


# ---------------------------------------------------------------------- room


def test_beyond_max_pending_a_proposal_is_busy_and_nothing_of_it_is_sent(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, max_pending=4) as cluster:
            node = cluster[0]
            await node.propose(b"first")  # opens what commands are proposed under
            futures = [node.submit(command) for command in numbered(4)]
            with pytest.raises(Busy) as caught:
                node.submit(b"too much")
            assert not caught.value.may_take_effect
            assert isinstance(await error_of(node.propose(b"too much")), Busy)
            assert await node.propose(b"waited", wait=True) == b"6"
            assert [await future for future in futures] == answers(4, 1)
            assert b"too much" not in cluster.journals[0].commands

    run(main())


def test_max_pending_bytes_holds_but_lets_one_long_command_through(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1, max_pending_bytes=1000) as cluster:
            node = cluster[0]
            await node.propose(b"x" * 5000)
            held = node.submit(b"y" * 600)
            with pytest.raises(Busy):
                node.submit(b"z" * 600)
            waiting = asyncio.ensure_future(node.propose(b"z" * 600, wait=True))
            assert await held == b"2"
            assert await waiting == b"3"

    run(main())


def test_propose_many_waits_for_room(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2, max_pending=3) as cluster:
            for number, node in cluster.nodes.items():
                assert await node.propose_many(numbered(40, 40 * number)) == answers(40, 40 * number)

    run(main())


def test_who_waits_for_room_hears_of_the_close(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, max_pending=2) as cluster:
            leader = await cluster.leader()
            await leader.propose(b"first")
            for follower in await cluster.followers():
                await kill(follower)
            held = [leader.submit(command) for command in numbered(2)]
            waiting = asyncio.ensure_future(leader.propose(b"waits", wait=True))
            many = asyncio.ensure_future(leader.propose_many([b"waits"]))
            await asyncio.sleep(0)
            await leader.close()
            for future in (waiting, many):
                error = await error_of(future)
                assert isinstance(error, NodeClosed)
                assert not error.may_take_effect
            for future in held:
                error = await error_of(future)
                assert isinstance(error, NodeClosed)
                assert error.may_take_effect

    run(main())


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("command", ["text", bytearray(b"x"), memoryview(b"x"), None, 7])
def test_a_command_that_is_not_bytes_is_a_type_error(run, tmp_path: Path, command: object) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            with pytest.raises(TypeError, match="bytes"):
                node.submit(command)  # type: ignore[arg-type]
            assert isinstance(await error_of(node.propose_many([b"good", command])), TypeError)
            assert await node.propose(b"after") == b"1"
            assert cluster.journals[0].commands == [b"after"]

    run(main())


def test_a_command_that_is_too_long_is_refused_and_nothing_of_its_batch_is_proposed(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            for too_long in (b"x" * LONGEST_ENTRY, b"\n" * (LONGEST_ENTRY // 2)):
                assert isinstance(await error_of(node.propose(too_long)), EntryError)
                assert isinstance(await error_of(node.propose_many([b"good", too_long])), EntryError)
                assert isinstance(await error_of(_in_session(node, too_long)), EntryError)
            assert node.status().pending == 0
            assert await node.propose(b"x" * (LONGEST_ENTRY - 100)) == b"1"
            assert await node.propose(b"after") == b"2"

    run(main())


async def _in_session(node: Node, command: bytes) -> None:
    async with node.session() as session:
        await session.propose(command)


def test_a_node_without_a_state_machine_takes_no_commands(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path / "n", bus_port=0, config=CONFIG) as node:
            assert isinstance(await error_of(node.propose(b"x")), Rejected)
            assert isinstance(await error_of(_in_session(node, b"x")), Rejected)
            assert node.status().standing == "singleton"

    run(main())


@pytest.mark.parametrize(
    "settings",
    [
        {"port": -1},
        {"port": 65536},
        {"port": 60000},
        {"port": True},
        {"bus_port": 70000},
        {"announce_port": -1},
        {"announce_bus_port": 65536},
        {"announce_ip": "not an ip"},
        {"announce_ip": "10.0.0.1,evil"},
        {"announce_ip": "10.0.0.1\n"},
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(ConfigError):
        Node(tmp_path / "n", **settings)
    assert not (tmp_path / "n").exists()


# ---------------------------------------------------------------------- giving up, and the end


def test_a_timeout_and_a_cancelled_await_undo_nothing(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            lost = [cluster.number_of(node) for node in await cluster.followers()]
            for number in lost:
                await cluster.kill(number)
            with pytest.raises(ProposalTimeout) as told:
                await leader.propose(b"timed out", timeout=0.01)
            assert isinstance(told.value, TimeoutError)
            assert told.value.may_take_effect
            with pytest.raises(ProposalTimeout):
                await leader.propose_many([b"many 1", b"many 2"], timeout=0.01)
            task = asyncio.ensure_future(leader.propose(b"cancelled"))
            await asyncio.sleep(0)
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            assert leader.status().pending >= 4
            await cluster.start(*lost)
            await cluster.until(lambda: leader.status().pending == 0, "everything is decided")
            await cluster.leader()
            await leader.propose(b"after")
            await leader.barrier()
            assert cluster.journal(leader).commands == [b"timed out", b"many 1", b"many 2", b"cancelled", b"after"]

    run(main())


def test_without_a_majority_what_was_sent_expires_and_what_was_not_is_dropped(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS, patience=2.0) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            killing = [asyncio.ensure_future(kill(follower)) for follower in followers]
            while any(running(follower) for follower in followers):
                await asyncio.sleep(0)
            sent = leader.submit(b"sent")  # they are dead, and no time has passed in which it could step down
            await asyncio.wait(killing)
            read = asyncio.ensure_future(leader.barrier())
            await cluster.until(lambda: leader.status().leader_id is None, "the leader steps down")
            unsent = leader.submit(b"unsent")
            error = await error_of(sent)
            assert isinstance(error, Expired)
            assert error.may_take_effect
            error = await error_of(unsent)
            assert isinstance(error, Dropped)
            assert not error.may_take_effect
            assert isinstance(await error_of(read), NotLinearizable)
            await cluster.until(lambda: leader.status().pending == 0, "nothing is pending")

    run(main())


def test_a_node_that_is_not_running_says_so(run, tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        for _ in ("before", "after"):
            calls = (
                node.propose(b"x"),
                node.propose_many([b"x"]),
                node.barrier(),
                node.meet(HOST, 7001),
                node.add_slots([1]),
                node.del_slots([1]),
                node.forget("a" * 40),
                node.add_voter("a" * 40),
                node.del_voter("a" * 40),
                node.set_hostname("host"),
                node.transfer_leadership(),
                _in_session(node, b"x"),
            )
            for call in calls:
                assert isinstance(await error_of(call), NodeClosed), call
            with pytest.raises(NodeClosed):
                node.submit(b"x")
            with pytest.raises(NodeClosed):
                node.status()
            if node._engine is None:
                await node.start()
                await node.close()
        await node.close()
        assert isinstance(await error_of(node.start()), NodeClosed)

    run(main())


def test_close_before_start_is_no_harm(run, tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, config=CONFIG)
        await node.close()
        assert isinstance(await error_of(node.start()), NodeClosed)
        assert not (tmp_path / "n").exists()

    run(main())


def test_nobody_is_left_waiting_by_a_close(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            for follower in await cluster.followers():
                await kill(follower)
            session = leader.session()
            waiting = [
                asyncio.ensure_future(call)
                for call in (
                    leader.propose(b"x"),
                    leader.propose_many(numbered(3)),
                    leader.barrier(),
                    leader.add_slots([1]),
                    leader.set_hostname("host"),
                    leader.forget(leader.status().peers[0].node_id),
                    session.__aenter__(),
                    leader.meet(HOST, 1, _closed_port()),
                )
            ]
            await asyncio.sleep(0)
            await leader.close()
            _, left = await asyncio.wait(waiting, timeout=PATIENCE)
            assert not left
            errors = [task.exception() for task in waiting]
            assert all(isinstance(error, NodeClosed) for error in errors[:-1]), errors

    run(main())


def _closed_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_a_close_during_load_decides_every_command(run, tmp_path: Path) -> None:
    """Each future ends with an answer or an error, and what was answered is in the state of the others."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader = await cluster.leader()
            futures = [leader.submit(command) for command in numbered(3000)]
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            futures += [leader.submit(command) for command in numbered(3000, 3000)]
            await leader.close()
            assert all(future.done() for future in futures)
            other = await cluster.leader(besides=leader)
            await other.barrier()
            kept = set(cluster.journal(other).commands)
            for number, future in enumerate(futures):
                error = future.exception()
                if error is None or not error.may_take_effect:  # type: ignore[attr-defined]
                    assert (b"c%d" % number in kept) == (error is None)
            assert any(future.exception() is None for future in futures)

    run(main())


def test_an_idle_node_makes_few_turns(run, tmp_path: Path) -> None:
    """Waiting for its end must not keep it busy: turns are counted over its own heartbeats, not over time."""

    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            node = cluster[0]
            await node.propose(b"x")
            watch = asyncio.ensure_future(node.wait_failed())
            engine = node._engine
            assert engine is not None
            await engine.settle()
            turns, ticks = 0, 0
            tick = engine.member.tick

            def counted(now: float) -> None:
                nonlocal ticks
                ticks += 1
                tick(now)

            engine.member.tick = counted  # type: ignore[method-assign]
            while ticks < 5:
                await engine.turned.wait()
                turns += 1
            assert turns <= 20, f"{turns} turns in {ticks} ticks"
            await node.close()
            await watch

    run(main())


def test_settings_of_the_whole_configuration_are_checked() -> None:
    with pytest.raises(ConfigError, match="node_timeout"):
        Config(node_timeout=0.01)
    assert Cluster(Path("."), CONFIG).config is CONFIG


@pytest.mark.parametrize(
    ("host", "announced"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", ""), ("0.0.0.0", ""), ("::", ""), ("", "")],
)
def test_only_an_address_of_its_own_is_announced_for_the_host_that_is_bound(host: str, announced: str) -> None:
    assert Node("unused", host=host)._address(17000).ip == announced
