"""The codec against the vectors and against PROTOCOL 1 and 2, sentence by sentence; each test over both twins."""

from __future__ import annotations

import random
import tracemalloc
from array import array
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from wire_cases import ID, INVALID, MOST, OTHER_ID, VALID, append_entries, framed, message_of

from raftfast import errors, messages, nodesconf
from raftfast.messages import MAX_ENTRY_BYTES
from twins import IMPLEMENTATIONS, leaf

_by_name = {"ids": lambda vector: vector["name"]}
STREAM = b"".join(bytes.fromhex(vector["frame"]) for vector in VALID)
ADDRESS = b"10.0.0.1:7000@17000,"


def _fed(wire: ModuleType, pieces: Any, max_frame: int = 16 << 20) -> tuple[list[messages.Message], str | None]:
    """All messages of a stream given in pieces, and the text of the error that ended it."""
    decoder = wire.FrameDecoder(max_frame)
    got = []
    for piece in pieces:
        try:
            got += decoder.feed(piece)
        except errors.ProtocolError as error:
            return got + list(error.messages), str(error)
    return got, None


def _bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def _refused(wire: ModuleType, payload: bytes) -> str:
    with pytest.raises(errors.ProtocolError) as caught:
        wire.decode(payload)
    return str(caught.value)


# The vectors.


@pytest.mark.parametrize("vector", VALID, **_by_name)
def test_valid_vector(wire: ModuleType, vector: dict[str, Any]) -> None:
    frame, message = bytes.fromhex(vector["frame"]), message_of(vector)
    assert wire.decode(frame[8:]) == message
    assert _fed(wire, [frame]) == ([message], None)
    assert _fed(wire, _bytewise(frame)) == ([message], None)
    if vector["message"] != "Unknown":
        verb = bytes(frame[8:]).split(b" ")[0]
        expected = vector.get("encodes_as") or (frame[:8] + verb.upper() + frame[8 + len(verb) :]).hex()
        assert wire.encode(message).hex() == expected


