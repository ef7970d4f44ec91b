"""Writes from several connections at once, and the list of all that were acknowledged.

Floor 6. Every write has a key of its own, never used again: whether an unacknowledged one took effect doesn't matter,
and each acknowledged one must be found afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType

from .resp_client import Reply, ReplyError, RespClient, encode_command

__all__ = ["Load", "missing", "write_batch"]

Connect = Callable[[], RespClient]
_MGET_KEYS = 512
_RETRY_PAUSE = 0.02


class Load:
    """Writers that go on until stopped, each over one connection; one that fails takes the next node.

    Invariants: a key is in `acknowledged` only after its +OK was read; no key is sent twice.
    """

    def __init__(self, name: str, nodes: Sequence[Connect], *, writers: int = 2, depth: int = 16) -> None:
        """`name` begins every key; `depth` is how many writes of one writer are sent before its replies are read."""
        self._name = name
        self._nodes = nodes
        self._depth = depth
        self._stop = threading.Event()
        self._grown = threading.Condition()
        self._acknowledged: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(writers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Returns once no writer writes any more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged(self) -> list[str]:
        """The keys whose write was acknowledged; each holds itself as its value."""
        with self._grown:
            return list(self._acknowledged)

    def wait_for(self, count: int, *, within: float) -> bool:
        """Whether `count` writes in all were acknowledged, waiting at most `within` seconds for it."""
        with self._grown:
            return self._grown.wait_for(lambda: len(self._acknowledged) >= count, within)

    def _write(self, writer: int) -> None:
        turn, client, number = writer, None, 0
        while not self._stop.is_set():
            keys = [f"{self._name}:{writer}:{index}" for index in range(number, number + self._depth)]
            try:
                client = client or self._nodes[turn % len(self._nodes)]()
                # Keys go up even where a batch fails half-way: an unanswered write may yet take effect.
                number += self._depth
                whole = self._count(client, keys)
            except OSError:
                whole = False
            if not whole:
                if client is not None:
                    client.close()
                client, turn = None, turn + 1
                self._stop.wait(_RETRY_PAUSE)
        if client is not None:
            client.close()

    def _count(self, client: RespClient, keys: Sequence[str]) -> bool:
        """Sends one batch and notes what was acknowledged; false where anything was not."""
        replies = write_batch(client, keys)
        done = [key for key, reply in zip(keys, replies, strict=False) if reply == "OK"]
        with self._grown:
            self._acknowledged += done
            self._grown.notify_all()
        return len(done) == len(keys)


def write_batch(client: RespClient, keys: Iterable[str]) -> list[Reply | ReplyError]:
    """SETs each key to itself in one pipeline; the replies that came, fewer than keys where the connection broke."""
    encoded = [encode_command(["SET", key, key]) for key in keys]
    replies: list[Reply | ReplyError] = []
    with suppress(OSError):
        client.exchange(b"".join(encoded), len(encoded), replies)
    return replies


def missing(client: RespClient, keys: Sequence[str]) -> list[str]:
    """Those of `keys` that `client`'s node does not hold with themselves as their value. Raises OSError, ReplyError."""
    lost: list[str] = []
    for start in range(0, len(keys), _MGET_KEYS):
        part = keys[start : start + _MGET_KEYS]
        values = client.call("MGET", *part)
        if not isinstance(values, list) or len(values) != len(part):
            raise ConnectionError(f"MGET of {len(part)} keys was not answered by as many values")
        lost += [key for key, value in zip(part, values, strict=True) if value != key.encode()]
    return lost
