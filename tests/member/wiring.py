"""Pure `Member`s wired to each other by hand: ordered links, disks in memory, time that stands until it is moved.

For tests that need one exact execution. Nothing is random: a test says what is held back, cut or delayed.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raftfast import StateMachine
from raftfast.cluster.sessions import Sessions
from raftfast.cluster.snapshot import app_header, split_head, split_sessions
from raftfast.config import Config
from raftfast.hot import nodesconf
from raftfast.member import Identity, InstallOrder, Member, Orders, Origin, PieceWrite, StoreJob
from raftfast.messages import Message
from raftfast.records import Address, HardState, NodesConf


class Commands(StateMachine):
    """A list of the commands that it applied; a command's answer is how many there are."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, index: int, command: bytes) -> bytes:
        self.applied.append(command)
        return b"%d" % len(self.applied)

    def snapshot(self) -> Iterable[bytes]:
        return [command + b"\n" for command in self.applied]

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.applied = b"".join(pieces).split(b"\n")[:-1]


@dataclass
class Token:
    """Who waits: what was answered, once."""

    answered: bool = False
    result: Any = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        return self.answered and self.error is None


@dataclass
class Disk:
    """What is durable of a node."""

    image: Any = None
    hard: HardState = field(default_factory=lambda: HardState(0, None))
    lines: list[bytes] = field(default_factory=list)

    @property
    def last_index(self) -> int:
        return self.image.last_applied + len(self.lines)

    def store(self, job: StoreJob) -> None:
        if job.image is not None:
            self.rewrite(job.image, job.keep_above)
        self.hard = job.hard_state or self.hard
        if job.truncate_from is not None:
            del self.lines[max(0, job.truncate_from - self.image.last_applied - 1) :]
        lines = job.lines[max(0, self.image.last_applied + 1 - job.first_index) :]
        assert not lines or max(job.first_index, self.image.last_applied + 1) == self.last_index + 1
        self.lines += lines

    def rewrite(self, image: Any, keep_above: int | None) -> None:
        kept = [] if keep_above is None else self.lines[keep_above - self.image.last_applied if self.image else 0 :]
        self.image, self.lines = image, kept
        if image.reset:
            self.hard = HardState(0, None)

    def conf(self) -> NodesConf:
        image, pairs = self.image, {}
        pairs.update(currentTerm=self.hard.current_term, lastApplied=image.last_applied)
        pairs.update(snapshotTerm=image.snapshot_term)
        for name, value in (("votedFor", self.hard.voted_for), ("clusterId", image.cluster_id)):
            if value is not None:
                pairs[name] = value
        if image.joining:
            pairs["joining"] = 1
        if image.removed:
            pairs["removed"] = "1"
        first = image.last_applied + 1
        entries = tuple((first + i, int(line.split(b" ")[0]), line) for i, line in enumerate(self.lines))
        # There and back as text: what is stored is what a file can hold.
        return nodesconf.parse(nodesconf.dump(NodesConf(nodes=image.nodes, vars=pairs, entries=entries)))


