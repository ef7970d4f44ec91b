"""The CLUSTER replies that show the cluster: NODES, REPLICAS, INFO, SLOTS, SHARDS, LINKS (NODESCONF 2 and 3.2).

Floor 5. Never here: anything that changes the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..cluster.members import member_of
from ..records import SLOTS, Address, NodeRecord
from . import resp
from .command import Client, CommandError
from .served import ServedMember, ServedNode

__all__ = ["info", "links", "nodes", "replicas", "shards", "slot_owners", "slots", "text"]


def text(raw: bytes) -> str:
    """An argument as text; any bytes survive the way back."""
    return raw.decode("utf-8", "surrogateescape")


def slot_owners(node: ServedNode) -> dict[int, ServedMember]:
    """Every slot that has an owner, with it."""
    owners = {}
    for member in node.cluster.nodes.values():
        for first, last in node.cluster.slots_of(member.id):
            owners.update(dict.fromkeys(range(first, last + 1), member))
    return owners


def _endpoint(address: Address, client: Client) -> tuple[str, int]:
    """The ip and port that a client is told: those announced to clients of its kind, else the node's own."""
    ip = address.aux.get("client-ipv6" if client.ipv6 else "client-ipv4", "") or address.ip
    return ip, int(address.aux.get("client-tcp-port", "0")) or address.port


# -- NODES and REPLICAS --------------------------------------------------------------------------------------------


def _records(node: ServedNode) -> dict[str, NodeRecord]:
    """All nodes known here, members and not yet members, ascending by id; epochs as shown: the shard's."""
    found = {record.id: record for record in node.known_unjoined()}
    found.update((record.id, record) for record in node.cluster.records(node.node_id))
    return dict(sorted(found.items()))


def _line(client: Client, record: NodeRecord, connected: set[str]) -> str:
    node = client.node
    member = node.cluster.nodes.get(record.id)
    ip, port = _endpoint(Address(record.ip, record.port, record.cport, aux=record.aux), client)
    hostname = f",{record.hostname}" if record.hostname else ""
    epoch = record.epoch if member is None else node.cluster.shard_epoch(member.shard_id)
    up = record.id == node.node_id or record.id in connected
    words = [
        record.id,
        f"{ip}:{port}@{record.cport}{hostname}",
        ",".join(record.flags) or "noflags",
        record.primary_id or "-",
        f"0 0 {epoch}",
        "connected" if up else "disconnected",
    ]
    words += [f"{first}" if first == last else f"{first}-{last}" for first, last in record.slots]
    moving = dict(record.importing) | dict(record.migrating)
    leaving = dict(record.migrating)
    words += [f"[{slot}-{'>' if slot in leaving else '<'}-{moving[slot]}]" for slot in sorted(moving)]
    return " ".join(words)


def _lines(client: Client) -> Iterator[tuple[NodeRecord, str]]:
    connected = {peer.node_id for peer in client.node.status().peers if peer.connected}
    for record in _records(client.node).values():
        yield record, _line(client, record, connected)


