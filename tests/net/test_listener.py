"""The bus port: opening it, errors of one line, closing it with all that came in."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from typing import Any

import pytest
from recorder import CONFIG, HELLO, PATIENCE, NoSocket, Recorder, entries, new_link

from loop_turns import cancelled_after, turns
from raftfast.errors import ConfigError
from raftfast.hot import wire
from raftfast.net import LinkStats, listen
from raftfast.net import link as link_module


def test_a_port_in_use_is_one_clear_line(run: Any) -> None:
    async def main() -> None:
        first = await listen("127.0.0.1", 0, Recorder(), CONFIG)
        with pytest.raises(OSError, match="cannot listen") as caught:
            await listen("127.0.0.1", first.port, Recorder(), CONFIG)
        assert str(caught.value) == f"cannot listen on 127.0.0.1:{first.port}: Address already in use"
        assert caught.value.errno == errno.EADDRINUSE
        await first.close()

    run(main())


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
        ("a..b", "cannot listen on a..b:0: "),
    ],
)
def test_an_address_that_is_not_ours_is_one_clear_line(run: Any, host: str, text: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="cannot listen") as caught:
            await listen(host, 0, Recorder(), CONFIG)
        assert str(caught.value).startswith(text)
        assert "\n" not in str(caught.value)
        assert "Errno" not in str(caught.value)

    run(main())


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port(run: Any, port: int) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=f"not {port}"):
            await listen("127.0.0.1", port, Recorder(), CONFIG)

    run(main())


def test_close_ends_its_links_and_frees_the_port(run: Any) -> None:
    async def main() -> None:
        ours, theirs, stats = Recorder(), Recorder(), LinkStats()
        listener = await listen("127.0.0.1", 0, theirs, CONFIG, stats=stats)
        port, loop = listener.port, asyncio.get_running_loop()
        for _ in range(3):
            await loop.create_connection(lambda: new_link(ours, outbound=True), "127.0.0.1", port)
        await theirs.until(lambda: len(theirs.opened) == 3)
        await listener.close("good night")
        assert theirs.reasons() == ["good night"] * 3, "told before close returns"
        assert listener.port == 0
        assert (stats.links_opened, stats.links_closed) == (3, 3)
        await ours.until(lambda: len(ours.closed) == 3)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(lambda: new_link(ours, outbound=True), "127.0.0.1", port)
        await listener.close()
        again = await listen("127.0.0.1", port, theirs, CONFIG)
        assert again.port == port
        await again.close()
        for link in ours.opened:
            await link.wait_released()

    run(main())


def test_a_connection_that_was_being_taken_when_the_port_closed_is_cut(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        await listener.close()
        late = listener._accept()
        transport = NoSocket(late)
        late.connection_made(transport)
        assert transport.ended == "abort"
        await turns()
        assert owner.told == []

    run(main())


def test_an_empty_host_is_every_address(run: Any) -> None:
    async def main() -> None:
        owner, loop = Recorder(), asyncio.get_running_loop()
        everywhere = await listen("", 0, owner, CONFIG)
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", everywhere.port))
        await loop.sock_sendall(sock, wire.encode(HELLO))
        await owner.until(lambda: owner.messages)
        assert owner.opened[0].peer_ip == "127.0.0.1"
        sock.close()
        await owner.until(lambda: owner.closed)
        await everywhere.close()

    run(main())


def test_a_connection_that_comes_in_as_the_port_closes_is_closed_too(run: Any) -> None:
    """Accepted, but no transport yet: asyncio's own server forgets such a socket (a ResourceWarning here)."""

    async def main() -> None:
        for count in range(4):
            listener = await listen("127.0.0.1", 0, Recorder(), CONFIG)
            with socket.socket() as peer:
                peer.setblocking(False)
                peer.connect_ex(("127.0.0.1", listener.port))
                await turns(count)
                await listener.close()
            await turns()

    run(main())


def test_a_close_that_is_cancelled_closes_the_port_and_cuts_its_links(run: Any, monkeypatch: Any) -> None:
    """At each of its awaits, the last of which is for a peer that reads nothing."""
    monkeypatch.setattr(link_module, "LINGER", 2 * PATIENCE)

    async def main() -> None:
        for count in range(1, 6):
            owner = Recorder()
            listener = await listen("127.0.0.1", 0, owner, CONFIG)
            with socket.create_connection(("127.0.0.1", listener.port)) as peer:
                await owner.until(lambda owner=owner: owner.opened)
                (link,) = owner.opened
                while not link.buffered:
                    assert link.send(entries(500))
                assert (await cancelled_after(count, listener.close("good night"))).cancelled()
                await asyncio.wait_for(link.wait_released(), PATIENCE)
                assert owner.reasons() == ["good night"]
                assert listener.port == 0
                peer.close()
                await listener.close()

    run(main())


def test_a_port_whose_opening_is_cancelled_is_free(run: Any) -> None:
    """At each of its awaits: asyncio's own `create_server`, cancelled at the last one, leaves the port open."""

    async def main() -> None:
        first = await listen("127.0.0.1", 0, Recorder(), CONFIG)
        port = first.port
        await first.close()
        for count in itertools.count():
            opening = await cancelled_after(count, listen("127.0.0.1", port, Recorder(), CONFIG))
            if not opening.cancelled():
                await opening.result().close()
            with socket.create_server(("127.0.0.1", port)):
                pass
            if not opening.cancelled():
                assert count > 1
                break

    run(main())