class Host:
    """A node: its member, its disk, its state machine, its ends of links."""

    def __init__(self, wiring: Wiring, name: str, number: int) -> None:
        self.wiring = wiring
        self.name = name
        self.id = f"{number:040x}"
        self.shard = f"{number + 0xAAAA:040x}"
        self.address = Address(f"10.0.0.{number}", 7000, 17000, "", {"tls-port": "0"})
        self.disk = Disk()
        self.machine: Any = wiring.machine()
        self.up = False
        self.ids = (f"{number:04x}{count:036x}" for count in itertools.count())
        self.disk_held = False
        self.install_held = False
        self.jobs: deque[Any] = deque()
        self.installs: deque[Any] = deque()
        self.wanted: dict[str, tuple[str, int]] = {}
        self.meets: dict[str, tuple[str, int]] = {}
        self.incoming = b""
        self.said: list[str] = []

    def start(self) -> None:
        if self.disk.image is None:
            origin, sessions = Origin.fresh(Identity(self.id, self.shard, self.address)), None
        else:
            self.machine, sessions = self.wiring.machine(), None
            origin = Origin.of_file(self.disk.conf(), self.address)
            if self.disk.image.app is not None:
                sessions = self.restore(self.disk.image.app)
        config = self.wiring.config
        rng = random.Random(self.id)

        def new_id() -> str:
            return next(self.ids)

        self.member = Member(origin, config, rng, new_id, self.machine, sessions, now=self.wiring.now)
        if self.disk.image is None:
            self.member.storing.order_rewrite(None)
        self.up = True

    def crash(self) -> None:
        """Only what is durable stays; links are cut."""
        self.up = False
        self.jobs.clear()
        self.installs.clear()
        self.wanted, self.meets = {}, {}
        self.wiring.cut_all(self)

    def restore(self, app: bytes) -> Sessions:
        config = self.wiring.config
        table, rest = split_sessions([app])
        sessions = Sessions.decode(table, config.session_window, config.session_result_bytes, config.max_sessions)
        self.machine.restore(rest)
        return sessions

    # What a turn orders.

    def turn(self) -> bool:
        """One turn. Whether anything came of it."""
        now = self.wiring.now
        orders = self.member.take(now)
        busy = self.carry_out(orders)
        before = self.member.raft.last_applied
        self.member.apply(now)
        self.member.raft.check()
        self.answer(self.member.orders.answers)
        return busy or orders.busy or self.member.raft.last_applied != before

    def carry_out(self, orders: Orders) -> bool:
        self.jobs.extend(orders.rewrites)
        if orders.store is not None:
            self.jobs.append(orders.store)
        for link, message in orders.sends:
            self.wiring.post(link, message)
        for link, reason in orders.closes:
            self.wiring.cut(link, reason)
        if orders.dial is not None:
            self.wanted = dict(orders.dial)
        if orders.build_snapshot:
            capture = self.member.capture()
            data = capture.node_lines
            if capture.app_pieces is not None:
                app = b"".join(capture.app_pieces)
                data += app_header(len(app), nodesconf.crc64(app)) + app
            self.member.snapshots.built(capture, len(data), data)
        for read in orders.piece_reads:
            data = read.source[read.offset : read.offset + read.size]
            self.member.snapshots.piece_read(read, data, self.wiring.now)
        for write in orders.piece_writes:
            self.write_piece(write)
        if orders.install is not None:
            self.installs.append(orders.install)
        self.answer(orders.answers)
        self.said += [text for _, text in orders.log]
        if orders.wants_rewrite:
            self.compact()
        return bool(orders.sends or orders.closes or orders.store or orders.rewrites or orders.install)

    def write_piece(self, write: PieceWrite) -> None:
        snapshots, now = self.member.snapshots, self.wiring.now
        self.incoming = (b"" if write.begin else self.incoming) + write.data
        if not write.last:
            snapshots.piece_written(write.name, write.offset + len(write.data), now)
            return
        head = split_head(self.incoming)
        app = self.incoming[head.app_offset :] if head.app_length is not None else None
        snapshots.whole(write.name, head.nodes, app, now)

    def compact(self) -> None:
        if self.member.raft.last_applied > self.disk.image.last_applied and not self.member.snapshots.installing:
            capture = self.member.capture()
            app = None if capture.app_pieces is None else b"".join(capture.app_pieces)
            image = self.member.storing.image(app=app)
            self.jobs.append((image, capture.index))

    def answer(self, answers: list[Any]) -> None:
        for token, result, error in answers:
            assert not token.answered, "answered twice"
            token.answered, token.result, token.error = True, result, error
        answers.clear()

    # What is done in the background.

    def do_jobs(self) -> bool:
        did = bool(self.jobs) and not self.disk_held
        while self.jobs and not self.disk_held:
            self.do_job()
        while self.installs and not self.install_held:
            did = True
            self.do_install(self.installs.popleft())
        return did

    def do_job(self) -> None:
        """The oldest storage job alone."""
        job, now = self.jobs.popleft(), self.wiring.now
        if isinstance(job, StoreJob):
            self.disk.store(job)
            self.member.stored(job.ticket, now)
        elif len(job) == 2:
            if job[1] > self.disk.image.last_applied:
                self.disk.rewrite(*job)
        else:
            self.disk.rewrite(job.image, job.keep_above if self.disk.image is not None else None)
            self.member.rewritten(job.token, now)

    def do_install(self, order: InstallOrder) -> None:
        sessions = self.restore(order.app) if order.app is not None else self.member.new_sessions()
        self.member.snapshots.installed(order.name, sessions, order.app, self.wiring.now)

    # What is asked of it.

    def meet(self, other: Host) -> Token:
        token = Token()
        target = self.member.meet(token, self.wiring.now)
        self.meets[target] = (other.address.ip, other.address.cport)
        return token

    def propose(self, command: bytes) -> Token:
        token = Token()
        self.member.propose_app(command, token, self.wiring.now)
        return token

    def entry(self, entry: Any) -> Token:
        token = Token()
        self.member.propose_entry(entry, token, self.wiring.now)
        return token

    def barrier(self) -> Token:
        token = Token()
        self.member.barrier(token, self.wiring.now)
        return token


@dataclass
class End:
    """One end of a connection."""

    host: Host
    other: int
    target: str | None


