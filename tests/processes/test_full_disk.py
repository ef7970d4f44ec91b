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

from raftfast.cli.node_process import NodeProcess
from raftfast.cli.resp_client import ReplyError

STORAGE_FAILED = 3
MOST_WRITES = 20_000


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
    return NodeProcess(
        folder / "node", extra=["--node-timeout", "2000", "--config", str(config)], answer_timeout=PATIENCE
    )


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
