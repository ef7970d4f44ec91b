"""Entries and their lines: what is read, what is refused, and that both ways agree (PROTOCOL 2)."""

from __future__ import annotations

import pytest
from cluster_cases import SA, SB, A, B, C
from hypothesis import given
from hypothesis import strategies as st

from raftfast.cluster.entries import (
    MAX_TERMLESS_BYTES,
    AddVoter,
    App,
    DelVoter,
    Entry,
    Failover,
    NodeFail,
    NodeForget,
    NodeInfo,
    NodeJoin,
    NodeRecover,
    Noop,
    SetReplicaOf,
    SlotChange,
    app_entry,
    escape,
    parse_app,
    parse_entry,
    parse_line,
    unescape,
)
from raftfast.errors import EntryError
from raftfast.messages import ENTRY_TYPES, MAX_ENTRY_BYTES

a, b, sa, sb = (name.encode() for name in (A, B, SA, SB))
ADDRESS = b"127.0.0.1:7001@17001,,tls-port=0,shard-id=" + sa

FORMS: list[tuple[bytes, Entry]] = [
    (b"NOOP", Noop()),
    (b"NODE_JOIN %s %s learner" % (a, ADDRESS), NodeJoin(A, ADDRESS.decode(), False)),
    (b"NODE_JOIN %s %s voter" % (a, ADDRESS), NodeJoin(A, ADDRESS.decode(), True)),
    (b"NODE_FORGET %s 18446744073709551615" % a, NodeForget(A, (1 << 64) - 1)),
    (b"ADD_VOTER " + a, AddVoter(A)),
    (b"DEL_VOTER " + a, DelVoter(A)),
    (b"SLOT_CHANGE - 0 %s 4 0-5460 5462" % a, SlotChange(None, 0, A, 4, ((0, 5460), (5462, 5462)))),
    (b"SLOT_CHANGE %s 3 - 0 16383 5" % a, SlotChange(A, 3, None, 0, ((16383, 16383), (5, 5)))),
    (b"SET_REPLICA_OF %s %s 0 %s %s 1" % (a, sa, b, sb), SetReplicaOf(A, SA, 0, B, SB, 1)),
    (b"SET_REPLICA_OF %s %s 7 - %s 0" % (a, sa, sb), SetReplicaOf(A, SA, 7, None, SB, 0)),
    (b"FAILOVER %s %s %s 2" % (a, b, sb), Failover(A, B, SB, 2)),
    (b"NODE_INFO %s 10.0.0.1:7000@17000, noflags" % a, NodeInfo(A, "10.0.0.1:7000@17000,", False)),
    (b"NODE_INFO %s h:1@2,h.example,x=\xff nofailover" % a, NodeInfo(A, "h:1@2,h.example,x=\udcff", True)),
    (b"NODE_FAIL " + a, NodeFail(A)),
    (b"NODE_RECOVER " + a, NodeRecover(A)),
    (b"APP - ", App(None, 0, b"")),
    (b"APP - \x00\xff \t\r\\\\\\n", App(None, 0, b"\x00\xff \t\r\\\n")),
    (b"APP %s:0" % a, App(A, 0, b"")),
    (b"APP %s:1 " % a, App(A, 1, b"")),
    (b"APP %s:18446744073709551615 x  y " % a, App(A, (1 << 64) - 1, b"x  y ")),
]


def test_the_forms_cover_every_type() -> None:
    assert {entry.TYPE for _, entry in FORMS} == ENTRY_TYPES


