"""Random logs: what must hold of the state whatever the entries are (PROTOCOL 5.5, 6.4)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from cluster_cases import FREE, SA, SB, SC, A, B, C, join, three
from hypothesis import given, settings
from hypothesis import strategies as st

from raftfast.cluster.entries import (
    AddVoter,
    DelVoter,
    Entry,
    Failover,
    NodeFail,
    NodeForget,
    NodeInfo,
    NodeJoin,
    NodeRecover,
    Noop,
    SetReplicaOf,
    SlotChange,
    parse_entry,
)
from raftfast.cluster.snapshot import node_lines, parse_nodes
from raftfast.cluster.state import ClusterState, Kind, Verdict
from raftfast.hot import nodesconf

T = TypeVar("T")

IDS = (A, B, C, "d" * 40)
SHARDS = (SA, SB, SC, FREE)
RANGES = (((0, 99),), ((100, 199), (300, 301)), ((0, 16383),), ((50, 150),), ((302, 16383),))
ADDRESSES = ("h:1@2,", ":0@0", "h:1@2,n,nodename=x,tls-port=0", "2001:db8::1:7@8,,tcp-port=9", "h:1@2,,zz=\udcff")


class Choose(Protocol):
    """Takes one of several: hypothesis, which shrinks, or a seeded source, which goes on for long."""

    def __call__(self, of: Sequence[T]) -> T: ...


def entry_for(state: ClusterState, choose: Choose) -> Entry:
    """An entry that has something to do with the state: mostly current shards and epochs, sometimes not."""
    kind, node_id = choose(KINDS), choose(IDS)

    def shard_of(other: str | None) -> str:
        known = None if other is None else state.shard_of(other)
        return known if known is not None and choose((True, True, True, False)) else choose(SHARDS)

    def epoch_of(shard_id: str | None) -> int:
        return (0 if shard_id is None else state.shard_epoch(shard_id)) + choose((0, 0, 0, 0, 1))

    if kind is NodeJoin:
        return join(node_id, voter=choose((False, True)), shard=choose(SHARDS), host=choose(("h", "10.0.0.1")))
    if kind is NodeForget:
        return NodeForget(node_id, epoch_of(state.shard_of(node_id)))
    if kind is SlotChange:
        ranges = choose(RANGES)
        source = state.owner_of(ranges[0][0]) if choose((True, True, False)) else choose((None, *IDS))
        target = choose((None, *IDS))
        epochs = [epoch_of(None if side is None else state.shard_of(side)) for side in (source, target)]
        return SlotChange(source, epochs[0], target, epochs[1], ranges)
    if kind is SetReplicaOf:
        primary = choose((None, *IDS))
        source_shard, target_shard = shard_of(node_id), shard_of(primary)
        return SetReplicaOf(
            node_id, source_shard, epoch_of(source_shard), primary, target_shard, epoch_of(target_shard)
        )
    if kind is Failover:
        old = state.primary_of(node_id) or choose(IDS)
        shard_id = shard_of(old)
        return Failover(node_id, old, shard_id, epoch_of(shard_id))
    if kind is NodeInfo:
        return NodeInfo(node_id, choose(ADDRESSES), choose((False, True)))
    return Noop() if kind is Noop else kind(node_id)  # type: ignore[call-arg]


KINDS: tuple[type[Entry], ...] = (
    *(NodeJoin, NodeJoin, SlotChange, SlotChange, SetReplicaOf, SetReplicaOf, Failover, Failover),
    *(NodeForget, NodeForget, AddVoter, DelVoter, NodeInfo, NodeFail, NodeRecover, Noop),
)


class Members:
    """Two members that apply the same log. The second reads the bytes, and starts anew from node lines all the time."""

    def __init__(self, state: ClusterState) -> None:
        self.first, self.second = state, state.copy()
        self.index = 0

    def apply(self, entry: Entry) -> Verdict:
        self.index += 1
        state, before, voters = self.first, self.first.copy(), self.first.voters()
        verdict = state.check(entry)
        assert state == before, "a check changes nothing"
        assert state.apply(self.index, entry) == verdict, "apply does what check says"
        assert (state != before) == (verdict.kind is Kind.VALID and entry != Noop()), "only VALID changes the state"
        state.verify()
        before.verify()
        # What the log says of voters is what the state does (PROTOCOL 8), for every entry that a leader lets in.
        assert state.voters() == (_voters_after(voters, entry) if verdict.success else voters)
        assert state.voters() or not voters, "the last voter stays"

        lines = node_lines(self.second)
        self.second = ClusterState.from_records(map(nodesconf.parse_node_line, lines.splitlines()))
        assert self.second.apply(self.index, parse_entry(entry.encode())) == verdict
        assert self.second == state
        assert node_lines(self.second) == node_lines(state)
        if state.voters():
            someone = min(state.nodes)
            assert parse_nodes(node_lines(state), someone, someone) == state
        return verdict


def _voters_after(voters: frozenset[str], entry: Entry) -> frozenset[str]:
    """The voter set in force after an entry, read from the entry alone (PROTOCOL 8)."""
    if isinstance(entry, AddVoter) or (isinstance(entry, NodeJoin) and entry.voter and not voters):
        return voters | {entry.node_id}
    return voters - {entry.node_id} if isinstance(entry, DelVoter) else voters


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from((ClusterState, three)))
def test_a_short_log_gives_one_state(data: st.DataObject, begin: Callable[[], ClusterState]) -> None:
    members = Members(begin())
    for _ in range(data.draw(st.integers(1, 12))):
        members.apply(entry_for(members.first, lambda of: data.draw(st.sampled_from(of))))


def test_long_logs_give_one_state_and_meet_every_verdict() -> None:
    seen: Counter[tuple[type[Entry], Kind]] = Counter()
    for seed in range(6):
        print(f"seed {seed}")
        source = random.Random(seed)
        members = Members(ClusterState())
        for _ in range(300):
            entry = entry_for(members.first, source.choice)
            seen[type(entry), members.apply(entry).kind] += 1
    for kind in KINDS:
        assert seen[kind, Kind.VALID] > 3, (kind, seen)
    for kind in (NodeForget, SlotChange, SetReplicaOf, Failover):
        assert all(seen[kind, verdict] for verdict in Kind), (kind, seen)
