"""Whole simulated clusters: new seeds each time, the same run for the same seed, and what a failure tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from worlds import DISORDER, ROUGH, SETTINGS, SLOW_DISKS, SMALL_STEPS

from raftfast import StateMachine
from raftfast.config import Config
from raftfast.testing import CALM, Faults, Registers, Simulation, SimulationFailure
from raftfast.testing.__main__ import base_seed, main, run_seed
from raftfast.testing.simulation import drawn_machine
from tally import Tally
from twins import IMPLEMENTATIONS

SOURCES = Path(__file__).resolve().parents[2] / "src"
PLAIN = Config(node_timeout=1.0)
BASE = base_seed()
COUNT = 200 if "c" in IMPLEMENTATIONS else 40
RUNS = [(BASE + offset, (3, 3, 5, 3, 4, 3, 1, 3, 3, 7)[offset % 10]) for offset in range(COUNT)]

FOUND = (
    (5, 3),
    (13, 3),
    (14, 3),
    (16, 3),
    (18, 3),
    (19, 3),
    (27, 3),
    (38, 3),
    (41, 3),
    (69, 3),
    (92, 3),
    (1047, 4),
    (7000005, 5),
    (7000170, 4),
    (7000181, 3),
    (7000432, 7),
    (8000455, 7),
    (9000791, 7),
    (11000109, 7),
    (536698791, 5),
    (21000057, 4),
    (547922123, 7),
)
"""Seeds that failed once. What each one shows may have moved with the simulator; they cost little."""


def hold(seed: int, nodes: int) -> None:
    """The run holds; a failure shows its trace whole."""
    failure = run_seed((seed, nodes, 100)).failure
    if failure:
        pytest.fail(failure, pytrace=False)


@pytest.mark.parametrize("first", range(0, len(RUNS), 10))
def test_new_seeds(first: int, tally: Tally) -> None:
    tally.add(f"simulated runs, RAFTFAST_SIM_SEED={BASE}", {"new seeds": 10})
    for seed, nodes in RUNS[first : first + 10]:
        hold(seed, nodes)


@pytest.mark.parametrize(("seed", "nodes"), FOUND)
def test_seeds_that_failed_once(seed: int, nodes: int) -> None:
    hold(seed, nodes)


FOUND_IN_WORLDS = (
    (SLOW_DISKS, SETTINGS, 15, 3),
    (SLOW_DISKS, SETTINGS, 121, 5),
    (SLOW_DISKS, SETTINGS, 135, 5),
    (ROUGH, SETTINGS, 131, 5),
    (DISORDER, SMALL_STEPS, 0, 3),
    (DISORDER, SMALL_STEPS, 230, 5),
    (DISORDER, SMALL_STEPS, 246, 5),
)


@pytest.mark.parametrize(("faults", "settings", "seed", "nodes"), FOUND_IN_WORLDS)
def test_seeds_that_failed_once_in_a_world(faults: Faults, settings: Config, seed: int, nodes: int) -> None:
    Simulation(seed, nodes, config=settings, faults=faults, keep=100).run(duration=25.0)


def test_the_same_seed_is_the_same_run() -> None:
    one, other, third = run_seed((BASE, 3, 10)), run_seed((BASE, 3, 1000)), run_seed((BASE + 1, 3, 10))
    assert one == other
    assert one.checksum != third.checksum


def test_the_same_seed_is_the_same_run_in_another_process() -> None:
    code = f"from raftfast.testing.__main__ import run_seed; print(run_seed(({BASE}, 3, 10)).checksum)"
    checksums = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SOURCES)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        checksums.add(done.stdout)
    assert len(checksums) == 1


class Forgetful(StateMachine):
    """A state machine that answers and counts by what it was told, but does not survive a snapshot whole."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.count += 1
        return b"%d" % self.count

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % (self.count // 2)]

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.count = int(b"".join(pieces) or b"0")


class Counter(Forgetful):
    """The same, right."""

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % self.count]


CRASHES = Faults(crash=0.3, partition=0.1, compact=0.5)


def test_a_users_state_machine_is_run() -> None:
    simulation = Simulation(1, 3, state_machine=Counter, command=lambda rng: b"+1", config=PLAIN, faults=CRASHES)
    simulation.run(10.0)
    counts = {node.machine.inner.count for node in simulation.nodes}  # type: ignore[attr-defined]
    assert counts == {len(simulation.workload.truth.commands)}
    assert simulation.workload.counts["done"] > 0


def test_a_users_state_machine_that_is_wrong_is_caught_and_the_failure_tells_how_to_see_it_again() -> None:
    simulation = Simulation(1, 3, state_machine=Forgetful, command=lambda rng: b"+1", config=PLAIN, faults=CRASHES)
    with pytest.raises(SimulationFailure) as failure:
        simulation.run(10.0)
    text = str(failure.value)
    assert "does restore() take all of it back?" in text
    assert "Simulation(1, 3, ...) with the same arguments and calls is the same run again" in text
    assert "AppendEntries(" in text
    assert failure.value.seed == 1


