"""Single lines of `nodes.conf`: node lines, addresses, log lines, CRC-64. NODESCONF A, 1.2, 1.4, 1.6, 1.7."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from nodesconf_cases import BAD_RECORDS, ID, OTHER, SHARD, WRONG_TYPES, canonical, records

from raftfast.errors import ParseError
from raftfast.records import Address, NodeRecord

TAIL = "master - 0 0 1 connected"
LIMIT = 2 << 20


def line(address="10.0.0.1:7000@17000", rest=TAIL, node_id=ID) -> bytes:
    return f"{node_id} {address} {rest}".encode("utf-8", "surrogateescape")


# --- CRC-64 -------------------------------------------------------------------------------------------------------


def slow_crc(data: bytes, crc: int = 0) -> int:
    """Bit by bit, from the polynomial as published, to check the tables by."""
    polynomial = int(f"{0xAD93D23594C935A9:064b}"[::-1], 2)
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
    return crc


def test_crc_check_value(nodesconf):
    assert nodesconf.crc64(b"123456789") == 0xE9C6D914C4B8D9CA == 16845390139448941002
    assert nodesconf.crc64(b"") == 0
    assert nodesconf.crc64(b"", 7) == 7


@pytest.mark.parametrize("size", [*range(0, 40), 1000])
def test_crc_against_the_definition(nodesconf, size):
    data = bytes(i * 37 + 11 & 0xFF for i in range(size))
    assert nodesconf.crc64(data) == slow_crc(data)
    assert nodesconf.crc64(data, (1 << 64) - 1) == slow_crc(data, (1 << 64) - 1)


def test_crc_goes_on_at_every_cut(nodesconf):
    data = bytes(range(50))
    whole = nodesconf.crc64(data)
    assert all(nodesconf.crc64(data[i:], nodesconf.crc64(data[:i])) == whole for i in range(51))


def test_crc_takes_what_is_like_bytes(nodesconf):
    data = b"some bytes"
    every_second = memoryview(bytes(byte for pair in zip(data, data, strict=True) for byte in pair))[::2]
    assert nodesconf.crc64(bytearray(data)) == nodesconf.crc64(memoryview(data)) == nodesconf.crc64(data)
    assert nodesconf.crc64(every_second) == nodesconf.crc64(data)


# --- log lines ----------------------------------------------------------------------------------------------------


def test_known_log_line(nodesconf):
    entry = f"1 NODE_JOIN {'f' * 40} 127.0.0.1:9999@19999,,tls-port=0,shard-id={'a' * 40}".encode()
    assert nodesconf.log_line(2, entry) == b"log 33420fe746511517 2 " + entry + b"\n"


@pytest.mark.parametrize("first", [0, 1, 9, 99, 10**19 - 2, (1 << 64) - 3])
def test_log_lines_are_log_lines_joined(nodesconf, first):
    lines = [b"1 NOOP", b"", b"3 APP - \x00\xff"]
    assert nodesconf.log_lines(first, lines) == b"".join(nodesconf.log_line(first + i, e) for i, e in enumerate(lines))
    assert nodesconf.log_lines(first, tuple(lines)) == nodesconf.log_lines(first, lines)
    assert nodesconf.log_lines(first, []) == b""


def test_log_lines_stop_at_the_last_index(nodesconf):
    last = (1 << 64) - 1
    assert b" 18446744073709551615 1 NOOP\n" in nodesconf.log_lines(last, [b"1 NOOP"])
    with pytest.raises(OverflowError):
        nodesconf.log_lines(last, [b"1 NOOP", b"1 NOOP"])


def test_a_line_end_inside_an_entry_is_refused(nodesconf):
    with pytest.raises(ParseError, match="line end"):
        nodesconf.log_line(1, b"1 APP - a\nb")


def test_appended_vars(nodesconf):
    before = nodesconf.crc64(b"what stands before\n")
    text = nodesconf.appended_vars(12, ID, before)
    vars_line, crc_line, rest = text.split(b"\n")
    assert (vars_line, rest) == (f"vars currentTerm 12 votedFor {ID}".encode(), b"")
    assert crc_line == b"crc %016x" % slow_crc(b"what stands before\n" + vars_line + b"\n")
    assert nodesconf.appended_vars(0, None, 0).startswith(b"vars currentTerm 0\ncrc ")
    with pytest.raises(ParseError, match="votedFor"):
        nodesconf.appended_vars(1, "short", 0)


# --- node lines that are taken ------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", range(1, 22))
def test_times_of_every_length(nodesconf, digits):
    for text in ("1" * digits, "9" * digits, ("1" + "0" * 20)[:digits], "12345678901234567890"[:digits]):
        if int(text) <= (1 << 64) - 1:
            record = nodesconf.parse_node_line(line(rest=f"master - {text} {text} {text} connected"))
            assert record.ping_sent == record.pong_recv == record.epoch == int(text)
        else:
            with pytest.raises(ParseError):
                nodesconf.parse_node_line(line(rest=f"master - {text} 0 1 connected"))
        for place in range(digits):  # any byte beside the digits, and far from them
            for byte in "/:;?@\x10\x7fpx\xb0\xff":
                wrong = text[:place] + byte + text[place + 1 :]
                with pytest.raises(ParseError):
                    nodesconf.parse_node_line(line(rest=f"master - 0 {wrong} 1 connected"))


def test_a_whole_node_line(nodesconf):
    text = (
        f"{ID} 2001:db8::2:7000@17001,host.example.com,availability-zone=az1,tls-port=0,nodename=n1,shard-id={SHARD} "
        f"myself,slave,nofailover {OTHER} 5 1770000000123 9 disconnected 0-5 7 100-16383 [8->-{OTHER}] [9-<-{ID}]"
    )
    record = NodeRecord(
        id=ID,
        ip="2001:db8::2",
        port=7000,
        cport=17001,
        hostname="host.example.com",
        aux={"availability-zone": "az1", "tls-port": "0", "nodename": "n1", "shard-id": SHARD},
        flags=("myself", "slave", "nofailover"),
        primary_id=OTHER,
        ping_sent=5,
        pong_recv=1770000000123,
        epoch=0,
        connected=False,
        slots=((0, 5), (7, 7), (100, 16383)),
        migrating=((8, OTHER),),
        importing=((9, ID),),
    )
    assert nodesconf.parse_node_line(text.encode()) == record
    assert nodesconf.parse_node_line(text.encode() + b"\n") == record
    assert nodesconf.format_node_line(dataclasses.replace(record, epoch=9)) == text.encode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (line(rest="master - 0 0 7 connected"), {"epoch": 7, "connected": True}),
        (line(rest=f"slave {OTHER} 0 0 7 up"), {"epoch": 0, "connected": False, "primary_id": OTHER}),
        (line(rest=f"master {OTHER} 0 0 7 CONNECTED"), {"epoch": 7, "connected": False}),
        (line(rest="slave - 0 0 7 connected"), {"epoch": 7, "primary_id": None}),
        (line(rest="noflags - 0 0 0 x"), {"flags": ()}),
        (line(rest="SLAVE,Fail? - 0 0 0 x"), {"flags": ("slave", "fail?")}),
        (line(rest="Primary,MYSELF - 0 0 0 x"), {"flags": ("myself", "master")}),
        (line(rest="replica,noflags,replica - 0 0 0 x"), {"flags": ("slave",)}),
        (line(rest="master,slave,learner - 0 0 0 x"), {"flags": ("master", "slave", "learner")}),
        (line(rest="master,noaddr - 0 0 0 x"), {"flags": ("master", "fail", "noaddr")}),
        (line(rest="handshake - 0 0 18446744073709551615 x"), {"flags": ("handshake",), "epoch": (1 << 64) - 1}),
        (line(rest=TAIL + " 5 4 3"), {"slots": ((3, 5),)}),
        (line(rest=TAIL + " 0-5 5-9 20 11 10"), {"slots": ((0, 11), (20, 20))}),
        (line(rest=TAIL + " 1-3 5-6"), {"slots": ((1, 3), (5, 6))}),
        (line(rest=TAIL + " 1-3 4"), {"slots": ((1, 4),)}),
        (line(rest=TAIL + f" [9->-{ID}] 3 [5->-{OTHER}]"), {"migrating": ((5, OTHER), (9, ID)), "slots": ((3, 3),)}),
        (line(rest=TAIL + f" [9->-{ID}] [9->-{OTHER}]"), {"migrating": ((9, OTHER),)}),
        (line(rest=TAIL + f" [9-<-{ID}] [9->-{OTHER}]"), {"migrating": ((9, OTHER),), "importing": ()}),
        (line("10.0.0.1:7000"), {"port": 7000, "cport": 17000}),
        (line(":0@0"), {"ip": "", "port": 0, "cport": 0}),
        (line(":0"), {"port": 0, "cport": 10000}),
        (line("::1:7000@17000"), {"ip": "::1"}),
        (line("[fe80::1%eth0]:7000@17000"), {"ip": "[fe80::1%eth0]"}),
        (line("x" * 45 + ":1@2"), {"ip": "x" * 45}),
        (line("h:1@2,"), {"hostname": "", "aux": {}}),
        (line("h:1@2,a_b/c=d"), {"hostname": "a_b/c=d"}),
        (line(f"h:1@2,shard-id={SHARD}"), {"hostname": f"shard-id={SHARD}", "aux": {}}),
        (line("h:1@2," + "n" * 300), {"hostname": "n" * 300}),
        (line("h:1@2,hö"), {"hostname": "hö"}),
        (line("h:1@2,\udcff\udc80"), {"hostname": "\udcff\udc80"}),
        (line("h:1@2,,nodename=næste"), {"aux": {"nodename": "næste"}}),
        (line("h:1@2,,nodename=a,nodename=b"), {"aux": {"nodename": "b"}}),
        (line("h:1@2,,nodename="), {"aux": {"nodename": ""}}),
        (line("h:1@2,,client-ipv4=,client-ipv6=::1"), {"aux": {"client-ipv4": "", "client-ipv6": "::1"}}),
        (line("h:1@2,,tls-port=65535,tcp-port=1,client-tls-port=0,client-tcp-port=9"), {}),
        (line("h:1@2,,x-y_z:/.`9=Q"), {"aux": {"x-y_z:/.`9": "Q"}}),
        (line().replace(b" ", b" \t "), {}),
        (b"  " + line() + b" ", {}),
        (line() + b"\r\n", {}),
        (line(node_id="z" * 40), {"id": "z" * 40}),
    ],
)
def test_taken(nodesconf, text, wanted):
    record = nodesconf.parse_node_line(text)
    assert {name: getattr(record, name) for name in wanted} == wanted
    assert nodesconf.parse_node_line(nodesconf.format_node_line(record)) == record


# --- node lines that are refused ----------------------------------------------------------------------------------

BAD_ADDRESSES = [
    "",
    "10.0.0.1",
    "10.0.0.1@17000",
    "10.0.0.1:",
    "10.0.0.1:@17000",
    "10.0.0.1:7000@",
    "10.0.0.1:65536@1",
    "10.0.0.1:7000@65536",
    "10.0.0.1:55536",
    "10.0.0.1:-1@1",
    "10.0.0.1:+1@1",
    "10.0.0.1:1_0@1",
    "10.0.0.1:07000@1",
    "10.0.0.1:²@1",
    "10.0.0.1:7000@17001@5",
    "10.0.0.1:99999999999999999999999@1",
    "10.0.0.1:4294974296@1",
    "x" * 46 + ":1@2",
    "h:1@2,,",
    "h:1@2,,,tls-port=0",
    "h:1@2,,tls-port",
    "h:1@2,,tls-port=0,",
    "h:1@2,,tls-port=0=1",
    "h:1@2,,=0",
    "h:1@2,,tls-port=",
    "h:1@2,,tls-port=abc",
    "h:1@2,,tls-port=65536",
    "h:1@2,,tls-port=-1",
    "h:1@2,,tls-port=000001",
    "h:1@2,,tcp-port=x",
    "h:1@2,,client-tls-port=x",
    "h:1@2,,client-tcp-port=x",
    "h:1@2,,client-ipv4=1.2.3",
    "h:1@2,,client-ipv4=::1",
    "h:1@2,,client-ipv4=\udcff",
    "h:1@2,,client-ipv6=1.2.3.4",
    "h:1@2,,shard-id=",
    f"h:1@2,,shard-id={SHARD}0",
    f"h:1@2,,shard-id={SHARD.upper()}",
    *(f"h:1@2,,nodename=a{c}b" for c in "!#$%&()*+;<>?@[\\]^{|}~\x7f"),
    *(f"h:1@2,,na{c}me=b" for c in "!#$%&()*+;<>?@[\\]^{|}~\x7f"),
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_bad_addresses(nodesconf, address):
    with pytest.raises(ParseError) as caught:
        nodesconf.parse_node_line(line(address))
    assert caught.value.lineno == 1
    with pytest.raises(ParseError) as caught:
        nodesconf.parse_address(address)
    assert caught.value.lineno == 0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"   ",
        b"\r",
        b"# a comment",
        line()[:-10],
        line() + b"\n\n",
        b"\n" + line(),
        line(node_id=ID[:-1]),
        line(node_id=ID + "0"),
        line(node_id=ID.upper()),
        line(node_id="-" * 40),
        line(rest="master,frobnicate - 0 0 1 connected"),
        line(rest="myself,,master - 0 0 1 connected"),
        line(rest="master, - 0 0 1 connected"),
        line(rest=", - 0 0 1 connected"),
        line(rest="meet - 0 0 1 connected"),
        line(rest="slave -foo 0 0 1 connected"),
        line(rest=f"slave {OTHER}x 0 0 1 connected"),
        line(rest=f"slave {OTHER.upper()} 0 0 1 connected"),
        line(rest="master - x 0 1 connected"),
        line(rest="master - 0 -1 1 connected"),
        line(rest="master - 0 0 18446744073709551616 connected"),
        line(rest="master - 0 0 01 connected"),
        line(rest="master - 0 0 1_0 connected"),
        line(rest=TAIL + " 16384"),
        line(rest=TAIL + " 0-16384"),
        line(rest=TAIL + " 5-4"),
        line(rest=TAIL + " -5"),
        line(rest=TAIL + " 5-"),
        line(rest=TAIL + " abc"),
        line(rest=TAIL + " 1-2-3"),
        line(rest=TAIL + " 1--3"),
        line(rest=TAIL + " 0x10"),
        line(rest=TAIL + " 007-009"),
        line(rest=TAIL + " 4294967297"),
        line(rest=TAIL + " ["),
        line(rest=TAIL + " [5]"),
        line(rest=TAIL + f" [5->-{ID}"),
        line(rest=TAIL + f" [5->-{ID}]x"),
        line(rest=TAIL + f" [5-x-{ID}]"),
        line(rest=TAIL + f" [16384->-{ID}]"),
        line(rest=TAIL + f" [05->-{ID}]"),
        line(rest=TAIL + f" [5->-{ID[:-1]}]"),
        *(line().replace(b"connected", b"conn" + bytes([c]) + b"ected") for c in b"\x00\x01\x08\x0a\x0b\x0c\x1f\"'"),
    ],
)
def test_refused(nodesconf, text):
    with pytest.raises(ParseError) as caught:
        nodesconf.parse_node_line(text)
    assert caught.value.lineno == 1


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_an_aux_value(nodesconf, byte):
    """9.x's rule, each byte value tried (NODESCONF 1.2)."""
    text = b"h:1@2,,nodename=a" + bytes([byte]) + b"b"
    allowed = byte >= 0x80 or chr(byte).isalnum() or chr(byte) in "-./:_`"
    if allowed:
        address = nodesconf.parse_address(text)
        assert nodesconf.format_address(address).encode("utf-8", "surrogateescape") == text
    elif chr(byte) == ",":
        with pytest.raises(ParseError, match="name=value"):
            nodesconf.parse_address(text)
    else:
        with pytest.raises(ParseError):
            nodesconf.parse_address(text)