class Wiring:
    """All hosts, and the connections between them."""

    def __init__(self, names: str, *, machine: Callable[[], Any] = Commands, **knobs: Any) -> None:
        self.machine = machine
        self.config = Config(**{"node_timeout": 1.0, **knobs})
        self.now = 100.0
        self.hosts = {name: Host(self, name, number) for number, name in enumerate(names, 1)}
        self.ends: dict[int, End] = {}
        self.queue: deque[tuple[int, Message]] = deque()
        self.apart: set[frozenset[str]] = set()
        self.held: Callable[[Host, Host, Message], bool] = lambda sender, to, message: False
        """Messages for which it says true are kept back; see `release`."""
        self.kept: deque[tuple[int, Message]] = deque()
        self.passed: list[tuple[str, str, Message]] = []
        self._links = itertools.count(1)
        self._not_before: dict[tuple[str, str, tuple[str, int]], float] = {}
        for host in self.hosts.values():
            host.start()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    # Links.

    def connect(self, host: Host, target: str, address: tuple[str, int]) -> None:
        other = next((h for h in self.hosts.values() if h.up and (h.address.ip, h.address.cport) == address), None)
        if other is None or frozenset((host.name, other.name)) in self.apart:
            if target in host.meets:
                host.member.meetings.failed(target, "cannot connect")
            return
        mine, theirs = next(self._links), next(self._links)
        self.ends[mine], self.ends[theirs] = End(host, theirs, target), End(other, mine, None)
        host.member.link_opened(mine, target, other.address.ip, host.address.ip, self.now)
        other.member.link_opened(theirs, None, host.address.ip, other.address.ip, self.now)

    def dial(self) -> bool:
        did = False
        for host in self.hosts.values():
            if not host.up:
                continue
            open_links = {end.target: link for link, end in self.ends.items() if end.host is host and end.target}
            for target, link in open_links.items():
                end = self.ends[self.ends[link].other].host
                if not target.startswith("meet") and host.wanted.get(target) != (end.address.ip, end.address.cport):
                    self.cut(link, "not wanted")
                    did = True
            for target, address in list(host.wanted.items()):
                if target not in open_links and self.now >= self._not_before.get((host.name, target, address), 0.0):
                    before = len(self.ends)
                    self._not_before[host.name, target, address] = self.now + 0.05
                    self.connect(host, target, address)
                    did = did or len(self.ends) != before
            for target, address in list(host.meets.items()):
                self.connect(host, target, address)
                del host.meets[target]
                did = True
        return did

    def post(self, link: int, message: Message) -> None:
        if link in self.ends:
            self.queue.append((link, message))

    def cut(self, link: int, reason: str = "cut") -> None:
        """Both ends of a connection are gone, with what is under way on it."""
        end = self.ends.pop(link, None)
        if end is None:
            return
        self.queue = deque(item for item in self.queue if item[0] != end.other)
        other = self.ends.pop(end.other, None)
        for number, closed in ((link, end), (end.other, other)):
            if closed is not None and closed.host.up:
                closed.host.member.link_closed(number, reason, self.now)

    def cut_all(self, host: Host, to: Host | None = None) -> None:
        for link, end in list(self.ends.items()):
            if link in self.ends and end.host is host and (to is None or self.ends[end.other].host is to):
                self.cut(link)

    def part(self, one: str, other: str) -> None:
        self.apart.add(frozenset((one, other)))
        self.cut_all(self[one], self[other])

    def isolate(self, name: str) -> None:
        for other in self.hosts:
            if other != name:
                self.part(name, other)

    def heal(self) -> None:
        self.apart.clear()

    def release(self) -> None:
        """What was held back goes on its way."""
        self.held = lambda sender, to, message: False
        self.queue.extend(self.kept)
        self.kept.clear()

    # Time.

    def deliver(self) -> bool:
        did = False
        for _ in range(len(self.queue)):
            if not self.queue:
                break
            link, message = self.queue.popleft()
            end = self.ends.get(link)
            if end is None:
                continue
            other = self.ends[end.other].host
            if self.held(end.host, other, message):
                self.kept.append((link, message))
                continue
            did = True
            self.passed.append((end.host.name, other.name, message))
            other.member.link_messages(end.other, [message], self.now)
        return did

    def settle(self) -> None:
        """Until nothing moves."""
        for _ in range(2000):
            did = self.dial() | self.deliver()
            for host in self.hosts.values():
                if host.up:
                    did |= host.turn()
                    did |= host.do_jobs()
            if not did:
                return
        raise AssertionError("it never settles")

    def run(self, seconds: float) -> None:
        """Time passes in steps of 20 ms."""
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            for host in self.hosts.values():
                if host.up:
                    host.member.tick(self.now)
            self.settle()

    def until(self, what: Callable[[], bool], seconds: float = 20.0) -> None:
        """Time passes until it is so."""
        end = self.now + seconds
        self.settle()
        while not what():
            assert self.now < end, f"not within {seconds} s of virtual time"
            self.run(0.02)

    def done(self, token: Token) -> None:
        """Time passes until it is answered, with a success."""
        self.until(lambda: token.answered)
        assert token.ok, token.error

    # Clusters.

    @property
    def leader(self) -> Host:
        leading = [host for host in self.hosts.values() if host.up and host.member.raft.is_leader]
        return max(leading, key=lambda host: host.member.raft.current_term)

    def form(self, names: str) -> None:
        """A cluster of voters; the first one leads."""
        first = self[names[0]]
        for name in names[1:]:
            self.done(first.meet(self[name]))
            self.until(lambda: all(self[n].member.is_voter(self[name].id) for n in (names[0], name)))  # noqa: B023
        self.run(1.0)