def test_a_cluster_without_a_state_machine_sends_its_snapshots_whole() -> None:
    simulation = Simulation(2, 3, state_machine=None, config=PLAIN, faults=CALM)
    simulation.form()
    leader = simulation.leader()
    assert leader is not None
    lagging = next(node for node in simulation.nodes if node is not leader)
    lagging.crash()
    for _ in range(20):
        change = simulation.workload.mark(leader)
        assert change is not None
        assert simulation.run_until(lambda: change.state == "done", 20.0)  # noqa: B023
    simulation.run_for(2 * PLAIN.trim_keep_time)
    for node in simulation.nodes:
        node.trim()
    lagging.start()
    assert simulation.run_until(lambda: lagging.member is not None and lagging.member.caught_up_by == "snapshot", 20.0)
    text = simulation.trace.text()
    assert "InstallSnapshot(" in text
    assert "SnapshotPiece(" not in text
    simulation.converge()
    with pytest.raises(ValueError, match="no state machine"):
        _ = lagging.state_machine


def test_one_seed_of_eight_of_the_command_line_has_no_state_machine() -> None:
    assert [seed for seed in range(24) if drawn_machine(seed, 3) is None] == [7, 15, 23]
    assert drawn_machine(7, 1) is Registers
    assert "--seed 7 --nodes 3" in Simulation(7, 3, state_machine=None).again
    assert "same arguments" in Simulation(7, 3).again  # the command line would run it without one
    assert run_seed((7, 2, 10)).failure == ""


@pytest.mark.parametrize(
    ("nodes", "command", "match"),
    [(3, lambda rng: b"x", "there is none"), (1, None, "needs a state machine")],
    ids=["commands", "alone"],
)
def test_what_a_run_without_a_state_machine_can_not_have(nodes: int, command: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Simulation(1, nodes, state_machine=None, command=command)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--first", "1", "--nodes", "1,3"]) == 0
    out = capsys.readouterr().out
    assert "seeds 1 to 2, nodes 1,3" in out
    assert "4 of 4 runs, 0 failed" in out
    assert main(["--seed", "1", "--nodes", "3"]) == 0
    assert "seed 1, 3 nodes: all held" in capsys.readouterr().out


def test_the_base_seed_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTFAST_SIM_SEED", "77")
    assert base_seed() == 77


# ---------------------------------------------------------------------- step by step


def formed(seed: int, nodes: int = 3) -> Simulation:
    simulation = Simulation(seed, nodes, config=PLAIN, faults=CALM)
    simulation.form()
    return simulation


def test_a_leader_that_is_cut_off_is_replaced_and_loses_nothing_that_was_acknowledged() -> None:
    simulation = formed(BASE)
    old = simulation.leader()
    assert old is not None
    others = [node for node in simulation.nodes if node is not old]
    before = simulation.propose(old, b"r1 before")
    assert simulation.run_until(lambda: before.state == "done", 5.0)
    simulation.partition([old], others)
    lost = simulation.propose(old, b"r1 lost")
    assert simulation.run_until(lambda: simulation.leader() in others, 10.0)
    new = simulation.leader()
    assert new is not None
    after = simulation.propose(new, b"r1 after")
    assert simulation.run_until(lambda: after.state == "done", 5.0)
    assert after.answer == b"before"
    simulation.run_for(5.0)
    assert lost.state != "done"
    simulation.heal()
    simulation.converge()


def test_a_read_at_a_deposed_leader_that_was_paused_is_not_stale() -> None:
    simulation = formed(BASE)
    old = simulation.leader()
    assert old is not None
    old.pause(6.0)
    read = simulation.read(old)
    assert simulation.run_until(lambda: simulation.leader() is not None and old.paused_until == 0, 4.0) is False
    new = next(
        node for node in simulation.nodes if node.member is not None and node.member.raft.is_leader and node is not old
    )
    write = simulation.propose(new, b"r0 new")
    assert simulation.run_until(lambda: write.state == "done", 5.0)
    assert simulation.run_until(lambda: read.state != "open", 10.0)
    late = simulation.read(old)
    assert simulation.run_until(lambda: late.state == "done", 10.0)
    assert late.index >= write.index


def test_all_nodes_lose_their_power_at_once_and_everything_acknowledged_is_there() -> None:
    simulation = formed(BASE)
    writes = [simulation.propose(simulation.nodes[0], b"r%d x" % number) for number in range(20)]
    assert simulation.run_until(lambda: all(write.state == "done" for write in writes), 5.0)
    for node in simulation.nodes:
        node.crash(power=True)
    for node in simulation.nodes:
        node.start()
    simulation.converge()
    for node in simulation.nodes:
        assert len(node.machine.inner.values) == 20  # type: ignore[attr-defined]


def test_a_graceful_stop_hands_over() -> None:
    simulation = formed(BASE)
    old = simulation.leader()
    assert old is not None
    simulation.stop_gracefully(old, 5.0)
    assert simulation.run_until(lambda: not old.is_up, 2.0)
    new = simulation.leader()
    assert new is not None
    assert new is not old
    assert old.disk.stored_index == old.disk.last_index
    simulation.converge()
