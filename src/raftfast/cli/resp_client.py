"""A blocking client for the client port, as small as the command line needs it: RESP2, pipelines, time limits.

Floor 6. No pool, no retry, no cluster logic: whoever calls knows which node it talks to.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from types import TracebackType

__all__ = ["Reply", "ReplyError", "RespClient", "encode_command"]

Reply = int | str | bytes | None | list["Reply | ReplyError"]
"""A simple string is `str`, a bulk string `bytes`, a null None; an error inside an array stands as a `ReplyError`."""

Argument = str | bytes | int

_LONGEST_LINE = 64 << 10
_DEEPEST = 16


class ReplyError(Exception):
    """An error reply: its text, code first (`ERR …`)."""


def encode_command(arguments: Sequence[Argument]) -> bytes:
    """One command as a RESP array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


class RespClient:
    """One connection. After any exception but `ReplyError` it is closed: what is still to come can't be told apart."""

    def __init__(self, host: str, port: int, *, timeout: float = 5.0) -> None:
        """Connects. `timeout` is in seconds, for connecting and for each wait for bytes. Raises OSError."""
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> RespClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; may be called again."""
        self._stream.close()
        self._socket.close()

    def call(self, *arguments: Argument) -> Reply:
        """One command's reply.

        Raises:
            ReplyError: the reply was an error.
            OSError: no connection, no answer in time, or no RESP.
        """
        reply = self.pipeline([arguments])[0]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Iterable[Sequence[Argument]]) -> list[Reply | ReplyError]:
        """The replies of many commands sent in one go, error replies among them as values. Raises OSError."""
        encoded = [encode_command(command) for command in commands]
        replies: list[Reply | ReplyError] = []
        self.exchange(b"".join(encoded), len(encoded), replies)
        return replies

    def exchange(self, data: bytes, count: int, replies: list[Reply | ReplyError]) -> None:
        """Sends `data` and appends `count` replies to `replies`: those that came before a failure stay there."""
        try:
            self._socket.sendall(data)
            for _ in range(count):
                replies.append(self._reply(0))
        except BaseException:
            self.close()
            raise

    def _reply(self, depth: int) -> Reply | ReplyError:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode("utf-8", "replace")
        if kind == b"-":
            return ReplyError(rest.decode("utf-8", "replace"))
        if kind == b":":
            return self._number(rest)
        if kind == b"$":
            length = self._number(rest)
            return None if length < 0 else self._exactly(length)
        if kind == b"*" and depth < _DEEPEST:
            return [self._reply(depth + 1) for _ in range(self._number(rest))]
        raise ConnectionError(f"not a RESP2 reply: {line[:40]!r}")

    def _line(self) -> bytes:
        line = self._stream.readline(_LONGEST_LINE)
        if not line:
            raise ConnectionError("the node closed the connection")
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"not a RESP2 line: {line[:40]!r}")
        return line[:-2]

    def _number(self, text: bytes) -> int:
        digits = text[1:] if text[:1] == b"-" else text
        if not digits or not all(0x30 <= byte <= 0x39 for byte in digits):
            raise ConnectionError(f"not a number in a RESP2 reply: {text[:40]!r}")
        return int(text)

    def _exactly(self, length: int) -> bytes:
        data = self._stream.read(length + 2)
        if len(data) != length + 2:
            raise ConnectionError("the node closed the connection within a reply")
        if data[length:] != b"\r\n":
            raise ConnectionError("a bulk string without its end")
        return data[:length]
