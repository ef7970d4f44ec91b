"""What links count, and how often their faults are logged. No socket, no clock."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftfast.messages import Hello, Message, Module, Publish, Unknown, Welcome
from raftfast.net.stats import _MAX_PEERS, FaultLog, LinkStats


def test_counts_are_by_message_and_payloads_by_direction() -> None:
    stats = LinkStats()
    stats.received([Welcome(), Publish(False, b"ch", b"hello"), Welcome(), Unknown("WHAT")])
    stats.received([Welcome()])
    stats.sent([Module(1, 2, b"abc"), Publish(True, b"", b"x"), Module(1, 2, b"")])
    assert stats.messages_in == {Welcome: 3, Publish: 1, Unknown: 1}
    assert stats.messages_out == {Module: 2, Publish: 1}
    assert (stats.publish_bytes_in, stats.publish_bytes_out) == (7, 1)
    assert (stats.module_bytes_in, stats.module_bytes_out) == (0, 3)
    counters = stats.counters()
    assert counters["messages_in"] == 5
    assert counters["messages_in_Welcome"] == 3
    assert counters["messages_out_Module"] == 2
    assert counters["module_bytes_out"] == 3
    assert all(isinstance(number, int) for number in counters.values())


@given(st.lists(st.lists(st.sampled_from([Welcome(), Module(0, 0, b"xy"), Hello("a" * 40, "h:1@2")]))))
def test_batches_count_as_their_messages_do(batches: list[list[Message]]) -> None:
    together, apart = LinkStats(), LinkStats()
    for batch in batches:
        together.received(batch)
        for message in batch:
            apart.received([message])
    assert together.counters() == apart.counters()


def test_faults_are_logged_once_an_interval_a_peer_and_the_rest_counted(caplog: pytest.LogCaptureFixture) -> None:
    faults = FaultLog()
    with caplog.at_level(logging.WARNING, logger="raftfast.net"):
        said = [faults.warn(peer, "bad", now) for peer, now in [("a", 0.0), ("a", 0.5), ("b", 0.5), ("a", 0.9)]]
        assert said == [True, False, True, False]
        assert faults.warn("a", "worse", 1.0)
        assert faults.warn("a", "worst", 2.0)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["a: bad", "b: bad", "a: worse (2 more since the last line)", "a: worst"]


def test_what_a_peer_sent_can_not_break_the_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="raftfast.net"):
        FaultLog().warn("", "verb \x1b[2J\nforged: line", 0.0)
    assert [record.getMessage() for record in caplog.records] == [
        "unknown address: 'verb \\x1b[2J\\nforged: line'",
    ]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 2)), max_size=50), st.integers(1, 3000))
def test_made_up_peers_cost_bounded_memory_and_never_log_twice(steps: list[tuple[int, float]], flood: int) -> None:
    faults, now, last = FaultLog(), 0.0, dict[str, float]()
    logging.getLogger("raftfast.net").disabled = True
    try:
        for peer, pause in [*steps, *((number, 0.0) for number in range(flood)), *steps]:
            now += pause
            name = str(peer)
            if faults.warn(name, "bad", now):
                assert now - last.get(name, -10.0) >= 1.0
                last[name] = now
            assert len(faults._said) <= _MAX_PEERS
    finally:
        logging.getLogger("raftfast.net").disabled = False


def test_a_full_memory_makes_room_again() -> None:
    faults = FaultLog()
    for number in range(_MAX_PEERS):
        assert faults.warn(str(number), "bad", 0.0)
        faults.warn(str(number), "bad", 0.1)
    assert not faults.warn("one more", "bad", 0.5)
    assert faults.warn("one more", "bad", 1.0)
