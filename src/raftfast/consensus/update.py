"""What the core wants done: the one output of `Raft`, taken once a turn.

Floor 2. Values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(slots=True)
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

    ticket: int = 0
    hard_state: HardState | None = None
    snapshot: Installed | None = None
    truncate_from: int | None = None
    store_from: int = 0
    store_to: int = 0
    send: list[Send] = field(default_factory=list)
    close: list[tuple[int, str]] = field(default_factory=list)
    critical: list[str] = field(default_factory=list)
    commit_index: int = 0
    needs_snapshot: list[str] = field(default_factory=list)
    reads: list[tuple[Any, int]] = field(default_factory=list)
    reads_failed: list[Any] = field(default_factory=list)
    wake_at: float = 0.0
