"""Order, batching, back-pressure and the end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import socket
import struct
import warnings

import pytest
import uvloop
from server_site import PATIENCE, FakeNode, Site, run

from loop_turns import cancelled_after, turns
from raftfast import server
from raftfast.errors import (
    Busy,
    ConfigError,
    Conflict,
    Dropped,
    MeetError,
    NodeClosed,
    NotLinearizable,
    Rejected,
    StorageError,
    UnknownOutcome,
)
from raftfast.kv import KeyValueStore, decode_command
from raftfast.server import Limits, listener


async def until(condition) -> None:
    """Turns the loop until the condition holds; the test's own time limit ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.001)


def test_pipelined_writes_are_proposed_together_and_answered_in_order():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        raw.writer.write(b"".join(b"INCRBY n %d\r\n" % number for number in range(1, 6)))
        await until(lambda: len(site.node.waiting) == 5)
        site.node.apply()
        await raw.expect(b":1\r\n:3\r\n:6\r\n:10\r\n:15\r\n")
        assert [decode_command(line)[2] for line in site.node.log] == [b"1", b"2", b"3", b"4", b"5"]

    run(body)


def test_replies_keep_their_order_when_results_do_not():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        raw.writer.write(b"SET a 1\r\nINCR n\r\nSET b 1 GET\r\n")
        await until(lambda: len(site.node.waiting) == 3)
        for (_, future), result in reversed(
            list(zip(site.node.waiting, (b"+OK\r\n", b":1\r\n", b"$-1\r\n"), strict=True))
        ):
            future.set_result(result)
            await turns()
        await raw.expect(b"+OK\r\n:1\r\n$-1\r\n")

    run(body)


def test_a_read_sees_the_writes_before_it_and_not_those_after_it():
    async def body(site: Site) -> None:
        raw = await site.connect()
        request = b"SET a 1\r\nGET a\r\nSET a 2\r\nGET a\r\nAPPEND a x\r\nMGET a b\r\n"
        await raw.ask(request, b"+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n:2\r\n*2\r\n$2\r\n2x\r\n$-1\r\n")
        assert site.node.barriers == 1

    run(body)


def test_reads_share_a_barrier_that_began_after_they_came():
    async def body(site: Site) -> None:
        site.node.held = True
        raw, other = await site.connect(), await site.connect()
        await raw.ask(b"PING\r\n", b"+PONG\r\n")
        await other.ask(b"PING\r\n", b"+PONG\r\n")
        raw.writer.write(b"GET a\r\nGET b\r\n")
        await until(lambda: len(site.node.held_barriers) == 1)
        # these come while it is out: it may be too old for them
        raw.writer.write(b"GET c\r\n")
        other.writer.write(b"GET a\r\n")
        await until(lambda: len(site.node.held_barriers) == 2)
        site.node.held_barriers[1].set_result(None)
        await other.expect(b"$-1\r\n")
        site.node.store.apply(1, b"3:SET1:b1:x")
        site.node.held_barriers[0].set_result(None)
        await raw.expect(b"$-1\r\n$1\r\nx\r\n")
        await until(lambda: len(site.node.held_barriers) == 3)
        site.node.held_barriers[2].set_result(None)
        await raw.expect(b"$-1\r\n")

    run(body)


def test_a_barrier_runs_while_the_writes_before_the_read_do():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        raw.writer.write(b"SET a 1\r\nGET a\r\n")
        await until(lambda: site.node.waiting and site.node.held_barriers)
        site.node.held_barriers[0].set_result(None)
        await turns()
        site.node.apply()
        await raw.expect(b"+OK\r\n$1\r\n1\r\n")

    run(body)


