"""State machines in the simulator: a small one of our own, and the watch that is kept over any.

Floor 5. A command in the simulator is `<number> ` and the inner machine's command: the number, never used twice, tells
which operation of the workload it is. Nothing of nodes or links may be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from ..errors import InvariantViolation, SnapshotError
from ..statemachine import StateMachine

__all__ = ["Registers", "WatchedMachine", "split_command"]


class Registers(StateMachine):
    """Named registers. `<name> <value>` writes one and answers what it held before; empty where it held nothing."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def apply(self, index: int, command: bytes) -> bytes | None:
        """Writes, and answers what was there."""
        name, _, value = command.partition(b" ")
        before = self.values.get(name, b"")
        self.values[name] = value
        return before

    def snapshot(self) -> Iterable[bytes]:
        """The registers as of now, ascending by name: `<name> <length>`, LF, the value."""
        return [b"%s %d\n%s" % (name, len(value), value) for name, value in sorted(self.values.items())]

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Takes the registers of a snapshot."""
        rest, values = b"".join(pieces), {}
        while rest:
            head, _, rest = rest.partition(b"\n")
            name, _, length = head.partition(b" ")
            if len(rest) < int(length):
                raise SnapshotError("the last register is cut off")
            values[name], rest = rest[: int(length)], rest[int(length) :]
        self.values = values


def split_command(command: bytes) -> tuple[int, bytes]:
    """(operation number, inner command)."""
    number, _, inner = command.partition(b" ")
    return int(number), inner


class WatchedMachine(StateMachine):
    """Hands commands on to the inner machine and keeps a hash over all that was applied, snapshots included.

    `applied(index, command, digest, result)` is called for each command, `restored(index, digest)` after a restore.
    The answer to a proposer is `<index> ` and the inner machine's answer.
    """

    def __init__(
        self,
        inner: StateMachine,
        applied: Callable[[int, bytes, bytes, bytes], None],
        restored: Callable[[int, bytes], None],
    ) -> None:
        self.inner = inner
        self.index = 0
        self.digest = bytes(16)
        self._applied = applied
        self._restored = restored

    def apply(self, index: int, command: bytes) -> bytes | None:
        """Applies one command, which must stand behind all that were applied before."""
        if index <= self.index:
            raise InvariantViolation(f"command {index} is applied after {self.index}")
        answer = self.inner.apply(index, split_command(command)[1])
        result = b"%d " % index + (answer if answer is not None else b"-")
        self.index = index
        self.digest = blake2b(b"%d " % index + command + result, digest_size=16, key=self.digest).digest()
        self._applied(index, command, self.digest, result)
        return result

    def snapshot(self) -> Iterable[bytes]:
        """The hash and the inner state, both as of now."""
        head = b"%d %s\n" % (self.index, self.digest.hex().encode())
        return _chained(head, self.inner.snapshot())

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Takes both back."""
        data = b"".join(pieces)
        if not data:
            self.inner.restore(())
            self.index, self.digest = 0, bytes(16)
        else:
            head, _, rest = data.partition(b"\n")
            index, digest = head.split(b" ")
            self.inner.restore([rest] if rest else [])
            self.index, self.digest = int(index), bytes.fromhex(digest.decode())
        self._restored(self.index, self.digest)


def _chained(head: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces
