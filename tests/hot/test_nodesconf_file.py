"""Whole files read: checksums, order, torn tails, vars, entries. NODESCONF A, 1.5 to 1.8; PROTOCOL 11."""

from __future__ import annotations

import dataclasses

import pytest

from raftfast.errors import ParseError
from raftfast.records import NodeRecord, NodesConf

A, B, C = "a" * 40, "b" * 40, "c" * 40
SHARD = "5" * 40
LIMIT = 2 << 20
U64 = (1 << 64) - 1


def node(node_id: str, rest: str = "", flags: str = "master", primary: str = "-", epoch: int = 1) -> bytes:
    address = f"10.0.0.1:7000@17000,,tls-port=0,shard-id={SHARD}"
    return f"{node_id} {address} {flags} {primary} 0 0 {epoch} connected{' ' if rest else ''}{rest}\n".encode()


MYSELF = node(A, "0-99", "myself,master")
NODES = MYSELF + node(B, "100-199")


class File:
    """Puts a Raft file together by the rules, with the module's own checksums."""

    def __init__(self, nodesconf, nodes: bytes = NODES, names: str = "currentTerm 5 lastApplied 10 snapshotTerm 4"):
        self.nodesconf = nodesconf
        self.text = nodes + (f"vars {names}\n".encode() if names else b"")
        self.next_index = 11

    def crc(self) -> File:
        self.text += b"crc %016x\n" % self.nodesconf.crc64(self.text)
        return self

    def log(self, *lines: bytes) -> File:
        for line in lines:
            self.text += self.nodesconf.log_line(self.next_index, line)
            self.next_index += 1
        return self

    def pair(self, term: int, voted_for: str | None = None) -> File:
        self.text += self.nodesconf.appended_vars(term, voted_for, self.nodesconf.crc64(self.text))
        return self

    def raw(self, text: bytes) -> File:
        self.text += text
        return self

    def parse(self) -> NodesConf:
        return self.nodesconf.parse(self.text)

    def refused(self, lineno: int, match: str) -> None:
        with pytest.raises(ParseError, match=match) as caught:
            self.parse()
        assert caught.value.lineno == lineno


@pytest.fixture
def file(nodesconf):
    return lambda *args: File(nodesconf, *args)


ADDRESSES = [
    ("10.0.0.1:7000@17000", "10.0.0.1", 7000, 17000),
    ("10.0.0.22:7000@17000", "10.0.0.22", 7000, 17000),
    ("10.0.0.3:7000@17000,host", "10.0.0.3", 7000, 17000),
    ("10.0.0.3:7000@17000,", "10.0.0.3", 7000, 17000),
    (":7000@17000", "", 7000, 17000),
    ("10.0.0.4:7000@1700", "10.0.0.4", 7000, 1700),
    ("10.0.0.4:7000@17000", "10.0.0.4", 7000, 17000),
    ("10.0.0.5:7000", "10.0.0.5", 7000, 17000),
    ("10.0.0.5:7000@17001", "10.0.0.5", 7000, 17001),
    ("10.0.0.5:700", "10.0.0.5", 700, 10700),
    ("::1:700", "::1", 700, 10700),
    ("fe80::7000@17000:7000@17000", "fe80::7000@17000", 7000, 17000),
    ("2001:700:2:3", "2001:700:2", 3, 10003),
    ("a:7000@17000:1@2", "a:7000@17000", 1, 2),
    ("7000@17000:7000@17000", "7000@17000", 7000, 17000),
]
BAD_ADDRESSES = [
    "10.0.0.1:7000@",
    "10.0.0.1:7000@170000",
    "10.0.0.1",
    "10.0.0.1:",
    "10.0.0.1:7000@17000@17000",
    "a:99999",
]


@pytest.mark.parametrize("before", ADDRESSES)
def test_each_port_column_behind_each_other(nodesconf, before):
    for address, ip, port, cport in ADDRESSES:
        text = f"{A} {before[0]} myself,master - 0 0 0 connected\n{B} {address} master - 0 0 0 connected\n"
        first, second = nodesconf.parse(text.encode()).nodes
        assert (first.ip, first.port, first.cport) == before[1:]
        assert (second.ip, second.port, second.cport) == (ip, port, cport)
    for address in BAD_ADDRESSES:
        text = f"{A} {before[0]} myself,master - 0 0 0 connected\n{B} {address} master - 0 0 0 connected\n"
        with pytest.raises(ParseError) as caught:
            nodesconf.parse(text.encode())
        assert caught.value.lineno == 2


