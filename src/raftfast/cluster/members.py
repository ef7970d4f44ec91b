"""One member of the cluster: what the entries say of it, and its node line.

Floor 2. Values and the way between them and `records.NodeRecord`; what may change in them is `state.py`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from ..errors import EntryError
from ..records import SLOTS, Address, NodeRecord

__all__ = ["Member", "Ranges", "bits_of", "canonical_address", "frozen", "member_of", "ranges_of", "record_of"]

Ranges = tuple[tuple[int, int], ...]

_PORTS: Final = ("client-tls-port", "client-tcp-port", "tls-port")
_LEFT_OUT_IF_EMPTY: Final = ("availability-zone", "client-ipv6", "client-ipv4", "nodename")


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster, as the entries made it. Never changed, only replaced: services see it as it is.

    `address` is `frozen`, without a shard-id among its fields: `shard_id` is it. Bit *n* of `slot_bits` stands for
    slot *n*.
    """

    id: str
    address: Address
    shard_id: str
    primary_id: str | None = None
    voter: bool = False
    failed: bool = False
    nofailover: bool = False
    slot_bits: int = field(default=0, repr=False)

    @property
    def is_primary(self) -> bool:
        """A primary is who has none."""
        return self.primary_id is None

    @property
    def slots(self) -> Ranges:
        """The slots that it owns, as ascending, maximal (first, last) pairs."""
        return ranges_of(self.slot_bits)


def canonical_address(address: Address) -> tuple[Address, str | None]:
    """The address as `nodes.conf` writes it (NODESCONF 1.2), and its shard-id apart: equal addresses, equal lines.

    The main port is the TCP one: where `tcp-port` names that, the main port was the TLS one. `tls-port` always stands;
    other known fields that are empty, and ports of 0, do not. **Raises** EntryError for a bad port.
    """
    aux = dict(address.aux)
    shard_id = aux.pop("shard-id", None)
    port = address.port
    tcp_port = aux.pop("tcp-port", None)
    if tcp_port is not None:
        aux.setdefault("tls-port", str(port))
        port = _port(tcp_port)
    for name in _PORTS:
        number = _port(aux.pop(name, "0"))
        if number or name == "tls-port":
            aux[name] = str(number)
    kept = {name: value for name, value in aux.items() if value or name not in _LEFT_OUT_IF_EMPTY}
    return Address(address.ip, port, address.cport, address.hostname, kept), shard_id


def frozen(address: Address) -> Address:
    """An equal address whose fields nobody can change."""
    return replace(address, aux=MappingProxyType(dict(address.aux)))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise EntryError(f"{text!r} is no port")
    return int(text)


def record_of(member: Member, epoch: int, *, myself: bool = False) -> NodeRecord:
    """The member's node line; `epoch` is its shard's."""
    flags = (
        ("myself", myself),
        ("master", member.is_primary),
        ("slave", not member.is_primary),
        ("fail", member.failed),
        ("nofailover", member.nofailover),
        ("learner", not member.voter),
    )
    return NodeRecord(
        id=member.id,
        ip=member.address.ip,
        port=member.address.port,
        cport=member.address.cport,
        hostname=member.address.hostname,
        aux={**member.address.aux, "shard-id": member.shard_id},
        flags=tuple(name for name, given in flags if given),
        primary_id=member.primary_id,
        epoch=epoch,
        slots=member.slots,
    )


def member_of(record: NodeRecord) -> Member:
    """The member that a node line names. The flag `myself`, times, links and open slots say nothing of it.

    **Raises** EntryError for a line that no state can have given.
    """
    address = Address(record.ip, record.port, record.cport, record.hostname, record.aux)
    kept, shard_id = canonical_address(address)
    if shard_id is None:
        raise EntryError(f"the line of node {record.id} lacks its shard-id")
    if "handshake" in record.flags:
        raise EntryError(f"node {record.id} is in handshake: no member")
    role = "master" if record.primary_id is None else "slave"
    if {"master", "slave"} & set(record.flags) - {role}:
        raise EntryError(f"the role of node {record.id} does not fit its primary")
    bits = bits_of(record.slots)
    if bits and record.primary_id is not None:
        raise EntryError(f"the replica {record.id} has slots")
    return Member(
        id=record.id,
        address=frozen(kept),
        shard_id=shard_id,
        primary_id=record.primary_id,
        voter="learner" not in record.flags,
        failed="fail" in record.flags,
        nofailover="nofailover" in record.flags,
        slot_bits=bits,
    )


def bits_of(ranges: Iterable[tuple[int, int]]) -> int:
    """One bit for each slot of the (first, last) pairs. **Raises** EntryError for slots that do not exist."""
    bits = 0
    for first, last in ranges:
        if not 0 <= first <= last < SLOTS:
            raise EntryError(f"slots {first} to {last} are not from 0 to {SLOTS - 1}, ascending")
        bits |= ((1 << (last - first + 1)) - 1) << first
    return bits


@lru_cache(maxsize=1024)
def ranges_of(bits: int) -> Ranges:
    """The set bits as ascending, maximal (first, last) pairs."""
    ranges = []
    # As text, lowest slot first: finding the next change in it costs no copy, as shifting the number would.
    text = bin(bits)[:1:-1] + "0"
    first = text.find("1")
    while first >= 0:
        last = text.find("0", first) - 1
        ranges.append((first, last))
        first = text.find("1", last + 1)
    return tuple(ranges)
