"""State machines of users that are wrong, each in its own way, and what the simulator says of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from random import Random

import pytest

from raftfast import Config, StateMachine
from raftfast.testing import CALM, Faults, Simulation, SimulationFailure
from raftfast.testing.__main__ import base_seed
from raftfast.testing.states import KnownStates, MachineFault, Where

CONFIG = Config(node_timeout=1.0, trim_keep=8, trim_keep_time=0.0, snapshot_piece_bytes=5)
FAULTS = Faults(crash=0.2, compact=1.0)
SEED = base_seed()
MANY = range(40)
"""Always the same seeds: what is wrong is mostly found in the first, and must be found in some."""

print(f"base seed {SEED}: RAFTFAST_SIM_SEED={SEED} runs them again")


class Sums(StateMachine):
    """Right: the sum and the count of what it was told. Those below are wrong in what they override."""

    def __init__(self) -> None:
        self.value = 0
        self.count = 0

    def apply(self, index: int, command: bytes) -> bytes | None:
        self.value += int(command)
        self.count += 1
        return b"%d" % self.value

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d " % self.value, b"%d" % self.count]

    def restore(self, pieces: Iterable[bytes]) -> None:
        value, count = (b"".join(pieces) or b"0 0").split()
        self.value, self.count = int(value), int(count)


class ByChance(Sums):
    def apply(self, index: int, command: bytes) -> None:
        self.value += random.randrange(1000)


class AnswersByChance(Sums):
    def apply(self, index: int, command: bytes) -> bytes:
        super().apply(index, command)
        return b"%d" % random.randrange(1 << 30)


class OfItsOwn(Sums):
    """Keeps something of the object, not of the commands."""

    def apply(self, index: int, command: bytes) -> None:
        self.value = id(self)


class Raises(Sums):
    def apply(self, index: int, command: bytes) -> bytes | None:
        if self.count == 5:
            raise ZeroDivisionError("the sixth")
        return super().apply(index, command)


class AnswersText(Sums):
    def apply(self, index: int, command: bytes) -> bytes:
        return "1"  # type: ignore[return-value]


class RestoresLess(Sums):
    def restore(self, pieces: Iterable[bytes]) -> None:
        super().restore(pieces)
        self.count = 0


class KeepsLess(Sums):
    """What it forgets shows in its answers only."""

    def apply(self, index: int, command: bytes) -> bytes:
        super().apply(index, command)
        return b"%d" % self.count

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % self.value]

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.value, self.count = int(b"".join(pieces) or b"0"), 0


class KeepsLessInSilence(KeepsLess):
    """What it forgets shows nowhere."""

    def apply(self, index: int, command: bytes) -> None:
        super().apply(index, command)


class TakesOnePiece(Sums):
    def restore(self, pieces: Iterable[bytes]) -> None:
        super().restore(list(pieces)[:1])


class RestoresTwice(Sums):
    """Iterates the pieces once to measure and once to read."""

    def restore(self, pieces: Iterable[bytes]) -> None:
        length = sum(map(len, pieces))
        super().restore(pieces)
        if length and not self.count:
            raise ValueError("nothing is left")


class StaysAsItIs(Sums):
    def restore(self, pieces: Iterable[bytes]) -> None:
        data = b"".join(pieces)
        if data:
            super().restore([data])


class NeedsPieces(Sums):
    def restore(self, pieces: Iterable[bytes]) -> None:
        super().restore([b"".join(pieces) + b" "] if pieces else pieces)
        value, count = b"".join(pieces).split()
        self.value, self.count = int(value), int(count)


class SnapshotRaises(Sums):
    def snapshot(self) -> Iterable[bytes]:
        raise OSError("no")


class ReadsLate(Sums):
    def snapshot(self) -> Iterable[bytes]:
        yield b"%d " % self.value
        yield b"%d" % self.count


class IteratesLate(StateMachine):
    """A dict that grows while it is iterated."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}

    def apply(self, index: int, command: bytes) -> None:
        self.values[index] = command

    def snapshot(self) -> Iterable[bytes]:
        return (b"%d %s\n" % item for item in self.values.items())

    def restore(self, pieces: Iterable[bytes]) -> None:
        lines = b"".join(pieces).splitlines()
        self.values = {int(index): command for index, command in (line.split(b" ") for line in lines)}


def number(rng: Random) -> bytes:
    return b"%d" % rng.randrange(1, 1000)