def test_a_barrier_that_fails_fails_its_reads_and_no_others():
    async def body(site: Site) -> None:
        raw = await site.connect()
        site.node.fault = NotLinearizable("no leader")
        timeout = b"-TIMEOUT Cluster consensus not reached in time\r\n"
        await raw.ask(b"GET a\r\nPING\r\nGET b\r\n", timeout + b"+PONG\r\n" + timeout)
        site.node.fault = None
        await raw.ask(b"GET a\r\n", b"$-1\r\n")

    run(body)


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        (Busy("full"), b"-ERR busy: too many proposals are pending, try again later\r\n"),
        (UnknownOutcome("?"), b"-TIMEOUT Cluster consensus not reached in time\r\n"),
        (TimeoutError(), b"-TIMEOUT Cluster consensus not reached in time\r\n"),
        (Rejected("no"), b"-ERR proposal rejected by raft leader\r\n"),
        (Conflict("old"), b"-ERR proposal rejected due to stale shard epoch\r\n"),
        (Dropped("lost"), b"-CLUSTERDOWN The cluster is down, the command has no effect\r\n"),
        (NodeClosed("bye"), b"-ERR node is shutting down\r\n"),
        (StorageError("full\r\n"), b"-ERR disk: full  \r\n"),
        (MeetError("Cannot merge two existing clusters"), b"-ERR Cannot merge two existing clusters\r\n"),
        (ConfigError("x"), b"-ERR x\r\n"),
        (ZeroDivisionError("inner"), b"-ERR internal error\r\n"),
    ],
)
def test_errors_of_the_node_become_texts_that_clients_know(fault, reply):
    async def body(site: Site) -> None:
        raw = await site.connect()
        site.node.fault = fault
        await raw.ask(b"SET a 1\r\n", reply)
        timed_out = b"-TIMEOUT Cluster consensus not reached in time\r\n"
        await raw.ask(b"CLUSTER MEET 127.0.0.1 7001\r\n", timed_out if isinstance(fault, Dropped) else reply)
        await raw.ask(b"MULTI\r\nSET a 1\r\nEXEC\r\n", b"+OK\r\n+QUEUED\r\n*1\r\n" + reply)
        await raw.ask(b"PING\r\n", b"+PONG\r\n")

    run(body)


def test_a_node_that_refuses_at_once_or_gives_up_its_waiters_is_answered_for():
    async def body(site: Site) -> None:
        raw = await site.connect()
        site.node.held = True
        raw.writer.write(b"SET a 1\r\n")
        await until(lambda: site.node.waiting)
        site.node.waiting.pop()[1].cancel()
        await raw.expect(b"-ERR node is shutting down\r\n")

        def refuse(command: bytes) -> asyncio.Future[bytes | None]:
            raise Busy("full")

        site.node.submit = refuse
        await raw.ask(b"SET a 1\r\nSET b 1\r\n", b"-ERR busy: too many proposals are pending, try again later\r\n" * 2)

    run(body)


def test_what_waits_holds_up_what_follows_it_on_its_own_connection_only():
    async def body(site: Site) -> None:
        gate = asyncio.Event()

        async def slow(*call: object) -> None:
            await gate.wait()

        site.node.meet = slow
        raw, other = await site.connect(), await site.connect()
        raw.writer.write(b"CLUSTER MEET 127.0.0.1 7001\r\nPING\r\nSET a 1\r\n")
        await other.ask(b"PING\r\nSET a 2\r\n", b"+PONG\r\n+OK\r\n")
        gate.set()
        await raw.expect(b"+OK\r\n+PONG\r\n+OK\r\n")

    run(body)


def test_a_connection_that_goes_away_leaves_nothing_behind():
    async def body(site: Site) -> None:
        site.node.held = True
        raw, stuck = await site.connect(), await site.connect()
        raw.writer.write(b"SET a 1\r\nSET b 1\r\n")
        stuck.writer.write(b"MULTI\r\nSET c 1\r\nGET c\r\nEXEC\r\n")
        await until(lambda: len(site.node.waiting) == 3)
        for each in (raw, stuck):  # a reset, as of a process that is gone; an orderly end would wait for its answers
            sock = each.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.writer.transport.abort()
        await until(lambda: site.port.clients == 0)
        site.node.fault = UnknownOutcome("lost")
        site.node.apply()  # `run` fails the test where an exception of this is never looked at
        await turns()

    run(body)