def test_a_line_that_the_quick_parser_leaves_does_not_mix_up_the_next_ones_ports(nodesconf):
    # The second has open slots, which only the shared rules read; its ports differ from the first's.
    rows = [("10.0.0.1:1@2", ""), ("10.0.0.2:3@4", f" [7->-{A}]"), ("10.0.0.3:3@4", ""), ("10.0.0.4:1@2", "")]
    text = "".join(
        f"{digit * 40} {address} {'myself,' if digit == 'a' else ''}master - 0 0 0 connected{rest}\n"
        for digit, (address, rest) in zip("abcd", rows, strict=True)
    )
    nodes = nodesconf.parse(text.encode()).nodes
    assert [(node.port, node.cport) for node in nodes] == [(1, 2), (3, 4), (3, 4), (1, 2)]


# --- the shape of a file ------------------------------------------------------------------------------------------


def test_nothing_is_fresh_and_blank_is_not(nodesconf):
    assert nodesconf.parse(b"") == NodesConf()
    for text in (b"\n", b"\n\n\n", b"\0\0\0", b"\0\n\0\0\n"):
        with pytest.raises(ParseError, match="myself") as caught:
            nodesconf.parse(text)
        assert caught.value.lineno == 0


def test_blank_lines_and_lines_of_nuls_do_not_count(nodesconf, file):
    plain = file().crc().log(b"5 NOOP")
    text = plain.text.replace(b"\n", b"\n\n\0\0\0\n\n")
    conf = nodesconf.parse(b"\n\0\n" + text + b"\0\0")
    assert conf == plain.parse()
    assert conf.torn_tail == b""


def test_line_numbers_count_blank_lines(file):
    file(b"\n\n\0\n" + MYSELF).raw(b"\njunk\n").refused(7, "columns")


@pytest.mark.parametrize("text", [b"  \n", b"\t\n", b"\r\n", b" \0\n"])
def test_a_line_of_blanks_is_refused(file, text):
    file(text + MYSELF).refused(1, "blanks only|byte 0x00")


def test_node_and_vars_lines_come_in_any_order(nodesconf):
    text = (
        b"VARS currentEpoch 3\n"
        + node(B, "", "slave", A)
        + b"vars lastVoteEpoch 2\n"
        + MYSELF
        + b"vArS CURRENTepoch 4\n"
    )
    conf = nodesconf.parse(text)
    assert [n.id for n in conf.nodes] == [B, A]
    assert conf.vars == {"currentEpoch": 4, "lastVoteEpoch": 2}


def test_a_crlf_gossip_file_loads_and_a_raft_file_does_not(nodesconf, file):
    gossip = NODES + b"vars currentEpoch 1 lastVoteEpoch 0\n"
    assert nodesconf.parse(gossip.replace(b"\n", b"\r\n")) == nodesconf.parse(gossip)
    raft = file().crc()
    raft.text = raft.text.replace(b"\n", b"\r\n")
    raft.refused(4, "crc")


def test_myself_must_stand_once(file):
    file(node(A)).refused(0, "myself")
    file(MYSELF + node(B, "", "myself")).refused(2, "myself")


def test_an_id_has_one_line(file):
    file(MYSELF + node(B) + node(C) + node(B)).refused(4, f"{B} has a line")


def test_a_slot_has_one_owner(file):
    file(MYSELF + node(B, "100 99-101")).refused(2, "slot 99")
    file(MYSELF + node(B, "100-16383") + node(C, "16383", "slave", A)).refused(3, "slot 16383")


def test_a_primary_without_a_line(nodesconf, file):
    lines = node(B, "", "slave", C) + MYSELF
    file(lines).crc().refused(1, f"primary {C}")
    conf = nodesconf.parse(lines + b"vars currentEpoch 1\n")
    assert conf.nodes[2] == NodeRecord(C, connected=False)
    assert nodesconf.parse(lines) == dataclasses.replace(conf, vars={})


def test_an_open_slot_of_a_node_without_a_line(nodesconf, file):
    lines = node(A, f"[5->-{C}] [6-<-{B}]", "myself,master")
    made = nodesconf.parse(lines).nodes
    assert [n.id for n in made] == [A, C, B]
    conf = file(lines).crc().parse()
    assert [n.id for n in conf.nodes] == [A]
    assert [(C in text, B in text) for text in conf.warnings] == [(True, False), (False, True)]


