"""CLUSTER's subcommands but those that show the cluster: what changes it, and small questions (NODESCONF 3.2, 3.3).

Floor 5. Never here: the rules of a change (the node and its cluster state check each again); only the texts for what
can be told at once. Checks stand in the order in which Redis makes them.
"""

from __future__ import annotations

import ipaddress

from ..cluster.keyslot import key_slot
from ..config import BUS_PORT_OFFSET
from ..records import SLOTS
from . import cluster_views as views
from . import resp
from .cluster_views import text
from .command import Client, Command, CommandError, Kind, arity_error, help_reply
from .resp import OK, parse_int

__all__ = ["COMMANDS"]

_NOT_AN_INTEGER = "ERR value is not an integer or out of range"


# -- small questions -----------------------------------------------------------------------------------------------


def _myid(client: Client, arguments: list[bytes]) -> bytes:
    return resp.bulk(client.node.node_id)


def _myshardid(client: Client, arguments: list[bytes]) -> bytes:
    return resp.bulk(client.node.status().shard_id)


def _keyslot(client: Client, arguments: list[bytes]) -> bytes:
    return resp.integer(key_slot(arguments[2]))


def _keys_in_slot(client: Client, slot: int) -> list[bytes]:
    return [] if client.port.store is None else client.port.store.keys_in_slot(slot)


def _count_keys_in_slot(client: Client, arguments: list[bytes]) -> bytes:
    slot = parse_int(arguments[2])
    if slot is None:
        raise CommandError(_NOT_AN_INTEGER)
    if not 0 <= slot < SLOTS:
        raise CommandError("ERR Invalid slot")
    return resp.integer(len(_keys_in_slot(client, slot)))


def _get_keys_in_slot(client: Client, arguments: list[bytes]) -> bytes:
    slot, most = parse_int(arguments[2]), parse_int(arguments[3])
    if slot is None or most is None:
        raise CommandError(_NOT_AN_INTEGER)
    if not 0 <= slot < SLOTS or most < 0:
        raise CommandError("ERR Invalid slot or number of keys")
    return resp.bulks(_keys_in_slot(client, slot)[:most])


def _count_failure_reports(client: Client, arguments: list[bytes]) -> bytes:
    """There are no reports: the leader finds failures by itself."""
    wanted = text(arguments[2])
    if wanted not in client.node.cluster.nodes:
        raise CommandError(f"ERR Unknown node {wanted}")
    return resp.integer(0)


def _accept(client: Client, arguments: list[bytes]) -> bytes:
    """What has nothing left to do here: all is stored already, and epochs belong to shards."""
    return OK


def _no_migrations(client: Client, arguments: list[bytes]) -> bytes:
    return resp.array([])


def _not_implemented(client: Client, arguments: list[bytes]) -> bytes:
    shown = text(arguments[1])
    raise CommandError(f"ERR Cluster subcommand not implemented for the current protocol: {shown}")


# -- members -------------------------------------------------------------------------------------------------------


