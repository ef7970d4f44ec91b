"""Who listens to a node's events: each has a queue of its own, and one that falls behind holds up nobody.

Floor 4, a part of the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from .member import Event

__all__ = ["Subscribers"]

_EVENTS_KEPT = 1024


class Subscribers:
    """Those that are listening now; its length is their number."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._queues)

    def tell(self, event: Event) -> None:
        """Something happened."""
        self._put(event)

    def end(self) -> None:
        """Nothing more will happen: who listens comes to an end, and so does at once who begins later. Idempotent."""
        self._ended = True
        self._put(None)

    def _put(self, event: Event | None) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    async def listen(self) -> AsyncIterator[Event]:
        """What is told from the first step of the iteration on, to the end. Who falls behind misses the oldest."""
        if self._ended:
            return
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS_KEPT)
        self._queues.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)
