"""Whole nodes in one process, on loopback and a real folder: durable commands and linearizable reads.

One event loop drives all nodes of a benchmark, so three nodes share one core with their caller, and every command is
synced to each node's file. Run: pytest benchmarks/bench_node.py. How the figures were taken belongs beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
import uvloop

from raftfast import Config, Node, StateMachine

HOST = "127.0.0.1"
COMMAND = b"x" * 64
OUTSTANDING = 1024
CONFIG = Config(node_timeout=5.0)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Total(StateMachine):
    """The least a state machine can do: what is measured is the way to it."""

    def __init__(self) -> None:
        self.commands = 0

    def apply(self, index: int, command: bytes) -> bytes | None:
        self.commands += 1
        return None

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % self.commands]

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.commands = int(b"".join(pieces) or b"0")


class Site:
    """A cluster on an event loop of its own, which runs only while something is measured."""

    def __init__(self, folder, loop_name, count):
        self.runner = asyncio.Runner(loop_factory=LOOPS[loop_name])
        self.nodes = [
            Node(folder / f"{n}", port=7000 + n, bus_port=0, state_machine=Total(), config=CONFIG) for n in range(count)
        ]
        self.runner.run(self._form())
        self.leader = self.nodes[0]

    async def _form(self):
        for node in self.nodes:
            await node.start()
        for other in self.nodes[1:]:
            await self.nodes[0].meet(HOST, other.port, other.bus_port)
        await self.nodes[0].propose(COMMAND)
        async with asyncio.timeout(60):
            while any(node.cluster.size < len(self.nodes) for node in self.nodes):
                await self.nodes[0]._engine.turned.wait()

    def run(self, work):
        return self.runner.run(work)

    def close(self):
        self.run(self._close())
        self.runner.close()

    async def _close(self):
        for node in reversed(self.nodes):
            await node.close()


@pytest.fixture(params=[(1, "asyncio"), (1, "uvloop"), (3, "asyncio"), (3, "uvloop")], ids=lambda p: f"{p[0]}-{p[1]}")
def site(request, tmp_path):
    count, loop_name = request.param
    made = Site(tmp_path, loop_name, count)
    yield made
    made.close()


@pytest.mark.benchmark(group="node: 4,096 commands of 64 bytes, 1,024 outstanding")
def test_commands_1024_outstanding(benchmark, site):
    """As many callers as are outstanding, each with its next command as soon as the last one is answered."""
    total = 4 * OUTSTANDING

    async def work():
        submit, done, left = site.leader.submit, asyncio.Event(), total - OUTSTANDING
        answered = 0

        def answer(future):
            nonlocal answered, left
            future.result()
            answered += 1
            if left:
                left -= 1
                submit(COMMAND).add_done_callback(answer)
            elif answered == total:
                done.set()

        for _ in range(OUTSTANDING):
            submit(COMMAND).add_done_callback(answer)
        await done.wait()

    benchmark.pedantic(lambda: site.run(work()), rounds=10, warmup_rounds=1)
    benchmark.extra_info["commands_a_second"] = _rate(benchmark, total)


@pytest.mark.benchmark(group="node: propose_many of 1,024 commands of 64 bytes")
def test_propose_many(benchmark, site):
    commands = [COMMAND] * OUTSTANDING

    async def work():
        assert len(await site.leader.propose_many(commands)) == OUTSTANDING

    benchmark.pedantic(lambda: site.run(work()), rounds=20, warmup_rounds=1)
    benchmark.extra_info["commands_a_second"] = _rate(benchmark, OUTSTANDING)


@pytest.mark.benchmark(group="node: 100 commands of 64 bytes, one outstanding")
def test_commands_one_outstanding(benchmark, site):
    async def work():
        for _ in range(100):
            await site.leader.propose(COMMAND)

    benchmark.pedantic(lambda: site.run(work()), rounds=10, warmup_rounds=1)
    benchmark.extra_info["commands_a_second"] = _rate(benchmark, 100)


@pytest.mark.benchmark(group="node: 1,024 barriers at once")
@pytest.mark.parametrize("where", ["leader", "follower"])
def test_barriers(benchmark, site, where):
    node = site.leader if where == "leader" else site.nodes[-1]

    async def work():
        await asyncio.gather(*(node.barrier() for _ in range(OUTSTANDING)))

    benchmark.pedantic(lambda: site.run(work()), rounds=20, warmup_rounds=1)
    benchmark.extra_info["barriers_a_second"] = _rate(benchmark, OUTSTANDING)


@pytest.mark.benchmark(group="node: 100 barriers, one after another")
def test_barriers_one_outstanding(benchmark, site):
    async def work():
        for _ in range(100):
            await site.leader.barrier()

    benchmark.pedantic(lambda: site.run(work()), rounds=10, warmup_rounds=1)
    benchmark.extra_info["barriers_a_second"] = _rate(benchmark, 100)


def _rate(benchmark, count):
    """By the median round; None where nothing was measured."""
    return round(count / benchmark.stats.stats.median) if benchmark.stats else None
