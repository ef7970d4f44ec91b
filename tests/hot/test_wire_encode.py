"""Encoding: what goes out comes back equal, and nothing goes out that would be refused; each test over both twins."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_cases import ID, MOST, OTHER_ID, mutated_payloads, sendable

from raftfast import errors, messages
from raftfast.hot import wire_py
from raftfast.messages import MAX_ENTRY_BYTES, AppendEntries

# The fixture gives a module: nothing that one example could leave behind for the next.
shared_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, print_blob=True
)


@shared_fixture
@given(message=sendable)
def test_what_is_encoded_is_decoded(wire: ModuleType, message: messages.Message) -> None:
    frame = wire.encode(message)
    assert type(frame) is bytes
    assert frame[:4] == b"RAFT"
    assert int.from_bytes(frame[4:8], "big") == len(frame)
    assert wire.decode(frame[8:]) == message
    assert wire.FrameDecoder().feed(frame + frame) == [message, message]


@shared_fixture
@given(stream=st.lists(sendable, max_size=8), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_a_stream_in_pieces(wire: ModuleType, stream: list[messages.Message], cuts: list[int]) -> None:
    data = b"".join(map(wire.encode, stream))
    decoder = wire.FrameDecoder()
    got, at = [], 0
    for size in cuts:
        got += decoder.feed(data[at : at + size])
        at += size
    assert got + decoder.feed(data[at:]) == stream
    assert decoder.buffered == 0


@shared_fixture
@given(data=st.data())
def test_what_is_taken_can_be_sent_again(wire: ModuleType, data: st.DataObject) -> None:
    """No bytes give anything but a message or a ProtocolError, and a message that is given can be encoded."""
    payload = data.draw(mutated_payloads(wire_py.encode))
    try:
        message = wire.decode(payload)
    except errors.ProtocolError:
        return
    if isinstance(message, messages.Unknown):
        with pytest.raises(errors.ProtocolError):
            wire.encode(message)
    else:
        assert wire.decode(wire.encode(message)[8:]) == message


@pytest.mark.parametrize("wrong", [None, 5, b"WELCOME", "WELCOME", messages.Welcome, object(), [messages.Welcome()]])
def test_no_message(wire: ModuleType, wrong: Any) -> None:
    with pytest.raises(TypeError):
        wire.encode(wrong)


class _OwnHello(messages.Hello):
    pass


@pytest.mark.parametrize("message", [messages.Unknown("FROB"), messages.Message(), _OwnHello(ID, "x")])
def test_messages_that_are_never_sent(wire: ModuleType, message: messages.Message) -> None:
    with pytest.raises(errors.ProtocolError, match="can't be sent"):
        wire.encode(message)


GOOD = [
    messages.Hello(ID, "10.0.0.1:7000@17000,", "joining"),
    messages.Hi(ID, "10.0.0.1:7000@17000,", "-"),
    messages.Meet("cluster"),
    messages.Removed(5),
    AppendEntries(ID, 9, 5, 3, 5, (3, 9), (b"3 APP - x", b"9 NOOP"), 1),
    messages.AppendEntriesAck(3, True, 5, -1, 7),
    messages.PreVoteRequest(ID, 3, 2, 1),
    messages.PreVote(3, True),
    messages.VoteRequest(ID, 3, 2, 1, True),
    messages.Vote(3, False),
    messages.InstallSnapshot(ID, 3, 2, 1, b"x\n"),
    messages.SnapshotPiece(ID, 3, 2, 1, 5, 10, b"12345"),
    messages.SnapshotAck(3, 2, 1),
    messages.Propose(b"APP - x"),
    messages.Reject("conflict", b"NOOP"),
    messages.ReadIndex(1),
    messages.ReadIndexOk(1, 2),
    messages.ReadIndexNo(1),
    messages.TransferLeader(1),
    messages.TimeoutNow(1),
    messages.ReplOffsets(((ID, 5), (OTHER_ID, -5))),
    messages.Publish(True, b"c", b"m"),
    messages.Module(1, 255, b"x"),
]
_of_class = {"ids": lambda message: type(message).__name__}


def _with(message: messages.Message, name: str, value: Any) -> messages.Message:
    """A copy with one field set past every check: dataclasses.replace would make tuples of sequences."""
    copy = dataclasses.replace(message)
    object.__setattr__(copy, name, value)
    return copy


@pytest.mark.parametrize("message", GOOD, **_of_class)
def test_every_field_of_a_wrong_type_is_refused(wire: ModuleType, message: messages.Message) -> None:
    assert wire.decode(wire.encode(message)[8:]) == message
    for field in dataclasses.fields(message):
        right = getattr(message, field.name)
        for wrong in (None, True, 1, 1.0, "1", b"1", bytearray(b"NOOP"), [], (), Ellipsis, -1.5, object()):
            if type(wrong) is type(right) or (wrong is None and field.default is None):
                continue
            with pytest.raises(errors.ProtocolError):
                wire.encode(_with(message, field.name, wrong))


@pytest.mark.parametrize("message", GOOD, **_of_class)
def test_every_number_out_of_range_is_refused(wire: ModuleType, message: messages.Message) -> None:
    for field in dataclasses.fields(message):
        if type(getattr(message, field.name)) is int:
            for wrong in (-1 << 64, -(1 << 63) - 1, MOST + 1, 1 << 200):
                with pytest.raises(errors.ProtocolError, match=field.name):
                    wire.encode(_with(message, field.name, wrong))


class _Bytes(bytes):
    pass


class _Int(int):
    pass


@pytest.mark.parametrize(
    ("terms", "lines", "reason"),
    [
        ((3,), (), "two tuples of one length"),
        ((3, 3), (b"3 NOOP",), "two tuples of one length"),
        ((3, 3), (b"3 NOOP", "3 NOOP"), "entry 1 is not bytes"),
        ((3, 3), (b"3 NOOP", bytearray(b"3 NOOP")), "entry 1 is not bytes"),
        ((3, 3), (b"3 NOOP", _Bytes(b"3 NOOP")), "entry 1 is not bytes"),
        ((3, 3), (b"3 NOOP", None), "entry 1 is not bytes"),
        ((3, 3.0), (b"3 NOOP", b"3 NOOP"), "the term of entry 1 is not a number"),
        ((3, "3"), (b"3 NOOP", b"3 NOOP"), "the term of entry 1 is not a number"),
        ((3, _Int(3)), (b"3 NOOP", b"3 NOOP"), "the term of entry 1 is not a number"),
        ((1, True), (b"1 NOOP", b"1 NOOP"), "the term of entry 1 is not a number"),
        ((3, -3), (b"3 NOOP", b"-3 NOOP"), "the term of entry 1 is not a number"),
        ((3, MOST + 1), (b"3 NOOP", b"%d NOOP" % (MOST + 1)), "the term of entry 1 is not a number"),
        ((3, 2), (b"3 NOOP", b"2 NOOP"), "the term of entry 1 falls"),
        ((0,), (b"0 NOOP",), "the term of entry 0 falls"),
        ((3, 10), (b"3 NOOP", b"10 NOOP"), "the term of entry 1 is above the leader's"),
        ((3, 3), (b"3 NOOP", b"4 NOOP"), "entry 1 does not begin with its term"),
        ((3, 4), (b"3 APP x", b"3 APP x"), "entry 1 does not begin with its term"),
        ((3, 3), (b"3 APP x", b"4 APP x"), "entry 1 does not begin with its term"),
        ((3, 3), (b"3 NOOP", b"03 NOOP"), "entry 1 does not begin with its term"),
        ((3, 3), (b"3 NOOP", b""), "entry 1 does not begin with its term"),
        ((3, 3), (b"3 NOOP", b"3"), "entry 1 does not begin with its term"),
        ((3, 3), (b"3 NOOP", b"3NOOP"), "entry 1 does not begin with its term"),
        ((3, 3), (b"3 APP x", b"3 APP x\n3 NOOP"), "entry 1 holds a newline"),
        ((3, 3), (b"3 NOOP", b"3 APP x\n"), "entry 1 holds a newline"),
        ((3, 3), (b"3 NOOP", b"3 \nAPP x"), "entry 1 holds a newline"),
        ((3, 3), (b"3 NOOP", b"3 "), "entry 1 has an unknown type"),
        ((3, 3), (b"3 NOOP", b"3 FROB"), "entry 1 has an unknown type"),
        ((3, 3), (b"3 APP x", b"3 APPX x"), "entry 1 has an unknown type"),
        ((3, 3), (b"3 NOOP", b"3  APP"), "entry 1 has an unknown type"),
        ((3, 3), (b"3 NOOP", b"3 " + b"APP" * 40), "entry 1 has an unknown type"),
        ((3, 3), (b"3 NOOP", b"3 noop"), "entry 1 is not in the form in which it is kept"),
        ((3, 3), (b"3 APP x", b"3 APP "), "entry 1 is not in the form in which it is kept"),
        ((3, 3), (b"3 APP x", b"3 app x"), "entry 1 is not in the form in which it is kept"),
    ],
)
def test_entry_lines_that_are_not_sent(wire: ModuleType, terms: Any, lines: Any, reason: str) -> None:
    leader_term = 9
    with pytest.raises(errors.ProtocolError) as caught:
        wire.encode(AppendEntries(ID, leader_term, 5, 1, 5, terms, lines))
    assert reason in str(caught.value)


def test_equal_terms_that_are_different_objects(wire: ModuleType) -> None:
    terms = tuple(int("1000" + digit) for digit in "0011122")
    assert terms[0] is not terms[1]
    lines = tuple(b"%d APP - %d" % (term, term) for term in terms)
    message = AppendEntries(ID, MOST, 0, 0, 0, terms, lines)
    assert wire.decode(wire.encode(message)[8:]) == message


def test_prev_log_term_above_the_term(wire: ModuleType) -> None:
    with pytest.raises(errors.ProtocolError, match="prev_log_term is above term"):
        wire.encode(AppendEntries(ID, 5, 1, 6, 0))


@pytest.mark.parametrize("entry", [b"", b" ", b"FROB x", b"noop", b"NOOP ", b"APP x\n", b" NOOP", b"3 NOOP", b"APP\n"])
def test_entries_that_are_not_forwarded(wire: ModuleType, entry: bytes) -> None:
    for message in (messages.Propose(entry), messages.Reject("rejected", entry)):
        with pytest.raises(errors.ProtocolError, match="entry"):
            wire.encode(message)


def test_a_piece_past_its_total(wire: ModuleType) -> None:
    for offset, total in ((6, 10), (11, 10), (MOST, 10), (0, 4), (MOST, MOST), (MOST - 4, MOST)):
        with pytest.raises(errors.ProtocolError, match="past the total"):
            wire.encode(messages.SnapshotPiece(ID, 3, 2, 1, offset, total, b"12345"))
    edge = messages.SnapshotPiece(ID, 3, 2, 1, MOST - 5, MOST, b"12345")
    assert wire.decode(wire.encode(edge)[8:]) == edge


def test_a_frame_longer_than_its_length_can_say(wire: ModuleType) -> None:
    """512 references to one line of 8 MiB: above 2^32-1 bytes, and refused before a byte of it is copied."""
    line = b"1 APP " + bytes(MAX_ENTRY_BYTES - 6)
    for count in (512, 600):
        with pytest.raises(errors.ProtocolError, match="longer than a frame can be"):
            wire.encode(AppendEntries(ID, 1, 0, 0, 0, (1,) * count, (line,) * count))


def test_no_pairs_are_no_message(wire: ModuleType) -> None:
    with pytest.raises(errors.ProtocolError, match="not pairs"):
        wire.encode(messages.ReplOffsets(()))
