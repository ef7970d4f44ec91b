"""The compiled codec and the pure one are one codec: the same surface, the same results, the same words."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_cases import INVALID, framed, mutated_payloads, sendable

from raftfast import messages
from raftfast.hot import wire_py
from twins import IMPLEMENTATIONS, leaf

if "c" not in IMPLEMENTATIONS:
    pytest.skip("RAFTFAST_PURE_TESTS: one twin only", allow_module_level=True)
wire_c: Any = leaf("c", "wire")
TWINS = (wire_c, wire_py)


def _outcome(call: Any, *arguments: Any) -> Any:
    """What a call gives, or the type and the words of what it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), str(error), getattr(error, "messages", None)


def _same(call: Any) -> Any:
    compiled, pure = (_outcome(call, twin) for twin in TWINS)
    assert compiled == pure
    return pure


def _feed(twin: Any, pieces: list[bytes], max_frame: int = 16 << 20) -> list[Any]:
    decoder = twin.FrameDecoder(max_frame)
    return [(_outcome(decoder.feed, piece), decoder.buffered) for piece in pieces]


# The surface.


def test_the_same_names() -> None:
    assert wire_c.__all__ == wire_py.__all__ == sorted(wire_py.__all__, key=_case_groups)
    for name in wire_py.__all__:
        compiled, pure = getattr(wire_c, name), getattr(wire_py, name)
        if name not in ("FrameDecoder", "decode", "encode"):
            assert compiled is pure or compiled == pure == wire_py.MAX_FRAME
    public = [name for name in dir(wire_py.FrameDecoder) if not name.startswith("_")]
    assert [name for name in dir(wire_c.FrameDecoder) if not name.startswith("_")] == public == ["buffered", "feed"]


def _case_groups(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_every_message_class_is_there() -> None:
    classes = {name for name, value in vars(messages).items() if inspect.isclass(value)}
    classes = {name for name in classes if issubclass(getattr(messages, name), messages.Message)}
    assert len(classes) == 29
    assert classes <= set(wire_py.__all__)


@pytest.mark.parametrize("name", ["decode", "encode", "FrameDecoder", "FrameDecoder.feed"])
def test_the_same_signature_and_docstring(name: str) -> None:
    compiled, pure = (_walk(twin, name) for twin in TWINS)
    shapes = [
        [(p.name, p.kind, p.default) for p in inspect.signature(twin).parameters.values()] for twin in (compiled, pure)
    ]
    assert shapes[0] == shapes[1]
    assert inspect.getdoc(compiled) == inspect.getdoc(pure)
    assert wire_c.FrameDecoder.buffered.__doc__ == wire_py.FrameDecoder.buffered.__doc__
    assert compiled.__name__ == pure.__name__


def _walk(twin: Any, name: str) -> Any:
    for part in name.split("."):
        twin = getattr(twin, part)
    return twin


def test_instances_are_sealed() -> None:
    for twin in TWINS:
        decoder = twin.FrameDecoder()
        with pytest.raises(AttributeError):
            decoder.extra = 1
        with pytest.raises(AttributeError):
            decoder.buffered = 1


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda way: way.__name__)
def test_a_decoder_is_not_copied(way: Any) -> None:
    """Two of them with the same kept bytes would resize them under each other."""
    outcome = _same(lambda twin: way(twin.FrameDecoder()))
    assert outcome[:2] == (TypeError, "a FrameDecoder can't be pickled or copied")
    assert [name for name in dir(wire_c) if "unpickle" in name] == []


def test_a_decoder_made_without_init_reads_no_foreign_memory() -> None:
    decoder = wire_c.FrameDecoder.__new__(wire_c.FrameDecoder)
    assert decoder.buffered == 0
    frame = wire_py.encode(messages.Welcome())
    assert [decoder.feed(frame[:9]), decoder.feed(frame[9:])] == [[], [messages.Welcome()]]


# Wrong arguments.

WRONG = [None, True, 5, -1, 1.0, "RAFT", [b"x"], object, memoryview(bytes(8))[::2], memoryview(bytes(8))[::-1]]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_wrong_arguments_raise_the_same(wrong: Any) -> None:
    for call in (
        lambda twin: twin.decode(wrong),
        lambda twin: twin.encode(wrong),
        lambda twin: twin.FrameDecoder().feed(wrong),
    ):
        outcome = _same(call)
        assert outcome[0] is TypeError
    _same(lambda twin: type(twin.FrameDecoder(wrong)).__name__)


