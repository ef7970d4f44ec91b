"""FrameDecoder's twins and a naive model, driven side by side by hypothesis: a stream cut anywhere, fed as any buffer.

The model knows what was sent and counts bytes; it never reads a frame. A failure prints the calls that led to it.
"""

from __future__ import annotations

import array
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wire_cases import INVALID, sendable

from raftfast import messages
from raftfast.errors import ProtocolError
from raftfast.hot import wire_py
from twins import IMPLEMENTATIONS, leaf

BAD_FRAMES = [bytes.fromhex(vector["frame"]) for vector in INVALID]
WRAPS: dict[str, Any] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "a view of a part": lambda data: memoryview(b"RAFT" + data + b"RAFT")[4 : 4 + len(data)],
    "array": lambda data: array.array("B", data),
}


class Decoders(RuleBasedStateMachine):
    @initialize(max_frame=st.sampled_from([16 << 20, 16 << 20, 200, (1 << 32) - 1]))
    def begin(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self.decoders = [leaf(impl, "wire").FrameDecoder(max_frame) for impl in IMPLEMENTATIONS]
        self.stream = b""  # sent and not fed yet
        self.sent = 0  # bytes, in all
        self.ends: list[tuple[int, messages.Message]] = []  # where each message that will come out ends in the stream
        self.fed = 0
        self.whole = 0  # bytes of the messages that came out
        self.faulty = False  # something in the stream can't be read: from then on the twins' words are compared
        self.dead = False

    def _send(self, frame: bytes) -> None:
        self.stream += frame
        self.sent += len(frame)

    @rule(message=sendable)
    def send(self, message: messages.Message) -> None:
        frame = wire_py.encode(message)
        self._send(frame)
        if len(frame) > self.max_frame:
            self.faulty = True
        elif not self.faulty:
            self.ends.append((self.sent, message))

    @rule(rest=st.binary(max_size=80).map(lambda raw: raw.translate(None, b" \n")))
    def send_unknown(self, rest: bytes) -> None:
        verb = b"?" + rest  # no known one begins so
        frame = b"RAFT" + (8 + len(verb) + 2).to_bytes(4, "big") + verb + b" x"
        self._send(frame)
        if not self.faulty:
            self.ends.append((self.sent, messages.Unknown(verb[:64].decode("utf-8", "surrogateescape"))))

    @precondition(lambda self: len(self.ends) > 2)
    @rule(frame=st.sampled_from(BAD_FRAMES))
    def send_what_cannot_be_read(self, frame: bytes) -> None:
        self._send(frame)
        self.faulty = True

    @rule(
        size=st.one_of(st.integers(0, 12), st.integers(0, 3000), st.just(1 << 20)), wrap=st.sampled_from(sorted(WRAPS))
    )
    def feed(self, size: int, wrap: str) -> None:
        size = min(size, len(self.stream))
        piece, self.stream = self.stream[:size], self.stream[size:]
        self.fed += size
        outcomes = [self._fed(decoder, WRAPS[wrap](piece)) for decoder in self.decoders]
        assert outcomes[1:] == outcomes[:-1]
        due = [each for each in self.ends if each[0] <= self.fed]
        self.ends = self.ends[len(due) :]
        if self.dead:
            assert isinstance(outcomes[0], tuple)
            return
        if isinstance(outcomes[0], tuple):
            assert self.faulty
            self.dead = True
            assert outcomes[0][2] == tuple(message for _, message in due)
        else:
            assert outcomes[0] == [message for _, message in due]
            self.whole = due[-1][0] if due else self.whole

    def _fed(self, decoder: Any, piece: Any) -> Any:
        try:
            given = decoder.feed(piece)
        except ProtocolError as error:
            return type(error), str(error), error.messages
        if isinstance(piece, bytearray):
            piece[:] = b"\xff" * len(piece)  # the caller's again
        return given

    @rule(wrong=st.sampled_from([None, 5, "RAFT", [b"R"], memoryview(bytes(8))[::2]]))
    def feed_no_buffer(self, wrong: Any) -> None:
        for decoder in self.decoders:
            with pytest.raises(ProtocolError if self.dead else TypeError):
                decoder.feed(wrong)

    @rule(wrong=st.sampled_from([None, 7, 1 << 32, 8.0, True]))
    def begin_again_wrongly(self, wrong: Any) -> None:
        """A refused __init__ has changed nothing."""
        for decoder in self.decoders:
            with pytest.raises((TypeError, ValueError)):
                decoder.__init__(wrong)

    @invariant()
    def kept(self) -> None:
        if not hasattr(self, "decoders"):
            return
        kept = {decoder.buffered for decoder in self.decoders}
        assert len(kept) == 1
        if self.dead:
            assert kept == {0}
        elif not self.faulty:
            assert kept == {self.fed - self.whole}


TestDecoders = Decoders.TestCase
TestDecoders.settings = settings(max_examples=120, stateful_step_count=30, deadline=None, print_blob=True)
