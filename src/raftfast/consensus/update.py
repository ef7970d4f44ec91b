"""What the core wants done: the one output of `Raft`, taken once a turn.

Floor 2. Values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..messages import Message
from ..records import HardState

__all__ = ["Installed", "Send", "Update"]


class Send(NamedTuple):
    """A message for `to`: on our outbound link to it where `link` is None, else as a reply on that very link.

    A reply whose link is gone is dropped, never sent elsewhere (PROTOCOL 5.3).
    """

    to: str
    message: Message
    link: int | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed snapshot to be stored in one atomic rewrite.

    Log lines above `keep_above` in the file stay; None: none stay.
    """

    index: int
    term: int
    keep_above: int | None


@dataclass(slots=True, init=False)
class Update:
    """One turn's orders, in the order in which they are carried out.

    1. `ticket` not 0: hand to storage, as one job, the snapshot if any, then what follows: `hard_state` where it
       changed, the cut at `truncate_from` where set, the log entries `store_from <= index < store_to`. Jobs are
       stored in the order of their tickets; when one is durable its ticket goes to `Raft.stored`.
    2. `send` may leave at once: whatever promises something not yet durable is kept inside the core until `stored`.
    3. `close` names links that broke the protocol, with the reason; `critical` what an operator must hear of.
    4. Apply up to `commit_index`, without waiting for the own disk.
    5. `needs_snapshot`: members whose next entry is compacted away and who have no transfer yet.
    6. `reads` are the confirmed reads (token, index): to be served once index is applied; `reads_failed` must be
       asked anew elsewhere.
    7. `wake_at`: the latest time for the next `tick`.
    """

    ticket: int
    hard_state: HardState | None
    snapshot: Installed | None
    truncate_from: int | None
    store_from: int
    store_to: int
    send: list[Send]
    close: list[tuple[int, str]]
    critical: list[str]
    commit_index: int
    needs_snapshot: list[str]
    reads: list[tuple[Any, int]]
    reads_failed: list[Any]
    wake_at: float

    def __init__(self) -> None:  # written out: one is made each turn, and a generated one takes twice as long
        self.ticket = self.store_from = self.store_to = self.commit_index = 0
        self.hard_state = self.snapshot = self.truncate_from = None
        self.send = []
        self.close = []
        self.critical = []
        self.needs_snapshot = []
        self.reads = []
        self.reads_failed = []
        self.wake_at = 0.0
