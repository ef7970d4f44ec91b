"""The request parser: what it takes, what it refuses, and that the cut of the bytes never matters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftfast.server import resp
from raftfast.server.resp import Limits, RequestParser


def parse(data: bytes, cuts: tuple[int, ...] = (), limits: Limits | None = None):
    """The commands and the fault of `data`, fed in pieces that end at `cuts`."""
    parser = RequestParser(limits or Limits())
    commands = []
    for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        commands += parser.feed(data[start:end])
    return commands, parser.fault


def request(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)


@pytest.mark.parametrize(
    ("data", "commands"),
    [
        (b"PING\r\n", [[b"PING"]]),
        (b"  set  a\tb \n", [[b"set", b"a", b"b"]]),
        (b"\r\n\n   \r\nPING\n", [[b"PING"]]),
        (b"set k \"a b\\x41\\n\\\"\" 'it\\'s \\n'\r\n", [[b"set", b"k", b'a bA\n"', b"it's \\n"]]),
        (b"set k ''\r\n", [[b"set", b"k", b""]]),
        (request(b"SET", b"k", b""), [[b"SET", b"k", b""]]),
        (request(b"SET", b"\r\n", b"$3\r\n"), [[b"SET", b"\r\n", b"$3\r\n"]]),
        (b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", [[b"PING"]]),
        (request(b"a") + b"PING\r\n" + request(b"b"), [[b"a"], [b"PING"], [b"b"]]),
        (request(b"x" * 5000, b"y" * 1000), [[b"x" * 5000, b"y" * 1000]]),
        (request(*[b"z"] * 1200), [[b"z"] * 1200]),
    ],
)
def test_requests_and_every_cut_of_them(data, commands):
    assert parse(data) == (commands, None)
    for cut in range(1, min(len(data), 400)):
        assert parse(data, (cut,)) == (commands, None)
    assert parse(data, tuple(range(1, len(data)))) == (commands, None)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"* 1\r\n", "invalid multibulk length"),
        (b"*1_0\r\n", "invalid multibulk length"),
        (b"*1\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n\r\n", "expected '$', got '?'"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$16777217\r\n", "invalid bulk length"),
        (b"*1\r\n$18446744073709551617\r\n", "invalid bulk length"),
        (b"*1\r\n$1\r\nabc\r\n", "expected CRLF after an argument"),
        (b'set "a\r\n', "unbalanced quotes in request"),
        (b'set "a"b\r\n', "unbalanced quotes in request"),
        (b"set 'a\\'\r\n", "unbalanced quotes in request"),
        (b"a" * 65537, "too big inline request"),
        (b"a" * 65537 + b"\r\n", "too big inline request"),
        (b"*" + b"1" * 65537, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 65537, "too big bulk count string"),
    ],
)
def test_faults_come_after_what_was_good_and_end_it(data, fault):
    for cuts in ((), tuple(range(1, min(len(data) + 6, 40)))):
        commands, found = parse(b"PING\r\n" + data + request(b"GET", b"x"), cuts)
        assert commands == [[b"PING"]]
        assert found == f"Protocol error: {fault}"


def test_the_arguments_of_one_command_are_bounded_together():
    limits = Limits(max_query_bytes=1000)
    assert parse(request(b"x" * 400, b"y" * 400), limits=limits) == ([[b"x" * 400, b"y" * 400]], None)
    # the parser proper: the short way is only for what is in one piece, which no bound is needed for
    data = b"*3\r\n" + b"$1\r\nx\r\n" * 2
    commands, fault = parse(data + b"$900\r\n", (3,), limits)
    assert (commands, fault) == ([], "Protocol error: too big request")
    commands, fault = parse(data + b"$1\r\nx\r\n" + data + b"$1\r\nx\r\n", (3, len(data) + 10), limits)
    assert (commands, fault) == ([[b"x"] * 3] * 2, None)


@given(
    st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=5),
    st.lists(st.integers(0, 300), max_size=10),
)
def test_any_commands_at_any_cuts(commands, cuts):
    data = b"".join(request(*arguments) for arguments in commands)
    places = tuple(sorted({cut for cut in cuts if 0 < cut < len(data)}))
    assert parse(data, places) == (commands, None)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_at_any_cut_give_the_same(data, cut):
    whole = parse(data)
    assert parse(data, (min(cut, len(data)),)) == whole
    assert parse(data, tuple(range(1, len(data)))) == whole or not data


@given(st.lists(st.sampled_from([b"*", b"$", b"1", b"2", b"\r\n", b"\n", b"-", b"a", b'"', b" ", b"\\"]), max_size=40))
def test_near_misses_at_every_byte(pieces):
    data = b"".join(pieces)
    assert parse(data, tuple(range(1, len(data)))) == parse(data) or not data


def test_a_value_in_many_pieces_is_collected_in_place():
    """Or the cost would be quadratic in the pieces: each would copy all that came before it."""
    parser = RequestParser(Limits())
    value = b"v" * (1 << 20)
    data = request(b"SET", b"k", value)
    assert parser.feed(data[:1024]) == []
    kept, first = parser._rest, 1024
    for start in range(first, len(data) - 1024, 1024):
        assert parser.feed(data[start : start + 1024]) == []
        assert parser._rest is kept
        first = start + 1024
    assert parser.feed(data[first:]) == [[b"SET", b"k", value]]
    assert not parser._rest


@pytest.mark.parametrize("raw", [b"", b"-", b"+1", b" 1", b"1 ", b"1_0", b"01", b"-0", b"1.0", "²".encode(), b"\xb2"])
def test_numbers_have_one_form(raw):
    assert resp.parse_int(raw) is None


def test_numbers_at_their_bounds():
    assert resp.parse_int(b"-9223372036854775808") == -(1 << 63)
    assert resp.parse_int(b"9223372036854775807") == (1 << 63) - 1
    assert resp.parse_int(b"9223372036854775808") is None
    assert resp.parse_int(b"-9223372036854775809") is None
    assert resp.parse_int(b"0") == 0


def test_reply_shapes():
    assert resp.error("ERR a\r\nb") == b"-ERR a  b\r\n"
    assert resp.null(False) == b"$-1\r\n"
    assert resp.null(True) == b"_\r\n"
    assert resp.mapping([("a", b":1\r\n")], False) == b"*2\r\n$1\r\na\r\n:1\r\n"
    assert resp.mapping([("a", b":1\r\n")], True) == b"%1\r\n$1\r\na\r\n:1\r\n"
    assert resp.mapping([], False) == b"*0\r\n"
    assert resp.mapping([], True) == b"%0\r\n"
    assert resp.verbatim("é", True) == b"=6\r\ntxt:\xc3\xa9\r\n"
    assert resp.verbatim("é", False) == b"$2\r\n\xc3\xa9\r\n"
    assert resp.set_of([b":1\r\n"], True) == b"~1\r\n:1\r\n"
    assert resp.set_of([b":1\r\n"], False) == b"*1\r\n:1\r\n"
    assert resp.bulk("\udcff") == b"$1\r\n\xff\r\n"
