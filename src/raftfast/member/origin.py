"""What a node is at start-up: its identity, and what its file makes of it (PROTOCOL 8).

Floor 3. Reads values; the file itself was read below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cluster.entries import NodeJoin, parse_line
from ..cluster.members import canonical_address
from ..cluster.state import ClusterState
from ..consensus import Standing
from ..errors import EntryError, StorageError
from ..hot import nodesconf
from ..records import Address, HardState, NodeRecord, NodesConf

__all__ = ["Identity", "Origin"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: its id, and the address that it announces, `shard-id` apart; an empty ip is not known yet."""

    node_id: str
    shard_id: str
    address: Address

    @property
    def announced(self) -> Address:
        """The address with its shard-id, as in HELLO and NODE_JOIN."""
        return replace(self.address, aux={**self.address.aux, "shard-id": self.shard_id})

    @property
    def text(self) -> str:
        """`announced` as text."""
        return nodesconf.format_address(self.announced)

    @property
    def info_text(self) -> str:
        """The address without shard-id, as in NODE_INFO."""
        return nodesconf.format_address(self.address)

    def record(self, slots: tuple[tuple[int, int], ...], *, learner: bool) -> NodeRecord:
        """The node's own line where no state has it."""
        flags = ("myself", "master", "learner") if learner else ("myself", "master")
        address = self.announced
        return NodeRecord(
            id=self.node_id,
            ip=address.ip,
            port=address.port,
            cport=address.cport,
            hostname=address.hostname,
            aux=dict(address.aux),
            flags=flags,
            slots=slots,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """What a node begins with.

    `entries` are the (index, term, line) above `last_applied`; `claimed_slots` what a joiner will ask for once it is a
    member.
    """

    identity: Identity
    standing: Standing
    state: ClusterState
    hard_state: HardState
    last_applied: int
    snapshot_term: int
    cluster_id: str | None
    entries: tuple[tuple[int, int, bytes], ...] = ()
    claimed_slots: tuple[tuple[int, int], ...] = ()

    @classmethod
    def fresh(cls, identity: Identity) -> Origin:
        """A fresh singleton."""
        return cls(identity, Standing.SINGLETON, own_state(identity, ()), HardState(0, None), 0, 0, None)

    @classmethod
    def of_file(cls, conf: NodesConf, address: Address) -> Origin:
        """What the file says; `address` is what the node announces now, whatever the file has.

        Raises StorageError for a file that no node of ours can have left.
        """
        number = {name: value for name, value in conf.vars.items() if isinstance(value, int)}
        text = {name: value for name, value in conf.vars.items() if isinstance(value, str)}
        myself = next((record for record in conf.nodes if "myself" in record.flags), None)
        if myself is None:
            raise StorageError("nodes.conf has no line of this node")
        shard_id = myself.aux.get("shard-id")
        if shard_id is None:
            raise StorageError("nodes.conf: this node's line has no shard-id")
        if not address.hostname:
            address = replace(address, hostname=myself.hostname)
        if not address.ip:
            address = replace(address, ip=myself.ip)
        identity = Identity(myself.id, shard_id, canonical_address(address)[0])
        hard_state = HardState(number.get("currentTerm", 0), text.get("votedFor"))
        last_applied = number.get("lastApplied", 0)
        removed = text.get("removed") == "1" or number.get("removed") == 1
        if number.get("joining") and last_applied == 0:
            standing, state = Standing.JOINER, ClusterState()
        elif last_applied == 0 and not conf.entries and len(conf.nodes) == 1:
            standing, state = Standing.SINGLETON, own_state(identity, myself.slots)
        else:
            standing = Standing.REMOVED if removed else Standing.MEMBER
            standing = Standing.JOINER if number.get("joining") else standing
            without_me = removed and _only_keeps_the_id(myself, conf)
            lines = [record for record in conf.nodes if not (without_me and record is myself)]
            try:
                state = ClusterState.from_records(lines)
            except EntryError as error:
                raise StorageError(f"nodes.conf: {error}") from error
        return cls(
            identity,
            standing,
            state,
            hard_state,
            last_applied,
            number.get("snapshotTerm", 0),
            # A singleton that was founding a cluster, and has not stored the first line of that log, is in none yet.
            None if standing is Standing.SINGLETON else text.get("clusterId") or _founder_shard(conf),
            conf.entries,
            myself.slots if standing is Standing.JOINER else (),
        )


def own_state(identity: Identity, slots: tuple[tuple[int, int], ...]) -> ClusterState:
    """What a singleton shows: itself, with the slots that it owns so far. Nothing of it is in a log yet."""
    return ClusterState.from_records([identity.record(slots, learner=False)])


def _only_keeps_the_id(myself: NodeRecord, conf: NodesConf) -> bool:
    """Whether a removed node's own line is the one that `Member.records` adds to a state that ends with its
    NODE_FORGET. Who was told that it is forgotten, and has not applied it, has its line in its state."""
    is_primary = myself.slots or any(record.primary_id == myself.id for record in conf.nodes)
    return "learner" in myself.flags and myself.primary_id is None and not is_primary


def _founder_shard(conf: NodesConf) -> str | None:
    """The cluster id, where the file does not name it yet: the shard id in the founder's self-join (PROTOCOL 9)."""
    for index, _, line in conf.entries[:1]:
        try:
            entry = parse_line(line)[1]
        except EntryError as error:
            raise StorageError(f"nodes.conf: the entry at index {index}: {error}") from error
        if index == 1 and isinstance(entry, NodeJoin) and entry.voter:
            return nodesconf.parse_address(entry.address).aux.get("shard-id")
    return None
