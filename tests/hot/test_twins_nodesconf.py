"""The two twins of the `nodes.conf` leaf are one: surface, signatures, docstrings, errors, and every file's meaning.

Files are the vectors, and what is left of them after random damage, half of the time with their checksums made right
again so that the damage gets behind them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodesconf_cases import BAD_RECORDS, WRONG_TYPES, records, resealed

from raftfast.errors import ParseError
from raftfast.records import Address, NodeRecord, NodesConf
from twins import IMPLEMENTATIONS, leaf

pytestmark = pytest.mark.skipif(IMPLEMENTATIONS != ("c", "py"), reason="RAFTFAST_PURE_TESTS: there is one twin")

py = leaf("py", "nodesconf")
c = leaf("c", "nodesconf") if "c" in IMPLEMENTATIONS else py

VECTORS = {p.stem: p.read_bytes() for p in sorted((Path(__file__).parents[1] / "vectors" / "nodesconf").glob("*.conf"))}
SMALL = [data for data in VECTORS.values() if 0 < len(data) < 5000]
NODE_LINES = sorted({line for data in SMALL for line in data.splitlines() if re.match(rb"[0-9a-z]{40} ", line)})
A = "a" * 40
FUNCTIONS = [name for name in py.__all__ if not isinstance(getattr(py, name), type)]


def outcome(function, *args, **kwargs) -> str:
    """What a call gives, to the last type and order, or how it fails."""
    try:
        return repr(function(*args, **kwargs))
    except Exception as error:
        return f"{type(error).__name__} {error} {getattr(error, 'lineno', None)}"


def same(name: str, *args, **kwargs) -> str:
    one, other = outcome(getattr(c, name), *args, **kwargs), outcome(getattr(py, name), *args, **kwargs)
    assert one == other
    return one


# --- surface ------------------------------------------------------------------------------------------------------


def test_the_same_names():
    assert c.__all__ == py.__all__ == sorted(py.__all__)
    for module in (c, py):
        made_here = {
            name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        }
        assert {name for name in made_here if not name.startswith("_")} <= set(py.__all__)
    for kind in (Address, NodeRecord, NodesConf, ParseError):
        assert getattr(c, kind.__name__) is getattr(py, kind.__name__) is kind


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_signatures_and_docstrings(name):
    one, other = getattr(c, name), getattr(py, name)
    assert str(inspect.signature(one)) == str(inspect.signature(other))
    assert inspect.getdoc(one) == inspect.getdoc(other)
    assert one.__name__ == other.__name__ == name


def test_the_stub_has_the_same_names_and_signatures():
    stub = Path(py.__file__).with_name("nodesconf_c.pyi").read_text(encoding="utf-8")
    for name in FUNCTIONS:
        signature = str(inspect.signature(getattr(py, name))).replace("'", "")
        assert f"def {name}{signature}: ..." in stub
    for name in sorted(set(py.__all__) - set(FUNCTIONS)):
        assert f"import {name} as {name}\n" in stub


NUMBERS = [True, False, 1.0, -1, 1 << 64, (1 << 64) - 1, None, "1", b"1", 10**30]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        *(("crc64", (b"abc", number)) for number in NUMBERS),
        *(("crc64", (data,)) for data in (None, "abc", 5, [1], bytearray(b"abc"), memoryview(b"abc"))),
        *(("log_line", (number, b"1 NOOP")) for number in NUMBERS),
        *(("log_line", (1, line)) for line in (None, "1 NOOP", bytearray(b"1 NOOP"), 5, b"\n", b"a\nb", b"")),
        *(("log_lines", (number, [b"1 NOOP"])) for number in NUMBERS),
        *(("log_lines", (1, lines)) for lines in (None, b"ab", "ab", iter([]), {b"1"}, [b"1", "2"], [b"1", b"2\n"])),
        ("log_lines", ((1 << 64) - 1, [b"1", b"2"])),
        ("log_lines", ((1 << 64) - 1, [b"1", b"2\n"])),
        ("log_lines", ((1 << 64) - 1, [b"1", 2])),
        *(("appended_vars", (number, None, 0)) for number in NUMBERS),
        *(("appended_vars", (1, None, number)) for number in NUMBERS),
        *(("appended_vars", (1, vote, 0)) for vote in (A, "", "-", A.upper(), A.encode(), 5, "\ud800" * 40)),
        *(("parse", (data,)) for data in (None, "", "abc", bytearray(b"x"), memoryview(b"x"), 5, b"", b"x")),
        *(("parse_node_line", (data,)) for data in (None, "", bytearray(b"x"), 5, b"", b"\n")),
        *(("parse_address", (text,)) for text in (None, 5, bytearray(b"x"), "", b"", "\ud800", "a b", ":1", b":1\n")),
        *(("format_address", (address,)) for address in (None, "x", Address("a b", 1, 2), Address("", True, 2))),
        *(("format_node_line", (node,)) for node in (None, "x", NodeRecord("x"), NodeRecord(A, port=-1))),
        *(("dump", (conf,)) for conf in (None, "x", NodesConf(), NodesConf(nodes=(NodeRecord(A),)))),
    ],
)
def test_the_same_answers_to_odd_arguments(name, args):
    same(name, *args)


def test_arguments_by_name_and_too_many():
    for name, kwargs in (("crc64", {"data": b"a", "crc": 1}), ("log_line", {"index": 1, "line": b"1 NOOP"})):
        assert "Error" not in same(name, **kwargs)
    for name in FUNCTIONS:
        for module in (c, py):
            with pytest.raises(TypeError):
                getattr(module, name)(1, 2, 3, 4, 5)


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name):
    data = VECTORS[name]
    if "Error" in same("parse", data) or not data:
        return
    conf = py.parse(data)
    text = c.dump(conf)
    assert text == py.dump(c.parse(data))  # one writes what the other read
    assert repr(c.parse(py.dump(conf))) == repr(py.parse(text))


@pytest.mark.parametrize("name", [n for n, data in VECTORS.items() if b"log " in data])
def test_every_cut_of_a_raft_file(name):
    data = VECTORS[name]
    for cut in range(data.index(b"crc "), len(data)):
        same("parse", data[:cut])


BITS = [
    *(b"", b" ", b"\n", b"\0", b"\0\n", b"\r", b"\t", b"\x0b", b'"', b"'", b",", b"=", b":", b"@", b"-", b"0", b"1"),
    *(b"99999", b"16384", b"18446744073709551615", b"18446744073709551616", b"\xc3\xa9", b"\xff", b"\x7f", b"A", b"z"),
    *(b"[5->-%b]" % A.encode(), b",tls-port=7", b",client-ipv4=1.2.3.4", b",color=red", b"MYSELF", b"replica"),
    *(b"noaddr", b"fail", b"noflags", b"APP", b"app", b"NOOP", b"log ", b"log 0000000000000000 43 8 NOOP\n"),
    *(b"log 0123456789abcdef 44 8 APP - \0x\n", b"crc 0000000000000000\n", b"crc 0123456789abcdef\n"),
    *(
        b"vars currentTerm 9\n",
        b"vars lastApplied 43\n",
        b"vars x y\n",
        b"vars currentTerm 8 votedFor %b\n" % A.encode(),
    ),
]


@st.composite
def damaged(draw, texts) -> bytes:
    data = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["insert", "replace", "delete", "cut", "line", "swap", "byte"]))
        lines = data.split(b"\n")
        if kind == "insert":
            data = data[:at] + draw(st.sampled_from(BITS)) + data[at:]
        elif kind == "replace":
            data = data[:at] + draw(st.sampled_from(BITS)) + data[at + draw(st.integers(0, 20)) :]
        elif kind == "delete":
            data = data[:at] + data[at + draw(st.integers(1, 60)) :]
        elif kind == "cut":
            data = data[:at] + b"\0" * draw(st.integers(0, 3))
        elif kind == "line":
            lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines + BITS)).rstrip(b"\n"))
            data = b"\n".join(lines)
        elif kind == "swap":
            i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
            lines[i], lines[j] = lines[j], lines[i]
            data = b"\n".join(lines)
        elif data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data


@settings(max_examples=400, deadline=None, print_blob=True)
@given(data=damaged(SMALL), seal=st.booleans())
def test_damaged_files(data, seal):
    if seal:
        data = resealed(data)
    got = same("parse", data)
    if got.startswith("NodesConf("):
        conf = py.parse(data)
        if conf.nodes:
            text = same("dump", conf)
            assert "Error" not in text.split("(")[0].split(" ")[0]
            again = c.parse(py.dump(conf))
            assert (again.vars, again.entries) == (conf.vars, conf.entries)
    else:
        assert got.startswith("ParseError ")


@settings(max_examples=500, deadline=None, print_blob=True)
@given(line=damaged(NODE_LINES))
def test_damaged_node_lines(line):
    got = same("parse_node_line", line)
    assert got.startswith(("NodeRecord(", "ParseError "))
    if got.startswith("NodeRecord("):
        record = py.parse_node_line(line)
        assert py.parse_node_line(c.format_node_line(record)) == record
    same("parse_address", line[41:].split(b" ")[0])


ODD_RECORDS = [
    *BAD_RECORDS,
    *WRONG_TYPES,
    *({"connected": value} for value in (1, 0, None, "no")),
    *(
        {"slots": value}
        for value in (((1, 2), (3, 4)), ((5, 6), (1, 2)), [(1, 2)], ((1,),), (1,), 5, None, ((1, 2, 3),))
    ),
    *({"flags": value} for value in (("learner", "myself"), ["master"], ("slave", "slave"), None, 5, ([],), "master")),
    *({"aux": value} for value in ({"nodename": ""}, {"zone": "x"}, {"shard-id": A, "tls-port": "1"}, None, [])),
    *({"aux": {"tls-port": value}} for value in ("", "65535", "65536", "00", "1 ", None)),
    *({"hostname": value} for value in ("é", "a=b", "x" * 255, "x" * 256, "\udcff")),
    *({"migrating": value} for value in (None, 5, [], ((2, A), (1, A)), ((1,),))),
    *({"epoch": value} for value in ((1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), -(1 << 70), 10**40)),
]


@settings(max_examples=300, deadline=None, print_blob=True)
@given(record=records, change=st.just({}) | st.sampled_from(ODD_RECORDS))
def test_records_of_all_kinds(record, change):
    same("format_node_line", dataclasses.replace(record, **change))
    same("format_address", dataclasses.replace(record, **change))


@pytest.mark.parametrize("change", ODD_RECORDS, ids=repr)
def test_odd_records(change):
    same("format_node_line", dataclasses.replace(NodeRecord(A), **change))


@settings(max_examples=200, deadline=None, print_blob=True)
@given(data=st.binary(max_size=200))
def test_any_bytes(data):
    for name in ("parse", "parse_node_line", "parse_address"):
        same(name, data)
    same("crc64", data, len(data))
    same("log_lines", len(data), [data, data[:5]])
