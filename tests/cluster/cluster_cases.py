"""Names and states that the tests of cluster/ share."""

from __future__ import annotations

from raftfast.cluster.entries import AddVoter, Entry, NodeJoin, SetReplicaOf, SlotChange
from raftfast.cluster.state import ClusterState, Kind

A, B, C, D, E = (letter * 40 for letter in "abcde")
"""Node ids."""

SA, SB, SC, SD, SE = (digit * 40 for digit in "12345")
"""The shards that these nodes join with."""

FREE = "f" * 40
"""A node that is no member, and a shard that has none."""

SHARDS = {A: SA, B: SB, C: SC, D: SD, E: SE}


def join(node_id: str, *, voter: bool = False, shard: str | None = None, host: str = "127.0.0.1") -> NodeJoin:
    """The NODE_JOIN of one of the nodes above."""
    port = 7000 + ord(node_id[0]) - ord("a")
    return NodeJoin(node_id, f"{host}:{port}@{port + 10000},,tls-port=0,shard-id={shard or SHARDS[node_id]}", voter)


def applied(*entries: Entry, state: ClusterState | None = None) -> ClusterState:
    """The state after these entries, each of which must be VALID."""
    state = ClusterState() if state is None else state
    for index, entry in enumerate(entries, 1):
        verdict = state.apply(index, entry)
        assert verdict.kind is Kind.VALID, (entry, verdict)
        state.verify()
    return state


def three() -> ClusterState:
    """A with slots 0-9999, B with 10000-16383, both voters; C replicates A; D is a learner with nothing."""
    return applied(
        join(A, voter=True),
        join(B),
        join(C),
        join(D),
        AddVoter(B),
        SlotChange(None, 0, A, 0, ((0, 9999),)),
        SlotChange(None, 0, B, 0, ((10000, 16383),)),
        SetReplicaOf(C, SC, 0, A, SA, 0),
    )