@pytest.mark.parametrize("vector", INVALID, **_by_name)
def test_invalid_vector(wire: ModuleType, vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    good = wire.encode(messages.Welcome())
    for before in (b"", good):
        whole = _fed(wire, [before + frame])
        assert whole[1] is not None, vector["why"]
        assert len(whole[0]) == bool(before)
        assert _fed(wire, _bytewise(before + frame)) == whole
        assert _fed(wire, [before + frame + good]) == whole
    if frame.startswith(b"RAFT") and len(frame) == int.from_bytes(frame[4:8], "big"):
        _refused(wire, frame[8:])


def test_a_message_holds_what_its_class_says(wire: ModuleType) -> None:
    got = wire.decode(b"AE " + ID.encode() + b" 7 9 6 9 2 5\n7 NOOP\n7 APP - x")
    assert type(got.terms) is tuple
    assert type(got.lines) is tuple
    assert [type(value) for value in (*got.terms, got.term, got.round)] == [int] * 4
    assert [type(value) for value in got.lines] == [bytes] * 2
    assert hash(got) == hash(message_of({"message": "AppendEntries", "fields": _fields_of(got)}))
    ack = wire.decode(b"AE_ACK 7 1 12")
    assert ack.success is True
    assert type(ack.repl_offset) is int


def _fields_of(message: Any) -> dict[str, Any]:
    values = {name: getattr(message, name) for name in message.__slots__}
    values["lines"] = [line.decode() for line in message.lines]
    return values


# Frames.


def test_any_cut_gives_the_same(wire: ModuleType, rng: random.Random) -> None:
    expected = [message_of(vector) for vector in VALID]
    assert _fed(wire, [STREAM]) == (expected, None)
    assert _fed(wire, _bytewise(STREAM)) == (expected, None)
    for most in (3, 9, 40, 200, 2000):
        pieces, at = [], 0
        while at < len(STREAM):
            size = rng.randint(0, most)
            pieces.append(STREAM[at : at + size])
            at += size
        assert _fed(wire, pieces) == (expected, None)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_contiguous_buffer_is_taken(wire: ModuleType, wrap: Any) -> None:
    frame = wire.encode(messages.ReadIndex(5))
    assert wire.FrameDecoder().feed(wrap(frame)) == [messages.ReadIndex(5)]
    assert wire.decode(wrap(frame[8:])) == messages.ReadIndex(5)


def test_a_buffer_of_wider_items_is_taken(wire: ModuleType) -> None:
    frame = wire.encode(messages.ReadIndex(1234))
    assert len(frame) % 2 == 1  # with one byte more: a whole number of items
    decoder = wire.FrameDecoder()
    assert decoder.feed(array("H", frame + b"R")) == [messages.ReadIndex(1234)]
    assert decoder.buffered == 1


def test_what_was_fed_may_be_reused(wire: ModuleType) -> None:
    frame = wire.encode(messages.Propose(b"APP - hello"))
    buffer = bytearray(frame + frame[:20])
    decoder = wire.FrameDecoder()
    first = decoder.feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert first == [messages.Propose(b"APP - hello")]
    assert decoder.feed(frame[20:]) == first


def test_buffered_counts_what_is_kept(wire: ModuleType) -> None:
    frame = wire.encode(messages.ReadIndex(5))
    decoder = wire.FrameDecoder()
    for size in range(len(frame)):
        assert decoder.buffered == size
        assert decoder.feed(frame[size : size + 1]) == ([messages.ReadIndex(5)] if size == len(frame) - 1 else [])
    assert decoder.buffered == 0
    assert decoder.feed(b"") == []
    assert len(decoder.feed(frame + frame + frame[:11])) == 2
    assert decoder.buffered == 11


@pytest.mark.parametrize("start", [b"X", b"RAFTX"[:1] + b"X", b"RAX", b"RAFX", b"\x00"])
def test_wrong_magic_is_refused_at_its_first_byte(wire: ModuleType, start: bytes) -> None:
    decoder = wire.FrameDecoder()
    for byte in start[:-1]:
        assert decoder.feed(bytes([byte])) == []
    with pytest.raises(wire.ProtocolError):
        decoder.feed(start[-1:])


def test_the_length_is_checked_from_the_header_alone(wire: ModuleType) -> None:
    for length in (0, 7, 101, 255):
        decoder = wire.FrameDecoder(100)
        header = b"RAFT" + length.to_bytes(4, "big")
        assert decoder.feed(header[:7]) == []
        with pytest.raises(wire.ProtocolError):
            decoder.feed(header[7:])
    decoder = wire.FrameDecoder(100)
    assert decoder.feed(b"RAFT" + (100).to_bytes(4, "big")) == []
    assert decoder.feed(b"FROB" + bytes(88)) == [messages.Unknown("FROB" + "\x00" * 60)]


@pytest.mark.parametrize("limit", [100, 9 << 20, 16 << 20, (16 << 20) + 255, (1 << 32) - 2])
def test_too_long_a_length_is_refused_by_its_first_byte_that_shows_it(wire: ModuleType, limit: int) -> None:
    """PROTOCOL 1: as soon as the bytes that show it have arrived; in the same words however they came."""
    for length in (limit, limit + 1, limit + 256, limit * 2, 0xFF000000, (1 << 32) - 1):
        if length >= 1 << 32:
            continue
        header = b"RAFT" + length.to_bytes(4, "big")
        shows = next((n for n in range(5, 9) if int.from_bytes(header[4:n].ljust(4, b"\0"), "big") > limit), None)
        for size in range(1, 9):
            late = shows is not None and size >= shows
            told = f"a frame above the limit of {limit} bytes" if late else None
            for pieces in ([header[:size]], _bytewise(header[:size])):
                assert _fed(wire, pieces, limit) == ([], told)


def test_an_empty_payload_is_refused_from_the_header_alone(wire: ModuleType) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.FrameDecoder().feed(b"RAFT\x00\x00\x00\x08")


def test_after_an_error_the_decoder_refuses_all(wire: ModuleType) -> None:
    good = wire.encode(messages.Welcome())
    decoder = wire.FrameDecoder()
    with pytest.raises(wire.ProtocolError) as caught:
        decoder.feed(good + good + framed(b"VOTE 1 2") + good)
    assert caught.value.messages == (messages.Welcome(), messages.Welcome())
    assert decoder.buffered == 0
    for data in (good, b"", b"RAFT"):
        with pytest.raises(wire.ProtocolError, match="granted is neither 0 nor 1") as caught:
            decoder.feed(data)
        assert caught.value.messages == ()
    assert wire.FrameDecoder().feed(good) == [messages.Welcome()]


def test_a_wrong_argument_changes_nothing(wire: ModuleType) -> None:
    frame = wire.encode(messages.Welcome())
    decoder = wire.FrameDecoder()
    decoder.feed(frame[:5])
    for wrong in (None, 5, "RAFT", [1], memoryview(bytes(20))[::2]):
        with pytest.raises(TypeError):
            decoder.feed(wrong)
        with pytest.raises(TypeError):
            wire.decode(wrong)
    assert decoder.buffered == 5
    assert decoder.feed(frame[5:]) == [messages.Welcome()]


@pytest.mark.parametrize("wrong", [True, False, 100.0, "100", None, b"100"])
def test_max_frame_of_a_wrong_type(wire: ModuleType, wrong: Any) -> None:
    with pytest.raises(TypeError):
        wire.FrameDecoder(wrong)


@pytest.mark.parametrize("wrong", [7, 0, -1, 1 << 32, 1 << 64, -(1 << 70)])
def test_max_frame_out_of_range(wire: ModuleType, wrong: int) -> None:
    with pytest.raises(ValueError):
        wire.FrameDecoder(max_frame=wrong)
    wire.FrameDecoder(max_frame=8)
    wire.FrameDecoder((1 << 32) - 1)


def _peak(call: Any) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_nothing_is_allocated_by_a_number_from_the_wire(wire: ModuleType) -> None:
    announced = b"%d" % (1 << 40)
    for payload in (
        b"AE " + ID.encode() + b" 3 120 3 118 " + announced,
        b"AE " + ID.encode() + b" 3 120 3 118 " + announced + b"\n3 NOOP",
        b"PUBLISH 0 " + announced + b" " + announced + b"\nx",
        b"MODULE 1 1 " + announced + b"\nx",
        b"SNAPSHOT_PIECE " + ID.encode() + b" 1 1 1 0 " + announced + b" " + announced + b"\nx",
    ):
        assert _peak(lambda payload=payload: _refused(wire, payload)) < 1 << 20
    decoder = wire.FrameDecoder()
    header = b"RAFT" + (16 << 20).to_bytes(4, "big") + b"MODULE"
    assert _peak(lambda: decoder.feed(header)) < 1 << 20


def test_a_body_of_newlines_is_refused_before_it_is_split(wire: ModuleType) -> None:
    payload = b"AE " + ID.encode() + b" 3 120 3 118 1000000" + b"\n" * 1_000_000
    assert _peak(lambda: _refused(wire, payload)) < 4 << 20  # two tuples of a million would be 16 MB


def test_the_bytes_of_a_long_frame_are_kept_once(wire: ModuleType) -> None:
    """A frame of 8 MiB in pieces: never more than a few times its size in memory, and none of it afterwards."""
    size = 8 << 20
    frame = wire.encode(messages.Module(1, 2, bytes(size)))
    decoder = wire.FrameDecoder()
    got: list[messages.Message] = []

    def feed() -> None:
        for at in range(0, len(frame), 65536):
            got.extend(decoder.feed(frame[at : at + 65536]))

    assert _peak(feed) < 5 * size
    assert len(got) == 1
    assert decoder.buffered == 0


def test_no_sum_of_lengths_is_compared(wire: ModuleType) -> None:
    """Two lengths whose sum, in 64 bits, is just what is there (PROTOCOL 1)."""
    for first, second in ((MOST, 3), (3, MOST), (MOST - 1, 4), (1 << 63, (1 << 63) + 2)):
        assert (first + second) % (1 << 64) == 2
        assert "lengths" in _refused(wire, b"PUBLISH 0 %d %d\nxy" % (first, second))
    for offset in (MOST, MOST - 1):
        piece = b"SNAPSHOT_PIECE " + ID.encode() + b" 1 1 1 %d 2 %d\nxy"
        assert "past the total" in _refused(wire, piece % (offset, (offset + 2) % (1 << 64)))


# Tokens.


@pytest.mark.parametrize(
    "token",
    [b"", b"00", b"01", b"-0", b"-1", b"+1", b" 1", b"1 ", b"1_0", b"0x1", b"1e3", b"1.0", b"\xd9\xa3", b"\xb2"],
)
def test_strict_numbers(wire: ModuleType, token: bytes) -> None:
    _refused(wire, b"READ_INDEX " + token)


def test_number_range(wire: ModuleType) -> None:
    for number in (0, 9, 10, MOST - 6, MOST - 5, MOST):
        assert wire.decode(b"READ_INDEX %d" % number).number == number
        assert wire.encode(messages.ReadIndex(number)) == framed(b"READ_INDEX %d" % number)
    for number in (MOST + 1, MOST + 5, 10 * MOST, 10**20, 10**19 * 2, 10**25):
        _refused(wire, b"READ_INDEX %d" % number)
        with pytest.raises(wire.ProtocolError):
            wire.encode(messages.ReadIndex(number))


def test_signed_range(wire: ModuleType) -> None:
    for number in (-(1 << 63), -1, 0, 1, (1 << 63) - 1):
        assert wire.decode(b"AE_ACK 1 1 1 %d" % number).repl_offset == number
        assert wire.encode(messages.AppendEntriesAck(1, True, 1, number)) == framed(b"AE_ACK 1 1 1 %d" % number)
    for token in (b"-0", b"-", b"--1", b"-01", b"+1", b"%d" % (1 << 63), b"%d" % -((1 << 63) + 1), b"-%d" % MOST):
        assert "repl_offset" in _refused(wire, b"AE_ACK 1 1 1 " + token)


@pytest.mark.parametrize("token", [ID[:39], ID + "a", "A1" * 20, "a_" * 20, "g-" * 20, "a1" * 19 + "\x00a", "{}" * 20])
def test_ids(wire: ModuleType, token: str) -> None:
    assert wire.decode(b"HELLO " + b"gz" * 20 + b" " + ADDRESS).node_id == "gz" * 20
    assert "node_id" in _refused(wire, b"HELLO " + token.encode() + b" " + ADDRESS)
    with pytest.raises(wire.ProtocolError, match="node_id"):
        wire.encode(messages.Hello(token, ADDRESS.decode()))


@pytest.mark.parametrize("byte", [0, 1, 9, 0x0B, 0x0D, 0x1F, 0x7F])
def test_no_control_byte_in_an_address(wire: ModuleType, byte: int) -> None:
    assert "address" in _refused(wire, b"HELLO " + ID.encode() + b" :1@2,a" + bytes([byte]) + b"b")
    with pytest.raises(wire.ProtocolError, match="address"):
        wire.encode(messages.Hello(ID, f":1@2,a{chr(byte)}b"))


def test_length_of_an_address(wire: ModuleType) -> None:
    longest = ":1@2," + "x" * 2043
    assert wire.decode(wire.encode(messages.Hello(ID, longest))[8:]).address == longest
    assert "address" in _refused(wire, b"HELLO " + ID.encode() + b" " + longest.encode() + b"x")
    for wrong in ("", longest + "x", ":1@2,a b", ":1@2,a\nb"):
        with pytest.raises(wire.ProtocolError, match="address"):
            wire.encode(messages.Hello(ID, wrong))


ADDRESSES = [
    *(":0@0", ":7000@17000", "10.0.0.1:7000@17000", "10.0.0.1:55535", "h:65535@65535", "h:1@2,", "h:1@2,name:x@y,a=b"),
    *("2001:db8::1:7000@17000", "a:1@2:3@4", "x" * 45 + ":1@2", ":1@2,,", "[::1]:1@2", "\udcff:1@2"),
]
NO_ADDRESSES = [
    *("foo", "-", "7000", "@", ":", ":@", "h:", "h:@1", "h:1@", "h@1", ",h:1@2", "h,:1@2", "h:x@1", "h:1@x", "h:1@2@3"),
    *("h:01@2", "h:1@02", "h:+1@2", "h:-1@2", "h:1_0@2", "h:65536@1", "h:1@65536", "h:55536", "x" * 46 + ":1@2"),
    *("h:18446744073709551617@1", "h:1@18446744073709551617", "h:18446744073709541616", "h:1@2 ,", "h:\u0663@2"),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(wire: ModuleType, address: str) -> None:
    """PROTOCOL 2. The node's own parser takes the same ports, and is stricter in what follows."""
    assert wire.decode(wire.encode(messages.Hi(ID, address))[8:]).address == address
    ports = nodesconf.parse_address(address.partition(",")[0].encode("utf-8", "surrogateescape"))
    assert 0 <= ports.port <= ports.cport <= 65535


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_refused(wire: ModuleType, address: str) -> None:
    with pytest.raises(wire.ProtocolError, match="address is not"):
        wire.encode(messages.Hello(ID, address))
    if " " not in address:
        assert "address is not" in _refused(wire, b"HELLO " + ID.encode() + b" " + address.encode())
        with pytest.raises(errors.ParseError):
            nodesconf.parse_address(address.partition(",")[0].encode())


def test_text_survives_whatever_its_bytes(wire: ModuleType) -> None:
    raw = "höst:1@2,é".encode() + b"\xff\xc3\x80"
    got = wire.decode(b"HELLO " + ID.encode() + b" " + raw)
    assert got.address.encode("utf-8", "surrogateescape") == raw
    assert wire.encode(got) == framed(b"HELLO " + ID.encode() + b" " + raw)
    for wrong in (":1@2,\ud800", ":1@2,\udcc3\udca9"):  # no bytes give these texts
        with pytest.raises(wire.ProtocolError, match="address"):
            wire.encode(messages.Hello(ID, wrong))


def test_cluster_token(wire: ModuleType) -> None:
    start = b"HI " + ID.encode() + b" " + ADDRESS
    assert wire.decode(start).cluster is None
    for token in ("joining", "-", OTHER_ID):
        assert wire.decode(start + b" " + token.encode()).cluster == token
    for token in (OTHER_ID.upper().encode(), b"-" * 40, OTHER_ID.encode()[:39] + b"\xff"):
        assert "cluster" in _refused(wire, start + b" " + token)
    for token in ("Joining", "x", OTHER_ID[:39], OTHER_ID.upper()):
        with pytest.raises(wire.ProtocolError, match="cluster"):
            wire.encode(messages.Hi(ID, ADDRESS.decode(), token))


@pytest.mark.parametrize("verb", [b"HELLO", b"HI"])
def test_another_word_than_a_cluster_is_a_further_token(wire: ModuleType, verb: bytes) -> None:
    """NODESCONF 4.1: extra tokens in HELLO are ignored. One of the length of an id is meant for one (above)."""
    start = verb + b" " + ID.encode() + b" " + ADDRESS
    for token in (b"Joining", b"--", b"x", b"extra", OTHER_ID.encode()[:39], OTHER_ID.encode() + b"0", b"\xff"):
        assert wire.decode(start + b" " + token) == wire.decode(start)
        assert wire.decode(start + b" " + token + b" " + OTHER_ID.encode()).cluster is None
    assert wire.decode(start + b" joining extra").cluster == "joining"


FIXED = [
    b"HELLO " + ID.encode() + b" " + ADDRESS + b" -",
    b"HI " + ID.encode() + b" " + ADDRESS + b" joining",
    b"MEET cluster",
    b"ADD_ME",
    b"WELCOME",
    b"MEET_REJECTED",
    b"REMOVED 5",
    b"AE " + ID.encode() + b" 3 2 1 0 0 9",
    b"AE_ACK 3 1 2 0 9",
    b"PRE_VOTE_REQ " + ID.encode() + b" 3 2 1",
    b"PRE_VOTE 3 1",
    b"VOTE_REQ " + ID.encode() + b" 3 2 1 transfer",
    b"VOTE_REQ " + ID.encode() + b" 3 2 1",
    b"VOTE 3 0",
    b"INSTALL_SNAPSHOT " + ID.encode() + b" 3 2 1",
    b"SNAPSHOT_PIECE " + ID.encode() + b" 3 2 1 0 2 2",
    b"SNAPSHOT_ACK 3 2 1",
    b"READ_INDEX 3",
    b"READ_INDEX_OK 3 2",
    b"READ_INDEX_NO 3",
    b"TRANSFER_LEADER 3",
    b"TIMEOUT_NOW 3",
    b"FAILOVER_PREPARE",
    b"PUBLISH 0 1 1",
    b"MODULE 3 2 2",
]
RAW = (b"INSTALL_SNAPSHOT", b"SNAPSHOT_PIECE", b"PUBLISH", b"MODULE")
_verb_ids = {"ids": lambda line: line.split()[0].decode()}


@pytest.mark.parametrize("line", FIXED, **_verb_ids)
def test_shape_of_the_first_line(wire: ModuleType, line: bytes) -> None:
    """Further tokens are ignored, empty ones refused, missing ones too; the verb stands in any case (PROTOCOL 1)."""
    body = b"\nxy" if line.startswith(RAW) else b""
    message = wire.decode(line + body)
    assert wire.decode(line + b" 7 further tokens\x00" + body) == message
    assert wire.decode(line.split(b" ")[0].lower() + line[len(line.split(b" ")[0]) :] + body) == message
    tokens = line.split(b" ")
    for at in range(1, len(tokens) + 1):
        doubled = b" ".join([*tokens[:at], b"", *tokens[at:]])
        assert "an empty token" in _refused(wire, doubled + body)
    assert "an empty token" in _refused(wire, line + b" more  tokens" + body)
    assert "an empty token" in _refused(wire, line + b" more " + body)
    assert "without a verb" in _refused(wire, b" " + line + body)
    required = len(tokens) - (tokens[0] in (b"HELLO", b"HI", b"AE") or tokens[-1] == b"transfer")
    required -= 2 * (tokens[0] == b"AE_ACK")
    for count in range(1, required):
        assert "is missing" in _refused(wire, b" ".join(tokens[:count]) + body)


@pytest.mark.parametrize("line", FIXED, **_verb_ids)
def test_a_line_end_only_where_something_follows(wire: ModuleType, line: bytes) -> None:
    if line.startswith(RAW):
        assert "no line end" in _refused(wire, line)
    else:
        assert _refused(wire, line + b"\n")
        assert _refused(wire, line + b"\nxy")


def test_another_word_than_transfer_is_a_further_token(wire: ModuleType) -> None:
    start = b"VOTE_REQ " + ID.encode() + b" 3 2 1"
    assert wire.decode(start + b" transfer").transfer is True
    for token in (b"TRANSFER", b"transfers", b"1"):
        assert wire.decode(start + b" " + token) == messages.VoteRequest(ID, 3, 2, 1, False)


def test_the_round_is_a_number(wire: ModuleType) -> None:
    for start in (b"AE " + ID.encode() + b" 3 2 1 0 0 ", b"AE_ACK 3 1 2 0 "):
        assert "round" in _refused(wire, start + b"x")
        assert wire.decode(start + b"0").round == 0


def test_unknown_verbs(wire: ModuleType) -> None:
    assert wire.decode(b"Frob\xff  x\n\n") == messages.Unknown("Frob\udcff")
    assert wire.decode(b"WELCOME\r") == messages.Unknown("WELCOME\r")
    assert wire.decode(b"HELL") == messages.Unknown("HELL")
    assert wire.decode(b"x" * 100_000) == messages.Unknown("x" * 64)
    for payload in (b"", b" ", b"\n", b"\nWELCOME", b" WELCOME"):
        assert "without a verb" in _refused(wire, payload)


# Entries.


def _ae(lines: list[bytes], term: int = 9, prev_term: int = 0, count: int | None = None) -> bytes:
    heading = b"AE %b %d 5 %d 5 %d" % (ID.encode(), term, prev_term, len(lines) if count is None else count)
    return b"\n".join([heading, *lines])


def test_entry_lines_as_they_are_kept(wire: ModuleType) -> None:
    given = [
        b"1 app x",
        b"1 NoOp ",
        b"1 APP x",
        b"1 APP ",
        b"1 APP",
        b"1 Node_Fail y",
        b"2 NOOP",
        b"2 NOOP",
        b"2 APP \x00\xff \r",
    ]
    kept = (
        b"1 APP x",
        b"1 NOOP",
        b"1 APP x",
        b"1 APP",
        b"1 APP",
        b"1 NODE_FAIL y",
        b"2 NOOP",
        b"2 NOOP",
        b"2 APP \x00\xff \r",
    )
    got = wire.decode(_ae(given))
    assert got.lines == kept
    assert got.terms == (1, 1, 1, 1, 1, 1, 2, 2, 2)


@pytest.mark.parametrize("kind", sorted(messages.ENTRY_TYPES))
def test_every_entry_type(wire: ModuleType, kind: bytes) -> None:
    for name in (kind, kind.lower()):
        assert wire.decode(_ae([b"3 " + name + b" x", b"3 " + name])).lines == (b"3 " + kind + b" x", b"3 " + kind)
        assert wire.decode(b"PROPOSE " + name + b" x").entry == kind + b" x"
    for near in (kind[:-1], kind + b"X", kind + b"\t"):
        assert "unknown type" in _refused(wire, _ae([b"3 " + near + b" x"]))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([b"1 APP xxxxxx", b""], "entry 1 is not a term and a type"),
        ([b"1 APP xxxxxx", b"1"], "entry 1 is not a term and a type"),
        ([b"1 APP xxxxxx", b"1 "], "entry 1 has an unknown type"),
        ([b"1 APP xxxxxx", b"1  APP"], "entry 1 has an unknown type"),
        ([b"1 APP x", b"01 APP x"], "the term of entry 1 is not a number"),
        ([b"1 APP x", b" APP x"], "the term of entry 1 is not a number"),
        ([b"1 APP x", b"-1 APP x"], "the term of entry 1 is not a number"),
        ([b"1 APP x", b"18446744073709551616 APP x"], "the term of entry 1 is not a number"),
        ([b"1 APP x", b"10 APP x"], "the term of entry 1 is above"),
        ([b"2 APP x", b"1 APP x"], "the term of entry 1 falls"),
        ([b"0 APP x"], None),
        ([b"5 APP x", b"6 noop", b"5 APP x"], "the term of entry 2 falls"),
        ([b"5 APP x", b"6 noop", b"6 APP x", b"5 APP x"], "the term of entry 3 falls"),
        ([b"5 APP x", b"6 APP", b"5 APP x"], "the term of entry 2 falls"),
        ([b"1 APP x", b"1 APPx x"], "entry 1 has an unknown type"),
        ([b"1 APP x", b"1 APP x", b"1 APP xyzzy", b"1 APX x"], "entry 3 has an unknown type"),
    ],
)
def test_a_batch_with_one_bad_entry_is_refused_whole(wire: ModuleType, lines: list[bytes], reason: str | None) -> None:
    if reason is None:
        assert wire.decode(_ae(lines)).lines == tuple(lines)
    else:
        assert reason in _refused(wire, _ae(lines))


