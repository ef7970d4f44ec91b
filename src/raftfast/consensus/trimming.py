"""How far the log in memory may be trimmed: only applied entries, and not what somebody still needs (PROTOCOL 7).

Floor 2. Storage is not concerned: the file keeps what is above its own stored state, whatever memory drops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..config import Config

if TYPE_CHECKING:
    from ..hot import RaftLog

__all__ = ["Trimming"]


class Trimming:
    """When what was applied, and what follows for the front of the log.

    Invariant: the samples ascend in time and index.
    """

    __slots__ = ("_applied_at", "_config", "tail_factor")

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tail_factor = 1
        """How many times `max_log_bytes` the log may hold: more, while a snapshot takes longer than the tail covers."""
        self._applied_at: deque[tuple[float, int]] = deque()

    def applied(self, index: int, now: float) -> None:
        """Entries up to `index` are applied."""
        if self._applied_at and self._applied_at[-1][0] == now:
            self._applied_at[-1] = (now, index)
        else:
            self._applied_at.append((now, index))

    def clear(self) -> None:
        """The log was dropped, or begins elsewhere."""
        self._applied_at.clear()

    def target(self, log: RaftLog, last_applied: int, least_needed: Callable[[float], int], now: float) -> int:
        """The index to trim to; the boundary where nothing is to be dropped.

        Nothing above `least_needed(now)` may go, but where the log outgrew `max_log_bytes`.
        """
        config, boundary = self._config, log.boundary_index
        target = boundary
        if last_applied - boundary > 2 * config.trim_keep:
            target = min(last_applied - config.trim_keep, least_needed(now), self._applied_long_ago(boundary, now))
        if log.nbytes > self.most_bytes:
            target = max(target, self._oversize(log, last_applied))
        return target if target > boundary else boundary

    def _applied_long_ago(self, boundary: int, now: float) -> int:
        """The highest index that was applied at least `trim_keep_time` ago."""
        samples, limit = self._applied_at, now - self._config.trim_keep_time
        while len(samples) > 1 and samples[1][0] <= limit:
            samples.popleft()
        return samples[0][1] if samples and samples[0][0] <= limit else boundary

    @property
    def most_bytes(self) -> int:
        """What applied entries may take in memory, whoever needs them."""
        return self.tail_factor * self._config.max_log_bytes

    def _oversize(self, log: RaftLog, last_applied: int) -> int:
        """How far to trim to come back under `max_log_bytes`."""
        index, excess = log.boundary_index, log.nbytes - self.most_bytes
        while excess > 0 and index < last_applied:
            index += 1
            excess -= len(log.line(index))
        return index
