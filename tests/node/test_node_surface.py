"""What the public face of a node promises beside its protocol: what can't be changed from outside, what errors say."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_cluster import Cluster, cluster_of

from raftfast import ClusterMember, ClusterView


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