@pytest.mark.parametrize("kind", ["node", "vars"])
def test_a_line_of_more_than_2_mib_is_refused(nodesconf, kind):
    start = MYSELF[:-1] + b" " if kind == "node" else MYSELF + b"vars x "
    filler = b"1 " * (1 << 20) if kind == "node" else b"v" * LIMIT
    with pytest.raises(ParseError, match=f"a {kind} line of .* at most 2097152") as caught:
        nodesconf.parse(start + filler + b"\n")
    assert caught.value.lineno == (1 if kind == "node" else 2)


def test_a_last_node_or_vars_line_without_its_line_end_is_refused(nodesconf):
    """What is left of it can read well, so that nothing tells it from a whole one: 0-5460 cut to 0-54."""
    for text, lineno in (
        (MYSELF[:-1], 1),
        (node(A, "0-5460", "myself,master")[:-3], 1),
        (NODES[:-1], 2),
        (MYSELF + b"vars currentEpoch 1", 2),
        (MYSELF + b"vars currentTerm 12 lastApplied 42", 2),
        (MYSELF + b"vars currentTerm 12 lastApplied 42\nvars x 1", 3),
    ):
        with pytest.raises(ParseError, match="no line end") as caught:
            nodesconf.parse(text)
        assert caught.value.lineno == lineno
        assert nodesconf.parse(text + b"\n").torn_tail == b""
    for text in (MYSELF[:-1] + b"\0", MYSELF + b"vars currentEpoch 1\0", MYSELF[:-20], MYSELF + b"var", MYSELF + b"lo"):
        with pytest.raises(ParseError):
            nodesconf.parse(text)


def test_a_last_crc_line_without_its_line_end_is_taken(file):
    """It has one length, and shows that what stands before it is whole."""
    whole = file().crc()
    whole.text = whole.text[:-1]
    assert whole.parse().warnings == ("line 4 has no line end",)
    file().raw(b"crc 0123456789abcdef").refused(4, "CRC mismatch")
    for size in range(1, 20):
        cut = file().raw(b"crc 0000000000000000"[:size])
        with pytest.raises(ParseError):
            cut.parse()


@pytest.mark.parametrize("names", ["currentTerm 12 lastApplied 34 snapshotTerm 3", "currentEpoch 12 lastVoteEpoch 3"])
def test_no_cut_of_a_whole_file_loads_but_at_a_line_end_or_in_its_log(nodesconf, names):
    """NODESCONF A: nothing that is torn is forgiven, but what was appended."""
    text = File(nodesconf, NODES, names)
    readable = {at + 1 for at, byte in enumerate(text.text) if byte == 0x0A}
    if "currentTerm" in names:
        text.crc()
        readable |= {len(text.text) - 1, *range(len(text.text), len(text.text) + 200)}
        text.next_index = 35
        text.log(b"5 NOOP", b"5 APP - x")
    for cut in range(1, len(text.text)):
        if cut in readable:
            nodesconf.parse(text.text[:cut])
        else:
            with pytest.raises(ParseError):
                nodesconf.parse(text.text[:cut])


# --- vars ---------------------------------------------------------------------------------------------------------


