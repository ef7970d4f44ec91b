"""The exactly-once table: which commands of which client were applied, and what they answered.

Floor 2. Deterministic: it is changed by applied entries alone, in the order of the log, so it is equal on every member
(PROTOCOL 6.3). No clock closes a session, and nothing here knows what a command does.
"""

from __future__ import annotations

import enum
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import InvariantViolation, SnapshotError

__all__ = ["Duplicate", "Look", "Sessions"]

_MOST: Final = (1 << 64) - 1
_WIDEST: Final = 1 << 20
_ROW = re.compile(
    rb"([0-9a-f]{40}) (0|[1-9][0-9]{0,19}) (0|[1-9][0-9]{0,19}) ([1-9a-f][0-9a-f]{0,262143}) (0|[1-9][0-9]{0,6})"
)
_RESULT = re.compile(rb"(0|[1-9][0-9]{0,19}) (-|0|[1-9][0-9]{0,19})")
_HEAD = re.compile(rb"v2 (0|[1-9][0-9]{0,8}) (0|[1-9][0-9]{0,8})")
_CLOSED = re.compile(rb"[0-9a-f]{40}")
_LONGEST_ROW: Final = 1 << 19


class Look(enum.Enum):
    """What the table says of a command that it has not applied."""

    FRESH = "fresh"
    """To be applied now."""
    TOO_OLD = "too old"
    """Below the window: whether it was applied is no longer known, and it never will be."""
    NOT_OPEN = "not open"
    """Of a client that has no open session: nothing of it is applied."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The command was applied before. `result` is what it answered, if `kept`; else the result is gone."""

    result: bytes | None
    kept: bool


_OPENED: Final = Duplicate(None, kept=True)
_GONE: Final = Duplicate(None, kept=False)


class _Session:
    """One client. Bit *i* of `applied` stands for the sequence `greatest - i`; `results` are in the log's order.

    `shared`: a copy of the table holds the same `results`; they are copied before the next change.
    """

    __slots__ = ("applied", "greatest", "last_index", "result_bytes", "results", "shared")

    def __init__(self, last_index: int) -> None:
        self.last_index = last_index
        self.greatest = 0
        self.applied = 1
        self.results: dict[int, bytes | None] = {}
        self.result_bytes = 0
        self.shared = False