def nodes(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER NODES: a line for each node, each with its line end."""
    return resp.verbatim("".join(f"{line}\n" for _, line in _lines(client)), client.resp3)


def replicas(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER REPLICAS id: the lines of its replicas, without line ends."""
    wanted = text(arguments[2])
    record = _records(client.node).get(wanted)
    if record is None:
        raise CommandError(f"ERR Unknown node {wanted}")
    if record.primary_id is not None or "slave" in record.flags:
        raise CommandError("ERR The specified node is not a master")
    return resp.bulks([line for each, line in _lines(client) if each.primary_id == wanted])


# -- INFO ----------------------------------------------------------------------------------------------------------

_TRAFFIC = (
    ("cluster_stats_messages_module_sent", "messages_out_Module"),
    ("cluster_stats_messages_module_received", "messages_in_Module"),
    ("cluster_stats_messages_publish_sent", "messages_out_Publish"),
    ("cluster_stats_messages_publish_received", "messages_in_Publish"),
    ("cluster_stats_bytes_sent", "bytes_out"),
    ("cluster_stats_bytes_received", "bytes_in"),
    ("cluster_stats_pubsub_bytes_sent", "publish_bytes_out"),
    ("cluster_stats_pubsub_bytes_received", "publish_bytes_in"),
    ("cluster_stats_module_bytes_sent", "module_bytes_out"),
    ("cluster_stats_module_bytes_received", "module_bytes_in"),
    ("total_cluster_links_buffer_limit_exceeded", "buffer_limit_exceeded"),
)
"""The last fields of CLUSTER INFO, in order, and the node's counters that they show."""


def info(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER INFO. No value holds a colon: both Python clients split there and want two parts."""
    node, status = client.node, client.node.status()
    members = node.cluster.nodes.values()
    owned = {member.id: _slot_count(node, member.id) for member in members}
    assigned = sum(owned.values())
    failing = any(member.failed and owned[member.id] for member in members)
    covered = not node.config.require_full_coverage or (assigned == SLOTS and not failing)
    # a singleton leads itself, but nothing has made it a voter yet: no entry stands in its log
    size = 0 if status.standing == "singleton" else sum(member.voter for member in members)
    fields: list[tuple[str, object]] = [
        ("cluster_state", "ok" if covered and status.leader_id is not None else "fail"),
        ("cluster_slots_assigned", assigned),
        ("cluster_slots_ok", assigned),
        ("cluster_slots_pfail", 0),
        ("cluster_slots_fail", 0),
        ("cluster_known_nodes", len(_records(node))),
        ("cluster_size", size),
        ("cluster_raft_role", "learner" if status.learner else status.role.value),
        ("cluster_raft_current_term", status.term),
        ("cluster_raft_commit_index", status.commit_index),
        ("cluster_raft_last_applied", status.last_applied),
        ("cluster_raft_log_entries", status.log_entries),
        ("cluster_raft_leader", status.leader_id or ""),
    ]
    fields += [(name, status.counters.get(counter, 0)) for name, counter in _TRAFFIC]
    return resp.verbatim("".join(f"{name}:{value}\r\n" for name, value in fields), client.resp3)


def _slot_count(node: ServedNode, node_id: str) -> int:
    return sum(last - first + 1 for first, last in node.cluster.slots_of(node_id))


# -- SLOTS and SHARDS ----------------------------------------------------------------------------------------------


def _replicas_of(node: ServedNode, primary_id: str) -> list[ServedMember]:
    found = [member for member in node.cluster.nodes.values() if member.primary_id == primary_id]
    return sorted(found, key=lambda member: member.id)


def _health(node: ServedNode, member: ServedMember) -> str:
    if member.failed:
        return "fail"
    return "loading" if member.primary_id is not None and not node.repl_offsets.get(member.id) else "online"


def slots(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER SLOTS: for each range its primary, then the replicas that can serve."""
    node = client.node
    ranges = [
        (first, last, member)
        for member in node.cluster.nodes.values()
        for first, last in node.cluster.slots_of(member.id)
    ]
    shown = []
    for first, last, primary in sorted(ranges, key=lambda each: each[0]):
        serving = [each for each in _replicas_of(node, primary.id) if _health(node, each) == "online"]
        served_by = [_slots_node(client, each) for each in (primary, *serving)]
        shown.append(resp.array([resp.integer(first), resp.integer(last), *served_by]))
    return resp.array(shown)


def _slots_node(client: Client, member: ServedMember) -> bytes:
    ip, port = _endpoint(member.address, client)
    metadata = []
    if member.address.hostname:
        metadata.append(("hostname", resp.bulk(member.address.hostname)))
    if zone := member.address.aux.get("availability-zone"):
        metadata.append(("availability-zone", resp.bulk(zone)))
    return resp.array([resp.bulk(ip), resp.integer(port), resp.bulk(member.id), resp.mapping(metadata, client.resp3)])


def shards(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER SHARDS, ascending by shard id; in each the primary comes first."""
    node = client.node
    groups: dict[str, list[ServedMember]] = {}
    for member in (*node.cluster.nodes.values(), *_myself_apart(node)):
        groups.setdefault(member.shard_id, []).append(member)
    shown = []
    for shard_id, members in sorted(groups.items()):
        members.sort(key=lambda member: (member.primary_id is not None, member.id))
        ranges = sorted(pair for member in members for pair in node.cluster.slots_of(member.id))
        fields = [
            ("slots", resp.array([resp.integer(slot) for pair in ranges for slot in pair])),
            ("nodes", resp.array([_shards_node(client, member) for member in members])),
            ("id", resp.bulk(shard_id)),
        ]
        shown.append(resp.mapping(fields, client.resp3))
    return resp.array(shown)


def _myself_apart(node: ServedNode) -> list[ServedMember]:
    """This node where no state has it: a joiner, or one that was forgotten. Clients take no empty reply."""
    if node.node_id in node.cluster.nodes:
        return []
    return [member_of(record) for record in node.known_unjoined() if record.id == node.node_id]


def _shards_node(client: Client, member: ServedMember) -> bytes:
    ip, port = _endpoint(member.address, client)
    aux = member.address.aux
    tls_port = int(aux.get("client-tls-port", "0")) or int(aux.get("tls-port", "0"))
    fields = [("id", resp.bulk(member.id))]
    if port:
        fields.append(("port", resp.integer(port)))
    if tls_port:
        fields.append(("tls-port", resp.integer(tls_port)))
    fields += [("ip", resp.bulk(ip)), ("endpoint", resp.bulk(ip))]
    if member.address.hostname:
        fields.append(("hostname", resp.bulk(member.address.hostname)))
    fields += [
        ("role", resp.bulk("master" if member.primary_id is None else "replica")),
        ("replication-offset", resp.integer(client.node.repl_offsets.get(member.id, 0))),
        ("health", resp.bulk(_health(client.node, member))),
    ]
    if zone := aux.get("availability-zone"):
        fields.append(("availability-zone", resp.bulk(zone)))
    return resp.mapping(fields, client.resp3)


# -- LINKS ---------------------------------------------------------------------------------------------------------


def links(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER LINKS: for each peer the outbound link, then the inbound one."""
    bound = [link for link in client.node.status().links if link.node_id]
    shown = []
    for link in sorted(bound, key=lambda each: (each.node_id, not each.outbound)):
        fields = [
            ("direction", resp.bulk("to" if link.outbound else "from")),
            ("node", resp.bulk(link.node_id)),
            ("create-time", resp.integer(link.created_ms)),
            ("events", resp.bulk("rw" if link.writable else "r")),
            ("send-buffer-allocated", resp.integer(link.buffered_bytes)),
            ("send-buffer-used", resp.integer(link.buffered_bytes)),
        ]
        shown.append(resp.mapping(fields, client.resp3))
    return resp.array(shown)