def test_vars(nodesconf):
    text = (
        f"vars CURRENTTERM 5 lastapplied 3 SnapshotTerm 4 votedFor {A} raftLeader {B} clusterId {SHARD} joining 1 "
        "appSnapshot app-3-0123456789abcdef appLength 99 appCrc 00000000DEADBEEF newName new-value\n"
    )
    conf = nodesconf.parse(NODES + text.encode())
    assert conf.vars == {
        "currentTerm": 5,
        "lastApplied": 3,
        "snapshotTerm": 4,
        "votedFor": A,
        "raftLeader": B,
        "clusterId": SHARD,
        "joining": 1,
        "appSnapshot": "app-3-0123456789abcdef",
        "appLength": 99,
        "appCrc": "00000000deadbeef",
        "newName": "new-value",
    }
    written = nodesconf.dump(conf).splitlines()[2].decode().split()
    assert written[1::2] == list(conf.vars)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ("currentTerm", "no value"),
        ("currentTerm 1 lastApplied", "no value"),
        ("currentTerm -1", "currentTerm"),
        ("currentTerm 01", "currentTerm"),
        ("currentTerm 1_0", "currentTerm"),
        ("currentTerm 18446744073709551616", "currentTerm"),
        ("lastApplied x", "lastApplied"),
        ("snapshotTerm +1", "snapshotTerm"),
        ("currentEpoch 0x10", "currentEpoch"),
        ("lastVoteEpoch x", "lastVoteEpoch"),
        (f"currentTerm 1 votedFor {A}0", "votedFor"),
        ("currentTerm 1 votedFor -", "votedFor"),
        (f"currentTerm 1 raftLeader {A.upper()}", "raftLeader"),
        ("currentTerm 1 clusterId x", "clusterId"),
        ("joining 2", "joining"),
        ("joining true", "joining"),
        ("appSnapshot app-1-0123456789abcdef appLength 1", "missing"),
        ("appLength 1 appCrc 0123456789abcdef", "missing"),
        ("appSnapshot app-1-0123456789abcde appLength 1 appCrc 0123456789abcdef", "appSnapshot"),
        ("appSnapshot app-01-0123456789abcdef appLength 1 appCrc 0123456789abcdef", "appSnapshot"),
        ("appSnapshot ../app-1-0123456789abcdef appLength 1 appCrc 0123456789abcdef", "appSnapshot"),
        ("appSnapshot app-1-0123456789ABCDEF appLength 1 appCrc 0123456789abcdef", "appSnapshot"),
        ("appSnapshot app-1-0123456789abcdef appLength -1 appCrc 0123456789abcdef", "appLength"),
        ("appSnapshot app-1-0123456789abcdef appLength 1 appCrc 0", "appCrc"),
        ("currentTerm 3 snapshotTerm 4", "below the term 4"),
        ('x "1"', "byte 0x22"),
        ("x '1'", "byte 0x27"),
        ("x \x01", "byte 0x01"),
        ("x a\0b", "byte 0x00"),
    ],
)
def test_vars_that_are_refused(file, names, match):
    file(MYSELF, names).refused(2, match)


def test_another_term_clears_the_vote(file):
    def merged(*names: str) -> dict:
        return file(MYSELF + "".join(f"vars {n}\n" for n in names[:-1]).encode(), names[-1]).parse().vars

    assert merged(f"votedFor {A}", "currentTerm 5") == {"votedFor": A, "currentTerm": 5}
    assert merged(f"currentTerm 5 votedFor {A}", "currentTerm 5") == {"votedFor": A, "currentTerm": 5}
    assert merged(f"currentTerm 5 votedFor {A}", "lastApplied 1")["votedFor"] == A
    assert merged(f"currentTerm 5 votedFor {A}", "currentTerm 6") == {"currentTerm": 6}
    assert merged(f"currentTerm 5 votedFor {A}", f"votedFor {B} currentTerm 6") == {"currentTerm": 6, "votedFor": B}


# --- the crc line -------------------------------------------------------------------------------------------------


def test_the_crc_line_covers_all_before_it(file):
    whole = file().crc()
    assert whole.parse().warnings == ()
    for position in range(len(NODES) + 5):
        bad = file()
        bad.text = whole.text[:position] + bytes([whole.text[position] ^ 1]) + whole.text[position + 1 :]
        with pytest.raises(ParseError):
            bad.parse()


def test_several_crc_lines_each_cover_the_earlier_ones_and_log_lines(file):
    text = file().crc().crc().log(b"5 NOOP").crc().log(b"5 NOOP").crc()
    assert len(text.parse().entries) == 2
    text.text = text.text.replace(b"crc", b"CRC", 1)  # as good a crc line, but not what the next one covers
    text.refused(5, "CRC mismatch")


@pytest.mark.parametrize(
    "line",
    [
        b"crc ",
        b"crc 0",
        b"crc  0000000000000000",
        b"crc 0000000000000000 ",
        b"crc 000000000000000g",
        b"crc 00000000000000001",
    ],
)
def test_bad_crc_lines(file, line):
    file().raw(line + b"\n").refused(4, "bad crc line")


def test_zero_is_not_checked_and_no_crc_line_is_warned_of(nodesconf, file):
    assert len(file().raw(b"crc 0000000000000000\n").parse().warnings) == 1
    assert len(file().parse().warnings) == 1
    assert nodesconf.parse(NODES + b"vars currentEpoch 1\n").warnings == ()
    many = file().crc().raw(b"".join(b"log 0000000000000000 %d 5 NOOP\n" % i for i in range(11, 20))).parse()
    assert len(many.warnings) == 1
    assert "9" in many.warnings[0]
    assert len(many.entries) == 9


