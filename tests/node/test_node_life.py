"""A node's beginning and end as others see them: what is cut short, what is waited for, and that all is given back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from node_cluster import CONFIG, PATIENCE, Journal

from raftfast import Node
from raftfast.engine import Engine


def write_on(engine: Engine) -> None:
    """From now on each job of the storage is followed by another one: there is none of which it is the last."""
    stored, numbers = engine._stored, iter(range(1 << 30))

    def and_another(job) -> None:
        stored(job)
        engine.member.propose_app(b"%d" % next(numbers), None, engine.loop.time())

    engine._stored = and_another


# ---------------------------------------------------------------------- while others write


def test_who_writes_on_does_not_hold_up_the_end(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        await node.start()
        engine = node._engine
        write_on(engine)
        await node.propose(b"first")
        async with asyncio.timeout(PATIENCE):
            await engine.settle()
            applied = engine.member.raft.last_applied
            await node.close()
        assert engine.storage.stored_index >= applied
        journal = Journal()
        async with Node(tmp_path / "n", bus_port=0, state_machine=journal, config=CONFIG) as again:
            await again.barrier()
            assert journal.commands[:2] == [b"first", b"0"]

    run_on_both(main())