class Sessions:
    """The open sessions, the one whose last entry is oldest in the log first.

    `window` is how many sequence numbers, the greatest among them, a session remembers; `result_bytes` what the
    results that one session keeps may hold together; `max_sessions` how many may be open. All three must be the same
    on every member.

    Invariants: 1. `last_index` grows from the first session to the last; 2. there are at most `max_sessions`; 3. each
    session's `applied` has bit 0 and no bit at or above `window` or below sequence 0; 4. a result is kept only of an
    applied sequence, and all of a session fit `result_bytes`; 5. at most `max_sessions` closed ones are remembered, and
    none of them is open.
    """

    __slots__ = ("_closed", "_mask", "_max_sessions", "_most_result_bytes", "_sessions", "_window")

    def __init__(self, window: int = 1024, result_bytes: int = 1 << 20, max_sessions: int = 10_000) -> None:
        if not 1 <= window <= _WIDEST or result_bytes < 0 or max_sessions < 1:
            raise ValueError(f"no table of {max_sessions} sessions, window {window}, {result_bytes} bytes")
        self._window = window
        self._mask = (1 << window) - 1
        self._most_result_bytes = result_bytes
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._closed: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._sessions

    def __iter__(self) -> Iterator[str]:
        return iter(self._sessions)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same sessions in the same order; the limits don't count."""
        return self.encode() == other.encode() if isinstance(other, Sessions) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def look(self, client_id: str, sequence: int) -> Look | Duplicate:
        """What is known of a command. Changes nothing. Sequence 0 stands for the session's opening."""
        session = self._sessions.get(client_id)
        if sequence == 0:
            return Look.FRESH if session is None else _OPENED
        if session is None:
            return Look.NOT_OPEN
        age = session.greatest - sequence
        if age < 0:
            return Look.FRESH
        if age >= self._window:
            return Look.TOO_OLD
        if not session.applied >> age & 1:
            return Look.FRESH
        return Duplicate(session.results[sequence], kept=True) if sequence in session.results else _GONE

    def open(self, client_id: str, index: int) -> bool:
        """Applies `<client-id>:0`: whether it opened a session. Where it makes one too many, the oldest is closed.

        One that was closed is not opened again: the opening may be a copy of the first, and commands that were applied
        then would be again. As many closed ones are remembered as may be open.
        """
        if client_id in self._sessions:
            self.touch(client_id, index)
            return False
        if client_id in self._closed:
            return False
        self._sessions[client_id] = _Session(index)
        if len(self._sessions) > self._max_sessions:
            self._close_oldest()
        return True

    def _close_oldest(self) -> None:
        self._closed[self._sessions.popitem(last=False)[0]] = None
        if len(self._closed) > self._max_sessions:
            self._closed.popitem(last=False)

    def touch(self, client_id: str, index: int) -> None:
        """The entry at `index` is this client's, though it applies nothing. No effect where the client is not open."""
        session = self._sessions.get(client_id)
        if session is not None:
            session.last_index = index
            self._sessions.move_to_end(client_id)

    def record(self, client_id: str, sequence: int, index: int, result: bytes | None) -> None:
        """The command, which `look` found FRESH, was applied by the entry at `index` and answered `result`.

        A result that alone exceeds `result_bytes` is not kept; otherwise the oldest make room for it. **Raises**
        ValueError for a command that is not fresh, TypeError for an answer that is neither bytes nor None. **Cost**:
        constant on the whole, if sequences have no gaps.
        """
        if result is not None and not isinstance(result, bytes):
            # Kept, it would be found out by the next snapshot only, far from whoever returned it.
            raise TypeError(f"what a command answers must be bytes or None, not {type(result).__name__}")
        session = self._sessions.get(client_id)
        if session is None or sequence < 1:
            raise ValueError(f"command {client_id}:{sequence} is not fresh")
        if session.shared:
            session.results = session.results.copy()
            session.shared = False
        ahead = sequence - session.greatest
        if ahead > 0:
            self._advance(session, ahead)
        elif -ahead >= self._window or session.applied >> -ahead & 1:
            raise ValueError(f"command {client_id}:{sequence} is not fresh")
        else:
            session.applied |= 1 << -ahead
        session.last_index = index
        self._sessions.move_to_end(client_id)
        size = 0 if result is None else len(result)
        if size <= self._most_result_bytes:
            session.results[sequence] = result
            session.result_bytes += size
            if session.result_bytes > self._most_result_bytes:
                self._make_room(session)

    def _advance(self, session: _Session, ahead: int) -> None:
        """Moves the window up; the results of what leaves it go too."""
        window, results = self._window, session.results
        if ahead >= window:
            session.applied = 1
            results.clear()
            session.result_bytes = 0
        else:
            session.applied = (session.applied << ahead | 1) & self._mask
            floor = session.greatest - window
            for sequence in range(floor + 1, floor + ahead + 1):
                session.result_bytes -= len(results.pop(sequence, None) or b"")
        session.greatest += ahead

    def _make_room(self, session: _Session) -> None:
        results = session.results
        while session.result_bytes > self._most_result_bytes:
            oldest = next(iter(results))
            session.result_bytes -= len(results.pop(oldest) or b"")

    def copy(self) -> Sessions:
        """A table of its own, as of now, which may be encoded in another thread. **Cost**: a few words a session.

        The results are shared until one of the two changes them.
        """
        other = Sessions(self._window, self._most_result_bytes, self._max_sessions)
        for client_id, session in self._sessions.items():
            twin = _Session(session.last_index)
            twin.greatest, twin.applied = session.greatest, session.applied
            twin.results, twin.result_bytes = session.results, session.result_bytes
            session.shared = twin.shared = True
            other._sessions[client_id] = twin
        other._closed = self._closed.copy()
        return other

    def encode(self) -> bytes:
        """The table as bytes, equal for equal tables.

        `v2 <sessions> <closed>` and LF; then for each session, oldest use first, `<client-id> <last index> <greatest>
        <applied, hex> <results>` and LF; for each of its results, in the log's order, `<sequence> <length|->` and LF,
        the bytes and LF. `-` is a result of None. At the end the ids that were closed, oldest first, each with LF.
        """
        pieces = [b"v2 %d %d\n" % (len(self._sessions), len(self._closed))]
        for client_id, session in self._sessions.items():
            row = (
                client_id.encode("ascii"),
                session.last_index,
                session.greatest,
                session.applied,
                len(session.results),
            )
            pieces.append(b"%s %d %d %x %d\n" % row)
            for sequence, result in session.results.items():
                if result is None:
                    pieces.append(b"%d -\n\n" % sequence)
                else:
                    pieces += (b"%d %d\n" % (sequence, len(result)), result, b"\n")
        pieces += [b"%s\n" % client_id.encode("ascii") for client_id in self._closed]
        return b"".join(pieces)

    @classmethod
    def decode(
        cls, data: bytes, window: int = 1024, result_bytes: int = 1 << 20, max_sessions: int = 10_000
    ) -> Sessions:
        """The table that `encode` made, under these limits: what exceeds them is dropped as if it had grown so.

        **Raises** SnapshotError with the reason.
        """
        table = cls(window, result_bytes, max_sessions)
        cursor = _Cursor(data)
        head = cursor.line(_HEAD)
        last_index = -1
        for _ in range(int(head[1])):
            client_id, session = _read_session(cursor)
            if client_id in table._sessions or session.last_index <= last_index:
                raise SnapshotError(f"session {client_id} stands twice, or out of order")
            last_index = session.last_index
            table._fit(session)
            table._sessions[client_id] = session
        for _ in range(int(head[2])):
            client_id = cursor.line(_CLOSED)[0].decode("ascii")
            if client_id in table._sessions or client_id in table._closed:
                raise SnapshotError(f"session {client_id} is closed, and stands twice")
            table._closed[client_id] = None
        cursor.end()
        while len(table._closed) > max_sessions:
            table._closed.popitem(last=False)
        while len(table._sessions) > max_sessions:
            table._close_oldest()
        return table

    def _fit(self, session: _Session) -> None:
        """Cuts a session that was read down to this table's limits."""
        session.applied &= self._mask
        for sequence, result in list(session.results.items()):
            if session.greatest - sequence >= self._window or len(result or b"") > self._most_result_bytes:
                session.result_bytes -= len(session.results.pop(sequence) or b"")
        self._make_room(session)

    def verify(self) -> None:
        """Raises InvariantViolation for the first of the numbered invariants that is broken. Tests call it."""
        before = -1
        for client_id, session in self._sessions.items():
            if session.last_index <= before:
                raise InvariantViolation(f"1: {client_id} is out of order")
            before = session.last_index
            applied = session.applied
            if not applied & 1 or applied >> self._window or applied.bit_length() > session.greatest + 1:
                raise InvariantViolation(f"3: {client_id} has applied {applied:x} at {session.greatest}")
            size = 0
            for sequence, result in session.results.items():
                age = session.greatest - sequence
                if age < 0 or not applied >> age & 1:
                    raise InvariantViolation(f"4: {client_id} keeps the result of {sequence}")
                size += len(result) if result is not None else 0
            if size != session.result_bytes or size > self._most_result_bytes:
                raise InvariantViolation(f"4: {client_id} keeps {size} bytes")
        if len(self._sessions) > self._max_sessions:
            raise InvariantViolation(f"2: {len(self._sessions)} sessions are open")
        if len(self._closed) > self._max_sessions or self._closed.keys() & self._sessions.keys():
            raise InvariantViolation(f"5: {len(self._closed)} sessions are closed, or one of them is open")