# --- log lines ----------------------------------------------------------------------------------------------------


def test_entries_are_taken_as_they_are(file):
    lines = (
        b"4 NOOP",
        b"4 APP - ",
        b"5 APP - \x00\x01\r\t \"quoted' \\n  twice \xff\x00",
        b"5 NODE_FAIL " + A.encode(),
        b"5 SLOT_CHANGE - 0 x 1 5-9 \xc3\xa9",
    )
    conf = file().crc().log(*lines).parse()
    assert conf.entries == tuple((11 + i, int(line[:1]), line) for i, line in enumerate(lines))
    assert conf.torn_tail == b""


def test_types_in_any_case_are_kept_in_upper_case(nodesconf, file):
    conf = file().crc().log(b"5 nOOp", b"5 app - x", b"5 Add_Voter " + A.encode()).parse()
    assert [line for _, _, line in conf.entries] == [b"5 NOOP", b"5 APP - x", b"5 ADD_VOTER " + A.encode()]
    text = file().crc().log(b"5 NOOP")
    text.text = text.text.replace(b"log ", b"LOG ")
    assert text.parse().entries == ((11, 5, b"5 NOOP"),)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"5 FROBNICATE x", "index 11: unknown type 'FROBNICATE'"),
        (b"5 NOOP2", "unknown type"),
        (b"5", "form"),
        (b"", "form"),
        (b"5  NOOP", "form"),
        (b"5 ", "form"),
        (b"5 NOOP ", "blank without data"),
        (b"5 APP ", "blank without data"),
        (b"x NOOP", "term"),
        (b"05 NOOP", "term"),
        (b"-5 NOOP", "term"),
        (b"18446744073709551616 NOOP", "term"),
        (b"6 NOOP", "above currentTerm 5"),
        (b"3 NOOP", "below the term 4"),
        (b"5 NODE_FAIL  x", "stray blanks"),
        (b"5 NODE_FAIL x ", "stray blanks"),
        (b"5 NODE_FAIL x  y", "stray blanks"),
        (b"5 NODE_FAIL x\ty", "stray blanks"),
        (b"5 NODE_FAIL x\r", "stray blanks"),
        (b"5 NODE_FAIL x\0", "stray blanks"),
        (b'5 NODE_FAIL "x"', "stray blanks"),
        (b"5 NODE_FAIL 'x'", "stray blanks"),
    ],
)
def test_log_lines_that_are_refused_whatever_their_checksum(file, line, match):
    file().crc().log(line).log(b"5 NOOP").refused(5, match)


@pytest.mark.parametrize(
    "line",
    [
        b"log \n",
        b"log 0123456789abcdef\n",
        b"log 0123456789abcde 11 5 NOOP\n",
        b"log 0123456789abcdeg 11 5 NOOP\n",
        b"log  0123456789abcdef 11 5 NOOP\n",
        b" log 0123456789abcdef 11 5 NOOP\n",
        b"log\t0123456789abcdef 11 5 NOOP\n",
        b"log 0123456789abcdef  11 5 NOOP\n",
    ],
)
def test_log_lines_of_no_form(file, line):
    file().crc().raw(line).refused(5, "form")


def test_the_order_of_checks(nodesconf, file):
    """Fields, checksum, gap, type (NODESCONF 1.7)."""
    text = file().crc()
    text.next_index = 15
    text.log(b"9 FROBNICATE x")
    text.refused(5, r"index gap \(expected 11, got 15\)")
    text.text = text.text.replace(b"FROBNICATE", b"FROBNICATF")
    text.refused(5, "CRC mismatch")
    text.text = text.text.replace(b" FROBNICATF x", b"")
    text.refused(5, "form")


@pytest.mark.parametrize("index", [b"x", b"011", b"-1", b"18446744073709551616", b"12", b"10", b"0"])
def test_indexes(nodesconf, file, index):
    payload = index + b" 5 NOOP"
    file().crc().raw(b"log %016x %b\n" % (nodesconf.crc64(payload), payload)).refused(5, "index")


def test_gaps_and_terms_after_entries(nodesconf, file):
    text = file().crc().log(b"5 NOOP", b"5 NOOP")
    text.next_index += 1
    text.log(b"5 NOOP").refused(7, r"expected 13, got 14")
    file().crc().log(b"5 NOOP", b"4 NOOP").refused(6, "term 4 at index 12 is below the term 5")
    file().crc().log(b"5 NOOP", b"6 NOOP").pair(6).refused(6, "above currentTerm 5")
    assert file().crc().log(b"5 NOOP").pair(6).log(b"6 NOOP").parse().entries[-1] == (12, 6, b"6 NOOP")