def test_half_closed_connections_get_their_answers():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        raw.writer.write(b"SET a 1\r\nGET a\r\nPING\r\n")
        raw.writer.write_eof()
        await until(lambda: site.node.waiting)
        await turns()
        site.node.apply()
        await until(lambda: site.node.held_barriers)
        site.node.held_barriers[0].set_result(None)
        assert await raw.rest() == b"+OK\r\n$1\r\n1\r\n+PONG\r\n"

    run(body)


def test_a_reader_that_stalls_stops_its_own_commands():
    async def body(site: Site) -> None:
        site.node.store.apply(1, b"3:SET1:k%d:%b" % (1 << 20, b"v" * (1 << 20)))
        raw = await site.connect()
        ran = site.port._port
        reply = b"$1048576\r\n" + b"v" * (1 << 20) + b"\r\n"
        raw.writer.write(b"GET k\r\n" * 200)
        await until(lambda: ran.commands_run > 0 and next(iter(site.port._connections))._output_full)
        await turns()
        assert ran.commands_run < 100
        await raw.expect(reply * 200)
        assert ran.commands_run == 200

    run(body, limits=Limits(write_buffer_bytes=64 << 10))


def test_a_sender_that_floods_is_not_read_on():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        pings = b"PING\r\n" * 30_000
        raw.writer.write(b"SET a 1\r\n" + pings)
        await until(lambda: site.port._connections and not next(iter(site.port._connections))._reading)
        connection = next(iter(site.port._connections))
        assert connection._backlog_bytes < 64 * 1024 + 300 * 1024
        site.node.apply()
        await raw.expect(b"+OK\r\n" + b"+PONG\r\n" * 30_000)

    run(body, limits=Limits(max_backlog_bytes=64 << 10))


def test_writes_outstanding_on_a_connection_are_bounded():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        raw.writer.write(b"INCR n\r\n" * 10)
        await until(lambda: len(site.node.waiting) == 4)
        await turns()
        assert len(site.node.waiting) == 4
        site.node.apply(1)
        await until(lambda: len(site.node.waiting) == 4)
        site.node.held = False
        site.node.apply()
        await raw.expect(b"".join(b":%d\r\n" % number for number in range(1, 11)))

    run(body, limits=Limits(max_pipeline=4))


def test_clients_beyond_the_limit_are_told():
    async def body(site: Site) -> None:
        first, _ = await site.connect(), await site.connect()
        await first.ask(b"PING\r\n", b"+PONG\r\n")
        await until(lambda: site.port.clients == 2)
        third = await site.connect()
        assert await third.rest() == b"-ERR max number of clients reached\r\n"
        first.writer.close()
        await until(lambda: site.port.clients == 1)
        await (await site.connect()).ask(b"PING\r\n", b"+PONG\r\n")

    run(body, limits=Limits(max_clients=2))


def test_quit_answers_and_ends():
    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"SET a 1\r\nQUIT\r\nPING\r\n")
        assert await raw.rest() == b"+OK\r\n+OK\r\n"

    run(body)


def test_a_fault_is_answered_after_what_came_before_it():
    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"SET a 1\r\nGET a\r\n*1\r\n!\r\nPING\r\n")
        assert await raw.rest() == b"+OK\r\n$1\r\n1\r\n-ERR Protocol error: expected '$', got '!'\r\n"

    run(body)


def test_hostile_bytes_end_their_connection_and_nothing_else(rng: random.Random):
    pieces = [b"*", b"$", b"\r\n", b"\x00", b"\xff" * 9, b"-1", b"3", b'"', b"{", b"*2\r\n$4\r\nKEYS\r\n$3\r\n[^]\r\n"]
    pieces += [b"EXEC\r\n", b"MULTI\r\n", b"HELLO 3\r\n", b"SET a ", b"CLUSTER ", b"CONFIG SET ", b"SCAN ", b"CLIENT "]

    async def body(site: Site) -> None:
        steady = await site.connect()
        for _ in range(60):
            raw = await site.connect()
            raw.writer.write(b"".join(rng.choices(pieces, k=rng.randrange(1, 30))))
            raw.writer.write_eof()
            await raw.rest()
        await steady.ask(b"PING\r\n", b"+PONG\r\n")
        await until(lambda: site.port.clients == 1)

    run(body)


