"""What the tests of the codec share: the vectors, strategies for messages that can be sent, and mutated frames.

Nothing here is a test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from raftfast import messages
from raftfast.messages import ENTRY_TYPES

_VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "wire.json").read_text())
VALID: list[dict[str, Any]] = _VECTORS["valid"]
INVALID: list[dict[str, Any]] = _VECTORS["invalid"]

ID = "a1" * 20
OTHER_ID = "b2" * 20
MOST = (1 << 64) - 1


def framed(payload: bytes) -> bytes:
    return b"RAFT" + (len(payload) + 8).to_bytes(4, "big") + payload


def message_of(vector: dict[str, Any]) -> messages.Message:
    """The message that a valid vector describes."""
    values = {}
    for name, value in vector["fields"].items():
        values[name.removesuffix("_hex")] = _value(name, value)
    made = getattr(messages, vector["message"])(**values)
    assert isinstance(made, messages.Message)
    return made


def _value(name: str, value: Any) -> Any:
    if name.endswith("_hex"):
        return tuple(map(bytes.fromhex, value)) if isinstance(value, list) else bytes.fromhex(value)
    if name == "lines":
        return tuple(line.encode("latin-1") for line in value)
    if name in ("entry", "data"):
        return value.encode("latin-1")
    return tuple(map(tuple, value)) if name == "offsets" else value


# Strategies. Numbers lean to the edges of what a token can hold.

numbers = st.one_of(st.integers(0, MOST), st.sampled_from([0, 9, 10, 1 << 32, 1 << 63, MOST - 1, MOST]))
signed_numbers = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([-(1 << 63), -1, 0, (1 << 63) - 1]))
ids = st.text(alphabet="0123456789abcdefghijklmnopqrstuvwxyz", min_size=40, max_size=40)
clusters = st.one_of(st.none(), st.sampled_from(["joining", "-"]), ids)
addresses = (
    st.binary(min_size=1, max_size=60)
    .map(lambda raw: bytes(byte for byte in raw if byte > 0x20 and byte != 0x7F) or b"x")
    .map(lambda raw: raw.decode("utf-8", "surrogateescape"))
    .flatmap(lambda rest: st.sampled_from(["", "10.0.0.1", "2001:db8::1"]).map(lambda ip: f"{ip}:7000@17000,{rest}"))
)
_data = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"\\n"))
_STRAY = bytes(range(0x21)) + b"\"'"
_token = st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, _STRAY) or b"x")
_tokens = st.lists(_token, max_size=5).map(b" ".join)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    """`<TYPE>[ <data>]`, as kept: APP's data is any bytes, that of the others is tokens."""
    kind = draw(st.sampled_from(sorted(ENTRY_TYPES)) | st.just(b"APP"))
    data = draw(_data if kind == b"APP" else _tokens)
    return kind + b" " + data if data else kind


@st.composite
def append_entries(draw: st.DrawFn) -> messages.AppendEntries:
    """Terms that rise from prev_log_term to term, often in runs."""
    count = draw(st.integers(0, 12))
    steps = sorted(draw(st.lists(numbers, min_size=2, max_size=4)))
    terms = tuple(sorted(draw(st.lists(st.sampled_from(steps), min_size=count, max_size=count))))
    lines = tuple(b"%d " % term + draw(entries()) for term in terms)
    return messages.AppendEntries(
        draw(ids), steps[-1], draw(numbers), steps[0], draw(numbers), terms, lines, draw(st.none() | numbers)
    )


@st.composite
def snapshot_pieces(draw: st.DrawFn) -> messages.SnapshotPiece:
    data = draw(st.binary(max_size=40))
    total = draw(st.one_of(st.integers(len(data), MOST), st.just(len(data)), st.just(MOST)))
    offset = draw(st.integers(0, total - len(data)))
    return messages.SnapshotPiece(draw(ids), draw(numbers), draw(numbers), draw(numbers), offset, total, data)


_raw = st.binary(max_size=60)

sendable: st.SearchStrategy[messages.Message] = st.one_of(
    append_entries(),
    snapshot_pieces(),
    st.builds(messages.Hello, ids, addresses, clusters),
    st.builds(messages.Hi, ids, addresses, clusters),
    st.builds(messages.Meet, st.sampled_from(["singleton", "cluster"])),
    st.sampled_from([messages.AddMe(), messages.Welcome(), messages.MeetRejected(), messages.FailoverPrepare()]),
    st.builds(messages.Removed, numbers),
    st.builds(messages.AppendEntriesAck, numbers, st.booleans(), numbers, signed_numbers, st.none() | numbers),
    st.builds(messages.PreVoteRequest, ids, numbers, numbers, numbers),
    st.builds(messages.PreVote, numbers, st.booleans()),
    st.builds(messages.VoteRequest, ids, numbers, numbers, numbers, st.booleans()),
    st.builds(messages.Vote, numbers, st.booleans()),
    st.builds(messages.InstallSnapshot, ids, numbers, numbers, numbers, _raw),
    st.builds(messages.SnapshotAck, numbers, numbers, numbers),
    st.builds(messages.Propose, entries()),
    st.builds(messages.Reject, st.sampled_from(["conflict", "rejected"]), entries()),
    st.builds(messages.ReadIndex, numbers),
    st.builds(messages.ReadIndexOk, numbers, numbers),
    st.builds(messages.ReadIndexNo, numbers),
    st.builds(messages.TransferLeader, numbers),
    st.builds(messages.TimeoutNow, numbers),
    st.builds(
        messages.ReplOffsets, st.lists(st.tuples(ids, signed_numbers), min_size=1, max_size=5).map(lambda o: tuple(o))
    ),
    st.builds(messages.Publish, st.booleans(), _raw, _raw),
    st.builds(messages.Module, numbers, st.integers(0, 255), _raw),
)

_SPLICES = [
    b" ",
    b"  ",
    b"\n",
    b"\n\n",
    b"0",
    b"-",
    b"-0",
    b"+1",
    b"00",
    b"_",
    b"1 app x",
    b"1 NOOP ",
    b"noop",
    b"\x00",
]
_SPLICES += [
    b" 18446744073709551615",
    b" 18446744073709551616",
    b" 4294967297",
    b"\xd9\xa3",
    b"\r",
    b" 1",
    b"APP",
    b"a",
]


@st.composite
def mutated_payloads(draw: st.DrawFn, encode: Any) -> bytes:
    """A payload that was good before a few bytes were cut, changed, doubled or put in."""
    payload = bytearray(encode(draw(sendable))[8:])
    for _ in range(draw(st.integers(1, 4))):
        at, to = sorted((draw(st.integers(0, len(payload))), draw(st.integers(0, len(payload)))))
        change = draw(st.sampled_from(["cut", "byte", "double", "splice", "case"]))
        if change == "cut":
            del payload[at : min(to, at + 8)]
        elif change == "byte" and at < len(payload):
            payload[at] = draw(st.integers(0, 255))
        elif change == "double":
            payload[at:at] = payload[at : min(to, at + 60)]
        elif change == "splice":
            payload[at:at] = draw(st.sampled_from(_SPLICES))
        elif change == "case":
            payload[at:to] = payload[at:to].swapcase()
    return bytes(payload)
