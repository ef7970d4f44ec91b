"""A link: delivery, limits, ends, faults. On real loopback sockets where the socket matters."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any

import pytest
from recorder import CONFIG, HELLO, ID, PATIENCE, NoSocket, Recorder, entries, new_link, open_link

from loop_turns import turns
from raftfast.errors import ProtocolError
from raftfast.hot import wire
from raftfast.messages import AppendEntriesAck, Hi, Message, ReadIndex, Unknown, Welcome
from raftfast.net import Link, LinkStats, Listener, listen
from raftfast.net import link as link_module
from raftfast.net.stats import FaultLog

BAD = b"GET / HTTP/1.1\r\n"


async def pair(ours: Recorder, theirs: Recorder, **limits: int) -> tuple[Listener, Link, Link]:
    """A listener of `theirs`, our outbound link to it, and its end of that link."""
    listener = await listen("127.0.0.1", 0, theirs, CONFIG)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: new_link(ours, outbound=True, **limits), "127.0.0.1", listener.port)
    await theirs.until(lambda: theirs.opened)
    return listener, link, theirs.opened[-1]


async def raw_peer(listener: Listener) -> socket.socket:
    """A plain connected socket, for what no link would do."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", listener.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def read_to_end(sock: socket.socket) -> bytes:
    loop, got = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(PATIENCE):
        while data := await loop.sock_recv(sock, 1 << 16):
            got += data
    return bytes(got)


