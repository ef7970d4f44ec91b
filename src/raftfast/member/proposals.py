"""This node's proposals on their way: given an identity, sent, sent again on the events that ask for it, answered.

Floor 3. The table is `consensus.pending`; this file decides when a proposal leaves, and what its proposer is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cluster.entries import app_entry
from ..config import Config
from ..consensus import Pending, Proposal
from ..errors import Busy, Dropped, Expired, UnknownOutcome

__all__ = ["Client", "Proposals", "app_key"]


def app_key(client_id: str, sequence: int) -> bytes:
    """What an APP proposal is known by."""
    return b"%s:%d" % (client_id.encode(), sequence)


class Client:
    """A session of this process: an id, and which of its sequence numbers are outstanding (PROTOCOL 6.3).

    The span from the oldest outstanding number to the next one never exceeds the window, so that no command of ours
    can fall below it.
    """

    __slots__ = ("_outstanding", "client_id", "next_sequence", "opened")

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.next_sequence = 1
        self.opened = False
        self._outstanding: dict[int, None] = {}

    def has_room(self, window: int) -> bool:
        """Whether one more command may be outstanding."""
        oldest = next(iter(self._outstanding), self.next_sequence)
        return self.next_sequence - oldest < window

    def take_sequence(self) -> int:
        """The next number, outstanding from now on."""
        sequence = self.next_sequence
        self.next_sequence += 1
        self._outstanding[sequence] = None
        return sequence

    def done(self, sequence: int) -> None:
        """The number is answered, or given up."""
        self._outstanding.pop(sequence, None)

    @property
    def idle(self) -> bool:
        """Whether nothing is outstanding."""
        return not self._outstanding


class Proposals:
    """All outstanding proposals of this node.

    Invariant: what is in `unsent` is in `pending` too, in the order in which it is to leave.
    """

    def __init__(self, config: Config, new_id: Callable[[], str], answer: Callable[[Any, Any, Any], None]) -> None:
        """`answer(token, result, error)` is called once for each token."""
        self._config = config
        self._new_id = new_id
        self._answer = answer
        self._clients: list[Client] = []
        self._by_key: dict[bytes, tuple[Client, int]] = {}
        self._sent_in = (0, "")
        self.pending = Pending()
        self.unsent: list[Proposal] = []

    def __len__(self) -> int:
        return len(self.pending)

    # ------------------------------------------------------------------ in

    def add_app(self, command: bytes, token: Any, now: float) -> None:
        """A command outside any session of the user's. Raises Busy or EntryError, and nothing was taken."""
        self._room_for(len(command))
        client = self._client(now)
        sequence = client.next_sequence
        entry = app_entry(client.client_id, sequence, command)
        key = app_key(client.client_id, client.take_sequence())
        self._by_key[key] = (client, sequence)
        self._add(Proposal(key, entry, token, now + self._config.proposal_timeout))

    def add_session(self, client: Client, sequence: int, command: bytes, token: Any, now: float) -> None:
        """A command of a session; the same sequence again is the same command again. Raises Busy or EntryError."""
        self._room_for(len(command))
        entry = app_entry(client.client_id, sequence, command)
        self._add(Proposal(app_key(client.client_id, sequence), entry, token, now + self._config.proposal_timeout))

    def add_entry(self, entry: bytes, token: Any, now: float) -> None:
        """A cluster entry. Raises Busy where somebody waits for it; what the node wants by itself always has room."""
        if token is not None:
            self._room_for(len(entry))
        self._add(Proposal(entry, entry, token, now + self._config.proposal_timeout))

    def add_wanted(self, entry: bytes, now: float) -> None:
        """A cluster entry that the node wants by itself, and nobody waits for; not where the same is pending."""
        if not self.pending.has(entry):
            self.add_entry(entry, None, now)

    def _add(self, proposal: Proposal) -> None:
        self.pending.add(proposal)
        self.unsent.append(proposal)

    def _room_for(self, nbytes: int) -> None:
        config = self._config
        if len(self.pending) >= config.max_pending:
            raise Busy(f"{len(self.pending)} proposals are pending")
        if nbytes > config.max_pending_bytes - self.pending.nbytes and len(self.pending):
            raise Busy(f"{self.pending.nbytes} bytes of proposals are pending")

    def _client(self, now: float) -> Client:
        """A client of this process with room for one more command; where there is none a new one is opened."""
        for client in self._clients:
            if client.has_room(self._config.session_window):
                break
        else:
            client = Client(self._new_id())
            self._clients.append(client)
        if not client.opened:
            client.opened = True
            key = app_key(client.client_id, 0)
            opening = app_entry(client.client_id, 0, b"")
            self._add(Proposal(key, opening, None, now + self._config.proposal_timeout))
        return client

    # ------------------------------------------------------------------ out

    def heard_from(self, term: int, leader_id: str) -> None:
        """There is a leader of `term`: what was last sent in an older term leaves again (PROTOCOL 6.2)."""
        if (term, leader_id) == self._sent_in:
            return
        newer = term > self._sent_in[0]
        self._sent_in = (term, leader_id)
        if newer:
            self.unsent = [proposal for proposal in self.pending if proposal.sent_term < term]

    def send_all_again(self) -> None:
        """The link to the leader was made anew, or a snapshot left these open: all leave again, in their order."""
        self.unsent = list(self.pending)

    def take_unsent(self, term: int) -> list[bytes]:
        """The entries that leave now, in `term`."""
        leaving, self.unsent = self.unsent, []
        entries = []
        for proposal in leaving:
            proposal.sent_term = term
            proposal.sent_count += 1
            entries.append(proposal.entry)
        return entries

    # ------------------------------------------------------------------ answered

    def complete(self, key: bytes, result: Any, error: Exception | None) -> None:
        """The oldest proposal under `key` is decided. No effect where it is none of ours."""
        proposal = self.pending.pop(key)
        if proposal is None:
            return
        if proposal in self.unsent:
            self.unsent.remove(proposal)  # what waits to be sent again too: it is decided
        self._finish(proposal, result, error)

    def sent_more_than_once(self, key: bytes) -> bool:
        """Whether a REJECT of it must be looked at against the own state first (PROTOCOL 6.4)."""
        return any(proposal.sent_count > 1 for proposal in self.pending.under(key))

    def expire(self, now: float) -> None:
        """Gives up what is too old: its outcome is unknown, unless it never left."""
        expired = self.pending.expired(now)
        if not expired:
            return
        gone = set(map(id, expired))
        self.unsent = [proposal for proposal in self.unsent if id(proposal) not in gone]
        for proposal in expired:
            if proposal.sent_count:
                error: Exception = Expired("not decided in time")
            else:
                error = Dropped("no leader was found in time; the command was never sent")
            self._finish(proposal, None, error)

    def fail_all(self, error: Callable[[bool], Exception]) -> None:
        """The node closes or is reset; `error(sent)` makes the error of one."""
        self.unsent = []
        for proposal in self.pending.drain():
            self._finish(proposal, None, error(proposal.sent_count > 0))
        self._clients = []

    def _finish(self, proposal: Proposal, result: Any, error: Exception | None) -> None:
        origin = self._by_key.pop(proposal.key, None)
        if origin is not None:
            client, sequence = origin
            client.done(sequence)
            if isinstance(error, UnknownOutcome) and client in self._clients:
                # It may be that the client is not open, or was closed: never use it again.
                self._clients.remove(client)
        elif error is not None and proposal.key.endswith(b":0"):
            self._clients = [client for client in self._clients if app_key(client.client_id, 0) != proposal.key]
        if proposal.token is not None:
            self._answer(proposal.token, result, error)
