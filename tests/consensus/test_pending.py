"""The table of own proposals against a plain list: order, identity, sizes, expiry."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raftfast.consensus import Pending, Proposal

KEYS = st.sampled_from([b"a", b"b", b"c"])


class PendingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pending = Pending()
        self.naive: list[Proposal] = []
        self.now = 0.0
        self.made = 0

    @rule(key=KEYS, size=st.integers(0, 5), wait=st.floats(0, 2))
    def add(self, key: bytes, size: int, wait: float) -> None:
        self.now += wait
        self.made += 1
        proposal = Proposal(key, b"x" * size, self.made, self.now + 10)
        self.pending.add(proposal)
        self.naive.append(proposal)

    @rule(key=KEYS)
    def pop(self, key: bytes) -> None:
        oldest = next((proposal for proposal in self.naive if proposal.key == key), None)
        assert self.pending.pop(key) is oldest
        if oldest is not None:
            self.naive.remove(oldest)

    @rule(place=st.integers(0, 9))
    def discard(self, place: int) -> None:
        if place < len(self.naive):
            assert self.pending.discard(self.naive.pop(place))

    @rule(key=KEYS)
    def discard_of_another_is_refused(self, key: bytes) -> None:
        assert not self.pending.discard(Proposal(key, b"", None, 0.0))

    @rule(wait=st.floats(0, 12))
    def expire(self, wait: float) -> None:
        self.now += wait
        late = [proposal for proposal in self.naive if proposal.deadline <= self.now]
        assert self.pending.expired(self.now) == late
        self.naive = [proposal for proposal in self.naive if proposal not in late]

    @rule()
    def drain(self) -> None:
        assert self.pending.drain() == self.naive
        self.naive = []

    @invariant()
    def the_two_agree(self) -> None:
        assert list(self.pending) == self.naive
        assert len(self.pending) == len(self.naive)
        assert self.pending.nbytes == sum(len(proposal.entry) for proposal in self.naive)
        for key in (b"a", b"b", b"c"):
            assert self.pending.has(key) == any(proposal.key == key for proposal in self.naive)


TestPending: Any = PendingMachine.TestCase


def test_two_equal_commands_under_two_identities_never_share_an_answer() -> None:
    pending = Pending()
    first, second = Proposal(b"c:1", b"APP c:1 x", "first", 1.0), Proposal(b"c:2", b"APP c:2 x", "second", 1.0)
    pending.add(first)
    pending.add(second)
    assert pending.pop(b"c:2") is second
    assert pending.pop(b"c:2") is None
    assert pending.pop(b"c:1") is first
