"""Whom this node knows, whom it serves, and whom it dials: the applied members, and the NODE_JOINs of the log's tail.

Floor 3. A function of state, log and links, and of what nodes said of themselves while this process lives; nothing of
it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cluster.entries import NodeForget, NodeInfo, NodeJoin, parse_entry
from ..consensus import Standing
from ..errors import EntryError
from ..hot import nodesconf
from .links import NO_CLUSTER, LinkInfo

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Neighbours"]


class Neighbours:
    """The other nodes, as one member sees them.

    Invariant: `_tail` holds the NODE_JOINs of the log that are not applied, by node id, the newest of each with its
    index; `_leaving` has the index of each newest NODE_FORGET that was not applied at the last `follow`.

    A voter, by the state or by the log, that said that it has lost its log is in Raft's `without_log`: it is not served
    before it is forgotten and joins anew, or names our cluster again; it follows no leader before that, and takes the
    cluster's id from nobody else.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._tail: dict[str, tuple[int, NodeJoin]] = {}
        self._leaving: dict[str, int] = {}
        self.moved = True
        """Whether members or addresses have changed since `follow`."""
        self.lost_learners: set[str] = set()
        """Learners that said that they have lost their log: not served before their next NODE_JOIN, or before they name
        our cluster again."""
        self._settled: set[str] = set()
        """Who was heard as a joiner or a member since its newest applied NODE_JOIN."""
        self._invited_until: dict[str, float] = {}
        """Till when a learner may not have heard of its NODE_JOIN."""
        self._joined_at: dict[str, int] = {}
        """Where the newest applied NODE_JOIN of a node stands: an older snapshot is none for it."""
        self._own_join = 0
        """Where the first NODE_JOIN of this node's present life stands in our log: one with the shard id that it has
        since its last reset. 0: there is none."""
        self._told_elsewhere: dict[str, float] = {}
        """Who gives another address than the state has, and when that is to be proposed for it."""

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._tail

    @property
    def joined_in_this_life(self) -> bool:
        """Whether our log has, or had below its boundary, a NODE_JOIN of this node since its last reset."""
        return self._own_join > 0

    @property
    def is_counted_on(self) -> bool:
        """Of a joiner: whether others may count on it, as a voter even, though it has not heard that it is a member.

        In history it may have been one in an earlier life, and nobody means it by that.
        """
        member = self._member
        return self.joined_in_this_life and member.knows(member.node_id) and not member.raft.reads_history

    def newest_join(self, node_id: str) -> int:
        """Where a node's newest NODE_JOIN stands, applied or not; 0 where this process knows of none."""
        return self._tail[node_id][0] if node_id in self._tail else self._joined_at.get(node_id, 0)

    def newest_change(self, node_id: str) -> int:
        """Where a node's newest NODE_JOIN or NODE_FORGET stands, applied or not; 0 where this process knows of none."""
        return max(self.newest_join(node_id), self._leaving.get(node_id, 0))

    def clear(self) -> None:
        """The node begins anew."""
        self._tail.clear()
        self._leaving.clear()
        self.lost_learners.clear()
        self._settled.clear()
        self._invited_until.clear()
        self._joined_at.clear()
        self._own_join = 0
        self._told_elsewhere.clear()
        self.moved = True

    def appended(self, first: int, end: int) -> None:
        """Lines were appended: whom they name is known from now on."""
        for _, line in self._note(first, end):
            if line.split(b" ", 2)[1] == b"ADD_VOTER":
                self._ask_anew(line.split(b" ", 2)[2].decode("utf-8", "surrogateescape"))

    def _note(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """Takes the NODE_JOINs and NODE_FORGETs of a range. Returns all its membership lines."""
        lines = self._member.raft.log.membership_lines(first, end)
        for index, line in lines:
            if line.split(b" ", 2)[1] not in (b"NODE_JOIN", b"NODE_FORGET"):
                continue
            try:
                entry = parse_entry(line.split(b" ", 1)[1])
            except EntryError:
                continue  # it will be a no-op, and is reported then
            if isinstance(entry, NodeForget):
                self._leaving[entry.node_id] = index
            elif isinstance(entry, NodeJoin):
                self._tail[entry.node_id] = (index, entry)
                self.moved = True
                if not self._own_join and self._is_mine(entry):
                    self._own_join = index
        return lines

    def _is_mine(self, entry: NodeJoin) -> bool:
        identity = self._member.identity
        if entry.node_id != identity.node_id:
            return False
        return nodesconf.parse_address(entry.address).aux.get("shard-id") == identity.shard_id

    def _ask_anew(self, node_id: str) -> None:
        """The node is a voter by our log, and greeted us before it had one: by now it has, or has lost it.

        Who made it a voter knows, by its acknowledgements: that is the leader.
        """
        info = self._member.links.outbound.get(node_id)
        if info is not None and info.cluster in NO_CLUSTER and not self._member.raft.is_leader:
            self._member.links.close(info, "it is a voter now, and had no log when it was asked who it is")

    def truncated_from(self, index: int) -> None:
        """Lines from `index` on are gone: what a node's newest one hid counts again."""
        raft = self._member.raft
        if self._own_join >= index:  # the first one, so there is none left
            self._own_join = 0
        self._tail.clear()
        self._leaving.clear()
        self._note(raft.last_applied + 1, raft.log.last_index + 1)
        self.moved = True

    def begin_anew(self) -> None:
        """A snapshot was installed: what is kept of the log behind it may be nothing."""
        self._tail.clear()
        self._leaving.clear()
        self.appended(self._member.raft.log.first_index, self._member.raft.log.last_index + 1)
        self.moved = True

    def greet_anew(self) -> None:
        """A snapshot was installed, and NODE_JOINs may be in it: what nodes said of a lost log before is old, so those
        that said it are asked once more who they are."""
        member = self._member
        for node_id in sorted(member.raft.without_log):  # also of who is not in the snapshot: it may join again
            member.raft.restart_progress(node_id, member.now)  # who installs leads nobody: only the mark goes
        for info in list(member.links.infos.values()):
            if info.lost or info.node_id in self.lost_learners:
                member.links.close(info, "what it said of its log is older than the snapshot")
        self.lost_learners.clear()
        self._settled.clear()
        self._invited_until = dict.fromkeys(member.state.nodes, member.now + member.config.joiner_timeout)

    def joined(self, node_id: str, index: int) -> None:
        """The node's NODE_JOIN at `index` was applied: if it had lost its log it is served again."""
        member = self._member
        self.moved = True
        self._joined_at[node_id] = index
        if node_id in self._tail and self._tail[node_id][0] <= index:  # else it joins once more behind this
            del self._tail[node_id]
        self._settled.discard(node_id)
        self._invited_until[node_id] = member.now + member.config.joiner_timeout
        if node_id not in member.raft.without_log or not self._votes(node_id):
            self._begin_anew_with(node_id)
        # Else the log has it as a voter behind this entry: it joined before it lost its log, or anew. It will say.
        for table in (member.links.outbound, member.links.inbound):
            if node_id in table and table[node_id].lost:
                member.links.close(table[node_id], "it may have its log again")

    def _begin_anew_with(self, node_id: str) -> None:
        """What the node acknowledged before counts no more, and it is served, whatever it said before."""
        member = self._member
        was_lost = node_id in self.lost_learners
        self.lost_learners.discard(node_id)
        member.raft.restart_progress(node_id, member.now)
        info = member.links.outbound.get(node_id)
        for bound in (info, member.links.inbound.get(node_id)):
            if bound is not None and bound.lost and not member.is_voter(node_id):
                was_lost, bound.lost = True, False  # it was a voter when it said so, and begins anew as a learner
        if was_lost and info is not None:
            member.raft.link_up(node_id, member.now)

    # ------------------------------------------------------------------ what they say of themselves

    def _votes(self, node_id: str) -> bool:
        """Whether it is a voter by the applied state or by the log: after a restart that may be far ahead."""
        return self._member.is_voter(node_id) or node_id in self._member.raft.voters

    def dialled(self, info: LinkInfo, target: str) -> None:
        """A link to `target` is open; nothing was said on it."""
        info.dialled_voter = self._votes(target)
        info.dialled_settled = target in self._settled

    def greeted(self, info: LinkInfo, now: float) -> bool:
        """A node of ours says which cluster it is of: it may have lost its log (PROTOCOL 9). Whether the link stays.

        However late it is heard, a greeting from before the node was what it is now says nothing: on a link that was
        dialled too early for us to tell, the node is asked anew.
        """
        member, node_id = self._member, info.node_id or ""
        votes = self._votes(node_id)
        if info.outbound and not info.is_meet and not votes and info.cluster in NO_CLUSTER:
            member.raft.joins_anew(node_id, now)
        if not votes and node_id not in member.state.nodes:
            return True
        if info.cluster not in NO_CLUSTER:
            self._settled.add(node_id)
            lost = node_id in self.lost_learners or node_id in member.raft.without_log
            if lost and info.cluster == member.cluster_id:
                self._begin_anew_with(node_id)
        elif votes:
            if info.outbound and not info.is_meet and not info.dialled_voter:
                member.links.close(info, "it was no voter yet when it was asked who it is")
                return False
            info.lost = True
            if info.dialled_voter:
                member.raft.lost_log(node_id, now)
                member.report(f"the voter {node_id} has lost its log and its votes: forget it", once=node_id)
        elif info.cluster == "joining":
            self._settled.add(node_id)
        elif info.outbound:
            may_join = node_id in self._settled or now < self._invited_until.get(node_id, 0.0)
            if info.dialled_settled or not may_join:
                self.lost_learners.add(node_id)
            elif not info.is_meet:
                member.links.close(info, "it had not joined yet when it was asked who it is")
                return False
        return True

    # ------------------------------------------------------------------ where they are

    def came_from(self, info: LinkInfo, now: float) -> None:
        """A node that we know greeted us on a link of its own: it may have another address than before."""
        self.moved = True
        if self._other_address(info) is not None:
            self._told_elsewhere.setdefault(info.node_id or "", now + self._member.config.node_timeout)

    def tick(self, now: float) -> None:
        """A node that moved says so itself, if it finds the leader. It may not know who that is, nor the leader where
        it is; then whom it found says it."""
        member = self._member
        for node_id, when in list(self._told_elsewhere.items()):
            if now < when:
                continue
            info = member.links.inbound.get(node_id)
            entry = self._other_address(info) if info is not None else None
            if entry is None:
                del self._told_elsewhere[node_id]
                continue
            self._told_elsewhere[node_id] = now + member.config.node_timeout
            if member.standing is Standing.MEMBER:
                member.proposals.add_wanted(entry.encode(), now)

    def _other_address(self, info: LinkInfo) -> NodeInfo | None:
        """What would put the address that a member gives on its link into the state; None where it is there."""
        known, given = self._member.state.nodes.get(info.node_id or ""), info.announced
        if known is None or given is None or info.cluster != self._member.cluster_id:
            return None
        there = known.address
        if (given.ip, given.port, given.cport) == (there.ip, there.port, there.cport):
            return None
        return NodeInfo(known.id, nodesconf.format_address(given), known.nofailover)

    # ------------------------------------------------------------------ what follows

    def follow(self) -> None:
        """Tells Raft who the members are, and the node whom to dial."""
        member = self._member
        self.moved = False
        applied = member.raft.last_applied
        self._leaving = {node_id: index for node_id, index in self._leaving.items() if index > applied}
        if member.standing in (Standing.MEMBER, Standing.JOINER):
            members = member.state.nodes.keys() | self._tail.keys()
            if member.standing is Standing.JOINER and not self.joined_in_this_life:
                members -= {member.node_id}  # it reads history, of an earlier life
            member.raft.set_members(members, member.now)
        member.orders.dial = self._targets()
        member.orders.busy = True

    def _targets(self) -> dict[str, tuple[str, int]]:
        member, links = self._member, self._member.links
        targets: dict[str, tuple[str, int]] = {}
        # A joiner that others may count on finds them, as members do: it may have moved, or be forgotten by now.
        if member.standing is not Standing.MEMBER and not (member.standing is Standing.JOINER and self.is_counted_on):
            return targets
        addresses = {node_id: node.address for node_id, node in member.state.nodes.items()}
        for node_id, (_, join) in self._tail.items():
            addresses[node_id] = nodesconf.parse_address(join.address)
        # Who is linked to us said where it is: it may have moved, and the state can follow only once we reach it.
        for node_id in (links.inbound.keys() & addresses.keys()) | (member.raft.voters - addresses.keys()):
            if node_id in links.heard_addresses:
                addresses[node_id] = links.heard_addresses[node_id]
        for node_id, address in addresses.items():
            ip = address.ip
            if not ip and node_id in links.heard_addresses:
                ip = links.heard_addresses[node_id].ip
            if node_id != member.node_id and ip and address.cport:
                targets[node_id] = (ip, address.cport)
        return targets
