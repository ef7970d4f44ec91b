"""What reading the loop and the sessions against PROTOCOL found: nobody is left waiting, and no error says too much."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftfast import Config, Node
from raftfast.errors import Busy, Expired, NodeClosed, RaftError, Rejected
from raftfast.hot import nodesconf
from raftfast.session import Session


def test_answers_of_a_turn_that_fails_reach_who_waits(tmp_path: Path) -> None:
    """The turn that ends the node had answers of its own: they were taken from the member, and must not be lost."""

    async def run() -> None:
        node = Node(tmp_path / "n", bus_port=0, config=Config(node_timeout=1.0))
        await node.start()
        engine = node._engine
        assert engine is not None

        def broken(orders: Any) -> None:
            raise RuntimeError("a fault of ours")

        engine._send = broken  # type: ignore[method-assign]
        await asyncio.wait_for(node.barrier(), 120)
        assert engine.failed.done()
        await node.close()

    asyncio.run(run())


class Script:
    """An engine whose member meets each attempt with the next outcome: an error at once, or what the future gets."""

    def __init__(self, *outcomes: tuple[str, Exception | bytes]) -> None:
        self.outcomes = deque(outcomes)
        self.loop = asyncio.get_running_loop()
        self.room = asyncio.Event()
        self.room.set()
        self.member = SimpleNamespace(propose_in_session=self.attempt)
        self.sequences: list[int] = []

    def attempt(self, client: Any, sequence: int, command: bytes, future: asyncio.Future[Any], now: float) -> None:
        self.sequences.append(sequence)
        when, outcome = self.outcomes.popleft()
        if when == "at once":
            raise outcome  # type: ignore[misc]
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def schedule(self) -> None:
        pass


@pytest.mark.parametrize("error", [NodeClosed("closed"), Rejected("forgotten")])
def test_an_error_after_a_copy_was_sent_says_that_the_command_may_take_effect(error: RaftError) -> None:
    """PROTOCOL 6.1: the first copy expired, so it may be in the log; that the second was not taken proves nothing."""

    async def run() -> None:
        engine = Script(("later", Expired("late")), ("at once", error))
        session = Session(lambda: engine, 8, "a" * 40)  # type: ignore[arg-type, return-value]
        with pytest.raises(type(error)) as raised:
            await session.propose(b"x")
        assert raised.value.may_take_effect
        engine = Script(("at once", type(error)("at once")))
        session = Session(lambda: engine, 8, "a" * 40)  # type: ignore[arg-type, return-value]
        with pytest.raises(type(error)) as raised:
            await session.propose(b"x")
        assert not raised.value.may_take_effect

    asyncio.run(run())


def test_busy_is_only_said_of_a_command_that_was_never_sent() -> None:
    async def run() -> None:
        engine = Script(("later", Expired("late")), ("at once", Busy("full")), ("later", b"done"))
        session = Session(lambda: engine, 8, "a" * 40)  # type: ignore[arg-type, return-value]
        assert await session.propose(b"x") == b"done"
        assert engine.sequences == [1, 1, 1]
        engine = Script(("at once", Busy("full")))
        with pytest.raises(Busy):
            await session.propose(b"x")

    asyncio.run(run())


def test_a_newer_servers_vars_are_written_back_by_every_rewrite(tmp_path: Path) -> None:
    """NODESCONF A: an unknown name in `vars` is kept and written back, by a change and by a stop."""

    async def start_and_stop(change: bool) -> None:
        async with Node(tmp_path / "n", bus_port=0, config=Config(node_timeout=1.0)) as node:
            if change:
                await node.add_slots([1, 2])

    file = tmp_path / "n" / "nodes.conf"
    asyncio.run(start_and_stop(False))
    conf = nodesconf.parse(file.read_bytes())
    file.write_bytes(nodesconf.dump(replace(conf, vars={**conf.vars, "futureThing": "abc"})))
    asyncio.run(start_and_stop(True))
    conf = nodesconf.parse(file.read_bytes())
    assert conf.vars["futureThing"] == "abc"
    assert conf.nodes[0].slots == ((1, 2),)
