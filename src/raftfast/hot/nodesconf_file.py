"""What the lines of a `nodes.conf` mean together: `Reader` takes them one by one, `written` puts a file together.

Floor 1; shared by both twins of the leaf, which hand in their CRC-64. Here are the rules about order, checksums, torn
tails and what may stand only once (NODESCONF A, 1.5 to 1.8; PROTOCOL 11); never a file, never what an entry does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import ParseError
from ..records import SLOTS, NodeRecord, NodesConf
from .nodesconf_lines import U64_MAX, check_u64, decimal, entry_line, node_of, vars_line, vars_of

__all__ = ["Reader", "written"]

Crc64 = Callable[[bytes, int], int]
NodeLine = Callable[[NodeRecord], bytes]
LogLines = Callable[[int, Sequence[bytes]], bytes]

_FIRST_WORD = re.compile(rb"[ \t\r]*([^ \t\r\x00]*)")
_CRC_LINE = re.compile(rb"crc ([0-9a-f]{16})", re.IGNORECASE)
_CRC_START = re.compile(rb"c|cr|crc|crc [0-9a-f]{0,16}", re.IGNORECASE)
_LOG_LINE = re.compile(rb"log ([0-9a-f]{16}) (([^ ]+) ([^ ]+) ([^ ]+)(?: (.*))?)", re.IGNORECASE | re.DOTALL)
_AE_LINE = re.compile(rb"([^ ]+) ([^ ]+)(?: (.*))?", re.DOTALL)
_NOT_JOINED = frozenset({"meet", "handshake"})
_APP_NAMES = ("appSnapshot", "appLength", "appCrc")


def _kind(line: bytes) -> str:
    if line[:4].lower() == b"crc ":
        return "crc"
    found = _FIRST_WORD.match(line)
    word = found[1].lower() if found is not None else b""
    return word.decode() if word in (b"log", b"vars") else "node"


class Reader:
    """One reading of one file, line by line, in order.

    Invariants:
    1. `next_index` is the index that the next log line must have, `last_term` the least term that it may have.
    2. `pending` is an appended vars line (start, line number, bytes) whose crc line has not come yet; it is not in
       `vars` before that.
    3. `appending` is true from the first crc or log line on: what follows was appended, and may be torn.
    4. `node_lines` has the number of each node's line, `owned` a 1 for each slot with an owner, `has_myself` tells of
       a node with that flag.
    5. `gaps` and `summed_from` name the bytes that the next crc line covers and `crc` does not hold yet.
    """

    def __init__(self, data: bytes, crc64: Crc64) -> None:
        self.data = data
        self.crc64 = crc64
        self.nodes: list[NodeRecord] = []
        self.node_lines: dict[str, int] = {}
        self.vars: dict[str, int | str] = {}
        self.entries: list[tuple[int, int, bytes]] = []
        self.warnings: list[str] = []
        self.torn_from = len(data)
        self.appending = False
        self.pending: tuple[int, int, bytes] | None = None
        self.next_index = 0
        self.last_term = 0
        self.crc = 0
        self.summed_from = 0
        self.gaps: list[tuple[int, int]] = []
        self.has_myself = False
        self.owned = bytearray(SLOTS)
        self._has_crc = False
        self._unchecked: list[int] = []

    @property
    def current_term(self) -> int | None:
        """The term in force where the reading stands; None in a file that is not Raft's (so far)."""
        term = self.vars.get("currentTerm")
        return term if isinstance(term, int) else None

    # --- lines ----------------------------------------------------------------------------------------------------

    def line(self, start: int, end: int, lineno: int) -> None:
        """Takes the line at `data[start:end]`; `end` is where its line end stands, or the end of the data."""
        raw = self.data[start:end]
        if not raw.strip(b"\0"):
            self._skip(start, end + 1)
            return
        try:
            if end == len(self.data):
                self._last_line(raw, start, lineno)
            else:
                self._whole_line(raw, start, lineno)
        except ParseError as error:
            raise ParseError(error.reason, error.lineno or lineno) from None

    def _skip(self, start: int, end: int) -> None:
        """Leaves a blank line out of the running checksum."""
        if start > self.summed_from:
            self.gaps.append((self.summed_from, start))
        self.summed_from = end

    def _whole_line(self, raw: bytes, start: int, lineno: int) -> None:
        kind = _kind(raw)
        if self.pending is not None and kind != "crc":
            raise ParseError(f"the appended vars line {self.pending[1]} has no crc line after it")
        if kind == "crc":
            self._crc_line(raw, start)
        elif kind == "log":
            self._log_line(raw, lineno)
        elif kind == "node":
            self.add_node(node_of(raw), lineno)
        elif self.appending and self.current_term is not None:
            self.pending = (start, lineno, raw)
        else:
            self.add_vars(vars_of(raw))

    def _last_line(self, raw: bytes, start: int, lineno: int) -> None:
        """The last line, where its line end is missing: a write that a crash cut short, as far as it can be one.

        Only what is appended can be torn: log lines, and a vars line with its crc line. A log line or crc line that
        its checksum proves whole is taken; NULs after it or after a fragment are what a file system leaves behind.
        A node line, or a vars line that was not appended, may lack more than its line end, and read well all the
        same (`0-5460` cut to `0-54`): refused. The crc line of a whole file has one length, so nothing of it is
        missing.
        """
        text, kind = raw.rstrip(b"\0"), _kind(raw)
        if self.pending is not None:
            if self._is_sound_crc_line(text, start):
                self._crc_line(text, start)
                self.torn_from = start + len(text)
            elif _CRC_START.fullmatch(text) is not None:
                self.torn_from = self.pending[0]
                self.pending = None
            else:
                self._whole_line(raw, start, lineno)
        elif kind == "log" and (whole := next((t for t in (raw, text, raw[:-1]) if self._is_sound_log_line(t)), None)):
            if raw[len(whole) :].strip(b"\0"):
                raise ParseError("log line: whole, but another byte stands where its line end should")
            self._log_line(whole, lineno)
            self.torn_from = start + len(whole)
        elif self._may_be_torn(text.lower(), kind):
            self.torn_from = start
        else:
            self._whole_line(raw, start, lineno)
            if kind in ("node", "vars"):
                raise ParseError("no line end: the line may have been cut short")
            if kind == "crc":
                self.warnings.append(f"line {lineno} has no line end")

    def _may_be_torn(self, text: bytes, kind: str) -> bool:
        """Whether `text` (lower case) can be the start of something that is appended."""
        if self.current_term is None:
            return False
        if kind == "log" or b"log ".startswith(text):
            return True
        return self.appending and (kind == "vars" or b"vars".startswith(text))

    def _is_sound_crc_line(self, text: bytes, start: int) -> bool:
        found = _CRC_LINE.fullmatch(text)
        return found is not None and int(found[1], 16) == self._crc_before(start)

    def _is_sound_log_line(self, text: bytes) -> bool:
        found = _LOG_LINE.fullmatch(text)
        return found is not None and int(found[1], 16) == self.crc64(found[2], 0)

    def _crc_before(self, start: int) -> int:
        for first, end in (*self.gaps, (self.summed_from, start)):
            self.crc = self.crc64(self.data[first:end], self.crc)
        self.gaps.clear()
        self.summed_from = start
        return self.crc

    def _crc_line(self, raw: bytes, start: int) -> None:
        found = _CRC_LINE.fullmatch(raw)
        if found is None:
            raise ParseError("bad crc line: it is not of the form crc <16 hex digits>")
        if int(found[1], 16) == 0:
            self.warnings.append("a crc line is zero: what stands before it was not checked")
        elif int(found[1], 16) != self._crc_before(start):
            raise ParseError("snapshot CRC mismatch: the lines before this crc line are damaged")
        self._has_crc = self.appending = True
        if self.pending is not None:
            _, lineno, line = self.pending
            self.pending = None
            try:
                self.add_vars(vars_of(line))
            except ParseError as error:
                raise ParseError(error.reason, lineno) from None

    def _log_line(self, raw: bytes, lineno: int) -> None:
        if self.current_term is None:
            raise ParseError("a log line, but no currentTerm before it")
        found = _LOG_LINE.fullmatch(raw)
        if found is None:
            raise ParseError("log line: it is not of the form log <checksum> <index> <term> <TYPE>[ <data>]")
        checksum, payload, index_text, term_text, type_text, data = found.groups()
        if int(checksum, 16) == 0:
            self._unchecked.append(lineno)
        elif int(checksum, 16) != self.crc64(payload, 0):
            raise ParseError("log line: CRC mismatch")
        self.add_entry(decimal(index_text, U64_MAX, "index"), term_text, type_text, data)

    # --- what the lines say ---------------------------------------------------------------------------------------

    def add_node(self, node: NodeRecord, lineno: int) -> None:
        """Takes a node line's record; refuses a second one of its id, a second `myself`, a slot that has an owner."""
        if node.id in self.node_lines:
            raise ParseError(f"node {node.id} has a line already", lineno)
        if "myself" in node.flags:
            if self.has_myself:
                raise ParseError("a second line with the flag myself", lineno)
            self.has_myself = True
        for first, last in node.slots:
            taken = self.owned.find(1, first, last + 1)
            if taken >= 0:
                raise ParseError(f"slot {taken} has an owner already", lineno)
            self.owned[first : last + 1] = b"\1" * (last + 1 - first)
        self.node_lines[node.id] = lineno
        self.nodes.append(node)

    def add_vars(self, pairs: dict[str, int | str]) -> None:
        """Takes the pairs of a vars line: later ones win, and another currentTerm without votedFor clears that."""
        known, before = self.vars, self.current_term
        if self.entries:
            for name in ("lastApplied", "snapshotTerm"):
                if pairs.get(name, known.get(name)) != known.get(name):
                    raise ParseError(f"another {name} after log lines")
        if "votedFor" not in pairs and before not in (None, pairs.get("currentTerm", before)):
            known.pop("votedFor", None)
        known.update(pairs)
        if sum(name in known for name in _APP_NAMES) not in (0, len(_APP_NAMES)):
            raise ParseError("of appSnapshot, appLength and appCrc some are missing")
        if not self.entries:
            self.next_index = int(known.get("lastApplied", 0)) + 1
            self.last_term = int(known.get("snapshotTerm", 0))
        term = self.current_term
        if term is not None and term < self.last_term:
            raise ParseError(f"currentTerm {term} is below the term {self.last_term} of an entry")

    def add_entry(self, index: int, term_text: bytes, type_text: bytes, data: bytes | None) -> tuple[int, bytes]:
        """Takes an entry; refuses gaps, falling terms, terms above currentTerm. Returns its term and AE line."""
        if self.current_term is None:
            raise ParseError("an entry, but no currentTerm")
        if index != self.next_index:
            raise ParseError(f"index gap (expected {self.next_index}, got {index})")
        term, line = entry_line(term_text, type_text, data, index)
        if term < self.last_term:
            raise ParseError(f"term {term} at index {index} is below the term {self.last_term} before it")
        if term > self.current_term:
            raise ParseError(f"term {term} at index {index} is above currentTerm {self.current_term}")
        self.entries.append((index, term, line))
        self.next_index, self.last_term, self.appending = index + 1, term, True
        return term, line

    # --- the end --------------------------------------------------------------------------------------------------

    def finish(self, settled: bool = False) -> NodesConf:
        """The whole, after the last line. `settled`: every id that a node line refers to is known to have a line."""
        if self.pending is not None:
            self._check_torn_vars(*self.pending)
            self.torn_from = self.pending[0]
        if not self.has_myself:
            raise ParseError("no line carries the flag myself")
        if not settled:
            self._settle_references()
        torn_tail = self.data[self.torn_from :]
        if self.current_term is not None and not self._has_crc:
            self.warnings.append("there is no crc line: node and vars lines were not checked")
        if self._unchecked:
            first, count = self._unchecked[0], len(self._unchecked)
            self.warnings.append(f"log lines with checksum 0, not checked: {count}, the first is line {first}")
        if torn_tail:
            self.warnings.append(f"the end of the file was cut short by a crash: {len(torn_tail)} bytes are dropped")
        return NodesConf(tuple(self.nodes), self.vars, tuple(self.entries), torn_tail, tuple(self.warnings))

    def _check_torn_vars(self, start: int, lineno: int, line: bytes) -> None:
        """A vars line that has its line end was written whole: where it can't be read it is damaged, and not torn."""
        try:
            vars_of(line)
        except ParseError as error:
            raise ParseError(error.reason, lineno) from None

    def _settle_references(self) -> None:
        """Nodes that are only referred to: a gossip file makes them, as the reference does; a Raft file must not."""
        is_raft = self.current_term is not None
        for node in tuple(self.nodes):
            primary_id = node.primary_id
            if primary_id is not None and primary_id not in self.node_lines:
                if is_raft:
                    raise ParseError(f"primary {primary_id} has no line", self.node_lines[node.id])
                self._make(primary_id)
            for slot, node_id in (*node.migrating, *node.importing):
                if node_id not in self.node_lines:
                    if is_raft:
                        self.warnings.append(f"open slot {slot} refers to node {node_id}, which has no line")
                    else:
                        self._make(node_id)

    def _make(self, node_id: str) -> None:
        self.add_node(NodeRecord(node_id, connected=False), 0)