@pytest.mark.parametrize("number", [-(1 << 70), -1, 0, 7, 8, (1 << 32) - 1, 1 << 32, 1 << 63, 1 << 70, 8.0, "8", True])
def test_max_frame_raises_the_same(number: Any) -> None:
    _same(lambda twin: type(twin.FrameDecoder(number)).__name__)
    _same(lambda twin: type(twin.FrameDecoder(max_frame=number)).__name__)


def test_released_buffers_raise_the_same() -> None:
    view = memoryview(b"RAFT")
    view.release()
    assert _same(lambda twin: twin.decode(view))[0] is ValueError
    assert _same(lambda twin: twin.FrameDecoder().feed(view))[0] is ValueError


# The same result for the same bytes.


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["name"])
def test_invalid_vectors_give_the_same_words(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    good = wire_py.encode(messages.Welcome())
    for data in (frame, good + frame + good):
        assert _same(lambda twin, data=data: twin.FrameDecoder().feed(data))[0] is wire_py.ProtocolError
        _same(lambda twin, data=data: _feed(twin, [data[at : at + 1] for at in range(len(data))]))


@settings(deadline=None, max_examples=200, print_blob=True)
@given(sendable)
def test_the_same_frames(message: messages.Message) -> None:
    frame = _same(lambda twin: twin.encode(message))
    assert wire_c.decode(wire_py.encode(message)[8:]) == wire_py.decode(wire_c.encode(message)[8:]) == message
    for at in range(len(frame)):
        _same(lambda twin, at=at: twin.decode(frame[8:at]))


@settings(deadline=None, max_examples=1000, print_blob=True)
@given(mutated_payloads(wire_py.encode))
def test_mutated_payloads(payload: bytes) -> None:
    _same(lambda twin: twin.decode(payload))


@settings(deadline=None, max_examples=300, print_blob=True)
@given(st.lists(mutated_payloads(wire_py.encode), max_size=4), st.lists(st.integers(0, 150), max_size=8), st.data())
def test_mutated_streams(payloads: list[bytes], cuts: list[int], data: st.DataObject) -> None:
    stream = bytearray(b"".join(map(framed, payloads)))
    if stream and data.draw(st.booleans()):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    pieces, at = [], 0
    for size in cuts:
        pieces.append(bytes(stream[at : at + size]))
        at += size
    pieces += [bytes(stream[at:]), b"", b"RAFT"]
    max_frame = data.draw(st.sampled_from([16 << 20, 8, 64, 150]))
    _same(lambda twin: _feed(twin, pieces, max_frame))


_VALUES = [None, True, False, 0, 1, -1, 255, 256, 1 << 64, -(1 << 63), 1.0, "", "-", "a1" * 20, "singleton", "conflict"]
_VALUES += [
    "\ud800",
    "é",
    b"",
    b"NOOP",
    b"app x",
    b"APP x\n",
    bytearray(b"NOOP"),
    (),
    (3,),
    (b"3 NOOP",),
    (b"3 app",),
    [],
]


@settings(deadline=None, max_examples=1000, print_blob=True)
@given(sendable, st.data())
def test_messages_with_one_wrong_field(message: messages.Message, data: st.DataObject) -> None:
    names = message.__slots__
    if not names:
        return
    copy = wire_py.decode(wire_py.encode(message)[8:])
    object.__setattr__(copy, data.draw(st.sampled_from(names)), data.draw(st.sampled_from(_VALUES)))
    _same(lambda twin: twin.encode(copy))


@settings(deadline=None, max_examples=500, print_blob=True)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 300, (1 << 64) - 1, 1 << 64, -1, True, 2.0]), max_size=5),
    st.lists(
        st.sampled_from(
            [
                b"",
                b"1 NOOP",
                b"1 noop",
                b"1 APP x",
                b"2 APP x",
                b"2 APP ",
                b"2 APP y",
                b"300 APP z",
                b"2 APP\n",
                b"1 APP x\n",
            ]
        ),
        max_size=5,
    ),
    st.sampled_from([0, 2, 3, 300, (1 << 64) - 1]),
)
def test_entry_lines_and_terms(terms: list[Any], lines: list[bytes], term: int) -> None:
    terms = (terms * 5)[: len(lines)] if terms else terms
    _same(lambda twin: twin.encode(messages.AppendEntries("a1" * 20, term, 5, 0, 5, tuple(terms), tuple(lines))))
