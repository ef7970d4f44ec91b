"""backup, restore, recover and inspect, over real processes: what was acknowledged is there again, in a new cluster."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from real_cluster import NODE_TIMEOUT_MS, PATIENCE, applied, lacks

from raftfast.cli import run
from raftfast.cli.load import Load
from raftfast.cli.node_process import NodeProcess
from raftfast.cli.resp_client import ReplyError

FLAG = "--i-understand-that-acknowledged-writes-may-be-lost"


def started(directory: Path) -> NodeProcess:
    node = NodeProcess(directory, extra=["--node-timeout", str(NODE_TIMEOUT_MS)], answer_timeout=PATIENCE)
    node.start()
    node.wait_ready(within=PATIENCE)
    return node


def hands_over(one: NodeProcess, other: NodeProcess) -> bool:
    with suppress(ReplyError):  # an earlier try may have done it
        one.call("CLUSTER", "DELSLOTSRANGE", 0, 5000)
    return other.call("CLUSTER", "ADDSLOTSRANGE", 0, 5000) == "OK"


def test_a_backup_of_a_live_cluster_is_restored_into_a_new_one(cluster, tmp_path, capsys):
    cluster.form(3)
    cluster.write(cluster.leader(), 200)
    node, out = cluster.nodes[1], tmp_path / "backup"
    with Load("during", [each.client for each in cluster.nodes], writers=2, depth=8) as load:
        assert load.wait_for(100, within=PATIENCE)
        before = list(load.acknowledged)
        assert run(["backup", f"127.0.0.1:{node.port}", "--out", str(out)]) == 0
        assert load.wait_for(len(before) + 100, within=PATIENCE)
    conf = (node.directory / "nodes.conf").read_bytes()
    assert all(path.name.encode() in conf for path in node.directory.glob("app-*")), "the backup's own file is gone"
    assert list(tmp_path.glob("backup.part-*")) == []
    capsys.readouterr()
    assert run(["inspect", "--json", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["backup"]["cluster_id"] == node.info()["raft_cluster_id"]
    assert told["backup"]["index"] <= applied(node)

    new = tmp_path / "restored"
    assert run(["restore", str(out), "--dir", str(new)]) == 0
    with started(new) as restored:
        info = restored.info()
        assert (info["cluster_size"], info["cluster_known_nodes"], info["cluster_state"]) == ("1", "1", "ok")
        assert info["cluster_slots_assigned"] == "16384"
        assert info["raft_cluster_id"] != told["backup"]["cluster_id"]
        assert restored.node_id not in {each.node_id for each in cluster.nodes}
        assert lacks(restored, [*cluster.written, *before]) == []
        assert restored.call("SET", "more", "more") == "OK"
        # it is a cluster of its own, which grows
        (fresh,) = cluster.start()
        cluster.ask(restored, "CLUSTER", "MEET", "127.0.0.1", fresh.port, fresh.bus_port)
        cluster.until(lambda: restored.number("cluster_size") == 2, "the restored cluster has two voters")
        assert lacks(fresh, [*cluster.written, *before, "more"]) == []
        fresh.kill()
        restored.kill()
    assert cluster.lost(cluster.written) == {}


def test_a_backup_never_replaces_a_file_and_a_damaged_one_is_not_restored(cluster, tmp_path, capsys):
    (node,) = cluster.start()
    cluster.write(node, 20)
    out = tmp_path / "backup"
    assert run(["backup", f"127.0.0.1:{node.port}", "--out", str(out)]) == 0
    sound = out.read_bytes()
    assert run(["backup", f"127.0.0.1:{node.port}", "--out", str(out)]) == 1
    assert "there already" in capsys.readouterr().err
    assert out.read_bytes() == sound
    new = tmp_path / "new"
    for offset in range(0, len(sound), 7):
        out.write_bytes(sound[:offset] + bytes([sound[offset] ^ 1]) + sound[offset + 1 :])
        assert run(["restore", str(out), "--dir", str(new)]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"raftfast: {out}: ")
        assert err.count("\n") == 1
        assert not new.exists()
    out.write_bytes(sound[:-1])
    assert run(["restore", str(out), "--dir", str(new)]) == 1
    out.write_bytes(sound)
    new.mkdir()
    (new / "something").touch()
    assert run(["restore", str(out), "--dir", str(new)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in new.iterdir()] == ["something"]


def test_one_backup_at_a_time_and_none_by_a_wrong_name(cluster):
    (node,) = cluster.start()
    cluster.write(node, 5)
    name, total, head = node.call("RAFTFAST", "BACKUP", "BEGIN")
    assert head.startswith(b"raftfast-backup 1 ")
    with pytest.raises(ReplyError, match="already"):
        node.call("RAFTFAST", "BACKUP", "BEGIN")
    for wrong in ((b"x", 0, 10), (name, -1, 10), (name, 0, 0), (name, 0, 1 << 21), (name, "a", 1)):
        with pytest.raises(ReplyError):
            node.call("RAFTFAST", "BACKUP", "READ", *wrong)
    whole = node.call("RAFTFAST", "BACKUP", "READ", name, 0, 1 << 20)
    assert len(whole) == total
    assert node.call("RAFTFAST", "BACKUP", "READ", name, 3, 5) == whole[3:8]
    assert node.call("RAFTFAST", "BACKUP", "READ", name, total, 5) == b""
    assert node.call("RAFTFAST", "BACKUP", "END", name) == "OK"
    with pytest.raises(ReplyError, match="no such backup"):
        node.call("RAFTFAST", "BACKUP", "READ", name, 0, 10)
    assert node.call("RAFTFAST", "BACKUP", "BEGIN")[1] == total
    assert node.stop(within=PATIENCE) == 0, "a backup that is open does not keep the node"
    assert len(list(node.directory.glob("app-*"))) == 1


def test_a_survivor_becomes_a_cluster_of_one(cluster, tmp_path, capsys):
    cluster.form(3)
    cluster.write(cluster.leader(), 100)
    cluster.until(lambda: hands_over(cluster.nodes[0], cluster.nodes[1]), "slots go from the first to the second")
    cluster.until_same()
    survivor = cluster.nodes[2]
    old_cluster = survivor.info()["raft_cluster_id"]
    folder = str(survivor.directory)
    assert run(["recover", "--dir", folder, FLAG]) == 1
    assert "in use" in capsys.readouterr().err, "a running node is left alone"
    for node in cluster.nodes:
        node.kill()
    before = (survivor.directory / "nodes.conf").read_bytes()
    assert run(["recover", "--dir", folder]) == 1
    out, err = capsys.readouterr()
    assert FLAG in err
    assert all(node.node_id in out for node in cluster.nodes)
    assert (survivor.directory / "nodes.conf").read_bytes() == before
    assert run(["recover", "--dir", folder, FLAG]) == 0
    (copy,) = survivor.directory.glob("nodes.conf.copy-*")
    assert copy.read_bytes() == before
    survivor.start()
    survivor.wait_ready(within=PATIENCE)
    cluster.until(lambda: survivor.info()["cluster_known_nodes"] == "1", "the others are forgotten")
    info = survivor.info()
    assert (info["cluster_size"], info["cluster_state"], info["cluster_slots_assigned"]) == ("1", "ok", "16384")
    assert info["raft_cluster_id"] != old_cluster
    assert lacks(survivor, cluster.written) == []
    assert survivor.call("SET", "after", "1") == "OK"

    # One of the others comes back as it was: it is of another cluster, and neither takes anything from the other.
    other = cluster.nodes[0]
    other.start()
    other.wait_ready(within=PATIENCE)
    cluster.until(lambda: any("refused" in line for line in other.log_lines()), "the old member is refused")
    assert survivor.info()["cluster_known_nodes"] == "1"
    assert survivor.call("SET", "after", "2") == "OK"
    other.kill()

    # And the new cluster grows by fresh nodes.
    (fresh,) = cluster.start()
    cluster.ask(survivor, "CLUSTER", "MEET", "127.0.0.1", fresh.port, fresh.bus_port)
    cluster.until(lambda: survivor.number("cluster_size") == 2, "the new cluster has two voters")
    assert survivor.stop(within=PATIENCE) == 0
    survivor.start()
    survivor.wait_ready(within=PATIENCE)
    cluster.until(lambda: survivor.call("GET", "after") == b"2", "it is there after a restart")
    assert lacks(survivor, cluster.written) == []


def test_what_can_not_be_recovered_is_one_line(cluster, tmp_path, capsys):
    (node,) = cluster.start()
    assert run(["recover", "--dir", str(tmp_path / "none"), FLAG]) == 1
    assert "no such file" in capsys.readouterr().err
    assert node.stop(within=PATIENCE) == 0
    assert run(["recover", "--dir", str(node.directory), FLAG]) == 1
    assert "singleton" in capsys.readouterr().err
    cluster.revive(node)
    cluster.write(node, 3)
    assert node.stop(within=PATIENCE) == 0
    assert run(["recover", "--dir", str(node.directory), FLAG]) == 1
    assert "cluster of one already" in capsys.readouterr().err
    assert list(node.directory.glob("nodes.conf.copy-*")) == []