def test_the_longest_line(nodesconf):
    room = LIMIT - len(line("h:1@2,"))
    longest = line("h:1@2," + "n" * room)
    record = nodesconf.parse_node_line(longest + b"\n")
    assert len(record.hostname) == room
    assert nodesconf.format_node_line(record) == longest
    with pytest.raises(ParseError, match="2097153 bytes"):
        nodesconf.parse_node_line(line("h:1@2," + "n" * (room + 1)))
    with pytest.raises(ParseError, match="2097153 bytes"):
        nodesconf.format_node_line(dataclasses.replace(record, hostname="n" * (room + 1)))


def test_errors_show_little_of_a_long_token(nodesconf):
    with pytest.raises(ParseError) as caught:
        nodesconf.parse_node_line(line(rest=TAIL + " " + "\x7fx" * 1000))
    assert len(caught.value.reason) < 300
    assert caught.value.reason.isprintable()


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "file_form"),
    [
        ("10.0.0.1:7000@17000", Address("10.0.0.1", 7000, 17000), "10.0.0.1:7000@17000,"),
        ("10.0.0.1:7000", Address("10.0.0.1", 7000, 17000), "10.0.0.1:7000@17000,"),
        (":7000@17000,,tls-port=0", Address("", 7000, 17000, "", {"tls-port": "0"}), ":7000@17000,,tls-port=0"),
        ("::1:1@2,h", Address("::1", 1, 2, "h"), "::1:1@2,h"),
    ],
)
def test_addresses(nodesconf, text, address, file_form):
    assert nodesconf.parse_address(text) == nodesconf.parse_address(text.encode()) == address
    assert nodesconf.format_address(address) == file_form
    assert nodesconf.format_address(address, always_comma=False) == file_form.removesuffix(",")
    assert nodesconf.parse_address(nodesconf.format_address(address, always_comma=False)) == address


