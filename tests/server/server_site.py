"""A node made of memory, and raw connections, for the tests of the client port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from raftfast import server
from raftfast.cluster.state import ClusterState
from raftfast.config import Config
from raftfast.kv import KeyValueStore
from raftfast.messages import Role
from raftfast.records import NodeRecord
from raftfast.status import LinkStatus, PeerStatus, Status

PATIENCE = 60.0
"""Seconds for anything at all."""

ME, SHARD = "a" * 40, "5" * 40


def record(node_id: str = ME, port: int = 7000, **given: Any) -> NodeRecord:
    """A node line as a state holds it: a voting primary unless told otherwise."""
    aux = {"tls-port": "0", "shard-id": given.pop("shard", SHARD)} | given.pop("aux", {})
    fields: dict[str, Any] = {"ip": "127.0.0.1", "cport": port + 10000, "flags": ("master",), "aux": aux} | given
    return NodeRecord(id=node_id, port=port, **fields)


class FakeNode:
    """Applies every command by itself, in order, in the loop's next turn; or, held, when it is let go."""

    def __init__(self, *records: NodeRecord, store: KeyValueStore | None = None, **config: Any) -> None:
        self.node_id = ME
        self.config = Config(**config)
        self.store = store
        self.repl_offsets: dict[str, int] = {}
        self.unjoined: list[NodeRecord] = []
        self.links: tuple[LinkStatus, ...] = ()
        self.peers: tuple[PeerStatus, ...] = ()
        self.status_changes: dict[str, Any] = {}
        self.log: list[bytes] = []
        self.calls: list[tuple[Any, ...]] = []
        self.barriers = 0
        self.fault: BaseException | None = None
        self.held = False
        self.waiting: list[tuple[bytes, asyncio.Future[bytes | None]]] = []
        self.held_barriers: list[asyncio.Future[None]] = []
        self.set_records(list(records) or [record()])

    def set_records(self, records: list[NodeRecord]) -> None:
        self.records = {each.id: each for each in records}
        self.cluster = ClusterState.from_records(records)

    def status(self) -> Status:
        status = Status(
            node_id=self.node_id,
            shard_id=SHARD,
            cluster_id="c" * 40,
            standing="member",
            role=Role.LEADER,
            learner=False,
            term=7,
            leader_id=self.node_id,
            commit_index=42,
            last_applied=41,
            boundary_index=10,
            boundary_term=3,
            last_index=43,
            durable_index=42,
            log_entries=33,
            log_bytes=1234,
            voters=frozenset({self.node_id}),
            pending=1,
            caught_up_by="snapshot",
            peers=self.peers,
            links=self.links,
            counters={"bytes_out": 11, "bytes_in": 12, "messages_out_Publish": 3},
        )
        return replace(status, **self.status_changes)

    def known_unjoined(self) -> list[NodeRecord]:
        return self.unjoined

    def state_digest(self) -> str:
        return self.store.digest() if self.store else "0" * 40

    def submit(self, command: bytes) -> asyncio.Future[bytes | None]:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.waiting.append((command, future))
        if len(self.waiting) == 1 and not self.held:
            asyncio.get_running_loop().call_soon(self.apply)
        return future

    def apply(self, count: int | None = None) -> None:
        """Applies what was submitted, the first `count` of it, and answers."""
        ready, self.waiting = self.waiting[:count], self.waiting[count:] if count is not None else []
        for command, future in ready:
            self.log.append(command)
            result = self.store.apply(len(self.log), command) if self.store else None
            if future.done():
                continue
            if self.fault is not None:
                future.set_exception(self.fault)
            else:
                future.set_result(result)

    async def barrier(self) -> None:
        self.barriers += 1
        if self.held:
            gate = asyncio.get_running_loop().create_future()
            self.held_barriers.append(gate)
            await gate
        if self.fault is not None:
            raise self.fault

    async def _called(self, *call: Any) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault

    async def meet(self, host: str, port: int, bus_port: int | None = None) -> None:
        await self._called("meet", host, port, bus_port)

    async def add_slots(self, slots: list[int]) -> None:
        await self._called("add_slots", slots)
        self._own(set(slots) | self._owned())

    async def del_slots(self, slots: list[int]) -> None:
        await self._called("del_slots", slots)
        self._own(self._owned() - set(slots))

    def _owned(self) -> set[int]:
        return {slot for first, last in self.records[ME].slots for slot in range(first, last + 1)}

    def _own(self, slots: set[int]) -> None:
        ranges: list[tuple[int, int]] = []
        for slot in sorted(slots):
            if ranges and ranges[-1][1] == slot - 1:
                ranges[-1] = (ranges[-1][0], slot)
            else:
                ranges.append((slot, slot))
        self.set_records(list((self.records | {ME: replace(self.records[ME], slots=tuple(ranges))}).values()))

    async def forget(self, node_id: str) -> None:
        await self._called("forget", node_id)

    async def reset(self, *, hard: bool = False) -> None:
        await self._called("reset", "hard" if hard else "soft")

    async def add_voter(self, node_id: str) -> None:
        await self._called("add_voter", node_id)

    async def del_voter(self, node_id: str) -> None:
        await self._called("del_voter", node_id)

    async def set_hostname(self, hostname: str) -> None:
        await self._called("set_hostname", hostname)
        self.set_records(
            [replace(each, hostname=hostname) if each.id == ME else each for each in self.records.values()]
        )


class Raw:
    """A client that speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes, reply: bytes) -> None:
        """Sends, and expects exactly `reply` next."""
        self.writer.write(request)
        await self.expect(reply)

    async def expect(self, reply: bytes) -> None:
        try:
            got = await asyncio.wait_for(self.reader.readexactly(len(reply)), PATIENCE)
        except asyncio.IncompleteReadError as error:
            got = error.partial
        assert got == reply

    async def line(self, request: bytes) -> bytes:
        """The first line that answers."""
        self.writer.write(request)
        return await asyncio.wait_for(self.reader.readline(), PATIENCE)

    async def bulk(self, request: bytes) -> bytes:
        """The string that answers, plain or verbatim."""
        head = await self.line(request)
        assert head[:1] in b"$=", head
        value = await asyncio.wait_for(self.reader.readexactly(int(head[1:]) + 2), PATIENCE)
        return value[4 if head[:1] == b"=" else 0 : -2]

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)


class Site:
    """A fake node behind an open client port."""

    def __init__(self, node: FakeNode, port: server.Server) -> None:
        self.node, self.port = node, port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Raw:
        reader, writer = await asyncio.open_connection(self.port.host, self.port.port)
        self._writers.append(writer)
        return Raw(reader, writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.port.close()


@contextlib.asynccontextmanager
async def open_site(*records: NodeRecord, kv: bool = True, **options: Any):
    """A site; `options` go to `serve`, but `config`, which is the node's."""
    store = KeyValueStore() if kv else None
    node = FakeNode(*records, store=store, **options.pop("config", {}))
    site = Site(node, await server.serve(node, kv=store, **options))
    try:
        yield site
    finally:
        await site.close()


def run(body: Callable[[Site], Awaitable[None]], *records: NodeRecord, **options: Any) -> None:
    """Runs `body` against a site of its own, under a loop in debug-free mode that must end without noise."""
    noise: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: noise.append(context))
        async with open_site(*records, **options) as site:
            await body(site)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert noise == []
