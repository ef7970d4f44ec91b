"""New clusters out of old data: a backup restored into an empty folder, a survivor's folder made a cluster of one.

Floor 4, a part of the node. Blocking, for folders that no node uses. Both give the cluster a new id, so that no node of
the old one can mistake it for its own (PROTOCOL 8, 9).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from .cluster.entries import AddVoter, App, DelVoter, Entry, Failover, NodeForget, SlotChange, parse_line
from .cluster.members import ranges_of
from .cluster.snapshot import state_of
from .cluster.state import ClusterState, Kind
from .consensus import Standing
from .consensus.voters import VoterHistory
from .errors import ParseError, SnapshotError, StorageError
from .hot import nodesconf
from .member import Identity, Origin
from .records import Address, HardState, NodesConf
from .storage import CONF_NAME, LOCK_NAME, BackupFile, Disk, Storage, StoredState, copy_aside, refusal_of
from .storage.disk import error_at

__all__ = ["Recovery", "Restored", "plan_of_folder", "plan_recovery", "recover", "restore"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a backup became: the new node and cluster, the entry that its state is of, and its slots by number."""

    node_id: str
    cluster_id: str
    index: int
    slots: int


def restore(file: str, directory: str, disk: Disk | None = None) -> Restored:
    """Make a cluster of one out of a backup: a new node, a new cluster id, all slots that anybody owned, all data.

    **Raises** StorageError, and `directory` has no node then, where the backup is damaged or the folder is not empty.
    """
    backup = BackupFile(file, disk)
    try:
        try:
            state = state_of(backup.nodes)
        except SnapshotError as error:
            raise StorageError(f"{file}: its node lines are not right: {error}") from error
        if os.path.isdir(directory) and set(os.listdir(directory)) - {LOCK_NAME}:
            raise StorageError(f"{directory} is not empty: a backup is restored into an empty folder only")
        identity = Identity(secrets.token_hex(20), secrets.token_hex(20), Address("", 0, 0, "", {"tls-port": "0"}))
        slots = ranges_of(state.assigned_bits())
        head = backup.head
        storage, loaded = Storage.open(directory, disk=disk)
        app = None
        try:
            if loaded.conf is not None:
                raise StorageError(f"{directory} has a node already")
            member = head.index > 0  # a node that was never in a cluster has no state but its slots
            if backup.has_app and member:
                app = storage.write_app(head.index, backup.app_pieces())
            stored = StoredState(
                (identity.record(slots, learner=False),),
                head.index,
                head.term,
                cluster_id=identity.shard_id if member else None,
                app=app,
            )
            storage.rewrite(stored, None, hard_state=HardState(max(head.current_term, head.term), None))
        except BaseException:
            storage.close()
            if app is not None and not os.path.exists(storage.path):  # otherwise that file names it
                os.unlink(storage.app_path(app))
            raise
        storage.close()
        return Restored(identity.node_id, identity.shard_id, head.index, state.assigned())
    finally:
        backup.close()


@dataclass(frozen=True, slots=True)
class Recovery:
    """What makes a cluster of one out of a survivor: entries for the end of its log, and who is left behind.

    `last_index` and `last_term` are of the last entry that the survivor holds; `uncertain` of its entries are not
    known to have been committed, and will be. `learner`: it had no vote.
    """

    node_id: str
    entries: tuple[Entry, ...]
    left_behind: tuple[str, ...]
    last_index: int
    last_term: int
    uncertain: int
    learner: bool


def plan_recovery(conf: NodesConf) -> Recovery:
    """What recovering the node of this file would do. Pure.

    The entries take the vote of all others, move their slots here, and forget them: each is checked against the state
    that the whole log gives. **Raises** StorageError where this node can't be made a cluster.
    """
    origin = Origin.of_file(conf, Address("", 0, 0, "", {}))  # what it announces plays no part
    if origin.standing is not Standing.MEMBER:
        raise StorageError(f"this node is a {origin.standing.value}, no member of a cluster: nothing can be recovered")
    node_id, state = origin.identity.node_id, origin.state.copy()
    for index, _, line in origin.entries:
        entry = parse_line(line)[1]
        if not isinstance(entry, App):
            state.apply(index, entry)
    if node_id not in state.nodes:
        raise StorageError("by its log this node was forgotten by its cluster: it can't go on alone")
    others = tuple(sorted(set(state.nodes) - {node_id}))
    voters = _voters_in_force(origin)
    if not others and voters == {node_id}:
        raise StorageError("this node is a cluster of one already: there is nothing to recover")
    last_index, last_term = (origin.entries[-1] if origin.entries else (origin.last_applied, origin.snapshot_term))[:2]
    return Recovery(
        node_id,
        _steps(state, node_id, others, voters),
        others,
        last_index,
        last_term,
        len(origin.entries),
        node_id not in voters,
    )


