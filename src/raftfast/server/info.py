"""INFO: what operators and tools read of a node, in sections.

Floor 5. Never here: CLUSTER INFO (`cluster_views`).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

from . import resp
from .command import Client, Command

__all__ = ["COMMANDS"]

COMPATIBLE_VERSION = "7.2.4"
"""The version of Redis whose protocol and texts clients may expect of us."""

Lines = list[tuple[str, object]]


def _server(client: Client) -> Lines:
    uptime = int(time.monotonic() - client.port.started_at)
    return [
        ("redis_version", COMPATIBLE_VERSION),
        ("server_name", "raftfast"),
        ("raftfast_version", client.port.version),
        ("redis_mode", "cluster"),
        ("server_mode", "cluster"),
        ("os", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("process_id", os.getpid()),
        ("run_id", client.port.run_id),
        ("tcp_port", client.port.port),
        ("uptime_in_seconds", uptime),
        ("uptime_in_days", uptime // 86400),
    ]


def _clients(client: Client) -> Lines:
    return [("connected_clients", len(client.port.clients)), ("maxclients", client.port.limits.max_clients)]


def _stats(client: Client) -> Lines:
    return [
        ("total_connections_received", client.port.connections_received),
        ("total_commands_processed", client.port.commands_run),
        ("rejected_connections", client.port.connections_rejected),
    ]


def _replication(client: Client) -> Lines:
    """`master`: the data role of a node that serves its own copy. Who leads in Raft is in the section Raftfast."""
    return [("role", "master"), ("connected_slaves", 0)]


def _cluster(client: Client) -> Lines:
    return [("cluster_enabled", 1)]


def _raftfast(client: Client) -> Lines:
    status = client.node.status()
    totals = {"snapshots_installed": 0, "snapshots_sent": 0} | status.counters
    return [
        ("raft_node_id", status.node_id),
        ("raft_cluster_id", status.cluster_id or ""),
        ("raft_standing", status.standing),
        ("raft_role", "learner" if status.learner else status.role.value),
        ("raft_term", status.term),
        ("raft_leader", status.leader_id or ""),
        ("raft_voters", len(status.voters)),
        ("raft_commit_index", status.commit_index),
        ("raft_last_applied", status.last_applied),
        ("raft_durable_index", status.durable_index),
        ("raft_boundary_index", status.boundary_index),
        ("raft_last_index", status.last_index),
        ("raft_log_entries", status.log_entries),
        ("raft_log_bytes", status.log_bytes),
        ("raft_pending", status.pending),
        ("raft_caught_up_by", status.caught_up_by),
        *((f"raft_{name}", total) for name, total in sorted(totals.items())),
    ]


def _keyspace(client: Client) -> Lines:
    # no line where there is no key: redis-cli takes `db0:` for a node that is not empty
    keys = 0 if client.port.store is None else client.port.store.size
    return [("db0", f"keys={keys},expires=0,avg_ttl=0")] if keys else []


_SECTIONS: dict[str, tuple[str, Callable[[Client], Lines]]] = {
    "server": ("Server", _server),
    "clients": ("Clients", _clients),
    "stats": ("Stats", _stats),
    "replication": ("Replication", _replication),
    "cluster": ("Cluster", _cluster),
    "raftfast": ("Raftfast", _raftfast),
    "keyspace": ("Keyspace", _keyspace),
}


def _info(client: Client, arguments: list[bytes]) -> bytes:
    """INFO [section…]: all where none is named; what is not known has no lines."""
    wanted = {raw.decode("utf-8", "surrogateescape").lower() for raw in arguments[1:]}
    if not wanted or wanted & {"all", "everything", "default"}:
        wanted = set(_SECTIONS)
    parts = []
    for name, (title, lines) in _SECTIONS.items():
        if name in wanted:
            parts.append(f"# {title}\r\n" + "".join(f"{field}:{value}\r\n" for field, value in lines(client)))
    return resp.verbatim("\r\n".join(parts), client.resp3)


COMMANDS = [Command("info", -1, run=_info, flags=("loading", "stale"), summary="What is known of this node.")]