STRAYS = [b" x", b"x ", b"x  y", b"  ", b"\x00", b"x\ty", b"x\r", b"x\x0b", b"\x1f", b'"x"', b"x'"]


@pytest.mark.parametrize("data", STRAYS)
@pytest.mark.parametrize("kind", sorted(messages.ENTRY_TYPES - {b"APP"}))
def test_data_that_nodes_conf_could_not_keep_is_refused(wire: ModuleType, kind: bytes, data: bytes) -> None:
    """A member that took it could not read its own file any more (NODESCONF 1.7). APP's data is any bytes."""
    entry = kind + b" " + data
    for lines in ([b"1 APP x", b"1 " + entry], [b"1 " + kind + b" x", b"1 " + kind.lower() + b" " + data]):
        assert "entry 1 has data with stray" in _refused(wire, _ae(lines))
    assert "has data with stray" in _refused(wire, b"PROPOSE " + entry)
    assert "has data with stray" in _refused(wire, b"REJECT conflict " + entry)
    for message in (
        messages.AppendEntries(ID, 9, 5, 0, 5, (9, 9), (b"9 " + kind + b" x", b"9 " + entry)),
        messages.Propose(entry),
        messages.Reject("conflict", entry),
    ):
        with pytest.raises(wire.ProtocolError, match="has data with stray"):
            wire.encode(message)
    app = b"9 APP " + data
    assert wire.decode(_ae([app])).lines == (app,)
    assert wire.decode(_ae([b"9 " + kind + b" x\xff y\x7f"])).lines == (b"9 " + kind + b" x\xff y\x7f",)


