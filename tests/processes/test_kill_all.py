"""kill -9 of all processes at random moments under load: every acknowledged write is found afterwards."""

from __future__ import annotations

import pytest
from real_cluster import PATIENCE, term

from raftfast.cli.load import Load

ROUNDS = 3


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_when_all_are_killed(cluster, rng):
    cluster.form(3)
    for number in range(ROUNDS):
        with Load(f"r{number}", [node.client for node in cluster.nodes], writers=3, depth=rng.randint(1, 64)) as load:
            # The moment is a number of acknowledged writes: that, unlike a time, means the same on any machine.
            assert load.wait_for(rng.randint(1, 1500), within=PATIENCE)
            for node in rng.sample(cluster.nodes, 3):
                node.kill()
        assert not any(node.running for node in cluster.nodes)
        cluster.written += load.acknowledged
        for node in rng.sample(cluster.nodes, 3):
            node.start()
        for node in cluster.nodes:
            node.wait_ready(within=PATIENCE)
        cluster.leader()
        assert cluster.lost(cluster.written) == {}
        cluster.until_same()
    print(f"{len(cluster.written)} acknowledged writes, all found")


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_when_leaders_are_killed(cluster, rng):
    cluster.form(3)
    for number in range(ROUNDS):
        leader = cluster.leader()
        before = term(leader)
        with Load(f"r{number}", [node.client for node in cluster.nodes], writers=3, depth=rng.randint(1, 64)) as load:
            assert load.wait_for(rng.randint(1, 1000), within=PATIENCE)
            leader.kill()
            cluster.leader(above=before)
            assert load.wait_for(len(load.acknowledged) + 200, within=PATIENCE)
        cluster.written += load.acknowledged
        assert cluster.lost(cluster.written) == {}
        cluster.revive(leader)
        cluster.until_same()
        assert cluster.lost(cluster.written) == {}
