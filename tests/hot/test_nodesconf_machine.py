"""The twins of the `nodes.conf` leaf and a naive model: a file that lives as the storage has it, read at every step.

Written anew, appended to (entries; term and vote), torn at any byte of what was appended, damaged. The model is lists
and dicts; it never reads a line. A failure prints the calls that led to it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nodesconf_cases import canonical, ids, records

from raftfast.errors import ParseError
from raftfast.messages import ENTRY_TYPES
from raftfast.records import NodeRecord, NodesConf
from twins import IMPLEMENTATIONS, leaf

FLAGS = ("master", "slave", "fail", "fail?", "learner", "nofailover")
lines_of_entries = st.tuples(
    st.sampled_from(sorted(ENTRY_TYPES)), st.sampled_from([b"", b" a", b" x=1 y", b" a" * 40, b" \xc3\xa9\xff"])
).map(b"".join)


def slots_apart(nodes: list[NodeRecord]) -> list[NodeRecord]:
    """The nodes with a range of slots each that no other one has."""
    return [dataclasses.replace(node, slots=((at * 7, at * 7 + 3),)) for at, node in enumerate(nodes)]


class Files(RuleBasedStateMachine):
    @initialize(
        known=st.lists(records, min_size=1, max_size=4, unique_by=lambda node: node.id),
        term=st.sampled_from([1, 7, (1 << 64) - 9]),
        applied=st.sampled_from([0, 0, 40, (1 << 64) - 500]),
    )
    def begin(self, known: list[NodeRecord], term: int, applied: int) -> None:
        self.twins = [leaf(impl, "nodesconf") for impl in IMPLEMENTATIONS]
        plain = [
            dataclasses.replace(
                node,
                flags=tuple(flag for flag in node.flags if flag in FLAGS) + (("myself",) if at == 0 else ()),
                primary_id=None if at == 0 or node.primary_id is None else known[0].id,
                migrating=(),
                importing=(),
            )
            for at, node in enumerate(known)
        ]
        self.nodes = slots_apart(plain)
        self.vars: dict[str, Any] = {"currentTerm": term, "lastApplied": applied}
        if applied:
            self.vars["snapshotTerm"] = 1
        self.entries: list[tuple[int, int, bytes]] = []
        self.rewrite()

    def both(self, verb: str, *arguments: Any) -> Any:
        """What the twins give, which is the same; a ParseError is told and not raised."""
        given = []
        for twin in self.twins:
            try:
                given.append(getattr(twin, verb)(*arguments))
            except ParseError as error:
                given.append((error.lineno, error.reason))
        assert all(repr(each) == repr(given[0]) for each in given), (verb, given)
        return given[0]

    @rule()
    def rewrite(self) -> None:
        conf = NodesConf(tuple(self.nodes), dict(self.vars), tuple(self.entries))
        self.file = self.both("dump", conf)
        assert isinstance(self.file, bytes), self.file
        self.crc = self.both("crc64", self.file)
        # Where each appended unit ends, and what holds from there on.
        self.history = [(len(self.file), dict(self.vars), list(self.entries))]

    def append(self, text: bytes) -> None:
        self.file += text
        self.crc = self.both("crc64", text, self.crc)
        self.history.append((len(self.file), dict(self.vars), list(self.entries)))

    @property
    def next_index(self) -> int:
        return int(self.vars["lastApplied"]) + len(self.entries) + 1

    @rule(lines=st.lists(lines_of_entries, min_size=1, max_size=5), leap=st.booleans())
    def append_entries(self, lines: list[bytes], leap: bool) -> None:
        term = self.entries[-1][1] if self.entries else int(self.vars.get("snapshotTerm", 0))
        term = self.vars["currentTerm"] if leap else term
        first = self.next_index
        whole = [b"%d %b" % (term, line) for line in lines]
        text = self.both("log_lines", first, whole)
        before = len(self.file)
        for at, line in enumerate(whole):
            self.entries.append((first + at, term, line))
            self.append(self.both("log_line", first + at, line))
        assert self.file[before:] == text

    @rule(step=st.integers(0, 2), vote=st.none() | ids)
    def append_vote(self, step: int, vote: str | None) -> None:
        term = min(self.vars["currentTerm"] + step, (1 << 64) - 1)
        if term != self.vars["currentTerm"]:
            self.vars.pop("votedFor", None)
        self.vars["currentTerm"] = term
        if vote is not None:
            self.vars["votedFor"] = vote
        self.append(self.both("appended_vars", term, vote, self.crc))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.entries)))
        index, term, _ = self.entries[count - 1]
        self.vars |= {"lastApplied": index, "snapshotTerm": term}
        del self.entries[:count]
        self.rewrite()

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        del self.entries[data.draw(st.integers(0, len(self.entries))) :]
        self.rewrite()

    @invariant()
    def read(self) -> None:
        if hasattr(self, "file"):
            conf = self.both("parse", self.file)
            self.check(conf, self.vars, self.entries)
            assert conf.torn_tail == b""

    def check(self, conf: Any, known: dict[str, Any], entries: list[tuple[int, int, bytes]]) -> None:
        assert isinstance(conf, NodesConf), conf
        assert list(conf.nodes) == sorted(map(canonical, self.nodes), key=lambda node: node.id)
        assert {name: value for name, value in conf.vars.items() if value} == {n: v for n, v in known.items() if v}
        assert list(conf.entries) == entries

    @rule(data=st.data(), nuls=st.sampled_from([0, 0, 1, 9]))
    def tear(self, data: st.DataObject, nuls: int) -> None:
        """A cut anywhere behind what was written in one piece; NULs are what a file system may leave after it."""
        cut = data.draw(st.integers(self.history[0][0], len(self.file)))
        conf = self.both("parse", self.file[:cut] + b"\0" * nuls)
        # A unit whose line end alone is missing is proved whole by its checksum.
        last = max(at for at, (end, _, _) in enumerate(self.history) if end - (at > 0) <= cut)
        self.check(conf, *self.history[last][1:])

    @rule(data=st.data(), byte=st.integers(0, 255))
    def damage(self, data: st.DataObject, byte: int) -> None:
        """Whatever it is taken for, both take it for the same."""
        at = data.draw(st.integers(0, len(self.file) - 1))
        self.both("parse", self.file[:at] + bytes([byte]) + self.file[at + 1 :])
        self.both("parse", self.file[:at] + self.file[at + 1 :])


TestFiles = Files.TestCase
TestFiles.settings = settings(max_examples=100, stateful_step_count=25, deadline=None, print_blob=True)
