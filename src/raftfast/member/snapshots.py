"""Snapshots of a member, both ways: when to build and send one, how one that arrives is taken.

Floor 3. Bytes are read and written by the node; this file orders it and says what follows (PROTOCOL 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..cluster.entries import App, parse_entry
from ..cluster.sessions import Duplicate, Sessions
from ..cluster.snapshot import node_lines, parse_nodes, session_part
from ..cluster.state import ClusterState, Kind
from ..consensus import ProgressState, Standing
from ..consensus.leading import Leadership
from ..errors import SnapshotError
from ..messages import InstallSnapshot, Message, SnapshotAck, SnapshotPiece
from .incoming import Incoming
from .links import LinkInfo
from .orders import Capture, InstallOrder, PieceRead
from .outgoing import Source, Transfer, Transfers

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Snapshots"]

_MOST_TAIL_FACTOR = 64

_FRAME_MARGIN = 256
"""More than the frame's header and the first line of INSTALL_SNAPSHOT take."""


class Snapshots:
    """The transfers of a leader, and the one snapshot that a follower takes."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._out = Transfers(member.config)
        self._tail_factor = 1
        self._in = Incoming(member.config)
        self._in_begun = False
        self._state: ClusterState | None = None
        self._asked_meanwhile: tuple[int, InstallSnapshot | SnapshotPiece] | None = None
        self._installed: tuple[int, Any] = (0, None)

    # ------------------------------------------------------------------ the state

    def capture(self) -> Capture:
        """The whole state as of what is applied now."""
        member = self._member
        index = member.raft.last_applied
        pieces = None
        if member.state_machine is not None:
            pieces = chain(_table(member.sessions.copy()), member.state_machine.snapshot())
        term, members = member.raft.log.term_at(index), frozenset(member.state.nodes)
        return Capture(index, term, node_lines(member.state), pieces, member.storing.image(), members)

    def installed_app(self, last_applied: int) -> Any:
        """The app state file of the snapshot that was installed, where nothing was applied since."""
        return self._installed[1] if self._installed[0] == last_applied else None

    def reset(self) -> None:
        """The node drops all that it took."""
        self._give_up_incoming()
        self.stop_sending()
        self._installed = (0, None)

    # ------------------------------------------------------------------ sending

    def serve(self, leadership: Leadership, peers: list[str], now: float) -> None:
        """`peers` need a snapshot: transfers begin, where one is at hand; else one is ordered. Called each turn."""
        boundary = self._member.raft.log.boundary_index
        self._member.orders.release.extend(self._out.unused(boundary))
        if not (peers or self._out.running):
            return
        for peer, transfer in list(self._out.running.items()):
            progress = leadership.peers.get(peer)
            if progress is None:
                self._out.drop(peer)
            elif progress.state is not ProgressState.SNAPSHOT or progress.match_index >= transfer.source.index:
                progress.snapshot_index = 0
                self._out.ended(peer, now)
                # One that ends below the boundary was for nothing: the next one finds twice the tail kept behind it.
                enough = transfer.source.index >= boundary
                self._tail_factor = 1 if enough else min(2 * self._tail_factor, _MOST_TAIL_FACTOR)
                self._member.raft.keep_tail(self._tail_factor)
                self._member.count("snapshots_sent")
                self._member.event("snapshot-sent", peer)
            elif transfer.must_ask(now, self._member.config.node_timeout / 4):
                self._send_piece(peer, transfer.source, transfer.wanted, b"", now)
        for peer in peers:
            if not self._out.may_begin(peer, now):
                continue
            changed = self._member.neighbours.newest_change(peer)
            if changed > self._member.raft.last_applied:
                continue  # our state may name it in an earlier life, whose NODE_FORGET it would take for news
            source = self._out.usable(peer, max(boundary, changed))
            if source is not None:
                self._begin(leadership, peer, source, now)
            elif not self._out.building and peer in self._member.state.nodes:
                self._out.building = True
                self._member.orders.build_snapshot = True

    def _begin(self, leadership: Leadership, peer: str, source: Source, now: float) -> None:
        member = self._member
        transfer = self._out.begin(peer, source, now)
        leadership.snapshot_began(peer, source.index)
        if not source.has_app and source.total <= member.config.max_frame - _FRAME_MARGIN:
            # Valkey's form, since a frame can hold it
            transfer.goes_whole()
            member.orders.piece_reads.append(PieceRead(peer, source.handle, 0, source.total))
        else:
            self._send_piece(peer, source, 0, b"", now)  # only asks what is wanted

    def built(self, capture: Capture, total: int, handle: Any) -> list[Any]:
        """The snapshot that was ordered is written. Returns the handles that nobody needs any more, to be let go.

        Transfers from the one that it replaces go on: a member that takes long would begin anew with each that joins.
        """
        self._out.building = False
        # A RESET may have come between: the state of the cluster that this node was in is none of the one it leads now.
        if self._member.raft.leadership is None or capture.image.cluster_id != self._member.cluster_id:
            return [handle]
        self._out.replace(Source(capture, total, handle))
        self._member.orders.busy = True
        return self._out.unused(0)

    def build_failed(self) -> None:
        """The snapshot that was ordered could not be written."""
        self._out.building = False

    def _send_piece(self, peer: str, source: Source, offset: int, data: bytes, now: float) -> None:
        raft = self._member.raft
        piece = SnapshotPiece(
            self._member.node_id, raft.current_term, source.index, source.term, offset, source.total, data
        )
        self._member.links.send_to(peer, piece, now)
        self._vouch(peer, source)

    def _vouch(self, peer: str, source: Source) -> None:
        leadership = self._member.raft.leadership
        if leadership is not None and peer in leadership.peers:
            leadership.peers[peer].snapshot_sent(source.index)

    def piece_read(self, order: PieceRead, data: bytes, now: float) -> None:
        """The bytes of an ordered piece are here."""
        member = self._member
        transfer = self._out.running.get(order.peer)
        if transfer is None or transfer.source.handle is not order.source or not member.raft.is_leader:
            return
        source = transfer.source
        if not source.has_app and len(data) == source.total:
            message = InstallSnapshot(member.node_id, member.raft.current_term, source.index, source.term, data)
            member.links.send_to(order.peer, message, now)
            self._vouch(order.peer, source)
        else:
            self._send_piece(order.peer, source, order.offset, data, now)

    def piece_failed(self, order: PieceRead) -> None:
        """A piece can't be read: its snapshot is given up, and whoever needs it gets another one from the beginning."""
        out = self._out
        for peer, transfer in list(out.running.items()):
            if transfer.source.handle is order.source:
                out.put_off(peer, self._member.now)
                self._drop_progress(peer)
        if out.source is not None and out.source.handle is order.source:
            out.replace(None)

    def on_ack(self, peer: str, ack: SnapshotAck) -> None:
        """A receiver says what it wants next."""
        transfer = self._out.running.get(peer)
        raft = self._member.raft
        if transfer is None or not raft.is_leader or ack.term != raft.current_term:
            return
        if ack.last_included_index == transfer.source.index:
            transfer.answered(ack.next_offset, self._member.now)
            self._order_reads(peer, transfer)

    def _order_reads(self, peer: str, transfer: Transfer) -> None:
        self._member.orders.piece_reads.extend(transfer.next_reads(peer, self._member.config))

    def link_down(self, peer: str) -> None:
        """The outbound link to `peer` is gone: see `Transfers.link_down`."""
        self._out.link_down(peer, self._member.now)

    def _drop_progress(self, peer: str) -> None:
        leadership = self._member.raft.leadership
        if leadership is not None and peer in leadership.peers:
            leadership.peers[peer].snapshot_index = 0

    def stop_sending(self) -> None:
        """This node leads no more."""
        self._member.orders.release.extend(self._out.drop_all())

    # ------------------------------------------------------------------ taking

    @property
    def installing(self) -> bool:
        """Whether a snapshot is being installed: nothing is applied meanwhile."""
        return self._in.installing

    def receive(self, info: LinkInfo, message: Message, now: float) -> None:
        """INSTALL_SNAPSHOT or SNAPSHOT_PIECE."""
        if not isinstance(message, (InstallSnapshot, SnapshotPiece)):
            return
        raft, sender = self._member.raft, info.node_id or ""
        if not raft.hears_leader(sender, message.leader_id, message.term, now, info.link):
            return
        if raft.snapshot_is_stale(message.last_included_index):
            if not self._in.installing:
                self._give_up_incoming()
            raft.answer_snapshot(sender, message.last_included_index, now, info.link)
            return
        total = message.total if isinstance(message, SnapshotPiece) else len(message.data)
        name = (message.leader_id, message.term, message.last_included_index, message.last_included_term, total)
        if self._in.installing or (self._in.name == name and self._in.ordered == total):
            self._receive_while_busy(info, message, name, now)
        elif isinstance(message, InstallSnapshot):
            self._give_up_incoming()
            self._in.begin(name, sender, info.link)
            self._in.ordered = total
            self._take_whole(message.data, None)
        else:
            self._take_piece(info, message, name, now)

    def _receive_while_busy(
        self,
        info: LinkInfo,
        message: InstallSnapshot | SnapshotPiece,
        name: tuple[str, int, int, int, int],
        now: float,
    ) -> None:
        """All of a snapshot is here and on its way to be installed."""
        if name != self._in.name:
            self._asked_meanwhile = (info.link, message)  # taken when the install is over; its sender waits till then
            return
        self._in.link = info.link
        if isinstance(message, SnapshotPiece):
            self._answer_piece(info.link, message, self._in.ordered, now)

    def _take_piece(
        self, info: LinkInfo, piece: SnapshotPiece, name: tuple[str, int, int, int, int], now: float
    ) -> None:
        if name != self._in.name:
            self._give_up_incoming()
            self._in.begin(name, info.node_id or "", info.link)
        self._in.link = info.link
        write = self._in.take(piece, not self._in_begun)
        if write is not None:
            self._in_begun = True
            self._member.orders.piece_writes.append(write)
        elif not self._in.is_full:  # answered by the next write: till then each answer would have a window sent in vain
            self._answer_piece(info.link, piece, self._in.ordered, now)

    def _answer_piece(self, link: int, piece: SnapshotPiece, next_offset: int, now: float) -> None:
        ack = SnapshotAck(self._member.raft.current_term, piece.last_included_index, next_offset)
        self._member.links.reply(link, ack, now)

    def piece_written(self, name: tuple[str, int, int, int, int], next_offset: int, now: float) -> None:
        """A piece, not the last one, is written."""
        if name == self._in.name:
            self._in.wrote(next_offset)
            ack = SnapshotAck(self._member.raft.current_term, name[2], next_offset)
            self._member.links.reply(self._in.link, ack, now)

    def whole(self, name: tuple[str, int, int, int, int], head: bytes, app: Any, now: float) -> bool:
        """All pieces are written, and the checksum is right. Whether `app` is wanted; if not, it may be let go."""
        if name != self._in.name or self._in.installing:
            return False
        return self._take_whole(head, app)

    def _take_whole(self, head: bytes, app: Any) -> bool:
        incoming, raft = self._in, self._member.raft
        if incoming.name is None:
            return False
        if raft.snapshot_is_stale(incoming.name[2]):
            raft.answer_snapshot(incoming.sender, incoming.name[2], self._member.now, incoming.link)
            incoming.clear()
            return False
        try:
            self._state = parse_nodes(head, incoming.sender, self._member.node_id)
        except SnapshotError as error:
            self.refused(incoming.name, str(error))
            return False
        incoming.installing = True
        self._member.orders.install = InstallOrder(incoming.name, app)
        return True

    def refused(self, name: tuple[str, int, int, int, int], reason: str) -> None:
        """The snapshot is not taken, and nothing has changed."""
        if name != self._in.name:
            return
        member = self._member
        info = member.links.infos.get(self._in.link)
        self._in.clear()
        self._in_begun = False
        self._state = None
        member.count("snapshots_refused")
        member.report(f"the snapshot of {name[0]} at index {name[2]} is refused: {reason}")
        if info is not None:
            member.links.close(info, "its snapshot is refused")
        self._after_install(member.now)

    def installed(self, name: tuple[str, int, int, int, int], sessions: Sessions, app: Any, now: float) -> None:
        """Sessions and state machine are restored: the rest of the state follows in this one step."""
        member, state = self._member, self._state
        if name != self._in.name or state is None:
            return
        sender, link = self._in.sender, self._in.link
        self._in.clear()
        self._in_begun = False
        self._state = None
        member.raft.install(name[2], name[3], state.voters(), now, sender, link)
        self._installed = (name[2], app)
        member.installed_state(state, sessions)
        member.caught_up_by = "snapshot"
        member.count("snapshots_installed")
        member.event("snapshot-installed", sender)
        member.log(20, f"Installed snapshot of {sender}: index {name[2]}, term {name[3]}, {name[4]} bytes")
        if member.standing is Standing.JOINER:
            member.lifecycle.became_member(now)
        else:
            member.lifecycle.propose_own_address(now)
        self._settle_proposals()
        self._after_install(now)

    def _settle_proposals(self) -> None:
        """Own proposals that the snapshot covers complete; the others are sent again (PROTOCOL 7)."""
        member = self._member
        for proposal in list(member.proposals.pending):
            entry = parse_entry(proposal.entry)
            if isinstance(entry, App):
                if entry.client_id is None:
                    continue
                look = member.sessions.look(entry.client_id, entry.sequence)
                if isinstance(look, Duplicate):
                    member.proposals.complete(proposal.key, *member.applier.outcome_of(look))
            elif proposal.sent_count and member.state.check(entry).kind is Kind.HOLDS:
                member.proposals.complete(proposal.key, None, None)
        member.proposals.send_all_again()

    def _after_install(self, now: float) -> None:
        asked, self._asked_meanwhile = self._asked_meanwhile, None
        if asked is not None:
            info = self._member.links.infos.get(asked[0])
            if info is not None:
                self.receive(info, asked[1], now)

    def drop_if_overtaken(self) -> None:
        """What is arriving can't be wanted any more: its leader's term is over, or all of it is committed here.

        Nobody else would say so: its sender may be gone, and who leads now may have sent entries. What is all here
        stays: its last write or its install is under way, and says how it ends.
        """
        incoming, raft = self._in, self._member.raft
        if incoming.name is None or incoming.ordered == incoming.total:
            return
        if incoming.name[1] != raft.current_term or raft.snapshot_is_stale(incoming.name[2]):
            self._give_up_incoming()

    def _give_up_incoming(self) -> None:
        if self._in_begun:
            self._member.orders.abandon_incoming = True
            self._member.orders.piece_writes.clear()  # they would be carried out after it
        self._in.clear()
        self._in_begun = False
        self._state = None


def _table(sessions: Sessions) -> Iterator[bytes]:
    """The session table as bytes, made only where it is read: it may hold gigabytes of results."""
    yield session_part(sessions)
