"""What a simulated node does for snapshots: builds, reads, writes and installs them, as the engine's threads do.

Floor 6. Two workers, each doing one thing after the other: one for whole states, one for pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..cluster.sessions import Sessions
from ..cluster.snapshot import app_header, split_head, split_sessions
from ..errors import SnapshotError, StorageError
from ..hot import nodesconf
from ..member import Capture, InstallOrder, Member, Orders, PieceRead, PieceWrite
from ..storage import AppFile
from .machine import WatchedMachine

if TYPE_CHECKING:
    from .process import SimulatedNode

__all__ = ["SnapshotWork"]


@dataclass(slots=True)
class _Source:
    """A snapshot to send."""

    data: bytes
    closed: bool = False


class SnapshotWork:
    """The snapshots of one life of a node."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._incoming: bytearray | None = None
        self._pieces_free_at = 0.0
        self._states_free_at = 0.0
        self._states_open = 0

    def restored(self, machine: WatchedMachine, app: AppFile) -> Sessions:
        """Restores the machine from an app state file. Returns the session table."""
        data = self._node.disk.apps[app.name]
        if len(data) != app.length or nodesconf.crc64(data) != app.crc:
            raise StorageError(f"{app.name} is not what was stored")
        config = self._node.simulation.config
        table, rest = split_sessions(self._cut_up(data))
        sessions = Sessions.decode(table, config.session_window, config.session_result_bytes, config.max_sessions)
        machine.restore(rest)
        return sessions

    def _cut_up(self, data: bytes) -> Iterable[bytes]:
        at, rng = 0, self._node.simulation.rng
        while at < len(data):
            size = rng.randint(1, 200)
            yield data[at : at + size]
            at += size

    def state_later(self, call: Callable[..., object], *args: Any) -> None:
        """Work of the thread for state files: one after another."""
        self._states_free_at = self._worker_delay(self._states_free_at)
        self._states_open += 1
        self._node.later(self._states_free_at - self._node.simulation.timeline.now, self._end_state, call, args)

    def _end_state(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._states_open -= 1
        call(*args)

    @property
    def at_rest(self) -> bool:
        """Whether nobody reads or replaces the state machine's state."""
        return not self._states_open

    def _piece_later(self, call: Callable[..., object], *args: Any) -> None:
        """Work of the thread for pieces: one after another."""
        self._pieces_free_at = self._worker_delay(self._pieces_free_at)
        self._node.later(self._pieces_free_at - self._node.simulation.timeline.now, call, *args)

    def _worker_delay(self, free_at: float) -> float:
        simulation = self._node.simulation
        delay = simulation.faults.disk_delay * self._node.disk_slowness * (0.3 + simulation.rng.random())
        if simulation.rng.random() < 0.1:
            delay *= 20
        free_at = max(free_at, self._node.disk_stalled_until)
        # However slow: a backlog of hours from a bad time would be found long after it is over.
        return min(max(free_at, simulation.timeline.now) + delay, simulation.timeline.now + 5.0)

    def carry_out(self, member: Member, orders: Orders) -> None:
        """A turn's orders."""
        if orders.build_snapshot:
            if member.snapshots.installing:
                member.snapshots.build_failed()
            else:
                self.state_later(self._built, member.capture())
        for read in orders.piece_reads:
            self._piece_later(self._piece_read, read)
        if orders.abandon_incoming:
            self._piece_later(self._abandon)
        for write in orders.piece_writes:
            self._piece_later(self._piece_written, write)
        if orders.install is not None:
            self.state_later(self._installed, orders.install)
        for handle in orders.release:
            self._piece_later(self._release, handle)

    def _built(self, capture: Capture) -> None:
        if self._node.member is None:
            return
        data = capture.node_lines
        if capture.app_pieces is not None:
            app = b"".join(capture.app_pieces)
            data += app_header(len(app), nodesconf.crc64(app)) + app
        self._node.note("built", f"snapshot {capture.index}, {len(data)} bytes")
        for unused in self._node.member.snapshots.built(capture, len(data), _Source(data)):
            self._piece_later(self._release, unused)

    def _release(self, source: _Source) -> None:
        source.closed = True

    def _piece_read(self, order: PieceRead) -> None:
        if self._node.member is not None and not order.source.closed:
            data = order.source.data[order.offset : order.offset + order.size]
            self._node.member.snapshots.piece_read(order, data, self._node.clock())

    def _abandon(self) -> None:
        self._incoming = None

    def _piece_written(self, order: PieceWrite) -> None:
        if self._node.member is None:
            return
        snapshots = self._node.member.snapshots
        if order.begin:
            self._incoming = bytearray()
        if self._incoming is None:
            snapshots.refused(order.name, "its beginning was given up")
            return
        if order.offset != len(self._incoming):
            raise StorageError(f"a piece at {order.offset}, where {len(self._incoming)} is next")
        self._incoming += order.data
        if not order.last:
            snapshots.piece_written(order.name, order.offset + len(order.data), self._node.clock())
            return
        data, self._incoming = bytes(self._incoming), None
        try:
            head = split_head(data)
            if head is None or len(data) != order.total:
                raise SnapshotError("it is not whole")
            app = None
            if head.app_length is not None:
                if nodesconf.crc64(data[head.app_offset :]) != head.app_crc:
                    raise SnapshotError("its checksum is wrong")
                app = self._node.disk.keep_app(order.index, data[head.app_offset :])
        except SnapshotError as error:
            snapshots.refused(order.name, str(error))
            return
        if not snapshots.whole(order.name, head.nodes, app, self._node.clock()) and app is not None:
            self._node.disk.apps.pop(app.name)

    def _installed(self, order: InstallOrder) -> None:
        member = self._node.member
        if member is None:
            return
        machine = self._node.machine
        if machine is not None and order.app is not None:
            sessions = self.restored(machine, order.app)
        else:
            sessions = member.new_sessions()
            if machine is not None:
                machine.restore(())
        self._node.note("install", f"snapshot {order.name[2]}")
        member.snapshots.installed(order.name, sessions, order.app, self._node.clock())