def _opened_by_myself(nodes: tuple[NodeRecord, ...]) -> tuple[NodeRecord, ...]:
    """`nodes` with all open slots on myself's line: read on any, they are the file's owner's alone (NODESCONF 1.2)."""
    if not any(node.migrating or node.importing for node in nodes if "myself" not in node.flags):
        return nodes
    migrating = tuple(pair for node in nodes for pair in node.migrating)
    importing = tuple(pair for node in nodes for pair in node.importing)
    return tuple(
        replace(node, migrating=migrating, importing=importing)
        if "myself" in node.flags
        else replace(node, migrating=(), importing=())
        for node in nodes
    )


def written(conf: NodesConf, crc64: Crc64, node_line: NodeLine, log_lines: LogLines) -> bytes:
    """The file of `conf`; see `dump`."""
    if not isinstance(conf, NodesConf):
        raise TypeError(f"a file must be NodesConf, not {type(conf).__name__}")
    if (conf.nodes, conf.vars, conf.entries) == ((), {}, ()):
        return b""  # as `parse` reads it: a fresh node's
    check = Reader(b"", crc64)
    by_id = {node.id: node for node in conf.nodes}
    lines = []
    for node in sorted(_opened_by_myself(conf.nodes), key=lambda node: node.id):
        if not _NOT_JOINED.isdisjoint(node.flags):
            if "myself" not in node.flags:
                continue
            node = replace(node, flags=tuple(flag for flag in node.flags if flag not in _NOT_JOINED))
        primary = by_id.get(node.primary_id) if node.primary_id is not None and "slave" in node.flags else None
        if primary is not None and primary.epoch != node.epoch:
            node = replace(node, epoch=primary.epoch)
        lines.append(node_line(node))
        check.add_node(node, 0)
    if conf.vars:
        lines.append(vars_line(conf.vars))
        check.add_vars(dict(conf.vars))
    for index, term, line in conf.entries:
        _check_entry(check, index, term, line)
    check.finish()
    text = b"".join(line + b"\n" for line in lines)
    if check.current_term is None:
        return text
    text += b"crc %016x\n" % crc64(text, 0)
    if not conf.entries:
        return text
    return text + log_lines(conf.entries[0][0], [line for _, _, line in conf.entries])


def _check_entry(check: Reader, index: int, term: int, line: bytes) -> None:
    check_u64(index, "index")
    check_u64(term, "term")
    if not isinstance(line, bytes):
        raise TypeError(f"an entry's line must be bytes, not {type(line).__name__}")
    found = _AE_LINE.fullmatch(line)
    if found is None:
        raise ParseError(f"the entry at index {index} is not of the form <term> <TYPE>[ <data>]")
    if check.add_entry(index, found[1], found[2], found[3]) != (term, line):
        raise ParseError(f"the entry at index {index} and its line are not the same")