@given(message=append_entries())
def test_what_the_codec_takes_the_file_takes(message: messages.AppendEntries) -> None:
    myself = b"%b :7000@17000,,tls-port=0,shard-id=%b myself,master - 0 0 0 connected\n" % (ID.encode(), ID.encode())
    head = myself + b"vars currentTerm %d lastApplied 0 snapshotTerm 0\n" % message.term
    for file in (leaf(impl, "nodesconf") for impl in IMPLEMENTATIONS):
        conf = file.parse(head + file.log_lines(1, message.lines))
        assert tuple(line for _, _, line in conf.entries) == message.lines
        assert not conf.torn_tail


@pytest.mark.parametrize("line", [b" APP xyz", b"   APP x", b"\x00 APP x", b"APP xyz", b"1\tAPP x", b"-0 APP x"])
def test_a_first_entry_without_a_term(wire: ModuleType, line: bytes) -> None:
    assert "the term of entry 0 is not a number" in _refused(wire, _ae([line]))


def test_terms_rise_from_prev_to_the_leaders(wire: ModuleType) -> None:
    assert wire.decode(_ae([b"3 NOOP", b"9 NOOP"], prev_term=3)).terms == (3, 9)
    assert "falls" in _refused(wire, _ae([b"2 NOOP"], prev_term=3))
    assert "prev_log_term" in _refused(wire, _ae([], prev_term=10))
    assert wire.decode(_ae([], prev_term=9)).prev_log_term == 9