def test_aux_order(nodesconf):
    names = "zebra shard-id nodename tcp-port tls-port client-ipv4 client-ipv6 client-tcp-port client-tls-port ant"
    values = {"shard-id": SHARD, "client-ipv4": "1.2.3.4", "client-ipv6": "::1", "nodename": "n"}
    aux = {name: values.get(name, "1") for name in [*names.split(), "availability-zone"]}
    text = nodesconf.format_address(Address("h", 1, 2, "", aux))
    assert [item.partition("=")[0] for item in text.split(",")[2:]] == [
        "availability-zone",
        "client-tls-port",
        "client-tcp-port",
        "client-ipv6",
        "client-ipv4",
        "tls-port",
        "tcp-port",
        "nodename",
        "shard-id",
        "ant",
        "zebra",
    ]
    assert list(nodesconf.parse_address(text).aux)[-2:] == ["ant", "zebra"]
    assert nodesconf.parse_address(text).aux == aux


@pytest.mark.parametrize("change", BAD_RECORDS)
def test_what_would_not_be_read_back_is_not_written(nodesconf, change):
    with pytest.raises(ParseError) as caught:
        nodesconf.format_node_line(dataclasses.replace(NodeRecord(ID), **change))
    assert caught.value.lineno == 0


@pytest.mark.parametrize("change", WRONG_TYPES)
def test_wrong_types_are_not_written(nodesconf, change):
    with pytest.raises(TypeError):
        nodesconf.format_node_line(dataclasses.replace(NodeRecord(ID), **change))