async def _meet(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER MEET ip port [bus-port]"""
    if len(arguments) > 5:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'MEET'. Try CLUSTER HELP.")
    port = parse_int(arguments[3])
    if port is None:
        raise CommandError(f"ERR Invalid base port specified: {text(arguments[3])}")
    if not 0 < port <= 65535:
        raise CommandError("ERR Port number is out of range")
    bus_port = parse_int(arguments[4]) if len(arguments) == 5 else port + BUS_PORT_OFFSET
    if bus_port is None:
        raise CommandError(f"ERR Invalid bus port specified: {text(arguments[4])}")
    if not 0 < bus_port <= 65535:
        raise CommandError("ERR Cluster bus port number is out of range")
    try:
        host = str(ipaddress.ip_address(text(arguments[2])))
    except ValueError:
        raise CommandError("ERR Invalid node address specified") from None
    await client.node.meet(host, port, bus_port)
    return OK


async def _forget(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER FORGET id. Of an unknown node it is a success: tools send it to every node."""
    node, wanted = client.node, text(arguments[2])
    if wanted == node.node_id:
        raise CommandError("ERR I tried hard but I can't forget myself...")
    myself = node.cluster.nodes.get(node.node_id)
    if myself is not None and myself.primary_id == wanted:
        raise CommandError("ERR Can't forget my master!")
    if wanted in node.cluster.nodes:
        await node.forget(wanted)
    return OK


def _known_id(client: Client, raw: bytes) -> str:
    wanted = text(raw)
    if wanted not in client.node.cluster.nodes:
        raise CommandError("ERR invalid node id")
    return wanted


async def _add_voter(client: Client, arguments: list[bytes]) -> bytes:
    await client.node.add_voter(_known_id(client, arguments[-1]))
    return OK


async def _del_voter(client: Client, arguments: list[bytes]) -> bytes:
    await client.node.del_voter(_known_id(client, arguments[-1]))
    return OK


async def _raft(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER RAFT ADD-VOTER|DEL-VOTER id"""
    match arguments[2].upper():
        case b"ADD-VOTER":
            return await _add_voter(client, arguments)
        case b"DEL-VOTER":
            return await _del_voter(client, arguments)
        case _:
            raise CommandError("ERR unknown subcommand or wrong number of arguments for 'RAFT'. Try CLUSTER HELP.")


# -- slots ---------------------------------------------------------------------------------------------------------


def _slot(raw: bytes) -> int:
    slot = parse_int(raw)
    if slot is None or not 0 <= slot < SLOTS:
        raise CommandError("ERR Invalid or out of range slot")
    return slot


def _slot_ranges(arguments: list[bytes]) -> list[int]:
    """The slots of `first last first last …`, in order, as often as they are named."""
    if len(arguments) % 2:
        raise CommandError(arity_error(f"cluster|{text(arguments[1]).lower()}"))
    named: list[int] = []
    for first, last in zip(map(_slot, arguments[2::2]), map(_slot, arguments[3::2]), strict=True):
        if first > last:
            raise CommandError(f"ERR start slot number {first} is greater than end slot number {last}")
        if len(named) <= SLOTS:  # beyond that a slot is named twice, which is enough to know
            named += range(first, last + 1)
    return named


def _check_slots(client: Client, named: list[int], *, owned: bool) -> None:
    """Refuses slots that are not as they should be, owned or not, and those named twice; nothing has changed then."""
    owners = views.slot_owners(client.node)
    seen: set[int] = set()
    for slot in named:
        if (slot in owners) != owned:
            raise CommandError(f"ERR Slot {slot} is already {'unassigned' if owned else 'busy'}")
        if slot in seen:
            raise CommandError(f"ERR Slot {slot} specified multiple times")
        seen.add(slot)


async def _change_slots(client: Client, named: list[int], *, add: bool) -> bytes:
    _check_slots(client, named, owned=not add)
    if add:
        await client.node.add_slots(named)
    else:
        await client.node.del_slots(named)
    return OK


async def _add_slots(client: Client, arguments: list[bytes]) -> bytes:
    return await _change_slots(client, [_slot(raw) for raw in arguments[2:]], add=True)


async def _del_slots(client: Client, arguments: list[bytes]) -> bytes:
    return await _change_slots(client, [_slot(raw) for raw in arguments[2:]], add=False)


async def _add_slots_range(client: Client, arguments: list[bytes]) -> bytes:
    return await _change_slots(client, _slot_ranges(arguments), add=True)


async def _del_slots_range(client: Client, arguments: list[bytes]) -> bytes:
    return await _change_slots(client, _slot_ranges(arguments), add=False)


async def _flush_slots(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER FLUSHSLOTS: gives up all slots of this node."""
    if client.port.store is not None and client.port.store.size:
        raise CommandError("ERR DB must be empty to perform CLUSTER FLUSHSLOTS.")
    ranges = client.node.cluster.slots_of(client.node.node_id)
    owned = [slot for first, last in ranges for slot in range(first, last + 1)]
    if owned:
        await client.node.del_slots(owned)
    return OK


async def _reset(client: Client, arguments: list[bytes]) -> bytes:
    """CLUSTER RESET [HARD|SOFT]: a fresh node again, never one that would take its keys along."""
    modes = {b"HARD": True, b"SOFT": False}
    mode = arguments[2].upper() if len(arguments) == 3 else b"SOFT"
    if len(arguments) > 3 or mode not in modes:
        raise CommandError("ERR syntax error")
    node = client.node
    # the store is everybody's: its keys are lost with a node that nobody else has them from
    needed = any(node.cluster.slots_of(node.node_id)) or not set(node.cluster.nodes) - {node.node_id}
    if needed and client.port.store is not None and client.port.store.size:
        raise CommandError("ERR CLUSTER RESET can't be called with master nodes containing keys")
    await client.node.reset(hard=modes[mode])
    return OK


# -- the table -----------------------------------------------------------------------------------------------------

_USAGE = {
    "RESET": "[HARD|SOFT]",
    "ADDSLOTS": "<slot> [<slot> ...]",
    "ADDSLOTSRANGE": "<start slot> <end slot> [<start slot> <end slot> ...]",
    "ADDVOTER": "<node-id>",
    "COUNT-FAILURE-REPORTS": "<node-id>",
    "COUNTKEYSINSLOT": "<slot>",
    "DELSLOTS": "<slot> [<slot> ...]",
    "DELSLOTSRANGE": "<start slot> <end slot> [<start slot> <end slot> ...]",
    "DELVOTER": "<node-id>",
    "FORGET": "<node-id>",
    "GETKEYSINSLOT": "<slot> <count>",
    "KEYSLOT": "<key>",
    "MEET": "<ip> <port> [<bus-port>]",
    "RAFT": "(ADD-VOTER|DEL-VOTER) <node-id>",
    "REPLICAS": "<node-id>",
    "SLAVES": "<node-id>",
}


def _help(client: Client, arguments: list[bytes]) -> bytes:
    served = {name: row for name, row in _CLUSTER.items() if row.run is not _not_implemented}
    return help_reply("CLUSTER", served, _USAGE)


_SHOWS = [
    Command("cluster|count-failure-reports", 3, run=_count_failure_reports, summary="How many reports: always 0."),
    Command("cluster|countkeysinslot", 3, run=_count_keys_in_slot, summary="How many keys a slot holds."),
    Command("cluster|getkeysinslot", 4, run=_get_keys_in_slot, summary="Keys that a slot holds."),
    Command("cluster|getslotmigrations", 2, run=_no_migrations, summary="Migrations that run: none."),
    Command("cluster|help", 2, run=_help, summary="Print this help."),
    Command("cluster|info", 2, run=views.info, summary="The state of the cluster and of Raft."),
    Command("cluster|keyslot", 3, run=_keyslot, summary="The slot of a key."),
    Command("cluster|links", 2, run=views.links, summary="The links of the bus."),
    Command("cluster|myid", 2, run=_myid, summary="The id of this node."),
    Command("cluster|myshardid", 2, run=_myshardid, summary="The id of this node's shard."),
    Command("cluster|nodes", 2, run=views.nodes, summary="The nodes, in the form of nodes.conf."),
    Command("cluster|replicas", 3, run=views.replicas, summary="The replicas of a primary."),
    Command("cluster|shards", 2, run=views.shards, summary="The shards, their slots and nodes."),
    Command("cluster|slaves", 3, run=views.replicas, summary="As REPLICAS."),
    Command("cluster|slots", 2, run=views.slots, summary="The ranges of slots and who serves them."),
    Command("cluster|bumpepoch", -2, run=_accept, summary="Accepted; epochs belong to shards."),
    Command("cluster|saveconfig", 2, run=_accept, summary="Accepted; all is stored already."),
    Command("cluster|set-config-epoch", -2, run=_accept, summary="Accepted; epochs belong to shards."),
    Command("cluster|failover", -2, run=_not_implemented),
    Command("cluster|replicate", -3, run=_not_implemented),
    Command("cluster|setslot", -4, run=_not_implemented),
    Command("cluster|slot-stats", -4, run=_not_implemented),
]
_CHANGES = [
    Command("cluster|reset", -2, Kind.WAITING, wait=_reset, summary="Makes this node a fresh one, without a cluster."),
    Command("cluster|addslots", -3, Kind.WAITING, wait=_add_slots, summary="Takes slots for this node."),
    Command("cluster|addslotsrange", -4, Kind.WAITING, wait=_add_slots_range, summary="Takes ranges of slots."),
    Command("cluster|addvoter", 3, Kind.WAITING, wait=_add_voter, summary="Makes a learner a voter."),
    Command("cluster|delslots", -3, Kind.WAITING, wait=_del_slots, summary="Takes slots from their owners."),
    Command("cluster|delslotsrange", -4, Kind.WAITING, wait=_del_slots_range, summary="The same with ranges."),
    Command("cluster|delvoter", 3, Kind.WAITING, wait=_del_voter, summary="Makes a voter a learner."),
    Command("cluster|flushslots", 2, Kind.WAITING, wait=_flush_slots, summary="Gives up this node's slots."),
    Command("cluster|forget", 3, Kind.WAITING, wait=_forget, summary="Takes a node out of the cluster."),
    Command("cluster|meet", -4, Kind.WAITING, wait=_meet, summary="Joins this node's cluster with another node."),
    Command("cluster|raft", 4, Kind.WAITING, wait=_raft, summary="Adds or removes a voter."),
]
_CLUSTER = {row.name.partition("|")[2].upper().encode(): row for row in (*_SHOWS, *_CHANGES)}

COMMANDS = [Command("cluster", -2, group="cluster", summary="Of the cluster.", subcommands=_CLUSTER)]
