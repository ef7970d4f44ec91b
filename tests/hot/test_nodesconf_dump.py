"""Whole files written: what `dump` writes, what it refuses, and that `parse` reads it back. NODESCONF A."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftfast.errors import ParseError
from raftfast.records import NodeRecord, NodesConf

A, B, C = "a" * 40, "b" * 40, "c" * 40
SHARD = "5" * 40
LIMIT = 2 << 20
U64 = (1 << 64) - 1


def conf_of(*nodes: NodeRecord, entries=(), **names) -> NodesConf:
    return NodesConf(nodes=nodes, vars=names, entries=tuple(entries))


ME = NodeRecord(A, flags=("myself", "master"), slots=((0, 5),))


def test_a_dumped_file_byte_for_byte(nodesconf):
    replica = NodeRecord(B, "10.0.0.2", 7000, 17000, flags=("slave",), primary_id=C, connected=False)
    primary = NodeRecord(C, "10.0.0.3", 7000, 17000, "h", {"shard-id": SHARD}, ("master",), epoch=7, slots=((9, 9),))
    me = dataclasses.replace(ME, migrating=((5, C),))
    entries = [(4, 2, b"2 NOOP"), (5, 3, b"3 APP - x")]
    names = {"zz": "1", "votedFor": B, "snapshotTerm": 2, "lastApplied": 3, "currentTerm": 3, "aa": "2"}
    head = (
        f"{A} :0@0, myself,master - 0 0 0 connected 0-5 [5->-{C}]\n"
        f"{B} 10.0.0.2:7000@17000, slave {C} 0 0 7 disconnected\n"
        f"{C} 10.0.0.3:7000@17000,h,shard-id={SHARD} master - 0 0 7 connected 9\n"
        f"vars currentTerm 3 lastApplied 3 snapshotTerm 2 votedFor {B} zz 1 aa 2\n"
    ).encode()
    text = head + b"crc %016x\n" % nodesconf.crc64(head) + nodesconf.log_lines(4, [line for _, _, line in entries])
    assert nodesconf.dump(conf_of(primary, replica, me, entries=entries, **names)) == text
    assert nodesconf.parse(text) == conf_of(me, replica, primary, entries=entries, **names)


def test_a_dumped_gossip_file_has_no_crc_line(nodesconf):
    text = nodesconf.dump(conf_of(ME, lastVoteEpoch=1, currentEpoch=2))
    assert text.splitlines()[1:] == [b"vars currentEpoch 2 lastVoteEpoch 1"]
    assert nodesconf.dump(conf_of(ME)).count(b"\n") == 1


def test_of_nothing_there_is_nothing(nodesconf):
    assert nodesconf.dump(NodesConf()) == nodesconf.dump(NodesConf(torn_tail=b"x", warnings=("w",))) == b""
    assert nodesconf.parse(nodesconf.dump(NodesConf())) == NodesConf()


def test_open_slots_are_written_on_the_line_of_myself_only(nodesconf):
    """NODESCONF 1.2: taken on any line, they are the file's owner's; the last of a slot counts."""
    me = dataclasses.replace(ME, flags=("myself", "master"), migrating=((5, B),), importing=((90, C), (91, C)))
    other = NodeRecord(B, flags=("master",), migrating=((4, C), (90, C)), importing=((92, A),))
    last = NodeRecord(C, flags=("master",), migrating=((5, C),))
    text = nodesconf.dump(conf_of(me, other, last))
    assert [line.count(b"[") for line in text.splitlines()] == [5, 0, 0]
    opened = f" 0-5 [4->-{C}] [5->-{C}] [90->-{C}] [91-<-{C}] [92-<-{A}]\n"
    assert text.splitlines(keepends=True)[0].endswith(opened.encode())
    assert nodesconf.dump(nodesconf.parse(text)) == text
    read = nodesconf.parse(b"\n".join(nodesconf.format_node_line(node) for node in (me, other, last)) + b"\n")
    assert read.nodes[1].migrating == other.migrating
    assert nodesconf.dump(read) == text
    for bad in (None, 5, (5,), ((5, "x"),), ((5, 5),)):
        with pytest.raises((TypeError, ParseError)):
            nodesconf.dump(conf_of(me, dataclasses.replace(other, migrating=bad, importing=((1, A),))))


def test_nodes_that_have_not_joined_are_not_written_but_myself_is(nodesconf):
    strangers = [NodeRecord(B, flags=("handshake",)), NodeRecord(C, flags=("master", "meet"))]
    me = dataclasses.replace(ME, flags=("myself", "master", "handshake", "meet"))
    assert nodesconf.parse(nodesconf.dump(conf_of(me, *strangers, currentTerm=0))).nodes == (ME,)


@pytest.mark.parametrize(
    ("conf", "match"),
    [
        (conf_of(currentTerm=1), "myself"),
        (conf_of(entries=[(1, 1, b"1 NOOP")]), "no currentTerm"),
        (conf_of(NodeRecord(B, flags=("handshake",))), "myself"),
        (conf_of(NodeRecord(A)), "myself"),
        (conf_of(ME, NodeRecord(B, flags=("myself",))), "myself"),
        (conf_of(ME, ME), "has a line"),
        (conf_of(ME, NodeRecord(B, slots=((5, 6),))), "slot 5"),
        (conf_of(ME, NodeRecord(B, primary_id=C), currentTerm=1), "primary"),
        (conf_of(ME, NodeRecord(B, primary_id=C), NodeRecord(C, flags=("handshake",)), currentTerm=1), "primary"),
        (conf_of(ME, NodeRecord("x")), "node id"),
        (conf_of(ME, currentTerm=-1), "currentTerm"),
        (conf_of(ME, currentTerm=1 << 64), "currentTerm"),
        (conf_of(ME, currentterm=1), "spelled currentTerm"),
        (conf_of(ME, currentTerm=1, votedFor="x"), "votedFor"),
        (conf_of(ME, currentTerm=1, votedFor="x y"), "votedFor|blanks"),
        (conf_of(ME, currentTerm=1, snapshotTerm=2), "below"),
        (conf_of(ME, joining=2), "joining"),
        (conf_of(ME, appLength=1), "missing"),
        (conf_of(ME, appSnapshot="app-1-0123456789abcdef", appLength=1, appCrc="0123456789ABCDEF"), "appCrc"),
        (conf_of(ME, other=""), "empty"),
        (conf_of(ME, other="a b"), "blanks"),
        (conf_of(ME, other='"'), "quotes"),
        (conf_of(ME, **{"a b": "1"}), "blanks"),
        (conf_of(ME, other="\ud800"), "UTF-8"),
        (conf_of(ME, other="x" * LIMIT), "at most"),
        (conf_of(ME, entries=[(1, 1, b"1 NOOP")]), "no currentTerm"),
        (conf_of(ME, entries=[(1, 1, b"1 NOOP")], currentEpoch=1), "no currentTerm"),
        (conf_of(ME, entries=[(2, 1, b"1 NOOP")], currentTerm=1), "index gap"),
        (conf_of(ME, entries=[(1, 1, b"1 NOOP"), (3, 1, b"1 NOOP")], currentTerm=1), "index gap"),
        (conf_of(ME, entries=[(1, 2, b"2 NOOP")], currentTerm=1), "above currentTerm"),
        (conf_of(ME, entries=[(1, 2, b"2 NOOP"), (2, 1, b"1 NOOP")], currentTerm=2), "below the term 2"),
        (conf_of(ME, entries=[(1, 1, b"2 NOOP")], currentTerm=2), "not the same"),
        (conf_of(ME, entries=[(1, 1, b"1 noop")], currentTerm=2), "not the same"),
        (conf_of(ME, entries=[(1, 1, b"1 APP - a\nb")], currentTerm=2), "line end"),
        (conf_of(ME, entries=[(1, 1, b"1 APP ")], currentTerm=2), "blank without data"),
        (conf_of(ME, entries=[(1, 1, b"1 NODE_FAIL a  b")], currentTerm=2), "stray"),
        (conf_of(ME, entries=[(1, 1, b"1 FROB")], currentTerm=2), "unknown type"),
        (conf_of(ME, entries=[(1, 1, b"1")], currentTerm=2), "form"),
    ],
)  # fmt: skip
def test_what_parse_would_refuse_is_not_dumped(nodesconf, conf, match):
    with pytest.raises(ParseError, match=match) as caught:
        nodesconf.dump(conf)
    assert caught.value.lineno == 0


@pytest.mark.parametrize(
    "conf",
    [
        None,
        conf_of(ME, currentTerm="1"),
        conf_of(ME, currentTerm=True),
        conf_of(ME, other=1),
        conf_of(ME, currentTerm=1, votedFor=None),
        conf_of(ME, currentTerm=1, entries=[(1, 1, "1 NOOP")]),
        conf_of(ME, currentTerm=1, entries=[(True, 1, b"1 NOOP")]),
        conf_of(ME, currentTerm=1, entries=[(1, 1.0, b"1 NOOP")]),
        conf_of(ME, "not a node"),
    ],
)
def test_wrong_types_are_not_dumped(nodesconf, conf):
    with pytest.raises((TypeError, AttributeError)):
        nodesconf.dump(conf)


HEX = "0123456789abcdef"
u64 = st.integers(0, U64)
node_ids = st.text(HEX, min_size=40, max_size=40)
words = st.text("abXY01-./:_éü", min_size=1, max_size=8)


@st.composite
def files(draw) -> NodesConf:
    """A sound file in canonical form: what `parse` gives for what `dump` writes."""
    is_raft = draw(st.booleans())
    names = sorted(draw(st.sets(node_ids, min_size=1, max_size=6)))
    epochs = {node_id: draw(u64) for node_id in names}
    cuts = sorted(draw(st.lists(st.integers(0, 16383), max_size=8, unique=True)))
    ranges = [(a, b - 1) for a, b in itertools.pairwise(cuts)]
    slots: dict[str, list[tuple[int, int]]] = {node_id: [] for node_id in names}
    for first, last in ranges[::2]:  # every second one: no two of them touch, whoever gets them
        slots[draw(st.sampled_from(names))].append((first, last))
    myself = draw(st.sampled_from(names))
    leaving = st.dictionaries(st.integers(0, 99), st.sampled_from(names), max_size=2)
    nodes = []
    for node_id in names:
        primary = draw(st.none() | st.sampled_from(names))
        role = "slave" if primary else "master"
        more = draw(st.sampled_from([(), ("fail?",), ("fail",), ("nofailover",), ("fail", "noaddr"), ("learner",)]))
        nodes.append(
            NodeRecord(
                node_id,
                ip=draw(st.sampled_from(["", "10.0.0.1", "::1", "host"])),
                port=draw(st.integers(0, 65535)),
                cport=draw(st.integers(0, 65535)),
                hostname=draw(st.sampled_from(["", "h.example.com", "höst"])),
                aux=draw(st.dictionaries(st.sampled_from(["nodename", "color"]), words, max_size=2)),
                flags=(("myself",) if node_id == myself else ()) + (role, *more),
                primary_id=primary,
                epoch=0 if primary else epochs[node_id],
                connected=draw(st.booleans()),
                slots=tuple(slots[node_id]),
                migrating=tuple(sorted(draw(leaving).items())) if node_id == myself else (),
            )
        )
    pairs: dict[str, int | str] = {}
    entries = []
    if is_raft:
        last = draw(st.integers(0, 1000) | st.integers(U64 - 5, U64))
        terms = sorted(draw(st.lists(st.integers(0, 9), min_size=2, max_size=8)))
        pairs = {"currentTerm": terms[-1], "lastApplied": last, "snapshotTerm": terms[0]}
        if draw(st.booleans()):
            pairs["votedFor"] = draw(node_ids)
        for index, term in enumerate(terms[1:-1], last + 1):
            if index > U64:
                break
            data = draw(st.binary(min_size=1, max_size=20)).replace(b"\n", b"\\n")
            entries.append((index, term, draw(st.sampled_from([b"%d NOOP" % term, b"%d APP %b" % (term, data)]))))
    else:
        pairs = draw(st.dictionaries(st.sampled_from(["currentEpoch", "lastVoteEpoch"]), u64, max_size=2))
    pairs |= draw(st.dictionaries(st.sampled_from(["future", "Other"]), words, max_size=2))
    return NodesConf(tuple(nodes), pairs, tuple(entries))


@settings(max_examples=80, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conf=files(), random=st.randoms(use_true_random=False))
def test_dumped_and_parsed(nodesconf, conf, random):
    shuffled = list(conf.nodes)
    random.shuffle(shuffled)
    text = nodesconf.dump(dataclasses.replace(conf, nodes=tuple(shuffled), torn_tail=b"x", warnings=("w",)))
    assert nodesconf.parse(text) == conf
    assert nodesconf.dump(nodesconf.parse(text)) == text
