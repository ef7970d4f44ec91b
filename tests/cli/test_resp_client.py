"""The blocking client against bytes that a socket brings: every reply shape, every way a reply can go wrong."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from raftfast.cli.resp_client import ReplyError, RespClient, encode_command


@pytest.fixture
def answering():
    """A server that reads one command and answers the bytes given, then closes; yields a function to set it up."""
    threads, listeners, asked = [], [], []

    def start(data: bytes, *, keep_open: bool = False, timeout: float = 60) -> RespClient:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                with suppress(ConnectionError):
                    for at in range(len(data)):
                        connection.sendall(data[at : at + 1])
                    while keep_open and connection.recv(65536):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        threads.append(thread)
        return RespClient("127.0.0.1", listener.getsockname()[1], timeout=timeout)

    start.asked = asked
    yield start
    for listener in listeners:
        listener.close()
    for thread in threads:
        thread.join(10)


def test_commands_are_arrays_of_bulk_strings():
    assert encode_command(["SET", b"\x00\r\n", 12]) == b"*3\r\n$3\r\nSET\r\n$3\r\n\x00\r\n\r\n$2\r\n12\r\n"
    assert encode_command(["é"]) == b"*1\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", "OK"),
        (b":-12\r\n", -12),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\n\r\n+x\r\n", b"\r\n+x"),
        (b"*0\r\n", []),
        (b"*3\r\n:1\r\n*1\r\n$1\r\na\r\n$-1\r\n", [1, [b"a"], None]),
    ],
)
def test_each_reply_shape(answering, data, reply):
    with answering(data) as client:
        assert client.call("PING") == reply
    assert answering.asked == [b"*1\r\n$4\r\nPING\r\n"]


def test_an_error_reply_raises_with_its_text_and_keeps_the_connection(answering):
    with answering(b"-ERR no\r\n+OK\r\n", keep_open=True) as client:
        with pytest.raises(ReplyError, match=r"^ERR no$"):
            client.call("A")
        assert client.pipeline([["B"]]) == ["OK"]


def test_a_pipeline_gives_errors_as_values(answering):
    with answering(b"+OK\r\n-ERR no\r\n:1\r\n") as client:
        first, second, third = client.pipeline([["A"], ["B"], ["C"]])
    assert (first, str(second), third) == ("OK", "ERR no", 1)
    assert isinstance(second, ReplyError)


def test_replies_before_a_break_are_kept(answering):
    client = answering(b"+OK\r\n$5\r\nab")
    replies = []
    with pytest.raises(ConnectionError, match="within a reply"):
        client.exchange(encode_command(["A"]) * 2, 2, replies)
    assert replies == ["OK"]
    with pytest.raises((OSError, ValueError)):
        client.call("A")


@pytest.mark.parametrize(
    "data",
    [b"", b"?\r\n", b"+OK\n", b":1_0\r\n", b": 1\r\n", b":\r\n", b"$x\r\n", b"$1\r\nabc\r\n", b"*1\r\n" * 40, b"\r\n"],
)
def test_what_is_no_reply_is_a_connection_error(answering, data):
    with answering(data) as client, pytest.raises(ConnectionError):
        client.call("A")


def test_no_answer_in_time_is_a_timeout(answering):
    with answering(b"+O", keep_open=True, timeout=0.2) as client, pytest.raises(TimeoutError):
        client.call("A")


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            RespClient("127.0.0.1", unused.getsockname()[1])
