"""Snapshots that this leader sends: one transfer a member, pieces in flight, resumed where the receiver says.

Floor 3. What is sent was written whole before (`source`, opaque here); reading it is the node's affair (PROTOCOL 7).
"""

from __future__ import annotations

from typing import Any

from ..config import Config
from .orders import Capture, PieceRead

__all__ = ["Source", "Transfer", "Transfers"]


class Source:
    """A snapshot ready to be sent: `total` bytes of what was captured, readable through `handle`."""

    __slots__ = ("handle", "has_app", "index", "members", "term", "total")

    def __init__(self, capture: Capture, total: int, handle: Any) -> None:
        self.index = capture.index
        self.term = capture.term
        self.members = capture.members
        self.has_app = capture.app_pieces is not None
        self.total = total
        self.handle = handle


class Transfer:
    """A transfer to one member.

    `wanted` is the offset that the receiver asked for last, `sent` how far pieces were ordered; what lies between is
    under way. While `asking` nothing goes out but a piece of size 0, and the next answer says where to go on.

    An answer that asks for nothing new is no reason to send anything: one could be a copy, and copies would then beget
    copies for as long as the transfer runs. Where nothing has moved for a while the receiver is asked.
    """

    __slots__ = ("asking", "moved_at", "sent", "source", "wanted")

    def __init__(self, source: Source, now: float) -> None:
        self.source = source
        self.wanted = 0
        self.sent = 0
        self.asking = True
        self.moved_at = now

    def answered(self, next_offset: int, now: float) -> None:
        """A SNAPSHOT_ACK came."""
        if next_offset > self.source.total:
            return
        if self.asking:
            self.asking = False
            self.wanted = self.sent = next_offset
            self.moved_at = now
        elif next_offset > self.wanted:
            self.wanted = next_offset
            self.sent = max(self.sent, next_offset)
            self.moved_at = now

    def goes_whole(self) -> None:
        """The snapshot goes in one message, in Valkey's form: there is nothing to ask."""
        self.asking = False
        self.wanted = self.sent = self.source.total

    def must_ask(self, now: float, limit: float) -> bool:
        """Whether nothing has moved for `limit` seconds though something is under way; then it asks from now on."""
        if (self.sent == self.wanted and not self.asking) or now - self.moved_at <= limit:
            return False
        self.asking = True
        self.moved_at = now
        return True

    def next_reads(self, peer: str, config: Config) -> list[PieceRead]:
        """The pieces that may go out now."""
        reads: list[PieceRead] = []
        window = config.snapshot_inflight * config.snapshot_piece_bytes
        while not self.asking and self.sent < self.source.total and self.sent - self.wanted < window:
            size = min(config.snapshot_piece_bytes, self.source.total - self.sent)
            reads.append(PieceRead(peer, self.source.handle, self.sent, size))
            self.sent += size
        return reads


class Transfers:
    """All transfers of a leader, and the newest snapshot, which serves as long as the log behind it is kept.

    One that is replaced, or behind which the log is gone, stays for the transfers that run from it; `unused` lets go.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.running: dict[str, Transfer] = {}
        self.source: Source | None = None
        self._retired: list[Source] = []
        self.building = False
        self._not_before: dict[str, float] = {}
        self.finished = 0

    def may_begin(self, peer: str, now: float) -> bool:
        """Whether a transfer to `peer` may begin: none runs, and the last one did not just end for nothing."""
        return peer not in self.running and now >= self._not_before.get(peer, 0.0)

    def usable(self, peer: str, least_index: int) -> Source | None:
        """The snapshot at hand, if it is not older than `least_index` and names `peer`: else it would be refused."""
        source = self.source
        fits = source is not None and source.index >= least_index and peer in source.members
        return source if fits else None

    def replace(self, source: Source | None) -> None:
        """The newest snapshot is another one, or none: no transfer begins from the one that was."""
        if self.source is not None:
            self._retired.append(self.source)
        self.source = source

    def unused(self, least_index: int) -> list[Any]:
        """The handles of snapshots from which no transfer runs, and none can begin: those older than `least_index`."""
        if self.source is not None and self.source.index < least_index:
            self.replace(None)
        if not self._retired:
            return []
        used = {transfer.source for transfer in self.running.values()}
        free = [source.handle for source in self._retired if source not in used]
        self._retired = [source for source in self._retired if source in used]
        return free

    def begin(self, peer: str, source: Source, now: float) -> Transfer:
        """A transfer begins."""
        transfer = self.running[peer] = Transfer(source, now)
        return transfer

    def ended(self, peer: str, now: float) -> None:
        """The member took its snapshot. Should that not have been enough, the next one waits a node timeout."""
        if self.running.pop(peer, None) is not None:
            self.finished += 1
            self._not_before[peer] = now + self._config.node_timeout

    def drop(self, peer: str) -> None:
        """The transfer is over, and the next one may begin."""
        self.running.pop(peer, None)

    def link_down(self, peer: str, now: float) -> None:
        """The link is gone: the transfer is resumed, by name, on the next one.

        At once, unless all had been sent: then the receiver may have refused it, and would refuse it again.
        """
        transfer = self.running.pop(peer, None)
        if transfer is not None and transfer.sent == transfer.source.total:
            self._not_before[peer] = now + self._config.node_timeout / 4

    def put_off(self, peer: str, now: float) -> None:
        """What is sent can't be read: the transfer is over, and the next one waits a node timeout."""
        self.running.pop(peer, None)
        self._not_before[peer] = now + self._config.node_timeout

    def drop_all(self) -> list[Any]:
        """We lead no more. Returns the handles to let go of."""
        self.running.clear()
        self._not_before.clear()
        self.building = False
        self.replace(None)
        return self.unused(0)
