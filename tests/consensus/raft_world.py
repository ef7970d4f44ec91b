"""N pure `Raft` cores on virtual time: an explicit bag of messages, disks that finish when told, and the invariants.

For the stories (`scenario.py`) and the named tests beside them. Nothing here is random and nothing waits. What Raft
rules out is looked for after every turn: a test that drives this world needs no assertion to fail on a broken core.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raft_disk import Broken, Disk, Job, State
from raft_words import brief

from raftfast.config import Config
from raftfast.consensus import Raft, Standing
from raftfast.errors import InvariantViolation
from raftfast.messages import AppendEntriesAck, InstallSnapshot, Message, Role, Vote, VoteRequest
from raftfast.records import HardState

STEP_MS = 10
"""Virtual time passes in steps of this size: far below T/2, so that nobody takes it for a pause."""


class Same:
    """A source of randomness that always says the same, so that election timeouts are known: T * (1 + share)."""

    def __init__(self, share: float) -> None:
        self.share = share

    def random(self) -> float:
        return self.share


class Node:
    """A core with its disk, its applied state, and whether it runs."""

    def __init__(self, node_id: str, disk: Disk, standing: Standing) -> None:
        self.id = node_id
        self.disk = disk
        self.standing = standing
        self.state = disk.state.copy()
        self.up = False
        self.applies = True
        self.rng = Same(int(node_id, 36) / 10)
        self.raft: Raft = None  # type: ignore[assignment]
        self.seen: dict[str, Any] = {}


@dataclass(eq=False)
class Flight:
    """A message under way on one connection."""

    sender: str
    to: str
    message: Message
    link: int


class World:
    """The nodes, what is between them, and what was ever seen of them."""

    def __init__(self, log_class: type, count: int = 0, **knobs: Any) -> None:
        self.log_class = log_class
        self.config = Config(**{"node_timeout": 1.0, **knobs})
        self.ms = 0
        self.nodes: dict[str, Node] = {}
        self.bag: list[Flight] = []
        self.links: dict[tuple[str, str], int] = {}
        self.cuts: set[frozenset[str]] = set()
        self.held: set[tuple[str, str]] = set()
        self.blocked: set[tuple[str, str]] = set()
        self.trace: list[str] = []
        self.messages_shown = True
        self.together = False
        self.may_stop = False
        self.stopped: list[str] = []
        self._last_link = 0
        self._snapshots: dict[bytes, State] = {}
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._committed: dict[int, tuple[bytes, int]] = {}
        self.liars: set[str] = set()
        for number in range(1, count + 1):
            self.put(str(number), voters=[str(n) for n in range(1, count + 1)])
        for node_id in list(self.nodes):
            self.boot(node_id)

    @property
    def now(self) -> float:
        return self.ms / 1000

    def __getitem__(self, node_id: str | int) -> Raft:
        return self.nodes[str(node_id)].raft

    # ------------------------------------------------------------------ nodes and links

    def put(
        self,
        node_id: str,
        *,
        voters: Iterable[str] = (),
        members: Iterable[str] | None = None,
        terms: Iterable[int] = (),
        lines: Iterable[bytes] | None = None,
        term: int | None = None,
        vote: str | None = None,
        boundary: tuple[int, int] = (0, 0),
        standing: Standing = Standing.MEMBER,
    ) -> None:
        """Gives a node this disk. Entries given by their terms alone are commands named by their index."""
        named = frozenset(voters)
        if node_id in self.nodes and self.nodes[node_id].disk.last_index > boundary[0]:
            self.liars.add(node_id)  # what it promised is gone with its disk, by the test's own hand
        state = State(*boundary, named, named if members is None else frozenset(members))
        if lines is None:
            lines = [b"%d APP - e%d" % (each, boundary[0] + i) for i, each in enumerate(terms, 1)]
        lines = list(lines)
        last = int(lines[-1].split(b" ")[0]) if lines else boundary[1]
        disk = Disk(HardState(last if term is None else term, vote), state, lines)
        self.nodes[node_id] = Node(node_id, disk, standing)

    def boot(self, node_id: str) -> None:
        """The node starts from its disk, and is linked with all that run."""
        node = self.nodes[node_id]
        log = self.log_class(node.disk.state.index, node.disk.state.term)
        log.extend([int(line.split(b" ")[0]) for line in node.disk.lines], node.disk.lines)
        node.state, node.up, node.seen = node.disk.state.copy(), True, {}
        node.raft = Raft(
            node_id,
            log,
            self.config,
            node.rng,
            standing=node.standing,
            hard_state=node.disk.hard_state,
            voters=node.state.voters,
            members=node.state.members,
            now=self.now,
        )
        self._note_transitions(node, quiet=True)
        for peer in self.nodes:
            if peer != node_id and self.nodes[peer].up and frozenset((peer, node_id)) not in self.cuts:
                self.link(node_id, peer)
                self.link(peer, node_id)
        self.turn(node)

    def crash(self, node_id: str) -> None:
        """The process ends: jobs not done are lost, connections break."""
        node = self.nodes[node_id]
        node.up = False
        node.disk.jobs.clear()
        for peer in self.nodes:
            self.unlink(node_id, peer)
            self.unlink(peer, node_id)

    def link(self, owner: str, peer: str) -> None:
        """A new connection, dialled by `owner`, is identified."""
        self.unlink(owner, peer)
        self._last_link += 1
        self.links[owner, peer] = self._last_link
        self.nodes[owner].raft.link_up(peer, self.now)
        self.turn(self.nodes[owner])

    def unlink(self, owner: str, peer: str) -> None:
        """The connection that `owner` dialled is gone, with all that is on it."""
        gone = self.links.pop((owner, peer), None)
        if gone is None:
            return
        self.bag = [flight for flight in self.bag if flight.link != gone]
        if self.nodes[owner].up:
            self.nodes[owner].raft.link_down(peer)
            self.turn(self.nodes[owner])

    def cut(self, one: str, other: str) -> None:
        self.cuts.add(frozenset((one, other)))
        self.unlink(one, other)
        self.unlink(other, one)

    def mend(self, one: str, other: str) -> None:
        self.cuts.discard(frozenset((one, other)))
        if self.nodes[one].up and self.nodes[other].up:
            self.link(one, other)
            self.link(other, one)

    def isolate(self, node_id: str) -> None:
        for peer in self.nodes:
            if peer != node_id:
                self.cut(node_id, peer)

    def heal(self) -> None:
        for one, other in sorted(sorted(pair) for pair in self.cuts):
            self.mend(one, other)

    # ------------------------------------------------------------------ messages

    def under_way(self, sender: str, to: str) -> list[Flight]:
        return [flight for flight in self.bag if (flight.sender, flight.to) == (sender, to)]

    def deliver(self, sender: str, to: str, count: int | None = None, last: bool = False) -> int:
        """Hands over what is under way, oldest first or the newest one alone. How many."""
        flights = self.under_way(sender, to)
        flights = flights[-1:] if last else flights[:count]
        for flight in flights:
            if flight in self.bag:
                self.bag.remove(flight)
                self.hand_over(flight)
        return len(flights)

    def deliver_together(self, sender: str, to: str) -> None:
        """Hands over all that is under way in one turn of the receiver's loop."""
        self.together = True
        self.deliver(sender, to)
        self.together = False
        self.turn(self.nodes[to])

    def hand_over(self, flight: Flight) -> None:
        node = self.nodes[flight.to]
        if not node.up or flight.link not in self.links.values():
            return
        with _Guard(self, node):
            if isinstance(flight.message, InstallSnapshot):
                self._install(node, flight.sender, flight.message, flight.link)
            else:
                node.raft.receive(flight.sender, flight.message, self.now, flight.link)
        self.turn(node)

    def send(self, sender: str, to: str, message: Message) -> None:
        """Puts a message of any making under way on the connection that `sender` dialled."""
        self.bag.append(Flight(sender, to, message, self.links[sender, to]))

    def snapshot(self, leader: str, to: str) -> None:
        """What the leader has applied goes to a member, in one message."""
        node = self.nodes[leader]
        data = b"%d" % len(self._snapshots)
        self._snapshots[data] = node.state.copy()
        index, term = node.state.index, node.state.term
        leadership = node.raft.leadership
        assert leadership is not None
        leadership.snapshot_began(to, index)
        leadership.peers[to].snapshot_sent(index)
        message = InstallSnapshot(leader, node.raft.current_term, index, term, data)
        self._show(leader, to, message)
        self.send(leader, to, message)

    def _install(self, node: Node, sender: str, message: InstallSnapshot, link: int) -> None:
        raft = node.raft
        if not raft.hears_leader(sender, message.leader_id, message.term, self.now, link):
            return
        if raft.snapshot_is_stale(message.last_included_index):
            raft.answer_snapshot(sender, message.last_included_index, self.now, link)
            return
        state = self._snapshots[message.data]
        raft.install(message.last_included_index, message.last_included_term, state.voters, self.now, sender, link)
        if state.index <= node.state.index:
            raise Broken(f"{node.id} goes back from {node.state.index} to the state of {state.index}")
        node.state = state.copy()
        if raft.standing is Standing.JOINER:
            raft.join(self.now)

    def stabilize(self, rounds: int = 200) -> None:
        """All messages that are not held are handed over until none is left; no time passes."""
        for _ in range(rounds):
            flights = [flight for flight in self.bag if (flight.sender, flight.to) not in self.held]
            if not flights:
                return
            for flight in flights:
                if flight in self.bag:
                    self.bag.remove(flight)
                    self.hand_over(flight)
        raise Broken("the messages never end")

    # ------------------------------------------------------------------ time

    def tick(self, node_id: str, ms: int = 0) -> None:
        """Time passes for one node; the others are paused."""
        self.pass_time(ms, [node_id])
        if not ms:
            self._tick(self.nodes[node_id])

    def pass_time(self, ms: int, only: Iterable[str] | None = None, deliver: bool = False) -> None:
        """Time passes for the nodes named, or for all; with `deliver` messages move too, before any timer."""
        end = self.ms + ms
        while self.ms < end:
            self.ms = min(end, self.ms + STEP_MS)
            if deliver:
                self.stabilize()
            for node_id in list(self.nodes if only is None else only):
                self._tick(self.nodes[node_id])
        if deliver:
            self.stabilize()

    def _tick(self, node: Node) -> None:
        if node.up:
            with _Guard(self, node):
                node.raft.tick(self.now)
            self.turn(node)

    # ------------------------------------------------------------------ one node's turn

    def turn(self, node: Node) -> None:
        """Takes what its core wants done, and does it, until it wants no more; then looks at all invariants."""
        if not node.up or node.raft is None or self.together:
            return
        with _Guard(self, node):
            while self._take(node):
                pass
        self.check()

    def _take(self, node: Node) -> bool:
        raft = node.raft
        update = raft.take()
        self._note_transitions(node)
        for index in range(update.store_from, update.store_to):
            raft.log.line(index)  # what is handed over is there
        if update.ticket:
            entries = raft.log.lines(update.store_from, update.store_to)
            state = node.state.copy() if update.snapshot else None
            if update.snapshot:
                kept = update.snapshot.keep_above
                tail = "the whole log goes" if kept is None else f"the log above {kept} stays"
                self.note(node, f"installs {update.snapshot.index}/{update.snapshot.term}, {tail}")
            if update.truncate_from is not None:
                self.note(node, f"cuts its log from {update.truncate_from}")
            node.disk.jobs.append(
                Job(
                    update.ticket,
                    update.hard_state,
                    update.snapshot,
                    state,
                    update.truncate_from,
                    update.store_from,
                    entries,
                )
            )
        for send in update.send:
            self._ship(node, send.to, send.message, send.link)
        for link, reason in update.close:
            self.note(node, f"closes a link: {reason}")
            for owner, peer in [pair for pair, number in self.links.items() if number == link]:
                self.unlink(owner, peer)
        for text in update.critical:
            self.note(node, f"reports: {text}")
        for peer in update.needs_snapshot:
            asked = (peer, raft.current_term, self.links.get((node.id, peer)))
            if asked not in node.seen.setdefault("snapshots", set()):
                node.seen["snapshots"].add(asked)
                self.note(node, f"{peer} needs a snapshot")
        for token, index in update.reads:
            self.note(node, f"read {token} may be served at {index}")
        for token in update.reads_failed:
            self.note(node, f"read {token} fails")
        applied = node.applies and self._apply(node)
        applied |= self._follow_members(node)
        stored = not node.disk.slow and self.store(node.id, turn=False)
        return bool(update.ticket or update.send or update.close or update.reads or applied or stored)

    def _ship(self, node: Node, to: str, message: Message, link: int | None) -> None:
        self._check_promise(node, message, to)
        number = self.links.get((node.id, to)) if link is None else link
        if number is None or number not in self.links.values():
            return
        self._show(node.id, to, message)
        if (node.id, to) not in self.blocked:
            self.bag.append(Flight(node.id, to, message, number))

    def _apply(self, node: Node) -> bool:
        raft, state = node.raft, node.state
        first, last = raft.last_applied + 1, raft.commit_index
        for index in range(first, last + 1):
            line = raft.log.line(index)
            state.apply(index, line)
            parts = line.decode().split(" ")
            if parts[1] == "NODE_JOIN":
                raft.restart_progress(parts[2], self.now)
            if parts[1:3] == ["NODE_FORGET", node.id] and raft.standing is not Standing.JOINER:
                raft.remove(self.now)
                node.standing = Standing.REMOVED
        if last >= first:
            raft.applied(last, self.now)
            self._follow_own_join(node)
        return last >= first

    def _follow_own_join(self, node: Node) -> None:
        """A joiner that its state names is a member, once what was committed before it came is applied."""
        raft = node.raft
        named = raft.standing is Standing.JOINER and node.id in node.state.members
        if named and raft.last_applied >= raft.commit_to_reach:
            raft.join(self.now)
            node.standing = Standing.MEMBER

    def _follow_members(self, node: Node) -> bool:
        raft = node.raft
        if raft.last_applied > raft.log.last_index:
            raise Broken(f"{node.id} has applied {raft.last_applied}, its log ends at {raft.log.last_index}")
        tail = raft.log.membership_lines(max(raft.last_applied, raft.log.boundary_index) + 1, raft.log.last_index + 1)
        joins = {line.split(b" ")[2].decode() for _, line in tail if b" NODE_JOIN " in line}
        if raft.members == node.state.members | joins:
            return False
        raft.set_members(node.state.members | joins, self.now)
        return True

    def store(self, node_id: str, count: int | None = None, turn: bool = True) -> bool:
        """The oldest storage jobs are done, all of them where no count is given. Whether there was one."""
        node = self.nodes[node_id]
        done = 0
        while node.disk.jobs and (count is None or done < count):
            job = node.disk.jobs.popleft()
            node.disk.carry_out(job)
            with _Guard(self, node):
                node.raft.stored(job.ticket, self.now)
            done += 1
        if turn:
            self.turn(node)
        return done > 0

    # ------------------------------------------------------------------ the trace

    def note(self, node: Node, text: str) -> None:
        self.trace.append(f"{node.id}: {text}")

    def _show(self, sender: str, to: str, message: Message) -> None:
        if self.messages_shown:
            self.trace.append(f"{sender}->{to} {brief(message)}")

    def _note_transitions(self, node: Node, quiet: bool = False) -> None:
        raft = node.raft
        role = raft.role.value if raft.standing in (Standing.MEMBER, Standing.JOINER) else raft.standing.value
        who = f"{role} in term {raft.current_term}"
        if raft.voted_for is not None and raft.voted_for != node.id:
            who += f", voted for {raft.voted_for}"
        if raft.leader_id is not None and not raft.is_leader:
            who += f", leader {raft.leader_id}"
        facts = {
            "who": who,
            "voters": "voters " + " ".join(sorted(raft.voters)),
            "boundary": f"boundary {raft.log.boundary_index}/{raft.log.boundary_term}",
            "commit": f"commit {raft.commit_index}",
        }
        for name, fact in facts.items():
            if node.seen.get(name) != fact:
                node.seen[name] = fact
                if not quiet:
                    self.note(node, fact)

    # ------------------------------------------------------------------ what must hold

    def _check_promise(self, node: Node, message: Message, to: str) -> None:
        """What a message promises is on the sender's disk before it leaves (PROTOCOL 5.5)."""
        disk = node.disk
        if isinstance(message, AppendEntriesAck) and message.success and message.index > disk.last_index:
            raise Broken(f"{node.id} acknowledges {message.index}, its disk ends at {disk.last_index}")
        choice = None
        if isinstance(message, Vote) and message.granted:
            choice = (message.term, to)
        elif isinstance(message, VoteRequest):
            choice = (message.term, node.id)
        if choice is None:
            return
        if disk.hard_state != HardState(*choice) and disk.hard_state.current_term <= choice[0]:
            raise Broken(f"{node.id} votes for {choice[1]} in term {choice[0]}, its disk says {disk.hard_state}")
        if self._votes.setdefault((node.id, choice[0]), choice[1]) != choice[1]:
            raise Broken(f"{node.id} votes twice in term {choice[0]}")

    def check(self) -> None:
        """The properties of figure 3.2, over all that run and all that was seen."""
        running = [node for node in self.nodes.values() if node.up and node.raft is not None]
        for node in running:
            try:
                node.raft.check()
            except InvariantViolation as error:
                raise Broken(str(error)) from error
            self._check_leader(node)
            self._check_commit(node)
        for i, one in enumerate(running):
            for other in running[i + 1 :]:
                self._check_log_matching(one, other)

    def _check_leader(self, node: Node) -> None:
        raft = node.raft
        if not raft.is_leader:
            return
        if self._leaders.setdefault(raft.current_term, node.id) != node.id:
            raise Broken(f"{node.id} leads term {raft.current_term}, as {self._leaders[raft.current_term]} did")
        for index, (line, term) in self._committed.items():
            if term >= raft.current_term or index <= raft.log.boundary_index:
                continue
            if index > raft.log.last_index or raft.log.line(index) != line:
                raise Broken(f"{node.id} leads term {raft.current_term} without the committed entry {index}")
        assert raft.leadership is not None
        for peer, progress in raft.leadership.peers.items():
            other = self.nodes.get(peer)
            if other is None or other.disk.hard_state.current_term > raft.current_term:
                continue
            match, disk = progress.match_index, other.disk
            if peer in self.liars or match <= max(raft.log.boundary_index, disk.state.index):
                continue
            if match > disk.last_index or disk.lines[match - disk.state.index - 1] != raft.log.line(match):
                raise Broken(f"{node.id} counts {match} on {peer}, whose disk does not have it")

    def _check_commit(self, node: Node) -> None:
        raft = node.raft
        if raft.current_term < node.seen.get("term", 0) or raft.commit_index < node.seen.get("committed", 0):
            raise Broken(f"{node.id}: term or commit index goes back")
        node.seen["term"], node.seen["committed"] = raft.current_term, raft.commit_index
        for index in range(max(raft.log.boundary_index, node.seen.get("checked", 0)) + 1, raft.commit_index + 1):
            line = raft.log.line(index)
            if self._committed.setdefault(index, (line, raft.current_term))[0] != line:
                raise Broken(f"{node.id} commits {line!r} at {index}, another {self._committed[index][0]!r}")
        node.seen["checked"] = raft.commit_index
        for index, line in node.state.lines.items():
            if index in self._committed and self._committed[index][0] != line:
                raise Broken(f"{node.id} applied {line!r} at {index}")

    def _check_log_matching(self, one: Node, other: Node) -> None:
        mine, theirs = one.raft.log, other.raft.log
        low = max(mine.boundary_index, theirs.boundary_index)
        for index in range(min(mine.last_index, theirs.last_index), low, -1):
            if mine.term_at(index) == theirs.term_at(index):
                if mine.lines(low + 1, index + 1) != theirs.lines(low + 1, index + 1):
                    raise Broken(f"{one.id} and {other.id} agree at {index} and differ before it")
                return

    def leader(self) -> str | None:
        """The running leader of the highest term."""
        leading = [node for node in self.nodes.values() if node.up and node.raft.is_leader]
        return max(leading, key=lambda node: node.raft.current_term).id if leading else None

    def elect(self, node_id: str) -> None:
        """Makes a node leader, all messages delivered. For tests of what comes after."""
        self.campaign(node_id)
        self.stabilize()
        assert self[node_id].role is Role.LEADER, f"{node_id} was not elected"

    def campaign(self, node_id: str) -> None:
        """The node's election timeout passes now."""
        asking = self[node_id].role is Role.PRE_CANDIDATE
        self[node_id]._deadline = self.now
        self.tick(node_id)
        if asking:  # that was the end of its round: one more begins the next
            self.campaign(node_id)

    def propose(self, node_id: str, *texts: str) -> int:
        index = self[node_id].propose([b"APP - " + text.encode() for text in texts], self.now)
        self.turn(self.nodes[node_id])
        return index

    def enter(self, node_id: str, entry: str) -> int:
        """Proposes one entry, written out."""
        index = self[node_id].propose([entry.encode()], self.now)
        self.turn(self.nodes[node_id])
        return index


class _Guard:
    """A node whose core sees an invariant violated stops, and is seen to; where no node may stop the test fails."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, InvariantViolation):
            return False
        if not self.world.may_stop:
            raise Broken(f"{self.node.id} stops: {error}") from error
        self.world.note(self.node, f"stops: {error}")
        self.world.stopped.append(self.node.id)
        self.world.crash(self.node.id)
        return True