def test_the_last_index_there_is(file):
    text = file(MYSELF, f"currentTerm 5 lastApplied {U64 - 1}").crc()
    text.next_index = U64
    assert text.log(b"5 NOOP").parse().entries == ((U64, 5, b"5 NOOP"),)
    text.next_index = 0
    text.log(b"5 NOOP").refused(5, "index gap")
    full = file(MYSELF, f"currentTerm 5 lastApplied {U64}").crc()
    payload = b"18446744073709551616 5 NOOP"
    full.raw(b"log %016x %b\n" % (full.nodesconf.crc64(payload), payload)).refused(4, "index")


def test_log_lines_need_a_term_before_them(file):
    text = file(MYSELF, "")
    text.next_index = 1
    text.log(b"0 NOOP").refused(2, "no currentTerm")
    text.raw(b"vars currentTerm 5\n").refused(2, "no currentTerm")
    gossip = file(MYSELF, "currentEpoch 1")
    gossip.next_index = 1
    gossip.log(b"0 NOOP").refused(3, "no currentTerm")
    assert len(file(MYSELF, "currentTerm 5 lastApplied 10").log(b"0 NOOP").parse().entries) == 1


# --- what was appended, whole and torn ----------------------------------------------------------------------------


def test_appended_pairs(file):
    text = file().crc().pair(6, A).log(b"5 NOOP", b"6 NOOP").pair(7).log(b"7 NOOP").pair(7, B).pair(9, C)
    conf = text.parse()
    assert conf.vars == {"currentTerm": 9, "lastApplied": 10, "snapshotTerm": 4, "votedFor": C}
    assert len(conf.entries) == 3
    assert (conf.torn_tail, conf.warnings) == (b"", ())
    assert "votedFor" not in file().crc().pair(6, A).pair(7).parse().vars
    assert file().crc().pair(6, A).pair(6).parse().vars["votedFor"] == A


def test_an_appended_vars_line_needs_its_crc_line(file):
    text = file().crc().log(b"5 NOOP").raw(b"vars currentTerm 6\n")
    text.log(b"6 NOOP").refused(7, "vars line 6 has no crc line")
    file().crc().raw(b"vars currentTerm 6\n" + node(C)).refused(6, "vars line 5 has no crc line")
    file().crc().raw(b"vars currentTerm 6\nvars currentTerm 7\n").refused(6, "vars line 5")
    file().crc().raw(b"vars currentTerm 6\nlog 0123").refused(6, "vars line 5")


def test_a_wrong_crc_line_after_appended_vars(file):
    file().crc().raw(b"vars currentTerm 6\ncrc 0123456789abcdef\n").refused(6, "CRC mismatch")
    file().crc().raw(b"vars currentTerm 6\ncrc 0123\n").refused(6, "bad crc line")
    file().crc().raw(b"vars currentTerm x\n").crc().refused(5, "currentTerm 'x'")
    conf = file().crc().raw(b"vars currentTerm 6\ncrc 0000000000000000\n").parse()
    assert (conf.vars["currentTerm"], len(conf.warnings)) == (6, 1)


def test_appended_vars_stay_true_to_the_log(file):
    file().crc().log(b"5 NOOP").raw(b"vars lastApplied 11\n").crc().refused(6, "another lastApplied")
    file().crc().log(b"5 NOOP").raw(b"vars snapshotTerm 5\n").crc().refused(6, "another snapshotTerm")
    file().crc().log(b"5 NOOP").pair(4).refused(6, "below the term 5")
    moved = file().crc().raw(b"vars lastApplied 20\n").crc()
    moved.next_index = 21
    assert moved.log(b"5 NOOP").parse().entries[0][0] == 21


PIECES = (b"log", b"log", b"pair", b"log", b"pair", b"log")


