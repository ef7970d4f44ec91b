"""The loop of a node: inputs → member → take → store → send → apply → answer.

Floor 4. It carries out what `member` orders, and decides nothing of the protocol itself. The event loop never waits
here: storage has one worker thread, state files another, pieces of snapshots a third.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .cluster.sessions import Sessions
from .config import Config
from .consensus import Standing
from .errors import NodeClosed, RaftError, SnapshotError, StorageError
from .member import (
    Capture,
    Event,
    Image,
    InstallOrder,
    Member,
    Orders,
    PieceRead,
    PieceWrite,
    Rewrite,
    StoreJob,
    join_jobs,
)
from .messages import Message
from .net import Dialer, Link
from .opening import restore_state
from .reserve import LOOK_INTERVAL, Reserve
from .storage import AppFile, IncomingSnapshot, SnapshotFile, Storage, StoredState
from .unbroken import unbroken

__all__ = ["Engine"]

_log = logging.getLogger("raftfast.node")

_EARLIER = 4
"""While the disk is short of room the file is rewritten at a log so many times smaller than otherwise."""


class Engine:
    """Runs one `Member` on the event loop.

    `failed` is set, once, when the node must end: the storage failed, the state machine raised, or an invariant broke.
    """

    def __init__(
        self,
        member: Member,
        storage: Storage,
        config: Config,
        rng: random.Random,
        disk_worker: ThreadPoolExecutor,
        on_event: Callable[[Event], None],
        extra_vars: Mapping[str, int | str] | None = None,
    ) -> None:
        """`extra_vars`: what `vars` of the file held that is a newer server's; written back as it is (NODESCONF A)."""
        self.member = member
        self.storage = storage
        self.loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self.loop.create_future()
        self.links: dict[int, Link] = {}
        self.dialer = Dialer(self, config, rng=rng)
        self.room = asyncio.Event()
        self.turned = asyncio.Event()
        self._config = config
        self._on_event = on_event
        self._disk = disk_worker
        self._extra_vars = {name: value for name, value in (extra_vars or {}).items() if name != "removed"}
        self._state_worker = ThreadPoolExecutor(1, "raftfast-state")
        self._piece_worker = ThreadPoolExecutor(1, "raftfast-pieces")
        self._jobs: deque[StoreJob | tuple[Rewrite, int | None]] = deque()
        self._jobs_queued = 0
        self._jobs_taken = 0
        self._jobs_done = 0
        self._incoming: IncomingSnapshot | None = None
        self._held: list[PieceWrite] = []
        self._lent: list[SnapshotFile] = []
        self._compacting = False
        self._compactions = 0
        self._states_begun = 0
        self._wants_rewrite = False
        self._resets = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._scheduled = False
        self._stopped = False
        self._given_back: asyncio.Future[None] | None = None
        self._room = Reserve(storage, config.disk_reserve_bytes)
        self._room_timer: asyncio.TimerHandle | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it makes no more turns."""
        return self._stopped

    async def begin(self) -> None:
        """Before the first turn: how much room the disk has is known from then on."""
        await self.loop.run_in_executor(self._disk, self._room.look)
        self._looked(None)

    # ------------------------------------------------------------------ links: LinkOwner and DialOwner

    def link_opened(self, link: Link) -> None:
        """A connection is there."""
        self.links[link.id] = link
        self._guard(self.member.link_opened, link.id, link.key, link.peer_ip, link.local_ip, self.loop.time())

    def link_messages(self, link: Link, messages: list[Message]) -> None:
        """Messages came."""
        self._guard(self.member.link_messages, link.id, messages, self.loop.time())

    def link_closed(self, link: Link, reason: str) -> None:
        """A connection is gone."""
        self.links.pop(link.id, None)
        self._guard(self.member.link_closed, link.id, reason, self.loop.time())

    def dial_failed(self, key: str, reason: str) -> None:
        """A dial came to nothing."""
        self._guard(self.member.meetings.failed, key, f"cannot connect: {reason}")

    def _guard(self, call: Callable[..., Any], *args: Any) -> None:
        """An input of the member: whatever it raises ends the node; an Exception never the loop."""
        if self._stopped:
            return
        try:
            call(*args)
        except BaseException as error:
            self.fail(error)
        self.schedule()

    # ------------------------------------------------------------------ turns

    def schedule(self) -> None:
        """Another turn is due: after what has arrived meanwhile."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _on_timer(self) -> None:
        self._timer = None
        self._guard(self.member.tick, self.loop.time())

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        member, now = self.member, self.loop.time()
        orders = Orders()
        try:
            orders = member.take(now)
            self._carry_out(orders)
            more = member.apply(now)
            self._answer(member.orders.answers)
        except BaseException as error:
            self._answer(orders.answers)  # they are decided, and the member knows of them no more
            self.fail(error)
            return
        if more or orders.busy:
            self.schedule()
        if self._timer is None or orders.wake_at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = orders.wake_at
            self._timer = self.loop.call_at(orders.wake_at, self._on_timer)
        self.room.set()  # not only by answers: what nobody waits for makes room too when it is decided
        self.room.clear()
        self.turned.set()
        self.turned.clear()

    def _carry_out(self, orders: Orders) -> None:
        for rewrite in orders.rewrites:
            self._queue((rewrite, None))  # entries of this turn follow the state that they were made on
        if orders.store is not None:
            if orders.store.image is not None and orders.store.image.reset:
                self._resets += 1
            self._queue(orders.store)
        self._start_job()
        self._send(orders)
        for number, reason in orders.closes:
            if number in self.links:
                self.links[number].close(reason)
        for number in orders.identified:
            link = self.links.get(number)
            if link is not None and link.key is not None:
                self.dialer.succeeded(link.key)
        if orders.dial is not None:
            self.dialer.want(orders.dial)
        self._carry_out_snapshots(orders)
        self._answer(orders.answers)
        for event in orders.events:
            self._on_event(event)
        for severity, text in orders.log:
            _log.log(severity, text)
        self._wants_rewrite = self._wants_rewrite or orders.wants_rewrite
        if self._wants_rewrite:
            self.compact(moves=False)

    def _send(self, orders: Orders) -> None:
        """One write a link: all of a turn's messages to it are joined."""
        if not orders.sends:
            return
        by_link: dict[int, list[Message]] = {}
        for number, message in orders.sends:
            by_link.setdefault(number, []).append(message)
        for number, messages in by_link.items():
            link = self.links.get(number)
            if link is not None:
                link.send_many(messages)

    def _answer(self, answers: list[tuple[Any, Any, Exception | None]]) -> None:
        for token, result, error in answers:
            if token.done():
                continue
            if error is None:
                token.set_result(result)
            else:
                token.set_exception(error)
        answers.clear()

    # ------------------------------------------------------------------ storage

    def _queue(self, job: StoreJob | tuple[Rewrite, int | None]) -> None:
        self._jobs.append(job)
        self._jobs_queued += 1

    @property
    def _job_running(self) -> bool:
        return self._jobs_done < self._jobs_taken

    def _start_job(self) -> None:
        """One job at a time; what queued up meanwhile is one write and one sync: group commit."""
        if self._job_running or not self._jobs or self._stopped:
            return
        first = self._jobs.popleft()
        if isinstance(first, StoreJob):
            job = join_jobs(first, self._jobs)
            self._submit(self._disk, lambda: self._store(job), lambda _: self._stored(job))
        else:
            rewrite, life = first
            self._submit(self._disk, lambda: self._rewrite(rewrite, life), lambda _: self._rewritten(rewrite))
        self._jobs_taken = self._jobs_queued - len(self._jobs)

    def _store(self, job: StoreJob) -> None:
        hard_state = job.hard_state
        if job.image is not None:
            stored = self._stored_state(job.image)
            self.storage.rewrite(stored, job.keep_above, hard_state=hard_state, reset=job.image.reset)
            hard_state = None
        self.storage.append(hard_state, job.truncate_from, job.first_index, job.lines)
        self._room.look()

    def _stored_state(self, image: Image) -> StoredState:
        return StoredState(
            nodes=image.nodes,
            last_applied=image.last_applied,
            snapshot_term=image.snapshot_term,
            cluster_id=image.cluster_id,
            joining=image.joining,
            raft_leader=image.raft_leader,
            app=image.app,
            extra={**self._extra_vars, "removed": "1"} if image.removed else self._extra_vars,
        )

    def _stored(self, job: StoreJob) -> None:
        self._jobs_done = self._jobs_taken
        self.member.stored(job.ticket, self.loop.time())
        self._note_room()
        self._start_job()
        if self._file_has_grown():
            self.compact()

    def _rewrite(self, rewrite: Rewrite, life: int | None) -> None:
        """`life`: of the state that a compaction captured; None: this is no compaction, and must be carried out."""
        overtaken = life is not None and (
            life != self._resets or rewrite.image.last_applied < self.storage.stored_index
        )
        if overtaken:  # a snapshot was installed meanwhile, or the node was reset: its old state must not come back
            if rewrite.image.app is not None:
                self.storage.discard_app(rewrite.image.app)
            return
        self.storage.rewrite(self._stored_state(rewrite.image), rewrite.keep_above)
        self._room.look()

    def _rewritten(self, rewrite: Rewrite) -> None:
        self._jobs_done = self._jobs_taken
        self._note_room()
        if rewrite.token:
            self.member.rewritten(rewrite.token, self.loop.time())
        else:
            self._compacting = False
            self.schedule()
        self._start_job()

    def _submit(self, worker: ThreadPoolExecutor, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Runs `work` in a thread and `then(its result)` on the loop; an error of either ends the node."""

        def done(future: Future[Any]) -> None:
            if not self._stopped:
                with contextlib.suppress(RuntimeError):  # the loop was closed under us: nobody is left to tell
                    self.loop.call_soon_threadsafe(self._finish, future, then)

        worker.submit(work).add_done_callback(done)

    def _submit_state(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Work that reads or replaces the whole state of the state machine."""
        self._states_begun += 1
        self._submit(self._state_worker, work, then)

    async def rest_of_states(self) -> None:
        """Waits until no other thread reads or replaces the state machine's state, and until this is still so when its
        caller goes on. Returns at once where the node has ended."""
        begun = -1
        while not self._stopped and (begun != self._states_begun or self.member.snapshots.installing):
            begun = self._states_begun
            await asyncio.wrap_future(self._state_worker.submit(int))  # behind all that was begun

    def _finish(self, future: Future[Any], then: Callable[[Any], None]) -> None:
        if self._stopped:
            return
        error = future.exception()
        if error is not None:
            self.fail(error if isinstance(error, Exception) else StorageError(f"a worker thread ended: {error!r}"))
            return
        self._guard(then, future.result())

    def _look_at_room(self) -> None:
        """Also where nothing is stored: others fill and empty the disk too."""
        self._submit(self._disk, self._room.look, self._looked)

    def _looked(self, _: None) -> None:
        if self._stopped:
            return
        self._note_room()
        if self._room.shortage and self._file_has_grown():
            self.compact()
        if self._held and self._room.has_room_for(self._held[0].total):
            held, self._held = self._held, []
            for order in held:
                self._write_piece(order)
        self._room_timer = self.loop.call_later(LOOK_INTERVAL, self._look_at_room)

    def _note_room(self) -> None:
        if self.member.no_room != self._room.shortage:
            self.member.no_room = self._room.shortage
            _log.warning("%s", self._room.shortage or "the disk has room again: commands are taken")

    # ------------------------------------------------------------------ compaction of the file

    def _file_has_grown(self) -> bool:
        """Whether a rewrite gives back enough for what it writes: the state, and a copy of what is not applied."""
        config, storage, raft = self._config, self.storage, self.member.raft
        factor = config.rewrite_factor / _EARLIER if self._room.shortage else config.rewrite_factor
        gone, kept = storage.bytes_up_to(raft.last_applied)
        limit = max(config.rewrite_min_bytes, factor * storage.state_bytes, kept)
        return gone > limit and raft.last_applied > storage.stored_index

    def compact(self, *, moves: bool = True) -> bool:
        """Moves the stored state up to what is applied now: app state first, then one atomic rewrite. Whether begun.

        `moves` False: also where the index stays, since something else about the node has changed. Without room for it
        on the disk it is not begun: a node that goes on with a long log is better than one that ends.
        """
        member = self.member
        ready = member.standing in (Standing.MEMBER, Standing.REMOVED) and not member.snapshots.installing
        ready = ready and self._room.has_room_to_rewrite()
        if self._compacting or not ready or member.raft.last_applied < self.storage.stored_index + moves:
            return False
        self._compacting = True
        self._compactions += 1
        self._wants_rewrite = False
        capture, life = member.capture(), self._resets

        def write() -> AppFile | None:
            if capture.app_pieces is None:
                return None
            return self.storage.write_app(capture.index, capture.app_pieces, lambda: self._stopped)

        def queue(app: AppFile | None) -> None:
            image = capture.image if app is None else replace(capture.image, app=app)
            self._queue((Rewrite(0, image, capture.index), life))
            self._start_job()

        self._submit_state(write, queue)
        return True

    # ------------------------------------------------------------------ snapshots

    def _carry_out_snapshots(self, orders: Orders) -> None:
        if orders.build_snapshot:
            self._build()
        for read in orders.piece_reads:
            self._read_piece(read)
        if orders.abandon_incoming:
            self._held.clear()
            self._submit(self._piece_worker, self._abandon, lambda _: None)
        for write in orders.piece_writes:
            self._write_piece(write)
        if orders.install is not None:
            self._install(orders.install)
        for handle in orders.release:
            self.take_back(handle)

    def _build(self) -> None:
        member = self.member
        if member.snapshots.installing or not self._room.has_room_to_rewrite():
            member.snapshots.build_failed()  # who needs it is served in a later turn
            return
        capture = member.capture()

        def built(file: SnapshotFile) -> None:
            for unused in member.snapshots.built(capture, file.total, file):
                self.take_back(unused)

        self._submit_state(lambda: self._write_snapshot(capture), built)

    def _write_snapshot(self, capture: Capture) -> SnapshotFile:
        file = self.storage.write_outgoing(
            capture.node_lines, pieces=capture.app_pieces, index=capture.index, cancelled=lambda: self._stopped
        )
        self._lent.append(file)  # already here: our end closes it also where nobody waits for it any more
        return file

    async def lend_snapshot(self) -> tuple[Capture, SnapshotFile]:
        """The state as of what is applied now, written to a file that is kept until `take_back`, or the node's end.

        Raises StorageError where there is no room or it can't be written; the node goes on.
        """
        while self.member.snapshots.installing and not self._stopped:
            await self.turned.wait()
        if self._stopped:
            raise NodeClosed("the node is closed")
        if self._room.shortage:
            raise StorageError(self._room.shortage)
        capture = self.member.capture()
        self._states_begun += 1
        writing = self._state_worker.submit(self._write_snapshot, capture)
        try:
            return capture, await asyncio.wrap_future(writing)
        except SnapshotError:
            if self._stopped:  # `write_outgoing` was cancelled
                raise NodeClosed("the node is closed") from None
            raise
        except asyncio.CancelledError:
            if not self._stopped:
                self._submit(self._state_worker, lambda: self._give_up(writing), lambda _: None)
            raise

    def _give_up(self, writing: Future[SnapshotFile]) -> None:
        """Behind the writing of a snapshot that nobody waits for: if it was written, its file goes."""
        if not writing.cancelled() and writing.exception() is None:
            self._lent.remove(writing.result())
            writing.result().close()

    async def read_lent(self, file: SnapshotFile, offset: int, size: int) -> bytes:
        """Bytes of a snapshot that was lent. Raises StorageError."""
        if self._stopped:
            raise NodeClosed("the node is closed")
        return await self.loop.run_in_executor(self._piece_worker, file.read, offset, size)

    def take_back(self, file: SnapshotFile) -> None:
        """A snapshot, lent or to be sent, is read no more: its file goes."""
        if file in self._lent and not self._stopped:
            self._lent.remove(file)
            self._submit(self._piece_worker, file.close, lambda _: None)

    def _read_piece(self, order: PieceRead) -> None:
        def done(data: bytes | None) -> None:
            if data is None:
                self.member.snapshots.piece_failed(order)
            else:
                self.member.snapshots.piece_read(order, data, self.loop.time())

        def read() -> bytes | None:
            try:
                data: bytes = order.source.read(order.offset, order.size)
            except StorageError as error:
                if self.storage.failed is not None:
                    raise
                _log.warning("a snapshot is not sent on: %s", error)
                return None
            return data

        self._submit(self._piece_worker, read, done)

    def _write_piece(self, order: PieceWrite) -> None:
        """Held, with those that follow it, while the disk has no room for the whole: its sender waits, and sends on."""
        if order.begin:
            self._held.clear()
            if not self._room.has_room_for(order.total):
                _log.warning("a snapshot of %d bytes waits for room on the disk", order.total)
                self._held.append(order)
                return
        if self._held:
            self._held.append(order)
            return

        def write() -> tuple[bytes, AppFile | None] | SnapshotError | None:
            try:
                if order.begin:
                    self._abandon()
                    self._incoming = self.storage.incoming(order.index, order.total)
                if self._incoming is None:
                    return SnapshotError("its beginning was given up")
                self._incoming.write(order.offset, order.data)
                return self._incoming.finish() if order.last else None
            except SnapshotError as error:
                return error

        def done(result: tuple[bytes, AppFile | None] | SnapshotError | None) -> None:
            snapshots, now = self.member.snapshots, self.loop.time()
            if isinstance(result, SnapshotError):
                snapshots.refused(order.name, str(result))
            elif result is None:
                snapshots.piece_written(order.name, order.offset + len(order.data), now)
            elif not snapshots.whole(order.name, *result, now) and result[1] is not None:
                self._discard(result[1])

        self._submit(self._piece_worker, write, done)

    def _abandon(self) -> None:
        if self._incoming is not None:
            self._incoming.abandon()
            self._incoming = None

    def _discard(self, app: AppFile) -> None:
        self._submit(self._piece_worker, lambda: self.storage.discard_app(app), lambda _: None)

    def _install(self, order: InstallOrder) -> None:
        member = self.member

        def restore() -> Sessions | SnapshotError:
            try:
                return restore_state(self.storage, order.app, member.state_machine, member.new_sessions(), self._config)
            except SnapshotError as error:
                return error

        def done(result: Sessions | SnapshotError) -> None:
            # From here on the app file belongs to the rewrite that stores it: nothing may abandon it any more.
            self._piece_worker.submit(self._let_go)
            if isinstance(result, SnapshotError):
                member.snapshots.refused(order.name, str(result))
                if order.app is not None:
                    self._discard(order.app)
            else:
                member.snapshots.installed(order.name, result, order.app, self.loop.time())

        self._submit_state(restore, done)

    def _let_go(self) -> None:
        self._incoming = None

    # ------------------------------------------------------------------ the end

    def fail(self, error: BaseException) -> None:
        """The node can't go on: it stops acknowledging at once, everybody who waits is told, links are cut.

        What is no Exception (SystemExit, KeyboardInterrupt) is for who runs the loop, and is raised on behind that.
        """
        if not self._stopped:
            if isinstance(error, RaftError):
                _log.critical("the node stops: %s", error)
            else:
                _log.critical("the node stops: %r", error, exc_info=error)
            reason = str(error) if isinstance(error, Exception) else repr(error)
            self.stop(lambda sent: NodeClosed(f"the node stopped: {reason}").once_sent(sent))
            if not self.failed.done():
                self.failed.set_exception(error if isinstance(error, Exception) else NodeClosed(f"ended by {reason}"))
                self.failed.exception()  # it is looked at by who waits for it; nobody has to
        if not isinstance(error, Exception):
            raise error

    async def settle(self) -> None:
        """Waits until what is queued for storage now is stored, and a compaction that runs then is over, whatever comes
        behind them. Returns at once where the node failed.
        """
        queued = self._jobs_queued
        while self._jobs_done < queued and not self._stopped:
            await self.turned.wait()
        compaction = self._compactions
        while self._compacting and self._compactions == compaction and not self._stopped:
            await self.turned.wait()

    async def next_turn(self) -> None:
        """Has a turn made, and waits for its end, or that of the node. Who only waits for a change awaits `turned`."""
        self.schedule()
        await self.turned.wait()

    def stop(self, error: Callable[[bool], Exception]) -> None:
        """No more turns; who waits is told `error(sent)`."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._room_timer is not None:
            self._room_timer.cancel()
        self.member.close(error)
        self._answer(self.member.orders.answers)
        self.room.set()
        self.turned.set()
        for link in list(self.links.values()):
            link.close("the node is closing")

    async def close(self) -> None:
        """After `stop`: links and threads end, the folder is given up, also where this is cancelled. Idempotent."""
        try:
            await self.dialer.close()
        finally:
            if self._given_back is None:
                self._given_back = self.loop.run_in_executor(None, self._give_back)
            await unbroken(self._given_back)
            self._given_back.result()

    def _give_back(self) -> None:
        """Blocking. One step, of which nothing is left out for an error in another part of it."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.storage.close)
            for worker in (self._state_worker, self._piece_worker, self._disk):
                worker.shutdown(True)
            for file in self._lent:
                last_first.callback(file.close)
            last_first.callback(self._abandon)
