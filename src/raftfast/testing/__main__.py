"""Long runs of the simulator: `python -m raftfast.testing --seeds 10000 --nodes 3,5`.

Floor 6. The command line of the simulator, and nothing else; the one file here that may look at a real clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from typing import NamedTuple

from .simulation import Simulation, SimulationFailure, drawn_machine

__all__ = ["Outcome", "base_seed", "main", "run_seed"]


class Outcome(NamedTuple):
    """What became of one run: `failure` is empty where all held."""

    seed: int
    nodes: int
    messages: int
    checksum: int
    failure: str


def base_seed() -> int:
    """The seed to count up from: that of RAFTFAST_SIM_SEED, else a new one each time."""
    given = os.environ.get("RAFTFAST_SIM_SEED", "")
    return int(given) if given else time.time_ns() // 1_000_000 % 1_000_000_000


def run_seed(task: tuple[int, int, int]) -> Outcome:
    """One run of (seed, nodes, lines of trace to keep)."""
    seed, nodes, keep = task
    simulation = Simulation(seed, nodes, state_machine=drawn_machine(seed, nodes), keep=keep)
    failure = ""
    try:
        simulation.run()
    except SimulationFailure as error:
        failure = str(error)
    return Outcome(seed, nodes, simulation.network.messages, simulation.trace.checksum, failure)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m raftfast.testing", description="Simulated clusters, many seeds.")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds for each number of nodes")
    parser.add_argument("--first", type=int, help="the first seed; by default a new one, or RAFTFAST_SIM_SEED")
    parser.add_argument("--seed", type=int, help="this seed alone, with its whole trace")
    parser.add_argument("--nodes", default="3,5", help="numbers of nodes, with commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", type=int, default=60, help="lines of trace to print of a failure")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs what the arguments say. 0: all held."""
    options = _arguments(arguments)
    sizes = [int(size) for size in options.nodes.split(",")]
    if options.seed is not None:
        outcomes = [run_seed((options.seed, size, 1_000_000)) for size in sizes]
        for outcome in outcomes:
            print(outcome.failure or f"seed {outcome.seed}, {outcome.nodes} nodes: all held")
        return int(any(outcome.failure for outcome in outcomes))
    first = options.first if options.first is not None else base_seed()
    print(f"seeds {first} to {first + options.seeds - 1}, nodes {options.nodes}", flush=True)
    tasks = [(seed, size, options.trace) for seed in range(first, first + options.seeds) for size in sizes]
    return _run_all(tasks, options.jobs)


def _run_all(tasks: list[tuple[int, int, int]], jobs: int) -> int:
    began, messages, failed = time.monotonic(), 0, []
    with multiprocessing.Pool(jobs) as pool:
        for done, outcome in enumerate(pool.imap_unordered(run_seed, tasks), 1):
            messages += outcome.messages
            if outcome.failure:
                failed.append(outcome)
                print(f"\n{outcome.failure}", flush=True)
            if done % 50 == 0 or done == len(tasks):
                rate = messages / max(time.monotonic() - began, 0.001)
                text = f"{done} of {len(tasks)} runs, {len(failed)} failed, {messages} messages, {rate:.0f} a second"
                print(text, flush=True)
    for outcome in failed:
        print(f"FAILED: seed {outcome.seed}, {outcome.nodes} nodes")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
