"""Simulated messages a second on one core: whole runs of drawn worlds, with faults, clients and all checks.

Run: pytest benchmarks/bench_simulator.py --benchmark-only, or

    python benchmarks/bench_simulator.py [--first 100] [--seeds 12] [--nodes 3,5] [--parts]

The first line is the rate over processor time, of each seed's better run of two. `--parts` counts the bytecodes that
each part of the code takes for a message: the same number each time, whatever else the machine does; only what compiled
code takes is not in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import raftfast
from raftfast.testing import Simulation

FOLDER = Path(raftfast.__file__).parent


def run(seed: int, nodes: int) -> int:
    """One whole run. How many messages arrived."""
    simulation = Simulation(seed, nodes, keep=60)
    simulation.run()
    return simulation.network.messages


@pytest.mark.benchmark(group="simulator: a whole run")
@pytest.mark.parametrize(("seed", "nodes"), [(100, 3), (101, 5)])
def test_a_whole_run(benchmark: Any, seed: int, nodes: int) -> None:
    messages = benchmark(run, seed, nodes)
    assert messages > 100
    benchmark.extra_info["messages"] = messages


def rate(tasks: list[tuple[int, int]]) -> tuple[int, float]:
    """(messages, seconds of this process)."""
    messages, seconds = 0, 0.0
    for task in tasks:
        times = []
        for _ in range(2):
            before = time.process_time()
            count = run(*task)
            times.append(time.process_time() - before)
        messages += count
        seconds += min(times)
    return messages, seconds


class Bytecodes:
    """Counts the bytecodes that are executed, by code object."""

    def __init__(self) -> None:
        self.counts: Counter[CodeType] = Counter()

    def __enter__(self) -> Bytecodes:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            self.counts[frame.f_code] += 1
        return self._trace

    def by_part(self) -> Counter[str]:
        """The same by folder of raftfast, and in `testing` by file; the rest is what they call of Python's library."""
        parts: Counter[str] = Counter()
        for code, count in self.counts.items():
            path = Path(code.co_filename)
            if not path.is_relative_to(FOLDER):
                parts["Python's library"] += count
            else:
                name = path.relative_to(FOLDER).with_suffix("").as_posix()
                parts[name if name.startswith("testing/") else name.split("/")[0]] += count
        return parts


def print_parts(tasks: list[tuple[int, int]]) -> None:
    with Bytecodes() as bytecodes:
        messages = sum(run(*task) for task in tasks)
    parts = bytecodes.by_part()
    total = sum(parts.values())
    print(f"{total / messages:.0f} bytecodes a message")
    for name, count in parts.most_common():
        print(f"{name:24} {count / messages:7.1f}  {100 * count / total:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--nodes", default="3,5")
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    tasks = [(seed, int(nodes)) for seed in seeds for nodes in options.nodes.split(",")]
    messages, seconds = rate(tasks)
    print(f"{len(tasks)} runs, {messages} messages, {seconds:.2f} s: {messages / seconds:.0f} a second")
    if options.parts:
        print_parts(tasks)


if __name__ == "__main__":
    main()
