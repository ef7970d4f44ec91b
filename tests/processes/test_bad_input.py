"""Hostile bytes on both ports, a damaged file, a port in use, a locked folder: one clear error each, nothing lost."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from real_cluster import PATIENCE, Cluster

from raftfast.cli.node_process import HOST, NodeProcess

HELLO = b"HELLO " + b"b" * 40 + b" 127.0.0.1:1@2,"


def frame(payload: bytes, *, magic: bytes = b"RAFT", length: int | None = None) -> bytes:
    return magic + struct.pack(">I", len(payload) + 8 if length is None else length) + payload


HOSTILE_BUS = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "length too small": frame(b"", length=7),
    "length too great": frame(b"", length=0xFFFFFFFF),
    "length at the limit and silence": frame(b"AE", length=16 << 20),
    "empty payload": frame(b""),
    "no hello first": frame(b"AE " + b"b" * 40 + b" 99 0 0 0 0"),
    "hello with a bad id": frame(b"HELLO nobody 127.0.0.1:1@2"),
    "hello twice": frame(HELLO) * 2,
    "a term far away": frame(HELLO) + frame(b"VOTE_REQ " + b"b" * 40 + b" 18446744073709551615 1 1"),
    "a number that wraps": frame(HELLO) + frame(b"VOTE_REQ " + b"b" * 40 + b" 18446744073709551616 1 1"),
    "publish whose lengths wrap": frame(HELLO) + frame(b"PUBLISH 0 18446744073709551615 2\nx"),
    "ten million entries announced": frame(HELLO) + frame(b"AE " + b"b" * 40 + b" 1 0 0 0 10000000\n1 NOOP"),
    "an unknown verb": frame(HELLO) + frame(b"FROBNICATE now"),
    "a snapshot from a stranger": frame(HELLO) + frame(b"INSTALL_SNAPSHOT " + b"b" * 40 + b" 9 9 9\nx master\n"),
}

HOSTILE_CLIENT = {
    "nothing": b"",
    "bus bytes": frame(HELLO),
    "zeros": bytes(4096),
    "a great count": b"*2147483647\r\n",
    "a negative count": b"*-5\r\n$4\r\nPING\r\n",
    "a great length": b"*1\r\n$9223372036854775807\r\n",
    "a length that is no number": b"*1\r\n$x\r\nPING\r\n",
    "no bulk string": b"*1\r\n:1\r\n",
    "an endless line": b"A" * (1 << 20),
    "half a command": b"*2\r\n$3\r\nGET\r\n$100\r\nabc",
    "quotes": b'SET "a b\r\n',
}


def strike(port: int, data: bytes) -> None:
    """Sends the bytes, says no more, and reads until the node closes or a moment has passed."""
    with socket.create_connection((HOST, port), timeout=PATIENCE) as link, suppress(OSError):
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        while link.recv(65536):
            pass


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nodes here are alone and never to be elected: a link that says nothing for a moment is not closed for it."""
    made = Cluster(tmp_path, node_timeout_ms=15_000)
    yield made
    made.kill()


@pytest.fixture
def lone(cluster) -> NodeProcess:
    (node,) = cluster.start()
    cluster.write(node, 10)
    return node


def unharmed(cluster, node: NodeProcess, before: dict[str, str]) -> None:
    """The process is the same, its term and state are as they were, what was acknowledged is there."""
    assert node.running, node.last_line()
    now = node.info()
    for name in ("cluster_raft_current_term", "cluster_raft_last_applied", "cluster_known_nodes", "raft_role"):
        assert now[name] == before[name], name
    assert cluster.lost(cluster.written) == {}
    assert not [line for line in node.log_lines() if "Traceback" in line]


def test_hostile_bytes_on_the_bus_port_harm_nothing(cluster, lone):
    before = lone.info()
    for data in HOSTILE_BUS.values():
        strike(lone.bus_port, data)
    unharmed(cluster, lone, before)


def test_hostile_bytes_on_the_client_port_harm_nothing(cluster, lone):
    before = lone.info()
    for data in HOSTILE_CLIENT.values():
        strike(lone.port, data)
    unharmed(cluster, lone, before)


def test_random_bytes_on_both_ports_harm_nothing(cluster, lone, rng):
    before = lone.info()
    for _ in range(100):
        data = rng.randbytes(rng.randint(1, 2000))
        strike(lone.port, rng.choice([b"", b"*", b"$", b"*1\r\n$"]) + data)
        strike(lone.bus_port, rng.choice([data, frame(data), frame(HELLO) + frame(data)]))
    unharmed(cluster, lone, before)


def test_a_protocol_error_closes_that_link_only(cluster, lone):
    with socket.create_connection((HOST, lone.bus_port), timeout=PATIENCE) as other:
        other.sendall(frame(HELLO)[:10])
        with socket.create_connection((HOST, lone.bus_port), timeout=PATIENCE) as bad:
            bad.sendall(b"RUFT")
            assert bad.recv(1) == b""
        other.sendall(frame(HELLO)[10:])
        assert other.recv(8, socket.MSG_WAITALL)[:4] == b"RAFT"


def refused(node: NodeProcess) -> str:
    """Starts a node that must not start; returns the one line that it wrote, beside what it logs in any case."""
    node.start()
    assert node.wait_exit(within=PATIENCE) == 1
    (line,) = [line for line in node.log_lines() if " INFO " not in line]
    return line


def test_a_damaged_file_is_one_line_and_left_as_it_is(cluster, lone):
    assert lone.stop(within=PATIENCE) == 0
    file = lone.directory / "nodes.conf"
    sound = file.read_bytes()
    at = sound.index(b"vars ")
    damaged = sound[:at] + b"vers " + sound[at + 5 :]
    file.write_bytes(damaged)
    before = sorted(path.name for path in lone.directory.iterdir())
    line = refused(lone)
    assert f"{file}" in line
    assert "line " in line
    assert file.read_bytes() == damaged
    assert sorted(path.name for path in lone.directory.iterdir()) == before
    file.write_bytes(sound)
    lone.start()
    lone.wait_ready(within=PATIENCE)
    cluster.until(lambda: cluster.lost(cluster.written) == {}, "all writes are there again")


def test_a_missing_state_file_is_one_line(cluster, lone):
    assert lone.stop(within=PATIENCE) == 0
    (state,) = lone.directory.glob("app-*")
    kept = state.read_bytes()
    state.unlink()
    assert state.name in refused(lone)
    state.write_bytes(kept)
    lone.start()
    lone.wait_ready(within=PATIENCE)
    cluster.until(lambda: cluster.lost(cluster.written) == {}, "all writes are there again")


@pytest.mark.parametrize("which", ["client", "bus"])
def test_a_port_in_use_is_one_line(cluster, which):
    node = cluster.new_node()
    port = node.port if which == "client" else node.bus_port
    with socket.create_server((HOST, port)):
        line = refused(node)
    assert str(port) in line
    node.start()
    node.wait_ready(within=PATIENCE)


def test_a_locked_folder_is_one_line_and_the_holder_goes_on(cluster, lone):
    second = NodeProcess(lone.directory, extra=["--node-timeout", "2000"])
    second.log_path = lone.directory.with_name("second.log")
    with second:
        line = refused(second)
    assert str(lone.directory) in line
    assert "in use" in line
    cluster.write(lone, 10)
    assert cluster.lost(cluster.written) == {}


def test_a_folder_that_is_a_file_is_one_line(cluster):
    node = cluster.new_node()
    node.directory.write_text("not a folder")
    assert str(node.directory) in refused(node)
    assert node.directory.read_text() == "not a folder"