def test_count_is_the_number_of_lines(wire: ModuleType) -> None:
    for count in (0, 1, 3, 1 << 33, MOST):
        assert "count" in _refused(wire, _ae([b"1 NOOP", b"1 NOOP"], count=count))
    assert "count" in _refused(wire, _ae([b"1 NOOP", b""], count=1))
    assert _refused(wire, _ae([b"1 NOOP", b""], count=2))


def test_longest_entry(wire: ModuleType) -> None:
    longest = b"9 APP " + bytes(MAX_ENTRY_BYTES - 6)
    frame = wire.encode(messages.AppendEntries(ID, 9, 5, 0, 5, (9,), (longest,)))
    assert wire.FrameDecoder().feed(frame)[0].lines == (longest,)
    assert "longer than" in _refused(wire, _ae([b"9 NOOP", longest + b"x"]))
    assert "longer than" in _refused(wire, b"PROPOSE APP " + bytes(MAX_ENTRY_BYTES))
    for message in (
        messages.AppendEntries(ID, 9, 5, 0, 5, (9,), (longest + b"x",)),
        messages.Propose(b"APP " + bytes(MAX_ENTRY_BYTES)),
        messages.Reject("conflict", b"APP " + bytes(MAX_ENTRY_BYTES)),
    ):
        with pytest.raises(wire.ProtocolError, match="longer than 8388608 bytes"):
            wire.encode(message)