def test_messages_go_both_ways_and_are_counted_alike_at_both_ends(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener, link, far = await pair(ours, theirs)
        assert (link.outbound, far.outbound) == (True, False)
        assert (link.peer_ip, link.local_ip, far.peer_ip) == ("127.0.0.1",) * 3
        assert link.id != far.id
        there: list[Message] = [HELLO, entries(3), ReadIndex(7)]
        assert link.send(there[0])
        assert link.send_many(there[1:])
        await theirs.until(lambda: len(theirs.messages) == 3)
        back: list[Message] = [Hi(ID, "127.0.0.1:1@2"), AppendEntriesAck(1, True, 3, -4, 9)]
        assert far.send_many(back)
        await ours.until(lambda: len(ours.messages) == 2)
        assert theirs.got() == there
        assert ours.got() == back
        frames = sum(len(wire.encode(message)) for message in there)
        assert link.bytes_out == far.bytes_in == frames == listener.stats.bytes_in
        assert (link.messages_out, far.messages_in, far.messages_out, link.messages_in) == (3, 3, 2, 2)
        assert listener.stats.messages_in == link.stats.messages_out == {type(each): 1 for each in there}
        link.close("enough")
        await theirs.until(lambda: theirs.closed)
        await ours.until(lambda: ours.closed)
        assert ours.reasons() == ["enough"]
        assert theirs.reasons() == ["closed by the peer"]
        await link.wait_released()
        await listener.close()

    run(main())


def test_a_big_message_crosses_whole(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener, link, _ = await pair(ours, theirs, max_frame=16 << 20, max_buffer=16 << 20)
        message = entries(1000, 4000)
        assert link.send(message)
        await theirs.until(lambda: theirs.messages)
        assert theirs.got() == [message]
        link.close("enough")
        await link.wait_released()
        await listener.close()

    run(main())


def test_byte_by_byte_gives_the_same_messages(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sent: list[Message] = [HELLO, entries(2, 5), Welcome()]
        sock = await raw_peer(listener)
        for number in b"".join(map(wire.encode, sent)):
            await asyncio.get_running_loop().sock_sendall(sock, bytes((number,)))
        await owner.until(lambda: len(owner.messages) == 3)
        assert owner.got() == sent
        sock.close()
        await owner.until(lambda: owner.closed)
        await listener.close()

    run(main())


def test_every_cut_of_two_messages_gives_the_same(run: Any) -> None:
    async def main() -> None:
        data = wire.encode(HELLO) + wire.encode(Welcome())
        for cut in range(len(data) + 1):
            owner = Recorder()
            link, _ = open_link(owner)
            link.data_received(data[:cut])
            link.data_received(data[cut:])
            assert owner.got() == [HELLO, Welcome()], cut
            link.close("enough")
        await turns()

    run(main())


def test_send_many_is_one_write_in_order(run: Any) -> None:
    async def main() -> None:
        link, transport = open_link(Recorder())
        sent = [HELLO, Welcome(), ReadIndex(1)]
        assert link.send_many(sent)
        assert transport.writes == [b"".join(map(wire.encode, sent))]
        assert link.send_many([])
        assert len(transport.writes) == 1
        assert link.send_frame(wire.encode(HELLO), HELLO)
        assert transport.writes[1:] == [wire.encode(HELLO)]
        assert link.messages_out == 4
        link.close("enough")
        await link.wait_released()

    run(main())


@pytest.mark.parametrize("before", [[], [HELLO, Welcome()]], ids=["alone", "after-good-ones"])
def test_a_protocol_error_ends_that_link_alone_after_what_came_before(run: Any, before: list[Message]) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener, good, _ = await pair(ours, theirs)
        sock = await raw_peer(listener)
        await theirs.until(lambda: len(theirs.opened) == 2)
        await asyncio.get_running_loop().sock_sendall(sock, b"".join(map(wire.encode, before)) + BAD)
        await theirs.until(lambda: theirs.closed)
        assert theirs.got() == before
        assert theirs.closed[0][0] is theirs.opened[1]
        assert theirs.reasons()[0].startswith("protocol error: ")
        assert listener.stats.protocol_errors == 1
        assert good.send(HELLO)
        await theirs.until(lambda: len(theirs.messages) == len(before) + 1)
        assert theirs.messages[-1] == (theirs.opened[0], HELLO)
        sock.close()
        good.close("enough")
        await good.wait_released()
        await listener.close()

    run(main())


def test_nothing_is_taken_after_a_protocol_error(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        link, transport = open_link(owner)
        link.data_received(BAD)
        link.data_received(wire.encode(HELLO))
        assert owner.messages == []
        assert transport.ended == "close"
        assert not link.send(HELLO)
        assert transport.writes == []
        await owner.until(lambda: owner.closed)
        await link.wait_released()

    run(main())


def test_nothing_is_taken_after_close(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        link, transport = open_link(owner)
        link.close("enough")
        link.data_received(wire.encode(HELLO))
        assert not link.send(HELLO)
        assert not link.send_many([HELLO, Welcome()])
        assert not link.send_frame(wire.encode(HELLO), HELLO)
        await link.wait_released()
        assert (owner.messages, transport.writes) == ([], [])
        assert link.stats.unsent == 4

    run(main())


def test_protocol_errors_are_logged_once_an_interval_a_peer(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        stats = LinkStats()
        stats.faults = FaultLog(PATIENCE)  # a second may pass between two of them
        for peer in ("10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.2"):
            link = Link(Recorder(), outbound=False, max_frame=1 << 20, max_buffer=1 << 20, stats=stats)
            link.connection_made(NoSocket(link, peer=(peer, 1)))
            link.data_received(BAD)
        await turns()
        assert stats.protocol_errors == 4

    with caplog.at_level(logging.WARNING, logger="raftfast.net"):
        run(main())
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["10.0.0.2", "10.0.0.3"]


def test_an_owner_that_closes_while_good_messages_of_a_bad_batch_are_delivered(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        owner.on_messages = lambda link, messages: link.close("seen enough")
        link, _ = open_link(owner)
        link.data_received(wire.encode(HELLO) + BAD)
        await owner.until(lambda: owner.closed)
        assert owner.reasons() == ["seen enough"]
        assert link.stats.protocol_errors == 1
        await link.wait_released()

    run(main())


def test_a_slow_reader_is_closed_at_the_limit(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await owner.until(lambda: owner.opened)
        link = owner.opened[0]
        link.max_buffer = 300_000
        message = entries(20, 1000)
        while link.send(message):
            assert link.buffered <= link.max_buffer
            await asyncio.sleep(0)
        assert link.close_reason == "send buffer limit"
        assert owner.closed == [], "told from inside send"
        await owner.until(lambda: owner.closed)
        assert owner.reasons() == ["send buffer limit"]
        assert (listener.stats.buffer_limit_exceeded, listener.stats.unsent) == (1, 1)
        await link.wait_released()
        sock.close()
        await listener.close()

    run(main())


@pytest.mark.parametrize(("waiting", "fits"), [(0, True), (1, False), (1 << 20, False)])
def test_the_limit_is_exact(run: Any, waiting: int, fits: bool) -> None:
    async def main() -> None:
        frame = wire.encode(HELLO)
        link, transport = open_link(Recorder(), max_buffer=len(frame))
        transport.waiting = waiting
        assert link.send(HELLO) is fits
        assert transport.writes == ([frame] if fits else [])
        assert transport.ended == (None if fits else "abort")
        link.close("enough")
        await link.wait_released()

    run(main())


def test_writable_follows_what_waits(run: Any) -> None:
    async def main() -> None:
        link = new_link(Recorder())
        assert not link.writable
        transport = NoSocket(link)
        link.connection_made(transport)
        assert link.writable
        transport.waiting = 12
        assert link.buffered == 12
        link.pause_writing()
        assert not link.writable
        link.resume_writing()
        assert link.writable
        link.close("enough")
        assert not link.writable
        await link.wait_released()
        assert link.buffered == 0

    run(main())


def test_a_message_that_can_not_be_sent_raises_and_nothing_is_sent(run: Any) -> None:
    async def main() -> None:
        link, transport = open_link(Recorder(), max_frame=2000)
        with pytest.raises(ProtocolError, match="max_frame"):
            link.send(entries(1, 3000))
        with pytest.raises(ProtocolError, match="max_frame"):
            link.send_many([HELLO, entries(1, 3000)])
        with pytest.raises(ProtocolError):
            link.send_many([HELLO, Unknown("WHAT")])
        assert transport.writes == []
        assert link.messages_out == link.bytes_out == 0
        assert link.send(HELLO), "the link itself is unharmed"
        link.close("enough")
        await link.wait_released()

    run(main())


def test_close_still_sends_what_waits(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LINGER", PATIENCE)

    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await owner.until(lambda: owner.opened)
        link, message = owner.opened[0], entries(8000, 1000)
        assert link.send(message)
        assert link.buffered > 0, "the test needs bytes that wait"
        link.close("enough")
        assert await read_to_end(sock) == wire.encode(message)
        await link.wait_released()
        sock.close()
        await listener.close()

    run(main())


def test_close_cuts_a_peer_that_reads_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LINGER", 0.01)

    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await owner.until(lambda: owner.opened)
        link = owner.opened[0]
        assert link.send(entries(8000, 1000))
        link.close("enough")
        async with asyncio.timeout(PATIENCE):
            await link.wait_released()
        assert owner.reasons() == ["enough"]
        sock.close()
        await listener.close()

    run(main())


def test_abort_after_close_cuts_at_once(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LINGER", 3600.0)

    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await owner.until(lambda: owner.opened)
        link = owner.opened[0]
        assert link.send(entries(8000, 1000))
        link.close("first")
        link.abort("second")
        async with asyncio.timeout(PATIENCE):
            await link.wait_released()
        assert owner.reasons() == ["first"]
        sock.close()
        await listener.close()

    run(main())


def test_the_owner_is_told_once_and_never_from_inside(run: Any) -> None:
    async def main() -> None:
        for end in (Link.close, Link.abort):
            owner = Recorder()
            link, _ = open_link(owner)
            end(link, "first")
            end(link, "again")
            link.close("and again")
            assert owner.closed == []
            await owner.until(lambda owner=owner: owner.closed)
            await link.wait_released()
            link.abort("too late")
            await turns()
            assert owner.reasons() == ["first"]
            assert owner.told == ["opened", "closed"]

    run(main())


def test_an_owner_may_close_a_link_as_it_opens(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        theirs.on_opened = lambda link: link.close("not you")
        listener, link, far = await pair(ours, theirs)
        await theirs.until(lambda: theirs.closed)
        await ours.until(lambda: ours.closed)
        assert theirs.told == ["opened", "closed"]
        assert theirs.reasons() == ["not you"]
        await far.wait_released()
        await link.wait_released()
        await listener.close()

    run(main())


def test_a_link_closed_before_it_is_connected_never_reaches_its_owner(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        link = new_link(owner)
        assert not link.send(HELLO)
        link.close("changed my mind")
        await link.wait_released()
        transport = NoSocket(link)
        link.connection_made(transport)
        assert transport.ended == "abort"
        await turns()
        assert owner.told == []

    run(main())


def test_an_end_inside_a_frame_is_told_as_that(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await asyncio.get_running_loop().sock_sendall(sock, wire.encode(HELLO)[:-1])
        sock.close()
        await owner.until(lambda: owner.closed)
        assert owner.reasons() == ["closed by the peer inside a frame"]
        assert owner.messages == []
        await listener.close()

    run(main())


def test_a_half_closed_connection_ends_after_what_it_brought(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        owner.on_messages = lambda link, messages: link.send(Welcome()) and None
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await asyncio.get_running_loop().sock_sendall(sock, wire.encode(HELLO))
        sock.shutdown(socket.SHUT_WR)
        assert await read_to_end(sock) == wire.encode(Welcome())
        await owner.until(lambda: owner.closed)
        assert owner.got() == [HELLO]
        assert owner.reasons() == ["closed by the peer"]
        sock.close()
        await listener.close()

    run(main())


def test_a_reset_connection_is_told_in_plain_words(run: Any) -> None:
    async def main() -> None:
        owner = Recorder()
        listener = await listen("127.0.0.1", 0, owner, CONFIG)
        sock = await raw_peer(listener)
        await owner.until(lambda: owner.opened)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await owner.until(lambda: owner.closed)
        assert owner.reasons() == ["lost: Connection reset by peer"]
        await listener.close()

    run(main())


@pytest.mark.parametrize("callback", ["on_opened", "on_messages", "on_closed"])
def test_an_owner_that_raises_loses_that_link_alone(run: Any, callback: str) -> None:
    async def main() -> None:
        reported: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        healthy, broken = Recorder(), Recorder()

        def fail(*_: object) -> None:
            raise ZeroDivisionError("owner's bug")

        setattr(broken, callback, fail)
        good, _ = open_link(healthy)
        bad, _ = open_link(broken)
        bad.data_received(wire.encode(HELLO))
        if callback == "on_closed":
            bad.close("enough")
        await broken.until(lambda: broken.closed)
        await bad.wait_released()
        assert broken.reasons() == ["enough" if callback == "on_closed" else "its owner failed"]
        assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]
        good.data_received(wire.encode(HELLO))
        assert healthy.got() == [HELLO]
        good.close("enough")
        await good.wait_released()

    run(main())


def test_a_port_connected_to_itself_is_no_link(run: Any) -> None:
    async def main() -> None:
        loop, owner = asyncio.get_running_loop(), Recorder()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            here = probe.getsockname()
        _, link = await loop.create_connection(lambda: new_link(owner, outbound=True), *here, local_addr=here)
        await link.wait_released()
        assert link.close_reason == "connected to itself"
        assert owner.told == []

    run(main())


def test_the_socket_has_its_options(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener, link, far = await pair(ours, theirs)
        for end in (link, far):
            sock = end._transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        link.close("enough")
        await link.wait_released()
        await listener.close()

    run(main())


@pytest.mark.parametrize(
    ("address", "ip"),
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("::ffff:10.0.0.1", 1, 0, 0), "10.0.0.1"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::1"),
        (("2001:db8::1", 1, 0, 0), "2001:db8::1"),
        (None, ""),
        ("", ""),
        (("not an ip", 1), "not an ip"),
    ],
)
def test_ips_are_kept_as_they_are_announced(address: Any, ip: str) -> None:
    assert link_module._ip(address) == ip


def test_links_say_what_they_are(run: Any) -> None:
    async def main() -> None:
        link, _ = open_link(Recorder())
        assert repr(link) == f"<Link {link.id} from 10.0.0.2: open>"
        link.close("enough")
        assert repr(link) == f"<Link {link.id} from 10.0.0.2: enough>"
        await link.wait_released()

    run(main())