class _Cursor:
    """Takes lines and bytes from the front. Every byte is taken here, and no length is trusted before it fits."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def line(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        end = self._data.find(b"\n", self._at, self._at + _LONGEST_ROW)
        match = pattern.fullmatch(self._data, self._at, end) if end >= 0 else None
        if match is None:
            raise SnapshotError(f"the session table is malformed at byte {self._at}")
        self._at = end + 1
        return match

    def take(self, length: int) -> bytes:
        """The next `length` bytes and the LF behind them, which is not returned."""
        if length > len(self._data) - self._at - 1 or self._data[self._at + length] != 0x0A:
            raise SnapshotError(f"the session table has no result of {length} bytes at byte {self._at}")
        taken = self._data[self._at : self._at + length]
        self._at += length + 1
        return taken

    def end(self) -> None:
        if self._at != len(self._data):
            raise SnapshotError(f"the session table ends at byte {self._at} of {len(self._data)}")


def _read_session(cursor: _Cursor) -> tuple[str, _Session]:
    row = cursor.line(_ROW)
    client_id = row[1].decode("ascii")
    session = _Session(int(row[2]))
    session.greatest, session.applied = int(row[3]), int(row[4], 16)
    if max(session.last_index, session.greatest) > _MOST:
        raise SnapshotError(f"session {client_id} has a number above 2^64 - 1")
    if not session.applied & 1 or session.applied.bit_length() > min(session.greatest + 1, _WIDEST):
        raise SnapshotError(f"session {client_id} has applied what it can't have")
    for _ in range(int(row[5])):
        match = cursor.line(_RESULT)
        sequence = int(match[1])
        age = session.greatest - sequence
        if not 1 <= sequence <= session.greatest or sequence in session.results or not session.applied >> age & 1:
            raise SnapshotError(f"session {client_id} has a result of {sequence}, which it can't have")
        result = cursor.take(0 if match[2] == b"-" else int(match[2]))
        session.results[sequence] = None if match[2] == b"-" else result
        session.result_bytes += len(result)
    return client_id, session
