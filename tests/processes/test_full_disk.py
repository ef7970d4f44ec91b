"""A real node on a real file system that gets full: it refuses in time, or ends with its own exit code.

Needs to mount a tmpfs of 2 MiB, as root; where that is not allowed, a limit on the size of the process's files does for
the second half.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_cluster import PATIENCE

from raftfast.cli.node_process import HOST, NodeProcess, poll
from raftfast.cli.resp_client import ReplyError

STORAGE_FAILED = 3
MOST_WRITES = 20_000
NODE_TIMEOUT = ["--node-timeout", "15000"]
"""So long that nobody steps down, or is marked as failed, for a disk or a machine that is slow for a moment."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small file system can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def node_in(folder: Path, *, reserve: int) -> NodeProcess:
    config = folder.parent / f"{folder.name}-{reserve}.toml"
    config.write_text(f"disk_reserve_bytes = {reserve}\n")
    return NodeProcess(folder / "node", extra=[*NODE_TIMEOUT, "--config", str(config)], answer_timeout=PATIENCE)


def write_until_refused(node: NodeProcess, prefix: str) -> tuple[list[str], str]:
    """Writes keys until one is not acknowledged: the keys that were, and what became of the last (its error text)."""
    acknowledged: list[str] = []
    with node.client() as client:
        for number in range(MOST_WRITES):
            key = f"{prefix}:{number}"
            try:
                assert client.call("SET", key, key + "x" * 1000) == "OK"
            except (ReplyError, OSError) as error:
                return acknowledged, str(error)
            acknowledged.append(key)
    raise AssertionError("the disk never got full")


def all_there(node: NodeProcess, keys: list[str]) -> bool:
    with node.client() as client:
        found = client.pipeline([("GET", key) for key in keys])
    return all(value == f"{key}{'x' * 1000}".encode() for key, value in zip(keys, found, strict=True))


def test_a_node_on_a_full_file_system_ends_with_its_own_exit_code(small_disk: Path) -> None:
    with node_in(small_disk, reserve=0) as node:
        node.log_path = small_disk.parent / "node.log"
        node.start()
        node.wait_ready(within=PATIENCE)
        acknowledged, _ = write_until_refused(node, "k")
        assert node.wait_exit(within=PATIENCE) == STORAGE_FAILED
        loud = [line for line in node.log_lines() if " INFO " not in line]
        assert len(loud) == 1, loud
        assert "the node stops" in loud[0]
        assert "No space left on device" in loud[0] or "full" in loud[0]
        assert str(node.directory) in loud[0]
        # Still full: it may be that it can't start, and then it says so and changes nothing.
        subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
        node.start()
        node.wait_ready(within=PATIENCE)
        assert all_there(node, acknowledged)
        print(f"{len(acknowledged)} acknowledged writes, all found after the disk was full")
        assert node.stop(within=PATIENCE) == 0


def test_a_node_with_a_reserve_refuses_before_the_disk_is_full(small_disk: Path) -> None:
    with node_in(small_disk, reserve=1 << 20) as node:
        node.log_path = small_disk.parent / "node.log"
        node.start()
        node.wait_ready(within=PATIENCE)
        acknowledged, error = write_until_refused(node, "k")
        assert error.startswith("ERR disk: ")
        assert "disk_reserve_bytes" in error
        assert node.running
        with node.client() as client:
            assert client.call("GET", acknowledged[0]) is not None
        assert node.stop(within=PATIENCE) == 0, "there is room for the last rewrite"
        subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
        node.start()
        node.wait_ready(within=PATIENCE)
        assert all_there(node, acknowledged)
        assert node.call("SET", "more", "room") == "OK"
        assert node.stop(within=PATIENCE) == 0


