"""What a node says of itself, gathered from its parts at one moment.

Floor 4, a part of the node. Reads only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .cluster.snapshot import node_lines
from .consensus import Standing
from .engine import Engine
from .member import Member
from .records import NodeRecord
from .status import LinkStatus, PeerStatus, Status

__all__ = ["digest_of", "status_of", "unjoined_at"]


def status_of(engine: Engine) -> Status:
    """The node's status now."""
    member, raft, log = engine.member, engine.member.raft, engine.member.raft.log
    mine = member.state.nodes.get(member.node_id)
    return Status(
        node_id=member.node_id,
        shard_id=mine.shard_id if mine is not None else member.identity.shard_id,
        cluster_id=member.cluster_id,
        standing=raft.standing.value,
        role=raft.role,
        learner=raft.standing in (Standing.MEMBER, Standing.REMOVED) and not member.is_voter(member.node_id),
        term=raft.current_term,
        leader_id=raft.leader_id,
        commit_index=raft.commit_index,
        last_applied=raft.last_applied,
        boundary_index=log.boundary_index,
        boundary_term=log.boundary_term,
        last_index=log.last_index,
        durable_index=raft.durable_index,
        log_entries=len(log),
        log_bytes=log.nbytes,
        voters=raft.voters,
        pending=len(member.proposals),
        caught_up_by=member.caught_up_by,
        peers=tuple(_peers(engine)),
        links=tuple(_links(engine)),
        counters={**member.counters, **engine.dialer.stats.counters()},
    )


def _peers(engine: Engine) -> Iterator[PeerStatus]:
    member, now = engine.member, engine.loop.time()
    leadership = member.raft.leadership
    for node_id in sorted(member.state.nodes):
        if node_id == member.node_id:
            continue
        progress = leadership.peers.get(node_id) if leadership is not None else None
        silent_for = None
        if progress is not None:
            silent_for = now - progress.silent_since
        elif node_id == member.raft.leader_id:
            silent_for = member.raft.silent_for(now)
        yield PeerStatus(
            node_id,
            member.is_voter(node_id),
            node_id in member.links.outbound,
            silent_for,
            progress.match_index if progress is not None else None,
            progress.next_index if progress is not None else None,
            progress.state.value if progress is not None else None,
        )


def _links(engine: Engine) -> Iterator[LinkStatus]:
    limit = engine.member.config.max_link_buffer
    for info in engine.member.links.infos.values():
        link = engine.links.get(info.link)
        if link is not None and info.node_id is not None:
            yield LinkStatus(info.node_id, info.outbound, link.created_ms, link.writable, link.buffered, limit)


def unjoined_at(member: Member) -> list[NodeRecord]:
    """Nodes that the state does not name: this one, while it is no member, and those that said HELLO to it."""
    records = [record for record in member.records() if record.id not in member.state.nodes]
    for node_id in sorted(member.links.inbound):
        address = member.links.heard_addresses.get(node_id)
        if address is not None and not member.knows(node_id):
            records.append(
                NodeRecord(node_id, address.ip, address.port, address.cport, address.hostname, flags=("master",))
            )
    return records


def digest_of(member: Member) -> str:
    """40 hex digits over cluster metadata and state machine."""
    digest = hashlib.sha1(node_lines(member.state), usedforsecurity=False)
    if member.state_machine is not None:
        for piece in member.state_machine.snapshot():
            digest.update(piece)
    return digest.hexdigest()