def test_propose_and_reject(wire: ModuleType) -> None:
    assert wire.decode(b"PROPOSE app  a  b ") == messages.Propose(b"APP  a  b ")
    assert wire.decode(b"PROPOSE NOOP ") == messages.Propose(b"NOOP")
    assert wire.decode(b"reject rejected noop") == messages.Reject("rejected", b"NOOP")
    for payload in (b"PROPOSE", b"PROPOSE ", b"PROPOSE  NOOP", b"PROPOSE FROB x", b"PROPOSE NOOP\n", b"PROPOSE\nNOOP"):
        _refused(wire, payload)
    for payload in (b"REJECT", b"REJECT ", b"REJECT conflict", b"REJECT  NOOP", b"REJECT Conflict NOOP"):
        _refused(wire, payload)
    for payload in (b"REJECT conflict FROB", b"REJECT conflict  NOOP", b"REJECT conflict NOOP\n", b"REJECT maybe NOOP"):
        _refused(wire, payload)


def test_repl_offsets(wire: ModuleType) -> None:
    pair = ID.encode() + b" -5"
    assert wire.decode(b"REPL_OFFSETS " + pair).offsets == ((ID, -5),)
    assert wire.decode(b"REPL_OFFSETS " + pair + b" " + pair).offsets == ((ID, -5),) * 2
    for rest in (b"", b" ", b" " + pair + b" ", b"  " + pair, b" " + pair + b" x", b" " + ID.encode(), b" x 5"):
        _refused(wire, b"REPL_OFFSETS" + rest)
    for rest in (b" " + ID.encode() + b" x", b" " + pair + b"\n", b" " + pair + b" " + pair[:-3]):
        _refused(wire, b"REPL_OFFSETS" + rest)


