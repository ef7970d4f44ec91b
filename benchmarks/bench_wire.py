"""The codec, compiled (`c`) against pure (`py`): `pytest benchmarks/bench_wire.py`.

Each group is one whole-message verb; read the ratio of its two rows, not their absolute times. Targets: decode of an
AppendEntries 8 times, encode 6 times, a stream of mixed messages 6 times.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from raftfast import messages

ID = "a1" * 20
CLIENT = b"c3" * 20


@pytest.fixture(params=["c", "py"])
def wire(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"raftfast.hot.wire_{request.param}")


def _append_entries(count: int, data_bytes: int = 64, kind: bytes = b"APP") -> messages.AppendEntries:
    """Lines of `data_bytes` data each, in one term, as a leader under load sends them."""
    term = 7
    lines = tuple(
        (b"%d %b %b:%d " % (term, kind, CLIENT, 100_000 + i)).ljust(data_bytes + 6, b"x") for i in range(count)
    )
    return messages.AppendEntries(ID, term, 100_000, term, 99_990, (term,) * count, lines, 77)


MIXED: list[messages.Message] = [
    _append_entries(0),
    _append_entries(1),
    _append_entries(4),
    messages.AppendEntriesAck(7, True, 100_000, 0, 77),
    messages.AppendEntriesAck(7, True, 100_004, 0, 78),
    messages.AppendEntriesAck(7, False, 99_000, 0, 79),
    messages.Propose(b"APP " + CLIENT + b":123 " + b"x" * 64),
    messages.ReadIndex(123_456),
    messages.ReadIndexOk(123_456, 100_004),
    messages.VoteRequest(ID, 8, 100_004, 7),
]
CHUNK = 64 << 10


@pytest.mark.benchmark(group="decode AE 100 x 64")
def test_decode_append_entries(benchmark: Any, wire: ModuleType) -> None:
    message = _append_entries(100)
    payload = wire.encode(message)[8:]
    assert benchmark(wire.decode, payload) == message


@pytest.mark.benchmark(group="encode AE 100 x 64")
def test_encode_append_entries(benchmark: Any, wire: ModuleType) -> None:
    message = _append_entries(100)
    assert benchmark(wire.encode, message)[8:10] == b"AE"


@pytest.mark.benchmark(group="decode AE 4 x 8192")
def test_decode_few_long_entries(benchmark: Any, wire: ModuleType) -> None:
    message = _append_entries(4, data_bytes=8192)
    payload = wire.encode(message)[8:]
    assert benchmark(wire.decode, payload) == message


@pytest.mark.benchmark(group="encode 10 mixed messages")
def test_encode_mixed(benchmark: Any, wire: ModuleType) -> None:
    assert len(benchmark(lambda: [wire.encode(message) for message in MIXED])) == len(MIXED)


@pytest.mark.benchmark(group="feed a stream of 10,000 mixed messages, 64 KiB at a time")
def test_feed_mixed(benchmark: Any, wire: ModuleType) -> None:
    stream = b"".join(map(wire.encode, MIXED)) * 1000

    def feed() -> int:
        decoder, count = wire.FrameDecoder(), 0
        for at in range(0, len(stream), CHUNK):
            count += len(decoder.feed(stream[at : at + CHUNK]))
        return count

    assert benchmark(feed) == 1000 * len(MIXED)


@pytest.mark.benchmark(group="feed a frame of 8 MiB, 64 KiB at a time")
def test_feed_long_frame(benchmark: Any, wire: ModuleType) -> None:
    frame = wire.encode(messages.Module(1, 2, bytes(8 << 20)))

    def feed() -> int:
        decoder, count = wire.FrameDecoder(), 0
        for at in range(0, len(frame), CHUNK):
            count += len(decoder.feed(frame[at : at + CHUNK]))
        return count

    assert benchmark(feed) == 1
