"""A snapshot's bytes: the node lines, the `app` line, and the session table in front of the state machine's bytes.

Floor 2. Shape and meaning only (PROTOCOL 7): no file is opened and no piece is sent here. A snapshot is refused whole
or taken whole; whatever is read is read into fresh values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import EntryError, ParseError, SnapshotError
from ..hot import nodesconf
from .sessions import Sessions
from .state import ClusterState

__all__ = [
    "Head",
    "app_header",
    "node_lines",
    "parse_nodes",
    "session_part",
    "split_head",
    "split_sessions",
    "state_of",
]

_APP_LINE = re.compile(rb"app (0|[1-9][0-9]{0,19}) ([0-9a-f]{16})")
_LONGEST_APP_LINE: Final = len(b"app ") + 20 + 1 + 16
_SESSIONS_LINE = re.compile(rb"sessions (0|[1-9][0-9]{0,19})")
_LONGEST_SESSIONS_LINE: Final = len(b"sessions ") + 20
# Flags of nodes that are no members, and of the one whose file it is: neither may travel.
_NOT_SENT: Final = ("myself", "handshake", "meet")


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a snapshot's `app` bytes. Where it has no such part, the last three say so: None, None, end.

    `nodes` are the node lines as bytes, `app_length` and `app_crc` what the `app` line says (0 is a checksum like any
    other), `app_offset` is where its bytes begin.
    """

    nodes: bytes
    app_length: int | None
    app_crc: int | None
    app_offset: int


def node_lines(state: ClusterState) -> bytes:
    """The state's node lines, ascending by id, each ending in LF; nobody is `myself`. Equal states, equal bytes."""
    return b"".join(nodesconf.format_node_line(record) + b"\n" for record in state.records())


def app_header(length: int, crc: int) -> bytes:
    """The line `app <length> <crc64>`, LF included, that stands before `length` bytes of that checksum."""
    if not 0 <= length < 1 << 64 or not 0 <= crc < 1 << 64:
        raise ValueError(f"no app part of length {length} and checksum {crc}")
    return b"app %d %016x\n" % (length, crc)


def session_part(sessions: Sessions) -> bytes:
    """What stands before the state machine's bytes: the line `sessions <length>` and the table."""
    table = sessions.encode()
    return b"sessions %d\n%s" % (len(table), table)


def split_head(data: bytes, total: int | None = None) -> Head | None:
    """The head of a snapshot of `total` bytes that begins with `data`; None where more bytes are needed to tell.

    `total` None: `data` is all of it. The node lines are not looked into. **Raises** SnapshotError for a malformed
    `app` line, or one whose length is not that of the rest.
    """
    total = len(data) if total is None else total
    # A node line begins with an id, so no node line looks like this.
    start = 0 if data.startswith(b"app ") else data.find(b"\napp ") + 1
    if start == 0 and not data.startswith(b"app "):
        return Head(data, None, None, total) if len(data) >= total else None
    end = data.find(b"\n", start, start + _LONGEST_APP_LINE + 1)
    if end < 0 and len(data) < total and len(data) - start <= _LONGEST_APP_LINE:
        return None
    match = _APP_LINE.fullmatch(data, start, end) if end >= 0 else None
    if match is None:
        raise SnapshotError("the app line is malformed")
    length, offset = int(match[1]), end + 1
    if length != total - offset:
        raise SnapshotError(f"the app line says {length} bytes, and {total - offset} follow")
    return Head(data[:start], length, int(match[2], 16), offset)


def parse_nodes(nodes: bytes, sender_id: str, my_id: str) -> ClusterState:
    """`state_of` the node lines of a snapshot that was sent to us.

    **Raises** SnapshotError also for no line of the sender or of ours, and where nobody votes.
    """
    state = state_of(nodes)
    for node_id, who in ((sender_id, "the sender"), (my_id, "this node")):
        if node_id not in state.nodes:
            raise SnapshotError(f"no line of {who}, {node_id}")
    if not state.voters():
        raise SnapshotError("no line of a voter")
    return state


def state_of(nodes: bytes) -> ClusterState:
    """A fresh state of a snapshot's node lines.

    **Raises** SnapshotError, and nothing has changed, for a bad line, a missing final LF, an id or a slot on two lines,
    and a flag that must not travel.
    """
    if not nodes.endswith(b"\n"):
        raise SnapshotError("the last node line lacks its end")
    records = []
    for number, line in enumerate(nodes[:-1].split(b"\n"), 1):
        try:
            record = nodesconf.parse_node_line(line)
        except ParseError as error:
            raise SnapshotError(f"node line {number}: {error.reason}") from error
        for flag in _NOT_SENT:
            if flag in record.flags:
                raise SnapshotError(f"node line {number}: the flag {flag} in a snapshot")
        records.append(record)
    try:
        return ClusterState.from_records(records)
    except EntryError as error:
        raise SnapshotError(str(error)) from error


def split_sessions(pieces: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """(session table, the state machine's bytes) of the `app` bytes, which may be cut anywhere.

    The second is an iterator that goes on reading `pieces`. **Raises** SnapshotError where they do not begin with a
    whole table.
    """
    source = iter(pieces)
    begun = b""
    while (end := begun.find(b"\n", 0, _LONGEST_SESSIONS_LINE + 1)) < 0:
        piece = next(source, None)
        if piece is None or len(begun) > _LONGEST_SESSIONS_LINE:
            raise SnapshotError("the app part does not begin with its sessions")
        begun += piece
    match = _SESSIONS_LINE.fullmatch(begun, 0, end)
    if match is None:
        raise SnapshotError("the sessions line is malformed")
    length = int(match[1])
    table, missing = [begun[end + 1 :]], length - (len(begun) - end - 1)
    while missing > 0:
        piece = next(source, None)
        if piece is None:
            raise SnapshotError(f"the session table of {length} bytes lacks {missing}")
        table.append(piece)
        missing -= len(piece)
    joined = b"".join(table)
    return joined[:length], _rest(joined[length:], source)


def _rest(first: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from source