def _outcome(decoder: Any, data: bytes) -> list[messages.Message] | str:
    try:
        return list(decoder.feed(data))
    except errors.ProtocolError as error:
        return str(error)


def test_a_feed_that_memory_broke_off_is_the_last(wire):
    """Else the caller, who can't know how much was taken, would feed what is then read in the wrong place."""
    faults = pytest.importorskip("_testcapi")
    frame = framed(b"READ_INDEX 5")
    broken_off = whole = 0
    for nth in range(60):
        decoder = wire.FrameDecoder()
        decoder.feed(frame[:11])
        rest = frame[11:] + frame * 3 + frame[:9]
        got = None
        faults.set_nomemory(nth, nth + 1)
        try:
            got = decoder.feed(rest)
        except MemoryError:
            pass
        finally:
            faults.remove_mem_hooks()
        if got is not None:
            whole += 1
            assert got == [messages.ReadIndex(5)] * 4
            assert decoder.feed(frame[9:]) == [messages.ReadIndex(5)]
            continue
        again = _outcome(decoder, rest)
        # It failed before anything was taken; or it was the last.
        if again != [messages.ReadIndex(5)] * 4:
            broken_off += 1
            assert again == "refused after a protocol error: a feed was broken off"
            assert decoder.buffered == 0
    assert broken_off
    assert whole
