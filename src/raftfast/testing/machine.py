"""State machines in the simulator: a small one of our own, and the watch that is kept over any.

Floor 6. A command in the simulator is `<number> ` and the inner machine's command: the number, never used twice, tells
which operation of the workload it is. Nothing of nodes or links may be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Protocol

from ..errors import InvariantViolation, SnapshotError
from ..statemachine import StateMachine
from .states import MachineFault, shown

__all__ = ["Registers", "Watch", "WatchedMachine", "split_command"]


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


class Watch(Protocol):
    """Who is told what a machine did."""

    def applied(self, index: int, command: bytes, digest: bytes, result: bytes) -> bool:
        """It applied a command. Whether its state should be looked at now."""

    def restored(self, index: int, digest: bytes) -> None:
        """It took a snapshot, whose last command's index is `index`; 0: it was emptied."""

    def looked_at(self, index: int, state: bytes) -> None:
        """Its state after the command of `index`."""


class WatchedMachine(StateMachine):
    """Hands commands on to the machine under test and keeps a hash over all that was applied, snapshots included.

    The answer to a proposer is `<index> ` and the machine's answer; `<index>` alone where that is None. Its state is
    what `state_of` makes of it; None: the bytes of its snapshot. Whatever the machine does wrong is a MachineFault.
    """

    def __init__(
        self, new: Callable[[], StateMachine], watch: Watch, state_of: Callable[[StateMachine], bytes] | None = None
    ) -> None:
        self.inner = new()
        self.index = 0
        self.digest = bytes(16)
        self._new = new
        self._watch = watch
        self._state_of = state_of

    def apply(self, index: int, command: bytes) -> bytes | None:
        """Applies one command, which must stand behind all that were applied before."""
        if index <= self.index:
            raise InvariantViolation(f"command {index} is applied after {self.index}")
        inner = split_command(command)[1]
        try:
            answer = self.inner.apply(index, inner)
        except Exception as error:
            raise MachineFault(f"apply({index}, {shown(inner)}) raises {error!r}") from error
        if answer is None:
            result = b"%d" % index
        elif type(answer) is bytes:
            result = b"%d %s" % (index, answer)
        else:
            raise MachineFault(f"apply({index}, {shown(inner)}) gives {answer!r}, which is neither bytes nor None")
        self.index = index
        self.digest = blake2b(b"%d " % index + command + result, digest_size=16, key=self.digest).digest()
        if self._watch.applied(index, command, self.digest, result):
            self.look()
        return result

    def look(self) -> bytes:
        """Has its state compared with that of other nodes. Returns it."""
        state = self._state(self.inner)
        self._watch.looked_at(self.index, state)
        return state

    def _state(self, machine: StateMachine) -> bytes:
        name = "snapshot()" if self._state_of is None else "digest"
        try:
            return b"".join(machine.snapshot()) if self._state_of is None else self._state_of(machine)
        except Exception as error:
            raise MachineFault(f"{name} raises {error!r} after the command of index {self.index}") from error

    def snapshot(self) -> Iterable[bytes]:
        """The hash and the machine's state, both as of now."""
        state = self.look()
        head = b"%d %s\n" % (self.index, self.digest.hex().encode())
        try:
            pieces = self.inner.snapshot()
        except Exception as error:
            raise MachineFault(f"snapshot() raises {error!r} after the command of index {self.index}") from error
        return self._iterated(head, self.index, pieces, state if self._state_of is None else None)

    def _iterated(self, head: bytes, index: int, pieces: Iterable[bytes], state: bytes | None) -> Iterator[bytes]:
        """What the pieces are, read when commands may have been applied since; they must be `state` all the same."""
        yield head
        seen = blake2b()
        try:
            for piece in pieces:
                seen.update(piece)
                yield piece
        except Exception as error:
            raise MachineFault(f"what snapshot() gave at index {index} raises {error!r} as it is iterated") from error
        if state is not None and seen.digest() != blake2b(state).digest():
            raise MachineFault(
                f"what snapshot() gave at index {index} is not the state of that moment any more when it is iterated: "
                f"commands up to {self.index} have been applied since. snapshot() must copy what apply() changes, also "
                "where it is a generator, which does not begin before it is iterated."
            )

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Takes both back. The machine gets its pieces as they are cut, and only once."""
        rest = iter(pieces)
        head = b""
        while b"\n" not in head and (piece := next(rest, None)) is not None:
            head += piece
        first, _, begun = head.partition(b"\n")
        index, digest = first.split(b" ") if first else (b"0", b"00" * 16)
        try:
            self.inner.restore(_chained(begun, rest))
        except Exception as error:
            raise MachineFault(f"restore() of a snapshot of index {int(index)} raises {error!r}") from error
        self.index, self.digest = int(index), bytes.fromhex(digest.decode())
        self._watch.restored(self.index, self.digest)
        if not first and (state := self._state(self.inner)) != (new := self._state(self._new())):
            raise MachineFault(
                f"restore(()) leaves {shown(state)}, and a new machine's state is {shown(new)}: no pieces at all stand "
                "for the state of a new one"
            )
        self.look()


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