def _voters_in_force(origin: Origin) -> Set[str]:
    history = VoterHistory(origin.state.voters())
    for index, _, line in origin.entries:
        history.appended(index, line)
    return history.current


def _steps(state: ClusterState, node_id: str, others: Iterable[str], voters: Set[str]) -> tuple[Entry, ...]:
    steps: list[Entry] = []

    def step(entry: Entry, *, always: bool = False) -> None:
        verdict = state.check(entry)
        if not verdict.success:
            raise StorageError(f"this node can't be made a cluster of one: {verdict.reason}")
        if always or verdict.kind is Kind.VALID:
            state.apply(0, entry)
            steps.append(entry)

    step(AddVoter(node_id), always=node_id not in voters)
    primary_id = state.primary_of(node_id)
    if primary_id is not None and not state.is_primary(node_id):
        shard = state.nodes[node_id].shard_id
        step(Failover(node_id, primary_id, shard, state.shard_epoch(shard)))
    for other in sorted({*others, *voters} - {node_id}):
        step(DelVoter(other), always=other in voters)
    my_shard = state.nodes[node_id].shard_id
    for other in others:
        slots = tuple(state.slots_of(other))
        if slots:
            epoch = state.shard_epoch(state.nodes[other].shard_id)
            step(SlotChange(other, epoch, node_id, state.shard_epoch(my_shard), slots))
    for other in sorted(others, key=state.is_primary):  # replicas first: nobody is forgotten who has some
        step(NodeForget(other, state.shard_epoch(state.nodes[other].shard_id)))
    return tuple(steps)


def plan_of_folder(directory: str) -> tuple[Recovery, bytes]:
    """What recovering a folder would do, and its `nodes.conf` as it is. Takes no lock; raises as `recover`."""
    path = os.path.join(directory, CONF_NAME)
    if not os.path.isfile(path):
        raise StorageError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            data = file.read()
        conf = nodesconf.parse(data)
    except OSError as error:
        raise error_at(path, error) from error
    except ParseError as error:
        raise StorageError(f"{path}: {error}; a damaged file can't be recovered from") from error
    if refusal := refusal_of(conf):
        raise StorageError(f"{path}: {refusal}")
    return plan_recovery(conf), data


def recover(directory: str, disk: Disk | None = None) -> tuple[Recovery, str]:
    """Make a cluster of one out of the folder of a member whose cluster lost its majority for good.

    Returns what was done, and where a copy of the old `nodes.conf` is. **Raises** StorageError, and nothing was
    changed, where the folder is in use, damaged, or no member's.

    The new cluster id is stored first: should a crash come between the two steps, the folder's node is alone with its
    id and elects nobody, and recovering it again goes on.
    """
    disk = disk or Disk()
    _, before = plan_of_folder(directory)  # before anything is opened for writing
    storage, loaded = Storage.open(directory, disk=disk, check=plan_recovery)
    try:
        if loaded.conf is None or loaded.stored is None:
            raise StorageError(f"{storage.path} is empty")
        plan = plan_recovery(loaded.conf)
        copy = copy_aside(disk, storage.path, before)
        term = loaded.hard_state.current_term + 1
        stored = replace(loaded.stored, cluster_id=secrets.token_hex(20), raft_leader=None)
        storage.rewrite(stored, stored.last_applied, hard_state=HardState(term, None))
        lines = [b"%d %s" % (term, entry.encode()) for entry in plan.entries]
        storage.append(None, None, storage.last_index + 1, lines)
        return plan, copy
    finally:
        storage.close()