@pytest.mark.parametrize(("text", "entry"), FORMS, ids=[text[:24].decode("latin-1") for text, _ in FORMS])
def test_an_entry_and_its_bytes(text: bytes, entry: Entry) -> None:
    assert parse_entry(text) == entry
    assert entry.encode() == text
    assert parse_line(b"12 " + text) == (12, entry)
    kind, blank, data = text.partition(b" ")
    assert parse_entry(kind.lower() + blank + data) == entry


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (b"NOOP ", Noop()),
        (b"APP -", App(None, 0, b"")),
        (b"APP %s:0 " % a, App(A, 0, b"")),
        (b"APP %s:1" % a, App(A, 1, b"")),
        (b"SLOT_CHANGE - 0 %s 0 5-5" % a, SlotChange(None, 0, A, 0, ((5, 5),))),
    ],
)
def test_a_second_form_that_is_read_but_never_written(text: bytes, entry: Entry) -> None:
    assert parse_entry(text) == entry
    assert entry.encode() != text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "unknown entry type"),
        (b" NOOP", "unknown entry type"),
        (b"FOO bar", "unknown entry type 'FOO'"),
        (b"NOOP x", "1 fields, not 0"),
        (b"NOOP  ", "fields"),
        (b"ADD_VOTER", "0 fields, not 1"),
        (b"ADD_VOTER %s " % a, "2 fields"),
        (b"ADD_VOTER  " + a, "2 fields"),
        (b"ADD_VOTER " + a[1:], "not 40 characters"),
        (b"ADD_VOTER " + a + b"a", "not 40 characters"),
        (b"ADD_VOTER " + a[1:] + b"A", "not 40 characters"),
        (b"ADD_VOTER " + a[1:] + b"\n", "not 40 characters"),
        (b"ADD_VOTER " + b"\xb2" * 40, "not 40 characters"),
        (b"NODE_FORGET %s +1" % a, "no number"),
        (b"NODE_FORGET %s 1_0" % a, "no number"),
        (b"NODE_FORGET %s 01" % a, "no number"),
        (b"NODE_FORGET %s -1" % a, "no number"),
        (b"NODE_FORGET %s \xc2\xb2" % a, "no number"),
        (b"NODE_FORGET %s 18446744073709551616" % a, "no number"),
        (b"NODE_FORGET %s %s" % (a, b"9" * 5000), "no number"),
        (b"NODE_JOIN %s %s" % (a, ADDRESS), "2 fields"),
        (b"NODE_JOIN %s %s Voter" % (a, ADDRESS), "neither voter nor learner"),
        (b"NODE_JOIN %s %s learner x" % (a, ADDRESS), "4 fields"),
        (b"NODE_JOIN %s 1.2.3.4:7000@17000, learner" % a, "lacks its shard-id"),
        (b"NODE_JOIN %s 1.2.3.4:7000@17000,,shard-id=abc learner" % a, "shard-id"),
        (b"NODE_JOIN %s h\tx:1@2,,shard-id=%s learner" % (a, sa), "address"),
        (b"NODE_JOIN %s h:1@2,n\x00,shard-id=%s learner" % (a, sa), "address"),
        (b"NODE_JOIN %s h:1@2,'n,shard-id=%s learner" % (a, sa), "address"),
        (b'NODE_JOIN %s h:1@2,"n,shard-id=%s learner' % (a, sa), "address"),
        (b"NODE_JOIN %s h:1@2,n\x0bm,shard-id=%s learner" % (a, sa), "address"),
        (b"NODE_JOIN %s h:1@2,%s,shard-id=%s learner" % (a, b"n" * (1 << 16), sa), "longer than 65536"),
        (b"NODE_JOIN %s %s:1@2,,shard-id=%s learner" % (a, b"i" * 46, sa), "address"),
        (b"NODE_JOIN %s h:65536@2,,shard-id=%s learner" % (a, sa), "address"),
        (b"NODE_JOIN %s  learner" % a, "address"),
        (b"NODE_INFO %s %s noflags" % (a, ADDRESS), "must not name a shard-id"),
        (b"NODE_INFO %s h:1@2, fail" % a, "neither nofailover nor noflags"),
        (b"SLOT_CHANGE - 0 %s 0" % a, "4 fields, not 5 or more"),
        (b"SLOT_CHANGE - 0 %s 0 16384" % a, "not from 0 to 16383"),
        (b"SLOT_CHANGE - 0 %s 0 5-4" % a, "ascending"),
        (b"SLOT_CHANGE - 0 %s 0 0-16384" % a, "not from 0 to 16383"),
        (b"SLOT_CHANGE - 0 %s 0 007" % a, "no range"),
        (b"SLOT_CHANGE - 0 %s 0 1-2-3" % a, "no range"),
        (b"SLOT_CHANGE - 0 %s 0 -5" % a, "no range"),
        (b"SLOT_CHANGE - 0 %s 0 5-" % a, "no range"),
        (b"SLOT_CHANGE - 0 %s 0 1 " % a, "no range"),
        (b"SLOT_CHANGE - 0 %s 0 4294967297" % a, "no range"),
        (b"SLOT_CHANGE - 0 %s 0 5-9 0-5" % a, "slot 5 is named twice"),
        (b"SLOT_CHANGE -- 0 %s 0 5" % a, "source id"),
        (b"SET_REPLICA_OF %s %s 0 - - 0" % (a, sa), "target shard"),
        (b"FAILOVER %s - %s 0" % (a, sa), "primary id"),
        (b"APP", "no client id"),
        (b"APP  x", "no client id"),
        (b"APP -x", "no client id"),
        (b"APP %s" % a, "no client id"),
        (b"APP %s: x" % a, "no client id"),
        (b"APP %s:01 x" % a, "no client id"),
        (b"APP %s:18446744073709551616 x" % a, "out of range"),
        (b"APP %sz:1 x" % a[1:], "no client id"),
        (b"APP %s:0 x" % a, "opens a session"),
        (b"APP - \\", "backslash"),
        (b"APP - a\\tb", "backslash"),
        (b"APP - \\\\\\", "backslash"),
        (b"APP - \\x\\\\", "backslash"),
        (b"APP - a\nb", "newline"),
    ],
)
def test_a_malformed_entry_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(EntryError, match=reason):
        parse_entry(text)
    with pytest.raises(EntryError, match=reason):
        parse_line(b"1 " + text)


@pytest.mark.parametrize(
    "line", [b"", b"NOOP", b"x NOOP", b"01 NOOP", b"-1 NOOP", b"18446744073709551616 NOOP", b" NOOP"]
)
def test_a_line_without_a_term_is_refused(line: bytes) -> None:
    with pytest.raises(EntryError, match="term"):
        parse_line(line)