@pytest.mark.parametrize("nuls", [0, 1, 700])
def test_cut_at_every_byte(file, nuls):
    """However a crash cuts what was appended, what is whole loads and what is not is reported."""
    text = file().crc()
    head, ends, states = len(text.text), [], [(5, 0)]
    for number, piece in enumerate(PIECES):
        term = states[-1][0]
        if piece == b"log":
            text.log(b"%d APP - %d\x00 \x00." % (term, number))
            states.append((term, states[-1][1] + 1))
        else:
            text.pair(term + 1, A)
            states.append((term + 1, states[-1][1]))
        ends.append(len(text.text))
    for cut in range(head, len(text.text)):
        short = file()
        short.text = text.text[:cut] + b"\0" * nuls
        conf = short.parse()
        whole = sum(end - 1 <= cut for end in ends)  # the last line end may be missing
        assert (conf.vars["currentTerm"], len(conf.entries)) == states[whole], cut
        kept = max([head, *(end for end in ends if end - 1 <= cut)])
        dropped = text.text[kept:cut]
        if dropped or kept - 1 == cut:
            assert conf.torn_tail == dropped + b"\0" * nuls
        else:
            assert conf.torn_tail == b""  # NULs on a line of their own are a blank line
        assert bool(conf.warnings) == bool(conf.torn_tail)


def test_nuls_at_the_end_of_an_entry_and_of_the_file(file):
    """Where the line end is missing they can't be told apart: only a NUL in the line end's place is known."""
    text = file().crc().log(b"5 APP - x\0\0").text[:-1]
    for end, entries in ((text[:-1], 0), (text, 1), (text + b"\0", 1), (text + b"\0\0", 0)):
        cut = file()
        cut.text = end
        assert len(cut.parse().entries) == entries
        assert (cut.parse().torn_tail.strip(b"\0") == b"") == bool(entries)


def test_a_byte_in_the_place_of_the_last_line_end_is_damage_and_no_tear(file):
    """A whole line was written whole: to drop it would forget an entry that may have been acknowledged."""
    for byte in (b"x", b" ", b"\r", b"\x01", b"\xff"):
        text = file().crc().log(b"5 NOOP", b"5 APP - y")
        text.text = text.text[:-1] + byte
        text.refused(6, "line end")


def test_an_appended_vars_line_that_is_whole_but_wrong_is_damage_and_no_tear(file):
    text = file().crc().log(b"5 NOOP")
    sound = text.text
    for line in (b"vars currentTerm 9 votedFor\n", b"vars currentTerm 9*crc 0123456789abcdef\n"):
        text.text = sound + line
        text.refused(6, ".")
    text.text = sound + b"vars currentTerm 9\n"
    assert text.parse().torn_tail == b"vars currentTerm 9\n"


def test_only_what_is_appended_can_be_torn(file):
    for tail in (b"x", b"crc", b"c", b"log\x01", b"loh", b"vart", A.encode(), node(C)[:60]):
        with pytest.raises(ParseError):
            file().crc().log(b"5 NOOP").raw(tail).parse()
    with pytest.raises(ParseError):
        file().raw(b"var").parse()
    assert file().raw(b"lo").parse().torn_tail == b"lo"


def test_a_torn_line_in_the_middle_is_damage(file):
    text = file().crc().log(b"5 NOOP", b"5 NOOP")
    start, last = text.text[:-20], text.text[-20:]
    text.text = start + b"\n" + last
    text.refused(6, "form|CRC mismatch")


def test_a_last_line_that_is_whole_but_wrong_is_damage(file):
    text = file().crc().log(b"5 NOOP")
    text.next_index += 1
    text.log(b"5 NOOP")
    text.text = text.text[:-1]
    text.refused(6, "index gap")


def test_an_unchecked_last_line_without_its_end_is_torn(file):
    """With checksum 0 nothing tells a whole line from a cut one."""
    conf = file().crc().raw(b"log 0000000000000000 11 5 NODE_FAIL bbb").parse()
    assert (conf.entries, conf.torn_tail[:4]) == ((), b"log ")


def test_every_flipped_bit_is_noticed(nodesconf):
    """One bit of a whole file: refused, or harmless (the case of a keyword or of a hex digit)."""
    text = File(nodesconf, MYSELF).crc().log(b"5 NOOP").pair(6, A).log(b"6 APP - xyz").text
    conf = nodesconf.parse(text)
    harmless = 0
    for position in range(len(text) - 1):  # without its line end the last line may be torn
        for bit in range(8):
            bad = text[:position] + bytes([text[position] ^ 1 << bit]) + text[position + 1 :]
            try:
                got = nodesconf.parse(bad)
            except ParseError:
                continue
            harmless += 1
            assert got == conf
            assert bad.lower() == text.lower()
    assert harmless