@settings(max_examples=150, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=records)
def test_written_and_read_back(nodesconf, record):
    text = nodesconf.format_node_line(record)
    assert nodesconf.parse_node_line(text) == canonical(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aux", None),
        ("aux", [("shard-id", "b" * 40)]),
        ("slots", ((1,),)),
        ("slots", ((1, 2, 3),)),
        ("slots", (5,)),
        ("slots", None),
        ("migrating", ((1,),)),
        ("importing", (5,)),
    ],
)
def test_a_field_of_a_wrong_shape_is_a_type_error(nodesconf, field, value):
    with pytest.raises(TypeError, match=field):
        nodesconf.format_node_line(dataclasses.replace(NodeRecord(ID), **{field: value}))


def test_a_number_too_long_to_be_written_out_is_a_parse_error(nodesconf):
    huge = 10**5000  # not as a parameter: pytest would write it out
    changes = [{name: huge} for name in ("port", "cport", "ping_sent", "pong_recv", "epoch")]
    changes += [{"port": -huge}, {"slots": ((0, huge),)}, {"migrating": ((huge, OTHER),)}]
    for change in changes:
        with pytest.raises(ParseError, match="of many digits is not from 0 to"):
            nodesconf.format_node_line(dataclasses.replace(NodeRecord(ID), **change))


def test_only_an_address_is_formatted_as_one(nodesconf):
    for value in (None, "h:1@2", NodeRecord(ID)):
        with pytest.raises(TypeError, match="an address must be Address"):
            nodesconf.format_address(value)