def run(new: Callable[[], StateMachine], seeds: range, digest: Callable[[StateMachine], bytes] | None = None) -> None:
    """Runs, of which the first that fails is the last."""
    for seed in seeds:
        simulation = Simulation(
            seed, state_machine=new, command=number, digest=digest, config=CONFIG, faults=FAULTS, keep=20
        )
        simulation.run(8.0)


def held(machine: StateMachine) -> bytes:
    return repr(sorted(vars(machine).items())).encode()


@pytest.mark.parametrize("digest", [None, held])
def test_one_that_is_right_passes(digest: Callable[[StateMachine], bytes] | None) -> None:
    run(Sums, range(SEED, SEED + 2), digest)


ON_APPLY = "apply() must depend on the state and the commands alone"
ON_RESTORE = "Is all of the state in what snapshot() gives, and does restore() take all of it back?"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (ByChance, [ON_APPLY, "the state is not the same on node ", "\nhere:  b'", "\nthere: b'"]),
        (AnswersByChance, [ON_APPLY, " answers the command b'"]),
        (OfItsOwn, [ON_APPLY]),
        (Raises, ["apply(", "raises ZeroDivisionError('the sixth')"]),
        (AnswersText, ["gives '1', which is neither bytes nor None"]),
        (RestoresLess, [ON_RESTORE, "after restore() of the snapshot of index "]),
        (KeepsLess, [ON_RESTORE]),
        (TakesOnePiece, ["restore() of a snapshot of index "]),
        (RestoresTwice, ["restore() of a snapshot of index "]),
        (StaysAsItIs, ["restore(()) leaves b'", "and a new machine's state is b'0 0'"]),
        (NeedsPieces, ["restore() of a snapshot of index "]),
        (SnapshotRaises, ["snapshot() raises OSError('no')"]),
        (ReadsLate, ["is not the state of that moment any more"]),
        (IteratesLate, ["as it is iterated"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_one_that_is_wrong_is_told_why(new: Callable[[], StateMachine], said: list[str]) -> None:
    with pytest.raises(SimulationFailure) as failure:
        run(new, MANY)
    assert failure.value.reason.startswith("MachineFault: ")
    for words in said:
        assert words in str(failure.value)


def test_what_no_snapshot_and_no_answer_shows_is_seen_by_a_digest_alone() -> None:
    run(KeepsLessInSilence, range(1))
    with pytest.raises(SimulationFailure) as failure:
        run(KeepsLessInSilence, MANY, held)
    assert ON_RESTORE in failure.value.reason


def test_an_error_of_the_machine_is_the_failures_cause_with_its_own_traceback() -> None:
    with pytest.raises(SimulationFailure) as failure:
        run(Raises, MANY)
    cause = failure.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    last = cause.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    assert last is not None
    assert last.tb_frame.f_code.co_qualname == "Raises.apply"


def test_a_machine_needs_commands() -> None:
    with pytest.raises(ValueError, match="give `command` too"):
        Simulation(1, state_machine=Sums)


def test_an_operation_has_the_machines_answer() -> None:
    class Silent(Sums):
        def apply(self, index: int, command: bytes) -> bytes | None:
            return {b"1": b"", b"2": b"-", b"3": b"a b"}.get(command)

    simulation = Simulation(SEED, state_machine=Silent, command=lambda rng: b"0", config=CONFIG, faults=CALM)
    simulation.form()
    operations = [simulation.propose(simulation.nodes[1], b"%d" % number) for number in range(4)]
    assert operations[0].answer is None
    assert simulation.run_until(lambda: all(operation.state == "done" for operation in operations), 10.0)
    assert [operation.answer for operation in operations] == [None, b"", b"-", b"a b"]


def test_big_states_are_looked_at_now_and_then_and_each_that_was_is_compared() -> None:
    states, here, there = KnownStates(), Where(1, None), Where(2, None)
    looked_at = []
    for index in range(1, 101):
        if states.is_due(index):
            looked_at.append(index)
            states.see(index, b"%d" % index + bytes(2000), here)
    assert looked_at[:3] == [1, 9, 17]
    assert [index for index in range(1, 101) if states.is_due(index)] == looked_at
    states.see(9, b"9" + bytes(2000), there)
    with pytest.raises(MachineFault, match=r"after the command of index 9 the state is not the same on node 2 as on"):
        states.see(9, b"9" + bytes(1999) + b"x", there)
