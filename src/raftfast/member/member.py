"""One member: the links, Raft, the cluster state, this node's proposals and reads, put together.

Floor 3. Pure: inputs are methods, the output is `take()`, time is an argument. What a rule means is in the files
beside this one and in `consensus` and `cluster`; this file says who hears of what. It must stay free of I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..cluster.entries import Entry, NodeInfo, NodeJoin, SlotChange
from ..cluster.sessions import Sessions
from ..cluster.state import ClusterState, Kind
from ..config import Config
from ..consensus import Raft, RandomSource, Send, Standing, Update
from ..errors import Busy, Conflict, NodeClosed, Rejected, StorageError
from ..hot import log as hot_log
from ..messages import (
    Message,
    Propose,
    ReadIndex,
    ReadIndexNo,
    ReadIndexOk,
    TransferLeader,
)
from ..records import Address, NodeRecord
from ..statemachine import StateMachine
from .applying import Applier
from .barriers import Barriers, LocalRead, RemoteRead
from .inbox import Inbox
from .leader import LeaderWork
from .lifecycle import Lifecycle
from .links import NO_CLUSTER, LinkInfo, Links
from .meeting import Meetings
from .neighbours import Neighbours
from .orders import Capture, Event, Orders
from .origin import Identity, Origin
from .proposals import Client, Proposals
from .snapshots import Snapshots
from .storing import Storing

__all__ = ["Member"]

_INFO, _WARNING, _CRITICAL = 20, 30, 50


class Member:
    """A node of a cluster, or one that is to be.

    Invariants: those of `Raft`, `ClusterState`, `Links` and `Proposals`; `raft.last_applied` is the index that `state`,
    `sessions` and the state machine hold; `raft.members` are the nodes of the state and of the log's tail.
    """

    def __init__(
        self,
        origin: Origin,
        config: Config,
        rng: RandomSource,
        new_id: Callable[[], str],
        state_machine: StateMachine | None,
        sessions: Sessions | None = None,
        *,
        now: float,
    ) -> None:
        """A node that was just loaded. `state_machine` holds the state of `origin.last_applied` already.

        `new_id` gives 40 hex digits from the operating system's random source.
        """
        self.config = config
        self.identity = origin.identity
        self.state = origin.state
        self.state_machine = state_machine
        self.sessions = sessions if sessions is not None else self.new_sessions()
        self.cluster_id = origin.cluster_id
        self.orders = Orders()
        self.counters: dict[str, int] = {}
        self.caught_up_by = "none"
        self.repl_offsets: dict[str, int] = {}
        self.new_id = new_id
        self._now = now
        self._reported: set[str] = set()
        self._seen_leader: tuple[int, str | None] = (0, None)
        self._closed = False
        self.no_room = ""
        """Why commands are refused: the disk has not enough room. Empty where it has."""
        log = hot_log.RaftLog(origin.last_applied, origin.snapshot_term)
        log.extend([term for _, term, _ in origin.entries], [line for _, _, line in origin.entries])
        self.raft = Raft(
            origin.identity.node_id,
            log,
            config,
            rng,
            standing=origin.standing,
            hard_state=origin.hard_state,
            voters=origin.state.voters() if origin.standing is Standing.MEMBER else (),
            members=origin.state.nodes if origin.standing is Standing.MEMBER else (),
            now=now,
        )
        self._seen_role = self.raft.role
        self.links = Links(self)
        self.lifecycle = Lifecycle(self, origin.claimed_slots)
        self.meetings = Meetings(self, self.links)
        self.proposals = Proposals(config, new_id, self.answer)
        self.barriers = Barriers(self.answer)
        self.snapshots = Snapshots(self)
        self.storing = Storing(self)
        self.leader = LeaderWork(self)
        self.applier = Applier(self)
        self.inbox = Inbox(self)
        self.neighbours = Neighbours(self)
        self.neighbours.begin_anew()

    def new_sessions(self) -> Sessions:
        """An empty session table of this cluster's limits."""
        return Sessions(self.config.session_window, self.config.session_result_bytes, self.config.max_sessions)

    # ------------------------------------------------------------------ what is asked of it

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self.identity.node_id

    @property
    def now(self) -> float:
        """The time of the newest input."""
        return self._now

    @property
    def standing(self) -> Standing:
        """What this node is to its cluster."""
        return self.raft.standing

    @property
    def address_text(self) -> str:
        """The address that this node announces."""
        return self.identity.text

    @property
    def cluster_token(self) -> str | None:
        """What HELLO and HI say of our cluster (PROTOCOL 9)."""
        if self.standing is Standing.SINGLETON:
            return "-"
        # Once its NODE_JOIN is in its log it may have been made a voter: it must not look like one that lost its log.
        named = self.standing is not Standing.JOINER or self.neighbours.is_counted_on
        return self.cluster_id if named else "joining"

    def knows(self, node_id: str) -> bool:
        """Whether the applied state, or a NODE_JOIN of the log's tail, names the node."""
        return node_id in self.state.nodes or node_id in self.neighbours

    def is_voter(self, node_id: str) -> bool:
        """Whether the applied state has the node as a voter."""
        member = self.state.nodes.get(node_id)
        return member is not None and member.voter

    def forgotten_at(self, node_id: str, cluster: str | None) -> int | None:
        """An index up to which the node was forgotten; None where it was not. `cluster` is what it says of its own.

        Who names our cluster has applied its NODE_JOIN, or has it in its log. What we have applied does not name it: if
        that is more, its NODE_FORGET is in between, also where we hold it in a stored state and no list has it.
        """
        if self.knows(node_id):
            return None
        if cluster is not None and cluster == self.cluster_id:
            return self.raft.last_applied
        return self.state.removed.get(node_id)

    def records(self) -> list[NodeRecord]:
        """All node lines, our own always among them, ascending by id."""
        records = self.state.records(myself=self.node_id)
        if self.node_id not in self.state.nodes:
            records.append(
                self.identity.record(self.lifecycle.claimed_slots, learner=self.standing is Standing.REMOVED)
            )
            records.sort(key=lambda record: record.id)
        return records

    def is_served(self, info: LinkInfo) -> bool:
        """Whether what the link brings of Raft is handled (PROTOCOL 9)."""
        node_id, neighbours = info.node_id or "", self.neighbours
        if info.cluster != self.cluster_id and self.links.is_foreign(info):
            return False
        if node_id in self.state.nodes or node_id in neighbours:
            return not info.lost and node_id not in neighbours.lost_learners
        if self.standing is Standing.JOINER:
            return info.cluster not in NO_CLUSTER
        # No cluster id here: a file of a server that has none; then only who is known is served.
        return self.cluster_id is not None and info.cluster == self.cluster_id

    # ------------------------------------------------------------------ inputs: links

    def link_opened(self, link: int, target: str | None, peer_ip: str, local_ip: str, now: float) -> None:
        """A connection is there: dialled for `target` (a node id, or a name that `meet` gave), or accepted (None)."""
        self._enter(now)
        self.links.opened(link, target, peer_ip, local_ip, now)
        if target is not None and link in self.links.infos:
            self.neighbours.dialled(self.links.infos[link], target)

    def link_messages(self, link: int, messages: Sequence[Message], now: float) -> None:
        """Messages came on a link, in order. Raises InvariantViolation where the node must stop."""
        self._enter(now)
        for message in messages:
            self.links.take(link, message, now, self.inbox.deliver)

    def link_closed(self, link: int, reason: str, now: float) -> None:
        """A connection is gone."""
        self._enter(now)
        self.links.closed(link, reason)

    def link_bound(self, info: LinkInfo) -> None:
        """HELLO or HI said who is at the other end."""
        node_id, now = info.node_id or "", self._now
        if not self.neighbours.greeted(info, now):
            return
        if info.is_meet:
            self.meetings.link_bound(info, now)
        elif not info.outbound:
            if self.knows(node_id):
                self.neighbours.came_from(info, now)
        elif self.is_served(info):
            self._serve_outbound(node_id, now)

    def _serve_outbound(self, node_id: str, now: float) -> None:
        self.raft.link_up(node_id, now)
        if node_id == self.raft.leader_id and not self.raft.is_leader:
            self.proposals.send_all_again()  # the link to the same leader was made anew
            self.barriers.ask_again()

    def link_lost(self, info: LinkInfo, reason: str) -> None:
        """The link is gone, whoever closed it."""
        self.meetings.link_lost(info, reason)
        if info.outbound and not info.is_meet and info.node_id is not None:
            self.raft.link_down(info.node_id)
            self.snapshots.link_down(info.node_id)
            if info.node_id == self.raft.leader_id:
                self.barriers.ask_again()

    # ------------------------------------------------------------------ inputs: time and storage

    def tick(self, now: float) -> None:
        """Time has passed; all that arrived before was handed in."""
        self._enter(now)
        self.lifecycle.tick(now)
        self.raft.tick(now)
        self.links.tick(now)
        self.meetings.tick(now)
        self.neighbours.tick(now)
        self.proposals.expire(now)
        self.barriers.expire(now)
        self.leader.tick(now)
        self.snapshots.drop_if_overtaken()

    def _enter(self, now: float) -> None:
        if now <= self._now:
            return
        if now - self._now > self.config.node_timeout / 2:
            self.links.after_pause(now)
        self._now = now

    def stored(self, ticket: int, now: float) -> None:
        """The storage job of `ticket` is durable."""
        self._enter(now)
        self.raft.stored(ticket, now)
        self.storing.stored(ticket, now)

    def rewritten(self, token: int, now: float) -> None:
        """A rewrite that `take` ordered is durable: who waited for it is answered."""
        self._enter(now)
        self.storing.rewritten(token)

    # ------------------------------------------------------------------ inputs: proposals and reads

    def propose_app(self, command: bytes, token: Any, now: float) -> None:
        """A command for the state machine. `token` is answered with its result. Raises Busy, EntryError, Rejected,
        StorageError."""
        self._refuse_command()
        self.proposals.add_app(command, token, now)

    def propose_in_session(self, client: Client, sequence: int, command: bytes, token: Any, now: float) -> None:
        """A command of a session of the user's, or (sequence 0, no bytes) its opening. Raises as `propose_app`."""
        self._refuse_command()
        self.proposals.add_session(client, sequence, command, token, now)

    def propose_entry(self, entry: Entry, token: Any, now: float) -> None:
        """A cluster entry. `token` is answered with None. Raises Busy."""
        self._enter(now)
        self.refuse_if_unable()
        if self.standing is Standing.SINGLETON:
            self._propose_as_singleton(entry, token, now)
        else:
            self.proposals.add_entry(entry.encode(), token, now)

    def _refuse_if_closed(self) -> None:
        """Who came now would never be answered."""
        if self._closed:
            raise NodeClosed("the node is closed")

    def refuse_if_unable(self) -> None:
        """Raises where this node proposes nothing: NodeClosed, or Rejected where it was forgotten."""
        self._refuse_if_closed()
        if self.standing is Standing.REMOVED:
            raise Rejected("this node was forgotten by its cluster: CLUSTER RESET it first")

    def _refuse_command(self) -> None:
        """Raises where no command can be taken: as `refuse_if_unable`, StorageError while the disk is nearly full, Busy
        while this leader's log holds too much that is not committed.

        Cluster changes are taken then: they are small, and what an operator needs.
        """
        self.refuse_if_unable()
        if self.state_machine is None:
            raise Rejected("this node embeds no state machine")
        if self.no_room:
            self.count("commands_without_room")
            raise StorageError(self.no_room)
        if self.leader.is_overfull:
            raise Busy(f"{self.raft.uncommitted} entries of the log are not committed")

    def _propose_as_singleton(self, entry: Entry, token: Any, now: float) -> None:
        """Before its first entry a singleton's changes apply locally and are stored (PROTOCOL 8)."""
        verdict = self.state.check(entry)
        if verdict.kind is Kind.VALID and isinstance(entry, (SlotChange, NodeInfo)):
            self.state.apply(0, entry)
            self.storing.order_rewrite(token)
        elif verdict.success and not isinstance(entry, NodeJoin):
            self.answer(token, None, None)
        else:
            error = Conflict if verdict.kind is Kind.CONFLICT else Rejected
            self.answer(token, None, error(verdict.reason or "a node that is alone can't do that"))

    def barrier(self, token: Any, now: float) -> None:
        """`token` is answered once everything that was committed before this call is applied here."""
        self._enter(now)
        self._refuse_if_closed()
        if self.standing is Standing.SINGLETON:
            self.answer(token, None, None)
        else:
            self.barriers.add(token, now + self.config.proposal_timeout)

    def meet(self, token: Any, now: float) -> str:
        """A client wants us to meet somebody: dial there under the name that is returned."""
        self._enter(now)
        self._refuse_if_closed()
        return self.meetings.begin(token, now)

    def transfer(self, peer: str | None, now: float) -> None:
        """Leadership is to be handed over, wherever it is. Raises Rejected where it can't be."""
        self._enter(now)
        if self.standing is Standing.SINGLETON:
            raise Rejected("a node that is alone has nobody to hand over to")
        if self.raft.is_leader:
            if self.raft.transfer_to(peer, now) is None:
                raise Rejected("there is no live voter to hand over to")
        elif self.raft.leader_id is not None:
            self.links.send_to(self.raft.leader_id, TransferLeader(self.raft.current_term), now)
        else:
            raise Rejected("there is no leader")

    def set_address(self, address: Address, now: float) -> None:
        """What the node announces has changed."""
        self._enter(now)
        self.lifecycle.set_address(address, now)

    def close(self, error: Callable[[bool], Exception]) -> None:
        """The node ends: nobody is left waiting. `error(sent)` makes what a waiting proposer is told."""
        self._closed = True
        self.fail_waiting(error, "the node is closed")

    def fail_waiting(self, error: Callable[[bool], Exception], reason: str) -> None:
        """Nobody is left waiting: see `close`; `reason` is for who asked for a MEET."""
        self.proposals.fail_all(error)
        self.barriers.fail_all(error(False))
        self.meetings.fail_all(reason)
        self.storing.fail_all(error)

    def reset(self, identity: Identity, token: Any, now: float) -> None:
        """CLUSTER RESET: a fresh singleton of that identity; `token` is answered once that is durable (PROTOCOL 8).

        Must not be called while a snapshot is being installed, or the state machine is being read by another thread.
        Raises what the state machine raises, and then nothing has changed.
        """
        self._enter(now)
        self.lifecycle.reset(identity, token, now)

    # ------------------------------------------------------------------ what is applied

    def apply(self, now: float, budget: int = 4096) -> bool:
        """Applies what is committed, up to `budget` entries. Whether another turn is due at once."""
        self._enter(now)
        if self.raft.commit_index == self.raft.last_applied or self.snapshots.installing:
            return False
        return self.applier.run(budget, now)

    def installed_state(self, state: ClusterState, sessions: Sessions) -> None:
        """A snapshot replaces the applied state; links of nodes that are not in it are closed."""
        gone = sorted(self.state.nodes.keys() - state.nodes.keys())  # in one order in every process
        state.removed.update({n: i for n, i in self.state.removed.items() if n not in state.nodes})
        self.state = state
        self.sessions = sessions
        self.neighbours.begin_anew()
        self.neighbours.greet_anew()
        for node_id in gone:
            self.links.close_of(node_id, "not in the snapshot")

    # ------------------------------------------------------------------ output

    def take(self, now: float) -> Orders:
        """What all inputs since the last call have caused: see `Orders`. Called once a turn of the loop."""
        self._enter(now)
        if self.meetings.kept:
            self.meetings.release_kept(now)
        if self.proposals.pending:
            self._send_proposals(now)
        if self.barriers.waiting:
            self._ask_reads(now)
        if self.raft.leadership is not None:
            self.leader.release_waiting(now)
        update = self.raft.take()
        if update.ticket:
            self.storing.take(update)
        for send in update.send:
            self._route(send, now)
        for link, reason in update.close:
            info = self.links.infos.get(link)
            if info is not None:
                self.report(f"a link of {info.node_id} broke the protocol: {reason}")
                self.links.close(info, reason)
        for text in update.critical:
            self.log(_CRITICAL, text)
        if update.reads or update.reads_failed:
            self._take_reads(update, now)
        if not self.snapshots.installing:  # its state machine is being replaced, in another thread
            self.barriers.serve(self.raft.last_applied)
        if self.raft.leadership is not None:
            self.snapshots.serve(self.raft.leadership, update.needs_snapshot, now)
        self._notice_leader()
        if self.neighbours.moved:
            self.neighbours.follow()
        self.orders.wake_at = update.wake_at
        orders, self.orders = self.orders, Orders()
        return orders

    def _send_proposals(self, now: float) -> None:
        proposals, raft = self.proposals, self.raft
        if raft.leader_id is not None and self.standing is Standing.MEMBER:
            proposals.heard_from(raft.current_term, raft.leader_id)
        if not proposals.unsent:
            return
        if self.standing is Standing.SINGLETON:
            self.lifecycle.found_if_singleton(now)
        if raft.accepts_proposals:
            self.leader.append_own(proposals.take_unsent(raft.current_term), now)
        elif not raft.is_leader and self.standing is Standing.MEMBER and raft.leader_id in self.links.outbound:
            info = self.links.outbound[raft.leader_id]
            if self.is_served(info):
                for entry in proposals.take_unsent(raft.current_term):
                    self.links.send(info, Propose(entry), now)

    def _ask_reads(self, now: float) -> None:
        barriers, raft = self.barriers, self.raft
        if not barriers.may_ask(now):
            return
        if raft.is_leader:
            if raft.accepts_proposals:
                raft.barrier(LocalRead(barriers.ask()), now)
        elif raft.leader_id in self.links.outbound and self.standing is Standing.MEMBER:
            self.links.send_to(raft.leader_id, ReadIndex(barriers.ask()), now)

    def capture(self) -> Capture:
        """The whole state as of what is applied now. **Cost**: the node lines, and the state machine's beginning.

        Must not be called while a snapshot is being installed.
        """
        return self.snapshots.capture()

    def _route(self, send: Send, now: float) -> None:
        if send.link is not None:
            self.links.reply(send.link, send.message, now)
            return
        info = self.links.outbound.get(send.to)
        if info is not None and self.is_served(info):
            self.links.send(info, send.message, now)

    def _take_reads(self, update: Update, now: float) -> None:
        for token, index in update.reads:
            if isinstance(token, RemoteRead):
                self.links.reply(token.link, ReadIndexOk(token.number, index), now)
            else:
                self.barriers.confirmed(token.number, index)
        for token in update.reads_failed:
            if isinstance(token, RemoteRead):
                self.links.reply(token.link, ReadIndexNo(token.number), now)
            else:
                self.barriers.refused(token.number)

    def _notice_leader(self) -> None:
        raft = self.raft
        if raft.role is not self._seen_role:
            self._seen_role = raft.role
            self.event("role", self.node_id)
        seen = self._seen_leader
        if raft.leader_id == seen[1] and raft.current_term == seen[0]:
            return
        seen = (raft.current_term, raft.leader_id)
        if seen[1] is not None and seen[1] != self._seen_leader[1]:
            self.event("leader", seen[1])
            self.log(_INFO, f"the leader of term {seen[0]} is {'this node' if raft.is_leader else seen[1]}")
            if self.standing is Standing.MEMBER:
                self.lifecycle.propose_own_address(self._now)  # again, should it have expired while there was no leader
        self._seen_leader = seen
        self.barriers.ask_again()
        if not raft.is_leader:
            self.snapshots.stop_sending()
        self.orders.busy = True

    # ------------------------------------------------------------------ for people

    def answer(self, token: Any, result: Any, error: Exception | None) -> None:
        """Tells who waits."""
        if token is not None:
            self.orders.answers.append((token, result, error))

    def count(self, name: str) -> None:
        """One more of what `name` counts."""
        self.counters[name] = self.counters.get(name, 0) + 1

    def report(self, text: str, once: str | None = None) -> None:
        """An operator should hear of it; `once` names what is said only once."""
        if once is not None:
            if once in self._reported:
                return
            self._reported.add(once)
        self.log(_WARNING, text)

    def log(self, severity: int, text: str) -> None:
        """A line for the node's log."""
        self.orders.log.append((severity, text))

    def event(self, kind: str, node_id: str | None) -> None:
        """Something that `Node.events()` tells of."""
        self.orders.events.append(Event(kind, self.raft.current_term, self.raft.last_applied, node_id))
