"""The three scenarios of InstallSnapshot (NODESCONF 4.1, cluster-raft-snapshot), over real processes."""

from __future__ import annotations

from real_cluster import applied, boundary, snapshots_installed


def test_a_follower_catches_up_by_snapshot_after_the_leader_trimmed_its_log(cluster):
    cluster.form(3)
    leader = cluster.leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    before = snapshots_installed(follower)
    follower.pause()
    cluster.write(leader, 10)
    # What was sent before its link was given up may wait in its socket: only entries after that are lost on it.
    cluster.until(lambda: leader.marks_failed(follower.node_id), "the leader marks the follower as failed")
    behind = leader.number("raft_last_index")
    cluster.write_until_trimmed(leader, behind)
    assert leader.number("cluster_raft_log_entries") < applied(leader)
    follower.resume()
    cluster.until(lambda: snapshots_installed(follower) > before, "the follower installs a snapshot")
    cluster.until_same()
    assert boundary(follower) > behind
    assert cluster.lost(cluster.written) == {}


def test_a_new_node_joins_a_leader_whose_log_was_compacted_by_a_restart(cluster):
    cluster.form(3)
    leader = cluster.leader()
    cluster.write(leader, 20)
    cluster.until_same()
    before = applied(leader)
    for node in [*(node for node in cluster.nodes if node is not leader), leader]:
        cluster.restart(node)
    leader = cluster.leader()
    assert boundary(leader) >= before
    (newcomer,) = cluster.start()
    assert snapshots_installed(newcomer) == 0
    cluster.meet(leader, newcomer)
    cluster.until(lambda: snapshots_installed(newcomer) > 0, "the new node installs a snapshot")
    cluster.until_same()
    assert newcomer.info()["cluster_known_nodes"] == "4"
    cluster.until_follows(newcomer)
    assert cluster.lost(cluster.written) == {}


def test_a_new_node_joins_a_leader_that_trimmed_its_log_at_run_time(cluster):
    cluster.form(3)
    leader = cluster.leader()
    cluster.write_until_trimmed(leader, leader.number("raft_last_index"))
    (newcomer,) = cluster.start()
    cluster.meet(leader, newcomer)
    cluster.until(lambda: snapshots_installed(newcomer) > 0, "the new node installs a snapshot")
    cluster.until_same()
    assert applied(newcomer) >= boundary(leader)
    cluster.until_follows(newcomer)
    assert cluster.lost(cluster.written) == {}


def test_what_a_snapshot_brought_survives_kill_9_and_serves_alone(cluster):
    """The installed state is durable by itself: the node that holds it comes back with it, from its own folder."""
    cluster.form(3)
    leader = cluster.leader()
    cluster.write_until_trimmed(leader, leader.number("raft_last_index"))
    (newcomer,) = cluster.start()
    cluster.meet(leader, newcomer)
    cluster.until(lambda: snapshots_installed(newcomer) > 0, "the new node installs a snapshot")
    cluster.until_same()
    newcomer.kill()
    cluster.revive(newcomer)
    cluster.until_same()
    assert snapshots_installed(newcomer) == 0
    assert cluster.lost(cluster.written) == {}