def test_a_node_whose_file_may_not_grow_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    with node_in(tmp_path, reserve=0) as node:
        node.start()
        node.wait_ready(within=PATIENCE)
        node.call("SET", "before", "1")
        size = os.path.getsize(node.directory / "nodes.conf")
        assert node.pid is not None
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size + 5000, resource.RLIM_INFINITY))
        acknowledged, _ = write_until_refused(node, "k")
        assert node.wait_exit(within=PATIENCE) == STORAGE_FAILED
        assert "short write" in node.last_line() or "too large" in node.last_line()
        node.start()
        node.wait_ready(within=PATIENCE)
        assert all_there(node, acknowledged)
        assert node.call("GET", "before") == b"1"
        assert node.stop(within=PATIENCE) == 0


KEYS, VALUE = 20, "x" * 1000
ROLES = ("follower", "learner")


def pipelined(node: NodeProcess, keys: list[str]) -> None:
    """Writes in one go, each acknowledged."""
    with node.client() as client:
        replies = client.pipeline([("SET", key, key + VALUE) for key in keys])
    assert replies == ["OK"] * len(keys), replies[:3]


def follows(node: NodeProcess, leader: NodeProcess) -> bool:
    return node.number("cluster_raft_last_applied") == leader.number("cluster_raft_last_applied")


def same_state(node: NodeProcess, other: NodeProcess) -> bool:
    return follows(node, other) and node.text("DEBUG", "DIGEST") == other.text("DEBUG", "DIGEST")


def test_a_follower_without_room_gives_back_what_it_can_and_is_one_copy_less_in_the_end(
    small_disk: Path, tmp_path: Path
) -> None:
    """It is short of room from the start. While the state stays small it goes on; when that fills the disk, it ends.

    It is a learner, so that it never leads, and the other one goes on alone.
    """
    config = tmp_path / "config.toml"
    config.write_text("max_voters = 1\nrewrite_min_bytes = 100_000\nrewrite_factor = 100.0\n")
    flags = [*NODE_TIMEOUT, "--config", str(config)]
    free = [*flags[:-1], str(tmp_path / "free.toml")]
    (tmp_path / "free.toml").write_text(config.read_text() + "disk_reserve_bytes = 0\n")
    leader = NodeProcess(tmp_path / "leader", extra=free, answer_timeout=PATIENCE)
    follower = NodeProcess(small_disk / "node", extra=flags, answer_timeout=PATIENCE)
    follower.log_path = tmp_path / "follower.log"
    with leader, follower:
        for node in (leader, follower):
            node.start()
        for node in (leader, follower):
            node.wait_ready(within=PATIENCE)
        assert leader.call("CLUSTER", "MEET", HOST, follower.port, follower.bus_port) == "OK"
        poll(lambda: follower.info()["cluster_raft_role"] in ROLES, within=PATIENCE, what="the follower joins")
        for _ in range(200):  # twice what its disk holds
            pipelined(leader, [f"same:{number}" for number in range(KEYS)])
            poll(lambda: not follower.running or follows(follower, leader), within=PATIENCE, what="it follows")
            assert follower.running, follower.last_line()
        assert any("commands are refused" in line for line in follower.log_lines())
        written = 0
        while follower.running:
            keys = [f"more:{number}" for number in range(written, written + KEYS)]
            pipelined(leader, keys)
            written += KEYS
            assert written < 4000, "the disk never got full"
            poll(lambda: not follower.running or follows(follower, leader), within=PATIENCE, what="it follows, or ends")
        assert follower.wait_exit(within=PATIENCE) == STORAGE_FAILED
        assert sum("the node stops" in line for line in follower.log_lines()) == 1
        assert "No space left on device" in follower.last_line() or "full" in follower.last_line()
        pipelined(leader, ["after"])
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        follower.start()
        follower.wait_ready(within=PATIENCE)
        # The leader may say that it had failed, or is back, at any time: then the states are equal a moment later.
        poll(lambda: same_state(follower, leader), within=PATIENCE, what="it catches up, and has the leader's state")
        assert follower.stop(within=PATIENCE) == 0
        assert leader.stop(within=PATIENCE) == 0
