"""Catching up by snapshot in one process: who was down, who is new, states of many pieces, commands meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from node_cluster import ELECTIONS, Journal, cluster_of, events_of, kill, meet

from raftfast import COMPILED

TRIMMED = {"trim_keep": 4, "trim_keep_time": 0.0}
SMALL = {**TRIMMED, "max_log_bytes": 1000}
"""Where the log is to be trimmed past a member that is down, whatever it counts as, and no leader is to be replaced."""
SHORT = {**TRIMMED, "node_timeout": ELECTIONS}
"""Where a member that is down is to count as dead soon, or a leader to be replaced, or a snapshot sent again."""


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"c%d" % number for number in range(start, start + count)]


async def trimmed_past(cluster, index: int) -> None:
    """Waits until the leader no longer has the entry, since the member that needs it is not live any more."""
    leader, number = await cluster.leader(), 0
    while leader.status().boundary_index <= index:
        await leader.propose_many([b"filler %d" % n for n in range(number, number + 20)])
        number += 20


@pytest.mark.parametrize("pieces", ["one", "many"])
def test_a_node_that_was_down_through_a_trim_catches_up_by_snapshot(run_on_both, tmp_path: Path, pieces: str) -> None:
    async def main() -> None:
        size = 1 << 20 if pieces == "one" else 50
        async with cluster_of(tmp_path, 3, **SMALL, snapshot_piece_bytes=size) as cluster:
            await cluster[0].propose_many(numbered(50))
            await cluster.converge()
            down = (await cluster.followers())[0]
            number, index = cluster.number_of(down), down.status().last_applied
            await kill(down)
            await trimmed_past(cluster, index)
            leader = await cluster.leader()
            async with events_of(leader) as seen:
                (node,) = await cluster.start(number)
                async with events_of(node) as at_node:
                    await cluster.until(lambda: node.status().caught_up_by == "snapshot", "a snapshot")
                    await cluster.converge()
                    await cluster.until(lambda: any(e.kind == "snapshot-sent" for e in seen), "it is told")
            assert "snapshot-installed" in [event.kind for event in at_node]
            assert cluster.journals[number].commands == cluster.journal(leader).commands
            assert cluster.journals[number].restored >= 1
            assert leader.status().counters["snapshots_sent"] >= 1
            assert await node.propose(b"on") is not None
            await cluster.converge()

    run_on_both(main())


def test_a_new_node_joins_a_cluster_whose_log_is_compacted(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2, **TRIMMED) as cluster:
            await cluster[0].propose_many(numbered(100))
            await cluster[0].add_slots(range(100))
            await cluster.until(lambda: all(n.status().boundary_index > 50 for n in cluster.live), "a trimmed log")
            newcomer = await cluster.join(2)
            assert newcomer.status().caught_up_by == "snapshot"
            await cluster.converge()
            assert cluster.journals[2].commands == numbered(100)
            assert cluster.journals[2].applied == []
            await cluster.until(lambda: cluster[0].cluster.size == 3, "it votes")
            await kill(newcomer)  # and what it took is on its disk
            (again,) = await cluster.start(2)
            await again.barrier()
            assert cluster.journals[2].commands == numbered(100)
            assert again.cluster.slots_of(cluster[0].node_id) == ((0, 99),)

    run(main())


def test_a_big_state_moves_in_pieces_while_commands_go_on(run, tmp_path: Path, rng: random.Random) -> None:
    """Several megabytes in small pieces; nothing is refused meanwhile, and afterwards all states are equal.

    A tenth of it where the leaves are pure: their checksums would take longer than proposals live.
    """
    size, piece = (100_000, 64 << 10) if COMPILED else (10_000, 6 << 10)

    async def main() -> None:
        limits = {**TRIMMED, "snapshot_piece_bytes": piece, "snapshot_inflight": 2}
        async with cluster_of(tmp_path, 2, **limits) as cluster:
            await cluster[0].propose_many([rng.randbytes(size) for _ in range(50)])
            await cluster.until(lambda: all(n.status().boundary_index > 20 for n in cluster.live), "a trimmed log")
            done = 0

            async def work() -> None:
                nonlocal done
                while True:
                    await cluster[1].propose(b"meanwhile %d" % done)
                    done += 1

            working = asyncio.ensure_future(work())
            newcomer = await cluster.join(2)
            await cluster.until(lambda: done > 0, "commands go on")
            working.cancel()
            await asyncio.wait([working])
            assert newcomer.status().caught_up_by == "snapshot"
            await cluster.until(lambda: newcomer.status().last_applied >= cluster[0].status().last_applied, "even")
            await cluster.converge()
            assert newcomer.status().counters["messages_in_SnapshotPiece"] >= 50 * size // piece

    run(main())


def test_a_receiver_that_is_killed_on_the_way_begins_again(run, tmp_path: Path) -> None:
    async def main() -> None:
        limits = {**TRIMMED, "snapshot_piece_bytes": 1000, "snapshot_inflight": 1}
        async with cluster_of(tmp_path, 2, **limits) as cluster:
            await cluster[0].propose_many([b"x" * 1000 for _ in range(200)])
            await cluster.until(lambda: all(n.status().boundary_index > 100 for n in cluster.live), "a trimmed log")
            (newcomer,) = await cluster.start(2)
            await meet(cluster[0], newcomer)
            await cluster.until(
                lambda: newcomer.status().counters.get("messages_in_SnapshotPiece", 0) > 20, "some pieces are there"
            )
            await cluster.kill(2)
            (newcomer,) = await cluster.start(2)
            assert newcomer.status().standing == "joiner"
            assert cluster.journals[2].commands == []
            await cluster.until(lambda: newcomer.status().standing == "member", "a member at last")
            await cluster.converge()
        left = sorted(path.name for path in (tmp_path / "node-2").iterdir() if path.name != "reserve")
        assert [name.split("-")[0] for name in left] == ["app", "nodes.conf", "raftfast.lock"], left

    run(main())


def test_a_leader_that_is_killed_on_the_way_is_replaced_in_it(run, tmp_path: Path) -> None:
    async def main() -> None:
        limits = {**SHORT, "snapshot_piece_bytes": 1000, "snapshot_inflight": 1}
        async with cluster_of(tmp_path, 3, **limits) as cluster:
            await cluster[0].propose_many([b"x" * 1000 for _ in range(200)])
            await cluster.until(lambda: all(n.status().boundary_index > 100 for n in cluster.live), "a trimmed log")
            leader = await cluster.leader()
            (newcomer,) = await cluster.start(3)
            await meet(leader, newcomer)
            await cluster.until(
                lambda: newcomer.status().counters.get("messages_in_SnapshotPiece", 0) > 20, "some pieces are there"
            )
            await kill(leader)
            await cluster.until(lambda: newcomer.status().standing == "member", "a member by the next leader")
            await cluster.converge()
            assert newcomer.status().caught_up_by == "snapshot"

    run(main())


def test_commands_of_a_node_that_installs_a_snapshot_are_answered(run, tmp_path: Path) -> None:
    """What it proposed before it fell behind, in a session, is in the snapshot's table, or is sent again."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3, **SHORT) as cluster:
            await cluster[0].propose_many(numbered(20))
            await cluster.converge()
            node = (await cluster.followers())[0]
            number, index = cluster.number_of(node), node.status().last_applied
            await kill(node)
            await trimmed_past(cluster, index)
            (node,) = await cluster.start(number)
            calls = [asyncio.ensure_future(node.propose(b"early %d" % n)) for n in range(10)]
            async with node.session() as session:
                assert await session.propose(b"in a session") is not None
            answers = await asyncio.gather(*calls)
            assert len(set(answers)) == 10
            assert node.status().caught_up_by == "snapshot"
            await cluster.converge()
            commands = cluster.journals[number].commands
            assert [commands.count(b"early %d" % n) for n in range(10)] == [1] * 10

    run(main())