def test_every_cut_of_a_conversation_gives_the_same_replies():
    request = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nINCR n\r\nNOPE x\r\n"
    reply = b"+OK\r\n$2\r\n\r\n\r\n:%d\r\n-ERR unknown command 'NOPE', with args beginning with: 'x' \r\n"

    async def body(site: Site) -> None:
        for cut in range(1, len(request)):
            raw = await site.connect()
            raw.writer.write(request[:cut])
            await turns(3)
            raw.writer.write(request[cut:])
            await raw.expect(reply % cut)
            raw.writer.close()

    run(body)


def test_closing_ends_all_connections_and_may_be_said_twice():
    async def body(site: Site) -> None:
        site.node.held = True
        idle, waiting = await site.connect(), await site.connect()
        waiting.writer.write(b"PING\r\nSET a 1\r\n")
        await waiting.expect(b"+PONG\r\n")
        await site.port.close()
        assert await idle.rest() == await waiting.rest() == b""
        await site.port.close()
        with pytest.raises(OSError):
            await site.connect()

    run(body)


def test_closing_does_not_wait_for_a_client_that_never_reads():
    async def body(site: Site) -> None:
        site.node.store.apply(1, b"3:SET1:k%d:%b" % (8 << 20, b"v" * (8 << 20)))
        raw = await site.connect()
        raw.writer.write(b"GET k\r\n" * 4)
        await until(lambda: site.port._port.commands_run > 0)
        await site.port.close()
        assert site.port.clients == 0

    run(body)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connections_that_come_in_as_the_port_closes_are_closed_too(new_loop, monkeypatch):
    """In the backlog, accepted, with a transport, or served: it ends, at once, and nothing is left of it."""
    monkeypatch.setattr(listener, "_CLOSE_SECONDS", 2 * PATIENCE)

    async def main() -> None:
        for count in range(8):
            port = await server.serve(FakeNode())
            peers = [socket.create_connection((port.host, port.port), PATIENCE) for _ in range(2)]
            await turns(count)
            await asyncio.wait_for(port.close(), PATIENCE)
            assert port.clients == 0
            for peer in peers:
                with peer, contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(peer.recv, 10) == b""

    gc.freeze()  # so that a collection finds what is left of this test alone
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        gc.collect()
    gc.unfreeze()
    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []


def test_a_close_that_is_cancelled_cuts_its_connections(monkeypatch):
    monkeypatch.setattr(listener, "_CLOSE_SECONDS", 2 * PATIENCE)

    async def main() -> None:
        for count in range(1, 6):
            node = FakeNode(store=KeyValueStore())
            node.store.apply(1, b"3:SET1:k%d:%b" % (8 << 20, b"v" * (8 << 20)))
            port = await server.serve(node, kv=node.store)
            with socket.create_connection((port.host, port.port), PATIENCE) as peer:
                peer.sendall(b"GET k\r\n" * 4)
                await until(lambda port=port: port._port.commands_run > 0)
                (connection,) = port._connections
                assert (await cancelled_after(count, port.close())).cancelled()
                await asyncio.wait_for(connection.closed, PATIENCE)
                await port.close()
                assert port.clients == 0

    asyncio.run(main())


def test_a_port_whose_opening_is_cancelled_is_free():
    async def main() -> None:
        node = FakeNode()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        for count in itertools.count():
            opening = await cancelled_after(count, server.serve(node, port=port))
            if not opening.cancelled():
                await opening.result().close()
            with socket.create_server(("127.0.0.1", port)):
                pass
            if not opening.cancelled():
                assert count > 1
                break

    asyncio.run(main())
