"""What the links of one node count, and the log of their faults.

Floor 3, nothing but counting and saying. Never here: sockets, and any decision that follows from a count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from ..messages import Message, Module, Publish

__all__ = ["FaultLog", "LinkStats"]

_logger = logging.getLogger("raftfast.net")

_MAX_PEERS = 1024


class FaultLog:
    """Warns of the faults of links at most once in `interval` seconds a peer (PROTOCOL 1).

    What is held back is counted, and told with the peer's next line. Remembers at most `_MAX_PEERS` peers, so that
    made-up addresses cost no memory; while that many were heard of within one interval, others are not logged.
    """

    __slots__ = ("_interval", "_said")

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        # peer -> [when it was last logged, how many were held back since]; oldest first, because a peer is moved
        # to the end each time it is logged
        self._said: dict[str, tuple[float, int]] = {}

    def warn(self, peer: str, text: str, now: float) -> bool:
        """Logs `text` for `peer` unless one was logged within the interval; whether it was. `now`: monotonic seconds.

        **Cost** O(1) amortised.
        """
        at, held = self._said.get(peer, (float("-inf"), 0))
        if now - at < self._interval:
            self._said[peer] = (at, held + 1)
            return False
        self._said.pop(peer, None)
        self._forget(now)
        if len(self._said) >= _MAX_PEERS:
            return False
        self._said[peer] = (now, 0)
        # a peer's bytes must not draw on the terminal that shows the log
        text = text if text.isprintable() else ascii(text)
        more = f" ({held} more since the last line)" if held else ""
        _logger.warning("%s: %s%s", peer or "unknown address", text, more)
        return True

    def _forget(self, now: float) -> None:
        """Drops from the oldest on what is past its interval and owes no count; all that is, when full."""
        full = len(self._said) >= _MAX_PEERS
        while self._said:
            peer = next(iter(self._said))
            at, held = self._said[peer]
            if now - at < self._interval or (held and not full):
                return
            del self._said[peer]


class LinkStats:
    """Totals over all links of one node, past and present. Numbers only grow.

    `messages_in` and `messages_out` count by message class; verbs that are not known count as `Unknown`. The
    `publish` and `module` byte counts are of payloads (channel and message; data), all other bytes are of frames.
    `unsent` counts messages for links that were already closed, and those that met the buffer limit.
    """

    __slots__ = (
        "buffer_limit_exceeded",
        "bytes_in",
        "bytes_out",
        "dial_failures",
        "dials",
        "faults",
        "links_closed",
        "links_opened",
        "messages_in",
        "messages_out",
        "module_bytes_in",
        "module_bytes_out",
        "protocol_errors",
        "publish_bytes_in",
        "publish_bytes_out",
        "unsent",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in: Counter[type[Message]] = Counter()
        self.messages_out: Counter[type[Message]] = Counter()
        self.publish_bytes_in = 0
        self.publish_bytes_out = 0
        self.module_bytes_in = 0
        self.module_bytes_out = 0
        self.links_opened = 0
        self.links_closed = 0
        self.dials = 0
        self.dial_failures = 0
        self.protocol_errors = 0
        self.buffer_limit_exceeded = 0
        self.unsent = 0
        self.faults = FaultLog()

    def received(self, messages: Sequence[Message]) -> None:
        """Counts messages that came in."""
        publish, module = _count(self.messages_in, messages)
        self.publish_bytes_in += publish
        self.module_bytes_in += module

    def sent(self, messages: Sequence[Message]) -> None:
        """Counts messages handed to a socket."""
        publish, module = _count(self.messages_out, messages)
        self.publish_bytes_out += publish
        self.module_bytes_out += module

    def counters(self) -> dict[str, int]:
        """All counts by name, for `Status.counters`: `messages_in_AppendEntries`, `bytes_out`, …"""
        totals = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("messages_in", "messages_out", "faults")
        }
        for direction, counts in (("in", self.messages_in), ("out", self.messages_out)):
            totals[f"messages_{direction}"] = counts.total()
            totals |= {f"messages_{direction}_{kind.__name__}": number for kind, number in counts.items()}
        return totals


def _count(counts: Counter[type[Message]], messages: Sequence[Message]) -> tuple[int, int]:
    """Adds `messages` to `counts`; the payload bytes of the Publish and Module messages among them.

    The counting itself runs in C; the messages are looked at one by one only where some are of those two kinds.
    """
    before = counts[Publish], counts[Module]
    counts.update(map(type, messages))
    if (counts[Publish], counts[Module]) == before:
        return 0, 0
    publish = sum(len(each.channel) + len(each.message) for each in messages if isinstance(each, Publish))
    module = sum(len(each.data) for each in messages if isinstance(each, Module))
    return publish, module
