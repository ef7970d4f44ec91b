"""What the public face of a node promises beside its protocol: what can't be changed from outside, what errors say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from node_cluster import Cluster, Journal, cluster_of, error_of

from raftfast import (
    ClusterMember,
    ClusterView,
    Node,
    ProposalTimeout,
    RaftError,
    TimedOut,
    UnknownOutcome,
    blocking,
)


async def _with_slots(cluster: Cluster) -> ClusterView:
    await cluster[0].add_slots(range(100))
    await cluster[1].add_slots([16383])
    await cluster.converge()
    return cluster[0].cluster


def test_the_cluster_is_seen_whole_and_cannot_be_changed(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            view = await _with_slots(cluster)
            one, two = cluster[0].node_id, cluster[1].node_id
            assert dict(view.slots) == {**dict.fromkeys(range(100), one), 16383: two}
            assert dict(view.shards) == {node.status().shard_id: (node.node_id,) for node in cluster.live}
            assert all(isinstance(member, ClusterMember) for member in view.nodes.values())
            for attempt in ("clear", "popitem"):
                with pytest.raises(AttributeError):
                    getattr(view.nodes, attempt)()
            with pytest.raises(TypeError):
                view.nodes[one] = 5  # type: ignore[index]
            await cluster[1].propose(b"goes on")
            await cluster[0].del_slots([16383])
            await cluster.converge()
            assert 16383 in view.slots
            assert 16383 not in cluster[0].cluster.slots

    run(main())


# ---------------------------------------------------------------------- a caller's own time limit


async def _cut_off(cluster: Cluster) -> Node:
    """A leader that can decide nothing any more."""
    leader = await cluster.leader()
    for other in await cluster.followers():
        await cluster.kill(cluster.number_of(other))
    return leader


async def _late(call: Awaitable[Any]) -> tuple[type[BaseException], bool]:
    """The class of what was raised, and whether the command may take effect."""
    error = await error_of(call)
    assert isinstance(error, RaftError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, UnknownOutcome) == error.may_take_effect
    return type(error), error.may_take_effect


SENT, NOT_SENT = (ProposalTimeout, True), (TimedOut, False)


def test_whose_time_is_over_hears_whether_anything_was_sent(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, max_pending=3) as cluster:
            for node in cluster.live:
                await node.propose(b"before")  # what opens its client is not pending any more
            leader = await _cut_off(cluster)
            assert await _late(leader.propose(b"1", timeout=0.01)) == SENT
            assert await _late(leader.propose(b"2", timeout=0)) == SENT
            assert await _late(leader.propose_many([b"3", b"no room"], timeout=0.01)) == SENT
            assert await _late(leader.propose_many([b"no room"], timeout=0.01)) == NOT_SENT
            assert await _late(leader.propose(b"no room", timeout=0.01, wait=True)) == NOT_SENT
            assert leader.status().pending == 3

    run(main())


def test_a_session_tells_the_same(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, max_pending=3) as cluster, (await cluster.leader()).session() as session:
            leader = await _cut_off(cluster)
            assert await _late(session.propose(b"1", timeout=0.01)) == SENT
            assert await _late(session.propose_many([b"2", b"3", b"no room"], timeout=0.01)) == SENT
            assert await _late(session.propose(b"no room", timeout=0.01, wait=True)) == NOT_SENT
            assert await _late(session.propose_many([b"no room"], timeout=0.01)) == NOT_SENT
            assert leader.status().pending == 3

    run(main())


def test_a_session_whose_window_is_full_has_sent_nothing(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, session_window=1) as cluster, (await cluster.leader()).session() as session:
            await _cut_off(cluster)
            first = asyncio.ensure_future(session.propose(b"1"))
            await asyncio.sleep(0)
            assert await _late(session.propose(b"no room", timeout=0.01, wait=True)) == NOT_SENT
            first.cancel()

    run(main())


# ---------------------------------------------------------------------- what is of a wrong type


class _NoRestore:
    def apply(self, index: int, command: bytes) -> None: ...
    def snapshot(self) -> list[bytes]:
        return []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"state_machine": 5}, r"state_machine must be a StateMachine: int has no apply\(\)"),
        ({"state_machine": Journal}, "state_machine must be a StateMachine, not the class Journal"),
        ({"state_machine": _NoRestore()}, r"_NoRestore has no restore\(\)"),
        ({"config": 5}, "config must be a Config, not int"),
        ({"config": {"node_timeout": 1.0}}, "config must be a Config, not dict"),
        ({"host": 5}, "host must be str, not int"),
        ({"announce_ip": 5}, "announce_ip must be str, not int"),
        ({"directory": 5}, "int"),
    ],
)
@pytest.mark.parametrize("kind", [Node, blocking.Node])
def test_settings_of_a_wrong_type_are_refused_at_once(
    tmp_path: Path, kind: type, settings: dict[str, Any], reason: str
) -> None:
    given = {"directory": tmp_path / "n", **settings}
    with pytest.raises(TypeError, match=reason):
        kind(given.pop("directory"), **given)
    assert not (tmp_path / "n").exists()


def test_arguments_of_a_wrong_type_are_refused_before_anything_is_done(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            node: Any = cluster[0]
            before = node.cluster.voters(), node.status().leader_id
            for call, reason in (
                (node.meet(5, 5), "host must be str, not int"),
                (node.meet(None, 7000), "host must be str, not NoneType"),
                (node.forget(5), "node_id must be str, not int"),
                (node.add_voter(b"a" * 40), "node_id must be str, not bytes"),
                (node.del_voter(None), "node_id must be str, not NoneType"),
                (node.transfer_leadership(5), "to must be str, not int"),
                (node.set_hostname(5), "hostname must be str, not int"),
                (node.propose("text"), "a command is bytes, not str"),
            ):
                error = await error_of(call)
                assert isinstance(error, TypeError)
                assert str(error) == reason
            assert (node.cluster.voters(), node.status().leader_id) == before

    run(main())
