"""Processes of our own, with a fake node: started, awaited, paused, stopped, killed, and never left."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from raftfast.cli import node_process
from raftfast.cli.node_process import NodeProcess, ProcessFailed, poll, serve_command, unused_ports

FOREVER = 60.0


def state_of(pid: int) -> str:
    """The one-letter state of a process in /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_ready_is_awaited_and_the_id_asked(make):
    node = make()
    node.wait_ready(within=FOREVER)
    assert node.node_id == "a" * 40
    assert node.info() == {
        "raft_boundary_index": "7",
        "cluster_size": "1",
        "cluster_raft_role": "leader",
        "cluster_raft_leader": "a" * 40,
    }
    assert node.number("raft_boundary_index") == 7
    for field in ("cluster_raft_role", "none"):
        with pytest.raises(ProcessFailed, match=f"^node-1 tells no number {field}$"):
            node.number(field)
    assert node.marks_failed("b" * 40)
    assert not node.marks_failed("a" * 40)


def test_one_that_ends_is_told_with_its_last_line(make):
    node = make("dies")
    with pytest.raises(ProcessFailed, match=r"^node-1 ended with exit code 1: raftfast: it is not to be$"):
        node.wait_ready(within=FOREVER)
    assert not node.running
    assert node.pid is None


def test_one_that_never_gets_ready_is_told(make):
    with pytest.raises(ProcessFailed, match=r"^node-1 ready: not within 0\.3 s$"):
        make("silent").wait_ready(within=0.3)


def test_a_graceful_stop_and_a_second_start(make):
    node = make()
    node.wait_ready(within=FOREVER)
    first = node.pid
    assert node.stop(within=FOREVER) == 0
    node.start()
    node.wait_ready(within=FOREVER)
    assert node.pid not in (None, first)
    assert len(node.log_lines()) == 1


def test_one_that_does_not_stop_is_told_and_can_be_killed(make):
    node = make("stubborn")
    node.wait_ready(within=FOREVER)
    with pytest.raises(ProcessFailed, match=r"node-1 did not end within 0\.2 s"):
        node.stop(within=0.2)
    pid = node.pid
    node.kill()
    assert not node.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_paused_one_does_nothing_and_goes_on_and_dies_all_the_same(make):
    node = make()
    node.wait_ready(within=FOREVER)
    node.pause()
    poll(lambda: state_of(node.pid) == "T", within=FOREVER, what="stopped")
    with pytest.raises(TimeoutError, match=r"node-1 is paused"):
        node.call("PING")
    node.resume()
    assert node.call("PING") == "PONG"
    node.pause()
    node.kill()
    assert not node.running


def test_leaving_the_context_leaves_no_process(make):
    node = make()
    pid = node.pid
    with pytest.raises(ZeroDivisionError), node:
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_not_running_cannot_be_signalled_and_killing_it_does_nothing(habit, tmp_path):
    node = NodeProcess(tmp_path / "n")
    for act in (node.pause, node.resume, node.stop):
        with pytest.raises(ProcessFailed):
            act()
    node.kill()
    assert node.exit_code() is None


def test_starting_twice_is_refused(make):
    node = make()
    with pytest.raises(ProcessFailed, match=r"runs already"):
        node.start()


def test_the_command_line_is_of_this_python_and_no_folder_can_shadow_it():
    command = serve_command(Path("/d"), 1, 2, ["--node-timeout", "300"])
    assert command[:5] == [sys.executable, "-P", "-m", "raftfast", "serve"]
    assert command[5:] == [
        *("--kv", "--dir", "/d", "--host", "127.0.0.1", "--port", "1", "--bus-port", "2", "--node-timeout", "300")
    ]


def test_unused_ports_are_distinct_free_and_not_for_outgoing_connections():
    ports = unused_ports(20)
    assert len(set(ports)) == 20
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < lowest or lowest < 16384 for port in ports)
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_no_port_is_given_out_twice(monkeypatch):
    """Nothing listens yet on the port of a node that is not started, and another that is made now must not have it."""
    monkeypatch.setattr(node_process, "_lowest_port", lambda: node_process._ephemeral_port() - 4096)
    given = [port for _ in range(100) for port in unused_ports(2)]
    assert len(set(given)) == 200


def test_poll_tries_once_more_at_the_deadline_and_takes_an_oserror_for_not_yet():
    answers = iter([OSError(), False, True])

    def asked() -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    poll(asked, within=FOREVER, what="never told")
    with pytest.raises(ProcessFailed, match=r"^a thing: not within 0 s$"):
        poll(lambda: False, within=0, what="a thing")