def test_a_state_machine_that_refuses_the_snapshot_keeps_its_state_and_the_cluster_goes_on(run, tmp_path: Path) -> None:
    class Fussy(Journal):
        fussy = True

        def restore(self, pieces) -> None:
            if self.fussy:
                raise ValueError("I don't want it")
            super().restore(pieces)

    async def main() -> None:
        async with cluster_of(tmp_path, 2, **SHORT) as cluster:
            await cluster[0].propose_many(numbered(100))
            await cluster.until(lambda: all(n.status().boundary_index > 50 for n in cluster.live), "a trimmed log")
            fussy = Fussy()
            (newcomer,) = await cluster.start(2, state_machine=fussy)
            await meet(cluster[0], newcomer)
            await cluster.until(lambda: newcomer.status().counters.get("snapshots_refused", 0) > 0, "refused")
            assert fussy.commands == []
            assert newcomer.status().standing == "joiner"
            await cluster[1].propose(b"on")
            fussy.fussy = False
            await cluster.until(lambda: newcomer.status().standing == "member", "it is sent again")
            await newcomer.barrier()
            assert fussy.commands == [*numbered(100), b"on"]

    run(main())


def test_metadata_alone_moves_in_one_message(run, tmp_path: Path) -> None:
    """Without a state machine: Valkey's form of a snapshot."""

    async def main() -> None:
        async with cluster_of(tmp_path, 0, **TRIMMED) as cluster:
            one, other = await cluster.start(0, 1, state_machine=None)
            await meet(one, other)
            await cluster.until(lambda: one.cluster.size == 2, "two voters")
            for slot in range(40):
                await one.add_slots([slot])
            await cluster.until(lambda: all(n.status().boundary_index > 10 for n in cluster.live), "a trimmed log")
            (newcomer,) = await cluster.start(2, state_machine=None)
            await meet(one, newcomer)
            await cluster.until(lambda: newcomer.status().standing == "member", "a member")
            await cluster.converge()
            assert newcomer.status().caught_up_by == "snapshot"
            assert newcomer.status().counters["messages_in_InstallSnapshot"] >= 1
            assert newcomer.cluster.slots_of(one.node_id) == ((0, 39),)

    run(main())
