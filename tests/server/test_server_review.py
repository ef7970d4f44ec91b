"""What a review from outside found on the client port: each test is a bug that was there."""

from __future__ import annotations

import asyncio

import pytest
import valkey
from server_site import ME, PATIENCE, Site, record, run

from raftfast.errors import Busy
from raftfast.server import Limits

OTHER = "b" * 40


def test_a_value_that_is_too_long_is_answered_though_it_is_still_being_sent(monkeypatch):
    """The socket was closed over unread bytes: the client saw a reset in place of the error."""
    monkeypatch.setattr("raftfast.server.connection._LINGER_SECONDS", PATIENCE)

    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$20971520\r\n" + b"x" * (20 << 20) + b"\r\n")
        await raw.writer.drain()
        assert await raw.rest() == b"-ERR Protocol error: invalid bulk length\r\n"
        raw.writer.close()
        await raw.writer.wait_closed()
        assert site.node.log == []

    run(body)


def test_who_never_stops_sending_after_a_fault_is_cut(monkeypatch):
    monkeypatch.setattr("raftfast.server.connection._LINGER_SECONDS", 0.01)

    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"*x\r\n")

        async def send_for_ever() -> None:
            while True:
                raw.writer.write(b"SET a 1\r\n" * 1000)
                await raw.writer.drain()

        with pytest.raises(ConnectionError):
            await send_for_ever()
        assert site.node.log == []

    run(body)


def test_a_closing_port_does_not_wait_for_those_who_linger():
    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"*x\r\n")
        assert await raw.rest() == b"-ERR Protocol error: invalid multibulk length\r\n"
        await site.port.close()
        assert site.port.clients == 0

    run(body)


@pytest.mark.parametrize("head", [b"POST /a HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"post x\r\n"])
def test_a_web_page_can_not_make_a_browser_send_commands(head):
    """The lines of a form that a browser was made to POST were run as commands."""

    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(head + b"\r\nSET a 1\r\nSET b 1\r\n")
        assert b"+OK" not in await raw.rest()
        assert site.node.log == []

    run(body)


def test_a_pipeline_waits_for_its_own_writes_where_the_node_has_no_more_room():
    """Only the first writes of a long pipeline were taken; the rest got `-ERR busy`."""

    async def body(site: Site) -> None:
        submit, room = site.node.submit, 3

        def bounded(command: bytes) -> asyncio.Future[bytes | None]:
            if len(site.node.waiting) >= room:
                raise Busy("full")
            return submit(command)

        site.node.submit = bounded
        raw = await site.connect()
        await raw.ask(b"INCR a\r\n" * 50, b"".join(b":%d\r\n" % number for number in range(1, 51)))
        room = 0
        await raw.ask(b"INCR a\r\n", b"-ERR busy: too many proposals are pending, try again later\r\n")

    run(body)


def test_no_reset_of_a_node_that_alone_has_the_keys():
    """A node without slots, as every new one is, threw its store away."""
    refused = b"-ERR CLUSTER RESET can't be called with master nodes containing keys\r\n"

    async def alone(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"SET a 1\r\nCLUSTER RESET\r\nCLUSTER RESET HARD\r\n", b"+OK\r\n" + refused + refused)
        assert site.node.calls == []
        await raw.ask(b"FLUSHALL\r\nCLUSTER RESET\r\n", b"+OK\r\n+OK\r\n")
        assert site.node.calls == [("reset", "soft")]

    async def among_others(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"SET a 1\r\nCLUSTER RESET\r\n", b"+OK\r\n+OK\r\n")

    run(alone)
    run(among_others, record(), record(OTHER, 7001))


@pytest.mark.parametrize(("first", "shown"), [(b"+", "+"), (b"!", "!"), (b" ", "?"), (b"\x1b", "?"), (b"\xff", "?")])
def test_a_wrong_first_byte_is_told_as_it_is(first, shown):
    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"*1\r\n" + first + b"x\r\n")
        assert await raw.rest() == f"-ERR Protocol error: expected '$', got '{shown}'\r\n".encode()

    run(body)


def test_client_info_has_what_valkey_py_reads(threaded_site):
    """valkey-py raised KeyError for the fields that were not there."""
    site = threaded_site(limits=Limits(max_clients=10))
    with valkey.Valkey(port=site.port.port) as client:
        client.client_setname("me")
        info = client.client_info()
        assert (info["name"], info["cmd"], info["multi"], info["omem"]) == ("me", "client|info", -1, 0)
        assert client.client_list()[0]["cmd"] == "client|list"
    assert site.node.node_id == ME
