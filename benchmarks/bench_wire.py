"""The codec, compiled (`c`) against pure (`py`): `pytest benchmarks/bench_wire.py`.

Each group is one whole-message verb; read the ratio of its two rows, not their absolute times. Targets: decode of an
AppendEntries 8 times, encode 6 times, a stream of mixed messages 6 times.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from cases import MIXED, append_entries
from raftfast import messages


@pytest.fixture(params=["c", "py"])
def wire(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"raftfast.hot.wire_{request.param}")


CHUNK = 64 << 10


@pytest.mark.benchmark(group="decode AE 100 x 64")
def test_decode_append_entries(benchmark: Any, wire: ModuleType) -> None:
    message = append_entries(100)
    payload = wire.encode(message)[8:]
    assert benchmark(wire.decode, payload) == message


@pytest.mark.benchmark(group="encode AE 100 x 64")
def test_encode_append_entries(benchmark: Any, wire: ModuleType) -> None:
    message = append_entries(100)
    assert benchmark(wire.encode, message)[8:10] == b"AE"


@pytest.mark.benchmark(group="decode AE 4 x 8192")
def test_decode_few_long_entries(benchmark: Any, wire: ModuleType) -> None:
    message = append_entries(4, data_bytes=8192)
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