def test_the_longest_line() -> None:
    head = b"1 APP - "
    whole = head + b"x" * (MAX_ENTRY_BYTES - len(head))
    assert parse_line(whole) == (1, App(None, 0, whole[len(head) :]))
    with pytest.raises(EntryError, match="longer"):
        parse_line(whole + b"x")


def test_an_entry_without_a_term_leaves_room_for_any_term() -> None:
    room = MAX_TERMLESS_BYTES - len(b"APP - ")
    longest = app_entry(None, 0, b"x" * room)
    line = b"%d " % ((1 << 64) - 1) + longest
    assert len(line) == MAX_ENTRY_BYTES
    assert parse_line(line)[1] == parse_entry(longest)
    with pytest.raises(EntryError, match="longer"):
        app_entry(None, 0, b"x" * (room + 1))
    with pytest.raises(EntryError, match="longer"):
        parse_entry(longest + b"x")
    with pytest.raises(EntryError, match="longer"):
        app_entry(None, 0, b"\n" * (room // 2 + 1))


@pytest.mark.parametrize(
    "entry",
    [
        AddVoter("short"),
        AddVoter(A + " " + B),
        NodeForget(A, -1),
        NodeForget(A, True),
        NodeForget(A, 1 << 64),
        NodeJoin(A, "h:1@2,"),
        NodeInfo(A, "h:1@2, x"),
        SlotChange(None, 0, A, 0, ()),
        SlotChange(None, 0, A, 0, ((5, 4),)),
        SlotChange(None, 0, A, 0, ((0, 5), (5, 6))),
        SlotChange("", 0, A, 0, ((0, 5),)),
        SetReplicaOf(A, SA, 0, None, "", 0),
        App("short", 1, b"x"),
        App(A, -1, b"x"),
        App(A, 1 << 64, b"x"),
        App(A, 0, b"x"),
        App(None, 1, b"x"),
    ],
    ids=repr,
)
def test_what_could_not_be_read_is_not_written(entry: Entry) -> None:
    with pytest.raises(EntryError):
        entry.encode()


def test_parse_app_reads_what_parse_line_reads() -> None:
    for text, entry in FORMS:
        found = parse_app(b"3 " + text)
        if isinstance(entry, App):
            assert found == (entry.client_id, entry.sequence, entry.command)
        else:
            assert found is None
    assert parse_app(b"3 APP -") == (None, 0, b"")
    assert parse_app(b"") is None
    for bad in (b"3 APP", b"3 APP x y", b"3 APP %s:0 y" % a, b"3 APP - \\"):
        with pytest.raises(EntryError):
            parse_app(bad)


@given(st.binary(max_size=40) | st.text(alphabet="\\n\nx", max_size=20).map(str.encode))
def test_escape_and_unescape_are_inverse(data: bytes) -> None:
    escaped = escape(data)
    assert b"\n" not in escaped
    assert unescape(escaped) == data
    assert len(escaped) == len(data) + data.count(b"\\") + data.count(b"\n")


@given(st.text(alphabet="\\n\nx", max_size=12).map(str.encode))
def test_unescape_agrees_with_reading_byte_by_byte(data: bytes) -> None:
    def slow() -> bytes | None:
        out, at = bytearray(), 0
        while at < len(data):
            if data[at : at + 1] == b"\n":
                return None
            if data[at : at + 1] == b"\\":
                at += 1
                if data[at : at + 1] not in (b"\\", b"n"):
                    return None
                out += b"\n" if data[at : at + 1] == b"n" else b"\\"
            else:
                out += data[at : at + 1]
            at += 1
        return bytes(out)

    expected = slow()
    if expected is None:
        with pytest.raises(EntryError):
            unescape(data)
    else:
        assert unescape(data) == expected
        assert escape(expected) == data  # one form for each command


@given(st.none() | st.sampled_from([A, B, C]), st.integers(0, (1 << 64) - 1), st.binary(max_size=60))
def test_commands_survive_their_line(client_id: str | None, sequence: int, command: bytes) -> None:
    if client_id is None:
        sequence = 0
    elif sequence == 0:
        command = b""
    entry = app_entry(client_id, sequence, command)
    assert b"\n" not in entry
    assert parse_app(b"7 " + entry) == (client_id, sequence, command)
    assert parse_entry(entry) == App(client_id, sequence, command)


@given(st.binary(max_size=80) | st.sampled_from([text for text, _ in FORMS]).flatmap(lambda text: _mutated(text)))
def test_any_bytes_give_an_entry_or_entry_error(text: bytes) -> None:
    try:
        entry = parse_entry(text)
    except EntryError:
        return
    assert parse_entry(entry.encode()) == entry


def _mutated(text: bytes) -> st.SearchStrategy[bytes]:
    at = st.integers(0, len(text))
    return st.tuples(at, at, st.binary(max_size=3)).map(lambda cut: text[: cut[0]] + cut[2] + text[cut[1] :])
